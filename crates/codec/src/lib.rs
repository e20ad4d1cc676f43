//! Bytes to packets of MQTT 3.1, 3.1.1 and 5.0, and back.
//!
//! The tour, in the order in which a byte meets it:
//!
//! 1. [`frame()`] finds where a packet ends, and refuses it by its announced length before anything
//!    is allocated for it.
//! 2. [`decode()`] turns the bytes of one whole packet into a [`Packet`] that borrows from them: no
//!    topic, payload or property is copied. What it returns has passed every check that bytes
//!    alone allow; lists (filters, properties) stay raw and are walked again by iterators that
//!    cannot fail.
//! 3. [`encode()`] writes a [`Packet`]; [`forward()`] is the hot path beside it, which writes a
//!    PUBLISH for a recipient from a stored message.
//!
//! The crate knows nothing of sockets, sessions or time, and serves broker and client alike.

mod decode;
mod encode;
mod error;
mod forward;
mod frame;
mod hidden;
mod packet;
mod property;
mod reason;
mod text;
mod value;
#[cfg(feature = "vectors")]
pub mod vectors;
mod wire;

pub use decode::{decode, plain_ack, plain_publish, PlainPublish, Sender};
pub use encode::{encode, TooLarge};
pub use error::Malformed;
pub use forward::{forward, forwardable, forwardable_will, Forwarded};
pub use frame::{frame, Frame};
pub use packet::{
    Ack, Auth, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Packet, Publish,
    PublishProperties, Suback, Subscribe, SubscribeFilter, Unsuback, Unsubscribe, Will,
    WillProperties,
};
pub use property::{
    Codes, CodesIter, Filters, FiltersIter, Names, NamesIter, SubscriptionIds, SubscriptionIdsIter,
    UserProperties, UserPropertiesIter,
};
pub use reason::Reason;
pub use text::{filter_fault, share, topic_fault, Share, TextFault};
pub use value::{PacketId, QoS, RetainHandling, Version};
