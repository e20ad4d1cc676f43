//! Property blocks: one reader of values, and for each packet the list of what it may hold.

use std::num::{NonZeroU16, NonZeroU32};

use crate::property::id;
use crate::text::topic_fault;
use crate::wire::Reader;
use crate::{
    Auth, ConnackProperties, ConnectProperties, Disconnect, Malformed, PublishProperties, QoS,
    Reason, Sender, SubscriptionIds, UserProperties, WillProperties,
};

/// Reason string and user properties: all that most answers carry.
pub(super) type Answer<'a> = (Option<&'a str>, UserProperties<'a>);

/// Takes a property block: its length and that many bytes ([MQTT-2.2.2-1]).
#[inline]
pub(super) fn block<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>, Malformed> {
    let bytes = reader.varint()? as usize;
    Ok(Reader::new(reader.take(bytes)?))
}

/// Stores a value where there is none yet.
#[inline]
fn once<T>(slot: &mut Option<T>, id: u8, value: T) -> Result<(), Malformed> {
    if slot.is_some() {
        return Err(Malformed::DuplicateProperty { id });
    }
    *slot = Some(value);
    Ok(())
}

/// Names what does not belong here: a property of other packets, or none at all.
#[cold]
fn stray(id: u8) -> Malformed {
    match id {
        0x01..=0x03
        | 0x08
        | 0x09
        | 0x0B
        | 0x11..=0x13
        | 0x15..=0x1A
        | 0x1C
        | 0x1F
        | 0x21..=0x2A => Malformed::PropertyNotAllowed { id },
        _ => Malformed::UnknownProperty { id },
    }
}

fn boolean(id: u8, reader: &mut Reader<'_>) -> Result<bool, Malformed> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed::PropertyValue { id }),
    }
}

fn positive_two(id: u8, reader: &mut Reader<'_>) -> Result<NonZeroU16, Malformed> {
    NonZeroU16::new(reader.two()?).ok_or(Malformed::PropertyValue { id })
}

fn positive_four(id: u8, reader: &mut Reader<'_>) -> Result<NonZeroU32, Malformed> {
    NonZeroU32::new(reader.four()?).ok_or(Malformed::PropertyValue { id })
}

fn positive_varint(id: u8, reader: &mut Reader<'_>) -> Result<NonZeroU32, Malformed> {
    NonZeroU32::new(reader.varint()?).ok_or(Malformed::PropertyValue { id })
}

fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Malformed> {
    // [MQTT-3.3.2-13]
    let topic = reader.string()?;
    match topic_fault(topic) {
        None => Ok(topic),
        // [MQTT-3.3.2-14]
        Some(fault) => Err(Malformed::ResponseTopic(fault)),
    }
}

/// The user properties seen so far: where the first one stands, if there is one.
struct UserSpan<'a> {
    from_first: &'a [u8],
}

impl<'a> UserSpan<'a> {
    fn new() -> UserSpan<'a> {
        UserSpan { from_first: &[] }
    }

    /// Checks one pair; `before` begins at its identifier.
    fn add(&mut self, before: &'a [u8], reader: &mut Reader<'a>) -> Result<(), Malformed> {
        // [MQTT-1.5.7-1] One pass over the bytes, however many properties there are.
        reader.pair()?;
        if self.from_first.is_empty() {
            self.from_first = before;
        }
        Ok(())
    }

    fn list(&self) -> UserProperties<'a> {
        UserProperties::Raw(self.from_first)
    }
}

/// Calls `take` for each property of a block, with the identifier, the bytes that begin with it,
/// and the reader standing before the value.
#[inline]
fn each<'a>(
    block: &mut Reader<'a>,
    mut take: impl FnMut(u8, &'a [u8], &mut Reader<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    while !block.is_empty() {
        let before = block.rest();
        let id = block.byte()?;
        take(id, before, block)?;
    }
    Ok(())
}

