//! Why a plan is refused, and why a run ends before its time.

use std::io;

use casemate_codec::{Malformed, QoS, Reason};
use thiserror::Error;

/// What in a plan cannot be.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct PlanError(pub(crate) String);

/// Why a run did not come to its report.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The plan itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// Certificates, key or server name.
    #[error("{0}")]
    Trust(String),
    /// The machine gave no readiness loop.
    #[error("the run cannot start: {0}")]
    Machine(io::Error),
    /// A client failed whose part nobody else can take.
    #[error("client {client}: {fault}")]
    Client {
        /// Its number.
        client: usize,
        /// What happened.
        fault: Fault,
    },
    /// Some clients were not ready in time.
    #[error("only {ready} of {clients} clients were ready in time")]
    Slow {
        /// Those that were.
        ready: usize,
        /// All.
        clients: usize,
    },
    /// The watcher wanted the run to end before there was anything to report.
    #[error("the run was ended before it began to measure")]
    Ended,
}

/// What ends one connection.
#[derive(Debug, Error)]
pub enum Fault {
    /// The socket.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The broker closed it without a word.
    #[error("the broker closed the connection {0}")]
    Closed(&'static str),
    /// Nothing came of it in time.
    #[error("the broker did not answer in time")]
    Late,
    /// CONNACK says no.
    #[error("the broker refused the connection: {0}")]
    Refused(Reason),
    /// SUBACK says no.
    #[error("the broker refused a subscription: {0}")]
    Unsubscribable(Reason),
    /// SUBACK grants another QoS than was asked for.
    #[error("the broker grants {0} to a subscription, which the run does not expect")]
    Granted(QoS),
    /// DISCONNECT.
    #[error("the broker sent DISCONNECT: {0}")]
    Disconnected(Reason),
    /// CONNACK says that the broker does not do what the plan wants.
    #[error("the broker {0}")]
    Unable(&'static str),
    /// Bytes that are no packet.
    #[error("the broker sent no MQTT: {0}")]
    Malformed(#[from] Malformed),
    /// A packet that has no place here.
    #[error("the broker sent {0}")]
    Unexpected(&'static str),
    /// TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// WebSocket.
    #[error("WebSocket: {0}")]
    WebSocket(String),
    /// What we wanted to send has no form on the wire.
    #[error("{0}")]
    Unsayable(#[from] casemate_codec::TooLarge),
}
