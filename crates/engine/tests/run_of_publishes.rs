//! Messages of QoS 1 in one segment are handled as one: nobody may tell from what arrives.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::collections::BTreeSet;

use casemate_codec::{Packet, Publish, Reason, Version};
use casemate_engine::Settings;

use harness::{bytes_of, hello, lasting, message, packets, Lab, Peer, BOTH};
use word::*;

const TOPIC: &str = "a/b";

/// Bytes of messages with these identifiers; the payload of each is its identifier.
fn run_of(version: Version, ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter()
        .flat_map(|id| bytes_of(version, &fresh(TOPIC, &id.to_be_bytes(), Q1, id)))
        .collect()
}

/// PUBACKs in one piece.
fn acks(ids: impl IntoIterator<Item = u16>) -> Vec<u8> {
    ids.into_iter()
        .flat_map(|id| [&[0x40, 2][..], &id.to_be_bytes()].concat())
        .collect()
}

/// Identifier and payload of every PUBLISH that a client was sent.
fn heard(lab: &mut Lab, version: Version, peer: Peer) -> Vec<(u16, u16)> {
    let bytes = lab.take(peer);
    let number = |packet: &Packet<'_>| {
        let Packet::Publish(publish) = packet else {
            panic!("{packet:?}");
        };
        assert!(!publish.dup && !publish.retain && publish.qos == Q1 && publish.topic == TOPIC);
        let payload = publish.payload.try_into().expect("a number");
        let id = publish.packet_id.expect("at QoS 1");
        (id.get(), u16::from_be_bytes(payload))
    };
    packets(version, &bytes).iter().map(number).collect()
}

/// A publisher that has published before, and those who have read it.
fn stage(lab: &mut Lab, version: Version, readers: &[Peer]) -> Peer {
    let publisher = lab.client(version, "publisher");
    for reader in readers {
        lab.subscribe(*reader, "a/+", Q1);
    }
    lab.send(publisher, &run_of(version, [1]));
    lab.expect_open(publisher, &[puback(1)]);
    for reader in readers {
        assert_eq!(lab.take(*reader)[0], 0x32);
        lab.send(*reader, &acks([1]));
    }
    publisher
}

/// Goal: no message of a run is acknowledged before all who keep it have it. Method: readers that
/// last and others, all in the publisher's shard or spread over several.
#[test]
fn a_run_is_acknowledged_when_all_of_it_is_kept() {
    for (version, shards) in BOTH.into_iter().flat_map(|v| [1, 2, 3].map(|n| (v, n))) {
        let mut lab = Lab::with(Settings::default(), shards);
        let names = ["a", "b", "c", "d", "e", "f"];
        let readers: Vec<Peer> = names
            .iter()
            .enumerate()
            .map(|(index, name)| match index % 2 {
                0 => lab.joined(&hello(version, name)),
                _ => lab.joined(&lasting(version, name)),
            })
            .collect();
        let homes = readers.iter().map(|reader| lab.shard_of(*reader));
        assert_eq!(homes.collect::<BTreeSet<_>>().len(), usize::from(shards));
        let publisher = stage(&mut lab, version, &readers);
        lab.store_holds = true;
        lab.send(publisher, &run_of(version, [7, 9, 8]));
        for reader in &readers {
            let expected = [(2, 7), (3, 9), (4, 8)];
            assert_eq!(heard(&mut lab, version, *reader), expected);
        }
        lab.expect_open(publisher, &[]);
        while lab.release_one(|shard| shard) {
            let said = lab.take(publisher);
            assert!(said.is_empty() || lab.owes_nothing(), "{said:?}");
            if !said.is_empty() {
                assert_eq!(packets(version, &said), [puback(7), puback(9), puback(8)]);
                lab.release_store();
                break;
            }
        }
        assert!(!lab.store_holds, "the run was acknowledged");
    }
}

