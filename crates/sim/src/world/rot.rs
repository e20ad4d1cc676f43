//! The last thing in a run: the disk rots, and a process starts with what is left.

use super::World;
use crate::history::Violation;

impl World {
    /// Ends the process and lets the disk rot. What is missing then is nobody's fault, so that the
    /// oracle has nothing more to say: the next process starts, and tells what was lost.
    pub(super) fn rot(&mut self) -> Result<(), Violation> {
        if self.plan.disk.is_none() {
            return Ok(());
        }
        self.shell.die(self.now, &mut self.chance, 0)?;
        let policy = self.oracle.law.policy()?;
        let shards = self.plan.shards;
        self.shell
            .rise_rotten(self.now, &mut self.chance, shards, &policy)
    }
}
