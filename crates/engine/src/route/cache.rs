//! Routes that are worked out already, found by topic; bounded in bytes.

use std::rc::Rc;

use hashbrown::HashTable;

use super::Route;

/// A table that grows moves everything in it at once, and one that makes room gives up half of
/// itself. In 64 parts a million routes are moved, or dropped, in steps of about a millisecond.
const PARTS: usize = 64;

/// What a slot costs at most, bytes: a table that has just grown is a little less than half full.
const SLOT_BYTES: usize = 3 * size_of::<Rc<Route>>();

/// Routes by their topics.
pub(super) struct Cache {
    parts: Box<[HashTable<Rc<Route>>; PARTS]>,
    /// What all routes take together.
    bytes: usize,
    bytes_max: usize,
    /// The part that is the next to give up routes.
    hand: usize,
}

impl Cache {
    /// Makes an empty one.
    pub fn new(bytes_max: usize) -> Cache {
        Cache {
            parts: Box::new(std::array::from_fn(|_| HashTable::new())),
            bytes: 0,
            bytes_max,
            hand: 0,
        }
    }

    /// The route of a topic, current or not.
    #[inline]
    pub fn find(&self, hash: u32, tenant: u32, topic_bytes: &[u8]) -> Option<&Rc<Route>> {
        let hash = spread(hash);
        self.parts[part(hash)].find(hash, |route| route.is_of(tenant, topic_bytes))
    }

    /// Takes the route of a topic out.
    pub fn forget(&mut self, hash: u32, tenant: u32, topic: &str) {
        let hash = spread(hash);
        let is_it = |route: &Rc<Route>| route.is_of(tenant, topic.as_bytes());
        if let Ok(entry) = self.parts[part(hash)].find_entry(hash, is_it) {
            let route = entry.remove().0;
            self.bytes -= cost(&route);
            route.retire();
        }
    }

    /// Keeps a route in the place of that of the same topic.
    ///
    /// What does not fit takes the place of others, whoever they are: to find who is asked for
    /// least would cost every message a write. A route that is larger than all may be is not kept.
    pub fn keep(&mut self, route: &Rc<Route>) {
        self.forget(route.hash, route.tenant, &route.topic);
        let bytes = cost(route);
        if bytes > self.bytes_max {
            route.retire();
            return;
        }
        while self.bytes > self.bytes_max - bytes {
            self.make_room();
        }
        self.bytes += bytes;
        let hash = spread(route.hash);
        self.parts[part(hash)].insert_unique(hash, Rc::clone(route), |other| spread(other.hash));
    }

    /// Drops every second route of the next part. Where routes lie in it is keyed, so that nobody
    /// can choose whose they are.
    fn make_room(&mut self) {
        let (mut freed, mut stays) = (0, true);
        self.parts[self.hand].retain(|route| {
            stays = !stays;
            if !stays {
                freed += cost(route);
                route.retire();
            }
            stays
        });
        self.bytes -= freed;
        self.hand = (self.hand + 1) % PARTS;
    }

    /// What all routes take together.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }
}

/// What a route takes with its slot, bytes.
fn cost(route: &Route) -> usize {
    SLOT_BYTES + route.bytes()
}

/// A hash as tables want it, which use both its ends: a route has room for half of it.
#[inline]
fn spread(hash: u32) -> u64 {
    u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

/// The part of a hash; bits from its middle, for the tables do not use them.
#[inline]
fn part(hash: u64) -> usize {
    (hash >> 40) as usize % PARTS
}
