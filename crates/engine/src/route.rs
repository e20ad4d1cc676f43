//! Where messages of a topic go: the subscriptions by filter, and the answers already worked out.

mod cache;
mod changes;
mod reach;
mod topic;

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher};
use std::rc::Rc;

use ahash::RandomState;
use casemate_codec::QoS;
use memchr::memchr2;

use crate::door::{ConnectionId, Place, ShardIndex};
use crate::outbox::Ids;
use crate::policy::PublishRights;
use crate::tree::Tree;

use cache::Cache;
use changes::Changes;
use reach::Reach;
use topic::Topic;

/// What the routes of all shards together may take, bytes: a million of one recipient each. Unique
/// topics take no more, and neither do crowds on each of them.
const ROUTES_BYTES_MAX: usize = 192 * 1024 * 1024;

/// Of a route that is not current any more, whatever changes: no count gets as far.
const RETIRED: u64 = u64::MAX;

/// Who stands at a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A session of this shard.
    Session(Subscription),
    /// A neighbour with somebody interested.
    Peer(ShardIndex),
    /// A share group whose home this shard is.
    Group(u32),
}

/// One subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subscription {
    pub session: u32,
    /// Subscription Identifier, 0 for none.
    pub id: u32,
    pub qos: QoS,
    pub no_local: bool,
    pub retain_as_published: bool,
}

/// One recipient of a topic: all its matching subscriptions in one.
#[derive(Clone)]
pub(crate) struct Target {
    pub session: u32,
    pub qos: QoS,
    pub retain_as_published: bool,
    /// At least one of its subscriptions must not get what the session published itself.
    pub no_local: bool,
    pub ids: Ids,
}

/// All recipients of a topic in this shard, already authorised, and the neighbours.
pub(crate) struct Route {
    pub tenant: u32,
    pub topic: Topic,
    hash: u32,
    /// All changes of filters when it was last known to be current.
    checked_at: Cell<u64>,
    /// The changes that can concern it, as they were when it was made; or [`RETIRED`].
    made_at: Cell<u64>,
    reach: Reach,
    /// One bit for each interested neighbour.
    pub peers: u64,
    known: Cell<Known>,
}

/// What the last publisher of a topic may do there. Most topics have one.
#[derive(Clone, Copy)]
struct Known {
    publisher: ConnectionId,
    /// The end of the policy's number, for which there is room: with another policy its routes are
    /// not current any more.
    epoch: u32,
    rights: Option<PublishRights>,
}

impl Route {
    /// What a connection may publish here, as far as it is known under this policy.
    #[inline]
    pub fn rights_of(&self, publisher: ConnectionId, epoch: u64) -> Option<PublishRights> {
        let known = self.known.get();
        let is_it = known.publisher == publisher && known.epoch == epoch as u32;
        known.rights.filter(|_| is_it)
    }

    /// Remembers what a connection may publish here.
    pub fn know(&self, publisher: ConnectionId, epoch: u64, rights: PublishRights) {
        self.known.set(Known {
            publisher,
            epoch: epoch as u32,
            rights: Some(rights),
        });
    }

    /// The recipients in this shard.
    #[inline]
    pub fn targets(&self) -> &[Target] {
        self.reach.targets()
    }

    /// The share groups whose home is this shard.
    #[inline]
    pub fn groups(&self) -> &[u32] {
        self.reach.groups()
    }

    /// True of the topic's route.
    #[inline]
    fn is_of(&self, tenant: u32, topic_bytes: &[u8]) -> bool {
        self.tenant == tenant && self.topic.as_bytes() == topic_bytes
    }

    /// What it takes, bytes; the same as long as it lives.
    fn bytes(&self) -> usize {
        // The two counts of an `Rc` stand before it.
        let itself = 2 * size_of::<usize>() + size_of::<Route>();
        itself + self.topic.bytes_elsewhere() + self.reach.bytes_elsewhere()
    }

    /// Is never current again. Whatever leaves the cache has to be: a change of the filter that is
    /// its topic finds it there or nowhere.
    fn retire(&self) {
        self.checked_at.set(RETIRED);
        self.made_at.set(RETIRED);
    }
}

/// Subscriptions and routes of a shard.
pub(crate) struct Routes {
    pub tree: Tree<Entry>,
    cache: Cache,
    hasher: RandomState,
    changes: Changes,
}

impl Target {
    /// Begins with one subscription.
    pub fn of(subscription: &Subscription) -> Target {
        Target {
            session: subscription.session,
            qos: subscription.qos,
            retain_as_published: subscription.retain_as_published,
            no_local: subscription.no_local,
            ids: (subscription.id != 0).then(|| Rc::new(vec![subscription.id])),
        }
    }

