//! What is kept, taken out of a store that nobody serves, or put into one that holds nothing.

use std::collections::BTreeSet;

use casemate_codec::{
    decode, filter_fault, forwardable, share, topic_fault, Frame, Packet, QoS, Sender, Version,
};
use casemate_engine::{
    Awaited, Kept, Scribe, StoredEntry, StoredFlight, StoredMessage, StoredSession,
};
use casemate_store::{Folder, Log, Part, StoreError};

use crate::store::{OpenError, StoreOptions};

/// The largest text of MQTT, bytes.
const TEXT_BYTES_MAX: usize = 65_535;

/// Subscription identifiers are below this.
const ID_MAX: u32 = 268_435_455;

/// Exchanges of one session: each has a packet identifier of its own.
const FLIGHTS_MAX: usize = 65_534;

/// Positions are below this; see `Kept`.
const POSITION_MAX: u64 = u64::MAX / 4;

/// Records are written from this size on, bytes: a session is never divided.
const BATCH_BYTES: usize = 256 * 1024;

/// Why something cannot be put into a store.
#[derive(Debug, thiserror::Error)]
pub enum FillError {
    /// It cannot have been kept by a broker.
    #[error("{0}")]
    Unfit(String),
    /// The disk does not take it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl StoreOptions {
    /// Everything that is kept; nothing is changed.
    ///
    /// # Errors
    /// As at a server's start.
    pub fn contents(&self) -> Result<Kept, OpenError> {
        Ok(self.open(1)?.into_log().1)
    }

    /// Begins to put something into a store that holds nothing.
    ///
    /// # Errors
    /// As at a server's start, and [`OpenError::NotEmpty`].
    pub fn fill(&self) -> Result<Filling, OpenError> {
        let (log, kept) = self.open(1)?.into_log();
        if log.sealed().len() > 0 || !kept.is_empty() {
            return Err(OpenError::NotEmpty {
                folder: self.folder.clone(),
            });
        }
        Ok(Filling {
            log,
            scribe: Scribe::default(),
            seq: 0,
            known: BTreeSet::new(),
        })
    }
}

/// A store that is being filled; what was not [finished](Filling::finish) may be missing in it.
pub struct Filling {
    log: Log<Folder>,
    scribe: Scribe,
    seq: u64,
    /// Tenant, realm, name and client id of each session.
    known: BTreeSet<(u32, String, String, String)>,
}

impl Filling {
    /// Puts a session in.
    ///
    /// # Errors
    /// [`FillError::Unfit`] where no broker can have such a session, or it is there already.
    pub fn session(&mut self, session: &StoredSession) -> Result<(), FillError> {
        check_session(session).map_err(FillError::Unfit)?;
        let key = (
            session.tenant,
            session.realm.clone(),
            session.name.clone(),
            session.client_id.clone(),
        );
        if !self.known.insert(key) {
            let words = format!(
                "a second session {:?} of {:?}",
                session.client_id, session.name
            );
            return Err(FillError::Unfit(words));
        }
        self.scribe.session(session);
        self.write(BATCH_BYTES)
    }

    /// Puts a retained message in.
    ///
    /// # Errors
    /// [`FillError::Unfit`] where no broker can have it.
    pub fn retained(&mut self, message: &StoredMessage) -> Result<(), FillError> {
        check_message(message).map_err(FillError::Unfit)?;
        if message.payload.is_empty() {
            // [MQTT-3.3.1-6] It would have removed what was retained before.
            let words = format!("{:?}: a retained message has a payload", message.topic);
            return Err(FillError::Unfit(words));
        }
        self.scribe.retained(message);
        self.write(BATCH_BYTES)
    }

    /// Returns when all of it is safe.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn finish(mut self) -> Result<(), FillError> {
        self.write(1)
    }

    fn write(&mut self, bytes_min: usize) -> Result<(), FillError> {
        if self.scribe.bytes() < bytes_min {
            return Ok(());
        }
        self.seq += 1;
        let records = self.scribe.take();
        let part = Part {
            shard: 0,
            seq: self.seq,
            bytes: &records,
        };
        self.log.commit([part], &mut Vec::new())?;
        Ok(())
    }
}

