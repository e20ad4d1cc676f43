//! The gate: what comes in, what does not, and the moment between.

#![allow(clippy::unwrap_used, clippy::panic)]

use casemate_codec::Version;
use casemate_engine::{Origin, Proof, Secret};

use super::*;

fn entrance(role: Option<&str>) -> Entrance {
    Entrance {
        name: "main".into(),
        anonymous_role: role.map(Into::into),
        manner: crate::manner::Manner::default(),
        trust: 0,
        anonymity: std::num::NonZeroU32::MIN,
        is_open: true,
        insider: None,
    }
}

fn credentials() -> Credentials {
    Credentials {
        origin: Origin {
            listener: 0,
            address: None,
            certificate: None,
        },
        client_id: "".into(),
        username: None,
        password: None,
        proof: None,
        version: Version::V5,
    }
}

fn certified(client_id: &str) -> Credentials {
    let mut credentials = credentials();
    let certificate = PeerCertificate {
        fingerprint: [7; 32],
        der: vec![],
    };
    credentials.origin.certificate = Some(Arc::new(certificate));
    credentials.client_id = client_id.into();
    credentials
}

fn account(not_after_unix_s: i64) -> Account {
    let roles = vec!["sensor".to_owned()];
    Account {
        fingerprint: [7; 32],
        name: "t7".into(),
        roles,
        not_after_unix_s,
    }
}

fn in_an_hour() -> i64 {
    i64::try_from(wall_unix_s()).unwrap() + 3600
}

fn gate(accounts: Vec<Account>) -> Gate {
    Gate::new(accounts, Clock::new())
}

