//! Who comes in over TLS: certificates, accounts, revocation, tickets, and material that is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_codec::{Packet, Reason};
use casemate_server::{ClientCertificates, Options, Security, Server, StartError, TlsOptions};
use peer::framed::with_websocket;
use peer::papers::{in_an_hour, now_unix_s, Authority, Paper};
use peer::{connect_silent, listener, plain_options, House, Peer, Wire};
use rustls::{ClientConfig, HandshakeKind};

/// Everything that stands on TLS asks for the same proof (mosquitto#996 asked on one kind only).
const KINDS: [&str; 2] = ["tls", "wss"];

fn tls_house(authority: &Authority, certificates: ClientCertificates, shards: usize) -> House {
    let tls = || Security::Tls(authority.tls_options(certificates));
    let listeners = vec![
        listener("tls", tls()),
        with_websocket(listener("wss", tls()), &[]),
    ];
    House::open(Options {
        listeners,
        ..plain_options(shards)
    })
}

/// A wire to a listener of this kind, as far as TLS lets it come.
fn reach(house: &House, kind: &str, config: &Arc<ClientConfig>) -> io::Result<Wire> {
    let wire = Wire::tls(house.address(kind), config);
    match kind {
        "wss" => wire.try_upgrade(),
        _ => Ok(wire),
    }
}

/// Connects with a certificate; the reason of the CONNACK, or `None` where TLS refuses.
fn knock(house: &House, kind: &str, config: &Arc<ClientConfig>) -> Option<Reason> {
    let mut peer = Peer::new(reach(house, kind, config).ok()?);
    let bytes = peer.bytes(&Packet::Connect(connect_silent("device")));
    peer.wire.write_all(&bytes).ok()?;
    peer.wire.flush().ok()?;
    let bytes = peer.next().ok()??;
    Some(match bytes[3] {
        0 => Reason::Success,
        0x87 => Reason::NotAuthorized,
        code => panic!("CONNACK {code:#x}"),
    })
}

#[test]
fn a_required_certificate_is_required() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 2);
        let paper = authority.client("device");
        house
            .server
            .install_accounts(vec![paper.account("device", in_an_hour())]);
        assert_eq!(knock(&house, kind, &authority.trusted_by(None)), None);
        let config = authority.trusted_by(Some(&paper));
        assert_eq!(knock(&house, kind, &config), Some(Reason::Success));
        house.wait_for(|counters| counters.shell.handshake_failures == 1);
    }
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    for kind in KINDS {
        let (authority, stranger) = (Authority::new("test"), Authority::new("test"));
        for certificates in [ClientCertificates::Optional, ClientCertificates::Required] {
            let house = tls_house(&authority, certificates, 1);
            let paper = stranger.client("device");
            // Even an account does not help a certificate that nobody vouches for.
            house
                .server
                .install_accounts(vec![paper.account("device", in_an_hour())]);
            let config = authority.trusted_by(Some(&paper));
            // Trying again helps nobody (mosquitto#2130 let the second one through).
            for attempt in 1..=3 {
                assert_eq!(knock(&house, kind, &config), None);
                house.wait_for(|counters| counters.shell.handshake_failures == attempt);
            }
        }
    }
}

#[test]
fn a_server_certificate_does_not_pass_as_a_clients() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 1);
        let paper = authority.server();
        house
            .server
            .install_accounts(vec![paper.account("device", in_an_hour())]);
        assert_eq!(
            knock(&house, kind, &authority.trusted_by(Some(&paper))),
            None
        );
    }
}

#[test]
fn an_unregistered_certificate_is_refused_by_mqtt() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 2);
        let config = authority.trusted_by(Some(&authority.client("device")));
        assert_eq!(knock(&house, kind, &config), Some(Reason::NotAuthorized));
    }
}

/// Lets a device in and keeps its connection.
fn enter(house: &House, kind: &str, config: &Arc<ClientConfig>, client_id: &str) -> Peer {
    let mut peer = Peer::new(reach(house, kind, config).unwrap());
    peer.send(&Packet::Connect(connect_silent(client_id)));
    assert_eq!(peer.connack(), Reason::Success);
    peer
}

fn handshake_kind(wire: &Wire) -> HandshakeKind {
    match wire {
        Wire::WebSocket(framed) => handshake_kind(&framed.wire),
        Wire::Tls(stream) => stream.conn.handshake_kind().unwrap(),
        _ => panic!("not TLS"),
    }
}

/// Goal: revocation ends the live connection and is not undone by a ticket.
#[test]
fn a_revoked_account_is_closed_and_its_ticket_opens_nothing() {
    for kind in KINDS {
        for shards in [1, 2] {
            let authority = Authority::new("test");
            let house = tls_house(&authority, ClientCertificates::Required, shards);
            let (paper, other) = (authority.client("device"), authority.client("other"));
            let accounts = vec![
                paper.account("device", in_an_hour()),
                other.account("other", in_an_hour()),
            ];
            house.server.install_accounts(accounts.clone());
            let config = authority.trusted_by(Some(&paper));
            let mut live = enter(&house, kind, &config, "device");
            let mut bystander = enter(&house, kind, &authority.trusted_by(Some(&other)), "other");
            live.ping();
            house.server.install_accounts(vec![accounts[1].clone()]);
            live.ends();
            bystander.ping();
            let mut again = Peer::new(reach(&house, kind, &config).unwrap());
            again.send(&Packet::Connect(connect_silent("device")));
            assert_eq!(again.connack(), Reason::NotAuthorized);
            assert_eq!(handshake_kind(&again.wire), HandshakeKind::Resumed);
            house.server.install_accounts(accounts);
            enter(&house, kind, &config, "device").ping();
        }
    }
}

