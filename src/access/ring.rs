//! The keys in memory, found by digest.
//!
//! A look-up holds a shared lock for as long as one entry of a map is read, an edit holds it alone for as long as a few
//! entries are put; nobody allocates, writes to a disk or waits for anything else under it. Edits come from the writer
//! thread, after their commit, so that what opens here is on the disk.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::grant::Grant;
use super::identities::Denied;
use super::principal::{How, Principal, Unbound};
use super::record::{KeyInfo, KeyState, Record};
use super::rows::Loaded;
use super::tenant::Tenant;
use crate::base::{Digest, Name};

/// How exact the time of the last use is.
const USED_STEP_MS: u64 = 60_000;
/// Nothing happened yet.
const NEVER: i64 = i64::MIN;

/// What happens to a key between edits, shared by its old and its new entry.
#[derive(Debug)]
struct Marks {
    used_ms: AtomicI64,
    saved_ms: AtomicI64,
    /// A key that is revoked stays so, whatever an edit that began before says.
    revoked_ms: AtomicI64,
}

struct Entry {
    record: Record,
    grant: Arc<Grant>,
    marks: Arc<Marks>,
}

impl Entry {
    fn judge(&self, digest: &Digest, now_ms: i64) -> Result<(), Denied> {
        let record = &self.record;
        if self.marks.revoked_ms.load(Ordering::Acquire) != NEVER {
            return Err(Denied::Revoked);
        }
        if record.not_before_ms.is_some_and(|from| now_ms < from) {
            return Err(Denied::NotYet);
        }
        if record.expires_ms.is_some_and(|until| now_ms >= until) {
            return Err(Denied::Expired);
        }
        let is_old = record.sha256 != *digest;
        if is_old && record.old_until_ms.is_none_or(|until| now_ms >= until) {
            return Err(Denied::Expired);
        }
        Ok(())
    }

    fn info(&self, is_suspended: bool, now_ms: i64) -> KeyInfo {
        let state = match self.judge(&self.record.sha256, now_ms) {
            Err(Denied::NotYet) => KeyState::NotYet,
            Err(Denied::Revoked) => KeyState::Revoked,
            Err(_) => KeyState::Expired,
            Ok(()) if is_suspended => KeyState::Suspended,
            Ok(()) => KeyState::Active,
        };
        let mark = |mark: &AtomicI64| Some(mark.load(Ordering::Acquire)).filter(|&ms| ms != NEVER);
        self.record.info(state, mark(&self.marks.revoked_ms), mark(&self.marks.used_ms))
    }
}

#[derive(Default)]
struct Maps {
    by_digest: HashMap<Digest, Arc<Entry>>,
    by_no: BTreeMap<i64, Arc<Entry>>,
    by_id: HashMap<Arc<str>, i64>,
    tenants: BTreeMap<Name, Tenant>,
}

impl Maps {
    fn take(&mut self, no: i64) -> Option<Arc<Entry>> {
        let entry = self.by_no.remove(&no)?;
        self.by_id.remove(&entry.record.id);
        for digest in std::iter::once(&entry.record.sha256).chain(&entry.record.old_sha256) {
            self.by_digest.remove(digest);
        }
        Some(entry)
    }

    fn put(&mut self, entry: Arc<Entry>) {
        let record = &entry.record;
        for digest in std::iter::once(&record.sha256).chain(&record.old_sha256) {
            self.by_digest.insert(*digest, Arc::clone(&entry));
        }
        self.by_id.insert(Arc::clone(&record.id), record.no);
        self.by_no.insert(record.no, entry);
    }

    fn is_suspended(&self, tenant: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|tenant| tenant.suspended_ms.is_some())
    }
}

/// The keys and tenants of one gateway.
pub(super) struct Ring {
    maps: RwLock<Maps>,
    /// Whether any tenant is suspended: most boxes never have one.
    is_any_suspended: AtomicBool,
    /// Run-time keys have no topics.
    rules: Unbound,
}

impl Ring {
    pub(super) fn new(loaded: Loaded, named: impl IntoIterator<Item = Name>) -> Self {
        let ring =
            Self { maps: RwLock::default(), is_any_suspended: AtomicBool::new(false), rules: Unbound::default() };
        for name in named {
            ring.put_tenant(Tenant { name, created_ms: None, suspended_ms: None });
        }
        for tenant in loaded.tenants {
            ring.put_tenant(tenant);
        }
        for (record, used_ms) in loaded.keys {
            let used = used_ms.unwrap_or(NEVER);
            ring.put_with(record, |marks| {
                marks.used_ms.store(used, Ordering::Relaxed);
                marks.saved_ms.store(used, Ordering::Relaxed);
            });
        }
        ring
    }

