//! Staging: listeners are made ready as a whole, then put in force in one step, or not at all.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;

use casemate_engine::ListenerId;
use rustls::ServerConfig;

use crate::address::Address;
use crate::broker::Broker;
use crate::entrance::{Doorway, Entrance};
use crate::error::StartError;
use crate::inbox::{DoorChange, Letter};
use crate::inheriting::inherit;
use crate::listening::bind;
use crate::manner::{self, Manner};
use crate::options::{Inherited, Listener, Security};
use crate::trust::{server_config, Marks};
use crate::worker::Door;

/// The listeners of a server as they are in force.
///
/// A row outlives its listener for as long as connections name it. So the table is bounded by the
/// listeners and the live connections, however often listeners change.
#[derive(Clone, Default)]
pub(crate) struct Installed {
    rows: Vec<Row>,
    /// Rows of the present listeners, in the order of the options.
    order: Vec<ListenerId>,
    round: u64,
}

#[derive(Clone)]
struct Row {
    doorway: Arc<Doorway>,
    /// As it was wanted, which is how it is found again.
    name: String,
    wanted: Address,
    ipv6_only: bool,
    /// As it was bound.
    address: Address,
    marks: Marks,
    state: State,
}

/// How far a row has come, with the round in which it came there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Its listener is in force.
    Open,
    /// Its listener was removed; there may be connections.
    Closed(u64),
    /// Nobody was left. Once every shard has made this round's change, nothing that it said
    /// before about one of them is under way, and the number may name another listener.
    Left(u64),
}

/// Listeners that are ready to be put in force; dropping it undoes everything.
pub(crate) struct Staged {
    next: Installed,
    entrances: Vec<(Arc<Doorway>, Entrance)>,
    closed: Vec<ListenerId>,
    /// Sockets that no listener has taken yet.
    inherited: Vec<Inherited>,
    /// For each shard its new sockets, which have joined its poll.
    doors: Vec<Vec<Door>>,
    /// Some listener asks for another proof, or admits others without any.
    is_stricter: bool,
}

impl Installed {
    /// Name and bound address of each listener, in the order of the options.
    pub fn addresses(&self) -> Vec<(String, Address)> {
        let rows = self.order.iter().map(|&id| &self.rows[usize::from(id)]);
        rows.map(|row| (row.name.clone(), row.address.clone()))
            .collect()
    }

    /// Rows that there are, vacant ones too.
    #[cfg(test)]
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Makes everything ready that these listeners need: certificates first, so that a wrong one
    /// does not open a port even for a moment, then sockets.
    ///
    /// What listens where it did keeps its socket, and its TLS where that is as it was.
    ///
    /// # Errors
    /// A [`StartError`] that names the listener; nothing has changed then.
    pub fn stage(
        &self,
        broker: &Broker,
        listeners: &[Listener],
        inherited: Vec<Inherited>,
    ) -> Result<Staged, StartError> {
        check(listeners)?;
        if broker.is_stopping() {
            return Err(StartError::Stopping);
        }
        let mut next = self.clone();
        next.round += 1;
        next.let_go(broker.doors_round());
        let kept = self.find(listeners);
        let marks: Vec<Marks> = listeners.iter().map(Marks::of).collect();
        let configs = listeners
            .iter()
            .zip(&kept)
            .zip(&marks)
            .map(|((listener, kept), marks)| self.configuration(listener, *kept, marks))
            .collect::<Result<Vec<_>, _>>()?;
        let mut staged = Staged {
            next,
            entrances: Vec::new(),
            closed: Vec::new(),
            inherited,
            doors: broker.posts.iter().map(|_| Vec::new()).collect(),
            is_stricter: false,
        };
        staged.next.order.clear();
        for (((listener, kept), marks), tls) in listeners.iter().zip(&kept).zip(marks).zip(configs)
        {
            match *kept {
                Some(id) => staged.keep(id, listener, marks, tls),
                None => staged.open(broker, listener, marks, tls)?,
            }
        }
        if let Some(stranger) = staged.inherited.first() {
            return Err(StartError::Option {
                option: "inherited",
                cause: format!("no new listener is named {:?}", stranger.listener),
            });
        }
        staged.close_others();
        Ok(staged)
    }

