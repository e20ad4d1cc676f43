//! What a shard tells about itself: for audit, guard and logs.

use std::net::SocketAddr;

use casemate_codec::{Malformed, Reason};

use crate::door::{ConnectionId, ListenerId};

/// Something that happened to a connection or a session.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub struct Event {
    pub id: Option<ConnectionId>,
    pub listener: Option<ListenerId>,
    pub address: Option<SocketAddr>,
    /// As the peer wrote it; escape before showing.
    pub client_id: Box<str>,
    /// Proven name, empty before authentication.
    pub principal: Box<str>,
    pub kind: EventKind,
}

/// Which thing happened.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum EventKind {
    Connected {
        session_present: bool,
    },
    Disconnected {
        loss: Loss,
    },
    AuthenticationRefused {
        reason: Reason,
    },
    PublishDenied {
        topic: Box<str>,
    },
    SubscribeDenied {
        filter: Box<str>,
    },
    WillDenied {
        topic: Box<str>,
    },
    Malformed {
        fault: Malformed,
    },
    TakenOver,
    SessionExpired,
    /// The queue of a session is full; said once until it has room again.
    Overflow {
        refused: u64,
    },
    LimitReached {
        what: &'static str,
    },
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Loss {
    /// DISCONNECT from the client.
    Goodbye,
    /// The peer closed, or the network failed.
    Transport,
    /// TLS or another layer below MQTT refused.
    Handshake,
    /// We closed, with this reason.
    Refused(Reason),
    /// Nothing was heard for one and a half keep alive.
    KeepAlive,
    /// CONNECT or the proof did not come in time.
    ConnectDeadline,
    /// It does not read.
    SlowReader,
    /// The same session connected anew.
    TakenOver,
    /// The broker stops.
    Stopping,
}
