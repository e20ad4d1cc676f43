//! Listeners that change while connections live: what stays, what takes effect, what is undone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use casemate_codec::{Packet, QoS, Reason};
use casemate_server::{
    ClientCertificates, Inherited, InheritedSocket, Listener, Options, Security, Server, StartError,
};
use peer::papers::{in_an_hour, Authority};
use peer::{connect, connect_silent, listener, plain_options, House, Peer, Wire, PATIENCE, ROLE};
use rustls::ClientConfig;

/// A listener at this port, which nobody uses at the moment.
fn at(name: &str, security: Security, address: SocketAddr) -> Listener {
    Listener {
        address: address.into(),
        ..listener(name, security)
    }
}

fn tls(authority: &Authority, certificates: ClientCertificates) -> Security {
    Security::Tls(authority.tls_options(certificates))
}

fn house(listeners: Vec<Listener>, shards: usize) -> House {
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// True where nobody listens there.
fn is_closed(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, PATIENCE).is_err()
}

/// The certificate that a server shows to a client of this configuration.
fn shown(address: SocketAddr, config: &Arc<ClientConfig>) -> Vec<u8> {
    let mut peer = Peer::login(Wire::tls(address, config), "c");
    peer.ping();
    match &peer.wire {
        Wire::Tls(stream) => stream.conn.peer_certificates().unwrap()[0].to_vec(),
        _ => panic!("not TLS"),
    }
}

#[test]
fn listeners_come_and_go_and_live_connections_stay() {
    for shards in [1, 2, 4] {
        let house = house(vec![listener("a", Security::Plain)], shards);
        let former = house.address("a");
        let mut live = Peer::login(Wire::plain(former), "live");
        live.subscribe("t", QoS::AtMostOnce);
        let next = [listener("b", Security::Plain)];
        assert!(house.server.install_listeners(&next).unwrap());
        assert!(is_closed(former));
        let mut newcomer = Peer::login(Wire::plain(house.address("b")), "newcomer");
        newcomer.publish("t", b"hello");
        assert_eq!(live.message(), b"hello");
        assert_eq!(house.server.addresses().len(), 1);
        // The port is free for others too.
        TcpListener::bind(former).unwrap();
    }
}

#[test]
fn the_events_of_a_connection_name_its_listener_after_that_was_removed() {
    let house = house(vec![listener("a", Security::Plain)], 1);
    let live = Peer::login(Wire::plain(house.address("a")), "live");
    for name in ["b", "c", "d", "e"] {
        let next = [listener(name, Security::Plain)];
        house.server.install_listeners(&next).unwrap();
    }
    live.disconnect();
    house.wait_for(|counters| counters.engine.connections_now == 0);
    let (events, _) = house.server.next_events(100, PATIENCE);
    assert!(!events.is_empty());
    for event in events {
        assert_eq!(event.listener.as_deref(), Some("a"), "{event:?}");
    }
}

#[test]
fn a_listener_at_the_same_address_keeps_its_socket_under_another_name() {
    let house = house(vec![listener("a", Security::Plain)], 2);
    let address = house.address("a");
    // As a configuration names it: with its port.
    let next = [at("a", Security::Plain, address)];
    assert!(
        matches!(
            house.server.install_listeners(&next),
            Err(StartError::AddressInUse { .. })
        ),
        "a port that the system chose is not the one that was configured"
    );
    let other = [listener("other", Security::Plain)];
    house.server.install_listeners(&other).unwrap();
    house.server.install_listeners(&next).unwrap();
    let mut live = Peer::login(Wire::plain(address), "live");
    let renamed = [at("renamed", Security::Plain, address)];
    house.server.install_listeners(&renamed).unwrap();
    assert_eq!(
        house.server.addresses(),
        [("renamed".to_owned(), address.into())]
    );
    live.ping();
    Peer::login(Wire::plain(address), "next").ping();
}

