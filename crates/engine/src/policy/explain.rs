//! Why the policy decided as it did: for operators, in the words of their own rules.

use std::fmt;

use casemate_codec::QoS;

use super::trie::names;
use super::{rights, Compiled, Operation, Policy, Rule, Subject};

/// A decision and what it rests on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub is_allowed: bool,
    /// What it rests on.
    pub cause: Cause,
    /// The rule that decided, or where none allows it, the one that came nearest.
    pub rule: Option<Cited>,
}

/// What a decision rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// A rule allows it; a subscription gets no higher QoS than this.
    Allowed {
        /// The highest QoS that the rule gives.
        qos_max: QoS,
    },
    /// The subject's roles were found under another policy.
    OldEpoch,
    /// The subject has no role that this policy knows.
    NoRole,
    /// No rule of the subject's roles matches the topic or covers the filter.
    NoRule,
    /// Rules do, but only for messages that are not retained.
    Retain,
    /// Rules do, but only for a lower QoS.
    QoS,
}

/// A rule as its operator can find it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cited {
    /// The role it belongs to.
    pub role: Box<str>,
    /// Its filter, as written.
    pub filter: Box<str>,
    /// Where it was written.
    pub place: Box<str>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cause {
            Cause::Allowed { qos_max } => write!(f, "allowed up to QoS {}", qos_max as u8),
            Cause::OldEpoch => f.write_str("denied: the roles were found under another policy"),
            Cause::NoRole => f.write_str("denied: no role of the policy"),
            Cause::NoRule => f.write_str("denied: no rule allows it"),
            Cause::Retain => f.write_str("denied: no rule allows it with retain"),
            Cause::QoS => f.write_str("denied: no rule allows it with this QoS"),
        }?;
        match &self.rule {
            Some(rule) if self.is_allowed => write!(f, "; {rule}"),
            Some(rule) => write!(f, "; nearest: {rule}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Cited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (role {:?})", self.place, self.filter, self.role)
    }
}

pub(super) fn explain(
    policy: &Policy,
    subject: &Subject<'_>,
    operation: Operation,
    text: &str,
    qos: QoS,
    retain: bool,
) -> Explanation {
    if subject.roles.epoch != policy.epoch {
        return denied(Cause::OldEpoch, None);
    }
    let mut reached: Option<(&Compiled, &Rule)> = None;
    let mut has_role = false;
    for role in policy.roles_of(subject) {
        has_role = true;
        let trie = role.trie(operation);
        trie.walk(subject, text, |end| {
            for &number in trie.rules(end) {
                let rule = &role.rules[number as usize];
                // Of several rules the one that gives most decides; of equals the first.
                let gives =
                    |rule: &Rule| (shortfall(rule, qos, retain).is_none(), rights::of(rule));
                if reached.is_none_or(|(_, best)| gives(rule) > gives(best)) {
                    reached = Some((role, rule));
                }
            }
            true
        });
    }
    let Some((role, rule)) = reached else {
        let cause = if has_role {
            Cause::NoRule
        } else {
            Cause::NoRole
        };
        return denied(cause, nearest(policy, subject, operation, text));
    };
    match shortfall(rule, qos, retain) {
        Some(cause) => denied(cause, Some(cite(role, rule))),
        None => Explanation {
            is_allowed: true,
            cause: Cause::Allowed {
                qos_max: rule.qos_max,
            },
            rule: Some(cite(role, rule)),
        },
    }
}

/// What a rule that matches still does not allow. A subscription is only lowered in its QoS.
fn shortfall(rule: &Rule, qos: QoS, retain: bool) -> Option<Cause> {
    match rule.operation {
        Operation::Subscribe => None,
        Operation::Publish if qos > rule.qos_max => Some(Cause::QoS),
        Operation::Publish if retain && !rule.retain => Some(Cause::Retain),
        Operation::Publish => None,
    }
}

/// The rule that is most like the text; none where nothing is alike.
fn nearest(
    policy: &Policy,
    subject: &Subject<'_>,
    operation: Operation,
    text: &str,
) -> Option<Cited> {
    let mut best = None;
    let mut best_likeness = 0;
    for role in policy.roles_of(subject) {
        for rule in role.rules.iter().filter(|rule| rule.operation == operation) {
            let likeness = likeness(&rule.filter, text, subject);
            if likeness > best_likeness {
                (best, best_likeness) = (Some(cite(role, rule)), likeness);
            }
        }
    }
    best
}

/// Counts levels that agree; a word says more about what was meant than a wildcard does.
fn likeness(filter: &str, text: &str, subject: &Subject<'_>) -> usize {
    let hidden = text.starts_with('$') && filter.split('/').next() != text.split('/').next();
    if hidden {
        return 0;
    }
    let agree = |(wanted, level): (&str, &str)| match wanted {
        "+" | "#" => usize::from(level != "#"),
        "%u" => usize::from(names(level.as_bytes(), subject.user)),
        "%c" => {
            let names_client = |client| names(level.as_bytes(), client);
            usize::from(subject.client.is_some_and(names_client))
        }
        wanted => 2 * usize::from(wanted == level),
    };
    filter.split('/').zip(text.split('/')).map(agree).sum()
}

fn cite(role: &Compiled, rule: &Rule) -> Cited {
    let (filter, place) = (rule.filter.clone(), rule.place.clone());
    Cited {
        role: role.name.clone(),
        filter,
        place,
    }
}

fn denied(cause: Cause, rule: Option<Cited>) -> Explanation {
    Explanation {
        is_allowed: false,
        cause,
        rule,
    }
}
