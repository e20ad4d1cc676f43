//! What hostile peers try below MQTT's rules: floods, trickles, silence, huge announcements.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use casemate_codec::{Packet, QoS};
use peer::{
    connect, connect_silent, dial, plain_options, publish, resident_kib, House, Peer, Wire,
    PATIENCE,
};

/// Tests that look at the memory of the process take turns.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads until the connection ends, one way or another.
fn ends(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while matches!(stream.read(&mut bytes), Ok(count) if count > 0) {}
}

/// What one packet of each kind costs when its announced length is a lie.
fn announce(first: u8, connections: usize) {
    let _turn = alone();
    let mut options = plain_options(2);
    options.settings.connect_deadline_ms = 3_000;
    let house = House::open(options);
    let address = house.address("plain");
    Peer::login(Wire::plain(address), "warm").disconnect();
    let before = resident_kib();
    let streams: Vec<_> = (0..connections)
        .map(|_| {
            let mut stream = dial(address);
            // 268,435,455 bytes, of which few come.
            stream.write_all(&[first, 0xFF, 0xFF, 0xFF, 0x7F]).unwrap();
            let _ = stream.write_all(&[0; 100]);
            stream
        })
        .collect();
    Peer::login(Wire::plain(address), "honest").disconnect();
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 64 * 1024, "{grown} KiB for {connections} lies");
    streams.into_iter().for_each(ends);
    house.wait_for(|counters| counters.engine.connections_now == 0);
}

#[test]
fn cve_2017_7651_a_huge_connect_costs_what_was_sent() {
    announce(0x10, 200);
}

#[test]
fn cve_2023_0809_a_huge_first_packet_other_than_connect_costs_nothing() {
    announce(0x30, 200);
    announce(0x82, 200);
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

/// Goal: neither a flood of connections nor one of bad CONNECTs leaves memory behind.
#[test]
fn cve_2017_7654_bad_connects_leave_nothing_behind() {
    let _turn = alone();
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let storm = |count: usize| {
        for _ in 0..count {
            let mut peer = Peer::new(Wire::plain(address));
            let mut bytes = peer.bytes(&Packet::Connect(connect("victim")));
            // The reserved flag.
            bytes[9] |= 1;
            peer.wire.write_all(&bytes).unwrap();
            peer.ends();
        }
    };
    storm(500);
    let before = resident_kib();
    storm(5_000);
    let grown = resident_kib().saturating_sub(before);
    assert!(grown < 8 * 1024, "{grown} KiB");
    house.wait_for(|counters| counters.engine.connections_now == 0);
}

/// Goal: idle connections cost little and cost no time (CVE-2023-5632 was a spin).
#[test]
fn cve_2023_5632_idle_and_half_closed_connections_do_not_spin() {
    let _turn = alone();
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let mut peers: Vec<_> = (0..50)
        .map(|n| Peer::login(Wire::plain(address), &format!("c{n}")))
        .collect();
    let silent: Vec<_> = (0..50).map(|_| dial(address)).collect();
    for peer in peers.iter_mut().take(25) {
        peer.wire
            .socket()
            .shutdown(std::net::Shutdown::Write)
            .unwrap();
    }
    let before = processor_ms();
    thread::sleep(Duration::from_secs(1));
    let spent = processor_ms() - before;
    assert!(
        spent < 200,
        "{spent} ms of processor time in one second of silence"
    );
    drop((peers, silent));
}

/// Processor time of this process, ms.
fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks * 10
}

/// A server in a process of its own, with few descriptors.
struct Bare {
    child: Child,
    address: SocketAddr,
}

impl Bare {
    fn start(descriptors: usize, options: &str) -> Bare {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.push("examples/bare");
        let line = format!(
            "ulimit -n {descriptors} && exec {} --port 0 --anonymous --until-eof {options}",
            path.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let port = ready
            .split("\"port\":")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap();
        Bare {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())),
        }
    }

    fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                assert!(status.success() || thread::panicking());
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Goal: a server without descriptors lives, does not spin, serves whom it has, and accepts
/// again when some are free. Method: a process with 40 of them, and 100 connections.
#[test]
fn a_server_out_of_descriptors_lives_and_accepts_again() {
    for shards in [1, 2] {
        let bare = Bare::start(40, &format!("--shards {shards}"));
        let mut first = Peer::new(Wire::plain(bare.address));
        first.send(&Packet::Connect(connect_silent("first")));
        first.connack();
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
