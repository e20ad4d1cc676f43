//! The process dies, and another goes on with what was durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/keeper.rs"]
mod keeper;

use casemate_codec::{
    Ack, Connect, ConnectProperties, Packet, Publish, QoS, Reason, RetainHandling, SubscribeFilter,
    UserProperties, Version, Will, WillProperties,
};
use casemate_engine::Settings;
use harness::{
    hello, id, lasting, message, packets, plain, refusal, subscribe, welcome, Lab, BOTH,
};
use keeper::{ack, settle, Keeper};

/// Shards before and after the crash.
const SHARDS: [(u16, u16); 5] = [(1, 1), (1, 3), (3, 1), (3, 3), (2, 4)];

fn lab(shards: u16) -> Lab {
    Lab::with(Settings::default(), shards)
}

/// Publishes three messages, dies behind so many batches, and goes on to the end with other shards.
/// Says whether there was nothing left to be made durable.
fn crash_behind(
    batches: usize,
    version: Version,
    (before, after): (u16, u16),
    prefer: fn(usize) -> usize,
) -> bool {
    let mut lab = lab(before);
    let mut writer = Keeper::new(&mut lab, version, "writer");
    let mut reader = Keeper::new(&mut lab, version, "reader");
    lab.subscribe(reader.peer, "t", QoS::ExactlyOnce);
    lab.store_holds = true;
    for number in 1..=3 {
        writer.publish(&mut lab, number);
    }
    let mut released = 0;
    while released < batches {
        settle(&mut lab, &mut [&mut writer, &mut reader]);
        if !lab.release_one(prefer) {
            break;
        }
        released += 1;
    }
    lab.crash(after);
    writer.come_again(&mut lab);
    reader.come_again(&mut lab);
    settle(&mut lab, &mut [&mut writer, &mut reader]);
    let case = format!("{version:?}, {before} to {after} shards, behind {released}");
    reader.got.sort();
    assert_eq!(reader.got, ["1", "2", "3"], "{case}");
    let is_done = writer.sent.is_empty() && writer.released.is_empty();
    assert!(is_done && reader.unreleased.is_empty(), "{case}");
    released < batches
}

/// Goal: exactly once over a crash, wherever it falls. Method: a store that makes one batch after
/// the other durable, of one shard before those of the other; a crash behind each of them; both
/// clients come again and do as they should.
#[test]
fn a_message_of_qos_2_is_had_once_wherever_the_crash_falls() {
    let orders: [fn(usize) -> usize; 3] = [|_| 0, |shard| shard, |shard| 9 - shard];
    for version in BOTH {
        for shards in SHARDS {
            for prefer in orders {
                let over = (0..).find(|batches| crash_behind(*batches, version, shards, prefer));
                assert!(over > Some(3), "there was nothing to crash in");
            }
        }
    }
}

/// Goal: no identifier that a client has seen means another message after a crash. Method: what is
/// not durable does not leave at QoS 2, alone or behind another.
#[test]
fn a_message_of_qos_2_leaves_when_its_identifier_is_durable() {
    for version in BOTH {
        let mut lab = lab(1);
        let reader = lab.joined(&lasting(version, "reader"));
        lab.subscribe(reader, "t", QoS::ExactlyOnce);
        let writer = lab.client(version, "writer");
        lab.store_holds = true;
        for (number, qos) in [(1, QoS::ExactlyOnce), (2, QoS::AtLeastOnce)] {
            lab.say(writer, &Packet::Publish(message("t", b"x", qos, number)));
        }
        lab.expect(reader, &[]);
        lab.release_store();
        let first = message("t", b"x", QoS::ExactlyOnce, 1);
        let second = message("t", b"x", QoS::AtLeastOnce, 2);
        lab.expect(reader, &[Packet::Publish(first), Packet::Publish(second)]);
    }
}

#[test]
fn what_was_acknowledged_waits_for_who_was_away() {
    for version in BOTH {
        for (before, after) in SHARDS {
            let mut lab = lab(before);
            let reader = lab.joined(&lasting(version, "reader"));
            lab.subscribe(reader, "t/#", QoS::AtLeastOnce);
            lab.cut(reader);
            let writer = lab.client(version, "writer");
            for number in 1..=3 {
                let publish = message("t/1", b"kept", QoS::AtLeastOnce, number);
                lab.say(writer, &Packet::Publish(publish));
            }
            lab.expect(writer, &[1, 2, 3].map(|number| Packet::Puback(ack(number))));
            lab.crash(after);
            let reader = lab.connect(&lasting(version, "reader"));
            let mut expected = vec![welcome(version, true)];
            for number in 1..=3 {
                let publish = message("t/1", b"kept", QoS::AtLeastOnce, number);
                expected.push(Packet::Publish(publish));
            }
            lab.expect(reader, &expected);
        }
    }
}

