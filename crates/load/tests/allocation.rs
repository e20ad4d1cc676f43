//! A message costs no allocation: ten times as many allocate no more often.
#![allow(missing_docs, clippy::unwrap_used, dead_code)]

mod liar;

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use casemate_codec::{QoS, Version};
use casemate_load::{run, Moment, Pace, Plan, Shape, Standing, Target, Watcher};
use liar::{start, Greeting, Lie};

struct Nobody;

impl Watcher for Nobody {
    fn watch(&mut self, _: Moment, _: &Standing) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Allocations of this thread, which is the generator's, for so many messages.
fn allocations(address: SocketAddr, messages: u64) -> u64 {
    let plan = Plan {
        target: Target {
            address,
            version: Version::V311,
            client_id: "count-".to_owned(),
            username: None,
            password: None,
            keep_alive_s: 60,
            tls: None,
            websocket: None,
        },
        shape: Shape::Pairs { pairs: 2 },
        pace: Pace::Saturate { window: 200 },
        publish_qos: QoS::AtMostOnce,
        subscribe_qos: QoS::AtMostOnce,
        payload_bytes: 64,
        retain: false,
        topic_alias: false,
        properties: false,
        lasting: None,
        inflight_max: 20,
        topic: format!("bench/{messages}"),
        topics_per_publisher: 1,
        single_filters: false,
        connecting_max: 10,
        warm_up: Duration::ZERO,
        measured: Duration::from_secs(60),
        grace: Duration::from_secs(1),
        setup_max: Duration::from_secs(20),
        messages_max: messages,
    };
    let counted = allocation_counter::measure(|| {
        let report = run(&plan, &mut Nobody).unwrap();
        assert_eq!(report.delivered, messages);
    });
    counted.count_total
}

#[test]
fn a_message_costs_no_allocation() {
    let address = start(Greeting::Welcome, Lie::None);
    let few = allocations(address, 2_000);
    let many = allocations(address, 40_000);
    // Buffers that grow to their size are all that may differ.
    assert!(
        many <= few + 100,
        "{few} for 2,000 messages, {many} for 40,000"
    );
}
