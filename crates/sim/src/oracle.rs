//! The oracle: knows what was said, and from it alone what everybody must and may see.
//!
//! It shares no code with the engine. Times are those at which a client wrote or read something,
//! so each fact is an interval; what must hold is only demanded where the interval leaves no doubt.

mod crash;
mod delivery;
mod durable;
mod flight;
mod lawful;
mod message;
mod retained;
mod session;
mod share;
mod verdict;
mod will;

use std::collections::BTreeMap;
use std::sync::Arc;

use casemate_codec::{QoS, Reason, RetainHandling};
use casemate_engine::Millis;

use crate::history::{ensure, Violation};
use crate::law::{Answer, Asker, Law};
use crate::plan::{Persona, Plan};
use crate::shell::{Seqs, Wreck};

pub use delivery::Delivery;
pub use message::{payload, serial, Author, Fate, Luggage, Message};
pub use session::{Carrier, Flight, Options, Session, Slot, SLACK_MS};
pub use will::Will;

/// Everything that was said and seen.
pub struct Oracle {
    /// What the run was decided to be.
    pub plan: Arc<Plan>,
    /// The law in all its versions.
    pub law: Law,
    /// Messages by serial number less one.
    pub messages: Vec<Message>,
    /// One for each well-behaved client; probes are added in the end.
    pub sessions: Vec<Session>,
    /// Wills that a CONNECT brought.
    pub wills: Vec<Will>,
    /// Retained messages by tenant and topic, in the order in which they were sent.
    retained: BTreeMap<(u32, String), Vec<u64>>,
    /// New copies that arrived.
    pub arrived: u64,
    /// Each time the process died, in order.
    crashes: Vec<Wreck>,
}

/// A subscription as a client writes it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Share group, if any.
    pub share: Option<String>,
    /// Filter without the group.
    pub filter: String,
    /// Highest QoS wanted.
    pub qos: QoS,
    /// See MQTT 5.0 §3.8.3.1.
    pub no_local: bool,
    /// See `no_local`.
    pub retain_as_published: bool,
    /// See `no_local`.
    pub retain_handling: RetainHandling,
}

/// Where a wish stands: slot and version.
pub type Place = (usize, usize);

impl Oracle {
    /// An oracle that has seen nothing.
    pub fn new(plan: &Arc<Plan>, law: Law) -> Oracle {
        let session = |persona: &Persona| {
            let mut session = Session::new(plan.asker(persona), persona.version);
            session.is_anonymous = persona.client_id.is_empty();
            session
        };
        Oracle {
            plan: Arc::clone(plan),
            law,
            messages: Vec::new(),
            sessions: plan.personas.iter().map(session).collect(),
            wills: Vec::new(),
            retained: BTreeMap::new(),
            arrived: 0,
            crashes: Vec::new(),
        }
    }

    /// The message of a serial number.
    pub fn message(&self, serial: u64) -> Option<&Message> {
        self.messages
            .get(usize::try_from(serial.checked_sub(1)?).ok()?)
    }

    fn message_mut(&mut self, serial: u64) -> Option<&mut Message> {
        self.messages
            .get_mut(usize::try_from(serial.checked_sub(1)?).ok()?)
    }

    /// The serial number that the next message gets.
    pub fn next_serial(&self) -> u64 {
        self.messages.len() as u64 + 1
    }

    /// Notes a new message; its serial number is [`Oracle::next_serial`].
    pub fn add(&mut self, message: Message) {
        if message.retain {
            let place = (message.tenant, message.topic.clone());
            self.retained.entry(place).or_default().push(message.serial);
        }
        self.messages.push(message);
    }

    /// A message was written once more.
    pub fn sent_again(&mut self, serial: u64) {
        if let Some(message) = self.message_mut(serial) {
            message.transmissions += 1;
        }
    }

    /// The broker may not recognise a message that is sent again.
    pub fn loosen(&mut self, serial: u64) {
        if let Some(message) = self.message_mut(serial) {
            message.is_loose = true;
        }
    }

    /// The engine has all of a message, and has surely looked at it by `now`.
    pub fn handed(&mut self, now: Option<Millis>, serial: u64, issued: Seqs) {
        if let Some(message) = self.message_mut(serial) {
            if message.issued.is_none() {
                message.taken_at = now;
            }
            message.issued.get_or_insert(issued);
        }
    }

