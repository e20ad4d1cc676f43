//! Conformance of how connections end: DISCONNECT from both sides, faults, and what follows them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use casemate_codec::{Connect, Packet, QoS, Reason, Version};
use casemate_engine::Settings;
use harness::{bytes_of, goodbye, hello, lasting, message, refusal, Lab, BOTH};

/// Bytes that break a rule, and what a 5.0 client is told.
const FAULTS: [(&str, &[u8], Reason); 16] = [
    ("reserved type", &[0x00, 0], Reason::MalformedPacket),
    ("flags of PINGREQ", &[0xC1, 0], Reason::MalformedPacket),
    ("flags of DISCONNECT", &[0xE1, 0], Reason::MalformedPacket),
    (
        "flags of SUBSCRIBE",
        &[0x80, 7, 0, 1, 0, 0, 1, b'a', 0],
        Reason::MalformedPacket,
    ),
    ("flags of PUBREL", &[0x60, 2, 0, 1], Reason::MalformedPacket),
    (
        "QoS 3",
        &[0x36, 6, 0, 1, b'a', 0, 1, 0],
        Reason::MalformedPacket,
    ),
    (
        "endless length",
        &[0xC0, 0x80, 0x80, 0x80, 0x80],
        Reason::MalformedPacket,
    ),
    (
        "padded length",
        &[0xC0, 0x80, 0x00],
        Reason::MalformedPacket,
    ),
    ("length of PINGREQ", &[0xC0, 1, 0], Reason::MalformedPacket),
    ("packet id 0", &[0x40, 2, 0, 0], Reason::ProtocolError),
    (
        "topic that is not UTF-8",
        &[0x30, 5, 0, 1, 0xFF, 0, b'x'],
        Reason::MalformedPacket,
    ),
    (
        "wildcard in a topic",
        &[0x30, 5, 0, 1, b'#', 0, b'x'],
        Reason::TopicNameInvalid,
    ),
    (
        "SUBSCRIBE without a filter",
        &[0x82, 3, 0, 1, 0],
        Reason::ProtocolError,
    ),
    (
        "CONNACK from a client",
        &[0x20, 3, 0, 0, 0],
        Reason::ProtocolError,
    ),
    ("PINGRESP from a client", &[0xD0, 0], Reason::ProtocolError),
    (
        "packet over the maximum",
        &[0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        Reason::PacketTooLarge,
    ),
];

#[test]
fn fault_is_answered_with_its_reason_and_ends_the_connection() {
    // [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-1] [MQTT-3.14.4-2] [MQTT-3.14.1-1]
    for (what, bytes, reason) in FAULTS {
        let mut lab = Lab::new();
        let client = lab.client(Version::V5, "a");
        lab.subscribe(client, "#", QoS::AtMostOnce);
        let mut bytes = bytes.to_vec();
        // What stands behind the fault is not read: there is no answer after DISCONNECT.
        bytes.extend(bytes_of(Version::V5, &Packet::Pingreq));
        lab.send(client, &bytes);
        assert!(lab.is_closed(client), "{what}");
        lab.expect_end(client, &[goodbye(reason)]);
    }
}

#[test]
fn fault_of_an_older_client_ends_the_connection_without_a_word() {
    // [MQTT-3.1.1 4.8.0-1]
    let faults: [&[u8]; 9] = [
        &[0x00, 0],
        &[0xC1, 0],
        &[0x80, 6, 0, 1, 0, 1, b'a', 0],
        &[0x36, 5, 0, 1, b'a', 0, 1],
        &[0xC0, 0x80, 0x80, 0x80, 0x80],
        &[0x40, 2, 0, 0],
        &[0x30, 4, 0, 1, b'#', b'x'],
        &[0x82, 2, 0, 1],
        &[0xF0, 0],
    ];
    for bytes in faults {
        let mut lab = Lab::new();
        let client = lab.client(Version::V311, "a");
        lab.send(client, bytes);
        lab.send(client, &[0xC0, 0]);
        lab.expect_end(client, &[]);
        assert_eq!(lab.shard(0).counters().sessions_now, 0, "{bytes:?}");
    }
}

#[test]
fn nothing_follows_a_disconnect_to_a_client_that_reads_late() {
    // [MQTT-3.14.4-1] [MQTT-3.14.4-2]
    let mut lab = Lab::new();
    let writer = lab.client(Version::V5, "writer");
    let client = lab.joined(&lasting(Version::V5, "a"));
    lab.subscribe(client, "t", QoS::AtLeastOnce);
    let one = message("t", b"1", QoS::AtMostOnce, 0);
    lab.say(writer, &Packet::Publish(one.clone()));
    let faulty = bytes_of(Version::V5, &Packet::Connect(hello(Version::V5, "a")));
    lab.send(client, &faulty);
    let two = message("t", b"2", QoS::AtMostOnce, 0);
    lab.say(writer, &Packet::Publish(two));
    lab.send(client, &[0xC0, 0]);
    let expected = [Packet::Publish(one), goodbye(Reason::ProtocolError)];
    lab.expect_end(client, &expected);
}

#[test]
fn disconnect_of_a_client_is_not_answered_and_nothing_behind_it_is_done() {
    // [MQTT-3.14.4-3] [MQTT-3.1.1 3.14.4-3]
    for version in BOTH {
        let mut lab = Lab::new();
        let witness = lab.client(version, "witness");
        lab.subscribe(witness, "#", QoS::AtMostOnce);
        let client = lab.client(version, "a");
        let mut bytes = bytes_of(version, &goodbye(Reason::Success));
        let publish = message("t", b"x", QoS::AtMostOnce, 0);
        bytes.extend(bytes_of(version, &Packet::Publish(publish)));
        lab.send(client, &bytes);
        lab.expect_end(client, &[]);
        lab.expect_open(witness, &[]);
    }
}

#[test]
fn message_that_could_not_be_kept_ends_its_connection_without_an_acknowledgement() {
    // [MQTT-3.1.1 4.8.0-2]
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.joined(&lasting(version, "reader"));
        lab.subscribe(reader, "t", QoS::AtLeastOnce);
        lab.cut(reader);
        let writer = lab.client(version, "writer");
        lab.store_holds = true;
        let publish = message("t", b"x", QoS::AtLeastOnce, 1);
        lab.say(writer, &Packet::Publish(publish));
        lab.expect_open(writer, &[]);
        lab.fail_store();
        match version {
            Version::V5 => lab.expect_end(writer, &[goodbye(Reason::QuotaExceeded)]),
            _ => lab.expect_end(writer, &[]),
        }
    }
}

