//! Retired numbers: which commits are missing because nobody wanted them any more.
//!
//! A log without gaps in its numbers knows what it has lost. A segment that is retired would leave
//! a gap; an empty file stands in for it, whose name says which numbers are gone. It is durable
//! before the segment is removed. Neighbours become one file, so that there are never more of them
//! than segments, and one.

/// A run of commits that were retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gone {
    /// Number of the first one.
    pub first: u64,
    /// Number of the last one.
    pub last: u64,
    /// The highest serial among the segments that they were in, which no other may get.
    pub serial: u32,
}

impl Gone {
    /// The name of its file.
    pub fn file(self) -> String {
        format!(
            "{:016x}-{:016x}-{:08x}.gone",
            self.first, self.last, self.serial
        )
    }

    /// Reads a name; nothing where it is none of these.
    pub fn of(file: &str) -> Option<Gone> {
        let mut numbers = file.strip_suffix(".gone")?.split('-');
        let gone = Gone {
            first: u64::from_str_radix(numbers.next()?, 16).ok()?,
            last: u64::from_str_radix(numbers.next()?, 16).ok()?,
            serial: u32::from_str_radix(numbers.next()?, 16).ok()?,
        };
        (gone.first <= gone.last && gone.file() == file).then_some(gone)
    }

    /// One that covers both; nothing where numbers lie between them.
    pub fn joined(self, other: Gone) -> Option<Gone> {
        let touches = |one: Gone, two: Gone| one.first <= two.last.saturating_add(1);
        (touches(self, other) && touches(other, self)).then(|| Gone {
            first: self.first.min(other.first),
            last: self.last.max(other.last),
            serial: self.serial.max(other.serial),
        })
    }
}

/// The runs of numbers from `first` to `last` that are covered by none of `gone`, in order.
pub(crate) fn uncovered(gone: &[Gone], first: u64, last: u64) -> Vec<(u64, u64)> {
    let mut sorted = gone.to_vec();
    sorted.sort_unstable();
    let mut runs = Vec::new();
    let mut next = first;
    for one in sorted {
        if next > last {
            return runs;
        }
        if one.first > next {
            runs.push((next, last.min(one.first - 1)));
        }
        next = next.max(one.last.saturating_add(1));
    }
    if next <= last {
        runs.push((next, last));
    }
    runs
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn gone(first: u64, last: u64) -> Gone {
        let serial = 7;
        Gone {
            first,
            last,
            serial,
        }
    }

    #[test]
    fn a_name_says_which_numbers_in_one_spelling() {
        let one = gone(1, 0xAB);
        assert_eq!(
            one.file(),
            "0000000000000001-00000000000000ab-00000007.gone"
        );
        assert_eq!(Gone::of(&one.file()), Some(one));
        let others = [
            "0000000000000002-0000000000000001-00000007.gone",
            "1-ab-7.gone",
            "0000000000000001-00000000000000ab.gone",
            "0000000000000001-00000000000000ab-00000007.log",
        ];
        for file in others {
            assert_eq!(Gone::of(file), None, "{file}");
        }
    }

    /// Goal: what is uncovered is what nobody covers. Method: every run of small numbers, with
    /// every two retired ones, against counting.
    #[test]
    fn what_is_uncovered_is_what_nobody_covers() {
        let runs: Vec<Gone> = (1..6)
            .flat_map(|first| (first..6).map(move |last| gone(first, last)))
            .collect();
        for one in &runs {
            for two in &runs {
                let counted = (1..=7_u64)
                    .filter(|n| [one, two].iter().all(|run| *n < run.first || *n > run.last));
                let told = uncovered(&[*one, *two], 1, 7)
                    .into_iter()
                    .flat_map(|(first, last)| first..=last);
                assert!(counted.eq(told), "{one:?} {two:?}");
                if let Some(both) = one.joined(*two) {
                    let covers = uncovered(&[*one, *two], both.first, both.last);
                    assert_eq!(covers, [], "{one:?} {two:?}");
                }
            }
        }
        let far = gone(9, 9);
        assert_eq!(gone(1, 7).joined(far), None);
        assert_eq!(gone(1, 8).joined(far), Some(gone(1, 9)));
    }
}
