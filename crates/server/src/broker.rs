//! What the shards of one server share.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use casemate_engine::{Counters, Millis, Settings, ShardIndex};
use mio::Registry;

use crate::admission::Admissions;
use crate::clock::Clock;
use crate::counters::{add, ServerCounters, Tally};
use crate::entrance::Entrances;
use crate::expulsion::Expulsions;
use crate::gate::Gate;
use crate::inbox::{Inbox, Letter};
use crate::lock::lock;
use crate::question::{Question, QuestionId, Questions, Suspect};
use crate::ring::Ring;

/// Addresses that are remembered as told about; beyond them the memory starts anew.
const STRANGERS_MAX: usize = 4096;

/// How long an address is remembered as told about, ms. Short enough that who knocks on and on is
/// told about often enough to be banned: fail2ban counts lines in ten minutes.
const STRANGERS_MS: Millis = 10_000;

/// Everything that more than one thread touches.
pub(crate) struct Broker {
    /// One clock for all.
    pub clock: Clock,
    /// Who comes in.
    pub gate: Gate,
    /// Password checks.
    pub questions: Questions<Question, Suspect>,
    /// Who is proven and waits to be let in.
    pub admissions: Admissions,
    /// Who was expelled lately.
    pub expulsions: Expulsions,
    /// What is told.
    pub ring: Ring,
    /// What is counted here.
    pub tally: Tally,
    /// One for each shard.
    pub posts: Vec<Post>,
    /// One for each listener.
    pub entrances: Entrances,
    /// Limits of the engine.
    pub settings: Arc<Settings>,
    /// See [`crate::Options::handshakes_per_turn`].
    pub handshakes_per_turn: usize,
    /// See [`crate::Options::sys_interval_s`].
    pub sys_interval_s: u32,
    /// Seeds of keyed hashing, the same for all shards.
    pub seeds: [u64; 4],
    /// Somebody wants to be asked about everybody who is let in.
    is_consulted: AtomicBool,
    is_stopping: AtomicBool,
    progress: Mutex<Progress>,
    progressed: Condvar,
    strangers: Mutex<Strangers>,
}

/// Where one shard is reached.
pub(crate) struct Post {
    /// Its letters.
    pub inbox: Inbox,
    /// Its poll, so that a socket can join it before the shard hears of it.
    pub registry: Registry,
    /// Its counters as of the last time it looked up.
    pub counters: Mutex<Counters>,
}

/// How far the shards have come.
struct Progress {
    /// The policy that each shard obeys.
    epochs: Vec<Option<u64>>,
    /// The last question whether it lives that each shard has answered.
    answers: Vec<u64>,
    /// The last one that was asked.
    asked: u64,
    /// The shards whose promises are kept, since they were told to drain.
    settled: Vec<bool>,
    /// The shards without connections, since they were told to let them go.
    left: Vec<bool>,
    /// The last change of its listening sockets that each shard has made.
    doors: Vec<u64>,
    /// Shards that have not ended.
    running: usize,
    /// Some shard ended with connections that had not closed in time.
    cut_off: bool,
    /// Why the server failed.
    failure: Option<String>,
}

#[derive(Default)]
struct Strangers {
    /// Those without an address count as one.
    told: HashSet<(Option<IpAddr>, Oddity)>,
    since: Millis,
}

/// What is told only once for each address and [`STRANGERS_MS`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Oddity {
    /// A failed handshake.
    Handshake,
    /// A handshake that did not end.
    Timeout,
    /// Something else on a TLS port.
    PlainOnTls,
    /// TLS on a plain port.
    TlsOnPlain,
    /// No PROXY header where one is required.
    Proxy,
    /// HTTP on a port of MQTT.
    HttpOnMqtt,
    /// MQTT on a WebSocket port.
    PlainOnWebSocket,
    /// A request that is granted no WebSocket.
    Upgrade,
    /// A WebSocket frame that breaks the rules.
    Frame,
}

