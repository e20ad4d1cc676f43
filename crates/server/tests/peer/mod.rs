//! The client side of the tests: a server to talk to and a peer that speaks MQTT to it.
//!
//! The peer uses real sockets with blocking calls and generous deadlines.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

pub mod bare;
pub mod framed;
pub mod papers;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use casemate_codec::{
    decode, encode, frame, Connect, ConnectProperties, Disconnect, Filters, Packet, PacketId,
    Publish, PublishProperties, QoS, Reason, RetainHandling, Sender, Subscribe, SubscribeFilter,
    UserProperties, Version,
};
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_server::{Account, Answer, Inherited, Listener, Options, Security, Server};
use framed::Framed;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;

/// How long anything may take that is not about time: machines under load are slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The only user, its password and its role.
pub const USER: &str = "alice";
pub const PASSWORD: &[u8] = b"correct horse";
pub const ROLE: &str = "all";

/// A policy with one role that may do everything.
pub fn policy(epoch: u64) -> Arc<Policy> {
    let rule = |operation, filter: &str| Rule {
        operation,
        filter: filter.into(),
        qos_max: QoS::ExactlyOnce,
        retain: true,
        place: "test".into(),
    };
    let rules = vec![
        rule(Operation::Publish, "#"),
        rule(Operation::Subscribe, "#"),
        rule(Operation::Subscribe, "$SYS/#"),
    ];
    let role = Role {
        name: ROLE.into(),
        rules,
    };
    Arc::new(Policy::compile(epoch, vec![role]).unwrap())
}

pub fn listener(name: &str, security: Security) -> Listener {
    Listener::new(name, SocketAddr::from(([127, 0, 0, 1], 0)), security)
}

/// Options with one plain listener.
pub fn plain_options(shards: usize) -> Options {
    Options {
        shards,
        listeners: vec![listener("plain", Security::Plain)],
        policy: policy(1),
        sys_interval_s: 0,
        ..Options::default()
    }
}

/// A server whose password checks are answered.
pub struct House {
    pub server: Arc<Server>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl House {
    pub fn open(options: Options) -> House {
        House::with_accounts(options, Vec::new())
    }

    pub fn with_accounts(options: Options, accounts: Vec<Account>) -> House {
        House::around(Server::start(options, accounts).unwrap())
    }

    pub fn with_sockets(options: Options, inherited: Vec<Inherited>) -> House {
        House::around(Server::start_with(options, Vec::new(), inherited).unwrap())
    }

    fn around(server: Server) -> House {
        let server = Arc::new(server);
        let ended = Arc::new(AtomicBool::new(false));
        let (answering, over) = (Arc::clone(&server), Arc::clone(&ended));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                if let Some(question) = answering.next_question(Duration::from_millis(100)) {
                    let right = question.username == USER && question.password.reveal() == PASSWORD;
                    let answer = match right {
                        true => Answer::Grant {
                            name: question.username,
                            roles: vec![ROLE.into()],
                            client_id_bound: false,
                            until_s: None,
                        },
                        false => Answer::Refuse {
                            reason: Reason::BadUserNameOrPassword,
                        },
                    };
                    answering.answer(question.id, answer);
                } else if answering.has_ended() {
                    return;
                }
            }
        });
        House {
            server,
            ended,
            thread: Some(thread),
        }
    }

    /// The address of a listener that speaks TCP.
    pub fn address(&self, name: &str) -> SocketAddr {
        let addresses = self.server.addresses();
        addresses
            .into_iter()
            .find(|(it, _)| it == name)
            .unwrap()
            .1
            .tcp()
            .unwrap()
    }

    /// Waits until something about the counters is true.
    pub fn wait_for(&self, what: impl Fn(&casemate_server::ServerCounters) -> bool) {
        let until = Instant::now() + PATIENCE;
        while !what(&self.server.counters()) {
            assert!(
                Instant::now() < until,
                "never came: {:?}",
                self.server.counters()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.server.stop(Duration::from_secs(5));
        let failed = self.server.failed();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        if !std::thread::panicking() {
            assert_eq!(failed, None);
        }
    }
}

/// What a peer speaks over.
pub enum Wire {
    Plain(TcpStream),
    Unix(UnixStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    WebSocket(Box<Framed>),
}

impl Wire {
    pub fn plain(address: SocketAddr) -> Wire {
        Wire::Plain(dial(address))
    }

    /// Over a Unix socket.
    pub fn unix(path: &Path) -> Wire {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Wire::Unix(stream)
    }

    /// Over TLS; the handshake happens with the first byte.
    pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>) -> Wire {
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        Wire::Tls(Box::new(StreamOwned::new(connection, dial(address))))
    }

    /// Asks for MQTT over WebSocket on this wire, at `/mqtt`.
    pub fn upgrade(self) -> Wire {
        self.try_upgrade().unwrap()
    }

    /// The same where TLS may refuse.
    pub fn try_upgrade(mut self) -> io::Result<Wire> {
        self.write_all(framed::REQUEST)?;
        self.flush()?;
        let answer = framed::try_answer(&mut self)?;
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        Ok(Wire::WebSocket(Box::new(Framed::new(self))))
    }

    pub fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Unix(_) => panic!("not TCP"),
            Wire::Tls(stream) => &stream.sock,
            Wire::WebSocket(framed) => framed.wire.socket(),
        }
    }
}

