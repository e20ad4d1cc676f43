//! PUBLISH in both directions: what is kept, forwarded, resent and answered (MQTT 5.0 §3.3).
//!
//! Each test drives the engine through its door with packets and compares every packet that comes
//! back; where both versions demand the same, the test runs once for each.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::num::NonZeroU16;

use casemate_codec::{
    Connect, ConnectProperties, Packet, Publish, PublishProperties, QoS, Reason, SubscribeFilter,
    Version,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};

use harness::{hello, lasting, message, plain, subscribe, welcome, Lab, BOTH};
use word::*;

/// A PUBLISH with a topic alias.
fn aliased<'a>(topic: &'a str, payload: &'a [u8], alias: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        properties: PublishProperties {
            topic_alias: NonZeroU16::new(alias),
            ..PublishProperties::default()
        },
        ..message(topic, payload, Q0, 0)
    })
}

/// A PUBLISH of QoS 1 with a Message Expiry Interval.
fn expiring<'a>(topic: &'a str, payload: &'a [u8], packet_id: u16, expiry_s: u32) -> Packet<'a> {
    Packet::Publish(Publish {
        properties: PublishProperties {
            message_expiry_s: Some(expiry_s),
            ..PublishProperties::default()
        },
        ..message(topic, payload, Q1, packet_id)
    })
}

/// A policy under which even `$a/…` is open, so that only the filters decide.
fn everything() -> Policy {
    let mut rules = Vec::new();
    for operation in [Operation::Publish, Operation::Subscribe] {
        for filter in ["#", "$a/#"] {
            rules.push(Rule {
                operation,
                filter: filter.into(),
                qos_max: Q2,
                retain: true,
                place: "lab".into(),
            });
        }
    }
    let name = "all".into();
    Policy::compile(2, vec![Role { name, rules }]).expect("the policy compiles")
}

/// What a subscriber of QoS 2 gets at once when it subscribes with packet id 1.
#[track_caller]
fn expect_replay(lab: &mut Lab, version: Version, filter: &str, expected: &[Packet<'_>]) {
    let late = lab.client(version, "late");
    lab.say(late, &subscribe(1, &[plain(filter, Q2)]));
    let mut all = vec![suback(1, &[Reason::GrantedQoS2])];
    all.extend_from_slice(expected);
    lab.expect_open(late, &all);
    lab.cut(late);
}

#[test]
fn a_retained_publish_of_any_qos_replaces_what_was_kept() {
    // [MQTT-3.3.1-5] [MQTT-3.1.1 3.3.1-5] stored with its QoS; [MQTT-3.1.1 3.3.1-7] at QoS 0 too;
    // [MQTT-3.1.1 3.3.1-6] and [MQTT-3.1.1 3.3.1-8] a new subscriber gets the last one, retained.
    for version in BOTH {
        for qos in EVERY_QOS {
            let mut lab = Lab::new();
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &kept("t", b"old", Q1, 1));
            expect_replay(&mut lab, version, "t", &[kept("t", b"old", Q1, 1)]);
            lab.say(publisher, &kept("t", b"new", qos, 2));
            let own_id = if qos == Q0 { 0 } else { 1 };
            expect_replay(&mut lab, version, "t", &[kept("t", b"new", qos, own_id)]);
            assert_eq!(lab.shard(0).counters().retained_now, 1);
        }
    }
}

#[test]
fn an_empty_retained_payload_is_delivered_and_forgets_what_was_kept() {
    // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.1.1 3.3.1-10] [MQTT-3.1.1 3.3.1-11]
    for version in BOTH {
        let mut lab = Lab::new();
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &kept("t", b"old", Q0, 0));
        let early = lab.client(version, "early");
        lab.subscribe(early, "#", Q0);
        lab.take(early);
        lab.say(publisher, &kept("t", b"", Q0, 0));
        lab.say(publisher, &kept("never", b"", Q0, 0));
        lab.expect_open(early, &[fresh("t", b"", Q0, 0), fresh("never", b"", Q0, 0)]);
        expect_replay(&mut lab, version, "#", &[]);
        assert_eq!(lab.shard(0).counters().retained_now, 0);
    }
}