fn reason(decision: Decision) -> Reason {
    match decision {
        Decision::Settled(Verdict::Refused(reason)) => reason,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_registered_certificate_is_granted_its_accounts_name() {
    let gate = gate(vec![account(in_an_hour())]);
    let mut credentials = certified("t7");
    credentials.username = Some("operator".into());
    credentials.password = Some(Secret::new(b"guess"));
    match gate.decide(&credentials, &entrance(None)) {
        Decision::Certified(Verdict::Granted(grant), account) => {
            assert_eq!(
                (&*grant.principal.realm, &*grant.principal.name),
                ("account", "t7")
            );
            assert_eq!(account.name, "t7");
            assert!(grant.client_id_bound && grant.until.is_some());
            assert_eq!(grant.fresh_client_id.len(), 22);
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_the_accounts_own_name_is_a_bound_client_id() {
    let gate = gate(vec![account(in_an_hour())]);
    for client_id in ["", "t", "t77", "t7-1", "T7", "t7/"] {
        match gate.decide(&certified(client_id), &entrance(None)) {
            Decision::Certified(Verdict::Granted(grant), _) => assert!(!grant.client_id_bound),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_unknown_certificate_is_refused_even_with_a_password_and_an_anonymous_role() {
    let gate = gate(vec![]);
    let mut credentials = certified("t7");
    credentials.username = Some("t7".into());
    credentials.password = Some(Secret::new(b"right"));
    let decision = gate.decide(&credentials, &entrance(Some("guest")));
    assert_eq!(reason(decision), Reason::NotAuthorized);
}

#[test]
fn a_certificate_is_refused_from_the_second_it_expires() {
    let now = i64::try_from(wall_unix_s()).unwrap();
    for end in [i64::MIN, -1, 0, now - 1, now] {
        let gate = gate(vec![account(end)]);
        let decision = gate.decide(&certified("t7"), &entrance(None));
        assert_eq!(reason(decision), Reason::NotAuthorized, "end {end}");
    }
}

#[test]
fn a_certificate_that_two_accounts_claim_belongs_to_neither() {
    let mut other = account(in_an_hour());
    other.name = "operator".into();
    let gate = gate(vec![account(in_an_hour()), other]);
    assert_eq!(
        reason(gate.decide(&certified("t7"), &entrance(None))),
        Reason::NotAuthorized
    );
}

#[test]
fn an_account_no_longer_holds_when_anything_about_it_changes() {
    let gate = gate(vec![account(in_an_hour())]);
    let before = account(in_an_hour());
    let standing = gate.accounts().by_fingerprint[&[7; 32]].clone();
    assert!(gate.accounts().hold(&standing));
    let mut changed = before.clone();
    changed.roles.clear();
    let former = gate.install(vec![changed]);
    assert!(!gate.accounts().hold(&standing));
    assert!(former.names_gone(&gate.accounts()).is_empty());
    let former = gate.install(vec![]);
    assert_eq!(former.names_gone(&gate.accounts()), ["t7"]);
}

#[test]
fn cve_2016_9877_a_user_name_without_password_is_refused() {
    let gate = gate(vec![]);
    for password in [None, Some(Secret::new(b""))] {
        let mut credentials = credentials();
        credentials.username = Some("operator".into());
        credentials.password = password;
        let decision = gate.decide(&credentials, &entrance(Some("guest")));
        assert_eq!(reason(decision), Reason::BadUserNameOrPassword);
    }
}

#[test]
fn a_password_without_user_name_is_refused() {
    for username in [None, Some("".into())] {
        let mut credentials = credentials();
        credentials.username = username;
        credentials.password = Some(Secret::new(b"token"));
        let decision = gate(vec![]).decide(&credentials, &entrance(Some("guest")));
        assert_eq!(reason(decision), Reason::BadUserNameOrPassword);
    }
}

#[test]
fn a_user_name_with_password_is_asked_about() {
    let mut credentials = credentials();
    credentials.username = Some("operator".into());
    credentials.password = Some(Secret::new(b"guess"));
    match gate(vec![]).decide(&credentials, &entrance(None)) {
        Decision::Ask(question) => {
            assert_eq!(
                (&*question.username, &*question.listener),
                ("operator", "main")
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_comes_in_only_where_the_listener_has_a_role_for_nobody() {
    let gate = gate(vec![]);
    let decision = gate.decide(&credentials(), &entrance(None));
    assert_eq!(reason(decision), Reason::NotAuthorized);
    let name = || match gate.decide(&credentials(), &entrance(Some("guest"))) {
        Decision::Settled(Verdict::Granted(grant)) => {
            assert_eq!(&*grant.principal.realm, "anonymous");
            assert!(!grant.client_id_bound);
            grant.principal.name.clone()
        }
        other => panic!("{other:?}"),
    };
    assert_ne!(name(), name());
}

#[test]
fn an_unknown_method_of_enhanced_authentication_is_refused() {
    let gate = gate(vec![account(in_an_hour())]);
    let mut credentials = certified("t7");
    let method = "SCRAM-SHA-256".into();
    credentials.proof = Some(Proof {
        method,
        data: Secret::new(b""),
        step: 0,
        again: false,
    });
    let decision = gate.decide(&credentials, &entrance(Some("guest")));
    assert_eq!(reason(decision), Reason::BadAuthenticationMethod);
}

#[test]
fn an_answer_that_is_late_or_contradicts_itself_is_a_refusal() {
    let gate = gate(vec![]);
    let grant = |until_s| Answer::Grant {
        name: "operator".into(),
        roles: vec![],
        client_id_bound: false,
        until_s,
    };
    assert!(matches!(
        gate.verdict(grant(Some(1))),
        Verdict::Refused(Reason::NotAuthorized)
    ));
    assert!(matches!(
        gate.verdict(grant(Some(u64::MAX))),
        Verdict::Granted(_)
    ));
    assert!(matches!(gate.verdict(grant(None)), Verdict::Granted(_)));
    let refuse = Answer::Refuse {
        reason: Reason::Success,
    };
    assert!(matches!(
        gate.verdict(refuse),
        Verdict::Refused(Reason::NotAuthorized)
    ));
}
