//! The retained message of each topic, and the walk that finds those of a filter.
//!
//! Topics are kept in the order in which a tree would list them: a slash sorts below every other
//! byte, so everything under a topic follows it at once. A walk jumps over what its filter cannot
//! match: `+/state` looks at one or two topics for each first level, however many lie under it.

mod order;
mod walk;

use std::collections::BTreeMap;
use std::mem;
use std::ops::Bound;

use order::{At, Key, Place};
use walk::{Jump, Sight};

/// Retained messages by tenant and topic.
pub(crate) struct Retained<M> {
    topics: BTreeMap<Key, Stored<M>>,
    bytes: usize,
}

struct Stored<M> {
    message: M,
    bytes: usize,
}

/// Where a walk has come to.
pub(crate) enum Next<'a, M> {
    /// A message; go on after its topic.
    Found {
        /// Its topic.
        topic: &'a str,
        /// The message.
        message: &'a M,
    },
    /// The budget is used up; go on after this topic, which may be empty.
    Pause {
        /// As [`Retained::next`] takes it.
        after: &'a str,
    },
    /// There is no further message.
    End,
}

impl<M> Retained<M> {
    /// Makes an empty table.
    pub fn new() -> Self {
        Retained {
            topics: BTreeMap::new(),
            bytes: 0,
        }
    }

    /// Keeps a message for a topic and returns the one that it replaces.
    ///
    /// `bytes` is what the message counts in [`Retained::bytes`]; the caller holds the limit.
    pub fn set(&mut self, tenant: u32, topic: &str, message: M, bytes: usize) -> Option<M> {
        self.bytes += bytes;
        let at = At { tenant, topic };
        if let Some(stored) = self.topics.get_mut(at.as_place()) {
            self.bytes -= mem::replace(&mut stored.bytes, bytes);
            return Some(mem::replace(&mut stored.message, message));
        }
        let key = Key {
            tenant,
            topic: topic.into(),
        };
        self.topics.insert(key, Stored { message, bytes });
        None
    }

    /// Forgets the message of a topic and returns it.
    pub fn remove(&mut self, tenant: u32, topic: &str) -> Option<M> {
        let stored = self.topics.remove(At { tenant, topic }.as_place())?;
        self.bytes -= stored.bytes;
        Some(stored.message)
    }

    /// The message of a topic.
    pub fn get(&self, tenant: u32, topic: &str) -> Option<&M> {
        self.topics
            .get(At { tenant, topic }.as_place())
            .map(|stored| &stored.message)
    }

    /// The next message after topic `after` whose topic matches the filter.
    ///
    /// Looks at no more than `budget` topics and takes what it looked at from `budget`. The order
    /// of topics does not change, so that a walk goes on rightly after topics came and went: each
    /// topic that stays is found exactly once. `filter` is valid and carries no `$share/…`.
    pub fn next(
        &self,
        tenant: u32,
        filter: &str,
        after: Option<&str>,
        budget: &mut usize,
    ) -> Next<'_, M> {
        let mut target = String::new();
        let from = match after {
            None => walk::first(filter, &mut target),
            Some(after) => walk::sight(filter, after)
                .jump
                .aim(filter, after, &mut target),
        };
        let mut from = match (from, after) {
            (Jump::End, _) => return Next::End,
            (Jump::Step, Some(after)) => Bound::Excluded(after),
            (_, _) => Bound::Included(target.as_str()),
        };
        let mut last = None;
        loop {
            if *budget == 0 {
                return Next::Pause {
                    after: self.pause(tenant, last, after),
                };
            }
            *budget -= 1;
            let Some((topic, message)) = self.topic_from(tenant, from) else {
                return Next::End;
            };
            let Sight { matches, jump } = walk::sight(filter, topic);
            if matches {
                return Next::Found { topic, message };
            }
            last = Some(topic);
            from = match jump.aim(filter, topic, &mut target) {
                Jump::End => return Next::End,
                Jump::Step => Bound::Excluded(topic),
                _ => Bound::Included(target.as_str()),
            };
        }
    }

    /// Every message with its tenant.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &M)> {
        self.iter_from(None)
    }

    /// Every message with its tenant that stands behind a topic, or all.
    pub fn iter_from(&self, after: Option<(u32, &str)>) -> impl Iterator<Item = (u32, &M)> {
        let after = after.map(|(tenant, topic)| At { tenant, topic });
        let from = match &after {
            Some(at) => Bound::Excluded(at.as_place()),
            None => Bound::Unbounded,
        };
        let found = self.topics.range::<dyn Place, _>((from, Bound::Unbounded));
        found.map(|(key, stored)| (key.tenant, &stored.message))
    }

    /// How many topics have a message.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// The sum of what the messages count.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first topic of a tenant from a bound on.
    fn topic_from(&self, tenant: u32, from: Bound<&str>) -> Option<(&str, &M)> {
        let from = from.map(|topic| At { tenant, topic });
        let from = from.as_ref().map(At::as_place);
        let (key, stored) = self
            .topics
            .range::<dyn Place, _>((from, Bound::Unbounded))
            .next()?;
        (key.tenant == tenant).then_some((&*key.topic, &stored.message))
    }

    /// A topic of the table behind which the walk goes on without leaving anything out.
    fn pause<'a>(&'a self, tenant: u32, last: Option<&'a str>, after: Option<&str>) -> &'a str {
        if let Some(last) = last {
            return last;
        }
        let Some(topic) = after else { return "" };
        let until = At { tenant, topic };
        let until = Bound::Included(until.as_place());
        match self
            .topics
            .range::<dyn Place, _>((Bound::Unbounded, until))
            .next_back()
        {
            Some((key, _)) if key.tenant == tenant => &key.topic,
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests;
