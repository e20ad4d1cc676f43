//! What encryption at rest promises: nothing can be read, moved, swapped or put in without the key.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod disk;

use std::collections::BTreeSet;

use casemate_store::{
    recover, Damage, Disk, Durability, Key, Keys, Log, Options, Part, Recovered, StoreError,
};
use disk::{draw, keys, FaultyDisk};

const SMALL: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 4_096,
    random: draw,
};

const HEADER_BYTES: usize = 136;

const SECRET: &[u8] = b"the door code is 4711; and long enough to be found in any file";

fn read(disk: &FaultyDisk, keys: &Keys) -> Result<(Vec<u64>, Recovered), StoreError> {
    let mut numbers = Vec::new();
    let recovered = recover(disk, keys, 1, |found| {
        assert_eq!(found.part.bytes, SECRET);
        numbers.push(found.number);
    })?;
    Ok((numbers, recovered))
}

/// Commits the secret so many times.
fn fill(disk: &FaultyDisk, keys: &Keys, times: usize) -> Log<FaultyDisk> {
    let mut log = Log::new(disk.clone(), SMALL, read(disk, keys).unwrap().1);
    commit(&mut log, times);
    log
}

fn commit(log: &mut Log<FaultyDisk>, times: usize) {
    let part = Part {
        shard: 0,
        seq: 0,
        bytes: SECRET,
    };
    for _ in 0..times {
        log.commit([part], &mut Vec::new()).unwrap();
    }
}

#[test]
fn nothing_of_what_was_given_stands_on_the_disk() {
    let (plain, sealed) = (FaultyDisk::default(), FaultyDisk::default());
    fill(&plain, &Keys::none(), 1);
    fill(&sealed, &keys(1), 1);
    let holds_it = |disk: &FaultyDisk| {
        let name = disk.list().unwrap().remove(0);
        let bytes = disk.get(&name);
        bytes.windows(8).any(|window| window == &SECRET[..8])
    };
    assert!(holds_it(&plain) && !holds_it(&sealed));
}

#[test]
fn a_wrong_key_is_refused_by_its_id_and_nothing_is_changed() {
    let disk = FaultyDisk::default();
    fill(&disk, &keys(1), 100);
    // A damaged and an unborn file, which a start with the right key would tidy up.
    let names = disk.list().unwrap();
    disk.rot(&names[1], 3, 0);
    disk.put("000000ff.log", b"");
    let before: Vec<_> = disk.list().unwrap();
    let wanted = Key::new(&[1; 32]).unwrap().id();
    for keys in [keys(2), Keys::none()] {
        let Err(fault) = read(&disk, &keys) else {
            panic!("accepted");
        };
        let StoreError::WrongKey { wanted: told, .. } = &fault else {
            panic!("{fault}");
        };
        assert_eq!(*told, wanted);
        let told = fault.to_string();
        assert!(told.contains(&wanted.to_string()) && told.contains(&names[0]));
        assert_eq!(disk.list().unwrap(), before);
    }
    read(&disk, &keys(1)).unwrap();
    assert_ne!(disk.list().unwrap(), before);
}

#[test]
fn a_new_key_is_for_new_segments_and_a_former_one_reads_until_they_are_retired() {
    let disk = FaultyDisk::default();
    let mut log = fill(&disk, &keys(1), 3);
    log.rotate(Some(Key::new(&[2; 32]).unwrap()));
    commit(&mut log, 3);
    drop(log);
    assert!(matches!(
        read(&disk, &keys(2)),
        Err(StoreError::WrongKey { .. })
    ));
    let both = keys(2).and_former(Key::new(&[1; 32]).unwrap());
    let (numbers, recovered) = read(&disk, &both).unwrap();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    let mut log = Log::new(disk.clone(), SMALL, recovered);
    let first = log.sealed().next().unwrap();
    log.retire(&[first]).unwrap();
    let (numbers, recovered) = read(&disk, &keys(2)).unwrap();
    assert_eq!(numbers, [4, 5, 6]);
    assert_eq!(recovered.report.damage, []);
}

#[test]
fn a_plain_segment_is_refused_where_a_key_was_given_unless_it_is_allowed() {
    let disk = FaultyDisk::default();
    fill(&disk, &Keys::none(), 3);
    assert!(matches!(
        read(&disk, &keys(1)),
        Err(StoreError::Plain { .. })
    ));
    fill(&disk, &keys(1).and_plain(), 3);
    let (numbers, _) = read(&disk, &keys(1).and_plain()).unwrap();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
}

/// Repairs the checksum of a commit, as one who is no disk would.
fn forge(bytes: &mut [u8], at: usize) {
    let salt: [u8; 16] = bytes[24..40].try_into().unwrap();
    let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().unwrap());
    let body = at + 24..at + 24 + length as usize;
    let sum = crc32c::crc32c(&salt);
    let sum = crc32c::crc32c_append(sum, &u64::from(length).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &bytes[at + 8..at + 16]);
    let sum = crc32c::crc32c_append(sum, &bytes[body]);
    bytes[at + 16..at + 20].copy_from_slice(&sum.to_le_bytes());
}

