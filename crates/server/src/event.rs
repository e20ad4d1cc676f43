//! What the server tells: the engine's events and the shell's own.

use std::net::SocketAddr;
use std::sync::Arc;

/// Something that happened, with its time and place.
#[derive(Clone, Debug)]
pub struct Event {
    /// Wall clock, milliseconds since 1970.
    pub time_unix_ms: u64,
    /// The shard that saw it.
    pub shard: u16,
    /// Name of the listener, where the event has one.
    pub listener: Option<Arc<str>>,
    /// The peer's address, where the event has one.
    pub address: Option<SocketAddr>,
    /// As the peer wrote it; escape before showing.
    pub client_id: Box<str>,
    /// Proven name, empty before authentication.
    pub principal: Box<str>,
    /// What happened.
    pub kind: EventKind,
}

/// Which thing happened.
#[derive(Clone, Debug)]
pub enum EventKind {
    /// In the engine.
    Engine(casemate_engine::EventKind),
    /// A TLS handshake failed; said once for each address.
    HandshakeFailed {
        /// What TLS found.
        cause: Box<str>,
    },
    /// A TLS handshake was not done by the connect deadline; said once for each address.
    HandshakeTimeout,
    /// A peer spoke something else on a TLS port; said once for each address.
    PlainOnTls,
    /// A peer began with TLS on a plain port; said once for each address.
    TlsOnPlain,
    /// A PROXY header was required and what came was none; said once for each address.
    ProxyRefused {
        /// What was wrong with it.
        cause: Box<str>,
    },
    /// A peer spoke HTTP on a port of MQTT; said once for each address.
    HttpOnMqtt,
    /// A peer spoke MQTT on a WebSocket port; said once for each address.
    PlainOnWebSocket,
    /// A request was granted no WebSocket; said once for each address.
    UpgradeRefused {
        /// What was wrong with it.
        cause: Box<str>,
    },
    /// A peer broke the rules of WebSocket; said once for each address.
    FrameRefused {
        /// What it did.
        cause: Box<str>,
    },
    /// Connections cannot be accepted; said once for each burst.
    AcceptFailed {
        /// What the system says.
        cause: Box<str>,
    },
    /// As many connections as there may be; said once for each burst.
    ConnectionsFull,
    /// A peer wrote TLS records that carry nothing, and too many of them.
    EmptyRecords,
    /// A live connection was closed because its certificate's account is gone or has changed.
    AccountGone,
    /// Nothing can be kept, so that no promise is made; said once, when it begins.
    StoreFailing {
        /// What the system says.
        cause: Box<str>,
        /// Room on the disk would help.
        is_full: bool,
    },
    /// All is kept again.
    StoreRecovered {
        /// Batches of records that had to wait for it.
        batches: u64,
    },
    /// What was kept before was not found whole at the start; said for each place.
    StoreDamaged {
        /// What is missing, and where.
        what: Box<str>,
    },
}
