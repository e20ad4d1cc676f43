//! One file of commits: its name, its header, and reading it from one end to the other.
//!
//! ```text
//! 0   mark      8  "CASEMATE"
//! 8   format    2  1
//! 10  zero      6
//! 16  first     8  number of its first commit
//! 24  salt     16  random
//! 40  checksum  4  CRC-32C of all before
//! 44  zero     20
//! 64  commits
//! ```

use std::io;

use crate::disk::File;
use crate::frame::{Header, Salt, ALIGNMENT, HEADER_BYTES};

/// What every segment begins with.
const MARK: [u8; 8] = *b"CASEMATE";

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u16 = 1;

/// Bytes before the first commit.
pub(crate) const START: u64 = 64;

/// Bytes of one read while a segment is walked.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Which segment: its first number, and which attempt to begin there it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SegmentId {
    pub first: u64,
    pub attempt: u16,
}

impl SegmentId {
    /// Its file's name; names sort as segments do.
    pub fn name(self) -> String {
        format!("{:016x}-{:04x}.log", self.first, self.attempt)
    }

    /// The name under which a damaged one is kept for an operator to look at.
    pub fn name_aside(self) -> String {
        format!("{}.damaged", self.name())
    }

    /// Reads a name; nothing where it is none of a segment.
    pub fn of_name(name: &str) -> Option<SegmentId> {
        let (first, attempt) = name.strip_suffix(".log")?.split_once('-')?;
        let id = SegmentId {
            first: u64::from_str_radix(first, 16).ok()?,
            attempt: u16::from_str_radix(attempt, 16).ok()?,
        };
        // One spelling for each, so that no two files are the same segment.
        (id.name() == name).then_some(id)
    }
}

/// What stands at the beginning of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// It is one of ours.
    Known { first: u64, salt: Salt },
    /// It is one of ours, from a later version.
    TooNew { format: u16 },
    /// The header is not whole and nothing stands behind it: it was made in the moment of a crash,
    /// and no commit was ever in it.
    Unborn,
    /// The header is damaged.
    Unreadable,
}

/// The header of a new segment.
pub(crate) fn opening(first: u64, salt: &Salt) -> [u8; START as usize] {
    let mut bytes = [0; START as usize];
    bytes[..8].copy_from_slice(&MARK);
    bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
    bytes[16..24].copy_from_slice(&first.to_le_bytes());
    bytes[24..40].copy_from_slice(salt);
    let sum = crc32c::crc32c(&bytes[..40]);
    bytes[40..44].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// Reads the header of a segment.
pub(crate) fn read_opening(file: &impl File) -> Opening {
    let Ok(length) = file.length() else {
        return Opening::Unreadable;
    };
    let mut bytes = [0; START as usize];
    let is_whole = matches!(file.read_at(0, &mut bytes), Ok(read) if read == bytes.len());
    let sum = u32::from_le_bytes([bytes[40], bytes[41], bytes[42], bytes[43]]);
    if !is_whole || bytes[..8] != MARK || crc32c::crc32c(&bytes[..40]) != sum {
        return match length {
            0..=START => Opening::Unborn,
            _ => Opening::Unreadable,
        };
    }
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    if format != FORMAT {
        return Opening::TooNew { format };
    }
    let (mut first, mut salt) = ([0; 8], [0; 16]);
    first.copy_from_slice(&bytes[16..24]);
    salt.copy_from_slice(&bytes[24..40]);
    Opening::Known {
        first: u64::from_le_bytes(first),
        salt,
    }
}

/// What stands at one place of a segment.
pub(crate) enum Step<'a> {
    /// A whole commit; its body, and where the body begins.
    Commit {
        number: u64,
        body: &'a [u8],
        offset: u64,
    },
    /// Bytes that are no commit, with a whole commit behind them.
    Damage { from: u64, bytes: u64 },
    /// Bytes that are no commit, up to the end of the file.
    Tail { bytes: u64 },
}

/// Walks the commits of a segment, past what is damaged.
pub(crate) struct Walk<'a, F> {
    file: &'a F,
    salt: Salt,
    length: u64,
    at: u64,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
}

impl<'a, F: File> Walk<'a, F> {
    pub fn new(file: &'a F, salt: Salt) -> io::Result<Walk<'a, F>> {
        Ok(Walk {
            file,
            salt,
            length: file.length()?,
            at: START,
            buffer: Vec::new(),
            start: START,
        })
    }

    /// The next step; nothing at the end.
    pub fn next(&mut self) -> Option<Step<'_>> {
        let from = self.at;
        if from >= self.length {
            return None;
        }
        let mut at = from;
        // A place that the disk cannot read is damage like any other.
        while at < self.length {
            let Some(header) = self.commit_at(at) else {
                at += ALIGNMENT as u64;
                continue;
            };
            if at > from {
                self.at = at;
                let bytes = at - from;
                return Some(Step::Damage { from, bytes });
            }
            self.at = at + header.frame_bytes() as u64;
            let body = (at - self.start) as usize + HEADER_BYTES;
            return Some(Step::Commit {
                number: header.number,
                body: &self.buffer[body..body + header.body_bytes],
                offset: at + HEADER_BYTES as u64,
            });
        }
        self.at = self.length;
        let bytes = self.length - from;
        Some(Step::Tail { bytes })
    }

    /// The header of the whole commit that begins at a place, which the buffer then holds.
    fn commit_at(&mut self, at: u64) -> Option<Header> {
        let header = Header::read(self.show(at, HEADER_BYTES)?)?;
        if self.length - at < (HEADER_BYTES + header.body_bytes) as u64 {
            return None;
        }
        let salt = self.salt;
        let whole = self.show(at, HEADER_BYTES + header.body_bytes)?;
        header.fits(&salt, &whole[HEADER_BYTES..]).then_some(header)
    }

    /// Some bytes of the file; nothing where it ends before or cannot be read there.
    fn show(&mut self, at: u64, bytes: usize) -> Option<&[u8]> {
        let is_there =
            at >= self.start && at + bytes as u64 <= self.start + self.buffer.len() as u64;
        if !is_there {
            let wanted = bytes.max(CHUNK_BYTES).min((self.length - at) as usize);
            self.buffer.resize(wanted, 0);
            self.start = at;
            let read = self.file.read_at(at, &mut self.buffer).unwrap_or(0);
            self.buffer.truncate(read);
        }
        let from = (at - self.start) as usize;
        self.buffer.get(from..from + bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_segment_it_is_in_one_spelling() {
        let id = SegmentId {
            first: 0xABC,
            attempt: 2,
        };
        assert_eq!(id.name(), "0000000000000abc-0002.log");
        assert_eq!(SegmentId::of_name(&id.name()), Some(id));
        let others = [
            "abc-2.log",
            "0000000000000ABC-0002.log",
            "0000000000000abc-0002.log.damaged",
            "0000000000000abc.log",
            "+000000000000abc-0002.log",
            "",
        ];
        for name in others {
            assert_eq!(SegmentId::of_name(name), None, "{name}");
        }
    }

    #[test]
    fn names_sort_as_segments_do() {
        let mut ids = Vec::new();
        for first in [1, 2, 0x10, 0x1_0000_0000, u64::MAX] {
            for attempt in [0, 1, u16::MAX] {
                ids.push(SegmentId { first, attempt });
            }
        }
        assert!(ids.is_sorted_by_key(|id| id.name()) && ids.is_sorted());
    }
}
