//! The ending: calm, verdict, a look at what is retained, the counters, and the stop.

use std::collections::BTreeSet;
use std::sync::Arc;

use casemate_codec::Version;
use casemate_engine::Millis;

use super::World;
use crate::client::Client;
use crate::history::{ensure, Invariant, Violation};
use crate::oracle::{Session, SLACK_MS};
use crate::plan::{Habits, Persona, PROBES};
use crate::shell::Side;

/// How long a healed world may take to come to rest, ms.
pub(super) const CALM_MS_MAX: Millis = 240_000;

/// After this time every delay that a client may have asked for is over, ms.
const DELAYS_MS: Millis = 24_000;

/// How long a probe is given for what it asks, ms.
const PROBE_MS: Millis = 30_000;

impl World {
    /// Heals everything, waits for rest, and judges.
    pub(super) fn end(&mut self) -> Result<(), Violation> {
        if self.plan.drain.is_some() {
            return self.drain();
        }
        self.calm();
        self.rest()?;
        self.pass(DELAYS_MS)?;
        self.rest()?;
        let dropped: Vec<u64> = (0..self.shell.shards())
            .map(|shard| self.shell.counters(shard).0.dropped_oldest)
            .collect();
        self.oracle.verdict(self.now, &self.shell.links, &dropped)?;
        self.check_losses(dropped.iter().sum())?;
        for person in PROBES {
            self.probe(person)?;
        }
        self.check_counters()?;
        self.stop()
    }

    /// The storm is over.
    pub(super) fn calm(&mut self) {
        self.history.note(self.now, || "calm".to_owned());
        self.is_calm = true;
        self.shell.heal(self.now);
        let (mut scene, _, hostile) = self.scene();
        for hostile in hostile {
            hostile.leave(&mut scene);
        }
    }

    /// Steps until nobody waits for anything.
    fn rest(&mut self) -> Result<(), Violation> {
        let until = self.now + CALM_MS_MAX;
        loop {
            let settled = |client: &Client| client.is_settled(&self.oracle);
            let open = self.clients.iter().find(|client| !settled(client));
            let lawful = self.oracle.law.is_in_force();
            if open.is_none() && self.shell.is_idle() && lawful {
                return Ok(());
            }
            if self.now >= until {
                let words = match open {
                    Some(client) => client.describe(),
                    None if lawful => format!("{} bytes are in pipes", self.shell.piped()),
                    None => "a policy is not in force".to_owned(),
                };
                return Err(Violation::new(Invariant::Deadlock, words));
            }
            self.step()?;
        }
    }

    /// Lets time pass.
    fn pass(&mut self, ms: Millis) -> Result<(), Violation> {
        let until = self.now + ms;
        while self.now < until {
            self.step()?;
        }
        Ok(())
    }

    /// A broker with room for everything has no reason to refuse or drop.
    fn check_losses(&self, dropped: u64) -> Result<(), Violation> {
        let slow = self
            .plan
            .personas
            .iter()
            .any(|one| one.habits.read_pause_ms_max > 0);
        let narrow = self.plan.weather.capacity < 1 << 16;
        let excused = self.plan.tight || slow || narrow || self.plan.hostile > 0;
        ensure!(
            dropped == 0 || excused,
            Bound,
            "{dropped} messages were dropped although everybody reads and there is room"
        );
        Ok(())
    }

    /// Somebody who may see everything looks at what is retained.
    fn probe(&mut self, person: usize) -> Result<(), Violation> {
        let index = self.clients.len();
        let persona = Persona {
            person,
            client_id: format!("probe{person}"),
            version: Version::V5,
            habits: Habits {
                pause_ms_max: 1,
                read_pause_ms_max: 0,
                acknowledge_ms_max: 0,
                publish_percent: 0,
                clean_percent: 0,
                persistent: false,
                takes_all: true,
                challenged: false,
            },
        };
        let session = Session::new(self.plan.asker(&persona), persona.version);
        self.oracle.sessions.push(session);
        self.clients
            .push(Client::new(index, persona, Arc::clone(&self.plan)));
        self.rest()?;
        let (mut scene, clients, _) = self.scene();
        clients[index].look_at(&mut scene, &["#", "$x/#", "$SYS/#"])?;
        self.rest()?;
        self.pass(PROBE_MS)?;
        self.rest()?;
        let session = &self.oracle.sessions[index];
        let tenant = session.tenant();
        for (of_tenant, topic) in self.oracle.retained_topics() {
            // What the broker announces is no tenant's.
            if of_tenant != tenant || topic.starts_with("$SYS/") {
                continue;
            }
            let candidates = self.oracle.retained_candidates(tenant, &topic, self.now);
            let here = |serial: &&u64| {
                self.oracle
                    .message(**serial)
                    .is_some_and(|message| message.topic == topic)
            };
            let found: BTreeSet<u64> = session.copies.keys().filter(here).copied().collect();
            let just = match found.first() {
                None => candidates.contains(&0),
                Some(serial) => found.len() == 1 && candidates.contains(serial),
            };
            ensure!(
                just,
                Retained,
                "{found:?} is retained for {topic}, expected one of {candidates:?}"
            );
        }
        Ok(())
    }

    /// What the shards counted must be what the shell saw.
    pub(super) fn check_counters(&self) -> Result<(), Violation> {
        for shard in 0..self.shell.shards() {
            let (counters, received, sent) = self.shell.counters(shard);
            let seated = self.shell.seated(shard) as u64;
            ensure!(
                counters.connections_now == seated,
                Counters,
                "shard {shard} counts {} connections, {seated} are there",
                counters.connections_now
            );
            ensure!(
                counters.bytes_received <= received && counters.bytes_sent <= sent,
                Counters,
                "shard {shard} counts {} bytes in and {} out, {received} and {sent} were",
                counters.bytes_received,
                counters.bytes_sent
            );
        }
        Ok(())
    }

    /// The broker stops: everybody is told, every connection is closed.
    fn stop(&mut self) -> Result<(), Violation> {
        self.shell.stop(self.now);
        for client in &mut self.clients {
            client.retire();
        }
        let until = self.now + 2 * SLACK_MS;
        while self.now < until && self.ticks < u64::MAX {
            if self
                .shell
                .live
                .iter()
                .all(|link| self.shell.links[*link].side == Side::Gone)
            {
                break;
            }
            self.step()?;
        }
        let open = self.shell.live.iter().find(|link| {
            matches!(
                self.shell.links[**link].side,
                Side::Seated | Side::Lingering(_)
            )
        });
        ensure!(
            open.is_none(),
            Deadlock,
            "link {open:?} is open after the broker has stopped"
        );
        Ok(())
    }
}
