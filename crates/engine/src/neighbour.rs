//! Neighbour shards: interest, messages, receipts and questions through bounded pipes.
//!
//! Everything a neighbour must have taken over before somebody is told "done" carries a number
//! that grows with each such message of this shard; a neighbour answers with the number up to
//! which it has. An acknowledgement that waits for a number waits for every neighbour that still
//! owes a lower one.

mod question;
mod receive;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};

use crate::acknowledge::Stake;
use crate::door::{Effect, ShardIndex};
use crate::message::Draft;
use crate::outbox::GroupRef;
use crate::replay::Replay;
use crate::route::Route;
use crate::session::SessionRef;
use crate::shard::Shard;
use crate::share::{Member, MemberChange};
use crate::verbatim::Verbatim;
use crate::wire::{put_bytes, put_message, put_text, put_whole};
use question::Question;

const PUBLISH: u8 = 1;
const RECEIPT: u8 = 2;
const INTEREST: u8 = 3;
const MEMBER: u8 = 4;
const SHARE: u8 = 5;
const RETURN: u8 = 6;
const ASK: u8 = 7;
const TELL: u8 = 8;
/// The receipt for this number comes alone, later.
const DEFER: u8 = 9;
const RECEIPT_APART: u8 = 10;
/// Every shard has written down what it has of a message.
const COMPLETE: u8 = 11;
/// A PUBLISH as it came, or a run of them.
const HEARD: u8 = 12;

/// What a forwarded PUBLISH is for.
const ROUTE: u8 = 1;
const STORE: u8 = 2;

/// Room for a message beside its topic, properties and payload, bytes.
const MESSAGE_HEAD_BYTES: usize = 64;

/// Room that a batch begins with at most, bytes.
const STAGED_BYTES_MAX: usize = 64 * 1024;

/// One neighbour and the pipe to it.
#[derive(Default)]
pub(crate) struct Peer {
    /// Written in this turn.
    staged: Vec<u8>,
    /// Given to the shell and not yet drained.
    in_pipe: usize,
    /// Numbers that this neighbour has not confirmed, ascending.
    outstanding: VecDeque<u64>,
    /// Those of them that it confirms one by one, as they wait for neighbours of its own.
    deferred: BTreeSet<u64>,
    /// What we have not confirmed to it, and which durability that waits for.
    owed: VecDeque<(u64, Stake)>,
    /// What we confirm to it one by one. Were these in the row of the others, two shards could
    /// each wait for the other's row for ever.
    owed_apart: Vec<(u64, Stake)>,
    receipt: Option<u64>,
    /// Messages that arose while another pipe was drained, which must never wait for room here;
    /// bounded by the receipts that their origin may be without.
    held: VecDeque<Vec<u8>>,
    /// A question about retained messages is under way. There is never a second one: answers are
    /// written whether the pipe has room or not, so that there may be one in it at a time.
    asking: bool,
    /// Sessions with a question, in line; each at most once.
    askers: VecDeque<SessionRef>,
    /// Number of the last message that came from it.
    received: u64,
    /// Its question, where that must wait for what others have under way to this shard.
    question: Option<Question>,
    /// For each shard, the number of its newest message for this neighbour's store that this shard
    /// has seen too: what a subscriber here may know already.
    news: Vec<u64>,
}

impl Peer {
    /// True where a number of the stake is not confirmed.
    fn is_without(&self, stake: Stake) -> bool {
        // As nearly always: what is asked about is all confirmed, or the first that is not.
        match self.outstanding.front() {
            Some(first) if (stake.first..=stake.last).contains(first) => return true,
            Some(first) if *first < stake.first => {}
            _ if self.deferred.is_empty() => return false,
            _ => {}
        }
        let place = self
            .outstanding
            .partition_point(|number| *number < stake.first);
        let open = self
            .outstanding
            .get(place)
            .is_some_and(|number| *number <= stake.last);
        open || self
            .deferred
            .range(stake.first..=stake.last)
            .next()
            .is_some()
    }

