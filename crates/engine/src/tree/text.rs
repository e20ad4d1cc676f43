//! The text of nodes, in sixteen bytes and as little as possible beside them.

/// Text up to this length stands in the node.
const SHORT: usize = 14;
/// Longer text stands in slots whose sizes are multiples of this.
const STEP: usize = 16;
/// How many sizes of slots there are; what is longer than the largest gets a box of its own.
const SIZES: usize = 8;

/// A text of one node; read, and given back, through [`Texts`].
pub(super) enum Text {
    Short {
        length: u8,
        bytes: [u8; SHORT],
    },
    Slot {
        size: u8,
        length: u8,
        slot: u32,
    },
    /// Boxed twice because a thin pointer keeps every node smaller; such text is rare.
    #[allow(
        clippy::redundant_allocation,
        reason = "sixteen bytes instead of twenty-four"
    )]
    Long(Box<Box<[u8]>>),
}

impl Text {
    pub const EMPTY: Text = Text::Short {
        length: 0,
        bytes: [0; SHORT],
    };
}

/// Slots for text between fifteen bytes and 128: an identifier of 36 costs 48, not an allocation.
pub(super) struct Texts {
    sizes: [Slots; SIZES],
}

/// Slots of one size; free ones are linked through their first four bytes.
struct Slots {
    bytes: Vec<u8>,
    free: u32,
}

const NO_SLOT: u32 = u32::MAX;

impl Texts {
    pub fn new() -> Texts {
        Texts {
            sizes: std::array::from_fn(|_| Slots {
                bytes: Vec::new(),
                free: NO_SLOT,
            }),
        }
    }

    /// Copies a text in.
    pub fn keep(&mut self, text: &[u8]) -> Text {
        if text.len() <= SHORT {
            let mut bytes = [0; SHORT];
            bytes[..text.len()].copy_from_slice(text);
            return Text::Short {
                length: text.len() as u8,
                bytes,
            };
        }
        if text.len() > STEP * SIZES {
            return Text::Long(Box::new(text.into()));
        }
        let size = (text.len() - 1) / STEP;
        let slot = self.sizes[size].keep(text, (size + 1) * STEP);
        Text::Slot {
            size: size as u8,
            length: text.len() as u8,
            slot,
        }
    }

    /// The bytes of a text.
    #[inline]
    pub fn read<'a>(&'a self, text: &'a Text) -> &'a [u8] {
        match text {
            Text::Short { length, bytes } => &bytes[..usize::from(*length)],
            Text::Slot { size, length, slot } => {
                let size = usize::from(*size);
                let start = *slot as usize * (size + 1) * STEP;
                &self.sizes[size].bytes[start..start + usize::from(*length)]
            }
            Text::Long(bytes) => bytes,
        }
    }

    /// What the slots take, bytes.
    #[cfg(test)]
    pub fn bytes(&self) -> usize {
        self.sizes.iter().map(|slots| slots.bytes.capacity()).sum()
    }

    /// Gives the memory of a text back.
    pub fn forget(&mut self, text: Text) {
        if let Text::Slot { size, slot, .. } = text {
            let size = usize::from(size);
            self.sizes[size].forget(slot, (size + 1) * STEP);
        }
    }
}

impl Slots {
    fn keep(&mut self, text: &[u8], size: usize) -> u32 {
        let slot = if self.free == NO_SLOT {
            let slot = self.bytes.len() / size;
            grow(&mut self.bytes, size);
            self.bytes.resize(self.bytes.len() + size, 0);
            slot as u32
        } else {
            let slot = self.free;
            let link = &self.bytes[slot as usize * size..][..4];
            self.free = u32::from_le_bytes([link[0], link[1], link[2], link[3]]);
            slot
        };
        self.bytes[slot as usize * size..][..text.len()].copy_from_slice(text);
        slot
    }

    fn forget(&mut self, slot: u32, size: usize) {
        self.bytes[slot as usize * size..][..4].copy_from_slice(&self.free.to_le_bytes());
        self.free = slot;
    }
}

/// Makes room by an eighth instead of by doubling: the unused half of a million nodes is 28 MB.
pub(super) fn grow<E>(items: &mut Vec<E>, more: usize) {
    if items.capacity() - items.len() < more {
        items.reserve_exact(more.max(items.len() / 8).max(64));
    }
}
