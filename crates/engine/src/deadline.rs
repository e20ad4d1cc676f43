//! Deadlines of a connection: CONNECT, keep alive, the end of its proof, a reader that stalls.

use casemate_codec::Reason;

use crate::connection::Phase;
use crate::door::{ConnectionId, Millis};
use crate::event::Loss;
use crate::shard::Shard;
use crate::timers::Timer;
use crate::wording::Goodbye;

impl Shard {
    /// Arms the timer of a connection where its next deadline is earlier than what is armed.
    pub(crate) fn arm(&mut self, slot: u32) {
        let Some(at) = self.deadline(slot) else {
            return;
        };
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if at < connection.armed_at {
            connection.armed_at = at;
            self.timers.arm(at, Timer::Connection(id));
        }
    }

    /// When something is next due at a connection.
    fn deadline(&self, slot: u32) -> Option<Millis> {
        let connection = self.connection(slot)?;
        match connection.phase {
            Phase::Closing => None,
            Phase::Silent | Phase::Judged(_) => {
                Some(connection.opened_at + self.settings.connect_deadline_ms)
            }
            Phase::Serving { .. } => {
                let keep_alive = (connection.keep_alive_ms > 0 && !connection.paused)
                    .then(|| connection.heard_at + u64::from(connection.keep_alive_ms) * 3 / 2);
                let slow = (!connection.window.is_empty()).then(|| {
                    connection
                        .moved_at
                        .saturating_add(self.settings.slow_reader_ms)
                });
                // Also a reproof must end.
                let until = (connection.until < Millis::MAX).then_some(connection.until);
                let all = [keep_alive, slow, until];
                all.into_iter().flatten().min()
            }
        }
    }

    /// A timer of a connection fired: closes what is overdue, arms the rest.
    pub(crate) fn connection_due(&mut self, at: Millis, id: ConnectionId) {
        let (Some(slot), now) = (self.slot_of(id), self.now) else {
            return;
        };
        let slow_ms = self.settings.slow_reader_ms;
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if connection.armed_at != at {
            return;
        }
        connection.armed_at = Millis::MAX;
        if self.deadline(slot).is_none_or(|deadline| deadline > now) {
            self.arm(slot);
            return;
        }
        let Some(connection) = self.connection(slot) else {
            return;
        };
        let until_over = connection.until <= now;
        let slow =
            !connection.window.is_empty() && connection.moved_at.saturating_add(slow_ms) <= now;
        match connection.phase {
            Phase::Serving { .. } if until_over => {
                let why = Goodbye::saying(Reason::NotAuthorized, "the proof of identity has ended");
                self.close(slot, why, Loss::Refused(Reason::NotAuthorized));
            }
            Phase::Serving { .. } if slow => {
                self.counters.slow_readers += 1;
                let why = Goodbye::saying(Reason::QuotaExceeded, "messages were not read in time");
                self.close(slot, why, Loss::SlowReader);
            }
            Phase::Serving { .. } => {
                // [MQTT-3.1.2-22] [MQTT-3.1.1 3.1.2-24]
                self.counters.keep_alive_timeouts += 1;
                self.close(slot, Reason::KeepAliveTimeout, Loss::KeepAlive);
            }
            Phase::Silent | Phase::Judged(_) => {
                self.counters.connect_deadlines += 1;
                self.close_silently(slot, Loss::ConnectDeadline);
            }
            Phase::Closing => {}
        }
    }
}
