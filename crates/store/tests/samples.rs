//! Stored folders of every format that was ever written: each is still read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod disk;

use casemate_store::{recover, Keys};
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
    let report = recovered.unwrap().report;
    assert_eq!((report.commits, report.damage), (40, vec![]));
}
