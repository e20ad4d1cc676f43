//! Is somebody welcome who has proven who it is? Asked of a program that wants to be asked.

use std::net::SocketAddr;

use casemate_codec::Version;
use casemate_engine::Grant;

use crate::question::{Asker, QuestionId, Questions};

/// What a client has proven itself by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenBy {
    /// A client certificate.
    Certificate,
    /// A password.
    Password,
    /// Nothing: its listener lets in whoever comes.
    Nothing,
}

/// How a client came, as far as its CONNECT.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// Name of the listener.
    pub listener: String,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// As the client wrote it; may be empty.
    pub client_id: String,
    /// The version of MQTT it speaks.
    pub version: Version,
    /// What it has proven itself by.
    pub proven_by: ProvenBy,
}

/// May this one come in?
#[derive(Clone, Debug)]
pub struct Admission {
    /// To be returned with the answer.
    pub id: u64,
    /// Name of the listener.
    pub listener: String,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// As the client wrote it; may be empty.
    pub client_id: String,
    /// Who it has proven to be.
    pub name: String,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// What it has proven itself by.
    pub proven_by: ProvenBy,
    /// The version of MQTT it speaks.
    pub version: Version,
}

/// Somebody proven who waits to be let in.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Whom to tell.
    pub asker: Asker,
    /// What it gets where it is welcome.
    pub grant: Box<Grant>,
}

/// Those who wait.
pub(crate) type Admissions = Questions<Admission, Candidate>;

impl Admission {
    /// The question about somebody who came like this and is granted that.
    pub(crate) fn new(id: QuestionId, visit: Visit, grant: &Grant) -> Admission {
        let roles = grant.principal.roles.iter();
        Admission {
            id,
            listener: visit.listener,
            address: visit.address,
            client_id: visit.client_id,
            name: grant.principal.name.to_string(),
            roles: roles.map(|role| role.to_string()).collect(),
            proven_by: visit.proven_by,
            version: visit.version,
        }
    }
}
