//! A queue that most sessions and connections never need: a pointer until something stands in it.
//!
//! An empty `VecDeque` takes 32 bytes where it stands. Of hundreds of thousands of idle clients
//! each would pay for a handful of them.

use std::collections::VecDeque;

/// A first-in-first-out queue; its room, once it was needed, is kept until it is cleared.
#[allow(
    clippy::box_collection,
    reason = "eight bytes instead of thirty-two for those who have none"
)]
pub(crate) struct Queue<T>(Option<Box<VecDeque<T>>>);

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        Queue(None)
    }
}

impl<T> FromIterator<T> for Queue<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Queue<T> {
        VecDeque::from_iter(items).into()
    }
}

impl<T> From<VecDeque<T>> for Queue<T> {
    fn from(items: VecDeque<T>) -> Queue<T> {
        Queue((!items.is_empty()).then(|| Box::new(items)))
    }
}

impl<T> Queue<T> {
    #[inline]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |items| items.len())
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub fn front(&self) -> Option<&T> {
        self.0.as_ref()?.front()
    }

    #[inline]
    pub fn front_mut(&mut self) -> Option<&mut T> {
        self.0.as_mut()?.front_mut()
    }

    #[inline]
    pub fn push_back(&mut self, item: T) {
        self.0.get_or_insert_default().push_back(item);
    }

    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        self.0.as_mut()?.pop_front()
    }

    /// Takes out what stands at a place, counted from the front.
    pub fn remove(&mut self, place: usize) -> Option<T> {
        self.0.as_mut()?.remove(place)
    }

    /// Keeps those for which `is_kept` holds, in their order.
    pub fn retain(&mut self, is_kept: impl FnMut(&T) -> bool) {
        if let Some(items) = &mut self.0 {
            items.retain(is_kept);
        }
    }

    /// Empties it and gives its memory back.
    pub fn clear(&mut self) {
        self.0 = None;
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flat_map(|items| items.iter())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().flat_map(|items| items.iter_mut())
    }

    /// The queue in its two pieces, as it lies in memory.
    #[inline]
    pub fn as_slices(&self) -> (&[T], &[T]) {
        self.0
            .as_ref()
            .map_or((&[], &[]), |items| items.as_slices())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Goal: it is a queue. Method: any changes to it and to a `VecDeque`.
        #[test]
        fn a_queue_does_as_its_model(changes in prop::collection::vec((0..6_u8, 0..9_u16), 0..40)) {
            let (mut queue, mut model) = (Queue::default(), VecDeque::new());
            for (what, number) in changes {
                match what {
                    0..=2 => {
                        queue.push_back(number);
                        model.push_back(number);
                    }
                    3 => prop_assert_eq!(queue.pop_front(), model.pop_front()),
                    4 => {
                        let place = usize::from(number);
                        prop_assert_eq!(queue.remove(place), model.remove(place));
                    }
                    _ => {
                        queue.retain(|item| *item != number);
                        model.retain(|item| *item != number);
                    }
                }
                prop_assert_eq!((queue.len(), queue.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(queue.front(), model.front());
                prop_assert_eq!(queue.front_mut(), model.front_mut());
                prop_assert!(queue.iter().eq(model.iter()));
                prop_assert!(queue.iter_mut().eq(model.iter_mut()));
                let (front, back) = queue.as_slices();
                prop_assert!(front.iter().chain(back).eq(model.iter()));
            }
            let mut filled: Queue<u16> = model.iter().copied().collect();
            prop_assert!(filled.iter().eq(model.iter()));
            filled.clear();
            prop_assert_eq!(filled.pop_front(), None);
        }
    }

    #[test]
    fn an_empty_queue_is_a_pointer() {
        assert_eq!(size_of::<Queue<[u64; 9]>>(), size_of::<usize>());
    }
}
