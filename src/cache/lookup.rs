//! The cache of one gateway: what a flow asks, in order.

use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use super::answer::{Answer, Hit};
use super::config::{Config, Policy};
use super::embed::{Embed, unit};
use super::exact::Exact;
use super::flight::{Flights, Turn};
use super::metrics::{Kind, Metrics, Passed};
use super::normal;
use super::partition::{Partition, Purge};
use super::rows;
use super::shelf::{Limits, Shelf, signs};
use super::wish::Wish;
use crate::base::Clock;
use crate::store::{self, Reader, Writer};

/// Why the cache could not be opened or purged. A look-up that fails is a miss.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database.
    #[error("failed to reach kept answers in the database")]
    Store(#[from] store::Error),
}

/// By which one request is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    digest: [u8; 32],
    partition: [u8; 32],
}

/// What was looked for by meaning and not found; [`Cache::keep_meaning`] takes it back with the answer.
#[derive(Debug, Clone)]
pub struct Meaning {
    found_by: [u8; 32],
    vector: Vec<f32>,
}

/// Answers that were kept, and requests on their way.
pub struct Cache {
    config: Config,
    clock: Arc<dyn Clock>,
    pub(super) exact: Option<Mutex<Exact>>,
    pub(super) disk: Option<Shelf>,
    pub(super) semantic: Option<Shelf>,
    flights: Arc<Flights>,
    metrics: Metrics,
}

impl Cache {
    /// Only what lies in memory; `[cache.disk]` and `[cache.semantic]` are not looked at.
    pub fn in_memory(config: Config, clock: Arc<dyn Clock>) -> Self {
        let metrics = Metrics::default();
        let exact = (config.max_bytes > 0).then(|| Mutex::new(Exact::new(config.max_bytes)));
        let flights = Arc::new(Flights::new(config.max_flights, config.max_followers, metrics.clone()));
        Self { config, clock, exact, disk: None, semantic: None, flights, metrics }
    }

    /// Reads what is in the database's tables, those of [`SCHEMA`](super::SCHEMA). Rows that the configuration has no room
    /// for any more are taken away: all of them, if it keeps nothing there.
    pub async fn open(config: Config, reader: &Reader, writer: &Writer, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let last_no = reader.read(rows::last_no).await?;
        let (disk, semantic) = (config.disk.clone(), config.semantic.clone());
        let is_disk = disk.max_bytes > 0;
        let is_semantic = semantic.max_entries > 0 && semantic.max_bytes > 0;
        let mut cache = Self::in_memory(config, clock);
        if !is_disk && !is_semantic {
            if last_no > 0 {
                writer.commit_from_reserve(rows::clear).await?;
            }
            return Ok(cache);
        }
        let next_no = Arc::new(AtomicI64::new(last_no + 1));
        let shelf = async |kind, limits| {
            let (clock, next_no) = (Arc::clone(&cache.clock), Arc::clone(&next_no));
            Shelf::open(kind, limits, (reader.clone(), writer.clone()), clock, next_no, cache.metrics.clone()).await
        };
        // A bound of nothing empties the shelf.
        let on_disk = shelf(Kind::Disk, Limits { max_bytes: disk.max_bytes, max_entries: usize::MAX }).await?;
        let most = if is_semantic { semantic.max_entries } else { 0 };
        let by_meaning = shelf(Kind::Semantic, Limits { max_bytes: semantic.max_bytes, max_entries: most }).await?;
        cache.disk = is_disk.then_some(on_disk);
        cache.semantic = is_semantic.then_some(by_meaning);
        Ok(cache)
    }

    /// What it counts.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What this route does with answers.
    pub fn policy(&self, route: &str) -> &Policy {
        const OFF: &Policy = &Policy::OFF;
        let names = |policy: &&Policy| policy.routes.is_empty() || policy.routes.iter().any(|name| name == route);
        self.config.policy.iter().find(names).unwrap_or(OFF)
    }

    /// Whether anything is ever kept or followed under `policy`. If not, nothing below needs to be called.
    pub fn is_on(&self, policy: &Policy) -> bool {
        policy.single_flight || (policy.exact && self.is_exact()) || (policy.semantic && self.semantic.is_some())
    }

    fn is_exact(&self) -> bool {
        self.exact.is_some() || self.disk.is_some()
    }

