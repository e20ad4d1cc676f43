//! CONNECT to CONNACK: proof, home shard, session; nothing of a session is touched before proof.

use std::sync::Arc;

use casemate_codec::{
    encode, Connack, ConnackProperties, Disconnect, Malformed, Packet, Reason, Version,
};

use crate::acknowledge::{Gate, Stake};
use crate::alias::AliasesOut;
use crate::connection::{Connection, Flow, Phase};
use crate::door::{ConnectionId, Credentials, Effect, Grant, Millis, Parcel, Proof};
use crate::event::{EventKind, Loss};
use crate::filters::Filters;
use crate::hello::{Hello, HelloWill};
use crate::incoming::levels;
use crate::journal::{Record, Whole};
use crate::message::Draft;
use crate::outbox::Outbox;
use crate::principal::Secret;
use crate::queue::Queue;
use crate::session::{Session, SessionKey};
use crate::shard::Shard;
use crate::will::Will;

/// Longest client id that is accepted, bytes; far above the 23 that every server must take.
const CLIENT_ID_BYTES_MAX: usize = 1_024;

/// A CONNECT that somebody judges.
pub(crate) struct Pending {
    pub hello: Box<Hello>,
    /// The client owes an AUTH; nobody else has anything to say now.
    pub challenged: bool,
}

impl Shard {
    /// CONNECT has come: somebody must say who that is.
    pub(crate) fn connect_received(&mut self, slot: u32, mut hello: Box<Hello>) -> Flow {
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        connection.greet(&hello);
        let too_deep = |will: &HelloWill| levels(&will.topic) > self.settings.topic_levels_max;
        // [MQTT-3.1.3-5] [MQTT-3.1.1 3.1.3-5]
        let refused = if hello.client_id.len() > CLIENT_ID_BYTES_MAX {
            // [MQTT-3.1.3-8] [MQTT-3.1.1 3.1.3-9]
            Some(Reason::ClientIdentifierNotValid)
        } else {
            let is_refused = hello.will.as_ref().is_some_and(too_deep);
            is_refused.then_some(Reason::TopicNameInvalid)
        };
        let data = hello.proof.take().unwrap_or_else(|| Secret::new(&[]));
        let proof = hello.method.as_ref().map(|method| Proof {
            method: (&**method).into(),
            data,
            step: 0,
            again: false,
        });
        let Some(connection) = self.connection_mut(slot) else {
            return Flow::Stop;
        };
        let credentials = Box::new(Credentials {
            origin: connection.origin(),
            client_id: hello.client_id.clone(),
            username: hello.username.take(),
            password: hello.password.take(),
            proof,
            version: hello.version,
        });
        connection.phase = Phase::Judged(Box::new(Pending {
            hello,
            challenged: false,
        }));
        if let Some(reason) = refused {
            // Only now: a silent connection is not answered.
            self.refuse(slot, reason);
            return Flow::Stop;
        }
        self.effects.push(Effect::Authenticate {
            id,
            step: 0,
            credentials,
        });
        Flow::Stop
    }

    /// CONNECT does not read: answers as far as its version can be known ([MQTT-3.1.4-1],
    /// [MQTT-3.1.2-1], [MQTT-3.1.2-2], [MQTT-3.1.1 3.1.4-1], [MQTT-3.1.1 3.1.2-1],
    /// [MQTT-3.1.1 3.1.2-2]).
    pub(crate) fn connect_malformed(&mut self, slot: u32, fault: Malformed, body: &[u8]) {
        self.counters.malformed += 1;
        self.tell(slot, EventKind::Malformed { fault });
        let level = announced_level(body);
        let answer: &[u8] = match (fault, level) {
            (Malformed::ProtocolLevel { level }, _) if level < 5 => &[0x20, 2, 0, 1],
            (Malformed::ProtocolLevel { .. }, _) => &[0x20, 3, 0, 0x84, 0],
            // [MQTT-3.1.3-8] [MQTT-3.1.1 3.1.3-8]
            (Malformed::EmptyClientId, _) => &[0x20, 2, 0, 2],
            (_, Some(5)) => &[0x20, 3, 0, fault.reason() as u8, 0],
            _ => &[],
        };
        let Shard {
            connections, pool, ..
        } = self;
        if let Some(connection) = connections[slot as usize].as_deref_mut() {
            connection.window.buffer(pool).extend_from_slice(answer);
        }
        self.close_silently(slot, Loss::Refused(fault.reason()));
    }

