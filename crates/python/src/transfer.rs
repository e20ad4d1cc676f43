//! What is kept as dictionaries of Python, out of a store and into one.

use std::sync::{Mutex, PoisonError};

use casemate_engine::{
    Awaited, StoredEntry, StoredFlight, StoredMessage, StoredSession, StoredSubscription,
    StoredWill,
};
use casemate_server::{FillError, Filling, StoreOptions};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::encoder::read_qos;
use crate::store::{refused, refused_by_store};

/// A message.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Message {
    topic: String,
    payload: Vec<u8>,
    properties: Vec<u8>,
    qos: u8,
    retain: bool,
    expires_unix_ms: Option<u64>,
}

/// A message for one session.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Entry {
    message: Message,
    qos: u8,
    retain: bool,
    subscription_ids: Vec<u32>,
    share: Option<(String, String)>,
}

/// An exchange that has begun.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Exchange {
    awaits: String,
    entry: Option<Entry>,
}

/// A will.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Will {
    message: Message,
    delay_s: u32,
    expiry_s: Option<u32>,
    due_unix_ms: Option<u64>,
}

/// A subscription.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Subscription {
    filter: String,
    qos: u8,
    no_local: bool,
    retain_as_published: bool,
    id: u32,
}

/// A session with everything in it.
#[derive(FromPyObject, IntoPyObject)]
#[pyo3(from_item_all)]
struct Session {
    tenant: u32,
    realm: String,
    name: String,
    client_id: String,
    bound: bool,
    roles: Vec<String>,
    expiry_s: u32,
    ends_unix_ms: Option<u64>,
    will: Option<Will>,
    subscriptions: Vec<Subscription>,
    incoming: Vec<u16>,
    first_exchange: u64,
    exchanges: Vec<Exchange>,
    waiting: Vec<Entry>,
}

/// Gives every session and every retained message (tenant, message) to a function each, in order;
/// what these raise ends it.
pub(crate) fn export(
    py: Python<'_>,
    options: &StoreOptions,
    take_session: &Bound<'_, PyAny>,
    take_retained: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let kept = py.detach(|| options.contents());
    let kept = kept.map_err(|fault| refused(&fault, options))?;
    for session in kept.sessions() {
        take_session.call1((Session::from(session),))?;
    }
    for message in kept.retained() {
        take_retained.call1((message.tenant, Message::from(message)))?;
    }
    Ok(())
}

/// A store that is being filled; what was not finished may be missing in it.
#[pyclass(frozen, module = "casemate._engine")]
pub struct StoreFilling {
    options: StoreOptions,
    /// None when it is finished.
    inner: Mutex<Option<Filling>>,
}

#[pymethods]
impl StoreFilling {
    /// Puts a session in; raises `ValueError` where no broker can have it.
    #[pyo3(signature = (session))]
    fn session(&self, py: Python<'_>, session: Session) -> PyResult<()> {
        let session = session.read()?;
        self.put(py, |filling| filling.session(&session))
    }

    /// Puts a retained message in; raises `ValueError` where no broker can have it.
    #[pyo3(signature = (tenant, message))]
    fn retained(&self, py: Python<'_>, tenant: u32, message: Message) -> PyResult<()> {
        let message = message.read(tenant)?;
        self.put(py, |filling| filling.retained(&message))
    }

    /// Returns when all of it is safe; raises `StoreRefused`.
    #[pyo3(signature = ())]
    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        let taken = self
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let filling = taken.ok_or_else(finished)?;
        let outcome = py.detach(|| filling.finish());
        outcome.map_err(|fault| self.unfit(&fault))
    }
}

impl StoreFilling {
    /// Begins; raises `StoreRefused`.
    pub(crate) fn begin(py: Python<'_>, options: &StoreOptions) -> PyResult<StoreFilling> {
        let filling = py.detach(|| options.fill());
        Ok(StoreFilling {
            inner: Mutex::new(Some(filling.map_err(|fault| refused(&fault, options))?)),
            options: options.clone(),
        })
    }

    fn put(
        &self,
        py: Python<'_>,
        what: impl FnOnce(&mut Filling) -> Result<(), FillError> + Send,
    ) -> PyResult<()> {
        let outcome = py.detach(|| {
            let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.as_mut().map(what)
        });
        let outcome = outcome.ok_or_else(finished)?;
        outcome.map_err(|fault| self.unfit(&fault))
    }

    fn unfit(&self, fault: &FillError) -> PyErr {
        match fault {
            FillError::Unfit(words) => PyValueError::new_err(words.clone()),
            FillError::Store(fault) => refused_by_store(fault, &self.options),
        }
    }
}

fn finished() -> PyErr {
    PyValueError::new_err("it is finished already")
}

fn time(at: u64) -> Option<u64> {
    (at > 0).then_some(at)
}

