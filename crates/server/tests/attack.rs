//! What hostile peers try below MQTT's rules: floods, trickles, silence, huge announcements.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use casemate_codec::{Packet, QoS};
use peer::bare::Bare;
use peer::framed::{frame, house, PING};
use peer::papers::Authority;
use peer::{
    connect, connect_silent, dial, plain_options, publish, subscribe, subscription, House, Peer,
    Wire, PATIENCE,
};

/// Reads until the connection ends, one way or another.
fn ends(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while matches!(stream.read(&mut bytes), Ok(count) if count > 0) {}
}

/// What packets cost whose announced length is a lie.
fn announce(first: u8) {
    let bare = Bare::start(4096, "--shards 2 --connect-deadline-ms 3000");
    bare.greet("warm").disconnect();
    let before = bare.resident_kib();
    let streams: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = dial(bare.address);
            // 268,435,455 bytes, of which few come.
            stream.write_all(&[first, 0xFF, 0xFF, 0xFF, 0x7F]).unwrap();
            let _ = stream.write_all(&[0; 100]);
            stream
        })
        .collect();
    bare.greet("honest").disconnect();
    let grown = bare.resident_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 200 lies");
    streams.into_iter().for_each(ends);
}

#[test]
fn cve_2017_7651_a_huge_connect_costs_what_was_sent() {
    announce(0x10);
}

#[test]
fn cve_2023_0809_a_huge_first_packet_other_than_connect_costs_nothing() {
    announce(0x30);
    announce(0x82);
}

#[test]
fn garbage_is_closed_and_honest_clients_are_served() {
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let mut seed = 0x9E37_79B9_7F4A_7C15_u64;
    for _ in 0..300 {
        let bytes: Vec<u8> = (0..200)
            .map(|_| {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                seed as u8
            })
            .collect();
        let mut stream = dial(address);
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        ends(stream);
    }
    Peer::login(Wire::plain(address), "honest").disconnect();
}

/// CVE-2020-13849 and SlowTT: whoever holds every place without proving itself must give way.
#[test]
fn cve_2020_13849_silent_connections_do_not_keep_an_honest_one_out() {
    let mut options = plain_options(1);
    options.settings.connections_max = 20;
    let house = House::open(options);
    let address = house.address("plain");
    let mut honest = Peer::login(Wire::plain(address), "first");
    let mut silent: Vec<_> = (0..60).map(|_| dial(address)).collect();
    for (turn, stream) in silent.iter_mut().enumerate() {
        // Some say nothing, some the beginning of a CONNECT.
        if turn % 2 == 0 {
            let _ = stream.write_all(&[0x10]);
        }
    }
    Peer::login(Wire::plain(address), "second").disconnect();
    honest.ping();
    house.wait_for(|counters| counters.shell.evicted >= 40);
}

#[test]
fn who_has_proven_itself_is_never_evicted() {
    let mut options = plain_options(1);
    options.settings.connections_max = 10;
    let house = House::open(options);
    let address = house.address("plain");
    let mut peers: Vec<_> = (0..10)
        .map(|n| Peer::login(Wire::plain(address), &format!("c{n}")))
        .collect();
    for _ in 0..5 {
        ends(dial(address));
    }
    peers.iter_mut().for_each(Peer::ping);
    house.wait_for(|counters| counters.shell.refused_full >= 5);
}

#[test]
fn a_trickled_connect_ends_at_the_deadline() {
    let mut options = plain_options(2);
    options.settings.connect_deadline_ms = 1_000;
    let house = House::open(options);
    let mut peer = Peer::new(Wire::plain(house.address("plain")));
    let bytes = peer.bytes(&Packet::Connect(connect(&"x".repeat(2000))));
    let began = Instant::now();
    for byte in bytes {
        if peer.wire.write_all(&[byte]).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "it was never cut off"
    );
    house.wait_for(|counters| counters.engine.connect_deadlines >= 1);
}