pub(super) fn connect<'a>(block: &mut Reader<'a>) -> Result<ConnectProperties<'a>, Malformed> {
    let mut found = ConnectProperties::default();
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::SESSION_EXPIRY => once(&mut found.session_expiry_s, id, reader.four()?),
        id::RECEIVE_MAX => once(&mut found.receive_max, id, positive_two(id, reader)?),
        id::PACKET_BYTES_MAX => once(&mut found.packet_bytes_max, id, positive_four(id, reader)?),
        id::TOPIC_ALIAS_MAX => once(&mut found.topic_alias_max, id, reader.two()?),
        id::REQUEST_RESPONSE_INFORMATION => once(
            &mut found.request_response_information,
            id,
            boolean(id, reader)?,
        ),
        id::REQUEST_PROBLEM_INFORMATION => once(
            &mut found.request_problem_information,
            id,
            boolean(id, reader)?,
        ),
        id::USER_PROPERTY => user.add(before, reader),
        id::AUTHENTICATION_METHOD => once(&mut found.authentication_method, id, reader.string()?),
        id::AUTHENTICATION_DATA => once(&mut found.authentication_data, id, reader.binary()?),
        _ => Err(stray(id)),
    })?;
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(Malformed::NoAuthenticationMethod);
    }
    found.user = user.list();
    Ok(found)
}

pub(super) fn will<'a>(block: &mut Reader<'a>) -> Result<WillProperties<'a>, Malformed> {
    let mut found = WillProperties::default();
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::WILL_DELAY => once(&mut found.delay_s, id, reader.four()?),
        id::PAYLOAD_FORMAT => once(&mut found.payload_format, id, boolean(id, reader)?),
        id::MESSAGE_EXPIRY => once(&mut found.message_expiry_s, id, reader.four()?),
        id::CONTENT_TYPE => once(&mut found.content_type, id, reader.string()?),
        id::RESPONSE_TOPIC => once(&mut found.response_topic, id, response_topic(reader)?),
        id::CORRELATION_DATA => once(&mut found.correlation_data, id, reader.binary()?),
        id::USER_PROPERTY => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    found.user = user.list();
    Ok(found)
}

pub(super) fn connack<'a>(block: &mut Reader<'a>) -> Result<ConnackProperties<'a>, Malformed> {
    let mut found = ConnackProperties::default();
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::SESSION_EXPIRY => once(&mut found.session_expiry_s, id, reader.four()?),
        id::RECEIVE_MAX => once(&mut found.receive_max, id, positive_two(id, reader)?),
        id::QOS_MAX => once(&mut found.qos_max, id, qos_max(id, reader)?),
        id::RETAIN_AVAILABLE => once(&mut found.retain_available, id, boolean(id, reader)?),
        id::PACKET_BYTES_MAX => once(&mut found.packet_bytes_max, id, positive_four(id, reader)?),
        id::ASSIGNED_CLIENT_ID => once(&mut found.assigned_client_id, id, reader.string()?),
        id::TOPIC_ALIAS_MAX => once(&mut found.topic_alias_max, id, reader.two()?),
        id::REASON_STRING => once(&mut found.reason_string, id, reader.string()?),
        id::USER_PROPERTY => user.add(before, reader),
        id::WILDCARD_AVAILABLE => once(&mut found.wildcard_available, id, boolean(id, reader)?),
        id::SUBSCRIPTION_IDS_AVAILABLE => once(
            &mut found.subscription_ids_available,
            id,
            boolean(id, reader)?,
        ),
        id::SHARED_AVAILABLE => once(&mut found.shared_available, id, boolean(id, reader)?),
        id::SERVER_KEEP_ALIVE => once(&mut found.server_keep_alive_s, id, reader.two()?),
        id::RESPONSE_INFORMATION => once(&mut found.response_information, id, reader.string()?),
        id::SERVER_REFERENCE => once(&mut found.server_reference, id, reader.string()?),
        id::AUTHENTICATION_METHOD => once(&mut found.authentication_method, id, reader.string()?),
        id::AUTHENTICATION_DATA => once(&mut found.authentication_data, id, reader.binary()?),
        _ => Err(stray(id)),
    })?;
    if found.authentication_data.is_some() && found.authentication_method.is_none() {
        return Err(Malformed::NoAuthenticationMethod);
    }
    found.user = user.list();
    Ok(found)
}

/// Maximum QoS: only 0 and 1 can be said.
fn qos_max(id: u8, reader: &mut Reader<'_>) -> Result<QoS, Malformed> {
    match boolean(id, reader)? {
        false => Ok(QoS::AtMostOnce),
        true => Ok(QoS::AtLeastOnce),
    }
}

/// Reads the properties of a PUBLISH; most have none, and that path is a single comparison.
#[inline]
pub(super) fn publish<'a>(
    sender: Sender,
    reader: &mut Reader<'a>,
) -> Result<PublishProperties<'a>, Malformed> {
    let mut block = block(reader)?;
    if block.is_empty() {
        return Ok(PublishProperties::default());
    }
    publish_block(sender, &mut block)
}

