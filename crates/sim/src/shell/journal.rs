//! What is durable of all shards, and whether a restart would go on as they do.

use casemate_engine::{Kept, Shard};

use super::store::Batch;
use crate::history::{Invariant, Violation};

/// The journals of all shards, in the order in which they became durable.
pub struct Journal {
    is_kept: bool,
    kept: Kept,
    /// What came since the shards began to write everything down anew, and how many have not done.
    anew: Option<(Kept, usize)>,
}

impl Journal {
    /// An empty one; without records where the engine writes none.
    pub fn new(is_kept: bool) -> Journal {
        Journal {
            is_kept,
            kept: Kept::new(),
            anew: None,
        }
    }

    /// So many shards begin to write everything down anew; false where they do already.
    pub fn begin_anew(&mut self, shards: usize) -> bool {
        let is_new = self.anew.is_none();
        if is_new {
            self.anew = Some((Kept::new(), shards));
        }
        is_new
    }

    /// One shard has done: when the last one has, all that was before is thrown away.
    ///
    /// # Errors
    /// None of them was asked to.
    pub fn is_anew(&mut self) -> Result<(), Violation> {
        let Some((anew, left)) = self.anew.take() else {
            let words = "a checkpoint that nobody ordered".to_owned();
            return Err(Violation::new(Invariant::Door, words));
        };
        match left {
            1 => self.kept = anew,
            _ => self.anew = Some((anew, left - 1)),
        }
        Ok(())
    }

    /// The process dies: nobody writes anything down anew any more.
    pub fn give_up_anew(&mut self) {
        self.anew = None;
    }

    /// What the next process goes on with.
    pub fn kept(&self) -> Kept {
        let mut kept = self.kept.clone();
        kept.finish();
        kept
    }

    /// The log was read again from the first record on.
    ///
    /// # Errors
    /// It amounts to something else than what was written to it.
    pub fn check_read(&self, mut read: Kept) -> Result<(), Violation> {
        read.finish();
        match self.kept().difference(&read) {
            None => Ok(()),
            Some(words) => {
                let words = format!("what was written and what is read: {words}");
                Err(Violation::new(Invariant::Journal, words))
            }
        }
    }

    /// This is left, whatever was written.
    pub fn replace(&mut self, kept: Kept) {
        self.kept = kept;
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
        for batch in batches {
            self.append_records(&batch.records)?;
        }
        Ok(())
    }

    /// The records of one batch have become durable.
    ///
    /// # Errors
    /// They do not read.
    pub fn append_records(&mut self, records: &[u8]) -> Result<(), Violation> {
        take(&mut self.kept, records)?;
        match &mut self.anew {
            Some((anew, _)) => take(anew, records),
            None => Ok(()),
        }
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
