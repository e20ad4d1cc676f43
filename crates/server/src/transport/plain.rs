//! TCP without anything: the bytes of the socket are the bytes of MQTT.

use std::io::IoSlice;

use super::http::Greeting;
use super::{End, Fault, Flow, Received, Sent, TLS_HANDSHAKE};
use crate::socket::Socket;

/// A transport that changes nothing.
#[derive(Default)]
pub(crate) struct Plain {
    /// The first byte was seen, and it was not TLS.
    sniffed: bool,
    greeting: Greeting,
}

impl Plain {
    /// See [`super::Transport::receive`].
    pub fn receive(
        &mut self,
        input: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Received, Fault> {
        if !self.sniffed {
            match input.first() {
                Some(&TLS_HANDSHAKE) => return Err(Fault::TlsOnPlain),
                Some(_) => self.sniffed = true,
                None => {}
            }
        }
        let end = match self.greeting.pass(input, sink) {
            _ if self.greeting.is_http() => return Err(Fault::HttpOnMqtt),
            Flow::Onward => End::Blocked,
            Flow::Halt => End::Halted,
        };
        Ok(Received {
            taken: input.len(),
            end,
        })
    }

    /// See [`super::Transport::send`].
    pub fn send(&mut self, stream: &Socket, slices: &[IoSlice<'_>]) -> Result<Sent, Fault> {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(Sent {
                bytes: 0,
                blocked: false,
            });
        }
        let bytes = stream.write(slices)?.unwrap_or(0);
        // A short write means that the socket is full: asking again would only cost a call.
        Ok(Sent {
            bytes,
            blocked: bytes < wanted,
        })
    }
}
