//! Clients that keep their side of every exchange over crashes of the broker.

use std::collections::BTreeSet;

use casemate_codec::{Ack, Packet, Publish, QoS, Reason, UserProperties, Version};

use crate::harness::{self, id, lasting, message, packets, welcome, Lab, Peer};

/// An acknowledgement of success.
pub fn ack(packet_id: u16) -> Ack<'static> {
    Ack {
        packet_id: id(packet_id),
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    }
}

/// A client that keeps its side of every exchange of QoS 2, over as many connections as it takes.
pub struct Keeper {
    version: Version,
    pub name: &'static str,
    pub peer: Peer,
    /// Published and without PUBREC, with PUBREC and without PUBCOMP.
    pub sent: BTreeSet<u16>,
    pub released: BTreeSet<u16>,
    /// Received and not released by the broker.
    pub unreleased: BTreeSet<u16>,
    pub got: Vec<String>,
}

impl Keeper {
    pub fn new(lab: &mut Lab, version: Version, name: &'static str) -> Keeper {
        let peer = lab.joined(&lasting(version, name));
        Keeper {
            version,
            name,
            peer,
            sent: BTreeSet::new(),
            released: BTreeSet::new(),
            unreleased: BTreeSet::new(),
            got: Vec::new(),
        }
    }

    pub fn publish(&mut self, lab: &mut Lab, number: u16) {
        self.sent.insert(number);
        self.send(lab, number, false);
    }

    fn send(&self, lab: &mut Lab, number: u16, dup: bool) {
        let payload = number.to_string();
        let publish = Publish {
            dup,
            ..message("t", payload.as_bytes(), QoS::ExactlyOnce, number)
        };
        lab.say(self.peer, &Packet::Publish(publish));
    }

    /// Comes again; the session must be there.
    pub fn come_again(&mut self, lab: &mut Lab) {
        let connect = lasting(self.version, self.name);
        self.peer = lab.connect(&connect);
        let bytes = lab.take(self.peer);
        let found = packets(self.version, &bytes);
        assert_eq!(
            found.first(),
            Some(&welcome(self.version, true)),
            "{}",
            self.name
        );
        let rest = found[1..]
            .iter()
            .map(|packet| harness::bytes_of(self.version, packet));
        let rest: Vec<u8> = rest.flatten().collect();
        self.hear(lab, &rest);
        for number in self.released.clone() {
            lab.say(self.peer, &Packet::Pubrel(ack(number)));
        }
        for number in self.sent.clone() {
            self.send(lab, number, true);
        }
    }

    /// Answers what has come; false where nothing has.
    fn act(&mut self, lab: &mut Lab) -> bool {
        let bytes = lab.take(self.peer);
        self.hear(lab, &bytes)
    }

    fn hear(&mut self, lab: &mut Lab, bytes: &[u8]) -> bool {
        for packet in packets(self.version, bytes) {
            match packet {
                Packet::Publish(publish) => {
                    let number = publish.packet_id.unwrap().get();
                    if self.unreleased.insert(number) {
                        let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                        self.got.push(text);
                    }
                    lab.say(self.peer, &Packet::Pubrec(ack(number)));
                }
                Packet::Pubrel(found) => {
                    let number = found.packet_id.get();
                    self.unreleased.remove(&number);
                    lab.say(self.peer, &Packet::Pubcomp(ack(number)));
                }
                Packet::Pubrec(found) => {
                    let number = found.packet_id.get();
                    self.sent.remove(&number);
                    self.released.insert(number);
                    lab.say(self.peer, &Packet::Pubrel(ack(number)));
                }
                Packet::Pubcomp(found) => {
                    self.released.remove(&found.packet_id.get());
                }
                Packet::Suback(_) => {}
                other => panic!("not expected: {other:?}"),
            }
        }
        !bytes.is_empty()
    }
}

/// Both act until nothing comes any more.
pub fn settle(lab: &mut Lab, keepers: &mut [&mut Keeper]) {
    for _ in 0..100 {
        let acted = keepers.iter_mut().map(|keeper| keeper.act(lab));
        if !acted.fold(false, |any, one| any | one) {
            return;
        }
    }
    panic!("they never come to rest");
}
