//! What the records of a journal amount to: the state to go on with after a restart.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use casemate_codec::{share, QoS};

use super::{EntryLine, Record, SessionLine, Whole, FORMAT, SHARD_BITS};
use crate::door::Millis;
use crate::flights::Phase;
use crate::message::Draft;
use crate::outbox::{GroupRef, NO_GROUP};
use crate::wire::{put_message, Reader};

/// A batch that does not read as this program writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// Written by another version of this program.
    Format {
        /// Its number of the format.
        found: u8,
    },
    /// A record that does not read.
    Record {
        /// Where it begins in the batch, bytes.
        at: usize,
    },
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damaged::Format { found } => write!(f, "format {found}, where {FORMAT} is known"),
            Damaged::Record { at } => write!(f, "no record that is known, at byte {at}"),
        }
    }
}

impl std::error::Error for Damaged {}

/// All that a broker keeps, of all its shards, as far as their journals tell.
///
/// Batches are taken in as [`Effect::Persist`](crate::Effect::Persist) gave them, those of each
/// shard in order. It can be given to another thread, and be split among any number of shards.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    pub(super) sessions: BTreeMap<u64, KeptSession>,
    pub(super) retained: BTreeMap<(u32, Box<str>), Body>,
    pub(super) groups: BTreeMap<GroupRef, GroupName>,
    seeds: Option<[u64; 4]>,
    /// The highest serial of a group.
    pub(super) group_serial: u32,
    wholes: BTreeSet<Whole>,
    /// Of the batch that is being taken in.
    messages: BTreeMap<u64, Body>,
    /// The highest number that was given to anything.
    last: u64,
    lost: u64,
}

/// A message as `wire` writes it, shared by all who wait for it.
#[derive(Clone, PartialEq)]
pub(super) struct Body(Arc<[u8]>);

impl Body {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A number that only clones of it have in common.
    pub fn identity(&self) -> usize {
        Arc::as_ptr(&self.0).cast::<u8>() as usize
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Reader::new(&self.0).message() {
            Some(draft) => write!(f, "{:?} of {} bytes", draft.topic, draft.payload.len()),
            None => write!(f, "{} bytes that do not read", self.0.len()),
        }
    }
}

/// Tenant, name and filter of a share group.
pub(super) type GroupName = Arc<(u32, Box<str>, Box<str>)>;

