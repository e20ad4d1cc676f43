//! What can be wrong with received bytes, and the reason code that answers it.

use thiserror::Error;

use crate::{Reason, TextFault};

/// Why bytes were refused. It carries no received text, so that it may be logged as it is.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// The packet type is 0, which is nobody's.
    #[error("packet type 0 is reserved")]
    ReservedType,
    /// The low half of byte 1 differs from what the type demands.
    #[error("reserved flags of the fixed header differ from what the packet type demands")]
    ReservedFlags,
    /// A variable byte integer did not end within four bytes.
    #[error("a variable byte integer runs over four bytes")]
    LengthUnending,
    /// A variable byte integer has more bytes than its value needs.
    #[error("a variable byte integer has more bytes than its value needs")]
    LengthPadded,
    /// The packet is larger than this side accepts.
    #[error("a packet of {packet_bytes} bytes passes the maximum of {packet_bytes_max}")]
    PacketTooLarge {
        /// Size of the whole packet, fixed header included.
        packet_bytes: u32,
        /// The limit it passes.
        packet_bytes_max: u32,
    },
    /// A field runs past the end of the packet or of its property block.
    #[error("a field runs past the end of the packet")]
    Truncated,
    /// Bytes follow where the packet should end.
    #[error("bytes follow after the end of the packet")]
    TrailingBytes,
    /// A string is not well-formed UTF-8.
    #[error("a string is not well-formed UTF-8")]
    NotUtf8,
    /// A string contains U+0000.
    #[error("a string contains the null character")]
    NullCharacter,
    /// This side never sends this packet.
    #[error("this side of the connection never sends packet type {packet_type}")]
    WrongSender {
        /// Upper half of byte 1.
        packet_type: u8,
    },
    /// The packet type does not exist in the connection's version.
    #[error("the packet type does not exist in this protocol version")]
    NotInThisVersion,
    /// CONNECT names another protocol.
    #[error("the protocol name is unknown")]
    ProtocolName,
    /// CONNECT names a level that does not belong to the protocol name.
    #[error("protocol level {level} is not supported under this protocol name")]
    ProtocolLevel {
        /// The level byte.
        level: u8,
    },
    /// The lowest connect flag is set.
    #[error("the reserved connect flag is set")]
    ReservedConnectFlag,
    /// Will QoS or will retain without a will.
    #[error("will QoS or will retain is set without the will flag")]
    WillFlags,
    /// Before 5.0 a password needs a user name.
    #[error("a password without a user name is not allowed before MQTT 5.0")]
    PasswordWithoutUsername,
    /// The client id is empty where the version or a kept session forbids it.
    #[error("an empty client identifier is not allowed here")]
    EmptyClientId,
    /// A bit of the CONNACK flags other than session present is set.
    #[error("a reserved CONNACK flag is set")]
    ReservedConnackFlag,
    /// CONNACK refuses and yet claims a session.
    #[error("session present is set in a refusal")]
    SessionPresentInRefusal,
    /// A reason code that this packet may not carry, or not from this side.
    #[error("code {code:#04x} is not one of this packet's reason codes")]
    UnknownReason {
        /// The byte that was read.
        code: u8,
    },
    /// A packet identifier is 0.
    #[error("the packet identifier is 0")]
    ZeroPacketId,
    /// A QoS of 3.
    #[error("QoS 3 does not exist")]
    QoS3,
    /// DUP on a message that is never redelivered.
    #[error("DUP is set on a QoS 0 message")]
    DupAtQoS0,
    /// PUBLISH names no topic and no alias.
    #[error("the topic name is empty and there is no topic alias")]
    EmptyTopic,
    /// A topic name (of a PUBLISH or a will) is invalid.
    #[error("invalid topic name: {0}")]
    TopicName(TextFault),
    /// A topic filter is invalid.
    #[error("invalid topic filter: {0}")]
    TopicFilter(TextFault),
    /// A response topic is invalid.
    #[error("invalid response topic: {0}")]
    ResponseTopic(TextFault),
    /// A property identifier that does not exist.
    #[error("property {id:#04x} does not exist")]
    UnknownProperty {
        /// The identifier.
        id: u8,
    },
    /// A property that does not belong to this packet.
    #[error("property {id:#04x} does not belong to this packet")]
    PropertyNotAllowed {
        /// The identifier.
        id: u8,
    },
    /// A property that this side may not send in this packet.
    #[error("this side of the connection may not send property {id:#04x} here")]
    PropertyFromWrongSide {
        /// The identifier.
        id: u8,
    },
    /// A property that may stand once stands twice.
    #[error("property {id:#04x} stands twice")]
    DuplicateProperty {
        /// The identifier.
        id: u8,
    },
    /// A property has a value that its definition excludes.
    #[error("property {id:#04x} has a forbidden value")]
    PropertyValue {
        /// The identifier.
        id: u8,
    },
    /// Topic alias 0.
    #[error("topic alias 0 is not valid")]
    ZeroTopicAlias,
    /// Authentication data without a method, or an AUTH that names none.
    #[error("the authentication method is missing")]
    NoAuthenticationMethod,
    /// SUBSCRIBE or UNSUBSCRIBE without a filter.
    #[error("there is no topic filter")]
    NoFilters,
    /// SUBACK or UNSUBACK without a code.
    #[error("there is no reason code")]
    NoCodes,
    /// A reserved bit of the subscription options is set.
    #[error("a reserved bit of the subscription options is set")]
    ReservedSubscriptionOption,
    /// Retain handling 3, or QoS 3 asked for in SUBSCRIBE.
    #[error("a subscription option has a value that does not exist")]
    SubscriptionOption,
    /// No Local on a shared subscription.
    #[error("No Local is set on a shared subscription")]
    NoLocalOnShared,
}

impl Malformed {
    /// The reason code that CONNACK or DISCONNECT gives for this fault.
    ///
    /// Source: MQTT 5.0 §4.13 and the clauses of the single fields.
    pub const fn reason(&self) -> Reason {
        use Malformed::*;
        match self {
            ReservedType
            | ReservedFlags
            | LengthUnending
            | LengthPadded
            | Truncated
            | TrailingBytes
            | NotUtf8
            | NullCharacter
            | NotInThisVersion
            | ReservedConnectFlag
            | WillFlags
            | PasswordWithoutUsername
            | ReservedConnackFlag
            | QoS3
            | DupAtQoS0
            | UnknownProperty { .. }
            | PropertyNotAllowed { .. }
            | ReservedSubscriptionOption => Reason::MalformedPacket,
            WrongSender { .. }
            | SessionPresentInRefusal
            | UnknownReason { .. }
            | ZeroPacketId
            | EmptyTopic
            | ResponseTopic(_)
            | PropertyFromWrongSide { .. }
            | DuplicateProperty { .. }
            | PropertyValue { .. }
            | NoAuthenticationMethod
            | NoFilters
            | NoCodes
            | SubscriptionOption
            | NoLocalOnShared => Reason::ProtocolError,
            ProtocolName | ProtocolLevel { .. } => Reason::UnsupportedProtocolVersion,
            EmptyClientId => Reason::ClientIdentifierNotValid,
            TopicFilter(_) => Reason::TopicFilterInvalid,
            TopicName(_) => Reason::TopicNameInvalid,
            ZeroTopicAlias => Reason::TopicAliasInvalid,
            PacketTooLarge { .. } => Reason::PacketTooLarge,
        }
    }
}
