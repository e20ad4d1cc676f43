//! One record: its kind, then its fields, little-endian, lengths first. This is a format on disk:
//! a kind is never given another meaning, and whoever changes one changes [`super::FORMAT`].

use casemate_codec::QoS;

use super::Whole;
use crate::door::Millis;
use crate::message::Draft;
use crate::outbox::{GroupRef, NO_GROUP};
use crate::wire::{put_message, put_text, Reader};

const SESSION: u8 = 1;
const DETACHED: u8 = 2;
const ENDED: u8 = 3;
const SUBSCRIBED: u8 = 4;
const UNSUBSCRIBED: u8 = 5;
const MESSAGE: u8 = 6;
const ENTRY: u8 = 7;
const LAUNCHED: u8 = 8;
const GONE: u8 = 9;
const TAKEN: u8 = 10;
const DONE: u8 = 11;
const INCOMING: u8 = 12;
const RELEASED: u8 = 13;
const WHOLE: u8 = 14;
const WILL_GONE: u8 = 15;
const RETAINED: u8 = 16;
const FORGOTTEN: u8 = 17;
const GROUP: u8 = 18;
const POSITION: u8 = 19;
const GROUP_GONE: u8 = 20;
const LOWERED: u8 = 21;
const SEEDS: u8 = 22;

/// Bits of the flags of a subscription and of an entry.
const QOS: u8 = 3;
const NO_LOCAL: u8 = 4;
const AS_PUBLISHED: u8 = 8;
const RETAIN: u8 = 4;
const IS_LAUNCHED: u8 = 8;
const HAS_IDS: u8 = 16;
const HAS_GROUP: u8 = 32;
const HAS_WHOLE: u8 = 64;

/// One change of what a shard keeps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record<'a> {
    /// A client has the session, new or resumed.
    Session(SessionLine<'a>),
    /// Its connection is gone.
    Detached {
        session: u64,
        expiry_s: u32,
        ends_at: Millis,
        /// Its will is still to come; when, or 0 where it has not fallen due.
        will_due_at: Option<Millis>,
    },
    /// It and all that belongs to it.
    Ended {
        session: u64,
    },
    /// Also where it replaces a subscription to the same filter.
    Subscribed(SubscriptionLine<'a>),
    Unsubscribed {
        session: u64,
        filter: &'a str,
    },
    /// For the entries that follow it in the same batch.
    Message {
        number: u64,
        draft: Draft<'a>,
    },
    /// A session got a message of QoS 1 or 2.
    Entry(EntryLine),
    /// The exchange of the first entry that waits has begun, at the session's next position; of a
    /// lower QoS where policy allows no more.
    Launched {
        session: u64,
        entry: u64,
        qos: QoS,
    },
    /// The first entry that waits was dropped: expired, or not allowed any more.
    Gone {
        session: u64,
        entry: u64,
    },
    /// An exchange of QoS 2 has become one of QoS 1 before it began.
    Lowered {
        session: u64,
        position: u64,
    },
    /// PUBREC came for a position.
    Taken {
        session: u64,
        position: u64,
    },
    /// An exchange is over.
    Done {
        session: u64,
        position: u64,
    },
    /// A QoS 2 message was received and is owned.
    Incoming {
        session: u64,
        id: u16,
    },
    /// PUBREL came for it.
    Released {
        session: u64,
        id: u16,
    },
    /// All shards have written down what they have of a message.
    Whole(Whole),
    WillGone {
        session: u64,
    },
    Retained(Draft<'a>),
    Forgotten {
        tenant: u32,
        topic: &'a str,
    },
    /// What the home of a share group calls it.
    Group {
        group: GroupRef,
        tenant: u32,
        name: &'a str,
        filter: &'a str,
    },
    /// The last member of a group has left.
    GroupGone {
        group: GroupRef,
    },
    /// Of the hashes that messages bear of their publishers.
    Seeds([u64; 4]),
    /// The position of the next exchange of a session, where it has none under way.
    Position {
        session: u64,
        next: u64,
    },
}

/// A session without what is in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SessionLine<'a> {
    pub number: u64,
    pub tenant: u32,
    pub realm: &'a str,
    pub name: &'a str,
    pub client_id: &'a str,
    pub is_bound: bool,
    pub roles: Vec<&'a str>,
    pub expiry_s: u32,
    pub will: Option<WillLine<'a>>,
}

/// The will of a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct WillLine<'a> {
    pub draft: Draft<'a>,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
}

