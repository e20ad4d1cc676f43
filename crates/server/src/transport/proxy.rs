//! The PROXY header: a balancer says for whom it speaks, before anything else is said.
//!
//! It is read only from networks that the operator named. It gives an address for events and
//! limits, never an identity: a balancer can err, and what it says is not proven by anybody.

use std::net::{IpAddr, SocketAddr};

use ppp::{v1, v2};

use super::{End, Received, Transport};

/// The longest header of version 1, bytes.
const V1_BYTES_MAX: usize = 107;

/// What every header of version 2 has: its signature, a version, a family and a length.
const V2_BYTES_MIN: usize = 16;

/// The most that may follow it: addresses and what balancers add, certificates' names among it.
const V2_MORE_BYTES_MAX: usize = 2048;

/// How version 1 begins.
const V1_PREFIX: &[u8] = b"PROXY ";

/// What is wrong with a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProxyFault {
    /// Something else came, MQTT itself perhaps.
    #[error("a PROXY header is required from this network, and none came")]
    Missing,
    /// It is longer than any balancer writes.
    #[error("the PROXY header is too long")]
    TooLong,
    /// It cannot be read.
    #[error("the PROXY header is malformed")]
    Malformed,
}

/// A connection whose PROXY header is still to come.
pub(crate) struct Proxy {
    behind: Transport,
    header: Vec<u8>,
    source: Option<SocketAddr>,
}

impl Proxy {
    /// Awaits a header, behind which `behind` begins.
    pub fn new(behind: Transport) -> Proxy {
        Proxy {
            behind,
            header: Vec::new(),
            source: None,
        }
    }

    /// What stands behind the header, and for whom the balancer speaks where it says so.
    pub fn into_parts(self) -> (Transport, Option<SocketAddr>) {
        (self.behind, self.source)
    }

    /// See [`Transport::receive`]; nothing behind the header is used.
    pub fn receive(&mut self, input: &[u8]) -> Result<Received, ProxyFault> {
        let mut taken = 0;
        loop {
            let step = self.wanted(&input[taken..])?.min(input.len() - taken);
            if step == 0 {
                return Ok(Received {
                    taken,
                    end: End::Blocked,
                });
            }
            self.header.extend_from_slice(&input[taken..taken + step]);
            taken += step;
            if self.is_whole() {
                self.source = source(&self.header)?;
                self.header = Vec::new();
                return Ok(Received {
                    taken,
                    end: End::Proxied,
                });
            }
        }
    }

    /// How many bytes the header surely still has; `input` is what follows.
    fn wanted(&self, input: &[u8]) -> Result<usize, ProxyFault> {
        let have = self.header.len();
        let start = [
            &self.header[..have.min(V2_BYTES_MIN)],
            &input[..input.len().min(V2_BYTES_MIN)],
        ]
        .concat();
        if start.is_empty() {
            return Ok(0);
        }
        if is_beginning(&start, v2::PROTOCOL_PREFIX) {
            return match more(&self.header) {
                None => Ok(V2_BYTES_MIN - have),
                Some(more) if more > V2_MORE_BYTES_MAX => Err(ProxyFault::TooLong),
                Some(more) => Ok(V2_BYTES_MIN + more - have),
            };
        }
        if !is_beginning(&start, V1_PREFIX) {
            return Err(ProxyFault::Missing);
        }
        let room = V1_BYTES_MAX - have;
        let line = input.iter().take(room).position(|&byte| byte == b'\n');
        match line {
            Some(place) => Ok(place + 1),
            None if input.len() >= room => Err(ProxyFault::TooLong),
            None => Ok(input.len()),
        }
    }

    fn is_whole(&self) -> bool {
        match self.header.first() {
            Some(b'P') => self.header.ends_with(b"\n"),
            _ => more(&self.header).is_some_and(|more| self.header.len() == V2_BYTES_MIN + more),
        }
    }
}

/// True where one of both is how the other one begins.
fn is_beginning(start: &[u8], prefix: &[u8]) -> bool {
    let length = start.len().min(prefix.len());
    start[..length] == prefix[..length]
}

/// What a header of version 2 says will follow its first 16 bytes.
fn more(header: &[u8]) -> Option<usize> {
    let length = header.get(V2_BYTES_MIN - 2..V2_BYTES_MIN)?;
    Some(usize::from(u16::from_be_bytes([length[0], length[1]])))
}

/// For whom the balancer speaks; `None` where it speaks for itself or cannot tell.
fn source(header: &[u8]) -> Result<Option<SocketAddr>, ProxyFault> {
    let source: Option<(IpAddr, u16)> = match header.first() {
        Some(b'P') => {
            let parsed = v1::Header::try_from(header).map_err(|_| ProxyFault::Malformed)?;
            if parsed.header.len() != header.len() {
                return Err(ProxyFault::Malformed);
            }
            match parsed.addresses {
                v1::Addresses::Tcp4(ip) => Some((ip.source_address.into(), ip.source_port)),
                v1::Addresses::Tcp6(ip) => Some((ip.source_address.into(), ip.source_port)),
                v1::Addresses::Unknown => None,
            }
        }
        _ => source_v2(header)?,
    };
    Ok(source.map(|(address, port)| SocketAddr::new(address.to_canonical(), port)))
}

fn source_v2(header: &[u8]) -> Result<Option<(IpAddr, u16)>, ProxyFault> {
    let parsed = v2::Header::try_from(header).map_err(|_| ProxyFault::Malformed)?;
    if parsed.command == v2::Command::Local {
        // The balancer looks after our health; what else it says has no meaning.
        return Ok(None);
    }
    let source = match parsed.addresses {
        v2::Addresses::IPv4(ip) => (ip.source_address.into(), ip.source_port),
        v2::Addresses::IPv6(ip) => (ip.source_address.into(), ip.source_port),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => return Ok(None),
    };
    // Nothing in these is used; but who writes them wrong may have written the rest wrong too.
    let whole = parsed.tlvs().all(|one| one.is_ok());
    match (parsed.protocol, whole) {
        (v2::Protocol::Stream, true) => Ok(Some(source)),
        (v2::Protocol::Unspecified, true) => Ok(None),
        _ => Err(ProxyFault::Malformed),
    }
}

#[cfg(test)]
#[path = "proxy_tests.rs"]
mod tests;
