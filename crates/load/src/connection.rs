//! One client: from CONNECT to DISCONNECT, and every packet between.

use std::num::NonZeroU16;

use casemate_codec::{
    decode, encode, frame, Ack, Connack, Connect, ConnectProperties, Disconnect, Filters, Frame,
    Packet, PacketId, Publish, QoS, Reason, RetainHandling, Sender, Suback, Subscribe,
    SubscribeFilter, UserProperties, Version,
};

use crate::error::Fault;
use crate::layout::Listening;
use crate::ledger::Ledger;
use crate::publisher::{Acknowledgement, Answer};
use crate::transport::{Queue, Scratch, Transport};
use crate::{LoadError, Plan, Secret};

/// What a broker may send beside the payload: topic, properties, reason strings.
const OVERHEAD_BYTES_MAX: usize = 64 * 1024;

/// Filters of one SUBSCRIBE; two million of them have packet ids enough.
const FILTERS_AT_ONCE: usize = 100;

/// What a client is there for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Role {
    /// The publisher with this number.
    Publish(u32),
    /// A subscriber.
    Listen(Listening),
    /// To connect, which discards the session of that name, and leave.
    Storm,
}

/// How far a client has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// CONNECT is on its way.
    Greeting,
    /// SUBSCRIBE is on its way.
    Subscribing,
    /// It does what it is there for.
    Ready,
    /// DISCONNECT is on its way.
    Leaving,
}

/// A client and its socket.
pub(crate) struct Connection {
    pub transport: Transport,
    pub client: Client,
    /// The socket takes no more for now.
    blocked: bool,
}

/// A client as MQTT sees it.
pub(crate) struct Client {
    version: Version,
    number: u64,
    role: Role,
    phase: Phase,
    subscribe_qos: QoS,
    publish_qos: QoS,
    needs_alias: bool,
    retains: bool,
    /// Its session outlives the connection.
    lasts: bool,
    packet_bytes_max: u32,
    queue: Queue,
    /// The beginning of a packet.
    partial: Vec<u8>,
    /// Each SUBSCRIBE, until CONNACK lets them go.
    subscribe: Vec<u8>,
    /// How many were not answered yet.
    unanswered: usize,
    keep_alive_s: u16,
    begun_ns: u64,
    sent_ns: u64,
}

impl Connection {
    /// Puts CONNECT on its way; `begun_ns` is when it should have begun.
    ///
    /// # Errors
    /// Where there is no such packet.
    pub fn new(
        plan: &Plan,
        transport: Transport,
        number: u64,
        role: Role,
        filters: &[String],
        begun_ns: u64,
    ) -> Result<Connection, LoadError> {
        let target = &plan.target;
        let mut queue = Queue::default();
        let id = format!("{}{number}", target.client_id);
        let lasting = plan.lasting.filter(|_| matches!(role, Role::Listen(_)));
        let is_modern = target.version == Version::V5;
        let connect = Packet::Connect(Connect {
            version: target.version,
            // Before 5.0 one flag says both that a session begins anew and that it ends.
            clean_start: lasting.is_none() || is_modern,
            keep_alive_s: target.keep_alive_s,
            properties: ConnectProperties {
                session_expiry_s: lasting.filter(|_| is_modern).map(|one| one.expiry_s),
                ..ConnectProperties::default()
            },
            client_id: &id,
            will: None,
            username: target.username.as_deref(),
            password: target.password.as_ref().map(|Secret(bytes)| &bytes[..]),
        });
        let unsayable = |error| LoadError::Client {
            client: number as usize,
            fault: Fault::Unsayable(error),
        };
        encode(target.version, &connect, u32::MAX, queue.bytes()).map_err(unsayable)?;
        let mut subscribe = Vec::new();
        for (index, chunk) in filters.chunks(FILTERS_AT_ONCE).enumerate() {
            let lines: Vec<_> = chunk.iter().map(|filter| line(plan, filter)).collect();
            let packet = Packet::Subscribe(Subscribe {
                // Each again after 65,535 others, which are answered by then.
                packet_id: NonZeroU16::MIN.saturating_add((index % 65_535) as u16),
                subscription_id: None,
                user: UserProperties::List(&[]),
                filters: Filters::List(&lines),
            });
            encode(target.version, &packet, u32::MAX, &mut subscribe).map_err(unsayable)?;
        }
        Ok(Connection {
            transport,
            client: Client {
                version: target.version,
                number,
                role,
                phase: Phase::Greeting,
                subscribe_qos: plan.subscribe_qos,
                publish_qos: plan.publish_qos,
                needs_alias: plan.topic_alias,
                retains: plan.retain,
                lasts: lasting.is_some(),
                // A payload is far below 2^32.
                packet_bytes_max: (plan.payload_bytes + OVERHEAD_BYTES_MAX) as u32,
                queue,
                partial: Vec::new(),
                subscribe,
                unanswered: filters.len().div_ceil(FILTERS_AT_ONCE),
                keep_alive_s: target.keep_alive_s,
                begun_ns,
                sent_ns: begun_ns,
            },
            blocked: false,
        })
    }

