//! Sessions that have ended and would be there again after a crash, as that is not durable yet.

use std::collections::VecDeque;

use ahash::RandomState;
use hashbrown::HashMap;

/// Nobody is told that there is no session before it is sure that none comes back.
pub(crate) struct Ended {
    /// By the hash of a session: the batch that says that it has ended.
    by_session: HashMap<u64, u64, RandomState>,
    /// The same, in the order of batches.
    in_order: VecDeque<(u64, u64)>,
}

impl Ended {
    /// None.
    pub fn new(hasher: RandomState) -> Ended {
        Ended {
            by_session: HashMap::with_hasher(hasher),
            in_order: VecDeque::new(),
        }
    }

    /// A session has ended; the batch of `seq` says so.
    pub fn add(&mut self, session: u64, seq: u64) {
        self.by_session.insert(session, seq);
        self.in_order.push_back((seq, session));
    }

    /// The batch that must be durable before a session is surely gone; 0 where it is.
    pub fn seq_of(&self, session: u64) -> u64 {
        self.by_session.get(&session).copied().unwrap_or(0)
    }

    /// All batches up to `persisted` are durable.
    pub fn forget(&mut self, persisted: u64) {
        while let Some((seq, session)) = self.in_order.front().copied() {
            if seq > persisted {
                return;
            }
            self.in_order.pop_front();
            if self.seq_of(session) == seq {
                self.by_session.remove(&session);
            }
        }
    }
}
