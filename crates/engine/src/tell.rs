//! What a shard tells about: a connection, a session, itself.

use crate::connection::Phase;
use crate::door::Effect;
use crate::event::{Event, EventKind};
use crate::shard::Shard;

impl Shard {
    /// Tells about a connection.
    pub(crate) fn tell(&mut self, slot: u32, kind: EventKind) {
        let Some(connection) = self.connection(slot) else {
            return;
        };
        let (client_id, principal) = match &connection.phase {
            Phase::Serving { session } => match self.sessions.get(*session) {
                Some(found) => (found.client_id.clone(), found.principal.name.clone()),
                None => ("".into(), "".into()),
            },
            Phase::Judged(pending) => (pending.hello.client_id.clone(), "".into()),
            _ => ("".into(), "".into()),
        };
        self.effects.push(Effect::Event(Box::new(Event {
            id: Some(self.id_of(slot)),
            listener: Some(connection.listener),
            address: connection.address.get(),
            client_id,
            principal,
            kind,
        })));
    }

    /// Tells about a session, connected or not.
    pub(crate) fn tell_session(&mut self, session: u32, kind: EventKind) {
        let Some(found) = self.sessions.get(session) else {
            return;
        };
        if let Some(link) = found.link {
            self.tell(link, kind);
            return;
        }
        let event = Event {
            id: None,
            listener: None,
            address: None,
            client_id: found.client_id.clone(),
            principal: found.principal.name.clone(),
            kind,
        };
        self.effects.push(Effect::Event(Box::new(event)));
    }

    /// Tells about the shard itself.
    pub(crate) fn tell_nobody(&mut self, kind: EventKind) {
        let event = Event {
            id: None,
            listener: None,
            address: None,
            client_id: "".into(),
            principal: "".into(),
            kind,
        };
        self.effects.push(Effect::Event(Box::new(event)));
    }

    /// A client ran into a limit of ours.
    pub(crate) fn limit_reached(&mut self, slot: u32, what: &'static str) {
        self.counters.limit_refusals += 1;
        self.tell(slot, EventKind::LimitReached { what });
    }
}
