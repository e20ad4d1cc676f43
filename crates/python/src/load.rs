//! The load generator: keyword arguments in, a report out, and a word to Python ten times a second.

use std::net::{IpAddr, SocketAddr};
use std::ops::ControlFlow;
use std::time::Duration;

use casemate_load::{
    self as load, Door, Identity, Lasting, Moment, Pace, Plan, Secret, Shape, Standing, Watcher,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::decoder::read_version;
use crate::encoder::read_qos;
use crate::fault::LoadFailed;

/// The broker that a run loads, and how it is reached. `repr` shows neither password nor key.
#[pyclass(frozen, module = "casemate._engine")]
pub struct LoadTarget {
    inner: load::Target,
}

#[pymethods]
impl LoadTarget {
    /// Describes it; nothing is opened. TLS where a server name is given, WebSocket where a path.
    #[new]
    #[pyo3(signature = (address, port, *, version=5, client_id="bench-".to_owned(), username=None,
        password=None, keep_alive_s=60, server_name=None, trusted_pem=Vec::new(), chain_pem=None,
        key_pem=None, resume=false, websocket_host=None, websocket_path=None))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword arguments, one for each option"
    )]
    fn new(
        address: &str,
        port: u16,
        version: u8,
        client_id: String,
        username: Option<String>,
        password: Option<Vec<u8>>,
        keep_alive_s: u16,
        server_name: Option<String>,
        trusted_pem: Vec<u8>,
        chain_pem: Option<Vec<u8>>,
        key_pem: Option<Vec<u8>>,
        resume: bool,
        websocket_host: Option<String>,
        websocket_path: Option<String>,
    ) -> PyResult<LoadTarget> {
        let address: IpAddr = address
            .parse()
            .map_err(|_| PyValueError::new_err("address is an IP address"))?;
        let identity = chain_pem.zip(key_pem).map(|(chain_pem, key)| Identity {
            chain_pem,
            key_pem: Secret(key),
        });
        let inner = load::Target {
            address: SocketAddr::new(address, port),
            version: read_version(version)?,
            client_id,
            username,
            password: password.map(Secret),
            keep_alive_s,
            tls: server_name.map(|server_name| load::Tls {
                server_name,
                trusted_pem,
                identity,
                resume,
            }),
            websocket: websocket_path.map(|path| Door {
                host: websocket_host.unwrap_or_else(|| address.to_string()),
                path,
            }),
        };
        Ok(LoadTarget { inner })
    }

    fn __repr__(&self) -> String {
        format!("LoadTarget({}, <hidden>)", self.inner.address)
    }
}

/// Durations of one kind in ns; all are 0 where `count` is.
#[pyclass(frozen, get_all, module = "casemate._engine")]
pub struct Distribution {
    count: u64,
    least_ns: u64,
    mean_ns: u64,
    p50_ns: u64,
    p90_ns: u64,
    p99_ns: u64,
    p999_ns: u64,
    most_ns: u64,
}

/// How a run stands.
#[pyclass(frozen, get_all, module = "casemate._engine")]
pub struct LoadStanding {
    ready: usize,
    connected: u64,
    failed: u64,
    published: u64,
    delivered: u64,
    reads: u64,
    writes: u64,
}

/// What came of a run; rates belong to the measured time, harm to the whole run.
#[pyclass(frozen, get_all, module = "casemate._engine")]
pub struct LoadReport {
    measured_s: f64,
    setup_s: f64,
    ended_early: bool,
    published: u64,
    delivered: u64,
    connected: u64,
    failed: u64,
    first_failure: Option<String>,
    reads: u64,
    writes: u64,
    expected: u64,
    lost: u64,
    duplicated: u64,
    reordered: u64,
    misrouted: u64,
    qos_changed: u64,
    refused: u64,
    unacknowledged: u64,
    unsent: u64,
    stalls: u64,
    latency: Py<Distribution>,
    lateness: Py<Distribution>,
    connecting: Py<Distribution>,
}

/// Runs a plan against one broker and returns when it is over; the interpreter is free meanwhile.
///
/// `watch(moment, standing)` is called on this thread ten times a second and at each turn of the
/// run, and ends it by returning False or raising. Raises `ValueError` where the plan cannot be,
/// `LoadFailed` where the run did not come to its report.
#[pyfunction]
#[pyo3(signature = (target, watch, *, shape, publishers=1, subscribers=1, connections=1,
    window=4000, rate_per_s=None, publish_qos=0, subscribe_qos=0, payload_bytes=64, retain=false,
    topic_alias=false, properties=false, lasting_s=None, left_behind=false,
    inflight_max=20, topic="bench".to_owned(),
    topics_per_publisher=1, single_filters=false, connecting_max=32, warm_up_s=1.0,
    measured_s=5.0, grace_s=2.0, setup_max_s=60.0, messages_max=4_294_967_295))]
