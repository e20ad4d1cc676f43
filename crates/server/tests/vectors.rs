//! The codec's table of bytes, sent to a real server over a socket.
//!
//! What the codec refuses ends the connection with the same reason; nothing in it hurts others.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use casemate_codec::vectors::{all, Expectation, Vector};
use casemate_codec::{decode, encode, frame, Connect, Packet, Reason, Sender, Version};
use peer::{connect, dial, plain_options, House, Peer, Wire};

/// A connection in the vector's version; a CONNECT stands for itself.
fn open(address: SocketAddr, vector: &Vector) -> TcpStream {
    let mut stream = dial(address);
    if vector.bytes.first().is_some_and(|first| first >> 4 == 1) {
        return stream;
    }
    let hello = Packet::Connect(Connect {
        version: vector.version,
        ..connect("table")
    });
    let mut bytes = Vec::new();
    encode(vector.version, &hello, u32::MAX, &mut bytes).unwrap();
    stream.write_all(&bytes).unwrap();
    let mut connack = [0; 2];
    stream.read_exact(&mut connack).unwrap();
    let mut rest = vec![0; usize::from(connack[1])];
    stream.read_exact(&mut rest).unwrap();
    assert_eq!((connack[0], rest[1]), (0x20, 0), "{}", vector.name);
    stream
}

/// Everything up to the end of the connection; a reset ends it as well.
fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

/// The reason of the last CONNACK or DISCONNECT among the server's packets.
fn reason(version: Version, mut bytes: &[u8]) -> Option<Reason> {
    let mut reason = None;
    while let Some(head) = frame(bytes, u32::MAX).unwrap() {
        let body = &bytes[head.header_bytes..head.packet_bytes()];
        match decode(version, Sender::Server, head, body).unwrap() {
            Packet::Connack(connack) => reason = Some(connack.reason),
            Packet::Disconnect(disconnect) => reason = Some(disconnect.reason),
            other => panic!("{other:?} to a refused packet"),
        }
        bytes = &bytes[head.packet_bytes()..];
    }
    reason
}

/// [MQTT-4.13.1-1] [MQTT-3.1.1 4.8.0-1]
#[test]
fn what_the_codec_refuses_ends_the_connection_with_its_reason() {
    let house = House::open(plain_options(1));
    let address = house.address("plain");
    let mut tried = 0;
    for vector in all() {
        let Expectation::Refused {
            reason: expected, ..
        } = vector.expectation
        else {
            continue;
        };
        if vector.sender != Sender::Client {
            continue;
        }
        let mut stream = open(address, &vector);
        stream.write_all(&vector.bytes).unwrap();
        let answer = read_to_end(&mut stream);
        let is_connect = vector.bytes[0] >> 4 == 1;
        if vector.version == Version::V5 && !is_connect {
            let told = reason(vector.version, &answer);
            assert_eq!(told, Some(expected), "{}", vector.name);
        } else if !is_connect {
            // Before 5.0 there is no way to say why.
            assert!(answer.is_empty(), "{}: {answer:02x?}", vector.name);
        }
        tried += 1;
    }
    assert!(tried > 150, "{tried} vectors");
    Peer::login(Wire::plain(address), "honest").disconnect();
}

#[test]
fn what_the_codec_takes_never_hurts_the_server() {
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let mut honest = Peer::login(Wire::plain(address), "honest");
    let taken = all().into_iter().filter(|vector| {
        let refused = matches!(vector.expectation, Expectation::Refused { .. });
        vector.sender == Sender::Client && !refused
    });
    for vector in taken {
        let mut stream = open(address, &vector);
        stream.write_all(&vector.bytes).unwrap();
        drop(stream);
        honest.ping();
    }
    honest.disconnect();
    assert_eq!(house.server.failed(), None);
}
