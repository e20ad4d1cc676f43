//! Who is proven is let in only where the program that wants to be asked says so.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use casemate_codec::{Connect, Packet, QoS, Reason};
use casemate_engine::Settings;
use casemate_server::{
    Admission, ClientCertificates, Insider, Listener, Options, ProvenBy, Security, Server,
};
use peer::papers::{in_an_hour, Authority};
use peer::{connect, connect_silent, listener, plain_options, House, Peer, Wire, PATIENCE, ROLE};

fn consulted(options: Options) -> House {
    House::open(Options {
        is_consulted: true,
        ..options
    })
}

fn knock(house: &House, hello: Connect<'_>) -> Peer {
    let mut peer = Peer::new(Wire::plain(house.address("plain")));
    peer.send(&Packet::Connect(hello));
    peer
}

fn next(server: &Server) -> Admission {
    server.next_admission(PATIENCE).unwrap()
}

/// Goal: nothing of a client is in the broker before the program has said yes. Method: a client
/// that sends everything in one go, in every number of shards.
#[test]
fn who_is_proven_waits_until_it_is_let_in() {
    for shards in [1, 2, 4] {
        let house = consulted(plain_options(shards));
        for turn in 0..8 {
            let name = format!("c{turn}");
            let mut peer = knock(&house, connect(&name));
            let admission = next(&house.server);
            assert_eq!(admission.client_id, name);
            assert_eq!(admission.name, peer::USER);
            assert_eq!(admission.roles, [ROLE]);
            assert_eq!(admission.listener, "plain");
            assert_eq!(admission.proven_by, ProvenBy::Password);
            assert_eq!(admission.version as u8, 5);
            assert!(admission.address.unwrap().ip().is_loopback());
            assert_eq!(house.server.counters().shell.admissions_now, 1);
            assert_eq!(house.server.counters().engine.sessions_now, 0);
            assert!(house.server.settle_admission(admission.id, None));
            assert_eq!(peer.connack(), Reason::Success);
            peer.subscribe("a", QoS::AtLeastOnce);
            peer.disconnect();
            house.wait_for(|it| it.engine.sessions_now == 0);
        }
        assert_eq!(house.server.counters().shell.admissions, 8);
    }
}

#[test]
fn who_is_turned_away_hears_why_and_leaves_nothing() {
    let house = consulted(plain_options(2));
    for (said, heard) in [
        (Reason::Banned, Reason::Banned),
        (Reason::NotAuthorized, Reason::NotAuthorized),
        // A refusal with a reason that means success is still a refusal.
        (Reason::Success, Reason::NotAuthorized),
    ] {
        let mut peer = knock(&house, connect("c"));
        let admission = next(&house.server);
        assert!(house.server.settle_admission(admission.id, Some(said)));
        assert!(!house.server.settle_admission(admission.id, None));
        assert_eq!(peer.connack(), heard);
        peer.ends();
    }
    // A shard publishes its counters at the end of a turn, so after the client has heard.
    house.wait_for(|it| it.engine.authentication_refused == 3);
    assert_eq!(house.server.counters().engine.sessions_now, 0);
}

#[test]
fn who_proves_nobody_is_refused_unasked() {
    let house = consulted(plain_options(1));
    let mut hello = connect("c");
    hello.password = Some(b"wrong");
    let mut peer = knock(&house, hello);
    assert_eq!(peer.connack(), Reason::BadUserNameOrPassword);
    assert_eq!(house.server.counters().shell.admissions, 0);
    assert!(house.server.next_admission(Duration::ZERO).is_none());
}

/// Goal: each kind of proof is asked about, and says of which kind it is; programs inside are not.
#[test]
fn every_way_in_from_outside_is_asked_about() {
    let authority = Authority::new("devices");
    let device = authority.client("t7");
    let required = authority.tls_options(ClientCertificates::Required);
    let mut open = listener("open", Security::Plain);
    open.anonymous_role = Some(ROLE.into());
    let options = Options {
        listeners: vec![listener("tls", Security::Tls(required)), open],
        ..plain_options(2)
    };
    let house = House::with_accounts(options, vec![device.account("t7", in_an_hour())]);
    house.server.consult(true);

    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(Some(&device)));
    let mut peer = Peer::new(wire);
    peer.send(&Packet::Connect(connect_silent("t7")));
    let admission = next(&house.server);
    assert_eq!(admission.proven_by, ProvenBy::Certificate);
    assert_eq!((&*admission.name, &*admission.listener), ("t7", "tls"));
    house.server.settle_admission(admission.id, None);
    assert_eq!(peer.connack(), Reason::Success);

    let mut peer = Peer::new(Wire::plain(house.address("open")));
    peer.send(&Packet::Connect(connect_silent("")));
    let admission = next(&house.server);
    assert_eq!(admission.proven_by, ProvenBy::Nothing);
    assert_eq!(admission.client_id, "");
    house.server.settle_admission(admission.id, None);
    assert_eq!(peer.connack(), Reason::Success);

    let roles = vec![ROLE.into()];
    let name = "program".into();
    assert!(house.server.enter(Insider { name, roles }).is_ok());
    assert_eq!(house.server.counters().shell.admissions, 2);
}

