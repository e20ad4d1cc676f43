//! The law: who may do what, evaluated in the plainest way, and the engine's copy of it.

use std::sync::Arc;

use casemate_codec::QoS;
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_engine::{Millis, Principal};

use crate::chance::Chance;
use crate::history::{Invariant, Violation};
use crate::topic;

/// One permission: operation, template of a filter, highest QoS, right to set retain.
#[derive(Clone, Debug)]
struct Line {
    operation: Operation,
    template: &'static str,
    qos_max: QoS,
    retain: bool,
}

/// The permissions of one role.
#[derive(Clone, Debug)]
struct Permissions {
    role: &'static str,
    lines: Vec<Line>,
}

/// One version of the law.
#[derive(Clone, Debug)]
struct Epoch {
    number: u64,
    roles: Vec<Permissions>,
    /// When the first shard may have heard of it.
    posted_at: Millis,
    /// Which shards obey it, and since when all do.
    obeyed_by: Vec<bool>,
    everywhere_at: Option<Millis>,
}

/// Who asks: a proven name, a client id that may stand for `%c`, and roles.
#[derive(Clone, Debug)]
pub struct Asker {
    /// The proven identity.
    pub principal: Arc<Principal>,
    /// The client id where it is bound to the principal.
    pub client_id: Option<String>,
}

/// What the law said between two moments, all versions in force then taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Each version allowed it.
    Always,
    /// Some did.
    Sometimes,
    /// None did.
    Never,
}

/// All versions of the law in a run.
#[derive(Debug)]
pub struct Law {
    epochs: Vec<Epoch>,
    shards: usize,
}

/// Shorthand for a line.
fn line(operation: Operation, template: &'static str, qos_max: QoS, retain: bool) -> Line {
    Line {
        operation,
        template,
        qos_max,
        retain,
    }
}

/// The roles that never change: those who may do much, and those who mean harm.
fn firm_roles() -> Vec<Permissions> {
    use Operation::{Publish, Subscribe};
    let two = QoS::ExactlyOnce;
    vec![
        Permissions {
            role: "full",
            lines: vec![
                line(Publish, "g/#", two, true),
                line(Publish, "p/#", two, true),
                line(Publish, "$x/#", two, true),
                line(Publish, "u/%u/#", two, true),
                line(Publish, "c/%c/#", two, true),
                line(Subscribe, "#", two, false),
                line(Subscribe, "$x/#", two, false),
            ],
        },
        Permissions {
            role: "own",
            lines: vec![
                line(Publish, "u/%u/#", two, true),
                line(Publish, "c/%c/#", two, true),
                line(Publish, "p/+", two, true),
                line(Subscribe, "u/%u/#", two, false),
                line(Subscribe, "c/%c/#", two, false),
                line(Subscribe, "p/#", two, false),
            ],
        },
        Permissions {
            role: "hostile",
            lines: vec![
                line(Publish, "h/#", two, true),
                line(Subscribe, "h/#", two, false),
                line(Subscribe, "p/#", two, false),
            ],
        },
        Permissions {
            role: "probe",
            lines: vec![
                line(Subscribe, "#", two, false),
                line(Subscribe, "$x/#", two, false),
                line(Subscribe, "$SYS/#", two, false),
            ],
        },
    ]
}

/// The role that each version of the law writes anew.
fn shifting_role(chance: &mut Chance, complete: bool) -> Permissions {
    use Operation::{Publish, Subscribe};
    let lines = vec![
        line(Publish, "g/a/#", QoS::ExactlyOnce, true),
        line(Publish, "g/b", QoS::AtLeastOnce, false),
        line(Publish, "g/+", QoS::AtMostOnce, false),
        line(Publish, "p/#", QoS::ExactlyOnce, true),
        line(Subscribe, "g/a/#", QoS::ExactlyOnce, false),
        line(Subscribe, "g/+", QoS::AtLeastOnce, false),
        line(Subscribe, "p/+", QoS::ExactlyOnce, false),
        line(Subscribe, "p/#", QoS::AtMostOnce, false),
        line(Subscribe, "+/b", QoS::ExactlyOnce, false),
    ];
    let lines = lines
        .into_iter()
        .filter(|_| complete || chance.percent(65))
        .collect();
    Permissions {
        role: "half",
        lines,
    }
}

