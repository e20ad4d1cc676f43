//! What outlives a connection: who subscribed to what, and what is still owed to them.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use hashbrown::{HashMap, HashTable};

use crate::door::{Millis, Place, ShardIndex};
use crate::filters::Filters;
use crate::outbox::Outbox;
use crate::policy::{RoleSet, Subject};
use crate::principal::Principal;
use crate::replay::Replay;
use crate::will::Will;

/// Which session: the client id belongs to the principal that brought it, so that nobody else's
/// session can be taken by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionKey {
    pub tenant: u32,
    pub realm: Box<str>,
    pub name: Box<str>,
    pub client_id: Box<str>,
}

/// A session of this shard; the serial tells a reused slot from the one that was meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct SessionRef {
    pub slot: u32,
    pub serial: u32,
}

/// State of one session.
pub(crate) struct Session {
    pub serial: u32,
    /// Its number in the journal; 0 while nothing of it is kept.
    pub number: u64,
    pub hash: u64,
    pub tenant: u32,
    pub client_id: Box<str>,
    pub principal: Arc<Principal>,
    /// The client id is proven to be the principal's, so that `%c` may speak for it.
    pub client_id_bound: bool,
    pub roles: RoleSet,
    /// The connection that serves it.
    pub link: Option<u32>,
    /// CONNACK has left, so that messages may follow.
    pub online: bool,
    /// Session Expiry Interval in force, s; 0 ends the session with its connection.
    pub expiry_s: u32,
    /// When it ends, while no connection serves it.
    pub ends_at: Option<Millis>,
    pub filters: Filters,
    pub outbox: Outbox,
    /// Packet ids of QoS 2 messages received and not yet released ([MQTT-4.3.3-10]).
    pub unreleased: VecDeque<u16>,
    pub replays: VecDeque<Replay>,
    /// It waits in line to ask a neighbour about retained messages.
    pub is_in_line: bool,
    /// In the list of those whose next message waits until it is durable.
    pub is_holding: bool,
    pub will: Option<Box<Will>>,
}

impl Session {
    /// Whom the policy judges.
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            user: &self.principal.name,
            client: self.client_id_bound.then_some(&*self.client_id),
            roles: &self.roles,
        }
    }

    /// True where a message may pass the queues: none waits, none is being resumed or replayed.
    pub fn is_direct(&self) -> bool {
        self.online && !self.is_replaying() && self.outbox.is_clear()
    }

    /// True where retained messages come first. SUBACKs leave in order: a replay that still waits
    /// for its own has only such behind it.
    pub fn is_replaying(&self) -> bool {
        let first = self.replays.front();
        first.is_some_and(|replay| replay.suback.is_none())
    }

    /// True where so many exchanges of QoS 1 may begin at once, of which nothing is kept.
    #[inline]
    pub fn may_launch(&self, count: u32, quota: u32) -> bool {
        // [MQTT-3.3.4-9] [MQTT-4.9.0-2]
        self.number == 0
            && !self.is_durable()
            && self.outbox.flights.counted() + count <= quota
            && self.outbox.flights.has_packet_ids(count)
    }

    /// True where this is the session that a key means.
    pub fn is_of(&self, key: &SessionKey) -> bool {
        self.tenant == key.tenant
            && self.client_id == key.client_id
            && self.principal.realm == key.realm
            && self.principal.name == key.name
    }

    /// True where what is promised to it must survive a restart.
    pub fn is_durable(&self) -> bool {
        self.expiry_s > 0
    }

    pub fn me(&self, slot: u32) -> SessionRef {
        SessionRef {
            slot,
            serial: self.serial,
        }
    }
}

/// All sessions of a shard.
pub(crate) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    by_principal: HashMap<(u32, Box<str>, Box<str>), u32, RandomState>,
    serial: u32,
    hasher: RandomState,
}

