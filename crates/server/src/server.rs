//! The handle of a running server: start, ask, answer, install, stop.

use std::io;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use casemate_codec::Reason;
use casemate_engine::policy::Policy;
use casemate_engine::{Settings, ShardIndex, Verdict};
use mio::{Poll, Registry, Waker};

use crate::address::Address;
use crate::admission::Admission;
use crate::broker::{Broker, Parts};
use crate::clock::Clock;
use crate::counters::ServerCounters;
use crate::entrance::Doorway;
use crate::error::StartError;
use crate::event::Event;
use crate::gate::Gate;
use crate::inbox::{Inbox, Letter};
use crate::inside::{Insider, Link, LinkError};
use crate::lock::lock;
use crate::options::{Account, Inherited, Listener, Options};
use crate::question::{Answer, Asker, Numbers, Question, Questions};
use crate::random;
use crate::ring::Ring;
use crate::socket::Socket;
use crate::staging::{self, Installed};
use crate::store::{Store, StoreHealth, StoreOptions};
use crate::token;
use crate::worker::{self, Door, Share, Worker};

/// The most shards that one server has; the engine numbers neighbours in 64 bits.
const SHARDS_MAX: usize = 64;

/// How long shards may take to open and close their doors.
const OBEY_DEADLINE: Duration = Duration::from_secs(5);

/// How long a drop waits for shards to say good-bye.
const DROP_DEADLINE: Duration = Duration::from_secs(1);

/// What a drain leaves those who are told to go at its deadline.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What threads get beyond the stop deadline to cut off what is left.
const CUT_OFF_GRACE: Duration = Duration::from_secs(2);

/// A running server.
///
/// Every method may be called from any thread, several at a time. Dropping it stops it, but in a
/// forked child, where no method may be called any more: dropping it there does nothing.
pub struct Server {
    broker: Arc<Broker>,
    installed: Mutex<Installed>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Writes what must be kept, as long as there is a shard.
    store: Mutex<Option<Store>>,
    /// Programs of this process that came in: they are spread over the shards.
    entered: AtomicUsize,
    /// The process that started it. In a forked child there are none of its threads, and a lock
    /// that one of them held will never be given back.
    process: u32,
}

impl Server {
    /// Binds every listener and starts every shard.
    ///
    /// When it returns, clients can connect. `accounts` are those that certificates prove.
    ///
    /// # Errors
    /// A [`StartError`] that says what an operator can do; nothing is left behind then.
    pub fn start(options: Options, accounts: Vec<Account>) -> Result<Server, StartError> {
        Server::start_with(options, accounts, Vec::new())
    }

    /// Starts like [`Server::start`], with sockets that listen already in place of new ones.
    ///
    /// # Errors
    /// As `start`, and where a socket is not the one that its listener wants.
    pub fn start_with(
        options: Options,
        accounts: Vec<Account>,
        inherited: Vec<Inherited>,
    ) -> Result<Server, StartError> {
        check(&options)?;
        let shards = options.shards;
        let (polls, posts) = make_posts(shards)?;
        // At most 64 shards.
        let open = |store: &StoreOptions| store.open(shards as u16);
        let opened = options.store.as_ref().map(open).transpose()?;
        let seeds = match opened.as_ref().and_then(|opened| opened.kept.seeds()) {
            Some(seeds) => seeds,
            None => random::seeds().map_err(|_| StartError::NoRandomness)?,
        };
        let clock = Clock::starting(opened.is_some());
        let settings = Settings {
            journal: opened.is_some(),
            ..options.settings
        };
        let broker = Arc::new(Broker::new(Parts {
            clock,
            gate: Gate::new(accounts, clock),
            questions: Questions::new(options.question_max, Numbers::Odd),
            is_consulted: options.is_consulted,
            admissions: Questions::new(options.admissions_max, Numbers::Even),
            ring: Ring::new(options.events_max),
            posts,
            settings,
            handshakes_per_turn: options.handshakes_per_turn,
            sys_interval_s: options.sys_interval_s,
            seeds,
        }));
        let mut installed = Installed::default();
        let staged = installed.stage(&broker, &options.listeners, inherited)?;
        let doors = staged.commit(&broker, &mut installed).doors;
        let mut kept = None;
        let mut store = None;
        if let Some(mut opened) = opened {
            kept = Some(Arc::new(std::mem::take(&mut opened.kept)));
            store = Some(opened.start(&broker).map_err(StartError::StoreThread)?);
        }
        let lines = store.as_mut().map(|store| std::mem::take(&mut store.lines));
        let mut lines = lines.into_iter().flatten();
        let server = Server {
            broker: Arc::clone(&broker),
            store: Mutex::new(store),
            installed: Mutex::new(installed),
            threads: Mutex::default(),
            entered: AtomicUsize::new(0),
            process: std::process::id(),
        };
        for (index, (poll, doors)) in polls.into_iter().zip(doors).enumerate() {
            let share = Share {
                policy: Arc::clone(&options.policy),
                kept: kept.clone(),
                line: lines.next(),
                reserve: worker::reserve(),
            };
            match start_shard(&broker, index, poll, doors, share) {
                Ok(thread) => lock(&server.threads).push(thread),
                Err(cause) => {
                    // The shards that never started will not report their end.
                    (index..shards).for_each(|_| broker.ended(true));
                    return Err(StartError::shard(index, cause));
                }
            }
        }
        Ok(server)
    }

