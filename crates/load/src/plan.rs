//! What a run does: whom it loads, who publishes what to whom, how fast and how long.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use casemate_codec::{topic_fault, QoS, Version};

use crate::PlanError;

/// Bytes at the start of each payload: publisher (4), number (4), intended time in ns (8).
pub const STAMP_BYTES: usize = 16;

/// A run holds a socket and some KiB for each.
const CLIENTS_MAX: usize = 100_000;
/// Streams of one publisher to one subscriber; a run holds some 40 bytes for each.
const STREAMS_MAX: usize = 10_000_000;
/// The largest payload that fits into a packet with the longest topic and its properties.
const PAYLOAD_BYTES_MAX: usize = 268_000_000;
/// A publisher keeps at least one message ahead in memory; all of them stay below this.
const MEMORY_BYTES_MAX: usize = 2 * 1024 * 1024 * 1024;
/// A day; a run that never ends is a mistake or an attack.
const TIME_MAX: Duration = Duration::from_secs(86_400);
/// Numbers of messages have 32 bits.
const MESSAGES_MAX: u64 = u32::MAX as u64;
/// Topics of all publishers; a header is kept for each.
const TOPICS_MAX: usize = 2_000_000;
/// Deliveries that may be under way; each subscriber of each publisher remembers some of them.
const WINDOW_MAX: usize = 1_000_000;

/// A run, whole.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Whom it loads.
    pub target: Target,
    /// Who publishes what to whom.
    pub shape: Shape,
    /// How fast.
    pub pace: Pace,
    /// QoS of PUBLISH.
    pub publish_qos: QoS,
    /// QoS of SUBSCRIBE.
    pub subscribe_qos: QoS,
    /// Bytes of each payload, [`STAMP_BYTES`] at least.
    pub payload_bytes: usize,
    /// Publish with the retain flag.
    pub retain: bool,
    /// Say the topic once and an alias afterwards (5.0).
    pub topic_alias: bool,
    /// Send an expiry, a content type and a user property with each message (5.0).
    pub properties: bool,
    /// Let the sessions of subscribers outlive their connections; else each ends with its own.
    pub lasting: Option<Lasting>,
    /// Messages of QoS 1 and 2 that one publisher may have unacknowledged.
    pub inflight_max: u16,
    /// What all topics begin with.
    pub topic: String,
    /// Topics that each publisher uses, one after the other.
    pub topics_per_publisher: usize,
    /// Subscribe to each topic by itself, every fifth with a wildcard in it, rather than to all of
    /// them by one filter.
    pub single_filters: bool,
    /// Connections that may be under way at a time, at the start and in a storm.
    pub connecting_max: usize,
    /// Time that is not measured yet.
    pub warm_up: Duration,
    /// Time that is measured.
    pub measured: Duration,
    /// After the measured time: how long nothing may arrive before the rest is given up as lost.
    pub grace: Duration,
    /// All clients must be connected and subscribed by then.
    pub setup_max: Duration,
    /// Messages after which publishing ends, whatever the time.
    pub messages_max: u64,
}

/// How the broker is reached.
#[derive(Clone, Debug)]
pub struct Target {
    /// The one address that anything is sent to.
    pub address: SocketAddr,
    /// Version of MQTT.
    pub version: Version,
    /// What each client id begins with; a number follows.
    pub client_id: String,
    /// Proof of who the clients are.
    pub username: Option<String>,
    /// As above.
    pub password: Option<Secret>,
    /// Seconds; 0 turns it off.
    pub keep_alive_s: u16,
    /// TLS, and whom it trusts.
    pub tls: Option<Tls>,
    /// WebSocket, and where it is.
    pub websocket: Option<Door>,
}

/// Bytes that no message and no `Debug` shows.
#[derive(Clone)]
pub struct Secret(pub Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<hidden>")
    }
}

/// TLS of the clients.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Name for which the broker's certificate must be valid.
    pub server_name: String,
    /// Certificates of those who may vouch for it, in PEM.
    pub trusted_pem: Vec<u8>,
    /// What the clients show of themselves.
    pub identity: Option<Identity>,
    /// Shorten later handshakes by tickets of earlier ones.
    pub resume: bool,
}

