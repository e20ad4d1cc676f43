//! Two codecs by other hands agree with ours, or the difference has a name and a reason.
//!
//! Every vector of the table, generated packets and generated packets with changed bytes go to
//! both. Where they and we differ, one rule of `oracle/differences.rs` must explain it; a rule
//! that explains nothing any more is dead and fails too.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code, missing_docs)]

#[path = "oracle/differences.rs"]
mod differences;
mod generate;
mod oracle;

use std::collections::BTreeMap;

use casemate_codec::vectors::{all, PACKET_BYTES_MAX};
use casemate_codec::{decode, encode, frame, Frame, Malformed, Packet, Sender, Version};
use differences::{Case, Outcome, RULES};
use oracle::{Oracle, Verdict};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

/// How often each rule has explained a difference, and the differences that none explains.
#[derive(Default)]
struct Findings {
    explained: BTreeMap<&'static str, usize>,
    unexplained: BTreeMap<String, (usize, String)>,
    compared: usize,
}

impl Findings {
    /// Asks both oracles about the one packet at the start of `input`.
    fn compare(&mut self, version: Version, sender: Sender, input: &[u8]) {
        let Ok(Some(frame)) = frame(input, PACKET_BYTES_MAX) else {
            return;
        };
        let Some(packet) = input.get(..frame.packet_bytes()) else {
            return;
        };
        for oracle in Oracle::ALL {
            self.compare_with(oracle, version, sender, frame, packet);
        }
    }

    fn compare_with(
        &mut self,
        oracle: Oracle,
        version: Version,
        sender: Sender,
        frame: Frame,
        packet: &[u8],
    ) {
        let ours = decode(version, sender, frame, &packet[frame.header_bytes..]);
        // A CONNECT brings its own version, and is put before the codec of that version.
        let spoken = match &ours {
            Ok(Packet::Connect(connect)) => connect.version,
            _ => version,
        };
        let verdict = oracle.ask(spoken, frame, packet);
        if verdict == Verdict::Silent {
            return;
        }
        self.compared += 1;
        let Some(outcome) = difference(spoken, sender, &ours, &verdict) else {
            return;
        };
        let case = Case {
            oracle,
            version: spoken,
            sender,
            packet,
            ours: &ours,
            outcome,
        };
        match RULES.iter().find(|rule| (rule.explains)(&case)) {
            Some(rule) => *self.explained.entry(rule.name).or_default() += 1,
            None => {
                let kind = case.kind();
                let text = || format!("{case:?}\n  {verdict:?}");
                self.unexplained
                    .entry(kind)
                    .or_insert_with(|| (0, text()))
                    .0 += 1;
            }
        }
    }
}

/// What differs, if anything does.
fn difference(
    version: Version,
    sender: Sender,
    ours: &Result<Packet<'_>, Malformed>,
    verdict: &Verdict,
) -> Option<Outcome> {
    match (ours, verdict) {
        (_, Verdict::Panics) => Some(Outcome::TheyPanic),
        (Err(_), Verdict::Refuses(_)) => None,
        (Err(_), _) => Some(Outcome::WeRefuse),
        (Ok(_), Verdict::Refuses(words)) => Some(Outcome::TheyRefuse(words.clone())),
        (Ok(packet), Verdict::Accepts(again)) => {
            let frame = frame(again, u32::MAX).ok().flatten();
            let theirs = frame.map(|frame| {
                let body = again.get(frame.header_bytes..).unwrap_or_default();
                decode(version, sender, frame, body)
            });
            match theirs {
                Some(Ok(theirs)) if theirs == *packet => None,
                _ => Some(Outcome::OtherContent(again.clone())),
            }
        }
        (Ok(_), Verdict::Silent) => None,
    }
}

/// Draws `count` values from a strategy with a fixed seed, so that a failure stays one.
fn draw<S: Strategy>(count: usize, strategy: S) -> impl Iterator<Item = S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(move |_| strategy.new_tree(&mut runner).unwrap().current())
}

/// A packet and some changes to its bytes.
type Draft = (
    Version,
    Sender,
    Packet<'static>,
    Vec<(prop::sample::Index, u8, u8)>,
);

fn drafts() -> impl Strategy<Value = Draft> {
    let changes =
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4);
    (generate::version(), generate::sender(), changes).prop_flat_map(|(v, s, changes)| {
        generate::packet(v, s).prop_map(move |packet| (v, s, packet, changes.clone()))
    })
}

/// Changes bytes of the body and mends the length, so that the change reaches the decoder.
fn changed(bytes: &[u8], changes: &[(prop::sample::Index, u8, u8)]) -> Vec<u8> {
    let frame = frame(bytes, u32::MAX).unwrap().unwrap();
    let mut body = bytes[frame.header_bytes..].to_vec();
    for (index, byte, kind) in changes {
        let at = index.index(body.len().max(1));
        match kind {
            0 if at < body.len() => body[at] = *byte,
            1 => body.insert(at, *byte),
            2 if at < body.len() => drop(body.remove(at)),
            _ if at < body.len() => body[at] ^= 1 << (byte % 8),
            _ => {}
        }
    }
    let mut out = vec![frame.first];
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend(body);
    out
}

#[test]
fn other_codecs_agree_or_the_difference_is_explained() {
    let mut findings = Findings::default();
    // The oracles' own panics are counted, not printed.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|panic| {
        if panic
            .location()
            .is_some_and(|place| place.file().contains("crates/codec"))
        {
            println!("{panic}");
        }
    }));
    for vector in all() {
        findings.compare(vector.version, vector.sender, &vector.bytes);
    }
    for (version, sender, packet, changes) in draw(40_000, drafts()) {
        let mut bytes = Vec::new();
        encode(version, &packet, u32::MAX, &mut bytes).unwrap();
        findings.compare(version, sender, &bytes);
        findings.compare(version, sender, &changed(&bytes, &changes));
    }
    std::panic::set_hook(hook);
    // One example for each kind of difference.
    let unexplained: Vec<String> = findings
        .unexplained
        .iter()
        .map(|(kind, (count, example))| format!("{count} x {kind}\n  {example}"))
        .collect();
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    assert!(findings.compared > 100_000, "{}", findings.compared);
    let dead = RULES
        .iter()
        .filter(|rule| !findings.explained.contains_key(rule.name));
    let dead: Vec<_> = dead.map(|rule| rule.name).collect();
    assert!(dead.is_empty(), "these rules explain nothing: {dead:?}");
}
