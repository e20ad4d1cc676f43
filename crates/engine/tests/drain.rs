//! The end of a broker: no new promise, all old ones kept, then a good-bye.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Packet, Reason, Version};
use casemate_engine::Settings;

use harness::{hello, lasting, packets, refusal, Lab, Peer, BOTH};
use word::*;

/// The last words to a client of this version.
fn farewell(version: Version, reason: Reason) -> Vec<Packet<'static>> {
    match version {
        Version::V5 => vec![disconnect(reason)],
        _ => Vec::new(),
    }
}

/// The message that `peer` has got, by payload and packet id.
#[track_caller]
fn publishes(lab: &mut Lab, peer: Peer, version: Version) -> Vec<(Vec<u8>, u16)> {
    let bytes = lab.take(peer);
    let mut found = Vec::new();
    for packet in packets(version, &bytes) {
        if let Packet::Publish(publish) = packet {
            let id = publish.packet_id.map_or(0, |id| id.get());
            found.push((publish.payload.to_vec(), id));
        }
    }
    found
}

#[test]
fn a_publish_that_would_be_a_new_promise_is_passed_over() {
    for version in BOTH {
        for qos in [Q1, Q2] {
            let mut lab = Lab::new();
            let reader = lab.client(version, "reader");
            let writer = lab.client(version, "writer");
            lab.subscribe(reader, "t", Q2);
            lab.drain(None);
            lab.say(writer, &fresh("t", b"late", qos, 1));
            lab.expect_open(writer, &[]);
            lab.expect_open(reader, &[]);
            // What promises nothing still arrives, and the connection still serves.
            lab.say(writer, &fresh("t", b"light", Q0, 0));
            assert_eq!(
                publishes(&mut lab, reader, version),
                [(b"light".to_vec(), 0)]
            );
            lab.say(writer, &Packet::Pingreq);
            lab.expect_open(writer, &[Packet::Pingresp]);
        }
    }
}

#[test]
fn exchanges_that_had_begun_are_finished() {
    for version in BOTH {
        let mut lab = Lab::new();
        let writer = lab.client(version, "writer");
        lab.say(writer, &fresh("t", b"x", Q2, 7));
        lab.expect_open(writer, &[pubrec(7)]);
        lab.drain(None);
        // The second coming of a message that was taken is acknowledged again.
        lab.say(writer, &again("t", b"x", Q2, 7));
        lab.expect_open(writer, &[pubrec(7)]);
        lab.say(writer, &pubrel(7));
        lab.expect_open(writer, &[pubcomp(7)]);
    }
}

/// Goal: a shard is settled only when its last acknowledgement has left. Method: a store that
/// answers late.
#[test]
fn nothing_is_settled_while_an_acknowledgement_waits_for_the_store() {
    let mut lab = Lab::new();
    let reader = lab.joined(&lasting(Version::V5, "reader"));
    let writer = lab.joined(&lasting(Version::V5, "writer"));
    lab.subscribe(reader, "t", Q1);
    lab.store_holds = true;
    lab.say(writer, &fresh("t", b"kept", Q1, 1));
    lab.expect_open(writer, &[]);
    lab.drain(None);
    assert_eq!(lab.settled, 0);
    lab.pass(5);
    assert_eq!(lab.settled, 0);
    lab.release_store();
    lab.expect_open(writer, &[puback(1)]);
    assert_eq!(lab.settled, 1);
    lab.pass(5);
    assert_eq!(lab.settled, 1, "it is said once");
}

#[test]
fn subscriptions_that_wait_do_not_hold_the_end_up() {
    let mut lab = Lab::new();
    let client = lab.joined(&lasting(Version::V5, "a"));
    lab.store_holds = true;
    lab.say(client, &harness::subscribe(1, &[harness::plain("t", Q1)]));
    lab.expect_open(client, &[]);
    lab.drain(None);
    assert_eq!(lab.settled, 1);
}

#[test]
fn a_client_leaves_when_it_has_everything_and_not_before() {
    for version in BOTH {
        let mut lab = Lab::new();
        let reader = lab.client(version, "reader");
        let idle = lab.client(version, "idle");
        let writer = lab.client(version, "writer");
        lab.subscribe(reader, "t", Q1);
        lab.stall(reader, true);
        for packet_id in 1..=5 {
            lab.say(writer, &fresh("t", b"x", Q1, packet_id));
            lab.expect_open(writer, &[puback(packet_id)]);
        }
        lab.drain(None);
        lab.leave();
        lab.pass(2);
        let end = farewell(version, Reason::ServerShuttingDown);
        lab.expect_end(idle, &end);
        lab.expect_end(writer, &end);
        assert!(!lab.is_closed(reader));
        lab.stall(reader, false);
        lab.pass(2);
        let got = publishes(&mut lab, reader, version);
        assert_eq!(got.len(), 5);
        let (last, others) = got.split_last().expect("five");
        for (_, id) in others {
            lab.say(reader, &puback(*id));
        }
        lab.pass(2);
        lab.expect_open(reader, &[]);
        lab.say(reader, &puback(last.1));
        lab.pass(2);
        lab.expect_end(reader, &end);
    }
}

#[test]
fn clients_are_sent_to_the_other_server_where_one_is_named() {
    let mut lab = Lab::new();
    let client = lab.client(Version::V5, "a");
    lab.drain(Some("b.example:8883"));
    lab.leave();
    lab.pass(2);
    let bytes = lab.take(client);
    match packets(Version::V5, &bytes).as_slice() {
        [Packet::Disconnect(found)] => {
            assert_eq!(found.reason, Reason::UseAnotherServer);
            assert_eq!(found.server_reference, Some("b.example:8883"));
        }
        other => panic!("no DISCONNECT but {other:?}"),
    }
    assert!(lab.is_closed(client));
}

