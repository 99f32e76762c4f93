//! The order of events, and what is asked at the end.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::cable::Cable;
use super::children::{Process, own_binary};
use super::probe;
use super::proof::{Fetched, compare_raw, sketch_errors};
use super::report::{self, Evidence};
use super::site::{self, GATEWAY, RECORDING, STREAM, Site, TOPIC};
use super::watch::{Peaks, Verdicts, sample};
use crate::app::cli::DemoArgs;
use crate::app::commands::{collect, note, progress, progress_done, say};
use crate::app::replay::{Feed, FeedError, Reading, Recording, Report as FeedReport, publish_all};
use crate::app::stop::until_told_to_stop;
use crate::base::{Clock, SystemClock};
use crate::flows::record::{self, AlarmRecord, RawRecord, SummaryRecord, VerdictRecord};
use crate::store::Reader;

/// Shares of the readings at which something happens.
const CUT_AT: f64 = 0.40;
const KILL_AT: f64 = 0.55;
const RESTORE_AT: f64 = 0.70;
/// Silence after which the demonstration gives up.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Runs the demonstration. Exit code 1 if the counts differ.
pub(crate) async fn run(args: &DemoArgs) -> Result<ExitCode> {
    let stop = until_told_to_stop()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let mut recording = Recording::parse("the bundled recording", RECORDING)?;
    recording.readings.truncate(args.readings.unwrap_or(usize::MAX).max(1));
    let site = Site::prepare(&args.dir, args.mqtt_port, args.http_port)?;
    let mut stage = Stage::set(&site, args.verdicts).await?;
    note(format_args!("page      http://{}/", site.http));
    note(format_args!("gateway   mqtt://{}   configuration {}", site.mqtt, site.folder.join("gateway.toml").display()));
    note(format_args!("cloud     mqtt://{}   behind a cable that will be cut", site.cloud));
    note(format_args!("replaying {} readings of a machine at {} a second", recording.readings.len(), args.rate));

    let played = tokio::select! {
        played = stage.play(&site, &recording.readings, args.rate, &clock) => played,
        () = stop.cancelled() => bail!("stopped before the end"),
    };
    progress_done();
    let evidence = played?;
    let (text, agree) = report::write(&evidence);
    say(text);
    if !args.once {
        say(format_args!("The gateway goes on. Look at http://{}/ and end it with Ctrl-C.", site.http));
        stop.cancelled().await;
    }
    Ok(if agree { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Everything that runs.
struct Stage {
    gateway: Process,
    cloud: Process,
    collect: Process,
    cable: Cable,
    /// The cloud gets each verdict, too.
    verdicts: bool,
}

impl Stage {
    async fn set(site: &Site, verdicts: bool) -> Result<Self> {
        let binary = own_binary()?;
        let cable = Cable::plug(site.cloud).await.context("failed to lay the cable")?;
        let (gateway, cloud) = (site.write_gateway(cable.address(), verdicts)?, site.write_cloud()?);
        let process = |name, arguments: &[&str]| Process::start(name, &binary, arguments, &site.log(name));
        let mut cloud = process("cloud", &["run", "--config", text(&cloud)?])?;
        cloud.ready(site.cloud_http).await?;
        let broker = site.cloud.to_string();
        let state = site.collected();
        let collect =
            process("collect", &["collect", "--broker", &broker, "--tenant", "demo", "--state", text(&state)?])?;
        let mut gateway = process("gateway", &["run", "--config", text(&gateway)?])?;
        gateway.ready(site.http).await?;
        Ok(Self { gateway, cloud, collect, cable, verdicts })
    }

    async fn play(&mut self, site: &Site, readings: &[Reading], rate: f64, clock: &Arc<dyn Clock>) -> Result<Evidence> {
        let mut watching = JoinSet::new();
        let verdicts = Verdicts::default();
        watching.spawn(verdicts.clone().listen(site.mqtt, Arc::clone(clock)));
        let (pid, current_pid) = watch::channel(self.gateway.pid());
        let (peaks, seen_peaks) = watch::channel(Peaks::default());
        watching.spawn(sample(site.http, current_pid, peaks));

        let payloads: Vec<_> = readings.iter().map(Reading::payload).collect();
        let (done, acknowledged) = watch::channel(0);
        let feed = Feed {
            host: site.mqtt.ip().to_string(),
            port: site.mqtt.port(),
            topic: TOPIC.to_owned(),
            client_id: "forebay-demo-sensor".to_owned(),
            login: None,
            rate_per_s: Some(rate),
            window: 100,
            patience: PATIENCE,
        };
        let publishing = publish_all(&feed, &payloads, clock, |at| {
            done.send_replace(at.acknowledged);
            progress(format_args!("{} of {} acknowledged", at.acknowledged, at.total));
        });
        let mut events = Vec::new();
        let incidents = self.incidents(site, readings.len(), acknowledged, &pid, clock, &mut events);
        let (fed, happened): (Result<FeedReport, FeedError>, Result<Duration>) = tokio::join!(publishing, incidents);
        let (fed, restored_at) = (fed?, happened?);
        // The last window is not full: it goes as it is.
        let (status, answer) = probe::post(site.http, &format!("/api/v1/streams/{STREAM}/summary"), &json!({})).await?;
        if status != 202 && status != 200 {
            bail!("the gateway did not end its summary: {status} {answer}");
        }
        let (received, drained_at) = self.drained(site, readings.len(), clock).await?;
        let sent_bytes = self.cable.sent_bytes();
        let alarms_missing = self.alarms_missing(site, &received).await?;
        let fetched = self.fetch(site, readings, &received, clock).await?;
        let peaks = *seen_peaks.borrow();
        Ok(Evidence {
            verdict_us: verdict_latencies(&fed, &verdicts),
            published: readings.to_vec(),
            feed: fed,
            verdicts: self.verdicts.then_some(received.verdicts),
            sketch_errors: sketch_errors(readings, &received.summaries)?,
            summaries: received.summaries,
            alarms: received.alarms,
            alarms_missing,
            repeats: received.repeats,
            raw_bytes: payloads.iter().map(|payload| payload.len() as u64).sum(),
            sent_bytes,
            fetched,
            peaks,
            anomalies: site::anomalies_within(readings)?,
            events,
            drain: drained_at.saturating_sub(restored_at),
        })
    }

    /// Cuts, kills and restores as the acknowledgements come in; returns when the cable was restored.
    async fn incidents(
        &mut self,
        site: &Site,
        total: usize,
        mut acknowledged: watch::Receiver<usize>,
        pid: &watch::Sender<Option<u32>>,
        clock: &Arc<dyn Clock>,
        events: &mut Vec<String>,
    ) -> Result<Duration> {
        let share = |part: f64| (total as f64 * part).floor() as usize;
        let at = *acknowledged.wait_for(|done| *done >= share(CUT_AT)).await?;
        self.cable.cut();
        events.push(format!("at {at} acknowledged: the cable to the cloud was cut"));
        let at = *acknowledged.wait_for(|done| *done >= share(KILL_AT)).await?;
        let before = clock.since_boot();
        self.gateway.kill().await?;
        self.gateway.restart()?;
        pid.send_replace(self.gateway.pid());
        self.gateway.ready(site.http).await?;
        let back_ms = clock.since_boot().saturating_sub(before).as_millis();
        events.push(format!(
            "at {at} acknowledged: the gateway was killed with SIGKILL and was ready again after {back_ms} ms"
        ));
        let at = *acknowledged.wait_for(|done| *done >= share(RESTORE_AT)).await?;
        self.cable.restore();
        events.push(format!("at {at} acknowledged: the cable was restored"));
        Ok(clock.since_boot())
    }

    /// Waits until the queue is empty and the cloud has what `total` readings leave.
    async fn drained(&mut self, site: &Site, total: usize, clock: &Arc<dyn Clock>) -> Result<(Received, Duration)> {
        let drained_at = self.queue_is_empty(site, clock).await?;
        // The cloud's broker has everything; the receiver may still be writing. Everything is there and nothing more comes,
        // or nothing comes at all: both are for the report to judge.
        let verdicts = self.verdicts;
        let received = settle(site, clock, |received| {
            let summed = received.summaries.iter().map(|summary| summary.count).sum::<u64>();
            let verdicts = if verdicts { received.verdicts.len() } else { total };
            (summed.min(verdicts as u64), total as u64)
        });
        Ok((received.await?, drained_at))
    }

    async fn queue_is_empty(&mut self, site: &Site, clock: &Arc<dyn Clock>) -> Result<Duration> {
        let (mut progressed, mut best) = (clock.since_boot(), u64::MAX);
        loop {
            self.gateway.running()?;
            self.cloud.running()?;
            self.collect.running()?;
            let (_, queue) = probe::get(site.http, "/api/v1/queue").await?;
            let rows = queue["rows"].as_u64().context("the queue has no depth")?;
            if rows == 0 {
                return Ok(clock.since_boot());
            }
            if rows < best {
                (best, progressed) = (rows, clock.since_boot());
            }
            if clock.since_boot().saturating_sub(progressed) > PATIENCE {
                bail!("{rows} rows are still queued and nothing moves; look at {}", site.log("gateway").display());
            }
            progress(format_args!("draining: {rows} rows queued"));
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Alarms that the gateway raised and the cloud did not hear of.
    async fn alarms_missing(&self, site: &Site, received: &Received) -> Result<u64> {
        let (_, answer) = probe::get(site.http, "/api/v1/alerts?limit=1000").await?;
        let alerts = answer["alerts"].as_array().context("the gateway lists no alarms")?;
        let heard = |id: i64| received.alarms.iter().any(|alarm| alarm.kind == "raised" && alarm.alarm == id);
        Ok(alerts.iter().filter(|alert| !alert["id"].as_i64().is_some_and(heard)).count() as u64)
    }

    /// Asks for the readings around the last alarm, or for the last ones where no alarm was raised.
    async fn fetch(
        &mut self,
        site: &Site,
        readings: &[Reading],
        received: &Received,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Fetched, String, u64)> {
        let before = self.cable.sent_bytes();
        let alarm = received.alarms.iter().rfind(|alarm| alarm.kind == "raised");
        let (wanted, about) = match alarm {
            Some(alarm) => {
                (json!({ "request": "demo", "alarm": alarm.alarm }), format!("around alarm {}", alarm.alarm))
            }
            None => {
                let tail = &readings[readings.len().saturating_sub(100)..];
                let ends = [tail.first(), tail.last()].map(|end| end.map_or(Ok(0), |end| site::time_ms(&end.time)));
                let [from_ms, to_ms] = ends;
                (json!({ "request": "demo", "from_ms": from_ms?, "to_ms": to_ms? }), "of the end".to_owned())
            }
        };
        let path = format!("/api/v1/streams/{STREAM}/send");
        let (status, first) = probe::post(site.http, &path, &wanted).await?;
        // A request that comes again has no second effect.
        let (again, second) = probe::post(site.http, &path, &wanted).await?;
        if (status, again) != (202, 202) || second["repeated"] != true {
            bail!("the gateway did not send readings on demand: {status} {first}, then {again} {second}");
        }
        let expected = first["readings"].as_u64().context("the gateway does not say how many readings it sends")?;
        self.queue_is_empty(site, clock).await?;
        let came = |received: &Received| received.raw.iter().map(|row| row.readings.len() as u64).sum();
        let received = settle(site, clock, |received| (came(received), expected)).await?;
        let bytes = self.cable.sent_bytes() - before;
        Ok((compare_raw(readings, &received.raw, expected), about, bytes))
    }
}

/// Reads what the cloud has until it is what was expected, or nothing more comes. `progress` says how much there is, and
/// how much there should be.
async fn settle(site: &Site, clock: &Arc<dyn Clock>, progress: impl Fn(&Received) -> (u64, u64)) -> Result<Received> {
    let reader = collect::look(&site.collected(), clock)?;
    let (mut last, mut since) = (0, clock.since_boot());
    loop {
        let received = Received::read(&reader).await?;
        let (now, (there, wanted)) = (clock.since_boot(), progress(&received));
        if there != last {
            (last, since) = (there, now);
        }
        let quiet = now.saturating_sub(since);
        if (there >= wanted && quiet > Duration::from_millis(300)) || quiet > Duration::from_secs(15) {
            return Ok(received);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8; name another folder with --dir", path.display()))
}

/// From the first publish of a reading to its first verdict at the subscriber, sorted.
fn verdict_latencies(fed: &FeedReport, verdicts: &Verdicts) -> Vec<u32> {
    let seen = verdicts.seen();
    let latency = |(at, published): (usize, &Duration)| {
        let verdict = seen.get(&(at as u64 + 1))?;
        u32::try_from(verdict.checked_sub(*published)?.as_micros()).ok()
    };
    let mut latencies: Vec<_> = fed.published.iter().enumerate().filter_map(latency).collect();
    latencies.sort_unstable();
    latencies
}

/// What the cloud has of the demonstration's gateway.
struct Received {
    verdicts: Vec<VerdictRecord>,
    summaries: Vec<SummaryRecord>,
    alarms: Vec<AlarmRecord>,
    raw: Vec<RawRecord>,
    repeats: u64,
}

impl Received {
    async fn read(reader: &Reader) -> Result<Self> {
        let inbox = crate::inbox::Inbox::new(crate::inbox::Config::default());
        let ([verdicts, summaries, alarms, raw], report) = reader
            .read(move |conn| {
                let rows = |class: &str| inbox.bodies(conn, GATEWAY, class, STREAM);
                Ok((["verdict", "summary", "alarm", "raw"].map(rows), inbox.report(conn)))
            })
            .await?;
        Ok(Self {
            verdicts: decode_all("verdict", &verdicts?)?,
            summaries: summaries?.iter().map(|body| record::decode_summary(body)).collect::<Result<_, _>>()?,
            alarms: decode_all("alarm", &alarms?)?,
            raw: decode_all("raw", &raw?)?,
            repeats: report?.duplicates(),
        })
    }
}

fn decode_all<T: for<'de> serde::Deserialize<'de>>(
    what: &'static str,
    bodies: &[Vec<u8>],
) -> Result<Vec<T>, record::RecordError> {
    bodies.iter().map(|body| record::decode(what, body)).collect()
}
