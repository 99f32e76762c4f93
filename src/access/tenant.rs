//! Tenants: whose keys, limits, records and cached answers are kept apart.

use serde::Serialize;

use crate::base::Name;

/// One tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tenant {
    /// Its name. `default` is always there.
    pub name: Name,
    /// When it was made, ms since 1970; none for one that only the configuration names.
    pub created_ms: Option<i64>,
    /// Since when its callers are kept out.
    pub suspended_ms: Option<i64>,
}
