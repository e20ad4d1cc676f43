//! The rules of one role and one operation as a trie, and the walk through it.
//!
//! Filters and topics take the same walk: a level of a filter is a literal to it, except that `+`
//! is covered by no name and no literal, and `#` by nothing but `#`. What covers a filter without
//! wildcards is what matches the topic, so there is one evaluator and no second opinion.

use std::collections::BTreeMap;
use std::ops::Range;

use memchr::{memchr, memchr2, memrchr};

use super::Subject;

/// The root, which is nobody's child: as a child it means that there is none.
const ROOT: u32 = 0;

/// Compiled rules; a level's branches lie in vectors, and nothing is allocated to walk them.
pub(super) struct Trie {
    nodes: Vec<Node>,
    /// Literal branches, those of one node side by side, sorted by length and then by bytes.
    edges: Vec<Edge>,
    /// The text of all edges.
    texts: Vec<u8>,
    /// The rules of each node: those that end there, then those that end in `#` below it.
    cited: Vec<[Range<u32>; 2]>,
    rules: Vec<u32>,
}

struct Node {
    parent: u32,
    /// How the parent leads here.
    branch: Branch,
    /// What is granted to a topic that ends here.
    here: u8,
    /// What the `#` below grants to everything from here on, this level included.
    hash: u8,
    plus: u32,
    user: u32,
    client: u32,
    edges: Range<u32>,
}

struct Edge {
    start: u32,
    length: u32,
    node: u32,
}

/// The branches of a node in the order in which they are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Branch {
    Literal,
    Plus,
    User,
    Client,
    None,
}

/// An end of rules that the walk came by.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    /// The union of what its rules grant; never zero.
    pub grants: u8,
    node: u32,
    is_hash: bool,
}

impl Trie {
    /// Visits every end of rules that match the topic or cover the filter, until `visit` says no.
    ///
    /// Each node is reached at most once, whatever the rules are, for a node has one way to it.
    /// The way back needs no memory: nodes know their parents, and levels are found backwards.
    #[inline]
    pub fn walk(&self, subject: &Subject<'_>, text: &str, mut visit: impl FnMut(End) -> bool) {
        let text = text.as_bytes();
        // [MQTT-4.7.2-1]: nothing but the literal leads to the broker's own topics; nor does a
        // template, or a client named `$SYS` would own them.
        let hidden = text.first() == Some(&b'$');
        let (mut id, mut at, mut from) = (ROOT, 0, Branch::Literal);
        loop {
            let Some(node) = self.nodes.get(id as usize) else {
                return;
            };
            let wild = id != ROOT || !hidden;
            let is_over = at > text.len();
            // Only who arrives begins with the literal; who comes back has ended here before.
            if from == Branch::Literal {
                let (hash, here) = (wild && node.hash != 0, is_over && node.here != 0);
                if hash
                    && !visit(End {
                        grants: node.hash,
                        node: id,
                        is_hash: true,
                    })
                    || here
                        && !visit(End {
                            grants: node.here,
                            node: id,
                            is_hash: false,
                        })
                {
                    return;
                }
            }
            let mut child = ROOT;
            let mut end = at;
            if !is_over {
                end = memchr(b'/', &text[at..]).map_or(text.len(), |length| at + length);
                let level = &text[at..end];
                if level != b"#" {
                    child = self.child(node, level, from, wild, subject);
                } else if at <= 1 && node.plus != ROOT {
                    // `#` and `/#` would match, but for these, a topic without levels and one
                    // without characters. There are none, so `+/#` says here what `#` says.
                    self.visit_hash(node.plus, &mut visit);
                }
            }
            if child != ROOT {
                (id, at, from) = (child, end + 1, Branch::Literal);
            } else if id == ROOT {
                return;
            } else {
                from = node.branch.next();
                at = memrchr(b'/', &text[..at - 1]).map_or(0, |slash| slash + 1);
                id = node.parent;
            }
        }
    }

    /// The numbers of the rules that end there.
    pub fn rules(&self, end: End) -> &[u32] {
        let range = &self.cited[end.node as usize][usize::from(end.is_hash)];
        &self.rules[range.start as usize..range.end as usize]
    }

    fn visit_hash(&self, id: u32, visit: &mut impl FnMut(End) -> bool) {
        let grants = self.nodes[id as usize].hash;
        if grants != 0 {
            visit(End {
                grants,
                node: id,
                is_hash: true,
            });
        }
    }

