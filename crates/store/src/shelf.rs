//! Which segments can be read: shared by the log, which adds and retires, and by readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::segment::Segment;

/// A folder and its segments, by serial.
pub(crate) struct Shelf<D> {
    pub disk: D,
    segments: Mutex<BTreeMap<u32, Arc<Segment>>>,
}

impl<D> Shelf<D> {
    pub fn new(disk: D, segments: impl Iterator<Item = Arc<Segment>>) -> Arc<Shelf<D>> {
        let segments = segments.map(|segment| (segment.serial, segment)).collect();
        Arc::new(Shelf {
            disk,
            segments: Mutex::new(segments),
        })
    }

    pub fn find(&self, serial: u32) -> Option<Arc<Segment>> {
        self.locked().get(&serial).cloned()
    }

    pub fn add(&self, segment: Arc<Segment>) {
        self.locked().insert(segment.serial, segment);
    }

    /// From now on nobody begins to read it; who does already has it open.
    pub fn take_away(&self, serial: u32) {
        self.locked().remove(&serial);
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<Segment>>> {
        // A map is whole after each of these statements, whoever panicked.
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
