//! The loop of one shard's thread: poll, letters, reads, engine, writes.
//!
//! One rule keeps the engine's effects in order: only the steps of [`Worker::turn`] and the reader
//! call `settle`; whatever runs inside an effect adds its own effects to the list and returns.

mod accepting;
mod closing;
mod effects;
mod letters;
mod reading;
mod refusing;
mod writing;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use casemate_engine::policy::Policy;
use casemate_engine::{
    ConnectionId, Effect, Input, Kept, ListenerId, Millis, Place, Shard, ShardIndex,
};
use mio::event::Event as Readiness;
use mio::{Events, Poll};

use crate::announcer::Announcer;
use crate::broker::Broker;
use crate::clock::wall_unix_ms;
use crate::event::{Event, EventKind};
use crate::inbox::Letter;
use crate::lock::lock;
use crate::mailbox::Sleep;
use crate::slots::Slots;
use crate::store::Line;
use crate::token::{self, Source};
use crate::transport::Scratch;

pub(crate) use accepting::Door;

/// Readiness events that one poll returns.
const EVENTS: usize = 1024;

/// The read buffer that all connections of a shard share, bytes. What a transport keeps before it
/// can go on, such as a long ClientHello, stands in it too.
const BUFFER_BYTES: usize = 256 * 1024;

/// Bytes that one turn reads before it looks at everything else again.
const TURN_BYTES: usize = 2 * 1024 * 1024;

/// The longest sleep, ms: a wake-up that got lost costs no more than this.
const SLEEP_MS_MAX: Millis = 1_000;

/// How old the shard's counters may be while it never sleeps, ms.
const COUNTERS_MS: Millis = 100;

/// How long a closing connection may take to write its last bytes and to close its half, ms.
const LINGER_MS: Millis = 1_000;

/// One shard's thread.
pub(crate) struct Worker {
    broker: Arc<Broker>,
    index: ShardIndex,
    shard: Shard,
    poll: Poll,
    now: Millis,
    doors: Vec<Door>,
    /// No accepting before this time: descriptors had run out.
    accept_after: Option<Millis>,
    /// Given up for a moment to take and close a connection when descriptors have run out.
    reserve: Option<File>,
    /// The present burst of failures to accept has been told about.
    accept_told: bool,
    connections: Slots,
    /// Connections to read, in order of arrival.
    reading: VecDeque<ConnectionId>,
    /// Connections whose handshake can go on, in order of arrival.
    shaking: VecDeque<ConnectionId>,
    /// Connections to write.
    dirty: Vec<ConnectionId>,
    /// Connections accepted, with their deadlines, which are in order. Those that were granted
    /// since are skipped.
    strangers: VecDeque<(Millis, ConnectionId)>,
    /// Connections closing, with their deadlines, which are in order.
    linger_deadlines: VecDeque<(Millis, ConnectionId)>,
    effects: Vec<Effect>,
    spare_effects: Vec<Effect>,
    letters: Vec<Letter>,
    /// For each neighbour, what it gets at the end of the turn.
    mail: Vec<Mail>,
    events: Vec<Event>,
    buffer: Box<[u8]>,
    /// The connection being read, and which part of `buffer` is not used yet.
    in_hand: Option<InHand>,
    scratch: Scratch,
    announcer: Option<Announcer>,
    counters_at: Millis,
    /// Nobody new is let in.
    draining: bool,
    /// Everybody may go; told to the others once nobody is left.
    leaving: bool,
    stopping: Option<Millis>,
    /// The engine has heard something after the end of the turn, so another turn is due.
    again: bool,
    /// To the store, where there is one.
    line: Option<Line>,
}

/// Letters to one neighbour.
#[derive(Default)]
struct Mail {
    letters: Vec<Letter>,
    /// One of them says more than what has arrived.
    is_urgent: bool,
}

/// What a shard begins with.
pub(crate) struct Share {
    /// Who may do what.
    pub policy: Arc<Policy>,
    /// What was kept of all shards.
    pub kept: Option<Arc<Kept>>,
    /// To the store.
    pub line: Option<Line>,
    /// A descriptor to give up where there is none left to say no with; taken before anybody can
    /// connect.
    pub reserve: Option<File>,
}

