//! Keys and tenants that are made, changed and taken back while the gateway runs.

use std::sync::Arc;

use super::grant::{DEFAULT_TENANT, MAX_PATTERNS};
use super::identities::Denied;
use super::key::NewKey;
use super::metrics::Metrics;
use super::principal::{How, Principal};
use super::record::{KeyChange, KeyInfo, KeyOrder, Record};
use super::ring::Ring;
use super::rows;
use super::tenant::Tenant;
use crate::base::{Clock, Digest, Name};
use crate::store::{self, Reader, Tx, Wreck, Writer};

/// Most keys, revoked ones included until they are removed. One takes about 1 KiB of memory.
const MAX_KEYS: u64 = 10_000;
/// Most tenants beside those of the configuration.
const MAX_TENANTS: u64 = 1000;
/// Most keys of one page of a listing.
const MAX_PAGE: usize = 1000;
/// Longest time for which a replaced key stays good: 90 days.
const MAX_OVERLAP_MS: i64 = 90 * 24 * 3_600_000;
/// About what an edit carries.
const EDIT_BYTES: usize = 1024;

/// Why a key or tenant could not be made, changed or taken back.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// No key has this id.
    #[error("failed to find the key {0}: a listing has the ids of all keys")]
    Unknown(String),
    /// The tenant was never made.
    #[error("failed to find the tenant {0}: make it first, or leave it out for `{DEFAULT_TENANT}`")]
    Tenant(Name),
    /// A tenant of this name is there.
    #[error("failed to make the tenant {0}: it is there already")]
    TenantThere(Name),
    /// Its keys, also those that were revoked, would belong to nobody.
    #[error("failed to remove the tenant {name}: revoke and remove its {keys} keys first")]
    TenantInUse {
        /// The tenant.
        name: Name,
        /// How many keys it has.
        keys: u64,
    },
    /// The default tenant, or one that the configuration names.
    #[error("failed to remove or suspend the tenant {0}: it belongs to the gateway or its configuration")]
    TenantKept(Name),
    /// A key of this tenant that is not revoked has this name.
    #[error("failed to make the key {name}: tenant {tenant} has one of that name; rotate it, or choose another name")]
    Taken {
        /// The name.
        name: Name,
        /// The tenant.
        tenant: Name,
    },
    /// The same text was given before.
    #[error("failed to take a text that was given before: draw a fresh one")]
    Reused,
    /// Over 10,000 keys.
    #[error("failed to make a key: there are {MAX_KEYS} already; remove revoked ones")]
    TooMany,
    /// Over 1,000 tenants.
    #[error("failed to make a tenant: there are {MAX_TENANTS} already")]
    TooManyTenants,
    /// Over 64 patterns in one list.
    #[error("failed to keep the scope of a key: at most {MAX_PATTERNS} patterns a list, this one has {0}")]
    Patterns(usize),
    /// It would never be good.
    #[error("failed to keep the times of a key: it would end at {expires_ms} ms, which is past or before it begins")]
    Times {
        /// The end that was asked for, ms since 1970.
        expires_ms: i64,
    },
    /// Seconds or microseconds instead of milliseconds.
    #[error("failed to keep the times of a key: they are milliseconds since 1970, up to the year 9999")]
    Unit,
    /// A replaced key would stay good for longer than 90 days, or for a negative time.
    #[error("failed to rotate a key: the old text may stay good for 0 to {MAX_OVERLAP_MS} ms, not {0}")]
    Overlap(i64),
    /// It was taken back for good.
    #[error("failed to change the key {0}: it is revoked; make another")]
    Revoked(String),
    /// It still opens.
    #[error("failed to remove the key {0}: it is not revoked; revoke it first")]
    NotRevoked(String),
    /// It is shut out until the next start, and opens again after it.
    #[error("failed to write that the key {id} is revoked: it is shut out, but only until the next start")]
    Unwritten {
        /// The key.
        id: String,
        /// Why.
        source: store::Error,
    },
    /// The disk, or the store is closed.
    #[error("failed to keep keys")]
    Store(#[from] store::Error),
}

/// What an edit comes to: the disk's errors apart from the rules'.
type Edited<T> = Result<Result<T, KeysError>, store::Error>;

/// The keys and tenants of one gateway.
///
/// Every edit is decided and written in one transaction, and counts in memory right after its commit, whether or not the
/// caller still waits for it. So two edits at once cannot lose one another, and nothing opens that a restart would
/// forget. A revocation counts before its commit: a disk that fails must not keep a stolen key good.
pub struct Keys {
    ring: Arc<Ring>,
    writer: Writer,
    clock: Arc<dyn Clock>,
    named: Vec<Name>,
    metrics: Metrics,
}

