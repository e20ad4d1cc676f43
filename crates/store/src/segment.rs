//! One file of commits: its name and its header.
//!
//! ```text
//! 0    mark      8  "CASEMATE"
//! 8    format    2  2
//! 10   cipher    2  0 none, 1 AES-256-GCM
//! 12   serial    4  one more than the segment before; its name says it too
//! 16   first     8  number of its first commit
//! 24   salt     16  random
//! 40   checksum  4  CRC-32C of all before: up to here each format is the same
//! 44   zero      4
//! 48   store    16  random, the same in all segments of a store
//! 64   key       8  id of the caller's key, zero where there is none
//! 72   sealed   60  the data key, encrypted; zero where there is none
//! 132  checksum  4  CRC-32C of all before
//! 136  commits
//! ```
//!
//! Format 1 had zeros in place of cipher and serial, ended at 64 and held one body in each commit
//! rather than parts. It is read, never written.

use std::io;
use std::sync::Arc;

use crate::disk::File;
use crate::error::StoreError;
use crate::frame::Salt;
use crate::seal::{Binding, Cipher, Key, KeyId, SEALED_BYTES};

/// What every segment begins with.
const MARK: [u8; 8] = *b"CASEMATE";

/// The format that this version writes, and the newest that it reads.
pub(crate) const FORMAT: u16 = 2;

/// Bytes before the first commit, in format 1 and in format 2.
const START_1: usize = 64;
pub(crate) const START: usize = 136;

/// Where the seal of the data key stands; what is before it is bound to it.
const SEALED_AT: usize = 72;

/// The cipher's number in a header.
const AES_256_GCM: u16 = 1;

/// A store's random id.
pub(crate) type StoreId = [u8; 16];

/// A file's name, as it says which segment it is. Names sort as segments do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Of format 1: the first number, and which attempt to begin there it was.
    One { first: u64, attempt: u16 },
    /// Of format 2 and later.
    Serial(u32),
}

impl Name {
    /// Reads a name; nothing where it is none of a segment.
    pub fn of(file: &str) -> Option<Name> {
        let stem = file.strip_suffix(".log")?;
        let name = match stem.split_once('-') {
            None => Name::Serial(u32::from_str_radix(stem, 16).ok()?),
            Some((first, attempt)) => Name::One {
                first: u64::from_str_radix(first, 16).ok()?,
                attempt: u16::from_str_radix(attempt, 16).ok()?,
            },
        };
        // One spelling for each, so that no two files are the same segment.
        (name.file() == file).then_some(name)
    }

    /// The file's name.
    pub fn file(self) -> String {
        match self {
            Name::One { first, attempt } => format!("{first:016x}-{attempt:04x}.log"),
            Name::Serial(serial) => format!("{serial:08x}.log"),
        }
    }

    /// The name under which a damaged one is kept for an operator to look at.
    pub fn aside(self) -> String {
        format!("{}.damaged", self.file())
    }

    /// The name of one that becomes a segment when its first commit is in it and safe.
    pub fn unfinished(self) -> String {
        format!("{}.new", self.file())
    }

    /// True for such a name.
    pub fn is_unfinished(file: &str) -> bool {
        file.strip_suffix(".new")
            .is_some_and(|file| Name::of(file).is_some())
    }

    /// Bytes before the first commit of such a file.
    fn start(self) -> usize {
        match self {
            Name::One { .. } => START_1,
            Name::Serial(_) => START,
        }
    }
}

/// One segment: all that must be known to read a commit of it.
#[derive(Debug)]
pub(crate) struct Segment {
    pub serial: u32,
    pub name: Name,
    pub format: u16,
    /// Number of its first commit.
    pub first: u64,
    pub salt: Salt,
    /// None in format 1.
    pub store: Option<StoreId>,
    /// None where it is in plain.
    pub key: Option<KeyId>,
    pub cipher: Option<Cipher>,
}

impl Segment {
    /// Where its first commit begins.
    pub fn start(&self) -> u64 {
        self.name.start() as u64
    }

    /// What the tag of a commit is bound to.
    pub fn binding(&self, number: u64, offset: u64) -> Binding {
        let mut binding = [0; 44];
        binding[..16].copy_from_slice(&self.store.unwrap_or_default());
        binding[16..20].copy_from_slice(&self.serial.to_le_bytes());
        binding[20..28].copy_from_slice(&self.first.to_le_bytes());
        binding[28..36].copy_from_slice(&number.to_le_bytes());
        binding[36..].copy_from_slice(&offset.to_le_bytes());
        binding
    }

    /// A new segment, and its header.
    ///
    /// # Errors
    /// There is no randomness, or the cryptographic library refuses to work.
    pub fn fresh(
        (serial, first): (u32, u64),
        store: StoreId,
        key: Option<&Key>,
        random: fn(&mut [u8]) -> io::Result<()>,
    ) -> Result<(Arc<Segment>, [u8; START]), StoreError> {
        let mut salt = [0; 16];
        let fail = StoreError::disk("no randomness for a new segment");
        random(&mut salt).map_err(fail)?;
        let mut bytes = [0; START];
        bytes[..8].copy_from_slice(&MARK);
        bytes[8..10].copy_from_slice(&FORMAT.to_le_bytes());
        bytes[12..16].copy_from_slice(&serial.to_le_bytes());
        bytes[16..24].copy_from_slice(&first.to_le_bytes());
        bytes[24..40].copy_from_slice(&salt);
        bytes[48..64].copy_from_slice(&store);
        if let Some(key) = key {
            bytes[10..12].copy_from_slice(&AES_256_GCM.to_le_bytes());
            bytes[64..72].copy_from_slice(&key.id().0);
        }
        seal(&mut bytes, 40);
        let mut cipher = None;
        if let Some(key) = key {
            let (made, sealed) = Cipher::fresh(key, &bytes[..SEALED_AT], random)?;
            bytes[SEALED_AT..SEALED_AT + SEALED_BYTES].copy_from_slice(&sealed);
            cipher = Some(made);
        }
        seal(&mut bytes, START - 4);
        let segment = Segment {
            serial,
            name: Name::Serial(serial),
            format: FORMAT,
            first,
            salt,
            store: Some(store),
            key: key.map(Key::id),
            cipher,
        };
        Ok((Arc::new(segment), bytes))
    }
}

