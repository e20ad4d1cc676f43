//! What a log promises, on a disk that breaks in every way that disks do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::{BTreeMap, BTreeSet};

use casemate_store::{
    recover, Damage, Disk, Durability, Keys, Log, Options, Part, Recovered, StoreError,
};
use disk::{draw, keys, Chance, FaultyDisk};

const SMALL: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 4_096,
    random: draw,
};

/// Bytes of a segment before its first commit.
const HEADER_BYTES: usize = 136;

/// Reads everything: the commits of one part in order, and what was found.
fn read_with(disk: &FaultyDisk, keys: &Keys) -> (Vec<(u64, Vec<u8>)>, Recovered) {
    let mut commits = Vec::new();
    let recovered = recover(disk, keys, 1, |found| {
        assert_eq!((found.part.shard, found.part.seq), (3, 5));
        commits.push((found.number, found.part.bytes.to_vec()));
    });
    (commits, recovered.unwrap())
}

fn read(disk: &FaultyDisk) -> (Vec<(u64, Vec<u8>)>, Recovered) {
    read_with(disk, &Keys::none())
}

fn begin(disk: &FaultyDisk) -> Log<FaultyDisk> {
    Log::new(disk.clone(), SMALL, read(disk).1)
}

/// Commits one part and returns its number.
fn commit(log: &mut Log<FaultyDisk>, bytes: &[u8]) -> Result<u64, StoreError> {
    let part = Part {
        shard: 3,
        seq: 5,
        bytes,
    };
    let mut places = Vec::new();
    let outcome = log.commit([part], &mut places);
    assert_eq!(places.len(), usize::from(outcome.is_ok()));
    outcome
}

fn body(chance: &mut Chance) -> Vec<u8> {
    let bytes = match chance.below(10) {
        0 => 0,
        1 => chance.below(9_000),
        _ => chance.below(300),
    };
    (0..bytes).map(|_| chance.next() as u8).collect()
}

/// Goal: whatever a disk does, what was promised is there, whole and in order, and nothing else
/// but at most one commit that was under way. Method: by seed, commits between failed syncs, a full
/// disk, kills and crashes; after each the log is read and goes on. Every other log is encrypted.
#[test]
fn what_was_promised_survives_every_crash() {
    for seed in 0..3_000 {
        let mut chance = Chance(seed);
        let keys = match seed % 2 {
            0 => Keys::none(),
            _ => keys(1),
        };
        let disk = FaultyDisk::default();
        let mut promised: Vec<Vec<u8>> = Vec::new();
        for _ in 0..4 {
            let (found, recovered) = read_with(&disk, &keys);
            let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
            assert!(
                numbers.iter().copied().eq(1..=found.len() as u64),
                "seed {seed}"
            );
            assert!(
                found.len() >= promised.len(),
                "seed {seed}: a promise was broken"
            );
            assert_eq!(recovered.report.damage, [], "seed {seed}");
            let is_left = |file: &String| file.ends_with(".new");
            assert!(!disk.list().unwrap().iter().any(is_left), "seed {seed}");
            for (kept, (_, found)) in promised.iter().zip(&found) {
                assert_eq!(kept, found, "seed {seed}");
            }
            // What was under way may have arrived; it counts once something builds on it.
            let mut known: Vec<Vec<u8>> = found.into_iter().map(|(_, body)| body).collect();
            let mut log = Log::new(disk.clone(), SMALL, recovered);
            for _ in 0..chance.below(30) {
                match chance.below(12) {
                    0 => disk.fail_syncs(chance.below(4) as u32),
                    1 => disk.set_room(Some(chance.below(6_000) as usize)),
                    2 => disk.set_room(None),
                    3 => disk.set_fuse(chance.below(12) as u32),
                    _ => {}
                }
                let body = body(&mut chance);
                if let Ok(number) = commit(&mut log, &body) {
                    known.push(body);
                    assert_eq!(number, known.len() as u64, "seed {seed}");
                    promised.clone_from(&known);
                }
            }
            drop(log);
            disk.set_room(None);
            // Behind a kill the next start goes on with what the disk may not have.
            match chance.one_in(3) {
                true => disk.kill(),
                false => disk.crash(&mut chance),
            }
        }
    }
}

