//! How fast this disk commits: `cargo run --release -p casemate-store --example rate -- FOLDER`.
//!
//! Prints commits and bytes a second and the time of one commit, for several sizes of a group.

use std::time::Instant;

use casemate_store::{recover, Log, Options, OsDisk};

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    for group in [1_usize, 10, 100, 1_000, 10_000] {
        let folder = format!("{folder}/{group}");
        let disk = OsDisk::open(&folder)?;
        let options = Options {
            segment_bytes: 64 * 1024 * 1024,
            salt: || [7; 16],
        };
        let recovered = recover(&disk, 1, |_, _, _| {})?;
        let mut log = Log::new(disk, options, &recovered);
        let body = vec![0x5A; group * 100];
        let mut times = Vec::new();
        let began = Instant::now();
        while began.elapsed().as_secs_f64() < 2.0 {
            let one = Instant::now();
            log.commit(&body)?;
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
        let mut count = 0_u64;
        recover(&OsDisk::open(&folder)?, 1, |_, _, _| count += 1)?;
        println!(
            "  read back {count} commits in {:.3} s",
            began.elapsed().as_secs_f64()
        );
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}
