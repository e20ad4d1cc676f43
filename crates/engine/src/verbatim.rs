//! A PUBLISH that goes on as it came: one copy, from the read buffer into each window.

use casemate_codec::{frame, plain_publish, PacketId, PlainPublish, QoS, Version};

use crate::acknowledge::Stake;
use crate::connection::Connection;
use crate::deliver::{Recipient, Spread};
use crate::message::Draft;
use crate::outbox::NO_GROUP;
use crate::policy::Permit;
use crate::route::{Route, Target};
use crate::shard::Shard;
use crate::window::{Pool, SPLICE_BYTES};
use crate::wire::{put_long_bytes, Reader};

/// The longest run of packets that is handed on at once, bytes: a window grows by so much at most
/// before its room is looked at again.
const RUN_BYTES_MAX: usize = 16 * 1024;

/// A whole PUBLISH without properties, as its publisher sent it, or a run of them.
///
/// Its topic is written out and valid, and its lengths have their only form, so that a recipient of
/// the same version and QoS gets the same bytes but for flags and packet id. In a run all are of
/// one QoS, 0 or 1, without RETAIN, and equal but for packet ids and payloads, which are of one
/// length.
#[derive(Clone, Copy)]
pub(crate) struct Verbatim<'a> {
    count: u32,
    /// Of one packet.
    packet_bytes: usize,
    packets: &'a [u8],
    packet_id_at: usize,
    qos: QoS,
    is_modern: bool,
}

