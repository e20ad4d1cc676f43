//! Names and seeds that nobody can guess.

use aws_lc_rs::rand;

const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Letters of a name: 22 of 62 kinds are 131 bits, and fit the 23 of MQTT 3.1.
const NAME_LETTERS: usize = 22;

/// The operating system gave no randomness; nothing may go on as if it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no randomness")]
pub(crate) struct NoRandomness;

/// Draws the first randomness of this process, which costs some 30 ms of processor time: aws-lc
/// measures the jitter of the processor for its seed. Called beside other work, it is there when
/// [`crate::Server::start`] needs it. Without randomness the start says so.
pub fn prime() {
    let _ = seeds();
}

/// A fresh name of 22 letters and digits.
///
/// # Errors
/// [`NoRandomness`], never a weaker name.
pub(crate) fn name() -> Result<Box<str>, NoRandomness> {
    let mut name = String::with_capacity(NAME_LETTERS);
    let mut bytes = [0; 32];
    while name.len() < NAME_LETTERS {
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        // Bytes from 248 on are left out: with them the first letters would be likelier.
        let letters = bytes.iter().filter(|&&byte| byte < 248);
        for &byte in letters.take(NAME_LETTERS - name.len()) {
            name.push(char::from(LETTERS[usize::from(byte % 62)]));
        }
    }
    Ok(name.into_boxed_str())
}

/// Seeds for keyed hashing.
///
/// # Errors
/// [`NoRandomness`].
pub(crate) fn seeds() -> Result<[u64; 4], NoRandomness> {
    let mut seeds = [0; 4];
    for seed in &mut seeds {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes).map_err(|_| NoRandomness)?;
        *seed = u64::from_le_bytes(bytes);
    }
    Ok(seeds)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_22_letters_and_never_the_same() {
        let names: std::collections::HashSet<_> = (0..1000).map(|_| name().unwrap()).collect();
        assert_eq!(names.len(), 1000);
        assert!(names
            .iter()
            .all(|n| n.len() == 22 && n.bytes().all(|b| LETTERS.contains(&b))));
    }

    #[test]
    fn seeds_differ() {
        assert_ne!(seeds().unwrap(), seeds().unwrap());
    }
}
