//! Conformance of sessions: kept, resumed, taken over, ended, and what becomes of their wills.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use casemate_codec::{
    Connect, ConnectProperties, Disconnect, Packet, Publish, QoS, Reason, UserProperties, Version,
    Will, WillProperties,
};
use casemate_engine::Settings;
use harness::{goodbye, hello, lasting, message, packets, welcome, Lab, Peer, BOTH};

/// What a session of a 3.1.1 client lasts by default, ms.
const LEGACY_MS: u64 = 86_400_000;

/// Publishes at QoS 1 and takes the PUBACK away.
fn publish(lab: &mut Lab, writer: Peer, payload: &[u8]) {
    let publish = message("t", payload, QoS::AtLeastOnce, 1);
    lab.say(writer, &Packet::Publish(publish));
    lab.take(writer);
}

/// The payloads of what a client has been sent, which is nothing but PUBLISH packets.
fn payloads(lab: &mut Lab, version: Version, client: Peer) -> Vec<String> {
    let bytes = lab.take(client);
    let payload = |packet: Packet<'_>| match packet {
        Packet::Publish(found) => String::from_utf8(found.payload.to_vec()).unwrap(),
        other => panic!("no PUBLISH but {other:?}"),
    };
    let found = packets(version, &bytes).into_iter().map(payload);
    found.collect()
}

/// A CONNECT with a will on `w`, delayed by this much.
fn mortal(version: Version, client_id: &str, delay_s: u32, expiry_s: u32) -> Connect<'_> {
    let delay = (version == Version::V5).then_some(delay_s);
    Connect {
        clean_start: false,
        properties: ConnectProperties {
            session_expiry_s: (version == Version::V5).then_some(expiry_s),
            ..ConnectProperties::default()
        },
        will: Some(Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "w",
            payload: b"gone",
            properties: WillProperties {
                delay_s: delay,
                ..WillProperties::default()
            },
        }),
        ..hello(version, client_id)
    }
}

/// A lab with somebody who hears wills.
fn watched(version: Version) -> (Lab, Peer) {
    let mut lab = Lab::new();
    let watcher = lab.joined(&Connect {
        keep_alive_s: 0,
        ..hello(version, "watcher")
    });
    lab.subscribe(watcher, "w", QoS::AtMostOnce);
    (lab, watcher)
}

/// The will as a subscriber gets it.
fn will() -> Packet<'static> {
    Packet::Publish(message("w", b"gone", QoS::AtMostOnce, 0))
}

#[test]
fn session_is_resumed_with_its_subscriptions_and_what_came_meanwhile() {
    // [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-3.1.1 3.1.2-4] [MQTT-3.1.1 3.1.2-5]
    // [MQTT-3.1.1 4.1.0-1]
    for shards in [1, 3] {
        for version in BOTH {
            let mut lab = Lab::with(Settings::default(), shards);
            let writer = lab.client(version, "writer");
            let first = lab.joined(&lasting(version, "a"));
            lab.subscribe(first, "t", QoS::ExactlyOnce);
            lab.cut(first);
            publish(&mut lab, writer, b"1");
            let two = message("t", b"2", QoS::ExactlyOnce, 2);
            lab.say(writer, &Packet::Publish(two));
            // It may come back by way of any shard.
            let second = lab.open_at(usize::from(shards) - 1, version);
            lab.say(second, &Packet::Connect(lasting(version, "a")));
            let bytes = lab.take(second);
            let mut heard = packets(version, &bytes);
            assert_eq!(heard.remove(0), welcome(version, true));
            let found: Vec<_> = heard
                .iter()
                .map(|packet| match packet {
                    Packet::Publish(found) => (found.qos, found.payload),
                    other => panic!("no PUBLISH but {other:?}"),
                })
                .collect();
            let expected: [(_, &[u8]); 2] = [(QoS::AtLeastOnce, b"1"), (QoS::ExactlyOnce, b"2")];
            assert_eq!(found, expected);
            publish(&mut lab, writer, b"3");
            assert_eq!(payloads(&mut lab, version, second), ["3"]);
        }
    }
}

#[test]
fn clean_start_discards_what_was_there() {
    // [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.1.1 3.1.2-6] [MQTT-3.1.1 3.1.4-3]
    for version in BOTH {
        let mut lab = Lab::new();
        let writer = lab.client(version, "writer");
        let first = lab.joined(&lasting(version, "a"));
        lab.subscribe(first, "t", QoS::AtLeastOnce);
        lab.cut(first);
        publish(&mut lab, writer, b"1");
        let second = lab.connect(&hello(version, "a"));
        lab.expect_open(second, &[welcome(version, false)]);
        publish(&mut lab, writer, b"2");
        lab.expect_open(second, &[]);
        lab.cut(second);
        // Nothing of the clean session is found again, nor of the one before it.
        let third = lab.connect(&lasting(version, "a"));
        lab.expect_open(third, &[welcome(version, false)]);
        publish(&mut lab, writer, b"3");
        lab.expect_open(third, &[]);
    }
}

