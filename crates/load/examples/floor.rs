//! The floor: what the kernel alone costs a broker, for `bench/`; it is no broker.
//!
//! It answers CONNECT and SUBSCRIBE, looks once where a publisher's topic goes, and from then on
//! copies pieces of the length of its first message to those sockets, with a PUBACK for each at
//! QoS 1. The system calls are those of a broker: one wait, one read for each socket that has
//! something, one write for each that gets something. No packet is read again, nothing is checked,
//! counted, queued or kept: nobody can be cheaper, and nobody could use it. On loopback only, for
//! MQTT 3.1.1 at QoS 0 and 1; what it does not understand ends the connection. With a PEM file
//! behind the port it speaks TLS, by the same library as the broker: what that alone costs.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use casemate_codec::{decode, frame, Packet, Sender, Version};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ServerConfig, ServerConnection};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

const READ_BYTES: usize = 64 * 1024;
const EVENTS_MAX: usize = 1_024;
const LISTENER: Token = Token(usize::MAX);

const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

struct Peer {
    stream: TcpStream,
    tls: Option<Box<ServerConnection>>,
    out: Vec<u8>,
    sent: usize,
    is_dirty: bool,
    is_blocked: bool,
    /// A piece that was cut short.
    partial: Vec<u8>,
    filter: Option<String>,
    route: Option<Route>,
}

/// Where a publisher's messages go, once it has published.
struct Route {
    message_bytes: usize,
    packet_id_at: Option<usize>,
    targets: Vec<usize>,
}

struct Floor {
    poll: Poll,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    peers: HashMap<usize, Peer>,
    next: usize,
    dirty: Vec<usize>,
}

fn main() -> io::Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let Some(port) = port else {
        return Err(io::Error::other("the first argument is a port on loopback"));
    };
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port)))?;
    let tls = match std::env::args().nth(2) {
        Some(file) => Some(Arc::new(tls_of(&file)?)),
        None => None,
    };
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut floor = Floor {
        poll,
        listener,
        tls,
        peers: HashMap::new(),
        next: 0,
        dirty: Vec::new(),
    };
    floor.serve()
}

/// Reads key and certificates.
fn tls_of(file: &str) -> io::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(file)
        .map_err(io::Error::other)?
        .collect::<Result<Vec<_>, _>>()
        .map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(file).map_err(io::Error::other)?;
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(io::Error::other)
}

impl Floor {
    fn serve(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.poll.poll(&mut events, None)?;
            for event in &events {
                let Token(number) = event.token();
                if event.token() == LISTENER {
                    self.accept()?;
                    continue;
                }
                if event.is_writable() {
                    if let Some(peer) = self.peers.get_mut(&number) {
                        peer.is_blocked = false;
                        self.mark(number);
                    }
                }
                if event.is_readable() && !self.read(number, &mut buffer) {
                    self.peers.remove(&number);
                }
            }
            while let Some(number) = self.dirty.pop() {
                if let Some(peer) = self.peers.get_mut(&number) {
                    peer.flush();
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, Token(self.next), interest)?;
            let mut tls = None;
            if let Some(config) = &self.tls {
                let made = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
                tls = Some(Box::new(made));
            }
            self.peers.insert(self.next, Peer::new(stream, tls));
            self.next += 1;
        }
    }

    fn mark(&mut self, number: usize) {
        if let Some(peer) = self.peers.get_mut(&number) {
            if !peer.is_dirty {
                peer.is_dirty = true;
                self.dirty.push(number);
            }
        }
    }

    /// Reads what is there; false where the connection ends.
    fn read(&mut self, number: usize, buffer: &mut [u8]) -> bool {
        loop {
            let Some(peer) = self.peers.get_mut(&number) else {
                return true;
            };
            let count = match peer.stream.read(buffer) {
                Ok(0) => return false,
                Ok(count) => count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            };
            let bytes = buffer.get(..count).unwrap_or_default();
            let goes_on = match peer.tls.take() {
                None => self.take(number, bytes),
                Some(mut tls) => {
                    let goes_on = self.decrypt(number, &mut tls, bytes);
                    if let Some(peer) = self.peers.get_mut(&number) {
                        peer.tls = Some(tls);
                    }
                    self.mark(number);
                    goes_on
                }
            };
            if !goes_on {
                return false;
            }
            if count < READ_BYTES {
                return true;
            }
        }
    }

    /// Takes encrypted bytes of a peer; false where they are no TLS, or not understood.
    fn decrypt(&mut self, number: usize, tls: &mut ServerConnection, mut bytes: &[u8]) -> bool {
        let mut plain = Vec::new();
        while !bytes.is_empty() {
            if tls.read_tls(&mut bytes).is_err() || tls.process_new_packets().is_err() {
                return false;
            }
            // Ends with what is there, or with an error that says that no more is.
            let _ = tls.reader().read_to_end(&mut plain);
        }
        plain.is_empty() || self.take(number, &plain)
    }