/// A client certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The chain, leaf first, in PEM.
    pub chain_pem: Vec<u8>,
    /// Its private key, in PEM.
    pub key_pem: Secret,
}

/// Where a WebSocket is asked for.
#[derive(Clone, Debug)]
pub struct Door {
    /// For the Host header.
    pub host: String,
    /// Path, beginning with a slash.
    pub path: String,
}

/// Sessions that outlive their connections, so that a broker must keep what it owes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lasting {
    /// How long, in seconds, at least 1. Before 5.0 no client can say that: there a session lasts
    /// as long as the broker likes.
    pub expiry_s: u32,
    /// Leave them behind; else each is discarded at the end by one more connection, so that the
    /// broker is left as it was.
    pub left_behind: bool,
}

/// Who publishes what to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Many publishers, few subscribers with a wildcard each: publisher p to subscriber p mod s.
    FanIn {
        /// Clients that publish.
        publishers: usize,
        /// Clients that subscribe; at most as many.
        subscribers: usize,
    },
    /// Each message to every subscriber.
    FanOut {
        /// Clients that publish.
        publishers: usize,
        /// Clients that subscribe.
        subscribers: usize,
    },
    /// Each publisher to a subscriber of its own.
    Pairs {
        /// Pairs of clients.
        pairs: usize,
    },
    /// Many publishers to one shared subscription, each message to one of its members.
    Shared {
        /// Clients that publish.
        publishers: usize,
        /// Members of the group.
        subscribers: usize,
    },
    /// Connections one after the other, each ended once it was accepted.
    Connects {
        /// How many in all.
        connections: usize,
    },
    /// Connections with a subscription each that then stay idle.
    Idle {
        /// How many.
        connections: usize,
    },
}

impl Shape {
    /// Clients that are connected at the same time; `connecting_max` bounds a storm.
    pub fn clients(&self, connecting_max: usize) -> usize {
        match *self {
            Shape::FanIn {
                publishers,
                subscribers,
            }
            | Shape::FanOut {
                publishers,
                subscribers,
            }
            | Shape::Shared {
                publishers,
                subscribers,
            } => publishers.saturating_add(subscribers),
            Shape::Pairs { pairs } => pairs.saturating_mul(2),
            Shape::Connects { connections } => connections.min(connecting_max),
            Shape::Idle { connections } => connections,
        }
    }

    /// Clients that publish.
    pub fn publishers(&self) -> usize {
        match *self {
            Shape::FanIn { publishers, .. }
            | Shape::FanOut { publishers, .. }
            | Shape::Shared { publishers, .. } => publishers,
            Shape::Pairs { pairs } => pairs,
            Shape::Connects { .. } | Shape::Idle { .. } => 0,
        }
    }

    /// Deliveries that one message causes.
    pub fn deliveries_per_message(&self) -> u64 {
        match *self {
            Shape::FanOut { subscribers, .. } => subscribers as u64,
            _ => 1,
        }
    }
}

/// How fast messages are published, or connections begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// As fast as the broker delivers: at most `window` deliveries under way, in all.
    Saturate {
        /// Deliveries under way.
        window: usize,
    },
    /// So many each second, whatever the broker does. Latency counts from the moment at which a
    /// message should have been sent, so that a broker that stalls the generator is not excused
    /// from what it made wait.
    Rate {
        /// Messages (or connections) per second, of all publishers together.
        per_s: f64,
    },
}

impl Plan {
    /// Checks that the plan can be run and has bounds.
    ///
    /// # Errors
    /// [`PlanError`] names what must change.
    pub fn check(&self) -> Result<(), PlanError> {
        let refuse = |says: &str| Err(PlanError(says.to_owned()));
        if let Shape::FanIn {
            publishers,
            subscribers,
        } = self.shape
        {
            if subscribers > publishers {
                return refuse("a fan-in has at most as many subscribers as publishers");
            }
        }
        if self.has_nobody() {
            return refuse("there must be at least one client of each kind");
        }
        if self.connecting_max == 0 || self.inflight_max == 0 {
            return refuse("at least one connection and one message must be allowed at a time");
        }
        let clients = self.shape.clients(self.connecting_max);
        if clients > CLIENTS_MAX {
            return Err(PlanError(format!(
                "{clients} clients are more than the {CLIENTS_MAX} of one run"
            )));
        }
        if let Shape::FanOut {
            publishers,
            subscribers,
        } = self.shape
        {
            if publishers.saturating_mul(subscribers) > STREAMS_MAX {
                return Err(PlanError(format!(
                    "{publishers} publishers to each of {subscribers} subscribers are more than \
                     the {STREAMS_MAX} streams of one run"
                )));
            }
        }
        self.check_lasting()?;
        self.check_messages()?;
        self.check_pace()?;
        let total = [self.warm_up, self.measured, self.grace, self.setup_max];
        if total.iter().any(|time| *time > TIME_MAX) {
            return refuse("a run takes at most a day");
        }
        Ok(())
    }

