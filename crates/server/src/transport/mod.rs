//! What stands between a socket and MQTT: siblings of one shape.
//!
//! Each transport has the same five doors. `heard` sees fresh bytes of the socket, `receive` turns
//! them into bytes of the MQTT stream, `send` turns MQTT bytes into bytes of the socket, `finish`
//! says good-bye in the transport's own words, and `take_ahead`/`keep_ahead` hold what was read
//! but not used. WebSocket stands on one of the others and passes on what is theirs.

mod http;
mod plain;
mod proxy;
mod records;
mod tls;
mod websocket;

use std::io::{self, IoSlice};
use std::sync::Arc;

use casemate_engine::{Millis, PeerCertificate};

use crate::socket::Socket;

pub(crate) use http::http_on_mqtt;
pub(crate) use plain::Plain;
pub(crate) use proxy::{Proxy, ProxyFault};
pub(crate) use tls::Tls;
pub(crate) use websocket::{Breach, Refusal, WebSocket};

/// The first byte of every TLS handshake record; as MQTT it is a CONNECT with wrong flags.
const TLS_HANDSHAKE: u8 = 0x16;

/// The first byte of every MQTT CONNECT.
const MQTT_CONNECT: u8 = 0x10;

/// Bytes that are on their way through a transport.
pub(crate) enum Transport {
    /// The bytes of the socket are the bytes of MQTT.
    Plain(Plain),
    /// TLS; boxed, as it is much larger than its sibling.
    Tls(Box<Tls>),
    /// WebSocket over one of the others; boxed, as few speak it.
    WebSocket(Box<WebSocket>),
    /// One of the others behind a header that is still to come; boxed, as it is soon gone.
    Proxy(Box<Proxy>),
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
    /// The PROXY header is read; call again, on what stands behind it, with the rest of the input.
    Proxied,
    /// The TLS handshake is over, but more must happen before MQTT can pass; call again with the
    /// rest of the input.
    Encrypted,
    /// MQTT can pass; call again with the rest of the input.
    Established,
    /// The peer said that nothing more will come.
    PeerClosed,
    /// The peer said so, and waits for our good-bye.
    Farewell,
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
    /// A PROXY header is required, and what came is none.
    #[error("{0}")]
    Proxy(#[from] ProxyFault),
    /// The peer speaks HTTP where MQTT is spoken.
    #[error("the peer speaks HTTP on a port of MQTT")]
    HttpOnMqtt,
    /// The peer asked for something else than MQTT over WebSocket.
    #[error("{0}")]
    Upgrade(Refusal),
    /// The peer speaks no HTTP where WebSocket is spoken; MQTT is told apart from other things.
    #[error("the peer does not speak HTTP")]
    NotHttp {
        /// It began as CONNECT does.
        mqtt: bool,
    },
    /// The peer broke the rules of WebSocket.
    #[error("{0}")]
    Frame(Breach),
    /// TLS is in a state that it cannot be in.
    #[error("TLS is in an unexpected state")]
    Confused,
    /// The keys have encrypted as much as they may.
    #[error("the TLS keys are exhausted")]
    Exhausted,
}

/// What all connections of one shard share while they read or write.
pub(crate) struct Scratch {
    /// The present time.
    pub now: Millis,
    plain: Vec<u8>,
    cipher: Box<[u8]>,
}

impl Scratch {
    pub fn new() -> Scratch {
        Scratch {
            now: 0,
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
            Transport::WebSocket(socket) => socket.heard(fresh),
            // It is the header's; what follows is heard by what stands behind.
            Transport::Proxy(_) => {}
        }
    }

    /// Hands the MQTT bytes in `input` to `sink`, as long as it wants them.
    ///
    /// # Errors
    /// Any [`Fault`]; what the transport has to say about it waits in `send`.
    pub fn receive(
        &mut self,
        input: &mut [u8],
        scratch: &mut Scratch,
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Received, Fault> {
        match self {
            Transport::Plain(plain) => plain.receive(input, sink),
            Transport::Tls(tls) => tls.receive(input, sink),
            Transport::WebSocket(socket) => socket.receive(input, scratch, sink),
            Transport::Proxy(proxy) => Ok(proxy.receive(input)?),
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
        stream: &Socket,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<Sent, Fault> {
        match self {
            Transport::Plain(plain) => plain.send(stream, slices),
            Transport::Tls(tls) => tls.send(stream, slices, scratch),
            Transport::WebSocket(socket) => socket.send(stream, slices, scratch),
            // Nothing is said before the header is read.
            Transport::Proxy(_) => Ok(Sent {
                bytes: 0,
                blocked: false,
            }),
        }
    }

    /// Says good-bye in the transport's own words, which `send` writes. False where there is
    /// more to say once that is written.
    pub fn finish(&mut self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(tls) => tls.finish(),
            Transport::WebSocket(socket) => socket.finish(),
            Transport::Proxy(_) => true,
        }
    }

    /// Copies what was read but not used to the start of `buffer`; its length, bytes.
    pub fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        match self {
            Transport::Plain(_) => 0,
            Transport::Tls(tls) => tls.take_ahead(buffer),
            Transport::WebSocket(socket) => socket.take_ahead(buffer),
            Transport::Proxy(_) => 0,
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
            Transport::WebSocket(socket) => socket.keep_ahead(bytes),
            // It keeps what it needs and leaves nothing.
            Transport::Proxy(_) => Ok(()),
        }
    }

    /// True while something is kept that was read but not used, or is to be told at once.
    pub fn is_ahead(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.is_ahead(),
            Transport::WebSocket(socket) => socket.is_ahead(),
            Transport::Proxy(_) => false,
        }
    }

    /// True while the transport has bytes of its own to write.
    pub fn wants_writing(&self) -> bool {
        match self {
            Transport::Plain(_) => false,
            Transport::Tls(tls) => tls.wants_writing(),
            Transport::WebSocket(socket) => socket.wants_writing(),
            Transport::Proxy(_) => false,
        }
    }

    /// True once MQTT bytes can pass.
    pub fn is_established(&self) -> bool {
        match self {
            Transport::Plain(_) => true,
            Transport::Tls(tls) => tls.is_established(),
            Transport::WebSocket(socket) => socket.is_established(),
            Transport::Proxy(_) => false,
        }
    }

    /// The TLS that it is or stands on.
    pub fn tls(&self) -> Option<&Tls> {
        match self {
            Transport::Plain(_) | Transport::Proxy(_) => None,
            Transport::Tls(tls) => Some(tls),
            Transport::WebSocket(socket) => socket.link().tls(),
        }
    }

    /// True for WebSocket.
    pub fn is_websocket(&self) -> bool {
        matches!(self, Transport::WebSocket(_))
    }

    /// The client certificate that was verified.
    pub fn certificate(&self) -> Option<Arc<PeerCertificate>> {
        self.tls()?.certificate()
    }
}
