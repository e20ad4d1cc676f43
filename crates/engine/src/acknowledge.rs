//! Acknowledgements: each waits, in order, until what it promises is durable and received.

use std::num::NonZeroU16;

use casemate_codec::{encode, Ack, Packet, PacketId, QoS, Reason, UserProperties, Version};

use crate::connection::{Flow, Phase as ConnectionPhase};
use crate::door::Effect;
use crate::event::Loss;
use crate::flights::Phase;
use crate::journal::Record;
use crate::shard::Shard;

/// First bytes of the four small acknowledgements.
pub(crate) const PUBACK: u8 = 0x40;
pub(crate) const PUBREC: u8 = 0x50;
const PUBREL: u8 = 0x62;
/// What one takes that has nothing to say.
const PUBACK_BYTES: usize = 4;
const PUBCOMP: u8 = 0x70;

/// What an acknowledgement depends on; the default depends on nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stake {
    /// Durable up to here.
    pub seq: u64,
    /// The neighbours have confirmed these of our numbers; `last` is 0 where there are none.
    pub first: u64,
    pub last: u64,
    /// All messages up to here are kept by every shard that has them; see `completion`.
    pub whole: u64,
}

impl Stake {
    /// Both.
    pub fn and(self, other: Stake) -> Stake {
        let first = match (self.last, other.last) {
            (0, _) => other.first,
            (_, 0) => self.first,
            _ => self.first.min(other.first),
        };
        Stake {
            seq: self.seq.max(other.seq),
            first,
            last: self.last.max(other.last),
            whole: self.whole.max(other.whole),
        }
    }

    /// One number, or a run of them.
    pub fn of_numbers(first: u64, last: u64) -> Stake {
        Stake {
            first,
            last,
            ..Stake::default()
        }
    }

    /// True where it waits for neighbours.
    pub fn has_numbers(self) -> bool {
        self.last > 0
    }
}

/// An acknowledgement and what it waits for.
pub(crate) struct Gated {
    stake: Stake,
    gate: Gate,
}

impl Gated {
    /// True for the acknowledgement of a message or of a step of its exchange.
    pub fn is_of_message(&self) -> bool {
        matches!(self.gate, Gate::Small { .. } | Gate::Pubacks(_))
    }
}

/// What leaves when the way is free.
pub(crate) enum Gate {
    /// PUBACK, PUBREC, PUBREL or PUBCOMP.
    Small {
        first: u8,
        id: PacketId,
        reason: Reason,
    },
    /// The PUBACKs of a run of messages, which wait for the same.
    Pubacks(Box<[u8]>),
    /// CONNACK; then the session's messages.
    Connack(Box<[u8]>),
    /// SUBACK; then the retained messages.
    Suback { bytes: Box<[u8]>, id: PacketId },
    /// UNSUBACK.
    Unsuback(Box<[u8]>),
}

impl Gate {
    pub fn puback(id: PacketId, reason: Reason) -> Gate {
        Gate::Small {
            first: PUBACK,
            id,
            reason,
        }
    }

    /// Success for each of a run of messages.
    pub fn pubacks(ids: impl Iterator<Item = PacketId>) -> Gate {
        let count_max = ids.size_hint().1.unwrap_or(0);
        let mut bytes = Vec::with_capacity(count_max * PUBACK_BYTES);
        for id in ids {
            write_success(PUBACK, id, &mut bytes);
        }
        Gate::Pubacks(bytes.into())
    }

    pub fn pubrec(id: PacketId, reason: Reason) -> Gate {
        Gate::Small {
            first: PUBREC,
            id,
            reason,
        }
    }

    fn pubrel(id: PacketId, reason: Reason) -> Gate {
        Gate::Small {
            first: PUBREL,
            id,
            reason,
        }
    }

    fn pubcomp(id: PacketId, reason: Reason) -> Gate {
        Gate::Small {
            first: PUBCOMP,
            id,
            reason,
        }
    }
}

