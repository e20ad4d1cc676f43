//! The store of one shard: answers at once, late, together, or with a failure.

use std::collections::VecDeque;

use casemate_engine::Millis;

use crate::chance::Chance;
use crate::history::{ensure, Violation};
use crate::plan::Promptness;

/// A `seq` for each shard; unused places stay 0.
pub type Seqs = [u64; 4];

/// What a shard asked to be made durable.
#[derive(Clone, Debug)]
pub struct Batch {
    pub seq: u64,
    pub records: Vec<u8>,
    /// When its shard asked.
    pub asked_at: Millis,
}

/// An answer of the store: what it is about, oldest first, at least one.
#[derive(Debug)]
pub enum Answer {
    /// All up to the last is durable.
    Persisted(Vec<Batch>),
    /// These are lost: all that was asked for and not answered.
    Failed(Vec<Batch>),
}

/// What a shard asked for and what it got.
#[derive(Debug)]
pub struct Store {
    promptness: Promptness,
    failures_permille: u64,
    waiting: VecDeque<(Millis, Batch)>,
    last_at: Millis,
    /// Until this moment it does not answer at all.
    stalled_until: Millis,
    /// The newest `seq` asked for.
    pub issued: u64,
    /// The newest `seq` that is durable.
    pub persisted: u64,
    /// An archive answers.
    is_archived: bool,
    /// Since when something has failed that is not durable yet.
    failed_since: Option<Millis>,
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
            is_archived: false,
            failed_since: None,
        }
    }

    /// Says that an archive answers, by [`Store::kept`] and [`Store::failed`].
    pub fn archive(&mut self) {
        self.is_archived = true;
    }

    /// All up to `seq` has become durable.
    pub fn kept(&mut self, seq: u64) {
        self.persisted = seq;
        self.failed_since = None;
        while self.waiting.front().is_some_and(|(_, it)| it.seq <= seq) {
            self.waiting.pop_front();
        }
    }

    /// The shard hears that what it asked for first has failed.
    pub fn failed(&mut self, seq: u64) {
        while self.waiting.front().is_some_and(|(_, it)| it.seq <= seq) {
            let asked_at = self.waiting.pop_front().map(|(_, it)| it.asked_at);
            self.failed_since = self.failed_since.or(asked_at);
        }
    }

    /// Takes a question.
    ///
    /// # Errors
    /// `seq` does not grow.
    pub fn ask(&mut self, now: Millis, chance: &mut Chance, batch: Batch) -> Result<(), Violation> {
        let seq = batch.seq;
        ensure!(
            seq > self.issued,
            Door,
            "Persist {seq} after Persist {}",
            self.issued
        );
        self.issued = seq;
        if self.is_archived {
            self.waiting.push_back((Millis::MAX, batch));
            return Ok(());
        }
        let at = match self.promptness {
            Promptness::AtOnce => now,
            Promptness::Late(most_ms) => now + chance.between(0, most_ms),
            Promptness::Batches(every_ms) => now.next_multiple_of(every_ms),
        };
        if self.promptness != Promptness::AtOnce && chance.percent(1) {
            self.stalled_until = now + chance.between(100, 4_000);
        }
        self.last_at = self.last_at.max(at).max(self.stalled_until);
        self.waiting.push_back((self.last_at, batch));
        Ok(())
    }

    /// When the next answer is due.
    pub fn next_at(&self) -> Option<Millis> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// The answer that is due: all that is ready is answered together.
    pub fn answer(&mut self, now: Millis, chance: &mut Chance) -> Option<Answer> {
        let mut ready = Vec::new();
        while self.waiting.front().is_some_and(|(at, _)| *at <= now) {
            ready.extend(self.waiting.pop_front().map(|(_, batch)| batch));
            if chance.percent(30) {
                break;
            }
        }
        let newest = ready.last()?.seq;
        if chance.below(1_000) < self.failures_permille {
            // What was asked for meanwhile may build on it, so that it fails as well.
            ready.extend(self.waiting.drain(..).map(|(_, batch)| batch));
            let oldest = ready.first().map(|batch| batch.asked_at);
            self.failed_since = self.failed_since.or(oldest);
            return Some(Answer::Failed(ready));
        }
        self.persisted = newest;
        // What has failed stands first in the next batch.
        self.failed_since = None;
        Some(Answer::Persisted(ready))
    }

    /// The disk has given back what nobody knew to be durable; what has failed before may be among
    /// it, and makes nothing else durable.
    pub fn survive(&mut self, seq: u64) {
        if self.waiting.front().is_some_and(|(_, it)| it.seq <= seq) {
            self.kept(seq);
        }
    }

    /// The process dies: so many of what was under way, oldest first, are durable all the same.
    /// All that was asked for before the moment that is returned is durable.
    pub fn die(&mut self, now: Millis, kept: usize) -> (Vec<Batch>, Millis) {
        let kept = kept.min(self.waiting.len());
        let survivors: Vec<Batch> = self.waiting.drain(..kept).map(|(_, batch)| batch).collect();
        if let Some(newest) = survivors.last() {
            self.persisted = newest.seq;
            self.failed_since = None;
        }
        let lost = self.waiting.front().map(|(_, batch)| batch.asked_at);
        let safe = [self.failed_since, lost].into_iter().flatten().min();
        (survivors, safe.unwrap_or(now))
    }

    /// What was asked for and not answered, oldest first.
    pub fn unanswered(&self) -> impl Iterator<Item = &Batch> {
        self.waiting.iter().map(|(_, batch)| batch)
    }

    /// Answers at once and without failure from now on.
    pub fn heal(&mut self, now: Millis) {
        if self.is_archived {
            return;
        }
        self.promptness = Promptness::AtOnce;
        self.failures_permille = 0;
        self.last_at = now;
        self.stalled_until = 0;
        for (at, _) in &mut self.waiting {
            *at = (*at).min(now);
        }
    }
}
