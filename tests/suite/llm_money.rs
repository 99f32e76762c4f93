//! What the real gateway promises about money and keys: at the same time, across a kill, and while keys change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::gateway::poll;
use crate::llm_fixture::{CHAT, PATIENCE, World, attempts, chat, provider, route, streamed};
use crate::mock_provider::{Behaviour, Fault, Mock};

const CENT_PICO: u64 = 10_000_000_000;
const CENT_SQL: i64 = 10_000_000_000;

fn price(provider: &str, model: &str, output: u32) -> String {
    format!(
        "[[prices.model]]\nprovider = \"{provider}\"\nmodel = \"{model}\"\nusd_per_million_tokens = {{ input = 0, output = {output} }}\n"
    )
}

/// The mock says five words; each answer costs a cent, and as much is held for it.
fn a_cent_an_answer(provider: &str) -> String {
    price(provider, "gpt", 2000)
}

fn a_day(usd: &str) -> String {
    format!("[[quota.limit]]\nlevel = \"key\"\nname = \"app\"\nusd_per_day = \"{usd}\"\n")
}

/// The money of a key as the limits show it: spent and held.
fn money(world: &World) -> (u64, u64) {
    let (status, page) = world.boss("GET", "/api/v1/limits?level=key&name=app", "");
    assert_eq!(status, 200, "{page}");
    let line = page["limits"].as_array().unwrap().iter().find(|line| line["unit"] == "money").cloned();
    let line = line.unwrap_or_else(|| panic!("{page}"));
    (line["spent"].as_u64().unwrap(), line["held"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_calls_at_once_do_not_overspend_a_budget_by_one_cent() {
    let slow = Behaviour { first_byte: Duration::from_millis(300), ..Behaviour::default() };
    let mock = Mock::start(slow).await;
    let config = [
        provider("p", &mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        a_cent_an_answer("p"),
        a_day("0.49"),
    ];
    let world = World::start(&config.concat());
    let replies = join_all((0..50).map(async |at| {
        let body = if at % 2 == 0 { chat("m") } else { streamed("m") };
        world.ask_as(&format!("c-{at}"), CHAT, &body).await
    }))
    .await;
    let (passed, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert_eq!((passed.len(), refused.len()), (49, 1), "{replies:?}");
    assert_eq!(refused[0].status, 429, "{refused:?}");
    let error = &refused[0].json()["error"];
    // What others only hold may be there again soon.
    assert!(matches!(error["code"].as_str(), Some("rate_limit_exceeded" | "insufficient_quota")), "{error}");
    assert!(error["message"].as_str().unwrap().contains("money a day"), "{error}");
    assert_eq!(mock.requests(), 49, "the fiftieth was never sent");
    assert_eq!(money(&world), (49 * CENT_PICO, 0));
    let costs = (0..50).map(|at| world.record(&format!("c-{at}"))["cost_pico"].as_u64().unwrap());
    assert_eq!(costs.sum::<u64>(), 49 * CENT_PICO, "the records say the same");
    assert_eq!(world.metric("forebay_price_costs_total{known=\"exact\"}"), 49.0);
    assert_eq!(world.metric("forebay_answer_cost_pico_usd_total"), (49 * CENT_PICO) as f64);

    let spent = world.ask(CHAT, &chat("m")).await;
    let error = &spent.json()["error"];
    assert_eq!((spent.status, &error["code"]), (429, &json!("insufficient_quota")), "{spent:?}");
    assert_eq!(spent.header("x-should-retry"), "false", "{spent:?}");
    let anthropic = world.ask("/v1/messages", &chat("m")).await;
    assert_eq!((anthropic.status, &anthropic.json()["error"]["type"]), (402, &json!("billing_error")));
    assert_eq!(mock.requests(), 49);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_and_callers_who_leave_never_take_a_budget_over_its_limit() {
    let mock = Mock::start(Behaviour { pace: Duration::from_millis(2), ..Behaviour::default() }).await;
    let config = [
        provider("bad", &mock, "first_byte_timeout_ms = 200\nidle_timeout_ms = 200"),
        provider("p", &mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        route(
            "half",
            &["half"],
            &["{ provider = \"bad\", model = \"half-2\" }", "{ provider = \"p\", model = \"gpt\" }"],
        ),
        route(
            "dead",
            &["dead"],
            &["{ provider = \"bad\", model = \"status-503\" }", "{ provider = \"p\", model = \"gpt\" }"],
        ),
        a_cent_an_answer("p"),
        price("bad", "half-2", 2000),
        price("bad", "status-503", 2000),
        a_day("0.30"),
    ];
    let world = World::start(&config.concat());
    let over = AtomicBool::new(false);
    join_all((0..60).map(async |at| {
        let model = ["m", "half", "dead"][at % 3];
        let body = if at % 2 == 0 { chat(model) } else { streamed(model) };
        if at % 5 == 0 {
            let mut live = world.begin_as(&format!("l-{at}"), CHAT, &streamed("m")).await;
            live.until("{").await;
            drop(live);
        } else {
            world.ask(CHAT, &body).await;
        }
        let (spent, held) = money(&world);
        over.fetch_or(spent + held > 30 * CENT_PICO, Ordering::Relaxed);
    }))
    .await;
    assert!(!over.load(Ordering::Relaxed), "more was spent and held than the budget has");
    let settled = || poll("everything is settled", || (money(&world).1 == 0).then(|| money(&world).0));
    let spent = tokio::task::block_in_place(settled);
    assert!(spent > 20 * CENT_PICO && spent <= 30 * CENT_PICO, "{spent}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_knows_the_price_of_is_not_asked_on_a_budget_and_what_is_free_always() {
    let (dear, unknown) = (Mock::start(Behaviour::default()).await, Mock::start(Behaviour::default()).await);
    let gratis = Mock::start(Behaviour::default()).await;
    dear.set(Behaviour { fault: Fault::Status(503, None), ..Behaviour::default() });
    let on = |name: &str| format!("{{ provider = \"{name}\", model = \"gpt\" }}");
    let config = [
        provider("dear", &dear, ""),
        provider("unknown", &unknown, ""),
        provider("gratis", &gratis, ""),
        route("both", &["both"], &[&on("dear"), &on("unknown")]),
        route("first", &["first"], &[&on("unknown"), &on("gratis")]),
        a_cent_an_answer("dear"),
        price("gratis", "gpt", 0),
        a_day("0.01"),
    ];
    let world = World::start(&config.concat());
    let reply = world.ask_as("both", CHAT, &chat("both")).await;
    assert_eq!((reply.status, unknown.requests()), (503, 0), "{reply:?}");
    assert_eq!(attempts(&world.record("both")), ["dear/gpt overloaded", "unknown/gpt budget"]);
    let reply = world.ask_as("first", CHAT, &chat("first")).await;
    assert_eq!((reply.status, reply.model(), unknown.requests()), (200, "gratis/gpt", 0), "{reply:?}");
    // Who has no budget may.
    let reply = world.connect().await.ask("boss", CHAT, &[("x-request-id", "boss")], &chat("both")).await;
    assert_eq!((reply.status, reply.model()), (200, "unknown/gpt"), "{reply:?}");
    assert_eq!((reply.header("x-forebay-cost-usd"), &world.record("boss")["cost_pico"]), ("", &Value::Null));
    assert_eq!(world.metric("forebay_price_costs_total{known=\"unknown\"}"), 1.0);

    dear.set(Behaviour::default());
    assert_eq!(world.ask(CHAT, &chat("both")).await.status, 200, "the last cent");
    assert_eq!(money(&world), (CENT_PICO, 0));
    assert_eq!(world.ask(CHAT, &chat("both")).await.status, 429);
    let reply = world.ask(CHAT, &chat("first")).await;
    assert_eq!((reply.status, reply.model()), (200, "gratis/gpt"), "what is free answers when the money is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_budgets_and_records_have_what_was_written_and_calls_under_way_count_as_held() {
    let mock = Mock::start(Behaviour::default()).await;
    let config = [
        provider("p", &mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        a_cent_an_answer("p"),
        a_day("0.10"),
        "[quota]\nflush_ms = 100\n[ledger]\nflush_ms = 100\n".to_owned(),
    ];
    let mut world = World::start(&config.concat());
    for at in 0..3 {
        assert_eq!(world.ask_as(&format!("before-{at}"), CHAT, &chat("m")).await.status, 200);
    }
    mock.set(Behaviour { fault: Fault::Never, ..Behaviour::default() });
    let mut waiting = Vec::new();
    for at in 0..4 {
        let (address, body) = (world.gateway.http, chat("m"));
        waiting.push(tokio::spawn(async move {
            let mut connection = crate::llm_fixture::Connection::open(address).await;
            let id = format!("under-way-{at}");
            connection.try_begin("app", CHAT, &[("x-request-id", &id)], &body).await.is_err()
        }));
    }
    tokio::time::timeout(PATIENCE, mock.until(|mock| mock.requests() == 7)).await.expect("four are under way");
    assert_eq!(money(&world), (3 * CENT_PICO, 4 * CENT_PICO));
    for at in 0..3 {
        world.record(&format!("before-{at}"));
    }
    let on_disk = |world: &World| -> (i64, i64) {
        let sql = "SELECT spent, held FROM quota_spent WHERE level = 'key' AND name = 'app' AND unit = 'money'";
        world.gateway.database().query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap_or_default()
    };
    let written = || poll("it is written", || (on_disk(&world) == (3 * CENT_SQL, 4 * CENT_SQL)).then_some(()));
    tokio::task::block_in_place(written);
    tokio::task::block_in_place(|| {
        world.gateway.kill();
        world.gateway.restart();
    });
    for call in waiting {
        assert!(call.await.unwrap(), "its connection broke");
    }
    assert_eq!(money(&world), (7 * CENT_PICO, 0), "somebody may have been asked: never too little");
    assert!(world.gateway.log().contains("they are charged as reserved"), "{}", world.gateway.log());
    for at in 0..3 {
        assert_eq!(world.record(&format!("before-{at}"))["status"], 200);
    }
    mock.set(Behaviour::default());
    for at in 0..4 {
        let wanted = if at < 3 { 200 } else { 429 };
        assert_eq!(world.ask_as(&format!("after-{at}"), CHAT, &chat("m")).await.status, wanted);
    }
    assert_eq!(money(&world), (10 * CENT_PICO, 0));
    // An orderly stop loses nothing, not even what waits to be written.
    let stopped = tokio::task::block_in_place(|| world.gateway.stop());
    assert_eq!(stopped, Some(0));
    tokio::task::block_in_place(|| world.gateway.restart());
    assert_eq!(money(&world), (10 * CENT_PICO, 0));
    assert_eq!(world.record("after-2")["status"], 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_stop_in_the_middle_of_a_stream_charges_and_records_what_was_said() {
    let mock = Mock::start(Behaviour { words: 5000, pace: Duration::from_millis(20), ..Behaviour::default() }).await;
    let config = [
        provider("p", &mock, ""),
        route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]),
        a_cent_an_answer("p"),
        a_day("100"),
    ];
    let mut world = World::start(&config.concat());
    let mut live = world.begin_as("stopped", CHAT, &streamed("m")).await;
    live.until(" its").await;
    let stopped = tokio::task::block_in_place(|| world.gateway.stop());
    assert_eq!(stopped, Some(0));
    drop(live);
    tokio::task::block_in_place(|| world.gateway.restart());
    let record = world.record("stopped");
    assert_eq!(
        (&record["status"], &record["error"], &record["estimated"]),
        (&json!(499), &json!("cancelled"), &json!(true))
    );
    let cost = record["cost_pico"].as_u64().unwrap();
    assert!(cost >= CENT_PICO, "five words and more: {record}");
    assert_eq!(money(&world), (cost, 0), "the budget and the record say the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_rotated_under_load_fails_no_call_and_the_old_text_ends_when_it_was_told_to() {
    let mock = Mock::start(Behaviour::default()).await;
    let config = [provider("p", &mock, ""), route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"])];
    let world = Arc::new(World::start(&config.concat()));
    let (status, made) = world.boss("POST", "/api/v1/keys", r#"{"name":"line-7","tenant":"default"}"#);
    assert_eq!(status, 201, "{made}");
    let text = |made: &Value| made["key"].as_str().unwrap().to_owned();
    let id = made["id"].as_str().unwrap().to_owned();
    let newest = Arc::new(std::sync::Mutex::new(text(&made)));
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new([const { AtomicU64::new(0) }; 8]));
    let workers: Vec<_> = (0..8)
        .map(|at| {
            let (world, newest, stop, calls) = (world.clone(), newest.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut connection = world.connect().await;
                while !stop.load(Ordering::Relaxed) {
                    let key = newest.lock().unwrap().clone();
                    let reply = connection.ask(&key, CHAT, &[], &chat("m")).await;
                    assert_eq!(reply.status, 200, "{reply:?}");
                    calls[at].fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let rotate = |overlap_ms: u64| {
        let body = json!({ "overlap_ms": overlap_ms }).to_string();
        let (status, rotated) = world.boss("POST", &format!("/api/v1/keys/{id}/rotate"), &body);
        assert_eq!(status, 200, "{rotated}");
        text(&rotated)
    };
    let counts = || calls.each_ref().map(|calls| calls.load(Ordering::Relaxed));
    // Each worker has ended what it was at, and begun anew.
    let everybody_goes_on = || {
        let before = counts();
        let gone = || counts().iter().zip(before).all(|(now, before)| *now >= before + 2).then_some(());
        tokio::task::block_in_place(|| poll("calls go on", gone));
    };
    for _ in 0..10 {
        let fresh = rotate(60_000);
        // The last text is still good, so whoever has not heard yet goes on.
        everybody_goes_on();
        *newest.lock().unwrap() = fresh;
        // Nobody has the text before that one any more when the next comes.
        everybody_goes_on();
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    let old = newest.lock().unwrap().clone();
    let fresh = rotate(0);
    let mut connection = world.connect().await;
    assert_eq!(connection.ask(&old, CHAT, &[], &chat("m")).await.status, 401, "no overlap, no old text");
    assert_eq!(connection.ask(&fresh, CHAT, &[], &chat("m")).await.status, 200);
    assert_eq!(mock.requests(), counts().iter().sum::<u64>() + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_providers_key_that_is_replaced_under_load_fails_no_call() {
    let only = |key: Option<&str>| Behaviour { key: key.map(str::to_owned), ..Behaviour::default() };
    let mock = Mock::start(only(Some("sk-0"))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "sk-0\n").unwrap();
    let settings = format!("key_file = \"{}\"", file.display());
    let config = [provider("p", &mock, &settings), route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"])];
    let world = Arc::new(World::start(&config.concat()));
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (world, stop, calls) = (world.clone(), stop.clone(), calls.clone());
            tokio::spawn(async move {
                let mut connection = world.connect().await;
                while !stop.load(Ordering::Relaxed) {
                    let reply = connection.ask("app", CHAT, &[], &chat("m")).await;
                    assert_eq!((reply.status, reply.header("x-forebay-attempts")), (200, "1"), "{reply:?}");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for at in 1..6 {
        // Both are good for a while, as providers have it.
        mock.set(only(None));
        let (fresh, next) = (format!("sk-{at}"), folder.path().join("next"));
        std::fs::write(&next, &fresh).unwrap();
        std::fs::rename(&next, &file).unwrap();
        mock.set(only(Some(&fresh)));
        let before = calls.load(Ordering::Relaxed);
        let heard = || poll("calls go on", || (calls.load(Ordering::Relaxed) >= before + 16).then_some(()));
        tokio::task::block_in_place(heard);
    }
    stop.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
}
