//! How shards write to each other and into the journal: little-endian, lengths first.

use casemate_codec::QoS;

use crate::journal::Whole;
use crate::message::Draft;

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
}

/// Writes a text of at most 65,535 bytes, as topics and filters are.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

pub(crate) fn put_long_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_message(out: &mut Vec<u8>, draft: &Draft<'_>) {
    out.push(draft.qos as u8 | u8::from(draft.retain) << 2);
    out.extend_from_slice(&draft.tenant.to_le_bytes());
    out.extend_from_slice(&draft.publisher.to_le_bytes());
    out.extend_from_slice(&draft.expires_at.to_le_bytes());
    put_text(out, draft.topic);
    put_long_bytes(out, draft.properties);
    put_long_bytes(out, draft.payload);
}

pub(crate) fn put_whole(out: &mut Vec<u8>, whole: Whole) {
    out.extend_from_slice(&whole.0.to_le_bytes());
}

/// Reads what the functions above wrote.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes that have not been read.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn byte(&mut self) -> Option<u8> {
        Some(self.array::<1>()?[0])
    }

    pub fn int(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.array()?))
    }

    pub fn long(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.array()?))
    }

    pub fn text(&mut self) -> Option<&'a str> {
        let bytes = u16::from_le_bytes(self.array()?);
        std::str::from_utf8(self.take(usize::from(bytes))?).ok()
    }

    pub fn long_bytes(&mut self) -> Option<&'a [u8]> {
        let bytes = self.int()?;
        self.take(bytes as usize)
    }

    pub fn message(&mut self) -> Option<Draft<'a>> {
        let flags = self.byte()?;
        Some(Draft {
            qos: QoS::from_bits(flags & 3)?,
            retain: flags & 4 != 0,
            tenant: self.int()?,
            publisher: self.long()?,
            expires_at: self.long()?,
            topic: self.text()?,
            properties: self.long_bytes()?,
            payload: self.long_bytes()?,
            whole: Whole::NONE,
        })
    }

    pub fn whole(&mut self) -> Option<Whole> {
        Some(Whole(self.long()?))
    }
}
