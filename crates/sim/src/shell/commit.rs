//! Between the shards and the archive: records go there, answers come back.

use casemate_engine::{Input, Millis};
use casemate_store::Answer;

use super::line::News;
use super::store::Batch;
use super::{Item, Report, Shell};
use crate::chance::Chance;
use crate::history::Violation;

impl Shell {
    /// A shard wants records kept.
    pub(super) fn persist(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        batch: Batch,
    ) -> Result<(), Violation> {
        if let Some(archive) = &mut self.archive {
            archive.take(shard, batch.seq, batch.records.clone());
            archive.wake(now, chance);
        }
        self.stations[shard].store.ask(now, chance, batch)
    }

    /// When the committer next does something.
    pub fn commit_at(&self) -> Option<Millis> {
        self.archive.as_ref()?.next_at()
    }

    /// One step of the committer, in the middle of which the power goes where it is the last one.
    ///
    /// # Errors
    /// Records that have become durable do not read.
    pub fn commit(
        &mut self,
        now: Millis,
        chance: &mut Chance,
        is_last: bool,
    ) -> Result<(), Violation> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let step = archive.step(now, chance, is_last);
        if step.began_to_fail || step.works {
            let works = step.works;
            self.reports.push(Report::Store { works });
        }
        for answer in step.answers {
            let shard = usize::from(answer.shard);
            if answer.place.is_some() {
                self.stations[shard].store.kept(answer.seq);
                self.journal.append_records(&answer.bytes)?;
            }
            let at = self.heard_at(shard, now, chance);
            self.post(shard, at, Item::Kept { answer });
        }
        let anew = step.checkpoint && self.journal.begin_anew(self.stations.len());
        for shard in 0..self.stations.len() {
            if step.works {
                let at = self.heard_at(shard, now, chance);
                self.post(shard, at, Item::StoreWorks);
            }
            if anew {
                self.post(shard, now, Item::Checkpoint);
            }
        }
        Ok(())
    }

    /// When a shard hears of something that the archive has told now; never out of order.
    fn heard_at(&mut self, shard: usize, now: Millis, chance: &mut Chance) -> Millis {
        let most_ms = self.plan.disk.as_ref().map_or(0, |it| it.answer_ms_max);
        let station = &mut self.stations[shard];
        let at = now + chance.between(0, most_ms);
        station.heard_at = station.heard_at.max(at);
        station.heard_at
    }

    /// A shard hears what has become of records.
    pub(super) fn hear(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        answer: Answer,
    ) -> Result<(), Violation> {
        let Some(archive) = &mut self.archive else {
            return Ok(());
        };
        let news = archive.answered(shard, answer);
        archive.wake(now, chance);
        match news {
            None => Ok(()),
            Some(News::Persisted(seq)) => self.handle(shard, now, chance, Input::Persisted { seq }),
            Some(News::Failed(failed)) => {
                for records in failed {
                    let seq = records.seq;
                    self.stations[shard].store.failed(seq);
                    let records = records.bytes;
                    let input = Input::PersistFailed { seq, records };
                    self.handle(shard, now, chance, input)?;
                }
                Ok(())
            }
        }
    }

    /// A shard hears that the store works again.
    pub(super) fn store_works(&mut self, shard: usize, now: Millis, chance: &mut Chance) {
        if let Some(archive) = &mut self.archive {
            archive.works(shard);
            archive.wake(now, chance);
        }
    }

    /// One shard has written everything anew.
    ///
    /// # Errors
    /// Nobody has told it to.
    pub(super) fn checkpointed(
        &mut self,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        if let Some(archive) = &mut self.archive {
            archive.checkpointed();
            archive.wake(now, chance);
        }
        self.journal.is_anew()
    }

    /// The power is gone: what the disk gives back is what was durable, and perhaps the commit that
    /// was under way. Returns the moment before which all that was asked for is durable.
    ///
    /// # Errors
    /// Something is missing, or something is there that nobody wrote.
    pub(super) fn lose_power(
        &mut self,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(Millis, usize), Violation> {
        let Some(archive) = &mut self.archive else {
            return Ok((now, 0));
        };
        let (read, survivors) = archive.lose_power(chance)?;
        let count = survivors.len();
        for survivor in survivors {
            self.journal.append_records(&survivor.records)?;
            if let Some(station) = self.stations.get_mut(survivor.shard) {
                station.store.survive(survivor.seq);
            }
        }
        self.journal.check_read(read)?;
        let safe = self.stations.iter_mut().map(|it| it.store.die(now, 0).1);
        Ok((safe.min().unwrap_or(now), count))
    }

    /// No fault and no delay from now on.
    pub(super) fn heal_archive(&mut self, now: Millis) {
        if let Some(archive) = &mut self.archive {
            archive.heal(now);
        }
    }
}
