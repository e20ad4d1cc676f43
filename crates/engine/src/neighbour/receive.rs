//! What comes from a neighbour shard, message by message.

use std::collections::VecDeque;

use casemate_codec::QoS;

use super::{
    put_session, ASK, DEFER, INTEREST, MEMBER, PUBLISH, RECEIPT, RECEIPT_APART, RETURN, ROUTE,
    SHARE, STORE, TELL,
};
use crate::acknowledge::Stake;
use crate::door::ShardIndex;
use crate::message::{Draft, Message};
use crate::outbox::GroupRef;
use crate::policy::Permit;
use crate::route::Entry;
use crate::session::SessionRef;
use crate::shard::Shard;
use crate::share::{Member, MemberChange};
use crate::wire::{put_message, put_text, Reader};

/// About how much of the retained store one answer carries, bytes.
const TELL_BYTES: usize = 32 * 1024;

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
        self.settle();
    }

    fn message_received(&mut self, from: ShardIndex, reader: &mut Reader<'_>) -> Option<()> {
        let kind = reader.byte()?;
        if kind == ASK {
            return self.retained_asked(from, reader);
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
        if kind == RECEIPT_APART {
            peer.deferred.remove(&number);
            return Some(());
        }
        let stake = match kind {
            PUBLISH => self.publish_forwarded(reader)?,
            INTEREST => self.interest_received(from, reader)?,
            MEMBER => self.member_received(from, reader)?,
            SHARE => self.share_received(reader)?,
            RETURN => {
                let group = GroupRef(reader.long()?);
                let attempts = reader.byte()?;
                let draft = reader.message()?;
                match self.has_expired(&draft) {
                    true => Stake::default(),
                    false => self.share_returned(group, attempts, &draft),
                }
            }
            _ => return None,
        };
        self.owe(from, number, stake);
        Some(())
    }

    fn publish_forwarded(&mut self, reader: &mut Reader<'_>) -> Option<Stake> {
        let purpose = reader.byte()?;
        let draft = reader.message()?;
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
        self.routes.touch(filter);
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
        let draft = reader.message()?;
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

    fn retained_asked(&mut self, from: ShardIndex, reader: &mut Reader<'_>) -> Option<()> {
        let session = read_session(reader)?;
        let asked = reader.int()?;
        let tenant = reader.int()?;
        let filter = reader.text()?;
        let has_after = reader.byte()? != 0;
        let after = reader.text()?;
        let after = has_after.then_some(after);
        let mut messages: Vec<Message> = Vec::new();
        let next = self.walk_for_neighbour(tenant, filter, after, TELL_BYTES, &mut messages);
        let out = &mut self.peers[usize::from(from)].staged;
        out.push(TELL);
        put_session(out, session);
        out.extend_from_slice(&asked.to_le_bytes());
        out.push(u8::from(next.is_some()));
        put_text(out, next.as_deref().unwrap_or(""));
        // Cannot truncate: one answer looks at no more than the walk's budget of keys.
        out.extend_from_slice(&(messages.len() as u32).to_le_bytes());
        for message in &messages {
            put_message(out, &message.draft(tenant));
        }
        Some(())
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

fn read_session(reader: &mut Reader<'_>) -> Option<SessionRef> {
    Some(SessionRef {
        slot: reader.int()?,
        serial: reader.int()?,
    })
}