    /// What the law says about publishing a message, from its sending until now.
    pub fn may_publish(&self, message: &Message, now: Millis) -> Answer {
        let client = match (message.law, message.author) {
            (Some(answer), _) => return answer,
            (None, Author::Client(client) | Author::Will(client)) => client,
            (None, Author::Broker) => return Answer::Always,
        };
        let asker = &self.sessions[client].asker;
        let until = message.done_at.map_or(now, |at| at.min(now));
        let what = (message.topic.as_str(), message.qos, message.retain);
        self.law
            .publish(asker, what, (message.sent_at.min(until), until))
    }

    /// The author of a message learnt what became of it.
    ///
    /// # Errors
    /// The answer is not what the law demands.
    pub fn answered(
        &mut self,
        now: Millis,
        serial: u64,
        reason: Reason,
        is_modern: bool,
    ) -> Result<(), Violation> {
        let Some(message) = self.message(serial) else {
            return Ok(());
        };
        if message.fate != Fate::Open {
            return Ok(());
        }
        let answer = self.may_publish(message, now);
        let (topic, qos) = (message.topic.clone(), message.qos);
        let transmissions = message.transmissions;
        let fate = match (reason.is_refusal(), answer) {
            (true, _) => {
                let denied = reason == Reason::NotAuthorized;
                ensure!(
                    !denied || answer != Answer::Always,
                    Denied,
                    "message {serial} to {topic} was denied although the law allows it"
                );
                let expected = denied || reason == Reason::QuotaExceeded;
                ensure!(
                    expected,
                    Protocol,
                    "message {serial} was refused with {reason:?}"
                );
                // What was accepted once may be refused when it is sent again under another law.
                if denied && (transmissions == 1 || answer == Answer::Never) {
                    Fate::Refused
                } else {
                    Fate::Unknown
                }
            }
            (false, Answer::Always) => Fate::Accepted,
            (false, Answer::Sometimes) => Fate::Unknown,
            (false, Answer::Never) => {
                ensure!(
                    !is_modern || qos == QoS::AtMostOnce,
                    Denied,
                    "message {serial} to {topic} was acknowledged although the law forbids it"
                );
                Fate::Refused
            }
        };
        if let Some(message) = self.message_mut(serial) {
            message.fate = fate;
            message.done_at = Some(now);
            message.law = Some(answer);
        }
        Ok(())
    }

    /// Nobody will ever learn what became of a message, or when: it may still be on its way.
    pub fn abandoned(&mut self, serial: u64) {
        if let Some(message) = self.message_mut(serial) {
            if message.fate == Fate::Open {
                message.fate = Fate::Unknown;
            }
        }
    }

    /// A client wrote SUBSCRIBE.
    pub fn subscribing(
        &mut self,
        now: Millis,
        (client, link): (usize, usize),
        wish: &Wish,
        id: Option<u32>,
    ) -> Place {
        let expected = self.surely_retained(client, wish, now);
        let session = &mut self.sessions[client];
        let same = |slot: &Slot| {
            slot.ended_at.is_none() && slot.filter == wish.filter && slot.share == wish.share
        };
        let maybe_new = !session
            .slots
            .iter()
            .any(|slot| same(slot) && slot.must_from.is_some())
            || session
                .slots
                .iter()
                .any(|slot| same(slot) && slot.ending_at.is_some());
        let usable = |slot: &Slot| same(slot) && slot.ending_at.is_none();
        let place = session.slots.iter().rposition(usable).unwrap_or_else(|| {
            session.slots.push(Slot {
                filter: wish.filter.clone(),
                share: wish.share.clone(),
                versions: Vec::new(),
                link,
                must_from: None,
                ending_at: None,
                ended_at: None,
            });
            session.slots.len() - 1
        });
        let surely_new = maybe_new
            && !session.slots[..place].iter().any(same)
            && session.slots[place].versions.is_empty();
        let wanted = match wish.retain_handling {
            RetainHandling::Send => true,
            RetainHandling::SendIfNew => surely_new,
            RetainHandling::Never => false,
        };
        session.slots[place].versions.push(Options {
            sent_at: now,
            confirmed_at: None,
            refused_at: None,
            qos: wish.qos,
            granted: None,
            no_local: wish.no_local,
            retain_as_published: wish.retain_as_published,
            retain_handling: wish.retain_handling,
            id,
            maybe_new,
            expected: if wanted { expected } else { Vec::new() },
        });
        (place, session.slots[place].versions.len() - 1)
    }

