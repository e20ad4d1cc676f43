//! The corpora of the fuzzers, replayed by the stable compiler.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::path::Path;

/// Runs one body over its corpus; a crash that was found once stays found.
fn replay(target: &str, body: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/corpus")
        .join(target);
    let mut files = 0;
    let mut bytes = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let input = fs::read(entry.unwrap().path()).unwrap();
        body(&input);
        files += 1;
        bytes += input.len();
    }
    assert!((1..=300).contains(&files), "{target} has {files} files");
    assert!(bytes <= 1 << 20, "{target} has {bytes} bytes");
}

#[test]
fn the_corpus_of_streams_is_read_without_fault() {
    replay("decode_stream", bodies::decode_stream);
}

#[test]
fn the_corpus_of_round_trips_survives() {
    replay("round_trip", bodies::round_trip);
}

#[test]
fn the_corpus_of_texts_is_decided_as_the_plain_rule_decides() {
    replay("text", bodies::text);
}

/// The table of vectors is a corpus too.
#[test]
fn every_vector_survives_the_fuzzers_bodies() {
    for vector in casemate_codec::vectors::all() {
        for choice in 0..8 {
            let input = [&[choice], &vector.bytes[..]].concat();
            bodies::decode_stream(&input);
            bodies::round_trip(&input);
        }
        bodies::text(&vector.bytes);
    }
}
