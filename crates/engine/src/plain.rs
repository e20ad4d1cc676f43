//! The short way of plain packets: a PUBLISH as the one before, an acknowledgement of success.
//!
//! Nothing is decided here that the long way decides otherwise. What is unusual in any respect is
//! left to it untouched, so that each rule of the protocol is enforced in one place.

use std::rc::Rc;

use arrayvec::ArrayVec;
use casemate_codec::{
    frame, plain_ack, plain_publish, Ack, Frame, PacketId, QoS, Reason, UserProperties, Version,
};

use crate::acknowledge::PUBACK;
use crate::connection::{Flow, Memo, Phase};
use crate::flights::Phase as Exchange;
use crate::incoming::Terms;
use crate::journal::Whole;
use crate::message::Draft;
use crate::policy::{Permit, PublishRights};
use crate::route::Route;
use crate::shard::Shard;
use crate::verbatim::Verbatim;

/// Packets whose routes are looked for before the first of them is passed on. Where there are more
/// topics than stay near the processor, the memory of one route is on its way while the next is
/// looked for, instead of one after the other.
const AHEAD: usize = 8;

/// What is known of a PUBLISH before anything is done with it.
struct Known<'a> {
    session: u32,
    version: Version,
    terms: Terms,
    rights: PublishRights,
    route: Rc<Route>,
    packet: &'a [u8],
    /// Where its packet id stands, at QoS 1 and 2.
    packet_id_at: usize,
    /// What stands before its payload.
    head_bytes: usize,
}

impl<'a> Known<'a> {
    /// Goes on to the packet that `bytes` begin with, if it differs from this one in packet id and
    /// payload at most: all that was looked at is the same then.
    #[inline(always)]
    fn advance(&mut self, bytes: &'a [u8]) -> bool {
        let Some(packet) = bytes.get(..self.packet.len()) else {
            return false;
        };
        let (id_at, head_bytes) = (self.packet_id_at, self.head_bytes);
        if self.terms.packet_id.is_none() {
            if packet[..head_bytes] != self.packet[..head_bytes] {
                return false;
            }
        } else {
            let id = PacketId::new(u16::from_be_bytes([packet[id_at], packet[id_at + 1]]));
            // [MQTT-2.2.1-3] [MQTT-3.1.1 2.3.1-1] Identifier 0 is left to `decode`. Behind it
            // stands at most the length of no properties.
            if id.is_none()
                || packet[..id_at] != self.packet[..id_at]
                || packet[id_at + 2..head_bytes] != self.packet[id_at + 2..head_bytes]
            {
                return false;
            }
            self.terms.packet_id = id;
        }
        self.packet = packet;
        true
    }
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

    /// Handles a PUBLISH to a topic that this connection has published to before, and those behind
    /// it that are like it in this.
    #[inline(never)]
    fn known_publish(&mut self, slot: u32, frame: Frame, bytes: &[u8]) -> Option<(usize, Flow)> {
        let packet = &bytes[..frame.packet_bytes()];
        let connection = self.connection(slot)?;
        // Only who serves a session, and was greeted, has published before.
        let memo = connection.memo.as_ref()?;
        let Phase::Serving { session } = connection.phase else {
            return None;
        };
        let version = connection.version;
        let found = plain_publish(version, frame, &packet[frame.header_bytes..])?;
        if self.drain.is_some() && found.qos > QoS::AtMostOnce {
            return None;
        }
        if memo.epoch != self.policy.epoch() || *memo.route.topic.as_bytes() != *found.topic_bytes {
            return self.publish_ahead(slot, frame, bytes);
        }
        let mut known = Known {
            session,
            version,
            terms: Terms::of_plain(&found),
            rights: memo.rights,
            route: Rc::clone(&memo.route),
            packet,
            packet_id_at: frame.header_bytes + found.packet_id_at,
            head_bytes: packet.len() - found.payload.len(),
        };
        self.pass_on_all(slot, &mut known, bytes)
    }

