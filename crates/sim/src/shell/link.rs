//! A link: one connection as the network sees it, and what the shell remembers about it.

use std::collections::{BTreeMap, VecDeque};

use casemate_engine::{ConnectionId, Loss, Millis};

use super::store::Seqs;
use crate::stream::{Stream, Weather};

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A well-behaved client, by index.
    Client(usize),
    /// A hostile one, by index.
    Hostile(usize),
}

/// Where the broker's end of a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Accepted, or on its way between two shards.
    Moving,
    /// At a shard.
    Seated,
    /// The engine is done with it; the last bytes leave until this moment.
    Lingering(Millis),
    /// Closed, and the engine was told.
    Gone,
}

/// Something that the client wrote, known by where it ends in the stream.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    /// Offset behind the last byte.
    pub end: u64,
    /// The message that a PUBLISH carries.
    pub serial: Option<u64>,
    /// The exchange that it begins.
    pub packet_id: Option<u16>,
    /// It is a DISCONNECT.
    pub goodbye: bool,
}

/// Bytes left the engine up to `end` when `persisted` was durable.
#[derive(Clone, Copy, Debug)]
pub struct Departure {
    /// Offset behind the last byte.
    pub end: u64,
    /// When.
    pub at: Millis,
    /// What was durable in each shard.
    pub persisted: Seqs,
}

/// One connection.
#[derive(Debug)]
pub struct Link {
    /// Whose.
    pub owner: Owner,
    /// Client to broker.
    pub up: Stream,
    /// Broker to client.
    pub down: Stream,
    /// What the client wrote and the engine has not been handed yet.
    pub marks: VecDeque<Mark>,
    /// What each shard had asked to persist when the engine got the packet of an exchange.
    pub stamps: BTreeMap<u16, Seqs>,
    /// How the bytes to the client left.
    pub departures: VecDeque<Departure>,
    /// Where the bytes to the client ended after each turn that made some, and when that was.
    pub formed: VecDeque<(u64, Millis)>,
    /// Messages handed over since the oracle last looked, likewise.
    pub handed: Vec<(u64, Seqs)>,
    /// The broker's end.
    pub side: Side,
    /// Shard and id, while seated.
    pub shard: usize,
    /// See `shard`.
    pub id: ConnectionId,
    /// The engine asked not to read it.
    pub paused: bool,
    /// The user name of CONNECT.
    pub username: String,
    /// The step of the open question to the gate.
    pub question: Option<u32>,
    /// The last bytes of a connection that the engine closed.
    pub rest: Vec<u8>,
    /// The client's end is closed or cut.
    pub client_gone: bool,
    /// Cut rather than closed.
    pub was_cut: bool,
    /// When the transport came up.
    pub opened_at: Millis,
    /// When the engine last got bytes.
    pub heard_at: Millis,
    /// When a whole packet of a well-behaved client was last handed over.
    pub packet_at: Millis,
    /// When the engine last asked to stop or go on reading.
    pub paused_at: Millis,
    /// When bytes last left to the client.
    pub written_at: Millis,
    /// The same, as it was when the shard said that it ends this connection.
    pub stalled_at: Millis,
    /// When the engine gave the connection up, or was told that it is gone.
    pub over_at: Option<Millis>,
    /// The process that served it, counted from 0.
    pub process: u32,
    /// It ended because the process died.
    pub died: bool,
    /// The batch of its shard that says that it is over.
    pub end_seq: u64,
    /// A crash may have hidden that it is over: then its end counts from this start at the latest.
    pub over_by: Option<Millis>,
    /// The engine has had the client's DISCONNECT: surely, or perhaps (it was paused).
    pub goodbye_handed: Option<bool>,
    /// Why the engine says that it ended.
    pub loss: Option<Loss>,
    /// When the engine said that the client is connected.
    pub connected_at: Option<Millis>,
    /// Keep alive in force, s; 0 is none.
    pub keep_alive_s: Option<u16>,
    /// The shortest that the server may count with, s.
    pub keep_alive_least_s: u16,
    /// When the proof of the client ends.
    pub proven_until: Option<Millis>,
}

impl Link {
    /// A link that a client has just asked for.
    pub fn new(owner: Owner, weather: Weather, now: Millis, shard: usize) -> Link {
        Link {
            owner,
            up: Stream::new(weather),
            down: Stream::new(weather),
            marks: VecDeque::new(),
            stamps: BTreeMap::new(),
            departures: VecDeque::new(),
            formed: VecDeque::new(),
            handed: Vec::new(),
            side: Side::Moving,
            shard,
            id: ConnectionId {
                slot: 0,
                generation: 0,
            },
            paused: false,
            username: String::new(),
            question: None,
            rest: Vec::new(),
            client_gone: false,
            was_cut: false,
            opened_at: now,
            heard_at: now,
            packet_at: now,
            paused_at: now,
            written_at: now,
            stalled_at: now,
            over_at: None,
            process: 0,
            died: false,
            end_seq: 0,
            over_by: None,
            goodbye_handed: None,
            loss: None,
            connected_at: None,
            keep_alive_s: None,
            keep_alive_least_s: 0,
            proven_until: None,
        }
    }

    /// Notes which of the client's packets the engine now has, `issued` being the newest `seq` of
    /// each shard before it got them.
    pub fn hand(&mut self, now: Millis, issued: Seqs) {
        while let Some(mark) = self.marks.front().copied() {
            if mark.end > self.up.read {
                break;
            }
            self.marks.pop_front();
            self.packet_at = now;
            if let Some(serial) = mark.serial {
                self.handed.push((serial, issued));
            }
            if let Some(packet_id) = mark.packet_id {
                self.stamps.insert(packet_id, issued);
            }
            if mark.goodbye {
                self.goodbye_handed = Some(true);
            }
        }
    }

    /// The engine has given it up, or was told that it is gone; `end_seq` is the batch that will
    /// say so.
    pub fn end(&mut self, now: Millis, end_seq: u64) {
        if self.over_at.is_none() {
            self.over_at = Some(now);
            self.end_seq = end_seq;
        }
    }

    /// From when its end counts at the earliest, and at the latest.
    pub fn over(&self) -> Option<(Millis, Millis)> {
        let at = self.over_at?;
        Some((at, self.over_by.unwrap_or(at)))
    }

    /// The DISCONNECT of its client surely counts.
    pub fn surely_said_goodbye(&self) -> bool {
        self.loss == Some(Loss::Goodbye) && self.over_by.is_none()
    }

    /// Notes that the bytes to the client now reach to offset `end`.
    pub fn form(&mut self, now: Millis, end: u64) {
        if self.formed.back().is_none_or(|(last, _)| *last < end) {
            self.formed.push_back((end, now));
        }
    }

    /// When the engine wrote the byte before offset `end` into its window, however long the byte
    /// waited there.
    pub fn formed_at(&mut self, end: u64) -> Option<Millis> {
        while self.formed.front().is_some_and(|(last, _)| *last < end) {
            self.formed.pop_front();
        }
        self.formed.front().map(|(_, at)| *at)
    }

    /// What was durable when the byte before offset `end` left, and in which shard.
    pub fn departure(&mut self, end: u64) -> Option<Departure> {
        while let Some(departure) = self.departures.front().copied() {
            if departure.end >= end {
                return Some(departure);
            }
            self.departures.pop_front();
        }
        None
    }
}
