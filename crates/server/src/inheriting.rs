//! Inheriting: sockets that listen already, made by whoever started this process.

use std::io;
use std::iter;

use mio::net::{TcpListener, UnixListener};

use crate::address::Address;
use crate::error::StartError;
use crate::options::{InheritedSocket, Listener};
use crate::socket::Acceptor;

/// Takes a socket for a listener: its address, and a socket for each shard that accepts.
///
/// # Errors
/// A [`StartError`] that names the listener: the socket is not the listener's own, or it cannot be
/// used.
pub(crate) fn inherit(
    listener: &Listener,
    socket: InheritedSocket,
    shards: usize,
) -> Result<(Address, Vec<Acceptor>), StartError> {
    acceptors(listener, socket, shards)
        .map(|acceptors| (listener.address.clone(), acceptors))
        .map_err(|cause| StartError::listen(&listener.name, &listener.address, cause))
}

fn acceptors(
    listener: &Listener,
    socket: InheritedSocket,
    shards: usize,
) -> io::Result<Vec<Acceptor>> {
    match (socket, &listener.address) {
        (InheritedSocket::Tcp(socket), Address::Tcp(wanted)) => {
            require(socket.local_addr()? == *wanted)?;
            socket.set_nonblocking(true)?;
            let others: Vec<_> = (1..shards)
                .map(|_| socket.try_clone())
                .collect::<Result<_, _>>()?;
            let sockets = iter::once(socket).chain(others);
            Ok(sockets
                .map(|socket| Acceptor::Tcp(TcpListener::from_std(socket)))
                .collect())
        }
        (InheritedSocket::Unix(socket), Address::Unix(wanted)) => {
            require(socket.local_addr()?.as_pathname() == Some(&wanted.path))?;
            socket.set_nonblocking(true)?;
            Ok(vec![Acceptor::Unix(UnixListener::from_std(socket), None)])
        }
        _ => require(false).map(|()| Vec::new()),
    }
}

fn require(is_own: bool) -> io::Result<()> {
    match is_own {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the inherited socket listens somewhere else",
        )),
    }
}
