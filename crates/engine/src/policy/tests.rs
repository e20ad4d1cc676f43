//! What the policy allows, and what it must never allow, whatever names people have.

#![allow(clippy::unwrap_used)]

mod properties;

use casemate_codec::{QoS, TextFault};

use super::{Cause, Operation, Policy, Role, RoleSet, Rule, RuleFault, Subject};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

fn rule(operation: Operation, filter: &str) -> Rule {
    let place = format!("policy.toml:{filter}").into();
    Rule {
        operation,
        filter: filter.into(),
        qos_max: QoS::ExactlyOnce,
        retain: true,
        place,
    }
}

fn role(name: &str, rules: Vec<Rule>) -> Role {
    Role {
        name: name.into(),
        rules,
    }
}

/// A policy of one role with these filters for both operations, and that role's set.
fn policy(filters: &[&str]) -> (Policy, RoleSet) {
    let both = [Operation::Publish, Operation::Subscribe];
    let rules = filters
        .iter()
        .flat_map(|filter| both.map(|operation| rule(operation, filter)));
    let policy = Policy::compile(7, vec![role("role", rules.collect())]).unwrap();
    let roles = policy.resolve(&["role".into()]);
    (policy, roles)
}

fn subject<'a>(user: &'a str, client: Option<&'a str>, roles: &'a RoleSet) -> Subject<'a> {
    Subject {
        user,
        client,
        roles,
    }
}

fn may_publish(policy: &Policy, subject: &Subject<'_>, topic: &str) -> bool {
    policy
        .publish(subject, topic)
        .permit(QoS::AtMostOnce, false)
        .is_some()
}

/// CVE-2017-7650, nanomq#2344, CVE-2026-44838: who is called `#` reads nobody's mail.
#[test]
fn cve_2017_7650_hostile_names_reach_no_victim_through_any_template() {
    let names = [
        "#",
        "+",
        "",
        "/",
        "victim/#",
        "+/#",
        "#/victim",
        "victim/temp",
        "%u",
        "%c",
        ".*",
        "vic*",
        "^",
        "$SYS",
        "$SYS/#",
        "victim\u{0}",
        "VICTIM",
        "victim ",
        "\u{feff}victim",
    ];
    let templates = [
        "dev/%u/#",
        "dev/%c/#",
        "dev/%u/temp",
        "%u/temp",
        "%c/#",
        "%u/%c",
        "dev/%u",
        "%u",
        "%u/#",
        "+/%u/#",
        "+/%c/temp",
    ];
    let texts = [
        "dev/victim/temp",
        "dev/victim",
        "victim/temp",
        "victim",
        "$SYS/broker",
        "$SYS",
        "dev/+/temp",
        "dev/#",
        "#",
        "+",
        "+/#",
        "+/+",
        "+/+/#",
        "dev/+",
        "dev/+/#",
        "dev//temp",
    ];
    for template in templates {
        let (policy, roles) = policy(&[template]);
        for (name, text) in names
            .iter()
            .flat_map(|name| texts.map(|text| (*name, text)))
        {
            for client in [None, Some(name)] {
                let subject = subject(name, client, &roles);
                let story = format!("{name:?} {template} {text}");
                assert!(!may_publish(&policy, &subject, text), "{story}");
                assert!(policy.subscribe(&subject, text).is_none(), "{story}");
                assert!(policy.receive(&subject, text).is_none(), "{story}");
            }
        }
    }
}

/// `%c` speaks for a client only where its id is bound to its name.
#[test]
fn client_id_that_is_not_bound_opens_nothing() {
    let (policy, roles) = policy(&["dev/%c/#"]);
    assert!(may_publish(
        &policy,
        &subject("u", Some("one"), &roles),
        "dev/one/x"
    ));
    assert!(!may_publish(
        &policy,
        &subject("u", None, &roles),
        "dev/one/x"
    ));
    assert!(!may_publish(
        &policy,
        &subject("one", None, &roles),
        "dev/one/x"
    ));
}

/// A user may have the name of a word of the rules.
#[test]
fn rules_for_a_name_and_for_a_template_are_both_asked() {
    let (policy, roles) = policy(&["a/b/x", "a/%u/y", "a/%c/z", "a/+/w", "a/b/%u/#"]);
    let subject = subject("b", Some("b"), &roles);
    for topic in ["a/b/x", "a/b/y", "a/b/z", "a/b/w", "a/b/b", "a/b/b/deep"] {
        assert!(may_publish(&policy, &subject, topic), "{topic}");
    }
    for topic in ["a/b/v", "a/c/y", "a/c/z", "a/b", "a/c/x"] {
        assert!(!may_publish(&policy, &subject, topic), "{topic}");
    }
}