fn publish_block<'a>(
    sender: Sender,
    block: &mut Reader<'a>,
) -> Result<PublishProperties<'a>, Malformed> {
    let mut found = PublishProperties::default();
    let mut user = UserSpan::new();
    let mut subscription_ids: &[u8] = &[];
    each(block, |id, before, reader| match id {
        id::PAYLOAD_FORMAT => once(&mut found.payload_format, id, boolean(id, reader)?),
        id::MESSAGE_EXPIRY => once(&mut found.message_expiry_s, id, reader.four()?),
        id::TOPIC_ALIAS => {
            // [MQTT-3.3.2-8]
            let alias = NonZeroU16::new(reader.two()?).ok_or(Malformed::ZeroTopicAlias)?;
            once(&mut found.topic_alias, id, alias)
        }
        id::RESPONSE_TOPIC => once(&mut found.response_topic, id, response_topic(reader)?),
        id::CORRELATION_DATA => once(&mut found.correlation_data, id, reader.binary()?),
        id::USER_PROPERTY => user.add(before, reader),
        id::SUBSCRIPTION_ID => {
            if sender == Sender::Client {
                // [MQTT-3.3.4-6]
                return Err(Malformed::PropertyFromWrongSide { id });
            }
            positive_varint(id, reader)?;
            if subscription_ids.is_empty() {
                subscription_ids = before;
            }
            Ok(())
        }
        // [MQTT-3.3.2-19]
        id::CONTENT_TYPE => once(&mut found.content_type, id, reader.string()?),
        _ => Err(stray(id)),
    })?;
    found.user = user.list();
    found.subscription_ids = SubscriptionIds::Raw(subscription_ids);
    Ok(found)
}

/// Reads the properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) fn answer<'a>(block: &mut Reader<'a>) -> Result<Answer<'a>, Malformed> {
    let mut reason_string = None;
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::REASON_STRING => once(&mut reason_string, id, reader.string()?),
        id::USER_PROPERTY => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    Ok((reason_string, user.list()))
}

pub(super) fn subscribe<'a>(
    block: &mut Reader<'a>,
) -> Result<(Option<NonZeroU32>, UserProperties<'a>), Malformed> {
    let mut subscription_id = None;
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::SUBSCRIPTION_ID => once(&mut subscription_id, id, positive_varint(id, reader)?),
        id::USER_PROPERTY => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    Ok((subscription_id, user.list()))
}

pub(super) fn unsubscribe<'a>(block: &mut Reader<'a>) -> Result<UserProperties<'a>, Malformed> {
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::USER_PROPERTY => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    Ok(user.list())
}

pub(super) fn disconnect<'a>(
    reason: Reason,
    sender: Sender,
    block: &mut Reader<'a>,
) -> Result<Disconnect<'a>, Malformed> {
    let mut session_expiry_s = None;
    let mut reason_string = None;
    let mut server_reference = None;
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match (id, sender) {
        (id::SESSION_EXPIRY, Sender::Client) => once(&mut session_expiry_s, id, reader.four()?),
        (id::SERVER_REFERENCE, Sender::Server) => once(&mut server_reference, id, reader.string()?),
        // [MQTT-3.14.2-2] and its mirror: only a server knows another server.
        (id::SESSION_EXPIRY | id::SERVER_REFERENCE, _) => {
            Err(Malformed::PropertyFromWrongSide { id })
        }
        (id::REASON_STRING, _) => once(&mut reason_string, id, reader.string()?),
        (id::USER_PROPERTY, _) => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    let user = user.list();
    Ok(Disconnect {
        reason,
        session_expiry_s,
        reason_string,
        user,
        server_reference,
    })
}

pub(super) fn auth<'a>(reason: Reason, block: &mut Reader<'a>) -> Result<Auth<'a>, Malformed> {
    let mut method = None;
    let mut data = None;
    let mut reason_string = None;
    let mut user = UserSpan::new();
    each(block, |id, before, reader| match id {
        id::AUTHENTICATION_METHOD => once(&mut method, id, reader.string()?),
        id::AUTHENTICATION_DATA => once(&mut data, id, reader.binary()?),
        id::REASON_STRING => once(&mut reason_string, id, reader.string()?),
        id::USER_PROPERTY => user.add(before, reader),
        _ => Err(stray(id)),
    })?;
    if method.is_none() {
        // Only the empty body, a bare success, goes without a method (MQTT 5.0 §3.15.2.2.2).
        return Err(Malformed::NoAuthenticationMethod);
    }
    Ok(Auth {
        reason,
        method,
        data,
        reason_string,
        user: user.list(),
    })
}
