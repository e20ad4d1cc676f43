//! What a connected client does of its own accord.

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    Ack, Auth, Disconnect, Filters, Names, Packet, PacketId, Publish, QoS, Reason, RetainHandling,
    Subscribe, SubscribeFilter, Unsubscribe, UserProperties,
};

use super::{Client, Ending, Exchange, Scene};
use crate::feature::Feature;
use crate::gate;
use crate::history::Violation;
use crate::oracle::{payload, Author, Fate, Luggage, Message, Wish};
use crate::topic;

impl Client {
    /// Does one thing.
    pub(super) fn act(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if self.is_silent {
            return Ok(());
        }
        if self.is_retired {
            // What the broker would have to promise anew could keep it for ever.
            return match scene.chance.percent(70) {
                true => self.publish(scene),
                false => self.ping(scene),
            };
        }
        // A client that has subscribed to nothing would see nothing.
        let session = &scene.oracle.sessions[self.index];
        if session.slots.iter().all(|slot| slot.ended_at.is_some()) && scene.chance.percent(50) {
            return self.subscribe(scene);
        }
        if scene.chance.percent(self.persona.habits.publish_percent) {
            for _ in 0..scene.chance.between(1, self.plan.burst) {
                self.publish(scene)?;
            }
            return Ok(());
        }
        let features = self.plan.features;
        let kept_most = if self.plan.share_percent > 50 { 29 } else { 44 };
        match scene.chance.below(100) {
            few if few <= kept_most => self.subscribe(scene),
            0..=59 if features.has(Feature::Unsubscribes) => self.unsubscribe(scene),
            60..=69 => self.ping(scene),
            70..=75 => self.disconnect(scene),
            76..=81 if features.has(Feature::Cuts) => {
                if let Some(link) = self.link {
                    scene
                        .history
                        .note(scene.now, || format!("the network cuts link {link}"));
                    scene.shell.cut(scene.now, scene.chance, link);
                    self.lost(scene);
                }
                Ok(())
            }
            82..=86 if features.has(Feature::Takeover) && !self.persona.client_id.is_empty() => {
                self.take_over(scene)
            }
            87 if features.has(Feature::KeepAlive) && self.keep_alive_ms.is_some() => {
                self.is_silent = scene.chance.percent(30);
                Ok(())
            }
            88..=91 => self.prove_again(scene),
            92..=94 => {
                self.act_at += scene.chance.between(100, 5_000);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// PINGREQ.
    pub(super) fn ping(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let place = self.queued;
        self.send(scene, &Packet::Pingreq, (None, None))?;
        self.pings.push_back(place);
        Ok(())
    }

    /// Messages of QoS 1 and 2 that the server has not answered.
    fn in_flight(&self) -> usize {
        let publish = |exchange: &&Exchange| matches!(exchange, Exchange::Publish { .. });
        self.exchanges.values().filter(publish).count()
    }

    /// PUBLISH of something new.
    fn publish(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let (topic, mut qos, retain) = self.choose_kind(scene);
        if qos > QoS::AtMostOnce && self.in_flight() >= self.limits.receive_max {
            qos = QoS::AtMostOnce;
        }
        let features = self.plan.features;
        let modern = self.is_modern();
        let tenant = self.plan.asker(&self.persona).principal.tenant;
        let serial = scene.oracle.next_serial();
        let empties = retain && features.has(Feature::EmptyPayloads);
        let large = scene.chance.percent(self.plan.large_percent);
        let payload = match scene.chance.below(100) {
            0..=14 if empties => Vec::new(),
            _ if large => {
                let usual = *scene.chance.pick(&self.plan.large_bytes);
                let most = self.limits.packet_bytes_max.min(usual) - 400;
                payload(serial, scene.chance.index(most))
            }
            // Of one length, so that runs of equal packets come in one segment.
            _ if scene.chance.percent(self.plan.constancy_percent) => payload(serial, 4),
            _ => payload(serial, scene.chance.index(40)),
        };
        let expires = modern && features.has(Feature::Expiry) && scene.chance.percent(20);
        let message = Message {
            serial,
            tenant,
            author: Author::Client(self.index),
            incarnation: self.incarnation(),
            topic,
            qos,
            retain,
            payload,
            luggage: if modern && !self.plan.is_plain {
                Luggage::some(scene.chance)
            } else {
                Luggage::default()
            },
            expiry_s: expires.then(|| *scene.chance.pick(&[1, 3, 8, 100_000])),
            sent_at: scene.now,
            taken_at: None,
            issued: None,
            done_at: None,
            transmissions: 0,
            repeats: 0,
            is_loose: false,
            fate: Fate::Open,
            law: None,
        };
        scene.oracle.add(message);
        if qos == QoS::AtMostOnce {
            self.write_publish(scene, serial, 0, false)?;
            self.unconfirmed.push_back((self.queued, serial));
            return Ok(());
        }
        let Some(packet_id) = self.packet_id() else {
            return Ok(());
        };
        let exchange = Exchange::Publish {
            serial,
            released: false,
        };
        self.exchanges.insert(packet_id.get(), exchange);
        self.write_publish(scene, serial, packet_id.get(), false)
    }

    /// Topic, QoS and retain of the next message: often those of the last.
    fn choose_kind(&mut self, scene: &mut Scene<'_>) -> (String, QoS, bool) {
        let again = scene.chance.percent(self.plan.constancy_percent);
        if let Some(kind) = self.kind.as_ref().filter(|_| again) {
            return kind.clone();
        }
        let qos = self.choose_qos(scene);
        let asker = self.plan.asker(&self.persona);
        let topic = topic::topic(
            scene.chance,
            self.plan.tails,
            &asker.principal.name,
            &self.persona.client_id,
        );
        let retain = self.plan.features.has(Feature::Retained)
            && scene.chance.percent(self.plan.retain_percent);
        self.kind.insert((topic, qos, retain)).clone()
    }

    /// Writes a PUBLISH, for the first time or again.
    pub(super) fn write_publish(
        &mut self,
        scene: &mut Scene<'_>,
        serial: u64,
        packet_id: u16,
        dup: bool,
    ) -> Result<(), Violation> {
        scene.oracle.sent_again(serial);
        let Some(message) = scene.oracle.message(serial).cloned() else {
            return Ok(());
        };
        let pairs = message.luggage.pairs();
        let mut properties = message.luggage.publish(&pairs);
        properties.message_expiry_s = message.expiry_s;
        let mut topic = message.topic.as_str();
        let aliased = self.limits.topic_alias_max > 0
            && self.plan.features.has(Feature::Aliases)
            && scene.chance.percent(40);
        if aliased {
            let most = u64::from(self.limits.topic_alias_max.min(4));
            let alias = scene.chance.between(1, most) as u16;
            if self
                .aliases_out
                .get(&alias)
                .is_some_and(|known| known == topic)
            {
                topic = "";
            } else {
                self.aliases_out.insert(alias, topic.to_owned());
            }
            properties.topic_alias = NonZeroU16::new(alias);
        }
        let packet = Packet::Publish(Publish {
            dup,
            qos: message.qos,
            retain: message.retain,
            topic,
            packet_id: PacketId::new(packet_id),
            properties,
            payload: &message.payload,
        });
        let exchange = (packet_id > 0).then_some(packet_id);
        self.begin(exchange);
        match message.qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.due_puback.push_back(packet_id),
            QoS::ExactlyOnce => self.due_pubrec.push_back(packet_id),
        }
        self.send(scene, &packet, (Some(serial), exchange))
    }

    /// Writes PUBREL.
    pub(super) fn write_pubrel(
        &mut self,
        scene: &mut Scene<'_>,
        packet_id: u16,
    ) -> Result<(), Violation> {
        if let Some(Exchange::Publish { released, .. }) = self.exchanges.get_mut(&packet_id) {
            *released = true;
        }
        let Some(id) = PacketId::new(packet_id) else {
            return Ok(());
        };
        self.due_pubcomp.push_back(packet_id);
        self.begin(Some(packet_id));
        let packet = Packet::Pubrel(plain_ack(id));
        self.send(scene, &packet, (None, Some(packet_id)))
    }

    /// Notes where in the stream an exchange begins.
    fn begin(&mut self, packet_id: Option<u16>) {
        if let Some(packet_id) = packet_id {
            self.begun.insert(packet_id, self.queued);
        }
    }

    /// SUBSCRIBE to one or a few filters.
    fn subscribe(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let modern = self.is_modern();
        let slots = &scene.oracle.sessions[self.index].slots;
        if self.plan.is_sparing && slots.iter().any(|slot| slot.ended_at.is_none()) {
            return self.unsubscribe(scene);
        }
        let mut wishes: Vec<Wish> = Vec::new();
        let most = if self.plan.is_sparing { 1 } else { 3 };
        for _ in 0..scene.chance.between(1, most) {
            let wish = self.wish(scene);
            let same = |one: &Wish| one.filter == wish.filter && one.share == wish.share;
            if !wishes.iter().any(same) {
                wishes.push(wish);
            }
        }
        let id = match modern && scene.chance.percent(50) {
            true => NonZeroU32::new(scene.chance.between(1, 300) as u32),
            false => None,
        };
        self.write_subscribe(scene, &wishes, id)
    }

    /// Writes SUBSCRIBE.
    fn write_subscribe(
        &mut self,
        scene: &mut Scene<'_>,
        wishes: &[Wish],
        id: Option<NonZeroU32>,
    ) -> Result<(), Violation> {
        let Some((packet_id, link)) = self.packet_id().zip(self.link) else {
            return Ok(());
        };
        let mut places = Vec::new();
        let mut names = Vec::new();
        for wish in wishes {
            let who = (self.index, link);
            let id = id.map(NonZeroU32::get);
            places.push(scene.oracle.subscribing(scene.now, who, wish, id));
            names.push(match &wish.share {
                Some(name) => format!("$share/{name}/{}", wish.filter),
                None => wish.filter.clone(),
            });
        }
        let lines: Vec<SubscribeFilter<'_>> = wishes
            .iter()
            .zip(&names)
            .map(|(wish, name)| SubscribeFilter {
                filter: name,
                qos: wish.qos,
                no_local: wish.no_local,
                retain_as_published: wish.retain_as_published,
                retain_handling: wish.retain_handling,
            })
            .collect();
        let packet = Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: id,
            user: UserProperties::default(),
            filters: Filters::List(&lines),
        });
        self.exchanges
            .insert(packet_id.get(), Exchange::Subscribe { places });
        self.begin(Some(packet_id.get()));
        self.send(scene, &packet, (None, Some(packet_id.get())))
    }

