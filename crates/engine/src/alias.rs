//! Topic aliases: those that a client sets, and those that the broker sets as far as it may.

use std::num::NonZeroU16;
use std::rc::Rc;

use hashbrown::HashMap;

/// Topic aliases that a client has set on its connection.
#[derive(Default)]
#[allow(
    clippy::box_collection,
    reason = "eight bytes instead of twenty-four for those who set none"
)]
pub(crate) struct AliasesIn(Option<Box<Vec<Option<Rc<str>>>>>);

impl AliasesIn {
    /// The topic that an alias means, which is `topic` from now on unless that is empty; nothing
    /// where it was never set. `alias` is 1 or more, and what we allow at most.
    pub fn topic(&mut self, alias: u16, topic: &str) -> Option<Rc<str>> {
        let topics = self.0.get_or_insert_default();
        let index = usize::from(alias) - 1;
        if topics.len() <= index {
            topics.resize(index + 1, None);
        }
        if !topic.is_empty() {
            topics[index] = Some(topic.into());
        }
        topics[index].clone()
    }
}

/// Topic aliases that we have set on a connection; none without the client's leave.
pub(crate) struct AliasesOut {
    max: u16,
    topics: HashMap<Box<str>, NonZeroU16, ahash::RandomState>,
}

impl AliasesOut {
    pub fn new(max: u16, hasher: ahash::RandomState) -> AliasesOut {
        AliasesOut {
            max,
            topics: HashMap::with_hasher(hasher),
        }
    }

    /// The alias for a topic, and whether the client knows it already.
    pub fn alias(&mut self, topic: &str) -> Option<(NonZeroU16, bool)> {
        if let Some(alias) = self.topics.get(topic) {
            return Some((*alias, true));
        }
        let next = self.topics.len() as u16 + 1;
        // [MQTT-3.3.2-11] Beyond the client's maximum a topic is written out each time.
        let alias = NonZeroU16::new(next).filter(|_| next <= self.max)?;
        self.topics.insert(topic.into(), alias);
        Some((alias, false))
    }

    /// The packet that should have set an alias never leaves.
    pub fn forget(&mut self, topic: &str) {
        self.topics.remove(topic);
    }
}
