//! Retained messages: keeping them at their home shard, and walking through them for a subscriber.
//!
//! A replay is a place in the ordered store, not a list of messages, so that it costs the same for
//! one message and for a million. While a session has a replay under way its live messages queue
//! behind it: a retained message never follows a newer live one.

use std::collections::VecDeque;

use casemate_codec::{PacketId, QoS};

use crate::acknowledge::Stake;
use crate::door::ShardIndex;
use crate::event::EventKind;
use crate::journal::{is_said_anew, Record, Whole};
use crate::message::{Draft, Message};
use crate::outbox::{Ids, Item, NO_GROUP};
use crate::retained::Next;
use crate::shard::Shard;

/// Keys that one step of a walk may look at, so that no filter stalls the shard.
pub(crate) const WALK_BUDGET: usize = 1_024;

/// The retained messages of one new subscription, as far as they have not been sent.
pub(crate) struct Replay {
    pub filter: Box<str>,
    pub qos: QoS,
    pub no_local: bool,
    pub ids: Ids,
    /// The shard whose store is being walked.
    pub shard: ShardIndex,
    /// Go on after this topic.
    pub after: Option<Box<str>>,
    /// Messages that a neighbour has sent.
    pub received: VecDeque<Message>,
    /// The neighbour has been asked under this number and has not answered; 0 is no question.
    pub asked: u32,
    /// The neighbour has said that there is no more.
    pub exhausted: bool,
    /// The SUBSCRIBE whose SUBACK must leave first; live messages do not wait for that.
    pub suback: Option<PacketId>,
}

impl Replay {
    /// True where a neighbour must say what comes next, and has not been asked.
    pub fn needs_asking(&self) -> bool {
        self.suback.is_none() && self.asked == 0 && self.received.is_empty() && !self.exhausted
    }
}

/// What a step of a walk found.
enum Step {
    Message(Message),
    /// Look again later: a neighbour must answer, or others have their turn first.
    Later,
    /// This store has no more.
    End,
}

impl Shard {
    /// The shard that keeps the retained message of a topic.
    pub(crate) fn retained_home(&self, tenant: u32, topic: &str) -> ShardIndex {
        if self.place.count == 1 {
            return 0;
        }
        ((self.hasher.hash_one((tenant, topic)) >> 32) % u64::from(self.place.count)) as ShardIndex
    }

    /// Keeps, replaces or removes a retained message where this shard is its home.
    pub(crate) fn retain_here(&mut self, draft: &Draft<'_>) -> Stake {
        if self.retained_home(draft.tenant, draft.topic) != self.place.index {
            return Stake::default();
        }
        if draft.payload.is_empty() {
            // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.1.1 3.3.1-10] [MQTT-3.1.1 3.3.1-11]
            self.retained.remove(draft.tenant, draft.topic);
            if !is_said_anew(draft.topic) {
                self.journal.write(&Record::Forgotten {
                    tenant: draft.tenant,
                    topic: draft.topic,
                });
            }
        } else {
            let known = self
                .retained
                .get(draft.tenant, draft.topic)
                .map_or(0, Message::bytes);
            let full = known == 0 && self.retained.len() >= self.settings.retained_max
                || self.retained.bytes() - known + draft.bytes() > self.settings.retained_bytes_max;
            if full {
                self.counters.limit_refusals += 1;
                self.tell_nobody(EventKind::LimitReached {
                    what: "retained_max",
                });
                return Stake::default();
            }
            let message = draft.keep(&mut self.scratch);
            let bytes = message.bytes();
            // [MQTT-3.3.1-5] [MQTT-3.1.1 3.3.1-5] [MQTT-3.1.1 3.3.1-7] The newest, at any QoS.
            self.retained.set(draft.tenant, draft.topic, message, bytes);
            self.journal.write_retained(*draft);
        }
        self.counters.retained_now = self.retained.len() as u64;
        self.counters.retained_bytes_now = self.retained.bytes() as u64;
        if is_said_anew(draft.topic) {
            Stake::default()
        } else {
            self.touch_store()
        }
    }

    /// Puts a replay in line.
    pub(crate) fn await_replay(&mut self, session: u32, replay: Replay) {
        if let Some(found) = self.sessions.get_mut(session) {
            // The same filter anew starts anew; so there are never more than subscriptions.
            found.replays.retain(|other| other.filter != replay.filter);
            found.replays.push_back(replay);
        }
    }

    /// Starts the replays of a SUBSCRIBE, once its SUBACK has left.
    pub(crate) fn begin_replays(&mut self, slot: u32, suback: PacketId) {
        let session = self.connection(slot).and_then(|found| found.session());
        let Some(found) = session.and_then(|session| self.sessions.get_mut(session)) else {
            return;
        };
        for replay in found.replays.iter_mut() {
            if replay.suback == Some(suback) {
                replay.suback = None;
            }
        }
        self.pump_later(slot);
    }

