//! Who was expelled lately, for connections that were on their way while it happened.
//!
//! An order to expel reaches every shard through its inbox. A password check or a handover may be
//! under way at that moment and come after the order, so each of them remembers how many
//! expulsions there had been when it began, and the shard that takes it in looks up the later ones.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// Expulsions that are remembered. What began before the oldest of them is closed, as nobody can
/// say whether it was meant.
const REMEMBERED: usize = 1024;

/// An order to close a principal's connections.
#[derive(Clone, Debug)]
pub(crate) struct Expulsion {
    /// Its number, from 1.
    pub number: u64,
    /// The account's name.
    pub name: Arc<str>,
    /// Its sessions end too.
    pub end_sessions: bool,
}

/// The last orders, in order.
#[derive(Default)]
pub(crate) struct Expulsions {
    count: AtomicU64,
    recent: Mutex<VecDeque<Expulsion>>,
}

impl Expulsions {
    /// How many there have been.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// Records an order before it is sent out.
    pub fn record(&self, name: &str, end_sessions: bool) -> Expulsion {
        let mut recent = lock(&self.recent);
        let number = self.count() + 1;
        let expulsion = Expulsion {
            number,
            name: name.into(),
            end_sessions,
        };
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(expulsion.clone());
        self.count.store(number, Ordering::SeqCst);
        expulsion
    }

    /// The orders after the first `seen`; `None` where some of them are forgotten.
    pub fn since(&self, seen: u64) -> Option<Vec<Expulsion>> {
        let recent = lock(&self.recent);
        let oldest = recent
            .front()
            .map_or(self.count() + 1, |first| first.number);
        if seen + 1 < oldest {
            return None;
        }
        Some(
            recent
                .iter()
                .filter(|order| order.number > seen)
                .cloned()
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_orders_are_found_and_forgotten_ones_admitted() {
        let expulsions = Expulsions::default();
        assert!(expulsions.since(0).is_some_and(|orders| orders.is_empty()));
        for n in 0..1000 {
            expulsions.record(&n.to_string(), false);
        }
        assert_eq!(expulsions.since(0).map(|orders| orders.len()), Some(1000));
        assert_eq!(expulsions.since(999).map(|orders| orders.len()), Some(1));
        assert_eq!(expulsions.since(1000).map(|orders| orders.len()), Some(0));
        for n in 0..1000 {
            expulsions.record(&n.to_string(), false);
        }
        assert!(expulsions.since(0).is_none());
        assert_eq!(expulsions.since(976).map(|orders| orders.len()), Some(1024));
    }
}
