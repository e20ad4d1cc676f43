//! Who may do what: rules compiled into tries, and the proofs that they let something through.
//!
//! The door of this room gives no booleans. Who routes a message holds a [`Permit`], who delivers
//! one a [`ReceivePermit`], who subscribes a [`SubscribeRight`]; none of them can be made
//! elsewhere, so that a way around the policy does not compile. What no rule allows is denied.

mod explain;
mod rights;
mod trie;

use std::fmt;
use std::slice;

use casemate_codec::{filter_fault, QoS, TextFault};

pub use explain::{Cause, Cited, Explanation};
pub use rights::{Permit, PublishRights, ReceivePermit, SubscribeRight};
use trie::{Building, Trie};

/// What a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// To send a message to a topic.
    Publish,
    /// To ask for a filter's messages, and to receive them.
    Subscribe,
}

/// One line of a policy: it allows; nothing needs to deny.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it allows.
    pub operation: Operation,
    /// Where: a topic filter whose levels may be `%u` (the proven name) or `%c` (the client id).
    pub filter: Box<str>,
    /// The highest QoS; a subscription that asks for more gets this.
    pub qos_max: QoS,
    /// Whether a message may be retained; means nothing to subscriptions.
    pub retain: bool,
    /// Where it was written, such as `policy.toml:12`; shown to operators only.
    pub place: Box<str>,
}

/// Rules under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Role {
    /// Unique in its policy.
    pub name: Box<str>,
    /// In any order.
    pub rules: Vec<Rule>,
}

/// Why a policy does not compile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: role {role:?}: {what}")]
pub struct PolicyFault {
    /// The role that is wrong.
    pub role: Box<str>,
    /// The place of the rule that is wrong.
    pub place: Box<str>,
    /// What is wrong with it.
    pub what: RuleFault,
}

/// What is wrong with a rule or its role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleFault {
    /// No topic filter is written like this.
    #[error("the filter is not valid: {0}")]
    Filter(TextFault),
    /// A group's messages are those of the filter behind its name.
    #[error("write the filter without $share and the group's name")]
    Share,
    /// A part of a level cannot be a name, and no other templates exist.
    #[error("% stands only in %u or %c, and these fill their level")]
    Template,
    /// One name, two sets of rules: which did the operator mean?
    #[error("there are two roles of this name")]
    RoleTwice,
}

/// The rules of all roles, compiled; shared by every shard.
pub struct Policy {
    epoch: u64,
    /// Sorted by name; a role's number is its index.
    roles: Vec<Compiled>,
}

struct Compiled {
    name: Box<str>,
    publish: Trie,
    subscribe: Trie,
    rules: Vec<Rule>,
}

/// The roles of one principal as one policy numbers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSet {
    epoch: u64,
    numbers: Numbers,
}

/// Nearly every principal has one role: that needs no memory of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Numbers {
    One(u32),
    Others(Box<[u32]>),
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// The proven name; never what CONNECT claims.
    pub user: &'a str,
    /// The client id where it is bound to the name; without it `%c` matches nothing.
    pub client: Option<&'a str>,
    /// As [`Policy::resolve`] gave them; under another epoch they allow nothing.
    pub roles: &'a RoleSet,
}

impl Numbers {
    fn as_slice(&self) -> &[u32] {
        match self {
            Numbers::One(only) => slice::from_ref(only),
            Numbers::Others(others) => others,
        }
    }
}

