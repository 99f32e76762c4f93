//! What operators look up and do: records, sums, limits, kept answers, and the audit of what they did.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::access::Principal;
use crate::base::Clock;
use crate::cache::{self, Cache, Purge};
use crate::ledger::{self, Action, By, Call, Cursor, Entry, Group, Query, SumsQuery};
use crate::quota::{Now, Quota, Span, Standing, Unit};
use crate::store::{self, Reader, Writer};

/// Records of a page where the request does not say how many.
const PAGE: usize = 100;
/// Most limits of one answer.
const LIMITS_MAX: usize = 1000;
/// About what an entry of the audit carries.
const ENTRY_BYTES: usize = 1024;

/// Why it cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum OfficeError {
    /// The database.
    #[error("failed to reach the records")]
    Store(#[from] store::Error),
    /// The database of kept answers.
    #[error("failed to reach kept answers")]
    Cache(#[from] cache::Error),
    /// A cursor that no page gave.
    #[error("failed to go on after {0:?}: use the `next` of the page before")]
    Cursor(String),
    /// Something that sums are not told apart by.
    #[error("failed to sum up by {0:?}: use day, tenant, key, model or prompt, between commas")]
    By(String),
}

/// Which records are wanted; what is left out holds for all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs, reason = "each field is the one of ledger::Query")]
pub struct CallsWanted {
    pub after: Option<String>,
    pub most: Option<usize>,
    pub from_ms: Option<i64>,
    pub to_ms: Option<i64>,
    pub id: Option<String>,
    pub tenant: Option<String>,
    pub key: Option<String>,
    pub user: Option<String>,
    pub route: Option<String>,
    pub model: Option<String>,
    pub failed: bool,
}

/// Records, newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CallsPage {
    /// The records.
    pub calls: Vec<Call>,
    /// For the page that follows; none: that was all.
    pub next: Option<String>,
    /// Blocks of records whose checksum was wrong; theirs are left out.
    pub damaged_blocks: u64,
}

/// Which sums are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageWanted {
    /// From this day on, in days since 1970-01-01 of the gateway's date.
    pub first_day: Option<i32>,
    /// Up to this day.
    pub last_day: Option<i32>,
    /// Of this tenant only.
    pub tenant: Option<String>,
    /// Of this key only.
    pub key: Option<String>,
    /// Of this model only.
    pub model: Option<String>,
    /// What they are told apart by: `day`, `tenant`, `key`, `model`, `prompt`, between commas.
    pub by: Option<String>,
}

/// Sums.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsagePage {
    /// The day that it is now.
    pub today: i32,
    /// The groups.
    pub usage: Vec<Group>,
    /// There are more of them than are told.
    pub has_more: bool,
}

/// A limit as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitLine {
    /// Its level: `key`, `tenant`, ...
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What is counted; money in pico-USD.
    pub unit: Unit,
    /// Over which time.
    pub span: Span,
    /// The limit.
    pub limit: u64,
    /// Spent and settled.
    pub spent: u64,
    /// Held by requests under way.
    pub held: u64,
    /// Left.
    pub left: u64,
    /// When the period ends, milliseconds since 1970.
    pub resets_at_ms: Option<i64>,
}

/// The office.
pub struct Office {
    reader: Reader,
    writer: Writer,
    quota: Quota,
    cache: Arc<Cache>,
    clock: Arc<dyn Clock>,
    keep_audit: u64,
}

impl Office {
    /// Over the database and what is held in memory. `keep_audit` is that of `[ledger]`.
    pub fn new(
        reader: Reader,
        writer: Writer,
        quota: Quota,
        cache: Arc<Cache>,
        clock: Arc<dyn Clock>,
        keep_audit: u64,
    ) -> Self {
        Self { reader, writer, quota, cache, clock, keep_audit }
    }

