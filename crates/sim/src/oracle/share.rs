//! Share groups: each message goes to exactly one member.

use std::collections::BTreeSet;

use casemate_codec::QoS;
use casemate_engine::Millis;

use super::session::Session;
use super::{Fate, Message, Oracle, Slot};
use crate::history::{ensure, Violation};
use crate::law::Answer;

/// A group: tenant, name and filter.
type Group = (u32, String, String);

impl Oracle {
    /// Every group that anybody ever joined.
    fn groups(&self) -> BTreeSet<Group> {
        let mut groups = BTreeSet::new();
        for session in &self.sessions {
            for slot in &session.slots {
                if let Some(name) = &slot.share {
                    groups.insert((session.tenant(), name.clone(), slot.filter.clone()));
                }
            }
        }
        groups
    }

    /// Judges every group over the whole run.
    ///
    /// # Errors
    /// A message went to more than one member, or to none.
    pub(super) fn check_groups(&self, now: Millis) -> Result<(), Violation> {
        for group in self.groups() {
            let member =
                |slot: &Slot| slot.share.as_ref() == Some(&group.1) && slot.filter == group.2;
            let members: Vec<&Session> = self
                .sessions
                .iter()
                .filter(|session| session.tenant() == group.0)
                .filter(|session| session.slots.iter().any(member))
                .collect();
            let steady = members.iter().all(|session| {
                let mine = session.slots.iter().filter(|slot| member(slot));
                !session.is_doubtful() && mine.into_iter().all(|slot| slot.ending_at.is_none())
            });
            // Where somebody has left, what was his may have gone to another.
            if !steady {
                continue;
            }
            for message in &self.messages {
                self.check_group(&group, &members, message, now)?;
            }
        }
        Ok(())
    }

    /// Judges one group and one message.
    fn check_group(
        &self,
        group: &Group,
        members: &[&Session],
        message: &Message,
        now: Millis,
    ) -> Result<(), Violation> {
        if message.tenant != group.0 || message.is_empty() {
            return Ok(());
        }
        let member = |slot: &&Slot| slot.share.as_ref() == Some(&group.1) && slot.filter == group.2;
        let (mut total, mut candidates, mut ready) = (0, 0, false);
        for session in members {
            let matching =
                |slot: &&Slot| !slot.possible(message).is_empty() || slot.replays(message) > 0;
            let mine: Vec<&Slot> = session.slots.iter().filter(matching).collect();
            if !mine.iter().any(member) {
                continue;
            }
            // With another way to the same session nobody can tell which one was taken.
            if mine.len() > 1 {
                return Ok(());
            }
            candidates += 1;
            total += session
                .copies
                .get(&message.serial)
                .map_or(0, |copies| copies.count);
            ready |= mine[0].surely_matches(message);
        }
        if candidates == 0 {
            return Ok(());
        }
        // At QoS 2 a crash lets no other member have it.
        let most = match is_exact(members, message) {
            true => message.causes(),
            false => message.causes() * (1 + self.crashes_since(message.sent_at)),
        };
        ensure!(
            total <= most,
            Share,
            "{total} members of {}/{} got message {}",
            group.1,
            group.2,
            message.serial
        );
        let certain = ready && message.fate == Fate::Accepted && message.expiry_s.is_none();
        let able = |session: &&Session| self.surely_takes(session, message, now);
        ensure!(
            total > 0 || !certain || !members.iter().all(able),
            Share,
            "no member of {}/{} got message {}",
            group.1,
            group.2,
            message.serial
        );
        Ok(())
    }

    /// True where a session has room, the right and the QoS to take a message that is kept for it.
    fn surely_takes(&self, session: &Session, message: &Message, now: Millis) -> bool {
        let window = (message.sent_at, now);
        let granted = session.slots.iter().flat_map(|slot| &slot.versions);
        !session.overflowed
            && message.qos > QoS::AtMostOnce
            && message.bytes() <= session.packet_bytes_least
            && granted
                .into_iter()
                .all(|one| one.granted > Some(QoS::AtMostOnce))
            && self.law.receive(&session.asker, &message.topic, window) == Answer::Always
    }
}

/// True where no member may have got a message with less than QoS 2, or in a session that a crash
/// has ended.
fn is_exact(members: &[&Session], message: &Message) -> bool {
    let exact = |session: &&Session| {
        let mut versions = session.slots.iter().flat_map(|slot| &slot.versions);
        session.died_at.is_empty() && versions.all(|one| one.qos == QoS::ExactlyOnce)
    };
    message.qos == QoS::ExactlyOnce && members.iter().all(exact)
}