    /// The row of each listener that listens where one does already.
    fn find(&self, listeners: &[Listener]) -> Vec<Option<ListenerId>> {
        let mut taken = HashSet::new();
        let mut find = |listener: &Listener| {
            let open = self.order.iter().copied();
            open.filter(|&id| self.rows[usize::from(id)].is_of(listener))
                .find(|&id| taken.insert(id))
        };
        listeners.iter().map(&mut find).collect()
    }

    /// The TLS of a listener. Tickets come with it: those of one listener are good for no other,
    /// and only for as long as certificate and trust are as they were.
    fn configuration(
        &self,
        listener: &Listener,
        kept: Option<ListenerId>,
        marks: &Marks,
    ) -> Result<Option<Arc<ServerConfig>>, StartError> {
        let Security::Tls(tls) = &listener.security else {
            return Ok(None);
        };
        let row = kept.map(|id| &self.rows[usize::from(id)]);
        if let Some(row) = row.filter(|row| row.marks.material == marks.material) {
            return Ok(row.doorway.now().manner.tls());
        }
        server_config(&listener.name, tls, listener.websocket.is_some()).map(Some)
    }

    /// Notes which rows nobody needs any more; `obeyed` is the round that every shard has made.
    fn let_go(&mut self, obeyed: u64) {
        for row in &mut self.rows {
            match row.state {
                // Until its sockets are closed somebody may still come in.
                State::Closed(round) if round <= obeyed && row.doorway.guests() == 0 => {
                    row.state = State::Left(self.round);
                }
                _ => {}
            }
        }
    }

    /// A number for a new listener.
    fn vacant(&self, obeyed: u64) -> Option<ListenerId> {
        let vacant = |row: &Row| matches!(row.state, State::Left(round) if round <= obeyed);
        let place = self.rows.iter().position(vacant);
        ListenerId::try_from(place.unwrap_or(self.rows.len())).ok()
    }
}

impl Row {
    /// True where the listener wants the very socket of this row. Who leaves the choice of the
    /// port to the system is told apart by its name.
    fn is_of(&self, listener: &Listener) -> bool {
        let chosen = self.wanted.tcp().is_none_or(|address| address.port() != 0);
        self.wanted == listener.address
            && self.ipv6_only == listener.ipv6_only
            && (chosen || self.name == listener.name)
    }
}

impl Staged {
    /// A listener keeps its socket and its number.
    fn keep(
        &mut self,
        id: ListenerId,
        listener: &Listener,
        marks: Marks,
        tls: Option<Arc<ServerConfig>>,
    ) {
        let row = &mut self.next.rows[usize::from(id)];
        let now = row.doorway.now();
        let mut entrance = entrance(listener, tls);
        let distrusted = row.marks.trust != marks.trust;
        let readmitted = now.anonymous_role != entrance.anonymous_role;
        entrance.trust = now.trust.wrapping_add(u32::from(distrusted));
        // From the largest number it begins anew, four thousand million changes later.
        let anonymity = now.anonymity.get().wrapping_add(u32::from(readmitted));
        entrance.anonymity = NonZeroU32::new(anonymity).unwrap_or(NonZeroU32::MIN);
        self.is_stricter |= distrusted || readmitted;
        self.entrances.push((Arc::clone(&row.doorway), entrance));
        row.name.clone_from(&listener.name);
        row.marks = marks;
        self.next.order.push(id);
    }

