//! The WebSocket of a client against bytes that a broker, or somebody worse, may send.

use super::*;

fn door() -> Door {
    Door {
        host: "broker.example:443".to_owned(),
        path: "/mqtt".to_owned(),
    }
}

/// The right answer to a request.
fn answer(request: &[u8]) -> String {
    let text = String::from_utf8(request.to_vec()).unwrap();
    let key = text
        .lines()
        .find_map(|line| line.strip_prefix("Sec-WebSocket-Key: "))
        .unwrap();
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
}

/// An open WebSocket.
fn open() -> WebSocket {
    let (mut websocket, request) = WebSocket::open(&door());
    let answer = answer(&request);
    websocket
        .receive(answer.as_bytes(), &mut |_| Ok(()))
        .unwrap();
    assert!(websocket.is_open());
    websocket
}

/// What comes of bytes in pieces of a size: the payload, or the words of the fault.
fn received(websocket: &mut WebSocket, bytes: &[u8], step: usize) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    for piece in bytes.chunks(step) {
        websocket
            .receive(piece, &mut |bytes| {
                payload.extend_from_slice(bytes);
                Ok(())
            })
            .map_err(|fault| fault.to_string())?;
    }
    Ok(payload)
}

#[test]
fn a_request_asks_for_mqtt_at_its_path() {
    let (websocket, request) = WebSocket::open(&door());
    let text = String::from_utf8(request).unwrap();
    assert!(text.starts_with("GET /mqtt HTTP/1.1\r\nHost: broker.example:443\r\n"));
    assert!(text.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
    assert!(text.ends_with("\r\n\r\n"));
    assert!(!websocket.is_open());
}

#[test]
fn an_answer_opens_it_wherever_it_is_cut_and_what_follows_is_payload() {
    for step in [1, 7, 100, 1_000] {
        let (mut websocket, request) = WebSocket::open(&door());
        let mut bytes = answer(&request).into_bytes();
        bytes.extend_from_slice(&[0x82, 2, 0xD0, 0]);
        let payload = received(&mut websocket, &bytes, step).unwrap();
        assert_eq!(payload, [0xD0, 0], "{step}");
    }
}

#[test]
fn an_answer_that_is_none_is_refused() {
    type Change = fn(String) -> String;
    let table: [(&str, Change); 6] = [
        ("answered 404", |good| good.replace("101", "404")),
        ("prove itself", |good| good.replace("Accept: ", "Accept: x")),
        ("prove itself", |good| {
            good.replace("Sec-WebSocket-Accept", "X")
        }),
        ("protocol mqtt", |good| good.replace("mqtt\r\n", "chat\r\n")),
        ("no HTTP", |_| "SSH-2.0-OpenSSH\r\n\r\n".to_owned()),
        ("does not end", |_| {
            format!("HTTP/1.1 101 X\r\nA: {}", "a".repeat(20_000))
        }),
    ];
    for (words, change) in table {
        for step in [1, 50_000] {
            let (mut websocket, request) = WebSocket::open(&door());
            let bytes = change(answer(&request)).into_bytes();
            let said = received(&mut websocket, &bytes, step).unwrap_err();
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}

#[test]
fn frames_of_every_length_and_in_pieces_give_their_payload() {
    let mut bytes = vec![0x02, 1, b'a', 0x80, 1, b'b', 0x82, 0];
    for length in [125_usize, 126, 65_535, 65_536] {
        bytes.push(0x82);
        match length {
            0..=125 => bytes.push(length as u8),
            126..=65_535 => {
                bytes.push(126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                bytes.push(127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend(std::iter::repeat_n(b'x', length));
    }
    for step in [1, 13, 4_096, bytes.len()] {
        let payload = received(&mut open(), &bytes, step).unwrap();
        assert!(payload.starts_with(b"abx"));
        assert_eq!(payload.len(), 2 + 125 + 126 + 65_535 + 65_536, "{step}");
    }
}

#[test]
fn a_ping_is_answered_with_its_own_words_even_between_pieces() {
    for step in [1, 100] {
        let mut websocket = open();
        let bytes = [0x02, 1, b'a', 0x89, 2, b'h', b'i', 0x80, 1, b'b', 0x8A, 0];
        assert_eq!(received(&mut websocket, &bytes, step).unwrap(), b"ab");
        assert!(websocket.wants_writing());
        let mut wire = Vec::new();
        websocket.wrap(&mut Vec::new(), &mut wire);
        assert_eq!(unmasked(&wire), (0x8A, b"hi".to_vec()));
        assert!(!websocket.wants_writing());
    }
}

#[test]
fn what_breaks_the_rules_ends_it() {
    let table: [(&[u8], &str); 8] = [
        (&[0x82, 0x81, 0, 0, 0, 0, 1], "masks its frames"),
        (&[0xC2, 1, 0], "extension"),
        (&[0x81, 1, b'a'], "neither binary nor control"),
        (&[0x83, 0], "neither binary nor control"),
        (&[0x09, 0], "in pieces"),
        (&[0x89, 126, 0, 126], "too long"),
        (&[0x88, 0], "the broker closed it"),
        (&[0x88, 2, 0x03, 0xF0], "code 1008"),
    ];
    for (bytes, words) in table {
        for step in [1, 100] {
            let said = received(&mut open(), bytes, step).unwrap_err();
            assert!(said.contains(words), "{words}: {said}");
        }
    }
}

#[test]
fn a_length_that_cannot_be_allocates_nothing() {
    // Nothing is kept of a frame but what of it is there.
    let mut bytes = vec![0x82, 127];
    bytes.extend_from_slice(&u64::MAX.to_be_bytes());
    bytes.extend_from_slice(b"abc");
    assert_eq!(received(&mut open(), &bytes, 100).unwrap(), b"abc");
}

#[test]
fn what_is_sent_is_one_masked_frame_under_a_fresh_key() {
    for length in [0_usize, 1, 7, 8, 125, 126, 65_535, 65_536, 70_001] {
        let payload: Vec<u8> = (0..length).map(|index| index as u8).collect();
        let mut websocket = open();
        let (mut first, mut second) = (Vec::new(), Vec::new());
        websocket.wrap(&mut payload.clone(), &mut first);
        websocket.wrap(&mut payload.clone(), &mut second);
        if length == 0 {
            assert!(first.is_empty());
            continue;
        }
        assert_eq!(unmasked(&first), (0x82, payload.clone()), "{length}");
        assert_eq!(unmasked(&second), (0x82, payload));
        assert_ne!(first, second);
    }
}

/// Reads one whole masked frame, as a server would.
fn unmasked(wire: &[u8]) -> (u8, Vec<u8>) {
    assert_eq!(wire[1] & MASKED, MASKED);
    let (length, at) = match wire[1] & 0x7F {
        126 => (usize::from(u16::from_be_bytes([wire[2], wire[3]])), 4),
        127 => (
            u64::from_be_bytes(wire[2..10].try_into().unwrap()) as usize,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let (mask, payload) = wire[at..].split_at(4);
    assert_eq!(payload.len(), length);
    let pairs = payload.iter().zip(mask.iter().cycle());
    (wire[0], pairs.map(|(byte, key)| byte ^ key).collect())
}