#[test]
fn a_renewed_certificate_is_shown_to_those_who_come_next() {
    let authority = Authority::new("test");
    let house = house(
        vec![listener("tls", tls(&authority, ClientCertificates::None))],
        2,
    );
    let address = house.address("tls");
    let config = authority.trusted_by(None);
    let before = shown(address, &config);
    let mut live = Peer::login(Wire::tls(address, &config), "live");
    let renewed = [listener("tls", tls(&authority, ClientCertificates::None))];
    house.server.install_listeners(&renewed).unwrap();
    live.ping();
    assert_eq!(house.address("tls"), address);
    assert_ne!(shown(address, &config), before);
    // Material that is the same is no change, whoever hands it over again.
    let after = shown(address, &config);
    house.server.install_listeners(&renewed).unwrap();
    assert_eq!(shown(address, &config), after);
    live.ping();
}

/// Goal: nothing is half done. Method: a good new listener beside one that cannot be.
#[test]
fn a_listener_that_cannot_be_leaves_everything_as_it_was() {
    let authority = Authority::new("test");
    let good = tls(&authority, ClientCertificates::Required);
    let house = house(vec![listener("tls", good.clone())], 2);
    let address = house.address("tls");
    let paper = authority.client("device");
    let account = paper.account("device", in_an_hour());
    house.server.install_accounts(vec![account]);
    let config = authority.trusted_by(Some(&paper));
    let mut live = Peer::new(Wire::tls(address, &config));
    live.send(&Packet::Connect(connect_silent("live")));
    assert_eq!(live.connack(), Reason::Success);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut broken = authority.tls_options(ClientCertificates::None);
    broken.key_pem = b"nothing".to_vec();
    let mut open = listener("tls", good);
    open.anonymous_role = Some(ROLE.into());
    let wrong = [
        at("wrong", Security::Plain, taken.local_addr().unwrap()),
        listener("wrong", Security::Tls(broken)),
        listener("new", Security::Plain),
    ];
    for wrong in wrong {
        let next = [open.clone(), listener("new", Security::Plain), wrong];
        let error = house.server.install_listeners(&next).unwrap_err();
        assert!(error.to_string().contains("wrong") || error.to_string().contains("new"));
    }
    assert!(house.server.install_listeners(&[]).is_err());
    assert_eq!(
        house.server.addresses(),
        [("tls".to_owned(), address.into())]
    );
    live.ping();
    // Neither is anybody anonymous, nor is the certificate no longer required.
    let mut nobody = Peer::new(Wire::tls(address, &authority.trusted_by(None)));
    let bytes = nobody.bytes(&Packet::Connect(connect_silent("nobody")));
    let sent = nobody
        .wire
        .write_all(&bytes)
        .and_then(|()| nobody.wire.flush());
    assert!(sent.is_err() || nobody.next().is_err());
}

#[test]
fn a_server_that_has_stopped_takes_no_listeners() {
    let house = house(vec![listener("a", Security::Plain)], 2);
    house.server.stop(PATIENCE);
    let next = [listener("b", Security::Plain)];
    assert!(house.server.install_listeners(&next).is_err());
}

#[test]
fn who_proved_nothing_must_go_when_nobody_is_anonymous_any_more() {
    for shards in [1, 2] {
        let mut open = listener("plain", Security::Plain);
        open.anonymous_role = Some(ROLE.into());
        let house = house(vec![open], shards);
        let address = house.address("plain");
        let mut nobody: Vec<_> = (0..8)
            .map(|number| {
                let mut peer = Peer::new(Wire::plain(address));
                peer.send(&Packet::Connect(connect_silent(&format!("n{number}"))));
                assert_eq!(peer.connack(), Reason::Success);
                peer
            })
            .collect();
        let mut somebody = Peer::login(Wire::plain(address), "somebody");
        let mut undecided = Peer::new(Wire::plain(address));
        house.wait_for(|counters| counters.shell.accepted == 10);
        let closed = [listener("plain", Security::Plain)];
        house.server.install_listeners(&closed).unwrap();
        nobody.iter_mut().for_each(|peer| {
            peer.ends();
        });
        somebody.ping();
        undecided.send(&Packet::Connect(connect_silent("undecided")));
        assert_eq!(undecided.connack(), Reason::NotAuthorized);
    }
}

