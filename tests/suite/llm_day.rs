//! A day of traffic in scaled time: the real program, whose wall clock and time since boot run twelve hundred times as fast
//! (`scaled_clock.c`), from a noon to the next, over the midnight that ends a day and a month. Bounds of time and room
//! are so much smaller that all of them are met many times over.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use jiff::civil::{Date, time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde_json::json;

use crate::gateway::forebay;
use crate::llm_fixture::{CHAT, Connection, Reply, World, chat, identity, provider, route, streamed};
use crate::mock_provider::{Behaviour, Mock};

const DAY: Duration = Duration::from_secs(86_400);
/// One each ten seconds.
const BETWEEN: Duration = Duration::from_secs(10);
const WORKERS: u64 = 16;
/// Of `modest`, who asks some five hundred times between noon and midnight, and as often after it.
const REQUESTS_A_DAY: u64 = 40;

/// How many times as fast as ours their time is. `FOREBAY_DAY_RATE=24` takes an hour for the day.
fn rate() -> u32 {
    std::env::var("FOREBAY_DAY_RATE").map_or(1200, |text| text.parse().expect("FOREBAY_DAY_RATE is a whole number"))
}

/// Bounds that a small part of the day fills. Those of time that go by their clock and not by timers are a day: a minute of
/// ours.
const BOUNDS: &str = r#"
[answer]
timeout_ms = 86400000
[quota]
max_subjects = 64
flush_ms = 100
[[quota.limit]]
level = "key"
requests_per_minute = 100000000
usd_per_day = 1000
[[quota.limit]]
level = "key"
name = "modest"
requests_per_day = 40
requests_per_month = 60
[[quota.limit]]
level = "user"
tokens_per_day = 100000000
[ledger]
keep_rows = 1000
keep_sums = 500
sums_a_day = 200
flush_ms = 100
[cache]
max_bytes = 262144
[[cache.policy]]
routes = ["kept"]
exact = true
[routing]
retry_after_max_ms = 5
probe_every_ms = 1000
[routing.breaker]
open_ms = 10
open_most_ms = 50
[[prices.model]]
provider = "p"
model = "gpt"
usd_per_million_tokens = { input = 1, output = 2 }
"#;

/// The last noon of next month.
fn first_noon() -> Timestamp {
    let today: Date = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let last = today.first_of_month().checked_add(1.month()).unwrap().last_of_month();
    last.to_datetime(time(12, 0, 0, 0)).to_zoned(TimeZone::UTC).unwrap().timestamp()
}

/// A command that runs the gateway from `first` on, in scaled time. The folder holds what it is preloaded with.
fn scaled(first: Timestamp, folder: &Path) -> Command {
    let (source, library) =
        (Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/scaled_clock.c"), folder.join("scaled_clock.so"));
    let built =
        Command::new("cc").args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).arg("-ldl").status();
    assert!(built.expect("a C compiler is there, as for building the gateway").success());
    let mut command = forebay();
    command.env("LD_PRELOAD", library).env("FOREBAY_TEST_CLOCK", format!("{} {}", first.as_second(), rate()));
    command
}

/// How far the day has come: their time as we reckon it, a little behind the gateway's own.
struct Day {
    began: Instant,
    calls: AtomicU64,
    /// Of `modest`: answered, refused before midnight, refused after it.
    modest: [AtomicU64; 3],
}

impl Day {
    fn passed(&self) -> Duration {
        self.began.elapsed() * rate()
    }

    async fn until(&self, moment: Duration) {
        tokio::time::sleep(moment.saturating_sub(self.passed()) / rate()).await;
    }
}

/// When the gateway says that it answered.
fn said(reply: &Reply) -> Timestamp {
    jiff::fmt::rfc2822::parse(reply.header("date")).unwrap().timestamp()
}

/// Has forty requests a day and sixty a month; who is refused is told to come back when the day is over.
async fn modest(day: &Day, connection: &mut Connection, midnight: Timestamp) {
    let reply = connection.ask("modest", CHAT, &[], &chat("m")).await;
    match reply.status {
        200 => day.modest[0].fetch_add(1, Ordering::Relaxed),
        429 => {
            let wait: i64 = reply.header("retry-after").parse().unwrap_or_else(|_| panic!("{reply:?}"));
            // The last one of the day is another worker's, and under way: it may be given back.
            if wait == 1 {
                return;
            }
            let told = said(&reply).as_second() + wait;
            // Between the decision and the date lie a few of our milliseconds, or a busy machine's second.
            let ends = [midnight, midnight + 24.hours()].map(|end| (end.as_second() - told).abs() < 3600);
            let Some(day_at) = ends.iter().position(|is_it| *is_it) else { panic!("{reply:?}, and {midnight}") };
            day.modest[1 + day_at].fetch_add(1, Ordering::Relaxed)
        }
        _ => panic!("{reply:?}"),
    };
}

