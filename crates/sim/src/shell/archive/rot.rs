//! Rot: some bits of an old file turn; what they cost is told, and nothing else is wrong.

use std::collections::BTreeMap;

use casemate_engine::Kept;
use casemate_store::{recover, Disk};

use super::{broken, Archive};
use crate::chance::Chance;
use crate::history::{ensure, Violation};

/// Most bits that turn.
const BITS_MAX: u64 = 4;

/// Parts by commit, shard and the shard's own number.
type Parts = BTreeMap<(u64, u16, u64), Vec<u8>>;

impl Archive {
    /// Lets bits turn in a file that nobody writes any more, and reads everything; nothing where
    /// there is no such file. No process may live.
    ///
    /// # Errors
    /// The start fails, something is lost in silence, or something is read that nobody wrote. Where
    /// the head of a file has rotted, a commit that had failed before may come back with the loss.
    pub fn rot(&mut self, chance: &mut Chance) -> Result<Option<Kept>, Violation> {
        let (before, _) = self.parts()?;
        let mut names = self.disk.list().map_err(broken)?;
        names.retain(|name| name.ends_with(".log"));
        names.sort_unstable();
        // The newest ends where a crash may have torn it.
        names.pop();
        if names.is_empty() {
            return Ok(None);
        }
        let name = chance.pick(&names);
        let length = self.disk.length_of(name);
        for _ in 0..chance.between(1, BITS_MAX) {
            if length > 0 {
                let (byte, bit) = (chance.index(length), chance.below(8) as u8);
                self.disk.rot(name, byte, bit);
            }
        }
        let (after, is_told) = self.parts()?;
        for (place, bytes) in &after {
            let same = before.get(place).map(|known| known == bytes);
            ensure!(
                same.unwrap_or(is_told),
                Journal,
                "rot in {name} of {length} bytes has made another record of {place:?}"
            );
        }
        ensure!(
            after.len() == before.len() || is_told,
            Journal,
            "rot in {name} of {length} bytes has cost {} records in silence",
            before.len() - after.len()
        );
        let mut kept = Kept::new();
        for bytes in after.values() {
            kept.take(bytes).map_err(broken)?;
        }
        Ok(Some(kept))
    }

    /// Everything that can be read, and whether a start tells of damage.
    fn parts(&mut self) -> Result<(Parts, bool), Violation> {
        let mut parts = Parts::new();
        let recovered = recover(&self.disk, &self.keys, 1, |found| {
            let place = (found.number, found.part.shard, found.part.seq);
            parts.insert(place, found.part.bytes.to_vec());
        });
        let recovered = recovered.map_err(broken)?;
        let is_told = !recovered.report.damage.is_empty();
        self.recovered = Some(recovered);
        Ok((parts, is_told))
    }
}
