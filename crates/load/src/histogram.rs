//! Durations in buckets: exact below 128 ns, within 1.6 % above, in 30 KiB.

/// Buckets of one power of two; half of them are used, as each power begins where one ended.
const SUB_BUCKETS: u64 = 128;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();
/// Powers of two above the first: durations to 2^63 ns.
const POWERS: usize = 57;

/// Durations in nanoseconds, counted by size.
pub(crate) struct Histogram {
    counts: Box<[u64]>,
    count: u64,
    sum_ns: u128,
    least_ns: u64,
    most_ns: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Histogram {
        let buckets = SUB_BUCKETS as usize + POWERS * (SUB_BUCKETS as usize / 2);
        Histogram {
            counts: vec![0; buckets].into_boxed_slice(),
            count: 0,
            sum_ns: 0,
            least_ns: u64::MAX,
            most_ns: 0,
        }
    }

    /// Counts one duration.
    #[inline]
    pub fn record(&mut self, duration_ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket(duration_ns)) {
            *count += 1;
        }
        self.count += 1;
        self.sum_ns += u128::from(duration_ns);
        self.least_ns = self.least_ns.min(duration_ns);
        self.most_ns = self.most_ns.max(duration_ns);
    }

    /// Durations counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Their mean in ns; 0 where there are none.
    pub fn mean_ns(&self) -> u64 {
        // A mean is never above the largest duration, which fits.
        (self.sum_ns / u128::from(self.count.max(1))) as u64
    }

    /// The smallest; 0 where there are none.
    pub fn least_ns(&self) -> u64 {
        match self.count {
            0 => 0,
            _ => self.least_ns,
        }
    }

    /// The largest, exactly.
    pub fn most_ns(&self) -> u64 {
        self.most_ns
    }

    /// The duration that `share` (0 to 1) of all do not pass: the upper end of its bucket, and
    /// never more than the largest.
    pub fn quantile_ns(&self, share: f64) -> u64 {
        let wanted = (share * self.count as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return upper_end(index).min(self.most_ns);
            }
        }
        self.most_ns
    }
}

/// The bucket of a duration.
fn bucket(duration_ns: u64) -> usize {
    if duration_ns < SUB_BUCKETS {
        return duration_ns as usize;
    }
    let power = 63 - duration_ns.leading_zeros() - (SUB_BITS - 1);
    let within = (duration_ns >> power) - SUB_BUCKETS / 2;
    SUB_BUCKETS as usize + (power as usize - 1) * (SUB_BUCKETS as usize / 2) + within as usize
}

/// The largest duration of a bucket.
fn upper_end(index: usize) -> u64 {
    let Some(above) = index.checked_sub(SUB_BUCKETS as usize) else {
        return index as u64;
    };
    let half = SUB_BUCKETS as usize / 2;
    let power = above / half + 1;
    let within = (above % half + half) as u64;
    // The last bucket ends at the largest number there is.
    (((u128::from(within) + 1) << power) - 1).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_ends_where_the_next_begins_and_is_narrow() {
        let buckets = Histogram::new().counts.len();
        for index in 0..buckets - 1 {
            let end = upper_end(index);
            assert_eq!(bucket(end), index);
            assert_eq!(bucket(end + 1), index + 1);
        }
        assert_eq!(bucket(u64::MAX), buckets - 1);
        assert_eq!(upper_end(buckets - 1), u64::MAX);
        for duration in [128, 129, 1_000, 123_456_789, 1 << 40, u64::MAX / 3] {
            let error = upper_end(bucket(duration)) - duration;
            assert!(error as f64 <= duration as f64 / 64.0, "{duration}");
        }
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let mut histogram = Histogram::new();
        for duration in 1..=100 {
            histogram.record(duration);
        }
        assert_eq!(histogram.quantile_ns(0.5), 50);
        assert_eq!(histogram.quantile_ns(0.99), 99);
        assert_eq!(histogram.quantile_ns(1.0), 100);
        assert_eq!(histogram.quantile_ns(0.0), 1);
        assert_eq!((histogram.least_ns(), histogram.mean_ns()), (1, 50));
        assert_eq!((histogram.count(), histogram.most_ns()), (100, 100));
    }

    #[test]
    fn an_empty_one_says_zero() {
        let histogram = Histogram::new();
        assert_eq!(histogram.quantile_ns(0.99), 0);
        assert_eq!((histogram.least_ns(), histogram.mean_ns()), (0, 0));
    }

    #[test]
    fn one_late_message_is_not_averaged_away() {
        let mut histogram = Histogram::new();
        for _ in 0..999 {
            histogram.record(1_000);
        }
        histogram.record(2_000_000_000);
        assert!(histogram.quantile_ns(0.99) < 1_020);
        assert_eq!(histogram.quantile_ns(0.999_5), 2_000_000_000);
    }
}
