//! Conformance of CONNECT and CONNACK: both versions, through the door of the shard.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    Ack, Codes, Connack, Connect, ConnectProperties, Names, Packet, Publish, PublishProperties,
    QoS, Reason, Suback, Unsuback, Unsubscribe, UserProperties, Version,
};
use casemate_engine::Settings;
use harness::{
    bytes_of, goodbye, hello, id, lasting, message, packets, plain, refusal, subscribe, welcome,
    Lab, BOTH,
};

/// The reason that a CONNACK of this version says where 5.0 says `reason`.
fn said(version: Version, reason: Reason, before: u8) -> Vec<u8> {
    match version {
        Version::V5 => bytes_of(version, &refusal(reason)),
        _ => vec![0x20, 2, 0, before],
    }
}

/// The CONNACK that a client has been sent first.
fn connack_of(version: Version, bytes: &[u8]) -> Connack<'_> {
    match packets(version, bytes).into_iter().next() {
        Some(Packet::Connack(connack)) => connack,
        other => panic!("no CONNACK but {other:?}"),
    }
}

#[test]
fn connect_is_answered_by_success_and_the_state_of_the_session() {
    // [MQTT-3.1.4-5] [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-6] [MQTT-3.1.1 3.1.4-4]
    // [MQTT-3.1.1 3.2.2-1] [MQTT-3.1.1 3.2.2-2] [MQTT-3.1.1 3.2.2-3]
    for version in BOTH {
        let mut lab = Lab::new();
        let first = lab.connect(&lasting(version, "a"));
        lab.expect_open(first, &[welcome(version, false)]);
        lab.cut(first);
        let second = lab.connect(&lasting(version, "a"));
        lab.expect_open(second, &[welcome(version, true)]);
        lab.cut(second);
        let third = lab.connect(&hello(version, "a"));
        lab.expect_open(third, &[welcome(version, false)]);
    }
}

#[test]
fn first_packet_other_than_connect_ends_the_connection_without_an_answer() {
    // [MQTT-3.1.0-1] [MQTT-3.1.1 3.1.0-1]
    let firsts: [&[u8]; 6] = [
        &[0xC0, 0],
        &[0xE0, 0],
        &[0x30, 3, 0, 1, b'a'],
        &[0x82, 6, 0, 1, 0, 1, b'a', 0],
        &[0x40, 2, 0, 1],
        &[0xF0, 0],
    ];
    for version in BOTH {
        for first in firsts {
            let mut lab = Lab::new();
            let client = lab.open(version);
            lab.send(client, first);
            lab.expect_end(client, &[]);
        }
    }
}

#[test]
fn second_connect_ends_the_connection() {
    // [MQTT-3.1.0-2] [MQTT-3.1.1 3.1.0-2]
    let mut lab = Lab::new();
    let modern = lab.client(Version::V5, "a");
    lab.say(modern, &Packet::Connect(hello(Version::V5, "a")));
    lab.expect_end(modern, &[goodbye(Reason::ProtocolError)]);
    let older = lab.client(Version::V311, "b");
    lab.say(older, &Packet::Connect(hello(Version::V311, "b")));
    lab.expect_end(older, &[]);
}

#[test]
fn client_ids_of_up_to_23_letters_and_digits_are_taken() {
    // [MQTT-3.1.3-5] [MQTT-3.1.1 3.1.3-5]
    let ids = [
        "0",
        "0123456789abcdefghijklm",
        "nopqrstuvwxyzABCDEFGHIJ",
        "KLMNOPQRSTUVWXYZ",
    ];
    for version in BOTH {
        for client_id in ids {
            let mut lab = Lab::new();
            let client = lab.connect(&hello(version, client_id));
            lab.expect_open(client, &[welcome(version, false)]);
        }
    }
}

#[test]
fn client_id_that_is_too_long_is_refused_with_its_reason() {
    // [MQTT-3.1.3-8] [MQTT-3.1.1 3.1.3-9] [MQTT-3.2.2-7] [MQTT-3.1.1 3.2.2-5]
    for version in BOTH {
        let mut lab = Lab::new();
        let (longest, longer) = ("a".repeat(1_024), "a".repeat(1_025));
        let welcomed = lab.connect(&hello(version, &longest));
        lab.expect_open(welcomed, &[welcome(version, false)]);
        let refused = lab.connect(&hello(version, &longer));
        let answer = said(version, Reason::ClientIdentifierNotValid, 2);
        lab.expect_end(refused, &packets(version, &answer));
    }
}

