//! The verdict: when everything has come to rest, what is missing?

use casemate_codec::QoS;
use casemate_engine::{Loss, Millis};

use super::retained::has_expired;
use super::session::{Options, Session};
use super::{Author, Fate, Message, Oracle, Slot};
use crate::history::{ensure, Violation};
use crate::law::Answer;
use crate::shell::Link;

impl Oracle {
    /// Judges the whole run after it has come to rest.
    ///
    /// `dropped` says for each shard how many messages of QoS 0 it counted as dropped.
    ///
    /// # Errors
    /// Something that had to arrive did not.
    pub fn verdict(
        &mut self,
        now: Millis,
        links: &[Link],
        dropped: &[u64],
    ) -> Result<(), Violation> {
        self.settle_wills(now, links);
        let nothing_dropped = dropped.iter().all(|count| *count == 0);
        let mut left = dropped.to_vec();
        for client in 0..self.sessions.len() {
            // Each loss at QoS 0 has a drop of its own, counted by the shard of the session.
            let home = self.sessions[client].home.unwrap_or(0);
            for message in &self.messages {
                self.check_arrival(client, message, now, &mut left[home])?;
            }
            self.check_replays(client, now, nothing_dropped)?;
            self.check_flights(client, now)?;
        }
        self.check_groups(now)
    }

    /// Judges a run that ended with a drain: whoever stayed until the broker sent it away has got
    /// all that was acknowledged and had to be kept for it.
    ///
    /// # Errors
    /// A promise was not kept before the good-bye.
    pub fn verdict_of_drain(
        &mut self,
        now: Millis,
        links: &[Link],
        dropped: &[u64],
    ) -> Result<(), Violation> {
        self.settle_wills(now, links);
        let mut left = dropped.to_vec();
        for client in 0..self.sessions.len() {
            let session = &self.sessions[client];
            let home = session.home.unwrap_or(0);
            let stayed = session.history.last().is_some_and(|carrier| {
                let link = &links[carrier.link];
                let was_told = link.loss == Some(Loss::Stopping) && !link.was_cut;
                carrier.connected_at.is_some() && was_told
            });
            if !stayed {
                continue;
            }
            // A will may come when its audience is on the way out.
            let promised = |message: &&Message| matches!(message.author, Author::Client(_));
            for message in self.messages.iter().filter(promised) {
                self.check_arrival(client, message, now, &mut left[home])?;
            }
        }
        Ok(())
    }

    /// An accepted message must have reached each session that must have it; a loss at QoS 0 is
    /// taken off the drops that the session's shard counted.
    fn check_arrival(
        &self,
        client: usize,
        message: &Message,
        now: Millis,
        drops_left: &mut u64,
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let countable = message.fate == Fate::Accepted
            && message.tenant == session.tenant()
            && !message.is_empty()
            && !session.copies.contains_key(&message.serial);
        if !countable || session.is_doubtful() {
            return Ok(());
        }
        let own = message.is_of(client);
        let bound = |slot: &&Slot| slot.share.is_none() && slot.surely_matches(message);
        let Some(slot) = session.slots.iter().find(bound) else {
            return Ok(());
        };
        let versions = versions_since(slot, message);
        if own && versions.iter().any(|one| one.no_local) {
            return Ok(());
        }
        let window = (message.sent_at, now);
        let lawful = self.law.receive(&session.asker, &message.topic, window) == Answer::Always;
        if !lawful || message.bytes() > session.packet_bytes_least {
            return Ok(());
        }
        if message.expiry_s.is_some() {
            return Ok(());
        }
        let caps = self
            .law
            .receive_caps(&session.asker, &message.topic, window);
        let kept = message.qos > QoS::AtMostOnce
            && caps.iter().all(|cap| *cap > QoS::AtMostOnce)
            && versions
                .iter()
                .all(|one| one.granted > Some(QoS::AtMostOnce));
        // A full queue refuses what it must keep, and tells; what need not be kept it counts.
        if session.overflowed && message.qos > QoS::AtMostOnce {
            return Ok(());
        }
        let heard = session
            .connected_at()
            .is_some_and(|at| at < message.sent_at)
            && slot.must_from.is_some();
        if heard && !kept && *drops_left > 0 {
            *drops_left -= 1;
            return Ok(());
        }
        ensure!(
            !kept && !heard,
            Loss,
            "message {} of {:?} to {} by {:?}, sent at {} ms, accepted at {:?} ms, never reached \
             client {client}, who had {} since {:?} ms",
            message.serial,
            message.qos,
            message.topic,
            message.author,
            message.sent_at,
            message.done_at,
            slot.wire_filter(),
            slot.must_from
        );
        Ok(())
    }

