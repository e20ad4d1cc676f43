//! What peers may do to TLS itself: wrong ports, slow and broken handshakes, floods of records.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::aead;
use casemate_codec::{Packet, QoS};
use casemate_server::{ClientCertificates, Options, Security};
use peer::papers::{in_an_hour, Authority};
use peer::{connect, connect_silent, dial, listener, plain_options, House, Peer, Wire, PATIENCE};
use rustls::{ClientConfig, ClientConnection, ConnectionTrafficSecrets};
use rustls_pki_types::ServerName;

fn tls_house(authority: &Authority, certificates: ClientCertificates, shards: usize) -> House {
    let tls = authority.tls_options(certificates);
    let listeners = vec![listener("tls", Security::Tls(tls))];
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// Goal: a handshake message that never ends is not kept. Method: a ClientHello that announces
/// 64 KiB, in records of 1 KiB.
#[test]
fn an_endless_client_hello_is_cut_off() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let mut stream = dial(house.address("tls"));
    let mut record = vec![0x16, 3, 1, 4, 0];
    record.extend([1, 0, 0xFF, 0xF0]);
    record.resize(5 + 1024, 0);
    for turn in 0..60 {
        if turn == 1 {
            record[5..9].fill(0);
        }
        if stream.write_all(&record).is_err() {
            break;
        }
    }
    ends(&mut stream);
    house.wait_for(|counters| counters.shell.handshake_failures == 1);
}

#[test]
fn mqtt_on_a_tls_port_is_closed_and_told_once() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    for _ in 0..3 {
        let mut peer = Peer::new(Wire::plain(house.address("tls")));
        peer.send(&Packet::Connect(connect("c")));
        peer.ends();
    }
    house.wait_for(|counters| counters.shell.plain_on_tls == 3);
    let (events, _) = house.server.next_events(100, PATIENCE);
    assert_eq!(events.len(), 1, "{events:?}");
}

#[test]
fn tls_on_a_plain_port_is_closed_and_told_once() {
    let authority = Authority::new("test");
    let house = House::open(plain_options(1));
    for _ in 0..3 {
        let config = authority.trusted_by(None);
        let mut wire = Wire::tls(house.address("plain"), &config);
        let outcome = wire
            .write_all(&[0xC0, 0])
            .and_then(|()| wire.read(&mut [0; 16]));
        assert!(outcome.is_err());
    }
    house.wait_for(|counters| counters.shell.tls_on_plain == 3);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let kinds: Vec<_> = events
        .iter()
        .map(|event| format!("{:?}", event.kind))
        .collect();
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "TlsOnPlain").count(),
        1,
        "{kinds:?}"
    );
}

/// Everything a client says until its handshake is over, as one run of bytes per flight.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = ServerName::try_from("localhost").unwrap();
    let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

fn ends(stream: &mut TcpStream) {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection did not end: {error}"),
        }
    }
}

/// Goal: a handshake that stops anywhere ends at the deadline, and holds nobody up meanwhile.
#[test]
fn truncated_and_slow_handshakes_end_at_the_deadline() {
    let authority = Authority::new("test");
    let tls = authority.tls_options(ClientCertificates::None);
    let listeners = vec![listener("tls", Security::Tls(tls))];
    let mut options = Options {
        listeners,
        ..plain_options(1)
    };
    options.settings.connect_deadline_ms = 1_500;
    let house = House::open(options);
    let config = authority.trusted_by(None);
    let hello = client_hello(&config);
    let cuts = [0, 1, 4, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()];
    let began = Instant::now();
    let mut streams: Vec<_> = cuts
        .iter()
        .map(|&cut| {
            let mut stream = dial(house.address("tls"));
            stream.write_all(&hello[..cut]).unwrap();
            stream
        })
        .collect();
    Peer::login(Wire::tls(house.address("tls"), &config), "c").ping();
    for stream in &mut streams {
        ends(stream);
    }
    assert!(began.elapsed() >= Duration::from_millis(1_400));
    house.wait_for(|counters| counters.shell.handshake_timeouts == cuts.len() as u64);
    house.wait_for(|counters| counters.engine.connections_now == 0);
}

