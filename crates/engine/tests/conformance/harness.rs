//! A lab for conformance tests: shards behind their real door, bytes in, bytes out, virtual time.

#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a test that fails says why"
)]
#![allow(
    dead_code,
    reason = "each file of tests includes this room and uses its own part of it"
)]

#[path = "build.rs"]
pub mod build;
#[path = "judge.rs"]
pub mod judge;
#[path = "store.rs"]
mod store;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::sync::Arc;

pub use build::*;
use casemate_codec::{decode, frame, Connect, Packet, QoS, Reason, Sender, Version};
use casemate_engine::policy::Policy;
use casemate_engine::{
    ConnectionId, Credentials, Effect, EventKind, Input, Loss, Millis, Origin, Place, Settings,
    Shard, ShardIndex, Verdict,
};
use judge::by_name;
pub use judge::policy;

/// Both versions whose statements are tested side by side.
pub const BOTH: [Version; 2] = [Version::V311, Version::V5];

/// Who says what to a CONNECT or an AUTH.
pub type Judge = Box<dyn FnMut(&Credentials) -> Verdict>;

/// One client of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(usize);

/// What the lab knows of a client's transport.
struct Line {
    shard: usize,
    id: ConnectionId,
    version: Version,
    /// Written by the broker and not yet taken by the test.
    heard: Vec<u8>,
    /// Sent by the client while the broker did not read.
    unread: Vec<u8>,
    paused: bool,
    /// The client does not read, so that the broker's window fills.
    stalled: bool,
    closed: bool,
}

fn shards_of(settings: &Arc<Settings>, count: ShardIndex) -> Vec<Shard> {
    let policy = Arc::new(policy(1));
    let place = |index| Place {
        index,
        count,
        seeds: [1, 2, 3, 4],
    };
    let make = |index| Shard::new(settings.clone(), place(index), policy.clone(), 0);
    (0..count).map(make).collect()
}

/// One broker of one or more shards with its clients.
pub struct Lab {
    shards: Vec<Shard>,
    settings: Arc<Settings>,
    lines: Vec<Line>,
    queue: VecDeque<(usize, Effect)>,
    now: Millis,
    judge: Judge,
    /// While true, nothing becomes durable.
    pub store_holds: bool,
    /// Pipes between two shards, from and to, that carry nothing for now.
    pub held_pipes: Vec<(usize, usize)>,
    in_held_pipes: Vec<((usize, usize), Vec<u8>)>,
    /// While true, a transport that the broker has closed still carries bytes both ways.
    pub lingers: bool,
    owed: Vec<(usize, u64, Vec<u8>)>,
    /// What is durable, in the order in which it became so.
    pub log: Vec<Vec<u8>>,
    /// Everything told, oldest first.
    pub events: Vec<EventKind>,
    /// Shards that have written everything down anew.
    checkpointed: usize,
    /// Shards that have said that all their promises are kept.
    pub settled: usize,
    pub batch_bytes_most: usize,
}

impl Lab {
    /// One shard with default settings, where everybody may do everything (see [`by_name`]).
    pub fn new() -> Lab {
        Lab::with(Settings::default(), 1)
    }

    /// As many shards as asked, with these settings; they write down what must be kept, and
    /// whenever all is quiet that is compared with what they hold.
    pub fn with(settings: Settings, shards: ShardIndex) -> Lab {
        let settings = Arc::new(Settings {
            journal: true,
            ..settings
        });
        Lab {
            shards: shards_of(&settings, shards),
            settings,
            lines: Vec::new(),
            queue: VecDeque::new(),
            now: 1_000,
            judge: Box::new(by_name),
            store_holds: false,
            held_pipes: Vec::new(),
            in_held_pipes: Vec::new(),
            lingers: false,
            owed: Vec::new(),
            log: Vec::new(),
            events: Vec::new(),
            checkpointed: 0,
            settled: 0,
            batch_bytes_most: 0,
        }
    }

    /// Puts somebody else in charge of proofs.
    pub fn judged_by(mut self, judge: impl FnMut(&Credentials) -> Verdict + 'static) -> Lab {
        self.judge = Box::new(judge);
        self
    }

    /// The virtual clock.
    pub fn now(&self) -> Millis {
        self.now
    }

    /// A transport to the first shard; `version` only says how its bytes are read and written.
    pub fn open(&mut self, version: Version) -> Peer {
        self.open_at(0, version)
    }

