//! Watching: what the shards report, and the deadlines that they must keep.

use casemate_engine::{Event, EventKind, Loss, Millis};

use super::World;
use crate::history::{ensure, Violation};
use crate::oracle::SLACK_MS;
use crate::shell::{Owner, Report, Side};

impl World {
    /// Takes in what the shell reports.
    pub(super) fn look(&mut self) -> Result<(), Violation> {
        for place in 0..self.shell.live.len() {
            let link = self.shell.live[place];
            // A paused engine may have more than it has looked at.
            let looked_at = (!self.shell.links[link].paused).then_some(self.now);
            for (serial, issued) in std::mem::take(&mut self.shell.links[link].handed) {
                self.oracle.handed(looked_at, serial, issued);
            }
        }
        for report in std::mem::take(&mut self.shell.reports) {
            let now = self.now;
            self.history.note(now, || format!("{report:?}"));
            match report {
                Report::Store { works } => self.history.note(now, || {
                    let how = if works { "works again" } else { "fails" };
                    format!("the store {how}")
                }),
                Report::Obeys { shard, epoch } => self.oracle.law.obeyed(now, shard, epoch)?,
                Report::Told { link, event } => {
                    self.told(link, &event.kind)?;
                    if matches!(event.kind, EventKind::Overflow { .. }) {
                        self.overflowed(link, &event)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Something was told about a link.
    fn told(&mut self, link: Option<usize>, kind: &EventKind) -> Result<(), Violation> {
        let Some(number) = link else {
            return Ok(());
        };
        let (now, settings) = (self.now, &self.plan.settings);
        let link = &mut self.shell.links[number];
        match kind {
            EventKind::Connected { .. } => {
                link.connected_at = Some(now);
                if let Owner::Client(client) = link.owner {
                    self.oracle.sessions[client].home = Some(link.shard);
                    self.check_single(client, number)?;
                }
            }
            EventKind::Disconnected { loss } => {
                link.loss = Some(*loss);
                let keep_alive_ms = Millis::from(link.keep_alive_least_s) * 1_000;
                let silent_ms = now - link.packet_at.max(link.opened_at);
                let (least_ms, seen_ms) = match loss {
                    Loss::KeepAlive => (keep_alive_ms * 3 / 2, silent_ms),
                    Loss::SlowReader => (settings.slow_reader_ms, now - link.stalled_at),
                    Loss::ConnectDeadline => (settings.connect_deadline_ms, now - link.opened_at),
                    _ => (0, 0),
                };
                let good = matches!(link.owner, Owner::Client(_));
                ensure!(
                    !good || seen_ms >= least_ms,
                    Deadline,
                    "link {number} was closed for {loss:?} after {seen_ms} of {least_ms} ms"
                );
            }
            EventKind::Malformed { fault } => ensure!(
                !matches!(link.owner, Owner::Client(_)),
                Protocol,
                "link {number} of a well-behaved client was called malformed: {fault}"
            ),
            _ => {}
        }
        Ok(())
    }

    /// A session has one connection: the one before it is over ([MQTT-3.1.4-3]).
    fn check_single(&self, client: usize, newest: usize) -> Result<(), Violation> {
        let is_other = |number: &&usize| {
            let link = &self.shell.links[**number];
            let serves = link.side == Side::Seated && link.connected_at.is_some();
            link.owner == Owner::Client(client) && **number != newest && serves
        };
        let other = self.shell.live.iter().find(is_other);
        let one = other.is_none() || self.oracle.sessions[client].is_anonymous;
        ensure!(
            one,
            Session,
            "client {client} is connected by {other:?} and by {newest}"
        );
        Ok(())
    }

    /// The queue of a session overflowed.
    fn overflowed(&mut self, link: Option<usize>, event: &Event) -> Result<(), Violation> {
        if let Some(link) = link {
            return match self.shell.links[link].owner {
                Owner::Client(client) => self.oracle.overflowed(client),
                Owner::Hostile(_) => Ok(()),
            };
        }
        let (principal, client_id) = (&event.principal, &event.client_id);
        for index in 0..self.plan.personas.len() {
            let persona = &self.plan.personas[index];
            let name = &self.plan.people[persona.person].principal.name;
            if *name == *principal && *persona.client_id == **client_id {
                self.oracle.overflowed(index)?;
            }
        }
        Ok(())
    }

    /// What ought to have been closed by now.
    pub(super) fn check_deadlines(&self) -> Result<(), Violation> {
        let (now, settings) = (self.now, &self.plan.settings);
        for number in &self.shell.live {
            let link = &self.shell.links[*number];
            if link.side != Side::Seated {
                continue;
            }
            let since = |from: Millis, most_ms: Millis| now <= from + most_ms + SLACK_MS;
            ensure!(
                link.connected_at.is_some() || since(link.opened_at, settings.connect_deadline_ms),
                Deadline,
                "link {number} had no CONNACK since {} ms",
                link.opened_at
            );
            if link.connected_at.is_none() {
                continue;
            }
            ensure!(
                link.proven_until
                    .is_none_or(|until| now <= until + SLACK_MS),
                Deadline,
                "the proof of link {number} ended at {:?} ms",
                link.proven_until
            );
            let keep_alive_ms = Millis::from(link.keep_alive_s.unwrap_or(0)) * 1_000;
            if keep_alive_ms > 0 && !link.paused {
                let heard_at = link.heard_at.max(link.paused_at);
                ensure!(
                    since(heard_at, keep_alive_ms * 3 / 2),
                    Deadline,
                    "link {number} with a keep alive of {keep_alive_ms} ms is silent since \
                     {heard_at} ms"
                );
            }
        }
        Ok(())
    }
}
