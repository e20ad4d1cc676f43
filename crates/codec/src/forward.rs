//! The hot path of delivery: a stored message written for one recipient.

use std::num::NonZeroU16;

use crate::encode::{self, varint_bytes, TooLarge};
use crate::frame::VARINT_MAX;
use crate::property::id;
use crate::{PublishProperties, QoS, Version, WillProperties};

/// A stored message on its way to one recipient.
#[derive(Clone, Copy, Debug)]
pub struct Forwarded<'a> {
    /// A redelivery; never set at QoS 0.
    pub dup: bool,
    /// Quality of service of this delivery.
    pub qos: QoS,
    /// The retain flag that this recipient sees.
    pub retain: bool,
    /// Empty when only the alias is sent, which needs 5.0.
    pub topic: &'a str,
    /// Alias to set, or to use where `topic` is empty.
    pub alias: Option<NonZeroU16>,
    /// Seconds that are left of the message's life.
    pub expiry_s: Option<u32>,
    /// Identifiers of the subscriptions that matched, each 1 to 268,435,455.
    pub subscription_ids: &'a [u32],
    /// The properties that travel with the message, as [`forwardable`] wrote them.
    pub properties: &'a [u8],
    /// Bytes of the payload, which the caller appends.
    pub payload_bytes: usize,
}

/// Payloads up to this size are expected to be copied behind the header, so room is made for them;
/// larger ones are written to the socket from where they lie.
const COPIED_BYTES_MAX: usize = 8192;

