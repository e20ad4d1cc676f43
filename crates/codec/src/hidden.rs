//! `Debug` of the packets that carry secrets: everything but the secrets.

use std::fmt;

use crate::{Auth, ConnackProperties, Connect, ConnectProperties};

/// Stands in the place of a secret.
struct Hidden;

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// Says that a secret is there, and not what or how long it is.
fn hide(secret: Option<&[u8]>) -> Option<Hidden> {
    secret.map(|_| Hidden)
}

impl fmt::Debug for Connect<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive_s", &self.keep_alive_s)
            .field("properties", &self.properties)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("password", &hide(self.password))
            .finish()
    }
}

impl fmt::Debug for ConnectProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry_s", &self.session_expiry_s)
            .field("receive_max", &self.receive_max)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("topic_alias_max", &self.topic_alias_max)
            .field(
                "request_response_information",
                &self.request_response_information,
            )
            .field(
                "request_problem_information",
                &self.request_problem_information,
            )
            .field("user", &self.user)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &hide(self.authentication_data))
            .finish()
    }
}

impl fmt::Debug for ConnackProperties<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnackProperties")
            .field("session_expiry_s", &self.session_expiry_s)
            .field("receive_max", &self.receive_max)
            .field("qos_max", &self.qos_max)
            .field("retain_available", &self.retain_available)
            .field("packet_bytes_max", &self.packet_bytes_max)
            .field("assigned_client_id", &self.assigned_client_id)
            .field("topic_alias_max", &self.topic_alias_max)
            .field("reason_string", &self.reason_string)
            .field("user", &self.user)
            .field("wildcard_available", &self.wildcard_available)
            .field(
                "subscription_ids_available",
                &self.subscription_ids_available,
            )
            .field("shared_available", &self.shared_available)
            .field("server_keep_alive_s", &self.server_keep_alive_s)
            .field("response_information", &self.response_information)
            .field("server_reference", &self.server_reference)
            .field("authentication_method", &self.authentication_method)
            .field("authentication_data", &hide(self.authentication_data))
            .finish()
    }
}

impl fmt::Debug for Auth<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth")
            .field("reason", &self.reason)
            .field("method", &self.method)
            .field("data", &hide(self.data))
            .field("reason_string", &self.reason_string)
            .field("user", &self.user)
            .finish()
    }
}
