//! The load generator: many MQTT clients on one thread, cheaper than any broker it measures.
//!
//! The tour, in the order of a run:
//!
//! 1. A [`Plan`] says whom to load, in which [`Shape`], how fast ([`Pace`]) and how long. It is
//!    checked as a whole before the first connection: everything has a bound.
//! 2. `layout` turns the shape into clients: who publishes on which topic, who subscribes to what,
//!    and which messages each subscriber must therefore see.
//! 3. `connection` carries one client from the TCP handshake over TLS and WebSocket to its last
//!    packet; `pool` drives all of them from one readiness loop and writes each socket once a turn.
//! 4. `publisher` writes messages from a prepared header and one payload that all share, so that a
//!    message costs a copy and no allocation. `ledger` sees each delivery: whose it was, whether
//!    one is missing, came twice or out of order (`arrival`), and how late it was (`histogram`).
//! 5. [`run`] goes through the phases (connect, warm up, measure, drain, leave) and tells a
//!    [`Watcher`] ten times a second how it stands; the [`Report`] is what came of it. `discard`
//!    takes back the sessions that would outlive it.
//!
//! Nothing a broker sends is trusted: packets are decoded strictly, and what is malformed, too
//! large or out of turn ends the run with a sentence that says so.

mod arrival;
mod connection;
mod discard;
mod error;
mod header;
mod histogram;
mod layout;
mod ledger;
mod phases;
mod plan;
mod pool;
mod publisher;
mod report;
mod storm;
mod transport;
mod trust;
mod websocket;

pub use error::{LoadError, PlanError};
pub use phases::run;
pub use plan::{Door, Identity, Lasting, Pace, Plan, Secret, Shape, Target, Tls, STAMP_BYTES};
pub use report::{Distribution, Moment, Report, Standing, Watcher};
