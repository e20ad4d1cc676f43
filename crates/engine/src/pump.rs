//! What waits is sent as soon as there is room: exchanges begun before, then the queue.

use casemate_codec::QoS;

use crate::acknowledge::write_pubrel;
use crate::connection::Phase as ConnectionPhase;
use crate::deliver::{Recipient, Spread};
use crate::message::Message;
use crate::outbox::{Item, Phase};
use crate::policy::ReceivePermit;
use crate::shard::Shard;

impl Shard {
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

    /// Sends one unfinished exchange again.
    fn resume_one(&mut self, slot: u32, session: u32, quota: u32) -> bool {
        let Some(found) = self.sessions.get_mut(session) else {
            return false;
        };
        let tenant = found.tenant;
        let Some((id, flight)) = found.outbox.resume_next(quota) else {
            return false;
        };
        let (phase, retain) = (flight.phase, flight.retain);
        let (message, ids) = (flight.message.clone(), flight.ids.clone());
        let qos = match phase {
            Phase::Pubcomp => {
                let Shard {
                    connections, pool, ..
                } = self;
                if let Some(connection) = connections[slot as usize].as_deref_mut() {
                    write_pubrel(id, connection.window.buffer(pool));
                }
                self.mark_dirty(slot);
                return true;
            }
            Phase::Pubrec => QoS::ExactlyOnce,
            Phase::Puback | Phase::Done => QoS::AtLeastOnce,
        };
        let Some(message) = message else {
            // Cannot happen: only sessions that end with their connection keep no message.
            debug_assert!(false, "a resumed exchange without its message");
            self.wrote(slot, session, qos, id.get(), false);
            return true;
        };
        if self.may_receive(session, &message).is_none() {
            self.counters.delivery_denied += 1;
            self.with_session(session, |found| found.outbox.finish(id, phase));
            return true;
        }
        let mut spread = Spread::new(false, Some(message.clone()));
        // [MQTT-4.3.3-7] Once sent it is due, however long ago it expired.
        let draft = message.draft(tenant);
        let ids = ids.as_ref().map_or(&[][..], |ids| ids.as_slice());
        // [MQTT-3.3.1-1] [MQTT-3.1.1 3.3.1-1]
        let written = self.write_alone(slot, &draft, qos, true, retain, ids, id.get(), &mut spread);
        self.wrote(slot, session, qos, id.get(), written);
        true
    }

    /// Sends the next retained or waiting message; false where there is none that may leave.
    fn pump_one(&mut self, slot: u32, session: u32, quota: u32) -> bool {
        let Some(found) = self.sessions.get_mut(session) else {
            return false;
        };
        // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
        let has_quota = found.outbox.counted() < quota && found.outbox.has_packet_id();
        let may_launch = has_quota && found.outbox.is_resumed();
        if found.is_replaying() {
            return self.replay_one(slot, session, may_launch);
        }
        let Some(item) = found.outbox.pop(may_launch) else {
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
            return;
        }
        let Some(permit) = self.may_receive(session, &item.message) else {
            self.counters.delivery_denied += 1;
            return;
        };
        let to = Recipient {
            session,
            qos: item.qos.min(permit.qos_max),
            retain: item.retain,
            ids: &item.ids,
            group: item.group,
        };
        let mut spread = Spread::new(false, Some(item.message.clone()));
        self.write_direct(slot, &draft, &to, &mut spread);
    }

    /// What policy allows now: it may have changed since a message was queued.
    pub(crate) fn may_receive(&self, session: u32, message: &Message) -> Option<ReceivePermit> {
        let found = self.sessions.get(session)?;
        let draft = message.draft(found.tenant);
        self.policy.receive(&found.subject(), draft.topic)
    }
}
