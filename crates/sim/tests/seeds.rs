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
