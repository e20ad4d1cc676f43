//! The store as Python sees it: where it is, how it is, and what is done to one by hand.

use std::path::PathBuf;

use casemate_server::{Compacted, Durability, OpenError, StoreOptions};
use casemate_store::{self as store, Folder, Key, Keys, StoreError};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::fault::StoreRefused;
use crate::transfer::{self, StoreFilling};

/// Where a store is, and under which keys it is read and written. `repr` shows no key.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Store {
    pub(crate) inner: StoreOptions,
}

#[pymethods]
impl Store {
    /// Describes it; nothing is opened. `durability` is disk or os; a key is 32 random bytes.
    #[new]
    #[pyo3(signature = (folder, *, durability="disk", key=None, former_keys=Vec::new(),
        reads_plain=false))]
    fn new(
        folder: PathBuf,
        durability: &str,
        key: Option<Vec<u8>>,
        former_keys: Vec<Vec<u8>>,
        reads_plain: bool,
    ) -> PyResult<Store> {
        let durability = match durability {
            "disk" => Durability::Disk,
            "os" => Durability::Os,
            _ => return Err(PyValueError::new_err("durability is disk or os")),
        };
        let mut keys = match &key {
            Some(key) => Keys::encrypted(read_key(key)?),
            // A store without a key of its own reads plain segments anyway.
            None if reads_plain => {
                return Err(PyValueError::new_err("reads_plain needs a key"));
            }
            None => Keys::none(),
        };
        for former in &former_keys {
            keys = keys.and_former(read_key(former)?);
        }
        if reads_plain {
            keys = keys.and_plain();
        }
        Ok(Store {
            inner: StoreOptions {
                durability,
                keys,
                ..StoreOptions::new(folder)
            },
        })
    }

    /// Reads every commit and says what is there; changes nothing, while a broker has it or not.
    /// Raises `StoreRefused`.
    #[pyo3(signature = ())]
    fn inspect(&self, py: Python<'_>) -> PyResult<StoreReport> {
        let options = &self.inner;
        let look = || store::inspect(&Folder::look(&options.folder)?, &options.keys);
        let found = py.detach(look).map_err(|fault| self.refused(&fault))?;
        Ok(StoreReport::new(found))
    }

    /// Copies it into a folder that holds none, while a broker has it or not; raises
    /// `StoreRefused`.
    #[pyo3(signature = (target))]
    fn backup(&self, py: Python<'_>, target: PathBuf) -> PyResult<StoreCopy> {
        let options = &self.inner;
        let copy = || store::backup(&Folder::look(&options.folder)?, &Folder::open(&target)?);
        let made = py.detach(copy).map_err(|fault| self.refused(&fault))?;
        Ok(StoreCopy {
            segments: made.segments,
            bytes: made.bytes,
        })
    }

    /// Writes what is kept anew and removes the rest; raises `StoreRefused` where a broker has it.
    #[pyo3(signature = ())]
    fn compact(&self, py: Python<'_>) -> PyResult<StoreCompacted> {
        let done = py.detach(|| self.inner.compact());
        done.map(StoreCompacted::new)
            .map_err(|fault| refused(&fault, &self.inner))
    }

    /// Gives every session, and tenant and message of every retained one, to a function each;
    /// raises `StoreRefused` where a broker has it.
    #[pyo3(signature = (session, retained))]
    fn export(
        &self,
        py: Python<'_>,
        session: &Bound<'_, PyAny>,
        retained: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        transfer::export(py, &self.inner, session, retained)
    }

    /// Begins to put something into it; raises `StoreRefused` where it holds something.
    #[pyo3(signature = ())]
    fn fill(&self, py: Python<'_>) -> PyResult<StoreFilling> {
        StoreFilling::begin(py, &self.inner)
    }
}

impl Store {
    fn refused(&self, fault: &StoreError) -> PyErr {
        refused_by_store(fault, &self.inner)
    }
}

/// What a store holds.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct StoreReport {
    /// Oldest first.
    pub segments: Vec<Py<StoreSegment>>,
    /// First and last number of each run that is not needed any more.
    pub retired: Vec<(u64, u64)>,
    /// Damaged files that an earlier start has put out of the way.
    pub set_aside: Vec<String>,
    pub next_number: u64,
    pub commits: u64,
    pub batches: u64,
    pub batch_bytes: u64,
    /// What a crash has left of a commit that nobody was promised.
    pub torn_bytes: u64,
    /// What is missing, in words.
    pub damage: Vec<String>,
}

