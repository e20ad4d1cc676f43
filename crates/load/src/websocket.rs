//! WebSocket of a client (RFC 6455): the handshake, frames out in one piece, frames in streamed.

use std::hash::{BuildHasher, RandomState};

use tungstenite::handshake::client::generate_key;
use tungstenite::handshake::derive_accept_key;

use crate::error::Fault;
use crate::Door;

/// An answer to the handshake that is longer is no answer.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
/// Payload of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

const CONTINUATION: u8 = 0x0;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;

/// One WebSocket.
pub(crate) struct WebSocket {
    key: String,
    state: State,
    /// Keys of masks: a keyed hash of a counter, which nobody can foresee (RFC 6455 §5.3).
    masks: RandomState,
    masks_used: u64,
    /// Frames that answer the broker's control frames.
    answers: Vec<u8>,
}

enum State {
    /// Until the empty line of the answer.
    Handshake(Vec<u8>),
    /// Up to 10 bytes of a header.
    Header { bytes: [u8; 10], have: usize },
    /// Payload of a data frame.
    Data { left: u64 },
    /// Payload of a control frame.
    Control {
        opcode: u8,
        payload: Vec<u8>,
        left: u64,
    },
}

impl WebSocket {
    /// A WebSocket, and the request that opens it.
    pub fn open(door: &Door) -> (WebSocket, Vec<u8>) {
        let key = generate_key();
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Protocol: mqtt\r\n\r\n",
            door.path, door.host
        );
        let websocket = WebSocket {
            key,
            state: State::Handshake(Vec::new()),
            masks: RandomState::new(),
            masks_used: 0,
            answers: Vec::new(),
        };
        (websocket, request.into_bytes())
    }

    /// True once frames may be sent.
    pub fn is_open(&self) -> bool {
        !matches!(self.state, State::Handshake(_))
    }

    /// Moves answers to control frames, and `bytes` as one binary frame, to `wire`.
    pub fn wrap(&mut self, bytes: &mut Vec<u8>, wire: &mut Vec<u8>) {
        wire.append(&mut self.answers);
        if !bytes.is_empty() {
            let mask = self.mask();
            frame(BINARY, bytes, mask, wire);
            bytes.clear();
        }
    }

    /// True where there is an answer to send.
    pub fn wants_writing(&self) -> bool {
        !self.answers.is_empty()
    }

    /// Takes bytes of the socket and gives those of MQTT.
    ///
    /// # Errors
    /// Where the broker does not open the WebSocket, closes it, or breaks its rules.
    pub fn receive(
        &mut self,
        mut bytes: &[u8],
        sink: &mut dyn FnMut(&[u8]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            match &mut self.state {
                State::Handshake(answer) => {
                    answer.extend_from_slice(bytes);
                    if answer.len() > ANSWER_BYTES_MAX {
                        return Err(broken("the answer to the handshake does not end"));
                    }
                    let Some(used) = accepted(answer, &self.key)? else {
                        return Ok(());
                    };
                    // What follows the answer came with the bytes that were added just now.
                    let behind = answer.len() - used;
                    bytes = &bytes[bytes.len() - behind..];
                    self.state = fresh_header();
                }
                State::Header { bytes: head, have } => {
                    head[*have] = bytes[0];
                    *have += 1;
                    bytes = &bytes[1..];
                    if let Some((first, length)) = header(&head[..*have])? {
                        self.state = begun(first, length)?;
                        self.end_control();
                    }
                }
                State::Data { left } => {
                    let here = bytes
                        .len()
                        .min(usize::try_from(*left).unwrap_or(usize::MAX));
                    let (payload, rest) = bytes.split_at(here);
                    sink(payload)?;
                    bytes = rest;
                    *left -= here as u64;
                    if *left == 0 {
                        self.state = fresh_header();
                    }
                }
                State::Control { payload, left, .. } => {
                    let here = bytes.len().min(*left as usize);
                    payload.extend_from_slice(&bytes[..here]);
                    bytes = &bytes[here..];
                    *left -= here as u64;
                    self.end_control();
                }
            }
            if let State::Control {
                opcode: CLOSE,
                payload,
                left: 0,
            } = &self.state
            {
                return Err(closed(payload));
            }
        }
        Ok(())
    }

    /// Serves a control frame that is complete; a CLOSE is left for the caller.
    fn end_control(&mut self) {
        let State::Control {
            opcode,
            payload,
            left: 0,
        } = &mut self.state
        else {
            return;
        };
        let (opcode, payload) = (*opcode, std::mem::take(payload));
        match opcode {
            CLOSE => {
                self.state = State::Control {
                    opcode,
                    payload,
                    left: 0,
                };
                return;
            }
            PING => {
                let mask = self.mask();
                frame(PONG, &payload, mask, &mut self.answers);
            }
            _ => {}
        }
        self.state = fresh_header();
    }

    fn mask(&mut self) -> [u8; 4] {
        self.masks_used += 1;
        let [a, b, c, d, ..] = self.masks.hash_one(self.masks_used).to_le_bytes();
        [a, b, c, d]
    }
}

