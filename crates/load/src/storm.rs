//! A storm of connections: each is accepted and left at once, and the next takes its place.

use std::ops::ControlFlow;
use std::time::Duration;

use casemate_codec::QoS;

use crate::connection::Role;
use crate::ledger::Ledger;
use crate::phases::{nanoseconds, WATCH_NS};
use crate::pool::Pool;
use crate::report::{Distribution, Moment, Report, Standing, Watcher};
use crate::{LoadError, Pace, Plan};

const SLEEP: Duration = Duration::from_millis(20);

/// Runs a storm; a connection that fails is counted, and the first one's fault is reported.
///
/// # Errors
/// Certificates that cannot be used, or a machine without sockets.
pub(crate) fn run(
    plan: &Plan,
    connections: u64,
    watcher: &mut dyn Watcher,
) -> Result<Report, LoadError> {
    let mut storm = Storm {
        plan,
        pool: Pool::new(plan)?,
        books: Ledger::new(Vec::new(), Vec::new(), Vec::new(), 0, QoS::AtMostOnce),
        free: (0..plan.connecting_max.min(connections as usize)).collect(),
        begun: 0,
        ended: 0,
        first_failure: None,
    };
    storm.carry_out(connections, watcher)
}

struct Storm<'a> {
    plan: &'a Plan,
    pool: Pool,
    books: Ledger,
    /// Places without a connection.
    free: Vec<usize>,
    begun: u64,
    ended: u64,
    first_failure: Option<String>,
}

impl Storm<'_> {
    fn carry_out(
        &mut self,
        connections: u64,
        watcher: &mut dyn Watcher,
    ) -> Result<Report, LoadError> {
        let start_ns = self.books.now_ns();
        let until_ns = start_ns + nanoseconds(self.plan.measured);
        let patience_ns = nanoseconds(self.plan.setup_max);
        let mut ended_early = watcher
            .watch(Moment::Begins, &Standing::default())
            .is_break();
        let mut watched_ns = start_ns;
        while !ended_early {
            let now_ns = self.books.now_ns();
            if now_ns >= until_ns || self.ended >= connections {
                break;
            }
            self.begin(connections, start_ns, now_ns)?;
            let timeout = self.sleep(connections);
            self.pool.turn(&mut self.books, timeout)?;
            if now_ns - watched_ns >= WATCH_NS {
                watched_ns = now_ns;
                self.pool.expire(now_ns.saturating_sub(patience_ns));
                let heard = watcher.watch(Moment::Measuring, &self.books.standing);
                ended_early = heard == ControlFlow::Break(());
            }
            self.collect();
        }
        let standing = self.books.standing;
        let _ = watcher.watch(Moment::Ends, &standing);
        let end_ns = self.books.now_ns();
        self.pool.leave(end_ns);
        Ok(Report {
            measured: Duration::from_nanos(end_ns - start_ns),
            ended_early,
            connected: standing.connected,
            failed: standing.failed,
            first_failure: self.first_failure.take(),
            reads: standing.reads,
            writes: standing.writes,
            unsent: self.unsent(connections, start_ns, end_ns.min(until_ns)),
            connecting: Distribution::of(&self.books.connecting),
            ..Report::default()
        })
    }

    /// Begins what may begin now.
    fn begin(&mut self, connections: u64, start_ns: u64, now_ns: u64) -> Result<(), LoadError> {
        let due = self.due(connections, start_ns, now_ns);
        while self.begun < due {
            let Some(place) = self.free.pop() else {
                break;
            };
            let begun_ns = match self.plan.pace {
                Pace::Saturate { .. } => self.books.now_ns(),
                Pace::Rate { per_s } => start_ns + (self.begun as f64 * 1e9 / per_s) as u64,
            };
            self.pool
                .open(self.plan, place, self.begun, Role::Storm, &[], begun_ns)?;
            self.begun += 1;
        }
        Ok(())
    }

    /// Connections that should have begun by a moment.
    fn due(&self, connections: u64, start_ns: u64, now_ns: u64) -> u64 {
        match self.plan.pace {
            // Whatever has begun was due; more is, as soon as there is a place.
            Pace::Saturate { .. } if self.free.is_empty() => self.begun,
            Pace::Saturate { .. } => connections,
            Pace::Rate { per_s } => {
                let since_s = (now_ns - start_ns) as f64 / 1e9;
                ((since_s * per_s) as u64 + 1).min(connections)
            }
        }
    }

    /// Connections of the schedule that were due and did not begin.
    fn unsent(&self, connections: u64, start_ns: u64, now_ns: u64) -> u64 {
        match self.plan.pace {
            Pace::Saturate { .. } => 0,
            Pace::Rate { .. } => self.due(connections, start_ns, now_ns) - self.begun,
        }
    }

    fn sleep(&self, connections: u64) -> Duration {
        match self.plan.pace {
            Pace::Rate { .. } if self.begun < connections => Duration::ZERO,
            _ => SLEEP,
        }
    }

    /// Frees the places of what has ended.
    fn collect(&mut self) {
        for ended in self.pool.ended() {
            self.free.push(ended.place);
            self.ended += 1;
            if let Some(fault) = ended.fault {
                self.books.standing.failed += 1;
                self.first_failure.get_or_insert_with(|| fault.to_string());
            }
        }
    }
}
