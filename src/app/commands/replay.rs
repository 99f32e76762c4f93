//! `forebay replay FILE`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::{progress, progress_done, say};
use crate::app::cli::ReplayArgs;
use crate::app::replay::{Feed, Recording, publish_all};
use crate::base::{Clock, SystemClock};

/// Silence after which the replay gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Publishes the recording and says how it went.
pub(crate) async fn run(args: &ReplayArgs, password: Option<String>) -> Result<ExitCode> {
    let recording = Recording::open(&args.file)?;
    let payloads: Vec<_> = recording.readings.iter().map(crate::app::replay::Reading::payload).collect();
    let (host, port) = host_and_port(&args.broker)?;
    if args.window == 0 {
        bail!("--window must be at least 1: nothing could be under way");
    }
    let feed = Feed {
        host,
        port,
        topic: args.topic.clone(),
        client_id: args.client_id.clone(),
        login: args.user.clone().map(|user| (user, password.unwrap_or_default())),
        rate_per_s: args.rate,
        window: args.window,
        patience: PATIENCE,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let report = publish_all(&feed, &payloads, &clock, |at| {
        progress(format_args!("{} of {} acknowledged, {} connections broke", at.acknowledged, at.total, at.reconnects));
    })
    .await;
    progress_done();
    let report = report?;
    let took_s = report.took.as_secs_f64();
    say(format_args!(
        "{} readings acknowledged in {took_s:.1} s ({:.0}/s), {} connections broke, {} sends in all",
        report.acknowledged,
        report.acknowledged as f64 / took_s.max(1e-9),
        report.reconnects,
        report.sent
    ));
    say(format_args!(
        "publish to PUBACK: p50 {:.1} ms, p99 {:.1} ms",
        f64::from(report.percentile_us(0.5)) / 1000.0,
        f64::from(report.percentile_us(0.99)) / 1000.0
    ));
    Ok(ExitCode::SUCCESS)
}

/// Splits HOST:PORT; a host may be a bracketed IPv6 address.
pub(crate) fn host_and_port(broker: &str) -> Result<(String, u16)> {
    let (host, port) = broker
        .rsplit_once(':')
        .with_context(|| format!("failed to read the broker {broker:?}; write HOST:PORT, such as 127.0.0.1:1883"))?;
    let port =
        port.parse().with_context(|| format!("failed to read the port of {broker:?}; it is a number up to 65535"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        bail!("failed to read the broker {broker:?}; write HOST:PORT, such as 127.0.0.1:1883");
    }
    Ok((host.to_owned(), port))
}
