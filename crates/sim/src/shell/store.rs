//! The store of one shard: answers at once, late, together, or with a failure.

use std::collections::VecDeque;

use casemate_engine::Millis;

use crate::chance::Chance;
use crate::history::{ensure, Violation};
use crate::plan::Promptness;

/// A `seq` for each shard; unused places stay 0.
pub type Seqs = [u64; 4];

/// An answer of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// All up to this is durable.
    Persisted(u64),
    /// What followed the last answer, up to this, is lost.
    Failed(u64),
}

/// What a shard asked for and what it got.
#[derive(Debug)]
pub struct Store {
    promptness: Promptness,
    failures_permille: u64,
    waiting: VecDeque<(Millis, u64)>,
    last_at: Millis,
    /// Until this moment it does not answer at all.
    stalled_until: Millis,
    /// The newest `seq` asked for.
    pub issued: u64,
    /// The newest `seq` that is durable.
    pub persisted: u64,
}

impl Store {
    /// An empty store.
    pub fn new(promptness: Promptness, failures_permille: u64) -> Store {
        Store {
            promptness,
            failures_permille,
            waiting: VecDeque::new(),
            last_at: 0,
            stalled_until: 0,
            issued: 0,
            persisted: 0,
        }
    }

    /// Takes a question.
    ///
    /// # Errors
    /// `seq` does not grow.
    pub fn ask(&mut self, now: Millis, chance: &mut Chance, seq: u64) -> Result<(), Violation> {
        ensure!(
            seq > self.issued,
            Door,
            "Persist {seq} after Persist {}",
            self.issued
        );
        self.issued = seq;
        let at = match self.promptness {
            Promptness::AtOnce => now,
            Promptness::Late(most_ms) => now + chance.between(0, most_ms),
            Promptness::Batches(every_ms) => now.next_multiple_of(every_ms),
        };
        if self.promptness != Promptness::AtOnce && chance.percent(1) {
            self.stalled_until = now + chance.between(100, 4_000);
        }
        self.last_at = self.last_at.max(at).max(self.stalled_until);
        self.waiting.push_back((self.last_at, seq));
        Ok(())
    }

    /// When the next answer is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The answer that is due: all that is ready is answered together.
    pub fn answer(&mut self, now: Millis, chance: &mut Chance) -> Option<Answer> {
        let mut newest = None;
        while let Some((at, seq)) = self.waiting.front().copied() {
            if at > now {
                break;
            }
            self.waiting.pop_front();
            newest = Some(seq);
            if chance.percent(30) {
                break;
            }
        }
        let seq = newest?;
        if chance.below(1_000) < self.failures_permille {
            return Some(Answer::Failed(seq));
        }
        self.persisted = seq;
        Some(Answer::Persisted(seq))
    }

    /// Answers at once and without failure from now on.
    pub fn heal(&mut self, now: Millis) {
        self.promptness = Promptness::AtOnce;
        self.failures_permille = 0;
        self.last_at = now;
        self.stalled_until = 0;
        for (at, _) in &mut self.waiting {
            *at = (*at).min(now);
        }
    }
}
