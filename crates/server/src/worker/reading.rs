//! From the socket through the transport into the engine, a bounded piece at a time.

use std::io;

use casemate_engine::{ConnectionId, Input, Origin};

use super::{InHand, Worker, TURN_BYTES};
use crate::connection::Phase;
use crate::store::Line;
use crate::transport::{End, Flow, Plain, Tls, Transport};

/// Bytes of one read before a connection is granted: a full TLS record. Who is nobody yet must
/// not make us hold much.
const STRANGER_BYTES: usize = 17 * 1024;

/// The most that is read of a plain connection at a time, bytes. More costs as much for each
/// message, and lets those who flood hold the others up for longer.
const PLAIN_BYTES: usize = 32 * 1024;

/// Bytes of one read of TLS. What is not used when the engine halts is kept with the connection,
/// so a read is smaller than the buffer.
const TLS_BYTES: usize = 64 * 1024;

/// Bytes that a closing connection may still send us before it is cut off.
const DISCARD_BYTES: usize = 1024 * 1024;

/// What a read brought.
enum Heard {
    /// The engine or the transport has something; this many bytes came from the socket.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer has closed.
    Ended,
    /// The socket is broken.
    Broken,
}

impl Worker {
    /// Reads each connection in line once, until the turn's bytes are used up.
    pub(super) fn read_ready(&mut self) {
        if self.is_choked() {
            return;
        }
        let mut left = TURN_BYTES;
        for _ in 0..self.reading.len() {
            if left == 0 {
                return;
            }
            let Some(id) = self.reading.pop_front() else {
                return;
            };
            left = left.saturating_sub(self.read(id).max(1));
        }
    }

    /// True while the store has more to write than it should have waiting.
    pub(super) fn is_choked(&self) -> bool {
        self.line.as_ref().is_some_and(Line::is_choked)
    }

    /// Takes as many handshakes a step further as one turn may.
    pub(super) fn shake_hands(&mut self) {
        for _ in 0..self.broker.handshakes_per_turn {
            let Some(id) = self.shaking.pop_front() else {
                return;
            };
            self.read(id);
        }
    }

    /// Reads a connection once and puts it in line again if there may be more; bytes read.
    fn read(&mut self, id: ConnectionId) -> usize {
        let Some(connection) = self.connections.get_mut(id) else {
            return 0;
        };
        connection.queued = false;
        if !connection.wants_reading() {
            return 0;
        }
        if matches!(connection.phase, Phase::Lingering { .. }) {
            return self.discard(id);
        }
        let kept = connection.transport.take_ahead(&mut self.buffer);
        let unread = std::mem::take(&mut connection.unread);
        let limit = match connection.transport.tls() {
            _ if !connection.granted => STRANGER_BYTES,
            Some(_) => TLS_BYTES,
            None => PLAIN_BYTES,
        };
        let end = self.buffer.len().min(kept + limit);
        let outcome = self.read_socket(id, kept, end);
        let fresh = match outcome {
            Heard::Bytes(bytes) => bytes,
            Heard::Nothing | Heard::Ended | Heard::Broken => 0,
        };
        if kept + fresh > 0 || unread {
            self.in_hand = Some(InHand {
                id,
                start: 0,
                end: kept + fresh,
            });
            self.receive();
        }
        match outcome {
            Heard::Ended | Heard::Broken => self.lose_and_settle(id),
            Heard::Bytes(_) | Heard::Nothing => self.queue_reading(id),
        }
        fresh
    }

