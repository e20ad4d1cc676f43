//! What is left out where a packet would pass its receiver's limit, and what is refused.
#![allow(clippy::unwrap_used, missing_docs)]

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    decode, encode, forward, frame, Ack, Auth, Codes, Connack, ConnackProperties, Connect,
    ConnectProperties, Disconnect, Filters, Forwarded, Names, Packet, Publish, PublishProperties,
    QoS, Reason, Sender, Suback, Subscribe, SubscriptionIds, Unsuback, Unsubscribe, UserProperties,
    Version,
};

const ID: NonZeroU16 = NonZeroU16::MIN;
const WHY: Option<&str> = Some("because");
const USER: UserProperties<'static> = UserProperties::List(&[("name", "value")]);
const CODES: Codes<'static> = Codes::List(&[Reason::NotAuthorized]);

/// One packet of each kind that may lose its extras.
fn thinnable() -> Vec<Packet<'static>> {
    let ack = |reason| Ack {
        packet_id: ID,
        reason,
        reason_string: WHY,
        user: USER,
    };
    vec![
        // [MQTT-3.2.2-19] [MQTT-3.2.2-20]
        Packet::Connack(Connack {
            session_present: false,
            reason: Reason::NotAuthorized,
            properties: ConnackProperties {
                reason_string: WHY,
                user: USER,
                ..ConnackProperties::default()
            },
        }),
        // [MQTT-3.4.2-2] [MQTT-3.4.2-3]
        Packet::Puback(ack(Reason::Success)),
        // [MQTT-3.5.2-2] [MQTT-3.5.2-3]
        Packet::Pubrec(ack(Reason::QuotaExceeded)),
        // [MQTT-3.6.2-2] [MQTT-3.6.2-3]
        Packet::Pubrel(ack(Reason::PacketIdentifierNotFound)),
        // [MQTT-3.7.2-2] [MQTT-3.7.2-3]
        Packet::Pubcomp(ack(Reason::Success)),
        // [MQTT-3.9.2-1] [MQTT-3.9.2-2]
        Packet::Suback(Suback {
            packet_id: ID,
            reason_string: WHY,
            user: USER,
            codes: CODES,
        }),
        // [MQTT-3.11.2-1] [MQTT-3.11.2-2]
        Packet::Unsuback(Unsuback {
            packet_id: ID,
            reason_string: WHY,
            user: USER,
            codes: CODES,
        }),
        // [MQTT-3.14.2-3] [MQTT-3.14.2-4]
        Packet::Disconnect(Disconnect {
            reason: Reason::ServerMoved,
            session_expiry_s: None,
            reason_string: WHY,
            user: USER,
            server_reference: Some("other"),
        }),
        // [MQTT-3.15.2-2] [MQTT-3.15.2-3]
        Packet::Auth(Auth {
            reason: Reason::ContinueAuthentication,
            method: Some("SCRAM"),
            data: Some(b"data"),
            reason_string: WHY,
            user: USER,
        }),
    ]
}

fn written(packet: &Packet<'_>, limit: u32) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    match encode(Version::V5, packet, limit, &mut out) {
        Ok(()) => Some(out),
        Err(_) => {
            assert!(out.is_empty());
            None
        }
    }
}

/// Reason string and user properties of a written packet, as text.
fn extras(bytes: &[u8]) -> (bool, bool) {
    let frame = frame(bytes, u32::MAX).unwrap().unwrap();
    let body = &bytes[frame.header_bytes..];
    let packet = decode(Version::V5, Sender::Server, frame, body).unwrap();
    let text = format!("{packet:?}");
    let has_reason = text.contains("reason_string: Some(\"because\")");
    let user = match &packet {
        Packet::Connack(p) => p.properties.user,
        Packet::Puback(p) | Packet::Pubrec(p) | Packet::Pubrel(p) | Packet::Pubcomp(p) => p.user,
        Packet::Suback(p) => p.user,
        Packet::Unsuback(p) => p.user,
        Packet::Disconnect(p) => p.user,
        Packet::Auth(p) => p.user,
        _ => UserProperties::default(),
    };
    (has_reason, !user.is_empty())
}

#[test]
fn user_properties_go_first_then_the_reason_string_then_the_packet() {
    for packet in thinnable() {
        let whole = written(&packet, u32::MAX).unwrap();
        let size = whole.len() as u32;
        assert_eq!(extras(&whole), (true, true), "{packet:?}");
        assert_eq!(written(&packet, size), Some(whole));

        let without_user = written(&packet, size - 1).unwrap();
        assert_eq!(extras(&without_user), (true, false), "{packet:?}");

        let bare = written(&packet, without_user.len() as u32 - 1).unwrap();
        assert_eq!(extras(&bare), (false, false), "{packet:?}");

        assert_eq!(written(&packet, bare.len() as u32 - 1), None, "{packet:?}");
    }
}

#[test]
fn a_reason_string_that_no_packet_can_hold_is_left_out_too() {
    let long = "x".repeat(65_536);
    let ack = Ack {
        packet_id: ID,
        reason: Reason::NotAuthorized,
        reason_string: Some(&long),
        user: USER,
    };
    let bytes = written(&Packet::Puback(ack), u32::MAX).unwrap();
    assert_eq!(bytes, [0x40, 3, 0, 1, 0x87]);
}