#[test]
fn what_was_under_way_is_sent_again_with_its_identifier() {
    for version in BOTH {
        let mut lab = lab(1);
        let reader = lab.joined(&lasting(version, "reader"));
        lab.subscribe(reader, "t", QoS::AtLeastOnce);
        let writer = lab.client(version, "writer");
        for number in 1..=3 {
            let publish = message("t", b"x", QoS::AtLeastOnce, number);
            lab.say(writer, &Packet::Publish(publish));
        }
        lab.take(reader);
        lab.say(reader, &Packet::Puback(ack(2)));
        lab.crash(2);
        let reader = lab.connect(&lasting(version, "reader"));
        let again = |number| {
            Packet::Publish(Publish {
                dup: true,
                ..message("t", b"x", QoS::AtLeastOnce, number)
            })
        };
        lab.expect(reader, &[welcome(version, true), again(1), again(3)]);
    }
}

#[test]
fn subscriptions_work_as_before_with_all_their_options() {
    for (before, after) in SHARDS {
        let mut lab = lab(before);
        let reader = lab.joined(&lasting(Version::V5, "reader"));
        let line = SubscribeFilter {
            no_local: true,
            retain_as_published: true,
            retain_handling: RetainHandling::Never,
            ..plain("t/+", QoS::AtMostOnce)
        };
        lab.say(
            reader,
            &subscribe(1, &[line, plain("gone", QoS::AtMostOnce)]),
        );
        let gone = casemate_codec::Unsubscribe {
            packet_id: id(2),
            user: UserProperties::default(),
            filters: casemate_codec::Names::List(&["gone"]),
        };
        lab.say(reader, &Packet::Unsubscribe(gone));
        lab.crash(after);
        let reader = lab.joined(&lasting(Version::V5, "reader"));
        lab.take(reader);
        let writer = lab.client(Version::V5, "writer");
        for peer in [reader, writer] {
            let retained = Publish {
                retain: true,
                ..message("t/1", b"x", QoS::AtMostOnce, 0)
            };
            lab.say(peer, &Packet::Publish(retained));
            lab.say(
                peer,
                &Packet::Publish(message("gone", b"x", QoS::AtMostOnce, 0)),
            );
        }
        let heard = Publish {
            retain: true,
            ..message("t/1", b"x", QoS::AtMostOnce, 0)
        };
        lab.expect(reader, &[Packet::Publish(heard)]);
    }
}

#[test]
fn retained_messages_are_there_and_the_deleted_are_not() {
    for version in BOTH {
        for (before, after) in SHARDS {
            let mut lab = lab(before);
            let writer = lab.client(version, "writer");
            let mut retain = |topic, payload| {
                let publish = Publish {
                    retain: true,
                    ..message(topic, payload, QoS::AtLeastOnce, 1)
                };
                lab.say(writer, &Packet::Publish(publish));
            };
            retain("r/1", b"old");
            retain("r/1", b"new");
            retain("r/2", b"x");
            retain("r/2", b"");
            lab.crash(after);
            let reader = lab.client(version, "reader");
            lab.subscribe_and_keep(reader, "r/#");
            let bytes = lab.take(reader);
            let found = packets(version, &bytes);
            let payloads: Vec<&[u8]> = found
                .iter()
                .filter_map(|packet| match packet {
                    Packet::Publish(publish) => Some(publish.payload),
                    _ => None,
                })
                .collect();
            assert_eq!(payloads, [b"new"]);
        }
    }
}

#[test]
fn a_session_ends_when_it_would_have_ended() {
    let connect = Connect {
        properties: ConnectProperties {
            session_expiry_s: Some(10),
            ..ConnectProperties::default()
        },
        ..lasting(Version::V5, "reader")
    };
    let mut lab = lab(1);
    let reader = lab.joined(&connect);
    lab.cut(reader);
    lab.pass(6_000);
    lab.crash(1);
    lab.pass(3_999);
    lab.crash(1);
    assert_eq!(lab.shard(0).counters().sessions_now, 1);
    lab.pass(1);
    assert_eq!(lab.shard(0).counters().sessions_now, 0);
    lab.crash(1);
    assert_eq!(lab.shard(0).counters().sessions_now, 0);
}

