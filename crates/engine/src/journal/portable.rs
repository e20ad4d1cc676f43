//! What is kept as plain values: to be written down in another form, and to be made of one again.
//!
//! Nothing of how this broker works goes along: numbers, slots and hashes are given anew. What a
//! client may still be asked about does, such as its exchanges and the identifiers that it uses.

use std::collections::BTreeMap;

use casemate_codec::QoS;

use super::kept::{Body, Kept, KeptItem, KeptSession};
use super::{EntryLine, Journal, Record, SessionLine, SubscriptionLine, Whole, WillLine};
use crate::door::Millis;
use crate::flights::Phase;
use crate::message::Draft;
use crate::outbox::{GroupRef, NO_GROUP};
use crate::wire::Reader;

/// A message.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredMessage {
    /// Whose topics these are.
    pub tenant: u32,
    /// Where it was published.
    pub topic: String,
    /// Its properties that travel, as MQTT 5.0 writes them, without their length.
    pub properties: Vec<u8>,
    /// What it says.
    pub payload: Vec<u8>,
    /// As it was published.
    pub qos: QoS,
    /// As it was published.
    pub retain: bool,
    /// When it must no longer be delivered, on the clock of the shards; 0 is never.
    pub expires_at: Millis,
}

/// A message for one session.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredEntry {
    /// The message.
    pub message: StoredMessage,
    /// Of its delivery.
    pub qos: QoS,
    /// Of its delivery.
    pub retain: bool,
    /// Identifiers of the subscriptions that it answers.
    pub ids: Vec<u32>,
    /// Name and filter of the share group that chose this session.
    pub share: Option<(String, String)>,
}

/// What an exchange waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// PUBACK, for QoS 1.
    Puback,
    /// PUBREC, for QoS 2.
    Pubrec,
    /// PUBCOMP, for QoS 2.
    Pubcomp,
    /// Exchanges before it.
    Others,
}

/// An exchange that has begun.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredFlight {
    /// What it waits for.
    pub awaits: Awaited,
    /// What is sent; none from PUBREC on.
    pub entry: Option<StoredEntry>,
}

/// A will that has not been published.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredWill {
    /// What it says.
    pub message: StoredMessage,
    /// How long it waits behind the end of a connection, s.
    pub delay_s: u32,
    /// How long it is worth something once it is published, s.
    pub expiry_s: Option<u32>,
    /// When it is due; none while its client is connected.
    pub due_at: Option<Millis>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSubscription {
    /// With `$share/…`, where it is shared.
    pub filter: String,
    /// The most that it gets.
    pub qos: QoS,
    /// Leaves out what the client itself has published.
    pub no_local: bool,
    /// Keeps the RETAIN flag.
    pub retain_as_published: bool,
    /// Its identifier; 0 for none.
    pub id: u32,
}

/// A session with everything in it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSession {
    /// Whose names these are.
    pub tenant: u32,
    /// Who vouches for the name.
    pub realm: String,
    /// Whose session it is.
    pub name: String,
    /// The client's own name for it.
    pub client_id: String,
    /// No other principal may use the client id.
    pub is_bound: bool,
    /// Roles that it had when it was last connected.
    pub roles: Vec<String>,
    /// How long it lives without a connection, s.
    pub expiry_s: u32,
    /// When it ends; none where it was connected.
    pub ends_at: Option<Millis>,
    /// What is published unless it comes back.
    pub will: Option<StoredWill>,
    /// What it hears.
    pub subscriptions: Vec<StoredSubscription>,
    /// Identifiers of messages of QoS 2 that it has published and not released.
    pub incoming: Vec<u16>,
    /// Position of its first exchange, which its packet identifier follows from.
    pub first: u64,
    /// Exchanges that have begun, in order.
    pub flights: Vec<StoredFlight>,
    /// What waits, in order.
    pub waiting: Vec<StoredEntry>,
}

