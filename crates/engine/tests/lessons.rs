//! Faults of other brokers that a machine of messages and sessions could have, one test each.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{
    Connect, Names, Packet, Reason, Unsubscribe, UserProperties, Version, Will, WillProperties,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_engine::Settings;

use harness::{hello, id, lasting, packets, refusal, Lab, Peer, BOTH};
use word::*;

/// The payloads of the messages that a client has been sent.
fn payloads(lab: &mut Lab, peer: Peer, version: Version) -> Vec<Vec<u8>> {
    let bytes = lab.take(peer);
    let mut found = Vec::new();
    for packet in packets(version, &bytes) {
        if let Packet::Publish(publish) = packet {
            found.push(publish.payload.to_vec());
        }
    }
    found
}

/// One rule for the lab's role `all`: subscribing and publishing under this filter.
fn may(filter: &str) -> Policy {
    let rule = |operation| Rule {
        operation,
        filter: filter.into(),
        qos_max: Q2,
        retain: true,
        place: "lessons".into(),
    };
    let wide = |operation| Rule {
        filter: "#".into(),
        ..rule(operation)
    };
    let rules = vec![
        rule(Operation::Publish),
        rule(Operation::Subscribe),
        wide(Operation::Publish),
        wide(Operation::Subscribe),
    ];
    let name = "all".into();
    Policy::compile(2, vec![Role { name, rules }]).expect("the policy compiles")
}

/// Mosquitto asserted on topics that begin with a dollar sign. Here they are topics like others,
/// but that no leading wildcard reaches them and that nobody but the broker speaks under `$SYS`.
#[test]
fn cve_2018_12543_topics_that_begin_with_a_dollar_sign_are_topics_like_others() {
    for version in BOTH {
        for topic in ["$", "$foo", "$CONTROL/x", "$SYSTEM", "$SYS/x", "$SYS"] {
            let mut lab = Lab::new();
            lab.obey(may(topic));
            let wide = lab.client(version, "wide");
            lab.subscribe(wide, "#", Q0);
            lab.subscribe(wide, "+/x", Q0);
            let exact = lab.client(version, "exact");
            lab.subscribe(exact, topic, Q0);
            let writer = lab.client(version, "writer");
            lab.say(writer, &kept(topic, b"x", Q0, 0));
            lab.say(writer, &Packet::Pingreq);
            lab.expect_open(writer, &[Packet::Pingresp]);
            assert!(payloads(&mut lab, wide, version).is_empty(), "{topic}");
            let heard = payloads(&mut lab, exact, version).len();
            assert_eq!(heard, usize::from(topic != "$SYS/x"), "{topic}");
        }
        // No rule can name what looks like a shared subscription, so that nobody may publish there.
        for topic in ["$share", "$share/g", "$share/g/t"] {
            let mut lab = Lab::new();
            let wide = lab.client(version, "wide");
            lab.subscribe(wide, "#", Q0);
            let writer = lab.client(version, "writer");
            lab.say(writer, &kept(topic, b"x", Q0, 0));
            lab.say(wide, &Packet::Pingreq);
            lab.expect_open(wide, &[Packet::Pingresp]);
        }
    }
}

/// mochi#503, moquette#689: a will was never authorised. Here it is before the CONNACK, which says
/// so, on whichever shard the client lives.
#[test]
fn mochi_503_a_will_that_is_not_allowed_is_refused_with_its_reason() {
    for shards in [1, 3] {
        let mut lab = Lab::with(Settings::default(), shards);
        for number in 0..10 {
            let name = format!("reader-{number}");
            let client = lab.connect(&Connect {
                username: Some("reader"),
                will: Some(Will {
                    topic: "t",
                    payload: b"gone",
                    qos: Q0,
                    retain: false,
                    properties: WillProperties::default(),
                }),
                ..hello(Version::V5, &name)
            });
            lab.expect_end(client, &[refusal(Reason::NotAuthorized)]);
        }
    }
}