    fn has_nobody(&self) -> bool {
        match self.shape {
            Shape::FanIn {
                publishers,
                subscribers,
            }
            | Shape::FanOut {
                publishers,
                subscribers,
            }
            | Shape::Shared {
                publishers,
                subscribers,
            } => publishers == 0 || subscribers == 0,
            Shape::Pairs { pairs } => pairs == 0,
            Shape::Connects { connections } | Shape::Idle { connections } => connections == 0,
        }
    }

    fn check_lasting(&self) -> Result<(), PlanError> {
        let Some(lasting) = self.lasting else {
            return Ok(());
        };
        if matches!(self.shape, Shape::Connects { .. }) {
            let says = "a storm has no subscribers whose sessions could last";
            return Err(PlanError(says.to_owned()));
        }
        if lasting.expiry_s == 0 {
            let says = "a session that lasts does so for a second at least";
            return Err(PlanError(says.to_owned()));
        }
        Ok(())
    }

    fn check_messages(&self) -> Result<(), PlanError> {
        if !(STAMP_BYTES..=PAYLOAD_BYTES_MAX).contains(&self.payload_bytes) {
            return Err(PlanError(format!(
                "a payload is {STAMP_BYTES} to {PAYLOAD_BYTES_MAX} bytes: each carries its number"
            )));
        }
        let publishers = self.shape.publishers();
        let memory = self.payload_bytes.saturating_mul(publishers);
        if memory > MEMORY_BYTES_MAX {
            return Err(PlanError(format!(
                "{publishers} publishers of {} bytes need more than 2 GiB here",
                self.payload_bytes
            )));
        }
        if self.messages_max == 0 || self.messages_max > MESSAGES_MAX {
            return Err(PlanError(format!("a run is 1 to {MESSAGES_MAX} messages")));
        }
        if (self.topic_alias || self.properties) && self.target.version != Version::V5 {
            let says = "topic aliases and properties exist since MQTT 5.0 only";
            return Err(PlanError(says.to_owned()));
        }
        let topics = self.topics_per_publisher.saturating_mul(publishers);
        if self.topics_per_publisher == 0 || topics > TOPICS_MAX {
            return Err(PlanError(format!(
                "all publishers together have 1 to {TOPICS_MAX} topics"
            )));
        }
        if self.topic_alias && self.topics_per_publisher > 1 {
            let says = "a publisher with an alias has one topic";
            return Err(PlanError(says.to_owned()));
        }
        match topic_fault(&self.topic) {
            Some(fault) => Err(PlanError(format!("the topic {fault}"))),
            None => Ok(()),
        }
    }

