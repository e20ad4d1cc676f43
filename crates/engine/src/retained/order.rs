//! The order of topics: by tenant, then level by level.

use std::borrow::Borrow;
use std::cmp::Ordering;

/// A topic that the table owns.
pub(super) struct Key {
    pub tenant: u32,
    pub topic: Box<str>,
}

/// A topic that somebody asks for.
pub(super) struct At<'a> {
    pub tenant: u32,
    pub topic: &'a str,
}

/// What owned and asked topics have in common, so that asking allocates nothing.
pub(super) trait Place {
    fn place(&self) -> (u32, &str);
}

impl Place for Key {
    fn place(&self) -> (u32, &str) {
        (self.tenant, &self.topic)
    }
}

impl Place for At<'_> {
    fn place(&self) -> (u32, &str) {
        (self.tenant, self.topic)
    }
}

impl<'a> At<'a> {
    pub fn as_place(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl<'a> Borrow<dyn Place + 'a> for Key {
    fn borrow(&self) -> &(dyn Place + 'a) {
        self
    }
}

impl Ord for dyn Place + '_ {
    fn cmp(&self, other: &Self) -> Ordering {
        let ((tenant, topic), (other_tenant, other_topic)) = (self.place(), other.place());
        tenant
            .cmp(&other_tenant)
            .then_with(|| compare(topic, other_topic))
    }
}

impl PartialOrd for dyn Place + '_ {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for dyn Place + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for dyn Place + '_ {}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        (self as &dyn Place).cmp(other as &dyn Place)
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Key {}

/// Compares topics bytewise with the slash below every other byte, which is level by level.
pub(super) fn compare(topic: &str, other: &str) -> Ordering {
    let (topic, other) = (topic.as_bytes(), other.as_bytes());
    let same = same_bytes(topic, other);
    // The end sorts below the slash, and the slash below the rest: 0, 1, 2 and up.
    let rank = |text: &[u8]| match text.get(same) {
        None => 0,
        Some(b'/') => 1,
        Some(&byte) => u16::from(byte) + 2,
    };
    rank(topic).cmp(&rank(other))
}

/// How many leading bytes are equal; eight at a time, for topics share long beginnings.
fn same_bytes(topic: &[u8], other: &[u8]) -> usize {
    let mut same = 0;
    let words = topic.chunks_exact(8).zip(other.chunks_exact(8));
    for (word, other_word) in words {
        let differs = word_of(word) ^ word_of(other_word);
        if differs != 0 {
            return same + differs.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    let rest = topic[same..].iter().zip(&other[same..]);
    same + rest
        .take_while(|(byte, other_byte)| byte == other_byte)
        .count()
}

fn word_of(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
