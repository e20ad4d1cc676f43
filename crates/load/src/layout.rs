//! From a shape to clients: who publishes on which topic, and who must see which messages.

use crate::arrival::Stream;
use crate::{Pace, Plan, Shape};

/// Numbers that one subscriber remembers of one publisher; what comes later than that much after
/// its successors counts as a repetition.
const PRIVATE_SPAN: usize = 128;

/// Topics below one level, as of the devices in a room; more would be a list and no tree.
const ROOMS: usize = 1_000;

/// Filters of one group.
const GROUP: &str = "bench";

/// What a client does once it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Publishes on these topics, in turn.
    Publish(Vec<String>),
    /// Subscribes to these filters and listens.
    Subscribe(Vec<String>, Listening),
}

/// Which publishers a subscriber hears, and where their messages are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    /// The first publisher it hears.
    pub first: usize,
    /// From each of them to the next.
    pub step: usize,
    /// How many.
    pub count: usize,
    /// The stream of the first; the others follow.
    pub stream: usize,
    /// Several share these streams, so that each has gaps and no order of its own.
    pub shared: bool,
}

impl Listening {
    /// The stream of a publisher, if it is heard here.
    #[inline]
    pub fn stream_of(&self, publisher: usize) -> Option<usize> {
        let behind = publisher.checked_sub(self.first)?;
        // Nearly everybody hears one publisher or all of them: no division then.
        let index = match self.step {
            1 => behind,
            step if behind % step == 0 => behind / step,
            _ => return None,
        };
        (index < self.count).then_some(self.stream + index)
    }
}

/// All clients of a plan, subscribers first, and the streams between them.
pub(crate) struct Layout {
    /// What each client does.
    pub tasks: Vec<Task>,
    /// Streams, by number.
    pub streams: Vec<Stream>,
}

impl Layout {
    /// Lays a plan out. A storm has no layout: its clients do nothing, one after the other.
    pub fn of(plan: &Plan) -> Layout {
        let mut layout = Layout {
            tasks: Vec::new(),
            streams: Vec::new(),
        };
        let names = Names { plan };
        match plan.shape {
            Shape::FanIn {
                publishers,
                subscribers,
            } => {
                for group in 0..subscribers {
                    let count = (publishers - group).div_ceil(subscribers);
                    let heard = layout.streams(group, subscribers, count, PRIVATE_SPAN);
                    let filters = names.filters(&format!("in/{group}"), heard);
                    layout.tasks.push(Task::Subscribe(filters, heard));
                }
                for publisher in 0..publishers {
                    let group = publisher % subscribers;
                    let topics = names.topics(&format!("in/{group}"), publisher);
                    layout.tasks.push(Task::Publish(topics));
                }
            }
            Shape::FanOut {
                publishers,
                subscribers,
            } => {
                for _ in 0..subscribers {
                    let heard = layout.streams(0, 1, publishers, PRIVATE_SPAN);
                    let filters = names.filters("out", heard);
                    layout.tasks.push(Task::Subscribe(filters, heard));
                }
                layout.publish(&names, "out", publishers);
            }
            Shape::Pairs { pairs } => {
                for pair in 0..pairs {
                    let heard = layout.streams(pair, 1, 1, PRIVATE_SPAN);
                    let filters = names.filters("pair", heard);
                    layout.tasks.push(Task::Subscribe(filters, heard));
                }
                layout.publish(&names, "pair", pairs);
            }
            Shape::Shared {
                publishers,
                subscribers,
            } => {
                let span = shared_span(plan, publishers);
                let mut heard = layout.streams(0, 1, publishers, span);
                heard.shared = true;
                let plain = names.filters("shared", heard);
                let shared = |filter: &String| format!("$share/{GROUP}/{filter}");
                let filters: Vec<String> = plain.iter().map(shared).collect();
                for _ in 0..subscribers {
                    layout.tasks.push(Task::Subscribe(filters.clone(), heard));
                }
                layout.publish(&names, "shared", publishers);
            }
            Shape::Idle { connections } => {
                let heard = layout.streams(0, 1, 0, 0);
                for client in 0..connections {
                    let filter = format!("{}/idle/{client}/command", plan.topic);
                    layout.tasks.push(Task::Subscribe(vec![filter], heard));
                }
            }
            Shape::Connects { .. } => {}
        }
        layout
    }

    /// Makes the streams of one subscriber or group.
    fn streams(&mut self, first: usize, step: usize, count: usize, span: usize) -> Listening {
        let stream = self.streams.len();
        self.streams.extend((0..count).map(|_| Stream::new(span)));
        Listening {
            first,
            step,
            count,
            stream,
            shared: false,
        }
    }

