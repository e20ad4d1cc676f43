//! What a log promises, on a disk that breaks in every way that disks do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;

use casemate_store::{recover, Damage, Disk, Log, Options, Recovered, StoreError};
use disk::{Chance, FaultyDisk};

fn salt() -> [u8; 16] {
    use std::sync::atomic::{AtomicU64, Ordering};
    static DRAWN: AtomicU64 = AtomicU64::new(1);
    let mut chance = Chance(DRAWN.fetch_add(1, Ordering::Relaxed));
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&chance.next().to_le_bytes());
    bytes[8..].copy_from_slice(&chance.next().to_le_bytes());
    bytes
}

const SMALL: Options = Options {
    segment_bytes: 4_096,
    salt,
};

/// Reads everything: the commits in order, and what was found.
fn read(disk: &FaultyDisk, from: u64) -> (Vec<(u64, Vec<u8>)>, Recovered) {
    let mut commits = Vec::new();
    let recovered = recover(disk, from, |number, body, _| {
        commits.push((number, body.to_vec()));
    });
    (commits, recovered.unwrap())
}

fn begin(disk: &FaultyDisk) -> Log<FaultyDisk> {
    Log::new(disk.clone(), SMALL, &read(disk, 1).1)
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
/// disk and crashes; after each crash the log is read and goes on.
#[test]
fn what_was_promised_survives_every_crash() {
    for seed in 0..3_000 {
        let mut chance = Chance(seed);
        let disk = FaultyDisk::default();
        let mut promised: Vec<Vec<u8>> = Vec::new();
        for _ in 0..4 {
            let (found, recovered) = read(&disk, 1);
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
            for (kept, (_, found)) in promised.iter().zip(&found) {
                assert_eq!(kept, found, "seed {seed}");
            }
            // What was under way may have arrived; it counts from now on.
            promised = found.into_iter().map(|(_, body)| body).collect();
            let mut log = Log::new(disk.clone(), SMALL, &recovered);
            for _ in 0..chance.below(30) {
                match chance.below(12) {
                    0 => disk.fail_syncs(chance.below(4) as u32),
                    1 => disk.set_room(Some(chance.below(6_000) as usize)),
                    2 => disk.set_room(None),
                    _ => {}
                }
                let body = body(&mut chance);
                if let Ok((number, place)) = log.commit(&body) {
                    promised.push(body);
                    assert_eq!(number, promised.len() as u64, "seed {seed}");
                    let mut again = Vec::new();
                    log.read(place, &mut again).unwrap();
                    assert_eq!(Some(&again), promised.last(), "seed {seed}");
                }
            }
            drop(log);
            disk.set_room(None);
            disk.crash(&mut chance);
        }
    }
}

/// Goal: rot is never passed over in silence and never costs more than what it touched. Method: one
/// flipped bit at every byte of a small log.
#[test]
fn a_rotten_bit_costs_what_it_touched_and_is_told() {
    let original = FaultyDisk::default();
    let mut log = begin(&original);
    for number in 0..60_u8 {
        log.commit(&[number; 100]).unwrap();
    }
    assert!(log.segments() > 1);
    let whole = read(&original, 1).0;
    let names = original.list().unwrap();
    for (index, name) in names.iter().enumerate() {
        for byte in 0..original.length_of(name) {
            let disk = FaultyDisk::default();
            names
                .iter()
                .for_each(|name| disk.put(name, &original.get(name)));
            disk.rot(name, byte, (byte % 8) as u8);
            let (found, recovered) = read(&disk, 1);
            assert!(
                found.iter().all(|one| whole.contains(one)),
                "{name} byte {byte}"
            );
            let lost = whole.len() - found.len();
            let is_header = byte < 64;
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

#[test]
fn a_segment_whose_beginning_is_damaged_is_set_aside_and_what_is_missing_is_named() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    for number in 0..130_u8 {
        log.commit(&[number; 100]).unwrap();
    }
    let names = disk.list().unwrap();
    disk.rot(&names[1], 30, 0);
    let (found, recovered) = read(&disk, 1);
    let aside = format!("{}.damaged", names[1]);
    let [Damage::SetAside { name }, Damage::Missing { first, last }] =
        recovered.report.damage.as_slice()
    else {
        panic!("{:?}", recovered.report);
    };
    assert_eq!(*name, aside);
    assert_eq!(found.len() as u64, 130 - (last - first + 1));
    assert!(disk.list().unwrap().contains(&aside), "it is kept");
    // The rest is served, and what comes next gets a number of its own.
    let mut log = Log::new(disk.clone(), SMALL, &recovered);
    assert_eq!(log.commit(b"next").unwrap().0, 131);
}

#[test]
fn a_full_disk_loses_nothing_and_is_used_again_when_there_is_room() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    log.commit(b"before").unwrap();
    disk.set_room(Some(10));
    for _ in 0..20 {
        assert!(matches!(
            log.commit(&[1; 100]),
            Err(StoreError::Disk { .. })
        ));
    }
    disk.set_room(None);
    assert_eq!(log.commit(b"after").unwrap().0, 2);
    let (found, recovered) = read(&disk, 1);
    let bodies: Vec<&[u8]> = found.iter().map(|(_, body)| &body[..]).collect();
    assert_eq!(bodies, [&b"before"[..], b"after"]);
    assert_eq!(recovered.report.damage, []);
    assert!(disk.list().unwrap().len() < 10, "attempts do not pile up");
}

#[test]
fn a_failed_sync_is_never_asked_again_of_the_same_segment() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    log.commit(b"one").unwrap();
    disk.fail_syncs(1);
    assert_eq!(log.commit(b"two").unwrap().0, 2, "a fresh segment takes it");
    assert_eq!(disk.list().unwrap().len(), 2);
    let mut chance = Chance(1);
    for _ in 0..20 {
        disk.crash(&mut chance);
        let (found, recovered) = read(&disk, 1);
        assert_eq!(found.len(), 2);
        assert_eq!(recovered.report.damage, []);
    }
}

#[test]
fn old_segments_go_and_damaged_ones_are_kept_for_the_operator() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk);
    for number in 0..100_u8 {
        log.commit(&[number; 100]).unwrap();
    }
    let names = disk.list().unwrap();
    assert!(names.len() >= 3);
    drop(log);
    disk.rot(&names[0], 100, 1);
    let recovered = read(&disk, 1).1;
    let mut log = Log::new(disk.clone(), SMALL, &recovered);
    let kept = log.segments();
    assert_eq!(log.retire(1).unwrap(), 0);
    let removed = log.retire(60).unwrap();
    assert!(removed >= 1 && log.segments() == kept - removed);
    assert!(disk
        .list()
        .unwrap()
        .contains(&format!("{}.damaged", names[0])));
    // What is asked for is still there, without a word of what went.
    let (found, recovered) = read(&disk, 60);
    let numbers: Vec<u64> = found.iter().map(|(number, _)| *number).collect();
    assert!(numbers.iter().copied().eq(60..=100));
    assert_eq!(recovered.report.damage, []);
}

