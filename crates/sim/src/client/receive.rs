//! What the broker says, packet by packet, held against the protocol.

use casemate_codec::{
    decode, frame, Ack, Auth, Disconnect, Packet, Publish, QoS, Reason, Sender, Suback, Unsuback,
    UserProperties,
};

use super::{Answer, Client, Exchange, Phase, Scene};
use crate::gate;
use crate::history::{ensure, Invariant, Violation};
use crate::oracle::{Delivery, Luggage};
use crate::tell;

impl Client {
    /// Reads what has arrived.
    pub(super) fn read(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(link) = self.link else {
            return Ok(());
        };
        if self.read_at > scene.now && !scene.is_calm {
            return Ok(());
        }
        let pause_ms = self.persona.habits.read_pause_ms_max;
        let slow = pause_ms > 0 && !scene.is_calm;
        let most = if slow {
            scene.chance.between(1, 3_000) as usize
        } else {
            usize::MAX
        };
        let mut buffer = std::mem::take(&mut self.buffer);
        let taken = scene.shell.links[link]
            .down
            .take(scene.now, most, &mut buffer);
        if slow && taken > 0 {
            self.read_at = scene.now + scene.chance.between(1, pause_ms);
        }
        let mut used = 0;
        let end = scene.shell.links[link].down.read;
        // A packet may end this connection, and nothing after it counts.
        while self.link == Some(link) {
            let left = (buffer.len() - used) as u64;
            let Some(length) = self.packet(scene, link, &buffer[used..], end - left)? else {
                break;
            };
            used += length;
        }
        if self.link == Some(link) {
            buffer.drain(..used);
            self.buffer = buffer;
            if scene.shell.links[link].down.is_over(scene.now) {
                self.lost(scene);
            }
        }
        Ok(())
    }

    /// Takes one packet off the front of `bytes`, which begin at `offset`; says how long it was.
    fn packet(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        bytes: &[u8],
        offset: u64,
    ) -> Result<Option<usize>, Violation> {
        let index = self.index;
        let broken = |fault| {
            let words = format!("client {index} cannot read what the broker wrote: {fault}");
            Violation::new(Invariant::Protocol, words)
        };
        let Some(frame) = frame(bytes, u32::MAX).map_err(broken)? else {
            return Ok(None);
        };
        let length = frame.packet_bytes();
        let Some(body) = bytes.get(frame.header_bytes..length) else {
            return Ok(None);
        };
        let packet = decode(self.version(), Sender::Server, frame, body).map_err(broken)?;
        if !scene.is_calm || !matches!(packet, Packet::Pingresp) {
            scene.history.note(scene.now, || {
                format!("client {index} (link {link}) ← {}", tell::packet(&packet))
            });
        }
        let most = scene.oracle.sessions[index].packet_bytes_max;
        ensure!(
            length <= most,
            Window,
            "client {index} takes {most} bytes and got {length}"
        );
        let first = matches!(packet, Packet::Connack(_) | Packet::Auth(_));
        ensure!(
            self.phase == Phase::Up || first,
            Protocol,
            "client {index} got {packet:?} before CONNACK"
        );
        self.take(scene, link, packet, offset + length as u64)?;
        Ok(Some(length))
    }

