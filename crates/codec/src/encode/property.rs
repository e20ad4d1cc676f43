//! The property block of each packet, written in the order of its fields.

use std::num::NonZeroU32;

use super::writer::Writer;
use crate::frame::VARINT_MAX;
use crate::property::id;
use crate::{
    Auth, ConnackProperties, ConnectProperties, Disconnect, PublishProperties, UserProperties,
    WillProperties,
};

/// Which of the properties that may be left out are written.
#[derive(Clone, Copy)]
pub(super) struct Extras {
    pub(super) user: bool,
    pub(super) reason_string: bool,
}

/// True for what two bytes of length cannot announce.
fn is_too_long(value: &[u8]) -> bool {
    value.len() > usize::from(u16::MAX)
}

impl Writer<'_> {
    fn boolean_property(&mut self, id: u8, value: Option<bool>) {
        if let Some(value) = value {
            self.bytes(&[id, u8::from(value)]);
        }
    }

    fn two_property(&mut self, id: u8, value: Option<u16>) {
        if let Some(value) = value {
            self.byte(id);
            self.two(value);
        }
    }

    fn four_property(&mut self, id: u8, value: Option<u32>) {
        if let Some(value) = value {
            self.byte(id);
            self.four(value);
        }
    }

    fn binary_property(&mut self, id: u8, value: Option<&[u8]>) {
        match value {
            // Without the check an identifier would stand there without its value.
            Some(value) if is_too_long(value) => self.refuse(),
            Some(value) => {
                self.byte(id);
                self.binary(value);
            }
            None => {}
        }
    }

    fn string_property(&mut self, id: u8, value: Option<&str>) {
        self.binary_property(id, value.map(str::as_bytes));
    }

    fn user_properties(&mut self, list: &UserProperties<'_>) {
        // [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.1.3-10] All of them, in order.
        for (name, value) in list {
            if is_too_long(name.as_bytes()) || is_too_long(value.as_bytes()) {
                self.refuse();
                continue;
            }
            self.byte(id::USER_PROPERTY);
            self.string(name);
            self.string(value);
        }
    }

    fn subscription_id(&mut self, value: u32) {
        if value == 0 || value as usize > VARINT_MAX {
            return self.refuse();
        }
        self.byte(id::SUBSCRIPTION_ID);
        self.varint(value as usize);
    }

    fn reason_and_user(
        &mut self,
        reason_string: Option<&str>,
        user: &UserProperties<'_>,
        extras: Extras,
    ) {
        if extras.reason_string {
            self.string_property(id::REASON_STRING, reason_string);
        }
        if extras.user {
            self.user_properties(user);
        }
    }
}

pub(super) fn connect(p: &ConnectProperties<'_>, writer: &mut Writer<'_>) {
    refuse_lone_data(p.authentication_method, p.authentication_data, writer);
    writer.block(|writer| {
        writer.four_property(id::SESSION_EXPIRY, p.session_expiry_s);
        writer.two_property(id::RECEIVE_MAX, p.receive_max.map(Into::into));
        writer.four_property(id::PACKET_BYTES_MAX, p.packet_bytes_max.map(Into::into));
        writer.two_property(id::TOPIC_ALIAS_MAX, p.topic_alias_max);
        writer.boolean_property(
            id::REQUEST_RESPONSE_INFORMATION,
            p.request_response_information,
        );
        writer.boolean_property(
            id::REQUEST_PROBLEM_INFORMATION,
            p.request_problem_information,
        );
        writer.user_properties(&p.user);
        writer.string_property(id::AUTHENTICATION_METHOD, p.authentication_method);
        writer.binary_property(id::AUTHENTICATION_DATA, p.authentication_data);
    });
}

pub(super) fn will(p: &WillProperties<'_>, writer: &mut Writer<'_>) {
    writer.block(|writer| {
        writer.four_property(id::WILL_DELAY, p.delay_s);
        writer.four_property(id::MESSAGE_EXPIRY, p.message_expiry_s);
        travelling_will(p, writer);
    });
}

/// Authentication data says nothing without its method (MQTT 5.0 §3.1.2.11.10).
fn refuse_lone_data(method: Option<&str>, data: Option<&[u8]>, writer: &mut Writer<'_>) {
    if data.is_some() && method.is_none() {
        writer.refuse();
    }
}

pub(super) fn connack(p: &ConnackProperties<'_>, extras: Extras, writer: &mut Writer<'_>) {
    refuse_lone_data(p.authentication_method, p.authentication_data, writer);
    writer.block(|writer| {
        writer.four_property(id::SESSION_EXPIRY, p.session_expiry_s);
        writer.two_property(id::RECEIVE_MAX, p.receive_max.map(Into::into));
        // QoS 2 is said by silence (MQTT 5.0 §3.2.2.3.4).
        let qos_max = p.qos_max.filter(|&qos| qos != crate::QoS::ExactlyOnce);
        writer.boolean_property(id::QOS_MAX, qos_max.map(|qos| qos as u8 == 1));
        writer.boolean_property(id::RETAIN_AVAILABLE, p.retain_available);
        writer.four_property(id::PACKET_BYTES_MAX, p.packet_bytes_max.map(Into::into));
        writer.string_property(id::ASSIGNED_CLIENT_ID, p.assigned_client_id);
        writer.two_property(id::TOPIC_ALIAS_MAX, p.topic_alias_max);
        writer.boolean_property(id::WILDCARD_AVAILABLE, p.wildcard_available);
        writer.boolean_property(id::SUBSCRIPTION_IDS_AVAILABLE, p.subscription_ids_available);
        writer.boolean_property(id::SHARED_AVAILABLE, p.shared_available);
        writer.two_property(id::SERVER_KEEP_ALIVE, p.server_keep_alive_s);
        writer.string_property(id::RESPONSE_INFORMATION, p.response_information);
        writer.string_property(id::SERVER_REFERENCE, p.server_reference);
        writer.string_property(id::AUTHENTICATION_METHOD, p.authentication_method);
        writer.binary_property(id::AUTHENTICATION_DATA, p.authentication_data);
        // [MQTT-3.2.2-19] [MQTT-3.2.2-20]
        writer.reason_and_user(p.reason_string, &p.user, extras);
    });
}

