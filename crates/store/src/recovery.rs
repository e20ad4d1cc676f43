//! The start: every commit is read once, in order, and what is missing is told.

use std::sync::Arc;

use crate::disk::Disk;
use crate::error::StoreError;
use crate::frame::BODY_BYTES_MAX;
use crate::gone::Gone;
use crate::log::Sealed;
use crate::part;
use crate::scan::{scan, visit_parts, Found, Report};
use crate::seal::{Key, Keys, TAG_BYTES};
use crate::segment::{Segment, StoreId};
use crate::walk::{Step, Walk};

/// What [`crate::Log::new`] goes on from.
pub struct Recovered {
    pub(crate) next: u64,
    pub(crate) serial: Option<u32>,
    pub(crate) key: Option<Key>,
    pub(crate) store: Option<StoreId>,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) gone: Vec<Gone>,
    pub(crate) last: Option<Last>,
    /// What was found.
    pub report: Report,
}

/// The last commit that was found. Whether the disk has it nobody knows: the process before may
/// have been killed between the write and the sync, or when the sync had failed and the kernel went
/// on to show what the disk does not have.
pub(crate) struct Last {
    pub number: u64,
    /// The segment that it is in.
    pub serial: u32,
    /// Its parts, as the format that is written has them.
    pub body: Vec<u8>,
}

/// Reads all commits from number `from` on and hands each part to `visit`, in order.
///
/// `from` is 1, or what the caller knows to need no more of than a checkpoint says: segments that
/// end before it are kept, and not read. Nothing on disk changes but that files with a damaged
/// beginning are set aside, and that those are removed which are too short to have held a commit or
/// were left unfinished.
///
/// # Errors
/// The folder cannot be read or changed. Or it holds what these keys or this version cannot read:
/// then nothing was changed.
pub fn recover<D: Disk>(
    disk: &D,
    keys: &Keys,
    from: u64,
    visit: impl FnMut(Found<'_>),
) -> Result<Recovered, StoreError> {
    let scan = scan(disk, keys, from, visit)?;
    let last = match (scan.last, scan.segments.last()) {
        (Some(last), Some((segment, _))) => Some(read_last(disk, segment, last)?),
        _ => None,
    };
    for file in scan.unborn {
        let fail = StoreError::disk("an empty segment cannot be removed");
        disk.remove(&file).map_err(fail)?;
    }
    for name in scan.unreadable {
        let fail = StoreError::disk("a damaged segment cannot be set aside");
        disk.rename(&name.file(), &name.aside()).map_err(fail)?;
    }
    let sealed = scan.segments.into_iter().map(|(segment, report)| Sealed {
        segment,
        is_damaged: report.is_damaged,
    });
    Ok(Recovered {
        next: scan.next,
        serial: scan.serial,
        key: keys.current().cloned(),
        store: scan.store,
        sealed: sealed.collect(),
        gone: scan.gone,
        last,
        report: scan.report,
    })
}

/// Reads the last commit once more, to be kept until it has been written anew.
fn read_last<D: Disk>(
    disk: &D,
    segment: &Arc<Segment>,
    (number, at): (u64, u64),
) -> Result<Last, StoreError> {
    let fail = || StoreError::disk("the last commit cannot be read");
    let file = disk.open(&segment.name.file()).map_err(fail())?;
    let mut walk = Walk::new(&file, segment).map_err(fail())?;
    walk.skip_to(at);
    let Some(Step::Commit { body: found, .. }) = walk.next() else {
        let name = segment.name.file();
        return Err(StoreError::Damaged { name, from: at });
    };
    let mut body = Vec::with_capacity(found.len());
    visit_parts(segment, (number, at), found, &mut |found| {
        part::write(found.part, &mut body);
    });
    let bytes_max = BODY_BYTES_MAX - TAG_BYTES;
    if body.len() > bytes_max {
        let bytes = body.len();
        return Err(StoreError::TooLarge { bytes, bytes_max });
    }
    Ok(Last {
        number,
        serial: segment.serial,
        body,
    })
}