#[test]
fn a_publish_without_retain_leaves_what_was_kept_alone() {
    // [MQTT-3.3.1-8] [MQTT-3.1.1 3.3.1-12]
    for version in BOTH {
        let mut lab = Lab::new();
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &kept("t", b"kept", Q0, 0));
        lab.say(publisher, &fresh("t", b"passing", Q0, 0));
        lab.say(publisher, &fresh("t", b"", Q0, 0));
        lab.say(publisher, &fresh("other", b"passing", Q0, 0));
        expect_replay(&mut lab, version, "#", &[kept("t", b"kept", Q0, 0)]);
    }
}

#[test]
fn an_established_subscription_sees_retain_only_where_it_asked_for_it() {
    // [MQTT-3.3.1-12] [MQTT-3.3.1-13] for plain and for shared subscriptions.
    for (filter, as_published, retain, seen) in [
        ("t", false, true, false),
        ("t", false, false, false),
        ("t", true, true, true),
        ("t", true, false, false),
        ("$share/g/t", false, true, false),
        ("$share/g/t", true, true, true),
        ("$share/g/t", true, false, false),
    ] {
        let mut lab = Lab::new();
        let reader = lab.client(Version::V5, "reader");
        let line = SubscribeFilter {
            retain_as_published: as_published,
            ..plain(filter, Q0)
        };
        lab.say(reader, &subscribe(1, &[line]));
        lab.take(reader);
        let publisher = lab.client(Version::V5, "publisher");
        let sent = |retain| {
            Packet::Publish(Publish {
                retain,
                ..message("t", b"x", Q0, 0)
            })
        };
        lab.say(publisher, &sent(retain));
        lab.expect_open(reader, &[sent(seen)]);
    }
}

#[test]
fn an_established_subscription_of_an_older_client_never_sees_retain() {
    // [MQTT-3.1.1 3.3.1-9]
    let mut lab = Lab::new();
    let reader = lab.client(Version::V311, "reader");
    lab.subscribe(reader, "t", Q0);
    let publisher = lab.client(Version::V311, "publisher");
    lab.say(publisher, &kept("t", b"x", Q0, 0));
    lab.expect_open(reader, &[fresh("t", b"x", Q0, 0)]);
}

#[test]
fn dup_of_the_publisher_does_not_travel() {
    // [MQTT-3.3.1-3] [MQTT-3.1.1 3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2] to one recipient, which is
    // written alone, and to several, which share an encoding.
    for version in BOTH {
        for readers in [1, 3] {
            let mut lab = Lab::new();
            let names = ["a", "b", "c"];
            let readers: Vec<_> = names[..readers]
                .iter()
                .map(|name| lab.client(version, name))
                .collect();
            for reader in &readers {
                lab.subscribe(*reader, "t", Q2);
            }
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &again("t", b"one", Q1, 7));
            lab.say(publisher, &again("t", b"two", Q2, 8));
            for reader in readers {
                let expected = [fresh("t", b"one", Q1, 1), fresh("t", b"two", Q2, 2)];
                lab.expect_open(reader, &expected);
            }
        }
    }
}

#[test]
fn dup_is_set_when_a_publish_is_sent_again() {
    // [MQTT-3.3.1-1] [MQTT-3.1.1 3.3.1-1]
    for version in BOTH {
        for qos in [Q1, Q2] {
            let mut lab = Lab::new();
            let connect = lasting(version, "reader");
            let reader = lab.joined(&connect);
            lab.subscribe(reader, "t", Q2);
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &fresh("t", b"x", qos, 9));
            lab.expect_open(reader, &[fresh("t", b"x", qos, 1)]);
            let reader = reconnect(&mut lab, reader, &connect);
            lab.expect_open(reader, &[welcome(version, true), again("t", b"x", qos, 1)]);
        }
    }
}

