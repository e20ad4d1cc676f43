//! What a walk finds, measured against a filter over all topics; and how many topics it looks at.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::select;

use super::order::compare;
use super::{Next, Retained};

/// Bytes on both sides of the slash and of the `$`, and a level that begins another.
const LEVELS: [&str; 9] = [
    "",
    "a",
    "a!",
    "a\u{1}",
    "b",
    "$s",
    "\u{1}",
    "~",
    "\u{10ffff}",
];

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&LEVELS[..]), 1..5)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic has a character", |topic| !topic.is_empty())
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => select(&LEVELS[..]), 2 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, has_hash)| {
        if has_hash || levels.is_empty() {
            levels.push("#");
        }
        levels.join("/")
    })
}

/// The rules of matching, written to be read.
fn naive_matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let levels: Vec<&str> = topic.split('/').collect();
    let mut count = 0;
    for wanted in filter.split('/') {
        match (wanted, levels.get(count)) {
            ("#", _) => return true,
            (_, None) => return false,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == *level => {}
            _ => return false,
        }
        count += 1;
    }
    count == levels.len()
}

/// Walks to the end in steps of `budget` topics; returns what it found and the topics looked at.
fn walk(table: &Retained<u32>, tenant: u32, filter: &str, budget: usize) -> (Vec<String>, usize) {
    let (mut found, mut looks) = (Vec::new(), 0);
    let mut after: Option<String> = None;
    loop {
        assert!(
            found.len() <= table.len() && looks <= table.len() + 1,
            "the walk goes in circles"
        );
        let mut left = budget;
        let next = table.next(tenant, filter, after.as_deref(), &mut left);
        looks += budget - left;
        match next {
            Next::Found { topic, .. } => {
                found.push(topic.to_owned());
                after = Some(topic.to_owned());
            }
            Next::Pause { after: last } => {
                assert_eq!(left, 0, "a walk pauses only when its budget is used up");
                after = Some(last.to_owned());
            }
            Next::End => return (found, looks),
        }
    }
}

fn table_of(topics: impl IntoIterator<Item = String>) -> Retained<u32> {
    let mut table = Retained::new();
    for (number, topic) in topics.into_iter().enumerate() {
        table.set(0, &topic, number as u32, 1);
    }
    table
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Sets and removes like a map; the sum of bytes is the sum over what is there.
    #[test]
    fn table_is_a_map_and_counts_its_bytes(
        steps in prop::collection::vec((0..2u32, topic(), 0..1000usize, any::<bool>()), 0..60),
    ) {
        let mut table = Retained::new();
        let mut model: BTreeMap<(u32, String), usize> = BTreeMap::new();
        for (tenant, topic, bytes, sets) in steps {
            if sets {
                let replaced = model.insert((tenant, topic.clone()), bytes);
                prop_assert_eq!(table.set(tenant, &topic, bytes, bytes), replaced);
            } else {
                let removed = model.remove(&(tenant, topic.clone()));
                prop_assert_eq!(table.remove(tenant, &topic), removed);
            }
            prop_assert_eq!(table.len(), model.len());
            prop_assert_eq!(table.bytes(), model.values().sum::<usize>());
            let wanted = model.get(&(tenant, topic.clone()));
            prop_assert_eq!(table.get(tenant, &topic), wanted);
        }
    }

    /// A walk with any budget finds what a filter over all topics finds, in the table's order, and
    /// looks at no topic twice.
    #[test]
    fn walk_finds_what_the_naive_filter_finds_with_any_budget(
        topics in prop::collection::btree_set((0..2u32, topic()), 0..60),
        filter in filter(),
        budget in 1..5usize,
    ) {
        let mut table = Retained::new();
        for (tenant, topic) in &topics {
            table.set(*tenant, topic, 0, 0);
        }
        for tenant in 0..2 {
            let own: Vec<&String> =
                topics.iter().filter(|(owner, _)| *owner == tenant).map(|(_, t)| t).collect();
            let mut wanted: Vec<String> =
                own.iter().filter(|t| naive_matches(&filter, t)).map(|t| t.to_string()).collect();
            wanted.sort_by(|one, other| compare(one, other));
            let (found, looks) = walk(&table, tenant, &filter, budget);
            prop_assert_eq!(found, wanted, "{}", &filter);
            // One look more is for the topic of the next tenant that ends the walk.
            prop_assert!(looks <= own.len() + 1, "{} looks at {} topics", looks, own.len());
        }
    }

    /// Topics come and go between the steps of a walk: those that stay are found once and in
    /// order, and nothing is found that is not there at that moment.
    #[test]
    fn walk_goes_on_rightly_while_topics_come_and_go(
        topics in prop::collection::btree_set(topic(), 0..40),
        changes in prop::collection::vec((topic(), any::<bool>(), any::<bool>()), 0..40),
        filter in filter(),
        budget in 0..4usize,
    ) {
        let mut table = table_of(topics.iter().cloned());
        let (mut here, mut stayed) = (topics.clone(), topics.clone());
        let (mut found, mut after): (Vec<String>, Option<String>) = (Vec::new(), None);
        let mut changes = changes.into_iter();
        loop {
            // The change may hit the very topic that the walk stands on.
            if let Some((topic, sets, hits_cursor)) = changes.next() {
                let cursor = after.clone().filter(|cursor| hits_cursor && !cursor.is_empty());
                let topic = cursor.unwrap_or(topic);
                if sets {
                    table.set(0, &topic, 7, 1);
                    here.insert(topic);
                } else {
                    table.remove(0, &topic);
                    here.remove(&topic);
                    stayed.remove(&topic);
                }
            }
            // Without a budget the walk stands still, so that it gets one when changes are over.
            let mut left = if changes.len() == 0 { budget.max(1) } else { budget };
            match table.next(0, &filter, after.as_deref(), &mut left) {
                Next::Found { topic, .. } => {
                    prop_assert!(here.contains(topic) && naive_matches(&filter, topic));
                    found.push(topic.to_owned());
                    after = Some(topic.to_owned());
                }
                Next::Pause { after: last } => after = Some(last.to_owned()),
                Next::End => break,
            }
        }
        prop_assert!(found.windows(2).all(|pair| compare(&pair[0], &pair[1]).is_lt()));
        let found: BTreeSet<String> = found.into_iter().collect();
        for topic in stayed.iter().filter(|topic| naive_matches(&filter, topic)) {
            prop_assert!(found.contains(topic), "{} lost to {}", topic, &filter);
        }
    }

    /// The table's order is the order of lists of levels.
    #[test]
    fn order_is_level_by_level(
        one in "[a/!\u{1}~\u{e9}]{0,20}",
        other in "[a/!\u{1}~\u{e9}]{0,20}",
    ) {
        // With a beginning in common, and without: bytes are compared eight at a time.
        for common in ["", "aaaa/aaaa"] {
            let (one, other) = (format!("{common}{one}"), format!("{common}{other}"));
            let levels = |text: &str| text.split('/').map(String::from).collect::<Vec<_>>();
            prop_assert_eq!(compare(&one, &other), levels(&one).cmp(&levels(&other)));
        }
    }
}

