//! Reason codes of MQTT 5.0 and their older spellings.

use std::fmt;

/// One reason code of MQTT 5.0 §2.4; also names what older versions say with fewer words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[allow(missing_docs)] // The names are the specification's own.
pub enum Reason {
    /// Also Normal disconnection and Granted QoS 0.
    Success = 0x00,
    GrantedQoS1 = 0x01,
    GrantedQoS2 = 0x02,
    DisconnectWithWill = 0x04,
    NoMatchingSubscribers = 0x10,
    NoSubscriptionExisted = 0x11,
    ContinueAuthentication = 0x18,
    Reauthenticate = 0x19,
    UnspecifiedError = 0x80,
    MalformedPacket = 0x81,
    ProtocolError = 0x82,
    ImplementationSpecificError = 0x83,
    UnsupportedProtocolVersion = 0x84,
    ClientIdentifierNotValid = 0x85,
    BadUserNameOrPassword = 0x86,
    NotAuthorized = 0x87,
    ServerUnavailable = 0x88,
    ServerBusy = 0x89,
    Banned = 0x8A,
    ServerShuttingDown = 0x8B,
    BadAuthenticationMethod = 0x8C,
    KeepAliveTimeout = 0x8D,
    SessionTakenOver = 0x8E,
    TopicFilterInvalid = 0x8F,
    TopicNameInvalid = 0x90,
    PacketIdentifierInUse = 0x91,
    PacketIdentifierNotFound = 0x92,
    ReceiveMaximumExceeded = 0x93,
    TopicAliasInvalid = 0x94,
    PacketTooLarge = 0x95,
    MessageRateTooHigh = 0x96,
    QuotaExceeded = 0x97,
    AdministrativeAction = 0x98,
    PayloadFormatInvalid = 0x99,
    RetainNotSupported = 0x9A,
    QoSNotSupported = 0x9B,
    UseAnotherServer = 0x9C,
    ServerMoved = 0x9D,
    SharedSubscriptionsNotSupported = 0x9E,
    ConnectionRateExceeded = 0x9F,
    MaximumConnectTime = 0xA0,
    SubscriptionIdentifiersNotSupported = 0xA1,
    WildcardSubscriptionsNotSupported = 0xA2,
}

impl Reason {
    /// True for the codes that end what they answer (0x80 and above).
    pub const fn is_refusal(self) -> bool {
        self as u8 >= 0x80
    }

    /// Reads one byte; `None` for a value that MQTT 5.0 does not define.
    pub const fn from_byte(byte: u8) -> Option<Reason> {
        use Reason::*;
        Some(match byte {
            0x00 => Success,
            0x01 => GrantedQoS1,
            0x02 => GrantedQoS2,
            0x04 => DisconnectWithWill,
            0x10 => NoMatchingSubscribers,
            0x11 => NoSubscriptionExisted,
            0x18 => ContinueAuthentication,
            0x19 => Reauthenticate,
            0x80 => UnspecifiedError,
            0x81 => MalformedPacket,
            0x82 => ProtocolError,
            0x83 => ImplementationSpecificError,
            0x84 => UnsupportedProtocolVersion,
            0x85 => ClientIdentifierNotValid,
            0x86 => BadUserNameOrPassword,
            0x87 => NotAuthorized,
            0x88 => ServerUnavailable,
            0x89 => ServerBusy,
            0x8A => Banned,
            0x8B => ServerShuttingDown,
            0x8C => BadAuthenticationMethod,
            0x8D => KeepAliveTimeout,
            0x8E => SessionTakenOver,
            0x8F => TopicFilterInvalid,
            0x90 => TopicNameInvalid,
            0x91 => PacketIdentifierInUse,
            0x92 => PacketIdentifierNotFound,
            0x93 => ReceiveMaximumExceeded,
            0x94 => TopicAliasInvalid,
            0x95 => PacketTooLarge,
            0x96 => MessageRateTooHigh,
            0x97 => QuotaExceeded,
            0x98 => AdministrativeAction,
            0x99 => PayloadFormatInvalid,
            0x9A => RetainNotSupported,
            0x9B => QoSNotSupported,
            0x9C => UseAnotherServer,
            0x9D => ServerMoved,
            0x9E => SharedSubscriptionsNotSupported,
            0x9F => ConnectionRateExceeded,
            0xA0 => MaximumConnectTime,
            0xA1 => SubscriptionIdentifiersNotSupported,
            0xA2 => WildcardSubscriptionsNotSupported,
            _ => return None,
        })
    }

    /// The CONNACK return code of MQTT 3.1 and 3.1.1 that says the same (MQTT 3.1.1 §3.2.2.3).
    ///
    /// `None` where no return code does: the connection is then closed without a CONNACK
    /// ([MQTT-3.1.1 3.2.2-6]).
    pub const fn return_code(self) -> Option<u8> {
        use Reason::*;
        Some(match self {
            Success => 0,
            UnsupportedProtocolVersion => 1,
            ClientIdentifierNotValid => 2,
            ServerUnavailable
            | ServerBusy
            | ServerShuttingDown
            | QuotaExceeded
            | UseAnotherServer
            | ServerMoved
            | ConnectionRateExceeded => 3,
            BadUserNameOrPassword => 4,
            NotAuthorized | Banned | BadAuthenticationMethod | TopicNameInvalid => 5,
            _ => return None,
        })
    }

