//! SUBSCRIBE and UNSUBSCRIBE: their answers and what they change (MQTT 5.0 §3.8 to §3.11).
//!
//! Each test drives the engine through its door with packets and compares every packet that comes
//! back; where both versions demand the same, the test runs once for each.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{
    Connect, Packet, Publish, QoS, Reason, RetainHandling, SubscribeFilter, Version,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};

use harness::{hello, lasting, message, plain, subscribe, welcome, Lab, BOTH};
use word::*;

/// A policy whose role `half` may subscribe below `open/`, at QoS 1 below `open/low/`.
fn half_open() -> Policy {
    let rule = |operation, filter: &str, qos_max| Rule {
        operation,
        filter: filter.into(),
        qos_max,
        retain: true,
        place: "lab".into(),
    };
    let half = vec![
        rule(Operation::Subscribe, "open/+", Q2),
        rule(Operation::Subscribe, "open/low/+", Q1),
    ];
    let all = vec![rule(Operation::Publish, "#", Q2)];
    let role = |name: &str, rules| Role {
        name: name.into(),
        rules,
    };
    let roles = vec![role("half", half), role("all", all)];
    Policy::compile(2, roles).expect("the policy compiles")
}

#[test]
fn a_subscribe_of_many_filters_is_answered_once_with_a_code_for_each() {
    // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7]
    // [MQTT-3.1.1 3.8.4-1] [MQTT-3.1.1 3.8.4-2] [MQTT-3.1.1 3.8.4-4] [MQTT-3.1.1 3.8.4-5]
    for (version, refusal) in [
        (Version::V311, Reason::UnspecifiedError),
        (Version::V5, Reason::NotAuthorized),
    ] {
        let mut lab = Lab::new();
        lab.obey(half_open());
        let connect = Connect {
            username: Some("half"),
            ..hello(version, "reader")
        };
        let reader = lab.joined(&connect);
        let lines = [
            plain("open/a", Q2),
            plain("shut/a", Q1),
            plain("open/b", Q0),
            plain("open/low/c", Q2),
            plain("#", Q0),
        ];
        lab.say(reader, &subscribe(777, &lines));
        let codes = [
            Reason::GrantedQoS2,
            refusal,
            Reason::Success,
            Reason::GrantedQoS1,
            refusal,
        ];
        lab.expect_open(reader, &[suback(777, &codes)]);
        let publisher = lab.client(version, "publisher");
        for topic in ["shut/a", "open/a", "open/b", "open/low/c"] {
            lab.say(publisher, &fresh(topic, b"x", Q2, 1));
            lab.say(publisher, &pubrel(1));
        }
        let expected = [
            fresh("open/a", b"x", Q2, 1),
            fresh("open/b", b"x", Q0, 0),
            fresh("open/low/c", b"x", Q1, 2),
        ];
        lab.expect_open(reader, &expected);
    }
}

#[test]
fn the_same_filter_twice_in_one_subscribe_is_a_sequence() {
    // [MQTT-3.8.4-5] [MQTT-3.1.1 3.8.4-4] The second line replaces the first.
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        let lines = [plain("t", Q2), plain("t", Q0)];
        lab.say(reader, &subscribe(2, &lines));
        let codes = [Reason::GrantedQoS2, Reason::Success];
        lab.expect_open(reader, &[suback(2, &codes)]);
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &fresh("t", b"x", Q1, 1));
        lab.expect_open(reader, &[fresh("t", b"x", Q0, 0)]);
    }
}

#[test]
fn an_identical_filter_replaces_the_subscription_and_brings_retained_messages_again() {
    // [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT-3.1.1 3.8.4-3]
    for version in BOTH {
        let mut lab = Lab::new();
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &kept("t", b"kept", Q0, 0));
        let reader = lab.client(version, "reader");
        for qos in [Q0, Q2, Q1] {
            lab.say(reader, &subscribe(3, &[plain("t", qos)]));
            let codes = [granted_code(qos)];
            let expected = [suback(3, &codes), kept("t", b"kept", Q0, 0)];
            lab.expect_open(reader, &expected);
        }
        // One copy, at the QoS of the last SUBSCRIBE.
        lab.say(publisher, &fresh("t", b"x", Q2, 1));
        lab.expect_open(reader, &[fresh("t", b"x", Q1, 1)]);
    }
}

