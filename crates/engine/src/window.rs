//! The encoded window of a connection: the bytes on their way to its socket.

use std::io::IoSlice;

use crate::message::Message;
use crate::queue::Queue;

/// Payloads from this size on are written from where they are instead of being copied, bytes.
pub(crate) const SPLICE_BYTES: usize = 8 * 1024;

/// Buffers a pool keeps, and the largest that it takes back.
const POOL_BUFFERS: usize = 128;
const POOL_BUFFER_BYTES: usize = 1024 * 1024;

/// Bytes to write, in order; idle windows hold no buffer.
#[derive(Default)]
pub(crate) struct Window {
    inline: Vec<u8>,
    /// How much of `inline` has left.
    sent: usize,
    splices: Queue<Splice>,
    /// Bytes of payloads that stand in `splices` and have not left.
    spliced_bytes: usize,
}

/// A payload that stands before `inline[at]`.
struct Splice {
    at: usize,
    message: Message,
    sent: usize,
}

/// Buffers that windows give back when they are empty.
#[derive(Default)]
pub(crate) struct Pool(Vec<Vec<u8>>);

/// A view of what is to be written.
pub struct Outgoing<'a>(Option<&'a Window>);

impl<'a> Outgoing<'a> {
    pub(crate) fn new(window: Option<&'a Window>) -> Outgoing<'a> {
        Outgoing(window)
    }

    /// How much there is, bytes.
    pub fn bytes(&self) -> usize {
        self.0.map_or(0, Window::bytes)
    }

    /// Fills `slices` with the next pieces in order, and says how many it filled.
    pub fn slices(&self, slices: &mut [IoSlice<'a>]) -> usize {
        self.0.map_or(0, |window| window.slices(slices))
    }
}

impl Window {
    pub fn bytes(&self) -> usize {
        self.inline.len() - self.sent + self.spliced_bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// The buffer to append whole packets to.
    #[inline]
    pub fn buffer(&mut self, pool: &mut Pool) -> &mut Vec<u8> {
        if self.inline.capacity() == 0 {
            self.inline = pool.0.pop().unwrap_or_default();
        }
        &mut self.inline
    }

    /// Appends the payload of a message without copying it.
    pub fn splice(&mut self, message: Message) {
        self.spliced_bytes += message.payload().len();
        self.splices.push_back(Splice {
            at: self.inline.len(),
            message,
            sent: 0,
        });
    }

    fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        let mut from = self.sent;
        let mut put = |bytes: &'a [u8]| {
            if !bytes.is_empty() && filled < slices.len() {
                slices[filled] = IoSlice::new(bytes);
                filled += 1;
            }
            filled < slices.len()
        };
        for splice in self.splices.iter() {
            if !put(&self.inline[from..splice.at]) || !put(&splice.message.payload()[splice.sent..])
            {
                return filled;
            }
            from = splice.at;
        }
        put(&self.inline[from..]);
        filled
    }

    /// Forgets the first `bytes`; gives the buffer back when nothing is left.
    pub fn advance(&mut self, bytes: usize, pool: &mut Pool) {
        let mut left = bytes.min(self.bytes());
        while left > 0 {
            let inline_end = self
                .splices
                .front()
                .map_or(self.inline.len(), |splice| splice.at);
            let step = left.min(inline_end - self.sent);
            self.sent += step;
            left -= step;
            if left == 0 {
                break;
            }
            if let Some(splice) = self.splices.front_mut() {
                let step = left.min(splice.message.payload().len() - splice.sent);
                splice.sent += step;
                self.spliced_bytes -= step;
                left -= step;
                if splice.sent == splice.message.payload().len() {
                    self.splices.pop_front();
                }
            }
        }
        if self.is_empty() {
            self.clear(pool);
        } else if self.sent > POOL_BUFFER_BYTES / 4 {
            self.inline.drain(..self.sent);
            for splice in self.splices.iter_mut() {
                splice.at -= self.sent;
            }
            self.sent = 0;
        }
    }

    /// Drops everything.
    pub fn clear(&mut self, pool: &mut Pool) {
        let mut buffer = std::mem::take(&mut self.inline);
        self.splices.clear();
        self.sent = 0;
        self.spliced_bytes = 0;
        if buffer.capacity() > 0
            && buffer.capacity() <= POOL_BUFFER_BYTES
            && pool.0.len() < POOL_BUFFERS
        {
            buffer.clear();
            pool.0.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use casemate_codec::QoS;

    use super::*;
    use crate::journal::Whole;
    use crate::message::Draft;

    fn message(payload: &[u8]) -> Message {
        let draft = Draft {
            tenant: 0,
            topic: "t",
            properties: &[],
            payload,
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: 0,
            publisher: 0,
            whole: Whole::NONE,
        };
        draft.keep(&mut Vec::new())
    }

    fn read(window: &Window, slices_max: usize) -> Vec<u8> {
        let mut slices = vec![IoSlice::new(&[]); slices_max];
        let filled = window.slices(&mut slices);
        slices[..filled]
            .iter()
            .flat_map(|slice| slice.iter().copied())
            .collect()
    }

    #[test]
    fn bytes_and_payloads_leave_in_order_at_any_step() {
        for step in 1..20 {
            let (mut window, mut pool) = (Window::default(), Pool::default());
            window.buffer(&mut pool).extend_from_slice(b"ab");
            window.splice(message(b"CDEF"));
            window.splice(message(b"GH"));
            window.buffer(&mut pool).extend_from_slice(b"ij");
            window.splice(message(b"K"));
            let mut seen = Vec::new();
            while !window.is_empty() {
                let next = read(&window, 8);
                let take = step.min(next.len());
                seen.extend_from_slice(&next[..take]);
                window.advance(take, &mut pool);
            }
            assert_eq!(seen, b"abCDEFGHijK");
            assert_eq!(
                window.inline.capacity(),
                0,
                "an idle window holds no buffer"
            );
        }
    }

    #[test]
    fn few_slices_show_the_beginning() {
        let (mut window, mut pool) = (Window::default(), Pool::default());
        window.buffer(&mut pool).extend_from_slice(b"ab");
        window.splice(message(b"CD"));
        window.buffer(&mut pool).extend_from_slice(b"ef");
        assert_eq!(read(&window, 1), b"ab");
        assert_eq!(read(&window, 2), b"abCD");
        assert_eq!(read(&window, 3), b"abCDef");
    }
}
