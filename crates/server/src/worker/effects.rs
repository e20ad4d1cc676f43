//! Serving what the engine asks for.

use std::num::NonZeroU64;

use casemate_codec::Reason;
use casemate_engine::{
    is_receipt, ConnectionId, Credentials, Effect, Input, Parcel, ShardIndex, Verdict,
};

use super::{InHand, Worker};
use crate::admission::{Admission, Candidate, ProvenBy, Visit};
use crate::clock::wall_unix_ms;
use crate::connection::Moved;
use crate::entrance::Entrance;
use crate::event::{Event, EventKind};
use crate::gate::Decision;
use crate::inbox::Letter;
use crate::question::{Asker, Question, QuestionId, Suspect};
use crate::store::Batch;

impl Worker {
    /// Serves one effect; what comes of it is appended to the effects.
    pub(super) fn serve(&mut self, effect: Effect) {
        match effect {
            Effect::Authenticate {
                id,
                step,
                credentials,
            } => {
                self.authenticate(id, step, &credentials);
            }
            Effect::HandOver { id, to, parcel } => self.hand_over(id, to, parcel),
            Effect::Forward { to, batch } => {
                let (from, can_wait) = (self.index, is_receipt(&batch));
                self.mail(to, Letter::Forwarded { from, batch }, can_wait);
            }
            Effect::Persist { seq, records } => match &mut self.line {
                Some(line) => line.take(Batch { seq, records }),
                // Nothing outlives this process: all is as durable as it will be.
                None => {
                    self.shard
                        .handle(self.now, Input::Persisted { seq }, &mut self.effects);
                }
            },
            Effect::Flush { id } => self.write(id),
            Effect::Pause { id } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.paused = true;
                }
            }
            Effect::Resume { id } => {
                if let Some(connection) = self.connections.get_mut(id) {
                    connection.paused = false;
                    self.queue_reading(id);
                }
            }
            Effect::Close { id } => self.close(id),
            Effect::Event(event) => self.tell_engine_event(*event),
            Effect::Checkpointed => {
                if let Some(line) = &self.line {
                    line.checkpointed();
                }
            }
            Effect::Settled => self.broker.settled(self.index),
            Effect::PolicyInForce { epoch } => self.broker.policy_in_force(self.index, epoch),
        }
    }

    fn tell_engine_event(&mut self, event: casemate_engine::Event) {
        let listener = event.listener;
        self.events.push(Event {
            time_unix_ms: wall_unix_ms(),
            shard: self.index,
            listener: listener.and_then(|id| self.broker.entrances.name(id)),
            address: event.address,
            client_id: event.client_id,
            principal: event.principal,
            kind: EventKind::Engine(event.kind),
        });
    }

    /// Decides who somebody is, or asks.
    fn authenticate(&mut self, id: ConnectionId, step: u32, credentials: &Credentials) {
        // Taken before anything is looked at: what changes from here on is looked up again.
        let expulsions_seen = self.broker.expulsions.count();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let entrance = connection.entry.now();
        let decision = self.broker.gate.decide(credentials, &entrance);
        connection.expulsions_seen = expulsions_seen;
        if let Some(question) = connection.question.take() {
            self.broker.forget_question(question.get());
        }
        match decision {
            Decision::Settled(verdict) => {
                // Without a look-up only those who prove nothing are let in.
                if matches!(verdict, Verdict::Granted(_)) {
                    connection.entry.note_anonymous(&entrance);
                }
                let visit = visit(credentials, &entrance, ProvenBy::Nothing);
                self.proven(id, step, verdict, visit);
            }
            Decision::Certified(verdict, account) => {
                connection.account = Some(account);
                let visit = visit(credentials, &entrance, ProvenBy::Certificate);
                self.proven(id, step, verdict, visit);
            }
            Decision::Vouched(verdict) => self.decided(id, step, verdict),
            Decision::Ask(question) => {
                let visit = visit(credentials, &entrance, ProvenBy::Password);
                self.ask(id, step, *question, visit);
            }
        }
    }

    fn ask(&mut self, id: ConnectionId, step: u32, question: Question, visit: Visit) {
        self.count(|tally| &tally.questions);
        let suspect = Suspect {
            asker: self.asker(id, step),
            visit: Box::new(visit),
        };
        let ask = |number, _: &Suspect| Question {
            id: number,
            ..question
        };
        match self.broker.questions.ask(suspect, ask) {
            Ok(number) => self.note_question(id, number),
            Err(_) => {
                self.count(|tally| &tally.questions_refused);
                self.decided(id, step, Verdict::Refused(Reason::ServerBusy));
            }
        }
    }

    /// It is known who somebody is, or that it is nobody. Where a program of this process wants to
    /// be asked about those who would be let in, it is asked now: before CONNACK, and before a
    /// session is touched.
    pub(super) fn proven(&mut self, id: ConnectionId, step: u32, verdict: Verdict, visit: Visit) {
        let grant = match verdict {
            Verdict::Granted(grant) if self.broker.is_consulted() => grant,
            verdict => {
                self.decided(id, step, verdict);
                return;
            }
        };
        if self.connections.get_mut(id).is_none() {
            return;
        }
        self.count(|tally| &tally.admissions);
        let candidate = Candidate {
            asker: self.asker(id, step),
            grant,
        };
        let ask = |number, candidate: &Candidate| Admission::new(number, visit, &candidate.grant);
        match self.broker.admissions.ask(candidate, ask) {
            Ok(number) => self.note_question(id, number),
            Err(_) => {
                self.count(|tally| &tally.admissions_refused);
                self.decided(id, step, Verdict::Refused(Reason::ServerBusy));
            }
        }
    }

    fn asker(&self, id: ConnectionId, step: u32) -> Asker {
        Asker {
            shard: self.index,
            id,
            step,
        }
    }

    /// Remembers what a connection waits for, so that the question goes when it goes.
    fn note_question(&mut self, id: ConnectionId, number: QuestionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            // Numbers begin at 1.
            connection.question = NonZeroU64::new(number);
        }
    }

    /// Gives the engine a verdict; void where the listener asks for another proof by now.
    pub(super) fn decided(&mut self, id: ConnectionId, step: u32, mut verdict: Verdict) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        connection.question = None;
        if !connection.entry.holds() && !connection.granted {
            verdict = Verdict::Refused(Reason::ServerUnavailable);
        }
        connection.granted |= matches!(verdict, Verdict::Granted(_));
        let seen = connection.expulsions_seen;
        self.shard.handle(
            self.now,
            Input::Decided { id, step, verdict },
            &mut self.effects,
        );
        self.expel_again(id, seen);
    }

    /// Repeats the orders to expel that were given while a decision or a handover was under way:
    /// this shard may have obeyed them before the connection was there to be closed.
    pub(super) fn expel_again(&mut self, id: ConnectionId, seen: u64) {
        if self.broker.expulsions.count() == seen {
            return;
        }
        match self.broker.expulsions.since(seen) {
            Some(orders) => {
                for order in orders {
                    self.expel_here(&order);
                }
            }
            // Nobody can say any more whether it was meant.
            None => self.lose(id),
        }
    }

    /// Moves a connection to its home with everything in it.
    fn hand_over(&mut self, id: ConnectionId, to: ShardIndex, parcel: Box<Parcel>) {
        let Some(mut connection) = self.connections.remove(id) else {
            return;
        };
        self.count(|tally| &tally.handed_over);
        // A socket that the poll does not let go cannot join another one.
        if self
            .poll
            .registry()
            .deregister(connection.stream.source())
            .is_err()
        {
            return;
        }
        if let Some(InHand { start, end, .. }) = self.in_hand.take_if(|hand| hand.id == id) {
            if connection
                .transport
                .keep_ahead(&self.buffer[start..end])
                .is_err()
            {
                return;
            }
        }
        let moved = Moved {
            stream: connection.stream,
            transport: connection.transport,
            entry: connection.entry,
            address: connection.address,
            account: connection.account,
            expulsions_seen: connection.expulsions_seen,
            half_closed: connection.half_closed,
            parcel,
        };
        self.broker.post(to, Letter::Adopted(Box::new(moved)));
    }
}

/// How somebody came, for whoever is asked about it later.
fn visit(credentials: &Credentials, entrance: &Entrance, proven_by: ProvenBy) -> Visit {
    Visit {
        listener: entrance.name.to_string(),
        address: credentials.origin.address,
        client_id: credentials.client_id.to_string(),
        version: credentials.version,
        proven_by,
    }
}
