//! A shard made again of what was kept.
//!
//! Every shard is given the same [`Kept`] and takes its own part: sessions, share groups and
//! retained messages whose home it is now, however many shards there were before. Which slots and
//! groups the neighbours make of theirs follows from the same order, so that none has to tell.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use casemate_codec::share;

use super::kept::{Body, GroupName, Kept, KeptFlight, KeptItem, KeptSession};
use super::{Record, Whole};
use crate::door::{Millis, ShardIndex};
use crate::filters::Filters;
use crate::flights::{Flight, Flights, SENT};
use crate::message::{Draft, Message};
use crate::outbox::{GroupRef, Ids, Item, Outbox, NO_GROUP};
use crate::principal::Principal;
use crate::queue::Queue;
use crate::route::{Entry, Subscription};
use crate::session::{Session, SessionKey, SessionRef};
use crate::shard::Shard;
use crate::share::Member;
use crate::timers::Timer;
use crate::will::Will;
use crate::wire::Reader;

/// Where each session and each group has its home now, and what it is called there.
#[derive(Default)]
struct Homes<'a> {
    sessions: Vec<(ShardIndex, SessionRef, u64, &'a KeptSession)>,
    groups: BTreeMap<Shared<'a>, (ShardIndex, Vec<Member>)>,
}

/// Tenant, name and filter of a share group.
type Shared<'a> = (u32, &'a str, &'a str);

/// Messages made so far: one that waits for many sessions is one again.
#[derive(Default)]
struct Bodies(BTreeMap<usize, Message>);

impl Bodies {
    fn message(&mut self, body: &Body, scratch: &mut Vec<u8>) -> Message {
        let make = || {
            // Cannot fail: it was written from a draft, and read as one when it was taken in.
            let draft = Reader::new(body.bytes()).message().unwrap_or(Draft::EMPTY);
            draft.keep(scratch)
        };
        self.0.entry(body.identity()).or_insert_with(make).clone()
    }
}

impl Shard {
    /// Takes over what was kept, as far as this shard is its home.
    ///
    /// To be called once, before any input, on each shard of a broker with the same `kept`, which
    /// has been [finished](Kept::finish). Sessions that were connected are without their
    /// connection from now on.
    pub fn restore(&mut self, kept: &Kept, now: Millis) {
        self.now = now;
        self.journal.go_on_from(kept.last());
        self.restore_completions(kept.last());
        if self.place.index == 0 && kept.seeds().is_none() {
            self.journal.write(&Record::Seeds(self.place.seeds));
        }
        let homes = self.homes(kept);
        let groups = self.restore_groups(kept, &homes);
        let mut bodies = Bodies::default();
        for (home, me, number, session) in &homes.sessions {
            if *home == self.place.index {
                self.restore_session(*me, *number, session, &groups, &mut bodies);
            } else {
                self.restore_interest_of(*home, session);
            }
        }
        self.restore_retained(kept, &mut bodies);
        self.touch_store();
    }

