//! What providers do wrong, and what callers of the real gateway see of it.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::llm_fixture::{CHAT, Connection, PATIENCE, World, attempts, chat, provider, route, streamed};
use crate::mock_provider::{Behaviour, Fault, Mock};

/// Faults before anything of an answer, and the word for them in the record: of a whole answer, and of a stream.
const BEFORE: [(&str, &str, &str); 17] = [
    ("status-500", "unavailable", "unavailable"),
    ("status-503", "overloaded", "overloaded"),
    ("status-529", "overloaded", "overloaded"),
    ("status-429-7", "rate_limited", "rate_limited"),
    ("status-401", "auth", "auth"),
    ("status-402", "out_of_credit", "out_of_credit"),
    ("status-404", "not_found", "not_found"),
    ("reset", "unavailable", "unavailable"),
    ("close", "unavailable", "unavailable"),
    ("not-http", "malformed", "malformed"),
    ("html", "malformed", "malformed"),
    ("never", "timeout", "timeout"),
    ("delay-50000", "timeout", "timeout"),
    ("stall-0", "timeout", "timeout"),
    ("garbage-0", "malformed", "unavailable"),
    ("error-0", "malformed", "unavailable"),
    ("short-0", "malformed", "unavailable"),
];
/// Faults after three frames of a stream.
const AFTER: [&str; 6] = ["half-3", "reset-after-3", "stall-3", "garbage-3", "error-3", "short-3"];
const IMPATIENT: &str = "first_byte_timeout_ms = 300\nidle_timeout_ms = 300";

