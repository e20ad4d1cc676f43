//! Packets of a client to bytes.

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec as codec;
use casemate_codec::{Packet, PacketId, QoS, Reason, RetainHandling};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use crate::decoder::read_version;
use crate::fault;

/// User properties as they come from Python.
type Pairs = Vec<(PyBackedStr, PyBackedStr)>;

/// The largest packet that the wire can carry, in bytes (MQTT 5.0 §2.1.4).
const WIRE_BYTES_MAX: u32 = 268_435_455 + 5;

/// The will of a CONNECT.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Will {
    topic: PyBackedStr,
    payload: PyBackedBytes,
    qos: QoS,
    retain: bool,
    delay_s: Option<u32>,
    payload_is_text: Option<bool>,
    message_expiry_s: Option<u32>,
    content_type: Option<PyBackedStr>,
    response_topic: Option<PyBackedStr>,
    correlation_data: Option<PyBackedBytes>,
    user: Pairs,
}

#[pymethods]
impl Will {
    /// Keeps what a will says; the properties are not written before 5.0.
    #[new]
    #[pyo3(signature = (topic, payload, *, qos=0, retain=false, delay_s=None,
        payload_is_text=None, message_expiry_s=None, content_type=None, response_topic=None,
        correlation_data=None, user=Vec::new()))]
    #[allow(
        clippy::too_many_arguments,
        reason = "keyword arguments, one for each property"
    )]
    fn new(
        topic: PyBackedStr,
        payload: PyBackedBytes,
        qos: u8,
        retain: bool,
        delay_s: Option<u32>,
        payload_is_text: Option<bool>,
        message_expiry_s: Option<u32>,
        content_type: Option<PyBackedStr>,
        response_topic: Option<PyBackedStr>,
        correlation_data: Option<PyBackedBytes>,
        user: Pairs,
    ) -> PyResult<Will> {
        Ok(Will {
            topic,
            payload,
            qos: read_qos(qos)?,
            retain,
            delay_s,
            payload_is_text,
            message_expiry_s,
            content_type,
            response_topic,
            correlation_data,
            user,
        })
    }
}

/// Writes a CONNECT.
#[pyfunction]
#[pyo3(signature = (version, client_id, *, clean_start=true, keep_alive_s=60, username=None,
    password=None, will=None, session_expiry_s=None, receive_max=None, packet_bytes_max=None,
    topic_alias_max=None, request_response_information=None, request_problem_information=None,
    user=Vec::new(), authentication_method=None, authentication_data=None))]
#[allow(
    clippy::too_many_arguments,
    reason = "keyword arguments, one for each property"
)]
pub fn encode_connect<'py>(
    py: Python<'py>,
    version: u8,
    client_id: &str,
    clean_start: bool,
    keep_alive_s: u16,
    username: Option<PyBackedStr>,
    password: Option<PyBackedBytes>,
    will: Option<&Bound<'py, Will>>,
    session_expiry_s: Option<u32>,
    receive_max: Option<NonZeroU16>,
    packet_bytes_max: Option<NonZeroU32>,
    topic_alias_max: Option<u16>,
    request_response_information: Option<bool>,
    request_problem_information: Option<bool>,
    user: Pairs,
    authentication_method: Option<PyBackedStr>,
    authentication_data: Option<PyBackedBytes>,
) -> PyResult<Bound<'py, PyBytes>> {
    let version = read_version(version)?;
    let user = slices(&user);
    let will = will.map(Bound::get);
    let will_user = will.map(|will| slices(&will.user)).unwrap_or_default();
    let packet = Packet::Connect(codec::Connect {
        version,
        clean_start,
        keep_alive_s,
        properties: codec::ConnectProperties {
            session_expiry_s,
            receive_max,
            packet_bytes_max,
            topic_alias_max,
            request_response_information,
            request_problem_information,
            user: codec::UserProperties::List(&user),
            authentication_method: authentication_method.as_deref(),
            authentication_data: authentication_data.as_deref(),
        },
        client_id,
        will: will.map(|will| codec::Will {
            qos: will.qos,
            retain: will.retain,
            topic: &will.topic,
            payload: &will.payload,
            properties: codec::WillProperties {
                delay_s: will.delay_s,
                payload_format: will.payload_is_text,
                message_expiry_s: will.message_expiry_s,
                content_type: will.content_type.as_deref(),
                response_topic: will.response_topic.as_deref(),
                correlation_data: will.correlation_data.as_deref(),
                user: codec::UserProperties::List(&will_user),
            },
        }),
        username: username.as_deref(),
        password: password.as_deref(),
    });
    write(py, version, &packet, WIRE_BYTES_MAX)
}

