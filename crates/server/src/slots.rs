//! The connections of one shard, by number; a number is reused only with a new generation.

use casemate_engine::ConnectionId;

use crate::connection::Connection;
use crate::token::GENERATION_MAX;

/// A table whose rows remember how often they were used.
#[derive(Default)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
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
                let slot = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(Slot {
                    generation: 0,
                    connection: None,
                });
                slot
            }
        };
        let row = &mut self.slots[slot as usize];
        row.connection = Some(connection);
        self.live += 1;
        Some(ConnectionId {
            slot,
            generation: row.generation,
        })
    }

    /// The connection of this id, unless it is gone.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let row = self.slots.get_mut(id.slot as usize)?;
        if row.generation != id.generation {
            return None;
        }
        row.connection.as_mut()
    }

    /// Takes a connection out; its id is never valid again.
    pub fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let row = self.slots.get_mut(id.slot as usize)?;
        if row.generation != id.generation {
            return None;
        }
        let connection = row.connection.take()?;
        row.generation = (row.generation + 1) & GENERATION_MAX;
        self.free.push(id.slot);
        self.live -= 1;
        Some(connection)
    }

    /// Every connection that is there, by number.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (ConnectionId, &mut Connection)> {
        self.slots.iter_mut().zip(0..).filter_map(|(row, slot)| {
            let id = ConnectionId {
                slot,
                generation: row.generation,
            };
            row.connection.as_mut().map(|connection| (id, connection))
        })
    }
}
