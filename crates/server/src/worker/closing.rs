//! The end of a connection: last words, the half close, and what has taken too long.

use std::io::IoSlice;

use casemate_engine::{ConnectionId, Input, ListenerId, Loss};

use super::{Worker, LINGER_MS};
use crate::broker::Oddity;
use crate::connection::{Connection, Drain, Phase};
use crate::event::EventKind;

/// Pieces of the last bytes that are looked at first; more of them are looked at again.
const SLICES: usize = 64;

/// Connections that are looked at for one that must give way: with more, who floods one listener
/// would make every connection of another one dear.
const EVICTION_LOOKS: usize = 256;

impl Worker {
    /// The engine is done with a connection: what it has left is written, then it is closed.
    pub(super) fn close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        let bytes = self.last_bytes(id);
        self.drain(id, bytes, false);
    }

    /// The peer has said good-bye and waits for ours: what the engine has left is written, then
    /// the transport answers.
    pub(super) fn part(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.is_open() {
            return;
        }
        let bytes = self.last_bytes(id);
        self.say_closed(id, Loss::Transport);
        self.drain(id, bytes, false);
    }

    /// Copies what the engine still holds for a connection, at most one window.
    fn last_bytes(&self, id: ConnectionId) -> Vec<u8> {
        let outgoing = self.shard.outgoing(id);
        let mut count = SLICES;
        loop {
            let mut slices = vec![IoSlice::new(&[]); count];
            let filled = outgoing.slices(&mut slices);
            if filled < count {
                let slices = &slices[..filled];
                return slices
                    .iter()
                    .flat_map(|slice| slice.iter().copied())
                    .collect();
            }
            count *= 2;
        }
    }

    /// Writes `bytes` and the transport's good-bye, unless that is said, and closes.
    pub(super) fn drain(&mut self, id: ConnectionId, bytes: Vec<u8>, finished: bool) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if let Some(question) = connection.question.take() {
            self.broker.forget_question(question.get());
        }
        connection.phase = Phase::Draining(Box::new(Drain {
            bytes,
            sent: 0,
            finished,
        }));
        self.linger_deadlines.push_back((self.now + LINGER_MS, id));
        self.dirty.push(id);
    }

    /// All is written: closes our half and waits for the peer to close its own.
    pub(super) fn half_close(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if connection.stream.end_writing().is_err() {
            self.lose(id);
            return;
        }
        connection.phase = Phase::Lingering { discarded: 0 };
        // Readiness while nothing was read has been told once and is not told again.
        connection.readable = true;
        self.queue_reading(id);
    }

    /// A connection is gone: closes the socket and tells the engine.
    ///
    /// Runs inside effects too, so it leaves its own effects to the caller.
    pub(super) fn lose(&mut self, id: ConnectionId) {
        let loss = match self
            .connections
            .get_mut(id)
            .map(|connection| &connection.phase)
        {
            Some(Phase::Handshake) => Loss::Handshake,
            _ => Loss::Transport,
        };
        self.say_closed(id, loss);
        if let Some(connection) = self.connections.remove(id) {
            if let Some(question) = connection.question {
                self.broker.forget_question(question.get());
            }
        }
    }

    /// Tells the engine, once, that a connection is gone.
    pub(super) fn say_closed(&mut self, id: ConnectionId, loss: Loss) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !std::mem::replace(&mut connection.told, true) {
            self.again = true;
            self.shard
                .handle(self.now, Input::Closed { id, loss }, &mut self.effects);
        }
    }

    /// Makes room for a newcomer: the oldest connection that has not proven itself must go.
    ///
    /// Otherwise whoever opens connections and says nothing would keep everybody else out for as
    /// long as the connect deadline (CVE-2020-13849 and its like).
    pub(super) fn evict_stranger(&mut self) -> bool {
        while let Some((_, id)) = self.strangers.pop_front() {
            if self.is_stranger(id) {
                self.count(|tally| &tally.evicted);
                self.lose(id);
                return true;
            }
        }
        false
    }

    /// The same for a newcomer of a listener that is full: one of its own must go, where there is
    /// one among the oldest of all.
    pub(super) fn evict_stranger_of(&mut self, listener: ListenerId) -> bool {
        let oldest: Vec<_> = self
            .strangers
            .iter()
            .take(EVICTION_LOOKS)
            .copied()
            .collect();
        for (_, id) in oldest {
            let connection = self.connections.get_mut(id);
            if connection.is_some_and(|it| it.listener() == listener) && self.is_stranger(id) {
                self.count(|tally| &tally.evicted);
                self.lose(id);
                return true;
            }
        }
        false
    }

    /// True for a connection that has not proven itself, and is not on its way out.
    fn is_stranger(&mut self, id: ConnectionId) -> bool {
        self.connections.get_mut(id).is_some_and(|connection| {
            !connection.granted && matches!(connection.phase, Phase::Handshake | Phase::Open)
        })
    }

    /// Ends handshakes that are not done by the connect deadline.
    pub(super) fn end_late_handshakes(&mut self) {
        while let Some(&(due, id)) = self.strangers.front() {
            let is_due = due <= self.now;
            // Those who have proven themselves need not be remembered until their deadline.
            if !is_due && self.is_stranger(id) {
                break;
            }
            self.strangers.pop_front();
            let connection = self.connections.get_mut(id);
            let is_late = |it: &&mut Connection| is_due && matches!(it.phase, Phase::Handshake);
            let Some(connection) = connection.filter(is_late) else {
                continue;
            };
            let (listener, address) = (connection.listener(), connection.address.get());
            self.count(|tally| &tally.handshake_timeouts);
            if self.broker.is_news(address, Oddity::Timeout) {
                self.tell(Some(listener), address, EventKind::HandshakeTimeout);
            }
            self.lose(id);
        }
        self.settle();
    }

    /// Cuts off what has not closed in time.
    pub(super) fn end_late_lingerers(&mut self) {
        while let Some(&(due, id)) = self.linger_deadlines.front() {
            if due > self.now {
                break;
            }
            self.linger_deadlines.pop_front();
            self.lose(id);
        }
        self.settle();
    }
}
