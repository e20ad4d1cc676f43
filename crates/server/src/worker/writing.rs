//! From the engine through the transport into the socket: once per turn for whoever has news.

use std::io::IoSlice;

use casemate_engine::{ConnectionId, Input};

use super::Worker;
use crate::connection::Phase;

/// Rounds of writing in one turn: writing may bring more to write.
const ROUNDS: usize = 4;

/// Writes of one connection in one round.
const WRITES: usize = 16;

/// Pieces of one write; Linux takes at most 1,024.
const SLICES: usize = 64;

impl Worker {
    /// Writes every connection that has something to say.
    pub(super) fn write_dirty(&mut self) {
        for _ in 0..ROUNDS {
            self.shard.take_dirty(&mut self.dirty);
            if self.dirty.is_empty() {
                return;
            }
            let mut dirty = std::mem::take(&mut self.dirty);
            for id in dirty.drain(..) {
                self.write(id);
            }
            if self.dirty.is_empty() {
                self.dirty = dirty;
            }
            self.settle();
        }
        self.shard.take_dirty(&mut self.dirty);
    }

    /// Writes one connection until nothing is left or the socket is full.
    ///
    /// Runs inside effects too, so it leaves its own effects to the caller.
    pub(super) fn write(&mut self, id: ConnectionId) {
        for _ in 0..WRITES {
            let Some(connection) = self.connections.get_mut(id) else {
                return;
            };
            if !connection.writable {
                return;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = match &connection.phase {
                Phase::Handshake | Phase::Lingering { .. } => 0,
                Phase::Open => self.shard.outgoing(id).slices(&mut slices),
                Phase::Draining(drain) => {
                    slices[0] = IoSlice::new(&drain.bytes[drain.sent..]);
                    usize::from(drain.sent < drain.bytes.len())
                }
            };
            let outcome =
                connection
                    .transport
                    .send(&connection.stream, &slices[..filled], &mut self.scratch);
            let sent = match outcome {
                Ok(sent) => sent,
                Err(_) => {
                    self.lose(id);
                    return;
                }
            };
            connection.writable = !sent.blocked;
            match &mut connection.phase {
                Phase::Draining(drain) => drain.sent += sent.bytes,
                Phase::Open if sent.bytes > 0 => {
                    let input = Input::Sent {
                        id,
                        bytes: sent.bytes,
                    };
                    let is_done = !sent.blocked && !connection.transport.wants_writing();
                    self.shard.handle(self.now, input, &mut self.effects);
                    if is_done && self.shard.outgoing(id).bytes() == 0 {
                        // As nearly always: all has left with one call.
                        return;
                    }
                }
                _ => {}
            }
            if sent.blocked || sent.bytes == 0 && !self.drained(id) {
                return;
            }
        }
        // It takes as fast as we write; the others come first.
        self.dirty.push(id);
    }

    /// Everything of a connection is written. True where a closing connection has more to say.
    fn drained(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get_mut(id) else {
            return false;
        };
        let Phase::Draining(drain) = &mut connection.phase else {
            return false;
        };
        if !drain.finished {
            drain.finished = connection.transport.finish();
            return true;
        }
        self.half_close(id);
        false
    }
}