/// Takes a descriptor that stands for nothing.
pub(crate) fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Bytes of a connection that are being received.
#[derive(Clone, Copy)]
struct InHand {
    id: ConnectionId,
    start: usize,
    end: usize,
}

impl Worker {
    /// Sets a shard up in its own thread; its doors have joined the poll already.
    pub fn new(
        broker: Arc<Broker>,
        index: ShardIndex,
        poll: Poll,
        doors: Vec<Door>,
        share: Share,
    ) -> Worker {
        let Share {
            policy,
            kept,
            line,
            reserve,
        } = share;
        let now = broker.clock.now();
        // At most 64 shards.
        let place = Place {
            index,
            count: broker.posts.len() as u16,
            seeds: broker.seeds,
        };
        let epoch = policy.epoch();
        let mut shard = Shard::new(Arc::clone(&broker.settings), place, policy, now);
        if let Some(kept) = kept {
            shard.restore(&kept, now);
        }
        broker.policy_in_force(index, epoch);
        let interval_s = if index == 0 { broker.sys_interval_s } else { 0 };
        Worker {
            index,
            shard,
            poll,
            now,
            doors,
            accept_after: None,
            reserve,
            accept_told: false,
            connections: Slots::default(),
            reading: VecDeque::new(),
            shaking: VecDeque::new(),
            dirty: Vec::new(),
            strangers: VecDeque::new(),
            linger_deadlines: VecDeque::new(),
            effects: Vec::new(),
            spare_effects: Vec::new(),
            letters: Vec::new(),
            mail: broker.posts.iter().map(|_| Mail::default()).collect(),
            events: Vec::new(),
            buffer: vec![0; BUFFER_BYTES].into_boxed_slice(),
            in_hand: None,
            scratch: Scratch::new(),
            announcer: Announcer::new(interval_s),
            counters_at: now,
            draining: false,
            leaving: false,
            stopping: None,
            again: false,
            line,
            broker,
        }
    }

    /// Runs until the server stops; true where every connection closed in time.
    ///
    /// # Errors
    /// Where the poll itself fails.
    pub fn run(mut self) -> io::Result<bool> {
        let mut events = Events::with_capacity(EVENTS);
        loop {
            self.wait(&mut events)?;
            self.turn(&events);
            if self.leaving && self.connections.len() == 0 {
                self.leaving = false;
                self.broker.left(self.index);
            }
            if let Some(until) = self.stopping {
                if self.connections.len() == 0 || self.now >= until {
                    self.publish_counters();
                    return Ok(self.connections.len() == 0);
                }
            }
        }
    }

    fn turn(&mut self, events: &Events) {
        for event in events {
            self.notice(event);
        }
        self.accept();
        self.read_ready();
        self.shake_hands();
        self.open_letters();
        self.keep_deadlines();
        self.input(Input::TurnEnd);
        self.again = false;
        // Before this shard writes: meanwhile the neighbours begin, and find it awake.
        self.send_mail();
        self.write_dirty();
        if !self.events.is_empty() {
            self.broker.ring.append(&mut self.events);
        }
        if self.now >= self.counters_at + COUNTERS_MS {
            self.publish_counters();
        }
    }

