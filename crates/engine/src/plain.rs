//! The short way of plain packets: a PUBLISH as the one before, an acknowledgement of success.
//!
//! Nothing is decided here that the long way decides otherwise. What is unusual in any respect is
//! left to it untouched, so that each rule of the protocol is enforced in one place.

use std::rc::Rc;

use casemate_codec::{plain_ack, plain_publish, Ack, Frame, PacketId, QoS, Reason, UserProperties};

use crate::acknowledge::PUBACK;
use crate::connection::{Flow, Memo, Phase};
use crate::door::ConnectionId;
use crate::incoming::Terms;
use crate::message::Draft;
use crate::outbox::Phase as Exchange;
use crate::policy::Permit;
use crate::route::Route;
use crate::shard::Shard;
use crate::verbatim::Verbatim;

/// What is known of a PUBLISH before anything is done with it.
struct Known<'a> {
    session: u32,
    terms: Terms,
    permit: Permit,
    route: Rc<Route>,
    payload: &'a [u8],
    verbatim: Option<Verbatim<'a>>,
}

impl Shard {
    /// Handles the packet at the start of `bytes`, which is there as a whole, if it is plain, and
    /// perhaps those behind it that are like it; says how many bytes it used. `None` leaves it to
    /// [`Shard::packet`], and nothing has happened.
    #[inline]
    pub(crate) fn plain_packet(
        &mut self,
        slot: u32,
        frame: Frame,
        bytes: &[u8],
    ) -> Option<(usize, Flow)> {
        match frame.first >> 4 {
            3 => self.known_publish(slot, frame, bytes),
            4..=7 => self.plain_acks(slot, frame, bytes),
            _ => None,
        }
    }

    /// Handles a PUBLISH to a topic that this connection has published to before.
    #[inline(never)]
    fn known_publish(&mut self, slot: u32, frame: Frame, bytes: &[u8]) -> Option<(usize, Flow)> {
        let packet = &bytes[..frame.packet_bytes()];
        let known = self.recall(slot, frame, packet)?;
        let (session, terms, route) = (known.session, known.terms, known.route);
        if let Some(flow) = self.exceeds_receive_max(slot, session, terms) {
            return Some((packet.len(), flow));
        }
        let Some(publisher) = self.sessions.get(session) else {
            return Some((packet.len(), Flow::Stop));
        };
        let head_bytes = packet.len() - known.payload.len();
        let draft = Draft {
            tenant: publisher.tenant,
            topic: &route.topic,
            properties: &[],
            payload: known.payload,
            qos: terms.qos,
            retain: terms.retain,
            expires_at: 0,
            publisher: publisher.hash,
        };
        let (permit, verbatim) = (known.permit, known.verbatim);
        if terms.qos == QoS::AtMostOnce
            && !terms.retain
            && bytes[packet.len()..].starts_with(&packet[..head_bytes])
            && self.stays_here(&route)
        {
            if let Some(run) = verbatim.map(|first| first.run(bytes, head_bytes)) {
                self.route_run(permit, &draft, &run, head_bytes, &route);
                return Some((run.bytes(), Flow::Continue));
            }
        }
        let flow = self.permitted_publish(slot, session, terms, permit, &draft, verbatim, &route);
        Some((packet.len(), flow))
    }

