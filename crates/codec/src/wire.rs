//! The data types of the wire, read from a slice that only ever gets shorter.

use std::num::NonZeroU16;

use crate::frame::varint;
use crate::{Malformed, PacketId};

/// The bytes of a packet that are still to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Refuses bytes that no field has claimed.
    #[inline]
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(Malformed::TrailingBytes)
        }
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        let (&byte, rest) = self.rest.split_first().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn two(&mut self) -> Result<u16, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u16::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn four(&mut self) -> Result<u32, Malformed> {
        let (bytes, rest) = self.rest.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(u32::from_be_bytes(*bytes))
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        // Most lengths inside a packet are below 128.
        if let Some((&byte, rest)) = self.rest.split_first() {
            if byte < 0x80 {
                self.rest = rest;
                return Ok(u32::from(byte));
            }
        }
        let (value, bytes) = varint(self.rest)?.ok_or(Malformed::Truncated)?;
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    #[inline]
    pub(crate) fn take(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .rest
            .split_at_checked(bytes)
            .ok_or(Malformed::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Binary data: two bytes of length and that many bytes.
    #[inline]
    pub(crate) fn binary(&mut self) -> Result<&'a [u8], Malformed> {
        let bytes = usize::from(self.two()?);
        self.take(bytes)
    }

    /// A string that may still contain U+0000, for callers that look for it on their own.
    #[inline]
    pub(crate) fn unchecked_string(&mut self) -> Result<&'a str, Malformed> {
        // [MQTT-1.5.4-1] [MQTT-3.1.1 1.5.3-1] Nothing is skipped or replaced, a leading U+FEFF
        // included ([MQTT-1.5.4-3], [MQTT-3.1.1 1.5.3-3]).
        simdutf8::basic::from_utf8(self.binary()?).map_err(|_| Malformed::NotUtf8)
    }

    /// A string of the protocol: well-formed UTF-8 without U+0000.
    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, Malformed> {
        let text = self.unchecked_string()?;
        // [MQTT-1.5.4-2] [MQTT-3.1.1 1.5.3-2]
        if memchr::memchr(0, text.as_bytes()).is_some() {
            return Err(Malformed::NullCharacter);
        }
        Ok(text)
    }

    /// A pair of strings ([MQTT-1.5.7-1]).
    pub(crate) fn pair(&mut self) -> Result<(&'a str, &'a str), Malformed> {
        Ok((self.string()?, self.string()?))
    }

    /// A packet identifier; 0 is nobody's ([MQTT-2.2.1-3], [MQTT-2.2.1-4], [MQTT-3.1.1 2.3.1-1]).
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<PacketId, Malformed> {
        NonZeroU16::new(self.two()?).ok_or(Malformed::ZeroPacketId)
    }
}
