//! What the fuzzers run; `crates/codec/tests/corpus.rs` replays the corpora through the same code.
//!
//! The first byte of an input chooses version and sender, the rest is what they send.

use casemate_codec::{
    decode, encode, filter_fault, forward, forwardable, frame, share, topic_fault, Forwarded,
    Packet, Sender, TextFault, Version,
};

/// Larger packets find nothing more and slow the fuzzer down.
const PACKET_BYTES_MAX: u32 = 1 << 16;

fn choose(input: &[u8]) -> Option<(Version, Sender, &[u8])> {
    let (&choice, rest) = input.split_first()?;
    let version = match choice & 0b11 {
        0 => Version::V31,
        1 => Version::V311,
        _ => Version::V5,
    };
    let sender = if choice & 0b100 == 0 {
        Sender::Client
    } else {
        Sender::Server
    };
    Some((version, sender, rest))
}

/// Reads packets until one is refused or bytes are missing, and walks what they hold.
pub fn decode_stream(input: &[u8]) {
    let Some((version, sender, mut rest)) = choose(input) else {
        return;
    };
    loop {
        let header = match frame(rest, PACKET_BYTES_MAX) {
            Ok(Some(header)) => header,
            Ok(None) => return,
            Err(fault) => {
                // What byte 1 or the length says does not change with more bytes.
                assert!(fault.reason().is_refusal());
                assert_eq!(
                    frame(&[rest, &[0; 8]].concat(), PACKET_BYTES_MAX),
                    Err(fault)
                );
                return;
            }
        };
        assert!(header.packet_bytes() <= PACKET_BYTES_MAX as usize);
        let Some(body) = rest.get(header.header_bytes..header.packet_bytes()) else {
            return;
        };
        match decode(version, sender, header, body) {
            Ok(packet) => assert!(walk(&packet) <= body.len()),
            Err(fault) => {
                assert!(fault.reason().is_refusal());
                return;
            }
        }
        rest = &rest[header.packet_bytes()..];
    }
}

/// Counts the items of a packet's lists; there is less than one for each byte.
fn walk(packet: &Packet<'_>) -> usize {
    match packet {
        Packet::Connect(p) => p.properties.user.iter().count(),
        Packet::Connack(p) => p.properties.user.iter().count(),
        Packet::Publish(p) => {
            p.properties.user.iter().count() + p.properties.subscription_ids.iter().count()
        }
        Packet::Puback(p) | Packet::Pubrec(p) | Packet::Pubrel(p) | Packet::Pubcomp(p) => {
            p.user.iter().count()
        }
        Packet::Subscribe(p) => {
            for line in p.filters {
                assert_eq!(filter_fault(line.filter), None);
                assert!(!line.no_local || share(line.filter).is_none());
            }
            p.user.iter().count() + p.filters.len()
        }
        Packet::Suback(p) => p.user.iter().count() + p.codes.len(),
        Packet::Unsubscribe(p) => p.user.iter().count() + p.filters.len(),
        Packet::Unsuback(p) => p.user.iter().count() + p.codes.len(),
        Packet::Disconnect(p) => p.user.iter().count(),
        Packet::Auth(p) => p.user.iter().count(),
        Packet::Pingreq | Packet::Pingresp => 0,
    }
}

/// Writes what was accepted, reads it again, and compares; a PUBLISH is forwarded as well.
pub fn round_trip(input: &[u8]) {
    let Some((version, sender, rest)) = choose(input) else {
        return;
    };
    let Ok(Some(header)) = frame(rest, PACKET_BYTES_MAX) else {
        return;
    };
    let Some(body) = rest.get(header.header_bytes..header.packet_bytes()) else {
        return;
    };
    let Ok(packet) = decode(version, sender, header, body) else {
        return;
    };

    let mut first = Vec::new();
    assert_eq!(encode(version, &packet, u32::MAX, &mut first), Ok(()));
    assert!(
        first.len() <= header.packet_bytes(),
        "our form is the shortest"
    );
    let Ok(Some(again)) = frame(&first, u32::MAX) else {
        unreachable!("we wrote it")
    };
    assert_eq!(again.packet_bytes(), first.len());
    let reread = decode(version, sender, again, &first[again.header_bytes..]);
    assert_eq!(reread.as_ref(), Ok(&packet));
    let mut second = Vec::new();
    assert_eq!(
        reread.map(|packet| encode(version, &packet, u32::MAX, &mut second)),
        Ok(Ok(()))
    );
    assert_eq!(first, second);

    if let Packet::Publish(publish) = &packet {
        let mut travelling = Vec::new();
        forwardable(&publish.properties, &mut travelling);
        let ids: Vec<u32> = publish.properties.subscription_ids.iter().collect();
        let message = Forwarded {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic: publish.topic,
            alias: publish.properties.topic_alias,
            expiry_s: publish.properties.message_expiry_s,
            subscription_ids: &ids,
            properties: &travelling,
            payload_bytes: publish.payload.len(),
        };
        let packet_id = publish.packet_id.map_or(0, |id| id.get());
        let mut out = Vec::new();
        assert!(forward(version, &message, packet_id, u32::MAX, &mut out).is_ok());
        out.extend_from_slice(publish.payload);
        assert_eq!(out, first, "forward and encode write the same");
    }
}

/// Compares the checks of topic names and filters with the rule, said level by level.
pub fn text(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let is_plain = !text.contains(['\0', '+', '#']);
    let is_short = text.len() <= 65_535;
    assert_eq!(
        topic_fault(text).is_none(),
        !text.is_empty() && is_short && is_plain
    );

    let levels: Vec<&str> = text.split('/').collect();
    let (levels, share_is_valid) = match levels[..] {
        ["$share", ref rest @ ..] if !rest.is_empty() => {
            let name_is_valid = !rest[0].is_empty() && !rest[0].contains(['+', '#']);
            let has_filter = rest.len() > 2 || (rest.len() == 2 && !rest[1].is_empty());
            (
                rest.get(1..).unwrap_or_default().to_vec(),
                name_is_valid && has_filter,
            )
        }
        _ => (levels, true),
    };
    let last = levels.len().saturating_sub(1);
    let levels_are_valid = levels
        .iter()
        .enumerate()
        .all(|(index, level)| match *level {
            "#" => index == last,
            "+" => true,
            other => !other.contains(['+', '#']),
        });
    let is_valid =
        !text.is_empty() && is_short && !text.contains('\0') && share_is_valid && levels_are_valid;
    assert_eq!(filter_fault(text).is_none(), is_valid);
    if topic_fault(text) == Some(TextFault::Null) {
        assert!(filter_fault(text).is_some());
    }
    if is_valid {
        assert_eq!(share(text).is_some(), text.starts_with("$share/"));
    }
}
