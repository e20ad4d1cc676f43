//! What the server is for: messages over plain TCP, TLS and mutual TLS, in one shard and in many.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::Write;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use casemate_codec::{Packet, QoS, Reason, Version};
use casemate_server::{
    Address, Answer, ClientCertificates, EventKind, Options, Policy, Security, Server, StartError,
};
use peer::papers::{in_an_hour, Authority};
use peer::{
    connect, connect_silent, listener, plain_options, policy, publish, subscribe, subscription,
    House, Peer, Wire, PASSWORD, PATIENCE,
};
use rustls::ClientConfig;

/// A house with a plain and a TLS listener; TLS takes client certificates where they are shown.
fn both(shards: usize) -> (House, Arc<ClientConfig>, Arc<ClientConfig>) {
    let authority = Authority::new("test");
    let mut options = plain_options(shards);
    let tls = authority.tls_options(ClientCertificates::Optional);
    options.listeners.push(listener("tls", Security::Tls(tls)));
    let paper = authority.client("device");
    let accounts = vec![paper.account("device", in_an_hour())];
    let house = House::with_accounts(options, accounts);
    (
        house,
        authority.trusted_by(None),
        authority.trusted_by(Some(&paper)),
    )
}

#[test]
fn messages_cross_between_plain_tls_and_mutual_tls() {
    for shards in [1, 2, 4] {
        let (house, trusting, showing) = both(shards);
        let (plain, tls) = (house.address("plain"), house.address("tls"));
        let mut peers = vec![
            Peer::login(Wire::plain(plain), "plain"),
            Peer::login(Wire::tls(tls, &trusting), "tls"),
            Peer::new(Wire::tls(tls, &showing)),
        ];
        peers[2].send(&Packet::Connect(connect_silent("device")));
        assert_eq!(peers[2].connack(), Reason::Success);
        for peer in &mut peers {
            peer.subscribe("lab/+/temp", QoS::AtLeastOnce);
        }
        for sender in 0..peers.len() {
            let payload = format!("from {sender} of {shards}");
            peers[sender].publish("lab/t1/temp", payload.as_bytes());
            for peer in &mut peers {
                assert_eq!(peer.message(), payload.as_bytes());
            }
        }
        assert_eq!(house.server.counters().shell.handshakes, 2);
    }
}

