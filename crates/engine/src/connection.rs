//! One connection: its phase, its undecoded tail, its window, and the loop that cuts packets.

use std::rc::Rc;
use std::sync::Arc;

use casemate_codec::{decode, frame, Frame, Malformed, Packet, Reason, Sender, Version};

use crate::accept::Pending;
use crate::acknowledge::Gated;
use crate::address::PeerAddress;
use crate::alias::{AliasesIn, AliasesOut};
use crate::door::{ConnectionId, Effect, ListenerId, Millis, Origin};
use crate::event::{EventKind, Loss};
use crate::hello::Hello;
use crate::policy::PublishRights;
use crate::principal::PeerCertificate;
use crate::proof::Proving;
use crate::queue::Queue;
use crate::route::Route;
use crate::settings::Settings;
use crate::shard::Shard;
use crate::timers::Timer;
use crate::window::Window;
use crate::wording::Goodbye;

/// Acknowledgements of one connection that wait for durability or receipts.
const GATES_MAX: usize = 4_096;

/// What may be buffered of a client whose proof is being judged, bytes.
const UNJUDGED_BYTES_MAX: usize = 64 * 1024;

/// How far a window may grow by acknowledgements alone before its connection is not read, bytes.
const WINDOW_SLACK_BYTES: usize = 64 * 1024;

/// How far a connection has come.
pub(crate) enum Phase {
    /// CONNECT is due.
    Silent,
    /// Somebody judges the proof, or the client owes an AUTH.
    Judged(Box<Pending>),
    /// It serves a session; CONNACK may still wait for durability.
    Serving { session: u32 },
    /// Our last bytes are on their way; nothing more is read.
    Closing,
}

/// Where the last topic of a publisher went, and what it may do there.
pub(crate) struct Memo {
    pub route: Rc<Route>,
    pub rights: PublishRights,
    pub epoch: u64,
}

/// State of one transport.
pub(crate) struct Connection {
    pub generation: u32,
    pub version: Version,
    /// In the shard's list of connections with something to write.
    pub dirty: bool,
    pub flush_asked: bool,
    /// In the list of those with gated acknowledgements.
    pub is_gated: bool,
    /// In the list of those to pump.
    pub pump_due: bool,
    /// Undecoded bytes wait for room somewhere, not for more bytes.
    pub blocked: bool,
    /// In the list of those that wait for room.
    pub is_listed: bool,
    /// The shell was told not to read.
    pub paused: bool,
    pub greeted: bool,
    /// Reason strings and user properties are welcome (Request Problem Information).
    pub wants_reasons: bool,
    pub phase: Phase,
    /// The listener that accepted it.
    pub listener: ListenerId,
    pub address: PeerAddress,
    /// The client certificate that TLS verified.
    pub certificate: Option<Arc<PeerCertificate>>,
    pub tail: Vec<u8>,
    pub window: Window,
    pub gates: Queue<Gated>,
    pub memo: Option<Memo>,
    pub aliases_in: AliasesIn,
    pub aliases_out: Option<Box<AliasesOut>>,
    /// The client's Maximum Packet Size.
    pub packet_bytes_max: u32,
    /// The client's Receive Maximum, lowered to our own bound.
    pub quota: u32,
    /// QoS 1 and 2 messages from the client without their last acknowledgement.
    pub receiving: u32,
    /// 0 for none.
    pub keep_alive_ms: u32,
    pub heard_at: Millis,
    /// When the window last shrank, or began to fill; `MAX` while it is empty.
    pub moved_at: Millis,
    pub opened_at: Millis,
    /// When the proof ends; `MAX` where it does not.
    pub until: Millis,
    /// The earliest timer that is armed.
    pub armed_at: Millis,
    /// Publishes denied, for rare events instead of one for each.
    pub denied: u64,
    /// How far enhanced authentication has come, when the client uses it.
    pub proving: Option<Box<Proving>>,
}

