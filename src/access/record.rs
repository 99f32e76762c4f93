//! A key that was made at run time: what is asked for, what is kept, and what is told of it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

use super::grant::{DEFAULT_TENANT, Grant, MAX_PATTERNS, Role, User};
use super::key::NewKey;
use super::keys::KeysError;
use super::pattern::Pattern;
use crate::base::{Digest, Name};

/// The last day of the year 9999, ms since 1970: times beyond it are slips of a unit.
const LAST_MS: i64 = 253_402_300_799_999;
/// Digits of a key that people may see, to tell keys apart: 16 of its 192 bits.
const HINT_DIGITS: usize = 4;

/// What a new key is to be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyOrder {
    /// What people call it. One a tenant, revoked ones not counted.
    pub name: Name,
    /// Whose it is: `default` unless set. The tenant must be known.
    #[serde(default)]
    pub tenant: Option<Name>,
    /// The team within the tenant.
    #[serde(default)]
    pub team: Option<Name>,
    /// The person.
    #[serde(default)]
    pub user: Option<User>,
    /// `app` unless set.
    #[serde(default)]
    pub role: Role,
    /// Models that it may ask: all unless set.
    #[serde(default)]
    pub models: Option<Vec<Pattern>>,
    /// Routes that it may take: all unless set.
    #[serde(default)]
    pub routes: Option<Vec<Pattern>>,
    /// From when it is good, ms since 1970: at once unless set.
    #[serde(default)]
    pub not_before_ms: Option<i64>,
    /// Until when it is good, ms since 1970: for ever unless set.
    #[serde(default)]
    pub expires_ms: Option<i64>,
}

/// What is to be different about a key. What is left out stays; `null` takes away what can be away.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyChange {
    /// The role.
    pub role: Option<Role>,
    /// Models that it may ask.
    pub models: Option<Vec<Pattern>>,
    /// Routes that it may take.
    pub routes: Option<Vec<Pattern>>,
    /// The team within the tenant.
    #[serde(deserialize_with = "present")]
    pub team: Option<Option<Name>>,
    /// The person.
    #[serde(deserialize_with = "present")]
    pub user: Option<Option<User>>,
    /// From when it is good, ms since 1970.
    #[serde(deserialize_with = "present")]
    pub not_before_ms: Option<Option<i64>>,
    /// Until when it is good, ms since 1970.
    #[serde(deserialize_with = "present")]
    pub expires_ms: Option<Option<i64>>,
}

/// Tells `null` from a member that is not there.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Whether a key opens now, and if not why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It opens.
    Active,
    /// Its time has not come.
    NotYet,
    /// Its time is over.
    Expired,
    /// An operator took it back.
    Revoked,
    /// An operator has shut its tenant out.
    Suspended,
}

/// What is told of a key: everything but the key and its digest. Times in ms since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyInfo {
    /// By which it is changed, revoked, limited and recorded. Not a secret.
    pub id: String,
    /// What people call it.
    pub name: Name,
    /// Its last four digits, to tell it from another.
    pub ends_with: String,
    /// Whether it opens now.
    pub state: KeyState,
    /// Whose it is.
    pub tenant: Name,
    /// The team within the tenant.
    pub team: Option<Name>,
    /// The person.
    pub user: Option<User>,
    /// What its holder is to this box.
    pub role: Role,
    /// Models that it may ask.
    pub models: Vec<Pattern>,
    /// Routes that it may take.
    pub routes: Vec<Pattern>,
    /// When it was made.
    pub created_ms: i64,
    /// From when it is good.
    pub not_before_ms: Option<i64>,
    /// Until when it is good.
    pub expires_ms: Option<i64>,
    /// When its text was last replaced.
    pub rotated_ms: Option<i64>,
    /// Until when the text before that is good, too.
    pub old_until_ms: Option<i64>,
    /// When it was taken back.
    pub revoked_ms: Option<i64>,
    /// When it was last used, to the minute or so.
    pub last_used_ms: Option<i64>,
}

/// A row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) no: i64,
    pub(super) id: Arc<str>,
    pub(super) name: Name,
    pub(super) tenant: Name,
    pub(super) team: Option<Name>,
    pub(super) user: Option<User>,
    pub(super) role: Role,
    pub(super) models: Vec<Pattern>,
    pub(super) routes: Vec<Pattern>,
    pub(super) ends_with: String,
    pub(super) sha256: Digest,
    pub(super) old_sha256: Option<Digest>,
    pub(super) old_until_ms: Option<i64>,
    pub(super) not_before_ms: Option<i64>,
    pub(super) expires_ms: Option<i64>,
    pub(super) created_ms: i64,
    pub(super) rotated_ms: Option<i64>,
    pub(super) revoked_ms: Option<i64>,
}

/// The public id of a key whose first text has this digest: nothing of the text can be found from it.
pub(super) fn id_of(sha256: &Digest) -> Arc<str> {
    let mut bytes = b"forebay key id ".to_vec();
    bytes.extend(sha256.as_bytes());
    format!("key-{}", hex::encode(&Digest::of(&bytes).as_bytes()[..8])).into()
}

fn hint(key: &NewKey) -> String {
    key.text[key.text.len() - HINT_DIGITS..].to_owned()
}

