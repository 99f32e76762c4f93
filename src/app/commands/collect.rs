//! `forebay collect`

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::{accounts, note, progress, progress_done, say};
use crate::app::cli::{CollectArgs, PostgresArgs};
use crate::base::{Clock, Name, SystemClock};
use crate::flows::{COLLECT_SCHEMA, Collect, CollectConfig, CollectMetrics, InboxSink, Rejects, Sink};
use crate::inbox::{self, Inbox, Report};
use crate::store::{self, Reader, Store};
use crate::telemetry;
use crate::uplink::{self, Receiver, ReceiverConfig, TlsConfig};

/// How often the progress line changes.
const PROGRESS_EVERY: std::time::Duration = std::time::Duration::from_millis(500);
/// Most missing ranges of one series in a report.
#[cfg(feature = "postgres")]
const REPORTED_RANGES: usize = 100;

/// Looks at what was collected, also while it is being collected.
pub(crate) fn look(state: &Path, clock: &Arc<dyn Clock>) -> Result<Reader> {
    if !state.join("forebay.db").exists() {
        bail!("nothing was collected in {} yet", state.display());
    }
    Ok(Reader::of_another_process(&store::Config::at(state), Arc::clone(clock))?)
}

fn open(state: &Path, clock: &Arc<dyn Clock>) -> Result<Store> {
    let config = store::Config::at(state);
    let (store, opened) = Store::open(&config, &[inbox::SCHEMA, COLLECT_SCHEMA], Arc::clone(clock))?;
    if let Some(file) = opened.quarantined {
        note(format_args!("the database was damaged and set aside as {}", file.display()));
    }
    Ok(store)
}

/// A flow that receives, whatever the sources are.
struct Flow {
    metrics: CollectMetrics,
    running: Pin<Box<dyn Future<Output = ()> + Send>>,
}

/// Where rows go, and what has to be closed after them.
struct Kept {
    sink: Arc<dyn Sink>,
    store: Option<Store>,
    place: String,
}

/// Receives until `stop`.
pub(crate) async fn run(args: &CollectArgs, stop: CancellationToken) -> Result<ExitCode> {
    telemetry::start(&telemetry::Config { filter: "warn".to_owned(), ..Default::default() }, false)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tenant = Name::new(&args.tenant).context("failed to use that tenant")?;
    let Kept { sink, store, place } = keep(args, &clock).await?;
    let from = args.stream.server.nats.as_ref().unwrap_or(&args.broker);
    let Flow { metrics, running } = match &args.stream.server.nats {
        None => from_mqtt(args, &tenant, sink, &clock, stop)?,
        Some(server) => from_nats(args, server, &tenant, sink, &clock, stop)?,
    };
    note(format_args!("receiving tenant {tenant} from {from} into {place}"));
    let watching = async {
        loop {
            tokio::time::sleep(PROGRESS_EVERY).await;
            progress(format_args!(
                "{} rows in {} batches, {} repeated, {} rejected, {} connections lost",
                metrics.rows.get(),
                metrics.batches.get(),
                metrics.duplicates.get(),
                metrics.rejected.get(),
                metrics.failures.get()
            ));
        }
    };
    tokio::select! {
        () = running => {}
        () = watching => {}
    }
    progress_done();
    if let Some(store) = store {
        tokio::task::spawn_blocking(move || store.close()).await.context("failed to close the store")?;
    }
    say(format_args!("{} rows received", metrics.rows.get()));
    Ok(ExitCode::SUCCESS)
}

fn link(args: &CollectArgs, server: &str) -> Result<uplink::Config> {
    let (host, port) = super::replay::host_and_port(server)?;
    let tls = args.ca.clone().map(|ca_file| TlsConfig {
        ca_file,
        certificate_file: args.certificate.clone(),
        key_file: args.key.clone(),
        server_name: None,
    });
    let (username, password_file) = (args.user.clone(), args.password_file.clone());
    Ok(uplink::Config { host, port, tls, username, password_file, ..uplink::Config::default() })
}

