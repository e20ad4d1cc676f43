//! Deliveries: each PUBLISH that arrives is held against all that was said before.

use casemate_codec::{QoS, Version};
use casemate_engine::Millis;

use super::message::{self, Author, Luggage, Message};
use super::session::{Flight, Options, Session};
use super::Oracle;
use crate::history::{ensure, Violation};
use crate::law::Answer;
use crate::shell::Link;
use crate::topic;

/// A PUBLISH as it arrived, its alias resolved.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // The names are the specification's own.
pub struct Delivery {
    pub client: usize,
    pub link: usize,
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: Option<u16>,
    pub expiry_s: Option<u32>,
    pub ids: Vec<u32>,
    pub luggage: Luggage,
    /// When its bytes left the engine.
    pub left_at: Millis,
    /// When the engine wrote them into its window, which is when the law applies.
    pub formed_at: Option<Millis>,
}

/// What may have brought a message to a session.
struct Paths<'a> {
    /// Ordinary subscriptions, in each of their versions that may have counted.
    normal: Vec<&'a Options>,
    /// Shared subscriptions, likewise.
    shared: Vec<&'a Options>,
    /// How many groups may have chosen the session.
    groups: u32,
    /// How often it may be replayed from the retained store.
    replays: u32,
}

impl Paths<'_> {
    /// Every version that may have counted.
    fn all(&self) -> impl Iterator<Item = &Options> {
        self.normal.iter().chain(&self.shared).copied()
    }

    /// How many new copies may arrive.
    fn copies_max(&self, message: &Message) -> u32 {
        (u32::from(!self.normal.is_empty()) + self.groups) * message.causes() + self.replays
    }
}

impl Session {
    /// How many new copies of a message may arrive.
    pub fn copies_max(&self, client: usize, message: &Message) -> u32 {
        self.paths(client, message).copies_max(message)
    }

    /// What may bring a message to this session.
    fn paths(&self, client: usize, message: &Message) -> Paths<'_> {
        let mut paths = Paths {
            normal: Vec::new(),
            shared: Vec::new(),
            groups: 0,
            replays: 0,
        };
        let own = message.author == Author::Client(client) && !self.is_anonymous;
        for slot in &self.slots {
            let possible = slot.possible(message);
            if slot.share.is_some() {
                paths.groups += u32::from(!possible.is_empty());
                paths.shared.extend(possible);
            } else {
                paths
                    .normal
                    .extend(possible.into_iter().filter(|one| !(own && one.no_local)));
            }
            paths.replays += slot.replays(message);
        }
        paths
    }
}

impl Oracle {
    /// Judges a delivery.
    ///
    /// # Errors
    /// It must not have happened, or not like this.
    pub fn delivered(
        &mut self,
        now: Millis,
        links: &[Link],
        delivery: &Delivery,
    ) -> Result<(), Violation> {
        let serial = message::serial(&delivery.payload);
        let Some(message) = serial.and_then(|serial| self.message(serial)) else {
            return self.delivered_foreign(now, delivery);
        };
        let message = message.clone();
        let session = &self.sessions[delivery.client];
        check_content(session, &message, delivery)?;
        self.check_fate(now, links, &message)?;
        self.check_law(now, links, &message, delivery)?;
        let paths = session.paths(delivery.client, &message);
        let is_new = self.check_flight(links, &message, paths.replays, delivery)?;
        let copies = session.copies.get(&message.serial).copied();
        let count = copies.map_or(0, |copies| copies.count);
        let is_loose =
            delivery.qos < QoS::ExactlyOnce || copies.is_some_and(|copies| copies.is_loose);
        let (client, chances) = (delivery.client, self.chances(session, &message, is_loose));
        let most = paths.copies_max(&message) * chances;

        ensure!(
            most > 0,
            Stranger,
            "client {client} got message {} to {} without a subscription",
            message.serial,
            message.topic
        );
        if is_new {
            ensure!(
                count < most,
                Duplicate,
                "client {client} got message {} a {}. time, {most} expected",
                message.serial,
                count + 1
            );
            self.check_manner(now, &paths, &message, delivery)?;
            // What was refused unheard and let through when sent again has no place in the order.
            let heard_at_once = self.may_publish(&message, now) == Answer::Always;
            // What comes again after a crash comes behind what was before.
            let may_be_first = message.expiry_s.is_some() || delivery.qos < QoS::ExactlyOnce;
            let resent = message.transmissions > 1 && may_be_first;
            // Too large for the connection before, which need not have been written down.
            let was_too_large = message.bytes() > session.packet_bytes_least;
            let is_again = chances > 1 && (count > 0 || resent || was_too_large);
            if heard_at_once
                && !is_again
                && !self.was_lowered_while_it_waited(now, &message, delivery)
            {
                check_order(session, &paths, &message, delivery)?;
            }
        }
        check_expiry(session, &message, delivery)?;
        let replays = paths.replays;
        self.note(now, &message, is_new, replays, delivery);
        Ok(())
    }