impl<'a> Verbatim<'a> {
    /// None where its payload is so large that it is not copied at all.
    ///
    /// `packet_id_at` counts from the first byte of `packet`; at QoS 0 it means nothing.
    #[inline]
    pub fn of(
        packet: &'a [u8],
        packet_id_at: usize,
        qos: QoS,
        version: Version,
    ) -> Option<Verbatim<'a>> {
        (packet.len() < SPLICE_BYTES).then_some(Verbatim {
            count: 1,
            packet_bytes: packet.len(),
            packets: packet,
            packet_id_at,
            qos,
            is_modern: version == Version::V5,
        })
    }

    /// Takes in what follows the first packet in `bytes` and has the same `head_bytes` but for the
    /// packet id: its flags, its length and its topic, all that was looked at but the payload.
    #[inline(always)]
    pub fn run(&self, bytes: &'a [u8], head_bytes: usize, count_max: u32) -> Verbatim<'a> {
        let step = self.packet_bytes;
        let most = bytes.len().min(RUN_BYTES_MAX);
        let mut end = step;
        if self.qos == QoS::AtMostOnce {
            let head = &bytes[..head_bytes];
            while end + step <= most && bytes[end..end + head_bytes] == *head {
                end += step;
            }
        } else {
            let most = most.min(step.saturating_mul(count_max as usize));
            let (before, after) = (self.packet_id_at, self.packet_id_at + 2);
            while end + step <= most {
                let next = &bytes[end..end + step];
                // [MQTT-2.2.1-3] [MQTT-3.1.1 2.3.1-1] Identifier 0 is left to `decode`. Behind it
                // stands at most the length of no properties.
                if next[..before] != bytes[..before]
                    || next[before..after] == [0, 0]
                    || next[after..head_bytes] != bytes[after..head_bytes]
                {
                    break;
                }
                end += step;
            }
        }
        Verbatim {
            // Cannot truncate: bounded by RUN_BYTES_MAX.
            count: (end / step) as u32,
            packets: &bytes[..end],
            ..*self
        }
    }

    /// Bytes of all its packets.
    pub fn bytes(&self) -> usize {
        self.packets.len()
    }

    /// How many packets there are.
    pub fn count(&self) -> u64 {
        u64::from(self.count)
    }

    /// The identifiers of its packets, which are not of QoS 0.
    pub fn packet_ids(&self) -> impl Iterator<Item = PacketId> + use<'a> {
        let at = self.packet_id_at;
        let id_of =
            move |packet: &[u8]| PacketId::new(u16::from_be_bytes([packet[at], packet[at + 1]]));
        // None is 0: `run` has looked.
        self.packets
            .chunks_exact(self.packet_bytes)
            .filter_map(id_of)
    }

    /// What stands before each payload, bytes.
    pub fn head_bytes(&self, first: &PlainPublish<'_>) -> usize {
        self.packet_bytes - first.payload.len()
    }

    /// The payload of its only packet, or of its first.
    pub fn payload(&self, head_bytes: usize) -> &'a [u8] {
        &self.packets[head_bytes..self.packet_bytes]
    }

    /// Each packet alone.
    pub fn each(&self) -> impl Iterator<Item = Verbatim<'a>> + '_ {
        self.packets
            .chunks_exact(self.packet_bytes)
            .map(|packet| Verbatim {
                count: 1,
                packets: packet,
                ..*self
            })
    }

    /// Writes it for a neighbour, with its topic and its payloads.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_modern));
        // Cannot truncate: what is spliced does not get here.
        out.extend_from_slice(&(self.packet_bytes as u32).to_le_bytes());
        put_long_bytes(out, self.packets);
    }

    /// Reads what a neighbour has heard, and what its first packet says.
    pub fn read(reader: &mut Reader<'a>) -> Option<(Verbatim<'a>, PlainPublish<'a>)> {
        let is_modern = reader.byte()? != 0;
        let packet_bytes = reader.int()? as usize;
        let packets = reader.long_bytes()?;
        let first = packets.get(..packet_bytes)?;
        let version = match is_modern {
            true => Version::V5,
            false => Version::V311,
        };
        let frame = frame(first, u32::MAX).ok()??;
        let publish = plain_publish(version, frame, &first[frame.header_bytes..])?;
        let verbatim = Verbatim {
            // Cannot truncate: a run is bounded by RUN_BYTES_MAX.
            count: (packets.len() / packet_bytes) as u32,
            packet_bytes,
            packets,
            packet_id_at: frame.header_bytes + publish.packet_id_at,
            qos: publish.qos,
            is_modern,
        };
        Some((verbatim, publish))
    }

    /// True where this recipient's packet differs in flags and packet id at most.
    #[inline]
    pub fn suits(&self, to: &Recipient<'_>, connection: &Connection) -> bool {
        self.qos == to.qos
            && self.is_modern == (connection.version == Version::V5)
            && to.ids.is_none()
            && connection.aliases_out.is_none()
            // [MQTT-3.1.2-24]
            && self.packet_bytes <= connection.packet_bytes_max as usize
    }

    /// Appends it to a window.
    #[inline(always)]
    pub fn write(
        &self,
        retain: bool,
        packet_id: u16,
        connection: &mut Connection,
        pool: &mut Pool,
    ) {
        let out = connection.window.buffer(pool);
        let at = out.len();
        out.extend_from_slice(self.packets);
        // [MQTT-3.3.1-3] [MQTT-3.1.1 3.3.1-3] [MQTT-4.3.1-1] [MQTT-3.1.1 4.3.1-1] [MQTT-4.3.2-2]
        // [MQTT-4.3.3-2] New here, whatever the publisher's DUP
        // says.
        out[at] = 0x30 | (self.qos as u8) << 1 | u8::from(retain);
        if self.qos != QoS::AtMostOnce {
            let place = at + self.packet_id_at;
            out[place..place + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }

    /// Appends a run to a window; each packet of QoS 1 gets the next of `ids`.
    #[inline(always)]
    fn write_run(
        &self,
        ids: impl Iterator<Item = PacketId>,
        connection: &mut Connection,
        pool: &mut Pool,
    ) {
        let out = connection.window.buffer(pool);
        let at = out.len();
        out.extend_from_slice(self.packets);
        let packets = out[at..].chunks_exact_mut(self.packet_bytes);
        for (packet, id) in packets.zip(ids) {
            // [MQTT-4.3.2-2] New here, whatever the publisher's DUP says.
            packet[0] = 0x30 | (self.qos as u8) << 1;
            let place = self.packet_id_at;
            packet[place..place + 2].copy_from_slice(&id.get().to_be_bytes());
        }
    }
}

impl Shard {
    /// Gives a run of permitted messages to the sessions of this shard: at once to whoever gets
    /// them as they came, and then one by one to the others.
    ///
    /// `draft` is the first of them; `head_bytes` stand before each payload. Returns what their
    /// acknowledgements must wait for.
    #[inline(never)]
    pub(crate) fn route_run(
        &mut self,
        _permit: Permit,
        draft: &Draft<'_>,
        run: &Verbatim<'_>,
        head_bytes: usize,
        route: &Route,
    ) -> Stake {
        let mut others = std::mem::take(&mut self.others);
        others.clear();
        for (index, target) in route.targets().iter().enumerate() {
            if !self.deliver_run(target, run) {
                others.push(index);
            }
        }
        let mut durable = false;
        if !others.is_empty() {
            for packet in run.each() {
                let draft = Draft {
                    payload: packet.payload(head_bytes),
                    ..*draft
                };
                let mut spread = Spread::heard(packet, others.len() > 1);
                self.shapes.clear();
                for &index in &others {
                    let target = &route.targets()[index];
                    durable |= self.deliver_to_each(&draft, target, &mut spread);
                }
            }
        }
        self.others = others;
        if durable {
            self.touch_store()
        } else {
            Stake::default()
        }
    }

    /// Appends a run to the window of a target; false where it does not get it like this, or has
    /// no room.
    fn deliver_run(&mut self, target: &Target, run: &Verbatim<'_>) -> bool {
        let Shard {
            sessions,
            connections,
            settings,
            counters,
            pool,
            ..
        } = self;
        let Some(session) = sessions.get_mut(target.session) else {
            return true;
        };
        let link = session.link.filter(|_| session.is_direct());
        let connection = link.and_then(|link| connections.get_mut(link as usize)?.as_deref_mut());
        let to = Recipient {
            session: target.session,
            // [MQTT-3.8.4-8] [MQTT-3.1.1 3.8.4-6]
            qos: run.qos.min(target.qos),
            retain: false,
            ids: &target.ids,
            group: NO_GROUP,
        };
        // [MQTT-3.8.3-3] No Local is left to the others.
        let ready = connection.filter(|connection| {
            !target.no_local
                && connection.window.bytes() < settings.window_bytes
                && run.suits(&to, connection)
                && (run.qos == QoS::AtMostOnce || session.may_launch(run.count, connection.quota))
        });
        let (Some(link), Some(connection)) = (link, ready) else {
            return false;
        };
        if run.qos == QoS::AtMostOnce {
            run.write(false, 0, connection, pool);
        } else {
            let ids = session.outbox.flights.launch_run(run.count);
            run.write_run(ids, connection, pool);
        }
        counters.publishes_sent += run.count();
        if connection.is_news(settings) {
            self.mark_dirty(link);
        }
        true
    }

    /// As [`Shard::write_direct`], of a message of QoS 1 that goes on as it came to a session whose
    /// exchanges are written down.
    pub(crate) fn write_heard(
        &mut self,
        link: u32,
        draft: &Draft<'_>,
        to: &Recipient<'_>,
        verbatim: Verbatim<'_>,
        spread: &mut Spread<'_>,
    ) {
        let Some(id) = self.begin_exchange(draft, to, 0, spread) else {
            return;
        };
        let Shard {
            connections,
            settings,
            counters,
            pool,
            ..
        } = self;
        let slot = connections.get_mut(link as usize);
        let Some(connection) = slot.and_then(Option::as_deref_mut) else {
            return;
        };
        verbatim.write(to.retain, id.get(), connection, pool);
        counters.publishes_sent += 1;
        if connection.is_news(settings) {
            self.mark_dirty(link);
        }
    }
}
