//! Messages as the oracle remembers them: who sent what, when, and what became of it.

use casemate_codec::{PublishProperties, QoS, SubscriptionIds, UserProperties, WillProperties};
use casemate_engine::Millis;

use crate::chance::Chance;
use crate::law::Answer;
use crate::shell::Seqs;

/// The properties that travel with a message, owned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the specification's own.
pub struct Luggage {
    pub payload_format: Option<bool>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Vec<u8>>,
    pub user: Vec<(String, String)>,
}

impl Luggage {
    /// Some luggage, often none.
    pub fn some(chance: &mut Chance) -> Luggage {
        if chance.percent(70) {
            return Luggage::default();
        }
        let text = |chance: &mut Chance| format!("t{}", chance.below(1_000));
        let mut user = Vec::new();
        for _ in 0..chance.below(4) {
            user.push((format!("k{}", chance.below(2)), text(chance)));
        }
        Luggage {
            payload_format: chance.percent(30).then_some(false),
            content_type: chance.percent(30).then(|| text(chance)),
            response_topic: chance.percent(30).then(|| text(chance)),
            correlation_data: chance.percent(30).then(|| vec![chance.bits() as u8; 5]),
            user,
        }
    }

    /// What a received PUBLISH carried.
    pub fn of(properties: &PublishProperties<'_>) -> Luggage {
        let pairs = properties.user.iter();
        Luggage {
            payload_format: properties.payload_format,
            content_type: properties.content_type.map(str::to_owned),
            response_topic: properties.response_topic.map(str::to_owned),
            correlation_data: properties.correlation_data.map(<[u8]>::to_vec),
            user: pairs
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        }
    }

    /// The user properties, borrowed.
    pub fn pairs(&self) -> Vec<(&str, &str)> {
        self.user
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    }

    /// For a PUBLISH.
    pub fn publish<'a>(&'a self, pairs: &'a [(&'a str, &'a str)]) -> PublishProperties<'a> {
        PublishProperties {
            payload_format: self.payload_format,
            message_expiry_s: None,
            topic_alias: None,
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            user: UserProperties::List(pairs),
            subscription_ids: SubscriptionIds::List(&[]),
            content_type: self.content_type.as_deref(),
        }
    }

    /// For a will.
    pub fn will<'a>(&'a self, pairs: &'a [(&'a str, &'a str)]) -> WillProperties<'a> {
        WillProperties {
            delay_s: None,
            payload_format: self.payload_format,
            message_expiry_s: None,
            content_type: self.content_type.as_deref(),
            response_topic: self.response_topic.as_deref(),
            correlation_data: self.correlation_data.as_deref(),
            user: UserProperties::List(pairs),
        }
    }

    /// Bytes on the wire, about.
    pub fn bytes(&self) -> usize {
        let user = self
            .user
            .iter()
            .map(|(name, value)| name.len() + value.len() + 5);
        let text = |text: &Option<String>| text.as_ref().map_or(0, |text| text.len() + 3);
        let data = self
            .correlation_data
            .as_ref()
            .map_or(0, |data| data.len() + 3);
        user.sum::<usize>() + text(&self.content_type) + text(&self.response_topic) + data + 2
    }
}

/// Who published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Author {
    /// A client, by index.
    Client(usize),
    /// The will of a client.
    Will(usize),
    /// The broker itself.
    Broker,
}

/// Author, incarnation, topic, QoS of the publisher and QoS of the delivery.
pub type Line = (Author, usize, String, QoS, QoS);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A will whose client has not gone: see the will's own record.
    Will,
    /// On its way.
    Open,
    /// The broker took it over.
    Accepted,
    /// The broker refused it.
    Refused,
    /// Nobody can know.
    Unknown,
}

/// One message of a well-behaved author.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its number, from 1.
    pub serial: u64,
    /// The author's tenant.
    pub tenant: u32,
    /// Who published it.
    pub author: Author,
    /// Tells the sessions of one author apart where each has another client id.
    pub incarnation: usize,
    /// Where.
    pub topic: String,
    /// How.
    pub qos: QoS,
    /// To be retained.
    pub retain: bool,
    /// Begins with the serial number, unless it is empty.
    pub payload: Vec<u8>,
    /// What travels along.
    pub luggage: Luggage,
    /// Seconds to live.
    pub expiry_s: Option<u32>,
    /// When its author first wrote it.
    pub sent_at: Millis,
    /// When the engine first had all of it, where it surely looked at it then.
    pub taken_at: Option<Millis>,
    /// What each shard had asked to persist when the engine first had all of it.
    pub issued: Option<Seqs>,
    /// When its author learnt of its fate.
    pub done_at: Option<Millis>,
    /// How often it was written.
    pub transmissions: u32,
    /// How often a crash may have let the broker publish it once more.
    pub repeats: u32,
    /// The session that it was first sent in may have ended in between.
    pub is_loose: bool,
    /// What became of it.
    pub fate: Fate,
    /// What the law said about it, once its time is over.
    pub law: Option<Answer>,
}

/// What marks a payload of a well-behaved author.
const STAMP: &[u8] = b"CM";

/// A payload that tells its serial number, `bytes` long or a little more.
pub fn payload(serial: u64, bytes: usize) -> Vec<u8> {
    let mut payload = STAMP.to_vec();
    payload.extend_from_slice(&serial.to_be_bytes());
    let filler = (serial % 251) as u8;
    payload.resize(payload.len().max(bytes), filler);
    payload
}

/// The serial number in a payload.
pub fn serial(payload: &[u8]) -> Option<u64> {
    let bytes = payload.strip_prefix(STAMP)?.get(..8)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

impl Message {
    /// True for a message that takes a retained value away.
    pub fn is_empty(&self) -> bool {
        self.payload.is_empty()
    }

    /// Bytes of its largest PUBLISH, about and never too few.
    pub fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len() + self.luggage.bytes() + 200
    }

    /// What has an order of its own at each recipient, for deliveries of one QoS.
    pub fn line(&self, delivered: QoS) -> Line {
        (
            self.author,
            self.incarnation,
            self.topic.clone(),
            self.qos,
            delivered,
        )
    }

    /// True for a client's own message, its will included.
    pub fn is_of(&self, client: usize) -> bool {
        matches!(self.author, Author::Client(author) | Author::Will(author) if author == client)
    }

    /// How many independent copies the author may have caused.
    pub fn causes(&self) -> u32 {
        let repeats = self.repeats;
        let sent = match self.qos {
            QoS::AtLeastOnce => self.transmissions.max(1),
            QoS::ExactlyOnce if self.is_loose => self.transmissions.max(1),
            QoS::AtMostOnce | QoS::ExactlyOnce => 1,
        };
        sent + repeats
    }
}