/// Goal: without the key no commit can be changed, moved or given another number, whatever is done
/// about checksums. Method: each on a copy; the log finds damage instead of commits.
#[test]
fn a_commit_cannot_be_forged_moved_or_renumbered() {
    let original = FaultyDisk::default();
    fill(&original, &keys(1), 4);
    let name = original.list().unwrap().remove(0);
    let whole = original.get(&name);
    let one = (whole.len() - HEADER_BYTES) / 4;
    let at = |number: usize| HEADER_BYTES + (number - 1) * one;
    let outcome = |bytes: &[u8]| {
        let disk = FaultyDisk::default();
        disk.put(&name, bytes);
        let (numbers, recovered) = read(&disk, &keys(1)).unwrap();
        (numbers, recovered.report.damage)
    };
    let is_damage = |damage: &[Damage]| matches!(damage[0], Damage::Bytes { .. });

    assert_eq!(outcome(&whole), (vec![1, 2, 3, 4], vec![]));
    for byte in 24..one - 8 {
        let mut bytes = whole.clone();
        bytes[at(2) + byte] ^= 1;
        forge(&mut bytes, at(2));
        let (numbers, damage) = outcome(&bytes);
        // The last bytes of a commit pad it, and are bound to nothing.
        let length = u32::from_le_bytes(whole[at(2) + 4..at(2) + 8].try_into().unwrap());
        if byte < 24 + length as usize {
            assert_eq!(numbers, [1, 3, 4], "byte {byte}");
            assert!(is_damage(&damage), "byte {byte}");
        }
    }
    // Two in each other's place, under their own numbers and under each other's.
    let mut swapped = whole.clone();
    swapped[at(2)..at(3)].copy_from_slice(&whole[at(3)..at(4)]);
    swapped[at(3)..at(4)].copy_from_slice(&whole[at(2)..at(3)]);
    let (numbers, damage) = outcome(&swapped);
    assert_eq!(numbers, [1, 4]);
    assert!(is_damage(&damage));
    for number in [2, 3] {
        swapped[at(number) + 8..at(number) + 16].copy_from_slice(&(number as u64).to_le_bytes());
        forge(&mut swapped, at(number));
    }
    assert_eq!(outcome(&swapped).0, [1, 4]);
}

#[test]
fn segments_of_two_stores_are_refused_together() {
    let (one, two) = (FaultyDisk::default(), FaultyDisk::default());
    for keys in [Keys::none(), keys(1)] {
        fill(&one, &keys.clone().and_plain(), 100);
        fill(&two, &keys.clone().and_plain(), 100);
        let disk = one.copied();
        let names = one.list().unwrap();
        let last = names.last().unwrap();
        disk.put(last, &two.get(last));
        let outcome = read(&disk, &keys.and_plain());
        assert!(matches!(outcome, Err(StoreError::Foreign { .. })));
        assert_eq!(disk.list().unwrap(), names, "nothing is changed");
    }
}

#[test]
fn a_segment_under_another_ones_name_or_with_a_changed_header_is_not_trusted() {
    let original = FaultyDisk::default();
    fill(&original, &keys(1), 100);
    let names = original.list().unwrap();
    let disk = original.copied();
    disk.put(&names[1], &original.get(&names[0]));
    let damage = read(&disk, &keys(1)).unwrap().1.report.damage;
    let name = names[1].clone();
    assert_eq!(damage[0], Damage::Header { name: name.clone() });
    // Checksums repaired, as one who is no disk would: first number, salt, sealed key.
    for byte in [16, 24, 72, 100, 131] {
        let disk = original.copied();
        let mut bytes = original.get(&name);
        bytes[byte] ^= 1;
        for at in [40, 132] {
            let sum = crc32c::crc32c(&bytes[..at]);
            bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
        }
        disk.put(&name, &bytes);
        let damage = read(&disk, &keys(1)).unwrap().1.report.damage;
        assert_eq!(damage[0], Damage::Header { name: name.clone() }, "{byte}");
    }
}

/// Goal: no nonce is used twice under one data key. Method: after failed writes, failed syncs and
/// restarts, no two commits of one number stand under one header, and no two headers are alike.
#[test]
fn no_number_is_encrypted_twice_under_one_key() {
    let disk = FaultyDisk::default();
    let mut chance = disk::Chance(9);
    let mut headers = BTreeSet::new();
    for round in 0..20 {
        let mut log = fill(&disk, &keys(1), 3);
        disk.fail_syncs(round % 3);
        let part = Part {
            shard: 0,
            seq: 0,
            bytes: SECRET,
        };
        let _ = log.commit([part], &mut Vec::new());
        let _ = log.commit([part], &mut Vec::new());
        for name in disk.list().unwrap() {
            let bytes = disk.get(&name);
            let (mut numbers, mut bodies) = (BTreeSet::new(), BTreeSet::new());
            for at in (HEADER_BYTES..bytes.len()).step_by(8) {
                if &bytes[at..at + 4] == b"CMIT" {
                    assert!(numbers.insert(bytes[at + 8..at + 16].to_vec()), "{name}");
                    // The same secret never looks the same.
                    let body = bytes.get(at + 24..at + 24 + SECRET.len());
                    assert!(
                        body.is_none_or(|body| bodies.insert(body.to_vec())),
                        "{name}"
                    );
                }
            }
            headers.insert(bytes[72..132].to_vec());
        }
        drop(log);
        disk.crash(&mut chance);
    }
    assert!(headers.len() >= 20);
}

#[test]
fn keys_are_never_shown() {
    let key = Key::new(&[0x41; 32]).unwrap();
    let shown = format!("{key:?} {:?}", Keys::encrypted(key.clone()));
    assert!(shown.contains("<hidden>"));
    assert!(!shown.contains("65, 65") && !shown.contains("AAAA") && !shown.contains("4141"));
}
