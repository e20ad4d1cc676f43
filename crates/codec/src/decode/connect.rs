//! CONNECT and its answer CONNACK.

use super::{property, reason_in};
use crate::reason::allowed;
use crate::text::topic_fault;
use crate::wire::Reader;
use crate::{
    Connack, ConnackProperties, Connect, ConnectProperties, Malformed, QoS, Reason, Version, Will,
    WillProperties,
};

/// The connect flags (MQTT 5.0 §3.1.2.3).
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const RESERVED: u8 = 0b0000_0001;
    const CLEAN_START: u8 = 0b0000_0010;
    const WILL: u8 = 0b0000_0100;
    const WILL_RETAIN: u8 = 0b0010_0000;
    const PASSWORD: u8 = 0b0100_0000;
    const USERNAME: u8 = 0b1000_0000;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn will_qos_bits(self) -> u8 {
        self.0 >> 3 & 0b11
    }

    /// Reads the flags and refuses those that contradict one another.
    fn read(version: Version, reader: &mut Reader<'_>) -> Result<Flags, Malformed> {
        let flags = Flags(reader.byte()?);
        if flags.has(Flags::RESERVED) {
            // [MQTT-3.1.2-3] [MQTT-3.1.1 3.1.2-3]
            return Err(Malformed::ReservedConnectFlag);
        }
        if flags.will_qos_bits() == 3 {
            // [MQTT-3.1.2-12] [MQTT-3.1.1 3.1.2-14]
            return Err(Malformed::QoS3);
        }
        let will_options = flags.will_qos_bits() != 0 || flags.has(Flags::WILL_RETAIN);
        if will_options && !flags.has(Flags::WILL) {
            // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.1 3.1.2-11] [MQTT-3.1.1 3.1.2-13]
            // [MQTT-3.1.1 3.1.2-15]
            return Err(Malformed::WillFlags);
        }
        let lone_password = flags.has(Flags::PASSWORD) && !flags.has(Flags::USERNAME);
        if lone_password && version != Version::V5 {
            // [MQTT-3.1.1 3.1.2-22]
            return Err(Malformed::PasswordWithoutUsername);
        }
        Ok(flags)
    }
}

/// Reads a CONNECT; fields stand in the order of [MQTT-3.1.3-1], [MQTT-3.1.1 3.1.3-1].
pub(super) fn connect<'a>(reader: &mut Reader<'a>) -> Result<Connect<'a>, Malformed> {
    let version = protocol(reader)?;
    let flags = Flags::read(version, reader)?;
    let keep_alive_s = reader.two()?;
    let properties = match version {
        Version::V5 => property::connect(&mut property::block(reader)?)?,
        Version::V31 | Version::V311 => ConnectProperties::default(),
    };
    // [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.1 3.1.3-3] [MQTT-3.1.1 3.1.3-4]
    let client_id = reader.string()?;
    let will = match flags.has(Flags::WILL) {
        // [MQTT-3.1.2-9] [MQTT-3.1.1 3.1.2-9]
        true => Some(will(version, flags, reader)?),
        false => None,
    };
    // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.3-12] [MQTT-3.1.1 3.1.2-18] [MQTT-3.1.1 3.1.2-19]
    // [MQTT-3.1.1 3.1.3-11] What a flag does not announce is refused below as trailing bytes.
    let username = match flags.has(Flags::USERNAME) {
        true => Some(reader.string()?),
        false => None,
    };
    // [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.1 3.1.2-20] [MQTT-3.1.1 3.1.2-21]
    let password = match flags.has(Flags::PASSWORD) {
        true => Some(reader.binary()?),
        false => None,
    };
    // [MQTT-3.1.4-1] [MQTT-3.1.1 3.1.4-1] Malformed bytes are named before a refused client id is.
    reader.end()?;
    let clean_start = flags.has(Flags::CLEAN_START);
    let may_be_empty = match version {
        Version::V31 => false,
        // [MQTT-3.1.1 3.1.3-7] [MQTT-3.1.1 3.1.3-8]
        Version::V311 => clean_start,
        // [MQTT-3.1.3-6]
        Version::V5 => true,
    };
    if client_id.is_empty() && !may_be_empty {
        return Err(Malformed::EmptyClientId);
    }
    Ok(Connect {
        version,
        clean_start,
        keep_alive_s,
        properties,
        client_id,
        will,
        username,
        password,
    })
}

/// Reads the protocol name and level; the bridge bit of the level is no version we speak.
fn protocol(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    let name = reader.binary()?;
    let level = reader.byte()?;
    match (name, level) {
        (b"MQTT", 5) => Ok(Version::V5),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQIsdp", 3) => Ok(Version::V31),
        // [MQTT-3.1.2-2] [MQTT-3.1.1 3.1.2-2]
        (b"MQTT" | b"MQIsdp", _) => Err(Malformed::ProtocolLevel { level }),
        // [MQTT-3.1.2-1] [MQTT-3.1.1 3.1.2-1]
        _ => Err(Malformed::ProtocolName),
    }
}

fn will<'a>(
    version: Version,
    flags: Flags,
    reader: &mut Reader<'a>,
) -> Result<Will<'a>, Malformed> {
    let properties = match version {
        Version::V5 => property::will(&mut property::block(reader)?)?,
        Version::V31 | Version::V311 => WillProperties::default(),
    };
    // [MQTT-3.1.3-11] [MQTT-3.1.1 3.1.3-10]
    let topic = reader.string()?;
    if let Some(fault) = topic_fault(topic) {
        return Err(Malformed::TopicName(fault));
    }
    Ok(Will {
        qos: QoS::from_bits(flags.will_qos_bits()).ok_or(Malformed::QoS3)?,
        retain: flags.has(Flags::WILL_RETAIN),
        topic,
        payload: reader.binary()?,
        properties,
    })
}

/// Reads a CONNACK.
pub(super) fn connack<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Connack<'a>, Malformed> {
    let flags = reader.byte()?;
    // [MQTT-3.2.2-1] Session present came with 3.1.1.
    let known = if version == Version::V31 { 0 } else { 1 };
    if flags & !known != 0 {
        return Err(Malformed::ReservedConnackFlag);
    }
    let session_present = flags == 1;
    let code = reader.byte()?;
    let reason = match version {
        Version::V5 => reason_in(code, allowed::in_connack)?,
        Version::V31 | Version::V311 => {
            Reason::from_return_code(code).ok_or(Malformed::UnknownReason { code })?
        }
    };
    if session_present && reason != Reason::Success {
        // [MQTT-3.2.2-6] [MQTT-3.1.1 3.2.2-4]
        return Err(Malformed::SessionPresentInRefusal);
    }
    let properties = match version {
        Version::V5 => property::connack(&mut property::block(reader)?)?,
        Version::V31 | Version::V311 => ConnackProperties::default(),
    };
    Ok(Connack {
        session_present,
        reason,
        properties,
    })
}
