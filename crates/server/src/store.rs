//! What outlives the process: the log behind the shards, and each shard's line to it.

use std::collections::VecDeque;
use std::mem;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use casemate_engine::Kept;
use casemate_store::{
    recover, Answer, Audience, Committer, Core, Durability, Event, Folder, Keys, Log, Orders, Pace,
    Refused, Report, StoreError, Submitter,
};

use crate::broker::Broker;
use crate::clock::wall_unix_ms;
use crate::event::{self, EventKind};
use crate::inbox::Letter;
use crate::lock::lock;

/// Where what must be kept is kept.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Its folder; it is made where it is not there, and is this process's alone.
    pub folder: PathBuf,
    /// When something counts as kept.
    pub durability: Durability,
    /// What it is encrypted under, if anything.
    pub keys: Keys,
    /// A file of the log that has reached this size gets nothing more, bytes.
    pub segment_bytes: u64,
    /// When at least so much was written, and as much as what is kept takes, everything is written
    /// anew and older files go, bytes.
    pub compact_bytes: u64,
}

impl StoreOptions {
    /// Synced to the disk, in plain, in files of 64 MiB; compacted from 256 MiB on.
    pub fn new(folder: impl Into<PathBuf>) -> StoreOptions {
        StoreOptions {
            folder: folder.into(),
            durability: Durability::Disk,
            keys: Keys::none(),
            segment_bytes: 64 * 1024 * 1024,
            compact_bytes: 256 * 1024 * 1024,
        }
    }
}

/// How a store is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoreHealth {
    /// Why nothing is kept now, so that no promise is made; none while all is well.
    pub failing: Option<String>,
    /// True where it fails and room on the disk would help.
    pub is_full: bool,
    /// How often it began to fail since the start.
    pub failures: u64,
    /// What of that which was kept was not found at the start: what, and where.
    pub damage: Vec<String>,
    /// Commits that were read at the start.
    pub commits_read: u64,
    /// Bytes of records in them.
    pub bytes_read: u64,
    /// How long that took, ms.
    pub read_ms: u64,
}

/// A store that has been read, and that nobody writes yet.
pub(crate) struct Opened {
    /// What there was.
    pub kept: Kept,
    report: Report,
    read_ms: u64,
    rounds: Rounds,
    core: Core<Folder>,
    submitters: Vec<Submitter>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder, the log or its keys.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log reads, what stands in it does not.
    #[error("{folder}: commit {commit} is of {fault}; start the version that wrote it")]
    Records {
        /// The folder.
        folder: PathBuf,
        /// Number of the commit.
        commit: u64,
        /// What is wrong.
        fault: casemate_engine::Damaged,
    },
    /// Something is to be put into a store that holds something.
    #[error("{folder} holds something already; move it away first")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
}

impl StoreOptions {
    /// Reads the store; nothing of what was kept is changed.
    pub(crate) fn open(&self, shards: u16) -> Result<Opened, OpenError> {
        let began = Instant::now();
        let disk = Folder::open(&self.folder)?;
        let mut kept = Kept::new();
        let mut fault = None;
        let recovered = recover(&disk, &self.keys, 1, |found| {
            if let (Err(what), None) = (kept.take(found.part.bytes), &fault) {
                fault = Some((found.number, what));
            }
        })?;
        if let Some((commit, fault)) = fault {
            return Err(OpenError::Records {
                folder: self.folder.clone(),
                commit,
                fault,
            });
        }
        kept.finish();
        let report = recovered.report.clone();
        let options = casemate_store::Options {
            durability: self.durability,
            segment_bytes: self.segment_bytes,
            ..casemate_store::Options::default()
        };
        let pace = Pace {
            shards,
            ..Pace::default()
        };
        let (core, submitters) = Core::new(Log::new(disk, options, recovered), pace);
        let rounds = Rounds {
            compact_bytes: self.compact_bytes,
            written: report.part_bytes,
            kept: 0,
            round: None,
        };
        Ok(Opened {
            kept,
            report,
            read_ms: began.elapsed().as_millis() as u64,
            rounds,
            core,
            submitters,
        })
    }
}

impl Opened {
    /// Bytes of records that were read.
    pub(crate) fn bytes_read(&self) -> u64 {
        self.report.part_bytes
    }

    /// The log and what it amounts to, for somebody who writes it alone.
    pub(crate) fn into_log(self) -> (Log<Folder>, Kept) {
        (self.core.into_log(), self.kept)
    }

