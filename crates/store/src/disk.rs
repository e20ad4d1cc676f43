//! What the store asks of a file system; a [`crate::Folder`] is the real one.

use std::io;

/// One folder with files of ours in it. Names are plain file names.
pub trait Disk {
    /// An open file.
    type File: File;

    /// The names of all files, in any order.
    ///
    /// # Errors
    /// The folder cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file that is not there yet, readable and writable by its owner alone.
    ///
    /// # Errors
    /// It is there, or the folder takes none.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of whatever had it.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The folder cannot be changed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes names durable: files that came, went or changed their name.
    ///
    /// # Errors
    /// The disk does not say that they are.
    fn sync_names(&self) -> io::Result<()>;

    /// Bytes that can still be written, as far as the system knows.
    ///
    /// # Errors
    /// It does not say.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file.
pub trait File {
    /// Writes behind everything that was written before. Zeros may stand behind it, and stay there
    /// after a crash, once what was written first is synced. After an error, how much of it is
    /// there is unknown.
    ///
    /// # Errors
    /// The disk is full or broken.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes the content durable.
    ///
    /// # Errors
    /// The disk does not say that it is; asking again proves nothing.
    fn sync(&mut self) -> io::Result<()>;

    /// Reads from `offset` until the buffer is full or the file ends; bytes read.
    ///
    /// # Errors
    /// The disk cannot read that place.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Its length, bytes.
    ///
    /// # Errors
    /// The disk does not say.
    fn length(&self) -> io::Result<u64>;
}
