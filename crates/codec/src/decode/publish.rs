//! PUBLISH, the packet that everything else is there for.

use super::property;
use crate::text::special_fault;
use crate::wire::Reader;
use crate::{Malformed, Publish, PublishProperties, QoS, Sender, TextFault, Version};

/// Reads a PUBLISH whose byte 1 is `first`.
#[inline]
pub(super) fn publish<'a>(
    version: Version,
    sender: Sender,
    first: u8,
    body: &'a [u8],
) -> Result<Publish<'a>, Malformed> {
    let mut reader = Reader::new(body);
    let dup = first & 0b1000 != 0;
    // [MQTT-3.3.1-4] [MQTT-3.1.1 3.3.1-4]
    let qos = QoS::from_bits(first >> 1 & 0b11).ok_or(Malformed::QoS3)?;
    if dup && qos == QoS::AtMostOnce {
        // [MQTT-3.3.1-2] [MQTT-3.1.1 3.3.1-2] [MQTT-4.3.1-1]
        return Err(Malformed::DupAtQoS0);
    }
    // [MQTT-3.3.2-1] [MQTT-3.1.1 3.3.2-1]
    let topic = reader.unchecked_string()?;
    if let Some(fault) = special_fault(topic.as_bytes()) {
        // [MQTT-3.3.2-2] [MQTT-3.1.1 3.3.2-2] [MQTT-4.7.0-1]; the null character is a fault of the
        // string, not of the topic.
        return Err(match fault {
            TextFault::Null => Malformed::NullCharacter,
            other => Malformed::TopicName(other),
        });
    }
    // [MQTT-2.2.1-2] [MQTT-3.1.1 2.3.1-5] At QoS 0 the next bytes belong to something else.
    let packet_id = match qos {
        QoS::AtMostOnce => None,
        QoS::AtLeastOnce | QoS::ExactlyOnce => Some(reader.packet_id()?),
    };
    let properties = if version == Version::V5 {
        property::publish(sender, &mut reader)?
    } else {
        PublishProperties::default()
    };
    if topic.is_empty() && properties.topic_alias.is_none() {
        // [MQTT-4.7.3-1] [MQTT-3.1.1 4.7.3-1]
        return Err(Malformed::EmptyTopic);
    }
    Ok(Publish {
        dup,
        qos,
        retain: first & 1 != 0,
        topic,
        packet_id,
        properties,
        payload: reader.rest(),
    })
}