    /// Handles the known PUBLISH packets that `bytes` begin with, each to another topic than the
    /// one before it.
    #[inline(never)]
    fn publish_ahead(&mut self, slot: u32, frame: Frame, bytes: &[u8]) -> Option<(usize, Flow)> {
        let mut ahead = self.look_ahead(slot, frame, bytes)?;
        let last = ahead.last()?;
        let memo = Memo {
            route: Rc::clone(&last.route),
            rights: last.rights,
            epoch: self.policy.epoch(),
        };
        self.connection_mut(slot)?.memo = Some(memo);
        let mut taken = 0;
        for known in &mut ahead {
            // Only behind the last one there may be more that are like it.
            let Some((step, flow)) = self.pass_on_all(slot, known, &bytes[taken..]) else {
                return (taken > 0).then_some((taken, Flow::Continue));
            };
            taken += step;
            if flow != Flow::Continue {
                return Some((taken, flow));
            }
        }
        Some((taken, Flow::Continue))
    }

    /// Finds what is known of the packets that `bytes` begin with. It changes nothing.
    #[inline(always)]
    fn look_ahead<'a>(
        &self,
        slot: u32,
        mut next: Frame,
        bytes: &'a [u8],
    ) -> Option<ArrayVec<Known<'a>, AHEAD>> {
        let connection = self.connection(slot)?;
        let (session, version) = (connection.session()?, connection.version);
        let tenant = connection.memo.as_ref()?.route.tenant;
        let (publisher, epoch) = (self.id_of(slot), self.policy.epoch());
        let mut ahead: ArrayVec<Known<'a>, AHEAD> = ArrayVec::new();
        let (mut at, mut topic) = (0, &[][..]);
        loop {
            let packet = &bytes[at..at + next.packet_bytes()];
            let Some(found) = plain_publish(version, next, &packet[next.header_bytes..]) else {
                break;
            };
            // What is like the one before goes on with it, and what cannot be promised any more is
            // left to the long way.
            if found.topic_bytes == topic || self.drain.is_some() && found.qos > QoS::AtMostOnce {
                break;
            }
            topic = found.topic_bytes;
            let Some(route) = self.routes.find(tenant, topic) else {
                break;
            };
            let Some(rights) = route.rights_of(publisher, epoch) else {
                break;
            };
            ahead.push(Known {
                session,
                version,
                terms: Terms::of_plain(&found),
                rights,
                route,
                packet,
                packet_id_at: next.header_bytes + found.packet_id_at,
                head_bytes: packet.len() - found.payload.len(),
            });
            at += packet.len();
            match frame(&bytes[at..], self.settings.packet_bytes_max) {
                Ok(Some(whole)) if !ahead.is_full() && whole.packet_bytes() <= bytes.len() - at => {
                    next = whole;
                }
                _ => break,
            }
        }
        Some(ahead)
    }

    /// Passes on the packet that is known and those behind it that are like it; says how many bytes
    /// they have. `None` where nothing has happened.
    #[inline(never)]
    fn pass_on_all<'a>(
        &mut self,
        slot: u32,
        known: &mut Known<'a>,
        bytes: &'a [u8],
    ) -> Option<(usize, Flow)> {
        let mut taken = 0;
        loop {
            // What is not taken in here is left to the long way, which says why.
            let Some(permit) = self.take_in(slot, known) else {
                return (taken > 0).then_some((taken, Flow::Continue));
            };
            let (step, flow) = self.pass_on(slot, known, permit, &bytes[taken..]);
            taken += step;
            if flow != Flow::Continue {
                return Some((taken, flow));
            }
            if !known.advance(&bytes[taken..]) {
                return Some((taken, Flow::Continue));
            }
        }
    }

    /// Routes a PUBLISH, or the run of them that `bytes` begin with; says how many bytes it used.
    #[inline(always)]
    fn pass_on(
        &mut self,
        slot: u32,
        known: &Known<'_>,
        permit: Permit,
        bytes: &[u8],
    ) -> (usize, Flow) {
        let (session, terms, route) = (known.session, known.terms, &known.route);
        let packet_bytes = known.packet.len();
        if terms.packet_id.is_some() {
            match self.exceeds_receive_max(slot, session, terms) {
                Some(Flow::Blocked) => return (0, Flow::Blocked),
                Some(flow) => return (packet_bytes, flow),
                None => {}
            }
        }
        let Some(publisher) = self.sessions.get(session) else {
            return (packet_bytes, Flow::Stop);
        };
        let draft = Draft {
            tenant: publisher.tenant,
            topic: &route.topic,
            properties: &[],
            payload: &known.packet[known.head_bytes..],
            qos: terms.qos,
            retain: terms.retain,
            expires_at: 0,
            publisher: publisher.hash,
            whole: Whole::NONE,
        };
        let version = known.version;
        let verbatim = Verbatim::of(known.packet, known.packet_id_at, terms.qos, version);
        if let Some(run) = self.run_of(slot, known, verbatim, bytes) {
            self.counters.packets_received += run.count() - 1;
            self.counters.publishes_received += run.count();
            let mut stake = self.route_run(permit, &draft, &run, known.head_bytes, route);
            if self.place.count > 1 {
                stake = stake.and(self.forward_to_peers(&draft, Some(&run), route.peers));
            }
            if terms.qos > QoS::AtMostOnce {
                self.run_accepted(slot, &run, stake);
            }
            return (run.bytes(), Flow::Continue);
        }
        match self.permitted_publish(slot, session, terms, permit, &draft, verbatim, route) {
            Flow::Blocked => (0, Flow::Blocked),
            flow => (packet_bytes, flow),
        }
    }

    /// The run that begins here, where several packets may be handled as one: at QoS 1 no more than
    /// may wait for their acknowledgement.
    #[inline(always)]
    fn run_of<'a>(
        &self,
        slot: u32,
        known: &Known<'a>,
        first: Option<Verbatim<'a>>,
        bytes: &'a [u8],
    ) -> Option<Verbatim<'a>> {
        let Terms { qos, retain, .. } = known.terms;
        let next = &bytes[known.packet.len()..];
        if next.first() != known.packet.first() {
            return None;
        }
        if retain || qos == QoS::ExactlyOnce || !known.route.groups().is_empty() {
            return None;
        }
        let mut count_max = u32::MAX;
        if qos == QoS::AtLeastOnce {
            if self.journal.is_ailing {
                return None;
            }
            let receiving = self.connection(slot)?.receiving;
            count_max = u32::from(self.settings.receive_max).saturating_sub(receiving);
        }
        let run = first?.run(bytes, known.head_bytes, count_max);
        // Without room for all of them they go on one by one, as far as there is some.
        (run.count() > 1 && self.has_room_for(&run, &known.route)).then_some(run)
    }

    /// Takes in one more PUBLISH to a known topic; `None` where something has changed, or stands
    /// against it.
    #[inline(always)]
    fn take_in(&mut self, slot: u32, known: &Known<'_>) -> Option<Permit> {
        let connection = self.connections.get_mut(slot as usize)?.as_deref_mut()?;
        if !matches!(connection.phase, Phase::Serving { .. })
            || connection.is_full(&self.settings)
            || !self.routes.is_current(&known.route)
        {
            return None;
        }
        let permit = known.rights.permit(known.terms.qos, known.terms.retain)?;
        connection.heard_at = self.now;
        self.counters.packets_received += 1;
        Some(permit)
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
    /// `None` where what happens to the session is written down.
    fn plain_pubacks(&mut self, slot: u32, session: u32, bytes: &[u8]) -> Option<usize> {
        let session = self.sessions.get_mut(session)?;
        if session.is_durable() || session.number != 0 {
            return None;
        }
        let (packets, _) = bytes.as_chunks::<4>();
        let plain = packets.iter().map_while(|&[first, length, high, low]| {
            // [MQTT-2.2.1-3] [MQTT-3.1.1 2.3.1-1] Identifier 0 is left to `decode`.
            let id = PacketId::new(u16::from_be_bytes([high, low]));
            id.filter(|_| first == PUBACK && length == 2)
        });
        // [MQTT-4.4.0-2] [MQTT-4.8.2-6]
        let flights = &mut session.outbox.flights;
        let mut count = flights.finish_in_order(plain.clone());
        let mut is_any = count > 0;
        for id in plain.skip(count) {
            is_any |= flights.finish(id, Exchange::Puback).is_some();
            count += 1;
        }
        self.counters.packets_received += count as u64;
        if is_any {
            self.pump_later(slot);
        }
        Some(count * 4)
    }
}
