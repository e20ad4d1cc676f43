//! Incoming frames: headers come off, masks come off, and what they carried is pushed together.

use std::io::Cursor;

use casemate_engine::Millis;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::FrameHeader;

/// The longest header of a frame: two bytes, eight of a length, four of a mask.
const HEADER_BYTES_MAX: usize = 14;

/// The most that a ping, a pong or a close may carry (RFC 6455 §5.5).
const CONTROL_BYTES_MAX: u64 = 125;

/// Frames without MQTT bytes that a peer may write at once.
const SPARE_MAX: u64 = 256;

/// How many of them each second makes up for. Keep-alive pings come every few seconds.
const SPARE_PER_S: u64 = 10;

/// What is wrong with a frame; the peer hears its code, an operator reads the sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Breach {
    /// RFC 6455 §5.6 has text too, MQTT has not.
    #[error("a text frame, where MQTT is carried in binary ones")]
    Text,
    /// RFC 6455 §5.1.
    #[error("a frame without a mask")]
    Unmasked,
    /// No extension is ever agreed on, so that no frame can use one.
    #[error("a frame that uses an extension")]
    Reserved,
    /// An opcode that means nothing.
    #[error("a frame of an unknown kind")]
    Kind,
    /// A fragment without a beginning, or a beginning within a message.
    #[error("a fragment out of place")]
    Fragment,
    /// A control frame that is fragmented or carries too much.
    #[error("a control frame that is too long or fragmented")]
    Control,
    /// A length that is not written in its shortest form.
    #[error("a frame whose length is badly written")]
    Length,
    /// A length that no frame of MQTT has.
    #[error("a frame that is too long")]
    TooLong,
    /// A close whose code or text is none.
    #[error("a close frame that says nothing valid")]
    Close,
    /// Too many frames that carry no byte of MQTT.
    #[error("too many frames without content")]
    Flood,
}

impl Breach {
    /// What the peer is told.
    pub fn code(self) -> CloseCode {
        match self {
            Breach::Text => CloseCode::Unsupported,
            Breach::TooLong => CloseCode::Size,
            Breach::Flood => CloseCode::Policy,
            _ => CloseCode::Protocol,
        }
    }
}

/// Why no frame follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The peer says good-bye, perhaps with a code, which is to be said back.
    Closed(Option<CloseCode>),
    /// The peer broke the rules.
    Broken(Breach),
}

/// Reads frames out of a stream of bytes, cut anywhere.
#[derive(Default)]
pub(super) struct Frames {
    header: [u8; HEADER_BYTES_MAX],
    header_have: usize,
    /// The present frame is being read.
    inside: bool,
    /// What of it is still to come, bytes.
    left: u32,
    /// Turned so that its first byte is for the next one that comes.
    mask: [u8; 4],
    /// The present frame, where it is one of control.
    control: Option<Control>,
    /// What a control frame carried so far.
    said: Vec<u8>,
    /// A message has begun and its last frame has not.
    in_message: bool,
    flood: Flood,
}

impl Frames {
    /// Reads all of `input` and pushes the bytes of MQTT to its start; how many those are.
    ///
    /// The payload of a ping replaces `pong`: only the last one must be answered
    /// (RFC 6455 §5.5.3), so that a peer that never reads makes us keep no more than that.
    ///
    /// A frame is never kept: a packet may span many of them and a frame may carry many packets,
    /// which the engine tells apart by itself.
    pub fn read(
        &mut self,
        input: &mut [u8],
        now: Millis,
        pong: &mut Option<Box<[u8]>>,
    ) -> (usize, Result<(), Stop>) {
        let (mut at, mut out) = (0, 0);
        while at < input.len() {
            if !self.inside {
                match self.header(&input[at..], now) {
                    Ok(taken) => at += taken,
                    Err(breach) => return (out, Err(Stop::Broken(breach))),
                }
                if !self.inside || self.left > 0 {
                    continue;
                }
            }
            let length = (input.len() - at).min(self.left as usize);
            let piece = &mut input[at..at + length];
            unmask(piece, &mut self.mask);
            if self.control.is_some() {
                self.said.extend_from_slice(piece);
            } else {
                // Where a packet begins or ends is nothing to a frame.
                // [MQTT-6.0.0-2] [MQTT-3.1.1 6.0.0-2]
                input.copy_within(at..at + length, out);
                out += length;
            }
            at += length;
            // It is no longer than what was left.
            self.left -= length as u32;
            if self.left == 0 {
                if let Err(stop) = self.end(pong) {
                    return (out, Err(stop));
                }
            }
        }
        (out, Ok(()))
    }

