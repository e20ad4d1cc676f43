//! To the recipients: straight into a window where it has room, into a queue where not.

use std::num::NonZeroU16;
use std::rc::Rc;

use casemate_codec::{forward, QoS, Version};

use crate::acknowledge::Stake;
use crate::event::EventKind;
use crate::flights::{Flight, Phase, IN_TURN};
use crate::journal::{EntryLine, Journal, Record, Whole};
use crate::message::{Draft, Message, Way};
use crate::outbox::{Admission, Bounds, GroupRef, Ids, Item, NO_GROUP};
use crate::policy::Permit;
use crate::route::{Route, Target};
use crate::session::Session;
use crate::shard::Shard;
use crate::verbatim::Verbatim;
use crate::window::SPLICE_BYTES;

/// A packet already encoded for recipients of one kind.
#[derive(Clone, Copy)]
struct Shape {
    start: usize,
    end: usize,
    packet_id_at: usize,
}

/// The encodings that recipients of one kind share, of the message that is being given to them.
#[derive(Default)]
pub(crate) struct Shapes {
    bytes: Vec<u8>,
    places: [Option<Shape>; 12],
}

impl Shapes {
    /// Begins with another message.
    #[inline]
    pub fn clear(&mut self) {
        // No encoding is empty, so that without bytes there are no places either.
        if !self.bytes.is_empty() {
            self.bytes.clear();
            self.places = [None; 12];
        }
    }
}

/// What one message has in common for all its recipients: how it came, and one allocation at most.
pub(crate) struct Spread<'a> {
    verbatim: Option<Verbatim<'a>>,
    kept: Option<Message>,
    /// Its number in the journal; 0 before it has been written there.
    number: u64,
    /// False where there is one recipient, so that a common encoding would be a second copy.
    many: bool,
}

impl<'a> Spread<'a> {
    /// Of a message whose packet may go on as it came.
    pub fn heard(packet: Verbatim<'a>, many: bool) -> Spread<'a> {
        Spread {
            verbatim: Some(packet),
            kept: None,
            number: 0,
            many,
        }
    }

    pub fn new(many: bool, kept: Option<Message>) -> Spread<'a> {
        Spread {
            verbatim: None,
            kept,
            number: 0,
            many,
        }
    }

    pub fn keep(&mut self, draft: &Draft<'_>, scratch: &mut Vec<u8>) -> Message {
        self.kept.get_or_insert_with(|| draft.keep(scratch)).clone()
    }

    /// The message's number in the journal, which gets its body once for all recipients.
    pub fn number(&mut self, draft: &Draft<'_>, journal: &mut Journal) -> u64 {
        if self.number == 0 {
            self.number = journal.write_message(draft);
        }
        self.number
    }
}

/// How one recipient gets a message.
pub(crate) struct Recipient<'a> {
    pub session: u32,
    pub qos: QoS,
    pub retain: bool,
    pub ids: &'a Ids,
    pub group: GroupRef,
}

impl Shard {
    /// The current route of a topic, with every recipient authorised on the concrete topic.
    pub(crate) fn route(&mut self, tenant: u32, topic: &str) -> Rc<Route> {
        if let Some(route) = self.routes.find(tenant, topic.as_bytes()) {
            return route;
        }
        let Shard {
            routes,
            sessions,
            policy,
            counters,
            ..
        } = self;
        routes.build(tenant, topic, |target| {
            let Some(session) = sessions.get(target.session) else {
                return false;
            };
            match policy.receive(&session.subject(), topic) {
                Some(permit) => {
                    target.qos = target.qos.min(permit.qos_max);
                    true
                }
                None => {
                    counters.delivery_denied += 1;
                    false
                }
            }
        })
    }

    /// Gives a permitted message to everybody: recipients here, share groups at home here,
    /// neighbours, and the retained store. Returns what its acknowledgement must wait for.
    pub(crate) fn route_message(
        &mut self,
        permit: Permit,
        draft: &Draft<'_>,
        route: &Route,
    ) -> Stake {
        self.route_heard(permit, draft, None, route)
    }

    /// As [`Shard::route_message`], of a message whose packet may go on as it came.
    #[inline(always)]
    pub(crate) fn route_heard(
        &mut self,
        permit: Permit,
        draft: &Draft<'_>,
        verbatim: Option<Verbatim<'_>>,
        route: &Route,
    ) -> Stake {
        let mut stake = self.spread_here(permit, draft, verbatim, route);
        // [MQTT-3.3.1-8] [MQTT-3.1.1 3.3.1-12]
        if draft.retain {
            stake = stake.and(self.retain_here(draft));
        }
        if self.place.count > 1 {
            stake = stake.and(self.forward_to_peers(draft, verbatim.as_ref(), route.peers));
        }
        stake
    }

