//! The client side of TLS: the system's authorities or those of a file, ring, and the product's clock, whose floor keeps
//! certificates valid on a box that wakes up in 1970.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::crypto::ring;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, UnixTime};

use super::error::Error;
use crate::base::{Clock, Name};

/// What all providers share: the system's authorities are read once, when the first one needs them.
pub(super) struct Authorities {
    clock: Arc<dyn Clock>,
    system: OnceLock<Arc<ClientConfig>>,
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorities").field("loaded", &self.system.get().is_some()).finish()
    }
}

impl Authorities {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, system: OnceLock::new() }
    }

    /// A client that believes the authorities of `ca_file`, or the system's.
    pub(super) fn client(&self, provider: &Name, ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
        if let Some(path) = ca_file {
            return build(read_roots(provider, path)?, &self.clock).map_err(|problem| Error::Setting {
                provider: provider.clone(),
                setting: "ca_file",
                problem,
            });
        }
        if let Some(client) = self.system.get() {
            return Ok(client.clone());
        }
        let wrong = |problem| Error::Setting { provider: provider.clone(), setting: "ca_file", problem };
        // Where the system has them, or where SSL_CERT_FILE and SSL_CERT_DIR point.
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(found.certs);
        if taken == 0 {
            return Err(wrong(
                "is missing, and this system has no authorities of its own: install ca-certificates or name a PEM file"
                    .to_owned(),
            ));
        }
        let client = build(roots, &self.clock).map_err(wrong)?;
        Ok(self.system.get_or_init(|| client).clone())
    }
}

fn build(roots: RootCertStore, clock: &Arc<dyn Clock>) -> Result<Arc<ClientConfig>, String> {
    let mut client =
        ClientConfig::builder_with_details(Arc::new(ring::default_provider()), Arc::new(ClockTime(clock.clone())))
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("does not go with TLS 1.2 and 1.3: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
    client.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(client))
}

fn read_roots(provider: &Name, path: &Path) -> Result<RootCertStore, Error> {
    let setting = "ca_file";
    let pem = std::fs::read(path).map_err(|source| Error::File {
        provider: provider.clone(),
        setting,
        path: path.to_owned(),
        source,
    })?;
    let wrong =
        |problem: String| Error::Content { provider: provider.clone(), setting, path: path.to_owned(), problem };
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(format!("it is not PEM ({error})")))?;
    let mut roots = RootCertStore::empty();
    let (taken, _) = roots.add_parsable_certificates(certificates);
    if taken == 0 {
        return Err(wrong("it holds no certificate of an authority that can be parsed".to_owned()));
    }
    Ok(roots)
}

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ms = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(wall_ms)))
    }
}
