//! The entries at one filter: mostly one, which then needs no memory of its own.

use std::mem;
use std::slice;

/// None, one or more entries, in no order.
pub(super) enum Entries<T> {
    None,
    One(T),
    /// Boxed because every node pays for the largest kind, and crowds are few.
    #[allow(
        clippy::box_collection,
        reason = "sixteen bytes in a node instead of twenty-four"
    )]
    Many(Box<Vec<T>>),
}

impl<T> Entries<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            Entries::None => &[],
            Entries::One(entry) => slice::from_ref(entry),
            Entries::Many(entries) => entries,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            Entries::None => &mut [],
            Entries::One(entry) => slice::from_mut(entry),
            Entries::Many(entries) => entries,
        }
    }

    /// Replaces the entry for which `same` holds and returns it, or adds one more.
    pub fn put(&mut self, entry: T, same: impl Fn(&T) -> bool) -> Option<T> {
        if let Some(old) = self.as_mut_slice().iter_mut().find(|old| same(old)) {
            return Some(mem::replace(old, entry));
        }
        match mem::replace(self, Entries::None) {
            Entries::None => *self = Entries::One(entry),
            Entries::One(first) => *self = Entries::Many(Box::new(vec![first, entry])),
            Entries::Many(mut entries) => {
                entries.push(entry);
                *self = Entries::Many(entries);
            }
        }
        None
    }

    /// Takes out the entry for which `same` holds.
    pub fn take(&mut self, same: impl Fn(&T) -> bool) -> Option<T> {
        let index = self.as_slice().iter().position(same)?;
        match mem::replace(self, Entries::None) {
            Entries::None => None,
            Entries::One(entry) => Some(entry),
            Entries::Many(mut entries) => {
                let taken = entries.swap_remove(index);
                // Half of the room is given back, so that a crowd that left is not paid for.
                if entries.len() < entries.capacity() / 4 {
                    entries.shrink_to(entries.len() * 2);
                }
                *self = match entries.len() {
                    1 => entries.pop().map_or(Entries::None, Entries::One),
                    _ => Entries::Many(entries),
                };
                Some(taken)
            }
        }
    }
}
