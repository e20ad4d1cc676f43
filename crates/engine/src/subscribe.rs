//! SUBSCRIBE and UNSUBSCRIBE: who may hear what, and when that is true everywhere.

use std::rc::Rc;

use casemate_codec::{
    encode, share, Codes, Packet, PacketId, QoS, Reason, RetainHandling, Suback, Subscribe,
    SubscribeFilter, Unsuback, Unsubscribe, UserProperties, Version,
};

use crate::acknowledge::{Gate, Stake};
use crate::connection::Flow;
use crate::event::EventKind;
use crate::incoming::levels;
use crate::journal::{Record, SubscriptionLine};
use crate::route::{Entry, Subscription};
use crate::session::{Session, SessionRef};
use crate::shard::Shard;
use crate::share::{Member, MemberChange};
use crate::tree::FilterId;

/// Room in each pipe that a SUBSCRIBE needs to tell its filters to the neighbours, bytes.
const INTEREST_HEAD_BYTES: usize = 64;

/// How many sessions and groups of this shard stand at a filter, and what told the neighbours.
pub(crate) struct Interest {
    count: u32,
    told: Stake,
}

impl Shard {
    /// Handles one SUBSCRIBE as if each filter came alone.
    pub(crate) fn subscribe_received(&mut self, slot: u32, packet: &Subscribe<'_>) -> Flow {
        let Some(session) = self.connection(slot).and_then(|found| found.session()) else {
            return Flow::Stop;
        };
        let bytes: usize = packet
            .filters
            .iter()
            .map(|line| line.filter.len() + INTEREST_HEAD_BYTES)
            .sum();
        if !self.pipes_have_room(bytes) {
            return Flow::Blocked;
        }
        let id = packet.subscription_id.map_or(0, |id| id.get());
        let mut codes = Vec::with_capacity(packet.filters.len());
        let mut stake = Stake::default();
        // [MQTT-3.8.4-5] [MQTT-3.1.1 3.8.4-4]
        for line in packet.filters.iter() {
            let granted = self.subscribe_one(slot, session, &line, id, packet.packet_id);
            codes.push(match granted {
                Ok((qos, needs)) => {
                    stake = stake.and(needs);
                    granted_code(qos)
                }
                Err(reason) => reason,
            });
        }
        self.answer_subscribe(slot, packet, &mut codes, stake);
        Flow::Continue
    }

    /// Answers with one code for each filter, in order.
    fn answer_subscribe(
        &mut self,
        slot: u32,
        packet: &Subscribe<'_>,
        codes: &mut [Reason],
        stake: Stake,
    ) {
        let Some(connection) = self.connection(slot) else {
            return;
        };
        let (version, max) = (connection.version, connection.packet_bytes_max);
        if version != Version::V5 {
            for code in codes.iter_mut().filter(|code| code.is_refusal()) {
                *code = Reason::UnspecifiedError;
            }
        }
        let words = self.words_for(slot, codes);
        let suback = Packet::Suback(Suback {
            // [MQTT-2.2.1-6] [MQTT-3.1.1 2.3.1-7]
            // [MQTT-3.8.4-2] [MQTT-3.1.1 3.8.4-2]
            packet_id: packet.packet_id,
            reason_string: words,
            user: UserProperties::default(),
            // [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1] [MQTT-3.9.3-2] [MQTT-3.1.1 3.8.4-5]
            // [MQTT-3.1.1 3.9.3-1] [MQTT-3.1.1 3.9.3-2]
            codes: Codes::List(codes),
        });
        let mut bytes = Vec::new();
        if encode(version, &suback, max, &mut bytes).is_err() {
            // The client allows no answer to what it asked for.
            self.refuse(slot, Reason::PacketTooLarge);
            return;
        }
        // [MQTT-3.8.4-1] [MQTT-3.1.1 3.8.4-1]
        self.acknowledge(
            slot,
            stake,
            Gate::Suback {
                bytes: bytes.into(),
                id: packet.packet_id,
            },
        );
    }

