//! The shard: its tables, its one door, and the ends of connections and sessions.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::RandomState;
use casemate_codec::{
    encode, Connack, ConnackProperties, Disconnect, Packet, QoS, Reason, UserProperties, Version,
};
use hashbrown::HashMap;

use crate::completion::Completions;
use crate::connection::{Connection, Phase};
use crate::counters::Counters;
use crate::deliver::Shapes;
use crate::door::{ConnectionId, Effect, Input, Millis, Place};
use crate::drain::Drain;
use crate::ended::Ended;
use crate::event::{EventKind, Loss};
use crate::journal::{Checkpoint, Journal, Record, Whole};
use crate::message::{Draft, Message};
use crate::neighbour::Peer;
use crate::policy::Policy;
use crate::retained::Retained;
use crate::route::Routes;
use crate::session::{SessionRef, Sessions};
use crate::settings::Settings;
use crate::share::Groups;
use crate::subscribe::Interest;
use crate::timers::{Timer, Timers};
use crate::tree::FilterId;
use crate::will::Own;
use crate::window::{Outgoing, Pool};
use crate::wording::{connack_reason, disconnect_reason, Goodbye};

/// Announcements of the broker that may wait for room in a pipe.
const OWN_MAX: usize = 1_024;

/// One core's share of the broker.
pub struct Shard {
    pub(crate) settings: Arc<Settings>,
    pub(crate) place: Place,
    pub(crate) policy: Arc<Policy>,
    pub(crate) hasher: RandomState,
    pub(crate) now: Millis,
    pub(crate) connections: Vec<Option<Box<Connection>>>,
    pub(crate) sessions: Sessions,
    pub(crate) routes: Routes,
    pub(crate) retained: Retained<Message>,
    pub(crate) groups: Groups,
    pub(crate) peers: Vec<Peer>,
    /// Filters that the neighbours know this shard to be interested in.
    pub(crate) interest: HashMap<FilterId, Interest, RandomState>,
    /// Number of the last message to neighbours.
    pub(crate) forwarded: u64,
    /// Number of the last question to a neighbour.
    pub(crate) asked: u32,
    /// Number of the batch of changes that is open.
    pub(crate) seq: u64,
    pub(crate) persisted: u64,
    pub(crate) unpersisted: bool,
    pub(crate) journal: Journal,
    pub(crate) checkpoint: Option<Box<Checkpoint>>,
    pub(crate) completions: Completions,
    pub(crate) ended: Ended,
    /// Sessions whose next message waits until it is durable.
    pub(crate) holding: Vec<SessionRef>,
    pub(crate) timers: Timers,
    pub(crate) own: VecDeque<Own>,
    pub(crate) pool: Pool,
    /// Buffers that live only during one call.
    pub(crate) scratch: Vec<u8>,
    pub(crate) properties: Vec<u8>,
    pub(crate) shapes: Shapes,
    pub(crate) others: Vec<usize>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) dirty: Vec<ConnectionId>,
    pub(crate) to_pump: Vec<u32>,
    pub(crate) pump_next_turn: Vec<u32>,
    pub(crate) gated: Vec<u32>,
    pub(crate) blocked: Vec<u32>,
    /// The broker goes away.
    pub(crate) drain: Option<Box<Drain>>,
    pub(crate) counters: Counters,
}

impl Shard {
    /// Makes an empty shard.
    ///
    /// `place.count` is 1 to 64 and `place.index` below it; `now` is the shell's clock.
    pub fn new(settings: Arc<Settings>, place: Place, policy: Arc<Policy>, now: Millis) -> Shard {
        assert!((1..=64).contains(&place.count) && place.index < place.count);
        let [a, b, c, d] = place.seeds;
        let hasher = RandomState::with_seeds(d, a, b, c);
        Shard {
            sessions: Sessions::new(&place),
            routes: Routes::new(&place),
            retained: Retained::new(),
            groups: Groups::default(),
            peers: (0..place.count).map(|_| Peer::default()).collect(),
            interest: HashMap::with_hasher(hasher.clone()),
            journal: Journal::new(settings.journal, place.index, 0),
            ended: Ended::new(hasher.clone()),
            checkpoint: None,
            settings,
            place,
            policy,
            hasher,
            now,
            connections: Vec::new(),
            forwarded: 0,
            asked: 0,
            seq: 1,
            persisted: 0,
            unpersisted: false,
            completions: Completions::default(),
            holding: Vec::new(),
            timers: Timers::default(),
            own: VecDeque::new(),
            pool: Pool::default(),
            scratch: Vec::new(),
            properties: Vec::new(),
            shapes: Shapes::default(),
            others: Vec::new(),
            effects: Vec::new(),
            dirty: Vec::new(),
            to_pump: Vec::new(),
            pump_next_turn: Vec::new(),
            gated: Vec::new(),
            blocked: Vec::new(),
            drain: None,
            counters: Counters::default(),
        }
    }

