//! What a mailbox is made of: the system's, where its test brings loom's.

pub(crate) use std::sync::atomic::{AtomicU8, Ordering};
pub(crate) use std::sync::Mutex;

pub(crate) use mio::Waker;

pub(crate) use crate::lock::lock;
