//! Who may connect to the lab, and what they may do there.

use std::sync::Arc;

use casemate_codec::{QoS, Reason};
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_engine::{Credentials, Grant, Principal, Verdict};

/// Grants everybody the role of their user name, and `all` to those without one; `stranger` and
/// all methods of enhanced authentication are refused.
pub fn by_name(credentials: &Credentials) -> Verdict {
    if credentials.proof.is_some() {
        return Verdict::Refused(Reason::BadAuthenticationMethod);
    }
    match credentials.username.as_deref() {
        Some("stranger") => Verdict::Refused(Reason::NotAuthorized),
        Some(name) => granted(name, name),
        None => granted("nobody", "all"),
    }
}

/// Grants one role under a name; the fresh client id is new each time.
pub fn granted(name: &str, role: &str) -> Verdict {
    use std::sync::atomic::{AtomicU64, Ordering};
    static FRESH: AtomicU64 = AtomicU64::new(0);
    let number = FRESH.fetch_add(1, Ordering::Relaxed);
    Verdict::Granted(Box::new(Grant {
        principal: Arc::new(Principal {
            tenant: 0,
            realm: "lab".into(),
            name: name.into(),
            roles: vec![role.into()],
        }),
        client_id_bound: true,
        fresh_client_id: format!("fresh-{number}").into(),
        data: None,
        until: None,
    }))
}

/// Roles: `all` may everything, `reader` only subscribes, `writer` only publishes, `plain` may
/// publish and subscribe up to QoS 1 and may not retain.
pub fn policy(epoch: u64) -> Policy {
    let rule = |operation, qos_max, retain| Rule {
        operation,
        filter: "#".into(),
        qos_max,
        retain,
        place: "lab".into(),
    };
    let publish = rule(Operation::Publish, QoS::ExactlyOnce, true);
    let subscribe = rule(Operation::Subscribe, QoS::ExactlyOnce, false);
    let plain = vec![
        rule(Operation::Publish, QoS::AtLeastOnce, false),
        rule(Operation::Subscribe, QoS::AtLeastOnce, false),
    ];
    let role = |name: &str, rules| Role {
        name: name.into(),
        rules,
    };
    let roles = vec![
        role("all", vec![publish.clone(), subscribe.clone()]),
        role("reader", vec![subscribe]),
        role("writer", vec![publish]),
        role("plain", plain),
    ];
    Policy::compile(epoch, roles).expect("the lab's policy compiles")
}
