//! Durability: what must be on disk before an acknowledgement leaves.

use casemate_codec::QoS;
use casemate_engine::Millis;

use super::session::Session;
use super::{Message, Oracle};
use crate::history::{ensure, Violation};
use crate::law::Answer;
use crate::shell::{Link, Seqs};

impl Oracle {
    /// Judges the acknowledgement of a message, `persisted` being what was durable in each shard
    /// when it left.
    ///
    /// # Errors
    /// Somebody's copy cannot have been durable.
    pub fn check_durable(
        &self,
        now: Millis,
        serial: u64,
        persisted: Seqs,
        links: &[Link],
    ) -> Result<(), Violation> {
        let Some(message) = self.message(serial) else {
            return Ok(());
        };
        let Some(issued) = message.issued else {
            return Ok(());
        };
        if self.may_publish(message, now) != Answer::Always {
            return Ok(());
        }
        for (client, session) in self.sessions.iter().enumerate() {
            let Some(home) = session
                .home
                .filter(|_| self.must_keep(session, message, now, links))
            else {
                continue;
            };
            ensure!(
                persisted[home] > issued[home] || message.is_of(client),
                Durability,
                "message {serial} was acknowledged before it was durable for client {client}"
            );
        }
        let somewhere = persisted
            .iter()
            .zip(issued)
            .any(|(done, asked)| *done > asked);
        ensure!(
            somewhere || !message.retain,
            Durability,
            "message {serial} was acknowledged before it was durable among the retained"
        );
        Ok(())
    }

    /// True where a session that outlives its connection surely has to be given a message.
    fn must_keep(&self, session: &Session, message: &Message, now: Millis, links: &[Link]) -> bool {
        let window = (message.sent_at, now);
        let asker = &session.asker;
        // What expires on its way is nobody's.
        let life = |expiry_s: u32| Millis::from(expiry_s) * 1_000;
        let lives = |expiry_s| message.sent_at + life(expiry_s) > now;
        message.expiry_s.is_none_or(lives)
            && session.tenant() == message.tenant
            && message.qos > QoS::AtMostOnce
            && !session.overflowed
            && session.surely_outlasts(message.sent_at, now, links)
            && session.slots.iter().any(|slot| {
                slot.share.is_none()
                    && slot.surely_matches(message)
                    && slot
                        .versions
                        .iter()
                        .all(|one| one.granted > Some(QoS::AtMostOnce))
            })
            && self.law.receive(asker, &message.topic, window) == Answer::Always
            && self
                .law
                .receive_caps(asker, &message.topic, window)
                .iter()
                .all(|cap| *cap > QoS::AtMostOnce)
    }

    /// Judges SUBACK, UNSUBACK and PUBCOMP: they change a session, which may outlive its
    /// connection; `issued` and `persisted` belong to the packet that they answer.
    ///
    /// # Errors
    /// The change cannot have been durable.
    pub fn check_change(
        &self,
        now: Millis,
        client: usize,
        (issued, persisted): (Seqs, Seqs),
        links: &[Link],
    ) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let Some(home) = session.home else {
            return Ok(());
        };
        let began = session.connected_at().unwrap_or(now);
        ensure!(
            persisted[home] > issued[home] || !session.surely_outlasts(began, now, links),
            Durability,
            "a change of the session of client {client} was acknowledged before it was durable"
        );
        Ok(())
    }
}
