//! MQTT in WebSocket (RFC 6455), over TCP or TLS: frames are read and written as they pass.
//!
//! tungstenite knows the headers of frames, the codes of a close and the answer to a key. Its
//! connection is not used: it gathers whole messages in a buffer of its own, where here a payload
//! goes to the engine as it comes and an idle connection keeps nothing.

mod frames;
mod upgrade;

use std::io::IoSlice;
use std::sync::Arc;

use casemate_engine::Millis;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::FrameHeader;

use super::{End, Fault, Flow, Received, Scratch, Sent, Transport, MQTT_CONNECT, TLS_HANDSHAKE};
use crate::options::WebSocketOptions;
use crate::socket::Socket;
use frames::{Frames, Stop};
use upgrade::Upgrade;

pub(crate) use frames::Breach;
pub(crate) use upgrade::Refusal;

/// The longest header of a frame that we write, bytes: we never mask.
const HEADER_BYTES_MAX: usize = 10;

/// Pieces of one frame, its header not counted.
const SLICES: usize = 64;

/// One connection's WebSocket.
pub(crate) struct WebSocket {
    /// What carries it: plain TCP or TLS.
    link: Transport,
    incoming: Incoming,
    outgoing: Outgoing,
}

/// What comes from the peer.
struct Incoming {
    stage: Stage,
    /// What followed the request within one record of TLS.
    rest: Vec<u8>,
    /// The request was granted just now.
    opened: bool,
}

enum Stage {
    /// The request is awaited.
    Upgrading(Upgrade),
    /// Frames come.
    Open(Box<Frames>),
    /// Nothing that comes is looked at any more.
    Over(Ending),
}

/// Why nothing more is read.
#[derive(Clone, Copy)]
enum Ending {
    Closed,
    Refused(Refusal),
    Broken(Breach),
    NotHttp { mqtt: bool },
    TlsOnPlain,
}

/// What goes to the peer.
#[derive(Default)]
struct Outgoing {
    /// Answers and control frames of our own.
    own: Vec<u8>,
    own_sent: usize,
    /// The payload of the last ping.
    pong: Option<Box<[u8]>>,
    /// The header of the frame being written.
    header: [u8; HEADER_BYTES_MAX],
    header_sent: u8,
    header_end: u8,
    /// MQTT bytes that the frame being written still promises.
    promised: usize,
    /// A close was said, or must not be.
    closed: bool,
    /// What the close says: the peer's own code, or what it did wrong.
    code: Option<CloseCode>,
}

impl WebSocket {
    /// Awaits a request over `link`.
    pub fn new(link: Transport, options: Arc<WebSocketOptions>) -> WebSocket {
        WebSocket {
            link,
            incoming: Incoming {
                stage: Stage::Upgrading(Upgrade::new(options)),
                rest: Vec::new(),
                opened: false,
            },
            outgoing: Outgoing::default(),
        }
    }

    /// What carries it.
    pub fn link(&self) -> &Transport {
        &self.link
    }

    /// See [`Transport::heard`].
    pub fn heard(&mut self, fresh: &[u8]) {
        self.link.heard(fresh);
    }

