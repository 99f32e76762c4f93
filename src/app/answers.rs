//! Questions to language models: the rooms' parts put together, and what runs beside them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::Deserialize;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::scripts;
use crate::access::{self, Access, Keys, new_key};
use crate::base::{Clock, ClockState, Name};
use crate::cache::{self, Cache, Embed};
use crate::doors::http::{Llm, LlmConfig, LlmMetrics, LlmParts};
use crate::flows::answer::{Answer, Config, Local as _, Metrics, Office, Parts};
#[cfg(feature = "text")]
use crate::flows::languages::Embedding;
use crate::flows::languages::Languages;
use crate::flows::{LeaseEnds, Leases};
use crate::ledger::{self, Ledger};
use crate::price::{self, Builder, LocalPrices, Prices, Source};
use crate::provider::{self, Providers};
use crate::quota::{self, Now, Quota};
use crate::route::{self, Link, NoRoute, RouteConfig, Routes, Settings};
use crate::store::{Schema, Store};
use crate::uplink::LinkState;
use crate::{dialect, store};

/// Tables of these rooms.
pub(super) const SCHEMAS: [Schema; 4] = [access::SCHEMA, cache::SCHEMA, ledger::SCHEMA, quota::SCHEMA];
/// Between looks at who used a key, and at connections that nobody uses.
const LOOK: Duration = Duration::from_secs(60);

/// The sections of the configuration that this is made of, under these names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Sections {
    pub(super) answer: Config,
    pub(super) routing: Settings,
    pub(super) route: Vec<RouteConfig>,
    pub(super) provider: Vec<provider::Config>,
    pub(super) quota: quota::Config,
    pub(super) ledger: ledger::Config,
    pub(super) cache: cache::Config,
    pub(super) prices: price::Config,
    /// `[http.llm]`.
    pub(super) llm: LlmConfig,
    /// `hosts` of `[http]`.
    pub(super) hosts: Vec<String>,
}

/// What it stands on.
pub(super) struct Ground<'a> {
    pub(super) store: &'a Store,
    pub(super) access: Arc<Access>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) registry: &'a mut Registry,
    /// systemd's `$CREDENTIALS_DIRECTORY`.
    pub(super) credentials: Option<PathBuf>,
    /// Models of this box.
    pub(super) languages: Arc<Languages>,
    /// The link at the start: down where there is a cloud that was not reached yet, up where nobody watches one.
    pub(super) link: Link,
    /// What leases of the cloud come over, where a limit asks for them.
    pub(super) leases: Option<LeaseEnds>,
    pub(super) rng: StdRng,
}

/// What came of it.
pub(super) struct Built {
    pub(super) answer: Arc<Answer>,
    pub(super) llm: Arc<Llm>,
    /// What does not work as it is configured, and stops nothing else.
    pub(super) problem: Option<String>,
    quota: Quota,
    leases: Option<Leases>,
    ledger: Ledger,
    access: Arc<Access>,
    clock: Arc<dyn Clock>,
    writer: store::Writer,
}

/// What routes make of the uplink's state.
pub(super) fn link_of(state: &LinkState) -> Link {
    match state {
        // Some messages are refused, so somebody is there.
        LinkState::Up | LinkState::Degraded { .. } => Link::Up,
        LinkState::Metered => Link::Metered,
        LinkState::Down { .. } => Link::Down,
    }
}

/// The identities of the configuration with the keys that were made at run time; before `Access` is shared.
pub(super) async fn with_keys(access: Access, store: &Store, clock: &Arc<dyn Clock>) -> anyhow::Result<Access> {
    let (reader, tenants) = (store.reader(), access.tenants());
    let keys = Keys::open(&reader, store.writer(), Arc::clone(clock), tenants).await.context("failed to read keys")?;
    keys.take_over(&store.wrecks()).await.context("failed to take keys over from a file that was set aside")?;
    Ok(access.with_keys(Arc::new(keys)))
}

