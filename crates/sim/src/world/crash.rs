//! The process dies in the middle of the storm, and comes again.

use super::World;
use crate::history::Violation;
use crate::shell::Wreck;

impl World {
    /// Decides whether the process dies in this turn.
    pub(super) fn is_doomed(&mut self) -> bool {
        let Some(crashes) = &self.plan.crashes else {
            return false;
        };
        let is_over = self.is_calm || self.deaths >= crashes.shards.len();
        let dies = !is_over && self.chance.below(10_000) < crashes.of_10_000;
        if dies {
            self.shell.doom(&mut self.chance);
        }
        dies
    }

    /// The process is dead at the latest now.
    pub(super) fn crash(&mut self) -> Result<(), Violation> {
        let gone_ms_max = self.plan.crashes.as_ref().map_or(0, |it| it.gone_ms_max);
        // What it has told was true, whatever comes now.
        self.look()?;
        let gone_ms = self.chance.between(0, gone_ms_max);
        let wreck = self.shell.die(self.now, &mut self.chance, gone_ms)?;
        self.history.note(self.now, || {
            let Wreck {
                up_at, survivors, ..
            } = wreck;
            format!("the process dies until {up_at} ms; {survivors} unheard batches are durable")
        });
        self.oracle.crashed(wreck, &self.shell.links);
        self.deaths += 1;
        Ok(())
    }

    /// Another process starts.
    pub(super) fn start(&mut self) -> Result<(), Violation> {
        let crashes = self.plan.crashes.as_ref();
        let shards = crashes.and_then(|it| it.shards.get(self.deaths.wrapping_sub(1)));
        let shards = shards.copied().unwrap_or(self.plan.shards);
        self.history.note(self.now, || {
            format!("another process starts, of {shards} shards")
        });
        let policy = self.oracle.law.policy()?;
        self.shell.rise(self.now, shards, &policy)?;
        self.oracle.law.begin(self.now, shards);
        self.shell.check_journal(self.now, &mut self.chance)
    }
}