/// A byte per second keeps a handshake alive no longer than silence does.
#[test]
fn a_trickled_handshake_ends_at_the_deadline() {
    let authority = Authority::new("test");
    let tls = authority.tls_options(ClientCertificates::None);
    let listeners = vec![listener("tls", Security::Tls(tls))];
    let mut options = Options {
        listeners,
        ..plain_options(1)
    };
    options.settings.connect_deadline_ms = 1_000;
    let house = House::open(options);
    let hello = client_hello(&authority.trusted_by(None));
    let mut stream = dial(house.address("tls"));
    let began = Instant::now();
    for byte in &hello {
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    house.wait_for(|counters| counters.shell.handshake_timeouts == 1);
}

#[test]
fn garbage_on_a_tls_port_is_closed() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let hello = client_hello(&authority.trusted_by(None));
    let mut flipped = hello.clone();
    flipped[20] ^= 0xFF;
    flipped.truncate(hello.len());
    let mut runs: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0; 100],
        vec![0x16, 3, 1, 0xFF, 0xFF, 0, 0],
        [&[0x16, 3, 1, 0, 4][..], &[1, 0xFF, 0xFF, 0xFF]].concat(),
        [&[0x17, 3, 3, 0, 4][..], &[0; 4]].concat(),
        [&hello[..], &hello[..]].concat(),
    ];
    runs.push([&[0x16, 3, 3, 0, 0][..]].concat().repeat(1000));
    for bytes in runs {
        let mut stream = dial(house.address("tls"));
        // The server may close before all of it is written.
        let _ = stream.write_all(&bytes);
        ends(&mut stream);
    }
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(None));
    Peer::login(wire, "c").disconnect();
}

/// A socket that takes one byte at a time.
struct Dribble(TcpStream);

impl Read for Dribble {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(&mut bytes[..1])
    }
}

impl Write for Dribble {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(&bytes[..1])
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn a_handshake_byte_by_byte_comes_through() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::Required, 2);
    let paper = authority.client("device");
    house
        .server
        .install_accounts(vec![paper.account("device", in_an_hour())]);
    let name = ServerName::try_from("localhost").unwrap();
    let config = authority.trusted_by(Some(&paper));
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut socket = Dribble(dial(house.address("tls")));
    let mut stream = rustls::Stream::new(&mut connection, &mut socket);
    let mut hello = Vec::new();
    let packet = Packet::Connect(connect_silent("device"));
    casemate_codec::encode(casemate_codec::Version::V5, &packet, u32::MAX, &mut hello).unwrap();
    stream.write_all(&hello).unwrap();
    let mut connack = [0; 4];
    stream.read_exact(&mut connack).unwrap();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
}

fn refresh_keys(peer: &mut Peer) {
    match &mut peer.wire {
        Wire::Tls(stream) => stream.conn.refresh_traffic_keys().unwrap(),
        _ => panic!("not TLS"),
    }
}

#[test]
fn cve_2026_39304_a_flood_of_key_updates_is_cut_off() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(None));
    let mut peer = Peer::login(wire, "c");
    for _ in 0..1000 {
        refresh_keys(&mut peer);
    }
    let _ = peer.wire.flush();
    let _ = peer.wire.write_all(&[0xC0, 0]);
    peer.ends();
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(None));
    Peer::login(wire, "c").disconnect();
}

#[test]
fn cve_2026_39304_key_updates_between_messages_are_bounded_too() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(None));
    let mut peer = Peer::login(wire, "c");
    for _ in 0..100 {
        for _ in 0..20 {
            refresh_keys(&mut peer);
        }
        if peer
            .wire
            .write_all(&[0xC0, 0])
            .and_then(|()| peer.wire.flush())
            .is_err()
        {
            break;
        }
    }
    peer.ends();
    house.wait_for(|counters| counters.shell.empty_records == 1);
}

/// Goal: writing to a peer while half of its record is here. Method: the ciphertext of each
/// message is cut in two, and between the halves the server has something to write.
#[test]
fn the_server_writes_while_half_a_record_is_here() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let config = authority.trusted_by(None);
    let mut sender = Peer::login(Wire::tls(house.address("tls"), &config), "sender");
    let mut peer = Peer::login(Wire::tls(house.address("tls"), &config), "c");
    peer.subscribe("a", QoS::AtMostOnce);
    let ping = peer.bytes(&Packet::Pingreq);
    for cut in 1..20 {
        let mut cipher = Vec::new();
        let Wire::Tls(stream) = &mut peer.wire else {
            panic!("not TLS")
        };
        stream.conn.writer().write_all(&ping).unwrap();
        stream.conn.write_tls(&mut cipher).unwrap();
        stream.sock.write_all(&cipher[..cut]).unwrap();
        sender.publish("a", &[cut as u8]);
        assert_eq!(peer.message(), [cut as u8]);
        let Wire::Tls(stream) = &mut peer.wire else {
            panic!("not TLS")
        };
        stream.sock.write_all(&cipher[cut..]).unwrap();
        peer.see(|packet| assert!(matches!(packet, Packet::Pingresp), "{packet:?}"));
    }
}

