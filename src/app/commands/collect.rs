//! `forebay collect`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio_util::sync::CancellationToken;

use super::{accounts, note, progress, progress_done, say};
use crate::app::cli::CollectArgs;
use crate::base::{Clock, Name, SystemClock};
use crate::flows::{COLLECT_SCHEMA, Collect, CollectConfig, InboxSink, Rejects};
use crate::inbox::{self, Inbox};
use crate::store::{self, Reader, Store};
use crate::telemetry;
use crate::uplink::{self, Receiver, ReceiverConfig, TlsConfig};

/// How often the progress line changes.
const PROGRESS_EVERY: std::time::Duration = std::time::Duration::from_millis(500);

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

/// Receives until `stop`.
pub(crate) async fn run(args: &CollectArgs, stop: CancellationToken) -> Result<ExitCode> {
    telemetry::start(&telemetry::Config { filter: "warn".to_owned(), ..Default::default() }, false)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let tenant = Name::new(&args.tenant).context("failed to use that tenant")?;
    let (host, port) = super::replay::host_and_port(&args.broker)?;
    let tls = args.ca.clone().map(|ca_file| TlsConfig {
        ca_file,
        certificate_file: args.certificate.clone(),
        key_file: args.key.clone(),
        server_name: None,
    });
    let link = uplink::Config {
        host,
        port,
        tls,
        username: args.user.clone(),
        password_file: args.password_file.clone(),
        ..uplink::Config::default()
    };
    let wanted = ReceiverConfig { filters: vec![format!("fleet/v1/{tenant}/+/+/+")], ..ReceiverConfig::default() };
    let receiver = Receiver::new(link, wanted, &args.client_id, Arc::clone(&clock))?;
    let opening = Arc::clone(&clock);
    let state = args.state.clone();
    let store =
        tokio::task::spawn_blocking(move || open(&state, &opening)).await.context("failed to open the store")??;
    let inbox = Inbox::new(inbox::Config::default());
    let sink = Arc::new(InboxSink::new(store.writer(), inbox, clock, Rejects::default()));
    let collect = Collect::new(receiver, sink, CollectConfig::default(), StdRng::from_os_rng());
    let metrics = collect.metrics().clone();
    note(format_args!("receiving tenant {tenant} from {} into {}", args.broker, args.state.display()));
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
        () = collect.run(stop) => {}
        () = watching => {}
    }
    progress_done();
    tokio::task::spawn_blocking(move || store.close()).await.context("failed to close the store")?;
    say(format_args!("{} rows received", metrics.rows.get()));
    Ok(ExitCode::SUCCESS)
}

/// What each series has and misses; exit code 1 if a number is unaccounted for.
pub(crate) async fn report(state: &Path, json: bool) -> Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let reader = look(state, &clock)?;
    let inbox = Inbox::new(inbox::Config::default());
    let report = reader.read(move |conn| Ok(inbox.report(conn))).await??;
    accounts::show(&report, json);
    Ok(if report.missing() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
