//! From PEM to what rustls connects with.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use crate::{LoadError, Tls};

/// What every TLS connection of a run begins with.
pub(crate) struct Trust {
    pub config: Arc<ClientConfig>,
    pub server_name: ServerName<'static>,
}

impl Trust {
    /// Reads certificates and key.
    ///
    /// # Errors
    /// [`LoadError::Trust`] says what is wrong with them.
    pub fn new(tls: &Tls) -> Result<Trust, LoadError> {
        let mut roots = RootCertStore::empty();
        // Stores of whole systems hold a certificate here and there that nobody can use.
        let (usable, _) = roots.add_parsable_certificates(certificates(&tls.trusted_pem)?);
        if usable == 0 {
            return Err(trust("no certificate authority to trust was found"));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(trust)?
            .with_root_certificates(roots);
        let mut config = match &tls.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => {
                let chain = certificates(&identity.chain_pem)?;
                let key = PrivateKeyDer::from_pem_slice(&identity.key_pem.0)
                    .map_err(|_| trust("the client's private key cannot be read"))?;
                builder.with_client_auth_cert(chain, key).map_err(trust)?
            }
        };
        if !tls.resume {
            config.resumption = Resumption::disabled();
        }
        Ok(Trust {
            config: Arc::new(config),
            server_name: ServerName::try_from(tls.server_name.clone()).map_err(trust)?,
        })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| trust(format!("a certificate cannot be read: {error}")))
}

fn trust(cause: impl ToString) -> LoadError {
    LoadError::Trust(cause.to_string())
}
