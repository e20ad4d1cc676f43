//! What waits for one session: references to messages.

use std::collections::VecDeque;
use std::rc::Rc;

use casemate_codec::QoS;

use crate::flights::Flights;
use crate::journal::Whole;
use crate::message::Message;

/// The share group that chose a session: home shard, slot and serial, packed; see `share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupRef(pub u64);

/// No share group.
pub(crate) const NO_GROUP: GroupRef = GroupRef(u64::MAX);

/// Subscription identifiers that go along; none is the usual case.
pub(crate) type Ids = Option<Rc<Vec<u32>>>;

/// A reference to a message for this session.
#[derive(Clone)]
pub(crate) struct Item {
    pub message: Message,
    pub ids: Ids,
    /// The share group that chose this session, or [`NO_GROUP`].
    pub group: GroupRef,
    pub qos: QoS,
    /// The RETAIN flag of the outgoing packet.
    pub retain: bool,
    /// Order of arrival among QoS 0 and QoS 1/2.
    pub order: u32,
    /// Its number in the session's journal; 0 where none is kept.
    pub entry: u64,
    /// It may leave only when this is complete.
    pub whole: Whole,
}

/// What a full queue does with a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Queued,
    /// Of QoS 0: so many were dropped, oldest first; the newcomer too, if it alone does not fit.
    Dropped(u64),
    /// QoS 1 and 2: refused for this session, newest first.
    Refused,
}

/// Bounds of one outbox.
#[derive(Clone, Copy)]
pub(crate) struct Bounds {
    pub messages: usize,
    pub bytes: usize,
}

/// Queues and exchanges of one session.
#[derive(Default)]
pub(crate) struct Outbox {
    pub flights: Flights,
    /// Boxed, and none of those that have always kept up, as idle sessions have.
    queues: Option<Box<Queues>>,
    /// Number of the last entry of the journal.
    entered: u64,
}

/// What waits for one session.
#[derive(Default)]
struct Queues {
    zero: VecDeque<Item>,
    waiting: VecDeque<Item>,
    /// What waits.
    bytes: usize,
    /// The part of `bytes` that waits at QoS 0.
    zero_bytes: usize,
    order: u32,
    /// Refusals since the queue last had room.
    refused: u64,
}

impl Outbox {
    /// True where a new message may go straight into the window.
    #[inline]
    pub fn is_clear(&self) -> bool {
        // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.1 4.6.0-5] [MQTT-3.1.1 4.6.0-6] What waits is not
        // overtaken.
        self.is_nothing_queued() && self.flights.is_resumed()
    }

    /// True where nothing waits and no exchange is under way.
    pub fn is_finished(&self) -> bool {
        self.is_nothing_queued() && self.flights.is_empty()
    }

    #[inline]
    fn is_nothing_queued(&self) -> bool {
        self.queues
            .as_ref()
            .is_none_or(|queues| queues.zero.is_empty() && queues.waiting.is_empty())
    }