    /// Takes one input in at the time `now`, which never goes back; appends what must be done.
    pub fn handle(&mut self, now: Millis, input: Input<'_>, effects: &mut Vec<Effect>) {
        self.now = now;
        std::mem::swap(&mut self.effects, effects);
        match input {
            Input::Received { id, bytes } => self.received(id, bytes),
            Input::Sent { id, bytes } => self.sent(id, bytes),
            Input::Opened { id, origin } => self.opened(id, Connection::new(id, origin, now)),
            Input::Closed { id, loss } => self.closed(id, loss),
            Input::Decided { id, step, verdict } => self.decided(id, step, verdict),
            Input::Adopted { id, parcel } => self.adopted(id, *parcel),
            Input::Forwarded { from, batch } => self.batch_received(from, batch),
            Input::Drained { to, bytes } => self.drained(to, bytes),
            Input::Persisted { seq } => {
                self.persisted = self.persisted.max(seq);
                self.journal.is_ailing = false;
                self.completions_durable();
                self.ended.forget(self.persisted);
                self.release_held();
                self.settle();
            }
            Input::PersistFailed { seq, records } => self.persist_failed(seq, &records),
            Input::Policy(policy) => self.obey(policy),
            Input::Expel {
                realm,
                name,
                end_sessions,
                reason,
            } => {
                self.expel(realm, name, end_sessions, reason);
            }
            Input::Announce {
                topic,
                payload,
                retain,
            } => self.announce(topic, payload, retain),
            Input::Drain { server_reference } => self.drain(server_reference),
            Input::Leave => self.leave(),
            Input::Stop { reason } => self.stop(reason),
            Input::Checkpoint => self.begin_checkpoint(),
            Input::TurnEnd => self.end_turn(),
            Input::Tick => self.tick(),
        }
        self.pump_all();
        std::mem::swap(&mut self.effects, effects);
    }

