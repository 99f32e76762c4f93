//! Certificates to a rustls client. The provider is ring; time comes from the product's clock, whose floor keeps
//! certificates valid on a box that wakes up in 1970.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

use crate::base::Clock;

use super::config::{Error, TlsConfig};

const CA_HINT: &str = "copy the PEM certificate of the authority that signed the broker's certificate there";
const CERTIFICATE_HINT: &str = "copy this gateway's PEM certificate there, or remove the setting";
const KEY_HINT: &str = "copy the PEM key of the certificate there, readable for this service only";

/// Reads the files and builds the client side of TLS.
pub fn load(config: &TlsConfig, clock: &Arc<dyn Clock>) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(read_roots(&config.ca_file)?);
    let unusable = |problem: String| Error::Content {
        setting: "tls.ca_file",
        path: config.ca_file.clone(),
        problem,
        hint: CA_HINT,
    };
    let builder = ClientConfig::builder_with_details(provider.clone(), Arc::new(ClockTime(clock.clone())))
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(error.to_string()))?;
    let builder = match &config.server_name {
        None => builder.with_root_certificates(roots),
        Some(name) => {
            let name = ServerName::try_from(name.clone()).map_err(|_| Error::Setting {
                setting: "tls.server_name",
                problem: format!("{name:?} is neither a host name nor an address"),
            })?;
            let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| unusable(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(NamedServer { inner, name }))
        }
    };
    let client = match (&config.certificate_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            let chain = read_certificates("tls.certificate_file", certificate, CERTIFICATE_HINT)?;
            builder.with_client_auth_cert(chain, read_key(key)?).map_err(|error| Error::Content {
                setting: "tls.certificate_file",
                path: certificate.clone(),
                problem: error.to_string(),
                hint: "the certificate must be the one that tls.key_file belongs to",
            })?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Arc::new(client))
}

fn read(setting: &'static str, path: &Path, hint: &'static str) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::File { setting, path: path.to_owned(), hint, source })
}

fn read_certificates(
    setting: &'static str,
    path: &Path,
    hint: &'static str,
) -> Result<Vec<CertificateDer<'static>>, Error> {
    let fail = |problem: String| Error::Content { setting, path: path.to_owned(), problem, hint };
    let pem = read(setting, path, hint)?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| fail(format!("it is not PEM ({error})")))?;
    if certificates.is_empty() { Err(fail("it holds no PEM certificate".to_owned())) } else { Ok(certificates) }
}

fn read_roots(path: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    // A system's bundle may hold one that rustls cannot parse; the others still count.
    let (taken, _) = roots.add_parsable_certificates(read_certificates("tls.ca_file", path, CA_HINT)?);
    if taken == 0 {
        let problem = "it holds no certificate that can be parsed".to_owned();
        return Err(Error::Content { setting: "tls.ca_file", path: path.to_owned(), problem, hint: CA_HINT });
    }
    Ok(roots)
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read("tls.key_file", path, KEY_HINT)?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| Error::Content {
        setting: "tls.key_file",
        path: path.to_owned(),
        problem: format!("it holds no PEM key without a passphrase ({error})"),
        hint: KEY_HINT,
    })
}

#[derive(Debug)]
struct ClockTime(Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ms = u64::try_from(self.0.wall_ms()).ok()?;
        Some(UnixTime::since_unix_epoch(Duration::from_millis(wall_ms)))
    }
}

/// Everything that the standard verifier asks for, but of another name than the one that was dialled.
#[derive(Debug)]
struct NamedServer {
    inner: Arc<WebPkiServerVerifier>,
    name: ServerName<'static>,
}

impl ServerCertVerifier for NamedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _dialled: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;

    #[test]
    fn a_missing_or_empty_authority_file_is_named_with_what_to_do() {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(1_700_000_000_000));
        let mut config = TlsConfig { ca_file: "/nowhere/ca.pem".into(), ..TlsConfig::default() };
        let error = load(&config, &clock).unwrap_err().to_string();
        assert!(error.starts_with("failed to read tls.ca_file /nowhere/ca.pem: "), "{error}");
        assert!(error.ends_with(CA_HINT), "{error}");
        let empty = tempfile::NamedTempFile::new().unwrap();
        config.ca_file = empty.path().to_owned();
        let error = load(&config, &clock).unwrap_err().to_string();
        assert!(error.contains("it holds no PEM certificate"), "{error}");
    }
}