impl StoreReport {
    fn new(found: store::Inspection) -> StoreReport {
        let make = |one| Python::attach(|py| Py::new(py, StoreSegment::new(one)));
        StoreReport {
            // Cannot fail but for memory, of which a report takes next to nothing.
            segments: found.segments.into_iter().flat_map(make).collect(),
            retired: found.retired,
            set_aside: found.set_aside,
            next_number: found.next_number,
            commits: found.report.commits,
            batches: found.report.parts,
            batch_bytes: found.report.part_bytes,
            torn_bytes: found.report.torn_bytes,
            damage: found
                .report
                .damage
                .iter()
                .map(ToString::to_string)
                .collect(),
        }
    }
}

/// One file of a store.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct StoreSegment {
    pub name: String,
    pub format: u16,
    /// Id of the key that it is encrypted under; None where it is in plain.
    pub key: Option<String>,
    pub bytes: u64,
    pub commits: u64,
    /// Numbers of its first and its last commit; None without one.
    pub numbers: Option<(u64, u64)>,
    pub torn_bytes: u64,
    pub is_damaged: bool,
}

impl StoreSegment {
    fn new(one: store::SegmentReport) -> StoreSegment {
        StoreSegment {
            name: one.name,
            format: one.format,
            key: one.key.map(|key| key.to_string()),
            bytes: one.bytes,
            commits: one.commits,
            numbers: one.numbers,
            torn_bytes: one.torn_bytes,
            is_damaged: one.is_damaged,
        }
    }
}

/// What was copied.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct StoreCopy {
    pub segments: usize,
    pub bytes: u64,
}

/// What was written anew.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct StoreCompacted {
    pub sessions: usize,
    pub retained: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub segments_gone: usize,
}

impl StoreCompacted {
    fn new(done: Compacted) -> StoreCompacted {
        StoreCompacted {
            sessions: done.sessions,
            retained: done.retained,
            bytes_before: done.bytes_before,
            bytes_after: done.bytes_after,
            segments_gone: done.segments_gone,
        }
    }
}

/// How the store of a running server is.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct StoreHealth {
    /// Why nothing is kept now; None while all is well.
    pub failing: Option<String>,
    pub is_full: bool,
    /// How often it began to fail since the start.
    pub failures: u64,
    /// What was not found whole at the start.
    pub damage: Vec<String>,
    pub commits_read: u64,
    pub bytes_read: u64,
    pub read_ms: u64,
}

impl StoreHealth {
    /// Copies it out of the server.
    pub(crate) fn new(health: casemate_server::StoreHealth) -> StoreHealth {
        StoreHealth {
            failing: health.failing,
            is_full: health.is_full,
            failures: health.failures,
            damage: health.damage,
            commits_read: health.commits_read,
            bytes_read: health.bytes_read,
            read_ms: health.read_ms,
        }
    }
}

fn read_key(bytes: &[u8]) -> PyResult<Key> {
    let bytes = bytes
        .try_into()
        .map_err(|_| PyValueError::new_err("a key has 32 bytes"))?;
    Key::new(bytes).map_err(|fault| PyValueError::new_err(fault.to_string()))
}

/// Names the kind of a refusal for Python.
pub(crate) fn refused(fault: &OpenError, options: &StoreOptions) -> PyErr {
    match fault {
        OpenError::Store(fault) => refused_by_store(fault, options),
        OpenError::Records { .. } => raise(fault.to_string(), "records", options),
        OpenError::NotEmpty { .. } => raise(fault.to_string(), "not-empty", options),
    }
}

pub(crate) fn refused_by_store(fault: &StoreError, options: &StoreOptions) -> PyErr {
    use StoreError as E;
    let kind = match fault {
        E::InUse { .. } => "in-use",
        E::Folder { .. } => "folder",
        E::TooNew { .. } => "format",
        E::WrongKey { .. } => "key",
        E::Plain { .. } => "plain",
        E::Foreign { .. } => "foreign",
        E::Damaged { .. } => "damaged",
        E::Disk { .. } if fault.is_full() => "full",
        _ => "disk",
    };
    raise(fault.to_string(), kind, options)
}

/// The store says what to do behind a semicolon; a file of it is named without its folder.
fn raise(text: String, kind: &'static str, options: &StoreOptions) -> PyErr {
    let (what, hint) = text.rsplit_once("; ").unwrap_or((&text, ""));
    let folder = options.folder.display().to_string();
    let what = match what.contains(&folder) {
        true => what.to_owned(),
        false => format!("{folder}: {what}"),
    };
    StoreRefused::new_err((what, kind, hint.to_owned()))
}
