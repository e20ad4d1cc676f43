//! What the engine allocates: little for an idle client, and nothing for one more delivery.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

#[path = "conformance/harness.rs"]
mod harness;
#[path = "conformance/word.rs"]
mod word;

use std::io::IoSlice;
use std::sync::Arc;

use allocation_counter::measure;
use casemate_codec::{Connect, Packet, QoS, Version};
use casemate_engine::{ConnectionId, Effect, Input, Origin, Place, Settings, Shard, ShardIndex};

use harness::{bytes_of, hello, message, plain, policy, subscribe};
use word::{puback, Q0, Q1};

/// What one session may have, and has below.
const SUBSCRIPTIONS: usize = 1_000_000;

/// What an idle client of 3.1.1 with a subscription of its own may keep in the engine, bytes.
/// With the 112 of the shell's row (`an_idle_connection_is_small` in the server) and what the
/// allocator rounds up, that is what `docs/performance.md` calls an idle connection over TCP.
const IDLE_BYTES_MAX: i64 = 600;

/// What a client hears at least whose session lives here; SUBACK waits for the neighbour.
const CONNACK_BYTES: usize = 4;

/// A shard whose clients read at once and whose store answers at once. Only the shard keeps
/// anything.
struct Bare {
    shard: Shard,
    clients: u32,
    effects: Vec<Effect>,
    dirty: Vec<ConnectionId>,
    /// What it has for its neighbour.
    forwarded: Vec<Vec<u8>>,
}

impl Bare {
    fn new() -> Bare {
        Bare::of(0, 1)
    }

    /// One of several shards.
    fn of(index: ShardIndex, count: ShardIndex) -> Bare {
        let place = Place {
            index,
            count,
            seeds: [1, 2, 3, 4],
        };
        let settings = Arc::new(Settings {
            subscriptions_per_session_max: SUBSCRIPTIONS,
            ..Settings::default()
        });
        Bare {
            shard: Shard::new(settings, place, Arc::new(policy(1)), 0),
            clients: 0,
            effects: Vec::with_capacity(64),
            dirty: Vec::with_capacity(1_024),
            forwarded: Vec::with_capacity(64),
        }
    }

    /// A connected client that has one subscription.
    fn subscriber(&mut self, filter: &str, qos: QoS, is_lasting: bool) -> ConnectionId {
        let id = ConnectionId {
            slot: self.clients,
            generation: 1,
        };
        self.clients += 1;
        let origin = Origin {
            listener: 0,
            address: None,
            certificate: None,
        };
        self.take(Input::Opened { id, origin });
        let client_id = format!("client-{}", id.slot);
        let connect = Packet::Connect(Connect {
            clean_start: !is_lasting,
            ..hello(Version::V311, &client_id)
        });
        self.say(id, &bytes_of(Version::V311, &connect));
        let lines = [plain(filter, qos)];
        self.say(id, &bytes_of(Version::V311, &subscribe(1, &lines)));
        id
    }

    fn say(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.take(Input::Received { id, bytes });
        self.take(Input::TurnEnd);
    }

    /// Takes an input in and answers for everybody around the shard.
    fn take(&mut self, input: Input<'_>) {
        self.shard.handle(1_000, input, &mut self.effects);
        while let Some(effect) = self.effects.pop() {
            let answer = match effect {
                Effect::Authenticate {
                    id,
                    step,
                    credentials,
                } => Input::Decided {
                    id,
                    step,
                    verdict: harness::judge::by_name(&credentials),
                },
                Effect::Persist { seq, .. } => Input::Persisted { seq },
                Effect::Forward { batch, .. } => {
                    self.forwarded.push(batch);
                    continue;
                }
                _ => continue,
            };
            self.shard.handle(1_000, answer, &mut self.effects);
        }
    }

    /// Lets everybody read, and says how many bytes there were.
    fn read(&mut self) -> usize {
        let mut total = 0;
        loop {
            self.shard.take_dirty(&mut self.dirty);
            let Some(id) = self.dirty.pop() else {
                return total;
            };
            let mut slices = [IoSlice::new(&[]); 16];
            let filled = self.shard.outgoing(id).slices(&mut slices);
            let bytes = slices[..filled].iter().map(|slice| slice.len()).sum();
            total += bytes;
            self.take(Input::Sent { id, bytes });
        }
    }
}

/// Goal: an idle client of 3.1.1 with a subscription of its own costs little. Method: what 1,000
/// of them leave allocated, beside as many that were there before.
#[test]
fn an_idle_client_keeps_little_in_the_engine() {
    let mut bare = Bare::new();
    let connect = |bare: &mut Bare| {
        for _ in 0..1_000 {
            let filter = format!("room/{}/light", bare.clients);
            bare.subscriber(&filter, Q0, false);
        }
        bare.read();
    };
    connect(&mut bare);
    let info = measure(|| connect(&mut bare));
    let each = info.bytes_current / 1_000;
    assert!(
        (IDLE_BYTES_MAX / 2..=IDLE_BYTES_MAX).contains(&each),
        "{each} bytes"
    );
}

/// Goal: a subscription costs little beside its neighbours, whoever has it. Method: what a million
/// leave allocated, every fifth with a wildcard, in one session, and fewer of a thousand sessions.
#[test]
fn a_million_subscriptions_keep_80_bytes_each_at_most() {
    for (sessions, count) in [(1, SUBSCRIPTIONS), (1_000, SUBSCRIPTIONS / 4)] {
        let mut bare = Bare::new();
        let ids: Vec<ConnectionId> = (0..sessions)
            .map(|number| bare.subscriber(&format!("own/{number}"), Q0, false))
            .collect();
        let info = measure(|| {
            for from in (0..count).step_by(100) {
                let filters: Vec<String> = (from..from + 100).map(filter_among_many).collect();
                let lines: Vec<_> = filters.iter().map(|filter| plain(filter, Q0)).collect();
                let id = ids[from / 100 % sessions];
                bare.say(id, &bytes_of(Version::V311, &subscribe(1, &lines)));
                bare.read();
            }
        });
        let each = info.bytes_current as f64 / count as f64;
        assert!((20.0..80.0).contains(&each), "{sessions}: {each} bytes");
    }
}

