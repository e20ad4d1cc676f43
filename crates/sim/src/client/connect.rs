//! Connecting, resuming, and what is left behind when a connection ends.

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    Connack, ConnackProperties, Connect, ConnectProperties, Packet, QoS, Reason, UserProperties,
    Version, Will,
};
use casemate_engine::Millis;

use super::{Client, Exchange, Limits, Phase, Scene};
use crate::feature::Feature;
use crate::gate;
use crate::history::{ensure, Violation};
use crate::law::Answer;
use crate::oracle::{payload, Author, Carrier, Fate, Luggage, Message, Will as WillRecord};
use crate::shell::Owner;
use crate::topic;

impl Client {
    /// Opens a connection and writes CONNECT; an older one is left as it is.
    pub(super) fn connect(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if let Some(up_at) = scene.shell.up_at() {
            // Nobody listens.
            self.act_at = up_at + self.pause(scene);
            return Ok(());
        }
        let weather = self.plan.weather;
        let owner = Owner::Client(self.index);
        let link = scene.shell.open(scene.now, scene.chance, owner, weather);
        if scene.is_calm {
            scene.shell.links[link].up.heal();
            scene.shell.links[link].down.heal();
        }
        self.link = Some(link);
        self.phase = Phase::Connecting;
        self.buffer.clear();
        self.outbox.clear();
        self.queued = 0;
        self.read_at = 0;
        self.is_silent = false;
        self.choose_session(scene);
        let will = self.choose_will(scene);
        self.register(scene, link);
        self.write_connect(scene, link, will)
    }

    /// Chooses between a clean start and the old session, and how long the session shall last.
    fn choose_session(&mut self, scene: &mut Scene<'_>) {
        let habits = self.persona.habits;
        self.clean = scene.chance.percent(habits.clean_percent) && !scene.is_calm;
        let persistent = habits.persistent || scene.is_calm;
        self.session_expiry_s = match (persistent, self.version()) {
            (true, Version::V5) if scene.is_calm => u32::MAX,
            (true, Version::V5) => *scene.chance.pick(&[2, 10, 600, u32::MAX]),
            _ => 0,
        };
        if self.version() == Version::V31 {
            // 3.1 is not told whether its session is there, so it resumes only what surely is.
            let session = &scene.oracle.sessions[self.index];
            let soon = scene.now + 5_000;
            self.clean |= !session.surely_lives(soon, &scene.shell.links);
        }
        if self.version() != Version::V5 && !persistent {
            self.clean = true;
        }
        if self.persona.client_id.is_empty() {
            self.clean = true;
            self.session_expiry_s = 0;
        }
    }

    /// Sometimes leaves a will; returns its serial number.
    fn choose_will(&mut self, scene: &mut Scene<'_>) -> Option<u64> {
        let wanted = self.plan.features.has(Feature::Wills)
            && !scene.is_calm
            && !self.will_refused
            && scene.chance.percent(40);
        self.will_refused = false;
        if !wanted {
            return None;
        }
        let serial = scene.oracle.next_serial();
        let modern = self.is_modern();
        let asker = self.plan.asker(&self.persona);
        let topic = topic::topic(
            scene.chance,
            self.plan.tails,
            &asker.principal.name,
            &self.persona.client_id,
        );
        let expires = modern && self.plan.features.has(Feature::Expiry);
        let message = Message {
            serial,
            tenant: asker.principal.tenant,
            author: Author::Will(self.index),
            // Wills have no order among each other: each may have a delay of its own.
            incarnation: serial as usize,
            topic,
            qos: self.choose_qos(scene),
            retain: self.plan.features.has(Feature::Retained) && scene.chance.percent(20),
            payload: payload(serial, 12),
            luggage: if modern {
                Luggage::some(scene.chance)
            } else {
                Luggage::default()
            },
            expiry_s: (expires && scene.chance.percent(20)).then_some(5),
            sent_at: scene.now,
            taken_at: None,
            issued: None,
            done_at: None,
            transmissions: 1,
            repeats: 0,
            is_loose: false,
            fate: Fate::Will,
            law: None,
        };
        scene.oracle.add(message);
        Some(serial)
    }

