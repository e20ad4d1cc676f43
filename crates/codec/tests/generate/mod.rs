//! Strategies that make every packet that can be sent, for the tests beside this folder.
//!
//! The packets borrow from memory that is given up on purpose: a test process is short.

use std::num::{NonZeroU16, NonZeroU32};

use casemate_codec::{
    Ack, Auth, Codes, Connack, ConnackProperties, Connect, ConnectProperties, Disconnect, Filters,
    Names, Packet, Publish, PublishProperties, QoS, Reason, RetainHandling, Sender, Suback,
    Subscribe, SubscribeFilter, SubscriptionIds, Unsuback, Unsubscribe, UserProperties, Version,
    Will, WillProperties,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

type Text = &'static str;
type Bytes = &'static [u8];
type User = UserProperties<'static>;

pub fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::V31), Just(Version::V311), Just(Version::V5)]
}

pub fn sender() -> impl Strategy<Value = Sender> {
    prop_oneof![Just(Sender::Client), Just(Sender::Server)]
}

/// A packet that `sender` may send in `version`.
pub fn packet(version: Version, sender: Sender) -> BoxedStrategy<Packet<'static>> {
    let modern = version == Version::V5;
    let publish = publish(version, sender).prop_map(Packet::Publish);
    let acks = prop_oneof![
        ack(version, PUBACK).prop_map(Packet::Puback),
        ack(version, PUBACK).prop_map(Packet::Pubrec),
        ack(version, PUBREL).prop_map(Packet::Pubrel),
        ack(version, PUBREL).prop_map(Packet::Pubcomp),
    ];
    let common = prop_oneof![publish, acks];
    let auth = auth(sender).prop_map(Packet::Auth);
    let disconnect = disconnect(version, sender).prop_map(Packet::Disconnect);
    match (sender, modern) {
        (Sender::Client, _) => {
            let own = prop_oneof![
                connect(version).prop_map(Packet::Connect),
                subscribe(version).prop_map(Packet::Subscribe),
                unsubscribe(version).prop_map(Packet::Unsubscribe),
                Just(Packet::Pingreq),
                disconnect,
            ];
            match modern {
                true => prop_oneof![common, own, auth].boxed(),
                false => prop_oneof![common, own].boxed(),
            }
        }
        (Sender::Server, _) => {
            let own = prop_oneof![
                connack(version).prop_map(Packet::Connack),
                suback(version).prop_map(Packet::Suback),
                unsuback(version).prop_map(Packet::Unsuback),
                Just(Packet::Pingresp),
            ];
            match modern {
                true => prop_oneof![common, own, auth, disconnect].boxed(),
                false => prop_oneof![common, own].boxed(),
            }
        }
    }
}

fn keep(text: String) -> Text {
    Box::leak(text.into_boxed_str())
}

fn keep_all<T>(items: Vec<T>) -> &'static [T] {
    Box::leak(items.into_boxed_slice())
}

pub fn text() -> impl Strategy<Value = Text> {
    prop_oneof![4 => "[^\u{0}]{0,12}", 1 => "[a-z]{100,300}"].prop_map(keep)
}

pub fn topic() -> impl Strategy<Value = Text> {
    prop_oneof![4 => "[^\u{0}+#]{1,12}", 2 => "\\$?[a-c](/[a-c]{0,2}){0,4}", 1 => "[a-z/]{30,80}"]
        .prop_map(keep)
}

pub fn filter() -> impl Strategy<Value = Text> {
    let level = prop_oneof![3 => "[^\u{0}+#/]{0,4}", 1 => Just("+".to_owned())];
    let levels = vec(level, 1..5).prop_map(|levels| levels.join("/"));
    let filter = (levels, prop_oneof![3 => Just(""), 1 => Just("/#")]);
    let filter = filter.prop_map(|(levels, tail)| match (levels + tail).as_str() {
        "" => "#".to_owned(),
        filter => filter.to_owned(),
    });
    prop_oneof![
        3 => filter.clone(),
        1 => ("[^\u{0}+#/]{1,5}", filter)
            .prop_map(|(name, inner)| format!("$share/{name}/{inner}")),
    ]
    .prop_map(keep)
}

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..20).prop_map(keep_all)
}

