//! A store that no broker serves, written anew: without what is superfluous, under the key of now.

use std::io;
use std::sync::Arc;

use casemate_engine::policy::Policy;
use casemate_engine::{Effect, Input, Millis, Place, Settings, Shard};
use casemate_store::{Folder, Log, Part, StoreError};

use crate::clock::Clock;
use crate::random;
use crate::store::{OpenError, StoreOptions};

/// What was written anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Sessions that are kept.
    pub sessions: usize,
    /// Retained messages that are kept.
    pub retained: usize,
    /// Bytes of records that were read.
    pub bytes_before: u64,
    /// Bytes of records that are kept.
    pub bytes_after: u64,
    /// Files that were removed or, where they are damaged, set aside.
    pub segments_gone: usize,
}

impl StoreOptions {
    /// Writes everything that is kept anew and removes what was there before. Every segment is
    /// encrypted under the current key then, or in plain where there is none.
    ///
    /// Nothing is removed before all is durable: a crash in between leaves both.
    ///
    /// # Errors
    /// As at a server's start, or the disk takes nothing; everything is kept then.
    pub fn compact(&self) -> Result<Compacted, OpenError> {
        let opened = self.open(1)?;
        let bytes_before = opened.bytes_read();
        let (mut log, kept) = opened.into_log();
        let (sessions, retained) = kept.len();
        let before: Vec<u32> = log.sealed().collect();
        if before.is_empty() {
            return Ok(Compacted::default());
        }
        let seeds = match kept.seeds() {
            Some(seeds) => seeds,
            None => random::seeds().map_err(|_| StoreError::Cipher)?,
        };
        let settings = Settings {
            journal: true,
            ..Settings::default()
        };
        let place = Place {
            index: 0,
            count: 1,
            seeds,
        };
        // Who was connected at the end counts as gone from now on, as at a start. Nobody says
        // Tick: nothing expires, and no will is published, while it is rewritten.
        let now = Clock::starting(true).now();
        let policy = Arc::new(Policy::deny_all(0));
        let mut shard = Shard::new(Arc::new(settings), place, policy, now);
        shard.restore(&kept, now);
        drop(kept);
        let bytes_after = write_all(&mut shard, now, &mut log)?;
        let segments_gone = log.retire(&before)?;
        Ok(Compacted {
            sessions,
            retained,
            bytes_before,
            bytes_after,
            segments_gone,
        })
    }
}

/// Turns without a record after which a checkpoint counts as stuck; each writes a piece, or ends a
/// stage, of which there are four.
const IDLE_TURNS_MAX: usize = 16;

/// Writes all that a shard keeps; bytes of the records.
fn write_all(shard: &mut Shard, now: Millis, log: &mut Log<Folder>) -> Result<u64, StoreError> {
    let (mut bytes, mut idle) = (0, 0);
    let (mut places, mut effects) = (Vec::new(), Vec::new());
    shard.handle(now, Input::Checkpoint, &mut effects);
    while idle < IDLE_TURNS_MAX {
        shard.handle(now, Input::TurnEnd, &mut effects);
        idle += 1;
        for effect in std::mem::take(&mut effects) {
            match effect {
                Effect::Persist { seq, records } => {
                    idle = 0;
                    bytes += records.len() as u64;
                    let part = Part {
                        shard: 0,
                        seq,
                        bytes: &records,
                    };
                    places.clear();
                    log.commit([part], &mut places)?;
                    shard.handle(now, Input::Persisted { seq }, &mut effects);
                }
                Effect::Checkpointed => return Ok(bytes),
                _ => {}
            }
        }
    }
    let cause = io::Error::other("the journal has stopped half-way");
    let what = "a store cannot be written anew";
    Err(StoreError::Disk { what, cause })
}