#[test]
fn a_session_that_was_to_end_with_its_connection_is_gone() {
    for version in BOTH {
        let mut lab = lab(1);
        lab.client(version, "reader");
        lab.crash(1);
        let reader = lab.connect(&lasting(version, "reader"));
        lab.expect(reader, &[welcome(version, false)]);
    }
}

#[test]
fn clean_start_throws_away_for_good() {
    for version in BOTH {
        let mut lab = lab(1);
        let reader = lab.joined(&lasting(version, "reader"));
        lab.subscribe(reader, "t", QoS::AtLeastOnce);
        lab.cut(reader);
        let reader = lab.joined(&hello(version, "reader"));
        lab.cut(reader);
        lab.crash(1);
        let reader = lab.connect(&lasting(version, "reader"));
        lab.expect(reader, &[welcome(version, false)]);
    }
}

/// Goal: whoever was told that there is no session gets none after a crash. Method: a session that
/// lasts, taken over by one that does not, and that by a third; the store answers nothing.
#[test]
fn clean_start_is_confirmed_when_the_old_session_cannot_come_back() {
    for version in BOTH {
        let mut lab = lab(1);
        let old = lab.joined(&lasting(version, "reader"));
        lab.subscribe(old, "t", QoS::AtLeastOnce);
        lab.store_holds = true;
        let second = lab.connect(&hello(version, "reader"));
        lab.expect_open(second, &[]);
        let third = lab.connect(&hello(version, "reader"));
        lab.expect_open(third, &[]);
        lab.release_store();
        lab.expect_open(third, &[welcome(version, false)]);
        lab.crash(1);
        let reader = lab.connect(&lasting(version, "reader"));
        lab.expect(reader, &[welcome(version, false)]);
    }
}

/// A CONNECT with a will, delayed by this much, in a session of an hour.
fn mortal(delay_s: u32) -> Connect<'static> {
    Connect {
        properties: ConnectProperties {
            session_expiry_s: Some(3_600),
            ..ConnectProperties::default()
        },
        will: Some(Will {
            qos: QoS::AtMostOnce,
            retain: false,
            topic: "w",
            payload: b"gone",
            properties: WillProperties {
                delay_s: Some(delay_s),
                ..WillProperties::default()
            },
        }),
        ..lasting(Version::V5, "mortal")
    }
}

#[test]
fn a_will_is_published_after_its_delay_unless_its_client_comes_again() {
    for comes_again in [false, true] {
        for is_cut in [false, true] {
            let mut lab = lab(1);
            let client = lab.joined(&mortal(60));
            if is_cut {
                lab.cut(client);
                lab.pass(20_000);
            }
            lab.crash(3);
            let watcher = lab.client(Version::V5, "watcher");
            lab.subscribe(watcher, "w", QoS::AtMostOnce);
            lab.pass(if is_cut { 39_999 } else { 59_999 });
            lab.expect(watcher, &[]);
            if comes_again {
                lab.joined(&lasting(Version::V5, "mortal"));
            }
            lab.pass(1);
            let will = Packet::Publish(message("w", b"gone", QoS::AtMostOnce, 0));
            let expected = if comes_again { vec![] } else { vec![will] };
            lab.expect(watcher, &expected);
        }
    }
}

#[test]
fn a_share_group_goes_on_and_gets_what_a_member_leaves_behind() {
    for (before, after) in SHARDS {
        let mut lab = lab(before);
        let first = lab.joined(&lasting(Version::V5, "first"));
        lab.subscribe(first, "$share/g/t", QoS::AtLeastOnce);
        lab.cut(first);
        let writer = lab.client(Version::V5, "writer");
        lab.say(
            writer,
            &Packet::Publish(message("t", b"1", QoS::AtLeastOnce, 1)),
        );
        lab.expect(writer, &[Packet::Puback(ack(1))]);
        lab.crash(after);
        let second = lab.client(Version::V5, "second");
        lab.subscribe(second, "$share/g/t", QoS::AtLeastOnce);
        let writer = lab.client(Version::V5, "writer");
        lab.say(
            writer,
            &Packet::Publish(message("t", b"2", QoS::AtLeastOnce, 1)),
        );
        // The member that is there gets the new one, and what the other never had.
        lab.expect(
            second,
            &[Packet::Publish(message("t", b"2", QoS::AtLeastOnce, 1))],
        );
        lab.client(Version::V5, "first");
        lab.expect(
            second,
            &[Packet::Publish(message("t", b"1", QoS::AtLeastOnce, 2))],
        );
    }
}

