//! Every vector of the table does what the table says.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;

use casemate_codec::vectors::{all, Expectation, Vector, PACKET_BYTES_MAX};
use casemate_codec::{decode, encode, frame, Malformed, Packet, Sender, Version};

/// The rows that a run is about: all of them, or those of the one statement that
/// `tools/specmap.py --prove` wants to see proven.
#[allow(
    clippy::disallowed_methods,
    reason = "the tool that asks is another process"
)]
fn rows_of_statement() -> Vec<Vector> {
    let only = std::env::var("CASEMATE_STATEMENT").unwrap_or_default();
    all()
        .into_iter()
        .filter(|row| only.is_empty() || row.tags.contains(&only.as_str()))
        .collect()
}

/// Reads the one packet of a vector; `None` where bytes are missing.
fn read(vector: &Vector) -> Result<Option<Packet<'_>>, Malformed> {
    let Some(frame) = frame(&vector.bytes, PACKET_BYTES_MAX)? else {
        return Ok(None);
    };
    if vector.bytes.len() < frame.packet_bytes() {
        return Ok(None);
    }
    assert_eq!(
        frame.packet_bytes(),
        vector.bytes.len(),
        "{}: more than one packet",
        vector.name
    );
    decode(
        vector.version,
        vector.sender,
        frame,
        &vector.bytes[frame.header_bytes..],
    )
    .map(Some)
}

#[test]
fn every_vector_does_what_the_table_says() {
    let mut failures = Vec::new();
    for vector in rows_of_statement() {
        let label = format!(
            "{} ({}): {:02x?}",
            vector.name, vector.version, vector.bytes
        );
        let label = label.chars().take(400).collect::<String>();
        match (read(&vector), &vector.expectation) {
            (Ok(None), Expectation::Incomplete) => {}
            (
                Ok(Some(packet)),
                Expectation::Packet {
                    pieces,
                    is_canonical,
                },
            ) => {
                let text = format!("{packet:?}");
                for piece in pieces {
                    if !text.contains(piece) {
                        failures.push(format!("{label}\n  lacks {piece} in {text}"));
                    }
                }
                let mut again = Vec::new();
                encode(vector.version, &packet, u32::MAX, &mut again).unwrap();
                if (again == vector.bytes) != *is_canonical {
                    failures.push(format!("{label}\n  is written again as {again:02x?}"));
                }
            }
            (Err(error), Expectation::Refused { reason, fault }) => {
                let variant = format!("{error:?}");
                let variant = variant.split(['(', ' ']).next().unwrap_or_default();
                if variant != *fault || error.reason() != *reason {
                    failures.push(format!("{label}\n  is refused as {error:?}"));
                }
            }
            (outcome, expectation) => {
                failures.push(format!(
                    "{label}\n  {outcome:?}\n  instead of {expectation:?}"
                ));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn vector_names_are_unique_and_the_table_is_not_small() {
    let vectors = all();
    assert!(vectors.len() >= 150, "{}", vectors.len());
    let names: BTreeSet<_> = vectors.iter().map(|v| (v.name, v.version as u8)).collect();
    let mut seen = BTreeSet::new();
    for vector in &vectors {
        assert!(
            seen.insert((vector.name, vector.version as u8)),
            "{} stands twice",
            vector.name
        );
    }
    assert_eq!(names.len(), vectors.len());
}

/// Any cut of a packet asks for more or is refused, and never becomes a packet.
#[test]
fn a_packet_cut_anywhere_is_not_a_packet() {
    for vector in all() {
        for length in 0..vector.bytes.len().min(300) {
            let cut = Vector {
                bytes: vector.bytes[..length].to_vec(),
                ..vector.clone()
            };
            let outcome = read(&cut);
            assert!(
                !matches!(outcome, Ok(Some(_))),
                "{}: {length} bytes",
                vector.name
            );
        }
    }
}

/// A body that is shorter or longer than its frame says is refused, whoever built the frame.
#[test]
fn a_body_that_differs_from_its_frame_is_refused() {
    for vector in all() {
        let Ok(Some(frame)) = frame(&vector.bytes, PACKET_BYTES_MAX) else {
            continue;
        };
        let Some(body) = vector.bytes.get(frame.header_bytes..frame.packet_bytes()) else {
            continue;
        };
        let longer = [body, &[0]].concat();
        assert!(decode(vector.version, vector.sender, frame, &longer).is_err());
        if let Some((_, shorter)) = body.split_last() {
            assert!(decode(vector.version, vector.sender, frame, shorter).is_err());
        }
    }
}

#[test]
fn secrets_never_show_in_debug() {
    let places = [
        r#"10 [ "MQTT" 05 c2 003c [ 15 "m" 16 ( 'secret' ) ] "c" "u" ( 'secret' ) ]"#,
        r#"20 [ 00 00 [ 15 "m" 16 ( 'secret' ) ] ]"#,
        r#"f0 [ 18 [ 15 "m" 16 ( 'secret' ) ] ]"#,
    ];
    for place in places {
        let bytes = casemate_codec::vectors::bytes(place);
        let header = frame(&bytes, PACKET_BYTES_MAX).unwrap().unwrap();
        let sender = if bytes[0] == 0x20 {
            Sender::Server
        } else {
            Sender::Client
        };
        let packet = decode(Version::V5, sender, header, &bytes[header.header_bytes..]).unwrap();
        for text in [format!("{packet:?}"), format!("{packet:#?}")] {
            // Neither as text nor as a list of bytes, in one line or in many.
            let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
            assert!(text.contains("<hidden>"));
            assert!(
                !joined.contains("secret") && !joined.contains("115,101,99"),
                "{text}"
            );
        }
    }
}
