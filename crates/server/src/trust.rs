//! From PEM to what rustls serves with: certificate, key, client authorities, tickets.

use std::sync::Arc;

use aws_lc_rs::digest;
use rustls::crypto::aws_lc_rs::{default_provider, Ticketer};
use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::StartError;
use crate::options::{ClientCertificates, Listener, Security, TlsOptions, TlsVersions};

/// The name by which MQTT is offered in ALPN; clients need not ask for it.
const ALPN_MQTT: &[u8] = b"mqtt";

/// The same for MQTT over WebSocket, which begins as HTTP.
const ALPN_HTTP: &[u8] = b"http/1.1";

/// Fingerprints of what a listener serves with, so that a change is seen and no key is kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marks {
    /// Of everything that TLS is made of.
    pub material: [u8; 32],
    /// Of what is asked of clients: TLS at all, who vouches for them, whether they must show a
    /// certificate, which pages may send them, and which balancers may speak for them.
    pub trust: [u8; 32],
}

impl Marks {
    /// Takes the marks of a listener.
    pub fn of(listener: &Listener) -> Marks {
        let origins = listener.websocket.iter().flat_map(|it| &it.origins);
        let origins = mark(&origins.map(String::as_bytes).collect::<Vec<_>>());
        let balancers = format!("{:?}", listener.proxy_from);
        let Security::Tls(tls) = &listener.security else {
            return Marks {
                material: [0; 32],
                trust: mark(&[b"plain", &origins, balancers.as_bytes()]),
            };
        };
        let mode = [match tls.client_certificates {
            ClientCertificates::None => 0,
            ClientCertificates::Optional => 1,
            ClientCertificates::Required => 2,
        }];
        let versions = [match tls.versions {
            TlsVersions::Tls13 => 0,
            TlsVersions::Tls12And13 => 1,
        }];
        let authorities = tls.client_ca_pem.as_deref().unwrap_or_default();
        let trusted = mark(&[&mode, authorities]);
        let carried = [u8::from(listener.websocket.is_some())];
        let material = [
            &trusted,
            &versions[..],
            &carried,
            &tls.certificate_pem,
            &tls.key_pem,
        ];
        Marks {
            material: mark(&material),
            trust: mark(&[b"tls", &trusted, &origins, balancers.as_bytes()]),
        }
    }
}

/// SHA-256 over the parts, each with its length, so that no two lists look alike.
fn mark(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut mark = [0; 32];
    mark.copy_from_slice(context.finish().as_ref());
    mark
}

/// Makes one listener's configuration; its tickets are good for this listener only. With
/// `websocket` it carries HTTP, without MQTT.
///
/// # Errors
/// A [`StartError`] that names the listener and what is wrong with its material.
pub(crate) fn server_config(
    listener: &str,
    options: &TlsOptions,
    websocket: bool,
) -> Result<Arc<ServerConfig>, StartError> {
    let provider = Arc::new(default_provider());
    let versions: &[&SupportedProtocolVersion] = match options.versions {
        TlsVersions::Tls13 => &[&TLS13],
        TlsVersions::Tls12And13 => &[&TLS13, &TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|error| tls(listener, &error))?;
    let builder = match verifier(listener, options, &provider)? {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let chain =
        certificates(&options.certificate_pem).map_err(|cause| StartError::Certificate {
            listener: listener.to_owned(),
            cause,
        })?;
    let key = PrivateKeyDer::from_pem_slice(&options.key_pem).map_err(|error| StartError::Key {
        listener: listener.to_owned(),
        cause: pem_cause(&error),
    })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(|error| material(listener, error))?;
    // A client that offers other protocols only is refused by TLS: it wants something else here.
    let protocol = if websocket { ALPN_HTTP } else { ALPN_MQTT };
    config.alpn_protocols = vec![protocol.to_vec()];
    config.ticketer = Ticketer::new().map_err(|error| tls(listener, &error))?;
    // 0-RTT data can be replayed by anybody who saw it.
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

fn verifier(
    listener: &str,
    options: &TlsOptions,
    provider: &Arc<CryptoProvider>,
) -> Result<Option<Arc<dyn ClientCertVerifier>>, StartError> {
    let refuse = |cause: String| StartError::ClientCa {
        listener: listener.to_owned(),
        cause,
    };
    if options.client_certificates == ClientCertificates::None {
        return Ok(None);
    }
    let pem = options.client_ca_pem.as_deref().ok_or_else(|| {
        refuse("client certificates are asked for, but nobody vouches for them".into())
    })?;
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem).map_err(refuse)? {
        roots
            .add(authority)
            .map_err(|error| refuse(error.to_string()))?;
    }
    let builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let builder = match options.client_certificates {
        ClientCertificates::Optional => builder.allow_unauthenticated(),
        _ => builder,
    };
    builder
        .build()
        .map(Some)
        .map_err(|error| refuse(error.to_string()))
}

/// Reads all certificates of a PEM text; none at all is a fault.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| pem_cause(&error))?;
    if chain.is_empty() {
        return Err("there is no certificate in it".into());
    }
    Ok(chain)
}

fn pem_cause(error: &rustls_pki_types::pem::Error) -> String {
    match error {
        rustls_pki_types::pem::Error::NoItemsFound => "nothing of that kind is in it".into(),
        error => format!("not valid PEM: {error}"),
    }
}

fn material(listener: &str, error: rustls::Error) -> StartError {
    let listener = listener.to_owned();
    match error {
        rustls::Error::InconsistentKeys(_) => StartError::KeyMismatch { listener },
        rustls::Error::InvalidCertificate(cause) => StartError::Certificate {
            listener,
            cause: cause.to_string(),
        },
        error => StartError::Key {
            listener,
            cause: error.to_string(),
        },
    }
}

fn tls(listener: &str, error: &rustls::Error) -> StartError {
    StartError::Tls {
        listener: listener.to_owned(),
        cause: error.to_string(),
    }
}
