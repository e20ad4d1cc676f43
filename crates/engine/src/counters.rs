//! What a shard counts; the shell adds the shards up.

/// Totals since start, and gauges where the name says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub connections_now: u64,
    pub connections_total: u64,
    pub sessions_now: u64,
    pub subscriptions_now: u64,
    pub retained_now: u64,
    pub retained_bytes_now: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub packets_received: u64,
    pub publishes_received: u64,
    pub publishes_sent: u64,
    /// QoS 0 messages that a slow reader lost, oldest first.
    pub dropped_oldest: u64,
    /// QoS 1 and 2 messages refused for a session whose queue was full, newest first.
    pub refused_newest: u64,
    pub dropped_expired: u64,
    pub dropped_too_large: u64,
    /// Messages of a share group that no member could take.
    pub dropped_unshared: u64,
    pub publish_denied: u64,
    pub subscribe_denied: u64,
    pub delivery_denied: u64,
    pub will_denied: u64,
    pub authentication_refused: u64,
    pub malformed: u64,
    pub keep_alive_timeouts: u64,
    pub connect_deadlines: u64,
    pub slow_readers: u64,
    pub taken_over: u64,
    pub handed_over: u64,
    pub forwarded: u64,
    pub paused: u64,
    pub limit_refusals: u64,
}