    /// Reads what is there; true where the broker has ended the connection.
    ///
    /// # Errors
    /// What ends it otherwise.
    pub fn read(&mut self, scratch: &mut Scratch, books: &mut Ledger) -> Result<bool, Fault> {
        let now_ns = books.now_ns();
        let client = &mut self.client;
        self.transport
            .receive(scratch, &mut |bytes| client.receive(bytes, books, now_ns))
    }

    /// The socket may take more now.
    pub fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Everything was taken, so that the next message goes out at once.
    pub fn is_clear(&self) -> bool {
        !self.blocked && self.client.queue.is_empty()
    }

    /// Writes what waits, unless the socket has said that it must wait.
    ///
    /// # Errors
    /// What the transport says.
    pub fn flush(&mut self, scratch: &mut Scratch, now_ns: u64) -> Result<(), Fault> {
        let waits = !self.client.queue.is_empty() || self.transport.wants_writing();
        if self.blocked || !waits {
            return Ok(());
        }
        self.client.sent_ns = now_ns;
        self.blocked = !self.transport.send(&mut self.client.queue, scratch)?
            // Before a WebSocket is open its packets wait for an answer, not for the socket.
            && self.client.phase != Phase::Greeting;
        Ok(())
    }
}

impl Client {
    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The number of its publisher, if it is one.
    pub fn publisher(&self) -> Option<u32> {
        match self.role {
            Role::Publish(number) => Some(number),
            _ => None,
        }
    }

    /// When it began to connect.
    pub fn begun_ns(&self) -> u64 {
        self.begun_ns
    }

    /// Bytes that wait for the transport; to append packets to.
    pub fn outgoing(&mut self) -> &mut Vec<u8> {
        self.queue.bytes()
    }

    /// Appends a PINGREQ where the broker would otherwise soon take the client for dead.
    pub fn keep_alive(&mut self, now_ns: u64) {
        let half_ns = u64::from(self.keep_alive_s) * 500_000_000;
        if half_ns > 0
            && self.phase == Phase::Ready
            && now_ns.saturating_sub(self.sent_ns) > half_ns
        {
            // Cannot fail: a PINGREQ is two bytes.
            let _ = encode(self.version, &Packet::Pingreq, u32::MAX, self.queue.bytes());
        }
    }

    /// Appends DISCONNECT.
    pub fn leave(&mut self) {
        let goodbye = Packet::Disconnect(Disconnect {
            reason: Reason::Success,
            session_expiry_s: None,
            reason_string: None,
            user: UserProperties::List(&[]),
            server_reference: None,
        });
        // Cannot fail: it is four bytes at most.
        let _ = encode(self.version, &goodbye, u32::MAX, self.queue.bytes());
        self.phase = Phase::Leaving;
    }

