//! Stored folders of every format that was ever written: each is still read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;

use casemate_store::{recover, Keys, Log, Options, Part};
use disk::keys;
use disk::FaultyDisk;

/// A sample as a disk of its own, so that reading it changes nothing in the tree.
fn sample(name: &str) -> FaultyDisk {
    let disk = FaultyDisk::default();
    let folder = format!("{}/tests/samples/{name}", env!("CARGO_MANIFEST_DIR"));
    for file in std::fs::read_dir(folder).unwrap() {
        let file = file.unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        disk.put(&file.file_name().into_string().unwrap(), &bytes);
    }
    disk
}

#[test]
fn a_log_of_format_1_is_read_and_goes_on_in_format_2() {
    let disk = sample("format-1");
    let expected: Vec<String> = (0..40)
        .map(|n| format!("format 1, round {}, commit {}", n / 20, n % 20))
        .collect();
    let mut found = Vec::new();
    let recovered = recover(&disk, &Keys::none(), 1, |one| {
        assert_eq!((one.part.shard, one.part.seq), (0, one.number));
        found.push(String::from_utf8(one.part.bytes.to_vec()).unwrap());
    });
    assert_eq!(found, expected);
    let recovered = recovered.unwrap();
    assert_eq!(recovered.report.commits, 40);
    assert_eq!(recovered.report.damage, []);
    let options = Options {
        durability: casemate_store::Durability::Disk,
        segment_bytes: 4_096,
        random: disk::draw,
    };
    let mut log = Log::new(disk.clone(), options, recovered);
    let part = Part {
        shard: 2,
        seq: 3,
        bytes: b"format 2",
    };
    assert_eq!(log.commit([part], &mut Vec::new()).unwrap(), 41);
    // Those of format 1 are retired like any other.
    let old: Vec<u32> = log.sealed().collect();
    assert_eq!(log.retire(&old).unwrap(), 4);
    let mut left = Vec::new();
    let report = recover(&disk, &Keys::none(), 1, |one| {
        left.push((one.number, one.part.shard, one.part.bytes.to_vec()));
    });
    assert_eq!(left, [(41, 2, b"format 2".to_vec())]);
    assert_eq!(report.unwrap().report.damage, []);
}

/// Goal: what this version wrote when format 2 came is read for ever. Method: folders that
/// `examples/sample.rs` has written: 20 commits of three parts, in two runs, the second segment
/// retired; in plain, and encrypted under a key of sevens.
#[test]
fn a_log_of_format_2_is_read_in_plain_and_encrypted() {
    // An encrypted commit is longer, so that its segments hold fewer.
    let samples = [
        ("format-2", Keys::none(), 5..=8),
        ("format-2-encrypted", keys(7), 4..=6),
    ];
    for (name, keys, retired) in samples {
        let disk = sample(name);
        let mut found = Vec::new();
        let report = recover(&disk, &keys, 1, |one| {
            let text = format!("commit {}, shard {}", one.number, one.part.shard);
            assert_eq!(one.part.bytes, text.as_bytes());
            assert_eq!(one.part.seq, one.number * 10);
            found.push((one.number, one.part.shard));
        });
        let report = report.unwrap().report;
        assert_eq!(report.damage, [], "{name}");
        let expected = (1..=20).filter(|number| !retired.contains(number));
        let expected: Vec<_> = expected
            .flat_map(|number| [0, 1, 65_535].map(|shard| (number, shard)))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}
