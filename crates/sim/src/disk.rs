//! A disk that does what disks do: it loses, tears, reorders, rots, fills up and fails.
//!
//! The tests of the store use it as well.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use casemate_store::disk::{Disk, File};

/// Fewer zeros than this stand behind what was appended, as a disk has them that grows its files
/// ahead, bytes.
const AHEAD_BYTES: usize = 3_000;

/// What a crash may tear, bytes.
const SECTOR_BYTES: usize = 512;

/// Chance out of one number (SplitMix64).
pub struct Chance(pub u64);

impl Chance {
    /// 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// True in one of so many cases.
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
    /// Its beginning is safe, and the process that made it lives.
    grows: bool,
}

impl Content {
    /// A process has ended in the middle: the zeros are there that a file grows ahead by, once its
    /// beginning is safe. As many as its length says, so that they take no chance of their own.
    fn show_ahead(&mut self) {
        if std::mem::take(&mut self.grows) {
            let length = self.seen.len();
            self.seen.resize(length + length * 37 % AHEAD_BYTES, 0);
        }
    }
}

#[derive(Default)]
struct World {
    files: BTreeMap<String, Arc<Mutex<Content>>>,
    /// The names as they would be after a crash.
    safe_names: BTreeMap<String, Arc<Mutex<Content>>>,
    /// Names that were removed and may still come back.
    removed: Vec<String>,
    fail_syncs: u32,
    room: Option<usize>,
    /// Changes until nobody can change anything any more.
    fuse: Option<u32>,
    reads: usize,
}

impl World {
    /// One change more, if there may be one.
    fn burn(&mut self) -> io::Result<()> {
        match &mut self.fuse {
            None => Ok(()),
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shared by all who use the disk.
#[derive(Clone, Default)]
pub struct FaultyDisk(Arc<Mutex<World>>);

/// A file of it.
pub struct FaultyFile {
    world: Arc<Mutex<World>>,
    content: Arc<Mutex<Content>>,
}

impl FaultyDisk {
    /// The next so many syncs fail, and what they were for is lost or not, as it comes.
    pub fn fail_syncs(&self, count: u32) {
        locked(&self.0).fail_syncs = count;
    }

    /// After so many more changes there is no power until [`FaultyDisk::crash`].
    pub fn set_fuse(&self, changes: u32) {
        locked(&self.0).fuse = Some(changes);
    }

    /// So many more bytes fit; none for a disk without end.
    pub fn set_room(&self, bytes: Option<usize>) {
        locked(&self.0).room = bytes;
    }

    /// The machine loses its power: what was not safe is there, torn, or gone.
    pub fn crash(&self, chance: &mut Chance) {
        let mut world = locked(&self.0);
        // Names come and go in any order, as long as nobody has waited for them.
        let mut names = world.safe_names.clone();
        for name in std::mem::take(&mut world.removed) {
            if chance.one_in(2) {
                names.remove(&name);
            }
        }
        for (name, content) in &world.files {
            if chance.one_in(2) {
                names.insert(name.clone(), Arc::clone(content));
            }
        }
        for content in names.values() {
            let mut content = locked(content);
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
            content.show_ahead();
            content.safe = content.seen.len();
        }
        world.safe_names = names.clone();
        world.files = names;
        world.fail_syncs = 0;
        world.fuse = None;
    }

    /// The process is killed and the machine lives: all that was written is there, safe or not.
    pub fn kill(&self) {
        let mut world = locked(&self.0);
        world.fail_syncs = 0;
        world.fuse = None;
        for content in world.files.values() {
            locked(content).show_ahead();
        }
    }

    /// Flips one bit of a file that is safe.
    pub fn rot(&self, name: &str, byte: usize, bit: u8) {
        let world = locked(&self.0);
        locked(&world.files[name]).seen[byte] ^= 1 << bit;
    }

    /// A disk with the same files, as another machine would see a copy.
    pub fn copied(&self) -> FaultyDisk {
        let copy = FaultyDisk::default();
        let files: Vec<String> = locked(&self.0).files.keys().cloned().collect();
        for name in files {
            copy.put(&name, &self.get(&name));
        }
        copy
    }

    /// How often a file was read.
    pub fn reads(&self) -> usize {
        locked(&self.0).reads
    }

    /// How long a file is, bytes.
    pub fn length_of(&self, name: &str) -> usize {
        let world = locked(&self.0);
        let content = locked(&world.files[name]);
        content.seen.len()
    }

    /// Writes a whole file as another program would.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let content = Arc::new(Mutex::new(Content {
            seen: bytes.to_vec(),
            safe: bytes.len(),
            lost: Vec::new(),
            grows: false,
        }));
        let mut world = locked(&self.0);
        world.files.insert(name.into(), Arc::clone(&content));
        world.safe_names.insert(name.into(), content);
    }

    /// A whole file.
    pub fn get(&self, name: &str) -> Vec<u8> {
        let world = locked(&self.0);
        let content = locked(&world.files[name]);
        content.seen.clone()
    }
}

impl Disk for FaultyDisk {
    type File = FaultyFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(locked(&self.0).files.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<FaultyFile> {
        let mut world = locked(&self.0);
        world.burn()?;
        if world.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // An empty file needs no room, as on most file systems.
        let content: Arc<Mutex<Content>> = Arc::default();
        world.files.insert(name.into(), Arc::clone(&content));
        drop(world);
        Ok(FaultyFile {
            world: Arc::clone(&self.0),
            content,
        })
    }

    fn open(&self, name: &str) -> io::Result<FaultyFile> {
        let world = locked(&self.0);
        let content = world.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(FaultyFile {
            world: Arc::clone(&self.0),
            content: Arc::clone(content),
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = locked(&self.0);
        world.burn()?;
        let content = world.files.remove(from).ok_or(io::ErrorKind::NotFound)?;
        world.files.insert(to.into(), content);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = locked(&self.0);
        world.burn()?;
        world.files.remove(name).ok_or(io::ErrorKind::NotFound)?;
        world.removed.push(name.into());
        Ok(())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut world = locked(&self.0);
        world.burn()?;
        if world.fail_syncs > 0 {
            world.fail_syncs -= 1;
            return Err(io::Error::other("the disk is broken"));
        }
        world.safe_names = world.files.clone();
        world.removed.clear();
        Ok(())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let room = locked(&self.0).room;
        Ok(room.map_or(u64::MAX, |room| room as u64))
    }
}

impl File for FaultyFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut world = locked(&self.world);
        world.burn()?;
        let fits = world.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if let Some(room) = &mut world.room {
            *room -= fits;
        }
        locked(&self.content).seen.extend_from_slice(&bytes[..fits]);
        match fits == bytes.len() {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut world = locked(&self.world);
        world.burn()?;
        let mut content = locked(&self.content);
        let (safe, seen) = (content.safe, content.seen.len());
        content.safe = seen;
        if world.fail_syncs > 0 {
            world.fail_syncs -= 1;
            // From now on a sync says that all is well, and what was to be written is not.
            content.lost.push((safe, seen));
            return Err(io::Error::other("the disk is broken"));
        }
        content.grows = true;
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        locked(&self.world).reads += 1;
        let content = locked(&self.content);
        let from = content.seen.len().min(offset as usize);
        let bytes = buffer.len().min(content.seen.len() - from);
        buffer[..bytes].copy_from_slice(&content.seen[from..from + bytes]);
        Ok(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(locked(&self.content).seen.len() as u64)
    }
}
