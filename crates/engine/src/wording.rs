//! What a 5.0 client is told when it is refused: a code that the packet may carry, and words.
//!
//! The words depend on the code, and on the fault where bytes were wrong: nothing in them tells of
//! policies, accounts or other clients, so that a refusal teaches its owner and nobody else. The
//! codec leaves them away where they would not fit what the client reads.

use casemate_codec::Reason;

use crate::shard::Shard;

/// What a client is told when its connection ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goodbye<'a> {
    pub reason: Reason,
    pub words: Option<&'a str>,
    /// Where the client may go instead (MQTT 5.0 §4.11).
    pub server_reference: Option<&'a str>,
}

impl From<Reason> for Goodbye<'static> {
    fn from(reason: Reason) -> Goodbye<'static> {
        Goodbye {
            reason,
            words: words(reason),
            server_reference: None,
        }
    }
}

impl<'a> Goodbye<'a> {
    /// A code with words for this case alone.
    pub fn saying(reason: Reason, words: &'a str) -> Goodbye<'a> {
        Goodbye {
            words: Some(words),
            ..reason.into()
        }
    }
}

/// What the person behind a client may do about a code; nothing where the code says it all.
pub(crate) fn words(reason: Reason) -> Option<&'static str> {
    use Reason::*;
    Some(match reason {
        ProtocolError => "this packet is not allowed at this moment",
        ClientIdentifierNotValid => "the client identifier is longer than this broker accepts",
        // The same for an unknown user and a wrong password.
        BadUserNameOrPassword => "check user name and password",
        NotAuthorized => "not allowed for this client; an operator can see why in the audit log",
        ServerUnavailable | ServerShuttingDown => "the broker stops; connect again later",
        ServerBusy => "the broker has as many connections as it may have; try again later",
        BadAuthenticationMethod => "this authentication method is not offered here",
        KeepAliveTimeout => "nothing was heard for one and a half times the keep alive",
        SessionTakenOver => "this client identifier has connected again elsewhere",
        TopicFilterInvalid => "the filter has more levels than this broker accepts",
        TopicNameInvalid => "the topic has more levels than this broker accepts",
        PacketIdentifierNotFound => "nothing is under way with this packet identifier",
        ReceiveMaximumExceeded => "more messages are unacknowledged than CONNACK allows",
        TopicAliasInvalid => "the topic alias is above the maximum that CONNACK gave",
        PacketTooLarge => "the answer does not fit the maximum packet size that CONNECT gave",
        QuotaExceeded => "a limit of this broker is reached; try again later",
        AdministrativeAction => "an operator has ended this connection",
        UseAnotherServer | ServerMoved => "connect to the server that is named here",
        NoSubscriptionExisted => "there is no such subscription",
        _ => return None,
    })
}

impl Shard {
    /// The words for an acknowledgement with these codes, where its client wants to hear them.
    pub(crate) fn words_for(&self, slot: u32, codes: &[Reason]) -> Option<&'static str> {
        // [MQTT-3.1.2-29]
        let is_wanted = self
            .connection(slot)
            .is_some_and(|found| found.wants_reasons);
        let said = codes.iter().copied().find_map(words);
        said.filter(|_| is_wanted)
    }
}

/// A reason that CONNACK may carry ([MQTT-3.2.2-8]).
pub(crate) fn connack_reason(reason: Reason) -> Reason {
    match reason {
        Reason::TopicFilterInvalid
        | Reason::KeepAliveTimeout
        | Reason::SessionTakenOver
        | Reason::ReceiveMaximumExceeded
        | Reason::TopicAliasInvalid
        | Reason::MessageRateTooHigh
        | Reason::AdministrativeAction
        | Reason::MaximumConnectTime => Reason::UnspecifiedError,
        Reason::ServerShuttingDown => Reason::ServerUnavailable,
        other => other,
    }
}

/// A reason that DISCONNECT may carry ([MQTT-3.14.2-1]).
pub(crate) fn disconnect_reason(reason: Reason) -> Reason {
    match reason {
        Reason::UnsupportedProtocolVersion => Reason::ProtocolError,
        Reason::ClientIdentifierNotValid
        | Reason::BadUserNameOrPassword
        | Reason::Banned
        | Reason::BadAuthenticationMethod => Reason::NotAuthorized,
        Reason::ServerUnavailable => Reason::ServerBusy,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_sentences_without_an_end_mark() {
        let said: Vec<&str> = (0..=u8::MAX)
            .filter_map(Reason::from_byte)
            .filter_map(words)
            .collect();
        assert!(said.len() > 15);
        for text in said {
            assert!(text.len() <= 80 && text.is_ascii(), "{text}");
            assert!(
                text.starts_with(char::is_lowercase) && !text.ends_with('.'),
                "{text}"
            );
        }
    }

    #[test]
    fn success_needs_no_words() {
        for reason in [Reason::Success, Reason::GrantedQoS1, Reason::GrantedQoS2] {
            assert_eq!(words(reason), None);
        }
    }
}
