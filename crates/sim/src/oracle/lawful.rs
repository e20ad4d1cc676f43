//! Lawful: what the law said about a delivery, both when it was sent and when it was written.

use casemate_engine::Millis;

use super::message::{Author, Fate, Message};
use super::will::WillFate;
use super::{Delivery, Oracle};
use crate::history::{ensure, Invariant, Violation};
use crate::law::Answer;
use crate::shell::Link;

impl Oracle {
    /// A message that was refused, or a will before its time, must not arrive.
    pub(super) fn check_fate(
        &self,
        now: Millis,
        links: &[Link],
        message: &Message,
    ) -> Result<(), Violation> {
        let serial = message.serial;
        if let (Author::Will(client), Some(will)) = (message.author, self.will(serial)) {
            let from = match self.will_fate(will, links) {
                WillFate::NotYet | WillFate::Never => Millis::MAX,
                WillFate::Must { from, .. } | WillFate::May { from } => from,
            };
            ensure!(
                from <= now,
                Will,
                "the will {serial} of client {client} was published"
            );
            return Ok(());
        }
        ensure!(
            message.fate != Fate::Refused,
            Denied,
            "message {serial} to {} was refused and delivered",
            message.topic
        );
        Ok(())
    }

    /// Both ends of the way must be allowed.
    pub(super) fn check_law(
        &self,
        now: Millis,
        links: &[Link],
        message: &Message,
        delivery: &Delivery,
    ) -> Result<(), Violation> {
        let session = &self.sessions[delivery.client];
        let start = session.link.map_or(0, |(_, sent_at)| sent_at);
        let window = (
            start.max(message.sent_at).min(delivery.left_at),
            delivery.left_at,
        );
        ensure!(
            self.law.receive(&session.asker, &message.topic, window) != Answer::Never,
            Denied,
            "client {} got message {} to {}, which it must not see",
            delivery.client,
            message.serial,
            message.topic
        );
        self.check_law_then(delivery)?;
        ensure!(
            self.may_have_been_published(now, links, message) != Answer::Never,
            Denied,
            "message {} to {} was delivered, its author must not send there",
            message.serial,
            message.topic
        );
        Ok(())
    }

    /// What may be received, and with which QoS, is decided when a message enters the window,
    /// however long it was queued or retained before; a QoS that was sent once stays.
    pub(super) fn check_law_then(&self, delivery: &Delivery) -> Result<(), Violation> {
        let Some(at) = delivery.formed_at else {
            return Ok(());
        };
        let asker = &self.sessions[delivery.client].asker;
        let (client, topic) = (delivery.client, &delivery.topic);
        let caps = self.law.receive_caps(asker, topic, (at, at));
        let Some(most) = caps.iter().max() else {
            let words = format!("client {client} got a message to {topic}, denied at {at} ms");
            return Err(Violation::new(Invariant::Denied, words));
        };
        ensure!(
            delivery.dup || delivery.qos <= *most,
            Integrity,
            "client {client} got a message to {topic} with {:?}, the law gave {most:?} at {at} ms",
            delivery.qos
        );
        Ok(())
    }

    /// What the law says about publishing a message that has arrived; a will is judged when it is
    /// used, not when it is left.
    fn may_have_been_published(&self, now: Millis, links: &[Link], message: &Message) -> Answer {
        let will = self.will(message.serial);
        let (Author::Will(client), Some(will)) = (message.author, will) else {
            return self.may_publish(message, now);
        };
        let (WillFate::Must { from, .. } | WillFate::May { from }) = self.will_fate(will, links)
        else {
            return Answer::Never;
        };
        let what = (message.topic.as_str(), message.qos, message.retain);
        self.law
            .publish(&self.sessions[client].asker, what, (from.min(now), now))
    }
}
