//! Well-behaved clients: they keep to the protocol, and expect the broker to.

mod act;
mod answer;
mod connect;
mod receive;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use casemate_codec::{encode, Packet, PacketId, QoS, Version};
use casemate_engine::Millis;

use crate::chance::Chance;
use crate::history::{History, Invariant, Violation};
use crate::oracle::{Oracle, Place};
use crate::plan::{Persona, Plan};
use crate::shell::{Mark, Shell};
use crate::tell;

pub use act::plain_ack;

/// Everything a client can reach while it acts.
pub struct Scene<'a> {
    /// Virtual time.
    pub now: Millis,
    /// Decisions.
    pub chance: &'a mut Chance,
    /// The broker and the network.
    pub shell: &'a mut Shell,
    /// Who must see what.
    pub oracle: &'a mut Oracle,
    /// For whoever reads it.
    pub history: &'a mut History,
    /// Nothing new is begun; what is open is brought to an end.
    pub is_calm: bool,
}

/// Where a client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Without a connection.
    Down,
    /// CONNECT is written.
    Connecting,
    /// CONNACK has come.
    Up,
}

/// Something that awaits an answer under a packet id.
#[derive(Clone, Debug)]
enum Exchange {
    /// PUBLISH of QoS 1 or 2; `released` once PUBREL is written.
    Publish {
        serial: u64,
        released: bool,
    },
    Subscribe {
        places: Vec<Place>,
    },
    Unsubscribe {
        filters: Vec<Ending>,
    },
}

/// A filter that is being unsubscribed.
#[derive(Clone, Debug)]
struct Ending {
    filter: String,
    slots: Vec<usize>,
    was_sure: bool,
}

/// An acknowledgement that the client owes.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Puback(PacketId),
    Pubrec(PacketId),
    Pubcomp(PacketId),
}

/// What the server said in CONNACK.
#[derive(Clone, Copy, Debug)]
struct Limits {
    receive_max: usize,
    packet_bytes_max: usize,
    topic_alias_max: u16,
}

/// One well-behaved client.
pub struct Client {
    /// Its number; also its session's in the oracle.
    pub index: usize,
    /// Where it stands.
    pub phase: Phase,
    /// Its connection.
    pub link: Option<usize>,
    persona: Persona,
    plan: Arc<Plan>,
    limits: Limits,
    act_at: Millis,
    read_at: Millis,
    /// Bytes read and not yet decoded, and the stream's offset behind them.
    buffer: Vec<u8>,
    /// Bytes that did not fit into the stream yet.
    outbox: Vec<u8>,
    /// Bytes ever put on this connection.
    queued: u64,
    exchanges: BTreeMap<u16, Exchange>,
    next_packet_id: u16,
    answers: VecDeque<(Millis, Answer)>,
    aliases_in: BTreeMap<u16, String>,
    aliases_out: BTreeMap<u16, String>,
    /// Own limits of this connection.
    receive_max: usize,
    topic_alias_max: u16,
    /// Packet ids whose PUBACK, PUBREC or PUBCOMP is due, in order.
    due_puback: VecDeque<u16>,
    due_pubrec: VecDeque<u16>,
    due_pubcomp: VecDeque<u16>,
    /// QoS 0 messages that no later answer has confirmed, with their place in the stream.
    unconfirmed: VecDeque<(u64, u64)>,
    /// Places in the stream of PINGREQs without answer.
    pings: VecDeque<u64>,
    /// Where in the stream each exchange began.
    begun: BTreeMap<u16, u64>,
    keep_alive_ms: Option<Millis>,
    written_at: Millis,
    /// It has stopped sending, to see the server notice.
    is_silent: bool,
    /// CONNECT said so.
    clean: bool,
    session_expiry_s: u32,
    will: Option<u64>,
    /// Topic, QoS and retain of the message that it last published.
    kind: Option<(String, QoS, bool)>,
    /// A connection has already been refused for the will.
    will_refused: bool,
    /// The client waits for the end of a re-authentication.
    is_proving: bool,
    /// It does not connect any more.
    is_retired: bool,
}

impl Client {
    /// A client that has never connected.
    pub fn new(index: usize, persona: Persona, plan: Arc<Plan>) -> Client {
        Client {
            index,
            phase: Phase::Down,
            link: None,
            persona,
            plan,
            limits: Limits {
                receive_max: 0,
                packet_bytes_max: 0,
                topic_alias_max: 0,
            },
            act_at: 0,
            read_at: 0,
            buffer: Vec::new(),
            outbox: Vec::new(),
            queued: 0,
            exchanges: BTreeMap::new(),
            next_packet_id: 0,
            answers: VecDeque::new(),
            aliases_in: BTreeMap::new(),
            aliases_out: BTreeMap::new(),
            receive_max: 0,
            topic_alias_max: 0,
            due_puback: VecDeque::new(),
            due_pubrec: VecDeque::new(),
            due_pubcomp: VecDeque::new(),
            unconfirmed: VecDeque::new(),
            pings: VecDeque::new(),
            begun: BTreeMap::new(),
            keep_alive_ms: None,
            written_at: 0,
            is_silent: false,
            clean: false,
            session_expiry_s: 0,
            will: None,
            kind: None,
            will_refused: false,
            is_proving: false,
            is_retired: false,
        }
    }

