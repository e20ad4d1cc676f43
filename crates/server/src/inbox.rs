//! How everything but sockets reaches a shard: letters, swapped out once per turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use casemate_engine::policy::Policy;
use casemate_engine::{Batch, ConnectionId, ListenerId, Millis, ShardIndex, Verdict};
use mio::Waker;

use crate::connection::Moved;
use crate::expulsion::Expulsion;
use crate::lock::lock;
use crate::worker::Door;

/// Something for a shard.
pub(crate) enum Letter {
    /// The answer to a question.
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
    /// A neighbour's batch.
    Forwarded {
        /// The neighbour.
        from: ShardIndex,
        /// Whole messages.
        batch: Batch,
    },
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
pub(crate) struct Inbox {
    letters: Mutex<Letters>,
    asleep: AtomicBool,
    waker: Waker,
}

#[derive(Default)]
struct Letters {
    letters: Vec<Letter>,
    closed: bool,
}

impl Inbox {
    /// An empty inbox that wakes its shard by `waker`.
    pub fn new(waker: Waker) -> Inbox {
        Inbox {
            letters: Mutex::default(),
            asleep: AtomicBool::new(false),
            waker,
        }
    }

    /// Puts a letter in and wakes the shard if it sleeps. A shard that has ended drops it.
    pub fn post(&self, letter: Letter) {
        let mut letters = lock(&self.letters);
        if letters.closed {
            // What is dropped may be a connection; closing it needs no lock.
            drop(letters);
            return;
        }
        letters.letters.push(letter);
        drop(letters);
        if self.asleep.swap(false, Ordering::SeqCst) {
            // A waker fails only where its queue is full of wake-ups or gone; a shard that
            // misses one still wakes at its next deadline, at the latest after a second.
            let _ = self.waker.wake();
        }
    }

    /// Says that the shard is about to sleep; false where it must not, as there are letters.
    pub fn may_sleep(&self) -> bool {
        self.asleep.store(true, Ordering::SeqCst);
        if lock(&self.letters).letters.is_empty() {
            return true;
        }
        self.asleep.store(false, Ordering::SeqCst);
        false
    }

    /// Says that the shard is awake.
    pub fn awake(&self) {
        self.asleep.store(false, Ordering::SeqCst);
    }

    /// Swaps the letters into `into`, which is empty.
    pub fn swap(&self, into: &mut Vec<Letter>) {
        std::mem::swap(&mut lock(&self.letters).letters, into);
    }

    /// Takes no more letters and drops those that are there.
    pub fn close(&self) {
        let mut letters = lock(&self.letters);
        letters.closed = true;
        let dropped = std::mem::take(&mut letters.letters);
        drop(letters);
        drop(dropped);
    }
}
