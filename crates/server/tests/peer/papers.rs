//! Certificates for tests, made when they run.

use std::sync::Arc;

use aws_lc_rs::digest;
use casemate_server::{Account, ClientCertificates, TlsOptions, TlsVersions};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// An authority that signs servers and clients.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
    pub der: CertificateDer<'static>,
}

/// A certificate with its key.
pub struct Paper {
    pub pem: String,
    pub key_pem: String,
    pub der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    pub fn new(name: &str) -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    pub fn server(&self) -> Paper {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub fn client(&self, name: &str) -> Paper {
        self.sign(vec![name.to_owned()], ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn sign(&self, names: Vec<String>, usage: ExtendedKeyUsagePurpose) -> Paper {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.clone()).unwrap();
        params
            .distinguished_name
            .push(DnType::CommonName, names[0].as_str());
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Paper {
            pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            der: certificate.der().clone(),
            key_der: key.serialize_der(),
        }
    }

    /// What a client trusts and, perhaps, shows.
    pub fn trusted_by(&self, paper: Option<&Paper>) -> Arc<ClientConfig> {
        self.trusted_in(&[&TLS13, &TLS12], paper)
    }

    /// The same, speaking nothing but these versions.
    pub fn trusted_in(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        paper: Option<&Paper>,
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.der.clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match paper {
            None => builder.with_no_client_auth(),
            Some(paper) => {
                let key = PrivatePkcs8KeyDer::from(paper.key_der.clone());
                let chain = vec![paper.der.clone()];
                builder
                    .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
                    .unwrap()
            }
        };
        Arc::new(config)
    }

    pub fn tls_options(&self, client_certificates: ClientCertificates) -> TlsOptions {
        let paper = self.server();
        TlsOptions {
            certificate_pem: paper.pem.into_bytes(),
            key_pem: paper.key_pem.into_bytes(),
            client_ca_pem: Some(self.pem.clone().into_bytes()),
            client_certificates,
            versions: TlsVersions::Tls12And13,
        }
    }
}

impl Paper {
    pub fn account(&self, name: &str, not_after_unix_s: i64) -> Account {
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &self.der).as_ref());
        let roles = vec![super::ROLE.to_owned()];
        Account {
            fingerprint,
            name: name.into(),
            roles,
            not_after_unix_s,
        }
    }
}

/// An hour from now, seconds since 1970.
pub fn in_an_hour() -> i64 {
    now_unix_s() + 3600
}

pub fn now_unix_s() -> i64 {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    i64::try_from(now.as_secs()).unwrap()
}
