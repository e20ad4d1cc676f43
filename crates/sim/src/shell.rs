//! The shell: drives the shards as the server does, and watches that they keep to their door.

mod archive;
mod commit;
mod crash;
mod effect;
mod inbox;
mod journal;
mod line;
mod link;
mod pipe;
mod store;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use casemate_codec::Reason;
use casemate_engine::policy::Policy;
use casemate_engine::{
    ConnectionId, Counters, Effect, Event, Loss, Millis, Origin, Parcel, Place, Settings, Shard,
    Verdict,
};

use casemate_store::Answer;

use crate::chance::Chance;
use crate::history::Violation;
use crate::plan::{Plan, Promptness};
use crate::stream::Weather;

use archive::Archive;
use crash::Life;
pub use crash::Wreck;
use journal::Journal;
use link::Departure;
pub use link::{Link, Mark, Owner, Side};
use pipe::Pipe;
pub use store::Seqs;
use store::Store;

/// What waits for a shard.
#[derive(Debug)]
enum Item {
    Open {
        link: usize,
    },
    Adopt {
        link: usize,
        parcel: Box<Parcel>,
    },
    Decide {
        link: usize,
        id: ConnectionId,
        step: u32,
        verdict: Verdict,
    },
    Forwarded {
        from: usize,
        batch: Vec<u8>,
    },
    Drained {
        to: usize,
        bytes: usize,
    },
    Policy(Arc<Policy>),
    Expel {
        name: String,
        end_sessions: bool,
    },
    Announce {
        topic: String,
        payload: Vec<u8>,
        retain: bool,
    },
    /// What has become of records, from the archive.
    Kept {
        answer: Answer,
    },
    StoreWorks,
    Checkpoint,
    Drain,
    Leave,
    Stop {
        reason: Reason,
    },
}

/// What the shell tells the world.
#[derive(Debug)]
pub enum Report {
    /// The engine told something about a link, or about no link.
    Told {
        link: Option<usize>,
        event: Box<Event>,
    },
    /// The archive keeps nothing any more, or all again.
    Store { works: bool },
    /// A shard obeys a law.
    Obeys { shard: usize, epoch: u64 },
}

/// One shard and what surrounds it.
struct Station {
    shard: Shard,
    inbox: BTreeMap<(Millis, u64), Item>,
    order: u64,
    store: Store,
    /// Links by id, those that are over included: ids are never used again.
    seats: BTreeMap<ConnectionId, usize>,
    generations: Vec<u32>,
    free: Vec<u32>,
    /// Links with bytes to write and, when last tried, no room for them.
    blocked: BTreeSet<usize>,
    /// It takes no new promise, and whether it has said that the old ones are kept.
    drains: bool,
    has_settled: bool,
    /// Ticks at one moment, which must not go on for ever.
    ticked: (Millis, u32),
    /// When it hears the last of what the archive has told so far.
    heard_at: Millis,
    /// Bytes handed over and taken away.
    received: u64,
    sent: u64,
}

impl Station {
    /// A shard to which nothing has happened.
    fn new(shard: Shard, store: Store) -> Station {
        Station {
            shard,
            inbox: BTreeMap::new(),
            order: 0,
            store,
            seats: BTreeMap::new(),
            generations: Vec::new(),
            free: Vec::new(),
            blocked: BTreeSet::new(),
            drains: false,
            has_settled: false,
            ticked: (0, 0),
            heard_at: 0,
            received: 0,
            sent: 0,
        }
    }
}

/// All shards, links and pipes.
pub struct Shell {
    stations: Vec<Station>,
    pipes: Vec<Vec<Pipe>>,
    settings: Arc<Settings>,
    /// Of the first process; a later one takes those of the journal, if there are any.
    seeds: [u64; 4],
    plan: Arc<Plan>,
    gate: Promptness,
    read_bytes_max: usize,
    fresh_ids: u64,
    /// Every link of the run, by number.
    pub links: Vec<Link>,
    /// Those whose broker end or client end still lives.
    pub live: Vec<usize>,
    journal: Journal,
    archive: Option<Archive>,
    /// For the world, which empties it.
    pub reports: Vec<Report>,
    /// Inputs handled.
    pub turns: u64,
    life: Life,
}

impl Shell {
    /// Shards with empty tables.
    ///
    /// # Errors
    /// There is no store.
    pub fn new(
        plan: &Arc<Plan>,
        policy: &Arc<Policy>,
        chance: &mut Chance,
    ) -> Result<Shell, Violation> {
        let seeds = [chance.bits(), chance.bits(), chance.bits(), chance.bits()];
        let settings = Arc::new(Settings {
            // Half of all runs, without another throw of the dice.
            journal: seeds[0] & 1 == 1 || plan.crashes.is_some(),
            ..plan.settings.clone()
        });
        let mut shell = Shell {
            stations: Vec::new(),
            pipes: Vec::new(),
            seeds,
            plan: Arc::clone(plan),
            gate: plan.gate,
            read_bytes_max: plan.read_bytes_max,
            fresh_ids: 0,
            links: Vec::new(),
            live: Vec::new(),
            journal: Journal::new(settings.journal),
            archive: match &plan.disk {
                Some(disk) => Some(Archive::new(disk, seeds[1])?),
                None => None,
            },
            settings,
            reports: Vec::new(),
            turns: 0,
            life: Life::default(),
        };
        shell.raise(plan.shards, seeds, policy, 0)?;
        Ok(shell)
    }

