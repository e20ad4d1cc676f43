//! What waits for one session: references to messages, and the exchanges that are under way.

use std::collections::VecDeque;
use std::num::NonZeroU16;
use std::rc::Rc;

use casemate_codec::{PacketId, QoS};

use crate::journal::Whole;
use crate::message::Message;

/// The share group that chose a session: home shard, slot and serial, packed; see `share`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
    /// Its number in the session's journal; 0 where none is kept.
    pub entry: u64,
    /// It may leave only when this is complete.
    pub whole: Whole,
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

impl Phase {
    /// Where an exchange begins.
    pub fn of(qos: QoS) -> Phase {
        match qos {
            QoS::ExactlyOnce => Phase::Pubrec,
            _ => Phase::Puback,
        }
    }
}

/// A message that has left.
pub(crate) const SENT: u64 = 0;

/// Of a message that waits for nothing but its turn: what is durable as soon as anybody is there.
pub(crate) const IN_TURN: u64 = 1;

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
    /// 0 where the client may have got it; else it has not left, and may when everything up to
    /// this is durable.
    pub held_until: u64,
}

impl Flight {
    /// The client may have got it.
    pub fn was_sent(&self) -> bool {
        self.held_until == SENT
    }
}

/// What is to be sent (again).
pub(crate) struct Resumed<'a> {
    pub id: PacketId,
    pub flight: &'a Flight,
    /// The client may have got it before.
    pub dup: bool,
}

