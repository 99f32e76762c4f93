//! TLS for listeners: certificate, key, and who signs the clients' certificates. Time comes from the product's clock,
//! whose floor keeps the clients' certificates valid on a box that wakes up in 1970.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;

use crate::base::Clock;

/// `[http.tls]` and `[grpc.tls]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// PEM file with the server's certificate chain.
    pub certificate: PathBuf,
    /// PEM file with its private key.
    pub key: PathBuf,
    /// PEM file with the authorities that sign clients' certificates. Without it none is asked for.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// With `client_ca`: refuse clients without a certificate. Otherwise they may still use a key.
    #[serde(default = "yes")]
    pub require_client_certificate: bool,
}

fn yes() -> bool {
    true
}

/// Why a listener has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A PEM file cannot be read.
    #[error("failed to read {what} from {}", path.display())]
    Pem {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: rustls_pki_types::pem::Error,
    },
    /// A PEM file holds none.
    #[error("failed to find {what} in {}", path.display())]
    Empty {
        /// What it should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// Certificate, key and authorities do not make a TLS server.
    #[error("failed to set up TLS with {}", certificate.display())]
    Server {
        /// The certificate's file.
        certificate: PathBuf,
        /// What rustls said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

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

/// Reads the files. `protocols` is what clients may agree on inside (ALPN); empty, they are not asked.
pub(super) fn acceptor(config: &Config, protocols: &[&[u8]], clock: &Arc<dyn Clock>) -> Result<TlsAcceptor, Error> {
    let Config { certificate, key, client_ca, require_client_certificate } = config;
    let tls =
        |source: Box<dyn std::error::Error + Send + Sync>| Error::Server { certificate: certificate.clone(), source };
    let chain = certificates("a certificate", certificate)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(|source| Error::Pem {
        what: "a private key",
        path: key.clone(),
        source,
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_details(provider.clone(), Arc::new(ClockTime(Arc::clone(clock))))
        .with_safe_default_protocol_versions()
        .map_err(|error| tls(error.into()))?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates("an authority's certificate", path)? {
                roots.add(authority).map_err(|error| tls(error.into()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = if *require_client_certificate { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build().map_err(|error| tls(error.into()))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| tls(error.into()))?;
    // A quarter of rustls' default: thousands of quiet sensors reconnect rarely.
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(64);
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The leaf of the certificate that a client has shown, verified.
pub(super) fn client_certificate<S>(stream: &tokio_rustls::server::TlsStream<S>) -> Option<Arc<[u8]>> {
    Some(Arc::from(stream.get_ref().1.peer_certificates()?.first()?.as_ref()))
}