    /// Sleeps until something is ready, a letter comes or a deadline is due.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let timeout_ms = self.timeout_ms();
        let inbox = &self.broker.posts[usize::from(self.index)].inbox;
        let how = match self.shard.awaits_neighbours() {
            true => Sleep::Light,
            false => Sleep::Sound,
        };
        let sleep = timeout_ms > 0 && inbox.may_sleep(how);
        let timeout = if sleep { timeout_ms } else { 0 };
        if sleep {
            lock(&self.broker.posts[usize::from(self.index)].counters)
                .clone_from(self.shard.counters());
        }
        let outcome = self.poll.poll(events, Some(Duration::from_millis(timeout)));
        if sleep {
            self.broker.posts[usize::from(self.index)].inbox.awake();
        }
        self.now = self.broker.clock.now();
        self.scratch.now = self.now;
        match outcome {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// How long the next sleep may last, ms; 0 while there is work.
    fn timeout_ms(&self) -> Millis {
        let accepting = self.accept_after.is_none() && self.doors.iter().any(|door| door.ready);
        let busy = (!self.reading.is_empty() && !self.is_choked())
            || !self.shaking.is_empty()
            || !self.dirty.is_empty()
            || self.again;
        if accepting || busy {
            return 0;
        }
        let deadlines = [
            self.shard.next_deadline(),
            self.strangers.front().map(|(due, _)| *due),
            self.linger_deadlines.front().map(|(due, _)| *due),
            self.accept_after,
            self.announcer.as_ref().map(Announcer::due),
            self.stopping,
        ];
        let next = deadlines.into_iter().flatten().min();
        next.map_or(SLEEP_MS_MAX, |due| due.saturating_sub(self.now))
            .min(SLEEP_MS_MAX)
    }

    /// Notes what the poll says about one source.
    fn notice(&mut self, event: &Readiness) {
        let id = match token::source(event.token()) {
            Source::Waker => return,
            Source::Door(id) => {
                // One that was removed, or that a letter is still to bring, is not there.
                if let Some(door) = self.doors.iter_mut().find(|door| door.id() == id) {
                    door.ready = true;
                }
                return;
            }
            Source::Connection(id) => id,
        };
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if event.is_writable() && !connection.writable {
            connection.writable = true;
            self.dirty.push(id);
        }
        // A broken socket has its error to read.
        if event.is_readable() || event.is_error() {
            connection.readable = true;
        }
        if event.is_read_closed() {
            connection.half_closed = true;
        }
        if event.is_error() && (connection.paused || !connection.is_open()) {
            // Nobody would read it and find out.
            self.lose(id);
            return;
        }
        self.queue_reading(id);
    }

    /// Puts a connection in line to be read, once.
    fn queue_reading(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(id) {
            if connection.wants_reading() && !connection.queued {
                connection.queued = true;
                if connection.transport.is_established() {
                    self.reading.push_back(id);
                } else {
                    self.shaking.push_back(id);
                }
            }
        }
    }

    /// Gives the engine an input and serves what it asks for.
    fn input(&mut self, input: Input<'_>) {
        self.shard.handle(self.now, input, &mut self.effects);
        self.settle();
    }

    /// Serves effects until there are none.
    fn settle(&mut self) {
        while !self.effects.is_empty() {
            self.again = true;
            let spare = std::mem::take(&mut self.spare_effects);
            let mut batch = std::mem::replace(&mut self.effects, spare);
            for effect in batch.drain(..) {
                self.serve(effect);
            }
            self.spare_effects = batch;
        }
    }

    /// Says `Tick`, announces, and ends what has taken too long.
    fn keep_deadlines(&mut self) {
        if self
            .shard
            .next_deadline()
            .is_some_and(|due| due <= self.now)
        {
            self.input(Input::Tick);
        }
        self.end_late_handshakes();
        self.end_late_lingerers();
        self.announce();
    }

    fn announce(&mut self) {
        let Some(announcer) = self.announcer.as_mut().filter(|it| it.due() <= self.now) else {
            return;
        };
        let counters = self.broker.counters();
        for (topic, payload) in announcer.announce(self.now, &counters) {
            let payload = payload.as_bytes();
            let input = Input::Announce {
                topic,
                payload,
                retain: true,
            };
            self.shard.handle(self.now, input, &mut self.effects);
        }
        self.settle();
    }

    fn publish_counters(&mut self) {
        self.counters_at = self.now;
        lock(&self.broker.posts[usize::from(self.index)].counters)
            .clone_from(self.shard.counters());
    }

    /// Tells something of the shell's own; the ring gets it at the end of the turn.
    fn tell(
        &mut self,
        listener: Option<ListenerId>,
        address: Option<std::net::SocketAddr>,
        kind: EventKind,
    ) {
        self.events.push(Event {
            time_unix_ms: wall_unix_ms(),
            shard: self.index,
            listener: listener.and_then(|id| self.broker.entrances.name(id)),
            address,
            client_id: "".into(),
            principal: "".into(),
            kind,
        });
    }

    fn count(
        &self,
        counter: impl FnOnce(&crate::counters::Tally) -> &std::sync::atomic::AtomicU64,
    ) {
        counter(&self.broker.tally).fetch_add(1, Ordering::Relaxed);
    }
}
