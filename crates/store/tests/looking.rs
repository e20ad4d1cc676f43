//! Verify, inspect and backup: all is told, nothing is changed, and a copy is a log.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::BTreeMap;

use casemate_store::{
    backup, inspect, recover, verify, Damage, Disk, Durability, Keys, Log, Options, Part,
    StoreError,
};
use disk::{draw, keys, Chance, FaultyDisk};

const SMALL: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 4_096,
    random: draw,
};

fn begin(disk: &FaultyDisk, keys: &Keys) -> Log<FaultyDisk> {
    let recovered = recover(disk, keys, 1, |_| {}).unwrap();
    Log::new(disk.clone(), SMALL, recovered)
}

/// Commits so many times two parts: of shard 1 and of shard 3.
fn commit(log: &mut Log<FaultyDisk>, times: u64) {
    for seq in 0..times {
        let part = |shard| Part {
            shard,
            seq,
            bytes: &[7; 100],
        };
        log.commit([part(1), part(3)], &mut Vec::new()).unwrap();
    }
}

/// All files of a disk, with what is in them.
fn files(disk: &FaultyDisk) -> BTreeMap<String, Vec<u8>> {
    let names = disk.list().unwrap().into_iter();
    names.map(|name| (name.clone(), disk.get(&name))).collect()
}

fn numbers(disk: &FaultyDisk, keys: &Keys) -> (Vec<(u64, u64)>, Vec<Damage>) {
    let mut found = Vec::new();
    let recovered = recover(disk, keys, 1, |one| found.push((one.number, one.part.seq)));
    (found, recovered.unwrap().report.damage)
}

#[test]
fn inspection_tells_each_segment_and_changes_nothing() {
    for keys in [Keys::none(), keys(1)] {
        let disk = FaultyDisk::default();
        let mut log = begin(&disk, &keys);
        commit(&mut log, 50);
        let sealed: Vec<u32> = log.sealed().collect();
        log.retire(&sealed[..1]).unwrap();
        let before = files(&disk);
        let told = inspect(&disk, &keys).unwrap();
        assert_eq!(files(&disk), before);
        assert_eq!(told.next_number, 51);
        assert_eq!(told.segments.len(), log.sealed().len() + 1);
        let [(1, last)] = told.retired[..] else {
            panic!("{:?}", told.retired);
        };
        let mut next = last + 1;
        for segment in &told.segments {
            assert_eq!(segment.bytes, disk.length_of(&segment.name) as u64);
            assert_eq!((segment.format, segment.is_damaged), (2, false));
            assert_eq!(segment.key.is_some(), keys.is_encrypted());
            assert_eq!(segment.numbers, Some((next, next + segment.commits - 1)));
            let commits = segment.commits;
            assert_eq!(segment.parts_by_shard, [0, commits, 0, commits]);
            next += segment.commits;
        }
        assert_eq!((next, told.report.commits), (51, 50 - last));
        assert_eq!(told.report.part_bytes, told.report.parts * 100);
        assert_eq!(told.report, verify(&disk, &keys).unwrap());
    }
}

/// Goal: verify tells what a start would, before the start changes anything. Method: damaged bytes,
/// a damaged header and an unborn file; then the start itself, and what is set aside after it.
#[test]
fn verify_tells_what_recovery_will() {
    let disk = FaultyDisk::default();
    commit(&mut begin(&disk, &Keys::none()), 60);
    let names = disk.list().unwrap();
    disk.rot(&names[0], 300, 1);
    disk.rot(&names[2], 20, 1);
    disk.put("000000aa.log", b"CASE");
    let before = files(&disk);
    let told = verify(&disk, &Keys::none()).unwrap();
    assert_eq!(files(&disk), before);
    let kinds = told.damage.iter().map(|damage| match damage {
        Damage::Header { name } => (name == &names[2], "header"),
        Damage::Bytes { name, .. } => (name == &names[0], "bytes"),
        Damage::Missing { .. } => (true, "missing"),
    });
    let mut kinds: Vec<_> = kinds.collect();
    kinds.sort_unstable();
    let expected = ["bytes", "header", "missing", "missing"].map(|kind| (true, kind));
    assert_eq!(kinds, expected);
    let recovered = recover(&disk, &Keys::none(), 1, |_| {}).unwrap();
    assert_eq!(recovered.report, told);
    let after = inspect(&disk, &Keys::none()).unwrap();
    assert_eq!(after.set_aside, [format!("{}.damaged", names[2])]);
    assert!(after.segments[0].is_damaged);
}