    /// Where a replay begins: at the topic's home for a plain filter, else at the first shard.
    pub(crate) fn new_replay(
        &self,
        tenant: u32,
        filter: &str,
        qos: QoS,
        suback: PacketId,
    ) -> Replay {
        let shard = match is_plain(filter) {
            true => self.retained_home(tenant, filter),
            false => 0,
        };
        Replay {
            filter: filter.into(),
            qos,
            no_local: false,
            ids: None,
            shard,
            after: None,
            received: VecDeque::new(),
            asked: 0,
            exhausted: false,
            suback: Some(suback),
        }
    }

    /// Sends the next retained message of a session; false where it must wait.
    pub(crate) fn replay_one(&mut self, slot: u32, session: u32, has_quota: bool) -> bool {
        let Some(found) = self.sessions.get(session) else {
            return false;
        };
        let Some(replay) = found.replays.front() else {
            return false;
        };
        let (qos, no_local) = (replay.qos, replay.no_local);
        if qos > QoS::AtMostOnce && !has_quota {
            return false;
        }
        match self.replay_step(session) {
            Step::Later => false,
            Step::End => {
                self.next_store(session);
                true
            }
            Step::Message(message) => {
                let Some(found) = self.sessions.get(session) else {
                    return false;
                };
                let draft = message.draft(found.tenant);
                if no_local && draft.publisher == found.hash {
                    return true;
                }
                let ids = found.replays.front().and_then(|replay| replay.ids.clone());
                let qos = qos.min(draft.qos);
                // [MQTT-3.3.1-9] [MQTT-3.1.1 3.3.1-8] To a new subscription it is retained.
                let item = Item {
                    message,
                    ids,
                    group: NO_GROUP,
                    qos,
                    retain: true,
                    order: 0,
                    entry: 0,
                    whole: Whole::NONE,
                };
                self.send_item(slot, session, item);
                true
            }
        }
    }

    /// Takes one message out of the store that the first replay of a session walks through.
    fn replay_step(&mut self, session: u32) -> Step {
        let (me, now) = (self.place.index, self.now);
        let Shard {
            sessions,
            retained,
            journal,
            ..
        } = self;
        let Some(found) = sessions.get_mut(session) else {
            return Step::Later;
        };
        let tenant = found.tenant;
        let Some(replay) = found.replays.front_mut() else {
            return Step::Later;
        };
        if replay.shard != me {
            if let Some(message) = replay.received.pop_front() {
                return Step::Message(message);
            }
            if replay.exhausted {
                return Step::End;
            }
            if replay.needs_asking() {
                self.ask_retained(session);
            }
            return Step::Later;
        }
        let mut budget = WALK_BUDGET;
        loop {
            match retained.next(tenant, &replay.filter, replay.after.as_deref(), &mut budget) {
                Next::Found { topic, message } => {
                    replay.after = Some(topic.into());
                    let message = message.clone();
                    if !message.draft(tenant).is_expired(now) {
                        return Step::Message(message);
                    }
                    let topic: Box<str> = topic.into();
                    retained.remove(tenant, &topic);
                    let topic = &*topic;
                    journal.write(&Record::Forgotten { tenant, topic });
                }
                Next::Pause { after } => {
                    replay.after = Some(after.into());
                    if let Some(link) = found.link {
                        self.pump_next_turn.push(link);
                    }
                    return Step::Later;
                }
                Next::End => return Step::End,
            }
        }
    }

    /// One store is done: on to the next shard, or the replay is over.
    fn next_store(&mut self, session: u32) {
        let count = self.place.count;
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let Some(replay) = found.replays.front_mut() else {
            return;
        };
        if is_plain(&replay.filter) || replay.shard + 1 >= count {
            found.replays.pop_front();
            if found.replays.is_empty() {
                // There may be none for the rest of a long life.
                found.replays.clear();
            }
            return;
        }
        replay.shard += 1;
        replay.after = None;
        replay.asked = 0;
        replay.exhausted = false;
    }

    /// The messages that a neighbour asked for: from its place on, up to about `bytes_max`.
    /// Returns the place to go on from, or none at the end.
    pub(crate) fn walk_for_neighbour(
        &mut self,
        tenant: u32,
        filter: &str,
        after: Option<&str>,
        bytes_max: usize,
        messages: &mut Vec<Message>,
    ) -> Option<Box<str>> {
        let mut budget = WALK_BUDGET;
        let mut place: Option<Box<str>> = after.map(Box::from);
        let mut bytes = 0;
        loop {
            match self
                .retained
                .next(tenant, filter, place.as_deref(), &mut budget)
            {
                Next::Found { topic, message } => {
                    let next: Box<str> = topic.into();
                    if !message.draft(tenant).is_expired(self.now) {
                        bytes += message.bytes();
                        messages.push(message.clone());
                    }
                    place = Some(next);
                    if bytes >= bytes_max {
                        return place;
                    }
                }
                Next::Pause { after } => return Some(after.into()),
                Next::End => return None,
            }
        }
    }
}

/// A filter without wildcards is a topic.
pub(crate) fn is_plain(filter: &str) -> bool {
    memchr::memchr2(b'+', b'#', filter.as_bytes()).is_none()
}