#[test]
fn client_without_an_id_gets_one_that_nobody_else_has() {
    // [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.1.3-6]
    let mut lab = Lab::new();
    let mut given = Vec::new();
    for _ in 0..3 {
        let client = lab.connect(&hello(Version::V5, ""));
        let bytes = lab.take(client);
        let connack = connack_of(Version::V5, &bytes);
        assert_eq!(connack.reason, Reason::Success);
        given.push(connack.properties.assigned_client_id.unwrap().to_owned());
        assert!(!lab.is_closed(client));
    }
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 3);
    // Whoever names the id that was given means that session.
    let known = lasting(Version::V5, "");
    let first = lab.connect(&known);
    let bytes = lab.take(first);
    let properties = connack_of(Version::V5, &bytes).properties;
    let assigned = properties.assigned_client_id.unwrap().to_owned();
    lab.cut(first);
    let again = lab.connect(&lasting(Version::V5, &assigned));
    lab.expect_open(again, &[welcome(Version::V5, true)]);
}

#[test]
fn older_clients_without_an_id_do_not_share_a_session() {
    // [MQTT-3.1.1 3.1.3-6]
    let mut lab = Lab::new();
    let one = lab.connect(&hello(Version::V311, ""));
    let other = lab.connect(&hello(Version::V311, ""));
    lab.expect_open(other, &[welcome(Version::V311, false)]);
    // A shared id would have ended the first.
    lab.expect_open(one, &[welcome(Version::V311, false)]);
}

#[test]
fn refused_proof_ends_the_connection_and_nothing_behind_connect_is_done() {
    // [MQTT-3.1.4-2] [MQTT-3.1.4-6] [MQTT-3.1.1 3.1.4-5] [MQTT-3.2.2-7] [MQTT-4.13.2-1]
    // [MQTT-3.14.0-1] [MQTT-3.1.1 3.2.2-5]
    for version in BOTH {
        let mut lab = Lab::new();
        let witness = lab.client(version, "witness");
        lab.subscribe(witness, "#", QoS::AtMostOnce);
        let stranger = Connect {
            username: Some("stranger"),
            password: Some(b"guess"),
            ..hello(version, "a")
        };
        let mut bytes = bytes_of(version, &Packet::Connect(stranger));
        let publish = message("t", b"x", QoS::AtMostOnce, 0);
        bytes.extend(bytes_of(version, &Packet::Publish(publish)));
        bytes.extend(bytes_of(version, &Packet::Pingreq));
        let client = lab.open(version);
        lab.send(client, &bytes);
        let answer = said(version, Reason::NotAuthorized, 5);
        lab.expect_end(client, &packets(version, &answer));
        lab.expect_open(witness, &[]);
    }
}

#[test]
fn nothing_leaves_before_connack_while_the_store_is_asked() {
    // [MQTT-3.2.0-1] [MQTT-3.1.1 3.2.0-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let writer = lab.client(version, "writer");
        let client = lab.joined(&lasting(version, "a"));
        lab.subscribe(client, "t", QoS::AtLeastOnce);
        lab.cut(client);
        lab.store_holds = true;
        let mut bytes = bytes_of(version, &Packet::Connect(lasting(version, "a")));
        bytes.extend(bytes_of(version, &Packet::Pingreq));
        let client = lab.open(version);
        lab.send(client, &bytes);
        let publish = message("t", b"x", QoS::AtMostOnce, 0);
        lab.say(writer, &Packet::Publish(publish.clone()));
        lab.expect_open(client, &[]);
        lab.release_store();
        let bytes = lab.take(client);
        let mut heard = packets(version, &bytes);
        assert_eq!(heard.remove(0), welcome(version, true));
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard.contains(&Packet::Pingresp), "{heard:?}");
        assert!(heard.contains(&Packet::Publish(publish)), "{heard:?}");
    }
}

#[test]
fn connack_that_could_not_be_kept_becomes_a_refusal_and_nothing_behind_it_is_done() {
    // [MQTT-3.2.0-2] [MQTT-3.1.4-6] [MQTT-3.1.1 3.1.4-5] [MQTT-3.1.1 4.8.0-2]
    for version in BOTH {
        let mut lab = Lab::new();
        let witness = lab.client(version, "witness");
        lab.subscribe(witness, "#", QoS::AtMostOnce);
        lab.store_holds = true;
        let mut bytes = bytes_of(version, &Packet::Connect(lasting(version, "a")));
        let publish = message("t", b"x", QoS::AtMostOnce, 0);
        bytes.extend(bytes_of(version, &Packet::Publish(publish)));
        let client = lab.open(version);
        lab.send(client, &bytes);
        lab.expect_open(client, &[]);
        lab.fail_store();
        if version == Version::V5 {
            lab.expect(client, &[refusal(Reason::QuotaExceeded)]);
        } else {
            let bytes = lab.take(client);
            // No return code before 5.0 says it: the connection just ends, or the server is
            // unavailable.
            assert!(matches!(*bytes, [] | [0x20, 2, 0, 3]), "{bytes:?}");
        }
        assert!(lab.is_closed(client));
        lab.expect_open(witness, &[]);
    }
}

