//! The pipe between two shards: batches in order, late, within a bound.

use casemate_engine::{Millis, Settings};

use crate::chance::Chance;
use crate::history::{ensure, Violation};

/// Room beyond the setting, bytes.
const RESERVE_BYTES: usize = 40 * 1024;

/// How long a pipe may stand still, ms: longer than the shortest life of a message, and within what
/// the oracle allows everybody.
const STANDS_MS: [u64; 2] = [1_000, 2_000];

/// One direction between two shards.
#[derive(Clone, Debug)]
pub struct Pipe {
    delay_ms_max: u64,
    stands_permille: u64,
    capacity: usize,
    /// Written and not taken: what a pipe must have room for, bytes.
    untaken: usize,
    /// Written and, as far as the writer knows, not taken, bytes.
    inside: usize,
    arrives_at: Millis,
    drains_at: Millis,
}

impl Pipe {
    /// An empty pipe.
    pub fn new(delay_ms_max: u64, stands_permille: u64, settings: &Settings) -> Pipe {
        // The largest packet fits even where the setting is smaller; answers about retained
        // messages and the small messages that nobody waits for have room of their own.
        let packet_bytes = settings.packet_bytes_max as usize;
        let capacity = settings.pipe_bytes.max(2 * packet_bytes) + RESERVE_BYTES + packet_bytes;
        Pipe {
            delay_ms_max,
            stands_permille,
            capacity,
            untaken: 0,
            inside: 0,
            arrives_at: 0,
            drains_at: 0,
        }
    }

    /// Takes a batch and says when it arrives.
    ///
    /// # Errors
    /// It does not fit.
    pub fn put(
        &mut self,
        now: Millis,
        chance: &mut Chance,
        bytes: usize,
    ) -> Result<Millis, Violation> {
        ensure!(bytes > 0, Door, "an empty batch was forwarded");
        self.inside += bytes;
        self.untaken += bytes;
        ensure!(
            self.untaken <= self.capacity,
            Bound,
            "{} bytes in a pipe of {}",
            self.untaken,
            self.capacity
        );
        let delay_ms = match chance.below(1_000) < self.stands_permille {
            true => chance.between(STANDS_MS[0], STANDS_MS[1]),
            false => chance.between(0, self.delay_ms_max),
        };
        self.arrives_at = self.arrives_at.max(now + delay_ms);
        Ok(self.arrives_at)
    }

    /// Gives a batch to the reader, and says when the writer learns of it.
    pub fn taken(&mut self, now: Millis, chance: &mut Chance, bytes: usize) -> Millis {
        self.untaken -= bytes;
        self.drains_at = self
            .drains_at
            .max(now + chance.between(0, self.delay_ms_max));
        self.drains_at
    }

    /// The writer has learnt it.
    pub fn drained(&mut self, bytes: usize) {
        self.inside -= bytes;
    }

    /// Bytes inside.
    pub fn inside(&self) -> usize {
        self.inside
    }

    /// No delay from now on; what is under way keeps its time.
    pub fn heal(&mut self) {
        self.delay_ms_max = 0;
        self.stands_permille = 0;
    }
}
