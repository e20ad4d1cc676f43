//! Tables of requests, cut anywhere.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;

/// The request of RFC 6455 §1.3, for MQTT.
const LINES: [&str; 7] = [
    "GET /mqtt HTTP/1.1",
    "Host: broker.example",
    "Upgrade: websocket",
    "Connection: keep-alive, Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol: mqttv3.1, mqtt",
    "Sec-WebSocket-Version: 13",
];

/// The request with one line changed, and one added where it is not empty.
fn request(from: &str, to: &str, more: &str) -> Vec<u8> {
    let mut text = String::new();
    for line in LINES {
        let line = if line.starts_with(from) && !from.is_empty() {
            to
        } else {
            line
        };
        if !line.is_empty() {
            text.push_str(line);
            text.push_str("\r\n");
        }
    }
    if !more.is_empty() {
        text.push_str(more);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.into_bytes()
}

fn options(origins: &[&str]) -> Arc<WebSocketOptions> {
    Arc::new(WebSocketOptions {
        path: "/mqtt".into(),
        origins: origins.iter().map(|&origin| origin.into()).collect(),
    })
}

/// The answer, and the bytes that were left, when the request comes in pieces of this size.
fn read(bytes: &[u8], origins: &[&str], step: usize) -> Result<(String, usize), Refusal> {
    let mut upgrade = Upgrade::new(options(origins));
    let mut at = 0;
    loop {
        let end = bytes.len().min(at + step);
        assert!(at < end, "it wants more than there is");
        let (taken, answer) = upgrade.read(&bytes[at..end])?;
        at += taken;
        if let Some(answer) = answer {
            return Ok((String::from_utf8(answer).unwrap(), bytes.len() - at));
        }
    }
}

fn refusal(bytes: &[u8], origins: &[&str]) -> Refusal {
    let whole = read(bytes, origins, bytes.len());
    assert_eq!(read(bytes, origins, 1), whole);
    match whole {
        Err(refusal) => refusal,
        Ok((answer, _)) => panic!("let in: {answer}"),
    }
}

/// [MQTT-6.0.0-4] [MQTT-3.1.1 6.0.0-4] and the sample of RFC 6455 §1.3.
#[test]
fn a_request_is_answered_with_mqtt_and_the_key_of_the_rfc() {
    let bytes = [&request("", "", "")[..], b"\x82frames"].concat();
    for step in 1..=bytes.len() {
        let (answer, left) = read(&bytes, &[], step).unwrap();
        assert_eq!(left, 7, "step {step}");
        assert!(answer.starts_with("HTTP/1.1 101 "));
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.contains("\r\nSec-WebSocket-Protocol: mqtt\r\n"));
        assert!(answer.ends_with("\r\n\r\n"));
    }
}

#[test]
fn compression_is_never_agreed_on() {
    let more = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let (answer, _) = read(&request("", "", more), &[], 9).unwrap();
    assert!(!answer.to_lowercase().contains("extensions"));
}

#[test]
fn harmless_differences_are_let_through() {
    let table = [
        ("GET", "GET /mqtt?client=7 HTTP/1.1", ""),
        ("Upgrade", "uPGRADE:   WebSocket  ", ""),
        ("Connection", "Connection: upgrade", ""),
        ("Sec-WebSocket-Protocol", "Sec-WebSocket-Protocol: mqtt", ""),
        ("", "", "Origin: https://anywhere.example"),
        ("", "", "Content-Length: 0"),
        (
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Protocol: other",
            "Sec-WebSocket-Protocol: x ,mqtt",
        ),
    ];
    for (from, to, more) in table {
        assert!(
            read(&request(from, to, more), &[], 1).is_ok(),
            "{to} {more}"
        );
    }
}

