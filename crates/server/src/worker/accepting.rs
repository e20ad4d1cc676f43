//! Taking connections from the listeners, and what happens when that fails.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use casemate_engine::{ConnectionId, ListenerId, Millis, PeerAddress};
use mio::{Interest, Registry};

use super::Worker;
use crate::connection::Connection;
use crate::entrance::{Doorway, Entry};
use crate::event::EventKind;
use crate::socket::{Acceptor, Socket};
use crate::token;
use crate::transport::{Plain, Transport};

/// Connections taken from one listener in one turn.
const BATCH: usize = 64;

/// Connections taken and closed at once when descriptors have run out.
const SHED: usize = 16;

/// How long accepting rests after a failure that will not pass by itself, ms.
const REST_MS: Millis = 100;

/// One shard's socket of one listener.
pub(crate) struct Door {
    socket: Acceptor,
    doorway: Arc<Doorway>,
    /// Connections may be waiting.
    pub ready: bool,
    /// The present burst of connections that there is no room for has been told about.
    full_told: bool,
}

impl Door {
    /// A socket that already listens, and what is said about those who come through it.
    pub fn new(socket: Acceptor, doorway: Arc<Doorway>) -> Door {
        // Connections may have come before the poll looks.
        Door {
            socket,
            doorway,
            ready: true,
            full_told: false,
        }
    }

    /// The listener's number.
    pub fn id(&self) -> ListenerId {
        self.doorway.id
    }

    /// Joins the poll of its shard.
    pub fn register(&mut self, registry: &Registry) -> io::Result<()> {
        let token = token::door(self.doorway.id);
        self.socket.register(registry, token)
    }
}

impl Worker {
    /// Takes a batch from each listener that has connections.
    pub(super) fn accept(&mut self) {
        if self.accept_after.is_some_and(|after| self.now < after) {
            return;
        }
        self.accept_after = None;
        for number in 0..self.doors.len() {
            for _ in 0..BATCH {
                let door = &mut self.doors[number];
                if !door.ready || self.accept_after.is_some() {
                    break;
                }
                match door.socket.accept() {
                    Ok((stream, address)) => self.welcome(number, stream, address),
                    Err(error) => self.accept_failed(number, &error),
                }
                self.settle();
            }
        }
    }

    /// Sets a new connection up, or closes it where there are as many as may be.
    fn welcome(&mut self, number: usize, stream: Socket, address: Option<SocketAddr>) {
        self.count(|tally| &tally.accepted);
        let listener = self.doors[number].id();
        self.accept_told = false;
        let full = self.connections.len() >= self.broker.settings.connections_max;
        if full && !self.evict_stranger() {
            self.turn_away(number, address);
            return;
        }
        let doorway = Arc::clone(&self.doors[number].doorway);
        let entrance = doorway.now();
        if !entrance.is_open {
            // Removed just now; the letter that closes the door is on its way.
            return;
        }
        let mut entry = Entry::new(&doorway, &entrance);
        if entry.is_none() && self.evict_stranger_of(listener) {
            entry = Entry::new(&doorway, &entrance);
        }
        let Some(entry) = entry else {
            self.turn_away(number, address);
            return;
        };
        self.doors[number].full_told = false;
        let Ok(transport) = entrance.manner.transport(address) else {
            self.count(|tally| &tally.handshake_failures);
            return;
        };
        self.begin(Connection::new(stream, transport, entry, address.into()));
    }

    /// Sets up the connection of a program of this process; without room its end is closed.
    pub(super) fn enter(&mut self, stream: Socket, doorway: &Arc<Doorway>) {
        if self.draining || self.connections.len() >= self.broker.settings.connections_max {
            return;
        }
        if let Some(entry) = Entry::new(doorway, &doorway.now()) {
            let transport = Transport::Plain(Plain::default());
            self.begin(Connection::new(stream, transport, entry, PeerAddress::None));
            self.settle();
        }
    }

    /// Lets a connection begin, as far as a stranger may come.
    fn begin(&mut self, connection: Connection) {
        if let Some(id) = self.install(connection) {
            let deadline = self
                .now
                .saturating_add(self.broker.settings.connect_deadline_ms);
            self.strangers.push_back((deadline, id));
            let established = self
                .connections
                .get_mut(id)
                .is_some_and(|connection| connection.transport.is_established());
            if established {
                self.open(id);
            }
        }
    }

    /// There are as many connections as may be, and nobody who would have to give way.
    fn turn_away(&mut self, number: usize, address: Option<SocketAddr>) {
        self.count(|tally| &tally.refused_full);
        let door = &mut self.doors[number];
        let listener = door.id();
        if !std::mem::replace(&mut door.full_told, true) {
            self.tell(Some(listener), address, EventKind::ConnectionsFull);
        }
    }

    /// Gives a connection a number and joins it to the poll.
    pub(super) fn install(&mut self, connection: Connection) -> Option<ConnectionId> {
        let id = self.connections.insert(connection)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let connection = self.connections.get_mut(id)?;
        let token = token::connection(id);
        if self
            .poll
            .registry()
            .register(connection.stream.source(), token, interest)
            .is_err()
        {
            self.connections.remove(id);
            self.count(|tally| &tally.accept_errors);
            return None;
        }
        Some(id)
    }

    fn accept_failed(&mut self, number: usize, error: &io::Error) {
        match error.kind() {
            io::ErrorKind::WouldBlock => {
                self.doors[number].ready = false;
                return;
            }
            io::ErrorKind::Interrupted => return,
            _ => self.count(|tally| &tally.accept_errors),
        }
        // The peer has gone before we took it; the next one may still be there.
        let passing = matches!(
            error.kind(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset
        );
        if passing {
            return;
        }
        // Everything else, descriptors above all, does not pass by asking again at once.
        if crate::error::is_descriptor_limit(error) {
            self.shed(number);
        }
        self.accept_after = Some(self.now + REST_MS);
        if !std::mem::replace(&mut self.accept_told, true) {
            let cause = error.to_string().into_boxed_str();
            let listener = self.doors[number].id();
            self.tell(Some(listener), None, EventKind::AcceptFailed { cause });
        }
    }

    /// Uses the reserved descriptor to take and close connections: their peers see an end now
    /// instead of waiting for a time-out, and try again later.
    fn shed(&mut self, number: usize) {
        for _ in 0..SHED {
            self.reserve = None;
            let outcome = self.doors[number].socket.accept();
            let taken = outcome.is_ok();
            drop(outcome);
            self.reserve = super::reserve();
            if !taken {
                return;
            }
            self.count(|tally| &tally.accepted);
            self.count(|tally| &tally.refused_descriptors);
        }
    }
}
