//! One monotonic clock for all shards, and the wall clock for what carries dates.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_engine::Millis;

/// Counts from the start of the server; shared, so that a time taken in one shard means the same
/// in another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
    /// What it said when it started.
    base_ms: Millis,
}

impl Clock {
    /// Starts at 0.
    pub fn new() -> Clock {
        Clock {
            started: Instant::now(),
            base_ms: 0,
        }
    }

    /// Starts at 0, or at the wall clock, so that a time that was written down means the same after
    /// a restart. A wall clock that is set meanwhile moves nothing until then.
    pub fn starting(at_the_wall: bool) -> Clock {
        Clock {
            base_ms: if at_the_wall { wall_unix_ms() } else { 0 },
            ..Clock::new()
        }
    }

    /// Milliseconds since the start, or since 1970.
    pub fn now(&self) -> Millis {
        // 2^64 ms are 584 million years.
        self.base_ms + self.started.elapsed().as_millis() as Millis
    }

    /// The time at which `duration` will have passed.
    pub fn after(&self, duration: Duration) -> Millis {
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        self.now().saturating_add(duration_ms)
    }

    /// When a date comes, on this clock; `None` where it has passed.
    pub fn at_unix_s(&self, date_unix_s: u64) -> Option<Millis> {
        let left_s = date_unix_s.checked_sub(wall_unix_s())?;
        if left_s == 0 {
            return None;
        }
        Some(self.now().saturating_add(left_s.saturating_mul(1000)))
    }
}

/// The wall clock, seconds since 1970.
///
/// A clock that stands before 1970 is broken: it reads as the end of time, so that everything
/// with an expiry has expired rather than lives on.
pub(crate) fn wall_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(u64::MAX, |since| since.as_secs())
}

/// The wall clock, milliseconds since 1970, for showing; 0 where the clock is broken.
pub(crate) fn wall_unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_in_the_past_or_this_second_is_over() {
        let clock = Clock::new();
        assert_eq!(clock.at_unix_s(0), None);
        assert_eq!(clock.at_unix_s(wall_unix_s()), None);
        assert!(clock
            .at_unix_s(wall_unix_s() + 10)
            .is_some_and(|at| at >= 8_000));
        assert!(clock.at_unix_s(u64::MAX).is_some());
    }
}