#[test]
fn nobody_new_is_let_in() {
    for version in BOTH {
        let mut lab = Lab::new();
        let silent = lab.open(version);
        lab.drain(None);
        // It had said nothing, so nothing is answered.
        lab.expect_end(silent, &[]);
        let late = lab.open(version);
        lab.expect_end(late, &[]);
    }
}

#[test]
fn a_client_whose_proof_is_judged_is_refused() {
    let mut lab = Lab::new().judged_by(|credentials| match credentials.proof {
        Some(_) => casemate_engine::Verdict::Continue(Box::default()),
        None => harness::judge::by_name(credentials),
    });
    let mut connect = hello(Version::V5, "a");
    connect.properties.authentication_method = Some("m");
    let client = lab.connect(&connect);
    lab.take(client);
    lab.drain(None);
    lab.expect_end(client, &[refusal(Reason::ServerUnavailable)]);
}

#[test]
fn what_is_left_at_the_deadline_is_told_the_same() {
    let mut lab = Lab::new();
    let reader = lab.client(Version::V5, "reader");
    let writer = lab.client(Version::V5, "writer");
    lab.subscribe(reader, "t", Q1);
    lab.say(writer, &fresh("t", b"x", Q1, 1));
    lab.expect_open(writer, &[puback(1)]);
    lab.drain(Some("b.example"));
    lab.leave();
    lab.pass(2);
    assert_eq!(publishes(&mut lab, reader, Version::V5).len(), 1);
    assert!(!lab.is_closed(reader), "it owes an acknowledgement");
    lab.stop(Reason::ServerShuttingDown);
    let bytes = lab.take(reader);
    match packets(Version::V5, &bytes).as_slice() {
        [Packet::Disconnect(found)] => assert_eq!(found.server_reference, Some("b.example")),
        other => panic!("no DISCONNECT but {other:?}"),
    }
}

/// Goal: what one shard acknowledges reaches the sessions of the other before they are closed.
/// Method: clients spread over four shards, a message from each to all, a drain in between.
#[test]
fn every_acknowledged_message_reaches_the_clients_of_every_shard() {
    let mut lab = Lab::with(Settings::default(), 4);
    let names: Vec<String> = (0..12).map(|number| format!("client-{number}")).collect();
    let clients: Vec<Peer> = names
        .iter()
        .map(|name| lab.client(Version::V5, name))
        .collect();
    for client in &clients {
        lab.subscribe(*client, "t", Q1);
        lab.stall(*client, true);
    }
    for client in &clients {
        lab.say(*client, &fresh("t", b"x", Q1, 1));
    }
    lab.drain(None);
    assert_eq!(lab.settled, 4);
    lab.leave();
    lab.pass(2);
    for client in &clients {
        lab.stall(*client, false);
        let got = publishes(&mut lab, *client, Version::V5);
        assert_eq!(got.len(), clients.len());
        for (_, id) in got {
            lab.say(*client, &puback(id));
        }
        lab.pass(2);
        lab.expect_end(*client, &farewell(Version::V5, Reason::ServerShuttingDown));
    }
}

/// Goal: a publisher that was cut off may come back for its acknowledgement when all is settled, so
/// that its message must have arrived by then. Method: a pipe that stands still, a cut, a drain,
/// and the message a second time; readers in both shards.
#[test]
fn nothing_is_settled_while_a_message_is_under_way_between_shards() {
    let mut held_up = 0;
    for number in 0..8 {
        let mut lab = Lab::with(Settings::default(), 2);
        let reader = lab.client(Version::V5, &format!("reader-{number}"));
        lab.subscribe(reader, "t", Q2);
        let connect = lasting(Version::V5, "writer");
        let writer = lab.joined(&connect);
        lab.held_pipes = vec![(0, 1), (1, 0)];
        lab.say(writer, &fresh("t", b"x", Q2, 1));
        lab.cut(writer);
        let writer = lab.joined(&connect);
        lab.drain(None);
        held_up += usize::from(lab.settled < 2);
        lab.say(writer, &again("t", b"x", Q2, 1));
        lab.release_pipe(0, 1);
        lab.release_pipe(1, 0);
        lab.pass(1);
        lab.expect_open(writer, &[pubrec(1)]);
        assert_eq!(lab.settled, 2);
        assert_eq!(publishes(&mut lab, reader, Version::V5).len(), 1);
    }
    assert!(
        (1..8).contains(&held_up),
        "readers in both shards: {held_up}"
    );
}

/// Goal: a shard that had sent its neighbours nothing drains like any other. Method: its first
/// message to one is sent while it drains, and passed on from there to a third.
#[test]
fn a_shard_whose_first_message_to_a_neighbour_comes_while_it_drains_settles() {
    for number in 0..12 {
        let mut lab = Lab::with(Settings::default(), 3);
        let reader = lab.client(Version::V5, &format!("reader-{number}"));
        lab.subscribe(reader, &format!("$share/g{number}/t"), Q0);
        let writer = lab.joined(&lasting(Version::V5, &format!("writer-{number}")));
        lab.store_holds = true;
        lab.say(writer, &fresh("nowhere", b"x", Q2, 1));
        lab.drain(None);
        lab.held_pipes = vec![(1, 2), (2, 1)];
        lab.say(writer, &fresh("t", b"light", Q0, 0));
        lab.pass(1);
        lab.release_pipe(1, 2);
        lab.release_pipe(2, 1);
        lab.release_store();
        lab.expect_open(writer, &[pubrec(1)]);
        assert_eq!(lab.settled, 3);
    }
}
