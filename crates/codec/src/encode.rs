//! From a [`Packet`] to bytes.
//!
//! A packet is walked twice by the same code: once to measure, once to write into a buffer that
//! already has the room. Nothing is written before the whole packet is known to fit.

mod property;
mod writer;

use thiserror::Error;

use self::property::Extras;
pub(crate) use self::writer::varint_bytes;
use self::writer::Writer;
use crate::frame::VARINT_MAX;
use crate::{
    Ack, Auth, Connack, Connect, Disconnect, Packet, Publish, QoS, Reason, Suback, Subscribe,
    Unsuback, Unsubscribe, UserProperties, Version,
};

pub(crate) use self::property::{forwardable_publish, forwardable_will};

/// A packet does not fit what its receiver accepts, or has no form on the wire.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a packet of {packet_bytes} bytes is too large to send")]
pub struct TooLarge {
    /// Bytes of the whole packet; `usize::MAX` where it cannot be written at any size: a string
    /// over 65,535 bytes, a body over 268,435,455 bytes, a PUBLISH above QoS 0 without an
    /// identifier, a SUBSCRIBE without a filter, an AUTH before 5.0, a refusal in CONNACK that no
    /// return code before 5.0 says, authentication data without a method.
    pub packet_bytes: usize,
}

impl TooLarge {
    /// A packet that cannot be written at any size.
    pub(crate) const WITHOUT_FORM: TooLarge = TooLarge {
        packet_bytes: usize::MAX,
    };
}

/// Appends one packet to `out`, which is as before on error.
///
/// `packet_bytes_max` is the receiver's limit in bytes, fixed header included. CONNACK, the
/// acknowledgements, SUBACK, UNSUBACK, DISCONNECT and AUTH lose first their user properties, then
/// their reason string, where they would pass it. What a version does not know is not written. A
/// CONNECT is written in its own version.
///
/// # Errors
/// [`TooLarge`] when the packet does not fit even so, or has no form on the wire.
pub fn encode(
    version: Version,
    packet: &Packet<'_>,
    packet_bytes_max: u32,
    out: &mut Vec<u8>,
) -> Result<(), TooLarge> {
    if let Some(bytes) = bare_acknowledgement(version, packet) {
        if packet_bytes_max < bytes.len() as u32 {
            return Err(TooLarge {
                packet_bytes: bytes.len(),
            });
        }
        out.extend_from_slice(&bytes);
        return Ok(());
    }
    let mut refused = TooLarge::WITHOUT_FORM;
    for extras in extras_of(packet) {
        let mut measure = Writer::measuring();
        body(version, packet, *extras, &mut measure);
        let body_bytes = measure.written_bytes();
        if measure.is_without_form() || body_bytes > VARINT_MAX {
            continue;
        }
        let packet_bytes = 1 + varint_bytes(body_bytes) + body_bytes;
        if packet_bytes > packet_bytes_max as usize {
            refused = TooLarge { packet_bytes };
            continue;
        }
        out.reserve(packet_bytes);
        let mut writer = Writer::into(out);
        writer.byte(first(packet));
        writer.varint(body_bytes);
        body(version, packet, *extras, &mut writer);
        debug_assert_eq!(writer.written_bytes(), packet_bytes);
        return Ok(());
    }
    Err(refused)
}

/// The four bytes of an acknowledgement that says nothing but success: nearly every one does, and
/// there is one for each message above QoS 0.
#[inline]
fn bare_acknowledgement(version: Version, packet: &Packet<'_>) -> Option<[u8; 4]> {
    let (Packet::Puback(ack) | Packet::Pubrec(ack) | Packet::Pubrel(ack) | Packet::Pubcomp(ack)) =
        packet
    else {
        return None;
    };
    let is_bare = ack.reason == Reason::Success
        && ack.reason_string.is_none()
        && matches!(ack.user, UserProperties::Raw([]) | UserProperties::List([]));
    if !is_bare && version == Version::V5 {
        return None;
    }
    let [high, low] = ack.packet_id.get().to_be_bytes();
    Some([first(packet), 2, high, low])
}

