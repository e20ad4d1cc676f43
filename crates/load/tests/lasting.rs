//! Sessions that outlive their connections: who asks for one, and that none stays behind.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "others tell more lies")]
mod liar;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use casemate_codec::{QoS, Version};
use casemate_load::{run, Lasting, Moment, Pace, Plan, Shape, Standing, Target, Watcher};
use liar::{start_noting, Connects, Greeting, Lie};

/// Ends the run at the given moment.
struct Ending(Option<Moment>);

impl Watcher for Ending {
    fn watch(&mut self, moment: Moment, _: &Standing) -> ControlFlow<()> {
        match self.0 == Some(moment) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

/// Messages of three publishers to three subscribers whose sessions last a minute.
fn plan(address: SocketAddr) -> Plan {
    Plan {
        target: Target {
            address,
            version: Version::V311,
            client_id: "c".to_owned(),
            username: None,
            password: None,
            keep_alive_s: 60,
            tls: None,
            websocket: None,
        },
        shape: Shape::Pairs { pairs: 3 },
        pace: Pace::Saturate { window: 50 },
        publish_qos: QoS::AtMostOnce,
        subscribe_qos: QoS::AtMostOnce,
        payload_bytes: 64,
        retain: false,
        topic_alias: false,
        properties: false,
        lasting: Some(Lasting {
            expiry_s: 60,
            left_behind: false,
        }),
        inflight_max: 20,
        topic: "bench/lasting".to_owned(),
        topics_per_publisher: 1,
        single_filters: false,
        connecting_max: 2,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(60),
        grace: Duration::from_millis(500),
        setup_max: Duration::from_secs(20),
        messages_max: 60,
    }
}

/// Who connected, in the order of their names, with what they said of a clean session.
fn told(connects: &Connects) -> Vec<(String, bool)> {
    let mut told = connects.lock().unwrap().clone();
    // The order of one client's is kept.
    told.sort_by(|one, other| one.0.cmp(&other.0));
    told
}

/// The same in short: `id` for a clean session, `id+` for one that lasts.
fn shown(connects: &Connects) -> String {
    let told = told(connects);
    let words = told.iter().map(|(id, clean)| match clean {
        true => id.clone(),
        false => format!("{id}+"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn subscribers_alone_have_sessions_that_last_and_discard_them_at_the_end() {
    let (address, connects) = start_noting(Greeting::Welcome, Lie::None);
    let report = run(&plan(address), &mut Ending(None)).unwrap();
    assert_eq!((report.delivered, report.lost, report.failed), (60, 0, 0));
    assert_eq!(shown(&connects), "c0+ c0 c1+ c1 c2+ c2 c3 c4 c5");
}

#[test]
fn sessions_stay_where_the_plan_leaves_them_behind_and_end_where_it_has_none() {
    for (lasting, expected) in [(true, "c0+ c1+ c2+ c3 c4 c5"), (false, "c0 c1 c2 c3 c4 c5")] {
        let (address, connects) = start_noting(Greeting::Welcome, Lie::None);
        let mut plan = plan(address);
        plan.lasting = lasting.then_some(Lasting {
            expiry_s: 60,
            left_behind: true,
        });
        let report = run(&plan, &mut Ending(None)).unwrap();
        assert_eq!((report.delivered, report.failed), (60, 0));
        assert_eq!(shown(&connects), expected);
    }
}

#[test]
fn a_run_that_is_ended_early_discards_them_too() {
    let (address, connects) = start_noting(Greeting::Welcome, Lie::None);
    let mut plan = plan(address);
    plan.messages_max = u64::from(u32::MAX);
    let report = run(&plan, &mut Ending(Some(Moment::Begins))).unwrap();
    assert!(report.ended_early);
    assert_eq!(report.failed, 0);
    assert_eq!(shown(&connects), "c0+ c0 c1+ c1 c2+ c2 c3 c4 c5");
}

#[test]
fn a_session_of_somebody_else_ends_the_run_and_is_not_discarded() {
    let (address, connects) = start_noting(Greeting::Remember, Lie::None);
    let error = run(&plan(address), &mut Ending(None))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("has kept a session of this client id"),
        "{error}"
    );
    let told = told(&connects);
    assert!(told.iter().all(|(_, clean)| !clean), "{told:?}");
}

#[test]
fn a_session_that_may_have_stayed_is_counted_and_said() {
    let (address, _) = start_noting(Greeting::RefuseSecond, Lie::None);
    let report = run(&plan(address), &mut Ending(None)).unwrap();
    assert_eq!((report.delivered, report.failed), (60, 3));
    let said = report.first_failure.unwrap();
    assert!(
        said.contains("may have stayed") && said.contains("refused"),
        "{said}"
    );
}

#[test]
fn idle_clients_have_sessions_that_last_as_well() {
    let (address, connects) = start_noting(Greeting::Welcome, Lie::None);
    let mut plan = plan(address);
    plan.shape = Shape::Idle { connections: 2 };
    plan.measured = Duration::from_millis(1);
    let report = run(&plan, &mut Ending(None)).unwrap();
    assert_eq!((report.connected, report.failed), (2, 0));
    assert_eq!(shown(&connects), "c0+ c0 c1+ c1");
}