#[allow(
    clippy::too_many_arguments,
    reason = "keyword arguments, one for each option"
)]
pub fn run_load(
    py: Python<'_>,
    target: &Bound<'_, LoadTarget>,
    watch: Py<PyAny>,
    shape: &str,
    publishers: usize,
    subscribers: usize,
    connections: usize,
    window: usize,
    rate_per_s: Option<f64>,
    publish_qos: u8,
    subscribe_qos: u8,
    payload_bytes: usize,
    retain: bool,
    topic_alias: bool,
    properties: bool,
    lasting_s: Option<u32>,
    left_behind: bool,
    inflight_max: u16,
    topic: String,
    topics_per_publisher: usize,
    single_filters: bool,
    connecting_max: usize,
    warm_up_s: f64,
    measured_s: f64,
    grace_s: f64,
    setup_max_s: f64,
    messages_max: u64,
) -> PyResult<LoadReport> {
    let plan = Plan {
        target: target.get().inner.clone(),
        shape: read_shape(shape, publishers, subscribers, connections)?,
        pace: match rate_per_s {
            Some(per_s) => Pace::Rate { per_s },
            None => Pace::Saturate { window },
        },
        publish_qos: read_qos(publish_qos)?,
        subscribe_qos: read_qos(subscribe_qos)?,
        payload_bytes,
        retain,
        topic_alias,
        properties,
        lasting: lasting_s.map(|expiry_s| Lasting {
            expiry_s,
            left_behind,
        }),
        inflight_max,
        topic,
        topics_per_publisher,
        single_filters,
        connecting_max,
        warm_up: read_time(warm_up_s)?,
        measured: read_time(measured_s)?,
        grace: read_time(grace_s)?,
        setup_max: read_time(setup_max_s)?,
        messages_max,
    };
    let mut teller = Teller {
        watch,
        raised: None,
    };
    let outcome = py.detach(|| load::run(&plan, &mut teller));
    match (teller.raised, outcome) {
        (Some(raised), _) => Err(raised),
        (None, Ok(report)) => read_report(py, report),
        (None, Err(load::LoadError::Plan(error))) => Err(PyValueError::new_err(error.to_string())),
        (None, Err(error)) => Err(LoadFailed::new_err(error.to_string())),
    }
}

/// Tells Python, and keeps what it raises until the run has ended.
struct Teller {
    watch: Py<PyAny>,
    raised: Option<PyErr>,
}

impl Watcher for Teller {
    fn watch(&mut self, moment: Moment, standing: &Standing) -> ControlFlow<()> {
        let told = Python::attach(|py| {
            let standing = LoadStanding {
                ready: standing.ready,
                connected: standing.connected,
                failed: standing.failed,
                published: standing.published,
                delivered: standing.delivered,
                reads: standing.reads,
                writes: standing.writes,
            };
            let goes_on = self.watch.call1(py, (name_of(moment), standing))?;
            goes_on.is_truthy(py)
        });
        match told {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(raised) => {
                self.raised.get_or_insert(raised);
                ControlFlow::Break(())
            }
        }
    }
}

/// A moment as Python knows it.
fn name_of(moment: Moment) -> &'static str {
    match moment {
        Moment::Connecting => "connecting",
        Moment::WarmingUp => "warming up",
        Moment::Begins => "begins",
        Moment::Measuring => "measuring",
        Moment::Ends => "ends",
        Moment::Draining => "draining",
        Moment::Discarding => "discarding",
    }
}

fn read_shape(
    shape: &str,
    publishers: usize,
    subscribers: usize,
    connections: usize,
) -> PyResult<Shape> {
    Ok(match shape {
        "fan-in" => Shape::FanIn {
            publishers,
            subscribers,
        },
        "fan-out" => Shape::FanOut {
            publishers,
            subscribers,
        },
        "pairs" => Shape::Pairs { pairs: publishers },
        "shared" => Shape::Shared {
            publishers,
            subscribers,
        },
        "connects" => Shape::Connects { connections },
        "idle" => Shape::Idle { connections },
        _ => return Err(PyValueError::new_err("there is no such shape")),
    })
}

fn read_time(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err("a time is a number of seconds, 0 or more"))
}

fn read_report(py: Python<'_>, report: load::Report) -> PyResult<LoadReport> {
    Ok(LoadReport {
        measured_s: report.measured.as_secs_f64(),
        setup_s: report.setup.as_secs_f64(),
        ended_early: report.ended_early,
        published: report.published,
        delivered: report.delivered,
        connected: report.connected,
        failed: report.failed,
        first_failure: report.first_failure,
        reads: report.reads,
        writes: report.writes,
        expected: report.expected,
        lost: report.lost,
        duplicated: report.duplicated,
        reordered: report.reordered,
        misrouted: report.misrouted,
        qos_changed: report.qos_changed,
        refused: report.refused,
        unacknowledged: report.unacknowledged,
        unsent: report.unsent,
        stalls: report.stalls,
        latency: distribution(py, &report.latency)?,
        lateness: distribution(py, &report.lateness)?,
        connecting: distribution(py, &report.connecting)?,
    })
}

fn distribution(py: Python<'_>, of: &load::Distribution) -> PyResult<Py<Distribution>> {
    let of = Distribution {
        count: of.count,
        least_ns: of.least_ns,
        mean_ns: of.mean_ns,
        p50_ns: of.p50_ns,
        p90_ns: of.p90_ns,
        p99_ns: of.p99_ns,
        p999_ns: of.p999_ns,
        most_ns: of.most_ns,
    };
    Py::new(py, of)
}
