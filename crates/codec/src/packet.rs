//! The packets: borrowed views that decode returns and encode takes.

use std::num::{NonZeroU16, NonZeroU32};

use crate::property::{Codes, Filters, Names, SubscriptionIds, UserProperties};
use crate::{PacketId, QoS, Reason, RetainHandling, Version};

/// One control packet of any version; every byte string borrows from the input.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // Each variant is the packet of its name.
pub enum Packet<'a> {
    Connect(Connect<'a>),
    Connack(Connack<'a>),
    Publish(Publish<'a>),
    Puback(Ack<'a>),
    Pubrec(Ack<'a>),
    Pubrel(Ack<'a>),
    Pubcomp(Ack<'a>),
    Subscribe(Subscribe<'a>),
    Suback(Suback<'a>),
    Unsubscribe(Unsubscribe<'a>),
    Unsuback(Unsuback<'a>),
    Pingreq,
    Pingresp,
    Disconnect(Disconnect<'a>),
    Auth(Auth<'a>),
}

/// CONNECT (MQTT 5.0 §3.1). `Debug` hides the password.
#[derive(Clone, PartialEq)]
pub struct Connect<'a> {
    /// Version that the protocol name and level announce.
    pub version: Version,
    /// Clean Start, called Clean Session before 5.0.
    pub clean_start: bool,
    /// Seconds; 0 asks for no keep alive.
    pub keep_alive_s: u16,
    /// Empty before 5.0.
    pub properties: ConnectProperties<'a>,
    /// May be empty: the server then assigns one.
    pub client_id: &'a str,
    /// The message to publish when this client is lost.
    pub will: Option<Will<'a>>,
    /// What the client calls itself; proof is another matter.
    pub username: Option<&'a str>,
    /// Secret or token.
    pub password: Option<&'a [u8]>,
}

/// Properties of CONNECT (MQTT 5.0 §3.1.2.11). `Debug` hides the authentication data.
#[derive(Clone, Default, PartialEq)]
#[allow(missing_docs)] // The names are the specification's own; units are in the names.
pub struct ConnectProperties<'a> {
    pub session_expiry_s: Option<u32>,
    pub receive_max: Option<NonZeroU16>,
    pub packet_bytes_max: Option<NonZeroU32>,
    pub topic_alias_max: Option<u16>,
    pub request_response_information: Option<bool>,
    pub request_problem_information: Option<bool>,
    pub user: UserProperties<'a>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}

/// The will of a CONNECT.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Will<'a> {
    pub qos: QoS,
    pub retain: bool,
    pub topic: &'a str,
    pub payload: &'a [u8],
    pub properties: WillProperties<'a>,
}

/// Properties of a will (MQTT 5.0 §3.1.3.2).
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct WillProperties<'a> {
    pub delay_s: Option<u32>,
    pub payload_format: Option<bool>,
    pub message_expiry_s: Option<u32>,
    pub content_type: Option<&'a str>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub user: UserProperties<'a>,
}

/// CONNACK (MQTT 5.0 §3.2).
#[derive(Clone, Debug, PartialEq)]
pub struct Connack<'a> {
    /// The server still holds this client's session.
    pub session_present: bool,
    /// `Success`, or why not. Before 5.0 it is translated from and to the six return codes.
    pub reason: Reason,
    /// Empty before 5.0.
    pub properties: ConnackProperties<'a>,
}

/// Properties of CONNACK (MQTT 5.0 §3.2.2.3). `Debug` hides the authentication data.
#[derive(Clone, Default, PartialEq)]
#[allow(missing_docs)]
pub struct ConnackProperties<'a> {
    pub session_expiry_s: Option<u32>,
    pub receive_max: Option<NonZeroU16>,
    /// Only `AtMostOnce` or `AtLeastOnce` can be said; silence means QoS 2.
    pub qos_max: Option<QoS>,
    pub retain_available: Option<bool>,
    pub packet_bytes_max: Option<NonZeroU32>,
    pub assigned_client_id: Option<&'a str>,
    pub topic_alias_max: Option<u16>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub wildcard_available: Option<bool>,
    pub subscription_ids_available: Option<bool>,
    pub shared_available: Option<bool>,
    pub server_keep_alive_s: Option<u16>,
    pub response_information: Option<&'a str>,
    pub server_reference: Option<&'a str>,
    pub authentication_method: Option<&'a str>,
    pub authentication_data: Option<&'a [u8]>,
}

/// PUBLISH (MQTT 5.0 §3.3).
#[derive(Clone, Debug, PartialEq)]
pub struct Publish<'a> {
    /// A redelivery.
    pub dup: bool,
    /// Quality of service of this hop.
    pub qos: QoS,
    /// To a server: store me. From a server: I was stored.
    pub retain: bool,
    /// No wildcards; empty only in 5.0 and only beside an alias.
    pub topic: &'a str,
    /// Present exactly when `qos` is above 0.
    pub packet_id: Option<PacketId>,
    /// Empty before 5.0.
    pub properties: PublishProperties<'a>,
    /// Any bytes, any number within the packet limit.
    pub payload: &'a [u8],
}

/// Properties of PUBLISH (MQTT 5.0 §3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct PublishProperties<'a> {
    pub payload_format: Option<bool>,
    pub message_expiry_s: Option<u32>,
    pub topic_alias: Option<NonZeroU16>,
    pub response_topic: Option<&'a str>,
    pub correlation_data: Option<&'a [u8]>,
    pub user: UserProperties<'a>,
    /// Only from a server to a client.
    pub subscription_ids: SubscriptionIds<'a>,
    pub content_type: Option<&'a str>,
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP: an identifier and, in 5.0, a reason.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Ack<'a> {
    pub packet_id: PacketId,
    pub reason: Reason,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
}

/// SUBSCRIBE (MQTT 5.0 §3.8); at least one filter.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Subscribe<'a> {
    pub packet_id: PacketId,
    /// 1 to 268,435,455.
    pub subscription_id: Option<NonZeroU32>,
    pub user: UserProperties<'a>,
    pub filters: Filters<'a>,
}

/// One line of a SUBSCRIBE. `filter` is valid by [`crate::filter_fault`], `$share/…` included.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct SubscribeFilter<'a> {
    pub filter: &'a str,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
    pub retain_handling: RetainHandling,
}

/// SUBACK (MQTT 5.0 §3.9): one code for each filter, in order.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Suback<'a> {
    pub packet_id: PacketId,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub codes: Codes<'a>,
}

/// UNSUBSCRIBE (MQTT 5.0 §3.10); at least one filter.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Unsubscribe<'a> {
    pub packet_id: PacketId,
    pub user: UserProperties<'a>,
    pub filters: Names<'a>,
}

/// UNSUBACK (MQTT 5.0 §3.11); before 5.0 it has no codes.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Unsuback<'a> {
    pub packet_id: PacketId,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    pub codes: Codes<'a>,
}

/// DISCONNECT (MQTT 5.0 §3.14).
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Disconnect<'a> {
    /// `Success` is a normal end, which deletes the will.
    pub reason: Reason,
    /// Only from a client.
    pub session_expiry_s: Option<u32>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
    /// Only from a server.
    pub server_reference: Option<&'a str>,
}

/// AUTH (MQTT 5.0 §3.15). `Debug` hides the data.
#[derive(Clone, PartialEq)]
#[allow(missing_docs)]
pub struct Auth<'a> {
    /// `Success` (server only), `ContinueAuthentication`, or `Reauthenticate` (client only).
    pub reason: Reason,
    pub method: Option<&'a str>,
    pub data: Option<&'a [u8]>,
    pub reason_string: Option<&'a str>,
    pub user: UserProperties<'a>,
}
