//! Durable bytes: a log of commits in segments, and what comes back of it after a crash.
//!
//! The store knows shards, numbers and bytes, not MQTT. What is given to [`Log::commit`] as one
//! commit comes back whole or not at all, in order. One thread owns a log; it gathers what the
//! shards hand it while the disk is busy, and writes all of it at once.
//!
//! Three rules make damage visible and keep it from spreading:
//!
//! 1. Commits are numbered without gaps. Bytes behind the last whole commit of a segment are what a
//!    crash left of a commit that nobody was promised; a missing *number* is a loss, and is told.
//! 2. After a failed write or sync nothing is written to that segment any more: what the kernel
//!    kept of it is unknown, and a second sync would report a success that means nothing. The same
//!    commits go whole into a fresh segment. So does, before anything builds on it, the last one
//!    that a start has found: the process before may have died of such a sync.
//! 3. A segment that cannot be read is set aside under another name; it is never emptied, and the
//!    rest is served.
//!
//! The tour, from the disk upwards: [`disk`] is all that is asked of a file system, so that tests
//! can supply one that tears, loses, reorders and rots; a [`folder`] is the real one, whose files
//! are `growing` ahead of what is written. `frame` is one commit as bytes, `part` what stands in
//! it, `segment` the beginning of a file of them, [`seal`] how it is encrypted, `walk` how it is
//! read from end to end. [`log`] writes and retires, which `gone` writes down; [`recovery`] reads
//! everything once at the start, through `scan`, as [`inspect`](mod@inspect) does at any time; a
//! [`reader`] reads single places, which `shelf` says where to find; [`backup`](mod@backup) copies.
//! Above all of it stands the [`committer`], which takes what shards put into its `basket`.

pub mod backup;
mod basket;
pub mod committer;
pub mod disk;
mod error;
pub mod folder;
mod frame;
mod gone;
mod growing;
pub mod inspect;
pub mod log;
mod part;
pub mod reader;
pub mod recovery;
mod scan;
pub mod seal;
mod segment;
mod shelf;
mod walk;

pub use backup::{backup, Backup};
pub use basket::{Refused, Submitter};
pub use committer::{Answer, Audience, Committer, Core, Event, Next, Orders, Pace};
pub use disk::{Disk, File};
pub use error::StoreError;
pub use folder::Folder;
pub use growing::GrowingFile;
pub use inspect::{inspect, verify, Inspection};
pub use log::{Durability, Log, Options};
pub use part::{Part, Place, PART_BYTES_MAX};
pub use reader::Reader;
pub use recovery::{recover, Recovered};
pub use scan::{Damage, Found, Report, SegmentReport};
pub use seal::{random, Key, KeyId, Keys};
