//! The flow control of a client that publishes: what it may have open towards us (§4.9 of 5.0).
//!
//! The broker's Receive Maximum is small here, so that the message beyond it is the next one.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Reason, Version};
use casemate_engine::Settings;

use harness::{hello, Lab};
use word::*;

/// A broker that takes two QoS 1 and 2 messages of a client at a time.
fn lab() -> Lab {
    let settings = Settings {
        receive_max: 2,
        ..Settings::default()
    };
    Lab::with(settings, 1)
}

#[test]
fn a_message_beyond_our_receive_maximum_ends_the_connection() {
    // [MQTT-3.3.4-7] Exchanges that the client has not finished count, acknowledged or not.
    let mut lab = lab();
    let publisher = lab.joined(&hello(Version::V5, "publisher"));
    for packet_id in [1, 2] {
        lab.say(publisher, &fresh("t", b"x", Q2, packet_id));
        lab.expect_open(publisher, &[pubrec(packet_id)]);
    }
    lab.say(publisher, &fresh("t", b"x", Q1, 3));
    lab.expect_end(publisher, &[disconnect(Reason::ReceiveMaximumExceeded)]);
}

#[test]
fn a_finished_exchange_makes_room_for_another() {
    // [MQTT-3.3.4-7] The moment between: two open, one finished, one more.
    let mut lab = lab();
    let publisher = lab.joined(&hello(Version::V5, "publisher"));
    for packet_id in [1, 2] {
        lab.say(publisher, &fresh("t", b"x", Q2, packet_id));
        lab.expect_open(publisher, &[pubrec(packet_id)]);
    }
    lab.say(publisher, &pubrel(1));
    lab.expect_open(publisher, &[pubcomp(1)]);
    lab.say(publisher, &fresh("t", b"x", Q2, 3));
    lab.expect_open(publisher, &[pubrec(3)]);
}
