//! rumqttc's client of MQTT 3.1.1.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, EventLoop, Incoming, LastWill,
    MqttOptions, Outgoing, QoS, SubscribeFilter, SubscribeReasonCode,
};
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
        let retain = step["retain"].as_bool().unwrap_or_default();
        let payload = line::bytes(step, "payload");
        let topic = line::text(step, "topic");
        if let Err(error) = self.client.publish(topic, qos(step), retain, payload).await {
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
    options
        .set_transport(line::transport(way))
        .set_keep_alive(Duration::from_secs(30))
        .set_clean_session(step["clean"].as_bool().unwrap_or(true))
        .set_max_packet_size(
            line::PACKET_BYTES_MAX as usize,
            line::PACKET_BYTES_MAX as usize,
        );
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
        ));
    }
    options
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
            Event::Incoming(Incoming::ConnAck(connack)) if opening => {
                present = connack.session_present;
                let wanted = subscriptions(&opened);
                if wanted.is_empty() {
                    opening = false;
                    line::answer(&opened["id"], json!({ "present": present, "granted": [] }));
                } else {
                    let _ = client.subscribe_many(wanted).await;
                }
            }
            Event::Incoming(Incoming::SubAck(suback)) => {
                opening = false;
                let granted: Vec<u8> = suback.return_codes.iter().map(granted).collect();
                line::answer(
                    &opened["id"],
                    json!({ "present": present, "granted": granted }),
                );
            }
            Event::Incoming(Incoming::Publish(publish)) => line::write(&json!({
                "as": name,
                "message": {
                    "topic": publish.topic,
                    "payload": line::hexadecimal(&publish.payload),
                    "qos": publish.qos as u8,
                    "retain": publish.retain,
                },
            })),
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
            Event::Incoming(Incoming::PubAck(ack)) => settle(&mut unacknowledged, ack.pkid),
            Event::Incoming(Incoming::PubComp(ack)) => settle(&mut unacknowledged, ack.pkid),
            Event::Outgoing(Outgoing::Disconnect) => return,
            _ => {}
        }
    }
}

fn settle(unacknowledged: &mut HashMap<u16, Value>, number: u16) {
    if let Some(id) = unacknowledged.remove(&number) {
        line::answer(&id, json!({}));
    }
}

fn end(opened: &Value, opening: bool, error: &ConnectionError) {
    match error {
        ConnectionError::ConnectionRefused(code) if opening => {
            line::answer(&opened["id"], json!({ "refused": refusal(*code) }));
        }
        _ if opening => line::fault(&opened["id"], &error.to_string()),
        _ => line::write(&json!({ "as": opened["as"], "lost": error.to_string() })),
    }
}

fn refusal(code: ConnectReturnCode) -> Value {
    match code {
        ConnectReturnCode::BadUserNamePassword => json!(4),
        ConnectReturnCode::NotAuthorized => json!(5),
        other => json!(format!("{other:?}")),
    }
}

fn subscriptions(step: &Value) -> Vec<SubscribeFilter> {
    let wanted = step["subscriptions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    wanted
        .iter()
        .map(|one| SubscribeFilter::new(line::text(one, "filter"), qos(one)))
        .collect()
}

fn granted(code: &SubscribeReasonCode) -> u8 {
    match code {
        SubscribeReasonCode::Success(qos) => *qos as u8,
        SubscribeReasonCode::Failure => 0x80,
    }
}

fn qos(of: &Value) -> QoS {
    match of["qos"].as_u64() {
        Some(1) => QoS::AtLeastOnce,
        Some(2) => QoS::ExactlyOnce,
        _ => QoS::AtMostOnce,
    }
}
