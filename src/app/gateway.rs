//! Building the gateway from its configuration, running it, and draining it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::answers;
use super::config::Config;
use super::cpu;
use super::memory;
use super::metered::Metered;
use super::notify::{self, Vitals};
use super::resources::Resources;
use crate::access::Access;
use crate::base::{Clock, Name, SystemClock};
use crate::broker::{self, Broker};
use crate::catalog::Catalog;
use crate::engine::{self, Pool, delegate};
use crate::flows::board::{Alert, Board};
use crate::flows::inference::Inference;
use crate::flows::intake::Intake;
use crate::flows::languages::{self, Languages};
use crate::flows::logging::Logging;
use crate::flows::models::Models;
use crate::flows::predict::Predict;
use crate::flows::query::{self, LinkWatch, Query};
use crate::flows::raw::Raw;
use crate::flows::repository::Repository;
use crate::flows::salvage::Salvage;
use crate::flows::sense::{self, Sense};
use crate::flows::{
    AcknowledgedBy, Address, InPlaceOfRows, LeaseEnds, Requests, SYNC_SCHEMA, Sync, SyncConfig, keep_queue,
};
use crate::history::{self, History};
use crate::outbox::{self, Outbox};
use crate::route::Link;
use crate::store::{self, Store};
use crate::telemetry::{Logs, Registry};
use crate::uplink::{AnyUplink, Ears};
use crate::{doors, flows, generate, signal};

/// How often the queue's depth is looked at for its deepest point.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How long streams may take to commit what they hold at the end.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Everything that was built and not yet started.
struct Built {
    store: Store,
    outbox: Outbox,
    history: History,
    broker: Broker,
    mqtt: doors::mqtt::Door,
    http: (TcpListener, Arc<doors::http::Door>),
    #[cfg(feature = "grpc")]
    grpc: Option<(TcpListener, doors::grpc::Config, doors::grpc::Parts)>,
    query: Arc<Query>,
    sync: Option<Sync<AnyUplink, StdRng>>,
    requests: Option<Requests>,
    salvage: Salvage,
    pool: Arc<Pool>,
    tasks: TaskTracker,
    /// Ends the streams.
    streams_end: CancellationToken,
}

