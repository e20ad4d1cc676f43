//! Shared subscriptions: each group has one home shard, which picks the member for each message.

use casemate_codec::{share, QoS};

use crate::acknowledge::Stake;
use crate::deliver::{Recipient, Spread};
use crate::door::ShardIndex;
use crate::journal::{Journal, Record};
use crate::message::Draft;
use crate::outbox::{GroupRef, Item};
use crate::route::Entry;
use crate::session::SessionRef;
use crate::shard::Shard;

/// One subscriber of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub shard: ShardIndex,
    pub session: SessionRef,
    pub qos: QoS,
    pub id: u32,
    pub retain_as_published: bool,
    pub online: bool,
}

/// What happened to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum MemberChange {
    /// Subscribed, or subscribed anew with other options, or came or went online.
    Is = 0,
    /// Unsubscribed, or its session ended.
    Left = 1,
}

impl MemberChange {
    pub fn from_byte(byte: u8) -> Option<MemberChange> {
        match byte {
            0 => Some(MemberChange::Is),
            1 => Some(MemberChange::Left),
            _ => None,
        }
    }
}

/// A group at its home.
pub(crate) struct Group {
    serial: u32,
    tenant: u32,
    name: Box<str>,
    filter: Box<str>,
    members: Vec<Member>,
    /// Where the next pick begins.
    next: usize,
}

/// All groups whose home this shard is.
#[derive(Default)]
pub(crate) struct Groups {
    slots: Vec<Option<Group>>,
    free: Vec<u32>,
    serial: u32,
}

/// Bits of a packed reference: 6 of the home, 26 of the serial, 32 of the slot.
const SERIALS: u32 = (1 << 26) - 1;

impl GroupRef {
    pub fn new(home: ShardIndex, slot: u32, serial: u32) -> GroupRef {
        let serial = u64::from(serial & SERIALS);
        GroupRef(u64::from(home) << 58 | serial << 32 | u64::from(slot))
    }

    pub fn home(self) -> ShardIndex {
        (self.0 >> 58) as ShardIndex
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }

    pub fn serial(self) -> u32 {
        (self.0 >> 32) as u32 & SERIALS
    }
}

impl Groups {
    /// All serials up to this one have been given before.
    pub fn go_on_from(&mut self, serial: u32) {
        self.serial = serial;
    }

    /// Writes what each group is called.
    pub fn dump(&self, home: ShardIndex, journal: &mut Journal) {
        for (slot, group) in self.slots.iter().enumerate() {
            if let Some(group) = group {
                // Cannot truncate: slots are numbered with 32 bits.
                journal.write(&group.record(GroupRef::new(home, slot as u32, group.serial)));
            }
        }
    }

    fn get_mut(&mut self, slot: u32) -> Option<&mut Group> {
        self.slots.get_mut(slot as usize)?.as_mut()
    }

    fn add(&mut self, mut group: Group) -> u32 {
        self.serial = (self.serial + 1) & SERIALS;
        group.serial = self.serial;
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        if slot as usize == self.slots.len() {
            self.slots.push(None);
        }
        self.slots[slot as usize] = Some(group);
        slot
    }

    fn remove(&mut self, slot: u32) {
        self.slots[slot as usize] = None;
        self.free.push(slot);
    }
}

impl Group {
    fn record(&self, group: GroupRef) -> Record<'_> {
        Record::Group {
            group,
            tenant: self.tenant,
            name: &self.name,
            filter: &self.filter,
        }
    }
}

impl Shard {
    /// The home of a group.
    pub(crate) fn group_home(&self, tenant: u32, name: &str, filter: &str) -> ShardIndex {
        let hash = self.hasher.hash_one((tenant, name, filter));
        ((hash >> 32) % u64::from(self.place.count)) as ShardIndex
    }