    /// One read into the buffer; notes whether the socket may have more.
    fn read_socket(&mut self, id: ConnectionId, start: usize, end: usize) -> Heard {
        let Some(connection) = self.connections.get_mut(id) else {
            return Heard::Nothing;
        };
        if !connection.readable && !connection.half_closed {
            return Heard::Nothing;
        }
        loop {
            match connection.stream.read(&mut self.buffer[start..end]) {
                Ok(0) => return Heard::Ended,
                Ok(bytes) => {
                    // A short read has emptied the socket: the next byte makes it ready again.
                    connection.readable = start + bytes == end;
                    connection
                        .transport
                        .heard(&self.buffer[start..start + bytes]);
                    return Heard::Bytes(bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.readable = false;
                    connection.half_closed = false;
                    return Heard::Nothing;
                }
                Err(_) => return Heard::Broken,
            }
        }
    }

    /// Hands the bytes in hand to the engine, serving its effects as they come.
    fn receive(&mut self) {
        // Whether the transport itself wants more bytes before it can go on.
        let mut blocked = false;
        while let Some(InHand { id, start, end }) = self.in_hand {
            let Some(connection) = self.connections.get_mut(id) else {
                break;
            };
            let handshake = matches!(connection.phase, Phase::Handshake);
            if !(handshake || connection.is_open() && !connection.paused) {
                break;
            }
            let (shard, effects, now) = (&mut self.shard, &mut self.effects, self.now);
            let input = &mut self.buffer[start..end];
            let outcome = connection
                .transport
                .receive(input, &mut self.scratch, &mut |bytes| {
                    shard.handle(now, Input::Received { id, bytes }, effects);
                    if effects.is_empty() {
                        Flow::Onward
                    } else {
                        Flow::Halt
                    }
                });
            let received = match outcome {
                Ok(received) => received,
                Err(fault) => {
                    self.in_hand = None;
                    self.refuse(id, &fault);
                    self.settle();
                    return;
                }
            };
            self.in_hand = Some(InHand {
                id,
                start: start + received.taken,
                end,
            });
            match received.end {
                End::Halted => {
                    self.settle();
                    if start + received.taken == end && !self.is_ahead(id) {
                        break;
                    }
                }
                End::Proxied => self.proxied(id),
                End::Encrypted => self.encrypted(id),
                End::Established => self.established(id),
                End::Blocked => {
                    blocked = true;
                    break;
                }
                End::Farewell => {
                    self.in_hand = None;
                    self.settle();
                    self.part(id);
                    self.settle();
                    return;
                }
                End::PeerClosed => {
                    self.in_hand = None;
                    self.settle();
                    self.lose_and_settle(id);
                    return;
                }
            }
        }
        // First of all: whatever is written next may need it.
        self.keep_in_hand(blocked);
        self.settle();
    }

    /// Leaves what is not used with the connection; a handover has taken it already.
    fn keep_in_hand(&mut self, blocked: bool) {
        let Some(InHand { id, start, end }) = self.in_hand.take() else {
            return;
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.transport.wants_writing() {
            self.dirty.push(id);
        }
        connection.unread = !blocked && (start < end || connection.transport.is_ahead());
        if let Err(fault) = connection.transport.keep_ahead(&self.buffer[start..end]) {
            self.refuse(id, &fault);
            self.settle();
        }
    }

    fn is_ahead(&mut self, id: ConnectionId) -> bool {
        let connection = self.connections.get_mut(id);
        connection.is_some_and(|connection| connection.transport.is_ahead())
    }

    /// A PROXY header is read: what stands behind it takes its place.
    fn proxied(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let nothing = Transport::Plain(Plain::default());
        let mut transport = std::mem::replace(&mut connection.transport, nothing);
        if let Transport::Proxy(proxy) = transport {
            let (behind, source) = proxy.into_parts();
            transport = behind;
            // For events and limits, never as identity.
            connection.address = source.or(connection.address.get()).into();
        }
        if let Some(InHand { start, end, .. }) = self.in_hand {
            transport.heard(&self.buffer[start..end]);
        }
        let established = transport.is_established();
        connection.transport = transport;
        self.count(|tally| &tally.proxied);
        if established {
            self.open(id);
            self.settle();
        }
    }

    /// A TLS handshake is over.
    fn encrypted(&mut self, id: ConnectionId) {
        self.count(|tally| &tally.handshakes);
        let tls = match self.connections.get_mut(id) {
            Some(connection) => connection.transport.tls(),
            None => None,
        };
        if tls.is_some_and(Tls::is_resumed) {
            self.count(|tally| &tally.handshakes_resumed);
        }
        // Tickets wait to be written.
        self.dirty.push(id);
    }

    /// A transport is up: the engine hears of the connection.
    fn established(&mut self, id: ConnectionId) {
        let websocket = match self.connections.get_mut(id) {
            Some(connection) => connection.transport.is_websocket(),
            None => return,
        };
        if websocket {
            // The answer to the request waits to be written.
            self.dirty.push(id);
            self.count(|tally| &tally.upgrades);
        } else {
            self.encrypted(id);
        }
        self.open(id);
        self.settle();
    }

    /// Tells the engine that a transport is up; its effects are left to the caller's `settle`.
    pub(super) fn open(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.phase = Phase::Open;
        connection.told = false;
        let origin = Origin {
            listener: connection.listener(),
            address: connection.address.get(),
            certificate: connection.transport.certificate(),
        };
        self.shard
            .handle(self.now, Input::Opened { id, origin }, &mut self.effects);
    }

    /// Reads and throws away what a closing connection still sends; bytes read.
    fn discard(&mut self, id: ConnectionId) -> usize {
        let end = self.buffer.len();
        match self.read_socket(id, 0, end) {
            Heard::Bytes(bytes) => {
                let Some(connection) = self.connections.get_mut(id) else {
                    return bytes;
                };
                if let Phase::Lingering { discarded } = &mut connection.phase {
                    *discarded += bytes;
                    if *discarded > DISCARD_BYTES {
                        self.lose_and_settle(id);
                        return bytes;
                    }
                }
                self.queue_reading(id);
                bytes
            }
            Heard::Nothing => 0,
            Heard::Ended | Heard::Broken => {
                self.lose_and_settle(id);
                0
            }
        }
    }

    fn lose_and_settle(&mut self, id: ConnectionId) {
        self.lose(id);
        self.settle();
    }
}
