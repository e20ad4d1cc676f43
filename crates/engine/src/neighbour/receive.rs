//! What comes from a neighbour shard, message by message.

use std::collections::VecDeque;

use casemate_codec::QoS;

use super::question::Question;
use super::{
    ASK, COMPLETE, DEFER, HEARD, INTEREST, MEMBER, PUBLISH, RECEIPT, RECEIPT_APART, RETURN, ROUTE,
    SHARE, STORE, TELL,
};
use crate::acknowledge::Stake;
use crate::door::ShardIndex;
use crate::journal::Whole;
use crate::message::Draft;
use crate::outbox::GroupRef;
use crate::policy::Permit;
use crate::route::Entry;
use crate::session::SessionRef;
use crate::shard::Shard;
use crate::share::{Member, MemberChange};
use crate::verbatim::Verbatim;
use crate::wire::Reader;

impl Shard {
    /// Takes a batch of a neighbour in.
    pub(crate) fn batch_received(&mut self, from: ShardIndex, batch: &[u8]) {
        let mut reader = Reader::new(batch);
        while !reader.is_empty() {
            let read = self.message_received(from, &mut reader);
            // The neighbour is this same program: anything else would lose messages silently.
            assert!(
                read.is_some(),
                "a batch between shards does not read as it was written"
            );
        }
        self.answer_questions();
        self.settle();
    }

    fn message_received(&mut self, from: ShardIndex, reader: &mut Reader<'_>) -> Option<()> {
        let kind = reader.byte()?;
        if kind == ASK {
            let question = Question::read(reader, self.place.count)?;
            self.peers[usize::from(from)].question = Some(question);
            return Some(());
        }
        if kind == TELL {
            self.retained_told(reader)?;
            self.answered(from);
            return Some(());
        }
        let number = reader.long()?;
        if kind == RECEIPT {
            let outstanding = &mut self.peers[usize::from(from)].outstanding;
            while outstanding.front().is_some_and(|front| *front <= number) {
                outstanding.pop_front();
            }
            return Some(());
        }
        let peer = &mut self.peers[usize::from(from)];
        if kind == DEFER {
            if let Ok(place) = peer.outstanding.binary_search(&number) {
                peer.outstanding.remove(place);
                peer.deferred.insert(number);
            }
            return Some(());
        }
        if kind == COMPLETE {
            self.completed(Whole::new(from, number));
            return Some(());
        }
        let peer = &mut self.peers[usize::from(from)];
        if kind == RECEIPT_APART {
            peer.deferred.remove(&number);
            return Some(());
        }
        let stake = match kind {
            PUBLISH => self.publish_forwarded(from, number, reader)?,
            HEARD => self.heard_forwarded(reader)?,
            INTEREST => self.interest_received(from, reader)?,
            MEMBER => self.member_received(from, reader)?,
            SHARE => self.share_received(reader)?,
            RETURN => {
                let group = GroupRef(reader.long()?);
                let attempts = reader.byte()?;
                let draft = whole_message(reader)?;
                match self.has_expired(&draft) {
                    true => Stake::default(),
                    false => self.share_returned(group, attempts, &draft),
                }
            }
            _ => return None,
        };
        self.peers[usize::from(from)].received = number;
        self.owe(from, number, stake);
        Some(())
    }

    fn publish_forwarded(
        &mut self,
        from: ShardIndex,
        number: u64,
        reader: &mut Reader<'_>,
    ) -> Option<Stake> {
        let purpose = reader.byte()?;
        let draft = whole_message(reader)?;
        if draft.retain {
            let home = self.retained_home(draft.tenant, draft.topic);
            self.note_news(from, home, number);
        }
        let mut stake = Stake::default();
        if purpose & STORE != 0 {
            stake = self.retain_here(&draft);
        }
        if purpose & ROUTE != 0 && !self.has_expired(&draft) {
            let route = self.route(draft.tenant, draft.topic);
            // The publisher's shard has judged the right to publish; recipients are judged here.
            let permit = Permit::for_the_broker();
            stake = stake.and(self.deliver_here(permit, &draft, &route));
        }
        Some(stake)
    }

