//! The door of a shard: what goes in, what comes out.

use std::net::SocketAddr;
use std::sync::Arc;

use casemate_codec::{Reason, Version};

use crate::event::{Event, Loss};
use crate::hello::Hello;
use crate::policy::Policy;
use crate::principal::{PeerCertificate, Principal, Secret};

/// Milliseconds on the shell's monotonic clock; the origin is the shell's own.
pub type Millis = u64;

/// A shard's number within its broker, from 0.
pub type ShardIndex = u16;

/// A listener's number in the configuration, from 0.
pub type ListenerId = u16;

/// Where a shard stands, and the seeds that keep its tables from being filled on purpose.
#[derive(Clone, Debug)]
pub struct Place {
    /// This shard.
    pub index: ShardIndex,
    /// How many shards there are, 1 to 64.
    pub count: ShardIndex,
    /// Seeds of keyed hashing; the same in every shard of one broker, kept with what is kept,
    /// else fresh at each start.
    pub seeds: [u64; 4],
}

/// One connection of one shard. The shell chooses both parts and reuses a slot only with a new
/// generation, so that a late input for a connection that is gone is recognised and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct ConnectionId {
    pub slot: u32,
    pub generation: u32,
}

/// Where a connection came from: facts of the transport, not claims of the peer.
#[derive(Clone, Debug)]
pub struct Origin {
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The peer's address, or none for transports without one.
    pub address: Option<SocketAddr>,
    /// The client certificate that TLS verified.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What a CONNECT (or a later AUTH) brings to whoever decides.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Where the connection came from.
    pub origin: Origin,
    /// As the client wrote it; may be empty.
    pub client_id: Box<str>,
    /// Who the client says it is.
    pub username: Option<Box<str>>,
    /// What it knows.
    pub password: Option<Secret>,
    /// Enhanced authentication, when the client asked for it (MQTT 5.0 §4.12).
    pub proof: Option<Proof>,
    /// The protocol version it speaks.
    pub version: Version,
}

/// One step of enhanced authentication.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The method that CONNECT named.
    pub method: Box<str>,
    /// What this step says; may be empty.
    pub data: Secret,
    /// 0 for CONNECT, then one more for each AUTH.
    pub step: u32,
    /// True where a connected client proves itself anew (MQTT 5.0 §4.12.1).
    pub again: bool,
}

/// The answer to [`Effect::Authenticate`].
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Proven.
    Granted(Box<Grant>),
    /// More is needed: an AUTH packet with this data.
    Continue(Box<[u8]>),
    /// Not proven; the reason that a 5.0 client sees.
    Refused(Reason),
}

/// What a proven client gets.
#[derive(Clone, Debug)]
pub struct Grant {
    /// Who it is.
    pub principal: Arc<Principal>,
    /// True where the client id is this principal's own, so that `%c` may speak for it.
    pub client_id_bound: bool,
    /// A client id that cannot be guessed, used when the client brought none.
    pub fresh_client_id: Box<str>,
    /// Final data of enhanced authentication.
    pub data: Option<Box<[u8]>>,
    /// When the proof ends (a token's expiry); the connection is closed then.
    pub until: Option<Millis>,
}

/// A connection on its way to its home shard: all that the first shard learned of it.
#[derive(Debug)]
pub struct Parcel {
    pub(crate) origin: Origin,
    pub(crate) hello: Box<Hello>,
    pub(crate) grant: Box<Grant>,
    /// Bytes received after CONNECT and not yet decoded.
    pub(crate) tail: Vec<u8>,
    pub(crate) received_at: Millis,
}

