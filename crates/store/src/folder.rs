//! A folder of the operating system: its owner's alone, and one broker's at a time.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{fcntl_lock, statvfs, FlockOperation};
use rustix::io::Errno;
use rustix::process::{fcntl_getlk, geteuid, Flock, FlockType, Pid};

use crate::disk::Disk;
use crate::error::StoreError;
use crate::growing::GrowingFile;

/// The file that is locked. It is left where it is: to remove it would let two hold the folder.
const LOCK: &str = "lock";

/// Folders that this process has locked, by device and number. The system's locks are a process's,
/// which therefore cannot exclude itself; a forked child has none of them.
static HELD: Mutex<BTreeSet<(u64, u64)>> = Mutex::new(BTreeSet::new());

/// A folder of segments. All clones of one share its lock, and the last gives it back.
#[derive(Clone, Debug)]
pub struct Folder(Arc<Held>);

#[derive(Debug)]
struct Held {
    path: PathBuf,
    identity: (u64, u64),
    /// None where the folder may only be read.
    lock: Option<fs::File>,
}

impl Folder {
    /// Takes a folder for the life of the value; makes it where it is not there, mode 0700.
    ///
    /// # Errors
    /// [`StoreError::InUse`] where somebody has it, [`StoreError::Folder`] where it is no folder,
    /// somebody else's, open to the writing of others, or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Folder, StoreError> {
        let path = path.as_ref();
        make(path)?;
        let about = examine(path)?;
        let owner = geteuid().as_raw();
        if about.uid() != owner {
            let fault = format!("it belongs to user {}, not to {owner}", about.uid());
            return Err(refuse(
                path,
                fault,
                "run the broker as its owner, or chown it",
            ));
        }
        let mode = about.mode() & 0o777;
        if mode & 0o022 != 0 {
            let fault = format!("others may write to it (mode {mode:04o})");
            return Err(refuse(path, fault, "chmod 700 it"));
        }
        if mode & 0o700 != 0o700 {
            let fault = format!("its owner may not use it (mode {mode:04o})");
            return Err(refuse(path, fault, "chmod 700 it"));
        }
        let identity = (about.dev(), about.ino());
        let lock = lock(path, identity)?;
        Ok(Folder(Arc::new(Held {
            path: path.into(),
            identity,
            lock: Some(lock),
        })))
    }

    /// Looks into a folder that a broker may have: nothing can be changed through this value.
    ///
    /// # Errors
    /// [`StoreError::Folder`] where it is no folder.
    pub fn look(path: impl AsRef<Path>) -> Result<Folder, StoreError> {
        let path = path.as_ref();
        let about = examine(path)?;
        Ok(Folder(Arc::new(Held {
            path: path.into(),
            identity: (about.dev(), about.ino()),
            lock: None,
        })))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path.join(name)
    }

    /// The path of a file that is to be changed.
    fn own(&self, name: &str) -> io::Result<PathBuf> {
        match self.0.lock {
            Some(_) => Ok(self.file(name)),
            None => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the folder was opened for reading only",
            )),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(lock) = self.lock.take() {
            let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
            // Closed first: it takes every lock of this process on the file with it, and so must
            // not meet that of the next who opens the folder.
            drop(lock);
            held.remove(&self.identity);
        }
    }
}

/// Makes a folder where there is none, and its name durable: what is safe inside a folder is lost
/// with it where a crash takes its name.
fn make(path: &Path) -> Result<(), StoreError> {
    let new: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    let mut builder = fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(path);
    let synced = made.and_then(|()| {
        new.iter().try_for_each(|path| match path.parent() {
            // A relative path ends in an empty one, which stands for where we are.
            Some(parent) if parent.as_os_str().is_empty() => fs::File::open(".")?.sync_all(),
            Some(parent) => fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        })
    });
    synced.map_err(|cause| match path.exists() && !path.is_dir() {
        true => no_folder(path),
        false => refuse(path, cause, "create it by hand, or name another folder"),
    })
}

/// Takes the lock of a folder.
fn lock(path: &Path, identity: (u64, u64)) -> Result<fs::File, StoreError> {
    let folder = || path.display().to_string();
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if held.contains(&identity) {
        return Err(StoreError::InUse {
            folder: folder(),
            pid: i32::try_from(std::process::id()).ok(),
        });
    }
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path.join(LOCK))
        .map_err(|cause| refuse(path, cause, "make it writable, or name another folder"))?;
    match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            held.insert(identity);
            Ok(file)
        }
        Err(Errno::AGAIN | Errno::ACCESS) => Err(StoreError::InUse {
            folder: folder(),
            pid: holder(&file),
        }),
        Err(cause) => {
            let fault = format!("it cannot be locked: {cause}");
            let hint = "name a folder on a file system that has locks";
            Err(refuse(path, fault, hint))
        }
    }
}

/// The process that has a lock; nothing where it is of another machine or container.
fn holder(file: &fs::File) -> Option<i32> {
    let wish = Flock::from(FlockType::WriteLock);
    let pid = fcntl_getlk(file, &wish).ok()??.pid;
    Some(Pid::as_raw(pid)).filter(|pid| *pid > 0)
}

fn examine(path: &Path) -> Result<fs::Metadata, StoreError> {
    match fs::metadata(path) {
        Ok(about) if about.is_dir() => Ok(about),
        Ok(_) => Err(no_folder(path)),
        Err(cause) => Err(refuse(path, cause, "name the folder of a store")),
    }
}

fn no_folder(path: &Path) -> StoreError {
    refuse(path, "it is no folder", "name another, or move it away")
}

fn refuse(path: &Path, fault: impl ToString, hint: &'static str) -> StoreError {
    StoreError::Folder {
        folder: path.display().to_string(),
        fault: fault.to_string(),
        hint,
    }
}

impl Disk for Folder {
    type File = GrowingFile;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.0.path)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<GrowingFile> {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(self.own(name)?)?;
        Ok(GrowingFile::empty(file))
    }

    fn open(&self, name: &str) -> io::Result<GrowingFile> {
        Ok(GrowingFile::read_only(fs::File::open(self.file(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.own(from)?, self.own(to)?)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.own(name)?)
    }

    fn sync_names(&self) -> io::Result<()> {
        fs::File::open(&self.0.path)?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let about = statvfs(&self.0.path)?;
        Ok(about.f_bavail.saturating_mul(about.f_frsize))
    }
}
