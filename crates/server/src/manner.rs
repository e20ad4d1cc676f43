//! How the connections of one listener begin: how many, with PROXY header, TLS, WebSocket or not.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ServerConfig;

use crate::error::StartError;
use crate::network::Network;
use crate::options::{Listener, WebSocketOptions};
use crate::transport::{Fault, Plain, Proxy, Tls, Transport, WebSocket};

/// The longest path of a WebSocket, bytes.
const PATH_BYTES_MAX: usize = 256;

/// What a listener's options come to. The default is TCP without anything.
#[derive(Clone, Default)]
pub(crate) struct Manner {
    tls: Option<Arc<ServerConfig>>,
    websocket: Option<Arc<WebSocketOptions>>,
    proxy_from: Arc<[Network]>,
    connections_max: Option<usize>,
}

impl Manner {
    /// What these options come to, with the TLS that was made of them.
    pub fn new(listener: &Listener, tls: Option<Arc<ServerConfig>>) -> Manner {
        Manner {
            tls,
            websocket: listener.websocket.clone().map(Arc::new),
            proxy_from: listener.proxy_from.as_slice().into(),
            connections_max: listener.connections_max,
        }
    }

    /// Connections that there may be at a time.
    pub fn connections_max(&self) -> usize {
        self.connections_max.unwrap_or(usize::MAX)
    }

    /// Its TLS, where it has some.
    pub fn tls(&self) -> Option<Arc<ServerConfig>> {
        self.tls.clone()
    }

    /// What stands between a new connection's socket and MQTT.
    ///
    /// # Errors
    /// [`Fault::Tls`] where the configuration cannot serve a connection.
    pub fn transport(&self, peer: Option<SocketAddr>) -> Result<Transport, Fault> {
        let transport = self.behind_header()?;
        Ok(match self.is_balancer(peer) {
            true => Transport::Proxy(Box::new(Proxy::new(transport))),
            false => transport,
        })
    }

    /// True for a peer who must say for whom it speaks.
    fn is_balancer(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            Some(peer) => {
                let mut networks = self.proxy_from.iter();
                networks.any(|network| network.contains(peer.ip()))
            }
            None => !self.proxy_from.is_empty(),
        }
    }

    fn behind_header(&self) -> Result<Transport, Fault> {
        let link = match &self.tls {
            None => Transport::Plain(Plain::default()),
            Some(config) => {
                let is_http = self.websocket.is_some();
                Transport::Tls(Box::new(Tls::new(Arc::clone(config), is_http)?))
            }
        };
        Ok(match &self.websocket {
            None => link,
            Some(options) => {
                Transport::WebSocket(Box::new(WebSocket::new(link, Arc::clone(options))))
            }
        })
    }
}

/// Refuses options that cannot work, before anything is opened.
///
/// # Errors
/// A [`StartError`] that names the listener.
pub(crate) fn check(listener: &Listener) -> Result<(), StartError> {
    if listener.connections_max == Some(0) {
        return Err(StartError::Option {
            option: "connections_max",
            cause: format!("listener {:?} would let nobody in", listener.name),
        });
    }
    let Some(options) = &listener.websocket else {
        return Ok(());
    };
    check_websocket(options).map_err(|cause| StartError::WebSocket {
        listener: listener.name.clone(),
        cause,
    })
}

/// Refuses options that no client could ever meet, or that mean less than they seem to.
fn check_websocket(options: &WebSocketOptions) -> Result<(), String> {
    let path = &options.path;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !path.starts_with('/') || !path.bytes().all(plain) || path.len() > PATH_BYTES_MAX {
        return Err(format!(
            "path {path:?} is not / and visible ASCII without ? and #"
        ));
    }
    for origin in &options.origins {
        let host = origin.split_once("://").map_or("", |(_, host)| host);
        let spelled = origin.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || host.contains(['/', '*', '?', '#', '@']) || !spelled {
            return Err(format!(
                "origin {origin:?} is not a scheme and a host, such as https://app.example"
            ));
        }
        // Browsers write it in small letters, and it is compared letter by letter.
        if origin.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(format!("origin {origin:?} has capital letters"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_good(path: &str, origins: &[&str]) -> bool {
        check_websocket(&WebSocketOptions {
            path: path.into(),
            origins: origins.iter().map(|&origin| origin.into()).collect(),
        })
        .is_ok()
    }

    #[test]
    fn paths_that_can_be_asked_for_are_good() {
        assert!(is_good("/", &[]) && is_good("/mqtt", &[]) && is_good("/a/b-c%20d", &[]));
        for path in ["", "mqtt", "/a b", "/a?b", "/a#b", "/\r\n", "/ü"] {
            assert!(!is_good(path, &[]), "{path:?}");
        }
        assert!(!is_good(&format!("/{}", "x".repeat(256)), &[]));
    }

    #[test]
    fn origins_that_a_browser_can_write_are_good() {
        assert!(is_good("/", &["https://app.example", "http://[::1]:8080"]));
        for origin in [
            "",
            "*",
            "null",
            "app.example",
            "https://",
            "https://*.example",
            "https://app.example/",
            "https://App.example",
            "https://a b",
        ] {
            assert!(!is_good("/", &[origin]), "{origin:?}");
        }
    }
}
