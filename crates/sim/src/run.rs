//! Runs: a seed, what it may contain, and what came of it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

use casemate_engine::Millis;

use crate::chance::Chance;
use crate::feature::{Features, ALL};
use crate::history::{History, Invariant, Keep, Violation};
use crate::plan::Plan;
use crate::world::World;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Decides everything.
    pub seed: u64,
    /// What may happen.
    pub features: Features,
    /// Length of the storm, in ticks.
    pub ticks: u64,
    /// How much history is kept.
    pub keep: Keep,
}

/// A run in which every promise was kept.
#[derive(Clone, Debug)]
pub struct Report {
    /// Things done.
    pub ticks: u64,
    /// Virtual time, ms.
    pub virtual_ms: Millis,
    /// Messages published.
    pub messages: usize,
    /// New copies that arrived at clients.
    pub arrived: u64,
    /// What was kept of the history.
    pub history: Vec<String>,
}

/// A run in which a promise was broken.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which run.
    pub run: Run,
    /// Which promise.
    pub violation: Violation,
    /// Ticks until then.
    pub ticks: u64,
    /// Virtual time, ms.
    pub virtual_ms: Millis,
    /// What was kept of the history.
    pub history: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.history {
            writeln!(f, "{line}")?;
        }
        writeln!(
            f,
            "seed {} failed after {} ticks at {} ms of virtual time",
            self.run.seed, self.ticks, self.virtual_ms
        )?;
        writeln!(f, "{}", self.violation)?;
        write!(
            f,
            "replay: casemate-sim --seed {} --features {} --ticks {}",
            self.run.seed, self.run.features, self.run.ticks
        )
    }
}

thread_local! {
    /// This thread is inside a run, where a panic is a finding and not a disaster.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    /// Where and why the last run of this thread panicked.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Lets panics inside runs be remembered instead of printed; others are printed as ever.
fn remember_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let ordinary = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.get() {
                PANIC.set(info.to_string());
            } else {
                ordinary(info);
            }
        }));
    });
}

/// Runs one seed.
///
/// # Errors
/// The first broken promise, a panic of the engine included.
pub fn run(run: &Run) -> Result<Report, Box<Failure>> {
    remember_panics();
    let mut chance = Chance::new(run.seed);
    let plan = Plan::new(&mut chance, run.features);
    let mut history = History::new(run.keep);
    history.note(0, || format!("{plan:#?}"));
    let failed = |violation, ticks, virtual_ms, history| {
        Err(Box::new(Failure {
            run: *run,
            violation,
            ticks,
            virtual_ms,
            history,
        }))
    };
    let mut world = match World::new(plan, chance, history) {
        Ok(world) => world,
        Err(violation) => return failed(violation, 0, 0, Vec::new()),
    };
    INSIDE.set(true);
    let lived = panic::catch_unwind(AssertUnwindSafe(|| world.live(run.ticks)));
    INSIDE.set(false);
    let history = world.history.lines().map(str::to_owned).collect();
    match lived.unwrap_or_else(|payload| Err(panicked(&payload))) {
        Err(violation) => {
            let failure = failed(violation, world.ticks, world.now(), history);
            // A shard that panicked half way is in no state to be dropped.
            let _ = ManuallyDrop::new(world);
            failure
        }
        Ok(()) => {
            let (messages, arrived) = world.traffic();
            Ok(Report {
                ticks: world.ticks,
                virtual_ms: world.now(),
                messages,
                arrived,
                history,
            })
        }
    }
}

/// A panic as a violation.
fn panicked(payload: &Box<dyn Any + Send>) -> Violation {
    let words = PANIC.take();
    let words = match payload.downcast_ref::<&str>() {
        Some(text) if words.is_empty() => (*text).to_owned(),
        _ => words,
    };
    Violation::new(Invariant::Panic, words)
}

/// Switches off what a failure does not need, one feature after another.
pub fn shrink(failure: &Failure) -> Box<Failure> {
    let mut smallest = Box::new(failure.clone());
    for feature in ALL {
        let features = smallest.run.features.without(feature);
        if features == smallest.run.features {
            continue;
        }
        let smaller = Run {
            features,
            ..smallest.run
        };
        if let Err(found) = run(&smaller) {
            if found.violation.invariant == smallest.violation.invariant {
                smallest = found;
            }
        }
    }
    smallest
}
