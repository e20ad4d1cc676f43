//! Reading the inbox.

use casemate_codec::Reason;
use casemate_engine::{Input, Loss, Millis, ShardIndex};

use super::Worker;
use crate::connection::{Connection, Moved, Phase};
use crate::event::EventKind;
use crate::expulsion::Expulsion;
use crate::gate::ACCOUNT_REALM;
use crate::inbox::{DoorChange, Letter};
use crate::store::{Batch, News};

impl Worker {
    /// Serves every letter that is there.
    pub(super) fn open_letters(&mut self) {
        let mut letters = std::mem::take(&mut self.letters);
        self.broker.posts[usize::from(self.index)]
            .inbox
            .swap(&mut letters);
        for letter in letters.drain(..) {
            self.open_letter(letter);
            self.settle();
        }
        self.letters = letters;
    }

    fn open_letter(&mut self, letter: Letter) {
        match letter {
            Letter::Proven {
                id,
                step,
                verdict,
                visit,
            } => self.proven(id, step, verdict, *visit),
            Letter::Decided { id, step, verdict } => self.decided(id, step, verdict),
            Letter::Adopted(moved) => self.adopt(*moved),
            Letter::Forwarded { from, batch } => self.take_batch(from, &batch),
            Letter::Drained { to, bytes } => {
                let input = Input::Drained { to, bytes };
                self.shard.handle(self.now, input, &mut self.effects);
            }
            Letter::Kept(answers) => self.kept(answers),
            Letter::Checkpoint => {
                self.shard
                    .handle(self.now, Input::Checkpoint, &mut self.effects);
            }
            Letter::StoreWorks => {
                if let Some(line) = &mut self.line {
                    line.hand_in();
                }
            }
            Letter::Accounts => self.check_accounts(),
            Letter::Entered { stream, doorway } => self.enter(stream, &doorway),
            Letter::Doors(change) => self.change_doors(change),
            Letter::Policy(policy) => {
                self.shard
                    .handle(self.now, Input::Policy(policy), &mut self.effects);
            }
            Letter::Expel(order) => self.expel_here(&order),
            Letter::Answer { round } => self.broker.answered(self.index, round),
            Letter::Drain { server_reference } => self.begin_drain(server_reference.as_deref()),
            Letter::Leave => {
                self.leaving = true;
                self.shard.handle(self.now, Input::Leave, &mut self.effects);
            }
            Letter::Stop { until } => self.stop(until),
        }
    }

    /// Tells the engine what the store has kept, once for all of it, and what not.
    fn kept(&mut self, answers: Vec<casemate_store::Answer>) {
        let mut persisted = None;
        for mut answer in answers {
            if answer.place.is_some() {
                self.shard.reuse(std::mem::take(&mut answer.bytes));
            }
            match self.line.as_mut().and_then(|line| line.answered(answer)) {
                Some(News::Persisted(seq)) => persisted = Some(seq),
                Some(News::Failed(batches)) => {
                    self.persisted(persisted.take());
                    for Batch { seq, records } in batches {
                        let input = Input::PersistFailed { seq, records };
                        self.shard.handle(self.now, input, &mut self.effects);
                    }
                }
                None => {}
            }
        }
        self.persisted(persisted);
    }

    fn persisted(&mut self, seq: Option<u64>) {
        if let Some(seq) = seq {
            let input = Input::Persisted { seq };
            self.shard.handle(self.now, input, &mut self.effects);
        }
    }

    /// Hands a neighbour's batch to the engine and tells the neighbour that its pipe has room.
    fn take_batch(&mut self, from: ShardIndex, batch: &[u8]) {
        self.shard.handle(
            self.now,
            Input::Forwarded { from, batch },
            &mut self.effects,
        );
        self.settle();
        let (to, bytes) = (self.index, batch.len());
        self.mail(from, Letter::Drained { to, bytes }, true);
    }

    /// Puts a letter to a neighbour where the end of the turn finds it: one wake-up for all.
    pub(super) fn mail(&mut self, to: ShardIndex, letter: Letter, can_wait: bool) {
        if let Some(mail) = self.mail.get_mut(usize::from(to)) {
            mail.letters.push(letter);
            mail.is_urgent |= !can_wait;
        }
    }

