//! Answers from the cache are those worked out anew, and few changes outdate them.

#![allow(clippy::unwrap_used)]

use std::rc::Rc;

use ahash::RandomState;
use casemate_codec::QoS;
use proptest::prelude::*;
use proptest::sample::select;

use super::{Changes, Entry, Route, Routes, Subscription};
use crate::door::Place;
use crate::tree::Tree;

const SEEDS: [u64; 4] = [1, 2, 3, 4];

const PLACE: Place = Place {
    index: 0,
    count: 1,
    seeds: SEEDS,
};

const LEVELS: [&str; 4] = ["", "a", "b", "$s"];

fn topic() -> impl Strategy<Value = String> {
    // More levels than are told apart, too.
    let count = prop_oneof![4 => 1..5_usize, 1 => 13..19_usize];
    count.prop_flat_map(|count| {
        prop::collection::vec(select(&LEVELS[..]), count).prop_map(|levels| levels.join("/"))
    })
}

/// A filter that has much in common with the topic, and mostly matches it.
fn filter_like(topic: &str) -> impl Strategy<Value = String> {
    let levels: Vec<String> = topic.split('/').map(str::to_owned).collect();
    let count = levels.len();
    let kinds = prop::collection::vec(0..8_u8, count);
    (kinds, 0..=count, 0..3_u8).prop_map(move |(kinds, cut, end)| {
        let mut levels: Vec<&str> = levels.iter().map(String::as_str).collect();
        for (level, kind) in levels.iter_mut().zip(kinds) {
            match kind {
                0 | 1 => *level = "+",
                2 => *level = "b",
                _ => {}
            }
        }
        if end == 0 {
            levels.truncate(cut);
            levels.push("#");
        }
        levels.join("/")
    })
}

fn both() -> impl Strategy<Value = (String, String)> {
    topic().prop_flat_map(|topic| (filter_like(&topic), Just(topic)))
}

fn subscription(session: u32, qos: QoS) -> Subscription {
    Subscription {
        session,
        id: 0,
        qos,
        no_local: false,
        retain_as_published: false,
    }
}

fn is_of(entry: &Entry, session: u32) -> bool {
    matches!(entry, Entry::Session(found) if found.session == session)
}

fn subscribe(routes: &mut Routes, tenant: u32, filter: &str, session: u32, qos: QoS) {
    let entry = Entry::Session(subscription(session, qos));
    let same = |other: &Entry| is_of(other, session);
    routes.tree.insert(tenant, filter, entry, same);
    routes.touch(tenant, filter);
}

fn leave(routes: &mut Routes, tenant: u32, filter: &str, session: u32) {
    let same = |other: &Entry| is_of(other, session);
    if routes.tree.remove(tenant, filter, same).is_some() {
        routes.touch(tenant, filter);
    }
}

/// Who gets a message, and at which QoS at most.
fn reached(route: &Route) -> Vec<(u32, QoS)> {
    let each = route.targets().iter();
    each.map(|target| (target.session, target.qos)).collect()
}

/// The answer without a cache.
fn anew(routes: &Routes, tenant: u32, topic: &str) -> Vec<(u32, QoS)> {
    let mut found: Vec<(u32, QoS)> = Vec::new();
    routes.tree.matches(tenant, topic, |entry| {
        let Entry::Session(one) = entry else { return };
        match found
            .iter_mut()
            .find(|(session, _)| *session == one.session)
        {
            Some((_, qos)) => *qos = one.qos.max(*qos),
            None => found.push((one.session, one.qos)),
        }
    });
    found.sort_unstable_by_key(|(session, _)| *session);
    found
}