/// [MQTT-4.7.2-1]: `#` in a rule does not give the broker's own topics away (aedes#597).
#[test]
fn leading_wildcards_and_names_never_open_topics_of_the_broker() {
    let (all, roles) = policy(&["#", "+/broker", "%u/broker", "%c/#"]);
    let hostile = subject("$SYS", Some("$SYS"), &roles);
    for text in [
        "$SYS/broker",
        "$SYS",
        "$SYS/#",
        "$SYS/+",
        "$share/g/a",
        "$CONTROL/x",
    ] {
        assert!(!may_publish(&all, &hostile, text), "{text}");
        assert!(all.subscribe(&hostile, text).is_none(), "{text}");
        assert!(all.receive(&hostile, text).is_none(), "{text}");
    }
    let (named, roles) = policy(&["$SYS/#"]);
    let reader = subject("reader", None, &roles);
    for text in ["$SYS/broker", "$SYS", "$SYS/#", "$SYS/+/x"] {
        assert!(named.subscribe(&reader, text).is_some(), "{text}");
    }
    for text in ["#", "+/broker", "+/#", "a"] {
        assert!(named.subscribe(&reader, text).is_none(), "{text}");
    }
}

#[test]
fn cover_is_decided_for_the_whole_filter() {
    let cases = [
        ("a/+", "a/b", true),
        ("a/+", "a/+", true),
        ("a/+", "a/#", false),
        ("a/#", "a", true),
        ("a/#", "a/b/#", true),
        ("a/#", "a/+", true),
        ("a/#", "a/#", true),
        ("a/#", "#", false),
        ("a/#", "+/b", false),
        ("a/b", "a/+", false),
        ("a/+/#", "a/#", false),
        ("#", "#", true),
        ("+/#", "#", true),
        ("+/+/#", "#", false),
        ("+/+/#", "/#", true),
        ("/+/#", "/#", true),
        ("/+/+/#", "/#", false),
        ("a/+/#", "a/#", false),
        ("#", "+/+", true),
        ("+", "#", false),
        ("a/%u", "a/+", false),
        ("a/%u/#", "a/user/+/x/#", true),
        ("a/%u/#", "a/#", false),
    ];
    for (template, filter, covers) in cases {
        let (policy, roles) = policy(&[template]);
        let right = policy.subscribe(&subject("user", None, &roles), filter);
        assert_eq!(right.is_some(), covers, "{template} {filter}");
    }
    // Two rules that together match all of a filter's topics do not cover it.
    let (policy, roles) = policy(&["a", "a/+/#"]);
    assert!(policy
        .subscribe(&subject("user", None, &roles), "a/#")
        .is_none());
}

#[test]
fn rights_are_six_bits_of_qos_and_retain() {
    for (qos_max, retain_max) in QOS.into_iter().flat_map(|qos| [(qos, false), (qos, true)]) {
        let mut only = rule(Operation::Publish, "a");
        (only.qos_max, only.retain) = (qos_max, retain_max);
        let policy = Policy::compile(1, vec![role("r", vec![only])]).unwrap();
        let roles = policy.resolve(&["r".into()]);
        let rights = policy.publish(&subject("u", None, &roles), "a");
        for (qos, retain) in QOS.into_iter().flat_map(|qos| [(qos, false), (qos, true)]) {
            let wanted = qos <= qos_max && (retain_max || !retain);
            assert_eq!(rights.permit(qos, retain).is_some(), wanted);
        }
        assert!(policy.receive(&subject("u", None, &roles), "a").is_none());
    }
}

/// CVE-2018-12550, CVE-2018-20145: an empty policy, an empty role, no role, an unknown role and a
/// role of another epoch allow nothing.
#[test]
fn what_no_rule_allows_is_denied() {
    let (full, _) = policy(&["#", "a"]);
    let empty = Policy::compile(7, vec![role("role", vec![])]).unwrap();
    let sets = [
        (&full, full.resolve(&[])),
        (
            &full,
            full.resolve(&["Role".into(), "".into(), "role ".into()]),
        ),
        (
            &full,
            Policy::compile(6, vec![role("role", vec![])])
                .unwrap()
                .resolve(&["role".into()]),
        ),
        (&empty, empty.resolve(&["role".into()])),
        (&Policy::deny_all(7), full.resolve(&["role".into()])),
    ];
    for (policy, roles) in &sets {
        let subject = subject("user", Some("client"), roles);
        assert!(!may_publish(policy, &subject, "a"));
        assert!(policy.receive(&subject, "a").is_none());
        assert!(policy.subscribe(&subject, "a").is_none());
        let why = policy.explain(&subject, Operation::Publish, "a", QOS[0], false);
        assert!(!why.is_allowed && why.rule.is_none(), "{why}");
    }
    let roles = full.resolve(&["role".into(), "role".into()]);
    assert!(may_publish(&full, &subject("user", None, &roles), "a"));
    assert_eq!(full.epoch(), 7);
}

/// nanomq#2334: rights are found by the whole name, not by a part or a digest of it.
#[test]
fn nanomq_2334_long_names_that_begin_alike_are_different() {
    let (policy, roles) = policy(&["dev/%u"]);
    let name = |last: char| format!("{}{last}", "n".repeat(1_000));
    for (user, level) in [('a', 'a'), ('a', 'b')] {
        let (user, topic) = (name(user), format!("dev/{}", name(level)));
        let allowed = may_publish(&policy, &subject(&user, None, &roles), &topic);
        assert_eq!(allowed, user[4..] == topic[8..]);
    }
}