#[test]
fn there_is_one_connack_however_the_connection_goes_on() {
    // [MQTT-3.2.0-2] [MQTT-3.14.0-1]
    let mut lab = Lab::new();
    let client = lab.connect(&hello(Version::V5, "a"));
    lab.expect_open(client, &[welcome(Version::V5, false)]);
    lab.stop(Reason::ServerShuttingDown);
    lab.expect_end(client, &[goodbye(Reason::ServerShuttingDown)]);
    // Who has no CONNACK yet is told by it; there is no DISCONNECT before it.
    let mut lab = Lab::new();
    lab.store_holds = true;
    let client = lab.connect(&lasting(Version::V5, "a"));
    lab.stop(Reason::ServerShuttingDown);
    lab.expect_end(client, &[refusal(Reason::ServerUnavailable)]);
    lab.release_store();
    lab.expect_end(client, &[]);
}

#[test]
fn keep_alive_ends_a_silent_connection_after_one_and_a_half_intervals() {
    // [MQTT-3.1.2-22] [MQTT-3.2.2-22] [MQTT-3.1.1 3.1.2-24]
    for version in BOTH {
        let mut lab = Lab::new();
        let asked = Connect {
            keep_alive_s: 10,
            ..hello(version, "a")
        };
        let client = lab.connect(&asked);
        // No Server Keep Alive stands in it.
        lab.expect_open(client, &[welcome(version, false)]);
        lab.pass(14_999);
        lab.expect_open(client, &[]);
        lab.say(client, &Packet::Pingreq);
        lab.expect_open(client, &[Packet::Pingresp]);
        lab.pass(14_999);
        lab.expect_open(client, &[]);
        lab.pass(1);
        match version {
            Version::V5 => lab.expect_end(client, &[goodbye(Reason::KeepAliveTimeout)]),
            _ => lab.expect_end(client, &[]),
        }
    }
}

#[test]
fn keep_alive_that_differs_from_what_was_asked_is_announced_and_kept() {
    // [MQTT-3.2.2-22] [MQTT-3.1.2-22]
    for asked_s in [0, u16::MAX] {
        let settings = Settings {
            keep_alive_s_max: 100,
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let client = lab.connect(&Connect {
            keep_alive_s: asked_s,
            ..hello(Version::V5, "a")
        });
        let bytes = lab.take(client);
        let connack = connack_of(Version::V5, &bytes);
        assert_eq!(connack.properties.server_keep_alive_s, Some(100));
        lab.pass(149_999);
        lab.expect_open(client, &[]);
        lab.pass(1);
        lab.expect_end(client, &[goodbye(Reason::KeepAliveTimeout)]);
    }
}

#[test]
fn client_without_keep_alive_may_be_silent_where_no_maximum_is_set() {
    // [MQTT-3.2.2-22]
    let settings = Settings {
        keep_alive_s_max: 0,
        ..Settings::default()
    };
    let mut lab = Lab::with(settings, 1);
    let client = lab.client(Version::V5, "a");
    let silent = lab.connect(&Connect {
        keep_alive_s: 0,
        ..hello(Version::V5, "b")
    });
    lab.expect_open(silent, &[welcome(Version::V5, false)]);
    lab.pass(10_000_000);
    lab.expect_open(silent, &[]);
    lab.expect_end(client, &[goodbye(Reason::KeepAliveTimeout)]);
}

#[test]
fn message_over_the_maximum_of_a_client_is_dropped_as_if_it_were_complete() {
    // [MQTT-3.1.2-25] [MQTT-3.1.2-24]
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut lab = Lab::new();
        let writer = lab.client(Version::V5, "writer");
        let small = lab.joined(&Connect {
            properties: ConnectProperties {
                packet_bytes_max: NonZeroU32::new(40),
                receive_max: NonZeroU16::new(1),
                ..ConnectProperties::default()
            },
            ..hello(Version::V5, "small")
        });
        let other = lab.client(Version::V5, "other");
        lab.subscribe(small, "t", qos);
        lab.subscribe(other, "t", qos);
        for payload in [&[b'x'; 100][..], b"y"] {
            lab.say(
                writer,
                &Packet::Publish(message("t", payload, QoS::AtMostOnce, 0)),
            );
        }
        let expected = |payload| Packet::Publish(message("t", payload, QoS::AtMostOnce, 0));
        lab.expect_open(other, &[expected(&[b'x'; 100]), expected(b"y")]);
        lab.expect_open(small, &[expected(b"y")]);
        lab.say(
            writer,
            &Packet::Publish(message("t", &[b'x'; 100], qos, number(qos, 1))),
        );
        // With a receive maximum of one, this comes only where the first is over.
        lab.say(
            writer,
            &Packet::Publish(message("t", b"z", qos, number(qos, 2))),
        );
        let bytes = lab.take(small);
        let heard = packets(Version::V5, &bytes);
        assert!(
            matches!(&*heard, [Packet::Publish(found)] if found.payload == b"z"),
            "{heard:?}"
        );
    }
}

