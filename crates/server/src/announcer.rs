//! `$SYS/broker/…`: what the server tells its subscribers about itself.

use std::collections::HashMap;

use casemate_engine::Millis;

use crate::counters::ServerCounters;

/// Milliseconds over which a load is averaged.
const LOAD_MS: f64 = 60_000.0;

/// Computes what has changed since the last announcement.
pub(crate) struct Announcer {
    interval_ms: Millis,
    due: Millis,
    said: HashMap<&'static str, String>,
    loads: [Load; 4],
}

/// Events per minute, averaged with exponential forgetting.
#[derive(Default)]
struct Load {
    last: u64,
    per_minute: f64,
}

impl Load {
    fn advance(&mut self, total: u64, elapsed_ms: Millis) -> String {
        let elapsed_ms = elapsed_ms.max(1) as f64;
        let fresh = total.saturating_sub(self.last) as f64 * (LOAD_MS / elapsed_ms);
        let keep = (-elapsed_ms / LOAD_MS).exp();
        self.last = total;
        self.per_minute = self.per_minute * keep + fresh * (1.0 - keep);
        format!("{:.2}", self.per_minute)
    }
}

impl Announcer {
    /// Announces every `interval_s` seconds, at once the first time; `None` for 0.
    pub fn new(interval_s: u32) -> Option<Announcer> {
        (interval_s > 0).then(|| Announcer {
            interval_ms: u64::from(interval_s) * 1000,
            due: 0,
            said: HashMap::new(),
            loads: Default::default(),
        })
    }

    /// When the next announcement is due.
    pub fn due(&self) -> Millis {
        self.due
    }

    /// Topics and payloads that have changed, for `now`, which is not before [`Announcer::due`].
    pub fn announce(
        &mut self,
        now: Millis,
        counters: &ServerCounters,
    ) -> Vec<(&'static str, String)> {
        let elapsed_ms = now.saturating_sub(self.due) + self.interval_ms;
        self.due = now + self.interval_ms;
        let mut values = totals(now, counters);
        let engine = &counters.engine;
        let loads = [
            (
                "$SYS/broker/load/publish/received/1min",
                engine.publishes_received,
            ),
            ("$SYS/broker/load/publish/sent/1min", engine.publishes_sent),
            (
                "$SYS/broker/load/bytes/received/1min",
                engine.bytes_received,
            ),
            ("$SYS/broker/load/bytes/sent/1min", engine.bytes_sent),
        ];
        for (load, (topic, total)) in self.loads.iter_mut().zip(loads) {
            values.push((topic, load.advance(total, elapsed_ms)));
        }
        let mut changed = Vec::new();
        for (topic, value) in values {
            if self.said.get(topic) != Some(&value) {
                self.said.insert(topic, value.clone());
                changed.push((topic, value));
            }
        }
        changed
    }
}

/// What is said as it stands.
fn totals(now: Millis, counters: &ServerCounters) -> Vec<(&'static str, String)> {
    let engine = &counters.engine;
    let offline = engine.sessions_now.saturating_sub(engine.connections_now);
    let known = engine.connections_now.max(engine.sessions_now);
    let dropped = engine.dropped_oldest + engine.refused_newest + engine.dropped_expired;
    let version = concat!("casemate ", env!("CARGO_PKG_VERSION"));
    vec![
        ("$SYS/broker/version", version.to_owned()),
        ("$SYS/broker/uptime", format!("{} seconds", now / 1000)),
        (
            "$SYS/broker/clients/connected",
            engine.connections_now.to_string(),
        ),
        ("$SYS/broker/clients/disconnected", offline.to_string()),
        ("$SYS/broker/clients/total", known.to_string()),
        (
            "$SYS/broker/messages/received",
            engine.packets_received.to_string(),
        ),
        (
            "$SYS/broker/messages/sent",
            engine.publishes_sent.to_string(),
        ),
        (
            "$SYS/broker/publish/messages/received",
            engine.publishes_received.to_string(),
        ),
        (
            "$SYS/broker/publish/messages/sent",
            engine.publishes_sent.to_string(),
        ),
        ("$SYS/broker/publish/messages/dropped", dropped.to_string()),
        (
            "$SYS/broker/bytes/received",
            engine.bytes_received.to_string(),
        ),
        ("$SYS/broker/bytes/sent", engine.bytes_sent.to_string()),
        (
            "$SYS/broker/subscriptions/count",
            engine.subscriptions_now.to_string(),
        ),
        (
            "$SYS/broker/retained messages/count",
            engine.retained_now.to_string(),
        ),
    ]
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_of_zero_announces_nothing() {
        assert!(Announcer::new(0).is_none());
    }

    #[test]
    fn only_what_has_changed_is_announced_again() {
        let mut announcer = Announcer::new(10).unwrap();
        let mut counters = ServerCounters::default();
        assert!(announcer.announce(0, &counters).len() > 15);
        assert_eq!(announcer.due(), 10_000);
        counters.engine.publishes_received = 100;
        let changed = announcer.announce(10_000, &counters);
        let topics: Vec<_> = changed.iter().map(|(topic, _)| *topic).collect();
        let expected = [
            "$SYS/broker/uptime",
            "$SYS/broker/publish/messages/received",
            "$SYS/broker/load/publish/received/1min",
        ];
        assert_eq!(topics, expected);
    }

    #[test]
    fn a_load_approaches_the_rate() {
        let mut load = Load::default();
        let mut said = String::new();
        for minute in 1..=20 {
            said = load.advance(minute * 600, 60_000);
        }
        assert!((said.parse::<f64>().unwrap() - 600.0).abs() < 1.0, "{said}");
    }
}