/// One subscription of a session.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SubscriptionLine<'a> {
    pub session: u64,
    /// With `$share/…`, where it is shared.
    pub filter: &'a str,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    /// 0 for none.
    pub id: u32,
}

/// How one session got a message.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EntryLine {
    pub session: u64,
    /// Counts up in each session.
    pub entry: u64,
    pub message: u64,
    pub qos: QoS,
    pub retain: bool,
    /// Its exchange has begun; else it waits behind others.
    pub is_launched: bool,
    /// Subscription identifiers; empty is the usual case, and allocates nothing.
    pub ids: Vec<u32>,
    pub group: GroupRef,
    pub whole: Whole,
}

fn put_long(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_int(out: &mut Vec<u8>, number: u32) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_one(out: &mut Vec<u8>, kind: u8, number: u64) {
    out.push(kind);
    put_long(out, number);
}

fn put_pair(out: &mut Vec<u8>, kind: u8, session: u64, number: u64) {
    out.push(kind);
    put_long(out, session);
    put_long(out, number);
}

/// Writes a number that may be missing.
fn put_option(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put_long(out, number);
    }
}

impl<'a> Record<'a> {
    /// Appends the record.
    pub fn write(&self, out: &mut Vec<u8>) {
        if let Some((kind, session, number)) = self.pair() {
            put_pair(out, kind, session, number);
            return;
        }
        match self {
            Record::Session(line) => line.write(out),
            Record::Detached {
                session,
                expiry_s,
                ends_at,
                will_due_at,
            } => {
                put_pair(out, DETACHED, *session, *ends_at);
                put_int(out, *expiry_s);
                put_option(out, *will_due_at);
            }
            Record::Ended { session } => put_one(out, ENDED, *session),
            Record::WillGone { session } => put_one(out, WILL_GONE, *session),
            Record::Whole(whole) => put_one(out, WHOLE, whole.0),
            Record::GroupGone { group } => put_one(out, GROUP_GONE, group.0),
            Record::Subscribed(line) => line.write(out),
            Record::Unsubscribed { session, filter } => {
                put_one(out, UNSUBSCRIBED, *session);
                put_text(out, filter);
            }
            Record::Message { number, draft } => {
                put_one(out, MESSAGE, *number);
                put_message(out, draft);
            }
            Record::Launched {
                session,
                entry,
                qos,
            } => {
                put_pair(out, LAUNCHED, *session, *entry);
                out.push(*qos as u8);
            }
            Record::Retained(draft) => {
                out.push(RETAINED);
                put_message(out, draft);
            }
            Record::Seeds(seeds) => {
                out.push(SEEDS);
                seeds.iter().for_each(|seed| put_long(out, *seed));
            }
            Record::Forgotten { tenant, topic } => {
                out.push(FORGOTTEN);
                put_int(out, *tenant);
                put_text(out, topic);
            }
            Record::Group {
                group,
                tenant,
                name,
                filter,
            } => {
                put_one(out, GROUP, group.0);
                put_int(out, *tenant);
                put_text(out, name);
                put_text(out, filter);
            }
            Record::Entry(line) => line.write(out),
            // The others are pairs.
            _ => {}
        }
    }

