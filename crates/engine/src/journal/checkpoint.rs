//! Everything written down anew, a piece in each turn, so that older records become superfluous.
//!
//! The pieces are records like all others, and stand among them: a session's piece first ends what
//! older records say of it, and is whole in its batch. What was made after the beginning has its
//! own records behind it, and what ended is gone. So the batches from the beginning on amount to
//! the same as all batches, once every shard has said [`Effect::Checkpointed`].

use std::collections::BTreeSet;

use super::{Record, Whole};
use crate::door::Effect;
use crate::shard::Shard;

/// What is written in one turn beside its own records, bytes; a session is never divided.
const TURN_BYTES: usize = 64 * 1024;

/// How far a shard has come.
pub(crate) struct Checkpoint {
    stage: Stage,
    /// Messages that were written as not whole, and have not become so since.
    open: BTreeSet<Whole>,
}

enum Stage {
    /// Sessions from this slot on.
    Sessions(u32),
    /// Retained messages behind this topic of this tenant.
    Retained(Option<(u32, Box<str>)>),
    /// Until every message is whole that was written as not whole.
    Open,
    /// Until everything up to this is durable.
    Written(u64),
}

impl Checkpoint {
    /// A message has become whole: true where that must be written down again, as the record that
    /// said so may be older than the checkpoint.
    pub fn close(&mut self, whole: Whole) -> bool {
        self.open.remove(&whole)
    }
}

impl Shard {
    /// Begins to write everything down anew; one that is under way goes on instead.
    pub(crate) fn begin_checkpoint(&mut self) {
        if !self.journal.is_kept() || self.checkpoint.is_some() {
            return;
        }
        if self.place.index == 0 {
            self.journal.write(&Record::Seeds(self.place.seeds));
        }
        self.groups.dump(self.place.index, &mut self.journal);
        self.checkpoint = Some(Box::new(Checkpoint {
            stage: Stage::Sessions(0),
            open: BTreeSet::new(),
        }));
    }

    /// True where the next turn has something of a checkpoint to write.
    pub(crate) fn is_checkpointing(&self) -> bool {
        self.checkpoint
            .as_ref()
            .is_some_and(|found| match found.stage {
                Stage::Sessions(_) | Stage::Retained(_) => true,
                Stage::Open => found.open.is_empty(),
                Stage::Written(seq) => seq <= self.persisted,
            })
    }

    /// Writes a piece.
    pub(crate) fn checkpoint_turn(&mut self) {
        let Some(mut checkpoint) = self.checkpoint.take() else {
            return;
        };
        let until = self.journal.bytes() + TURN_BYTES;
        checkpoint.stage = match checkpoint.stage {
            Stage::Sessions(slot) => self.checkpoint_sessions(slot, until, &mut checkpoint.open),
            Stage::Retained(after) => self.checkpoint_retained(after, until),
            Stage::Open if checkpoint.open.is_empty() => Stage::Written(self.touch_store().seq),
            Stage::Open => Stage::Open,
            Stage::Written(seq) if seq <= self.persisted => {
                self.effects.push(Effect::Checkpointed);
                return;
            }
            Stage::Written(seq) => Stage::Written(seq),
        };
        self.checkpoint = Some(checkpoint);
    }

    fn checkpoint_sessions(
        &mut self,
        mut slot: u32,
        until: usize,
        open: &mut BTreeSet<Whole>,
    ) -> Stage {
        let mut journal = std::mem::take(&mut self.journal);
        while slot < self.sessions.slots() && journal.bytes() < until {
            if let Some(session) = self.sessions.get(slot) {
                if session.number != 0 && session.is_durable() {
                    let number = session.number;
                    journal.write(&Record::Ended { session: number });
                    self.dump_session(slot, session, &mut journal);
                    let wholes = session.outbox.waiting().map(|item| item.whole);
                    open.extend(wholes.filter(|whole| whole.is_some()));
                }
            }
            slot += 1;
        }
        self.journal = journal;
        match slot < self.sessions.slots() {
            true => Stage::Sessions(slot),
            false => Stage::Retained(None),
        }
    }

    fn checkpoint_retained(&mut self, after: Option<(u32, Box<str>)>, until: usize) -> Stage {
        let after = after.as_ref().map(|(tenant, topic)| (*tenant, &**topic));
        let mut last = None;
        for (tenant, message) in self.retained.iter_from(after) {
            if self.journal.bytes() >= until {
                let Some((tenant, topic)) = last else { break };
                return Stage::Retained(Some((tenant, Box::from(topic))));
            }
            let draft = message.draft(tenant);
            self.journal.write_retained(draft);
            last = Some((tenant, draft.topic));
        }
        Stage::Open
    }
}