fn fresh_header() -> State {
    State::Header {
        bytes: [0; 10],
        have: 0,
    }
}

/// Reads the answer to the handshake; the bytes of it once it is complete.
fn accepted(answer: &[u8], key: &str) -> Result<Option<usize>, Fault> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let used = match response.parse(answer) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(used)) => used,
        Err(_) => return Err(broken("the answer to the handshake is no HTTP")),
    };
    if response.code != Some(101) {
        let code = response.code.unwrap_or_default();
        return Err(Fault::WebSocket(format!("the broker answered {code}")));
    }
    let find = |name: &str| {
        let mut found = response.headers.iter();
        found.find(|header| header.name.eq_ignore_ascii_case(name))
    };
    let wanted = derive_accept_key(key.as_bytes());
    if find("sec-websocket-accept").is_none_or(|found| found.value != wanted.as_bytes()) {
        return Err(broken("the answer to the handshake does not prove itself"));
    }
    if find("sec-websocket-protocol").is_none_or(|found| found.value != b"mqtt") {
        return Err(broken("the broker does not speak the protocol mqtt"));
    }
    Ok(Some(used))
}

/// Reads a header: its first byte and the length of its payload, once it is complete.
fn header(head: &[u8]) -> Result<Option<(u8, u64)>, Fault> {
    let [first, second, rest @ ..] = head else {
        return Ok(None);
    };
    if second & MASKED != 0 {
        // RFC 6455 §5.1: a client must fail the connection then.
        return Err(broken("the broker masks its frames"));
    }
    let length = match second & 0x7F {
        126 => rest
            .first_chunk()
            .map(|two| u64::from(u16::from_be_bytes(*two))),
        127 => rest.first_chunk().map(|eight| u64::from_be_bytes(*eight)),
        short => Some(u64::from(short)),
    };
    Ok(length.map(|length| (*first, length)))
}

/// What follows a header.
fn begun(first: u8, length: u64) -> Result<State, Fault> {
    if first & 0x70 != 0 {
        return Err(broken("a frame uses an extension that nobody asked for"));
    }
    match first & 0x0F {
        CONTINUATION | BINARY if length == 0 => Ok(fresh_header()),
        CONTINUATION | BINARY => Ok(State::Data { left: length }),
        opcode @ (CLOSE | PING | PONG) if first & FINAL != 0 && length <= CONTROL_BYTES_MAX => {
            Ok(State::Control {
                opcode,
                payload: Vec::new(),
                left: length,
            })
        }
        CLOSE | PING | PONG => Err(broken("a control frame is too long or in pieces")),
        _ => Err(broken("a frame is neither binary nor control")),
    }
}

/// Appends one whole frame.
fn frame(opcode: u8, payload: &[u8], mask: [u8; 4], wire: &mut Vec<u8>) {
    wire.push(FINAL | opcode);
    match payload.len() {
        // Each fits by its arm.
        short @ 0..=125 => wire.push(MASKED | short as u8),
        middle @ 126..=65_535 => {
            wire.push(MASKED | 126);
            wire.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            wire.push(MASKED | 127);
            wire.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    wire.extend_from_slice(&mask);
    let start = wire.len();
    wire.extend_from_slice(payload);
    let [a, b, c, d] = mask;
    let twice = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut eights = wire[start..].chunks_exact_mut(8);
    for eight in &mut eights {
        if let Some(bytes) = eight.first_chunk_mut() {
            *bytes = (u64::from_ne_bytes(*bytes) ^ twice).to_ne_bytes();
        }
    }
    for (byte, key) in eights.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= key;
    }
}

fn broken(says: &str) -> Fault {
    Fault::WebSocket(says.to_owned())
}

fn closed(payload: &[u8]) -> Fault {
    match payload.first_chunk() {
        Some(code) => Fault::WebSocket(format!(
            "the broker closed it with code {}",
            u16::from_be_bytes(*code)
        )),
        None => broken("the broker closed it"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests;
