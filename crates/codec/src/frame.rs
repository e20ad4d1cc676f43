//! The fixed header: where a packet ends, and whether it may begin at all.

use crate::Malformed;

/// The largest value of a variable byte integer, and so the largest body (MQTT 5.0 §1.5.5).
pub(crate) const VARINT_MAX: usize = 268_435_455;

/// The fixed header of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Byte 1: packet type in the upper half, flags in the lower.
    pub first: u8,
    /// Bytes of the fixed header, 2 to 5.
    pub header_bytes: usize,
    /// Bytes that follow the fixed header, at most 268,435,455.
    pub body_bytes: usize,
}

impl Frame {
    /// Bytes of the whole packet, fixed header included.
    #[inline]
    pub fn packet_bytes(&self) -> usize {
        self.header_bytes + self.body_bytes
    }
}

/// For each packet type, the set of valid flags as bits: bit n stands for the flags n.
///
/// PUBLISH excludes QoS 3 ([MQTT-3.3.1-4], [MQTT-3.1.1 3.3.1-4]) and DUP at QoS 0 ([MQTT-3.3.1-2],
/// [MQTT-3.1.1 3.3.1-2]). PUBREL, SUBSCRIBE and UNSUBSCRIBE allow 0b0010 and, because MQTT 3.1 lets
/// a client mark their repetition, 0b1010; `decode` refuses the latter in later versions.
const VALID_FLAGS: [u16; 16] = [
    0,
    1,
    1,
    0b0011_1100_0011_1111,
    1,
    1,
    0b0000_0100_0000_0100,
    1,
    0b0000_0100_0000_0100,
    1,
    0b0000_0100_0000_0100,
    1,
    1,
    1,
    1,
    1,
];

/// Finds the end of the packet at the start of `input`.
///
/// `Ok(None)` asks for more bytes. `packet_bytes_max` is in bytes and counts the fixed header; a
/// packet beyond it is refused as soon as its length is known, before anything is kept for it.
///
/// # Errors
/// A packet type or flags that cannot be, from byte 1 alone ([MQTT-2.1.3-1],
/// [MQTT-3.1.1 2.2.2-1], [MQTT-3.1.1 2.2.2-2]); a length of more than four bytes or with padding
/// ([MQTT-1.5.5-1]); a packet over the maximum.
#[inline]
pub fn frame(input: &[u8], packet_bytes_max: u32) -> Result<Option<Frame>, Malformed> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    // [MQTT-2.1.3-1] [MQTT-3.1.1 2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1]
    // [MQTT-3.14.1-1] [MQTT-3.15.1-1] [MQTT-3.1.1 3.6.1-1] [MQTT-3.1.1 3.8.1-1]
    // [MQTT-3.1.1 3.10.1-1] [MQTT-3.1.1 3.14.1-1] [MQTT-3.3.1-2] [MQTT-3.3.1-4]
    // [MQTT-3.1.1 3.3.1-2] [MQTT-3.1.1 3.3.1-4] The flags are known before any length is.
    if VALID_FLAGS[usize::from(first >> 4)] >> (first & 0x0F) & 1 == 0 {
        return Err(first_fault(first));
    }
    let (header_bytes, body_bytes) = match rest.first() {
        None => return Ok(None),
        // Most packets are short: their length is one byte.
        Some(&byte) if byte < 0x80 => (2, usize::from(byte)),
        Some(_) => match varint(rest)? {
            None => return Ok(None),
            Some((value, bytes)) => (1 + bytes, value as usize),
        },
    };
    let frame = Frame {
        first,
        header_bytes,
        body_bytes,
    };
    // [MQTT-3.2.2-15] A sender that was told our maximum is held to it.
    if frame.packet_bytes() > packet_bytes_max as usize {
        // At most 5 + 268,435,455 bytes, so the conversion keeps the value.
        let packet_bytes = frame.packet_bytes() as u32;
        return Err(Malformed::PacketTooLarge {
            packet_bytes,
            packet_bytes_max,
        });
    }
    Ok(Some(frame))
}

/// Reads a variable byte integer: its value and its own bytes, or `None` where it is cut short.
///
/// # Errors
/// More than four bytes, or more than the value needs.
pub(crate) fn varint(input: &[u8]) -> Result<Option<(u32, usize)>, Malformed> {
    let mut value = 0;
    for index in 0..4 {
        let Some(&byte) = input.get(index) else {
            return Ok(None);
        };
        value |= u32::from(byte & 0x7F) << (7 * index);
        if byte < 0x80 {
            // [MQTT-1.5.5-1] A zero last byte adds nothing: two spellings of one length are how
            // a second packet is smuggled past a neighbour that counts differently.
            if byte == 0 && index > 0 {
                return Err(Malformed::LengthPadded);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    Err(Malformed::LengthUnending)
}

/// Says what is wrong with a byte 1 whose flags are not in the table.
#[cold]
pub(crate) fn first_fault(first: u8) -> Malformed {
    match first >> 4 {
        0 => Malformed::ReservedType,
        3 if first & 0b0110 == 0b0110 => Malformed::QoS3,
        3 => Malformed::DupAtQoS0,
        _ => Malformed::ReservedFlags,
    }
}

/// True where the flags of byte 1 are valid in some version; `frame` has made sure of it already,
/// but a `Frame` can also be built by hand.
pub(crate) fn flags_are_valid(first: u8) -> bool {
    VALID_FLAGS[usize::from(first >> 4)] >> (first & 0x0F) & 1 == 1
}
