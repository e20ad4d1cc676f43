//! Where a peer is, in the few bytes that nearly all addresses need.

use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address of a peer, or none; sixteen bytes, where an optional `SocketAddr` takes 32.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PeerAddress {
    /// Of a transport without addresses.
    #[default]
    None,
    /// IPv4.
    V4(SocketAddrV4),
    /// IPv6 with flow and scope; boxed because every connection pays for the largest kind.
    V6(Box<SocketAddrV6>),
}

impl PeerAddress {
    /// As everybody else writes it.
    pub fn get(&self) -> Option<SocketAddr> {
        match self {
            PeerAddress::None => None,
            PeerAddress::V4(address) => Some(SocketAddr::V4(*address)),
            PeerAddress::V6(address) => Some(SocketAddr::V6(**address)),
        }
    }
}

impl From<Option<SocketAddr>> for PeerAddress {
    fn from(address: Option<SocketAddr>) -> PeerAddress {
        match address {
            None => PeerAddress::None,
            Some(SocketAddr::V4(address)) => PeerAddress::V4(address),
            Some(SocketAddr::V6(address)) => PeerAddress::V6(Box::new(address)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn every_address_comes_back_as_it_was() {
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 1883, 7, 2);
        let mut addresses: Vec<Option<SocketAddr>> = ["127.0.0.1:1", "[::1]:65535", "[::]:0"]
            .iter()
            .map(|text| Some(text.parse().unwrap()))
            .collect();
        addresses.extend([None, Some(SocketAddr::V6(scoped))]);
        for address in addresses {
            assert_eq!(PeerAddress::from(address).get(), address);
        }
        assert!(size_of::<PeerAddress>() <= 16);
    }
}
