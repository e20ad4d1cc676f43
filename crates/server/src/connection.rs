//! One connection as its shard's thread sees it: a socket, a transport, a phase.

use std::num::NonZeroU64;
use std::sync::Arc;

use casemate_engine::{ListenerId, Parcel, PeerAddress};

use crate::entrance::Entry;
use crate::options::Account;
use crate::socket::Socket;
use crate::transport::Transport;

/// A socket and all that the shell knows about it.
pub(crate) struct Connection {
    /// The socket.
    pub stream: Socket,
    /// What stands between it and MQTT.
    pub transport: Transport,
    /// The listener that accepted it, as it was then and as it is now.
    pub entry: Entry,
    /// The peer, where it has an address.
    pub address: PeerAddress,
    /// How far it has come.
    pub phase: Phase,
    /// The socket may have something to read.
    pub readable: bool,
    /// The socket may take something.
    pub writable: bool,
    /// The peer has closed its half: readiness will not be told again, so reading goes on until
    /// the end is read.
    pub half_closed: bool,
    /// The transport keeps bytes that could be received at once.
    pub unread: bool,
    /// The engine wants no more bytes for now.
    pub paused: bool,
    /// It stands in a list of connections to read.
    pub queued: bool,
    /// It was granted; before that it may make us hold only little.
    pub granted: bool,
    /// The engine has been told that it is gone, or never heard of it.
    pub told: bool,
    /// The password check that it waits for.
    pub question: Option<NonZeroU64>,
    /// The certificate's account that let it in.
    pub account: Option<Arc<Account>>,
    /// Expulsions up to this one were looked at when it was let in.
    pub expulsions_seen: u64,
}

/// How far a connection has come.
pub(crate) enum Phase {
    /// The transport is not up; the engine does not know of it.
    Handshake,
    /// The engine speaks with it.
    Open,
    /// What is left is written; nothing is read.
    Draining(Box<Drain>),
    /// All is written and our half is closed. What the peer still sends is read and thrown away:
    /// closing over unread bytes would reset the connection and destroy our last words.
    Lingering {
        /// Bytes thrown away.
        discarded: usize,
    },
}

/// The last bytes of a connection.
pub(crate) struct Drain {
    /// MQTT bytes to write.
    pub bytes: Vec<u8>,
    /// How many have been written.
    pub sent: usize,
    /// The transport has said its own good-bye.
    pub finished: bool,
}

/// A connection between two shards.
pub(crate) struct Moved {
    /// The socket, registered nowhere.
    pub stream: Socket,
    /// With all of its state and what was read ahead.
    pub transport: Transport,
    /// See [`Connection::entry`].
    pub entry: Entry,
    /// See [`Connection::address`].
    pub address: PeerAddress,
    /// See [`Connection::account`].
    pub account: Option<Arc<Account>>,
    /// See [`Connection::expulsions_seen`].
    pub expulsions_seen: u64,
    /// See [`Connection::half_closed`].
    pub half_closed: bool,
    /// What the engine moves along.
    pub parcel: Box<Parcel>,
}

impl Connection {
    /// A connection as it was accepted.
    pub fn new(
        stream: Socket,
        transport: Transport,
        entry: Entry,
        address: PeerAddress,
    ) -> Connection {
        Connection {
            stream,
            transport,
            entry,
            address,
            phase: Phase::Handshake,
            readable: false,
            writable: true,
            half_closed: false,
            unread: false,
            paused: false,
            queued: false,
            granted: false,
            told: true,
            question: None,
            account: None,
            expulsions_seen: 0,
        }
    }

    /// The listener that accepted it.
    pub fn listener(&self) -> ListenerId {
        self.entry.id()
    }

    /// True while the engine speaks with it.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// True where reading it now would do something.
    pub fn wants_reading(&self) -> bool {
        let something = self.readable || self.half_closed || self.unread;
        match self.phase {
            Phase::Handshake => something,
            Phase::Open => something && !self.paused,
            Phase::Draining(_) => false,
            Phase::Lingering { .. } => self.readable || self.half_closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_small() {
        // 100,000 of them must not cost more than some MB here; the engine has its own part. A
        // socket has 8 bytes, and more in a build with assertions, where mio watches its use.
        let bytes = size_of::<Connection>() - size_of::<Socket>() + 8;
        assert!(bytes <= 104, "{bytes}");
    }
}
