//! Listeners on Unix sockets: what passes, whose file it is, and what is left alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use casemate_codec::{Packet, QoS};
use casemate_server::{Address, Listener, Options, Security, Server, StartError, UnixAddress};
use peer::framed::with_websocket;
use peer::{connect, listener, plain_options, House, Peer, Wire, PATIENCE};

/// A folder of its own for each test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("casemate-unix-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn at(name: &str, path: &Path) -> Listener {
    Listener {
        address: Address::Unix(UnixAddress {
            path: path.into(),
            mode: 0o600,
        }),
        ..listener(name, Security::Plain)
    }
}

fn options(listeners: Vec<Listener>, shards: usize) -> Options {
    Options {
        listeners,
        ..plain_options(shards)
    }
}

fn refusal(listener: Listener) -> StartError {
    match Server::start(options(vec![listener], 1), Vec::new()) {
        Err(error) => error,
        Ok(_) => panic!("it started"),
    }
}

#[test]
fn messages_pass_between_unix_and_tcp_in_every_shard() {
    let folder = Folder::new();
    for shards in [1, 2, 4] {
        let path = folder.at("mqtt.sock");
        let listeners = vec![
            at("unix", &path),
            with_websocket(at("framed", &folder.at("ws.sock")), &[]),
            listener("plain", Security::Plain),
        ];
        let house = House::open(options(listeners, shards));
        let mut tcp = Peer::login(Wire::plain(house.address("plain")), "tcp");
        tcp.subscribe("a", QoS::AtMostOnce);
        let wires = [
            Wire::unix(&path),
            Wire::unix(&folder.at("ws.sock")).upgrade(),
        ];
        for (number, wire) in wires.into_iter().enumerate() {
            // Several client ids, so that some connections move to another shard.
            let mut peer = Peer::login(wire, &format!("unix-{number}-{shards}"));
            let payload = vec![number as u8; 300_000];
            peer.publish_and_wait("a", &payload);
            assert!(tcp.message() == payload);
            peer.subscribe("b", QoS::AtMostOnce);
            tcp.publish("b", &payload);
            assert!(peer.message() == payload);
            peer.disconnect();
        }
        let found = house.server.addresses();
        assert_eq!(found[0].1.to_string(), path.display().to_string());
    }
}

#[test]
fn a_peer_without_an_address_is_told_about_without_one() {
    let folder = Folder::new();
    let path = folder.at("mqtt.sock");
    let house = House::open(options(vec![at("unix", &path)], 1));
    for _ in 0..2 {
        let mut peer = Peer::new(Wire::unix(&path));
        std::io::Write::write_all(&mut peer.wire, &[0x16, 3, 1]).unwrap();
        peer.ends();
    }
    house.wait_for(|counters| counters.shell.tls_on_plain == 2);
    let (events, _) = house.server.next_events(100, PATIENCE);
    let told: Vec<_> = events
        .iter()
        .filter(|event| format!("{:?}", event.kind) == "TlsOnPlain")
        .collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].address, None);
    assert_eq!(told[0].listener.as_deref(), Some("unix"));
}

#[test]
fn the_file_has_its_mode_and_goes_with_the_server() {
    let folder = Folder::new();
    for mode in [0o600, 0o660, 0o777] {
        let path = folder.at("mqtt.sock");
        let mut one = at("unix", &path);
        one.address = Address::Unix(UnixAddress {
            path: path.clone(),
            mode,
        });
        let house = House::open(options(vec![one], 2));
        let file = fs::symlink_metadata(&path).unwrap();
        assert!(file.file_type().is_socket());
        assert_eq!(file.permissions().mode() & 0o7777, mode);
        drop(house);
        assert!(!path.exists());
    }
}

#[test]
fn a_socket_that_nobody_answers_is_replaced() {
    let folder = Folder::new();
    let path = folder.at("mqtt.sock");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves it behind");
    let _house = House::open(options(vec![at("unix", &path)], 1));
    Peer::login(Wire::unix(&path), "c").ping();
}

#[test]
fn a_socket_that_somebody_answers_is_left_alone() {
    let folder = Folder::new();
    let path = folder.at("mqtt.sock");
    let house = House::open(options(vec![at("unix", &path)], 1));
    let error = refusal(at("second", &path));
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    Peer::login(Wire::unix(&path), "c").ping();
    drop(house);
    // One that listens and never takes anybody counts as well.
    let _other = UnixListener::bind(&path).unwrap();
    let error = refusal(at("third", &path));
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let folder = Folder::new();
    let (file, link) = (folder.at("file"), folder.at("link"));
    fs::write(&file, "precious").unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link, &folder.0] {
        let error = refusal(at("unix", path));
        assert!(matches!(error, StartError::SocketFile { .. }), "{error}");
    }
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn paths_that_cannot_work_are_refused_in_words() {
    let folder = Folder::new();
    let long = folder.at(&"x".repeat(120));
    let error = refusal(at("unix", &long)).to_string();
    assert!(error.contains("too long"), "{error}");
    for path in ["", "\0abstract"] {
        let error = refusal(at("unix", Path::new(path))).to_string();
        assert!(error.contains("no path"), "{error}");
    }
    let error = refusal(at("unix", &folder.at("missing/mqtt.sock"))).to_string();
    assert!(error.contains("missing"), "{error}");
}

#[test]
fn a_file_that_took_our_place_is_not_removed() {
    let folder = Folder::new();
    let path = folder.at("mqtt.sock");
    let house = House::open(options(vec![at("unix", &path)], 1));
    fs::remove_file(&path).unwrap();
    fs::write(&path, "somebody else's").unwrap();
    drop(house);
    assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
}

#[test]
fn a_listener_comes_and_goes_while_connections_live() {
    let folder = Folder::new();
    let (first, second) = (folder.at("first"), folder.at("second"));
    let house = House::open(options(vec![at("unix", &first)], 2));
    let mut live = Peer::login(Wire::unix(&first), "live");
    let both = [at("unix", &first), at("more", &second)];
    assert!(house.server.install_listeners(&both).unwrap());
    Peer::login(Wire::unix(&second), "new").ping();
    assert!(house.server.install_listeners(&both[1..]).unwrap());
    assert!(!first.exists() && UnixStream::connect(&first).is_err());
    live.ping();
    // A change that fails leaves no file.
    let third = folder.at("third");
    let bad = [at("more", &second), at("a", &third), at("b", &folder.0)];
    assert!(house.server.install_listeners(&bad).is_err());
    assert!(!third.exists());
    let mut peer = Peer::new(Wire::unix(&second));
    peer.send(&Packet::Connect(connect("again")));
    peer.connack();
}
