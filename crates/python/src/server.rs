//! The server as Python sees it; whatever may wait leaves the interpreter first.

use std::io;
use std::time::Duration;

use casemate_codec::Reason;
use casemate_server::{
    self as server, Address, Answer, Inherited, InheritedSocket, Options, ProvenBy, StartError,
};
use listenfd::ListenFd;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::fault::StartRefused;
use crate::link::{lost, Link};
use crate::options::{accounts, settings, AccountTuple, Listener, Policy};
use crate::report::{counters, Event};
use crate::store::{self, Store, StoreHealth};

/// A password that somebody must check. It is never shown by `repr`.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Question {
    inner: server::Question,
}

#[pymethods]
impl Question {
    /// To be given back with the answer.
    #[getter]
    fn id(&self) -> u64 {
        self.inner.id
    }

    /// Name of the listener.
    #[getter]
    fn listener(&self) -> &str {
        &self.inner.listener
    }

    /// The peer's address as `host:port`.
    #[getter]
    fn address(&self) -> Option<String> {
        self.inner.address.map(|address| address.to_string())
    }

    /// As the client wrote it; may be empty.
    #[getter]
    fn client_id(&self) -> &str {
        &self.inner.client_id
    }

    /// Who it says it is.
    #[getter]
    fn username(&self) -> &str {
        &self.inner.username
    }

    /// What it knows.
    #[getter]
    fn password<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.inner.password.reveal())
    }

    fn __repr__(&self) -> String {
        format!("Question(id={}, password=<hidden>)", self.inner.id)
    }
}

/// Somebody who has proven who it is and asks to be let in.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Admission {
    inner: server::Admission,
}

#[pymethods]
impl Admission {
    /// To be given back with the answer.
    #[getter]
    fn id(&self) -> u64 {
        self.inner.id
    }

    /// Name of the listener.
    #[getter]
    fn listener(&self) -> &str {
        &self.inner.listener
    }

    /// The peer's address as `host:port`.
    #[getter]
    fn address(&self) -> Option<String> {
        self.inner.address.map(|address| address.to_string())
    }

    /// As the client wrote it; may be empty.
    #[getter]
    fn client_id(&self) -> &str {
        &self.inner.client_id
    }

    /// Who it has proven to be.
    #[getter]
    fn name(&self) -> &str {
        &self.inner.name
    }

    /// Names of its roles.
    #[getter]
    fn roles(&self) -> Vec<String> {
        self.inner.roles.clone()
    }

    /// What it has proven itself by: certificate, password or nothing.
    #[getter]
    fn proven_by(&self) -> &'static str {
        match self.inner.proven_by {
            ProvenBy::Certificate => "certificate",
            ProvenBy::Password => "password",
            ProvenBy::Nothing => "nothing",
        }
    }

    /// The version of MQTT it speaks: 3, 4 or 5.
    #[getter]
    fn version(&self) -> u8 {
        self.inner.version as u8
    }
}

/// A running server; dropping it stops it.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Server {
    inner: server::Server,
}

