//! The topic aliases that the broker sets, as far as a client allows.

use std::num::NonZeroU16;

use hashbrown::HashMap;

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