    /// Tells the oracle that the session may be carried by a new link.
    fn register(&mut self, scene: &mut Scene<'_>, link: usize) {
        let session = &mut scene.oracle.sessions[self.index];
        if self.clean {
            session.doubt(scene.now);
        }
        let legacy_s = match self.clean {
            true => 0,
            false => {
                let settings = &self.plan.settings;
                settings
                    .session_expiry_s_legacy
                    .min(settings.session_expiry_s_max)
            }
        };
        session.history.push(Carrier {
            link,
            sent_at: scene.now,
            clean: self.clean,
            connected_at: None,
            present: false,
            expiry_s: match self.version() {
                Version::V5 => self
                    .session_expiry_s
                    .min(self.plan.settings.session_expiry_s_max),
                Version::V31 | Version::V311 => legacy_s,
            },
            goodbye_expiry_s: None,
        });
        session.link = Some((link, scene.now));
    }

    /// Chooses the limits of the connection; returns the packet limit, bytes, and keep alive, s.
    fn choose_limits(&mut self, scene: &mut Scene<'_>) -> (u32, u16) {
        let chance = &mut *scene.chance;
        let (modern, features) = (self.is_modern(), self.plan.features);
        self.receive_max = match modern {
            true => *chance.pick(&[1, 2, 5, 100, 65_535]),
            false => 65_535,
        };
        let bounded = features.has(Feature::Tight) && !self.persona.habits.takes_all;
        let packet_bytes_max: u32 = match modern && bounded {
            true => *chance.pick(&[u32::MAX, u32::MAX, u32::MAX, 2_000, 300]),
            false => u32::MAX,
        };
        self.topic_alias_max = match modern && features.has(Feature::Aliases) {
            true => *chance.pick(&[0, 1, 2, 10]),
            false => 0,
        };
        let keep_alive_s: u16 = match features.has(Feature::KeepAlive) {
            true => *chance.pick(&[0, 2, 5, 30]),
            false => 0,
        };
        let session = &mut scene.oracle.sessions[self.index];
        session.packet_bytes_max = packet_bytes_max as usize;
        session.packet_bytes_least = session.packet_bytes_least.min(packet_bytes_max as usize);
        (packet_bytes_max, keep_alive_s)
    }

    /// Notes the will that CONNECT brings; returns its delay, s.
    fn register_will(&mut self, scene: &mut Scene<'_>, link: usize, will: Option<u64>) -> u32 {
        let delay_s: u32 = match self.is_modern() {
            true => *scene.chance.pick(&[0, 0, 1, 3, 20]),
            false => 0,
        };
        self.will = will;
        if let Some(serial) = will {
            let client = self.index;
            let (taken_back, is_doubtful) = (false, false);
            let will = WillRecord {
                serial,
                client,
                link,
                delay_s,
                taken_back,
                is_doubtful,
            };
            scene.oracle.wills.push(will);
        }
        delay_s
    }

