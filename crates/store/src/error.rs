//! Why the store cannot do what it was asked to.

use std::io;

use thiserror::Error;

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
    /// A segment was written by a newer version.
    #[error("{name} has format {found}; this version reads up to {known}")]
    TooNew {
        /// The file.
        name: String,
        /// Its format.
        found: u16,
        /// The newest that this version knows.
        known: u16,
    },
    /// One commit is larger than a segment may become.
    #[error("a commit of {bytes} bytes passes the maximum of {bytes_max}")]
    TooLarge {
        /// Bytes of the commit.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
}

impl StoreError {
    pub(crate) fn disk(what: &'static str) -> impl FnOnce(io::Error) -> StoreError {
        move |cause| StoreError::Disk { what, cause }
    }
}
