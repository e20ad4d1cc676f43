//! Lists inside packets: raw and validated when decoded, plain slices when encoded.

use crate::{Reason, SubscribeFilter, Version};

/// User properties, in order, duplicates kept ([MQTT-3.3.2-18]).
///
/// `Raw` is a whole property block that decode has validated; other properties in it are skipped.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum UserProperties<'a> {
    Raw(&'a [u8]),
    List(&'a [(&'a str, &'a str)]),
}

/// Subscription identifiers of a PUBLISH to a client, in order.
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
