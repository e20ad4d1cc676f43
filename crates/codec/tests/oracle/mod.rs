//! Two codecs by other hands, asked what they make of the same packet.

use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use bytes::BytesMut;
use casemate_codec::{Frame, Version};
use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use tokio_util::codec::{Decoder, Encoder};

/// What an oracle makes of a packet.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It accepts, and writes the packet again as these bytes.
    Accepts(Vec<u8>),
    /// It refuses, in its own words.
    Refuses(String),
    /// It panics.
    Panics,
    /// It does not speak this version, or cannot be asked about these bytes.
    Silent,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Oracle {
    /// `rmqtt-codec`, the codec of a broker.
    Rmqtt,
    /// `mqtt-protocol-core`, a library without I/O.
    ProtocolCore,
}

impl Oracle {
    pub const ALL: [Oracle; 2] = [Oracle::Rmqtt, Oracle::ProtocolCore];

    /// Asks about one whole packet.
    pub fn ask(self, version: Version, frame: Frame, packet: &[u8]) -> Verdict {
        let asked = catch_unwind(AssertUnwindSafe(|| match self {
            Oracle::Rmqtt => rmqtt(version, packet),
            Oracle::ProtocolCore => {
                protocol_core(version, frame.first, &packet[frame.header_bytes..])
            }
        }));
        asked.unwrap_or(Verdict::Panics)
    }
}

/// Decodes and encodes with one codec of rmqtt.
fn rmqtt(version: Version, packet: &[u8]) -> Verdict {
    match version {
        Version::V5 => rmqtt_with(rmqtt_codec::v5::Codec::default(), packet),
        Version::V31 | Version::V311 => rmqtt_with(rmqtt_codec::v3::Codec::default(), packet),
    }
}

fn rmqtt_with<C, P>(mut codec: C, packet: &[u8]) -> Verdict
where
    C: Decoder<Item = (P, u32)> + Encoder<P>,
    <C as Decoder>::Error: std::fmt::Debug,
    <C as Encoder<P>>::Error: std::fmt::Debug,
{
    match codec.decode(&mut BytesMut::from(packet)) {
        Ok(Some((decoded, _))) => {
            let mut out = BytesMut::new();
            match codec.encode(decoded, &mut out) {
                Ok(()) => Verdict::Accepts(out.to_vec()),
                Err(error) => Verdict::Refuses(format!("encoding: {error:?}")),
            }
        }
        Ok(None) => Verdict::Refuses("incomplete".to_owned()),
        Err(error) => Verdict::Refuses(format!("{error:?}")),
    }
}

/// Parses a body with one packet type of mqtt-protocol-core and writes it again.
macro_rules! parse {
    ($packet:ty, $body:expr) => {
        match <$packet>::parse($body) {
            Ok((packet, used)) if used == $body.len() => {
                Verdict::Accepts(packet.to_continuous_buffer())
            }
            Ok(_) => Verdict::Refuses("bytes are left".to_owned()),
            Err(error) => Verdict::Refuses(format!("{error:?}")),
        }
    };
}

fn protocol_core(version: Version, first: u8, body: &[u8]) -> Verdict {
    match version {
        Version::V31 => Verdict::Silent,
        Version::V311 => match first >> 4 {
            1 => parse!(v3_1_1::Connect, body),
            2 => parse!(v3_1_1::Connack, body),
            3 => published(
                v3_1_1::Publish::parse(first & 15, Arc::from(body))
                    .map(|(packet, _)| packet.to_continuous_buffer()),
            ),
            4 => parse!(v3_1_1::Puback, body),
            5 => parse!(v3_1_1::Pubrec, body),
            6 => parse!(v3_1_1::Pubrel, body),
            7 => parse!(v3_1_1::Pubcomp, body),
            8 => parse!(v3_1_1::Subscribe, body),
            9 => parse!(v3_1_1::Suback, body),
            10 => parse!(v3_1_1::Unsubscribe, body),
            11 => parse!(v3_1_1::Unsuback, body),
            12 => parse!(v3_1_1::Pingreq, body),
            13 => parse!(v3_1_1::Pingresp, body),
            14 => parse!(v3_1_1::Disconnect, body),
            _ => Verdict::Silent,
        },
        Version::V5 => match first >> 4 {
            1 => parse!(v5_0::Connect, body),
            2 => parse!(v5_0::Connack, body),
            3 => published(
                v5_0::Publish::parse(first & 15, Arc::from(body))
                    .map(|(packet, _)| packet.to_continuous_buffer()),
            ),
            4 => parse!(v5_0::Puback, body),
            5 => parse!(v5_0::Pubrec, body),
            6 => parse!(v5_0::Pubrel, body),
            7 => parse!(v5_0::Pubcomp, body),
            8 => parse!(v5_0::Subscribe, body),
            9 => parse!(v5_0::Suback, body),
            10 => parse!(v5_0::Unsubscribe, body),
            11 => parse!(v5_0::Unsuback, body),
            12 => parse!(v5_0::Pingreq, body),
            13 => parse!(v5_0::Pingresp, body),
            14 => parse!(v5_0::Disconnect, body),
            15 => parse!(v5_0::Auth, body),
            _ => Verdict::Silent,
        },
    }
}

fn published<E: std::fmt::Debug>(parsed: Result<Vec<u8>, E>) -> Verdict {
    match parsed {
        Ok(again) => Verdict::Accepts(again),
        Err(error) => Verdict::Refuses(format!("{error:?}")),
    }
}
