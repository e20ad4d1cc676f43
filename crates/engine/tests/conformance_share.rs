//! Shared subscriptions: which member gets a message, and who keeps it (MQTT 5.0 §4.8.2).
//!
//! Each test drives the engine through its door with packets and compares every packet that comes
//! back; the publishers take part in their exchanges, so that nothing stays open on their side.

#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Packet, Reason, Version};

use harness::{lasting, welcome, Lab, Peer};
use word::*;

/// Two members of one group, both with sessions that last, and a publisher.
fn group(lab: &mut Lab) -> (Peer, Peer, Peer) {
    let one = lab.joined(&lasting(Version::V5, "one"));
    lab.subscribe(one, "$share/g/t", Q2);
    let two = lab.joined(&lasting(Version::V5, "two"));
    lab.subscribe(two, "$share/g/t", Q2);
    (one, two, lab.client(Version::V5, "publisher"))
}

#[test]
fn a_group_respects_the_qos_that_each_member_was_granted() {
    // [MQTT-4.8.2-3]
    for published in EVERY_QOS {
        let mut lab = Lab::new();
        let members: Vec<Peer> = ["zero", "one", "two"]
            .into_iter()
            .zip(EVERY_QOS)
            .map(|(name, qos)| {
                let member = lab.client(Version::V5, name);
                lab.subscribe(member, "$share/g/t", qos);
                member
            })
            .collect();
        let publisher = lab.client(Version::V5, "publisher");
        for _ in 0..3 {
            publish(
                &mut lab,
                publisher,
                &fresh("t", b"x", published, u16::from(published > Q0)),
            );
        }
        for (member, granted) in members.into_iter().zip(EVERY_QOS) {
            let qos = granted.min(published);
            lab.expect_open(member, &[fresh("t", b"x", qos, u16::from(qos > Q0))]);
        }
    }
}

#[test]
fn a_group_completes_what_it_began_when_the_member_returns() {
    // [MQTT-4.8.2-4] The message stays with that member, and nobody else gets it.
    for qos in [Q1, Q2] {
        let mut lab = Lab::new();
        let (one, two, publisher) = group(&mut lab);
        publish(&mut lab, publisher, &fresh("t", b"x", qos, 1));
        lab.expect_open(one, &[fresh("t", b"x", qos, 1)]);
        let one = reconnect(&mut lab, one, &lasting(Version::V5, "one"));
        let expected = [welcome(Version::V5, true), again("t", b"x", qos, 1)];
        lab.expect_open(one, &expected);
        lab.expect_open(two, &[]);
    }
}

#[test]
fn a_group_gives_no_begun_qos_2_message_to_another_member() {
    // [MQTT-4.8.2-5] The session ends before its client comes back; a message of QoS 1, which
    // may come twice, goes on to the next member.
    for (qos, goes_on) in [(Q1, true), (Q2, false)] {
        let mut lab = Lab::new();
        let (one, two, publisher) = group(&mut lab);
        publish(&mut lab, publisher, &fresh("t", b"x", qos, 1));
        lab.expect_open(one, &[fresh("t", b"x", qos, 1)]);
        lab.cut(one);
        for _ in 0..3_601 {
            lab.pass(1_000);
            lab.say(two, &Packet::Pingreq);
            lab.say(publisher, &Packet::Pingreq);
        }
        assert_eq!(lab.shard(0).counters().sessions_now, 2);
        let bytes = lab.take(two);
        let mut found = harness::packets(Version::V5, &bytes);
        found.retain(|packet| *packet != Packet::Pingresp);
        let expected = [fresh("t", b"x", Q1, 1)];
        assert_eq!(found, expected[..usize::from(goes_on)]);
    }
}

#[test]
fn a_group_gives_no_refused_message_to_another_member() {
    // [MQTT-4.8.2-6]
    let reason = Reason::UnspecifiedError;
    for (qos, refusal) in [(Q1, puback_of(1, reason)), (Q2, pubrec_of(1, reason))] {
        let mut lab = Lab::new();
        let (one, two, publisher) = group(&mut lab);
        publish(&mut lab, publisher, &fresh("t", b"x", qos, 1));
        lab.expect_open(one, &[fresh("t", b"x", qos, 1)]);
        lab.say(one, &refusal);
        lab.expect_open(one, &[]);
        lab.expect_open(two, &[]);
        let one = reconnect(&mut lab, one, &lasting(Version::V5, "one"));
        lab.expect_open(one, &[welcome(Version::V5, true)]);
        lab.expect_open(two, &[]);
    }
}