    fn exact(&self) -> Option<MutexGuard<'_, Exact>> {
        self.exact.as_ref().map(|exact| exact.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.clock.since_boot().as_millis()).unwrap_or(u64::MAX)
    }

    /// By what the request with this body is found: none if the policy has no use for it, or if it passes by, being too
    /// large or without a normal form.
    pub fn key(&self, partition: &Partition<'_>, body: &[u8], policy: &Policy) -> Option<Key> {
        if !(policy.single_flight || policy.exact && self.is_exact()) {
            return None;
        }
        if body.len() > self.config.max_request_bytes {
            self.metrics.passed(Passed::LargeRequest);
            return None;
        }
        let Ok(request) = normal::digest(body, &policy.leave_out) else {
            self.metrics.passed(Passed::Abnormal);
            return None;
        };
        let partition = partition.digest(policy.scope);
        let digest = Sha256::new().chain_update(partition).chain_update(request).finalize().into();
        Some(Key { digest, partition })
    }

    /// The answer that was kept for the same request. A disk that fails is a miss.
    pub async fn find(&self, key: &Key, policy: &Policy, wish: &Wish) -> Option<Hit> {
        if !policy.exact || !wish.may_find || !self.is_exact() {
            return None;
        }
        let now_ms = self.now_ms();
        let found = self.exact().map(|mut exact| exact.find(&key.digest, now_ms));
        match found {
            Some(Ok(hit)) if wish.wants(hit.age_ms) => {
                self.metrics.hit(Kind::Exact, &hit.answer.worth);
                return Some(hit);
            }
            Some(Err(true)) => self.metrics.expired(Kind::Exact),
            _ => {}
        }
        if found.is_some() {
            self.metrics.missed(Kind::Exact);
        }
        let disk = self.disk.as_ref()?;
        let hit = match disk.newest(&key.digest, wish) {
            Some(no) => disk.read(no).await.inspect_err(|_| self.metrics.passed(Passed::Disk)).ok().flatten(),
            None => None,
        };
        match &hit {
            Some(hit) => self.metrics.hit(Kind::Disk, &hit.answer.worth),
            None => self.metrics.missed(Kind::Disk),
        }
        hit
    }

    /// Whether this request asks, or waits for another that is the same and on its way. Only if the policy says so.
    pub fn join(&self, key: &Key, policy: &Policy) -> Turn {
        if policy.single_flight { self.flights.join(key.digest) } else { Turn::Alone }
    }

    /// Keeps the answer to the request of `key`. In memory it is there when this returns, in the database soon after.
    pub fn keep(&self, key: &Key, partition: &Partition<'_>, answer: &Answer, policy: &Policy, wish: &Wish) {
        if !policy.exact || !wish.may_keep || !self.is_exact() || !self.is_small(answer) {
            return;
        }
        let ttl_ms = policy.ttl_ms();
        if let Some(mut exact) = self.exact() {
            let now_ms = self.now_ms();
            let times = (now_ms, now_ms.saturating_add(ttl_ms.cast_unsigned()));
            let kept = exact.keep(key.digest, key.partition, || partition.place(policy.scope), answer, times);
            self.metrics.holds(Kind::Exact, exact.len(), exact.bytes());
            drop(exact);
            self.metrics.evicted(Kind::Exact, kept.evicted);
            if kept.is_kept {
                self.metrics.kept(Kind::Exact);
            } else {
                self.metrics.passed(Passed::LargeAnswer);
            }
        }
        if let Some(disk) = &self.disk {
            disk.keep(key.digest, partition.place(policy.scope), answer, Vec::new(), ttl_ms);
        }
    }

    fn is_small(&self, answer: &Answer) -> bool {
        let is_small = answer.len() <= self.config.max_answer_bytes;
        if !is_small {
            self.metrics.passed(Passed::LargeAnswer);
        }
        is_small
    }

    /// The answer to the request of this partition that is most like `text`, if it is as like as the policy wants; else
    /// what to keep the answer under, if one can be kept. `partition.more` must hold everything else of the request.
    pub async fn find_meaning(
        &self,
        partition: &Partition<'_>,
        text: &str,
        embed: &dyn Embed,
        policy: &Policy,
        wish: &Wish,
    ) -> (Option<Hit>, Option<Meaning>) {
        let Some(semantic) = self.semantic.as_ref().filter(|_| policy.semantic && (wish.may_find || wish.may_keep))
        else {
            return (None, None);
        };
        let Ok(vector) = embed.embed(text).await else {
            self.metrics.passed(Passed::Embed);
            return (None, None);
        };
        let Some(vector) = unit(vector) else {
            self.metrics.passed(Passed::Vector);
            return (None, None);
        };
        let found_by = Sha256::new()
            .chain_update(partition.digest(policy.scope))
            .chain_update((vector.len() as u64).to_le_bytes())
            .chain_update(embed.name())
            .finalize()
            .into();
        let near = semantic.nearest(&found_by, &signs(&vector), self.config.semantic.rescored.max(1), wish);
        let hit = self.alike(semantic, near, &vector, policy.threshold).await;
        match &hit {
            Ok(Some(hit)) => self.metrics.hit(Kind::Semantic, &hit.answer.worth),
            Ok(None) => self.metrics.missed(Kind::Semantic),
            Err(_) => self.metrics.passed(Passed::Disk),
        }
        (hit.ok().flatten(), Some(Meaning { found_by, vector }))
    }

    async fn alike(
        &self,
        semantic: &Shelf,
        near: Vec<i64>,
        vector: &[f32],
        threshold: f32,
    ) -> Result<Option<Hit>, store::Error> {
        if near.is_empty() {
            return Ok(None);
        }
        let Some((no, cosine)) = semantic.most_alike(near, vector).await? else { return Ok(None) };
        if cosine < threshold {
            return Ok(None);
        }
        Ok(semantic.read(no).await?.map(|hit| Hit { similarity: Some(cosine), ..hit }))
    }

    /// Keeps the answer to what was not found by its meaning. It is found soon after this returns.
    pub fn keep_meaning(
        &self,
        meaning: Meaning,
        partition: &Partition<'_>,
        answer: &Answer,
        policy: &Policy,
        wish: &Wish,
    ) {
        if let Some(semantic) = &self.semantic
            && policy.semantic
            && wish.may_keep
            && self.is_small(answer)
        {
            let Meaning { found_by, vector } = meaning;
            semantic.keep(found_by, partition.place(policy.scope), answer, vector, policy.ttl_ms());
        }
    }

    /// Takes answers away for good; returns how many. Requests that are on their way are kept when they arrive.
    pub async fn purge(&self, purge: &Purge) -> Result<u64, Error> {
        let mut count = 0;
        if let Some(mut exact) = self.exact() {
            count += exact.purge(purge, self.now_ms());
            self.metrics.holds(Kind::Exact, exact.len(), exact.bytes());
        }
        self.metrics.purged(Kind::Exact, count);
        for shelf in self.disk.iter().chain(&self.semantic) {
            count += shelf.purge(purge).await?;
        }
        Ok(count)
    }
}