    /// The client is proven: here is its home, or it moves there.
    pub(crate) fn granted(&mut self, slot: u32, grant: Box<Grant>) {
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        let Phase::Judged(pending) = std::mem::replace(&mut connection.phase, Phase::Silent) else {
            return;
        };
        let mut hello = pending.hello;
        if hello.client_id.is_empty() {
            // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT-3.1.1 3.1.3-6]
            hello.client_id = grant.fresh_client_id.clone();
        }
        let key = key_of(&grant, &hello);
        let home = self.sessions.home(&key, &self.place);
        if home == self.place.index {
            self.serve(slot, hello, grant, key);
            return;
        }
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        let parcel = Box::new(Parcel {
            origin: connection.origin(),
            tail: std::mem::take(&mut connection.tail),
            received_at: connection.opened_at,
            hello,
            grant,
        });
        self.connections[slot as usize] = None;
        self.counters.connections_now -= 1;
        self.counters.handed_over += 1;
        self.effects.push(Effect::HandOver {
            id,
            to: home,
            parcel,
        });
    }

    /// Takes a connection that another shard accepted.
    pub(crate) fn adopted(&mut self, id: ConnectionId, parcel: Parcel) {
        let Parcel {
            origin,
            hello,
            grant,
            tail,
            received_at,
        } = parcel;
        let mut connection = Connection::new(id, origin, self.now);
        connection.opened_at = received_at;
        connection.greet(&hello);
        connection.tail = tail;
        self.opened(id, connection);
        if self
            .connection(id.slot)
            .is_some_and(|found| matches!(found.phase, Phase::Silent))
        {
            let key = key_of(&grant, &hello);
            self.serve(id.slot, hello, grant, key);
        }
    }

    /// Attaches a proven client to its session and gates CONNACK.
    fn serve(&mut self, slot: u32, hello: Box<Hello>, grant: Box<Grant>, key: SessionKey) {
        if let Err(reason) = self.admit_session(&hello, &grant, &key) {
            if let Some(connection) = self.connection_mut(slot) {
                // A CONNECT still waits for its answer; a silent connection would get none.
                connection.phase = Phase::Judged(Box::new(Pending {
                    hello,
                    challenged: false,
                }));
            }
            self.refuse(slot, reason);
            return;
        }
        let (session, present, stake) = self.find_or_make_session(slot, &hello, &grant, key);
        let now = self.now;
        self.attach(slot, session, &hello, &grant);
        let bytes = self.connack(slot, session, &hello, &grant, present);
        let Some(bytes) = bytes else {
            // Our answer does not fit what the client allows.
            self.close_silently(slot, Loss::Refused(Reason::PacketTooLarge));
            return;
        };
        if let Some(connection) = self.connection_mut(slot) {
            connection.heard_at = now;
        }
        self.arm(slot);
        self.acknowledge(slot, stake, Gate::Connack(bytes));
        self.tell(
            slot,
            EventKind::Connected {
                session_present: present,
            },
        );
        // What the client sent behind its CONNECT.
        self.rerun(slot);
    }

