//! PUBLISH from a client: who may, what for, and on to the recipients.

use std::rc::Rc;

use casemate_codec::{forwardable, PacketId, PlainPublish, Publish, QoS, Reason, Version};

use crate::acknowledge::{Gate, Stake, PUBACK, PUBREC};
use crate::connection::{Flow, Memo, Phase};
use crate::door::Millis;
use crate::event::{EventKind, Loss};
use crate::journal::{is_said_anew, Record, Whole};
use crate::message::Draft;
use crate::policy::{Permit, PublishRights};
use crate::route::Route;
use crate::shard::Shard;
use crate::verbatim::Verbatim;

/// Levels of a topic, one more than its separators.
pub(crate) fn levels(text: &str) -> usize {
    memchr::memchr_iter(b'/', text.as_bytes()).count() + 1
}

/// What a PUBLISH asks for, whatever it says.
#[derive(Clone, Copy)]
pub(crate) struct Terms {
    pub qos: QoS,
    pub retain: bool,
    pub packet_id: Option<PacketId>,
}

impl Terms {
    /// Of a packet that is plain.
    #[inline(always)]
    pub fn of_plain(publish: &PlainPublish<'_>) -> Terms {
        Terms {
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
        }
    }

    fn of(publish: &Publish<'_>) -> Terms {
        Terms {
            qos: publish.qos,
            retain: publish.retain,
            packet_id: publish.packet_id,
        }
    }
}

impl Shard {
    /// Handles one PUBLISH.
    pub(crate) fn publish_received(&mut self, slot: u32, publish: &Publish<'_>) -> Flow {
        let Some(session) = self.connection(slot).and_then(|found| found.session()) else {
            return Flow::Stop;
        };
        if let Some(alias) = publish.properties.topic_alias {
            return self.aliased_publish(slot, session, publish, alias.get());
        }
        self.admit_publish(slot, session, publish, publish.topic)
    }

    /// Resolves or sets a topic alias ([MQTT-3.3.2-7] forgets them with the connection).
    fn aliased_publish(
        &mut self,
        slot: u32,
        session: u32,
        publish: &Publish<'_>,
        alias: u16,
    ) -> Flow {
        // [MQTT-3.3.2-9] [MQTT-3.3.2-12] All up to the maximum that CONNACK gave are accepted.
        // [MQTT-3.2.2-17] [MQTT-3.2.2-18]
        if alias > self.settings.topic_alias_max {
            self.refuse(slot, Reason::TopicAliasInvalid);
            return Flow::Stop;
        }
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        let Some(topic) = connection.aliases_in.topic(alias, publish.topic) else {
            self.refuse(slot, Reason::ProtocolError);
            return Flow::Stop;
        };
        self.admit_publish(slot, session, publish, &topic)
    }

