//! Why a server does not start.

use std::io;
use std::path::PathBuf;

use crate::address::Address;

/// What is wrong, and with which listener; meant for an operator.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option has a value that cannot work.
    #[error("option {option}: {cause}")]
    Option {
        /// Its name in [`crate::Options`].
        option: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// What was kept cannot be read, or nothing can be kept.
    #[error("store: {0}")]
    Store(#[from] crate::store::OpenError),
    /// The store has no thread to write with.
    #[error("store: {0}")]
    StoreThread(std::io::Error),
    /// Two listeners have one name.
    #[error("two listeners are named {name:?}")]
    ListenerName {
        /// The name.
        name: String,
    },
    /// Somebody listens there already.
    #[error("listener {listener:?}: {address} is in use")]
    AddressInUse {
        /// Which listener.
        listener: String,
        /// As configured.
        address: Address,
    },
    /// This machine has no such address.
    #[error("listener {listener:?}: {address} is not an address of this machine")]
    AddressNotAvailable {
        /// Which listener.
        listener: String,
        /// As configured.
        address: Address,
    },
    /// The port is reserved for others.
    #[error("listener {listener:?}: no permission to listen on {address}")]
    PermissionDenied {
        /// Which listener.
        listener: String,
        /// As configured.
        address: Address,
    },
    /// The process may open no more files.
    #[error("{place}: no file descriptor is left; raise the limit (ulimit -n)")]
    DescriptorLimit {
        /// What needed one.
        place: String,
    },
    /// Another failure of a socket.
    #[error("listener {listener:?}: cannot listen on {address}: {cause}")]
    Listen {
        /// Which listener.
        listener: String,
        /// As configured.
        address: Address,
        /// What the system says.
        cause: io::Error,
    },
    /// A Unix socket cannot be made there.
    #[error("listener {listener:?}: socket {path:?}: {cause}")]
    SocketFile {
        /// Which listener.
        listener: String,
        /// As configured.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The server's certificate cannot be used.
    #[error("listener {listener:?}: certificate: {cause}")]
    Certificate {
        /// Which listener.
        listener: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The server's private key cannot be used.
    #[error("listener {listener:?}: private key: {cause}")]
    Key {
        /// Which listener.
        listener: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The certificate and the private key do not belong together.
    #[error("listener {listener:?}: the private key does not belong to the certificate")]
    KeyMismatch {
        /// Which listener.
        listener: String,
    },
    /// The authorities for clients cannot be used.
    #[error("listener {listener:?}: client CA: {cause}")]
    ClientCa {
        /// Which listener.
        listener: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The options of WebSocket cannot be met.
    #[error("listener {listener:?}: WebSocket: {cause}")]
    WebSocket {
        /// Which listener.
        listener: String,
        /// What is wrong with them.
        cause: String,
    },
    /// TLS cannot be set up for another cause.
    #[error("listener {listener:?}: TLS: {cause}")]
    Tls {
        /// Which listener.
        listener: String,
        /// What is wrong.
        cause: String,
    },
    /// Listeners cannot change any more.
    #[error("the server stops")]
    Stopping,
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    NoRandomness,
    /// A thread or its readiness queue cannot be made.
    #[error("shard {shard}: {cause}")]
    Shard {
        /// Its number, from 0.
        shard: usize,
        /// What the system says.
        cause: io::Error,
    },
}

/// `EMFILE`: this process has no descriptor left; the same number on every Unix.
const TOO_MANY_OF_PROCESS: i32 = 24;

/// `ENFILE`: the whole system has none left.
const TOO_MANY_OF_SYSTEM: i32 = 23;

/// True where a failure says that descriptors have run out.
pub(crate) fn is_descriptor_limit(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(TOO_MANY_OF_PROCESS | TOO_MANY_OF_SYSTEM)
    )
}

impl StartError {
    /// Names what a failing socket call means for the operator.
    pub(crate) fn listen(listener: &str, address: &Address, cause: io::Error) -> StartError {
        let (listener, address) = (listener.to_owned(), address.clone());
        if is_descriptor_limit(&cause) {
            return StartError::DescriptorLimit {
                place: format!("listener {listener:?}"),
            };
        }
        match cause.kind() {
            io::ErrorKind::AddrInUse => StartError::AddressInUse { listener, address },
            io::ErrorKind::AddrNotAvailable => {
                StartError::AddressNotAvailable { listener, address }
            }
            io::ErrorKind::PermissionDenied => StartError::PermissionDenied { listener, address },
            _ => StartError::Listen {
                listener,
                address,
                cause,
            },
        }
    }

    /// Names what a failure to set a shard up means for the operator.
    pub(crate) fn shard(shard: usize, cause: io::Error) -> StartError {
        if is_descriptor_limit(&cause) {
            return StartError::DescriptorLimit {
                place: format!("shard {shard}"),
            };
        }
        StartError::Shard { shard, cause }
    }
}