#[test]
fn tls_1_2_is_served_where_it_is_allowed() {
    let authority = Authority::new("test");
    let tls = authority.tls_options(ClientCertificates::None);
    let listeners = vec![listener("tls", Security::Tls(tls))];
    let house = House::open(Options {
        listeners,
        ..plain_options(1)
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    for client_id in ["first", "resumed"] {
        let mut peer = Peer::login(Wire::tls(house.address("tls"), &config), client_id);
        peer.subscribe("a", QoS::AtMostOnce);
        let payload = vec![7; 100_000];
        peer.publish("a", &payload);
        assert_eq!(peer.message(), payload);
        peer.disconnect();
    }
    assert_eq!(house.server.counters().shell.handshakes_resumed, 1);
}

/// CONNECT, SUBSCRIBE and PUBLISH as one run of bytes.
fn pipeline(client_id: &str, silent: bool) -> Vec<u8> {
    let peerless = |packet: &Packet<'_>| {
        let mut bytes = Vec::new();
        casemate_codec::encode(Version::V5, packet, u32::MAX, &mut bytes).unwrap();
        bytes
    };
    let hello = if silent {
        connect_silent(client_id)
    } else {
        connect(client_id)
    };
    let topic = format!("echo/{client_id}");
    let lines = [subscription(&topic, QoS::AtMostOnce)];
    let mut bytes = peerless(&Packet::Connect(hello));
    bytes.extend(peerless(&Packet::Subscribe(subscribe(&lines))));
    bytes.extend(peerless(&Packet::Publish(publish(
        &topic,
        client_id.as_bytes(),
    ))));
    bytes
}

/// What the pipeline is answered with: a SUBACK, which may come after the first messages where
/// shards must agree on it, and this many messages in order. Returns the messages after the first.
fn expect_echo(peer: &mut Peer, client_id: &str, messages: usize) -> Vec<Vec<u8>> {
    assert_eq!(peer.connack(), Reason::Success);
    let mut received = Vec::new();
    let mut acknowledged = 0;
    for _ in 0..messages + 1 {
        peer.see(|packet| match packet {
            Packet::Suback(_) => acknowledged += 1,
            Packet::Publish(publish) => received.push(publish.payload.to_vec()),
            other => panic!("{other:?}"),
        });
    }
    assert_eq!((acknowledged, received.len()), (1, messages));
    assert_eq!(received.remove(0), client_id.as_bytes());
    received
}

/// Goal: nothing is lost when a connection moves between shards, wherever the bytes are cut.
/// Method: each cut of the pipeline into two segments, with and without a password check.
fn pipelines_survive_every_cut(shards: usize, secure: bool) {
    let (house, trusting, showing) = both(shards);
    for silent in [false, true] {
        if silent && !secure {
            continue;
        }
        let length = pipeline("c-000", silent).len();
        for cut in 0..length {
            let client_id = format!("c-{cut:03}");
            let bytes = pipeline(&client_id, silent);
            let wire = match (secure, silent) {
                (false, _) => Wire::plain(house.address("plain")),
                (true, false) => Wire::tls(house.address("tls"), &trusting),
                (true, true) => Wire::tls(house.address("tls"), &showing),
            };
            let mut peer = Peer::new(wire);
            peer.wire.write_all(&bytes[..cut]).unwrap();
            peer.wire.flush().unwrap();
            if cut > 0 {
                // Long enough that the two parts are mostly read apart.
                thread::sleep(Duration::from_millis(1));
            }
            peer.wire.write_all(&bytes[cut..]).unwrap();
            peer.wire.flush().unwrap();
            expect_echo(&mut peer, &client_id, 1);
        }
    }
    let handed_over = house.server.counters().shell.handed_over;
    assert_eq!(
        handed_over > 0,
        shards > 1,
        "{handed_over} of {shards} shards"
    );
}

#[test]
fn plain_pipelines_survive_every_cut_in_1_shard() {
    pipelines_survive_every_cut(1, false);
}

#[test]
fn plain_pipelines_survive_every_cut_in_2_shards() {
    pipelines_survive_every_cut(2, false);
}

#[test]
fn plain_pipelines_survive_every_cut_in_4_shards() {
    pipelines_survive_every_cut(4, false);
}

#[test]
fn tls_pipelines_survive_every_cut_in_1_shard() {
    pipelines_survive_every_cut(1, true);
}

#[test]
fn tls_pipelines_survive_every_cut_in_2_shards() {
    pipelines_survive_every_cut(2, true);
}

#[test]
fn tls_pipelines_survive_every_cut_in_4_shards() {
    pipelines_survive_every_cut(4, true);
}

/// Goal: bytes behind CONNECT that need more than one read move along too. Method: 300 messages
/// of 1 KiB in one run with CONNECT, over TLS, so that whole records wait in the shell.
#[test]
fn a_long_pipeline_moves_whole_to_another_shard() {
    let (house, trusting, showing) = both(4);
    for turn in 0..12 {
        let silent = turn % 2 == 0;
        let config = if silent { &showing } else { &trusting };
        let client_id = format!("long-{turn}");
        let mut peer = Peer::new(Wire::tls(house.address("tls"), config));
        let mut bytes = pipeline(&client_id, silent);
        let topic = format!("echo/{client_id}");
        for number in 0..300_u32 {
            let mut payload = vec![0; 1024];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            bytes.extend(peer.bytes(&Packet::Publish(publish(&topic, &payload))));
        }
        peer.wire.write_all(&bytes).unwrap();
        peer.wire.flush().unwrap();
        let received = expect_echo(&mut peer, &client_id, 301);
        for (number, payload) in (0..300_u32).zip(received) {
            assert_eq!(payload[..4], number.to_be_bytes());
        }
    }
}

#[test]
fn a_thousand_connections_each_get_their_message() {
    for shards in [1, 2] {
        let house = House::open(plain_options(shards));
        let address = house.address("plain");
        let mut peers: Vec<_> = (0..1000)
            .map(|n| Peer::login(Wire::plain(address), &format!("many-{n}")))
            .collect();
        for (n, peer) in peers.iter_mut().enumerate() {
            peer.subscribe(&format!("to/{n}"), QoS::AtMostOnce);
        }
        house.wait_for(|counters| counters.engine.connections_now == 1000);
        let mut sender = Peer::login(Wire::plain(address), "sender");
        for n in 0..1000 {
            sender.publish(&format!("to/{n}"), format!("{n}").as_bytes());
        }
        for (n, peer) in peers.iter_mut().enumerate() {
            assert_eq!(peer.message(), format!("{n}").as_bytes());
        }
        drop(peers);
        house.wait_for(|counters| counters.engine.connections_now == 1);
    }
}

/// Goal: who does not read loses messages, the oldest first, and holds nobody up.
#[test]
fn a_slow_reader_holds_nobody_up_and_the_rest_stays_in_order() {
    for shards in [1, 2] {
        let mut options = plain_options(shards);
        options.settings.queue_messages_max = 100;
        let house = House::open(options);
        let address = house.address("plain");
        let mut slow = Peer::login(Wire::plain(address), "slow");
        slow.subscribe("flood", QoS::AtMostOnce);
        let mut quick = Peer::login(Wire::plain(address), "quick");
        quick.subscribe("flood", QoS::AtMostOnce);
        let count = 2_000_u32;
        let reader = thread::spawn(move || {
            let mut seen = 0;
            while quick.message()[..4] != (count - 1).to_be_bytes() {
                seen += 1;
            }
            seen
        });
        let mut sender = Peer::login(Wire::plain(address), "sender");
        for number in 0..count {
            let mut payload = vec![0; 32 * 1024];
            payload[..4].copy_from_slice(&number.to_be_bytes());
            sender.publish("flood", &payload);
        }
        sender.ping();
        assert!(reader.join().unwrap() > 0);
        let mut last = None;
        let mut seen = 0;
        loop {
            let payload = slow.message();
            let number = u32::from_be_bytes(payload[..4].try_into().unwrap());
            assert!(last.is_none_or(|last| last < number));
            last = Some(number);
            seen += 1;
            if number == count - 1 {
                break;
            }
        }
        assert!(seen < count, "64 MB did not fit anywhere");
        house.wait_for(|it| it.engine.dropped_oldest > 0);
    }
}

/// Goal: a stop reaches every client with its reason, even while messages are in flight.
#[test]
fn a_stop_under_load_says_good_bye_to_everybody() {
    for shards in [1, 2] {
        let (house, trusting, _) = both(shards);
        let mut peers: Vec<_> = (0..40)
            .map(|n| {
                let wire = match n % 2 {
                    0 => Wire::plain(house.address("plain")),
                    _ => Wire::tls(house.address("tls"), &trusting),
                };
                let mut peer = Peer::login(wire, &format!("c{n}"));
                peer.subscribe("load", QoS::AtMostOnce);
                peer
            })
            .collect();
        let mut sender = Peer::login(Wire::plain(house.address("plain")), "sender");
        let bytes = sender.bytes(&Packet::Publish(publish("load", &[1; 500])));
        let load = thread::spawn(move || while sender.wire.write_all(&bytes).is_ok() {});
        for peer in &mut peers {
            peer.message();
        }
        let readers: Vec<_> = peers
            .into_iter()
            .map(|mut peer| thread::spawn(move || peer.ends()))
            .collect();
        assert!(house.server.stop(PATIENCE));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Some(Reason::ServerShuttingDown));
        }
        load.join().unwrap();
        assert!(
            house.server.stop(PATIENCE),
            "a second stop finds the same end"
        );
        assert!(house
            .server
            .next_question(Duration::from_secs(60))
            .is_none());
    }
}

