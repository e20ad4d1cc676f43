//! Streams: bytes in one direction, delayed, split, joined and cut, never reordered.

use std::collections::VecDeque;

use casemate_engine::Millis;

use crate::chance::Chance;

/// How a stream behaves.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Longest way of a piece, ms.
    pub delay_ms_max: u64,
    /// Whether pieces are cut small, in bytes; 0 leaves them whole.
    pub piece_bytes_max: u64,
    /// What fits between writer and reader, bytes.
    pub capacity: usize,
}

/// Bytes that arrive together.
#[derive(Debug)]
struct Piece {
    at: Millis,
    bytes: Vec<u8>,
    taken: usize,
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Stream {
    weather: Weather,
    pieces: VecDeque<Piece>,
    inside: usize,
    last_at: Millis,
    ends_at: Option<Millis>,
    /// Bytes ever written.
    pub written: u64,
    /// Bytes ever read.
    pub read: u64,
}

impl Stream {
    /// An empty stream.
    pub fn new(weather: Weather) -> Stream {
        Stream {
            weather,
            pieces: VecDeque::new(),
            inside: 0,
            last_at: 0,
            ends_at: None,
            written: 0,
            read: 0,
        }
    }

    /// Heals the weather: whole pieces, no delay, much room.
    pub fn heal(&mut self) {
        self.weather = Weather {
            delay_ms_max: 0,
            piece_bytes_max: 0,
            capacity: 1 << 20,
        };
    }

    /// True where its writer has ended it, whatever is still on its way.
    pub fn is_ending(&self) -> bool {
        self.ends_at.is_some()
    }

    /// Bytes that still fit.
    pub fn room(&self) -> usize {
        if self.ends_at.is_some() {
            return 0;
        }
        self.weather.capacity.saturating_sub(self.inside)
    }

    /// Takes as many bytes as fit, and says how many.
    pub fn write(&mut self, now: Millis, chance: &mut Chance, bytes: &[u8]) -> usize {
        let accepted = bytes.len().min(self.room());
        let mut rest = &bytes[..accepted];
        while !rest.is_empty() {
            let length = match self.weather.piece_bytes_max {
                0 => rest.len(),
                most => (chance.between(1, most) as usize).min(rest.len()),
            };
            let at = now + chance.between(0, self.weather.delay_ms_max);
            self.last_at = self.last_at.max(at);
            let (piece, left) = rest.split_at(length);
            self.pieces.push_back(Piece {
                at: self.last_at,
                bytes: piece.to_vec(),
                taken: 0,
            });
            rest = left;
        }
        self.inside += accepted;
        self.written += accepted as u64;
        accepted
    }

    /// Moves what has arrived into `into`, up to `most` bytes; says how many.
    pub fn take(&mut self, now: Millis, most: usize, into: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while let Some(piece) = self.pieces.front_mut() {
            if piece.at > now || taken == most {
                break;
            }
            let part = (piece.bytes.len() - piece.taken).min(most - taken);
            into.extend_from_slice(&piece.bytes[piece.taken..piece.taken + part]);
            piece.taken += part;
            taken += part;
            if piece.taken == piece.bytes.len() {
                self.pieces.pop_front();
            }
        }
        self.inside -= taken;
        self.read += taken as u64;
        taken
    }

    /// When there is something to read, or the end to be seen.
    pub fn readable_at(&self) -> Option<Millis> {
        match self.pieces.front() {
            Some(piece) => Some(piece.at),
            None => self.ends_at,
        }
    }

    /// True where everything was read and the writer has closed.
    pub fn is_over(&self, now: Millis) -> bool {
        self.pieces.is_empty() && self.ends_at.is_some_and(|at| at <= now)
    }

    /// True where nothing is between writer and reader.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The writer closes; what was written still arrives.
    pub fn finish(&mut self, now: Millis) {
        let at = self.last_at.max(now);
        self.ends_at.get_or_insert(at);
    }

    /// The connection breaks: a random tail of what was not read is lost.
    pub fn cut(&mut self, now: Millis, chance: &mut Chance) {
        let kept = if chance.percent(50) {
            chance.index(self.inside + 1)
        } else {
            0
        };
        let mut left = kept;
        for piece in &mut self.pieces {
            let length = piece.bytes.len() - piece.taken;
            let part = length.min(left);
            piece.bytes.truncate(piece.taken + part);
            left -= part;
        }
        self.pieces.retain(|piece| piece.bytes.len() > piece.taken);
        self.inside = kept;
        self.ends_at = Some(self.pieces.back().map_or(now, |piece| piece.at.max(now)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_in_order_whatever_the_weather() {
        let mut chance = Chance::new(5);
        let weather = Weather {
            delay_ms_max: 20,
            piece_bytes_max: 3,
            capacity: 64,
        };
        let mut stream = Stream::new(weather);
        let sent: Vec<u8> = (0..=255).collect();
        let (mut accepted, mut got, mut now) = (0, Vec::new(), 0);
        while got.len() < sent.len() {
            accepted += stream.write(now, &mut chance, &sent[accepted..]);
            assert!(stream.inside <= 64);
            now += 1;
            let most = chance.index(9);
            stream.take(now, most, &mut got);
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn a_cut_loses_a_tail_and_nothing_else() {
        for seed in 0..200 {
            let mut chance = Chance::new(seed);
            let weather = Weather {
                delay_ms_max: 5,
                piece_bytes_max: 4,
                capacity: 1000,
            };
            let mut stream = Stream::new(weather);
            let sent: Vec<u8> = (0..100).collect();
            stream.write(0, &mut chance, &sent);
            let mut got = Vec::new();
            stream.take(2, 30, &mut got);
            stream.cut(2, &mut chance);
            stream.take(100, 1000, &mut got);
            assert_eq!(got, sent[..got.len()]);
            assert!(stream.is_over(100));
        }
    }
}
