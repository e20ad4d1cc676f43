//! How fast this disk commits: `cargo run --release -p casemate-store --example rate -- FOLDER`.
//!
//! Prints records a second and the time of one commit, for several sizes of a group, in plain and
//! encrypted; then the same without a sync for each commit, which shows what the log itself costs.

use std::time::Instant;

use casemate_store::{random, recover, Durability, Folder, Key, Keys, Log, Options, Part};

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    for durability in [Durability::Disk, Durability::Os] {
        for keys in [Keys::none(), Keys::encrypted(Key::new(&[7; 32])?)] {
            println!("{durability:?}, {keys:?}");
            for group in [1, 10, 100, 1_000, 10_000] {
                measure(&format!("{folder}/{group}"), durability, &keys, group)?;
            }
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "a program for people")]
fn measure(
    folder: &str,
    durability: Durability,
    keys: &Keys,
    group: usize,
) -> Result<(), Box<dyn std::error::Error>> {
    let disk = Folder::open(folder)?;
    let options = Options {
        durability,
        segment_bytes: 64 * 1024 * 1024,
        random,
    };
    let recovered = recover(&disk, keys, 1, |_| {})?;
    let mut log = Log::new(disk, options, recovered);
    let bytes = vec![0x5A; group * 100];
    let part = Part {
        shard: 0,
        seq: 0,
        bytes: &bytes,
    };
    let (mut times, mut places) = (Vec::new(), Vec::new());
    let began = Instant::now();
    while began.elapsed().as_secs_f64() < 1.0 {
        let one = Instant::now();
        log.commit([part], &mut places)?;
        times.push(one.elapsed());
    }
    let took_s = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1_000.0;
    let records = (times.len() * group) as f64 / took_s;
    println!(
        "{group} records of 100 B a commit: {records:.0} records/s, p50 {:.3} ms, p99 {:.3} ms",
        at(50),
        at(99)
    );
    drop(log);
    let began = Instant::now();
    let report = recover(&Folder::open(folder)?, keys, 1, |_| {})?.report;
    println!(
        "  read back {} commits, {} MB in {:.3} s",
        report.commits,
        report.part_bytes / 1_000_000,
        began.elapsed().as_secs_f64()
    );
    std::fs::remove_dir_all(folder)?;
    Ok(())
}