#[test]
fn a_message_is_never_thinned() {
    // [MQTT-3.1.2-24] [MQTT-3.2.2-15] It is sent as it is or not at all.
    let publish = Packet::Publish(Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        packet_id: None,
        properties: PublishProperties {
            user: USER,
            ..PublishProperties::default()
        },
        payload: b"payload",
    });
    let size = written(&publish, u32::MAX).unwrap().len() as u32;
    assert_eq!(written(&publish, size - 1), None);
}

/// `Err` with nothing written, whatever the limit.
fn assert_without_form(packets: &[Packet<'_>]) {
    for packet in packets {
        let mut out = vec![1];
        let refused = encode(Version::V5, packet, u32::MAX, &mut out).unwrap_err();
        assert_eq!(
            (refused.packet_bytes, out),
            (usize::MAX, vec![1]),
            "{packet:?}"
        );
    }
}

#[test]
fn a_connect_without_form_is_not_written() {
    let long = "x".repeat(65_536);
    let connect = Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_s: 0,
        properties: ConnectProperties::default(),
        client_id: "c",
        will: None,
        username: None,
        password: None,
    };
    let lone_data = ConnectProperties {
        authentication_data: Some(b"d"),
        ..ConnectProperties::default()
    };
    assert_without_form(&[
        Packet::Connect(Connect {
            client_id: &long,
            ..connect.clone()
        }),
        Packet::Connect(Connect {
            properties: lone_data,
            ..connect.clone()
        }),
        // [MQTT-3.1.1 3.1.2-22]
        Packet::Connect(Connect {
            version: Version::V311,
            password: Some(b"p"),
            ..connect
        }),
    ]);
}

#[test]
fn a_publish_without_form_is_not_written() {
    let long = "x".repeat(65_536);
    let publish = Publish {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: "t",
        packet_id: Some(ID),
        properties: PublishProperties::default(),
        payload: b"",
    };
    let with_id = |list| PublishProperties {
        subscription_ids: SubscriptionIds::List(list),
        ..PublishProperties::default()
    };
    assert_without_form(&[
        // [MQTT-4.7.3-3] [MQTT-3.1.1 4.7.3-3]
        Packet::Publish(Publish {
            topic: &long,
            ..publish.clone()
        }),
        Packet::Publish(Publish {
            packet_id: None,
            ..publish.clone()
        }),
        Packet::Publish(Publish {
            properties: with_id(&[0]),
            ..publish.clone()
        }),
        Packet::Publish(Publish {
            properties: with_id(&[268_435_456]),
            ..publish
        }),
    ]);
}

#[test]
fn other_packets_without_form_are_not_written() {
    let long = "x".repeat(65_536);
    let names: [&str; 1] = [&long];
    let unsubscribe = |filters| {
        Packet::Unsubscribe(Unsubscribe {
            packet_id: ID,
            user: USER,
            filters,
        })
    };
    assert_without_form(&[
        // [MQTT-3.8.3-2] [MQTT-3.1.1 3.8.3-3]
        Packet::Subscribe(Subscribe {
            packet_id: ID,
            subscription_id: NonZeroU32::new(1),
            user: USER,
            filters: Filters::List(&[]),
        }),
        // [MQTT-3.10.3-2] [MQTT-3.1.1 3.10.3-2]
        unsubscribe(Names::List(&[])),
        unsubscribe(Names::List(&names)),
        Packet::Auth(Auth {
            reason: Reason::ContinueAuthentication,
            method: None,
            data: None,
            reason_string: None,
            user: UserProperties::default(),
        }),
    ]);
}

#[test]
fn there_is_no_auth_before_5_0() {
    let Some(auth) = thinnable().pop() else {
        return;
    };
    for version in [Version::V31, Version::V311] {
        assert!(encode(version, &auth, u32::MAX, &mut Vec::new()).is_err());
    }
}

#[test]
fn forward_refuses_what_has_no_form() {
    let long = "x".repeat(65_536);
    let message = Forwarded {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic: "t",
        alias: None,
        expiry_s: None,
        subscription_ids: &[],
        properties: &[],
        payload_bytes: 0,
    };
    let refused = [
        Forwarded {
            topic: &long,
            ..message
        },
        Forwarded {
            subscription_ids: &[0],
            ..message
        },
        Forwarded {
            subscription_ids: &[1, 268_435_456],
            ..message
        },
        Forwarded {
            payload_bytes: 268_435_455,
            ..message
        },
    ];
    for message in refused {
        let mut out = vec![9];
        assert!(forward(Version::V5, &message, 0, u32::MAX, &mut out).is_err());
        assert_eq!(out, [9]);
    }
    // The largest body of all is written; [MQTT-2.2.1-2] no identifier at QoS 0.
    let largest = Forwarded {
        payload_bytes: 268_435_455 - 4,
        ..message
    };
    let mut out = Vec::new();
    assert_eq!(
        forward(Version::V5, &largest, 7, u32::MAX, &mut out),
        Ok(None)
    );
    assert_eq!(out, [0x30, 0xFF, 0xFF, 0xFF, 0x7F, 0, 1, b't', 0]);
    assert!(
        out.capacity() < 1 << 16,
        "room is not made for a payload that is not copied"
    );
}
