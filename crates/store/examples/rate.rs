//! How fast this disk commits: `cargo run --release -p casemate-store --example rate -- FOLDER`.
//!
//! Prints records a second and the time of one commit, for several sizes of a group, in plain and
//! encrypted; then the same without a sync for each commit, which shows what the log itself costs.
//! At last what two shards get through the committer, and how fast a million records come back:
//! one by one at their places, and at a start.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use casemate_store::{
    random, recover, Answer, Audience, Committer, Core, Durability, Event, Folder, Key, Keys, Log,
    Options, Pace, Part,
};

#[allow(clippy::print_stdout, reason = "a program for people")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("which folder?")?;
    for durability in [Durability::Disk, Durability::Os] {
        for keys in [Keys::none(), Keys::encrypted(Key::new(&[7; 32])?)] {
            println!("{durability:?}, {keys:?}");
            for group in [1, 10, 100, 1_000, 10_000] {
                measure(&format!("{folder}/{group}"), durability, &keys, group)?;
            }
            gather(&format!("{folder}/gathered"), durability, &keys)?;
            come_back(&format!("{folder}/back"), durability, &keys)?;
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
    let recovered = recover(&disk, keys, 1, |_| {})?;
    let mut log = Log::new(disk, options(durability), recovered);
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

/// Sends each answer to its shard.
struct Ways(Vec<mpsc::Sender<Answer>>);

impl Audience for Ways {
    fn answer(&mut self, answer: Answer) {
        // A shard that has ended needs none.
        let _ = self.0[usize::from(answer.shard)].send(answer);
    }

    fn wake(&mut self, _: u16) {}

    fn tell(&mut self, _: Event) {}
}

/// Two shards with a thousand records under way each, a part for every ten of them.
#[allow(clippy::print_stdout, reason = "a program for people")]
fn gather(
    folder: &str,
    durability: Durability,
    keys: &Keys,
) -> Result<(), Box<dyn std::error::Error>> {
    const SHARDS: u16 = 2;
    let disk = Folder::open(folder)?;
    let recovered = recover(&disk, keys, 1, |_| {})?;
    let log = Log::new(disk, options(durability), recovered);
    let pace = Pace {
        shards: SHARDS,
        ..Pace::default()
    };
    let (core, submitters) = Core::new(log, pace);
    let (ways, answers): (Vec<_>, Vec<_>) = (0..SHARDS).map(|_| mpsc::channel()).unzip();
    let began = Instant::now();
    let committer = Committer::start(core, move || began.elapsed(), Ways(ways))?;
    let mut threads = Vec::new();
    for (mut submitter, answers) in submitters.into_iter().zip(answers) {
        threads.push(std::thread::spawn(move || {
            let mut buffers = vec![vec![0x5A; 1_000]; 100];
            let mut sent = std::collections::VecDeque::new();
            let mut times = Vec::new();
            let mut seq = 0;
            while began.elapsed() < Duration::from_secs(2) {
                while let Some(buffer) = buffers.pop() {
                    seq += 1;
                    sent.push_back(Instant::now());
                    if submitter.submit(seq, buffer).is_err() {
                        return times;
                    }
                }
                let first = answers.recv().into_iter();
                for answer in first.chain(answers.try_iter()) {
                    times.extend(sent.pop_front().map(|sent| sent.elapsed()));
                    buffers.push(answer.bytes);
                }
            }
            times
        }));
    }
    let mut times = Vec::new();
    for thread in threads {
        times.append(&mut thread.join().map_err(|_| "a shard panicked")?);
    }
    let took_s = began.elapsed().as_secs_f64();
    let log = committer.stop().ok_or("the committer panicked")?;
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1_000.0;
    println!(
        "two shards, 1,000 records of 100 B under way each: {:.0} records/s in {:.0} commits/s, \
         answered p50 {:.3} ms, p99 {:.3} ms",
        (times.len() * 10) as f64 / took_s,
        (log.next_number() - 1) as f64 / took_s,
        at(50),
        at(99)
    );
    drop(log);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// A million records of 100 bytes, read back.
#[allow(clippy::print_stdout, reason = "a program for people")]
fn come_back(
    folder: &str,
    durability: Durability,
    keys: &Keys,
) -> Result<(), Box<dyn std::error::Error>> {
    let disk = Folder::open(folder)?;
    let recovered = recover(&disk, keys, 1, |_| {})?;
    let mut log = Log::new(disk.clone(), options(durability), recovered);
    let mut places = Vec::new();
    for group in 0..1_000_u64 {
        let parts = (0..1_000).map(|seq| Part {
            shard: 0,
            seq: group * 1_000 + seq,
            bytes: &[0x5A; 100],
        });
        log.commit(parts, &mut places)?;
    }
    let mut reader = log.reader();
    let began = Instant::now();
    let mut bytes = 0;
    for place in &places {
        bytes += reader.read(*place)?.len();
    }
    let read_s = began.elapsed().as_secs_f64();
    drop((log, reader));
    let began = Instant::now();
    let report = recover(&disk, keys, 1, |_| {})?.report;
    println!(
        "a million records: {:.0} MB read by place in {read_s:.3} s, {} recovered in {:.3} s",
        bytes as f64 / 1_000_000.0,
        report.parts,
        began.elapsed().as_secs_f64()
    );
    drop(disk);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

fn options(durability: Durability) -> Options {
    Options {
        durability,
        segment_bytes: 64 * 1024 * 1024,
        random,
    }
}
