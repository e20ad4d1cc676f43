//! A message that crosses to another shard goes on as it came: nobody may tell from what arrives.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::num::NonZeroU32;

use casemate_codec::{
    ConnectProperties, Filters, Packet, Publish, QoS, RetainHandling, Subscribe, SubscribeFilter,
    UserProperties, Version,
};
use casemate_engine::Settings;

use harness::{bytes_of, hello, id, lasting, message, packets, Lab, Peer, BOTH};
use word::*;

/// Recipients that get other bytes than their neighbours.
const KINDS: [&str; 6] = [
    "plain",
    "as published",
    "identified",
    "aliased",
    "small",
    "shared",
];

/// A client whose session lives in this shard.
fn client_in(lab: &mut Lab, shard: usize, version: Version, kind: &str) -> Peer {
    for number in 0..1_000 {
        let name = format!("{version:?} {kind} {shard} {number}");
        let peer = lab.joined(&casemate_codec::Connect {
            properties: ConnectProperties {
                topic_alias_max: (kind == "aliased").then_some(4),
                packet_bytes_max: (kind == "small").then_some(NonZeroU32::MIN.saturating_add(40)),
                ..ConnectProperties::default()
            },
            ..hello(version, &name)
        });
        if lab.shard_of(peer) == shard {
            return peer;
        }
        lab.cut(peer);
    }
    panic!("no name of a thousand has its home in shard {shard}");
}

fn listen(lab: &mut Lab, reader: Peer, filter: &str, qos: QoS, kind: &str) {
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(1),
        subscription_id: (kind == "identified").then_some(NonZeroU32::MIN),
        user: UserProperties::default(),
        filters: Filters::List(&[SubscribeFilter {
            filter,
            qos,
            no_local: false,
            retain_as_published: kind == "as published",
            retain_handling: RetainHandling::Never,
        }]),
    });
    lab.say(reader, &packet);
    lab.take(reader);
}

/// What a client was sent, without what differs from one recipient to the next.
fn heard(lab: &mut Lab, (version, peer): (Version, Peer)) -> Vec<String> {
    let bytes = lab.take(peer);
    let word = |packet: Packet<'_>| match packet {
        Packet::Publish(publish) => format!(
            "{:?}",
            Publish {
                packet_id: publish.packet_id.map(|_| id(1)),
                ..publish
            }
        ),
        other => format!("{other:?}"),
    };
    packets(version, &bytes).into_iter().map(word).collect()
}

/// Goal: the way between shards changes nothing. Method: one recipient of each kind in the shard of
/// the publisher and one in another hear the same: a first message, and a hundred in one piece.
#[test]
fn recipients_of_another_shard_hear_what_those_of_the_publishers_hear() {
    for version in BOTH {
        for qos in EVERY_QOS {
            let mut lab = Lab::with(Settings::default(), 2);
            let mut pairs = Vec::new();
            for (number, kind) in KINDS.into_iter().enumerate() {
                for reads in BOTH {
                    if reads == Version::V311 && !matches!(kind, "plain" | "shared") {
                        continue;
                    }
                    let pair = [0, 1].map(|shard| {
                        let reader = client_in(&mut lab, shard, reads, kind);
                        let filter = match kind {
                            "shared" => format!("$share/{number}{reads:?}{shard}/a/+"),
                            _ => "a/#".to_owned(),
                        };
                        listen(&mut lab, reader, &filter, qos, kind);
                        (reads, reader)
                    });
                    pairs.push(pair);
                }
            }
            let writer = client_in(&mut lab, 0, version, "writer");
            let mut run = Vec::new();
            for number in 0..=100_u16 {
                let payload = format!("message {number:03}");
                let packet_id = if qos == Q0 { 0 } else { number + 1 };
                let publish = fresh("a/b", payload.as_bytes(), qos, packet_id);
                run.extend(bytes_of(version, &publish));
                if number == 0 {
                    lab.send(writer, &std::mem::take(&mut run));
                }
            }
            let forwarded = lab.shard(0).counters().forwarded;
            lab.send(writer, &run);
            assert!(lab.shard(0).counters().forwarded >= forwarded + 100);
            for [here, there] in pairs {
                let found = heard(&mut lab, here);
                assert_eq!(found.len(), 101, "{version:?} {qos:?}");
                assert_eq!(found, heard(&mut lab, there), "{version:?} {qos:?}");
            }
        }
    }
}

/// Goal: a run that is too long for the pipe waits and is not lost, repeated or cut. Method: a pipe
/// with room for some of its messages, which stands still and then goes on.
#[test]
fn a_run_waits_for_room_in_the_pipe_and_arrives_whole_and_in_order() {
    let settings = Settings {
        pipe_bytes: 2_000,
        packet_bytes_max: 1_000,
        ..Settings::default()
    };
    let mut lab = Lab::with(settings, 2);
    let reader = client_in(&mut lab, 1, Version::V311, "reader");
    listen(&mut lab, reader, "a/#", Q0, "plain");
    let writer = client_in(&mut lab, 0, Version::V311, "writer");
    lab.batch_bytes_most = 0;
    lab.held_pipes = vec![(0, 1)];
    let mut wanted = Vec::new();
    let mut run = Vec::new();
    for number in 0..500 {
        let payload = format!("message {number:03}, and as much text as makes a run of it long");
        run.extend(bytes_of(
            Version::V311,
            &fresh("a/b", payload.as_bytes(), Q0, 0),
        ));
        wanted.push(payload);
    }
    lab.send(writer, &run);
    assert!(lab.take(reader).is_empty());
    assert!(
        (1_000..=2_100).contains(&lab.batch_bytes_most),
        "{} bytes in a pipe of 2,000",
        lab.batch_bytes_most
    );
    lab.release_pipe(0, 1);
    lab.pass(1);
    let bytes = lab.take(reader);
    let found: Vec<String> = packets(Version::V311, &bytes)
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => String::from_utf8_lossy(publish.payload).into_owned(),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(found, wanted);
}