/// One step of a client that has both kinds of subscription to one topic.
#[derive(Clone, Copy, Debug)]
enum Step {
    Subscribe(&'static str),
    Unsubscribe(&'static str),
    Return,
}

/// Mosquitto freed twice where shared and ordinary subscriptions came and went in some order.
/// Method: every sequence of four steps; what is subscribed to in the end decides what arrives.
#[test]
fn cve_2024_8376_shared_and_plain_subscriptions_come_and_go_in_any_order() {
    let steps = [
        Step::Subscribe("t"),
        Step::Subscribe("$share/g/t"),
        Step::Unsubscribe("t"),
        Step::Unsubscribe("$share/g/t"),
        Step::Return,
    ];
    for sequence in 0..steps.len().pow(4) {
        let mut lab = Lab::new();
        let mut client = lab.joined(&lasting(Version::V5, "member"));
        let writer = lab.client(Version::V5, "writer");
        let (mut plain, mut shared) = (0, 0);
        let mut rest = sequence;
        for _ in 0..4 {
            let step = steps[rest % steps.len()];
            rest /= steps.len();
            match step {
                Step::Subscribe(filter) => lab.subscribe(client, filter, Q1),
                Step::Unsubscribe(filter) => {
                    let packet = Unsubscribe {
                        packet_id: id(9),
                        user: UserProperties::default(),
                        filters: Names::List(&[filter]),
                    };
                    lab.say(client, &Packet::Unsubscribe(packet));
                    lab.take(client);
                }
                Step::Return => {
                    let mut connect = lasting(Version::V5, "member");
                    connect.clean_start = false;
                    client = lab.joined(&connect);
                }
            }
            match step {
                Step::Subscribe("t") => plain = 1,
                Step::Subscribe(_) => shared = 1,
                Step::Unsubscribe("t") => plain = 0,
                Step::Unsubscribe(_) => shared = 0,
                Step::Return => {}
            }
        }
        lab.say(writer, &fresh("t", b"x", Q0, 0));
        let heard = payloads(&mut lab, client, Version::V5).len();
        assert_eq!(heard, plain + shared, "sequence {sequence}");
    }
}

/// Changes one number of the settings.
type Setter = fn(&mut Settings, u64);

/// Every number of the settings that an operator can choose, by name.
const NUMBERS: [(&str, Setter); 22] = [
    ("packet_bytes_max", |it, n| it.packet_bytes_max = n as u32),
    ("connect_bytes_max", |it, n| it.connect_bytes_max = n as u32),
    ("connect_deadline_ms", |it, n| it.connect_deadline_ms = n),
    ("keep_alive_s_max", |it, n| it.keep_alive_s_max = n as u16),
    ("session_expiry_s_max", |it, n| {
        it.session_expiry_s_max = n as u32
    }),
    ("session_expiry_s_legacy", |it, n| {
        it.session_expiry_s_legacy = n as u32
    }),
    ("connections_max", |it, n| it.connections_max = n as usize),
    ("sessions_max", |it, n| it.sessions_max = n as usize),
    ("sessions_per_principal_max", |it, n| {
        it.sessions_per_principal_max = n as usize
    }),
    ("subscriptions_per_session_max", |it, n| {
        it.subscriptions_per_session_max = n as usize
    }),
    ("receive_max", |it, n| it.receive_max = n as u16),
    ("inflight_max", |it, n| it.inflight_max = n as u16),
    ("topic_alias_max", |it, n| it.topic_alias_max = n as u16),
    ("topic_alias_out_max", |it, n| {
        it.topic_alias_out_max = n as u16
    }),
    ("topic_levels_max", |it, n| it.topic_levels_max = n as usize),
    ("queue_messages_max", |it, n| {
        it.queue_messages_max = n as usize
    }),
    ("queue_bytes_max", |it, n| it.queue_bytes_max = n as usize),
    ("retained_max", |it, n| it.retained_max = n as usize),
    ("retained_bytes_max", |it, n| {
        it.retained_bytes_max = n as usize
    }),
    ("window_bytes", |it, n| it.window_bytes = n as usize),
    ("pipe_bytes", |it, n| it.pipe_bytes = n as usize),
    ("receipts_max", |it, n| it.receipts_max = n),
];

/// What two clients do in an ordinary minute, whatever the broker answers.
fn ordinary_minute(lab: &mut Lab, version: Version) {
    let reader = lab.connect(&lasting(version, "reader"));
    let writer = lab.connect(&hello(version, "writer"));
    let filter = [
        harness::plain("t/#", Q2),
        harness::plain("$share/g/t/#", Q1),
    ];
    lab.say(reader, &harness::subscribe(1, &filter));
    for (packet_id, qos) in [(0, Q0), (1, Q1), (2, Q2)] {
        lab.say(writer, &kept("t/a/b", &[1; 300], qos, packet_id));
    }
    lab.say(writer, &pubrel(2));
    lab.pass(20_000);
    if !lab.is_closed(reader) {
        lab.cut(reader);
    }
    let again = lab.connect(&lasting(version, "reader"));
    lab.take(again);
    lab.pass(60_000);
}

/// FlashMQ divided by a number that an operator may set to zero. Method: each number of the
/// settings at zero, at one and at the most that a configuration may say.
#[test]
fn cve_2026_42209_no_number_of_the_settings_is_divided_by_or_counted_past() {
    for (name, set) in NUMBERS {
        for number in [0, 1, u64::from(u32::MAX)] {
            for (version, shards) in [(Version::V311, 1), (Version::V5, 2)] {
                let mut settings = Settings::default();
                set(&mut settings, number);
                let run = std::panic::AssertUnwindSafe(|| {
                    ordinary_minute(&mut Lab::with(settings, shards), version);
                });
                let outcome = std::panic::catch_unwind(run);
                assert!(outcome.is_ok(), "{name} = {number} with {shards} shards");
            }
        }
    }
}

/// SlowITe: the client chooses a keep alive that never ends. Here the broker has the last word.
#[test]
fn cve_2020_13849_a_client_cannot_choose_to_be_silent_for_ever() {
    for version in BOTH {
        for keep_alive_s in [0, u16::MAX] {
            let mut lab = Lab::new();
            let longest_ms = u64::from(Settings::default().keep_alive_s_max) * 1_500;
            let silent = lab.joined(&Connect {
                keep_alive_s,
                ..hello(version, "silent")
            });
            lab.pass(longest_ms - 1_000);
            assert!(!lab.is_closed(silent) || version == Version::V311);
            let asked_ms = u64::from(keep_alive_s) * 1_500;
            // An older client cannot be told that less is granted, so it may keep what it asked.
            let most_ms = match version {
                Version::V5 => longest_ms,
                _ => longest_ms.max(asked_ms),
            };
            lab.pass(most_ms - longest_ms + 4_000);
            assert!(lab.is_closed(silent), "{version:?} {keep_alive_s} s");
        }
    }
}

/// smqtt#28: whoever invents client ids fills the broker with sessions. Here a principal has a
/// number of sessions, and others have theirs.
#[test]
fn smqtt_28_sessions_of_one_principal_are_bounded() {
    let settings = Settings {
        sessions_per_principal_max: 5,
        ..Settings::default()
    };
    let mut lab = Lab::with(settings, 1);
    let names: Vec<String> = (0..20).map(|n| format!("c{n}")).collect();
    for (number, name) in names.iter().enumerate() {
        let client = lab.connect(&lasting(Version::V5, name));
        let refused = lab.is_closed(client);
        assert_eq!(refused, number >= 5, "session {number}");
        if refused {
            lab.expect_end(client, &[refusal(Reason::QuotaExceeded)]);
        } else {
            lab.cut(client);
        }
    }
    let other = lab.connect(&Connect {
        username: Some("all"),
        ..lasting(Version::V5, "other")
    });
    assert!(!lab.is_closed(other));
}

/// mosquitto#3702: what is taken over, resumed and expired in the middle of an exchange is freed
/// once. Method: a QoS 2 message at each stage, and each way in which its session may end.
#[test]
fn mosquitto_3702_an_exchange_survives_or_ends_with_its_session_at_every_stage() {
    for stage in 0..4 {
        for end in 0..3 {
            let mut lab = Lab::new();
            let mut connect = lasting(Version::V5, "reader");
            connect.properties.session_expiry_s = Some(10);
            let reader = lab.joined(&connect);
            lab.subscribe(reader, "t", Q2);
            let writer = lab.client(Version::V5, "writer");
            lab.store_holds = stage == 0;
            lab.say(writer, &fresh("t", b"x", Q2, 1));
            if stage >= 2 {
                lab.say(reader, &pubrec(1));
            }
            if stage >= 3 {
                lab.say(reader, &pubcomp(1));
            }
            match end {
                0 => lab.cut(reader),
                1 => lab.cut(writer),
                _ => {
                    connect.clean_start = true;
                    lab.connect(&connect);
                }
            }
            if end == 0 {
                lab.pass(11_000);
            }
            lab.release_store();
            connect.clean_start = false;
            let again = lab.connect(&connect);
            assert!(!lab.is_closed(again), "stage {stage}, end {end}");
            lab.pass(30_000);
        }
    }
}

/// Goal: whatever order letters take, the newest policy holds. Method: an older one comes late,
/// once with more rights and once with fewer.
#[test]
fn a_policy_that_was_overtaken_on_its_way_changes_nothing() {
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        let writer = lab.client(version, "writer");
        lab.subscribe(reader, "t", Q0);
        lab.obey(harness::policy(3));
        lab.obey(Policy::deny_all(2));
        lab.say(writer, &fresh("t", b"allowed", Q0, 0));
        assert_eq!(payloads(&mut lab, reader, version), [b"allowed"]);
        lab.obey(Policy::deny_all(5));
        lab.obey(harness::policy(4));
        lab.say(writer, &fresh("t", b"denied", Q0, 0));
        assert!(payloads(&mut lab, reader, version).is_empty());
    }
}