    fn check_pace(&self) -> Result<(), PlanError> {
        match self.pace {
            Pace::Saturate { window } if (1..=WINDOW_MAX).contains(&window) => Ok(()),
            Pace::Rate { per_s } if per_s.is_finite() && (0.001..=1e8).contains(&per_s) => Ok(()),
            Pace::Saturate { .. } => Err(PlanError(format!(
                "the window is 1 to {WINDOW_MAX} deliveries"
            ))),
            Pace::Rate { .. } => Err(PlanError(
                "a rate is 0.001 to 100,000,000 each second".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(crate) mod tests {
    use super::*;

    /// One publisher to one subscriber, 64 bytes at QoS 0.
    pub(crate) fn plan() -> Plan {
        Plan {
            target: Target {
                address: SocketAddr::from(([127, 0, 0, 1], 1)),
                version: Version::V311,
                client_id: "bench-".to_owned(),
                username: None,
                password: None,
                keep_alive_s: 60,
                tls: None,
                websocket: None,
            },
            shape: Shape::Pairs { pairs: 1 },
            pace: Pace::Saturate { window: 100 },
            publish_qos: QoS::AtMostOnce,
            subscribe_qos: QoS::AtMostOnce,
            payload_bytes: 64,
            retain: false,
            topic_alias: false,
            properties: false,
            lasting: None,
            inflight_max: 20,
            topic: "bench".to_owned(),
            topics_per_publisher: 1,
            single_filters: false,
            connecting_max: 10,
            warm_up: Duration::ZERO,
            measured: Duration::from_secs(1),
            grace: Duration::from_secs(1),
            setup_max: Duration::from_secs(1),
            messages_max: 1_000,
        }
    }

    fn lasting(expiry_s: u32) -> Option<Lasting> {
        let left_behind = false;
        Some(Lasting {
            expiry_s,
            left_behind,
        })
    }

    fn refused(change: impl FnOnce(&mut Plan)) -> String {
        let mut plan = plan();
        change(&mut plan);
        plan.check()
            .map_or_else(|error| error.to_string(), |()| String::new())
    }

    #[test]
    fn a_plan_at_its_bounds_is_accepted() {
        assert_eq!(refused(|_| {}), "");
        assert_eq!(refused(|plan| plan.payload_bytes = STAMP_BYTES), "");
        assert_eq!(
            refused(|plan| plan.shape = Shape::Idle {
                connections: 100_000
            }),
            ""
        );
        assert_eq!(refused(|plan| plan.lasting = lasting(1)), "");
        assert_eq!(refused(|plan| plan.lasting = lasting(u32::MAX)), "");
        // A storm holds few of its connections at a time.
        assert_eq!(
            refused(|plan| plan.shape = Shape::Connects {
                connections: 1 << 40
            }),
            ""
        );
        assert_eq!(refused(|plan| plan.pace = Pace::Rate { per_s: 0.001 }), "");
    }

    #[test]
    fn what_has_no_bound_or_no_sense_is_refused_and_named() {
        let (publishers, subscribers) = (2, 3);
        type Change = fn(&mut Plan);
        let table: [(&str, Change); 16] = [
            ("payload", |plan| plan.payload_bytes = 15),
            ("2 GiB", |plan| {
                plan.payload_bytes = 100_000_000;
                plan.shape = Shape::Pairs { pairs: 50 };
            }),
            ("clients", |plan| {
                plan.shape = Shape::Idle {
                    connections: 100_001,
                }
            }),
            ("clients", |plan| {
                plan.shape = Shape::Pairs { pairs: usize::MAX }
            }),
            ("each kind", |plan| plan.shape = Shape::Pairs { pairs: 0 }),
            ("window", |plan| plan.pace = Pace::Saturate { window: 0 }),
            ("rate", |plan| plan.pace = Pace::Rate { per_s: 0.0 }),
            ("rate", |plan| plan.pace = Pace::Rate { per_s: f64::NAN }),
            ("messages", |plan| plan.messages_max = 1 << 32),
            ("5.0", |plan| plan.topic_alias = true),
            ("topic", |plan| plan.topic = "a/#".to_owned()),
            ("topics", |plan| plan.topics_per_publisher = 0),
            ("topics", |plan| plan.topics_per_publisher = 2_000_001),
            ("second", |plan| plan.lasting = lasting(0)),
            ("storm", |plan| {
                plan.lasting = lasting(60);
                plan.shape = Shape::Connects { connections: 1 };
            }),
            ("day", |plan| plan.measured = Duration::from_secs(86_401)),
        ];
        for (word, change) in table {
            let says = refused(change);
            assert!(says.contains(word), "{word}: {says}");
        }
        let shape = Shape::FanIn {
            publishers,
            subscribers,
        };
        assert!(refused(|plan| plan.shape = shape).contains("at most as many"));
        let shape = Shape::FanOut {
            publishers: 40_000,
            subscribers: 40_000,
        };
        assert!(refused(|plan| plan.shape = shape).contains("streams"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let mut plan = plan();
        plan.target.password = Some(Secret(b"canary".to_vec()));
        let shown = format!("{plan:?}");
        assert!(
            !shown.contains("canary") && !shown.contains("99, 97"),
            "{shown}"
        );
    }
}
