//! A PUBLISH to the topic of the one before takes a shorter way: nobody may tell from what arrives.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    Connect, ConnectProperties, Filters, Packet, Publish, PublishProperties, QoS, Reason,
    RetainHandling, Subscribe, SubscribeFilter, UserProperties, Version,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_engine::Settings;

use harness::{bytes_of, hello, id, message, packets, plain, subscribe, Lab, Peer, BOTH};
use word::*;

const TOPIC: &str = "a/b";

/// Subscribers of every kind that gets other bytes than its neighbour.
fn audience(lab: &mut Lab) -> Vec<(Version, Peer)> {
    let mut all = Vec::new();
    for version in BOTH {
        for qos in [Q0, Q1, Q2] {
            for kind in ["plain", "as published", "identified", "aliased", "small"] {
                if version == Version::V311 && !matches!(kind, "plain") {
                    continue;
                }
                let name = format!("{version:?} {qos:?} {kind}");
                let peer = lab.joined(&Connect {
                    properties: ConnectProperties {
                        topic_alias_max: (kind == "aliased").then_some(4),
                        packet_bytes_max: (kind == "small")
                            .then_some(NonZeroU32::MIN.saturating_add(19)),
                        ..ConnectProperties::default()
                    },
                    ..hello(version, &name)
                });
                lab.say(
                    peer,
                    &Packet::Subscribe(Subscribe {
                        packet_id: id(1),
                        subscription_id: (kind == "identified").then_some(NonZeroU32::MIN),
                        user: UserProperties::default(),
                        filters: Filters::List(&[SubscribeFilter {
                            filter: "a/#",
                            qos,
                            no_local: false,
                            retain_as_published: kind == "as published",
                            retain_handling: RetainHandling::Send,
                        }]),
                    }),
                );
                lab.take(peer);
                all.push((version, peer));
            }
        }
    }
    all
}

/// What a client was sent, without what differs from one message to the next.
fn heard(lab: &mut Lab, version: Version, peer: Peer) -> Vec<String> {
    let bytes = lab.take(peer);
    let strip = |packet| match packet {
        Packet::Publish(publish) => {
            let mut publish: Publish<'_> = publish;
            publish.packet_id = publish.packet_id.map(|_| id(1));
            // The first tells the alias, and the others use it.
            publish.topic = if publish.properties.topic_alias.is_some() {
                ""
            } else {
                publish.topic
            };
            format!("{publish:?}")
        }
        other => format!("{other:?}"),
    };
    packets(version, &bytes).into_iter().map(strip).collect()
}

/// Goal: the shorter way delivers what the longer one does. Method: two equal messages to every
/// kind of subscriber; the first one on a topic goes the longer way, the second the shorter.
#[test]
fn the_second_message_arrives_as_the_first_did_for_everybody() {
    for version in BOTH {
        for qos in [Q0, Q1, Q2] {
            for (dup, retain) in [(false, false), (true, false), (false, true), (true, true)] {
                for payload in [&b"21.5"[..], &[7; 300], &[7; 9_000]] {
                    let mut lab = Lab::new();
                    let audience = audience(&mut lab);
                    let publisher = lab.joined(&hello(version, "publisher"));
                    let mut rounds = Vec::new();
                    for number in 1..=3 {
                        let publish = Packet::Publish(Publish {
                            dup: dup && qos != Q0,
                            retain,
                            ..message(TOPIC, payload, qos, if qos == Q0 { 0 } else { number })
                        });
                        lab.say(publisher, &publish);
                        let mut round = vec![heard(&mut lab, version, publisher).len().to_string()];
                        for (version, peer) in &audience {
                            round.extend(heard(&mut lab, *version, *peer));
                        }
                        rounds.push(round);
                    }
                    assert!(rounds[0].len() > 10, "most of them have got it");
                    assert_eq!(rounds[0], rounds[1], "{version:?} {qos:?} {dup} {retain}");
                    assert_eq!(rounds[0], rounds[2], "{version:?} {qos:?} {dup} {retain}");
                }
            }
        }
    }
}

#[test]
fn packet_ids_are_the_recipients_own() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V311, "reader");
    lab.subscribe(reader, TOPIC, Q1);
    let publisher = lab.client(Version::V311, "publisher");
    for (number, packet_id) in [(1, 700), (2, 9), (3, 9)] {
        lab.say(publisher, &fresh(TOPIC, b"x", Q1, packet_id));
        lab.expect_open(publisher, &[puback(packet_id)]);
        lab.expect_open(reader, &[fresh(TOPIC, b"x", Q1, number)]);
    }
}

/// One role that may publish to one filter.
fn narrow(epoch: u64, filter: &str) -> Policy {
    let rule = |operation, filter: &str| Rule {
        operation,
        filter: filter.into(),
        qos_max: QoS::AtLeastOnce,
        retain: false,
        place: "test".into(),
    };
    let role = Role {
        name: "all".into(),
        rules: vec![
            rule(Operation::Publish, filter),
            rule(Operation::Subscribe, "#"),
        ],
    };
    Policy::compile(epoch, vec![role]).expect("it compiles")
}

