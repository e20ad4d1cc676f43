//! Which segments can be read: shared by the log, which adds and retires, and by readers.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::segment::Segment;

/// A folder and its segments.
pub(crate) struct Shelf<D> {
    pub disk: D,
    row: Mutex<Row>,
}

#[derive(Default)]
struct Row {
    segments: BTreeMap<u32, Arc<Segment>>,
    /// The one that is being written.
    current: Option<u32>,
}

impl<D> Shelf<D> {
    /// A shelf of sealed segments.
    pub fn new(disk: D, sealed: impl Iterator<Item = Arc<Segment>>) -> Arc<Shelf<D>> {
        let row = Row {
            segments: sealed.map(|segment| (segment.serial, segment)).collect(),
            current: None,
        };
        Arc::new(Shelf {
            disk,
            row: Mutex::new(row),
        })
    }

    pub fn find(&self, serial: u32) -> Option<Arc<Segment>> {
        self.locked().segments.get(&serial).cloned()
    }

    /// The serials of all but the current one, oldest first.
    pub fn sealed(&self) -> Vec<u32> {
        let row = self.locked();
        let serials = row.segments.keys().copied();
        serials
            .filter(|serial| Some(*serial) != row.current)
            .collect()
    }

    /// Adds the segment that is written from now on.
    pub fn add(&self, segment: Arc<Segment>) {
        let mut row = self.locked();
        row.current = Some(segment.serial);
        row.segments.insert(segment.serial, segment);
    }

    /// From now on nothing is written to the current one.
    pub fn seal(&self) {
        self.locked().current = None;
    }

    /// From now on nobody begins to read it; who does already has it open.
    pub fn take_away(&self, serial: u32) {
        self.locked().segments.remove(&serial);
    }

    fn locked(&self) -> MutexGuard<'_, Row> {
        // Whole after each of these statements, whoever panicked.
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
