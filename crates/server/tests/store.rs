//! What was acknowledged is there after a restart, and after `kill -9`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use casemate_codec::{
    Ack, Connect, ConnectProperties, Packet, PacketId, Publish, QoS, Reason, UserProperties,
};
use casemate_server::{EventKind, Options, Server, StartError, StoreOptions};
use peer::bare::Bare;
use peer::{connect, plain_options, publish, House, Peer, Wire};

/// Rounds of `kill -9` for each QoS, and how many messages are sent in each.
const ROUNDS: u16 = 20;
const SENT: u16 = 200;

/// Messages that a publisher has under way.
const WINDOW: usize = 50;

/// A folder that is gone with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let name = format!("casemate-kept-{name}-{}", std::process::id());
        Scratch(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where a start was refused there may be none.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(scratch: &Scratch, shards: usize) -> Options {
    Options {
        store: Some(StoreOptions::new(&scratch.0)),
        ..plain_options(shards)
    }
}

/// A CONNECT whose session lasts for an hour.
fn lasting(client_id: &str) -> Connect<'_> {
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_s: Some(3_600),
            ..ConnectProperties::default()
        },
        ..connect(client_id)
    }
}

/// Comes in; says whether the session was there.
fn come(wire: Wire, client_id: &str) -> (Peer, bool) {
    let mut peer = Peer::new(wire);
    peer.send(&Packet::Connect(lasting(client_id)));
    let present = peer.see(|packet| match packet {
        Packet::Connack(connack) => {
            assert_eq!(connack.reason, Reason::Success);
            connack.session_present
        }
        other => panic!("no CONNACK: {other:?}"),
    });
    (peer, present)
}

fn ack(id: u16) -> Ack<'static> {
    Ack {
        packet_id: PacketId::new(id).unwrap(),
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    }
}

/// Takes so many messages, which bear these numbers, and acknowledges them.
fn take(reader: &mut Peer, numbers: std::ops::Range<u16>) {
    for number in numbers {
        let id = reader.see(|packet| match packet {
            Packet::Publish(publish) => {
                assert_eq!(publish.payload, number.to_string().as_bytes());
                publish.packet_id.unwrap().get()
            }
            other => panic!("no PUBLISH: {other:?}"),
        });
        reader.send(&Packet::Puback(ack(id)));
    }
    // What is under way already may come first: it comes again after the restart.
    reader.send(&Packet::Pingreq);
    while reader.see(|packet| !matches!(packet, Packet::Pingresp)) {}
}

#[test]
fn a_restart_keeps_sessions_messages_and_what_was_retained() {
    let scratch = Scratch::new("restart");
    let house = House::open(options(&scratch, 1));
    let wire = || Wire::plain(house.address("plain"));
    let (mut reader, present) = come(wire(), "reader");
    assert!(!present);
    reader.subscribe("t/#", QoS::AtLeastOnce);
    drop(reader);
    let mut writer = Peer::login(wire(), "writer");
    for number in 0..10 {
        writer.publish_and_wait("t/1", number.to_string().as_bytes());
    }
    writer.send(&Packet::Publish(Publish {
        qos: QoS::AtLeastOnce,
        retain: true,
        packet_id: PacketId::new(9),
        ..publish("r", b"kept")
    }));
    writer.see(|packet| assert!(matches!(packet, Packet::Puback(_)), "{packet:?}"));
    drop(house);
    for (shards, numbers) in [(3, 0..5), (2, 5..10)] {
        let house = House::open(options(&scratch, shards));
        let (mut reader, present) = come(Wire::plain(house.address("plain")), "reader");
        assert!(present);
        take(&mut reader, numbers);
        let mut other = Peer::login(Wire::plain(house.address("plain")), "other");
        other.subscribe("r", QoS::AtMostOnce);
        assert_eq!(other.message(), b"kept");
    }
}

#[test]
fn a_store_that_is_written_anew_has_all_of_it_and_less_on_disk() {
    let scratch = Scratch::new("anew");
    let house = House::open(options(&scratch, 2));
    let wire = |house: &House| Wire::plain(house.address("plain"));
    let (mut reader, _) = come(wire(&house), "reader");
    reader.subscribe("t/#", QoS::AtLeastOnce);
    let mut writer = Peer::login(wire(&house), "writer");
    for number in 0..20_u8 {
        writer.publish_and_wait("t/1", number.to_string().as_bytes());
    }
    take(&mut reader, 0..10);
    drop((reader, writer, house));
    let refused = {
        let _house = House::open(options(&scratch, 1));
        StoreOptions::new(&scratch.0).compact()
    };
    assert!(refused.unwrap_err().to_string().contains("is in use"));
    let done = StoreOptions::new(&scratch.0).compact().unwrap();
    assert_eq!(done.sessions, 1);
    assert!(done.segments_gone > 0, "{done:?}");
    assert!(done.bytes_after < done.bytes_before, "{done:?}");
    // Again: it is as small as it can be, and nothing is lost of it.
    let again = StoreOptions::new(&scratch.0).compact().unwrap();
    assert_eq!((again.sessions, again.bytes_after), (1, done.bytes_after));
    let house = House::open(options(&scratch, 1));
    let (mut reader, present) = come(wire(&house), "reader");
    assert!(present);
    take(&mut reader, 10..20);
}

