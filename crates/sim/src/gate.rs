//! The gate: the authenticator, which knows people by name and password.

use casemate_codec::Reason;
use casemate_engine::{Credentials, Grant, Millis, Verdict};

use crate::plan::Person;

/// The method of enhanced authentication that the gate knows.
pub const METHOD: &str = "SIM-CHALLENGE";

/// What the gate asks in the first step.
pub const QUESTION: &[u8] = b"what do you know?";

/// What a client says in its first step: in CONNECT, and when it proves itself again.
pub const BEGINNINGS: [&[u8]; 2] = [b"hello", b"again"];

/// Decides on credentials as they came, `username` being that of CONNECT.
///
/// `serial` makes a client id that was never used.
pub fn decide(
    people: &[Person],
    now: Millis,
    serial: u64,
    username: &str,
    credentials: &Credentials,
) -> Verdict {
    let refused = Verdict::Refused(Reason::BadUserNameOrPassword);
    let Some(person) = people
        .iter()
        .find(|person| *person.principal.name == *username)
    else {
        return refused;
    };
    let shown = match &credentials.proof {
        None => credentials.password.as_ref(),
        Some(proof) if &*proof.method != METHOD => {
            return Verdict::Refused(Reason::BadAuthenticationMethod);
        }
        Some(proof) if BEGINNINGS.contains(&proof.data.reveal()) => {
            return Verdict::Continue(QUESTION.into());
        }
        Some(proof) => Some(&proof.data),
    };
    match shown {
        Some(secret) if secret.reveal() == person.password => Verdict::Granted(Box::new(Grant {
            principal: person.principal.clone(),
            client_id_bound: person.client_id_bound,
            fresh_client_id: format!("fresh-{serial}").into(),
            data: credentials
                .proof
                .as_ref()
                .map(|_| Box::from(&b"welcome"[..])),
            until: person.proof_ms.map(|lasts_ms| now + lasts_ms),
        })),
        _ => refused,
    }
}
