//! The simulator: a virtual clock, network, store and authenticator around the real engine.
//!
//! One number decides a whole run. [`run()`] makes a [`plan`] of it (shards, settings, who takes
//! part), then moves a [`world`] forward event by event: [`shell`] drives the shards as the server
//! does and watches the engine's door; [`stream`] carries bytes between it and the clients,
//! splitting, delaying and cutting; [`client`] and [`hostile`] are the peers. [`oracle`] knows what
//! was said and decides, without a line of the engine, what each client must and may see. The
//! first broken promise ends the run as a [`Violation`]; the same number shows it again.

mod chance;
mod client;
#[allow(dead_code, reason = "the tests of the store use the rest")]
mod disk;
mod feature;
mod gate;
mod history;
mod hostile;
mod law;
mod oracle;
mod plan;
mod run;
mod shell;
mod stream;
mod tell;
mod topic;
mod world;

pub use feature::{Feature, Features, ALL as ALL_FEATURES};
pub use history::{Invariant, Keep, Violation};
pub use run::{run, shrink, Failure, Report, Run};
