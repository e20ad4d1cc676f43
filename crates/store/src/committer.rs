//! Group commit: what all shards hand in while the disk is busy is the next commit.
//!
//! [`Core`] decides, one step at a time, and knows neither threads nor clocks, so that a simulator
//! can drive it; [`Committer`] is the thread around it, which owns the log.
//!
//! Under load a commit that begins at once gets what has come during the last one and no more, or
//! the first that comes after it alone, and each costs a sync and wakes the shards. So after a
//! commit that carried much, or during which much came, the next one gathers for a moment
//! ([`Pace::gather`]). Who submits little and waits for the answer never meets that.
//!
//! Where a commit fails, on a full disk above all, everything under way fails with it and is
//! answered so, as is all that comes in until the disk works again. That is tried after a pause,
//! which doubles up to a limit, and at once where a segment was retired.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::basket::{Basket, Order, Submitted, Submitter};
use crate::disk::Disk;
use crate::error::StoreError;
use crate::log::Log;
use crate::part::{part_bytes, Part, Place, PART_BYTES_MAX};
use crate::reader::Reader;
use crate::seal::Key;
use crate::shelf::Shelf;

/// How a committer gathers.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Shards, numbered from 0.
    pub shards: u16,
    /// What each shard may have under way, bytes; 64 more count for each part.
    pub shard_bytes_max: usize,
    /// A commit gets no further part that would make it larger, bytes: it bounds what must be read
    /// to get at a single part. A larger part has a commit of its own.
    pub commit_bytes_max: usize,
    /// After a commit of [`Pace::gather_bytes_min`], or during which as much came, the next one
    /// does not begin before it is so long since that one began; zero to never wait.
    pub gather: Duration,
    /// Less than this is no reason to gather, bytes.
    pub gather_bytes_min: usize,
    /// The first pause after a failure; it doubles with each further one.
    pub pause_min: Duration,
    /// The longest pause.
    pub pause_max: Duration,
    /// With less room than this a disk that failed is not tried again, bytes.
    pub free_bytes_min: u64,
}

impl Default for Pace {
    /// One shard with 16 MiB, commits of 1 MiB, which gather for 150 µs where they carry 16 KiB,
    /// pauses of 50 ms to 5 s, 16 MiB of room.
    fn default() -> Pace {
        Pace {
            shards: 1,
            shard_bytes_max: 16 * 1024 * 1024,
            commit_bytes_max: 1024 * 1024,
            gather: Duration::from_micros(150),
            gather_bytes_min: 16 * 1024,
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
            free_bytes_min: 16 * 1024 * 1024,
        }
    }
}

/// What became of one part. A shard's answers come in the order in which it submitted.
#[derive(Debug)]
pub struct Answer {
    /// Whose.
    pub shard: u16,
    /// As it was submitted; all before it is answered.
    pub seq: u64,
    /// Where it is, now that it is safe; nothing where it failed. What failed is not found after a
    /// start, unless that start comes before [`Event::Recovered`].
    pub place: Option<Place>,
    /// The buffer that was submitted, as it was, for use again.
    pub bytes: Vec<u8>,
}

/// Something that an operator should hear of.
#[derive(Debug)]
pub enum Event {
    /// Nothing is kept any more: told once, when it begins.
    Failing {
        /// Why.
        fault: StoreError,
    },
    /// All is kept again.
    Recovered {
        /// Parts that failed meanwhile.
        parts: u64,
    },
    /// A segment was retired.
    Retired {
        /// Its serial.
        segment: u32,
    },
    /// A segment could not be retired; it may be ordered again.
    NotRetired {
        /// Its serial.
        segment: u32,
        /// Why.
        fault: StoreError,
    },
}

/// Who is told; on the committer's thread, so that none of it may wait.
pub trait Audience {
    /// Takes one answer.
    fn answer(&mut self, answer: Answer);

    /// The answers of one commit were given: this shard should look at its own.
    fn wake(&mut self, shard: u16);

    /// Takes an event.
    fn tell(&mut self, event: Event);
}