    /// Writes CONNECT.
    fn write_connect(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        will: Option<u64>,
    ) -> Result<(), Violation> {
        let modern = self.is_modern();
        let (packet_bytes_max, keep_alive_s) = self.choose_limits(scene);
        self.settle_keep_alive(scene, link, keep_alive_s);
        let person = &self.plan.people[self.persona.person];
        let (name, password) = (person.principal.name.clone(), person.password.clone());
        let challenged = modern && self.persona.habits.challenged;
        let properties = ConnectProperties {
            session_expiry_s: (modern && self.session_expiry_s > 0)
                .then_some(self.session_expiry_s),
            receive_max: modern
                .then(|| NonZeroU16::new(self.receive_max as u16))
                .flatten(),
            packet_bytes_max: match packet_bytes_max {
                u32::MAX => None,
                some => NonZeroU32::new(some),
            },
            topic_alias_max: (self.topic_alias_max > 0).then_some(self.topic_alias_max),
            request_response_information: modern.then_some(true),
            request_problem_information: None,
            user: UserProperties::default(),
            authentication_method: challenged.then_some(gate::METHOD),
            authentication_data: challenged.then_some(&b"hello"[..]),
        };
        let message = will
            .and_then(|serial| scene.oracle.message(serial))
            .cloned();
        let delay_s = self.register_will(scene, link, will);
        let pairs = message
            .as_ref()
            .map(|message| message.luggage.pairs())
            .unwrap_or_default();
        let client_id = self.persona.client_id.clone();
        let packet = Packet::Connect(Connect {
            version: self.version(),
            clean_start: self.clean,
            keep_alive_s,
            properties,
            client_id: &client_id,
            will: message
                .as_ref()
                .map(|message| will_of(message, &pairs, delay_s)),
            username: Some(&name),
            password: (!challenged).then_some(&password),
        });
        self.send(scene, &packet, (None, None))
    }

    /// Works out the keep alive that will be in force.
    fn settle_keep_alive(&mut self, scene: &mut Scene<'_>, link: usize, asked_s: u16) {
        let most_s = self.plan.settings.keep_alive_s_max;
        let capped_s = match (asked_s, most_s) {
            (asked_s, 0) => asked_s,
            (0, most_s) => most_s,
            (asked_s, most_s) => asked_s.min(most_s),
        };
        self.keep_alive_ms = (capped_s > 0).then(|| Millis::from(capped_s) * 1_000);
        // A 3.x client cannot be told of a cap, so the server may stay with what was asked.
        let in_force_s = match self.is_modern() || asked_s == 0 {
            true => capped_s,
            false => asked_s,
        };
        scene.shell.links[link].keep_alive_s = Some(in_force_s);
        scene.shell.links[link].keep_alive_least_s = capped_s;
    }

    /// CONNACK.
    pub(super) fn connected(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        connack: &Connack<'_>,
    ) -> Result<(), Violation> {
        let index = self.index;
        ensure!(
            self.phase == Phase::Connecting,
            Protocol,
            "client {index} got a second CONNACK"
        );
        if connack.reason.is_refusal() {
            return self.refused(scene, connack.reason);
        }
        let is_same = self.check_presence(scene, link, connack.session_present)?;
        self.take_limits(scene, link, &connack.properties);
        let (properties, modern) = (&connack.properties, self.is_modern());
        let assigned = properties.assigned_client_id.is_some();
        let expected = modern && self.persona.client_id.is_empty();
        ensure!(
            assigned == expected,
            Protocol,
            "client {index}: assigned client id {assigned}"
        );
        let challenged = modern && self.persona.habits.challenged;
        ensure!(
            properties.authentication_method.is_some() == challenged,
            Protocol,
            "client {index}: authentication method {:?}",
            properties.authentication_method
        );
        let present = match self.version() {
            Version::V31 => !self.clean,
            _ => connack.session_present,
        };
        let session = &mut scene.oracle.sessions[index];
        if let Some(carrier) = session.history.last_mut() {
            carrier.connected_at = Some(scene.now);
            carrier.present = present;
            if let (true, Some(expiry_s)) = (modern, properties.session_expiry_s) {
                carrier.expiry_s = expiry_s;
            }
        }
        session.base = session.history.len() - 1;
        if !present {
            session.forget(scene.now, link);
        } else if !is_same {
            // What is there may be a session that a CONNECT without CONNACK has begun.
            session.doubt(scene.now);
            session
                .flights
                .values_mut()
                .for_each(|flight| flight.answered = true);
        }
        self.phase = Phase::Up;
        self.act_at = scene.now + self.pause(scene);
        self.resume(scene, present, is_same)
    }

