//! Who stands at which filter, and who of them a topic reaches.
//!
//! A trie of levels in one vector of nodes. Children are found through one table keyed by (parent,
//! level), so that a node costs nothing for the children it does not have. A filter that shares no
//! further level with any other is one node: the node keeps the rest of the filter as its *tail*,
//! and is unfolded when a second filter comes the same way. A million devices with a branch of
//! their own therefore cost a million nodes, not a node for each level of each branch.

mod children;
mod entries;
mod text;

use std::mem;

use memchr::memchr;

use children::Children;
use entries::Entries;
use text::{Text, Texts};

/// The parent of roots, and the end of the free list.
const NOBODY: u32 = u32::MAX;

/// Bits of [`Node::below`]; the others count the children whose level is a literal.
const PLUS: u32 = 1 << 31;
const HASH: u32 = 1 << 30;
const TAIL: u32 = 1 << 29;
const LITERALS: u32 = TAIL - 1;

/// An empty tree that was larger than this many nodes gives its memory back.
const NODES_KEPT: usize = 1024;

/// Filters and who stands at them; matched against topics.
pub(crate) struct Tree<T> {
    children: Children,
    nodes: Vec<Node<T>>,
    texts: Texts,
    /// First of the free nodes, which are linked through `parent`.
    free: u32,
    /// Nodes in use.
    nodes_used: usize,
    entries: usize,
}

/// One level of a filter, or (with `TAIL`) that level and everything that follows it.
struct Node<T> {
    text: Text,
    parent: u32,
    below: u32,
    entries: Entries<T>,
}

/// A filter by its place in the tree; it means the same as long as anybody stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FilterId(u32);

impl FilterId {
    #[cfg(test)]
    pub fn of(node: u32) -> FilterId {
        FilterId(node)
    }
}

/// What an insertion did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Inserted<T> {
    /// Where the entry stands.
    pub filter: FilterId,
    /// The entry that stood in its place.
    pub replaced: Option<T>,
}

impl<T> Tree<T> {
    /// Makes an empty tree; hashing is keyed by `seeds`, for peers choose the levels.
    pub fn new(seeds: [u64; 4]) -> Self {
        Tree {
            children: Children::new(seeds),
            nodes: Vec::new(),
            texts: Texts::new(),
            free: NOBODY,
            nodes_used: 0,
            entries: 0,
        }
    }

    /// Puts an entry at a filter; an entry for which `same` holds is replaced and returned.
    ///
    /// `filter` is valid by [`casemate_codec::filter_fault`] and carries no `$share/…`.
    pub fn insert(
        &mut self,
        tenant: u32,
        filter: &str,
        entry: T,
        same: impl Fn(&T) -> bool,
    ) -> Inserted<T> {
        let mut node = match self.root(tenant) {
            Some(root) => root,
            None => self.add(NOBODY, &tenant.to_be_bytes(), 0, Entries::None),
        };
        let mut rest = filter.as_bytes();
        loop {
            let (level, after) = cut(rest);
            let Some(child) = self.child(node, level) else {
                let tail = if after.is_some() { TAIL } else { 0 };
                let leaf = self.add(node, rest, tail, Entries::One(entry));
                self.entries += 1;
                return Inserted::new(leaf, None);
            };
            let is_tail = self.nodes[child as usize].below & TAIL != 0;
            let is_here = if is_tail {
                self.texts.read(&self.nodes[child as usize].text) == rest
            } else {
                after.is_none()
            };
            if is_here {
                let replaced = self.nodes[child as usize].entries.put(entry, same);
                self.entries += usize::from(replaced.is_none());
                return Inserted::new(child, replaced);
            }
            let child = if is_tail {
                self.unfold(child, after)
            } else {
                child
            };
            match after {
                Some(after) => (node, rest) = (child, after),
                // The filter ends where a tail went on: the node above it takes the entry.
                None => {
                    self.nodes[child as usize].entries = Entries::One(entry);
                    self.entries += 1;
                    return Inserted::new(child, None);
                }
            }
        }
    }

