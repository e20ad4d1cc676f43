//! Delivery: the exchanges of QoS 0, 1 and 2, resending and order (MQTT 5.0 §4.3 to §4.9).
//!
//! Each test drives the engine through its door with packets and compares every packet that comes
//! back; where both versions demand the same, the test runs once for each.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Connect, Packet, Publish, PublishProperties, QoS, Reason, Version};
use casemate_engine::policy::{Operation, Policy, Role, Rule};

use harness::{bytes_of, hello, lasting, message, policy, welcome, Lab, Peer, BOTH};
use word::*;

/// A client that keeps its session and subscribes to `t` at QoS 2, and one that publishes.
fn pair(lab: &mut Lab, version: Version) -> (Connect<'static>, Peer, Peer) {
    let connect = lasting(version, "reader");
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q2);
    let publisher = lab.client(version, "publisher");
    (connect, reader, publisher)
}

/// A policy under which the role `plain` may do as much as `all`.
fn wider() -> Policy {
    let rules = [Operation::Publish, Operation::Subscribe].map(|operation| Rule {
        operation,
        filter: "#".into(),
        qos_max: Q2,
        retain: true,
        place: "lab".into(),
    });
    let roles = ["plain", "all"].map(|name| Role {
        name: name.into(),
        rules: rules.to_vec(),
    });
    Policy::compile(2, roles.to_vec()).expect("the policy compiles")
}

/// A PUBLISH of this QoS that expires after one second.
fn expiring(qos: QoS, packet_id: u16) -> Packet<'static> {
    Packet::Publish(Publish {
        properties: PublishProperties {
            message_expiry_s: Some(1),
            ..PublishProperties::default()
        },
        ..message("t", b"short", qos, packet_id)
    })
}

#[test]
fn qos_0_leaves_without_dup_and_is_not_sent_again() {
    // [MQTT-4.3.1-1] [MQTT-3.1.1 4.3.1-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let (connect, reader, publisher) = pair(&mut lab, version);
        publish(&mut lab, publisher, &fresh("t", b"x", Q0, 0));
        lab.expect_open(reader, &[fresh("t", b"x", Q0, 0)]);
        let reader = reconnect(&mut lab, reader, &connect);
        lab.expect_open(reader, &[welcome(version, true)]);
    }
}

#[test]
fn each_new_message_gets_an_identifier_that_is_not_in_use() {
    // [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-3.1.1 4.3.2-1] [MQTT-3.1.1 4.3.3-1] More messages than
    // there are identifiers, while the first and one other stay unacknowledged.
    for version in BOTH {
        let mut lab = Lab::new();
        let (_, reader, publisher) = pair(&mut lab, version);
        let mut in_use = std::collections::BTreeSet::new();
        for number in 0..70_000_u32 {
            let qos = if number % 2 == 0 { Q1 } else { Q2 };
            let payload = number.to_be_bytes();
            publish(&mut lab, publisher, &fresh("t", &payload, qos, 1));
            let bytes = lab.take(reader);
            let found = harness::packets(version, &bytes);
            let Some(Packet::Publish(sent)) = found.first() else {
                // Identifiers go round in order, so that the one still in use ends the lap.
                assert_eq!(number, 65_534);
                lab.say(reader, &puback(1));
                lab.expect_open(reader, &[fresh("t", &payload, Q1, 65_535)]);
                publish(&mut lab, publisher, &fresh("t", b"next lap", Q2, 1));
                lab.expect_open(reader, &[fresh("t", b"next lap", Q2, 1)]);
                break;
            };
            let packet_id = sent.packet_id.expect("above QoS 0").get();
            assert_eq!(sent.payload, payload);
            assert!(in_use.insert(packet_id), "{packet_id} is in use");
            if number == 0 || number == 301 {
                continue;
            }
            if qos == Q1 {
                lab.say(reader, &puback(packet_id));
            } else {
                lab.say(reader, &pubrec(packet_id));
                lab.expect_open(reader, &[pubrel(packet_id)]);
                lab.say(reader, &pubcomp(packet_id));
            }
            in_use.remove(&packet_id);
        }
        assert_eq!(in_use.len(), 2);
    }
}