    /// A subscription must have been sent what was surely retained.
    fn check_replays(
        &self,
        client: usize,
        now: Millis,
        nothing_dropped: bool,
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let start = session.link.map_or(Millis::MAX, |(_, sent_at)| sent_at);
        for slot in &session.slots {
            for one in &slot.versions {
                let counts = one.confirmed_at.is_some()
                    && slot.ending_at.is_none()
                    && start <= one.sent_at
                    && !session.overflowed
                    && !session.is_doubtful();
                if !counts {
                    continue;
                }
                // A later SUBSCRIBE with No Local may have taken the replay's place.
                let no_local = slot.versions.iter().any(|one| one.no_local);
                let mine = |serial: &u64| {
                    let message = self.message(*serial);
                    message.is_some_and(|message| message.is_of(client))
                };
                for serial in one
                    .expected
                    .iter()
                    .filter(|serial| !(no_local && mine(serial)))
                {
                    self.check_replay(client, one, *serial, now, nothing_dropped)?;
                }
            }
        }
        Ok(())
    }

    /// One retained message that one subscription must have been sent.
    fn check_replay(
        &self,
        client: usize,
        one: &Options,
        serial: u64,
        now: Millis,
        nothing_dropped: bool,
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let Some(message) = self.message(serial) else {
            return Ok(());
        };
        let window = (one.sent_at, now);
        let caps = self
            .law
            .receive_caps(&session.asker, &message.topic, window);
        let kept = message.qos > QoS::AtMostOnce
            && one.granted > Some(QoS::AtMostOnce)
            && caps.iter().all(|cap| *cap > QoS::AtMostOnce);
        let counts = self.law.receive(&session.asker, &message.topic, window) == Answer::Always
            && message.bytes() <= session.packet_bytes_least
            && (kept || nothing_dropped);
        // What has since been replaced need not have been sent.
        let stands = || {
            let candidates = self.retained_candidates(message.tenant, &message.topic, now);
            candidates.len() == 1 && candidates.contains(&serial)
        };
        let seen = session
            .copies
            .get(&serial)
            .is_some_and(|copies| copies.last_at >= one.sent_at);
        ensure!(
            seen || !counts || !stands(),
            Retained,
            "client {client} subscribed at {} ms and was not sent the retained message {serial} \
             to {}",
            one.sent_at,
            message.topic
        );
        Ok(())
    }

    /// What a client never acknowledged must have come again when its session was resumed.
    fn check_flights(&self, client: usize, now: Millis) -> Result<(), Violation> {
        let session: &Session = &self.sessions[client];
        let Some((link, _)) = session.link else {
            return Ok(());
        };
        for (packet_id, flight) in &session.flights {
            if flight.answered || flight.link == link || session.is_doubtful() {
                continue;
            }
            let Some(message) = self.message(flight.serial) else {
                continue;
            };
            let window = (message.sent_at, now);
            let excused = message.expiry_s.is_some()
                || has_expired(message, now)
                || message.bytes() > session.packet_bytes_least
                || self.law.receive(&session.asker, &message.topic, window) != Answer::Always;
            ensure!(
                excused,
                Loss,
                "message {} under the packet id {packet_id} was never acknowledged by client \
                 {client} and never sent again",
                flight.serial
            );
        }
        Ok(())
    }
}

/// The version of a subscription in force when the message was sent, and all that followed it.
fn versions_since<'a>(slot: &'a Slot, message: &Message) -> Vec<&'a Options> {
    let counts = |one: &&Options| {
        one.refused_at.is_none() && one.confirmed_at.is_none_or(|at| at >= message.sent_at)
    };
    let before = slot
        .versions
        .iter()
        .rev()
        .find(|one| !counts(one) && one.granted.is_some());
    slot.versions.iter().filter(counts).chain(before).collect()
}
