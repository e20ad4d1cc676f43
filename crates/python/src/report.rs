//! What the server tells: events and counters.

use casemate_engine::{Counters, EventKind as EngineKind, Loss};
use casemate_server::{self as server, EventKind, ServerCounters, ShellCounters};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Something that happened. What a peer wrote stands in it as it was: escape before showing.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Event {
    pub time_unix_ms: u64,
    pub shard: u16,
    pub listener: Option<String>,
    /// `host:port`.
    pub address: Option<String>,
    pub client_id: String,
    /// Proven name; empty before authentication.
    pub principal: String,
    /// One word, such as `connected` or `publish-denied`.
    pub kind: &'static str,
    /// What belongs to the kind, such as the topic; may be empty.
    pub detail: String,
    /// The reason code of a refusal, where there was one.
    pub reason: Option<u8>,
}

impl Event {
    /// Copies an event out of the server.
    pub(crate) fn new(event: &server::Event) -> Event {
        let (kind, detail) = describe(&event.kind);
        Event {
            time_unix_ms: event.time_unix_ms,
            shard: event.shard,
            listener: event.listener.as_deref().map(str::to_owned),
            address: event.address.map(|address| address.to_string()),
            client_id: event.client_id.to_string(),
            principal: event.principal.to_string(),
            kind,
            detail,
            reason: reason(&event.kind),
        }
    }
}

fn reason(kind: &EventKind) -> Option<u8> {
    match kind {
        EventKind::Engine(
            EngineKind::AuthenticationRefused { reason }
            | EngineKind::Disconnected {
                loss: Loss::Refused(reason),
            },
        ) => Some(*reason as u8),
        _ => None,
    }
}

fn describe(kind: &EventKind) -> (&'static str, String) {
    match kind {
        EventKind::Engine(kind) => describe_engine(kind),
        EventKind::HandshakeFailed { cause } => ("handshake-failed", cause.to_string()),
        EventKind::HandshakeTimeout => ("handshake-timeout", String::new()),
        EventKind::PlainOnTls => ("plain-on-tls", String::new()),
        EventKind::TlsOnPlain => ("tls-on-plain", String::new()),
        EventKind::ProxyRefused { cause } => ("proxy-refused", cause.to_string()),
        EventKind::HttpOnMqtt => ("http-on-mqtt", String::new()),
        EventKind::PlainOnWebSocket => ("plain-on-websocket", String::new()),
        EventKind::UpgradeRefused { cause } => ("upgrade-refused", cause.to_string()),
        EventKind::FrameRefused { cause } => ("frame-refused", cause.to_string()),
        EventKind::AcceptFailed { cause } => ("accept-failed", cause.to_string()),
        EventKind::ConnectionsFull => ("connections-full", String::new()),
        EventKind::EmptyRecords => ("empty-records", String::new()),
        EventKind::AccountGone => ("account-gone", String::new()),
        EventKind::StoreFailing {
            cause,
            is_full: true,
        } => ("store-full", cause.to_string()),
        EventKind::StoreFailing { cause, .. } => ("store-failing", cause.to_string()),
        EventKind::StoreRecovered { batches } => ("store-recovered", batches.to_string()),
        EventKind::StoreDamaged { what } => ("store-damaged", what.to_string()),
    }
}

fn describe_engine(kind: &EngineKind) -> (&'static str, String) {
    match kind {
        EngineKind::Connected {
            session_present: true,
        } => ("connected", "resumed".into()),
        EngineKind::Connected {
            session_present: false,
        } => ("connected", String::new()),
        EngineKind::Disconnected { loss } => ("disconnected", format!("{loss:?}")),
        EngineKind::AuthenticationRefused { reason } => {
            ("authentication-refused", reason.to_string())
        }
        EngineKind::PublishDenied { topic } => ("publish-denied", topic.to_string()),
        EngineKind::SubscribeDenied { filter } => ("subscribe-denied", filter.to_string()),
        EngineKind::WillDenied { topic } => ("will-denied", topic.to_string()),
        EngineKind::Malformed { fault } => ("malformed", fault.to_string()),
        EngineKind::TakenOver => ("taken-over", String::new()),
        EngineKind::SessionExpired => ("session-expired", String::new()),
        EngineKind::Overflow { refused } => ("overflow", refused.to_string()),
        EngineKind::LimitReached { what } => ("limit-reached", (*what).to_owned()),
    }
}

/// Writes the named fields of a struct into a dictionary, under their names.
macro_rules! export {
    ($dict:ident, $from:ident: $($field:ident),+ $(,)?) => {
        $($dict.set_item(stringify!($field), $from.$field)?;)+
    };
}

/// Gives all counters by name; those of the shell stand beside those of the engine.
pub(crate) fn counters<'py>(
    py: Python<'py>,
    counted: &ServerCounters,
) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    // The shell's come first: of the two tallies of handovers the engine's is the one to keep.
    shell_counters(&dict, &counted.shell)?;
    engine_counters(&dict, &counted.engine)?;
    Ok(dict)
}

fn shell_counters(dict: &Bound<'_, PyDict>, counted: &ShellCounters) -> PyResult<()> {
    export!(
        dict, counted:
        accepted,
        refused_full,
        evicted,
        refused_descriptors,
        accept_errors,
        handshakes,
        handshakes_resumed,
        handshake_failures,
        handshake_timeouts,
        plain_on_tls,
        tls_on_plain,
        empty_records,
        proxied,
        proxy_refused,
        http_on_mqtt,
        upgrades,
        upgrades_refused,
        plain_on_websocket,
        frames_refused,
        empty_frames,
        questions,
        questions_refused,
        questions_now,
        admissions,
        admissions_refused,
        admissions_now,
        accounts_gone,
        handed_over,
        adoptions_refused,
        events_lost,
    );
    Ok(())
}

fn engine_counters(dict: &Bound<'_, PyDict>, counted: &Counters) -> PyResult<()> {
    export!(
        dict, counted:
        connections_now,
        connections_total,
        sessions_now,
        subscriptions_now,
        retained_now,
        retained_bytes_now,
        bytes_received,
        bytes_sent,
        packets_received,
        publishes_received,
        publishes_sent,
        dropped_oldest,
        refused_newest,
        dropped_expired,
        dropped_too_large,
        dropped_unshared,
        publish_denied,
        subscribe_denied,
        delivery_denied,
        will_denied,
        authentication_refused,
        malformed,
        keep_alive_timeouts,
        connect_deadlines,
        slow_readers,
        taken_over,
        handed_over,
        forwarded,
        paused,
        limit_refusals,
    );
    Ok(())
}
