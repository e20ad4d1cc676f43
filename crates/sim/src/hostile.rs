//! Hostile clients: wrong, rude and greedy in every way that bytes allow.

use std::num::NonZeroU16;
use std::sync::Arc;

use casemate_codec::{
    decode, encode, frame, Connack, Connect, ConnectProperties, Disconnect, Filters, Packet,
    PacketId, Publish, PublishProperties, QoS, Reason, RetainHandling, Sender, Subscribe,
    SubscribeFilter, UserProperties, Version, Will, WillProperties,
};
use casemate_engine::Millis;

use crate::client::{plain_ack, Scene};
use crate::history::{ensure, Invariant, Violation};
use crate::law::{Answer, Asker};
use crate::oracle::payload;
use crate::plan::Plan;
use crate::shell::{Owner, Shell};
use crate::tell;

/// One hostile client, which comes back again and again.
pub struct Hostile {
    index: usize,
    plan: Arc<Plan>,
    link: Option<usize>,
    version: Version,
    /// Index of the person that it really is, where it logged in as one.
    person: Option<usize>,
    is_greeted: bool,
    reads: bool,
    act_at: Millis,
    buffer: Vec<u8>,
    outbox: Vec<u8>,
}

/// Persons that a hostile client may be: see [`crate::plan`].
const PERSONS: [usize; 2] = [2, 3];

/// Filters that are wrong, or costly, or not for a hostile client.
const FILTERS: [&str; 14] = [
    "h/#",
    "p/+",
    "#",
    "g/#",
    "$share/s0/g/#",
    "$share/s1/h/#",
    "$share//h",
    "$share/x",
    "a#",
    "#/a",
    "$SYS/#",
    "+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/+/#",
    "//////////////////////////////////////////////////////////////////",
    "",
];

impl Hostile {
    /// A hostile client that has not come yet.
    pub fn new(index: usize, plan: Arc<Plan>) -> Hostile {
        Hostile {
            index,
            plan,
            link: None,
            version: Version::V5,
            person: None,
            is_greeted: false,
            reads: true,
            act_at: 0,
            buffer: Vec::new(),
            outbox: Vec::new(),
        }
    }

