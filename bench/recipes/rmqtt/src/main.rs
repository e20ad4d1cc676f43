//! The broker rmqtt as its README starts it: one TCP listener on loopback, everybody allowed.

use std::net::Ipv4Addr;

use rmqtt::context::ServerContext;
use rmqtt::net::Builder;
use rmqtt::server::MqttServer;
use rmqtt::Result;

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).and_then(|port| port.parse().ok());
    let address = (Ipv4Addr::LOCALHOST, port.unwrap_or(1883)).into();
    let listener = Builder::new().name("tcp").laddr(address).bind()?.tcp()?;
    let context = ServerContext::new().build().await;
    MqttServer::new(context).listener(listener).build().run().await
}
