//! What the caller sets before a start.

use std::fmt;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use casemate_engine::policy::Policy;
use casemate_engine::Settings;

use crate::address::Address;
use crate::network::Network;
use crate::store::StoreOptions;

/// Everything that a server needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads, each with its own engine; 1 to 64.
    pub shards: usize,
    /// Where to listen; at least one.
    pub listeners: Vec<Listener>,
    /// Where what must be kept is kept; without it, all is gone with the process.
    pub store: Option<StoreOptions>,
    /// Limits of the engine. Its `connect_deadline_ms` is the handshake's deadline too.
    pub settings: Settings,
    /// Who may do what, from the first moment on.
    pub policy: Arc<Policy>,
    /// Password checks that may wait at a time; what comes beyond is refused as busy.
    pub question_max: usize,
    /// Ask about everybody who would be let in, from the first on; see
    /// [`crate::Server::consult`].
    pub is_consulted: bool,
    /// Proven clients about which somebody is asked and that wait to be let in, at most.
    pub admissions_max: usize,
    /// Events that are kept until somebody fetches them; the oldest make room.
    pub events_max: usize,
    /// Seconds between two announcements under `$SYS/broker/`; 0 announces nothing.
    pub sys_interval_s: u32,
    /// TLS handshake steps of one loop turn, at least 1. A full handshake costs about 150 µs, so
    /// that 16 keep a storm of them from holding messages back for more than some milliseconds.
    pub handshakes_per_turn: usize,
}

impl Default for Options {
    /// One shard, no listener, a policy that denies everything.
    fn default() -> Options {
        Options {
            shards: 1,
            listeners: Vec::new(),
            store: None,
            settings: Settings::default(),
            policy: Arc::new(Policy::deny_all(0)),
            question_max: 1024,
            is_consulted: false,
            admissions_max: 1024,
            events_max: 16_384,
            sys_interval_s: 10,
            handshakes_per_turn: 16,
        }
    }
}

/// A socket that listens already, made by whoever started this process.
#[derive(Debug)]
pub struct Inherited {
    /// Name of the listener whose address it has.
    pub listener: String,
    /// The socket; it is closed at the end, and never shut down.
    pub socket: InheritedSocket,
}

/// A socket that listens already.
#[derive(Debug)]
pub enum InheritedSocket {
    /// TCP; all shards accept from it.
    Tcp(TcpListener),
    /// A Unix socket; its file belongs to whoever made it, and stays.
    Unix(UnixListener),
}

/// One address that accepts connections.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in events and questions; unique.
    pub name: String,
    /// Where it listens.
    pub address: Address,
    /// What stands between socket and MQTT.
    pub security: Security,
    /// Speaks MQTT over WebSocket; without it over what `security` says alone.
    pub websocket: Option<WebSocketOptions>,
    /// Networks of balancers, which say by a PROXY header for whom they speak. From these one is
    /// required, from all others none is read. On a Unix socket it is required from everybody as
    /// soon as there is one network: who may open the file is trusted like a balancer.
    pub proxy_from: Vec<Network>,
    /// Connections of this listener at a time, at least 1; without it the broker's own limit holds.
    pub connections_max: Option<usize>,
    /// The role of clients that prove nothing; without it they are refused.
    pub anonymous_role: Option<String>,
    /// True keeps an IPv6 listener from taking IPv4 connections as well.
    pub ipv6_only: bool,
}

impl Listener {
    /// A listener that lets nobody in without proof and has no further option set.
    pub fn new(name: &str, address: impl Into<Address>, security: Security) -> Listener {
        Listener {
            name: name.into(),
            address: address.into(),
            security,
            websocket: None,
            proxy_from: Vec::new(),
            connections_max: None,
            anonymous_role: None,
            ipv6_only: true,
        }
    }
}

/// How one listener speaks WebSocket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketOptions {
    /// The path that clients ask for, such as `/mqtt`: `/` and visible ASCII, without `?` and `#`.
    pub path: String,
    /// The pages that may connect, as browsers write their origin, such as `https://app.example`.
    /// Empty lets every page and every client connect; otherwise a client without one is refused.
    pub origins: Vec<String>,
}

/// What stands between socket and MQTT.
#[derive(Clone, Debug)]
pub enum Security {
    /// Nothing: everybody on the way reads along.
    Plain,
    /// TLS.
    Tls(TlsOptions),
}

/// One listener's side of TLS.
#[derive(Clone)]
pub struct TlsOptions {
    /// The certificate and its chain, leaf first, PEM.
    pub certificate_pem: Vec<u8>,
    /// Its private key, PEM (PKCS #8, SEC1 or PKCS #1).
    pub key_pem: Vec<u8>,
    /// Authorities that vouch for clients, PEM; needed unless `client_certificates` is `None`.
    pub client_ca_pem: Option<Vec<u8>>,
    /// Whether clients show a certificate.
    pub client_certificates: ClientCertificates,
    /// What is spoken.
    pub versions: TlsVersions,
}

impl fmt::Debug for TlsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsOptions")
            .field("key_pem", &"<hidden>")
            .field("client_certificates", &self.client_certificates)
            .field("versions", &self.versions)
            .finish_non_exhaustive()
    }
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    #[default]
    None,
    /// One is asked for; who shows none proves itself otherwise.
    Optional,
    /// Without one there is no connection.
    Required,
}

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersions {
    /// TLS 1.3.
    #[default]
    Tls13,
    /// TLS 1.3, and 1.2 with forward secrecy and authenticated encryption for older devices.
    Tls12And13,
}

/// Somebody who proves itself by a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// SHA-256 of the certificate's DER.
    pub fingerprint: [u8; 32],
    /// The name that `%u` stands for.
    pub name: String,
    /// Names of roles of the policy.
    pub roles: Vec<String>,
    /// From this second on the certificate proves nothing; seconds since 1970.
    pub not_after_unix_s: i64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_is_never_shown() {
        let options = TlsOptions {
            certificate_pem: b"leaf".to_vec(),
            key_pem: b"canary".to_vec(),
            client_ca_pem: None,
            client_certificates: ClientCertificates::None,
            versions: TlsVersions::Tls13,
        };
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = Listener::new("main", address, Security::Tls(options));
        let shown = format!("{listener:?}");
        assert!(shown.contains("<hidden>") && !shown.contains("canary"));
        assert!(!shown.contains(&format!("{:?}", b"canary")));
    }
}
