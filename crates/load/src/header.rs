//! The part of a PUBLISH before its payload: encoded once, copied for each message.

use std::num::NonZeroU16;

use casemate_codec::{
    encode, frame, Packet, Publish, PublishProperties, QoS, TooLarge, UserProperties, Version,
};

use crate::Plan;

/// The one alias of a publisher's one topic.
const ALIAS: NonZeroU16 = NonZeroU16::MIN;
const EXPIRY_S: u32 = 3_600;
const CONTENT_TYPE: &str = "application/octet-stream";
const USER_PROPERTY: (&str, &str) = ("source", "casemate bench");

/// Encoded bytes up to the payload.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    bytes: Box<[u8]>,
    /// Where the packet id stands, above QoS 0.
    packet_id_at: Option<usize>,
}

impl Header {
    /// Encodes the header of messages on `topic`; with `alias` it is said beside it, and without
    /// a topic in place of it.
    ///
    /// # Errors
    /// Where no such packet exists.
    pub fn new(plan: &Plan, topic: &str, alias: bool, payload: &[u8]) -> Result<Header, TooLarge> {
        let version = plan.target.version;
        let packet = Packet::Publish(Publish {
            dup: false,
            qos: plan.publish_qos,
            retain: plan.retain,
            topic,
            packet_id: (plan.publish_qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
            properties: properties(plan, alias),
            payload,
        });
        let mut bytes = Vec::new();
        encode(version, &packet, u32::MAX, &mut bytes)?;
        let header_bytes = match frame(&bytes, u32::MAX) {
            Ok(Some(frame)) => frame.header_bytes,
            _ => 0,
        };
        bytes.truncate(bytes.len() - payload.len());
        Ok(Header {
            packet_id_at: (plan.publish_qos != QoS::AtMostOnce)
                .then_some(header_bytes + 2 + topic.len()),
            bytes: bytes.into_boxed_slice(),
        })
    }

    /// Appends it.
    #[inline]
    pub fn write(&self, packet_id: u16, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.packet_id_at {
            if let Some(place) = out.get_mut(start + at..start + at + 2) {
                place.copy_from_slice(&packet_id.to_be_bytes());
            }
        }
    }
}

fn properties(plan: &Plan, alias: bool) -> PublishProperties<'static> {
    let mut properties = PublishProperties::default();
    if plan.target.version != Version::V5 {
        return properties;
    }
    properties.topic_alias = alias.then_some(ALIAS);
    if plan.properties {
        properties.message_expiry_s = Some(EXPIRY_S);
        properties.content_type = Some(CONTENT_TYPE);
        properties.user = UserProperties::List(&[USER_PROPERTY]);
    }
    properties
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use casemate_codec::{decode, Sender};

    use super::*;
    use crate::plan::tests::plan;

    /// Writes one message and reads it back as the broker would.
    fn read_back(plan: &Plan, header: &Header, packet_id: u16, payload: &[u8]) -> Vec<String> {
        let mut bytes = vec![0xFF];
        header.write(packet_id, &mut bytes);
        bytes.extend_from_slice(payload);
        let packet = &bytes[1..];
        let frame = frame(packet, u32::MAX).unwrap().unwrap();
        assert_eq!(frame.packet_bytes(), packet.len());
        let body = &packet[frame.header_bytes..];
        let Packet::Publish(publish) =
            decode(plan.target.version, Sender::Client, frame, body).unwrap()
        else {
            panic!("not a PUBLISH");
        };
        assert_eq!(publish.payload, payload);
        assert_eq!(publish.qos, plan.publish_qos);
        vec![
            publish.topic.to_owned(),
            format!("{:?}", publish.packet_id.map(NonZeroU16::get)),
            format!("{:?}", publish.properties.topic_alias.map(NonZeroU16::get)),
            format!("{:?}", publish.properties.message_expiry_s),
        ]
    }

    #[test]
    fn a_header_is_what_the_codec_reads_in_every_version_and_qos() {
        for version in [Version::V31, Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for payload in [vec![7; 16], vec![7; 200], vec![7; 70_000]] {
                    let mut plan = plan();
                    plan.target.version = version;
                    plan.publish_qos = qos;
                    let header = Header::new(&plan, "bench/1", false, &payload).unwrap();
                    let id = match qos {
                        QoS::AtMostOnce => "None",
                        _ => "Some(513)",
                    };
                    let said = read_back(&plan, &header, 513, &payload);
                    assert_eq!(said, ["bench/1", id, "None", "None"]);
                }
            }
        }
    }

    #[test]
    fn an_alias_is_said_beside_the_topic_and_then_in_place_of_it() {
        let mut plan = plan();
        plan.target.version = Version::V5;
        plan.publish_qos = QoS::AtLeastOnce;
        plan.properties = true;
        let payload = [1; 64];
        let first = Header::new(&plan, "bench/1", true, &payload).unwrap();
        let later = Header::new(&plan, "", true, &payload).unwrap();
        let said = read_back(&plan, &first, 9, &payload);
        assert_eq!(said, ["bench/1", "Some(9)", "Some(1)", "Some(3600)"]);
        let said = read_back(&plan, &later, 10, &payload);
        assert_eq!(said, ["", "Some(10)", "Some(1)", "Some(3600)"]);
    }
}