    /// A new listener: binds it and joins its sockets to the shards' polls.
    fn open(
        &mut self,
        broker: &Broker,
        listener: &Listener,
        marks: Marks,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<(), StartError> {
        let id = self
            .next
            .vacant(broker.doors_round())
            .ok_or_else(|| StartError::Option {
                option: "listeners",
                cause: "connections of too many removed listeners are still there".into(),
            })?;
        let shards = broker.posts.len();
        let mut inherited = self.inherited.iter();
        let (address, sockets) = match inherited.position(|it| it.listener == listener.name) {
            Some(place) => inherit(listener, self.inherited.remove(place).socket, shards)?,
            None => bind(listener, shards)?,
        };
        let doorway = Arc::new(Doorway::new(id, entrance(listener, tls)));
        for ((post, doors), socket) in broker.posts.iter().zip(&mut self.doors).zip(sockets) {
            let mut door = Door::new(socket, Arc::clone(&doorway));
            door.register(&post.registry)
                .map_err(|cause| StartError::listen(&listener.name, &listener.address, cause))?;
            doors.push(door);
        }
        let row = Row {
            doorway,
            name: listener.name.clone(),
            wanted: listener.address.clone(),
            ipv6_only: listener.ipv6_only,
            address,
            marks,
            state: State::Open,
        };
        match self.next.rows.get_mut(usize::from(id)) {
            Some(place) => *place = row,
            None => self.next.rows.push(row),
        }
        self.next.order.push(id);
        Ok(())
    }

    /// Whatever is in force and was not named again is removed.
    fn close_others(&mut self) {
        let named: HashSet<ListenerId> = self.next.order.iter().copied().collect();
        let round = self.next.round;
        for row in &mut self.next.rows {
            if row.state == State::Open && !named.contains(&row.doorway.id) {
                row.state = State::Closed(round);
                let entrance = Entrance {
                    is_open: false,
                    anonymous_role: None,
                    manner: Manner::default(),
                    ..Entrance::clone(&row.doorway.now())
                };
                self.entrances.push((Arc::clone(&row.doorway), entrance));
                self.closed.push(row.doorway.id);
            }
        }
    }

    /// Puts everything in force but the shards' sockets, which are returned: nothing can fail.
    pub fn commit(self, broker: &Broker, installed: &mut Installed) -> Commit {
        let Staged {
            next,
            entrances,
            closed,
            inherited: _,
            doors,
            is_stricter,
        } = self;
        for (doorway, entrance) in entrances {
            doorway.replace(entrance);
        }
        let rows = next.rows.iter().map(|row| Arc::clone(&row.doorway));
        broker.entrances.replace(rows.collect());
        let round = next.round;
        *installed = next;
        Commit {
            doors,
            closed,
            round,
            is_stricter,
        }
    }
}

/// What the shards must still hear of.
pub(crate) struct Commit {
    /// New sockets of each shard.
    pub doors: Vec<Vec<Door>>,
    closed: Vec<ListenerId>,
    /// See [`Broker::wait_doors_changed`].
    pub round: u64,
    is_stricter: bool,
}

impl Commit {
    /// Tells every shard.
    pub fn tell(self, broker: &Broker) {
        for (post, opened) in broker.posts.iter().zip(self.doors) {
            post.inbox.post(Letter::Doors(DoorChange {
                opened,
                closed: self.closed.clone(),
                round: self.round,
            }));
        }
        if self.is_stricter {
            broker.post_all(|| Letter::Accounts);
        }
    }
}

fn entrance(listener: &Listener, tls: Option<Arc<ServerConfig>>) -> Entrance {
    Entrance {
        name: listener.name.as_str().into(),
        anonymous_role: listener.anonymous_role.as_deref().map(Into::into),
        manner: Manner::new(listener, tls),
        trust: 0,
        anonymity: NonZeroU32::MIN,
        is_open: true,
        insider: None,
    }
}

/// Refuses listeners that cannot work, before anything is opened.
pub(crate) fn check(listeners: &[Listener]) -> Result<(), StartError> {
    let refuse = |cause: &str| {
        Err(StartError::Option {
            option: "listeners",
            cause: cause.into(),
        })
    };
    if listeners.is_empty() {
        return refuse("there must be at least one");
    }
    if listeners.len() > usize::from(ListenerId::MAX) {
        return refuse("there are too many");
    }
    let mut names = HashSet::new();
    for listener in listeners {
        if !names.insert(listener.name.as_str()) {
            return Err(StartError::ListenerName {
                name: listener.name.clone(),
            });
        }
        manner::check(listener)?;
    }
    Ok(())
}