#[test]
fn clean_start_discards_the_session_of_a_connected_client() {
    // [MQTT-3.1.2-4] [MQTT-3.1.1 3.1.2-6]
    for version in BOTH {
        let mut lab = Lab::new();
        let writer = lab.client(version, "writer");
        let first = lab.joined(&lasting(version, "a"));
        lab.subscribe(first, "t", QoS::AtLeastOnce);
        let second = lab.connect(&hello(version, "a"));
        lab.expect_open(second, &[welcome(version, false)]);
        assert!(lab.is_closed(first));
        publish(&mut lab, writer, b"1");
        lab.expect_open(second, &[]);
    }
}

#[test]
fn client_without_a_session_gets_a_new_one() {
    // [MQTT-3.1.2-6] [MQTT-3.1.1 3.1.2-4]
    for version in BOTH {
        let mut lab = Lab::new();
        let client = lab.connect(&lasting(version, "a"));
        lab.expect_open(client, &[welcome(version, false)]);
        lab.subscribe(client, "t", QoS::AtLeastOnce);
        let writer = lab.client(version, "writer");
        publish(&mut lab, writer, b"1");
        assert_eq!(payloads(&mut lab, version, client), ["1"]);
    }
}

#[test]
fn session_belongs_to_its_client_id() {
    // [MQTT-3.1.3-2] [MQTT-3.1.1 3.1.3-2]
    for version in BOTH {
        let mut lab = Lab::new();
        let first = lab.joined(&lasting(version, "a"));
        lab.cut(first);
        let other = lab.connect(&lasting(version, "A"));
        lab.expect_open(other, &[welcome(version, false)]);
        let again = lab.connect(&lasting(version, "a"));
        lab.expect_open(again, &[welcome(version, true)]);
        assert!(!lab.is_closed(other));
    }
}

#[test]
fn second_connection_of_a_client_id_takes_the_session_from_the_first() {
    // [MQTT-3.1.4-3] [MQTT-3.1.1 3.1.4-2] [MQTT-3.14.4-2]
    for shards in [1, 2] {
        for version in BOTH {
            let mut lab = Lab::with(Settings::default(), shards);
            let first = lab.joined(&lasting(version, "a"));
            lab.subscribe(first, "t", QoS::AtMostOnce);
            let second = lab.open_at(usize::from(shards) - 1, version);
            lab.say(second, &Packet::Connect(lasting(version, "a")));
            lab.expect_open(second, &[welcome(version, true)]);
            match version {
                Version::V5 => lab.expect_end(first, &[goodbye(Reason::SessionTakenOver)]),
                _ => lab.expect_end(first, &[]),
            }
            let writer = lab.client(version, "writer");
            publish(&mut lab, writer, b"1");
            assert_eq!(payloads(&mut lab, version, second), ["1"]);
        }
    }
}

#[test]
fn nobody_takes_the_session_of_another_principal() {
    // [MQTT-3.1.4-3] [MQTT-3.1.3-2]
    let mut lab = Lab::new();
    let named = |name| Connect {
        username: Some(name),
        ..lasting(Version::V5, "a")
    };
    let first = lab.joined(&named("all"));
    let other = lab.connect(&named("reader"));
    lab.expect_open(other, &[welcome(Version::V5, false)]);
    lab.expect_open(first, &[]);
}

#[test]
fn session_ends_when_its_expiry_has_passed_and_not_before() {
    // [MQTT-3.1.2-23] [MQTT-4.1.0-2] [MQTT-3.1.1 4.1.0-1]
    for version in BOTH {
        let lifetime_ms = match version {
            Version::V5 => 3_600_000,
            _ => LEGACY_MS,
        };
        for (wait_ms, is_kept) in [(lifetime_ms - 1, true), (lifetime_ms, false)] {
            let mut lab = Lab::new();
            let first = lab.joined(&lasting(version, "a"));
            lab.cut(first);
            lab.pass(wait_ms);
            assert_eq!(lab.shard(0).counters().sessions_now, u64::from(is_kept));
            let second = lab.connect(&lasting(version, "a"));
            lab.expect_open(second, &[welcome(version, is_kept)]);
        }
    }
}

#[test]
fn session_without_expiry_ends_with_its_connection() {
    // [MQTT-4.1.0-2] [MQTT-3.1.1 3.1.2-6]
    for version in BOTH {
        let mut lab = Lab::new();
        let first = lab.client(version, "a");
        assert_eq!(lab.shard(0).counters().sessions_now, 1);
        lab.cut(first);
        assert_eq!(lab.shard(0).counters().sessions_now, 0);
        let second = lab.connect(&lasting(version, "a"));
        lab.expect_open(second, &[welcome(version, false)]);
    }
}

