//! A run from its first connection to its report.

use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use casemate_codec::QoS;

use crate::connection::Role;
use crate::discard::discard;
use crate::layout::{Layout, Task};
use crate::ledger::{Ledger, Window};
use crate::pool::Pool;
use crate::publisher::{Allowance, Publisher};
use crate::report::{Distribution, Moment, Report, Standing, Watcher};
use crate::{storm, LoadError, Pace, Plan, Shape, STAMP_BYTES};

/// From one word to the watcher to the next.
pub(crate) const WATCH_NS: u64 = 100_000_000;
/// The longest sleep in the readiness loop.
const SLEEP: Duration = Duration::from_millis(20);
/// Without a delivery for this long, what is under way is given up, so that the run goes on.
const STALL_NS: u64 = 1_000_000_000;
/// A pause that is shorter would take longer than it says: the kernel rounds sleeps up.
const PAUSE_NS_MIN: u64 = 50_000;
const PAUSE_NS_MAX: u64 = 4_000_000;
/// The part of what is under way that may be delivered while the generator pauses.
const PAUSE_SHARE: f64 = 1.0 / 16.0;

/// Runs a plan.
///
/// # Errors
/// [`LoadError`], before anything was sent where the plan or its certificates are wrong, and with
/// the first client that failed otherwise. A storm reports failures instead.
pub fn run(plan: &Plan, watcher: &mut dyn Watcher) -> Result<Report, LoadError> {
    plan.check()?;
    if let Shape::Connects { connections } = plan.shape {
        return storm::run(plan, connections as u64, watcher);
    }
    Run::prepare(plan, watcher)?.carry_out()
}

/// A run that is under way.
struct Run<'a> {
    plan: &'a Plan,
    watcher: &'a mut dyn Watcher,
    pool: Pool,
    books: Ledger,
    tasks: Vec<Task>,
    watched_ns: u64,
    kept_ns: u64,
    ended_early: bool,
    stalls: u64,
    rhythm: Rhythm,
}

