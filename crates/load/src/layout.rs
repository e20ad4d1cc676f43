//! From a shape to clients: who publishes on which topic, and who must see which messages.

use crate::arrival::Stream;
use crate::{Pace, Plan, Shape};

/// Numbers that one subscriber remembers of one publisher; what comes later than that much after
/// its successors counts as a repetition.
const PRIVATE_SPAN: usize = 128;

/// Filters of one group.
const GROUP: &str = "bench";

/// What a client does once it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Task {
    /// Publishes on this topic.
    Publish(String),
    /// Subscribes to this filter and listens.
    Subscribe(String, Listening),
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
        let topic = &plan.topic;
        match plan.shape {
            Shape::FanIn {
                publishers,
                subscribers,
            } => {
                for group in 0..subscribers {
                    let count = (publishers - group).div_ceil(subscribers);
                    let heard = layout.streams(group, subscribers, count, PRIVATE_SPAN);
                    layout.subscribe(format!("{topic}/in/{group}/+"), heard);
                }
                for publisher in 0..publishers {
                    let group = publisher % subscribers;
                    layout.publish(format!("{topic}/in/{group}/{publisher}"));
                }
            }
            Shape::FanOut {
                publishers,
                subscribers,
            } => {
                let filter = match publishers {
                    1 => format!("{topic}/out/0"),
                    _ => format!("{topic}/out/+"),
                };
                for _ in 0..subscribers {
                    let heard = layout.streams(0, 1, publishers, PRIVATE_SPAN);
                    layout.subscribe(filter.clone(), heard);
                }
                for publisher in 0..publishers {
                    layout.publish(format!("{topic}/out/{publisher}"));
                }
            }
            Shape::Pairs { pairs } => {
                for pair in 0..pairs {
                    let heard = layout.streams(pair, 1, 1, PRIVATE_SPAN);
                    layout.subscribe(format!("{topic}/pair/{pair}"), heard);
                }
                for pair in 0..pairs {
                    layout.publish(format!("{topic}/pair/{pair}"));
                }
            }
            Shape::Shared {
                publishers,
                subscribers,
            } => {
                let span = shared_span(plan, publishers);
                let mut heard = layout.streams(0, 1, publishers, span);
                heard.shared = true;
                for _ in 0..subscribers {
                    layout.subscribe(format!("$share/{GROUP}/{topic}/shared/+"), heard);
                }
                for publisher in 0..publishers {
                    layout.publish(format!("{topic}/shared/{publisher}"));
                }
            }
            Shape::Idle { connections } => {
                let heard = layout.streams(0, 1, 0, 0);
                for client in 0..connections {
                    layout.subscribe(format!("{topic}/idle/{client}/command"), heard);
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

    fn publish(&mut self, topic: String) {
        self.tasks.push(Task::Publish(topic));
    }

    fn subscribe(&mut self, filter: String, heard: Listening) {
        self.tasks.push(Task::Subscribe(filter, heard));
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
