//! What arrived of one stream of numbered messages: new, again, late, and what is missing.

/// What one arrival is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// Seen for the first time, in order or after a gap.
    New,
    /// Seen for the first time, but after a later one.
    Late,
    /// Seen before. What is too far behind to be told apart counts as this, so that no loss is
    /// ever hidden by it.
    Again,
    /// A number that was not sent yet, or never will be.
    Impossible,
}

/// One stream: the messages of one publisher to one subscriber or one shared group.
pub(crate) struct Stream {
    /// The number after the highest that was seen.
    next: u32,
    /// A bit for each of the latest numbers, `number % (64 * words)`: set where it was seen. The
    /// number of words is a power of two.
    seen: Box<[u64]>,
    /// Different numbers that were seen.
    unique: u64,
}

impl Stream {
    /// A stream that remembers the latest `span` numbers, rounded up to a power of two.
    pub fn new(span: usize) -> Stream {
        Stream {
            next: 0,
            seen: vec![0; span.div_ceil(64).next_power_of_two()].into_boxed_slice(),
            unique: 0,
        }
    }

    /// Different messages that arrived.
    pub fn unique(&self) -> u64 {
        self.unique
    }

    /// Notes a message; `sent` is how many were sent so far.
    #[inline]
    pub fn arrive(&mut self, number: u32, sent: u64) -> Arrival {
        if u64::from(number) >= sent {
            return Arrival::Impossible;
        }
        let span = (self.seen.len() * 64) as u32;
        if number >= self.next {
            self.skip(number - self.next, span);
            self.set(number);
            self.next = number + 1;
            return Arrival::New;
        }
        if self.next - number > span || self.is_set(number) {
            return Arrival::Again;
        }
        self.set(number);
        Arrival::Late
    }

    /// Marks the next `count` numbers as not seen.
    fn skip(&mut self, count: u32, span: u32) {
        if count >= span {
            self.seen.fill(0);
            return;
        }
        for number in self.next..self.next + count {
            let (word, bit) = self.place(number);
            if let Some(word) = self.seen.get_mut(word) {
                *word &= !bit;
            }
        }
    }

    fn set(&mut self, number: u32) {
        let (word, bit) = self.place(number);
        if let Some(word) = self.seen.get_mut(word) {
            *word |= bit;
        }
        self.unique += 1;
    }

    fn is_set(&self, number: u32) -> bool {
        let (word, bit) = self.place(number);
        self.seen.get(word).is_some_and(|word| word & bit != 0)
    }

    #[inline]
    fn place(&self, number: u32) -> (usize, u64) {
        let number = number as usize;
        ((number / 64) & (self.seen.len() - 1), 1 << (number % 64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(span: usize, numbers: &[u32]) -> Vec<Arrival> {
        let mut stream = Stream::new(span);
        let verdict = |number: &u32| stream.arrive(*number, 1_000_000);
        numbers.iter().map(verdict).collect()
    }

    #[test]
    fn what_comes_in_order_is_new() {
        let mut stream = Stream::new(64);
        for number in 0..1_000 {
            assert_eq!(stream.arrive(number, 1_000), Arrival::New);
        }
        assert_eq!(stream.unique(), 1_000);
    }

    #[test]
    fn a_gap_that_fills_is_late_and_not_lost() {
        use Arrival::{Again, Late, New};
        assert_eq!(verdicts(64, &[0, 3, 1, 2]), [New, New, Late, Late]);
        assert_eq!(
            verdicts(64, &[0, 3, 3, 1, 1]),
            [New, New, Again, Late, Again]
        );
    }

    #[test]
    fn what_is_forgotten_counts_as_a_repetition() {
        use Arrival::{Again, Late, New};
        // 64 numbers are remembered: of 0 to 64 only 1 to 64.
        assert_eq!(verdicts(64, &[64, 1, 0]), [New, Late, Again]);
        assert_eq!(verdicts(128, &[500, 373, 372]), [New, Late, Again]);
    }

    #[test]
    fn an_old_bit_never_stands_for_a_new_number() {
        // 0 and 64 share a bit; 64 was skipped and must not look as if it had been seen.
        let mut stream = Stream::new(64);
        for number in [0, 1, 2, 65] {
            stream.arrive(number, 100);
        }
        assert_eq!(stream.arrive(64, 100), Arrival::Late);
        assert_eq!(stream.unique(), 5);
    }

    #[test]
    fn a_number_that_was_not_sent_is_impossible_and_changes_nothing() {
        let mut stream = Stream::new(64);
        assert_eq!(stream.arrive(0, 0), Arrival::Impossible);
        assert_eq!(stream.arrive(u32::MAX, 10), Arrival::Impossible);
        assert_eq!(stream.unique(), 0);
        assert_eq!(stream.arrive(9, 10), Arrival::New);
    }
}