impl<'a> Run<'a> {
    fn prepare(plan: &'a Plan, watcher: &'a mut dyn Watcher) -> Result<Run<'a>, LoadError> {
        let Layout { tasks, streams } = Layout::of(plan);
        let mut publishers = Vec::new();
        for (client, task) in tasks.iter().enumerate() {
            if let Task::Publish(topics) = task {
                // At most 100,000.
                let number = publishers.len() as u32;
                let publisher = Publisher::new(plan, number, topics).map_err(|error| {
                    let fault = error.into();
                    LoadError::Client { client, fault }
                })?;
                publishers.push(publisher);
            }
        }
        let filler = (STAMP_BYTES..plan.payload_bytes)
            .map(|index| b'a' + (index % 26) as u8)
            .collect();
        let expected_qos = plan.publish_qos.min(plan.subscribe_qos);
        let books = Ledger::new(publishers, streams, filler, plan.messages_max, expected_qos);
        Ok(Run {
            plan,
            watcher,
            pool: Pool::new(plan)?,
            books,
            tasks,
            watched_ns: 0,
            kept_ns: 0,
            ended_early: false,
            stalls: 0,
            rhythm: Rhythm::of(plan),
        })
    }

    fn carry_out(mut self) -> Result<Report, LoadError> {
        let outcome = self.go_through();
        // After a failure too: whatever ended the run, the broker is left as it was.
        let hurried = outcome.is_err() || self.ended_early;
        let left = discard(
            self.plan,
            &mut self.pool,
            &mut self.books,
            self.watcher,
            hurried,
        );
        Ok(Report {
            failed: left.count,
            first_failure: left.first_failure,
            ..outcome?
        })
    }

    /// From the first connection to the goodbye of everybody.
    fn go_through(&mut self) -> Result<Report, LoadError> {
        self.connect()?;
        let setup = Duration::from_nanos(self.books.now_ns());
        let start_ns = self.books.now_ns();
        let measured_from_ns = start_ns + nanoseconds(self.plan.warm_up);
        let until_ns = measured_from_ns + nanoseconds(self.plan.measured);
        self.allow(start_ns, until_ns);
        let mut due = Due::of(self.plan, start_ns);
        self.flow(Moment::WarmingUp, measured_from_ns, &mut due)?;
        let begins = self.tell(Moment::Begins);
        let from_ns = self.books.now_ns();
        self.books.window = Window {
            from_ns: measured_from_ns,
            to_ns: until_ns,
        };
        self.flow(Moment::Measuring, until_ns, &mut due)?;
        let ends = self.tell(Moment::Ends);
        let measured = Duration::from_nanos(self.books.now_ns().saturating_sub(from_ns));
        self.drain()?;
        self.pool.leave(self.books.now_ns());
        Ok(self.report(setup, measured, begins, ends))
    }

    /// Connects everybody, some at a time, and waits until all are ready.
    fn connect(&mut self) -> Result<(), LoadError> {
        let clients = self.tasks.len();
        let limit_ns = nanoseconds(self.plan.setup_max);
        let (mut begun, mut publisher) = (0, 0);
        while self.books.standing.ready < clients {
            while begun < clients && begun - self.books.standing.ready < self.plan.connecting_max {
                let (role, filters) = match &self.tasks[begun] {
                    Task::Publish(_) => {
                        publisher += 1;
                        (Role::Publish(publisher - 1), &[][..])
                    }
                    Task::Subscribe(filters, heard) => (Role::Listen(*heard), &filters[..]),
                };
                let now_ns = self.books.now_ns();
                self.pool
                    .open(self.plan, begun, begun as u64, role, filters, now_ns)?;
                begun += 1;
            }
            self.turn(SLEEP)?;
            self.watch(Moment::Connecting);
            if self.ended_early {
                return Err(LoadError::Ended);
            }
            if self.books.now_ns() > limit_ns {
                let ready = self.books.standing.ready;
                return Err(LoadError::Slow { ready, clients });
            }
        }
        Ok(())
    }

    /// Gives each publisher its part of the pace.
    fn allow(&mut self, start_ns: u64, until_ns: u64) {
        let count = self.books.publishers.len();
        let fan = self.plan.shape.deliveries_per_message() as usize;
        for (index, publisher) in self.books.publishers.iter_mut().enumerate() {
            publisher.allow(match self.plan.pace {
                Pace::Saturate { window } => {
                    let messages = (window / (count * fan)).max(1) as u64;
                    Allowance::Window {
                        messages,
                        batch: (messages / 2).max(1),
                    }
                }
                Pace::Rate { per_s } => {
                    let step_ns = 1e9 / per_s;
                    Allowance::Schedule {
                        first_ns: start_ns as f64 + index as f64 * step_ns,
                        step_ns: step_ns * count as f64,
                        end_ns: until_ns as f64,
                    }
                }
            });
        }
        self.touch_all();
    }

    fn touch_all(&mut self) {
        for index in 0..self.books.publishers.len() {
            self.books.touch(index as u32);
        }
    }

    /// Lets messages flow until a moment, or until all of the plan's are delivered.
    fn flow(&mut self, moment: Moment, until_ns: u64, due: &mut Due) -> Result<(), LoadError> {
        let (mut moved, mut moved_ns) = (self.books.standing.delivered, self.books.now_ns());
        loop {
            let now_ns = self.books.now_ns();
            if self.ended_early || now_ns >= until_ns {
                return Ok(());
            }
            due.touch(&mut self.books, now_ns);
            self.pool.publish(&mut self.books, now_ns);
            if self.turn(due.sleep(now_ns, until_ns))? > 0 && !due.is_scheduled() {
                self.rhythm.pause(&self.books);
            }
            self.watch(moment);
            if self.books.budget == 0 && self.books.is_settled() {
                return Ok(());
            }
            let delivered = self.books.standing.delivered;
            if delivered != moved {
                (moved, moved_ns) = (delivered, now_ns);
            } else if now_ns - moved_ns > STALL_NS && !self.books.publishers.is_empty() {
                self.stall(due.is_scheduled());
                moved_ns = now_ns;
            }
        }
    }

    /// A second without a delivery: what is under way is given up, and counted as lost at the end.
    fn stall(&mut self, scheduled: bool) {
        if self.books.is_settled() {
            return;
        }
        self.stalls += 1;
        if scheduled {
            return;
        }
        for publisher in &mut self.books.publishers {
            publisher.write_off();
        }
        self.touch_all();
    }

    /// Waits for what is under way, as long as something comes.
    fn drain(&mut self) -> Result<(), LoadError> {
        let grace_ns = nanoseconds(self.plan.grace);
        for publisher in &mut self.books.publishers {
            if publisher.due_ns().is_none() || self.ended_early {
                publisher.allow(Allowance::Closed);
            }
        }
        // What became due at the very end was not looked at by any turn.
        self.touch_all();
        let (mut moved, mut moved_ns) = (Standing::default(), self.books.now_ns());
        loop {
            let now_ns = self.books.now_ns();
            self.pool.publish(&mut self.books, now_ns);
            let unsent = self
                .books
                .publishers
                .iter()
                .any(|one| one.unsent(now_ns) > 0);
            if self.books.is_settled() && !unsent {
                return Ok(());
            }
            let standing = self.books.standing;
            if (standing.delivered, standing.published) != (moved.delivered, moved.published) {
                (moved, moved_ns) = (standing, now_ns);
            }
            if now_ns - moved_ns > grace_ns {
                return Ok(());
            }
            self.turn(SLEEP)?;
            self.watch(Moment::Draining);
        }
    }

    /// One turn of the loop. A client that ends now ends the run: nobody can take its part.
    fn turn(&mut self, timeout: Duration) -> Result<usize, LoadError> {
        let count = self.pool.turn(&mut self.books, timeout)?;
        let now_ns = self.books.now_ns();
        if now_ns - self.kept_ns > 1_000_000_000 {
            self.kept_ns = now_ns;
            self.pool.keep_alive(now_ns);
        }
        let ended = self.pool.ended().next();
        match ended.and_then(|ended| ended.fault.map(|fault| (ended.place, fault))) {
            None => Ok(count),
            Some((client, fault)) => Err(LoadError::Client { client, fault }),
        }
    }

    fn watch(&mut self, moment: Moment) {
        let now_ns = self.books.now_ns();
        if now_ns - self.watched_ns >= WATCH_NS {
            self.watched_ns = now_ns;
            self.tell(moment);
        }
    }

    fn tell(&mut self, moment: Moment) -> Standing {
        let standing = self.books.standing;
        if self.watcher.watch(moment, &standing) == ControlFlow::Break(()) {
            self.ended_early = true;
        }
        standing
    }

    fn report(&self, setup: Duration, measured: Duration, from: Standing, to: Standing) -> Report {
        let books = &self.books;
        let now_ns = books.now_ns();
        let expected = books.expected();
        let publishers = &books.publishers;
        Report {
            measured,
            setup,
            ended_early: self.ended_early,
            published: to.published - from.published,
            delivered: to.delivered - from.delivered,
            connected: to.connected,
            reads: to.reads - from.reads,
            writes: to.writes - from.writes,
            expected,
            lost: expected.saturating_sub(books.unique()),
            duplicated: books.duplicated,
            reordered: books.reordered,
            misrouted: books.misrouted,
            qos_changed: books.qos_changed,
            refused: publishers.iter().map(Publisher::refused).sum(),
            unacknowledged: publishers
                .iter()
                .map(|one| one.unacknowledged() as u64)
                .sum(),
            unsent: publishers.iter().map(|one| one.unsent(now_ns)).sum(),
            stalls: self.stalls,
            latency: Distribution::of(&books.latency),
            lateness: Distribution::of(&books.lateness),
            connecting: Distribution::of(&books.connecting),
            ..Report::default()
        }
    }
}