#[derive(Clone, Debug)]
pub(super) struct KeptSession {
    pub tenant: u32,
    pub realm: Box<str>,
    pub name: Box<str>,
    pub client_id: Box<str>,
    pub is_bound: bool,
    pub roles: Vec<Box<str>>,
    pub expiry_s: u32,
    /// None while a connection serves it.
    pub ends_at: Option<Millis>,
    pub will: Option<KeptWill>,
    pub filters: BTreeMap<Box<str>, KeptSubscription>,
    pub incoming: BTreeSet<u16>,
    /// Position of the first flight.
    pub first: u64,
    pub flights: VecDeque<KeptFlight>,
    pub waiting: VecDeque<KeptItem>,
    pub entered: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeptWill {
    pub body: Body,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
    pub due_at: Option<Millis>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct KeptSubscription {
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub id: u32,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeptItem {
    pub entry: u64,
    pub body: Body,
    pub qos: QoS,
    pub retain: bool,
    pub ids: Vec<u32>,
    /// As the records call it; after [`Kept::finish`] it is `share`.
    pub group: GroupRef,
    pub share: Option<GroupName>,
    pub whole: Whole,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct KeptFlight {
    pub phase: Phase,
    /// None from PUBREC on.
    pub item: Option<KeptItem>,
}

impl Kept {
    /// Nothing.
    pub fn new() -> Kept {
        Kept::default()
    }

    /// Takes one batch in.
    ///
    /// # Errors
    /// It does not read; what stood before the fault has been taken in.
    pub fn take(&mut self, batch: &[u8]) -> Result<(), Damaged> {
        let Some((format, records)) = batch.split_first() else {
            return Ok(());
        };
        if *format != FORMAT {
            return Err(Damaged::Format { found: *format });
        }
        let mut reader = Reader::new(records);
        self.messages.clear();
        while !reader.is_empty() {
            let at = batch.len() - reader.left();
            let record = Record::read(&mut reader).ok_or(Damaged::Record { at })?;
            self.apply(record);
        }
        self.messages.clear();
        Ok(())
    }

    /// All has been taken in: forgets what was never complete, and what ended with a connection.
    pub fn finish(&mut self) {
        let wholes = std::mem::take(&mut self.wholes);
        self.finish_by(&wholes);
    }

    /// Finishes what was taken from shards themselves, which know less of each other than all
    /// journals together.
    pub fn finish_like(&mut self, other: &Kept) {
        self.finish_by(&other.wholes);
    }

    fn finish_by(&mut self, wholes: &BTreeSet<Whole>) {
        let Kept {
            sessions, groups, ..
        } = self;
        sessions.retain(|_, session| session.expiry_s > 0);
        // A group lives as long as somebody is in it: its home may not have written down its end.
        let mut members = BTreeSet::new();
        for session in sessions.values() {
            let parts = session.filters.keys().filter_map(|text| share(text));
            members.extend(parts.map(|parts| (session.tenant, parts.name, parts.filter)));
        }
        groups.retain(|_, name| members.contains(&(name.0, &*name.1, &*name.2)));
        let name = |item: &mut KeptItem| {
            item.share = groups.get(&item.group).cloned();
            item.group = NO_GROUP;
            item.whole = Whole::NONE;
        };
        let is_whole = |item: &KeptItem| !item.whole.is_some() || wholes.contains(&item.whole);
        for session in sessions.values_mut() {
            session.waiting.retain(is_whole);
            session.waiting.iter_mut().for_each(name);
            for item in session.flights.iter_mut().filter_map(|it| it.item.as_mut()) {
                // The exchange has its position; the number of its entry is not needed any more.
                item.entry = 0;
                name(item);
            }
        }
    }

    /// Sessions and retained messages.
    pub fn len(&self) -> (usize, usize) {
        (self.sessions.len(), self.retained.len())
    }

    /// True where there is neither a session nor a retained message.
    pub fn is_empty(&self) -> bool {
        self.len() == (0, 0)
    }

    /// The seeds of [`crate::Place`] under which it was written: the next start takes them too, so
    /// that a publisher is known by the hash that its messages bear.
    pub fn seeds(&self) -> Option<[u64; 4]> {
        self.seeds
    }

    /// Records about sessions and messages that are not there: what damage has taken.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What a broker would go on with in another way, in words; none where two amount to the same.
    pub fn difference(&self, other: &Kept) -> Option<String> {
        let numbers = self.sessions.keys().chain(other.sessions.keys());
        for number in numbers {
            let (one, two) = (self.sessions.get(number), other.sessions.get(number));
            if one != two {
                return Some(format!("{one:?}\nand\n{two:?}"));
            }
        }
        let topics = self.retained.keys().chain(other.retained.keys());
        for topic in topics {
            let (one, two) = (self.retained.get(topic), other.retained.get(topic));
            if one != two {
                return Some(format!("retained {topic:?}: {one:?} and {two:?}"));
            }
        }
        None
    }

    /// The highest number that was given to anything.
    pub(super) fn last(&self) -> u64 {
        self.last
    }

    fn saw(&mut self, number: u64) {
        // The low bits are the shard's.
        self.last = self.last.max(number >> SHARD_BITS);
    }

    fn apply(&mut self, record: Record<'_>) {
        let known = match record {
            Record::Session(line) => self.begin(&line),
            Record::Ended { session } => self.sessions.remove(&session).is_some(),
            Record::Message { number, draft } => {
                self.saw(number);
                self.messages.insert(number, body_of(&draft));
                true
            }
            Record::Entry(line) => self.enter(line).is_some(),
            Record::Whole(whole) => {
                self.saw(whole.0);
                self.wholes.insert(whole)
            }
            Record::Retained(draft) => {
                let key = (draft.tenant, draft.topic.into());
                self.retained.insert(key, body_of(&draft));
                true
            }
            Record::Seeds(seeds) => {
                self.seeds = Some(seeds);
                true
            }
            Record::Forgotten { tenant, topic } => {
                self.retained.remove(&(tenant, topic.into()));
                true
            }
            Record::Group {
                group,
                tenant,
                name,
                filter,
            } => {
                let name = Arc::new((tenant, name.into(), filter.into()));
                self.group_serial = self.group_serial.max(group.serial());
                self.groups.insert(group, name);
                true
            }
            Record::GroupGone { group } => match self.groups.remove(&group) {
                Some(gone) => {
                    // It may have been called otherwise before a restart.
                    self.groups.retain(|_, name| *name != gone);
                    true
                }
                None => false,
            },
            _ => self.change(&record).is_some(),
        };
        self.lost += u64::from(!known);
    }

    fn begin(&mut self, line: &SessionLine<'_>) -> bool {
        self.saw(line.number);
        let will = line.will.as_ref().map(|will| KeptWill {
            body: body_of(&will.draft),
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_at: None,
        });
        let session = self
            .sessions
            .entry(line.number)
            .or_insert_with(|| KeptSession {
                tenant: line.tenant,
                realm: line.realm.into(),
                name: line.name.into(),
                client_id: line.client_id.into(),
                is_bound: false,
                roles: Vec::new(),
                expiry_s: 0,
                ends_at: None,
                will: None,
                filters: BTreeMap::new(),
                incoming: BTreeSet::new(),
                first: 0,
                flights: VecDeque::new(),
                waiting: VecDeque::new(),
                entered: 0,
            });
        session.is_bound = line.is_bound;
        session.roles = line.roles.iter().map(|role| Box::from(*role)).collect();
        session.expiry_s = line.expiry_s;
        session.ends_at = None;
        session.will = will;
        true
    }

    /// A session got a message; nothing where one of both is missing.
    fn enter(&mut self, line: EntryLine) -> Option<()> {
        self.saw(line.whole.0);
        if line.group != NO_GROUP {
            // The group's home may not have written down what it is called.
            self.group_serial = self.group_serial.max(line.group.serial());
        }
        let item = KeptItem {
            entry: line.entry,
            body: self.messages.get(&line.message)?.clone(),
            qos: line.qos,
            retain: line.retain,
            ids: line.ids,
            group: line.group,
            share: None,
            whole: line.whole,
        };
        let session = self.sessions.get_mut(&line.session)?;
        session.entered = session.entered.max(line.entry);
        if line.is_launched {
            session.flights.push_back(KeptFlight::of(item));
        } else {
            session.waiting.push_back(item);
        }
        Some(())
    }

    /// The records that change one session; nothing where that or what they mean is missing.
    fn change(&mut self, record: &Record<'_>) -> Option<()> {
        match record {
            Record::Detached {
                session,
                expiry_s,
                ends_at,
                will_due_at,
            } => {
                let session = self.sessions.get_mut(session)?;
                session.expiry_s = *expiry_s;
                session.ends_at = Some(*ends_at);
                match (will_due_at, &mut session.will) {
                    (Some(at), Some(will)) => will.due_at = (*at > 0).then_some(*at),
                    _ => session.will = None,
                }
            }
            Record::Subscribed(line) => {
                let subscription = KeptSubscription {
                    qos: line.qos,
                    no_local: line.no_local,
                    retain_as_published: line.retain_as_published,
                    id: line.id,
                };
                let session = self.sessions.get_mut(&line.session)?;
                session.filters.insert(line.filter.into(), subscription);
            }
            Record::Unsubscribed { session, filter } => {
                self.sessions.get_mut(session)?.filters.remove(*filter)?;
            }
            Record::Incoming { session, id } => {
                self.sessions.get_mut(session)?.incoming.insert(*id);
            }
            Record::Released { session, id } => {
                self.sessions.get_mut(session)?.incoming.remove(id);
            }
            Record::WillGone { session } => self.sessions.get_mut(session)?.will = None,
            Record::Position { session, next } => {
                let session = self.sessions.get_mut(session)?;
                // Damage may have made anything of it; no real one comes near the bound.
                let next = (*next).min(u64::MAX / 2);
                session.first = next.saturating_sub(session.flights.len() as u64);
            }
            _ => return self.proceed(record),
        }
        Some(())
    }

    /// The records that move one message on; nothing where it or its session is missing.
    fn proceed(&mut self, record: &Record<'_>) -> Option<()> {
        match record {
            Record::Launched {
                session,
                entry,
                qos,
            } => {
                let session = self.sessions.get_mut(session)?;
                let mut item = session.first_waiting(*entry)?;
                item.qos = *qos;
                session.flights.push_back(KeptFlight::of(item));
            }
            Record::Gone { session, entry } => {
                self.sessions.get_mut(session)?.first_waiting(*entry)?;
            }
            Record::Lowered { session, position } => {
                let flight = self.sessions.get_mut(session)?.flight(*position)?;
                flight.phase = Phase::Puback;
                flight.item.as_mut()?.qos = QoS::AtLeastOnce;
            }
            Record::Taken { session, position } => {
                let flight = self.sessions.get_mut(session)?.flight(*position)?;
                flight.phase = Phase::Pubcomp;
                flight.item = None;
            }
            Record::Done { session, position } => {
                self.sessions.get_mut(session)?.done(*position)?;
            }
            _ => return None,
        }
        Some(())
    }
}

impl PartialEq for KeptSession {
    fn eq(&self, other: &KeptSession) -> bool {
        // All but the number of the last entry, which makes no difference when that is over.
        let named = |it: &KeptSession| {
            let names = (it.realm.clone(), it.name.clone(), it.client_id.clone());
            (
                it.tenant,
                names,
                it.is_bound,
                it.expiry_s,
                it.ends_at,
                it.first,
            )
        };
        named(self) == named(other)
            && self.roles == other.roles
            && self.will == other.will
            && self.filters == other.filters
            && self.incoming == other.incoming
            && self.flights == other.flights
            && self.waiting == other.waiting
    }
}

impl KeptFlight {
    fn of(item: KeptItem) -> KeptFlight {
        KeptFlight {
            phase: Phase::of(item.qos),
            item: Some(item),
        }
    }
}

impl KeptSession {
    /// Takes the first entry that waits, where that is the one that is meant.
    fn first_waiting(&mut self, entry: u64) -> Option<KeptItem> {
        let place = self.waiting.iter().position(|item| item.entry == entry)?;
        self.waiting.remove(place)
    }

    fn flight(&mut self, position: u64) -> Option<&mut KeptFlight> {
        let index = position.checked_sub(self.first)?;
        self.flights.get_mut(usize::try_from(index).ok()?)
    }

    fn done(&mut self, position: u64) -> Option<()> {
        let flight = self.flight(position)?;
        flight.phase = Phase::Done;
        flight.item = None;
        let is_done = |flight: &KeptFlight| flight.phase == Phase::Done;
        while self.flights.front().is_some_and(is_done) {
            self.flights.pop_front();
            self.first += 1;
        }
        Some(())
    }
}

fn body_of(draft: &Draft<'_>) -> Body {
    let mut body = Vec::with_capacity(draft.bytes() + 16);
    put_message(&mut body, draft);
    Body(body.into())
}