/// When there is something to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Now.
    Now,
    /// When something is handed in.
    News,
    /// When something is handed in, and at the latest at this time.
    At(Duration),
    /// At this time, whatever is handed in before; it is at most [`Pace::gather`] away.
    Later(Duration),
    /// Never again: all is answered, and nothing more is taken.
    Ended,
}

/// The committer without its thread.
pub struct Core<D: Disk> {
    log: Log<D>,
    pace: Pace,
    basket: Arc<Basket>,
    /// What was taken out of the basket; its room is used again.
    taken: Vec<Submitted>,
    pending: VecDeque<Submitted>,
    shards: Vec<ShardState>,
    failing: Option<Failing>,
    /// When the last commit began and how large it was, until it is known what has come meanwhile.
    last: Option<(Duration, usize)>,
    /// The next commit gathers until then.
    gathers_until: Option<Duration>,
    places: Vec<Place>,
}

#[derive(Clone, Default)]
struct ShardState {
    /// Of the last part that failed; what has the same epoch fails too.
    failed: Option<u64>,
    has_news: bool,
}

struct Failing {
    /// When the disk is tried again, and how long the pause before was.
    at: Duration,
    pause: Duration,
    /// Parts that failed.
    parts: u64,
}

impl<D: Disk> Core<D> {
    /// The owner of a log from now on, and the way of each shard to it, in order.
    pub fn new(log: Log<D>, mut pace: Pace) -> (Core<D>, Vec<Submitter>) {
        pace.commit_bytes_max = pace.commit_bytes_max.min(PART_BYTES_MAX);
        let basket = Basket::new(pace.shards);
        let way = |shard| Submitter::new(Arc::clone(&basket), shard, pace.shard_bytes_max);
        let submitters = (0..pace.shards).map(way).collect();
        let core = Core {
            log,
            pace,
            basket,
            taken: Vec::new(),
            pending: VecDeque::new(),
            shards: vec![ShardState::default(); usize::from(pace.shards)],
            failing: None,
            last: None,
            gathers_until: None,
            places: Vec::new(),
        };
        (core, submitters)
    }

    /// The orders that its owner may give.
    pub fn orders(&self) -> Orders<D> {
        Orders {
            basket: Arc::clone(&self.basket),
            shelf: Arc::clone(self.log.shelf()),
        }
    }