/// Goal: what crosses a pipe is judged and kept where it arrives. Method: a session of the other
/// shard that lasts is away, and gets what it missed, of QoS 1 and 2 alone.
#[test]
fn messages_that_came_in_one_piece_wait_in_another_shard_for_who_is_away() {
    for qos in EVERY_QOS {
        let mut lab = Lab::with(Settings::default(), 2);
        let away = (0..1_000).find_map(|number| {
            let name = format!("reader {number}");
            let peer = lab.joined(&lasting(Version::V5, &name));
            (lab.shard_of(peer) == 1).then_some((peer, name))
        });
        let (reader, name) = away.expect("a name with its home in shard 1");
        listen(&mut lab, reader, "a/#", qos, "plain");
        lab.cut(reader);
        let writer = client_in(&mut lab, 0, Version::V5, "writer");
        let pieces: Vec<u8> = (1..=20_u16)
            .flat_map(|number| {
                let packet_id = if qos == Q0 { 0 } else { number };
                let publish = message("a/b", b"kept", qos, packet_id);
                bytes_of(Version::V5, &Packet::Publish(publish))
            })
            .collect();
        lab.send(writer, &pieces);
        let reader = lab.connect(&lasting(Version::V5, &name));
        let found = heard(&mut lab, (Version::V5, reader));
        // Behind CONNACK.
        let wanted = if qos == Q0 { 1 } else { 21 };
        assert_eq!(found.len(), wanted, "{qos:?}: {found:?}");
    }
}

/// Goal: a shard says that it awaits its neighbours where, and only where, something goes on when
/// they answer. Method: messages into a pipe that stands still: QoS 0, which nobody acknowledges;
/// QoS 1, whose PUBACK waits; and more than there is room for.
#[test]
fn a_shard_awaits_its_neighbours_while_an_acknowledgement_or_room_depends_on_them() {
    let settings = Settings {
        pipe_bytes: 2_000,
        packet_bytes_max: 1_000,
        ..Settings::default()
    };
    let mut lab = Lab::with(settings, 2);
    let reader = client_in(&mut lab, 1, Version::V311, "reader");
    listen(&mut lab, reader, "a/#", Q1, "plain");
    let writer = client_in(&mut lab, 0, Version::V311, "writer");
    assert!(!lab.shard(0).awaits_neighbours());
    lab.held_pipes = vec![(0, 1)];
    lab.say(writer, &fresh("a/b", b"x", Q0, 0));
    assert!(!lab.shard(0).awaits_neighbours(), "nobody is owed anything");
    lab.say(writer, &fresh("a/b", b"x", Q1, 1));
    assert!(lab.shard(0).awaits_neighbours(), "PUBACK waits");
    lab.release_pipe(0, 1);
    lab.expect_open(writer, &[puback(1)]);
    assert!(!lab.shard(0).awaits_neighbours());
    lab.held_pipes = vec![(0, 1)];
    for _ in 0..3 {
        lab.say(writer, &fresh("a/b", &[7; 900], Q0, 0));
    }
    assert!(lab.shard(0).awaits_neighbours(), "the third waits for room");
    lab.release_pipe(0, 1);
    assert!(!lab.shard(0).awaits_neighbours());
}

/// Goal: each message of a run is acknowledged, once, in order, and not before the other shard has
/// it. Method: two runs of QoS 1 into a pipe that stands still; then as many as one may be owed.
#[test]
fn pubacks_of_a_run_wait_until_the_other_shard_has_it() {
    for version in BOTH {
        let mut lab = Lab::with(Settings::default(), 2);
        let reader = client_in(&mut lab, 1, version, "reader");
        listen(&mut lab, reader, "a/#", Q1, "plain");
        let writer = client_in(&mut lab, 0, version, "writer");
        let ids = |lab: &mut Lab| -> Vec<u16> {
            let bytes = lab.take(writer);
            packets(version, &bytes)
                .into_iter()
                .map(|packet| match packet {
                    Packet::Puback(ack) => ack.packet_id.get(),
                    other => panic!("{other:?}"),
                })
                .collect()
        };
        let run = |from: u16, to: u16| -> Vec<u8> {
            (from..=to)
                .flat_map(|number| bytes_of(version, &fresh("a/b", b"21.5", Q1, number)))
                .collect()
        };
        lab.send(writer, &run(1, 1));
        assert_eq!(ids(&mut lab), [1]);
        lab.held_pipes = vec![(0, 1)];
        lab.send(writer, &run(2, 50));
        lab.send(writer, &run(51, 100));
        assert!(ids(&mut lab).is_empty());
        lab.release_pipe(0, 1);
        assert_eq!(ids(&mut lab), (2..=100).collect::<Vec<u16>>());
        assert_eq!(heard(&mut lab, (version, reader)).len(), 100);
        // All of its room is there again.
        let most = Settings::default().receive_max;
        lab.send(writer, &run(1, most));
        assert_eq!(ids(&mut lab), (1..=most).collect::<Vec<u16>>());
        assert!(!lab.is_closed(writer));
    }
}
