//! Takes back the sessions of a run that would outlive it: each client connects once more, anew.

use std::time::Duration;

use crate::connection::Role;
use crate::ledger::Ledger;
use crate::phases::{nanoseconds, WATCH_NS};
use crate::pool::Pool;
use crate::report::{Moment, Watcher};
use crate::Plan;

const SLEEP: Duration = Duration::from_millis(20);
/// Who has ended the run, or seen it fail, does not wait longer than this for what comes after it.
const HURRIED_MAX: Duration = Duration::from_secs(5);

/// Sessions that the broker may have kept.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// How many.
    pub count: u64,
    /// What was wrong with the first of them.
    pub first_failure: Option<String>,
}

/// Ends all connections, and discards the sessions that the ledger knows, some at a time.
///
/// Only those that began in this run: what somebody else has left under the same name stays. It
/// takes at most `setup_max`, and less where `hurried`; the watcher can end it.
pub(crate) fn discard(
    plan: &Plan,
    pool: &mut Pool,
    books: &mut Ledger,
    watcher: &mut dyn Watcher,
    hurried: bool,
) -> Left {
    pool.leave(books.now_ns());
    pool.ended().for_each(drop);
    let sessions = std::mem::take(&mut books.sessions);
    if plan.lasting.is_none_or(|lasting| lasting.left_behind) || sessions.is_empty() {
        return Left::default();
    }
    let places = plan.connecting_max.min(sessions.len());
    Discard {
        plan,
        pool,
        books,
        remaining: sessions,
        free: (0..places).collect(),
        left: Left::default(),
    }
    .carry_out(watcher, hurried)
}

struct Discard<'a> {
    plan: &'a Plan,
    pool: &'a mut Pool,
    books: &'a mut Ledger,
    /// Clients that did not connect again yet.
    remaining: Vec<u64>,
    /// Places without a connection.
    free: Vec<usize>,
    left: Left,
}

impl Discard<'_> {
    fn carry_out(mut self, watcher: &mut dyn Watcher, hurried: bool) -> Left {
        let places = self.free.len();
        let patience = match hurried {
            true => self.plan.setup_max.min(HURRIED_MAX),
            false => self.plan.setup_max,
        };
        let from_ns = self.books.now_ns();
        let mut watched_ns = from_ns;
        loop {
            self.begin();
            if self.free.len() == places {
                return self.left;
            }
            if let Err(error) = self.pool.turn(self.books, SLEEP) {
                self.give_up(&error.to_string());
            }
            let now_ns = self.books.now_ns();
            if now_ns - from_ns > nanoseconds(patience) {
                self.give_up("there was no more time for it");
            }
            if now_ns - watched_ns >= WATCH_NS {
                watched_ns = now_ns;
                let heard = watcher.watch(Moment::Discarding, &self.books.standing);
                // Who has ended the run before has not asked for an end of this as well.
                if heard.is_break() && !hurried {
                    self.give_up("the run was ended before");
                }
            }
            for ended in self.pool.ended() {
                self.free.push(ended.place);
                if let Some(fault) = ended.fault {
                    self.left.note(&fault.to_string());
                }
            }
        }
    }

    /// Lets as many connect as there is room for.
    fn begin(&mut self) {
        while let Some(place) = self.free.pop() {
            let Some(number) = self.remaining.pop() else {
                self.free.push(place);
                return;
            };
            let now_ns = self.books.now_ns();
            let role = Role::Storm;
            let opened = self.pool.open(self.plan, place, number, role, &[], now_ns);
            if let Err(error) = opened {
                self.free.push(place);
                self.left.note(&error.to_string());
            }
        }
    }

    /// Begins nothing more, and ends what is under way as if it had failed.
    fn give_up(&mut self, reason: &str) {
        for _ in self.remaining.drain(..) {
            self.left.note(reason);
        }
        self.pool.expire(u64::MAX);
    }
}

impl Left {
    fn note(&mut self, reason: &str) {
        self.count += 1;
        self.first_failure
            .get_or_insert_with(|| format!("a session may have stayed: {reason}"));
    }
}
