//! The plan: everything that is decided before a run begins.

mod crash;
mod disk;

use std::sync::Arc;

use casemate_codec::Version;
use casemate_engine::{Millis, Principal, Settings};

use crate::chance::Chance;
use crate::feature::{Feature, Features};
use crate::law::Asker;
use crate::stream::Weather;
use crate::topic::TAILS_MAX;

pub use crash::Crashes;
pub use disk::DiskPlan;

/// How often something answers late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promptness {
    /// Within the same turn.
    AtOnce,
    /// Each answer up to so many ms later.
    Late(u64),
    /// All answers together, every so many ms.
    Batches(u64),
}

/// Somebody with a name and a password.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub principal: Arc<Principal>,
    /// What proves it.
    pub password: Vec<u8>,
    /// Whether `%c` may speak for the client id.
    pub client_id_bound: bool,
    /// How long a proof holds, ms.
    pub proof_ms: Option<Millis>,
}

/// One well-behaved client: a person with a device.
#[derive(Clone, Debug)]
pub struct Persona {
    /// Index into [`Plan::people`].
    pub person: usize,
    /// Unique for the person, not in the world.
    pub client_id: String,
    /// Protocol version.
    pub version: Version,
    /// Its habits, in percent.
    pub habits: Habits,
}

/// What a client is inclined to.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Longest pause between two acts, ms.
    pub pause_ms_max: u64,
    /// Longest pause between two reads, ms; 0 reads at once.
    pub read_pause_ms_max: u64,
    /// Acknowledges up to so much later, ms.
    pub acknowledge_ms_max: u64,
    /// Of 100 acts, how many publish.
    pub publish_percent: u64,
    /// Of 100 CONNECTs, how many start clean.
    pub clean_percent: u64,
    /// Whether the session outlives the connection.
    pub persistent: bool,
    /// Takes packets of any size.
    pub takes_all: bool,
    /// Uses the challenge of enhanced authentication.
    pub challenged: bool,
}

/// All that a seed decides at the start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What may happen.
    pub features: Features,
    /// Shards, 1 to 4.
    pub shards: usize,
    /// The engine's limits.
    pub settings: Settings,
    /// Who may log in.
    pub people: Vec<Person>,
    /// The well-behaved clients.
    pub personas: Vec<Persona>,
    /// Hostile connections at a time.
    pub hostile: usize,
    /// Client to broker, and back.
    pub weather: Weather,
    /// How the store answers.
    pub store: Promptness,
    /// Of 1,000 answers of the store, how many are failures.
    pub store_failures_permille: u64,
    /// How the authenticator answers.
    pub gate: Promptness,
    /// Longest way of a batch between shards, ms.
    pub pipe_ms_max: u64,
    /// Of 1,000 batches between shards, how many find the pipe standing still.
    pub pipe_stands_permille: u64,
    /// Most bytes that the shell reads from one connection in a turn.
    pub read_bytes_max: usize,
    /// Of 100 messages, how many are large.
    pub large_percent: u64,
    /// How large those may be, bytes.
    pub large_bytes: [usize; 3],
    /// Of 100 messages, how many are to be retained.
    pub retain_percent: u64,
    /// Of 100 messages, how many are of the kind of the author's last: topic, QoS and retain.
    pub constancy_percent: u64,
    /// Of 100 subscriptions, how many are shared; where that is most, many of them end soon.
    pub share_percent: u64,
    /// Of 100 filters, how many have wildcards wherever they can.
    pub wide_percent: u64,
    /// How many last parts topics have.
    pub tails: usize,
    /// Clients have one subscription at a time: what comes after its end is a stranger.
    pub is_sparing: bool,
    /// Messages that are published at a time.
    pub burst: u64,
    /// Messages carry no properties.
    pub is_plain: bool,
    /// The run ends with a drain; the server that clients are sent to, if any.
    pub drain: Option<Option<&'static str>>,
    /// Whether losses of QoS 0 and refusals for full queues are to be expected.
    pub tight: bool,
    /// How the process dies and comes again, if it does.
    pub crashes: Option<Crashes>,
    /// The disk under the store, if it is the real one.
    pub disk: Option<DiskPlan>,
}

/// Index of the person who looks at everything in the end; one for each tenant.
pub const PROBES: [usize; 2] = [0, 1];

