//! How what the cloud asks and hears is written: JSON or CBOR. An answer speaks as its question did.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How a message is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Cbor,
}

impl Form {
    /// No CBOR map begins with a brace or a blank.
    pub(super) fn of(payload: &[u8]) -> Self {
        match payload.first() {
            Some(b'{' | b' ' | b'\t' | b'\r' | b'\n') => Self::Json,
            _ => Self::Cbor,
        }
    }

    pub(super) fn read<T: DeserializeOwned>(self, payload: &[u8]) -> Result<T, String> {
        match self {
            Self::Json => serde_json::from_slice(payload).map_err(|error| error.to_string()),
            Self::Cbor => ciborium::from_reader(payload).map_err(|error| error.to_string()),
        }
    }

    pub(super) fn write(self, answer: &impl Serialize) -> Vec<u8> {
        match self {
            Self::Json => serde_json::to_vec(answer).expect("numbers and texts"),
            Self::Cbor => {
                let mut out = Vec::new();
                ciborium::into_writer(answer, &mut out).expect("a vector takes everything");
                out
            }
        }
    }
}
