//! Wills: which of them must be published, may be, or must not.

use casemate_engine::Millis;

use super::crash::is_forgotten;
use super::session::SLACK_MS;
use super::{Fate, Oracle};
use crate::law::Answer;
use crate::shell::Link;

/// A will that a CONNECT brought.
#[derive(Clone, Debug)]
pub struct Will {
    /// The message.
    pub serial: u64,
    /// Whose.
    pub client: usize,
    /// On which connection.
    pub link: usize,
    /// Will Delay Interval, s.
    pub delay_s: u32,
    /// The client wrote a DISCONNECT that takes the will back.
    pub taken_back: bool,
    /// Its session may have been ended from outside.
    pub is_doubtful: bool,
}

/// What must become of a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WillFate {
    /// Its connection lives.
    NotYet,
    /// It was taken back, or the session went on before the delay had passed.
    Never,
    /// It is published between these moments.
    Must {
        /// At the earliest.
        from: Millis,
        /// At the latest.
        by: Millis,
    },
    /// It may be published from this moment on.
    May {
        /// At the earliest.
        from: Millis,
    },
}

impl Oracle {
    /// What must become of a will, as far as anybody can know.
    pub fn will_fate(&self, will: &Will, links: &[Link]) -> WillFate {
        let link = &links[will.link];
        let session = &self.sessions[will.client];
        let Some((over_at, over_by)) = link.over() else {
            return WillFate::NotYet;
        };
        let may = WillFate::May { from: over_at };
        let of_link = |carrier: &super::Carrier| carrier.link == will.link;
        let Some(place) = session.history.iter().position(of_link) else {
            return may;
        };
        let carrier = &session.history[place];
        if carrier.connected_at.is_none() || will.is_doubtful {
            return may;
        }
        if will.taken_back {
            match link.goodbye_handed {
                Some(_) if link.surely_said_goodbye() => return WillFate::Never,
                Some(_) => return may,
                None => {}
            }
        }
        let (expiry_low_s, expiry_high_s) = carrier.expiry_s(link);
        let delay = |expiry_s: u32| Millis::from(will.delay_s.min(expiry_s)) * 1_000;
        let (low, high) = (
            over_at + delay(expiry_low_s),
            over_by + delay(expiry_high_s),
        );
        if is_forgotten(carrier, link) {
            return may;
        }
        if high == over_at {
            return WillFate::Must {
                from: over_at,
                by: over_at + SLACK_MS,
            };
        }
        let late = WillFate::Must {
            from: low,
            by: high + SLACK_MS,
        };
        let Some(later) = session.history.get(place + 1) else {
            return late;
        };
        match later.connected_at {
            _ if later.sent_at > high + SLACK_MS => late,
            Some(at) if !later.clean && later.present && at < low => WillFate::Never,
            Some(at) if later.clean => WillFate::Must {
                from: over_at,
                by: high.min(at) + SLACK_MS,
            },
            _ => may,
        }
    }

    /// The will that a message is.
    pub fn will(&self, serial: u64) -> Option<&Will> {
        self.wills.iter().find(|will| will.serial == serial)
    }

    /// Settles the wills whose time has come, so that they count like other messages.
    pub fn settle_wills(&mut self, now: Millis, links: &[Link]) {
        for place in 0..self.wills.len() {
            let will = &self.wills[place];
            let (serial, fate) = (will.serial, self.will_fate(will, links));
            let Some(message) = self.message_mut(serial) else {
                continue;
            };
            if message.fate != Fate::Will {
                continue;
            }
            match fate {
                WillFate::Must { from, by } if by <= now => {
                    message.fate = Fate::Accepted;
                    message.sent_at = from;
                    message.done_at = Some(by);
                }
                WillFate::Never => message.fate = Fate::Refused,
                WillFate::NotYet | WillFate::Must { .. } => continue,
                WillFate::May { from } => {
                    message.sent_at = message.sent_at.max(from);
                    continue;
                }
            }
            // A will is authorised when it is used.
            let answer = self
                .message(serial)
                .map(|message| self.may_publish(message, now));
            if let Some(message) = self.message_mut(serial) {
                message.law = answer;
                if message.fate == Fate::Accepted && answer != Some(Answer::Always) {
                    message.fate = Fate::Unknown;
                }
            }
        }
    }
}
