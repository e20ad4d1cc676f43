//! One socket, with or without TLS, with or without WebSocket: bytes of MQTT in and out.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ClientConnection;

use crate::error::Fault;
use crate::trust::Trust;
use crate::websocket::WebSocket;
use crate::{LoadError, Target};

/// Bytes of one read; large, as a read costs far more than its bytes.
const READ_BYTES: usize = 512 * 1024;
/// Decrypted bytes that are passed on at a time.
const PLAIN_BYTES: usize = 64 * 1024;

/// Buffers that all connections share.
pub(crate) struct Scratch {
    read: Box<[u8]>,
    plain: Box<[u8]>,
    /// Calls of read.
    pub reads: u64,
    /// Calls of write.
    pub writes: u64,
}

impl Scratch {
    /// Empty ones.
    pub fn new() -> Scratch {
        Scratch {
            read: vec![0; READ_BYTES].into_boxed_slice(),
            plain: vec![0; PLAIN_BYTES].into_boxed_slice(),
            reads: 0,
            writes: 0,
        }
    }
}

/// Takes bytes of MQTT.
pub(crate) type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), Fault>;

/// What lies between a client and its broker.
pub(crate) struct Transport {
    pub stream: TcpStream,
    tls: Option<Box<ClientConnection>>,
    websocket: Option<Box<WebSocket>>,
    /// Frames that neither TLS nor the socket has taken.
    wire: Vec<u8>,
    wire_sent: usize,
}

impl Transport {
    /// Begins to connect; nothing waits.
    ///
    /// # Errors
    /// The machine has no more sockets or ports, or TLS cannot begin.
    pub fn connect(target: &Target, trust: Option<&Trust>) -> Result<Transport, LoadError> {
        let stream = TcpStream::connect(target.address).map_err(LoadError::Machine)?;
        // Small messages would wait for each other otherwise. Where it fails, the socket is gone
        // already, and the first read says why.
        let _ = stream.set_nodelay(true);
        let tls = match trust {
            None => None,
            Some(trust) => {
                let config = Arc::clone(&trust.config);
                let mut tls = ClientConnection::new(config, trust.server_name.clone())
                    .map_err(|error| LoadError::Trust(error.to_string()))?;
                // The publisher's own bound holds; TLS must take what it was given.
                tls.set_buffer_limit(None);
                Some(Box::new(tls))
            }
        };
        let (websocket, wire) = match &target.websocket {
            None => (None, Vec::new()),
            Some(door) => {
                let (websocket, request) = WebSocket::open(door);
                (Some(Box::new(websocket)), request)
            }
        };
        Ok(Transport {
            stream,
            tls,
            websocket,
            wire,
            wire_sent: 0,
        })
    }

    /// Reads until the socket has no more; true where the broker has ended it.
    ///
    /// # Errors
    /// What the socket, TLS, the WebSocket or `sink` says.
    pub fn receive(&mut self, scratch: &mut Scratch, sink: Sink<'_>) -> Result<bool, Fault> {
        loop {
            scratch.reads += 1;
            let count = match self.stream.read(&mut scratch.read) {
                Ok(0) => return Ok(true),
                Ok(count) => count,
                Err(error) if waits(&error) => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let bytes = scratch.read.get(..count).unwrap_or_default();
            match &mut self.tls {
                None => unframe(&mut self.websocket, bytes, sink)?,
                Some(tls) => {
                    let mut rest = bytes;
                    while !rest.is_empty() {
                        tls.read_tls(&mut rest)?;
                        // An alert that explains the end is sent by the next flush, if at all.
                        tls.process_new_packets()?;
                        loop {
                            match tls.reader().read(&mut scratch.plain) {
                                Ok(0) => return Ok(true),
                                Ok(count) => {
                                    let plain = scratch.plain.get(..count).unwrap_or_default();
                                    unframe(&mut self.websocket, plain, sink)?;
                                }
                                Err(error) if waits(&error) => break,
                                Err(error) => return Err(error.into()),
                            }
                        }
                    }
                }
            }
            // A read that did not fill the buffer has emptied the socket.
            if count < READ_BYTES {
                return Ok(false);
            }
        }
    }

    /// Sends from `queue` what can be sent; true where nothing is left, here or there.
    ///
    /// # Errors
    /// What the socket or TLS says.
    pub fn send(&mut self, queue: &mut Queue, scratch: &mut Scratch) -> Result<bool, Fault> {
        if let Some(websocket) = &mut self.websocket {
            if websocket.is_open() && self.wire.is_empty() {
                websocket.wrap(queue.all(), &mut self.wire);
            }
        }
        match &mut self.tls {
            Some(tls) => {
                let plain = match self.websocket {
                    Some(_) => &mut self.wire,
                    None => queue.all(),
                };
                tls.writer().write_all(plain)?;
                plain.clear();
                while tls.wants_write() {
                    scratch.writes += 1;
                    match tls.write_tls(&mut self.stream) {
                        Ok(_) => {}
                        Err(error) if waits(&error) => return Ok(false),
                        Err(error) => return Err(error.into()),
                    }
                }
                Ok(queue.is_empty() && self.wire.is_empty())
            }
            None if self.websocket.is_some() => {
                let sent = write(&self.stream, &mut self.wire, &mut self.wire_sent, scratch)?;
                Ok(sent && queue.is_empty())
            }
            None => write(&self.stream, &mut queue.bytes, &mut queue.sent, scratch),
        }
    }

    /// True where something must be sent although no packet waits: handshakes, answers to pings.
    pub fn wants_writing(&self) -> bool {
        !self.wire.is_empty()
            || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
            || self.websocket.as_ref().is_some_and(|it| it.wants_writing())
    }
}

/// Bytes of MQTT that the transport has not taken.
#[derive(Default)]
pub(crate) struct Queue {
    bytes: Vec<u8>,
    sent: usize,
}

impl Queue {
    /// To append a packet to.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// All that waits, for a transport that takes everything.
    fn all(&mut self) -> &mut Vec<u8> {
        debug_assert_eq!(self.sent, 0);
        &mut self.bytes
    }
}

/// Writes from `sent` on; true where nothing is left, and then the bytes are gone.
fn write(
    mut stream: &TcpStream,
    bytes: &mut Vec<u8>,
    sent: &mut usize,
    scratch: &mut Scratch,
) -> Result<bool, Fault> {
    while let Some(rest) = bytes.get(*sent..).filter(|rest| !rest.is_empty()) {
        scratch.writes += 1;
        match stream.write(rest) {
            Ok(count) => *sent += count,
            Err(error) if waits(&error) => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.clear();
    *sent = 0;
    Ok(true)
}

/// Takes frames off, where there are any.
fn unframe(
    websocket: &mut Option<Box<WebSocket>>,
    bytes: &[u8],
    sink: Sink<'_>,
) -> Result<(), Fault> {
    match websocket {
        None => sink(bytes),
        Some(websocket) => websocket.receive(bytes, sink),
    }
}

/// The socket is not ready, or not connected yet: the readiness loop will say when.
fn waits(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::NotConnected
    )
}