/// Goal: rot is never passed over in silence and never costs more than what it touched. Method: one
/// flipped bit at every byte of a small log, in plain and encrypted.
#[test]
fn a_rotten_bit_costs_what_it_touched_and_is_told() {
    for keys in [Keys::none(), keys(1)] {
        let original = FaultyDisk::default();
        let mut log = Log::new(original.clone(), SMALL, read_with(&original, &keys).1);
        for number in 0..60_u8 {
            commit(&mut log, &[number; 100]).unwrap();
        }
        assert!(log.sealed().len() > 0);
        let whole = read_with(&original, &keys).0;
        let names = original.list().unwrap();
        for (index, name) in names.iter().enumerate() {
            for byte in 0..original.length_of(name) {
                let disk = original.copied();
                disk.rot(name, byte, (byte % 8) as u8);
                let (found, recovered) = read_with(&disk, &keys);
                assert!(
                    found.iter().all(|one| whole.contains(one)),
                    "{name} byte {byte}"
                );
                let lost = whole.len() - found.len();
                let is_header = byte < HEADER_BYTES;
                assert!(lost <= 1 || is_header, "{name} byte {byte}: {lost} lost");
                let is_last = index + 1 == names.len() && recovered.report.torn_bytes > 0;
                let told = !recovered.report.damage.is_empty();
                assert!(
                    lost == 0 || told || is_last,
                    "{name} byte {byte}: lost in silence"
                );
            }
        }
    }
}

/// Goal: whatever stands in the files, nothing panics, and nothing is found that was not written.
/// Method: by seed, bytes of a small log are overwritten, cut out, doubled and cut off.
#[test]
fn files_full_of_nonsense_are_read_without_harm() {
    for keys in [Keys::none(), keys(1)] {
        let original = FaultyDisk::default();
        let mut log = Log::new(original.clone(), SMALL, read_with(&original, &keys).1);
        for number in 0..60_u8 {
            commit(&mut log, &[number; 100]).unwrap();
        }
        let whole = read_with(&original, &keys).0;
        let names = original.list().unwrap();
        for seed in 0..1_000 {
            let mut chance = Chance(seed);
            let disk = original.copied();
            for _ in 0..=chance.below(8) {
                let name = &names[chance.below(names.len() as u64) as usize];
                let mut bytes = disk.get(name);
                let from = chance.below(bytes.len() as u64 + 1) as usize;
                let to = (from + chance.below(400) as usize).min(bytes.len());
                match chance.below(4) {
                    0 => bytes[from..to].fill_with(|| chance.next() as u8),
                    1 => drop(bytes.drain(from..to)),
                    2 => bytes.extend_from_within(from..to),
                    _ => bytes.truncate(to),
                }
                disk.put(name, &bytes);
            }
            let (found, recovered) = read_with(&disk, &keys);
            assert!(found.iter().all(|one| whole.contains(one)), "seed {seed}");
            // And the log goes on, behind all that it can know of.
            let mut log = Log::new(disk.clone(), SMALL, recovered);
            let last = found.last().map_or(0, |one| one.0);
            assert!(commit(&mut log, b"next").unwrap() > last, "seed {seed}");
        }
    }
}