fn user() -> impl Strategy<Value = User> {
    vec((text(), text()), 0..3).prop_map(|pairs| UserProperties::List(keep_all(pairs)))
}

fn qos() -> impl Strategy<Value = QoS> {
    prop_oneof![
        Just(QoS::AtMostOnce),
        Just(QoS::AtLeastOnce),
        Just(QoS::ExactlyOnce)
    ]
}

fn packet_id() -> impl Strategy<Value = NonZeroU16> {
    any::<NonZeroU16>()
}

fn subscription_id() -> impl Strategy<Value = u32> {
    prop_oneof![1..200_u32, 1..=268_435_455_u32]
}

/// `Some` of the strategy in 5.0, and the default before.
fn modern<T>(version: Version, strategy: impl Strategy<Value = T> + 'static) -> BoxedStrategy<T>
where
    T: Default + Clone + std::fmt::Debug + 'static,
{
    match version {
        Version::V5 => strategy.boxed(),
        Version::V31 | Version::V311 => Just(T::default()).boxed(),
    }
}

fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    let fields = (
        any::<bool>(),
        any::<u16>(),
        modern(version, connect_properties()),
        text(),
        option::of(will(version)),
        option::of(text()),
        option::of(bytes()),
    );
    fields.prop_map(
        move |(clean, keep_alive_s, properties, client_id, will, username, password)| {
            let must_be_named = version == Version::V31 || (version == Version::V311 && !clean);
            let may_have_password = version == Version::V5 || username.is_some();
            Connect {
                version,
                clean_start: clean,
                keep_alive_s,
                properties,
                client_id: if must_be_named && client_id.is_empty() {
                    "c"
                } else {
                    client_id
                },
                will,
                username,
                password: password.filter(|_| may_have_password),
            }
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let fields = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        user(),
        option::of((text(), option::of(bytes()))),
    );
    fields.prop_map(
        |(expiry, receive, size, alias, response, problem, user, authentication)| {
            ConnectProperties {
                session_expiry_s: expiry,
                receive_max: receive,
                packet_bytes_max: size,
                topic_alias_max: alias,
                request_response_information: response,
                request_problem_information: problem,
                user,
                authentication_method: authentication.map(|(method, _)| method),
                authentication_data: authentication.and_then(|(_, data)| data),
            }
        },
    )
}

fn will(version: Version) -> impl Strategy<Value = Will<'static>> {
    let fields = (
        qos(),
        any::<bool>(),
        topic(),
        bytes(),
        modern(version, will_properties()),
    );
    fields.prop_map(|(qos, retain, topic, payload, properties)| Will {
        qos,
        retain,
        topic,
        payload,
        properties,
    })
}

pub fn will_properties() -> impl Strategy<Value = WillProperties<'static>> {
    let fields = (
        option::of(any::<u32>()),
        option::of(any::<bool>()),
        option::of(any::<u32>()),
        option::of(text()),
        option::of(topic()),
        option::of(bytes()),
        user(),
    );
    fields.prop_map(
        |(delay_s, format, expiry, content_type, response_topic, correlation, user)| {
            WillProperties {
                delay_s,
                payload_format: format,
                message_expiry_s: expiry,
                content_type,
                response_topic,
                correlation_data: correlation,
                user,
            }
        },
    )
}

fn connack(version: Version) -> impl Strategy<Value = Connack<'static>> {
    let codes: &[u8] = match version {
        Version::V5 => CONNACK,
        Version::V31 | Version::V311 => &[0x00, 0x84, 0x85, 0x86, 0x87, 0x88],
    };
    let fields = (
        any::<bool>(),
        reason(codes),
        modern(version, connack_properties()),
    );
    fields.prop_map(move |(session_present, reason, properties)| Connack {
        session_present: session_present && reason == Reason::Success && version != Version::V31,
        reason,
        properties,
    })
}

