//! Taking a lock whose last holder may have panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes the lock, poisoned or not.
///
/// A panic in a shard stops the whole server. What it held is a queue or a number, whole after
/// every statement, and whoever still runs needs it to stop in an orderly way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
