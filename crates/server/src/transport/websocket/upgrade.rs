//! The HTTP request that a WebSocket begins with, and the answer to it.

use std::sync::Arc;

use httparse::{Header, Request, Status};
use tungstenite::handshake::derive_accept_key;

use super::super::http::answer;
use crate::options::WebSocketOptions;

/// The longest request: browsers with their cookies stay below it.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// Lines of a request; browsers send about fifteen.
const HEADERS_MAX: usize = 64;

/// What ends a request.
const BLANK_LINE: &[u8] = b"\r\n\r\n";

/// The name of MQTT among the protocols that WebSocket carries, in every version.
const SUBPROTOCOL: &str = "mqtt";

/// 16 bytes in base64.
const KEY_LETTERS: usize = 24;

/// Why a request is refused; the peer reads the sentence too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not HTTP, or not one request of it.
    #[error("this is no HTTP request")]
    Malformed,
    /// Longer than any browser writes.
    #[error("the request is too long")]
    TooLong,
    /// Something other than GET.
    #[error("a WebSocket begins with GET")]
    Method,
    /// Another path.
    #[error("there is nothing at this path")]
    Path,
    /// No WebSocket is asked for.
    #[error("this port speaks MQTT over WebSocket")]
    NoUpgrade,
    /// Another version of WebSocket than 13.
    #[error("only version 13 of WebSocket is spoken here")]
    Version,
    /// A line that WebSocket needs is missing, or wrong, or there twice.
    #[error("the request lacks what a WebSocket needs")]
    Incomplete,
    /// Something follows the request that is not WebSocket.
    #[error("a request for a WebSocket has no body")]
    Body,
    /// The client does not offer MQTT.
    #[error("the sub-protocol mqtt is not offered")]
    Subprotocol,
    /// A page that may not connect, or nobody who says which page it is.
    #[error("this origin may not connect")]
    Origin,
}

impl Refusal {
    /// The status line's rest, and lines that it needs.
    fn status(self) -> (&'static str, &'static str) {
        match self {
            Refusal::Method => ("405 Method Not Allowed", "Allow: GET\r\n"),
            Refusal::Path => ("404 Not Found", ""),
            Refusal::NoUpgrade | Refusal::Version => (
                "426 Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            ),
            Refusal::Origin => ("403 Forbidden", ""),
            Refusal::TooLong => ("431 Request Header Fields Too Large", ""),
            _ => ("400 Bad Request", ""),
        }
    }

    /// The whole answer.
    pub fn answer(self) -> Vec<u8> {
        let (status, lines) = self.status();
        answer(status, lines, &self.to_string())
    }
}

/// A request that is being received.
pub(super) struct Upgrade {
    options: Arc<WebSocketOptions>,
    request: Vec<u8>,
}

impl Upgrade {
    /// Awaits a request.
    pub fn new(options: Arc<WebSocketOptions>) -> Upgrade {
        Upgrade {
            options,
            request: Vec::new(),
        }
    }

    /// True before the first byte.
    pub fn is_fresh(&self) -> bool {
        self.request.is_empty()
    }

