//! One publisher: what it may send now, and what it still waits for.

use casemate_codec::{QoS, TooLarge};

use crate::header::Header;
use crate::Plan;

/// Bytes that one turn prepares for one socket; a message may be larger.
const PREPARED_BYTES_MAX: usize = 256 * 1024;

/// What the broker owes for one packet id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owed {
    Nothing,
    Puback,
    Pubrec,
    Pubcomp,
}

/// What an acknowledgement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was the last one for its message.
    Done,
    /// PUBREL comes next.
    Release,
    /// It belongs to no message that waits for it.
    Unknown,
}

/// Which acknowledgement it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acknowledgement {
    Puback,
    Pubrec,
    Pubcomp,
}

/// How much a publisher may send, and when.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allowance {
    /// At most `messages` undelivered; more is sent once `batch` are free.
    Window { messages: u64, batch: u64 },
    /// Message n at `first_ns + n * step_ns`, as long as that is before `end_ns`.
    Schedule {
        first_ns: f64,
        step_ns: f64,
        end_ns: f64,
    },
    /// Nothing.
    Closed,
}

/// One publisher.
pub(crate) struct Publisher {
    number: u32,
    qos: QoS,
    /// One for each topic, in turn.
    headers: Vec<Header>,
    /// For the first message, where it says more than the others.
    opening: Option<Header>,
    allowance: Allowance,
    /// Deliveries that one message causes.
    fan: u64,
    sent: u64,
    delivered: u64,
    /// Deliveries that are waited for no more.
    written_off: u64,
    /// What is owed for packet id i + 1.
    owed: Box<[Owed]>,
    next_id: usize,
    inflight: usize,
    refused: u64,
}

/// What the messages of all publishers share in one turn.
pub(crate) struct Turn<'a> {
    /// Now, in ns since the run began.
    pub now_ns: u64,
    /// The payload behind the stamp.
    pub filler: &'a [u8],
    /// Messages that all publishers together may still send.
    pub budget: &'a mut u64,
    /// Is told how late each message leaves, in ns, where there is a schedule.
    pub late: &'a mut dyn FnMut(u64, u64),
}

impl Publisher {
    /// A publisher that may send nothing yet.
    ///
    /// # Errors
    /// Where its messages have no form on the wire.
    pub fn new(plan: &Plan, number: u32, topics: &[String]) -> Result<Publisher, TooLarge> {
        let payload = vec![0; plan.payload_bytes];
        let alias = plan.topic_alias;
        let header = |topic: &String| Header::new(plan, topic, alias, &payload);
        let mut headers = topics.iter().map(header).collect::<Result<Vec<_>, _>>()?;
        let mut opening = None;
        if alias {
            opening = headers.pop();
            headers = vec![Header::new(plan, "", true, &payload)?];
        }
        let ids = match plan.publish_qos {
            QoS::AtMostOnce => 0,
            _ => usize::from(plan.inflight_max),
        };
        Ok(Publisher {
            number,
            qos: plan.publish_qos,
            headers,
            opening,
            allowance: Allowance::Closed,
            fan: plan.shape.deliveries_per_message(),
            sent: 0,
            delivered: 0,
            written_off: 0,
            owed: vec![Owed::Nothing; ids].into_boxed_slice(),
            next_id: 0,
            inflight: 0,
            refused: 0,
        })
    }

    /// Lets it send, or stops it.
    pub fn allow(&mut self, allowance: Allowance) {
        self.allowance = allowance;
    }

    /// The broker wants fewer unacknowledged messages than the plan.
    pub fn limit_inflight(&mut self, receive_max: u16) {
        if self.owed.len() > usize::from(receive_max) {
            self.owed = vec![Owed::Nothing; usize::from(receive_max)].into_boxed_slice();
        }
    }

    /// Messages sent.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Messages whose last acknowledgement is missing.
    pub fn unacknowledged(&self) -> usize {
        self.inflight
    }

    /// Messages that the broker has refused.
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// Deliveries that should have come, those of refused messages left out.
    pub fn deliveries_due(&self) -> u64 {
        self.sent.saturating_sub(self.refused) * self.fan
    }

    /// Deliveries that are under way.
    pub fn under_way(&self) -> u64 {
        self.deliveries_due()
            .saturating_sub(self.delivered + self.written_off)
    }

    /// Notes one delivery.
    #[inline]
    pub fn deliver(&mut self) {
        self.delivered += 1;
    }

    /// Gives up what is under way, so that a broker that loses messages does not end the run.
    pub fn write_off(&mut self) {
        self.written_off += self.under_way();
    }

    /// When the next message is due; `None` without a schedule.
    pub fn due_ns(&self) -> Option<u64> {
        match self.allowance {
            Allowance::Schedule {
                first_ns, step_ns, ..
            } => Some((first_ns + self.sent as f64 * step_ns) as u64),
            _ => None,
        }
    }

