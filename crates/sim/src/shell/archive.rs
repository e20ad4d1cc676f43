//! The real store under the shards: its committer step by step, on a disk that breaks.

mod rot;

use std::cell::Cell;
use std::io;
use std::time::Duration;

use casemate_engine::{Kept, Millis};
use casemate_store::{
    recover, Answer, Audience, Core, Durability, Event, Key, Keys, Log, Next, Options, Orders,
    Pace, Recovered,
};

use super::line::{Line, News, Records};
use crate::chance::Chance;
use crate::disk::{Chance as DiskChance, FaultyDisk};
use crate::history::{ensure, Invariant, Violation};
use crate::plan::DiskPlan;

/// Most changes of the disk that a commit may still make when the power goes.
const LAST_CHANGES: u64 = 10;

/// How long the disk may stay full, ms.
const FULL_MS_MAX: u64 = 4_000;

thread_local! {
    /// Where the random bytes of segments come from: the same in each replay.
    static DRAWN: Cell<u64> = const { Cell::new(0) };
}

fn draw(bytes: &mut [u8]) -> io::Result<()> {
    DRAWN.set(DRAWN.get() + 1);
    let mut chance = DiskChance(DRAWN.get());
    bytes.fill_with(|| chance.next() as u8);
    Ok(())
}

/// A part that a start has found behind all that was known to be durable.
pub struct Survivor {
    pub shard: usize,
    pub seq: u64,
    pub records: Vec<u8>,
}

/// The disk, and the process's way to it.
pub struct Archive {
    plan: DiskPlan,
    disk: FaultyDisk,
    keys: Keys,
    /// Read, and not written yet.
    recovered: Option<Recovered>,
    /// None while no process lives.
    process: Option<Process>,
    /// The number of the last commit that is known to be durable.
    last: u64,
    full_until: Option<Millis>,
}

struct Process {
    core: Core<FaultyDisk>,
    orders: Orders<FaultyDisk>,
    lines: Vec<Line>,
    next_at: Option<Millis>,
    is_failing: bool,
    rounds: Rounds,
}

/// When everything is written anew, and what may go then, as in the server.
struct Rounds {
    written: u64,
    kept: u64,
    /// Files that go when the round ends, and shards that have not done.
    round: Option<(Vec<u32>, usize)>,
}

/// What one step of the committer has brought.
#[derive(Default)]
pub struct Step {
    /// Answers, in order.
    pub answers: Vec<Answer>,
    /// It works again: lines hand in what waits.
    pub works: bool,
    /// Every shard is to write everything anew.
    pub checkpoint: bool,
    /// It keeps nothing any more.
    pub began_to_fail: bool,
}

impl Audience for Step {
    fn answer(&mut self, answer: Answer) {
        self.answers.push(answer);
    }

    fn wake(&mut self, _shard: u16) {}

    fn tell(&mut self, event: Event) {
        match event {
            Event::Failing { .. } => self.began_to_fail = true,
            Event::Recovered { .. } => self.works = true,
            Event::Retired { .. } | Event::NotRetired { .. } => {}
        }
    }
}

impl Archive {
    /// An empty disk; `seed` decides what is drawn.
    ///
    /// # Errors
    /// There is no key, or the empty disk does not read.
    pub fn new(plan: &DiskPlan, seed: u64) -> Result<Archive, Violation> {
        DRAWN.set(seed);
        let keys = match plan.is_encrypted {
            true => Keys::encrypted(Key::new(&[7; 32]).map_err(broken)?),
            false => Keys::none(),
        };
        let mut archive = Archive {
            plan: plan.clone(),
            disk: FaultyDisk::default(),
            keys,
            recovered: None,
            process: None,
            last: 0,
            full_until: None,
        };
        archive.read()?;
        Ok(archive)
    }

