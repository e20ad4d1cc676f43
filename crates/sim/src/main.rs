//! `casemate-sim`: runs seeds until time is up or a promise is broken.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program; its output is what it is for"
)]

use std::ops::Range;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_sim::{run, shrink, Failure, Features, Keep, Run};

/// How to use the program.
const USAGE: &str = "\
usage: casemate-sim [--seed N | --seeds A..B | --seconds T] [options]
  --seed N          runs one seed
  --seeds A..B      runs the seeds from A to B, B not included
  --seconds T       runs new seeds for T seconds (the default, with T = 10)
  --from N          first seed of --seconds; without it the clock chooses one
  --ticks N         length of each run in ticks (default 3000)
  --features MASK   what may happen, hexadecimal (default: everything)
  --jobs N          threads (default 1)
  --trace           prints the whole history of each run
  --no-shrink       does not make a failing run smaller";

/// What was asked for.
struct Wishes {
    seeds: Range<u64>,
    seconds: Option<u64>,
    ticks: u64,
    features: Features,
    jobs: u64,
    trace: bool,
    shrinks: bool,
}

/// Totals over all runs.
#[derive(Default)]
struct Totals {
    runs: AtomicU64,
    ticks: AtomicU64,
    messages: AtomicU64,
    arrived: AtomicU64,
    virtual_s: AtomicU64,
}

fn main() -> ExitCode {
    let wishes = match parse(std::env::args().skip(1)) {
        Ok(Some(wishes)) => wishes,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(fault) => {
            eprintln!("error: {fault}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let started = Instant::now();
    let totals = Totals::default();
    let failure = run_all(&wishes, &totals, started);
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{} runs, {} ticks, {} messages, {} deliveries, {} s of virtual time in {seconds:.1} s",
        totals.runs.load(Ordering::Relaxed),
        totals.ticks.load(Ordering::Relaxed),
        totals.messages.load(Ordering::Relaxed),
        totals.arrived.load(Ordering::Relaxed),
        totals.virtual_s.load(Ordering::Relaxed),
    );
    match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            tell(&wishes, *failure);
            ExitCode::FAILURE
        }
    }
}

/// Reads the command line; `None` where only the usage was asked for.
fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Option<Wishes>, String> {
    let mut wishes = Wishes {
        seeds: 0..0,
        seconds: None,
        ticks: 3_000,
        features: Features::EVERY,
        jobs: 1,
        trace: false,
        shrinks: true,
    };
    let mut from = None;
    while let Some(name) = arguments.next() {
        match name.as_str() {
            "--help" | "-h" => return Ok(None),
            "--trace" => wishes.trace = true,
            "--no-shrink" => wishes.shrinks = false,
            _ => {
                let value = arguments.next().ok_or(format!("{name} needs a value"))?;
                let number = || {
                    value
                        .parse::<u64>()
                        .map_err(|_| format!("{name}: {value}?"))
                };
                match name.as_str() {
                    "--seed" => wishes.seeds = number()?..number()?.saturating_add(1),
                    "--seeds" => wishes.seeds = range(&value)?,
                    "--seconds" => wishes.seconds = Some(number()?),
                    "--from" => from = Some(number()?),
                    "--ticks" => wishes.ticks = number()?,
                    "--jobs" => wishes.jobs = number()?.max(1),
                    "--features" => wishes.features = mask(&value)?,
                    _ => return Err(format!("unknown option {name}")),
                }
            }
        }
    }
    if wishes.seeds.is_empty() {
        let clock = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let first = from.unwrap_or(clock.as_secs() % 1_000_000_000 * 1_000);
        wishes.seeds = first..u64::MAX;
        wishes.seconds.get_or_insert(10);
    }
    Ok(Some(wishes))
}

/// Reads `A..B`.
fn range(text: &str) -> Result<Range<u64>, String> {
    let parts = text
        .split_once("..")
        .and_then(|(low, high)| Some(low.parse::<u64>().ok()?..high.parse::<u64>().ok()?));
    parts
        .filter(|range| !range.is_empty())
        .ok_or(format!("--seeds: {text} is not A..B"))
}

/// Reads a mask of features.
fn mask(text: &str) -> Result<Features, String> {
    let digits = text.trim_start_matches("0x");
    let bits = u64::from_str_radix(digits, 16).map_err(|_| format!("--features: {text}?"))?;
    Ok(Features(bits & Features::EVERY.0))
}

/// Runs seeds on all threads until the first failure, the last seed, or the end of the time.
fn run_all(wishes: &Wishes, totals: &Totals, started: Instant) -> Option<Box<Failure>> {
    let next = AtomicU64::new(wishes.seeds.start);
    let found = AtomicBool::new(false);
    let failure: Mutex<Option<Box<Failure>>> = Mutex::new(None);
    let limit = wishes.seconds.map(Duration::from_secs);
    std::thread::scope(|scope| {
        for _ in 0..wishes.jobs {
            scope.spawn(|| loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let late = limit.is_some_and(|limit| started.elapsed() >= limit);
                if seed >= wishes.seeds.end || late || found.load(Ordering::Relaxed) {
                    break;
                }
                if let Err(failed) = run_one(wishes, totals, seed) {
                    found.store(true, Ordering::Relaxed);
                    let mut slot = failure.lock().unwrap_or_else(|poison| poison.into_inner());
                    slot.get_or_insert(failed);
                }
            });
        }
    });
    failure
        .into_inner()
        .unwrap_or_else(|poison| poison.into_inner())
}

/// Runs one seed and adds it up.
fn run_one(wishes: &Wishes, totals: &Totals, seed: u64) -> Result<(), Box<Failure>> {
    let keep = if wishes.trace {
        Keep::Last(usize::MAX)
    } else {
        Keep::Nothing
    };
    let report = run(&Run {
        seed,
        features: wishes.features,
        ticks: wishes.ticks,
        keep,
    })?;
    for line in &report.history {
        println!("{line}");
    }
    totals.runs.fetch_add(1, Ordering::Relaxed);
    totals.ticks.fetch_add(report.ticks, Ordering::Relaxed);
    totals
        .messages
        .fetch_add(report.messages as u64, Ordering::Relaxed);
    totals.arrived.fetch_add(report.arrived, Ordering::Relaxed);
    totals
        .virtual_s
        .fetch_add(report.virtual_ms / 1_000, Ordering::Relaxed);
    Ok(())
}

/// Tells a failure, made small, with the end of its history.
fn tell(wishes: &Wishes, failure: Failure) {
    let smallest = if wishes.shrinks {
        shrink(&failure)
    } else {
        Box::new(failure)
    };
    let keep = if wishes.trace {
        Keep::Last(usize::MAX)
    } else {
        Keep::Last(40)
    };
    match run(&Run {
        keep,
        ..smallest.run
    }) {
        Err(told) => eprintln!("{told}"),
        Ok(_) => eprintln!("{smallest}\nand it does not fail again: the run is not deterministic"),
    }
}