/// Goal: a program that does not answer lets nobody in, and holds no more than it may.
#[test]
fn those_who_wait_are_bounded_and_end_at_the_connect_deadline() {
    let house = consulted(Options {
        admissions_max: 2,
        settings: Settings {
            connect_deadline_ms: 1_500,
            ..Settings::default()
        },
        ..plain_options(1)
    });
    let mut waiting = ["a", "b"].map(|name| knock(&house, connect(name)));
    let first = next(&house.server);
    next(&house.server);
    let mut third = knock(&house, connect("c"));
    assert_eq!(third.connack(), Reason::ServerBusy);
    for peer in &mut waiting {
        assert_ne!(peer.ends(), Some(Reason::Success));
    }
    assert!(!house.server.settle_admission(first.id, None), "too late");
    let counted = house.server.counters().shell;
    assert_eq!((counted.admissions_now, counted.admissions_refused), (0, 1));
}

#[test]
fn who_leaves_while_it_waits_is_forgotten() {
    let house = consulted(plain_options(2));
    for turn in 0..100 {
        let peer = knock(&house, connect(&format!("c{turn}")));
        house.wait_for(|it| it.shell.admissions_now == 1);
        drop(peer);
        house.wait_for(|it| it.shell.admissions_now == 0);
    }
    assert!(house.server.next_admission(Duration::ZERO).is_none());
}

/// Goal: what happened to an account while its client waited is not escaped.
#[test]
fn waiting_does_not_escape_an_expulsion_or_the_end_of_an_account() {
    for shards in [1, 4] {
        let house = consulted(plain_options(shards));
        for turn in 0..8 {
            let mut peer = knock(&house, connect(&format!("c{turn}")));
            let admission = next(&house.server);
            house.server.expel(peer::USER, true);
            house.server.settle_admission(admission.id, None);
            peer.ends();
        }
    }
    let authority = Authority::new("devices");
    let device = authority.client("t7");
    let required = authority.tls_options(ClientCertificates::Required);
    let options = Options {
        listeners: vec![Listener::new(
            "tls",
            std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            Security::Tls(required),
        )],
        ..plain_options(2)
    };
    let house = House::with_accounts(options, vec![device.account("t7", in_an_hour())]);
    house.server.consult(true);
    let wire = Wire::tls(house.address("tls"), &authority.trusted_by(Some(&device)));
    let mut peer = Peer::new(wire);
    peer.send(&Packet::Connect(connect_silent("t7")));
    let admission = next(&house.server);
    house.server.install_accounts(Vec::new());
    house.server.settle_admission(admission.id, None);
    assert!(peer.ends() != Some(Reason::Success));
    assert_eq!(house.server.counters().engine.sessions_now, 0);
}

#[test]
fn nobody_is_asked_any_more_where_that_is_over() {
    let house = consulted(plain_options(1));
    let mut first = knock(&house, connect("a"));
    let admission = next(&house.server);
    house.server.consult(false);
    assert!(house.server.settle_admission(admission.id, None));
    assert_eq!(first.connack(), Reason::Success);
    Peer::login(Wire::plain(house.address("plain")), "b").disconnect();
}

#[test]
fn the_end_of_the_server_ends_who_waits_on_either_side() {
    let house = consulted(plain_options(2));
    let mut peer = knock(&house, connect("a"));
    next(&house.server);
    let server = Arc::clone(&house.server);
    let waiting = thread::spawn(move || server.next_admission(Duration::from_secs(3600)).is_none());
    house.server.stop(PATIENCE);
    assert!(waiting.join().unwrap());
    peer.ends();
}
