//! What shards hand in while the disk is busy, bounded for each of them.
//!
//! A shard never waits here: it puts its buffer in, or is told at once why not. The bound is its
//! own, so that one that floods is held back alone, and room comes back with its own answers.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::part::PART_BYTES_MAX;
use crate::seal::Key;

/// What a part counts for beside its bytes, so that empty ones are bounded too.
const PART_COST: usize = 64;

/// Why a part was not taken; it comes back.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// The shard has as much under way as it may: again after its next answer.
    Busy(Vec<u8>),
    /// It is larger than a commit can be.
    TooLarge(Vec<u8>),
    /// The committer has ended.
    Stopped(Vec<u8>),
}

/// A part on its way to the disk.
pub(crate) struct Submitted {
    pub shard: u16,
    pub seq: u64,
    /// How many failures the shard had heard of.
    pub epoch: u64,
    pub bytes: Vec<u8>,
}

/// Something else to do for the owner of the log.
pub(crate) enum Order {
    Retire(u32),
    Rotate(Option<Key>),
}

#[derive(Default)]
struct Gathered {
    parts: Vec<Submitted>,
    orders: VecDeque<Order>,
    is_closed: bool,
    sleep: Sleep,
}

/// How the committer sleeps: only where somebody has to wake it does that cost a system call.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Sleep {
    #[default]
    Awake,
    /// Anything wakes it.
    Light,
    /// Parts do not.
    Sound,
}

impl Gathered {
    /// There is something that no gathering delays.
    fn is_urgent(&self) -> bool {
        !self.orders.is_empty() || self.is_closed
    }
}

/// Where parts and orders wait.
pub(crate) struct Basket {
    gathered: Mutex<Gathered>,
    news: Condvar,
    /// What each shard has under way: bytes and [`PART_COST`] for each part.
    under_way: Vec<AtomicUsize>,
}

impl Basket {
    pub fn new(shards: u16) -> Arc<Basket> {
        Arc::new(Basket {
            gathered: Mutex::default(),
            news: Condvar::new(),
            under_way: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
        })
    }

    /// Moves all parts behind those in `parts`, and says whether there will be no more.
    pub fn take(&self, parts: &mut Vec<Submitted>) -> bool {
        let mut gathered = self.locked();
        match parts.is_empty() {
            true => mem::swap(&mut gathered.parts, parts),
            false => parts.append(&mut gathered.parts),
        }
        gathered.is_closed
    }

    pub fn order(&self, orders: impl IntoIterator<Item = Order>) {
        let mut gathered = self.locked();
        gathered.orders.extend(orders);
        self.wake(gathered, &[Sleep::Light, Sleep::Sound]);
    }

    pub fn next_order(&self) -> Option<Order> {
        self.locked().orders.pop_front()
    }

    /// From now on nothing is taken any more.
    pub fn close(&self) {
        let mut gathered = self.locked();
        gathered.is_closed = true;
        self.wake(gathered, &[Sleep::Light, Sleep::Sound]);
    }

    /// A part of so many bytes is no longer under way.
    pub fn give_room(&self, shard: u16, bytes: usize) {
        if let Some(under_way) = self.under_way.get(usize::from(shard)) {
            under_way.fetch_sub(bytes + PART_COST, Ordering::Release);
        }
    }

    /// Sleeps until there is something to do, at most so long.
    pub fn wait(&self, at_most: Option<Duration>) {
        let mut gathered = self.locked();
        if gathered.parts.is_empty() && !gathered.is_urgent() {
            gathered.sleep = Sleep::Light;
            let news = &self.news;
            gathered = match at_most {
                None => news.wait(gathered).unwrap_or_else(PoisonError::into_inner),
                Some(time) => {
                    let woken = news.wait_timeout(gathered, time);
                    woken.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            gathered.sleep = Sleep::Awake;
        }
    }

    /// Sleeps for so long, whatever parts come; an order and the end are heard at once.
    pub fn gather(&self, time: Duration) {
        let mut gathered = self.locked();
        if !gathered.is_urgent() {
            gathered.sleep = Sleep::Sound;
            let woken = self.news.wait_timeout(gathered, time);
            gathered = woken.unwrap_or_else(PoisonError::into_inner).0;
            gathered.sleep = Sleep::Awake;
        }
    }

    /// Wakes the committer, unless it sleeps sounder than that.
    fn wake(&self, mut gathered: MutexGuard<'_, Gathered>, sleeps: &[Sleep]) {
        let wakes = sleeps.contains(&gathered.sleep);
        if wakes {
            gathered.sleep = Sleep::Awake;
        }
        drop(gathered);
        if wakes {
            self.news.notify_one();
        }
    }

    fn locked(&self) -> MutexGuard<'_, Gathered> {
        // Whole after each of these statements, whoever panicked.
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard's way to the disk.
pub struct Submitter {
    basket: Arc<Basket>,
    shard: u16,
    bytes_max: usize,
    epoch: u64,
}

impl Submitter {
    /// The only one for this shard.
    pub(crate) fn new(basket: Arc<Basket>, shard: u16, bytes_max: usize) -> Submitter {
        Submitter {
            basket,
            shard,
            bytes_max,
            epoch: 0,
        }
    }

    /// Hands in what the shard wants kept, and returns at once; the answer comes to the audience,
    /// with the buffer. `seq` grows.
    ///
    /// # Errors
    /// [`Refused`], with the buffer.
    pub fn submit(&mut self, seq: u64, bytes: Vec<u8>) -> Result<(), Refused> {
        if bytes.len() > PART_BYTES_MAX {
            return Err(Refused::TooLarge(bytes));
        }
        let Some(under_way) = self.basket.under_way.get(usize::from(self.shard)) else {
            return Err(Refused::Stopped(bytes));
        };
        // Only this thread adds, so that what is there now can but shrink.
        let before = under_way.load(Ordering::Acquire);
        let cost = bytes.len() + PART_COST;
        // One larger than the bound goes when it goes alone: it could never go otherwise.
        if before > 0 && before + cost > self.bytes_max {
            return Err(Refused::Busy(bytes));
        }
        let mut gathered = self.basket.locked();
        if gathered.is_closed {
            return Err(Refused::Stopped(bytes));
        }
        under_way.fetch_add(cost, Ordering::Relaxed);
        gathered.parts.push(Submitted {
            shard: self.shard,
            seq,
            epoch: self.epoch,
            bytes,
        });
        self.basket.wake(gathered, &[Sleep::Light]);
        Ok(())
    }

    /// Says that the shard has heard that something of its own failed, and that what it submits
    /// from now on does not build on it. Until then all that it submits fails, so that what it
    /// finds after a start is never missing something in between.
    pub fn go_on(&mut self) {
        self.epoch += 1;
    }
}
