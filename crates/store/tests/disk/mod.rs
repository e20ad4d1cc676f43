//! A disk that does what disks do: it loses, tears, reorders, rots, fills up and fails.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;

use casemate_store::disk::{Disk, File};

/// What a crash may tear, bytes.
const SECTOR_BYTES: usize = 512;

/// Chance out of one number (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    pub fn one_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }
}

#[derive(Clone, Default)]
struct Content {
    /// As programs see it.
    seen: Vec<u8>,
    /// As it would be after a crash: this much of `seen` is safe.
    safe: usize,
    /// The kernel has given up on what was not safe when a sync failed.
    lost: Vec<(usize, usize)>,
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Rc<RefCell<Content>>>,
    /// The names as they would be after a crash.
    safe_names: BTreeMap<String, Rc<RefCell<Content>>>,
    fail_syncs: u32,
    room: Option<usize>,
}

/// Shared by all who use the disk.
#[derive(Clone, Default)]
pub struct FaultyDisk(Rc<RefCell<World>>);

pub struct FaultyFile {
    world: Rc<RefCell<World>>,
    content: Rc<RefCell<Content>>,
}

impl FaultyDisk {
    /// The next so many syncs fail, and what they were for is lost or not, as it comes.
    pub fn fail_syncs(&self, count: u32) {
        self.0.borrow_mut().fail_syncs = count;
    }

    /// So many more bytes fit; none for a disk without end.
    pub fn set_room(&self, bytes: Option<usize>) {
        self.0.borrow_mut().room = bytes;
    }

    /// The machine loses its power: what was not safe is there, torn, or gone.
    pub fn crash(&self, chance: &mut Chance) {
        let mut world = self.0.borrow_mut();
        let mut names = world.safe_names.clone();
        for (name, content) in &world.files {
            if chance.one_in(2) {
                names.insert(name.clone(), Rc::clone(content));
            }
        }
        for content in names.values() {
            let mut content = content.borrow_mut();
            let safe = content.safe;
            let kept = chance.below((content.seen.len() - safe) as u64 + 1) as usize;
            content.seen.truncate(safe + kept);
            let mut at = safe;
            while at < content.seen.len() {
                let end = (at / SECTOR_BYTES + 1) * SECTOR_BYTES;
                let end = end.min(content.seen.len());
                if chance.one_in(3) {
                    content.seen[at..end].fill(0);
                }
                at = end;
            }
            for (from, to) in std::mem::take(&mut content.lost) {
                let to = to.min(content.seen.len());
                if from < to && chance.one_in(2) {
                    content.seen[from..to].fill(0);
                }
            }
            content.safe = content.seen.len();
        }
        world.safe_names = names.clone();
        world.files = names;
        world.fail_syncs = 0;
    }

    /// Flips one bit of a file that is safe.
    pub fn rot(&self, name: &str, byte: usize, bit: u8) {
        let world = self.0.borrow();
        world.files[name].borrow_mut().seen[byte] ^= 1 << bit;
    }

    pub fn length_of(&self, name: &str) -> usize {
        self.0.borrow().files[name].borrow().seen.len()
    }

    /// Writes a whole file as another program would.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let content = Rc::new(RefCell::new(Content {
            seen: bytes.to_vec(),
            safe: bytes.len(),
            lost: Vec::new(),
        }));
        let mut world = self.0.borrow_mut();
        world.files.insert(name.into(), Rc::clone(&content));
        world.safe_names.insert(name.into(), content);
    }

    pub fn get(&self, name: &str) -> Vec<u8> {
        self.0.borrow().files[name].borrow().seen.clone()
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.borrow().files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        let mut world = self.0.borrow_mut();
        if world.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if world.room == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let content = Rc::default();
        world.files.insert(name.into(), Rc::clone(&content));
        drop(world);
        Ok(FaultyFile {
            world: Rc::clone(&self.0),
            content,
        })
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let world = self.0.borrow();
        let content = world.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile {
            world: Rc::clone(&self.0),
            content: Rc::clone(content),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        let content = world.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.files.insert(to.into(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        world.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = self.0.borrow_mut();
        if world.fail_syncs > 0 {
            world.fail_syncs -= 1;
            return Err(io::Error::other("the disk is broken"));
        }
        world.safe_names = world.files.clone();
        Ok(())
    }
}

impl File for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let fits = world.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if let Some(room) = &mut world.room {
            *room -= fits;
        }
        self.content
            .borrow_mut()
            .seen
            .extend_from_slice(&bytes[..fits]);
        match fits == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = self.world.borrow_mut();
        let mut content = self.content.borrow_mut();
        let (safe, seen) = (content.safe, content.seen.len());
        content.safe = seen;
        if world.fail_syncs > 0 {
            world.fail_syncs -= 1;
            // From now on a sync says that all is well, and what was to be written is not.
            content.lost.push((safe, seen));
            return Err(io::Error::other("the disk is broken"));
        }
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let content = self.content.borrow();
        let from = content.seen.len().min(offset as usize);
        let bytes = buffer.len().min(content.seen.len() - from);
        buffer[..bytes].copy_from_slice(&content.seen[from..from + bytes]);
        Ok(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.content.borrow().seen.len() as u64)
    }
}
