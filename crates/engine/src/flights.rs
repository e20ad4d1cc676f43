//! The exchanges of one session that are under way, and the packet identifiers that they bear.

use std::collections::VecDeque;
use std::num::NonZeroU16;

use casemate_codec::{PacketId, QoS};

use crate::message::Message;
use crate::outbox::{GroupRef, Ids, NO_GROUP};

/// Packet identifiers in one lap: 1 to 65,535.
const LAP: u32 = 65_535;

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
#[derive(Clone, Copy)]
struct Progress {
    phase: Phase,
    /// Counted against the receive maximum of the present connection.
    counted: bool,
}

/// What an exchange sends, kept where that may have to be sent (again).
pub(crate) struct Flight {
    /// Gone when it is the receiver's.
    pub message: Option<Message>,
    pub ids: Ids,
    pub group: GroupRef,
    pub retain: bool,
    /// 0 where the client may have got it; else it has not left, and may when everything up to
    /// this is durable.
    pub held_until: u64,
}

/// Nothing: what stands for an exchange of which nothing is kept, between others.
impl Default for Flight {
    fn default() -> Flight {
        Flight {
            message: None,
            ids: None,
            group: NO_GROUP,
            retain: false,
            held_until: SENT,
        }
    }
}

impl Flight {
    fn bytes(&self) -> usize {
        self.message.as_ref().map_or(0, Message::bytes)
    }

    /// Gives up the message; says how many bytes that frees.
    fn release(&mut self) -> usize {
        self.ids = None;
        self.message.take().map_or(0, |message| message.bytes())
    }
}

/// What is to be sent (again).
pub(crate) struct Resumed<'a> {
    pub id: PacketId,
    pub phase: Phase,
    pub flight: Option<&'a Flight>,
    /// The client may have got it before.
    pub dup: bool,
}

/// What [`Flights::resume_next`] found.
pub(crate) enum Resume<'a> {
    Send(Resumed<'a>),
    /// The next may not leave before more is durable.
    Held,
    /// There is none, or no quota for it.
    Nothing,
}

/// What is kept of exchanges: of the last, as many as there are here.
#[derive(Default)]
struct Kept {
    flights: VecDeque<Flight>,
    bytes: usize,
}

/// The exchanges of one session.
#[derive(Default)]
pub(crate) struct Flights {
    exchanges: VecDeque<Progress>,
    /// Nothing in a session that ends with its connection and is in no share group.
    kept: Option<Box<Kept>>,
    /// Queue position of the first exchange; a packet id is derived from a position.
    first: u64,
    /// `first` within its lap.
    lap_at: u32,
    /// So many exchanges have been sent, again or first, on the present connection.
    sent: u32,
    /// Of so many a PUBREL that is owed was sent again on it.
    released: u32,
    /// Exchanges that count against the receive maximum.
    counted: u32,
}