    /// When it next does something.
    pub fn next_at(&self, shell: &Shell) -> Millis {
        let readable = self.link.and_then(|link| {
            let stream = &shell.links[link].down;
            // Even who never reads learns that the connection is closed.
            if self.reads || stream.is_empty() {
                stream.readable_at()
            } else {
                None
            }
        });
        readable.map_or(self.act_at, |at| at.min(self.act_at))
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The broker gave it something that it must not have.
    pub fn step(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        self.read(scene)?;
        if self.act_at <= scene.now {
            self.act_at = scene.now + scene.chance.between(1, 200);
            match self.link {
                None => self.connect(scene)?,
                Some(link) => self.act(scene, link)?,
            }
        }
        if let Some(link) = self.link {
            let stream = &mut scene.shell.links[link].up;
            let written = stream.write(scene.now, scene.chance, &self.outbox);
            self.outbox.drain(..written);
        }
        Ok(())
    }

    /// Goes away for good.
    pub fn leave(&mut self, scene: &mut Scene<'_>) {
        if let Some(link) = self.link.take() {
            scene.shell.cut(scene.now, scene.chance, link);
        }
        self.act_at = Millis::MAX;
    }

    /// Opens a connection, and mostly sends a CONNECT of some sort.
    fn connect(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        if let Some(up_at) = scene.shell.up_at() {
            self.act_at = up_at + scene.chance.between(1, 200);
            return Ok(());
        }
        let owner = Owner::Hostile(self.index);
        self.link = Some(
            scene
                .shell
                .open(scene.now, scene.chance, owner, self.plan.weather),
        );
        self.buffer.clear();
        self.outbox.clear();
        self.is_greeted = false;
        self.reads = scene.chance.percent(80);
        self.version = *scene
            .chance
            .pick(&[Version::V31, Version::V311, Version::V5]);
        self.person = None;
        let manner = scene.chance.below(100);
        if manner < 10 {
            return Ok(());
        }
        if manner < 20 {
            self.noise(scene);
            return Ok(());
        }
        let honest = scene.chance.percent(75);
        let person = match honest {
            true => *scene.chance.pick(&PERSONS),
            false => scene.chance.index(self.plan.people.len()),
        };
        self.person = honest.then_some(person);
        let who = self.plan.people[person].clone();
        let client_id = format!("c{}", scene.chance.below(4));
        let serial = scene.oracle.next_serial() + 1_000_000;
        let forged = payload(serial, 10);
        let wanted = scene.chance.percent(30);
        let topic = *scene.chance.pick(&["g/a", "h/will", "p/a", "$SYS/x"]);
        let will = wanted.then_some(Will {
            qos: QoS::AtLeastOnce,
            retain: false,
            topic,
            payload: &forged,
            properties: WillProperties::default(),
        });
        let expiry_s = (self.version == Version::V5).then_some(100);
        let properties = ConnectProperties {
            session_expiry_s: expiry_s,
            ..ConnectProperties::default()
        };
        let packet = Packet::Connect(Connect {
            version: self.version,
            clean_start: scene.chance.percent(60),
            keep_alive_s: *scene.chance.pick(&[0, 1, 60_000]),
            properties,
            client_id: &client_id,
            will,
            username: Some(&who.principal.name),
            password: Some(if honest { &who.password } else { b"guess" }),
        });
        self.write(scene, &packet, manner < 35);
        Ok(())
    }

    /// Puts a packet into the outbox, mutated or not.
    fn write(&mut self, scene: &mut Scene<'_>, packet: &Packet<'_>, mutate: bool) {
        let mut bytes = Vec::new();
        // What cannot be encoded is not sent; there is enough else.
        if encode(self.version, packet, u32::MAX, &mut bytes).is_err() {
            return;
        }
        if mutate && !bytes.is_empty() {
            for _ in 0..scene.chance.between(1, 4) {
                let place = scene.chance.index(bytes.len());
                match scene.chance.below(4) {
                    0 => bytes[place] = scene.chance.bits() as u8,
                    1 => bytes[place] ^= 1 << scene.chance.below(8),
                    2 => bytes.truncate(place.max(1)),
                    _ => bytes.insert(place, scene.chance.bits() as u8),
                }
            }
        }
        let index = self.index;
        scene.history.note(scene.now, || {
            let how = if mutate { "mutated " } else { "" };
            format!("hostile {index} → {how}{}", tell::packet(packet))
        });
        self.outbox.extend_from_slice(&bytes);
    }

    /// Bytes that mean nothing.
    fn noise(&mut self, scene: &mut Scene<'_>) {
        for _ in 0..scene.chance.between(1, 60) {
            self.outbox.push(scene.chance.bits() as u8);
        }
    }

    /// Does one bad thing.
    fn act(&mut self, scene: &mut Scene<'_>, link: usize) -> Result<(), Violation> {
        if self.outbox.len() > 100_000 {
            return Ok(());
        }
        let mutate = scene.chance.percent(15);
        match scene.chance.below(20) {
            0..=3 => self.publish(scene, mutate),
            4..=6 => self.subscribe(scene, mutate),
            7 => self.noise(scene),
            8 => self
                .outbox
                .extend_from_slice(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1]),
            9 => self
                .outbox
                .extend_from_slice(&[0x30, 0x80, 0x80, 0x80, 0x80, 0x01, 0, 1, b'h']),
            10 => (0..40).for_each(|_| self.publish(scene, false)),
            11..=13 => self.answer_nothing(scene, mutate),
            14 => {
                let packet = Packet::Connack(Connack {
                    session_present: false,
                    reason: Reason::Success,
                    properties: casemate_codec::ConnackProperties::default(),
                });
                self.write(scene, &packet, mutate);
            }
            15 => {
                self.connect_again(scene);
            }
            16 => {
                let packet = Packet::Disconnect(Disconnect {
                    reason: Reason::Success,
                    session_expiry_s: None,
                    reason_string: None,
                    user: UserProperties::default(),
                    server_reference: None,
                });
                self.write(scene, &packet, mutate);
            }
            17 => {
                scene.shell.cut(scene.now, scene.chance, link);
                self.link = None;
            }
            18 => self.reads = false,
            _ => self.act_at += scene.chance.between(1, 8_000),
        }
        Ok(())
    }

    /// CONNECT on a connection that may have had one.
    fn connect_again(&mut self, scene: &mut Scene<'_>) {
        let packet = Packet::Connect(Connect {
            version: self.version,
            clean_start: true,
            keep_alive_s: 0,
            properties: ConnectProperties::default(),
            client_id: "c1",
            will: None,
            username: Some("mallory"),
            password: Some(b"guess"),
        });
        self.write(scene, &packet, false);
    }

    /// PUBLISH here and there, with ids, aliases and flags as chance has it.
    fn publish(&mut self, scene: &mut Scene<'_>, mutate: bool) {
        let chance = &mut *scene.chance;
        let topics = [
            "h/a", "h/b/c", "h/$x", "g/a", "p/a", "$SYS/x", "$share/a", "c/c1/a",
        ];
        let topic = *chance.pick(&topics);
        let qos = *chance.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let forged = payload(u64::MAX - chance.below(100), 12);
        let modern = self.version == Version::V5;
        let alias = (modern && chance.percent(20))
            .then(|| NonZeroU16::new(chance.below(50) as u16))
            .flatten();
        let packet_id = match qos {
            QoS::AtMostOnce => None,
            _ => PacketId::new(chance.between(1, 6) as u16),
        };
        let bare = alias.is_some() && chance.percent(30);
        let packet = Packet::Publish(Publish {
            dup: qos > QoS::AtMostOnce && chance.percent(30),
            qos,
            retain: chance.percent(20),
            topic: if bare { "" } else { topic },
            packet_id,
            properties: PublishProperties {
                topic_alias: alias,
                ..PublishProperties::default()
            },
            payload: if chance.percent(50) {
                &forged
            } else {
                b"noise"
            },
        });
        self.write(scene, &packet, mutate);
    }