#[test]
fn a_newer_format_is_refused_and_nothing_is_changed() {
    let disk = FaultyDisk::default();
    begin(&disk).commit(b"x").unwrap();
    let name = disk.list().unwrap().remove(0);
    let mut bytes = disk.get(&name);
    bytes[8] = 9;
    let sum = crc32c::crc32c(&bytes[..40]);
    bytes[40..44].copy_from_slice(&sum.to_le_bytes());
    disk.put(&name, &bytes);
    let before = disk.list().unwrap();
    let outcome = recover(&disk, 1, |_, _, _| {});
    assert!(matches!(outcome, Err(StoreError::TooNew { found: 9, .. })));
    assert_eq!(disk.list().unwrap(), before);
}

#[test]
fn files_of_others_are_left_alone() {
    let disk = FaultyDisk::default();
    for name in ["notes.txt", "1.log", "0000000000000001-0000.log.damaged"] {
        disk.put(name, b"not ours");
    }
    let mut log = begin(&disk);
    log.commit(b"x").unwrap();
    assert_eq!(
        log.retire(u64::MAX).unwrap(),
        0,
        "the current segment stays"
    );
    for name in ["notes.txt", "1.log", "0000000000000001-0000.log.damaged"] {
        assert_eq!(disk.get(name), b"not ours");
    }
}
