//! The topic of a route, beside what else is asked of it.

use std::ops::Deref;

use arrayvec::ArrayString;

/// Topics up to this length need no memory of their own, bytes; with it a route is two lines of
/// the processor's cache.
const SHORT_BYTES: usize = 40;

/// A topic name.
pub(crate) enum Topic {
    Short(ArrayString<SHORT_BYTES>),
    Long(Box<str>),
}

impl Topic {
    pub fn new(topic: &str) -> Topic {
        match ArrayString::from(topic) {
            Ok(short) => Topic::Short(short),
            Err(_) => Topic::Long(topic.into()),
        }
    }

    /// What it takes elsewhere, bytes.
    pub fn bytes_elsewhere(&self) -> usize {
        match self {
            Topic::Short(_) => 0,
            Topic::Long(topic) => topic.len(),
        }
    }
}

impl Deref for Topic {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match self {
            Topic::Short(topic) => topic,
            Topic::Long(topic) => topic,
        }
    }
}