/// One provider and one route a fault, with one that is well behind each; so that no fault is held against another.
fn faulty(mock: &Mock) -> String {
    let mut config = provider("well", mock, "");
    let names = BEFORE.iter().map(|(fault, ..)| *fault).chain(AFTER);
    for name in names {
        for way in ["whole", "stream", "again"] {
            let here = format!("{way}-{name}");
            config += &provider(&here, mock, IMPATIENT);
            let bad = format!("{{ provider = \"{here}\", model = \"{name}\" }}");
            config += &route(&here, &[&here], &[&bad, "{ provider = \"well\", model = \"gpt\" }"]);
        }
    }
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_provider_does_wrong_the_next_one_answers_and_headers_and_record_say_so() {
    let mock = Mock::start(Behaviour::default()).await;
    let world = World::start(&faulty(&mock));
    let ways = [("whole", false), ("stream", true)];
    let asked = BEFORE.iter().flat_map(|fault| ways.map(|way| (fault, way)));
    join_all(asked.map(async |((fault, whole, stream), (way, is_stream))| {
        let name = format!("{way}-{fault}");
        let body = if is_stream { streamed(&name) } else { chat(&name) };
        let reply = world.ask_as(&name, CHAT, &body).await;
        assert_eq!((reply.status, reply.model()), (200, "well/gpt"), "{name}: {reply:?}");
        assert_eq!(reply.header("x-forebay-attempts"), "2", "{name}");
        assert!(reply.text.contains("The") && reply.text.contains(" press"), "{name}: {}", reply.text);
        assert_eq!(reply.text.ends_with("data: [DONE]\n\n"), is_stream, "{name}: {}", reply.text);
        let record = world.record(&name);
        let outcome = if is_stream { stream } else { whole };
        assert_eq!(attempts(&record), [format!("{name}/{fault} {outcome}"), "well/gpt ok".to_owned()], "{record}");
        assert_eq!((&record["status"], &record["candidate"]), (&json!(200), &json!("well/gpt")), "{record}");
    }))
    .await;
    assert_eq!(world.metric("forebay_answer_fallbacks_total"), (2 * BEFORE.len()) as f64);
    assert_eq!(world.metric("forebay_answer_under_way"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_broke_off_is_continued_by_nobody_and_ends_with_an_error_of_its_dialect() {
    let mock = Mock::start(Behaviour::default()).await;
    let world = World::start(&faulty(&mock));
    let gemini = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    let dialects = ["openai", "anthropic", "responses", "gemini", "ollama", "interactions", "gemini-array"];
    let asked = AFTER.iter().flat_map(|fault| dialects.map(|dialect| (*fault, dialect)));
    join_all(asked.map(async |(fault, dialect)| {
        // Five failures in a row open a breaker, so the sixth and seventh have a provider of their own.
        let way = if matches!(dialect, "interactions" | "gemini-array") { "again" } else { "stream" };
        let (model, id) = (format!("{way}-{fault}"), format!("{dialect}-{fault}"));
        let (path, body, error, end) = match dialect {
            "openai" => (CHAT.to_owned(), streamed(&model), "data: {\"error\":{", "[DONE]"),
            "anthropic" => ("/v1/messages".to_owned(), streamed(&model), "event: error\ndata: ", "message_stop"),
            "responses" => {
                let body = json!({ "model": model, "input": "Hello", "stream": true });
                ("/v1/responses".to_owned(), body, "event: error\ndata: ", "response.completed")
            }
            "interactions" => {
                let body = json!({ "model": model, "input": "Hello", "stream": true });
                ("/v1beta/interactions".to_owned(), body, "event: error\ndata: ", "interaction.completed")
            }
            "gemini" => {
                let path = format!("/v1beta/models/{model}:streamGenerateContent?alt=sse");
                (path, gemini.clone(), "data: {\"error\":{", "STOP")
            }
            "gemini-array" => {
                let path = format!("/v1beta/models/{model}:streamGenerateContent");
                (path, gemini.clone(), ",\r\n{\"error\":{", "STOP")
            }
            _ => ("/api/chat".to_owned(), streamed(&model), "{\"error\":", "\"done\":true"),
        };
        let reply = world.ask_as(&id, &path, &body).await;
        assert_eq!((reply.status, reply.header("x-forebay-attempts")), (200, "1"), "{id}: {reply:?}");
        let text = &reply.text;
        // Three events of OpenAI's responses are a beginning without a word.
        let has_words = dialect != "responses";
        let begun = if has_words { " press" } else { "response.created" };
        assert!(text.contains(begun) && !text.contains(" within"), "{id}: a part of the answer: {text}");
        let said = text.rfind(error).unwrap_or_else(|| panic!("{id}: no error in {text}"));
        assert!(text[said..].trim_end().lines().count() <= 2, "{id}: the error is the last that is said: {text}");
        assert!(!text.contains(end), "{id}: nobody takes it for whole: {text}");
        let record = world.record(&id);
        assert_eq!(attempts(&record), [format!("{model}/{fault} cut")], "{record}");
        assert_eq!(record["error"], "cut", "{record}");
        assert!(record["status"].as_u64().unwrap() >= 500, "{record}");
        assert_eq!(record["estimated"], true, "what was said until then is charged: {record}");
        assert_eq!(record["output_tokens"].as_u64().unwrap() >= 1, has_words, "{record}");
    }))
    .await;
    assert_eq!(world.metric("forebay_answer_under_way"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_429_is_seen_by_callers_only_when_everybody_is_limited_and_then_with_its_wait() {
    let limited = Behaviour { fault: Fault::Status(429, Some(30)), ..Behaviour::default() };
    let (near, far) = (Mock::start(limited.clone()).await, Mock::start(Behaviour::default()).await);
    let candidates = ["{ provider = \"near\", model = \"gpt\" }", "{ provider = \"far\", model = \"gpt\" }"];
    let config = [provider("near", &near, ""), provider("far", &far, ""), route("r", &["m"], &candidates)].concat();
    let world = World::start(&config);
    let replies = join_all((0..50).map(|_| async { world.ask(CHAT, &chat("m")).await })).await;
    assert!(replies.iter().all(|reply| (reply.status, reply.model()) == (200, "far/gpt")), "{replies:?}");
    let (stormed, reply) = (near.requests(), world.ask(CHAT, &chat("m")).await);
    assert_eq!((reply.header("x-forebay-attempts"), near.requests()), ("1", stormed), "it is left alone now");
    let why = reply.header("x-forebay-route");
    assert!(why.contains("not near/gpt: it asked to be left alone for "), "{why}");

    far.set(limited);
    let told = |reply: crate::llm_fixture::Reply, status: u16| {
        assert_eq!(reply.status, status, "{reply:?}");
        let wait_s: u64 = reply.header("retry-after").parse().unwrap();
        assert!((20..=30).contains(&wait_s), "{reply:?}");
    };
    told(world.ask(CHAT, &chat("m")).await, 429);
    let asked = near.requests() + far.requests();
    told(world.ask(CHAT, &chat("m")).await, 503);
    assert_eq!(near.requests() + far.requests(), asked, "nobody is asked any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_provider_costs_a_few_requests_and_then_none_until_it_is_back() {
    let dead = Behaviour { fault: Fault::Reset, ..Behaviour::default() };
    let (first, second) = (Mock::start(dead).await, Mock::start(Behaviour::default()).await);
    let candidates = ["{ provider = \"first\", model = \"gpt\" }", "{ provider = \"second\", model = \"gpt\" }"];
    let config = [
        provider("first", &first, ""),
        provider("second", &second, ""),
        route("r", &["m"], &candidates),
        "[routing]\nprobes = \"never\"\n[routing.breaker]\nfailures = 3\nopen_ms = 300\nprobes = 2\n".to_owned(),
    ];
    let world = World::start(&config.concat());
    let mut connection = world.connect().await;
    for _ in 0..3 {
        let reply = connection.ask("app", CHAT, &[], &chat("m")).await;
        assert_eq!((reply.status, reply.header("x-forebay-attempts")), (200, "2"), "{reply:?}");
    }
    let asked = first.requests();
    let reply = connection.ask("app", CHAT, &[], &chat("m")).await;
    assert_eq!((reply.model(), reply.header("x-forebay-attempts")), ("second/gpt", "1"), "{reply:?}");
    let why = reply.header("x-forebay-route");
    assert!(why.contains("not first/gpt: its breaker is open for ") && why.contains("3 failures in a row"), "{why}");
    assert_eq!(first.requests(), asked);

    first.set(Behaviour::default());
    let back = async {
        let mut answered = 0;
        // Two by one request at a time, and then like everybody.
        while answered < 5 {
            let reply = connection.ask("app", CHAT, &[], &chat("m")).await;
            assert_eq!(reply.status, 200, "{reply:?}");
            answered += u32::from(reply.model() == "first/gpt");
        }
    };
    tokio::time::timeout(PATIENCE, back).await.expect("a provider that is well again is asked again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_find_a_provider_that_fails_and_nobody_else_is_bothered() {
    let dead = Behaviour { fault: Fault::Status(500, None), ..Behaviour::default() };
    let (first, second) = (Mock::start(dead).await, Mock::start(Behaviour::default()).await);
    let candidates = ["{ provider = \"first\", model = \"gpt\" }", "{ provider = \"second\", model = \"gpt\" }"];
    let config = [
        provider("first", &first, ""),
        provider("second", &second, ""),
        route("r", &["m"], &candidates),
        "[routing]\nprobe_every_ms = 1000\nunhealthy_after = 1\nhealthy_after = 1\n".to_owned(),
        "[routing.breaker]\nfailures = 1\nopen_ms = 600000\nopen_most_ms = 600000\n".to_owned(),
    ];
    let world = World::start(&config.concat());
    assert_eq!(world.ask(CHAT, &chat("m")).await.model(), "second/gpt");
    let probed = |mock: &Mock| mock.seen().iter().filter(|seen| seen.method == "GET").count();
    tokio::time::timeout(PATIENCE, first.until(|first| probed(first) >= 2)).await.expect("it is probed");
    let reply = world.ask(CHAT, &chat("m")).await;
    assert!(reply.header("x-forebay-route").contains("of its probes failed in a row"), "{reply:?}");
    assert_eq!(probed(&second), 0, "nothing is wrong with it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_first_byte_is_hedged_and_the_slower_one_is_called_off() {
    let slow = Behaviour { fault: Fault::Never, ..Behaviour::default() };
    let (slow, quick) = (Mock::start(slow).await, Mock::start(Behaviour::default()).await);
    let candidates = ["{ provider = \"slow\", model = \"gpt\" }", "{ provider = \"quick\", model = \"gpt\" }"];
    let hedged = [
        route("r", &["m"], &candidates),
        "hedge = { percentile = 95, after_ms_min = 50, after_ms_max = 100 }\n".to_owned(),
    ];
    let world = World::start(&[provider("slow", &slow, ""), provider("quick", &quick, ""), hedged.concat()].concat());
    for (id, body) in [("whole", chat("m")), ("stream", streamed("m"))] {
        let reply = world.ask_as(id, CHAT, &body).await;
        assert_eq!(
            (reply.status, reply.model(), reply.header("x-forebay-attempts")),
            (200, "quick/gpt", "2"),
            "{reply:?}"
        );
        assert_eq!(attempts(&world.record(id)), ["slow/gpt cancelled", "quick/gpt ok"]);
    }
    tokio::time::timeout(PATIENCE, slow.until(|slow| slow.cut() == 2)).await.expect("nobody waits for it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candidate_that_stumbles_once_is_asked_again_where_its_route_wants_that() {
    let mock = Mock::start(Behaviour::default()).await;
    let again = route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]);
    let world = World::start(
        &[provider("p", &mock, ""), again, "retries = { same_candidate_max = 1, wait_ms = 10 }\n".to_owned()].concat(),
    );
    mock.next(Fault::Status(503, None));
    let reply = world.ask_as("again", CHAT, &chat("m")).await;
    assert_eq!((reply.status, reply.header("x-forebay-attempts")), (200, "2"), "{reply:?}");
    assert_eq!(attempts(&world.record("again")), ["p/gpt overloaded", "p/gpt ok"]);
    (0..2).for_each(|_| mock.next(Fault::Status(503, None)));
    assert_eq!(world.ask(CHAT, &chat("m")).await.status, 503, "once, and no more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_ends_the_work_and_is_charged_for_what_was_said() {
    let mock = Mock::start(Behaviour { pace: Duration::from_millis(5), ..Behaviour::default() }).await;
    let endless = route("r", &["m"], &["{ provider = \"p\", model = \"endless\" }"]);
    let world = World::start(&[provider("p", &mock, ""), endless].concat());
    let mut live = world.begin_as("leaves", CHAT, &streamed("m")).await;
    live.until("The").await;
    assert_eq!(mock.cut(), 0);
    drop(live);
    tokio::time::timeout(PATIENCE, mock.until(|mock| mock.cut() == 1)).await.expect("the provider sees it");
    let record = world.record("leaves");
    assert_eq!((&record["status"], &record["error"]), (&json!(499), &json!("cancelled")), "{record}");
    assert_eq!(record["estimated"], true, "{record}");
    assert!(record["output_tokens"].as_u64().unwrap() >= 1, "{record}");
    assert_eq!(world.metric("forebay_answer_abandoned_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_provider_will_not_answer_is_a_422_of_the_callers_dialect_and_nobody_else_is_asked() {
    let mock = Mock::start(Behaviour::default()).await;
    let candidates = ["{ provider = \"p\", model = \"status-422\" }", "{ provider = \"p\", model = \"gpt\" }"];
    let world = World::start(&[provider("p", &mock, ""), route("m", &["m"], &candidates)].concat());
    let gemini = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    let responses = json!({ "model": "m", "input": "Hello" });
    let ollama = json!({ "model": "m", "stream": false, "messages": [{ "role": "user", "content": "Hello" }] });
    for (path, body, code_at) in [
        (CHAT, chat("m"), "/error/code"),
        (CHAT, streamed("m"), "/error/code"),
        ("/v1/responses", responses, "/error/code"),
        ("/v1/messages", chat("m"), "/error/type"),
        ("/v1beta/models/m:generateContent", gemini, "/error/status"),
        ("/api/chat", ollama, "/error"),
    ] {
        let reply = world.ask_as("filtered", path, &body).await;
        assert_eq!(reply.status, 422, "{path}: {reply:?}");
        assert!(reply.json().pointer(code_at).is_some_and(Value::is_string), "{path}: {reply:?}");
        assert!(reply.text.contains("the mock was told to answer 422"), "{path}: {reply:?}");
        assert_eq!(reply.header("x-forebay-attempts"), "1", "{path}");
    }
    let record = world.record("filtered");
    assert_eq!(attempts(&record), ["p/status-422 content_refused"], "{record}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_come_is_a_408_of_the_callers_dialect() {
    let mock = Mock::start(Behaviour::default()).await;
    let well = route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]);
    let world =
        World::start(&[provider("p", &mock, ""), well, "[http.llm]\nbody_timeout_ms = 100\n".to_owned()].concat());
    for (path, member, word) in [
        (CHAT, "/error/code", json!("request_timeout")),
        ("/v1/messages", "/error/type", json!("timeout_error")),
        ("/v1beta/models/m:generateContent", "/error/code", json!(408)),
        ("/api/chat", "/error", json!("The body did not come in time.")),
    ] {
        let mut socket = TcpStream::connect(world.gateway.http).await.unwrap();
        let host = world.gateway.http;
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer app\r\nconnection: close\r\ncontent-length: 100\r\n\r\n{{"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, socket.read_to_string(&mut answer)).await.expect("an answer").unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        let body: Value = serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap();
        assert_eq!(body.pointer(member), Some(&word), "{path}: {body}");
    }
    assert_eq!(mock.requests(), 0);
}

/// As the settings are: what a thousand callers need must not have to be found out first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_streams_live_at_once_and_each_comes_whole() {
    const STREAMS: usize = 1000;
    raise_open_files();
    // Nobody ends before all have begun.
    let mock = Mock::start(Behaviour { words: 40, pace: Duration::from_millis(500), ..Behaviour::default() }).await;
    let well = route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]);
    let world = World::start(&[provider("p", &mock, "connect_timeout_ms = 60000"), well].concat());
    let (_, before_kib) = world.memory_kib();
    let mut streams = Vec::with_capacity(STREAMS);
    // A burst of more than a backlog would be lost in the kernel before anybody of us sees it.
    while streams.len() < STREAMS {
        let some = join_all((0..100).map(|_| async {
            let mut live = Connection::open(world.gateway.http).await.begin("app", CHAT, &[], &streamed("m")).await;
            live.until("\"role\"").await;
            live
        }));
        streams.extend(some.await);
    }
    let under_way = world.metric("forebay_answer_under_way");
    let (_, full_kib) = world.memory_kib();
    let replies = join_all(streams.into_iter().map(|live| live.rest())).await;
    assert_eq!(under_way, STREAMS as f64, "they are all there at the same time");
    for reply in &replies {
        assert!(reply.status == 200 && reply.text.ends_with("data: [DONE]\n\n"), "{reply:?}");
        assert_eq!(reply.text.matches("\"content\":").count(), 41, "no frame is lost: {}", reply.text);
    }
    assert_eq!(world.metric("forebay_answer_under_way"), 0.0);
    let each_kib = full_kib.saturating_sub(before_kib) / STREAMS as u64;
    // Of a build that is not optimised.
    assert!(each_kib <= 96, "{each_kib} KiB a stream: {before_kib} KiB before, {full_kib} with all of them");
}

/// This process has three sockets for each stream.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}