#[test]
fn rules_that_cannot_be_meant_do_not_compile() {
    let wrong = [
        ("", RuleFault::Filter(TextFault::Empty)),
        ("a/#/b", RuleFault::Filter(TextFault::MisplacedWildcard)),
        ("a+", RuleFault::Filter(TextFault::MisplacedWildcard)),
        ("a\0", RuleFault::Filter(TextFault::Null)),
        ("$share/g/a", RuleFault::Share),
        ("$share", RuleFault::Share),
        ("a/%x", RuleFault::Template),
        ("dev-%u", RuleFault::Template),
        ("a/%u%c", RuleFault::Template),
        ("a/%", RuleFault::Template),
        ("%U", RuleFault::Template),
    ];
    for (filter, what) in wrong {
        let rules = vec![
            rule(Operation::Publish, "a"),
            rule(Operation::Subscribe, filter),
        ];
        let fault = Policy::compile(1, vec![role("r", rules)]).unwrap_err();
        assert_eq!((&*fault.role, fault.what), ("r", what), "{filter}");
        assert_eq!(*fault.place, *format!("policy.toml:{filter}"));
    }
    let twice = || role("r", vec![rule(Operation::Publish, "a")]);
    let fault = Policy::compile(1, vec![twice(), role("q", vec![]), twice()]).unwrap_err();
    assert_eq!(
        fault.to_string(),
        "policy.toml:a: role \"r\": there are two roles of this name"
    );
}

#[test]
fn explanation_names_the_deciding_rule_and_otherwise_the_nearest() {
    let mut low = rule(Operation::Publish, "home/%u/temp");
    (low.qos_max, low.retain) = (QoS::AtLeastOnce, false);
    let rules = vec![
        rule(Operation::Publish, "+/%u/set"),
        low,
        rule(Operation::Subscribe, "#"),
    ];
    let policy = Policy::compile(1, vec![role("sensor", rules)]).unwrap();
    let roles = policy.resolve(&["sensor".into()]);
    let why = |topic: &str, qos: QoS, retain: bool| {
        policy.explain(
            &subject("t7", None, &roles),
            Operation::Publish,
            topic,
            qos,
            retain,
        )
    };
    let cases = [
        (
            "home/t7/temp",
            1,
            false,
            Cause::Allowed { qos_max: QOS[1] },
            Some("home/%u/temp"),
        ),
        ("home/t7/temp", 2, false, Cause::QoS, Some("home/%u/temp")),
        ("home/t7/temp", 1, true, Cause::Retain, Some("home/%u/temp")),
        (
            "home/t7/set",
            2,
            true,
            Cause::Allowed { qos_max: QOS[2] },
            Some("+/%u/set"),
        ),
        (
            "work/t7/temp",
            0,
            false,
            Cause::NoRule,
            Some("home/%u/temp"),
        ),
        ("$SYS/t7/set", 0, false, Cause::NoRule, None),
    ];
    for (topic, qos, retain, cause, filter) in cases {
        let why = why(topic, QOS[qos], retain);
        assert_eq!(why.cause, cause, "{topic}");
        assert_eq!(why.is_allowed, matches!(cause, Cause::Allowed { .. }));
        assert_eq!(
            why.rule.as_ref().map(|rule| &*rule.filter),
            filter,
            "{topic}"
        );
    }
    assert_eq!(
        why("home/t8/temp", QOS[0], false).to_string(),
        "denied: no rule allows it; \
         nearest: policy.toml:home/%u/temp: home/%u/temp (role \"sensor\")"
    );
}

/// GHSA-2hjf-7455-w946: every mix of `+` and a literal as a rule, and the deepest topic; the walk
/// reaches each node once and does not use the stack.
#[test]
fn ghsa_2hjf_7455_w946_pathological_rules_cost_one_visit_each() {
    let filters: Vec<String> = (0..1u32 << 12)
        .map(|mask| {
            let level = |bit: u32| if mask >> bit & 1 == 1 { "+" } else { "a" };
            (0..12).map(level).collect::<Vec<&str>>().join("/") + "/end"
        })
        .collect();
    let mut filters: Vec<&str> = filters.iter().map(String::as_str).collect();
    let deep = "+/".repeat(32_767) + "+";
    filters.push(&deep);
    let (policy, roles) = policy(&filters);
    let subject = subject("user", None, &roles);
    for _ in 0..100 {
        assert!(!may_publish(
            &policy,
            &subject,
            &format!("{}/miss", ["a"; 12].join("/"))
        ));
    }
    assert!(may_publish(
        &policy,
        &subject,
        &format!("{}/end", ["a"; 12].join("/"))
    ));
    assert!(may_publish(&policy, &subject, &"/".repeat(32_767)));
    assert!(!may_publish(&policy, &subject, &"/".repeat(65_535)));
    assert!(policy.subscribe(&subject, &deep).is_some());
}

#[test]
fn policy_is_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let (policy, roles) = policy(&["a"]);
    shared(&policy);
    shared(&roles);
    assert_eq!(format!("{policy:?}"), "Policy { epoch: 7, roles: 1 }");
}