    /// Adds another subscription of the same session.
    pub fn join(&mut self, subscription: &Subscription) {
        // [MQTT-3.3.4-2] [MQTT-3.1.1 3.3.5-1]
        self.qos = self.qos.max(subscription.qos);
        self.retain_as_published |= subscription.retain_as_published;
        self.no_local |= subscription.no_local;
        if subscription.id != 0 {
            let ids = self.ids.get_or_insert_with(Rc::default);
            Rc::make_mut(ids).push(subscription.id);
        }
    }
}

impl Routes {
    pub fn new(place: &Place) -> Routes {
        Routes::within(ROUTES_BYTES_MAX / usize::from(place.count), place)
    }

    /// Keeps no more than so many bytes of routes.
    fn within(bytes_max: usize, place: &Place) -> Routes {
        let [a, b, c, d] = place.seeds;
        Routes {
            tree: Tree::new(place.seeds),
            cache: Cache::new(bytes_max),
            hasher: RandomState::with_seeds(b, c, d, a),
            changes: Changes::new(RandomState::with_seeds(c, d, a, b)),
        }
    }

    fn hash(&self, tenant: u32, topic_bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write_u32(tenant);
        hasher.write(topic_bytes);
        hasher.finish() as u32
    }

    /// Says that a subscription at `filter` came, went or changed.
    pub fn touch(&mut self, tenant: u32, filter: &str) {
        if memchr2(b'+', b'#', filter.as_bytes()).is_some() {
            self.changes.count(tenant, filter);
        } else {
            // It matches one topic.
            let hash = self.hash(tenant, filter.as_bytes());
            self.cache.forget(hash, tenant, filter);
        }
    }

    /// Says that every answer may have changed (another policy, other roles).
    pub fn touch_all(&mut self) {
        self.changes.count_everywhere();
    }

    /// True while `route` is the answer for its topic.
    #[inline]
    pub fn is_current(&self, route: &Route) -> bool {
        route.checked_at.get() == self.changes.total() || self.is_still_current(route)
    }

    /// As [`Routes::is_current`], after a change that may not concern it.
    #[inline(never)]
    fn is_still_current(&self, route: &Route) -> bool {
        let made_at = route.made_at.get();
        if made_at == RETIRED || made_at != self.changes.seen_by(route.tenant, &route.topic) {
            return false;
        }
        route.checked_at.set(self.changes.total());
        true
    }

    /// The known and current route of a topic.
    pub fn find(&self, tenant: u32, topic_bytes: &[u8]) -> Option<Rc<Route>> {
        let hash = self.hash(tenant, topic_bytes);
        let route = self.cache.find(hash, tenant, topic_bytes)?;
        self.is_current(route).then(|| Rc::clone(route))
    }

    /// Works a route out; `judge` sees each session's merged subscriptions and may lower or refuse.
    pub fn build(
        &mut self,
        tenant: u32,
        topic: &str,
        mut judge: impl FnMut(&mut Target) -> bool,
    ) -> Rc<Route> {
        let mut subscriptions = Vec::new();
        let mut groups = Vec::new();
        let mut peers = 0;
        // [MQTT-3.3.2-3] [MQTT-3.1.1 3.3.2-3]
        self.tree.matches(tenant, topic, |entry| match entry {
            Entry::Session(subscription) => subscriptions.push(*subscription),
            Entry::Peer(peer) => peers |= 1 << peer,
            Entry::Group(group) => groups.push(*group),
        });
        // Stable: identifiers stay in the order of the tree.
        subscriptions.sort_by_key(|subscription| subscription.session);
        let mut targets: Vec<Target> = Vec::with_capacity(subscriptions.len());
        for subscription in &subscriptions {
            match targets
                .last_mut()
                .filter(|target| target.session == subscription.session)
            {
                Some(target) => target.join(subscription),
                None => targets.push(Target::of(subscription)),
            }
        }
        targets.retain_mut(|target| judge(target));
        let route = Rc::new(Route {
            tenant,
            topic: Topic::new(topic),
            hash: self.hash(tenant, topic.as_bytes()),
            checked_at: Cell::new(self.changes.total()),
            made_at: Cell::new(self.changes.seen_by(tenant, topic)),
            reach: Reach::of(targets, groups),
            peers,
            known: Cell::new(Known {
                publisher: ConnectionId {
                    slot: 0,
                    generation: 0,
                },
                epoch: 0,
                rights: None,
            }),
        });
        self.cache.keep(&route);
        route
    }

    /// What a session gets of a topic that it publishes itself.
    pub fn without_no_local(&self, tenant: u32, topic: &str, session: u32) -> Option<Target> {
        let mut target: Option<Target> = None;
        self.tree.matches(tenant, topic, |entry| match entry {
            Entry::Session(subscription)
                // [MQTT-3.8.3-3]
                if subscription.session == session && !subscription.no_local =>
            {
                match &mut target {
                    Some(target) => target.join(subscription),
                    None => target = Some(Target::of(subscription)),
                }
            }
            _ => {}
        });
        target
    }
}

#[cfg(test)]
mod tests;
