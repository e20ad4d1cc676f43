//! Messages of QoS 2 that several shards keep whole or not at all.
//!
//! A crash may find such a message written down by one shard and not by another, and its publisher
//! sends it again. So the publisher's shard writes down that all have it, once it has every
//! receipt; a restart passes over what was never completed. Until then the message leaves to no
//! session that would still be there after the restart, and PUBREC waits.

use std::collections::{BTreeMap, VecDeque};

use casemate_codec::{PacketId, QoS};

use crate::acknowledge::Stake;
use crate::journal::{Record, Whole};
use crate::session::SessionRef;
use crate::shard::Shard;

/// What this shard has begun and others have, and what others have begun and this shard has.
#[derive(Default)]
pub(crate) struct Completions {
    /// Number of the last message of this shard that several keep whole or not at all.
    last: u64,
    /// Waits for receipts and for what this shard has written itself, in order of numbers.
    open: VecDeque<Open>,
    /// Written down as complete in the batch of `seq`, which is not durable yet.
    closing: VecDeque<(u64, u64)>,
    /// All up to this number are durably complete.
    done: u64,
    /// Entries of sessions here that must not leave yet.
    entries: BTreeMap<Whole, Vec<(SessionRef, u64)>>,
}

struct Open {
    stake: Stake,
    number: u64,
    session: SessionRef,
    id: PacketId,
}

impl Completions {
    /// True where everything up to a number is durably complete.
    pub fn is_done(&self, number: u64) -> bool {
        number <= self.done
    }

    /// True where a message of this shard is not complete yet.
    pub fn are_open(&self) -> bool {
        !self.open.is_empty() || !self.closing.is_empty()
    }

    /// An entry of a session here must not leave before its message is complete.
    pub fn hold(&mut self, whole: Whole, session: SessionRef, entry: u64) {
        self.entries
            .entry(whole)
            .or_default()
            .push((session, entry));
    }
}

impl Shard {
    /// The mark of a message that must be kept whole; none where one batch of records holds all.
    #[inline]
    pub(crate) fn new_whole(&mut self, session: u32, qos: QoS) -> Whole {
        if qos != QoS::ExactlyOnce || self.place.count == 1 || !self.journal.is_kept() {
            return Whole::NONE;
        }
        let session = self.sessions.get(session);
        if !session.is_some_and(|found| found.is_durable()) {
            return Whole::NONE;
        }
        self.completions.last += 1;
        Whole::new(self.place.index, self.completions.last)
    }

    /// A message has been routed: what PUBREC now waits for.
    pub(crate) fn await_completion(
        &mut self,
        whole: Whole,
        stake: Stake,
        session: SessionRef,
        id: PacketId,
    ) -> Stake {
        self.completions.open.push_back(Open {
            stake,
            number: whole.number(),
            session,
            id,
        });
        if !stake.has_numbers() && self.completions.open.len() == 1 {
            // Nobody else has it: one batch holds all.
            self.complete_first();
        }
        stake.and(Stake {
            whole: whole.number(),
            ..Stake::default()
        })
    }

    /// All numbers up to this one were given before a restart, and nobody waits for them.
    pub(crate) fn restore_completions(&mut self, last: u64) {
        self.completions.last = last;
        self.completions.done = last;
    }

    /// What an acknowledgement waits for that speaks for every message so far.
    pub(crate) fn all_wholes(&self) -> Stake {
        Stake {
            whole: self.completions.last,
            ..Stake::default()
        }
    }

    /// True where a session's identifier belongs to a message that is not complete.
    pub(crate) fn is_completing(&self, session: SessionRef, id: u16) -> bool {
        let mut open = self.completions.open.iter();
        open.any(|one| one.session == session && one.id.get() == id)
    }

    /// Writes down what every shard has by now.
    pub(crate) fn complete_settled(&mut self) {
        while let Some(open) = self.completions.open.front() {
            if !self.is_settled(open.stake) {
                return;
            }
            self.complete_first();
        }
    }

    fn complete_first(&mut self) {
        if let Some(open) = self.completions.open.pop_front() {
            let origin = self.place.index;
            let number = open.number;
            self.journal
                .write(&Record::Whole(Whole::new(origin, number)));
            if let Some(found) = self
                .sessions
                .resolve(open.session)
                .and_then(|slot| self.sessions.get(slot))
            {
                let (session, id) = (found.number, open.id.get());
                // A client may have released it already, as an impatient one does.
                if session != 0 && found.unreleased.iter().any(|other| *other == id) {
                    self.journal.write(&Record::Incoming { session, id });
                }
            }
            let seq = self.touch_store().seq;
            self.completions.closing.push_back((seq, number));
        }
    }

    /// Something is durable: tells everybody which messages are complete.
    pub(crate) fn completions_durable(&mut self) {
        while let Some((seq, number)) = self.completions.closing.front().copied() {
            if seq > self.persisted {
                return;
            }
            self.completions.closing.pop_front();
            self.completions.done = number;
            let origin = self.place.index;
            self.tell_complete(number);
            self.completed(Whole::new(origin, number));
        }
    }

    /// A message is complete: what this shard has of it may leave.
    pub(crate) fn completed(&mut self, whole: Whole) {
        let Some(entries) = self.completions.entries.remove(&whole) else {
            return;
        };
        let checkpoint = self.checkpoint.as_mut();
        if checkpoint.is_some_and(|checkpoint| checkpoint.close(whole)) {
            self.journal.write(&Record::Whole(whole));
        }
        for (session, entry) in entries {
            let slot = self.sessions.resolve(session);
            let Some(found) = slot.and_then(|slot| self.sessions.get_mut(slot)) else {
                continue;
            };
            found.outbox.complete(entry);
            if let Some(link) = found.link {
                self.pump_later(link);
            }
        }
    }
}