#[test]
fn a_store_without_anything_is_compact_and_a_folder_that_is_none_is_refused() {
    let scratch = Scratch::new("nothing");
    let done = StoreOptions::new(&scratch.0).compact().unwrap();
    assert_eq!(done, casemate_server::Compacted::default());
    std::fs::remove_dir_all(&scratch.0).unwrap();
    std::fs::write(&scratch.0, "").unwrap();
    let refused = StoreOptions::new(&scratch.0).compact();
    assert!(refused.unwrap_err().to_string().contains("no folder"));
    std::fs::remove_file(&scratch.0).unwrap();
}

#[test]
fn damage_at_the_start_is_told_as_an_event_and_in_the_health() {
    let scratch = Scratch::new("damage");
    let house = House::open(options(&scratch, 1));
    let (mut reader, _) = come(Wire::plain(house.address("plain")), "reader");
    reader.subscribe("t/#", QoS::AtLeastOnce);
    let mut writer = Peer::login(Wire::plain(house.address("plain")), "writer");
    for _ in 0..5 {
        writer.publish_and_wait("t/1", b"x");
    }
    drop((reader, writer, house));
    let file = scratch.0.join("00000001.log");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let server = Server::start(options(&scratch, 1), Vec::new()).unwrap();
    let health = server.store_health().unwrap();
    assert!(health.damage[0].contains("00000001.log"), "{health:?}");
    assert!(health.commits_read > 0);
    let mut told = Vec::new();
    while told.len() < health.damage.len() {
        let (events, _) = server.next_events(16, peer::PATIENCE);
        assert!(!events.is_empty(), "{told:?}");
        told.extend(events.iter().filter_map(|event| match &event.kind {
            EventKind::StoreDamaged { what } => Some(what.to_string()),
            _ => None,
        }));
    }
    assert_eq!(told, health.damage);
}

#[test]
fn two_servers_on_one_folder_are_refused() {
    let scratch = Scratch::new("two");
    let _house = House::open(options(&scratch, 1));
    let refused = Server::start(options(&scratch, 1), Vec::new());
    let Err(StartError::Store(fault)) = refused else {
        panic!("two servers write one store");
    };
    assert!(fault.to_string().contains("is in use"), "{fault}");
}

/// A publisher that keeps its side of every exchange over crashes.
struct Writer {
    qos: QoS,
    next: u16,
    /// By packet id: the number that was sent.
    sent: BTreeMap<u16, u16>,
    released: BTreeSet<u16>,
    acknowledged: BTreeSet<u16>,
}

impl Writer {
    fn send(&self, peer: &mut Peer, id: u16, number: u16, dup: bool) {
        peer.send(&Packet::Publish(Publish {
            dup,
            qos: self.qos,
            packet_id: PacketId::new(id),
            ..publish("t", number.to_string().as_bytes())
        }));
    }

    fn again(&self, peer: &mut Peer) {
        for id in &self.released {
            peer.send(&Packet::Pubrel(ack(*id)));
        }
        for (id, number) in &self.sent {
            self.send(peer, *id, *number, true);
        }
    }

    fn new_one(&mut self, peer: &mut Peer) {
        let number = self.next;
        self.next += 1;
        // The identifier is the number, so that none is used twice.
        self.sent.insert(number, number);
        self.send(peer, number, number, false);
    }

    fn hear(&mut self, peer: &mut Peer) {
        let (kind, id) = peer.see(|packet| match packet {
            Packet::Puback(ack) => (4, ack.packet_id.get()),
            Packet::Pubrec(ack) => (5, ack.packet_id.get()),
            Packet::Pubcomp(ack) => (7, ack.packet_id.get()),
            other => panic!("not expected: {other:?}"),
        });
        match kind {
            5 => {
                if let Some(number) = self.sent.remove(&id) {
                    self.acknowledged.insert(number);
                }
                self.released.insert(id);
                peer.send(&Packet::Pubrel(ack(id)));
            }
            4 => {
                let number = self.sent.remove(&id).expect("acknowledged once");
                self.acknowledged.insert(number);
            }
            _ => {
                self.released.remove(&id);
            }
        }
    }
}

