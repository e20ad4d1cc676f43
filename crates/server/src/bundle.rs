//! Messages that are published together: checked and encoded one by one, sent as a whole.

use casemate_codec::{topic_fault, QoS};

/// The largest packet that MQTT has a length for.
const PACKET_BYTES_MAX: usize = 268_435_455;

/// What a PUBLISH without properties needs beside topic and payload, bytes at most.
const PUBLISH_BYTES_MAX: usize = 16;

/// A message to publish.
#[derive(Clone, Copy, Debug)]
pub struct Draft<'a> {
    /// Topic.
    pub topic: &'a str,
    /// Payload.
    pub payload: &'a [u8],
    /// Quality of service.
    pub qos: QoS,
    /// Keep it for later subscribers.
    pub retain: bool,
}

/// Messages that are published together: encoded, not yet sent.
#[derive(Default)]
pub struct Bundle {
    bytes: Vec<u8>,
    /// Messages of QoS 1 and 2, whose identifiers are given when they are sent.
    numbered: Vec<Numbered>,
    count: usize,
    /// The topic of the last message, which was found to be one.
    topic: String,
}

/// A message in a bundle that is acknowledged.
#[derive(Clone, Copy)]
pub(crate) struct Numbered {
    /// Its place among all messages.
    pub index: usize,
    /// Where its bytes begin.
    pub start: usize,
    /// Where its packet identifier stands.
    pub id_at: usize,
}

impl Bundle {
    /// Adds a message that a packet of so many bytes can hold.
    ///
    /// # Errors
    /// What is wrong with it, in words; the bundle is as it was.
    pub(crate) fn add(&mut self, draft: &Draft<'_>, packet_bytes_max: usize) -> Result<(), String> {
        self.check(draft, packet_bytes_max)?;
        let start = self.bytes.len();
        let index = self.count;
        if let Some(id_at) = put_publish(draft, &mut self.bytes) {
            self.numbered.push(Numbered {
                index,
                start,
                id_at,
            });
        }
        self.count += 1;
        Ok(())
    }

    /// The bytes, and which of their messages need an identifier.
    pub(crate) fn into_parts(self) -> (Vec<u8>, Vec<Numbered>) {
        (self.bytes, self.numbered)
    }

    fn check(&mut self, draft: &Draft<'_>, packet_bytes_max: usize) -> Result<(), String> {
        // Programs publish many messages to one topic.
        let is_known = self.topic == draft.topic;
        if draft.topic.is_empty() {
            return Err("the topic is empty".to_owned());
        }
        if !is_known {
            if let Some(fault) = topic_fault(draft.topic) {
                return Err(fault.to_string());
            }
        }
        let bytes = draft.topic.len() + draft.payload.len() + PUBLISH_BYTES_MAX;
        let max = PACKET_BYTES_MAX.min(packet_bytes_max);
        if bytes > max {
            return Err(format!("{bytes} bytes pass the maximum of {max}"));
        }
        if !is_known {
            draft.topic.clone_into(&mut self.topic);
        }
        Ok(())
    }
}

/// Appends a PUBLISH of 5.0 without properties, as the codec would; the fields are known to fit.
///
/// A program publishes a million of them a second: the way through all properties that a PUBLISH
/// can have costs three times as much. Gives where the packet identifier stands, if there is one.
fn put_publish(draft: &Draft<'_>, out: &mut Vec<u8>) -> Option<usize> {
    let has_id = draft.qos != QoS::AtMostOnce;
    let id_bytes = if has_id { 2 } else { 0 };
    let mut remaining = 2 + draft.topic.len() + id_bytes + 1 + draft.payload.len();
    out.reserve(remaining + PUBLISH_BYTES_MAX);
    out.push(0x30 | (draft.qos as u8) << 1 | u8::from(draft.retain));
    loop {
        // Seven bits at a time.
        let low = (remaining & 0x7F) as u8;
        remaining >>= 7;
        if remaining == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    // What is longer is no topic, which was looked at before.
    let topic_bytes = draft.topic.len() as u16;
    out.extend_from_slice(&topic_bytes.to_be_bytes());
    out.extend_from_slice(draft.topic.as_bytes());
    let id_at = has_id.then_some(out.len());
    out.extend_from_slice(&[0; 3][..id_bytes + 1]);
    out.extend_from_slice(draft.payload);
    id_at
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::num::NonZeroU16;

    use casemate_codec::{encode, Packet, Publish, PublishProperties, Version};

    use super::*;

    /// Goal: the short way says what the codec says, byte for byte. Method: lengths around each
    /// size of the length field, every QoS, with and without retain.
    #[test]
    fn a_publish_is_encoded_as_the_codec_does() {
        let lengths = [
            0, 1, 100, 110, 120, 127, 128, 16_000, 16_383, 16_384, 2_097_152,
        ];
        for topic in ["a", "lab/\u{00E4}/temp", &"t/".repeat(30_000)] {
            for payload_bytes in lengths {
                for (bits, retain) in [(0, false), (1, true), (2, false), (0, true)] {
                    let draft = Draft {
                        topic,
                        payload: &vec![7; payload_bytes],
                        qos: QoS::from_bits(bits).unwrap(),
                        retain,
                    };
                    let mut ours = b"before".to_vec();
                    let id_at = put_publish(&draft, &mut ours);
                    assert_eq!(id_at.is_some(), bits > 0);
                    if let Some(at) = id_at {
                        ours[at..at + 2].copy_from_slice(&[0x12, 0x34]);
                    }
                    let packet = Packet::Publish(Publish {
                        dup: false,
                        qos: draft.qos,
                        retain,
                        topic,
                        packet_id: id_at.and(NonZeroU16::new(0x1234)),
                        properties: PublishProperties::default(),
                        payload: draft.payload,
                    });
                    let mut theirs = b"before".to_vec();
                    encode(Version::V5, &packet, u32::MAX, &mut theirs).unwrap();
                    assert!(ours == theirs, "{} {payload_bytes} {bits}", topic.len());
                }
            }
        }
    }
}
