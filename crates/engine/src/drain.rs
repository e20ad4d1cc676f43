//! Draining: no new promises, the old ones kept, then a good-bye to whoever is owed nothing.
//!
//! A broker that stops in the middle of its work loses what it has acknowledged and not delivered.
//! So the end has two steps. After [`crate::Input::Drain`] a shard takes no new promise: a PUBLISH
//! of QoS 1 or 2 is neither acknowledged nor routed, so that its publisher keeps it, and nobody
//! new is let in. When every promise made before is kept, [`crate::Effect::Settled`] says so. Only
//! when all shards have said it, [`crate::Input::Leave`] follows: what one shard has acknowledged
//! may have been on its way to the sessions of another. A connection is then closed as soon as its
//! client has everything; the shell ends what is left with [`crate::Input::Stop`] at its deadline.

use casemate_codec::{QoS, Reason};

use crate::acknowledge::{Gated, Stake};
use crate::connection::Phase;
use crate::door::{Effect, Millis};
use crate::event::Loss;
use crate::shard::Shard;
use crate::wording::Goodbye;

/// How far a shard that drains has come.
pub(crate) struct Drain {
    /// Where clients may go instead.
    server_reference: Option<Box<str>>,
    /// What neighbours must have received: its publisher may be cut off and come back for an
    /// acknowledgement at any time.
    underway: Stake,
    /// [`Effect::Settled`] was said.
    is_settled: bool,
    /// Connections that are still owed something; nothing before `Leave`.
    leaving: Option<Vec<u32>>,
    /// When they were looked at last.
    looked_at: Millis,
}

impl Drain {
    fn reason(&self) -> Reason {
        match self.server_reference {
            Some(_) => Reason::UseAnotherServer,
            None => Reason::ServerShuttingDown,
        }
    }
}

impl Shard {
    /// Takes no new promise from now on; a second order changes nothing.
    pub(crate) fn drain(&mut self, server_reference: Option<&str>) {
        if self.drain.is_some() {
            return;
        }
        self.drain = Some(Box::new(Drain {
            server_reference: server_reference.map(Into::into),
            underway: self.all_numbers(),
            is_settled: false,
            leaving: None,
            looked_at: 0,
        }));
        for slot in 0..self.connections.len() as u32 {
            let is_served = self
                .connection(slot)
                .is_none_or(|found| found.session().is_some());
            if !is_served {
                self.say_goodbye(slot);
            }
        }
    }

    /// Closes each connection as soon as its client is owed nothing.
    pub(crate) fn leave(&mut self) {
        let slots = (0..self.connections.len() as u32).collect();
        if let Some(drain) = &mut self.drain {
            drain.leaving.get_or_insert(slots);
        }
    }

    /// True while a new client may come in and a new promise may be made.
    #[inline]
    pub(crate) fn is_staying(&self) -> bool {
        self.drain.is_none()
    }

    /// True where a PUBLISH must be passed over: its acknowledgement would be a new promise.
    #[inline]
    pub(crate) fn is_promise_too_late(&self, qos: QoS) -> bool {
        qos > QoS::AtMostOnce && self.drain.is_some()
    }

    /// Closes a connection because the broker goes away.
    pub(crate) fn say_goodbye(&mut self, slot: u32) {
        let Some(drain) = self.drain.take() else {
            return self.close(slot, Reason::ServerShuttingDown, Loss::Stopping);
        };
        let why = Goodbye {
            server_reference: drain.server_reference.as_deref(),
            ..drain.reason().into()
        };
        self.close(slot, why, Loss::Stopping);
        self.drain = Some(drain);
    }

    /// At the end of a turn: says that all promises are kept, and closes who is owed nothing.
    pub(crate) fn drain_turn(&mut self) {
        let Some(drain) = &self.drain else { return };
        if !drain.is_settled && self.are_promises_kept(drain.underway) {
            self.effects.push(Effect::Settled);
            if let Some(drain) = &mut self.drain {
                drain.is_settled = true;
            }
        }
        let now = self.now;
        let Some(drain) = self.drain.as_mut().filter(|drain| drain.looked_at < now) else {
            return;
        };
        // Looking costs a step for each that is left, so it is done once in a millisecond.
        drain.looked_at = now;
        let Some(slots) = drain.leaving.take() else {
            return;
        };
        let mut owed = Vec::new();
        for slot in slots {
            match self.is_owed(slot) {
                Some(true) => owed.push(slot),
                Some(false) => self.say_goodbye(slot),
                None => {}
            }
        }
        if let Some(drain) = &mut self.drain {
            drain.leaving = Some(owed);
        }
    }

    /// When the next look is due.
    pub(crate) fn drain_deadline(&self) -> Option<Millis> {
        let drain = self.drain.as_ref()?;
        let is_waiting = drain.leaving.as_ref().is_some_and(|owed| !owed.is_empty());
        is_waiting.then_some(drain.looked_at + 1)
    }

    /// True where no acknowledgement of a message waits, and nothing that was under way to
    /// neighbours. Subscriptions promise none, so that clients that go on subscribing do not hold
    /// the end up.
    fn are_promises_kept(&self, underway: Stake) -> bool {
        let waits = |slot: &u32| {
            let gates = self.connection(*slot).map(|found| &found.gates);
            gates.is_some_and(|gates| gates.iter().any(Gated::is_of_message))
        };
        self.is_settled(underway) && !self.gated.iter().any(waits)
    }

    /// Whether a client is owed a message or an acknowledgement; nothing where there is no client.
    fn is_owed(&self, slot: u32) -> Option<bool> {
        let connection = self.connection(slot)?;
        let session = match connection.phase {
            Phase::Closing => return None,
            Phase::Silent | Phase::Judged(_) => return Some(false),
            Phase::Serving { session } => self.sessions.get(session)?,
        };
        Some(
            !connection.gates.is_empty()
                || !session.replays.is_empty()
                || !session.outbox.is_finished(),
        )
    }
}