impl Kept {
    /// Every session, in the order of their making; to be asked once it is
    /// [finished](Kept::finish).
    pub fn sessions(&self) -> impl Iterator<Item = StoredSession> + '_ {
        self.sessions.values().map(KeptSession::stored)
    }

    /// Every retained message, by topic.
    pub fn retained(&self) -> impl Iterator<Item = StoredMessage> + '_ {
        self.retained.values().map(Body::stored)
    }
}

impl Body {
    fn stored(&self) -> StoredMessage {
        // Cannot fail: it was written from a draft, and read as one when it was taken in.
        let draft = Reader::new(self.bytes()).message().unwrap_or(Draft::EMPTY);
        StoredMessage {
            tenant: draft.tenant,
            topic: draft.topic.into(),
            properties: draft.properties.into(),
            payload: draft.payload.into(),
            qos: draft.qos,
            retain: draft.retain,
            expires_at: draft.expires_at,
        }
    }
}

impl KeptItem {
    fn stored(&self) -> StoredEntry {
        let share = self.share.as_deref();
        StoredEntry {
            message: self.body.stored(),
            qos: self.qos,
            retain: self.retain,
            ids: self.ids.clone(),
            share: share.map(|(_, name, filter)| (name.to_string(), filter.to_string())),
        }
    }
}

impl KeptSession {
    fn stored(&self) -> StoredSession {
        let filters = self.filters.iter();
        let flights = self.flights.iter().map(|flight| StoredFlight {
            awaits: match flight.phase {
                Phase::Puback => Awaited::Puback,
                Phase::Pubrec => Awaited::Pubrec,
                Phase::Pubcomp => Awaited::Pubcomp,
                Phase::Done => Awaited::Others,
            },
            entry: flight.item.as_ref().map(KeptItem::stored),
        });
        StoredSession {
            tenant: self.tenant,
            realm: self.realm.to_string(),
            name: self.name.to_string(),
            client_id: self.client_id.to_string(),
            is_bound: self.is_bound,
            roles: self.roles.iter().map(ToString::to_string).collect(),
            expiry_s: self.expiry_s,
            ends_at: self.ends_at,
            will: self.will.as_ref().map(|will| StoredWill {
                message: will.body.stored(),
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
                due_at: will.due_at,
            }),
            subscriptions: filters
                .map(|(filter, found)| StoredSubscription {
                    filter: filter.to_string(),
                    qos: found.qos,
                    no_local: found.no_local,
                    retain_as_published: found.retain_as_published,
                    id: found.id,
                })
                .collect(),
            incoming: self.incoming.iter().copied().collect(),
            first: self.first,
            flights: flights.collect(),
            waiting: self.waiting.iter().map(KeptItem::stored).collect(),
        }
    }
}

/// Writes sessions and retained messages as batches that [`Kept::take`] takes, for a store that
/// holds nothing else.
pub struct Scribe {
    journal: Journal,
    groups: BTreeMap<(u32, String, String), GroupRef>,
}

impl Default for Scribe {
    fn default() -> Scribe {
        Scribe {
            journal: Journal::new(true, 0, 0),
            groups: BTreeMap::new(),
        }
    }
}

impl Scribe {
    /// Writes a session with everything in it.
    pub fn session(&mut self, session: &StoredSession) {
        let number = self.journal.number();
        self.journal.write(&Record::Session(session.line(number)));
        if let Some(ends_at) = session.ends_at {
            let will = session.will.as_ref();
            self.journal.write(&Record::Detached {
                session: number,
                expiry_s: session.expiry_s,
                ends_at,
                will_due_at: will.map(|will| will.due_at.unwrap_or(0)),
            });
        }
        for subscription in &session.subscriptions {
            self.journal.write(&Record::Subscribed(SubscriptionLine {
                session: number,
                filter: &subscription.filter,
                qos: subscription.qos,
                no_local: subscription.no_local,
                retain_as_published: subscription.retain_as_published,
                id: subscription.id,
            }));
        }
        for id in &session.incoming {
            let (session, id) = (number, *id);
            self.journal.write(&Record::Incoming { session, id });
        }
        self.journal.write(&Record::Position {
            session: number,
            next: session.first,
        });
        for (position, flight) in (session.first..).zip(&session.flights) {
            self.flight(number, position, flight);
        }
        for (entry, waiting) in (1..).zip(&session.waiting) {
            self.entry(number, entry, waiting, false);
        }
    }

