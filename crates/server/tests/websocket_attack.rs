//! What peers may do to WebSocket itself: wrong requests, broken frames, floods, silence.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{Read, Write};

use casemate_codec::{Packet, QoS};
use casemate_server::{
    ClientCertificates, Listener, Options, Security, Server, StartError, WebSocketOptions,
};
use peer::framed::{
    answer, frame, house, open, plain_house, rest, wires, with_websocket, BINARY, CLOSE, PING,
    PONG, REQUEST,
};
use peer::papers::Authority;
use peer::{connect, dial, listener, plain_options, publish, House, Peer, Wire, PATIENCE};

/// CVE-2026-25627: a frame shorter than the packet that it begins is only a beginning.
#[test]
fn cve_2026_25627_a_frame_shorter_than_its_packet_is_a_beginning() {
    let house = plain_house(1);
    let mut peer = Peer::login(Wire::plain(house.address("ws")).upgrade(), "c");
    peer.subscribe("a", QoS::AtMostOnce);
    let bytes = peer.bytes(&Packet::Publish(publish("a", &[9; 4096])));
    peer.wire.write_all(&bytes[..5]).unwrap();
    peer.wire.write_all(&bytes[5..]).unwrap();
    assert_eq!(peer.message(), [9; 4096]);
    // The rest never comes: the end of the connection ends it.
    peer.wire.write_all(&bytes[..5]).unwrap();
    let Wire::WebSocket(framed) = &mut peer.wire else {
        unreachable!()
    };
    framed.wire.write_all(&frame(CLOSE, &[3, 0xE8])).unwrap();
    assert_eq!(peer.ends(), None);
    house.wait_for(|counters| counters.engine.connections_now == 0);
}

/// What breaks the rules of frames is answered with its code, and ends the connection.
/// [MQTT-6.0.0-1] [MQTT-3.1.1 6.0.0-1]
#[test]
fn frames_that_break_the_rules_end_the_connection() {
    let house = plain_house(1);
    let table: [(Vec<u8>, u16); 11] = [
        (frame(0x81, b"text"), 1003),
        (vec![BINARY, 2, 0xC0, 0], 1002),
        (frame(0xC2, b"deflated"), 1002),
        (frame(0x83, b""), 1002),
        (frame(0x80, b"no beginning"), 1002),
        (frame(0x09, b""), 1002),
        (frame(PING, &[0; 126]), 1002),
        (frame(CLOSE, &[3]), 1002),
        (frame(CLOSE, &[3, 0xED]), 1002),
        (
            [&[BINARY, 0xFF, 0x7F][..], &[0xFF; 7], &[0; 4]].concat(),
            1009,
        ),
        ([&[BINARY, 0xFF][..], &[0xFF; 8], &[0; 4]].concat(), 1009),
    ];
    let broken = table.len() as u64;
    for (bytes, code) in table {
        let mut framed = open(&house);
        framed.wire.write_all(&bytes).unwrap();
        rest(&mut framed);
        assert_eq!(
            framed.controls,
            [(CLOSE, code.to_be_bytes().to_vec())],
            "{bytes:x?}"
        );
    }
    house.wait_for(|counters| counters.shell.frames_refused == broken);
    house.wait_for(|counters| counters.engine.connections_now == 0);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told = events.iter().map(|event| format!("{:?}", event.kind));
    assert_eq!(told.filter(|kind| kind.contains("FrameRefused")).count(), 1);
}

#[test]
fn a_close_is_answered_with_its_code() {
    let house = plain_house(1);
    let table: [(&[u8], u16); 3] = [
        (&[3, 0xE8], 1000),
        (b"\x0F\xA1of my own", 4001),
        (b"", 1000),
    ];
    for (said, code) in table {
        let mut framed = open(&house);
        framed.wire.write_all(&frame(CLOSE, said)).unwrap();
        rest(&mut framed);
        assert_eq!(framed.controls, [(CLOSE, code.to_be_bytes().to_vec())]);
    }
}

