//! Reason strings: who is told in words, and who has asked for silence (MQTT 5.0 §3.1.2.11.7).

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::num::NonZeroU32;

use casemate_codec::{
    Connect, ConnectProperties, Names, Packet, Reason, Unsubscribe, UserProperties, Version,
};
use casemate_engine::Settings;

use harness::{hello, id, packets, plain, subscribe, words_of, Lab, Peer};
use word::*;

/// What the broker says to `peer` next: the code's packet, and the words in it.
#[track_caller]
fn said(lab: &mut Lab, peer: Peer) -> Option<String> {
    let bytes = lab.take(peer);
    let mut found = packets(Version::V5, &bytes);
    assert_eq!(found.len(), 1, "one answer: {found:?}");
    let words = words_of(&mut found[0]).expect("a packet that may have words");
    words.map(str::to_owned)
}

fn asking(problem_information: Option<bool>) -> Connect<'static> {
    Connect {
        username: Some("reader"),
        properties: ConnectProperties {
            request_problem_information: problem_information,
            ..ConnectProperties::default()
        },
        ..hello(Version::V5, "a")
    }
}

fn unsubscribe<'a>(filters: &'a [&'a str]) -> Packet<'a> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(1),
        user: UserProperties::default(),
        filters: Names::List(filters),
    })
}

/// Goal: words go to those who want them and to nobody else. Method: each packet that may carry a
/// reason string, asked for by a client of each mind; CONNACK and DISCONNECT are free of the rule.
#[test]
fn acknowledgements_have_words_only_for_clients_that_want_them() {
    // [MQTT-3.1.2-29]
    for (asked, wanted) in [(None, true), (Some(true), true), (Some(false), false)] {
        let mut lab = Lab::new();
        let client = lab.joined(&asking(asked));
        let questions = [
            fresh("t", b"x", Q1, 1),
            fresh("t", b"x", Q2, 2),
            pubrel(3),
            pubrec(4),
            unsubscribe(&["nothing"]),
        ];
        for question in questions {
            lab.say(client, &question);
            assert_eq!(said(&mut lab, client).is_some(), wanted, "{question:?}");
        }
        // A writer may not subscribe.
        let writer = lab.joined(&Connect {
            username: Some("writer"),
            client_id: "b",
            ..asking(asked)
        });
        lab.say(writer, &subscribe(1, &[plain("t", Q0)]));
        assert_eq!(said(&mut lab, writer).is_some(), wanted);
        // A packet that breaks a rule is always explained.
        lab.say(client, &Packet::Connect(asking(asked)));
        assert!(said(&mut lab, client).is_some());
    }
}

#[test]
fn what_succeeds_has_no_words() {
    let mut lab = Lab::new();
    let client = lab.client(Version::V5, "a");
    lab.say(client, &subscribe(1, &[plain("other", Q2)]));
    assert_eq!(said(&mut lab, client), None);
    for question in [fresh("t", b"x", Q1, 1), fresh("t", b"x", Q2, 2), pubrel(2)] {
        lab.say(client, &question);
        assert_eq!(said(&mut lab, client), None, "{question:?}");
    }
    lab.say(client, &unsubscribe(&["other"]));
    assert_eq!(said(&mut lab, client), None);
}

#[test]
fn a_refused_connect_and_a_malformed_packet_are_explained() {
    let mut lab = Lab::new();
    let stranger = lab.connect(&Connect {
        username: Some("stranger"),
        ..hello(Version::V5, "a")
    });
    assert!(said(&mut lab, stranger).unwrap().contains("not allowed"));
    let client = lab.client(Version::V5, "b");
    // PUBLISH of QoS 3.
    lab.send(client, &[0x36, 5, 0, 1, b't', 0, 1]);
    assert!(said(&mut lab, client).unwrap().contains("QoS 3"));
}

/// Goal: words never push an answer over what the client reads. Method: every maximum around the
/// size at which the words begin to fit.
#[test]
fn words_that_do_not_fit_are_left_away() {
    // [MQTT-3.4.2-2] [MQTT-3.14.2-3]
    let mut with_words = 0;
    for packet_bytes_max in 60..160 {
        let mut lab = Lab::with(Settings::default(), 1);
        let client = lab.joined(&Connect {
            username: Some("reader"),
            properties: ConnectProperties {
                packet_bytes_max: NonZeroU32::new(packet_bytes_max),
                ..ConnectProperties::default()
            },
            ..hello(Version::V5, "a")
        });
        lab.say(client, &fresh("t", b"x", Q1, 1));
        let bytes = lab.take(client);
        assert!(bytes.len() <= packet_bytes_max as usize);
        let mut found = packets(Version::V5, &bytes);
        let [Packet::Puback(ack)] = found.as_slice() else {
            panic!("no PUBACK but {found:?}");
        };
        assert_eq!(ack.reason, Reason::NotAuthorized);
        with_words += usize::from(words_of(&mut found[0]).unwrap().is_some());
    }
    assert!((1..100).contains(&with_words), "{with_words}");
}

/// Goal: the words make way for the code. Method: a maximum that a PUBACK alone fits.
#[test]
fn a_maximum_too_small_for_words_still_gets_its_answer() {
    let mut lab = Lab::new();
    let client = lab.joined(&Connect {
        username: Some("reader"),
        properties: ConnectProperties {
            packet_bytes_max: NonZeroU32::new(25),
            ..ConnectProperties::default()
        },
        ..hello(Version::V5, "a")
    });
    lab.say(client, &fresh("t", b"x", Q1, 1));
    lab.expect_open(client, &[puback_of(1, Reason::NotAuthorized)]);
}

#[test]
fn older_clients_hear_no_words() {
    for version in [Version::V31, Version::V311] {
        let mut lab = Lab::new();
        let client = lab.client(version, "a");
        lab.say(client, &subscribe(1, &[plain("t", Q1)]));
        assert_eq!(lab.take(client), [0x90, 3, 0, 1, 1]);
        lab.say(client, &pubrel(9));
        assert_eq!(lab.take(client), [0x70, 2, 0, 9]);
    }
}
