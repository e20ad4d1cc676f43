//! Retained messages: what the store may hold, and what it must.

use std::collections::BTreeSet;

use casemate_codec::QoS;
use casemate_engine::Millis;

use super::session::SLACK_MS;
use super::{Author, Fate, Message, Oracle, Wish};
use crate::law::Answer;
use crate::topic;

/// What may be retained for one topic; 0 stands for nothing.
pub type Candidates = BTreeSet<u64>;

impl Oracle {
    /// What may stand in the retained store for a topic.
    pub fn retained_candidates(&self, tenant: u32, topic: &str, now: Millis) -> Candidates {
        let mut candidates = Candidates::new();
        let Some(serials) = self.retained.get(&(tenant, topic.to_owned())) else {
            return Candidates::from([0]);
        };
        let is_told = self.plan.has_one_shard();
        let mut messages: Vec<(&Message, Answer, bool)> = Vec::new();
        for message in serials.iter().filter_map(|serial| self.message(*serial)) {
            let answer = self.may_publish(message, now);
            if message.fate != Fate::Refused && answer != Answer::Never {
                let sure = message.fate == Fate::Accepted
                    && answer == Answer::Always
                    && !self.may_be_lost(message);
                messages.push((message, answer, sure));
            }
        }
        for (message, answer, _) in &messages {
            let replaced = |(later, _, sure): &(&Message, Answer, bool)| {
                *sure && supersedes(later, message, *answer, is_told)
            };
            if messages.iter().any(replaced) {
                continue;
            }
            if message.is_empty() || may_have_expired(message, now) {
                candidates.insert(0);
            }
            if !message.is_empty() && !has_expired(message, now) {
                candidates.insert(message.serial);
            }
        }
        if !messages.iter().any(|(_, _, sure)| *sure) {
            candidates.insert(0);
        }
        candidates
    }

    /// Every topic for which something was to be retained.
    pub fn retained_topics(&self) -> Vec<(u32, String)> {
        self.retained.keys().cloned().collect()
    }

    /// The retained messages that a new subscription must be sent.
    pub(super) fn surely_retained(&self, client: usize, wish: &Wish, now: Millis) -> Vec<u64> {
        let session = &self.sessions[client];
        if wish.share.is_some() {
            return Vec::new();
        }
        let mut surely = Vec::new();
        for (tenant, topic) in self.retained.keys() {
            if *tenant != session.tenant() || !topic::matches(&wish.filter, topic) {
                continue;
            }
            let candidates = self.retained_candidates(*tenant, topic, now);
            let Some(serial) = candidates.first().filter(|_| candidates.len() == 1) else {
                continue;
            };
            let stored = |message: &Message| {
                let told = self.plan.has_one_shard() || message.qos > QoS::AtMostOnce;
                told && message.expiry_s.is_none()
            };
            if self.message(*serial).is_some_and(stored) {
                surely.push(*serial);
            }
        }
        surely
    }
}

/// True where an accepted message has surely taken the place of an earlier one.
///
/// Nobody says when a QoS 0 message has reached the shard that keeps it; and what the law may have
/// refused unheard, and let through when it was sent again, has no place in the order.
fn supersedes(later: &Message, earlier: &Message, law: Answer, is_told: bool) -> bool {
    let told = is_told || earlier.qos > QoS::AtMostOnce;
    let after = told
        && earlier
            .done_at
            .is_some_and(|done_at| done_at < later.sent_at);
    let in_order = later.author == earlier.author
        && later.incarnation == earlier.incarnation
        && matches!(later.author, Author::Client(_) | Author::Broker)
        && later.serial > earlier.serial
        && later.qos == earlier.qos
        && earlier.causes() == 1
        && law == Answer::Always;
    after || in_order
}

/// True where a message may be past its expiry.
fn may_have_expired(message: &Message, now: Millis) -> bool {
    message
        .expiry_s
        .is_some_and(|expiry_s| message.sent_at + Millis::from(expiry_s) * 1_000 <= now + SLACK_MS)
}

/// True where a message surely is past its expiry.
pub(super) fn has_expired(message: &Message, now: Millis) -> bool {
    match (message.expiry_s, message.done_at) {
        (Some(expiry_s), Some(done_at)) => {
            done_at + Millis::from(expiry_s) * 1_000 + SLACK_MS < now
        }
        _ => false,
    }
}
