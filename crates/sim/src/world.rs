//! The world: everybody who takes part, moved forward event by event.

mod crash;
mod drain;
mod ending;
mod rot;
mod watch;

use std::sync::Arc;

use casemate_engine::Millis;

use crate::chance::Chance;
use crate::client::{Client, Scene};
use crate::feature::Feature;
use crate::history::{ensure, History, Violation};
use crate::hostile::Hostile;
use crate::law::Law;
use crate::oracle::{payload, Author, Fate, Luggage, Message, Oracle};
use crate::plan::{Plan, FIRST_GOOD_PERSON};
use crate::shell::Shell;

/// Steps at one moment before the world counts as standing still.
const STEPS_MAX: u32 = 200_000;

/// Turns of shards between two looks at the journals.
const JOURNAL_TURNS: u64 = 256;

/// Somebody who can be due.
#[derive(Clone, Copy, Debug)]
enum Actor {
    Shard(usize),
    Client(usize),
    Hostile(usize),
    Operator,
    Committer,
    /// Whoever starts the next process.
    Starter,
}

/// A whole run.
pub struct World {
    plan: Arc<Plan>,
    now: Millis,
    chance: Chance,
    shell: Shell,
    oracle: Oracle,
    /// For whoever reads it.
    pub history: History,
    clients: Vec<Client>,
    hostile: Vec<Hostile>,
    operator_at: Millis,
    is_calm: bool,
    /// Things done so far.
    pub ticks: u64,
    stood: (Millis, u32),
    /// How often the process has died.
    deaths: usize,
}

impl World {
    /// A world before its first event.
    ///
    /// # Errors
    /// The engine refuses the first policy.
    pub fn new(plan: Plan, mut chance: Chance, history: History) -> Result<World, Violation> {
        let plan = Arc::new(plan);
        let law = Law::new(&mut chance, plan.shards);
        let policy = law.policy()?;
        let shell = Shell::new(&plan, &policy, &mut chance)?;
        let clients = plan.personas.iter().enumerate();
        let clients =
            clients.map(|(index, persona)| Client::new(index, persona.clone(), Arc::clone(&plan)));
        Ok(World {
            now: 0,
            clients: clients.collect(),
            hostile: (0..plan.hostile)
                .map(|index| Hostile::new(index, Arc::clone(&plan)))
                .collect(),
            oracle: Oracle::new(&plan, law),
            operator_at: 500,
            plan,
            chance,
            shell,
            history,
            is_calm: false,
            ticks: 0,
            stood: (0, 0),
            deaths: 0,
        })
    }

    /// Virtual time, ms.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// Messages published, and new copies that arrived.
    pub fn traffic(&self) -> (usize, u64) {
        (self.oracle.messages.len(), self.oracle.arrived)
    }

