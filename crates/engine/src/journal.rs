//! The journal: what a shard writes down so that its promises outlive the process.
//!
//! Each change of what must be kept becomes a [`Record`] in the batch of the turn, which leaves as
//! [`Effect::Persist`](crate::Effect::Persist); whoever waits for it waits for its number. The
//! records alone rebuild everything: [`Kept`] takes batch after batch in, and a shard can be made
//! of it. What a shard holds can be written as records too ([`dump`](mod@dump)), which is how old
//! ones become superfluous, and how tests compare the two.
//!
//! Records name sessions and messages by numbers that are given once in the life of a store. Each
//! shard writes its own copy of a message, as a neighbour does that is another machine one day.

mod checkpoint;
mod dump;
mod kept;
mod portable;
mod record;
mod restore;
#[cfg(test)]
mod tests;

pub(crate) use checkpoint::Checkpoint;
pub use kept::{Damaged, Kept};
pub use portable::{
    Awaited, Scribe, StoredEntry, StoredFlight, StoredMessage, StoredSession, StoredSubscription,
    StoredWill,
};
pub(crate) use record::{EntryLine, Record, SessionLine, SubscriptionLine, WillLine};

use crate::door::ShardIndex;
use crate::message::Draft;

/// Low bits of a number that are the shard's that gave it.
pub(crate) const SHARD_BITS: u32 = 6;

/// First byte of each batch: how its records are written.
pub(crate) const FORMAT: u8 = 1;

/// A message of QoS 2 that several shards have, as its publisher's shard counts it. Until that
/// shard has written down that all have theirs, a restart treats it as never published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Whole(
    /// The publisher's shard in the low six bits, and its number of the message; 0 for a message
    /// that needs no such word.
    pub u64,
);

impl Whole {
    pub const NONE: Whole = Whole(0);

    /// `number` is at least 1 and below 2^58.
    pub fn new(origin: ShardIndex, number: u64) -> Whole {
        Whole(number << SHARD_BITS | u64::from(origin))
    }

    pub fn number(self) -> u64 {
        self.0 >> SHARD_BITS
    }

    pub fn is_some(self) -> bool {
        self != Whole::NONE
    }
}

/// True for topics that the broker alone publishes to, anew after every start: a store that kept
/// them would never rest.
pub(crate) fn is_said_anew(topic: &str) -> bool {
    topic.starts_with("$SYS/")
}

/// The records of one shard that have not left.
#[derive(Default)]
pub(crate) struct Journal {
    is_kept: bool,
    /// The store keeps nothing now: no promise is made that it would have to keep.
    pub is_ailing: bool,
    shard: ShardIndex,
    /// The last number given.
    last: u64,
    /// The batch of this turn; empty, or with its format in front.
    open: Vec<u8>,
    /// Of batches that failed: they come first in the next one.
    failed: Vec<u8>,
    /// Empty buffers that have been batches before.
    spare: Vec<Vec<u8>>,
}

/// Buffers that are kept for later batches, and the largest of them, bytes.
const SPARE_MAX: usize = 4;
const SPARE_BYTES_MAX: usize = 128 * 1024;

impl Journal {
    /// An empty journal; one that is not kept takes no records.
    pub fn new(is_kept: bool, shard: ShardIndex, last: u64) -> Journal {
        Journal {
            is_kept,
            shard,
            last,
            ..Journal::default()
        }
    }

    #[inline]
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// All numbers up to this one have been given before.
    pub fn go_on_from(&mut self, last: u64) {
        self.last = self.last.max(last);
    }

    /// A number that no other session or message of this store has.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last << SHARD_BITS | u64::from(self.shard)
    }

    /// Appends a record to the batch of this turn.
    pub fn write(&mut self, record: &Record<'_>) {
        if self.is_kept {
            if self.open.is_empty() {
                self.open.push(FORMAT);
            }
            record.write(&mut self.open);
        }
    }

    /// Appends the body of a message and gives its number.
    pub fn write_message(&mut self, draft: &Draft<'_>) -> u64 {
        let number = self.number();
        self.write(&Record::Message {
            number,
            draft: *draft,
        });
        number
    }

    /// Appends a retained message, but for what the broker says of itself.
    pub fn write_retained(&mut self, draft: Draft<'_>) {
        if !is_said_anew(draft.topic) {
            self.write(&Record::Retained(draft));
        }
    }

    /// True where nothing waits to leave.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.failed.is_empty()
    }

    /// What waits to leave, bytes.
    pub fn bytes(&self) -> usize {
        self.open.len() + self.failed.len()
    }

    /// The batch of this turn, with those that failed before it.
    pub fn take(&mut self) -> Vec<u8> {
        let next = self.spare.pop().unwrap_or_default();
        let mut batch = std::mem::replace(&mut self.open, next);
        if !self.failed.is_empty() {
            let records = batch.get(1..).unwrap_or_default();
            self.failed.extend_from_slice(records);
            batch.clear();
            batch.push(FORMAT);
            batch.append(&mut self.failed);
        }
        batch
    }

    /// Gives the buffer of a batch that is durable back, for one to come.
    pub fn reuse(&mut self, mut batch: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && batch.capacity() <= SPARE_BYTES_MAX {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// A batch will never be durable: its records go into the next.
    pub fn renew(&mut self, batch: &[u8]) {
        self.is_ailing = true;
        if let Some((_, records)) = batch.split_first() {
            self.failed.extend_from_slice(records);
        }
    }
}
