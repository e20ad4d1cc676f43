//! What the tree finds, measured against a matcher that a reader can check; and what it costs.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::mem::size_of;
use std::thread;

use proptest::prelude::*;
use proptest::sample::select;

use super::{Entries, Node, Tree};

const SEEDS: [u64; 4] = [1, 2, 3, 4];

/// Levels of every way to be stored: in the node, in a slot, in a box; and bytes that look alike.
const LEVELS: [&str; 8] = [
    "",
    "a",
    "b",
    "\u{e9}",
    "e\u{301}",
    "$s",
    "a-device-of-thirty-six-bytes-in-name",
    "a level of more than 128 bytes, which gets a box of its own: 0123456789 0123456789 \
     0123456789 0123456789 0123456789 0123456789",
];

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&LEVELS[..]), 1..6).prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => select(&LEVELS[..]), 1 => Just("+")];
    (prop::collection::vec(level, 0..5), any::<bool>()).prop_map(|(mut levels, has_hash)| {
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

fn found(tree: &Tree<u32>, tenant: u32, topic: &str) -> Vec<u32> {
    let mut found = Vec::new();
    tree.matches(tenant, topic, |&entry| found.push(entry));
    found.sort_unstable();
    found
}

fn tree_of(filters: &[&str]) -> Tree<u32> {
    let mut tree = Tree::new(SEEDS);
    for (number, filter) in filters.iter().enumerate() {
        assert_eq!(
            tree.insert(0, filter, number as u32, |_| false).replaced,
            None
        );
    }
    tree
}

type Model = BTreeMap<(u32, String), Vec<u32>>;

fn check(tree: &Tree<u32>, model: &Model, topics: &[String]) {
    assert_eq!(tree.entries(), model.values().map(Vec::len).sum::<usize>());
    let levels: usize = model
        .keys()
        .map(|(_, filter)| filter.split('/').count())
        .sum();
    assert!(
        tree.nodes() <= levels + 2,
        "{} nodes for {levels} levels",
        tree.nodes()
    );
    for ((tenant, filter), wanted) in model {
        let mut entries = tree.get(*tenant, filter).to_vec();
        entries.sort_unstable();
        assert_eq!(&entries, wanted, "{tenant} {filter:?}");
    }
    for topic in topics {
        for tenant in 0..2 {
            let here = model.iter().filter(|((owner, _), _)| *owner == tenant);
            let matching = here.filter(|((_, filter), _)| naive_matches(filter, topic));
            let mut wanted: Vec<u32> = matching.flat_map(|(_, entries)| entries.clone()).collect();
            wanted.sort_unstable();
            assert_eq!(found(tree, tenant, topic), wanted, "{tenant} {topic:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Inserts and removes at random, and asks the tree and the naive matcher the same questions.
    #[test]
    fn tree_finds_what_the_naive_matcher_finds_under_churn(
        steps in prop::collection::vec((0..2u32, filter(), 0..4u32, 0..3u8), 0..60),
        topics in prop::collection::vec(topic(), 1..12),
    ) {
        let (mut tree, mut model) = (Tree::new(SEEDS), Model::new());
        let mut places = BTreeMap::new();
        for (tenant, filter, entry, kind) in steps {
            let entries = model.entry((tenant, filter.clone())).or_default();
            let known = entries.binary_search(&entry);
            if kind < 2 {
                let inserted = tree.insert(tenant, &filter, entry, |&old| old == entry);
                let id = places.entry((tenant, filter.clone())).or_insert(inserted.filter);
                prop_assert_eq!(*id, inserted.filter);
                prop_assert_eq!(inserted.replaced, known.is_ok().then_some(entry));
                if let Err(place) = known {
                    entries.insert(place, entry);
                }
            } else {
                let removed = tree.remove(tenant, &filter, |&old| old == entry);
                prop_assert_eq!(removed, known.is_ok().then_some(entry));
                if let Ok(place) = known {
                    entries.remove(place);
                }
            }
            model.retain(|_, entries| !entries.is_empty());
            // Whatever came and went beside it, a filter is where it was and reads as it did.
            places.retain(|key, _| model.contains_key(key));
            for ((tenant, filter), id) in &places {
                prop_assert_eq!(tree.find(*tenant, filter), Some(*id));
                prop_assert_eq!(&tree.text(*id), filter);
            }
        }
        check(&tree, &model, &topics);
        for ((tenant, filter), entries) in &model {
            for entry in entries {
                prop_assert_eq!(tree.remove(*tenant, filter, |old| old == entry), Some(*entry));
            }
        }
        prop_assert_eq!((tree.entries(), tree.nodes()), (0, 0));
        prop_assert_eq!(tree.children.len(), 0);
    }
}

/// [MQTT-4.7.1-2] [MQTT-4.7.1-1] [MQTT-3.1.1 4.7.1-2] [MQTT-3.1.1 4.7.1-3]: the examples that
/// everybody knows, with the parent level of `#` and empty levels.
#[test]
fn wildcards_match_levels_and_the_parent_of_a_hash() {
    let cases = [
        ("sport/tennis/#", "sport/tennis", true),
        ("sport/tennis/#", "sport/tennis/", true),
        ("sport/tennis/#", "sport/tennis/p1/rank", true),
        ("sport/tennis/#", "sport/tenni", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("sport/+", "sport/a/b", false),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "/", true),
        ("+/#", "a", true),
        ("a//b", "a//b", true),
        ("a//b", "a/b", false),
        ("a/+/b", "a//b", true),
        ("/", "/", true),
    ];
    for (filter, topic, matches) in cases {
        assert_eq!(naive_matches(filter, topic), matches, "{filter} {topic}");
        // Alone the filter is a tail; beside others that go its way it is unfolded.
        let alone = tree_of(&[filter]);
        assert_eq!(
            found(&alone, 0, topic).len(),
            usize::from(matches),
            "{filter} {topic}"
        );
        let beside: Vec<String> = filter
            .match_indices('/')
            .map(|(at, _)| format!("{}/zz", &filter[..at]))
            .collect();
        let mut all = vec![filter];
        all.extend(beside.iter().map(String::as_str));
        let unfolded = tree_of(&all);
        assert_eq!(
            found(&unfolded, 0, topic).contains(&0),
            matches,
            "{filter} {topic}"
        );
    }
}

/// [MQTT-4.7.2-1] [MQTT-3.1.1 4.7.2-1]: only the first level hides a `$`.
#[test]
fn leading_wildcards_do_not_match_topics_of_the_broker() {
    let tree = tree_of(&["#", "+/x", "$SYS/#", "$SYS/+", "a/#", "+/$b", "+/#", "+"]);
    assert_eq!(found(&tree, 0, "$SYS/x"), [2, 3]);
    assert_eq!(found(&tree, 0, "$SYS"), [2]);
    assert_eq!(found(&tree, 0, "a/$b"), [0, 4, 5, 6]);
    assert_eq!(found(&tree, 0, "$"), [0; 0]);
}

/// [MQTT-4.7.3-4] [MQTT-3.1.1 4.7.3-4]: two ways to write é are two topics.
#[test]
fn levels_are_compared_bytewise_without_normalization() {
    let tree = tree_of(&[
        "caf\u{e9}/x",
        "cafe\u{301}/x",
        "CAF\u{c9}/x",
        "caf\u{e9}/x ",
    ]);
    assert_eq!(found(&tree, 0, "caf\u{e9}/x"), [0]);
    assert_eq!(found(&tree, 0, "cafe\u{301}/x"), [1]);
}

#[test]
fn tenants_do_not_see_each_other() {
    let mut tree = Tree::new(SEEDS);
    // The bytes of a tenant's number may look like text: 0x2f is a slash, 0x2b a plus.
    for tenant in [0, 0x2f, 0x2b, 0x2f00_0000, 0x2b2f_232f, u32::MAX] {
        tree.insert(tenant, "a/+/c/#", tenant, |_| false);
        tree.insert(tenant, "a/b/c/d", tenant, |_| false);
        assert_eq!(found(&tree, tenant, "a/b/c/d"), [tenant; 2]);
        assert_eq!(tree.get(tenant, "a/+/c/#"), [tenant]);
    }
    for tenant in [0x2b, 0x2f, 0, u32::MAX, 0x2b2f_232f, 0x2f00_0000] {
        assert_eq!(tree.remove(tenant, "a/b/c/d", |_| true), Some(tenant));
        assert_eq!(tree.remove(tenant, "a/+/c/#", |_| true), Some(tenant));
        assert!(found(&tree, tenant, "a/b/c/d").is_empty());
    }
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn wildcards_in_a_topic_name_no_filter() {
    let tree = tree_of(&["a/+", "a/#", "+", "#", "a/+/b"]);
    assert_eq!(found(&tree, 0, "a/+"), [0, 1, 3]);
    assert_eq!(found(&tree, 0, "a/#"), [0, 1, 3]);
    assert_eq!(found(&tree, 0, "#"), [2, 3]);
}

/// Levels that begin other levels, in nodes that the table takes for each other at first sight.
#[test]
fn levels_that_begin_alike_are_different() {
    let level = |length: usize| "a".repeat(length);
    let mut tree = Tree::new(SEEDS);
    // The longest first: a longer level is what a shorter one could be taken for.
    for length in (0..2_000).rev() {
        let filter = format!("{}/x", level(length));
        assert_eq!(
            tree.insert(0, &filter, length as u32, |_| true).replaced,
            None
        );
    }
    for length in 0..2_000 {
        let topic = format!("{}/x", level(length));
        assert_eq!(found(&tree, 0, &topic), [length as u32]);
        assert_eq!(tree.remove(0, &topic, |_| true), Some(length as u32));
        assert!(found(&tree, 0, &topic).is_empty());
    }
    assert_eq!(tree.nodes(), 0);
}

#[test]
fn way_of_its_own_is_one_node_and_is_unfolded_no_further_than_shared() {
    let steps = [
        ("a/b/c/d/e", 2),
        ("a/b/c/d/e", 2),
        // `a`, and two tails.
        ("a/x/y/z", 4),
        // `b` and `c`, and one tail more.
        ("a/b/c/x/y", 7),
        // An end within a way unfolds just what is above it.
        ("a/x/y", 9),
        ("#", 10),
    ];
    let mut tree = Tree::new(SEEDS);
    for (filter, nodes) in steps {
        tree.insert(0, filter, 0, |_| true);
        assert_eq!(tree.nodes(), nodes, "{filter}");
    }
}

#[test]
fn an_entry_that_is_the_same_is_replaced_in_its_place() {
    let mut tree = Tree::new(SEEDS);
    for entry in [(1, 'a'), (2, 'a'), (3, 'a')] {
        assert_eq!(
            tree.insert(0, "x/y", entry, |old: &(u32, char)| old.0 == entry.0)
                .replaced,
            None
        );
    }
    assert_eq!(
        tree.insert(0, "x/y", (2, 'b'), |old| old.0 == 2).replaced,
        Some((2, 'a'))
    );
    assert_eq!(tree.get(0, "x/y"), [(1, 'a'), (2, 'b'), (3, 'a')]);
    assert_eq!(tree.entries(), 3);
}

/// CVE-2019-11779: 65,535 slashes must not be 65,535 stack frames. Runs on a stack of 64 KiB.
#[test]
fn cve_2019_11779_deepest_filters_and_topics_do_not_use_the_stack() {
    let deep = || {
        let slashes = "/".repeat(65_535);
        let fork = format!("{}x", "/".repeat(65_534));
        let pluses = "+/".repeat(32_767) + "+";
        let mut tree = Tree::new(SEEDS);
        for (number, filter) in [&slashes, &fork, &pluses].into_iter().enumerate() {
            assert_eq!(
                tree.insert(0, filter, number as u32, |_| false).replaced,
                None
            );
            assert_eq!(tree.get(0, filter), [number as u32]);
        }
        assert!(tree.nodes() > 65_536, "the fork unfolds the whole way");
        assert_eq!(found(&tree, 0, &slashes), [0]);
        assert_eq!(found(&tree, 0, &fork), [1]);
        assert_eq!(found(&tree, 0, &"/".repeat(32_767)), [2]);
        for filter in [&slashes, &pluses, &fork] {
            assert!(tree.remove(0, filter, |_| true).is_some());
        }
        assert_eq!(tree.nodes(), 0);
    };
    thread::Builder::new()
        .stack_size(64 * 1024)
        .spawn(deep)
        .unwrap()
        .join()
        .unwrap();
}

/// GHSA-2hjf-7455-w946: a matcher that tries again at each `+` would not end here. Every mix of
/// `+` and a literal over sixteen levels stands in the tree, and each is found once.
#[test]
fn ghsa_2hjf_7455_w946_pathological_plus_filters_cost_one_visit_each() {
    let mut tree = Tree::new(SEEDS);
    for mask in 0..1u32 << 16 {
        let level = |bit: u32| if mask >> bit & 1 == 1 { "+" } else { "a" };
        let filter: Vec<&str> = (0..16).map(level).collect();
        tree.insert(0, &filter.join("/"), mask, |_| false);
    }
    let topic = ["a"; 16].join("/");
    assert_eq!(found(&tree, 0, &topic), (0..1 << 16).collect::<Vec<u32>>());
    assert!(found(&tree, 0, &format!("{topic}/a")).is_empty());
    let miss = format!("{}/b", ["a"; 15].join("/"));
    assert_eq!(found(&tree, 0, &miss).len(), 1 << 15);
}

#[test]
fn freed_places_are_used_again_and_an_empty_tree_gives_memory_back() {
    let mut tree = Tree::new(SEEDS);
    let filter = |number: u32| format!("site/device-number-{number:08}/command/#");
    for number in 0..5_000 {
        tree.insert(0, &filter(number), number, |_| false);
    }
    let (nodes, texts) = (tree.nodes.len(), tree.texts.bytes());
    for round in 1..20 {
        for number in 0..5_000 {
            tree.remove(0, &filter(number + (round - 1) * 5_000), |_| true)
                .unwrap();
            tree.insert(0, &filter(number + round * 5_000), number, |_| false);
        }
    }
    assert_eq!((tree.nodes.len(), tree.texts.bytes()), (nodes, texts));
    for number in 95_000..100_000 {
        tree.remove(0, &filter(number), |_| true).unwrap();
    }
    assert_eq!((tree.nodes(), memory(&tree)), (0, 0));
}

/// What the tree holds on the heap, bytes; boxes of very long levels are not in the shapes below.
fn memory<T>(tree: &Tree<T>) -> usize {
    let many = |node: &Node<T>| match &node.entries {
        Entries::Many(entries) => size_of::<Vec<T>>() + entries.capacity() * size_of::<T>(),
        _ => 0,
    };
    tree.nodes.capacity() * size_of::<Node<T>>()
        + tree.nodes.iter().map(many).sum::<usize>()
        + tree.children.bytes()
        + tree.texts.bytes()
}

/// A million subscriptions of 24 bytes each, in the shapes that fleets of devices make.
#[test]
fn a_million_subscriptions_take_150_bytes_each_at_most() {
    const COUNT: u64 = 1_000_000;
    type Shape = fn(u64) -> String;
    let shapes: [(&str, Shape); 5] = [
        ("one command topic per device", |n| {
            format!("home/device-{n}/command")
        }),
        ("a branch under each UUID", |n| {
            format!(
                "fleet/{:08x}-0000-4000-8000-{n:012x}/command/#",
                n.wrapping_mul(40_503) as u32
            )
        }),
        ("two topics for each UUID", |n| {
            format!(
                "fleet/{:08x}-0000-4000-8000-{:012x}/{}",
                n / 2,
                n / 2,
                n % 2
            )
        }),
        ("a hundred sites of buildings of rooms", |n| {
            format!(
                "site-{}/building-{}/room-{}/+/state",
                n % 100,
                n / 100 % 100,
                n / 10_000
            )
        }),
        ("a thousand at each filter", |n| {
            format!("news/{}/#", n % 1_000)
        }),
    ];
    for (name, shape) in shapes {
        let mut tree: Tree<[u64; 3]> = Tree::new(SEEDS);
        for number in 0..COUNT {
            tree.insert(0, &shape(number), [number; 3], |_| false);
        }
        let each = memory(&tree) as f64 / COUNT as f64;
        assert!(
            each <= 150.0,
            "{name}: {each} bytes each, {} nodes",
            tree.nodes()
        );
        assert_eq!(tree.entries() as u64, COUNT);
    }
}
