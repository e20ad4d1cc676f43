//! The start: every commit is read once, in order, and what is missing is told.

use crate::disk::Disk;
use crate::error::StoreError;
use crate::gone::Gone;
use crate::log::Sealed;
use crate::scan::{scan, Found, Report};
use crate::seal::{Key, Keys};
use crate::segment::StoreId;

/// What [`crate::Log::new`] goes on from.
pub struct Recovered {
    pub(crate) next: u64,
    pub(crate) serial: Option<u32>,
    pub(crate) key: Option<Key>,
    pub(crate) store: Option<StoreId>,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) gone: Vec<Gone>,
    /// What was found.
    pub report: Report,
}

/// Reads all commits from number `from` on and hands each part to `visit`, in order.
///
/// `from` is 1, or what the caller knows to need no more of than a checkpoint says: segments that
/// end before it are kept, and not read. Nothing on disk changes but that files with a damaged
/// beginning are set aside and those that are too short to have held a commit are removed.
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
    for name in scan.unborn {
        let fail = StoreError::disk("an empty segment cannot be removed");
        disk.remove(&name.file()).map_err(fail)?;
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
        report: scan.report,
    })
}
