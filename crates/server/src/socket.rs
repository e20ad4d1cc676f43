//! Sockets of both kinds: TCP, and those that have a place in the file system.

use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};

/// One connection's socket.
pub(crate) enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// A Unix socket, whose peer has no address.
    Unix(UnixStream),
}

/// One listening socket.
pub(crate) enum Acceptor {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket, and the file by which it is found where that is ours.
    Unix(
        UnixListener,
        #[expect(dead_code, reason = "it is there to be dropped")] Option<SocketFile>,
    ),
}

/// The file of a listening Unix socket; removed when its owner is dropped.
pub(crate) struct SocketFile {
    path: PathBuf,
    mark: Mark,
}

/// Which file it is, so that one that has taken its place is left alone.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
}

impl Mark {
    fn of(path: &Path) -> io::Result<Mark> {
        let file = fs::symlink_metadata(path)?;
        Ok(Mark {
            device: file.dev(),
            inode: file.ino(),
        })
    }
}

impl SocketFile {
    /// Takes care of the file that was made there just now.
    pub fn new(path: &Path) -> io::Result<SocketFile> {
        Ok(SocketFile {
            path: path.to_owned(),
            mark: Mark::of(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if Mark::of(&self.path).is_ok_and(|mark| mark == self.mark) {
            // What cannot be removed is found to be stale by whoever binds there next.
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl Acceptor {
    /// The next connection that waits, and where it comes from if that can be said.
    pub fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match self {
            Acceptor::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                // Without it small messages would wait for the acknowledgement of the last ones;
                // where it fails they come later, and nothing else changes.
                let _ = stream.set_nodelay(true);
                Ok((Socket::Tcp(stream), Some(address)))
            }
            Acceptor::Unix(socket, _) => {
                let (stream, _) = socket.accept()?;
                Ok((Socket::Unix(stream), None))
            }
        }
    }

    /// Joins a poll.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Acceptor::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Acceptor::Unix(socket, _) => registry.register(socket, token, Interest::READABLE),
        }
    }
}

impl Socket {
    /// Reads once.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => Read::read(&mut &*stream, bytes),
            Socket::Unix(stream) => Read::read(&mut &*stream, bytes),
        }
    }

    /// Writes once; `None` where the socket takes nothing now.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        loop {
            let outcome = match (self, slices) {
                // One piece needs no list of pieces, which the kernel would have to copy and check.
                (Socket::Tcp(stream), [piece]) => Write::write(&mut &*stream, piece),
                (Socket::Unix(stream), [piece]) => Write::write(&mut &*stream, piece),
                (Socket::Tcp(stream), _) => Write::write_vectored(&mut &*stream, slices),
                (Socket::Unix(stream), _) => Write::write_vectored(&mut &*stream, slices),
            };
            match outcome {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(bytes) => return Ok(Some(bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes our half.
    pub fn end_writing(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    /// What a poll sees.
    pub fn source(&mut self) -> &mut dyn Source {
        match self {
            Socket::Tcp(stream) => stream,
            Socket::Unix(stream) => stream,
        }
    }
}