    /// Replaces the listeners: all of them are made ready first, then they are put in force.
    ///
    /// What listens where one did before keeps its socket; what is new about it counts for
    /// connections that come from now on. Live connections stay, also those of listeners that are
    /// gone, but for two kinds: by certificate with an account that no longer stands, and without
    /// proof where that is no longer admitted in the same way. Who is not in yet must prove itself
    /// as is asked now.
    ///
    /// True once every shard has obeyed; false where one has not within five seconds, and still
    /// will.
    ///
    /// # Errors
    /// A [`StartError`] that names the listener; everything is as it was then.
    pub fn install_listeners(&self, listeners: &[Listener]) -> Result<bool, StartError> {
        // Held until the shards are told: a second caller stages over what is in force, and its
        // letters follow ours.
        let mut installed = lock(&self.installed);
        let staged = installed.stage(&self.broker, listeners, Vec::new())?;
        let commit = staged.commit(&self.broker, &mut installed);
        let round = commit.round;
        commit.tell(&self.broker);
        drop(installed);
        Ok(self.broker.wait_doors_changed(round, OBEY_DEADLINE))
    }

    /// Lets a program of this process in as a client of the broker.
    ///
    /// # Errors
    /// [`LinkError`]: the server stops or has as many connections as it may have, or descriptors
    /// have run out.
    pub fn enter(&self, insider: Insider) -> Result<Link, LinkError> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        let name = insider.name.clone();
        let doorway = Arc::new(Doorway::inside(insider));
        let number = self.entered.fetch_add(1, Ordering::Relaxed);
        let letter = Letter::Entered {
            stream: Socket::Unix(mio::net::UnixStream::from_std(theirs)),
            doorway,
        };
        // At most 64 shards.
        let shard = (number % self.broker.posts.len()) as ShardIndex;
        self.broker.post(shard, letter);
        Link::open(ours, &name)
    }

    /// Name and real address of each listener, in the order of the options.
    pub fn addresses(&self) -> Vec<(String, Address)> {
        lock(&self.installed).addresses()
    }

    /// The oldest password check that nobody has taken yet.
    ///
    /// Waits at most `timeout`; `None` when the time is over or the server stops. A question whose
    /// client has gone or has waited beyond the connect deadline is dropped by itself.
    pub fn next_question(&self, timeout: Duration) -> Option<Question> {
        self.broker.questions.next(timeout)
    }

    /// Answers a question; false where nobody waits for it any more.
    pub fn answer(&self, question: u64, answer: Answer) -> bool {
        let Some(suspect) = self.broker.questions.settle(question) else {
            return false;
        };
        let verdict = self.broker.gate.verdict(answer);
        let Asker { shard, id, step } = suspect.asker;
        let visit = suspect.visit;
        let letter = Letter::Proven {
            id,
            step,
            verdict,
            visit,
        };
        self.broker.post(shard, letter);
        true
    }

    /// Asks about everybody who has proven who it is and would be let in from now on, by
    /// [`Server::next_admission`], or no longer. Nobody is let in unasked meanwhile: who cannot be
    /// asked about is refused. Programs of this process are not asked about.
    pub fn consult(&self, is_wanted: bool) {
        self.broker.consult(is_wanted);
    }

    /// The one who has waited longest to be let in and that nobody has looked at yet.
    ///
    /// Waits as [`Server::next_question`].
    pub fn next_admission(&self, timeout: Duration) -> Option<Admission> {
        self.broker.admissions.next(timeout)
    }

    /// Lets somebody in, or turns it away with this reason; false where it no longer waits.
    pub fn settle_admission(&self, admission: u64, refusal: Option<Reason>) -> bool {
        let Some(candidate) = self.broker.admissions.settle(admission) else {
            return false;
        };
        let Asker { shard, id, step } = candidate.asker;
        let verdict = match refusal {
            None => Verdict::Granted(candidate.grant),
            Some(reason) if reason.is_refusal() => Verdict::Refused(reason),
            // A refusal with a reason that means success is still a refusal.
            Some(_) => Verdict::Refused(Reason::NotAuthorized),
        };
        self.broker
            .post(shard, Letter::Decided { id, step, verdict });
        true
    }

    /// Replaces the accounts that certificates prove.
    ///
    /// Live connections whose account is gone or has changed in any way are closed, and every
    /// connection of a name that has no account left.
    pub fn install_accounts(&self, accounts: Vec<Account>) {
        let former = self.broker.gate.install(accounts);
        self.broker.post_all(|| Letter::Accounts);
        for name in former.names_gone(&self.broker.gate.accounts()) {
            self.broker.expel(&name, false);
        }
    }

    /// Sends a policy to every shard; see [`Server::wait_policy_in_force`].
    pub fn install_policy(&self, policy: Arc<Policy>) {
        self.broker.post_all(|| Letter::Policy(Arc::clone(&policy)));
    }

    /// Waits until every shard obeys the policy of this epoch or of a later one; false when the
    /// time is over first.
    pub fn wait_policy_in_force(&self, epoch: u64, timeout: Duration) -> bool {
        self.broker.wait_policy_in_force(epoch, timeout)
    }

    /// Closes every connection of an account, and forgets its sessions where asked.
    ///
    /// A password check that is under way does not escape: it is looked at when it is answered.
    pub fn expel(&self, name: &str, end_sessions: bool) {
        self.broker.expel(name, end_sessions);
    }

    /// At most `max` events, oldest first, and how many were lost since the last call.
    ///
    /// Waits at most `timeout` for the first one; returns at once when the server has ended.
    pub fn next_events(&self, max: usize, timeout: Duration) -> (Vec<Event>, u64) {
        let (events, lost) = self.broker.ring.fetch(max, timeout);
        let counter = &self.broker.tally.events_lost;
        counter.fetch_add(lost, std::sync::atomic::Ordering::Relaxed);
        (events, lost)
    }

    /// Everything that is counted; at most about 0.1 s old under load.
    pub fn counters(&self) -> ServerCounters {
        self.broker.counters()
    }

    /// How the store is; none where nothing is kept.
    pub fn store_health(&self) -> Option<StoreHealth> {
        lock(&self.store).as_ref().map(Store::health)
    }

    /// True once every shard has ended, by [`Server::stop`] or by itself.
    pub fn has_ended(&self) -> bool {
        self.broker.has_ended()
    }

    /// True where every shard answers within `timeout`: each has gone through its loop meanwhile.
    pub fn makes_progress(&self, timeout: Duration) -> bool {
        self.broker.makes_progress(timeout)
    }

    /// Why the server stopped by itself: a shard broke. `None` while all is well.
    pub fn failed(&self) -> Option<String> {
        self.broker.failure()
    }

    /// Ends without breaking a promise: nobody new is let in, what was acknowledged is delivered,
    /// and each client is told to go as soon as it is owed nothing: to `server_reference` where
    /// there is one (0x9C), else because the server goes away (0x8B). A PUBLISH of QoS 1 or 2 that
    /// comes meanwhile is not acknowledged, so its publisher keeps it.
    ///
    /// What is left at `deadline` is told too, and cut off a second later. True where every promise
    /// was kept and everything closed in time. [`Server::stop`] from another thread cuts it short.
    pub fn drain(&self, deadline: Duration, server_reference: Option<&str>) -> bool {
        let until = Instant::now().checked_add(deadline);
        let left = || {
            until.map_or(Duration::MAX, |until| {
                until.saturating_duration_since(Instant::now())
            })
        };
        let settled = self.broker.drain(server_reference, left());
        let gone = self.broker.leave(left());
        self.broker.stop_by(self.broker.clock.after(LAST_WORDS));
        self.end(LAST_WORDS) && settled && gone
    }

    /// Tells every client that the server goes away (0x8B), writes what is left, closes.
    ///
    /// What has not closed within `deadline` is cut off. True where everything closed in time;
    /// further calls wait for the same end.
    pub fn stop(&self, deadline: Duration) -> bool {
        self.broker.stop_by(self.broker.clock.after(deadline));
        self.end(deadline)
    }

    /// Waits at most a little longer than `deadline` for the end of every shard.
    fn end(&self, deadline: Duration) -> bool {
        let wait = deadline.saturating_add(CUT_OFF_GRACE);
        let orderly = self.broker.wait_ended(wait);
        if self.broker.has_ended() {
            for thread in lock(&self.threads).drain(..) {
                // A panic was caught and recorded inside the thread.
                let _ = thread.join();
            }
            // Waits until what the shards handed in is written.
            drop(lock(&self.store).take());
        }
        self.broker.ring.close();
        orderly
    }
}