impl From<StoredMessage> for Message {
    fn from(one: StoredMessage) -> Message {
        Message {
            topic: one.topic,
            payload: one.payload,
            properties: one.properties,
            qos: one.qos as u8,
            retain: one.retain,
            expires_unix_ms: time(one.expires_at),
        }
    }
}

impl Message {
    fn read(self, tenant: u32) -> PyResult<StoredMessage> {
        Ok(StoredMessage {
            tenant,
            topic: self.topic,
            properties: self.properties,
            payload: self.payload,
            qos: read_qos(self.qos)?,
            retain: self.retain,
            expires_at: self.expires_unix_ms.unwrap_or(0),
        })
    }
}

impl From<StoredEntry> for Entry {
    fn from(one: StoredEntry) -> Entry {
        Entry {
            message: one.message.into(),
            qos: one.qos as u8,
            retain: one.retain,
            subscription_ids: one.ids,
            share: one.share,
        }
    }
}

impl Entry {
    fn read(self, tenant: u32) -> PyResult<StoredEntry> {
        Ok(StoredEntry {
            message: self.message.read(tenant)?,
            qos: read_qos(self.qos)?,
            retain: self.retain,
            ids: self.subscription_ids,
            share: self.share,
        })
    }
}

/// What an exchange waits for, and how that is written.
const AWAITED: [(&str, Awaited); 4] = [
    ("puback", Awaited::Puback),
    ("pubrec", Awaited::Pubrec),
    ("pubcomp", Awaited::Pubcomp),
    ("others", Awaited::Others),
];

impl From<StoredFlight> for Exchange {
    fn from(one: StoredFlight) -> Exchange {
        let word = AWAITED.iter().find(|(_, awaited)| *awaited == one.awaits);
        Exchange {
            awaits: word.map_or("", |found| found.0).to_owned(),
            entry: one.entry.map(Entry::from),
        }
    }
}

impl Exchange {
    fn read(self, tenant: u32) -> PyResult<StoredFlight> {
        let word = AWAITED.iter().find(|(word, _)| *word == self.awaits);
        let expected = || PyValueError::new_err("awaits is puback, pubrec, pubcomp or others");
        Ok(StoredFlight {
            awaits: word.ok_or_else(expected)?.1,
            entry: self.entry.map(|entry| entry.read(tenant)).transpose()?,
        })
    }
}

impl From<StoredSession> for Session {
    fn from(one: StoredSession) -> Session {
        let will = one.will.map(|will| Will {
            message: will.message.into(),
            delay_s: will.delay_s,
            expiry_s: will.expiry_s,
            due_unix_ms: will.due_at,
        });
        let subscriptions = one.subscriptions.into_iter().map(|found| Subscription {
            filter: found.filter,
            qos: found.qos as u8,
            no_local: found.no_local,
            retain_as_published: found.retain_as_published,
            id: found.id,
        });
        Session {
            tenant: one.tenant,
            realm: one.realm,
            name: one.name,
            client_id: one.client_id,
            bound: one.is_bound,
            roles: one.roles,
            expiry_s: one.expiry_s,
            ends_unix_ms: one.ends_at,
            will,
            subscriptions: subscriptions.collect(),
            incoming: one.incoming,
            first_exchange: one.first,
            exchanges: one.flights.into_iter().map(Exchange::from).collect(),
            waiting: one.waiting.into_iter().map(Entry::from).collect(),
        }
    }
}

impl Session {
    fn read(self) -> PyResult<StoredSession> {
        let tenant = self.tenant;
        let will = |will: Will| {
            Ok::<_, PyErr>(StoredWill {
                message: will.message.read(tenant)?,
                delay_s: will.delay_s,
                expiry_s: will.expiry_s,
                due_at: will.due_unix_ms,
            })
        };
        let subscription = |one: Subscription| {
            Ok(StoredSubscription {
                qos: read_qos(one.qos)?,
                filter: one.filter,
                no_local: one.no_local,
                retain_as_published: one.retain_as_published,
                id: one.id,
            })
        };
        Ok(StoredSession {
            tenant,
            realm: self.realm,
            name: self.name,
            client_id: self.client_id,
            is_bound: self.bound,
            roles: self.roles,
            expiry_s: self.expiry_s,
            ends_at: self.ends_unix_ms,
            will: self.will.map(will).transpose()?,
            subscriptions: self
                .subscriptions
                .into_iter()
                .map(subscription)
                .collect::<PyResult<_>>()?,
            incoming: self.incoming,
            first: self.first_exchange,
            flights: self
                .exchanges
                .into_iter()
                .map(|one| one.read(tenant))
                .collect::<PyResult<_>>()?,
            waiting: self
                .waiting
                .into_iter()
                .map(|one| one.read(tenant))
                .collect::<PyResult<_>>()?,
        })
    }
}
