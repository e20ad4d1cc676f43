//! Topics that are published to in turn are looked for ahead: nobody may tell from what arrives.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use casemate_codec::{Connect, Packet, Publish, QoS, Version};
use casemate_engine::Settings;
use proptest::prelude::*;

use harness::{bytes_of, hello, lasting, message, packets, plain, subscribe, Lab, Peer, BOTH};
use word::*;

/// The last one alone has retained messages, and the publisher does not subscribe to it: what it
/// gets of them depends on when they were replayed.
const TOPICS: [&str; 5] = ["t/a", "t/b", "t/longer", "t/b/c", "u"];

/// One thing that the publisher says.
#[derive(Clone, Copy, Debug)]
enum Word {
    Publish {
        topic: usize,
        qos: QoS,
        retain: bool,
        payload: usize,
    },
    /// To a topic of its own.
    New,
    Subscribe(usize),
    Unsubscribe(usize),
    Ping,
    /// DUP at QoS 0.
    Fault,
}

fn word() -> impl Strategy<Value = Word> {
    let topic = 0..TOPICS.len();
    prop_oneof![
        30 => (topic, 0..4_usize, 0..2_u8, 0..3_usize).prop_map(|(topic, qos, retain, payload)| {
            Word::Publish {
                topic,
                qos: [Q0, Q0, Q1, Q2][qos],
                retain: retain == 0 && topic == TOPICS.len() - 1,
                payload,
            }
        }),
        1 => Just(Word::New),
        1 => (0..TOPICS.len() - 1).prop_map(Word::Subscribe),
        1 => (0..TOPICS.len() - 1).prop_map(Word::Unsubscribe),
        1 => Just(Word::Ping),
        1 => Just(Word::Fault),
    ]
}

/// The bytes of each word.
fn bytes_of_all(version: Version, words: &[Word]) -> Vec<Vec<u8>> {
    let each = words.iter().zip(1..).map(|(word, number)| match *word {
        Word::Publish {
            topic,
            qos,
            retain,
            payload,
        } => {
            let payload = [&b""[..], b"21.5", &[7; 9_000]][payload];
            let number = if qos == Q0 { 0 } else { number };
            bytes_of(
                version,
                &Packet::Publish(Publish {
                    retain,
                    ..message(TOPICS[topic], payload, qos, number)
                }),
            )
        }
        Word::New => bytes_of(version, &fresh(&format!("t/{number}"), b"new", Q0, 0)),
        Word::Subscribe(topic) => {
            bytes_of(version, &subscribe(number, &[plain(TOPICS[topic], Q1)]))
        }
        Word::Unsubscribe(topic) => bytes_of(version, &unsubscribe(number, &[TOPICS[topic]])),
        Word::Ping => vec![0xC0, 0],
        Word::Fault => {
            let mut bytes = bytes_of(version, &fresh(TOPICS[0], b"x", Q0, 0));
            bytes[0] |= 0b1000;
            bytes
        }
    });
    each.collect()
}

/// What everybody hears of these pieces, from a publisher that has published to each topic before.
fn arrived(
    settings: &Settings,
    version: Version,
    lasts: bool,
    pieces: &[&[u8]],
) -> (Vec<String>, Vec<Vec<String>>) {
    let mut lab = Lab::with(settings.clone(), 1);
    let mut readers: Vec<(Version, Peer)> = Vec::new();
    for (number, filter) in ["#", "t/+", "t/b", "u", "t/#"].into_iter().enumerate() {
        let version = BOTH[number % 2];
        let name = format!("reader-{number}");
        let reader = match number {
            3 => lab.joined(&lasting(version, &name)),
            _ => lab.client(version, &name),
        };
        lab.subscribe(reader, filter, EVERY_QOS[number % 3]);
        readers.push((version, reader));
    }
    let publisher = lab.joined(&Connect {
        clean_start: !lasts,
        ..hello(version, "publisher")
    });
    for topic in TOPICS {
        lab.say(publisher, &fresh(topic, b"before", Q0, 0));
    }
    for (_, peer) in &readers {
        lab.take(*peer);
    }
    for piece in pieces {
        if !lab.is_closed(publisher) {
            lab.send(publisher, piece);
        }
    }
    let mut said = |version, peer| -> Vec<String> {
        let bytes = lab.take(peer);
        let each = packets(version, &bytes).into_iter();
        each.map(|packet| format!("{packet:?}")).collect()
    };
    let heard = readers
        .iter()
        .map(|(version, peer)| said(*version, *peer))
        .collect();
    // What waits for the store is answered behind what came later; and behind a fault in the same
    // piece not at all.
    let mut answers = said(version, publisher);
    answers.sort();
    let is_closed = lab.is_closed(publisher);
    let mut counters = lab.shard(0).counters().clone();
    counters.bytes_received = 0;
    if is_closed {
        answers.clear();
        (counters.bytes_sent, counters.publishes_sent) = (0, 0);
    }
    answers.push(format!("closed: {is_closed}, {counters:?}"));
    (answers, heard)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 150,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// The same words in one piece, in pieces that end anywhere, and one by one.
    #[test]
    fn topics_in_turn_arrive_as_one_by_one(
        words in prop::collection::vec(word(), 1..40),
        is_modern in any::<bool>(),
        lasts in any::<bool>(),
        window_bytes in prop::sample::select(vec![64, 128 * 1024]),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let version = BOTH[usize::from(is_modern)];
        let each = bytes_of_all(version, &words);
        let each: Vec<&[u8]> = each.iter().map(Vec::as_slice).collect();
        let all = each.concat();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(all.len())).collect();
        cuts.extend([0, all.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &all[cut[0]..cut[1]]).collect();
        let settings = Settings { window_bytes, ..Settings::default() };
        let expected = arrived(&settings, version, lasts, &each);
        prop_assert_eq!(&arrived(&settings, version, lasts, &[&all]), &expected);
        prop_assert_eq!(&arrived(&settings, version, lasts, &pieces), &expected);
    }
}