    /// Limits and the will's permission, before anything is changed.
    fn admit_session(
        &mut self,
        hello: &Hello,
        grant: &Grant,
        key: &SessionKey,
    ) -> Result<(), Reason> {
        let known = self.sessions.find(key);
        let was_kept = known
            .and_then(|known| self.sessions.get(known))
            .is_some_and(|found| found.is_durable());
        if self.journal.is_ailing && (was_kept || self.expiry_of(hello) > 0) {
            // Its CONNACK would wait for the store; another node may have one that works.
            self.counters.limit_refusals += 1;
            return Err(Reason::ServerUnavailable);
        }
        if known.is_none() {
            let of_principal = self.sessions.of_principal(&grant.principal);
            let full = self.sessions.len() >= self.settings.sessions_max
                || of_principal >= self.settings.sessions_per_principal_max;
            if full {
                self.counters.limit_refusals += 1;
                self.tell_nobody(EventKind::LimitReached {
                    what: "sessions_max",
                });
                return Err(Reason::QuotaExceeded);
            }
        }
        let Some(will) = &hello.will else {
            return Ok(());
        };
        let roles = self.policy.resolve(&grant.principal.roles);
        let subject = crate::policy::Subject {
            user: &grant.principal.name,
            client: grant.client_id_bound.then_some(&*key.client_id),
            roles: &roles,
        };
        let rights = self.policy.publish(&subject, &will.topic);
        if will.topic.starts_with("$SYS/") || rights.permit(will.qos, will.retain).is_none() {
            self.counters.will_denied += 1;
            return Err(Reason::NotAuthorized);
        }
        Ok(())
    }

    /// Resumes, begins anew or takes over.
    fn find_or_make_session(
        &mut self,
        slot: u32,
        hello: &Hello,
        grant: &Grant,
        key: SessionKey,
    ) -> (u32, bool, Stake) {
        let mut stake = Stake::default();
        if let Some(known) = self.sessions.find(&key) {
            let link = self.sessions.get(known).and_then(|found| found.link);
            if let Some(other) = link.filter(|other| *other != slot) {
                // [MQTT-3.1.4-3] [MQTT-3.1.1 3.1.4-2]
                self.counters.taken_over += 1;
                self.tell(other, EventKind::TakenOver);
                self.take_over(other, known, hello.clean_start);
            }
        }
        if let Some(known) = self.sessions.find(&key) {
            let durable = self
                .sessions
                .get(known)
                .is_some_and(|found| found.is_durable());
            if durable {
                stake = self.touch_store();
            }
            if !hello.clean_start {
                // [MQTT-3.1.2-5] [MQTT-3.1.1 3.1.2-4]
                return (known, true, stake);
            }
            // [MQTT-3.1.2-4] [MQTT-3.1.4-4] [MQTT-3.1.1 3.1.2-6] [MQTT-3.1.1 3.1.4-3]
            self.end_session(known);
        }
        // [MQTT-3.1.2-6]
        let hash = self.sessions.hash(&key);
        let session = self.sessions.add(Box::new(Session {
            serial: 0,
            number: 0,
            hash,
            tenant: key.tenant,
            client_id: key.client_id,
            principal: Arc::clone(&grant.principal),
            client_id_bound: grant.client_id_bound,
            roles: self.policy.resolve(&grant.principal.roles),
            link: None,
            online: false,
            expiry_s: 0,
            ends_at: Millis::MAX,
            filters: Filters::default(),
            outbox: Outbox::default(),
            unreleased: Queue::default(),
            replays: Queue::default(),
            is_in_line: false,
            is_holding: false,
            will: None,
        }));
        self.counters.sessions_now += 1;
        stake.seq = stake.seq.max(self.ended.seq_of(hash));
        if self.expiry_of(hello) > 0 {
            stake = stake.and(self.touch_store());
        }
        (session, false, stake)
    }

    /// The session expiry that a CONNECT gets, s.
    fn expiry_of(&self, hello: &Hello) -> u32 {
        match hello.version {
            Version::V5 => hello
                .session_expiry_s
                .unwrap_or(0)
                .min(self.settings.session_expiry_s_max),
            _ if hello.clean_start => 0,
            _ => self
                .settings
                .session_expiry_s_legacy
                .min(self.settings.session_expiry_s_max),
        }
    }

