//! What outlives a connection: who subscribed to what, and what is still owed to them.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::door::{Millis, Place, ShardIndex};
use crate::filters::Filters;
use crate::outbox::Outbox;
use crate::policy::{RoleSet, Subject};
use crate::principal::Principal;
use crate::queue::Queue;
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
    /// When it ends; `MAX` while a connection serves it.
    pub ends_at: Millis,
    pub filters: Filters,
    pub outbox: Outbox,
    /// Packet ids of QoS 2 messages received and not yet released ([MQTT-4.3.3-10]).
    pub unreleased: Queue<u16>,
    pub replays: Queue<Replay>,
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

/// A principal with sessions in this shard, and how many.
struct Owner {
    principal: Arc<Principal>,
    sessions: u32,
}

/// All sessions of a shard.
pub(crate) struct Sessions {
    slots: Vec<Option<Box<Session>>>,
    free: Vec<u32>,
    by_key: HashTable<u32>,
    owners: HashTable<Owner>,
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
            owners: HashTable::new(),
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
        let hash = owner_hash(&self.hasher, principal);
        let owner = self.owners.find(hash, |owner| owner.is(principal));
        owner.map_or(0, |owner| owner.sessions as usize)
    }

    /// The copy of a principal that its sessions share, as long as they say the same of it.
    pub fn shared(&mut self, principal: &Arc<Principal>) -> Arc<Principal> {
        let hash = owner_hash(&self.hasher, principal);
        if let Some(owner) = self.owners.find_mut(hash, |owner| owner.is(principal)) {
            if owner.principal == *principal {
                return Arc::clone(&owner.principal);
            }
            owner.principal = Arc::clone(principal);
        }
        Arc::clone(principal)
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
        session.principal = self.shared(&session.principal);
        self.count(&session.principal);
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
        let hash = owner_hash(&self.hasher, principal);
        if let Ok(mut entry) = self.owners.find_entry(hash, |owner| owner.is(principal)) {
            entry.get_mut().sessions -= 1;
            if entry.get().sessions == 0 {
                entry.remove();
            }
        }
        self.free.push(slot);
        Some(session)
    }

    /// One more session of a principal.
    fn count(&mut self, principal: &Arc<Principal>) {
        let hasher = &self.hasher;
        let hash = owner_hash(hasher, principal);
        let same = |owner: &Owner| owner.is(principal);
        let rehash = |owner: &Owner| owner_hash(hasher, &owner.principal);
        let none = || Owner {
            principal: Arc::clone(principal),
            sessions: 0,
        };
        let entry = self.owners.entry(hash, same, rehash).or_insert_with(none);
        entry.into_mut().sessions += 1;
    }
}

impl Owner {
    /// True where this is who the principal is, whatever roles either has.
    fn is(&self, principal: &Principal) -> bool {
        let own = &self.principal;
        (own.tenant, &own.realm, &own.name) == (principal.tenant, &principal.realm, &principal.name)
    }
}

/// The keyed hash of who a principal is.
fn owner_hash(hasher: &RandomState, principal: &Principal) -> u64 {
    hasher.hash_one((principal.tenant, &principal.realm, &principal.name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;
    use crate::policy::Policy;

    fn principal(name: &str, roles: &[&str]) -> Arc<Principal> {
        Arc::new(Principal {
            tenant: 0,
            realm: "account".into(),
            name: name.into(),
            roles: roles.iter().map(|role| Box::from(*role)).collect(),
        })
    }

    fn session(principal: &Arc<Principal>) -> Box<Session> {
        Box::new(Session {
            serial: 0,
            number: 0,
            hash: 0,
            tenant: 0,
            client_id: "".into(),
            principal: Arc::clone(principal),
            client_id_bound: false,
            roles: Policy::deny_all(1).resolve(&[]),
            link: None,
            online: false,
            expiry_s: 0,
            ends_at: Millis::MAX,
            filters: Filters::default(),
            outbox: Outbox::default(),
            unreleased: Queue::default(),
            replays: Queue::default(),
            is_in_line: false,
            is_holding: false,
            will: None,
        })
    }

    fn sessions() -> Sessions {
        Sessions::new(&Place {
            index: 0,
            count: 1,
            seeds: [1, 2, 3, 4],
        })
    }

    #[test]
    fn sessions_of_one_principal_share_what_is_known_of_it() {
        let mut sessions = sessions();
        let [first, second] = [(); 2].map(|()| principal("pump", &["device"]));
        let other = principal("valve", &["device"]);
        let slots = [&first, &second, &other].map(|owner| sessions.add(session(owner)));
        let kept = slots.map(|slot| Arc::clone(&sessions.get(slot).unwrap().principal));
        assert!(Arc::ptr_eq(&kept[0], &kept[1]) && !Arc::ptr_eq(&kept[0], &kept[2]));
        assert_eq!(sessions.of_principal(&first), 2);
        for slot in slots {
            sessions.remove(slot);
        }
        assert_eq!(sessions.of_principal(&first), 0);
        assert_eq!(
            sessions.owners.len(),
            0,
            "nobody is remembered without sessions"
        );
    }

    #[test]
    fn other_roles_of_a_principal_hold_for_those_who_come_with_them() {
        let mut sessions = sessions();
        let (before, after) = (principal("pump", &["device"]), principal("pump", &[]));
        let slots = [&before, &after, &after].map(|owner| sessions.add(session(owner)));
        let roles = slots.map(|slot| sessions.get(slot).unwrap().principal.roles.len());
        assert_eq!(roles, [1, 0, 0]);
        assert_eq!(
            sessions.of_principal(&before),
            3,
            "it is the same principal"
        );
    }
}