/// What [`Broker::new`] needs.
pub(crate) struct Parts {
    pub clock: Clock,
    pub gate: Gate,
    pub questions: Questions<Question, Suspect>,
    pub is_consulted: bool,
    pub admissions: Admissions,
    pub ring: Ring,
    pub posts: Vec<(Inbox, Registry)>,
    pub settings: Settings,
    pub handshakes_per_turn: usize,
    pub sys_interval_s: u32,
    pub seeds: [u64; 4],
}

impl Broker {
    /// Nothing runs yet, but every shard counts as running.
    pub fn new(parts: Parts) -> Broker {
        let shards = parts.posts.len();
        let posts = parts.posts.into_iter().map(|(inbox, registry)| Post {
            inbox,
            registry,
            counters: Mutex::default(),
        });
        Broker {
            clock: parts.clock,
            gate: parts.gate,
            questions: parts.questions,
            admissions: parts.admissions,
            expulsions: Expulsions::default(),
            ring: parts.ring,
            tally: Tally::default(),
            posts: posts.collect(),
            entrances: Entrances::default(),
            settings: Arc::new(parts.settings),
            handshakes_per_turn: parts.handshakes_per_turn,
            sys_interval_s: parts.sys_interval_s,
            seeds: parts.seeds,
            is_consulted: AtomicBool::new(parts.is_consulted),
            is_stopping: AtomicBool::new(false),
            progress: Mutex::new(Progress {
                epochs: vec![None; shards],
                answers: vec![0; shards],
                asked: 0,
                settled: vec![false; shards],
                left: vec![false; shards],
                doors: vec![0; shards],
                running: shards,
                cut_off: false,
                failure: None,
            }),
            progressed: Condvar::new(),
            strangers: Mutex::default(),
        }
    }

    /// Sends a letter to one shard.
    pub fn post(&self, to: ShardIndex, letter: Letter) {
        if let Some(post) = self.posts.get(usize::from(to)) {
            post.inbox.post(letter);
        }
    }

    /// Sends a letter to every shard.
    pub fn post_all(&self, letter: impl Fn() -> Letter) {
        for post in &self.posts {
            post.inbox.post(letter());
        }
    }

    /// Expels a principal from every shard, and from what is under way between them.
    pub fn expel(&self, name: &str, end_sessions: bool) {
        let expulsion = self.expulsions.record(name, end_sessions);
        self.post_all(|| Letter::Expel(expulsion.clone()));
    }

    /// A shard obeys the policy of this epoch.
    pub fn policy_in_force(&self, shard: ShardIndex, epoch: u64) {
        if let Some(row) = lock(&self.progress).epochs.get_mut(usize::from(shard)) {
            *row = Some(epoch);
        }
        self.progressed.notify_all();
    }

    /// Waits until every shard obeys the policy of this epoch or a later one.
    pub fn wait_policy_in_force(&self, epoch: u64, timeout: Duration) -> bool {
        self.wait(timeout, |progress| {
            progress
                .epochs
                .iter()
                .all(|row| row.is_some_and(|now| now >= epoch))
        })
    }

    /// A shard has read a question whether it lives.
    pub fn answered(&self, shard: ShardIndex, round: u64) {
        if let Some(row) = lock(&self.progress).answers.get_mut(usize::from(shard)) {
            *row = round;
        }
        self.progressed.notify_all();
    }

    /// Asks every shard whether it lives; false where one does not answer in time.
    ///
    /// Who has not answered the last question is not asked again, so that nothing piles up.
    pub fn makes_progress(&self, timeout: Duration) -> bool {
        let answered = |progress: &Progress| {
            let asked = progress.asked;
            progress.answers.iter().all(|&row| row >= asked)
        };
        let mut progress = lock(&self.progress);
        if progress.running < progress.answers.len() {
            return false;
        }
        if answered(&progress) {
            progress.asked += 1;
            let round = progress.asked;
            drop(progress);
            self.post_all(|| Letter::Answer { round });
        } else {
            drop(progress);
        }
        self.wait(timeout, answered)
    }

