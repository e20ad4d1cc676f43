//! Bytes from a server to packets.

use std::sync::Mutex;

use casemate_codec::{decode, frame, Malformed, Sender, Version};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::fault;
use crate::packet::to_python;

/// Cuts a stream of bytes from a server into packets.
///
/// It keeps at most one incomplete packet, so at most `packet_bytes_max` bytes.
#[pyclass(frozen, module = "casemate._engine")]
pub struct Decoder {
    version: Version,
    packet_bytes_max: u32,
    state: Mutex<State>,
}

/// What is left over between two calls.
#[derive(Default)]
struct State {
    /// An incomplete packet.
    tail: Vec<u8>,
    /// Why nothing more is read.
    fault: Option<Malformed>,
}

#[pymethods]
impl Decoder {
    /// Starts with no bytes. `packet_bytes_max` is what the client announced, in bytes.
    #[new]
    #[pyo3(signature = (version, packet_bytes_max))]
    fn new(version: u8, packet_bytes_max: u32) -> PyResult<Decoder> {
        Ok(Decoder {
            version: read_version(version)?,
            packet_bytes_max,
            state: Mutex::default(),
        })
    }

    /// Takes bytes in; returns the packets that they complete, in order.
    ///
    /// Bytes that are no packet end the list and raise at the next call, `check` included, so that
    /// what came before them is not lost.
    #[pyo3(signature = (data, /))]
    fn feed<'py>(&self, py: Python<'py>, data: &[u8]) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(fault) = state.fault {
            return Err(fault::malformed(fault));
        }
        let mut packets = Vec::new();
        if state.tail.is_empty() {
            let used = self.cut(py, data, &mut state.fault, &mut packets)?;
            state.tail.extend_from_slice(&data[used..]);
        } else {
            let mut tail = std::mem::take(&mut state.tail);
            tail.extend_from_slice(data);
            let used = self.cut(py, &tail, &mut state.fault, &mut packets)?;
            tail.drain(..used);
            state.tail = tail;
        }
        if state.tail.is_empty() {
            // An idle connection holds no buffer.
            state.tail = Vec::new();
        }
        Ok(packets)
    }

    /// Raises `Malformed` where the bytes taken in so far cannot go on.
    fn check(&self) -> PyResult<()> {
        let state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        state
            .fault
            .map_or(Ok(()), |fault| Err(fault::malformed(fault)))
    }
}

impl Decoder {
    /// Decodes whole packets from the front of `input`; returns how many bytes they took.
    fn cut<'py>(
        &self,
        py: Python<'py>,
        input: &[u8],
        fault: &mut Option<Malformed>,
        packets: &mut Vec<Bound<'py, PyAny>>,
    ) -> PyResult<usize> {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            let header = match frame(rest, self.packet_bytes_max) {
                Ok(Some(header)) if header.packet_bytes() <= rest.len() => header,
                Ok(_) => return Ok(used),
                Err(found) => {
                    *fault = Some(found);
                    return Ok(input.len());
                }
            };
            let body = &rest[header.header_bytes..header.packet_bytes()];
            match decode(self.version, Sender::Server, header, body) {
                Ok(packet) => packets.extend(to_python(py, &packet)?),
                Err(found) => {
                    *fault = Some(found);
                    return Ok(input.len());
                }
            }
            used += header.packet_bytes();
        }
    }
}

/// Reads a protocol version as CONNECT numbers it.
pub(crate) fn read_version(version: u8) -> PyResult<Version> {
    match version {
        3 => Ok(Version::V31),
        4 => Ok(Version::V311),
        5 => Ok(Version::V5),
        _ => Err(PyValueError::new_err("the protocol version is 3, 4 or 5")),
    }
}
