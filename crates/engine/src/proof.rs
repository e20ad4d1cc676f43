//! Proof: the verdict on a CONNECT, and the exchange of AUTH packets (MQTT 5.0 §4.12).

use std::sync::Arc;

use casemate_codec::{encode, Auth, Packet, Reason, UserProperties, Version};

use crate::connection::{Connection, Flow, Phase};
use crate::door::{ConnectionId, Credentials, Effect, Millis, Proof, Verdict};
use crate::event::EventKind;
use crate::principal::Secret;
use crate::shard::Shard;

/// How far the enhanced authentication of a connection has come.
pub(crate) struct Proving {
    pub method: Arc<str>,
    /// Number of the last question.
    step: u32,
    /// A client that was let in proves itself anew.
    again: bool,
}

impl Proving {
    /// As CONNECT begins it.
    pub fn begin(method: &Arc<str>) -> Box<Proving> {
        Box::new(Proving {
            method: Arc::clone(method),
            step: 0,
            again: false,
        })
    }
}

impl Shard {
    /// The answer to [`Effect::Authenticate`].
    pub(crate) fn decided(&mut self, id: ConnectionId, step: u32, verdict: Verdict) {
        let Some(slot) = self.slot_of(id) else { return };
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        let asked = connection.proving.as_ref();
        if asked.map_or(0, |proving| proving.step) != step {
            return;
        }
        match (&connection.phase, verdict) {
            (Phase::Judged(_), Verdict::Granted(grant)) => self.granted(slot, grant),
            (Phase::Judged(_), Verdict::Refused(reason)) => {
                // [MQTT-3.1.4-2] [MQTT-4.12.0-1] [MQTT-4.12.0-4]
                self.counters.authentication_refused += 1;
                self.tell(slot, EventKind::AuthenticationRefused { reason });
                self.refuse(slot, reason);
            }
            (Phase::Judged(_), Verdict::Continue(data)) => self.challenge(slot, &data),
            (Phase::Serving { .. }, verdict) => self.reproof_decided(slot, verdict),
            (Phase::Silent | Phase::Closing, _) => {}
        }
    }

    /// Sends an AUTH that asks for more ([MQTT-4.12.0-2], [MQTT-4.12.0-5]).
    fn challenge(&mut self, slot: u32, data: &[u8]) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if connection.proving.is_none() {
            // [MQTT-4.12.0-6] Whoever judges asked for what the client never offered.
            self.refuse(slot, Reason::NotAuthorized);
            return;
        }
        if let Phase::Judged(pending) = &mut connection.phase {
            pending.challenged = true;
        }
        self.write_auth(slot, Reason::ContinueAuthentication, Some(data));
        self.rerun_judged(slot);
    }

    fn write_auth(&mut self, slot: u32, reason: Reason, data: Option<&[u8]>) {
        let Shard {
            connections, pool, ..
        } = self;
        let Some(connection) = connections[slot as usize].as_deref_mut() else {
            return;
        };
        let Connection {
            proving,
            window,
            packet_bytes_max,
            ..
        } = connection;
        let auth = Packet::Auth(Auth {
            reason,
            method: proving.as_ref().map(|proving| &*proving.method),
            data,
            reason_string: None,
            user: UserProperties::default(),
        });
        if encode(Version::V5, &auth, *packet_bytes_max, window.buffer(pool)).is_err() {
            self.refuse(slot, Reason::PacketTooLarge);
            return;
        }
        self.mark_dirty(slot);
    }

    /// A challenged client's AUTH may already be there.
    fn rerun_judged(&mut self, slot: u32) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if !connection.tail.is_empty() {
            self.rerun(slot);
        } else {
            self.resume(slot);
        }
    }

    /// AUTH from the client: an answer to a challenge, or a new proof ([MQTT-4.12.0-3],
    /// [MQTT-4.12.0-7], [MQTT-4.12.1-1]).
    pub(crate) fn auth_received(&mut self, slot: u32, auth: &Auth<'_>) -> Flow {
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        let proving = connection.proving.as_mut();
        let Some(proving) = proving.filter(|known| auth.method == Some(&*known.method)) else {
            self.refuse(slot, Reason::ProtocolError);
            return Flow::Stop;
        };
        let expected = match &mut connection.phase {
            Phase::Judged(pending) => {
                std::mem::take(&mut pending.challenged)
                    && auth.reason == Reason::ContinueAuthentication
            }
            Phase::Serving { .. } if proving.again => auth.reason == Reason::ContinueAuthentication,
            Phase::Serving { .. } => auth.reason == Reason::Reauthenticate,
            Phase::Silent | Phase::Closing => false,
        };
        if !expected {
            self.refuse(slot, Reason::ProtocolError);
            return Flow::Stop;
        }
        let again = matches!(connection.phase, Phase::Serving { .. });
        proving.again = again;
        proving.step += 1;
        let (step, method) = (proving.step, (*proving.method).into());
        let client_id = match &connection.phase {
            Phase::Judged(pending) => pending.hello.client_id.clone(),
            Phase::Serving { session } => {
                let session = *session;
                self.sessions
                    .get(session)
                    .map_or("".into(), |found| found.client_id.clone())
            }
            Phase::Silent | Phase::Closing => "".into(),
        };
        let Some(connection) = self.connection(slot) else {
            return Flow::Stop;
        };
        let data = Secret::new(auth.data.unwrap_or_default());
        let credentials = Box::new(Credentials {
            origin: connection.origin(),
            client_id,
            username: None,
            password: None,
            proof: Some(Proof {
                method,
                data,
                step,
                again,
            }),
            version: Version::V5,
        });
        self.effects.push(Effect::Authenticate {
            id,
            step,
            credentials,
        });
        if again {
            Flow::Continue
        } else {
            Flow::Stop
        }
    }

    /// A connected client has proven itself anew, or not ([MQTT-4.12.1-2]).
    fn reproof_decided(&mut self, slot: u32, verdict: Verdict) {
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        let session = connection.session();
        let Some(proving) = connection.proving.as_mut().filter(|it| it.again) else {
            return;
        };
        let Some(session) = session else {
            return;
        };
        match verdict {
            Verdict::Continue(data) => {
                self.write_auth(slot, Reason::ContinueAuthentication, Some(&data));
            }
            Verdict::Granted(grant) => {
                proving.again = false;
                connection.until = grant.until.unwrap_or(Millis::MAX);
                let same = self.sessions.get(session).is_some_and(|found| {
                    found.principal.realm == grant.principal.realm
                        && found.principal.name == grant.principal.name
                });
                if !same {
                    self.refuse(slot, Reason::NotAuthorized);
                    return;
                }
                self.write_auth(slot, Reason::Success, grant.data.as_deref());
                self.arm(slot);
            }
            Verdict::Refused(reason) => {
                self.counters.authentication_refused += 1;
                self.refuse(slot, reason);
            }
        }
    }
}