    /// Gives a message to the sessions and groups of this shard.
    pub(crate) fn deliver_here(
        &mut self,
        permit: Permit,
        draft: &Draft<'_>,
        route: &Route,
    ) -> Stake {
        self.spread_here(permit, draft, None, route)
    }

    pub(crate) fn spread_here(
        &mut self,
        _permit: Permit,
        draft: &Draft<'_>,
        verbatim: Option<Verbatim<'_>>,
        route: &Route,
    ) -> Stake {
        let targets = route.targets();
        let mut spread = Spread {
            verbatim,
            ..Spread::new(targets.len() > 1, None)
        };
        self.shapes.clear();
        let mut durable = false;
        for target in targets {
            durable |= self.deliver_to_each(draft, target, &mut spread);
        }
        let mut stake = if durable {
            self.touch_store()
        } else {
            Stake::default()
        };
        for group in route.groups() {
            stake = stake.and(self.deliver_to_group(draft, *group, &mut spread));
        }
        stake
    }

    /// Gives a message to one recipient of its topic; true where that must be made durable.
    #[inline(always)]
    pub(crate) fn deliver_to_each(
        &mut self,
        draft: &Draft<'_>,
        target: &Target,
        spread: &mut Spread<'_>,
    ) -> bool {
        // [MQTT-3.8.3-3]
        if target.no_local && self.is_own(target.session, draft.publisher) {
            let (tenant, topic) = (draft.tenant, draft.topic);
            let rest = self.routes.without_no_local(tenant, topic, target.session);
            return rest.is_some_and(|mut rest| {
                rest.qos = rest.qos.min(target.qos);
                self.deliver_to_target(draft, &rest, spread)
            });
        }
        self.deliver_to_target(draft, target, spread)
    }

    /// The publisher and the recipient are one client.
    fn is_own(&self, session: u32, publisher: u64) -> bool {
        publisher != 0
            && self
                .sessions
                .get(session)
                .is_some_and(|found| found.hash == publisher)
    }

    #[inline]
    fn deliver_to_target(
        &mut self,
        draft: &Draft<'_>,
        target: &Target,
        spread: &mut Spread<'_>,
    ) -> bool {
        let recipient = Recipient {
            session: target.session,
            // [MQTT-3.8.4-8] [MQTT-3.1.1 3.8.4-6]
            qos: draft.qos.min(target.qos),
            // [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT-3.1.1 3.3.1-9]
            retain: target.retain_as_published && draft.retain,
            ids: &target.ids,
            group: NO_GROUP,
        };
        self.deliver(draft, &recipient, spread)
    }

    /// Gives a message to one session; true where that must be made durable.
    #[inline]
    pub(crate) fn deliver(
        &mut self,
        draft: &Draft<'_>,
        to: &Recipient<'_>,
        spread: &mut Spread<'_>,
    ) -> bool {
        let Shard {
            sessions,
            connections,
            settings,
            counters,
            scratch,
            pool,
            ..
        } = self;
        let Some(session) = sessions.get_mut(to.session) else {
            return false;
        };
        let durable = session.is_durable() && to.qos > QoS::AtMostOnce;
        // Its identifier must be durable before the client may see it.
        let is_held = session.number != 0 && to.qos == QoS::ExactlyOnce;
        let link = session.link.filter(|_| session.is_direct() && !is_held);
        let ready = link.and_then(|link| {
            let connection = connections.get_mut(link as usize)?.as_deref_mut()?;
            let has_room = connection.window.bytes() < settings.window_bytes
                && (to.qos == QoS::AtMostOnce
                    || session.outbox.flights.counted() < connection.quota
                        && session.outbox.flights.has_packet_id());
            has_room.then_some((link, connection))
        });
        let Some((link, connection)) = ready else {
            self.enqueue(draft, to, spread);
            return durable;
        };
        match spread.verbatim.filter(|it| it.suits(to, connection)) {
            Some(verbatim) if session.number == 0 || to.qos == QoS::AtMostOnce => {
                let packet_id = launch(session, draft, to, spread, scratch);
                verbatim.write(to.retain, packet_id, connection, pool);
                counters.publishes_sent += 1;
                if connection.is_news(settings) {
                    self.mark_dirty(link);
                }
            }
            Some(verbatim) => self.write_heard(link, draft, to, verbatim, spread),
            None => self.write_direct(link, draft, to, 0, spread),
        }
        durable
    }