/// When messages of a schedule are due, over all publishers.
struct Due {
    /// Between two messages; `None` without a schedule.
    step_ns: Option<f64>,
    start_ns: f64,
    next: u64,
    publishers: u64,
}

impl Due {
    fn of(plan: &Plan, start_ns: u64) -> Due {
        Due {
            step_ns: match plan.pace {
                Pace::Rate { per_s } => Some(1e9 / per_s),
                Pace::Saturate { .. } => None,
            },
            start_ns: start_ns as f64,
            next: 0,
            publishers: plan.shape.publishers() as u64,
        }
    }

    fn is_scheduled(&self) -> bool {
        self.step_ns.is_some()
    }

    /// Touches the publishers whose next message is due.
    fn touch(&mut self, books: &mut Ledger, now_ns: u64) {
        let Some(step_ns) = self.step_ns else {
            return;
        };
        if self.publishers == 0 {
            return;
        }
        // After a long stop each is touched once, however much it has to catch up with.
        let due = ((now_ns as f64 - self.start_ns) / step_ns).max(-1.0);
        let all = (due + 1.0) as u64;
        for index in self.next..all.min(self.next + self.publishers) {
            books.touch((index % self.publishers) as u32);
        }
        self.next = self.next.max(all);
    }

    /// How long the loop may sleep: with a schedule not at all, as waking up late would be seen
    /// as the broker's latency.
    fn sleep(&self, now_ns: u64, until_ns: u64) -> Duration {
        match self.step_ns {
            Some(_) => Duration::ZERO,
            None => SLEEP.min(Duration::from_nanos(until_ns - now_ns)),
        }
    }
}

/// Short pauses that let deliveries gather, so that one read takes many: a sixteenth of the time
/// that the broker needs for what is under way, so that it never runs dry.
struct Rhythm {
    under_way: f64,
    pause_ns: u64,
    seen: u64,
    seen_ns: u64,
}

impl Rhythm {
    fn of(plan: &Plan) -> Rhythm {
        let publishers = plan.shape.publishers().max(1);
        let fan = plan.shape.deliveries_per_message() as usize;
        let window = match plan.pace {
            Pace::Saturate { window } => window,
            Pace::Rate { .. } => 0,
        };
        let inflight = match plan.publish_qos {
            QoS::AtMostOnce => usize::MAX,
            _ => usize::from(plan.inflight_max) * publishers * fan,
        };
        Rhythm {
            under_way: window.min(inflight) as f64,
            pause_ns: 0,
            seen: 0,
            seen_ns: 0,
        }
    }

    fn pause(&mut self, books: &Ledger) {
        if self.pause_ns >= PAUSE_NS_MIN {
            thread::sleep(Duration::from_nanos(self.pause_ns));
        }
        let now_ns = books.now_ns();
        let since_ns = now_ns - self.seen_ns;
        if since_ns < WATCH_NS / 2 {
            return;
        }
        let delivered = books.standing.delivered - self.seen;
        if delivered > 0 {
            let all_ns = self.under_way / delivered as f64 * since_ns as f64;
            self.pause_ns = ((all_ns * PAUSE_SHARE) as u64).min(PAUSE_NS_MAX);
        }
        (self.seen, self.seen_ns) = (books.standing.delivered, now_ns);
    }
}

/// A time in ns; a plan's times are a day at most.
pub(crate) fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}