    /// True where a new policy may have made QoS 0 of an exchange that waited for quota or for the
    /// disk. What is of QoS 0 must not wait for either ([MQTT-3.3.4-10]) and has passed it.
    fn was_lowered_while_it_waited(
        &self,
        now: Millis,
        message: &Message,
        delivery: &Delivery,
    ) -> bool {
        let asker = &self.sessions[delivery.client].asker;
        let window = (message.sent_at, now);
        let caps = self.law.receive_caps(asker, &message.topic, window);
        delivery.qos == QoS::AtMostOnce
            && message.qos > QoS::AtMostOnce
            && caps.iter().any(|cap| *cap > QoS::AtMostOnce)
            && caps.contains(&QoS::AtMostOnce)
    }

    /// A message without a serial number: from a hostile author, or an empty one.
    fn delivered_foreign(&mut self, now: Millis, delivery: &Delivery) -> Result<(), Violation> {
        let session = &self.sessions[delivery.client];
        let (topic, client) = (&delivery.topic, delivery.client);
        let matching = |slot: &super::Slot| topic::matches(&slot.filter, topic);
        ensure!(
            session.slots.iter().any(matching),
            Stranger,
            "client {client} got a message to {topic} without a subscription"
        );
        let start = session.link.map_or(0, |(_, sent_at)| sent_at);
        ensure!(
            self.law.receive(&session.asker, topic, (start, now)) != Answer::Never,
            Denied,
            "client {client} got a message to {topic}, which it must not see"
        );
        self.check_law_then(delivery)?;
        let foreign = topic == "h" || topic.starts_with("h/") || topic.starts_with("$SYS/");
        if !foreign {
            let empty = |message: &Message| {
                message.is_empty() && message.topic == *topic && message.tenant == session.tenant()
            };
            ensure!(
                delivery.payload.is_empty() && self.messages.iter().any(empty),
                Integrity,
                "client {client} got a message to {topic} that nobody sent"
            );
        }
        let is_orphaned = self.has_died_since(delivery.left_at);
        let session = &mut self.sessions[delivery.client];
        keep_flight(session, 0, delivery, is_orphaned);
        Ok(())
    }

    /// QoS, retain flag and subscription identifiers must follow from a subscription.
    fn check_manner(
        &self,
        now: Millis,
        paths: &Paths<'_>,
        message: &Message,
        delivery: &Delivery,
    ) -> Result<(), Violation> {
        let session = &self.sessions[delivery.client];
        let (client, serial) = (delivery.client, message.serial);
        let window = (message.sent_at, now);
        let caps = self
            .law
            .receive_caps(&session.asker, &message.topic, window);
        let replayed = || {
            session
                .slots
                .iter()
                .filter(|slot| slot.replays(message) > 0)
        };
        let versions = || {
            paths
                .all()
                .chain(replayed().flat_map(|slot| &slot.versions))
        };
        let fits = |one: &Options| {
            let exact = |granted: QoS| {
                let plain = granted.min(message.qos);
                caps.iter().any(|cap| plain.min(*cap) == delivery.qos)
            };
            match one.granted {
                Some(granted) => exact(granted),
                None => delivery.qos <= one.qos.min(message.qos),
            }
        };
        ensure!(
            versions().any(fits),
            Integrity,
            "client {client} got message {serial} of {:?} with {:?}",
            message.qos,
            delivery.qos
        );
        let as_published = versions().any(|one| one.retain_as_published);
        check_retain(paths, as_published, message, delivery)?;
        for id in &delivery.ids {
            ensure!(
                versions().any(|one| one.id == Some(*id)),
                Integrity,
                "client {client} got message {serial} with the strange subscription id {id}"
            );
        }
        let steady = paths.replays == 0
            && paths.groups == 0
            && session.version == Version::V5
            && self.law.receive(&session.asker, &message.topic, window) == Answer::Always;
        if steady {
            check_steady(session, message, &caps, delivery)?;
        }
        Ok(())
    }

