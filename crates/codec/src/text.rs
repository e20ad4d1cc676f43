//! Topic names, topic filters and shared subscription filters: what may be written in them.

use std::fmt;

/// What is wrong with a topic name or filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextFault {
    /// It has no characters.
    Empty,
    /// A topic name contains `+` or `#`.
    Wildcard,
    /// It contains U+0000.
    Null,
    /// It has more than 65,535 bytes.
    TooLong,
    /// `+` or `#` does not fill a level, or `#` is not the last one.
    MisplacedWildcard,
    /// The name in `$share/name/filter` is empty, or contains `+` or `#`.
    BadShareName,
    /// No filter follows the name in `$share/name/filter`.
    BadShareFilter,
}

impl fmt::Display for TextFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TextFault::Empty => "it is empty",
            TextFault::Wildcard => "it contains a wildcard",
            TextFault::Null => "it contains the null character",
            TextFault::TooLong => "it has more than 65,535 bytes",
            TextFault::MisplacedWildcard => "a wildcard does not fill its level or is not last",
            TextFault::BadShareName => "the share name is empty or contains a wildcard",
            TextFault::BadShareFilter => "no filter follows the share name",
        })
    }
}

/// The two parts of `$share/name/filter` (MQTT 5.0 §4.8.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share<'a> {
    /// The group that shares the messages.
    pub name: &'a str,
    /// What the group subscribes to.
    pub filter: &'a str,
}

const SHARE_PREFIX: &str = "$share/";

/// Says what is wrong with a topic name, if anything. Linear in its bytes.
///
/// Nothing is normalized or trimmed ([MQTT-4.7.3-4], [MQTT-3.1.1 4.7.3-4]); control characters and
/// U+FEFF are ordinary characters ([MQTT-1.5.4-3]).
pub fn topic_fault(topic: &str) -> Option<TextFault> {
    if topic.is_empty() {
        // [MQTT-4.7.3-1] [MQTT-3.1.1 4.7.3-1]
        return Some(TextFault::Empty);
    }
    if topic.len() > usize::from(u16::MAX) {
        // [MQTT-4.7.3-3] [MQTT-3.1.1 4.7.3-3]
        return Some(TextFault::TooLong);
    }
    special_fault(topic.as_bytes())
}

/// Says whether a topic name contains a wildcard ([MQTT-4.7.0-1], [MQTT-3.1.1 4.7.1-1]) or the
/// null character ([MQTT-4.7.3-2], [MQTT-3.1.1 4.7.3-2]).
#[inline]
pub(crate) fn special_fault(topic: &[u8]) -> Option<TextFault> {
    if is_plain(topic) {
        return None;
    }
    // [MQTT-1.5.4-2] [MQTT-3.1.1 1.5.3-2] The slow half is for topics that are refused anyway.
    Some(if topic.contains(&0) {
        TextFault::Null
    } else {
        TextFault::Wildcard
    })
}

/// True where no byte is NUL, `+` or `#`.
#[inline]
fn is_plain(topic: &[u8]) -> bool {
    // Above this, the vector search is faster than words of eight bytes.
    const SHORT_BYTES: usize = 64;
    if topic.len() > SHORT_BYTES {
        return memchr::memchr3(0, b'+', b'#', topic).is_none();
    }
    let (words, tail) = topic.as_chunks::<8>();
    let marks = words.iter().fold(0, |marks, word| {
        marks | special_marks(u64::from_le_bytes(*word))
    });
    // The tail is read as the end of the last eight bytes where there are eight.
    let tail_marks = match topic.last_chunk::<8>() {
        Some(word) => special_marks(u64::from_le_bytes(*word)),
        None => u64::from(tail.iter().any(|&byte| matches!(byte, 0 | b'+' | b'#'))),
    };
    marks | tail_marks == 0
}

/// Not 0 where a byte of the word is NUL, `+` or `#`; eight bytes at once, without a branch.
#[inline]
fn special_marks(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte is zero exactly where subtracting one borrows from its clear high bit.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    // `+` is `#` with bit 3 set, so that clearing this bit leaves one character to look for.
    let wildcards = (word & !(ONES * 0x08)) ^ (ONES * b'#' as u64);
    zeros(word) | zeros(wildcards)
}

/// Says what is wrong with a topic filter, `$share/name/filter` included. Linear in its bytes.
///
/// `$share/` means a shared subscription in every version, as the older ones know no other use.
pub fn filter_fault(filter: &str) -> Option<TextFault> {
    if filter.is_empty() {
        // [MQTT-4.7.3-1] [MQTT-3.1.1 4.7.3-1]
        return Some(TextFault::Empty);
    }
    if filter.len() > usize::from(u16::MAX) {
        // [MQTT-4.7.3-3] [MQTT-3.1.1 4.7.3-3]
        return Some(TextFault::TooLong);
    }
    let Some(shared) = filter.strip_prefix(SHARE_PREFIX) else {
        return level_fault(filter.as_bytes());
    };
    let (name, inner) = match memchr::memchr(b'/', shared.as_bytes()) {
        Some(slash) => (&shared[..slash], &shared[slash + 1..]),
        None => (shared, ""),
    };
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2] The name ends at the first slash, so it cannot contain one.
    if name.is_empty() || memchr::memchr2(b'+', b'#', name.as_bytes()).is_some() {
        return Some(TextFault::BadShareName);
    }
    if name.as_bytes().contains(&0) {
        return Some(TextFault::Null);
    }
    // [MQTT-4.8.2-2]
    if inner.is_empty() {
        return Some(TextFault::BadShareFilter);
    }
    level_fault(inner.as_bytes())
}

/// Says what is wrong with the wildcards of a filter, or that it contains the null character.
fn level_fault(filter: &[u8]) -> Option<TextFault> {
    for index in memchr::memchr3_iter(0, b'+', b'#', filter) {
        if filter[index] == 0 {
            // [MQTT-4.7.3-2] [MQTT-3.1.1 4.7.3-2]
            return Some(TextFault::Null);
        }
        let starts_level = index == 0 || filter[index - 1] == b'/';
        let ends_level = match filter.get(index + 1) {
            None => true,
            // [MQTT-4.7.1-1] [MQTT-3.1.1 4.7.1-2] Only `+` may have levels after it.
            Some(&next) => next == b'/' && filter[index] == b'+',
        };
        // [MQTT-4.7.1-2] [MQTT-3.1.1 4.7.1-3]
        if !(starts_level && ends_level) {
            return Some(TextFault::MisplacedWildcard);
        }
    }
    None
}

/// Splits `$share/name/filter`; `None` for every other filter.
pub fn share(filter: &str) -> Option<Share<'_>> {
    let (name, filter) = filter.strip_prefix(SHARE_PREFIX)?.split_once('/')?;
    Some(Share { name, filter })
}
