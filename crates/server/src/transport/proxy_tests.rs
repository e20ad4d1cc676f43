//! Tables of headers, cut anywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;
use crate::transport::Plain;

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2: command, family and protocol, what follows.
fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x1F, 0x90, 0x22, 0xB3];

fn ipv6() -> Vec<u8> {
    let mut body = vec![0x20, 1, 0x0D, 0xB8];
    body.extend([0; 11]);
    body.push(7);
    body.extend([0; 16]);
    body.extend([0x1F, 0x90, 0x22, 0xB3]);
    body
}

/// The address, and how many bytes were left behind the header.
type Outcome = Result<(Option<SocketAddr>, usize), ProxyFault>;

/// What comes of bytes in pieces of this size; `None` where more is awaited.
fn read(bytes: &[u8], step: usize) -> Option<Outcome> {
    let mut proxy = Proxy::new(Transport::Plain(Plain::default()));
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + step);
        match proxy.receive(&bytes[at..end]) {
            Err(fault) => return Some(Err(fault)),
            Ok(received) => {
                at += received.taken;
                if received.end == End::Proxied {
                    return Some(Ok((proxy.into_parts().1, bytes.len() - at)));
                }
                assert_eq!(at, end, "what is not used would be lost");
            }
        }
    }
    None
}

#[test]
fn headers_give_an_address_however_they_are_cut() {
    let tlv = [&IPV4[..], &[4, 0, 3, 1, 2, 3], &[0x20, 0, 0]].concat();
    let table: [(Vec<u8>, Option<&str>); 13] = [
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 8883\r\n".to_vec(),
            Some("192.0.2.7:8080"),
        ),
        (
            b"PROXY TCP6 2001:db8::7 2001:db8::1 8080 8883\r\n".to_vec(),
            Some("[2001:db8::7]:8080"),
        ),
        (
            b"PROXY TCP6 ::ffff:192.0.2.7 ::1 8080 8883\r\n".to_vec(),
            Some("192.0.2.7:8080"),
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), None),
        (b"PROXY UNKNOWN what ever it says\r\n".to_vec(), None),
        (v2(0x21, 0x11, &IPV4), Some("192.0.2.7:8080")),
        (v2(0x21, 0x11, &tlv), Some("192.0.2.7:8080")),
        (v2(0x21, 0x21, &ipv6()), Some("[2001:db8::7]:8080")),
        (v2(0x21, 0x31, &[b'x'; 216]), None),
        (v2(0x21, 0x00, b""), None),
        (v2(0x21, 0x10, &IPV4), None),
        (v2(0x20, 0x00, b""), None),
        (v2(0x20, 0x11, &[&IPV4[..], b"junk"].concat()), None),
    ];
    for (header, address) in table {
        let address = address.map(|text| text.parse().unwrap());
        let bytes = [&header[..], b"\x10and more\r\n"].concat();
        for step in 1..=bytes.len() {
            assert_eq!(
                read(&bytes, step),
                Some(Ok((address, 11))),
                "{header:x?}, step {step}"
            );
        }
        // A truncated header is awaited, for as long as the deadline lasts.
        for length in 0..header.len() {
            assert_eq!(read(&header[..length], 3), None, "{:x?}", &header[..length]);
        }
    }
}

#[test]
fn what_is_no_header_is_refused_however_it_is_cut() {
    use ProxyFault::*;
    let long = vec![0; V2_MORE_BYTES_MAX + 1];
    let with = |more: &[u8]| v2(0x21, 0x11, &[&IPV4[..], more].concat());
    let table: [(Vec<u8>, ProxyFault); 22] = [
        (b"\x10\x0c\0\x04MQTT".to_vec(), Missing),
        (b"\x16\x03\x01".to_vec(), Missing),
        (b"GET / HTTP/1.1\r\n".to_vec(), Missing),
        (b"PROXY_TCP4".to_vec(), Missing),
        (b"\r\n\r\n\0\r\nQUIT\r".to_vec(), Missing),
        (b"PROXY \r\n".to_vec(), Malformed),
        (b"PROXY \n".to_vec(), Malformed),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 8883\n".to_vec(),
            Malformed,
        ),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 8080\r\n".to_vec(),
            Malformed,
        ),
        (
            b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 65536\r\n".to_vec(),
            Malformed,
        ),
        (
            b"PROXY TCP4 192.0.2.700 198.51.100.1 8080 8883\r\n".to_vec(),
            Malformed,
        ),
        (b"PROXY TCP4 ::1 ::1 8080 8883\r\n".to_vec(), Malformed),
        (
            b"PROXY UDP4 192.0.2.7 198.51.100.1 8080 8883\r\n".to_vec(),
            Malformed,
        ),
        (
            [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 100]].concat(),
            TooLong,
        ),
        (v2(0x21, 0x11, &IPV4[..11]), Malformed),
        (v2(0x31, 0x11, &IPV4), Malformed),
        (v2(0x22, 0x11, &IPV4), Malformed),
        (v2(0x21, 0x12, &IPV4), Malformed),
        // mosquitto#3435: what is added is shorter than it says.
        (with(&[4, 0, 9, 1]), Malformed),
        (with(&[4, 0]), Malformed),
        (with(&[4, 0xFF, 0xFF]), Malformed),
        (v2(0x21, 0x11, &long), TooLong),
    ];
    for (bytes, fault) in table {
        for step in 1..=bytes.len().min(300) {
            assert_eq!(
                read(&bytes, step),
                Some(Err(fault)),
                "{bytes:x?}, step {step}"
            );
        }
    }
}

#[test]
fn the_longest_headers_pass() {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(V1_BYTES_MAX - 2, b'x');
    line.extend(b"\r\n");
    assert_eq!(read(&line, 7), Some(Ok((None, 0))));
    let mut body = IPV4.to_vec();
    let value = V2_MORE_BYTES_MAX - IPV4.len() - 3;
    body.extend([0xEA, (value >> 8) as u8, value as u8]);
    body.resize(V2_MORE_BYTES_MAX, 7);
    let address = "192.0.2.7:8080".parse().unwrap();
    assert_eq!(
        read(&v2(0x21, 0x11, &body), 100),
        Some(Ok((Some(address), 0)))
    );
}

/// Goal: no damage confuses the reader or depends on how it is cut. Method: each bit of a header
/// is turned over, one by one; what stands behind it is never taken.
#[test]
fn damaged_headers_end_alike_however_they_are_cut() {
    let tlv = [&IPV4[..], &[4, 0, 3, 1, 2, 3]].concat();
    let line = b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 8883\r\n".to_vec();
    for header in [line, v2(0x21, 0x11, &tlv), v2(0x21, 0x21, &ipv6())] {
        let good = [&header[..], &[0x10; 200]].concat();
        for place in 0..header.len() {
            for bit in 0..8 {
                let mut bytes = good.clone();
                bytes[place] ^= 1 << bit;
                let whole = read(&bytes, bytes.len());
                for step in [1, 5, 16] {
                    assert_eq!(read(&bytes, step), whole, "{place} {bit} {step}");
                }
            }
        }
    }
}