/// What goes into a shard.
#[derive(Debug)]
pub enum Input<'a> {
    /// A transport is up; CONNECT is due within the deadline.
    Opened {
        /// New to this shard.
        id: ConnectionId,
        /// Facts about it.
        origin: Origin,
    },
    /// Bytes of the MQTT stream, in order, of any length.
    Received {
        /// Whose.
        id: ConnectionId,
        /// Borrowed for the call; what is incomplete is copied.
        bytes: &'a [u8],
    },
    /// The first `bytes` of [`crate::Shard::outgoing`] are on their way and may be forgotten.
    Sent {
        /// Whose.
        id: ConnectionId,
        /// At most what `outgoing` showed.
        bytes: usize,
    },
    /// The transport is gone; the id is never used again.
    Closed {
        /// Whose.
        id: ConnectionId,
        /// Why.
        loss: Loss,
    },
    /// The answer to [`Effect::Authenticate`] of the same `step`.
    Decided {
        /// Whose.
        id: ConnectionId,
        /// As asked; an answer to an older question is dropped.
        step: u32,
        /// The answer.
        verdict: Verdict,
    },
    /// A connection that another shard handed over; runs what is in its tail at once.
    Adopted {
        /// New to this shard.
        id: ConnectionId,
        /// As it left.
        parcel: Box<Parcel>,
    },
    /// A batch from a neighbour, whole and in order.
    Forwarded {
        /// Who wrote it.
        from: ShardIndex,
        /// As [`Effect::Forward`] gave it to the neighbour.
        batch: &'a [u8],
    },
    /// A neighbour has taken this much out of our pipe to it.
    Drained {
        /// Whose pipe.
        to: ShardIndex,
        /// Bytes.
        bytes: usize,
    },
    /// All up to `seq` is durable.
    Persisted {
        /// As in [`Effect::Persist`].
        seq: u64,
    },
    /// What came after the last `Persisted`, up to `seq`, is not durable and will not be: its
    /// records come again with the next [`Effect::Persist`].
    PersistFailed {
        /// As in [`Effect::Persist`].
        seq: u64,
        /// Those of that effect; one that was answered together with others has its own answer.
        records: Vec<u8>,
    },
    /// A new policy; in force when [`Effect::PolicyInForce`] says so. One of an earlier epoch than
    /// that which is in force changes nothing.
    Policy(Arc<Policy>),
    /// Closes every connection of a principal, and ends its sessions where asked.
    Expel {
        /// `realm` and `name` of [`Principal`].
        realm: &'a str,
        /// See `realm`.
        name: &'a str,
        /// Also forget its sessions.
        end_sessions: bool,
        /// What a 5.0 client is told.
        reason: Reason,
    },
    /// Publishes for the broker itself (`$SYS/…`), without a client.
    Announce {
        /// Topic.
        topic: &'a str,
        /// Payload.
        payload: &'a [u8],
        /// Store it.
        retain: bool,
    },
    /// The broker will go away: no new promise from now on; [`Effect::Settled`] says when those
    /// made before are kept.
    Drain {
        /// Where clients may go instead (MQTT 5.0 §4.11).
        server_reference: Option<&'a str>,
    },
    /// All shards have settled: every connection is closed as soon as its client is owed nothing.
    Leave,
    /// Tells every client that the broker goes away, and closes.
    Stop {
        /// What a 5.0 client is told.
        reason: Reason,
    },
    /// Write down anew all that is kept, a piece in each turn, until [`Effect::Checkpointed`].
    Checkpoint,
    /// The end of a loop turn: batches leave, windows are filled.
    TurnEnd,
    /// Time has passed; also said when [`crate::Shard::next_deadline`] is reached.
    Tick,
}

/// A run of bytes for a neighbour shard.
pub type Batch = Vec<u8>;

/// What comes out of a shard: the rare things. Messages are not effects; they stand in
/// [`crate::Shard::outgoing`].
#[derive(Debug)]
pub enum Effect {
    /// Somebody must decide; the answer is [`Input::Decided`].
    Authenticate {
        /// Whose.
        id: ConnectionId,
        /// To be returned with the answer.
        step: u32,
        /// What there is to decide on.
        credentials: Box<Credentials>,
    },
    /// The connection belongs to another shard. The shell moves the transport with everything in
    /// it and gives the parcel to that shard; for this shard the id is gone.
    HandOver {
        /// Whose.
        id: ConnectionId,
        /// Its home.
        to: ShardIndex,
        /// What moves along.
        parcel: Box<Parcel>,
    },
    /// Bytes for a neighbour's [`Input::Forwarded`]; never more in the pipe than its capacity.
    Forward {
        /// The neighbour.
        to: ShardIndex,
        /// Whole messages.
        batch: Batch,
    },
    /// Make everything up to `seq` durable, then say [`Input::Persisted`].
    Persist {
        /// Grows.
        seq: u64,
        /// What [`crate::Kept`] takes; empty where [`crate::Settings::journal`] is off.
        records: Vec<u8>,
    },
    /// After [`Input::Checkpoint`], once: what was written before that input is not needed any more
    /// as far as this shard is concerned.
    Checkpointed,
    /// The window is large: write it now rather than at the end of the turn.
    Flush {
        /// Whose.
        id: ConnectionId,
    },
    /// Stop reading this connection (back-pressure).
    Pause {
        /// Whose.
        id: ConnectionId,
    },
    /// Read it again.
    Resume {
        /// Whose.
        id: ConnectionId,
    },
    /// Write what `outgoing` still holds as far as it goes within a short time, then close. For
    /// this shard the connection's protocol is over; [`Input::Closed`] must still follow.
    Close {
        /// Whose.
        id: ConnectionId,
    },
    /// Something worth telling.
    Event(Box<Event>),
    /// After [`Input::Drain`], once: no acknowledgement of this shard is outstanding.
    Settled,
    /// This shard obeys the policy of this epoch.
    PolicyInForce {
        /// Of [`Policy`].
        epoch: u64,
    },
}