    /// Puts a reference into the session's queue, by the overflow rule.
    fn enqueue(&mut self, draft: &Draft<'_>, to: &Recipient<'_>, spread: &mut Spread<'_>) {
        let message = spread.keep(draft, &mut self.scratch);
        let bounds = Bounds {
            messages: self.settings.queue_messages_max,
            bytes: self.settings.queue_bytes_max,
        };
        let Some(session) = self.sessions.get_mut(to.session) else {
            return;
        };
        if !session.online && to.qos == QoS::AtMostOnce && session.link.is_none() {
            // QoS 0 is for those who are there.
            return;
        }
        let item = Item {
            message,
            ids: to.ids.clone(),
            group: to.group,
            qos: to.qos,
            retain: to.retain,
            order: 0,
            entry: match session.number != 0 && to.qos > QoS::AtMostOnce {
                true => session.outbox.enter(),
                false => 0,
            },
            whole: match to.qos {
                QoS::ExactlyOnce if session.number != 0 => draft.whole,
                _ => Whole::NONE,
            },
        };
        let (entry, whole) = (item.entry, item.whole);
        // [MQTT-3.1.1 3.1.2-5] Also for a session without a connection.
        let admission = session.outbox.push(item, bounds);
        if entry != 0 && admission == Admission::Queued {
            let message = spread.number(draft, &mut self.journal);
            self.journal.write(&Record::Entry(EntryLine {
                session: session.number,
                entry,
                message,
                qos: to.qos,
                retain: to.retain,
                is_launched: false,
                ids: to.ids.as_deref().cloned().unwrap_or_default(),
                group: to.group,
                whole,
            }));
            if whole.is_some() {
                let me = session.me(to.session);
                self.completions.hold(whole, me, entry);
            }
        }
        let (link, refused) = (session.link, session.outbox.refused());
        match admission {
            Admission::Queued => {}
            Admission::Dropped(dropped) => self.counters.dropped_oldest += dropped,
            Admission::Refused => {
                self.counters.refused_newest += 1;
                if refused == 1 {
                    self.tell_session(to.session, EventKind::Overflow { refused });
                }
            }
        }
        if let Some(link) = link {
            self.pump_later(link);
        }
    }

    /// Writes a message into the window of a recipient that is ready for it; `entry` is its number
    /// in the session's journal, 0 where it has none yet.
    pub(crate) fn write_direct(
        &mut self,
        link: u32,
        draft: &Draft<'_>,
        to: &Recipient<'_>,
        entry: u64,
        spread: &mut Spread<'_>,
    ) {
        let mut packet_id = 0;
        if to.qos > QoS::AtMostOnce {
            match self.begin_exchange(draft, to, entry, spread) {
                Some(id) => packet_id = id.get(),
                // It is sent in its turn.
                None => return,
            }
        }
        let written = match self.connection(link) {
            Some(connection)
                if spread.many && to.ids.is_none() && connection.aliases_out.is_none() =>
            {
                self.write_shape(link, draft, to, packet_id, spread)
            }
            _ => {
                let ids = to.ids.as_ref().map_or(&[][..], |ids| ids.as_slice());
                // [MQTT-3.3.1-3] [MQTT-3.1.1 3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
                // [MQTT-4.3.1-1] [MQTT-3.1.1 4.3.1-1] New here, whatever the publisher's DUP says.
                self.write_alone(
                    link, draft, to.qos, false, to.retain, ids, packet_id, spread,
                )
            }
        };
        self.wrote(link, to.session, to.qos, packet_id, written);
    }

    /// Counts what was written; what was too large behaves as if it were complete.
    pub(crate) fn wrote(
        &mut self,
        link: u32,
        session: u32,
        qos: QoS,
        packet_id: u16,
        written: bool,
    ) {
        if written {
            self.counters.publishes_sent += 1;
            self.mark_dirty(link);
            return;
        }
        // [MQTT-3.1.2-25]
        self.counters.dropped_too_large += 1;
        let id = NonZeroU16::new(packet_id);
        if let Some(id) = id {
            self.finish(session, id, Phase::of(qos));
        }
    }

