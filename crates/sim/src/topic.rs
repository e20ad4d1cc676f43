//! Topics and filters of the simulated world, and a matcher too simple to be wrong.

use crate::chance::Chance;

/// True where the filter (without `$share`) matches the topic (MQTT 5.0 §4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    let starts_with_wildcard = filter.starts_with('#') || filter.starts_with('+');
    if topic.starts_with('$') && starts_with_wildcard {
        return false;
    }
    let filter: Vec<&str> = filter.split('/').collect();
    let topic: Vec<&str> = topic.split('/').collect();
    for (level, wanted) in filter.iter().enumerate() {
        match *wanted {
            "#" => return true,
            "+" if level < topic.len() => {}
            literal if topic.get(level) == Some(&literal) => {}
            // `a/#` also matches its parent `a`.
            _ => return false,
        }
        if level + 1 == topic.len() && filter.get(level + 1) == Some(&"#") {
            return true;
        }
    }
    filter.len() == topic.len()
}

/// The last parts of topics; together with a head they make the topics of the world.
const TAILS: [&str; 8] = ["a", "b", "a/b", "a/b/c", "b//c", "a/é", "c/d/e/f", "/x"];

/// How many tails there are.
pub const TAILS_MAX: usize = TAILS.len();

/// A topic with one of the first `tails` tails, for a client whose proven name and client id are
/// given.
pub fn topic(chance: &mut Chance, tails: usize, user: &str, client_id: &str) -> String {
    let tail = TAILS[chance.index(tails)];
    match chance.below(20) {
        0..=12 => format!("g/{tail}"),
        13..=15 => format!("p/{tail}"),
        16 => format!("$x/{tail}"),
        17..=18 => format!("u/{user}/{tail}"),
        _ => format!("c/{client_id}/{tail}"),
    }
}

/// A filter that often matches some of the topics of [`topic`].
pub fn filter(
    chance: &mut Chance,
    (tails, wide_percent): (usize, u64),
    user: &str,
    client_id: &str,
) -> String {
    if chance.percent(wide_percent) {
        let wide = [
            "#", "g/#", "g/+", "+/a", "+/+", "$x/#", "p/#", "+/a/#", "g/a/#", "/#",
        ];
        return (*chance.pick(&wide)).to_owned();
    }
    let topic = topic(chance, tails, user, client_id);
    let mut levels: Vec<String> = topic.split('/').map(str::to_owned).collect();
    for level in levels.iter_mut().skip(1) {
        if chance.percent(15) {
            "+".clone_into(level);
        }
    }
    if chance.percent(15) {
        let kept = chance.index(levels.len()) + 1;
        levels.truncate(kept);
        levels.push("#".to_owned());
    }
    levels.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of MQTT 5.0 §4.7.1 and §4.7.2, both ways.
    #[test]
    fn the_naive_matcher_reads_filters_as_the_specification_does() {
        for (filter, topic, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("a/#", "ab", false),
            ("#", "a/b", true),
            ("#", "$x/a", false),
            ("+/a", "$x/a", false),
            ("$x/#", "$x/a", true),
            ("+", "a", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/+/#", "a", false),
            ("a/+/#", "a/b", true),
            ("a//c", "a//c", true),
            ("a/+/c", "a//c", true),
        ] {
            assert_eq!(matches(filter, topic), expected, "{filter} against {topic}");
        }
    }
}