    /// SUBSCRIBE to filters that are wrong or forbidden.
    fn subscribe(&mut self, scene: &mut Scene<'_>, mutate: bool) {
        let mut lines = Vec::new();
        for _ in 0..scene.chance.between(1, 6) {
            let filter: &str = FILTERS[scene.chance.index(FILTERS.len())];
            lines.push(SubscribeFilter {
                filter,
                qos: QoS::ExactlyOnce,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            });
        }
        let Some(packet_id) = PacketId::new(scene.chance.between(1, 9) as u16) else {
            return;
        };
        let packet = Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user: UserProperties::default(),
            filters: Filters::List(&lines),
        });
        self.write(scene, &packet, mutate);
    }

    /// Acknowledges what nobody sent.
    fn answer_nothing(&mut self, scene: &mut Scene<'_>, mutate: bool) {
        let Some(packet_id) = PacketId::new(scene.chance.between(1, 6) as u16) else {
            return;
        };
        let ack = plain_ack(packet_id);
        let packet = match scene.chance.below(4) {
            0 => Packet::Puback(ack),
            1 => Packet::Pubrec(ack),
            2 => Packet::Pubrel(ack),
            _ => Packet::Pubcomp(ack),
        };
        self.write(scene, &packet, mutate);
    }

    /// Reads, and judges what it gets.
    fn read(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        let Some(link) = self.link else {
            return Ok(());
        };
        if self.reads {
            let stream = &mut scene.shell.links[link].down;
            stream.take(scene.now, usize::MAX, &mut self.buffer);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut used = 0;
        while let Some(length) = self.judge(scene, &buffer[used..])? {
            used += length;
        }
        self.buffer = buffer[used..].to_vec();
        if scene.shell.links[link].down.is_over(scene.now) {
            if !scene.shell.links[link].client_gone {
                scene.shell.finish(scene.now, link);
            }
            self.link = None;
        }
        Ok(())
    }

    /// Judges one packet; says how long it was.
    fn judge(&mut self, scene: &mut Scene<'_>, bytes: &[u8]) -> Result<Option<usize>, Violation> {
        let index = self.index;
        let broken = |fault| {
            let words = format!("hostile {index} cannot read what the broker wrote: {fault}");
            Violation::new(Invariant::Protocol, words)
        };
        let Some(frame) = frame(bytes, u32::MAX).map_err(broken)? else {
            return Ok(None);
        };
        let length = frame.packet_bytes();
        let Some(body) = bytes.get(frame.header_bytes..length) else {
            return Ok(None);
        };
        // A mutated CONNECT may have named another version than was meant.
        let versions = [self.version, Version::V5, Version::V311, Version::V31];
        let decoded = versions
            .iter()
            .find_map(|version| decode(*version, Sender::Server, frame, body).ok());
        let Some(packet) = decoded else {
            let words = format!("hostile {index} got a packet of no version: {bytes:02x?}");
            return Err(Violation::new(Invariant::Protocol, words));
        };
        scene.history.note(scene.now, || {
            format!("hostile {index} ← {}", tell::packet(&packet))
        });
        match packet {
            Packet::Connack(connack) => {
                let welcome = !connack.reason.is_refusal();
                ensure!(
                    !welcome || self.person.is_some(),
                    Denied,
                    "hostile {index} was let in with a guessed password"
                );
                self.is_greeted |= welcome;
            }
            Packet::Publish(publish) => self.check_publish(scene, &publish)?,
            _ => {}
        }
        Ok(Some(length))
    }

    /// A hostile client sees only what its own rights allow.
    fn check_publish(&self, scene: &Scene<'_>, publish: &Publish<'_>) -> Result<(), Violation> {
        let index = self.index;
        ensure!(
            self.is_greeted,
            Protocol,
            "hostile {index} got PUBLISH before CONNACK"
        );
        let (Some(person), false) = (self.person, publish.topic.is_empty()) else {
            return Ok(());
        };
        let principal = Arc::clone(&self.plan.people[person].principal);
        let asker = Asker {
            principal,
            client_id: None,
        };
        let window = (0, scene.now);
        ensure!(
            scene.oracle.law.receive(&asker, publish.topic, window) != Answer::Never,
            Denied,
            "hostile {index} got a message to {}",
            publish.topic
        );
        Ok(())
    }
}