    /// The next branch for a level, from one kind of branch on.
    #[inline]
    fn child(
        &self,
        node: &Node,
        level: &[u8],
        from: Branch,
        wild: bool,
        subject: &Subject<'_>,
    ) -> u32 {
        if from == Branch::Literal && !node.edges.is_empty() {
            let child = self.literal(node, level);
            if child != ROOT {
                return child;
            }
        }
        if !wild {
            return ROOT;
        }
        if from <= Branch::Plus && node.plus != ROOT {
            return node.plus;
        }
        if from <= Branch::User && node.user != ROOT && names(level, subject.user) {
            return node.user;
        }
        let names_client = |client| names(level, client);
        if from <= Branch::Client && node.client != ROOT && subject.client.is_some_and(names_client)
        {
            return node.client;
        }
        ROOT
    }

    fn literal(&self, node: &Node, level: &[u8]) -> u32 {
        let edges = &self.edges[node.edges.start as usize..node.edges.end as usize];
        let found = edges.binary_search_by(|edge| {
            let length = edge.length as usize;
            let text = &self.texts[edge.start as usize..][..length];
            length.cmp(&level.len()).then_with(|| text.cmp(level))
        });
        found.map_or(ROOT, |index| edges[index].node)
    }
}

impl Branch {
    fn next(self) -> Branch {
        match self {
            Branch::Literal => Branch::Plus,
            Branch::Plus => Branch::User,
            Branch::User => Branch::Client,
            Branch::Client | Branch::None => Branch::None,
        }
    }
}

/// Whether a template that stands for `name` matches a level.
///
/// A name is compared and never becomes part of a filter, so nothing in it can be an instruction;
/// names with a slash equal no level, and empty ones or those with wildcards match nothing.
pub(super) fn names(level: &[u8], name: &str) -> bool {
    level == name.as_bytes() && !level.is_empty() && memchr2(b'+', b'#', level).is_none()
}

/// A trie to which rules are still added.
pub(super) struct Building {
    nodes: Vec<Site>,
}

#[derive(Default)]
struct Site {
    parent: u32,
    branch: Option<Branch>,
    literals: BTreeMap<(usize, Box<str>), u32>,
    plus: u32,
    user: u32,
    client: u32,
    grants: [u8; 2],
    rules: [Vec<u32>; 2],
}

impl Building {
    pub fn new() -> Building {
        Building {
            nodes: vec![Site::default()],
        }
    }

    /// Adds a rule by its number; the filter is valid.
    pub fn add(&mut self, filter: &str, grants: u8, rule: u32) {
        let mut id = ROOT;
        let mut is_hash = false;
        for level in filter.split('/') {
            if level == "#" {
                is_hash = true;
                break;
            }
            id = self.enter(id, level);
        }
        let site = &mut self.nodes[id as usize];
        site.grants[usize::from(is_hash)] |= grants;
        site.rules[usize::from(is_hash)].push(rule);
    }

    fn enter(&mut self, id: u32, level: &str) -> u32 {
        let new = self.nodes.len() as u32;
        let site = &mut self.nodes[id as usize];
        let (branch, child) = match level {
            "+" => (Branch::Plus, &mut site.plus),
            "%u" => (Branch::User, &mut site.user),
            "%c" => (Branch::Client, &mut site.client),
            _ => {
                let key = (level.len(), level.into());
                (Branch::Literal, site.literals.entry(key).or_insert(ROOT))
            }
        };
        if *child != ROOT {
            return *child;
        }
        *child = new;
        self.nodes.push(Site {
            parent: id,
            branch: Some(branch),
            ..Site::default()
        });
        new
    }

    /// Lays the nodes out for walking.
    pub fn finish(self) -> Trie {
        let mut trie = Trie {
            nodes: Vec::with_capacity(self.nodes.len()),
            edges: Vec::new(),
            texts: Vec::new(),
            cited: Vec::with_capacity(self.nodes.len()),
            rules: Vec::new(),
        };
        for site in self.nodes {
            let first_edge = trie.edges.len() as u32;
            for ((length, text), node) in site.literals {
                let start = trie.texts.len() as u32;
                trie.texts.extend_from_slice(text.as_bytes());
                trie.edges.push(Edge {
                    start,
                    length: length as u32,
                    node,
                });
            }
            trie.nodes.push(Node {
                parent: site.parent,
                branch: site.branch.unwrap_or(Branch::None),
                here: site.grants[0],
                hash: site.grants[1],
                plus: site.plus,
                user: site.user,
                client: site.client,
                edges: first_edge..trie.edges.len() as u32,
            });
            trie.cited.push(site.rules.map(|rules| {
                let first = trie.rules.len() as u32;
                trie.rules.extend(rules);
                first..trie.rules.len() as u32
            }));
        }
        trie
    }
}
