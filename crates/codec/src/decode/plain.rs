//! Packets in their plainest form, as most of them are: a few comparisons read them.

use crate::{Frame, PacketId, QoS, Version};

/// A PUBLISH without properties whose topic is still to be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlainPublish<'a> {
    /// Not empty, and not checked: whoever knows an equal topic that [`crate::decode()`] has passed
    /// knows that it is valid, and nobody else may use it.
    pub topic_bytes: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// The retain flag.
    pub retain: bool,
    /// None at QoS 0.
    pub packet_id: Option<PacketId>,
    /// Where the packet id stands in the body, where there is one.
    pub packet_id_at: usize,
    /// The rest of the packet.
    pub payload: &'a [u8],
}

/// Reads a PUBLISH without properties.
///
/// `None` says nothing against the packet: it has properties or is faulty, and `decode` must look
/// at it. What is returned here, `decode` would have returned, if the topic is valid.
#[inline(always)]
pub fn plain_publish(version: Version, frame: Frame, body: &[u8]) -> Option<PlainPublish<'_>> {
    if frame.first >> 4 != 3 || body.len() != frame.body_bytes {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<2>()?;
    let topic_bytes = usize::from(u16::from_be_bytes(*length));
    let (topic, mut rest) = rest.split_at_checked(topic_bytes)?;
    let packet_id_at = 2 + topic_bytes;
    let mut packet_id = None;
    // [MQTT-3.3.1-4] [MQTT-3.1.1 3.3.1-4] QoS 3 is left to `decode`, as is DUP at QoS 0.
    let qos = QoS::from_bits(frame.first >> 1 & 0b11)?;
    if qos == QoS::AtMostOnce {
        if frame.first & 0b1000 != 0 {
            return None;
        }
    } else {
        let (id, behind) = rest.split_first_chunk::<2>()?;
        packet_id = Some(PacketId::new(u16::from_be_bytes(*id))?);
        rest = behind;
    }
    if version == Version::V5 {
        let (&block_bytes, behind) = rest.split_first()?;
        if block_bytes != 0 {
            return None;
        }
        rest = behind;
    }
    (!topic.is_empty()).then_some(PlainPublish {
        topic_bytes: topic,
        qos,
        retain: frame.first & 1 != 0,
        packet_id,
        packet_id_at,
        payload: rest,
    })
}

/// Reads a PUBACK, PUBREC, PUBREL or PUBCOMP that is nothing but its identifier.
///
/// It means success in every version. `None` says nothing against the packet: `decode` must look at
/// it. What is returned here, `decode` would have returned.
#[inline]
pub fn plain_ack(frame: Frame, body: &[u8]) -> Option<PacketId> {
    let &[high, low] = body else {
        return None;
    };
    // [MQTT-3.6.1-1] [MQTT-3.1.1 3.6.1-1] PUBREL has its flags, and the others have none.
    let is_ack = matches!(frame.first, 0x40 | 0x50 | 0x62 | 0x70) && frame.body_bytes == 2;
    // [MQTT-2.2.1-3] [MQTT-3.1.1 2.3.1-1]
    PacketId::new(u16::from_be_bytes([high, low])).filter(|_| is_ack)
}
