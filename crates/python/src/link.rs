//! A program of this process as a client of its own broker: batches in, batches out.

use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use casemate_codec::QoS;
use casemate_server::{self as server, Bundle, Draft, LinkError};
use pyo3::exceptions::{PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::encoder::read_qos;
use crate::fault::LinkLost;
use crate::packet::{publish_object, Publish};

/// One program's way to the broker; used by one thread at a time.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Link {
    inner: Mutex<Inner>,
    ender: UnixStream,
    /// A forked child has the same socket: what it said would stand between the words of its
    /// parent, and closing it would end the parent's link.
    process: u32,
}

struct Inner {
    link: server::Link,
    topic: LastTopic,
}

/// The topic of the last message as Python has it: many messages in a row have the same one.
#[derive(Default)]
struct LastTopic {
    text: String,
    object: Option<Py<PyString>>,
}

impl LastTopic {
    fn object(&mut self, py: Python<'_>, text: &str) -> Py<PyString> {
        match &self.object {
            Some(object) if self.text == text => object.clone_ref(py),
            _ => {
                let object = PyString::new(py, text).unbind();
                text.clone_into(&mut self.text);
                self.object = Some(object.clone_ref(py));
                object
            }
        }
    }
}

impl Link {
    /// Takes over a link that was opened.
    pub(crate) fn new(inner: server::Link) -> PyResult<Link> {
        let ender = inner.ender()?;
        Ok(Link {
            inner: Mutex::new(Inner {
                link: inner,
                topic: LastTopic::default(),
            }),
            ender,
            process: std::process::id(),
        })
    }

    fn is_own(&self) -> bool {
        self.process == std::process::id()
    }

    /// The link, unless another thread has it: waiting for that one would stop the interpreter.
    fn take(&self) -> PyResult<MutexGuard<'_, Inner>> {
        if !self.is_own() {
            let message = "this link belongs to the process that made this one";
            return Err(LinkLost::new_err((message, None::<u8>)));
        }
        self.inner
            .try_lock()
            .map_err(|_| PyRuntimeError::new_err("another thread uses this link"))
    }
}

#[pymethods]
impl Link {
    /// Publishes (topic, payload, qos, retain) in order and returns when each of QoS 1 and 2 is
    /// acknowledged: index and reason code of those that were refused. Raises `ValueError` before
    /// anything is sent, `LinkLost` where some may have been published.
    #[pyo3(signature = (messages, /))]
    fn publish(&self, py: Python<'_>, messages: &Bound<'_, PyList>) -> PyResult<Vec<(usize, u8)>> {
        let mut guard = self.take()?;
        let link = &mut guard.link;
        let mut bundle = Bundle::default();
        // Encoded where it stands: to own topics and payloads first would cost as much again.
        for (index, message) in messages.iter().enumerate() {
            add(link, &mut bundle, &message).map_err(|fault| fault.of_message(py, index))?;
        }
        let refused = py.detach(|| link.send(bundle)).map_err(lost)?;
        let refused = refused.into_iter();
        Ok(refused
            .map(|(index, reason)| (index, reason as u8))
            .collect())
    }

    /// Subscribes to pairs of filter and QoS: for each the reason code of the answer.
    #[pyo3(signature = (filters, /))]
    fn subscribe(&self, py: Python<'_>, filters: Vec<(PyBackedStr, u8)>) -> PyResult<Vec<u8>> {
        let mut lines = Vec::with_capacity(filters.len());
        for (filter, qos) in &filters {
            lines.push((&**filter, read_qos(*qos)?));
        }
        let mut guard = self.take()?;
        let link = &mut guard.link;
        let codes = py.detach(|| link.subscribe(&lines)).map_err(lost)?;
        Ok(codes.into_iter().map(|reason| reason as u8).collect())
    }