    /// Deals with one packet that ends at `end` in the stream.
    fn take(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        packet: Packet<'_>,
        end: u64,
    ) -> Result<(), Violation> {
        let index = self.index;
        match packet {
            Packet::Connack(connack) => self.connected(scene, link, &connack),
            Packet::Publish(publish) => self.published(scene, link, &publish, end),
            Packet::Puback(ack) => self.acknowledged(scene, link, &ack, end, QoS::AtLeastOnce),
            Packet::Pubrec(ack) => self.acknowledged(scene, link, &ack, end, QoS::ExactlyOnce),
            Packet::Pubcomp(ack) => self.completed(scene, link, &ack, end),
            Packet::Pubrel(ack) => {
                let known = scene.oracle.sessions[index]
                    .flights
                    .get(&ack.packet_id.get());
                let known = known.is_some_and(|flight| flight.qos == QoS::ExactlyOnce);
                ensure!(
                    known,
                    Protocol,
                    "client {index} got PUBREL for {}",
                    ack.packet_id
                );
                self.owe(scene, Answer::Pubcomp(ack.packet_id));
                Ok(())
            }
            Packet::Suback(suback) => self.subscribed(scene, link, &suback, end),
            Packet::Unsuback(unsuback) => self.unsubscribed(scene, link, &unsuback, end),
            Packet::Pingresp => {
                let Some(place) = self.pings.pop_front() else {
                    let words = format!("client {index} got PINGRESP without asking");
                    return Err(Violation::new(Invariant::Protocol, words));
                };
                self.confirm(scene, place)
            }
            Packet::Auth(auth) => self.challenged(scene, &auth),
            Packet::Disconnect(disconnect) => self.dismissed(scene, &disconnect),
            other => {
                let words = format!("client {index} got {other:?}");
                Err(Violation::new(Invariant::Protocol, words))
            }
        }
    }

    /// PUBLISH.
    fn published(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        publish: &Publish<'_>,
        end: u64,
    ) -> Result<(), Violation> {
        let index = self.index;
        let topic = self.resolve_alias(publish)?;
        let session = &scene.oracle.sessions[index];
        if publish.qos > QoS::AtMostOnce {
            let open = |flight: &&crate::oracle::Flight| flight.link == link && !flight.answered;
            let open = session.flights.values().filter(open).count();
            let most = self.receive_max;
            ensure!(
                open < most,
                Window,
                "client {index} allows {most} in flight, got one more"
            );
        }
        if publish.dup {
            let resumed = session
                .history
                .last()
                .is_some_and(|carrier| carrier.present);
            ensure!(resumed, Protocol, "client {index} got DUP in a new session");
        }
        let departure = scene.shell.links[link].departure(end);
        let formed_at = scene.shell.links[link].formed_at(end);
        let delivery = Delivery {
            client: index,
            link,
            topic,
            payload: publish.payload.to_vec(),
            qos: publish.qos,
            retain: publish.retain,
            dup: publish.dup,
            packet_id: publish.packet_id.map(|packet_id| packet_id.get()),
            expiry_s: publish.properties.message_expiry_s,
            ids: publish.properties.subscription_ids.iter().collect(),
            luggage: Luggage::of(&publish.properties),
            left_at: departure.map_or(scene.now, |departure| departure.at),
            formed_at,
        };
        scene
            .oracle
            .delivered(scene.now, &scene.shell.links, &delivery)?;
        match (publish.qos, publish.packet_id) {
            (QoS::AtLeastOnce, Some(packet_id)) => self.owe(scene, Answer::Puback(packet_id)),
            (QoS::ExactlyOnce, Some(packet_id)) => self.owe(scene, Answer::Pubrec(packet_id)),
            _ => {}
        }
        Ok(())
    }

    /// The topic of a PUBLISH, by its alias where it has one.
    fn resolve_alias(&mut self, publish: &Publish<'_>) -> Result<String, Violation> {
        let (index, topic) = (self.index, publish.topic);
        let Some(alias) = publish.properties.topic_alias else {
            return Ok(topic.to_owned());
        };
        let (alias, most) = (alias.get(), self.topic_alias_max);
        ensure!(
            alias <= most,
            Window,
            "client {index} allows {most} aliases and got {alias}"
        );
        if !topic.is_empty() {
            self.aliases_in.insert(alias, topic.to_owned());
        }
        let known = self.aliases_in.get(&alias).cloned();
        known.ok_or_else(|| {
            let words = format!("client {index} got the unknown alias {alias}");
            Violation::new(Invariant::Window, words)
        })
    }

