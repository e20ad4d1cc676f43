//! rumqttc, driven by lines of JSON; the protocol is told in `tests/interop/lines.py`.

mod line;
mod v3;
mod v5;

use std::collections::HashMap;
use std::io::BufRead;

use serde_json::{json, Value};
use tokio::sync::mpsc;

use line::{answer, fault, text};

/// One client, of either version of the protocol.
enum Client {
    V3(v3::Client),
    V5(v5::Client),
}

fn main() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .expect("nobody has chosen another provider");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime on this thread");
    runtime.block_on(serve());
}

async fn serve() {
    let (sender, mut steps) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for read in std::io::stdin().lock().lines() {
            let Ok(one) = read else { return };
            if sender.send(one).is_err() {
                return;
            }
        }
    });
    let mut clients: HashMap<String, Client> = HashMap::new();
    while let Some(one) = steps.recv().await {
        let step: Value = serde_json::from_str(&one).expect("each line is JSON");
        take(&mut clients, &step).await;
    }
}

async fn take(clients: &mut HashMap<String, Client>, step: &Value) {
    let name = text(step, "as");
    let id = step["id"].clone();
    match text(step, "do").as_str() {
        "open" => {
            let client = if text(step, "version") == "5.0" {
                Client::V5(v5::open(step))
            } else {
                Client::V3(v3::open(step))
            };
            clients.insert(name, client);
        }
        "publish" => match clients.get(&name) {
            Some(Client::V3(client)) => client.publish(step).await,
            Some(Client::V5(client)) => client.publish(step).await,
            None => fault(&id, "there is no such client"),
        },
        "close" => {
            match clients.remove(&name) {
                Some(Client::V3(client)) => client.close().await,
                Some(Client::V5(client)) => client.close().await,
                None => {}
            }
            answer(&id, json!({}));
        }
        "drop" => {
            match clients.remove(&name) {
                Some(Client::V3(client)) => client.abandon().await,
                Some(Client::V5(client)) => client.abandon().await,
                None => {}
            }
            answer(&id, json!({}));
        }
        other => fault(&id, &format!("there is no step {other}")),
    }
}
