//! Packets as tests send and expect them, with every field that they do not speak of at rest.

#![allow(
    dead_code,
    reason = "each file of tests includes this room and uses its own part of it"
)]

use casemate_codec::{
    encode, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Filters, Packet,
    PacketId, Publish, PublishProperties, QoS, Reason, RetainHandling, Subscribe, SubscribeFilter,
    UserProperties, Version,
};
use casemate_engine::Settings;

/// One packet as bytes.
pub fn bytes_of(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(version, packet, u32::MAX, &mut bytes).expect("a test sends what has a form");
    bytes
}

/// A packet id.
pub fn id(packet_id: u16) -> PacketId {
    PacketId::new(packet_id).expect("not zero")
}

/// A CONNECT with a clean session, keep alive of 60 s, no will, nobody's name.
pub fn hello(version: Version, client_id: &str) -> Connect<'_> {
    Connect {
        version,
        clean_start: true,
        keep_alive_s: 60,
        properties: ConnectProperties::default(),
        client_id,
        will: None,
        username: None,
        password: None,
    }
}

/// A CONNECT of a session that is kept: for an hour in 5.0, for the default before.
pub fn lasting(version: Version, client_id: &str) -> Connect<'_> {
    let expiry = (version == Version::V5).then_some(3_600);
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_s: expiry,
            ..ConnectProperties::default()
        },
        ..hello(version, client_id)
    }
}

/// The CONNACK of a success with default settings, for a client that asked for no more than it.
pub fn welcome(version: Version, session_present: bool) -> Packet<'static> {
    let settings = Settings::default();
    let properties = ConnackProperties {
        receive_max: std::num::NonZeroU16::new(settings.receive_max),
        packet_bytes_max: std::num::NonZeroU32::new(settings.packet_bytes_max),
        topic_alias_max: Some(settings.topic_alias_max),
        ..ConnackProperties::default()
    };
    Packet::Connack(Connack {
        session_present,
        reason: Reason::Success,
        properties: if version == Version::V5 {
            properties
        } else {
            ConnackProperties::default()
        },
    })
}

/// A PUBLISH without DUP, RETAIN or properties; `packet_id` 0 stands for none.
pub fn message<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, packet_id: u16) -> Publish<'a> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: PacketId::new(packet_id),
        properties: PublishProperties::default(),
        payload,
    }
}

/// A DISCONNECT of a server, or of a client that says no more than why.
pub fn goodbye(reason: Reason) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        session_expiry_s: None,
        reason_string: None,
        user: UserProperties::default(),
        server_reference: None,
    })
}

/// A CONNACK that refuses.
pub fn refusal(reason: Reason) -> Packet<'static> {
    Packet::Connack(Connack {
        session_present: false,
        reason,
        properties: ConnackProperties::default(),
    })
}

/// A SUBSCRIBE without properties.
pub fn subscribe<'a>(packet_id: u16, lines: &'a [SubscribeFilter<'a>]) -> Packet<'a> {
    Packet::Subscribe(Subscribe {
        packet_id: id(packet_id),
        subscription_id: None,
        user: UserProperties::default(),
        filters: Filters::List(lines),
    })
}

/// A line of a SUBSCRIBE without options.
pub fn plain(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter {
        filter,
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}
