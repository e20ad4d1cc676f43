//! The broker as a deterministic machine: inputs in, effects out.
//!
//! [`Shard::handle`] is the only door. A shard owns no socket, clock, thread, file or randomness:
//! time comes with each input, hashing seeds come with [`Place`], and what cannot be decided here
//! (who is this? is it durable?) leaves as an [`Effect`] and returns as an [`Input`]. The same
//! machine therefore runs under the server's threads and under the simulator's virtual clock.
//!
//! The way of a message: `connection` cuts bytes into packets → `incoming` checks the right to
//! publish (a [`policy::Permit`]) and finds the [`route`](crate) → `deliver` writes it into the
//! encoded window of each recipient that has room, and puts a reference into the queue of the
//! others → the shell reads [`Shard::outgoing`] and says [`Input::Sent`]. What is as usual takes a
//! shorter way, `plain`, which leaves to the longer one whatever is not.

mod accept;
mod acknowledge;
mod address;
mod alias;
mod completion;
mod connection;
mod counters;
mod deadline;
mod deliver;
mod door;
mod drain;
mod ended;
mod event;
mod filters;
mod flights;
mod hello;
mod incoming;
mod journal;
mod message;
mod neighbour;
mod outbox;
mod plain;
pub mod policy;
mod principal;
mod proof;
mod pump;
mod queue;
mod replay;
mod retained;
mod route;
mod session;
mod settings;
mod shard;
mod share;
mod subscribe;
mod tell;
mod timers;
mod tree;
mod verbatim;
mod will;
mod window;
mod wire;
mod wording;

pub use address::PeerAddress;
pub use counters::Counters;
pub use door::{
    Batch, ConnectionId, Credentials, Effect, Grant, Input, ListenerId, Millis, Origin, Parcel,
    Place, Proof, ShardIndex, Verdict,
};
pub use event::{Event, EventKind, Loss};
pub use journal::{
    Awaited, Damaged, Kept, Scribe, StoredEntry, StoredFlight, StoredMessage, StoredSession,
    StoredSubscription, StoredWill,
};
pub use neighbour::is_receipt;
pub use principal::{PeerCertificate, Principal, Secret};
pub use settings::Settings;
pub use shard::Shard;
pub use window::Outgoing;
