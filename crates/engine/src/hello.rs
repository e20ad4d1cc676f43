//! A CONNECT as it is kept until its session is attached.

use std::sync::Arc;

use casemate_codec::{forwardable_will, Connect, QoS, Version};

use crate::principal::Secret;

/// A CONNECT, owned: what is needed until the session is attached.
#[derive(Debug)]
pub(crate) struct Hello {
    pub version: Version,
    pub clean_start: bool,
    pub keep_alive_s: u16,
    pub client_id: Box<str>,
    /// The client brought no id of its own.
    pub id_assigned: bool,
    pub session_expiry_s: Option<u32>,
    pub receive_max: u16,
    pub packet_bytes_max: u32,
    pub topic_alias_max: u16,
    pub wants_response_information: bool,
    pub wants_reasons: bool,
    pub will: Option<HelloWill>,
    pub username: Option<Box<str>>,
    pub password: Option<Secret>,
    pub method: Option<Arc<str>>,
    pub proof: Option<Secret>,
}

/// The will of a CONNECT, owned.
#[derive(Debug)]
pub(crate) struct HelloWill {
    pub topic: Box<str>,
    pub payload: Box<[u8]>,
    pub properties: Vec<u8>,
    pub qos: QoS,
    pub retain: bool,
    pub delay_s: u32,
    pub expiry_s: Option<u32>,
}

impl Hello {
    pub fn of(connect: &Connect<'_>) -> Box<Hello> {
        let properties = &connect.properties;
        let will = connect.will.as_ref().map(|will| {
            let mut forwarded = Vec::new();
            forwardable_will(&will.properties, &mut forwarded);
            HelloWill {
                topic: will.topic.into(),
                payload: will.payload.into(),
                properties: forwarded,
                qos: will.qos,
                retain: will.retain,
                delay_s: will.properties.delay_s.unwrap_or(0),
                expiry_s: will.properties.message_expiry_s,
            }
        });
        Box::new(Hello {
            version: connect.version,
            clean_start: connect.clean_start,
            keep_alive_s: connect.keep_alive_s,
            client_id: connect.client_id.into(),
            id_assigned: connect.client_id.is_empty(),
            session_expiry_s: properties.session_expiry_s,
            receive_max: properties.receive_max.map_or(u16::MAX, |max| max.get()),
            packet_bytes_max: properties
                .packet_bytes_max
                .map_or(u32::MAX, |max| max.get()),
            topic_alias_max: properties.topic_alias_max.unwrap_or(0),
            wants_response_information: properties.request_response_information == Some(true),
            wants_reasons: properties.request_problem_information != Some(false),
            will,
            username: connect.username.map(Box::from),
            password: connect.password.map(Secret::new),
            method: properties.authentication_method.map(Arc::from),
            proof: properties.authentication_data.map(Secret::new),
        })
    }
}