/// A filter of its own for each number, as devices in rooms have them.
fn filter_among_many(number: usize) -> String {
    let (room, device) = (number % 1_000, number / 1_000);
    match number % 5 {
        4 => format!("users/some/site/in/{}/+/{number}", device % 10),
        _ => format!("users/some/site/in/{}/{room}/{number}", device % 10),
    }
}

/// Goal: a delivery allocates nothing. Method: messages to 10 and to 100 subscribers; only sessions
/// that outlive their connection keep a message, one copy for all of them.
#[test]
fn one_more_recipient_costs_no_allocation() {
    for (qos, is_lasting, per_message) in [(Q0, false, 0), (Q1, false, 0), (Q1, true, 1)] {
        for subscribers in [10, 100] {
            let mut bare = Bare::new();
            let readers: Vec<ConnectionId> = (0..subscribers)
                .map(|_| bare.subscriber("t", qos, is_lasting))
                .collect();
            let writer = bare.subscriber("other", Q0, false);
            let packet = Packet::Publish(message("t", &[7; 64], qos, u16::from(qos == Q1)));
            let publish = bytes_of(Version::V311, &packet);
            let puback = bytes_of(Version::V311, &puback(1));
            let turn = |bare: &mut Bare, number: u16| {
                bare.say(writer, &publish);
                let read = bare.read();
                assert!(read > 64 * readers.len(), "everybody has it");
                let mut puback = [puback[0], puback[1], 0, 0];
                puback[2..].copy_from_slice(&number.to_be_bytes());
                for reader in readers.iter().filter(|_| qos == Q1) {
                    bare.say(*reader, &puback);
                }
            };
            for number in 1..=200 {
                turn(&mut bare, number);
            }
            let info = measure(|| {
                for number in 201..=300 {
                    turn(&mut bare, number);
                }
            });
            assert_eq!(
                info.count_total,
                100 * per_message,
                "{qos:?} to {subscribers}, lasting {is_lasting}"
            );
        }
    }
}

/// Two shards with nothing between them: what one hands on, the other takes at once.
struct Crossing {
    sides: [Bare; 2],
}

impl Crossing {
    fn new() -> Crossing {
        Crossing {
            sides: [0, 1].map(|index| Bare::of(index, 2)),
        }
    }

    /// A client whose session lives on this side, with a subscription.
    fn client(&mut self, side: usize, filter: &str, qos: QoS) -> ConnectionId {
        for _ in 0..1_000 {
            let id = self.sides[side].subscriber(filter, qos, false);
            // One that belongs to the other side was handed over, and heard nothing here.
            if self.sides[side].read() >= CONNACK_BYTES {
                self.carry();
                self.sides[side].read();
                return id;
            }
        }
        panic!("no name of a thousand has its home on side {side}");
    }

    /// Ends the turn of each side and carries what it has for the other, until there is nothing.
    fn carry(&mut self) {
        loop {
            let mut is_idle = true;
            for from in [0, 1] {
                self.sides[from].take(Input::TurnEnd);
                for batch in std::mem::take(&mut self.sides[from].forwarded) {
                    is_idle = false;
                    let (here, there) = (from as ShardIndex, 1 - from as ShardIndex);
                    self.sides[1 - from].take(Input::Forwarded {
                        from: here,
                        batch: &batch,
                    });
                    self.sides[from].take(Input::Drained {
                        to: there,
                        bytes: batch.len(),
                    });
                }
            }
            if is_idle {
                return;
            }
        }
    }
}

/// Goal: a message that crosses to another shard allocates nothing. Method: what a turn of ten
/// allocates, and a turn of a hundred: messages that go on as a run, and such that cannot.
#[test]
fn one_more_message_between_shards_costs_no_allocation() {
    for (qos, is_run) in [(Q0, true), (Q0, false), (Q1, true), (Q1, false)] {
        let mut two = Crossing::new();
        let reader = two.client(1, "t", qos);
        let writer = two.client(0, "other", Q0);
        let mut next = 0;
        let allocations = [10, 100].map(|count| {
            let publishes: Vec<u8> = (1..=count)
                .flat_map(|number| {
                    let payload = &[7; 64][..if is_run { 64 } else { 32 + number % 2 }];
                    let packet_id = if qos == Q0 { 0 } else { number as u16 };
                    let packet = Packet::Publish(message("t", payload, qos, packet_id));
                    bytes_of(Version::V311, &packet)
                })
                .collect();
            let mut turn = |two: &mut Crossing| {
                two.sides[0].take(Input::Received {
                    id: writer,
                    bytes: &publishes,
                });
                two.carry();
                two.sides[0].read();
                assert!(two.sides[1].read() > 32 * count, "everything has arrived");
                for _ in 0..if qos == Q0 { 0 } else { count } {
                    next = next % 65_535 + 1;
                    let [high, low] = (next as u16).to_be_bytes();
                    two.sides[1].say(reader, &[0x40, 2, high, low]);
                }
            };
            for _ in 0..20 {
                turn(&mut two);
            }
            measure(|| turn(&mut two)).count_total
        });
        assert_eq!(allocations[0], allocations[1], "{qos:?}, a run: {is_run}");
    }
}
