//! When a shard must be woken: deadlines of connections and sessions.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::door::{ConnectionId, Millis};
use crate::session::SessionRef;

/// Whose deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Connection(ConnectionId),
    Session(SessionRef),
}

/// Deadlines, earliest first. An entry is only a reason to look: the owner says what is due, and
/// arms the next one, so that moving a deadline back (at every packet) costs nothing.
#[derive(Default)]
pub(crate) struct Timers(BinaryHeap<Reverse<(Millis, Timer)>>);

impl Timers {
    pub fn arm(&mut self, at: Millis, timer: Timer) {
        self.0.push(Reverse((at, timer)));
    }

    pub fn next(&self) -> Option<Millis> {
        self.0.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes one timer that is due.
    pub fn pop_due(&mut self, now: Millis) -> Option<(Millis, Timer)> {
        let Reverse((at, _)) = self.0.peek()?;
        if *at > now {
            return None;
        }
        self.0.pop().map(|Reverse(entry)| entry)
    }
}
