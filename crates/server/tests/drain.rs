//! The end of a server: nobody new, no new promise, the old ones kept, then a good-bye.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::net::TcpStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use casemate_codec::{Ack, Packet, PacketId, QoS, Reason, UserProperties};
use casemate_server::Server;
use peer::{plain_options, publish, House, Peer, Wire, PATIENCE};

/// Longer than any test may take; a drain that waits for it has failed.
const LONG: Duration = Duration::from_secs(60);

fn drain(
    house: &House,
    deadline: Duration,
    server_reference: Option<&'static str>,
) -> JoinHandle<bool> {
    let server: Arc<Server> = Arc::clone(&house.server);
    std::thread::spawn(move || server.drain(deadline, server_reference))
}

/// Waits until a drain has begun, which the closed port tells.
fn wait_until_closed(house: &House) {
    let address = house.server.addresses()[0].1.tcp().unwrap();
    while TcpStream::connect_timeout(&address, PATIENCE).is_ok() {
        std::thread::yield_now();
    }
}

fn login(house: &House, client_id: &str) -> Peer {
    Peer::login(Wire::plain(house.address("plain")), client_id)
}

/// The next packet, which is a DISCONNECT: its reason and where to go.
fn goodbye(mut peer: Peer) -> (Reason, Option<String>) {
    let said = peer.see(|packet| match packet {
        Packet::Disconnect(it) => (it.reason, it.server_reference.map(str::to_owned)),
        other => panic!("no DISCONNECT: {other:?}"),
    });
    assert!(peer.ends().is_none());
    said
}

/// Publishes at QoS 1 under a packet id; the acknowledgement is not waited for.
fn promise(peer: &mut Peer, topic: &str, payload: &[u8], id: u16) {
    let mut packet = publish(topic, payload);
    packet.qos = QoS::AtLeastOnce;
    packet.packet_id = PacketId::new(id);
    peer.send(&Packet::Publish(packet));
}

fn puback(id: PacketId) -> Packet<'static> {
    Packet::Puback(Ack {
        packet_id: id,
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    })
}

/// The next message at QoS 1: its packet id.
fn receive(peer: &mut Peer) -> PacketId {
    peer.see(|packet| match packet {
        Packet::Publish(it) => it.packet_id.unwrap(),
        other => panic!("no PUBLISH: {other:?}"),
    })
}

#[test]
fn who_is_owed_nothing_is_told_to_go() {
    for shards in [1, 2, 4] {
        let house = House::open(plain_options(shards));
        let peers: Vec<_> = (0..8).map(|it| login(&house, &format!("c{it}"))).collect();
        let draining = drain(&house, LONG, None);
        for peer in peers {
            assert_eq!(goodbye(peer), (Reason::ServerShuttingDown, None));
        }
        assert!(draining.join().unwrap());
        assert!(house.server.has_ended());
    }
}

#[test]
fn a_server_reference_says_where_to_go() {
    let house = House::open(plain_options(2));
    let peer = login(&house, "c");
    let draining = drain(&house, LONG, Some("other.example:8883"));
    let there = Some("other.example:8883".to_owned());
    assert_eq!(goodbye(peer), (Reason::UseAnotherServer, there));
    assert!(draining.join().unwrap());
}

/// Goal: what was acknowledged is delivered before the end. Method: a subscriber that has not
/// acknowledged what it got; the drain waits for it, and for nobody else.
#[test]
fn a_drain_waits_for_who_is_owed_a_message() {
    for shards in [1, 4] {
        let house = House::open(plain_options(shards));
        let mut reader = login(&house, "reader");
        reader.subscribe("t", QoS::AtLeastOnce);
        let mut writer = login(&house, "writer");
        writer.publish_and_wait("t", b"1");
        writer.publish_and_wait("t", b"2");
        let draining = drain(&house, LONG, None);
        assert_eq!(goodbye(writer).0, Reason::ServerShuttingDown);
        assert!(!draining.is_finished());
        for _ in 0..2 {
            let id = receive(&mut reader);
            reader.send(&puback(id));
        }
        assert_eq!(goodbye(reader).0, Reason::ServerShuttingDown);
        assert!(draining.join().unwrap());
    }
}

#[test]
fn a_drain_makes_no_new_promise() {
    let house = House::open(plain_options(1));
    let mut reader = login(&house, "reader");
    reader.subscribe("t", QoS::AtLeastOnce);
    let mut writer = login(&house, "writer");
    writer.subscribe("t", QoS::AtLeastOnce);
    login(&house, "other").publish_and_wait("t", b"1");
    let draining = drain(&house, LONG, None);
    wait_until_closed(&house);
    // The writer stays, as it is owed its own message.
    promise(&mut writer, "t", b"late", 9);
    let id = receive(&mut writer);
    writer.send(&puback(id));
    assert_eq!(goodbye(writer).0, Reason::ServerShuttingDown);
    let id = receive(&mut reader);
    reader.send(&puback(id));
    assert_eq!(goodbye(reader).0, Reason::ServerShuttingDown);
    assert!(draining.join().unwrap());
}

#[test]
fn who_takes_too_long_is_told_and_cut_off_at_the_deadline() {
    let house = House::open(plain_options(2));
    let mut reader = login(&house, "reader");
    reader.subscribe("t", QoS::AtLeastOnce);
    login(&house, "writer").publish_and_wait("t", b"1");
    receive(&mut reader);
    let draining = drain(&house, Duration::from_millis(50), Some("other:1"));
    let there = Some("other:1".to_owned());
    assert_eq!(goodbye(reader), (Reason::UseAnotherServer, there));
    assert!(!draining.join().unwrap(), "a promise was not kept");
    assert!(house.server.has_ended());
}

#[test]
fn a_stop_cuts_a_drain_short() {
    let house = House::open(plain_options(2));
    let mut reader = login(&house, "reader");
    reader.subscribe("t", QoS::AtLeastOnce);
    login(&house, "writer").publish_and_wait("t", b"1");
    let draining = drain(&house, LONG, None);
    wait_until_closed(&house);
    house.server.stop(Duration::ZERO);
    assert!(!draining.join().unwrap());
    assert!(house.server.has_ended());
}

#[test]
fn who_has_said_nothing_does_not_hold_a_drain_up() {
    let house = House::open(plain_options(2));
    let mut silent: Vec<_> = (0..4)
        .map(|_| Peer::new(Wire::plain(house.address("plain"))))
        .collect();
    house.wait_for(|counters| counters.shell.accepted == 4);
    assert!(house.server.drain(LONG, None));
    for peer in &mut silent {
        peer.ends();
    }
}