#[test]
fn a_new_publish_carries_its_qos_and_no_dup() {
    // [MQTT-4.3.2-2] [MQTT-4.3.3-2] [MQTT-3.1.1 4.3.2-1] [MQTT-3.1.1 4.3.3-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let (_, reader, publisher) = pair(&mut lab, version);
        publish(&mut lab, publisher, &fresh("t", b"1", Q1, 40));
        publish(&mut lab, publisher, &fresh("t", b"2", Q2, 41));
        lab.expect_open(reader, &[fresh("t", b"1", Q1, 1), fresh("t", b"2", Q2, 2)]);
    }
}

#[test]
fn a_publish_is_owed_until_its_own_acknowledgement() {
    // [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.4.0-1]
    // [MQTT-3.1.1 4.3.2-1] [MQTT-3.1.1 4.3.3-1] [MQTT-3.1.1 4.4.0-1]
    // What the client says before the connection is cut, and what it is then owed.
    let owed_1 = || again("t", b"x", Q1, 1);
    let owed_2 = || again("t", b"x", Q2, 1);
    for version in BOTH {
        for (qos, says, owed) in [
            (Q1, vec![], vec![owed_1()]),
            (Q1, vec![puback(2)], vec![owed_1()]),
            (Q1, vec![pubrec(1)], vec![owed_1()]),
            (Q1, vec![pubcomp(1)], vec![owed_1()]),
            (Q1, vec![puback(1)], vec![]),
            (Q2, vec![], vec![owed_2()]),
            (Q2, vec![puback(1)], vec![owed_2()]),
            (Q2, vec![pubrec(2)], vec![owed_2()]),
            (Q2, vec![pubcomp(1)], vec![owed_2()]),
            (Q2, vec![pubrec(1)], vec![pubrel(1)]),
            (Q2, vec![pubrec(1), pubrec(1)], vec![pubrel(1)]),
            (Q2, vec![pubrec(1), puback(1)], vec![pubrel(1)]),
            (Q2, vec![pubrec(1), pubcomp(1)], vec![]),
        ] {
            let mut lab = Lab::new();
            let (connect, reader, publisher) = pair(&mut lab, version);
            publish(&mut lab, publisher, &fresh("t", b"x", qos, 1));
            lab.expect_open(reader, &[fresh("t", b"x", qos, 1)]);
            for packet in says {
                lab.say(reader, &packet);
            }
            lab.take(reader);
            // Twice: resending settles nothing.
            let mut reader = reader;
            for _ in 0..2 {
                reader = reconnect(&mut lab, reader, &connect);
                let mut expected = vec![welcome(version, true)];
                expected.extend(owed.iter().cloned());
                lab.expect_open(reader, &expected);
            }
        }
    }
}

#[test]
fn pubrec_is_answered_by_pubrel_with_the_same_identifier() {
    // [MQTT-4.3.3-4] [MQTT-3.1.1 4.3.3-1] also the second time, but for a refusal.
    for version in BOTH {
        let mut lab = Lab::new();
        let (_, reader, publisher) = pair(&mut lab, version);
        for _ in 0..3 {
            publish(&mut lab, publisher, &fresh("t", b"x", Q2, 1));
        }
        lab.take(reader);
        for packet_id in [3, 1, 2, 1] {
            lab.say(reader, &pubrec(packet_id));
            lab.expect_open(reader, &[pubrel(packet_id)]);
        }
    }
}

#[test]
fn nothing_is_sent_again_while_the_connection_lasts() {
    // [MQTT-4.4.0-1] [MQTT-3.1.1 4.4.0-1] However long the client is silent about it.
    for version in BOTH {
        let mut lab = Lab::new();
        let (_, reader, publisher) = pair(&mut lab, version);
        publish(&mut lab, publisher, &fresh("t", b"1", Q1, 1));
        publish(&mut lab, publisher, &fresh("t", b"2", Q2, 2));
        publish(&mut lab, publisher, &fresh("t", b"3", Q2, 3));
        lab.say(reader, &pubrec(3));
        lab.take(reader);
        // Nor when another exchange ends.
        lab.say(reader, &puback(1));
        lab.expect_open(reader, &[]);
        for _ in 0..40 {
            lab.pass(30_000);
            lab.say(reader, &Packet::Pingreq);
            lab.expect_open(reader, &[Packet::Pingresp]);
        }
    }
}