    /// The keep alive in force, s ([MQTT-3.1.2-21], [MQTT-3.2.2-21], [MQTT-3.2.2-22]).
    fn keep_alive_of(&self, hello: &Hello) -> u16 {
        match (hello.keep_alive_s, self.settings.keep_alive_s_max) {
            (asked, 0) => asked,
            (0, max) => max,
            (asked, max) => asked.min(max),
        }
    }

    fn attach(&mut self, slot: u32, session: u32, hello: &Hello, grant: &Grant) {
        let will = hello
            .will
            .as_ref()
            .map(|will| self.kept_will(will, &grant.principal.tenant));
        let expiry_s = self.expiry_of(hello);
        let roles = self.policy.resolve(&grant.principal.roles);
        let keep_alive_s = self.keep_alive_of(hello);
        let principal = self.sessions.shared(&grant.principal);
        if let Some(found) = self.sessions.get_mut(session) {
            found.principal = principal;
            found.client_id_bound = grant.client_id_bound;
            found.roles = roles;
            found.link = Some(slot);
            found.online = false;
            // [MQTT-4.1.0-1] [MQTT-3.1.1 4.1.0-2]
            found.ends_at = Millis::MAX;
            found.expiry_s = expiry_s;
            // [MQTT-3.1.2-7] [MQTT-3.1.1 3.1.2-8] [MQTT-3.1.1 3.1.2-12] This CONNECT's, or none.
            // [MQTT-3.1.3-9] A will that waited for its delay is not sent any more.
            found.will = will;
            found.outbox.flights.rewind();
            if found.number == 0 && found.is_durable() && self.journal.is_kept() {
                found.number = self.journal.number();
            }
            if found.number != 0 {
                self.journal.write(&Record::Session(found.line()));
                // The line is written in any case; only what must be kept is waited for.
                self.unpersisted = true;
            }
        }
        // Its rights may differ from those under which its routes were made.
        self.touch_routes_of(session);
        let alias_max = hello.topic_alias_max.min(self.settings.topic_alias_out_max);
        let hasher = self.hasher.clone();
        let inflight_max = self.settings.inflight_max;
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        connection.phase = Phase::Serving { session };
        // [MQTT-3.3.4-9] [MQTT-4.9.0-1]
        connection.quota = u32::from(hello.receive_max.min(inflight_max).max(1));
        connection.keep_alive_ms = u32::from(keep_alive_s) * 1000;
        connection.until = grant.until.unwrap_or(Millis::MAX);
        // [MQTT-3.1.2-26] [MQTT-3.1.2-27]
        connection.aliases_out =
            (alias_max > 0).then(|| Box::new(AliasesOut::new(alias_max, hasher)));
    }

    fn kept_will(&mut self, will: &HelloWill, tenant: &u32) -> Box<Will> {
        let draft = Draft {
            tenant: *tenant,
            topic: &will.topic,
            properties: &will.properties,
            payload: &will.payload,
            qos: will.qos,
            // [MQTT-3.1.2-14] [MQTT-3.1.2-15] [MQTT-3.1.1 3.1.2-16] [MQTT-3.1.1 3.1.2-17]
            retain: will.retain,
            expires_at: 0,
            publisher: 0,
            whole: Whole::NONE,
        };
        let message = draft.keep(&mut self.scratch);
        Box::new(Will {
            message,
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_at: None,
        })
    }