impl Flights {
    /// As they were before a restart, from the position of the first on.
    pub fn restored(first: u64, flights: impl Iterator<Item = (Phase, Flight)>) -> Flights {
        let (exchanges, kept): (VecDeque<_>, VecDeque<_>) = flights
            .map(|(phase, flight)| {
                let counted = false;
                (Progress { phase, counted }, flight)
            })
            .unzip();
        Flights {
            first,
            lap_at: (first % u64::from(LAP)) as u32,
            exchanges,
            kept: Some(Box::new(Kept {
                bytes: kept.iter().map(Flight::bytes).sum(),
                flights: kept,
            })),
            ..Flights::default()
        }
    }

    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// Bytes of the messages that are kept.
    pub fn bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.bytes)
    }

    /// True where all that an earlier connection began has been sent again.
    #[inline]
    pub fn is_resumed(&self) -> bool {
        self.sent as usize == self.exchanges.len()
    }

    /// Exchanges that count against the receive maximum, now or when they are sent.
    #[inline]
    pub fn counted(&self) -> u32 {
        // Cannot truncate: there are fewer than 65,535.
        self.counted + self.exchanges.len() as u32 - self.sent
    }

    /// True while a packet id is free for one more exchange.
    #[inline]
    pub fn has_packet_id(&self) -> bool {
        self.has_packet_ids(1)
    }

    /// True while packet ids are free for so many more exchanges.
    #[inline]
    pub fn has_packet_ids(&self, count: u32) -> bool {
        self.exchanges.len() + (count as usize) < LAP as usize
    }

    /// Position of the first exchange.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// The exchanges with their positions, those that are over and wait for others included.
    pub fn iter(&self) -> impl Iterator<Item = (u64, Phase, Option<&Flight>)> {
        let phases = self.exchanges.iter().map(|progress| progress.phase);
        (self.first..)
            .zip(phases)
            .enumerate()
            .map(|(index, (position, phase))| (position, phase, self.flight(index)))
    }

    fn flight(&self, index: usize) -> Option<&Flight> {
        let kept = self.kept.as_ref()?;
        let place = index.checked_sub(self.exchanges.len() - kept.flights.len())?;
        kept.flights.get(place)
    }

    fn flight_mut(&mut self, index: usize) -> Option<&mut Flight> {
        let kept = self.kept.as_mut()?;
        let place = index.checked_sub(self.exchanges.len() - kept.flights.len())?;
        kept.flights.get_mut(place)
    }

    /// The client may have got it.
    #[inline]
    fn was_sent(&self, index: usize) -> bool {
        self.kept.is_none()
            || self
                .flight(index)
                .is_none_or(|flight| flight.held_until == SENT)
    }

    /// The identifier of an exchange.
    #[inline]
    fn packet_id(&self, index: usize) -> PacketId {
        // Cannot truncate: there are fewer than 65,535.
        let mut offset = self.lap_at + index as u32;
        if offset >= LAP {
            offset -= LAP;
        }
        // Cannot be zero: one is added to a number below 65,535.
        NonZeroU16::MIN.saturating_add(offset as u16)
    }

    /// The exchange that an identifier means, which may be none of ours.
    #[inline]
    fn index(&self, id: PacketId) -> usize {
        let offset = u32::from(id.get()) - 1;
        let lap = if offset < self.lap_at { LAP } else { 0 };
        (offset + lap - self.lap_at) as usize
    }

    /// Begins the exchange of a message that is sent now; returns its packet id.
    #[inline]
    pub fn launch(&mut self, qos: QoS, flight: Option<Flight>) -> PacketId {
        let index = self.exchanges.len();
        debug_assert!(self.is_resumed());
        self.counted += 1;
        // [MQTT-4.3.2-3] [MQTT-4.3.3-3] Unacknowledged from here on.
        self.exchanges.push_back(Progress {
            phase: Phase::of(qos),
            counted: true,
        });
        if flight.is_some() || self.kept.is_some() {
            self.keep(Flight {
                held_until: SENT,
                ..flight.unwrap_or_default()
            });
        }
        self.sent = index as u32 + 1;
        self.released = self.sent;
        // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-3.1.1 2.3.1-2]
        // [MQTT-3.1.1 2.3.1-4] [MQTT-3.1.1 4.3.2-1]
        // [MQTT-3.1.1 4.3.3-1] No position comes twice before its lap is free.
        self.packet_id(index)
    }

    /// Begins so many exchanges of QoS 1, of which nothing is kept; gives their packet ids.
    #[inline]
    pub fn launch_run(&mut self, count: u32) -> impl Iterator<Item = PacketId> + '_ {
        let from = self.exchanges.len();
        debug_assert!(self.is_resumed());
        self.counted += count;
        // [MQTT-4.3.2-3] Unacknowledged from here on.
        let begun = Progress {
            phase: Phase::Puback,
            counted: true,
        };
        self.exchanges.resize(from + count as usize, begun);
        if let Some(kept) = &mut self.kept {
            let length = kept.flights.len() + count as usize;
            kept.flights.resize_with(length, Flight::default);
        }
        // Cannot truncate: there are fewer than 65,535.
        self.sent = self.exchanges.len() as u32;
        self.released = self.sent;
        // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-3.1.1 2.3.1-2] [MQTT-3.1.1 2.3.1-4]
        // [MQTT-3.1.1 4.3.2-1]
        (from..from + count as usize).map(|index| self.packet_id(index))
    }

    /// Ends the first exchanges where these PUBACKs mean them in their order and nothing of them
    /// is kept, as most come; says how many it has ended.
    #[inline]
    pub fn finish_in_order(&mut self, acknowledged: impl Iterator<Item = PacketId>) -> usize {
        if self.kept.is_some() {
            return 0;
        }
        let (expected, _) = self.exchanges.as_slices();
        let due = |progress: &Progress| progress.phase == Phase::Puback && progress.counted;
        let count = expected
            .iter()
            .zip(acknowledged)
            .enumerate()
            .take_while(|(index, (progress, id))| due(progress) && *id == self.packet_id(*index))
            .count();
        self.exchanges.drain(..count);
        // Cannot truncate: there are fewer than 65,535.
        let ended = count as u32;
        self.counted -= ended;
        self.advance(ended);
        self.pop_done();
        count
    }

    /// Begins the exchange of a message that is sent later, in its turn; see
    /// [`Flights::resume_next`].
    pub fn stage(&mut self, qos: QoS, flight: Flight) {
        self.exchanges.push_back(Progress {
            phase: Phase::of(qos),
            counted: false,
        });
        self.keep(flight);
    }

    fn keep(&mut self, flight: Flight) {
        let kept = self.kept.get_or_insert_default();
        kept.bytes += flight.bytes();
        kept.flights.push_back(flight);
    }

    /// The exchange that an acknowledgement may mean: one that is to be sent again on this
    /// connection counts, as the peer may have received it before.
    #[inline]
    fn find(&mut self, id: PacketId, phase: Phase) -> Option<(usize, &mut Progress)> {
        let index = self.index(id);
        let sent = self.was_sent(index);
        self.exchanges
            .get_mut(index)
            .filter(|progress| progress.phase == phase && sent)
            .map(|progress| (index, progress))
    }

    fn release(&mut self, index: usize) {
        let freed = self.flight_mut(index).map_or(0, Flight::release);
        if let Some(kept) = &mut self.kept {
            kept.bytes -= freed;
        }
    }

    /// PUBREC came: the message is the receiver's. Says at which position; nothing where none was
    /// expected.
    pub fn received(&mut self, id: PacketId) -> Option<u64> {
        let index = match self.find(id, Phase::Pubrec) {
            Some((index, progress)) => {
                // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From here on it is PUBREL that is owed.
                progress.phase = Phase::Pubcomp;
                self.release(index);
                index
            }
            // A second PUBREC is answered by PUBREL again.
            None => self.find(id, Phase::Pubcomp)?.0,
        };
        Some(self.first + index as u64)
    }

    /// Ends an exchange that is in `phase`, and says at which position; nothing where there was
    /// none.
    #[inline]
    pub fn finish(&mut self, id: PacketId, phase: Phase) -> Option<u64> {
        let (index, progress) = self.find(id, phase)?;
        progress.phase = Phase::Done;
        let counted = std::mem::take(&mut progress.counted);
        self.counted -= u32::from(counted);
        if self.kept.is_some() {
            self.release(index);
        }
        let position = self.first + index as u64;
        self.pop_done();
        Some(position)
    }

    fn pop_done(&mut self) {
        let is_done = |progress: &Progress| progress.phase == Phase::Done;
        while self.exchanges.front().is_some_and(is_done) {
            self.exchanges.pop_front();
            if let Some(kept) = &mut self.kept {
                if kept.flights.len() > self.exchanges.len() {
                    kept.flights.pop_front();
                }
            }
            self.advance(1);
        }
    }

    /// So many exchanges are gone from the front; fewer than a lap.
    #[inline]
    fn advance(&mut self, count: u32) {
        self.first += u64::from(count);
        self.lap_at += count;
        if self.lap_at >= LAP {
            self.lap_at -= LAP;
        }
        self.sent = self.sent.saturating_sub(count);
        self.released = self.released.saturating_sub(count);
    }

    /// An exchange of QoS 2 becomes one of QoS 1, before its message is sent; says its position.
    pub fn lower(&mut self, id: PacketId) -> Option<u64> {
        let (index, progress) = self.find(id, Phase::Pubrec)?;
        progress.phase = Phase::Puback;
        Some(self.first + index as u64)
    }

    /// A new connection begins: everything unfinished is to be sent again, in order.
    pub fn rewind(&mut self) {
        // [MQTT-4.4.0-1] [MQTT-3.1.1 4.4.0-1] [MQTT-4.8.2-4]
        self.sent = 0;
        self.released = 0;
        self.counted = 0;
        for progress in &mut self.exchanges {
            progress.counted = false;
        }
    }

    /// The next exchange to begin or to resume on this connection, counted where it is a PUBLISH;
    /// `persisted` is what is durable.
    pub fn resume_next(&mut self, quota: u32, persisted: u64) -> Resume<'_> {
        // [MQTT-3.3.4-10] PUBREL waits for no quota, so that none stands behind a PUBLISH.
        while let Some(progress) = self.exchanges.get(self.released as usize) {
            self.released += 1;
            if progress.phase == Phase::Pubcomp {
                return self.resumed(self.released as usize - 1, true);
            }
        }
        loop {
            let index = self.sent as usize;
            let Some(progress) = self.exchanges.get(index) else {
                return Resume::Nothing;
            };
            if matches!(progress.phase, Phase::Done | Phase::Pubcomp) {
                self.sent += 1;
                continue;
            }
            if self.counted >= quota {
                return Resume::Nothing;
            }
            let mut dup = true;
            if let Some(flight) = self.flight_mut(index) {
                if flight.held_until > persisted {
                    return Resume::Held;
                }
                dup = flight.held_until == SENT;
                flight.held_until = SENT;
            }
            self.exchanges[index].counted = true;
            self.counted += 1;
            self.sent += 1;
            return self.resumed(index, dup);
        }
    }

    fn resumed(&self, index: usize, dup: bool) -> Resume<'_> {
        Resume::Send(Resumed {
            id: self.packet_id(index),
            phase: self.exchanges[index].phase,
            flight: self.flight(index),
            dup,
        })
    }

    /// Messages of share groups that another member may still get when this session ends: those
    /// of QoS 1, and those of QoS 2 that were not sent.
    pub fn shared(&self) -> impl Iterator<Item = (QoS, GroupRef, &Message)> {
        self.iter().filter_map(|(_, phase, flight)| {
            let flight = flight.filter(|flight| flight.group != NO_GROUP)?;
            let qos = match phase {
                Phase::Puback => QoS::AtLeastOnce,
                Phase::Pubrec if flight.held_until != SENT => QoS::ExactlyOnce,
                // [MQTT-4.8.2-5] At QoS 2 the client may have it already.
                _ => return None,
            };
            Some((qos, flight.group, flight.message.as_ref()?))
        })
    }
}
