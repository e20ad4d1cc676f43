//! Every order in which threads may go through a mailbox: no letter sleeps unseen, none is kept.
//!
//! The mailbox is the server's own source, compiled with loom's atomics and locks; loom runs each
//! test once for every order of steps that matters, and calls it a deadlock where all wait.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../src/mailbox.rs"]
mod mailbox;

use loom::model::Builder;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::sync::Arc;
use loom::thread;

use mailbox::{Mailbox, Sleep};
use sync::{Bell, Waker};

/// What the mailbox is made of here.
mod sync {
    use std::io;
    use std::sync::PoisonError;

    pub(crate) use loom::sync::atomic::{AtomicU8, Ordering};
    pub(crate) use loom::sync::Mutex;
    use loom::sync::{Arc, Condvar, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A readiness loop with nothing but a waker: a wake-up stays until a poll has seen it.
    #[derive(Default)]
    pub(crate) struct Bell {
        rung: Mutex<bool>,
        changed: Condvar,
    }

    impl Bell {
        /// Polls without a deadline, or without waiting at all.
        pub(crate) fn poll(&self, waits: bool) {
            let mut rung = lock(&self.rung);
            while waits && !*rung {
                rung = self
                    .changed
                    .wait(rung)
                    .unwrap_or_else(PoisonError::into_inner);
            }
            *rung = false;
        }

        pub(crate) fn has_rung(&self) -> bool {
            *lock(&self.rung)
        }
    }

    /// Rings the bell.
    pub(crate) struct Waker(pub(crate) Arc<Bell>);

    impl Waker {
        pub(crate) fn wake(&self) -> io::Result<()> {
            *lock(&self.0.rung) = true;
            self.0.changed.notify_one();
            Ok(())
        }
    }
}

/// Tries every order with at most `preemptions` switches that nobody had to make.
fn every_order(preemptions: usize, test: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(test);
}

/// A mailbox and what its reader polls.
fn mailbox<L>() -> (Arc<Mailbox<L>>, Arc<Bell>) {
    let bell = Arc::new(Bell::default());
    (Arc::new(Mailbox::new(Waker(Arc::clone(&bell)))), bell)
}

/// The loop of a shard's thread, reduced to its letters, until `wanted` of them have come.
fn read<L>(mailbox: &Mailbox<L>, bell: &Bell, how: Sleep, wanted: usize) -> Vec<L> {
    let mut seen = Vec::new();
    while seen.len() < wanted {
        let sleeps = mailbox.may_sleep(how);
        bell.poll(sleeps);
        if sleeps {
            mailbox.awake();
        }
        let mut letters = Vec::new();
        mailbox.swap(&mut letters);
        seen.append(&mut letters);
    }
    seen
}

/// Goal: a reader that sleeps without a deadline gets every letter, once and in the order of
/// each sender. Method: it never polls with a deadline, so that a letter it misses is a deadlock.
fn letters_arrive(senders: usize, letters: usize, preemptions: usize) {
    every_order(preemptions, move || {
        let (mailbox, bell) = mailbox();
        let threads: Vec<_> = (0..senders)
            .map(|sender| {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    for letter in 0..letters {
                        mailbox.post((sender, letter));
                    }
                })
            })
            .collect();
        let seen = read(&mailbox, &bell, Sleep::Light, senders * letters);
        for sender in 0..senders {
            let mine = seen.iter().filter(|(from, _)| *from == sender);
            assert!(mine.map(|(_, letter)| *letter).eq(0..letters), "{seen:?}");
        }
        threads.into_iter().for_each(|it| it.join().unwrap());
    });
}

#[test]
fn no_letter_of_one_sender_sleeps_unseen() {
    letters_arrive(1, 4, 6);
}

#[test]
fn no_letter_of_two_senders_sleeps_unseen() {
    letters_arrive(3, 1, 2);
    letters_arrive(2, 2, 3);
}

/// Goal: who awaits an answer gets it even where it could wait, and who awaits none is still woken
/// by what cannot. Method: as above; the last letter is the only one that may wake a sound sleeper.
#[test]
fn letters_that_can_wait_wake_whoever_waits_and_come_along_with_others() {
    for (how, is_last_urgent) in [(Sleep::Light, false), (Sleep::Sound, true)] {
        every_order(4, move || {
            let (mailbox, bell) = mailbox();
            let sender = {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    mailbox.post_all(&mut vec![0, 1], true);
                    mailbox.post_all(&mut vec![2], !is_last_urgent);
                })
            };
            let seen = read(&mailbox, &bell, how, 3);
            assert_eq!(seen, [0, 1, 2]);
            sender.join().unwrap();
        });
    }
}

/// Goal: what can wait costs a sound sleeper nothing. Method: it sleeps before the letter comes.
#[test]
fn letters_that_can_wait_ring_no_bell_of_a_sound_sleeper() {
    every_order(4, || {
        let (mailbox, bell) = mailbox();
        assert!(mailbox.may_sleep(Sleep::Sound));
        let sender = {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || mailbox.post_all(&mut vec![7], true))
        };
        sender.join().unwrap();
        assert!(!bell.has_rung());
        assert!(!mailbox.may_sleep(Sleep::Sound), "the letter is there");
        assert_eq!(read(&mailbox, &bell, Sleep::Light, 1), [7]);
    });
}

/// Goal: a letter that comes while the mailbox closes is neither read nor kept. Method: letters
/// hold an `Arc`; whichever came in time, none of its copies may be left in the end.
#[test]
fn no_letter_outlives_its_mailbox() {
    every_order(4, || {
        let (mailbox, _bell) = mailbox();
        let paper = Arc::new(());
        let sender = {
            let (mailbox, paper) = (Arc::clone(&mailbox), Arc::clone(&paper));
            thread::spawn(move || {
                mailbox.post(Arc::clone(&paper));
                mailbox.post_all(&mut vec![paper], false);
            })
        };
        let mut letters = Vec::new();
        mailbox.swap(&mut letters);
        mailbox.close();
        letters.clear();
        sender.join().unwrap();
        mailbox.swap(&mut letters);
        assert!(letters.is_empty(), "a closed mailbox took a letter");
        assert_eq!(Arc::strong_count(&paper), 1, "a letter was kept");
    });
}

/// Goal: the model would notice a mailbox that is wrong. Method: a reader that says that it sleeps
/// only after it has looked; in some order a letter comes between the two and rings no bell.
#[test]
fn a_reader_that_looks_before_it_says_that_it_sleeps_is_found_out() {
    let missed = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let noted = std::sync::Arc::clone(&missed);
    every_order(4, move || {
        let bell = Arc::new(Bell::default());
        let asleep = Arc::new(AtomicBool::new(false));
        let letter = Arc::new(AtomicBool::new(false));
        let waker = Waker(Arc::clone(&bell));
        let sender = {
            let (asleep, letter) = (Arc::clone(&asleep), Arc::clone(&letter));
            thread::spawn(move || {
                letter.store(true, Ordering::SeqCst);
                if asleep.swap(false, Ordering::SeqCst) {
                    waker.wake().unwrap();
                }
            })
        };
        let sleeps = !letter.load(Ordering::SeqCst);
        if sleeps {
            asleep.store(true, Ordering::SeqCst);
        }
        sender.join().unwrap();
        if sleeps && !bell.has_rung() {
            noted.store(true, Ordering::SeqCst);
        }
    });
    assert!(missed.load(Ordering::SeqCst));
}