#[test]
fn a_segment_whose_beginning_is_damaged_is_set_aside_and_what_is_missing_is_named() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    for number in 0..130_u8 {
        commit(&mut log, &[number; 100]).unwrap();
    }
    let names = disk.list().unwrap();
    disk.rot(&names[1], 30, 0);
    let (found, recovered) = read(&disk);
    let aside = format!("{}.damaged", names[1]);
    let [Damage::Header { name }, Damage::Missing { first, last }] =
        recovered.report.damage.as_slice()
    else {
        panic!("{:?}", recovered.report);
    };
    assert_eq!(*name, names[1]);
    assert_eq!(found.len() as u64, 130 - (last - first + 1));
    assert!(disk.list().unwrap().contains(&aside), "it is kept");
    // The rest is served, and what comes next gets a number of its own.
    let mut log = Log::new(disk.clone(), SMALL, recovered);
    assert_eq!(commit(&mut log, b"next").unwrap(), 131);
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    commit(&mut log, b"before").unwrap();
    disk.set_room(Some(10));
    for _ in 0..20 {
        assert!(matches!(
            commit(&mut log, &[1; 100]),
            Err(StoreError::Disk { .. })
        ));
    }
    assert_eq!(disk.list().unwrap().len(), 1, "attempts do not pile up");
    disk.set_room(None);
    assert_eq!(commit(&mut log, b"after").unwrap(), 2);
    let (found, recovered) = read(&disk);
    let bodies: Vec<&[u8]> = found.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [&b"before"[..], b"after"]);
    assert_eq!(recovered.report.damage, []);
}

#[test]
fn without_a_sync_for_each_commit_none_is_waited_for() {
    for durability in [Durability::Os, Durability::Disk] {
        let disk = FaultyDisk::default();
        let options = Options {
            durability,
            ..SMALL
        };
        let mut log = Log::new(disk.clone(), options, read(&disk).1);
        commit(&mut log, b"header and all").unwrap();
        disk.fail_syncs(9);
        let is_done = commit(&mut log, b"by the system").is_ok();
        assert_eq!(is_done, durability == Durability::Os);
        // The end of the process is no crash of the system: what it has, it keeps. What failed was
        // promised to nobody, and is found here too.
        drop(log);
        assert_eq!(read(&disk).0.len(), 2);
    }
}

#[test]
fn a_disk_that_fails_for_long_is_not_strewn_with_empty_segments() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    commit(&mut log, b"before").unwrap();
    for _ in 0..50 {
        // The header is safe, then the commit fails, at each try.
        disk.set_room(Some(HEADER_BYTES + 10));
        assert!(commit(&mut log, &[1; 1_000]).is_err());
    }
    disk.set_room(None);
    assert_eq!(disk.list().unwrap().len(), 1);
    assert_eq!(commit(&mut log, b"after").unwrap(), 2);
    assert_eq!(log.sealed().len(), 1);
}

#[test]
fn a_failed_sync_is_never_asked_again_of_the_same_segment() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    commit(&mut log, b"one").unwrap();
    disk.fail_syncs(1);
    assert_eq!(
        commit(&mut log, b"two").unwrap(),
        2,
        "a fresh segment takes it"
    );
    assert_eq!(disk.list().unwrap().len(), 2);
    let mut chance = Chance(1);
    for _ in 0..20 {
        disk.crash(&mut chance);
        let (found, recovered) = read(&disk);
        assert_eq!(found.len(), 2);
        assert_eq!(recovered.report.damage, []);
    }
}

#[test]
fn retired_segments_go_and_damaged_ones_are_kept_for_the_operator() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    for number in 0..150_u8 {
        commit(&mut log, &[number; 100]).unwrap();
    }
    let names = disk.list().unwrap();
    assert!(names.len() >= 5);
    drop(log);
    disk.rot(&names[1], 200, 1);
    let (whole, recovered) = read(&disk);
    let mut log = Log::new(disk.clone(), SMALL, recovered);
    let serials: Vec<u32> = log.sealed().collect();
    assert_eq!(log.retire(&[0, u32::MAX]).unwrap(), 0, "nobody has these");
    // One in the middle, found damaged, then the first, then one by itself.
    let gone = [serials[1], serials[0], serials[3]];
    assert_eq!(log.retire(&gone).unwrap(), 3);
    assert_eq!(log.retire(&gone).unwrap(), 0, "they are gone");
    let files = disk.list().unwrap();
    assert!(files.contains(&format!("{}.damaged", names[1])));
    let notes = files.iter().filter(|file| file.ends_with(".gone"));
    assert_eq!(notes.count(), 2, "neighbours are one");
    // What was not retired is still there, and nothing is taken for lost.
    let (found, recovered) = read(&disk);
    assert!(found.iter().all(|one| whole.contains(one)));
    assert!(found.len() < whole.len() && recovered.report.damage.is_empty());
    let mut log = Log::new(disk.clone(), SMALL, recovered);
    assert_eq!(commit(&mut log, b"next").unwrap(), 151);
    let all: Vec<u32> = log.sealed().collect();
    log.retire(&all).unwrap();
    drop(log);
    let (found, recovered) = read(&disk);
    assert_eq!(found, [(151, b"next".to_vec())]);
    assert_eq!(recovered.report.damage, []);
}