    /// Remembers a delivery.
    fn note(
        &mut self,
        now: Millis,
        message: &Message,
        is_new: bool,
        replays: u32,
        delivery: &Delivery,
    ) {
        let is_orphaned = self.has_died_since(delivery.left_at);
        let session = &mut self.sessions[delivery.client];
        keep_flight(session, message.serial, delivery, is_orphaned);
        if is_new {
            let copies = session.copies.entry(message.serial).or_default();
            copies.count += 1;
            copies.is_loose |= delivery.qos < QoS::ExactlyOnce;
            copies.last_at = now;
            self.arrived += 1;
            let key = message.line(delivery.qos);
            if message.retain {
                let last = session.stored.entry(key.clone()).or_insert(0);
                *last = (*last).max(message.serial);
            }
            // A replay may be ahead of live messages that were on their way when it began.
            if !delivery.retain || replays == 0 {
                let last = session.order.entry(key).or_insert(0);
                *last = (*last).max(message.serial);
            }
        }
    }
}

/// The retain flag must be what a subscription, or a replay, makes of it.
fn check_retain(
    paths: &Paths<'_>,
    as_published: bool,
    message: &Message,
    delivery: &Delivery,
) -> Result<(), Violation> {
    let just = match (delivery.retain, message.retain) {
        (true, true) => as_published || paths.replays > 0,
        (true, false) => false,
        (false, true) => paths.all().any(|one| !one.retain_as_published),
        (false, false) => true,
    };
    ensure!(
        just,
        Integrity,
        "client {} got message {} with the retain flag {}",
        delivery.client,
        message.serial,
        delivery.retain
    );
    Ok(())
}

/// Topic, tenant, payload and properties must be what was sent.
fn check_content(
    session: &Session,
    message: &Message,
    delivery: &Delivery,
) -> Result<(), Violation> {
    let (client, serial) = (delivery.client, message.serial);
    ensure!(
        message.tenant == session.tenant(),
        Stranger,
        "client {client} got message {serial} of another tenant"
    );
    ensure!(
        message.topic == delivery.topic,
        Integrity,
        "message {serial} to {} arrived on {}",
        message.topic,
        delivery.topic
    );
    ensure!(
        message.payload == delivery.payload,
        Integrity,
        "message {serial} arrived with another payload"
    );
    ensure!(
        session.version != Version::V5 || message.luggage == delivery.luggage,
        Integrity,
        "message {serial} was sent with {:?} and arrived with {:?}",
        message.luggage,
        delivery.luggage
    );
    Ok(())
}

/// What a subscription that was there all the time demands of the QoS and the identifiers.
fn check_steady(
    session: &Session,
    message: &Message,
    caps: &[QoS],
    delivery: &Delivery,
) -> Result<(), Violation> {
    let own = message.is_of(delivery.client);
    for slot in &session.slots {
        let [only] = slot.versions.as_slice() else {
            continue;
        };
        let counts =
            slot.share.is_none() && slot.surely_matches(message) && !(only.no_local && own);
        if !counts {
            continue;
        }
        let cap = caps.iter().min().copied().unwrap_or(QoS::AtMostOnce);
        let least = only
            .granted
            .unwrap_or(QoS::AtMostOnce)
            .min(message.qos)
            .min(cap);
        ensure!(
            delivery.qos >= least,
            Integrity,
            "client {} got message {} with {:?} instead of {least:?}",
            delivery.client,
            message.serial,
            delivery.qos
        );
        ensure!(
            only.id.is_none_or(|id| delivery.ids.contains(&id)),
            Integrity,
            "client {} got message {} without the id of {}",
            delivery.client,
            message.serial,
            slot.filter
        );
    }
    Ok(())
}

