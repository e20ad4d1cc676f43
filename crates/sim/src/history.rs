//! History: what happened in a run, told in words when somebody wants to read it.

use std::collections::VecDeque;
use std::fmt;

use casemate_engine::Millis;

/// How much of a history is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Nothing: the way to run many seeds; a failing one is run again to be told.
    Nothing,
    /// The last so many events.
    Last(usize),
}

/// A list of events in virtual time.
#[derive(Debug)]
pub struct History {
    keep: Keep,
    lines: VecDeque<String>,
}

impl History {
    /// An empty history.
    pub fn new(keep: Keep) -> History {
        History {
            keep,
            lines: VecDeque::new(),
        }
    }

    /// Adds an event; the words are only made where they are kept.
    pub fn note(&mut self, now: Millis, words: impl FnOnce() -> String) {
        let Keep::Last(most) = self.keep else {
            return;
        };
        if self.lines.len() >= most {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{now:>8} ms  {}", words()));
    }

    /// What was kept, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().map(String::as_str)
    }
}

/// Which promise of the broker a run saw broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // Each variant is described by `words`.
pub enum Invariant {
    Order,
    Loss,
    Duplicate,
    Stranger,
    Denied,
    Integrity,
    Protocol,
    Window,
    Retained,
    Will,
    Share,
    Session,
    Durability,
    Journal,
    Door,
    Bound,
    Deadline,
    Deadlock,
    Counters,
    Expiry,
    Panic,
}

impl Invariant {
    /// The invariant's short name, as fault files and reports spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Invariant::Order => "order",
            Invariant::Loss => "loss",
            Invariant::Duplicate => "duplicate",
            Invariant::Stranger => "stranger",
            Invariant::Denied => "denied",
            Invariant::Integrity => "integrity",
            Invariant::Protocol => "protocol",
            Invariant::Window => "window",
            Invariant::Retained => "retained",
            Invariant::Will => "will",
            Invariant::Share => "share",
            Invariant::Session => "session",
            Invariant::Durability => "durability",
            Invariant::Journal => "journal",
            Invariant::Door => "door",
            Invariant::Bound => "bound",
            Invariant::Deadline => "deadline",
            Invariant::Deadlock => "deadlock",
            Invariant::Counters => "counters",
            Invariant::Expiry => "expiry",
            Invariant::Panic => "panic",
        }
    }

    /// The invariant in a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Invariant::Order => "messages of one publisher, topic and QoS arrive in their order",
            Invariant::Loss => "an accepted message reaches every session that must have it",
            Invariant::Duplicate => "no message arrives more often than its QoS allows",
            Invariant::Stranger => "a message goes only where a subscription asks for it",
            Invariant::Denied => "nobody sends or receives what the policy denies",
            Invariant::Integrity => "topic, payload, properties, QoS and flags arrive unaltered",
            Invariant::Protocol => "the broker never violates the protocol",
            Invariant::Window => "a client's limits are kept: receive maximum, size, aliases, ids",
            Invariant::Retained => "the retained store holds the newest value and replays it once",
            Invariant::Will => "a will is published exactly when it must be",
            Invariant::Share => "a message goes to exactly one member of a share group",
            Invariant::Session => "a session is present exactly while it lives, for its owner",
            Invariant::Durability => "nothing is acknowledged before it is durable",
            Invariant::Journal => "what is written down amounts to what is held",
            Invariant::Door => "the engine keeps the promises of its own door",
            Invariant::Bound => "every queue and pipe keeps its bound",
            Invariant::Deadline => "deadlines close connections in time, and not before",
            Invariant::Deadlock => "with a healed network every pending exchange completes",
            Invariant::Counters => "the counters tell the truth",
            Invariant::Expiry => "an expired message is not delivered, and time left is told",
            Invariant::Panic => "the engine never panics",
        }
    }
}

/// A broken promise, with what was seen.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// What was seen.
    pub words: String,
}

impl Violation {
    /// A violation, ready to be returned as an error.
    pub fn new(invariant: Invariant, words: impl Into<String>) -> Violation {
        Violation {
            invariant,
            words: words.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}): {}",
            self.invariant.name(),
            self.invariant.words(),
            self.words
        )
    }
}

/// Returns a violation unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $invariant:ident, $($words:tt)+) => {
        if !$condition {
            return Err($crate::history::Violation::new(
                $crate::history::Invariant::$invariant,
                format!($($words)+),
            ));
        }
    };
}
pub(crate) use ensure;