/// What to try, from the whole packet to the barest: [MQTT-3.2.2-19] [MQTT-3.2.2-20]
/// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
/// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
/// [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.15.2-2] [MQTT-3.15.2-3].
fn extras_of(packet: &Packet<'_>) -> &'static [Extras] {
    const ALL: Extras = Extras {
        user: true,
        reason_string: true,
    };
    const NO_USER: Extras = Extras {
        user: false,
        reason_string: true,
    };
    const NONE: Extras = Extras {
        user: false,
        reason_string: false,
    };
    match packet {
        Packet::Connect(_)
        | Packet::Publish(_)
        | Packet::Subscribe(_)
        | Packet::Unsubscribe(_)
        | Packet::Pingreq
        | Packet::Pingresp => &[ALL],
        _ => &[ALL, NO_USER, NONE],
    }
}

/// Byte 1: packet type and flags ([MQTT-2.1.3-1], [MQTT-3.1.1 2.2.2-1]).
fn first(packet: &Packet<'_>) -> u8 {
    match packet {
        Packet::Connect(_) => 0x10,
        Packet::Connack(_) => 0x20,
        Packet::Publish(p) => 0x30 | u8::from(p.dup) << 3 | (p.qos as u8) << 1 | u8::from(p.retain),
        Packet::Puback(_) => 0x40,
        Packet::Pubrec(_) => 0x50,
        Packet::Pubrel(_) => 0x62,
        Packet::Pubcomp(_) => 0x70,
        Packet::Subscribe(_) => 0x82,
        Packet::Suback(_) => 0x90,
        Packet::Unsubscribe(_) => 0xA2,
        Packet::Unsuback(_) => 0xB0,
        Packet::Pingreq => 0xC0,
        Packet::Pingresp => 0xD0,
        Packet::Disconnect(_) => 0xE0,
        Packet::Auth(_) => 0xF0,
    }
}

/// Everything after the fixed header.
fn body(version: Version, packet: &Packet<'_>, extras: Extras, writer: &mut Writer<'_>) {
    match packet {
        Packet::Connect(p) => connect(p, writer),
        Packet::Connack(p) => connack(version, p, extras, writer),
        Packet::Publish(p) => publish(version, p, writer),
        Packet::Puback(p) | Packet::Pubrec(p) | Packet::Pubrel(p) | Packet::Pubcomp(p) => {
            ack(version, p, extras, writer)
        }
        Packet::Subscribe(p) => subscribe(version, p, writer),
        Packet::Suback(p) => suback(version, p, extras, writer),
        Packet::Unsubscribe(p) => unsubscribe(version, p, writer),
        Packet::Unsuback(p) => unsuback(version, p, extras, writer),
        Packet::Pingreq | Packet::Pingresp => {}
        Packet::Disconnect(p) => disconnect(version, p, extras, writer),
        Packet::Auth(p) => auth(version, p, extras, writer),
    }
}

fn connect(p: &Connect<'_>, writer: &mut Writer<'_>) {
    // [MQTT-3.1.2-1] [MQTT-3.1.1 3.1.2-1]
    writer.string(if p.version == Version::V31 {
        "MQIsdp"
    } else {
        "MQTT"
    });
    writer.byte(p.version as u8);
    let will_flags = match &p.will {
        Some(will) => 0b100 | (will.qos as u8) << 3 | u8::from(will.retain) << 5,
        None => 0,
    };
    writer.byte(
        u8::from(p.clean_start) << 1
            | will_flags
            | u8::from(p.password.is_some()) << 6
            | u8::from(p.username.is_some()) << 7,
    );
    writer.two(p.keep_alive_s);
    if p.version == Version::V5 {
        property::connect(&p.properties, writer);
    }
    // [MQTT-3.1.3-1] [MQTT-3.1.1 3.1.3-1]
    writer.string(p.client_id);
    if let Some(will) = &p.will {
        if p.version == Version::V5 {
            property::will(&will.properties, writer);
        }
        writer.string(will.topic);
        writer.binary(will.payload);
    }
    if let Some(username) = p.username {
        writer.string(username);
    }
    if let Some(password) = p.password {
        if p.username.is_none() && p.version != Version::V5 {
            // [MQTT-3.1.1 3.1.2-22]
            writer.refuse();
        }
        writer.binary(password);
    }
}

fn connack(version: Version, p: &Connack<'_>, extras: Extras, writer: &mut Writer<'_>) {
    // [MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT-3.1.1 3.2.2-4] A refusal never claims a session.
    let flag = p.session_present && p.reason == Reason::Success && version != Version::V31;
    writer.byte(u8::from(flag));
    if version == Version::V5 {
        writer.byte(p.reason as u8);
        property::connack(&p.properties, extras, writer);
    } else {
        match p.reason.return_code() {
            Some(code) => writer.byte(code),
            // [MQTT-3.1.1 3.2.2-6] The connection is closed without a CONNACK.
            None => writer.refuse(),
        }
    }
}

fn publish(version: Version, p: &Publish<'_>, writer: &mut Writer<'_>) {
    writer.string(p.topic);
    match (p.qos, p.packet_id) {
        // [MQTT-2.2.1-2] [MQTT-3.1.1 2.3.1-5]
        (QoS::AtMostOnce, _) => {}
        (_, Some(packet_id)) => writer.two(packet_id.get()),
        (_, None) => writer.refuse(),
    }
    if version == Version::V5 {
        property::publish(&p.properties, writer);
    }
    writer.bytes(p.payload);
}

fn ack(version: Version, p: &Ack<'_>, extras: Extras, writer: &mut Writer<'_>) {
    writer.two(p.packet_id.get());
    let is_bare = property::answer_is_empty(p.reason_string, &p.user, extras);
    // The short forms of MQTT 5.0 §3.4.2.1 are what nearly every acknowledgement is.
    if version != Version::V5 || (is_bare && p.reason == Reason::Success) {
        return;
    }
    writer.byte(p.reason as u8);
    if !is_bare {
        property::answer(p.reason_string, &p.user, extras, writer);
    }
}

fn subscribe(version: Version, p: &Subscribe<'_>, writer: &mut Writer<'_>) {
    writer.two(p.packet_id.get());
    if version == Version::V5 {
        property::subscribe(p.subscription_id, &p.user, writer);
    }
    if p.filters.is_empty() {
        // [MQTT-3.8.3-2] [MQTT-3.1.1 3.8.3-3]
        writer.refuse();
    }
    for line in p.filters {
        writer.string(line.filter);
        let mut options = line.qos as u8;
        if version == Version::V5 {
            options |= u8::from(line.no_local) << 2
                | u8::from(line.retain_as_published) << 3
                | (line.retain_handling as u8) << 4;
        }
        writer.byte(options);
    }
}

fn suback(version: Version, p: &Suback<'_>, extras: Extras, writer: &mut Writer<'_>) {
    writer.two(p.packet_id.get());
    if version == Version::V5 {
        property::answer(p.reason_string, &p.user, extras, writer);
    }
    // [MQTT-3.9.3-1] [MQTT-3.1.1 3.9.3-1]
    for code in p.codes {
        // [MQTT-3.1.1 3.9.3-2] There is one refusal only before 5.0.
        let is_old_refusal = version != Version::V5 && code.is_refusal();
        writer.byte(if is_old_refusal { 0x80 } else { code as u8 });
    }
}

fn unsubscribe(version: Version, p: &Unsubscribe<'_>, writer: &mut Writer<'_>) {
    writer.two(p.packet_id.get());
    if version == Version::V5 {
        property::unsubscribe(&p.user, writer);
    }
    if p.filters.is_empty() {
        // [MQTT-3.10.3-2] [MQTT-3.1.1 3.10.3-2]
        writer.refuse();
    }
    for filter in p.filters {
        writer.string(filter);
    }
}

fn unsuback(version: Version, p: &Unsuback<'_>, extras: Extras, writer: &mut Writer<'_>) {
    writer.two(p.packet_id.get());
    if version == Version::V5 {
        property::answer(p.reason_string, &p.user, extras, writer);
        // [MQTT-3.11.3-1]
        for code in p.codes {
            writer.byte(code as u8);
        }
    }
}

fn disconnect(version: Version, p: &Disconnect<'_>, extras: Extras, writer: &mut Writer<'_>) {
    if version != Version::V5 {
        return;
    }
    let is_bare = property::disconnect_is_empty(p, extras);
    if is_bare && p.reason == Reason::Success {
        return;
    }
    writer.byte(p.reason as u8);
    if !is_bare {
        property::disconnect(p, extras, writer);
    }
}

fn auth(version: Version, p: &Auth<'_>, extras: Extras, writer: &mut Writer<'_>) {
    if version != Version::V5 {
        return writer.refuse();
    }
    let is_bare = property::auth_is_empty(p, extras);
    if is_bare && p.reason == Reason::Success {
        return;
    }
    if p.method.is_none() {
        // Only the empty body goes without a method (MQTT 5.0 §3.15.2.2.2).
        return writer.refuse();
    }
    writer.byte(p.reason as u8);
    property::auth(p, extras, writer);
}