/// Writes a PUBACK, PUBREC, PUBREL or PUBCOMP that has nothing to say, as nearly all of them.
fn write_success(first: u8, id: NonZeroU16, out: &mut Vec<u8>) {
    // [MQTT-2.2.1-5] [MQTT-3.1.1 2.3.1-6] The identifier is the PUBLISH's own.
    let [high, low] = id.get().to_be_bytes();
    out.extend_from_slice(&[first, 2, high, low]);
}

/// Writes the PUBREL of a resumed exchange ([MQTT-4.4.0-1]).
pub(crate) fn write_pubrel(id: NonZeroU16, out: &mut Vec<u8>) {
    write_success(PUBREL, id, out);
}

/// The packet that a small acknowledgement with a code is.
fn packet_of(first: u8, ack: Ack<'_>) -> Packet<'_> {
    match first {
        PUBACK => Packet::Puback(ack),
        PUBREC => Packet::Pubrec(ack),
        PUBREL => Packet::Pubrel(ack),
        _ => Packet::Pubcomp(ack),
    }
}

impl Shard {
    /// Notes that something must be made durable, and what an acknowledgement then waits for.
    pub(crate) fn touch_store(&mut self) -> Stake {
        self.unpersisted = true;
        Stake {
            seq: self.seq,
            ..Stake::default()
        }
    }

    /// Asks for durability of what this turn has changed.
    pub(crate) fn ask_persist(&mut self) {
        if std::mem::take(&mut self.unpersisted) || !self.journal.is_empty() {
            let records = self.journal.take();
            let seq = self.seq;
            self.effects.push(Effect::Persist { seq, records });
            self.seq += 1;
        }
    }

    /// Takes the buffer of a batch back that [`Effect::Persist`] gave and that is durable, so that
    /// one to come needs none of its own.
    pub fn reuse(&mut self, records: Vec<u8>) {
        self.journal.reuse(records);
    }

    /// True where everything a stake names has happened.
    #[inline]
    pub(crate) fn is_settled(&self, stake: Stake) -> bool {
        stake.seq <= self.persisted
            && (stake.last == 0 || self.are_confirmed(stake))
            && self.completions.is_done(stake.whole)
    }

    /// Sends an acknowledgement, now or in its turn.
    pub(crate) fn acknowledge(&mut self, slot: u32, stake: Stake, gate: Gate) {
        let settled = self.is_settled(stake);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        // [MQTT-3.3.4-10] [MQTT-4.9.0-3] No quota delays what is not a PUBLISH.
        if settled && connection.gates.is_empty() {
            self.release(slot, gate);
            return;
        }
        connection.gates.push_back(Gated { stake, gate });
        if !std::mem::replace(&mut connection.is_gated, true) {
            self.gated.push(slot);
        }
    }

    /// Releases every acknowledgement whose stake has been settled.
    pub(crate) fn settle(&mut self) {
        self.complete_settled();
        let mut gated = std::mem::take(&mut self.gated);
        gated.retain(|slot| self.settle_gates(*slot));
        gated.append(&mut self.gated);
        self.gated = gated;
        self.settle_receipts();
        self.retry_own();
        self.retry_blocked();
    }

    /// Releases what a connection need not wait for any more; true where something waits still.
    fn settle_gates(&mut self, slot: u32) -> bool {
        while self.first_is_settled(slot) {
            let gated = self
                .connection_mut(slot)
                .and_then(|found| found.gates.pop_front());
            if let Some(gated) = gated {
                self.release(slot, gated.gate);
            }
        }
        let Some(connection) = self.connection_mut(slot) else {
            return false;
        };
        connection.is_gated = !connection.gates.is_empty();
        connection.is_gated
    }

    fn first_is_settled(&self, slot: u32) -> bool {
        let first = self.connection(slot).and_then(|found| found.gates.front());
        first.is_some_and(|gated| self.is_settled(gated.stake))
    }

    /// Durability of everything up to `seq` has failed: nothing that waits for it may be
    /// acknowledged.
    pub(crate) fn persist_failed(&mut self, seq: u64, records: &[u8]) {
        self.journal.renew(records);
        self.fail_gates(|stake| stake.seq > 0 && stake.seq <= seq);
        self.renew_owed(seq);
    }

    /// Ends the connections that wait for what has failed, so that their clients send again.
    fn fail_gates(&mut self, has_failed: impl Fn(Stake) -> bool) {
        for slot in std::mem::take(&mut self.gated) {
            let Some(connection) = self.connection_mut(slot) else {
                continue;
            };
            // [MQTT-3.1.1 4.8.0-2]
            let failed = connection.gates.iter().any(|gated| has_failed(gated.stake));
            connection.is_gated = !failed && !connection.gates.is_empty();
            if failed {
                self.close(
                    slot,
                    Reason::QuotaExceeded,
                    Loss::Refused(Reason::QuotaExceeded),
                );
            } else if connection.is_gated {
                self.gated.push(slot);
            }
        }
    }

    /// Writes what was gated.
    fn release(&mut self, slot: u32, gate: Gate) {
        let words = match &gate {
            Gate::Small { reason, .. } if *reason != Reason::Success => {
                self.words_for(slot, &[*reason])
            }
            _ => None,
        };
        let Shard {
            connections, pool, ..
        } = self;
        let Some(connection) = connections
            .get_mut(slot as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        if matches!(connection.phase, ConnectionPhase::Closing) {
            return;
        }
        let (version, max) = (connection.version, connection.packet_bytes_max);
        let out = connection.window.buffer(pool);
        match gate {
            Gate::Small { first, id, reason } => {
                if version == Version::V5 && reason != Reason::Success {
                    let ack = Ack {
                        packet_id: id,
                        reason,
                        reason_string: words,
                        user: UserProperties::default(),
                    };
                    if encode(version, &packet_of(first, ack), max, out).is_err() {
                        // Without an answer the client would wait for ever.
                        self.close_silently(slot, Loss::Refused(Reason::PacketTooLarge));
                        return;
                    }
                } else {
                    write_success(first, id, out);
                }
                if first == PUBACK || first == PUBCOMP || (first == PUBREC && reason.is_refusal()) {
                    connection.receiving = connection.receiving.saturating_sub(1);
                }
                self.mark_dirty(slot);
            }
            Gate::Pubacks(bytes) => {
                out.extend_from_slice(&bytes);
                // Cannot truncate: as many as were counted when they were received.
                let count = (bytes.len() / PUBACK_BYTES) as u32;
                connection.receiving = connection.receiving.saturating_sub(count);
                self.mark_dirty(slot);
            }
            Gate::Unsuback(bytes) => {
                out.extend_from_slice(&bytes);
                self.mark_dirty(slot);
            }
            Gate::Connack(bytes) => {
                out.extend_from_slice(&bytes);
                // [MQTT-3.2.0-2]
                connection.greeted = true;
                self.mark_dirty(slot);
                self.begin_delivery(slot);
            }
            Gate::Suback { bytes, id } => {
                out.extend_from_slice(&bytes);
                self.mark_dirty(slot);
                self.begin_replays(slot, id);
            }
        }
    }

    /// PUBACK ends an exchange of QoS 1, whatever its reason.
    pub(crate) fn puback_received(&mut self, slot: u32, ack: &Ack<'_>) -> Flow {
        // [MQTT-4.4.0-2] [MQTT-4.8.2-6]
        self.exchange_ended(slot, ack.packet_id, Phase::Puback)
    }

    /// PUBREC hands a QoS 2 message over, or refuses it.
    pub(crate) fn pubrec_received(&mut self, slot: u32, ack: &Ack<'_>) -> Flow {
        let id = ack.packet_id;
        if ack.reason.is_refusal() {
            // [MQTT-4.4.0-2] [MQTT-4.8.2-6] Refused is over; nobody else gets it.
            return self.exchange_ended(slot, id, Phase::Pubrec);
        }
        let known = self.message_taken(slot, id);
        let modern = self
            .connection(slot)
            .is_some_and(|found| found.version == Version::V5);
        let reason = match known {
            false if modern => Reason::PacketIdentifierNotFound,
            _ => Reason::Success,
        };
        let stake = if known {
            self.stake_of_session(slot)
        } else {
            Stake::default()
        };
        // [MQTT-4.3.3-4] [MQTT-3.1.1 4.3.3-1]
        self.acknowledge(slot, stake, Gate::pubrel(id, reason));
        Flow::Continue
    }

    /// PUBCOMP ends an exchange of QoS 2.
    pub(crate) fn pubcomp_received(&mut self, slot: u32, ack: &Ack<'_>) -> Flow {
        self.exchange_ended(slot, ack.packet_id, Phase::Pubcomp)
    }

    /// PUBREL releases the identifier of an incoming QoS 2 message.
    pub(crate) fn pubrel_received(&mut self, slot: u32, ack: &Ack<'_>) -> Flow {
        let session = self.connection(slot).and_then(|found| found.session());
        let Some(session) = session.and_then(|session| self.sessions.get_mut(session)) else {
            return Flow::Stop;
        };
        let id = ack.packet_id.get();
        let place = session.unreleased.iter().position(|other| *other == id);
        if let Some(place) = place {
            // [MQTT-4.3.3-12] The identifier is free for a new message.
            session.unreleased.remove(place);
            if session.number != 0 {
                let session = session.number;
                self.journal.write(&Record::Released { session, id });
            }
        }
        let modern = self
            .connection(slot)
            .is_some_and(|found| found.version == Version::V5);
        let reason = match place {
            None if modern => Reason::PacketIdentifierNotFound,
            _ => Reason::Success,
        };
        let stake = match place {
            Some(_) => self.stake_of_session(slot),
            None => Stake::default(),
        };
        // [MQTT-4.3.3-11] [MQTT-3.1.1 4.3.3-2]
        self.acknowledge(slot, stake, Gate::pubcomp(ack.packet_id, reason));
        Flow::Continue
    }

    /// What a change of the session's exchanges must wait for.
    pub(crate) fn stake_of_session(&mut self, slot: u32) -> Stake {
        let session = self.connection(slot).and_then(|found| found.session());
        let durable = session
            .and_then(|session| self.sessions.get(session))
            .is_some_and(|session| session.is_durable());
        if durable {
            self.touch_store()
        } else {
            Stake::default()
        }
    }

    /// PUBREC came: says whether a message was waiting for it.
    fn message_taken(&mut self, slot: u32, id: PacketId) -> bool {
        let session = self.connection(slot).and_then(|found| found.session());
        let Some(found) = session.and_then(|session| self.sessions.get_mut(session)) else {
            return false;
        };
        let Some(position) = found.outbox.flights.received(id) else {
            return false;
        };
        if found.number != 0 {
            let session = found.number;
            self.journal.write(&Record::Taken { session, position });
        }
        true
    }

    /// Ends an exchange of a session that is in `phase`; says whether there was one.
    pub(crate) fn finish(&mut self, session: u32, id: PacketId, phase: Phase) -> bool {
        let Some(found) = self.sessions.get_mut(session) else {
            return false;
        };
        let Some(position) = found.outbox.flights.finish(id, phase) else {
            return false;
        };
        if found.number != 0 {
            let session = found.number;
            self.journal.write(&Record::Done { session, position });
        }
        true
    }

    /// An acknowledgement may have made room for the next message. One that belongs to nothing is
    /// passed over: it may be late for an exchange that a refusal has ended.
    fn exchange_ended(&mut self, slot: u32, id: PacketId, phase: Phase) -> Flow {
        let session = self.connection(slot).and_then(|found| found.session());
        if session.is_some_and(|session| self.finish(session, id, phase)) {
            self.pump_later(slot);
        }
        Flow::Continue
    }

    /// The acknowledgement that a QoS asks for.
    pub(crate) fn acknowledge_publish(
        &mut self,
        slot: u32,
        qos: QoS,
        id: Option<PacketId>,
        reason: Reason,
        stake: Stake,
    ) {
        match (qos, id) {
            // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1] [MQTT-4.3.2-4] [MQTT-3.1.1 4.3.2-2]
            (QoS::AtLeastOnce, Some(id)) => self.acknowledge(slot, stake, Gate::puback(id, reason)),
            // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1] [MQTT-4.3.3-8] [MQTT-3.1.1 4.3.3-2]
            (QoS::ExactlyOnce, Some(id)) => self.acknowledge(slot, stake, Gate::pubrec(id, reason)),
            _ => {}
        }
    }
}