    /// SUBSCRIBE to exactly these filters with QoS 2, each in a packet of its own.
    pub fn look_at(&mut self, scene: &mut Scene<'_>, filters: &[&str]) -> Result<(), Violation> {
        for filter in filters {
            let wish = Wish {
                share: None,
                filter: (*filter).to_owned(),
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            };
            self.write_subscribe(scene, &[wish], None)?;
        }
        Ok(())
    }

    /// Something to subscribe to.
    fn wish(&self, scene: &mut Scene<'_>) -> Wish {
        let modern = self.is_modern();
        let asker = self.plan.asker(&self.persona);
        let shares = modern && self.plan.features.has(Feature::Shares);
        let share = (shares && scene.chance.percent(self.plan.share_percent))
            .then(|| format!("s{}", scene.chance.below(2)));
        let no_local = modern
            && share.is_none()
            && self.plan.features.has(Feature::NoLocal)
            && scene.chance.percent(20);
        let retain_handling = match modern {
            true => *scene.chance.pick(&[
                RetainHandling::Send,
                RetainHandling::Send,
                RetainHandling::SendIfNew,
                RetainHandling::Never,
            ]),
            false => RetainHandling::Send,
        };
        Wish {
            share,
            filter: topic::filter(
                scene.chance,
                (self.plan.tails, self.plan.wide_percent),
                &asker.principal.name,
                &self.persona.client_id,
            ),
            qos: self.choose_qos(scene),
            no_local,
            retain_as_published: modern && scene.chance.percent(30),
            retain_handling,
        }
    }