    /// A process of so many shards begins to write.
    ///
    /// # Errors
    /// Nobody has read the disk before.
    pub fn open(&mut self, shards: usize) -> Result<(), Violation> {
        let recovered = self.recovered.take();
        let recovered = recovered.ok_or_else(|| broken("the disk was not read"))?;
        let options = Options {
            durability: Durability::Disk,
            segment_bytes: self.plan.segment_bytes,
            random: draw,
        };
        let pace = Pace {
            shards: shards as u16,
            shard_bytes_max: self.plan.shard_bytes_max,
            commit_bytes_max: self.plan.commit_bytes_max,
            gather: Duration::from_millis(self.plan.commit_ms_max),
            gather_bytes_min: self.plan.commit_bytes_max / 8,
            free_bytes_min: 8_192,
            ..Pace::default()
        };
        let written = recovered.report.part_bytes;
        let mut log = Log::new(self.disk.clone(), options, recovered);
        // Where the disk refuses it, power lasts until it does not.
        while log.settle().is_err() {}
        self.last = log.next_number() - 1;
        let (core, submitters) = Core::new(log, pace);
        self.process = Some(Process {
            orders: core.orders(),
            core,
            lines: submitters.into_iter().map(Line::new).collect(),
            next_at: None,
            is_failing: false,
            rounds: Rounds {
                written,
                kept: 0,
                round: None,
            },
        });
        Ok(())
    }

    /// When the committer next does something.
    pub fn next_at(&self) -> Option<Millis> {
        self.process.as_ref()?.next_at
    }

    /// True where nothing is on its way to the disk or back.
    pub fn is_idle(&self) -> bool {
        let idle = |process: &Process| {
            let lines = process.lines.iter().all(Line::is_idle);
            lines && !process.is_failing && process.next_at.is_none()
        };
        self.process.as_ref().is_none_or(idle)
    }

    /// Takes what a shard wants kept.
    pub fn take(&mut self, shard: usize, seq: u64, bytes: Vec<u8>) {
        if let Some(process) = &mut self.process {
            process.lines[shard].take(Records { seq, bytes }, process.is_failing);
        }
    }

    /// Takes an answer in that has reached its shard; says what that must hear.
    pub fn answered(&mut self, shard: usize, answer: Answer) -> Option<News> {
        let process = self.process.as_mut()?;
        process.lines[shard].answered(answer, process.is_failing)
    }

    /// The store works again, as a shard has heard.
    pub fn works(&mut self, shard: usize) {
        if let Some(process) = &mut self.process {
            process.lines[shard].hand_in(process.is_failing);
        }
    }

    /// Something may have been handed in: the committer wakes.
    pub fn wake(&mut self, now: Millis, chance: &mut Chance) {
        let at = now + chance.between(0, self.plan.commit_ms_max);
        if let Some(process) = &mut self.process {
            process.next_at = Some(process.next_at.map_or(at, |next| next.min(at)));
        }
    }

    /// One step of the committer; `is_last` where the power goes in the middle of it.
    pub fn step(&mut self, now: Millis, chance: &mut Chance, is_last: bool) -> Step {
        self.break_disk(now, chance);
        let mut step = Step::default();
        let Some(process) = &mut self.process else {
            return step;
        };
        if is_last {
            self.disk.set_fuse(chance.below(LAST_CHANGES) as u32);
        }
        let next = process.core.step(Duration::from_millis(now), &mut step);
        let pause = chance.between(0, self.plan.commit_ms_max);
        process.next_at = match next {
            Next::Now => Some(now + pause),
            Next::At(at) | Next::Later(at) => Some((at.as_millis() as Millis).max(now + 1)),
            Next::News | Next::Ended => None,
        };
        process.is_failing = (process.is_failing || step.began_to_fail) && !step.works;
        let kept = step.answers.iter().filter_map(|answer| answer.place);
        let bytes: u64 = kept.clone().map(|place| place.bytes() as u64).sum();
        let has_committed = kept.clone().next().is_some() || step.works;
        self.last += u64::from(has_committed);
        step.checkpoint = process.wrote(bytes, self.plan.compact_bytes);
        step
    }