    /// See [`Transport::receive`].
    pub fn receive(
        &mut self,
        input: &mut [u8],
        scratch: &mut Scratch,
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Received, Fault> {
        if let Stage::Over(ending) = self.incoming.stage {
            return ending.outcome();
        }
        let WebSocket {
            link,
            incoming,
            outgoing,
        } = self;
        let now = scratch.now;
        if !incoming.rest.is_empty() {
            let mut rest = std::mem::take(&mut incoming.rest);
            if incoming.hear(&mut rest, now, outgoing, sink).1 == Flow::Halt {
                return Ok(Received {
                    taken: 0,
                    end: End::Halted,
                });
            }
        }
        let mut received = match link {
            Transport::Tls(tls) => {
                let buffer = &mut scratch.plain;
                tls.receive(input, &mut |record| {
                    // A record cannot be unmasked where it is.
                    buffer.clear();
                    buffer.extend_from_slice(record);
                    let (taken, flow) = incoming.hear(buffer, now, outgoing, sink);
                    incoming.rest.extend_from_slice(&buffer[taken..]);
                    flow
                })?
            }
            _ => {
                if incoming.is_tls(input) {
                    incoming.stage = Stage::Over(Ending::TlsOnPlain);
                    outgoing.closed = true;
                    return Err(Fault::TlsOnPlain);
                }
                let (taken, flow) = incoming.hear(input, now, outgoing, sink);
                let end = match flow {
                    Flow::Onward => End::Blocked,
                    Flow::Halt => End::Halted,
                };
                Received { taken, end }
            }
        };
        if received.end == End::Established {
            received.end = End::Encrypted;
        }
        if std::mem::take(&mut incoming.opened) {
            received.end = End::Established;
        }
        Ok(received)
    }

    /// See [`Transport::send`].
    pub fn send(
        &mut self,
        stream: &Socket,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<Sent, Fault> {
        let WebSocket { link, outgoing, .. } = self;
        // Nothing stands within a frame but what it promised.
        if outgoing.is_between_frames() {
            outgoing.answer_ping();
            while outgoing.own_sent < outgoing.own.len() {
                let own = IoSlice::new(&outgoing.own[outgoing.own_sent..]);
                let sent = link.send(stream, &[own], scratch)?;
                outgoing.own_sent += sent.bytes;
                if sent.blocked {
                    return Ok(Sent {
                        bytes: 0,
                        blocked: true,
                    });
                }
            }
            outgoing.own = Vec::new();
            outgoing.own_sent = 0;
        }
        let slices = &slices[..slices.len().min(SLICES)];
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return link.send(stream, &[], scratch);
        }
        if outgoing.is_between_frames() {
            outgoing.begin(wanted);
        }
        outgoing.send(link, stream, slices, scratch)
    }

    /// See [`Transport::finish`].
    pub fn finish(&mut self) -> bool {
        let outgoing = &mut self.outgoing;
        let may_speak = !outgoing.closed && outgoing.is_between_frames();
        if may_speak && !matches!(self.incoming.stage, Stage::Upgrading(_)) {
            outgoing.close(outgoing.code.unwrap_or(CloseCode::Normal));
            return false;
        }
        self.link.finish()
    }

    /// See [`Transport::take_ahead`].
    pub fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        self.link.take_ahead(buffer)
    }

    /// See [`Transport::keep_ahead`].
    pub fn keep_ahead(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.link.keep_ahead(bytes)
    }

    /// See [`Transport::is_ahead`].
    pub fn is_ahead(&self) -> bool {
        let incoming = &self.incoming;
        let over = matches!(incoming.stage, Stage::Over(_));
        over || !incoming.rest.is_empty() || self.link.is_ahead()
    }

    /// See [`Transport::wants_writing`].
    pub fn wants_writing(&self) -> bool {
        let outgoing = &self.outgoing;
        !outgoing.own.is_empty() || outgoing.pong.is_some() || self.link.wants_writing()
    }

    /// See [`Transport::is_established`].
    pub fn is_established(&self) -> bool {
        !matches!(self.incoming.stage, Stage::Upgrading(_))
    }
}

impl Ending {
    fn outcome(self) -> Result<Received, Fault> {
        match self {
            Ending::Closed => Ok(Received {
                taken: 0,
                end: End::Farewell,
            }),
            Ending::Refused(refusal) => Err(Fault::Upgrade(refusal)),
            Ending::Broken(breach) => Err(Fault::Frame(breach)),
            Ending::NotHttp { mqtt } => Err(Fault::NotHttp { mqtt }),
            Ending::TlsOnPlain => Err(Fault::TlsOnPlain),
        }
    }
}

impl Incoming {
    /// True where the peer begins with TLS.
    fn is_tls(&self, input: &[u8]) -> bool {
        match &self.stage {
            Stage::Upgrading(upgrade) => {
                upgrade.is_fresh() && input.first() == Some(&TLS_HANDSHAKE)
            }
            _ => false,
        }
    }