    /// A transport to this shard.
    pub fn open_at(&mut self, shard: usize, version: Version) -> Peer {
        let id = ConnectionId {
            slot: self.lines.len() as u32,
            generation: 1,
        };
        self.lines.push(Line {
            shard,
            id,
            version,
            heard: Vec::new(),
            unread: Vec::new(),
            paused: false,
            stalled: false,
            closed: false,
        });
        let origin = Origin {
            listener: 0,
            address: None,
            certificate: None,
        };
        self.put(shard, Input::Opened { id, origin });
        self.run();
        Peer(self.lines.len() - 1)
    }

    /// Opens a transport, sends this CONNECT, and leaves the answer to be taken.
    pub fn connect(&mut self, connect: &Connect<'_>) -> Peer {
        let peer = self.open(connect.version);
        self.say(peer, &Packet::Connect(connect.clone()));
        peer
    }

    /// A connected client whose CONNACK has been taken and was a success.
    #[track_caller]
    pub fn joined(&mut self, connect: &Connect<'_>) -> Peer {
        let peer = self.connect(connect);
        let bytes = self.take(peer);
        match packets(connect.version, &bytes).as_slice() {
            [Packet::Connack(connack), ..] if connack.reason == Reason::Success => peer,
            other => panic!("no success but {other:?}"),
        }
    }

    /// A connected client with a clean session of its own.
    #[track_caller]
    pub fn client(&mut self, version: Version, client_id: &str) -> Peer {
        self.joined(&hello(version, client_id))
    }

    /// Sends raw bytes and lets the broker do all that follows at this moment.
    pub fn send(&mut self, peer: Peer, bytes: &[u8]) {
        let line = &mut self.lines[peer.0];
        line.unread.extend_from_slice(bytes);
        self.read(peer);
        self.run();
    }

    /// Sends one packet.
    pub fn say(&mut self, peer: Peer, packet: &Packet<'_>) {
        let bytes = bytes_of(self.lines[peer.0].version, packet);
        self.send(peer, &bytes);
    }

    /// Subscribes with packet id 1 and takes everything up to and with the SUBACK away.
    #[track_caller]
    pub fn subscribe(&mut self, peer: Peer, filter: &str, qos: QoS) {
        let line = [plain(filter, qos)];
        self.say(peer, &subscribe(1, &line));
        let bytes = self.take(peer);
        let found = packets(self.lines[peer.0].version, &bytes);
        assert!(
            matches!(found.first(), Some(Packet::Suback(ack))
                if ack.codes.iter().all(|code| (code as u8) == qos as u8)),
            "no grant but {found:?}"
        );
    }

    /// Subscribes at QoS 1 with packet id 1 and leaves everything to be taken.
    pub fn subscribe_and_keep(&mut self, peer: Peer, filter: &str) {
        let line = [plain(filter, QoS::AtLeastOnce)];
        self.say(peer, &subscribe(1, &line));
    }

    /// The transport of a client is gone without a word.
    pub fn cut(&mut self, peer: Peer) {
        let line = &mut self.lines[peer.0];
        assert!(!line.closed, "there is nothing to cut");
        line.closed = true;
        let (shard, id) = (line.shard, line.id);
        let loss = Loss::Transport;
        self.put(shard, Input::Closed { id, loss });
        self.run();
    }

    /// A client stops or begins to read.
    pub fn stall(&mut self, peer: Peer, stalled: bool) {
        self.lines[peer.0].stalled = stalled;
        self.run();
    }

    /// True after the broker has closed the transport or the test has cut it.
    pub fn is_closed(&self, peer: Peer) -> bool {
        self.lines[peer.0].closed
    }

    /// The shard that serves a client now.
    pub fn shard_of(&self, peer: Peer) -> usize {
        self.lines[peer.0].shard
    }

    /// What one shard has counted.
    pub fn shard(&self, index: usize) -> &Shard {
        &self.shards[index]
    }

    /// Takes what a client has been sent since the last time.
    pub fn take(&mut self, peer: Peer) -> Vec<u8> {
        std::mem::take(&mut self.lines[peer.0].heard)
    }