#[test]
fn session_is_not_discarded_while_its_connection_is_open() {
    // [MQTT-4.1.0-1] [MQTT-3.1.1 4.1.0-2]
    for version in BOTH {
        let settings = Settings {
            keep_alive_s_max: 0,
            session_expiry_s_legacy: 10,
            ..Settings::default()
        };
        let mut lab = Lab::with(settings, 1);
        let asked = Connect {
            clean_start: false,
            keep_alive_s: 0,
            properties: ConnectProperties {
                session_expiry_s: (version == Version::V5).then_some(10),
                ..ConnectProperties::default()
            },
            ..hello(version, "a")
        };
        let first = lab.joined(&asked);
        lab.subscribe(first, "t", QoS::AtLeastOnce);
        lab.cut(first);
        lab.pass(9_999);
        // The timer of the interval is still armed when the client is back.
        let second = lab.connect(&asked);
        lab.expect_open(second, &[welcome(version, true)]);
        lab.pass(1_000_000);
        let writer = lab.client(version, "writer");
        publish(&mut lab, writer, b"1");
        assert_eq!(payloads(&mut lab, version, second), ["1"]);
        assert!(!lab.is_closed(second));
    }
}

#[test]
fn retained_message_outlives_the_session_that_published_it() {
    // [MQTT-3.1.1 3.1.2-7]
    let mut lab = Lab::new();
    let writer = lab.client(Version::V311, "writer");
    let kept = Publish {
        retain: true,
        ..message("t", b"x", QoS::AtMostOnce, 0)
    };
    lab.say(writer, &Packet::Publish(kept.clone()));
    lab.say(writer, &goodbye(Reason::Success));
    assert_eq!(lab.shard(0).counters().sessions_now, 0);
    let reader = lab.client(Version::V311, "reader");
    lab.say(
        reader,
        &harness::subscribe(1, &[harness::plain("t", QoS::AtMostOnce)]),
    );
    let bytes = lab.take(reader);
    let heard = packets(Version::V311, &bytes);
    assert_eq!(heard[1..], [Packet::Publish(kept)]);
}

#[test]
fn will_is_published_when_the_connection_is_lost() {
    // [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.1 3.1.2-8] [MQTT-3.1.1 3.1.2-10]
    for version in BOTH {
        for expiry_s in [0, 3_600] {
            let (mut lab, watcher) = watched(version);
            let client = lab.joined(&mortal(version, "a", 0, expiry_s));
            lab.expect_open(watcher, &[]);
            lab.cut(client);
            lab.expect_open(watcher, &[will()]);
            // It is published once, also when its session ends.
            for _ in 0..100 {
                lab.pass(60_000);
                lab.say(watcher, &Packet::Pingreq);
                lab.expect_open(watcher, &[Packet::Pingresp]);
            }
        }
    }
}

#[test]
fn will_is_published_whatever_ended_the_connection_but_a_goodbye() {
    // [MQTT-3.1.2-8] [MQTT-3.1.1 3.1.2-8]
    for version in BOTH {
        // A fault of the client, then its silence, then another connection of it.
        for case in 0..3 {
            let (mut lab, watcher) = watched(version);
            let client = lab.joined(&mortal(version, "a", 0, 0));
            match case {
                0 => lab.send(client, &[0xC1, 0]),
                1 => lab.pass(90_000),
                _ => drop(lab.connect(&hello(version, "a"))),
            }
            assert!(lab.is_closed(client));
            lab.expect_open(watcher, &[will()]);
        }
    }
}

#[test]
fn goodbye_discards_the_will() {
    // [MQTT-3.14.4-3] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.1 3.14.4-3]
    // [MQTT-3.1.1 3.1.2-10]
    for version in BOTH {
        for delay_s in [0, 5] {
            let (mut lab, watcher) = watched(version);
            let client = lab.joined(&mortal(version, "a", delay_s, 10));
            lab.say(client, &goodbye(Reason::Success));
            lab.expect_end(client, &[]);
            lab.pass(20_000);
            lab.expect_open(watcher, &[]);
        }
    }
}

#[test]
fn goodbye_that_asks_for_the_will_gets_it() {
    // [MQTT-3.1.2-8] [MQTT-3.14.4-3]
    let (mut lab, watcher) = watched(Version::V5);
    let client = lab.joined(&mortal(Version::V5, "a", 0, 10));
    lab.say(client, &goodbye(Reason::DisconnectWithWill));
    lab.expect_end(client, &[]);
    lab.expect_open(watcher, &[will()]);
}

