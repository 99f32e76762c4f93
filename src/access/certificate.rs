//! Names in a client certificate that the TLS layer has already verified.

use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The names by which a certificate can be an identity.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Names {
    /// The common name, if there is exactly one.
    pub(super) common: Option<String>,
    /// DNS and URI alternative names.
    pub(super) alternative: Vec<String>,
}

/// Reads the names of a DER certificate; none if it cannot be read.
pub(super) fn names(der: &[u8]) -> Option<Names> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let mut names = Names::default();
    let mut common = certificate.subject().iter_common_name();
    // Two common names would let an issuer's sloppiness choose the identity.
    if let (Some(one), None) = (common.next(), common.next()) {
        names.common = one.as_str().ok().map(ToOwned::to_owned);
    }
    if let Some(extension) = certificate.subject_alternative_name().ok()? {
        for name in &extension.value.general_names {
            if let GeneralName::DNSName(text) | GeneralName::URI(text) = name {
                names.alternative.push((*text).to_owned());
            }
        }
    }
    Some(names)
}
