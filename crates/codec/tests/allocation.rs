//! Reading allocates nothing, whatever the bytes; forwarding reserves once.
#![allow(missing_docs, clippy::unwrap_used)]

use casemate_codec::vectors::{all, PACKET_BYTES_MAX};
use casemate_codec::{
    decode, forward, frame, Codes, Filters, Forwarded, Names, Packet, QoS, SubscriptionIds,
    UserProperties, Version,
};

/// Allocations of this thread while `run` ran.
fn allocations(run: impl FnOnce()) -> u64 {
    allocation_counter::measure(run).count_total
}

/// Walks the lists of a packet, as the engine does.
fn walk(packet: &Packet<'_>) -> usize {
    fn users(list: &UserProperties<'_>) -> usize {
        list.iter()
            .map(|(name, value)| name.len() + value.len())
            .sum()
    }
    fn codes(list: &Codes<'_>) -> usize {
        list.iter().map(|code| code as usize).sum()
    }
    fn names(list: &Names<'_>) -> usize {
        list.iter().map(str::len).sum()
    }
    fn filters(list: &Filters<'_>) -> usize {
        list.iter().map(|line| line.filter.len()).sum()
    }
    fn ids(list: &SubscriptionIds<'_>) -> usize {
        list.iter().map(|id| id as usize).sum()
    }
    match packet {
        Packet::Connect(p) => users(&p.properties.user),
        Packet::Publish(p) => users(&p.properties.user) + ids(&p.properties.subscription_ids),
        Packet::Subscribe(p) => users(&p.user) + filters(&p.filters),
        Packet::Unsubscribe(p) => users(&p.user) + names(&p.filters),
        Packet::Suback(p) => users(&p.user) + codes(&p.codes),
        Packet::Unsuback(p) => users(&p.user) + codes(&p.codes),
        _ => 0,
    }
}

#[test]
fn reading_a_packet_allocates_nothing() {
    for vector in all() {
        let mut bytes_seen = 0;
        let count = allocations(|| {
            let Ok(Some(frame)) = frame(&vector.bytes, PACKET_BYTES_MAX) else {
                return;
            };
            let Some(body) = vector.bytes.get(frame.header_bytes..frame.packet_bytes()) else {
                return;
            };
            if let Ok(packet) = decode(vector.version, vector.sender, frame, body) {
                bytes_seen = walk(&packet);
            }
        });
        assert_eq!(count, 0, "{}, {bytes_seen}", vector.name);
    }
}

#[test]
fn forwarding_allocates_once_into_an_empty_buffer_and_never_into_a_roomy_one() {
    let message = Forwarded {
        dup: false,
        qos: QoS::AtLeastOnce,
        retain: true,
        topic: "a/topic/of/some/length",
        alias: None,
        expiry_s: Some(10),
        subscription_ids: &[1, 300, 70_000],
        properties: &[0x01, 0x01],
        payload_bytes: 64,
    };
    let mut out = Vec::new();
    let payload = [7; 64];
    let count = allocations(|| {
        let place = forward(Version::V5, &message, 1, 1 << 20, &mut out).unwrap();
        out.extend_from_slice(&payload);
        assert!(place.is_some());
    });
    assert_eq!(count, 1);
    out.clear();
    let again = allocations(|| {
        forward(Version::V5, &message, 1, 1 << 20, &mut out).unwrap();
        out.extend_from_slice(&payload);
    });
    assert_eq!(again, 0);
}
