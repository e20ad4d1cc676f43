//! Password checks that wait for an answer: bounded, and dropped with their connection.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use casemate_codec::{Reason, Version};
use casemate_engine::{ConnectionId, Secret, ShardIndex};

use crate::lock::lock;

/// A question's number; never used twice.
pub(crate) type QuestionId = u64;

/// Is this who it says it is?
#[derive(Clone, Debug)]
pub struct Question {
    /// To be returned with the answer.
    pub id: u64,
    /// Name of the listener.
    pub listener: String,
    /// The peer's address.
    pub address: Option<SocketAddr>,
    /// As the client wrote it; may be empty.
    pub client_id: String,
    /// Who it says it is; not empty.
    pub username: String,
    /// What it knows; not empty.
    pub password: Secret,
    /// The version of MQTT it speaks.
    pub version: Version,
}

/// What [`crate::Server::answer`] is told.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is.
    Grant {
        /// The account's name, which `%u` stands for.
        name: String,
        /// Names of roles of the policy.
        roles: Vec<String>,
        /// The client id is this account's own, so that `%c` may speak for it.
        client_id_bound: bool,
        /// When the proof ends, seconds since 1970; the connection is closed then.
        until_s: Option<u64>,
    },
    /// It is not.
    Refuse {
        /// What a 5.0 client sees.
        reason: Reason,
    },
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    /// The shard.
    pub shard: ShardIndex,
    /// The connection.
    pub id: ConnectionId,
    /// The engine's number of the question.
    pub step: u32,
}

/// Questions on their way to whoever answers.
pub(crate) struct Questions {
    question_max: usize,
    state: Mutex<State>,
    arrival: Condvar,
}

#[derive(Default)]
struct State {
    next: QuestionId,
    waiting: HashMap<QuestionId, Waiting>,
    /// In the order of arrival; ids that no longer wait are skipped.
    queue: VecDeque<QuestionId>,
    closed: bool,
}

struct Waiting {
    asker: Asker,
    /// Gone once somebody has taken it to answer it.
    question: Option<Box<Question>>,
}

/// As many questions wait as may.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Questions {
    /// At most `question_max` wait at a time, those that are being answered included.
    pub fn new(question_max: usize) -> Questions {
        Questions {
            question_max,
            state: Mutex::new(State::default()),
            arrival: Condvar::new(),
        }
    }

    /// Asks; the question's `id` is given here.
    ///
    /// # Errors
    /// [`Full`].
    pub fn ask(&self, asker: Asker, mut question: Question) -> Result<QuestionId, Full> {
        let mut state = lock(&self.state);
        if state.closed || state.waiting.len() >= self.question_max {
            return Err(Full);
        }
        state.next += 1;
        let id = state.next;
        question.id = id;
        state.waiting.insert(
            id,
            Waiting {
                asker,
                question: Some(Box::new(question)),
            },
        );
        // Those who leave unanswered stay in the queue until it is as long again as it may be.
        if state.queue.len() >= self.question_max.saturating_mul(2) {
            let State { queue, waiting, .. } = &mut *state;
            queue.retain(|id| waiting.contains_key(id));
        }
        state.queue.push_back(id);
        drop(state);
        self.arrival.notify_one();
        Ok(id)
    }

    /// The oldest question that nobody has taken; waits for one at most `timeout`.
    pub fn next(&self, timeout: Duration) -> Option<Question> {
        let until = Instant::now().checked_add(timeout);
        let mut state = lock(&self.state);
        loop {
            while let Some(id) = state.queue.pop_front() {
                let taken = state
                    .waiting
                    .get_mut(&id)
                    .and_then(|row| row.question.take());
                if let Some(question) = taken {
                    return Some(*question);
                }
            }
            let left = until.map_or(Duration::from_secs(3600), |until| {
                until.saturating_duration_since(Instant::now())
            });
            if state.closed || left.is_zero() {
                return None;
            }
            state = match self.arrival.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Takes a question off; `None` where nobody waits for it any more.
    pub fn settle(&self, id: QuestionId) -> Option<Asker> {
        lock(&self.state).waiting.remove(&id).map(|row| row.asker)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        lock(&self.state).waiting.len()
    }

    /// Lets everybody who waits for a question go; nothing more can be asked.
    pub fn close(&self) {
        lock(&self.state).closed = true;
        self.arrival.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn asker() -> Asker {
        let id = ConnectionId {
            slot: 0,
            generation: 0,
        };
        Asker {
            shard: 0,
            id,
            step: 0,
        }
    }

    fn question(username: &str) -> Question {
        Question {
            id: 0,
            listener: "main".into(),
            address: None,
            client_id: String::new(),
            username: username.into(),
            password: Secret::new(b"canary"),
            version: Version::V5,
        }
    }

    #[test]
    fn questions_come_in_order_and_are_answered_once() {
        let questions = Questions::new(10);
        let first = questions.ask(asker(), question("a")).unwrap();
        questions.ask(asker(), question("b")).unwrap();
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "a");
        assert!(questions.settle(first).is_some());
        assert!(questions.settle(first).is_none());
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "b");
        assert!(questions.next(Duration::ZERO).is_none());
        assert_eq!(questions.len(), 1);
    }

    #[test]
    fn a_full_queue_refuses_and_those_being_answered_count() {
        let questions = Questions::new(2);
        questions.ask(asker(), question("a")).unwrap();
        let second = questions.ask(asker(), question("b")).unwrap();
        questions.next(Duration::ZERO).unwrap();
        assert_eq!(questions.ask(asker(), question("c")), Err(Full));
        questions.settle(second);
        assert!(questions.ask(asker(), question("c")).is_ok());
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "c");
    }

    #[test]
    fn a_storm_of_clients_that_leave_does_not_grow_the_queue() {
        let questions = Questions::new(4);
        for _ in 0..10_000 {
            let id = questions.ask(asker(), question("a")).unwrap();
            questions.settle(id);
        }
        assert!(lock(&questions.state).queue.len() <= 9);
    }

    #[test]
    fn a_question_never_shows_its_password() {
        assert!(!format!("{:?}", question("a")).contains("canary"));
    }
}