    /// Tells a group's home, which may be here, about a session of this shard.
    pub(crate) fn share_member(
        &mut self,
        tenant: u32,
        (name, filter): (&str, &str),
        change: MemberChange,
        mut member: Member,
    ) -> Stake {
        member.shard = self.place.index;
        let home = self.group_home(tenant, name, filter);
        if home == self.place.index {
            self.change_member(tenant, (name, filter), change, member)
        } else {
            self.tell_member(home, tenant, (name, filter), change, &member)
        }
    }

    /// Changes a group that is at home here; the first member brings the interest of its filter.
    pub(crate) fn change_member(
        &mut self,
        tenant: u32,
        (name, filter): (&str, &str),
        change: MemberChange,
        member: Member,
    ) -> Stake {
        let mut found = None;
        for entry in self.routes.tree.get(tenant, filter) {
            if let Entry::Group(slot) = entry {
                let group = self
                    .groups
                    .slots
                    .get(*slot as usize)
                    .and_then(Option::as_ref);
                if group.is_some_and(|group| *group.name == *name) {
                    found = Some(*slot);
                }
            }
        }
        match (found, change) {
            (Some(slot), MemberChange::Is) => {
                let Some(group) = self.groups.get_mut(slot) else {
                    return Stake::default();
                };
                match group
                    .members
                    .iter_mut()
                    .find(|other| is_same(other, &member))
                {
                    Some(known) => *known = member,
                    None => group.members.push(member),
                }
                Stake::default()
            }
            (None, MemberChange::Is) => {
                let members = vec![member];
                let (name, text) = (name.into(), filter.into());
                let group = Group {
                    serial: 0,
                    tenant,
                    name,
                    filter: text,
                    members,
                    next: 0,
                };
                let slot = self.groups.add(group);
                let tree = &mut self.routes.tree;
                let inserted = tree.insert(tenant, filter, Entry::Group(slot), |_| false);
                self.routes.touch(tenant, filter);
                let told = self.interest_up(tenant, inserted.filter, filter);
                told.and(self.note_group(slot))
            }
            (Some(slot), MemberChange::Left) => self.member_left(slot, &member),
            (None, MemberChange::Left) => Stake::default(),
        }
    }

    /// Writes down what a new group is called, so that its members' entries can name it.
    pub(crate) fn note_group(&mut self, slot: u32) -> Stake {
        let home = self.place.index;
        if !self.journal.is_kept() {
            return Stake::default();
        }
        let Some(group) = self
            .groups
            .slots
            .get(slot as usize)
            .and_then(Option::as_ref)
        else {
            return Stake::default();
        };
        self.journal
            .write(&group.record(GroupRef::new(home, slot, group.serial)));
        self.touch_store()
    }

    /// Makes a group again after a restart.
    pub(crate) fn restore_group(
        &mut self,
        (tenant, name, filter): (u32, &str, &str),
        members: Vec<Member>,
    ) -> GroupRef {
        let slot = self.groups.add(Group {
            serial: 0,
            tenant,
            name: name.into(),
            filter: filter.into(),
            members,
            next: 0,
        });
        let tree = &mut self.routes.tree;
        let inserted = tree.insert(tenant, filter, Entry::Group(slot), |_| false);
        self.restore_interest(inserted.filter);
        self.note_group(slot);
        GroupRef::new(self.place.index, slot, self.groups.serial)
    }

    fn member_left(&mut self, slot: u32, member: &Member) -> Stake {
        let Some(group) = self.groups.get_mut(slot) else {
            return Stake::default();
        };
        group.members.retain(|other| !is_same(other, member));
        if !group.members.is_empty() {
            return Stake::default();
        }
        let (tenant, filter) = (group.tenant, group.filter.clone());
        let group = GroupRef::new(self.place.index, slot, group.serial);
        self.journal.write(&Record::GroupGone { group });
        self.groups.remove(slot);
        let Some(known) = self.routes.tree.find(tenant, &filter) else {
            return Stake::default();
        };
        let told = self.interest_down(tenant, known, &filter);
        self.routes
            .tree
            .remove_at(known, |entry| *entry == Entry::Group(slot));
        self.routes.touch(tenant, &filter);
        told
    }

