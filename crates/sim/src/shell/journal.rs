//! What is durable of all shards, and whether a restart would go on as they do.

use casemate_engine::{Kept, Shard};

use super::store::Batch;
use crate::history::{Invariant, Violation};

/// The journals of all shards, in the order in which they became durable.
pub struct Journal {
    is_kept: bool,
    kept: Kept,
}

impl Journal {
    /// An empty one; without records where the engine writes none.
    pub fn new(is_kept: bool) -> Journal {
        Journal {
            is_kept,
            kept: Kept::new(),
        }
    }

    /// True where the engine writes records.
    pub fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// Some batches have become durable.
    ///
    /// # Errors
    /// One does not read.
    pub fn append(&mut self, batches: &[Batch]) -> Result<(), Violation> {
        batches
            .iter()
            .try_for_each(|batch| take(&mut self.kept, &batch.records))
    }

    /// Compares what was written, `unanswered` being what is not durable yet, with what is held.
    ///
    /// # Errors
    /// They differ.
    pub fn check<'a>(
        &self,
        shards: impl Iterator<Item = &'a Shard>,
        unanswered: impl Iterator<Item = &'a Batch>,
    ) -> Result<(), Violation> {
        let mut written = self.kept.clone();
        for batch in unanswered {
            take(&mut written, &batch.records)?;
        }
        let mut held = Kept::new();
        for shard in shards {
            take(&mut held, &shard.dump())?;
        }
        held.finish_like(&written);
        written.finish();
        match written.difference(&held) {
            None => Ok(()),
            Some(words) => {
                let words = format!("the journals and the shards: {words}");
                Err(Violation::new(Invariant::Journal, words))
            }
        }
    }
}

fn take(kept: &mut Kept, records: &[u8]) -> Result<(), Violation> {
    kept.take(records).map_err(|fault| {
        Violation::new(
            Invariant::Journal,
            format!("a batch does not read: {fault}"),
        )
    })
}
