//! One commit as bytes: a header with number, length and checksum, then the body, padded to 8.
//!
//! ```text
//! 0   mark      4  "CMIT"
//! 4   length    4  bytes of the body, little-endian like all numbers
//! 8   number    8  one more than the commit before
//! 16  checksum  4  CRC-32C of salt, length, number and body
//! 20  zero      4
//! 24  body         then zeros up to a multiple of 8
//! ```
//!
//! The salt is the segment's own and random, so that the bytes of an older file that the disk
//! brings back in place of ours prove nothing. Where the segment is encrypted, the body is what
//! stands on disk, tag included: the checksum finds rot without a key.

/// What every commit begins with.
const MARK: [u8; 4] = *b"CMIT";

/// Bytes of a commit's header.
pub(crate) const HEADER_BYTES: usize = 24;

/// Every commit begins at a multiple of this, so that one behind a damaged one can be found.
pub(crate) const ALIGNMENT: usize = 8;

/// The largest body of one commit, bytes. Larger than any packet of MQTT with what goes along.
pub(crate) const BODY_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Random bytes of one segment.
pub(crate) type Salt = [u8; 16];

/// A header that may be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub number: u64,
    pub body_bytes: usize,
    checksum: u32,
}

impl Header {
    /// Reads a header; nothing where the bytes cannot be one.
    pub fn read(bytes: &[u8]) -> Option<Header> {
        let bytes: &[u8; HEADER_BYTES] = bytes.get(..HEADER_BYTES)?.try_into().ok()?;
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let length = u32::from_le_bytes(four(4)) as usize;
        let is_one = four(0) == MARK && four(20) == [0; 4] && length <= BODY_BYTES_MAX;
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8..16]);
        is_one.then_some(Header {
            number: u64::from_le_bytes(number),
            body_bytes: length,
            checksum: u32::from_le_bytes(four(16)),
        })
    }

    /// True where header and body are the ones that were written.
    pub fn fits(&self, salt: &Salt, body: &[u8]) -> bool {
        body.len() == self.body_bytes && checksum(salt, self.number, body) == self.checksum
    }

    /// Bytes of the whole commit on disk.
    pub fn frame_bytes(&self) -> usize {
        (HEADER_BYTES + self.body_bytes).next_multiple_of(ALIGNMENT)
    }
}

/// Leaves room for a header at the beginning of an emptied buffer; the body goes behind it.
pub(crate) fn begin(out: &mut Vec<u8>) {
    out.clear();
    out.resize(HEADER_BYTES, 0);
}

/// Writes the header of the body that stands behind it, at most [`BODY_BYTES_MAX`], and pads.
pub(crate) fn finish(salt: &Salt, number: u64, out: &mut Vec<u8>) {
    let (header, body) = out.split_at_mut(HEADER_BYTES);
    debug_assert!(body.len() <= BODY_BYTES_MAX);
    header[..4].copy_from_slice(&MARK);
    // Fits: the largest body is below 4 GiB.
    header[4..8].copy_from_slice(&(body.len() as u32).to_le_bytes());
    header[8..16].copy_from_slice(&number.to_le_bytes());
    header[16..20].copy_from_slice(&checksum(salt, number, body).to_le_bytes());
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}

fn checksum(salt: &Salt, number: u64, body: &[u8]) -> u32 {
    let sum = crc32c::crc32c(salt);
    let sum = crc32c::crc32c_append(sum, &(body.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &number.to_le_bytes());
    crc32c::crc32c_append(sum, body)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const SALT: Salt = [7; 16];

    fn written(number: u64, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        begin(&mut bytes);
        bytes.extend_from_slice(body);
        finish(&SALT, number, &mut bytes);
        bytes
    }

    #[test]
    fn what_was_written_is_read() {
        for length in [0, 1, 7, 8, 9, 1000] {
            let body = vec![0xAB; length];
            let bytes = written(42, &body);
            let header = Header::read(&bytes).unwrap();
            assert_eq!((header.number, header.body_bytes), (42, length));
            assert_eq!(header.frame_bytes(), bytes.len());
            assert!(header.fits(&SALT, &bytes[HEADER_BYTES..][..length]));
        }
    }

    /// Goal: no flipped bit passes. Method: every bit of a commit, one at a time; the zeros of the
    /// padding carry nothing.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let body = b"twelve bytes";
        let bytes = written(9, body);
        for bit in 0..(HEADER_BYTES + body.len()) * 8 {
            let mut bytes = bytes.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let passes = Header::read(&bytes).is_some_and(|header| {
                let body = bytes.get(HEADER_BYTES..HEADER_BYTES + header.body_bytes);
                body.is_some_and(|body| header.fits(&SALT, body))
            });
            assert!(!passes, "bit {bit}");
        }
    }

    #[test]
    fn bytes_of_another_segment_prove_nothing() {
        let bytes = written(9, b"x");
        let header = Header::read(&bytes).unwrap();
        assert!(!header.fits(&[8; 16], b"x"));
    }
}
