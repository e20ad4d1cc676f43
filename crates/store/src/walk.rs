//! Reading a segment from one end to the other, past what is damaged.

use std::io;

use crate::disk::File;
use crate::frame::{Header, ALIGNMENT, HEADER_BYTES};
use crate::part::Parts;
use crate::segment::Segment;

/// Bytes of one read.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What stands at one place of a segment.
pub(crate) enum Step<'a> {
    /// A whole commit: its number, its body in plain, and where it begins.
    Commit {
        number: u64,
        body: &'a [u8],
        at: u64,
    },
    /// Bytes that are no commit, with a whole commit behind them.
    Damage { from: u64, bytes: u64 },
    /// Bytes that are no commit, up to the end of the file or zeros up to there.
    Tail { bytes: u64 },
}

/// Walks the commits of a segment.
pub(crate) struct Walk<'a, F> {
    file: &'a F,
    segment: &'a Segment,
    length: u64,
    at: u64,
    /// Bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// The last commit, where it was encrypted.
    opened: Vec<u8>,
}

impl<'a, F: File> Walk<'a, F> {
    pub fn new(file: &'a F, segment: &'a Segment) -> io::Result<Walk<'a, F>> {
        Ok(Walk {
            file,
            segment,
            length: file.length()?,
            at: segment.start(),
            buffer: Vec::new(),
            start: segment.start(),
            opened: Vec::new(),
        })
    }

    /// Goes on at a place where a commit begins.
    pub fn skip_to(&mut self, at: u64) {
        self.at = at;
    }

    /// The next step; nothing at the end.
    pub fn next(&mut self) -> Option<Step<'_>> {
        let from = self.at;
        if from >= self.length {
            return None;
        }
        let mut at = from;
        // Where the last bytes end that are not zero: what follows was written ahead.
        let mut end = from;
        // A place that the disk cannot read is damage like any other.
        while at < self.length {
            let Some(header) = self.commit_at(at) else {
                let next = self.length.min(at + ALIGNMENT as u64);
                if !self.is_zero(at, next) {
                    end = next;
                }
                at = next;
                continue;
            };
            if at > from {
                self.at = at;
                let bytes = at - from;
                return Some(Step::Damage { from, bytes });
            }
            self.at = at + header.frame_bytes() as u64;
            let body = match self.segment.cipher {
                Some(_) => &self.opened[..],
                None => {
                    let body = (at - self.start) as usize + HEADER_BYTES;
                    &self.buffer[body..body + header.body_bytes]
                }
            };
            return Some(Step::Commit {
                number: header.number,
                body,
                at,
            });
        }
        self.at = self.length;
        let bytes = end - from;
        (bytes > 0).then_some(Step::Tail { bytes })
    }

    fn is_zero(&mut self, from: u64, to: u64) -> bool {
        let bytes = self.show(from, (to - from) as usize);
        bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    }

    /// The header of the whole commit that begins at a place. Its body is in `opened` where it is
    /// encrypted, in the buffer where not.
    fn commit_at(&mut self, at: u64) -> Option<Header> {
        let header = Header::read(self.show(at, HEADER_BYTES)?)?;
        if self.length - at < (HEADER_BYTES + header.body_bytes) as u64 {
            return None;
        }
        self.show(at, HEADER_BYTES + header.body_bytes)?;
        let from = (at - self.start) as usize + HEADER_BYTES;
        let stored = &self.buffer[from..from + header.body_bytes];
        open(self.segment, &header, at, stored, &mut self.opened).then_some(header)
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

/// True where a stored body is the one that was written at this place; `opened` then holds it in
/// plain, where it is encrypted.
pub(crate) fn open(
    segment: &Segment,
    header: &Header,
    at: u64,
    stored: &[u8],
    opened: &mut Vec<u8>,
) -> bool {
    if !header.fits(&segment.salt, stored) {
        return false;
    }
    let body = match &segment.cipher {
        None => stored,
        Some(cipher) => {
            let binding = segment.binding(header.number, at);
            if cipher
                .open(header.number, &binding, stored, opened)
                .is_none()
            {
                return false;
            }
            &opened[..]
        }
    };
    segment.format == 1 || Parts::of(body).is_some()
}
