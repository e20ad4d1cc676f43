//! Writing: each commit is on disk, and said to be, before anybody hears that it is.

use std::io;
use std::sync::Arc;

use crate::disk::{Disk, File};
use crate::error::StoreError;
use crate::frame::{self, ALIGNMENT, BODY_BYTES_MAX};
use crate::gone::Gone;
use crate::part::{self, Part, Place};
use crate::reader::Reader;
use crate::recovery::{Last, Recovered};
use crate::seal::{Key, TAG_BYTES};
use crate::segment::{Segment, StoreId};
use crate::shelf::Shelf;

/// How many fresh segments one commit tries before it fails.
const ATTEMPTS: usize = 2;

/// A segment that is larger gets no further commit, whatever was asked for: within it each place
/// that a commit can begin at has a number of 32 bits.
const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;

/// What "durable" means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The disk has said that it is safe: it survives the loss of power.
    Disk,
    /// The operating system has it: it survives the end of the process, and no more.
    Os,
}

/// How a log writes.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// When a commit counts as done.
    pub durability: Durability,
    /// A segment that has reached this size gets no further commit, bytes; 4 KiB to 16 GiB.
    pub segment_bytes: u64,
    /// Fills a buffer with fresh random bytes: [`crate::random`], but under a simulator.
    pub random: fn(&mut [u8]) -> io::Result<()>,
}

impl Default for Options {
    /// Synced to the disk, in segments of 64 MiB.
    fn default() -> Options {
        Options {
            durability: Durability::Disk,
            segment_bytes: 64 * 1024 * 1024,
            random: crate::seal::random,
        }
    }
}

/// A log that is being written.
pub struct Log<D: Disk> {
    shelf: Arc<Shelf<D>>,
    options: Options,
    /// New segments are encrypted under it.
    key: Option<Key>,
    /// None until the first segment of a new store.
    store: Option<StoreId>,
    /// The number of the next commit.
    next: u64,
    /// The serial of the next segment; none where there are no more.
    serial: Option<u32>,
    /// Where the next commit goes; none where it needs a fresh segment.
    current: Option<Current<D::File>>,
    /// All segments but the current one, oldest first.
    sealed: Vec<Sealed>,
    /// Runs of retired numbers, in order, no two of which touch.
    gone: Vec<Gone>,
    buffer: Vec<u8>,
    /// The last commit of the process before, until it is safe.
    inherited: Option<Last>,
    /// The segment where a start has found that commit, and its number, once it is elsewhere too.
    moved: Option<(u32, u64)>,
    /// A segment that could not be retired.
    stuck: Option<u32>,
}

struct Current<F> {
    segment: Arc<Segment>,
    file: F,
    /// Bytes in it.
    length: u64,
}

pub(crate) struct Sealed {
    pub segment: Arc<Segment>,
    pub is_damaged: bool,
}

impl<D: Disk> Log<D> {
    /// Goes on behind what was recovered, in a segment of its own: the end of an older one may
    /// hold what a crash has left.
    pub fn new(disk: D, options: Options, recovered: Recovered) -> Log<D> {
        let shelf = Shelf::new(
            disk,
            recovered.sealed.iter().map(|one| Arc::clone(&one.segment)),
        );
        let is_synced = options.durability == Durability::Disk;
        Log {
            inherited: recovered.last.filter(|_| is_synced),
            moved: None,
            stuck: None,
            shelf,
            options,
            key: recovered.key,
            store: recovered.store,
            next: recovered.next,
            serial: recovered.serial,
            current: None,
            sealed: recovered.sealed,
            gone: recovered.gone,
            buffer: Vec::new(),
        }
    }

    /// The number that the next commit gets.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The segments on disk that get no further commit, oldest first.
    pub fn sealed(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.sealed.iter().map(|sealed| sealed.segment.serial)
    }

    /// Encrypts under another key from the next segment on, which begins now.
    pub fn rotate(&mut self, key: Option<Key>) {
        self.key = key;
        self.seal_current();
    }

    /// Bytes that can still be written; nothing where the system does not say.
    pub fn free_bytes(&self) -> Option<u64> {
        self.shelf.disk.free_bytes().ok()
    }