/// A template with the asker's names in it; `None` where it can stand for nothing.
fn filled(template: &str, asker: &Asker) -> Option<String> {
    let mut levels = Vec::new();
    for level in template.split('/') {
        let name = match level {
            "%u" => &*asker.principal.name,
            "%c" => asker.client_id.as_deref()?,
            literal => {
                levels.push(literal);
                continue;
            }
        };
        if name.is_empty() || name.contains(['/', '+', '#']) {
            return None;
        }
        levels.push(name);
    }
    Some(levels.join("/"))
}

/// True where every topic that `filter` matches is also matched by `rule`.
fn covers(rule: &str, filter: &str) -> bool {
    let leading_wildcard = rule.starts_with('#') || rule.starts_with('+');
    if leading_wildcard && filter.starts_with('$') {
        return false;
    }
    let rule: Vec<&str> = rule.split('/').collect();
    let filter: Vec<&str> = filter.split('/').collect();
    for level in 0.. {
        match (rule.get(level), filter.get(level)) {
            (Some(&"#"), _) | (None, None) => return true,
            (Some(&"+"), Some(wanted)) if *wanted != "#" => {}
            (Some(same), Some(wanted)) if same == wanted => {}
            _ => return false,
        }
    }
    false
}

impl Epoch {
    /// The lines of an asker's roles for an operation, filled in.
    fn lines(&self, asker: &Asker, operation: &Operation) -> Vec<(String, QoS, bool)> {
        let mine = |role: &&Permissions| {
            asker
                .principal
                .roles
                .iter()
                .any(|name| &**name == role.role)
        };
        let same = std::mem::discriminant(operation);
        let mut lines = Vec::new();
        for role in self.roles.iter().filter(mine) {
            for line in &role.lines {
                if std::mem::discriminant(&line.operation) == same {
                    if let Some(filter) = filled(line.template, asker) {
                        lines.push((filter, line.qos_max, line.retain));
                    }
                }
            }
        }
        lines
    }

    fn publish(&self, asker: &Asker, topic: &str, qos: QoS, retain: bool) -> bool {
        self.lines(asker, &Operation::Publish)
            .iter()
            .any(|(filter, qos_max, may_retain)| {
                topic::matches(filter, topic) && qos <= *qos_max && (*may_retain || !retain)
            })
    }

    fn subscribe(&self, asker: &Asker, filter: &str) -> Option<QoS> {
        let lines = self.lines(asker, &Operation::Subscribe);
        lines
            .iter()
            .filter(|(rule, ..)| covers(rule, filter))
            .map(|(_, qos, _)| *qos)
            .max()
    }

    fn receive(&self, asker: &Asker, topic: &str) -> Option<QoS> {
        let lines = self.lines(asker, &Operation::Subscribe);
        lines
            .iter()
            .filter(|(rule, ..)| topic::matches(rule, topic))
            .map(|(_, qos, _)| *qos)
            .max()
    }

    /// The same law in the engine's own form.
    fn policy(&self) -> Result<Arc<Policy>, Violation> {
        let mut roles = Vec::new();
        for role in &self.roles {
            let rules = role.lines.iter().enumerate().map(|(place, line)| Rule {
                operation: match line.operation {
                    Operation::Publish => Operation::Publish,
                    Operation::Subscribe => Operation::Subscribe,
                },
                filter: line.template.into(),
                qos_max: line.qos_max,
                retain: line.retain,
                place: format!("{}:{place}", role.role).into(),
            });
            roles.push(Role {
                name: role.role.into(),
                rules: rules.collect(),
            });
        }
        Policy::compile(self.number, roles)
            .map(Arc::new)
            .map_err(|fault| {
                Violation::new(
                    Invariant::Door,
                    format!("the policy was not compiled: {fault}"),
                )
            })
    }
}

impl Law {
    /// The first law, in force in all shards from the start.
    pub fn new(chance: &mut Chance, shards: usize) -> Law {
        let mut roles = firm_roles();
        roles.push(shifting_role(chance, true));
        let first = Epoch {
            number: 1,
            roles,
            posted_at: 0,
            obeyed_by: vec![true; shards],
            everywhere_at: Some(0),
        };
        Law {
            epochs: vec![first],
            shards,
        }
    }

    /// The newest law in the engine's form.
    ///
    /// # Errors
    /// The engine refuses to compile it.
    pub fn policy(&self) -> Result<Arc<Policy>, Violation> {
        self.epochs[self.epochs.len() - 1].policy()
    }

