//! A program of this process as a client: nothing between it and a shard but a pair of sockets.
//!
//! It speaks MQTT 5.0 like any other client, so that flow control, limits, policy and the end of a
//! broker need no second way. It proves nothing, as whoever holds the server may do everything: who
//! it is comes with the socket. Messages pass in batches, for callers whose own calls are dear.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read, Write};
use std::num::{NonZeroU16, NonZeroU32};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use casemate_codec::{
    decode, encode, filter_fault, frame, Ack, Connect, ConnectProperties, Filters, Frame,
    Malformed, Packet, PacketId, Publish, QoS, Reason, RetainHandling, Sender, Subscribe,
    SubscribeFilter, UserProperties, Version,
};

use crate::bundle::{Bundle, Draft};

/// Bytes of one read.
const READ_BYTES: usize = 256 * 1024;

/// How long the broker may take to answer what it answers at once.
const ANSWER: Duration = Duration::from_secs(10);

/// Who a program is to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Insider {
    /// What `%u` stands for, and the client id; another link with the same name takes its place.
    pub name: String,
    /// Names of roles of the policy.
    pub roles: Vec<String>,
}

/// Why a link cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The broker has ended the connection, and said why.
    #[error("the broker ended the link: {0}")]
    Ended(Reason),
    /// The connection is gone.
    #[error("the link is gone: {0}")]
    Gone(#[from] io::Error),
    /// The broker gave no answer in time.
    #[error("the broker gave no answer in time")]
    Late,
    /// What the program wants to say has no form, or passes a limit.
    #[error("this cannot be sent: {0}")]
    Unsayable(String),
    /// The broker said what it never says.
    #[error("the broker broke the protocol: {0}")]
    Malformed(#[from] Malformed),
}

/// A program's end of its connection. Every call may block, but for [`Link::add`].
pub struct Link {
    stream: UnixStream,
    /// Bytes read are those from `used` to `filled`.
    inbound: Vec<u8>,
    used: usize,
    filled: usize,
    outbound: Vec<u8>,
    /// Messages of QoS 1 and 2 that the broker takes without having acknowledged them.
    receive_max: usize,
    packet_bytes_max: u32,
    /// How long the broker bears silence.
    silence_max: Duration,
    spoke_at: Instant,
    last_id: u16,
    /// Which draft each unacknowledged identifier stands for.
    open: HashMap<u16, usize, BuildHasherDefault<OwnId>>,
}

/// Spreads packet identifiers, which are this side's own and in order: nobody can choose them so
/// that they collide.
#[derive(Default)]
struct OwnId(u64);

impl Hasher for OwnId {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u16(byte.into());
        }
    }

    fn write_u16(&mut self, id: u16) {
        // Fibonacci's: a table looks at the first bits and at the last.
        self.0 = (self.0 ^ u64::from(id)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Link {
    /// Introduces the program; nothing of an earlier link is left.
    ///
    /// # Errors
    /// [`LinkError::Ended`] where the broker is full or stops.
    pub(crate) fn open(stream: UnixStream, name: &str) -> Result<Link, LinkError> {
        let mut link = Link {
            stream,
            inbound: Vec::new(),
            used: 0,
            filled: 0,
            outbound: Vec::new(),
            receive_max: usize::from(u16::MAX),
            packet_bytes_max: u32::MAX,
            silence_max: Duration::MAX,
            spoke_at: Instant::now(),
            last_id: 0,
            open: HashMap::default(),
        };
        link.put(&Packet::Connect(Connect {
            version: Version::V5,
            clean_start: true,
            keep_alive_s: 0,
            properties: ConnectProperties {
                receive_max: Some(NonZeroU16::MAX),
                ..ConnectProperties::default()
            },
            client_id: name,
            will: None,
            username: None,
            password: None,
        }))?;
        link.flush()?;
        let mut answer = None;
        link.until(ANSWER, |packet| {
            if let Packet::Connack(connack) = packet {
                let limits = &connack.properties;
                answer = Some((
                    connack.reason,
                    limits.receive_max.map_or(u16::MAX, NonZeroU16::get),
                    limits.packet_bytes_max.map_or(u32::MAX, NonZeroU32::get),
                    limits.server_keep_alive_s.map(u64::from),
                ));
            }
            answer.is_some()
        })?;
        let Some((reason, receive_max, packet_bytes_max, keep_alive_s)) = answer else {
            return Err(LinkError::Late);
        };
        if reason != Reason::Success {
            return Err(LinkError::Ended(reason));
        }
        link.receive_max = usize::from(receive_max);
        link.packet_bytes_max = packet_bytes_max;
        link.silence_max = keep_alive_s.map_or(Duration::MAX, Duration::from_secs);
        Ok(link)
    }

    /// True where the broker may have ended the link for want of a word: a link that is read
    /// says one by itself, one that only publishes is opened anew.
    pub fn is_silent(&self) -> bool {
        self.spoke_at.elapsed() >= self.silence_max / 2
    }

    /// Publishes all drafts in order and returns when each of QoS 1 and 2 is acknowledged: which
    /// of them were refused, and why.
    ///
    /// # Errors
    /// [`LinkError::Unsayable`] before anything is sent. After any other the link is of no use, and
    /// drafts without an answer may or may not have been published.
    pub fn publish(&mut self, drafts: &[Draft<'_>]) -> Result<Vec<(usize, Reason)>, LinkError> {
        let mut bundle = Bundle::default();
        for draft in drafts {
            self.add(&mut bundle, draft)?;
        }
        self.send(bundle)
    }

    /// Adds a message to a bundle; nothing is sent.
    ///
    /// # Errors
    /// [`LinkError::Unsayable`]; the bundle is as it was.
    pub fn add(&self, bundle: &mut Bundle, draft: &Draft<'_>) -> Result<(), LinkError> {
        bundle
            .add(draft, self.packet_bytes_max as usize)
            .map_err(LinkError::Unsayable)
    }

    /// Publishes a bundle in order; as [`Link::publish`], once everything in it can be said.
    ///
    /// # Errors
    /// Any but [`LinkError::Unsayable`].
    pub fn send(&mut self, bundle: Bundle) -> Result<Vec<(usize, Reason)>, LinkError> {
        let (mut bytes, numbered) = bundle.into_parts();
        let mut refused = Vec::new();
        let mut sent = 0;
        for message in numbered {
            while self.open.len() >= self.receive_max {
                self.write_all(&bytes[sent..message.start])?;
                sent = message.start;
                self.take_acks(&mut refused)?;
            }
            let id = self.fresh_id();
            bytes[message.id_at..message.id_at + 2].copy_from_slice(&id.get().to_be_bytes());
            self.open.insert(id.get(), message.index);
        }
        self.write_all(&bytes[sent..])?;
        while !self.open.is_empty() {
            self.take_acks(&mut refused)?;
        }
        refused.sort_by_key(|(index, _)| *index);
        Ok(refused)
    }

    /// Subscribes to all filters: for each the QoS that was granted, or why it was refused.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub fn subscribe(&mut self, filters: &[(&str, QoS)]) -> Result<Vec<Reason>, LinkError> {
        for (filter, _) in filters {
            if let Some(fault) = filter_fault(filter) {
                return Err(LinkError::Unsayable(fault.to_string()));
            }
        }
        let lines: Vec<SubscribeFilter<'_>> = filters
            .iter()
            .map(|&(filter, qos)| SubscribeFilter {
                filter,
                qos,
                no_local: false,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            })
            .collect();
        let packet_id = self.fresh_id();
        self.put(&Packet::Subscribe(Subscribe {
            packet_id,
            subscription_id: None,
            user: UserProperties::default(),
            filters: Filters::List(&lines),
        }))?;
        self.flush()?;
        let mut codes = Vec::new();
        // Messages do not come before the answer to the first subscription.
        self.until(ANSWER, |packet| match packet {
            Packet::Suback(suback) => {
                codes = suback.codes.iter().collect();
                true
            }
            _ => false,
        })?;
        Ok(codes)
    }

    /// Waits until a message is there; false where none came in time. What [`Link::take`] gave
    /// the call before is acknowledged first.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub fn wait(&mut self, timeout: Duration) -> Result<bool, LinkError> {
        self.flush()?;
        let until = Instant::now() + timeout;
        while self.next_frame()?.is_none() {
            self.keep_alive()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.fill(left)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Reads what has arrived, as [`Link::wait`] but without waiting; false where no message is
    /// there.
    ///
    /// # Errors
    /// Any [`LinkError`].
    pub fn look(&mut self) -> Result<bool, LinkError> {
        self.flush()?;
        while self.next_frame()?.is_none() {
            self.stream.set_nonblocking(true)?;
            let came = self.read();
            self.stream.set_nonblocking(false)?;
            if !came? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// True where a message is there already and nothing is to be said before it is taken: neither
    /// [`Link::look`] nor [`Link::take`] would touch the socket.
    ///
    /// # Errors
    /// [`LinkError::Malformed`].
    pub fn is_ready(&self) -> Result<bool, LinkError> {
        Ok(self.outbound.is_empty() && self.next_frame()?.is_some())
    }

    /// Says a word where the broker would soon want one, and how long from now the next is due;
    /// `None` where it bears silence.
    ///
    /// # Errors
    /// [`LinkError::Gone`].
    pub fn keep_alive(&mut self) -> Result<Option<Duration>, LinkError> {
        if self.is_silent() {
            self.put(&Packet::Pingreq)?;
            self.flush()?;
        }
        let silence = self.silence_max / 2;
        let due = silence.saturating_sub(self.spoke_at.elapsed());
        Ok((self.silence_max < Duration::MAX).then_some(due))
    }

    /// Hands at most `max` messages that are there to `visit`, and acknowledges those of the call
    /// before: who is given a message and never asks for another one has not taken it.
    ///
    /// # Errors
    /// Any [`LinkError`], and what `visit` says.
    pub fn take<E: From<LinkError>>(
        &mut self,
        max: usize,
        mut visit: impl FnMut(&Publish<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        self.flush()?;
        let mut taken = 0;
        while taken < max {
            let Some((body, end, frame)) = self.next_frame()? else {
                break;
            };
            let packet = decode(Version::V5, Sender::Server, frame, &self.inbound[body..end])
                .map_err(LinkError::from)?;
            let answer = match &packet {
                Packet::Publish(publish) => {
                    visit(publish)?;
                    taken += 1;
                    match (publish.qos, publish.packet_id) {
                        (QoS::AtLeastOnce, Some(id)) => Some(Packet::Puback(ack(id))),
                        (QoS::ExactlyOnce, Some(id)) => Some(Packet::Pubrec(ack(id))),
                        _ => None,
                    }
                }
                Packet::Pubrel(found) => Some(Packet::Pubcomp(ack(found.packet_id))),
                Packet::Disconnect(found) => return Err(LinkError::Ended(found.reason).into()),
                _ => None,
            };
            if let Some(answer) = answer {
                write(&answer, u32::MAX, &mut self.outbound)?;
            }
            self.used = end;
        }
        Ok(taken)
    }

    /// A second handle of the socket: shutting it down ends a call that waits in another thread.
    ///
    /// # Errors
    /// Descriptors have run out.
    pub fn ender(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }

    // Inside

    fn fresh_id(&mut self) -> PacketId {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            match NonZeroU16::new(self.last_id) {
                Some(id) if !self.open.contains_key(&id.get()) => return id,
                _ => {}
            }
        }
    }

    fn put(&mut self, packet: &Packet<'_>) -> Result<(), LinkError> {
        write(packet, self.packet_bytes_max, &mut self.outbound)
    }

    fn flush(&mut self) -> Result<(), LinkError> {
        if !self.outbound.is_empty() {
            self.stream.write_all(&self.outbound)?;
            self.outbound.clear();
            self.spoke_at = Instant::now();
        }
        Ok(())
    }

    /// Writes what was encoded elsewhere, behind what waits.
    fn write_all(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.flush()?;
        if !bytes.is_empty() {
            self.stream.write_all(bytes)?;
            self.spoke_at = Instant::now();
        }
        Ok(())
    }

    /// Takes acknowledgements until at least one exchange has ended.
    fn take_acks(&mut self, refused: &mut Vec<(usize, Reason)>) -> Result<(), LinkError> {
        let before = self.open.len();
        let until = Instant::now() + ANSWER;
        while self.open.len() == before {
            while let Some((body, end, frame)) = self.next_frame()? {
                let packet = decode(Version::V5, Sender::Server, frame, &self.inbound[body..end])?;
                let (ended, answer) = match packet {
                    Packet::Puback(found) | Packet::Pubcomp(found) => (Some(found), None),
                    Packet::Pubrec(found) if found.reason.is_refusal() => (Some(found), None),
                    Packet::Pubrec(found) => (None, Some(Packet::Pubrel(ack(found.packet_id)))),
                    Packet::Disconnect(found) => return Err(LinkError::Ended(found.reason)),
                    _ => (None, None),
                };
                if let Some(found) = ended {
                    let index = self.open.remove(&found.packet_id.get());
                    if let Some(index) = index.filter(|_| found.reason.is_refusal()) {
                        refused.push((index, found.reason));
                    }
                }
                if let Some(answer) = answer {
                    write(&answer, u32::MAX, &mut self.outbound)?;
                }
                self.used = end;
            }
            self.flush()?;
            if self.open.len() == before {
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() || !self.fill(left)? {
                    return Err(LinkError::Late);
                }
            }
        }
        Ok(())
    }

    /// Reads packets until `found` says that this is the one.
    fn until(
        &mut self,
        timeout: Duration,
        mut found: impl FnMut(&Packet<'_>) -> bool,
    ) -> Result<(), LinkError> {
        let until = Instant::now() + timeout;
        loop {
            while let Some((body, end, frame)) = self.next_frame()? {
                let packet = decode(Version::V5, Sender::Server, frame, &self.inbound[body..end])?;
                let reason = match &packet {
                    Packet::Disconnect(packet) => Some(packet.reason),
                    _ => None,
                };
                let done = found(&packet);
                self.used = end;
                if done {
                    return Ok(());
                }
                if let Some(reason) = reason {
                    return Err(LinkError::Ended(reason));
                }
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.fill(left)? {
                return Err(LinkError::Late);
            }
        }
    }

    /// The next whole packet: where its body begins, where it ends, its fixed header.
    fn next_frame(&self) -> Result<Option<(usize, usize, Frame)>, LinkError> {
        let rest = &self.inbound[self.used..self.filled];
        let Some(frame) = frame(rest, u32::MAX)? else {
            return Ok(None);
        };
        let whole = frame.packet_bytes() <= rest.len();
        let (body, end) = (frame.header_bytes, frame.packet_bytes());
        Ok(whole.then_some((self.used + body, self.used + end, frame)))
    }

    /// Reads once; false where nothing came in time.
    fn fill(&mut self, timeout: Duration) -> Result<bool, LinkError> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.read()
    }

    /// Reads once, as the socket is set; false where nothing came.
    fn read(&mut self) -> Result<bool, LinkError> {
        // The room is made once and kept: to clear it at each read would cost more than the read.
        self.inbound.copy_within(self.used..self.filled, 0);
        self.filled -= std::mem::take(&mut self.used);
        let wanted = self.filled + READ_BYTES;
        if self.inbound.len() < wanted {
            self.inbound.resize(wanted, 0);
        }
        match self.stream.read(&mut self.inbound[self.filled..]) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::ConnectionAborted).into()),
            Ok(bytes) => {
                self.filled += bytes;
                Ok(true)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Ok(false),
                io::ErrorKind::Interrupted => Ok(true),
                _ => Err(error.into()),
            },
        }
    }
}

/// Appends a packet to what is to be written.
fn write(packet: &Packet<'_>, max: u32, out: &mut Vec<u8>) -> Result<(), LinkError> {
    encode(Version::V5, packet, max, out).map_err(|error| LinkError::Unsayable(error.to_string()))
}

fn ack(packet_id: PacketId) -> Ack<'static> {
    Ack {
        packet_id,
        reason: Reason::Success,
        reason_string: None,
        user: UserProperties::default(),
    }
}

#[cfg(test)]
#[path = "inside_tests.rs"]
mod tests;
