//! Durable bytes: a log of commits in segments, and what comes back of it after a crash.
//!
//! The store knows numbers and bytes, not MQTT. What is given to [`Log::append`] as one commit
//! comes back whole or not at all, in order, and [`Log::sync`] says when it is safe. One thread
//! owns a log; it gathers what others hand it while the disk is busy, and writes all of it at once.
//!
//! Three rules make damage visible and keep it from spreading:
//!
//! 1. Commits are numbered without gaps. Bytes behind the last whole commit of a segment are what a
//!    crash left of a commit that nobody was promised; a missing *number* is a loss, and is told.
//! 2. After a failed write or sync nothing is written to that segment any more: what the kernel
//!    kept of it is unknown, and a second sync would report a success that means nothing. The same
//!    commits go whole into a fresh segment.
//! 3. A segment that cannot be read is set aside under another name; it is never emptied, and the
//!    rest is served.
//!
//! The tour: [`disk`] is all that is asked of a file system, so that tests can supply one that
//! tears, loses, reorders and rots; `frame` is one commit as bytes; `segment` one file of them;
//! [`log`] writes; [`recovery`] reads everything once at the start.

pub mod disk;
mod error;
mod frame;
pub mod log;
pub mod recovery;
mod segment;

pub use disk::{Disk, File, OsDisk};
pub use error::StoreError;
pub use log::{Log, Options};
pub use recovery::{recover, Damage, Place, Recovered, Report};
