//! What waits for one session: references to messages, and the exchanges that are under way.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::rc::Rc;

use casemate_codec::{PacketId, QoS};

use crate::message::Message;

/// The share group that chose a session: home shard, slot and serial, packed; see `share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GroupRef(pub u64);

/// No share group.
pub(crate) const NO_GROUP: GroupRef = GroupRef(u64::MAX);

/// Packet identifiers in one lap: 1 to 65,535.
const LAP: u64 = 65_535;

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
}

/// How far the exchange for one packet id has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// PUBLISH of QoS 1 sent.
    Puback,
    /// PUBLISH of QoS 2 sent.
    Pubrec,
    /// PUBREC received; PUBREL waits for durability or is sent.
    Pubcomp,
    /// Over; waits for those before it.
    Done,
}

/// One exchange.
pub(crate) struct Flight {
    /// Kept only where it may have to be sent again.
    pub message: Option<Message>,
    pub ids: Ids,
    pub group: GroupRef,
    pub retain: bool,
    pub phase: Phase,
    /// Counted against the receive maximum of the present connection.
    pub counted: bool,
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
    zero: VecDeque<Item>,
    waiting: VecDeque<Item>,
    flights: VecDeque<Flight>,
    /// Queue position of the first flight; a packet id is derived from a position.
    first: u64,
    /// The next flight to send (again) on the present connection.
    unsent: u64,
    /// The next flight whose PUBREL, if one is owed, is to be sent again on it.
    unreleased: u64,
    /// Flights that count against the receive maximum.
    counted: u32,
    bytes: usize,
    /// The part of `bytes` that waits at QoS 0.
    zero_bytes: usize,
    order: u32,
    /// Refusals since the queue last had room.
    pub refused: u64,
}

/// The identifier of the message at a queue position.
pub(crate) fn packet_id(position: u64) -> PacketId {
    // Cannot be zero: one is added to a number below 65,535.
    NonZeroU16::MIN.saturating_add((position % LAP) as u16)
}

impl Outbox {
    /// True where a new message may go straight into the window.
    #[inline]
    pub fn is_clear(&self) -> bool {
        // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.1 4.6.0-5] [MQTT-3.1.1 4.6.0-6] What waits is not
        // overtaken.
        self.zero.is_empty() && self.waiting.is_empty() && self.is_resumed()
    }

    /// True where nothing waits and no exchange is under way.
    pub fn is_finished(&self) -> bool {
        self.zero.is_empty() && self.waiting.is_empty() && self.flights.is_empty()
    }

    /// True where all that an earlier connection began has been sent again.
    #[inline]
    pub fn is_resumed(&self) -> bool {
        self.unsent == self.end()
    }

    /// Exchanges counted against the receive maximum.
    pub fn counted(&self) -> u32 {
        self.counted
    }

    fn end(&self) -> u64 {
        self.first + self.flights.len() as u64
    }

    /// True while a packet id is free for one more exchange.
    pub fn has_packet_id(&self) -> bool {
        (self.flights.len() as u64) < LAP - 1
    }

    /// Puts a reference into the queue, by the one overflow rule.
    pub fn push(&mut self, mut item: Item, bounds: Bounds) -> Admission {
        let bytes = item.message.bytes();
        item.order = self.order;
        self.order = self.order.wrapping_add(1);
        if item.qos == QoS::AtMostOnce {
            return self.push_zero(item, bytes, bounds);
        }
        let kept = self.waiting.len();
        if kept >= bounds.messages || self.bytes + bytes > bounds.bytes {
            self.refused += 1;
            return Admission::Refused;
        }
        self.bytes += bytes;
        // [MQTT-4.5.0-1] [MQTT-3.1.1 4.5.0-1]
        self.waiting.push_back(item);
        Admission::Queued
    }

