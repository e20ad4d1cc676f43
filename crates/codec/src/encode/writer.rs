//! One sink for measuring and for writing, so that both see the same packet.

/// Appends the data types of the wire to a buffer, or only counts their bytes.
pub(super) struct Writer<'a> {
    out: Option<&'a mut Vec<u8>>,
    bytes: usize,
    without_form: bool,
}

/// Bytes of a variable byte integer; 5 for values that have no form.
#[inline]
pub(crate) fn varint_bytes(value: usize) -> usize {
    match value {
        0..=0x7F => 1,
        0x80..=0x3FFF => 2,
        0x4000..=0x1F_FFFF => 3,
        0x20_0000..=0xFFF_FFFF => 4,
        _ => 5,
    }
}

impl<'a> Writer<'a> {
    /// A writer that only counts.
    pub(super) fn measuring() -> Writer<'static> {
        Writer {
            out: None,
            bytes: 0,
            without_form: false,
        }
    }

    /// A writer that appends to `out`.
    pub(super) fn into(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer {
            out: Some(out),
            bytes: 0,
            without_form: false,
        }
    }

    pub(super) fn written_bytes(&self) -> usize {
        self.bytes
    }

    /// True once something was asked for that the wire cannot say.
    pub(super) fn is_without_form(&self) -> bool {
        self.without_form
    }

    /// Notes that the packet has no form on the wire.
    pub(super) fn refuse(&mut self) {
        self.without_form = true;
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len();
        if let Some(out) = &mut self.out {
            out.extend_from_slice(bytes);
        }
    }

    pub(super) fn byte(&mut self, byte: u8) {
        self.bytes(&[byte]);
    }

    pub(super) fn two(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    pub(super) fn four(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    /// Writes the shortest form ([MQTT-1.5.5-1]).
    pub(super) fn varint(&mut self, value: usize) {
        if varint_bytes(value) > 4 {
            return self.refuse();
        }
        let mut rest = value;
        while rest >= 0x80 {
            self.byte(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.byte(rest as u8);
    }

    pub(super) fn binary(&mut self, bytes: &[u8]) {
        match u16::try_from(bytes.len()) {
            Ok(length) => {
                self.two(length);
                self.bytes(bytes);
            }
            Err(_) => self.refuse(),
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        self.binary(text.as_bytes());
    }

    /// Writes a property block: its length, then what `write` writes.
    pub(super) fn block(&mut self, write: impl Fn(&mut Writer<'_>)) {
        let mut measure = Writer::measuring();
        write(&mut measure);
        if measure.without_form {
            return self.refuse();
        }
        self.varint(measure.bytes);
        write(self);
    }
}
