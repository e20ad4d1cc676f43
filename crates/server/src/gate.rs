//! Who is this? Decides what needs no look-up, and asks the caller for the rest.
//!
//! A verified client certificate decides alone, then a user name with a password, then the
//! listener's role for those who prove nothing. Whatever is not granted is refused.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use casemate_codec::Reason;
use casemate_engine::{Credentials, Grant, PeerCertificate, Principal, Verdict};

use crate::clock::{wall_unix_s, Clock};
use crate::entrance::Entrance;
use crate::inside::Insider;
use crate::options::Account;
use crate::question::{Answer, Question};
use crate::random;

/// The realm of names that the operator gave.
pub(crate) const ACCOUNT_REALM: &str = "account";

/// The realm of clients that proved nothing.
const ANONYMOUS_REALM: &str = "anonymous";

/// The realm of programs of this process: no account has their sessions.
const INSIDE_REALM: &str = "inside";

/// What is decided at once, or must be asked.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Decided.
    Settled(Verdict),
    /// Granted for the certificate of this account.
    Certified(Verdict, Arc<Account>),
    /// Granted to a program of this process.
    Vouched(Verdict),
    /// Somebody must check the password.
    Ask(Box<Question>),
}

/// The accounts of one moment.
#[derive(Default)]
pub(crate) struct Accounts {
    by_fingerprint: HashMap<[u8; 32], Arc<Account>>,
}

impl Accounts {
    /// A fingerprint that two accounts claim belongs to neither.
    pub fn new(accounts: Vec<Account>) -> Accounts {
        let mut by_fingerprint: HashMap<[u8; 32], Arc<Account>> = HashMap::new();
        let mut disputed = Vec::new();
        for account in accounts {
            let fingerprint = account.fingerprint;
            if let Some(other) = by_fingerprint.insert(fingerprint, Arc::new(account)) {
                if *other != *by_fingerprint[&fingerprint] {
                    disputed.push(fingerprint);
                }
            }
        }
        for fingerprint in disputed {
            by_fingerprint.remove(&fingerprint);
        }
        Accounts { by_fingerprint }
    }

    /// The account of a certificate, unless its time is over.
    fn find(&self, certificate: &PeerCertificate) -> Option<&Arc<Account>> {
        let account = self.by_fingerprint.get(&certificate.fingerprint)?;
        is_in_time(account).then_some(account)
    }

    /// True where this account still stands as it was, and in time.
    pub fn hold(&self, account: &Account) -> bool {
        let now = self.by_fingerprint.get(&account.fingerprint);
        now.is_some_and(|now| **now == *account) && is_in_time(account)
    }

    /// Names that have an account here and none in `next`.
    pub fn names_gone(&self, next: &Accounts) -> Vec<String> {
        let names = |accounts: &Accounts| -> std::collections::HashSet<String> {
            accounts
                .by_fingerprint
                .values()
                .map(|account| account.name.clone())
                .collect()
        };
        names(self).difference(&names(next)).cloned().collect()
    }
}

fn is_in_time(account: &Account) -> bool {
    u64::try_from(account.not_after_unix_s).is_ok_and(|end| wall_unix_s() < end)
}

/// Decides who comes in.
pub(crate) struct Gate {
    accounts: ArcSwap<Accounts>,
    clock: Clock,
}

impl Gate {
    /// Starts with these accounts.
    pub fn new(accounts: Vec<Account>, clock: Clock) -> Gate {
        Gate {
            accounts: ArcSwap::from_pointee(Accounts::new(accounts)),
            clock,
        }
    }

    /// Replaces the accounts and returns the former ones.
    pub fn install(&self, accounts: Vec<Account>) -> Arc<Accounts> {
        self.accounts.swap(Arc::new(Accounts::new(accounts)))
    }

    /// The accounts of this moment.
    pub fn accounts(&self) -> Arc<Accounts> {
        self.accounts.load_full()
    }