/// Goal: as many as may wait for their acknowledgement, and no more. Method: four may, and six come
/// while nothing becomes durable.
#[test]
fn a_run_is_bounded_by_what_a_publisher_may_have_open() {
    for version in BOTH {
        let settings = Settings {
            receive_max: 4,
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let lasts = lab.joined(&lasting(version, "lasts"));
        let publisher = stage(&mut lab, version, &[lasts]);
        lab.store_holds = true;
        lab.send(publisher, &run_of(version, 11..=16));
        assert_eq!(lab.shard(0).counters().publishes_received, 5);
        if version == Version::V5 {
            lab.expect_end(publisher, &[disconnect(Reason::ReceiveMaximumExceeded)]);
            continue;
        }
        lab.expect_open(publisher, &[]);
        lab.release_store();
        lab.expect_open(publisher, &(11..=16).map(puback).collect::<Vec<_>>());
        let numbers: Vec<u16> = heard(&mut lab, version, lasts)
            .into_iter()
            .map(|(_, number)| number)
            .collect();
        assert_eq!(numbers, [11, 12, 13, 14, 15, 16]);
    }
}

#[test]
fn each_reader_gets_of_a_run_what_it_may_have_open() {
    let version = Version::V5;
    let mut lab = Lab::new();
    let quick = lab.client(version, "quick");
    let slow = lab.joined(&with_receive_max(hello(version, "slow"), 2));
    let publisher = stage(&mut lab, version, &[quick, slow]);
    lab.send(publisher, &run_of(version, 11..=15));
    lab.expect_open(publisher, &(11..=15).map(puback).collect::<Vec<_>>());
    let all = [(2, 11), (3, 12), (4, 13), (5, 14), (6, 15)];
    assert_eq!(heard(&mut lab, version, quick), all);
    assert_eq!(heard(&mut lab, version, slow), all[..2]);
    // Out of order: the first is still open, so that one more may leave.
    lab.send(slow, &acks([3]));
    assert_eq!(heard(&mut lab, version, slow), all[2..3]);
    lab.send(slow, &acks([2, 4]));
    assert_eq!(heard(&mut lab, version, slow), all[3..]);
}

/// Goal: identifiers go on where the last run ended, and none is given twice before it is free.
/// Method: runs of many lengths over two laps, acknowledged in order, backwards, and with one left
/// open for long.
#[test]
fn identifiers_of_runs_go_round() {
    let version = Version::V311;
    let mut lab = Lab::new();
    let reader = lab.client(version, "reader");
    let publisher = stage(&mut lab, version, &[reader]);
    let mut next: u64 = 1;
    let mut left_open = None;
    for turn in 0.. {
        let count = [1, 2, 500, 61, 700][turn % 5];
        lab.send(publisher, &run_of(version, 1..=count));
        let mut ids: Vec<u16> = heard(&mut lab, version, reader)
            .into_iter()
            .map(|(id, _)| id)
            .collect();
        let expected: Vec<u16> = (next..next + u64::from(count))
            .map(|place| (place % 65_535) as u16 + 1)
            .collect();
        assert_eq!(ids, expected, "turn {turn}");
        next += u64::from(count);
        if turn % 3 == 1 {
            ids.reverse();
        }
        if turn % 7 == 2 {
            let kept = ids.remove(ids.len() / 2);
            ids.extend(left_open.replace(kept));
        }
        lab.send(reader, &acks(ids));
        lab.take(publisher);
        if next > 2 * 65_535 + 100 {
            return;
        }
    }
}

#[test]
fn identifier_zero_ends_a_run_before_it() {
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        let publisher = stage(&mut lab, version, &[reader]);
        let mut bytes = run_of(version, [5, 6, 7, 8]);
        let step = bytes.len() / 4;
        let at = 2 * step + 2 + 2 + TOPIC.len();
        assert_eq!(bytes[at..at + 2], [0, 7]);
        bytes[at + 1] = 0;
        lab.send(publisher, &bytes);
        assert!(lab.is_closed(publisher));
        assert_eq!(heard(&mut lab, version, reader), [(2, 5), (3, 6)]);
        assert_eq!(lab.shard(0).counters().malformed, 1);
    }
}

#[test]
fn the_publishers_dup_ends_with_the_publisher() {
    let version = Version::V311;
    let mut lab = Lab::new();
    let reader = lab.client(version, "reader");
    let publisher = stage(&mut lab, version, &[reader]);
    let again = |number: u16| {
        let payload = number.to_be_bytes();
        let publish = Publish {
            dup: true,
            ..message(TOPIC, &payload, Q1, number)
        };
        bytes_of(version, &Packet::Publish(publish))
    };
    lab.send(publisher, &[again(3), again(4), again(5)].concat());
    lab.expect_open(publisher, &[puback(3), puback(4), puback(5)]);
    assert_eq!(heard(&mut lab, version, reader), [(2, 3), (3, 4), (4, 5)]);
}

/// Goal: a session that lasted once keeps count when it does not any more. Method: it comes again
/// to end with its connection, while messages that it lasted for are open.
#[test]
fn a_session_that_does_not_last_any_more_counts_on() {
    let version = Version::V5;
    let mut lab = Lab::new();
    let lasts = lab.joined(&lasting(version, "reader"));
    let publisher = stage(&mut lab, version, &[lasts]);
    lab.send(publisher, &run_of(version, [11, 12]));
    assert_eq!(heard(&mut lab, version, lasts), [(2, 11), (3, 12)]);
    let now = casemate_codec::Connect {
        clean_start: false,
        ..hello(version, "reader")
    };
    let reader = reconnect(&mut lab, lasts, &now);
    let bytes = lab.take(reader);
    let resumed = packets(version, &bytes);
    assert_eq!(
        resumed[1..],
        [
            again(TOPIC, &11_u16.to_be_bytes(), Q1, 2),
            again(TOPIC, &12_u16.to_be_bytes(), Q1, 3),
        ]
    );
    lab.take(publisher);
    lab.send(publisher, &run_of(version, [13, 14]));
    assert_eq!(heard(&mut lab, version, reader), [(4, 13), (5, 14)]);
    lab.send(reader, &acks([2, 3, 4, 5]));
    lab.send(publisher, &run_of(version, [15, 16]));
    assert_eq!(heard(&mut lab, version, reader), [(6, 15), (7, 16)]);
}