/// What [`Outbox::resume_next`] found.
pub(crate) enum Resume<'a> {
    Send(Resumed<'a>),
    /// The next may not leave before more is durable.
    Held,
    /// There is none, or no quota for it.
    Nothing,
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
    /// Number of the last entry of the journal.
    entered: u64,
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

    /// Exchanges that count against the receive maximum, now or when they are sent.
    pub fn counted(&self) -> u32 {
        // Cannot truncate: there are fewer than 65,535 flights.
        self.counted + (self.end() - self.unsent) as u32
    }

    /// Position of the first exchange.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The exchanges with their positions, those that are over and wait for others included.
    pub fn flights(&self) -> impl Iterator<Item = (u64, &Flight)> {
        (self.first..).zip(&self.flights)
    }

    /// What waits at QoS 1 and 2.
    pub fn waiting(&self) -> impl Iterator<Item = &Item> {
        self.waiting.iter()
    }

    /// As it was before a restart: the position of the first exchange, exchanges, what waits, and
    /// the number of the last entry.
    pub fn restored(
        first: u64,
        flights: VecDeque<Flight>,
        waiting: VecDeque<Item>,
        entered: u64,
    ) -> Outbox {
        let under_way = flights.iter().filter_map(|flight| flight.message.as_ref());
        let bytes = under_way
            .chain(waiting.iter().map(|item| &item.message))
            .map(Message::bytes)
            .sum();
        Outbox {
            first,
            unsent: first,
            unreleased: first,
            order: waiting.back().map_or(0, |item| item.order.wrapping_add(1)),
            flights,
            waiting,
            entered,
            bytes,
            ..Outbox::default()
        }
    }

    /// The number of a new entry of the journal.
    pub fn enter(&mut self) -> u64 {
        self.entered += 1;
        self.entered
    }

    /// Position of the next exchange.
    pub fn end(&self) -> u64 {
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

    /// Begins the exchange of a message that is sent now; returns its packet id.
    pub fn launch(&mut self, flight: Flight) -> PacketId {
        let position = self.end();
        debug_assert_eq!(self.unsent, position);
        self.counted += 1;
        self.bytes += flight.message.as_ref().map_or(0, Message::bytes);
        // [MQTT-4.3.2-3] [MQTT-4.3.3-3] Unacknowledged from here on.
        self.flights.push_back(Flight {
            counted: true,
            held_until: SENT,
            ..flight
        });
        self.unsent = position + 1;
        self.unreleased = position + 1;
        // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-3.1.1 2.3.1-2]
        // [MQTT-3.1.1 2.3.1-4] [MQTT-3.1.1 4.3.2-1]
        // [MQTT-3.1.1 4.3.3-1] No position comes twice before its lap is free.
        packet_id(position)
    }

    /// Begins the exchange of a message that is sent later, in its turn; see
    /// [`Outbox::resume_next`].
    pub fn stage(&mut self, flight: Flight) {
        self.bytes += flight.message.as_ref().map_or(0, Message::bytes);
        self.flights.push_back(flight);
    }

    /// The position that an identifier means.
    pub fn position(&self, id: PacketId) -> u64 {
        let base = self.first % LAP;
        self.first + (u64::from(id.get()) - 1 + LAP - base) % LAP
    }

    /// The exchange at a position, as far as an acknowledgement may mean it: one that is to be sent
    /// again on this connection counts, as the peer may have received it before.
    fn find(&mut self, position: u64) -> Option<&mut Flight> {
        self.flights
            .get_mut((position - self.first) as usize)
            .filter(|flight| flight.phase != Phase::Done && flight.was_sent())
    }

    /// PUBREC came: the message is the receiver's. Says at which position; nothing where none was
    /// expected.
    pub fn received(&mut self, id: PacketId) -> Option<u64> {
        let position = self.position(id);
        let flight = self.find(position)?;
        match flight.phase {
            Phase::Pubrec => {
                // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From here on it is PUBREL that is owed.
                flight.phase = Phase::Pubcomp;
                let freed = flight.message.take().map_or(0, |message| message.bytes());
                flight.ids = None;
                self.bytes -= freed;
                Some(position)
            }
            // A second PUBREC is answered by PUBREL again.
            Phase::Pubcomp => Some(position),
            Phase::Puback | Phase::Done => None,
        }
    }

    /// Ends an exchange that is in `phase`, and says at which position; nothing where there was
    /// none.
    pub fn finish(&mut self, id: PacketId, phase: Phase) -> Option<u64> {
        let position = self.position(id);
        let flight = self.find(position).filter(|flight| flight.phase == phase)?;
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
        Some(position)
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

    /// The next exchange to begin or to resume on this connection, counted where it is a PUBLISH;
    /// `persisted` is what is durable.
    pub fn resume_next(&mut self, quota: u32, persisted: u64) -> Resume<'_> {
        // [MQTT-3.3.4-10] PUBREL waits for no quota, so that none stands behind a PUBLISH.
        while self.unreleased < self.end() {
            let position = self.unreleased;
            self.unreleased += 1;
            let index = (position - self.first) as usize;
            if self.flights[index].phase == Phase::Pubcomp {
                return self.resumed(position, true);
            }
        }
        loop {
            let index = (self.unsent - self.first) as usize;
            let Some(flight) = self.flights.get_mut(index) else {
                return Resume::Nothing;
            };
            match flight.phase {
                Phase::Done | Phase::Pubcomp => self.unsent += 1,
                Phase::Puback | Phase::Pubrec if self.counted >= quota => return Resume::Nothing,
                Phase::Puback | Phase::Pubrec if flight.held_until > persisted => {
                    return Resume::Held;
                }
                Phase::Puback | Phase::Pubrec => {
                    self.counted += 1;
                    flight.counted = true;
                    let dup = flight.was_sent();
                    flight.held_until = SENT;
                    let position = self.unsent;
                    self.unsent += 1;
                    return self.resumed(position, dup);
                }
            }
        }
    }

    fn resumed(&self, position: u64, dup: bool) -> Resume<'_> {
        match self.flights.get((position - self.first) as usize) {
            Some(flight) => Resume::Send(Resumed {
                id: packet_id(position),
                flight,
                dup,
            }),
            None => Resume::Nothing,
        }
    }

    /// An exchange of QoS 2 becomes one of QoS 1, before its message is sent; says its position.
    pub fn lower(&mut self, id: PacketId) -> Option<u64> {
        let position = self.position(id);
        let flight = self
            .find(position)
            .filter(|flight| flight.phase == Phase::Pubrec)?;
        flight.phase = Phase::Puback;
        Some(position)
    }

    /// The publisher's shard has said that an entry may leave.
    pub fn complete(&mut self, entry: u64) {
        let place = self.waiting.binary_search_by_key(&entry, |item| item.entry);
        if let Ok(place) = place {
            self.waiting[place].whole = Whole::NONE;
        }
    }

    /// Messages of share groups that another member may still get when this session ends: all
    /// that wait, and those under way that are of QoS 1 or were not sent.
    pub fn take_shared(&mut self) -> Vec<Item> {
        let mut shared = Vec::new();
        for flight in &mut self.flights {
            let qos = match flight.phase {
                Phase::Puback => QoS::AtLeastOnce,
                Phase::Pubrec if !flight.was_sent() => QoS::ExactlyOnce,
                // [MQTT-4.8.2-5] At QoS 2 the client may have it already.
                _ => continue,
            };
            if flight.group != NO_GROUP {
                if let Some(message) = flight.message.clone() {
                    shared.push(Item {
                        message,
                        ids: None,
                        group: flight.group,
                        qos,
                        retain: false,
                        order: 0,
                        entry: 0,
                        whole: Whole::NONE,
                    });
                }
            }
        }
        let waiting = self.waiting.drain(..).filter(|item| item.group != NO_GROUP);
        shared.extend(waiting);
        shared
    }
}