    /// Takes in what the broker allows.
    fn take_limits(
        &mut self,
        scene: &mut Scene<'_>,
        link: usize,
        properties: &ConnackProperties<'_>,
    ) {
        let modern = self.is_modern();
        self.limits = Limits {
            receive_max: match modern {
                true => properties
                    .receive_max
                    .map_or(65_535, |most| usize::from(most.get())),
                false => usize::from(self.plan.settings.receive_max),
            },
            packet_bytes_max: match modern {
                true => properties
                    .packet_bytes_max
                    .map_or(usize::MAX, |most| most.get() as usize),
                false => self.plan.settings.packet_bytes_max as usize,
            },
            topic_alias_max: properties.topic_alias_max.unwrap_or(0),
        };
        if let Some(keep_alive_s) = properties.server_keep_alive_s {
            self.keep_alive_ms = (keep_alive_s > 0).then(|| Millis::from(keep_alive_s) * 1_000);
            scene.shell.links[link].keep_alive_s = Some(keep_alive_s);
        }
    }

    /// The broker says no.
    fn refused(&mut self, scene: &mut Scene<'_>, reason: Reason) -> Result<(), Violation> {
        let index = self.index;
        let denied_will = match self.will.and_then(|serial| scene.oracle.message(serial)) {
            None => false,
            Some(message) => scene.oracle.may_publish(message, scene.now) != Answer::Always,
        };
        let store_fails = self.plan.store_fails();
        let until = self
            .link
            .and_then(|link| scene.shell.links[link].proven_until);
        let expected = match reason {
            Reason::NotAuthorized => denied_will || until.is_some_and(|until| until <= scene.now),
            // Whoever is expelled before CONNACK has left is told no more than this.
            Reason::UnspecifiedError => store_fails || self.plan.features.has(Feature::Expulsion),
            // Who comes while the broker drains is sent away at once.
            Reason::UseAnotherServer | Reason::ServerShuttingDown | Reason::ServerUnavailable
                if self.is_retired =>
            {
                true
            }
            Reason::QuotaExceeded
            | Reason::ServerUnavailable
            | Reason::ServerBusy
            | Reason::ImplementationSpecificError => store_fails,
            _ => false,
        };
        ensure!(
            expected,
            Protocol,
            "client {index} was refused with {reason:?}"
        );
        self.will_refused = denied_will;
        Ok(())
    }

    /// Session Present must be what the oracle knows; says whether the session surely goes on.
    fn check_presence(
        &self,
        scene: &Scene<'_>,
        link: usize,
        present: bool,
    ) -> Result<bool, Violation> {
        let index = self.index;
        ensure!(
            !(present && self.clean),
            Session,
            "client {index} started clean and its session is present"
        );
        let mut session_sent_at = scene.now;
        let session = &scene.oracle.sessions[index];
        let mut earlier = session.carriers().to_vec();
        if let Some(last) = earlier.pop() {
            session_sent_at = last.sent_at;
        }
        let links = &scene.shell.links;
        let end = |carrier: &Carrier| carrier.end(links);
        let never = earlier.is_empty();
        let dead = earlier.iter().all(|carrier| {
            end(carrier).1.saturating_add(crate::oracle::SLACK_MS) < session_sent_at
        });
        ensure!(
            !(present && (never || dead)),
            Session,
            "client {index} got a session that had ended (link {link})"
        );
        let base_lives = earlier
            .first()
            .is_some_and(|base| base.connected_at.is_some());
        // Where nobody closed the old connection, its end is this takeover, and expiry 0 ends it.
        let lives = |carrier: &Carrier| end(carrier).0 > scene.now && carrier.expiry_s > 0;
        let alive = base_lives
            && !session.is_doubtful()
            && earlier.iter().skip(1).all(|attempt| !attempt.clean)
            && earlier.iter().all(lives);
        let told = self.version() != Version::V31 && !self.clean;
        ensure!(
            present || !alive || !told,
            Session,
            "client {index} resumed its session and it was not there (link {link})"
        );
        Ok(alive && !self.clean)
    }