/// Goal: who shook hands under an old trust is not let in under it later. Method: handshakes that
/// are done before the change, and CONNECTs after it.
#[test]
fn who_is_not_in_yet_must_prove_itself_as_is_asked_now() {
    let authority = Authority::new("test");
    let optional = listener("tls", tls(&authority, ClientCertificates::Optional));
    let house = house(vec![optional], 2);
    let address = house.address("tls");
    let begin = || {
        let mut wire = Wire::tls(address, &authority.trusted_by(None));
        wire.flush().unwrap();
        Peer::new(wire)
    };
    let (mut early, mut late) = (begin(), begin());
    house.wait_for(|counters| counters.shell.handshakes == 2);
    // Another certificate asks for nothing else: nobody notices.
    let renewed = [listener(
        "tls",
        tls(&authority, ClientCertificates::Optional),
    )];
    house.server.install_listeners(&renewed).unwrap();
    early.send(&Packet::Connect(connect("early")));
    assert_eq!(early.connack(), Reason::Success);
    let required = [listener(
        "tls",
        tls(&authority, ClientCertificates::Required),
    )];
    house.server.install_listeners(&required).unwrap();
    late.send(&Packet::Connect(connect("late")));
    assert_eq!(late.connack(), Reason::ServerUnavailable);
    early.ping();
}

#[test]
fn who_waits_at_a_door_that_is_removed_is_not_let_in() {
    let house = house(vec![listener("a", Security::Plain)], 1);
    let mut late = Peer::new(Wire::plain(house.address("a")));
    house.wait_for(|counters| counters.shell.accepted == 1);
    let next = [listener("b", Security::Plain)];
    house.server.install_listeners(&next).unwrap();
    late.send(&Packet::Connect(connect("late")));
    assert_eq!(late.connack(), Reason::ServerUnavailable);
}

#[test]
fn a_socket_that_listens_already_is_taken_with_those_who_wait_in_it() {
    for shards in [1, 2, 4] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let early = Wire::plain(address);
        let options = Options {
            listeners: vec![at("plain", Security::Plain, address)],
            ..plain_options(shards)
        };
        let kept = socket.try_clone().unwrap();
        let inherited = vec![Inherited {
            listener: "plain".into(),
            socket: InheritedSocket::Tcp(socket),
        }];
        let house = House::with_sockets(options, inherited);
        Peer::login(early, "early").ping();
        let clients: Vec<_> = (0..16)
            .map(|number| Peer::login(Wire::plain(address), &format!("c{number}")))
            .collect();
        assert!(house.server.makes_progress(PATIENCE));
        drop(clients);
        assert!(house.server.drain(PATIENCE, None));
        assert!(!house.server.makes_progress(PATIENCE));
        // Whoever comes between two servers waits for the next one.
        let next = Wire::plain(address);
        drop(next);
        drop(kept);
        assert!(is_closed(address));
    }
}

#[test]
fn a_socket_that_is_not_the_listeners_own_is_refused() {
    let listeners = vec![listener("plain", Security::Plain)];
    for name in ["plain", "other"] {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let inherited = vec![Inherited {
            listener: name.into(),
            socket: InheritedSocket::Tcp(socket),
        }];
        let options = Options {
            listeners: listeners.clone(),
            ..plain_options(1)
        };
        let refused = Server::start_with(options, Vec::new(), inherited).err();
        assert!(refused.is_some(), "{name}");
    }
}

#[test]
fn several_callers_at_once_leave_the_listeners_of_one_of_them() {
    let house = house(vec![listener("a", Security::Plain)], 2);
    let mut live = Peer::login(Wire::plain(house.address("a")), "live");
    std::thread::scope(|scope| {
        for caller in 0..4 {
            let server = &house.server;
            scope.spawn(move || {
                let own = [
                    listener(&format!("{caller}-x"), Security::Plain),
                    listener(&format!("{caller}-y"), Security::Plain),
                ];
                for _ in 0..50 {
                    assert!(server.install_listeners(&own).unwrap());
                }
            });
        }
    });
    live.ping();
    let addresses = house.server.addresses();
    assert_eq!(addresses.len(), 2);
    assert_eq!(addresses[0].0[..1], addresses[1].0[..1]);
    for (name, _) in addresses {
        Peer::login(Wire::plain(house.address(&name)), &name).ping();
    }
}