    /// Begins to write, for the shards of this broker; gives each shard its line.
    pub(crate) fn start(mut self, broker: &Arc<Broker>) -> std::io::Result<Store> {
        // A disk that takes nothing now is told of with the first commit, which tries it again.
        let _ = self.core.settle();
        let is_failing = Arc::new(AtomicBool::new(false));
        let damage = self.report.damage.iter().map(ToString::to_string);
        let damage: Vec<String> = damage.collect();
        for what in &damage {
            tell(
                broker,
                EventKind::StoreDamaged {
                    what: (**what).into(),
                },
            );
        }
        let health = Arc::new(Mutex::new(StoreHealth {
            damage,
            commits_read: self.report.commits,
            bytes_read: self.report.part_bytes,
            read_ms: self.read_ms,
            ..StoreHealth::default()
        }));
        let compaction = Arc::new(Compaction {
            rounds: Mutex::new(self.rounds),
            orders: self.core.orders(),
        });
        let began = Instant::now();
        let listener = Listener {
            broker: Arc::clone(broker),
            is_failing: Arc::clone(&is_failing),
            health: Arc::clone(&health),
            compaction: Arc::clone(&compaction),
            answers: broker.posts.iter().map(|_| Vec::new()).collect(),
        };
        let lines = self.submitters.into_iter().map(|submitter| Line {
            submitter,
            is_failing: Arc::clone(&is_failing),
            compaction: Arc::clone(&compaction),
            under_way: 0,
            failed: Vec::new(),
            backlog: VecDeque::new(),
        });
        let lines = lines.collect();
        let committer = Committer::start(self.core, move || began.elapsed(), listener)?;
        Ok(Store {
            _committer: committer,
            health,
            lines,
        })
    }
}

/// A store that is written.
pub(crate) struct Store {
    health: Arc<Mutex<StoreHealth>>,
    /// Its thread; it ends with the value, when all that was handed in is written.
    _committer: Committer<Folder>,
    /// For each shard, in order.
    pub lines: Vec<Line>,
}

impl Store {
    /// How it is.
    pub fn health(&self) -> StoreHealth {
        lock(&self.health).clone()
    }
}

/// Hears the committer, on its thread, and passes everything on.
struct Listener {
    broker: Arc<Broker>,
    is_failing: Arc<AtomicBool>,
    health: Arc<Mutex<StoreHealth>>,
    compaction: Arc<Compaction>,
    /// For each shard, those of this commit.
    answers: Vec<Vec<Answer>>,
}

impl Audience for Listener {
    fn answer(&mut self, answer: Answer) {
        let bytes = answer.place.map_or(0, |place| place.bytes() as u64);
        if self.compaction.wrote(bytes, self.broker.posts.len()) {
            self.broker.post_all(|| Letter::Checkpoint);
        }
        if let Some(answers) = self.answers.get_mut(usize::from(answer.shard)) {
            answers.push(answer);
        }
    }

    fn wake(&mut self, shard: u16) {
        if let Some(answers) = self.answers.get_mut(usize::from(shard)) {
            self.broker.post(shard, Letter::Kept(mem::take(answers)));
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Failing { fault } => {
                self.is_failing.store(true, Ordering::Release);
                let (cause, is_full) = (fault.to_string(), fault.is_full());
                let mut health = lock(&self.health);
                health.failing = Some(cause.clone());
                health.is_full = is_full;
                health.failures += 1;
                drop(health);
                let cause = cause.into_boxed_str();
                tell(&self.broker, EventKind::StoreFailing { cause, is_full });
            }
            Event::Recovered { parts } => {
                self.is_failing.store(false, Ordering::Release);
                let mut health = lock(&self.health);
                health.failing = None;
                health.is_full = false;
                drop(health);
                let batches = parts;
                tell(&self.broker, EventKind::StoreRecovered { batches });
                self.broker.post_all(|| Letter::StoreWorks);
            }
            Event::Retired { .. } | Event::NotRetired { .. } => {}
        }
    }
}

/// Tells of the store, which is of no shard and of no connection.
fn tell(broker: &Broker, kind: EventKind) {
    broker.ring.append(&mut vec![event::Event {
        time_unix_ms: wall_unix_ms(),
        shard: 0,
        listener: None,
        address: None,
        client_id: "".into(),
        principal: "".into(),
        kind,
    }]);
}

