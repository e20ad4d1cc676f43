//! One turn of a shard's loop, in the order in which the server takes it.

use std::io::IoSlice;

use casemate_engine::{Input, Millis};

use super::store::{Answer, Batch};
use super::{Effects, Shell, Side, LOST};
use crate::chance::Chance;
use crate::history::{ensure, Violation};

/// Rounds of writing in one turn before it counts as spinning.
const ROUNDS_MAX: u32 = 1_000;

/// What one shard may do in one moment without a word from a client: a question about retained
/// messages takes a turn each, and a store may answer thousands together. More is for ever.
const MOMENT_TURNS_MAX: u32 = 100_000;

/// Turns of shards between two orders to write everything down anew.
const CHECKPOINT_TURNS: u64 = 1_024;

impl Shell {
    /// Runs one turn of one shard.
    ///
    /// # Errors
    /// The engine broke a promise of its door.
    pub fn turn(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        self.turns += 1;
        self.read_links(shard, now, chance)?;
        self.take_items(shard, now, chance)?;
        self.answer_store(shard, now, chance)?;
        if self.stations[shard]
            .shard
            .next_deadline()
            .is_some_and(|at| at <= now)
        {
            self.tick(shard, now, chance)?;
        }
        self.handle(shard, now, chance, Input::TurnEnd)?;
        for round in 0.. {
            ensure!(
                round < ROUNDS_MAX,
                Bound,
                "shard {shard} never ends its turn"
            );
            self.answer_store(shard, now, chance)?;
            if self.is_dead() || !self.write_links(shard, now, chance)? {
                break;
            }
        }
        self.linger(shard, now, chance)
    }

    /// Compares what the shards have written down with what they hold, with all shards at the end
    /// of a turn.
    ///
    /// # Errors
    /// A restart would not go on as this broker does.
    pub fn check_journal(&mut self, now: Millis, chance: &mut Chance) -> Result<(), Violation> {
        if !self.journal.is_kept() || self.is_down() {
            return Ok(());
        }
        for shard in 0..self.stations.len() {
            self.handle(shard, now, chance, Input::TurnEnd)?;
        }
        if self.archive.is_none()
            && self.turns.is_multiple_of(CHECKPOINT_TURNS)
            && self.journal.begin_anew(self.stations.len())
        {
            for shard in 0..self.stations.len() {
                self.handle(shard, now, chance, Input::Checkpoint)?;
            }
        }
        let shards = self.stations.iter().map(|station| &station.shard);
        let unanswered = self.stations.iter().map(|it| it.store.unanswered());
        self.journal.check(shards, unanswered.flatten())
    }

    /// Gives one input to the shard and carries out what it asks for.
    pub(super) fn handle(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
        input: Input<'_>,
    ) -> Result<(), Violation> {
        if self.is_dead() {
            return Ok(());
        }
        let mut effects = Effects::new();
        self.stations[shard].shard.handle(now, input, &mut effects);
        if self.burn() {
            // The last that this process has done: the rest never happens.
            effects.truncate(chance.index(effects.len() + 1));
        }
        for effect in effects {
            self.carry_out(shard, now, chance, effect)?;
        }
        Ok(())
    }

    /// Tells the shard the time; it must not ask for the same moment for ever.
    fn tick(&mut self, shard: usize, now: Millis, chance: &mut Chance) -> Result<(), Violation> {
        self.handle(shard, now, chance, Input::Tick)?;
        let station = &mut self.stations[shard];
        if station.ticked.0 != now {
            station.ticked = (now, 0);
        }
        station.ticked.1 += 1;
        ensure!(
            station.ticked.1 < MOMENT_TURNS_MAX,
            Door,
            "shard {shard} asks for {now} ms for ever"
        );
        Ok(())
    }

    /// Reads what has arrived, each link up to a bound.
    fn read_links(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        let readable = |link: &&usize| {
            let link = &self.links[**link];
            let here = link.shard == shard && link.side == Side::Seated;
            here && link.due().is_some_and(|at| at <= now)
        };
        let mut ready: Vec<usize> = self.live.iter().filter(readable).copied().collect();
        chance.shuffle(&mut ready);
        for number in ready {
            let link = &mut self.links[number];
            // An earlier link of this turn may have ended or paused this one.
            if link.side != Side::Seated || link.shard != shard {
                continue;
            }
            if self.life.is_dead {
                break;
            }
            if !link.paused {
                self.read_link(shard, number, now, chance)?;
            }
            let link = &self.links[number];
            let torn = link.paused && link.was_cut;
            if link.side == Side::Seated && (link.up.is_over(now) || torn) {
                self.lose(shard, number, now, chance)?;
            }
        }
        Ok(())
    }

    /// Hands over what has arrived on one link.
    fn read_link(
        &mut self,
        shard: usize,
        number: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        let link = &mut self.links[number];
        let mut bytes = Vec::new();
        link.up.take(now, self.read_bytes_max, &mut bytes);
        if bytes.is_empty() {
            return Ok(());
        }
        link.heard_at = now;
        let id = link.id;
        let issued = self.seqs(|store| store.issued);
        let link = &mut self.links[number];
        let station = &mut self.stations[shard];
        station.received += bytes.len() as u64;
        // A client that answers at once may keep a shard busy for a thousand turns of one moment.
        station.ticked.1 = 0;
        link.hand(now, issued);
        self.handle(shard, now, chance, Input::Received { id, bytes: &bytes })?;
        let link = &mut self.links[number];
        if link.paused && link.goodbye_handed == Some(true) {
            // The engine may have stopped before it came to the DISCONNECT.
            link.goodbye_handed = Some(false);
        }
        Ok(())
    }

