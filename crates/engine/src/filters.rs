//! What a session has subscribed to: filters by their place in the tree, shared ones by their text.
//!
//! The tree has the text of a filter already. A session that kept it again, in a set of its own,
//! would pay for it twice: 57 bytes for each of a million filters instead of ten.

use std::collections::BTreeSet;

use crate::share::Member;
use crate::tree::FilterId;

/// The subscriptions of one session.
#[derive(Default)]
pub(crate) struct Filters {
    plain: Plain,
    /// How each joined that begins with `$share/`; in the order of their text.
    #[allow(
        clippy::box_collection,
        reason = "eight bytes instead of twenty-four for those who are in no group"
    )]
    shared: Option<Box<Vec<Group>>>,
}

/// A filter that begins with `$share/`, and how the session joined it.
pub(crate) type Group = (Box<str>, Member);

/// Nearly every device has one subscription, and there are hundreds of thousands of devices: one
/// needs no table.
enum Plain {
    One(Option<FilterId>),
    /// Boxed because every session pays for the largest kind.
    #[allow(clippy::box_collection, reason = "sixteen bytes in all instead of 24")]
    Many(Box<BTreeSet<FilterId>>),
}

impl Default for Plain {
    fn default() -> Plain {
        Plain::One(None)
    }
}

impl Filters {
    pub fn len(&self) -> usize {
        let plain = match &self.plain {
            Plain::One(only) => usize::from(only.is_some()),
            Plain::Many(all) => all.len(),
        };
        plain + self.shared().len()
    }

    pub fn contains(&self, filter: FilterId) -> bool {
        match &self.plain {
            Plain::One(only) => *only == Some(filter),
            Plain::Many(all) => all.contains(&filter),
        }
    }

    /// Adds a filter; false where it was there.
    pub fn insert(&mut self, filter: FilterId) -> bool {
        match &mut self.plain {
            Plain::One(None) => self.plain = Plain::One(Some(filter)),
            Plain::One(Some(only)) if *only == filter => return false,
            Plain::One(Some(only)) => self.plain = Plain::Many(Box::new([*only, filter].into())),
            Plain::Many(all) => return all.insert(filter),
        }
        true
    }

    /// Takes a filter out; false where it is not there.
    pub fn remove(&mut self, filter: FilterId) -> bool {
        match &mut self.plain {
            Plain::One(only) => only.take_if(|only| *only == filter).is_some(),
            Plain::Many(all) => all.remove(&filter),
        }
    }

    /// The filters that are not shared, in the order of the tree.
    pub fn plain(&self) -> impl Iterator<Item = FilterId> + '_ {
        let (only, all) = match &self.plain {
            Plain::One(only) => (*only, None),
            Plain::Many(all) => (None, Some(all.iter().copied())),
        };
        only.into_iter().chain(all.into_iter().flatten())
    }

    /// How the session joined a group; `filter` begins with `$share/`.
    pub fn membership(&self, filter: &str) -> Option<&Member> {
        let place = self.place(filter).ok()?;
        Some(&self.shared()[place].1)
    }

    /// Joins a group, or says how anew; false where it was in.
    pub fn join(&mut self, filter: &str, member: Member) -> bool {
        let place = self.place(filter);
        let shared = self.shared.get_or_insert_default();
        match place {
            Ok(place) => shared[place].1 = member,
            Err(place) => shared.insert(place, (filter.into(), member)),
        }
        place.is_err()
    }

    /// Leaves a group; false where it was not in.
    pub fn leave(&mut self, filter: &str) -> bool {
        let place = self.place(filter);
        if let (Ok(place), Some(shared)) = (place, &mut self.shared) {
            shared.remove(place);
        }
        place.is_ok()
    }

    /// The groups, in the order of their text.
    pub fn shared(&self) -> &[Group] {
        self.shared.as_ref().map_or(&[], |shared| shared)
    }

    fn place(&self, filter: &str) -> Result<usize, usize> {
        self.shared()
            .binary_search_by(|(other, _)| (**other).cmp(filter))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use casemate_codec::QoS;
    use proptest::prelude::*;

    use super::*;
    use crate::session::SessionRef;

    fn member(id: u32) -> Member {
        Member {
            shard: 0,
            session: SessionRef { slot: 0, serial: 1 },
            qos: QoS::AtMostOnce,
            id,
            retain_as_published: false,
            online: true,
        }
    }

    proptest! {
        /// Goal: the set is a set. Method: any changes to it and to a table.
        #[test]
        fn filters_are_a_set(changes in prop::collection::vec((any::<bool>(), 0..4_u32), 0..30)) {
            let mut filters = Filters::default();
            let mut table = BTreeSet::new();
            for (is_added, number) in changes {
                let filter = FilterId::of(number);
                if is_added {
                    prop_assert_eq!(filters.insert(filter), table.insert(filter));
                } else {
                    prop_assert_eq!(filters.remove(filter), table.remove(&filter));
                }
                prop_assert_eq!(filters.contains(filter), is_added);
                prop_assert_eq!(filters.len(), table.len());
                prop_assert!(filters.plain().eq(table.iter().copied()));
            }
        }

        /// Goal: each group has the last word about it. Method: any changes, and a table.
        #[test]
        fn groups_are_a_map(
            changes in prop::collection::vec((any::<bool>(), 0..4_u8, 0..9_u32), 0..30),
        ) {
            let mut filters = Filters::default();
            let mut table: BTreeMap<Box<str>, Member> = BTreeMap::new();
            for (is_joined, number, id) in changes {
                let filter = format!("$share/g{number}/f");
                if is_joined {
                    let is_new = table.insert(filter.as_str().into(), member(id)).is_none();
                    prop_assert_eq!(filters.join(&filter, member(id)), is_new);
                } else {
                    prop_assert_eq!(filters.leave(&filter), table.remove(&*filter).is_some());
                }
                prop_assert_eq!(filters.membership(&filter), table.get(&*filter));
                prop_assert_eq!(filters.len(), table.len());
                let all = filters.shared().iter().map(|(filter, member)| (filter, member));
                prop_assert!(all.eq(table.iter()));
            }
        }
    }
}
