//! Looking at a log without changing it, while a broker has it or not.

use std::io;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::scan::{scan, Report, Scan, SegmentReport};
use crate::seal::Keys;
use crate::segment::Name;

/// How often a look begins anew because a segment was retired under it.
const ATTEMPTS: usize = 8;

/// A log as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// All segments that can be read, oldest first.
    pub segments: Vec<SegmentReport>,
    /// Runs of numbers that were retired, in order: the first and the last of each.
    pub retired: Vec<(u64, u64)>,
    /// Files that an earlier start has set aside.
    pub set_aside: Vec<String>,
    /// The number of the next commit.
    pub next_number: u64,
    /// All together, and what is damaged.
    pub report: Report,
}

/// Reads every commit and says what is there, segment by segment.
///
/// Behind the last commit of a log that is being written may stand the beginning of the next, which
/// counts as torn.
///
/// # Errors
/// As [`crate::recover`], which would find the same.
pub fn inspect<D: Disk>(disk: &D, keys: &Keys) -> Result<Inspection, StoreError> {
    let scan = look(disk, keys)?;
    let fail = StoreError::disk("the folder of the log cannot be read");
    let mut set_aside = disk.list().map_err(fail)?;
    set_aside.retain(|file| file.strip_suffix(".damaged").is_some_and(is_segment));
    set_aside.sort_unstable();
    let mut retired: Vec<(u64, u64)> = scan.gone.iter().map(|run| (run.first, run.last)).collect();
    retired.sort_unstable();
    Ok(Inspection {
        segments: scan.segments.into_iter().map(|one| one.1).collect(),
        retired,
        set_aside,
        next_number: scan.next,
        report: scan.report,
    })
}

/// Reads every commit and says what recovery would: nothing but damage is of interest here.
///
/// # Errors
/// As [`crate::recover`], which would find the same.
pub fn verify<D: Disk>(disk: &D, keys: &Keys) -> Result<Report, StoreError> {
    Ok(look(disk, keys)?.report)
}

fn look<D: Disk>(disk: &D, keys: &Keys) -> Result<Scan, StoreError> {
    let mut outcome = scan(disk, keys, 1, |_| {});
    for _ in 1..ATTEMPTS {
        // It was listed, and retired before it was opened: the note of its numbers is there now.
        let has_moved = |cause: &io::Error| cause.kind() == io::ErrorKind::NotFound;
        match &outcome {
            Err(StoreError::Disk { cause, .. }) if has_moved(cause) => {}
            _ => break,
        }
        outcome = scan(disk, keys, 1, |_| {});
    }
    outcome
}

fn is_segment(file: &str) -> bool {
    Name::of(file).is_some()
}