    /// Tells the shard that a transport is gone.
    fn lose(
        &mut self,
        shard: usize,
        number: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        self.leave(number, now);
        let id = self.links[number].id;
        self.handle(shard, now, chance, Input::Closed { id, loss: LOST })
    }

    /// Takes a link's seat away; its slot may be used again with a new generation.
    pub(super) fn leave(&mut self, number: usize, now: Millis) {
        let link = &mut self.links[number];
        link.side = Side::Gone;
        link.down.finish(now);
        let station = &mut self.stations[link.shard];
        link.end(now, station.store.issued + 1);
        station.free.push(link.id.slot);
        station.blocked.remove(&number);
    }

    /// Passes on what the store has answered.
    fn answer_store(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        for round in 0.. {
            ensure!(
                round < MOMENT_TURNS_MAX,
                Bound,
                "shard {shard} persists for ever"
            );
            if self.is_dead() {
                break;
            }
            let Some(answer) = self.stations[shard].store.answer(now, chance) else {
                break;
            };
            match answer {
                Answer::Persisted(batches) => {
                    let seq = batches.last().map_or(0, |batch| batch.seq);
                    self.journal.append(&batches)?;
                    self.handle(shard, now, chance, Input::Persisted { seq })?;
                }
                Answer::Failed(batches) => {
                    for Batch { seq, records, .. } in batches {
                        let input = Input::PersistFailed { seq, records };
                        self.handle(shard, now, chance, input)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Writes every link that has something to write; says whether there was one.
    fn write_links(
        &mut self,
        shard: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<bool, Violation> {
        let mut dirty = Vec::new();
        self.stations[shard].shard.take_dirty(&mut dirty);
        let mut ready = Vec::new();
        for id in dirty {
            let link = self.seated_link(shard, id);
            // A connection that the engine itself has closed or handed over may still be listed.
            if let Some(link) = link {
                ready.push(link);
            } else {
                ensure!(
                    self.stations[shard].seats.contains_key(&id),
                    Door,
                    "{id:?} of shard {shard} has bytes to write and was never opened"
                );
            }
        }
        let freed = |link: &&usize| self.links[**link].down.room() > 0;
        ready.extend(self.stations[shard].blocked.iter().filter(freed));
        ready.sort_unstable();
        ready.dedup();
        for link in &ready {
            if self.is_dead() {
                break;
            }
            self.write_link(shard, *link, now, chance)?;
        }
        Ok(!ready.is_empty())
    }

    /// Writes one link until it has nothing left or its client does not read.
    pub(super) fn write_link(
        &mut self,
        shard: usize,
        number: usize,
        now: Millis,
        chance: &mut Chance,
    ) -> Result<(), Violation> {
        self.stations[shard].blocked.remove(&number);
        for round in 0.. {
            ensure!(
                round < ROUNDS_MAX * 100,
                Bound,
                "link {number} is written for ever"
            );
            let link = &mut self.links[number];
            if link.side != Side::Seated || link.shard != shard {
                break;
            }
            let station = &mut self.stations[shard];
            let bytes = gather(&station.shard, link.id);
            if bytes.is_empty() {
                break;
            }
            check_window(&self.plan.settings, bytes.len(), number)?;
            link.form(now, link.down.written + bytes.len() as u64);
            let most = match chance.percent(90) {
                true => bytes.len(),
                false => chance.between(1, bytes.len() as u64) as usize,
            };
            let written = link.down.write(now, chance, &bytes[..most]);
            if written == 0 {
                if !link.client_gone {
                    station.blocked.insert(number);
                }
                break;
            }
            link.written_at = now;
            station.sent += written as u64;
            let id = link.id;
            self.depart(number, now, 0);
            self.handle(shard, now, chance, Input::Sent { id, bytes: written })?;
            if self.is_dead() {
                break;
            }
        }
        Ok(())
    }

    /// Writes the last bytes of closed connections, and lets go of them.
    fn linger(&mut self, shard: usize, now: Millis, chance: &mut Chance) -> Result<(), Violation> {
        for place in 0..self.live.len() {
            if self.is_dead() {
                break;
            }
            let number = self.live[place];
            let link = &mut self.links[number];
            let Side::Lingering(until) = link.side else {
                continue;
            };
            if link.shard != shard {
                continue;
            }
            let written = link.down.write(now, chance, &link.rest);
            link.rest.drain(..written);
            if link.rest.is_empty() || until <= now || link.client_gone {
                self.lose(shard, number, now, chance)?;
            }
        }
        Ok(())
    }
}

/// All that a connection has to write.
pub(super) fn gather(shard: &casemate_engine::Shard, id: casemate_engine::ConnectionId) -> Vec<u8> {
    let outgoing = shard.outgoing(id);
    let mut bytes = Vec::new();
    let mut slices = [IoSlice::new(&[]); 64];
    let filled = outgoing.slices(&mut slices);
    for slice in &slices[..filled] {
        bytes.extend_from_slice(slice);
    }
    bytes
}

/// A window holds what the settings say, one packet that began within, and small answers.
fn check_window(
    settings: &casemate_engine::Settings,
    bytes: usize,
    link: usize,
) -> Result<(), Violation> {
    let most = settings.window_bytes + settings.packet_bytes_max as usize * 2 + 128 * 1024;
    ensure!(
        bytes <= most,
        Bound,
        "{bytes} bytes in the window of link {link}"
    );
    Ok(())
}
