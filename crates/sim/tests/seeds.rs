//! Seeds: those that once failed, and enough others to notice a broken promise early.

#![allow(clippy::panic, reason = "a failing seed tells its own story")]

use casemate_sim::{run, Features, Keep, Run};

/// Runs seeds and tells the first failure with the end of its history.
fn run_seeds(seeds: impl IntoIterator<Item = u64>, ticks: u64) {
    for seed in seeds {
        let ordinary = Run {
            seed,
            features: Features::EVERY,
            ticks,
            keep: Keep::Nothing,
        };
        if run(&ordinary).is_err() {
            match run(&Run {
                keep: Keep::Last(40),
                ..ordinary
            }) {
                Err(failure) => panic!("{failure}"),
                Ok(_) => panic!("seed {seed} failed once and not again"),
            }
        }
    }
}

/// Seeds with their length in ticks at which the engine, or the simulator, was once wrong.
const ONCE_FAILED: [(u64, u64); 3] = [
    // A retained message followed a newer live one that had come before the SUBACK.
    (795_616_822_113, 3_000),
    // A policy that was overtaken on its way took the place of the newer one.
    (795_618_007_869, 3_000),
    // A message that expired on its way between two shards was delivered all the same.
    (795_618_571_908, 3_000),
];

#[test]
fn seeds_that_once_failed_do_not_fail_again() {
    for (seed, ticks) in ONCE_FAILED {
        run_seeds([seed], ticks);
    }
}

#[test]
fn the_first_seeds_keep_every_promise() {
    run_seeds(0..60, 3_000);
}

#[test]
fn a_long_run_keeps_every_promise() {
    run_seeds([1_000_001], 30_000);
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let keep = Keep::Last(usize::MAX);
        let told = run(&Run {
            seed,
            features: Features::EVERY,
            ticks: 1_000,
            keep,
        });
        told.map(|report| report.history).unwrap_or_default()
    };
    for seed in 0..5 {
        let first = history(seed);
        assert!(!first.is_empty());
        assert_eq!(first, history(seed));
    }
}