fn connack_properties() -> impl Strategy<Value = ConnackProperties<'static>> {
    let limits = (
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(prop_oneof![Just(QoS::AtMostOnce), Just(QoS::AtLeastOnce)]),
        option::of(any::<bool>()),
        option::of(any::<NonZeroU32>()),
        option::of(any::<u16>()),
    );
    let flags = (
        option::of(any::<bool>()),
        option::of(any::<bool>()),
        option::of(any::<bool>()),
    );
    let texts = (
        option::of(text()),
        option::of(text()),
        option::of(text()),
        option::of(text()),
    );
    let rest = (
        user(),
        option::of(any::<u16>()),
        option::of((text(), option::of(bytes()))),
    );
    (limits, flags, texts, rest).prop_map(|(limits, flags, texts, rest)| ConnackProperties {
        session_expiry_s: limits.0,
        receive_max: limits.1,
        qos_max: limits.2,
        retain_available: limits.3,
        packet_bytes_max: limits.4,
        topic_alias_max: limits.5,
        wildcard_available: flags.0,
        subscription_ids_available: flags.1,
        shared_available: flags.2,
        assigned_client_id: texts.0,
        reason_string: texts.1,
        response_information: texts.2,
        server_reference: texts.3,
        user: rest.0,
        server_keep_alive_s: rest.1,
        authentication_method: rest.2.map(|(method, _)| method),
        authentication_data: rest.2.and_then(|(_, data)| data),
    })
}

pub fn publish(version: Version, sender: Sender) -> impl Strategy<Value = Publish<'static>> {
    let fields = (
        any::<bool>(),
        qos(),
        any::<bool>(),
        topic(),
        packet_id(),
        modern(version, publish_properties(sender)),
        bytes(),
        any::<bool>(),
    );
    fields.prop_map(
        |(dup, qos, retain, topic, packet_id, properties, payload, by_alias)| {
            let by_alias = by_alias && properties.topic_alias.is_some();
            Publish {
                dup: dup && qos != QoS::AtMostOnce,
                qos,
                retain,
                topic: if by_alias { "" } else { topic },
                packet_id: Some(packet_id).filter(|_| qos != QoS::AtMostOnce),
                properties,
                payload,
            }
        },
    )
}

pub fn publish_properties(sender: Sender) -> impl Strategy<Value = PublishProperties<'static>> {
    let ids_max = if sender == Sender::Server { 3 } else { 0 };
    let fields = (
        option::of(any::<bool>()),
        option::of(any::<u32>()),
        option::of(any::<NonZeroU16>()),
        option::of(topic()),
        option::of(bytes()),
        user(),
        vec(subscription_id(), 0..=ids_max),
        option::of(text()),
    );
    fields.prop_map(
        |(format, expiry, alias, response, correlation, user, ids, content_type)| {
            PublishProperties {
                payload_format: format,
                message_expiry_s: expiry,
                topic_alias: alias,
                response_topic: response,
                correlation_data: correlation,
                user,
                subscription_ids: SubscriptionIds::List(keep_all(ids)),
                content_type,
            }
        },
    )
}

fn ack(version: Version, codes: &'static [u8]) -> impl Strategy<Value = Ack<'static>> {
    let codes = if version == Version::V5 {
        codes
    } else {
        &[0x00]
    };
    let fields = (
        packet_id(),
        reason(codes),
        modern(version, option::of(text())),
    );
    (fields, modern(version, user())).prop_map(|((packet_id, reason, reason_string), user)| Ack {
        packet_id,
        reason,
        reason_string,
        user,
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    let id = subscription_id().prop_map(|id| NonZeroU32::new(id).unwrap_or(NonZeroU32::MIN));
    let fields = (
        packet_id(),
        modern(version, option::of(id)),
        modern(version, user()),
        vec(line(version), 1..4),
    );
    fields.prop_map(|(packet_id, subscription_id, user, lines)| Subscribe {
        packet_id,
        subscription_id,
        user,
        filters: Filters::List(keep_all(lines)),
    })
}

fn line(version: Version) -> impl Strategy<Value = SubscribeFilter<'static>> {
    let is_modern = version == Version::V5;
    (filter(), qos(), any::<bool>(), any::<bool>(), 0..3).prop_map(
        move |(filter, qos, no_local, as_published, handling)| SubscribeFilter {
            filter,
            qos,
            no_local: is_modern && no_local && !filter.starts_with("$share/"),
            retain_as_published: is_modern && as_published,
            retain_handling: match handling {
                1 if is_modern => RetainHandling::SendIfNew,
                2 if is_modern => RetainHandling::Never,
                _ => RetainHandling::Send,
            },
        },
    )
}

fn suback(version: Version) -> impl Strategy<Value = Suback<'static>> {
    let codes = if version == Version::V5 {
        SUBACK
    } else {
        OLD_SUBACK
    };
    let fields = (
        packet_id(),
        modern(version, option::of(text())),
        modern(version, user()),
        vec(reason(codes), 1..5),
    );
    fields.prop_map(|(packet_id, reason_string, user, codes)| Suback {
        packet_id,
        reason_string,
        user,
        codes: Codes::List(keep_all(codes)),
    })
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    (packet_id(), modern(version, user()), vec(filter(), 1..4)).prop_map(
        |(packet_id, user, filters)| Unsubscribe {
            packet_id,
            user,
            filters: Names::List(keep_all(filters)),
        },
    )
}

fn unsuback(version: Version) -> impl Strategy<Value = Unsuback<'static>> {
    let fields = (
        packet_id(),
        modern(version, option::of(text())),
        modern(version, user()),
        modern(version, vec(reason(UNSUBACK), 1..5)),
    );
    fields.prop_map(|(packet_id, reason_string, user, codes)| Unsuback {
        packet_id,
        reason_string,
        user,
        codes: Codes::List(keep_all(codes)),
    })
}