/// Puts everything together. Asks nobody.
pub(super) async fn build(sections: Sections, ground: Ground<'_>) -> anyhow::Result<Built> {
    let Sections { answer, routing, route, provider, quota, ledger, cache, prices, llm, hosts } = sections;
    let Ground { store, access, clock, registry, credentials, languages, link, leases, mut rng } = ground;
    let setting =
        |section: &str, (key, problem): (&str, String)| anyhow::anyhow!("failed to use {section}.{key}: {problem}");
    ledger.check().map_err(|wrong| setting("ledger", wrong))?;
    llm.check().map_err(|wrong| setting("http.llm", wrong))?;
    cache.check()?;
    routing.check()?;
    let (embed, problem) = embedding(&cache.semantic, &languages)?;
    let routes = with_this_box(route, &languages)?;

    let provider_metrics = provider::Metrics::default();
    provider_metrics.register(registry);
    let asked_in_texts = provider.clone();
    let scripts = tokio::task::spawn_blocking(move || scripts::read(&asked_in_texts));
    let scripts = scripts.await.context("failed to read chat templates")??;
    let providers = Providers::open(provider, credentials.as_deref(), &clock, &provider_metrics)?;
    let price_metrics = price::Metrics::default();
    price_metrics.register(registry);
    let (prices, local_prices) = read_prices(&prices, &price_metrics).await?;

    let quota = resume_quota(&quota, store, &clock).await?;
    quota.metrics().register(registry);
    let leases = leases.map(|ends| Leases::new(quota.clone(), store.writer(), ends, Arc::clone(&clock)));
    if let Some(leases) = &leases {
        leases.metrics().register(registry);
    }
    let keep_audit = ledger.keep_audit;
    let ledger = Ledger::new(ledger);
    ledger.metrics().register(registry);
    let resuming = ledger.clone();
    store.writer().commit(1, move |tx| resuming.resume(tx)).await.context("failed to read the ledger")?;
    let (reader, writer) = (store.reader(), store.writer());
    let cache = Cache::open(cache, &reader, &writer, Arc::clone(&clock)).await;
    let cache = Arc::new(cache.context("failed to read kept answers")?);
    cache.metrics().register(registry);

    let (metrics, route_metrics) = (Metrics::default(), route::Metrics::default());
    let (dialect_metrics, llm_metrics) = (dialect::Metrics::default(), LlmMetrics::default());
    metrics.register(registry);
    route_metrics.register(registry);
    dialect_metrics.register(registry);
    llm_metrics.register(registry);
    let answer = Arc::new(Answer::new(Parts {
        config: answer,
        routing,
        routes,
        providers,
        scripts,
        local: Some(languages),
        embed,
        quota: quota.clone(),
        cache: Arc::clone(&cache),
        ledger: ledger.clone(),
        prices: Arc::new(prices),
        local_prices,
        link,
        clock: Arc::clone(&clock),
        chance: StdRng::from_rng(&mut rng),
        metrics,
        route_metrics,
        price_metrics,
        dialect_metrics,
        on_warning: Box::new(|warning| {
            let (unit, span) = (warning.unit.as_str(), warning.span.as_str());
            tracing::warn!(level = %warning.level, unit, span, percent = warning.percent, "a budget reached a share of its limit");
        }),
    })?);
    let office = Office::new(store.reader(), store.writer(), quota.clone(), cache, Arc::clone(&clock), keep_audit);
    let (ids, keys) = (Mutex::new(StdRng::from_rng(&mut rng)), Mutex::new(StdRng::from_rng(&mut rng)));
    let parts = LlmParts {
        answer: Arc::clone(&answer),
        office: Arc::new(office),
        access: Arc::clone(&access),
        hosts,
        metrics: llm_metrics,
        clock: Arc::clone(&clock),
        request_id: Box::new(move || {
            hex::encode(ids.lock().unwrap_or_else(PoisonError::into_inner).random::<[u8; 8]>())
        }),
        new_key: Box::new(move || new_key(&mut *keys.lock().unwrap_or_else(PoisonError::into_inner))),
    };
    let llm = Arc::new(Llm::new(llm, parts));
    Ok(Built { answer, llm, problem, quota, leases, ledger, access, clock, writer: store.writer() })
}