#[test]
fn replacing_a_subscription_loses_none_of_its_messages() {
    // [MQTT-3.8.4-4] [MQTT-3.1.1 3.8.4-3] What waits for quota is neither dropped nor changed.
    let mut lab = Lab::new();
    let connect = with_receive_max(hello(Version::V5, "reader"), 1);
    let reader = lab.joined(&connect);
    lab.subscribe(reader, "t", Q1);
    let publisher = lab.client(Version::V5, "publisher");
    lab.say(publisher, &fresh("t", b"1", Q1, 1));
    lab.say(publisher, &fresh("t", b"2", Q1, 2));
    lab.expect_open(reader, &[fresh("t", b"1", Q1, 1)]);
    lab.say(reader, &subscribe(4, &[plain("t", Q0)]));
    lab.expect_open(reader, &[suback(4, &[Reason::Success])]);
    lab.say(publisher, &fresh("t", b"3", Q1, 3));
    lab.say(reader, &puback(1));
    lab.expect_open(reader, &[fresh("t", b"3", Q0, 0), fresh("t", b"2", Q1, 2)]);
}

#[test]
fn the_lower_of_both_qos_is_delivered() {
    // [MQTT-3.8.4-8] [MQTT-3.1.1 3.8.4-6] for live, retained and shared messages.
    for version in BOTH {
        for granted in EVERY_QOS {
            for published in EVERY_QOS {
                let mut lab = Lab::new();
                let publisher = lab.client(version, "publisher");
                let with_id = |qos| u16::from(qos > Q0);
                lab.say(publisher, &kept("t", b"old", published, with_id(published)));
                let reader = lab.client(version, "reader");
                lab.say(reader, &subscribe(1, &[plain("t", granted)]));
                let qos = granted.min(published);
                let codes = [granted_code(granted)];
                let expected = [suback(1, &codes), kept("t", b"old", qos, with_id(qos))];
                lab.expect_open(reader, &expected);
                lab.say(
                    publisher,
                    &fresh("t", b"new", published, 2 * with_id(published)),
                );
                lab.expect_open(reader, &[fresh("t", b"new", qos, 2 * with_id(qos))]);
            }
        }
    }
}

#[test]
fn retain_handling_decides_about_retained_messages() {
    // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
    for (handling, is_new, replayed) in [
        (RetainHandling::Send, true, true),
        (RetainHandling::Send, false, true),
        (RetainHandling::SendIfNew, true, true),
        (RetainHandling::SendIfNew, false, false),
        (RetainHandling::Never, true, false),
        (RetainHandling::Never, false, false),
    ] {
        let mut lab = Lab::new();
        let publisher = lab.client(Version::V5, "publisher");
        lab.say(publisher, &kept("a/1", b"one", Q0, 0));
        lab.say(publisher, &kept("a/2", b"two", Q0, 0));
        lab.say(publisher, &kept("b/1", b"other", Q0, 0));
        let reader = lab.client(Version::V5, "reader");
        if !is_new {
            lab.subscribe(reader, "a/+", Q0);
        }
        let line = SubscribeFilter {
            retain_handling: handling,
            ..plain("a/+", Q0)
        };
        lab.take(reader);
        lab.say(reader, &subscribe(2, &[line]));
        let mut expected = vec![suback(2, &[Reason::Success])];
        if replayed {
            expected.push(kept("a/1", b"one", Q0, 0));
            expected.push(kept("a/2", b"two", Q0, 0));
        }
        lab.expect_open(reader, &expected);
    }
}

#[test]
fn a_shared_subscription_is_never_sent_retained_messages() {
    // MQTT 5.0 §4.8.2 has no identifier for it; beside [MQTT-3.3.1-9] it is the exception.
    let mut lab = Lab::new();
    let publisher = lab.client(Version::V5, "publisher");
    lab.say(publisher, &kept("t", b"kept", Q0, 0));
    let reader = lab.client(Version::V5, "reader");
    lab.say(reader, &subscribe(2, &[plain("$share/g/t", Q0)]));
    lab.expect_open(reader, &[suback(2, &[Reason::Success])]);
}

#[test]
fn no_local_keeps_a_client_from_hearing_itself() {
    // [MQTT-3.8.3-3] Another of its subscriptions without the option still counts.
    for (no_local, beside, heard) in [
        (false, false, true),
        (true, false, false),
        (true, true, true),
    ] {
        let mut lab = Lab::new();
        let client = lab.client(Version::V5, "itself");
        let line = SubscribeFilter {
            no_local,
            ..plain("a/+", Q0)
        };
        lab.say(client, &subscribe(1, &[line]));
        if beside {
            lab.say(client, &subscribe(2, &[plain("a/b", Q0)]));
        }
        lab.take(client);
        lab.say(client, &fresh("a/b", b"own", Q0, 0));
        let own = [fresh("a/b", b"own", Q0, 0)];
        lab.expect_open(client, &own[..usize::from(heard)]);
        let other = lab.client(Version::V5, "other");
        lab.say(other, &fresh("a/b", b"other", Q0, 0));
        lab.expect_open(client, &[fresh("a/b", b"other", Q0, 0)]);
    }
}