impl Keys {
    /// Reads the keys of `SCHEMA`'s tables. `named` are tenants that the configuration names. A row whose checksum does
    /// not hold is left out, counted and told to the log.
    pub async fn open<'a>(
        reader: &Reader,
        writer: Writer,
        clock: Arc<dyn Clock>,
        named: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, KeysError> {
        let mut named: Vec<Name> = named.into_iter().filter_map(|name| Name::new(name).ok()).collect();
        named.push(Name::new(DEFAULT_TENANT).expect("`default` is a name"));
        named.sort();
        named.dedup();
        let loaded = reader.read(rows::load).await?;
        let metrics = Metrics::default();
        metrics.unreadable.inc_by(loaded.unreadable);
        if loaded.unreadable > 0 {
            tracing::error!(rows = loaded.unreadable, "keys or tenants are unreadable and open nothing: make new ones");
        }
        let ring = Arc::new(Ring::new(loaded, named.iter().cloned()));
        let keys = Self { ring, writer, clock, named, metrics };
        keys.tell_len();
        Ok(keys)
    }

    /// Brings the keys and tenants of the newest file that was set aside into this one, if none was ever made here. To be
    /// called at a start, before the doors open. Returns how many keys came.
    ///
    /// Only what SQLite itself still shows, and only if the file's log can be read to its end: a page by itself may be an
    /// older one, on which a key is not revoked yet. A key whose tenant is not to be found stays away, too.
    pub async fn take_over(&self, wrecks: &[Wreck]) -> Result<usize, KeysError> {
        let Some(wreck) = wrecks.last().cloned() else { return Ok(0) };
        let name = wreck.name();
        let read = move || if wreck.is_log_rotten() { Ok(None) } else { rows::load_wreck(&wreck.connect()?).map(Some) };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| store::Error::from(store::Closed))?;
        let loaded = match read {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                tracing::error!(file = %name, "keys of a file that was set aside are not taken over: its log is damaged");
                return Ok(0);
            }
            Err(error) => {
                tracing::error!(file = %name, %error, "keys of a file that was set aside cannot be read: make new ones");
                return Ok(0);
            }
        };
        self.metrics.unreadable.inc_by(loaded.unreadable);
        let named = self.named.clone();
        let taken = self
            .edit(move |tx, ring| {
                if !rows::is_fresh(tx)? {
                    return Ok(Ok(0));
                }
                let mut known = named;
                for tenant in loaded.tenants {
                    rows::put_tenant(tx, &tenant, tenant.created_ms.unwrap_or(0))?;
                    known.push(tenant.name.clone());
                    put_tenant_after(tx, ring, tenant);
                }
                let mut taken = 0;
                for (record, _) in loaded.keys {
                    if known.contains(&record.tenant) {
                        rows::take_over(tx, &record)?;
                        put_after(tx, ring, record);
                        taken += 1;
                    }
                }
                Ok(Ok(taken))
            })
            .await?;
        if taken > 0 {
            tracing::warn!(file = %name, keys = taken, "keys of a file that was set aside are good again");
        }
        self.tell_len();
        Ok(taken)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub(super) fn find(&self, digest: &Digest, how: How) -> Result<Principal, Denied> {
        self.ring.find(digest, how, self.clock.wall_ms())
    }

    pub(super) fn is_suspended(&self, tenant: &str) -> bool {
        self.ring.is_suspended(tenant)
    }

    /// Makes a key that `fresh.text` opens. Show that text to its owner once: nobody can find it again.
    pub async fn create(&self, order: KeyOrder, fresh: &NewKey) -> Result<KeyInfo, KeysError> {
        let tenant = order.tenant();
        if !self.ring.knows_tenant(&tenant) {
            return self.refused(KeysError::Tenant(tenant));
        }
        let record = match order.into_record(fresh, self.clock.wall_ms()) {
            Ok(record) => record,
            Err(error) => return self.refused(error),
        };
        let is_named = self.named.contains(&tenant);
        let id = self
            .edit(move |tx, ring| {
                if rows::count(tx)? >= MAX_KEYS {
                    return Ok(Err(KeysError::TooMany));
                }
                // It may have been removed since.
                if !is_named && rows::find_tenant(tx, &tenant)?.is_none() {
                    return Ok(Err(KeysError::Tenant(tenant)));
                }
                if rows::is_known(tx, &record.id, &record.sha256)? {
                    return Ok(Err(KeysError::Reused));
                }
                if rows::is_taken(tx, &tenant, &record.name)? {
                    return Ok(Err(KeysError::Taken { name: record.name, tenant }));
                }
                let record = Record { no: rows::insert(tx, &record)?, ..record };
                let id = record.id.to_string();
                put_after(tx, ring, record);
                Ok(Ok(id))
            })
            .await?;
        self.tell_len();
        self.info(&id)
    }

    /// Gives a key another text. The one that it had stays good for `overlap_ms`, 0 to 90 days; one that was replaced
    /// before and was still good is good no longer.
    pub async fn rotate(&self, id: &str, fresh: &NewKey, overlap_ms: i64) -> Result<KeyInfo, KeysError> {
        if !(0..=MAX_OVERLAP_MS).contains(&overlap_ms) {
            return self.refused(KeysError::Overlap(overlap_ms));
        }
        let (fresh, now_ms) = (fresh.clone(), self.clock.wall_ms());
        self.alter(id, move |tx, record| {
            if rows::is_known(tx, "", &fresh.sha256)? {
                return Ok(Err(KeysError::Reused));
            }
            record.rotate(&fresh, overlap_ms, now_ms);
            Ok(Ok(()))
        })
        .await
    }

    /// Changes scope, role, team, user or times of a key. Requests that are being answered are not called back.
    pub async fn change(&self, id: &str, change: KeyChange) -> Result<KeyInfo, KeysError> {
        let now_ms = self.clock.wall_ms();
        self.alter(id, move |_, record| Ok(record.change(change, now_ms))).await
    }

    /// Takes a key back for good, both texts of it, from this moment on. Revoking it again changes nothing.
    pub async fn revoke(&self, id: &str) -> Result<KeyInfo, KeysError> {
        let now_ms = self.clock.wall_ms();
        if !self.ring.revoke(id, now_ms) {
            return self.refused(KeysError::Unknown(id.to_owned()));
        }
        let (ring, wanted) = (Arc::clone(&self.ring), id.to_owned());
        // It may use what a full file keeps in reserve.
        let written = self.writer.commit_from_reserve(move |tx| {
            let Some(record) = rows::find(tx, &wanted)? else { return Ok(()) };
            if record.revoked_ms.is_none() {
                let record = Record { revoked_ms: Some(now_ms), ..record };
                rows::replace(tx, &record)?;
                put_after(tx, &ring, record);
            }
            Ok(())
        });
        match written.await {
            Ok(()) => {
                self.metrics.edits.inc();
                self.info(id)
            }
            Err(source) => self.refused(KeysError::Unwritten { id: id.to_owned(), source }),
        }
    }

    /// Forgets a key that was revoked. Records keep its id, which is never given again.
    pub async fn remove(&self, id: &str) -> Result<(), KeysError> {
        let wanted = id.to_owned();
        self.edit(move |tx, ring| {
            let Some(record) = rows::find(tx, &wanted)? else { return Ok(Err(KeysError::Unknown(wanted))) };
            if record.revoked_ms.is_none() {
                return Ok(Err(KeysError::NotRevoked(wanted)));
            }
            rows::remove(tx, record.no)?;
            let (ring, no) = (Arc::clone(ring), record.no);
            tx.after(move |is_committed| {
                if is_committed {
                    ring.remove(no);
                }
            });
            Ok(Ok(()))
        })
        .await?;
        self.tell_len();
        Ok(())
    }

    /// What is known of one key.
    pub fn info(&self, id: &str) -> Result<KeyInfo, KeysError> {
        self.ring.info(id, self.clock.wall_ms()).ok_or_else(|| KeysError::Unknown(id.to_owned()))
    }

    /// A page of keys in the order in which they were made: of one tenant or all, after the one of id `after`, at most
    /// `most` and never over 1,000. Nothing comes after an id that is not there.
    pub fn list(&self, tenant: Option<&str>, after: Option<&str>, most: usize) -> Vec<KeyInfo> {
        self.ring.list(tenant, after, most.min(MAX_PAGE), self.clock.wall_ms())
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, name: Name) -> Result<Tenant, KeysError> {
        if self.named.contains(&name) {
            return self.refused(KeysError::TenantThere(name));
        }
        let now_ms = self.clock.wall_ms();
        self.edit(move |tx, ring| {
            if rows::find_tenant(tx, &name)?.is_some() {
                return Ok(Err(KeysError::TenantThere(name)));
            }
            if rows::count_tenants(tx)? >= MAX_TENANTS {
                return Ok(Err(KeysError::TooManyTenants));
            }
            let tenant = Tenant { name, created_ms: Some(now_ms), suspended_ms: None };
            rows::put_tenant(tx, &tenant, now_ms)?;
            put_tenant_after(tx, ring, tenant.clone());
            Ok(Ok(tenant))
        })
        .await
    }

    /// Keeps every caller of a tenant out, identities of the configuration too, or lets them in again. `default` cannot be
    /// suspended.
    pub async fn suspend_tenant(&self, name: &Name, is_suspended: bool) -> Result<Tenant, KeysError> {
        if name.as_str() == DEFAULT_TENANT {
            return self.refused(KeysError::TenantKept(name.clone()));
        }
        let (is_named, name, now_ms) = (self.named.contains(name), name.clone(), self.clock.wall_ms());
        self.edit(move |tx, ring| {
            let created_ms = match rows::find_tenant(tx, &name)? {
                Some(tenant) => tenant.created_ms.unwrap_or(now_ms),
                None if is_named => now_ms,
                None => return Ok(Err(KeysError::Tenant(name))),
            };
            let tenant = Tenant { name, created_ms: Some(created_ms), suspended_ms: is_suspended.then_some(now_ms) };
            rows::put_tenant(tx, &tenant, created_ms)?;
            put_tenant_after(tx, ring, tenant.clone());
            Ok(Ok(tenant))
        })
        .await
    }

    /// Forgets a tenant without keys.
    pub async fn remove_tenant(&self, name: &Name) -> Result<(), KeysError> {
        if self.named.contains(name) {
            return self.refused(KeysError::TenantKept(name.clone()));
        }
        let name = name.clone();
        self.edit(move |tx, ring| {
            if rows::find_tenant(tx, &name)?.is_none() {
                return Ok(Err(KeysError::Tenant(name)));
            }
            let keys = rows::count_keys_of(tx, &name)?;
            if keys > 0 {
                return Ok(Err(KeysError::TenantInUse { name, keys }));
            }
            rows::remove_tenant(tx, &name)?;
            let ring = Arc::clone(ring);
            tx.after(move |is_committed| {
                if is_committed {
                    ring.remove_tenant(&name);
                }
            });
            Ok(Ok(()))
        })
        .await
    }

    /// All tenants by name, those of the configuration included.
    pub fn tenants(&self) -> Vec<Tenant> {
        self.ring.tenants()
    }

    /// Writes when keys were last used, riding in a commit that happens anyway. To be called once a minute or so, and
    /// before the end: what was not written is forgotten by a restart. Returns how many keys it wrote.
    pub async fn save_used(&self) -> Result<usize, KeysError> {
        let used = Arc::new(self.ring.unsaved());
        if used.is_empty() {
            return Ok(0);
        }
        let (tell, told) = tokio::sync::oneshot::channel();
        let (ring, rows, kept) = (Arc::clone(&self.ring), Arc::clone(&used), Arc::clone(&used));
        let done = move |outcome: Result<(), store::CommitError>| {
            if outcome.is_ok() {
                ring.saved(&kept);
            }
            let _ = tell.send(outcome);
        };
        let closed = |_| KeysError::Store(store::Closed.into());
        self.writer.ride(used.len() * 16, move |tx| rows::put_used(tx, &rows), done).await.map_err(closed)?;
        told.await.map_err(|_| KeysError::Store(store::Closed.into()))?.map_err(store::Error::from)?;
        Ok(used.len())
    }

    /// Runs `work` in a transaction and counts how it went.
    async fn edit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Tx<'_>, &Arc<Ring>) -> Edited<T> + Send + 'static,
    ) -> Result<T, KeysError> {
        let ring = Arc::clone(&self.ring);
        match self.writer.commit(EDIT_BYTES, move |tx| work(tx, &ring)).await {
            Ok(Ok(value)) => {
                self.metrics.edits.inc();
                Ok(value)
            }
            Ok(Err(error)) => self.refused(error),
            Err(error) => self.refused(error.into()),
        }
    }

    /// [`edit`](Self::edit) of one key that is not revoked.
    async fn alter(
        &self,
        id: &str,
        work: impl FnOnce(&Tx<'_>, &mut Record) -> Edited<()> + Send + 'static,
    ) -> Result<KeyInfo, KeysError> {
        let wanted = id.to_owned();
        self.edit(move |tx, ring| {
            let Some(mut record) = rows::find(tx, &wanted)? else { return Ok(Err(KeysError::Unknown(wanted))) };
            if record.revoked_ms.is_some() {
                return Ok(Err(KeysError::Revoked(wanted)));
            }
            if let Err(error) = work(tx, &mut record)? {
                return Ok(Err(error));
            }
            rows::replace(tx, &record)?;
            put_after(tx, ring, record);
            Ok(Ok(()))
        })
        .await?;
        self.info(id)
    }

    fn refused<T>(&self, error: KeysError) -> Result<T, KeysError> {
        self.metrics.refused_edits.inc();
        Err(error)
    }

    fn tell_len(&self) {
        self.metrics.keys.set(i64::try_from(self.ring.len()).unwrap_or(i64::MAX));
    }
}

fn put_after(tx: &Tx<'_>, ring: &Arc<Ring>, record: Record) {
    let ring = Arc::clone(ring);
    tx.after(move |is_committed| {
        if is_committed {
            ring.put(record);
        }
    });
}

fn put_tenant_after(tx: &Tx<'_>, ring: &Arc<Ring>, tenant: Tenant) {
    let ring = Arc::clone(ring);
    tx.after(move |is_committed| {
        if is_committed {
            ring.put_tenant(tenant);
        }
    });
}