    /// As [`Log::settle`], before the first step.
    ///
    /// # Errors
    /// As there.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.log.settle()
    }

    /// The log, given back.
    pub fn into_log(self) -> Log<D> {
        self.log
    }

    /// Does one thing: at most one order and one commit. `now` never goes back.
    pub fn step(&mut self, now: Duration, audience: &mut impl Audience) -> Next {
        let has_obeyed = self.obey(now, audience);
        let is_closed = self.take(audience);
        let gathers_until = self.gathers_until(now).filter(|_| !is_closed);
        if let (Some(time), false) = (gathers_until, has_obeyed) {
            return Next::Later(time);
        }
        if self.failing.is_some() {
            self.try_again(now, audience);
        } else if !self.pending.is_empty() {
            self.commit(now, audience);
        }
        if has_obeyed || !self.pending.is_empty() {
            return Next::Now;
        }
        match &self.failing {
            _ if is_closed => Next::Ended,
            None => Next::News,
            Some(failing) => Next::At(failing.at),
        }
    }

    /// Carries out one order; false where there is none.
    fn obey(&mut self, now: Duration, audience: &mut impl Audience) -> bool {
        match self.basket.next_order() {
            None => return false,
            Some(Order::Rotate(key)) => self.log.rotate(key),
            Some(Order::Retire(segment)) => match self.log.retire(&[segment]) {
                Ok(0) => {}
                Ok(_) => {
                    audience.tell(Event::Retired { segment });
                    if let Some(failing) = &mut self.failing {
                        failing.at = now;
                    }
                }
                Err(fault) => audience.tell(Event::NotRetired { segment, fault }),
            },
        }
        true
    }

    /// Takes what was handed in; says whether there will be no more.
    fn take(&mut self, audience: &mut impl Audience) -> bool {
        let is_closed = self.basket.take(&mut self.taken);
        let mut taken = mem::take(&mut self.taken);
        for part in taken.drain(..) {
            let shard = self.shards.get(usize::from(part.shard));
            let builds_on_failure = shard.is_some_and(|shard| shard.failed == Some(part.epoch));
            match builds_on_failure || self.failing.is_some() {
                true => self.fail(part, audience),
                false => self.pending.push_back(part),
            }
        }
        self.taken = taken;
        self.wake(audience);
        is_closed
    }

    /// Until when the next commit gathers, if it does now.
    fn gathers_until(&mut self, now: Duration) -> Option<Duration> {
        if let Some((began, carried)) = self.last.take() {
            let bytes = self.pending.iter().map(|part| part_bytes(part.bytes.len()));
            let bytes: usize = bytes.sum();
            // A full one has nothing to wait for.
            let is_load = carried.max(bytes) >= self.pace.gather_bytes_min;
            let is_worth_it = is_load && bytes < self.pace.commit_bytes_max;
            self.gathers_until = is_worth_it.then(|| began.saturating_add(self.pace.gather));
        }
        self.gathers_until = self.gathers_until.filter(|time| now < *time);
        self.gathers_until.filter(|_| !self.pending.is_empty())
    }

    /// Makes one commit of what is pending.
    fn commit(&mut self, now: Duration, audience: &mut impl Audience) {
        let mut bytes = 0;
        let is_in = |part: &&Submitted| {
            let is_first = bytes == 0;
            bytes += part_bytes(part.bytes.len());
            is_first || bytes <= self.pace.commit_bytes_max
        };
        let count = self.pending.iter().take_while(is_in).count();
        let parts = self.pending.iter().take(count).map(|part| Part {
            shard: part.shard,
            seq: part.seq,
            bytes: &part.bytes,
        });
        self.places.clear();
        let carried: usize = parts.clone().map(|part| part_bytes(part.bytes.len())).sum();
        match self.log.commit(parts, &mut self.places) {
            Ok(_) => {
                self.last = Some((now, carried));
                let places = mem::take(&mut self.places);
                for (part, place) in self.pending.drain(..count).zip(&places) {
                    answer(&self.basket, &mut self.shards, part, Some(*place), audience);
                }
                self.places = places;
            }
            Err(fault) => {
                self.failing = Some(Failing {
                    at: now.saturating_add(self.pace.pause_min),
                    pause: self.pace.pause_min,
                    parts: 0,
                });
                audience.tell(Event::Failing { fault });
                for part in mem::take(&mut self.pending) {
                    self.fail(part, audience);
                }
            }
        }
        self.wake(audience);
    }

    /// Tries the disk again, where its time has come.
    fn try_again(&mut self, now: Duration, audience: &mut impl Audience) {
        let Some(failing) = &mut self.failing else {
            return;
        };
        if now < failing.at {
            return;
        }
        let free = self.log.free_bytes();
        let has_room = free.is_none_or(|free| free >= self.pace.free_bytes_min);
        // A commit without parts takes the number of the one that failed, which makes void what
        // the disk may still hold of it.
        if has_room && self.log.commit([], &mut self.places).is_ok() {
            audience.tell(Event::Recovered {
                parts: failing.parts,
            });
            self.failing = None;
            return;
        }
        failing.pause = failing.pause.saturating_mul(2).min(self.pace.pause_max);
        failing.at = now.saturating_add(failing.pause);
    }

    fn fail(&mut self, part: Submitted, audience: &mut impl Audience) {
        if let Some(shard) = self.shards.get_mut(usize::from(part.shard)) {
            shard.failed = Some(part.epoch);
        }
        if let Some(failing) = &mut self.failing {
            failing.parts += 1;
        }
        answer(&self.basket, &mut self.shards, part, None, audience);
    }

    fn wake(&mut self, audience: &mut impl Audience) {
        for (shard, state) in (0..).zip(&mut self.shards) {
            if mem::take(&mut state.has_news) {
                audience.wake(shard);
            }
        }
    }
}