    /// Records of requests. Those of the last second or so may not be there yet.
    ///
    /// # Errors
    /// The cursor is none, or the database cannot be read.
    pub async fn calls(&self, wanted: CallsWanted) -> Result<CallsPage, OfficeError> {
        let after = match wanted.after {
            None => None,
            Some(text) => Some(text.parse::<Cursor>().map_err(|_| OfficeError::Cursor(text))?),
        };
        let query = Query {
            after,
            most: wanted.most.unwrap_or(PAGE),
            from_ms: wanted.from_ms,
            to_ms: wanted.to_ms,
            id: wanted.id,
            tenant: wanted.tenant,
            key: wanted.key,
            user: wanted.user,
            route: wanted.route,
            model: wanted.model,
            failed: wanted.failed,
        };
        let page = self.reader.read(move |connection| ledger::calls(connection, &query)).await?;
        let next = page.next.map(|cursor| cursor.to_string());
        Ok(CallsPage { calls: page.calls, next, damaged_blocks: page.damaged_blocks })
    }

    /// What requests took together.
    ///
    /// # Errors
    /// `by` has an unknown word, or the database cannot be read.
    pub async fn usage(&self, wanted: UsageWanted) -> Result<UsagePage, OfficeError> {
        let mut by = By::default();
        for word in wanted.by.as_deref().unwrap_or("").split(',').map(str::trim).filter(|word| !word.is_empty()) {
            match word {
                "day" => by.day = true,
                "tenant" => by.tenant = true,
                "key" => by.key = true,
                "model" => by.model = true,
                "prompt" => by.prompt = true,
                other => return Err(OfficeError::By(other.to_owned())),
            }
        }
        let UsageWanted { first_day, last_day, tenant, key, model, .. } = wanted;
        let query = SumsQuery { first_day, last_day, tenant, key, model, by };
        let (usage, has_more) = self.reader.read(move |connection| ledger::sums(connection, &query)).await?;
        Ok(UsagePage { today: self.quota.day_of(self.clock.wall_ms()), usage, has_more })
    }

    /// Limits as they stand, at most 1,000: of one level, and of one name, or all.
    pub fn limits(&self, level: Option<&str>, name: Option<&str>) -> Vec<LimitLine> {
        let standings = self.quota.standings(level, name, LIMITS_MAX, Now::of(&*self.clock));
        let line = |standing: Standing| LimitLine {
            level: standing.level.into(),
            name: standing.name.into(),
            unit: standing.unit,
            span: standing.span,
            limit: standing.limit,
            spent: standing.spent,
            held: standing.held,
            left: standing.left,
            resets_at_ms: standing.resets_at_ms,
        };
        standings.into_iter().map(line).collect()
    }

    /// Takes kept answers away, and enters that into the audit. How many they were.
    ///
    /// # Errors
    /// The database cannot be reached; those in memory are gone all the same.
    pub async fn purge(&self, who: &Principal, purge: &Purge) -> Result<u64, OfficeError> {
        let count = self.cache.purge(purge).await?;
        self.enter(who, "cache.purge", purge.tenant.as_deref().unwrap_or("*"), &format!("{count} answers")).await?;
        Ok(count)
    }

    /// Enters what an operator did. Whoever does something in a transaction of its own enters it right after.
    ///
    /// # Errors
    /// The database cannot be written.
    pub async fn enter(&self, who: &Principal, action: &str, target: &str, detail: &str) -> Result<(), OfficeError> {
        let (stamp, keep) = (self.clock.stamp(), self.keep_audit);
        let texts = [who.name(), action, target, detail].map(str::to_owned);
        let entering = self.writer.commit(ENTRY_BYTES, move |tx| {
            let [actor, action, target, detail] = &texts;
            ledger::audit_enter(tx, stamp, &Action { actor, action, target, detail }, keep).map(|_| ())
        });
        Ok(entering.await?)
    }

    /// The audit, newest first, before number `before`.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn audit(&self, before: Option<i64>, most: Option<usize>) -> Result<Vec<Entry>, OfficeError> {
        let most = most.unwrap_or(PAGE);
        Ok(self.reader.read(move |connection| ledger::audit_entries(connection, before, most)).await?)
    }
}
