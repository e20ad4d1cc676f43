//! Reason codes: which packet may carry which, and what older versions make of them.
#![allow(clippy::unwrap_used, dead_code, missing_docs)]

mod generate;

use std::num::NonZeroU16;

use casemate_codec::{
    decode, encode, frame, Codes, Connack, ConnackProperties, Malformed, Packet, Reason, Sender,
    Suback, UserProperties, Version,
};
use generate as codes;

const SENDERS: [Sender; 2] = [Sender::Client, Sender::Server];

fn read(version: Version, sender: Sender, bytes: &[u8]) -> Result<Packet<'_>, Malformed> {
    let frame = frame(bytes, u32::MAX)?.unwrap();
    decode(version, sender, frame, &bytes[frame.header_bytes..])
}

/// Of all 256 codes exactly `allowed` pass in the packet that `build` makes.
fn exactly(sender: Sender, allowed: &[u8], build: impl Fn(u8) -> Vec<u8>) {
    for code in 0..=255 {
        let bytes = build(code);
        let outcome = read(Version::V5, sender, &bytes);
        match outcome {
            Ok(_) => assert!(
                allowed.contains(&code),
                "{code:#04x} passes in {bytes:02x?}"
            ),
            Err(fault) => {
                assert!(
                    !allowed.contains(&code),
                    "{code:#04x} is refused in {bytes:02x?}"
                );
                assert_eq!(fault, Malformed::UnknownReason { code });
                assert_eq!(fault.reason(), Reason::ProtocolError);
            }
        }
    }
}

#[test]
fn each_packet_carries_exactly_the_codes_of_its_table() {
    // [MQTT-3.2.2-8]
    exactly(Sender::Server, codes::CONNACK, |code| {
        vec![0x20, 3, 0, code, 0]
    });
    for sender in SENDERS {
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
        exactly(sender, codes::PUBACK, |code| vec![0x40, 3, 0, 1, code]);
        exactly(sender, codes::PUBACK, |code| vec![0x50, 3, 0, 1, code]);
        // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        exactly(sender, codes::PUBREL, |code| vec![0x62, 3, 0, 1, code]);
        exactly(sender, codes::PUBREL, |code| vec![0x70, 3, 0, 1, code]);
    }
    // [MQTT-3.9.3-2] [MQTT-3.8.4-7]
    exactly(Sender::Server, codes::SUBACK, |code| {
        vec![0x90, 4, 0, 1, 0, code]
    });
    // [MQTT-3.11.3-2]
    exactly(Sender::Server, codes::UNSUBACK, |code| {
        vec![0xB0, 4, 0, 1, 0, code]
    });
    // [MQTT-3.14.2-1]
    exactly(Sender::Client, codes::DISCONNECT_FROM_CLIENT, |code| {
        vec![0xE0, 1, code]
    });
    exactly(Sender::Server, codes::DISCONNECT_FROM_SERVER, |code| {
        vec![0xE0, 1, code]
    });
    // [MQTT-3.15.2-1]
    let auth = |code| vec![0xF0, 6, code, 4, 0x15, 0, 1, b'm'];
    exactly(Sender::Client, &[0x18, 0x19], auth);
    exactly(Sender::Server, &[0x00, 0x18], auth);
}

#[test]
fn a_reason_survives_its_byte_and_has_a_name() {
    let known: Vec<Reason> = (0..=255).filter_map(Reason::from_byte).collect();
    assert_eq!(known.len(), 43);
    for reason in known {
        assert_eq!(Reason::from_byte(reason as u8), Some(reason));
        assert_eq!(reason.is_refusal(), reason as u8 >= 0x80);
        assert!(reason
            .to_string()
            .ends_with(&format!("({:#04x})", reason as u8)));
    }
    assert_eq!(
        Reason::QoSNotSupported.to_string(),
        "QoS not supported (0x9b)"
    );
}

#[test]
fn return_codes_of_older_versions_are_translated_both_ways() {
    for code in 0..=5 {
        let reason = Reason::from_return_code(code).unwrap();
        assert_eq!(reason.return_code(), Some(code));
    }
    assert!((6..=255).all(|code| Reason::from_return_code(code).is_none()));
    // What 5.0 says more exactly.
    assert_eq!(Reason::Banned.return_code(), Some(5));
    assert_eq!(Reason::BadAuthenticationMethod.return_code(), Some(5));
    assert_eq!(Reason::ServerBusy.return_code(), Some(3));
    assert_eq!(Reason::ConnectionRateExceeded.return_code(), Some(3));
}

#[test]
fn a_refusal_that_no_return_code_says_is_not_written_before_5_0() {
    // [MQTT-3.1.1 3.2.2-6] The caller closes the connection without a CONNACK.
    for version in [Version::V31, Version::V311] {
        let connack = Packet::Connack(Connack {
            session_present: false,
            reason: Reason::MalformedPacket,
            properties: ConnackProperties::default(),
        });
        let mut out = vec![7];
        let refused = encode(version, &connack, u32::MAX, &mut out).unwrap_err();
        assert_eq!(refused.packet_bytes, usize::MAX);
        assert_eq!(out, [7]);
    }
}

#[test]
fn every_refusal_of_a_subscription_is_0x80_before_5_0() {
    // [MQTT-3.1.1 3.9.3-2] [MQTT-3.1.1 3.9.3-1]
    let list = [
        Reason::GrantedQoS2,
        Reason::NotAuthorized,
        Reason::Success,
        Reason::QuotaExceeded,
    ];
    let suback = Packet::Suback(Suback {
        packet_id: NonZeroU16::MIN,
        reason_string: Some("not written"),
        user: UserProperties::List(&[("not", "written")]),
        codes: Codes::List(&list),
    });
    let mut out = Vec::new();
    encode(Version::V311, &suback, u32::MAX, &mut out).unwrap();
    assert_eq!(out, [0x90, 6, 0, 1, 2, 0x80, 0, 0x80]);
}

#[test]
fn a_refusal_never_claims_a_session() {
    // [MQTT-3.2.2-6] [MQTT-3.1.1 3.2.2-4]
    for version in [Version::V31, Version::V311, Version::V5] {
        let connack = Packet::Connack(Connack {
            session_present: true,
            reason: Reason::NotAuthorized,
            properties: ConnackProperties::default(),
        });
        let mut out = Vec::new();
        encode(version, &connack, u32::MAX, &mut out).unwrap();
        assert_eq!(out[2], 0);
    }
}

#[test]
fn every_fault_has_a_reason_and_words_without_received_text() {
    for vector in casemate_codec::vectors::all() {
        let Ok(Some(frame)) = frame(&vector.bytes, 1 << 20) else {
            continue;
        };
        let Some(body) = vector.bytes.get(frame.header_bytes..) else {
            continue;
        };
        if let Err(fault) = decode(vector.version, vector.sender, frame, body) {
            assert!(fault.reason().is_refusal());
            let words = fault.to_string();
            assert!(!words.is_empty() && words.is_ascii(), "{words}");
        }
    }
}