fn from_mqtt(
    args: &CollectArgs,
    tenant: &Name,
    sink: Arc<dyn Sink>,
    clock: &Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<Flow> {
    let wanted = ReceiverConfig { filters: vec![format!("fleet/v1/{tenant}/+/+/+")], ..ReceiverConfig::default() };
    let receiver = Receiver::new(link(args, &args.broker)?, wanted, &args.client_id, Arc::clone(clock))?;
    let collect = Collect::new(receiver, sink, CollectConfig::default(), StdRng::from_os_rng());
    Ok(Flow { metrics: collect.metrics().clone(), running: Box::pin(collect.run(stop)) })
}

#[cfg(feature = "nats")]
fn from_nats(
    args: &CollectArgs,
    server: &str,
    tenant: &Name,
    sink: Arc<dyn Sink>,
    clock: &Arc<dyn Clock>,
    stop: CancellationToken,
) -> Result<Flow> {
    use crate::flows::{CollectStream, StreamBatch};
    use crate::uplink::{StreamReceiver, StreamReceiverConfig, StreamSettings};
    let link = super::over_nats(&args.stream.server, link(args, server)?)?;
    let settings = || StreamSettings {
        replicas: args.stream.replicas,
        max_bytes: args.stream.max_bytes,
        ..StreamSettings::default()
    };
    let wanted = StreamReceiverConfig {
        consumer: Name::new(&args.stream.consumer).context("failed to use that consumer")?,
        filter: format!("fleet/v1/{tenant}/+/+/+"),
        ack_wait_ms: args.stream.ack_wait_s.saturating_mul(1000),
        create_stream: args.stream.create_stream.then(settings),
        ..StreamReceiverConfig::default()
    };
    let receiver = StreamReceiver::new(link, wanted, &args.client_id, Arc::clone(clock))?;
    let batch = StreamBatch { commits: args.postgres.connections.max(1), ..StreamBatch::default() };
    let collect = CollectStream::new(receiver, sink, batch, CollectConfig::default(), StdRng::from_os_rng());
    Ok(Flow { metrics: collect.metrics().clone(), running: Box::pin(collect.run(stop)) })
}

#[cfg(not(feature = "nats"))]
fn from_nats(
    _: &CollectArgs,
    _: &str,
    _: &Name,
    _: Arc<dyn Sink>,
    _: &Arc<dyn Clock>,
    _: CancellationToken,
) -> Result<Flow> {
    bail!("this build has no NATS in it")
}

async fn keep(args: &CollectArgs, clock: &Arc<dyn Clock>) -> Result<Kept> {
    if let Some(server) = &args.postgres.server {
        let place = format!("PostgreSQL {server}/{}", args.postgres.database);
        return Ok(Kept { sink: warehouse_sink(&args.postgres, server, clock)?, store: None, place });
    }
    let (opening, state) = (Arc::clone(clock), args.state.clone());
    let store =
        tokio::task::spawn_blocking(move || open(&state, &opening)).await.context("failed to open the store")??;
    let inbox = Inbox::new(inbox::Config::default());
    let sink = InboxSink::new(store.writer(), inbox, Arc::clone(clock), Rejects::default());
    Ok(Kept { sink: Arc::new(sink), store: Some(store), place: args.state.display().to_string() })
}

#[cfg(feature = "postgres")]
fn warehouse(args: &PostgresArgs, server: &str, clock: &Arc<dyn Clock>) -> Result<Arc<inbox::Warehouse>> {
    let (host, port) = super::replay::host_and_port(server)?;
    let config = inbox::WarehouseConfig {
        host,
        port,
        user: args.role.clone(),
        password_file: args.role_password_file.clone(),
        database: args.database.clone(),
        connections: args.connections,
        partitions: args.partitions,
        ..inbox::WarehouseConfig::default()
    };
    let tls = args.server_ca.clone().map(|ca_file| {
        let tls = TlsConfig {
            ca_file,
            certificate_file: args.role_certificate.clone(),
            key_file: args.role_key.clone(),
            server_name: None,
        };
        let clock = Arc::clone(clock);
        Arc::new(move || uplink::client_tls(&tls, &clock).map_err(|error| error.to_string())) as inbox::TlsFiles
    });
    // A mistake in a file's name is said now and not by every attempt.
    if let Some(files) = &tls {
        files().map_err(anyhow::Error::msg)?;
    }
    Ok(Arc::new(inbox::Warehouse::new(config, tls)?))
}

#[cfg(feature = "postgres")]
fn warehouse_sink(args: &PostgresArgs, server: &str, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Sink>> {
    let warehouse = warehouse(args, server, clock)?;
    let limits = inbox::Config::default();
    Ok(Arc::new(crate::flows::WarehouseSink::new(warehouse, limits, Arc::clone(clock), Rejects::default())))
}

#[cfg(not(feature = "postgres"))]
fn warehouse_sink(_: &PostgresArgs, _: &str, _: &Arc<dyn Clock>) -> Result<Arc<dyn Sink>> {
    bail!("this build has no PostgreSQL in it")
}

#[cfg(feature = "postgres")]
async fn read_warehouse(args: &CollectArgs, server: &str, clock: &Arc<dyn Clock>) -> Result<Report> {
    let tenant = Name::new(&args.tenant).context("failed to use that tenant")?;
    Ok(warehouse(&args.postgres, server, clock)?.report(&tenant, REPORTED_RANGES).await?)
}

#[cfg(not(feature = "postgres"))]
async fn read_warehouse(_: &CollectArgs, _: &str, _: &Arc<dyn Clock>) -> Result<Report> {
    bail!("this build has no PostgreSQL in it")
}

/// What each series has and misses; exit code 1 if a number is unaccounted for.
pub(crate) async fn report(args: &CollectArgs) -> Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let report = match &args.postgres.server {
        Some(server) => read_warehouse(args, server, &clock).await?,
        None => {
            let inbox = Inbox::new(inbox::Config::default());
            look(&args.state, &clock)?.read(move |conn| Ok(inbox.report(conn))).await??
        }
    };
    accounts::show(&report, args.json);
    Ok(if report.missing() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
