//! A published message as a shard keeps it: one allocation, shared by all who wait for it.

use std::num::NonZeroU16;
use std::rc::Rc;

use casemate_codec::{Forwarded, QoS};

use crate::door::Millis;
use crate::journal::Whole;

/// What the fixed part in front of topic, properties and payload takes, bytes.
const HEAD_BYTES: usize = 8 + 8 + 4 + 2 + 1;

/// A message without its recipients. Cloning counts a reference.
#[derive(Clone)]
pub(crate) struct Message(Rc<[u8]>);

/// A message while it is being routed: borrowed from the packet, the will or the batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Draft<'a> {
    pub tenant: u32,
    pub topic: &'a str,
    /// Properties that travel, as `casemate_codec::forwardable` writes them.
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    /// When it must no longer be delivered; 0 is never.
    pub expires_at: Millis,
    /// Hash of the publishing session's key, for No Local; 0 is the broker itself.
    pub publisher: u64,
    /// Where it is kept whole or not at all; not kept itself.
    pub whole: Whole,
}

impl Draft<'_> {
    /// Nothing, where a message is not needed any more.
    pub const EMPTY: Draft<'static> = Draft {
        tenant: 0,
        topic: "",
        properties: &[],
        payload: &[],
        qos: QoS::AtMostOnce,
        retain: false,
        expires_at: 0,
        publisher: 0,
        whole: Whole::NONE,
    };

    /// Bytes that a queue accounts for this message.
    pub fn bytes(&self) -> usize {
        HEAD_BYTES + self.topic.len() + self.properties.len() + self.payload.len()
    }

    /// Copies the message into an allocation of its own; `scratch` only saves a second one.
    pub fn keep(&self, scratch: &mut Vec<u8>) -> Message {
        scratch.clear();
        scratch.reserve(self.bytes());
        scratch.extend_from_slice(&self.expires_at.to_le_bytes());
        scratch.extend_from_slice(&self.publisher.to_le_bytes());
        // Cannot truncate: a packet is at most 268,435,460 bytes.
        scratch.extend_from_slice(&(self.properties.len() as u32).to_le_bytes());
        // Cannot truncate: a topic is at most 65,535 bytes ([MQTT-4.7.3-3], held by the codec).
        scratch.extend_from_slice(&(self.topic.len() as u16).to_le_bytes());
        scratch.push(self.qos as u8 | u8::from(self.retain) << 2);
        scratch.extend_from_slice(self.topic.as_bytes());
        scratch.extend_from_slice(self.properties);
        scratch.extend_from_slice(self.payload);
        Message(Rc::from(scratch.as_slice()))
    }

    /// Seconds left before expiry, rounded up; none where the message does not expire.
    pub fn expiry_s(&self, now: Millis) -> Option<u32> {
        (self.expires_at != 0).then(|| {
            let left_ms = self.expires_at.saturating_sub(now);
            u32::try_from(left_ms.div_ceil(1000)).unwrap_or(u32::MAX)
        })
    }

    /// True when the Message Expiry Interval has passed.
    pub fn is_expired(&self, now: Millis) -> bool {
        // [MQTT-3.3.2-5]
        self.expires_at != 0 && self.expires_at <= now
    }

    /// The PUBLISH for one recipient, without its payload.
    pub fn forwarded<'a>(&'a self, way: &'a Way<'_>, now: Millis) -> Forwarded<'a> {
        Forwarded {
            dup: way.dup,
            qos: way.qos,
            retain: way.retain,
            topic: if way.topic_known { "" } else { self.topic },
            alias: way.alias,
            // [MQTT-3.3.2-6]
            expiry_s: self.expiry_s(now),
            subscription_ids: way.ids,
            properties: self.properties,
            payload_bytes: self.payload.len(),
        }
    }
}

/// What differs between recipients of one message.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub qos: QoS,
    pub dup: bool,
    pub retain: bool,
    pub ids: &'a [u32],
    pub alias: Option<NonZeroU16>,
    /// The recipient knows the topic by its alias.
    pub topic_known: bool,
}

impl Message {
    fn word(&self, at: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&self.0[at..at + 8]);
        u64::from_le_bytes(bytes)
    }

    fn lengths(&self) -> (usize, usize) {
        let mut properties = [0; 4];
        properties.copy_from_slice(&self.0[16..20]);
        let topic = u16::from_le_bytes([self.0[20], self.0[21]]);
        (topic as usize, u32::from_le_bytes(properties) as usize)
    }

    /// The message as it was routed, for `tenant`, whose number the message itself does not hold.
    pub fn draft(&self, tenant: u32) -> Draft<'_> {
        let (topic_bytes, properties_bytes) = self.lengths();
        let body = &self.0[HEAD_BYTES..];
        let (topic, rest) = body.split_at(topic_bytes);
        let (properties, payload) = rest.split_at(properties_bytes);
        let flags = self.0[22];
        Draft {
            tenant,
            // Cannot fail: `keep` wrote a &str here. An empty topic would match nothing.
            topic: std::str::from_utf8(topic).unwrap_or(""),
            properties,
            payload,
            qos: QoS::from_bits(flags & 3).unwrap_or(QoS::AtMostOnce),
            retain: flags & 4 != 0,
            expires_at: self.word(0),
            publisher: self.word(8),
            whole: Whole::NONE,
        }
    }

    /// The payload alone, for writing it from where it is.
    pub fn payload(&self) -> &[u8] {
        let (topic_bytes, properties_bytes) = self.lengths();
        &self.0[HEAD_BYTES + topic_bytes + properties_bytes..]
    }

    /// Bytes that a queue accounts for this message.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_message_gives_back_what_was_routed() {
        let draft = Draft {
            tenant: 7,
            topic: "a/b",
            properties: &[1, 1],
            payload: b"21.5",
            qos: QoS::ExactlyOnce,
            retain: true,
            expires_at: 5_000,
            publisher: 42,
            whole: Whole::NONE,
        };
        let message = draft.keep(&mut Vec::new());
        let back = message.draft(7);
        assert_eq!((back.topic, back.payload), ("a/b", &b"21.5"[..]));
        assert_eq!(
            (back.qos, back.retain, back.publisher),
            (QoS::ExactlyOnce, true, 42)
        );
        assert_eq!(back.properties, [1, 1]);
        assert_eq!(message.payload(), b"21.5");
    }

    #[test]
    fn expiry_counts_down_in_whole_seconds_and_ends_at_its_moment() {
        let draft = Draft {
            tenant: 0,
            topic: "t",
            properties: &[],
            payload: &[],
            qos: QoS::AtMostOnce,
            retain: false,
            expires_at: 3_000,
            publisher: 0,
            whole: Whole::NONE,
        };
        assert_eq!(draft.expiry_s(0), Some(3));
        assert_eq!(draft.expiry_s(2_001), Some(1));
        assert!(!draft.is_expired(2_999));
        assert!(draft.is_expired(3_000));
    }
}
