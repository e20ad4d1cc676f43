//! The ends of resources: descriptors, memory, and more connections than anybody meant to have.
//!
//! The server runs in a process of its own, whose memory and descriptors are watched.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use casemate_codec::{Connect, Packet, PacketId, Publish, QoS, Reason};
use peer::bare::Bare;
use peer::{connect_silent, dial, publish, Peer, Wire, PATIENCE};

/// Goal: a crowd that is there, with keep alive, costs little and hears a broadcast, each member
/// once. Method: they connect, subscribe, keep still, and are sent three messages.
fn a_crowd_hears_a_broadcast(crowd: usize, kib_each_max: usize) {
    let bare = Bare::start(crowd + 100, "--shards 2");
    let mut herald = bare.greet("herald");
    let before = bare.resident_kib();
    let names: Vec<String> = (0..crowd).map(|n| format!("idle-{n}")).collect();
    let mut members: Vec<Peer> = names
        .iter()
        .map(|name| {
            let mut member = Peer::new(Wire::plain(bare.address));
            member.send(&Packet::Connect(Connect {
                keep_alive_s: 600,
                ..connect_silent(name)
            }));
            assert_eq!(member.connack(), Reason::Success);
            member.subscribe("broadcast", QoS::AtMostOnce);
            member
        })
        .collect();
    let grown = bare.resident_kib().saturating_sub(before);
    // Beside what each of them costs, the server warms up: buffers, segments of the allocator.
    let most = 8 * 1024 + crowd * kib_each_max;
    assert!(grown < most, "{grown} KiB for {crowd}");
    let quiet = bare.processor_ticks();
    thread::sleep(Duration::from_secs(1));
    let spent = bare.processor_ticks() - quiet;
    assert!(
        spent < 10,
        "{spent} ticks of 10 ms for a crowd that is still"
    );
    for turn in 0..3_u8 {
        herald.publish_and_wait("broadcast", &[turn; 64]);
    }
    for member in &mut members {
        for turn in 0..3_u8 {
            assert_eq!(member.message(), [turn; 64]);
        }
        member.ping();
    }
    drop(members);
    bare.wait_for_descriptors(40);
    bare.greet("late").disconnect();
}

#[test]
fn five_hundred_idle_connections_hear_a_broadcast() {
    a_crowd_hears_a_broadcast(500, 16);
}

#[test]
#[ignore = "soak: 20,000 descriptors, half of them here"]
fn ten_thousand_idle_connections_hear_a_broadcast() {
    a_crowd_hears_a_broadcast(10_000, 8);
}

/// Goal: a storm of connections is served in the end, and leaves no descriptor behind. Method:
/// eight threads open as many as they can, with a CONNECT, half of one, or none.
fn an_accept_storm_passes(connections_each: usize) {
    let bare = Bare::start(8_192, "--shards 2 --connect-deadline-ms 2000");
    let mut honest = bare.greet("honest");
    let idle = bare.descriptors();
    let storm = || {
        thread::scope(|scope| {
            for thread in 0..8 {
                let bare = &bare;
                scope.spawn(move || storm_of(bare, thread, connections_each));
            }
            for _ in 0..20 {
                honest.ping();
            }
        });
    };
    let mut storm = storm;
    storm();
    bare.wait_for_descriptors(idle);
    let before = bare.resident_kib();
    storm();
    bare.wait_for_descriptors(idle);
    let grown = bare.resident_kib().saturating_sub(before);
    assert!(grown < 6 * 1024, "{grown} KiB after the second storm");
    bare.greet("late").disconnect();
}

fn storm_of(bare: &Bare, thread: usize, connections: usize) {
    let mut open: Vec<TcpStream> = Vec::new();
    for turn in 0..connections {
        let Ok(mut stream) = TcpStream::connect(bare.address) else {
            continue;
        };
        let name = format!("storm-{thread}-{turn}");
        let hello = Peer::new(Wire::Plain(stream.try_clone().unwrap()))
            .bytes(&Packet::Connect(connect_silent(&name)));
        let sent = match turn % 3 {
            0 => hello.len(),
            1 => hello.len() / 2,
            _ => 0,
        };
        let _ = stream.write_all(&hello[..sent]);
        open.push(stream);
        if open.len() > 100 {
            open.clear();
        }
    }
}

#[test]
fn an_accept_storm_leaves_no_descriptor_behind() {
    an_accept_storm_passes(250);
}

#[test]
#[ignore = "soak: 80,000 connections, twice"]
fn a_long_accept_storm_leaves_no_descriptor_behind() {
    an_accept_storm_passes(10_000);
}