impl Read for Wire {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.read(bytes),
            Wire::Unix(stream) => stream.read(bytes),
            Wire::Tls(stream) => stream.read(bytes),
            Wire::WebSocket(framed) => framed.read(bytes),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(stream) => stream.write(bytes),
            Wire::Unix(stream) => stream.write(bytes),
            Wire::Tls(stream) => stream.write(bytes),
            Wire::WebSocket(framed) => framed.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Wire::Plain(stream) => stream.flush(),
            Wire::Unix(stream) => stream.flush(),
            Wire::Tls(stream) => stream.flush(),
            Wire::WebSocket(framed) => framed.flush(),
        }
    }
}

/// A socket that gives up after [`PATIENCE`].
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// One MQTT client.
pub struct Peer {
    pub wire: Wire,
    version: Version,
    received: Vec<u8>,
}

impl Peer {
    pub fn new(wire: Wire) -> Peer {
        Peer {
            wire,
            version: Version::V5,
            received: Vec::new(),
        }
    }

    /// Connects as the user and expects to be let in.
    pub fn login(wire: Wire, client_id: &str) -> Peer {
        let mut peer = Peer::new(wire);
        peer.send(&Packet::Connect(connect(client_id)));
        assert_eq!(peer.connack(), Reason::Success);
        peer
    }

    pub fn send(&mut self, packet: &Packet<'_>) {
        let bytes = self.bytes(packet);
        self.wire.write_all(&bytes).unwrap();
        self.wire.flush().unwrap();
    }

    pub fn bytes(&self, packet: &Packet<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(self.version, packet, u32::MAX, &mut bytes).unwrap();
        bytes
    }