    /// Takes the entry for which `same` holds away from a filter, and every node nobody needs.
    pub fn remove(&mut self, tenant: u32, filter: &str, same: impl Fn(&T) -> bool) -> Option<T> {
        let filter = self.find(tenant, filter)?;
        self.remove_at(filter, same)
    }

    /// Takes the entry for which `same` holds away from a filter that somebody stands at.
    pub fn remove_at(&mut self, filter: FilterId, same: impl Fn(&T) -> bool) -> Option<T> {
        let entries = &mut self.nodes[filter.0 as usize].entries;
        let removed = entries.take(same)?;
        self.entries -= 1;
        self.prune(filter.0);
        Some(removed)
    }

    /// The entries at exactly this filter.
    pub fn get(&self, tenant: u32, filter: &str) -> &[T] {
        self.find(tenant, filter)
            .map_or(&[], |filter| self.at(filter))
    }

    /// The entries at a filter that somebody stands at.
    pub fn at(&self, filter: FilterId) -> &[T] {
        self.nodes[filter.0 as usize].entries.as_slice()
    }

    /// The text of a filter that somebody stands at.
    pub fn text(&self, filter: FilterId) -> String {
        let mut levels = Vec::new();
        let mut node = &self.nodes[filter.0 as usize];
        // The root stands for the tenant, and is no level.
        while node.parent != NOBODY {
            levels.push(self.texts.read(&node.text));
            node = &self.nodes[node.parent as usize];
        }
        levels.reverse();
        // Cannot fail: the levels were cut out of a text at its slashes.
        String::from_utf8(levels.join(&b'/')).unwrap_or_default()
    }

    /// Visits every entry whose filter matches the topic, each once.
    ///
    /// No recursion: 65,535 levels cost a heap of ways, never the thread's stack. Each node on a
    /// matching way is looked at once, and no other node is.
    pub fn matches(&self, tenant: u32, topic: &str, mut visit: impl FnMut(&T)) {
        let Some(root) = self.root(tenant) else {
            return;
        };
        let topic = topic.as_bytes();
        // [MQTT-4.7.2-1] [MQTT-3.1.1 4.7.2-1]: the broker's own topics need the `$` in the filter.
        let hidden = topic.first() == Some(&b'$');
        let mut ways = Ways::new();
        let (mut node, mut at) = (root, 0);
        loop {
            let below = self.nodes[node as usize].below;
            let wild = !(hidden && node == root);
            if below & HASH != 0 && wild {
                if let Some(child) = self.child(node, b"#") {
                    self.nodes[child as usize]
                        .entries
                        .as_slice()
                        .iter()
                        .for_each(&mut visit);
                }
            }
            if at > topic.len() {
                self.nodes[node as usize]
                    .entries
                    .as_slice()
                    .iter()
                    .for_each(&mut visit);
            } else {
                let end = memchr(b'/', &topic[at..]).map_or(topic.len(), |length| at + length);
                let level = &topic[at..end];
                if below & PLUS != 0 && wild {
                    self.enter(node, b"+", topic, end + 1, &mut ways, &mut visit);
                }
                // A topic never has these levels; were it to come, it must not name a filter.
                if below & LITERALS != 0 && level != b"+" && level != b"#" {
                    self.enter(node, level, topic, end + 1, &mut ways, &mut visit);
                }
            }
            match ways.pop() {
                Some(way) => (node, at) = way,
                None => return,
            }
        }
    }

    /// How many entries there are.
    #[cfg(test)]
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// How many nodes there are; a bound for the memory behind the entries.
    #[cfg(test)]
    pub fn nodes(&self) -> usize {
        self.nodes_used
    }

    /// Follows one child: a tail is decided here, other nodes are left for later.
    #[inline]
    fn enter(
        &self,
        parent: u32,
        level: &[u8],
        topic: &[u8],
        at: usize,
        ways: &mut Ways,
        visit: &mut impl FnMut(&T),
    ) {
        let Some(child) = self.child(parent, level) else {
            return;
        };
        let node = &self.nodes[child as usize];
        if node.below & TAIL == 0 {
            ways.push(child, at);
        } else if tail_matches(
            &self.texts.read(&node.text)[level.len() + 1..],
            topic.get(at..),
        ) {
            node.entries.as_slice().iter().for_each(visit);
        }
    }

