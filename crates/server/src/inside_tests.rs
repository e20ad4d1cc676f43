//! A program's end of its link, with the broker's end in the test's hand.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{Read, Write};

use super::*;

/// CONNACK of 5.0: no session, success, and that the broker bears silence for ten seconds.
const CONNACK: [u8; 8] = [0x20, 6, 0, 0, 3, 0x13, 0, 10];
/// PUBLISH of QoS 1 to "a", identifier 7, payload "x".
const PUBLISH: [u8; 9] = [0x32, 7, 0, 1, b'a', 0, 7, 0, b'x'];
const PUBACK: [u8; 4] = [0x40, 2, 0, 7];
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

/// Opens a link to a broker that is played by a test; what it said to come in was read.
fn opened() -> (Link, UnixStream) {
    let (own, mut broker) = UnixStream::pair().unwrap();
    broker.write_all(&CONNACK).unwrap();
    let link = Link::open(own, "program").unwrap();
    let mut connect = [0; 256];
    assert!(broker.read(&mut connect).unwrap() > 0);
    broker.set_nonblocking(true).unwrap();
    (link, broker)
}

fn said(broker: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; 256];
    let count = broker.read(&mut bytes).unwrap_or(0);
    bytes.truncate(count);
    bytes
}

fn take(link: &mut Link) -> usize {
    link.take(10, |_| Ok::<(), LinkError>(())).unwrap()
}

/// Goal: who asks for more has taken what it was given, though nothing more comes. Method: each
/// way to ask, and a broker that sends one message.
#[test]
fn a_message_is_acknowledged_when_more_is_asked_for_and_not_when_more_comes() {
    let look: fn(&mut Link) -> Result<bool, LinkError> = Link::look;
    let wait = |link: &mut Link| link.wait(Duration::from_millis(1));
    for ask in [look, wait] {
        let (mut link, mut broker) = opened();
        broker.write_all(&PUBLISH).unwrap();
        assert!(link.look().unwrap() && link.is_ready().unwrap());
        assert_eq!(take(&mut link), 1);
        assert_eq!(said(&mut broker), []);
        assert!(!ask(&mut link).unwrap());
        assert_eq!(said(&mut broker), PUBACK);
    }
}

#[test]
fn a_look_waits_for_nothing_and_finds_a_message_when_all_of_it_is_there() {
    let (mut link, mut broker) = opened();
    let (first, rest) = PUBLISH.split_at(5);
    assert!(!link.look().unwrap());
    broker.write_all(first).unwrap();
    assert!(!link.look().unwrap() && !link.is_ready().unwrap());
    broker.write_all(rest).unwrap();
    assert!(link.look().unwrap());
    assert_eq!(take(&mut link), 1);
    // A call that waits still does: what looks has left the socket as it was.
    assert!(!link.wait(Duration::from_millis(1)).unwrap());
    drop(broker);
    assert!(matches!(link.look(), Err(LinkError::Gone(_))));
}

#[test]
fn a_word_is_said_when_half_of_the_silence_that_the_broker_bears_is_over() {
    let (mut link, mut broker) = opened();
    let due = link.keep_alive().unwrap().unwrap();
    assert!(due <= Duration::from_secs(5));
    assert_eq!(said(&mut broker), []);
    link.spoke_at -= Duration::from_secs(5);
    assert!(link.is_silent());
    assert!(link.keep_alive().unwrap().unwrap() > Duration::ZERO);
    assert_eq!(said(&mut broker), PINGREQ);
    // The answer is no message, and is in nobody's way.
    broker.write_all(&PINGRESP).unwrap();
    assert!(link.look().unwrap());
    assert_eq!(take(&mut link), 0);
    assert!(!link.look().unwrap());
}

#[test]
fn identifiers_are_told_apart_by_their_hash() {
    let hash = |id: u16| {
        let mut hasher = OwnId::default();
        hasher.write_u16(id);
        hasher.finish()
    };
    let mut hashes: Vec<u64> = (1..=u16::MAX).map(hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), usize::from(u16::MAX));
}