/// What came later may have undone what an older segment says.
#[test]
fn a_segment_that_cannot_be_retired_keeps_those_behind_it() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    for number in 0..150_u8 {
        commit(&mut log, &[number; 100]).unwrap();
    }
    let serials: Vec<u32> = log.sealed().collect();
    disk.fail_syncs(1);
    assert!(log.retire(&serials[1..2]).is_err());
    assert_eq!(log.retire(&serials[2..]).unwrap(), 0);
    assert_eq!(log.retire(&serials[..1]).unwrap(), 1, "older ones may go");
    assert_eq!(log.retire(&serials[1..]).unwrap(), serials.len() - 1);
}

/// Goal: retiring loses nothing that was not retired, whenever the machine stops; what was retired
/// never comes back; and the log never tells of a loss. Method: by seed, commits and retired
/// segments between failures, kills and crashes.
#[test]
fn retiring_and_crashes_never_look_like_a_loss() {
    for seed in 0..2_000 {
        let mut chance = Chance(seed);
        let disk = FaultyDisk::default();
        let (mut promised, mut retired) = (BTreeMap::new(), BTreeSet::new());
        for _ in 0..5 {
            let mut home = BTreeMap::new();
            let recovered = recover(&disk, &Keys::none(), 1, |found| {
                home.insert(
                    found.number,
                    (found.place.segment(), found.part.bytes.to_vec()),
                );
            });
            let recovered = recovered.unwrap();
            assert_eq!(recovered.report.damage, [], "seed {seed}");
            for (number, bytes) in &promised {
                let found = home.get(number).map(|one| &one.1);
                assert_eq!(found, Some(bytes), "seed {seed} commit {number}");
            }
            let is_back = |number: &&u64| home.contains_key(*number);
            assert_eq!(retired.iter().find(is_back), None, "seed {seed}");
            let mut log = Log::new(disk.clone(), SMALL, recovered);
            for _ in 0..chance.below(60) {
                match chance.below(12) {
                    0 => disk.fail_syncs(chance.below(3) as u32),
                    1 => disk.set_room(Some(chance.below(6_000) as usize)),
                    2..4 => disk.set_room(None),
                    4..6 => {
                        let sealed: Vec<u32> = log.sealed().collect();
                        let one = sealed.get(chance.below(sealed.len() as u64) as usize);
                        let gone: Vec<u32> = one.copied().into_iter().collect();
                        let in_it = |number: &u64| {
                            let home = home.get(number);
                            home.is_some_and(|(segment, _)| gone.contains(segment))
                        };
                        promised.retain(|number, _| !in_it(number));
                        if matches!(log.retire(&gone), Ok(1)) {
                            retired.extend(home.keys().copied().filter(in_it));
                        }
                    }
                    _ => {}
                }
                let bytes = body(&mut chance);
                let part = Part {
                    shard: 0,
                    seq: 0,
                    bytes: &bytes,
                };
                let mut places = Vec::new();
                if let Ok(number) = log.commit([part], &mut places) {
                    home.insert(number, (places[0].segment(), bytes.clone()));
                    promised.insert(number, bytes);
                }
            }
            drop(log);
            disk.set_room(None);
            // Behind a kill the next start goes on with what the disk may not have.
            match chance.one_in(3) {
                true => disk.kill(),
                false => disk.crash(&mut chance),
            }
        }
    }
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_changed() {
    let disk = FaultyDisk::default();
    commit(&mut begin(&disk), b"x").unwrap();
    let name = disk.list().unwrap().remove(0);
    let mut bytes = disk.get(&name);
    bytes[8] = 9;
    // The beginning is what all formats share; of the rest this version can know nothing.
    bytes.truncate(60);
    let sum = crc32c::crc32c(&bytes[..40]);
    bytes[40..44].copy_from_slice(&sum.to_le_bytes());
    disk.put(&name, &bytes);
    let before = disk.list().unwrap();
    let outcome = recover(&disk, &Keys::none(), 1, |_| {});
    assert!(matches!(outcome, Err(StoreError::TooNew { found: 9, .. })));
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = FaultyDisk::default();
    let names = [
        "notes.txt",
        "1.log",
        "00000000.log.damaged",
        "lock",
        "1-2-3.gone",
    ];
    for name in names {
        disk.put(name, b"not ours");
    }
    let mut log = begin(&disk);
    commit(&mut log, b"x").unwrap();
    assert_eq!(log.retire(&[1]).unwrap(), 0, "the current segment stays");
    let names = [
        "notes.txt",
        "1.log",
        "00000000.log.damaged",
        "lock",
        "1-2-3.gone",
    ];
    for name in names {
        assert_eq!(disk.get(name), b"not ours");
    }
}

/// Goal: the same where the disk has given up on what the start finds. Method: the sync of a commit
/// fails, so that the kernel goes on to show what the disk may not have; the process is killed
/// before it has written the commit anew; another one goes on, and then the power is gone.
#[test]
fn what_a_start_has_found_behind_a_failed_sync_survives_the_loss_of_power_too() {
    for keys in [Keys::none(), keys(1)] {
        for seed in 0..200 {
            let mut chance = Chance(seed);
            let disk = FaultyDisk::default();
            let mut log = Log::new(disk.clone(), SMALL, read_with(&disk, &keys).1);
            commit(&mut log, b"first").unwrap();
            disk.fail_syncs(1);
            disk.set_fuse(2);
            assert!(commit(&mut log, b"second").is_err());
            drop(log);
            disk.kill();
            let (found, recovered) = read_with(&disk, &keys);
            assert_eq!(found.len(), 2, "seed {seed}");
            let mut log = Log::new(disk.clone(), SMALL, recovered);
            assert_eq!(commit(&mut log, b"third").unwrap(), 3);
            drop(log);
            disk.crash(&mut chance);
            let (left, recovered) = read_with(&disk, &keys);
            assert_eq!(left.len(), 3, "seed {seed}");
            assert_eq!(left[..2], found, "seed {seed}");
            assert_eq!(recovered.report.damage, [], "seed {seed}");
        }
    }
}

/// Goal: what a start has counted on stays. Method: a process is killed between the write and the
/// sync of a commit, another one starts and goes on, and then the power is gone.
#[test]
fn what_a_start_has_found_survives_the_loss_of_power_after_it() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let disk = FaultyDisk::default();
        let mut log = begin(&disk);
        commit(&mut log, b"first").unwrap();
        disk.set_fuse(1);
        assert!(commit(&mut log, b"second").is_err());
        drop(log);
        disk.kill();
        let (found, recovered) = read(&disk);
        assert_eq!(found.len(), 2, "seed {seed}");
        let mut log = Log::new(disk.clone(), SMALL, recovered);
        commit(&mut log, b"third").unwrap();
        drop(log);
        disk.crash(&mut chance);
        let (left, recovered) = read(&disk);
        assert_eq!(left.len(), 3, "seed {seed}");
        assert_eq!(left[..2], found, "seed {seed}");
        assert_eq!(recovered.report.damage, [], "seed {seed}");
    }
}