/// Writes a PUBLISH; raises `TooLarge` where it passes `packet_bytes_max`.
#[pyfunction]
#[pyo3(signature = (version, topic, payload, *, qos=0, retain=false, dup=false, packet_id=None,
    packet_bytes_max=WIRE_BYTES_MAX, payload_is_text=None, message_expiry_s=None,
    topic_alias=None, response_topic=None, correlation_data=None, user=Vec::new(),
    content_type=None))]
#[allow(
    clippy::too_many_arguments,
    reason = "keyword arguments, one for each property"
)]
pub fn encode_publish<'py>(
    py: Python<'py>,
    version: u8,
    topic: &str,
    payload: PyBackedBytes,
    qos: u8,
    retain: bool,
    dup: bool,
    packet_id: Option<NonZeroU16>,
    packet_bytes_max: u32,
    payload_is_text: Option<bool>,
    message_expiry_s: Option<u32>,
    topic_alias: Option<NonZeroU16>,
    response_topic: Option<PyBackedStr>,
    correlation_data: Option<PyBackedBytes>,
    user: Pairs,
    content_type: Option<PyBackedStr>,
) -> PyResult<Bound<'py, PyBytes>> {
    let qos = read_qos(qos)?;
    if (qos == QoS::AtMostOnce) != packet_id.is_none() {
        return Err(PyValueError::new_err(
            "a packet id belongs to QoS 1 and 2, and only there",
        ));
    }
    let user = slices(&user);
    let packet = Packet::Publish(codec::Publish {
        dup,
        qos,
        retain,
        topic,
        packet_id,
        properties: codec::PublishProperties {
            payload_format: payload_is_text,
            message_expiry_s,
            topic_alias,
            response_topic: response_topic.as_deref(),
            correlation_data: correlation_data.as_deref(),
            user: codec::UserProperties::List(&user),
            subscription_ids: codec::SubscriptionIds::default(),
            content_type: content_type.as_deref(),
        },
        payload: &payload,
    });
    write(py, read_version(version)?, &packet, packet_bytes_max)
}

/// Writes a PUBACK, PUBREC, PUBREL or PUBCOMP.
#[pyfunction]
#[pyo3(signature = (version, kind, packet_id, reason=0))]
pub fn encode_ack<'py>(
    py: Python<'py>,
    version: u8,
    kind: &str,
    packet_id: NonZeroU16,
    reason: u8,
) -> PyResult<Bound<'py, PyBytes>> {
    let ack = codec::Ack {
        packet_id,
        reason: read_reason(reason)?,
        reason_string: None,
        user: codec::UserProperties::default(),
    };
    let packet = match kind {
        "puback" => Packet::Puback(ack),
        "pubrec" => Packet::Pubrec(ack),
        "pubrel" => Packet::Pubrel(ack),
        "pubcomp" => Packet::Pubcomp(ack),
        _ => {
            return Err(PyValueError::new_err(
                "kind is puback, pubrec, pubrel or pubcomp",
            ))
        }
    };
    write(py, read_version(version)?, &packet, WIRE_BYTES_MAX)
}

/// Writes a SUBSCRIBE; each filter is (filter, qos, no_local, retain_as_published,
/// retain_handling 0 to 2), the last three without a meaning before 5.0.
#[pyfunction]
#[pyo3(signature = (version, packet_id, filters, *, subscription_id=None, user=Vec::new(),
    packet_bytes_max=WIRE_BYTES_MAX))]
pub fn encode_subscribe<'py>(
    py: Python<'py>,
    version: u8,
    packet_id: PacketId,
    filters: Vec<(PyBackedStr, u8, bool, bool, u8)>,
    subscription_id: Option<NonZeroU32>,
    user: Pairs,
    packet_bytes_max: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut lines = Vec::with_capacity(filters.len());
    for (filter, qos, no_local, retain_as_published, retain_handling) in &filters {
        lines.push(codec::SubscribeFilter {
            filter,
            qos: read_qos(*qos)?,
            no_local: *no_local,
            retain_as_published: *retain_as_published,
            retain_handling: match retain_handling {
                0 => RetainHandling::Send,
                1 => RetainHandling::SendIfNew,
                2 => RetainHandling::Never,
                _ => return Err(PyValueError::new_err("retain_handling is 0, 1 or 2")),
            },
        });
    }
    if lines.is_empty() {
        return Err(PyValueError::new_err(
            "a SUBSCRIBE names at least one filter",
        ));
    }
    let user = slices(&user);
    let packet = Packet::Subscribe(codec::Subscribe {
        packet_id,
        subscription_id,
        user: codec::UserProperties::List(&user),
        filters: codec::Filters::List(&lines),
    });
    write(py, read_version(version)?, &packet, packet_bytes_max)
}

