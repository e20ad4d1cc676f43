//! Sessions as the oracle remembers them: subscriptions over time, arrivals, and their life.

use std::collections::BTreeMap;

use casemate_codec::{QoS, RetainHandling, Version};
use casemate_engine::Millis;

use super::message::{Line, Message};
use crate::law::Asker;
use crate::shell::Link;
use crate::topic;

/// How late a timer of the engine may be, ms.
pub const SLACK_MS: Millis = 2_500;

/// One SUBSCRIBE for one filter.
#[derive(Clone, Debug)]
pub struct Options {
    /// When it was written.
    pub sent_at: Millis,
    /// When it was granted.
    pub confirmed_at: Option<Millis>,
    /// When it was refused.
    pub refused_at: Option<Millis>,
    /// What was asked for.
    pub qos: QoS,
    /// What was granted.
    pub granted: Option<QoS>,
    /// Not my own messages.
    pub no_local: bool,
    /// Keep the retain flag.
    pub retain_as_published: bool,
    /// Which retained messages are wanted.
    pub retain_handling: RetainHandling,
    /// Subscription identifier.
    pub id: Option<u32>,
    /// The subscription did not surely exist before.
    pub maybe_new: bool,
    /// Retained messages that must come in answer.
    pub expected: Vec<u64>,
}

/// A filter that a session subscribed to, until it was unsubscribed.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Without `$share`.
    pub filter: String,
    /// The share group's name.
    pub share: Option<String>,
    /// Every SUBSCRIBE for it, in order.
    pub versions: Vec<Options>,
    /// The link that it was first asked on.
    pub link: usize,
    /// Since when it surely exists.
    pub must_from: Option<Millis>,
    /// When it may first have ended.
    pub ending_at: Option<Millis>,
    /// When it surely had ended.
    pub ended_at: Option<Millis>,
}

impl Slot {
    /// The filter as it is written in a packet.
    pub fn wire_filter(&self) -> String {
        match &self.share {
            Some(name) => format!("$share/{name}/{}", self.filter),
            None => self.filter.clone(),
        }
    }

    /// True where it covers the topic and may still have existed when the message was sent.
    fn may_match(&self, message: &Message) -> bool {
        self.ended_at.is_none_or(|at| at >= message.sent_at)
            && topic::matches(&self.filter, &message.topic)
    }

    /// The versions that may have counted for a message that arrives now.
    pub fn possible<'a>(&'a self, message: &Message) -> Vec<&'a Options> {
        if !self.may_match(message) {
            return Vec::new();
        }
        let mut possible = Vec::new();
        for (place, version) in self.versions.iter().enumerate() {
            let replaced = self.versions[place + 1..]
                .iter()
                .filter_map(|later| later.confirmed_at);
            let counts = replaced.min().is_none_or(|at| at >= message.sent_at)
                && version.refused_at.is_none();
            if counts {
                possible.push(version);
            }
        }
        possible
    }

    /// The versions whose retained messages may still be on their way, for a retained message.
    pub fn replays(&self, message: &Message) -> u32 {
        let ended_before = self.share.is_some() || message.is_empty() || !message.retain;
        if ended_before || !topic::matches(&self.filter, &message.topic) {
            return 0;
        }
        let asks = |version: &&Options| match version.retain_handling {
            RetainHandling::Send => version.refused_at.is_none(),
            RetainHandling::SendIfNew => version.maybe_new && version.refused_at.is_none(),
            RetainHandling::Never => false,
        };
        self.versions.iter().filter(asks).count() as u32
    }

    /// True where the subscription surely existed from before the message was sent until now.
    pub fn surely_matches(&self, message: &Message) -> bool {
        self.must_from.is_some_and(|at| at < message.sent_at)
            && self.ending_at.is_none()
            && topic::matches(&self.filter, &message.topic)
    }
}

/// How often a message arrived at a session as a new one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Copies {
    /// New copies.
    pub count: u32,
    /// When the last one arrived.
    pub last_at: Millis,
    /// One of them came with less than QoS 2.
    pub is_loose: bool,
}

/// A QoS 1 or 2 message under its packet id, as the client last saw it.
#[derive(Clone, Copy, Debug)]
pub struct Flight {
    /// Its number; 0 where the payload told none.
    pub serial: u64,
    /// Of the delivery.
    pub qos: QoS,
    /// Where it last arrived.
    pub link: usize,
    /// The client has said that it has it (PUBACK, or PUBCOMP).
    pub answered: bool,
}

/// A connection that may have carried the session.
#[derive(Clone, Debug)]
pub struct Carrier {
    /// The link.
    pub link: usize,
    /// When CONNECT was written.
    pub sent_at: Millis,
    /// It asked for a clean start.
    pub clean: bool,
    /// When CONNACK arrived.
    pub connected_at: Option<Millis>,
    /// CONNACK said that the session was there.
    pub present: bool,
    /// Session expiry in force, s.
    pub expiry_s: u32,
    /// Session expiry that DISCONNECT asked for, s.
    pub goodbye_expiry_s: Option<u32>,
}

impl Carrier {
    /// The bounds of the session's expiry after this carrier.
    pub fn expiry_s(&self, link: &Link) -> (u32, u32) {
        match self.goodbye_expiry_s {
            None => (self.expiry_s, self.expiry_s),
            Some(last) if link.surely_said_goodbye() => (last, last),
            Some(last) => (last.min(self.expiry_s), last.max(self.expiry_s)),
        }
    }

