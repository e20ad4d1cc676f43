//! Faults of other brokers' parsers that bytes alone decide, one test each, named after them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![allow(
    clippy::disallowed_methods,
    reason = "linear time is measured with the real clock"
)]

use std::time::{Duration, Instant};

use casemate_codec::vectors::bytes;
use casemate_codec::{
    decode, filter_fault, frame, topic_fault, Malformed, Packet, Reason, Sender, Version,
};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Decodes one packet from a client, under a limit of 1 MiB.
fn from_client(version: Version, input: &[u8]) -> Result<Packet<'_>, Malformed> {
    let frame = frame(input, 1 << 20)?.expect("a whole packet");
    decode(
        version,
        Sender::Client,
        frame,
        &input[frame.header_bytes..frame.packet_bytes()],
    )
}

/// Prefixes a body with its header.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend(body);
    out
}

/// A block of `count` user properties with its length.
fn user_properties(count: usize) -> Vec<u8> {
    let one = bytes(r#"26 "name" "value""#);
    packet(0, &one.repeat(count))[1..].to_vec()
}

/// The shortest of five runs, so that a busy machine does not decide.
fn shortest(mut run: impl FnMut()) -> Duration {
    let time = |run: &mut dyn FnMut()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    (0..5).map(|_| time(&mut run)).min().unwrap()
}

#[test]
fn cve_2017_7651_a_huge_remaining_length_is_refused_before_a_byte_of_it_arrives() {
    for first in [0x10, 0x30, 0x82] {
        // cve_2023_0809: the same in a first packet that is no CONNECT.
        let fault = frame(&[first, 0xFF, 0xFF, 0xFF, 0x7F], 1 << 20).unwrap_err();
        assert_eq!(fault.reason(), Reason::PacketTooLarge);
    }
    // Dribbled bytes of the length ask for more and cost nothing.
    for length in 0..5 {
        assert_eq!(
            frame(&[0x10, 0xFF, 0xFF, 0xFF][..length.min(4)], 1 << 20),
            Ok(None)
        );
    }
}

#[test]
fn cve_2019_11779_topics_and_filters_of_65535_slashes_are_decided_without_recursion() {
    let slashes = "/".repeat(65_535);
    assert_eq!(topic_fault(&slashes), None);
    assert_eq!(filter_fault(&slashes), None);
    assert_eq!(filter_fault(&format!("$share/a/{}", &slashes[9..])), None);
    let plus = "+/".repeat(32_767);
    assert_eq!(filter_fault(&plus), None);
}

#[test]
fn cve_2021_34432_an_empty_topic_is_a_protocol_error_in_every_version() {
    for version in VERSIONS {
        let fault = from_client(version, &bytes("30 [ 0000 00 ]")).unwrap_err();
        assert_eq!(fault.reason(), Reason::ProtocolError);
    }
}

#[test]
fn cve_2021_28166_packets_of_a_server_are_refused_from_a_client() {
    for version in VERSIONS {
        for body in [&[][..], &[0, 0], &[0, 0, 0], &[0, 1, 0, 0]] {
            for first in [0x20, 0x90, 0xB0, 0xD0] {
                let input = packet(first, body);
                let fault = from_client(version, &input).unwrap_err();
                assert_eq!(
                    fault,
                    Malformed::WrongSender {
                        packet_type: first >> 4
                    }
                );
            }
        }
    }
}

#[test]
fn cve_2018_12543_topics_that_begin_with_a_dollar_sign_decode_like_others() {
    for topic in [
        "$",
        "$x",
        "$SYS",
        "$SYS/x",
        "$CONTROL/x",
        "$share",
        "$share/",
        "$share/a",
    ] {
        let body = [&[0, topic.len() as u8], topic.as_bytes()].concat();
        let input = packet(0x30, &body);
        let Ok(Packet::Publish(publish)) = from_client(Version::V311, &input) else {
            panic!("{topic} is refused");
        };
        assert_eq!(publish.topic, topic);
    }
}

#[test]
fn cve_2021_41039_user_properties_take_linear_time() {
    let connect = |count: usize| {
        let head = bytes(r#""MQTT" 05 02 003c"#);
        packet(
            0x10,
            &[&head[..], &user_properties(count), &[0, 1, b'c']].concat(),
        )
    };
    let time = |count: usize| {
        let input = connect(count);
        shortest(|| {
            let Ok(Packet::Connect(found)) = from_client(Version::V5, &input) else {
                panic!("{count} user properties are refused");
            };
            assert_eq!(found.properties.user.iter().count(), count);
        })
    };
    let (few, many) = (time(1_000), time(32_000));
    // Linear is 32 times; quadratic would be 1,024 times.
    assert!(
        many < few * 200,
        "{few:?} for 1,000 and {many:?} for 32,000"
    );
}

#[test]
fn emqx_fix_17569_duplicates_are_found_without_comparing_each_with_each() {
    // 10,000 user properties around one session expiry; the second expiry is still found.
    let one = bytes(r#"26 "k" "v""#);
    let expiry = bytes("11 00000001");
    let block = [&one.repeat(5_000)[..], &expiry, &one.repeat(5_000), &expiry].concat();
    let head = bytes(r#""MQTT" 05 02 003c"#);
    let input = packet(
        0x10,
        &[&head[..], &packet(0, &block)[1..], &[0, 1, b'c']].concat(),
    );
    let fault = from_client(Version::V5, &input).unwrap_err();
    assert_eq!(fault, Malformed::DuplicateProperty { id: 0x11 });
}

#[test]
fn emqx_fix_18116_every_property_that_may_stand_once_is_refused_twice() {
    let will = r#"10 [ "MQTT" 05 06 003c [ ] "c" [ X ] "w" ( ) ]"#;
    let connect = r#"10 [ "MQTT" 05 02 003c [ X ] "c" ]"#;
    let publish = r#"30 [ "t" [ X ] ]"#;
    let four = "00000001";
    let cases: &[(&str, &[(u8, &str)])] = &[
        (
            connect,
            &[
                (0x11, four),
                (0x27, four),
                (0x21, "0001"),
                (0x22, "0001"),
                (0x17, "01"),
            ],
        ),
        (connect, &[(0x19, "01"), (0x15, "\"m\"")]),
        (
            will,
            &[(0x18, four), (0x01, "01"), (0x02, four), (0x03, "\"a\"")],
        ),
        (will, &[(0x08, "\"a\""), (0x09, "( )")]),
        (
            publish,
            &[(0x01, "01"), (0x02, four), (0x03, "\"a\""), (0x08, "\"a\"")],
        ),
        (publish, &[(0x09, "( )"), (0x23, "0001")]),
        ("e0 [ 00 [ X ] ]", &[(0x11, four), (0x1F, "\"a\"")]),
        ("40 [ 0001 00 [ X ] ]", &[(0x1F, "\"a\"")]),
    ];
    for (notation, properties) in cases {
        for (id, value) in *properties {
            let once = format!("{id:02x} {value}");
            let input = bytes(&notation.replace('X', &once));
            assert!(
                from_client(Version::V5, &input).is_ok(),
                "{notation} {once}"
            );
            let input = bytes(&notation.replace('X', &format!("{once} {once}")));
            let fault = from_client(Version::V5, &input).unwrap_err();
            assert_eq!(
                fault,
                Malformed::DuplicateProperty { id: *id },
                "{notation} {once}"
            );
        }
    }
}

#[test]
fn cve_2026_21888_a_varint_of_five_bytes_is_refused_wherever_one_is_read() {
    let places = [
        "10 ffffffff7f",
        r#"10 [ "MQTT" 05 02 003c ffffffff7f "c" ]"#,
        r#"10 [ "MQTT" 05 06 003c [ ] "c" ffffffff7f "w" ( ) ]"#,
        r#"30 [ "t" ffffffff7f ]"#,
        r#"82 [ 0001 ffffffff7f "t" 00 ]"#,
        r#"82 [ 0001 [ 0b ffffffff7f ] "t" 00 ]"#,
        r#"a2 [ 0001 ffffffff7f "t" ]"#,
        "40 [ 0001 00 ffffffff7f ]",
        "e0 [ 00 ffffffff7f ]",
        "f0 [ 18 ffffffff7f ]",
    ];
    for place in places {
        let fault = from_client(Version::V5, &bytes(place)).unwrap_err();
        assert_eq!(fault, Malformed::LengthUnending, "{place}");
    }
}

#[test]
fn cve_2025_66168_no_second_packet_is_smuggled_behind_an_overlong_length() {
    // A parser that drops the fifth byte sees a length of 0 and then PINGREQ; one that drops the
    // high bits sees another. We see neither: the connection ends here.
    for length in [
        "8080808001",
        "8080808000",
        "80808000",
        "808000",
        "8000",
        "ffffffff01",
    ] {
        let input = bytes(&format!("30 {length} c0 00 e0 00"));
        assert!(frame(&input, u32::MAX).is_err(), "{length}");
    }
}

#[test]
fn cve_2026_40046_lengths_never_overflow() {
    let largest = frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], u32::MAX)
        .unwrap()
        .unwrap();
    assert_eq!((largest.header_bytes, largest.body_bytes), (5, 268_435_455));
    assert_eq!(largest.packet_bytes(), 268_435_460);
    assert!(frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 268_435_460).is_ok());
    let fault = frame(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F], 268_435_459).unwrap_err();
    assert_eq!(fault.reason(), Reason::PacketTooLarge);
}