    /// When the client next has something to do.
    pub fn next_at(&self, shell: &Shell) -> Millis {
        let mut next = self.act_at;
        let Some(link) = self.link else {
            return next;
        };
        let link = &shell.links[link];
        if let Some(at) = link.down.readable_at() {
            next = next.min(at.max(self.read_at));
        }
        if !self.outbox.is_empty() && link.up.room() > 0 {
            next = 0;
        }
        if let Some((at, _)) = self.answers.front() {
            next = next.min(*at);
        }
        if let Some(at) = self.ping_at() {
            next = next.min(at);
        }
        next
    }

    /// When silence would become dangerous.
    fn ping_at(&self) -> Option<Millis> {
        let keep_alive_ms = self.keep_alive_ms?;
        let may = self.phase == Phase::Up && !self.is_silent;
        may.then(|| self.written_at + keep_alive_ms * 6 / 10)
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The broker broke a promise.
    pub fn step(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        self.flush(scene);
        self.read(scene)?;
        self.answer(scene)?;
        if self.ping_at().is_some_and(|at| at <= scene.now) {
            self.ping(scene)?;
        }
        if self.act_at <= scene.now {
            self.act_at = scene.now + self.pause(scene);
            match self.phase {
                Phase::Down if self.is_retired => {}
                Phase::Down => self.connect(scene)?,
                Phase::Connecting => {}
                Phase::Up if scene.is_calm => self.calm_down(scene)?,
                Phase::Up => self.act(scene)?,
            }
        }
        self.flush(scene);
        Ok(())
    }

    /// How long it rests before it acts again, ms.
    fn pause(&self, scene: &mut Scene<'_>) -> Millis {
        if scene.is_calm {
            return 500;
        }
        scene.chance.between(1, self.persona.habits.pause_ms_max)
    }

    /// In calm times: reconnects, and asks for a sign that everything sent has been read.
    fn calm_down(&mut self, scene: &mut Scene<'_>) -> Result<(), Violation> {
        self.is_silent = false;
        if self.pings.is_empty() && !self.unconfirmed.is_empty() {
            self.ping(scene)?;
        }
        Ok(())
    }

    /// Never connects again.
    pub fn retire(&mut self) {
        self.is_retired = true;
    }

    /// True where nothing of the client is open.
    pub fn is_settled(&self, oracle: &Oracle) -> bool {
        let session = &oracle.sessions[self.index];
        let answered =
            |flight: &crate::oracle::Flight| flight.answered || Some(flight.link) != self.link;
        self.phase == Phase::Up
            && self.exchanges.is_empty()
            && self.answers.is_empty()
            && self.outbox.is_empty()
            && self.pings.is_empty()
            && self.unconfirmed.is_empty()
            && self.buffer.is_empty()
            && !self.is_proving
            && session.flights.values().all(answered)
    }

    /// What is open, in words.
    pub fn describe(&self) -> String {
        format!(
            "client {} is {:?}, has open {:?}, owes {} answers, {} bytes, {} pings, {} QoS 0",
            self.index,
            self.phase,
            self.exchanges,
            self.answers.len(),
            self.outbox.len(),
            self.pings.len(),
            self.unconfirmed.len()
        )
    }

    /// The protocol version it speaks.
    fn version(&self) -> Version {
        self.persona.version
    }

    /// Tells its sessions apart where each connection gets another client id.
    fn incarnation(&self) -> usize {
        match self.persona.client_id.is_empty() {
            true => self.link.map_or(0, |link| link + 1),
            false => 0,
        }
    }

    /// True for a version with reason codes.
    fn is_modern(&self) -> bool {
        self.persona.version == Version::V5
    }

    /// Writes one packet.
    fn send(
        &mut self,
        scene: &mut Scene<'_>,
        packet: &Packet<'_>,
        (serial, packet_id): (Option<u64>, Option<u16>),
    ) -> Result<(), Violation> {
        let Some(link) = self.link else {
            return Ok(());
        };
        let before = self.outbox.len();
        encode(self.version(), packet, u32::MAX, &mut self.outbox).map_err(|fault| {
            let words = format!("the codec refuses to write {} bytes", fault.packet_bytes);
            Violation::new(Invariant::Protocol, words)
        })?;
        self.queued += (self.outbox.len() - before) as u64;
        self.written_at = scene.now;
        let goodbye = matches!(packet, Packet::Disconnect(_));
        let mark = Mark {
            end: self.queued,
            serial,
            packet_id,
            goodbye,
        };
        scene.shell.links[link].marks.push_back(mark);
        let index = self.index;
        // In the calm they would be most of the history.
        if !scene.is_calm || !matches!(packet, Packet::Pingreq) {
            scene.history.note(scene.now, || {
                format!("client {index} (link {link}) → {}", tell::packet(packet))
            });
        }
        self.flush(scene);
        Ok(())
    }

    /// Moves what was written onto the network, as far as it goes.
    fn flush(&mut self, scene: &mut Scene<'_>) {
        if let (Some(link), false) = (self.link, self.outbox.is_empty()) {
            let stream = &mut scene.shell.links[link].up;
            let written = stream.write(scene.now, scene.chance, &self.outbox);
            self.outbox.drain(..written);
        }
    }

    /// The next packet id that nothing is open under.
    fn packet_id(&mut self) -> Option<PacketId> {
        for _ in 0..u16::MAX {
            self.next_packet_id = self.next_packet_id.wrapping_add(1);
            if !self.exchanges.contains_key(&self.next_packet_id) {
                if let Some(packet_id) = PacketId::new(self.next_packet_id) {
                    return Some(packet_id);
                }
            }
        }
        None
    }
}