/// Goal: nothing is lost to a race of closes. Method: DISCONNECT and a close in one segment, in
/// both orders, and a close in the middle of what the server writes.
#[test]
fn closes_from_both_sides_meet() {
    let house = plain_house(2);
    for turn in 0..40 {
        let mut peer = Peer::login(Wire::plain(house.address("ws")).upgrade(), "c");
        peer.subscribe("a", QoS::AtMostOnce);
        let flood = peer.bytes(&Packet::Publish(publish("a", &[1; 5_000])));
        let last = match turn % 4 {
            0 => [frame(BINARY, &[0xE0, 0]), frame(CLOSE, &[3, 0xE8])].concat(),
            1 => [frame(CLOSE, &[3, 0xE8]), frame(BINARY, &[0xE0, 0])].concat(),
            2 => frame(CLOSE, &[3, 0xE8]),
            _ => frame(BINARY, &[0xE0, 0]),
        };
        let Wire::WebSocket(framed) = &mut peer.wire else {
            unreachable!()
        };
        let run = [frame(BINARY, &flood.repeat(turn)), last].concat();
        framed.wire.write_all(&run).unwrap();
        peer.ends();
        let Wire::WebSocket(framed) = &peer.wire else {
            unreachable!()
        };
        assert_eq!(framed.controls, [(CLOSE, vec![3, 0xE8])], "turn {turn}");
    }
    house.wait_for(|counters| counters.engine.connections_now == 0);
}

#[test]
fn pings_are_answered_with_what_they_carry() {
    let house = plain_house(1);
    let mut framed = open(&house);
    for length in [0, 1, 125] {
        let payload = vec![7; length];
        framed.wire.write_all(&frame(PING, &payload)).unwrap();
        assert_eq!(framed.header().unwrap(), Some((PONG, length)));
        let mut said = vec![0; length];
        framed.wire.read_exact(&mut said).unwrap();
        assert_eq!(said, payload);
    }
    // A pong that nobody asked for is no fault.
    framed.wire.write_all(&frame(PONG, b"hm")).unwrap();
    framed.wire.write_all(&frame(PING, b"still")).unwrap();
    assert_eq!(framed.header().unwrap(), Some((PONG, 5)));
}

#[test]
fn a_hundred_thousand_pings_are_cut_off() {
    let house = plain_house(1);
    let mut honest = Peer::login(Wire::plain(house.address("ws")).upgrade(), "honest");
    let mut framed = open(&house);
    let pings = frame(PING, b"").repeat(100_000);
    // The server closes before all of it is written.
    let _ = framed.wire.write_all(&pings);
    rest(&mut framed);
    house.wait_for(|counters| counters.shell.empty_frames == 1);
    honest.ping();
}

