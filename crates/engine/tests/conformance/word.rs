//! Short words for the packets of an exchange, as a test sends or expects them.

#![allow(
    dead_code,
    reason = "each file of tests includes this room and uses its own part of it"
)]

use std::num::NonZeroU16;

use casemate_codec::{
    Ack, Codes, Connect, ConnectProperties, Disconnect, Names, Packet, Publish, QoS, Reason,
    Suback, Unsuback, Unsubscribe, UserProperties, Version,
};

use crate::harness::{id, message, Lab, Peer};

pub const Q0: QoS = QoS::AtMostOnce;
pub const Q1: QoS = QoS::AtLeastOnce;
pub const Q2: QoS = QoS::ExactlyOnce;

/// All three, lowest first.
pub const EVERY_QOS: [QoS; 3] = [Q0, Q1, Q2];

fn ack(packet_id: u16, reason: Reason) -> Ack<'static> {
    Ack {
        packet_id: id(packet_id),
        reason,
        reason_string: None,
        user: UserProperties::default(),
    }
}

pub fn puback(packet_id: u16) -> Packet<'static> {
    Packet::Puback(ack(packet_id, Reason::Success))
}

pub fn pubrec(packet_id: u16) -> Packet<'static> {
    Packet::Pubrec(ack(packet_id, Reason::Success))
}

pub fn pubrel(packet_id: u16) -> Packet<'static> {
    Packet::Pubrel(ack(packet_id, Reason::Success))
}

pub fn pubcomp(packet_id: u16) -> Packet<'static> {
    Packet::Pubcomp(ack(packet_id, Reason::Success))
}

pub fn puback_of(packet_id: u16, reason: Reason) -> Packet<'static> {
    Packet::Puback(ack(packet_id, reason))
}

pub fn pubrec_of(packet_id: u16, reason: Reason) -> Packet<'static> {
    Packet::Pubrec(ack(packet_id, reason))
}

/// A PUBLISH, first time, without RETAIN; `packet_id` 0 stands for none.
pub fn fresh<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, packet_id: u16) -> Packet<'a> {
    Packet::Publish(message(topic, payload, qos, packet_id))
}

/// As [`fresh`], with RETAIN.
pub fn kept<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, packet_id: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        retain: true,
        ..message(topic, payload, qos, packet_id)
    })
}

/// As [`fresh`], with DUP.
pub fn again<'a>(topic: &'a str, payload: &'a [u8], qos: QoS, packet_id: u16) -> Packet<'a> {
    Packet::Publish(Publish {
        dup: true,
        ..message(topic, payload, qos, packet_id)
    })
}

/// The code that grants a QoS.
pub fn granted_code(qos: QoS) -> Reason {
    match qos {
        QoS::AtMostOnce => Reason::Success,
        QoS::AtLeastOnce => Reason::GrantedQoS1,
        QoS::ExactlyOnce => Reason::GrantedQoS2,
    }
}

pub fn suback(packet_id: u16, codes: &[Reason]) -> Packet<'_> {
    Packet::Suback(Suback {
        packet_id: id(packet_id),
        reason_string: None,
        user: UserProperties::default(),
        codes: Codes::List(codes),
    })
}

/// An UNSUBACK; before 5.0 it carries no codes.
pub fn unsuback(version: Version, packet_id: u16, codes: &[Reason]) -> Packet<'_> {
    let codes = if version == Version::V5 { codes } else { &[] };
    Packet::Unsuback(Unsuback {
        packet_id: id(packet_id),
        reason_string: None,
        user: UserProperties::default(),
        codes: Codes::List(codes),
    })
}

pub fn unsubscribe<'a>(packet_id: u16, filters: &'a [&'a str]) -> Packet<'a> {
    Packet::Unsubscribe(Unsubscribe {
        packet_id: id(packet_id),
        user: UserProperties::default(),
        filters: Names::List(filters),
    })
}

pub fn disconnect(reason: Reason) -> Packet<'static> {
    Packet::Disconnect(Disconnect {
        reason,
        session_expiry_s: None,
        reason_string: None,
        user: UserProperties::default(),
        server_reference: None,
    })
}

/// The same CONNECT with a Receive Maximum, which needs 5.0.
pub fn with_receive_max<'a>(connect: Connect<'a>, receive_max: u16) -> Connect<'a> {
    Connect {
        properties: ConnectProperties {
            receive_max: NonZeroU16::new(receive_max),
            ..connect.properties
        },
        ..connect
    }
}

/// Cuts a client's transport and connects anew; returns the client without its CONNACK.
#[track_caller]
pub fn reconnect(lab: &mut Lab, peer: Peer, connect: &Connect<'_>) -> Peer {
    if !lab.is_closed(peer) {
        lab.cut(peer);
    }
    lab.connect(connect)
}

/// Publishes one message and drops the publisher's side of the exchange.
pub fn publish(lab: &mut Lab, publisher: Peer, packet: &Packet<'_>) {
    lab.say(publisher, packet);
    if let Packet::Publish(Publish {
        qos: QoS::ExactlyOnce,
        packet_id: Some(packet_id),
        ..
    }) = packet
    {
        lab.say(publisher, &pubrel(packet_id.get()));
    }
    lab.take(publisher);
}
