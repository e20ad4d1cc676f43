//! What is written can be read, however it is cut, and what is read can be written.
#![allow(clippy::panic, clippy::unwrap_used, dead_code, missing_docs)]

mod generate;

use casemate_codec::{
    decode, encode, forward, forwardable, forwardable_will, frame, plain_ack, plain_publish,
    Forwarded, Packet, Publish, PublishProperties, QoS, Reason, Sender, SubscriptionIds,
    UserProperties, Version, WillProperties,
};
use generate::{packet, publish, publish_properties, sender, version, will_properties};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

/// Any version, any sender, and a packet of theirs.
fn any_packet() -> impl Strategy<Value = (Version, Sender, Packet<'static>)> {
    (version(), sender())
        .prop_flat_map(|(v, s)| packet(v, s).prop_map(move |packet| (v, s, packet)))
}

fn encoded(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(version, packet, u32::MAX, &mut out).unwrap();
    out
}

fn decoded(version: Version, sender: Sender, bytes: &[u8]) -> Packet<'_> {
    let frame = frame(bytes, u32::MAX).unwrap().unwrap();
    assert_eq!(frame.packet_bytes(), bytes.len());
    decode(version, sender, frame, &bytes[frame.header_bytes..]).unwrap()
}

/// Reads packets as a connection does; whatever it accepts must survive another round.
fn read_all(version: Version, sender: Sender, mut input: &[u8]) -> usize {
    let mut count = 0;
    while let Ok(Some(frame)) = frame(input, 1 << 16) {
        let Some(body) = input.get(frame.header_bytes..frame.packet_bytes()) else {
            break;
        };
        let Ok(packet) = decode(version, sender, frame, body) else {
            break;
        };
        let written_in = match &packet {
            Packet::Connect(connect) => connect.version,
            _ => version,
        };
        let again = encoded(written_in, &packet);
        assert_eq!(decoded(version, sender, &again), packet);
        assert!(
            again.len() <= frame.packet_bytes(),
            "the encoder's form is never longer"
        );
        input = &input[frame.packet_bytes()..];
        count += 1;
    }
    count
}

