//! The packets that answer: PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.

use super::{property, reason_in};
use crate::reason::allowed;
use crate::wire::Reader;
use crate::{Ack, Codes, Malformed, Reason, Suback, Unsuback, Version};

/// Reads one of the four acknowledgements of PUBLISH; 5.0 has forms of 2, 3 and more bytes.
pub(super) fn ack<'a>(
    version: Version,
    is_allowed: fn(u8) -> bool,
    reader: &mut Reader<'a>,
) -> Result<Ack<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let mut ack = Ack {
        packet_id,
        reason: Reason::Success,
        reason_string: None,
        user: Default::default(),
    };
    // Before 5.0 whatever follows is refused as trailing bytes.
    if version != Version::V5 || reader.is_empty() {
        return Ok(ack);
    }
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    ack.reason = reason_in(reader.byte()?, is_allowed)?;
    if !reader.is_empty() {
        let mut block = property::block(reader)?;
        (ack.reason_string, ack.user) = property::answer(&mut block)?;
    }
    Ok(ack)
}

/// Reads a SUBACK.
pub(super) fn suback<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Suback<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (reason_string, user) = properties(version, reader)?;
    let is_allowed = match version {
        Version::V5 => allowed::in_suback,
        Version::V31 | Version::V311 => allowed::in_old_suback,
    };
    let codes = codes(is_allowed, reader)?;
    Ok(Suback {
        packet_id,
        reason_string,
        user,
        codes,
    })
}

/// Reads an UNSUBACK; before 5.0 it is an identifier and nothing else.
pub(super) fn unsuback<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Unsuback<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (reason_string, user) = properties(version, reader)?;
    let codes = match version {
        Version::V5 => codes(allowed::in_unsuback, reader)?,
        Version::V31 | Version::V311 => Codes::default(),
    };
    Ok(Unsuback {
        packet_id,
        reason_string,
        user,
        codes,
    })
}

fn properties<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<property::Answer<'a>, Malformed> {
    match version {
        Version::V5 => property::answer(&mut property::block(reader)?),
        Version::V31 | Version::V311 => Ok((None, Default::default())),
    }
}

/// Takes all that is left as codes.
fn codes<'a>(is_allowed: fn(u8) -> bool, reader: &mut Reader<'a>) -> Result<Codes<'a>, Malformed> {
    let bytes = reader.take(reader.rest().len())?;
    if bytes.is_empty() {
        // There was at least one filter to answer ([MQTT-3.8.3-2], [MQTT-3.10.3-2]).
        return Err(Malformed::NoCodes);
    }
    match bytes.iter().find(|&&code| !is_allowed(code)) {
        Some(&code) => Err(Malformed::UnknownReason { code }),
        None => Ok(Codes::Raw(bytes)),
    }
}