    /// Writes a new law.
    pub fn change(&mut self, now: Millis, chance: &mut Chance, complete: bool) {
        let mut roles = firm_roles();
        roles.push(shifting_role(chance, complete));
        self.epochs.push(Epoch {
            number: self.epochs.len() as u64 + 1,
            roles,
            posted_at: now,
            obeyed_by: vec![false; self.shards],
            everywhere_at: None,
        });
    }

    /// A process begins, with the newest law in each of its shards.
    pub fn begin(&mut self, now: Millis, shards: usize) {
        self.shards = shards;
        if let Some(newest) = self.epochs.last_mut() {
            newest.obeyed_by = vec![true; shards];
            newest.everywhere_at.get_or_insert(now);
        }
    }

    /// A shard says that it obeys a law.
    ///
    /// # Errors
    /// It obeys one that was never written.
    pub fn obeyed(&mut self, now: Millis, shard: usize, number: u64) -> Result<(), Violation> {
        let Some(epoch) = self.epochs.iter_mut().find(|epoch| epoch.number == number) else {
            let words = format!("shard {shard} obeys the unknown policy epoch {number}");
            return Err(Violation::new(Invariant::Door, words));
        };
        epoch.obeyed_by[shard] = true;
        if epoch.obeyed_by.iter().all(|obeyed| *obeyed) {
            epoch.everywhere_at.get_or_insert(now);
        }
        Ok(())
    }

    /// True where every shard obeys the newest law.
    pub fn is_in_force(&self) -> bool {
        self.epochs[self.epochs.len() - 1].everywhere_at.is_some()
    }

    /// The versions that some shard may have obeyed between two moments.
    fn between(&self, from: Millis, to: Millis) -> impl Iterator<Item = &Epoch> {
        self.epochs
            .iter()
            .enumerate()
            .filter_map(move |(place, epoch)| {
                let ended = self.epochs[place + 1..]
                    .iter()
                    .filter_map(|later| later.everywhere_at);
                let until = ended.min().unwrap_or(Millis::MAX);
                (epoch.posted_at <= to && until >= from).then_some(epoch)
            })
    }

    /// Asks each version that counted between two moments.
    fn ask(&self, from: Millis, to: Millis, allows: impl Fn(&Epoch) -> bool) -> Answer {
        let (mut yes, mut no) = (false, false);
        for epoch in self.between(from, to) {
            if allows(epoch) {
                yes = true;
            } else {
                no = true;
            }
        }
        match (yes, no) {
            (true, false) => Answer::Always,
            (true, true) => Answer::Sometimes,
            (false, _) => Answer::Never,
        }
    }

    /// Whether a message may be published.
    pub fn publish(
        &self,
        asker: &Asker,
        (topic, qos, retain): (&str, QoS, bool),
        (from, to): (Millis, Millis),
    ) -> Answer {
        self.ask(from, to, |epoch| epoch.publish(asker, topic, qos, retain))
    }

    /// Whether a topic may be received at all.
    pub fn receive(&self, asker: &Asker, topic: &str, (from, to): (Millis, Millis)) -> Answer {
        self.ask(from, to, |epoch| epoch.receive(asker, topic).is_some())
    }

    /// The QoS caps on receiving a topic that counted between two moments.
    pub fn receive_caps(
        &self,
        asker: &Asker,
        topic: &str,
        (from, to): (Millis, Millis),
    ) -> Vec<QoS> {
        self.between(from, to)
            .filter_map(|epoch| epoch.receive(asker, topic))
            .collect()
    }

    /// What a SUBSCRIBE may be granted, `None` standing for a refusal.
    pub fn grants(
        &self,
        asker: &Asker,
        filter: &str,
        (from, to): (Millis, Millis),
    ) -> Vec<Option<QoS>> {
        self.between(from, to)
            .map(|epoch| epoch.subscribe(asker, filter))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_is_stricter_than_matching() {
        for (rule, filter, expected) in [
            ("a/#", "a", true),
            ("a/#", "a/+/#", true),
            ("a/+", "a/b", true),
            ("a/+", "a/+", true),
            ("a/+", "a/#", false),
            ("a/b", "a/+", false),
            ("#", "+/a", true),
            ("#", "$x/a", false),
            ("+/a", "$x/a", false),
            ("+", "#", false),
        ] {
            assert_eq!(covers(rule, filter), expected, "{rule} over {filter}");
        }
    }
}
