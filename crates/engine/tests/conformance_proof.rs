//! Conformance of enhanced authentication: AUTH before CONNACK, and proof given anew.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use casemate_codec::{
    Auth, Connack, ConnackProperties, Connect, ConnectProperties, Packet, QoS, Reason,
    UserProperties, Version,
};
use casemate_engine::{Credentials, Verdict};
use harness::judge::granted;
use harness::{bytes_of, goodbye, hello, message, refusal, welcome, Lab, Peer};

/// Judges the method `riddle`: one question, whose answer is `right`; other methods are unknown.
fn riddle(credentials: &Credentials) -> Verdict {
    let Some(proof) = &credentials.proof else {
        return granted("nobody", "all");
    };
    if &*proof.method != "riddle" {
        return Verdict::Refused(Reason::BadAuthenticationMethod);
    }
    match proof.data.reveal() {
        b"ask me" => Verdict::Continue((*b"which").into()),
        b"right" => match granted("nobody", "all") {
            Verdict::Granted(mut grant) => {
                grant.data = Some((*b"done").into());
                Verdict::Granted(grant)
            }
            other => other,
        },
        b"somebody else" => granted("other", "all"),
        _ => Verdict::Refused(Reason::NotAuthorized),
    }
}

fn lab() -> Lab {
    Lab::new().judged_by(riddle)
}

/// A CONNECT that proves itself by a method.
fn proving(method: &'static str) -> Connect<'static> {
    Connect {
        properties: ConnectProperties {
            authentication_method: Some(method),
            authentication_data: Some(b"ask me"),
            ..ConnectProperties::default()
        },
        ..hello(Version::V5, "a")
    }
}

fn auth<'a>(reason: Reason, method: Option<&'a str>, data: &'a [u8]) -> Packet<'a> {
    Packet::Auth(Auth {
        reason,
        method,
        data: Some(data),
        reason_string: None,
        user: UserProperties::default(),
    })
}

/// The question of the broker.
fn question() -> Packet<'static> {
    auth(Reason::ContinueAuthentication, Some("riddle"), b"which")
}

/// An answer of the client.
fn answer(data: &[u8]) -> Packet<'_> {
    auth(Reason::ContinueAuthentication, Some("riddle"), data)
}

/// A connected client that has proven itself.
fn proven(lab: &mut Lab) -> Peer {
    let client = lab.connect(&proving("riddle"));
    lab.say(client, &answer(b"right"));
    lab.take(client);
    assert!(!lab.is_closed(client));
    client
}

#[test]
fn client_is_asked_by_auth_and_welcomed_with_its_method() {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-5]
    let mut lab = lab();
    let client = lab.connect(&proving("riddle"));
    lab.expect_open(client, &[question()]);
    lab.say(client, &answer(b"right"));
    let Packet::Connack(plain) = welcome(Version::V5, false) else {
        panic!("a welcome is a CONNACK");
    };
    let expected = Packet::Connack(Connack {
        properties: ConnackProperties {
            authentication_method: Some("riddle"),
            authentication_data: Some(b"done"),
            ..plain.properties
        },
        ..plain
    });
    lab.expect_open(client, &[expected]);
}

#[test]
fn answer_that_was_sent_ahead_of_its_question_is_used() {
    // [MQTT-3.1.2-30] [MQTT-4.12.0-3]
    let mut lab = lab();
    let client = lab.open(Version::V5);
    let mut bytes = bytes_of(Version::V5, &Packet::Connect(proving("riddle")));
    bytes.extend(bytes_of(Version::V5, &answer(b"right")));
    bytes.extend(bytes_of(Version::V5, &Packet::Pingreq));
    lab.send(client, &bytes);
    let bytes = lab.take(client);
    let heard = harness::packets(Version::V5, &bytes);
    assert!(
        matches!(&*heard, [first, Packet::Connack(connack), Packet::Pingresp]
            if *first == question() && connack.reason == Reason::Success),
        "{heard:?}"
    );
}

#[test]
fn unknown_method_is_refused() {
    // [MQTT-4.12.0-1] [MQTT-3.1.4-2]
    let mut lab = lab();
    let client = lab.connect(&proving("magic"));
    lab.expect_end(client, &[refusal(Reason::BadAuthenticationMethod)]);
}

