//! How the process dies in a run, and what comes after it.

use super::Plan;
use crate::chance::Chance;
use crate::feature::Feature;

/// Of 100 runs, in how many the process dies.
const RUNS_PERCENT: u64 = 40;

/// The process dies now and then, and another one goes on with what was durable.
#[derive(Clone, Debug)]
pub struct Crashes {
    /// Of 10,000 turns of shards, in how many it dies.
    pub of_10_000: u64,
    /// How long it is gone at the most, ms.
    pub gone_ms_max: u64,
    /// How many shards each next process has; there are no more crashes than these.
    pub shards: Vec<usize>,
}

impl Crashes {
    /// Decides by numbers of its own, so that a run without crashes is what it was before.
    pub fn new(chance: &Chance, plan: &Plan) -> Option<Crashes> {
        let mut chance = Chance::new(!chance.clone().bits());
        if !plan.features.has(Feature::Crash) || !chance.percent(RUNS_PERCENT) {
            return None;
        }
        let many = plan.features.has(Feature::Shards);
        let mut shards = Vec::new();
        for _ in 0..*chance.pick(&[1, 1, 2, 5]) {
            shards.push(match many && chance.percent(60) {
                true => *chance.pick(&[1, 2, 3, 4]),
                false => plan.shards,
            });
        }
        Some(Crashes {
            of_10_000: *chance.pick(&[10, 30, 100]),
            gone_ms_max: *chance.pick(&[0, 50, 3_000, 20_000]),
            shards,
        })
    }
}
