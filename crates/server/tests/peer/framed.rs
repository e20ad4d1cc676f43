//! The client side of WebSocket, byte by byte: every write is a frame, control frames are kept.

use std::io::{self, Read, Write};
use std::sync::Arc;

use casemate_server::{ClientCertificates, Listener, Options, Security, WebSocketOptions};
use rustls::ClientConfig;

use super::papers::Authority;
use super::{listener, plain_options, House, Wire};

/// A request for MQTT at `/mqtt`, with the key of RFC 6455 §1.3.
pub const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// First bytes of whole frames.
pub const BINARY: u8 = 0x82;
pub const CLOSE: u8 = 0x88;
pub const PING: u8 = 0x89;
pub const PONG: u8 = 0x8A;

/// A frame of a client: the first byte, a masked payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x5A, 0x0F, 0xC3, 0x99];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// The head of an HTTP answer, byte by byte, so that nothing behind it is read.
pub fn answer(wire: &mut impl Read) -> String {
    try_answer(wire).unwrap()
}

/// The same where the connection may end first, which is an error.
pub fn try_answer(wire: &mut impl Read) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        wire.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8(head).unwrap())
}

/// A wire on which frames pass.
pub struct Framed {
    pub wire: Wire,
    /// Control frames of the server: first byte and payload.
    pub controls: Vec<(u8, Vec<u8>)>,
    /// Binary frames of the server.
    pub frames: usize,
    left: usize,
}

impl Framed {
    pub fn new(wire: Wire) -> Framed {
        Framed {
            wire,
            controls: Vec::new(),
            frames: 0,
            left: 0,
        }
    }

    /// Reads the header of a frame; `None` at the end of the connection.
    pub fn header(&mut self) -> io::Result<Option<(u8, usize)>> {
        let mut head = [0; 2];
        if self.wire.read(&mut head[..1])? == 0 {
            return Ok(None);
        }
        self.wire.read_exact(&mut head[1..])?;
        assert!(head[1] & 0x80 == 0, "a server masks nothing");
        let extra = match head[1] {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let mut length = [0; 8];
        self.wire.read_exact(&mut length[8 - extra..])?;
        let length = match extra {
            0 => usize::from(head[1]),
            _ => usize::try_from(u64::from_be_bytes(length)).unwrap(),
        };
        Ok(Some((head[0], length)))
    }
}

impl Read for Framed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        while self.left == 0 {
            match self.header()? {
                None => return Ok(0),
                Some((BINARY, length)) => {
                    self.frames += 1;
                    self.left = length;
                }
                Some((first, length)) => {
                    assert!(first & 0x8 != 0 && length <= 125, "{first:#x} of {length}");
                    let mut payload = vec![0; length];
                    self.wire.read_exact(&mut payload)?;
                    self.controls.push((first, payload));
                }
            }
        }
        let room = bytes.len().min(self.left);
        let count = self.wire.read(&mut bytes[..room])?;
        self.left -= count;
        Ok(count)
    }
}

impl Write for Framed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wire.write_all(&frame(BINARY, bytes))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wire.flush()
    }
}

pub fn with_websocket(listener: Listener, origins: &[&str]) -> Listener {
    Listener {
        websocket: Some(WebSocketOptions {
            path: "/mqtt".into(),
            origins: origins.iter().map(|&origin| origin.into()).collect(),
        }),
        ..listener
    }
}

/// A server with one plain WebSocket listener.
pub fn plain_house(shards: usize) -> House {
    let listeners = vec![with_websocket(listener("ws", Security::Plain), &[])];
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

pub fn open(house: &House) -> Framed {
    match Wire::plain(house.address("ws")).upgrade() {
        Wire::WebSocket(framed) => *framed,
        _ => unreachable!(),
    }
}

/// Everything up to the end of the connection.
pub fn rest(stream: &mut impl Read) -> Vec<u8> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut piece) {
        bytes.extend_from_slice(&piece[..count]);
    }
    bytes
}

/// A server with one listener for each transport.
pub fn house(authority: &Authority, shards: usize) -> House {
    let tls = || Security::Tls(authority.tls_options(ClientCertificates::None));
    let listeners = vec![
        listener("plain", Security::Plain),
        listener("tls", tls()),
        with_websocket(listener("ws", Security::Plain), &[]),
        with_websocket(listener("wss", tls()), &[]),
    ];
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// Both kinds of wire, before the request.
pub fn wires(house: &House, config: &Arc<ClientConfig>) -> [Wire; 2] {
    [
        Wire::plain(house.address("ws")),
        Wire::tls(house.address("wss"), config),
    ]
}
