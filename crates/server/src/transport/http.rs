//! HTTP where MQTT is spoken: told apart by its first bytes, and answered shortly.

use super::Flow;

/// The first four letters of what HTTP/1 and HTTP/2 begin with. No CONNECT begins like one.
const METHODS: [&[u8; 4]; 10] = [
    b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC", b"CONN", b"TRAC", b"PRI ",
];

/// Watches the first bytes of a stream of MQTT.
#[derive(Default)]
pub(super) struct Greeting {
    first: [u8; 4],
    /// How many of them are there; small, as every plain connection has one of this.
    have: u8,
    /// This is not HTTP.
    decided: bool,
}

impl Greeting {
    /// Passes bytes on; the first ones only once they cannot be HTTP any more.
    pub fn pass(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&[u8]) -> Flow) -> Flow {
        if self.decided {
            return sink(bytes);
        }
        let held = usize::from(self.have);
        let take = bytes.len().min(self.first.len() - held);
        self.first[held..held + take].copy_from_slice(&bytes[..take]);
        // At most 4.
        self.have += take as u8;
        let first = &self.first[..held + take];
        if METHODS.iter().any(|method| method.starts_with(first)) {
            return match self.is_http() {
                true => Flow::Halt,
                false => Flow::Onward,
            };
        }
        self.decided = true;
        match held {
            0 => sink(bytes),
            _ => sink(&[&self.first[..held], bytes].concat()),
        }
    }

    /// True where the peer speaks HTTP; nothing was passed on then.
    pub fn is_http(&self) -> bool {
        !self.decided && usize::from(self.have) == self.first.len()
    }
}

/// What somebody is told who speaks HTTP to a port of MQTT.
pub(crate) fn http_on_mqtt() -> Vec<u8> {
    answer("400 Bad Request", "", "this port speaks MQTT, not HTTP")
}

/// A short answer that closes the connection.
pub(super) fn answer(status: &str, lines: &str, sentence: &str) -> Vec<u8> {
    // A newline after the sentence, for people at a terminal.
    let length = sentence.len() + 1;
    let head = "Connection: close\r\nContent-Type: text/plain; charset=utf-8";
    format!("HTTP/1.1 {status}\r\n{lines}{head}\r\nContent-Length: {length}\r\n\r\n{sentence}\n")
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is passed on of bytes in pieces of this size, and whether they are HTTP.
    fn pass(bytes: &[u8], step: usize) -> (Vec<u8>, bool) {
        let (mut greeting, mut passed) = (Greeting::default(), Vec::new());
        for piece in bytes.chunks(step) {
            greeting.pass(piece, &mut |bytes| {
                passed.extend_from_slice(bytes);
                Flow::Onward
            });
            if greeting.is_http() {
                break;
            }
        }
        (passed, greeting.is_http())
    }

    #[test]
    fn http_is_told_apart_however_it_is_cut() {
        for method in [
            "GET /",
            "POST /",
            "OPTIONS *",
            "CONNECT a",
            "PRI * HTTP/2.0",
        ] {
            for step in 1..=method.len() {
                assert_eq!(
                    pass(method.as_bytes(), step),
                    (Vec::new(), true),
                    "{method}"
                );
            }
        }
    }

    #[test]
    fn everything_else_is_passed_on_whole() {
        let table: [&[u8]; 6] = [
            &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'T'],
            b"GETx and more",
            b"PUx",
            b"P\0",
            b"get /",
            &[0; 20],
        ];
        for bytes in table {
            for step in 1..=bytes.len() {
                assert_eq!(pass(bytes, step), (bytes.to_vec(), false), "{bytes:?}");
            }
        }
    }
}
