//! What stands between a socket and MQTT: siblings of one shape.
//!
//! Each transport has the same five doors. `heard` sees fresh bytes of the socket, `receive` turns
//! them into bytes of the MQTT stream, `send` turns MQTT bytes into bytes of the socket, `finish`
//! says good-bye in the transport's own words, and `take_ahead`/`keep_ahead` hold what was read
//! but not used. WebSocket, the PROXY header and Unix sockets will be further siblings.

mod plain;
mod records;
mod tls;

use std::io::{self, IoSlice, Write};
use std::sync::Arc;

use casemate_engine::PeerCertificate;
use mio::net::TcpStream;

pub(crate) use plain::Plain;
pub(crate) use tls::Tls;

/// Bytes that are on their way through a transport.
pub(crate) enum Transport {
    /// The bytes of the socket are the bytes of MQTT.
    Plain(Plain),
    /// TLS; boxed, as it is much larger than its sibling.
    Tls(Box<Tls>),
}

/// Whether the receiver of MQTT bytes wants more of them now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// More may follow at once.
    Onward,
    /// Something else must happen first.
    Halt,
}

/// Where [`Transport::receive`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Everything that can be used is used; the rest of the input waits for more bytes.
    Blocked,
    /// The receiver halted; the rest of the input can be received later.
    Halted,
    /// The handshake is over; call again with the rest of the input.
    Established,
    /// The peer said that nothing more will come.
    PeerClosed,
}

/// How far [`Transport::receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes of the input that are used up.
    pub taken: usize,
    /// Why it ended.
    pub end: End,
}

/// How far [`Transport::send`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    /// MQTT bytes that are on their way.
    pub bytes: usize,
    /// The socket takes no more for now.
    pub blocked: bool,
}

/// Why a transport cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The socket is broken.
    #[error("{0}")]
    Socket(#[from] io::Error),
    /// The peer broke the rules of TLS, or its certificate was refused.
    #[error("{0}")]
    Tls(rustls::Error),
    /// The peer does not speak TLS; MQTT without it is told apart from other things.
    #[error("the peer does not speak TLS")]
    NotTls {
        /// It began as CONNECT does.
        mqtt: bool,
    },
    /// The peer speaks TLS where none is spoken.
    #[error("the peer speaks TLS on a plain port")]
    TlsOnPlain,
    /// Too many TLS records that carry nothing, key updates among them.
    #[error("too many TLS records without content")]
    EmptyRecords,
    /// A handshake message or record is larger than any can be.
    #[error("the TLS handshake is too large")]
    TooLarge,
    /// TLS is in a state that it cannot be in.
    #[error("TLS is in an unexpected state")]
    Confused,
    /// The keys have encrypted as much as they may.
    #[error("the TLS keys are exhausted")]
    Exhausted,
}

/// Buffers that all connections of one shard share while they write.
pub(crate) struct Scratch {
    plain: Vec<u8>,
    cipher: Box<[u8]>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch {
            plain: Vec::with_capacity(tls::BATCH_BYTES),
            cipher: vec![0; tls::CIPHER_BYTES].into_boxed_slice(),
        }
    }
}

impl Transport {
    /// Sees bytes that were just read from the socket, before `receive`.
    pub fn heard(&mut self, fresh: &[u8]) {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(tls) => tls.heard(fresh),
        }
    }

    /// Hands the MQTT bytes in `input` to `sink`, as long as it wants them.
    ///
    /// # Errors
    /// Any [`Fault`]; what the transport has to say about it waits in `send`.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Received, Fault> {
        match self {
            Transport::Plain(plain) => plain.receive(input, sink),
            Transport::Tls(tls) => tls.receive(input, sink),
        }
    }

    /// Writes the transport's own bytes, then as many of `slices` as the socket takes.
    ///
    /// With empty `slices` only the transport's own bytes are written. `bytes` is 0 and `blocked`
    /// false only where nothing at all is left to write.
    ///
    /// # Errors
    /// Any [`Fault`] but those of `receive`.
    pub fn send(
        &mut self,
        stream: &TcpStream,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<Sent, Fault> {
        match self {
            Transport::Plain(plain) => plain.send(stream, slices),
            Transport::Tls(tls) => tls.send(stream, slices, scratch),
        }
    }

    /// Says good-bye in the transport's own words; `send` writes it.
    pub fn finish(&mut self) {
        match self {
            Transport::Plain(_) => {}
            Transport::Tls(tls) => tls.finish(),
        }
    }

    /// Copies what was read but not used to the start of `buffer`; its length, bytes.
    pub fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Transport::Plain(_) => 0,
            Transport::Tls(tls) => tls.take_ahead(buffer),
        }
    }

    /// Keeps what was read but not used.
    ///
    /// # Errors
    /// [`Fault::TooLarge`] where it is more than any handshake or record can need.
    pub fn keep_ahead(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        match self {
            // A plain transport uses everything that it is given.
            Transport::Plain(_) => Ok(()),
            Transport::Tls(tls) => tls.keep_ahead(bytes),
        }
    }

    /// True while something is kept that was read but not used.
    pub fn is_ahead(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.is_ahead(),
        }
    }

    /// True while the transport has bytes of its own to write.
    pub fn wants_writing(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.wants_writing(),
        }
    }

    /// True once MQTT bytes can pass.
    pub fn is_established(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(tls) => tls.is_established(),
        }
    }

    /// The client certificate that was verified.
    pub fn certificate(&self) -> Option<Arc<PeerCertificate>> {
        match self {
            Transport::Plain(_) => None,
            Transport::Tls(tls) => tls.certificate(),
        }
    }
}

/// Writes once; `Ok(None)` where the socket takes nothing now.
fn write_once(stream: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
    let mut stream = stream;
    loop {
        match stream.write_vectored(slices) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => return Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
