//! Lists inside packets: raw and validated when decoded, plain slices when encoded.
//!
//! The iterators cannot fail: on bytes that `decode` has not validated they just end. `len` walks
//! the list and is linear in its bytes.

use std::slice;

use crate::wire::Reader;
use crate::{QoS, Reason, RetainHandling, SubscribeFilter, Version};

/// User properties, in order, duplicates kept ([MQTT-3.3.2-18], [MQTT-3.1.3-10]).
///
/// `Raw` is a property block that decode has validated; other properties in it are skipped.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum UserProperties<'a> {
    Raw(&'a [u8]),
    List(&'a [(&'a str, &'a str)]),
}

/// Subscription identifiers of a PUBLISH to a client, in order.
///
/// `Raw` is a property block that decode has validated; other properties in it are skipped.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum SubscriptionIds<'a> {
    Raw(&'a [u8]),
    List(&'a [u32]),
}

/// The lines of a SUBSCRIBE.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Filters<'a> {
    Raw { version: Version, bytes: &'a [u8] },
    List(&'a [SubscribeFilter<'a>]),
}

/// The filters of an UNSUBSCRIBE.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Names<'a> {
    Raw(&'a [u8]),
    List(&'a [&'a str]),
}

/// The codes of a SUBACK or UNSUBACK.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Codes<'a> {
    Raw(&'a [u8]),
    List(&'a [Reason]),
}

/// Property identifiers (MQTT 5.0 §2.2.2.2), under the specification's own names.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAX: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAX: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const QOS_MAX: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const PACKET_BYTES_MAX: u8 = 0x27;
    pub(crate) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2A;
}

/// Steps over the value of property `id`; `None` where it is cut short or unknown.
fn skip(id: u8, reader: &mut Reader<'_>) -> Option<()> {
    match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::QOS_MAX
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => reader.take(1).ok().map(drop),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAX | id::TOPIC_ALIAS_MAX | id::TOPIC_ALIAS => {
            reader.take(2).ok().map(drop)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::PACKET_BYTES_MAX => {
            reader.take(4).ok().map(drop)
        }
        id::SUBSCRIPTION_ID => reader.varint().ok().map(drop),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::CORRELATION_DATA
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::AUTHENTICATION_DATA
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => reader.binary().ok().map(drop),
        id::USER_PROPERTY => {
            reader.binary().ok()?;
            reader.binary().ok().map(drop)
        }
        _ => None,
    }
}

/// Moves `reader` behind the next identifier `wanted`.
fn seek(reader: &mut Reader<'_>, wanted: u8) -> Option<()> {
    loop {
        let id = reader.byte().ok()?;
        if id == wanted {
            return Some(());
        }
        skip(id, reader)?;
    }
}

/// Runs `read` once; after a failure the reader is empty, so that an iterator stays ended.
fn step<'a, T>(
    reader: &mut Reader<'a>,
    read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
) -> Option<T> {
    let item = read(reader);
    if item.is_none() {
        *reader = Reader::new(&[]);
    }
    item
}

/// Iterates [`UserProperties`].
#[derive(Clone, Debug)]
pub struct UserPropertiesIter<'a>(Source<'a, (&'a str, &'a str)>);

/// Iterates [`SubscriptionIds`].
#[derive(Clone, Debug)]
pub struct SubscriptionIdsIter<'a>(Source<'a, u32>);

/// Iterates [`Filters`].
#[derive(Clone, Debug)]
pub struct FiltersIter<'a> {
    version: Version,
    source: Source<'a, SubscribeFilter<'a>>,
}

/// Iterates [`Names`].
#[derive(Clone, Debug)]
pub struct NamesIter<'a>(Source<'a, &'a str>);

/// Iterates [`Codes`].
#[derive(Clone, Debug)]
pub struct CodesIter<'a>(Source<'a, Reason>);

/// Where an iterator takes its items from.
#[derive(Clone, Debug)]
enum Source<'a, T> {
    Raw(Reader<'a>),
    List(slice::Iter<'a, T>),
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Source::List(list) => list.next().copied(),
            Source::Raw(reader) => step(reader, |reader| {
                seek(reader, id::USER_PROPERTY)?;
                Some((
                    reader.unchecked_string().ok()?,
                    reader.unchecked_string().ok()?,
                ))
            }),
        }
    }
}

impl Iterator for SubscriptionIdsIter<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        match &mut self.0 {
            Source::List(list) => list.next().copied(),
            Source::Raw(reader) => step(reader, |reader| {
                seek(reader, id::SUBSCRIPTION_ID)?;
                reader.varint().ok()
            }),
        }
    }
}

impl<'a> Iterator for FiltersIter<'a> {
    type Item = SubscribeFilter<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.source {
            Source::List(list) => list.next().copied(),
            Source::Raw(reader) => step(reader, |reader| {
                let filter = reader.unchecked_string().ok()?;
                let options = reader.byte().ok()?;
                subscribe_filter(self.version, filter, options)
            }),
        }
    }
}