    pub(crate) fn shelf(&self) -> &Arc<Shelf<D>> {
        &self.shelf
    }

    /// A reader of what is durable, for any thread.
    pub fn reader(&self) -> Reader<D> {
        Reader::new(Arc::clone(&self.shelf))
    }

    /// Writes one commit and returns when it is safe: its number. The place of each part is added
    /// to `places`.
    ///
    /// After a failed write or sync the segment is left alone and the commit goes whole into a
    /// fresh one. Where that fails too, the commit does not exist: the next one gets its number,
    /// and a later start reads the next one.
    ///
    /// # Errors
    /// [`StoreError::Disk`], above all a full disk; the log can be asked again.
    pub fn commit<'a, P>(&mut self, parts: P, places: &mut Vec<Place>) -> Result<u64, StoreError>
    where
        P: IntoIterator<Item = Part<'a>> + Clone,
    {
        let count = places.len();
        let mut outcome = self.try_commit(parts.clone(), places);
        for _ in 1..ATTEMPTS {
            if matches!(outcome, Ok(()) | Err(StoreError::TooLarge { .. })) {
                break;
            }
            places.truncate(count);
            outcome = self.try_commit(parts.clone(), places);
        }
        if let Err(fault) = outcome {
            places.truncate(count);
            return Err(fault);
        }
        let number = self.next;
        self.next += 1;
        Ok(number)
    }

