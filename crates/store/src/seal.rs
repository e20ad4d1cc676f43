//! Encryption at rest: a data key for each segment, sealed by a key that the caller keeps.
//!
//! AES-256-GCM throughout. The data key of a segment is 32 random bytes that no other segment has;
//! its header carries them, encrypted under the caller's key. A commit is encrypted under the data
//! key with its own number as the nonce: a segment never gets two commits of one number, because
//! after a failed write it gets nothing any more, and after a start neither. What a commit is bound
//! to (store, segment, number, place) goes into the tag, so that it proves nothing anywhere else.

use std::fmt;
use std::io;
use std::sync::Arc;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce, UnboundKey, AES_256_GCM};
use aws_lc_rs::{digest, rand};
use zeroize::Zeroizing;

use crate::error::StoreError;

/// Bytes by which an encrypted body is longer.
pub(crate) const TAG_BYTES: usize = 16;

/// Bytes of a sealed data key: nonce, key, tag.
pub(crate) const SEALED_BYTES: usize = 12 + 32 + TAG_BYTES;

/// What a commit's tag is bound to, as bytes.
pub(crate) type Binding = [u8; 44];

/// Which key of the caller: a part of its hash, which says nothing about the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub(crate) [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A key of the caller. Where it comes from is the caller's affair; it must be random.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    sealing: Arc<LessSafeKey>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key {{ id: {}, bytes: <hidden> }}", self.id)
    }
}

impl Key {
    /// A key of 32 random bytes.
    ///
    /// # Errors
    /// [`StoreError::Cipher`] where the cryptographic library refuses to work.
    pub fn new(bytes: &[u8; 32]) -> Result<Key, StoreError> {
        let mut hash = digest::Context::new(&digest::SHA256);
        hash.update(b"casemate store key id");
        hash.update(bytes);
        let mut id = [0; 8];
        id.copy_from_slice(&hash.finish().as_ref()[..8]);
        Ok(Key {
            id: KeyId(id),
            sealing: Arc::new(aes(bytes)?),
        })
    }

    /// Its id, as segments carry it.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

/// What the store may read, and how it writes.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    current: Option<Key>,
    former: Vec<Key>,
    reads_plain: bool,
}

impl Keys {
    /// No encryption; an encrypted segment is refused.
    pub fn none() -> Keys {
        Keys::default()
    }

    /// New segments are encrypted under `current`; a segment in plain is refused.
    pub fn encrypted(current: Key) -> Keys {
        Keys {
            current: Some(current),
            ..Keys::default()
        }
    }

    /// Reads segments of a former key too, until they are retired.
    #[must_use]
    pub fn and_former(mut self, key: Key) -> Keys {
        self.former.push(key);
        self
    }

    /// Reads segments in plain too, until they are retired: for a store that was not encrypted
    /// before. Meanwhile whoever can write to the folder can put in what was never committed.
    #[must_use]
    pub fn and_plain(mut self) -> Keys {
        self.reads_plain = true;
        self
    }

    /// True where new segments are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.current.is_some()
    }

    pub(crate) fn current(&self) -> Option<&Key> {
        self.current.as_ref()
    }

    pub(crate) fn reads_plain(&self) -> bool {
        self.current.is_none() || self.reads_plain
    }

    pub(crate) fn find(&self, id: KeyId) -> Option<&Key> {
        self.current
            .iter()
            .chain(&self.former)
            .find(|key| key.id == id)
    }
}

/// The data key of one segment.
pub(crate) struct Cipher(LessSafeKey);

impl fmt::Debug for Cipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cipher(<hidden>)")
    }
}

impl Cipher {
    /// A fresh data key, and how it stands in the header `head` that it belongs to.
    ///
    /// # Errors
    /// There is no randomness, or the cryptographic library refuses to work.
    pub fn fresh(
        key: &Key,
        head: &[u8],
        random: fn(&mut [u8]) -> io::Result<()>,
    ) -> Result<(Cipher, [u8; SEALED_BYTES]), StoreError> {
        let mut bytes = Zeroizing::new([0; 32]);
        let mut sealed = [0; SEALED_BYTES];
        let fail = StoreError::disk("no randomness for the key of a segment");
        random(&mut *bytes)
            .and_then(|()| random(&mut sealed[..12]))
            .map_err(fail)?;
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&sealed[..12]);
        let (data, tag) = sealed[12..].split_at_mut(32);
        data.copy_from_slice(&*bytes);
        let made = key
            .sealing
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(head), data)
            .map_err(|_| StoreError::Cipher)?;
        tag.copy_from_slice(made.as_ref());
        Ok((Cipher(aes(&bytes)?), sealed))
    }

    /// The data key of a segment with this header; nothing where its seal is broken.
    pub fn unsealed(key: &Key, head: &[u8], sealed: &[u8; SEALED_BYTES]) -> Option<Cipher> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(&sealed[..12]);
        let (data, tag) = sealed[12..].split_at(32);
        let mut bytes = Zeroizing::new([0; 32]);
        key.sealing
            .open_separate_gather(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(head),
                data,
                tag,
                &mut *bytes,
            )
            .ok()?;
        aes(&bytes).ok().map(Cipher)
    }

    /// Encrypts a body where it stands.
    ///
    /// # Errors
    /// The cryptographic library refuses to work.
    pub fn seal(
        &self,
        number: u64,
        binding: &Binding,
        body: &mut [u8],
    ) -> Result<[u8; TAG_BYTES], StoreError> {
        let made = self
            .0
            .seal_in_place_separate_tag(nonce(number), Aad::from(binding), body)
            .map_err(|_| StoreError::Cipher)?;
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(made.as_ref());
        Ok(tag)
    }

    /// Decrypts what stands on disk, tag included; nothing where it is not what was written there.
    pub fn open(
        &self,
        number: u64,
        binding: &Binding,
        stored: &[u8],
        into: &mut Vec<u8>,
    ) -> Option<()> {
        let (body, tag) = stored.split_last_chunk::<TAG_BYTES>()?;
        into.resize(body.len(), 0);
        self.0
            .open_separate_gather(nonce(number), Aad::from(binding), body, tag, into)
            .ok()
    }
}

/// Randomness of the operating system, for [`crate::Options`].
///
/// # Errors
/// It gives none.
pub fn random(bytes: &mut [u8]) -> io::Result<()> {
    let refused = |_| io::Error::other("the operating system gives no randomness");
    rand::fill(bytes).map_err(refused)
}

fn aes(bytes: &[u8; 32]) -> Result<LessSafeKey, StoreError> {
    let key = UnboundKey::new(&AES_256_GCM, bytes).map_err(|_| StoreError::Cipher)?;
    Ok(LessSafeKey::new(key))
}

fn nonce(number: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..8].copy_from_slice(&number.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
