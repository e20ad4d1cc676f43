//! The I/O shell: shards on threads, listeners, TLS, timers.
//!
//! The engine decides everything that is MQTT; this crate moves bytes and answers the questions
//! that the engine cannot: what time is it, who is this, is the socket still there.
//!
//! The tour, along the way of a byte:
//!
//! 1. [`Server::start`] binds each listener of [`Options`] and starts one thread per shard.
//! 2. `worker` is the loop of one thread: a readiness poll, a read into one large buffer, the
//!    engine, and one write per turn for each connection that has something to say.
//! 3. `transport` stands between socket and engine: `plain`, `tls` and `websocket` are siblings of
//!    one shape.
//! 4. `gate` decides who a CONNECT is from: by certificate at once, by password through a
//!    [`Question`] that a thread of the caller answers.
//!    With [`Server::consult`] the caller is asked about everybody whom it lets in, by an
//!    [`Admission`].
//! 5. `inbox` is how everything else reaches a shard: decisions, neighbours' batches, connections
//!    handed over, new policies, the order to stop; a `mailbox` wakes the shard for them.
//! 6. `store` is each shard's line to the log that outlives the process, where there is one.
//!
//! Nothing here waits for a peer, and nothing a peer sends makes anything here grow without bound.

mod address;
mod admission;
mod announcer;
mod broker;
mod bundle;
mod clock;
mod compact;
mod connection;
mod counters;
mod entrance;
mod error;
mod event;
mod expulsion;
mod gate;
mod inbox;
mod inheriting;
mod inside;
mod listening;
mod lock;
mod mailbox;
mod manner;
mod network;
mod options;
mod question;
mod random;
mod ring;
mod server;
mod slots;
mod socket;
mod staging;
mod store;
mod sync;
mod token;
mod transfer;
mod transport;
mod trust;
mod worker;

pub use address::{Address, UnixAddress};
pub use admission::{Admission, ProvenBy};
pub use bundle::{Bundle, Draft};
pub use casemate_codec::Reason;
pub use casemate_engine::policy::Policy;
pub use casemate_engine::{Counters, Secret, Settings};
pub use casemate_store::{Durability, Keys};
pub use compact::Compacted;
pub use counters::{ServerCounters, ShellCounters};
pub use error::StartError;
pub use event::{Event, EventKind};
pub use inside::{Insider, Link, LinkError};
pub use network::{Network, NetworkError};
pub use options::{
    Account, ClientCertificates, Inherited, InheritedSocket, Listener, Options, Security,
    TlsOptions, TlsVersions, WebSocketOptions,
};
pub use question::{Answer, Question};
pub use random::prime;
pub use server::Server;
pub use store::{OpenError, StoreHealth, StoreOptions};
pub use transfer::{FillError, Filling};
