//! What all clients together have sent and received, and everything that was wrong with it.

use std::time::Instant;

use casemate_codec::{Publish, QoS};

use crate::arrival::{Arrival, Stream};
use crate::histogram::Histogram;
use crate::layout::Listening;
use crate::publisher::{Publisher, Turn};
use crate::report::Standing;
use crate::STAMP_BYTES;

/// The measured time: messages whose intended time lies in it are those whose latency counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub from_ns: u64,
    pub to_ns: u64,
}

/// The books of one run.
pub(crate) struct Ledger {
    epoch: Instant,
    pub publishers: Vec<Publisher>,
    pub streams: Vec<Stream>,
    /// The payload behind the stamp.
    pub filler: Vec<u8>,
    /// Messages that may still be sent.
    pub budget: u64,
    /// Publishers that may have something to send: their numbers, each once.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
    /// QoS at which everything must arrive.
    expected_qos: QoS,
    pub window: Window,
    pub standing: Standing,
    /// Clients whose sessions began in this run and outlive their connections.
    pub sessions: Vec<u64>,
    pub duplicated: u64,
    pub reordered: u64,
    pub misrouted: u64,
    pub qos_changed: u64,
    pub latency: Histogram,
    pub lateness: Histogram,
    pub connecting: Histogram,
}

impl Ledger {
    /// Empty books.
    pub fn new(
        publishers: Vec<Publisher>,
        streams: Vec<Stream>,
        filler: Vec<u8>,
        budget: u64,
        expected_qos: QoS,
    ) -> Ledger {
        Ledger {
            epoch: Instant::now(),
            is_touched: vec![false; publishers.len()],
            touched: Vec::with_capacity(publishers.len()),
            publishers,
            streams,
            filler,
            budget,
            expected_qos,
            window: Window {
                from_ns: u64::MAX,
                to_ns: u64::MAX,
            },
            standing: Standing::default(),
            sessions: Vec::new(),
            duplicated: 0,
            reordered: 0,
            misrouted: 0,
            qos_changed: 0,
            latency: Histogram::new(),
            lateness: Histogram::new(),
            connecting: Histogram::new(),
        }
    }

    /// Nanoseconds since the run began.
    #[inline]
    pub fn now_ns(&self) -> u64 {
        // 584 years fit.
        self.epoch.elapsed().as_nanos() as u64
    }

    /// Remembers that a publisher may have something to send.
    #[inline]
    pub fn touch(&mut self, publisher: u32) {
        if let Some(touched) = self.is_touched.get_mut(publisher as usize) {
            if !*touched {
                *touched = true;
                self.touched.push(publisher);
            }
        }
    }

    /// One of the publishers that were touched.
    pub fn next_touched(&mut self) -> Option<u32> {
        let publisher = self.touched.pop()?;
        if let Some(touched) = self.is_touched.get_mut(publisher as usize) {
            *touched = false;
        }
        Some(publisher)
    }

    /// Lets a publisher fill the bytes of its connection; how many messages.
    pub fn fill(&mut self, publisher: u32, now_ns: u64, out: &mut Vec<u8>) -> u64 {
        let Some(publisher) = self.publishers.get_mut(publisher as usize) else {
            return 0;
        };
        let (window, lateness) = (self.window, &mut self.lateness);
        let mut turn = Turn {
            now_ns,
            filler: &self.filler,
            budget: &mut self.budget,
            late: &mut |due_ns, late_ns| {
                if (window.from_ns..window.to_ns).contains(&due_ns) {
                    lateness.record(late_ns);
                }
            },
        };
        let written = publisher.fill(&mut turn, out);
        self.standing.published += written;
        written
    }