    /// Posts what the turn has for each neighbour.
    pub(super) fn send_mail(&mut self) {
        for (post, mail) in self.broker.posts.iter().zip(&mut self.mail) {
            if !mail.letters.is_empty() {
                let is_urgent = std::mem::take(&mut mail.is_urgent);
                post.inbox.post_all(&mut mail.letters, !is_urgent);
            }
        }
    }

    /// Takes in a connection that belongs here.
    fn adopt(&mut self, moved: Moved) {
        let full = self.connections.len() >= self.broker.settings.connections_max;
        if self.stopping.is_some() || full {
            self.count(|tally| &tally.adoptions_refused);
            return;
        }
        let Moved {
            stream,
            transport,
            entry,
            address,
            account,
            expulsions_seen,
            ..
        } = moved;
        let mut connection = Connection::new(stream, transport, entry, address);
        connection.phase = Phase::Open;
        connection.told = false;
        connection.granted = true;
        connection.half_closed = moved.half_closed;
        connection.unread = connection.transport.is_ahead();
        connection.account = account;
        connection.expulsions_seen = expulsions_seen;
        let Some(id) = self.install(connection) else {
            self.count(|tally| &tally.adoptions_refused);
            return;
        };
        let input = Input::Adopted {
            id,
            parcel: moved.parcel,
        };
        self.shard.handle(self.now, input, &mut self.effects);
        // Both may have changed while it was between the shards.
        self.expel_again(id, expulsions_seen);
        self.check_account(id);
        self.settle();
        // What came along may be whole packets already; and handshake bytes may wait to leave.
        self.queue_reading(id);
        self.dirty.push(id);
    }

    /// Opens and closes doors. A server that stops opens none any more.
    fn change_doors(&mut self, change: DoorChange) {
        self.doors
            .retain(|door| !change.closed.contains(&door.id()));
        if !self.draining {
            self.doors.extend(change.opened);
        }
        self.broker.doors_changed(self.index, change.round);
    }

    /// Closes every connection whose account no longer stands as it was, or that was let in
    /// without proof by a listener that no longer does so.
    fn check_accounts(&mut self) {
        let ids: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|(_, connection)| {
                connection.account.is_some() || connection.entry.is_unwelcome()
            })
            .map(|(id, _)| id)
            .collect();
        for id in ids {
            self.check_account(id);
        }
    }

    fn check_account(&mut self, id: casemate_engine::ConnectionId) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let account = connection.account.as_ref();
        let holds = account.is_none_or(|account| self.broker.gate.accounts().hold(account));
        if !connection.is_open() || holds && !connection.entry.is_unwelcome() {
            return;
        }
        let (listener, address) = (connection.listener(), connection.address.get());
        self.count(|tally| &tally.accounts_gone);
        self.tell(Some(listener), address, EventKind::AccountGone);
        self.say_closed(id, Loss::Refused(Reason::NotAuthorized));
        self.drain(id, Vec::new(), false);
    }

    /// Obeys an order to expel in this shard.
    pub(super) fn expel_here(&mut self, order: &Expulsion) {
        let input = Input::Expel {
            realm: ACCOUNT_REALM,
            name: &order.name,
            end_sessions: order.end_sessions,
            reason: Reason::AdministrativeAction,
        };
        self.shard.handle(self.now, input, &mut self.effects);
    }

    /// Closes the listeners, so that whoever comes goes elsewhere, and makes no new promise.
    fn begin_drain(&mut self, server_reference: Option<&str>) {
        self.close_to_strangers();
        let input = Input::Drain { server_reference };
        self.shard.handle(self.now, input, &mut self.effects);
    }

    /// Tells every client; the loop ends when all have gone.
    fn stop(&mut self, until: Millis) {
        let until = self.stopping.map_or(until, |earlier| earlier.min(until));
        let first = self.stopping.replace(until).is_none();
        if !first {
            return;
        }
        self.close_to_strangers();
        let reason = Reason::ServerShuttingDown;
        self.shard
            .handle(self.now, Input::Stop { reason }, &mut self.effects);
    }

    /// Closes the listeners and whoever has not begun to speak MQTT.
    fn close_to_strangers(&mut self) {
        self.draining = true;
        self.doors.clear();
        let shaking: Vec<_> = self
            .connections
            .iter_mut()
            .filter(|(_, connection)| matches!(connection.phase, Phase::Handshake))
            .map(|(id, _)| id)
            .collect();
        for id in shaking {
            self.lose(id);
        }
    }
}