fn answer(
    basket: &Basket,
    shards: &mut [ShardState],
    part: Submitted,
    place: Option<Place>,
    audience: &mut impl Audience,
) {
    // Before the answer: whoever hears it finds room.
    basket.give_room(part.shard, part.bytes.len());
    if let Some(shard) = shards.get_mut(usize::from(part.shard)) {
        shard.has_news = true;
    }
    audience.answer(Answer {
        shard: part.shard,
        seq: part.seq,
        place,
        bytes: part.bytes,
    });
}

/// What may be asked of a log that a committer owns, from any thread and without waiting.
pub struct Orders<D: Disk> {
    basket: Arc<Basket>,
    shelf: Arc<Shelf<D>>,
}

impl<D: Disk> Clone for Orders<D> {
    fn clone(&self) -> Orders<D> {
        Orders {
            basket: Arc::clone(&self.basket),
            shelf: Arc::clone(&self.shelf),
        }
    }
}

impl<D: Disk> Orders<D> {
    /// Retires segments, one between two commits; [`Event`] tells of each. As [`Log::retire`].
    pub fn retire(&self, segments: impl IntoIterator<Item = u32>) {
        self.basket.order(segments.into_iter().map(Order::Retire));
    }

    /// As [`Log::rotate`].
    pub fn rotate(&self, key: Option<Key>) {
        self.basket.order([Order::Rotate(key)]);
    }

    /// The segments that get no further commit, oldest first: those that may be retired.
    pub fn sealed(&self) -> Vec<u32> {
        self.shelf.sealed()
    }

    /// As [`Log::reader`].
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shelf))
    }

    /// Takes nothing more; what was taken is still answered.
    pub fn close(&self) {
        self.basket.close();
    }
}

/// The thread that owns a log.
pub struct Committer<D: Disk> {
    orders: Orders<D>,
    thread: Option<thread::JoinHandle<Log<D>>>,
}

impl<D: Disk + Send + Sync + 'static> Committer<D>
where
    D::File: Send,
{
    /// Begins to commit. `clock` is monotonic.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(
        mut core: Core<D>,
        clock: impl Fn() -> Duration + Send + 'static,
        mut audience: impl Audience + Send + 'static,
    ) -> io::Result<Committer<D>> {
        let orders = core.orders();
        let basket = Arc::clone(&core.basket);
        let work = move || {
            // Whatever ends this thread, nobody submits into the void.
            let _closed = CloseAtEnd(Arc::clone(&basket));
            loop {
                let now = clock();
                match core.step(now, &mut audience) {
                    Next::Now => {}
                    Next::News => basket.wait(None),
                    Next::At(time) => basket.wait(Some(time.saturating_sub(clock()))),
                    Next::Later(time) => basket.gather(time.saturating_sub(clock())),
                    Next::Ended => return core.into_log(),
                }
            }
        };
        let thread = thread::Builder::new()
            .name("committer".into())
            .spawn(work)?;
        Ok(Committer {
            orders,
            thread: Some(thread),
        })
    }

    /// What may be asked of it.
    pub fn orders(&self) -> &Orders<D> {
        &self.orders
    }

    /// Takes nothing more, answers all that was taken, and gives the log back; nothing where the
    /// audience has panicked.
    pub fn stop(mut self) -> Option<Log<D>> {
        self.orders.close();
        self.thread.take()?.join().ok()
    }
}

impl<D: Disk> Drop for Committer<D> {
    /// As [`Committer::stop`], which has left nothing to do.
    fn drop(&mut self) {
        self.orders.close();
        if let Some(thread) = self.thread.take() {
            // A panic in the audience was its own to tell.
            let _ = thread.join();
        }
    }
}

struct CloseAtEnd(Arc<Basket>);

impl Drop for CloseAtEnd {
    fn drop(&mut self) {
        self.0.close();
    }
}
