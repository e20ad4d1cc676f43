//! What must hold although the process dies, and what need not.
//!
//! A crash is one more way to lose a connection, so that all of the oracle's demands stand: what
//! was acknowledged arrives, in order and as its QoS says; CONNACK, SUBACK, UNSUBACK, PUBACK,
//! PUBREC and PUBCOMP hold for ever; a session is there, a message expired and a will due by the
//! clock, which does not stop. What nobody has been told yet may be or not be. Beyond that a crash
//! excuses exactly this:
//!
//! - QoS 0 is lost, queued or retained; what was retained and under way to a new subscriber too.
//! - A subscriber with QoS 1 gets a message again, once for each crash and once more where its
//!   publisher sends it again, under any identifier, with DUP or without it, and behind later ones
//!   that were there before; who has subscribed since it was sent first may get it only then. One
//!   with QoS 0 gets it again where its publisher sends it again. One with QoS 2 gets it once, in a
//!   session that lasts.
//! - A message that was too large for one connection comes to the next one, behind later ones that
//!   were there before.
//! - A session that ends with its connection is gone, and its will with it.
//! - An end of a connection that was not durable yet counts from the next start, DISCONNECT with
//!   its will and its expiry included. Until then session and will last.
//! - A will whose publication was not durable everywhere is published again, or is lost in part
//!   (docs/decisions/0041-a-journal-of-changes.md).

use std::collections::BTreeSet;

use casemate_codec::QoS;
use casemate_engine::Millis;

use super::session::SLACK_MS;
use super::will::WillFate;
use super::{Carrier, Fate, Message, Oracle, Session};
use crate::shell::{Link, Wreck};

/// How long something that nobody waits for may take until every shard has asked to persist it,
/// ms: a pipe may stand still for almost as long as the slack of a timer, and fill up behind it.
const SPREAD_MS: Millis = 4 * SLACK_MS;

impl Oracle {
    /// The process has died, and each link has been told what that means for its end.
    pub fn crashed(&mut self, wreck: Wreck, links: &[Link]) {
        self.crashes.push(wreck);
        let mut open = BTreeSet::new();
        for message in &mut self.messages {
            // Who sends it again sends it to shards that count anew.
            if message.fate == Fate::Open {
                message.issued = None;
                open.insert(message.serial);
            }
        }
        for session in &mut self.sessions {
            session.home = None;
            let brief = |carrier: &Carrier| is_forgotten(carrier, &links[carrier.link]);
            if session.carriers().iter().any(brief) {
                session.died_at.push(wreck.up_at);
            }
            session.stored.clear();
            // What is sent again comes behind what its author had not sent in vain.
            session
                .order
                .retain(|(.., qos), last| *qos == QoS::ExactlyOnce || !open.contains(last));
            for flight in session.flights.values_mut() {
                flight.answered |= flight.qos == QoS::AtLeastOnce;
            }
        }
        for place in 0..self.wills.len() {
            let will = &self.wills[place];
            let serial = will.serial;
            let link = &links[will.link];
            // Nobody has published the will of a connection that lived until then.
            let lived = link.died && link.process == wreck.process;
            if lived || !may_be_unfinished(self.will_fate(will, links), wreck) {
                continue;
            }
            self.wills[place].is_doubtful = true;
            if let Some(message) = self.message_mut(serial) {
                message.repeats += 1;
            }
        }
    }

    /// How often a message that was sent once may come to a session, where some of its copies come
    /// with less than QoS 2, or where none does.
    pub(super) fn chances(&self, session: &Session, message: &Message, is_loose: bool) -> u32 {
        let since = |at: &&Millis| **at >= message.sent_at;
        let crashes = match is_loose {
            // What it was sent comes again, and what the publisher sends again comes anew.
            true if message.transmissions > 1 => 2 * self.crashes_since(message.sent_at),
            true => self.crashes_since(message.sent_at),
            false => session.died_at.iter().filter(since).count() as u32,
        };
        1 + crashes
    }

    /// True where what left the broker then was sent by a process that has died.
    pub(super) fn has_died_since(&self, left_at: Millis) -> bool {
        self.crashes.iter().any(|wreck| left_at <= wreck.at)
    }

    /// How often the process has died since then.
    pub(super) fn crashes_since(&self, at: Millis) -> u32 {
        let since = |wreck: &&Wreck| wreck.up_at >= at;
        self.crashes.iter().filter(since).count() as u32
    }

    /// True for a message that nobody was promised and that a crash may have taken away.
    pub(super) fn may_be_lost(&self, message: &Message) -> bool {
        let taken = |wreck: &Wreck| {
            let is_durable = message
                .done_at
                .is_some_and(|at| at + SPREAD_MS < wreck.safe_until);
            message.sent_at <= wreck.at && !is_durable
        };
        message.qos == QoS::AtMostOnce && self.crashes.iter().any(taken)
    }
}

/// True where a will may have been published when the process died, and may not have been durable
/// everywhere.
fn may_be_unfinished(fate: WillFate, wreck: Wreck) -> bool {
    match fate {
        WillFate::NotYet | WillFate::Never => false,
        WillFate::May { from } => from <= wreck.at,
        WillFate::Must { from, by } => from <= wreck.at && by + SPREAD_MS >= wreck.safe_until,
    }
}

/// True for a will of a session that has ended with its connection, because the process died.
pub(super) fn is_forgotten(carrier: &Carrier, link: &Link) -> bool {
    link.died && carrier.expiry_s(link).0 == 0
}