    /// Where the next numbered message is written: behind what is held, as a receipt speaks for
    /// all lower numbers.
    fn tail(&mut self) -> &mut Vec<u8> {
        if self.held.is_empty() {
            return &mut self.staged;
        }
        self.held.push_back(Vec::new());
        let last = self.held.len() - 1;
        &mut self.held[last]
    }

    fn write_receipt(&mut self) {
        if let Some(number) = self.receipt.take() {
            self.staged.push(RECEIPT);
            self.staged.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn unconfirmed(&self) -> u64 {
        (self.outstanding.len() + self.deferred.len()) as u64
    }
}

impl Shard {
    /// True where every neighbour has confirmed these numbers.
    pub(crate) fn are_confirmed(&self, stake: Stake) -> bool {
        self.peers.iter().all(|peer| !peer.is_without(stake))
    }

    /// Waits for all that the neighbours have not confirmed yet.
    pub(crate) fn all_numbers(&self) -> Stake {
        match self.forwarded {
            0 => Stake::default(),
            last => Stake::of_numbers(1, last),
        }
    }

    fn pipe_bytes_max(&self) -> usize {
        // The largest packet must fit, or it would wait for ever.
        self.settings
            .pipe_bytes
            .max(self.settings.packet_bytes_max as usize * 2)
    }

    fn peer_has_room(&self, peer: usize, bytes: usize) -> bool {
        let found = &self.peers[peer];
        found.in_pipe + found.staged.len() + bytes <= self.pipe_bytes_max()
            && found.unconfirmed() < self.settings.receipts_max
            && found.held.is_empty()
    }

    /// True where every pipe takes a small message; SUBSCRIBE waits for it.
    pub(crate) fn pipes_have_room(&self, bytes: usize) -> bool {
        let me = usize::from(self.place.index);
        (0..self.peers.len()).all(|peer| peer == me || self.peer_has_room(peer, bytes))
    }

    /// True where a message may be routed now: all its pipes have room, or it waits whole.
    #[inline]
    pub(crate) fn has_room(&self, draft: &Draft<'_>, route: &Route) -> bool {
        if self.place.count == 1 {
            return true;
        }
        let mut peers = self.peers_of(draft, route.peers);
        if !route.groups().is_empty() {
            // The member may live anywhere.
            peers = u64::MAX;
        }
        self.have_room(peers, draft.bytes() + MESSAGE_HEAD_BYTES)
    }

    /// True where a run of messages that are not retained may be routed now as a whole; no group
    /// stands on their way.
    #[inline]
    pub(crate) fn has_room_for(&self, run: &Verbatim<'_>, route: &Route) -> bool {
        route.peers == 0 || self.have_room(route.peers, run.bytes() + MESSAGE_HEAD_BYTES)
    }

    fn have_room(&self, peers: u64, bytes: usize) -> bool {
        let me = usize::from(self.place.index);
        (0..self.peers.len())
            .all(|peer| peer == me || peers & 1 << peer == 0 || self.peer_has_room(peer, bytes))
    }

    fn peers_of(&self, draft: &Draft<'_>, interested: u64) -> u64 {
        let mut peers = interested;
        if draft.retain {
            peers |= 1 << self.retained_home(draft.tenant, draft.topic);
        }
        peers & !(1 << self.place.index)
    }

    /// Takes the next number for a message to these neighbours.
    fn number_for(&mut self, peers: u64) -> u64 {
        self.forwarded += 1;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if peers & 1 << index != 0 {
                peer.outstanding.push_back(self.forwarded);
            }
        }
        self.forwarded
    }

    /// Sends a message once to each interested neighbour, and to the home of its topic's retained
    /// message. `heard` is the packet as it came, or a run of which `draft` is the first.
    pub(crate) fn forward_to_peers(
        &mut self,
        draft: &Draft<'_>,
        heard: Option<&Verbatim<'_>>,
        interested: u64,
    ) -> Stake {
        if self.place.count == 1 {
            return Stake::default();
        }
        let peers = self.peers_of(draft, interested);
        if peers == 0 {
            return Stake::default();
        }
        let number = self.number_for(peers);
        let home = draft
            .retain
            .then(|| self.retained_home(draft.tenant, draft.topic));
        if let Some(home) = home {
            self.note_news(self.place.index, home, number);
        }
        // Who retains a message keeps what it says, not how it came.
        let heard = heard.filter(|_| !draft.retain);
        let count = heard.map_or(1, Verbatim::count);
        self.counters.forwarded += u64::from(peers.count_ones()) * count;
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if peers & 1 << index == 0 {
                continue;
            }
            let mut purpose = 0;
            if interested & 1 << index != 0 {
                purpose |= ROUTE;
            }
            if home.is_some_and(|home| index == usize::from(home)) {
                purpose |= STORE;
            }
            let out = peer.tail();
            out.push(if heard.is_some() { HEARD } else { PUBLISH });
            out.extend_from_slice(&number.to_le_bytes());
            match heard {
                Some(heard) => {
                    out.extend_from_slice(&draft.tenant.to_le_bytes());
                    out.extend_from_slice(&draft.publisher.to_le_bytes());
                    heard.put(out);
                }
                None => {
                    out.push(purpose);
                    put_message(out, draft);
                }
            }
            put_whole(out, draft.whole);
        }
        Stake::of_numbers(number, number)
    }