    /// Finds what is known of a PUBLISH, and counts it as taken in.
    #[inline(always)]
    fn recall<'a>(&mut self, slot: u32, frame: Frame, packet: &'a [u8]) -> Option<Known<'a>> {
        let epoch = self.policy.epoch();
        let connection = self.connections.get_mut(slot as usize)?.as_deref_mut()?;
        // Only who serves a session, and was greeted, has published before.
        let memo = connection.memo.as_mut()?;
        let Phase::Serving { session } = connection.phase else {
            return None;
        };
        let version = connection.version;
        let found = plain_publish(version, frame, &packet[frame.header_bytes..])?;
        if memo.epoch != epoch || *memo.route.topic.as_bytes() != *found.topic_bytes {
            let generation = connection.generation;
            let route = self.routes.find(memo.route.tenant, found.topic_bytes)?;
            let rights = route.rights_of(ConnectionId { slot, generation }, epoch)?;
            *memo = Memo {
                route,
                rights,
                epoch,
            };
        }
        // From here on the topic is one that has passed the codec and `topic_levels_max`.
        let is_late = self.drain.is_some() && found.qos > QoS::AtMostOnce;
        if is_late || !self.routes.is_current(&memo.route) {
            return None;
        }
        let permit = memo.rights.permit(found.qos, found.retain)?;
        let route = Rc::clone(&memo.route);
        if connection.is_full(&self.settings) {
            return None;
        }
        connection.heard_at = self.now;
        self.counters.packets_received += 1;
        let packet_id_at = frame.header_bytes + found.packet_id_at;
        Some(Known {
            session,
            terms: Terms {
                qos: found.qos,
                retain: found.retain,
                packet_id: found.packet_id,
            },
            permit,
            route,
            payload: found.payload,
            verbatim: Verbatim::of(packet, packet_id_at, found.qos, version),
        })
    }

    /// True where a message that is not retained concerns sessions of this shard alone.
    fn stays_here(&self, route: &Route) -> bool {
        route.groups.is_empty() && (self.place.count == 1 || route.peers == 0)
    }

    /// Handles acknowledgements that say success and nothing else.
    #[inline(never)]
    fn plain_acks(&mut self, slot: u32, frame: Frame, bytes: &[u8]) -> Option<(usize, Flow)> {
        let packet = &bytes[..frame.packet_bytes()];
        let packet_id = plain_ack(frame, &packet[frame.header_bytes..])?;
        let connection = self.connections.get_mut(slot as usize)?.as_deref_mut()?;
        let Phase::Serving { session } = connection.phase else {
            return None;
        };
        if !connection.greeted || connection.is_full(&self.settings) {
            return None;
        }
        connection.heard_at = self.now;
        if frame.first == PUBACK {
            if let Some(taken) = self.plain_pubacks(slot, session, bytes) {
                return Some((taken, Flow::Continue));
            }
        }
        self.counters.packets_received += 1;
        let ack = Ack {
            packet_id,
            reason: Reason::Success,
            reason_string: None,
            user: UserProperties::default(),
        };
        let flow = match frame.first >> 4 {
            4 => self.puback_received(slot, &ack),
            5 => self.pubrec_received(slot, &ack),
            6 => self.pubrel_received(slot, &ack),
            _ => self.pubcomp_received(slot, &ack),
        };
        Some((packet.len(), flow))
    }

    /// Ends the exchanges of the plain PUBACKs that `bytes` begins with; says how much it used.
    /// `None` where the session is durable, so that what happens to it is written down.
    fn plain_pubacks(&mut self, slot: u32, session: u32, bytes: &[u8]) -> Option<usize> {
        let session = self.sessions.get_mut(session)?;
        if session.is_durable() {
            return None;
        }
        let (mut taken, mut is_any) = (0, false);
        let (packets, _) = bytes.as_chunks::<4>();
        for &[first, length, high, low] in packets {
            // [MQTT-2.2.1-3] [MQTT-3.1.1 2.3.1-1] Identifier 0 is left to `decode`.
            let Some(id) = PacketId::new(u16::from_be_bytes([high, low])) else {
                break;
            };
            if first != PUBACK || length != 2 {
                break;
            }
            // [MQTT-4.4.0-2] [MQTT-4.8.2-6]
            is_any |= session.outbox.finish(id, Exchange::Puback);
            taken += 4;
        }
        self.counters.packets_received += taken as u64 / 4;
        if is_any {
            self.pump_later(slot);
        }
        Some(taken)
    }
}