#[test]
fn no_local_holds_for_retained_messages_and_across_connections() {
    // [MQTT-3.8.3-3] It is the client id that counts, not the connection.
    let mut lab = Lab::new();
    let connect = lasting(Version::V5, "itself");
    let client = lab.joined(&connect);
    lab.say(client, &kept("t", b"own", Q0, 0));
    let client = reconnect(&mut lab, client, &connect);
    lab.take(client);
    let line = SubscribeFilter {
        no_local: true,
        ..plain("t", Q0)
    };
    lab.say(client, &subscribe(1, &[line]));
    lab.expect_open(client, &[suback(1, &[Reason::Success])]);
}

#[test]
fn unsubscribe_compares_filters_character_by_character() {
    // [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.1.1 3.10.4-1] [MQTT-3.1.1 3.10.4-2]
    for version in BOTH {
        for (named, existed, still_heard) in [
            ("a/+", true, false),
            ("a/b", false, true),
            ("a/#", false, true),
            ("a/", false, true),
            ("A/+", false, true),
            ("#", false, true),
        ] {
            let mut lab = Lab::new();
            let reader = lab.client(version, "reader");
            lab.subscribe(reader, "a/+", Q1);
            lab.say(reader, &unsubscribe(9, &[named]));
            let codes = [match existed {
                true => Reason::Success,
                false => Reason::NoSubscriptionExisted,
            }];
            lab.expect_open(reader, &[unsuback(version, 9, &codes)]);
            let publisher = lab.client(version, "publisher");
            lab.say(publisher, &fresh("a/b", b"x", Q1, 1));
            let expected = [fresh("a/b", b"x", Q1, 1)];
            lab.expect_open(reader, &expected[..usize::from(still_heard)]);
        }
    }
}

#[test]
fn unsubscribe_leaves_other_filters_of_the_same_topics() {
    // [MQTT-3.10.4-1] [MQTT-3.1.1 3.10.4-1]
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        lab.subscribe(reader, "a/+", Q2);
        lab.subscribe(reader, "a/b", Q0);
        lab.say(reader, &unsubscribe(2, &["a/+"]));
        lab.take(reader);
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &fresh("a/c", b"x", Q1, 1));
        lab.say(publisher, &fresh("a/b", b"x", Q1, 2));
        lab.expect_open(reader, &[fresh("a/b", b"x", Q0, 0)]);
    }
}

#[test]
fn unsubscribe_stops_what_has_not_been_added_and_completes_what_has() {
    // [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.1.1 3.10.4-2] [MQTT-3.1.1 3.10.4-3] The exchanges go
    // on, on this connection and on the next one.
    for version in BOTH {
        let mut lab = Lab::new();
        let connect = lasting(version, "reader");
        let reader = lab.joined(&connect);
        lab.subscribe(reader, "t", Q2);
        let publisher = lab.client(version, "publisher");
        lab.say(publisher, &fresh("t", b"1", Q1, 1));
        lab.say(publisher, &fresh("t", b"2", Q2, 2));
        lab.say(publisher, &fresh("t", b"3", Q2, 3));
        let sent = [
            fresh("t", b"1", Q1, 1),
            fresh("t", b"2", Q2, 2),
            fresh("t", b"3", Q2, 3),
        ];
        lab.expect_open(reader, &sent);
        lab.say(reader, &unsubscribe(1, &["t"]));
        lab.expect_open(reader, &[unsuback(version, 1, &[Reason::Success])]);
        lab.say(publisher, &fresh("t", b"late", Q2, 4));
        lab.say(reader, &pubrec(2));
        lab.expect_open(reader, &[pubrel(2)]);
        let reader = reconnect(&mut lab, reader, &connect);
        let expected = [
            welcome(version, true),
            pubrel(2),
            again("t", b"1", Q1, 1),
            again("t", b"3", Q2, 3),
        ];
        lab.expect_open(reader, &expected);
        lab.say(reader, &pubcomp(2));
        lab.say(reader, &puback(1));
        lab.say(reader, &pubrec(3));
        lab.say(reader, &pubcomp(3));
        lab.expect_open(reader, &[pubrel(3)]);
        let reader = reconnect(&mut lab, reader, &connect);
        lab.expect_open(reader, &[welcome(version, true)]);
    }
}