impl Policy {
    /// Compiles roles; `epoch` is new for every policy of one broker.
    ///
    /// # Errors
    /// [`PolicyFault`] names the first rule that is wrong. There is no policy then: a broker keeps
    /// the one that it has, and never runs with half of the new one.
    pub fn compile(epoch: u64, roles: Vec<Role>) -> Result<Policy, PolicyFault> {
        let mut roles = roles
            .into_iter()
            .map(compile_role)
            .collect::<Result<Vec<_>, _>>()?;
        roles.sort_by(|one, other| one.name.cmp(&other.name));
        if let Some(pair) = roles.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let place = pair[1]
                .rules
                .first()
                .map_or("policy".into(), |rule| rule.place.clone());
            return Err(PolicyFault {
                role: pair[1].name.clone(),
                place,
                what: RuleFault::RoleTwice,
            });
        }
        Ok(Policy { epoch, roles })
    }

    /// The policy of a broker that has none.
    pub fn deny_all(epoch: u64) -> Policy {
        Policy {
            epoch,
            roles: Vec::new(),
        }
    }

    /// The number under which this policy is in force.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Finds the roles of these names; unknown names give nothing.
    pub fn resolve(&self, names: &[Box<str>]) -> RoleSet {
        let number = |name: &str| {
            let found = self.roles.binary_search_by(|role| (*role.name).cmp(name));
            found.ok().map(|index| index as u32)
        };
        let mut roles: Vec<u32> = names.iter().filter_map(|name| number(name)).collect();
        roles.sort_unstable();
        roles.dedup();
        RoleSet {
            epoch: self.epoch,
            numbers: match roles[..] {
                [only] => Numbers::One(only),
                _ => Numbers::Others(roles.into()),
            },
        }
    }

    /// What may be published on a topic.
    pub fn publish(&self, subject: &Subject<'_>, topic: &str) -> PublishRights {
        PublishRights::from_bits(self.grants(subject, Operation::Publish, topic))
    }

    /// Whether a filter, without its `$share/…`, may be subscribed to.
    ///
    /// One rule must cover the whole filter: every topic that the filter matches. `a/+` covers
    /// `a/b` and `a/+` but not `a/#`; `a/#` covers `a`, `a/b/#` and `a/+`.
    pub fn subscribe(&self, subject: &Subject<'_>, filter: &str) -> Option<SubscribeRight> {
        SubscribeRight::from_bits(self.grants(subject, Operation::Subscribe, filter))
    }

    /// Whether a message of this topic may be received: a subscribe rule matches the topic itself.
    pub fn receive(&self, subject: &Subject<'_>, topic: &str) -> Option<ReceivePermit> {
        ReceivePermit::from_bits(self.grants(subject, Operation::Subscribe, topic))
    }

    /// Decides as the other doors do and says why; allocates, for people and not for messages.
    pub fn explain(
        &self,
        subject: &Subject<'_>,
        operation: Operation,
        topic_or_filter: &str,
        qos: QoS,
        retain: bool,
    ) -> Explanation {
        explain::explain(self, subject, operation, topic_or_filter, qos, retain)
    }

    /// The union of what the rules of the subject's roles grant.
    fn grants(&self, subject: &Subject<'_>, operation: Operation, text: &str) -> u8 {
        let all = rights::all(operation);
        let mut grants = 0;
        for role in self.roles_of(subject) {
            role.trie(operation).walk(subject, text, |end| {
                grants |= end.grants;
                grants != all
            });
            if grants == all {
                break;
            }
        }
        grants
    }

    /// The roles of a subject; none where they were resolved under another epoch.
    fn roles_of<'a>(&'a self, subject: &Subject<'a>) -> impl Iterator<Item = &'a Compiled> {
        let roles = if subject.roles.epoch == self.epoch {
            subject.roles.numbers.as_slice()
        } else {
            &[]
        };
        roles
            .iter()
            .filter_map(|&role| self.roles.get(role as usize))
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Policy {{ epoch: {}, roles: {} }}",
            self.epoch,
            self.roles.len()
        )
    }
}

impl Compiled {
    fn trie(&self, operation: Operation) -> &Trie {
        match operation {
            Operation::Publish => &self.publish,
            Operation::Subscribe => &self.subscribe,
        }
    }
}

fn compile_role(role: Role) -> Result<Compiled, PolicyFault> {
    let (mut publish, mut subscribe) = (Building::new(), Building::new());
    for (number, rule) in role.rules.iter().enumerate() {
        if let Some(what) = rule_fault(&rule.filter) {
            return Err(PolicyFault {
                role: role.name,
                place: rule.place.clone(),
                what,
            });
        }
        let building = match rule.operation {
            Operation::Publish => &mut publish,
            Operation::Subscribe => &mut subscribe,
        };
        building.add(&rule.filter, rights::of(rule), number as u32);
    }
    Ok(Compiled {
        name: role.name,
        publish: publish.finish(),
        subscribe: subscribe.finish(),
        rules: role.rules,
    })
}

/// What is wrong with a rule's filter.
fn rule_fault(filter: &str) -> Option<RuleFault> {
    if filter.split('/').next() == Some("$share") {
        return Some(RuleFault::Share);
    }
    if let Some(fault) = filter_fault(filter) {
        return Some(RuleFault::Filter(fault));
    }
    // A name inside a level (`dev-%u`) would make two names out of one by their hyphen.
    let is_wrong = |level: &str| level.contains('%') && level != "%u" && level != "%c";
    filter
        .split('/')
        .any(is_wrong)
        .then_some(RuleFault::Template)
}

#[cfg(test)]
mod tests;
