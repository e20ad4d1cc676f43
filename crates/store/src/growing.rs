//! A file of a folder, which grows ahead of what is appended: over zeros that are there already.
//!
//! A sync of a file that has grown writes down its new length as well: a second write, and on most
//! file systems a commit of their own journal. One whose length stays as it was writes the bytes
//! alone, which takes about half the time and half the CPU. So a file that is synced again and
//! again gets zeros for many commits at once, and gives back at its end what it did not use. After
//! a crash they stay: zeros are no commit.
//!
//! What was written some time ago is read at the next start, and hardly before. So the memory that
//! the system holds it in is given to what is written next, rather than that of other programs.

use std::fs;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;

use crate::disk::File;

/// Zeros that are written at a time: as many as the file has bytes, between these two.
const AHEAD_BYTES_MIN: u64 = 64 * 1024;
const AHEAD_BYTES_MAX: u64 = 1024 * 1024;

/// The newest bytes that are left in the system's memory, for those who read them soon.
const CACHED_BYTES: u64 = 4 * 1024 * 1024;

/// What takes more than one part in so many of them gains too little to write zeros for it.
const APPENDS_MIN: u64 = 4;

static ZEROS: [u8; AHEAD_BYTES_MAX as usize] = [0; AHEAD_BYTES_MAX as usize];

/// An open file of a [`crate::Folder`].
#[derive(Debug)]
pub struct GrowingFile {
    file: fs::File,
    /// Bytes that were appended.
    appended: u64,
    /// How many of them were synced.
    synced: u64,
    /// Bytes of the file, with the zeros.
    grown: u64,
    /// The system was told that so many of the first ones are not read soon.
    uncached: u64,
    manner: Manner,
    /// The process that made it: a forked child has its copy, which must not cut what goes on to
    /// be written.
    process: u32,
}

/// What may be done behind what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Zeros are written there.
    Ahead,
    /// None any more: the disk is full.
    Full,
    /// Nothing: a write or a sync has failed, or the file is only read.
    Untouched,
}

impl GrowingFile {
    /// A file that was just made.
    pub(crate) fn empty(file: fs::File) -> GrowingFile {
        GrowingFile::new(file, Manner::Ahead)
    }

    /// A file that is read.
    pub(crate) fn read_only(file: fs::File) -> GrowingFile {
        GrowingFile::new(file, Manner::Untouched)
    }

    fn new(file: fs::File, manner: Manner) -> GrowingFile {
        GrowingFile {
            file,
            appended: 0,
            synced: 0,
            grown: 0,
            uncached: 0,
            manner,
            process: std::process::id(),
        }
    }

    /// Writes zeros for what comes next, where that is worth it.
    fn grow(&mut self, append_bytes: u64) {
        let ahead = self.appended.clamp(AHEAD_BYTES_MIN, AHEAD_BYTES_MAX);
        let is_worth_it = append_bytes * APPENDS_MIN <= ahead;
        if self.manner != Manner::Ahead || self.appended < self.grown || !is_worth_it {
            return;
        }
        // Before: the zeros can have their memory.
        self.uncache(self.synced.saturating_sub(CACHED_BYTES));
        // Fits: it is at most as long as they are.
        let zeros = &ZEROS[..ahead as usize];
        match self.file.write_all_at(zeros, self.appended) {
            Ok(()) => self.grown = self.appended + ahead,
            // What fits is for commits, here or elsewhere.
            Err(_) => {
                self.cut();
                self.manner = Manner::Full;
            }
        }
    }

    /// Says that nobody reads the first bytes soon.
    fn uncache(&mut self, end: u64) {
        let bytes = NonZeroU64::new(end.saturating_sub(self.uncached));
        if bytes.is_some() && advise(&self.file, self.uncached, bytes).is_ok() {
            self.uncached = end;
        }
    }

    /// Ends the file behind what was appended.
    fn cut(&mut self) {
        // Zeros that stay take room, and no more than that.
        if self.file.set_len(self.appended).is_ok() {
            self.grown = self.appended;
        }
    }

    /// What came of a write or a sync: after a fault nothing is known of the file any more.
    fn noted<T>(&mut self, outcome: io::Result<T>) -> io::Result<T> {
        if outcome.is_err() {
            self.manner = Manner::Untouched;
        }
        outcome
    }
}

/// Where a system takes no such advice it does as it likes.
#[cfg(target_os = "linux")]
fn advise(file: &fs::File, offset: u64, bytes: Option<NonZeroU64>) -> io::Result<()> {
    Ok(rustix::fs::fadvise(
        file,
        offset,
        bytes,
        rustix::fs::Advice::DontNeed,
    )?)
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &fs::File, _: u64, _: Option<NonZeroU64>) -> io::Result<()> {
    Ok(())
}

impl File for GrowingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_synced = self.synced == self.appended;
        let outcome = self.file.write_all_at(bytes, self.appended);
        self.noted(outcome)?;
        let is_first = self.appended == 0;
        self.appended += bytes.len() as u64;
        // What begins a file is safe before anything stands behind it, and what is not synced each
        // time gains nothing.
        if is_synced && !is_first {
            self.grow(bytes.len() as u64);
        }
        self.grown = self.grown.max(self.appended);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let outcome = self.file.sync_data();
        self.noted(outcome)?;
        self.synced = self.appended;
        Ok(())
    }

    fn read_at(&self, mut offset: u64, mut buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len();
        while !buffer.is_empty() {
            match self.file.read_at(buffer, offset) {
                Ok(0) => break,
                Ok(bytes) => {
                    buffer = &mut buffer[bytes..];
                    offset += bytes as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(wanted - buffer.len())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

impl Drop for GrowingFile {
    /// Gives back what was not used.
    fn drop(&mut self) {
        let is_ours = self.process == std::process::id();
        if is_ours && self.manner != Manner::Untouched && self.grown > self.appended {
            self.cut();
        }
    }
}