    /// Waits for messages, at most `timeout_s`, and gives those that are there, at most `count`.
    /// Those of the call before are acknowledged. A time of 0 reads what has arrived and does
    /// not wait.
    #[pyo3(signature = (count, timeout_s))]
    fn receive<'py>(
        &self,
        py: Python<'py>,
        count: usize,
        timeout_s: f64,
    ) -> PyResult<Vec<Bound<'py, Publish>>> {
        let timeout = Duration::try_from_secs_f64(timeout_s)
            .map_err(|_| PyValueError::new_err("timeout_s is a number of seconds"))?;
        let mut guard = self.take()?;
        let Inner { link, topic } = &mut *guard;
        let mut messages = Vec::new();
        loop {
            // To leave the interpreter and to come back is dear where another thread wants it, and
            // right where a socket is written or read: even what does not wait takes its time.
            let is_ready = link.is_ready().map_err(lost)?
                || py
                    .detach(|| match timeout.is_zero() {
                        true => link.look(),
                        false => link.wait(timeout),
                    })
                    .map_err(lost)?;
            if !is_ready {
                return Ok(messages);
            }
            link.take(count, |publish| {
                let topic = topic.object(py, publish.topic);
                messages.push(Bound::new(py, publish_object(py, publish, topic))?);
                Ok::<(), Failed>(())
            })?;
            // What is there may be words of the protocol alone, which were answered: nobody waits
            // for the socket while anything that was read or is to be written is left.
            if !messages.is_empty() || !timeout.is_zero() {
                return Ok(messages);
            }
        }
    }

    /// Says a word where the broker would soon want one; seconds until the next is due, None where
    /// none ever is.
    fn keep_alive(&self) -> PyResult<Option<f64>> {
        let due = self.take()?.link.keep_alive().map_err(lost)?;
        Ok(due.map(|due| due.as_secs_f64()))
    }

    /// The descriptor that may be read when there is more to receive.
    fn fileno(&self) -> i32 {
        self.ender.as_raw_fd()
    }

    /// True where the broker may have ended the link for want of a word.
    fn is_silent(&self) -> PyResult<bool> {
        Ok(self.take()?.link.is_silent())
    }

    /// Ends the link; a call that waits in another thread raises `LinkLost`. In a forked child it
    /// does nothing.
    fn close(&self) {
        if self.is_own() {
            // It may have ended already.
            let _ = self.ender.shutdown(Shutdown::Both);
        }
    }
}

/// What is wrong with a message that a program wants to publish.
enum Unfit {
    /// It is no message.
    Shape,
    /// One of its parts is not what it should be.
    Part(PyErr),
    /// The broker would not take it.
    Unsayable(LinkError),
}

impl Unfit {
    /// The exception, which says which message it is.
    fn of_message(self, py: Python<'_>, index: usize) -> PyErr {
        match self {
            Unfit::Shape => PyTypeError::new_err(format!(
                "message {index} is no tuple of topic, payload, and at most QoS and retain"
            )),
            Unfit::Part(error) if error.is_instance_of::<PyTypeError>(py) => {
                PyTypeError::new_err(format!("message {index}: {}", error.value(py)))
            }
            Unfit::Part(error) => PyValueError::new_err(format!("message {index}: {error}")),
            Unfit::Unsayable(error) => PyValueError::new_err(format!("message {index}: {error}")),
        }
    }
}

impl From<PyErr> for Unfit {
    fn from(error: PyErr) -> Unfit {
        Unfit::Part(error)
    }
}

/// Encodes a message: (topic, payload), (topic, payload, qos) or (topic, payload, qos, retain).
fn add(link: &server::Link, bundle: &mut Bundle, message: &Bound<'_, PyAny>) -> Result<(), Unfit> {
    let message = message.cast::<PyTuple>().map_err(|_| Unfit::Shape)?;
    let parts = message.len();
    if !(2..=4).contains(&parts) {
        return Err(Unfit::Shape);
    }
    let topic = message.get_borrowed_item(0)?;
    let topic = topic.cast::<PyString>().map_err(PyErr::from)?;
    let payload = message.get_borrowed_item(1)?;
    let qos = match parts {
        2 => QoS::AtMostOnce,
        _ => read_qos(message.get_borrowed_item(2)?.extract()?)?,
    };
    let retain = parts == 4 && message.get_borrowed_item(3)?.extract()?;
    let draft = |payload| {
        let topic = topic.to_str()?;
        Ok::<_, PyErr>(Draft {
            topic,
            payload,
            qos,
            retain,
        })
    };
    let added = match payload.cast::<PyBytes>() {
        Ok(payload) => link.add(bundle, &draft(payload.as_bytes())?),
        // A bytearray may change, and is copied.
        Err(_) => {
            let payload: PyBackedBytes = payload.extract().map_err(PyErr::from)?;
            link.add(bundle, &draft(&payload)?)
        }
    };
    added.map_err(Unfit::Unsayable)
}

/// What may fail between bytes and an object.
struct Failed(PyErr);

impl From<LinkError> for Failed {
    fn from(error: LinkError) -> Failed {
        Failed(lost(error))
    }
}

impl From<PyErr> for Failed {
    fn from(error: PyErr) -> Failed {
        Failed(error)
    }
}

impl From<Failed> for PyErr {
    fn from(failed: Failed) -> PyErr {
        failed.0
    }
}

/// The exception of a link that cannot go on.
pub(crate) fn lost(error: LinkError) -> PyErr {
    match error {
        LinkError::Unsayable(_) => PyValueError::new_err(error.to_string()),
        LinkError::Ended(reason) => LinkLost::new_err((error.to_string(), Some(reason as u8))),
        _ => LinkLost::new_err((error.to_string(), None::<u8>)),
    }
}