    /// Messages of the schedule that are due at a moment and were not sent.
    pub fn unsent(&self, now_ns: u64) -> u64 {
        match self.allowance {
            Allowance::Schedule { .. } => self.wanted(now_ns),
            _ => 0,
        }
    }

    /// Appends what may be sent now to `out`; how many messages.
    pub fn fill(&mut self, turn: &mut Turn<'_>, out: &mut Vec<u8>) -> u64 {
        let wanted = self.wanted(turn.now_ns).min(*turn.budget);
        let mut written = 0;
        while written < wanted && out.len() < PREPARED_BYTES_MAX {
            let due_ns = self.due_ns();
            let Some(packet_id) = self.take_id() else {
                break;
            };
            match self.opening.take() {
                Some(opening) => opening.write(packet_id, out),
                None => self.next_header(|header| header.write(packet_id, out)),
            }
            // At most `messages_max`, which has 32 bits.
            let number = self.sent as u32;
            out.extend_from_slice(&self.number.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&due_ns.unwrap_or(0).to_le_bytes());
            out.extend_from_slice(turn.filler);
            if let Some(due_ns) = due_ns {
                (turn.late)(due_ns, turn.now_ns.saturating_sub(due_ns));
            }
            self.sent += 1;
            written += 1;
        }
        *turn.budget -= written;
        written
    }

    /// Gives the header of the next message.
    #[inline]
    fn next_header(&self, write: impl FnOnce(&Header)) {
        let index = match self.headers.len() {
            1 => 0,
            count => (self.sent % count as u64) as usize,
        };
        if let Some(header) = self.headers.get(index) {
            write(header);
        }
    }

    /// Messages that the allowance lets go now.
    fn wanted(&self, now_ns: u64) -> u64 {
        match self.allowance {
            Allowance::Closed => 0,
            Allowance::Schedule {
                first_ns,
                step_ns,
                end_ns,
            } => {
                let since = now_ns as f64 - first_ns;
                let due = match since < 0.0 {
                    true => 0,
                    false => (since / step_ns) as u64 + 1,
                };
                let all = ((end_ns - first_ns) / step_ns).ceil().max(0.0) as u64;
                due.min(all).saturating_sub(self.sent)
            }
            Allowance::Window { messages, batch } => {
                let room = (messages * self.fan).saturating_sub(self.under_way()) / self.fan;
                let free = match self.qos {
                    QoS::AtMostOnce => room,
                    _ => room.min((self.owed.len() - self.inflight) as u64),
                };
                let batch = match self.qos {
                    QoS::AtMostOnce => batch,
                    _ => batch.min((self.owed.len() as u64 / 2).max(1)),
                };
                match free < batch {
                    true => 0,
                    false => free,
                }
            }
        }
    }

    /// The next packet id; `None` while it is in use.
    fn take_id(&mut self) -> Option<u16> {
        if self.qos == QoS::AtMostOnce {
            return Some(0);
        }
        let owed = self.owed.get_mut(self.next_id)?;
        if *owed != Owed::Nothing {
            return None;
        }
        *owed = match self.qos {
            QoS::ExactlyOnce => Owed::Pubrec,
            _ => Owed::Puback,
        };
        self.inflight += 1;
        // There are at most 65,535 of them.
        let id = self.next_id as u16 + 1;
        self.next_id = (self.next_id + 1) % self.owed.len();
        Some(id)
    }

