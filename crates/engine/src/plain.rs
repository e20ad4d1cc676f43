//! The short way of plain packets: a PUBLISH as the one before, an acknowledgement of success.
//!
//! Nothing is decided here that the long way decides otherwise. What is unusual in any respect is
//! left to it untouched, so that each rule of the protocol is enforced in one place.

use std::rc::Rc;

use casemate_codec::{plain_ack, plain_publish, Ack, Frame, QoS, Reason, UserProperties};

use crate::connection::{Flow, Memo, Phase};
use crate::door::ConnectionId;
use crate::incoming::Terms;
use crate::message::Draft;
use crate::route::Route;
use crate::shard::Shard;
use crate::verbatim::Verbatim;

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
            4..=7 => {
                let flow = self.plain_ack(slot, frame, &bytes[..frame.packet_bytes()])?;
                Some((frame.packet_bytes(), flow))
            }
            _ => None,
        }
    }

    /// Handles one PUBLISH to a topic that this connection has published to before.
    #[inline(never)]
    fn known_publish(&mut self, slot: u32, frame: Frame, bytes: &[u8]) -> Option<(usize, Flow)> {
        let packet = &bytes[..frame.packet_bytes()];
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
        if !self.routes.is_current(&memo.route) {
            return None;
        }
        let terms = Terms {
            qos: found.qos,
            retain: found.retain,
            packet_id: found.packet_id,
        };
        if self.drain.is_some() && terms.qos > QoS::AtMostOnce {
            return None;
        }
        let permit = memo.rights.permit(terms.qos, terms.retain)?;
        let route = Rc::clone(&memo.route);
        if connection.is_full(&self.settings) {
            return None;
        }
        connection.heard_at = self.now;
        self.counters.packets_received += 1;
        if let Some(flow) = self.exceeds_receive_max(slot, session, terms) {
            return Some((packet.len(), flow));
        }
        let Some(publisher) = self.sessions.get(session) else {
            return Some((packet.len(), Flow::Stop));
        };
        let draft = Draft {
            tenant: publisher.tenant,
            topic: &route.topic,
            properties: &[],
            payload: found.payload,
            qos: terms.qos,
            retain: terms.retain,
            expires_at: 0,
            publisher: publisher.hash,
        };
        let packet_id_at = frame.header_bytes + found.packet_id_at;
        let head_bytes = packet.len() - found.payload.len();
        let verbatim = Verbatim::of(packet, packet_id_at, terms.qos, version);
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

    /// True where a message that is not retained concerns sessions of this shard alone.
    fn stays_here(&self, route: &Route) -> bool {
        route.groups.is_empty() && (self.place.count == 1 || route.peers == 0)
    }

    /// Handles an acknowledgement that says success and nothing else.
    #[inline(never)]
    fn plain_ack(&mut self, slot: u32, frame: Frame, packet: &[u8]) -> Option<Flow> {
        let packet_id = plain_ack(frame, &packet[frame.header_bytes..])?;
        let connection = self.connections.get_mut(slot as usize)?.as_deref_mut()?;
        let serves = matches!(connection.phase, Phase::Serving { .. }) && connection.greeted;
        if !serves || connection.is_full(&self.settings) {
            return None;
        }
        connection.heard_at = self.now;
        self.counters.packets_received += 1;
        let ack = Ack {
            packet_id,
            reason: Reason::Success,
            reason_string: None,
            user: UserProperties::default(),
        };
        Some(match frame.first >> 4 {
            4 => self.puback_received(slot, &ack),
            5 => self.pubrec_received(slot, &ack),
            6 => self.pubrel_received(slot, &ack),
            _ => self.pubcomp_received(slot, &ack),
        })
    }
}