#[test]
fn a_copy_is_a_log_that_goes_on_by_itself() {
    for keys in [Keys::none(), keys(1)] {
        let (disk, copy) = (FaultyDisk::default(), FaultyDisk::default());
        let mut log = begin(&disk, &keys);
        commit(&mut log, 65);
        let sealed: Vec<u32> = log.sealed().collect();
        log.retire(&sealed[1..2]).unwrap();
        disk.put("lock", b"");
        disk.put("00000001.log.damaged", b"an older loss");
        let told = backup(&disk, &copy).unwrap();
        assert_eq!(told.segments, log.sealed().len() + 1);
        // The copy is safe when it is said to be.
        copy.crash(&mut Chance(1));
        let mut expected = files(&disk);
        expected.retain(|name, _| name != "lock" && !name.ends_with(".damaged"));
        let copied = files(&copy);
        assert!(copied.keys().eq(expected.keys()));
        for (name, bytes) in expected {
            // A file that was not ended in peace may have zeros behind it.
            let (same, more) = copied[&name].split_at(bytes.len());
            assert!(
                same == bytes && more.iter().all(|byte| *byte == 0),
                "{name}"
            );
        }
        commit(&mut log, 5);
        let (found, damage) = numbers(&copy, &keys);
        assert_eq!(damage, []);
        assert_eq!(found.last(), Some(&(65, 64)));
        commit(&mut begin(&copy, &keys), 5);
        assert_eq!(numbers(&copy, &keys).0, numbers(&disk, &keys).0);
    }
}

#[test]
fn a_folder_that_holds_a_log_gets_no_copy() {
    for name in [
        "00000001.log",
        "0000000000000001-0000000000000009-00000007.gone",
    ] {
        let (disk, copy) = (FaultyDisk::default(), FaultyDisk::default());
        commit(&mut begin(&disk, &Keys::none()), 1);
        copy.put(name, b"");
        let outcome = backup(&disk, &copy);
        assert!(matches!(outcome, Err(StoreError::Disk { .. })));
        assert_eq!(copy.list().unwrap(), [name]);
    }
}

#[test]
fn a_copy_that_cannot_be_finished_leaves_nothing() {
    let (disk, copy) = (FaultyDisk::default(), FaultyDisk::default());
    commit(&mut begin(&disk, &Keys::none()), 60);
    for room in [0, 100, 5_000] {
        copy.set_room(Some(room));
        assert!(backup(&disk, &copy).is_err());
        assert_eq!(copy.list().unwrap(), [""; 0]);
    }
    copy.set_room(None);
    copy.fail_syncs(1);
    assert!(backup(&disk, &copy).is_err());
    assert_eq!(copy.list().unwrap(), [""; 0]);
    backup(&disk, &copy).unwrap();
}

/// Goal: a copy of a log that is written and retired meanwhile is one that a crash could have left:
/// no number is missing, and all that was safe before is there. Method: by seed, the log goes on
/// between any two files that the copy opens.
#[test]
fn a_copy_is_whole_while_the_log_goes_on() {
    for seed in 0..300 {
        let mut chance = Chance(seed);
        let (disk, copy) = (FaultyDisk::default(), FaultyDisk::default());
        let mut log = begin(&disk, &Keys::none());
        commit(&mut log, 60);
        let safe = log.next_number();
        let log = std::sync::Mutex::new(log);
        let running = disk::Busy::new(disk, || {
            let mut log = log.lock().unwrap();
            match chance.below(3) {
                0 => commit(&mut log, chance.below(40)),
                1 => {
                    let sealed: Vec<u32> = log.sealed().collect();
                    let one = chance.below(sealed.len() as u64 * 4) as usize;
                    let one = sealed.get(one).copied();
                    log.retire(&one.into_iter().collect::<Vec<u32>>()).unwrap();
                }
                _ => {}
            }
        });
        backup(&running, &copy).unwrap();
        let told = inspect(&copy, &Keys::none()).unwrap();
        assert_eq!(told.report.damage, [], "seed {seed}");
        assert!(told.next_number >= safe, "seed {seed}");
    }
}
