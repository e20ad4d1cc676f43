//! Events until somebody fetches them: bounded, the oldest make room, losses are counted.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use crate::event::Event;
use crate::lock::lock;

/// A queue that forgets the oldest when it is full.
pub(crate) struct Ring {
    events_max: usize,
    state: Mutex<State>,
    arrival: Condvar,
}

struct State {
    events: VecDeque<Event>,
    lost: u64,
    closed: bool,
}

impl Ring {
    /// Holds at most `events_max`; 0 holds none and counts all as lost.
    pub fn new(events_max: usize) -> Ring {
        let state = State {
            events: VecDeque::new(),
            lost: 0,
            closed: false,
        };
        Ring {
            events_max,
            state: Mutex::new(state),
            arrival: Condvar::new(),
        }
    }

    /// Appends and empties `events`.
    pub fn append(&self, events: &mut Vec<Event>) {
        let mut state = lock(&self.state);
        for event in events.drain(..) {
            if state.events.len() >= self.events_max {
                state.lost += 1;
                if state.events.pop_front().is_none() {
                    continue;
                }
            }
            state.events.push_back(event);
        }
        drop(state);
        self.arrival.notify_one();
    }

    /// Takes at most `max` events, oldest first, and says how many were lost since the last call.
    ///
    /// Waits at most `timeout` for the first one; returns at once when the ring is closed.
    pub fn fetch(&self, max: usize, timeout: Duration) -> (Vec<Event>, u64) {
        let until = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        while state.events.is_empty() && state.lost == 0 && !state.closed {
            let left = until.map_or(Duration::from_secs(3600), |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                break;
            }
            state = match self.arrival.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        let count = max.min(state.events.len());
        let events = state.events.drain(..count).collect();
        (events, std::mem::take(&mut state.lost))
    }

    /// Lets everybody who waits go; what is there can still be fetched.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.arrival.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventKind;

    fn event(shard: u16) -> Event {
        Event {
            time_unix_ms: 0,
            shard,
            listener: None,
            address: None,
            client_id: "".into(),
            principal: "".into(),
            kind: EventKind::ConnectionsFull,
        }
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let ring = Ring::new(3);
        ring.append(&mut (0..5).map(event).collect());
        let (events, lost) = ring.fetch(2, Duration::ZERO);
        assert_eq!(events.iter().map(|e| e.shard).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(lost, 2);
        let (events, lost) = ring.fetch(9, Duration::ZERO);
        assert_eq!((events.len(), lost), (1, 0));
    }

    #[test]
    fn a_ring_of_zero_loses_everything_and_says_so() {
        let ring = Ring::new(0);
        ring.append(&mut (0..5).map(event).collect());
        let (events, lost) = ring.fetch(9, Duration::ZERO);
        assert_eq!((events.len(), lost), (0, 5));
    }

    #[test]
    fn closing_wakes_who_waits() {
        let ring = Ring::new(3);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| ring.fetch(1, Duration::from_secs(60)));
            ring.close();
            assert!(waiter
                .join()
                .is_ok_and(|(events, lost)| events.is_empty() && lost == 0));
        });
    }
}
