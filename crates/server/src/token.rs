//! What a readiness event is about, packed into the poll's token.

use casemate_engine::{ConnectionId, ListenerId};
use mio::Token;

// A slot and a generation share one token.
const _: () = assert!(usize::BITS >= 64, "tokens need 64 bits");

/// The inbox has something.
pub(crate) const WAKER: Token = Token(usize::MAX);

const DOOR: usize = 1 << 63;

/// The largest generation of a connection; the bit above it marks doors and the waker.
pub(crate) const GENERATION_MAX: u32 = 0x7FFF_FFFF;

/// Who a readiness event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// See [`WAKER`].
    Waker,
    /// A listener, perhaps one that is gone.
    Door(ListenerId),
    /// A connection, perhaps one that is gone.
    Connection(ConnectionId),
}

/// The token of a listener.
pub(crate) fn door(id: ListenerId) -> Token {
    Token(DOOR | usize::from(id))
}

/// The token of a connection.
pub(crate) fn connection(id: ConnectionId) -> Token {
    Token((id.generation as usize) << 32 | id.slot as usize)
}

/// Reads a token.
pub(crate) fn source(token: Token) -> Source {
    match token {
        WAKER => Source::Waker,
        // A listener's number fits by construction.
        Token(value) if value & DOOR != 0 => Source::Door((value & 0xFFFF) as ListenerId),
        // Both halves fit by construction.
        Token(value) => Source::Connection(ConnectionId {
            slot: (value & 0xFFFF_FFFF) as u32,
            generation: (value >> 32) as u32,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_what_they_were() {
        let id = ConnectionId {
            slot: u32::MAX,
            generation: GENERATION_MAX,
        };
        assert_eq!(source(connection(id)), Source::Connection(id));
        for number in [0, 63, ListenerId::MAX] {
            assert_eq!(source(door(number)), Source::Door(number));
        }
        assert_eq!(source(WAKER), Source::Waker);
    }
}