    /// Notes a message that came to a subscriber. `now_ns` is when its bytes were read.
    #[inline]
    pub fn arrive(&mut self, heard: &Listening, publish: &Publish<'_>, now_ns: u64) {
        if publish.qos != self.expected_qos || publish.dup {
            self.qos_changed += 1;
        }
        let Some(stamp) = Stamp::read(publish.payload) else {
            self.misrouted += 1;
            return;
        };
        let number = stamp.publisher as usize;
        let stream = heard.stream_of(number);
        let (Some(publisher), Some(stream)) = (
            self.publishers.get_mut(number),
            stream.and_then(|stream| self.streams.get_mut(stream)),
        ) else {
            self.misrouted += 1;
            return;
        };
        match stream.arrive(stamp.number, publisher.sent()) {
            Arrival::New => {}
            // Members of a group are read one after the other; that is our order, not theirs.
            Arrival::Late if heard.shared => {}
            Arrival::Late => self.reordered += 1,
            Arrival::Again => {
                self.duplicated += 1;
                return;
            }
            Arrival::Impossible => {
                self.misrouted += 1;
                return;
            }
        }
        publisher.deliver();
        self.standing.delivered += 1;
        self.touch(stamp.publisher);
        if (self.window.from_ns..self.window.to_ns).contains(&stamp.due_ns) {
            self.latency.record(now_ns.saturating_sub(stamp.due_ns));
        }
    }

    /// Deliveries that should have come so far, those of refused messages left out.
    pub fn expected(&self) -> u64 {
        let of = |one: &Publisher| one.deliveries_due();
        self.publishers.iter().map(of).sum()
    }

    /// Deliveries that came, each counted once.
    pub fn unique(&self) -> u64 {
        self.streams.iter().map(Stream::unique).sum()
    }

    /// Nothing is under way any more.
    pub fn is_settled(&self) -> bool {
        let settled = |one: &Publisher| one.under_way() == 0 && one.unacknowledged() == 0;
        self.publishers.iter().all(settled)
    }
}

/// The first bytes of a payload.
struct Stamp {
    publisher: u32,
    number: u32,
    /// 0 where there is no schedule.
    due_ns: u64,
}