    fn root(&self, tenant: u32) -> Option<u32> {
        self.child(NOBODY, &tenant.to_be_bytes())
    }

    /// The child of `parent` whose first level is `level`.
    #[inline]
    fn child(&self, parent: u32, level: &[u8]) -> Option<u32> {
        let is_it = |id: u32| {
            let node = &self.nodes[id as usize];
            if node.parent != parent {
                return false;
            }
            let text = self.texts.read(&node.text);
            if node.below & TAIL == 0 {
                text == level
            } else {
                // No level has a slash in it, so the first one behind the level ends it.
                text.len() > level.len() && text[level.len()] == b'/' && text.starts_with(level)
            }
        };
        self.children.find(parent, level, is_it)
    }

    /// The place of exactly this filter, where there is one; perhaps only others' levels.
    pub fn find(&self, tenant: u32, filter: &str) -> Option<FilterId> {
        let mut node = self.root(tenant)?;
        let mut rest = filter.as_bytes();
        loop {
            let (level, after) = cut(rest);
            node = self.child(node, level)?;
            let found = &self.nodes[node as usize];
            if found.below & TAIL != 0 {
                return (self.texts.read(&found.text) == rest).then_some(FilterId(node));
            }
            match after {
                Some(after) => rest = after,
                None => return Some(FilterId(node)),
            }
        }
    }

    /// Makes a node and tells its parent.
    fn add(&mut self, parent: u32, text: &[u8], below: u32, entries: Entries<T>) -> u32 {
        let node = Node {
            text: self.texts.keep(text),
            parent,
            below,
            entries,
        };
        let id = self.place(node);
        self.attach(id, first_level(text, below));
        self.nodes_used += 1;
        id
    }

    /// Lets a node be found below its parent.
    fn attach(&mut self, id: u32, level: &[u8]) {
        let parent = self.nodes[id as usize].parent;
        if parent != NOBODY {
            let branches = &mut self.nodes[parent as usize].below;
            match level {
                b"+" => *branches |= PLUS,
                b"#" => *branches |= HASH,
                _ => *branches += 1,
            }
        }
        let (nodes, texts) = (&self.nodes, &self.texts);
        let key = |id: u32| (nodes[id as usize].parent, nodes[id as usize].level(texts));
        self.children.insert(parent, level, id, key);
    }

    /// Lets a node be found below its parent no more.
    fn detach(&mut self, id: u32) {
        let node = &self.nodes[id as usize];
        let (parent, level) = (node.parent, node.level(&self.texts));
        self.children.remove(parent, level, id);
        let wildcard = match level {
            b"+" => PLUS,
            b"#" => HASH,
            _ => 0,
        };
        if let Some(parent) = self.nodes.get_mut(parent as usize) {
            match wildcard {
                0 => parent.below -= 1,
                bit => parent.below &= !bit,
            }
        }
    }

    /// Puts a node into a free place or a new one.
    fn place(&mut self, node: Node<T>) -> u32 {
        if self.free != NOBODY {
            let id = self.free;
            self.free = mem::replace(&mut self.nodes[id as usize], node).parent;
            return id;
        }
        let id = self.nodes.len();
        // Half a billion nodes are 30 GB; the limits on sessions and subscriptions end before.
        assert!(id < LITERALS as usize, "the subscription tree is full");
        text::grow(&mut self.nodes, 1);
        self.nodes.push(node);
        id as u32
    }

    /// Puts nodes above a tail, as far as `after` goes the same way; gives the first of them.
    ///
    /// Who stands at the tail stays in its node: its place is what sessions know the filter by.
    fn unfold(&mut self, leaf: u32, after: Option<&[u8]>) -> u32 {
        self.detach(leaf);
        let text = mem::replace(&mut self.nodes[leaf as usize].text, Text::EMPTY);
        let whole = self.texts.read(&text).to_vec();
        self.texts.forget(text);
        let (level, tail) = cut(&whole);
        let parent = self.nodes[leaf as usize].parent;
        let first = self.add(parent, level, 0, Entries::None);
        let (mut parent, mut rest, mut after) = (first, tail.unwrap_or_default(), after);
        // All at once: level by level the text would be copied once for each of its levels.
        while let (Some(other), (level, Some(next))) = (after, cut(rest)) {
            let (other_level, other_next) = cut(other);
            if other_level != level {
                break;
            }
            parent = self.add(parent, level, 0, Entries::None);
            (rest, after) = (next, other_next);
        }
        let (level, next) = cut(rest);
        let text = self.texts.keep(rest);
        let node = &mut self.nodes[leaf as usize];
        node.parent = parent;
        node.below = if next.is_some() { TAIL } else { 0 };
        node.text = text;
        self.attach(leaf, level);
        first
    }

