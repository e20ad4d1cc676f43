//! The connections of one shard, by number; a number is reused only with a new generation.

use casemate_engine::ConnectionId;

use crate::connection::Connection;
use crate::token::GENERATION_MAX;

/// Rows that are added to the table at a time. A table in one piece would have to be copied to
/// grow, and be half empty after that.
const CHUNK: usize = 32;

/// A table whose rows remember how often they were used.
#[derive(Default)]
pub(crate) struct Slots {
    /// All but the last are full.
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    live: usize,
}

struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

impl Slots {
    /// Connections that are there.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Puts a connection in; closes it where every number is taken.
    pub fn insert(&mut self, connection: Connection) -> Option<ConnectionId> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                // As many as there are rows; the free list is empty.
                let slot = u32::try_from(self.live).ok()?;
                self.add_row();
                slot
            }
        };
        let row = self.row_mut(slot)?;
        row.connection = Some(connection);
        let generation = row.generation;
        self.live += 1;
        Some(ConnectionId { slot, generation })
    }

    /// The connection of this id, unless it is gone.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let row = self.row_mut(id.slot)?;
        if row.generation != id.generation {
            return None;
        }
        row.connection.as_mut()
    }

    /// Takes a connection out; its id is never valid again.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let row = self.row_mut(id.slot)?;
        if row.generation != id.generation {
            return None;
        }
        let connection = row.connection.take()?;
        row.generation = (row.generation + 1) & GENERATION_MAX;
        self.free.push(id.slot);
        self.live -= 1;
        Some(connection)
    }

    fn row_mut(&mut self, slot: u32) -> Option<&mut Slot> {
        let slot = slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.get_mut(slot % CHUNK)
    }

    fn add_row(&mut self) {
        if self.chunks.last().is_none_or(|last| last.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        if let Some(last) = self.chunks.last_mut() {
            last.push(Slot {
                generation: 0,
                connection: None,
            });
        }
    }

    /// Every connection that is there, by number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        let rows = self.chunks.iter_mut().flatten();
        rows.zip(0..).filter_map(|(row, slot)| {
            let id = ConnectionId {
                slot,
                generation: row.generation,
            };
            row.connection.as_mut().map(|connection| (id, connection))
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use casemate_engine::PeerAddress;
    use mio::net::UnixStream;

    use super::*;
    use crate::entrance::{Doorway, Entry};
    use crate::inside::Insider;
    use crate::socket::Socket;
    use crate::transport::{Plain, Transport};

    /// Connections of one doorway, which counts those that are there.
    struct Street(Arc<Doorway>);

    impl Street {
        fn new() -> Street {
            let (name, roles) = ("pump".into(), Vec::new());
            Street(Arc::new(Doorway::inside(Insider { name, roles })))
        }

        fn connection(&self) -> Connection {
            let stream = Socket::Unix(UnixStream::pair().unwrap().0);
            let entry = Entry::new(&self.0, &self.0.now()).unwrap();
            let transport = Transport::Plain(Plain::default());
            Connection::new(stream, transport, entry, PeerAddress::None)
        }
    }

    /// Goal: each number finds its own connection. Method: more than one piece of the table.
    #[test]
    fn every_connection_is_found_by_its_number_and_no_other_is() {
        let street = Street::new();
        let mut slots = Slots::default();
        let count = CHUNK * 2 + 1;
        let ids: Vec<_> = (0..count)
            .map(|_| slots.insert(street.connection()).unwrap())
            .collect();
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(id.slot as usize, number);
            slots.get_mut(*id).unwrap().expulsions_seen = number as u64;
        }
        let seen = slots.iter_mut();
        let seen: Vec<_> = seen.map(|(id, it)| (id, it.expulsions_seen)).collect();
        let expected: Vec<_> = ids.iter().copied().zip(0..).collect();
        assert_eq!(seen, expected);
        assert_eq!((slots.len(), street.0.guests()), (count, count));
        let beyond = ConnectionId {
            slot: count as u32,
            generation: 0,
        };
        assert!(slots.get_mut(beyond).is_none() && slots.remove(beyond).is_none());
    }

    #[test]
    fn a_number_is_used_again_only_with_a_new_generation() {
        let street = Street::new();
        let mut slots = Slots::default();
        let ids: Vec<_> = (0..CHUNK)
            .map(|_| slots.insert(street.connection()).unwrap())
            .collect();
        let gone = ids[CHUNK / 2];
        assert!(slots.remove(gone).is_some());
        assert!(slots.get_mut(gone).is_none() && slots.remove(gone).is_none());
        let next = slots.insert(street.connection()).unwrap();
        assert_eq!(next.slot, gone.slot);
        assert_ne!(next.generation, gone.generation);
        assert!(slots.get_mut(gone).is_none() && slots.get_mut(next).is_some());
        assert_eq!(
            slots.insert(street.connection()).unwrap().slot,
            CHUNK as u32
        );
        assert_eq!((slots.len(), street.0.guests()), (CHUNK + 1, CHUNK + 1));
    }
}
