//! A PUBLISH that goes on as it came: one copy, from the read buffer into each window.

use casemate_codec::{QoS, Version};

use crate::connection::Connection;
use crate::deliver::Recipient;
use crate::window::{Pool, SPLICE_BYTES};

/// A whole PUBLISH without properties, as its publisher sent it.
///
/// Its topic is written out and valid, and its lengths have their only form, so that a recipient of
/// the same version and QoS gets the same bytes but for flags and packet id.
#[derive(Clone, Copy)]
pub(crate) struct Verbatim<'a> {
    packet: &'a [u8],
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
            packet,
            packet_id_at,
            qos,
            is_modern: version == Version::V5,
        })
    }

    /// True where this recipient's packet differs in flags and packet id at most.
    #[inline]
    pub fn suits(&self, to: &Recipient<'_>, connection: &Connection) -> bool {
        self.qos == to.qos
            && self.is_modern == (connection.version == Version::V5)
            && to.ids.is_none()
            && connection.aliases_out.is_none()
            // [MQTT-3.1.2-24]
            && self.packet.len() <= connection.packet_bytes_max as usize
    }

    /// Appends it to a window.
    #[inline]
    pub fn write(
        &self,
        retain: bool,
        packet_id: u16,
        connection: &mut Connection,
        pool: &mut Pool,
    ) {
        let out = connection.window.buffer(pool);
        let at = out.len();
        out.extend_from_slice(self.packet);
        // [MQTT-3.3.1-3] [MQTT-3.1.1 3.3.1-3] [MQTT-4.3.1-1] [MQTT-3.1.1 4.3.1-1] [MQTT-4.3.2-2]
        // [MQTT-4.3.3-2] New here, whatever the publisher's DUP
        // says.
        out[at] = 0x30 | (self.qos as u8) << 1 | u8::from(retain);
        if self.qos != QoS::AtMostOnce {
            let place = at + self.packet_id_at;
            out[place..place + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }
}
