//! From the bytes of one whole packet to a [`Packet`] that borrows from them.
//!
//! Nothing here allocates. Each packet is read field by field until its bytes are used up exactly;
//! what remains raw (filters, user properties) has been walked once and is known to be sound.

mod acknowledgement;
mod connect;
mod plain;
mod property;
mod publish;
mod subscribe;

use crate::frame::{first_fault, flags_are_valid};
use crate::wire::Reader;
use crate::{Auth, Disconnect, Frame, Malformed, Packet, Reason, Version};

use crate::reason::allowed;

pub use plain::{plain_ack, plain_publish, PlainPublish};

/// Who sent the bytes: each side may send some packets only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The bytes come from a client; the caller is a server.
    Client,
    /// The bytes come from a server; the caller is a client.
    Server,
}

/// Decodes one packet.
///
/// `body` is exactly what follows the fixed header that [`crate::frame()`] has read. `version` is
/// that of the connection's CONNECT, and is ignored for the CONNECT itself.
///
/// # Errors
/// Whatever bytes alone can show to be wrong. [`Malformed::reason`] says how to answer; the
/// connection must then be closed.
#[inline]
pub fn decode<'a>(
    version: Version,
    sender: Sender,
    frame: Frame,
    body: &'a [u8],
) -> Result<Packet<'a>, Malformed> {
    if frame.first >> 4 == 3 && body.len() == frame.body_bytes {
        return publish::publish(version, sender, frame.first, body).map(Packet::Publish);
    }
    rarer(version, sender, frame, body)
}

/// Decodes everything but PUBLISH, which stays alone on the hot path.
fn rarer<'a>(
    version: Version,
    sender: Sender,
    frame: Frame,
    body: &'a [u8],
) -> Result<Packet<'a>, Malformed> {
    if body.len() < frame.body_bytes {
        return Err(Malformed::Truncated);
    }
    if body.len() > frame.body_bytes {
        return Err(Malformed::TrailingBytes);
    }
    if !flags_are_valid(frame.first) {
        return Err(first_fault(frame.first));
    }
    let packet_type = frame.first >> 4;
    // MQTT 3.1 lets a client set DUP where it repeats PUBREL, SUBSCRIBE or UNSUBSCRIBE.
    // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.1.1 3.6.1-1] [MQTT-3.1.1 3.8.1-1]
    // [MQTT-3.1.1 3.10.1-1] Later versions do not.
    if matches!(packet_type, 6 | 8 | 10) && frame.first & 0b1000 != 0 && version != Version::V31 {
        return Err(Malformed::ReservedFlags);
    }
    admit(version, sender, packet_type)?;
    let mut reader = Reader::new(body);
    let packet = match packet_type {
        1 => Packet::Connect(connect::connect(&mut reader)?),
        2 => Packet::Connack(connect::connack(version, &mut reader)?),
        4 => Packet::Puback(acknowledgement::ack(
            version,
            allowed::in_puback,
            &mut reader,
        )?),
        5 => Packet::Pubrec(acknowledgement::ack(
            version,
            allowed::in_puback,
            &mut reader,
        )?),
        6 => Packet::Pubrel(acknowledgement::ack(
            version,
            allowed::in_pubrel,
            &mut reader,
        )?),
        7 => Packet::Pubcomp(acknowledgement::ack(
            version,
            allowed::in_pubrel,
            &mut reader,
        )?),
        8 => Packet::Subscribe(subscribe::subscribe(version, &mut reader)?),
        9 => Packet::Suback(acknowledgement::suback(version, &mut reader)?),
        10 => Packet::Unsubscribe(subscribe::unsubscribe(version, &mut reader)?),
        11 => Packet::Unsuback(acknowledgement::unsuback(version, &mut reader)?),
        12 => Packet::Pingreq,
        13 => Packet::Pingresp,
        14 => Packet::Disconnect(disconnect(version, sender, &mut reader)?),
        15 => Packet::Auth(auth(sender, &mut reader)?),
        // Type 0 has no valid flags and PUBLISH went its own way, so nothing else is left.
        _ => return Err(Malformed::ReservedType),
    };
    reader.end()?;
    Ok(packet)
}

/// Refuses packets that this side or this version never sends.
fn admit(version: Version, sender: Sender, packet_type: u8) -> Result<(), Malformed> {
    let theirs = match sender {
        Sender::Client => !matches!(packet_type, 2 | 9 | 11 | 13),
        Sender::Server => {
            // Before 5.0 a server just closes the connection.
            let is_silent_end = packet_type == 14 && version != Version::V5;
            !matches!(packet_type, 1 | 8 | 10 | 12) && !is_silent_end
        }
    };
    if !theirs {
        return Err(Malformed::WrongSender { packet_type });
    }
    if packet_type == 15 && version != Version::V5 {
        return Err(Malformed::NotInThisVersion);
    }
    Ok(())
}

/// Reads a reason code that `is_allowed` knows.
fn reason_in(code: u8, is_allowed: impl FnOnce(u8) -> bool) -> Result<Reason, Malformed> {
    match Reason::from_byte(code) {
        Some(reason) if is_allowed(code) => Ok(reason),
        _ => Err(Malformed::UnknownReason { code }),
    }
}

/// Reads the body of a DISCONNECT; before 5.0 it has none.
fn disconnect<'a>(
    version: Version,
    sender: Sender,
    reader: &mut Reader<'a>,
) -> Result<Disconnect<'a>, Malformed> {
    if version != Version::V5 || reader.is_empty() {
        return property::disconnect(Reason::Success, sender, &mut Reader::new(&[]));
    }
    let code = reader.byte()?;
    let reason = reason_in(code, |code| allowed::in_disconnect(code, sender))?;
    let mut block = match reader.is_empty() {
        true => Reader::new(&[]),
        false => property::block(reader)?,
    };
    property::disconnect(reason, sender, &mut block)
}

/// Reads the body of an AUTH; an empty one is a server's success.
fn auth<'a>(sender: Sender, reader: &mut Reader<'a>) -> Result<Auth<'a>, Malformed> {
    let is_short = reader.is_empty();
    let code = if is_short { 0 } else { reader.byte()? };
    let reason = reason_in(code, |code| allowed::in_auth(code, sender))?;
    if is_short {
        return Ok(Auth {
            reason,
            method: None,
            data: None,
            reason_string: None,
            user: Default::default(),
        });
    }
    let mut block = property::block(reader)?;
    property::auth(reason, &mut block)
}