/// Writes an UNSUBSCRIBE.
#[pyfunction]
#[pyo3(signature = (version, packet_id, filters, *, user=Vec::new(),
    packet_bytes_max=WIRE_BYTES_MAX))]
pub fn encode_unsubscribe<'py>(
    py: Python<'py>,
    version: u8,
    packet_id: PacketId,
    filters: Vec<PyBackedStr>,
    user: Pairs,
    packet_bytes_max: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let names: Vec<&str> = filters.iter().map(|filter| &**filter).collect();
    if names.is_empty() {
        return Err(PyValueError::new_err(
            "an UNSUBSCRIBE names at least one filter",
        ));
    }
    let user = slices(&user);
    let packet = Packet::Unsubscribe(codec::Unsubscribe {
        packet_id,
        user: codec::UserProperties::List(&user),
        filters: codec::Names::List(&names),
    });
    write(py, read_version(version)?, &packet, packet_bytes_max)
}

/// Writes a DISCONNECT; before 5.0 it says nothing but its name.
#[pyfunction]
#[pyo3(signature = (version, *, reason=0, session_expiry_s=None))]
pub fn encode_disconnect(
    py: Python<'_>,
    version: u8,
    reason: u8,
    session_expiry_s: Option<u32>,
) -> PyResult<Bound<'_, PyBytes>> {
    let packet = Packet::Disconnect(codec::Disconnect {
        reason: read_reason(reason)?,
        session_expiry_s,
        reason_string: None,
        user: codec::UserProperties::default(),
        server_reference: None,
    });
    write(py, read_version(version)?, &packet, WIRE_BYTES_MAX)
}

/// Writes an AUTH (MQTT 5.0 only).
#[pyfunction]
#[pyo3(signature = (reason, method, data=None))]
pub fn encode_auth<'py>(
    py: Python<'py>,
    reason: u8,
    method: &str,
    data: Option<PyBackedBytes>,
) -> PyResult<Bound<'py, PyBytes>> {
    let packet = Packet::Auth(codec::Auth {
        reason: read_reason(reason)?,
        method: Some(method),
        data: data.as_deref(),
        reason_string: None,
        user: codec::UserProperties::default(),
    });
    write(py, codec::Version::V5, &packet, WIRE_BYTES_MAX)
}

/// Writes a PINGREQ.
#[pyfunction]
pub fn encode_pingreq(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    write(py, codec::Version::V5, &Packet::Pingreq, WIRE_BYTES_MAX)
}

/// Says what is wrong with a topic name; None where it is valid.
#[pyfunction]
#[pyo3(signature = (topic, /))]
pub fn topic_fault(topic: &str) -> Option<String> {
    codec::topic_fault(topic).map(|fault| fault.to_string())
}

/// Says what is wrong with a topic filter, `$share/…` included; None where it is valid.
#[pyfunction]
#[pyo3(signature = (filter, /))]
pub fn filter_fault(filter: &str) -> Option<String> {
    codec::filter_fault(filter).map(|fault| fault.to_string())
}

/// The name of a reason code as MQTT 5.0 §2.4 gives it; None for a code that does not exist.
#[pyfunction]
#[pyo3(signature = (reason, /))]
pub fn reason_name(reason: u8) -> Option<String> {
    Reason::from_byte(reason).map(|reason| reason.to_string())
}

fn write<'py>(
    py: Python<'py>,
    version: codec::Version,
    packet: &Packet<'_>,
    packet_bytes_max: u32,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::new();
    codec::encode(version, packet, packet_bytes_max, &mut out)
        .map_err(|fault| fault::too_large(&fault, packet_bytes_max))?;
    Ok(PyBytes::new(py, &out))
}

fn slices(user: &Pairs) -> Vec<(&str, &str)> {
    user.iter()
        .map(|(name, value)| (&**name, &**value))
        .collect()
}

pub(crate) fn read_qos(qos: u8) -> PyResult<QoS> {
    QoS::from_bits(qos).ok_or_else(|| PyValueError::new_err("the QoS is 0, 1 or 2"))
}

fn read_reason(reason: u8) -> PyResult<Reason> {
    Reason::from_byte(reason).ok_or_else(|| PyValueError::new_err("there is no such reason code"))
}
