//! TLS 1.3 and 1.2 by rustls' unbuffered machine, which keeps no buffer for an idle connection.

use std::io::IoSlice;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;

use aws_lc_rs::digest;
use casemate_engine::PeerCertificate;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus, WriteTraffic,
};
use rustls::ServerConfig;

use super::http::Greeting;
use super::records::Records;
use super::{End, Fault, Flow, Received, Scratch, Sent, MQTT_CONNECT, TLS_HANDSHAKE};
use crate::socket::Socket;

/// MQTT bytes that are encrypted for one write: four full records.
pub(super) const BATCH_BYTES: usize = 64 * 1024;

/// Room for a batch with the overhead of its records (at most 29 bytes each) and a key update.
pub(super) const CIPHER_BYTES: usize = BATCH_BYTES + 1024;

/// Bytes that may be kept of a handshake that is not done: ten times what certificate chains need.
/// Nobody is known yet, so whoever opens connections decides how often we keep this much.
const STRANGER_AHEAD_BYTES_MAX: usize = 32 * 1024;

/// Bytes that may be kept of an established connection: a read, and the record that was cut.
const AHEAD_BYTES_MAX: usize = 96 * 1024;

/// One connection's TLS.
pub(crate) struct Tls {
    connection: UnbufferedServerConnection,
    /// Encrypted bytes that the socket has not taken.
    pending: Vec<u8>,
    pending_sent: usize,
    /// Encrypted bytes that were read but not used.
    ahead: Vec<u8>,
    /// The machine waits for more than it was shown; `ahead` is the beginning of it.
    blocked: bool,
    records: Records,
    sniffed: bool,
    established: bool,
    /// Watches for HTTP, unless it is what is wanted.
    greeting: Option<Greeting>,
}

impl Tls {
    /// Awaits a ClientHello, and then MQTT or, with `is_http`, HTTP.
    ///
    /// # Errors
    /// [`Fault::Tls`] where the configuration cannot serve a connection.
    pub fn new(config: Arc<ServerConfig>, is_http: bool) -> Result<Tls, Fault> {
        let connection = UnbufferedServerConnection::new(config).map_err(Fault::Tls)?;
        Ok(Tls {
            connection,
            pending: Vec::new(),
            pending_sent: 0,
            ahead: Vec::new(),
            blocked: false,
            records: Records::default(),
            sniffed: false,
            established: false,
            greeting: (!is_http).then(Greeting::default),
        })
    }

    /// See [`super::Transport::heard`].
    pub fn heard(&mut self, fresh: &[u8]) {
        self.records.heard(fresh);
    }

