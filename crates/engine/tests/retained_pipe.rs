//! Retained messages of a neighbour: one question at a time.
//!
//! Answers are written whether the pipe has room or not, so that there must never be many.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Packet, Version};
use casemate_engine::Settings;

use harness::{hello, lasting, packets, plain, subscribe, Lab, Peer};
use word::*;

/// About what one answer carries (`neighbour/receive.rs`), with the message that fills it and its
/// head, bytes.
const ANSWER_BYTES: usize = 32 * 1024 + 2 * 1024;

/// The topics of the retained messages that a client has been sent.
fn topics(lab: &mut Lab, peer: Peer) -> Vec<String> {
    let bytes = lab.take(peer);
    let mut topics = Vec::new();
    for packet in packets(Version::V5, &bytes) {
        if let Packet::Publish(publish) = packet {
            assert!(publish.retain);
            topics.push(publish.topic.to_owned());
        }
    }
    topics.sort();
    topics
}

/// Goal: forty sessions that ask at the same moment cost the pipe one answer at a time, and all
/// get everything. Method: the store holds their SUBACKs back, and releases them together.
#[test]
fn sessions_that_ask_together_are_answered_one_after_the_other() {
    let mut lab = Lab::with(Settings::default(), 2);
    let publisher = lab.joined(&hello(Version::V5, "publisher"));
    let mut expected: Vec<String> = (0..150).map(|n| format!("r/{n}")).collect();
    for topic in &expected {
        lab.say(publisher, &kept(topic, &[7; 1_000], Q0, 0));
    }
    expected.sort();
    let names: Vec<String> = (0..40).map(|n| format!("reader-{n}")).collect();
    let readers: Vec<Peer> = names
        .iter()
        .map(|name| lab.joined(&lasting(Version::V5, name)))
        .collect();
    lab.store_holds = true;
    for reader in &readers {
        lab.say(*reader, &subscribe(1, &[plain("r/#", Q0)]));
        lab.expect_open(*reader, &[]);
    }
    lab.batch_bytes_most = 0;
    lab.release_store();
    assert!(
        lab.batch_bytes_most < ANSWER_BYTES,
        "{} bytes between two shards in one turn",
        lab.batch_bytes_most
    );
    for reader in readers {
        assert_eq!(topics(&mut lab, reader), expected);
    }
}

/// Goal: who stands in line and leaves, or asks for something else, holds nobody up. Method: half
/// of twelve readers go while all of them stand in line.
#[test]
fn a_session_that_leaves_the_line_holds_nobody_up() {
    let mut lab = Lab::with(Settings::default(), 2);
    let publisher = lab.joined(&hello(Version::V5, "publisher"));
    for n in 0..150 {
        lab.say(publisher, &kept(&format!("r/{n}"), &[7; 1_000], Q0, 0));
    }
    let names: Vec<String> = (0..12).map(|n| format!("reader-{n}")).collect();
    let readers: Vec<Peer> = names
        .iter()
        .map(|name| lab.joined(&lasting(Version::V5, name)))
        .collect();
    for reader in &readers {
        // Their windows fill, so that each stops in the middle and asks again later.
        lab.stall(*reader, true);
        lab.say(*reader, &subscribe(1, &[plain("r/#", Q0)]));
        lab.say(*reader, &subscribe(2, &[plain("r/1", Q0)]));
        lab.say(*reader, &subscribe(3, &[plain("r/#", Q0)]));
    }
    for reader in readers.iter().step_by(2) {
        lab.cut(*reader);
    }
    for reader in readers.iter().skip(1).step_by(2) {
        lab.stall(*reader, false);
        let found = topics(&mut lab, *reader);
        for n in 0..150 {
            assert!(found.contains(&format!("r/{n}")), "r/{n} never came");
        }
    }
}
