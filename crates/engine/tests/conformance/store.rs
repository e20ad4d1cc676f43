//! The store of the lab: what is durable, what fails, and what is left after a crash.

use casemate_engine::{Input, Kept, ShardIndex};

use super::{shards_of, Lab};

impl Lab {
    /// Answers every Persist that was held back.
    pub fn release_store(&mut self) {
        self.store_holds = false;
        for (shard, seq, records) in std::mem::take(&mut self.owed) {
            self.persisted(shard, seq, records);
        }
        self.run();
    }

    /// Answers the oldest Persist that was held back of the shard that `prefer` likes best; false
    /// where there is none.
    pub fn release_one(&mut self, prefer: impl Fn(usize) -> usize) -> bool {
        let owed = self.owed.iter().enumerate();
        let Some((place, _)) = owed.min_by_key(|(_, (shard, ..))| prefer(*shard)) else {
            return false;
        };
        let (shard, seq, records) = self.owed.remove(place);
        self.persisted(shard, seq, records);
        self.run();
        true
    }

    /// True where no Persist is held back.
    pub fn owes_nothing(&self) -> bool {
        self.owed.is_empty()
    }

    /// Answers every Persist that was held back: it failed. What is asked for then is held back.
    pub fn fail_and_hold(&mut self) {
        for (shard, seq, records) in std::mem::take(&mut self.owed) {
            self.put(shard, Input::PersistFailed { seq, records });
        }
        self.run();
    }

    /// Answers every Persist that was held back: it failed.
    pub fn fail_store(&mut self) {
        self.store_holds = false;
        for (shard, seq, records) in std::mem::take(&mut self.owed) {
            self.put(shard, Input::PersistFailed { seq, records });
        }
        self.run();
    }

    /// What would be left after a crash now.
    pub fn kept_now(&self) -> Kept {
        let mut kept = Kept::new();
        for batch in &self.log {
            kept.take(batch)
                .expect("the journal reads as it was written");
        }
        kept
    }

    /// Lets every shard write everything down anew, and throws away what was before.
    pub fn checkpoint(&mut self) {
        let before = self.log.len();
        self.checkpointed = 0;
        for shard in 0..self.shards.len() {
            self.put(shard, Input::Checkpoint);
        }
        self.run();
        assert_eq!(self.checkpointed, self.shards.len());
        self.log.drain(..before);
        self.check_journal();
    }

    /// The process dies, and another one with so many shards goes on with what was durable.
    pub fn crash(&mut self, shards: ShardIndex) {
        let mut kept = self.kept_now();
        kept.finish();
        self.shards = shards_of(&self.settings, shards);
        for shard in &mut self.shards {
            shard.restore(&kept, self.now);
        }
        for line in &mut self.lines {
            line.closed = true;
        }
        self.queue.clear();
        self.owed.clear();
        self.in_held_pipes.clear();
        self.held_pipes.clear();
        self.store_holds = false;
        self.run();
    }

    /// Compares what the journals amount to with what the shards hold.
    pub fn check_journal(&self) {
        let mut written = self.kept_now();
        for (_, _, records) in &self.owed {
            written
                .take(records)
                .expect("the journal reads as it was written");
        }
        let mut held = Kept::new();
        for shard in &self.shards {
            held.take(&shard.dump())
                .expect("a dump reads as it was written");
        }
        held.finish_like(&written);
        written.finish();
        if let Some(words) = written.difference(&held) {
            panic!("the journal differs from what is held: {words}");
        }
    }

    pub(super) fn persisted(&mut self, shard: usize, seq: u64, records: Vec<u8>) {
        self.log.push(records);
        self.put(shard, Input::Persisted { seq });
    }
}
