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
    let each = route.targets.iter();
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
