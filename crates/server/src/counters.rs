//! What the server counts: the engines' counters added up, and the shell's own.

use std::sync::atomic::{AtomicU64, Ordering};

use casemate_engine::Counters;

/// A snapshot of everything that is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerCounters {
    /// The engines' counters, added up over the shards.
    pub engine: Counters,
    /// The shell's own.
    pub shell: ShellCounters,
}

/// Declares the tally that shards write and the snapshot that callers read, field by field.
macro_rules! tally {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// Totals since start of what happens below MQTT, and gauges where the name says so.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct ShellCounters {
            $($(#[$doc])* pub $field: u64,)*
        }

        /// The same, being counted.
        #[derive(Debug, Default)]
        pub(crate) struct Tally {
            $(pub $field: AtomicU64,)*
        }

        impl Tally {
            /// The present values.
            pub fn snapshot(&self) -> ShellCounters {
                ShellCounters { $($field: self.$field.load(Ordering::Relaxed),)* }
            }
        }
    };
}

tally! {
    /// Connections taken from the listeners.
    accepted,
    /// Connections closed at once because there were as many as may be.
    refused_full,
    /// Connections closed before they had proven themselves, to make room for newer ones.
    evicted,
    /// Connections closed at once because no descriptor was left for them.
    refused_descriptors,
    /// Failures to accept, of any kind.
    accept_errors,
    /// TLS handshakes done, resumed ones included.
    handshakes,
    /// TLS handshakes shortened by a ticket.
    handshakes_resumed,
    /// TLS handshakes that failed.
    handshake_failures,
    /// TLS handshakes that were not done by the connect deadline.
    handshake_timeouts,
    /// Peers that began with something else on a TLS port.
    plain_on_tls,
    /// Peers that began with TLS on a plain port.
    tls_on_plain,
    /// Connections closed for too many TLS records without content.
    empty_records,
    /// Connections of which a PROXY header told something.
    proxied,
    /// Connections closed as a PROXY header was required and what came was none.
    proxy_refused,
    /// Peers that began with HTTP on a port of MQTT, after a TLS handshake or without one.
    http_on_mqtt,
    /// WebSockets granted.
    upgrades,
    /// Requests on a WebSocket port that were granted none.
    upgrades_refused,
    /// Peers that began with MQTT on a WebSocket port.
    plain_on_websocket,
    /// Connections closed for a WebSocket frame that breaks the rules.
    frames_refused,
    /// Connections closed for too many WebSocket frames without content.
    empty_frames,
    /// Password checks asked for.
    questions,
    /// Password checks refused as too many were waiting.
    questions_refused,
    /// Password checks that wait now.
    questions_now,
    /// Proven clients about which somebody was asked.
    admissions,
    /// Proven clients refused as too many waited to be let in.
    admissions_refused,
    /// Proven clients that wait to be let in now.
    admissions_now,
    /// Live connections closed because their certificate's account is gone or has changed.
    accounts_gone,
    /// Connections handed to another shard.
    handed_over,
    /// Connections on their way to another shard that could not be taken in.
    adoptions_refused,
    /// Events that were overwritten before anybody fetched them.
    events_lost,
}

/// Adds field by field; a test below keeps the list whole.
macro_rules! sum {
    ($total:ident, $part:ident: $($field:ident)*) => {
        $($total.$field += $part.$field;)*
    };
}

/// Adds one engine's counters to a total.
pub(crate) fn add(total: &mut Counters, part: &Counters) {
    sum!(total, part:
        connections_now connections_total sessions_now subscriptions_now retained_now
        retained_bytes_now bytes_received bytes_sent packets_received publishes_received
        publishes_sent dropped_oldest refused_newest dropped_expired dropped_too_large
        dropped_unshared publish_denied subscribe_denied delivery_denied will_denied
        authentication_refused malformed keep_alive_timeouts connect_deadlines slow_readers
        taken_over handed_over forwarded paused limit_refusals
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_of_the_engine_is_added() {
        // The names come from Debug, so that a counter the engine gains is missed here.
        let part = Counters::default();
        let names = |text: &str| text.matches(": ").count();
        let source = include_str!("counters.rs");
        let list = source.split("sum!(total, part:").nth(1).unwrap_or_default();
        let listed = list
            .split(");")
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .count();
        assert_eq!(names(&format!("{part:?}")), listed);
    }
}