/// Goal: a group whose last member has left is none, whether its home has written that down or not.
/// Method: the member leaves with a message of the group under way; a crash behind each batch, in
/// several orders of the shards; the journal is compared with what goes on.
#[test]
fn a_group_that_everybody_has_left_is_none() {
    let orders: [fn(usize) -> usize; 3] = [|_| 0, |shard| shard, |shard| 9 - shard];
    for prefer in orders {
        for shards in 1..=4 {
            for batches in 0..6 {
                let mut lab = lab(shards);
                let member = lab.joined(&lasting(Version::V5, "member"));
                lab.subscribe(member, "$share/g/t", QoS::AtLeastOnce);
                let writer = lab.client(Version::V5, "writer");
                let publish = message("t", b"x", QoS::AtLeastOnce, 1);
                lab.say(writer, &Packet::Publish(publish));
                lab.take(member);
                lab.store_holds = true;
                let gone = casemate_codec::Unsubscribe {
                    packet_id: id(2),
                    user: UserProperties::default(),
                    filters: casemate_codec::Names::List(&["$share/g/t"]),
                };
                lab.say(member, &Packet::Unsubscribe(gone));
                for _ in 0..batches {
                    lab.release_one(prefer);
                }
                lab.crash(3);
                lab.check_journal();
            }
        }
    }
}

/// Goal: a failed commit takes nothing away from later ones. Method: batches fail; what they held
/// is acknowledged to nobody; the next commit that works holds it too.
#[test]
fn what_failed_to_be_durable_becomes_so_with_the_next() {
    for version in BOTH {
        let mut lab = lab(1);
        let reader = lab.joined(&lasting(version, "reader"));
        lab.subscribe(reader, "t", QoS::AtLeastOnce);
        lab.cut(reader);
        let writer = lab.client(version, "writer");
        lab.store_holds = true;
        lab.say(
            writer,
            &Packet::Publish(message("t", b"1", QoS::AtLeastOnce, 1)),
        );
        lab.fail_store();
        assert!(lab.is_closed(writer));
        let writer = lab.client(version, "writer");
        lab.say(
            writer,
            &Packet::Publish(message("t", b"2", QoS::AtLeastOnce, 1)),
        );
        lab.expect(writer, &[Packet::Puback(ack(1))]);
        lab.crash(1);
        let reader = lab.connect(&lasting(version, "reader"));
        let each =
            |number, payload| Packet::Publish(message("t", payload, QoS::AtLeastOnce, number));
        lab.expect(
            reader,
            &[welcome(version, true), each(1, b"1"), each(2, b"2")],
        );
    }
}

/// Goal: while nothing can be kept nothing is promised, and whoever can be told is. Method: a store
/// that fails and then answers nothing; then it works again.
#[test]
fn while_the_store_fails_no_promise_is_made_and_then_all_goes_on() {
    let mut lab = lab(1);
    let lasting_old = lab.joined(&lasting(Version::V311, "old"));
    let lasting_new = lab.joined(&lasting(Version::V5, "new"));
    let brief = lab.client(Version::V5, "brief");
    let reader = lab.client(Version::V5, "reader");
    lab.subscribe(reader, "t", QoS::AtLeastOnce);
    lab.store_holds = true;
    let keeps = lab.client(Version::V5, "keeps");
    let retained = |number| {
        let qos = if number == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        Packet::Publish(Publish {
            retain: true,
            ..message("r", b"x", qos, number)
        })
    };
    lab.say(keeps, &retained(1));
    lab.fail_and_hold();
    assert!(lab.is_closed(keeps));
    let refused = |packet_id| Ack {
        reason: Reason::QuotaExceeded,
        ..ack(packet_id)
    };
    let publish = |qos, number| Packet::Publish(message("t", b"x", qos, number));
    lab.say(brief, &publish(QoS::AtLeastOnce, 1));
    lab.say(brief, &publish(QoS::ExactlyOnce, 2));
    lab.say(brief, &retained(0));
    lab.say(brief, &publish(QoS::AtMostOnce, 0));
    lab.expect_open(
        brief,
        &[Packet::Puback(refused(1)), Packet::Pubrec(refused(2))],
    );
    lab.say(lasting_old, &publish(QoS::AtLeastOnce, 1));
    lab.expect_end(lasting_old, &[]);
    lab.say(lasting_new, &subscribe(3, &[plain("t", QoS::AtMostOnce)]));
    let suback = |code| {
        Packet::Suback(casemate_codec::Suback {
            packet_id: id(3),
            reason_string: None,
            user: UserProperties::default(),
            codes: casemate_codec::Codes::List(code),
        })
    };
    lab.expect_open(lasting_new, &[suback(&[Reason::QuotaExceeded])]);
    // QoS 0 promises nothing and goes on.
    lab.expect_open(reader, &[publish(QoS::AtMostOnce, 0)]);
    let late = lab.connect(&lasting(Version::V5, "late"));
    lab.expect_end(late, &[refusal(Reason::ServerUnavailable)]);
    lab.release_store();
    lab.say(lasting_new, &subscribe(3, &[plain("t", QoS::AtMostOnce)]));
    lab.expect_open(lasting_new, &[suback(&[Reason::Success])]);
    lab.say(brief, &publish(QoS::AtLeastOnce, 1));
    lab.expect_open(brief, &[Packet::Puback(ack(1))]);
    lab.joined(&lasting(Version::V5, "late"));
}