/// Runs a gateway until `stop`, then drains it: no new messages, what is in hand is committed, the queue is closed.
pub(super) async fn run(config: Config, logs: Logs, stop: CancellationToken) -> Result<()> {
    let clock = Arc::new(SystemClock::new());
    let started = clock.since_boot();
    // Boxed: it holds every part while it puts them together.
    let built = Box::pin(build(config, logs, Arc::clone(&clock))).await?;
    let Built {
        store,
        outbox,
        history,
        broker,
        mqtt,
        http: (listener, door),
        #[cfg(feature = "grpc")]
        grpc,
        query,
        sync,
        requests,
        salvage,
        pool,
        tasks,
        streams_end,
    } = built;
    let (doors_end, link_end) = (CancellationToken::new(), CancellationToken::new());
    let addresses: Vec<_> = mqtt.addresses().iter().map(ToString::to_string).collect();
    let page = listener.local_addr().context("failed to read the HTTP door's address")?;
    let scheme = if door.speaks_tls() { "https" } else { "http" };
    let ready_ms = clock.since_boot().saturating_sub(started).as_millis();
    tracing::info!(mqtt = addresses.join(" "), http = %page, ready_ms = ready_ms as u64, "ready");
    #[cfg(feature = "grpc")]
    if let Some((listener, ..)) = &grpc {
        let address = listener.local_addr().context("failed to read the gRPC door's address")?;
        tracing::info!(%address, "gRPC inference");
    }
    notify::ready(&format!("MQTT on {}, page on {scheme}://{page}/", addresses.join(" ")));

    let doors = TaskTracker::new();
    doors.spawn(mqtt.serve(doors_end.clone()));
    doors.spawn(doors::http::serve(listener, door, doors_end.clone()));
    #[cfg(feature = "grpc")]
    if let Some((listener, config, parts)) = grpc {
        doors.spawn(doors::grpc::serve(listener, config, parts, doors_end.clone()));
    }
    doors.close();
    tasks.spawn(broker.clone().run(link_end.clone()));
    tasks.spawn(watch_queue(query, link_end.clone()));
    tasks.spawn(keep_queue(outbox.clone(), link_end.clone()));
    tasks.spawn(outbox.clone().pack_until(link_end.clone()));
    tasks.spawn(history.keeper(store.reader(), store.writer()).run(link_end.clone()));
    let vitals = Vitals { writer: store.writer(), broker: broker.clone(), pool: Arc::clone(&pool) };
    tasks.spawn(notify::feed_watchdog(vitals, link_end.clone()));
    tasks.spawn(salvage.run(link_end.clone()));
    tasks.spawn(memory::stay_small(pool.metrics().clone(), link_end.clone()));
    if let Some(sync) = sync {
        tasks.spawn(sync.run(link_end.clone()));
    }
    if let Some(requests) = requests {
        tasks.spawn(requests.run(link_end.clone()));
    }
    tasks.close();

    memory::give_back_unused_code();

    let healed_by_restart = damaged(store.health());
    let damage = tokio::select! {
        () = stop.cancelled() => None,
        what = healed_by_restart => Some(what),
    };
    tracing::info!("stopping: taking nothing new, committing what is in hand");
    notify::stopping();
    doors_end.cancel();
    broker.stop();
    doors.wait().await;
    streams_end.cancel();
    link_end.cancel();
    if tokio::time::timeout(DRAIN_LIMIT, tasks.wait()).await.is_err() {
        tracing::warn!(
            limit_s = DRAIN_LIMIT.as_secs(),
            "some tasks did not end in time; nothing they hold was acknowledged"
        );
    }
    // The streams needed it to the end.
    drop(pool);
    drop(broker);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = store.writer().commit_blocking(move |tx| history.close(tx)) {
            tracing::error!(error = %error, "failed to close the numbering; the next start goes on above the reserved numbers");
        }
        if let Err(error) = outbox.close() {
            tracing::error!(error = %error, "failed to close the queue; the next start goes on above the reserved numbers");
        }
        store.close();
    })
    .await
    .context("failed to close the store")?;
    match damage {
        None => Ok(()),
        Some(what) => {
            bail!("the database needs a new start: {what}")
        }
    }
}

