//! Messages that are held up between shards: what may come late, and what must not come at all.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Packet, Publish, PublishProperties, Version};
use casemate_engine::Settings;

use harness::{lasting, message, packets, plain, subscribe, Lab, Peer};
use word::*;

/// A client whose session lives in this shard, and its client id.
fn named_client_in(lab: &mut Lab, shard: usize, name: &str) -> (Peer, String) {
    for number in 0..1_000 {
        let client_id = format!("{name}-{number}");
        let peer = lab.joined(&lasting(Version::V5, &client_id));
        if lab.shard_of(peer) == shard {
            return (peer, client_id);
        }
        lab.cut(peer);
    }
    panic!("no name of a thousand has its home in shard {shard}");
}

/// A client whose session lives in this shard.
fn client_in(lab: &mut Lab, shard: usize, name: &str) -> Peer {
    named_client_in(lab, shard, name).0
}

/// What a client has been sent: payload and retain flag of messages, nothing for other packets.
fn heard(lab: &mut Lab, peer: Peer) -> Vec<Option<(Vec<u8>, bool)>> {
    let bytes = lab.take(peer);
    packets(Version::V5, &bytes)
        .into_iter()
        .map(|packet| match packet {
            Packet::Publish(publish) => Some((publish.payload.to_vec(), publish.retain)),
            _ => None,
        })
        .collect()
}

/// Goal: time in a pipe is time. Method: a pipe that is held for less and for more than a message
/// may live, for a subscription of its own and for a shared one.
#[test]
fn a_message_that_expires_between_shards_is_not_delivered() {
    for filter in ["t", "$share/g/t"] {
        for (held_ms, arrives) in [(900, true), (1_100, false)] {
            let mut lab = Lab::with(Settings::default(), 2);
            let reader = client_in(&mut lab, 1, "reader");
            let writer = client_in(&mut lab, 0, "writer");
            lab.say(reader, &subscribe(1, &[plain(filter, Q1)]));
            lab.take(reader);
            lab.held_pipes = vec![(0, 1), (1, 0)];
            let publish = Publish {
                properties: PublishProperties {
                    message_expiry_s: Some(1),
                    ..PublishProperties::default()
                },
                ..message("t", b"brief", Q0, 0)
            };
            lab.say(writer, &Packet::Publish(publish));
            lab.pass(held_ms);
            lab.release_pipe(0, 1);
            lab.release_pipe(1, 0);
            lab.pass(1);
            let found = heard(&mut lab, reader);
            assert_eq!(
                found.len(),
                usize::from(arrives),
                "{filter} after {held_ms} ms"
            );
        }
    }
}

/// Goal: an older retained message never follows a newer live one. Method: the writer's shard
/// reaches the reader's at once and the store's not at all; the newer message comes before the
/// SUBACK, or by a subscription that was there before; topics of every home.
#[test]
fn a_store_that_has_not_heard_of_a_newer_message_does_not_answer() {
    let (writers, readers, stores) = (0, 1, 2);
    let mut waited = 0;
    for (number, has_another) in (0..20).flat_map(|number| [(number, false), (number, true)]) {
        let topic = format!("t/{number}");
        let mut lab = Lab::with(Settings::default(), 3);
        let writer = client_in(&mut lab, writers, "writer");
        let reader = client_in(&mut lab, readers, "reader");
        if has_another {
            lab.say(reader, &subscribe(1, &[plain("t/#", Q0)]));
            lab.take(reader);
        }
        lab.say(writer, &kept(&topic, b"old", Q0, 0));
        lab.held_pipes = vec![(writers, stores), (stores, readers)];
        lab.say(reader, &subscribe(2, &[plain(&topic, Q0)]));
        lab.say(writer, &kept(&topic, b"new", Q0, 0));
        lab.release_pipe(stores, readers);
        let mut found: Vec<_> = heard(&mut lab, reader).into_iter().flatten().collect();
        let is_held = !found.contains(&(b"new".to_vec(), true));
        waited += usize::from(is_held);
        lab.release_pipe(writers, stores);
        found.extend(heard(&mut lab, reader).into_iter().flatten());
        let live = found
            .iter()
            .position(|one| *one == (b"new".to_vec(), false));
        let live = live.expect("the live message arrives");
        let is_old = |one: &(Vec<u8>, bool)| one.0 == b"old";
        assert!(!found[live..].iter().any(is_old), "{topic}: {found:?}");
        assert!(
            found.contains(&(b"new".to_vec(), true)),
            "{topic}: {found:?}"
        );
    }
    assert!(waited > 0, "some topic has its home in the third shard");
}

/// Goal: after UNSUBACK nothing new comes. Method: a member leaves its group, is cut before it
/// hears so, and asks again; the pipe to the other shard stands still; groups of both homes.
#[test]
fn unsuback_waits_for_the_groups_home_when_it_is_asked_again_after_a_cut() {
    for number in 0..20 {
        let filter = format!("$share/g{number}/t");
        let mut lab = Lab::with(Settings::default(), 2);
        let (reader, client_id) = named_client_in(&mut lab, 1, "reader");
        lab.say(reader, &subscribe(1, &[plain(&filter, Q0)]));
        lab.take(reader);
        lab.held_pipes = vec![(1, 0)];
        lab.say(reader, &unsubscribe(2, &[&filter]));
        lab.cut(reader);
        let reader = lab.joined(&lasting(Version::V5, &client_id));
        lab.say(reader, &unsubscribe(3, &[&filter]));
        let bytes = lab.take(reader);
        let early = packets(Version::V5, &bytes).len();
        lab.release_pipe(1, 0);
        let bytes = lab.take(reader);
        let late = packets(Version::V5, &bytes).len();
        assert_eq!((early, late), (0, 1), "{filter}");
    }
}
