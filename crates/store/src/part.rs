//! What a commit is made of: the records of one shard's turn each, and where they are on disk.
//!
//! ```text
//! 0   shard   2  whose
//! 2   zero    2
//! 4   length  4  bytes
//! 8   seq     8  the shard's own number
//! 16  bytes      then zeros up to a multiple of 8
//! ```

use crate::frame::{ALIGNMENT, BODY_BYTES_MAX};

/// Bytes before those of a part.
const HEADER_BYTES: usize = 16;

/// The largest part, bytes: with all that stands around it, it fits a commit of its own.
pub const PART_BYTES_MAX: usize = BODY_BYTES_MAX - 1024;

/// What one shard wants kept, as one piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'a> {
    /// Whose it is.
    pub shard: u16,
    /// The shard's own number for it; the store gives it back and reads nothing into it.
    pub seq: u64,
    /// The records, up to [`PART_BYTES_MAX`].
    pub bytes: &'a [u8],
}

/// Where bytes are on disk. It stays true until their segment is retired, over restarts too; but
/// what one start has found last, the next may find elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub(crate) segment: u32,
    /// Where the commit begins, in units of [`ALIGNMENT`].
    pub(crate) frame: u32,
    /// Where the bytes begin in the body of the commit.
    pub(crate) from: u32,
    pub(crate) bytes: u32,
}

impl Place {
    /// The segment, for [`crate::Log::retire`].
    pub fn segment(self) -> u32 {
        self.segment
    }

    /// How many bytes.
    pub fn bytes(self) -> usize {
        self.bytes as usize
    }

    /// The place of some of the bytes; nothing where they are not all within.
    pub fn within(self, from: usize, bytes: usize) -> Option<Place> {
        let end = from.checked_add(bytes)?;
        // Fits: it is not more than what was a `u32` before.
        (end <= self.bytes()).then(|| Place {
            from: self.from + from as u32,
            bytes: bytes as u32,
            ..self
        })
    }

    /// As 16 bytes, for a record that points at another.
    pub fn to_bytes(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        let numbers = [self.segment, self.frame, self.from, self.bytes];
        for (four, number) in bytes.chunks_exact_mut(4).zip(numbers) {
            four.copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Reads what [`Place::to_bytes`] wrote. Any bytes are a place; what is not there is refused
    /// when it is read.
    pub fn from_bytes(bytes: [u8; 16]) -> Place {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        Place {
            segment: number(0),
            frame: number(4),
            from: number(8),
            bytes: number(12),
        }
    }
}

/// Bytes on disk of a part with this many.
pub(crate) fn part_bytes(bytes: usize) -> usize {
    HEADER_BYTES + bytes.next_multiple_of(ALIGNMENT)
}

/// Appends a part to a body and says where in it its bytes begin.
pub(crate) fn write(part: Part<'_>, body: &mut Vec<u8>) -> usize {
    body.extend_from_slice(&part.shard.to_le_bytes());
    body.extend_from_slice(&[0; 2]);
    // Fits: the largest body is below 4 GiB.
    body.extend_from_slice(&(part.bytes.len() as u32).to_le_bytes());
    body.extend_from_slice(&part.seq.to_le_bytes());
    let from = body.len();
    body.extend_from_slice(part.bytes);
    body.resize(body.len() + padding(part.bytes.len()), 0);
    from
}

fn padding(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT) - bytes
}

/// Walks the parts of a body.
#[derive(Clone)]
pub(crate) struct Parts<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Parts<'a> {
    /// All parts of a body; nothing where it does not consist of parts from end to end.
    pub fn of(body: &'a [u8]) -> Option<Parts<'a>> {
        let parts = Parts { body, at: 0 };
        let mut walk = parts.clone();
        while walk.at < body.len() {
            walk.step()?;
        }
        Some(parts)
    }

    /// The next part and where in the body its bytes begin.
    fn step(&mut self) -> Option<(Part<'a>, usize)> {
        let header: &[u8; HEADER_BYTES] = self.body.get(self.at..)?.first_chunk()?;
        if header[2..4] != [0; 2] {
            return None;
        }
        let shard = u16::from_le_bytes([header[0], header[1]]);
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let mut seq = [0; 8];
        seq.copy_from_slice(&header[8..]);
        let from = self.at + HEADER_BYTES;
        let bytes = self.body.get(from..from.checked_add(length)?)?;
        self.at = from + length + padding(length);
        let seq = u64::from_le_bytes(seq);
        Some((Part { shard, seq, bytes }, from))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = (Part<'a>, usize);

    fn next(&mut self) -> Option<(Part<'a>, usize)> {
        self.step()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PARTS: [Part<'static>; 3] = [
        Part {
            shard: 0,
            seq: 1,
            bytes: b"",
        },
        Part {
            shard: u16::MAX,
            seq: u64::MAX,
            bytes: b"twelve bytes",
        },
        Part {
            shard: 7,
            seq: 0,
            bytes: b"eight by",
        },
    ];

    fn body() -> Vec<u8> {
        let mut body = Vec::new();
        for part in PARTS {
            write(part, &mut body);
        }
        body
    }

    #[test]
    fn what_was_written_is_read_and_stands_where_it_is_said_to() {
        let body = body();
        let found: Vec<_> = Parts::of(&body).unwrap().collect();
        assert_eq!(found.iter().map(|one| one.0).collect::<Vec<_>>(), PARTS);
        for (part, from) in found {
            assert_eq!(&body[from..from + part.bytes.len()], part.bytes);
        }
        let bytes: usize = PARTS.iter().map(|part| part_bytes(part.bytes.len())).sum();
        assert_eq!(bytes, body.len());
        assert_eq!(Parts::of(&[]).unwrap().count(), 0);
    }

    #[test]
    fn a_body_that_is_cut_anywhere_but_between_parts_is_none() {
        let body = body();
        let ends = [0, 16, 48];
        for end in 0..body.len() {
            // The zeros behind the last bytes carry nothing.
            let is_one = ends.contains(&end) || (44..48).contains(&end);
            assert_eq!(Parts::of(&body[..end]).is_some(), is_one, "{end}");
        }
    }

    #[test]
    fn a_place_within_a_place_stays_within() {
        let place = Place {
            segment: 1,
            frame: 2,
            from: 40,
            bytes: 10,
        };
        let inner = place.within(4, 6).unwrap();
        assert_eq!((inner.from, inner.bytes), (44, 6));
        assert_eq!(place.within(4, 7), None);
        assert_eq!(place.within(usize::MAX, 1), None);
        assert_eq!(Place::from_bytes(inner.to_bytes()), inner);
    }
}
