//! More connections than a listener may have.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::net::SocketAddr;

use casemate_server::{Listener, Options, Security, Server, StartError};
use peer::framed::rest;
use peer::{dial, listener, plain_options, House, Peer, Wire, PATIENCE};

fn at_most(connections_max: usize, listener: Listener) -> Listener {
    Listener {
        connections_max: Some(connections_max),
        ..listener
    }
}

/// A server with a narrow listener and a wide one.
fn house(shards: usize) -> House {
    let listeners = vec![
        at_most(5, listener("narrow", Security::Plain)),
        listener("wide", Security::Plain),
    ];
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// Goal: the limit counts for the whole broker, not for each shard, and for one listener only.
#[test]
fn a_listener_holds_no_more_than_it_may_over_all_shards() {
    for shards in [1, 2, 4] {
        let house = house(shards);
        let narrow = house.address("narrow");
        let mut peers: Vec<_> = (0..5)
            .map(|n| Peer::login(Wire::plain(narrow), &format!("c{n}")))
            .collect();
        for _ in 0..10 {
            assert!(rest(&mut dial(narrow)).is_empty());
        }
        house.wait_for(|counters| counters.shell.refused_full == 10);
        peers.iter_mut().for_each(Peer::ping);
        for n in 0..10 {
            peers.push(Peer::login(
                Wire::plain(house.address("wide")),
                &format!("w{n}"),
            ));
        }
        let (events, _) = house.server.next_events(100, PATIENCE);
        let full: Vec<_> = events
            .iter()
            .filter(|event| format!("{:?}", event.kind) == "ConnectionsFull")
            .collect();
        assert!((1..=shards).contains(&full.len()), "{events:?}");
        assert!(full
            .iter()
            .all(|it| it.listener.as_deref() == Some("narrow")));
        // A place that is left is free again.
        peers.swap_remove(0).disconnect();
        house.wait_for(|counters| counters.engine.connections_now == 14);
        Peer::login(Wire::plain(narrow), "late").ping();
    }
}

/// CVE-2020-13849: whoever holds every place of a listener without proving itself must give way.
#[test]
fn cve_2020_13849_silent_connections_of_a_listener_give_way() {
    let house = house(1);
    let narrow = house.address("narrow");
    let mut proven = Peer::login(Wire::plain(narrow), "first");
    let elsewhere: Vec<_> = (0..20).map(|_| dial(house.address("wide"))).collect();
    let silent: Vec<_> = (0..10).map(|_| dial(narrow)).collect();
    Peer::login(Wire::plain(narrow), "second").ping();
    proven.ping();
    // Only their own listener's made room.
    house.wait_for(|counters| counters.shell.evicted == 7);
    drop((silent, elsewhere));
}

#[test]
fn a_limit_is_changed_while_connections_live() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = free.local_addr().unwrap();
    drop(free);
    let at = |connections_max| {
        let mut one = at_most(connections_max, listener("one", Security::Plain));
        one.address = address.into();
        vec![one]
    };
    let house = House::open(Options {
        listeners: at(3),
        ..plain_options(2)
    });
    let mut peers: Vec<_> = (0..3)
        .map(|n| Peer::login(Wire::plain(address), &format!("c{n}")))
        .collect();
    assert!(house.server.install_listeners(&at(1)).unwrap());
    peers.iter_mut().for_each(Peer::ping);
    assert!(rest(&mut dial(address)).is_empty());
    assert!(house.server.install_listeners(&at(4)).unwrap());
    Peer::login(Wire::plain(address), "fourth").ping();
}

#[test]
fn a_limit_of_nobody_is_refused() {
    let options = Options {
        listeners: vec![at_most(0, listener("one", Security::Plain))],
        ..plain_options(1)
    };
    let outcome = Server::start(options, Vec::new());
    assert!(matches!(outcome, Err(StartError::Option { .. })));
}
