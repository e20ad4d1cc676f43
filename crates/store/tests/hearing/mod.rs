//! A committer without its thread, and somebody who hears it.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::collections::VecDeque;
use std::time::Duration;

use casemate_store::{
    recover, Answer, Audience, Core, Durability, Event, Keys, Log, Next, Options, Pace, Submitter,
};

use crate::disk::{draw, FaultyDisk};

/// Synced, in segments of 4 KiB.
pub const SMALL: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 4_096,
    random: draw,
};

/// Small bounds, and nothing gathers.
pub fn pace(shards: u16) -> Pace {
    Pace {
        shards,
        shard_bytes_max: 4_096,
        commit_bytes_max: 2_048,
        gather: Duration::ZERO,
        gather_bytes_min: 500,
        pause_min: ms(10),
        pause_max: ms(80),
        free_bytes_min: 8_192,
    }
}

pub fn ms(time: u64) -> Duration {
    Duration::from_millis(time)
}

/// A committer that owns the log of a disk, step by step.
pub fn begin(disk: &FaultyDisk, shards: u16) -> (Core<FaultyDisk>, Vec<Submitter>) {
    let recovered = recover(disk, &Keys::none(), 1, |_| {}).unwrap();
    Core::new(Log::new(disk.clone(), SMALL, recovered), pace(shards))
}

/// Keeps all that it hears.
#[derive(Default)]
pub struct Notes {
    pub answers: VecDeque<Answer>,
    pub woken: Vec<u16>,
    pub events: Vec<Event>,
}

impl Audience for Notes {
    fn answer(&mut self, answer: Answer) {
        self.answers.push_back(answer);
    }

    fn wake(&mut self, shard: u16) {
        self.woken.push(shard);
    }

    fn tell(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl Notes {
    /// The numbers that were answered since, and whether they are safe.
    pub fn heard(&mut self) -> Vec<(u16, u64, bool)> {
        let answers = self.answers.drain(..);
        answers
            .map(|one| (one.shard, one.seq, one.place.is_some()))
            .collect()
    }
}

/// Steps until there is nothing to do.
pub fn run(core: &mut Core<FaultyDisk>, now: Duration, notes: &mut Notes) -> Next {
    loop {
        match core.step(now, notes) {
            Next::Now => {}
            next => return next,
        }
    }
}