#[test]
fn what_comes_while_a_transport_is_being_closed_is_ignored() {
    // [MQTT-3.1.4-6] [MQTT-3.1.1 3.1.4-5] [MQTT-3.14.4-1] [MQTT-3.2.0-2]
    for version in BOTH {
        for is_refused in [true, false] {
            let mut lab = Lab::new();
            let witness = lab.client(version, "witness");
            lab.subscribe(witness, "#", QoS::AtMostOnce);
            lab.lingers = true;
            let client = lab.connect(&Connect {
                username: is_refused.then_some("stranger"),
                password: is_refused.then_some(b"guess"),
                ..hello(version, "a")
            });
            if !is_refused {
                lab.take(client);
                lab.send(client, &[0xC1, 0]);
            }
            match (version, is_refused) {
                (_, true) => lab.expect_end(client, &[refusal(Reason::NotAuthorized)]),
                (Version::V5, _) => lab.expect_end(client, &[goodbye(Reason::MalformedPacket)]),
                _ => lab.expect_end(client, &[]),
            }
            let again = Packet::Connect(hello(version, "b"));
            let publish = Packet::Publish(message("t", b"x", QoS::AtMostOnce, 0));
            for packet in [again, publish, Packet::Pingreq] {
                lab.say(client, &packet);
            }
            lab.expect_end(client, &[]);
            lab.expect_open(witness, &[]);
        }
    }
}

#[test]
fn packet_over_the_announced_maximum_ends_the_connection() {
    // [MQTT-3.2.2-15]
    for (payload_bytes, is_taken) in [(195, true), (196, false)] {
        let settings = Settings {
            packet_bytes_max: 202,
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let client = lab.client(Version::V5, "a");
        // Three bytes of header, three of topic, one for the properties, and the payload.
        let payload = vec![b'x'; payload_bytes];
        let publish = Packet::Publish(message("t", &payload, QoS::AtMostOnce, 0));
        let bytes = bytes_of(Version::V5, &publish);
        assert_eq!(bytes.len(), payload_bytes + 7);
        lab.send(client, &bytes);
        match is_taken {
            true => lab.expect_open(client, &[]),
            false => lab.expect_end(client, &[goodbye(Reason::PacketTooLarge)]),
        }
    }
}

/// Goal: a packet that trickles in keeps nobody alive (SlowTT). Method: a byte a second of a
/// PUBLISH that never ends, and beside it a client whose whole packets come as slowly.
#[test]
fn bytes_of_an_unfinished_packet_keep_nobody_alive() {
    // [MQTT-3.1.2-22] [MQTT-3.1.1 3.1.2-24]
    for version in BOTH {
        let mut lab = Lab::new();
        let connect = |client_id| Connect {
            keep_alive_s: 10,
            ..hello(version, client_id)
        };
        let trickling = lab.joined(&connect("trickling"));
        let slow = lab.joined(&connect("slow"));
        lab.send(trickling, &[0x30, 0xFF, 0x7F]);
        for second in 0..14 {
            lab.pass(1_000);
            lab.send(trickling, b"x");
            if second % 2 == 0 {
                lab.send(slow, &[0xC0]);
            } else {
                lab.send(slow, &[0]);
            }
        }
        assert!(!lab.is_closed(trickling));
        lab.pass(1_001);
        assert!(lab.is_closed(trickling));
        assert!(!lab.is_closed(slow));
    }
}
