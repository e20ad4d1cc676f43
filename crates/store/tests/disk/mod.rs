//! The disk of the simulator, and what else the tests of the store need.

#![allow(dead_code, reason = "each test uses the faults that it needs")]

#[path = "../../../sim/src/disk.rs"]
mod faulty;

use std::io;

use casemate_store::disk::Disk;
pub use faulty::{Chance, FaultyDisk, FaultyFile};

/// Random bytes that differ at each call and are the same in each run of one thread.
pub fn draw(bytes: &mut [u8]) -> io::Result<()> {
    thread_local! {
        static DRAWN: std::cell::Cell<u64> = const { std::cell::Cell::new(1) };
    }
    let mut chance = Chance(DRAWN.replace(DRAWN.get() + 1));
    bytes.fill_with(|| chance.next() as u8);
    Ok(())
}

/// Encrypted under a key that is made of one byte.
pub fn keys(byte: u8) -> casemate_store::Keys {
    casemate_store::Keys::encrypted(casemate_store::Key::new(&[byte; 32]).unwrap())
}

/// A disk on which something happens each time before a file is opened.
pub struct Busy<F> {
    disk: FaultyDisk,
    happens: std::cell::RefCell<F>,
}

impl<F: FnMut()> Busy<F> {
    pub fn new(disk: FaultyDisk, happens: F) -> Busy<F> {
        let happens = std::cell::RefCell::new(happens);
        Busy { disk, happens }
    }
}

impl<F: FnMut()> Disk for Busy<F> {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        self.disk.create(name)
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        (self.happens.borrow_mut())();
        self.disk.open(name)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }

    fn sync_names(&self) -> io::Result<()> {
        self.disk.sync_names()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }
}
