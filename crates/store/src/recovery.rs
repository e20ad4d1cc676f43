//! The start: every commit is read once, in order, and what is missing is told.

use crate::disk::Disk;
use crate::error::StoreError;
use crate::segment::{read_opening, Opening, SegmentId, Step, Walk, FORMAT};

/// Where the body of a commit is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u64,
    pub(crate) bytes: usize,
}

/// Something that an operator must hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Bytes of a segment are no commit, though commits stand behind them.
    Bytes {
        /// The file.
        name: String,
        /// Where they begin.
        from: u64,
        /// How many.
        bytes: u64,
    },
    /// A file's beginning is damaged, so that nothing in it can be trusted; it was renamed.
    SetAside {
        /// The name that it has now.
        name: String,
    },
    /// Commits with these numbers are nowhere: what they promised is lost.
    Missing {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
}

/// What was found at the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Commits that were read.
    pub commits: u64,
    /// Bytes of their bodies.
    pub body_bytes: u64,
    /// Bytes behind the last commit of a segment: what a crash has left of one that nobody was
    /// promised.
    pub torn_bytes: u64,
    /// What must be told.
    pub damage: Vec<Damage>,
}

/// What [`crate::Log::new`] goes on from.
#[derive(Debug)]
pub struct Recovered {
    pub(crate) next: u64,
    /// Segments, oldest first, and whether they are damaged.
    pub(crate) segments: Vec<(SegmentId, bool)>,
    /// What was found.
    pub report: Report,
}

/// Reads all commits from number `from` on, which is at least 1, and hands each to `visit`, in
/// order: number, body, place.
///
/// A commit in one segment whose number a later segment begins at was given up: the later one
/// counts. Nothing on disk changes but that files are set aside or, where they are too short to
/// have held a commit, removed.
///
/// # Errors
/// The folder cannot be read or changed, or a file is of a newer version: then nothing was changed.
pub fn recover<D: Disk>(
    disk: &D,
    from: u64,
    mut visit: impl FnMut(u64, &[u8], Place),
) -> Result<Recovered, StoreError> {
    let mut report = Report::default();
    let segments = openings(disk, &mut report)?;
    let mut next = from.max(1);
    let mut found = Vec::with_capacity(segments.len());
    for (index, (id, file, salt)) in segments.iter().enumerate() {
        let end = segments
            .get(index + 1)
            .map_or(u64::MAX, |later| later.0.first);
        let fail = StoreError::disk("a segment cannot be read");
        let mut walk = Walk::new(file, *salt).map_err(fail)?;
        let mut is_damaged = false;
        while let Some(step) = walk.next() {
            match step {
                Step::Commit { number, .. } if number < next || number >= end => {}
                Step::Commit {
                    number,
                    body,
                    offset,
                } => {
                    if number > next {
                        report.missing(next, number - 1);
                    }
                    next = number + 1;
                    report.commits += 1;
                    report.body_bytes += body.len() as u64;
                    let place = Place {
                        segment: *id,
                        offset,
                        bytes: body.len(),
                    };
                    visit(number, body, place);
                }
                Step::Damage { from, bytes } => {
                    is_damaged = true;
                    let name = id.name();
                    report.damage.push(Damage::Bytes { name, from, bytes });
                }
                Step::Tail { bytes } => report.torn_bytes += bytes,
            }
        }
        found.push((*id, is_damaged));
    }
    if let Some((last, _)) = found.last() {
        // It was begun for this number, so all before it had been promised.
        if last.first > next {
            report.missing(next, last.first - 1);
            next = last.first;
        }
    }
    Ok(Recovered {
        next,
        segments: found,
        report,
    })
}

impl Report {
    fn missing(&mut self, first: u64, last: u64) {
        self.damage.push(Damage::Missing { first, last });
    }
}

/// A segment that can be walked.
type Opened<F> = (SegmentId, F, [u8; 16]);

/// Opens all segments, oldest first; those that cannot be trusted are set aside.
fn openings<D: Disk>(disk: &D, report: &mut Report) -> Result<Vec<Opened<D::File>>, StoreError> {
    let fail = StoreError::disk("the folder of the log cannot be read");
    let mut ids: Vec<SegmentId> = disk
        .list()
        .map_err(fail)?
        .iter()
        .filter_map(|name| SegmentId::of_name(name))
        .collect();
    ids.sort_unstable();
    let mut known = Vec::with_capacity(ids.len());
    let (mut unborn, mut unreadable) = (Vec::new(), Vec::new());
    for id in ids {
        let fail = StoreError::disk("a segment cannot be opened");
        let file = disk.open(&id.name()).map_err(fail)?;
        match read_opening(&file) {
            Opening::Known { first, salt } if first == id.first => known.push((id, file, salt)),
            Opening::TooNew { format } => {
                return Err(StoreError::TooNew {
                    name: id.name(),
                    found: format,
                    known: FORMAT,
                });
            }
            Opening::Unborn => unborn.push(id),
            Opening::Known { .. } | Opening::Unreadable => unreadable.push(id),
        }
    }
    for id in unborn {
        let fail = StoreError::disk("an empty segment cannot be removed");
        disk.remove(&id.name()).map_err(fail)?;
    }
    for id in unreadable {
        let name = id.name_aside();
        let fail = StoreError::disk("a damaged segment cannot be set aside");
        disk.rename(&id.name(), &name).map_err(fail)?;
        report.damage.push(Damage::SetAside { name });
    }
    Ok(known)
}
