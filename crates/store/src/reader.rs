//! Reading back while the log is written: the bytes at a place, checked, from any thread.
//!
//! A reader keeps one segment open, the commit that it read last, and what it has read ahead of
//! it. Whoever walks through a queue asks for places in the order of the log, so that each commit
//! is read and checked once for all that it holds. A segment that is retired meanwhile stays
//! readable for a reader that has it open, and is refused to all others.

use std::sync::Arc;

use crate::disk::{Disk, File};
use crate::error::StoreError;
use crate::frame::{Header, ALIGNMENT, HEADER_BYTES};
use crate::part::Place;
use crate::segment::Segment;
use crate::shelf::Shelf;
use crate::walk;

/// Bytes of one read where places jump about, and where they go onward.
const AHEAD_BYTES_MIN: usize = 4 * 1024;
const AHEAD_BYTES_MAX: usize = 1024 * 1024;

/// Reads at places; each thread, or each queue that is walked, has its own.
pub struct Reader<D: Disk> {
    shelf: Arc<Shelf<D>>,
    opened: Option<(Arc<Segment>, D::File)>,
    /// Bytes of the open segment from `start` on.
    buffer: Vec<u8>,
    start: u64,
    /// Bytes of the next read.
    ahead: usize,
    /// The commit that was read last and proved whole, by where it begins.
    whole: Option<(u64, Header)>,
    /// Its body in plain, where the segment is encrypted.
    plain: Vec<u8>,
}

impl<D: Disk> Reader<D> {
    pub(crate) fn new(shelf: Arc<Shelf<D>>) -> Reader<D> {
        Reader {
            shelf,
            opened: None,
            buffer: Vec::new(),
            start: 0,
            ahead: AHEAD_BYTES_MIN,
            whole: None,
            plain: Vec::new(),
        }
    }

    /// The bytes at a place.
    ///
    /// # Errors
    /// [`StoreError::Gone`] where the segment was retired, [`StoreError::Damaged`] where what
    /// stands there is not what was written, [`StoreError::Disk`] where it cannot be opened.
    pub fn read(&mut self, place: Place) -> Result<&[u8], StoreError> {
        self.open(place.segment)?;
        let at = u64::from(place.frame) * ALIGNMENT as u64;
        let is_known = self.whole.is_some_and(|(known, _)| known == at);
        if !is_known {
            self.whole = self.commit_at(at).map(|header| (at, header));
        }
        let body = self.body();
        let from = place.from as usize;
        let bytes = body.and_then(|body| body.get(from..)?.get(..place.bytes()));
        bytes.ok_or_else(|| StoreError::Damaged {
            name: self.name(),
            from: at,
        })
    }

    /// Makes a segment the open one.
    fn open(&mut self, serial: u32) -> Result<(), StoreError> {
        if matches!(&self.opened, Some((segment, _)) if segment.serial == serial) {
            return Ok(());
        }
        let gone = || StoreError::Gone { segment: serial };
        let segment = self.shelf.find(serial).ok_or_else(gone)?;
        let file = match self.shelf.disk.open(&segment.name.file()) {
            Ok(file) => file,
            // It went between the look and the opening.
            Err(_) if self.shelf.find(serial).is_none() => return Err(gone()),
            Err(cause) => return Err(StoreError::disk("a segment cannot be opened")(cause)),
        };
        self.opened = Some((segment, file));
        self.buffer.clear();
        self.start = 0;
        self.whole = None;
        Ok(())
    }

    /// The body of the commit that was read last.
    fn body(&self) -> Option<&[u8]> {
        let (at, header) = self.whole?;
        let (segment, _) = self.opened.as_ref()?;
        if segment.cipher.is_some() {
            return Some(&self.plain);
        }
        let from = (at - self.start) as usize + HEADER_BYTES;
        self.buffer.get(from..from + header.body_bytes)
    }

    /// The header of the commit that begins at a place, where it is whole.
    fn commit_at(&mut self, at: u64) -> Option<Header> {
        let header = Header::read(self.show(at, HEADER_BYTES)?)?;
        self.show(at, HEADER_BYTES + header.body_bytes)?;
        let from = (at - self.start) as usize + HEADER_BYTES;
        let stored = &self.buffer[from..from + header.body_bytes];
        let (segment, _) = self.opened.as_ref()?;
        walk::open(segment, &header, at, stored, &mut self.plain).then_some(header)
    }

    /// Some bytes of the open segment; nothing where it ends before or cannot be read there.
    fn show(&mut self, at: u64, bytes: usize) -> Option<&[u8]> {
        let (_, file) = self.opened.as_ref()?;
        let end = self.start + self.buffer.len() as u64;
        if at < self.start || at + bytes as u64 > end {
            let is_onward = at >= self.start && at <= end + AHEAD_BYTES_MAX as u64;
            self.ahead = match is_onward {
                true => (self.ahead * 4).min(AHEAD_BYTES_MAX),
                false => AHEAD_BYTES_MIN,
            };
            // Asked for before room is made: a length that rot made up must not cost its size.
            if at + bytes as u64 > file.length().ok()? {
                return None;
            }
            self.whole = None;
            self.buffer.resize(bytes.max(self.ahead), 0);
            self.start = at;
            let read = file.read_at(at, &mut self.buffer).unwrap_or(0);
            self.buffer.truncate(read);
        }
        let from = (at - self.start) as usize;
        self.buffer.get(from..from + bytes)
    }

    fn name(&self) -> String {
        let opened = self.opened.as_ref();
        opened.map_or_else(String::new, |(segment, _)| segment.name.file())
    }
}
