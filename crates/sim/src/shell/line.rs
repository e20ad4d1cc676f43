//! One shard's line to the committer, as the server has one.

use std::collections::VecDeque;
use std::mem;

use casemate_store::{Answer, Refused, Submitter};

/// Records of one turn.
#[derive(Debug)]
pub struct Records {
    pub seq: u64,
    pub bytes: Vec<u8>,
}

/// What the shard must hear.
#[derive(Debug)]
pub enum News {
    /// All up to this is durable.
    Persisted(u64),
    /// These will not be, oldest first; nothing later is under way.
    Failed(Vec<Records>),
}

/// Nothing is handed in between the first failure and the last answer to what was under way with
/// it; what the shard has given meanwhile has failed with it.
pub struct Line {
    submitter: Submitter,
    under_way: usize,
    failed: Vec<Records>,
    backlog: VecDeque<Records>,
}

impl Line {
    /// A line with nothing on it.
    pub fn new(submitter: Submitter) -> Line {
        Line {
            submitter,
            under_way: 0,
            failed: Vec::new(),
            backlog: VecDeque::new(),
        }
    }

    /// True where nothing is on its way.
    pub fn is_idle(&self) -> bool {
        self.under_way == 0 && self.backlog.is_empty()
    }

    /// Takes what the shard wants kept.
    pub fn take(&mut self, records: Records, is_failing: bool) {
        self.backlog.push_back(records);
        self.hand_in(is_failing);
    }

    /// Takes an answer in; says what the shard must hear, if anything.
    pub fn answered(&mut self, answer: Answer, is_failing: bool) -> Option<News> {
        self.under_way -= 1;
        let is_kept = answer.place.is_some();
        if !is_kept {
            self.failed.push(Records {
                seq: answer.seq,
                bytes: answer.bytes,
            });
        }
        if self.failed.is_empty() {
            self.hand_in(is_failing);
            return Some(News::Persisted(answer.seq));
        }
        if self.under_way > 0 {
            return None;
        }
        let mut failed = mem::take(&mut self.failed);
        failed.extend(self.backlog.drain(..));
        self.submitter.go_on();
        Some(News::Failed(failed))
    }

    /// Hands in what waits, as far as it is taken.
    pub fn hand_in(&mut self, is_failing: bool) {
        if !self.failed.is_empty() || is_failing {
            return;
        }
        while let Some(Records { seq, bytes }) = self.backlog.pop_front() {
            match self.submitter.submit(seq, bytes) {
                Ok(()) => self.under_way += 1,
                Err(Refused::Busy(bytes) | Refused::Stopped(bytes) | Refused::TooLarge(bytes)) => {
                    self.backlog.push_front(Records { seq, bytes });
                    return;
                }
            }
        }
    }
}