#[test]
fn wrong_answer_is_refused() {
    // [MQTT-4.12.0-4] [MQTT-3.2.2-7]
    let mut lab = lab();
    let client = lab.connect(&proving("riddle"));
    lab.expect_open(client, &[question()]);
    lab.say(client, &answer(b"wrong"));
    lab.expect_end(client, &[refusal(Reason::NotAuthorized)]);
}

#[test]
fn challenged_client_may_send_nothing_but_its_answer() {
    // [MQTT-3.1.2-30] [MQTT-3.1.4-6] [MQTT-4.12.0-3]
    let publish = Packet::Publish(message("t", b"x", QoS::AtMostOnce, 0));
    let others = [
        publish,
        Packet::Pingreq,
        Packet::Connect(proving("riddle")),
        auth(Reason::Reauthenticate, Some("riddle"), b"right"),
        auth(Reason::ContinueAuthentication, Some("magic"), b"right"),
        auth(Reason::ContinueAuthentication, Some("Riddle"), b"right"),
    ];
    for other in others {
        let mut lab = lab();
        let witness = lab.client(Version::V5, "witness");
        lab.subscribe(witness, "#", QoS::AtMostOnce);
        let client = lab.connect(&proving("riddle"));
        lab.expect_open(client, &[question()]);
        lab.say(client, &other);
        lab.expect_end(client, &[refusal(Reason::ProtocolError)]);
        lab.expect_open(witness, &[]);
    }
}

#[test]
fn client_without_a_method_is_not_asked_and_not_told_of_one() {
    // [MQTT-4.12.0-6]
    let mut lab = lab();
    let client = lab.connect(&hello(Version::V5, "a"));
    lab.expect_open(client, &[welcome(Version::V5, false)]);
    // Whoever judges may want to ask: there is nobody who could answer.
    let mut lab = Lab::new().judged_by(|_| Verdict::Continue((*b"which").into()));
    let client = lab.connect(&hello(Version::V5, "a"));
    lab.expect_end(client, &[refusal(Reason::NotAuthorized)]);
    let mut lab = Lab::new().judged_by(|_| match granted("nobody", "all") {
        Verdict::Granted(mut grant) => {
            grant.data = Some((*b"done").into());
            Verdict::Granted(grant)
        }
        other => other,
    });
    let client = lab.connect(&hello(Version::V5, "a"));
    lab.expect_open(client, &[welcome(Version::V5, false)]);
}

#[test]
fn client_without_a_method_may_not_send_auth() {
    // [MQTT-4.12.0-7]
    for reason in [Reason::Reauthenticate, Reason::ContinueAuthentication] {
        let mut lab = lab();
        let client = lab.client(Version::V5, "a");
        lab.say(client, &auth(reason, Some("riddle"), b"right"));
        lab.expect_end(client, &[goodbye(Reason::ProtocolError)]);
    }
}

#[test]
fn connected_client_proves_itself_anew_by_the_same_method() {
    // [MQTT-4.12.1-1] [MQTT-4.12.0-5]
    let mut lab = lab();
    let client = proven(&mut lab);
    let again = auth(Reason::Reauthenticate, Some("riddle"), b"ask me");
    lab.say(client, &again);
    lab.expect_open(client, &[question()]);
    // Its connection goes on meanwhile.
    lab.say(client, &Packet::Pingreq);
    lab.expect_open(client, &[Packet::Pingresp]);
    lab.say(client, &answer(b"right"));
    lab.expect_open(client, &[auth(Reason::Success, Some("riddle"), b"done")]);
}

#[test]
fn proof_anew_by_another_method_or_out_of_turn_is_refused() {
    // [MQTT-4.12.1-1] [MQTT-4.12.0-3]
    let wrong = [
        auth(Reason::Reauthenticate, Some("magic"), b"right"),
        auth(Reason::ContinueAuthentication, Some("riddle"), b"right"),
    ];
    for packet in wrong {
        let mut lab = lab();
        let client = proven(&mut lab);
        lab.say(client, &packet);
        lab.expect_end(client, &[goodbye(Reason::ProtocolError)]);
    }
}

#[test]
fn failed_proof_anew_ends_the_connection() {
    // [MQTT-4.12.1-2] [MQTT-4.13.2-1] [MQTT-3.14.4-2]
    for data in [&b"wrong"[..], b"somebody else"] {
        let mut lab = lab();
        let client = proven(&mut lab);
        lab.say(client, &auth(Reason::Reauthenticate, Some("riddle"), data));
        lab.expect_end(client, &[goodbye(Reason::NotAuthorized)]);
    }
}