    fn subscribe_one(
        &mut self,
        slot: u32,
        session: u32,
        line: &SubscribeFilter<'_>,
        id: u32,
        suback: PacketId,
    ) -> Result<(QoS, Stake), Reason> {
        let shared = share(line.filter);
        let filter = shared.as_ref().map_or(line.filter, |shared| shared.filter);
        if levels(filter) > self.settings.topic_levels_max {
            self.limit_reached(slot, "topic_levels_max");
            return Err(Reason::TopicFilterInvalid);
        }
        let found = self.sessions.get(session).ok_or(Reason::UnspecifiedError)?;
        let is_new = !self.has_subscribed(found, line.filter);
        let Some(right) = self.policy.subscribe(&found.subject(), filter) else {
            self.counters.subscribe_denied += 1;
            let filter = line.filter.into();
            self.tell(slot, EventKind::SubscribeDenied { filter });
            return Err(Reason::NotAuthorized);
        };
        if is_new && found.filters.len() >= self.settings.subscriptions_per_session_max {
            self.limit_reached(slot, "subscriptions_per_session_max");
            return Err(Reason::QuotaExceeded);
        }
        if self.journal.is_ailing && found.is_durable() {
            self.counters.limit_refusals += 1;
            return Err(Reason::QuotaExceeded);
        }
        let tenant = found.tenant;
        let me = found.me(session);
        let qos = line.qos.min(right.qos_max);
        let mut stake = match &shared {
            Some(shared) => {
                let member = Member {
                    shard: self.place.index,
                    session: me,
                    qos,
                    id,
                    retain_as_published: line.retain_as_published,
                    online: true,
                };
                self.join_group(session, line.filter, member);
                let group = (shared.name, shared.filter);
                self.share_member(tenant, group, MemberChange::Is, member)
            }
            None => self.put_subscription(tenant, session, line, qos, id, is_new),
        };
        self.counters.subscriptions_now += u64::from(is_new);
        stake = stake.and(self.note_subscribed(session, line, qos, id));
        // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.1.1 3.3.1-6]
        let wanted = match line.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => is_new,
            RetainHandling::Never => false,
        };
        if wanted && shared.is_none() {
            let mut replay = self.new_replay(tenant, filter, qos, suback);
            replay.no_local = line.no_local;
            replay.ids = (id != 0).then(|| Rc::new(vec![id]));
            self.await_replay(session, replay);
        }
        Ok((qos, stake))
    }

    /// True where a session has this filter already, perhaps with other options.
    fn has_subscribed(&self, session: &Session, filter: &str) -> bool {
        if share(filter).is_some() {
            return session.filters.membership(filter).is_some();
        }
        let known = self.routes.tree.find(session.tenant, filter);
        known.is_some_and(|known| session.filters.contains(known))
    }

    /// Writes a subscription of a lasting session down.
    fn note_subscribed(
        &mut self,
        session: u32,
        line: &SubscribeFilter<'_>,
        qos: QoS,
        id: u32,
    ) -> Stake {
        let Some(found) = self.sessions.get(session) else {
            return Stake::default();
        };
        let (number, is_durable) = (found.number, found.is_durable());
        if number != 0 {
            self.journal.write(&Record::Subscribed(SubscriptionLine {
                session: number,
                filter: line.filter,
                qos,
                no_local: line.no_local,
                retain_as_published: line.retain_as_published,
                id,
            }));
        }
        match is_durable {
            true => self.touch_store(),
            false => Stake::default(),
        }
    }

    /// Adds or replaces a subscription.
    fn put_subscription(
        &mut self,
        tenant: u32,
        session: u32,
        line: &SubscribeFilter<'_>,
        qos: QoS,
        id: u32,
        is_new: bool,
    ) -> Stake {
        let subscription = Subscription {
            session,
            id,
            qos,
            no_local: line.no_local,
            retain_as_published: line.retain_as_published,
        };
        let entry = Entry::Session(subscription);
        let tree = &mut self.routes.tree;
        let inserted = if is_new {
            // No look for an older entry: a crowd on one filter must not cost its square.
            tree.insert(tenant, line.filter, entry, |_| false)
        } else {
            // [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.1.1 3.8.4-3] In one step, so that no message
            // finds neither; the session's queue is not touched.
            tree.insert(tenant, line.filter, entry, |other| is_of(other, session))
        };
        self.routes.touch(tenant, line.filter);
        if is_new {
            if let Some(found) = self.sessions.get_mut(session) {
                found.filters.insert(inserted.filter);
            }
            self.interest_up(tenant, inserted.filter, line.filter)
        } else {
            // Another SUBSCRIBE may still wait for the neighbours to know this filter.
            self.interest_told(inserted.filter)
        }
    }

    pub(crate) fn join_group(&mut self, session: u32, filter: &str, member: Member) {
        if let Some(found) = self.sessions.get_mut(session) {
            found.filters.join(filter, member);
        }
    }

    /// Handles one UNSUBSCRIBE: filters are compared as they are. What is on its way is completed.
    pub(crate) fn unsubscribe_received(&mut self, slot: u32, packet: &Unsubscribe<'_>) -> Flow {
        let Some(session) = self.connection(slot).and_then(|found| found.session()) else {
            return Flow::Stop;
        };
        let bytes: usize = packet
            .filters
            .iter()
            .map(|filter| filter.len() + INTEREST_HEAD_BYTES)
            .sum();
        if !self.pipes_have_room(bytes) {
            return Flow::Blocked;
        }
        let mut codes = Vec::with_capacity(packet.filters.len());
        let mut stake = Stake::default();
        // [MQTT-3.10.4-6] [MQTT-3.1.1 3.10.4-6]
        let number = self.sessions.get(session).map_or(0, |found| found.number);
        for filter in packet.filters.iter() {
            codes.push(match self.drop_subscription(session, filter) {
                Some(needs) => {
                    if number != 0 {
                        let session = number;
                        self.journal
                            .write(&Record::Unsubscribed { session, filter });
                    }
                    stake = stake.and(needs);
                    Reason::Success
                }
                None => {
                    if share(filter).is_some() {
                        // An earlier connection may have left the group and never heard so.
                        stake = stake.and(self.all_numbers());
                    }
                    Reason::NoSubscriptionExisted
                }
            });
        }
        let durable = self
            .sessions
            .get(session)
            .is_some_and(|found| found.is_durable());
        if durable {
            stake = stake.and(self.touch_store());
        }
        let Some(connection) = self.connection(slot) else {
            return Flow::Stop;
        };
        let (version, max) = (connection.version, connection.packet_bytes_max);
        let words = self.words_for(slot, &codes);
        let unsuback = Packet::Unsuback(Unsuback {
            // [MQTT-2.2.1-6] [MQTT-3.1.1 2.3.1-7]
            // [MQTT-3.10.4-5] [MQTT-3.1.1 3.10.4-4]
            packet_id: packet.packet_id,
            reason_string: words,
            user: UserProperties::default(),
            // [MQTT-3.11.3-1] [MQTT-3.11.3-2]
            codes: Codes::List(&codes),
        });
        let mut bytes = Vec::new();
        if encode(version, &unsuback, max, &mut bytes).is_err() {
            self.refuse(slot, Reason::PacketTooLarge);
            return Flow::Stop;
        }
        // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.1.1 3.10.4-4] [MQTT-3.1.1 3.10.4-5]
        self.acknowledge(slot, stake, Gate::Unsuback(bytes.into()));
        Flow::Continue
    }

    /// Removes one subscription of a session, and says what its UNSUBACK must wait for; nothing
    /// where there was none.
    pub(crate) fn drop_subscription(&mut self, session: u32, filter: &str) -> Option<Stake> {
        let found = self.sessions.get_mut(session)?;
        let (tenant, me) = (found.tenant, found.me(session));
        let shared = share(filter);
        let known = match &shared {
            Some(_) => None,
            None => Some(self.routes.tree.find(tenant, filter)?),
        };
        // [MQTT-3.10.4-1] [MQTT-3.1.1 3.10.4-1]
        let was_here = match known {
            Some(known) => found.filters.remove(known),
            None => found.filters.leave(filter),
        };
        if !was_here {
            return None;
        }
        // [MQTT-3.10.4-3] [MQTT-3.1.1 3.10.4-3] Only what has not begun ends; the outbox goes on.
        found.replays.retain(|replay| *replay.filter != *filter);
        self.counters.subscriptions_now -= 1;
        let stake = match known {
            None => shared.map_or(Stake::default(), |parts| {
                self.leave_group(tenant, me, (parts.name, parts.filter))
            }),
            Some(known) => {
                self.interest_down(tenant, known, filter);
                // [MQTT-3.10.4-2] [MQTT-3.1.1 3.10.4-2]
                self.routes
                    .tree
                    .remove_at(known, |entry| is_of(entry, session));
                self.routes.touch(tenant, filter);
                Stake::default()
            }
        };
        if let Some(link) = self.sessions.get(session).and_then(|found| found.link) {
            // What waited behind its replay may go on.
            self.pump_later(link);
        }
        Some(stake)
    }

    fn leave_group(&mut self, tenant: u32, session: SessionRef, group: (&str, &str)) -> Stake {
        let shard = self.place.index;
        let member = Member {
            shard,
            session,
            qos: QoS::AtMostOnce,
            id: 0,
            retain_as_published: false,
            online: false,
        };
        // The home may have picked this member until it knows.
        self.share_member(tenant, group, MemberChange::Left, member)
    }

    /// One more here is interested in a filter; the first one is told to the neighbours.
    pub(crate) fn interest_up(&mut self, tenant: u32, id: FilterId, filter: &str) -> Stake {
        if self.place.count == 1 {
            return Stake::default();
        }
        if let Some(interest) = self.interest.get_mut(&id) {
            interest.count += 1;
            return interest.told;
        }
        let told = self.announce_interest(tenant, filter, true);
        self.interest.insert(id, Interest { count: 1, told });
        told
    }

    /// One more here is interested in a filter, which the neighbours learn by themselves.
    pub(crate) fn restore_interest(&mut self, id: FilterId) {
        if self.place.count > 1 {
            let told = Stake::default();
            let interest = self
                .interest
                .entry(id)
                .or_insert(Interest { count: 0, told });
            interest.count += 1;
        }
    }

    /// What a subscription waits for whose filter has been told to the neighbours before.
    fn interest_told(&self, id: FilterId) -> Stake {
        self.interest
            .get(&id)
            .map_or(Stake::default(), |interest| interest.told)
    }

    /// One less here is interested in a filter; said while that one still stands there.
    pub(crate) fn interest_down(&mut self, tenant: u32, id: FilterId, filter: &str) -> Stake {
        let Some(interest) = self.interest.get_mut(&id) else {
            return Stake::default();
        };
        interest.count -= 1;
        if interest.count > 0 {
            return Stake::default();
        }
        self.interest.remove(&id);
        self.announce_interest(tenant, filter, false)
    }
}

fn is_of(entry: &Entry, session: u32) -> bool {
    matches!(entry, Entry::Session(subscription) if subscription.session == session)
}

/// The code that says a granted QoS.
fn granted_code(qos: QoS) -> Reason {
    match qos {
        QoS::AtMostOnce => Reason::Success,
        QoS::AtLeastOnce => Reason::GrantedQoS1,
        QoS::ExactlyOnce => Reason::GrantedQoS2,
    }
}