#[test]
fn a_topic_reaches_exactly_the_filters_that_match_it() {
    // [MQTT-3.3.2-3] [MQTT-3.1.1 3.3.2-3] The topic is the publisher's own, never the filter.
    for version in BOTH {
        for (filter, topic, matches) in [
            ("a/b", "a/b", true),
            ("a/b", "a/B", false),
            ("a/b", "a/b/", false),
            ("a/b", "/a/b", false),
            ("a/+", "a/b", true),
            ("a/+", "a/", true),
            ("a/+", "a", false),
            ("a/+", "a/b/c", false),
            ("+/+", "/b", true),
            ("+", "/b", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "/", true),
            ("#", "$a/b", false),
            ("+/b", "$a/b", false),
            ("$a/#", "$a/b", true),
        ] {
            let mut lab = Lab::new();
            lab.obey(everything());
            let reader = lab.client(version, "reader");
            lab.subscribe(reader, filter, Q0);
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &fresh(topic, b"x", Q0, 0));
            let expected = [fresh(topic, b"x", Q0, 0)];
            let count = usize::from(matches);
            lab.expect_open(reader, &expected[..count]);
        }
    }
}

#[test]
fn a_message_that_expired_while_it_waited_is_forgotten() {
    // [MQTT-3.3.2-5] at 1,999 ms it leaves with the second that is left, at 2,000 ms never.
    for (waited_ms, survives) in [(1_999, true), (2_000, false)] {
        let mut lab = Lab::new();
        let connect = lasting(Version::V5, "reader");
        let reader = lab.joined(&connect);
        lab.subscribe(reader, "t", Q1);
        lab.cut(reader);
        let publisher = lab.client(Version::V5, "publisher");
        lab.say(publisher, &expiring("t", b"short", 1, 2));
        lab.say(publisher, &fresh("t", b"long", Q1, 2));
        lab.pass(waited_ms);
        let reader = lab.connect(&connect);
        if survives {
            let expected = [
                welcome(Version::V5, true),
                expiring("t", b"short", 1, 1),
                fresh("t", b"long", Q1, 2),
            ];
            lab.expect_open(reader, &expected);
        } else {
            let expected = [welcome(Version::V5, true), fresh("t", b"long", Q1, 1)];
            lab.expect_open(reader, &expected);
            assert_eq!(lab.shard(0).counters().dropped_expired, 1);
        }
    }
}

#[test]
fn an_alias_of_the_client_ends_with_its_connection() {
    // [MQTT-3.3.2-7]
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "#", Q0);
    let connect = lasting(Version::V5, "publisher");
    let publisher = lab.joined(&connect);
    lab.say(publisher, &aliased("t", b"sets", 1));
    lab.say(publisher, &aliased("", b"uses", 1));
    let expected = [fresh("t", b"sets", Q0, 0), fresh("t", b"uses", Q0, 0)];
    lab.expect_open(reader, &expected);
    let publisher = reconnect(&mut lab, publisher, &connect);
    lab.say(publisher, &aliased("", b"lost", 1));
    let expected = [
        welcome(Version::V5, true),
        disconnect(Reason::ProtocolError),
    ];
    lab.expect_end(publisher, &expected);
    lab.expect_open(reader, &[]);
}

#[test]
fn every_alias_up_to_the_maximum_is_taken_and_the_next_one_is_refused() {
    // [MQTT-3.3.2-9] [MQTT-3.3.2-12] CONNACK gave 32.
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "#", Q0);
    let publisher = lab.connect(&hello(Version::V5, "publisher"));
    lab.expect_open(publisher, &[welcome(Version::V5, false)]);
    let topics: Vec<String> = (1..=32).map(|alias| format!("t/{alias}")).collect();
    for (alias, topic) in (1..).zip(&topics) {
        lab.say(publisher, &aliased(topic, b"sets", alias));
        lab.expect_open(reader, &[fresh(topic, b"sets", Q0, 0)]);
    }
    for (alias, topic) in (1..).zip(&topics) {
        lab.say(publisher, &aliased("", b"uses", alias));
        lab.expect_open(reader, &[fresh(topic, b"uses", Q0, 0)]);
    }
    lab.say(publisher, &aliased("t/33", b"x", 33));
    lab.expect_end(publisher, &[disconnect(Reason::TopicAliasInvalid)]);
    lab.expect_open(reader, &[]);
}