    /// Reads what the link brought: bytes used, and whether more may follow at once.
    ///
    /// All of it is used, but for what follows the request: the engine must hear of the
    /// connection before it hears its bytes. What is gathered goes to the engine in one piece.
    fn hear(
        &mut self,
        input: &mut [u8],
        now: Millis,
        outgoing: &mut Outgoing,
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> (usize, Flow) {
        match &mut self.stage {
            Stage::Upgrading(_) => self.upgrade(input, outgoing),
            Stage::Open(frames) => {
                let (gathered, end) = frames.read(input, now, &mut outgoing.pong);
                let mut flow = Flow::Onward;
                if gathered > 0 {
                    flow = sink(&input[..gathered]);
                }
                if let Err(stop) = end {
                    // The caller comes again and is told, once what was good is served.
                    flow = Flow::Halt;
                    self.stop(stop, outgoing);
                }
                (input.len(), flow)
            }
            Stage::Over(_) => (input.len(), Flow::Halt),
        }
    }

    fn upgrade(&mut self, input: &[u8], outgoing: &mut Outgoing) -> (usize, Flow) {
        let Stage::Upgrading(upgrade) = &mut self.stage else {
            return (0, Flow::Onward);
        };
        let ending = match input.first() {
            // Every method of HTTP begins with a capital letter.
            Some(&first) if upgrade.is_fresh() && !first.is_ascii_uppercase() => Ending::NotHttp {
                mqtt: first == MQTT_CONNECT,
            },
            _ => match upgrade.read(input) {
                Ok((taken, None)) => return (taken, Flow::Onward),
                Ok((taken, Some(answer))) => {
                    outgoing.own = answer;
                    self.opened = true;
                    self.stage = Stage::Open(Box::default());
                    return (taken, Flow::Halt);
                }
                Err(refusal) => {
                    outgoing.own = refusal.answer();
                    Ending::Refused(refusal)
                }
            },
        };
        // Without an upgrade there is nothing that a close frame could close.
        outgoing.closed = true;
        self.stage = Stage::Over(ending);
        (input.len(), Flow::Halt)
    }

    fn stop(&mut self, stop: Stop, outgoing: &mut Outgoing) {
        self.stage = Stage::Over(match stop {
            Stop::Closed(code) => {
                outgoing.code = code;
                Ending::Closed
            }
            Stop::Broken(breach) => {
                outgoing.code = Some(breach.code());
                Ending::Broken(breach)
            }
        });
    }
}

impl Outgoing {
    fn is_between_frames(&self) -> bool {
        self.promised == 0 && self.header_sent == self.header_end
    }

    /// Writes the header of a frame that carries this many bytes.
    fn begin(&mut self, promised: usize) {
        let mut room = &mut self.header[..];
        let written = write_header(OpCode::Data(Data::Binary), promised, &mut room);
        let left = room.len();
        if written {
            self.header_sent = 0;
            // At most 10.
            self.header_end = (HEADER_BYTES_MAX - left) as u8;
            self.promised = promised;
        }
    }

    /// Writes the present frame on.
    fn send(
        &mut self,
        link: &mut Transport,
        stream: &Socket,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<Sent, Fault> {
        let header = &self.header[usize::from(self.header_sent)..usize::from(self.header_end)];
        let mut pieces = [IoSlice::new(&[]); SLICES + 1];
        pieces[0] = IoSlice::new(header);
        let (mut filled, mut left) = (1, self.promised);
        for slice in slices {
            if left == 0 {
                // What came since the header was written belongs to the next frame.
                break;
            }
            let length = slice.len().min(left);
            pieces[filled] = IoSlice::new(&slice[..length]);
            left -= length;
            filled += 1;
        }
        let first = usize::from(header.is_empty());
        let sent = link.send(stream, &pieces[first..filled], scratch)?;
        let of_header = sent.bytes.min(header.len());
        // At most 10.
        self.header_sent += of_header as u8;
        let bytes = sent.bytes - of_header;
        self.promised -= bytes;
        Ok(Sent {
            bytes,
            blocked: sent.blocked,
        })
    }

    /// Queues the answer to the last ping.
    fn answer_ping(&mut self) {
        if let Some(payload) = self.pong.take_if(|_| !self.closed) {
            self.control(Control::Pong, &payload);
        }
    }

    /// Queues a close.
    fn close(&mut self, code: CloseCode) {
        self.closed = true;
        // Nothing may follow a close.
        self.pong = None;
        self.control(Control::Close, &u16::from(code).to_be_bytes());
    }

    fn control(&mut self, control: Control, payload: &[u8]) {
        if write_header(OpCode::Control(control), payload.len(), &mut self.own) {
            self.own.extend_from_slice(payload);
        }
    }
}

/// Writes a header; false where it does not fit, which no caller lets happen.
fn write_header(opcode: OpCode, length: usize, into: &mut impl std::io::Write) -> bool {
    let header = FrameHeader {
        opcode,
        ..FrameHeader::default()
    };
    header.format(length as u64, into).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_websocket_is_small() {
        let bytes = size_of::<WebSocket>() + size_of::<Frames>();
        assert!(bytes <= 300, "{bytes}");
    }
}