    /// Removes a node that nobody needs, then its parent, up to the root.
    fn prune(&mut self, node: u32) {
        let mut id = node;
        while id != NOBODY {
            let node = &self.nodes[id as usize];
            if node.below & !TAIL != 0 || !node.entries.as_slice().is_empty() {
                break;
            }
            self.detach(id);
            let node = &mut self.nodes[id as usize];
            node.below = 0;
            let parent = mem::replace(&mut node.parent, self.free);
            self.texts.forget(mem::replace(&mut node.text, Text::EMPTY));
            self.free = id;
            self.nodes_used -= 1;
            id = parent;
        }
        if self.nodes_used == 0 && self.nodes.len() > NODES_KEPT {
            self.nodes = Vec::new();
            self.free = NOBODY;
            self.texts = Texts::new();
            self.children.reset();
        }
    }
}

impl<T> Inserted<T> {
    fn new(node: u32, replaced: Option<T>) -> Inserted<T> {
        let filter = FilterId(node);
        Inserted { filter, replaced }
    }
}

impl<T> Node<T> {
    /// The level under which the parent knows this node.
    fn level<'a>(&'a self, texts: &'a Texts) -> &'a [u8] {
        first_level(texts.read(&self.text), self.below)
    }
}

/// The first level of a node's text. Only a tail is cut: a tenant's bytes may hold a slash.
fn first_level(text: &[u8], below: u32) -> &[u8] {
    if below & TAIL == 0 {
        text
    } else {
        cut(text).0
    }
}

/// The first level and what comes behind its slash; an empty level is a level.
#[inline]
fn cut(text: &[u8]) -> (&[u8], Option<&[u8]>) {
    match memchr(b'/', text) {
        Some(slash) => (&text[..slash], Some(&text[slash + 1..])),
        None => (text, None),
    }
}

/// Whether the rest of a filter matches the rest of a topic, which is none where the topic ended.
fn tail_matches(filter: &[u8], topic: Option<&[u8]>) -> bool {
    let (mut filter, mut topic) = (filter, topic);
    loop {
        let (wanted, filter_next) = cut(filter);
        if wanted == b"#" {
            return true;
        }
        let Some(rest) = topic else { return false };
        let (level, topic_next) = cut(rest);
        // [MQTT-4.7.3-4] [MQTT-3.1.1 4.7.3-4]: bytes are compared as they are.
        if wanted != b"+" && wanted != level {
            return false;
        }
        match filter_next {
            Some(next) => (filter, topic) = (next, topic_next),
            None => return topic_next.is_none(),
        }
    }
}

/// Nodes still to be looked at, each with the place in the topic; on the heap only when many.
struct Ways {
    first: [(u32, u32); 16],
    first_used: usize,
    more: Vec<(u32, u32)>,
}

impl Ways {
    fn new() -> Ways {
        Ways {
            first: [(0, 0); 16],
            first_used: 0,
            more: Vec::new(),
        }
    }

    #[inline]
    fn push(&mut self, node: u32, at: usize) {
        // A topic has at most 65,535 bytes (MQTT 5.0 §4.7.3), so the place in it fits.
        let way = (node, at as u32);
        if self.first_used < self.first.len() {
            self.first[self.first_used] = way;
            self.first_used += 1;
        } else {
            self.more.push(way);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<(u32, usize)> {
        let (node, at) = match self.more.pop() {
            Some(way) => way,
            None => {
                self.first_used = self.first_used.checked_sub(1)?;
                self.first[self.first_used]
            }
        };
        Some((node, at as usize))
    }
}

#[cfg(test)]
mod tests;