/// Encrypts a piece of a handshake message as a TLS 1.3 record of its own.
fn handshake_record(secrets: &ConnectionTrafficSecrets, number: u64, piece: &[u8]) -> Vec<u8> {
    let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
        panic!("another cipher suite than the test asked for");
    };
    let mut nonce: [u8; 12] = iv.as_ref().try_into().unwrap();
    for (byte, part) in nonce[4..].iter_mut().zip(number.to_be_bytes()) {
        *byte ^= part;
    }
    let mut body = [piece, &[0x16]].concat();
    let header = [0x17, 3, 3, 0, (body.len() + 16) as u8];
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, key.as_ref()).unwrap();
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(nonce),
            aead::Aad::from(header),
            &mut body,
        )
        .unwrap();
    [&header[..], &body].concat()
}

/// Goal: half a handshake message does not confuse the server's writing. Method: a key update in
/// two records, between which the server has a message to write.
#[test]
fn the_server_writes_while_half_a_key_update_is_here() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let trusting = authority.trusted_by(None);
    let mut sender = Peer::login(Wire::tls(house.address("tls"), &trusting), "sender");
    for cut in 1..5 {
        let mut config = ClientConfig::clone(&trusting);
        config.enable_secret_extraction = true;
        let wire = Wire::tls(house.address("tls"), &Arc::new(config));
        let mut peer = Peer::login(wire, &format!("c{cut}"));
        peer.subscribe("a", QoS::AtMostOnce);
        let Wire::Tls(stream) = peer.wire else {
            panic!("not TLS")
        };
        let (connection, mut socket) = stream.into_parts();
        let (number, secrets) = connection.dangerous_extract_secrets().unwrap().tx;
        let update = [0x18, 0, 0, 1, 0];
        let first = handshake_record(&secrets, number, &update[..cut]);
        socket.write_all(&first).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        sender.publish("a", b"between");
        let mut bytes = [0; 1024];
        assert!(socket.read(&mut bytes).unwrap() > 20, "cut {cut}");
        assert_eq!(bytes[0], 0x17);
        let second = handshake_record(&secrets, number + 1, &update[cut..]);
        socket.write_all(&second).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        sender.publish("a", b"after");
        assert!(socket.read(&mut bytes).unwrap() > 20, "cut {cut}");
    }
}

#[test]
fn a_key_update_now_and_then_is_no_flood() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(None));
    let mut peer = Peer::login(wire, "c");
    peer.subscribe("a", QoS::AtMostOnce);
    for number in 0..50_u8 {
        refresh_keys(&mut peer);
        peer.publish("a", &[number; 40_000]);
        assert_eq!(peer.message(), vec![number; 40_000]);
    }
}

#[test]
fn a_stop_ends_handshakes_too() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 2);
    let mut stream = dial(house.address("tls"));
    stream
        .write_all(&client_hello(&authority.trusted_by(None))[..50])
        .unwrap();
    house.wait_for(|counters| counters.shell.accepted == 1);
    assert!(house.server.stop(PATIENCE));
    ends(&mut stream);
}

/// Goal: a storm of handshakes does not stall messages. Method: 400 handshakes from 8 threads,
/// while another client pings; each ping must come back long before the storm is over.
#[test]
fn a_storm_of_handshakes_does_not_stall_messages() {
    let authority = Authority::new("test");
    let mut options = plain_options(1);
    let tls = authority.tls_options(ClientCertificates::None);
    options.listeners.push(listener("tls", Security::Tls(tls)));
    let house = House::open(options);
    let mut calm = Peer::login(Wire::plain(house.address("plain")), "calm");
    let address = house.address("tls");
    let storm: Vec<_> = (0..8)
        .map(|thread| {
            let authority = authority.trusted_by(None);
            std::thread::spawn(move || {
                for n in 0..50 {
                    Peer::login(Wire::tls(address, &authority), &format!("s{thread}-{n}"));
                }
            })
        })
        .collect();
    let mut worst = Duration::ZERO;
    while storm.iter().any(|thread| !thread.is_finished()) {
        let began = Instant::now();
        calm.ping();
        worst = worst.max(began.elapsed());
        std::thread::sleep(Duration::from_millis(1));
    }
    storm.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(worst < Duration::from_secs(2), "{worst:?}");
    assert_eq!(house.server.counters().shell.handshakes, 400);
}
