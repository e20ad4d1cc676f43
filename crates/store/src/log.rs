//! Writing: each commit is on disk, and said to be, before anybody hears that it is.

use std::io;

use crate::disk::{Disk, File};
use crate::error::StoreError;
use crate::frame::{self, frame_bytes, Salt, BODY_BYTES_MAX, HEADER_BYTES};
use crate::recovery::{Place, Recovered};
use crate::segment::{opening, SegmentId, START};

/// How many fresh segments one commit tries before it fails.
const ATTEMPTS: usize = 2;

/// How a log writes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// A segment that has reached this size gets no further commit, bytes; at least 4096.
    pub segment_bytes: u64,
    /// Fresh random bytes, one call for each segment.
    pub salt: fn() -> Salt,
}

/// A log that is being written.
pub struct Log<D: Disk> {
    disk: D,
    options: Options,
    /// The number of the next commit.
    next: u64,
    /// Where the next commit goes; none where it needs a fresh segment.
    current: Option<Current<D::File>>,
    /// All segments but the current one, oldest first.
    sealed: Vec<Sealed>,
    buffer: Vec<u8>,
}

struct Current<F> {
    id: SegmentId,
    salt: Salt,
    file: F,
    /// Bytes in it.
    length: u64,
}

struct Sealed {
    id: SegmentId,
    is_damaged: bool,
}

impl<D: Disk> Log<D> {
    /// Goes on behind what was recovered, in a segment of its own: the end of an older one may
    /// hold what a crash has left.
    pub fn new(disk: D, options: Options, recovered: &Recovered) -> Log<D> {
        let sealed = recovered
            .segments
            .iter()
            .map(|&(id, is_damaged)| Sealed { id, is_damaged });
        Log {
            disk,
            options,
            next: recovered.next,
            current: None,
            sealed: sealed.collect(),
            buffer: Vec::new(),
        }
    }

    /// The number that the next commit gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Segments on disk.
    pub fn segments(&self) -> usize {
        self.sealed.len() + usize::from(self.current.is_some())
    }

    /// Writes one commit and returns when the disk says that it is safe: its number and place.
    ///
    /// After a failed write or sync the segment is left alone and the commit goes whole into a
    /// fresh one. Where that fails too, the commit does not exist: the next one gets its number,
    /// and a later start reads the next one.
    ///
    /// # Errors
    /// [`StoreError::Disk`], above all a full disk; the log can be asked again.
    pub fn commit(&mut self, body: &[u8]) -> Result<(u64, Place), StoreError> {
        if body.len() > BODY_BYTES_MAX {
            return Err(StoreError::TooLarge {
                bytes: body.len(),
                bytes_max: BODY_BYTES_MAX,
            });
        }
        let mut outcome = self.try_commit(body);
        for _ in 1..ATTEMPTS {
            if outcome.is_ok() {
                break;
            }
            outcome = self.try_commit(body);
        }
        let place = outcome?;
        let number = self.next;
        self.next += 1;
        Ok((number, place))
    }

    fn try_commit(&mut self, body: &[u8]) -> Result<Place, StoreError> {
        let mut current = match self.current.take() {
            Some(current) => current,
            None => self.begin()?,
        };
        let outcome = self.write(&mut current, body);
        let is_full = current.length >= self.options.segment_bytes;
        if outcome.is_ok() && !is_full {
            self.current = Some(current);
        } else {
            self.sealed.push(Sealed {
                id: current.id,
                is_damaged: false,
            });
        }
        outcome
    }

    fn write(&mut self, current: &mut Current<D::File>, body: &[u8]) -> Result<Place, StoreError> {
        self.buffer.clear();
        frame::write(&current.salt, self.next, body, &mut self.buffer);
        let fail = StoreError::disk("a commit cannot be written");
        current.file.append(&self.buffer).map_err(fail)?;
        let fail = StoreError::disk("the disk does not say that a commit is safe");
        current.file.sync().map_err(fail)?;
        let offset = current.length + HEADER_BYTES as u64;
        current.length += frame_bytes(body.len()) as u64;
        Ok(Place {
            segment: current.id,
            offset,
            bytes: body.len(),
        })
    }

    /// Makes a fresh segment for the next commit.
    fn begin(&mut self) -> Result<Current<D::File>, StoreError> {
        let former = self.sealed.last().map(|sealed| sealed.id);
        // What failed before stays where it is, under its own name.
        let attempt = match former {
            Some(former) if former.first == self.next => former.attempt.checked_add(1),
            _ => Some(0),
        };
        let Some(attempt) = attempt else {
            let cause = io::ErrorKind::AlreadyExists.into();
            return Err(StoreError::disk("a new segment cannot be made")(cause));
        };
        let id = SegmentId {
            first: self.next,
            attempt,
        };
        let fail = StoreError::disk("a new segment cannot be made");
        let mut file = self.disk.create(&id.name()).map_err(fail)?;
        let salt = (self.options.salt)();
        // Safe before the first commit is written: a header that is damaged with commits behind it
        // is then never what a crash has left.
        let outcome = file
            .append(&opening(id.first, &salt))
            .and_then(|()| file.sync())
            .and_then(|()| self.disk.sync_names());
        if let Err(cause) = outcome {
            self.sealed.push(Sealed {
                id,
                is_damaged: false,
            });
            return Err(StoreError::disk("a new segment cannot be made")(cause));
        }
        Ok(Current {
            id,
            salt,
            file,
            length: START,
        })
    }

    /// Removes segments in which every commit has a number below `before`.
    ///
    /// One that was found damaged is set aside instead: nobody but an operator throws it away.
    /// What cannot be removed is tried again at the next call.
    ///
    /// # Errors
    /// [`StoreError::Disk`] where a file cannot be removed.
    pub fn retire(&mut self, before: u64) -> Result<usize, StoreError> {
        let mut removed = 0;
        while self.sealed_end().is_some_and(|end| end <= before) {
            let Sealed { id, is_damaged } = self.sealed[0];
            let name = id.name();
            let outcome = match is_damaged {
                true => self.disk.rename(&name, &id.name_aside()),
                false => self.disk.remove(&name),
            };
            outcome.map_err(StoreError::disk("an old segment cannot be removed"))?;
            self.sealed.remove(0);
            removed += 1;
        }
        Ok(removed)
    }

    /// The number behind the last commit of the oldest segment; nothing where it is the current.
    fn sealed_end(&self) -> Option<u64> {
        self.sealed.first()?;
        let second = self.sealed.get(1).map(|sealed| sealed.id.first);
        let current = self.current.as_ref().map(|current| current.id.first);
        Some(second.or(current).unwrap_or(self.next))
    }

    /// Reads the body of a commit that is still there.
    ///
    /// # Errors
    /// [`StoreError::Disk`] where its segment is gone or cannot be read.
    pub fn read(&self, place: Place, into: &mut Vec<u8>) -> Result<(), StoreError> {
        let fail = StoreError::disk("a commit cannot be read");
        let mut read = || {
            let file = self.disk.open(&place.segment.name())?;
            into.resize(place.bytes, 0);
            match file.read_at(place.offset, into)? {
                read if read == place.bytes => Ok(()),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        read().map_err(fail)
    }
}