#[test]
fn cve_2026_25627_a_body_shorter_than_its_length_is_never_read() {
    let input = bytes("30 8020 0001 61");
    let header = frame(&input, 1 << 20).unwrap().unwrap();
    assert_eq!(header.packet_bytes(), 3 + 4096);
    for version in VERSIONS {
        let short = &input[header.header_bytes..];
        assert_eq!(
            decode(version, Sender::Client, header, short),
            Err(Malformed::Truncated)
        );
    }
}

#[test]
fn vernemq_1883_properties_of_other_packets_are_refused_in_publish() {
    let allowed = [0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26];
    for id in 0..=255_u8 {
        if allowed.contains(&id) {
            continue;
        }
        let input = bytes(&format!("30 [ \"t\" [ {id:02x} 0000000000000000 ] ]"));
        assert!(from_client(Version::V5, &input).is_err(), "{id:#04x}");
    }
}

#[test]
fn cve_2017_7653_text_that_is_not_utf8_is_refused_wherever_text_is_read() {
    let places = [
        r#"10 [ "MQTT" 05 02 003c [ ] 0001ff ]"#,
        r#"10 [ "MQTT" 05 02 003c [ 15 0001ff ] "c" ]"#,
        r#"10 [ "MQTT" 05 02 003c [ 26 0001ff "v" ] "c" ]"#,
        r#"10 [ "MQTT" 05 02 003c [ 26 "k" 0001ff ] "c" ]"#,
        r#"10 [ "MQTT" 05 06 003c [ ] "c" [ ] 0001ff ( ) ]"#,
        r#"10 [ "MQTT" 05 06 003c [ ] "c" [ 03 0001ff ] "w" ( ) ]"#,
        r#"10 [ "MQTT" 05 06 003c [ ] "c" [ 08 0001ff ] "w" ( ) ]"#,
        r#"10 [ "MQTT" 05 82 003c [ ] "c" 0001ff ]"#,
        "30 [ 0001ff [ ] ]",
        r#"30 [ "t" [ 03 0001ff ] ]"#,
        r#"30 [ "t" [ 08 0001ff ] ]"#,
        "40 [ 0001 00 [ 1f 0001ff ] ]",
        "82 [ 0001 [ ] 0001ff 00 ]",
        "a2 [ 0001 [ ] 0001ff ]",
        "e0 [ 00 [ 1f 0001ff ] ]",
        "f0 [ 18 [ 15 0001ff ] ]",
        r#"f0 [ 18 [ 15 "m" 1f 0001ff ] ]"#,
    ];
    for place in places {
        let input = bytes(place);
        assert_eq!(
            from_client(Version::V5, &input),
            Err(Malformed::NotUtf8),
            "{place}"
        );
        // [MQTT-1.5.4-2] The same places refuse the null character.
        let input = bytes(&place.replace("0001ff", "000100"));
        assert_eq!(
            from_client(Version::V5, &input),
            Err(Malformed::NullCharacter),
            "{place}"
        );
    }
}