/// Resolves when the database is found to be damaged in a way that only a new start mends.
async fn damaged(mut disk: watch::Receiver<store::Health>) -> String {
    loop {
        if let store::Health::Failing { restart_heals: true, what, .. } = &*disk.borrow_and_update() {
            return what.to_string();
        }
        if disk.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn build(config: Config, logs: Logs, clock: Arc<SystemClock>) -> Result<Built> {
    let Config {
        gateway,
        log: _,
        store,
        outbox,
        history,
        catalog,
        engine,
        predict,
        delegate,
        access,
        broker,
        mqtt,
        http,
        #[cfg(feature = "grpc")]
        grpc,
        shared_memory,
        cloud,
        sync,
        stream,
        generate,
        answer,
        routing,
        route,
        provider,
        quota,
        ledger,
        cache,
        prices,
    } = config;
    let access = Access::new(&access)?;
    // Doors first: a taken port is said before anything is touched.
    let listener = doors::http::bind(&http).await?;
    #[cfg(feature = "grpc")]
    let grpc = match grpc {
        Some(config) => Some((doors::grpc::bind(&config).await?, config)),
        None => None,
    };
    let any_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let http_tls = doors::http::acceptor(&http, &any_clock)?;
    #[cfg(feature = "grpc")]
    let grpc_tls = match &grpc {
        Some((_, config)) => doors::grpc::acceptor(config, &any_clock)?,
        None => None,
    };

    let store_config = store;
    let state_dir = store_config.state_dir.clone();
    let database = store_config.state_dir.join("forebay.db");
    let own = [history::SCHEMA, outbox::SCHEMA, broker::SCHEMA, SYNC_SCHEMA];
    let schemas: Vec<_> = own.into_iter().chain(answers::SCHEMAS).collect();
    let outbox_config = outbox;
    let opening = Arc::clone(&clock);
    let outbox_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let runtime = tokio::runtime::Handle::current();
    let (store, opened, outbox, broker) = tokio::task::spawn_blocking(move || {
        let open = || {
            let (store, opened) = Store::open(&store_config, &schemas, Arc::clone(&opening) as _)?;
            opening.raise_floor(opened.last_wall_ms);
            let outbox = Outbox::open(&outbox_config, &store, opened.epoch, Arc::clone(&outbox_clock))?;
            let broker = Broker::open(broker.clone(), &store, Arc::clone(&outbox_clock));
            let broker = runtime.block_on(broker)?;
            Ok::<_, anyhow::Error>((store, opened, outbox, broker))
        };
        // Damage may show only when the queue or the sessions are read; the store has marked the file by then and sets it aside now.
        open().or_else(|error| {
            tracing::error!(error = format!("{error:#}"), "failed to open the queue; trying once more");
            open()
        })
    })
    .await
    .context("failed to open the store")??;
    let clock: Arc<dyn Clock> = clock;
    let access = Arc::new(answers::with_keys(access, &store, &clock).await?);

    let mut problems = Vec::new();
    if let Some(file) = &opened.quarantined {
        problems.push(format!(
            "the database was damaged and set aside as {}; epoch {} began, and its queue is being salvaged",
            file.display(),
            opened.epoch
        ));
    }
    let resources = Resources::new(Path::new("/proc"), Path::new("/sys"));
    let mut engine = engine;
    if engine.memory_bytes_max == 0 {
        engine.memory_bytes_max = resources.memory_for_models().unwrap_or(0);
    }
    if let Err((key, problem)) = catalog.check() {
        bail!("failed to set up the models: {key}: {problem}");
    }
    if let Err((key, problem)) = generate.check() {
        bail!("failed to set up the models: generate.{key} {problem}");
    }
    let delegate_metrics = delegate::Metrics::default();
    let mut engines = match delegate {
        Some(config) => {
            // Hosts have it as part of their home's path, so it must hold wherever they are.
            let folder = config.work_folder.clone().unwrap_or_else(|| state_dir.join("delegate"));
            let folder = std::path::absolute(folder).context("failed to use delegate.work_folder")?;
            delegate::delegates(config.within(engine.thread_count()), &folder, &clock, &delegate_metrics)?
        }
        None => Vec::new(),
    };
    engines.extend(engine::built_in());
    // Loading a model touches more code than anything else: it must not come on top of what opening the store has touched.
    memory::give_back_unused_code();
    let pool = Arc::new(Pool::start(&engine, engines, Arc::clone(&clock))?);
    let models = {
        let (pool, clock) = (Arc::clone(&pool), Arc::clone(&clock));
        let (catalog, state_dir) = (catalog.clone(), state_dir.clone());
        let loading = move || Models::load(&Catalog::scan(&catalog), &catalog, &state_dir, &pool, clock);
        Arc::new(tokio::task::spawn_blocking(loading).await.context("failed to load the models")?)
    };
    memory::give_back_unused_code();
    problems.extend(models.problems().iter().cloned());

    let (salvage, salvage_says) = Salvage::new(outbox.clone(), broker.clone(), store.wrecks());
    let board = Arc::new(Board::new(stream.iter().map(|stream| stream.name.clone())));
    let history = History::new(history).in_file_of(store.insert_bytes());
    flows::salvage::take_over(&history, &store).await.context("failed to take over what streams remembered")?;
    let signals = signal::Metrics::default();
    let (tasks, streams_end) = (TaskTracker::new(), CancellationToken::new());
    outbox.summarise_with(Arc::new(InPlaceOfRows::new(&stream)));
    let parts = sense::Parts {
        clock: Arc::clone(&clock),
        writer: store.writer(),
        reader: store.reader(),
        history: history.clone(),
        outbox: outbox.clone(),
        models: Arc::clone(&models),
        board: Arc::clone(&board),
        broker: broker.clone(),
        metrics: signals.clone(),
    };
    let (sense, newscast, stream_problems) = Sense::start(&stream, parts, &tasks, &streams_end).await?;
    problems.extend(stream_problems);
    let sense = Arc::new(sense);
    tasks.spawn(resources.watch(Arc::clone(&pool), streams_end.clone()));
    tasks.spawn(Arc::clone(&models).keep(streams_end.clone()));
    broker.attach(Arc::clone(&sense) as _);
    let news = newscast.metrics().clone();
    tasks.spawn(newscast.run(standing_alarms(&sense, &store).await?));

    let mut registry = Registry::with_prefix("forebay");
    store.metrics().register(&mut registry);
    outbox.metrics().register(&mut registry);
    history::register(&mut registry);
    history.metrics().register(&mut registry);
    broker.metrics().register(&mut registry);
    pool.metrics().register(&mut registry);
    delegate_metrics.register(&mut registry);
    flows::register_models(Arc::downgrade(&models), &mut registry);
    access.metrics().register(&mut registry);
    signals.register(&mut registry);
    news.register(&mut registry);

    let inference = Inference::new(Arc::clone(&models), Arc::clone(&clock)).seeded(StdRng::from_os_rng());
    let inference = Arc::new(inference);
    let generate_metrics = generate::Metrics::default();
    let languages = Arc::new(Languages::new(languages::Parts {
        inference: Arc::clone(&inference),
        config: generate,
        metrics: generate_metrics.clone(),
        clock: Arc::clone(&clock),
        chance: StdRng::from_os_rng(),
        cpu: cpu::of_this_thread,
    }));
    let has_leases = sync.leases_per_minute > 0 && quota.limit.iter().any(|limit| !limit.leased.is_empty());
    let (sync, link, asking, lease_ends) = match cloud {
        None => (None, None, None, None),
        Some(cloud) => {
            let client_id = format!("forebay-{}", gateway.name);
            let sync: SyncConfig = sync;
            if let Err((key, problem)) = sync.check() {
                bail!("failed to set up the uplink: sync.{key} {problem}");
            }
            let uplink = AnyUplink::new(cloud, &client_id, Arc::clone(&clock))?.listening(ears(
                &sync,
                &gateway.name,
                has_leases,
            ));
            uplink.metrics().register(&mut registry);
            let rng = StdRng::from_os_rng();
            let (answers, per_minute) = (Address::responses(&sync.tenant, &gateway.name), sync.requests_per_minute);
            let leases_per_minute = sync.leases_per_minute;
            let watches_routes = sync.metered == flows::Metered::Auto;
            let mut sync =
                Sync::new(outbox.clone(), store.writer(), uplink, gateway.name, Arc::clone(&clock), sync, rng);
            if watches_routes {
                let (metered, told) = Metered::new(Path::new("/proc"), Path::new("/sys"));
                tasks.spawn(metered.run(streams_end.clone()));
                sync = sync.metered_by(told);
            }
            let link = LinkWatch { state: sync.link(), metrics: sync.metrics().clone() };
            // Without anybody to ask there is no budget to lend to: the requests' story says so to the cloud.
            let lease_ends = (has_leases && answers::anybody(&route, &languages)).then(|| {
                let ((asked, say), topic) = (sync.leases(), answers.clone());
                LeaseEnds { asked, say, topic, per_minute: leases_per_minute, link: sync.link() }
            });
            let asking = (sync.requests(), answers, per_minute);
            sync.metrics().register(&mut registry);
            (Some(sync), Some(link), Some(asking), lease_ends)
        }
    };
    let llm = if answers::anybody(&route, &languages) {
        generate_metrics.register(&mut registry);
        let (llm, hosts) = (http.llm.clone(), http.hosts.clone());
        let sections = answers::Sections { answer, routing, route, provider, quota, ledger, cache, prices, llm, hosts };
        let state = link.as_ref().map(|link: &LinkWatch| link.state.clone());
        let ground = answers::Ground {
            store: &store,
            access: Arc::clone(&access),
            clock: Arc::clone(&clock),
            registry: &mut registry,
            credentials: credentials(),
            languages,
            link: state.as_ref().map_or(Link::Up, |state| answers::link_of(&state.borrow())),
            leases: lease_ends,
            rng: StdRng::from_os_rng(),
        };
        let built = answers::build(sections, ground).await?;
        let llm = Arc::clone(&built.llm);
        problems.extend(built.problem.clone());
        tasks.spawn(built.run(state, streams_end.clone()));
        Some(llm)
    } else {
        None
    };
    let mqtt = doors::mqtt::Door::bind(mqtt, broker.clone(), Arc::clone(&access), Arc::clone(&clock)).await?;
    mqtt.metrics().register(&mut registry);
    let http_metrics = doors::http::Metrics::default();
    http_metrics.register(&mut registry);
    let query = Arc::new(Query::new(query::Parts {
        board,
        sense: Arc::clone(&sense),
        models: Arc::clone(&models),
        reader: store.reader(),
        disk: store.health(),
        outbox: outbox.clone(),
        link,
        problems,
        salvage: salvage_says,
        database,
    }));
    let raw = Arc::new(Raw {
        sense: Arc::clone(&sense),
        reader: store.reader(),
        writer: store.writer(),
        history: history.clone(),
        outbox: outbox.clone(),
        clock: Arc::clone(&clock),
    });
    let requests = asking.map(|(ends, answers, per_minute)| {
        let requests = Requests::new(Arc::clone(&raw), ends, answers, per_minute, Arc::clone(&clock));
        requests.metrics().register(&mut registry);
        requests
    });
    tasks.spawn(Arc::clone(&inference).shadow(streams_end.clone()));
    let predict = Arc::new(Predict::new(Arc::clone(&inference), Arc::clone(&clock), predict));
    predict.metrics().register(&mut registry);
    let repository = Arc::new(Repository::new(models, catalog));
    let regions = Arc::new(doors::shared_memory::Regions::new(shared_memory));
    let logging = Arc::new(Logging::new(logs.level(), Box::new(move |level| logs.set_level(level))));
    #[cfg(feature = "grpc")]
    let grpc = grpc.map(|(listener, config)| {
        let parts = doors::grpc::Parts {
            query: Arc::clone(&query),
            inference: Arc::clone(&inference),
            repository: Arc::clone(&repository),
            access: Arc::clone(&access),
            regions: Arc::clone(&regions),
            logging: Arc::clone(&logging),
            tls: grpc_tls,
        };
        (listener, config, parts)
    });
    let ids = Mutex::new(StdRng::from_os_rng());
    let door = doors::http::Door::new(
        http,
        doors::http::Parts {
            query: Arc::clone(&query),
            intake: Arc::new(Intake::new(sense)),
            raw,
            inference,
            predict,
            repository,
            access,
            regions,
            logging,
            llm,
            tls: http_tls,
            registry: Arc::new(Mutex::new(registry)),
            metrics: http_metrics,
            clock,
            request_id: Box::new(move || {
                let mut rng = ids.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                format!("{:016x}", rng.random::<u64>())
            }),
        },
    );
    Ok(Built {
        store,
        outbox,
        history,
        broker,
        mqtt,
        http: (listener, Arc::new(door)),
        #[cfg(feature = "grpc")]
        grpc,
        query,
        sync,
        requests,
        salvage,
        pool,
        tasks,
        streams_end,
    })
}

/// Where systemd has put what `LoadCredential=` names.
#[allow(clippy::disallowed_methods, reason = "the environment is read here and nowhere below")]
fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// What a gateway listens to: receipts where they count, and requests where they, or leases, are taken.
fn ears(sync: &SyncConfig, gateway: &Name, has_leases: bool) -> Ears {
    let receipts = (sync.acknowledged_by == AcknowledgedBy::Receiver).then(|| Address::receipts(&sync.tenant, gateway));
    let hears_requests = sync.requests_per_minute > 0 || has_leases;
    let requests = hears_requests.then(|| Address::requests(&sync.tenant, gateway));
    let filters = receipts.iter().chain(&requests).cloned().collect();
    Ears { filters, response_topic: receipts, answers: Some(Address::responses(&sync.tenant, gateway)) }
}

/// The alarms that stand, as the disk has them: said again on the local broker, whose retained state may be older.
async fn standing_alarms(sense: &Sense, store: &Store) -> Result<Vec<(String, Option<Alert>)>> {
    let streams: Vec<_> = sense.streams().map(|about| (about.config.name.to_string(), about.no)).collect();
    let reader = store.reader();
    let read = reader.read(move |conn| {
        let standing = |(name, no)| Ok((name, history::open_alert(conn, no)?.map(query::alert_view)));
        streams.into_iter().map(standing).collect()
    });
    read.await.context("failed to read the standing alarms")
}

async fn watch_queue(query: Arc<Query>, stop: CancellationToken) {
    while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
        let _ = query.queue().await;
    }
}