/// Goal: readers that never read cost no more than the bounds of their queues. Method: four of
/// them on one topic, and a publisher that sends many times what the queues hold (16 MiB each).
fn deaf_readers_cost_their_queues(qos: QoS, mebibytes: usize) {
    let bare = Bare::start(4096, "--shards 2");
    let names = ["deaf-0", "deaf-1", "deaf-2", "deaf-3"];
    let deaf: Vec<Peer> = names
        .iter()
        .map(|name| {
            let mut reader = bare.greet(name);
            reader.subscribe("flood", qos);
            reader
        })
        .collect();
    let mut writer = bare.greet("writer");
    let before = bare.resident_kib();
    let payload = vec![7; 64 * 1024];
    for message in 0..mebibytes * 16 {
        let id = u16::try_from(message % 60_000 + 1).unwrap();
        writer.send(&Packet::Publish(Publish {
            qos,
            packet_id: PacketId::new(id).filter(|_| qos > QoS::AtMostOnce),
            ..publish("flood", &payload)
        }));
        if qos > QoS::AtMostOnce {
            writer.see(|packet| assert!(matches!(packet, Packet::Puback(_)), "{packet:?}"));
        }
    }
    writer.ping();
    let grown = bare.resident_kib().saturating_sub(before);
    // The queues share the messages; windows and one message of slack come on top.
    assert!(grown < 4 * 20 * 1024, "{grown} KiB for four queues");
    bare.greet("honest").disconnect();
    drop(deaf);
}

#[test]
fn deaf_readers_at_qos_0_cost_no_more_than_their_queues() {
    deaf_readers_cost_their_queues(QoS::AtMostOnce, 200);
}

#[test]
fn deaf_readers_at_qos_1_cost_no_more_than_their_queues() {
    deaf_readers_cost_their_queues(QoS::AtLeastOnce, 100);
}

/// Goal: half of a large packet costs what was sent of it, from those who are let in as well.
/// Method: what nine hundred more of them cost, when the first hundred are there.
#[test]
fn unfinished_packets_cost_what_was_sent_of_them() {
    let bare = Bare::start(4096, "--shards 2");
    let halves = |from: usize, to: usize| -> Vec<Peer> {
        let names = (from..to).map(|n| format!("half-{n}"));
        let begun = names.map(|name| {
            let mut peer = bare.greet(&name);
            // A PUBLISH of 1,000,000 bytes, of which 2,000 come.
            let head = [0x30, 0xC0, 0x84, 0x3D, 0, 1, b't', 0];
            peer.wire.write_all(&head).unwrap();
            peer.wire.write_all(&[7; 2_000]).unwrap();
            peer
        });
        begun.collect()
    };
    let first = halves(0, 100);
    bare.greet("honest").disconnect();
    let before = bare.resident_kib();
    let second = halves(100, 1_000);
    bare.greet("honest").disconnect();
    let grown = bare.resident_kib().saturating_sub(before);
    assert!(grown < 900 * 10, "{grown} KiB for 900 halves");
    drop((first, second));
}

/// Goal: with all descriptors in use, those who are served stay served, and the next one gets in
/// as soon as one is free. Method: a server with 60, filled to the last with proven clients.
#[test]
fn the_last_descriptor_is_given_and_taken_back() {
    let bare = Bare::start(60, "--shards 1");
    let mut members: Vec<Peer> = Vec::new();
    let until = Instant::now() + PATIENCE;
    while members.len() < 100 {
        let mut peer = Peer::new(Wire::Plain(dial(bare.address)));
        let hello = peer.bytes(&Packet::Connect(connect_silent(&format!(
            "c{}",
            members.len()
        ))));
        let wait = Some(Duration::from_millis(500));
        peer.wire.socket().set_read_timeout(wait).unwrap();
        let _ = peer.wire.write_all(&hello);
        if !matches!(peer.next(), Ok(Some(_))) {
            break;
        }
        peer.wire.socket().set_read_timeout(Some(PATIENCE)).unwrap();
        members.push(peer);
    }
    assert!(
        (20..60).contains(&members.len()),
        "{} came in",
        members.len()
    );
    members.iter_mut().for_each(Peer::ping);
    drop(members.pop());
    loop {
        let mut peer = Peer::new(Wire::plain(bare.address));
        let hello = peer.bytes(&Packet::Connect(connect_silent("next")));
        if peer.wire.write_all(&hello).is_ok() && matches!(peer.next(), Ok(Some(_))) {
            break;
        }
        assert!(
            Instant::now() < until,
            "nobody got the place that became free"
        );
    }
    members.iter_mut().for_each(Peer::ping);
}
