//! A mailbox: letters from any thread for one reader, who sleeps and misses none.
//!
//! `tests/mailbox.rs` compiles this file once more, with a `sync` of loom's, and tries every order
//! in which threads may go through it.

use crate::sync::{lock, AtomicU8, Mutex, Ordering, Waker};

/// What [`Mailbox::asleep`] says of its reader.
const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const SOUND: u8 = 2;

/// How a reader sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    /// Any letter wakes it.
    Light,
    /// Letters that can wait do not: it waits for none of them.
    Sound,
}

/// Letters, and whether their reader sleeps.
pub(crate) struct Mailbox<L> {
    letters: Mutex<Letters<L>>,
    /// Only ever swapped, never stored: so its changes have one order, in which each sees the last
    /// one before it. It costs the same, and loom can follow it.
    asleep: AtomicU8,
    waker: Waker,
}

struct Letters<L> {
    letters: Vec<L>,
    closed: bool,
}

impl<L> Mailbox<L> {
    /// An empty mailbox that wakes its reader by `waker`.
    pub fn new(waker: Waker) -> Mailbox<L> {
        Mailbox {
            letters: Mutex::new(Letters {
                letters: Vec::new(),
                closed: false,
            }),
            asleep: AtomicU8::new(AWAKE),
            waker,
        }
    }

    /// Puts a letter in and wakes the reader if it sleeps. A reader that has ended drops it.
    pub fn post(&self, letter: L) {
        let mut letters = lock(&self.letters);
        if letters.closed {
            // What is dropped may be a connection; closing it needs no lock.
            drop(letters);
            return;
        }
        letters.letters.push(letter);
        drop(letters);
        self.wake(true);
    }

    /// Puts all of `post` in at once, in order, and wakes the reader once if it sleeps; where they
    /// can wait, one that sleeps soundly finds them when it wakes for something else.
    pub fn post_all(&self, post: &mut Vec<L>, can_wait: bool) {
        let mut letters = lock(&self.letters);
        if letters.closed {
            drop(letters);
            post.clear();
            return;
        }
        letters.letters.append(post);
        drop(letters);
        self.wake(!can_wait);
    }

    fn wake(&self, is_urgent: bool) {
        let (order, failed) = (Ordering::SeqCst, Ordering::SeqCst);
        let slept = match is_urgent {
            true => self.asleep.swap(AWAKE, order) != AWAKE,
            false => {
                let changed = self.asleep.compare_exchange(ASLEEP, AWAKE, order, failed);
                changed.is_ok()
            }
        };
        if slept {
            // A waker fails only where its queue is full of wake-ups or gone; a reader that
            // misses one still wakes at its next deadline, at the latest after a second.
            let _ = self.waker.wake();
        }
    }

    /// Says that the reader is about to sleep; false where it must not, as there are letters.
    pub fn may_sleep(&self, how: Sleep) -> bool {
        let state = match how {
            Sleep::Light => ASLEEP,
            Sleep::Sound => SOUND,
        };
        // Said before looking: who posts after the look finds a sleeper and wakes it.
        self.asleep.swap(state, Ordering::SeqCst);
        if lock(&self.letters).letters.is_empty() {
            return true;
        }
        self.awake();
        false
    }

    /// Says that the reader is awake.
    pub fn awake(&self) {
        self.asleep.swap(AWAKE, Ordering::SeqCst);
    }

    /// Swaps the letters into `into`, which is empty.
    pub fn swap(&self, into: &mut Vec<L>) {
        std::mem::swap(&mut lock(&self.letters).letters, into);
    }

    /// Takes no more letters and drops those that are there.
    pub fn close(&self) {
        let mut letters = lock(&self.letters);
        letters.closed = true;
        let dropped = std::mem::take(&mut letters.letters);
        drop(letters);
        drop(dropped);
    }
}