/// A packet id, or none at QoS 0.
fn number(qos: QoS, packet_id: u16) -> u16 {
    if qos == QoS::AtMostOnce {
        0
    } else {
        packet_id
    }
}

/// A client that allows as many aliases hears three topics twice; these are their aliases.
fn aliases_heard(alias_max: Option<u16>) -> Vec<Option<u16>> {
    let mut lab = Lab::new();
    let writer = lab.client(Version::V5, "writer");
    let reader = lab.joined(&Connect {
        properties: ConnectProperties {
            topic_alias_max: alias_max,
            ..ConnectProperties::default()
        },
        ..hello(Version::V5, "reader")
    });
    lab.subscribe(reader, "#", QoS::AtMostOnce);
    for topic in ["a", "b", "c", "a", "b", "c"] {
        lab.say(
            writer,
            &Packet::Publish(message(topic, b"x", QoS::AtMostOnce, 0)),
        );
    }
    let bytes = lab.take(reader);
    let alias = |packet: Packet<'_>| match packet {
        Packet::Publish(publish) => publish.properties.topic_alias.map(NonZeroU16::get),
        other => panic!("no PUBLISH but {other:?}"),
    };
    packets(Version::V5, &bytes)
        .into_iter()
        .map(alias)
        .collect()
}

#[test]
fn no_alias_is_sent_above_what_the_client_allows() {
    // [MQTT-3.1.2-26]
    let two = [Some(1), Some(2), None, Some(1), Some(2), None];
    assert_eq!(aliases_heard(Some(2)), two);
    let all = [Some(1), Some(2), Some(3), Some(1), Some(2), Some(3)];
    assert_eq!(aliases_heard(Some(u16::MAX)), all);
}

#[test]
fn no_alias_is_sent_where_the_client_allows_none() {
    // [MQTT-3.1.2-27]
    assert_eq!(aliases_heard(None), [None; 6]);
    assert_eq!(aliases_heard(Some(0)), [None; 6]);
}