/// Reads one line of a SUBSCRIBE; `None` where an option has a value that does not exist.
fn subscribe_filter(version: Version, filter: &str, options: u8) -> Option<SubscribeFilter<'_>> {
    let modern = version == Version::V5;
    Some(SubscribeFilter {
        filter,
        qos: QoS::from_bits(options & 0b11)?,
        no_local: modern && options & 0b100 != 0,
        retain_as_published: modern && options & 0b1000 != 0,
        retain_handling: match options >> 4 & 0b11 {
            1 if modern => RetainHandling::SendIfNew,
            2 if modern => RetainHandling::Never,
            3 if modern => return None,
            _ => RetainHandling::Send,
        },
    })
}

impl<'a> Iterator for NamesIter<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        match &mut self.0 {
            Source::List(list) => list.next().copied(),
            Source::Raw(reader) => step(reader, |reader| reader.unchecked_string().ok()),
        }
    }
}

impl Iterator for CodesIter<'_> {
    type Item = Reason;

    fn next(&mut self) -> Option<Reason> {
        match &mut self.0 {
            Source::List(list) => list.next().copied(),
            Source::Raw(reader) => step(reader, |reader| {
                reader.byte().ok().and_then(Reason::from_byte)
            }),
        }
    }
}

impl<'a> UserProperties<'a> {
    /// The names and values, in the order in which they were sent.
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter(match *self {
            UserProperties::Raw(bytes) => Source::Raw(Reader::new(bytes)),
            UserProperties::List(list) => Source::List(list.iter()),
        })
    }

    /// True where there is no user property.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> SubscriptionIds<'a> {
    /// The identifiers, in the order in which they were sent.
    pub fn iter(&self) -> SubscriptionIdsIter<'a> {
        SubscriptionIdsIter(match *self {
            SubscriptionIds::Raw(bytes) => Source::Raw(Reader::new(bytes)),
            SubscriptionIds::List(list) => Source::List(list.iter()),
        })
    }

    /// True where there is no identifier.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> Filters<'a> {
    /// The lines, in the order in which they were sent.
    pub fn iter(&self) -> FiltersIter<'a> {
        match *self {
            Filters::Raw { version, bytes } => FiltersIter {
                version,
                source: Source::Raw(Reader::new(bytes)),
            },
            Filters::List(list) => FiltersIter {
                version: Version::V5,
                source: Source::List(list.iter()),
            },
        }
    }

    /// The number of lines; linear in their bytes.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True where there is no line, which no decoded SUBSCRIBE has.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> Names<'a> {
    /// The filters, in the order in which they were sent.
    pub fn iter(&self) -> NamesIter<'a> {
        NamesIter(match *self {
            Names::Raw(bytes) => Source::Raw(Reader::new(bytes)),
            Names::List(list) => Source::List(list.iter()),
        })
    }

    /// The number of filters; linear in their bytes.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True where there is no filter, which no decoded UNSUBSCRIBE has.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

impl<'a> Codes<'a> {
    /// The codes, in the order in which they were sent.
    pub fn iter(&self) -> CodesIter<'a> {
        CodesIter(match *self {
            Codes::Raw(bytes) => Source::Raw(Reader::new(bytes)),
            Codes::List(list) => Source::List(list.iter()),
        })
    }

    /// The number of codes; linear.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// True where there is no code, as in every UNSUBACK before 5.0.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// Gives a list its equality by items and its iteration by `for`.
macro_rules! list {
    ($list:ident, $iterator:ident, $item:ty) => {
        impl PartialEq for $list<'_> {
            fn eq(&self, other: &Self) -> bool {
                self.iter().eq(other.iter())
            }
        }

        impl<'a> IntoIterator for $list<'a> {
            type Item = $item;
            type IntoIter = $iterator<'a>;

            fn into_iter(self) -> $iterator<'a> {
                self.iter()
            }
        }

        impl<'a> IntoIterator for &$list<'a> {
            type Item = $item;
            type IntoIter = $iterator<'a>;

            fn into_iter(self) -> $iterator<'a> {
                self.iter()
            }
        }
    };
}

list!(UserProperties, UserPropertiesIter, (&'a str, &'a str));
list!(SubscriptionIds, SubscriptionIdsIter, u32);
list!(Filters, FiltersIter, SubscribeFilter<'a>);
list!(Names, NamesIter, &'a str);
list!(Codes, CodesIter, Reason);

impl Default for UserProperties<'_> {
    fn default() -> Self {
        UserProperties::Raw(&[])
    }
}

impl Default for SubscriptionIds<'_> {
    fn default() -> Self {
        SubscriptionIds::Raw(&[])
    }
}

impl Default for Codes<'_> {
    fn default() -> Self {
        Codes::Raw(&[])
    }
}