#[test]
fn the_broker_sets_no_more_aliases_than_the_client_allows() {
    // [MQTT-3.3.2-11] and, across connections, [MQTT-3.3.2-7].
    let mut lab = Lab::new();
    let publisher = lab.client(Version::V5, "publisher");
    for max in [None, Some(0), Some(1)] {
        let connect = Connect {
            properties: ConnectProperties {
                topic_alias_max: max,
                session_expiry_s: Some(60),
                ..ConnectProperties::default()
            },
            ..hello(Version::V5, "reader")
        };
        let reader = lab.joined(&connect);
        lab.subscribe(reader, "#", Q0);
        for topic in ["one", "two", "one", "two"] {
            lab.say(publisher, &fresh(topic, b"x", Q0, 0));
        }
        let one = match max {
            Some(1) => [aliased("one", b"x", 1), aliased("", b"x", 1)],
            _ => [fresh("one", b"x", Q0, 0), fresh("one", b"x", Q0, 0)],
        };
        let two = fresh("two", b"x", Q0, 0);
        let [first, second] = one;
        lab.expect_open(reader, &[first.clone(), two.clone(), second, two]);
        let anew = Connect {
            clean_start: false,
            ..connect
        };
        lab.cut(reader);
        let reader = lab.joined(&anew);
        lab.say(publisher, &fresh("one", b"x", Q0, 0));
        lab.expect_open(reader, &[first]);
        lab.cut(reader);
    }
}

#[test]
fn each_qos_is_answered_by_its_own_packet() {
    // [MQTT-3.3.4-1] [MQTT-3.1.1 3.3.4-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let publisher = lab.client(version, "publisher");
        for (packet, answer) in [
            (fresh("t", b"x", Q0, 0), None),
            (fresh("t", b"x", Q1, 11), Some(puback(11))),
            (fresh("t", b"x", Q2, 12), Some(pubrec(12))),
            (pubrel(12), Some(pubcomp(12))),
        ] {
            lab.say(publisher, &packet);
            let answers: Vec<_> = answer.into_iter().collect();
            lab.expect_open(publisher, &answers);
        }
    }
}

#[test]
fn overlapping_subscriptions_give_one_copy_of_the_highest_qos() {
    // [MQTT-3.3.4-2] [MQTT-3.1.1 3.3.5-1]
    for version in BOTH {
        for filters in [
            [("a/+", Q0), ("a/b", Q2), ("a/#", Q1)],
            [("a/+", Q2), ("a/b", Q1), ("a/#", Q0)],
            [("a/+", Q1), ("a/b", Q0), ("a/#", Q2)],
        ] {
            let mut lab = Lab::new();
            let reader = lab.client(version, "reader");
            for (filter, qos) in filters {
                lab.subscribe(reader, filter, qos);
            }
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &fresh("a/b", b"x", Q2, 1));
            lab.expect_open(reader, &[fresh("a/b", b"x", Q2, 1)]);
            lab.say(publisher, &fresh("a/b", b"y", Q1, 2));
            lab.expect_open(reader, &[fresh("a/b", b"y", Q1, 2)]);
        }
    }
}

#[test]
fn a_denied_publish_is_acknowledged_and_goes_nowhere() {
    // [MQTT-3.1.1 3.3.5-2] An older client is acknowledged; a 5.0 client learns why.
    let denied = Reason::NotAuthorized;
    for (version, q1, q2) in [
        (Version::V311, puback(1), pubrec(2)),
        (Version::V5, puback_of(1, denied), pubrec_of(2, denied)),
    ] {
        let mut lab = Lab::new();
        let listener = lab.client(version, "listener");
        lab.subscribe(listener, "#", Q2);
        let connect = Connect {
            username: Some("reader"),
            ..hello(version, "publisher")
        };
        let publisher = lab.joined(&connect);
        lab.say(publisher, &fresh("t", b"x", Q0, 0));
        lab.expect_open(publisher, &[]);
        lab.say(publisher, &fresh("t", b"x", Q1, 1));
        lab.expect_open(publisher, &[q1]);
        lab.say(publisher, &fresh("t", b"x", Q2, 2));
        lab.expect_open(publisher, &[q2]);
        if version == Version::V311 {
            lab.say(publisher, &pubrel(2));
            lab.expect_open(publisher, &[pubcomp(2)]);
        }
        lab.expect_open(listener, &[]);
        assert_eq!(lab.shard(0).counters().publish_denied, 3);
    }
}

