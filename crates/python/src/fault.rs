//! The exceptions that cross the border; `native.py` turns them into those of `errors.py`.

use casemate_codec as codec;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::PyErr;

create_exception!(
    casemate._engine,
    Malformed,
    PyException,
    "Received bytes are no packet. Arguments: message, reason code."
);
create_exception!(
    casemate._engine,
    TooLarge,
    PyException,
    "A packet passes the receiver's maximum. Arguments: message, packet bytes, maximum in bytes."
);
create_exception!(
    casemate._engine,
    PolicyRefused,
    PyException,
    "A policy cannot be compiled. Arguments: message, role, place."
);
create_exception!(
    casemate._engine,
    StartRefused,
    PyException,
    "The server cannot start. Arguments: message, kind, listener or None."
);

create_exception!(
    casemate._engine,
    StoreRefused,
    PyException,
    "A store cannot be used. Arguments: message, kind, what to do."
);

create_exception!(
    casemate._engine,
    LinkLost,
    PyException,
    "The link of a program to its broker is gone. Arguments: message, reason code or None."
);

create_exception!(
    casemate._engine,
    LoadFailed,
    PyException,
    "A run of the load generator did not come to its report. Arguments: message."
);

/// Bytes that are no packet.
pub(crate) fn malformed(fault: codec::Malformed) -> PyErr {
    Malformed::new_err((fault.to_string(), fault.reason() as u8))
}

/// A packet that the receiver would not take, or that no packet can carry.
pub(crate) fn too_large(fault: &codec::TooLarge, packet_bytes_max: u32) -> PyErr {
    if fault.packet_bytes == usize::MAX {
        return PyValueError::new_err("a field is too long for any MQTT packet, or is missing");
    }
    let message = format!(
        "a packet of {} bytes passes the maximum of {packet_bytes_max} bytes",
        fault.packet_bytes
    );
    TooLarge::new_err((message, fault.packet_bytes, packet_bytes_max))
}
