//! What becomes of a connection whose transport cannot go on.

use casemate_engine::{ConnectionId, Loss};

use super::Worker;
use crate::broker::Oddity;
use crate::connection::Phase;
use crate::event::EventKind;
use crate::transport::{http_on_mqtt, Breach, Fault};

impl Worker {
    /// Ends a connection whose transport cannot go on, after telling the peer what can be told.
    pub(super) fn refuse(&mut self, id: ConnectionId, fault: &Fault) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let (listener, address) = (connection.listener(), connection.address.get());
        let handshake = matches!(connection.phase, Phase::Handshake);
        let (oddity, kind) = match fault {
            Fault::Socket(_) => {
                self.lose(id);
                return;
            }
            Fault::NotTls { mqtt: true } => {
                self.count(|tally| &tally.plain_on_tls);
                (Some(Oddity::PlainOnTls), EventKind::PlainOnTls)
            }
            Fault::TlsOnPlain => {
                self.count(|tally| &tally.tls_on_plain);
                (Some(Oddity::TlsOnPlain), EventKind::TlsOnPlain)
            }
            Fault::Proxy(_) => {
                self.count(|tally| &tally.proxy_refused);
                let cause = fault.to_string().into_boxed_str();
                (Some(Oddity::Proxy), EventKind::ProxyRefused { cause })
            }
            Fault::HttpOnMqtt => {
                self.count(|tally| &tally.http_on_mqtt);
                (Some(Oddity::HttpOnMqtt), EventKind::HttpOnMqtt)
            }
            Fault::EmptyRecords => {
                self.count(|tally| &tally.empty_records);
                (None, EventKind::EmptyRecords)
            }
            Fault::NotTls { mqtt: false }
            | Fault::Tls(_)
            | Fault::TooLarge
            | Fault::Confused
            | Fault::Exhausted => {
                let cause = fault.to_string().into_boxed_str();
                if handshake {
                    self.count(|tally| &tally.handshake_failures);
                }
                (
                    Some(Oddity::Handshake),
                    EventKind::HandshakeFailed { cause },
                )
            }
            Fault::Upgrade(_) | Fault::NotHttp { .. } | Fault::Frame(_) => {
                self.count_websocket(fault)
            }
        };
        if oddity.is_none_or(|oddity| self.broker.is_news(address, oddity)) {
            self.tell(Some(listener), address, kind);
        }
        self.say_closed(id, Loss::Handshake);
        match fault {
            Fault::HttpOnMqtt => self.drain(id, http_on_mqtt(), false),
            Fault::Upgrade(_) | Fault::NotHttp { .. } | Fault::Frame(_) => {
                self.drain(id, Vec::new(), false);
            }
            // TLS has said its alert, and nothing stands on it.
            _ => self.drain(id, Vec::new(), true),
        }
    }

    fn count_websocket(&mut self, fault: &Fault) -> (Option<Oddity>, EventKind) {
        let cause = fault.to_string().into_boxed_str();
        match fault {
            Fault::NotHttp { mqtt: true } => {
                self.count(|tally| &tally.plain_on_websocket);
                (Some(Oddity::PlainOnWebSocket), EventKind::PlainOnWebSocket)
            }
            Fault::Frame(breach) => {
                match breach {
                    Breach::Flood => self.count(|tally| &tally.empty_frames),
                    _ => self.count(|tally| &tally.frames_refused),
                }
                (Some(Oddity::Frame), EventKind::FrameRefused { cause })
            }
            _ => {
                self.count(|tally| &tally.upgrades_refused);
                (Some(Oddity::Upgrade), EventKind::UpgradeRefused { cause })
            }
        }
    }
}
