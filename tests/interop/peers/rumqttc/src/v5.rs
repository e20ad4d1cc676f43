//! rumqttc's client of MQTT 5.0.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::v5::mqttbytes::v5::{
    ConnectProperties, ConnectReturnCode, Filter, LastWill, Packet, PubAckReason, PubRecReason,
    Publish, PublishProperties, SubscribeProperties, SubscribeReasonCode,
};
use rumqttc::v5::mqttbytes::QoS;
use rumqttc::v5::{AsyncClient, ConnectionError, Event, EventLoop, MqttOptions, StateError};
use rumqttc::Outgoing;
use serde_json::{json, Value};
use tokio::task::JoinHandle;

use crate::line;

type Waiting = Arc<Mutex<VecDeque<Value>>>;

/// One client and the task that moves it.
pub struct Client {
    client: AsyncClient,
    waiting: Waiting,
    task: JoinHandle<()>,
}

/// Begins to connect; the task answers when there is an outcome.
pub fn open(step: &Value) -> Client {
    let (client, events) = AsyncClient::new(options(step), 64);
    let waiting = Waiting::default();
    let task = tokio::spawn(run(events, client.clone(), waiting.clone(), step.clone()));
    Client {
        client,
        waiting,
        task,
    }
}

impl Client {
    /// Publishes; the task answers when the message is acknowledged.
    pub async fn publish(&self, step: &Value) {
        self.waiting
            .lock()
            .expect("no panic")
            .push_back(step["id"].clone());
        let sent = self
            .client
            .publish_with_properties(
                line::text(step, "topic"),
                qos(step),
                step["retain"].as_bool().unwrap_or_default(),
                line::bytes(step, "payload"),
                properties(step),
            )
            .await;
        if let Err(error) = sent {
            self.waiting.lock().expect("no panic").pop_back();
            line::fault(&step["id"], &error.to_string());
        }
    }

    /// Says goodbye, and waits until that has been written.
    pub async fn close(self) {
        if self.client.disconnect().await.is_ok() {
            let _ = self.task.await;
        }
    }

