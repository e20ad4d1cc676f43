//! Topic names and filters: the table of what may be written.
#![allow(missing_docs)]

use casemate_codec::{filter_fault, share, topic_fault, Share, TextFault};
use proptest::prelude::*;

#[test]
fn topic_names_are_decided_by_the_table() {
    let long = "a".repeat(65_535);
    let too_long = "a".repeat(65_536);
    let late = format!("{}#", "a".repeat(100));
    let late_null = format!("{}\0", "a".repeat(100));
    let table: &[(&str, Option<TextFault>)] = &[
        // [MQTT-4.7.3-1] [MQTT-3.1.1 4.7.3-1]
        ("", Some(TextFault::Empty)),
        ("/", None),
        ("a", None),
        ("a//b", None),
        (" ", None),
        ("$SYS/x", None),
        // [MQTT-1.5.4-3] [MQTT-3.1.1 1.5.3-3]
        ("\u{FEFF}a", None),
        ("a\u{7F}\u{1}b", None),
        // [MQTT-4.7.3-4] [MQTT-3.1.1 4.7.3-4] Nothing is normalized.
        ("e\u{301}", None),
        // [MQTT-4.7.0-1] [MQTT-3.1.1 4.7.1-1]
        ("#", Some(TextFault::Wildcard)),
        ("a/+/b", Some(TextFault::Wildcard)),
        ("a+", Some(TextFault::Wildcard)),
        (&late, Some(TextFault::Wildcard)),
        // [MQTT-4.7.3-2] [MQTT-3.1.1 4.7.3-2]
        ("a\0b", Some(TextFault::Null)),
        ("+\0", Some(TextFault::Null)),
        (&late_null, Some(TextFault::Null)),
        // [MQTT-4.7.3-3] [MQTT-3.1.1 4.7.3-3]
        (&long, None),
        (&too_long, Some(TextFault::TooLong)),
    ];
    for (topic, fault) in table {
        let shown: String = topic.chars().take(20).collect();
        assert_eq!(topic_fault(topic), *fault, "{shown:?}");
    }
}

#[test]
fn filters_are_decided_by_the_table() {
    use TextFault::*;
    let too_long = "a".repeat(65_536);
    let table: &[(&str, Option<TextFault>)] = &[
        ("", Some(Empty)),
        ("a", None),
        ("/", None),
        ("#", None),
        ("+", None),
        ("+/+", None),
        ("/#", None),
        ("a/+/#", None),
        ("+/a/+", None),
        ("//+//", None),
        ("$SYS/#", None),
        // [MQTT-4.7.1-1] [MQTT-3.1.1 4.7.1-2]
        ("a#", Some(MisplacedWildcard)),
        ("#/", Some(MisplacedWildcard)),
        ("a/#/b", Some(MisplacedWildcard)),
        ("##", Some(MisplacedWildcard)),
        ("a/##", Some(MisplacedWildcard)),
        ("#+", Some(MisplacedWildcard)),
        // [MQTT-4.7.1-2] [MQTT-3.1.1 4.7.1-3]
        ("a+", Some(MisplacedWildcard)),
        ("+a", Some(MisplacedWildcard)),
        ("a/+b/c", Some(MisplacedWildcard)),
        ("++", Some(MisplacedWildcard)),
        ("+#", Some(MisplacedWildcard)),
        ("a\0", Some(Null)),
        ("a/\0/#", Some(Null)),
        (&too_long, Some(TooLong)),
        // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
        ("$share/g/a", None),
        ("$share/g/#", None),
        ("$share/g//", None),
        ("$share/g/$SYS/a", None),
        ("$share//a", Some(BadShareName)),
        ("$share/", Some(BadShareName)),
        ("$share/+/a", Some(BadShareName)),
        ("$share/g#/a", Some(BadShareName)),
        ("$share/#", Some(BadShareName)),
        ("$share/g", Some(BadShareFilter)),
        ("$share/g/", Some(BadShareFilter)),
        ("$share/g/a+", Some(MisplacedWildcard)),
        ("$share/g/a/#/", Some(MisplacedWildcard)),
        ("$share/\0/a", Some(Null)),
        ("$share/g/\0", Some(Null)),
        // These only look like shares.
        ("$share", None),
        ("$Share/g", None),
        ("$shared/g", None),
        ("a/$share/g", None),
    ];
    for (filter, fault) in table {
        let shown: String = filter.chars().take(20).collect();
        assert_eq!(filter_fault(filter), *fault, "{shown:?}");
    }
}

#[test]
fn a_share_is_split_into_name_and_filter() {
    assert_eq!(
        share("$share/g/a/b"),
        Some(Share {
            name: "g",
            filter: "a/b"
        })
    );
    assert_eq!(
        share("$share/g//a"),
        Some(Share {
            name: "g",
            filter: "/a"
        })
    );
    assert_eq!(share("$share"), None);
    assert_eq!(share("a/b"), None);
    assert_eq!(share("$queue/a"), None);
}

/// The rule of filters, level by level, as slowly and plainly as it can be said.
fn is_valid_plainly(filter: &str) -> bool {
    let levels: Vec<&str> = filter.split('/').collect();
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
    !filter.is_empty() && !filter.contains('\0') && share_is_valid && levels_are_valid
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn filters_are_decided_as_the_plain_rule_decides(
        prefix in prop_oneof![4 => Just(""), 1 => Just("$share/"), 1 => Just("$share/g/")],
        rest in "[a+#/\u{0}\\$]{0,8}",
    ) {
        let filter = format!("{prefix}{rest}");
        prop_assert_eq!(filter_fault(&filter).is_none(), is_valid_plainly(&filter), "{}", filter);
        if filter_fault(&filter).is_none() {
            prop_assert_eq!(share(&filter).is_some(), filter.starts_with("$share/"));
        }
    }

    #[test]
    fn topics_are_decided_as_the_plain_rule_decides(topic in "[a-c+#/\u{0}é]{0,50}") {
        let valid = !topic.is_empty() && !topic.contains(['+', '#', '\0']);
        prop_assert_eq!(topic_fault(&topic).is_none(), valid);
    }

    #[test]
    fn long_topics_are_decided_wherever_the_character_stands(
        length in 1..200_usize,
        at in any::<prop::sample::Index>(),
        special in prop_oneof![Just(0_u8), Just(b'+'), Just(b'#')],
    ) {
        let mut topic = vec![b'a'; length];
        topic[at.index(length)] = special;
        let topic = String::from_utf8(topic).unwrap_or_default();
        let fault = if special == 0 { TextFault::Null } else { TextFault::Wildcard };
        prop_assert_eq!(topic_fault(&topic), Some(fault));
    }
}