    /// Runs the storm for so many ticks, then the calm, then the verdict.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn live(&mut self, ticks: u64) -> Result<(), Violation> {
        while self.ticks < ticks || self.shell.is_down() {
            self.step()?;
        }
        self.end()?;
        self.rot()
    }

    /// What everybody needs while acting.
    fn scene(&mut self) -> (Scene<'_>, &mut Vec<Client>, &mut Vec<Hostile>) {
        let scene = Scene {
            now: self.now,
            chance: &mut self.chance,
            shell: &mut self.shell,
            oracle: &mut self.oracle,
            history: &mut self.history,
            is_calm: self.is_calm,
        };
        (scene, &mut self.clients, &mut self.hostile)
    }

    /// Moves to the next moment at which something is due, and does it.
    fn step(&mut self) -> Result<(), Violation> {
        let mut due = self.due();
        let Some(next) = due.iter().map(|(at, _)| *at).min() else {
            return Ok(());
        };
        self.now = self.now.max(next);
        if self.stood.0 != self.now {
            self.stood = (self.now, 0);
        }
        self.stood.1 += 1;
        ensure!(
            self.stood.1 < STEPS_MAX,
            Door,
            "time stands still at {} ms",
            self.now
        );
        due.retain(|(at, _)| *at <= self.now);
        self.chance.shuffle(&mut due);
        for (_, actor) in due {
            self.ticks += 1;
            self.run(actor)?;
            self.look()?;
        }
        self.check_deadlines()?;
        self.shell.bury();
        Ok(())
    }

    /// Everybody with the moment at which they are due.
    fn due(&self) -> Vec<(Millis, Actor)> {
        let mut due = Vec::new();
        due.extend(self.shell.commit_at().map(|at| (at, Actor::Committer)));
        due.extend(self.shell.up_at().map(|at| (at, Actor::Starter)));
        for shard in 0..self.shell.shards() {
            due.extend(
                self.shell
                    .next_at(shard)
                    .map(|at| (at, Actor::Shard(shard))),
            );
        }
        for client in &self.clients {
            due.push((client.next_at(&self.shell), Actor::Client(client.index)));
        }
        for (index, hostile) in self.hostile.iter().enumerate() {
            due.push((hostile.next_at(&self.shell), Actor::Hostile(index)));
        }
        if !self.is_calm {
            due.push((self.operator_at, Actor::Operator));
        }
        due
    }

    /// Lets one actor act.
    fn run(&mut self, actor: Actor) -> Result<(), Violation> {
        match actor {
            // The process may have died in this moment.
            Actor::Shard(shard) if shard >= self.shell.shards() => Ok(()),
            Actor::Shard(shard) => {
                let dies = self.is_doomed();
                self.shell.turn(shard, self.now, &mut self.chance)?;
                match dies {
                    true => self.crash(),
                    false => self.check_journal(),
                }
            }
            Actor::Committer => {
                let dies = self.is_doomed();
                self.shell.commit(self.now, &mut self.chance, dies)?;
                match dies {
                    true => self.crash(),
                    false => Ok(()),
                }
            }
            Actor::Starter => self.start(),
            Actor::Operator => self.operate(),
            Actor::Client(index) => {
                let (mut scene, clients, _) = self.scene();
                clients[index].step(&mut scene)
            }
            Actor::Hostile(index) => {
                let (mut scene, _, hostile) = self.scene();
                hostile[index].step(&mut scene)
            }
        }
    }

    /// Looks now and then, at a cost that grows with all that is held, whether a restart would go
    /// on as this broker does.
    fn check_journal(&mut self) -> Result<(), Violation> {
        match self.shell.turns % JOURNAL_TURNS {
            0 => self.shell.check_journal(self.now, &mut self.chance),
            _ => Ok(()),
        }
    }

    /// What an operator does: changes the law, expels somebody, announces something.
    fn operate(&mut self) -> Result<(), Violation> {
        self.operator_at = self.now + self.chance.between(100, 3_000);
        let features = self.plan.features;
        match self.chance.below(6) {
            0 | 1 if features.has(Feature::LawChanges) => {
                self.oracle.law.change(self.now, &mut self.chance, false);
                let policy = self.oracle.law.policy()?;
                let epoch = policy.epoch();
                self.history
                    .note(self.now, || format!("the operator posts the law {epoch}"));
                self.shell.install(self.now, &mut self.chance, &policy);
                if self.chance.percent(30) {
                    // Whoever mends a law posts the next one before the first is in force.
                    self.operator_at = self.now + self.chance.between(0, 40);
                }
            }
            2 if features.has(Feature::Expulsion) => self.expel(),
            3 | 4 if features.has(Feature::Announcements) => self.announce(),
            _ => {}
        }
        Ok(())
    }

    /// Closes all connections of somebody, sometimes ending the sessions too.
    fn expel(&mut self) {
        let good = self.plan.people.len() - FIRST_GOOD_PERSON;
        let person = FIRST_GOOD_PERSON + self.chance.index(good);
        let end_sessions = self.chance.percent(30);
        let name = self.plan.people[person].principal.name.clone();
        self.history.note(self.now, || {
            format!("the operator expels {name}, {end_sessions}")
        });
        self.shell.expel(self.now, &name, end_sessions);
        if end_sessions {
            for (client, session) in self.oracle.sessions.iter_mut().enumerate() {
                if session.asker.principal.name == name {
                    session.doubtful_at = Some(self.now);
                    session.doubt(self.now);
                    for will in self
                        .oracle
                        .wills
                        .iter_mut()
                        .filter(|will| will.client == client)
                    {
                        will.is_doubtful = true;
                    }
                }
            }
        }
    }

    /// Lets the broker publish something of its own.
    fn announce(&mut self) {
        let serial = self.oracle.next_serial();
        let topic = format!("$SYS/sim/{}", self.chance.below(3));
        let retain = self.chance.percent(50);
        let payload = payload(serial, 10);
        self.shell.announce(self.now, &topic, &payload, retain);
        self.oracle.add(Message {
            serial,
            tenant: 0,
            author: Author::Broker,
            incarnation: 0,
            topic,
            qos: casemate_codec::QoS::AtMostOnce,
            retain,
            payload,
            luggage: Luggage::default(),
            expiry_s: None,
            sent_at: self.now,
            taken_at: None,
            issued: None,
            done_at: None,
            transmissions: 1,
            repeats: 0,
            is_loose: false,
            fate: Fate::Open,
            law: None,
        });
    }
}