impl Drop for Server {
    #[expect(
        clippy::disallowed_methods,
        reason = "to detach a thread that is not there may detach one that took its place"
    )]
    fn drop(&mut self) {
        if std::process::id() == self.process {
            self.stop(DROP_DEADLINE);
        } else {
            if let Ok(threads) = self.threads.get_mut() {
                std::mem::forget(std::mem::take(threads));
            }
            if let Ok(store) = self.store.get_mut() {
                std::mem::forget(store.take());
            }
        }
    }
}

/// Refuses options that cannot work, before anything is opened.
fn check(options: &Options) -> Result<(), StartError> {
    let refuse = |option, cause: &str| {
        Err(StartError::Option {
            option,
            cause: cause.into(),
        })
    };
    if !(1..=SHARDS_MAX).contains(&options.shards) {
        return refuse("shards", "must be from 1 to 64");
    }
    if options.handshakes_per_turn == 0 {
        return refuse("handshakes_per_turn", "must be at least 1");
    }
    staging::check(&options.listeners)
}

/// Where a shard is reached.
type Place = (Inbox, Registry);

/// What wakes each shard, and where it is reached.
fn make_posts(shards: usize) -> Result<(Vec<Poll>, Vec<Place>), StartError> {
    let mut polls = Vec::with_capacity(shards);
    let mut posts = Vec::with_capacity(shards);
    for shard in 0..shards {
        let poll = Poll::new().map_err(|cause| StartError::shard(shard, cause))?;
        let waker = Waker::new(poll.registry(), token::WAKER)
            .map_err(|cause| StartError::shard(shard, cause))?;
        let registry = poll.registry().try_clone();
        let registry = registry.map_err(|cause| StartError::shard(shard, cause))?;
        posts.push((Inbox::new(waker), registry));
        polls.push(poll);
    }
    Ok((polls, posts))
}

