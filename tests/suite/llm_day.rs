//! A day of traffic in scaled time: calls come as fast as they are answered rather than every ten seconds, and every bound
//! of time and room is as much smaller, so that all of them are met many times over.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::llm_fixture::{CHAT, World, chat, provider, route, streamed};
use crate::mock_provider::{Behaviour, Mock};

/// One each ten seconds of a day. `FOREBAY_DAY_CALLS` asks for more, for an evening's run.
const CALLS: u64 = 8_640;
const WORKERS: u64 = 16;

fn calls() -> u64 {
    std::env::var("FOREBAY_DAY_CALLS").ok().map_or(CALLS, |text| text.parse().expect("FOREBAY_DAY_CALLS is a number"))
}

/// Bounds that a small part of the day fills.
const BOUNDS: &str = r#"
[quota]
max_subjects = 64
flush_ms = 100
[[quota.limit]]
level = "key"
requests_per_minute = 100000000
usd_per_day = 1000
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

async fn worker(world: &World, next: &AtomicU64, until: u64) {
    let mut connection = world.connect().await;
    loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= until {
            return;
        }
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
            _ => {
                let reply = connection.ask("app", CHAT, &headers, &body).await;
                assert_eq!(reply.status, 200, "{reply:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_day_of_traffic_leaves_memory_and_disk_as_they_were_after_its_first_quarter() {
    let mock = Mock::start(Behaviour { pace: Duration::from_micros(100), ..Behaviour::default() }).await;
    let with_fallback = |name: &str, model: &str| {
        let bad = format!("{{ provider = \"bad\", model = \"{model}\" }}");
        route(name, &[name], &[&bad, "{ provider = \"p\", model = \"gpt\" }"])
    };
    let config = [
        provider("p", &mock, ""),
        provider("bad", &mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        route("kept", &["kept"], &["{ provider = \"p\", model = \"gpt\" }"]),
        route("half", &["half"], &["{ provider = \"bad\", model = \"half-3\" }"]),
        with_fallback("faulty-503", "status-503"),
        with_fallback("faulty-429", "status-429-1"),
        BOUNDS.to_owned(),
    ];
    let prices = ["half-3", "status-503", "status-429-1"].map(|model| {
        format!("[[prices.model]]\nprovider = \"bad\"\nmodel = \"{model}\"\nusd_per_million_tokens = {{ input = 1, output = 2 }}\n")
    });
    let world = World::start(&[config.concat(), prices.concat()].concat());
    let (all, next) = (calls(), AtomicU64::new(0));
    let mut seen = Vec::new();
    for quarter in 1..=4 {
        let until = all * quarter / 4;
        join_all((0..WORKERS).map(|_| worker(&world, &next, until))).await;
        next.store(until, Ordering::Relaxed);
        let size_kib = |file: &str| {
            let path = world.gateway.folder.path().join("state").join(file);
            std::fs::metadata(path).map_or(0, |meta| meta.len() / 1024)
        };
        seen.push((world.memory_kib(), size_kib("forebay.db"), size_kib("forebay.db-wal")));
    }
    assert_eq!(world.metric("forebay_answer_under_way"), 0.0);
    assert!(
        world.metric("forebay_answer_fallbacks_total") > 0.0 && world.metric("forebay_answer_abandoned_total") > 0.0
    );
    let figures =
        format!("(resident, of it anonymous), database, its log in KiB after each quarter of {all} calls: {seen:?}");
    eprintln!("{figures}");
    let ((_, first_kib), first_disk_kib, _) = seen[0];
    let ((_, last_kib), last_disk_kib, log_kib) = seen[3];
    // What the allocator has at hand moves by some hundred KiB; what leaks once a call is 6 MiB by then.
    assert!(last_kib <= first_kib + 3072, "{figures}");
    assert!(last_disk_kib <= first_disk_kib + 2048, "{figures}");
    // The log is as long as the store's bounds let it be, whatever happens.
    assert!(log_kib <= 16 * 1024, "{figures}");
}
