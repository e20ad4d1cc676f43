//! Binding: one socket per shard, so that the kernel spreads the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::StartError;
use crate::options::Listener;

/// Connections that the kernel keeps for us; it cuts this down to its own limit.
const BACKLOG: i32 = 4096;

/// Whether several sockets may share a port and the kernel spreads connections over them. Without
/// that the first shard accepts for all: each connection moves to its home shard in any case.
const KERNEL_SPREADS: bool = cfg!(target_os = "linux");

/// Binds one listener: its address with the real port, and a socket for each shard that accepts.
///
/// # Errors
/// A [`StartError`] that names the listener.
pub(crate) fn bind(
    listener: &Listener,
    shards: usize,
) -> Result<(SocketAddr, Vec<TcpListener>), StartError> {
    let fail = |cause| StartError::listen(&listener.name, listener.address, cause);
    let sockets = if KERNEL_SPREADS { shards } else { 1 };
    let shared = sockets > 1;
    if shared && listener.address.port() != 0 {
        // A shared port can be shared by another process of the same user too, which would then
        // get a part of our connections. A socket that does not share finds out.
        socket(listener, listener.address, false).map_err(fail)?;
    }
    let mut bound = Vec::with_capacity(sockets);
    let mut address = listener.address;
    for _ in 0..sockets {
        let socket = socket(listener, address, shared).map_err(fail)?;
        socket.listen(BACKLOG).map_err(fail)?;
        let socket = TcpListener::from(socket);
        // Where the port was 0, the others take the one that the first was given.
        address = socket.local_addr().map_err(fail)?;
        bound.push(socket);
    }
    Ok((address, bound))
}

fn socket(listener: &Listener, address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(listener.ipv6_only)?;
    }
    // Connections of a former process that linger in the kernel do not keep the port.
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
