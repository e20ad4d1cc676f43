//! The other ending: the broker drains in the middle of the storm, and keeps what it promised.

use super::ending::CALM_MS_MAX;
use super::World;
use crate::client::Phase;
use crate::history::{ensure, Violation};
use crate::oracle::SLACK_MS;
use crate::shell::Side;

impl World {
    /// Drains: no new promise, the old ones kept, then a good-bye to everybody.
    pub(super) fn drain(&mut self) -> Result<(), Violation> {
        self.history
            .note(self.now, || "the broker drains".to_owned());
        for client in &mut self.clients {
            client.retire();
        }
        let (mut scene, _, hostile) = self.scene();
        for hostile in hostile {
            // A peer that asks for ever could hold the drain up to its deadline.
            hostile.leave(&mut scene);
        }
        self.shell.drain(self.now, &mut self.chance);
        let until = self.now + CALM_MS_MAX;
        while !self.shell.has_settled() {
            ensure!(
                self.now < until,
                Deadlock,
                "a shard that drains never settles"
            );
            self.step()?;
        }
        self.shell.leave_all(self.now, &mut self.chance);
        self.calm();
        self.cut_abandoned();
        self.await_departure()?;
        let dropped: Vec<u64> = (0..self.shell.shards())
            .map(|shard| self.shell.counters(shard).0.dropped_oldest)
            .collect();
        self.oracle
            .verdict_of_drain(self.now, &self.shell.links, &dropped)?;
        self.check_counters()
    }

    /// A connection that its client has left for another one reads and acknowledges nothing more;
    /// it would hold the drain up to its deadline.
    fn cut_abandoned(&mut self) {
        for link in self.shell.live.clone() {
            let in_use = self.clients.iter().any(|it| it.link == Some(link));
            if !in_use && !self.shell.links[link].up.is_ending() {
                self.shell.cut(self.now, &mut self.chance, link);
            }
        }
    }

    /// Waits until everybody was sent away and has read it.
    fn await_departure(&mut self) -> Result<(), Violation> {
        let until = self.now + CALM_MS_MAX + SLACK_MS;
        loop {
            let over = |link: &usize| self.shell.links[*link].side == Side::Gone;
            let open = self.shell.live.iter().find(|link| !over(link));
            let waiting = self.clients.iter().find(|it| it.phase != Phase::Down);
            if open.is_none() && waiting.is_none() {
                return Ok(());
            }
            ensure!(
                self.now < until,
                Deadlock,
                "link {open:?} is open although the broker has drained, {}",
                waiting.map_or_else(String::new, |client| client.describe())
            );
            self.step()?;
        }
    }
}