    /// A client read one code of SUBACK.
    ///
    /// # Errors
    /// The law demands another one.
    pub fn subscribed(
        &mut self,
        now: Millis,
        client: usize,
        (slot, version): Place,
        code: Reason,
    ) -> Result<(), Violation> {
        let session = &mut self.sessions[client];
        let asker: &Asker = &session.asker;
        let slot = &mut session.slots[slot];
        let options = &mut slot.versions[version];
        let grants = self.law.grants(asker, &slot.filter, (options.sent_at, now));
        let granted = match code {
            Reason::Success => QoS::AtMostOnce,
            Reason::GrantedQoS1 => QoS::AtLeastOnce,
            Reason::GrantedQoS2 => QoS::ExactlyOnce,
            // 3.x knows only one code for a refusal: also while the store keeps nothing.
            Reason::NotAuthorized | Reason::UnspecifiedError => {
                let fails = self.plan.store_fails();
                ensure!(
                    fails && code != Reason::NotAuthorized || grants.contains(&None),
                    Denied,
                    "client {client} may subscribe to {} and was refused",
                    slot.filter
                );
                options.refused_at = Some(now);
                slot.ending_at.get_or_insert(now);
                let mut versions = slot.versions.iter();
                if versions.all(|version| version.refused_at.is_some()) {
                    slot.ended_at.get_or_insert(now);
                }
                return Ok(());
            }
            other => {
                ensure!(
                    other == Reason::QuotaExceeded,
                    Protocol,
                    "client {client} got {other:?} for {}",
                    slot.filter
                );
                options.refused_at = Some(now);
                slot.ending_at.get_or_insert(now);
                return Ok(());
            }
        };
        let right = grants.contains(&None) && grants.len() == 1;
        ensure!(
            !right,
            Denied,
            "client {client} subscribed to {}: denied",
            slot.filter
        );
        let wanted = options.qos;
        let just = grants
            .iter()
            .flatten()
            .any(|most| wanted.min(*most) == granted);
        ensure!(
            just,
            Denied,
            "client {client} asked for {} with {wanted:?}, was granted {granted:?}, may {grants:?}",
            slot.filter
        );
        options.granted = Some(granted);
        options.confirmed_at = Some(now);
        slot.must_from.get_or_insert(now);
        Ok(())
    }

    /// A client wrote UNSUBSCRIBE; returns the slots that this ends.
    pub fn unsubscribing(&mut self, now: Millis, client: usize, filter: &str) -> Vec<usize> {
        let mut ending = Vec::new();
        for (place, slot) in self.sessions[client].slots.iter_mut().enumerate() {
            if slot.ended_at.is_none() && slot.wire_filter() == filter {
                slot.ending_at.get_or_insert(now);
                ending.push(place);
            }
        }
        ending
    }

    /// A client read one code of UNSUBACK.
    ///
    /// # Errors
    /// It says that nothing was there, although something surely was.
    pub fn unsubscribed(
        &mut self,
        now: Millis,
        client: usize,
        slots: &[usize],
        code: Option<Reason>,
        (was_sure, filter): (bool, &str),
    ) -> Result<(), Violation> {
        for slot in slots {
            self.sessions[client].slots[*slot]
                .ended_at
                .get_or_insert(now);
        }
        let absent = code == Some(Reason::NoSubscriptionExisted);
        ensure!(
            !(absent && was_sure),
            Session,
            "client {client} unsubscribed from {filter}: there was none, says the broker"
        );
        ensure!(
            code != Some(Reason::Success) || !slots.is_empty(),
            Session,
            "client {client} unsubscribed from {filter}, which it never had, with success"
        );
        Ok(())
    }

    /// A full queue refused something for a session.
    ///
    /// # Errors
    /// Not so many messages can have been waiting.
    pub fn overflowed(&mut self, client: usize) -> Result<(), Violation> {
        let session = &self.sessions[client];
        let settings = &self.plan.settings;
        let mine = self
            .messages
            .iter()
            .filter(|message| message.tenant == session.tenant());
        let waiting: u32 = mine
            .map(|message| session.copies_max(client, message))
            .sum();
        // What hostile clients send is not counted here, nor are bytes.
        let uncounted = settings.queue_bytes_max < 1 << 30 || self.plan.hostile > 0;
        ensure!(
            waiting as usize >= settings.queue_messages_max || uncounted,
            Bound,
            "client {client} was refused a message with at most {waiting} waiting"
        );
        self.sessions[client].overflowed = true;
        Ok(())
    }
}
