//! Lines: what a step asks for, and how it is answered.

use std::io::Write;

use rumqttc::Transport;
use serde_json::{json, Value};

/// The largest packet that a peer takes where a step sets no limit.
pub const PACKET_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// Writes one line, whole.
pub fn write(value: &Value) {
    let mut out = std::io::stdout().lock();
    // The reader is gone when the tests are; there is nobody left to tell.
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// Answers a step.
pub fn answer(id: &Value, mut fields: Value) {
    fields["id"] = id.clone();
    write(&fields);
}

/// Answers a step that could not be taken.
pub fn fault(id: &Value, says: &str) {
    answer(id, json!({ "fault": says }));
}

/// Gives a text of a step; what is not there is empty.
pub fn text(step: &Value, key: &str) -> String {
    step[key].as_str().unwrap_or_default().to_owned()
}

/// Gives a number of a step, where it is there and fits.
pub fn number<T: TryFrom<u64>>(step: &Value, key: &str) -> Option<T> {
    step[key].as_u64().and_then(|value| T::try_from(value).ok())
}

/// Gives bytes of a step, which travel in hexadecimal.
pub fn bytes(step: &Value, key: &str) -> Vec<u8> {
    let digits = step[key].as_str().unwrap_or_default();
    (0..digits.len() / 2)
        .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect()
}

/// Writes bytes in hexadecimal.
pub fn hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut found = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        found.push(DIGITS[usize::from(byte >> 4)].into());
        found.push(DIGITS[usize::from(byte & 15)].into());
    }
    found
}

/// Gives the address that rumqttc wants: a host, or for WebSocket a whole URL.
pub fn address(way: &Value) -> (String, u16) {
    let host = text(way, "host");
    let port = number(way, "port").expect("a port");
    match text(way, "name").as_str() {
        scheme @ ("ws" | "wss") => (
            format!("{scheme}://{host}:{port}{}", text(way, "path")),
            port,
        ),
        _ => (host, port),
    }
}

/// Gives the transport of a way.
pub fn transport(way: &Value) -> Transport {
    let file = |key: &str| std::fs::read(text(way, key)).expect("a file that the lab has made");
    let own = || {
        way["cert_file"]
            .is_string()
            .then(|| (file("cert_file"), file("key_file")))
    };
    match text(way, "name").as_str() {
        "tcp" => Transport::tcp(),
        "ws" => Transport::ws(),
        "wss" => Transport::wss(file("ca_file"), own(), None),
        _ => Transport::tls(file("ca_file"), own(), None),
    }
}