/// Goal: after a checkpoint nothing older is needed. Method: one of everything that is kept, a
/// checkpoint, a look at what the records since its beginning amount to, and a crash.
#[test]
fn after_a_checkpoint_nothing_older_is_needed() {
    for (before, after) in SHARDS {
        let mut lab = lab(before);
        let away = lab.joined(&lasting(Version::V5, "away"));
        lab.subscribe(away, "t", QoS::ExactlyOnce);
        lab.subscribe(away, "$share/g/t", QoS::AtLeastOnce);
        lab.cut(away);
        let there = lab.joined(&mortal(60));
        lab.subscribe(there, "t", QoS::ExactlyOnce);
        let mut writer = Keeper::new(&mut lab, Version::V5, "writer");
        for number in 1..=3 {
            writer.publish(&mut lab, number);
        }
        let retained = Publish {
            retain: true,
            ..message("r", b"x", QoS::AtMostOnce, 0)
        };
        lab.say(writer.peer, &Packet::Publish(retained));
        lab.checkpoint();
        lab.say(there, &Packet::Pubrec(ack(2)));
        lab.checkpoint();
        settle(&mut lab, &mut [&mut writer]);
        lab.crash(after);
        lab.checkpoint();
        lab.crash(before);
        let mut away = Keeper::new(&mut lab, Version::V5, "brief");
        away.name = "away";
        away.come_again(&mut lab);
        settle(&mut lab, &mut [&mut away]);
        // Three by its own subscription, and three as the only member of its group.
        away.got.sort();
        assert_eq!(away.got, ["1", "1", "2", "2", "3", "3"]);
        let reader = lab.client(Version::V5, "reader");
        lab.subscribe_and_keep(reader, "r");
        let bytes = lab.take(reader);
        let found = packets(Version::V5, &bytes);
        let is_it = |packet: &Packet<'_>| matches!(packet, Packet::Publish(it) if it.topic == "r");
        assert_eq!(found.iter().filter(|packet| is_it(packet)).count(), 1);
    }
}

/// Goal: a broker that nobody speaks to leaves its disk at rest. Method: what it says of itself,
/// beside a retained message that must be kept.
#[test]
fn what_the_broker_says_of_itself_is_not_written_down() {
    for (before, after) in SHARDS {
        let mut lab = lab(before);
        for payload in [&b"1"[..], b"2", b""] {
            lab.announce("$SYS/broker/uptime", payload);
            lab.announce("$SYS/broker/version", b"7");
        }
        assert_eq!(lab.log, Vec::<Vec<u8>>::new());
        lab.announce("r", b"x");
        assert_eq!(lab.log.len(), 1);
        lab.checkpoint();
        lab.crash(after);
        let reader = lab.client(Version::V5, "reader");
        lab.subscribe_and_keep(reader, "$SYS/#");
        lab.subscribe_and_keep(reader, "#");
        let bytes = lab.take(reader);
        let topics: Vec<&str> = packets(Version::V5, &bytes)
            .iter()
            .filter_map(|packet| match packet {
                Packet::Publish(publish) => Some(publish.topic),
                _ => None,
            })
            .collect();
        assert_eq!(topics, ["r"]);
    }
}
