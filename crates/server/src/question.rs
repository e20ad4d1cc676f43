//! Questions about clients that wait for an answer: bounded, and dropped with their connection.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use casemate_codec::{Reason, Version};
use casemate_engine::{ConnectionId, Secret, ShardIndex};

use crate::admission::Visit;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asker {
    /// The shard.
    pub shard: ShardIndex,
    /// The connection.
    pub id: ConnectionId,
    /// The engine's number of the question.
    pub step: u32,
}

/// Who waits for a password check, and what there is to know of it once that is done.
#[derive(Debug)]
pub(crate) struct Suspect {
    /// Whom to tell.
    pub asker: Asker,
    /// As it came.
    pub visit: Box<Visit>,
}

/// Which numbers the questions of one kind get: a connection remembers one number and need not
/// know of which kind it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// 1, 3, 5 …
    Odd,
    /// 2, 4, 6 …
    Even,
}

/// Questions `Q` on their way to whoever answers, each with whom it is about, `A`.
pub(crate) struct Questions<Q, A> {
    question_max: usize,
    state: Mutex<State<Q, A>>,
    arrival: Condvar,
}

struct State<Q, A> {
    next: QuestionId,
    waiting: HashMap<QuestionId, Waiting<Q, A>>,
    /// In the order of arrival; ids that no longer wait are skipped.
    queue: VecDeque<QuestionId>,
    closed: bool,
}

struct Waiting<Q, A> {
    about: A,
    /// Gone once somebody has taken it to answer it.
    question: Option<Box<Q>>,
}

/// As many questions wait as may, or nobody answers any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full<A>(pub A);

impl<Q, A> Questions<Q, A> {
    /// At most `question_max` wait at a time, those that are being answered included.
    pub fn new(question_max: usize, numbers: Numbers) -> Questions<Q, A> {
        let next = match numbers {
            Numbers::Odd => 1,
            Numbers::Even => 2,
        };
        let state = State {
            next,
            waiting: HashMap::new(),
            queue: VecDeque::new(),
            closed: false,
        };
        Questions {
            question_max,
            state: Mutex::new(state),
            arrival: Condvar::new(),
        }
    }

    /// Asks about somebody the question that `ask` makes of its number.
    ///
    /// # Errors
    /// [`Full`], with whom it was about.
    pub fn ask(
        &self,
        about: A,
        ask: impl FnOnce(QuestionId, &A) -> Q,
    ) -> Result<QuestionId, Full<A>> {
        let mut state = lock(&self.state);
        if state.closed || state.waiting.len() >= self.question_max {
            return Err(Full(about));
        }
        let id = state.next;
        state.next += 2;
        let question = Some(Box::new(ask(id, &about)));
        state.waiting.insert(id, Waiting { about, question });
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
    pub fn next(&self, timeout: Duration) -> Option<Q> {
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

    /// Takes a question off; `None` where nobody waits for it any more, or it is of another kind.
    pub fn settle(&self, id: QuestionId) -> Option<A> {
        lock(&self.state).waiting.remove(&id).map(|row| row.about)
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

    fn question(id: QuestionId, username: &str) -> Question {
        Question {
            id,
            listener: "main".into(),
            address: None,
            client_id: String::new(),
            username: username.into(),
            password: Secret::new(b"canary"),
            version: Version::V5,
        }
    }

    fn questions(question_max: usize) -> Questions<Question, Asker> {
        Questions::new(question_max, Numbers::Odd)
    }

    fn ask(
        questions: &Questions<Question, Asker>,
        username: &str,
    ) -> Result<QuestionId, Full<Asker>> {
        questions.ask(asker(), |id, _| question(id, username))
    }

    #[test]
    fn questions_come_in_order_and_are_answered_once() {
        let questions = questions(10);
        let first = ask(&questions, "a").unwrap();
        ask(&questions, "b").unwrap();
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "a");
        assert!(questions.settle(first).is_some());
        assert!(questions.settle(first).is_none());
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "b");
        assert!(questions.next(Duration::ZERO).is_none());
        assert_eq!(questions.len(), 1);
    }

    #[test]
    fn a_full_queue_refuses_and_those_being_answered_count() {
        let questions = questions(2);
        ask(&questions, "a").unwrap();
        let second = ask(&questions, "b").unwrap();
        questions.next(Duration::ZERO).unwrap();
        assert!(ask(&questions, "c").is_err());
        questions.settle(second);
        assert!(ask(&questions, "c").is_ok());
        assert_eq!(questions.next(Duration::ZERO).unwrap().username, "c");
    }

    #[test]
    fn a_storm_of_clients_that_leave_does_not_grow_the_queue() {
        let questions = questions(4);
        for _ in 0..10_000 {
            let id = ask(&questions, "a").unwrap();
            questions.settle(id);
        }
        assert!(lock(&questions.state).queue.len() <= 9);
    }

    #[test]
    fn numbers_of_two_kinds_are_never_the_same() {
        let passwords = questions(8);
        let others: Questions<(), ()> = Questions::new(8, Numbers::Even);
        for _ in 0..8 {
            let id = ask(&passwords, "a").unwrap();
            assert!(others.settle(id).is_none());
            let id = others.ask((), |_, ()| ()).unwrap();
            assert!(passwords.settle(id).is_none());
        }
        assert_eq!((passwords.len(), others.len()), (8, 8));
    }

    #[test]
    fn a_question_never_shows_its_password() {
        assert!(!format!("{:?}", question(1, "a")).contains("canary"));
    }
}