/// Goal: bad CONNECTs leave no memory behind. Method: after a storm that fills what may be kept,
/// another one of the same size must find its room there.
#[test]
fn cve_2017_7654_bad_connects_leave_nothing_behind() {
    let bare = Bare::start(4096, "--shards 2 --connect-deadline-ms 500");
    let storm = |count: usize| {
        for _ in 0..count {
            let mut peer = Peer::new(Wire::plain(bare.address));
            let mut bytes = peer.bytes(&Packet::Connect(connect("victim")));
            // The reserved flag.
            bytes[9] |= 1;
            peer.wire.write_all(&bytes).unwrap();
            peer.ends();
        }
    };
    storm(10_000);
    let before = bare.resident_kib_peak();
    storm(10_000);
    let grown = bare.resident_kib_peak().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    bare.greet("honest").disconnect();
}

/// Goal: idle and half-closed connections cost no time.
#[test]
fn cve_2023_5632_idle_and_half_closed_connections_do_not_spin() {
    let bare = Bare::start(4096, "--shards 2");
    let peers: Vec<_> = (0..50).map(|n| bare.greet(&format!("c{n}"))).collect();
    let silent: Vec<_> = (0..50).map(|_| dial(bare.address)).collect();
    for peer in peers.iter().take(25) {
        peer.wire
            .socket()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
    let before = bare.processor_ticks();
    thread::sleep(Duration::from_secs(1));
    let spent = bare.processor_ticks() - before;
    assert!(
        spent < 10,
        "{spent} ticks of 10 ms in one second of silence"
    );
    drop((peers, silent));
}

/// Goal: an idle WebSocket keeps no buffer. Method: what 800 connections cost over what as many
/// plain ones do, after a message of 20 kB and a ping on each.
#[test]
fn an_idle_websocket_costs_less_than_a_kilobyte_more() {
    const COUNT: usize = 800;
    let bare = Bare::start(4096, "--shards 2 --ws-port 0");
    let websocket = bare.websocket.unwrap();
    // Whatever is made once is made before.
    Bare::greet_over(Wire::plain(websocket).upgrade(), "warm").disconnect();
    bare.greet("warm").disconnect();
    let cost = |kind: &str, wire: &dyn Fn() -> Wire| {
        let before = bare.resident_kib();
        let peers: Vec<_> = (0..COUNT)
            .map(|n| {
                let mut peer = Bare::greet_over(wire(), &format!("{kind}-{n}"));
                peer.publish_and_wait("nowhere", &[7; 20_000]);
                if let Wire::WebSocket(framed) = &mut peer.wire {
                    framed.wire.write_all(&frame(PING, &[7; 125])).unwrap();
                }
                peer.ping();
                peer
            })
            .collect();
        (bare.resident_kib().saturating_sub(before), peers)
    };
    let (plain, _kept) = cost("plain", &|| Wire::plain(bare.address));
    let (framed, _kept) = cost("framed", &|| Wire::plain(websocket).upgrade());
    assert!(framed <= plain + COUNT, "{framed} KiB against {plain} KiB");
}

/// Goal: a server without descriptors lives, does not spin, serves whom it has, and accepts
/// again when some are free. Method: a process with 40 of them, and 100 connections.
#[test]
fn a_server_out_of_descriptors_lives_and_accepts_again() {
    for shards in [1, 2] {
        let bare = Bare::start(40, &format!("--shards {shards}"));
        let mut first = bare.greet("first");
        first.subscribe("a", QoS::AtMostOnce);
        let crowd: Vec<_> = (0..100).map(|_| TcpStream::connect(bare.address)).collect();
        let before = bare.processor_ticks();
        for _ in 0..10 {
            first.publish("a", b"still here");
            assert_eq!(first.message(), b"still here");
            thread::sleep(Duration::from_millis(50));
        }
        let spent = bare.processor_ticks() - before;
        assert!(spent < 25, "{spent} ticks of 10 ms in half a second");
        drop(crowd);
        let until = Instant::now() + PATIENCE;
        loop {
            let mut late = Peer::new(Wire::plain(bare.address));
            let hello = late.bytes(&Packet::Connect(connect_silent("late")));
            if late.wire.write_all(&hello).is_ok() && matches!(late.next(), Ok(Some(_))) {
                break;
            }
            assert!(Instant::now() < until, "it never accepted again");
        }
    }
}

/// Goal: connections that come and go in every way leave nothing behind. Method: eight threads
/// for three seconds, over every transport, with garbage, half closes and abrupt ends.
#[test]
fn churn_leaves_nothing_behind() {
    let authority = Authority::new("test");
    let house = house(&authority, 4);
    let address = |kind| house.address(kind);
    let (plain, tls) = (address("plain"), address("tls"));
    let (ws, wss) = (address("ws"), address("wss"));
    let trusting = authority.trusted_by(None);
    let until = Instant::now() + Duration::from_secs(3);
    thread::scope(|scope| {
        for thread in 0..8_usize {
            let trusting = &trusting;
            scope.spawn(move || {
                let mut turn = thread;
                while Instant::now() < until {
                    turn += 1;
                    let wire = match turn / 4 % 4 {
                        0 => Wire::plain(plain),
                        1 => Wire::tls(tls, trusting),
                        2 => Wire::plain(ws).upgrade(),
                        _ => Wire::tls(wss, trusting).upgrade(),
                    };
                    come_and_go(wire, thread, turn);
                }
            });
        }
    });
    house.wait_for(|it| it.engine.connections_now == 0 && it.engine.publishes_sent > 0);
    assert!(house.server.counters().shell.handed_over > 0);
}

/// One connection of the churn; client ids are shared, so that sessions are taken over too.
fn come_and_go(mut wire: Wire, thread: usize, turn: usize) {
    if turn.is_multiple_of(11) {
        let _ = wire.write_all(&[0x10, 0x20, 0, 4]);
        return;
    }
    let mut peer = Peer::new(wire);
    let client_id = format!("churn-{}", (thread * 7 + turn) % 12);
    let lines = [subscription("churn/#", QoS::AtMostOnce)];
    let mut bytes = peer.bytes(&Packet::Connect(connect(&client_id)));
    bytes.extend(peer.bytes(&Packet::Subscribe(subscribe(&lines))));
    for _ in 0..turn % 50 {
        bytes.extend(peer.bytes(&Packet::Publish(publish("churn/x", &[7; 900]))));
    }
    let cut = bytes.len() * (turn % 5) / 4;
    if peer.wire.write_all(&bytes[..cut.min(bytes.len())]).is_err() {
        return;
    }
    let _ = peer.wire.flush();
    match turn % 4 {
        0 => {}
        1 => {
            let _ = peer.wire.socket().shutdown(std::net::Shutdown::Write);
            let _ = peer.next();
        }
        2 => {
            let _ = peer.wire.write_all(&[0xFF; 50]);
            let _ = peer.next();
        }
        _ => {
            // The CONNACK and some messages, where that much was sent.
            peer.wire
                .socket()
                .set_read_timeout(Some(Duration::from_millis(20)))
                .unwrap();
            for _ in 0..5 {
                if !matches!(peer.next(), Ok(Some(_))) {
                    return;
                }
            }
        }
    }
}

/// Goal: a publisher that floods does not keep a newcomer waiting.
#[test]
fn cve_2024_48077_a_flood_does_not_keep_a_newcomer_waiting() {
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let floods: Vec<_> = (0..4)
        .map(|n| {
            let mut peer = Peer::login(Wire::plain(address), &format!("flood{n}"));
            let bytes = peer
                .bytes(&Packet::Publish(publish("nowhere", &[0; 60])))
                .repeat(1000);
            let socket = peer.wire.socket().try_clone().unwrap();
            (
                thread::spawn(move || while peer.wire.write_all(&bytes).is_ok() {}),
                socket,
            )
        })
        .collect();
    for n in 0..20 {
        let mut peer = Peer::login(Wire::plain(address), &format!("new{n}"));
        peer.ping();
        peer.disconnect();
    }
    for (thread, socket) in floods {
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        thread.join().unwrap();
    }
}
