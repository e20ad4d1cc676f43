//! MQTT over WebSocket: what is let in, what is refused, and frames cut and joined anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use casemate_codec::{Packet, QoS, Reason, Will, WillProperties};
use casemate_server::{Options, Security};
use peer::framed::{
    answer, frame, house, plain_house, wires, with_websocket, Framed, BINARY, CLOSE, PING, PONG,
    REQUEST,
};
use peer::papers::Authority;
use peer::{
    connect, listener, plain_options, publish, subscribe, subscription, House, Peer, Wire, PATIENCE,
};
use tungstenite::client::IntoClientRequest;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::Message;

/// [MQTT-6.0.0-1] [MQTT-3.1.1 6.0.0-1] [MQTT-6.0.0-4] [MQTT-3.1.1 6.0.0-4]
#[test]
fn clients_of_every_transport_reach_each_other() {
    let authority = Authority::new("test");
    for shards in [1, 2, 4] {
        let house = house(&authority, shards);
        let config = authority.trusted_by(None);
        let mut plain = Peer::login(Wire::plain(house.address("plain")), "plain");
        plain.subscribe("to/plain", QoS::AtMostOnce);
        for (number, wire) in wires(&house, &config).into_iter().enumerate() {
            let mut peer = Peer::login(wire.upgrade(), &format!("ws-{number}"));
            peer.subscribe("to/ws", QoS::AtLeastOnce);
            for length in [0, 1, 100, 120, 126, 1_000, 65_535, 65_536, 200_000] {
                let payload = vec![length as u8; length];
                peer.publish_and_wait("to/plain", &payload);
                assert!(plain.message() == payload);
                plain.publish("to/ws", &payload);
                assert!(peer.message() == payload);
            }
            peer.disconnect();
        }
        house.wait_for(|counters| counters.shell.upgrades == 2);
    }
}

