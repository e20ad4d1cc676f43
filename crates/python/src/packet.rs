//! What a server sends, as frozen objects that own their bytes.

use casemate_codec as codec;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};

/// User properties as Python sees them: pairs in order.
type Pairs = Vec<(String, String)>;

/// CONNACK; a property that was not sent is None.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Connack {
    pub session_present: bool,
    pub reason: u8,
    pub session_expiry_s: Option<u32>,
    pub receive_max: Option<u16>,
    pub qos_max: Option<u8>,
    pub retain_available: Option<bool>,
    pub packet_bytes_max: Option<u32>,
    pub assigned_client_id: Option<String>,
    pub topic_alias_max: Option<u16>,
    pub reason_string: Option<String>,
    pub user: Pairs,
    pub wildcard_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub server_keep_alive_s: Option<u16>,
    pub response_information: Option<String>,
    pub server_reference: Option<String>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Py<PyBytes>>,
}

/// PUBLISH; a property that was not sent is None.
///
/// A program inside takes millions of them a second, most without properties: those stand apart,
/// so that a message is made, kept and dropped at the cost of what it has.
#[pyclass(frozen, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Publish {
    #[pyo3(get)]
    pub dup: bool,
    #[pyo3(get)]
    pub qos: u8,
    #[pyo3(get)]
    pub retain: bool,
    /// Empty where only an alias was sent.
    #[pyo3(get)]
    pub topic: Py<PyString>,
    #[pyo3(get)]
    pub packet_id: Option<u16>,
    #[pyo3(get)]
    pub payload: Py<PyBytes>,
    properties: Option<Box<Sent>>,
}

/// Properties of which at least one was sent.
struct Sent {
    payload_is_text: Option<bool>,
    message_expiry_s: Option<u32>,
    topic_alias: Option<u16>,
    response_topic: Option<String>,
    correlation_data: Option<Py<PyBytes>>,
    user: Pairs,
    subscription_ids: Vec<u32>,
    content_type: Option<String>,
}

#[pymethods]
impl Publish {
    #[getter]
    fn payload_is_text(&self) -> Option<bool> {
        self.sent()?.payload_is_text
    }

    #[getter]
    fn message_expiry_s(&self) -> Option<u32> {
        self.sent()?.message_expiry_s
    }

    #[getter]
    fn topic_alias(&self) -> Option<u16> {
        self.sent()?.topic_alias
    }

    #[getter]
    fn response_topic(&self) -> Option<&str> {
        self.sent()?.response_topic.as_deref()
    }

    #[getter]
    fn correlation_data(&self, py: Python<'_>) -> Option<Py<PyBytes>> {
        let data = self.sent()?.correlation_data.as_ref()?;
        Some(data.clone_ref(py))
    }

    #[getter]
    fn user(&self) -> Pairs {
        self.sent()
            .map(|sent| sent.user.clone())
            .unwrap_or_default()
    }

    #[getter]
    fn subscription_ids(&self) -> Vec<u32> {
        let ids = self.sent().map(|sent| sent.subscription_ids.clone());
        ids.unwrap_or_default()
    }

    #[getter]
    fn content_type(&self) -> Option<&str> {
        self.sent()?.content_type.as_deref()
    }
}

impl Publish {
    fn sent(&self) -> Option<&Sent> {
        self.properties.as_deref()
    }
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP, told apart by `kind`.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Ack {
    /// `puback`, `pubrec`, `pubrel` or `pubcomp`.
    pub kind: &'static str,
    pub packet_id: u16,
    pub reason: u8,
    pub reason_string: Option<String>,
    pub user: Pairs,
}

/// SUBACK: one reason code for each filter.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Suback {
    pub packet_id: u16,
    pub codes: Py<PyTuple>,
    pub reason_string: Option<String>,
    pub user: Pairs,
}

/// UNSUBACK: one reason code for each filter, none before 5.0.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Unsuback {
    pub packet_id: u16,
    pub codes: Py<PyTuple>,
    pub reason_string: Option<String>,
    pub user: Pairs,
}

/// PINGRESP.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Pingresp;

/// DISCONNECT from a server.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Disconnect {
    pub reason: u8,
    pub reason_string: Option<String>,
    pub user: Pairs,
    pub server_reference: Option<String>,
}

/// AUTH.
#[pyclass(frozen, get_all, module = "casemate._engine")]
#[allow(missing_docs)]
pub struct Auth {
    pub reason: u8,
    pub method: Option<String>,
    pub data: Option<Py<PyBytes>>,
    pub reason_string: Option<String>,
    pub user: Pairs,
}

