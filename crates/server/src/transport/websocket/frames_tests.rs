//! Tables of frames, cut anywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

/// A masked frame: the first byte, how the length is written, the payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        length @ 0..=125 => bytes.push(0x80 | length as u8),
        length @ 126..=0xFFFF => {
            bytes.push(0x80 | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
        length => {
            bytes.push(0x80 | 127);
            bytes.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [0x11, 0xA2, 0x73, 0xF4];
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b));
    bytes
}

/// What comes of bytes that arrive in pieces of this size.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    payload: Vec<u8>,
    pong: Option<Box<[u8]>>,
    stop: Option<Stop>,
}

fn read(bytes: &[u8], step: usize) -> Outcome {
    let mut frames = Frames::default();
    let mut outcome = Outcome::default();
    for piece in bytes.chunks(step.max(1)) {
        let mut piece = piece.to_vec();
        let (length, end) = frames.read(&mut piece, 0, &mut outcome.pong);
        outcome.payload.extend_from_slice(&piece[..length]);
        if let Err(stop) = end {
            outcome.stop = Some(stop);
            break;
        }
    }
    outcome
}

#[test]
fn payloads_come_out_whole_however_the_stream_is_cut() {
    let long: Vec<u8> = (0..70_000_u32).map(|n| (n * 7) as u8).collect();
    let run = [
        frame(0x82, b"one"),
        frame(0x02, b"two"),
        frame(0x89, b"ping within a message"),
        frame(0x00, b""),
        frame(0x80, b"three"),
        frame(0x82, &long[..126]),
        frame(0x8A, b"a pong that nobody asked for"),
        frame(0x82, &long),
    ]
    .concat();
    let expected = [&b"onetwothree"[..], &long[..126], &long].concat();
    for step in [1, 2, 3, 5, 7, 13, 14, 15, 125, 1000, 65_536, run.len()] {
        let outcome = read(&run, step);
        assert!(outcome.payload == expected, "step {step}");
        assert_eq!(outcome.pong.as_deref(), Some(&b"ping within a message"[..]));
        assert_eq!(outcome.stop, None);
    }
}

#[test]
fn what_breaks_the_rules_is_refused_however_it_is_cut() {
    let table = [
        // [MQTT-6.0.0-1] [MQTT-3.1.1 6.0.0-1]
        (frame(0x81, b"text"), Breach::Text),
        (vec![0x82, 1, 0], Breach::Unmasked),
        (vec![0x89, 0], Breach::Unmasked),
        (frame(0xC2, b"deflated"), Breach::Reserved),
        (frame(0xA2, b""), Breach::Reserved),
        (frame(0x92, b""), Breach::Reserved),
        (frame(0x83, b""), Breach::Kind),
        (frame(0x8B, b""), Breach::Kind),
        (frame(0x80, b"no beginning"), Breach::Fragment),
        (
            [frame(0x02, b"a"), frame(0x82, b"b")].concat(),
            Breach::Fragment,
        ),
        (frame(0x09, b"half a ping"), Breach::Control),
        (frame(0x89, &[0; 126]), Breach::Control),
        (vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0], Breach::Length),
        (
            [&[0x82, 0xFF][..], &[0; 6], &[0xFF, 0xFF], &[0; 4]].concat(),
            Breach::Length,
        ),
        // RFC 6455 §5.2: the highest bit of a length is 0.
        (
            [&[0x82, 0xFF][..], &[0xFF; 8], &[0; 4]].concat(),
            Breach::TooLong,
        ),
        (
            [&[0x82, 0xFF, 0x7F][..], &[0xFF; 7], &[0; 4]].concat(),
            Breach::TooLong,
        ),
        (frame(0x88, &[3]), Breach::Close),
        (frame(0x88, &[3, 0xED]), Breach::Close),
        (frame(0x88, &[0, 0]), Breach::Close),
        (frame(0x88, &[3, 0xE8, 0xFF]), Breach::Close),
    ];
    for (bytes, breach) in table {
        let bytes = [frame(0x82, b"before"), bytes, frame(0x82, b"after")].concat();
        let mut outcomes = (1..20).map(|step| read(&bytes, step));
        let first = outcomes.next().unwrap();
        assert_eq!(first.stop, Some(Stop::Broken(breach)), "{bytes:x?}");
        assert!(!first.payload.ends_with(b"after"));
        outcomes.for_each(|outcome| assert_eq!(outcome, first, "{bytes:x?}"));
    }
}