impl Stamp {
    #[inline]
    fn read(payload: &[u8]) -> Option<Stamp> {
        let stamp: &[u8; STAMP_BYTES] = payload.first_chunk()?;
        let [a, b, c, d, e, f, g, h, due @ ..] = *stamp;
        Some(Stamp {
            publisher: u32::from_le_bytes([a, b, c, d]),
            number: u32::from_le_bytes([e, f, g, h]),
            due_ns: u64::from_le_bytes(due),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::layout::{Layout, Task};
    use crate::plan::tests::plan;
    use crate::publisher::Allowance;
    use crate::{Plan, Shape};

    /// The books of a plan, its subscribers, and what its publishers have sent, at most 10 each.
    fn books(plan: &Plan) -> (Ledger, Vec<Listening>, Vec<Vec<u8>>) {
        let layout = Layout::of(plan);
        let mut publishers = Vec::new();
        let mut heard = Vec::new();
        for task in &layout.tasks {
            match task {
                Task::Publish(topics) => {
                    let number = publishers.len() as u32;
                    publishers.push(Publisher::new(plan, number, topics).unwrap());
                }
                Task::Subscribe(_, listening) => heard.push(*listening),
            }
        }
        let filler = vec![0; plan.payload_bytes - STAMP_BYTES];
        let mut ledger = Ledger::new(publishers, layout.streams, filler, 1_000, plan.publish_qos);
        let mut sent = Vec::new();
        for number in 0..ledger.publishers.len() {
            let allowance = Allowance::Window {
                messages: 10,
                batch: 1,
            };
            ledger.publishers[number].allow(allowance);
            let mut out = Vec::new();
            assert_eq!(ledger.fill(number as u32, 0, &mut out), 10);
            sent.push(out);
        }
        (ledger, heard, sent)
    }

    fn message(payload: &[u8]) -> Publish<'_> {
        Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: Default::default(),
            payload,
        }
    }

    fn payload(publisher: u32, number: u32) -> Vec<u8> {
        let mut bytes = publisher.to_le_bytes().to_vec();
        bytes.extend_from_slice(&number.to_le_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes
    }

    #[test]
    fn each_kind_of_harm_is_counted_as_what_it_is() {
        let mut plan = plan();
        plan.shape = Shape::Pairs { pairs: 2 };
        let (mut ledger, heard, _) = books(&plan);
        for number in [0, 1, 1, 4, 3, 5, 6, 7, 8, 9] {
            ledger.arrive(&heard[0], &message(&payload(0, number)), 0);
        }
        // Of publisher 1 to the subscriber of publisher 0, of nobody, of the future, too short.
        ledger.arrive(&heard[0], &message(&payload(1, 0)), 0);
        ledger.arrive(&heard[0], &message(&payload(7, 0)), 0);
        ledger.arrive(&heard[0], &message(&payload(0, 10)), 0);
        ledger.arrive(&heard[0], &message(b"short"), 0);
        let other = payload(1, 0);
        let mut again = message(&other);
        again.qos = QoS::AtLeastOnce;
        ledger.arrive(&heard[1], &again, 0);
        assert_eq!((ledger.duplicated, ledger.reordered), (1, 1));
        assert_eq!((ledger.misrouted, ledger.qos_changed), (4, 1));
        // 2 of publisher 0 and 1 to 9 of publisher 1 are missing.
        assert_eq!(ledger.expected() - ledger.unique(), 1 + 9);
        assert!(!ledger.is_settled());
    }

    #[test]
    fn a_fan_out_settles_when_everybody_has_everything() {
        let mut plan = plan();
        plan.shape = Shape::FanOut {
            publishers: 2,
            subscribers: 3,
        };
        let (mut ledger, heard, _) = books(&plan);
        assert_eq!(ledger.expected(), 2 * 10 * 3);
        for (index, heard) in heard.iter().enumerate() {
            for number in 0..10 {
                for publisher in 0..2 {
                    assert!(!ledger.is_settled(), "{index}");
                    ledger.arrive(heard, &message(&payload(publisher, number)), 0);
                }
            }
        }
        assert!(ledger.is_settled());
        assert_eq!(ledger.unique(), 60);
    }

    #[test]
    fn a_group_counts_a_message_once_whoever_got_it() {
        let mut plan = plan();
        plan.shape = Shape::Shared {
            publishers: 1,
            subscribers: 2,
        };
        let (mut ledger, heard, _) = books(&plan);
        for number in [1, 3, 5, 7, 9] {
            ledger.arrive(&heard[0], &message(&payload(0, number)), 0);
        }
        for number in [0, 2, 4, 6, 8, 9] {
            ledger.arrive(&heard[1], &message(&payload(0, number)), 0);
        }
        assert_eq!((ledger.unique(), ledger.duplicated), (10, 1));
        assert_eq!((ledger.reordered, ledger.misrouted), (0, 0));
        assert!(ledger.is_settled());
    }

    #[test]
    fn a_fan_in_with_two_subscribers_divides_the_publishers() {
        let mut plan = plan();
        plan.shape = Shape::FanIn {
            publishers: 5,
            subscribers: 2,
        };
        let (mut ledger, heard, _) = books(&plan);
        for publisher in 0..5 {
            ledger.arrive(
                &heard[publisher as usize % 2],
                &message(&payload(publisher, 0)),
                0,
            );
        }
        assert_eq!((ledger.misrouted, ledger.unique()), (0, 5));
        ledger.arrive(&heard[0], &message(&payload(3, 1)), 0);
        assert_eq!(ledger.misrouted, 1);
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_only_in_the_window() {
        let mut plan = plan();
        plan.shape = Shape::Pairs { pairs: 1 };
        let (mut ledger, heard, _) = books(&plan);
        ledger.window = Window {
            from_ns: 1_000,
            to_ns: 2_000,
        };
        for (number, due_ns) in [(0, 999_u64), (1, 1_000), (2, 1_999), (3, 2_000)] {
            let mut bytes = payload(0, number);
            bytes[8..16].copy_from_slice(&due_ns.to_le_bytes());
            ledger.arrive(&heard[0], &message(&bytes), 5_000);
        }
        assert_eq!(ledger.latency.count(), 2);
        assert_eq!(ledger.latency.most_ns(), 4_000);
        assert_eq!(ledger.latency.least_ns(), 3_001);
    }
}
