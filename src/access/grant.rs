//! What a caller may do with models, and in whose name.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// The tenant of whoever is given none.
pub const DEFAULT_TENANT: &str = "default";

/// Most patterns in one list.
pub(super) const MAX_PATTERNS: usize = 64;
/// Longest name of a user in bytes.
const MAX_USER_BYTES: usize = 128;

/// What a caller is to this box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Asks models, sends and reads data: within its own rules.
    #[default]
    App,
    /// Also runs the box, for every tenant: keys, tenants, models, records.
    Operator,
}

impl Role {
    /// The word used in rows, JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::App => "app",
            Self::Operator => "operator",
        }
    }

    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "app" => Some(Self::App),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }
}

/// Tenant, role and scope of one caller. One for all its requests.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) tenant: Arc<str>,
    pub(super) team: Option<Arc<str>>,
    pub(super) user: Option<Arc<str>>,
    pub(super) role: Role,
    /// Of a key that was made at run time: its id.
    pub(super) key_id: Option<Arc<str>>,
    /// What people call this caller.
    pub(super) label: Arc<str>,
    pub(super) models: Box<[Pattern]>,
    pub(super) routes: Box<[Pattern]>,
}

impl Grant {
    /// An app of the default tenant that may use everything.
    pub(super) fn plain(label: Arc<str>) -> Self {
        Self {
            tenant: DEFAULT_TENANT.into(),
            team: None,
            user: None,
            role: Role::App,
            key_id: None,
            label,
            models: [Pattern::everything()].into(),
            routes: [Pattern::everything()].into(),
        }
    }
}

/// The name of a user: any text on one line, 1 to 128 bytes, as identity providers give them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct User(Arc<str>);

/// The text is empty, over 128 bytes, or holds control characters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the name of a user has 1 to {MAX_USER_BYTES} bytes and no control characters")]
pub struct UserError;

impl User {
    /// Checks and keeps `text`.
    pub fn new(text: &str) -> Result<Self, UserError> {
        let good = (1..=MAX_USER_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        if good { Ok(Self(text.into())) } else { Err(UserError) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
    }
}

impl TryFrom<String> for User {
    type Error = UserError;

    fn try_from(text: String) -> Result<Self, UserError> {
        Self::new(&text)
    }
}

impl From<User> for String {
    fn from(user: User) -> Self {
        user.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_name_is_one_line_of_bounded_length() {
        assert_eq!(User::new("Zoë@plant.example").unwrap().as_str(), "Zoë@plant.example");
        for bad in ["", "a\nb", &"x".repeat(129)] {
            assert_eq!(User::new(bad), Err(UserError), "{bad:?}");
        }
    }

    #[test]
    fn a_role_is_read_as_it_is_written_and_no_other_word_is_one() {
        for role in [Role::App, Role::Operator] {
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.as_str()));
        }
        assert_eq!(Role::parse("root"), None);
    }
}