    /// What is to be written to a connection's transport; what was written is told by
    /// [`Input::Sent`].
    pub fn outgoing(&self, id: ConnectionId) -> Outgoing<'_> {
        let window = self.slot_of(id).and_then(|slot| self.connection(slot));
        Outgoing::new(window.map(|connection| &connection.window))
    }

    /// Appends the connections that have got something to write since the last call.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnectionId>) {
        for id in self.dirty.drain(..) {
            let connection = self
                .connections
                .get_mut(id.slot as usize)
                .and_then(Option::as_deref_mut);
            if let Some(connection) = connection.filter(|found| found.generation == id.generation) {
                connection.dirty = false;
                into.push(id);
            }
        }
    }

    /// When [`Input::Tick`] and [`Input::TurnEnd`] are due, if nothing else happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        // What a write has set free after the last turn's end must not wait for the next input.
        let is_open = self.unpersisted
            || !self.journal.is_empty()
            || self.is_checkpointing()
            || !self.pump_next_turn.is_empty()
            || self.has_staged();
        if is_open {
            return Some(self.now);
        }
        [self.timers.next(), self.drain_deadline()]
            .into_iter()
            .flatten()
            .min()
    }

    /// What this shard has counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    fn sent(&mut self, id: ConnectionId, bytes: usize) {
        let Some(slot) = self.slot_of(id) else { return };
        let now = self.now;
        let Shard {
            connections,
            pool,
            counters,
            ..
        } = self;
        let Some(connection) = connections[slot as usize].as_deref_mut() else {
            return;
        };
        counters.bytes_sent += bytes as u64;
        connection.window.advance(bytes, pool);
        connection.flush_asked = false;
        connection.moved_at = if connection.window.is_empty() {
            Millis::MAX
        } else {
            now
        };
        if connection.blocked {
            self.rerun(slot);
        }
        let waits = self
            .connection(slot)
            .and_then(|found| found.session())
            .is_some_and(|session| {
                self.sessions
                    .get(session)
                    .is_some_and(|found| !found.is_direct())
            });
        if waits {
            self.pump_later(slot);
        }
    }

    fn end_turn(&mut self) {
        for slot in std::mem::take(&mut self.pump_next_turn) {
            self.pump_later(slot);
        }
        self.pump_all();
        self.drain_turn();
        self.checkpoint_turn();
        self.ask_persist();
        self.forward_staged();
    }

    fn tick(&mut self) {
        while let Some((at, timer)) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Connection(id) => self.connection_due(at, id),
                Timer::Session(session) => self.session_due(session),
            }
        }
    }

    fn obey(&mut self, policy: Arc<Policy>) {
        let epoch = policy.epoch();
        if epoch < self.policy.epoch() {
            // It was overtaken on its way: the newer one holds.
            return;
        }
        for (_, session) in self.sessions.iter_mut() {
            session.roles = policy.resolve(&session.principal.roles);
        }
        self.policy = policy;
        self.routes.touch_all();
        self.effects.push(Effect::PolicyInForce { epoch });
    }

    fn expel(&mut self, realm: &str, name: &str, end_sessions: bool, reason: Reason) {
        let theirs: Vec<(u32, Option<u32>)> = self
            .sessions
            .iter_mut()
            .filter(|(_, found)| *found.principal.realm == *realm && *found.principal.name == *name)
            .map(|(slot, found)| (slot, found.link))
            .collect();
        for (session, link) in theirs {
            if let Some(link) = link {
                self.close(link, reason, Loss::Refused(reason));
            }
            if end_sessions && self.sessions.get(session).is_some() {
                self.end_session(session);
            }
        }
    }

    fn announce(&mut self, topic: &str, payload: &[u8], retain: bool) {
        if self.own.len() >= OWN_MAX {
            return;
        }
        let draft = Draft {
            tenant: 0,
            topic,
            properties: &[],
            payload,
            qos: QoS::AtMostOnce,
            retain,
            expires_at: 0,
            publisher: 0,
            whole: Whole::NONE,
        };
        self.publish_own(&draft);
    }

    fn stop(&mut self, reason: Reason) {
        for slot in 0..self.connections.len() as u32 {
            if self.connection(slot).is_none() {
                continue;
            }
            if self.is_staying() {
                self.close(slot, reason, Loss::Stopping);
            } else {
                self.say_goodbye(slot);
            }
        }
    }

    /// Tells a 5.0 client why, as far as it may be told now, and closes ([MQTT-4.13.1-1],
    /// [MQTT-4.13.2-1], [MQTT-3.2.2-7], [MQTT-3.14.4-2], [MQTT-3.1.1 3.2.2-5]).
    pub(crate) fn close<'a>(&mut self, slot: u32, why: impl Into<Goodbye<'a>>, loss: Loss) {
        let why: Goodbye<'a> = why.into();
        let Shard {
            connections, pool, ..
        } = self;
        let Some(connection) = connections
            .get_mut(slot as usize)
            .and_then(Option::as_deref_mut)
        else {
            return;
        };
        let version = connection.version;
        let packet = match connection.phase {
            Phase::Closing => return,
            Phase::Silent => None,
            // [MQTT-3.14.0-1] [MQTT-3.2.0-2] No DISCONNECT before CONNACK, and one CONNACK at most.
            _ if !connection.greeted => Some(Packet::Connack(Connack {
                session_present: false,
                reason: connack_reason(why.reason),
                properties: ConnackProperties {
                    reason_string: why.words,
                    server_reference: why.server_reference,
                    ..ConnackProperties::default()
                },
            })),
            _ if version == Version::V5 => Some(Packet::Disconnect(Disconnect {
                reason: disconnect_reason(why.reason),
                // [MQTT-3.14.2-2]
                session_expiry_s: None,
                reason_string: why.words,
                user: UserProperties::default(),
                server_reference: why.server_reference,
            })),
            _ => None,
        };
        if let Some(packet) = packet {
            // An answer that has no form or does not fit is not sent; the connection ends anyway.
            let max = connection.packet_bytes_max;
            let _unsaid = encode(version, &packet, max, connection.window.buffer(pool));
        }
        self.close_silently(slot, loss);
    }

    /// Closes after what is already in the window ([MQTT-3.14.4-1] nothing follows).
    pub(crate) fn close_silently(&mut self, slot: u32, loss: Loss) {
        let id = self.id_of(slot);
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        if matches!(connection.phase, Phase::Closing) {
            return;
        }
        let session = connection.session();
        self.tell(slot, EventKind::Disconnected { loss });
        let Some(connection) = self.connection_mut(slot) else {
            return;
        };
        // [MQTT-3.1.4-6] [MQTT-3.1.1 3.1.4-5] What follows is dropped unread.
        connection.phase = Phase::Closing;
        connection.gates.clear();
        connection.tail = Vec::new();
        connection.memo = None;
        connection.blocked = false;
        self.mark_dirty(slot);
        self.effects.push(Effect::Close { id });
        if let Some(session) = session {
            self.detach(session);
        }
    }

    /// The transport is gone.
    fn closed(&mut self, id: ConnectionId, loss: Loss) {
        let Some(slot) = self.slot_of(id) else { return };
        let Some(connection) = self.connection(slot) else {
            return;
        };
        let session = connection.session();
        if !matches!(connection.phase, Phase::Closing) {
            self.tell(slot, EventKind::Disconnected { loss });
        }
        if let Some(connection) = self.connections[slot as usize].as_deref_mut() {
            connection.window.clear(&mut self.pool);
        }
        self.connections[slot as usize] = None;
        self.counters.connections_now -= 1;
        if let Some(session) = session {
            self.detach(session);
        }
    }

    /// A session has lost its connection: its will falls due, and it ends now or later
    /// ([MQTT-3.1.2-23], [MQTT-4.1.0-2], [MQTT-3.1.1 4.1.0-1]).
    fn detach(&mut self, session: u32) {
        let now = self.now;
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        found.link = None;
        found.online = false;
        found.outbox.forget_zero();
        // Whoever has not heard of a subscription subscribes again.
        found.replays.retain(|replay| replay.suback.is_none());
        let (expiry_s, me) = (found.expiry_s, found.me(session));
        self.will_falls_due(session);
        if expiry_s == 0 {
            self.end_session(session);
            return;
        }
        let at = now + u64::from(expiry_s) * 1000;
        if let Some(found) = self.sessions.get_mut(session) {
            found.ends_at = at;
            if found.number != 0 {
                self.journal.write(&found.detached_line());
                self.touch_store();
            }
        }
        self.timers.arm(at, Timer::Session(me));
        self.tell_groups(session, false);
    }

    /// Another connection of the same principal takes the session ([MQTT-3.1.4-3],
    /// [MQTT-3.1.1 3.1.4-2]).
    pub(crate) fn take_over(&mut self, slot: u32, session: u32, clean_start: bool) {
        self.close(slot, Reason::SessionTakenOver, Loss::TakenOver);
        if clean_start
            && self
                .sessions
                .get(session)
                .is_some_and(|found| found.link.is_none())
        {
            self.end_session(session);
        }
    }

    /// A timer of a session fired: its delayed will, its end.
    fn session_due(&mut self, me: SessionRef) {
        let Some(session) = self.sessions.resolve(me) else {
            return;
        };
        let now = self.now;
        let Some(found) = self.sessions.get(session) else {
            return;
        };
        // [MQTT-4.1.0-1] [MQTT-3.1.1 4.1.0-2]
        let ends = found.link.is_none() && found.ends_at <= now;
        let due = found
            .will
            .as_ref()
            .and_then(|will| will.due_at)
            .is_some_and(|at| at <= now);
        if due && found.link.is_none() {
            self.publish_will(session);
        }
        if ends {
            self.tell_session(session, EventKind::SessionExpired);
            self.end_session(session);
        }
    }

    /// Forgets a session: its will at the latest now, its subscriptions, what it owed to groups.
    pub(crate) fn end_session(&mut self, session: u32) {
        self.publish_will(session);
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let tenant = found.tenant;
        let shared = found.outbox.take_shared();
        found.link = None;
        found.online = false;
        let groups: Vec<Box<str>> = found
            .filters
            .shared()
            .iter()
            .map(|(filter, _)| filter.clone())
            .collect();
        let plain: Vec<FilterId> = found.filters.plain().collect();
        for filter in &groups {
            self.drop_subscription(session, filter);
        }
        for filter in plain {
            let filter = self.routes.tree.text(filter);
            self.drop_subscription(session, &filter);
        }
        // [MQTT-3.1.1 3.1.2-7] What it published with RETAIN is no part of it and stays.
        if let Some(found) = self.sessions.remove(session) {
            self.counters.sessions_now -= 1;
            if found.number != 0 {
                let session = found.number;
                self.journal.write(&Record::Ended { session });
                self.ended.add(found.hash, self.seq);
            }
            if found.is_durable() {
                self.touch_store();
            }
        }
        self.redistribute(tenant, shared);
    }

    /// A session's rights may have changed, so its routes are worked out anew.
    pub(crate) fn touch_routes_of(&mut self, session: u32) {
        let Shard {
            sessions, routes, ..
        } = self;
        if let Some(found) = sessions.get(session) {
            for filter in found.filters.plain() {
                let filter = routes.tree.text(filter);
                routes.touch(found.tenant, &filter);
            }
        }
    }
}