    /// Makes empty shards, and pipes between them.
    fn raise(
        &mut self,
        count: usize,
        seeds: [u64; 4],
        policy: &Arc<Policy>,
        now: Millis,
    ) -> Result<(), Violation> {
        let plan = &self.plan;
        let station = |index: usize| {
            let place = Place {
                index: index as u16,
                count: count as u16,
                seeds,
            };
            let settings = Arc::clone(&self.settings);
            let shard = Shard::new(settings, place, Arc::clone(policy), now);
            let mut store = Store::new(plan.store, plan.store_failures_permille);
            if plan.disk.is_some() {
                store.archive();
            }
            Station::new(shard, store)
        };
        let pipe = Pipe::new(plan.pipe_ms_max, plan.pipe_stands_permille, &plan.settings);
        self.stations = (0..count).map(station).collect();
        self.pipes = vec![vec![pipe; count]; count];
        match &mut self.archive {
            Some(archive) => archive.open(count),
            None => Ok(()),
        }
    }

    /// How many shards there are; none while no process lives.
    pub fn shards(&self) -> usize {
        self.stations.len()
    }

    /// A client opens a connection; some shard accepts it.
    pub fn open(
        &mut self,
        now: Millis,
        chance: &mut Chance,
        owner: Owner,
        weather: Weather,
    ) -> usize {
        let link = self.links.len();
        let shard = chance.index(self.stations.len());
        let mut opened = Link::new(owner, weather, now, shard);
        opened.process = self.life.process;
        self.links.push(opened);
        self.live.push(link);
        let at = now + chance.between(0, weather.delay_ms_max);
        self.post(shard, at, Item::Open { link });
        link
    }

    /// The client breaks the connection.
    pub fn cut(&mut self, now: Millis, chance: &mut Chance, link: usize) {
        let link = &mut self.links[link];
        link.client_gone = true;
        link.was_cut = true;
        link.up.cut(now, chance);
        link.down.cut(now, chance);
    }

    /// The client closes in order: what it wrote still arrives.
    pub fn finish(&mut self, now: Millis, link: usize) {
        let link = &mut self.links[link];
        link.client_gone = true;
        link.up.finish(now);
    }

    /// Puts something into a shard's inbox.
    fn post(&mut self, shard: usize, at: Millis, item: Item) {
        let station = &mut self.stations[shard];
        station.order += 1;
        station.inbox.insert((at, station.order), item);
    }

    /// Sends a new policy to every shard.
    pub fn install(&mut self, now: Millis, chance: &mut Chance, policy: &Arc<Policy>) {
        for shard in 0..self.stations.len() {
            let at = now + chance.between(0, self.plan.pipe_ms_max);
            self.post(shard, at, Item::Policy(Arc::clone(policy)));
        }
    }

    /// Closes the connections of a person in every shard.
    pub fn expel(&mut self, now: Millis, name: &str, end_sessions: bool) {
        for shard in 0..self.stations.len() {
            self.post(
                shard,
                now,
                Item::Expel {
                    name: name.to_owned(),
                    end_sessions,
                },
            );
        }
    }

    /// Lets the broker itself publish; shard 0 does it.
    pub fn announce(&mut self, now: Millis, topic: &str, payload: &[u8], retain: bool) {
        if self.is_down() {
            return;
        }
        let (topic, payload) = (topic.to_owned(), payload.to_vec());
        self.post(
            0,
            now,
            Item::Announce {
                topic,
                payload,
                retain,
            },
        );
    }

    /// Tells every shard to take no new promise.
    pub fn drain(&mut self, now: Millis, chance: &mut Chance) {
        for shard in 0..self.stations.len() {
            let at = now + chance.between(0, self.plan.pipe_ms_max);
            self.post(shard, at, Item::Drain);
        }
    }

    /// True where every shard has said that its promises are kept.
    pub fn has_settled(&self) -> bool {
        self.stations.iter().all(|station| station.has_settled)
    }

    /// Tells every shard to close whoever is owed nothing.
    pub fn leave_all(&mut self, now: Millis, chance: &mut Chance) {
        for shard in 0..self.stations.len() {
            let at = now + chance.between(0, self.plan.pipe_ms_max);
            self.post(shard, at, Item::Leave);
        }
    }

    /// Tells every shard to stop.
    pub fn stop(&mut self, now: Millis) {
        for shard in 0..self.stations.len() {
            self.post(
                shard,
                now,
                Item::Stop {
                    reason: Reason::ServerShuttingDown,
                },
            );
        }
    }