    /// Gives a message to one member of a group at home here.
    pub(crate) fn deliver_to_group(
        &mut self,
        draft: &Draft<'_>,
        slot: u32,
        _spread: &mut Spread<'_>,
    ) -> Stake {
        self.dispatch(slot, draft, 0)
    }

    /// Picks a member, next in turn, and gives it the message; goes on to the next where one is
    /// gone or may not have it.
    fn dispatch(&mut self, slot: u32, draft: &Draft<'_>, attempts: u8) -> Stake {
        let home = self.place.index;
        let mut attempts = usize::from(attempts);
        while let Some(group) = self.groups.get_mut(slot) {
            let reference = GroupRef::new(home, slot, group.serial);
            let members = group.members.len();
            if attempts >= members {
                break;
            }
            let from = group.next;
            let turn = (0..members).map(|step| (from + step) % members);
            let online = turn.clone().find(|index| group.members[*index].online);
            // Nobody is there: a session that is kept may have it later, but for QoS 0.
            let waiting = turn.clone().next().filter(|_| draft.qos > QoS::AtMostOnce);
            let Some(index) = online.or(waiting) else {
                break;
            };
            group.next = index + 1;
            let member = group.members[index];
            if member.shard != home {
                return self.send_share(&member, reference, attempts as u8, draft);
            }
            if let Some(stake) = self.deliver_to_member(&member, reference, draft) {
                return stake;
            }
            attempts += 1;
        }
        self.counters.dropped_unshared += 1;
        Stake::default()
    }

    /// Gives a group's message to a member of this shard; nothing where it is gone or not allowed.
    pub(crate) fn deliver_to_member(
        &mut self,
        member: &Member,
        group: GroupRef,
        draft: &Draft<'_>,
    ) -> Option<Stake> {
        let slot = self.sessions.resolve(member.session)?;
        let session = self.sessions.get(slot)?;
        let permit = self.policy.receive(&session.subject(), draft.topic)?;
        let ids = (member.id != 0).then(|| std::rc::Rc::new(vec![member.id]));
        // [MQTT-4.8.2-3]
        let qos = draft.qos.min(member.qos).min(permit.qos_max);
        let to = Recipient {
            session: slot,
            qos,
            retain: member.retain_as_published && draft.retain,
            ids: &ids,
            group,
        };
        let durable = self.deliver(draft, &to, &mut Spread::new(false, None));
        Some(if durable {
            self.touch_store()
        } else {
            Stake::default()
        })
    }

    /// A member could not take a message: another one may.
    pub(crate) fn share_returned(
        &mut self,
        group: GroupRef,
        attempts: u8,
        draft: &Draft<'_>,
    ) -> Stake {
        let slot = group.slot();
        let known = self
            .groups
            .get_mut(slot)
            .is_some_and(|found| found.serial == group.serial());
        if known {
            self.dispatch(slot, draft, attempts)
        } else {
            self.counters.dropped_unshared += 1;
            Stake::default()
        }
    }

    /// A session ended: what share groups gave it and it has not had goes to others.
    pub(crate) fn redistribute(&mut self, tenant: u32, items: Vec<Item>) {
        for item in items {
            let draft = item.message.draft(tenant);
            if draft.is_expired(self.now) {
                continue;
            }
            if item.group.home() == self.place.index {
                self.share_returned(item.group, 0, &draft);
            } else {
                self.return_share(item.group, 0, &draft);
            }
        }
    }

    /// Tells the groups of a session whether it is there.
    pub(crate) fn tell_groups(&mut self, session: u32, online: bool) {
        let Some(found) = self.sessions.get(session) else {
            return;
        };
        let (tenant, me) = (found.tenant, found.me(session));
        for (filter, member) in found.filters.shared().to_vec() {
            let Some(parts) = share(&filter) else {
                continue;
            };
            let member = Member {
                session: me,
                online,
                ..member
            };
            self.share_member(tenant, (parts.name, parts.filter), MemberChange::Is, member);
        }
    }
}

fn is_same(one: &Member, other: &Member) -> bool {
    one.shard == other.shard && one.session == other.session
}