pub(super) fn publish(p: &PublishProperties<'_>, writer: &mut Writer<'_>) {
    writer.block(|writer| {
        writer.four_property(id::MESSAGE_EXPIRY, p.message_expiry_s);
        writer.two_property(id::TOPIC_ALIAS, p.topic_alias.map(Into::into));
        for subscription_id in p.subscription_ids {
            writer.subscription_id(subscription_id);
        }
        travelling_publish(p, writer);
    });
}

pub(super) fn answer_is_empty(
    reason_string: Option<&str>,
    user: &UserProperties<'_>,
    extras: Extras,
) -> bool {
    (reason_string.is_none() || !extras.reason_string) && (user.is_empty() || !extras.user)
}

/// The properties of PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK and UNSUBACK.
pub(super) fn answer(
    reason_string: Option<&str>,
    user: &UserProperties<'_>,
    extras: Extras,
    writer: &mut Writer<'_>,
) {
    // [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
    // [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
    writer.block(|writer| writer.reason_and_user(reason_string, user, extras));
}

pub(super) fn subscribe(
    subscription_id: Option<NonZeroU32>,
    user: &UserProperties<'_>,
    writer: &mut Writer<'_>,
) {
    writer.block(|writer| {
        if let Some(subscription_id) = subscription_id {
            writer.subscription_id(subscription_id.get());
        }
        writer.user_properties(user);
    });
}

pub(super) fn unsubscribe(user: &UserProperties<'_>, writer: &mut Writer<'_>) {
    writer.block(|writer| writer.user_properties(user));
}

pub(super) fn disconnect_is_empty(p: &Disconnect<'_>, extras: Extras) -> bool {
    p.session_expiry_s.is_none()
        && p.server_reference.is_none()
        && answer_is_empty(p.reason_string, &p.user, extras)
}

pub(super) fn disconnect(p: &Disconnect<'_>, extras: Extras, writer: &mut Writer<'_>) {
    writer.block(|writer| {
        writer.four_property(id::SESSION_EXPIRY, p.session_expiry_s);
        writer.string_property(id::SERVER_REFERENCE, p.server_reference);
        // [MQTT-3.14.2-3] [MQTT-3.14.2-4]
        writer.reason_and_user(p.reason_string, &p.user, extras);
    });
}

pub(super) fn auth_is_empty(p: &Auth<'_>, extras: Extras) -> bool {
    p.method.is_none() && p.data.is_none() && answer_is_empty(p.reason_string, &p.user, extras)
}

pub(super) fn auth(p: &Auth<'_>, extras: Extras, writer: &mut Writer<'_>) {
    writer.block(|writer| {
        writer.string_property(id::AUTHENTICATION_METHOD, p.method);
        writer.binary_property(id::AUTHENTICATION_DATA, p.data);
        // [MQTT-3.15.2-2] [MQTT-3.15.2-3]
        writer.reason_and_user(p.reason_string, &p.user, extras);
    });
}

/// The properties of a PUBLISH that reach its subscribers unaltered ([MQTT-3.3.2-4],
/// [MQTT-3.3.2-15], [MQTT-3.3.2-16], [MQTT-3.3.2-17], [MQTT-3.3.2-18], [MQTT-3.3.2-20]).
fn travelling_publish(p: &PublishProperties<'_>, writer: &mut Writer<'_>) {
    writer.boolean_property(id::PAYLOAD_FORMAT, p.payload_format);
    writer.string_property(id::CONTENT_TYPE, p.content_type);
    writer.string_property(id::RESPONSE_TOPIC, p.response_topic);
    writer.binary_property(id::CORRELATION_DATA, p.correlation_data);
    writer.user_properties(&p.user);
}

/// The same of a will, whose fields have the same names.
fn travelling_will(p: &WillProperties<'_>, writer: &mut Writer<'_>) {
    writer.boolean_property(id::PAYLOAD_FORMAT, p.payload_format);
    writer.string_property(id::CONTENT_TYPE, p.content_type);
    writer.string_property(id::RESPONSE_TOPIC, p.response_topic);
    writer.binary_property(id::CORRELATION_DATA, p.correlation_data);
    writer.user_properties(&p.user);
}

/// Appends what [`travelling_publish`] writes.
pub(crate) fn forwardable_publish(p: &PublishProperties<'_>, out: &mut Vec<u8>) {
    travelling_publish(p, &mut Writer::into(out));
}

/// Appends what [`travelling_will`] writes.
pub(crate) fn forwardable_will(p: &WillProperties<'_>, out: &mut Vec<u8>) {
    travelling_will(p, &mut Writer::into(out));
}