    /// When a shard next has something to do.
    pub fn next_at(&self, shard: usize) -> Option<Millis> {
        let station = &self.stations[shard];
        let due = [
            station.inbox.keys().next().map(|(at, _)| *at),
            station.shard.next_deadline(),
            station.store.next_at(),
        ];
        let links = self.live.iter().filter_map(|link| {
            let link = &self.links[*link];
            (link.shard == shard).then(|| link.due()).flatten()
        });
        let blocked = station
            .blocked
            .iter()
            .any(|link| self.links[*link].down.room() > 0);
        due.into_iter()
            .flatten()
            .chain(links)
            .chain(blocked.then_some(0))
            .min()
    }

    /// Bytes between the shards.
    pub fn piped(&self) -> usize {
        self.pipes.iter().flatten().map(Pipe::inside).sum()
    }

    /// True where nothing waits for any shard and nothing is between them.
    pub fn is_idle(&self) -> bool {
        let quiet =
            |station: &Station| station.inbox.is_empty() && station.store.next_at().is_none();
        let archived = self.archive.as_ref().is_none_or(Archive::is_idle);
        self.stations.iter().all(quiet) && self.piped() == 0 && archived
    }

    /// The store, the gate and the pipes answer at once from now on.
    pub fn heal(&mut self, now: Millis) {
        self.gate = Promptness::AtOnce;
        self.read_bytes_max = 1 << 18;
        for station in &mut self.stations {
            station.store.heal(now);
        }
        self.heal_archive(now);
        for pipe in self.pipes.iter_mut().flatten() {
            pipe.heal();
        }
        for link in &self.live {
            self.links[*link].up.heal();
            self.links[*link].down.heal();
        }
    }

    /// The counters of one shard, with what the shell itself counted: bytes in, bytes out.
    pub fn counters(&self, shard: usize) -> (&Counters, u64, u64) {
        let station = &self.stations[shard];
        (station.shard.counters(), station.received, station.sent)
    }

    /// How many links are seated at a shard.
    pub fn seated(&self, shard: usize) -> usize {
        let here = |link: &&usize| {
            let link = &self.links[**link];
            link.shard == shard && matches!(link.side, Side::Seated | Side::Lingering(_))
        };
        self.live.iter().filter(here).count()
    }

    /// The link behind an id, if the id still stands for it.
    fn seated_link(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        let link = *self.stations[shard].seats.get(&id)?;
        let seated = &self.links[link];
        (seated.side == Side::Seated && seated.shard == shard && seated.id == id).then_some(link)
    }

    /// Gives a link a seat in a shard.
    fn seat(&mut self, shard: usize, link: usize) -> ConnectionId {
        let station = &mut self.stations[shard];
        let slot = station.free.pop().unwrap_or_else(|| {
            station.generations.push(0);
            station.generations.len() as u32 - 1
        });
        let generation = &mut station.generations[slot as usize];
        *generation += 1;
        let id = ConnectionId {
            slot,
            generation: *generation,
        };
        station.seats.insert(id, link);
        let link = &mut self.links[link];
        link.shard = shard;
        link.id = id;
        link.side = Side::Seated;
        link.paused = false;
        link.question = None;
        id
    }

    /// One number of each shard's store.
    fn seqs(&self, of: impl Fn(&Store) -> u64) -> Seqs {
        let mut seqs = Seqs::default();
        for (seq, station) in seqs.iter_mut().zip(&self.stations) {
            *seq = of(&station.store);
        }
        seqs
    }

    /// Remembers when bytes left the engine, `more` of them not yet in the stream.
    fn depart(&mut self, link: usize, now: Millis, more: u64) {
        let persisted = self.seqs(|store| store.persisted);
        let link = &mut self.links[link];
        let end = link.down.written + more;
        link.departures.push_back(Departure {
            end,
            at: now,
            persisted,
        });
    }

    /// Facts about a link's transport.
    fn origin() -> Origin {
        Origin {
            listener: 0,
            address: None,
            certificate: None,
        }
    }

    /// Forgets links that both ends have given up.
    pub fn bury(&mut self) {
        let links = &self.links;
        self.live.retain(|link| {
            let link = &links[*link];
            link.side != Side::Gone || !link.client_gone
        });
    }
}

impl Link {
    /// When the broker's end has something to read, or to close.
    fn due(&self) -> Option<Millis> {
        match self.side {
            Side::Seated if self.paused && !self.was_cut => None,
            Side::Seated => self.up.readable_at(),
            Side::Lingering(until) if !self.rest.is_empty() && self.down.room() == 0 => Some(until),
            Side::Lingering(_) => Some(0),
            Side::Moving | Side::Gone => None,
        }
    }
}

/// What the engine says about a lost transport.
const LOST: Loss = Loss::Transport;

/// A buffer of effects, reused.
type Effects = Vec<Effect>;