#[test]
fn no_more_is_under_way_than_the_receive_maximum_allows() {
    // [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] The quota begins at 2, falls with each PUBLISH
    // above QoS 0, and only PUBACK, PUBCOMP and a refusing PUBREC give it back.
    let mut lab = Lab::new();
    let connect = with_receive_max(hello(Version::V5, "reader"), 2);
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q2);
    let publisher = lab.client(Version::V5, "publisher");
    let sent: [(&[u8], QoS); 5] = [(b"1", Q1), (b"2", Q2), (b"3", Q2), (b"4", Q1), (b"5", Q1)];
    for (packet_id, (payload, qos)) in (1..).zip(sent) {
        lab.say(publisher, &fresh("t", payload, qos, packet_id));
    }
    lab.expect_open(reader, &[fresh("t", b"1", Q1, 1), fresh("t", b"2", Q2, 2)]);
    lab.say(reader, &pubrec(2));
    lab.expect_open(reader, &[pubrel(2)]);
    lab.say(reader, &puback(1));
    lab.expect_open(reader, &[fresh("t", b"3", Q2, 3)]);
    lab.say(reader, &pubcomp(2));
    lab.expect_open(reader, &[fresh("t", b"4", Q1, 4)]);
    lab.say(reader, &pubrec_of(3, Reason::UnspecifiedError));
    lab.expect_open(reader, &[fresh("t", b"5", Q1, 5)]);
}

#[test]
fn a_used_up_quota_delays_nothing_but_publish() {
    // [MQTT-3.3.4-10] [MQTT-4.9.0-3]
    let mut lab = Lab::new();
    let connect = with_receive_max(hello(Version::V5, "reader"), 1);
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q2);
    let publisher = lab.client(Version::V5, "publisher");
    lab.say(publisher, &fresh("t", b"1", Q2, 1));
    lab.say(publisher, &fresh("t", b"2", Q1, 2));
    lab.expect_open(reader, &[fresh("t", b"1", Q2, 1)]);
    let codes = [Reason::Success];
    for (packet, answer) in [
        (Packet::Pingreq, Packet::Pingresp),
        (subscribe(5, &[plain("s", Q0)]), suback(5, &codes)),
        (unsubscribe(6, &["s"]), unsuback(Version::V5, 6, &codes)),
        (fresh("other", b"x", Q1, 7), puback(7)),
        (fresh("other", b"x", Q2, 8), pubrec(8)),
        (pubrel(8), pubcomp(8)),
        (pubrec(1), pubrel(1)),
    ] {
        lab.say(reader, &packet);
        lab.expect_open(reader, &[answer]);
    }
    lab.say(reader, &pubcomp(1));
    lab.expect_open(reader, &[fresh("t", b"2", Q1, 2)]);
}

#[test]
fn a_resumed_pubrel_does_not_wait_behind_a_publish_without_quota() {
    // [MQTT-3.3.4-10]
    let mut lab = Lab::new();
    let connect = lasting(Version::V5, "reader");
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q2);
    let publisher = lab.client(Version::V5, "publisher");
    let sent: [(&[u8], QoS); 3] = [(b"1", Q1), (b"2", Q1), (b"3", Q2)];
    for (packet_id, (payload, qos)) in (1..).zip(sent) {
        lab.say(publisher, &fresh("t", payload, qos, packet_id));
    }
    lab.say(reader, &pubrec(3));
    lab.take(reader);
    let narrow = with_receive_max(connect, 1);
    let reader = reconnect(&mut lab, reader, &narrow);
    let expected = [
        welcome(Version::V5, true),
        pubrel(3),
        again("t", b"1", Q1, 1),
    ];
    lab.expect_open(reader, &expected);
    lab.say(reader, &puback(1));
    lab.expect_open(reader, &[again("t", b"2", Q1, 2)]);
    lab.say(reader, &pubcomp(3));
    lab.say(reader, &puback(2));
    lab.say(publisher, &fresh("t", b"4", Q1, 4));
    lab.expect_open(reader, &[fresh("t", b"4", Q1, 4)]);
}
