//! Who a client has proven to be.

use std::fmt;

/// A proven identity. Two principals of different realms are different, whatever their names.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    /// Tenant, 0 where there is only one.
    pub tenant: u32,
    /// Which authority vouches for the name (`account`, `anonymous`, an issuer's name).
    pub realm: Box<str>,
    /// The name that `%u` stands for.
    pub name: Box<str>,
    /// Names of the roles of the policy.
    pub roles: Vec<Box<str>>,
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.realm, self.name)
    }
}

/// A client certificate that TLS verified against the listener's trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// SHA-256 of the DER.
    pub fingerprint: [u8; 32],
    /// The DER of the leaf.
    pub der: Vec<u8>,
}

/// Bytes that must not be shown: passwords, tokens, proofs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes a copy out of the packet.
    pub fn new(bytes: &[u8]) -> Secret {
        Secret(bytes.into())
    }

    /// The bytes, for the one who verifies them.
    pub fn reveal(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}