    /// Sends again what was open, in order, or gives it up.
    fn resume(
        &mut self,
        scene: &mut Scene<'_>,
        present: bool,
        is_same: bool,
    ) -> Result<(), Violation> {
        let open: Vec<(u16, Exchange)> = self
            .exchanges
            .iter()
            .filter(|(packet_id, _)| !self.begun.contains_key(packet_id))
            .map(|(packet_id, exchange)| (*packet_id, exchange.clone()))
            .collect();
        let mut publishes = Vec::new();
        for (packet_id, exchange) in open {
            let Exchange::Publish { serial, released } = exchange else {
                self.exchanges.remove(&packet_id);
                continue;
            };
            if present {
                publishes.push((serial, packet_id, released));
            } else {
                self.exchanges.remove(&packet_id);
                scene.oracle.abandoned(serial);
            }
        }
        // Serial numbers grow in the order of the first sending ([MQTT-4.6.0-1]).
        publishes.sort_unstable();
        for (serial, packet_id, released) in publishes {
            if !is_same {
                scene.oracle.loosen(serial);
            }
            if released {
                self.write_pubrel(scene, packet_id)?;
            } else {
                self.write_publish(scene, serial, packet_id, true)?;
            }
        }
        Ok(())
    }

    /// The connection is over for this client, however it ended.
    pub(super) fn lost(&mut self, scene: &mut Scene<'_>) {
        let index = self.index;
        scene
            .history
            .note(scene.now, || format!("client {index} is down"));
        if let Some(link) = self.link.take() {
            if !scene.shell.links[link].client_gone {
                scene.shell.finish(scene.now, link);
            }
        }
        self.phase = Phase::Down;
        self.buffer.clear();
        self.outbox.clear();
        self.answers.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
        self.due_puback.clear();
        self.due_pubrec.clear();
        self.due_pubcomp.clear();
        self.pings.clear();
        self.begun.clear();
        self.is_proving = false;
        for (_, serial) in std::mem::take(&mut self.unconfirmed) {
            scene.oracle.abandoned(serial);
        }
        scene.oracle.sessions[index].link = None;
        self.exchanges
            .retain(|_, exchange| matches!(exchange, Exchange::Publish { .. }));
        let sleeps = self.plan.features.has(Feature::LongSleep) && scene.chance.percent(20);
        let rest = match sleeps && !scene.is_calm {
            true => scene.chance.between(1_000, 30_000),
            false => self.pause(scene),
        };
        self.act_at = scene.now + rest;
    }

    /// Connects anew without closing the old connection: the server has to.
    pub(super) fn take_over(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let old = self.link.take();
        self.lost(scene);
        if let Some(old) = old {
            // Nobody reads it any more, and nobody closes it.
            scene.shell.links[old].client_gone = true;
        }
        self.connect(scene)
    }

    /// A QoS that the run's features allow.
    pub(super) fn choose_qos(&self, scene: &mut Scene<'_>) -> QoS {
        let mut choices = vec![QoS::AtMostOnce];
        if self.plan.features.has(Feature::QoS1) {
            choices.push(QoS::AtLeastOnce);
        }
        if self.plan.features.has(Feature::QoS2) {
            choices.push(QoS::ExactlyOnce);
        }
        *scene.chance.pick(&choices)
    }
}

/// A message as a will.
fn will_of<'a>(message: &'a Message, pairs: &'a [(&'a str, &'a str)], delay_s: u32) -> Will<'a> {
    let mut properties = message.luggage.will(pairs);
    properties.delay_s = (delay_s > 0).then_some(delay_s);
    properties.message_expiry_s = message.expiry_s;
    Will {
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        payload: &message.payload,
        properties,
    }
}