    fn try_commit<'a>(
        &mut self,
        parts: impl IntoIterator<Item = Part<'a>>,
        places: &mut Vec<Place>,
    ) -> Result<(), StoreError> {
        if self.current.is_none() {
            self.current = Some(self.begin()?);
        }
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        gather(parts, current, &mut self.buffer, places)?;
        let outcome = current.write(self.next, self.options.durability, &mut self.buffer);
        let end = self.options.segment_bytes.min(SEGMENT_BYTES_MAX);
        let has_commits = current.segment.first < self.next;
        match &outcome {
            Ok(()) if current.length < end => {}
            Err(_) if !has_commits => self.give_up_current(),
            _ => self.seal_current(),
        }
        outcome
    }

    /// Removes the current segment, whose first commit has failed: nothing in it was promised, and
    /// a disk that fails for long would gather one at each try.
    fn give_up_current(&mut self) {
        let segment = self.current.as_ref().map(|one| Arc::clone(&one.segment));
        self.seal_current();
        if let Some(segment) = segment {
            // One that cannot be removed stays, and is retired like any other.
            if self.shelf.disk.remove(&segment.name.file()).is_ok() {
                self.shelf.take_away(segment.serial);
                self.sealed.pop();
            }
        }
    }

    fn seal_current(&mut self) {
        self.shelf.seal();
        let segment = self.current.take().map(|current| current.segment);
        let sealed = segment.map(|segment| Sealed {
            segment,
            is_damaged: false,
        });
        self.sealed.extend(sealed);
    }

    /// Makes the last commit safe that a start has found, before anybody acts on it; the next
    /// commit does it at the latest.
    ///
    /// # Errors
    /// As [`Log::commit`].
    pub fn settle(&mut self) -> Result<(), StoreError> {
        if self.inherited.is_some() && self.current.is_none() {
            self.current = Some(self.begin()?);
        }
        Ok(())
    }

    /// Makes a fresh segment for the next commit, with the last of the process before in it where
    /// that may not be safe: what is committed from now on builds on it.
    fn begin(&mut self) -> Result<Current<D::File>, StoreError> {
        let is_there = |last: &Last| {
            let serial = |one: &Sealed| one.segment.serial;
            self.sealed.iter().any(|one| serial(one) == last.serial)
        };
        let last = self.inherited.take().filter(is_there);
        let outcome = self.begin_with(last.as_ref());
        match (&outcome, &last) {
            (Ok(_), Some(last)) => self.moved = Some((last.serial, last.number)),
            (Ok(_), None) => {}
            (Err(_), _) => self.inherited = last,
        }
        outcome
    }

    fn begin_with(&mut self, last: Option<&Last>) -> Result<Current<D::File>, StoreError> {
        let fail = || StoreError::disk("a new segment cannot be made");
        let serial = self.serial.ok_or(io::ErrorKind::QuotaExceeded);
        let serial = serial.map_err(|cause| fail()(cause.into()))?;
        let store = match self.store {
            Some(store) => store,
            None => {
                let mut store = [0; 16];
                (self.options.random)(&mut store).map_err(fail())?;
                *self.store.insert(store)
            }
        };
        let numbers = (serial, last.map_or(self.next, |last| last.number));
        let (segment, bytes) =
            Segment::fresh(numbers, store, self.key.as_ref(), self.options.random)?;
        let name = segment.name.file();
        // In no older segment does the number count that this one begins at, so that it must not be
        // there without a commit that may have been promised.
        let made = last.map_or(name.clone(), |_| segment.name.unfinished());
        let mut current = Current {
            length: segment.start(),
            file: self.shelf.disk.create(&made).map_err(fail())?,
            segment,
        };
        // Never given to another file, even if this one is removed: a name that comes back after a
        // crash must not meet a newer segment.
        self.serial = serial.checked_add(1);
        // Safe before the first commit is written: a header that is damaged with commits behind it
        // is then never what a crash has left.
        let outcome = current.file.append(&bytes).map_err(fail());
        let outcome = outcome.and_then(|()| match last {
            None => current.file.sync().map_err(fail()),
            Some(last) => {
                frame::begin(&mut self.buffer);
                self.buffer.extend_from_slice(&last.body);
                current.write(last.number, self.options.durability, &mut self.buffer)?;
                self.shelf.disk.rename(&made, &name).map_err(fail())
            }
        });
        let outcome = outcome.and_then(|()| self.shelf.disk.sync_names().map_err(fail()));
        if let Err(fault) = outcome {
            // Nothing new was ever in it. Left where it is, a full disk would gather one at each
            // try; where it cannot be removed, the next start does.
            let _ = self.shelf.disk.remove(&made);
            let _ = self.shelf.disk.remove(&name);
            return Err(fault);
        }
        self.shelf.add(Arc::clone(&current.segment));
        Ok(current)
    }

    /// Removes segments of which nothing is wanted any more; how many.
    ///
    /// Their numbers are written down as retired before, so that nobody takes them for lost. A
    /// segment that was found damaged is set aside instead of removed: nobody but an operator
    /// throws it away. The current segment, and serials that no segment has, are passed over; so is
    /// one with the last commit that a start has found, before the one that it was found in, and
    /// each behind one that could not be retired, until that is.
    ///
    /// # Errors
    /// [`StoreError::Disk`] where the folder cannot be changed; asked again, it goes on.
    pub fn retire(&mut self, serials: &[u32]) -> Result<usize, StoreError> {
        let mut retired = 0;
        for serial in serials {
            let same = |sealed: &Sealed| sealed.segment.serial == *serial;
            let index = self.sealed.iter().position(same);
            if let Some(index) = index.filter(|index| !self.holds_what_is_wanted(*index)) {
                let outcome = self.retire_at(index);
                match outcome {
                    Err(_) => self.stuck = Some(*serial),
                    Ok(()) => self.stuck = self.stuck.filter(|stuck| stuck != serial),
                }
                outcome?;
                retired += 1;
            }
        }
        Ok(retired)
    }

    /// True for the segment that holds the last commit which a start has found, as long as the one
    /// that it was found in is wanted; and for each behind one that could not be retired, whose
    /// commits would come back without what has undone them.
    fn holds_what_is_wanted(&self, index: usize) -> bool {
        let is_stuck = |one: &Sealed| Some(one.segment.serial) == self.stuck;
        let is_behind = self.sealed[..index].iter().any(is_stuck);
        is_behind
            || self.moved.is_some_and(|(found_in, number)| {
                let mut before = self.sealed[..index].iter();
                let begins_with_it = self.sealed[index].segment.first == number;
                begins_with_it && before.any(|one| one.segment.serial == found_in)
            })
    }

    fn retire_at(&mut self, index: usize) -> Result<(), StoreError> {
        let Sealed {
            segment,
            is_damaged,
        } = &self.sealed[index];
        let (segment, is_damaged) = (Arc::clone(segment), *is_damaged);
        let later = self.sealed.get(index + 1).map(|later| later.segment.first);
        let current = self.current.as_ref().map(|current| current.segment.first);
        let mut end = later.or(current).unwrap_or(self.next);
        if let Some((_, number)) = self.moved.filter(|moved| moved.0 == segment.serial) {
            // Nothing that was found in this segment is wanted, the copy of its last no more.
            end = end.max(number + 1);
        }
        // Without a number of its own, where all that was in it was given up.
        if segment.first < end {
            self.write_down(Gone {
                first: segment.first,
                last: end - 1,
                serial: segment.serial,
            })?;
        }
        let name = segment.name.file();
        let outcome = match is_damaged {
            true => self.shelf.disk.rename(&name, &segment.name.aside()),
            false => self.shelf.disk.remove(&name),
        };
        outcome.map_err(StoreError::disk("an old segment cannot be removed"))?;
        self.shelf.take_away(segment.serial);
        self.sealed.remove(index);
        Ok(())
    }

    /// Makes durable that numbers are retired, as one file with those that they touch.
    fn write_down(&mut self, gone: Gone) -> Result<(), StoreError> {
        let (mut joined, mut parted) = (gone, Vec::new());
        self.gone.retain(|one| match joined.joined(*one) {
            Some(both) => {
                joined = both;
                parted.push(*one);
                false
            }
            None => true,
        });
        let disk = &self.shelf.disk;
        let outcome = match parted.contains(&joined) {
            true => Ok(()),
            false => disk.create(&joined.file()).map(drop),
        };
        let outcome = match outcome {
            // Made by an earlier try whose sync failed.
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            outcome => outcome,
        };
        if let Err(cause) = outcome.and_then(|()| disk.sync_names()) {
            self.gone.append(&mut parted);
            self.gone.sort_unstable();
            let fail = StoreError::disk("retired numbers cannot be written down");
            return Err(fail(cause));
        }
        parted.retain(|one| *one != joined);
        for one in parted {
            // One that stays says nothing that the new one does not say.
            let _ = disk.remove(&one.file());
        }
        self.gone.push(joined);
        self.gone.sort_unstable();
        Ok(())
    }
}

