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

use harness::{bytes_of, hello, id, lasting, message, packets, plain, subscribe, Lab, Peer, BOTH};
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

/// Goal: a run of messages in one segment arrives as if each had come alone. Method: bytes that
/// begin runs and end them, to every kind of subscriber, whole and cut at every place.
#[test]
fn a_run_in_one_segment_arrives_as_one_by_one() {
    for (version, qos) in BOTH.iter().flat_map(|v| EVERY_QOS.map(|qos| (*v, qos))) {
        let mut number = 0;
        let mut say = |topic, payload, retain| {
            number += u16::from(qos != Q0);
            let publish = Publish {
                retain,
                ..message(topic, payload, qos, number)
            };
            bytes_of(version, &Packet::Publish(publish))
        };
        let segments = [
            say(TOPIC, b"one", false),
            say(TOPIC, b"two", false),
            say(TOPIC, b"six", false),
            // Another topic of the same length, another length, RETAIN, a payload that looks like
            // a packet, nothing at all.
            say("a/c", b"ten", false),
            say("a/c", b"ten", false),
            say(TOPIC, b"seven", false),
            say(TOPIC, b"ten", true),
            say(TOPIC, b"ten", true),
            say(TOPIC, &segment_in_payload(version), false),
            say(TOPIC, &segment_in_payload(version), false),
            say(TOPIC, b"", false),
            say(TOPIC, b"", false),
        ];
        let all = segments.concat();
        let expected = arrived(version, &segments.each_ref().map(Vec::as_slice));
        assert!(expected.iter().filter(|round| round.len() == 12).count() > 8);
        for cut in 0..all.len() {
            let (first, second) = all.split_at(cut);
            let found = arrived(version, &[first, second]);
            assert_eq!(found, expected, "{version:?} {qos:?} cut at {cut}");
        }
    }
}

/// A payload that is a whole PUBLISH to the same topic.
fn segment_in_payload(version: Version) -> Vec<u8> {
    bytes_of(version, &fresh(TOPIC, b"inner", Q0, 0))
}

/// What everybody hears of segments from one publisher, who is heard too, with No Local.
fn arrived(version: Version, segments: &[&[u8]]) -> Vec<Vec<String>> {
    let mut lab = Lab::new();
    let mut audience = audience(&mut lab);
    let publisher = lab.joined(&hello(version, "publisher"));
    lab.say(
        publisher,
        &subscribe(
            1,
            &[SubscribeFilter {
                no_local: version == Version::V5,
                ..plain("a/#", Q0)
            }],
        ),
    );
    lab.take(publisher);
    audience.push((version, publisher));
    let narrow = lab.client(version, "narrow");
    lab.subscribe(narrow, TOPIC, Q0);
    audience.push((version, narrow));
    for segment in segments {
        lab.send(publisher, segment);
    }
    let counters = lab.shard(0).counters();
    assert_eq!(counters.publishes_received, 12);
    // What waits for the store is acknowledged behind messages that came later.
    let heard = |(version, peer): &(Version, Peer)| {
        let mut packets = heard(&mut lab, *version, *peer);
        packets.sort_by_key(|packet| !packet.starts_with("Publish "));
        packets
    };
    audience.iter().map(heard).collect()
}

#[test]
fn a_fault_in_a_run_ends_it_where_it_stands() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V311, "reader");
    lab.subscribe(reader, "#", Q0);
    let publisher = lab.client(Version::V311, "publisher");
    let good = bytes_of(Version::V311, &fresh(TOPIC, b"x", Q0, 0));
    let mut bad = good.clone();
    bad[0] |= 0b1000;
    lab.send(publisher, &[&good[..], &good, &good, &bad, &good].concat());
    assert!(lab.is_closed(publisher), "DUP at QoS 0");
    let one = fresh(TOPIC, b"x", Q0, 0);
    lab.expect_open(reader, &[one.clone(), one.clone(), one]);
    let counters = lab.shard(0).counters();
    assert_eq!((counters.malformed, counters.publishes_sent), (1, 3));
}

#[test]
fn a_reader_without_room_keeps_the_order_of_a_run() {
    let settings = Settings {
        window_bytes: 64,
        ..Settings::default()
    };
    let mut lab = Lab::with(settings, 1);
    let reader = lab.client(Version::V311, "reader");
    lab.subscribe(reader, "#", Q0);
    let publisher = lab.client(Version::V311, "publisher");
    lab.stall(reader, true);
    let payloads: Vec<[u8; 4]> = (0..100_u32).map(u32::to_be_bytes).collect();
    let run = |payloads: &[[u8; 4]]| -> Vec<u8> {
        let packet = |payload| bytes_of(Version::V311, &fresh(TOPIC, payload, Q0, 0));
        payloads
            .iter()
            .flat_map(|payload| packet(payload))
            .collect()
    };
    for piece in payloads.chunks(7) {
        lab.send(publisher, &run(piece));
    }
    lab.stall(reader, false);
    lab.run();
    let heard = lab.take(reader);
    let expected: Vec<Packet<'_>> = payloads
        .iter()
        .map(|payload| fresh(TOPIC, payload, Q0, 0))
        .collect();
    assert_eq!(packets(Version::V311, &heard), expected);
}

/// Goal: acknowledgements that come together count one by one. Method: a reader that may have three
/// messages open, of a session that ends with its connection and of one that does not.
#[test]
fn acknowledgements_in_one_segment_count_one_by_one() {
    for connect in [hello(Version::V5, "reader"), lasting(Version::V5, "reader")] {
        let mut lab = Lab::new();
        let reader = lab.joined(&Connect {
            properties: ConnectProperties {
                receive_max: NonZeroU16::new(3),
                ..connect.properties.clone()
            },
            ..connect
        });
        lab.subscribe(reader, TOPIC, Q1);
        let publisher = lab.client(Version::V5, "publisher");
        for _ in 0..9 {
            lab.say(publisher, &fresh(TOPIC, b"x", Q1, 7));
        }
        let sent = |numbers: std::ops::RangeInclusive<u16>| -> Vec<Packet<'static>> {
            numbers
                .map(|number| fresh(TOPIC, b"x", Q1, number))
                .collect()
        };
        let acks = |ids: &[u16]| -> Vec<u8> {
            let ack = |id: &u16| [&[0x40, 2][..], &id.to_be_bytes()].concat();
            ids.iter().flat_map(ack).collect()
        };
        lab.expect_open(reader, &sent(1..=3));
        // In any order, one twice, and one that nobody asked for.
        lab.send(reader, &acks(&[2, 1, 1, 500]));
        lab.expect_open(reader, &sent(4..=5));
        // The last one is cut in two, and something else follows it.
        let mut bytes = acks(&[3, 4, 5]);
        bytes.extend([0xC0, 0]);
        lab.send(reader, &bytes[..10]);
        lab.expect_open(reader, &sent(6..=7));
        lab.send(reader, &bytes[10..]);
        lab.expect_open(reader, &[vec![Packet::Pingresp], sent(8..=8)].concat());
        // Identifier 0 is a fault, and what stands before it has counted.
        lab.send(reader, &acks(&[6, 0, 7]));
        assert!(lab.is_closed(reader));
        assert_eq!(lab.shard(0).counters().malformed, 1);
    }
}