    /// See [`super::Transport::receive`].
    pub fn receive(
        &mut self,
        input: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<Received, Fault> {
        self.sniff(input)?;
        let mut taken = 0;
        self.blocked = false;
        loop {
            let (discard, end) = self.step(&mut input[taken..], sink)?;
            taken += discard;
            if !self.established && !self.connection.is_handshaking() {
                self.established = true;
                return Ok(Received {
                    taken,
                    end: End::Established,
                });
            }
            match end {
                None => {}
                Some(End::Blocked) if self.established && self.records.are_too_empty() => {
                    return Err(Fault::EmptyRecords);
                }
                Some(end) => {
                    self.blocked = end == End::Blocked;
                    return Ok(Received { taken, end });
                }
            }
        }
    }

    /// Tells from the first byte whether this can be TLS at all.
    fn sniff(&mut self, input: &[u8]) -> Result<(), Fault> {
        match input.first() {
            Some(&first) if !self.sniffed && first != TLS_HANDSHAKE => Err(Fault::NotTls {
                mqtt: first == MQTT_CONNECT,
            }),
            Some(_) => {
                self.sniffed = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Runs the machine to its next state and serves it: bytes used up, and the end if it is one.
    fn step(
        &mut self,
        input: &mut [u8],
        sink: &mut dyn FnMut(&[u8]) -> Flow,
    ) -> Result<(usize, Option<End>), Fault> {
        let UnbufferedStatus { mut discard, state } = advance(&mut self.connection, input)?;
        let state = match state {
            Ok(state) => state,
            Err(error) => {
                // The machine may have an alert to send about it.
                self.collect(&mut input[discard..]);
                return Err(Fault::Tls(error));
            }
        };
        let end = match state {
            // Nothing is lost: the machine offers the same record again at the next step, when
            // the receiver knows that the handshake is over.
            ConnectionState::ReadTraffic(_) if !self.established => None,
            ConnectionState::ReadTraffic(mut traffic) => {
                let mut end = None;
                while let Some(record) = traffic.next_record() {
                    let record = record.map_err(Fault::Tls)?;
                    discard += record.discard;
                    self.records.content();
                    let flow = match &mut self.greeting {
                        Some(greeting) => greeting.pass(record.payload, sink),
                        None => sink(record.payload),
                    };
                    if self.greeting.as_ref().is_some_and(Greeting::is_http) {
                        return Err(Fault::HttpOnMqtt);
                    }
                    if flow == Flow::Halt {
                        end = Some(End::Halted);
                        break;
                    }
                }
                end
            }
            ConnectionState::EncodeTlsData(mut piece) => {
                encode(&mut piece, &mut self.pending)?;
                None
            }
            ConnectionState::TransmitTlsData(piece) => {
                piece.done();
                None
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) => {
                Some(End::Blocked)
            }
            ConnectionState::PeerClosed | ConnectionState::Closed => Some(End::PeerClosed),
            // Early data is never offered, and nothing else is known to this version.
            _ => return Err(Fault::Confused),
        };
        Ok((discard, end))
    }

    /// Moves the machine's alert into `pending`, after an error that left `rest` unused.
    fn collect(&mut self, rest: &mut [u8]) {
        let mut from = 0;
        while let Ok(UnbufferedStatus { discard, state }) =
            advance(&mut self.connection, &mut rest[from..])
        {
            match state {
                Ok(ConnectionState::EncodeTlsData(mut piece)) => {
                    if encode(&mut piece, &mut self.pending).is_err() {
                        return;
                    }
                }
                Ok(ConnectionState::TransmitTlsData(piece)) => piece.done(),
                _ => return,
            }
            from += discard;
        }
    }

    /// See [`super::Transport::send`].
    pub fn send(
        &mut self,
        stream: &Socket,
        slices: &[IoSlice<'_>],
        scratch: &mut Scratch,
    ) -> Result<Sent, Fault> {
        if !self.flush(stream)? {
            return Ok(Sent {
                bytes: 0,
                blocked: true,
            });
        }
        let Scratch { plain, cipher, .. } = scratch;
        let batch = batch(slices, plain);
        if batch.is_empty() {
            return Ok(Sent {
                bytes: 0,
                blocked: false,
            });
        }
        let encrypted = self.encrypt(batch, cipher)?;
        let bytes = batch.len();
        // A key update that was due stands before the batch.
        if !self.flush(stream)? {
            self.pending.extend_from_slice(&cipher[..encrypted]);
            return Ok(Sent {
                bytes,
                blocked: true,
            });
        }
        let written = stream
            .write(&[IoSlice::new(&cipher[..encrypted])])?
            .unwrap_or(0);
        self.pending.extend_from_slice(&cipher[written..encrypted]);
        Ok(Sent {
            bytes,
            blocked: written < encrypted,
        })
    }

    /// Encrypts a batch; what the machine has to say first goes to `pending`.
    fn encrypt(&mut self, batch: &[u8], cipher: &mut [u8]) -> Result<usize, Fault> {
        self.speak(|traffic| {
            traffic.encrypt(batch, cipher).map_err(|error| match error {
                EncryptError::EncryptExhausted => Fault::Exhausted,
                EncryptError::InsufficientSize(_) => Fault::Confused,
            })
        })?
    }

    /// Brings the machine to where it can say something, and lets `act` say it.
    ///
    /// While the machine waits for the rest of a message it must be shown the beginning each
    /// time: it remembers only where it stands. Otherwise what was read ahead is none of its
    /// business here, and it is shown nothing.
    fn speak<T>(
        &mut self,
        act: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> T,
    ) -> Result<T, Fault> {
        let mut ahead = match self.blocked {
            true => std::mem::take(&mut self.ahead),
            false => Vec::new(),
        };
        let outcome = loop {
            let UnbufferedStatus { discard, state } = advance(&mut self.connection, &mut ahead)?;
            match state.map_err(Fault::Tls)? {
                ConnectionState::WriteTraffic(mut traffic) => break act(&mut traffic),
                ConnectionState::EncodeTlsData(mut piece) => {
                    encode(&mut piece, &mut self.pending)?;
                }
                ConnectionState::TransmitTlsData(piece) => piece.done(),
                ConnectionState::PeerClosed => {}
                _ => return Err(Fault::Confused),
            }
            ahead.drain(..discard);
        };
        if self.blocked {
            self.ahead = ahead;
        }
        Ok(outcome)
    }

    /// Writes what is pending; true where nothing is left.
    fn flush(&mut self, stream: &Socket) -> Result<bool, Fault> {
        while self.pending_sent < self.pending.len() {
            let rest = &self.pending[self.pending_sent..];
            match stream.write(&[IoSlice::new(rest)])? {
                Some(bytes) => self.pending_sent += bytes,
                None => return Ok(false),
            }
        }
        self.pending = Vec::new();
        self.pending_sent = 0;
        Ok(true)
    }

    /// See [`super::Transport::finish`].
    pub fn finish(&mut self) -> bool {
        let mut notice = [0; 128];
        let written = self.speak(|traffic| traffic.queue_close_notify(&mut notice));
        // Where it cannot be said, the peer sees the connection end without it.
        if let Ok(Ok(bytes)) = written {
            self.pending.extend_from_slice(&notice[..bytes]);
        }
        true
    }

    /// See [`super::Transport::take_ahead`].
    pub fn take_ahead(&mut self, buffer: &mut [u8]) -> usize {
        let ahead = std::mem::take(&mut self.ahead);
        buffer[..ahead.len()].copy_from_slice(&ahead);
        ahead.len()
    }

    /// See [`super::Transport::keep_ahead`].
    pub fn keep_ahead(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let bytes_max = match self.established {
            true => AHEAD_BYTES_MAX,
            false => STRANGER_AHEAD_BYTES_MAX,
        };
        if bytes.len() > bytes_max {
            return Err(Fault::TooLarge);
        }
        if !bytes.is_empty() {
            self.ahead = bytes.to_vec();
        }
        Ok(())
    }

    /// See [`super::Transport::is_ahead`].
    pub fn is_ahead(&self) -> bool {
        !self.ahead.is_empty()
    }

    /// See [`super::Transport::wants_writing`].
    pub fn wants_writing(&self) -> bool {
        !self.pending.is_empty()
    }

    /// See [`super::Transport::is_established`].
    pub fn is_established(&self) -> bool {
        self.established
    }

    /// See [`super::Transport::certificate`].
    pub fn certificate(&self) -> Option<Arc<PeerCertificate>> {
        let leaf = self.connection.peer_certificates()?.first()?;
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
        Some(Arc::new(PeerCertificate {
            fingerprint,
            der: leaf.to_vec(),
        }))
    }

    /// True where the handshake was shortened by a ticket.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }
}

/// Runs the machine to its next state.
///
/// It remembers places in the input between two calls, and panics where what it is shown does not
/// match. This file keeps to its rules; should it ever fail to, one connection ends and not the
/// server, as what happens there is up to the peer. The machine is not used again then.
fn advance<'c, 'i>(
    connection: &'c mut UnbufferedServerConnection,
    input: &'i mut [u8],
) -> Result<UnbufferedStatus<'c, 'i, ServerConnectionData>, Fault> {
    let shown = AssertUnwindSafe((connection, input));
    catch_unwind(move || {
        let AssertUnwindSafe((connection, input)) = { shown };
        connection.process_tls_records(input)
    })
    .map_err(|_| Fault::Confused)
}

/// The start of `slices` as one piece: the first slice itself where it is long, else gathered.
fn batch<'a>(slices: &'a [IoSlice<'_>], gathered: &'a mut Vec<u8>) -> &'a [u8] {
    match slices.first() {
        None => return &[],
        Some(first) if first.len() >= BATCH_BYTES / 4 => {
            return &first[..first.len().min(BATCH_BYTES)];
        }
        Some(_) => {}
    }
    gathered.clear();
    for slice in slices {
        let room = BATCH_BYTES - gathered.len();
        gathered.extend_from_slice(&slice[..slice.len().min(room)]);
    }
    gathered
}

/// Appends a piece of the handshake to what is pending.
fn encode(
    piece: &mut EncodeTlsData<'_, ServerConnectionData>,
    pending: &mut Vec<u8>,
) -> Result<(), Fault> {
    let start = pending.len();
    loop {
        let room = pending.len();
        match piece.encode(&mut pending[start..]) {
            Ok(bytes) => {
                pending.truncate(start + bytes);
                return Ok(());
            }
            Err(EncodeError::InsufficientSize(needed)) if start + needed.required_size > room => {
                pending.resize(start + needed.required_size, 0);
            }
            Err(_) => return Err(Fault::Confused),
        }
    }
}
