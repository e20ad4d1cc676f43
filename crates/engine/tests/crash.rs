//! The process dies, and another goes on with what was durable.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "conformance/harness.rs"]
mod harness;

use std::collections::BTreeSet;

use casemate_codec::{
    Ack, Connect, ConnectProperties, Packet, Publish, QoS, Reason, RetainHandling, SubscribeFilter,
    UserProperties, Version, Will, WillProperties,
};
use casemate_engine::Settings;
use harness::{
    hello, id, lasting, message, packets, plain, refusal, subscribe, welcome, Lab, Peer, BOTH,
};

/// Shards before and after the crash.
const SHARDS: [(u16, u16); 5] = [(1, 1), (1, 3), (3, 1), (3, 3), (2, 4)];

fn lab(shards: u16) -> Lab {
    Lab::with(Settings::default(), shards)
}

fn ack(packet_id: u16) -> Ack<'static> {
    Ack {
        packet_id: id(packet_id),
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    }
}

/// A client that keeps its side of every exchange of QoS 2, over as many connections as it takes.
struct Keeper {
    version: Version,
    name: &'static str,
    peer: Peer,
    /// Published and without PUBREC, with PUBREC and without PUBCOMP.
    sent: BTreeSet<u16>,
    released: BTreeSet<u16>,
    /// Received and not released by the broker.
    unreleased: BTreeSet<u16>,
    got: Vec<String>,
}

impl Keeper {
    fn new(lab: &mut Lab, version: Version, name: &'static str) -> Keeper {
        let peer = lab.joined(&lasting(version, name));
        Keeper {
            version,
            name,
            peer,
            sent: BTreeSet::new(),
            released: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            got: Vec::new(),
        }
    }

    fn publish(&mut self, lab: &mut Lab, number: u16) {
        self.sent.insert(number);
        self.send(lab, number, false);
    }

    fn send(&self, lab: &mut Lab, number: u16, dup: bool) {
        let payload = number.to_string();
        let publish = Publish {
            dup,
            ..message("t", payload.as_bytes(), QoS::ExactlyOnce, number)
        };
        lab.say(self.peer, &Packet::Publish(publish));
    }

    /// Comes again; the session must be there.
    fn come_again(&mut self, lab: &mut Lab) {
        let connect = lasting(self.version, self.name);
        self.peer = lab.connect(&connect);
        let bytes = lab.take(self.peer);
        let found = packets(self.version, &bytes);
        assert_eq!(
            found.first(),
            Some(&welcome(self.version, true)),
            "{}",
            self.name
        );
        let rest = found[1..]
            .iter()
            .map(|packet| harness::bytes_of(self.version, packet));
        let rest: Vec<u8> = rest.flatten().collect();
        self.hear(lab, &rest);
        for number in self.released.clone() {
            lab.say(self.peer, &Packet::Pubrel(ack(number)));
        }
        for number in self.sent.clone() {
            self.send(lab, number, true);
        }
    }

    /// Answers what has come; false where nothing has.
    fn act(&mut self, lab: &mut Lab) -> bool {
        let bytes = lab.take(self.peer);
        self.hear(lab, &bytes)
    }

    fn hear(&mut self, lab: &mut Lab, bytes: &[u8]) -> bool {
        for packet in packets(self.version, bytes) {
            match packet {
                Packet::Publish(publish) => {
                    let number = publish.packet_id.unwrap().get();
                    if self.unreleased.insert(number) {
                        let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                        self.got.push(text);
                    }
                    lab.say(self.peer, &Packet::Pubrec(ack(number)));
                }
                Packet::Pubrel(found) => {
                    let number = found.packet_id.get();
                    self.unreleased.remove(&number);
                    lab.say(self.peer, &Packet::Pubcomp(ack(number)));
                }
                Packet::Pubrec(found) => {
                    let number = found.packet_id.get();
                    self.sent.remove(&number);
                    self.released.insert(number);
                    lab.say(self.peer, &Packet::Pubrel(ack(number)));
                }
                Packet::Pubcomp(found) => {
                    self.released.remove(&found.packet_id.get());
                }
                Packet::Suback(_) => {}
                other => panic!("not expected: {other:?}"),
            }
        }
        !bytes.is_empty()
    }
}

/// Both act until nothing comes any more.
fn settle(lab: &mut Lab, keepers: &mut [&mut Keeper]) {
    for _ in 0..100 {
        let acted = keepers.iter_mut().map(|keeper| keeper.act(lab));
        if !acted.fold(false, |any, one| any | one) {
            return;
        }
    }
    panic!("they never come to rest");
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