    /// CONNACK with all that differs from what the client may assume ([MQTT-3.1.4-5],
    /// [MQTT-3.1.1 3.1.4-4]).
    fn connack(
        &mut self,
        slot: u32,
        session: u32,
        hello: &Hello,
        grant: &Grant,
        present: bool,
    ) -> Option<Box<[u8]>> {
        let found = self.sessions.get(session)?;
        let connection = self.connection(slot)?;
        let keep_alive_s = self.keep_alive_of(hello);
        let asked_expiry_s = hello.session_expiry_s.unwrap_or(0);
        let settings = &self.settings;
        let information = &*settings.response_information;
        let properties = ConnackProperties {
            session_expiry_s: (found.expiry_s != asked_expiry_s).then_some(found.expiry_s),
            receive_max: std::num::NonZeroU16::new(settings.receive_max),
            packet_bytes_max: std::num::NonZeroU32::new(settings.packet_bytes_max),
            assigned_client_id: hello.id_assigned.then_some(&*hello.client_id),
            topic_alias_max: Some(settings.topic_alias_max),
            server_keep_alive_s: (keep_alive_s != hello.keep_alive_s).then_some(keep_alive_s),
            // [MQTT-3.1.2-28]
            response_information: (hello.wants_response_information && !information.is_empty())
                .then_some(information),
            // [MQTT-4.12.0-5] [MQTT-4.12.0-6]
            authentication_method: connection.proving.as_ref().map(|it| &*it.method),
            authentication_data: grant
                .data
                .as_deref()
                .filter(|_| connection.proving.is_some()),
            ..ConnackProperties::default()
        };
        let connack = Packet::Connack(Connack {
            // [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.1 3.2.2-1] [MQTT-3.1.1 3.2.2-2]
            // [MQTT-3.1.1 3.2.2-3]
            session_present: present,
            reason: Reason::Success,
            properties,
        });
        let mut bytes = Vec::new();
        encode(hello.version, &connack, hello.packet_bytes_max, &mut bytes).ok()?;
        Some(bytes.into())
    }

    /// CONNACK has left: what the session holds may follow.
    pub(crate) fn begin_delivery(&mut self, slot: u32) {
        let Some(session) = self.connection(slot).and_then(|found| found.session()) else {
            return;
        };
        if let Some(found) = self.sessions.get_mut(session) {
            // [MQTT-3.2.0-1] [MQTT-3.1.1 3.2.0-1] No message before this.
            found.online = true;
            for replay in found.replays.iter_mut() {
                // A question of an earlier connection may have been answered to nobody.
                replay.asked = 0;
            }
        }
        self.tell_groups(session, true);
        self.pump_later(slot);
    }

    /// DISCONNECT from the client.
    pub(crate) fn disconnect_received(&mut self, slot: u32, packet: &Disconnect<'_>) -> Flow {
        let Some(session) = self.connection(slot).and_then(|found| found.session()) else {
            return Flow::Stop;
        };
        let expiry_max = self.settings.session_expiry_s_max;
        if let Some(found) = self.sessions.get_mut(session) {
            match packet.session_expiry_s {
                // A session that was to end with its connection cannot be kept after all.
                Some(asked) if asked > 0 && found.expiry_s == 0 => {
                    self.refuse(slot, Reason::ProtocolError);
                    return Flow::Stop;
                }
                Some(asked) => found.expiry_s = asked.min(expiry_max),
                None => {}
            }
            if packet.reason == Reason::Success {
                // [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.1 3.14.4-3] [MQTT-3.1.1 3.1.2-10]
                found.will = None;
            }
        }
        self.close_silently(slot, Loss::Goodbye);
        Flow::Stop
    }
}

/// The session that a proven client means.
fn key_of(grant: &Grant, hello: &Hello) -> SessionKey {
    // [MQTT-3.1.3-2] [MQTT-3.1.1 3.1.3-2]
    SessionKey {
        tenant: grant.principal.tenant,
        realm: grant.principal.realm.clone(),
        name: grant.principal.name.clone(),
        client_id: hello.client_id.clone(),
    }
}

/// The protocol level that a CONNECT announces, if it comes so far.
fn announced_level(body: &[u8]) -> Option<u8> {
    let length = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    body.get(2 + length).copied()
}