#[test]
fn a_close_is_understood_with_and_without_a_code() {
    let table = [
        (frame(0x88, b""), None),
        (frame(0x88, &[3, 0xE8]), Some(CloseCode::Normal)),
        (frame(0x88, b"\x03\xE9going"), Some(CloseCode::Away)),
        (frame(0x88, &[0x0F, 0xA1]), Some(CloseCode::Library(4001))),
    ];
    for (bytes, code) in table {
        let bytes = [frame(0x82, b"last words"), bytes].concat();
        for step in 1..bytes.len() {
            let outcome = read(&bytes, step);
            assert_eq!(outcome.payload, b"last words");
            assert_eq!(outcome.stop, Some(Stop::Closed(code)));
        }
    }
}

/// Goal: a mask is turned right over pieces of every length and place.
#[test]
fn masks_come_off_at_every_cut() {
    let payload: Vec<u8> = (0..40).collect();
    let bytes = frame(0x82, &payload);
    for first in 0..bytes.len() {
        for second in first..bytes.len() {
            let mut frames = Frames::default();
            let mut payload_out = Vec::new();
            for piece in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                let mut piece = piece.to_vec();
                let (length, end) = frames.read(&mut piece, 0, &mut None);
                assert_eq!(end, Ok(()));
                payload_out.extend_from_slice(&piece[..length]);
            }
            assert_eq!(payload_out, payload, "{first} {second}");
        }
    }
}

#[test]
fn frames_without_content_are_bounded_and_time_makes_up_for_them() {
    for empty in [frame(0x89, b""), frame(0x8A, b"x")] {
        let run = |count: usize| read(&empty.repeat(count), 4096).stop;
        assert_eq!(run(SPARE_MAX as usize), None);
        assert_eq!(
            run(SPARE_MAX as usize + 1),
            Some(Stop::Broken(Breach::Flood))
        );
    }
    let mut flood = Flood::default();
    let mut run = |count: u64, now| (0..count).filter(|_| flood.empty(now).is_ok()).count() as u64;
    assert_eq!(run(SPARE_MAX + 1, 0), SPARE_MAX);
    assert_eq!(run(100, 1_000), SPARE_PER_S);
    assert_eq!(run(1_000, 3_600_000), SPARE_MAX);
}

#[test]
fn fragments_without_content_are_bounded_too() {
    let bytes = [frame(0x02, b""), frame(0x00, b"").repeat(1000)].concat();
    assert_eq!(
        read(&bytes, bytes.len()).stop,
        Some(Stop::Broken(Breach::Flood))
    );
}

#[test]
fn a_ping_beside_each_message_is_no_flood() {
    let pair = [frame(0x82, b"x"), frame(0x89, b"y")].concat();
    let outcome = read(&pair.repeat(10_000), 4096);
    assert_eq!((outcome.payload.len(), outcome.stop), (10_000, None));
}

#[test]
fn a_reader_between_frames_keeps_no_buffer() {
    let mut frames = Frames::default();
    let mut bytes = [frame(0x89, &[7; 125]), frame(0x82, &[7; 9000])].concat();
    assert_eq!(frames.read(&mut bytes, 0, &mut None).1, Ok(()));
    assert_eq!(frames.said.capacity(), 0);
    assert!(size_of::<Frames>() <= 96, "{}", size_of::<Frames>());
}

/// Goal: no bytes whatever confuse the reader. Method: runs of frames of which some are damaged;
/// what comes of them must not depend on how they are cut.
#[test]
fn damaged_frames_end_alike_however_they_are_cut() {
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let firsts = [0x82, 0x02, 0x00, 0x80, 0x89, 0x8A, 0x88, 0x81];
    for _ in 0..5_000 {
        let mut bytes = Vec::new();
        for _ in 0..chance.below(8) {
            let payload = vec![chance.below(256) as u8; chance.below(200)];
            bytes.extend(frame(firsts[chance.below(firsts.len())], &payload));
        }
        for _ in 0..chance.below(3) {
            if !bytes.is_empty() {
                let place = chance.below(bytes.len());
                bytes[place] ^= 1 << chance.below(8);
            }
        }
        let whole = read(&bytes, bytes.len());
        for step in [1, 1 + chance.below(20)] {
            assert_eq!(read(&bytes, step), whole, "{bytes:x?}");
        }
    }
}

/// Numbers that look like chance and are the same in each run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
