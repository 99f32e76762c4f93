//! Keys with enough chance in them that a plain digest protects them.

use std::fmt;

use rand::CryptoRng;
use subtle::{Choice, ConstantTimeEq};

use crate::base::Digest;

/// 192 random bits: far over the 128 that make guessing hopeless.
const KEY_BYTES: usize = 24;

/// A fresh key. Show `text` to its owner once; the configuration keeps `sha256`.
#[derive(Clone)]
pub struct NewKey {
    /// What the client sends, as a bearer token or as the MQTT password: `fb-` and 48 hex digits.
    pub text: String,
    /// What `key_sha256` in the configuration holds.
    pub sha256: Digest,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("sha256", &self.sha256).finish_non_exhaustive()
    }
}

/// Makes a key of 192 random bits.
pub fn new_key(rng: &mut impl CryptoRng) -> NewKey {
    let mut bytes = [0; KEY_BYTES];
    rng.fill_bytes(&mut bytes);
    let text = format!("fb-{}", hex::encode(bytes));
    let sha256 = Digest::of(text.as_bytes());
    NewKey { text, sha256 }
}

/// Compares in a time that does not depend on where the digests differ.
pub(super) fn same(one: &Digest, other: &Digest) -> Choice {
    one.as_bytes().ct_eq(other.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_new_key_is_fresh_and_its_digest_is_that_of_its_text() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(3);
        let (one, other) = (new_key(&mut rng), new_key(&mut rng));
        assert_ne!(one.text, other.text);
        assert_eq!(one.text.len(), 3 + 2 * KEY_BYTES);
        assert!(bool::from(same(&one.sha256, &Digest::of(one.text.as_bytes()))));
        assert!(!bool::from(same(&one.sha256, &other.sha256)));
    }

    #[test]
    fn a_key_does_not_show_itself_in_logs() {
        let key = new_key(&mut rand::rngs::StdRng::seed_from_u64(4));
        assert!(!format!("{key:?}").contains(&key.text));
    }
}