#[test]
fn a_clean_start_is_sent_nothing_again() {
    // [MQTT-4.4.0-1] [MQTT-3.1.1 4.4.0-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let (connect, reader, publisher) = pair(&mut lab, version);
        publish(&mut lab, publisher, &fresh("t", b"x", Q1, 1));
        lab.take(reader);
        let clean = Connect {
            clean_start: true,
            ..connect
        };
        let reader = reconnect(&mut lab, reader, &clean);
        let bytes = lab.take(reader);
        let found = harness::packets(version, &bytes);
        assert!(matches!(&found[..], [Packet::Connack(connack)] if !connack.session_present));
    }
}

#[test]
fn expiry_does_not_touch_what_has_been_sent() {
    // [MQTT-4.3.3-7] at QoS 2; the same holds at QoS 1.
    for qos in [Q1, Q2] {
        let mut lab = Lab::new();
        let (connect, reader, publisher) = pair(&mut lab, Version::V5);
        publish(&mut lab, publisher, &expiring(qos, 1));
        lab.expect_open(reader, &[expiring(qos, 1)]);
        lab.cut(reader);
        lab.pass(5_000);
        let reader = lab.connect(&connect);
        let resent = Packet::Publish(Publish {
            dup: true,
            properties: PublishProperties {
                message_expiry_s: Some(0),
                ..PublishProperties::default()
            },
            ..message("t", b"short", qos, 1)
        });
        lab.expect_open(reader, &[welcome(Version::V5, true), resent]);
    }
}

#[test]
fn qos_1_is_acknowledged_and_taken_as_new_each_time() {
    // [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-3.1.1 4.3.2-2]
    for version in BOTH {
        let mut lab = Lab::new();
        let (_, reader, publisher) = pair(&mut lab, version);
        for (number, packet) in [
            (1, fresh("t", b"x", Q1, 9)),
            (2, again("t", b"x", Q1, 9)),
            (3, fresh("t", b"x", Q1, 9)),
        ] {
            lab.say(publisher, &packet);
            lab.expect_open(publisher, &[puback(9)]);
            lab.expect_open(reader, &[fresh("t", b"x", Q1, number)]);
        }
        // PUBACK has set the identifier free for an exchange of the other kind as well.
        lab.say(publisher, &fresh("t", b"x", Q2, 9));
        lab.expect_open(publisher, &[pubrec(9)]);
        lab.expect_open(reader, &[fresh("t", b"x", Q2, 4)]);
    }
}

#[test]
fn qos_1_is_acknowledged_only_when_it_is_durable() {
    // [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.1.1 4.3.2-2] Ownership is taken before it is confirmed.
    for version in BOTH {
        for (qos, answer) in [(Q1, puback(9)), (Q2, pubrec(9))] {
            let mut lab = Lab::new();
            let (_, _, publisher) = pair(&mut lab, version);
            lab.store_holds = true;
            lab.say(publisher, &fresh("t", b"x", qos, 9));
            lab.expect_open(publisher, &[]);
            lab.release_store();
            lab.expect_open(publisher, &[answer]);
        }
    }
}

#[test]
fn qos_2_is_routed_once_until_it_is_released() {
    // [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT-3.1.1 4.3.3-2] With DUP
    // or without, on the same connection or on the next one.
    for version in BOTH {
        for is_cut in [false, true] {
            let mut lab = Lab::new();
            let (_, reader, _) = pair(&mut lab, version);
            let connect = lasting(version, "sender");
            let mut sender = lab.joined(&connect);
            lab.say(sender, &fresh("t", b"x", Q2, 9));
            lab.expect_open(sender, &[pubrec(9)]);
            lab.expect_open(reader, &[fresh("t", b"x", Q2, 1)]);
            if is_cut {
                sender = reconnect(&mut lab, sender, &connect);
                lab.expect_open(sender, &[welcome(version, true)]);
            }
            for packet in [fresh("t", b"x", Q2, 9), again("t", b"x", Q2, 9)] {
                lab.say(sender, &packet);
                lab.expect_open(sender, &[pubrec(9)]);
            }
            lab.expect_open(reader, &[]);
            lab.say(sender, &pubrel(9));
            lab.expect_open(sender, &[pubcomp(9)]);
            lab.say(sender, &again("t", b"y", Q2, 9));
            lab.expect_open(sender, &[pubrec(9)]);
            lab.expect_open(reader, &[fresh("t", b"y", Q2, 2)]);
        }
    }
}