#[test]
fn nanomq_205_protocol_names_of_every_length_are_refused_but_the_two() {
    for length in 0..=20_usize {
        let name = &b"MQTTMQTTMQTTMQTTMQTTMQTT"[..length];
        let head = [&[0, length as u8], name, &[4, 2, 0, 60, 0, 1, b'c']].concat();
        let input = packet(0x10, &head);
        assert_eq!(
            from_client(Version::V311, &input).is_ok(),
            length == 4,
            "{length}"
        );
    }
}

#[test]
fn amqtt_ghsa_2hjf_filters_full_of_wildcards_are_decided_in_linear_time() {
    let time = |levels: usize| {
        let filter = format!("{}#", "+/".repeat(levels));
        shortest(|| assert_eq!(filter_fault(&filter), None))
    };
    let (few, many) = (time(1_000), time(32_000));
    assert!(
        many < few * 200,
        "{few:?} for 1,000 and {many:?} for 32,000"
    );
}

#[test]
fn flashmq_174_a_malformed_packet_never_reaches_an_assertion() {
    // Every byte 1 with every short body of two values.
    for first in 0..=255_u8 {
        for version in VERSIONS {
            for sender in [Sender::Client, Sender::Server] {
                for pattern in 0..64_u8 {
                    let body: Vec<u8> = (0..6).map(|bit| pattern >> bit & 1).collect();
                    for length in 0..=body.len() {
                        let input = packet(first, &body[..length]);
                        if let Ok(Some(header)) = frame(&input, 1 << 20) {
                            let _ = decode(version, sender, header, &body[..length]);
                        }
                    }
                }
            }
        }
    }
}
