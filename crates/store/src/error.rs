//! Why the store cannot do what it was asked to.

use std::io;

use thiserror::Error;

use crate::seal::KeyId;

/// What an operator hears when the store cannot go on.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be used.
    #[error("{what}: {cause}")]
    Disk {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        cause: io::Error,
    },
    /// A folder is none that a store may trust.
    #[error("{folder}: {fault}; {hint}")]
    Folder {
        /// Its path.
        folder: String,
        /// What is wrong.
        fault: String,
        /// What to do.
        hint: &'static str,
    },
    /// Another process, or this one, has the folder.
    #[error("{folder} is in use by {}; stop that broker or use another folder", holder(*pid))]
    InUse {
        /// Its path.
        folder: String,
        /// The process, where the system knows it.
        pid: Option<i32>,
    },
    /// A segment was written by a newer version.
    #[error("{name} has format {found}, this version reads up to {known}; use the newer version")]
    TooNew {
        /// The file.
        name: String,
        /// Its format.
        found: u16,
        /// The newest that this version knows.
        known: u16,
    },
    /// A segment is encrypted under a key that was not given.
    #[error(
        "{name} is encrypted under key {wanted}, which was not given; \
         give that key, as a former one if there is a newer"
    )]
    WrongKey {
        /// The file.
        name: String,
        /// The key's id.
        wanted: KeyId,
    },
    /// A segment is in plain, though the store is to be encrypted.
    #[error("{name} is not encrypted, though a key was given; allow plain segments to keep it")]
    Plain {
        /// The file.
        name: String,
    },
    /// Segments of two stores are in one folder.
    #[error("{name} belongs to another store than {other}; move one of them out of the folder")]
    Foreign {
        /// The file.
        name: String,
        /// A file of the other store.
        other: String,
    },
    /// One commit is larger than a segment may become.
    #[error("a commit of {bytes} bytes passes the maximum of {bytes_max}")]
    TooLarge {
        /// Bytes of the commit.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// A place is in a segment that was retired, or never was.
    #[error("segment {segment:08x} is gone")]
    Gone {
        /// Its serial.
        segment: u32,
    },
    /// What stands at a place is not what was written there.
    #[error("{name} is damaged at byte {from}: what was there is lost")]
    Damaged {
        /// The file.
        name: String,
        /// Where the commit began.
        from: u64,
    },
    /// The cryptographic library does not do its work.
    #[error("the cryptographic library refuses to work")]
    Cipher,
}

fn holder(pid: Option<i32>) -> String {
    pid.map_or_else(
        || "a process of another machine or container".into(),
        |pid| format!("process {pid}"),
    )
}

impl StoreError {
    /// True where room on the disk would help.
    pub fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        let kinds = [FileTooLarge, QuotaExceeded, StorageFull];
        matches!(self, StoreError::Disk { cause, .. } if kinds.contains(&cause.kind()))
    }

    pub(crate) fn disk(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |cause| StoreError::Disk { what, cause }
    }
}