#[test]
fn a_refused_qos_2_identifier_is_free_for_a_new_message() {
    // [MQTT-4.3.3-9]
    let mut lab = Lab::new();
    let (_, reader, _) = pair(&mut lab, Version::V5);
    let connect = Connect {
        username: Some("plain"),
        ..hello(Version::V5, "sender")
    };
    let sender = lab.joined(&connect);
    lab.say(sender, &fresh("t", b"no", Q2, 9));
    lab.expect_open(sender, &[pubrec_of(9, Reason::NotAuthorized)]);
    lab.expect_open(reader, &[]);
    // The role may do more from now on: the same identifier is a new message.
    lab.obey(wider());
    lab.say(sender, &again("t", b"yes", Q2, 9));
    lab.expect_open(sender, &[pubrec(9)]);
    lab.expect_open(reader, &[fresh("t", b"yes", Q2, 1)]);
    // And back: under the old policy it is the known one, acknowledged and not judged anew.
    lab.obey(policy(3));
    lab.say(sender, &again("t", b"yes", Q2, 9));
    lab.expect_open(sender, &[pubrec(9)]);
    lab.expect_open(reader, &[]);
}

#[test]
fn the_exchange_of_an_expired_message_goes_on() {
    // [MQTT-4.3.3-13]
    let mut lab = Lab::new();
    let (connect, reader, publisher) = pair(&mut lab, Version::V5);
    lab.cut(reader);
    lab.say(publisher, &expiring(Q2, 9));
    lab.expect_open(publisher, &[pubrec(9)]);
    lab.pass(1_000);
    let reader = lab.connect(&connect);
    lab.expect_open(reader, &[welcome(Version::V5, true)]);
    lab.say(publisher, &pubrel(9));
    lab.expect_open(publisher, &[pubcomp(9)]);
}

#[test]
fn a_refusing_acknowledgement_ends_the_exchange() {
    // [MQTT-4.4.0-2] for any reason of 0x80 or above.
    for reason in [
        Reason::UnspecifiedError,
        Reason::ImplementationSpecificError,
        Reason::NotAuthorized,
        Reason::QuotaExceeded,
    ] {
        for (qos, refusal) in [(Q1, puback_of(1, reason)), (Q2, pubrec_of(1, reason))] {
            let mut lab = Lab::new();
            let (connect, reader, publisher) = pair(&mut lab, Version::V5);
            publish(&mut lab, publisher, &fresh("t", b"x", qos, 1));
            lab.expect_open(reader, &[fresh("t", b"x", qos, 1)]);
            lab.say(reader, &refusal);
            lab.expect_open(reader, &[]);
            let reader = reconnect(&mut lab, reader, &connect);
            lab.expect_open(reader, &[welcome(Version::V5, true)]);
        }
    }
}

#[test]
fn a_message_is_kept_for_every_session_that_matches() {
    // [MQTT-4.5.0-1] [MQTT-3.1.1 4.5.0-1] whether its client is there or not.
    for version in BOTH {
        let mut lab = Lab::new();
        let names = ["a", "b", "c"];
        for name in names {
            let reader = lab.joined(&lasting(version, name));
            lab.subscribe(reader, "t", Q2);
            lab.cut(reader);
        }
        let publisher = lab.client(version, "publisher");
        publish(&mut lab, publisher, &fresh("t", b"1", Q1, 1));
        publish(&mut lab, publisher, &fresh("t", b"2", Q2, 2));
        publish(&mut lab, publisher, &fresh("other", b"3", Q1, 3));
        for name in names {
            let reader = lab.connect(&lasting(version, name));
            let expected = [
                welcome(version, true),
                fresh("t", b"1", Q1, 1),
                fresh("t", b"2", Q2, 2),
            ];
            lab.expect_open(reader, &expected);
        }
    }
}