    /// Writes a retained message.
    pub fn retained(&mut self, message: &StoredMessage) {
        self.journal.write(&Record::Retained(message.draft()));
    }

    /// What was written since the last time, bytes.
    pub fn bytes(&self) -> usize {
        self.journal.bytes()
    }

    /// The batch of what was written since the last time; empty where there is nothing.
    pub fn take(&mut self) -> Vec<u8> {
        self.journal.take()
    }

    fn flight(&mut self, session: u64, position: u64, flight: &StoredFlight) {
        let nothing = StoredEntry {
            message: StoredMessage::nothing(),
            qos: match flight.awaits {
                Awaited::Pubrec | Awaited::Pubcomp => QoS::ExactlyOnce,
                Awaited::Puback | Awaited::Others => QoS::AtLeastOnce,
            },
            retain: false,
            ids: Vec::new(),
            share: None,
        };
        let entry = flight.entry.as_ref().unwrap_or(&nothing);
        self.entry(session, 0, entry, true);
        match flight.awaits {
            Awaited::Puback | Awaited::Pubrec => {}
            Awaited::Pubcomp => self.journal.write(&Record::Taken { session, position }),
            Awaited::Others => self.journal.write(&Record::Done { session, position }),
        }
    }

    fn entry(&mut self, session: u64, number: u64, entry: &StoredEntry, is_launched: bool) {
        let group = self.group(entry);
        let message = self.journal.write_message(&entry.message.draft());
        self.journal.write(&Record::Entry(EntryLine {
            session,
            entry: number,
            message,
            qos: entry.qos,
            retain: entry.retain,
            is_launched,
            ids: entry.ids.clone(),
            group,
            whole: Whole::NONE,
        }));
    }

    /// What the records call the share group of an entry; a new one is introduced.
    fn group(&mut self, entry: &StoredEntry) -> GroupRef {
        let Some((name, filter)) = &entry.share else {
            return NO_GROUP;
        };
        let tenant = entry.message.tenant;
        let key = (tenant, name.clone(), filter.clone());
        if let Some(known) = self.groups.get(&key) {
            return *known;
        }
        // Serials have 26 bits; so many groups have no name of 24 bytes each in memory.
        let slot = self.groups.len() as u32;
        let group = GroupRef::new(0, slot, slot + 1);
        self.journal.write(&Record::Group {
            group,
            tenant,
            name,
            filter,
        });
        self.groups.insert(key, group);
        group
    }
}

impl StoredMessage {
    fn nothing() -> StoredMessage {
        StoredMessage {
            tenant: 0,
            topic: String::new(),
            properties: Vec::new(),
            payload: Vec::new(),
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: 0,
        }
    }

    fn draft(&self) -> Draft<'_> {
        Draft {
            tenant: self.tenant,
            topic: &self.topic,
            properties: &self.properties,
            payload: &self.payload,
            qos: self.qos,
            retain: self.retain,
            expires_at: self.expires_at,
            // Another store has other hashes: it counts as of nobody.
            publisher: 0,
            whole: Whole::NONE,
        }
    }
}

impl StoredSession {
    fn line(&self, number: u64) -> SessionLine<'_> {
        SessionLine {
            number,
            tenant: self.tenant,
            realm: &self.realm,
            name: &self.name,
            client_id: &self.client_id,
            is_bound: self.is_bound,
            roles: self.roles.iter().map(|role| &**role).collect(),
            expiry_s: self.expiry_s,
            will: self.will.as_ref().map(|will| WillLine {
                draft: will.message.draft(),
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
            }),
        }
    }
}