    /// What waits at QoS 1 and 2.
    pub fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.queues.iter().flat_map(|queues| queues.waiting.iter())
    }

    /// As it was before a restart: exchanges, what waits, and the number of the last entry.
    pub fn restored(flights: Flights, waiting: VecDeque<Item>, entered: u64) -> Outbox {
        Outbox {
            flights,
            queues: waiting
                .back()
                .map(|item| item.order.wrapping_add(1))
                .map(|order| {
                    Box::new(Queues {
                        bytes: waiting.iter().map(|item| item.message.bytes()).sum(),
                        order,
                        waiting,
                        ..Queues::default()
                    })
                }),
            entered,
        }
    }

    /// The number of a new entry of the journal.
    pub fn enter(&mut self) -> u64 {
        self.entered += 1;
        self.entered
    }

    /// Refusals since the queue last had room.
    pub fn refused(&self) -> u64 {
        self.queues.as_ref().map_or(0, |queues| queues.refused)
    }

    /// Puts a reference into the queue, by the one overflow rule.
    pub fn push(&mut self, item: Item, bounds: Bounds) -> Admission {
        let under_way = self.flights.bytes();
        let queues = self.queues.get_or_insert_default();
        queues.push(item, under_way, bounds)
    }

    /// Takes the next waiting message: the older of both queues, QoS 0 alone where the quota or
    /// the identifiers are used up.
    pub fn pop(&mut self, acknowledged_too: bool) -> Option<Item> {
        self.queues.as_mut()?.pop(acknowledged_too)
    }

    /// Drops what waits at QoS 0: its reader is gone.
    pub fn forget_zero(&mut self) {
        if let Some(queues) = &mut self.queues {
            queues.zero.clear();
            queues.bytes -= std::mem::take(&mut queues.zero_bytes);
        }
    }

    /// The publisher's shard has said that an entry may leave.
    pub fn complete(&mut self, entry: u64) {
        let Some(Queues { waiting, .. }) = self.queues.as_deref_mut() else {
            return;
        };
        let place = waiting.binary_search_by_key(&entry, |item| item.entry);
        if let Ok(place) = place {
            waiting[place].whole = Whole::NONE;
        }
    }

    /// Messages of share groups that another member may still get when this session ends: all
    /// that wait, and those under way that are of QoS 1 or were not sent.
    pub fn take_shared(&mut self) -> Vec<Item> {
        let under_way = self.flights.shared().map(|(qos, group, message)| Item {
            message: message.clone(),
            ids: None,
            group,
            qos,
            retain: false,
            order: 0,
            entry: 0,
            whole: Whole::NONE,
        });
        let mut shared: Vec<Item> = under_way.collect();
        let waiting = self
            .queues
            .iter_mut()
            .flat_map(|queues| queues.waiting.drain(..));
        shared.extend(waiting.filter(|item| item.group != NO_GROUP));
        shared
    }
}

impl Queues {
    /// See [`Outbox::push`]; `under_way` counts for the bound too, bytes.
    fn push(&mut self, mut item: Item, under_way: usize, bounds: Bounds) -> Admission {
        let bytes = item.message.bytes();
        item.order = self.order;
        self.order = self.order.wrapping_add(1);
        if item.qos == QoS::AtMostOnce {
            return self.push_zero(item, bytes, under_way, bounds);
        }
        let kept = self.waiting.len();
        if kept >= bounds.messages || self.bytes + under_way + bytes > bounds.bytes {
            self.refused += 1;
            return Admission::Refused;
        }
        self.bytes += bytes;
        // [MQTT-4.5.0-1] [MQTT-3.1.1 4.5.0-1]
        self.waiting.push_back(item);
        Admission::Queued
    }

    fn push_zero(
        &mut self,
        item: Item,
        bytes: usize,
        under_way: usize,
        bounds: Bounds,
    ) -> Admission {
        let others = self.bytes + under_way - self.zero_bytes;
        if bounds.messages == 0 || others + bytes > bounds.bytes {
            // Nothing is given up for what cannot be kept anyway.
            return Admission::Dropped(1);
        }
        let mut dropped = 0;
        while self.zero.len() >= bounds.messages || self.bytes + under_way + bytes > bounds.bytes {
            let Some(oldest) = self.zero.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.bytes();
            self.zero_bytes -= oldest.message.bytes();
            dropped += 1;
        }
        self.bytes += bytes;
        self.zero_bytes += bytes;
        self.zero.push_back(item);
        if dropped == 0 {
            Admission::Queued
        } else {
            Admission::Dropped(dropped)
        }
    }

    /// See [`Outbox::pop`].
    fn pop(&mut self, acknowledged_too: bool) -> Option<Item> {
        let zero = self.zero.front().map(|item| item.order);
        let waiting = self
            .waiting
            .front()
            .filter(|item| acknowledged_too && !item.whole.is_some())
            .map(|item| item.order);
        let item = match (zero, waiting) {
            (None, None) => return None,
            (Some(_), None) => self.zero.pop_front(),
            (None, Some(_)) => self.waiting.pop_front(),
            (Some(a), Some(b)) if (a.wrapping_sub(b) as i32) < 0 => self.zero.pop_front(),
            (Some(_), Some(_)) => self.waiting.pop_front(),
        }?;
        self.bytes -= item.message.bytes();
        if item.qos == QoS::AtMostOnce {
            self.zero_bytes -= item.message.bytes();
        }
        if self.waiting.is_empty() {
            self.refused = 0;
        }
        Some(item)
    }
}