#[test]
fn messages_of_one_topic_keep_their_order() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-3.1.1 4.6.0-5] [MQTT-3.1.1 4.6.0-6] While the session is
    // away, while its old exchanges are resumed, and while it is there.
    for version in BOTH {
        for qos in [Q1, Q2] {
            let mut lab = Lab::new();
            let (connect, reader, publisher) = pair(&mut lab, version);
            let payloads: Vec<[u8; 1]> = (0..6).map(|number| [number]).collect();
            publish(&mut lab, publisher, &fresh("t", &payloads[0], qos, 1));
            publish(&mut lab, publisher, &fresh("t", &payloads[1], qos, 2));
            lab.cut(reader);
            publish(&mut lab, publisher, &fresh("t", &payloads[2], qos, 3));
            publish(&mut lab, publisher, &fresh("t", &payloads[3], qos, 4));
            let reader = lab.connect(&connect);
            publish(&mut lab, publisher, &fresh("t", &payloads[4], qos, 5));
            publish(&mut lab, publisher, &fresh("t", &payloads[5], qos, 6));
            let mut expected = vec![welcome(version, true)];
            for (packet_id, payload) in (1..).zip(&payloads) {
                expected.push(match packet_id {
                    1 | 2 => again("t", payload, qos, packet_id),
                    _ => fresh("t", payload, qos, packet_id),
                });
            }
            lab.expect_open(reader, &expected);
        }
    }
}

#[test]
fn a_message_does_not_overtake_those_that_wait_for_quota() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6]
    for qos in [Q1, Q2] {
        let mut lab = Lab::new();
        let connect = with_receive_max(hello(Version::V5, "reader"), 1);
        let reader = lab.joined(&connect);
        lab.subscribe(reader, "t", Q2);
        let publisher = lab.client(Version::V5, "publisher");
        let payloads: Vec<[u8; 1]> = (0..5).map(|number| [number]).collect();
        for payload in &payloads {
            publish(&mut lab, publisher, &fresh("t", payload, qos, 1));
        }
        for (packet_id, payload) in (1..).zip(&payloads) {
            lab.expect_open(reader, &[fresh("t", payload, qos, packet_id)]);
            if qos == Q2 {
                lab.say(reader, &pubrec(packet_id));
                lab.expect_open(reader, &[pubrel(packet_id)]);
                lab.say(reader, &pubcomp(packet_id));
            } else {
                lab.say(reader, &puback(packet_id));
            }
        }
    }
}

#[test]
fn a_message_does_not_overtake_one_that_has_just_got_its_quota() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] The acknowledgement and the next message come in one read.
    let mut lab = Lab::new();
    let connect = with_receive_max(hello(Version::V5, "reader"), 1);
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q1);
    let publisher = lab.client(Version::V5, "publisher");
    publish(&mut lab, publisher, &fresh("t", b"1", Q1, 1));
    publish(&mut lab, publisher, &fresh("t", b"2", Q1, 2));
    lab.expect_open(reader, &[fresh("t", b"1", Q1, 1)]);
    let mut both = bytes_of(Version::V5, &puback(1));
    both.extend(bytes_of(Version::V5, &fresh("t", b"3", Q1, 9)));
    lab.send(reader, &both);
    lab.expect_open(reader, &[puback(9), fresh("t", b"2", Q1, 2)]);
    lab.say(reader, &puback(2));
    lab.expect_open(reader, &[fresh("t", b"3", Q1, 3)]);
}

#[test]
fn the_quota_begins_at_the_receive_maximum_and_anew_with_each_connection() {
    // [MQTT-4.9.0-1] [MQTT-4.9.0-2] From none to a full quota, and smaller on the next connection.
    for receive_max in [1_u16, 2, 5] {
        let mut lab = Lab::new();
        let connect = lasting(Version::V5, "reader");
        let reader = lab.joined(&with_receive_max(connect.clone(), receive_max));
        lab.subscribe(reader, "t", Q1);
        let publisher = lab.client(Version::V5, "publisher");
        for _ in 0..8 {
            publish(&mut lab, publisher, &fresh("t", b"x", Q1, 1));
        }
        let first: Vec<_> = (1..=receive_max)
            .map(|packet_id| fresh("t", b"x", Q1, packet_id))
            .collect();
        lab.expect_open(reader, &first);
        let reader = reconnect(&mut lab, reader, &with_receive_max(connect, 1));
        let expected = [welcome(Version::V5, true), again("t", b"x", Q1, 1)];
        lab.expect_open(reader, &expected);
        lab.say(reader, &puback(1));
        let next = match receive_max {
            1 => fresh("t", b"x", Q1, 2),
            _ => again("t", b"x", Q1, 2),
        };
        lab.expect_open(reader, &[next]);
    }
}
