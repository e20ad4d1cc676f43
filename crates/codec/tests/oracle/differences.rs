//! The known differences between us and the oracles, each with the reason why we differ.

use casemate_codec::{decode, frame, Malformed, Packet, QoS, Reason, Sender, Version};

use crate::oracle::Oracle;

/// One packet on which an oracle and we differ.
#[derive(Debug)]
pub struct Case<'a> {
    pub oracle: Oracle,
    pub version: Version,
    pub sender: Sender,
    pub packet: &'a [u8],
    pub ours: &'a Result<Packet<'a>, Malformed>,
    pub outcome: Outcome,
}

/// In what we differ.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// We refuse what the oracle accepts.
    WeRefuse,
    /// The oracle refuses, in these words, what we accept.
    TheyRefuse(String),
    /// Both accept, but the oracle writes the packet again as another one.
    OtherContent(Vec<u8>),
    /// The oracle panics.
    TheyPanic,
}

impl Case<'_> {
    /// A short form, under which like differences are gathered.
    pub fn kind(&self) -> String {
        let ours = match self.ours {
            Ok(_) => "ok".to_owned(),
            Err(fault) => format!("{fault:?}"),
        };
        let outcome = match &self.outcome {
            Outcome::TheyRefuse(words) => format!("they refuse: {words}"),
            Outcome::WeRefuse => "we refuse".to_owned(),
            Outcome::OtherContent(_) => "other content".to_owned(),
            Outcome::TheyPanic => "they panic".to_owned(),
        };
        let ours: String = ours.chars().take_while(|c| c.is_alphanumeric()).collect();
        format!(
            "{:?} {} type {}: {ours}, {outcome}",
            self.oracle,
            self.version,
            self.kind_byte()
        )
    }

    fn kind_byte(&self) -> u8 {
        self.packet[0] >> 4
    }

    /// The fault for which we refuse what the oracle accepts.
    fn our_fault(&self) -> Option<Malformed> {
        match (&self.outcome, self.ours) {
            (Outcome::WeRefuse, Err(fault)) => Some(*fault),
            _ => None,
        }
    }

    /// The packet that we accept and the oracle refuses, and its words.
    fn their_fault(&self) -> Option<(&Packet<'_>, &str)> {
        match (&self.outcome, self.ours) {
            (Outcome::TheyRefuse(words), Ok(packet)) => Some((packet, words)),
            _ => None,
        }
    }

    fn is_rmqtt(&self) -> bool {
        self.oracle == Oracle::Rmqtt
    }

    fn is_core(&self) -> bool {
        self.oracle == Oracle::ProtocolCore
    }

    fn is_old(&self) -> bool {
        self.version != Version::V5
    }
}