/// Writes everything of the PUBLISH but its payload, which the caller appends.
///
/// Returns where in `out` the two bytes of the packet id stand, `None` at QoS 0. `packet_id` may be
/// 0 if the caller fills the place later. `packet_bytes_max` is the recipient's limit in bytes,
/// payload included ([MQTT-3.1.2-24], [MQTT-3.2.2-15]). Before 5.0 no properties are written.
///
/// # Errors
/// [`TooLarge`], with `out` as before, when the packet passes the limit or has no form: a topic
/// over 65,535 bytes, a subscription identifier out of range.
#[inline]
pub fn forward(
    version: Version,
    message: &Forwarded<'_>,
    packet_id: u16,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> Result<Option<usize>, TooLarge> {
    debug_assert!(
        !(message.dup && message.qos == QoS::AtMostOnce),
        "[MQTT-3.3.1-2]"
    );
    let size = Size::measure(version, message, packet_bytes_max)?;
    out.reserve(size.room(message.payload_bytes));
    let mut head = Short::<7>::new();
    head.byte(
        0x30 | u8::from(message.dup) << 3 | (message.qos as u8) << 1 | u8::from(message.retain),
    );
    head.varint(size.body_bytes);
    head.two(size.topic_bytes);
    out.extend_from_slice(head.bytes());
    out.extend_from_slice(message.topic.as_bytes());
    // [MQTT-2.2.1-2] [MQTT-3.1.1 2.3.1-5]
    let place = (message.qos != QoS::AtMostOnce).then_some(out.len());
    let mut tail = Short::<14>::new();
    if place.is_some() {
        tail.two(packet_id);
    }
    if let Some(block_bytes) = size.block_bytes {
        tail.varint(block_bytes);
        if let Some(expiry_s) = message.expiry_s {
            // [MQTT-3.3.2-6]
            tail.byte(id::MESSAGE_EXPIRY);
            tail.two((expiry_s >> 16) as u16);
            tail.two(expiry_s as u16);
        }
        if let Some(alias) = message.alias {
            // [MQTT-3.3.2-8] The type excludes 0.
            tail.byte(id::TOPIC_ALIAS);
            tail.two(alias.get());
        }
    }
    out.extend_from_slice(tail.bytes());
    if size.block_bytes.is_some() {
        // [MQTT-3.3.4-3] [MQTT-3.3.4-4]
        for &subscription_id in message.subscription_ids {
            let mut property = Short::<5>::new();
            property.byte(id::SUBSCRIPTION_ID);
            property.varint(subscription_id as usize);
            out.extend_from_slice(property.bytes());
        }
        out.extend_from_slice(message.properties);
    }
    Ok(place)
}

/// The lengths that a PUBLISH announces, known before its first byte is written.
struct Size {
    topic_bytes: u16,
    /// Of the property block without its own length; `None` before 5.0, which has no block.
    block_bytes: Option<usize>,
    body_bytes: usize,
}

impl Size {
    #[inline]
    fn measure(
        version: Version,
        message: &Forwarded<'_>,
        packet_bytes_max: u32,
    ) -> Result<Size, TooLarge> {
        let Ok(topic_bytes) = u16::try_from(message.topic.len()) else {
            return Err(TooLarge::WITHOUT_FORM);
        };
        let id_bytes = if message.qos == QoS::AtMostOnce { 0 } else { 2 };
        let mut body_bytes = 2 + message.topic.len() + id_bytes + message.payload_bytes;
        let mut block_bytes = None;
        if version == Version::V5 {
            let bytes = self::block_bytes(message)?;
            body_bytes += varint_bytes(bytes) + bytes;
            block_bytes = Some(bytes);
        }
        let packet_bytes = 1 + varint_bytes(body_bytes) + body_bytes;
        if body_bytes > VARINT_MAX || packet_bytes > packet_bytes_max as usize {
            return Err(TooLarge { packet_bytes });
        }
        Ok(Size {
            topic_bytes,
            block_bytes,
            body_bytes,
        })
    }

    /// Bytes to make room for: the packet, but not a payload that is not copied.
    #[inline]
    fn room(&self, payload_bytes: usize) -> usize {
        let skipped = if payload_bytes > COPIED_BYTES_MAX {
            payload_bytes
        } else {
            0
        };
        5 + self.body_bytes - skipped
    }
}

/// Bytes of the property block, without its own length.
#[inline]
fn block_bytes(message: &Forwarded<'_>) -> Result<usize, TooLarge> {
    let mut bytes = message.properties.len();
    if message.alias.is_some() {
        bytes += 3;
    }
    if message.expiry_s.is_some() {
        bytes += 5;
    }
    for &subscription_id in message.subscription_ids {
        if subscription_id == 0 || subscription_id as usize > VARINT_MAX {
            return Err(TooLarge::WITHOUT_FORM);
        }
        bytes += 1 + varint_bytes(subscription_id as usize);
    }
    Ok(bytes)
}

/// A few bytes on the stack, appended to the buffer in one go.
struct Short<const N: usize> {
    array: [u8; N],
    len: usize,
}

impl<const N: usize> Short<N> {
    #[inline]
    fn new() -> Short<N> {
        Short {
            array: [0; N],
            len: 0,
        }
    }

    #[inline]
    fn byte(&mut self, byte: u8) {
        self.array[self.len] = byte;
        self.len += 1;
    }

    #[inline]
    fn two(&mut self, value: u16) {
        let [high, low] = value.to_be_bytes();
        self.byte(high);
        self.byte(low);
    }

    /// Writes at most four bytes: every caller has checked its value against `VARINT_MAX`.
    #[inline]
    fn varint(&mut self, value: usize) {
        let mut rest = value;
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.array[..self.len]
    }
}

/// Appends the properties that travel with a message, in wire form without their length.
///
/// These are payload format, content type, response topic, correlation data and the user
/// properties in order ([MQTT-3.3.2-17], [MQTT-3.3.2-18]); nothing is written where there are none.
/// Expiry, alias and subscription identifiers belong to one delivery and are left to [`forward`].
/// A string over 65,535 bytes, which no decoded packet has, is left out with its property.
pub fn forwardable(properties: &PublishProperties<'_>, out: &mut Vec<u8>) {
    encode::forwardable_publish(properties, out);
}

/// Appends the properties that travel with a will; as [`forwardable`].
pub fn forwardable_will(properties: &WillProperties<'_>, out: &mut Vec<u8>) {
    encode::forwardable_will(properties, out);
}
