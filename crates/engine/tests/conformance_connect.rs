//! Conformance of CONNECT to DISCONNECT: both versions, through the door of the shard.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use casemate_codec::Packet;
use harness::{hello, lasting, welcome, Lab, BOTH};

#[test]
fn connect_is_answered_by_success_and_the_state_of_the_session() {
    // [MQTT-3.1.4-5] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-5] [MQTT-3.1.2-6]
    // [MQTT-3.1.1 3.1.4-4] [MQTT-3.1.1 3.2.2-1] [MQTT-3.1.1 3.2.2-2] [MQTT-3.1.1 3.2.2-3]
    for version in BOTH {
        let mut lab = Lab::new();
        let first = lab.connect(&lasting(version, "a"));
        lab.expect_open(first, &[welcome(version, false)]);
        lab.cut(first);
        let second = lab.connect(&lasting(version, "a"));
        lab.expect_open(second, &[welcome(version, true)]);
        lab.cut(second);
        let third = lab.connect(&hello(version, "a"));
        lab.expect_open(third, &[welcome(version, false)]);
    }
}

#[test]
fn ping_is_answered() {
    // [MQTT-3.12.4-1] [MQTT-3.1.1 3.12.4-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let client = lab.client(version, "a");
        lab.say(client, &Packet::Pingreq);
        lab.expect_open(client, &[Packet::Pingresp]);
        lab.say(client, &Packet::Pingreq);
        lab.expect_open(client, &[Packet::Pingresp]);
    }
}
