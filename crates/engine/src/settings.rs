//! Limits and choices of one broker; every queue and table finds its bound here.

/// What the operator set; the same for every shard.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Largest packet that is read, bytes with header (precedent: AWS IoT 128 KiB, EMQX 1 MiB).
    pub packet_bytes_max: u32,
    /// Largest CONNECT that is read before anybody is known, bytes.
    pub connect_bytes_max: u32,
    /// Time from the transport to CONNACK, ms.
    pub connect_deadline_ms: u64,
    /// Longest keep alive granted, s; also what a client without one gets. 0 leaves it to clients.
    pub keep_alive_s_max: u16,
    /// Longest session expiry granted, s.
    pub session_expiry_s_max: u32,
    /// Session expiry of a 3.x client without clean session, s.
    pub session_expiry_s_legacy: u32,
    /// Connections per shard, those without CONNECT included.
    pub connections_max: usize,
    /// Sessions per shard, connected or not.
    pub sessions_max: usize,
    /// Sessions of one principal in one shard.
    pub sessions_per_principal_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_per_session_max: usize,
    /// QoS 1 and 2 messages that a client may have unacknowledged towards us.
    pub receive_max: u16,
    /// QoS 1 and 2 messages that we have unacknowledged towards a client, if it allows as many.
    pub inflight_max: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_max: u16,
    /// Topic aliases that we set, if the client allows as many.
    pub topic_alias_out_max: u16,
    /// Levels of a topic or a filter.
    pub topic_levels_max: usize,
    /// Messages waiting for one session, each of QoS 0 and QoS 1/2.
    pub queue_messages_max: usize,
    /// Bytes of payload, properties and topic waiting for one session.
    pub queue_bytes_max: usize,
    /// Retained messages per shard.
    pub retained_max: usize,
    /// Bytes of retained messages per shard.
    pub retained_bytes_max: usize,
    /// Encoded bytes on their way to one socket before references queue up behind them.
    pub window_bytes: usize,
    /// Bytes in the pipe to one neighbour.
    pub pipe_bytes: usize,
    /// Messages to one neighbour without their receipt.
    pub receipts_max: u64,
    /// A window without progress for this long, with more waiting, ends the connection, ms.
    pub slow_reader_ms: u64,
    /// Write down what must be kept, as the records of [`crate::Effect::Persist`].
    pub journal: bool,
    /// Answered to Request Response Information; empty answers nothing.
    pub response_information: Box<str>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            packet_bytes_max: 1024 * 1024,
            connect_bytes_max: 128 * 1024,
            connect_deadline_ms: 10_000,
            keep_alive_s_max: 1_200,
            session_expiry_s_max: 7 * 86_400,
            session_expiry_s_legacy: 86_400,
            connections_max: 100_000,
            sessions_max: 200_000,
            sessions_per_principal_max: 10_000,
            subscriptions_per_session_max: 10_000,
            receive_max: 1_024,
            inflight_max: 1_024,
            topic_alias_max: 32,
            topic_alias_out_max: 32,
            topic_levels_max: 128,
            queue_messages_max: 10_000,
            queue_bytes_max: 16 * 1024 * 1024,
            retained_max: 1_000_000,
            retained_bytes_max: 1024 * 1024 * 1024,
            window_bytes: 128 * 1024,
            pipe_bytes: 1024 * 1024,
            receipts_max: 16_384,
            slow_reader_ms: 60_000,
            journal: false,
            response_information: "".into(),
        }
    }
}
