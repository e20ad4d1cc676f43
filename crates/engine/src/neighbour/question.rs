//! Questions of neighbours about retained messages, and the answers of this shard's store.
//!
//! A publish reaches the shard of a subscriber and the home of its topic by two pipes. Whoever asks
//! says how much of each shard it has seen, and the answer waits until this shard has seen as much:
//! a retained message never follows a newer live one.

use super::receive::read_session;
use super::{put_session, TELL};
use crate::door::ShardIndex;
use crate::message::Message;
use crate::session::SessionRef;
use crate::shard::Shard;
use crate::wire::{put_message, put_text, Reader};

/// About how much of the retained store one answer carries, bytes.
const TELL_BYTES: usize = 32 * 1024;

/// What a neighbour would like to know, for one of its sessions.
pub(super) struct Question {
    session: SessionRef,
    asked: u32,
    tenant: u32,
    filter: Box<str>,
    after: Option<Box<str>>,
    /// For each shard, the number of its message that the answer must not be older than.
    news: Vec<u64>,
}

impl Question {
    pub fn read(reader: &mut Reader<'_>, shards: ShardIndex) -> Option<Question> {
        let session = read_session(reader)?;
        let asked = reader.int()?;
        let tenant = reader.int()?;
        let filter = reader.text()?.into();
        let has_after = reader.byte()? != 0;
        let after = reader.text()?;
        Some(Question {
            session,
            asked,
            tenant,
            filter,
            after: has_after.then(|| after.into()),
            news: (0..shards)
                .map(|_| reader.long())
                .collect::<Option<Vec<u64>>>()?,
        })
    }
}

impl Shard {
    /// Answers the questions that wait for nothing that is still under way to this shard.
    pub(super) fn answer_questions(&mut self) {
        for index in 0..self.peers.len() {
            let Some(question) = self.peers[index].question.take() else {
                continue;
            };
            let mut pairs = self.peers.iter().zip(&question.news);
            if pairs.all(|(peer, number)| peer.received >= *number) {
                self.answer(index, &question);
            } else {
                self.peers[index].question = Some(question);
            }
        }
    }

    fn answer(&mut self, to: usize, question: &Question) {
        let tenant = question.tenant;
        let mut messages: Vec<Message> = Vec::new();
        let next = self.walk_for_neighbour(
            tenant,
            &question.filter,
            question.after.as_deref(),
            TELL_BYTES,
            &mut messages,
        );
        let out = &mut self.peers[to].staged;
        out.push(TELL);
        put_session(out, question.session);
        out.extend_from_slice(&question.asked.to_le_bytes());
        out.push(u8::from(next.is_some()));
        put_text(out, next.as_deref().unwrap_or(""));
        // Cannot truncate: one answer looks at no more than the walk's budget of keys.
        out.extend_from_slice(&(messages.len() as u32).to_le_bytes());
        for message in &messages {
            put_message(out, &message.draft(tenant));
        }
    }
}