    /// A shard that drains has kept all its promises.
    pub fn settled(&self, shard: ShardIndex) {
        if let Some(row) = lock(&self.progress).settled.get_mut(usize::from(shard)) {
            *row = true;
        }
        self.progressed.notify_all();
    }

    /// A shard that lets everybody go has no connection left.
    pub fn left(&self, shard: ShardIndex) {
        if let Some(row) = lock(&self.progress).left.get_mut(usize::from(shard)) {
            *row = true;
        }
        self.progressed.notify_all();
    }

    /// Makes every shard take no new promise, and waits until they have kept those they made.
    pub fn drain(&self, server_reference: Option<&str>, timeout: Duration) -> bool {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.close_questions();
        let server_reference: Option<Arc<str>> = server_reference.map(Into::into);
        self.post_all(|| Letter::Drain {
            server_reference: server_reference.clone(),
        });
        self.wait_or_broken(timeout, |progress| &progress.settled)
    }

    /// Lets everybody go who is owed nothing, and waits until nobody is left.
    pub fn leave(&self, timeout: Duration) -> bool {
        self.post_all(|| Letter::Leave);
        self.wait_or_broken(timeout, |progress| &progress.left)
    }

    /// Waits until every shard has said so; false where some shard ended without.
    fn wait_or_broken(&self, timeout: Duration, said: impl Fn(&Progress) -> &Vec<bool>) -> bool {
        let all = |progress: &Progress| said(progress).iter().all(|&row| row);
        self.wait(timeout, |progress| {
            all(progress) || progress.running < progress.left.len()
        }) && all(&lock(&self.progress))
    }

    /// A shard's listening sockets are as this change and all before it wanted them.
    pub fn doors_changed(&self, shard: ShardIndex, round: u64) {
        if let Some(row) = lock(&self.progress).doors.get_mut(usize::from(shard)) {
            *row = round;
        }
        self.progressed.notify_all();
    }

    /// The last change of listening sockets that every shard has made.
    pub fn doors_round(&self) -> u64 {
        lock(&self.progress)
            .doors
            .iter()
            .copied()
            .min()
            .unwrap_or(0)
    }

    /// Waits until every shard that still runs has made this change of its listening sockets.
    pub fn wait_doors_changed(&self, round: u64, timeout: Duration) -> bool {
        self.wait(timeout, |progress| {
            let obeyed = progress.doors.iter().all(|&row| row >= round);
            obeyed || progress.running < progress.doors.len()
        })
    }

    /// A shard has ended; `orderly` where all its connections had closed.
    pub fn ended(&self, orderly: bool) {
        let mut progress = lock(&self.progress);
        progress.running = progress.running.saturating_sub(1);
        progress.cut_off |= !orderly;
        drop(progress);
        self.progressed.notify_all();
    }

    /// Waits until every shard has ended; true where all of them did and in order.
    pub fn wait_ended(&self, timeout: Duration) -> bool {
        self.wait(timeout, |progress| progress.running == 0) && !lock(&self.progress).cut_off
    }

    /// Waits until no more than this many shards run.
    #[cfg(test)]
    pub fn wait_running(&self, count: usize, timeout: Duration) -> bool {
        self.wait(timeout, |progress| progress.running <= count)
    }

    /// True once every shard has ended.
    pub fn has_ended(&self) -> bool {
        lock(&self.progress).running == 0
    }