/// A byte 1 that some packet begins with.
fn true_first() -> impl Strategy<Value = u8> {
    let others = [1, 2, 4, 5, 7, 9, 11, 12, 13, 14, 15].map(|kind: u8| kind << 4);
    let all = [&others[..], &[0x30, 0x32, 0x34, 0x62, 0x82, 0xA2]].concat();
    proptest::sample::select(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn a_packet_survives_encoding_and_decoding((version, sender, packet) in any_packet()) {
        let bytes = encoded(version, &packet);
        let again = decoded(version, sender, &bytes);
        prop_assert_eq!(&again, &packet);
        prop_assert_eq!(encoded(version, &again), bytes);
    }

    #[test]
    fn a_stream_gives_the_same_packets_however_it_is_split(
        (version, sender, packets) in (version(), sender()).prop_flat_map(|(v, s)| {
            vec(packet(v, s), 1..6).prop_map(move |packets| (v, s, packets))
        }),
        cuts in vec(1..40_usize, 1..20),
    ) {
        let stream: Vec<u8> = packets.iter().flat_map(|packet| encoded(version, packet)).collect();
        let mut seen = 0;
        let mut buffer = Vec::new();
        let mut rest = &stream[..];
        let mut cuts = cuts.iter().cycle();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at((*cuts.next().unwrap()).min(rest.len()));
            rest = after;
            buffer.extend_from_slice(piece);
            while let Some(frame) = frame(&buffer, u32::MAX).unwrap() {
                if buffer.len() < frame.packet_bytes() {
                    break;
                }
                let body = &buffer[frame.header_bytes..frame.packet_bytes()];
                let packet = decode(version, sender, frame, body).unwrap();
                prop_assert_eq!(&packet, &packets[seen]);
                seen += 1;
                buffer.drain(..frame.packet_bytes());
            }
        }
        prop_assert_eq!(seen, packets.len());
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn random_bytes_never_panic(
        version in version(),
        sender in sender(),
        bytes in vec(any::<u8>(), 0..200),
    ) {
        read_all(version, sender, &bytes);
    }

    #[test]
    fn a_random_body_behind_a_true_header_never_panics(
        version in version(),
        sender in sender(),
        first in prop_oneof![1 => any::<u8>(), 4 => true_first()],
        body in vec(prop_oneof![2 => 0..48_u8, 1 => any::<u8>()], 0..100),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        read_all(version, sender, &bytes);
    }

    #[test]
    fn a_changed_packet_never_panics_and_what_passes_survives_another_round(
        (version, sender, packet) in any_packet(),
        changes in vec((any::<Index>(), any::<u8>(), 0..3), 1..4),
    ) {
        let mut bytes = encoded(version, &packet);
        for (index, byte, kind) in changes {
            if bytes.is_empty() {
                break;
            }
            let at = index.index(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                _ => drop(bytes.remove(at)),
            }
        }
        read_all(version, sender, &bytes);
    }

    #[test]
    fn forward_writes_what_encode_writes(
        version in version(),
        publish in publish(Version::V5, Sender::Server),
        junk in vec(any::<u8>(), 0..8),
    ) {
        // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        // [MQTT-3.3.2-20] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.2-6] [MQTT-1.5.5-1]
        let p = &publish.properties;
        let mut travelling = Vec::new();
        forwardable(p, &mut travelling);
        let ids: Vec<u32> = p.subscription_ids.iter().collect();
        // Before 5.0 a topic cannot be left to an alias.
        let needs_topic = publish.topic.is_empty() && version != Version::V5;
        let topic = if needs_topic { "t" } else { publish.topic };
        let message = Forwarded {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic,
            alias: p.topic_alias,
            expiry_s: p.message_expiry_s,
            subscription_ids: &ids,
            properties: &travelling,
            payload_bytes: publish.payload.len(),
        };
        let packet_id = publish.packet_id.map_or(0, |id| id.get());
        let mut out = junk.clone();
        let place = forward(version, &message, packet_id, u32::MAX, &mut out).unwrap();
        out.extend_from_slice(publish.payload);
        prop_assert_eq!(&out[..junk.len()], &junk[..]);
        match place {
            Some(place) => prop_assert_eq!(&out[place..place + 2], &packet_id.to_be_bytes()[..]),
            None => prop_assert_eq!(publish.qos, QoS::AtMostOnce),
        }
        let expected = Publish {
            topic,
            properties: match version {
                Version::V5 => publish.properties.clone(),
                _ => PublishProperties::default(),
            },
            ..publish.clone()
        };
        let written = &out[junk.len()..];
        prop_assert_eq!(
            &decoded(version, Sender::Server, written),
            &Packet::Publish(expected.clone())
        );
        prop_assert_eq!(written.len(), encoded(version, &Packet::Publish(expected)).len());

        // The limit counts every byte, and a refusal leaves the buffer alone ([MQTT-3.1.2-24]).
        let total = written.len();
        let mut out = junk.clone();
        let refused = forward(version, &message, packet_id, total as u32 - 1, &mut out);
        prop_assert_eq!(refused.unwrap_err().packet_bytes, total);
        prop_assert_eq!(&out, &junk);
        prop_assert!(forward(version, &message, packet_id, total as u32, &mut out).is_ok());
    }

    #[test]
    fn a_will_travels_like_a_message(
        will in will_properties(),
        message in publish_properties(Sender::Client),
    ) {
        let mut of_will = Vec::new();
        forwardable_will(&will, &mut of_will);
        let same = PublishProperties {
            payload_format: will.payload_format,
            content_type: will.content_type,
            response_topic: will.response_topic,
            correlation_data: will.correlation_data,
            user: will.user,
            ..PublishProperties::default()
        };
        let mut of_message = Vec::new();
        forwardable(&same, &mut of_message);
        prop_assert_eq!(of_will, of_message);
        let mut travelling = Vec::new();
        forwardable(&message, &mut travelling);
        // [MQTT-3.3.2-18] [MQTT-3.1.3-10] The order is kept, through the raw form too.
        let raw: Vec<_> = UserProperties::Raw(&travelling).iter().collect();
        prop_assert_eq!(raw, message.user.iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_packet_that_passes_the_limit_is_thinned_or_refused(
        (version, sender, packet) in any_packet(),
        limit in 0..200_u32,
    ) {
        let mut out = vec![1, 2, 3];
        match encode(version, &packet, limit, &mut out) {
            Ok(()) => {
                prop_assert!(out.len() - 3 <= limit as usize);
                let thinned = decoded(version, sender, &out[3..]);
                prop_assert_eq!(
                    std::mem::discriminant(&thinned),
                    std::mem::discriminant(&packet)
                );
            }
            Err(refused) => {
                prop_assert_eq!(out, vec![1, 2, 3]);
                prop_assert!(refused.packet_bytes > limit as usize);
            }
        }
    }

    #[test]
    fn lists_over_bytes_that_nobody_checked_just_end(bytes in vec(any::<u8>(), 0..100)) {
        use casemate_codec::{Codes, Filters, Names};
        let bound = bytes.len();
        prop_assert!(UserProperties::Raw(&bytes).iter().count() <= bound);
        prop_assert!(SubscriptionIds::Raw(&bytes).iter().count() <= bound);
        let modern = Filters::Raw { version: Version::V5, bytes: &bytes };
        let old = Filters::Raw { version: Version::V311, bytes: &bytes };
        prop_assert!(modern.len() <= bound);
        prop_assert!(old.len() <= bound);
        prop_assert!(Names::Raw(&bytes).len() <= bound);
        prop_assert!(Codes::Raw(&bytes).len() <= bound);
    }
}

#[test]
fn travelling_properties_of_nothing_are_nothing() {
    let mut out = Vec::new();
    forwardable(&PublishProperties::default(), &mut out);
    forwardable_will(&WillProperties::default(), &mut out);
    assert!(out.is_empty());
}

proptest! {
    /// Goal: what the shorter way reads is what `decode` reads, and it reads nothing that `decode`
    /// refuses. Method: packets as they are written, and with one byte changed.
    #[test]
    fn a_plain_publish_is_read_as_decode_reads_it(
        (version, publish) in version()
            .prop_flat_map(|v| publish(v, Sender::Client).prop_map(move |publish| (v, publish))),
        bare in any::<bool>(),
        changed in proptest::option::of((any::<Index>(), any::<u8>())),
    ) {
        let mut publish = publish;
        if bare {
            publish.properties = PublishProperties::default();
            publish.topic = if publish.topic.is_empty() { "a/b" } else { publish.topic };
        }
        let topic = publish.topic;
        let mut bytes = encoded(version, &Packet::Publish(publish));
        if let Some((index, byte)) = changed {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        let Ok(Some(frame)) = frame(&bytes, u32::MAX) else { return Ok(()) };
        let Some(body) = bytes.get(frame.header_bytes..frame.packet_bytes()) else { return Ok(()) };
        let again = plain_publish(version, frame, body)
            .filter(|again| again.topic_bytes == topic.as_bytes());
        let decoded = decode(version, Sender::Client, frame, body);
        match (again, decoded) {
            (Some(again), Ok(Packet::Publish(whole))) => {
                prop_assert_eq!(whole.topic, topic);
                prop_assert_eq!(again.qos, whole.qos);
                prop_assert_eq!(again.retain, whole.retain);
                prop_assert_eq!(again.packet_id, whole.packet_id);
                prop_assert_eq!(again.payload, whole.payload);
                prop_assert_eq!(&whole.properties, &PublishProperties::default());
                if let Some(id) = again.packet_id {
                    let place = again.packet_id_at;
                    prop_assert_eq!(&body[place..place + 2], &id.get().to_be_bytes()[..]);
                }
            }
            (Some(again), other) => prop_assert!(false, "{:?} beside {:?}", again, other),
            (None, Ok(Packet::Publish(whole))) => prop_assert!(
                whole.topic != topic || whole.topic.is_empty()
                    || whole.properties != PublishProperties::default(),
                "a plain packet was left to decode"
            ),
            (None, _) => {}
        }
    }
}

/// Goal: an acknowledgement is read in its shortest form, and only there, as `decode` reads it.
/// Method: every byte 1, and bodies around two bytes.
#[test]
fn a_plain_acknowledgement_is_read_as_decode_reads_it() {
    let mut read = 0;
    for version in [Version::V31, Version::V311, Version::V5] {
        for first in 0..=u8::MAX {
            for body in [
                &[][..],
                &[7],
                &[0, 7],
                &[0xFF, 0xFF],
                &[0, 0],
                &[0, 7, 0],
                &[0, 7, 0, 0],
            ] {
                let Ok(frame) = frame(&[&[first, body.len() as u8], body].concat(), 64) else {
                    continue;
                };
                let frame = frame.unwrap();
                let decoded = decode(version, Sender::Client, frame, body);
                let Some(packet_id) = plain_ack(frame, body) else {
                    assert!(
                        body.len() != 2
                            || !matches!(first, 0x40 | 0x50 | 0x62 | 0x70)
                            || decoded.is_err(),
                        "a plain one was left to decode: {first:#x} {body:?}"
                    );
                    continue;
                };
                let ack = match decoded.unwrap() {
                    Packet::Puback(ack) | Packet::Pubrec(ack) => ack,
                    Packet::Pubrel(ack) | Packet::Pubcomp(ack) => ack,
                    other => panic!("{other:?}"),
                };
                assert_eq!((ack.packet_id, ack.reason), (packet_id, Reason::Success));
                assert_eq!((ack.reason_string, ack.user.iter().count()), (None, 0));
                read += 1;
            }
        }
    }
    assert_eq!(read, 3 * 4 * 2);
}