fn check_session(session: &StoredSession) -> Result<(), String> {
    let texts = [&session.realm, &session.name, &session.client_id];
    if texts
        .into_iter()
        .chain(&session.roles)
        .any(|one| one.len() > TEXT_BYTES_MAX)
    {
        return Err("a name, role or client id is longer than 65,535 bytes".into());
    }
    for subscription in &session.subscriptions {
        let filter = &subscription.filter;
        if filter.len() > TEXT_BYTES_MAX {
            return Err("a filter is longer than 65,535 bytes".into());
        }
        let inner = match share(filter) {
            Some(parts) => parts.filter,
            None => filter,
        };
        if filter_fault(filter).is_some() || filter_fault(inner).is_some() {
            return Err(format!("{filter:?} is no topic filter"));
        }
        if subscription.id > ID_MAX {
            return Err(format!(
                "{filter:?}: a subscription identifier is below 268,435,456"
            ));
        }
    }
    if session.incoming.contains(&0) {
        return Err("a packet identifier is 1 to 65,535".into());
    }
    if session.first > POSITION_MAX || session.flights.len() > FLIGHTS_MAX {
        return Err("there are more exchanges than packet identifiers".into());
    }
    if let Some(will) = &session.will {
        check_message(&will.message)?;
    }
    session.flights.iter().try_for_each(check_flight)?;
    session.waiting.iter().try_for_each(check_entry)
}

fn check_flight(flight: &StoredFlight) -> Result<(), String> {
    let qos = flight.entry.as_ref().map(|entry| entry.qos);
    let fits = match flight.awaits {
        Awaited::Puback => qos == Some(QoS::AtLeastOnce),
        Awaited::Pubrec => qos == Some(QoS::ExactlyOnce),
        Awaited::Pubcomp | Awaited::Others => qos.is_none(),
    };
    if !fits {
        return Err("an exchange does not fit the message that it has, or has not".into());
    }
    flight.entry.iter().try_for_each(check_entry)
}

fn check_entry(entry: &StoredEntry) -> Result<(), String> {
    if entry.qos == QoS::AtMostOnce {
        return Err("a message that waits is of QoS 1 or 2".into());
    }
    if entry.ids.iter().any(|id| !(1..=ID_MAX).contains(id)) {
        return Err("a subscription identifier is 1 to 268,435,455".into());
    }
    if let Some((name, filter)) = &entry.share {
        let long = name.len() > TEXT_BYTES_MAX || filter.len() > TEXT_BYTES_MAX;
        if long || filter_fault(filter).is_some() {
            return Err(format!("{filter:?} is no topic filter of a share"));
        }
    }
    check_message(&entry.message)
}

/// Reads topic and properties as a broker would have, so that nothing is kept which it would not.
fn check_message(message: &StoredMessage) -> Result<(), String> {
    let topic = &message.topic;
    if topic.len() > TEXT_BYTES_MAX || topic_fault(topic).is_some() {
        return Err(format!("{topic:?} is no topic"));
    }
    let unread = || format!("{topic:?}: its properties do not read");
    let mut body = (topic.len() as u16).to_be_bytes().to_vec();
    body.extend_from_slice(topic.as_bytes());
    let mut left = u32::try_from(message.properties.len()).map_err(|_| unread())?;
    loop {
        let byte = (left & 0x7F) as u8;
        left >>= 7;
        body.push(byte | if left > 0 { 0x80 } else { 0 });
        if left == 0 {
            break;
        }
    }
    body.extend_from_slice(&message.properties);
    let frame = Frame {
        first: PUBLISH,
        header_bytes: 2,
        body_bytes: body.len(),
    };
    let Ok(Packet::Publish(read)) = decode(Version::V5, Sender::Client, frame, &body) else {
        return Err(unread());
    };
    let mut written = Vec::with_capacity(message.properties.len());
    forwardable(&read.properties, &mut written);
    if written != message.properties {
        return Err(unread());
    }
    Ok(())
}

/// First byte of a PUBLISH of QoS 0.
const PUBLISH: u8 = 0x30;