    /// Ends the client without a word.
    pub async fn abandon(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn options(step: &Value) -> MqttOptions {
    let way = &step["way"];
    let (host, port) = line::address(way);
    let mut options = MqttOptions::new(line::text(step, "client_id"), host, port);
    let mut asked = ConnectProperties::new();
    asked.session_expiry_interval = line::number(step, "keep_s");
    asked.receive_maximum = line::number(step, "receive_max");
    asked.topic_alias_max = line::number(step, "alias_max");
    // Without a size of its own rumqttc takes 10 KiB, and tells the broker nothing of it.
    let largest = line::number(step, "packet_bytes_max").unwrap_or(line::PACKET_BYTES_MAX);
    asked.max_packet_size = Some(largest);
    options
        .set_transport(line::transport(way))
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_start(step["clean"].as_bool().unwrap_or(true))
        .set_connect_properties(asked);
    if way["username"].is_string() {
        options.set_credentials(line::text(way, "username"), line::text(way, "password"));
    }
    let will = &step["will"];
    if will.is_object() {
        options.set_last_will(LastWill::new(
            line::text(will, "topic"),
            line::bytes(will, "payload"),
            qos(will),
            will["retain"].as_bool().unwrap_or_default(),
            None,
        ));
    }
    options
}

fn properties(step: &Value) -> PublishProperties {
    let pairs = step["user"].as_array().cloned().unwrap_or_default();
    let word = |pair: &Value, at: usize| pair[at].as_str().unwrap_or_default().to_owned();
    PublishProperties {
        message_expiry_interval: line::number(step, "expiry_s"),
        topic_alias: line::number(step, "alias"),
        response_topic: step["response_topic"].as_str().map(str::to_owned),
        correlation_data: step["correlation"]
            .is_string()
            .then(|| line::bytes(step, "correlation").into()),
        user_properties: pairs
            .iter()
            .map(|pair| (word(pair, 0), word(pair, 1)))
            .collect(),
        content_type: step["content_type"].as_str().map(str::to_owned),
        ..PublishProperties::default()
    }
}

async fn run(mut events: EventLoop, client: AsyncClient, waiting: Waiting, opened: Value) {
    let name = line::text(&opened, "as");
    let reconnects = opened["reconnect"].as_bool().unwrap_or_default();
    let mut opening = true;
    let mut present = false;
    let mut unacknowledged: HashMap<u16, Value> = HashMap::new();
    loop {
        let event = match events.poll().await {
            Ok(event) => event,
            Err(_) if reconnects && !opening => continue,
            Err(error) => return end(&opened, opening, &error),
        };
        match event {
            Event::Incoming(Packet::ConnAck(connack)) if opening => {
                present = connack.session_present;
                let (wanted, identifier) = subscriptions(&opened);
                if wanted.is_empty() {
                    opening = false;
                    line::answer(&opened["id"], json!({ "present": present, "granted": [] }));
                } else if let Some(id) = identifier {
                    let with = SubscribeProperties {
                        id: Some(id),
                        user_properties: Vec::new(),
                    };
                    let _ = client.subscribe_many_with_properties(wanted, with).await;
                } else {
                    let _ = client.subscribe_many(wanted).await;
                }
            }
            Event::Incoming(Packet::SubAck(suback)) => {
                opening = false;
                let granted: Vec<u8> = suback.return_codes.iter().map(granted).collect();
                line::answer(
                    &opened["id"],
                    json!({ "present": present, "granted": granted }),
                );
            }
            Event::Incoming(Packet::Publish(publish)) => {
                line::write(&json!({ "as": name, "message": message(&publish) }));
            }
            // What is sent once more has its number already.
            Event::Outgoing(Outgoing::Publish(number)) if !unacknowledged.contains_key(&number) => {
                let id = waiting
                    .lock()
                    .expect("no panic")
                    .pop_front()
                    .unwrap_or_default();
                if number == 0 {
                    line::answer(&id, json!({}));
                } else {
                    unacknowledged.insert(number, id);
                }
            }
            Event::Incoming(packet) => acknowledge(&mut unacknowledged, &packet),
            Event::Outgoing(Outgoing::Disconnect) => return,
            _ => {}
        }
    }
}

fn acknowledge(unacknowledged: &mut HashMap<u16, Value>, packet: &Packet) {
    match packet {
        Packet::PubAck(ack) => {
            let fine = matches!(
                ack.reason,
                PubAckReason::Success | PubAckReason::NoMatchingSubscribers
            );
            settle(
                unacknowledged,
                ack.pkid,
                (!fine).then(|| format!("{:?}", ack.reason)),
            );
        }
        Packet::PubRec(ack) => {
            let fine = matches!(
                ack.reason,
                PubRecReason::Success | PubRecReason::NoMatchingSubscribers
            );
            if !fine {
                settle(unacknowledged, ack.pkid, Some(format!("{:?}", ack.reason)));
            }
        }
        Packet::PubComp(ack) => settle(unacknowledged, ack.pkid, None),
        _ => {}
    }
}

fn message(publish: &Publish) -> Value {
    let with = publish.properties.clone().unwrap_or_default();
    json!({
        "topic": String::from_utf8_lossy(&publish.topic),
        "payload": line::hexadecimal(&publish.payload),
        "qos": publish.qos as u8,
        "retain": publish.retain,
        "user": with.user_properties,
        "response_topic": with.response_topic,
        "correlation": with.correlation_data.map(|bytes| line::hexadecimal(&bytes)),
        "content_type": with.content_type,
        "expiry_s": with.message_expiry_interval,
        "identifiers": with.subscription_identifiers,
    })
}

fn settle(unacknowledged: &mut HashMap<u16, Value>, number: u16, reason: Option<String>) {
    if let Some(id) = unacknowledged.remove(&number) {
        line::answer(&id, json!({ "reason": reason }));
    }
}

fn end(opened: &Value, opening: bool, error: &ConnectionError) {
    let refused = match error {
        ConnectionError::ConnectionRefused(code) => Some(code),
        ConnectionError::MqttState(StateError::ConnFail { reason }) => Some(reason),
        _ => None,
    };
    match refused {
        Some(code) if opening => {
            line::answer(&opened["id"], json!({ "refused": refusal(*code) }));
        }
        _ if opening => line::fault(&opened["id"], &error.to_string()),
        _ => line::write(&json!({ "as": opened["as"], "lost": error.to_string() })),
    }
}

fn refusal(code: ConnectReturnCode) -> Value {
    match code {
        ConnectReturnCode::BadUserNamePassword => json!(0x86),
        ConnectReturnCode::NotAuthorized => json!(0x87),
        other => json!(format!("{other:?}")),
    }
}

fn subscriptions(step: &Value) -> (Vec<Filter>, Option<usize>) {
    let wanted = step["subscriptions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let identifier = wanted
        .first()
        .and_then(|one| line::number(one, "identifier"));
    let filters = wanted
        .iter()
        .map(|one| Filter::new(line::text(one, "filter"), qos(one)));
    (filters.collect(), identifier)
}

fn granted(code: &SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::NotAuthorized => 0x87,
        _ => 0x80,
    }
}

fn qos(of: &Value) -> QoS {
    match of["qos"].as_u64() {
        Some(1) => QoS::AtLeastOnce,
        Some(2) => QoS::ExactlyOnce,
        _ => QoS::AtMostOnce,
    }
}