#[test]
fn a_stopped_server_gives_its_port_back() {
    let house = House::open(plain_options(2));
    let address = house.address("plain");
    let peer = Peer::login(Wire::plain(address), "c");
    assert!(house.server.stop(PATIENCE));
    drop(peer);
    let mut options = plain_options(2);
    options.listeners[0].address = address.into();
    let again = House::open(options);
    assert_eq!(again.address("plain"), address);
}

#[test]
fn a_wrong_password_is_refused_and_the_right_one_is_not() {
    let house = House::open(plain_options(2));
    let mut peer = Peer::new(Wire::plain(house.address("plain")));
    let mut hello = connect("c");
    hello.password = Some(b"wrong");
    peer.send(&Packet::Connect(hello));
    assert_eq!(peer.connack(), Reason::BadUserNameOrPassword);
    peer.ends();
    Peer::login(Wire::plain(house.address("plain")), "c").disconnect();
}

#[test]
fn nobody_comes_in_where_the_listener_has_no_role_for_nobody() {
    let mut options = plain_options(1);
    let mut open = listener("open", Security::Plain);
    open.anonymous_role = Some(peer::ROLE.into());
    options.listeners.push(open);
    let house = House::open(options);
    for (name, reason) in [("plain", Reason::NotAuthorized), ("open", Reason::Success)] {
        let mut peer = Peer::new(Wire::plain(house.address(name)));
        peer.send(&Packet::Connect(connect_silent("")));
        assert_eq!(peer.connack(), reason, "{name}");
    }
}