    /// Tells every neighbour that this shard is, or is no longer, interested in a filter.
    pub(crate) fn announce_interest(&mut self, tenant: u32, filter: &str, add: bool) -> Stake {
        if self.place.count == 1 {
            return Stake::default();
        }
        let everybody = !(1u64 << self.place.index) & mask(self.place.count);
        let number = self.number_for(everybody);
        let me = usize::from(self.place.index);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index != me {
                let out = peer.tail();
                out.push(INTEREST);
                out.extend_from_slice(&number.to_le_bytes());
                out.push(u8::from(add));
                out.extend_from_slice(&tenant.to_le_bytes());
                put_text(out, filter);
            }
        }
        Stake::of_numbers(number, number)
    }

    /// Tells the home of a share group about one of our sessions.
    pub(crate) fn tell_member(
        &mut self,
        home: ShardIndex,
        tenant: u32,
        (name, filter): (&str, &str),
        change: MemberChange,
        member: &Member,
    ) -> Stake {
        let number = self.number_for(1 << home);
        let out = self.peers[usize::from(home)].tail();
        out.push(MEMBER);
        out.extend_from_slice(&number.to_le_bytes());
        out.push(change as u8);
        out.extend_from_slice(&tenant.to_le_bytes());
        put_text(out, name);
        put_text(out, filter);
        put_session(out, member.session);
        out.push(member.qos as u8);
        out.extend_from_slice(&member.id.to_le_bytes());
        out.push(u8::from(member.retain_as_published));
        out.push(u8::from(member.online));
        Stake::of_numbers(number, number)
    }

    /// Sends a share group's message to the shard of the chosen member.
    pub(crate) fn send_share(
        &mut self,
        member: &Member,
        group: GroupRef,
        attempts: u8,
        draft: &Draft<'_>,
    ) -> Stake {
        let mut out = Vec::with_capacity(draft.bytes() + MESSAGE_HEAD_BYTES);
        let number = self.number_for(1 << member.shard);
        out.push(SHARE);
        out.extend_from_slice(&number.to_le_bytes());
        put_session(&mut out, member.session);
        out.push(member.qos as u8);
        out.extend_from_slice(&member.id.to_le_bytes());
        out.push(u8::from(member.retain_as_published));
        out.extend_from_slice(&group.0.to_le_bytes());
        out.push(attempts);
        put_message(&mut out, draft);
        put_whole(&mut out, draft.whole);
        self.hold_or_stage(member.shard, out);
        Stake::of_numbers(number, number)
    }

    /// Gives a share group's message back to its home: the member is gone or may not have it.
    pub(crate) fn return_share(
        &mut self,
        group: GroupRef,
        attempts: u8,
        draft: &Draft<'_>,
    ) -> Stake {
        let home = group.home();
        let mut out = Vec::with_capacity(draft.bytes() + MESSAGE_HEAD_BYTES);
        let number = self.number_for(1 << home);
        out.push(RETURN);
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&group.0.to_le_bytes());
        out.push(attempts);
        put_message(&mut out, draft);
        put_whole(&mut out, draft.whole);
        self.hold_or_stage(home, out);
        Stake::of_numbers(number, number)
    }

    fn hold_or_stage(&mut self, to: ShardIndex, bytes: Vec<u8>) {
        let max = self.pipe_bytes_max();
        let peer = &mut self.peers[usize::from(to)];
        if peer.held.is_empty() && peer.in_pipe + peer.staged.len() + bytes.len() <= max {
            peer.staged.extend_from_slice(&bytes);
        } else {
            peer.held.push_back(bytes);
        }
    }

    /// Asks a neighbour for the next retained messages of a session's first replay, now or when
    /// those before it have been answered.
    pub(crate) fn ask_retained(&mut self, session: u32) {
        let Some(found) = self.sessions.get_mut(session) else {
            return;
        };
        let (me, tenant) = (found.me(session), found.tenant);
        let Some(replay) = found.replays.front_mut() else {
            return;
        };
        let peer = &mut self.peers[usize::from(replay.shard)];
        if peer.asking {
            if !std::mem::replace(&mut found.is_in_line, true) {
                peer.askers.push_back(me);
            }
            return;
        }
        peer.asking = true;
        self.asked = self.asked.wrapping_add(1).max(1);
        replay.asked = self.asked;
        let out = &mut peer.staged;
        out.push(ASK);
        put_session(out, me);
        out.extend_from_slice(&replay.asked.to_le_bytes());
        out.extend_from_slice(&tenant.to_le_bytes());
        put_text(out, &replay.filter);
        out.push(u8::from(replay.after.is_some()));
        put_text(out, replay.after.as_deref().unwrap_or(""));
        for origin in 0..usize::from(self.place.count) {
            let number = peer.news.get(origin).copied().unwrap_or(0);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }

    /// A message that `home` is to retain was seen here: no answer of that store may be older.
    fn note_news(&mut self, origin: ShardIndex, home: ShardIndex, number: u64) {
        if home == self.place.index || home == origin {
            return;
        }
        let news = &mut self.peers[usize::from(home)].news;
        if news.is_empty() {
            news.resize(usize::from(self.place.count), 0);
        }
        news[usize::from(origin)] = number;
    }

    /// A neighbour has answered: the next in line may ask it.
    fn answered(&mut self, by: ShardIndex) {
        let peer = usize::from(by);
        self.peers[peer].asking = false;
        while !self.peers[peer].asking {
            let Some(next) = self.peers[peer].askers.pop_front() else {
                return;
            };
            let Some(slot) = self.sessions.resolve(next) else {
                continue;
            };
            let Some(found) = self.sessions.get_mut(slot) else {
                continue;
            };
            found.is_in_line = false;
            let still_asks = |replay: &Replay| replay.shard == by && replay.needs_asking();
            match found.link {
                Some(_) if found.replays.front().is_some_and(still_asks) => {
                    self.ask_retained(slot);
                }
                // Its replay has moved on, perhaps to another neighbour.
                Some(link) => self.pump_later(link),
                // It asks when its client is back.
                None => {}
            }
        }
    }

    /// A neighbour has taken bytes out of our pipe.
    pub(crate) fn drained(&mut self, to: ShardIndex, bytes: usize) {
        let max = self.pipe_bytes_max();
        let Some(peer) = self.peers.get_mut(usize::from(to)) else {
            return;
        };
        peer.in_pipe = peer.in_pipe.saturating_sub(bytes);
        while let Some(next) = peer.held.front() {
            if peer.in_pipe + peer.staged.len() + next.len() > max {
                break;
            }
            if let Some(next) = peer.held.pop_front() {
                peer.staged.extend_from_slice(&next);
            }
        }
        self.retry_own();
        self.retry_blocked();
    }

    /// Sends what this turn has written to the neighbours, receipts first of all.
    pub(crate) fn forward_staged(&mut self) {
        for (index, peer) in self.peers.iter_mut().enumerate() {
            peer.write_receipt();
            if !peer.staged.is_empty() {
                // The next batch is about as large: grown from nothing, it would be copied often.
                let next = Vec::with_capacity(peer.staged.len().min(STAGED_BYTES_MAX));
                let batch = std::mem::replace(&mut peer.staged, next);
                peer.in_pipe += batch.len();
                self.effects.push(Effect::Forward {
                    to: index as ShardIndex,
                    batch,
                });
            }
        }
    }

    /// True where something here goes on when a neighbour says what has arrived; else that can
    /// wait for the next turn.
    pub fn awaits_neighbours(&self) -> bool {
        let is_waiting = |peer: &Peer| {
            let owes = !peer.owed.is_empty() || !peer.owed_apart.is_empty();
            owes || peer.asking || !peer.held.is_empty() || !peer.askers.is_empty()
        };
        self.drain.is_some()
            || !self.gated.is_empty()
            || !self.blocked.is_empty()
            || !self.own.is_empty()
            || self.completions.are_open()
            || self.peers.iter().any(is_waiting)
    }

    /// True where a neighbour is to be told something at the end of the turn.
    pub(crate) fn has_staged(&self) -> bool {
        self.peers
            .iter()
            .any(|peer| peer.receipt.is_some() || !peer.staged.is_empty())
    }

    /// Tells every neighbour that a message of this shard is complete.
    pub(crate) fn tell_complete(&mut self, number: u64) {
        let me = usize::from(self.place.index);
        for (index, peer) in self.peers.iter_mut().enumerate() {
            if index != me {
                peer.staged.push(COMPLETE);
                peer.staged.extend_from_slice(&number.to_le_bytes());
            }
        }
    }

    /// Owes a neighbour a receipt once `stake` is settled.
    fn owe(&mut self, to: ShardIndex, number: u64, stake: Stake) {
        let settled = self.is_settled(stake);
        let peer = &mut self.peers[usize::from(to)];
        if !settled && stake.has_numbers() {
            peer.staged.push(DEFER);
            peer.staged.extend_from_slice(&number.to_le_bytes());
            peer.owed_apart.push((number, stake));
            return;
        }
        match peer.owed.back_mut() {
            None if settled => peer.receipt = peer.receipt.max(Some(number)),
            // What waits behind an older message may as well wait with it.
            Some((last, older)) if settled || *older == stake => *last = number,
            _ => peer.owed.push_back((number, stake)),
        }
    }

    /// Gives the receipts whose stakes are settled.
    pub(crate) fn settle_receipts(&mut self) {
        for index in 0..self.peers.len() {
            while let Some((number, stake)) = self.peers[index].owed.front().copied() {
                if !self.is_settled(stake) {
                    break;
                }
                self.peers[index].owed.pop_front();
                let peer = &mut self.peers[index];
                peer.receipt = peer.receipt.max(Some(number));
            }
            let apart = std::mem::take(&mut self.peers[index].owed_apart);
            for (number, stake) in apart {
                let settled = self.is_settled(stake);
                let peer = &mut self.peers[index];
                if settled {
                    peer.staged.push(RECEIPT_APART);
                    peer.staged.extend_from_slice(&number.to_le_bytes());
                } else {
                    peer.owed_apart.push((number, stake));
                }
            }
        }
    }

    /// Durability up to `seq` has failed: what neighbours wait for is asked for again, so that no
    /// receipt leaves before a commit that really covers it.
    pub(crate) fn renew_owed(&mut self, seq: u64) {
        let renewed = self.touch_store();
        for peer in &mut self.peers {
            let rows = peer.owed.iter_mut().chain(&mut peer.owed_apart);
            for (_, stake) in rows {
                if stake.seq > 0 && stake.seq <= seq {
                    *stake = stake.and(renewed);
                }
            }
        }
    }
}

/// True for a batch that says no more than which numbers have arrived: a shard that does not await
/// its neighbours may read it later.
pub fn is_receipt(batch: &[u8]) -> bool {
    batch.len() == 1 + size_of::<u64>() && batch[0] == RECEIPT
}

/// Bits of all shards.
fn mask(count: ShardIndex) -> u64 {
    u64::MAX >> (64 - count)
}

fn put_session(out: &mut Vec<u8>, session: SessionRef) {
    put_bytes(out, &session.slot.to_le_bytes());
    put_bytes(out, &session.serial.to_le_bytes());
}