    /// Reads a CONNACK return code of MQTT 3.1 and 3.1.1; `None` for the reserved ones.
    pub const fn from_return_code(code: u8) -> Option<Reason> {
        use Reason::*;
        Some(match code {
            0 => Success,
            1 => UnsupportedProtocolVersion,
            2 => ClientIdentifierNotValid,
            3 => ServerUnavailable,
            4 => BadUserNameOrPassword,
            5 => NotAuthorized,
            _ => return None,
        })
    }

    /// The specification's own name of the code.
    pub const fn name(self) -> &'static str {
        use Reason::*;
        match self {
            Success => "Success",
            GrantedQoS1 => "Granted QoS 1",
            GrantedQoS2 => "Granted QoS 2",
            DisconnectWithWill => "Disconnect with will message",
            NoMatchingSubscribers => "No matching subscribers",
            NoSubscriptionExisted => "No subscription existed",
            ContinueAuthentication => "Continue authentication",
            Reauthenticate => "Reauthenticate",
            UnspecifiedError => "Unspecified error",
            MalformedPacket => "Malformed packet",
            ProtocolError => "Protocol error",
            ImplementationSpecificError => "Implementation specific error",
            UnsupportedProtocolVersion => "Unsupported protocol version",
            ClientIdentifierNotValid => "Client identifier not valid",
            BadUserNameOrPassword => "Bad user name or password",
            NotAuthorized => "Not authorized",
            ServerUnavailable => "Server unavailable",
            ServerBusy => "Server busy",
            Banned => "Banned",
            ServerShuttingDown => "Server shutting down",
            BadAuthenticationMethod => "Bad authentication method",
            KeepAliveTimeout => "Keep alive timeout",
            SessionTakenOver => "Session taken over",
            TopicFilterInvalid => "Topic filter invalid",
            TopicNameInvalid => "Topic name invalid",
            PacketIdentifierInUse => "Packet identifier in use",
            PacketIdentifierNotFound => "Packet identifier not found",
            ReceiveMaximumExceeded => "Receive maximum exceeded",
            TopicAliasInvalid => "Topic alias invalid",
            PacketTooLarge => "Packet too large",
            MessageRateTooHigh => "Message rate too high",
            QuotaExceeded => "Quota exceeded",
            AdministrativeAction => "Administrative action",
            PayloadFormatInvalid => "Payload format invalid",
            RetainNotSupported => "Retain not supported",
            QoSNotSupported => "QoS not supported",
            UseAnotherServer => "Use another server",
            ServerMoved => "Server moved",
            SharedSubscriptionsNotSupported => "Shared subscriptions not supported",
            ConnectionRateExceeded => "Connection rate exceeded",
            MaximumConnectTime => "Maximum connect time",
            SubscriptionIdentifiersNotSupported => "Subscription identifiers not supported",
            WildcardSubscriptionsNotSupported => "Wildcard subscriptions not supported",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({:#04x})", self.name(), *self as u8)
    }
}

/// The reason codes that each packet may carry, by the byte ([MQTT-3.2.2-8] and its siblings).
pub(crate) mod allowed {
    use crate::Sender;

    /// CONNACK (MQTT 5.0 §3.2.2.2).
    pub(crate) fn in_connack(code: u8) -> bool {
        // [MQTT-3.2.2-8]
        matches!(
            code,
            0x00 | 0x80..=0x8A | 0x8C | 0x90 | 0x95 | 0x97 | 0x99..=0x9D | 0x9F
        )
    }

    /// PUBACK and PUBREC (MQTT 5.0 §3.4.2.1, §3.5.2.1).
    pub(crate) fn in_puback(code: u8) -> bool {
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        matches!(
            code,
            0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99
        )
    }

    /// PUBREL and PUBCOMP (MQTT 5.0 §3.6.2.1, §3.7.2.1).
    pub(crate) fn in_pubrel(code: u8) -> bool {
        // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        matches!(code, 0x00 | 0x92)
    }

    /// SUBACK of 5.0 (MQTT 5.0 §3.9.3).
    pub(crate) fn in_suback(code: u8) -> bool {
        // [MQTT-3.9.3-2] [MQTT-3.8.4-7]
        matches!(
            code,
            0..=2 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91 | 0x97 | 0x9E | 0xA1 | 0xA2
        )
    }

    /// SUBACK before 5.0 (MQTT 3.1.1 §3.9.3).
    pub(crate) fn in_old_suback(code: u8) -> bool {
        // [MQTT-3.1.1 3.9.3-2]
        matches!(code, 0..=2 | 0x80)
    }

    /// UNSUBACK (MQTT 5.0 §3.11.3).
    pub(crate) fn in_unsuback(code: u8) -> bool {
        // [MQTT-3.11.3-2]
        matches!(code, 0x00 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8F | 0x91)
    }

    /// DISCONNECT (MQTT 5.0 §3.14.2.1 and §2.4, which alone lists 0x8C here).
    pub(crate) fn in_disconnect(code: u8, sender: Sender) -> bool {
        // [MQTT-3.14.2-1]
        match sender {
            Sender::Client => {
                matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99)
            }
            Sender::Server => matches!(
                code,
                0x00 | 0x80..=0x83 | 0x87 | 0x89 | 0x8B..=0x90 | 0x93..=0xA2
            ),
        }
    }

    /// AUTH (MQTT 5.0 §3.15.2.1).
    pub(crate) fn in_auth(code: u8, sender: Sender) -> bool {
        // [MQTT-3.15.2-1]
        match sender {
            Sender::Client => matches!(code, 0x18 | 0x19),
            Sender::Server => matches!(code, 0x00 | 0x18),
        }
    }
}