impl Sessions {
    pub fn new(place: &Place) -> Sessions {
        let [a, b, c, d] = place.seeds;
        let hasher = RandomState::with_seeds(a, b, c, d);
        Sessions {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashTable::new(),
            by_principal: HashMap::with_hasher(hasher.clone()),
            serial: 0,
            hasher,
        }
    }

    /// The keyed hash of a session key; equal in every shard of a broker, never 0.
    pub fn hash(&self, key: &SessionKey) -> u64 {
        self.hasher
            .hash_one((key.tenant, &key.realm, &key.name, &key.client_id))
            .max(1)
    }

    /// The shard that a session lives in.
    pub fn home(&self, key: &SessionKey, place: &Place) -> ShardIndex {
        ((self.hash(key) >> 32) % u64::from(place.count)) as ShardIndex
    }

    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// How many sessions a principal has in this shard.
    pub fn of_principal(&self, principal: &Principal) -> usize {
        let key = (
            principal.tenant,
            principal.realm.clone(),
            principal.name.clone(),
        );
        self.by_principal
            .get(&key)
            .map_or(0, |count| *count as usize)
    }

    pub fn find(&self, key: &SessionKey) -> Option<u32> {
        let hash = self.hash(key);
        let same = |slot: &u32| {
            let found = self.get(*slot);
            found.is_some_and(|session| session.is_of(key))
        };
        self.by_key.find(hash, same).copied()
    }

    #[inline]
    pub fn get(&self, slot: u32) -> Option<&Session> {
        self.slots.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub fn get_mut(&mut self, slot: u32) -> Option<&mut Session> {
        self.slots.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The slot of a reference that still means the same session.
    pub fn resolve(&self, me: SessionRef) -> Option<u32> {
        self.get(me.slot)
            .filter(|session| session.serial == me.serial)
            .map(|_| me.slot)
    }

    /// One more than the highest slot that was ever used.
    pub fn slots(&self) -> u32 {
        // Cannot truncate: slots are numbered with 32 bits.
        self.slots.len() as u32
    }

    /// Every session, in slot order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Session)> {
        let occupied = |(slot, entry): (usize, _)| {
            let entry: &Option<Box<Session>> = entry;
            entry.as_deref().map(|session| (slot as u32, session))
        };
        self.slots.iter().enumerate().filter_map(occupied)
    }

    /// Every session, in slot order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Session)> {
        let occupied = |(slot, entry): (usize, _)| {
            let entry: &mut Option<Box<Session>> = entry;
            entry.as_deref_mut().map(|session| (slot as u32, session))
        };
        self.slots.iter_mut().enumerate().filter_map(occupied)
    }

    /// Adds a session and gives it its serial.
    pub fn add(&mut self, mut session: Box<Session>) -> u32 {
        self.serial = self.serial.wrapping_add(1);
        session.serial = self.serial;
        let principal = &session.principal;
        let owner = (
            principal.tenant,
            principal.realm.clone(),
            principal.name.clone(),
        );
        *self.by_principal.entry(owner).or_insert(0) += 1;
        let hash = session.hash;
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(Some(session));
        } else {
            self.slots[slot as usize] = Some(session);
        }
        let slots = &self.slots;
        self.by_key.insert_unique(hash, slot, |slot| {
            slots[*slot as usize]
                .as_ref()
                .map_or(0, |session| session.hash)
        });
        slot
    }

    /// Takes a session out; its subscriptions are the caller's to remove.
    pub fn remove(&mut self, slot: u32) -> Option<Box<Session>> {
        let session = self.slots.get_mut(slot as usize)?.take()?;
        if let Ok(entry) = self.by_key.find_entry(session.hash, |other| *other == slot) {
            entry.remove();
        }
        let principal = &session.principal;
        let owner = (
            principal.tenant,
            principal.realm.clone(),
            principal.name.clone(),
        );
        if let Some(count) = self.by_principal.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.by_principal.remove(&owner);
            }
        }
        self.free.push(slot);
        Some(session)
    }
}