#[pymethods]
impl Server {
    /// Opens every listener and starts to serve; raises `StartRefused` where one of them cannot
    /// be, and `StoreRefused` where the store cannot be opened; without a store all is gone with
    /// the process. `limits` are the engine's settings by name; `shards` is 1 to 64. `inherited`
    /// names sockets that systemd has handed over: (name of the listener, descriptor).
    #[staticmethod]
    #[pyo3(signature = (listeners, accounts, policy, *, limits, shards=1, question_max=1024,
        consult=false, admissions_max=1024, events_max=16384, sys_interval_s=10, inherited=vec![],
        store=None))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword arguments, one for each option"
    )]
    fn start(
        py: Python<'_>,
        listeners: Vec<PyRef<'_, Listener>>,
        accounts: Vec<AccountTuple>,
        policy: &Bound<'_, Policy>,
        limits: &Bound<'_, PyDict>,
        shards: usize,
        question_max: usize,
        consult: bool,
        admissions_max: usize,
        events_max: usize,
        sys_interval_s: u32,
        inherited: Vec<(String, i32)>,
        store: Option<PyRef<'_, Store>>,
    ) -> PyResult<Server> {
        let store = store.map(|store| store.inner.clone());
        let options = Options {
            shards,
            listeners: listeners
                .iter()
                .map(|listener| listener.inner.clone())
                .collect(),
            settings: settings(limits)?,
            policy: policy.get().inner.clone(),
            question_max,
            is_consulted: consult,
            admissions_max,
            events_max,
            sys_interval_s,
            store: store.clone(),
            ..Options::default()
        };
        let accounts = self::accounts(accounts)?;
        let inherited = self::inherited(inherited)?;
        let started = py.detach(|| server::Server::start_with(options, accounts, inherited));
        started
            .map(|inner| Server { inner })
            .map_err(|error| match (&error, &store) {
                (StartError::Store(fault), Some(store)) => store::refused(fault, store),
                _ => refused(&error),
            })
    }

    /// Replaces all listeners without touching live connections; raises `StartRefused` and changes
    /// nothing where one of them cannot be. What listens where one did keeps its socket. True once
    /// every shard has obeyed; False where one is late.
    #[pyo3(signature = (listeners))]
    fn install_listeners(
        &self,
        py: Python<'_>,
        listeners: Vec<PyRef<'_, Listener>>,
    ) -> PyResult<bool> {
        let listeners: Vec<_> = listeners
            .iter()
            .map(|listener| listener.inner.clone())
            .collect();
        py.detach(|| self.inner.install_listeners(&listeners))
            .map_err(|error| refused(&error))
    }

    /// Lets a program of this process in as a client with these roles; raises `LinkLost`.
    #[pyo3(signature = (name, roles))]
    fn enter(&self, py: Python<'_>, name: String, roles: Vec<String>) -> PyResult<Link> {
        let insider = server::Insider { name, roles };
        let opened = py.detach(|| self.inner.enter(insider));
        Link::new(opened.map_err(lost)?)
    }

    /// Where it listens: (name of the listener, host, port), or its path and 0 for a Unix socket.
    fn addresses(&self) -> Vec<(String, String, u16)> {
        let addresses = self.inner.addresses().into_iter();
        addresses
            .map(|(name, at)| match at {
                Address::Tcp(at) => (name, at.ip().to_string(), at.port()),
                Address::Unix(at) => (name, at.path.to_string_lossy().into_owned(), 0),
            })
            .collect()
    }

    /// Waits for a password to check; None when the time is over or the server stops.
    #[pyo3(signature = (timeout_s))]
    fn next_question(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Option<Question>> {
        let timeout = seconds(timeout_s)?;
        let question = py.detach(|| self.inner.next_question(timeout));
        Ok(question.map(|inner| Question { inner }))
    }

    /// Says that the password is right; False where nobody waits for the answer any more.
    #[pyo3(signature = (question, name, roles, *, client_id_bound=false, until_s=None))]
    fn grant(
        &self,
        py: Python<'_>,
        question: u64,
        name: String,
        roles: Vec<String>,
        client_id_bound: bool,
        until_s: Option<u64>,
    ) -> bool {
        let answer = Answer::Grant {
            name,
            roles,
            client_id_bound,
            until_s,
        };
        py.detach(|| self.inner.answer(question, answer))
    }

    /// Says that the password is wrong, or why else not; False where nobody waits any more.
    #[pyo3(signature = (question, reason))]
    fn refuse(&self, py: Python<'_>, question: u64, reason: u8) -> PyResult<bool> {
        let reason = refusal(reason)?;
        Ok(py.detach(|| self.inner.answer(question, Answer::Refuse { reason })))
    }

    /// Asks about everybody who would be let in from now on, or no longer.
    #[pyo3(signature = (is_wanted))]
    fn consult(&self, is_wanted: bool) {
        self.inner.consult(is_wanted);
    }

    /// Waits for somebody to let in; None when the time is over or the server stops.
    #[pyo3(signature = (timeout_s))]
    fn next_admission(&self, py: Python<'_>, timeout_s: f64) -> PyResult<Option<Admission>> {
        let timeout = seconds(timeout_s)?;
        let admission = py.detach(|| self.inner.next_admission(timeout));
        Ok(admission.map(|inner| Admission { inner }))
    }

    /// Lets somebody in; False where it no longer waits.
    #[pyo3(signature = (admission))]
    fn admit(&self, py: Python<'_>, admission: u64) -> bool {
        py.detach(|| self.inner.settle_admission(admission, None))
    }

    /// Turns somebody away; False where it no longer waits.
    #[pyo3(signature = (admission, reason))]
    fn turn_away(&self, py: Python<'_>, admission: u64, reason: u8) -> PyResult<bool> {
        let reason = refusal(reason)?;
        Ok(py.detach(|| self.inner.settle_admission(admission, Some(reason))))
    }

    /// Replaces all accounts with certificates; who is gone is disconnected.
    #[pyo3(signature = (accounts))]
    fn install_accounts(&self, py: Python<'_>, accounts: Vec<AccountTuple>) -> PyResult<()> {
        let accounts = self::accounts(accounts)?;
        py.detach(|| self.inner.install_accounts(accounts));
        Ok(())
    }

    /// Replaces the policy.
    #[pyo3(signature = (policy))]
    fn install_policy(&self, py: Python<'_>, policy: &Bound<'_, Policy>) {
        let policy = policy.get().inner.clone();
        py.detach(|| self.inner.install_policy(policy));
    }

    /// Waits until every shard obeys the policy of this epoch; False when the time is over.
    #[pyo3(signature = (epoch, timeout_s))]
    fn wait_policy_in_force(&self, py: Python<'_>, epoch: u64, timeout_s: f64) -> PyResult<bool> {
        let timeout = seconds(timeout_s)?;
        Ok(py.detach(|| self.inner.wait_policy_in_force(epoch, timeout)))
    }

    /// Disconnects an account, and ends its sessions where asked.
    #[pyo3(signature = (name, *, end_sessions))]
    fn expel(&self, py: Python<'_>, name: &str, end_sessions: bool) {
        py.detach(|| self.inner.expel(name, end_sessions));
    }

    /// Waits for events; gives at most `count` and how many were lost before them.
    #[pyo3(signature = (count, timeout_s))]
    fn next_events(
        &self,
        py: Python<'_>,
        count: usize,
        timeout_s: f64,
    ) -> PyResult<(Vec<Event>, u64)> {
        let timeout = seconds(timeout_s)?;
        let (events, lost) = py.detach(|| self.inner.next_events(count, timeout));
        Ok((events.iter().map(Event::new).collect(), lost))
    }

    /// Totals and gauges by name.
    fn counters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counted = py.detach(|| self.inner.counters());
        counters(py, &counted)
    }

    /// How the store is; None where nothing is kept.
    fn store_health(&self, py: Python<'_>) -> Option<StoreHealth> {
        py.detach(|| self.inner.store_health())
            .map(StoreHealth::new)
    }

    /// Whether every shard answers within the time: each has gone through its loop meanwhile.
    #[pyo3(signature = (timeout_s))]
    fn makes_progress(&self, py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
        let timeout = seconds(timeout_s)?;
        Ok(py.detach(|| self.inner.makes_progress(timeout)))
    }

    /// Why the server ended by itself; None while it runs or after a stop.
    fn failed(&self) -> Option<String> {
        self.inner.failed().map(|cause| cause.to_string())
    }

    /// Stops without breaking a promise: nobody new is let in, what was acknowledged is delivered,
    /// and each client is sent away once it is owed nothing, to `server_reference` where there is
    /// one. True where all of it was done by the deadline; the rest is cut off.
    #[pyo3(signature = (deadline_s, server_reference=None))]
    fn drain(
        &self,
        py: Python<'_>,
        deadline_s: f64,
        server_reference: Option<&str>,
    ) -> PyResult<bool> {
        let deadline = seconds(deadline_s)?;
        Ok(py.detach(|| self.inner.drain(deadline, server_reference)))
    }

    /// Says goodbye to every client and stops; True where all was flushed in time.
    #[pyo3(signature = (deadline_s))]
    fn stop(&self, py: Python<'_>, deadline_s: f64) -> PyResult<bool> {
        let deadline = seconds(deadline_s)?;
        Ok(py.detach(|| self.inner.stop(deadline)))
    }
}

