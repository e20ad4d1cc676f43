//! How a filter sees one topic: does it match, and where may the next match lie at the soonest.

use memchr::memchr;

/// The sight of one topic through a filter.
pub(super) struct Sight {
    pub matches: bool,
    pub jump: Jump,
}

/// Where to go on after a topic; always behind it, and never behind a match.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Jump {
    /// The very next topic.
    Step,
    /// The first `topic_bytes` of the topic, then the literal levels of the filter from
    /// `filter_from` on.
    Into {
        topic_bytes: usize,
        filter_from: usize,
    },
    /// Behind everything under the first `topic_bytes` of the topic.
    Past { topic_bytes: usize },
    /// Behind every topic that begins with `$`.
    PastHidden,
    /// Nowhere.
    End,
}

impl Jump {
    /// Writes the topic to go to, where there is one, and returns the jump itself.
    pub fn aim(self, filter: &str, topic: &str, target: &mut String) -> Jump {
        target.clear();
        match self {
            Jump::Step | Jump::End => {}
            Jump::Into {
                topic_bytes,
                filter_from,
            } => {
                target.push_str(&topic[..topic_bytes]);
                target.push_str(literals(&filter[filter_from..]));
            }
            Jump::Past { topic_bytes } => {
                target.push_str(&topic[..topic_bytes]);
                // No topic has U+0000 (MQTT 5.0 §4.7.3): above the slash, below every other byte.
                target.push('\0');
            }
            Jump::PastHidden => target.push('%'),
        }
        self
    }
}

/// Where the walk of a filter begins.
pub(super) fn first(filter: &str, target: &mut String) -> Jump {
    Jump::Into {
        topic_bytes: 0,
        filter_from: 0,
    }
    .aim(filter, "", target)
}

/// The leading levels of a filter before its first wildcard, with the slash behind them if a `+`
/// follows: `a/b/+` gives `a/b/`, and `a/b/#` gives `a/b`, for that matches `a/b` too.
fn literals(filter: &str) -> &str {
    let bytes = filter.as_bytes();
    let mut start = 0;
    while start <= bytes.len() {
        let end = end_of_level(bytes, start);
        match &bytes[start..end] {
            b"+" => return &filter[..start],
            b"#" => return &filter[..start.saturating_sub(1)],
            _ => start = end + 1,
        }
    }
    filter
}

/// Compares a topic with a filter level by level.
pub(super) fn sight(filter: &str, topic: &str) -> Sight {
    let (wanted, given) = (filter.as_bytes(), topic.as_bytes());
    let (mut filter_at, mut topic_at) = (0, 0);
    // The end of the last level of the topic that stands at a `+`, where other levels may stand.
    let mut open = None;
    let past = |open: Option<usize>| match open {
        Some(topic_bytes) => Jump::Past { topic_bytes },
        None => Jump::End,
    };
    let misses = |jump| Sight {
        matches: false,
        jump,
    };
    loop {
        if filter_at > wanted.len() {
            return Sight {
                matches: topic_at > given.len(),
                jump: past(open),
            };
        }
        let filter_end = end_of_level(wanted, filter_at);
        let level = &wanted[filter_at..filter_end];
        // [MQTT-4.7.2-1] [MQTT-3.1.1 4.7.2-1]
        if filter_at == 0 && (level == b"+" || level == b"#") && given.first() == Some(&b'$') {
            return misses(Jump::PastHidden);
        }
        if level == b"#" {
            return Sight {
                matches: true,
                jump: Jump::Step,
            };
        }
        if topic_at > given.len() {
            // The topic is the beginning of what may match: the filter's own levels follow, and
            // the slash before them.
            return misses(Jump::Into {
                topic_bytes: given.len(),
                filter_from: filter_at - 1,
            });
        }
        let topic_end = end_of_level(given, topic_at);
        if level == b"+" {
            open = Some(topic_end);
        } else {
            match given[topic_at..topic_end].cmp(level) {
                std::cmp::Ordering::Less => {
                    return misses(Jump::Into {
                        topic_bytes: topic_at,
                        filter_from: filter_at,
                    });
                }
                std::cmp::Ordering::Greater => return misses(past(open)),
                std::cmp::Ordering::Equal => {}
            }
        }
        (filter_at, topic_at) = (filter_end + 1, topic_end + 1);
    }
}

fn end_of_level(text: &[u8], start: usize) -> usize {
    memchr(b'/', &text[start..]).map_or(text.len(), |length| start + length)
}
