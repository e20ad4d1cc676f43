//! `$SYS/broker/…`: what the server tells its subscribers about itself.

use std::collections::HashMap;

use casemate_engine::Millis;

use crate::counters::ServerCounters;

/// A minute: the unit of every load, and the shortest time over which one is averaged.
const MINUTE_MS: f64 = 60_000.0;

/// Minutes over which each load is averaged, in the order of its topics.
const SPANS_MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Names the three topics of a load, whose last level is the span.
macro_rules! spans {
    ($topic:literal) => {
        [
            concat!("$SYS/broker/load/", $topic, "/1min"),
            concat!("$SYS/broker/load/", $topic, "/5min"),
            concat!("$SYS/broker/load/", $topic, "/15min"),
        ]
    };
}

/// What a load is taken from.
type Total = fn(&ServerCounters) -> u64;

/// The loads: their topics, and the totals whose growth they average.
const LOADS: [([&str; 3], Total); 8] = [
    (spans!("messages/received"), |all| {
        all.engine.packets_received
    }),
    (spans!("publish/received"), |all| {
        all.engine.publishes_received
    }),
    (spans!("publish/sent"), |all| all.engine.publishes_sent),
    (spans!("publish/dropped"), dropped),
    (spans!("bytes/received"), |all| all.engine.bytes_received),
    (spans!("bytes/sent"), |all| all.engine.bytes_sent),
    (spans!("connections"), |all| all.engine.connections_total),
    (spans!("sockets"), |all| all.shell.accepted),
];

/// Computes what has changed since the last announcement.
pub(crate) struct Announcer {
    interval_ms: Millis,
    due: Millis,
    said: HashMap<&'static str, String>,
    loads: [Load; LOADS.len()],
    /// Most connections at the moment of an announcement.
    connections_most: u64,
}

/// Events per minute, averaged with exponential forgetting.
#[derive(Default)]
struct Load {
    last: u64,
    per_minute: [f64; SPANS_MINUTES.len()],
}