    /// The kind and the numbers of a record that is nothing else.
    fn pair(&self) -> Option<(u8, u64, u64)> {
        Some(match self {
            Record::Gone { session, entry } => (GONE, *session, *entry),
            Record::Lowered { session, position } => (LOWERED, *session, *position),
            Record::Taken { session, position } => (TAKEN, *session, *position),
            Record::Done { session, position } => (DONE, *session, *position),
            Record::Incoming { session, id } => (INCOMING, *session, u64::from(*id)),
            Record::Released { session, id } => (RELEASED, *session, u64::from(*id)),
            Record::Position { session, next } => (POSITION, *session, *next),
            _ => return None,
        })
    }

    /// Reads what [`Record::write`] wrote; nothing where it does not read so.
    pub fn read(reader: &mut Reader<'a>) -> Option<Record<'a>> {
        let kind = reader.byte()?;
        Some(match kind {
            SESSION => Record::Session(SessionLine::read(reader)?),
            DETACHED => Record::Detached {
                session: reader.long()?,
                ends_at: reader.long()?,
                expiry_s: reader.int()?,
                will_due_at: read_option(reader)?,
            },
            ENDED => Record::Ended {
                session: reader.long()?,
            },
            SUBSCRIBED => Record::Subscribed(SubscriptionLine::read(reader)?),
            UNSUBSCRIBED => Record::Unsubscribed {
                session: reader.long()?,
                filter: reader.text()?,
            },
            MESSAGE => Record::Message {
                number: reader.long()?,
                draft: reader.message()?,
            },
            ENTRY => Record::Entry(EntryLine::read(reader)?),
            LAUNCHED => Record::Launched {
                session: reader.long()?,
                entry: reader.long()?,
                qos: QoS::from_bits(reader.byte()?)?,
            },
            SEEDS => Record::Seeds([
                reader.long()?,
                reader.long()?,
                reader.long()?,
                reader.long()?,
            ]),
            RETAINED => Record::Retained(reader.message()?),
            FORGOTTEN => Record::Forgotten {
                tenant: reader.int()?,
                topic: reader.text()?,
            },
            GROUP => Record::Group {
                group: GroupRef(reader.long()?),
                tenant: reader.int()?,
                name: reader.text()?,
                filter: reader.text()?,
            },
            GROUP_GONE => Record::GroupGone {
                group: GroupRef(reader.long()?),
            },
            WHOLE => Record::Whole(Whole(reader.long()?)),
            WILL_GONE => Record::WillGone {
                session: reader.long()?,
            },
            _ => Record::of_pair(kind, reader.long()?, reader.long()?)?,
        })
    }

    /// The records that are two numbers.
    fn of_pair(kind: u8, session: u64, number: u64) -> Option<Record<'a>> {
        Some(match kind {
            GONE => Record::Gone {
                session,
                entry: number,
            },
            LOWERED => Record::Lowered {
                session,
                position: number,
            },
            TAKEN => Record::Taken {
                session,
                position: number,
            },
            DONE => Record::Done {
                session,
                position: number,
            },
            INCOMING => Record::Incoming {
                session,
                id: number.try_into().ok()?,
            },
            RELEASED => Record::Released {
                session,
                id: number.try_into().ok()?,
            },
            POSITION => Record::Position {
                session,
                next: number,
            },
            _ => return None,
        })
    }
}

fn read_option(reader: &mut Reader<'_>) -> Option<Option<u64>> {
    Some(match reader.byte()? {
        0 => None,
        _ => Some(reader.long()?),
    })
}

