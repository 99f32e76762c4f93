//! The wall between answers: nothing is found from another partition.

use sha2::{Digest as _, Sha256};

use super::config::Scope;

/// Who asks what of whom. Requests that differ in any of it never share an answer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Partition<'a> {
    /// The caller's tenant.
    pub tenant: &'a str,
    /// The caller's name: its identity or the id of its key. Left out of the wall by [`Scope::Tenant`].
    pub key: &'a str,
    /// The route.
    pub route: &'a str,
    /// The model as it was asked for.
    pub model: &'a str,
    /// The dialect that the answer is written in.
    pub dialect: &'a str,
    /// What is asked for: a chat, an embedding.
    pub operation: &'a str,
    /// What else must be the same. For answers by meaning this must hold *everything that is not the text which is
    /// compared*: the system prompt, the turns before it, the tools, the form of the answer, whether it is a stream.
    pub more: &'a [&'a [u8]],
}

impl Partition<'_> {
    /// Collisions apart, two partitions have one digest only if they are the same under `scope`.
    pub(super) fn digest(&self, scope: Scope) -> [u8; 32] {
        let mut hasher = Sha256::new();
        let key = self.key_within(scope);
        let texts = [self.tenant, key, self.route, self.model, self.dialect, self.operation];
        hasher.update([matches!(scope, Scope::Key).into()]);
        for part in texts.iter().map(|text| text.as_bytes()).chain(self.more.iter().copied()) {
            // With lengths, or two parts could be split elsewhere and be the same.
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        hasher.finalize().into()
    }

    fn key_within(&self, scope: Scope) -> &str {
        match scope {
            Scope::Key => self.key,
            Scope::Tenant => "",
        }
    }

    pub(super) fn place(&self, scope: Scope) -> Place {
        Place {
            tenant: self.tenant.into(),
            key: self.key_within(scope).into(),
            route: self.route.into(),
            model: self.model.into(),
        }
    }
}

/// What of a partition is kept in words, so that answers can be taken away by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) tenant: Box<str>,
    /// Empty where the whole tenant shares.
    pub(super) key: Box<str>,
    pub(super) route: Box<str>,
    pub(super) model: Box<str>,
}

impl Place {
    pub(super) fn bytes(&self) -> usize {
        self.tenant.len() + self.key.len() + self.route.len() + self.model.len()
    }
}

/// Which answers are to be taken away: those to which all of it applies. Nothing said means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Purge {
    /// Of this tenant.
    pub tenant: Option<String>,
    /// Of this caller alone: not those that its tenant shares.
    pub key: Option<String>,
    /// Of this route.
    pub route: Option<String>,
    /// Of this model, as it was asked for.
    pub model: Option<String>,
    /// Kept longer ago than this, in seconds.
    pub older_than_s: Option<u64>,
}

impl Purge {
    pub(super) fn wants(&self, place: &Place, age_ms: u64) -> bool {
        let is = |wanted: &Option<String>, own: &str| wanted.as_deref().is_none_or(|wanted| wanted == own);
        is(&self.tenant, &place.tenant)
            && is(&self.key, &place.key)
            && is(&self.route, &place.route)
            && is(&self.model, &place.model)
            && self.older_than_s.is_none_or(|age_s| age_ms / 1000 >= age_s)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_partition_is_a_wall() {
        let one = Partition {
            tenant: "a",
            key: "k",
            route: "r",
            model: "m",
            dialect: "openai",
            operation: "chat",
            more: &[b"system"],
        };
        let others = [
            Partition { tenant: "b", ..one },
            Partition { key: "l", ..one },
            Partition { route: "s", ..one },
            Partition { model: "n", ..one },
            Partition { dialect: "anthropic", ..one },
            Partition { operation: "embed", ..one },
            Partition { more: &[b"other"], ..one },
            Partition { more: &[b"sys", b"tem"], ..one },
            Partition { more: &[], ..one },
            Partition { tenant: "ak", key: "", ..one },
        ];
        for other in &others {
            assert_ne!(one.digest(Scope::Key), other.digest(Scope::Key), "{other:?}");
        }
    }

    #[test]
    fn a_tenant_shares_among_its_keys_and_never_with_another() {
        let one = Partition { tenant: "a", key: "k", ..Partition::default() };
        let colleague = Partition { tenant: "a", key: "l", ..Partition::default() };
        let stranger = Partition { tenant: "b", key: "k", ..Partition::default() };
        assert_eq!(one.digest(Scope::Tenant), colleague.digest(Scope::Tenant));
        assert_ne!(one.digest(Scope::Tenant), stranger.digest(Scope::Tenant));
        // Somebody without a name is not the whole tenant.
        let nameless = Partition { tenant: "a", key: "", ..Partition::default() };
        assert_ne!(nameless.digest(Scope::Key), one.digest(Scope::Tenant));
    }

    #[test]
    fn a_purge_takes_what_all_of_it_applies_to() {
        let place =
            Partition { tenant: "a", key: "k", route: "r", model: "m", ..Partition::default() }.place(Scope::Key);
        let purge = |text: &str| serde_json::from_str::<Purge>(text).unwrap().wants(&place, 10_000);
        assert!(purge("{}") && purge(r#"{"tenant":"a","model":"m","key":"k","route":"r","older_than_s":10}"#));
        assert!(!purge(r#"{"tenant":"b"}"#) && !purge(r#"{"model":"x"}"#) && !purge(r#"{"tenant":"a","route":"x"}"#));
        assert!(!purge(r#"{"older_than_s":11}"#) && !purge(r#"{"key":"x"}"#));
        assert!(serde_json::from_str::<Purge>(r#"{"tenants":"a"}"#).is_err(), "a slip must not take everything away");
    }
}