#[test]
fn budget_of_nothing_looks_at_nothing_and_keeps_the_place() {
    let table = table_of(["a/b", "a/c", "a/d"].map(String::from));
    for (after, kept) in [
        (None, ""),
        (Some("a"), ""),
        (Some("a/b"), "a/b"),
        (Some("a/cc"), "a/c"),
    ] {
        match table.next(0, "a/#", after, &mut 0) {
            Next::Pause { after } => assert_eq!(after, kept),
            _ => panic!("a walk without a budget pauses"),
        }
    }
    assert!(matches!(
        Retained::<()>::new().next(0, "#", None, &mut 1),
        Next::End
    ));
}

/// [MQTT-4.7.2-1] [MQTT-3.1.1 4.7.2-1]: and they are jumped over, however many they are.
#[test]
fn leading_wildcards_never_yield_topics_of_the_broker() {
    let own = (0..10_000).map(|number| format!("$SYS/broker/{number}"));
    let table = table_of(own.chain(["!/x", "a/x", "/x"].map(String::from)));
    for filter in ["#", "+/#", "+/x", "+/+"] {
        let (found, looks) = walk(&table, 0, filter, 5);
        assert_eq!(found, ["/x", "!/x", "a/x"], "{filter}");
        assert!(looks <= 12, "{filter}: {looks}");
    }
    assert_eq!(walk(&table, 0, "$SYS/#", 100).0.len(), 10_000);
    assert_eq!(walk(&table, 0, "$SYS/+/77", 100).0, ["$SYS/broker/77"]);
}

/// A filter that a client chooses must not make the broker look at every topic: 1,000 houses with
/// 100 topics each, and the budget that filters use.
#[test]
fn walk_looks_at_what_its_filter_can_reach_and_not_at_the_whole_table() {
    let houses = (0..1_000).flat_map(|house| {
        (0..100).map(move |topic| format!("house-{house:04}/room-{:02}/{}", topic / 10, topic % 10))
    });
    let table = table_of(houses);
    let cases = [
        ("house-0500/room-05/5", 1, 2),
        ("house-0500/#", 100, 101),
        ("house-0500", 0, 1),
        ("house-0500/+/5", 10, 31),
        ("+/room-05/5", 1_000, 3_001),
        ("+/room-05/#", 10_000, 12_001),
        ("+/cellar/+", 0, 2_001),
        ("+/zoo/+", 0, 2_001),
        ("+/+/5", 10_000, 30_001),
        ("+", 0, 1_001),
        ("nobody/+/+/#", 0, 1),
        ("zoo/#", 0, 1),
        ("#", 100_000, 100_001),
    ];
    for (filter, matches, looks_max) in cases {
        let (found, looks) = walk(&table, 0, filter, 64);
        assert_eq!(found.len(), matches, "{filter}");
        assert!(looks <= looks_max, "{filter}: {looks} looks");
    }
}

#[test]
fn walk_ends_at_the_last_topic_of_a_tenant() {
    let mut table = Retained::new();
    for tenant in [0, 1, u32::MAX] {
        table.set(tenant, "a/b", tenant, 1);
    }
    for tenant in [0, 1, 2, u32::MAX] {
        let (found, _) = walk(&table, tenant, "#", 1);
        assert_eq!(found.len(), usize::from(tenant != 2));
        assert_eq!(
            table.get(tenant, "a/b").copied(),
            (tenant != 2).then_some(tenant)
        );
    }
}

/// CVE-2019-11779 for retained messages: the deepest topic, the deepest filters, no recursion.
#[test]
fn cve_2019_11779_deepest_topics_are_walked_without_the_stack() {
    let deep = "/".repeat(65_535);
    let table = table_of([deep.clone(), "/".into(), "a".into()]);
    for filter in [
        deep.clone(),
        "+/".repeat(32_767) + "#",
        "/".repeat(65_534) + "#",
    ] {
        assert_eq!(walk(&table, 0, &filter, 1).0, std::slice::from_ref(&deep));
    }
}