impl Plan {
    /// Decides everything that is decided at the start.
    pub fn new(chance: &mut Chance, features: Features) -> Plan {
        let shards = if features.has(Feature::Shards) {
            *chance.pick(&[1, 1, 2, 2, 3, 4])
        } else {
            1
        };
        let tight = features.has(Feature::Tight) && chance.percent(30);
        let people = people(chance, features);
        let personas = personas(chance, features, &people);
        let fails = features.has(Feature::FailingStore) && chance.percent(10);
        let mut plan = Plan {
            features,
            shards,
            settings: settings(chance, features, tight),
            people,
            personas,
            hostile: match features.has(Feature::Hostile) {
                true => *chance.pick(&[0, 0, 1, 3]),
                false => 0,
            },
            weather: weather(chance, features),
            store: promptness(chance, features.has(Feature::LateStore), 300),
            store_failures_permille: if fails { chance.between(1, 20) } else { 0 },
            gate: promptness(chance, features.has(Feature::LateGate), 600),
            pipe_ms_max: *chance.pick(&[0, 1, 5, 50, 100]),
            pipe_stands_permille: *chance.pick(&[0, 0, 5, 30]),
            read_bytes_max: match features.has(Feature::Splitting) {
                true => *chance.pick(&[1 << 18, 4096, 100, 7]),
                false => 1 << 18,
            },
            large_percent: *chance.pick(&[2, 5, 5, 5, 60]),
            large_bytes: [2_000, 2_000, 30_000],
            retain_percent: 25,
            constancy_percent: *chance.pick(&[0, 0, 30, 80]),
            share_percent: *chance.pick(&[20, 20, 20, 60]),
            wide_percent: 15,
            tails: TAILS_MAX,
            is_sparing: false,
            burst: 1,
            is_plain: false,
            drain: (features.has(Feature::Drain) && chance.percent(15))
                .then(|| *chance.pick(&[None, Some("other.example:8883")])),
            tight,
            crashes: None,
            disk: None,
        };
        plan.favour_shares(chance);
        match chance.below(100) {
            0..=15 => plan.flood(chance),
            16..=35 => plan.stream(chance),
            36..=42 => plan.renew(chance),
            _ => {}
        }
        plan.crashes = Crashes::new(chance, &plan);
        plan.disk = DiskPlan::new(chance, &plan);
        plan
    }

    /// Lets everybody send runs of packets that are alike, which the broker may handle as one.
    fn stream(&mut self, chance: &mut Chance) {
        self.burst = chance.between(3, 12);
        self.constancy_percent = 90;
        self.is_plain = true;
        self.retain_percent = 3;
        self.large_percent = 1;
        self.settings.topic_alias_max = 0;
        self.settings.receive_max = *chance.pick(&[10, 1_024]);
        self.weather.capacity = 1 << 16;
        self.weather.piece_bytes_max = *chance.pick(&[0, 0, 1_000]);
        self.read_bytes_max = 1 << 18;
    }

    /// Lets each author renew one of a few retained messages, which others ask for meanwhile, over
    /// pipes that now and then stand still: a store may know less than whoever asks it.
    fn renew(&mut self, chance: &mut Chance) {
        if self.features.has(Feature::Shards) {
            // Author, store and reader in a shard of their own each.
            self.shards = *chance.pick(&[3, 4]);
        }
        self.pipe_ms_max = 5;
        self.pipe_stands_permille = 20;
        self.tails = 3;
        self.wide_percent = 5;
        self.share_percent = 5;
        self.retain_percent = 90;
        self.constancy_percent = 97;
        self.large_percent = 2;
        // Nothing but the pipes makes anybody wait.
        self.weather.capacity = 1 << 16;
        self.weather.piece_bytes_max = 0;
        self.read_bytes_max = 1 << 18;
        self.settings.window_bytes = 16 * 1024;
        self.settings.pipe_bytes = 1024 * 1024;
        self.settings.receipts_max = 16_384;
        self.settings.receive_max = 1_024;
        self.settings.inflight_max = 1_024;
        for persona in &mut self.personas {
            persona.habits.publish_percent = 80;
            persona.habits.pause_ms_max = 40;
            persona.habits.read_pause_ms_max = 0;
            persona.habits.acknowledge_ms_max = 0;
        }
    }

