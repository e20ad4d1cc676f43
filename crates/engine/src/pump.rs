//! What waits leaves when there is room and quota.
//!
//! Exchanges that are under way come first, then what was retained, then the queues.

use std::num::NonZeroU16;

use casemate_codec::{PacketId, QoS};

use crate::acknowledge::write_pubrel;
use crate::connection::Phase as ConnectionPhase;
use crate::deliver::{flight_of, Recipient, Spread};
use crate::flights::{Phase, Resume, Resumed};
use crate::journal::{EntryLine, Record, Whole};
use crate::message::{Draft, Message};
use crate::outbox::{Ids, Item};
use crate::policy::ReceivePermit;
use crate::shard::Shard;

/// The PUBLISH of an exchange that is under way.
struct Again {
    id: PacketId,
    /// The client may have got it.
    dup: bool,
    phase: Phase,
    retain: bool,
    ids: Ids,
}

impl Shard {
    /// Begins the exchange of a message; gives its identifier where it is to be written now.
    pub(crate) fn begin_exchange(
        &mut self,
        draft: &Draft<'_>,
        to: &Recipient<'_>,
        entry: u64,
        spread: &mut Spread<'_>,
    ) -> Option<NonZeroU16> {
        let session = self.sessions.get_mut(to.session)?;
        let flight = flight_of(session, draft, to, spread, &mut self.scratch);
        if session.number == 0 {
            return Some(session.outbox.flights.launch(to.qos, flight));
        }
        match entry {
            0 => {
                let message = spread.number(draft, &mut self.journal);
                self.journal.write(&Record::Entry(EntryLine {
                    session: session.number,
                    entry: session.outbox.enter(),
                    message,
                    qos: to.qos,
                    retain: to.retain,
                    is_launched: true,
                    ids: to.ids.as_deref().cloned().unwrap_or_default(),
                    group: to.group,
                    whole: Whole::NONE,
                }));
            }
            entry => self.journal.write(&Record::Launched {
                session: session.number,
                entry,
                qos: to.qos,
            }),
        }
        let is_held = to.qos == QoS::ExactlyOnce;
        let flights = &mut session.outbox.flights;
        if !is_held && flights.is_resumed() {
            return Some(flights.launch(to.qos, flight));
        }
        let mut flight = flight.unwrap_or_default();
        if is_held {
            // [MQTT-4.3.3-1] After a crash no other message may bear an identifier that the client
            // has seen, so that it is durable before.
            flight.held_until = self.seq;
        }
        flights.stage(to.qos, flight);
        None
    }

