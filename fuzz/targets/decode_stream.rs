//! Bytes of a peer, read as a connection reads them.
#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code, reason = "each target runs one body of the file")]
mod bodies;

libfuzzer_sys::fuzz_target!(|input: &[u8]| bodies::decode_stream(input));