/// Starts one shard's thread.
fn start_shard(
    broker: &Arc<Broker>,
    index: usize,
    poll: Poll,
    doors: Vec<Door>,
    share: Share,
) -> io::Result<JoinHandle<()>> {
    let broker = Arc::clone(broker);
    let name = format!("casemate-shard-{index}");
    thread::Builder::new().name(name).spawn(move || {
        // Numbers up to 64 fit.
        let shard = index as u16;
        supervise(&broker, index, || {
            Worker::new(Arc::clone(&broker), shard, poll, doors, share).run()
        });
    })
}

/// Runs a shard's work; whatever happens in it, its end is reported, and where it breaks the
/// whole server stops.
fn supervise(broker: &Broker, index: usize, work: impl FnOnce() -> io::Result<bool>) {
    let outcome = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(orderly)) => Ok(orderly),
        Ok(Err(error)) => Err(format!("shard {index}: {error}")),
        Err(panic) => Err(format!("shard {index} panicked: {}", panic_text(&*panic))),
    };
    broker.posts[index].inbox.close();
    let orderly = match outcome {
        Ok(orderly) => orderly,
        Err(cause) => {
            broker.fail(cause);
            false
        }
    };
    broker.ended(orderly);
    if broker.has_ended() {
        broker.ring.close();
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (None, Some(text)) => text,
        (None, None) => "for an unknown cause",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::options::Security;

    fn is_shared<T: Send + Sync>() {}

    #[test]
    fn a_server_can_be_used_from_every_thread() {
        is_shared::<Server>();
    }

    #[test]
    fn options_that_cannot_work_are_refused_before_anything_is_opened() {
        let base = Options::default();
        for shards in [0, 65, usize::MAX] {
            let options = Options {
                shards,
                ..base.clone()
            };
            assert!(matches!(
                check(&options),
                Err(StartError::Option {
                    option: "shards",
                    ..
                })
            ));
        }
        assert!(matches!(
            check(&base),
            Err(StartError::Option {
                option: "listeners",
                ..
            })
        ));
    }

    fn plain(name: &str) -> Listener {
        Listener::new(
            name,
            std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            Security::Plain,
        )
    }

    fn server(shards: usize) -> Server {
        let options = Options {
            shards,
            listeners: vec![plain("plain")],
            ..Options::default()
        };
        Server::start(options, Vec::new()).unwrap()
    }

    /// Goal: however often listeners change, nothing grows. Method: each time one listener goes
    /// and another one comes, while the connection of a third that is gone lives on.
    #[test]
    fn a_hundred_thousand_reloads_do_not_grow_the_table() {
        let server = server(1);
        let address = server.addresses()[0].1.tcp().unwrap();
        let live = std::net::TcpStream::connect(address).unwrap();
        while server.counters().shell.accepted == 0 {
            thread::yield_now();
        }
        let descriptors = || std::fs::read_dir("/proc/self/fd").map(Iterator::count).ok();
        let before = descriptors();
        for number in 0..100_000 {
            let next = [plain(&format!("p{}", number % 2))];
            assert!(server.install_listeners(&next).unwrap());
        }
        assert!(lock(&server.installed).row_count() <= 5);
        // Other tests of this process have descriptors of their own.
        assert!(descriptors() <= before.map(|count| count + 100));
        drop(live);
    }

    /// Goal: a shard that panics is not quietly missing. Method: the same supervision around work
    /// that panics, beside shards that run.
    #[test]
    fn a_shard_that_panics_stops_the_whole_server() {
        let server = server(3);
        // It takes the place of the last shard, which hears the order to stop before.
        server.broker.post(2, Letter::Stop { until: 0 });
        server.broker.wait_running(2, Duration::from_secs(30));
        supervise(&server.broker, 2, || panic!("boom"));
        let text = server.failed().unwrap();
        assert!(text.contains("shard 2") && text.contains("boom"), "{text}");
        assert!(
            !server.stop(Duration::from_secs(30)),
            "this was no orderly end"
        );
        assert!(server.has_ended());
        assert!(server.next_question(Duration::from_secs(60)).is_none());
        assert!(server.next_events(1, Duration::from_secs(60)).0.len() <= 1);
        assert!(std::net::TcpStream::connect(server.addresses()[0].1.tcp().unwrap()).is_err());
    }
}
