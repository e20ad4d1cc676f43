//! All clients of a run on one readiness loop.

use std::io;
use std::time::Duration;

use mio::{Events, Interest, Poll, Token};

use crate::connection::{Connection, Phase, Role};
use crate::error::Fault;
use crate::ledger::Ledger;
use crate::transport::{Scratch, Transport};
use crate::trust::Trust;
use crate::{LoadError, Plan};

const EVENTS_MAX: usize = 1_024;

/// How a connection came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its place.
    pub place: usize,
    /// What happened; `None` where the client was leaving anyway.
    pub fault: Option<Fault>,
}

/// Connections by their place, which is also the number of their client.
pub(crate) struct Pool {
    poll: Poll,
    events: Events,
    connections: Vec<Option<Connection>>,
    /// The place of each publisher's connection.
    places: Vec<usize>,
    scratch: Scratch,
    trust: Option<Trust>,
    ended: Vec<Ended>,
}

impl Pool {
    /// A pool without connections.
    ///
    /// # Errors
    /// Certificates that cannot be used, or a machine without a readiness loop.
    pub fn new(plan: &Plan) -> Result<Pool, LoadError> {
        Ok(Pool {
            poll: Poll::new().map_err(LoadError::Machine)?,
            events: Events::with_capacity(EVENTS_MAX),
            connections: Vec::new(),
            places: Vec::new(),
            scratch: Scratch::new(),
            trust: plan.target.tls.as_ref().map(Trust::new).transpose()?,
            ended: Vec::new(),
        })
    }

    /// Begins a connection at a place that is free.
    ///
    /// # Errors
    /// The machine has no more sockets or ports, or CONNECT cannot be written.
    pub fn open(
        &mut self,
        plan: &Plan,
        place: usize,
        number: u64,
        role: Role,
        filters: &[String],
        begun_ns: u64,
    ) -> Result<(), LoadError> {
        let transport = Transport::connect(&plan.target, self.trust.as_ref())?;
        let mut connection = Connection::new(plan, transport, number, role, filters, begun_ns)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut connection.transport.stream, Token(place), interest)
            .map_err(LoadError::Machine)?;
        if let Role::Publish(publisher) = role {
            let publisher = publisher as usize;
            if self.places.len() <= publisher {
                self.places.resize(publisher + 1, usize::MAX);
            }
            if let Some(known) = self.places.get_mut(publisher) {
                *known = place;
            }
        }
        if self.connections.len() <= place {
            self.connections.resize_with(place + 1, || None);
        }
        if let Some(slot) = self.connections.get_mut(place) {
            *slot = Some(connection);
        }
        Ok(())
    }

    /// Waits at most `timeout` and serves what is ready; how many connections were.
    ///
    /// # Errors
    /// The readiness loop itself fails.
    pub fn turn(&mut self, books: &mut Ledger, timeout: Duration) -> Result<usize, LoadError> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(LoadError::Machine(error)),
        }
        let mut count = 0;
        let now_ns = books.now_ns();
        for event in &self.events {
            let Token(place) = event.token();
            let Some(slot) = self.connections.get_mut(place) else {
                continue;
            };
            let Some(connection) = slot else {
                continue;
            };
            count += 1;
            if event.is_writable() {
                connection.unblock();
                if let Some(publisher) = connection.client.publisher() {
                    books.touch(publisher);
                }
            }
            let outcome = match event.is_readable() || event.is_error() {
                true => connection.read(&mut self.scratch, books),
                false => Ok(false),
            };
            let outcome = match outcome {
                Ok(false) => connection.flush(&mut self.scratch, now_ns).map(|()| {
                    // Whoever has said good-bye closes the connection (MQTT 5.0 §3.14.4).
                    connection.client.phase() == Phase::Leaving && connection.is_clear()
                }),
                ended => ended,
            };
            if let Some(fault) = end_of(outcome, connection.client.phase()) {
                self.ended.push(Ended { place, fault });
                *slot = None;
            }
        }
        books.standing.reads = self.scratch.reads;
        books.standing.writes = self.scratch.writes;
        Ok(count)
    }

    /// Lets each publisher that was touched send what it may.
    pub fn publish(&mut self, books: &mut Ledger, now_ns: u64) {
        while let Some(publisher) = books.next_touched() {
            let Some(place) = self.places.get(publisher as usize).copied() else {
                continue;
            };
            let Some(slot) = self.connections.get_mut(place) else {
                continue;
            };
            let Some(connection) = slot else {
                continue;
            };
            // One that is not clear will be touched when its socket takes more.
            if connection.client.phase() != Phase::Ready || !connection.is_clear() {
                continue;
            }
            if books.fill(publisher, now_ns, connection.client.outgoing()) == 0 {
                continue;
            }
            match connection.flush(&mut self.scratch, now_ns) {
                // There may be more than one turn prepares.
                Ok(()) if connection.is_clear() => books.touch(publisher),
                Ok(()) => {}
                Err(fault) => {
                    self.ended.push(Ended {
                        place,
                        fault: Some(fault),
                    });
                    *slot = None;
                }
            }
        }
    }

    /// Keeps everybody alive who has not said anything for long.
    pub fn keep_alive(&mut self, now_ns: u64) {
        for place in 0..self.connections.len() {
            let Some(Some(connection)) = self.connections.get_mut(place) else {
                continue;
            };
            connection.client.keep_alive(now_ns);
            if let Err(fault) = connection.flush(&mut self.scratch, now_ns) {
                self.end(place, Some(fault));
            }
        }
    }

    /// Says good-bye for everybody and closes what is open; what goes wrong now harms nobody.
    pub fn leave(&mut self, now_ns: u64) {
        for slot in &mut self.connections {
            if let Some(connection) = slot {
                connection.client.leave();
                let _ = connection.flush(&mut self.scratch, now_ns);
            }
            *slot = None;
        }
    }

    /// Closes the connections that began before a moment, as if they had failed.
    pub fn expire(&mut self, before_ns: u64) {
        for place in 0..self.connections.len() {
            let slot = self.connections.get(place).and_then(Option::as_ref);
            if slot.is_some_and(|connection| connection.client.begun_ns() < before_ns) {
                self.end(place, Some(Fault::Late));
            }
        }
    }

    /// What has ended since the last time.
    pub fn ended(&mut self) -> std::vec::Drain<'_, Ended> {
        self.ended.drain(..)
    }

    fn end(&mut self, place: usize, fault: Option<Fault>) {
        if self
            .connections
            .get_mut(place)
            .and_then(Option::take)
            .is_some()
        {
            self.ended.push(Ended { place, fault });
        }
    }
}

/// Whether a connection has ended, and how.
fn end_of(outcome: Result<bool, Fault>, phase: Phase) -> Option<Option<Fault>> {
    match (outcome, phase) {
        (Ok(false), _) => None,
        // Whoever has said good-bye is not surprised by the end, however it comes.
        (_, Phase::Leaving) => Some(None),
        (Ok(true), Phase::Greeting) => Some(Some(Fault::Closed("before it answered CONNECT"))),
        (Ok(true), _) => Some(Some(Fault::Closed("without a word"))),
        (Err(fault), _) => Some(Some(fault)),
    }
}
