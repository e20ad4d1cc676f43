//! Networks, as operators write them: an address and how many of its bits count.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// A network of either kind, such as `10.0.0.0/8` or `2001:db8::/32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Why a text names no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// There is no address before the slash.
    #[error("does not begin with an IP address")]
    Address,
    /// What stands behind the slash is no number of bits of such an address.
    #[error("does not end with a number of bits that fits")]
    Prefix,
    /// The address has bits beyond those that count: one of both is not meant.
    #[error("has bits beyond its prefix")]
    Beyond,
    /// An IPv4 address in IPv6 clothes, which no peer is taken for.
    #[error("is an IPv4 network; write it as one")]
    Mapped,
}

impl Network {
    /// True for an address of this network; IPv4 in IPv6 clothes counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let mask = mask(32, self.prefix) as u32;
                network.to_bits() == address.to_bits() & mask
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                network.to_bits() == address.to_bits() & mask(128, self.prefix)
            }
            _ => false,
        }
    }
}

/// The highest `prefix` of `bits` bits.
fn mask(bits: u8, prefix: u8) -> u128 {
    let all = u128::MAX >> (128 - u32::from(bits));
    // Shifting out every bit is no shift at all.
    all.checked_shl(u32::from(bits - prefix)).unwrap_or(0) & all
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Network, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Address)?;
        if address.to_canonical() != address {
            return Err(NetworkError::Mapped);
        }
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                digits.parse().map_err(|_| NetworkError::Prefix)?
            }
            Some(_) => return Err(NetworkError::Prefix),
        };
        if prefix > bits {
            return Err(NetworkError::Prefix);
        }
        let network = Network { address, prefix };
        match network.contains(address) {
            true => Ok(network),
            false => Err(NetworkError::Beyond),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        let network: Network = network.parse().unwrap();
        assert_eq!(network.to_string().parse(), Ok(network));
        network.contains(address.parse().unwrap())
    }

    #[test]
    fn networks_hold_their_own_and_nothing_else() {
        let table = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::/0", "::ffff:10.1.2.3", false),
            ("::/0", "2001:db8::1", true),
            ("2001:db8::/32", "2001:db8:ffff::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
            ("::1", "::1", true),
        ];
        for (network, address, expected) in table {
            assert_eq!(contains(network, address), expected, "{network} {address}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        use NetworkError::*;
        let table = [
            ("", Address),
            ("localhost", Address),
            ("10.0.0.0.0/8", Address),
            ("10.0.0.0/", Prefix),
            ("10.0.0.0/33", Prefix),
            ("10.0.0.0/+8", Prefix),
            ("10.0.0.0/-1", Prefix),
            ("10.0.0.0/999", Prefix),
            ("::/129", Prefix),
            ("10.0.0.1/8", Beyond),
            ("2001:db8::1/32", Beyond),
            ("::ffff:10.0.0.0/104", Mapped),
        ];
        for (text, error) in table {
            assert_eq!(text.parse::<Network>(), Err(error), "{text}");
        }
    }
}
