//! The PROXY header on a real server: from whom it is taken, what it changes, and what it does not.

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

use casemate_codec::{Packet, QoS, Reason};
use casemate_server::{Address, ClientCertificates, Listener, Options, Security, UnixAddress};
use peer::framed::{frame, rest, with_websocket, BINARY, REQUEST};
use peer::papers::{in_an_hour, Authority};
use peer::{
    connect, connect_silent, dial, listener, plain_options, publish, House, Peer, Wire, PATIENCE,
};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 8883\r\n";
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xC0\0\x02\x07\xC6\x33\x64\x01\x1F\x90\x22\xB3\
    \x04\0\0";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

/// For whom the balancer speaks in both.
const SOURCE: &str = "192.0.2.7:8080";

fn behind(networks: &[&str], listener: Listener) -> Listener {
    Listener {
        proxy_from: networks.iter().map(|it| it.parse().unwrap()).collect(),
        ..listener
    }
}

fn house(listeners: Vec<Listener>, shards: usize) -> House {
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// The four kinds over TCP, all behind a balancer on loopback.
fn all_kinds(authority: &Authority, shards: usize) -> House {
    let tls = || Security::Tls(authority.tls_options(ClientCertificates::None));
    let listeners = [
        listener("tcp", Security::Plain),
        listener("tls", tls()),
        with_websocket(listener("ws", Security::Plain), &[]),
        with_websocket(listener("wss", tls()), &[]),
    ];
    let listeners = listeners.map(|it| behind(&["127.0.0.0/8", "::1"], it));
    house(listeners.into(), shards)
}

/// A wire of a kind, behind a header that was written already.
fn wire(house: &House, kind: &str, header: &[u8], config: &Arc<ClientConfig>) -> Wire {
    let mut stream = dial(house.address(kind));
    stream.write_all(header).unwrap();
    let wire = match kind {
        "tcp" | "ws" => Wire::Plain(stream),
        _ => {
            let name = ServerName::try_from("localhost").unwrap();
            let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
            Wire::Tls(Box::new(StreamOwned::new(connection, stream)))
        }
    };
    match kind {
        "ws" | "wss" => wire.upgrade(),
        _ => wire,
    }
}

/// The address in the events of this client.
fn address_of(house: &House, client_id: &str) -> SocketAddr {
    loop {
        let (events, _) = house.server.next_events(100, PATIENCE);
        assert!(!events.is_empty(), "it was never told about");
        let found = events.iter().find(|it| &*it.client_id == client_id);
        if let Some(event) = found {
            return event.address.unwrap();
        }
    }
}

#[test]
fn the_header_gives_the_address_on_every_kind_of_listener() {
    let authority = Authority::new("test");
    let config = authority.trusted_by(None);
    for shards in [1, 2] {
        let house = all_kinds(&authority, shards);
        for kind in ["tcp", "tls", "ws", "wss"] {
            for (header, source) in [(V1, true), (V2, true), (LOCAL, false), (UNKNOWN, false)] {
                let client_id = format!("{kind}-{}-{source}", header.len());
                let mut peer = Peer::login(wire(&house, kind, header, &config), &client_id);
                peer.subscribe("a", QoS::AtMostOnce);
                peer.publish("a", b"hello");
                assert_eq!(peer.message(), b"hello");
                let address = address_of(&house, &client_id);
                match source {
                    true => assert_eq!(address.to_string(), SOURCE),
                    false => assert!(address.ip().is_loopback(), "{address}"),
                }
            }
        }
        house.wait_for(|counters| counters.shell.proxied == 16);
    }
}

/// Goal: the header ends where it ends. Method: header and everything behind it in one run, cut
/// in two at every byte, plain and over WebSocket.
#[test]
fn header_and_connect_may_be_cut_anywhere() {
    let authority = Authority::new("test");
    let house = all_kinds(&authority, 2);
    let hello = Peer::new(Wire::plain(house.address("tcp"))).bytes(&Packet::Connect(connect("c")));
    for header in [V1, V2, LOCAL] {
        let plain = [header, &hello].concat();
        let framed = [header, REQUEST, &frame(BINARY, &hello)].concat();
        for (kind, run, step) in [("tcp", plain, 1), ("ws", framed, 4)] {
            for cut in (0..run.len()).step_by(step) {
                let mut wire = Wire::plain(house.address(kind));
                wire.write_all(&run[..cut]).unwrap();
                wire.write_all(&run[cut..]).unwrap();
                if kind == "ws" {
                    let answer = peer::framed::answer(&mut wire);
                    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
                    wire = Wire::WebSocket(Box::new(peer::framed::Framed::new(wire)));
                }
                assert_eq!(Peer::new(wire).connack(), Reason::Success, "{kind} {cut}");
            }
        }
    }
}

#[test]
fn from_a_named_network_a_header_is_required() {
    let authority = Authority::new("test");
    let config = authority.trusted_by(None);
    let house = all_kinds(&authority, 1);
    let hello = Peer::new(Wire::plain(house.address("tcp"))).bytes(&Packet::Connect(connect("c")));
    let truncated_tlv: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xC0\0\x02\x07\xC6\x33\x64\x01\
        \x1F\x90\x22\xB3\x04\0\x09";
    let runs: [&[u8]; 6] = [
        &hello,
        REQUEST,
        b"PROXY TCP4 nobody nowhere 1 2\r\n",
        &[b"PROXY ".as_slice(), &[b'x'; 200]].concat(),
        truncated_tlv,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF",
    ];
    for bytes in runs {
        let mut stream = dial(house.address("tcp"));
        stream.write_all(bytes).unwrap();
        assert!(rest(&mut stream).is_empty());
    }
    // A handshake is no header either.
    let mut wire = Wire::tls(house.address("tls"), &config);
    assert!(wire.write_all(&hello).and_then(|()| wire.flush()).is_err());
    house.wait_for(|counters| counters.shell.proxy_refused == 7);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told = events.iter().map(|event| format!("{:?}", event.kind));
    assert_eq!(told.filter(|it| it.contains("ProxyRefused")).count(), 1);
}

/// From everybody else a header is what it looks like to MQTT and TLS: garbage.
#[test]
fn from_other_networks_a_header_is_never_read() {
    let authority = Authority::new("test");
    let tls = Security::Tls(authority.tls_options(ClientCertificates::None));
    let kinds = [
        listener("tcp", Security::Plain),
        listener("tls", tls),
        with_websocket(listener("ws", Security::Plain), &[]),
    ];
    let listeners = kinds.map(|it| behind(&["192.0.2.0/24"], it));
    let mut options = Options {
        listeners: listeners.into(),
        ..plain_options(1)
    };
    // Version 1 looks like the beginning of a request that never ends.
    options.settings.connect_deadline_ms = 1_000;
    let house = House::open(options);
    let hello = Peer::new(Wire::plain(house.address("tcp"))).bytes(&Packet::Connect(connect("c")));
    for kind in ["tcp", "tls", "ws"] {
        for header in [V1, V2] {
            let mut stream = dial(house.address(kind));
            let _ = stream.write_all(&[header, &hello].concat());
            rest(&mut stream);
        }
    }
    let mut peer = Peer::login(Wire::plain(house.address("tcp")), "honest");
    peer.ping();
    assert!(address_of(&house, "honest").ip().is_loopback());
    assert_eq!(house.server.counters().shell.proxied, 0);
}

#[test]
fn a_header_that_never_ends_ends_at_the_connect_deadline() {
    let mut options = plain_options(1);
    options.listeners = vec![behind(&["127.0.0.1"], listener("tcp", Security::Plain))];
    options.settings.connect_deadline_ms = 500;
    let house = House::open(options);
    let mut streams: Vec<_> = [&V1[..V1.len() - 1], &V2[..20], b""]
        .into_iter()
        .map(|bytes| {
            let mut stream = dial(house.address("tcp"));
            stream.write_all(bytes).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams {
        assert!(rest(stream).is_empty());
    }
    house.wait_for(|counters| counters.shell.handshake_timeouts == 3);
}

/// What is told once for each address is told for the header's, not for the balancer's.
#[test]
fn oddities_are_told_by_the_address_of_the_header() {
    let authority = Authority::new("test");
    let house = all_kinds(&authority, 1);
    for source in ["192.0.2.7", "192.0.2.8", "192.0.2.7"] {
        let mut stream = dial(house.address("tcp"));
        let header = format!("PROXY TCP4 {source} 198.51.100.1 1 2\r\n\x16\x03\x01");
        stream.write_all(header.as_bytes()).unwrap();
        rest(&mut stream);
    }
    house.wait_for(|counters| counters.shell.tls_on_plain == 3);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told: Vec<_> = events
        .iter()
        .filter(|event| format!("{:?}", event.kind) == "TlsOnPlain")
        .map(|event| event.address.unwrap().ip().to_string())
        .collect();
    assert_eq!(told, ["192.0.2.7", "192.0.2.8"]);
}

/// Who somebody is comes from the certificate alone, behind a balancer as before.
#[test]
fn identity_comes_from_the_certificate_behind_the_header() {
    let authority = Authority::new("test");
    let tls = Security::Tls(authority.tls_options(ClientCertificates::Required));
    let house = house(vec![behind(&["127.0.0.1"], listener("tls", tls))], 2);
    let paper = authority.client("device");
    let account = paper.account("device", in_an_hour());
    house.server.install_accounts(vec![account]);
    let config = authority.trusted_by(Some(&paper));
    for header in [V1, V2] {
        let mut peer = Peer::new(wire(&house, "tls", header, &config));
        peer.send(&Packet::Connect(connect_silent("device")));
        assert_eq!(peer.connack(), Reason::Success);
    }
    let stranger = authority.trusted_by(Some(&authority.client("stranger")));
    let mut peer = Peer::new(wire(&house, "tls", V1, &stranger));
    peer.send(&Packet::Connect(connect_silent("device")));
    assert_eq!(peer.connack(), Reason::NotAuthorized);
}

#[test]
fn on_a_unix_socket_everybody_is_a_balancer() {
    let name = format!("casemate-proxy-{}.sock", std::process::id());
    let path = std::env::temp_dir().join(name);
    let unix = Listener {
        address: Address::Unix(UnixAddress {
            path: path.clone(),
            mode: 0o600,
        }),
        ..listener("unix", Security::Plain)
    };
    let house = house(vec![behind(&["192.0.2.0/24"], unix)], 2);
    let mut unix = Wire::unix(&path);
    unix.write_all(V2).unwrap();
    Peer::login(unix, "far").ping();
    assert_eq!(address_of(&house, "far").to_string(), SOURCE);
    let mut peer = Peer::new(Wire::unix(&path));
    peer.send(&Packet::Publish(publish("a", b"no header")));
    assert!(rest(&mut peer.wire).is_empty());
    house.wait_for(|counters| counters.shell.proxy_refused == 1);
}