    /// Takes an acknowledgement; `refuses` is that of a reason code of 0x80 or above.
    pub fn acknowledge(&mut self, packet_id: u16, what: Acknowledgement, refuses: bool) -> Answer {
        let Some(owed) = self.owed.get_mut(usize::from(packet_id).wrapping_sub(1)) else {
            return Answer::Unknown;
        };
        let next = match (*owed, what) {
            (Owed::Puback, Acknowledgement::Puback) => Owed::Nothing,
            (Owed::Pubrec, Acknowledgement::Pubrec) if refuses => Owed::Nothing,
            (Owed::Pubrec, Acknowledgement::Pubrec) => Owed::Pubcomp,
            (Owed::Pubcomp, Acknowledgement::Pubcomp) => Owed::Nothing,
            _ => return Answer::Unknown,
        };
        // A PUBCOMP that refuses comes after the message was taken.
        if refuses && what != Acknowledgement::Pubcomp {
            self.refused += 1;
        }
        *owed = next;
        if next == Owed::Nothing {
            self.inflight -= 1;
            return Answer::Done;
        }
        Answer::Release
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::plan::tests::plan;

    fn publisher(qos: QoS, inflight_max: u16, allowance: Allowance) -> Publisher {
        let mut plan = plan();
        plan.publish_qos = qos;
        plan.inflight_max = inflight_max;
        let mut publisher = Publisher::new(&plan, 3, &["t".to_owned()]).unwrap();
        publisher.allow(allowance);
        publisher
    }

    /// Fills at a moment: how many messages, and how late each was.
    fn fill(publisher: &mut Publisher, now_ns: u64) -> (u64, Vec<u64>) {
        let (mut budget, mut late, mut out) = (1_000, Vec::new(), Vec::new());
        let mut turn = Turn {
            now_ns,
            filler: &[0; 48],
            budget: &mut budget,
            late: &mut |_, late_ns| late.push(late_ns),
        };
        let count = publisher.fill(&mut turn, &mut out);
        assert_eq!(out.is_empty(), count == 0);
        assert_eq!(budget, 1_000 - count);
        (count, late)
    }

    const WINDOW: Allowance = Allowance::Window {
        messages: 8,
        batch: 4,
    };

    #[test]
    fn a_window_refills_when_a_batch_is_free() {
        let mut publisher = publisher(QoS::AtMostOnce, 20, WINDOW);
        assert_eq!(fill(&mut publisher, 0).0, 8);
        for _ in 0..3 {
            publisher.deliver();
        }
        assert_eq!(fill(&mut publisher, 0).0, 0);
        publisher.deliver();
        assert_eq!(fill(&mut publisher, 0).0, 4);
        publisher.write_off();
        assert_eq!(publisher.under_way(), 0);
        assert_eq!(fill(&mut publisher, 0).0, 8);
    }

    #[test]
    fn a_packet_id_is_used_again_when_its_last_acknowledgement_came() {
        let mut publisher = publisher(QoS::ExactlyOnce, 2, WINDOW);
        assert_eq!(fill(&mut publisher, 0).0, 2);
        assert_eq!(publisher.unacknowledged(), 2);
        let steps = [
            (1, Acknowledgement::Puback, Answer::Unknown),
            (1, Acknowledgement::Pubcomp, Answer::Unknown),
            (0, Acknowledgement::Pubrec, Answer::Unknown),
            (3, Acknowledgement::Pubrec, Answer::Unknown),
            (1, Acknowledgement::Pubrec, Answer::Release),
            (1, Acknowledgement::Pubrec, Answer::Unknown),
            (1, Acknowledgement::Pubcomp, Answer::Done),
            (1, Acknowledgement::Pubcomp, Answer::Unknown),
        ];
        for (id, what, answer) in steps {
            assert_eq!(
                publisher.acknowledge(id, what, false),
                answer,
                "{id} {what:?}"
            );
        }
        assert_eq!(fill(&mut publisher, 0).0, 1);
        assert_eq!(publisher.unacknowledged(), 2);
    }

    #[test]
    fn a_message_that_is_refused_is_not_waited_for() {
        let mut publisher = publisher(QoS::AtLeastOnce, 8, WINDOW);
        assert_eq!(fill(&mut publisher, 0).0, 8);
        let answer = publisher.acknowledge(1, Acknowledgement::Puback, true);
        assert_eq!((answer, publisher.refused()), (Answer::Done, 1));
        assert_eq!((publisher.under_way(), publisher.deliveries_due()), (7, 7));
    }

    #[test]
    fn a_broker_that_takes_less_at_a_time_is_sent_less() {
        let mut publisher = publisher(QoS::AtLeastOnce, 20, WINDOW);
        publisher.limit_inflight(3);
        assert_eq!(fill(&mut publisher, 0).0, 3);
    }

    #[test]
    fn a_schedule_holds_while_the_generator_could_not_send() {
        let schedule = Allowance::Schedule {
            first_ns: 1_000.0,
            step_ns: 100.0,
            end_ns: 1_800.0,
        };
        let mut publisher = publisher(QoS::AtMostOnce, 20, schedule);
        assert_eq!(fill(&mut publisher, 999), (0, vec![]));
        assert_eq!(fill(&mut publisher, 1_000), (1, vec![0]));
        // Three were due meanwhile, and each is as late as it is.
        assert_eq!(fill(&mut publisher, 1_350), (3, vec![250, 150, 50]));
        assert_eq!(publisher.due_ns(), Some(1_400));
        assert_eq!(publisher.unsent(1_399), 0);
        assert_eq!(publisher.unsent(1_700), 4);
        // 1,800 is not before the end.
        assert_eq!(fill(&mut publisher, 9_999).0, 4);
        assert_eq!(publisher.unsent(9_999), 0);
    }

    #[test]
    fn nothing_is_sent_before_it_is_allowed() {
        let mut publisher = publisher(QoS::AtMostOnce, 20, Allowance::Closed);
        assert_eq!(fill(&mut publisher, u64::MAX).0, 0);
        assert_eq!((publisher.due_ns(), publisher.unsent(u64::MAX)), (None, 0));
    }
}