    /// Takes bytes up to the end of the request: how many, and the answer once it is whole.
    ///
    /// # Errors
    /// A [`Refusal`], as soon as there is one.
    pub fn read(&mut self, input: &[u8]) -> Result<(usize, Option<Vec<u8>>), Refusal> {
        let have = self.request.len();
        let take = input.len().min(REQUEST_BYTES_MAX - have);
        self.request.extend_from_slice(&input[..take]);
        // Only what is new is searched: a request byte by byte must not cost a square.
        let from = have.saturating_sub(BLANK_LINE.len() - 1);
        let mut windows = self.request[from..].windows(BLANK_LINE.len());
        match windows.position(|window| window == BLANK_LINE) {
            Some(place) => {
                self.request.truncate(from + place + BLANK_LINE.len());
                let taken = self.request.len() - have;
                Ok((taken, Some(judge(&self.request, &self.options)?)))
            }
            None if self.request.len() == REQUEST_BYTES_MAX => Err(Refusal::TooLong),
            None => Ok((take, None)),
        }
    }
}

/// Answers a whole request.
fn judge(bytes: &[u8], options: &WebSocketOptions) -> Result<Vec<u8>, Refusal> {
    let mut lines = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = Request::new(&mut lines);
    match request.parse(bytes) {
        Ok(Status::Complete(length)) if length == bytes.len() => {}
        Err(httparse::Error::TooManyHeaders) => return Err(Refusal::TooLong),
        _ => return Err(Refusal::Malformed),
    }
    let lines = Lines(request.headers);
    if request.version != Some(1) {
        return Err(Refusal::Malformed);
    }
    if request.method != Some("GET") {
        return Err(Refusal::Method);
    }
    // What follows a question mark is for the page that connects.
    let target = request.path.unwrap_or_default();
    if target.split('?').next() != Some(options.path.as_str()) {
        return Err(Refusal::Path);
    }
    if !lines.offers("upgrade", b"websocket") {
        return Err(Refusal::NoUpgrade);
    }
    if lines.only("sec-websocket-version")? != b"13" {
        return Err(Refusal::Version);
    }
    if !lines.offers("connection", b"upgrade") || lines.only("host")?.is_empty() {
        return Err(Refusal::Incomplete);
    }
    // What an intermediary takes for a body we would take for frames.
    let length = lines.all("content-length").any(|value| value != b"0");
    if length || lines.all("transfer-encoding").next().is_some() {
        return Err(Refusal::Body);
    }
    let key = lines.only("sec-websocket-key")?;
    if !is_key(key) {
        return Err(Refusal::Incomplete);
    }
    // The client must offer it before it can be chosen. [MQTT-6.0.0-3] [MQTT-3.1.1 6.0.0-3]
    let mut offered = lines.listed("sec-websocket-protocol");
    if !offered.any(|name| name == SUBPROTOCOL.as_bytes()) {
        return Err(Refusal::Subprotocol);
    }
    if !options.origins.is_empty() {
        // A browser always says which page it is for. Who says nothing is no browser, but a list
        // is a promise about everybody: a check that cannot be made refuses.
        let origin = lines.only("origin").map_err(|_| Refusal::Origin)?;
        let known = options.origins.iter().any(|it| it.as_bytes() == origin);
        if !known {
            return Err(Refusal::Origin);
        }
    }
    Ok(grant(key))
}

/// The answer that begins a WebSocket. No extension is ever named, so that none is in use.
fn grant(key: &[u8]) -> Vec<u8> {
    let accept = derive_accept_key(key);
    // [MQTT-6.0.0-4] [MQTT-3.1.1 6.0.0-4]
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n",
    )
    .into_bytes()
}

/// True for 16 bytes in base64, which end in one letter of 2 bits and two of padding.
fn is_key(key: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    match key {
        [letters @ .., last, b'=', b'='] => {
            key.len() == KEY_LETTERS && letters.iter().all(is_letter) && b"AQgw".contains(last)
        }
        _ => false,
    }
}

/// The lines of a request, by name.
struct Lines<'a>(&'a [Header<'a>]);

impl<'a> Lines<'a> {
    /// The values of every line of this name.
    fn all(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.0.iter();
        let lines = lines.filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii())
    }

    /// The value of the one line of this name; two that disagree would be read by each as it likes.
    fn only(&self, name: &'static str) -> Result<&'a [u8], Refusal> {
        let mut values = self.all(name);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            _ => Err(Refusal::Incomplete),
        }
    }

    /// What the lines of this name list, between commas.
    fn listed(&self, name: &'static str) -> impl Iterator<Item = &'a [u8]> {
        let values = self.all(name);
        values.flat_map(|value| value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii))
    }

    /// True where a list has this word, in capitals or not.
    fn offers(&self, name: &'static str, word: &[u8]) -> bool {
        self.listed(name).any(|it| it.eq_ignore_ascii_case(word))
    }
}

#[cfg(test)]
#[path = "upgrade_tests.rs"]
mod tests;