/// What the packet loop does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// On with the next packet.
    Continue,
    /// This packet waits for room; nothing of it has happened.
    Blocked,
    /// What follows waits (for a verdict) or is not read any more.
    Stop,
}

impl Connection {
    pub fn new(id: ConnectionId, origin: Origin, now: Millis) -> Connection {
        Connection {
            generation: id.generation,
            version: Version::V5,
            dirty: false,
            flush_asked: false,
            is_gated: false,
            pump_due: false,
            blocked: false,
            is_listed: false,
            paused: false,
            greeted: false,
            wants_reasons: true,
            phase: Phase::Silent,
            listener: origin.listener,
            address: origin.address.into(),
            certificate: origin.certificate,
            tail: Vec::new(),
            window: Window::default(),
            gates: Queue::default(),
            memo: None,
            aliases_in: AliasesIn::default(),
            aliases_out: None,
            packet_bytes_max: u32::MAX,
            quota: 0,
            receiving: 0,
            keep_alive_ms: 0,
            heard_at: now,
            moved_at: Millis::MAX,
            opened_at: now,
            until: Millis::MAX,
            armed_at: Millis::MAX,
            denied: 0,
            proving: None,
        }
    }

    /// Where it came from.
    pub fn origin(&self) -> Origin {
        Origin {
            listener: self.listener,
            address: self.address.get(),
            certificate: self.certificate.clone(),
        }
    }

    /// What a CONNECT says about its connection.
    pub fn greet(&mut self, hello: &Hello) {
        self.version = hello.version;
        self.packet_bytes_max = hello.packet_bytes_max;
        self.wants_reasons = hello.wants_reasons;
        self.proving = hello.method.as_ref().map(Proving::begin);
    }

    /// The session it serves.
    pub fn session(&self) -> Option<u32> {
        match self.phase {
            Phase::Serving { session } => Some(session),
            _ => None,
        }
    }

    /// True where [`Shard::mark_dirty`] has something to do after more was written.
    #[inline]
    pub fn is_news(&self, settings: &Settings) -> bool {
        !self.dirty
            || self.moved_at == Millis::MAX
            || !self.flush_asked && self.window.bytes() >= settings.window_bytes / 2
    }

    /// True where nothing more is taken from the client before what waits for it has left.
    #[inline]
    pub fn is_full(&self, settings: &Settings) -> bool {
        self.gates.len() >= GATES_MAX
            || self.window.bytes() >= settings.window_bytes + WINDOW_SLACK_BYTES
    }
}

impl Shard {
    /// The id of the connection in a slot.
    pub(crate) fn id_of(&self, slot: u32) -> ConnectionId {
        let generation = self
            .connection(slot)
            .map_or(0, |connection| connection.generation);
        ConnectionId { slot, generation }
    }

    #[inline]
    pub(crate) fn connection(&self, slot: u32) -> Option<&Connection> {
        self.connections.get(slot as usize)?.as_deref()
    }

    #[inline]
    pub(crate) fn connection_mut(&mut self, slot: u32) -> Option<&mut Connection> {
        self.connections.get_mut(slot as usize)?.as_deref_mut()
    }

    /// The slot of an id that is still alive.
    pub(crate) fn slot_of(&self, id: ConnectionId) -> Option<u32> {
        let connection = self.connection(id.slot)?;
        (connection.generation == id.generation).then_some(id.slot)
    }

    /// Takes a new transport in.
    pub(crate) fn opened(&mut self, id: ConnectionId, connection: Connection) {
        let index = id.slot as usize;
        if self.connections.len() <= index {
            self.connections.resize_with(index + 1, || None);
        }
        assert!(
            self.connections[index].is_none(),
            "the shell reused a slot that is still open"
        );
        self.counters.connections_total += 1;
        self.counters.connections_now += 1;
        let full = self.counters.connections_now > self.settings.connections_max as u64;
        self.connections[index] = Some(Box::new(connection));
        if !self.is_staying() {
            self.say_goodbye(id.slot);
            return;
        }
        if full {
            self.limit_reached(id.slot, "connections_max");
            self.close(
                id.slot,
                Reason::ServerBusy,
                Loss::Refused(Reason::ServerBusy),
            );
            return;
        }
        self.arm(id.slot);
    }

