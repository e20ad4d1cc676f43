//! Tickets follow trust: what a resumed handshake proves, and when it proves nothing any more.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests"
)]

mod peer;

use std::io::{self, Write};
use std::sync::Arc;

use casemate_codec::{Packet, Reason};
use casemate_server::{ClientCertificates, Listener, Options, Security};
use peer::papers::{in_an_hour, now_unix_s, Authority, Paper};
use peer::{connect_silent, listener, plain_options, House, Peer, Wire};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

/// An authority, a device that it signed, and a server whose listeners it guards.
struct Scene {
    authority: Authority,
    paper: Paper,
    house: House,
    config: Arc<ClientConfig>,
}

impl Scene {
    fn new(version: &'static SupportedProtocolVersion, certificates: ClientCertificates) -> Scene {
        let authority = Authority::new("test");
        let paper = authority.client("device");
        let house = House::open(Options {
            listeners: vec![guarded(&authority, "tls", certificates)],
            ..plain_options(2)
        });
        let scene = Scene {
            config: authority.trusted_in(&[version], Some(&paper)),
            authority,
            paper,
            house,
        };
        scene.register(in_an_hour());
        scene
    }

    fn register(&self, not_after_unix_s: i64) {
        let account = self.paper.account("device", not_after_unix_s);
        self.house.server.install_accounts(vec![account]);
    }

    fn install(&self, listeners: &[Listener]) {
        assert!(self.house.server.install_listeners(listeners).unwrap());
    }

    /// Connects and says how: the reason, and what kind of handshake it took.
    fn knock(&self, listener: &str) -> io::Result<(Reason, HandshakeKind)> {
        let mut peer = Peer::new(Wire::tls(self.house.address(listener), &self.config));
        let bytes = peer.bytes(&Packet::Connect(connect_silent("device")));
        peer.wire.write_all(&bytes)?;
        peer.wire.flush()?;
        let bytes = peer.next()?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let reason = Reason::from_byte(bytes[3]).unwrap();
        let Wire::Tls(stream) = &peer.wire else {
            panic!("not TLS");
        };
        Ok((reason, stream.conn.handshake_kind().unwrap()))
    }

    /// Comes in, and expects it.
    fn enter(&self, listener: &str) -> HandshakeKind {
        let (reason, kind) = self.knock(listener).unwrap();
        assert_eq!(reason, Reason::Success);
        kind
    }
}

fn guarded(authority: &Authority, name: &str, certificates: ClientCertificates) -> Listener {
    listener(name, Security::Tls(authority.tls_options(certificates)))
}

fn is_full(kind: HandshakeKind) -> bool {
    kind != HandshakeKind::Resumed
}

#[test]
fn a_ticket_outlives_a_reload_that_changes_nothing_about_its_listener() {
    for version in VERSIONS {
        let authority = Authority::new("test");
        let paper = authority.client("device");
        let same = guarded(&authority, "tls", ClientCertificates::Required);
        let scene = Scene {
            house: House::open(Options {
                listeners: vec![same.clone()],
                ..plain_options(2)
            }),
            config: authority.trusted_in(&[version], Some(&paper)),
            authority,
            paper,
        };
        scene.register(in_an_hour());
        assert!(is_full(scene.enter("tls")));
        assert!(!is_full(scene.enter("tls")));
        scene.install(&[same, listener("plain", Security::Plain)]);
        assert!(!is_full(scene.enter("tls")));
    }
}

#[test]
fn the_ticket_of_a_removed_device_opens_nothing() {
    for version in VERSIONS {
        let scene = Scene::new(version, ClientCertificates::Required);
        scene.enter("tls");
        scene.house.server.install_accounts(Vec::new());
        let refused = (Reason::NotAuthorized, HandshakeKind::Resumed);
        assert_eq!(scene.knock("tls").unwrap(), refused, "{version:?}");
    }
}

#[test]
fn the_ticket_of_an_expired_certificate_opens_nothing() {
    for version in VERSIONS {
        let scene = Scene::new(version, ClientCertificates::Required);
        scene.enter("tls");
        scene.register(now_unix_s() - 1);
        let refused = (Reason::NotAuthorized, HandshakeKind::Resumed);
        assert_eq!(scene.knock("tls").unwrap(), refused, "{version:?}");
    }
}

/// Goal: a ticket that was given without a certificate does not stand in for one. Method: the same
/// client at two listeners of one server, first without a certificate.
#[test]
fn a_ticket_of_an_optional_listener_is_nothing_at_a_required_one() {
    for version in VERSIONS {
        let mut scene = Scene::new(version, ClientCertificates::Optional);
        let required = guarded(&scene.authority, "required", ClientCertificates::Required);
        let optional = guarded(&scene.authority, "tls", ClientCertificates::Optional);
        scene.install(&[optional, required]);
        // With a certificate: it is asked for again.
        scene.enter("tls");
        assert!(!is_full(scene.enter("tls")));
        assert!(is_full(scene.enter("required")), "{version:?}");
        // Without one: there is no way in.
        scene.config = scene.authority.trusted_in(&[version], None);
        let (reason, _) = scene.knock("tls").unwrap();
        assert_eq!(reason, Reason::NotAuthorized);
        assert!(scene.knock("required").is_err(), "{version:?}");
    }
}

#[test]
fn a_ticket_from_before_a_listener_required_certificates_is_nothing_after_it() {
    for version in VERSIONS {
        let mut scene = Scene::new(version, ClientCertificates::Optional);
        scene.config = scene.authority.trusted_in(&[version], None);
        assert_eq!(scene.knock("tls").unwrap().0, Reason::NotAuthorized);
        let required = guarded(&scene.authority, "tls", ClientCertificates::Required);
        scene.install(&[required]);
        assert!(scene.knock("tls").is_err(), "{version:?}");
    }
}

#[test]
fn a_ticket_from_before_a_change_of_authority_does_not_vouch() {
    for version in VERSIONS {
        let scene = Scene::new(version, ClientCertificates::Required);
        scene.enter("tls");
        // The server's own certificate stays trusted, so that nothing else can refuse.
        let mut options = scene.authority.tls_options(ClientCertificates::Required);
        options.client_ca_pem = Some(Authority::new("other").pem.into_bytes());
        let distrusting = listener("tls", Security::Tls(options.clone()));
        scene.install(&[distrusting]);
        // mosquitto#2130: the second attempt must not fare better than the first.
        for _ in 0..2 {
            assert!(scene.knock("tls").is_err(), "{version:?}");
        }
        options.client_ca_pem = Some(scene.authority.pem.clone().into_bytes());
        scene.install(&[listener("tls", Security::Tls(options))]);
        assert!(is_full(scene.enter("tls")), "{version:?}");
    }
}

#[test]
fn a_ticket_from_before_a_renewed_certificate_asks_for_a_full_handshake() {
    for version in VERSIONS {
        let scene = Scene::new(version, ClientCertificates::Required);
        scene.enter("tls");
        let renewed = guarded(&scene.authority, "tls", ClientCertificates::Required);
        scene.install(&[renewed]);
        assert!(is_full(scene.enter("tls")), "{version:?}");
    }
}