    fn homes<'a>(&self, kept: &'a Kept) -> Homes<'a> {
        let mut homes = Homes::default();
        let mut count = vec![0_u32; usize::from(self.place.count)];
        for (number, session) in &kept.sessions {
            let home = self.sessions.home(&key_of(session), &self.place);
            let slot = count[usize::from(home)];
            count[usize::from(home)] += 1;
            let me = SessionRef {
                slot,
                serial: slot + 1,
            };
            homes.sessions.push((home, me, *number, session));
            for (filter, subscription) in &session.filters {
                let Some(parts) = share(filter) else { continue };
                let name = (session.tenant, parts.name, parts.filter);
                let group_home = self.group_home(session.tenant, parts.name, parts.filter);
                let (_, members) = homes
                    .groups
                    .entry(name)
                    .or_insert_with(|| (group_home, Vec::new()));
                members.push(Member {
                    shard: home,
                    session: me,
                    qos: subscription.qos,
                    id: subscription.id,
                    retain_as_published: subscription.retain_as_published,
                    online: false,
                });
            }
        }
        homes
    }

    /// Makes the groups whose home this is, and says what each is called.
    fn restore_groups<'a>(
        &mut self,
        kept: &Kept,
        homes: &Homes<'a>,
    ) -> BTreeMap<Shared<'a>, GroupRef> {
        let mut made = BTreeMap::new();
        let mut count = vec![0_u32; usize::from(self.place.count)];
        self.groups.go_on_from(kept.group_serial);
        for ((tenant, name, filter), (home, members)) in &homes.groups {
            let slot = count[usize::from(*home)];
            count[usize::from(*home)] += 1;
            let group = GroupRef::new(*home, slot, kept.group_serial + slot + 1);
            if *home == self.place.index {
                let same = self.restore_group((*tenant, name, filter), members.clone());
                debug_assert_eq!(same, group);
            } else {
                self.restore_peer(*tenant, filter, *home);
            }
            made.insert((*tenant, *name, *filter), group);
        }
        made
    }

    fn restore_peer(&mut self, tenant: u32, filter: &str, peer: ShardIndex) {
        let entry = Entry::Peer(peer);
        self.routes
            .tree
            .insert(tenant, filter, entry, |other| *other == entry);
    }

    fn restore_interest_of(&mut self, home: ShardIndex, session: &KeptSession) {
        for filter in session.filters.keys().filter(|text| share(text).is_none()) {
            self.restore_peer(session.tenant, filter, home);
        }
    }

    fn restore_session(
        &mut self,
        me: SessionRef,
        number: u64,
        kept: &KeptSession,
        groups: &BTreeMap<Shared<'_>, GroupRef>,
        bodies: &mut Bodies,
    ) {
        let now = self.now;
        let principal = Arc::new(Principal {
            tenant: kept.tenant,
            realm: kept.realm.clone(),
            name: kept.name.clone(),
            roles: kept.roles.clone(),
        });
        let group_of = |name: &Option<GroupName>| {
            let found = name
                .as_deref()
                .and_then(|(tenant, name, filter)| groups.get(&(*tenant, &**name, &**filter)));
            found.copied().unwrap_or(NO_GROUP)
        };
        let ends_at = kept
            .ends_at
            .unwrap_or_else(|| now + u64::from(kept.expiry_s) * 1000);
        let mut session = Box::new(Session {
            serial: 0,
            number,
            hash: self.sessions.hash(&key_of(kept)),
            tenant: kept.tenant,
            client_id: kept.client_id.clone(),
            roles: self.policy.resolve(&principal.roles),
            principal,
            client_id_bound: kept.is_bound,
            link: None,
            online: false,
            expiry_s: kept.expiry_s,
            ends_at,
            filters: Filters::default(),
            outbox: self.restore_outbox(kept, group_of, bodies),
            unreleased: kept.incoming.iter().copied().collect(),
            replays: Queue::default(),
            is_in_line: false,
            is_holding: false,
            will: None,
        });
        if let Some(will) = &kept.will {
            let delay_ms = u64::from(will.delay_s.min(kept.expiry_s)) * 1000;
            let due_at = will.due_at.unwrap_or(now + delay_ms);
            session.will = Some(Box::new(Will {
                message: bodies.message(&will.body, &mut self.scratch),
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
                due_at: Some(due_at),
            }));
            self.timers.arm(due_at, Timer::Session(me));
        }
        self.timers.arm(ends_at, Timer::Session(me));
        if kept.ends_at.is_none() {
            self.journal.write(&session.detached_line());
        }
        let slot = self.sessions.add(session);
        debug_assert_eq!(slot, me.slot);
        self.counters.sessions_now += 1;
        self.restore_subscriptions(me, kept);
    }

    fn restore_subscriptions(&mut self, me: SessionRef, kept: &KeptSession) {
        for (filter, subscription) in &kept.filters {
            if share(filter).is_some() {
                let member = Member {
                    shard: self.place.index,
                    session: me,
                    qos: subscription.qos,
                    id: subscription.id,
                    retain_as_published: subscription.retain_as_published,
                    online: false,
                };
                self.join_group(me.slot, filter, member);
            } else {
                let entry = Entry::Session(Subscription {
                    session: me.slot,
                    id: subscription.id,
                    qos: subscription.qos,
                    no_local: subscription.no_local,
                    retain_as_published: subscription.retain_as_published,
                });
                let tree = &mut self.routes.tree;
                let inserted = tree.insert(kept.tenant, filter, entry, |_| false);
                if let Some(found) = self.sessions.get_mut(me.slot) {
                    found.filters.insert(inserted.filter);
                }
                self.restore_interest(inserted.filter);
            }
            self.counters.subscriptions_now += 1;
        }
    }

    fn restore_outbox(
        &mut self,
        kept: &KeptSession,
        group_of: impl Fn(&Option<GroupName>) -> GroupRef,
        bodies: &mut Bodies,
    ) -> Outbox {
        let scratch = &mut self.scratch;
        let mut flight = |flight: &KeptFlight| {
            let item = flight.item.as_ref();
            let copy = Flight {
                message: item.map(|item| bodies.message(&item.body, scratch)),
                ids: item.and_then(|item| ids_of(&item.ids)),
                group: item.map_or(NO_GROUP, |item| group_of(&item.share)),
                retain: item.is_some_and(|item| item.retain),
                held_until: SENT,
            };
            (flight.phase, copy)
        };
        let flights = Flights::restored(kept.first, kept.flights.iter().map(&mut flight));
        let mut order = 0_u32;
        let mut item = |item: &KeptItem| {
            order = order.wrapping_add(1);
            Item {
                message: bodies.message(&item.body, scratch),
                ids: ids_of(&item.ids),
                group: group_of(&item.share),
                qos: item.qos,
                retain: item.retain,
                order,
                entry: item.entry,
                whole: Whole::NONE,
            }
        };
        let waiting = kept.waiting.iter().map(&mut item).collect();
        Outbox::restored(flights, waiting, kept.entered)
    }

    fn restore_retained(&mut self, kept: &Kept, bodies: &mut Bodies) {
        for ((tenant, topic), body) in &kept.retained {
            if self.retained_home(*tenant, topic) == self.place.index {
                let message = bodies.message(body, &mut self.scratch);
                let bytes = message.bytes();
                self.retained.set(*tenant, topic, message, bytes);
            }
        }
        self.counters.retained_now = self.retained.len() as u64;
        self.counters.retained_bytes_now = self.retained.bytes() as u64;
    }
}

fn key_of(kept: &KeptSession) -> SessionKey {
    SessionKey {
        tenant: kept.tenant,
        realm: kept.realm.clone(),
        name: kept.name.clone(),
        client_id: kept.client_id.clone(),
    }
}

fn ids_of(ids: &[u32]) -> Ids {
    (!ids.is_empty()).then(|| Rc::new(ids.to_vec()))
}
