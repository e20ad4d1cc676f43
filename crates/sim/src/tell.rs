//! Telling: packets in few words, for the history.

use std::fmt::Write;

use casemate_codec::{Ack, Connect, Packet, Publish};

use crate::oracle::serial;

/// A packet on one line, without what the reader of a history never needs.
pub fn packet(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(connect) => tell_connect(connect),
        Packet::Publish(publish) => tell_publish(publish),
        Packet::Puback(ack) => tell_ack("PUBACK", ack),
        Packet::Pubrec(ack) => tell_ack("PUBREC", ack),
        Packet::Pubrel(ack) => tell_ack("PUBREL", ack),
        Packet::Pubcomp(ack) => tell_ack("PUBCOMP", ack),
        Packet::Connack(connack) => {
            let reason = connack.reason;
            format!(
                "CONNACK {reason:?}, session present: {}",
                connack.session_present
            )
        }
        Packet::Subscribe(subscribe) => {
            let mut told = format!("SUBSCRIBE {}", subscribe.packet_id);
            for line in subscribe.filters.iter() {
                let _ = write!(told, ", {} QoS {}", line.filter, line.qos as u8);
                if line.no_local {
                    told.push_str(" no local");
                }
                if line.retain_as_published {
                    told.push_str(" as published");
                }
                let _ = write!(told, " retain {:?}", line.retain_handling);
            }
            if let Some(id) = subscribe.subscription_id {
                let _ = write!(told, ", id {id}");
            }
            told
        }
        Packet::Suback(suback) => {
            let codes: Vec<_> = suback.codes.iter().collect();
            format!("SUBACK {} {codes:?}", suback.packet_id)
        }
        Packet::Unsubscribe(unsubscribe) => {
            let filters: Vec<_> = unsubscribe.filters.iter().collect();
            format!("UNSUBSCRIBE {} {filters:?}", unsubscribe.packet_id)
        }
        Packet::Unsuback(unsuback) => {
            let codes: Vec<_> = unsuback.codes.iter().collect();
            format!("UNSUBACK {} {codes:?}", unsuback.packet_id)
        }
        Packet::Disconnect(disconnect) => {
            let expiry_s = disconnect.session_expiry_s;
            format!("DISCONNECT {:?}, expiry {expiry_s:?} s", disconnect.reason)
        }
        Packet::Pingreq => "PINGREQ".to_owned(),
        Packet::Pingresp => "PINGRESP".to_owned(),
        Packet::Auth(auth) => format!("AUTH {:?}", auth.reason),
    }
}

/// CONNECT.
fn tell_connect(connect: &Connect<'_>) -> String {
    let mut told = format!(
        "CONNECT {:?} {:?} as {:?}, clean: {}, keep alive {} s, expiry {:?} s",
        connect.version,
        connect.client_id,
        connect.username.unwrap_or_default(),
        connect.clean_start,
        connect.keep_alive_s,
        connect.properties.session_expiry_s
    );
    if let Some(most) = connect.properties.receive_max {
        let _ = write!(told, ", receive max {most}");
    }
    if let Some(most) = connect.properties.packet_bytes_max {
        let _ = write!(told, ", packets of {most} bytes");
    }
    if let Some(will) = &connect.will {
        let _ = write!(
            told,
            ", will {} to {} QoS {} retain {} delay {:?} s",
            serial(will.payload).unwrap_or(0),
            will.topic,
            will.qos as u8,
            will.retain,
            will.properties.delay_s
        );
    }
    told
}

/// PUBLISH.
fn tell_publish(publish: &Publish<'_>) -> String {
    let mut told = match serial(publish.payload) {
        Some(serial) => format!("PUBLISH of message {serial}"),
        None => format!("PUBLISH of {} bytes", publish.payload.len()),
    };
    let _ = write!(told, " to {:?} QoS {}", publish.topic, publish.qos as u8);
    if let Some(packet_id) = publish.packet_id {
        let _ = write!(told, ", packet id {packet_id}");
    }
    if publish.dup {
        told.push_str(", DUP");
    }
    if publish.retain {
        told.push_str(", retain");
    }
    if let Some(alias) = publish.properties.topic_alias {
        let _ = write!(told, ", alias {alias}");
    }
    if let Some(expiry_s) = publish.properties.message_expiry_s {
        let _ = write!(told, ", expiry {expiry_s} s");
    }
    let ids: Vec<_> = publish.properties.subscription_ids.iter().collect();
    if !ids.is_empty() {
        let _ = write!(told, ", ids {ids:?}");
    }
    told
}

/// One of the four acknowledgements.
fn tell_ack(name: &str, ack: &Ack<'_>) -> String {
    format!("{name} {} {:?}", ack.packet_id, ack.reason)
}
