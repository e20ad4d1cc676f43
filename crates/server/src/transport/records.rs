//! Counting TLS records as they pass, without decrypting any.
//!
//! A peer can write records that bring us no byte: key updates, each of which makes us derive
//! keys, or application data of length 0 (CVE-2026-39304 was such a flood). rustls bounds runs of
//! key updates; this counts everything that carries nothing, whatever it is.

/// Bytes of a record's header; the last two are the length of what follows.
const HEADER_BYTES: usize = 5;

/// Records without content that a connection may write at once. A handshake has about ten, or
/// some more where a long certificate chain is cut into small records.
const EMPTY_MAX: u64 = 256;

/// Records with content that make up for one without.
const CONTENT_PER_EMPTY: u64 = 16;

/// Finds the ends of records in a stream of bytes, cut anywhere.
#[derive(Default)]
pub(crate) struct Records {
    header: [u8; HEADER_BYTES],
    header_have: usize,
    body_left: usize,
    ended: u64,
    with_content: u64,
}

impl Records {
    /// Walks over bytes as they came.
    pub fn heard(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.header_have < HEADER_BYTES {
                let step = bytes.len().min(HEADER_BYTES - self.header_have);
                self.header[self.header_have..self.header_have + step]
                    .copy_from_slice(&bytes[..step]);
                self.header_have += step;
                bytes = &bytes[step..];
                if self.header_have < HEADER_BYTES {
                    return;
                }
                self.body_left = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
            let step = bytes.len().min(self.body_left);
            self.body_left -= step;
            bytes = &bytes[step..];
            if self.body_left == 0 {
                self.header_have = 0;
                self.ended += 1;
            }
        }
    }

    /// A record brought application data.
    pub fn content(&mut self) {
        self.with_content += 1;
    }

    /// True where too many of the records that ended carried nothing. Only meaningful when every
    /// record that ended has also been decrypted.
    pub fn are_too_empty(&self) -> bool {
        let empty = self.ended.saturating_sub(self.with_content);
        empty > EMPTY_MAX + self.with_content / CONTENT_PER_EMPTY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(records: usize) -> Vec<u8> {
        (0..records)
            .flat_map(|n| {
                let body = n % 300;
                let mut record = vec![23, 3, 3, (body >> 8) as u8, body as u8];
                record.extend(std::iter::repeat_n(0xAA, body));
                record
            })
            .collect()
    }

    #[test]
    fn records_are_counted_however_the_stream_is_cut() {
        let bytes = stream(700);
        for step in [1, 2, 3, 4, 5, 6, 7, 64, 1000, bytes.len()] {
            let mut records = Records::default();
            bytes.chunks(step).for_each(|chunk| records.heard(chunk));
            assert_eq!(
                (records.ended, records.header_have),
                (700, 0),
                "step {step}"
            );
        }
    }

    #[test]
    fn cve_2026_39304_empty_records_are_bounded() {
        let mut records = Records::default();
        records.heard(&stream(EMPTY_MAX as usize));
        assert!(!records.are_too_empty());
        records.heard(&stream(1));
        assert!(records.are_too_empty());
    }

    #[test]
    fn records_with_content_are_never_too_many() {
        let mut records = Records::default();
        for _ in 0..100_000 {
            records.heard(&[23, 3, 3, 0, 1, 0]);
            records.content();
        }
        assert!(!records.are_too_empty());
    }
}
