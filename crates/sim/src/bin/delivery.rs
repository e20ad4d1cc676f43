//! Deliveries without a shell, to have their instructions counted; see `bench/instructions.py`.
//!
//! `delivery SHAPE QOS VERSION ROUNDS` feeds one shard with prepared packets, reads what it
//! writes, acknowledges on both sides, and prints how many messages were delivered. A policy of 20
//! rules with templates is in force, and every limit and counter is on. All that is counted
//! happens in [`measured`]: connecting, subscribing and one round that warms up come before it.
//! Seeds and clock are fixed, so that each run does the same.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is a program; its output is what it is for"
)]

use std::io::IoSlice;
use std::process::ExitCode;
use std::sync::Arc;

use casemate_codec::{
    encode, Connect, ConnectProperties, Filters, Packet, PacketId, Publish, PublishProperties, QoS,
    RetainHandling, Subscribe, SubscribeFilter, UserProperties, Version,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_engine::{
    ConnectionId, Effect, Grant, Input, Millis, Origin, Place, Principal, Settings, Shard, Verdict,
};

/// Packets that a publisher sends in one piece; a read of a busy socket brings about as many.
const PACKETS: u16 = 16;

const PAYLOAD: [u8; 64] = [b'x'; 64];

const NOW: Millis = 1_000;

const USAGE: &str = "usage: delivery fan-in|fan-out|pairs|topics|singly 0|1|2 311|5 ROUNDS";

/// What a publisher sends in each round.
struct Publisher {
    id: ConnectionId,
    publishes: Vec<u8>,
    pubrels: Vec<u8>,
}

/// The shard and those around it.
struct Stage {
    shard: Shard,
    qos: QoS,
    version: Version,
    is_single: bool,
    publishers: Vec<Publisher>,
    /// The first slots are theirs.
    subscribers: u32,
    /// Messages that each subscriber gets in a round.
    each: u64,
    /// Messages that each has got in the rounds before.
    received: u64,
    effects: Vec<Effect>,
    dirty: Vec<ConnectionId>,
    answers: Vec<u8>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((mut stage, rounds)) = Stage::of(&words) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    stage.round();
    let before = stage.shard.counters().publishes_sent;
    measured(&mut stage, rounds);
    println!("{}", stage.shard.counters().publishes_sent - before);
    ExitCode::SUCCESS
}

/// What is counted.
#[inline(never)]
fn measured(stage: &mut Stage, rounds: usize) {
    for _ in 0..rounds {
        stage.round();
    }
}

impl Stage {
    /// Sets up what the command line asks for.
    fn of(words: &[&str]) -> Option<(Stage, usize)> {
        let &[shape, qos, version, rounds] = words else {
            return None;
        };
        let (publishers, subscribers, topics) = match shape {
            "fan-in" => (50, 1, 1),
            "fan-out" => (1, 100, 1),
            "pairs" => (50, 50, 1),
            // Each message of a publisher goes to another topic than the one before.
            "topics" => (50, 50, 8),
            // Each message comes in a piece of its own.
            "singly" => (50, 50, 1),
            _ => return None,
        };
        let qos = QoS::from_bits(qos.parse().ok()?)?;
        let version = match version {
            "311" => Version::V311,
            "5" => Version::V5,
            _ => return None,
        };
        let place = Place {
            index: 0,
            count: 1,
            seeds: [1, 2, 3, 4],
        };
        let settings = Arc::new(Settings::default());
        let mut stage = Stage {
            shard: Shard::new(settings, place, Arc::new(policy()?), NOW),
            qos,
            version,
            is_single: shape == "singly",
            publishers: Vec::new(),
            subscribers,
            each: u64::from(PACKETS) * if shape == "fan-in" { 50 } else { 1 },
            received: 0,
            effects: Vec::new(),
            dirty: Vec::new(),
            answers: Vec::new(),
        };
        for number in 0..subscribers {
            let filter = match shape {
                "pairs" | "topics" | "singly" => format!("users/all/bench/{number:02}/#"),
                _ => "users/all/bench/#".to_owned(),
            };
            stage.client(number, &filter)?;
        }
        for number in 0..publishers {
            let topics: Vec<String> = (0..topics)
                .map(|topic| format!("users/all/bench/{number:02}/{topic}"))
                .collect();
            stage.client(subscribers + number, "users/all/none")?;
            let publisher = stage.publisher(subscribers + number, &topics)?;
            stage.publishers.push(publisher);
        }
        Some((stage, rounds.parse().ok()?))
    }

    /// Connects a client and subscribes for it.
    fn client(&mut self, slot: u32, filter: &str) -> Option<()> {
        let id = address(slot);
        let origin = Origin {
            listener: 0,
            address: None,
            certificate: None,
        };
        let client_id = format!("client-{slot}");
        let connect = Packet::Connect(Connect {
            version: self.version,
            clean_start: true,
            keep_alive_s: 60,
            properties: ConnectProperties::default(),
            client_id: &client_id,
            will: None,
            username: None,
            password: None,
        });
        let filters = [SubscribeFilter {
            filter,
            qos: self.qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        }];
        let subscribe = Packet::Subscribe(Subscribe {
            packet_id: PacketId::MIN,
            subscription_id: None,
            user: UserProperties::default(),
            filters: Filters::List(&filters),
        });
        self.take(Input::Opened { id, origin });
        for packet in [connect, subscribe] {
            let bytes = self.encoded(&packet)?;
            self.take(Input::Received { id, bytes: &bytes });
        }
        self.end_turn();
        Some(())
    }

    /// Prepares what a publisher sends.
    fn publisher(&self, slot: u32, topics: &[String]) -> Option<Publisher> {
        let (mut publishes, mut pubrels) = (Vec::new(), Vec::new());
        for (number, topic) in (1..=PACKETS).zip(topics.iter().cycle()) {
            let packet_id = PacketId::new(number)?;
            publishes.extend(self.encoded(&Packet::Publish(Publish {
                dup: false,
                qos: self.qos,
                retain: false,
                topic,
                packet_id: (self.qos != QoS::AtMostOnce).then_some(packet_id),
                properties: PublishProperties::default(),
                payload: &PAYLOAD,
            }))?);
            if self.qos == QoS::ExactlyOnce {
                let [high, low] = number.to_be_bytes();
                pubrels.extend([0x62, 2, high, low]);
            }
        }
        Some(Publisher {
            id: address(slot),
            publishes,
            pubrels,
        })
    }

    fn encoded(&self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        encode(self.version, packet, u32::MAX, &mut bytes).ok()?;
        Some(bytes)
    }

    /// Every publisher sends its packets, and everybody acknowledges to the end.
    fn round(&mut self) {
        let publishers = std::mem::take(&mut self.publishers);
        for client in &publishers {
            let pieces = if self.is_single { PACKETS } else { 1 };
            let piece_bytes = client.publishes.len() / usize::from(pieces);
            for piece in client.publishes.chunks(piece_bytes) {
                self.hear(client.id, piece);
            }
        }
        self.end_turn();
        if self.qos == QoS::ExactlyOnce {
            for client in &publishers {
                self.hear(client.id, &client.pubrels);
            }
        }
        self.publishers = publishers;
        let steps: &[u8] = match self.qos {
            QoS::AtMostOnce => &[],
            QoS::AtLeastOnce => &[0x40],
            QoS::ExactlyOnce => &[0x50, 0x70],
        };
        for &first in steps {
            self.acknowledge(first);
        }
        self.received += self.each;
    }

    /// Every subscriber acknowledges what this round brought: identifiers follow one another.
    fn acknowledge(&mut self, first: u8) {
        let mut answers = std::mem::take(&mut self.answers);
        answers.clear();
        for number in self.received..self.received + self.each {
            let [high, low] = ((number % 65_535) as u16 + 1).to_be_bytes();
            answers.extend([first, 2, high, low]);
        }
        for slot in 0..self.subscribers {
            self.hear(address(slot), &answers);
        }
        self.answers = answers;
        self.end_turn();
    }

    fn hear(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.take(Input::Received { id, bytes });
    }

    fn end_turn(&mut self) {
        self.take(Input::TurnEnd);
        self.read();
    }

    /// Takes an input in and answers for everybody around the shard.
    fn take(&mut self, input: Input<'_>) {
        self.shard.handle(NOW, input, &mut self.effects);
        while let Some(effect) = self.effects.pop() {
            match effect {
                Effect::Authenticate { id, step, .. } => {
                    let verdict = granted();
                    let answer = Input::Decided { id, step, verdict };
                    self.shard.handle(NOW, answer, &mut self.effects);
                }
                Effect::Persist { seq, .. } => {
                    let answer = Input::Persisted { seq };
                    self.shard.handle(NOW, answer, &mut self.effects);
                }
                Effect::Flush { id } => self.write(id),
                _ => {}
            }
        }
    }

    /// Everybody reads at once.
    fn read(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        self.shard.take_dirty(&mut dirty);
        for id in dirty.drain(..) {
            self.write(id);
        }
        self.dirty = dirty;
    }

    fn write(&mut self, id: ConnectionId) {
        let mut slices = [IoSlice::new(&[]); 4];
        let filled = self.shard.outgoing(id).slices(&mut slices);
        let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
        if bytes > 0 {
            let input = Input::Sent { id, bytes };
            self.shard.handle(NOW, input, &mut self.effects);
        }
    }
}

fn address(slot: u32) -> ConnectionId {
    ConnectionId {
        slot,
        generation: 1,
    }
}

fn granted() -> Verdict {
    Verdict::Granted(Box::new(Grant {
        principal: Arc::new(Principal {
            tenant: 0,
            realm: "bench".into(),
            name: "all".into(),
            roles: vec!["load".into()],
        }),
        client_id_bound: true,
        fresh_client_id: "fresh".into(),
        data: None,
        until: None,
    }))
}

/// One role of 20 rules, where the last ones apply.
fn policy() -> Option<Policy> {
    let rule = |number: usize, operation, filter: String| Rule {
        operation,
        filter: filter.into(),
        qos_max: QoS::ExactlyOnce,
        retain: false,
        place: format!("policy.toml:{number}").into(),
    };
    let mut rules: Vec<Rule> = (0..9)
        .flat_map(|number| {
            [
                rule(number, Operation::Publish, format!("rooms/{number}/+/%u")),
                rule(number, Operation::Subscribe, format!("rooms/{number}/%c/#")),
            ]
        })
        .collect();
    rules.push(rule(18, Operation::Publish, "users/%u/#".to_owned()));
    rules.push(rule(19, Operation::Subscribe, "users/%u/#".to_owned()));
    let role = Role {
        name: "load".into(),
        rules,
    };
    Policy::compile(1, vec![role]).ok()
}