    /// Checks that a change of the session had become durable, and that all before it is done.
    fn check_ack(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        packet_id: u16,
        (end, is_change): (u64, bool),
    ) -> Result<(), Violation> {
        let departure = scene.shell.links[link].departure(end);
        let stamp = scene.shell.links[link].stamps.remove(&packet_id);
        if let (Some(issued), Some(departure), true) = (stamp, departure, is_change) {
            let (seqs, links) = ((issued, departure.persisted), &scene.shell.links);
            scene
                .oracle
                .check_change(scene.now, self.index, seqs, links)?;
        }
        if let Some(place) = self.begun.remove(&packet_id) {
            self.confirm(scene, place)?;
        }
        Ok(())
    }

    /// The broker has read everything up to a place in the stream.
    pub(super) fn confirm(&mut self, scene: &mut Scene<'_>, place: u64) -> Result<(), Violation> {
        while let Some((end, serial)) = self.unconfirmed.front().copied() {
            if end > place {
                break;
            }
            self.unconfirmed.pop_front();
            scene
                .oracle
                .answered(scene.now, serial, Reason::Success, false)?;
        }
        Ok(())
    }

    /// PUBACK, or PUBREC.
    fn acknowledged(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        ack: &Ack<'_>,
        end: u64,
        qos: QoS,
    ) -> Result<(), Violation> {
        let (index, packet_id) = (self.index, ack.packet_id.get());
        let departure = scene.shell.links[link].departure(end);
        let all_due = match qos {
            QoS::AtLeastOnce => &mut self.due_puback,
            _ => &mut self.due_pubrec,
        };
        if self.is_retired {
            // A broker that drains passes over what would be a new promise, and only that.
            while all_due.front().is_some_and(|due| *due != packet_id) {
                all_due.pop_front();
            }
        }
        let due = all_due.pop_front();
        ensure!(
            due == Some(packet_id),
            Order,
            "client {index} expects the acknowledgement of {due:?} and got {packet_id}"
        );
        let Some(Exchange::Publish { serial, released }) = self.exchanges.get(&packet_id).cloned()
        else {
            let words = format!("client {index} got an acknowledgement of {packet_id}");
            return Err(Violation::new(Invariant::Protocol, words));
        };
        self.check_ack(scene, link, packet_id, (end, false))?;
        if let (Some(departure), false) = (departure, ack.reason.is_refusal()) {
            let (persisted, links) = (departure.persisted, &scene.shell.links);
            scene
                .oracle
                .check_durable(scene.now, serial, persisted, links)?;
        }
        let modern = self.is_modern();
        scene
            .oracle
            .answered(scene.now, serial, ack.reason, modern)?;
        if qos == QoS::AtLeastOnce || ack.reason.is_refusal() {
            self.exchanges.remove(&packet_id);
            return Ok(());
        }
        ensure!(
            !released,
            Protocol,
            "client {index} got PUBREC for {packet_id} twice"
        );
        self.write_pubrel(scene, packet_id)
    }

    /// PUBCOMP.
    fn completed(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        ack: &Ack<'_>,
        end: u64,
    ) -> Result<(), Violation> {
        let (index, packet_id) = (self.index, ack.packet_id.get());
        let due = self.due_pubcomp.pop_front();
        ensure!(
            due == Some(packet_id),
            Order,
            "client {index} expects PUBCOMP for {due:?} and got it for {packet_id}"
        );
        // On a resumed session an earlier PUBREL may have done it already.
        let carrier = scene.oracle.sessions[index].history.last();
        let is_first = carrier.is_some_and(|carrier| !carrier.present);
        self.check_ack(scene, link, packet_id, (end, is_first))?;
        let exchange = self.exchanges.remove(&packet_id);
        let released = matches!(exchange, Some(Exchange::Publish { released: true, .. }));
        ensure!(
            released,
            Protocol,
            "client {index} got PUBCOMP for {packet_id}"
        );
        Ok(())
    }