    /// Makes more of groups, in runs that are about them.
    fn favour_shares(&mut self, chance: &mut Chance) {
        if self.share_percent > 50 {
            // Groups hear late of their members, who mostly have nothing else that matches.
            self.pipe_ms_max = 150;
            self.wide_percent = 0;
            if chance.percent(50) {
                self.is_sparing = true;
                self.share_percent = 90;
                self.tails = 1;
            }
        }
    }

    /// Lets everybody send as much as they can through pipes that are slow and narrow.
    fn flood(&mut self, chance: &mut Chance) {
        let packet_bytes_max = chance.between(4, 8) as u32 * 1024;
        self.settings.packet_bytes_max = packet_bytes_max;
        self.settings.pipe_bytes = packet_bytes_max as usize * 2;
        self.pipe_ms_max = chance.between(20, 200);
        self.large_percent = 70;
        self.burst = chance.between(2, 20);
        self.weather.capacity = 1 << 16;
        self.weather.piece_bytes_max = 0;
        // Some floods are of messages, some of what is retained.
        let publish_percent = *chance.pick(&[80, 40]);
        if publish_percent == 40 {
            self.shards = self.shards.min(2);
            self.settings.packet_bytes_max = 8 * 1024;
            self.settings.pipe_bytes = 16 * 1024;
            self.pipe_ms_max = 200;
            self.wide_percent = 80;
            self.retain_percent = 80;
            self.large_percent = 90;
            self.large_bytes = [30_000; 3];
        }
        for persona in &mut self.personas {
            persona.habits.publish_percent = publish_percent;
        }
    }

    /// True where the store may fail.
    pub fn store_fails(&self) -> bool {
        match &self.disk {
            Some(disk) => disk.breaks(),
            None => self.store_failures_permille > 0,
        }
    }

    /// True where there never is more than one shard.
    pub fn has_one_shard(&self) -> bool {
        let more = |crashes: &Crashes| crashes.shards.iter().any(|count| *count > 1);
        self.shards == 1 && !self.crashes.as_ref().is_some_and(more)
    }

    /// Who a persona is in the eyes of the law.
    pub fn asker(&self, persona: &Persona) -> Asker {
        let person = &self.people[persona.person];
        let client_id = person.client_id_bound.then(|| persona.client_id.clone());
        Asker {
            principal: Arc::clone(&person.principal),
            client_id,
        }
    }
}

/// How soon somebody answers, at most so many milliseconds late.
fn promptness(chance: &mut Chance, may_be_late: bool, most: u64) -> Promptness {
    if !may_be_late {
        return Promptness::AtOnce;
    }
    match chance.below(4) {
        0 | 1 => Promptness::AtOnce,
        2 => Promptness::Late(chance.between(1, most)),
        _ => Promptness::Batches(chance.between(2, most)),
    }
}

/// How bytes travel.
fn weather(chance: &mut Chance, features: Features) -> Weather {
    let piece_bytes_max = match features.has(Feature::Splitting) {
        true => *chance.pick(&[0, 0, 1000, 20, 3]),
        false => 0,
    };
    let capacity = match features.has(Feature::SlowReaders) {
        true => *chance.pick(&[1 << 16, 1 << 16, 4096, 300]),
        false => 1 << 16,
    };
    Weather {
        delay_ms_max: *chance.pick(&[0, 1, 5, 40]),
        piece_bytes_max,
        capacity,
    }
}

/// The engine's limits, ordinary or tight.
fn settings(chance: &mut Chance, features: Features, tight: bool) -> Settings {
    let expiry_s_max = match features.has(Feature::LongSleep) {
        true => *chance.pick(&[8, 30, 3_600]),
        false => 86_400,
    };
    let packet_bytes_max = chance.between(4, 64) as u32 * 1024;
    Settings {
        packet_bytes_max,
        connect_bytes_max: 4096,
        connect_deadline_ms: chance.between(3, 10) * 1000,
        keep_alive_s_max: match features.has(Feature::KeepAlive) {
            true => *chance.pick(&[0, 5, 60, 1_200]),
            false => 0,
        },
        session_expiry_s_max: expiry_s_max,
        session_expiry_s_legacy: expiry_s_max,
        receive_max: *chance.pick(&[3, 10, 100, 1_024]),
        inflight_max: *chance.pick(&[1, 3, 20, 1_024]),
        topic_alias_max: *chance.pick(&[0, 1, 3, 32]),
        topic_alias_out_max: *chance.pick(&[0, 1, 3, 32]),
        queue_messages_max: if tight {
            chance.between(3, 30) as usize
        } else {
            100_000
        },
        queue_bytes_max: match tight && chance.percent(50) {
            true => chance.between(1, 8) as usize * 1024,
            false => 1 << 30,
        },
        window_bytes: *chance.pick(&[300, 2_000, 16 * 1024, 128 * 1024]),
        pipe_bytes: match chance.percent(50) {
            true => 1024 * 1024,
            false => packet_bytes_max as usize * 2 + chance.between(0, 8) as usize * 1024,
        },
        receipts_max: *chance.pick(&[2, 10, 16_384]),
        slow_reader_ms: *chance.pick(&[8_000, 60_000]),
        response_information: if chance.percent(30) {
            "r/".into()
        } else {
            "".into()
        },
        ..Settings::default()
    }
}

