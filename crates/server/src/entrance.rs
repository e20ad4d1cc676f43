//! Entrances: what each listener says now, and the number by which connections remember it.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use casemate_engine::ListenerId;

use crate::inside::Insider;
use crate::manner::Manner;

/// What a listener says about those who come through it; replaced whole, never changed.
#[derive(Clone)]
pub(crate) struct Entrance {
    /// Its name.
    pub name: Arc<str>,
    /// The role of clients that prove nothing.
    pub anonymous_role: Option<Box<str>>,
    /// How connections begin.
    pub manner: Manner,
    /// Grows when another proof is asked of clients: what an earlier one has proven is void.
    pub trust: u32,
    /// Grows when the role of clients that prove nothing changes.
    pub anonymity: NonZeroU32,
    /// False once the listener was removed; nobody new is let in then.
    pub is_open: bool,
    /// Who comes through it, where it was made for one program of this process.
    pub insider: Option<Arc<Insider>>,
}

/// One listener's place in the table: the number stays, what it says is replaced.
pub(crate) struct Doorway {
    /// Names the place in the engine and in readiness tokens.
    pub id: ListenerId,
    now: ArcSwap<Entrance>,
    guests: AtomicUsize,
}

/// The number of doorways that are no listener's.
const INSIDE: ListenerId = ListenerId::MAX;

impl Doorway {
    /// A way in for one program of this process, which has proven itself by being there.
    pub fn inside(insider: Insider) -> Doorway {
        let entrance = Entrance {
            name: "inside".into(),
            anonymous_role: None,
            manner: Manner::default(),
            trust: 0,
            anonymity: NonZeroU32::MIN,
            is_open: true,
            insider: Some(Arc::new(insider)),
        };
        Doorway::new(INSIDE, entrance)
    }

    /// A place that says `entrance` until something else is put there.
    pub fn new(id: ListenerId, entrance: Entrance) -> Doorway {
        Doorway {
            id,
            now: ArcSwap::from_pointee(entrance),
            guests: AtomicUsize::new(0),
        }
    }

    /// What it says now.
    pub fn now(&self) -> Guard<Arc<Entrance>> {
        self.now.load()
    }

    /// Puts something else there, for every shard at once.
    pub fn replace(&self, entrance: Entrance) {
        self.now.store(Arc::new(entrance));
    }

    /// Connections that came through it and are still there.
    pub fn guests(&self) -> usize {
        self.guests.load(Ordering::SeqCst)
    }
}

/// What a connection remembers of the listener that accepted it, and counts as one of its guests.
pub(crate) struct Entry {
    doorway: Arc<Doorway>,
    trust: u32,
    /// [`Entrance::anonymity`] of the moment at which it was let in without any proof.
    anonymity: Option<NonZeroU32>,
}

impl Entry {
    /// Comes through a doorway while it says `entrance`; `None` where as many guests are there as
    /// may be.
    pub fn new(doorway: &Arc<Doorway>, entrance: &Entrance) -> Option<Entry> {
        let guests_max = entrance.manner.connections_max();
        let one_more = |guests| (guests < guests_max).then_some(guests + 1);
        // In one step, as other shards let in as well.
        doorway
            .guests
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more)
            .ok()?;
        Some(Entry {
            doorway: Arc::clone(doorway),
            trust: entrance.trust,
            anonymity: None,
        })
    }

    /// The doorway's number.
    pub fn id(&self) -> ListenerId {
        self.doorway.id
    }

    /// What the doorway says now.
    pub fn now(&self) -> Guard<Arc<Entrance>> {
        self.doorway.now()
    }

    /// True while the doorway still asks for the proof that was asked for at the handshake.
    ///
    /// Who comes to be let in later must begin anew: a certificate that an authority vouched for
    /// which is trusted no longer, or none where one is required now, proves nothing.
    pub fn holds(&self) -> bool {
        let now = self.doorway.now();
        now.is_open && now.trust == self.trust
    }

    /// Notes that it was let in without any proof.
    pub fn note_anonymous(&mut self, entrance: &Entrance) {
        self.anonymity = Some(entrance.anonymity);
    }

    /// True where it was let in without any proof, as somebody whom the doorway no longer admits.
    pub fn is_unwelcome(&self) -> bool {
        let now = self.doorway.now();
        now.is_open && self.anonymity.is_some_and(|then| then != now.anonymity)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.doorway.guests.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Every doorway by number; read by all shards, replaced whole.
#[derive(Default)]
pub(crate) struct Entrances {
    rows: ArcSwap<Vec<Arc<Doorway>>>,
}

impl Entrances {
    /// Publishes another table.
    pub fn replace(&self, rows: Vec<Arc<Doorway>>) {
        self.rows.store(Arc::new(rows));
    }

    /// The name of a listener, also of one that was removed while it has guests.
    pub fn name(&self, id: ListenerId) -> Option<Arc<str>> {
        let rows = self.rows.load();
        let doorway = rows.get(usize::from(id))?;
        Some(Arc::clone(&doorway.now().name))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn entrance(trust: u32, anonymity: u32) -> Entrance {
        Entrance {
            name: "main".into(),
            anonymous_role: None,
            manner: Manner::default(),
            trust,
            anonymity: NonZeroU32::MIN.saturating_add(anonymity),
            is_open: true,
            insider: None,
        }
    }

    #[test]
    fn an_entry_holds_until_another_proof_is_asked_for_or_the_listener_is_removed() {
        let doorway = Arc::new(Doorway::new(3, entrance(1, 1)));
        let entry = Entry::new(&doorway, &doorway.now()).unwrap();
        assert!(entry.holds());
        doorway.replace(entrance(1, 2));
        assert!(entry.holds(), "who proves something is not concerned");
        doorway.replace(entrance(2, 2));
        assert!(!entry.holds());
        doorway.replace(Entrance {
            is_open: false,
            ..entrance(1, 1)
        });
        assert!(!entry.holds());
    }

    #[test]
    fn who_proved_nothing_is_unwelcome_once_nobody_is_admitted_like_that() {
        let doorway = Arc::new(Doorway::new(0, entrance(1, 1)));
        let mut nobody = Entry::new(&doorway, &doorway.now()).unwrap();
        nobody.note_anonymous(&doorway.now());
        let somebody = Entry::new(&doorway, &doorway.now()).unwrap();
        assert!(!nobody.is_unwelcome());
        doorway.replace(entrance(1, 2));
        assert!(nobody.is_unwelcome() && !somebody.is_unwelcome());
    }

    #[test]
    fn guests_are_counted_while_they_are_there() {
        let doorway = Arc::new(Doorway::new(0, entrance(1, 1)));
        let entries = [(); 3].map(|()| Entry::new(&doorway, &doorway.now()).unwrap());
        assert_eq!(doorway.guests(), 3);
        drop(entries);
        assert_eq!(doorway.guests(), 0);
    }
}