    /// Runs new bytes of a connection.
    pub(crate) fn received(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(slot) = self.slot_of(id) else { return };
        self.counters.bytes_received += bytes.len() as u64;
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        match connection.phase {
            Phase::Closing => return,
            Phase::Judged(ref pending) if !pending.challenged => {
                connection.tail.extend_from_slice(bytes);
                if connection.tail.len() > UNJUDGED_BYTES_MAX {
                    self.pause(slot);
                }
                return;
            }
            Phase::Silent | Phase::Judged(_) | Phase::Serving { .. } => {}
        }
        if connection.blocked {
            // The shell had more in hand when it was told to pause.
            connection.tail.extend_from_slice(bytes);
            return;
        }
        let mut bytes = bytes;
        if !connection.tail.is_empty() {
            bytes = match self.complete_tail(slot, bytes) {
                Some(rest) => rest,
                None => return,
            };
        }
        let (used, flow) = self.run(slot, bytes);
        self.keep_tail(slot, &bytes[used..], flow);
    }

    /// Completes the packet that began in an earlier piece and runs it; returns what follows it,
    /// or nothing where everything is consumed or must wait.
    fn complete_tail<'a>(&mut self, slot: u32, mut bytes: &'a [u8]) -> Option<&'a [u8]> {
        let limit = self.bytes_max(slot);
        loop {
            let connection = self.connection_mut(slot)?;
            let missing = match frame(&connection.tail, limit) {
                Ok(Some(frame)) => frame.packet_bytes() - connection.tail.len(),
                Ok(None) => 1,
                Err(fault) => {
                    self.malformed(slot, fault);
                    return None;
                }
            };
            let take = missing.min(bytes.len());
            connection.tail.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
            let known = matches!(frame(&connection.tail, limit), Ok(Some(frame))
                if frame.packet_bytes() == connection.tail.len());
            if known {
                break;
            }
            if bytes.is_empty() {
                return None;
            }
        }
        let tail = std::mem::take(&mut self.connection_mut(slot)?.tail);
        let (used, flow) = self.run(slot, &tail);
        if flow == Flow::Continue {
            debug_assert_eq!(used, tail.len());
            return Some(bytes);
        }
        self.keep_tail(slot, &tail[used..], flow);
        if let Some(connection) = self.connection_mut(slot) {
            if !matches!(connection.phase, Phase::Closing) {
                connection.tail.extend_from_slice(bytes);
            }
        }
        None
    }

    /// Keeps what was not used, and stops reading where it waits for room.
    fn keep_tail(&mut self, slot: u32, rest: &[u8], flow: Flow) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        connection.tail.extend_from_slice(rest);
        if flow == Flow::Blocked {
            self.block(slot);
        }
    }

    /// Runs the tail of a connection again after what it waited for has come.
    pub(crate) fn rerun(&mut self, slot: u32) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        connection.blocked = false;
        let tail = std::mem::take(&mut connection.tail);
        let (used, flow) = self.run(slot, &tail);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        if used < tail.len() {
            connection.tail = tail;
            connection.tail.drain(..used);
        }
        match flow {
            Flow::Blocked => self.block(slot),
            Flow::Continue => self.resume(slot),
            Flow::Stop => {}
        }
    }

    /// Stops reading a connection until there is room for its next packet.
    fn block(&mut self, slot: u32) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        connection.blocked = true;
        if !std::mem::replace(&mut connection.is_listed, true) {
            self.blocked.push(slot);
        }
        self.pause(slot);
    }

    /// Gives every waiting connection another try.
    pub(crate) fn retry_blocked(&mut self) {
        for slot in std::mem::take(&mut self.blocked) {
            let Some(connection) = self.connection_mut(slot) else {
                continue;
            };
            connection.is_listed = false;
            if connection.blocked {
                self.rerun(slot);
            }
        }
    }

    /// Cuts and handles whole packets; says how many bytes it used.
    fn run(&mut self, slot: u32, bytes: &[u8]) -> (usize, Flow) {
        let mut used = 0;
        let mut limit = self.bytes_max(slot);
        while used < bytes.len() {
            let frame = match frame(&bytes[used..], limit) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(fault) => {
                    self.malformed(slot, fault);
                    return (used, Flow::Stop);
                }
            };
            let end = used + frame.packet_bytes();
            if end > bytes.len() {
                break;
            }
            let plain = self.plain_packet(slot, frame, &bytes[used..]);
            let (taken, flow) = match plain {
                Some(plain) => plain,
                None => {
                    let body = &bytes[used + frame.header_bytes..end];
                    match self.packet(slot, frame, body) {
                        Flow::Blocked => (0, Flow::Blocked),
                        flow => (frame.packet_bytes(), flow),
                    }
                }
            };
            used += taken;
            if flow != Flow::Continue {
                return (used, flow);
            }
            if frame.first >> 4 == 1 {
                limit = self.bytes_max(slot);
            }
        }
        (used, Flow::Continue)
    }

    /// The largest packet that a connection may send now, bytes.
    fn bytes_max(&self, slot: u32) -> u32 {
        match self.connection(slot).map(|connection| &connection.phase) {
            // [MQTT-3.2.2-15] What CONNACK has announced.
            Some(Phase::Serving { .. }) => self.settings.packet_bytes_max,
            _ => self
                .settings
                .connect_bytes_max
                .min(self.settings.packet_bytes_max),
        }
    }

    /// Handles one packet.
    #[inline]
    fn packet(&mut self, slot: u32, frame: Frame, body: &[u8]) -> Flow {
        let Some(connection) = self.connection(slot) else {
            return Flow::Stop;
        };
        let version = connection.version;
        let silent = matches!(connection.phase, Phase::Silent);
        if silent && frame.first >> 4 != 1 {
            // [MQTT-3.1.0-1] [MQTT-3.1.1 3.1.0-1] Nothing is answered: it may not be MQTT at all.
            self.malformed_quietly(slot);
            return Flow::Stop;
        }
        if matches!(connection.phase, Phase::Judged(_)) && frame.first >> 4 != 15 {
            // [MQTT-3.1.2-30] [MQTT-3.1.4-6] Before CONNACK only AUTH may follow; DISCONNECT ends
            // it as well.
            self.refuse(slot, Reason::ProtocolError);
            return Flow::Stop;
        }
        if connection.session().is_some() && !connection.greeted {
            // [MQTT-3.2.0-1] [MQTT-3.1.4-6] [MQTT-3.1.1 3.2.0-1] [MQTT-3.1.1 3.1.4-5] CONNACK waits
            // for the store: nothing is answered before it, and if it turns into a refusal,
            // nothing behind CONNECT has happened.
            return Flow::Blocked;
        }
        if connection.is_full(&self.settings) {
            return Flow::Blocked;
        }
        let packet = match decode(version, Sender::Client, frame, body) {
            Ok(packet) => packet,
            Err(fault) if silent => {
                self.connect_malformed(slot, fault, body);
                return Flow::Stop;
            }
            Err(fault) => {
                self.malformed(slot, fault);
                return Flow::Stop;
            }
        };
        self.counters.packets_received += 1;
        let now = self.now;
        if let Some(connection) = self.connection_mut(slot) {
            // A whole packet: one that trickles in for ever keeps nobody alive.
            connection.heard_at = now;
        }
        match packet {
            Packet::Publish(publish) => self.publish_received(slot, &publish),
            Packet::Puback(ack) => self.puback_received(slot, &ack),
            Packet::Pubrec(ack) => self.pubrec_received(slot, &ack),
            Packet::Pubrel(ack) => self.pubrel_received(slot, &ack),
            Packet::Pubcomp(ack) => self.pubcomp_received(slot, &ack),
            Packet::Pingreq => self.ping_received(slot),
            Packet::Subscribe(subscribe) => self.subscribe_received(slot, &subscribe),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe_received(slot, &unsubscribe),
            Packet::Connect(connect) if silent => self.connect_received(slot, Hello::of(&connect)),
            Packet::Disconnect(disconnect) => self.disconnect_received(slot, &disconnect),
            Packet::Auth(auth) => self.auth_received(slot, &auth),
            // [MQTT-3.1.0-2] [MQTT-3.1.1 3.1.0-2] A second CONNECT; the rest cannot come from a
            // client, which decode has refused already.
            _ => {
                self.refuse(slot, Reason::ProtocolError);
                Flow::Stop
            }
        }
    }

    /// [MQTT-3.12.4-1] [MQTT-3.1.1 3.12.4-1]
    fn ping_received(&mut self, slot: u32) -> Flow {
        let Shard {
            connections, pool, ..
        } = self;
        if let Some(connection) = connections[slot as usize].as_deref_mut() {
            connection.window.buffer(pool).extend_from_slice(&[0xD0, 0]);
        }
        self.mark_dirty(slot);
        Flow::Continue
    }

    /// Puts a connection into the list of those to write.
    #[inline]
    pub(crate) fn mark_dirty(&mut self, slot: u32) {
        let (flush_bytes, now) = (self.settings.window_bytes / 2, self.now);
        let slow_at = now.saturating_add(self.settings.slow_reader_ms);
        let Some(connection) = self
            .connections
            .get_mut(slot as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let id = ConnectionId {
            slot,
            generation: connection.generation,
        };
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(id);
        }
        if connection.moved_at == Millis::MAX && !connection.window.is_empty() {
            connection.moved_at = now;
            if slow_at < connection.armed_at {
                connection.armed_at = slow_at;
                self.timers.arm(slow_at, Timer::Connection(id));
            }
        }
        if !connection.flush_asked && connection.window.bytes() >= flush_bytes {
            connection.flush_asked = true;
            self.effects.push(Effect::Flush { id });
        }
    }

    pub(crate) fn pause(&mut self, slot: u32) {
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if !std::mem::replace(&mut connection.paused, true) {
            self.counters.paused += 1;
            self.effects.push(Effect::Pause { id });
        }
    }

    pub(crate) fn resume(&mut self, slot: u32) {
        let (id, now) = (self.id_of(slot), self.now);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if std::mem::replace(&mut connection.paused, false) {
            // Keep alive stands still while we do not read.
            connection.heard_at = now;
            self.effects.push(Effect::Resume { id });
            self.arm(slot);
        }
    }

    /// Answers a fault of the bytes and closes ([MQTT-4.13.1-1], [MQTT-3.1.1 4.8.0-1]).
    pub(crate) fn malformed(&mut self, slot: u32, fault: Malformed) {
        self.counters.malformed += 1;
        self.tell(slot, EventKind::Malformed { fault });
        let words = fault.to_string();
        let why = Goodbye::saying(fault.reason(), &words);
        self.close(slot, why, Loss::Refused(fault.reason()));
    }

    fn malformed_quietly(&mut self, slot: u32) {
        self.counters.malformed += 1;
        self.close_silently(slot, Loss::Refused(Reason::ProtocolError));
    }

    /// Ends a connection that broke a rule of the protocol or a limit.
    pub(crate) fn refuse(&mut self, slot: u32, reason: Reason) {
        self.close(slot, reason, Loss::Refused(reason));
    }
}