/// Who may log in: two who see everything, the hostile ones, then the well-behaved.
fn people(chance: &mut Chance, features: Features) -> Vec<Person> {
    let person = |tenant, name: &str, roles: &[&str], bound, proof_ms| Person {
        principal: Arc::new(Principal {
            tenant,
            realm: "account".into(),
            name: name.into(),
            roles: roles.iter().map(|role| Box::from(*role)).collect(),
        }),
        password: format!("secret of {name}").into_bytes(),
        client_id_bound: bound,
        proof_ms,
    };
    let mut people = vec![
        person(0, "probe", &["probe"], false, None),
        person(1, "probe1", &["probe"], false, None),
        person(0, "mallory", &["hostile"], false, None),
        person(0, "nobody", &[], false, None),
    ];
    for number in 0..chance.between(2, 5) {
        let tenant = u32::from(features.has(Feature::Tenants) && chance.percent(15));
        let roles: &[&str] = match chance.below(10) {
            0..=6 => &["full"],
            7 => &["half"],
            8 => &["half", "own"],
            _ => &["own"],
        };
        let proof_ms = (features.has(Feature::Challenges) && chance.percent(8))
            .then(|| chance.between(2_000, 20_000));
        let bound = chance.percent(50);
        people.push(person(
            tenant,
            &format!("u{number}"),
            roles,
            bound,
            proof_ms,
        ));
    }
    people
}

/// Index of the first person who is neither a probe nor hostile.
pub const FIRST_GOOD_PERSON: usize = 4;

/// The well-behaved clients; the same client id is used by several people on purpose.
fn personas(chance: &mut Chance, features: Features, people: &[Person]) -> Vec<Persona> {
    let mut personas: Vec<Persona> = Vec::new();
    let wanted = chance.between(2, 8) as usize;
    while personas.len() < wanted {
        let good = people.len() - FIRST_GOOD_PERSON;
        let person = FIRST_GOOD_PERSON + chance.index(good);
        let version = match chance.below(10) {
            _ if !features.has(Feature::Version5) => Version::V311,
            0 => Version::V31,
            1..=3 => Version::V311,
            _ => Version::V5,
        };
        // MQTT 3.1 has no way to ask for an identifier.
        let anonymous = version != Version::V31 && chance.percent(6);
        let client_id = match anonymous {
            true => String::new(),
            false => format!("c{}", chance.below(4)),
        };
        let same = |other: &Persona| other.person == person && other.client_id == client_id;
        if personas.iter().any(same) {
            if personas.len() >= good * 3 {
                break;
            }
            continue;
        }
        let mut habits = habits(chance, features);
        habits.persistent &= !anonymous;
        personas.push(Persona {
            person,
            client_id,
            version,
            habits,
        });
    }
    personas
}

/// The habits of one client.
fn habits(chance: &mut Chance, features: Features) -> Habits {
    let slow = features.has(Feature::SlowReaders) && chance.percent(25);
    let late = features.has(Feature::LateAcks) && chance.percent(35);
    Habits {
        pause_ms_max: *chance.pick(&[2, 10, 60, 400]),
        read_pause_ms_max: if slow { chance.between(20, 1_500) } else { 0 },
        acknowledge_ms_max: if late { chance.between(10, 800) } else { 0 },
        publish_percent: *chance.pick(&[25, 50, 70]),
        clean_percent: match features.has(Feature::CleanStarts) {
            true => *chance.pick(&[0, 10, 60]),
            false => 0,
        },
        persistent: chance.percent(75),
        takes_all: false,
        challenged: features.has(Feature::Challenges) && chance.percent(20),
    }
}