impl Built {
    /// Writes budgets and records behind, follows the link, and looks after keys and providers, until `stop`; then writes
    /// what is left. `link` is what is seen of it; none: nobody watches one.
    pub(super) async fn run(self, mut link: Option<watch::Receiver<LinkState>>, stop: CancellationToken) {
        let Self { answer, quota, leases, ledger, access, clock, writer, llm: _, problem: _ } = self;
        let looks = async {
            loop {
                sleep(LOOK).await;
                answer.tidy();
                if let Some(keys) = access.keys()
                    && let Err(error) = keys.save_used().await
                {
                    tracing::warn!(%error, "when keys were last used could not be written");
                }
            }
        };
        let probes = async {
            let Some(every) = answer.probes_every() else { return std::future::pending().await };
            loop {
                sleep(every).await;
                answer.probe().await;
            }
        };
        let follows = async {
            let Some(link) = &mut link else { return std::future::pending().await };
            loop {
                let seen = link_of(&link.borrow_and_update());
                answer.see_link(seen);
                if link.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        };
        let lending = async {
            if let Some(leases) = leases {
                leases.run(stop.clone()).await;
            }
            // Without a link nothing is lent, and everything else goes on.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = lending => {}
            () = quota.keep(&writer) => {}
            () = ledger.keep(&writer, &*clock) => {}
            () = looks => {}
            () = probes => {}
            () = follows => {}
        }
        if let Some(keys) = access.keys() {
            let _ = keys.save_used().await;
        }
        let now_ms = (clock.state() != ClockState::Unsynced).then(|| clock.wall_ms());
        for (what, written) in [
            ("budgets", quota.flush(&writer).await.map(|_| ())),
            ("records", ledger.flush(&writer, now_ms).await.map(|_| ())),
        ] {
            if let Err(error) = written {
                tracing::error!(%error, what, "could not be written at the end");
            }
        }
    }
}

/// Whether there is anybody to ask.
pub(super) fn anybody(route: &[RouteConfig], languages: &Languages) -> bool {
    !route.is_empty() || !languages.models().is_empty()
}

/// The routes, and one to each model of this box that none of them answers for: it answers to its own name.
fn with_this_box(mut route: Vec<RouteConfig>, languages: &Languages) -> anyhow::Result<Routes> {
    let routes = Routes::new(&route)?;
    let before = route.len();
    for model in languages.models() {
        let is_known = !matches!(routes.find(&route::Ask::new(&model.name, "", 0)), Err(NoRoute::Unknown));
        let Ok(name) = Name::new(&format!("local-{}", model.name)) else { continue };
        if !is_known && route.iter().all(|other| other.name != name) {
            route.push(RouteConfig::to_this_box(name, &model.name));
        }
    }
    if route.len() == before { Ok(routes) } else { Ok(Routes::new(&route)?) }
}

/// Who makes vectors of texts; none: nobody.
type Embedder = Option<Arc<dyn Embed>>;

/// Who makes vectors of requests, if answers are found by what a request means. A model that cannot is a problem, and no
/// reason to stand still.
#[cfg_attr(not(feature = "text"), allow(unused_variables, reason = "nobody makes vectors"))]
fn embedding(config: &cache::SemanticConfig, languages: &Arc<Languages>) -> anyhow::Result<(Embedder, Option<String>)> {
    if config.max_entries == 0 {
        return Ok((None, None));
    }
    let model = config.model.as_str();
    if model.is_empty() {
        let most = config.max_entries;
        anyhow::bail!(
            "failed to use cache.semantic: max_entries is {most}, and model does not say who makes vectors of texts"
        );
    }
    #[cfg(feature = "text")]
    let made = Embedding::new(Arc::clone(languages), model).map(|embedding| Arc::new(embedding) as Arc<dyn Embed>);
    #[cfg(not(feature = "text"))]
    let made = Err::<Arc<dyn Embed>, _>("this build has no tokenizers; build with --features text".to_owned());
    Ok(match made {
        Ok(embed) => (Some(embed), None),
        Err(reason) => {
            let problem =
                format!("no answer is found by what a request means: cache.semantic.model = {model:?}: {reason}");
            tracing::error!("{problem}");
            (None, Some(problem))
        }
    })
}

/// What budgets have spent so far, from this file or from one that was set aside.
async fn resume_quota(config: &quota::Config, store: &Store, clock: &Arc<dyn Clock>) -> anyhow::Result<Quota> {
    let now = Now::of(&**clock);
    let quota = Quota::new(config, now)?;
    let wreck = store.wrecks().last().cloned();
    let before = tokio::task::spawn_blocking(move || {
        let wreck = wreck.filter(|wreck| !wreck.is_log_rotten())?;
        let found = wreck.connect().and_then(|connection| quota::remembered(&connection));
        found.inspect_err(|error| tracing::warn!(%error, "budgets of a file that was set aside cannot be read")).ok()
    });
    let before = before.await.context("failed to look for budgets of a file that was set aside")?;
    let resuming = quota.clone();
    let resumed = store.writer().commit(1, move |tx| resuming.resume(tx, before.as_ref(), now)).await;
    let resumed = resumed.context("failed to read budgets")?;
    if resumed.charged > 0 {
        tracing::warn!(
            budgets = resumed.charged,
            "requests were under way when the gateway died; they are charged as reserved"
        );
    }
    Ok(quota)
}

async fn read_prices(config: &price::Config, metrics: &price::Metrics) -> anyhow::Result<(Prices, LocalPrices)> {
    let (config, metrics) = (config.clone(), metrics.clone());
    let reading = tokio::task::spawn_blocking(move || {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("failed to read prices {}", path.display()));
        let mut builder = Builder::new(&config)?;
        if let Some(path) = &config.litellm_file {
            metrics.table(Source::LiteLlm, &builder.add_litellm(&read(path)?)?);
        }
        if let Some(path) = &config.models_dev_file {
            metrics.table(Source::ModelsDev, &builder.add_models_dev(&read(path)?)?);
        }
        let (prices, remarks) = builder.build();
        for remark in remarks {
            tracing::warn!("{remark}");
        }
        Ok((prices, LocalPrices::new(&config.local)?))
    });
    reading.await.context("failed to read prices")?
}
