//! What a run says while it lasts, and what came of it.

use std::ops::ControlFlow;
use std::time::Duration;

use crate::histogram::Histogram;

/// A moment of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Clients connect and subscribe.
    Connecting,
    /// Messages flow and are not measured yet.
    WarmingUp,
    /// The measured time begins now.
    Begins,
    /// It goes on.
    Measuring,
    /// It ends now.
    Ends,
    /// Nothing is published any more; what is under way may still arrive.
    Draining,
    /// Everybody has left, and the sessions that would stay are taken back.
    Discarding,
}

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Clients that are ready.
    pub ready: usize,
    /// Connections that came about.
    pub connected: u64,
    /// Connections that did not.
    pub failed: u64,
    /// Messages published.
    pub published: u64,
    /// Messages delivered to subscribers.
    pub delivered: u64,
    /// Calls of read.
    pub reads: u64,
    /// Calls of write.
    pub writes: u64,
}

/// Hears how a run goes, ten times a second and at each turn of it.
pub trait Watcher {
    /// Is told; `Break` ends the run, which then reports what there is.
    ///
    /// It runs on the generator's thread, and everything waits for it: between `Begins` and
    /// `Ends` it is part of what the generator costs.
    fn watch(&mut self, moment: Moment, standing: &Standing) -> ControlFlow<()>;
}

/// Durations of one kind, in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are those of statistics; units are in the names.
pub struct Distribution {
    pub count: u64,
    pub least_ns: u64,
    pub mean_ns: u64,
    pub p50_ns: u64,
    pub p90_ns: u64,
    pub p99_ns: u64,
    pub p999_ns: u64,
    pub most_ns: u64,
}

impl Distribution {
    /// Reads a histogram.
    pub(crate) fn of(histogram: &Histogram) -> Distribution {
        Distribution {
            count: histogram.count(),
            least_ns: histogram.least_ns(),
            mean_ns: histogram.mean_ns(),
            p50_ns: histogram.quantile_ns(0.5),
            p90_ns: histogram.quantile_ns(0.9),
            p99_ns: histogram.quantile_ns(0.99),
            p999_ns: histogram.quantile_ns(0.999),
            most_ns: histogram.most_ns(),
        }
    }
}

/// What came of a run. Rates belong to the measured time, harm to the whole run.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Time that was measured.
    pub measured: Duration,
    /// Time until all clients were ready.
    pub setup: Duration,
    /// The run was ended by its watcher.
    pub ended_early: bool,
    /// Messages published in the measured time.
    pub published: u64,
    /// Messages delivered in it.
    pub delivered: u64,
    /// Connections accepted in it (storms).
    pub connected: u64,
    /// Connections that failed (storms), and sessions that the broker may have kept (lasting ones).
    pub failed: u64,
    /// What was wrong with the first of them.
    pub first_failure: Option<String>,
    /// Calls of read in the measured time.
    pub reads: u64,
    /// Calls of write in it.
    pub writes: u64,
    /// Deliveries that should have come, all in all.
    pub expected: u64,
    /// Of these, those that did not come.
    pub lost: u64,
    /// Deliveries that came again.
    pub duplicated: u64,
    /// Deliveries that came after a later one. Members of a shared group have no order.
    pub reordered: u64,
    /// Deliveries to somebody who should not have got them, or of what nobody sent.
    pub misrouted: u64,
    /// Deliveries at another QoS than the lesser of publication and subscription, or with DUP.
    pub qos_changed: u64,
    /// Publications that the broker refused with a reason code (5.0).
    pub refused: u64,
    /// Publications of QoS 1 and 2 that were not acknowledged to the end.
    pub unacknowledged: u64,
    /// Messages that should have been sent in the measured time, at the rate of the plan, and
    /// could not be. Their latency is in no figure: where this is not 0, the figures flatter.
    pub unsent: u64,
    /// Seconds in which nothing arrived although something was under way.
    pub stalls: u64,
    /// From the intended time of a message to its arrival (rates only).
    pub latency: Distribution,
    /// From the intended time of a message to its sending: the part of latency that lies before
    /// the broker, where it held the generator up or the machine did.
    pub lateness: Distribution,
    /// From the intended beginning of a connection to CONNACK.
    pub connecting: Distribution,
}
