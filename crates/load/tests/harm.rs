//! What a broker does wrong is counted as what it is, and what it refuses is said.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[allow(dead_code, reason = "others tell more lies")]
mod liar;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use casemate_codec::{QoS, Reason, Version};
use casemate_load::{run, LoadError, Moment, Pace, Plan, Report, Shape, Standing, Target, Watcher};
use liar::{start, Greeting, Lie};

/// Notes the moments, and ends the run at the given one.
#[derive(Default)]
struct Notes {
    moments: Vec<Moment>,
    end_at: Option<Moment>,
}

impl Watcher for Notes {
    fn watch(&mut self, moment: Moment, _: &Standing) -> ControlFlow<()> {
        if self.moments.last() != Some(&moment) {
            self.moments.push(moment);
        }
        match self.end_at == Some(moment) {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }
}

fn plan(address: SocketAddr, shape: Shape) -> Plan {
    Plan {
        target: Target {
            address,
            version: Version::V311,
            client_id: "liar-".to_owned(),
            username: None,
            password: None,
            keep_alive_s: 60,
            tls: None,
            websocket: None,
        },
        shape,
        pace: Pace::Saturate { window: 50 },
        publish_qos: QoS::AtMostOnce,
        subscribe_qos: QoS::AtMostOnce,
        payload_bytes: 64,
        retain: false,
        topic_alias: false,
        properties: false,
        lasting: None,
        inflight_max: 20,
        topic: "bench/liar".to_owned(),
        topics_per_publisher: 1,
        single_filters: false,
        connecting_max: 10,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(60),
        grace: Duration::from_millis(500),
        setup_max: Duration::from_secs(20),
        messages_max: 205,
    }
}

/// 205 messages of one publisher to one of two subscribers, and what came of them.
fn harm_of(lie: Lie) -> Report {
    let address = start(Greeting::Welcome, lie);
    let mut plan = plan(address, Shape::Pairs { pairs: 2 });
    plan.messages_max = 205;
    if lie == Lie::Lose || lie == Lie::Misroute {
        // Nothing more comes of it, and a window would wait for what was lost.
        plan.pace = Pace::Rate { per_s: 20_000.0 };
        plan.measured = Duration::from_secs(1);
    }
    run(&plan, &mut Notes::default()).unwrap()
}

fn counts(report: &Report) -> [u64; 5] {
    [
        report.lost,
        report.duplicated,
        report.reordered,
        report.misrouted,
        report.qos_changed,
    ]
}

#[test]
fn an_honest_broker_is_accused_of_nothing() {
    let report = harm_of(Lie::None);
    assert_eq!(counts(&report), [0; 5]);
    assert_eq!((report.expected, report.unsent, report.stalls), (205, 0, 0));
    assert_eq!((report.published, report.delivered), (205, 205));
}

#[test]
fn messages_that_do_not_come_are_lost() {
    let report = harm_of(Lie::Lose);
    let [lost, rest @ ..] = counts(&report);
    assert_eq!(rest, [0; 4]);
    // Every 10th of each subscriber, whose shares of 205 may differ by one publisher's turn.
    assert!((19..=20).contains(&lost), "{lost}");
}

#[test]
fn messages_that_come_twice_are_duplicates() {
    let report = harm_of(Lie::Repeat);
    let [lost, duplicated, rest @ ..] = counts(&report);
    assert_eq!((lost, rest), (0, [0; 3]));
    assert!((19..=20).contains(&duplicated), "{duplicated}");
}

#[test]
fn messages_that_come_after_their_successors_are_reordered() {
    let report = harm_of(Lie::Swap);
    let [lost, duplicated, reordered, rest @ ..] = counts(&report);
    // The last one that was held back may have had no successor to follow.
    assert!(lost <= 2 && duplicated == 0 && rest == [0; 2], "{report:?}");
    assert!((17..=20).contains(&reordered), "{reordered}");
}

#[test]
fn messages_that_go_to_somebody_else_are_misrouted_and_lost() {
    let report = harm_of(Lie::Misroute);
    let [lost, duplicated, reordered, misrouted, changed] = counts(&report);
    assert_eq!((duplicated, reordered, changed), (0, 0, 0));
    assert_eq!(lost, misrouted);
    assert!((19..=20).contains(&misrouted), "{misrouted}");
}

#[test]
fn messages_of_another_qos_are_noticed_and_counted_as_delivered() {
    let report = harm_of(Lie::Raise);
    let [lost, duplicated, reordered, misrouted, changed] = counts(&report);
    assert_eq!((lost, duplicated, reordered, misrouted), (0, 0, 0, 0));
    assert!((19..=20).contains(&changed), "{changed}");
}

#[test]
fn a_window_goes_on_after_a_loss_and_says_how_often_it_stood() {
    let address = start(Greeting::Welcome, Lie::Lose);
    let mut plan = plan(address, Shape::Pairs { pairs: 1 });
    plan.pace = Pace::Saturate { window: 1 };
    plan.messages_max = 12;
    let report = run(&plan, &mut Notes::default()).unwrap();
    assert_eq!((report.lost, report.stalls, report.delivered), (1, 1, 11));
}

fn fault_of(greeting: Greeting) -> String {
    let address = start(greeting, Lie::None);
    let mut plan = plan(address, Shape::Pairs { pairs: 1 });
    plan.setup_max = Duration::from_millis(300);
    run(&plan, &mut Notes::default()).unwrap_err().to_string()
}

#[test]
fn a_broker_that_does_not_let_the_clients_in_is_quoted() {
    let table: [(Greeting, &str); 9] = [
        (
            Greeting::Refuse(Reason::NotAuthorized),
            "refused the connection: not authorized",
        ),
        (Greeting::RefuseSubscriptions, "refused a subscription"),
        (
            Greeting::Close,
            "closed the connection before it answered CONNECT",
        ),
        (Greeting::Silence, "only 0 of 2 clients were ready in time"),
        (
            Greeting::Garbage(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
            "sent no MQTT",
        ),
        (
            Greeting::Garbage(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]),
            "passes the maximum",
        ),
        (
            Greeting::Garbage(&[0x40, 2, 0, 1]),
            "acknowledgement of what was not sent",
        ),
        // CVE-2024-10525: a SUBACK without a code.
        (Greeting::Garbage(&[0x90, 2, 0, 1]), "sent no MQTT"),
        (
            Greeting::Garbage(&[0x90, 3, 0, 1, 0]),
            "SUBACK that answers nothing",
        ),
    ];
    for (greeting, words) in table {
        let said = fault_of(greeting);
        assert!(
            said.to_lowercase().contains(&words.to_lowercase()),
            "{greeting:?}: {said}"
        );
    }
}

#[test]
fn nobody_there_is_said_as_it_is() {
    let gone = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let plan = plan(address, Shape::Pairs { pairs: 1 });
    let said = run(&plan, &mut Notes::default()).unwrap_err().to_string();
    assert!(said.contains("refused"), "{said}");
}

#[test]
fn a_watcher_sees_each_moment_and_can_end_the_run_at_any() {
    let address = start(Greeting::Welcome, Lie::None);
    let mut plan = plan(address, Shape::Pairs { pairs: 1 });
    plan.messages_max = u64::from(u32::MAX);
    plan.measured = Duration::from_millis(300);
    plan.warm_up = Duration::from_millis(300);
    let mut notes = Notes::default();
    let report = run(&plan, &mut notes).unwrap();
    assert!(!report.ended_early);
    let begins = notes
        .moments
        .iter()
        .position(|it| *it == Moment::Begins)
        .unwrap();
    assert!(notes.moments[..begins].contains(&Moment::WarmingUp));
    let rest: Vec<_> = notes.moments[begins..].iter().take(3).collect();
    assert_eq!(rest, [&Moment::Begins, &Moment::Measuring, &Moment::Ends]);
    plan.measured = Duration::from_secs(60);
    for end_at in [Moment::WarmingUp, Moment::Begins, Moment::Measuring] {
        let mut notes = Notes {
            end_at: Some(end_at),
            ..Notes::default()
        };
        // Who listened in the run before is gone, and the broker here does not forget.
        plan.topic = format!("bench/{end_at:?}");
        let report = run(&plan, &mut notes).unwrap();
        assert!(report.ended_early && report.measured < Duration::from_secs(30));
        assert_eq!((report.lost, report.unsent), (0, 0));
    }
}

#[test]
fn a_run_that_is_ended_while_it_connects_has_nothing_to_report() {
    let address = start(Greeting::Silence, Lie::None);
    let plan = plan(address, Shape::Pairs { pairs: 1 });
    let mut notes = Notes {
        end_at: Some(Moment::Connecting),
        ..Notes::default()
    };
    let ended = run(&plan, &mut notes);
    assert!(matches!(ended, Err(LoadError::Ended)), "{ended:?}");
}

#[test]
fn a_storm_counts_what_came_about_and_what_did_not() {
    let table = [
        (Greeting::Welcome, 200, 0, ""),
        (
            Greeting::Refuse(Reason::ServerUnavailable),
            0,
            200,
            "server unavailable",
        ),
        (Greeting::Close, 0, 200, "closed the connection"),
    ];
    for (greeting, connected, failed, words) in table {
        let address = start(greeting, Lie::None);
        let mut plan = plan(address, Shape::Connects { connections: 200 });
        plan.setup_max = Duration::from_secs(10);
        let report = run(&plan, &mut Notes::default()).unwrap();
        assert_eq!(
            (report.connected, report.failed),
            (connected, failed),
            "{greeting:?}"
        );
        assert_eq!(report.connecting.count, connected);
        let said = report.first_failure.unwrap_or_default().to_lowercase();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_storm_at_a_rate_counts_the_wait_of_those_that_could_not_begin() {
    let address = start(Greeting::Silence, Lie::None);
    let mut plan = plan(address, Shape::Connects { connections: 100 });
    plan.pace = Pace::Rate { per_s: 1_000.0 };
    plan.connecting_max = 2;
    plan.measured = Duration::from_millis(200);
    let report = run(&plan, &mut Notes::default()).unwrap();
    // Two have begun, nobody was answered, and the others were due.
    assert_eq!((report.connected, report.unsent), (0, 98));
}

#[test]
fn what_a_broker_makes_wait_is_in_the_latency_of_each_message_that_waited() {
    // At QoS 1 with one message in flight and a broker that never acknowledges, the second message
    // and all that follow are due and cannot be sent.
    let address = start(Greeting::Welcome, Lie::None);
    let mut plan = plan(address, Shape::Pairs { pairs: 1 });
    plan.publish_qos = QoS::AtLeastOnce;
    plan.inflight_max = 1;
    plan.pace = Pace::Rate { per_s: 100.0 };
    plan.measured = Duration::from_millis(500);
    plan.grace = Duration::from_millis(100);
    let report = run(&plan, &mut Notes::default()).unwrap();
    assert_eq!((report.published, report.unacknowledged), (1, 1));
    assert_eq!(report.unsent, 49);
}

#[test]
fn what_is_due_until_the_very_end_is_sent() {
    // Most messages become due between the last turn of the measured time and its end.
    let address = start(Greeting::Welcome, Lie::None);
    let mut plan = plan(address, Shape::Pairs { pairs: 50 });
    plan.pace = Pace::Rate { per_s: 1_000_000.0 };
    plan.measured = Duration::from_micros(100);
    plan.messages_max = 1_000;
    let report = run(&plan, &mut Notes::default()).unwrap();
    assert_eq!((report.unsent, report.expected, report.lost), (0, 100, 0));
}
