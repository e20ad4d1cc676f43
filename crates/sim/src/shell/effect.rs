//! Effects: what a shard asks of the shell, carried out and checked against the door.

use casemate_engine::{ConnectionId, Credentials, Effect, Event, EventKind, Millis};

use super::store::Batch;
use super::turn::gather;
use super::{Item, Report, Shell, Side};
use crate::chance::Chance;
use crate::gate;
use crate::history::{ensure, Invariant, Violation};
use crate::plan::Promptness;

/// How long the last bytes of a closed connection may take, ms.
const LINGER_MS: Millis = 1_000;

impl Shell {
    /// Carries out one effect.
    pub(super) fn carry_out(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        effect: Effect,
    ) -> Result<(), Violation> {
        match effect {
            Effect::Authenticate {
                id,
                step,
                credentials,
            } => self.ask_gate((shard, id, step), now, chance, &credentials),
            Effect::HandOver { id, to, parcel } => {
                let link = self.expect_seated(shard, id, "HandOver")?;
                let to = usize::from(to);
                let known = to < self.stations.len() && to != shard;
                ensure!(
                    known,
                    Door,
                    "link {link} is handed over from {shard} to {to}"
                );
                self.links[link].side = Side::Moving;
                self.links[link].shard = to;
                let station = &mut self.stations[shard];
                station.free.push(id.slot);
                station.blocked.remove(&link);
                let at = now + chance.between(0, self.plan.pipe_ms_max);
                self.post(to, at, Item::Adopt { link, parcel });
                Ok(())
            }
            Effect::Forward { to, batch } => {
                let to = usize::from(to);
                let known = to < self.stations.len() && to != shard;
                ensure!(known, Door, "shard {shard} forwards to {to}");
                let at = self.pipes[shard][to].put(now, chance, batch.len())?;
                self.post(to, at, Item::Forwarded { from: shard, batch });
                Ok(())
            }
            Effect::Persist { seq, records } => {
                let asked_at = now;
                let batch = Batch {
                    seq,
                    records,
                    asked_at,
                };
                self.persist(shard, now, chance, batch)
            }
            Effect::Flush { id } => {
                let link = self.expect_seated(shard, id, "Flush")?;
                self.write_link(shard, link, now, chance)
            }
            Effect::Pause { id } => self.pause(shard, now, id, true),
            Effect::Resume { id } => self.pause(shard, now, id, false),
            Effect::Close { id } => self.close(shard, now, id),
            Effect::Event(event) => {
                self.tell(shard, event);
                Ok(())
            }
            Effect::Checkpointed => self.checkpointed(now, chance),
            Effect::Settled => self.settled(shard),
            Effect::PolicyInForce { epoch } => {
                self.reports.push(Report::Obeys { shard, epoch });
                Ok(())
            }
        }
    }

    /// A shard that drains has kept all its promises, once.
    fn settled(&mut self, shard: usize) -> Result<(), Violation> {
        let station = &mut self.stations[shard];
        let first = !std::mem::replace(&mut station.has_settled, true);
        ensure!(
            station.drains && first,
            Door,
            "shard {shard} settles twice, or was not told to drain"
        );
        Ok(())
    }

    /// Passes on what a shard tells, with the link that it is about.
    fn tell(&mut self, shard: usize, event: Box<Event>) {
        let seats = &self.stations[shard].seats;
        let link = event.id.and_then(|id| seats.get(&id)).copied();
        if let (Some(link), EventKind::Disconnected { .. }) = (link, &event.kind) {
            // Its last words may be written in the same moment.
            self.links[link].stalled_at = self.links[link].written_at;
        }
        self.reports.push(Report::Told { link, event });
    }

    /// The link behind the id of an effect, which must be alive.
    fn expect_seated(
        &self,
        shard: usize,
        id: ConnectionId,
        effect: &str,
    ) -> Result<usize, Violation> {
        self.seated_link(shard, id).ok_or_else(|| {
            let words = format!("{effect} for {id:?}, which is not alive in shard {shard}");
            Violation::new(Invariant::Door, words)
        })
    }

    /// Asks the gate, which answers in its own time, or not at all.
    fn ask_gate(
        &mut self,
        (shard, id, step): (usize, ConnectionId, u32),
        now: Millis,
        chance: &mut Chance,
        credentials: &Credentials,
    ) -> Result<(), Violation> {
        let link = self.expect_seated(shard, id, "Authenticate")?;
        let open = self.links[link].question;
        ensure!(
            open.is_none(),
            Door,
            "link {link} is asked about twice at a time"
        );
        self.links[link].question = Some(step);
        if let Some(username) = &credentials.username {
            // Only CONNECT says it.
            self.links[link].username = username.as_ref().into();
        }
        let username = self.links[link].username.clone();
        self.fresh_ids += 1;
        // Who connects is closed when nothing is decided; who proves himself again just waits.
        let first = credentials.proof.as_ref().is_none_or(|proof| !proof.again);
        let at = match self.gate {
            Promptness::AtOnce => now,
            Promptness::Late(_) if first && chance.percent(2) => return Ok(()),
            Promptness::Late(most_ms) => now + chance.between(0, most_ms),
            Promptness::Batches(every_ms) => now.next_multiple_of(every_ms),
        };
        let verdict = gate::decide(
            &self.plan.people,
            at,
            self.fresh_ids,
            &username,
            credentials,
        );
        if let casemate_engine::Verdict::Granted(grant) = &verdict {
            self.links[link].proven_until = grant.until;
        }
        self.post(
            shard,
            at,
            Item::Decide {
                link,
                id,
                step,
                verdict,
            },
        );
        Ok(())
    }

    /// Stops or goes on reading; the two must alternate.
    fn pause(
        &mut self,
        shard: usize,
        now: Millis,
        id: ConnectionId,
        pause: bool,
    ) -> Result<(), Violation> {
        let name = if pause { "Pause" } else { "Resume" };
        let number = self.expect_seated(shard, id, name)?;
        let link = &mut self.links[number];
        ensure!(link.paused != pause, Door, "{name} twice for link {number}");
        link.paused = pause;
        link.paused_at = now;
        Ok(())
    }

    /// The engine is done with a connection: what is left is written as far as it goes.
    fn close(&mut self, shard: usize, now: Millis, id: ConnectionId) -> Result<(), Violation> {
        let number = self.expect_seated(shard, id, "Close")?;
        let station = &mut self.stations[shard];
        let link = &mut self.links[number];
        link.rest = gather(&station.shard, id);
        station.sent += link.rest.len() as u64;
        station.blocked.remove(&number);
        link.side = Side::Lingering(now + LINGER_MS);
        link.end(now, station.store.issued + 1);
        link.form(now, link.down.written + link.rest.len() as u64);
        let rest = link.rest.len() as u64;
        self.depart(number, now, rest);
        Ok(())
    }
}
