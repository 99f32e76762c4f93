//! TLS for listeners: certificate, key, and who signs the clients' certificates. Time comes from the product's clock,
//! whose floor keeps the clients' certificates valid on a box that wakes up in 1970.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio_rustls::TlsAcceptor;

use super::config::Listener;
use super::error::Error;
use crate::base::Clock;

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ms = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(wall_ms)))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = |source| Error::Pem { what, path: path.to_owned(), source };
    let found: Vec<_> = CertificateDer::pem_file_iter(path).map_err(pem)?.collect::<Result<_, _>>().map_err(pem)?;
    if found.is_empty() {
        return Err(Error::Empty { what, path: path.to_owned() });
    }
    Ok(found)
}

/// Reads the files of `listener`.
pub(super) fn acceptor(listener: &Listener, clock: &Arc<dyn Clock>) -> Result<TlsAcceptor, Error> {
    let address = listener.address;
    let missing = |setting| Error::Missing { address, setting };
    let tls = |source: Box<dyn std::error::Error + Send + Sync>| Error::Tls { address, source };
    let chain = certificates("a certificate", listener.certificate.as_deref().ok_or_else(|| missing("certificate"))?)?;
    let path = listener.key.as_deref().ok_or_else(|| missing("key"))?;
    let key = PrivateKeyDer::from_pem_file(path).map_err(|source| Error::Pem {
        what: "a private key",
        path: path.to_owned(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(ClockTime(Arc::clone(clock))))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(error.into()))?;
    let builder = match &listener.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("an authority's certificate", path)? {
                roots.add(authority).map_err(|error| tls(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier =
                if listener.require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| tls(error.into()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| tls(error.into()))?;
    // A quarter of rustls' default: thousands of quiet sensors reconnect rarely.
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
    Ok(TlsAcceptor::from(Arc::new(config)))
}