    /// Takes a packet in that goes on as it came, or a run of them; none expires or is retained.
    fn heard_forwarded(&mut self, reader: &mut Reader<'_>) -> Option<Stake> {
        let tenant = reader.int()?;
        let publisher = reader.long()?;
        let (run, first) = Verbatim::read(reader)?;
        let whole = reader.whole()?;
        let route = match self.routes.find(tenant, first.topic_bytes) {
            Some(route) => route,
            None => self.route(tenant, std::str::from_utf8(first.topic_bytes).ok()?),
        };
        let draft = Draft {
            tenant,
            topic: &route.topic,
            payload: first.payload,
            qos: first.qos,
            publisher,
            whole,
            ..Draft::EMPTY
        };
        let head_bytes = run.head_bytes(&first);
        if run.count() > 1 && route.groups().is_empty() {
            // The publisher's shard has judged the right to publish; recipients are judged here.
            let permit = Permit::for_the_broker();
            return Some(self.route_run(permit, &draft, &run, head_bytes, &route));
        }
        let mut stake = Stake::default();
        for packet in run.each() {
            let payload = packet.payload(head_bytes);
            let draft = Draft { payload, ..draft };
            let permit = Permit::for_the_broker();
            stake = stake.and(self.spread_here(permit, &draft, Some(packet), &route));
        }
        Some(stake)
    }

    /// True where a message has expired in the pipe: nobody has been sent it yet, so nobody is
    /// (MQTT 5.0 §3.3.2.3.3).
    fn has_expired(&mut self, draft: &Draft<'_>) -> bool {
        let expired = draft.is_expired(self.now);
        self.counters.dropped_expired += u64::from(expired);
        expired
    }

    fn interest_received(&mut self, from: ShardIndex, reader: &mut Reader<'_>) -> Option<Stake> {
        let add = reader.byte()? != 0;
        let tenant = reader.int()?;
        let filter = reader.text()?;
        let same = |entry: &Entry| *entry == Entry::Peer(from);
        if add {
            self.routes
                .tree
                .insert(tenant, filter, Entry::Peer(from), same);
        } else {
            self.routes.tree.remove(tenant, filter, same);
        }
        self.routes.touch(tenant, filter);
        Some(Stake::default())
    }

    fn member_received(&mut self, from: ShardIndex, reader: &mut Reader<'_>) -> Option<Stake> {
        let change = MemberChange::from_byte(reader.byte()?)?;
        let tenant = reader.int()?;
        let (name, filter) = (reader.text()?, reader.text()?);
        let session = read_session(reader)?;
        let qos = QoS::from_bits(reader.byte()?)?;
        let id = reader.int()?;
        let retain_as_published = reader.byte()? != 0;
        let online = reader.byte()? != 0;
        let member = Member {
            shard: from,
            session,
            qos,
            id,
            retain_as_published,
            online,
        };
        Some(self.change_member(tenant, (name, filter), change, member))
    }

    fn share_received(&mut self, reader: &mut Reader<'_>) -> Option<Stake> {
        let session = read_session(reader)?;
        let qos = QoS::from_bits(reader.byte()?)?;
        let id = reader.int()?;
        let retain_as_published = reader.byte()? != 0;
        let group = GroupRef(reader.long()?);
        let attempts = reader.byte()?;
        let draft = whole_message(reader)?;
        if self.has_expired(&draft) {
            return Some(Stake::default());
        }
        let shard = self.place.index;
        let member = Member {
            shard,
            session,
            qos,
            id,
            retain_as_published,
            online: true,
        };
        let kept = self.deliver_to_member(&member, group, &draft);
        Some(kept.unwrap_or_else(|| self.return_share(group, attempts + 1, &draft)))
    }

    fn retained_told(&mut self, reader: &mut Reader<'_>) -> Option<()> {
        let session = read_session(reader)?;
        let asked = reader.int()?;
        let more = reader.byte()? != 0;
        let next = reader.text()?;
        let count = reader.int()?;
        let mut received = VecDeque::new();
        for _ in 0..count {
            let draft = reader.message()?;
            received.push_back(draft.keep(&mut self.scratch));
        }
        let slot = self.sessions.resolve(session);
        let Some(found) = slot.and_then(|slot| self.sessions.get_mut(slot)) else {
            return Some(());
        };
        let link = found.link;
        if let Some(replay) = found
            .replays
            .front_mut()
            .filter(|replay| replay.asked == asked)
        {
            replay.asked = 0;
            replay.received = received;
            replay.exhausted = !more;
            replay.after = Some(next.into());
            if let Some(link) = link {
                self.pump_later(link);
            }
        }
        Some(())
    }
}

/// A message that is on its way to sessions.
fn whole_message<'a>(reader: &mut Reader<'a>) -> Option<Draft<'a>> {
    let draft = reader.message()?;
    let whole = reader.whole()?;
    Some(Draft { whole, ..draft })
}

pub(super) fn read_session(reader: &mut Reader<'_>) -> Option<SessionRef> {
    Some(SessionRef {
        slot: reader.int()?,
        serial: reader.int()?,
    })
}