    fn wait(&self, timeout: Duration, done: impl Fn(&Progress) -> bool) -> bool {
        let until = Instant::now().checked_add(timeout);
        let mut progress = lock(&self.progress);
        while !done(&progress) {
            let left = until.map_or(Duration::from_secs(3600), |until| {
                until.saturating_duration_since(Instant::now())
            });
            if left.is_zero() {
                return false;
            }
            progress = match self.progressed.wait_timeout(progress, left) {
                Ok((progress, _)) => progress,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }

    /// Records that a shard broke, and stops all others: half a broker must not go on.
    pub fn fail(&self, cause: String) {
        lock(&self.progress).failure.get_or_insert(cause);
        self.stop_by(self.clock.now());
    }

    /// Why the server failed, if it did.
    pub fn failure(&self) -> Option<String> {
        lock(&self.progress).failure.clone()
    }

    /// Orders every shard to say good-bye and to end at `until` at the latest.
    pub fn stop_by(&self, until: Millis) {
        self.is_stopping.store(true, Ordering::SeqCst);
        self.close_questions();
        self.post_all(|| Letter::Stop { until });
    }

    /// Lets those go who wait for a question; nothing more can be asked.
    fn close_questions(&self) {
        self.questions.close();
        self.admissions.close();
    }

    /// A connection waits no longer for the answer to its question, of whichever kind.
    pub fn forget_question(&self, id: QuestionId) {
        if self.questions.settle(id).is_none() {
            self.admissions.settle(id);
        }
    }

    /// Asks from now on about everybody who is let in, or no longer.
    pub fn consult(&self, is_wanted: bool) {
        self.is_consulted.store(is_wanted, Ordering::SeqCst);
    }

    /// True where somebody wants to be asked about everybody who is let in.
    pub fn is_consulted(&self) -> bool {
        self.is_consulted.load(Ordering::SeqCst)
    }

    /// True once nobody new is wanted.
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// True where this address was not yet told about for this oddity.
    pub fn is_news(&self, address: Option<SocketAddr>, oddity: Oddity) -> bool {
        let now = self.clock.now();
        let mut strangers = lock(&self.strangers);
        if strangers.told.len() >= STRANGERS_MAX || now >= strangers.since + STRANGERS_MS {
            strangers.told.clear();
            strangers.since = now;
        }
        strangers.told.insert((address.map(|it| it.ip()), oddity))
    }

    /// Everything that is counted, as of the last time each shard looked up.
    pub fn counters(&self) -> ServerCounters {
        let mut engine = Counters::default();
        for post in &self.posts {
            add(&mut engine, &lock(&post.counters));
        }
        let mut shell = self.tally.snapshot();
        shell.questions_now = self.questions.len() as u64;
        shell.admissions_now = self.admissions.len() as u64;
        ServerCounters { engine, shell }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use mio::{Poll, Waker};

    use super::*;
    use crate::question::Numbers;
    use crate::token;

    /// Goal: a shard that hangs is seen, and is not asked again and again. Method: two shards of
    /// which one never reads its letters.
    #[test]
    fn a_shard_that_does_not_answer_is_not_alive_and_is_asked_once() {
        let polls = [Poll::new().unwrap(), Poll::new().unwrap()];
        let posts = polls.iter().map(|poll| {
            let waker = Waker::new(poll.registry(), token::WAKER).unwrap();
            (Inbox::new(waker), poll.registry().try_clone().unwrap())
        });
        let clock = Clock::new();
        let broker = Broker::new(Parts {
            clock,
            gate: Gate::new(Vec::new(), clock),
            questions: Questions::new(1, Numbers::Odd),
            is_consulted: false,
            admissions: Questions::new(1, Numbers::Even),
            ring: Ring::new(1),
            posts: posts.collect(),
            settings: Settings::default(),
            handshakes_per_turn: 1,
            sys_interval_s: 0,
            seeds: [0; 4],
        });
        for _ in 0..3 {
            broker.answered(0, 1);
            assert!(!broker.makes_progress(Duration::ZERO));
        }
        let mut letters = Vec::new();
        broker.posts[1].inbox.swap(&mut letters);
        assert_eq!(letters.len(), 1);
        broker.answered(1, 1);
        // All have answered, so all are asked again.
        assert!(!broker.makes_progress(Duration::ZERO));
        broker.answered(0, 2);
        broker.answered(1, 2);
        broker.ended(true);
        assert!(!broker.makes_progress(Duration::ZERO), "a shard has ended");
    }
}