/// Puts parts behind each other, with room for the header, and adds the place of each.
fn gather<'a, F>(
    parts: impl IntoIterator<Item = Part<'a>>,
    current: &Current<F>,
    buffer: &mut Vec<u8>,
    places: &mut Vec<Place>,
) -> Result<(), StoreError> {
    frame::begin(buffer);
    for part in parts {
        let bytes = buffer.len() + part::part_bytes(part.bytes.len());
        if bytes > BODY_BYTES_MAX - TAG_BYTES {
            return Err(StoreError::TooLarge {
                bytes,
                bytes_max: BODY_BYTES_MAX - TAG_BYTES,
            });
        }
        let from = part::write(part, buffer) - frame::HEADER_BYTES;
        // All fit: a segment ends before 32 GiB, a body before 4.
        places.push(Place {
            segment: current.segment.serial,
            frame: (current.length / ALIGNMENT as u64) as u32,
            from: from as u32,
            bytes: part.bytes.len() as u32,
        });
    }
    Ok(())
}

impl<F: File> Current<F> {
    /// Writes the body in the buffer as one commit, behind all others.
    fn write(
        &mut self,
        number: u64,
        durability: Durability,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        if let Some(cipher) = &self.segment.cipher {
            let binding = self.segment.binding(number, self.length);
            let tag = cipher.seal(number, &binding, &mut buffer[frame::HEADER_BYTES..])?;
            buffer.extend_from_slice(&tag);
        }
        frame::finish(&self.segment.salt, number, buffer);
        let fail = StoreError::disk("a commit cannot be written");
        self.file.append(buffer).map_err(fail)?;
        if durability == Durability::Disk {
            let fail = StoreError::disk("the disk does not say that a commit is safe");
            self.file.sync().map_err(fail)?;
        }
        self.length += buffer.len() as u64;
        Ok(())
    }
}