/// One known difference.
pub struct Rule {
    pub name: &'static str,
    /// Why we are right, or at least deliberately different.
    pub why: &'static str,
    pub explains: fn(&Case<'_>) -> bool,
}

use Malformed::*;

pub const RULES: &[Rule] = &[
    Rule {
        name: "a codec without sides takes every packet from everyone",
        why: "the oracles are not told who sends; we are, and a server must not act on CONNACK",
        explains: |c| {
            matches!(
                c.our_fault(),
                Some(WrongSender { .. } | PropertyFromWrongSide { .. })
            )
        },
    },
    Rule {
        name: "a codec without sides takes every reason of DISCONNECT and AUTH from everyone",
        why: "the tables of 3.14.2.1 and 3.15.2.1 say which side sends which code",
        explains: |c| {
            matches!(c.our_fault(), Some(UnknownReason { .. })) && matches!(c.kind_byte(), 14 | 15)
        },
    },
    Rule {
        name: "mqtt-protocol-core parses bodies, so it is not asked about flags",
        why: "its parsers get no byte 1 but for PUBLISH",
        explains: |c| c.is_core() && c.our_fault() == Some(ReservedFlags),
    },
    Rule {
        name: "topic names and filters are left to the caller",
        why: "[MQTT-4.7.0-1], [MQTT-4.7.1-1], [MQTT-4.7.3-1] are decided by bytes alone",
        explains: |c| {
            matches!(
                c.our_fault(),
                Some(TopicName(_) | TopicFilter(_) | ResponseTopic(_) | EmptyTopic)
            )
        },
    },
    Rule {
        name: "the null character is accepted",
        why: "[MQTT-1.5.4-2], [MQTT-3.1.1 1.5.3-2]",
        explains: |c| c.our_fault() == Some(NullCharacter),
    },
    Rule {
        name: "bytes behind the last field are ignored",
        why: "what no field claims hides from every check, so [MQTT-3.1.4-1] and its like fail",
        explains: |c| c.our_fault() == Some(TrailingBytes),
    },
    Rule {
        name: "rmqtt takes SUBACK and UNSUBACK without codes",
        why: "every request has a filter, so every answer has a code (CVE-2024-10525)",
        explains: |c| c.is_rmqtt() && c.our_fault() == Some(NoCodes),
    },
    Rule {
        name: "mqtt-protocol-core ignores reserved CONNACK flags",
        why: "[MQTT-3.2.2-1], and reserved in 3.1.1 as well",
        explains: |c| c.is_core() && c.our_fault() == Some(ReservedConnackFlag),
    },
    Rule {
        name: "rmqtt knows session present in MQTT 3.1",
        why: "the byte is reserved there",
        explains: |c| {
            c.is_rmqtt() && c.version == Version::V31 && c.our_fault() == Some(ReservedConnackFlag)
        },
    },
    Rule {
        name: "a refusal may claim a session",
        why: "[MQTT-3.2.2-6], [MQTT-3.1.1 3.2.2-4]",
        explains: |c| c.our_fault() == Some(SessionPresentInRefusal),
    },
    Rule {
        name: "rmqtt reads the reserved return codes of CONNACK",
        why: "6 to 255 are reserved in 3.1 and 3.1.1",
        explains: |c| {
            let fault = c.our_fault();
            c.is_rmqtt()
                && c.is_old()
                && c.kind_byte() == 2
                && matches!(fault, Some(UnknownReason { code }) if code > 5)
        },
    },
    Rule {
        name: "an empty client id is left to the caller",
        why: "[MQTT-3.1.1 3.1.3-8], and 3.1 asks for at least one character",
        explains: |c| c.is_old() && c.our_fault() == Some(EmptyClientId),
    },
    Rule {
        name: "rmqtt mixes protocol names and levels",
        why: "[MQTT-3.1.1 3.1.2-1], [MQTT-3.1.1 3.1.2-2]: level 3 is MQIsdp, level 4 is MQTT",
        explains: |c| c.is_rmqtt() && matches!(c.our_fault(), Some(ProtocolLevel { level: 3 | 4 })),
    },
    Rule {
        name: "mqtt-protocol-core ignores contradictions among the connect flags",
        why: "[MQTT-3.1.2-3], [MQTT-3.1.2-11], [MQTT-3.1.2-12], [MQTT-3.1.2-13]",
        explains: |c| {
            let fault = c.our_fault();
            c.is_core()
                && c.kind_byte() == 1
                && matches!(fault, Some(ReservedConnectFlag | WillFlags | QoS3))
        },
    },
    Rule {
        name: "rmqtt ignores will QoS and will retain without a will in 5.0",
        why: "[MQTT-3.1.2-11], [MQTT-3.1.2-13]",
        explains: |c| c.is_rmqtt() && c.our_fault() == Some(WillFlags),
    },
    Rule {
        name: "rmqtt takes a password without a user name before 5.0",
        why: "[MQTT-3.1.1 3.1.2-22]",
        explains: |c| c.is_rmqtt() && c.our_fault() == Some(PasswordWithoutUsername),
    },
    Rule {
        name: "authentication data without a method is accepted",
        why: "a protocol error by MQTT 5.0 3.1.2.11.10; AUTH must name its method (3.15.2.2.2)",
        explains: |c| c.our_fault() == Some(NoAuthenticationMethod),
    },
    Rule {
        name: "padded lengths are accepted",
        why: "[MQTT-1.5.5-1]",
        explains: |c| c.our_fault() == Some(LengthPadded),
    },
    Rule {
        name: "mqtt-protocol-core takes packet identifier 0",
        why: "[MQTT-2.2.1-3], [MQTT-3.1.1 2.3.1-1]",
        explains: |c| c.is_core() && c.our_fault() == Some(ZeroPacketId),
    },
    Rule {
        name: "options of 5.0 are accepted in older SUBSCRIBEs",
        why: "[MQTT-3.1.1 3.8.3-4]",
        explains: |c| c.is_old() && c.our_fault() == Some(ReservedSubscriptionOption),
    },
    Rule {
        name: "mqtt-protocol-core takes a subscription identifier twice in SUBSCRIBE",
        why: "a protocol error by MQTT 5.0 3.8.2.1.2",
        explains: |c| {
            c.is_core() && c.kind_byte() == 8 && c.our_fault() == Some(DuplicateProperty { id: 11 })
        },
    },
    Rule {
        name: "No Local on a shared subscription is left to the caller",
        why: "[MQTT-3.8.3-4]",
        explains: |c| c.our_fault() == Some(NoLocalOnShared),
    },
    Rule {
        name: "rmqtt reads a maximum QoS of 2 and a maximum packet size of 0 from a server",
        why: "protocol errors by MQTT 5.0 3.2.2.3.4 and 3.2.2.3.6",
        explains: |c| {
            let fault = c.our_fault();
            c.is_rmqtt() && matches!(fault, Some(PropertyValue { id: 0x24 | 0x27 }))
        },
    },
    Rule {
        name: "mqtt-protocol-core takes a PUBLISH without a property length",
        why: "[MQTT-2.2.2-1]: no properties are said by a length of 0",
        explains: |c| c.is_core() && c.kind_byte() == 3 && c.our_fault() == Some(Truncated),
    },
    Rule {
        name: "rmqtt takes an AUTH of one byte",
        why: "only the empty body may leave the properties out (MQTT 5.0 3.15.2.1)",
        explains: |c| {
            c.is_rmqtt()
                && c.kind_byte() == 15
                && c.packet.len() == 3
                && c.our_fault() == Some(Truncated)
        },
    },
    Rule {
        name: "rmqtt refuses repeated PUBREL, SUBSCRIBE and UNSUBSCRIBE in 3.1",
        why: "MQTT 3.1 lets a client set DUP on them",
        explains: |c| {
            c.version == Version::V31
                && matches!(c.packet[0], 0x6A | 0x8A | 0xAA)
                && c.their_fault()
                    .is_some_and(|(_, words)| words == "UnsupportedPacketType")
        },
    },
    Rule {
        name: "mqtt-protocol-core refuses a password without a user name in 5.0",
        why: "MQTT 5.0 3.1.2.9 allows it, unlike 3.1.1",
        explains: |c| {
            c.is_core()
                && matches!(
                    c.their_fault(),
                    Some((Packet::Connect(p), "ProtocolError"))
                        if p.username.is_none() && p.password.is_some()
                )
        },
    },
    Rule {
        name: "rmqtt refuses an empty client id that asks for a kept session in 5.0",
        why: "[MQTT-3.1.3-6]: the server may assign one; the engine decides",
        explains: |c| {
            c.is_rmqtt()
                && matches!(
                    c.their_fault(),
                    Some((Packet::Connect(p), "InvalidClientId"))
                        if p.version == Version::V5 && p.client_id.is_empty() && !p.clean_start
                )
        },
    },
    Rule {
        name: "rmqtt refuses a message expiry of 0",
        why: "no clause forbids it: the message expires at once",
        explains: |c| {
            let expiry_s = match c.their_fault() {
                Some((Packet::Publish(p), "MalformedPacket")) => p.properties.message_expiry_s,
                Some((Packet::Connect(p), "MalformedPacket")) => p
                    .will
                    .as_ref()
                    .and_then(|will| will.properties.message_expiry_s),
                _ => None,
            };
            c.is_rmqtt() && expiry_s == Some(0)
        },
    },
    Rule {
        name: "mqtt-protocol-core refuses DISCONNECT with Bad authentication method",
        why: "the table of reason codes in MQTT 5.0 2.4 lists DISCONNECT for 0x8C",
        explains: |c| {
            c.is_core()
                && matches!(
                    c.their_fault(),
                    Some((Packet::Disconnect(p), "MalformedPacket"))
                        if p.reason == Reason::BadAuthenticationMethod
                )
        },
    },
    Rule {
        name: "rmqtt writes MQTT 3.1 with level 4",
        why: "MQTT 3.1 is level 3; nothing else differs",
        explains: |c| {
            let Outcome::OtherContent(again) = &c.outcome else {
                return false;
            };
            if c.version != Version::V31 || !c.is_rmqtt() || c.kind_byte() != 1 {
                return false;
            }
            let Ok(Some(header)) = frame(again, u32::MAX) else {
                return false;
            };
            let mut mended = again.clone();
            // The level follows the header, the length of the name and the name.
            if let Some(level) = mended.get_mut(header.header_bytes + 8) {
                *level = 3;
            }
            reads_as(c, &mended)
        },
    },
    Rule {
        name: "rmqtt leaves out properties that say the default",
        why: "the meaning is the same; we keep what was said",
        explains: |c| {
            matches!(&c.outcome, Outcome::OtherContent(again) if reads_as(c, again)) && c.is_rmqtt()
        },
    },
    Rule {
        name: "rmqtt writes a bare AUTH in three parts",
        why: "the empty body is the form that may go without a method",
        explains: |c| {
            c.is_rmqtt()
                && c.packet == [0xF0, 0x00]
                && c.outcome == Outcome::OtherContent(vec![0xF0, 0x02, 0x00, 0x00])
        },
    },
];

/// True where `again` is our packet without the properties that say a default.
fn reads_as(case: &Case<'_>, again: &[u8]) -> bool {
    let Ok(Some(header)) = frame(again, u32::MAX) else {
        return false;
    };
    let Some(body) = again.get(header.header_bytes..) else {
        return false;
    };
    match (decode(case.version, case.sender, header, body), case.ours) {
        (Ok(theirs), Ok(ours)) => without_defaults(theirs) == without_defaults(ours.clone()),
        _ => false,
    }
}

fn without_defaults(mut packet: Packet<'_>) -> Packet<'_> {
    match &mut packet {
        Packet::Connect(p) => {
            let p = &mut p.properties;
            p.session_expiry_s = p.session_expiry_s.filter(|&seconds| seconds != 0);
            p.topic_alias_max = p.topic_alias_max.filter(|&max| max != 0);
            p.request_problem_information = p.request_problem_information.filter(|&on| !on);
            p.request_response_information = p.request_response_information.filter(|&on| on);
        }
        Packet::Connack(p) => {
            let p = &mut p.properties;
            p.receive_max = p.receive_max.filter(|max| max.get() != u16::MAX);
            p.qos_max = p.qos_max.filter(|&qos| qos != QoS::ExactlyOnce);
            p.topic_alias_max = p.topic_alias_max.filter(|&max| max != 0);
            p.retain_available = p.retain_available.filter(|&on| !on);
            p.wildcard_available = p.wildcard_available.filter(|&on| !on);
            p.subscription_ids_available = p.subscription_ids_available.filter(|&on| !on);
            p.shared_available = p.shared_available.filter(|&on| !on);
        }
        Packet::Publish(p) => {
            p.properties.payload_format = p.properties.payload_format.filter(|&is_text| is_text);
        }
        _ => {}
    }
    packet
}