impl<'a> SessionLine<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(SESSION);
        put_long(out, self.number);
        put_int(out, self.tenant);
        put_text(out, self.realm);
        put_text(out, self.name);
        put_text(out, self.client_id);
        out.push(u8::from(self.is_bound));
        // Cannot truncate: a policy has far fewer roles.
        put_int(out, self.roles.len() as u32);
        for role in &self.roles {
            put_text(out, role);
        }
        put_int(out, self.expiry_s);
        out.push(u8::from(self.will.is_some()));
        if let Some(will) = &self.will {
            put_int(out, will.delay_s);
            put_option(out, will.expiry_s.map(u64::from));
            put_message(out, &will.draft);
        }
    }

    fn read(reader: &mut Reader<'a>) -> Option<SessionLine<'a>> {
        let (number, tenant) = (reader.long()?, reader.int()?);
        let (realm, name, client_id) = (reader.text()?, reader.text()?, reader.text()?);
        let is_bound = reader.byte()? != 0;
        let mut roles = Vec::new();
        for _ in 0..reader.int()? {
            roles.push(reader.text()?);
        }
        let expiry_s = reader.int()?;
        let will = match reader.byte()? {
            0 => None,
            _ => Some(WillLine {
                delay_s: reader.int()?,
                expiry_s: match read_option(reader)? {
                    None => None,
                    Some(expiry_s) => Some(expiry_s.try_into().ok()?),
                },
                draft: reader.message()?,
            }),
        };
        Some(SessionLine {
            number,
            tenant,
            realm,
            name,
            client_id,
            is_bound,
            roles,
            expiry_s,
            will,
        })
    }
}

impl<'a> SubscriptionLine<'a> {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(SUBSCRIBED);
        put_long(out, self.session);
        put_text(out, self.filter);
        let mut flags = self.qos as u8;
        if self.no_local {
            flags |= NO_LOCAL;
        }
        if self.retain_as_published {
            flags |= AS_PUBLISHED;
        }
        out.push(flags);
        put_int(out, self.id);
    }

    fn read(reader: &mut Reader<'a>) -> Option<SubscriptionLine<'a>> {
        let (session, filter) = (reader.long()?, reader.text()?);
        let flags = reader.byte()?;
        Some(SubscriptionLine {
            session,
            filter,
            qos: QoS::from_bits(flags & QOS)?,
            no_local: flags & NO_LOCAL != 0,
            retain_as_published: flags & AS_PUBLISHED != 0,
            id: reader.int()?,
        })
    }
}

impl EntryLine {
    fn write(&self, out: &mut Vec<u8>) {
        put_pair(out, ENTRY, self.session, self.entry);
        put_long(out, self.message);
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let has_group = self.group != NO_GROUP;
        out.push(
            self.qos as u8
                | flag(self.retain, RETAIN)
                | flag(self.is_launched, IS_LAUNCHED)
                | flag(!self.ids.is_empty(), HAS_IDS)
                | flag(has_group, HAS_GROUP)
                | flag(self.whole.is_some(), HAS_WHOLE),
        );
        if !self.ids.is_empty() {
            // Cannot truncate: a session has at most `subscriptions_per_session_max` of them.
            put_int(out, self.ids.len() as u32);
            for id in &self.ids {
                put_int(out, *id);
            }
        }
        if has_group {
            put_long(out, self.group.0);
        }
        if self.whole.is_some() {
            put_long(out, self.whole.0);
        }
    }

    fn read(reader: &mut Reader<'_>) -> Option<EntryLine> {
        let (session, entry, message) = (reader.long()?, reader.long()?, reader.long()?);
        let flags = reader.byte()?;
        let mut ids = Vec::new();
        if flags & HAS_IDS != 0 {
            for _ in 0..reader.int()? {
                ids.push(reader.int()?);
            }
        }
        let group = match flags & HAS_GROUP {
            0 => NO_GROUP,
            _ => GroupRef(reader.long()?),
        };
        let whole = match flags & HAS_WHOLE {
            0 => Whole::NONE,
            _ => Whole(reader.long()?),
        };
        Some(EntryLine {
            session,
            entry,
            message,
            qos: QoS::from_bits(flags & QOS)?,
            retain: flags & RETAIN != 0,
            is_launched: flags & IS_LAUNCHED != 0,
            ids,
            group,
            whole,
        })
    }
}
