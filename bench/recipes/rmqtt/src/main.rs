//! The broker rmqtt as its README starts it: one TCP listener on loopback, everybody allowed.

use std::net::Ipv4Addr;
use std::num::NonZeroU16;

use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rmqtt::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let address = (Ipv4Addr::LOCALHOST, port.unwrap_or(1883)).into();
    let listener = Builder::new()
        .name("tcp")
        .laddr(address)
        // By default it drops what is over 1,000 messages, and ends a client with 17 in flight.
        .max_mqueue_len(100_000)
        .max_inflight(NonZeroU16::MIN.saturating_add(99))
        .bind()?
        .tcp()?;
    let context = ServerContext::new().build().await;
    MqttServer::new(context).listener(listener).build().run().await
}