/// When everything is written anew, and what may go then.
struct Rounds {
    compact_bytes: u64,
    /// Since the last round ended, or all that there was at the start, bytes.
    written: u64,
    /// What the last round wrote, bytes: about what is kept.
    kept: u64,
    round: Option<Round>,
}

struct Round {
    /// Files that nothing is needed of when it ends.
    segments: Vec<u32>,
    /// Shards that have not done.
    left: usize,
}

/// Rounds, and the way to the one who throws away.
pub(crate) struct Compaction {
    rounds: Mutex<Rounds>,
    orders: Orders<Folder>,
}

impl Compaction {
    /// So much was written; true where every shard is to write everything anew.
    fn wrote(&self, bytes: u64, shards: usize) -> bool {
        let mut rounds = lock(&self.rounds);
        rounds.written += bytes;
        if rounds.round.is_some() || rounds.written < rounds.compact_bytes.max(rounds.kept) {
            return false;
        }
        rounds.written = 0;
        rounds.round = Some(Round {
            segments: self.orders.sealed(),
            left: shards,
        });
        true
    }

    /// One shard has written everything anew, and that is durable.
    fn done(&self) {
        let mut rounds = lock(&self.rounds);
        let Some(mut round) = rounds.round.take() else {
            return;
        };
        round.left -= 1;
        if round.left > 0 {
            rounds.round = Some(round);
            return;
        }
        rounds.kept = std::mem::take(&mut rounds.written);
        self.orders.retire(round.segments);
    }
}

/// Records of one turn.
pub(crate) struct Batch {
    pub seq: u64,
    pub records: Vec<u8>,
}

/// What the engine must hear.
pub(crate) enum News {
    /// All up to this is durable.
    Persisted(u64),
    /// These will not be, oldest first; nothing later is under way.
    Failed(Vec<Batch>),
}

/// One shard's line to the store.
///
/// The engine writes down again what has failed, before anything newer. So nothing is handed in
/// between the first failure and the last answer to what was under way with it; what the engine
/// has given meanwhile has failed with it.
pub(crate) struct Line {
    submitter: Submitter,
    is_failing: Arc<AtomicBool>,
    compaction: Arc<Compaction>,
    under_way: usize,
    /// Failed, while something is still under way.
    failed: Vec<Batch>,
    /// Not handed in: there is no room, or the store does not work.
    backlog: VecDeque<Batch>,
}

impl Line {
    /// Takes what the engine wants kept.
    pub fn take(&mut self, batch: Batch) {
        self.backlog.push_back(batch);
        self.hand_in();
    }

    /// The shard has written everything anew.
    pub fn checkpointed(&self) {
        self.compaction.done();
    }

    /// True while so much waits that nothing more should be read from clients.
    pub fn is_choked(&self) -> bool {
        self.backlog.len() > BACKLOG_MAX
    }

    /// Takes an answer in; says what the engine must hear, if anything.
    pub fn answered(&mut self, answer: Answer) -> Option<News> {
        self.under_way = self.under_way.saturating_sub(1);
        let is_kept = answer.place.is_some();
        if !is_kept {
            self.failed.push(Batch {
                seq: answer.seq,
                records: answer.bytes,
            });
        }
        if !self.failed.is_empty() {
            if self.under_way > 0 {
                return None;
            }
            let mut failed = mem::take(&mut self.failed);
            failed.extend(self.backlog.drain(..));
            self.submitter.go_on();
            return Some(News::Failed(failed));
        }
        self.hand_in();
        Some(News::Persisted(answer.seq))
    }

    /// Hands in what waits, as far as it is taken.
    pub fn hand_in(&mut self) {
        if !self.failed.is_empty() || self.is_failing.load(Ordering::Acquire) {
            return;
        }
        while let Some(Batch { seq, records }) = self.backlog.pop_front() {
            match self.submitter.submit(seq, records) {
                Ok(()) => self.under_way += 1,
                // What is too large, which no turn can be, stays and is never acknowledged.
                Err(
                    Refused::Busy(records) | Refused::Stopped(records) | Refused::TooLarge(records),
                ) => {
                    self.backlog.push_front(Batch { seq, records });
                    return;
                }
            }
        }
    }
}

/// Batches of a shard that may wait before it reads nothing more from its clients.
const BACKLOG_MAX: usize = 64;