    /// Copies the encoding that all recipients of this kind share.
    fn write_shape(
        &mut self,
        link: u32,
        draft: &Draft<'_>,
        to: &Recipient<'_>,
        packet_id: u16,
        spread: &mut Spread<'_>,
    ) -> bool {
        let now = self.now;
        let Shard {
            connections,
            pool,
            shapes,
            scratch,
            ..
        } = self;
        let Some(connection) = connections[link as usize].as_deref_mut() else {
            return true;
        };
        let modern = usize::from(connection.version == Version::V5);
        let index = modern * 6 + to.qos as usize * 2 + usize::from(to.retain);
        let spliced = draft.payload.len() >= SPLICE_BYTES;
        let shape = match shapes.places[index] {
            Some(shape) => shape,
            None => {
                let way = Way {
                    qos: to.qos,
                    // [MQTT-3.3.1-3] [MQTT-3.1.1 3.3.1-3] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
                    dup: false,
                    retain: to.retain,
                    ids: &[],
                    alias: None,
                    topic_known: false,
                };
                let bytes = &mut shapes.bytes;
                let start = bytes.len();
                let packet = draft.forwarded(&way, now);
                let Ok(packet_id_at) = forward(connection.version, &packet, 0, u32::MAX, bytes)
                else {
                    return false;
                };
                if !spliced {
                    bytes.extend_from_slice(draft.payload);
                }
                let shape = Shape {
                    start,
                    end: bytes.len(),
                    packet_id_at: packet_id_at.map_or(usize::MAX, |at| at - start),
                };
                shapes.places[index] = Some(shape);
                shape
            }
        };
        let payload_bytes = if spliced { draft.payload.len() } else { 0 };
        // [MQTT-3.1.2-24]
        if shape.end - shape.start + payload_bytes > connection.packet_bytes_max as usize {
            return false;
        }
        let out = connection.window.buffer(pool);
        let at = out.len();
        out.extend_from_slice(&shapes.bytes[shape.start..shape.end]);
        if shape.packet_id_at != usize::MAX {
            let place = at + shape.packet_id_at;
            out[place..place + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
        if spliced {
            connection.window.splice(spread.keep(draft, scratch));
        }
        true
    }

    /// Encodes for one recipient: with its identifiers, its alias, or as the only one.
    #[allow(clippy::too_many_arguments, reason = "the parts of one PUBLISH")]
    pub(crate) fn write_alone(
        &mut self,
        link: u32,
        draft: &Draft<'_>,
        qos: QoS,
        dup: bool,
        retain: bool,
        ids: &[u32],
        packet_id: u16,
        spread: &mut Spread<'_>,
    ) -> bool {
        let now = self.now;
        let Shard {
            connections,
            pool,
            scratch,
            ..
        } = self;
        let Some(connection) = connections[link as usize].as_deref_mut() else {
            return true;
        };
        let alias = connection
            .aliases_out
            .as_mut()
            .and_then(|out| out.alias(draft.topic));
        let (alias, topic_known) = match alias {
            Some((alias, known)) => (Some(alias), known),
            None => (None, false),
        };
        let way = Way {
            qos,
            dup,
            retain,
            ids,
            alias,
            topic_known,
        };
        let packet = draft.forwarded(&way, now);
        let max = connection.packet_bytes_max;
        let out = connection.window.buffer(pool);
        if forward(connection.version, &packet, packet_id, max, out).is_err() {
            if let (Some(aliases), false) = (connection.aliases_out.as_mut(), topic_known) {
                aliases.forget(draft.topic);
            }
            return false;
        }
        if spread.kept.is_some() && draft.payload.len() >= SPLICE_BYTES {
            let message = spread.keep(draft, scratch);
            connection.window.splice(message);
        } else {
            out.extend_from_slice(draft.payload);
        }
        true
    }
}

/// Begins the exchange that a QoS asks for, and gives its packet id; 0 where it asks for none.
#[inline]
fn launch(
    session: &mut Session,
    draft: &Draft<'_>,
    to: &Recipient<'_>,
    spread: &mut Spread<'_>,
    scratch: &mut Vec<u8>,
) -> u16 {
    if to.qos == QoS::AtMostOnce {
        return 0;
    }
    let flight = flight_of(session, draft, to, spread, scratch);
    session.outbox.flights.launch(to.qos, flight).get()
}

/// What an exchange that has not begun keeps; nothing where nobody can ask for it again.
#[inline]
pub(crate) fn flight_of(
    session: &Session,
    draft: &Draft<'_>,
    to: &Recipient<'_>,
    spread: &mut Spread<'_>,
    scratch: &mut Vec<u8>,
) -> Option<Flight> {
    let keeps = session.is_durable() || to.group != NO_GROUP;
    keeps.then(|| Flight {
        message: Some(spread.keep(draft, scratch)),
        ids: to.ids.clone(),
        group: to.group,
        retain: to.retain,
        held_until: IN_TURN,
    })
}