    fn push_zero(&mut self, item: Item, bytes: usize, bounds: Bounds) -> Admission {
        let others = self.bytes - self.zero_bytes;
        if bounds.messages == 0 || others + bytes > bounds.bytes {
            // Nothing is given up for what cannot be kept anyway.
            return Admission::Dropped(1);
        }
        let mut dropped = 0;
        while self.zero.len() >= bounds.messages || self.bytes + bytes > bounds.bytes {
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

    /// Takes the next waiting message: the older of both queues, QoS 0 alone where the quota or
    /// the identifiers are used up.
    pub fn pop(&mut self, acknowledged_too: bool) -> Option<Item> {
        let zero = self.zero.front().map(|item| item.order);
        let waiting = self
            .waiting
            .front()
            .filter(|_| acknowledged_too)
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

    /// Begins the exchange of a message that is sent now; returns its packet id.
    pub fn launch(&mut self, flight: Flight) -> PacketId {
        let position = self.end();
        debug_assert_eq!(self.unsent, position);
        self.counted += u32::from(flight.counted);
        self.bytes += flight.message.as_ref().map_or(0, Message::bytes);
        // [MQTT-4.3.2-3] [MQTT-4.3.3-3] Unacknowledged from here on.
        self.flights.push_back(flight);
        self.unsent = position + 1;
        self.unreleased = position + 1;
        // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-3.1.1 2.3.1-2]
        // [MQTT-3.1.1 2.3.1-4] [MQTT-3.1.1 4.3.2-1]
        // [MQTT-3.1.1 4.3.3-1] No position comes twice before its lap is free.
        packet_id(position)
    }

    fn find(&mut self, id: PacketId) -> Option<&mut Flight> {
        let base = self.first % LAP;
        let offset = (u64::from(id.get()) - 1 + LAP - base) % LAP;
        // Not yet sent again on this connection: an acknowledgement for it still counts, as the
        // peer may have received it before.
        self.flights
            .get_mut(offset as usize)
            .filter(|flight| flight.phase != Phase::Done)
    }

    /// PUBREC came: the message is the receiver's; false where none was expected.
    pub fn received(&mut self, id: PacketId) -> bool {
        let Some(flight) = self.find(id) else {
            return false;
        };
        match flight.phase {
            Phase::Pubrec => {
                // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From here on it is PUBREL that is owed.
                flight.phase = Phase::Pubcomp;
                let freed = flight.message.take().map_or(0, |message| message.bytes());
                flight.ids = None;
                self.bytes -= freed;
                true
            }
            // A second PUBREC is answered by PUBREL again.
            Phase::Pubcomp => true,
            Phase::Puback | Phase::Done => false,
        }
    }

    /// Ends an exchange that is in `phase`; false where there is none.
    pub fn finish(&mut self, id: PacketId, phase: Phase) -> bool {
        let Some(flight) = self.find(id).filter(|flight| flight.phase == phase) else {
            return false;
        };
        flight.phase = Phase::Done;
        let counted = std::mem::take(&mut flight.counted);
        let freed = flight.message.take().map_or(0, |message| message.bytes());
        flight.ids = None;
        self.bytes -= freed;
        self.counted -= u32::from(counted);
        while self
            .flights
            .front()
            .is_some_and(|flight| flight.phase == Phase::Done)
        {
            self.flights.pop_front();
            self.first += 1;
        }
        self.unsent = self.unsent.max(self.first);
        self.unreleased = self.unreleased.max(self.first);
        true
    }

    /// Drops what waits at QoS 0: its reader is gone.
    pub fn forget_zero(&mut self) {
        self.zero.clear();
        self.bytes -= std::mem::take(&mut self.zero_bytes);
    }

    /// A new connection begins: everything unfinished is to be sent again, in order.
    pub fn rewind(&mut self) {
        // [MQTT-4.4.0-1] [MQTT-3.1.1 4.4.0-1] [MQTT-4.8.2-4]
        self.unsent = self.first;
        self.unreleased = self.first;
        self.counted = 0;
        for flight in &mut self.flights {
            flight.counted = false;
        }
    }

    /// The next exchange to resume on this connection, counted where it is a PUBLISH; none when
    /// all are resumed or the next would pass `quota`.
    pub fn resume_next(&mut self, quota: u32) -> Option<(PacketId, &Flight)> {
        // [MQTT-3.3.4-10] PUBREL waits for no quota, so that none stands behind a PUBLISH.
        while self.unreleased < self.end() {
            let position = self.unreleased;
            self.unreleased += 1;
            let index = (position - self.first) as usize;
            if self.flights[index].phase == Phase::Pubcomp {
                return self.flights.get(index).map(|it| (packet_id(position), it));
            }
        }
        let index = loop {
            let index = (self.unsent - self.first) as usize;
            match self.flights.get(index)?.phase {
                Phase::Done | Phase::Pubcomp => self.unsent += 1,
                Phase::Puback | Phase::Pubrec if self.counted >= quota => return None,
                Phase::Puback | Phase::Pubrec => {
                    self.counted += 1;
                    self.flights[index].counted = true;
                    break index;
                }
            }
        };
        let id = packet_id(self.unsent);
        self.unsent += 1;
        self.flights.get(index).map(|flight| (id, flight))
    }

    /// Messages of share groups that another member may still get when this session ends: all
    /// that wait, and those of QoS 1 under way.
    pub fn take_shared(&mut self) -> Vec<Item> {
        let mut shared = Vec::new();
        for flight in &mut self.flights {
            // [MQTT-4.8.2-5] At QoS 2 the client may have it already.
            if flight.group != NO_GROUP && flight.phase == Phase::Puback {
                if let Some(message) = flight.message.clone() {
                    shared.push(Item {
                        message,
                        ids: None,
                        group: flight.group,
                        qos: QoS::AtLeastOnce,
                        retain: false,
                        order: 0,
                    });
                }
            }
        }
        let waiting = self.waiting.drain(..).filter(|item| item.group != NO_GROUP);
        shared.extend(waiting);
        shared
    }
}
