//! PyO3 translation of the server, the codec, the events and the load generator; no decisions.
//!
//! The module is `casemate._engine`; `python/casemate/native.py` alone imports it. Each file here
//! is one door of Rust in Python's words:
//!
//! - [`packet`]: what a server sends, as frozen objects; [`decoder`] makes them out of bytes.
//! - [`encoder`]: what a client sends, as functions to bytes.
//! - [`options`]: keyword arguments and tuples to the server's options, accounts and policy.
//! - [`server`]: the server; each call that may wait leaves the interpreter first.
//! - [`link`]: a program of this process as a client, in batches.
//! - [`load`]: the load generator, which runs while the interpreter does something else.
//! - [`report`]: what the server tells: events and counters.
//! - [`store`]: where what must be kept is kept, and what is done to it by hand.
//! - [`transfer`]: what is kept as dictionaries, out of a store and into one.
//! - [`fault`]: the exceptions.

mod decoder;
mod encoder;
mod fault;
mod link;
mod load;
mod options;
mod packet;
mod report;
mod server;
mod store;
mod transfer;

use pyo3::prelude::*;

/// One allocator for the whole process: the data plane's, because it is the one that hurts.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The Rust half of casemate: codec, engine and server.
#[pymodule(gil_used = false)]
mod _engine {
    #[pymodule_export]
    use crate::decoder::Decoder;
    #[pymodule_export]
    use crate::encoder::{
        encode_ack, encode_auth, encode_connect, encode_disconnect, encode_pingreq, encode_publish,
        encode_subscribe, encode_unsubscribe, filter_fault, reason_name, topic_fault, Will,
    };
    #[pymodule_export]
    use crate::fault::{
        LinkLost, LoadFailed, Malformed, PolicyRefused, StartRefused, StoreRefused, TooLarge,
    };
    #[pymodule_export]
    use crate::link::Link;
    #[pymodule_export]
    use crate::load::{run_load, Distribution, LoadReport, LoadStanding, LoadTarget};
    #[pymodule_export]
    use crate::options::{Listener, Policy};
    #[pymodule_export]
    use crate::packet::{Ack, Auth, Connack, Disconnect, Pingresp, Publish, Suback, Unsuback};
    #[pymodule_export]
    use crate::report::Event;
    #[pymodule_export]
    use crate::server::{prime, Admission, Question, Server};
    #[pymodule_export]
    use crate::store::{Store, StoreCompacted, StoreCopy, StoreHealth, StoreReport, StoreSegment};

    #[pymodule_export]
    use crate::transfer::StoreFilling;

    use super::*;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("VERSION", env!("CARGO_PKG_VERSION"))
    }
}
