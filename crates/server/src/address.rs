//! Where a listener listens: an address and a port, or a path.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(UnixAddress),
}

/// A place in the file system where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnixAddress {
    /// The socket's file. One that is left over is replaced, anything else that is there is not.
    pub path: PathBuf,
    /// Permissions of the file, such as `0o600`: who may write to it may connect. A listener that
    /// is in force keeps its mode; another one needs another path or a start.
    pub mode: u32,
}

impl Address {
    /// The address of TCP.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Address {
        Address::Tcp(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(place) => place.path.display().fmt(f),
        }
    }
}