async fn worker(world: &World, day: &Day, until: Duration, midnight: Timestamp) {
    let mut connection = world.connect().await;
    loop {
        let at = day.calls.fetch_add(1, Ordering::Relaxed);
        let due = BETWEEN * u32::try_from(at).unwrap();
        if due.max(day.passed()) >= until {
            return;
        }
        day.until(due).await;
        let mut body = match at % 8 {
            0 => chat("faulty-503"),
            1 => chat("faulty-429"),
            2 | 3 => streamed("m"),
            4 => chat("kept"),
            _ => chat("m"),
        };
        // Who asks and what differs all day long.
        body["messages"][0]["content"] = json!(format!("Hello number {}", if at % 16 == 4 { at } else { at % 700 }));
        let prompt = format!("prompt-{}", at % 1000);
        let headers = [("x-forebay-prompt", prompt.as_str())];
        match at % 31 {
            // A caller who leaves in the middle of a stream.
            0 => {
                let mut leaving = world.connect().await;
                let mut live = leaving.begin("app", CHAT, &headers, &streamed("m")).await;
                live.until("{").await;
            }
            // An answer that breaks off.
            1 => {
                let reply = connection.ask("app", CHAT, &headers, &streamed("half")).await;
                assert!(reply.text.contains("\"error\"") || reply.status == 503, "{reply:?}");
            }
            2 => {
                let reply = connection.ask("app", "/v1/messages", &headers, &body).await;
                assert_eq!(reply.status, 200, "{reply:?}");
            }
            3 => assert_eq!(connection.ask("nobody", CHAT, &headers, &body).await.status, 401),
            4 | 20 => modest(day, &mut connection, midnight).await,
            _ => {
                let reply = connection.ask("app", CHAT, &headers, &body).await;
                assert_eq!(reply.status, 200, "{reply:?}");
            }
        }
    }
}

fn config(mock: &Mock) -> String {
    let with_fallback = |name: &str, model: &str| {
        let bad = format!("{{ provider = \"bad\", model = \"{model}\" }}");
        route(name, &[name], &[&bad, "{ provider = \"p\", model = \"gpt\" }"])
    };
    let prices = ["half-3", "status-503", "status-429-1"].map(|model| {
        format!("[[prices.model]]\nprovider = \"bad\"\nmodel = \"{model}\"\nusd_per_million_tokens = {{ input = 1, output = 2 }}\n")
    });
    [
        identity("modest", "app"),
        provider("p", mock, ""),
        provider("bad", mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        route("kept", &["kept"], &["{ provider = \"p\", model = \"gpt\" }"]),
        route("half", &["half"], &["{ provider = \"bad\", model = \"half-3\" }"]),
        with_fallback("faulty-503", "status-503"),
        with_fallback("faulty-429", "status-429-1"),
        BOUNDS.to_owned(),
        prices.concat(),
    ]
    .concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_traffic_over_the_end_of_a_month_leaves_memory_and_disk_as_they_were_after_its_first_quarter() {
    let mock = Mock::start(Behaviour { pace: Duration::from_micros(100), ..Behaviour::default() }).await;
    let (first, folder) = (first_noon(), tempfile::tempdir().unwrap());
    let midnight = first + 12.hours();
    let world = World::start_by(&config(&mock), &mut scaled(first, folder.path()));
    let day = Day { began: Instant::now(), calls: AtomicU64::new(0), modest: [const { AtomicU64::new(0) }; 3] };
    let mut seen = Vec::new();
    for quarter in 1..=4 {
        let until = DAY * quarter / 4;
        join_all((0..WORKERS).map(|_| worker(&world, &day, until, midnight))).await;
        let size_kib = |file: &str| {
            let path = world.gateway.folder.path().join("state").join(file);
            std::fs::metadata(path).map_or(0, |meta| meta.len() / 1024)
        };
        seen.push((world.memory_kib(), size_kib("forebay.db"), size_kib("forebay.db-wal")));
        // The call that came to the end of this quarter belongs to the next.
        day.calls.fetch_sub(WORKERS, Ordering::Relaxed);
    }
    assert_eq!(world.metric("forebay_answer_under_way"), 0.0);
    assert!(
        world.metric("forebay_answer_fallbacks_total") > 0.0 && world.metric("forebay_answer_abandoned_total") > 0.0
    );
    let calls = day.calls.load(Ordering::Relaxed);
    let figures =
        format!("(resident, of it anonymous), database, its log in KiB after each quarter of {calls} calls: {seen:?}");
    eprintln!("{figures}");
    let modest = day.modest.each_ref().map(|count| count.load(Ordering::Relaxed));
    assert!(modest[1] > 0 && modest[2] > 0, "answered, refused before midnight, after it: {modest:?}");
    assert_eq!(modest[0], 2 * REQUESTS_A_DAY, "the day and the month began anew, once: {modest:?}");
    let (status, usage) = world.boss("GET", "/api/v1/usage?by=day", "");
    assert_eq!(status, 200, "{usage}");
    let days = usage["usage"].as_array().unwrap();
    assert_eq!(days.len(), 2, "{usage}");
    let ((_, first_kib), first_disk_kib, _) = seen[0];
    let ((_, last_kib), last_disk_kib, log_kib) = seen[3];
    // What the allocator has at hand moves by some hundred KiB; what leaks once a call is 6 MiB by then.
    assert!(last_kib <= first_kib + 3072, "{figures}");
    assert!(last_disk_kib <= first_disk_kib + 2048, "{figures}");
    // The log is as long as the store's bounds let it be, whatever happens.
    assert!(log_kib <= 16 * 1024, "{figures}");
}