    /// Remembers to fill the window of a connection at the end of this input.
    pub(crate) fn pump_later(&mut self, slot: u32) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if !std::mem::replace(&mut connection.pump_due, true) {
            self.to_pump.push(slot);
        }
    }

    /// Fills the windows that may have room or quota again.
    pub(crate) fn pump_all(&mut self) {
        while let Some(slot) = self.to_pump.pop() {
            if let Some(connection) = self.connection_mut(slot) {
                connection.pump_due = false;
                self.pump(slot);
            }
        }
    }

    /// Fills one window: what was begun before, what was retained, what waits.
    fn pump(&mut self, slot: u32) {
        loop {
            let Some(connection) = self.connection(slot) else {
                return;
            };
            let ConnectionPhase::Serving { session } = connection.phase else {
                return;
            };
            let quota = connection.quota;
            if !connection.greeted || connection.window.bytes() >= self.settings.window_bytes {
                return;
            }
            if !self.resume_one(slot, session, quota) && !self.pump_one(slot, session, quota) {
                return;
            }
        }
    }

    /// Begins or resumes one exchange.
    fn resume_one(&mut self, slot: u32, session: u32, quota: u32) -> bool {
        let Some(found) = self.sessions.get_mut(session) else {
            return false;
        };
        let resumed = match found.outbox.flights.resume_next(quota, self.persisted) {
            Resume::Send(resumed) => resumed,
            Resume::Nothing => return false,
            Resume::Held => {
                if !std::mem::replace(&mut found.is_holding, true) {
                    let me = found.me(session);
                    self.holding.push(me);
                }
                return false;
            }
        };
        let Resumed {
            id,
            phase,
            flight,
            dup,
        } = resumed;
        let again = Again {
            id,
            dup,
            phase,
            retain: flight.is_some_and(|flight| flight.retain),
            ids: flight.and_then(|flight| flight.ids.clone()),
        };
        match flight.and_then(|flight| flight.message.clone()) {
            _ if again.phase == Phase::Pubcomp => {
                let Shard {
                    connections, pool, ..
                } = self;
                if let Some(connection) = connections[slot as usize].as_deref_mut() {
                    write_pubrel(id, connection.window.buffer(pool));
                }
                self.mark_dirty(slot);
            }
            Some(message) => self.send_again(slot, session, &message, &again),
            None => {
                // Cannot happen: only sessions that end with their connection keep no message.
                debug_assert!(false, "a resumed exchange without its message");
                self.finish(session, id, again.phase);
            }
        }
        true
    }

    /// Sends the PUBLISH of an exchange, for the first time or again.
    fn send_again(&mut self, slot: u32, session: u32, message: &Message, again: &Again) {
        let tenant = self.sessions.get(session).map_or(0, |found| found.tenant);
        let draft = message.draft(tenant);
        let Some(permit) = self.may_receive(session, message) else {
            self.counters.delivery_denied += 1;
            self.finish(session, again.id, again.phase);
            return;
        };
        // [MQTT-4.3.3-7] Once sent it is due, however long ago it expired.
        if !again.dup && draft.is_expired(self.now) {
            self.counters.dropped_expired += 1;
            self.finish(session, again.id, again.phase);
            return;
        }
        let mut qos = match again.phase {
            Phase::Pubrec => QoS::ExactlyOnce,
            _ => QoS::AtLeastOnce,
        };
        let mut packet_id = again.id.get();
        if !again.dup && permit.qos_max < qos {
            // Policy has changed since the exchange was written down. At QoS 0 it comes behind
            // younger ones that waited for nothing.
            qos = permit.qos_max;
            if qos == QoS::AtMostOnce {
                self.finish(session, again.id, again.phase);
                packet_id = 0;
            } else {
                self.lower(session, again.id);
            }
        }
        let mut spread = Spread::new(false, Some(message.clone()));
        let ids = again.ids.as_ref().map_or(&[][..], |ids| ids.as_slice());
        // [MQTT-3.3.1-1] [MQTT-3.1.1 3.3.1-1]
        let (dup, retain) = (again.dup, again.retain);
        let written = self.write_alone(slot, &draft, qos, dup, retain, ids, packet_id, &mut spread);
        self.wrote(slot, session, qos, packet_id, written);
    }

    /// An exchange of QoS 2 that has not begun becomes one of QoS 1.
    fn lower(&mut self, session: u32, id: PacketId) {
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        if let (Some(position), 1..) = (found.outbox.flights.lower(id), found.number) {
            let session = found.number;
            self.journal.write(&Record::Lowered { session, position });
        }
    }

    /// Sends the next retained or waiting message; false where there is none that may leave.
    fn pump_one(&mut self, slot: u32, session: u32, quota: u32) -> bool {
        let Some(found) = self.sessions.get_mut(session) else {
            return false;
        };
        // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
        let flights = &found.outbox.flights;
        let has_quota = flights.counted() < quota && flights.has_packet_id();
        if found.is_replaying() {
            return self.replay_one(slot, session, has_quota);
        }
        let Some(item) = found.outbox.pop(has_quota) else {
            return false;
        };
        self.send_item(slot, session, item);
        true
    }

    /// Sends one reference: expiry, policy, alias and packet id act now.
    pub(crate) fn send_item(&mut self, slot: u32, session: u32, item: Item) {
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let draft = item.message.draft(found.tenant);
        if draft.is_expired(self.now) {
            self.counters.dropped_expired += 1;
            self.item_gone(session, &item);
            return;
        }
        let Some(permit) = self.may_receive(session, &item.message) else {
            self.counters.delivery_denied += 1;
            self.item_gone(session, &item);
            return;
        };
        let qos = item.qos.min(permit.qos_max);
        if qos == QoS::AtMostOnce {
            self.item_gone(session, &item);
        }
        let to = Recipient {
            session,
            qos,
            retain: item.retain,
            ids: &item.ids,
            group: item.group,
        };
        let mut spread = Spread::new(false, Some(item.message.clone()));
        self.write_direct(slot, &draft, &to, item.entry, &mut spread);
    }

    /// What waited is no exchange and will be none.
    fn item_gone(&mut self, session: u32, item: &Item) {
        let number = self.sessions.get(session).map_or(0, |found| found.number);
        if number != 0 && item.entry != 0 {
            self.journal.write(&Record::Gone {
                session: number,
                entry: item.entry,
            });
        }
    }

    /// More is durable: what waited for it may leave.
    pub(crate) fn release_held(&mut self) {
        for session in std::mem::take(&mut self.holding) {
            let slot = self.sessions.resolve(session);
            let Some(found) = slot.and_then(|slot| self.sessions.get_mut(slot)) else {
                continue;
            };
            found.is_holding = false;
            if let Some(link) = found.link {
                self.pump_later(link);
            }
        }
    }

    /// What policy allows now: it may have changed since a message was queued.
    pub(crate) fn may_receive(&self, session: u32, message: &Message) -> Option<ReceivePermit> {
        let found = self.sessions.get(session)?;
        let draft = message.draft(found.tenant);
        self.policy.receive(&found.subject(), draft.topic)
    }
}