/// Goal: one certificate of an account is revoked; the connections of its others stay.
#[test]
fn only_the_revoked_certificate_of_an_account_is_closed() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 2);
        let papers = [authority.client("old"), authority.client("new")];
        let accounts: Vec<_> = papers
            .iter()
            .map(|paper| paper.account("device", in_an_hour()))
            .collect();
        house.server.install_accounts(accounts.clone());
        let config = |paper: &Paper| authority.trusted_by(Some(paper));
        let mut old = enter(&house, kind, &config(&papers[0]), "a");
        let mut new = enter(&house, kind, &config(&papers[1]), "b");
        house.server.install_accounts(vec![accounts[1].clone()]);
        old.ends();
        new.ping();
        house.wait_for(|counters| counters.shell.accounts_gone == 1);
    }
}

#[test]
fn an_account_whose_roles_change_must_come_in_anew() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 1);
        let paper = authority.client("device");
        let mut account = paper.account("device", in_an_hour());
        house.server.install_accounts(vec![account.clone()]);
        let mut peer = enter(&house, kind, &authority.trusted_by(Some(&paper)), "device");
        account.roles.clear();
        house.server.install_accounts(vec![account]);
        peer.ends();
    }
}

#[test]
fn an_expired_account_is_refused_and_a_live_one_ends_at_its_time() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Required, 2);
        let paper = authority.client("device");
        let config = authority.trusted_by(Some(&paper));
        house
            .server
            .install_accounts(vec![paper.account("device", now_unix_s() - 1)]);
        assert_eq!(knock(&house, kind, &config), Some(Reason::NotAuthorized));
        house
            .server
            .install_accounts(vec![paper.account("device", now_unix_s() + 3)]);
        let mut peer = enter(&house, kind, &config, "device");
        let began = Instant::now();
        peer.ends();
        assert!(began.elapsed() < Duration::from_secs(10));
        assert_eq!(knock(&house, kind, &config), Some(Reason::NotAuthorized));
    }
}

#[test]
fn an_optional_certificate_leaves_passwords_to_those_who_show_none() {
    for kind in KINDS {
        let authority = Authority::new("test");
        let house = tls_house(&authority, ClientCertificates::Optional, 1);
        let wire = reach(&house, kind, &authority.trusted_by(None)).unwrap();
        Peer::login(wire, "c").disconnect();
    }
}

fn start(tls: TlsOptions) -> StartError {
    let listeners = vec![listener("tls", Security::Tls(tls))];
    Server::start(
        Options {
            listeners,
            ..plain_options(1)
        },
        Vec::new(),
    )
    .err()
    .unwrap()
}

#[test]
fn material_that_cannot_be_used_is_refused_by_name() {
    let authority = Authority::new("test");
    let good = || authority.tls_options(ClientCertificates::Required);
    let garbage = || b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let mut tls = good();
    tls.key_pem = authority.server().key_pem.into_bytes();
    assert!(matches!(start(tls), StartError::KeyMismatch { .. }));
    for pem in [Vec::new(), b"nothing".to_vec(), garbage()] {
        let mut tls = good();
        tls.certificate_pem = pem.clone();
        assert!(matches!(start(tls), StartError::Certificate { .. }));
        let mut tls = good();
        tls.key_pem = pem.clone();
        assert!(matches!(start(tls), StartError::Key { .. }));
        let mut tls = good();
        tls.client_ca_pem = Some(pem);
        assert!(matches!(start(tls), StartError::ClientCa { .. }));
    }
    let mut tls = good();
    tls.client_ca_pem = None;
    assert!(matches!(start(tls), StartError::ClientCa { .. }));
}

/// Goal: who asks for another protocol is told so by TLS. Method: what clients offer in ALPN.
#[test]
fn a_client_that_offers_other_protocols_only_is_refused_by_tls() {
    let authority = Authority::new("test");
    let house = tls_house(&authority, ClientCertificates::None, 1);
    let table: [(&str, &[&str], bool); 10] = [
        ("tls", &[], true),
        ("tls", &["mqtt"], true),
        ("tls", &["h2", "mqtt"], true),
        ("tls", &["http/1.1"], false),
        ("tls", &["MQTT"], false),
        ("wss", &[], true),
        ("wss", &["http/1.1"], true),
        // As browsers do.
        ("wss", &["h2", "http/1.1"], true),
        ("wss", &["h2"], false),
        ("wss", &["mqtt"], false),
    ];
    for (kind, offered, welcome) in table {
        let mut config = ClientConfig::clone(&authority.trusted_by(None));
        config.alpn_protocols = offered.iter().map(|name| name.as_bytes().into()).collect();
        let wire = reach(&house, kind, &Arc::new(config));
        let outcome = wire.and_then(|mut wire| {
            wire.write_all(&[0xC0, 0])?;
            wire.flush()
        });
        assert_eq!(outcome.is_ok(), welcome, "{kind} {offered:?}");
    }
    house.wait_for(|counters| counters.shell.handshake_failures == 4);
}
