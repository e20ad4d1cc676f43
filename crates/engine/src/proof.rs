//! Proof: the verdict on a CONNECT, and the exchange of AUTH packets (MQTT 5.0 §4.12).

use casemate_codec::{encode, Auth, Packet, Reason, UserProperties, Version};

use crate::connection::{Flow, Phase};
use crate::door::{ConnectionId, Credentials, Effect, Proof, Verdict};
use crate::event::EventKind;
use crate::principal::Secret;
use crate::shard::Shard;

impl Shard {
    /// The answer to [`Effect::Authenticate`].
    pub(crate) fn decided(&mut self, id: ConnectionId, step: u32, verdict: Verdict) {
        let Some(slot) = self.slot_of(id) else { return };
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if connection.proof_step != step {
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
        if connection.method.is_none() {
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
        let method = connection.method.clone();
        let auth = Packet::Auth(Auth {
            reason,
            method: method.as_deref(),
            data,
            reason_string: None,
            user: UserProperties::default(),
        });
        let max = connection.packet_bytes_max;
        let out = connection.window.buffer(pool);
        if encode(Version::V5, &auth, max, out).is_err() {
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
        let same_method = match (auth.method, &connection.method) {
            (Some(method), Some(known)) => *method == **known,
            _ => false,
        };
        let expected = match &mut connection.phase {
            Phase::Judged(pending) => {
                std::mem::take(&mut pending.challenged)
                    && auth.reason == Reason::ContinueAuthentication
            }
            Phase::Serving { .. } if connection.reproving => {
                auth.reason == Reason::ContinueAuthentication
            }
            Phase::Serving { .. } => auth.reason == Reason::Reauthenticate,
            Phase::Silent | Phase::Closing => false,
        };
        if !same_method || !expected {
            self.refuse(slot, Reason::ProtocolError);
            return Flow::Stop;
        }
        let again = matches!(connection.phase, Phase::Serving { .. });
        connection.reproving = again;
        connection.proof_step += 1;
        let step = connection.proof_step;
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
        let method = connection.method.as_deref().unwrap_or_default().into();
        let data = Secret::new(auth.data.unwrap_or_default());
        let credentials = Box::new(Credentials {
            origin: connection.origin.clone(),
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
        if !connection.reproving {
            return;
        }
        let Some(session) = connection.session() else {
            return;
        };
        match verdict {
            Verdict::Continue(data) => {
                self.write_auth(slot, Reason::ContinueAuthentication, Some(&data));
            }
            Verdict::Granted(grant) => {
                connection.reproving = false;
                connection.until = grant.until;
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
