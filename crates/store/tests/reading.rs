//! Reading back while the log is written: what was given, or a clear refusal, and nothing else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;

use casemate_store::{recover, Disk, Durability, Keys, Log, Options, Part, Place, StoreError};
use disk::{draw, keys, Chance, FaultyDisk};

const SMALL: Options = Options {
    durability: Durability::Disk,
    segment_bytes: 16 * 1024,
    random: draw,
};

fn begin(disk: &FaultyDisk, keys: &Keys) -> Log<FaultyDisk> {
    let recovered = recover(disk, keys, 1, |_| {}).unwrap();
    Log::new(disk.clone(), SMALL, recovered)
}

/// Commits a group of bodies of chance; the place and the bytes of each.
fn commit(log: &mut Log<FaultyDisk>, chance: &mut Chance) -> Vec<(Place, Vec<u8>)> {
    let bodies: Vec<Vec<u8>> = (0..chance.below(20))
        .map(|_| {
            (0..chance.below(400))
                .map(|_| chance.next() as u8)
                .collect()
        })
        .collect();
    let parts = bodies.iter().enumerate().map(|(seq, bytes)| Part {
        shard: 0,
        seq: seq as u64,
        bytes,
    });
    let mut places = Vec::new();
    log.commit(parts, &mut places).unwrap();
    places.into_iter().zip(bodies).collect()
}

/// Goal: every place gives back what was put there, in any order, while the log goes on, and after
/// a restart from recovery's places. Method: by seed, in plain and encrypted.
#[test]
fn every_place_gives_back_what_was_put_there() {
    for seed in 0..200 {
        let mut chance = Chance(seed);
        let keys = match seed % 2 {
            0 => Keys::none(),
            _ => keys(1),
        };
        let disk = FaultyDisk::default();
        let mut log = begin(&disk, &keys);
        let mut reader = log.reader();
        let mut written = Vec::new();
        for _ in 0..30 {
            written.append(&mut commit(&mut log, &mut chance));
            for _ in 0..chance.below(8).min(written.len() as u64) {
                let (place, bytes) = &written[chance.below(written.len() as u64) as usize];
                assert_eq!(reader.read(*place).unwrap(), bytes, "seed {seed}");
            }
        }
        let mut found = Vec::new();
        let recovered = recover(&disk, &keys, 1, |one| {
            found.push((one.place, one.part.bytes.to_vec()));
        });
        assert_eq!(found, written, "seed {seed}");
        let mut reader = Log::new(disk, SMALL, recovered.unwrap()).reader();
        for (place, bytes) in &written {
            assert_eq!(reader.read(*place).unwrap(), bytes, "seed {seed}");
            let half = place.within(bytes.len() / 2, bytes.len() / 4).unwrap();
            let from = bytes.len() / 2;
            assert_eq!(
                reader.read(half).unwrap(),
                &bytes[from..from + bytes.len() / 4],
                "seed {seed}"
            );
        }
    }
}

#[test]
fn whoever_walks_in_order_reads_the_disk_in_large_pieces() {
    for keys in [Keys::none(), keys(1)] {
        let disk = FaultyDisk::default();
        let options = Options {
            segment_bytes: 1 << 30,
            ..SMALL
        };
        let mut log = Log::new(
            disk.clone(),
            options,
            recover(&disk, &keys, 1, |_| {}).unwrap(),
        );
        let mut places = Vec::new();
        for seq in 0..20_000_u64 {
            let part = Part {
                shard: 0,
                seq,
                bytes: &[seq as u8; 500],
            };
            log.commit([part], &mut places).unwrap();
        }
        let mut reader = log.reader();
        let before = disk.reads();
        for (seq, place) in places.iter().enumerate() {
            assert_eq!(reader.read(*place).unwrap(), [seq as u8; 500]);
        }
        // 10 MB and more in pieces of 1 MiB, after a few smaller ones to begin with.
        assert!(disk.reads() - before < 24, "{}", disk.reads() - before);
    }
}

#[test]
fn a_retired_segment_is_read_by_who_has_it_open_and_refused_to_others() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk, &Keys::none());
    let mut chance = Chance(1);
    let mut written = Vec::new();
    while log.sealed().len() < 2 {
        written.append(&mut commit(&mut log, &mut chance));
    }
    let (place, bytes) = &written[0];
    let (mut early, mut late) = (log.reader(), log.reader());
    early.read(*place).unwrap();
    log.retire(&[place.segment()]).unwrap();
    let count = written
        .iter()
        .filter(|one| one.0.segment() == place.segment());
    assert!(count.count() > 10);
    for (place, bytes) in written
        .iter()
        .filter(|one| one.0.segment() == place.segment())
    {
        assert_eq!(early.read(*place).unwrap(), bytes);
    }
    let outcome = late.read(*place);
    assert!(matches!(outcome, Err(StoreError::Gone { segment }) if segment == place.segment()));
    assert!(!bytes.is_empty() || early.read(*place).is_ok());
}

