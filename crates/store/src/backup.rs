//! A copy of a log into another folder, while a broker writes it or not, and without its key.
//!
//! The copy is what a crash would have left at the moment of the copy: whole segments, and of the
//! newest all that had been written. A start from it finds every commit that was safe when the
//! copy began, and at most some that came while it was made. Files are copied rather than linked: a
//! second name for the same bytes would rot with them.

use std::io;

use crate::disk::{Disk, File};
use crate::error::StoreError;
use crate::gone::Gone;
use crate::segment::Name;

/// How often a copy begins anew because a segment was retired under it.
const ATTEMPTS: usize = 8;

/// Bytes of one read.
const CHUNK_BYTES: usize = 1024 * 1024;

/// What was copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backup {
    /// Segments.
    pub segments: usize,
    /// Bytes of them.
    pub bytes: u64,
}

/// Copies a log into a folder that holds none, and returns when the copy is safe.
///
/// Files that were set aside stay where they are.
///
/// # Errors
/// [`StoreError::Disk`] where a folder cannot be read or written, or the other holds a log already;
/// [`StoreError::Damaged`] where a segment cannot be read. What was copied before is removed again.
pub fn backup<D: Disk, E: Disk>(from: &D, to: &E) -> Result<Backup, StoreError> {
    if !Files::of(to)?.is_empty() {
        let cause = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(StoreError::disk(
            "the folder of the copy holds a log already",
        )(cause));
    }
    for _ in 0..ATTEMPTS {
        let files = Files::of(from)?;
        let mut copied = Vec::new();
        let outcome = copy_all(from, to, &files, &mut copied);
        if let Ok(Some(backup)) = outcome {
            return Ok(backup);
        }
        for name in copied {
            let fail = StoreError::disk("an unfinished copy cannot be removed");
            to.remove(&name).map_err(fail)?;
        }
        outcome?;
    }
    let cause = io::Error::from(io::ErrorKind::ResourceBusy);
    Err(StoreError::disk("the log changes faster than it is copied")(cause))
}

/// What belongs to a log.
struct Files {
    /// Oldest first.
    segments: Vec<Name>,
    gone: Vec<Gone>,
}

impl Files {
    fn of<D: Disk>(disk: &D) -> Result<Files, StoreError> {
        let fail = StoreError::disk("the folder of a log cannot be read");
        let files = disk.list().map_err(fail)?;
        let mut segments: Vec<Name> = files.iter().filter_map(|file| Name::of(file)).collect();
        segments.sort_unstable();
        let gone = files.iter().filter_map(|file| Gone::of(file)).collect();
        Ok(Files { segments, gone })
    }

    fn is_empty(&self) -> bool {
        self.segments.is_empty() && self.gone.is_empty()
    }
}

/// Copies what was listed; nothing where the log has changed under it. The names of what was made
/// are added to `copied`.
fn copy_all<D: Disk, E: Disk>(
    from: &D,
    to: &E,
    files: &Files,
    copied: &mut Vec<String>,
) -> Result<Option<Backup>, StoreError> {
    let cannot = || StoreError::disk("a copy cannot be written");
    let mut backup = Backup::default();
    for name in &files.segments {
        let name = name.file();
        let source = match from.open(&name) {
            Ok(source) => source,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(StoreError::disk("a segment cannot be opened")(cause)),
        };
        let mut target = to.create(&name).map_err(cannot())?;
        copied.push(name.clone());
        backup.bytes += copy(&source, &mut target, &name)?;
        target.sync().map_err(cannot())?;
        backup.segments += 1;
    }
    for gone in &files.gone {
        let name = gone.file();
        to.create(&name).map_err(cannot())?;
        copied.push(name);
    }
    // A folder is not listed in one moment: a segment that was made meanwhile may be missing
    // before one that is there.
    let last = files.segments.last();
    let now = Files::of(from)?.segments;
    let is_new = |name: &Name| Some(name) < last && !files.segments.contains(name);
    if now.iter().any(is_new) {
        return Ok(None);
    }
    to.sync_names().map_err(cannot())?;
    Ok(Some(backup))
}

/// Copies one file as long as it is now; its bytes.
fn copy<F: File, G: File>(source: &F, target: &mut G, name: &str) -> Result<u64, StoreError> {
    let fail = StoreError::disk("a segment cannot be read");
    let length = source.length().map_err(fail)?;
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < length {
        // Fits: it is not more than the buffer.
        let wanted = (length - at).min(CHUNK_BYTES as u64) as usize;
        let read = source.read_at(at, &mut buffer[..wanted]);
        if !matches!(read, Ok(read) if read == wanted) {
            let name = name.into();
            return Err(StoreError::Damaged { name, from: at });
        }
        let fail = StoreError::disk("a copy cannot be written");
        target.append(&buffer[..wanted]).map_err(fail)?;
        at += wanted as u64;
    }
    Ok(length)
}
