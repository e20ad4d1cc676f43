//! What a shard holds, as records: what all that it has written amounts to.

use casemate_codec::QoS;

use super::{EntryLine, Journal, Record, SessionLine, SubscriptionLine, Whole, WillLine};
use crate::flights::{Flight, Phase};
use crate::message::Draft;
use crate::outbox::Item;
use crate::route::{Entry, Subscription};
use crate::session::Session;
use crate::shard::Shard;

impl Shard {
    /// Writes everything that this shard keeps into a batch of its own.
    pub fn dump(&self) -> Vec<u8> {
        let mut journal = Journal::new(true, self.place.index, self.journal.last);
        self.groups.dump(self.place.index, &mut journal);
        for (slot, session) in self.sessions.iter() {
            if session.number != 0 && session.is_durable() {
                self.dump_session(slot, session, &mut journal);
            }
        }
        for (tenant, message) in self.retained.iter() {
            journal.write_retained(message.draft(tenant));
        }
        journal.take()
    }

    pub(super) fn dump_session(&self, slot: u32, session: &Session, journal: &mut Journal) {
        journal.write(&Record::Session(session.line()));
        if session.link.is_none() {
            journal.write(&session.detached_line());
        }
        for (filter, member) in session.filters.shared() {
            journal.write(&Record::Subscribed(SubscriptionLine {
                session: session.number,
                filter,
                qos: member.qos,
                no_local: false,
                retain_as_published: member.retain_as_published,
                id: member.id,
            }));
        }
        for filter in session.filters.plain() {
            let entries = self.routes.tree.at(filter).iter();
            let found = entries.filter_map(|entry| match entry {
                Entry::Session(found) if found.session == slot => Some(found),
                _ => None,
            });
            // One at most.
            for found in found {
                let filter = self.routes.tree.text(filter);
                journal.write(&Record::Subscribed(line_of(session.number, &filter, found)));
            }
        }
        for id in session.unreleased.iter() {
            if !self.is_completing(session.me(slot), *id) {
                journal.write(&Record::Incoming {
                    session: session.number,
                    id: *id,
                });
            }
        }
        journal.write(&Record::Position {
            session: session.number,
            next: session.outbox.flights.first(),
        });
        for flight in session.outbox.flights.iter() {
            dump_flight(session, flight, journal);
        }
        for item in session.outbox.waiting() {
            dump_item(session, item, journal);
        }
    }
}

/// The line of a subscription that is not shared.
pub(crate) fn line_of<'a>(
    session: u64,
    filter: &'a str,
    found: &Subscription,
) -> SubscriptionLine<'a> {
    SubscriptionLine {
        session,
        filter,
        qos: found.qos,
        no_local: found.no_local,
        retain_as_published: found.retain_as_published,
        id: found.id,
    }
}

impl Session {
    /// The session's own line.
    pub(crate) fn line(&self) -> SessionLine<'_> {
        SessionLine {
            number: self.number,
            tenant: self.tenant,
            realm: &self.principal.realm,
            name: &self.principal.name,
            client_id: &self.client_id,
            is_bound: self.client_id_bound,
            roles: self.principal.roles.iter().map(|role| &**role).collect(),
            expiry_s: self.expiry_s,
            will: self.will.as_ref().map(|will| WillLine {
                draft: will.message.draft(self.tenant),
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
            }),
        }
    }

    /// What is said when its connection is gone.
    pub(crate) fn detached_line(&self) -> Record<'static> {
        Record::Detached {
            session: self.number,
            expiry_s: self.expiry_s,
            ends_at: self.ends_at,
            will_due_at: self.will.as_ref().map(|will| will.due_at.unwrap_or(0)),
        }
    }
}

/// Writes an exchange that is under way, or was: no position is left out.
fn dump_flight(
    session: &Session,
    (position, phase, flight): (u64, Phase, Option<&Flight>),
    journal: &mut Journal,
) {
    let nothing = Flight::default();
    let flight = flight.unwrap_or(&nothing);
    let qos = match phase {
        Phase::Pubrec | Phase::Pubcomp => QoS::ExactlyOnce,
        Phase::Puback | Phase::Done => QoS::AtLeastOnce,
    };
    let empty = Draft::EMPTY;
    let message = match &flight.message {
        Some(message) => journal.write_message(&message.draft(session.tenant)),
        None => journal.write_message(&empty),
    };
    journal.write(&Record::Entry(EntryLine {
        session: session.number,
        entry: 0,
        message,
        qos,
        retain: flight.retain,
        is_launched: true,
        ids: flight.ids.as_deref().cloned().unwrap_or_default(),
        group: flight.group,
        whole: Whole::NONE,
    }));
    let session = session.number;
    match phase {
        Phase::Puback | Phase::Pubrec => {}
        Phase::Pubcomp => journal.write(&Record::Taken { session, position }),
        Phase::Done => journal.write(&Record::Done { session, position }),
    }
}

/// Writes what waits.
fn dump_item(session: &Session, item: &Item, journal: &mut Journal) {
    let message = journal.write_message(&item.message.draft(session.tenant));
    journal.write(&Record::Entry(EntryLine {
        session: session.number,
        entry: item.entry,
        message,
        qos: item.qos,
        retain: item.retain,
        is_launched: false,
        ids: item.ids.as_deref().cloned().unwrap_or_default(),
        group: item.group,
        whole: item.whole,
    }));
}