#[test]
fn will_waits_for_its_delay_or_the_end_of_its_session() {
    // [MQTT-3.1.2-8]
    for (delay_s, expiry_s, wait_ms) in [(5, 60, 5_000), (60, 5, 5_000), (5, 0, 0)] {
        let (mut lab, watcher) = watched(Version::V5);
        let client = lab.joined(&mortal(Version::V5, "a", delay_s, expiry_s));
        lab.cut(client);
        if wait_ms > 0 {
            lab.pass(wait_ms - 1);
            lab.expect_open(watcher, &[]);
            lab.pass(1);
        }
        lab.expect_open(watcher, &[will()]);
        lab.pass(100_000);
        lab.expect_open(watcher, &[]);
    }
}

#[test]
fn will_is_not_sent_when_the_session_is_resumed_before_its_delay_has_passed() {
    // [MQTT-3.1.3-9] [MQTT-3.1.2-8]
    let (mut lab, watcher) = watched(Version::V5);
    let client = lab.joined(&mortal(Version::V5, "a", 5, 60));
    lab.cut(client);
    lab.pass(4_999);
    let again = lab.connect(&lasting(Version::V5, "a"));
    lab.expect_open(again, &[welcome(Version::V5, true)]);
    lab.pass(50_000);
    lab.expect_open(watcher, &[]);
    // It is not kept for the loss of a connection that brought none.
    lab.cut(again);
    lab.pass(50_000);
    lab.expect_open(watcher, &[]);
}

#[test]
fn delayed_will_is_not_sent_when_another_connection_takes_the_session() {
    // [MQTT-3.1.3-9]
    let (mut lab, watcher) = watched(Version::V5);
    let client = lab.joined(&mortal(Version::V5, "a", 5, 60));
    let again = lab.connect(&lasting(Version::V5, "a"));
    lab.expect_open(again, &[welcome(Version::V5, true)]);
    assert!(lab.is_closed(client));
    lab.pass(50_000);
    lab.expect_open(watcher, &[]);
}

#[test]
fn connection_without_a_will_publishes_none() {
    // [MQTT-3.1.1 3.1.2-12] [MQTT-3.1.2-8]
    for version in BOTH {
        let (mut lab, watcher) = watched(version);
        let first = lab.joined(&mortal(version, "a", 0, 60));
        lab.cut(first);
        lab.expect_open(watcher, &[will()]);
        // The session is the same; the will of its earlier connection is no part of this one.
        let second = lab.joined(&lasting(version, "a"));
        let third = lab.joined(&lasting(version, "a"));
        assert!(lab.is_closed(second));
        lab.cut(third);
        lab.pass(50_000);
        lab.expect_open(watcher, &[]);
    }
}

#[test]
fn will_is_retained_only_where_it_asks_for_it() {
    // [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.1 3.1.2-16] [MQTT-3.1.1 3.1.2-17]
    for version in BOTH {
        for retain in [false, true] {
            let (mut lab, watcher) = watched(version);
            let mut connect = mortal(version, "a", 0, 0);
            connect.will.as_mut().unwrap().retain = retain;
            let client = lab.joined(&connect);
            lab.cut(client);
            lab.expect_open(watcher, &[will()]);
            let late = lab.client(version, "late");
            let line = [harness::plain("w", QoS::AtMostOnce)];
            lab.say(late, &harness::subscribe(1, &line));
            let bytes = lab.take(late);
            let kept = Packet::Publish(Publish {
                retain: true,
                ..message("w", b"gone", QoS::AtMostOnce, 0)
            });
            let expected: &[Packet<'_>] = if retain { &[kept] } else { &[] };
            assert_eq!(packets(version, &bytes)[1..], *expected);
        }
    }
}

#[test]
fn goodbye_may_change_how_long_the_session_lasts() {
    // [MQTT-4.1.0-2] [MQTT-3.1.2-23]
    let mut lab = Lab::new();
    let client = lab.joined(&lasting(Version::V5, "a"));
    let leave = Packet::Disconnect(Disconnect {
        reason: Reason::Success,
        session_expiry_s: Some(7),
        reason_string: None,
        user: UserProperties::default(),
        server_reference: None,
    });
    lab.say(client, &leave);
    lab.expect_end(client, &[]);
    lab.pass(6_999);
    assert_eq!(lab.shard(0).counters().sessions_now, 1);
    lab.pass(1);
    assert_eq!(lab.shard(0).counters().sessions_now, 0);
    // A session that was to end with its connection cannot be kept after all.
    let client = lab.client(Version::V5, "b");
    lab.say(client, &leave);
    lab.expect_end(client, &[goodbye(Reason::ProtocolError)]);
    assert_eq!(lab.shard(0).counters().sessions_now, 0);
}