#[test]
fn a_right_that_is_taken_away_ends_with_the_next_message() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "#", Q1);
    let publisher = lab.client(Version::V5, "publisher");
    let denied = Packet::Puback(casemate_codec::Ack {
        packet_id: id(7),
        reason: Reason::NotAuthorized,
        reason_string: None,
        user: UserProperties::default(),
    });
    for number in 1..=2 {
        lab.say(publisher, &fresh(TOPIC, b"x", Q1, 7));
        lab.expect_open(publisher, &[puback(7)]);
        lab.expect_open(reader, &[fresh(TOPIC, b"x", Q1, number)]);
    }
    lab.obey(narrow(2, "elsewhere"));
    lab.say(publisher, &fresh(TOPIC, b"x", Q1, 7));
    lab.expect_open(publisher, &[denied]);
    lab.expect_open(reader, &[]);
    // More than a right grants is denied beside what it grants.
    lab.obey(narrow(3, TOPIC));
    for _ in 0..2 {
        lab.say(publisher, &fresh(TOPIC, b"x", Q1, 7));
        lab.expect_open(publisher, &[puback(7)]);
    }
    lab.take(reader);
    lab.say(publisher, &fresh(TOPIC, b"x", Q2, 8));
    lab.expect_open(reader, &[]);
    assert_eq!(lab.shard(0).counters().publish_denied, 2);
}

#[test]
fn who_subscribes_in_between_gets_the_next_message_and_who_leaves_does_not() {
    let mut lab = Lab::new();
    let publisher = lab.client(Version::V311, "publisher");
    let reader = lab.client(Version::V311, "reader");
    for _ in 0..2 {
        lab.say(publisher, &fresh(TOPIC, b"x", Q0, 0));
    }
    lab.say(reader, &subscribe(1, &[plain("a/+", Q0)]));
    lab.take(reader);
    for _ in 0..2 {
        lab.say(publisher, &fresh(TOPIC, b"x", Q0, 0));
        lab.expect_open(reader, &[fresh(TOPIC, b"x", Q0, 0)]);
    }
    lab.cut(reader);
    lab.say(publisher, &fresh(TOPIC, b"x", Q0, 0));
    assert_eq!(lab.shard(0).counters().publishes_sent, 2);
}

#[test]
fn a_longer_or_shorter_topic_is_another_topic() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "#", Q0);
    let publisher = lab.client(Version::V5, "publisher");
    for topic in ["a/b", "a/b", "a/bc", "a/", "a/b", "a/c", "a/b"] {
        lab.say(publisher, &fresh(topic, b"x", Q0, 0));
        lab.expect_open(reader, &[fresh(topic, b"x", Q0, 0)]);
    }
}

#[test]
fn properties_on_a_known_topic_are_not_overlooked() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "#", Q0);
    let publisher = lab.client(Version::V5, "publisher");
    lab.say(publisher, &fresh(TOPIC, b"x", Q0, 0));
    lab.take(reader);
    let rich = |alias: Option<NonZeroU16>| {
        Packet::Publish(Publish {
            properties: PublishProperties {
                topic_alias: alias,
                content_type: Some("text/plain"),
                ..PublishProperties::default()
            },
            ..message(TOPIC, b"x", Q0, 0)
        })
    };
    lab.say(publisher, &rich(None));
    lab.expect_open(reader, &[rich(None)]);
    lab.say(publisher, &rich(NonZeroU16::new(3)));
    lab.expect_open(reader, &[rich(None)]);
    // The alias was set on the way: it serves for the topic from now on.
    lab.say(
        publisher,
        &Packet::Publish(Publish {
            topic: "",
            properties: PublishProperties {
                topic_alias: NonZeroU16::new(3),
                ..PublishProperties::default()
            },
            ..message(TOPIC, b"x", Q0, 0)
        }),
    );
    lab.expect_open(reader, &[fresh(TOPIC, b"x", Q0, 0)]);
}

#[test]
fn faults_behind_a_known_topic_are_still_faults() {
    let good = bytes_of(Version::V5, &fresh(TOPIC, b"x", Q1, 1));
    // DUP at QoS 0, QoS 3, packet id 0, a property block that is cut short.
    let dup = [0x38, 7, 0, 3, b'a', b'/', b'b', 0, b'x'];
    let qos3 = [0x36, 9, 0, 3, b'a', b'/', b'b', 0, 1, 0, b'x'];
    let zero = [0x32, 9, 0, 3, b'a', b'/', b'b', 0, 0, 0, b'x'];
    let cut = [0x32, 8, 0, 3, b'a', b'/', b'b', 0, 1, 9];
    for bad in [&dup[..], &qos3, &zero, &cut] {
        let mut lab = Lab::with(Settings::default(), 1);
        let publisher = lab.client(Version::V5, "publisher");
        for _ in 0..2 {
            lab.send(publisher, &good);
            lab.expect_open(publisher, &[puback(1)]);
        }
        lab.send(publisher, bad);
        assert!(lab.is_closed(publisher), "{bad:?}");
        assert_eq!(lab.shard(0).counters().malformed, 1);
    }
}
