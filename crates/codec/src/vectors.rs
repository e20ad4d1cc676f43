//! The table of byte vectors: one for the tests of codec, engine and server.
//!
//! The table is text, `vectors/*.txt`; its form is told in `vectors/README.md`.

#![allow(
    clippy::panic,
    clippy::expect_used,
    reason = "Cannot fail: the table is fixed text, and the codec's tests read all of it"
)]

use crate::{Reason, Sender, Version};

/// The frame limit under which the table was written, in bytes.
pub const PACKET_BYTES_MAX: u32 = 1 << 20;

/// One packet, or what pretends to be one.
#[derive(Clone, Debug)]
pub struct Vector {
    /// A sentence that says what is special.
    pub name: &'static str,
    /// Version of the connection.
    pub version: Version,
    /// The side that sends the bytes.
    pub sender: Sender,
    /// What it sends.
    pub bytes: Vec<u8>,
    /// What must come of it.
    pub expectation: Expectation,
    /// Identifiers of the statements that it proves, without brackets.
    pub tags: Vec<&'static str>,
}

/// What must come of a vector.
#[derive(Clone, Debug, PartialEq)]
pub enum Expectation {
    /// It decodes, and its `Debug` form contains each of the pieces.
    Packet {
        /// Pieces of the `Debug` form.
        pieces: Vec<&'static str>,
        /// The encoder writes the same bytes again.
        is_canonical: bool,
    },
    /// It is refused.
    Refused {
        /// The reason code of the refusal.
        reason: Reason,
        /// The name of the `Malformed` variant.
        fault: &'static str,
    },
    /// It is not a whole packet yet.
    Incomplete,
}

const FILES: [&str; 7] = [
    include_str!("../vectors/connect.txt"),
    include_str!("../vectors/connack.txt"),
    include_str!("../vectors/publish.txt"),
    include_str!("../vectors/acknowledgement.txt"),
    include_str!("../vectors/subscribe.txt"),
    include_str!("../vectors/session.txt"),
    include_str!("../vectors/frame.txt"),
];

/// Reads the whole table; a vector of several versions comes once for each.
pub fn all() -> Vec<Vector> {
    let paragraphs = FILES.iter().flat_map(|file| file.split("\n\n"));
    paragraphs
        .filter(|text| !text.trim().is_empty())
        .flat_map(paragraph)
        .collect()
}

/// Reads a packet in the notation of the table: hexadecimal, strings and blocks.
pub fn bytes(notation: &str) -> Vec<u8> {
    let mut input = notation.trim();
    let mut blocks = vec![(' ', Vec::new())];
    while let Some(next) = input.chars().next() {
        match next {
            ' ' => input = &input[1..],
            '[' | '(' => {
                blocks.push((next, Vec::new()));
                input = &input[1..];
            }
            ']' | ')' => {
                close(&mut blocks, notation);
                input = &input[1..];
            }
            '"' | '\'' => {
                let (text, rest) = input[1..].split_once(next).expect("quotes come in pairs");
                let block = &mut blocks.last_mut().expect("blocks come in pairs").1;
                if next == '"' {
                    block.extend(length_of_two(text.len()));
                }
                block.extend(text.as_bytes());
                input = rest;
            }
            _ => {
                let end = input.find(' ').unwrap_or(input.len());
                let block = &mut blocks.last_mut().expect("blocks come in pairs").1;
                block.extend(hexadecimal(&input[..end]));
                input = &input[end..];
            }
        }
    }
    assert_eq!(blocks.len(), 1, "a block is left open in {notation}");
    blocks.pop().map(|(_, bytes)| bytes).unwrap_or_default()
}

/// Ends the innermost block: its length, then its bytes, go into the one around it.
fn close(blocks: &mut Vec<(char, Vec<u8>)>, notation: &str) {
    let (opening, content) = blocks.pop().expect("blocks come in pairs");
    let Some((_, outer)) = blocks.last_mut() else {
        panic!("a block is closed that was not opened in {notation}");
    };
    match opening {
        '[' => {
            let mut rest = content.len();
            while rest >= 0x80 {
                outer.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            outer.push(rest as u8);
        }
        _ => outer.extend(length_of_two(content.len())),
    }
    outer.extend(content);
}

fn length_of_two(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("strings of the table are short")
        .to_be_bytes()
}

/// Reads `0a0b`, or `0a*3` for a byte repeated.
fn hexadecimal(word: &str) -> Vec<u8> {
    let (digits, times) = match word.split_once('*') {
        Some((digits, times)) => (digits, times.parse().expect("a count follows the asterisk")),
        None => (word, 1),
    };
    let pairs = digits.as_bytes().chunks(2);
    let once: Vec<u8> = pairs
        .map(|pair| {
            let text = std::str::from_utf8(pair).expect("digits are ASCII");
            assert_eq!(text.len(), 2, "{word} has half a byte");
            u8::from_str_radix(text, 16).expect("digits are hexadecimal")
        })
        .collect();
    once.repeat(times)
}

/// Reads one vector, once for each of its versions.
fn paragraph(text: &'static str) -> Vec<Vector> {
    let mut lines = text.trim_matches('\n').lines();
    let mut line = || lines.next().unwrap_or_default();
    let name = line()
        .strip_prefix("# ")
        .unwrap_or_else(|| panic!("no name: {text}"));
    let mut header: Vec<&str> = line().split(' ').collect();
    let sender = match header.pop() {
        Some("client") => Sender::Client,
        Some("server") => Sender::Server,
        _ => panic!("no sender: {text}"),
    };
    let versions = header.iter().flat_map(|word| match *word {
        "3.1" => vec![Version::V31],
        "3.1.1" => vec![Version::V311],
        "5.0" => vec![Version::V5],
        "all" => vec![Version::V31, Version::V311, Version::V5],
        _ => panic!("no version: {text}"),
    });
    let bytes = bytes(line());
    let expectation = expectation(line());
    let tags: Vec<&str> = line()
        .trim_start_matches("@ [")
        .trim_end_matches(']')
        .split("] [")
        .filter(|tag| !tag.is_empty())
        .collect();
    assert_eq!(line(), "", "a line too many: {text}");
    versions
        .map(|version| Vector {
            name,
            version,
            sender,
            bytes: bytes.clone(),
            expectation: expectation.clone(),
            tags: tags.clone(),
        })
        .collect()
}

fn expectation(line: &'static str) -> Expectation {
    if line == "..." {
        return Expectation::Incomplete;
    }
    let Some((sign, rest)) = line.split_once(' ') else {
        panic!("no expectation: {line}");
    };
    match sign {
        "=" | "~" => Expectation::Packet {
            pieces: rest.split(" | ").collect(),
            is_canonical: sign == "=",
        },
        "!" => {
            let (code, fault) = rest.split_once(' ').expect("a fault follows the code");
            let byte = u8::from_str_radix(code.trim_start_matches("0x"), 16);
            let reason = byte
                .ok()
                .and_then(Reason::from_byte)
                .expect("the code is a reason");
            Expectation::Refused { reason, fault }
        }
        _ => panic!("no expectation: {line}"),
    }
}