fn disconnect(version: Version, sender: Sender) -> impl Strategy<Value = Disconnect<'static>> {
    let codes = match (version, sender) {
        (Version::V5, Sender::Client) => DISCONNECT_FROM_CLIENT,
        (Version::V5, Sender::Server) => DISCONNECT_FROM_SERVER,
        _ => &[0x00],
    };
    let fields = (
        reason(codes),
        modern(version, option::of(any::<u32>())),
        modern(version, option::of(text())),
        modern(version, user()),
        modern(version, option::of(text())),
    );
    fields.prop_map(
        move |(reason, expiry, reason_string, user, reference)| Disconnect {
            reason,
            session_expiry_s: expiry.filter(|_| sender == Sender::Client),
            reason_string,
            user,
            server_reference: reference.filter(|_| sender == Sender::Server),
        },
    )
}

fn auth(sender: Sender) -> impl Strategy<Value = Auth<'static>> {
    let codes: &[u8] = match sender {
        Sender::Client => &[0x18, 0x19],
        Sender::Server => &[0x00, 0x18],
    };
    let fields = (
        reason(codes),
        text(),
        option::of(bytes()),
        option::of(text()),
        user(),
    );
    let full = fields.prop_map(|(reason, method, data, reason_string, user)| Auth {
        reason,
        method: Some(method),
        data,
        reason_string,
        user,
    });
    let bare = Just(Auth {
        reason: Reason::Success,
        method: None,
        data: None,
        reason_string: None,
        user: UserProperties::default(),
    });
    match sender {
        Sender::Client => full.boxed(),
        Sender::Server => prop_oneof![5 => full, 1 => bare].boxed(),
    }
}

fn reason(codes: &[u8]) -> impl Strategy<Value = Reason> {
    let reasons: Vec<Reason> = codes
        .iter()
        .filter_map(|&code| Reason::from_byte(code))
        .collect();
    assert_eq!(reasons.len(), codes.len(), "a code that does not exist");
    proptest::sample::select(reasons)
}

/// Codes of CONNACK (MQTT 5.0 §3.2.2.2).
pub const CONNACK: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97,
    0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
];
/// Codes of PUBACK and PUBREC (§3.4.2.1).
pub const PUBACK: &[u8] = &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// Codes of PUBREL and PUBCOMP (§3.6.2.1).
pub const PUBREL: &[u8] = &[0x00, 0x92];
/// Codes of SUBACK (§3.9.3).
pub const SUBACK: &[u8] = &[
    0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
];
/// Codes of SUBACK before 5.0 (MQTT 3.1.1 §3.9.3).
pub const OLD_SUBACK: &[u8] = &[0x00, 0x01, 0x02, 0x80];
/// Codes of UNSUBACK (§3.11.3).
pub const UNSUBACK: &[u8] = &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
/// Codes of DISCONNECT that a client sends (§3.14.2.1).
pub const DISCONNECT_FROM_CLIENT: &[u8] = &[
    0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
];
/// Codes of DISCONNECT that a server sends (§3.14.2.1, and 0x8C of §2.4).
pub const DISCONNECT_FROM_SERVER: &[u8] = &[
    0x00, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95,
    0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
];
