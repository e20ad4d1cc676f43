//! What any policy allows, against evaluators that a reader can check.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

/// Levels of topics; `user` and `client` are names, and `other` stands in no rule.
const LEVELS: [&str; 7] = ["", "a", "b", "user", "client", "other", "$s"];

/// The rules of matching, written to be read; templates mean the names, if these can be levels.
fn naive_matches(filter: &str, topic: &str, user: &str, client: Option<&str>) -> bool {
    let first = filter.split('/').next().unwrap();
    if topic.starts_with('$') && ["+", "#", "%u", "%c"].contains(&first) {
        return false;
    }
    let is_name = |name: &str, level: &str| {
        name == level && !name.is_empty() && !name.contains(['+', '#', '/'])
    };
    let levels: Vec<&str> = topic.split('/').collect();
    let mut count = 0;
    for wanted in filter.split('/') {
        let Some(level) = levels.get(count) else {
            return wanted == "#";
        };
        let matches = match wanted {
            "#" => return true,
            "+" => true,
            "%u" => is_name(user, level),
            "%c" => client.is_some_and(|client| is_name(client, level)),
            _ => wanted == *level,
        };
        if !matches {
            return false;
        }
        count += 1;
    }
    count == levels.len()
}

fn join(levels: Vec<&'static str>, has_hash: bool) -> String {
    let mut levels = levels;
    if has_hash || levels.is_empty() || levels == [""] {
        levels.push("#");
    }
    levels.join("/")
}

fn template() -> impl Strategy<Value = String> {
    let level = prop_oneof![
        4 => select(&LEVELS[..5]),
        1 => Just("$s"),
        2 => Just("+"),
        1 => Just("%u"),
        1 => Just("%c")
    ];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(levels, hash)| join(levels, hash))
}

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => select(&LEVELS[..]), 2 => Just("+")];
    (prop::collection::vec(level, 0..4), any::<bool>())
        .prop_map(|(levels, hash)| join(levels, hash))
}

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(select(&LEVELS[..]), 1..5).prop_map(|levels| levels.join("/"))
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let operation = select(vec![Operation::Publish, Operation::Subscribe]);
    (
        operation,
        template(),
        select(&QOS[..]),
        any::<bool>(),
        0..100u32,
    )
        .prop_map(|(operation, filter, qos_max, retain, line)| Rule {
            operation,
            filter: filter.into(),
            qos_max,
            retain,
            place: format!("policy.toml:{line}").into(),
        })
}

/// Every topic of up to four levels: one deeper than any rule or filter that is not endless.
fn all_topics() -> Vec<String> {
    let mut topics: Vec<String> = LEVELS.iter().map(|level| level.to_string()).collect();
    let mut deepest = topics.clone();
    for _ in 1..4 {
        let deeper = deepest
            .iter()
            .flat_map(|topic| LEVELS.iter().map(move |level| format!("{topic}/{level}")));
        deepest = deeper.collect();
        topics.extend(deepest.iter().cloned());
    }
    topics.retain(|topic| !topic.is_empty());
    topics
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Rights, permits and explanations of any set of roles are the union over single rules.
    #[test]
    fn rights_are_the_union_of_the_rules_that_match(
        roles in prop::collection::vec(prop::collection::vec(any_rule(), 0..8), 1..4),
        held in prop::collection::vec(0..5usize, 0..4),
        topics in prop::collection::vec(topic(), 1..10),
        client in select(vec![None, Some("client"), Some("user"), Some("a/b")]),
    ) {
        let name = |number: usize| -> Box<str> { format!("role {number}").into() };
        let named = roles.iter().enumerate();
        let all = named.map(|(number, rules)| role(&name(number), rules.clone())).collect();
        let policy = Policy::compile(1, all).unwrap();
        let names: Vec<Box<str>> = held.iter().map(|&number| name(number)).collect();
        let set = policy.resolve(&names);
        let subject = subject("user", client, &set);
        for topic in &topics {
            let mine = (0..roles.len()).filter(|number| held.contains(number));
            let rules: Vec<&Rule> = mine
                .flat_map(|number| &roles[number])
                .filter(|rule| naive_matches(&rule.filter, topic, "user", client))
                .collect();
            let publish = rules.iter().filter(|rule| rule.operation == Operation::Publish);
            let receive = rules.iter().filter(|rule| rule.operation == Operation::Subscribe);
            let rights = policy.publish(&subject, topic);
            for (qos, retain) in QOS.into_iter().flat_map(|qos| [(qos, false), (qos, true)]) {
                let wanted =
                    publish.clone().any(|rule| rule.qos_max >= qos && (rule.retain || !retain));
                prop_assert_eq!(rights.permit(qos, retain).is_some(), wanted);
                let why = policy.explain(&subject, Operation::Publish, topic, qos, retain);
                prop_assert_eq!(why.is_allowed, wanted, "{}: {}", topic, why);
            }
            let wanted = receive.map(|rule| rule.qos_max).max();
            prop_assert_eq!(policy.receive(&subject, topic).map(|permit| permit.qos_max), wanted);
            prop_assert_eq!(policy.subscribe(&subject, topic).map(|right| right.qos_max), wanted);
            let why = policy.explain(&subject, Operation::Subscribe, topic, QOS[2], false);
            let given = match why.cause {
                Cause::Allowed { qos_max } => Some(qos_max),
                _ => None,
            };
            prop_assert_eq!(given, wanted);
        }
    }

    /// A rule covers a filter where no topic tells them apart, and only there.
    #[test]
    fn rule_covers_a_filter_just_when_it_matches_all_of_its_topics(
        template in template(),
        filter in filter(),
        client in select(vec![None, Some("client"), Some("+")]),
    ) {
        let (policy, roles) = policy(&[&template]);
        let subject = subject("user", client, &roles);
        let wanted = all_topics().iter().all(|topic| {
            !naive_matches(&filter, topic, "", None)
                || naive_matches(&template, topic, "user", client)
        });
        let covers = policy.subscribe(&subject, &filter).is_some();
        prop_assert_eq!(covers, wanted, "{} {}", template, filter);
    }

    /// Names out of anything: a template never lets a name reach a level that is not that name.
    #[test]
    fn cve_2017_7650_names_are_never_instructions(
        template in template(),
        name in prop_oneof![
            select(vec!["#", "+", "", "a", "a/b", "+/+", "$s", "%u", "%c", ".*", "a#", "/", "$s/#"])
                .prop_map(String::from),
            "[a+#/$%.*]{0,6}",
        ],
        topics in prop::collection::vec(topic(), 20),
    ) {
        let (policy, roles) = policy(&[&template]);
        for (user, client) in [(&*name, None), ("user", Some(&*name)), (&*name, Some(&*name))] {
            let subject = subject(user, client, &roles);
            for topic in &topics {
                let wanted = naive_matches(&template, topic, user, client);
                prop_assert_eq!(may_publish(&policy, &subject, topic), wanted);
                prop_assert_eq!(policy.receive(&subject, topic).is_some(), wanted);
                prop_assert_eq!(policy.subscribe(&subject, topic).is_some(), wanted);
            }
        }
    }
}