    /// SUBACK.
    fn subscribed(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        suback: &Suback<'_>,
        end: u64,
    ) -> Result<(), Violation> {
        let (index, packet_id) = (self.index, suback.packet_id.get());
        let Some(Exchange::Subscribe { places }) = self.exchanges.remove(&packet_id) else {
            let words = format!("client {index} got SUBACK for {packet_id}");
            return Err(Violation::new(Invariant::Protocol, words));
        };
        let codes: Vec<Reason> = suback.codes.iter().collect();
        let is_change = codes.iter().any(|code| !code.is_refusal());
        self.check_ack(scene, link, packet_id, (end, is_change))?;
        ensure!(
            codes.len() == places.len(),
            Protocol,
            "client {index} got {} codes for {} filters",
            codes.len(),
            places.len()
        );
        for (place, code) in places.into_iter().zip(codes) {
            scene.oracle.subscribed(scene.now, index, place, code)?;
        }
        Ok(())
    }

    /// UNSUBACK.
    fn unsubscribed(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        unsuback: &Unsuback<'_>,
        end: u64,
    ) -> Result<(), Violation> {
        let (index, packet_id) = (self.index, unsuback.packet_id.get());
        let Some(Exchange::Unsubscribe { filters }) = self.exchanges.remove(&packet_id) else {
            let words = format!("client {index} got UNSUBACK for {packet_id}");
            return Err(Violation::new(Invariant::Protocol, words));
        };
        let is_change = filters.iter().any(|ending| ending.was_sure);
        self.check_ack(scene, link, packet_id, (end, is_change))?;
        let mut codes = unsuback.codes.iter();
        for ending in filters {
            let code = codes.next();
            let known = (ending.was_sure, ending.filter.as_str());
            scene
                .oracle
                .unsubscribed(scene.now, index, &ending.slots, code, known)?;
        }
        Ok(())
    }

    /// AUTH: the gate wants to know more, or is content.
    fn challenged(&mut self, scene: &mut Scene<'_>, auth: &Auth<'_>) -> Result<(), Violation> {
        let index = self.index;
        let expected = self.persona.habits.challenged && auth.method == Some(gate::METHOD);
        ensure!(expected, Protocol, "client {index} got {auth:?}");
        if auth.reason == Reason::Success {
            ensure!(
                self.is_proving,
                Protocol,
                "client {index} got AUTH with success"
            );
            self.is_proving = false;
            return Ok(());
        }
        ensure!(
            auth.data == Some(gate::QUESTION),
            Integrity,
            "client {index} was asked something else than the gate asked"
        );
        let password = self.plan.people[self.persona.person].password.clone();
        let packet = Packet::Auth(Auth {
            reason: Reason::ContinueAuthentication,
            method: Some(gate::METHOD),
            data: Some(&password),
            reason_string: None,
            user: UserProperties::default(),
        });
        self.send(scene, &packet, (None, None))
    }

    /// DISCONNECT from the broker: only for reasons that a well-behaved client can cause.
    fn dismissed(
        &mut self,
        scene: &mut Scene<'_>,
        disconnect: &Disconnect<'_>,
    ) -> Result<(), Violation> {
        let (index, reason) = (self.index, disconnect.reason);
        let elsewhere = self.plan.drain.flatten();
        let named = disconnect.server_reference;
        ensure!(
            named == elsewhere.filter(|_| reason == Reason::UseAnotherServer),
            Integrity,
            "client {index} was sent to {named:?} with {reason:?}"
        );
        let store_fails = self.plan.store_fails();
        let expected = match reason {
            Reason::SessionTakenOver
            | Reason::KeepAliveTimeout
            | Reason::AdministrativeAction
            | Reason::ServerShuttingDown
            | Reason::MaximumConnectTime => true,
            // A slow reader is told so, or that the server is busy.
            Reason::QuotaExceeded | Reason::ServerBusy => true,
            Reason::NotAuthorized => true,
            Reason::UseAnotherServer => elsewhere.is_some(),
            Reason::ServerUnavailable
            | Reason::UnspecifiedError
            | Reason::ImplementationSpecificError => store_fails,
            _ => false,
        };
        ensure!(
            expected,
            Protocol,
            "client {index} was dismissed with {reason:?}"
        );
        self.lost(scene);
        Ok(())
    }
}