    /// UNSUBSCRIBE from something, mostly something it has.
    fn unsubscribe(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(packet_id) = self.packet_id() else {
            return Ok(());
        };
        let session = &scene.oracle.sessions[self.index];
        let active: Vec<(String, bool)> = session
            .slots
            .iter()
            .filter(|slot| slot.ended_at.is_none())
            .map(|slot| {
                (
                    slot.wire_filter(),
                    slot.must_from.is_some() && slot.ending_at.is_none(),
                )
            })
            .collect();
        let (filter, was_sure) = match active.is_empty() || scene.chance.percent(5) {
            true => ("g/never".to_owned(), false),
            false => scene.chance.pick(&active).clone(),
        };
        let slots = scene.oracle.unsubscribing(scene.now, self.index, &filter);
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id,
            user: UserProperties::default(),
            filters: Names::List(&[&filter]),
        });
        self.begin(Some(packet_id.get()));
        self.send(scene, &packet, (None, Some(packet_id.get())))?;
        let ending = Ending {
            filter,
            slots,
            was_sure,
        };
        self.exchanges.insert(
            packet_id.get(),
            Exchange::Unsubscribe {
                filters: vec![ending],
            },
        );
        Ok(())
    }

    /// DISCONNECT, with or without the will, sometimes with another session expiry.
    fn disconnect(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let with_will = self.is_modern() && scene.chance.percent(30);
        let other_expiry =
            self.is_modern() && self.session_expiry_s > 0 && scene.chance.percent(30);
        let expiry_s = other_expiry.then(|| *scene.chance.pick(&[0, 3, 1_000]));
        let packet = Packet::Disconnect(Disconnect {
            reason: if with_will {
                Reason::DisconnectWithWill
            } else {
                Reason::Success
            },
            session_expiry_s: expiry_s,
            reason_string: None,
            user: UserProperties::default(),
            server_reference: None,
        });
        self.send(scene, &packet, (None, None))?;
        if let Some(carrier) = scene.oracle.sessions[self.index].history.last_mut() {
            let most_s = self.plan.settings.session_expiry_s_max;
            carrier.goodbye_expiry_s = expiry_s.map(|expiry_s| expiry_s.min(most_s));
        }
        if let (Some(serial), false) = (self.will, with_will) {
            let mine = scene
                .oracle
                .wills
                .iter_mut()
                .rev()
                .find(|will| will.serial == serial);
            if let Some(will) = mine {
                will.taken_back = true;
            }
        }
        self.lost(scene);
        Ok(())
    }

    /// AUTH: proves itself anew on a living connection (MQTT 5.0 §4.12.1).
    fn prove_again(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let challenged = self.is_modern() && self.persona.habits.challenged;
        if !challenged || self.is_proving {
            return Ok(());
        }
        self.is_proving = true;
        let packet = Packet::Auth(Auth {
            reason: Reason::Reauthenticate,
            method: Some(gate::METHOD),
            data: Some(b"again"),
            reason_string: None,
            user: UserProperties::default(),
        });
        self.send(scene, &packet, (None, None))
    }
}

/// An acknowledgement that says nothing but success.
pub fn plain_ack(packet_id: PacketId) -> Ack<'static> {
    Ack {
        packet_id,
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    }
}