impl KeyOrder {
    /// The tenant that is meant.
    pub(super) fn tenant(&self) -> Name {
        self.tenant.clone().unwrap_or_else(|| Name::new(DEFAULT_TENANT).expect("`default` is a name"))
    }

    pub(super) fn into_record(self, fresh: &NewKey, now_ms: i64) -> Result<Record, KeysError> {
        let everything = || vec![Pattern::everything()];
        let record = Record {
            no: 0,
            id: id_of(&fresh.sha256),
            tenant: self.tenant(),
            name: self.name,
            team: self.team,
            user: self.user,
            role: self.role,
            models: self.models.unwrap_or_else(everything),
            routes: self.routes.unwrap_or_else(everything),
            ends_with: hint(fresh),
            sha256: fresh.sha256,
            old_sha256: None,
            old_until_ms: None,
            not_before_ms: self.not_before_ms,
            expires_ms: self.expires_ms,
            created_ms: now_ms,
            rotated_ms: None,
            revoked_ms: None,
        };
        record.check_scope()?;
        record.check_times(now_ms)?;
        Ok(record)
    }
}

impl Record {
    fn check_scope(&self) -> Result<(), KeysError> {
        let patterns = self.models.len().max(self.routes.len());
        if patterns > MAX_PATTERNS { Err(KeysError::Patterns(patterns)) } else { Ok(()) }
    }

    fn check_times(&self, now_ms: i64) -> Result<(), KeysError> {
        let from = self.not_before_ms.unwrap_or(0);
        let until = self.expires_ms.unwrap_or(LAST_MS);
        if from < 0 || until > LAST_MS || from > LAST_MS {
            return Err(KeysError::Unit);
        }
        if until <= now_ms || until <= from {
            return Err(KeysError::Times { expires_ms: until });
        }
        Ok(())
    }

    pub(super) fn change(&mut self, change: KeyChange, now_ms: i64) -> Result<(), KeysError> {
        // A key that has ended keeps its end while something else of it is changed.
        let is_timed = change.not_before_ms.is_some() || change.expires_ms.is_some();
        self.not_before_ms = change.not_before_ms.unwrap_or(self.not_before_ms);
        self.expires_ms = change.expires_ms.unwrap_or(self.expires_ms);
        self.role = change.role.unwrap_or(self.role);
        if let Some(models) = change.models {
            self.models = models;
        }
        if let Some(routes) = change.routes {
            self.routes = routes;
        }
        if let Some(team) = change.team {
            self.team = team;
        }
        if let Some(user) = change.user {
            self.user = user;
        }
        self.check_scope()?;
        if is_timed { self.check_times(now_ms) } else { Ok(()) }
    }

    /// `fresh` opens from now on; the text that was current stays good for `overlap_ms`, and one before it no longer.
    pub(super) fn rotate(&mut self, fresh: &NewKey, overlap_ms: i64, now_ms: i64) {
        self.old_sha256 = (overlap_ms > 0).then_some(self.sha256);
        self.old_until_ms = (overlap_ms > 0).then(|| now_ms.saturating_add(overlap_ms));
        self.sha256 = fresh.sha256;
        self.ends_with = hint(fresh);
        self.rotated_ms = Some(now_ms);
    }

    pub(super) fn grant(&self) -> Grant {
        Grant {
            tenant: self.tenant.as_str().into(),
            team: self.team.as_ref().map(|team| team.as_str().into()),
            user: self.user.as_ref().map(User::shared),
            role: self.role,
            key_id: Some(Arc::clone(&self.id)),
            label: self.name.as_str().into(),
            models: self.models.clone().into(),
            routes: self.routes.clone().into(),
        }
    }

    pub(super) fn info(&self, state: KeyState, revoked_ms: Option<i64>, last_used_ms: Option<i64>) -> KeyInfo {
        KeyInfo {
            id: self.id.to_string(),
            name: self.name.clone(),
            ends_with: self.ends_with.clone(),
            state,
            tenant: self.tenant.clone(),
            team: self.team.clone(),
            user: self.user.clone(),
            role: self.role,
            models: self.models.clone(),
            routes: self.routes.clone(),
            created_ms: self.created_ms,
            not_before_ms: self.not_before_ms,
            expires_ms: self.expires_ms,
            rotated_ms: self.rotated_ms,
            old_until_ms: self.old_until_ms,
            revoked_ms,
            last_used_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_tells_null_from_what_is_left_out() {
        let change: KeyChange = serde_json::from_str(r#"{"expires_ms": null, "models": ["a*"]}"#).unwrap();
        assert_eq!((change.expires_ms, change.not_before_ms), (Some(None), None));
        assert_eq!(change.models.unwrap().len(), 1);
        for wrong in [r#"{"expires": 1}"#, r#"{"models": null, "x": 1}"#, r#"{"role": "root"}"#, r#"{"models": [""]}"#]
        {
            assert!(serde_json::from_str::<KeyChange>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_needs_a_name_and_refuses_what_it_does_not_know() {
        assert!(serde_json::from_str::<KeyOrder>(r#"{"name": "line-4"}"#).unwrap().models.is_none());
        for wrong in [r#"{}"#, r#"{"name": "a b"}"#, r#"{"name": "a", "key": "fb-1"}"#, r#"{"name": "a", "user": ""}"#]
        {
            assert!(serde_json::from_str::<KeyOrder>(wrong).is_err(), "{wrong}");
        }
    }
}