/// HTTP that asks for something else is answered by HTTP.
#[test]
fn requests_for_something_else_are_answered_and_closed() {
    let authority = Authority::new("test");
    let house = house(&authority, 1);
    let text = std::str::from_utf8(REQUEST).unwrap();
    let table = [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "404"),
        ("GET /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "426"),
        ("POST /mqtt HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), "405"),
        ("GARBAGE\r\n\r\n".to_owned(), "400"),
        // [MQTT-6.0.0-3] [MQTT-3.1.1 6.0.0-3]
        (text.replace("Protocol: mqtt", "Protocol: other"), "400"),
        (text.replace("Version: 13", "Version: 12"), "426"),
        (
            format!("GET /mqtt HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(9000)),
            "431",
        ),
    ];
    let refused = 2 * table.len() as u64;
    for (request, status) in table {
        for mut wire in wires(&house, &authority.trusted_by(None)) {
            wire.write_all(request.as_bytes()).unwrap();
            wire.flush().unwrap();
            let answer = String::from_utf8(rest(&mut wire)).unwrap();
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{answer}"
            );
            assert!(answer.contains("\r\nConnection: close\r\n"));
        }
    }
    house.wait_for(|counters| counters.shell.upgrades_refused == refused);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told = events.iter().map(|event| format!("{:?}", event.kind));
    assert_eq!(
        told.filter(|kind| kind.contains("UpgradeRefused")).count(),
        1
    );
}

#[test]
fn only_listed_origins_connect() {
    let listeners = vec![with_websocket(
        listener("ws", Security::Plain),
        &["https://app.example"],
    )];
    let house = House::open(Options {
        listeners,
        ..plain_options(1)
    });
    let text = std::str::from_utf8(REQUEST).unwrap();
    for (origin, status) in [
        ("Origin: https://app.example\r\n", "101"),
        ("Origin: https://evil.example\r\n", "403"),
        ("", "403"),
    ] {
        let mut stream = dial(house.address("ws"));
        let request = text.replace("Host:", &format!("{origin}Host:"));
        stream.write_all(request.as_bytes()).unwrap();
        let answer = answer(&mut stream);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
    }
}

#[test]
fn mqtt_and_tls_on_a_websocket_port_are_closed_and_counted() {
    let authority = Authority::new("test");
    let house = house(&authority, 1);
    for _ in 0..3 {
        let mut peer = Peer::new(Wire::plain(house.address("ws")));
        peer.send(&Packet::Connect(connect("c")));
        assert!(rest(&mut peer.wire).is_empty());
        let mut wire = Wire::tls(house.address("ws"), &authority.trusted_by(None));
        assert!(wire.write_all(&[0]).and_then(|()| wire.flush()).is_err());
        let config = authority.trusted_by(None);
        let mut peer = Peer::new(Wire::tls(house.address("wss"), &config));
        peer.send(&Packet::Connect(connect("c")));
        assert!(rest(&mut peer.wire).is_empty());
    }
    house.wait_for(|counters| counters.shell.plain_on_websocket == 6);
    house.wait_for(|counters| counters.shell.tls_on_plain == 3);
    let (events, _) = house.server.next_events(100, PATIENCE);
    assert_eq!(events.len(), 2, "{events:?}");
}

/// A request byte by byte lives no longer than silence does.
#[test]
fn a_slow_request_ends_at_the_connect_deadline() {
    let listeners = vec![with_websocket(listener("ws", Security::Plain), &[])];
    let mut options = Options {
        listeners,
        ..plain_options(1)
    };
    options.settings.connect_deadline_ms = 500;
    let house = House::open(options);
    let mut silent = dial(house.address("ws"));
    let mut half = dial(house.address("ws"));
    half.write_all(&REQUEST[..REQUEST.len() - 1]).unwrap();
    assert!(rest(&mut silent).is_empty());
    assert!(rest(&mut half).is_empty());
    house.wait_for(|counters| counters.shell.handshake_timeouts == 2);
    // Afterwards it is the engine's own deadline for CONNECT.
    let mut open = open(&house);
    assert!(rest(&mut open).is_empty());
    house.wait_for(|counters| counters.engine.connect_deadlines == 1);
}

#[test]
fn options_that_no_client_could_meet_are_refused_at_the_start() {
    for (path, origin) in [("mqtt", None), ("/a b", None), ("/mqtt", Some("*"))] {
        let websocket = WebSocketOptions {
            path: path.into(),
            origins: origin.into_iter().map(str::to_owned).collect(),
        };
        let listener = Listener {
            websocket: Some(websocket),
            ..listener("ws", Security::Plain)
        };
        let options = Options {
            listeners: vec![listener],
            ..plain_options(1)
        };
        let outcome = Server::start(options, Vec::new());
        assert!(matches!(outcome, Err(StartError::WebSocket { .. })));
    }
}

/// Goal: who speaks HTTP to a port of MQTT is told so, with or without TLS, cut anywhere.
#[test]
fn http_on_a_port_of_mqtt_is_answered_and_closed() {
    let authority = Authority::new("test");
    let tls = authority.tls_options(ClientCertificates::None);
    let mut options = plain_options(1);
    options.listeners.push(listener("tls", Security::Tls(tls)));
    let house = House::open(options);
    let config = authority.trusted_by(None);
    let requests = [
        "GET / HTTP/1.1\r\n\r\n",
        "HEAD /mqtt",
        "PUT /x",
        "OPTIONS *",
        "POST",
    ];
    for request in requests {
        for cut in 0..4 {
            let wires = [
                Wire::plain(house.address("plain")),
                Wire::tls(house.address("tls"), &config),
            ];
            for mut wire in wires {
                wire.write_all(&request.as_bytes()[..cut]).unwrap();
                wire.flush().unwrap();
                wire.write_all(&request.as_bytes()[cut..]).unwrap();
                wire.flush().unwrap();
                let answer = String::from_utf8(rest(&mut wire)).unwrap();
                assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
                assert!(answer.contains("MQTT"), "{answer}");
            }
        }
    }
    house.wait_for(|counters| counters.shell.http_on_mqtt == 2 * 4 * requests.len() as u64);
    house.wait_for(|counters| counters.engine.connections_now == 0);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told = events.iter().map(|event| format!("{:?}", event.kind));
    assert_eq!(told.filter(|kind| kind == "HttpOnMqtt").count(), 1);
}
