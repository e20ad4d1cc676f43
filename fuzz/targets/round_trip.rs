//! What is accepted is written, read and written again.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "each target runs one body of the file")]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::round_trip(input));