#[test]
fn alias_above_our_maximum_ends_the_connection() {
    // [MQTT-3.2.2-17] [MQTT-3.2.2-18]
    for (alias_max, alias, is_taken) in [(3, 3, true), (3, 4, false), (0, 1, false)] {
        let settings = Settings {
            topic_alias_max: alias_max,
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let client = lab.connect(&hello(Version::V5, "a"));
        let bytes = lab.take(client);
        let announced = connack_of(Version::V5, &bytes).properties.topic_alias_max;
        assert_eq!(announced.unwrap_or(0), alias_max);
        let publish = Publish {
            properties: PublishProperties {
                topic_alias: NonZeroU16::new(alias),
                ..PublishProperties::default()
            },
            ..message("t", b"x", QoS::AtMostOnce, 0)
        };
        lab.say(client, &Packet::Publish(publish));
        if is_taken {
            lab.expect_open(client, &[]);
        } else {
            lab.expect_end(client, &[goodbye(Reason::TopicAliasInvalid)]);
        }
    }
}

#[test]
fn response_information_is_given_only_to_those_who_ask() {
    // [MQTT-3.1.2-28]
    let cases = [
        (None, None),
        (Some(false), None),
        (Some(true), Some("here")),
    ];
    for (asked, expected) in cases {
        let settings = Settings {
            response_information: "here".into(),
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let client = lab.connect(&Connect {
            properties: ConnectProperties {
                request_response_information: asked,
                ..ConnectProperties::default()
            },
            ..hello(Version::V5, "a")
        });
        let bytes = lab.take(client);
        let connack = connack_of(Version::V5, &bytes);
        assert_eq!(connack.properties.response_information, expected);
    }
}

#[test]
fn acknowledgements_name_what_they_answer() {
    // [MQTT-2.2.1-5] [MQTT-2.2.1-6] [MQTT-3.1.1 2.3.1-6] [MQTT-3.1.1 2.3.1-7]
    for version in BOTH {
        let mut lab = Lab::new();
        let quiet = ConnectProperties {
            request_problem_information: (version == Version::V5).then_some(false),
            ..ConnectProperties::default()
        };
        // A reader: its PUBLISH is denied, so that every answer has a reason to give.
        let client = lab.joined(&Connect {
            username: (version == Version::V5).then_some("reader"),
            properties: quiet,
            ..hello(version, "a")
        });
        let denied = match version {
            Version::V5 => Reason::NotAuthorized,
            _ => Reason::Success,
        };
        let ack = |packet_id, reason| Ack {
            packet_id: id(packet_id),
            reason,
            reason_string: None,
            user: UserProperties::default(),
        };
        let one = message("t", b"x", QoS::AtLeastOnce, 0x1234);
        lab.say(client, &Packet::Publish(one));
        lab.expect_open(client, &[Packet::Puback(ack(0x1234, denied))]);
        let two = message("t", b"x", QoS::ExactlyOnce, 0xFFFF);
        lab.say(client, &Packet::Publish(two));
        lab.expect_open(client, &[Packet::Pubrec(ack(0xFFFF, denied))]);
        let unknown = match version {
            Version::V5 => Reason::PacketIdentifierNotFound,
            _ => Reason::Success,
        };
        lab.say(client, &Packet::Pubrel(ack(0xFFFF, Reason::Success)));
        lab.expect_open(client, &[Packet::Pubcomp(ack(0xFFFF, unknown))]);
        lab.say(client, &Packet::Pubrec(ack(7, Reason::Success)));
        lab.expect_open(client, &[Packet::Pubrel(ack(7, unknown))]);
        lab.say(client, &subscribe(0x4321, &[plain("t", QoS::AtMostOnce)]));
        let suback = Packet::Suback(Suback {
            packet_id: id(0x4321),
            reason_string: None,
            user: UserProperties::default(),
            codes: Codes::List(&[Reason::Success]),
        });
        lab.expect_open(client, &[suback]);
        lab.say(
            client,
            &Packet::Unsubscribe(Unsubscribe {
                packet_id: id(0x8001),
                user: UserProperties::default(),
                filters: Names::List(&["t"]),
            }),
        );
        let codes: &[Reason] = match version {
            Version::V5 => &[Reason::Success],
            _ => &[],
        };
        let unsuback = Packet::Unsuback(Unsuback {
            packet_id: id(0x8001),
            reason_string: None,
            user: UserProperties::default(),
            codes: Codes::List(codes),
        });
        lab.expect_open(client, &[unsuback]);
    }
}

#[test]
fn server_gives_every_unfinished_message_an_id_of_its_own() {
    // [MQTT-3.1.1 2.3.1-4] [MQTT-2.2.1-4]
    for version in BOTH {
        let mut lab = Lab::new();
        let writer = lab.client(version, "writer");
        let reader = lab.client(version, "reader");
        lab.subscribe(reader, "t", QoS::AtLeastOnce);
        for packet_id in 1..=100 {
            let publish = message("t", b"x", QoS::AtLeastOnce, packet_id);
            lab.say(writer, &Packet::Publish(publish));
        }
        let bytes = lab.take(reader);
        let number = |packet: Packet<'_>| match packet {
            Packet::Publish(publish) => publish.packet_id.unwrap(),
            other => panic!("no PUBLISH but {other:?}"),
        };
        let mut ids: Vec<_> = packets(version, &bytes).into_iter().map(number).collect();
        assert_eq!(ids.len(), 100);
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 100);
    }
}

#[test]
fn ping_is_answered() {
    // [MQTT-3.12.4-1] [MQTT-3.1.1 3.12.4-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let client = lab.client(version, "a");
        lab.say(client, &Packet::Pingreq);
        lab.expect_open(client, &[Packet::Pingresp]);
        lab.say(client, &Packet::Pingreq);
        lab.expect_open(client, &[Packet::Pingresp]);
    }
}