/// Goal: other threads read while the log is written. Method: one hears of each place as soon as it
/// is safe, and reads it at once.
#[test]
fn another_thread_reads_what_has_just_become_safe() {
    let disk = FaultyDisk::default();
    let mut log = begin(&disk, &keys(1));
    let mut reader = log.reader();
    let (sender, places) = std::sync::mpsc::channel::<(Place, Vec<u8>)>();
    let other = std::thread::spawn(move || {
        let mut read = 0;
        for (place, bytes) in places {
            assert_eq!(reader.read(place).unwrap(), bytes);
            read += 1;
        }
        read
    });
    let mut chance = Chance(5);
    let mut written = 0;
    for _ in 0..200 {
        for one in commit(&mut log, &mut chance) {
            written += 1;
            sender.send(one).unwrap();
        }
    }
    drop(sender);
    assert_eq!(other.join().unwrap(), written);
}

/// Goal: a place never leads to what is not its own, however the newest segment was lost. Method:
/// its header rots, or it is retired; the next segment must not take its serial.
#[test]
fn a_place_of_a_lost_segment_never_leads_into_a_newer_one() {
    let part = Part {
        shard: 0,
        seq: 0,
        bytes: b"old",
    };
    for rots in [true, false] {
        let disk = FaultyDisk::default();
        let mut places = Vec::new();
        begin(&disk, &Keys::none())
            .commit([part], &mut places)
            .unwrap();
        if rots {
            disk.rot(&disk.list().unwrap()[0], 20, 0);
        } else {
            let retired = begin(&disk, &Keys::none()).retire(&[places[0].segment()]);
            assert_eq!(retired.unwrap(), 1);
        }
        // What was set aside is still counted at the next start, and at the one after it.
        drop(begin(&disk, &Keys::none()));
        let mut log = begin(&disk, &Keys::none());
        let new = Part {
            bytes: b"new",
            ..part
        };
        log.commit([new], &mut places).unwrap();
        assert_eq!(log.reader().read(places[1]).unwrap(), b"new");
        let outcome = log.reader().read(places[0]).map(<[u8]>::to_vec);
        assert!(
            matches!(outcome, Err(StoreError::Gone { .. })),
            "{outcome:?}"
        );
    }
}

/// Goal: bytes that are not what was written are never handed out. Method: each bit of a commit
/// flipped, places made up, and a segment that is cut short.
#[test]
fn what_is_not_as_it_was_written_is_refused_with_its_file() {
    for keys in [Keys::none(), keys(1)] {
        let disk = FaultyDisk::default();
        let mut log = begin(&disk, &keys);
        let part = Part {
            shard: 0,
            seq: 0,
            bytes: b"twenty bytes of body",
        };
        let mut places = Vec::new();
        log.commit([part], &mut places).unwrap();
        let name = disk.list().unwrap().remove(0);
        let is_damaged = |outcome: Result<&[u8], StoreError>| match outcome {
            Err(StoreError::Damaged { name: told, .. }) => told == name,
            _ => false,
        };
        let sealed = if keys.is_encrypted() { 16 } else { 0 };
        for byte in 136..136 + 24 + 40 + sealed {
            disk.rot(&name, byte, (byte % 8) as u8);
            assert!(is_damaged(log.reader().read(places[0])), "byte {byte}");
            disk.rot(&name, byte, (byte % 8) as u8);
        }
        assert!(log.reader().read(places[0]).is_ok());
        // Made up, within a segment that is there: never more than what its commits hold.
        let mut chance = Chance(3);
        let mut reader = log.reader();
        let mut honest = places[0].to_bytes();
        for _ in 0..20_000 {
            let byte = 4 + chance.below(12) as usize;
            honest[byte] = chance.next() as u8;
            if let Ok(bytes) = reader.read(Place::from_bytes(honest)) {
                assert!(bytes.len() <= 40);
            }
            honest = places[0].to_bytes();
        }
        assert_eq!(reader.read(places[0]).unwrap(), part.bytes);
        honest[..4].copy_from_slice(&99_u32.to_le_bytes());
        let outcome = reader.read(Place::from_bytes(honest));
        assert!(matches!(outcome, Err(StoreError::Gone { segment: 99 })));
        let outcome = reader.read(places[0]).unwrap();
        assert_eq!(outcome, part.bytes);
    }
}