    fn publish(&mut self, names: &Names<'_>, kind: &str, publishers: usize) {
        for publisher in 0..publishers {
            let topics = names.topics(kind, publisher);
            self.tasks.push(Task::Publish(topics));
        }
    }
}

/// How topics are called, and which filters they answer.
struct Names<'a> {
    plan: &'a Plan,
}

impl Names<'_> {
    /// The topics of a publisher; all of one length in levels.
    fn topics(&self, kind: &str, publisher: usize) -> Vec<String> {
        let topic = &self.plan.topic;
        match self.plan.topics_per_publisher {
            1 => vec![format!("{topic}/{kind}/{publisher}")],
            count => (0..count)
                .map(|index| {
                    let room = index % ROOMS;
                    format!("{topic}/{kind}/{publisher}/{room}/{index}")
                })
                .collect(),
        }
    }

    /// The filters of who hears these publishers: each topic answers exactly one.
    fn filters(&self, kind: &str, heard: Listening) -> Vec<String> {
        let topic = &self.plan.topic;
        let publishers = (0..heard.count).map(|index| heard.first + index * heard.step);
        match (self.plan.single_filters, heard.count) {
            (true, _) => publishers
                .flat_map(|publisher| self.topics(kind, publisher))
                .enumerate()
                .map(|(index, topic)| match index % 5 {
                    4 => with_wildcard(&topic),
                    _ => topic,
                })
                .collect(),
            (false, 1) if self.plan.topics_per_publisher == 1 => {
                vec![format!("{topic}/{kind}/{}", heard.first)]
            }
            (false, 1) => vec![format!("{topic}/{kind}/{}/+/+", heard.first)],
            (false, _) if self.plan.topics_per_publisher == 1 => {
                vec![format!("{topic}/{kind}/+")]
            }
            (false, _) => vec![format!("{topic}/{kind}/+/+/+")],
        }
    }
}

/// A filter that answers to one topic alone, with a wildcard in the level before its last.
fn with_wildcard(topic: &str) -> String {
    match topic.rsplitn(3, '/').collect::<Vec<_>>()[..] {
        [last, _, rest] => format!("{rest}/+/{last}"),
        _ => topic.to_owned(),
    }
}

/// Members of a group are read one after the other, so that a message may arrive as long after its
/// successors as there are messages under way, and those of QoS 0 in the buffers of sockets.
fn shared_span(plan: &Plan, publishers: usize) -> usize {
    match plan.pace {
        Pace::Saturate { window } => (2 * window.div_ceil(publishers)).max(4_096),
        Pace::Rate { .. } => 8_192,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeSet;

    use casemate_codec::{filter_fault, topic_fault};

    use super::*;
    use crate::plan::tests::plan;

    /// Enough of matching for these filters.
    fn matches(filter: &str, topic: &str) -> bool {
        let (filter, topic) = (filter.split('/'), topic.split('/'));
        filter.clone().count() == topic.clone().count()
            && filter
                .zip(topic)
                .all(|(level, name)| level == "+" || level == name)
    }

    #[test]
    fn every_message_answers_one_filter_of_whoever_must_hear_it_and_none_of_others() {
        let (publishers, subscribers) = (5, 3);
        let shapes = [
            Shape::FanIn {
                publishers,
                subscribers,
            },
            Shape::FanOut {
                publishers,
                subscribers,
            },
            Shape::Pairs { pairs: 5 },
            Shape::Shared {
                publishers,
                subscribers,
            },
        ];
        for shape in shapes {
            for (topics, single) in [(1, false), (1, true), (7, false), (7, true)] {
                let mut plan = plan();
                plan.shape = shape;
                plan.topics_per_publisher = topics;
                plan.single_filters = single;
                every_message_answers_one_filter(&plan);
            }
        }
    }

    fn every_message_answers_one_filter(plan: &Plan) {
        let layout = Layout::of(plan);
        let mut publisher = 0;
        let mut seen = BTreeSet::new();
        for task in &layout.tasks {
            let Task::Publish(topics) = task else {
                continue;
            };
            assert_eq!(topics.len(), plan.topics_per_publisher);
            for topic in topics {
                assert_eq!(topic_fault(topic), None);
                assert!(seen.insert(topic.clone()), "{topic} twice");
                for other in &layout.tasks {
                    let Task::Subscribe(filters, heard) = other else {
                        continue;
                    };
                    let answered = filters.iter().filter(|filter| {
                        assert_eq!(filter_fault(filter), None);
                        matches(filter.trim_start_matches("$share/bench/"), topic)
                    });
                    let expected = usize::from(heard.stream_of(publisher).is_some());
                    assert_eq!(answered.count(), expected, "{topic} {filters:?}");
                }
            }
            publisher += 1;
        }
        assert_eq!(publisher, plan.shape.publishers());
    }
}