    /// Takes what a client has been sent and compares it, packet by packet, but for the words of
    /// reason strings, which `conformance_wording` judges.
    #[track_caller]
    pub fn expect(&mut self, peer: Peer, expected: &[Packet<'_>]) {
        let version = self.lines[peer.0].version;
        let bytes = self.take(peer);
        let mut found = packets(version, &bytes);
        found
            .iter_mut()
            .filter_map(words_of)
            .for_each(|words| *words = None);
        assert_eq!(found, expected);
    }

    /// As [`Lab::expect`], and the transport is closed behind it.
    #[track_caller]
    pub fn expect_end(&mut self, peer: Peer, expected: &[Packet<'_>]) {
        self.expect(peer, expected);
        assert!(self.is_closed(peer), "the transport is still open");
    }

    /// As [`Lab::expect`], and the transport is open behind it.
    #[track_caller]
    pub fn expect_open(&mut self, peer: Peer, expected: &[Packet<'_>]) {
        self.expect(peer, expected);
        assert!(!self.is_closed(peer), "the transport is closed");
    }

    /// A new policy for every shard.
    pub fn obey(&mut self, policy: Policy) {
        let policy = Arc::new(policy);
        for shard in 0..self.shards.len() {
            self.put(shard, Input::Policy(policy.clone()));
        }
        self.run();
    }

    /// Lets time pass; every deadline on the way is kept at its moment.
    pub fn pass(&mut self, millis: u64) {
        let until = self.now + millis;
        for _ in 0..1_000_000 {
            let due = self.shards.iter().filter_map(Shard::next_deadline).min();
            let Some(at) = due.filter(|at| *at <= until) else {
                self.now = until;
                return self.run();
            };
            self.now = self.now.max(at);
            for shard in 0..self.shards.len() {
                self.put(shard, Input::Tick);
            }
            self.run();
        }
        panic!("a deadline is never kept");
    }

    /// Lets a pipe carry again, what waits in it first.
    pub fn release_pipe(&mut self, from: usize, to: usize) {
        let is_it = |pipe: &(usize, usize)| *pipe == (from, to);
        self.held_pipes.retain(|pipe| !is_it(pipe));
        let held = std::mem::take(&mut self.in_held_pipes);
        let (free, rest): (Vec<_>, Vec<_>) = held.into_iter().partition(|(pipe, _)| is_it(pipe));
        self.in_held_pipes = rest;
        for (pipe, batch) in free {
            self.carry(pipe, &batch);
        }
        self.run();
    }

    /// Orders every shard to take no new promise.
    pub fn drain(&mut self, server_reference: Option<&str>) {
        for shard in 0..self.shards.len() {
            self.put(shard, Input::Drain { server_reference });
        }
        self.run();
    }

    /// Lets every client go that is owed nothing.
    pub fn leave(&mut self) {
        for shard in 0..self.shards.len() {
            self.put(shard, Input::Leave);
        }
        self.run();
    }

    /// Tells every client that the broker goes away.
    pub fn stop(&mut self, reason: Reason) {
        for shard in 0..self.shards.len() {
            self.put(shard, Input::Stop { reason });
        }
        self.run();
    }

    /// Runs turns of the loop until nothing moves any more.
    pub fn run(&mut self) {
        for _ in 0..10_000 {
            while let Some((shard, effect)) = self.queue.pop_front() {
                self.act(shard, effect);
            }
            for shard in 0..self.shards.len() {
                self.put(shard, Input::TurnEnd);
            }
            let written = (0..self.lines.len()).fold(false, |any, line| self.write(line) | any);
            if !written && self.queue.is_empty() {
                // Each look costs as much as there is, so that long tests are looked at less often.
                if self.log.len() < 200 || self.log.len().is_power_of_two() {
                    self.check_journal();
                }
                return;
            }
        }
        panic!("the broker does not come to rest");
    }

    /// Publishes a retained message for the broker itself.
    pub fn announce(&mut self, topic: &str, payload: &[u8]) {
        let retain = true;
        self.put(
            0,
            Input::Announce {
                topic,
                payload,
                retain,
            },
        );
        self.run();
    }

    fn put(&mut self, shard: usize, input: Input<'_>) {
        let mut effects = Vec::new();
        self.shards[shard].handle(self.now, input, &mut effects);
        self.queue
            .extend(effects.into_iter().map(|effect| (shard, effect)));
    }

    fn act(&mut self, shard: usize, effect: Effect) {
        match effect {
            Effect::Authenticate {
                id,
                step,
                credentials,
            } => {
                let verdict = (self.judge)(&credentials);
                self.put(shard, Input::Decided { id, step, verdict });
            }
            Effect::HandOver { id, to, parcel } => {
                if let Some(line) = self.line(shard, id) {
                    self.lines[line].shard = usize::from(to);
                }
                self.put(usize::from(to), Input::Adopted { id, parcel });
            }
            Effect::Forward { to, batch } => {
                let pipe = (shard, usize::from(to));
                self.batch_bytes_most = self.batch_bytes_most.max(batch.len());
                if self.held_pipes.contains(&pipe) {
                    self.in_held_pipes.push((pipe, batch));
                } else {
                    self.carry(pipe, &batch);
                }
            }
            Effect::Persist { seq, records } if self.store_holds => {
                self.owed.push((shard, seq, records));
            }
            Effect::Persist { seq, records } => self.persisted(shard, seq, records),
            Effect::Pause { id } => self.paused(shard, id, true),
            Effect::Resume { id } => self.paused(shard, id, false),
            Effect::Close { id } => self.close(shard, id),
            Effect::Event(event) => self.events.push(event.kind),
            Effect::Settled => self.settled += 1,
            Effect::Checkpointed => self.checkpointed += 1,
            Effect::Flush { .. } | Effect::PolicyInForce { .. } => {}
        }
    }

    /// Takes a batch from one shard to another.
    fn carry(&mut self, (from, to): (usize, usize), batch: &[u8]) {
        let (sender, reader, bytes) = (from as ShardIndex, to as ShardIndex, batch.len());
        let input = Input::Forwarded {
            from: sender,
            batch,
        };
        self.put(to, input);
        self.put(from, Input::Drained { to: reader, bytes });
    }

    fn line(&self, shard: usize, id: ConnectionId) -> Option<usize> {
        let is_it = |line: &Line| line.shard == shard && line.id == id;
        self.lines.iter().position(is_it)
    }

    fn paused(&mut self, shard: usize, id: ConnectionId, paused: bool) {
        if let Some(line) = self.line(shard, id) {
            self.lines[line].paused = paused;
            self.read(Peer(line));
        }
    }

    /// Writes what is left, as a shell does, and reports the end.
    fn close(&mut self, shard: usize, id: ConnectionId) {
        let Some(line) = self.line(shard, id) else {
            return;
        };
        if self.lines[line].closed {
            return;
        }
        self.write(line);
        self.lines[line].closed = true;
        if self.lingers {
            return;
        }
        let loss = Loss::Transport;
        self.put(shard, Input::Closed { id, loss });
    }

    fn read(&mut self, peer: Peer) {
        let line = &mut self.lines[peer.0];
        if line.paused || line.closed && !self.lingers || line.unread.is_empty() {
            return;
        }
        let (shard, id) = (line.shard, line.id);
        let bytes = &*std::mem::take(&mut line.unread);
        self.put(shard, Input::Received { id, bytes });
    }

    /// Moves everything that stands in a client's window to it.
    fn write(&mut self, line: usize) -> bool {
        let Line { shard, id, .. } = self.lines[line];
        if self.lines[line].closed && !self.lingers || self.lines[line].stalled {
            return false;
        }
        self.shards[shard].take_dirty(&mut Vec::new());
        let outgoing = self.shards[shard].outgoing(id);
        let mut slices = [IoSlice::new(&[]); 8];
        let filled = outgoing.slices(&mut slices);
        let piece: Vec<u8> = slices[..filled]
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        if piece.is_empty() {
            return false;
        }
        self.lines[line].heard.extend_from_slice(&piece);
        let bytes = piece.len();
        self.put(shard, Input::Sent { id, bytes });
        while self.write(line) {}
        true
    }
}

/// Cuts and decodes what a server has sent; fails on any byte that a client would not accept.
#[track_caller]
pub fn packets(version: Version, mut bytes: &[u8]) -> Vec<Packet<'_>> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let frame = frame(bytes, u32::MAX)
            .expect("the broker's frame is valid")
            .expect("the broker sends whole packets");
        let (packet, rest) = bytes.split_at(frame.packet_bytes());
        let body = &packet[frame.header_bytes..];
        found.push(decode(version, Sender::Server, frame, body).expect("the broker's packet"));
        bytes = rest;
    }
    found
}

/// The reason string of a packet that can have one.
pub fn words_of<'a, 'b>(packet: &'b mut Packet<'a>) -> Option<&'b mut Option<&'a str>> {
    match packet {
        Packet::Connack(found) => Some(&mut found.properties.reason_string),
        Packet::Puback(found)
        | Packet::Pubrec(found)
        | Packet::Pubrel(found)
        | Packet::Pubcomp(found) => Some(&mut found.reason_string),
        Packet::Suback(found) => Some(&mut found.reason_string),
        Packet::Unsuback(found) => Some(&mut found.reason_string),
        Packet::Disconnect(found) => Some(&mut found.reason_string),
        Packet::Auth(found) => Some(&mut found.reason_string),
        _ => None,
    }
}