/// Remembers what a packet id stands for.
/// Remembers an exchange; `is_orphaned` where the process that began it has died meanwhile, and
/// need not have written it down.
fn keep_flight(session: &mut Session, serial: u64, delivery: &Delivery, is_orphaned: bool) {
    if let Some(packet_id) = delivery.packet_id {
        let (qos, link) = (delivery.qos, delivery.link);
        session.flights.insert(
            packet_id,
            Flight {
                serial,
                qos,
                link,
                answered: is_orphaned && qos == QoS::AtLeastOnce,
            },
        );
    }
}

/// Messages of one author, topic and QoS arrive in order; an old retained value never follows a
/// newer one.
fn check_order(
    session: &Session,
    paths: &Paths<'_>,
    message: &Message,
    delivery: &Delivery,
) -> Result<(), Violation> {
    let key = message.line(delivery.qos);
    let last = session.order.get(&key).copied().unwrap_or(0);
    if last <= message.serial || paths.groups > 0 || message.causes() > 1 {
        return Ok(());
    }
    let newer = session.stored.get(&key).copied().unwrap_or(0);
    ensure!(
        !message.retain || newer <= message.serial || !delivery.retain,
        Retained,
        "client {} got the retained message {} to {} after {newer}",
        delivery.client,
        message.serial,
        message.topic
    );
    ensure!(
        delivery.retain && paths.replays > 0,
        Order,
        "client {} got message {} to {} after {last}",
        delivery.client,
        message.serial,
        message.topic
    );
    Ok(())
}

/// The time left to live is told, and a message that has none left does not arrive.
fn check_expiry(
    session: &Session,
    message: &Message,
    delivery: &Delivery,
) -> Result<(), Violation> {
    let Some(expiry_s) = message.expiry_s else {
        ensure!(
            delivery.expiry_s.is_none(),
            Expiry,
            "message {} arrived with an expiry that it never had",
            message.serial
        );
        return Ok(());
    };
    let start = session.link.map_or(0, |(_, sent_at)| sent_at);
    let waited_least = match message.done_at {
        Some(done_at) => start.saturating_sub(done_at),
        None => 0,
    };
    let life = Millis::from(expiry_s) * 1_000;
    ensure!(
        waited_least < life + 1_000 || delivery.dup,
        Expiry,
        "message {} of {expiry_s} s arrived at client {} after {waited_least} ms",
        message.serial,
        delivery.client
    );
    let ends_at = message.taken_at.map(|taken_at| taken_at + life);
    let late = ends_at
        .zip(delivery.formed_at)
        .is_some_and(|(ends_at, at)| at > ends_at);
    ensure!(
        !late || delivery.dup || message.transmissions > 1,
        Expiry,
        "message {} of {expiry_s} s, with the broker since {:?}, was written to client {} at {:?}",
        message.serial,
        message.taken_at,
        delivery.client,
        delivery.formed_at
    );
    if session.version != Version::V5 {
        return Ok(());
    }
    let waited_most = delivery.left_at.saturating_sub(message.sent_at);
    let least = life.saturating_sub(waited_most) / 1_000;
    let most = (life.saturating_sub(waited_least)).div_ceil(1_000) + 1;
    let told = delivery.expiry_s.map(Millis::from);
    ensure!(
        told.is_some_and(|told| (least..=most.min(u64::from(expiry_s))).contains(&told))
            || delivery.dup && told.is_some(),
        Expiry,
        "message {} of {expiry_s} s arrived with {told:?} s left, {least} to {most} expected",
        message.serial
    );
    Ok(())
}
