//! The filters that a session has subscribed to.

use std::collections::BTreeSet;

/// A set of filters, `$share/…` included. Nearly every device has one subscription, and there are
/// hundreds of thousands of devices: one needs no table.
pub(crate) enum Filters {
    One(Option<Box<str>>),
    Many(BTreeSet<Box<str>>),
}

impl Default for Filters {
    fn default() -> Filters {
        Filters::One(None)
    }
}

impl Filters {
    pub fn len(&self) -> usize {
        match self {
            Filters::One(only) => usize::from(only.is_some()),
            Filters::Many(all) => all.len(),
        }
    }

    pub fn contains(&self, filter: &str) -> bool {
        match self {
            Filters::One(only) => only.as_deref() == Some(filter),
            Filters::Many(all) => all.contains(filter),
        }
    }

    /// Adds a filter, once.
    pub fn insert(&mut self, filter: &str) {
        match self {
            Filters::One(None) => *self = Filters::One(Some(filter.into())),
            Filters::One(Some(only)) if **only == *filter => {}
            Filters::One(only) => {
                let mut all: BTreeSet<Box<str>> = only.take().into_iter().collect();
                all.insert(filter.into());
                *self = Filters::Many(all);
            }
            Filters::Many(all) => {
                all.insert(filter.into());
            }
        }
    }

    /// Takes a filter out; false where it is not there.
    pub fn remove(&mut self, filter: &str) -> bool {
        match self {
            Filters::One(only) => only.take_if(|only| **only == *filter).is_some(),
            Filters::Many(all) => all.remove(filter),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Box<str>> {
        let (only, all) = match self {
            Filters::One(only) => (only.as_ref(), None),
            Filters::Many(all) => (None, Some(all.iter())),
        };
        only.into_iter().chain(all.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: the set is a set. Method: any changes to it and to a table.
        #[test]
        fn filters_are_a_set(changes in prop::collection::vec((any::<bool>(), 0..4_u8), 0..30)) {
            let mut filters = Filters::default();
            let mut table: BTreeSet<Box<str>> = BTreeSet::new();
            for (is_added, number) in changes {
                let filter = format!("f{number}");
                if is_added {
                    filters.insert(&filter);
                    table.insert(filter.as_str().into());
                } else {
                    prop_assert_eq!(filters.remove(&filter), table.remove(filter.as_str()));
                }
                prop_assert_eq!(filters.contains(&filter), is_added);
                prop_assert_eq!(filters.len(), table.len());
                prop_assert!(filters.iter().eq(table.iter()));
            }
        }
    }
}