    /// One shard has written everything anew, and that is durable.
    pub fn checkpointed(&mut self) {
        let Some(process) = &mut self.process else {
            return;
        };
        let Some((segments, left)) = process.rounds.round.take() else {
            return;
        };
        if left > 1 {
            process.rounds.round = Some((segments, left - 1));
            return;
        }
        process.rounds.kept = std::mem::take(&mut process.rounds.written);
        process.orders.retire(segments);
    }

    /// Lets the disk break, or work again.
    fn break_disk(&mut self, now: Millis, chance: &mut Chance) {
        if chance.below(1_000) < self.plan.bad_syncs_permille {
            self.disk.fail_syncs(chance.between(1, 5) as u32);
        }
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
            self.disk.set_room(None);
        }
        if chance.below(1_000) < self.plan.full_permille {
            self.full_until = Some(now + chance.between(1, FULL_MS_MAX));
            self.disk.set_room(Some(chance.index(6_000)));
        }
    }

    /// No fault and no delay from now on.
    pub fn heal(&mut self, now: Millis) {
        self.plan.bad_syncs_permille = 0;
        self.plan.full_permille = 0;
        self.plan.commit_ms_max = 0;
        self.full_until = None;
        self.disk.set_room(None);
        self.disk.fail_syncs(0);
        if let Some(process) = &mut self.process {
            process.next_at = process.next_at.map(|at| at.min(now));
        }
    }

    /// The power is gone; gives what the next start finds, and what of it nobody knew.
    ///
    /// # Errors
    /// It does not read, or something is missing.
    pub fn lose_power(&mut self, chance: &mut Chance) -> Result<(Kept, Vec<Survivor>), Violation> {
        self.process = None;
        self.full_until = None;
        self.disk.set_room(None);
        match chance.percent(50) {
            // After a failed sync the kernel goes on to show what the disk may not have.
            true => self.disk.kill(),
            false => self.disk.crash(&mut DiskChance(chance.bits())),
        }
        while chance.percent(20) {
            // It goes again while the log is read.
            self.disk.set_fuse(chance.below(4) as u32);
            let _interrupted = recover(&self.disk, &self.keys, 1, |_| {});
            self.disk.crash(&mut DiskChance(chance.bits()));
        }
        self.read()
    }

    /// Reads everything.
    fn read(&mut self) -> Result<(Kept, Vec<Survivor>), Violation> {
        let (mut kept, mut survivors) = (Kept::new(), Vec::new());
        let (mut fault, last) = (None, self.last);
        let recovered = recover(&self.disk, &self.keys, 1, |found| {
            if let Err(damaged) = kept.take(found.part.bytes) {
                fault = Some(damaged.to_string());
            }
            if found.number > last {
                survivors.push(Survivor {
                    shard: usize::from(found.part.shard),
                    seq: found.part.seq,
                    records: found.part.bytes.to_vec(),
                });
            }
        });
        let recovered = recovered.map_err(broken)?;
        let damage = recovered.report.damage.first().map(ToString::to_string);
        let fault = fault.or(damage).unwrap_or_default();
        ensure!(fault.is_empty(), Journal, "the log is damaged: {fault}");
        self.recovered = Some(recovered);
        Ok((kept, survivors))
    }
}

impl Process {
    /// So much was written; true where every shard is to write everything anew.
    fn wrote(&mut self, bytes: u64, compact_bytes: u64) -> bool {
        let rounds = &mut self.rounds;
        rounds.written += bytes;
        if rounds.round.is_some() || rounds.written < compact_bytes.max(rounds.kept) {
            return false;
        }
        rounds.written = 0;
        rounds.round = Some((self.orders.sealed(), self.lines.len()));
        true
    }
}

fn broken(fault: impl ToString) -> Violation {
    Violation::new(
        Invariant::Journal,
        format!("the store: {}", fault.to_string()),
    )
}