/// As a publisher asks: what is known, else worked out.
fn ask(routes: &mut Routes, tenant: u32, topic: &str) -> Rc<Route> {
    match routes.find(tenant, topic.as_bytes()) {
        Some(route) => route,
        None => routes.build(tenant, topic, |_| true),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Subscribes, leaves and asks at random; publishers hold on to the answers that they had.
    #[test]
    fn a_route_that_is_current_is_the_one_that_would_be_worked_out_anew(
        pairs in prop::collection::vec(both(), 1..6),
        steps in prop::collection::vec((0..2_u32, 0..6_usize, 0..3_u32, 0..6_u8), 0..80),
    ) {
        let mut routes = Routes::new(&PLACE);
        let mut held = Vec::new();
        for (tenant, pair, session, kind) in steps {
            let (filter, topic) = &pairs[pair % pairs.len()];
            match kind {
                0 => subscribe(&mut routes, tenant, filter, session, QoS::AtMostOnce),
                1 => subscribe(&mut routes, tenant, topic, session, QoS::AtLeastOnce),
                2 => leave(&mut routes, tenant, filter, session),
                3 => leave(&mut routes, tenant, topic, session),
                4 => held.push(ask(&mut routes, tenant, topic)),
                _ => {
                    for (_, topic) in &pairs {
                        let route = ask(&mut routes, tenant, topic);
                        prop_assert_eq!(reached(&route), anew(&routes, tenant, topic));
                        held.push(route);
                    }
                }
            }
            for route in &held {
                if routes.is_current(route) {
                    let wanted = anew(&routes, route.tenant, &route.topic);
                    prop_assert_eq!(reached(route), wanted, "{}", &*route.topic);
                }
            }
        }
    }

    /// Compares with the tree, which knows the rules of matching and nothing of changes.
    #[test]
    fn a_change_of_a_filter_is_seen_by_every_topic_that_it_matches(
        (filter, topic) in both(), before in prop::collection::vec(both(), 0..4),
    ) {
        prop_assume!(filter.contains(['+', '#']));
        let mut tree = Tree::new(SEEDS);
        tree.insert(7, &filter, (), |()| false);
        let mut changes = Changes::new(RandomState::with_seeds(1, 2, 3, 4));
        for (filter, _) in &before {
            changes.count(7, filter);
        }
        let (seen, total) = (changes.seen_by(7, &topic), changes.total());
        changes.count(7, &filter);
        let mut is_match = false;
        tree.matches(7, &topic, |()| is_match = true);
        prop_assert!(!is_match || changes.seen_by(7, &topic) > seen);
        prop_assert!(changes.total() > total);
    }
}

/// Topics of a building, and changes of others that do not concern them.
#[test]
fn a_change_elsewhere_leaves_a_route_current() {
    let topic = "site/4/floor/2/temperature";
    for (filter, outdates) in [
        // Without a wildcard: itself alone.
        ("site/4/floor/2/temperature", true),
        ("site/4/floor/2/humidity", false),
        ("site/4/floor/2", false),
        ("site/4/floor/2/temperature/set", false),
        // Other levels before the wildcard.
        ("site/4/floor/+/temperature", true),
        ("site/5/floor/+/temperature", false),
        ("site/4/floor/3/+", false),
        ("plant/#", false),
        // Another number of levels.
        ("+/+/+/+/+", true),
        ("+/+/+/+", false),
        ("site/4/+/temperature", false),
        ("site/4/+/2/temperature/set", false),
        ("site/#", true),
        ("site/4/floor/2/temperature/#", true),
        ("site/4/floor/2/temperature/+/#", false),
        // Another last level.
        ("site/+/floor/2/humidity", false),
        ("+/4/floor/2/temperature", true),
    ] {
        let mut routes = Routes::new(&PLACE);
        let route = ask(&mut routes, 0, topic);
        subscribe(&mut routes, 1, filter, 0, QoS::AtMostOnce);
        assert!(routes.is_current(&route), "{filter} of another tenant");
        for _ in 0..2 {
            let route = ask(&mut routes, 0, topic);
            subscribe(&mut routes, 0, filter, 0, QoS::AtMostOnce);
            assert_eq!(!routes.is_current(&route), outdates, "{filter} came");
            let route = ask(&mut routes, 0, topic);
            leave(&mut routes, 0, filter, 0);
            assert_eq!(!routes.is_current(&route), outdates, "{filter} went");
        }
    }
}

#[test]
fn another_policy_outdates_every_route() {
    let mut routes = Routes::new(&PLACE);
    let held: Vec<Rc<Route>> = ["a", "a/b", "$s/c"]
        .map(|topic| ask(&mut routes, 0, topic))
        .into();
    routes.touch_all();
    for route in &held {
        assert!(!routes.is_current(route));
        assert!(routes.find(0, route.topic.as_bytes()).is_none());
        let next = ask(&mut routes, 0, &route.topic);
        assert!(routes.is_current(&next));
        assert!(!routes.is_current(route));
    }
}

/// A million topics of one recipient are kept where each is two lines of the processor's cache.
#[test]
fn a_route_of_one_recipient_is_a_block_of_128_bytes() {
    let mut routes = Routes::new(&PLACE);
    subscribe(&mut routes, 0, "devices/+/state", 3, QoS::AtLeastOnce);
    let route = ask(&mut routes, 0, "devices/a-thermostat-in-the-hall/state");
    assert_eq!(reached(&route), [(3, QoS::AtLeastOnce)]);
    assert_eq!(route.bytes(), 128);
    // A longer topic has a place of its own.
    let topic = format!("devices/{}/state", "x".repeat(100));
    let route = ask(&mut routes, 0, &topic);
    assert_eq!(*route.topic, *topic);
    assert_eq!(route.bytes(), 128 + topic.len());
}

#[test]
fn whoever_stands_at_a_topic_is_in_its_route() {
    let mut routes = Routes::new(&PLACE);
    let route = ask(&mut routes, 0, "a/b");
    assert!(route.targets().is_empty() && route.groups().is_empty() && route.peers == 0);
    for (slot, entry) in [Entry::Group(9), Entry::Group(4), Entry::Peer(63)]
        .into_iter()
        .enumerate()
    {
        let filter = ["a/b", "a/+", "a/#"][slot];
        routes.tree.insert(0, filter, entry, |_| false);
        routes.touch(0, filter);
    }
    let route = ask(&mut routes, 0, "a/b");
    let mut groups = route.groups().to_vec();
    groups.sort_unstable();
    assert_eq!((groups, route.peers), (vec![4, 9], 1 << 63));
    assert!(route.targets().is_empty());
    for session in 0..3 {
        subscribe(&mut routes, 0, "#", session, QoS::AtMostOnce);
    }
    let route = ask(&mut routes, 0, "a/b");
    assert_eq!(reached(&route), [0, 1, 2].map(|n| (n, QoS::AtMostOnce)));
    assert_eq!(route.groups().len(), 2);
}

/// Goal: topics that nobody uses twice take a bounded number of bytes, and each answer is right.
/// Method: ten times as many as there is room for, with one recipient and with a crowd.
#[test]
fn unique_topics_take_no_more_than_they_may() {
    const BYTES_MAX: usize = 64 * 1024;
    for crowd in [0, 1, 50] {
        let mut routes = Routes::within(BYTES_MAX, &PLACE);
        for session in 0..crowd {
            subscribe(&mut routes, 0, "u/#", session, QoS::AtMostOnce);
        }
        let mut held: Vec<Rc<Route>> = Vec::new();
        let (mut most, mut count_most) = (0, 0);
        for number in 0..4_000 {
            let topic = format!("u/{number}/{}", "long".repeat(number % 30));
            let route = ask(&mut routes, 0, &topic);
            assert_eq!(route.targets().len(), crowd as usize);
            assert!(routes.is_current(&route));
            held.push(route);
            most = most.max(routes.cache.bytes());
            count_most = count_most.max(routes.cache.len());
        }
        assert!((BYTES_MAX / 2..=BYTES_MAX).contains(&most), "{most}");
        assert!(count_most * 128 <= BYTES_MAX, "{count_most}");
        // What was dropped is not current: a change could not find it.
        let current = held.iter().filter(|route| routes.is_current(route));
        assert_eq!(current.count(), routes.cache.len());
        // And what is taken out is counted out.
        for route in &held {
            routes.touch(0, &route.topic);
        }
        assert_eq!((routes.cache.len(), routes.cache.bytes()), (0, 0));
        assert!(held.iter().all(|route| !routes.is_current(route)));
    }
}

#[test]
fn topics_that_fit_stay_and_of_a_few_more_most_do() {
    let room_for = |count: usize| Routes::within(count * 152, &PLACE);
    for (count, kept_least) in [(1_000, 1_000), (1_100, 700)] {
        let mut routes = room_for(1_000);
        let mut found = 0;
        for round in 0..20 {
            for number in 0..count {
                let topic = format!("t/{number}");
                found += usize::from(round > 0 && routes.find(0, topic.as_bytes()).is_some());
                ask(&mut routes, 0, &topic);
            }
        }
        assert!(found >= 19 * kept_least, "{found} of {count}, 19 times");
    }
}

#[test]
fn a_route_larger_than_all_may_be_is_used_and_not_kept() {
    let mut routes = Routes::within(1_000, &PLACE);
    let small = ask(&mut routes, 0, "small");
    for session in 0..100 {
        subscribe(&mut routes, 0, "large", session, QoS::AtMostOnce);
    }
    let route = ask(&mut routes, 0, "large");
    assert_eq!(route.targets().len(), 100);
    assert!(!routes.is_current(&route) && routes.find(0, b"large").is_none());
    assert!(routes.is_current(&small));
}
