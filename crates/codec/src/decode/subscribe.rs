//! SUBSCRIBE and UNSUBSCRIBE.

use super::property;
use crate::text::{filter_fault, share};
use crate::wire::Reader;
use crate::{Filters, Malformed, Names, Subscribe, TextFault, Unsubscribe, Version};

/// Reads a SUBSCRIBE and walks its filters once.
pub(super) fn subscribe<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Subscribe<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let (subscription_id, user) = match version {
        Version::V5 => property::subscribe(&mut property::block(reader)?)?,
        Version::V31 | Version::V311 => Default::default(),
    };
    let bytes = reader.rest();
    if bytes.is_empty() {
        // [MQTT-3.8.3-2] [MQTT-3.1.1 3.8.3-3]
        return Err(Malformed::NoFilters);
    }
    while !reader.is_empty() {
        let filter = filter(reader)?;
        options(version, filter, reader.byte()?)?;
    }
    Ok(Subscribe {
        packet_id,
        subscription_id,
        user,
        filters: Filters::Raw { version, bytes },
    })
}

/// Reads an UNSUBSCRIBE and walks its filters once.
pub(super) fn unsubscribe<'a>(
    version: Version,
    reader: &mut Reader<'a>,
) -> Result<Unsubscribe<'a>, Malformed> {
    let packet_id = reader.packet_id()?;
    let user = match version {
        Version::V5 => property::unsubscribe(&mut property::block(reader)?)?,
        Version::V31 | Version::V311 => Default::default(),
    };
    let bytes = reader.rest();
    if bytes.is_empty() {
        // [MQTT-3.10.3-2] [MQTT-3.1.1 3.10.3-2]
        return Err(Malformed::NoFilters);
    }
    while !reader.is_empty() {
        filter(reader)?;
    }
    Ok(Unsubscribe {
        packet_id,
        user,
        filters: Names::Raw(bytes),
    })
}

/// Reads one valid filter.
fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    // [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-3.1.1 3.8.3-1] [MQTT-3.1.1 3.10.3-1]
    let filter = reader.unchecked_string()?;
    match filter_fault(filter) {
        None => Ok(filter),
        // The null character is a fault of the string, not of the filter.
        Some(TextFault::Null) => Err(Malformed::NullCharacter),
        Some(fault) => Err(Malformed::TopicFilter(fault)),
    }
}

/// Checks the options byte that follows a filter.
fn options(version: Version, filter: &str, options: u8) -> Result<(), Malformed> {
    let reserved = match version {
        Version::V5 => 0b1100_0000,
        Version::V31 | Version::V311 => 0b1111_1100,
    };
    if options & reserved != 0 {
        // [MQTT-3.8.3-5] [MQTT-3.1.1 3.8.3-4]
        return Err(Malformed::ReservedSubscriptionOption);
    }
    // [MQTT-3.1.1 3.8.3-4]
    if options & 0b11 == 3 || options >> 4 & 0b11 == 3 {
        return Err(Malformed::SubscriptionOption);
    }
    if options & 0b100 != 0 && share(filter).is_some() {
        // [MQTT-3.8.3-4]
        return Err(Malformed::NoLocalOnShared);
    }
    Ok(())
}
