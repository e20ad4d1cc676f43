//! How everything but sockets reaches a shard: letters, swapped out once per turn.

use std::sync::Arc;

use casemate_engine::policy::Policy;
use casemate_engine::{Batch, ConnectionId, ListenerId, Millis, ShardIndex, Verdict};

use crate::admission::Visit;
use crate::connection::Moved;
use crate::entrance::Doorway;
use crate::expulsion::Expulsion;
use crate::mailbox::Mailbox;
use crate::socket::Socket;
use crate::worker::Door;

/// Something for a shard.
pub(crate) enum Letter {
    /// The answer to a password check.
    Proven {
        /// Whose.
        id: ConnectionId,
        /// The engine's number of the question.
        step: u32,
        /// The answer.
        verdict: Verdict,
        /// How it came.
        visit: Box<Visit>,
    },
    /// Somebody is let in or turned away.
    Decided {
        /// Whose.
        id: ConnectionId,
        /// The engine's number of the question.
        step: u32,
        /// The answer.
        verdict: Verdict,
    },
    /// A connection that belongs here.
    Adopted(Box<Moved>),
    /// A program of this process comes in.
    Entered {
        /// Its socket.
        stream: Socket,
        /// The way that was made for it.
        doorway: Arc<Doorway>,
    },
    /// A neighbour's batch.
    Forwarded {
        /// The neighbour.
        from: ShardIndex,
        /// Whole messages.
        batch: Batch,
    },
    /// The store has kept batches, or not, in order.
    Kept(Vec<casemate_store::Answer>),
    /// Everything is to be written anew.
    Checkpoint,
    /// The store works again.
    StoreWorks,
    /// A neighbour has taken this much out of our pipe to it.
    Drained {
        /// The neighbour.
        to: ShardIndex,
        /// Bytes.
        bytes: usize,
    },
    /// The snapshot of accounts has changed.
    Accounts,
    /// Listeners have come or gone.
    Doors(DoorChange),
    /// A new policy.
    Policy(Arc<Policy>),
    /// Close a principal's connections.
    Expel(Expulsion),
    /// Say that this was read.
    Answer {
        /// Which question; told to [`crate::broker::Broker::answered`].
        round: u64,
    },
    /// Let nobody in any more and take no new promise; see [`casemate_engine::Input::Drain`].
    Drain {
        /// Where clients may go instead.
        server_reference: Option<Arc<str>>,
    },
    /// Let everybody go who is owed nothing.
    Leave,
    /// Say good-bye to everybody and end.
    Stop {
        /// When the rest is cut off.
        until: Millis,
    },
}

/// What changes among the listening sockets of one shard.
pub(crate) struct DoorChange {
    /// New ones, which have joined the shard's poll.
    pub opened: Vec<Door>,
    /// Those to close.
    pub closed: Vec<ListenerId>,
    /// Which change it is; told to [`crate::broker::Broker::doors_changed`].
    pub round: u64,
}

/// One shard's letters.
///
/// Bounded by what may be under way: questions by their limit, connections by theirs, batches by
/// the engine's pipes; everything else comes from the operator.
pub(crate) type Inbox = Mailbox<Letter>;
