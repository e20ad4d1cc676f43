//! The process dies, with all that it holds; another one goes on with what was durable.
//!
//! It dies between two inputs of a shard, and of the effects of the last one only the first few
//! still happen. Of each shard's batches on their way to the disk a random number, oldest first,
//! has become durable; nobody has heard so. Every connection breaks: what a client had sent and
//! nobody read is lost, and of what was on its way to the client a random tail.

use std::sync::Arc;

use casemate_engine::policy::Policy;
use casemate_engine::{Input, Millis};

use super::store::Batch;
use super::{Shell, Side, Station};
use crate::chance::Chance;
use crate::history::Violation;

/// Inputs of one turn within which a process dies that is to die; at the latest it does at the end.
const TURN_INPUTS: u64 = 24;

/// The process that lives, or is to.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// Its number, from 0.
    pub process: u32,
    /// Inputs until it dies.
    fuse: Option<u64>,
    /// It does nothing any more.
    pub is_dead: bool,
    /// When the next one is there, while there is none.
    up_at: Option<Millis>,
}

/// What a crash has left, for the oracle.
#[derive(Clone, Copy, Debug)]
pub struct Wreck {
    /// Number of the process, from 0.
    pub process: u32,
    /// When it was.
    pub at: Millis,
    /// When the next process is there.
    pub up_at: Millis,
    /// All that shards have asked to persist before this is durable.
    pub safe_until: Millis,
    /// Batches that are durable although nobody has heard so.
    pub survivors: usize,
}

impl Shell {
    /// True while no process lives.
    pub fn is_down(&self) -> bool {
        self.life.up_at.is_some()
    }

    /// When the next process is there, while there is none.
    pub fn up_at(&self) -> Option<Millis> {
        self.life.up_at
    }

    /// True where the process does nothing any more.
    pub(super) fn is_dead(&self) -> bool {
        self.life.is_dead
    }

    /// The process dies within the next turn.
    pub fn doom(&mut self, chance: &mut Chance) {
        self.life.fuse = Some(chance.below(TURN_INPUTS));
    }

    /// One input more; true where it was the last one.
    pub(super) fn burn(&mut self) -> bool {
        match &mut self.life.fuse {
            None => false,
            Some(0) => {
                self.life.is_dead = true;
                true
            }
            Some(left) => {
                *left -= 1;
                false
            }
        }
    }

    /// Ends the process; the next one is there after `gone_ms`.
    ///
    /// # Errors
    /// A batch that has become durable does not read.
    pub fn die(
        &mut self,
        now: Millis,
        chance: &mut Chance,
        gone_ms: Millis,
    ) -> Result<Wreck, Violation> {
        let up_at = now + gone_ms;
        let (safe_until, survivors) = match self.archive.is_some() {
            true => self.lose_power(now, chance)?,
            false => self.lose_batches(now, chance)?,
        };
        let survived = self.seqs(|store| store.persisted);
        let kept_nothing = |station: &Station| station.store.persisted == 0;
        let none_kept = self.stations.iter().any(kept_nothing);
        for link in &mut self.links {
            if link.side != Side::Gone {
                link.side = Side::Gone;
                link.up.cut(now, chance);
                link.down.cut(now, chance);
                link.rest.clear();
            }
            let is_hidden = match link.over_at {
                None => true,
                Some(_) if link.process == self.life.process => link.end_seq > survived[link.shard],
                // The last process has counted anew, and may not have written that down.
                Some(_) => link.over_by.is_some() && none_kept,
            };
            link.died |= link.over_at.is_none();
            link.end(now, 0);
            if is_hidden {
                link.over_by = Some(up_at);
            }
        }
        self.journal.give_up_anew();
        self.stations.clear();
        self.pipes.clear();
        self.life.up_at = Some(up_at);
        Ok(Wreck {
            process: self.life.process,
            at: now,
            up_at,
            safe_until,
            survivors,
        })
    }

    /// Makes some of what is under way durable, in an order that keeps each shard's own.
    fn lose_batches(
        &mut self,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(Millis, usize), Violation> {
        let (mut safe_until, mut count) = (now, 0);
        let mut piles: Vec<Vec<Batch>> = Vec::new();
        for station in &mut self.stations {
            let kept = chance.index(station.store.unanswered().count() + 1);
            let (survivors, safe) = station.store.die(now, kept);
            safe_until = safe_until.min(safe);
            count += survivors.len();
            piles.push(survivors.into_iter().rev().collect());
        }
        piles.retain(|pile| !pile.is_empty());
        while !piles.is_empty() {
            let place = chance.index(piles.len());
            if let Some(batch) = piles[place].pop() {
                self.journal.append(&[batch])?;
            }
            piles.retain(|pile| !pile.is_empty());
        }
        Ok((safe_until, count))
    }

    /// Another process goes on with what was durable.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn rise(
        &mut self,
        now: Millis,
        shards: usize,
        policy: &Arc<Policy>,
    ) -> Result<(), Violation> {
        let kept = self.journal.kept();
        self.life.process += 1;
        self.life.fuse = None;
        self.life.is_dead = false;
        self.life.up_at = None;
        let seeds = kept.seeds().unwrap_or(self.seeds.map(|seed| {
            // Nothing was kept, and nobody knows any more what they were.
            seed.rotate_left(self.life.process)
        }));
        self.raise(shards, seeds, policy, now)?;
        for station in &mut self.stations {
            station.shard.restore(&kept, now);
        }
        Ok(())
    }

    /// The disk rots, and another process starts with what is left of it.
    ///
    /// # Errors
    /// It does not start, loses something in silence, or reads what nobody wrote.
    pub fn rise_rotten(
        &mut self,
        now: Millis,
        chance: &mut Chance,
        shards: usize,
        policy: &Arc<Policy>,
    ) -> Result<(), Violation> {
        let rotten = match &mut self.archive {
            Some(archive) => archive.rot(chance)?,
            None => None,
        };
        if let Some(kept) = rotten {
            self.journal.replace(kept);
        }
        self.rise(now, shards, policy)?;
        for shard in 0..self.stations.len() {
            self.handle(shard, now, chance, Input::Tick)?;
            self.handle(shard, now, chance, Input::TurnEnd)?;
        }
        Ok(())
    }
}
