//! The will: kept with the session, published when its client is lost without a goodbye.

use std::collections::VecDeque;

use crate::door::Millis;
use crate::event::EventKind;
use crate::incoming::expires_at;
use crate::journal::Record;
use crate::message::{Draft, Message};
use crate::policy::Permit;
use crate::shard::Shard;
use crate::timers::Timer;

/// The will of a session.
pub(crate) struct Will {
    pub message: Message,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
    /// When it is published, once the connection is gone.
    pub due_at: Option<Millis>,
}

/// Messages of the broker itself (wills, `$SYS`) that wait for room in a pipe.
pub(crate) struct Own {
    pub tenant: u32,
    pub message: Message,
}

impl Shard {
    /// A connection is gone without goodbye: its will is published now or after its delay, and
    /// with the session at the latest ([MQTT-3.1.2-8], [MQTT-3.1.1 3.1.2-8]).
    pub(crate) fn will_falls_due(&mut self, session: u32) {
        let now = self.now;
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let me = found.me(session);
        // [MQTT-3.1.1 3.1.2-12]
        let Some(will) = &mut found.will else { return };
        let delay_s = will.delay_s.min(found.expiry_s);
        if delay_s == 0 {
            self.publish_will(session);
            return;
        }
        let at = now + u64::from(delay_s) * 1000;
        will.due_at = Some(at);
        self.timers.arm(at, Timer::Session(me));
    }

    /// Publishes the will of a session and removes it ([MQTT-3.1.2-10], [MQTT-3.1.1 3.1.2-10]),
    /// if policy still allows it.
    pub(crate) fn publish_will(&mut self, session: u32) {
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let Some(will) = found.will.take() else {
            return;
        };
        if found.number != 0 {
            let session = found.number;
            self.journal.write(&Record::WillGone { session });
            self.touch_store();
        }
        let Some(found) = self.sessions.get(session) else {
            return;
        };
        let (tenant, publisher) = (found.tenant, found.hash);
        let draft = will.message.draft(tenant);
        let rights = self.policy.publish(&found.subject(), draft.topic);
        if rights.permit(draft.qos, draft.retain).is_none() || draft.topic.starts_with("$SYS/") {
            self.counters.will_denied += 1;
            let topic = draft.topic.into();
            self.tell_session(session, EventKind::WillDenied { topic });
            return;
        }
        // The expiry interval of a will begins when it is published.
        let draft = Draft {
            expires_at: expires_at(self.now, will.expiry_s),
            publisher,
            ..draft
        };
        self.publish_own(&draft);
    }

    /// Publishes for the broker, now or when there is room.
    pub(crate) fn publish_own(&mut self, draft: &Draft<'_>) {
        let route = self.route(draft.tenant, draft.topic);
        if self.own.is_empty() && self.has_room(draft, &route) {
            self.route_message(Permit::for_the_broker(), draft, &route);
            return;
        }
        let message = draft.keep(&mut self.scratch);
        self.own.push_back(Own {
            tenant: draft.tenant,
            message,
        });
    }

    /// Tries again what waited for room.
    pub(crate) fn retry_own(&mut self) {
        let mut waiting: VecDeque<Own> = std::mem::take(&mut self.own);
        while let Some(own) = waiting.pop_front() {
            let draft = own.message.draft(own.tenant);
            let route = self.route(own.tenant, draft.topic);
            if !self.has_room(&draft, &route) {
                waiting.push_front(own);
                break;
            }
            self.route_message(Permit::for_the_broker(), &draft, &route);
        }
        // What was published meanwhile stays behind what waited.
        waiting.append(&mut self.own);
        self.own = waiting;
    }
}
