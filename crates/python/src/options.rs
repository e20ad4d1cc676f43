//! What Python sets before a start and while the server runs: listeners, limits, accounts, policy.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use casemate_codec::QoS;
use casemate_engine::policy::{self, Operation, Role, Rule};
use casemate_server::{
    self as server, Address, ClientCertificates, Network, Security, Settings, TlsVersions,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::fault::PolicyRefused;

/// A rule as Python writes it: operation, filter, highest QoS, retain, place.
type RuleTuple = (String, String, u8, bool, String);

/// An account as Python writes it: SHA-256 of the certificate, name, roles, end in seconds.
pub(crate) type AccountTuple = (Vec<u8>, String, Vec<String>, i64);

/// One address that accepts connections: TLS where a certificate is given, a Unix socket where
/// `unix_path` is, WebSocket where `websocket_path` is.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Listener {
    pub(crate) inner: server::Listener,
}

#[pymethods]
impl Listener {
    /// Describes it; nothing is opened. `client_certificates` is none, optional or required.
    #[new]
    #[pyo3(signature = (name, host, port, *, unix_path=None, unix_mode=0o600,
        certificate_pem=None, key_pem=None, client_ca_pem=None, client_certificates="none",
        tls12=false, anonymous_role=None, websocket_path=None, websocket_origins=Vec::new(),
        proxy_from=Vec::new(), max_connections=None))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword arguments, one for each option"
    )]
    fn new(
        name: String,
        host: &str,
        port: u16,
        unix_path: Option<PathBuf>,
        unix_mode: u32,
        certificate_pem: Option<Vec<u8>>,
        key_pem: Option<Vec<u8>>,
        client_ca_pem: Option<Vec<u8>>,
        client_certificates: &str,
        tls12: bool,
        anonymous_role: Option<String>,
        websocket_path: Option<String>,
        websocket_origins: Vec<String>,
        proxy_from: Vec<String>,
        max_connections: Option<usize>,
    ) -> PyResult<Listener> {
        let address = match unix_path {
            Some(path) => unix(host, port, path, unix_mode)?,
            None => tcp(host, port)?,
        };
        let client_certificates = certificates(client_certificates)?;
        let versions = match tls12 {
            true => TlsVersions::Tls12And13,
            false => TlsVersions::Tls13,
        };
        let security = match (certificate_pem, key_pem) {
            (Some(certificate_pem), Some(key_pem)) => Security::Tls(server::TlsOptions {
                certificate_pem,
                key_pem,
                client_ca_pem,
                client_certificates,
                versions,
            }),
            // A TLS option that is not obeyed would open a door that its owner believes closed.
            (None, None)
                if client_ca_pem.is_none()
                    && client_certificates == ClientCertificates::None
                    && !tls12 =>
            {
                Security::Plain
            }
            _ => {
                return Err(PyValueError::new_err(
                    "TLS needs certificate_pem and key_pem, and its options need TLS",
                ))
            }
        };
        Ok(Listener {
            inner: server::Listener {
                websocket: websocket(websocket_path, websocket_origins)?,
                proxy_from: networks(&proxy_from)?,
                connections_max: max_connections,
                anonymous_role,
                ..server::Listener::new(&name, address, security)
            },
        })
    }
}

fn tcp(host: &str, port: u16) -> PyResult<Address> {
    let host: IpAddr = host
        .parse()
        .map_err(|_| PyValueError::new_err("host is an IP address"))?;
    Ok(SocketAddr::new(host, port).into())
}

fn unix(host: &str, port: u16, path: PathBuf, mode: u32) -> PyResult<Address> {
    // Who names both expects two doors, of which one would stay closed.
    if !host.is_empty() || port != 0 {
        return Err(PyValueError::new_err(
            "a unix_path stands alone: host is empty and port is 0",
        ));
    }
    Ok(Address::Unix(server::UnixAddress { path, mode }))
}

fn certificates(word: &str) -> PyResult<ClientCertificates> {
    match word {
        "none" => Ok(ClientCertificates::None),
        "optional" => Ok(ClientCertificates::Optional),
        "required" => Ok(ClientCertificates::Required),
        _ => Err(PyValueError::new_err(
            "client_certificates is none, optional or required",
        )),
    }
}

/// Reads networks; one that cannot be read fails all, so that none is left out unseen.
fn networks(texts: &[String]) -> PyResult<Vec<Network>> {
    let read = |text: &String| {
        text.parse()
            .map_err(|error| PyValueError::new_err(format!("network {text:?} {error}")))
    };
    texts.iter().map(read).collect()
}