    fn admit_publish(
        &mut self,
        slot: u32,
        session: u32,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Flow {
        if let Some(flow) = self.exceeds_receive_max(slot, session, Terms::of(publish)) {
            return flow;
        }
        if self.is_promise_too_late(publish.qos) {
            return Flow::Continue;
        }
        if levels(topic) > self.settings.topic_levels_max {
            self.limit_reached(slot, "topic_levels_max");
            self.refuse(slot, Reason::TopicNameInvalid);
            return Flow::Stop;
        }
        let Some((route, rights)) = self.route_and_rights(slot, session, topic) else {
            return Flow::Stop;
        };
        let Some(permit) = rights.permit(publish.qos, publish.retain) else {
            return self.publish_denied(slot, session, publish, topic);
        };
        let Some(publisher) = self.sessions.get(session) else {
            return Flow::Stop;
        };
        let (tenant, publisher) = (publisher.tenant, publisher.hash);
        let mut properties = std::mem::take(&mut self.properties);
        properties.clear();
        forwardable(&publish.properties, &mut properties);
        let draft = Draft {
            tenant,
            topic,
            properties: &properties,
            payload: publish.payload,
            qos: publish.qos,
            retain: publish.retain,
            expires_at: expires_at(self.now, publish.properties.message_expiry_s),
            publisher,
            whole: Whole::NONE,
        };
        let terms = Terms::of(publish);
        let flow = self.permitted_publish(slot, session, terms, permit, &draft, None, &route);
        self.properties = properties;
        flow
    }

    /// The client's own flow control ([MQTT-3.3.4-7] is the client's; we hold it to it), and the
    /// second coming of a QoS 2 message.
    #[inline]
    pub(crate) fn exceeds_receive_max(
        &mut self,
        slot: u32,
        session: u32,
        terms: Terms,
    ) -> Option<Flow> {
        let id = terms.packet_id?;
        if terms.qos == QoS::ExactlyOnce {
            let unreleased = &self.sessions.get(session)?.unreleased;
            let (front, back) = unreleased.as_slices();
            if front.contains(&id.get()) || back.contains(&id.get()) {
                // [MQTT-4.3.3-10] [MQTT-3.1.1 4.3.3-2] Acknowledged again, not routed again. What
                // the first was waiting for may still be open, on a connection that is gone.
                let stake = self.stake_of_session(slot).and(self.all_numbers());
                let stake = stake.and(self.all_wholes());
                self.acknowledge_publish(slot, terms.qos, Some(id), Reason::Success, stake);
                return Some(Flow::Continue);
            }
        }
        let receive_max = u32::from(self.settings.receive_max);
        let connection = self.connection(slot)?;
        let held = self.sessions.get(session)?.unreleased.len() as u32;
        if connection.receiving < receive_max && held < 65_535 {
            return None;
        }
        if connection.version == Version::V5 {
            self.refuse(slot, Reason::ReceiveMaximumExceeded);
            return Some(Flow::Stop);
        }
        if connection.gates.is_empty() {
            // 3.x knows no receive maximum: unreleased QoS 2 identifiers alone fill it.
            return None;
        }
        Some(Flow::Blocked)
    }

    /// The route of a topic and what this client may publish there.
    fn route_and_rights(
        &mut self,
        slot: u32,
        session: u32,
        topic: &str,
    ) -> Option<(Rc<Route>, PublishRights)> {
        let (id, epoch) = (self.id_of(slot), self.policy.epoch());
        let memo = self.connection(slot)?.memo.as_ref();
        let memo = memo.filter(|memo| memo.epoch == epoch && *memo.route.topic == *topic);
        if let Some(memo) = memo.filter(|memo| self.routes.is_current(&memo.route)) {
            return Some((Rc::clone(&memo.route), memo.rights));
        }
        // A right outlives the route that it was found with: subscriptions do not change it.
        let before = memo.map(|memo| memo.rights);
        let tenant = self.sessions.get(session)?.tenant;
        let route = self.route(tenant, topic);
        let found = self.sessions.get(session)?;
        let rights = match before.or_else(|| route.rights_of(id, epoch)) {
            Some(rights) => rights,
            // The broker alone speaks there, whatever a policy says (aedes#597).
            None if is_said_anew(topic) => PublishRights::NONE,
            None => self.policy.publish(&found.subject(), topic),
        };
        route.know(id, epoch, rights);
        self.connection_mut(slot)?.memo = Some(Memo {
            route: Rc::clone(&route),
            rights,
            epoch,
        });
        Some((route, rights))
    }

    /// Policy says no: a 5.0 client is told, an older one is acknowledged as the specification
    /// demands of those who do not close ([MQTT-3.1.1 3.3.5-2]); nobody gets anything.
    fn publish_denied(
        &mut self,
        slot: u32,
        session: u32,
        publish: &Publish<'_>,
        topic: &str,
    ) -> Flow {
        self.counters.publish_denied += 1;
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        connection.denied += 1;
        if publish.qos > QoS::AtMostOnce {
            connection.receiving += 1;
        }
        if connection.denied.is_power_of_two() {
            self.tell(
                slot,
                EventKind::PublishDenied {
                    topic: topic.into(),
                },
            );
        }
        let modern = self
            .connection(slot)
            .is_some_and(|found| found.version == Version::V5);
        let reason = if modern {
            Reason::NotAuthorized
        } else {
            Reason::Success
        };
        // [MQTT-4.3.3-9] A refused identifier is free again: nothing is remembered.
        if !modern && publish.qos == QoS::ExactlyOnce {
            // The exchange goes its full way, so that the client's PUBREL finds its identifier.
            self.remember_unreleased(session, publish.packet_id);
            self.note_incoming(session, publish.packet_id);
        }
        let (qos, id) = (publish.qos, publish.packet_id);
        self.acknowledge_publish(slot, qos, id, reason, Stake::default());
        Flow::Continue
    }

    fn remember_unreleased(&mut self, session: u32, id: Option<PacketId>) {
        if let (Some(session), Some(id)) = (self.sessions.get_mut(session), id) {
            session.unreleased.push_back(id.get());
        }
    }

    /// Routes a message that policy has permitted, once there is room for it.
    #[inline(always)]
    #[allow(clippy::too_many_arguments, reason = "who, what, and where to")]
    pub(crate) fn permitted_publish(
        &mut self,
        slot: u32,
        session: u32,
        terms: Terms,
        permit: Permit,
        draft: &Draft<'_>,
        verbatim: Option<Verbatim<'_>>,
        route: &Route,
    ) -> Flow {
        if self.journal.is_ailing && terms.qos > QoS::AtMostOnce {
            return self.publish_unkept(slot, terms);
        }
        if !self.has_room(draft, route) {
            return Flow::Blocked;
        }
        self.counters.publishes_received += 1;
        let whole = self.new_whole(session, terms.qos);
        let stake = match whole.is_some() {
            true => self.route_heard(permit, &Draft { whole, ..*draft }, verbatim, route),
            false => self.route_heard(permit, draft, verbatim, route),
        };
        if terms.qos > QoS::AtMostOnce {
            self.publish_accepted(slot, session, terms, stake, whole);
        }
        Flow::Continue
    }

    /// The store keeps nothing now: a 5.0 client is told so, an older one loses its connection
    /// ([MQTT-3.1.1 4.8.0-2]), so that both keep what they have.
    #[cold]
    fn publish_unkept(&mut self, slot: u32, terms: Terms) -> Flow {
        self.counters.limit_refusals += 1;
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        let reason = Reason::QuotaExceeded;
        if connection.version != Version::V5 {
            self.close(slot, reason, Loss::Refused(reason));
            return Flow::Stop;
        }
        connection.receiving += 1;
        self.acknowledge_publish(slot, terms.qos, terms.packet_id, reason, Stake::default());
        Flow::Continue
    }

    /// What PUBREC waits for: that its identifier is remembered in a session that lasts, and that
    /// all who keep the message have it.
    fn stake_of_message(
        &mut self,
        session: u32,
        id: Option<PacketId>,
        stake: Stake,
        whole: Whole,
    ) -> Stake {
        let (Some(found), Some(given)) = (self.sessions.get(session), id) else {
            return stake;
        };
        if !found.is_durable() {
            return stake;
        }
        if whole.is_some() {
            let me = found.me(session);
            return self.await_completion(whole, stake, me, given);
        }
        self.note_incoming(session, id);
        stake.and(self.touch_store())
    }

    /// Writes down that an identifier is in use.
    fn note_incoming(&mut self, session: u32, id: Option<PacketId>) {
        let number = self.sessions.get(session).map_or(0, |found| found.number);
        if let (1.., Some(id)) = (number, id) {
            let (session, id) = (number, id.get());
            self.journal.write(&Record::Incoming { session, id });
        }
    }

    /// Ownership is ours: acknowledges when what was promised is kept.
    fn publish_accepted(
        &mut self,
        slot: u32,
        session: u32,
        terms: Terms,
        stake: Stake,
        whole: Whole,
    ) {
        let mut stake = stake;
        // [MQTT-4.3.2-5] [MQTT-3.1.1 4.3.2-2] At QoS 1 each PUBLISH is a new message, so that no
        // identifier is remembered.
        if terms.qos == QoS::ExactlyOnce {
            // [MQTT-4.3.3-13] The exchange goes on, whatever becomes of the message.
            self.remember_unreleased(session, terms.packet_id);
            stake = self.stake_of_message(session, terms.packet_id, stake, whole);
        }
        self.acknowledge_accepted(slot, terms.qos, terms.packet_id, stake);
    }

    /// As [`Shard::publish_accepted`], of a run of QoS 1.
    pub(crate) fn run_accepted(&mut self, slot: u32, run: &Verbatim<'_>, stake: Stake) {
        // [MQTT-4.3.2-5] [MQTT-3.1.1 4.3.2-2]
        let qos = QoS::AtLeastOnce;
        if stake == Stake::default() && self.acknowledge_at_once(slot, qos, run.packet_ids()) {
            return;
        }
        if let Some(connection) = self.connection_mut(slot) {
            // Cannot truncate: a run has no more messages than the client may have unacknowledged.
            connection.receiving += run.count() as u32;
        }
        // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1] [MQTT-4.3.2-4] [MQTT-3.1.1 4.3.2-2]
        self.acknowledge(slot, stake, Gate::pubacks(run.packet_ids()));
    }

    fn acknowledge_accepted(&mut self, slot: u32, qos: QoS, id: Option<PacketId>, stake: Stake) {
        if stake == Stake::default() && self.acknowledge_at_once(slot, qos, id) {
            return;
        }
        if let Some(connection) = self.connection_mut(slot) {
            connection.receiving += 1;
        }
        self.acknowledge_publish(slot, qos, id, Reason::Success, stake);
    }

    /// Says success where nothing has to be waited for and nothing stands before it; false where
    /// it has to take its turn.
    #[inline]
    fn acknowledge_at_once(
        &mut self,
        slot: u32,
        qos: QoS,
        ids: impl IntoIterator<Item = PacketId>,
    ) -> bool {
        let Shard {
            connections,
            pool,
            settings,
            ..
        } = self;
        let connection = connections
            .get_mut(slot as usize)
            .and_then(Option::as_deref_mut);
        let Some(connection) = connection else {
            return false;
        };
        let serves = matches!(connection.phase, Phase::Serving { .. });
        if !serves || !connection.gates.is_empty() {
            return false;
        }
        let first = match qos {
            // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1] [MQTT-4.3.3-8] [MQTT-3.1.1 4.3.3-2]
            QoS::ExactlyOnce => {
                connection.receiving += 1;
                PUBREC
            }
            // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1] [MQTT-4.3.2-4] [MQTT-3.1.1 4.3.2-2]
            _ => PUBACK,
        };
        let out = connection.window.buffer(pool);
        for id in ids {
            let [high, low] = id.get().to_be_bytes();
            out.extend_from_slice(&[first, 2, high, low]);
        }
        if connection.is_news(settings) {
            self.mark_dirty(slot);
        }
        true
    }
}

/// When a message ends, from its expiry interval; 0 is never.
pub(crate) fn expires_at(now: Millis, expiry_s: Option<u32>) -> Millis {
    // An interval of 0 has passed as soon as anything waits, so it ends at once.
    expiry_s.map_or(0, |expiry_s| (now + u64::from(expiry_s) * 1000).max(1))
}