    /// Reads a header or a part of it; bytes taken.
    fn header(&mut self, input: &[u8], now: Millis) -> Result<usize, Breach> {
        let have = self.header_have;
        let take = input.len().min(HEADER_BYTES_MAX - have);
        self.header[have..have + take].copy_from_slice(&input[..take]);
        let mut cursor = Cursor::new(&self.header[..have + take]);
        match FrameHeader::parse(&mut cursor) {
            Ok(None) => {
                self.header_have += take;
                Ok(take)
            }
            Ok(Some((header, length))) => {
                // At most 14.
                let bytes = cursor.position() as usize;
                if bytes != header.len(length) {
                    return Err(Breach::Length);
                }
                self.header_have = 0;
                self.begin(&header, length, now)?;
                Ok(bytes - have)
            }
            Err(_) => Err(Breach::Kind),
        }
    }

    /// Judges a whole header.
    fn begin(&mut self, header: &FrameHeader, length: u64, now: Millis) -> Result<(), Breach> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Breach::Reserved);
        }
        self.mask = header.mask.ok_or(Breach::Unmasked)?;
        self.control = None;
        match header.opcode {
            OpCode::Control(_) if !header.is_final || length > CONTROL_BYTES_MAX => {
                return Err(Breach::Control);
            }
            OpCode::Control(control) => self.control = Some(control),
            // [MQTT-6.0.0-1] [MQTT-3.1.1 6.0.0-1]
            OpCode::Data(Data::Text) => return Err(Breach::Text),
            OpCode::Data(Data::Binary) if self.in_message => return Err(Breach::Fragment),
            OpCode::Data(Data::Continue) if !self.in_message => return Err(Breach::Fragment),
            OpCode::Data(_) => self.in_message = !header.is_final,
        }
        // It is not kept, whatever its length; but no batch of packets comes near to this one.
        self.left = u32::try_from(length).map_err(|_| Breach::TooLong)?;
        self.inside = true;
        if self.control.is_some() || length == 0 {
            self.flood.empty(now)
        } else {
            self.flood.content();
            Ok(())
        }
    }

    /// The present frame is whole.
    fn end(&mut self, pong: &mut Option<Box<[u8]>>) -> Result<(), Stop> {
        self.inside = false;
        let said = std::mem::take(&mut self.said);
        match self.control {
            Some(Control::Ping) => *pong = Some(said.into_boxed_slice()),
            Some(Control::Close) => return Err(farewell(&said)),
            // A pong that nobody asked for is allowed (RFC 6455 §5.5.3), and so is none.
            _ => {}
        }
        Ok(())
    }
}

/// What a close frame says.
fn farewell(said: &[u8]) -> Stop {
    let Some((code, reason)) = said.split_first_chunk() else {
        return match said {
            [] => Stop::Closed(None),
            _ => Stop::Broken(Breach::Close),
        };
    };
    let code = CloseCode::from(u16::from_be_bytes(*code));
    if !code.is_allowed() || std::str::from_utf8(reason).is_err() {
        return Stop::Broken(Breach::Close);
    }
    Stop::Closed(Some(code))
}

/// Takes the mask off, and turns it for the bytes that follow.
fn unmask(piece: &mut [u8], mask: &mut [u8; 4]) {
    let turned = piece.len() % mask.len();
    let [a, b, c, d] = *mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut words = piece.chunks_exact_mut(size_of::<u64>());
    for word in &mut words {
        let mut bytes = [0; size_of::<u64>()];
        bytes.copy_from_slice(word);
        word.copy_from_slice(&(u64::from_ne_bytes(bytes) ^ wide).to_ne_bytes());
    }
    for (byte, part) in words.into_remainder().iter_mut().zip(mask.iter().cycle()) {
        *byte ^= part;
    }
    mask.rotate_left(turned);
}

/// Counts frames that bring nothing: each costs us a look, a ping an answer too.
struct Flood {
    spare: u64,
    since_s: u64,
}

impl Default for Flood {
    fn default() -> Flood {
        Flood {
            spare: SPARE_MAX,
            since_s: 0,
        }
    }
}

impl Flood {
    fn empty(&mut self, now: Millis) -> Result<(), Breach> {
        let now_s = now / 1000;
        let elapsed_s = now_s.saturating_sub(self.since_s);
        self.since_s = now_s;
        self.spare = SPARE_MAX.min(self.spare.saturating_add(elapsed_s * SPARE_PER_S));
        self.spare = self.spare.checked_sub(1).ok_or(Breach::Flood)?;
        Ok(())
    }

    /// Whoever may send a message may send a ping beside it.
    fn content(&mut self) {
        self.spare = SPARE_MAX.min(self.spare + 1);
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