/// Writes the checksum of all before a place to that place.
fn seal(bytes: &mut [u8; START], at: usize) {
    let sum = crc32c::crc32c(&bytes[..at]);
    bytes[at..at + 4].copy_from_slice(&sum.to_le_bytes());
}

/// What stands at the beginning of a file.
pub(crate) enum Opening {
    /// It is one of ours.
    Known(Header),
    /// It is one of ours, from a later version.
    TooNew { format: u16 },
    /// The header is not whole and nothing stands behind it: it was made in the moment of a crash,
    /// and no commit was ever in it.
    Unborn,
    /// The header is damaged.
    Unreadable,
}

/// A whole header.
pub(crate) struct Header {
    name: Name,
    bytes: [u8; START],
}

impl Header {
    /// Id of the key that the segment is encrypted under; none where it is in plain.
    pub fn key(&self) -> Option<KeyId> {
        (self.format() == FORMAT && self.number::<2>(10) == AES_256_GCM.to_le_bytes())
            .then(|| KeyId(self.number(64)))
    }

    /// The store; none in format 1.
    pub fn store(&self) -> Option<StoreId> {
        (self.format() == FORMAT).then(|| self.number(48))
    }

    /// The segment; nothing where it is another than its name says, or its seal is broken.
    ///
    /// `serial` counts for format 1, which has none of its own, and `key` for an encrypted one.
    pub fn segment(&self, serial: u32, key: Option<&Key>) -> Option<Segment> {
        let first = u64::from_le_bytes(self.number(16));
        let (serial, is_named_so) = match self.name {
            Name::One { first: named, .. } => (serial, self.format() == 1 && named == first),
            Name::Serial(named) => {
                let serial = u32::from_le_bytes(self.number(12));
                (serial, self.format() == FORMAT && named == serial)
            }
        };
        if !is_named_so || (self.number::<2>(10) != [0; 2] && self.key().is_none()) {
            return None;
        }
        let cipher = match (self.key(), key) {
            (None, _) => None,
            (Some(_), key) => {
                let sealed = self.number(SEALED_AT);
                Some(Cipher::unsealed(key?, &self.bytes[..SEALED_AT], &sealed)?)
            }
        };
        Some(Segment {
            serial,
            name: self.name,
            format: self.format(),
            first,
            salt: self.number(24),
            store: self.store(),
            key: self.key(),
            cipher,
        })
    }

    fn format(&self) -> u16 {
        u16::from_le_bytes(self.number(8))
    }

    fn number<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut number = [0; N];
        number.copy_from_slice(&self.bytes[at..at + N]);
        number
    }
}

/// Reads the header of a file.
pub(crate) fn read_opening(name: Name, file: &impl File) -> Opening {
    let Ok(length) = file.length() else {
        return Opening::Unreadable;
    };
    let start = name.start();
    let mut bytes = [0; START];
    let read = file.read_at(0, &mut bytes).unwrap_or(0);
    let is_sealed = |at: usize| {
        let sum = [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        read >= at + 4 && crc32c::crc32c(&bytes[..at]) == u32::from_le_bytes(sum)
    };
    let format = u16::from_le_bytes([bytes[8], bytes[9]]);
    let is_ours = bytes[..8] == MARK && is_sealed(40);
    if is_ours && format > FORMAT {
        return Opening::TooNew { format };
    }
    let is_whole = is_ours && read >= start && (format == 1 || is_sealed(START - 4));
    match is_whole {
        true => Opening::Known(Header { name, bytes }),
        false if length <= start as u64 => Opening::Unborn,
        false => Opening::Unreadable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_segment_it_is_in_one_spelling() {
        let known = [
            (Name::Serial(0xABC), "00000abc.log"),
            (
                Name::One {
                    first: 0xABC,
                    attempt: 2,
                },
                "0000000000000abc-0002.log",
            ),
        ];
        for (name, file) in known {
            assert_eq!(name.file(), file);
            assert_eq!(Name::of(file), Some(name));
            assert_eq!(Name::of(&name.unfinished()), None);
            assert!(Name::is_unfinished(&name.unfinished()));
            assert!(!Name::is_unfinished(file));
        }
        let others = [
            "abc.log",
            "00000ABC.log",
            "00000abc.log.damaged",
            "+0000abc.log",
            "100000abc.log",
            "0000000000000ABC-0002.log",
            "0000000000000abc.log",
            "",
        ];
        for file in others {
            assert_eq!(Name::of(file), None, "{file}");
        }
    }

    #[test]
    fn names_sort_as_segments_do_and_those_of_format_1_come_first() {
        let mut names = Vec::new();
        for first in [1, 2, 0x10, u64::MAX] {
            for attempt in [0, 1, u16::MAX] {
                names.push(Name::One { first, attempt });
            }
        }
        for serial in [0, 1, 0x10, u32::MAX] {
            names.push(Name::Serial(serial));
        }
        assert!(names.is_sorted());
    }
}