fn websocket(
    path: Option<String>,
    origins: Vec<String>,
) -> PyResult<Option<server::WebSocketOptions>> {
    match path {
        Some(path) => Ok(Some(server::WebSocketOptions { path, origins })),
        None if origins.is_empty() => Ok(None),
        None => Err(PyValueError::new_err("origins need a websocket_path")),
    }
}

/// A compiled policy.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Policy {
    pub(crate) inner: Arc<policy::Policy>,
}

#[pymethods]
impl Policy {
    /// Compiles roles: pairs of a name and rules (operation, filter, qos_max, retain, place),
    /// where the operation is publish or subscribe; raises `PolicyRefused`.
    #[new]
    #[pyo3(signature = (epoch, roles))]
    fn new(epoch: u64, roles: Vec<(String, Vec<RuleTuple>)>) -> PyResult<Policy> {
        let mut compiled = Vec::with_capacity(roles.len());
        for (name, rules) in roles {
            let rules = rules
                .into_iter()
                .map(rule)
                .collect::<PyResult<Vec<Rule>>>()?;
            compiled.push(Role {
                name: name.into(),
                rules,
            });
        }
        let policy = policy::Policy::compile(epoch, compiled).map_err(|fault| {
            let text = fault.what.to_string();
            PolicyRefused::new_err((text, String::from(fault.role), String::from(fault.place)))
        })?;
        Ok(Policy {
            inner: Arc::new(policy),
        })
    }

    /// The number under which it comes into force.
    #[getter]
    fn epoch(&self) -> u64 {
        self.inner.epoch()
    }
}

fn rule((operation, filter, qos_max, retain, place): RuleTuple) -> PyResult<Rule> {
    let operation = match operation.as_str() {
        "publish" => Operation::Publish,
        "subscribe" => Operation::Subscribe,
        _ => {
            return Err(PyValueError::new_err(
                "an operation is publish or subscribe",
            ))
        }
    };
    let qos_max =
        QoS::from_bits(qos_max).ok_or_else(|| PyValueError::new_err("qos_max is 0, 1 or 2"))?;
    Ok(Rule {
        operation,
        filter: filter.into(),
        qos_max,
        retain,
        place: place.into(),
    })
}

/// Reads accounts; one that cannot be read fails all, so that none is left out unseen.
pub(crate) fn accounts(tuples: Vec<AccountTuple>) -> PyResult<Vec<server::Account>> {
    let read = |(fingerprint, name, roles, not_after_unix_s): AccountTuple| {
        let fingerprint = fingerprint
            .try_into()
            .map_err(|_| PyValueError::new_err("a fingerprint has 32 bytes"))?;
        Ok(server::Account {
            fingerprint,
            name,
            roles,
            not_after_unix_s,
        })
    };
    tuples.into_iter().map(read).collect()
}

/// Sets limits by the names of the engine's settings; what is not named keeps its default.
pub(crate) fn settings(limits: &Bound<'_, PyDict>) -> PyResult<Settings> {
    let mut settings = Settings::default();
    for (name, value) in limits {
        let name: String = name.extract()?;
        set(&mut settings, &name, &value)?;
    }
    Ok(settings)
}

/// Expands to one arm for each named field, so that a number is read in that field's own range.
macro_rules! set_field {
    ($settings:ident, $name:ident, $value:ident, $($field:ident),+ $(,)?) => {
        match $name {
            $(stringify!($field) => $settings.$field = $value.extract()?,)+
            _ => return Err(PyValueError::new_err(format!("there is no limit {:?}", $name))),
        }
    };
}

fn set(settings: &mut Settings, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
    set_field!(
        settings,
        name,
        value,
        packet_bytes_max,
        connect_bytes_max,
        connect_deadline_ms,
        keep_alive_s_max,
        session_expiry_s_max,
        session_expiry_s_legacy,
        connections_max,
        sessions_max,
        sessions_per_principal_max,
        subscriptions_per_session_max,
        receive_max,
        inflight_max,
        topic_alias_max,
        topic_alias_out_max,
        topic_levels_max,
        queue_messages_max,
        queue_bytes_max,
        retained_max,
        retained_bytes_max,
        window_bytes,
        pipe_bytes,
        receipts_max,
        slow_reader_ms,
    );
    Ok(())
}
