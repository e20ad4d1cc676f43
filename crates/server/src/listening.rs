//! Binding: one socket per shard where the kernel spreads connections over them, else one for all.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use mio::net::{TcpListener, UnixListener};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::address::{Address, UnixAddress};
use crate::error::StartError;
use crate::options::Listener;
use crate::socket::{Acceptor, SocketFile};

/// Connections that the kernel keeps for us; it cuts this down to its own limit.
const BACKLOG: i32 = 4096;

/// Whether several sockets may share a port and the kernel spreads connections over them. Without
/// that the first shard accepts for all: each connection moves to its home shard in any case.
const KERNEL_SPREADS: bool = cfg!(target_os = "linux");

/// Permissions that a socket's file can have.
const MODE_MAX: u32 = 0o777;

/// Binds one listener: its address with the real port, and a socket for each shard that accepts.
///
/// # Errors
/// A [`StartError`] that names the listener.
pub(crate) fn bind(
    listener: &Listener,
    shards: usize,
) -> Result<(Address, Vec<Acceptor>), StartError> {
    match &listener.address {
        Address::Tcp(address) => bind_tcp(listener, *address, shards)
            .map_err(|cause| StartError::listen(&listener.name, &listener.address, cause)),
        Address::Unix(place) => {
            // The kernel spreads nothing here.
            let acceptor = bind_unix(listener, place)?;
            Ok((listener.address.clone(), vec![acceptor]))
        }
    }
}

fn bind_tcp(
    listener: &Listener,
    wanted: SocketAddr,
    shards: usize,
) -> io::Result<(Address, Vec<Acceptor>)> {
    let sockets = if KERNEL_SPREADS { shards } else { 1 };
    let shared = sockets > 1;
    if shared && wanted.port() != 0 {
        // A shared port can be shared by another process of the same user too, which would then
        // get a part of our connections. A socket that does not share finds out.
        socket(listener, wanted, false)?;
    }
    let mut bound = Vec::with_capacity(sockets);
    let mut address = wanted;
    for _ in 0..sockets {
        let socket = socket(listener, address, shared)?;
        socket.listen(BACKLOG)?;
        let socket = std::net::TcpListener::from(socket);
        // Where the port was 0, the others take the one that the first was given.
        address = socket.local_addr()?;
        bound.push(Acceptor::Tcp(TcpListener::from_std(socket)));
    }
    Ok((address.into(), bound))
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

fn bind_unix(listener: &Listener, place: &UnixAddress) -> Result<Acceptor, StartError> {
    let fail = |cause| StartError::listen(&listener.name, &listener.address, cause);
    let path = place.path.as_path();
    let address = check(place).map_err(|cause| StartError::SocketFile {
        listener: listener.name.clone(),
        path: path.to_owned(),
        cause,
    })?;
    make_room(listener, path, &address)?;
    let socket = stream().map_err(fail)?;
    socket.bind(&address).map_err(fail)?;
    let file = SocketFile::new(path).map_err(fail)?;
    // Nobody can connect before it listens, whatever the mode was until here.
    fs::set_permissions(path, Permissions::from_mode(place.mode)).map_err(fail)?;
    socket.listen(BACKLOG).map_err(fail)?;
    let socket = std::os::unix::net::UnixListener::from(socket);
    Ok(Acceptor::Unix(UnixListener::from_std(socket), Some(file)))
}

fn stream() -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Refuses what cannot be a socket's file, in words.
fn check(place: &UnixAddress) -> Result<SockAddr, String> {
    let bytes = place.path.as_os_str().as_encoded_bytes();
    if bytes.is_empty() || bytes.contains(&0) {
        // Linux would take these for sockets without a file, which no mode protects.
        return Err("this is no path of a file".into());
    }
    if place.mode > MODE_MAX {
        return Err(format!("mode {:#o} is beyond {MODE_MAX:#o}", place.mode));
    }
    SockAddr::unix(&place.path).map_err(|_| {
        format!(
            "a path of {} bytes is too long for a socket; about a hundred can be used",
            bytes.len()
        )
    })
}

/// Removes the file that a process left behind which is gone; leaves everything else alone.
fn make_room(listener: &Listener, path: &Path, address: &SockAddr) -> Result<(), StartError> {
    let fail = |cause| StartError::listen(&listener.name, &listener.address, cause);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(fail(error)),
        Ok(file) if file.file_type().is_socket() => {}
        Ok(_) => {
            return Err(StartError::SocketFile {
                listener: listener.name.clone(),
                path: path.to_owned(),
                cause: "something else than a socket is there, and is left alone".into(),
            })
        }
    }
    match stream().and_then(|socket| socket.connect(address)) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(fail)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        // It answers, or would if it had the time.
        Ok(()) => Err(fail(io::ErrorKind::AddrInUse.into())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(fail(io::ErrorKind::AddrInUse.into()))
        }
        Err(error) => Err(fail(error)),
    }
}