/// Makes the object of a decoded packet; None for what a server never sends, which `decode` with
/// the server as sender has refused before.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    packet: &codec::Packet<'_>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    use codec::Packet;
    let object = match packet {
        Packet::Connack(connack) => Bound::new(py, connack_object(py, connack))?.into_any(),
        Packet::Publish(publish) => {
            let topic = PyString::new(py, publish.topic).unbind();
            Bound::new(py, publish_object(py, publish, topic))?.into_any()
        }
        Packet::Puback(ack) => Bound::new(py, ack_object("puback", ack))?.into_any(),
        Packet::Pubrec(ack) => Bound::new(py, ack_object("pubrec", ack))?.into_any(),
        Packet::Pubrel(ack) => Bound::new(py, ack_object("pubrel", ack))?.into_any(),
        Packet::Pubcomp(ack) => Bound::new(py, ack_object("pubcomp", ack))?.into_any(),
        Packet::Suback(suback) => {
            let object = Suback {
                packet_id: suback.packet_id.get(),
                codes: codes(py, suback.codes)?,
                reason_string: owned(suback.reason_string),
                user: pairs(suback.user),
            };
            Bound::new(py, object)?.into_any()
        }
        Packet::Unsuback(unsuback) => {
            let object = Unsuback {
                packet_id: unsuback.packet_id.get(),
                codes: codes(py, unsuback.codes)?,
                reason_string: owned(unsuback.reason_string),
                user: pairs(unsuback.user),
            };
            Bound::new(py, object)?.into_any()
        }
        Packet::Pingresp => Bound::new(py, Pingresp)?.into_any(),
        Packet::Disconnect(disconnect) => {
            let object = Disconnect {
                reason: disconnect.reason as u8,
                reason_string: owned(disconnect.reason_string),
                user: pairs(disconnect.user),
                server_reference: owned(disconnect.server_reference),
            };
            Bound::new(py, object)?.into_any()
        }
        Packet::Auth(auth) => {
            let object = Auth {
                reason: auth.reason as u8,
                method: owned(auth.method),
                data: bytes(py, auth.data),
                reason_string: owned(auth.reason_string),
                user: pairs(auth.user),
            };
            Bound::new(py, object)?.into_any()
        }
        Packet::Connect(_) | Packet::Subscribe(_) | Packet::Unsubscribe(_) | Packet::Pingreq => {
            return Ok(None)
        }
    };
    Ok(Some(object))
}

fn connack_object(py: Python<'_>, connack: &codec::Connack<'_>) -> Connack {
    let properties = &connack.properties;
    Connack {
        session_present: connack.session_present,
        reason: connack.reason as u8,
        session_expiry_s: properties.session_expiry_s,
        receive_max: properties.receive_max.map(Into::into),
        qos_max: properties.qos_max.map(|qos| qos as u8),
        retain_available: properties.retain_available,
        packet_bytes_max: properties.packet_bytes_max.map(Into::into),
        assigned_client_id: owned(properties.assigned_client_id),
        topic_alias_max: properties.topic_alias_max,
        reason_string: owned(properties.reason_string),
        user: pairs(properties.user),
        wildcard_available: properties.wildcard_available,
        subscription_ids_available: properties.subscription_ids_available,
        shared_available: properties.shared_available,
        server_keep_alive_s: properties.server_keep_alive_s,
        response_information: owned(properties.response_information),
        server_reference: owned(properties.server_reference),
        authentication_method: owned(properties.authentication_method),
        authentication_data: bytes(py, properties.authentication_data),
    }
}

/// Makes the object of a PUBLISH, whose topic Python has already.
pub(crate) fn publish_object(
    py: Python<'_>,
    publish: &codec::Publish<'_>,
    topic: Py<PyString>,
) -> Publish {
    Publish {
        dup: publish.dup,
        qos: publish.qos as u8,
        retain: publish.retain,
        topic,
        packet_id: publish.packet_id.map(Into::into),
        payload: PyBytes::new(py, publish.payload).unbind(),
        properties: sent(py, &publish.properties),
    }
}

fn sent(py: Python<'_>, properties: &codec::PublishProperties<'_>) -> Option<Box<Sent>> {
    let is_any_sent = properties.payload_format.is_some()
        || properties.message_expiry_s.is_some()
        || properties.topic_alias.is_some()
        || properties.response_topic.is_some()
        || properties.correlation_data.is_some()
        || properties.user.iter().next().is_some()
        || properties.subscription_ids.iter().next().is_some()
        || properties.content_type.is_some();
    if !is_any_sent {
        return None;
    }
    Some(Box::new(Sent {
        payload_is_text: properties.payload_format,
        message_expiry_s: properties.message_expiry_s,
        topic_alias: properties.topic_alias.map(Into::into),
        response_topic: owned(properties.response_topic),
        correlation_data: bytes(py, properties.correlation_data),
        user: pairs(properties.user),
        subscription_ids: properties.subscription_ids.iter().collect(),
        content_type: owned(properties.content_type),
    }))
}

fn ack_object(kind: &'static str, ack: &codec::Ack<'_>) -> Ack {
    Ack {
        kind,
        packet_id: ack.packet_id.get(),
        reason: ack.reason as u8,
        reason_string: owned(ack.reason_string),
        user: pairs(ack.user),
    }
}

fn owned(text: Option<&str>) -> Option<String> {
    text.map(str::to_owned)
}

fn bytes(py: Python<'_>, bytes: Option<&[u8]>) -> Option<Py<PyBytes>> {
    bytes.map(|bytes| PyBytes::new(py, bytes).unbind())
}

fn pairs(user: codec::UserProperties<'_>) -> Pairs {
    user.iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn codes(py: Python<'_>, codes: codec::Codes<'_>) -> PyResult<Py<PyTuple>> {
    let list: Vec<u8> = codes.iter().map(|reason| reason as u8).collect();
    Ok(PyTuple::new(py, list)?.unbind())
}