/// The first descriptor that systemd hands over (`SD_LISTEN_FDS_START`).
const INHERITED_FIRST: i32 = 3;

/// Takes the sockets of these descriptors; they are ours from now on.
fn inherited(named: Vec<(String, i32)>) -> PyResult<Vec<Inherited>> {
    if named.is_empty() {
        return Ok(Vec::new());
    }
    let mut handed_over = ListenFd::from_env();
    let take = |(listener, descriptor): (String, i32)| {
        let place = usize::try_from(descriptor - INHERITED_FIRST)
            .map_err(|_| PyValueError::new_err("systemd hands over descriptors from 3 on"))?;
        let socket = take_socket(&mut handed_over, place)
            .map_err(|error| PyValueError::new_err(error.to_string()))?
            .ok_or_else(|| PyValueError::new_err("systemd has not handed over this descriptor"))?;
        Ok(Inherited { listener, socket })
    };
    named.into_iter().map(take).collect()
}

/// Takes one socket, whichever of the two kinds it is.
fn take_socket(handed_over: &mut ListenFd, place: usize) -> io::Result<Option<InheritedSocket>> {
    if let Ok(socket) = handed_over.take_tcp_listener(place) {
        return Ok(socket.map(InheritedSocket::Tcp));
    }
    let socket = handed_over.take_unix_listener(place)?;
    Ok(socket.map(InheritedSocket::Unix))
}

