//! A tiny broker that does what it is told to do wrong, so that a test knows what must be counted.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use casemate_codec::{
    decode, encode, frame, Codes, Connack, Packet, Publish, QoS, Reason, Sender, Suback,
    UserProperties, Version,
};

/// What it does with every 10th message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Nothing wrong.
    None,
    /// It is lost.
    Lose,
    /// It comes twice.
    Repeat,
    /// It comes after its successor.
    Swap,
    /// It goes to a subscriber who did not ask for it.
    Misroute,
    /// It claims to be a redelivery at QoS 1.
    Raise,
}

/// How it greets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Greeting {
    Welcome,
    Refuse(Reason),
    /// Grants nobody a subscription.
    RefuseSubscriptions,
    /// Answers CONNECT with these bytes.
    Garbage(&'static [u8]),
    /// Closes at once.
    Close,
    /// Takes everything and says nothing.
    Silence,
    /// Has a session for each client that asks for the one before.
    Remember,
    /// Lets nobody in for a second time.
    RefuseSecond,
}

struct Subscriber {
    stream: TcpStream,
    filter: String,
    /// A message that waits for its successor.
    held: Option<Vec<u8>>,
    seen: u64,
}

/// Client id and clean session of each CONNECT.
pub type Connects = Arc<Mutex<Vec<(String, bool)>>>;

/// Starts one; it serves as long as the test runs.
pub fn start(greeting: Greeting, lie: Lie) -> SocketAddr {
    start_noting(greeting, lie).0
}

/// Starts one that notes who connects.
pub fn start_noting(greeting: Greeting, lie: Lie) -> (SocketAddr, Connects) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let subscribers = Arc::new(Mutex::new(Vec::new()));
    let connects = Connects::default();
    let noted = Arc::clone(&connects);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let subscribers = Arc::clone(&subscribers);
            let noted = Arc::clone(&noted);
            // A client that has gone ends its thread; that is all there is to say about it.
            thread::spawn(move || {
                drop(serve(stream.unwrap(), greeting, lie, &subscribers, &noted))
            });
        }
    });
    (address, connects)
}

fn serve(
    mut stream: TcpStream,
    greeting: Greeting,
    lie: Lie,
    subscribers: &Mutex<Vec<Subscriber>>,
    noted: &Connects,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 65_536]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 || greeting == Greeting::Close {
            return Ok(());
        }
        bytes.extend_from_slice(&buffer[..count]);
        let mut from = 0;
        while let Some(frame) = frame(&bytes[from..], u32::MAX).unwrap() {
            let Some(packet) = bytes.get(from..from + frame.packet_bytes()) else {
                break;
            };
            from += frame.packet_bytes();
            let body = &packet[frame.header_bytes..];
            match decode(Version::V311, Sender::Client, frame, body).unwrap() {
                Packet::Connect(connect) => {
                    let id = connect.client_id.to_owned();
                    let known = {
                        let mut noted = noted.lock().unwrap();
                        let known = noted.iter().any(|(one, _)| *one == id);
                        noted.push((id, connect.clean_start));
                        known
                    };
                    let greeting = match greeting {
                        Greeting::RefuseSecond if known => Greeting::Refuse(Reason::NotAuthorized),
                        Greeting::Remember if connect.clean_start => Greeting::Welcome,
                        other => other,
                    };
                    greet(&mut stream, greeting)?;
                }
                Packet::Subscribe(subscribe) => {
                    let filter = subscribe.filters.iter().next().unwrap().filter.to_owned();
                    subscribers.lock().unwrap().push(Subscriber {
                        stream: stream.try_clone()?,
                        filter,
                        held: None,
                        seen: 0,
                    });
                    let code = match greeting {
                        Greeting::RefuseSubscriptions => Reason::UnspecifiedError,
                        _ => Reason::Success,
                    };
                    say(
                        &mut stream,
                        &Packet::Suback(Suback {
                            packet_id: subscribe.packet_id,
                            reason_string: None,
                            user: UserProperties::List(&[]),
                            codes: Codes::List(&[code]),
                        }),
                    )?;
                }
                Packet::Publish(publish) => {
                    route(&publish, lie, &mut subscribers.lock().unwrap())?;
                }
                Packet::Disconnect(_) => return Ok(()),
                _ => {}
            }
        }
        bytes.drain(..from);
    }
}

fn greet(stream: &mut TcpStream, greeting: Greeting) -> std::io::Result<()> {
    let reason = match greeting {
        Greeting::Garbage(bytes) => return stream.write_all(bytes),
        Greeting::Silence => return Ok(()),
        Greeting::Refuse(reason) => reason,
        _ => Reason::Success,
    };
    say(
        stream,
        &Packet::Connack(Connack {
            session_present: greeting == Greeting::Remember,
            reason,
            properties: Default::default(),
        }),
    )
}

fn say(stream: &mut TcpStream, packet: &Packet<'_>) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    encode(Version::V311, packet, u32::MAX, &mut bytes).unwrap();
    stream.write_all(&bytes)
}

fn route(publish: &Publish<'_>, lie: Lie, all: &mut [Subscriber]) -> std::io::Result<()> {
    for index in 0..all.len() {
        if !matches(&all[index].filter, publish.topic) {
            continue;
        }
        all[index].seen += 1;
        let lies = all[index].seen.is_multiple_of(10);
        let mut copy = publish.clone();
        if lies && lie == Lie::Raise {
            copy.qos = QoS::AtLeastOnce;
            copy.dup = true;
            copy.packet_id = Some(std::num::NonZeroU16::MIN);
        }
        let mut bytes = Vec::new();
        encode(Version::V311, &Packet::Publish(copy), u32::MAX, &mut bytes).unwrap();
        let held = all[index].held.take();
        let to = match (lie, lies) {
            (Lie::Misroute, true) => (index + 1) % all.len(),
            _ => index,
        };
        match (lie, lies) {
            (Lie::Lose, true) => {}
            (Lie::Swap, true) => all[index].held = Some(bytes),
            (Lie::Repeat, true) => {
                all[to].stream.write_all(&bytes)?;
                all[to].stream.write_all(&bytes)?;
            }
            _ => all[to].stream.write_all(&bytes)?,
        }
        if let Some(held) = held {
            all[index].stream.write_all(&held)?;
        }
    }
    Ok(())
}

/// Enough of matching for the filters of a run.
fn matches(filter: &str, topic: &str) -> bool {
    let (filter, topic) = (filter.split('/'), topic.split('/'));
    filter.clone().count() == topic.clone().count()
        && filter
            .zip(topic)
            .all(|(level, name)| level == "+" || level == name)
}
