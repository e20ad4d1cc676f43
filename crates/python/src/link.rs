//! A program of this process as a client of its own broker: batches in, batches out.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use casemate_server::{self as server, Draft, LinkError};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};

use crate::encoder::read_qos;
use crate::fault::LinkLost;
use crate::packet::{publish_object, Publish};

/// A message as Python writes it: topic, payload, QoS, retain.
type DraftTuple = (PyBackedStr, PyBackedBytes, u8, bool);

/// One program's way to the broker; used by one thread at a time.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Link {
    inner: Mutex<server::Link>,
    ender: UnixStream,
    /// A forked child has the same socket: what it said would stand between the words of its
    /// parent, and closing it would end the parent's link.
    process: u32,
}

impl Link {
    /// Takes over a link that was opened.
    pub(crate) fn new(inner: server::Link) -> PyResult<Link> {
        let ender = inner.ender()?;
        Ok(Link {
            inner: Mutex::new(inner),
            ender,
            process: std::process::id(),
        })
    }

    fn is_own(&self) -> bool {
        self.process == std::process::id()
    }

    /// The link, unless another thread has it: waiting for that one would stop the interpreter.
    fn take(&self) -> PyResult<MutexGuard<'_, server::Link>> {
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
    fn publish(&self, py: Python<'_>, messages: Vec<DraftTuple>) -> PyResult<Vec<(usize, u8)>> {
        let mut drafts = Vec::with_capacity(messages.len());
        for (topic, payload, qos, retain) in &messages {
            drafts.push(Draft {
                topic,
                payload,
                qos: read_qos(*qos)?,
                retain: *retain,
            });
        }
        let mut guard = self.take()?;
        let link = &mut *guard;
        let refused = py.detach(|| link.publish(&drafts)).map_err(lost)?;
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
        let link = &mut *guard;
        let codes = py.detach(|| link.subscribe(&lines)).map_err(lost)?;
        Ok(codes.into_iter().map(|reason| reason as u8).collect())
    }

    /// Waits for messages, at most `timeout_s`, and gives those that are there, at most `count`.
    /// Those of the call before are acknowledged.
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
        let link = &mut *guard;
        let mut messages = Vec::new();
        if py.detach(|| link.wait(timeout)).map_err(lost)? {
            link.take(count, |publish| {
                messages.push(Bound::new(py, publish_object(py, publish))?);
                Ok::<(), Failed>(())
            })?;
        }
        Ok(messages)
    }

    /// True where the broker may have ended the link for want of a word.
    fn is_silent(&self) -> PyResult<bool> {
        Ok(self.take()?.is_silent())
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