/// Goal: password checks are bounded, and one that nobody answers ends at the connect deadline.
#[test]
fn unanswered_questions_are_bounded_and_end_at_the_deadline() {
    let mut options = plain_options(1);
    options.question_max = 2;
    options.settings.connect_deadline_ms = 1_500;
    let server = Server::start(options, Vec::new()).unwrap();
    let address = server.addresses()[0].1.tcp().unwrap();
    let mut waiting: Vec<_> = (0..2)
        .map(|n| {
            let mut peer = Peer::new(Wire::plain(address));
            peer.send(&Packet::Connect(connect(&format!("c{n}"))));
            peer
        })
        .collect();
    let first = server.next_question(PATIENCE).unwrap();
    assert_eq!(first.password.reveal(), PASSWORD);
    server.next_question(PATIENCE).unwrap();
    let mut third = Peer::new(Wire::plain(address));
    third.send(&Packet::Connect(connect("c3")));
    assert_eq!(third.connack(), Reason::ServerBusy);
    for peer in &mut waiting {
        peer.ends();
    }
    let late = Answer::Grant {
        name: "alice".into(),
        roles: vec![],
        client_id_bound: false,
        until_s: None,
    };
    assert!(!server.answer(first.id, late.clone()));
    assert!(!server.answer(u64::MAX, late));
    assert_eq!(server.counters().shell.questions_now, 0);
    assert_eq!(server.counters().shell.questions_refused, 1);
}

/// Goal: an order to expel that comes while a password is being checked is not escaped.
#[test]
fn a_password_check_under_way_does_not_escape_an_expulsion() {
    for shards in [1, 4] {
        let server = Server::start(plain_options(shards), Vec::new()).unwrap();
        for turn in 0..8 {
            let mut peer = Peer::new(Wire::plain(server.addresses()[0].1.tcp().unwrap()));
            peer.send(&Packet::Connect(connect(&format!("c{turn}"))));
            let question = server.next_question(PATIENCE).unwrap();
            server.expel("alice", true);
            let answer = Answer::Grant {
                name: "alice".into(),
                roles: vec![peer::ROLE.into()],
                client_id_bound: false,
                until_s: None,
            };
            assert!(server.answer(question.id, answer));
            peer.ends();
        }
    }
}

#[test]
fn an_expelled_account_is_disconnected_and_others_stay() {
    let house = House::open(plain_options(2));
    let mut peer = Peer::login(Wire::plain(house.address("plain")), "c");
    house.server.expel("bob", true);
    peer.ping();
    house.server.expel("alice", false);
    assert_eq!(peer.ends(), Some(Reason::AdministrativeAction));
    Peer::login(Wire::plain(house.address("plain")), "c").disconnect();
}