/// Has the cryptography of this process ready, some 30 ms of work; later calls cost nothing.
#[pyfunction]
#[pyo3(signature = ())]
pub fn prime(py: Python<'_>) {
    py.detach(server::prime);
}

fn refusal(reason: u8) -> PyResult<Reason> {
    Reason::from_byte(reason)
        .filter(|reason| reason.is_refusal())
        .ok_or_else(|| PyValueError::new_err("a refusal has a reason code of 0x80 or above"))
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err("a time is a number of seconds, 0 or more"))
}

/// Names the kind of a start error for Python, with the listener that it is about.
fn refused(error: &StartError) -> PyErr {
    use StartError as E;
    let (kind, listener) = match error {
        E::Option { .. } => ("option", None),
        E::ListenerName { name } => ("listener-name", Some(name)),
        E::AddressInUse { listener, .. } => ("address-in-use", Some(listener)),
        E::AddressNotAvailable { listener, .. } => ("address-not-available", Some(listener)),
        E::PermissionDenied { listener, .. } => ("permission-denied", Some(listener)),
        E::DescriptorLimit { .. } => ("descriptor-limit", None),
        E::Listen { listener, .. } => ("listen", Some(listener)),
        E::SocketFile { listener, .. } => ("socket-file", Some(listener)),
        E::Certificate { listener, .. } => ("certificate", Some(listener)),
        E::Key { listener, .. } => ("key", Some(listener)),
        E::KeyMismatch { listener } => ("key-mismatch", Some(listener)),
        E::ClientCa { listener, .. } => ("client-ca", Some(listener)),
        E::WebSocket { listener, .. } => ("websocket", Some(listener)),
        E::Tls { listener, .. } => ("tls", Some(listener)),
        E::Stopping => ("stopping", None),
        _ => ("system", None),
    };
    StartRefused::new_err((error.to_string(), kind, listener.cloned()))
}