#[test]
fn what_is_no_request_for_mqtt_is_refused() {
    use Refusal::*;
    let table = [
        ("GET", "POST /mqtt HTTP/1.1", "", Method),
        ("GET", "GET / HTTP/1.1", "", Path),
        ("GET", "GET /mqtt/ HTTP/1.1", "", Path),
        ("GET", "GET /MQTT HTTP/1.1", "", Path),
        ("GET", "GET /x?/mqtt HTTP/1.1", "", Path),
        ("GET", "GET /mqtt HTTP/1.0", "", Malformed),
        ("GET", "GET /mqtt", "", Malformed),
        ("GET", "GET  HTTP/1.1", "", Malformed),
        ("Host", "", "", Incomplete),
        ("Host", "Host:", "", Incomplete),
        ("Host", "Host: a", "Host: b", Incomplete),
        ("Host", " folded: line", "", Malformed),
        ("Host", "no colon", "", Malformed),
        ("Upgrade", "", "", NoUpgrade),
        ("Upgrade", "Upgrade: h2c", "", NoUpgrade),
        ("Connection", "", "", Incomplete),
        ("Connection", "Connection: close", "", Incomplete),
        ("Sec-WebSocket-Version", "", "", Incomplete),
        (
            "Sec-WebSocket-Version",
            "Sec-WebSocket-Version: 8",
            "",
            Version,
        ),
        ("Sec-WebSocket-Key", "", "", Incomplete),
        (
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: short==",
            "",
            Incomplete,
        ),
        (
            "Sec-WebSocket-Key",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZR==",
            "",
            Incomplete,
        ),
        (
            "",
            "",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            Incomplete,
        ),
        // [MQTT-6.0.0-3] [MQTT-3.1.1 6.0.0-3]
        ("Sec-WebSocket-Protocol", "", "", Subprotocol),
        (
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Protocol: MQTT",
            "",
            Subprotocol,
        ),
        (
            "Sec-WebSocket-Protocol",
            "Sec-WebSocket-Protocol: mqttv3.1",
            "",
            Subprotocol,
        ),
        ("", "", "Content-Length: 5", Body),
        ("", "", "Transfer-Encoding: chunked", Body),
    ];
    for (from, to, more, expected) in table {
        let bytes = request(from, to, more);
        assert_eq!(refusal(&bytes, &[]), expected, "{to:?} {more:?}");
    }
}

#[test]
fn with_a_list_only_its_origins_connect() {
    let list = ["https://app.example", "http://localhost:8080"];
    for origin in list {
        let bytes = request("", "", &format!("Origin: {origin}"));
        assert!(read(&bytes, &list, 3).is_ok());
    }
    for more in [
        "",
        "Origin: null",
        "Origin: http://app.example",
        "Origin: https://app.example.evil",
        "Origin: https://app.example:8443",
        "Origin: https://app.example\r\nOrigin: https://evil.example",
    ] {
        assert_eq!(
            refusal(&request("", "", more), &list),
            Refusal::Origin,
            "{more}"
        );
    }
}

#[test]
fn a_request_is_bounded() {
    let endless = [b"GET /mqtt HTTP/1.1\r\nCookie: ".to_vec(), vec![b'x'; 9000]].concat();
    assert_eq!(refusal(&endless, &[]), Refusal::TooLong);
    let many = "A: b\r\n".repeat(HEADERS_MAX) + "A: b";
    assert_eq!(refusal(&request("", "", &many), &[]), Refusal::TooLong);
}

#[test]
fn answers_say_their_length_and_close() {
    use Refusal::*;
    let table = [
        (Malformed, "400"),
        (Path, "404"),
        (Method, "405"),
        (NoUpgrade, "426"),
        (Version, "426"),
        (Origin, "403"),
        (TooLong, "431"),
        (Subprotocol, "400"),
    ];
    for (refusal, status) in table {
        let text = String::from_utf8(refusal.answer()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
        assert!(head.contains("\r\nConnection: close\r\n"));
        assert!(
            head.ends_with(&format!("Content-Length: {}", body.len())),
            "{text}"
        );
        assert_eq!(head.contains("Sec-WebSocket-Version: 13"), status == "426");
    }
}

/// Goal: no damage to a request confuses the reader or depends on how it is cut. Method: each bit
/// of it is turned over, one by one.
#[test]
fn damaged_requests_end_alike_however_they_are_cut() {
    let good = request("", "", "Origin: https://app.example");
    let outcome = |bytes: &[u8], step: usize| {
        let mut upgrade = Upgrade::new(options(&[]));
        for piece in bytes.chunks(step) {
            match upgrade.read(piece) {
                Ok((_, None)) => {}
                other => return other.map(|(_, answer)| answer),
            }
        }
        Ok(None)
    };
    for place in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[place] ^= 1 << bit;
            assert_eq!(
                outcome(&bytes, 1),
                outcome(&bytes, bytes.len()),
                "{place} {bit}"
            );
        }
    }
}