impl Load {
    fn advance(&mut self, total: u64, elapsed_ms: Millis) -> [String; SPANS_MINUTES.len()] {
        let elapsed_minutes = elapsed_ms.max(1) as f64 / MINUTE_MS;
        let fresh = total.saturating_sub(self.last) as f64 / elapsed_minutes;
        self.last = total;
        for (per_minute, span) in self.per_minute.iter_mut().zip(SPANS_MINUTES) {
            let keep = (-elapsed_minutes / span).exp();
            *per_minute = *per_minute * keep + fresh * (1.0 - keep);
        }
        self.per_minute.map(|per_minute| format!("{per_minute:.2}"))
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
            connections_most: 0,
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
        let connected = counters.engine.connections_now;
        self.connections_most = self.connections_most.max(connected);
        let mut values = totals(now, counters);
        values.push((
            "$SYS/broker/clients/maximum",
            self.connections_most.to_string(),
        ));
        for (load, (topics, total)) in self.loads.iter_mut().zip(LOADS) {
            values.extend(
                topics
                    .into_iter()
                    .zip(load.advance(total(counters), elapsed_ms)),
            );
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

/// Messages that were taken in and that somebody did not get.
fn dropped(counters: &ServerCounters) -> u64 {
    let engine = &counters.engine;
    engine.dropped_oldest + engine.refused_newest + engine.dropped_expired
}

/// What is said as it stands. Dashboards know two spellings of some, so both are said.
fn totals(now: Millis, counters: &ServerCounters) -> Vec<(&'static str, String)> {
    let engine = &counters.engine;
    let connected = engine.connections_now;
    let offline = engine.sessions_now.saturating_sub(connected);
    let version = concat!("casemate ", env!("CARGO_PKG_VERSION"));
    let numbers = [
        ("$SYS/broker/clients/connected", connected),
        ("$SYS/broker/clients/active", connected),
        ("$SYS/broker/clients/disconnected", offline),
        ("$SYS/broker/clients/inactive", offline),
        (
            "$SYS/broker/clients/total",
            connected.max(engine.sessions_now),
        ),
        ("$SYS/broker/messages/received", engine.packets_received),
        ("$SYS/broker/messages/sent", engine.publishes_sent),
        (
            "$SYS/broker/publish/messages/received",
            engine.publishes_received,
        ),
        ("$SYS/broker/publish/messages/sent", engine.publishes_sent),
        ("$SYS/broker/publish/messages/dropped", dropped(counters)),
        ("$SYS/broker/bytes/received", engine.bytes_received),
        ("$SYS/broker/bytes/sent", engine.bytes_sent),
        ("$SYS/broker/subscriptions/count", engine.subscriptions_now),
        ("$SYS/broker/retained messages/count", engine.retained_now),
    ];
    let mut said = vec![
        ("$SYS/broker/version", version.to_owned()),
        ("$SYS/broker/uptime", format!("{} seconds", now / 1000)),
    ];
    said.extend(numbers.map(|(topic, number)| (topic, number.to_string())));
    said
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
        assert_eq!(announcer.announce(0, &counters).len(), 17 + 3 * LOADS.len());
        assert_eq!(announcer.due(), 10_000);
        counters.engine.publishes_received = 100;
        let changed = announcer.announce(10_000, &counters);
        let topics: Vec<_> = changed.iter().map(|(topic, _)| *topic).collect();
        let expected = [
            "$SYS/broker/uptime",
            "$SYS/broker/publish/messages/received",
            "$SYS/broker/load/publish/received/1min",
            "$SYS/broker/load/publish/received/5min",
            "$SYS/broker/load/publish/received/15min",
        ];
        assert_eq!(topics, expected);
    }

    #[test]
    fn each_topic_is_said_once() {
        let mut announcer = Announcer::new(10).unwrap();
        let said = announcer.announce(0, &ServerCounters::default());
        let topics: std::collections::HashSet<_> = said.iter().map(|(topic, _)| topic).collect();
        assert_eq!(topics.len(), said.len());
    }

    #[test]
    fn the_most_connections_are_remembered() {
        let mut announcer = Announcer::new(10).unwrap();
        let mut counters = ServerCounters::default();
        let mut most = String::new();
        for (turn, connected) in [3, 7, 2].into_iter().enumerate() {
            counters.engine.connections_now = connected;
            for (topic, value) in announcer.announce(turn as u64 * 10_000, &counters) {
                if topic == "$SYS/broker/clients/maximum" {
                    most = value;
                }
            }
        }
        assert_eq!(most, "7");
    }

    #[test]
    fn a_load_approaches_the_rate_the_sooner_the_shorter_its_span() {
        let mut load = Load::default();
        for minute in 1..=4 {
            load.advance(minute * 600, 60_000);
        }
        let [short, middle, long] = load.per_minute;
        assert!(short > middle && middle > long && long > 100.0);
        for minute in 5..=200 {
            load.advance(minute * 600, 60_000);
        }
        for said in load.advance(201 * 600, 60_000) {
            assert!((said.parse::<f64>().unwrap() - 600.0).abs() < 1.0, "{said}");
        }
    }

    #[test]
    fn the_guide_lists_each_topic_and_no_other() {
        let guide = include_str!("../../../docs/guides/status.md");
        let listed: std::collections::BTreeSet<_> = guide
            .split('`')
            .filter(|word| word.starts_with("$SYS/broker/") && !word.ends_with('#'))
            .collect();
        let mut announcer = Announcer::new(10).unwrap();
        let said = announcer.announce(0, &ServerCounters::default());
        // The guide names a load once, for all of its spans.
        let topics: std::collections::BTreeSet<_> = said
            .iter()
            .map(|(topic, _)| *topic)
            .filter(|topic| !topic.ends_with("/5min") && !topic.ends_with("/15min"))
            .collect();
        assert_eq!(listed, topics);
    }
}