    /// When the session ends at the earliest and at the latest, as far as this carrier says.
    pub fn end(&self, links: &[Link]) -> (Millis, Millis) {
        let link = &links[self.link];
        let (low, high) = self.expiry_s(link);
        let Some((from, by)) = link.over() else {
            // A session that lasts no longer than its connection may end at any moment.
            return (if low == 0 { 0 } else { Millis::MAX }, Millis::MAX);
        };
        let end = |at: Millis, expiry_s: u32| match expiry_s {
            u32::MAX => Millis::MAX,
            expiry_s => at + Millis::from(expiry_s) * 1_000,
        };
        (end(from, low), end(by, high))
    }
}

/// All that the oracle knows about one client's session.
#[derive(Debug)]
pub struct Session {
    /// Who it is in the eyes of the law.
    pub asker: Asker,
    /// Each connection gets another client id, so that the last one's messages are a stranger's.
    pub is_anonymous: bool,
    /// Version that its client speaks.
    pub version: Version,
    /// Filters, those that ended included.
    pub slots: Vec<Slot>,
    /// What arrived.
    pub copies: BTreeMap<u64, Copies>,
    /// The last serial by author, topic, QoS of the publisher and of the delivery.
    pub order: BTreeMap<Line, u64>,
    /// Like `order`, of those that were published with the retain flag.
    pub stored: BTreeMap<Line, u64>,
    /// Messages under packet ids.
    pub flights: BTreeMap<u16, Flight>,
    /// Something was refused for it because its queue was full.
    pub overflowed: bool,
    /// When the process died while its session was to end with the connection.
    pub died_at: Vec<Millis>,
    /// When it may last have been ended from outside.
    pub doubtful_at: Option<Millis>,
    /// Every connection that may have carried it.
    pub history: Vec<Carrier>,
    /// Index in `history` of the last one that surely did.
    pub base: usize,
    /// The shard that it lives in, once known.
    pub home: Option<usize>,
    /// The link that carries it now, with its start.
    pub link: Option<(usize, Millis)>,
    /// Largest packet that its client takes, bytes.
    pub packet_bytes_max: usize,
    /// The smallest such limit that it ever had.
    pub packet_bytes_least: usize,
}

impl Session {
    /// A session that does not exist yet.
    pub fn new(asker: Asker, version: Version) -> Session {
        Session {
            asker,
            is_anonymous: false,
            version,
            slots: Vec::new(),
            copies: BTreeMap::new(),
            order: BTreeMap::new(),
            stored: BTreeMap::new(),
            flights: BTreeMap::new(),
            overflowed: false,
            died_at: Vec::new(),
            doubtful_at: None,
            history: Vec::new(),
            base: 0,
            home: None,
            link: None,
            packet_bytes_max: usize::MAX,
            packet_bytes_least: usize::MAX,
        }
    }

    /// True where it may have been ended from outside since it began.
    pub fn is_doubtful(&self) -> bool {
        self.doubtful_at.is_some()
    }

    /// The proven tenant.
    pub fn tenant(&self) -> u32 {
        self.asker.principal.tenant
    }

    /// Since when the client has been connected, without a gap until now.
    pub fn connected_at(&self) -> Option<Millis> {
        self.link.and(self.history.last()?.connected_at)
    }

    /// Connections since the last one that surely carried the session, that one first.
    pub fn carriers(&self) -> &[Carrier] {
        &self.history[self.base.min(self.history.len())..]
    }

    /// True where the session surely exists at `now`, leaving its present carriers aside.
    pub fn surely_lives(&self, now: Millis, links: &[Link]) -> bool {
        let carriers = self.carriers();
        let Some((base, attempts)) = carriers.split_first() else {
            return false;
        };
        base.connected_at.is_some()
            && !self.is_doubtful()
            && attempts.iter().all(|attempt| !attempt.clean)
            && carriers.iter().all(|carrier| carrier.end(links).0 > now)
    }

    /// True where the session surely existed from before `from` until now, and on a connection
    /// that it would have outlived.
    pub fn surely_outlasts(&self, from: Millis, now: Millis, links: &[Link]) -> bool {
        let began = self.carriers().first().and_then(|base| base.connected_at);
        let lasting =
            |carrier: &Carrier| carrier.expiry_s > 0 && carrier.goodbye_expiry_s.is_none();
        began.is_some_and(|at| at <= from)
            && self.carriers().iter().all(lasting)
            && self.surely_lives(now, links)
    }

    /// Everything that the session had is gone, or may be.
    pub fn doubt(&mut self, now: Millis) {
        for slot in &mut self.slots {
            slot.ending_at.get_or_insert(now);
        }
    }

    /// Everything that the session had before `link` is surely gone.
    pub fn forget(&mut self, now: Millis, link: usize) {
        for slot in &mut self.slots {
            if slot.link != link {
                slot.ending_at.get_or_insert(now);
                slot.ended_at.get_or_insert(now);
            }
        }
        self.flights.clear();
        if self.is_anonymous {
            // Another session, perhaps in another shard: it may get what the last one had.
            self.copies.clear();
            self.order.clear();
            self.stored.clear();
        }
        self.overflowed = false;
        let sent_at = self.history.last().map_or(0, |carrier| carrier.sent_at);
        if self.doubtful_at.is_some_and(|at| at < sent_at) {
            self.doubtful_at = None;
        }
    }
}