    /// The next packet, whole; `None` where the connection ends first.
    pub fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(frame) = frame(&self.received, u32::MAX).unwrap() {
                if frame.packet_bytes() <= self.received.len() {
                    return Ok(Some(self.received.drain(..frame.packet_bytes()).collect()));
                }
            }
            let mut bytes = [0; 16 * 1024];
            match self.wire.read(&mut bytes)? {
                0 => return Ok(None),
                count => self.received.extend_from_slice(&bytes[..count]),
            }
        }
    }

    /// Looks at the next packet, which must come.
    pub fn see<T>(&mut self, look: impl FnOnce(Packet<'_>) -> T) -> T {
        let bytes = self.next().unwrap().expect("the connection ended");
        let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
        look(
            decode(
                self.version,
                Sender::Server,
                frame,
                &bytes[frame.header_bytes..],
            )
            .unwrap(),
        )
    }

    pub fn connack(&mut self) -> Reason {
        self.see(|packet| match packet {
            Packet::Connack(connack) => connack.reason,
            other => panic!("no CONNACK: {other:?}"),
        })
    }

    /// The payload of the next message.
    pub fn message(&mut self) -> Vec<u8> {
        self.see(|packet| match packet {
            Packet::Publish(publish) => publish.payload.to_vec(),
            other => panic!("no PUBLISH: {other:?}"),
        })
    }

    pub fn subscribe(&mut self, filter: &str, qos: QoS) {
        let line = [subscription(filter, qos)];
        self.send(&Packet::Subscribe(subscribe(&line)));
        self.see(|packet| match packet {
            Packet::Suback(suback) => assert!(suback.codes.iter().all(|code| !code.is_refusal())),
            other => panic!("no SUBACK: {other:?}"),
        });
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&Packet::Publish(publish(topic, payload)));
    }

    /// Publishes at QoS 1 and waits for the acknowledgement.
    pub fn publish_and_wait(&mut self, topic: &str, payload: &[u8]) {
        let mut packet = publish(topic, payload);
        packet.qos = QoS::AtLeastOnce;
        packet.packet_id = PacketId::new(7);
        self.send(&Packet::Publish(packet));
        self.see(|packet| assert!(matches!(packet, Packet::Puback(_)), "{packet:?}"));
    }

    /// A round trip: all that was sent before has been served.
    pub fn ping(&mut self) {
        self.send(&Packet::Pingreq);
        self.see(|packet| assert!(matches!(packet, Packet::Pingresp), "{packet:?}"));
    }

    pub fn disconnect(mut self) {
        self.send(&Packet::Disconnect(Disconnect {
            reason: Reason::Success,
            session_expiry_s: None,
            reason_string: None,
            user: UserProperties::default(),
            server_reference: None,
        }));
        assert!(self.ends().is_none());
    }

    /// Reads to the end of the connection; the reason of a DISCONNECT on the way.
    pub fn ends(&mut self) -> Option<Reason> {
        let mut reason = None;
        loop {
            let bytes = match self.next() {
                Ok(Some(bytes)) => bytes,
                Ok(None) => return reason,
                Err(error) => {
                    let slow = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
                    assert!(!slow.contains(&error.kind()), "the connection did not end");
                    return reason;
                }
            };
            let frame = frame(&bytes, u32::MAX).unwrap().unwrap();
            let body = &bytes[frame.header_bytes..];
            if let Ok(Packet::Disconnect(packet)) =
                decode(self.version, Sender::Server, frame, body)
            {
                reason = Some(packet.reason);
            }
        }
    }
}

pub fn connect(client_id: &str) -> Connect<'_> {
    Connect {
        version: Version::V5,
        clean_start: true,
        keep_alive_s: 60,
        properties: ConnectProperties::default(),
        client_id,
        will: None,
        username: Some(USER),
        password: Some(PASSWORD),
    }
}

/// A CONNECT that claims nothing: for certificates.
pub fn connect_silent(client_id: &str) -> Connect<'_> {
    Connect {
        username: None,
        password: None,
        ..connect(client_id)
    }
}

pub fn publish<'a>(topic: &'a str, payload: &'a [u8]) -> Publish<'a> {
    Publish {
        dup: false,
        qos: QoS::AtMostOnce,
        retain: false,
        topic,
        packet_id: None,
        properties: PublishProperties::default(),
        payload,
    }
}

pub fn subscription(filter: &str, qos: QoS) -> SubscribeFilter<'_> {
    SubscribeFilter {
        filter,
        qos,
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

pub fn subscribe<'a>(lines: &'a [SubscribeFilter<'a>]) -> Subscribe<'a> {
    Subscribe {
        packet_id: PacketId::new(1).unwrap(),
        subscription_id: None,
        user: UserProperties::default(),
        filters: Filters::List(lines),
    }
}