/// Goal: tungstenite's own client understands us. Method: it connects, subscribes, publishes and
/// says good-bye, over both kinds of wire.
#[test]
fn tungstenite_is_served() {
    let authority = Authority::new("test");
    let house = house(&authority, 1);
    for wire in wires(&house, &authority.trusted_by(None)) {
        let mut request = "ws://localhost/mqtt".into_client_request().unwrap();
        let mqtt = "mqtt".parse().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", mqtt);
        let (mut socket, answer) = tungstenite::client(request, wire).unwrap();
        assert_eq!(answer.headers()["Sec-WebSocket-Protocol"], "mqtt");
        let talk = Peer::new(Wire::plain(house.address("plain")));
        let line = [subscription("a", QoS::AtMostOnce)];
        let run = [
            talk.bytes(&Packet::Connect(connect("tungstenite"))),
            talk.bytes(&Packet::Subscribe(subscribe(&line))),
            talk.bytes(&Packet::Publish(publish("a", b"hello"))),
        ];
        for bytes in run {
            socket.send(Message::binary(bytes)).unwrap();
        }
        let mut heard = Vec::new();
        while !heard.ends_with(b"hello") {
            match socket.read().unwrap() {
                Message::Binary(bytes) => heard.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
        socket.send(Message::Ping("are you there".into())).unwrap();
        assert_eq!(
            socket.read().unwrap(),
            Message::Pong("are you there".into())
        );
        let goodbye = tungstenite::protocol::CloseFrame {
            code: CloseCode::Away,
            reason: "done".into(),
        };
        socket.close(Some(goodbye)).unwrap();
        match socket.read().unwrap() {
            Message::Close(Some(close)) => assert_eq!(close.code, CloseCode::Away),
            other => panic!("{other:?}"),
        }
        assert!(matches!(
            socket.read(),
            Err(tungstenite::Error::ConnectionClosed)
        ));
    }
}

/// A whole conversation as bytes of one segment, and what must come of it.
fn conversation(client_id: &str) -> (Vec<u8>, Vec<u8>) {
    let talk = Peer::new(Wire::plain(*SINK));
    let line = [subscription("a", QoS::AtMostOnce)];
    let packets = [
        talk.bytes(&Packet::Connect(connect(client_id))),
        talk.bytes(&Packet::Subscribe(subscribe(&line))),
        talk.bytes(&Packet::Publish(publish("a", b"first"))),
        talk.bytes(&Packet::Publish(publish("a", b"last!"))),
    ];
    (REQUEST.to_vec(), packets.concat())
}

/// Somewhere to connect to, for a peer that only writes packets down.
static SINK: std::sync::LazyLock<SocketAddr> = std::sync::LazyLock::new(|| {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    address
});

/// Reads the answer to the request and both messages.
fn expect_conversation(mut wire: Wire, context: &str) {
    let head = answer(&mut wire);
    assert!(head.starts_with("HTTP/1.1 101 "), "{context}: {head}");
    let mut peer = Peer::new(Wire::WebSocket(Box::new(Framed::new(wire))));
    assert_eq!(peer.connack(), Reason::Success, "{context}");
    // With neighbours the SUBACK waits until all of them know; messages need not.
    let (mut messages, mut granted) = (Vec::new(), false);
    while messages.len() < 10 || !granted {
        peer.see(|packet| match packet {
            Packet::Suback(_) => granted = true,
            Packet::Publish(publish) => messages.extend_from_slice(publish.payload),
            other => panic!("{context}: {other:?}"),
        });
    }
    assert_eq!(messages, b"firstlast!", "{context}");
}

/// Goal: a connection moves to its home shard at any byte of what is under way. Method: request,
/// CONNECT, SUBSCRIBE and PUBLISH in one run, cut in two at every byte, over ws and wss.
/// [MQTT-6.0.0-2] [MQTT-3.1.1 6.0.0-2]
#[test]
fn a_handover_at_every_byte_loses_nothing() {
    let authority = Authority::new("test");
    let config = authority.trusted_by(None);
    let (request, packets) = conversation("handover");
    let run = [request, frame(BINARY, &packets)].concat();
    for shards in [1, 2, 4] {
        let house = house(&authority, shards);
        for (cut, secure) in (0..run.len()).flat_map(|cut| [(cut, false), (cut, true)]) {
            let mut wire = match secure {
                false => Wire::plain(house.address("ws")),
                true => Wire::tls(house.address("wss"), &config),
            };
            for piece in [&run[..cut], &run[cut..]] {
                wire.write_all(piece).unwrap();
                wire.flush().unwrap();
            }
            expect_conversation(wire, &format!("TLS {secure}, {shards} shards, cut {cut}"));
        }
    }
}

/// Goal: packets and frames have nothing to do with each other. Method: the same packets in frames
/// of every size, whole and as fragments of one message, with pings between them.
/// [MQTT-6.0.0-2] [MQTT-3.1.1 6.0.0-2]
#[test]
fn packets_span_frames_and_frames_carry_packets() {
    let house = plain_house(2);
    let (request, packets) = conversation("frames");
    for size in (1..packets.len() + 1).step_by(3) {
        let pieces: Vec<_> = packets.chunks(size).collect();
        let mut whole = request.clone();
        let mut fragments = request.clone();
        for (number, piece) in pieces.iter().enumerate() {
            whole.extend(frame(BINARY, piece));
            let opcode = if number == 0 { 2 } else { 0 };
            let last = number + 1 == pieces.len();
            fragments.extend(frame(opcode | if last { 0x80 } else { 0 }, piece));
            fragments.extend(frame(PING, b"between"));
        }
        for run in [whole, fragments] {
            let mut wire = Wire::plain(house.address("ws"));
            wire.write_all(&run).unwrap();
            expect_conversation(wire, &format!("frames of {size}"));
        }
    }
}

#[test]
fn byte_by_byte_everything_comes_through() {
    let house = plain_house(2);
    let (request, packets) = conversation("bytes");
    let mut wire = Wire::plain(house.address("ws"));
    for byte in [request, frame(BINARY, &packets)].concat() {
        wire.write_all(&[byte]).unwrap();
    }
    expect_conversation(wire, "byte by byte");
}

/// Goal: a stop ends with a close frame behind DISCONNECT, over both kinds of wire.
#[test]
fn a_stop_says_good_bye_in_both_languages() {
    let authority = Authority::new("test");
    let house = house(&authority, 2);
    let config = authority.trusted_by(None);
    let mut peers: Vec<_> = wires(&house, &config)
        .into_iter()
        .enumerate()
        .map(|(number, wire)| Peer::login(wire.upgrade(), &format!("c{number}")))
        .collect();
    let server = Arc::clone(&house.server);
    let stopping = std::thread::spawn(move || server.stop(PATIENCE));
    for peer in &mut peers {
        assert_eq!(peer.ends(), Some(Reason::ServerShuttingDown));
        let Wire::WebSocket(framed) = &peer.wire else {
            unreachable!()
        };
        assert_eq!(framed.controls, [(CLOSE, vec![3, 0xE8])]);
    }
    drop(peers);
    assert!(stopping.join().unwrap());
}

/// Goal: a reader that stalls in the middle of a frame gets all of it, pongs only between frames.
#[test]
fn a_slow_reader_sees_whole_frames() {
    let authority = Authority::new("test");
    let house = house(&authority, 1);
    let mut sender = Peer::login(Wire::plain(house.address("ws")).upgrade(), "sender");
    for wire in wires(&house, &authority.trusted_by(None)) {
        let mut peer = Peer::login(wire.upgrade(), "slow");
        peer.subscribe("a", QoS::AtLeastOnce);
        for number in 0..200_u8 {
            sender.publish_and_wait("a", &[number; 30_000]);
            if number % 20 == 0 {
                let Wire::WebSocket(framed) = &mut peer.wire else {
                    unreachable!()
                };
                framed.wire.write_all(&frame(PING, &[number])).unwrap();
                framed.wire.flush().unwrap();
            }
        }
        for number in 0..200_u8 {
            assert_eq!(peer.message(), [number; 30_000]);
        }
        peer.ping();
        let Wire::WebSocket(framed) = &peer.wire else {
            unreachable!()
        };
        assert!(framed.controls.iter().all(|(first, _)| *first == PONG));
        assert_eq!(framed.controls.last().unwrap().1, [180]);
    }
}

/// Goal: small messages share a frame. Method: a publisher's batch, counted in frames.
#[test]
fn messages_of_one_turn_share_a_frame() {
    let house = plain_house(1);
    let mut peer = Peer::login(Wire::plain(house.address("ws")).upgrade(), "c");
    peer.subscribe("a", QoS::AtMostOnce);
    let batch = peer.bytes(&Packet::Publish(publish("a", b"x"))).repeat(100);
    peer.wire.write_all(&batch).unwrap();
    for _ in 0..100 {
        assert_eq!(peer.message(), b"x");
    }
    let Wire::WebSocket(framed) = &peer.wire else {
        unreachable!()
    };
    assert!(framed.frames <= 10, "{} frames", framed.frames);
}

/// Goal: a listener changes what it speaks, and keeps its socket and its connections.
#[test]
fn a_listener_becomes_a_websocket_and_back_while_connections_live() {
    // A port that nobody uses at the moment.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let at = |websocket: bool| {
        let mut next = listener("plain", Security::Plain);
        next.address = address.into();
        match websocket {
            true => vec![with_websocket(next, &[])],
            false => vec![next],
        }
    };
    let house = House::open(Options {
        listeners: at(false),
        ..plain_options(2)
    });
    let mut plain = Peer::login(Wire::plain(address), "plain");
    plain.subscribe("a", QoS::AtMostOnce);
    assert!(house.server.install_listeners(&at(true)).unwrap());
    let mut framed = Peer::login(Wire::plain(address).upgrade(), "framed");
    framed.publish("a", b"from a frame");
    assert_eq!(plain.message(), b"from a frame");
    assert!(house.server.install_listeners(&at(false)).unwrap());
    framed.ping();
    Peer::login(Wire::plain(address), "late").ping();
}

/// Goal: a WebSocket that ends without DISCONNECT has lost its client. Method: a close, a frame
/// that breaks the rules, an abrupt end, and DISCONNECT for comparison; who hears of the will?
#[test]
fn only_disconnect_keeps_a_will_unsaid() {
    let house = plain_house(2);
    let mut heir = Peer::login(Wire::plain(house.address("ws")).upgrade(), "heir");
    heir.subscribe("will/#", QoS::AtMostOnce);
    let endings = [
        frame(BINARY, &[0xE0, 0]),
        frame(CLOSE, &[3, 0xE8]),
        frame(0x81, b"text"),
        Vec::new(),
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        let topic = format!("will/{number}");
        let mut peer = Peer::new(Wire::plain(house.address("ws")).upgrade());
        let mut hello = connect("mortal");
        hello.will = Some(Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: &topic,
            payload: topic.as_bytes(),
            properties: WillProperties::default(),
        });
        peer.send(&Packet::Connect(hello));
        assert_eq!(peer.connack(), Reason::Success);
        let Wire::WebSocket(framed) = &mut peer.wire else {
            unreachable!()
        };
        framed.wire.write_all(&ending).unwrap();
        if !ending.is_empty() {
            peer.ends();
        }
        drop(peer);
        if number > 0 {
            assert_eq!(heir.message(), topic.as_bytes());
        }
    }
}