/// Takes what waits for the reader, up to this number.
fn drain(bare: &Bare, qos: QoS, last: u16) -> Vec<u16> {
    let (mut reader, present) = come(bare.wire(), "reader");
    assert!(present);
    let mut got = Vec::new();
    let mut unreleased = BTreeSet::new();
    while got.last() != Some(&last) {
        let (is_message, id, number) = reader.see(|packet| match packet {
            Packet::Publish(publish) => {
                let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                (
                    true,
                    publish.packet_id.unwrap().get(),
                    text.parse().unwrap(),
                )
            }
            Packet::Pubrel(ack) => (false, ack.packet_id.get(), 0),
            other => panic!("not expected: {other:?}"),
        });
        if !is_message {
            unreleased.remove(&id);
            reader.send(&Packet::Pubcomp(ack(id)));
        } else if qos == QoS::AtLeastOnce {
            got.push(number);
            reader.send(&Packet::Puback(ack(id)));
        } else {
            assert!(unreleased.insert(id), "{id} was not released");
            got.push(number);
            reader.send(&Packet::Pubrec(ack(id)));
        }
    }
    got
}

/// Goal: `kill -9` at any moment loses nothing that was acknowledged, doubles nothing of QoS 2, and
/// keeps the order. Method: a publisher with a window of messages, a server that is killed in the
/// midst of it again and again, and a reader that was away all the time.
#[test]
fn kill_nine_loses_nothing_that_was_acknowledged() {
    for (qos, shards) in [
        (QoS::AtLeastOnce, 1),
        (QoS::ExactlyOnce, 1),
        (QoS::ExactlyOnce, 2),
    ] {
        let scratch = Scratch::new(&format!("kill-{qos:?}-{shards}"));
        let bare = || Bare::with_store(&scratch.0, shards);
        let mut server = bare();
        let (mut reader, _) = come(server.wire(), "reader");
        reader.subscribe("t", qos);
        drop(reader);
        let mut writer = Writer {
            qos,
            next: 1,
            sent: BTreeMap::new(),
            released: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
        };
        for round in 0..ROUNDS {
            let (mut peer, present) = come(server.wire(), "writer");
            assert_eq!(present, round > 0);
            writer.again(&mut peer);
            // Another moment in each round.
            let until = writer.next + SENT - round % 7;
            while writer.next < until {
                while writer.sent.len() < WINDOW && writer.next < until {
                    writer.new_one(&mut peer);
                }
                writer.hear(&mut peer);
            }
            server.kill();
            server = bare();
        }
        let (mut peer, _) = come(server.wire(), "writer");
        writer.again(&mut peer);
        while !writer.sent.is_empty() || !writer.released.is_empty() {
            writer.hear(&mut peer);
        }
        let mut got = drain(&server, qos, writer.next - 1);
        if qos == QoS::AtLeastOnce {
            let mut seen = BTreeSet::new();
            got.retain(|number| seen.insert(*number));
        }
        let all: Vec<u16> = (1..writer.next).collect();
        assert_eq!(got, all, "{qos:?}, {shards} shards");
        server.kill();
    }
}

/// Goal: what nobody needs any more does not stay on disk, and nothing else goes. Method: small
/// files, a session that keeps something from the beginning, and a flood through another one.
#[test]
fn a_store_that_is_written_for_long_stays_small() {
    const SEGMENT_BYTES: u64 = 64 * 1024;
    let scratch = Scratch::new("compact");
    let small = |shards| Options {
        store: Some(StoreOptions {
            segment_bytes: SEGMENT_BYTES,
            compact_bytes: 4 * SEGMENT_BYTES,
            ..StoreOptions::new(&scratch.0)
        }),
        ..plain_options(shards)
    };
    let house = House::open(small(2));
    let wire = || Wire::plain(house.address("plain"));
    let (mut away, _) = come(wire(), "away");
    away.subscribe("kept", QoS::AtLeastOnce);
    drop(away);
    let mut writer = Peer::login(wire(), "writer");
    for number in 0..10 {
        writer.publish_and_wait("kept", number.to_string().as_bytes());
    }
    let (mut reader, _) = come(wire(), "reader");
    reader.subscribe("flood", QoS::AtLeastOnce);
    let payload = vec![b'x'; 4096];
    for _ in 0..1_000 {
        writer.publish_and_wait("flood", &payload);
        let id = reader.see(|packet| match packet {
            Packet::Publish(publish) => publish.packet_id.unwrap().get(),
            other => panic!("no PUBLISH: {other:?}"),
        });
        reader.send(&Packet::Puback(ack(id)));
    }
    let bytes = || -> u64 {
        let files = std::fs::read_dir(&scratch.0).unwrap();
        files
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum()
    };
    // Four megabytes went through; a round may be under way.
    assert!(bytes() < 24 * SEGMENT_BYTES, "{} bytes", bytes());
    drop(house);
    let house = House::open(small(1));
    let (mut away, present) = come(Wire::plain(house.address("plain")), "away");
    assert!(present);
    take(&mut away, 0..10);
}