#[test]
fn a_policy_is_in_force_when_every_shard_has_said_so() {
    let house = House::open(plain_options(4));
    assert!(house.server.wait_policy_in_force(1, PATIENCE));
    assert!(!house
        .server
        .wait_policy_in_force(2, Duration::from_millis(20)));
    let mut peer = Peer::login(Wire::plain(house.address("plain")), "c");
    peer.subscribe("a", QoS::AtMostOnce);
    house.server.install_policy(Arc::new(Policy::deny_all(2)));
    assert!(house.server.wait_policy_in_force(2, PATIENCE));
    house.server.install_policy(policy(3));
    assert!(house.server.wait_policy_in_force(3, PATIENCE));
}

#[test]
fn the_server_tells_about_itself_under_sys() {
    for shards in [1, 2] {
        let options = Options {
            sys_interval_s: 1,
            ..plain_options(shards)
        };
        let house = House::open(options);
        let mut peer = Peer::login(Wire::plain(house.address("plain")), "c");
        peer.subscribe("$SYS/broker/version", QoS::AtMostOnce);
        assert!(peer.message().starts_with(b"casemate "));
        peer.subscribe("$SYS/broker/uptime", QoS::AtMostOnce);
        let first = peer.message();
        assert_ne!(first, peer.message());
    }
}

#[test]
fn events_tell_who_came_and_who_was_refused() {
    let house = House::open(plain_options(1));
    Peer::login(Wire::plain(house.address("plain")), "c").disconnect();
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let (events, lost) = house.server.next_events(100, PATIENCE);
        assert!(!events.is_empty(), "only {kinds:?}");
        assert_eq!(lost, 0);
        for event in events {
            assert_eq!(event.listener.as_deref(), Some("plain"));
            assert!(event.address.is_some() && event.time_unix_ms > 0);
            kinds.push(event.kind);
        }
    }
    use casemate_engine::EventKind::{Connected, Disconnected};
    assert!(
        matches!(kinds[0], EventKind::Engine(Connected { .. })),
        "{kinds:?}"
    );
    assert!(
        matches!(kinds[1], EventKind::Engine(Disconnected { .. })),
        "{kinds:?}"
    );
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for shards in [1, 2] {
        let mut options = plain_options(shards);
        options.listeners[0].address = taken.local_addr().unwrap().into();
        let error = Server::start(options, Vec::new()).err().unwrap();
        assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    }
    let house = House::open(plain_options(2));
    let mut options = plain_options(2);
    options.listeners[0].address = house.address("plain").into();
    let error = Server::start(options, Vec::new()).err().unwrap();
    assert!(matches!(error, StartError::AddressInUse { .. }), "{error}");
    let mut options = plain_options(1);
    options.listeners[0].address = Address::Tcp("192.0.2.1:0".parse().unwrap());
    let error = Server::start(options, Vec::new()).err().unwrap();
    assert!(
        matches!(error, StartError::AddressNotAvailable { .. }),
        "{error}"
    );
    let mut options = plain_options(1);
    options.listeners.push(options.listeners[0].clone());
    let error = Server::start(options, Vec::new()).err().unwrap();
    assert!(matches!(error, StartError::ListenerName { .. }), "{error}");
}

#[test]
fn ipv6_is_served_like_ipv4() {
    let mut options = plain_options(2);
    options.listeners[0].address = Address::Tcp("[::1]:0".parse().unwrap());
    let server = match Server::start(options, Vec::new()) {
        // Some machines have no IPv6 at all.
        Err(StartError::AddressNotAvailable { .. } | StartError::Listen { .. }) => return,
        server => server.unwrap(),
    };
    let mut peer = Peer::new(Wire::plain(server.addresses()[0].1.tcp().unwrap()));
    peer.send(&Packet::Connect(connect_silent("c")));
    assert_eq!(peer.connack(), Reason::NotAuthorized);
}