    /// Decides on the credentials of one CONNECT, or of one AUTH after it.
    ///
    /// A resumed TLS session brings the certificate of its first handshake without verifying it
    /// again, so the account is looked up at each CONNECT.
    pub fn decide(&self, credentials: &Credentials, entrance: &Entrance) -> Decision {
        if let Some(insider) = &entrance.insider {
            return vouch(insider);
        }
        // No method of enhanced authentication is known yet.
        if credentials.proof.is_some() {
            return refuse(Reason::BadAuthenticationMethod);
        }
        if let Some(certificate) = &credentials.origin.certificate {
            return self.decide_certificate(credentials, certificate);
        }
        match (credentials.username.as_deref(), &credentials.password) {
            (Some(username), Some(password))
                if !username.is_empty() && !password.reveal().is_empty() =>
            {
                Decision::Ask(Box::new(Question {
                    id: 0,
                    listener: entrance.name.to_string(),
                    address: credentials.origin.address,
                    client_id: credentials.client_id.to_string(),
                    username: username.to_owned(),
                    password: password.clone(),
                    version: credentials.version,
                }))
            }
            // CVE-2016-9877: half a proof is none, and not the same as nothing either: who names
            // itself must not come in as nobody.
            (Some(_), _) | (None, Some(_)) => refuse(Reason::BadUserNameOrPassword),
            (None, None) => decide_anonymous(entrance),
        }
    }

    /// What the user name claims is ignored: the certificate has said who it is.
    fn decide_certificate(
        &self,
        credentials: &Credentials,
        certificate: &PeerCertificate,
    ) -> Decision {
        let accounts = self.accounts.load();
        let Some(account) = accounts.find(certificate) else {
            return refuse(Reason::NotAuthorized);
        };
        let end_unix_s = u64::try_from(account.not_after_unix_s).unwrap_or(0);
        let Some(until) = self.clock.at_unix_s(end_unix_s) else {
            return refuse(Reason::NotAuthorized);
        };
        let principal = Principal {
            tenant: 0,
            realm: ACCOUNT_REALM.into(),
            name: account.name.as_str().into(),
            roles: account
                .roles
                .iter()
                .map(|role| role.as_str().into())
                .collect(),
        };
        let bound = *credentials.client_id == *account.name;
        let verdict = grant(principal, bound, Some(until));
        Decision::Certified(verdict, Arc::clone(account))
    }

    /// Turns the answer to a question into the engine's words.
    pub fn verdict(&self, answer: Answer) -> Verdict {
        match answer {
            Answer::Refuse { reason } if reason.is_refusal() => Verdict::Refused(reason),
            // A refusal with a reason that means success is still a refusal.
            Answer::Refuse { .. } => Verdict::Refused(Reason::NotAuthorized),
            Answer::Grant {
                name,
                roles,
                client_id_bound,
                until_s,
            } => {
                let until = match until_s {
                    None => None,
                    Some(end_unix_s) => match self.clock.at_unix_s(end_unix_s) {
                        Some(until) => Some(until),
                        None => return Verdict::Refused(Reason::NotAuthorized),
                    },
                };
                let principal = Principal {
                    tenant: 0,
                    realm: ACCOUNT_REALM.into(),
                    name: name.into(),
                    roles: roles.into_iter().map(Into::into).collect(),
                };
                grant(principal, client_id_bound, until)
            }
        }
    }
}

/// A name that cannot be guessed keeps one anonymous client from another's session.
fn decide_anonymous(entrance: &Entrance) -> Decision {
    let Some(role) = &entrance.anonymous_role else {
        return refuse(Reason::NotAuthorized);
    };
    let Ok(name) = random::name() else {
        return refuse(Reason::ServerUnavailable);
    };
    let realm = ANONYMOUS_REALM.into();
    let principal = Principal {
        tenant: 0,
        realm,
        name,
        roles: vec![role.clone()],
    };
    Decision::Settled(grant(principal, false, None))
}

/// Whoever made this way in holds the server, and says who comes by it.
fn vouch(insider: &Insider) -> Decision {
    let principal = Principal {
        tenant: 0,
        realm: INSIDE_REALM.into(),
        name: insider.name.as_str().into(),
        roles: insider
            .roles
            .iter()
            .map(|role| role.as_str().into())
            .collect(),
    };
    Decision::Vouched(grant(principal, true, None))
}

fn grant(principal: Principal, client_id_bound: bool, until: Option<u64>) -> Verdict {
    let Ok(fresh_client_id) = random::name() else {
        return Verdict::Refused(Reason::ServerUnavailable);
    };
    let principal = Arc::new(principal);
    Verdict::Granted(Box::new(Grant {
        principal,
        client_id_bound,
        fresh_client_id,
        data: None,
        until,
    }))
}

fn refuse(reason: Reason) -> Decision {
    Decision::Settled(Verdict::Refused(reason))
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