    fn read(&self) -> RwLockReadGuard<'_, Maps> {
        self.maps.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Maps> {
        self.maps.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller whose key has this digest.
    pub(super) fn find(&self, digest: &Digest, how: How, now_ms: i64) -> Result<Principal, Denied> {
        let maps = self.read();
        let entry = maps.by_digest.get(digest).ok_or(Denied::Key)?;
        entry.judge(digest, now_ms)?;
        let used = &entry.marks.used_ms;
        let before = used.load(Ordering::Relaxed);
        // A line that every request would write to would be handed from core to core.
        if before == NEVER || now_ms.abs_diff(before) >= USED_STEP_MS {
            used.store(now_ms, Ordering::Relaxed);
        }
        Ok(Principal::new(Arc::clone(&entry.record.id), how, &self.rules, &entry.grant))
    }

    pub(super) fn is_suspended(&self, tenant: &str) -> bool {
        self.is_any_suspended.load(Ordering::Acquire) && self.read().is_suspended(tenant)
    }

    /// A key as it is now on the disk.
    pub(super) fn put(&self, record: Record) {
        self.put_with(record, |_| {});
    }

    fn put_with(&self, record: Record, mark: impl FnOnce(&Marks)) {
        let grant = Arc::new(record.grant());
        let revoked_ms = record.revoked_ms;
        let fresh = Arc::new(Marks {
            used_ms: AtomicI64::new(NEVER),
            saved_ms: AtomicI64::new(NEVER),
            revoked_ms: AtomicI64::new(NEVER),
        });
        let mut maps = self.write();
        let before = maps.take(record.no);
        let marks = before.as_ref().map_or(fresh, |entry| Arc::clone(&entry.marks));
        if let Some(revoked_ms) = revoked_ms {
            marks.revoked_ms.store(revoked_ms, Ordering::Release);
        }
        mark(&marks);
        maps.put(Arc::new(Entry { record, grant, marks }));
    }

    /// Shuts a key out at once, before the disk knows. False if there is no such key.
    pub(super) fn revoke(&self, id: &str, now_ms: i64) -> bool {
        let maps = self.read();
        let entry = maps.by_id.get(id).and_then(|no| maps.by_no.get(no));
        if let Some(entry) = entry {
            let revoked = &entry.marks.revoked_ms;
            let _ = revoked.compare_exchange(NEVER, now_ms, Ordering::AcqRel, Ordering::Acquire);
        }
        entry.is_some()
    }

    pub(super) fn remove(&self, no: i64) {
        self.write().take(no);
    }

    pub(super) fn len(&self) -> usize {
        self.read().by_no.len()
    }

    pub(super) fn info(&self, id: &str, now_ms: i64) -> Option<KeyInfo> {
        let maps = self.read();
        let entry = maps.by_no.get(maps.by_id.get(id)?)?;
        Some(entry.info(maps.is_suspended(entry.record.tenant.as_str()), now_ms))
    }

    /// Up to `most` keys in the order in which they were made, after the one of id `after`.
    pub(super) fn list(&self, tenant: Option<&str>, after: Option<&str>, most: usize, now_ms: i64) -> Vec<KeyInfo> {
        let maps = self.read();
        let from = match after {
            None => i64::MIN,
            Some(id) => match maps.by_id.get(id) {
                Some(no) => no.saturating_add(1),
                None => return Vec::new(),
            },
        };
        let wanted = |entry: &&Arc<Entry>| tenant.is_none_or(|tenant| entry.record.tenant.as_str() == tenant);
        let entries = maps.by_no.range(from..).map(|(_, entry)| entry).filter(wanted).take(most);
        entries.map(|entry| entry.info(maps.is_suspended(entry.record.tenant.as_str()), now_ms)).collect()
    }

    /// Keys whose last use is not on the disk: numbers and times.
    pub(super) fn unsaved(&self) -> Vec<(i64, i64)> {
        let maps = self.read();
        let unsaved = maps.by_no.iter().filter_map(|(no, entry)| {
            let used = entry.marks.used_ms.load(Ordering::Relaxed);
            (used != entry.marks.saved_ms.load(Ordering::Relaxed)).then_some((*no, used))
        });
        unsaved.collect()
    }

    pub(super) fn saved(&self, used: &[(i64, i64)]) {
        let maps = self.read();
        for (no, used_ms) in used {
            if let Some(entry) = maps.by_no.get(no) {
                entry.marks.saved_ms.store(*used_ms, Ordering::Relaxed);
            }
        }
    }

    pub(super) fn knows_tenant(&self, name: &Name) -> bool {
        self.read().tenants.contains_key(name)
    }

    pub(super) fn tenants(&self) -> Vec<Tenant> {
        self.read().tenants.values().cloned().collect()
    }

    pub(super) fn put_tenant(&self, tenant: Tenant) {
        let mut maps = self.write();
        maps.tenants.insert(tenant.name.clone(), tenant);
        self.tell_suspended(&maps);
    }

    pub(super) fn remove_tenant(&self, name: &Name) {
        let mut maps = self.write();
        maps.tenants.remove(name);
        self.tell_suspended(&maps);
    }

    fn tell_suspended(&self, maps: &Maps) {
        let any = maps.tenants.values().any(|tenant| tenant.suspended_ms.is_some());
        self.is_any_suspended.store(any, Ordering::Release);
    }
}