    /// Cuts packets out of the bytes and serves them; what is cut short is kept.
    fn receive(&mut self, mut fresh: &[u8], books: &mut Ledger, now_ns: u64) -> Result<(), Fault> {
        while !self.partial.is_empty() && !fresh.is_empty() {
            fresh = self.complete(fresh, books, now_ns)?;
        }
        while let Some(frame) = frame(fresh, self.packet_bytes_max)? {
            let Some((packet, rest)) = fresh.split_at_checked(frame.packet_bytes()) else {
                break;
            };
            let body = packet.get(frame.header_bytes..).unwrap_or_default();
            self.serve(frame, body, books, now_ns)?;
            fresh = rest;
        }
        self.partial.extend_from_slice(fresh);
        Ok(())
    }

    /// Moves bytes to the packet that was cut short, and serves it once it is whole. Only that one
    /// packet is ever copied.
    fn complete<'a>(
        &mut self,
        fresh: &'a [u8],
        books: &mut Ledger,
        now_ns: u64,
    ) -> Result<&'a [u8], Fault> {
        let missing = match frame(&self.partial, self.packet_bytes_max)? {
            Some(frame) => frame.packet_bytes() - self.partial.len(),
            None => 1,
        };
        let (taken, rest) = fresh.split_at(missing.min(fresh.len()));
        self.partial.extend_from_slice(taken);
        let Some(frame) = frame(&self.partial, self.packet_bytes_max)? else {
            return Ok(rest);
        };
        if self.partial.len() == frame.packet_bytes() {
            let mut packet = std::mem::take(&mut self.partial);
            let body = packet.get(frame.header_bytes..).unwrap_or_default();
            self.serve(frame, body, books, now_ns)?;
            packet.clear();
            self.partial = packet;
        }
        Ok(rest)
    }

    /// Serves one packet.
    fn serve(
        &mut self,
        frame: Frame,
        body: &[u8],
        books: &mut Ledger,
        now_ns: u64,
    ) -> Result<(), Fault> {
        match decode(self.version, Sender::Server, frame, body)? {
            Packet::Publish(publish) => self.publish(&publish, books, now_ns),
            Packet::Puback(ack) => self.acknowledged(&ack, Acknowledgement::Puback, books),
            Packet::Pubrec(ack) => self.acknowledged(&ack, Acknowledgement::Pubrec, books),
            Packet::Pubcomp(ack) => self.acknowledged(&ack, Acknowledgement::Pubcomp, books),
            Packet::Pubrel(ack) => {
                self.answer(ack.packet_id, Packet::Pubcomp);
                Ok(())
            }
            Packet::Connack(connack) => self.connected(&connack, books, now_ns),
            Packet::Suback(suback) => self.subscribed(&suback, books),
            Packet::Pingresp => Ok(()),
            Packet::Disconnect(ended) => Err(Fault::Disconnected(ended.reason)),
            Packet::Auth(_) => Err(Fault::Unexpected("AUTH, which nobody asked for")),
            _ => Err(Fault::Unexpected("a packet that has no place here")),
        }
    }

    fn publish(
        &mut self,
        publish: &Publish<'_>,
        books: &mut Ledger,
        now_ns: u64,
    ) -> Result<(), Fault> {
        let Role::Listen(heard) = &self.role else {
            return Err(Fault::Unexpected(
                "a message to a client that has no subscription",
            ));
        };
        books.arrive(heard, publish, now_ns);
        if let Some(packet_id) = publish.packet_id {
            match publish.qos {
                QoS::ExactlyOnce => self.answer(packet_id, Packet::Pubrec),
                _ => self.answer(packet_id, Packet::Puback),
            }
        }
        Ok(())
    }

    /// Appends an acknowledgement.
    fn answer(&mut self, packet_id: PacketId, packet: fn(Ack<'static>) -> Packet<'static>) {
        let ack = packet(Ack {
            packet_id,
            reason: Reason::Success,
            reason_string: None,
            user: UserProperties::List(&[]),
        });
        // Cannot fail: it is four bytes.
        let _ = encode(self.version, &ack, u32::MAX, self.queue.bytes());
    }

    fn acknowledged(
        &mut self,
        ack: &Ack<'_>,
        what: Acknowledgement,
        books: &mut Ledger,
    ) -> Result<(), Fault> {
        let unknown = Fault::Unexpected("an acknowledgement of what was not sent");
        let Role::Publish(number) = self.role else {
            return Err(unknown);
        };
        let Some(publisher) = books.publishers.get_mut(number as usize) else {
            return Err(unknown);
        };
        match publisher.acknowledge(ack.packet_id.get(), what, ack.reason.is_refusal()) {
            Answer::Done => books.touch(number),
            Answer::Release => self.answer(ack.packet_id, Packet::Pubrel),
            Answer::Unknown => return Err(unknown),
        }
        Ok(())
    }

    fn connected(
        &mut self,
        connack: &Connack<'_>,
        books: &mut Ledger,
        now_ns: u64,
    ) -> Result<(), Fault> {
        if self.phase != Phase::Greeting {
            return Err(Fault::Unexpected("CONNACK twice"));
        }
        if connack.reason != Reason::Success {
            return Err(Fault::Refused(connack.reason));
        }
        if self.lasts && connack.session_present {
            // What it still owes that session would be taken for harm.
            return Err(Fault::Unable(
                "has kept a session of this client id; take another one for the run",
            ));
        }
        let offered = &connack.properties;
        if self.lasts && offered.session_expiry_s == Some(0) {
            return Err(Fault::Unable("keeps no session beyond its connection"));
        }
        if self.lasts {
            books.sessions.push(self.number);
        }
        if let Some(keep_alive_s) = offered.server_keep_alive_s {
            self.keep_alive_s = keep_alive_s;
        }
        if let Role::Publish(number) = self.role {
            if offered.qos_max.is_some_and(|most| most < self.publish_qos) {
                return Err(Fault::Unable("takes messages of a lower QoS only"));
            }
            if self.retains && offered.retain_available == Some(false) {
                return Err(Fault::Unable("keeps no retained messages"));
            }
            if self.needs_alias && offered.topic_alias_max.unwrap_or(0) == 0 {
                return Err(Fault::Unable("takes no topic alias"));
            }
            if let (Some(most), Some(publisher)) = (
                offered.receive_max,
                books.publishers.get_mut(number as usize),
            ) {
                publisher.limit_inflight(most.get());
            }
        }
        books
            .connecting
            .record(now_ns.saturating_sub(self.begun_ns));
        books.standing.connected += 1;
        if self.subscribe.is_empty() {
            self.phase = Phase::Ready;
            books.standing.ready += 1;
        } else {
            self.queue.bytes().append(&mut self.subscribe);
            self.subscribe = Vec::new();
            self.phase = Phase::Subscribing;
        }
        if matches!(self.role, Role::Storm) {
            self.leave();
        }
        Ok(())
    }

    fn subscribed(&mut self, suback: &Suback<'_>, books: &mut Ledger) -> Result<(), Fault> {
        if self.phase != Phase::Subscribing {
            return Err(Fault::Unexpected("a SUBACK that answers nothing"));
        }
        for code in suback.codes.iter() {
            match QoS::from_bits(code as u8) {
                _ if code.is_refusal() => return Err(Fault::Unsubscribable(code)),
                Some(qos) if qos == self.subscribe_qos => {}
                Some(qos) => return Err(Fault::Granted(qos)),
                None => return Err(Fault::Unexpected("a SUBACK with an unknown code")),
            }
        }
        self.unanswered -= 1;
        if self.unanswered == 0 {
            self.phase = Phase::Ready;
            books.standing.ready += 1;
        }
        Ok(())
    }
}

/// One line of a client's SUBSCRIBE.
fn line<'a>(plan: &Plan, filter: &'a str) -> SubscribeFilter<'a> {
    SubscribeFilter {
        filter,
        qos: plan.subscribe_qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}