    /// Takes bytes of a peer; false where it is not understood.
    fn take(&mut self, number: usize, bytes: &[u8]) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else {
            return false;
        };
        if peer.filter.is_some() {
            // A subscriber's acknowledgements, which nobody waits for.
            return true;
        }
        if let Some(route) = peer.route.take() {
            self.reflect(number, &route, bytes);
            if let Some(peer) = self.peers.get_mut(&number) {
                peer.route = Some(route);
            }
            return true;
        }
        let mut all = std::mem::take(&mut peer.partial);
        all.extend_from_slice(bytes);
        let mut from = 0;
        while let Ok(Some(frame)) = frame(&all[from..], u32::MAX) {
            let Some(packet) = all.get(from..from + frame.packet_bytes()) else {
                break;
            };
            let body = packet.get(frame.header_bytes..).unwrap_or_default();
            let Ok(packet) = decode(Version::V311, Sender::Client, frame, body) else {
                return false;
            };
            if let Packet::Publish(publish) = &packet {
                let targets = self.targets(publish.topic);
                let route = Route {
                    message_bytes: frame.packet_bytes(),
                    packet_id_at: publish
                        .packet_id
                        .map(|_| frame.header_bytes + 2 + publish.topic.len()),
                    targets,
                };
                self.reflect(number, &route, &all[from..]);
                if let Some(peer) = self.peers.get_mut(&number) {
                    peer.route = Some(route);
                }
                return true;
            }
            if !self.answer(number, &packet) {
                return false;
            }
            from += frame.packet_bytes();
        }
        all.drain(..from);
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.partial = all;
        }
        true
    }

    fn answer(&mut self, number: usize, packet: &Packet<'_>) -> bool {
        let Some(peer) = self.peers.get_mut(&number) else {
            return false;
        };
        match packet {
            Packet::Connect(_) => peer.out.extend_from_slice(&CONNACK),
            Packet::Pingreq => peer.out.extend_from_slice(&PINGRESP),
            Packet::Subscribe(subscribe) => {
                let Some(line) = subscribe.filters.iter().next() else {
                    return false;
                };
                let [high, low] = subscribe.packet_id.get().to_be_bytes();
                peer.out
                    .extend_from_slice(&[0x90, 3, high, low, line.qos as u8]);
                peer.filter = Some(line.filter.to_owned());
            }
            _ => return false,
        }
        self.mark(number);
        true
    }

    /// Who has a filter for a topic.
    fn targets(&self, topic: &str) -> Vec<usize> {
        let matches = |filter: &str| {
            let (levels, names) = (filter.split('/'), topic.split('/'));
            levels.clone().count() == names.clone().count()
                && levels
                    .zip(names)
                    .all(|(level, name)| level == "+" || level == name)
        };
        let subscribed = self.peers.iter();
        let hears = subscribed.filter(|(_, peer)| peer.filter.as_deref().is_some_and(matches));
        hears.map(|(number, _)| *number).collect()
    }

    /// Copies whole messages to their targets, and acknowledges them.
    fn reflect(&mut self, number: usize, route: &Route, bytes: &[u8]) {
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let mut partial = std::mem::take(&mut peer.partial);
        let have = partial.len() + bytes.len();
        let whole = have - have % route.message_bytes;
        // What was cut short goes first; the rest is copied from where it was read.
        let (fresh, rest) = bytes.split_at(whole.saturating_sub(partial.len()));
        if whole > 0 {
            if let Some(at) = route.packet_id_at {
                let pieces = partial.iter().chain(fresh).copied();
                peer.acknowledge(pieces, at, route.message_bytes);
                self.mark(number);
            }
            for target in &route.targets {
                if let Some(peer) = self.peers.get_mut(target) {
                    peer.out.extend_from_slice(&partial);
                    peer.out.extend_from_slice(fresh);
                }
                self.mark(*target);
            }
            partial.clear();
        }
        partial.extend_from_slice(rest);
        if let Some(peer) = self.peers.get_mut(&number) {
            peer.partial = partial;
        }
    }
}

impl Peer {
    fn new(stream: TcpStream, tls: Option<Box<ServerConnection>>) -> Peer {
        Peer {
            stream,
            tls,
            out: Vec::new(),
            sent: 0,
            is_dirty: false,
            is_blocked: false,
            partial: Vec::new(),
            filter: None,
            route: None,
        }
    }

    /// Appends a PUBACK for each message.
    fn acknowledge(
        &mut self,
        bytes: impl Iterator<Item = u8> + Clone,
        at: usize,
        message_bytes: usize,
    ) {
        let high = bytes.clone().skip(at).step_by(message_bytes);
        let low = bytes.skip(at + 1).step_by(message_bytes);
        for (high, low) in high.zip(low) {
            self.out.extend_from_slice(&[0x40, 2, high, low]);
        }
    }

    fn flush(&mut self) {
        self.is_dirty = false;
        if let Some(tls) = &mut self.tls {
            // Its own bound is what the socket does not take; here nothing is refused.
            tls.set_buffer_limit(None);
            let _ = tls.writer().write_all(&self.out);
            self.out.clear();
            while !self.is_blocked && tls.wants_write() {
                self.is_blocked = tls.write_tls(&mut self.stream).is_err();
            }
            return;
        }
        while !self.is_blocked && self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                // The end of the connection is seen by the next read.
                Err(_) => self.is_blocked = true,
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
    }
}