#[test]
fn unsubscribe_ends_a_replay_that_has_not_begun() {
    // [MQTT-3.10.4-2] Retained messages behind a used-up quota are not begun yet.
    let mut lab = Lab::new();
    let publisher = lab.client(Version::V5, "publisher");
    lab.say(publisher, &kept("a", b"1", Q1, 1));
    lab.say(publisher, &kept("b", b"2", Q1, 2));
    let connect = with_receive_max(hello(Version::V5, "reader"), 1);
    let reader = lab.joined(&connect);
    lab.say(reader, &subscribe(1, &[plain("#", Q1)]));
    let expected = [suback(1, &[Reason::GrantedQoS1]), kept("a", b"1", Q1, 1)];
    lab.expect_open(reader, &expected);
    lab.say(reader, &unsubscribe(2, &["#"]));
    lab.say(reader, &puback(1));
    lab.expect_open(reader, &[unsuback(Version::V5, 2, &[Reason::Success])]);
}

#[test]
fn every_unsubscribe_is_answered_under_its_own_identifier() {
    // [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.1.1 3.10.4-4] [MQTT-3.1.1 3.10.4-5]
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        lab.subscribe(reader, "t", Q0);
        for (packet_id, code) in [
            (65_535, Reason::Success),
            (1, Reason::NoSubscriptionExisted),
            (40_000, Reason::NoSubscriptionExisted),
        ] {
            lab.say(reader, &unsubscribe(packet_id, &["t"]));
            lab.expect_open(reader, &[unsuback(version, packet_id, &[code])]);
        }
    }
}

#[test]
fn an_unsubscribe_of_many_filters_is_a_sequence_with_one_answer() {
    // [MQTT-3.10.4-6] [MQTT-3.1.1 3.10.4-6]
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        for filter in ["a", "b", "c"] {
            lab.subscribe(reader, filter, Q0);
        }
        lab.say(reader, &unsubscribe(5, &["a", "x", "c", "a"]));
        let codes = [
            Reason::Success,
            Reason::NoSubscriptionExisted,
            Reason::Success,
            Reason::NoSubscriptionExisted,
        ];
        lab.expect_open(reader, &[unsuback(version, 5, &codes)]);
        let publisher = lab.client(version, "publisher");
        for topic in ["a", "b", "c"] {
            lab.say(publisher, &fresh(topic, b"x", Q0, 0));
        }
        lab.expect_open(reader, &[fresh("b", b"x", Q0, 0)]);
    }
}

#[test]
fn a_subscribe_is_heard_on_every_shard_before_its_suback() {
    // [MQTT-3.8.4-1] read with [MQTT-3.3.2-3]: what is published anywhere after SUBACK arrives,
    // and after UNSUBACK nothing does ([MQTT-3.10.4-2]).
    for filter in ["t/+", "$share/g/t/+"] {
        let mut lab = Lab::with(casemate_engine::Settings::default(), 3);
        let names = ["a", "b", "c", "d", "e", "f"];
        let publishers: Vec<_> = names
            .iter()
            .map(|name| lab.client(Version::V5, name))
            .collect();
        let reader = lab.client(Version::V5, "reader");
        lab.subscribe(reader, filter, Q1);
        for (packet_id, publisher) in (1..).zip(&publishers) {
            lab.say(*publisher, &fresh("t/x", b"x", Q1, 1));
            lab.expect_open(*publisher, &[puback(1)]);
            lab.expect_open(reader, &[fresh("t/x", b"x", Q1, packet_id)]);
        }
        lab.say(reader, &unsubscribe(2, &[filter]));
        lab.expect_open(reader, &[unsuback(Version::V5, 2, &[Reason::Success])]);
        for publisher in publishers {
            lab.say(publisher, &fresh("t/x", b"x", Q1, 2));
            lab.expect_open(publisher, &[puback(2)]);
        }
        lab.expect_open(reader, &[]);
    }
}

#[test]
fn a_publish_beside_retain_goes_to_old_and_new_subscribers() {
    // [MQTT-3.8.4-8] and [MQTT-3.3.1-9]: the old one gets it live, the new one from the store.
    for version in BOTH {
        let mut lab = Lab::new();
        let old = lab.client(version, "old");
        lab.subscribe(old, "t", Q1);
        let publisher = lab.client(version, "publisher");
        let sent = Packet::Publish(Publish {
            retain: true,
            ..message("t", b"x", Q2, 1)
        });
        lab.say(publisher, &sent);
        lab.expect_open(old, &[fresh("t", b"x", Q1, 1)]);
        let new = lab.client(version, "new");
        lab.say(new, &subscribe(1, &[plain("t", QoS::ExactlyOnce)]));
        let expected = [suback(1, &[Reason::GrantedQoS2]), kept("t", b"x", Q2, 1)];
        lab.expect_open(new, &expected);
    }
}
