//! The HTTP door over real TCP.

use forebay::access::{Config as AccessConfig, Filter, Identity, Role};
use forebay::base::{Digest, Name};
use forebay::doors::http::Config;
use forebay::engine::Gate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http_fixture::{Setup, cloud, gateway, gateway_with, open_access, slow_gateway};

const READINGS: &str = "/api/v1/streams/machine/readings";
const INFER: &str = "/v2/models/machine-temperature/infer";

/// A request stands before the gate.
async fn before(gate: &Gate) {
    let gate = gate.clone();
    tokio::task::spawn_blocking(move || gate.wait_for_request()).await.unwrap();
}

#[tokio::test]
async fn a_reading_is_acknowledged_with_its_number_and_can_be_read_back() {
    let gateway = gateway().await;
    let kept = gateway.post(READINGS, &[("content-type", "application/json")], br#"{"value":71.5}"#).await;
    assert_eq!(kept.status, 202);
    let kept = kept.json();
    assert_eq!((&kept["stream"], &kept["seq"], &kept["durable"]), (&"machine".into(), &1.into(), &true.into()));
    let back = gateway.get(&format!("{READINGS}?after_seq=0&limit=10")).await.json();
    assert_eq!(back["readings"][0]["values"][0], 71.5);
    let stream = gateway.get("/api/v1/streams/machine").await.json();
    assert_eq!(stream["tally"]["committed"], 1);
    let streams = gateway.get("/api/v1/streams").await.json();
    assert_eq!(streams["streams"][0]["name"], "machine");
}

#[tokio::test]
async fn every_view_answers_json() {
    let gateway = gateway().await;
    gateway.alarm("machine").await;
    let alerts = gateway.get("/api/v1/alerts?stream=machine").await.json();
    assert_eq!(alerts["alerts"][0]["stream"], "machine");
    let curve = gateway.get("/api/v1/streams/machine/curve?points=10").await.json();
    assert_eq!(curve["curve"].as_array().unwrap().len(), 10);
    for path in ["/api/v1/streams/machine/windows", "/api/v1/queue", "/api/v1/link", "/api/v1/models"] {
        let answer = gateway.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")), "{path}");
        assert!(answer.json().is_object());
    }
}

#[tokio::test]
async fn a_mistake_is_told_with_a_code_and_a_hint() {
    let gateway = gateway().await;
    let mut wrong = Vec::new();
    for (method, path, body, status, code) in [
        ("GET", "/nowhere", "", 404, "no_such_path"),
        ("DELETE", "/api/v1/queue", "", 405, "wrong_method"),
        ("GET", "/api/v1/streams/other", "", 404, "no_stream"),
        ("GET", "/api/v1/streams/other/curve", "", 404, "no_stream"),
        ("GET", "/api/v1/streams/machine/curve?points=0", "", 400, "bad_parameter"),
        ("GET", "/api/v1/streams/machine/curve?from_ms=5&to_ms=4", "", 400, "bad_parameter"),
        ("GET", "/api/v1/streams/machine/readings?limit=10001", "", 400, "bad_parameter"),
        ("GET", "/api/v1/streams/machine/readings?limt=1", "", 400, "bad_parameter"),
        ("GET", "/api/v1/alerts?limit=many", "", 400, "bad_parameter"),
        ("GET", "/api/v1/events?throttle_ms=1000000", "", 400, "bad_parameter"),
        ("POST", "/api/v1/streams/other/readings", r#"{"value":1}"#, 404, "no_stream"),
        ("POST", READINGS, "{", 422, "payload"),
    ] {
        let answer = gateway.send(method, path, &[], body.as_bytes()).await;
        let error = &answer.json()["error"];
        let told = error["code"] == code && !error["message"].as_str().unwrap().is_empty();
        if answer.status != status || !told || error["hint"].as_str().unwrap().is_empty() {
            wrong.push(format!("{method} {path}: {} {}", answer.status, answer.text()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let method = gateway.send("DELETE", "/api/v1/queue", &[], b"").await;
    assert!(method.header("allow").unwrap().contains("GET"));
}

#[tokio::test]
async fn a_stream_with_too_much_waiting_says_when_to_try_again() {
    let (gateway, gate) = slow_gateway(Setup { queue_payloads: 1, ..Setup::default() }).await;
    // The fourth reading fills a window and stands before the gate.
    let body = gateway.payload([70.0; 4]);
    let judged = gateway.post(READINGS, &[], &body);
    let test = async {
        before(&gate).await;
        // One of these finds the only place.
        let (a, b) = (gateway.post(READINGS, &[], b"70"), gateway.post(READINGS, &[], b"71"));
        tokio::pin!(a, b);
        let refused = tokio::select! { refused = &mut a => refused, refused = &mut b => refused };
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (429, Some("full")));
        assert_eq!(refused.header("retry-after"), Some("1"));
        gate.open(100);
    };
    let (judged, ()) = tokio::join!(judged, test);
    assert_eq!(judged.status, 202);
}

#[tokio::test]
async fn a_full_disk_says_when_to_try_again_and_keeps_what_it_acknowledged() {
    let store = forebay::store::Config {
        max_bytes: 2 << 20,
        reserve_bytes: 256 << 10,
        restart_bytes: 512 << 10,
        checkpoint_bytes: 128 << 10,
        ..forebay::store::Config::default()
    };
    let gateway = Setup { store, ..Setup::default() }.start().await;
    let mut acknowledged = 0;
    let refused = loop {
        let answer = gateway.post(READINGS, &[], &gateway.payload([70.0; 500])).await;
        if answer.status != 202 {
            break answer;
        }
        acknowledged = answer.json()["seq"].as_u64().unwrap();
    };
    assert_eq!((refused.status, refused.header("retry-after")), (507, Some("5")), "{}", refused.text());
    assert!(acknowledged > 0);
    let last = gateway.get(&format!("{READINGS}?limit=1")).await.json();
    assert_eq!(last["readings"][0]["seq"], acknowledged);
    assert_eq!(gateway.get("/").await.status, 200);
}

#[tokio::test]
async fn bodies_have_a_bound_announced_or_not() {
    let config = Config { body_max_bytes: 1000, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let big = vec![b' '; 1001];
    for path in [READINGS, INFER] {
        assert_eq!(gateway.post(path, &[], &big).await.status, 413, "{path}");
    }
    let chunked = [
        format!("POST {READINGS} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n3e9\r\n").as_bytes(),
        &big,
        b"\r\n0\r\n\r\n",
    ]
    .concat();
    let answer = gateway.raw(&chunked).await;
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (413, &"too_large".into()));
}

#[tokio::test]
async fn a_form_is_not_a_reading() {
    let gateway = gateway().await;
    for kind in ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "Text/HTML"] {
        let answer = gateway.post(READINGS, &[("content-type", kind)], br#"{"value":1}"#).await;
        assert_eq!(answer.status, 415, "{kind}");
    }
    let answer = gateway.post(INFER, &[("content-type", "text/plain")], b"{}").await;
    assert_eq!(answer.status, 415);
    assert!(answer.json()["error"].is_string());
}

#[tokio::test]
async fn a_website_cannot_reach_the_gateway_through_a_browser() {
    let gateway = gateway().await;
    let address = gateway.address.to_string();
    let foreign_origin = [("origin", "https://attacker.example")];
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
    let cases: [Case<'_>; 8] = [
        ("rebound name", &[("host", "attacker.example")], 421),
        ("rebound name with our port", &[("host", "attacker.example:8080")], 421),
        ("other address", &[("host", "192.0.2.1")], 421),
        ("other site", &foreign_origin, 403),
        ("opaque origin", &[("origin", "null")], 403),
        ("other port here", &[("sec-fetch-site", "same-site"), ("sec-fetch-mode", "cors")], 403),
        ("ourselves", &[("origin", &format!("http://{address}")), ("sec-fetch-site", "same-origin")], 200),
        ("a link followed", &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate")], 200),
    ];
    for (name, headers, status) in cases {
        for path in ["/", "/api/v1/streams", "/api/v1/queue"] {
            let answer = gateway.send("GET", path, headers, b"").await;
            assert_eq!(answer.status, status, "{name} {path}");
            assert!(answer.header("access-control-allow-origin").is_none());
        }
    }
    let posted = gateway.post(READINGS, &foreign_origin, br#"{"value":1}"#).await;
    assert_eq!(posted.status, 403);
    assert_eq!(gateway.get("/api/v1/streams/machine").await.json()["tally"]["committed"], 0);
    for (request, status) in [
        ("GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\nconnection: close\r\n\r\n", 400),
        ("GET /healthz HTTP/1.0\r\n\r\n", 200),
        ("GET http://attacker.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 421),
    ] {
        assert_eq!(gateway.raw(request.as_bytes()).await.status, status, "{request}");
    }
}

#[tokio::test]
async fn every_answer_carries_its_id_and_the_headers_that_close_it() {
    let gateway = gateway().await;
    for path in ["/", "/healthz", "/nowhere", "/api/v1/queue", "/v2"] {
        let answer = gateway.get(path).await;
        assert!(answer.header("x-request-id").unwrap().starts_with("made-"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"), "{path}");
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{path}");
        assert!(!policy.contains("unsafe"), "{path}");
    }
    let echoed = gateway.send("GET", "/healthz", &[("x-request-id", "press-7/42")], b"").await;
    assert_eq!(echoed.header("x-request-id"), Some("press-7/42"));
    let long = gateway.send("GET", "/healthz", &[("x-request-id", &"x".repeat(65))], b"").await;
    assert!(long.header("x-request-id").unwrap().starts_with("made-"));
}

fn keyed(publish: &str, subscribe: &[&str]) -> AccessConfig {
    let filters = |texts: &[&str]| texts.iter().map(|text| Filter::new(text).unwrap()).collect();
    let identity = |name, key: &str, publish, subscribe| Identity {
        name: Name::new(name).unwrap(),
        key_sha256: Some(Digest::of(key.as_bytes())),
        next_key_sha256: None,
        certificate_cn: None,
        certificate_san: None,
        publish,
        subscribe,
        manage_models: false,
        role: Role::App,
        tenant: None,
        team: None,
        user: None,
        models: None,
        routes: None,
    };
    let press = identity("press", "0123456789abcdef0123456789abcdef", filters(&[publish]), filters(subscribe));
    let feeder = identity("feeder", "fedcba9876543210fedcba9876543210", filters(&["plant/#"]), filters(&[]));
    AccessConfig { identity: vec![press, feeder], ..AccessConfig::default() }
}

#[tokio::test]
async fn without_a_key_only_health_is_told() {
    let access = keyed("plant/#", &["plant/#"]);
    let gateway = gateway_with(Config::default(), access, &["machine"]).await;
    for path in ["/healthz", "/readyz", "/v2", "/v2/health/live", "/v2/health/ready"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    for path in ["/", "/icon.svg", "/metrics", "/api/v1/streams", "/api/v1/events", "/api/v1/queue", "/streams/machine"]
    {
        let answer = gateway.get(path).await;
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"));
    }
    let model = gateway.get("/v2/models/machine-temperature").await;
    assert_eq!((model.status, model.json()["error"].is_string()), (401, true));
    let key = "Bearer 0123456789abcdef0123456789abcdef";
    assert_eq!(gateway.send("GET", "/", &[("authorization", key)], b"").await.status, 200);
    let basic = "Basic cHJlc3M6MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    assert_eq!(gateway.send("GET", "/", &[("authorization", basic)], b"").await.status, 200);
    for wrong in ["Bearer 1123456789abcdef0123456789abcdef", "Basic cHJlc3M6eA==", "Digest x"] {
        assert_eq!(gateway.send("GET", "/", &[("authorization", wrong)], b"").await.status, 401, "{wrong}");
    }
}

#[tokio::test]
async fn a_proxy_on_this_machine_does_not_make_its_callers_local() {
    let gateway = gateway().await;
    for header in ["forwarded", "x-forwarded-for", "x-real-ip", "via"] {
        assert_eq!(gateway.send("GET", "/", &[(header, "198.51.100.7")], b"").await.status, 401, "{header}");
    }
}

#[tokio::test]
async fn a_key_reads_only_streams_whose_topic_it_may_subscribe_to() {
    let access = keyed("plant/pump/#", &["plant/pump/#"]);
    let mut gateway = gateway_with(Config::default(), access, &["machine", "pump"]).await;
    gateway.authorization = Some("Bearer fedcba9876543210fedcba9876543210");
    let key = [("authorization", "Bearer 0123456789abcdef0123456789abcdef")];
    gateway.alarm("machine").await;
    let streams = gateway.send("GET", "/api/v1/streams", &key, b"").await.json();
    assert_eq!(streams["streams"].as_array().unwrap().len(), 1);
    let alerts = gateway.send("GET", "/api/v1/alerts", &key, b"").await.json();
    assert_eq!(alerts["alerts"], serde_json::json!([]));
    let queue = gateway.send("GET", "/api/v1/queue", &key, b"").await.text();
    assert!(queue.contains("pump") && !queue.contains("machine"), "{queue}");
    for path in [
        "/api/v1/streams/machine",
        "/api/v1/streams/machine/curve",
        "/api/v1/streams/machine/readings",
        "/api/v1/streams/machine/windows",
        "/api/v1/alerts?stream=machine",
        "/api/v1/events?stream=machine",
        "/streams/machine",
    ] {
        assert_eq!(gateway.send("GET", path, &key, b"").await.status, 404, "{path}");
    }
    let page = gateway.send("GET", "/", &key, b"").await.text();
    assert!(page.contains("pump") && !page.contains("plant/machine"));
    assert_eq!(gateway.send("POST", READINGS, &key, br#"{"value":1}"#).await.status, 403);
}

#[tokio::test]
async fn a_disk_that_refuses_shows_in_answers_and_readiness_until_it_takes_again() {
    let store = forebay::store::Config { probe_ms: 10, ..forebay::store::Config::default() };
    let gateway = Setup { store, ..Setup::default() }.start().await;
    assert_eq!(gateway.get("/readyz").await.status, 200);
    // A write lock is the gentlest disk that refuses.
    let other = rusqlite::Connection::open(gateway.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = gateway.post(READINGS, &[], &gateway.payload([70.0])).await;
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("disk")), "{}", refused.text());
    assert!(refused.header("retry-after").is_some());
    let ready = gateway.get("/readyz").await;
    assert_eq!(ready.status, 503);
    assert!(ready.json()["problems"][0].as_str().unwrap().contains("the disk does not take readings"));
    assert_eq!(gateway.get("/v2/health/ready").await.status, 503);
    assert_eq!(gateway.get("/healthz").await.status, 200);
    other.execute_batch("ROLLBACK").unwrap();
    while gateway.get("/readyz").await.status != 200 {}
    assert_eq!(gateway.get("/v2/health/ready").await.json()["ready"], true);
    gateway.reading("machine", 70.0).await;
    assert_eq!(gateway.get("/api/v1/streams/machine").await.json()["tally"]["committed"], 1);
}

#[tokio::test]
async fn metrics_are_openmetrics_and_count_this_door() {
    let gateway = gateway().await;
    gateway.get("/nowhere").await;
    let answer = gateway.get("/metrics").await;
    assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"));
    let text = answer.text();
    assert!(text.contains("forebay_http_responses_total{class=\"4xx\"} 1"), "{text}");
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn a_watcher_sees_readings_alarms_queue_and_link() {
    let cloud = cloud().await;
    let setup = Setup { streams: &["machine", "pump"], cloud: Some(cloud.address().port()), ..Setup::default() };
    let gateway = setup.start().await;
    let mut events = gateway.events("?stream=machine").await;
    events.until("event: link\n").await;
    events.until("event: queue\n").await;
    gateway.reading("pump", 1.0).await;
    gateway.reading("machine", 71.5).await;
    events.until("event: point\n").await;
    let point = events.until("\n\n").await;
    assert!(point.contains("71.5") && !point.contains("pump"), "{point}");
    gateway.alarm("machine").await;
    let alert = events.until("event: alert\n").await + &events.until("\n\n").await;
    assert!(alert.contains("\"severity\""), "{alert}");
    events.until("\"state\":\"up\"").await;
    cloud.stop().await;
    let down = events.until("\"state\":\"down\"").await + &events.until("\n\n").await;
    assert!(down.contains("127.0.0.1:"), "{down}");
}

#[tokio::test]
async fn a_throttled_watcher_gets_the_newest_reading_only() {
    let gateway = gateway().await;
    let mut events = gateway.events("?throttle_ms=500").await;
    events.until("event: queue\n").await;
    for value in 0..200 {
        gateway.reading("machine", f64::from(value)).await;
    }
    let seen = events.until("\"seq\":200").await;
    assert!(seen.matches("event: point").count() < 100, "{}", seen.matches("event: point").count());
}

#[tokio::test]
async fn a_watcher_that_is_too_slow_is_told_how_much_it_missed() {
    let gateway = gateway().await;
    let mut events = gateway.events("").await;
    events.until("event: queue\n").await;
    // Nobody reads until far more has happened than sockets and backlog hold.
    for _ in 0..50 {
        gateway.feed("machine", [71.0; 1000]).await;
    }
    let missed = events.until("event: missed\n").await + &events.until("\n\n").await;
    assert!(missed.contains("\"missed\":"), "{missed}");
}

#[tokio::test]
async fn watchers_have_a_bound_and_give_their_place_back() {
    let config = Config { watchers_max: 1, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let mut first = gateway.events("").await;
    first.until("event: queue\n").await;
    let second = gateway.get("/api/v1/events").await;
    assert_eq!((second.status, second.json()["error"]["code"].as_str()), (503, Some("watchers")));
    drop(first);
    // The door notices at its next write at the latest; each reading makes it write.
    while !gateway.events("").await.opened {
        gateway.reading("machine", 1.0).await;
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_anyway() {
    let http = Config { request_timeout_ms: 100, ..Setup::default().http };
    let (gateway, _gate) = slow_gateway(Setup { http, ..Setup::default() }).await;
    assert_eq!(gateway.post(READINGS, &[], &gateway.payload([70.0; 4])).await.status, 504, "a model that hangs");
    let ask = br#"{"inputs":[{"name":"window","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    assert_eq!(gateway.post(INFER, &[], ask).await.status, 504, "the same for an app");
    let half = format!("POST {READINGS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n12");
    assert_eq!(gateway.raw(half.as_bytes()).await.status, 504, "a body that never comes");
}

#[tokio::test]
async fn requests_in_progress_have_a_bound() {
    let http = Config { requests_max: 1, request_timeout_ms: 60_000, ..Setup::default().http };
    let (gateway, gate) = slow_gateway(Setup { http, ..Setup::default() }).await;
    let mut hanging = TcpStream::connect(gateway.address).await.unwrap();
    let body = gateway.payload([70.0; 4]);
    let head = format!("POST {READINGS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    hanging.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    before(&gate).await;
    let refused = gateway.get("/healthz").await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(hanging);
    while gateway.get("/healthz").await.status != 200 {}
}

#[tokio::test]
async fn a_client_that_sends_no_head_is_let_go() {
    let config = Config { header_timeout_ms: 100, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let mut slow = TcpStream::connect(gateway.address).await.unwrap();
    slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.unwrap();
    let mut back = Vec::new();
    slow.read_to_end(&mut back).await.unwrap();
}

#[tokio::test]
async fn connections_over_the_bound_wait_and_are_served_later() {
    let config = Config { connections_max: 1, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let held = gateway.events("").await;
    let mut waiting = TcpStream::connect(gateway.address).await.unwrap();
    waiting.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    drop(held);
    let mut back = String::new();
    waiting.read_to_string(&mut back).await.unwrap();
    assert!(back.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn closing_ends_event_streams_and_lets_requests_finish() {
    let (gateway, gate) = slow_gateway(Setup::default()).await;
    let mut events = gateway.events("").await;
    events.until("event: queue\n").await;
    let mut request = TcpStream::connect(gateway.address).await.unwrap();
    let body = gateway.payload([70.0; 4]);
    let head = format!("POST {READINGS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    request.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
    before(&gate).await;
    let address = gateway.address;
    let closed = gateway.close();
    gate.open(100);
    let mut back = String::new();
    request.read_to_string(&mut back).await.unwrap();
    assert!(back.starts_with("HTTP/1.1 202"), "{back}");
    assert!(events.ends().await);
    let closed = closed.await.unwrap();
    assert_eq!(closed.cut, 0);
    assert!(TcpStream::connect(address).await.is_err());
    let again = Setup::default().start_in(closed.folder).await;
    assert_eq!(again.get(READINGS).await.json()["readings"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_when_the_gateway_closes() {
    let config = Config { drain_timeout_ms: 100, request_timeout_ms: 600_000, ..Config::default() };
    let gateway = gateway_with(config, open_access(), &["machine"]).await;
    let mut hanging = TcpStream::connect(gateway.address).await.unwrap();
    let head =
        format!("POST {READINGS} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n");
    hanging.write_all(head.as_bytes()).await.unwrap();
    hanging.read_exact(&mut [0; 25]).await.unwrap();
    assert_eq!(gateway.close().await.unwrap().cut, 1);
}

#[tokio::test]
async fn a_taken_port_is_told_in_words() {
    let gateway = gateway().await;
    let config = Config { address: gateway.address, ..Config::default() };
    let error = forebay::doors::http::bind(&config).await.unwrap_err().to_string();
    assert!(error.contains(&gateway.address.to_string()) && error.contains("another program"), "{error}");
    let config = Config { address: "192.0.2.1:1".parse().unwrap(), ..Config::default() };
    assert!(forebay::doors::http::bind(&config).await.unwrap_err().to_string().contains("`address` in [http]"));
}

#[tokio::test]
async fn inference_speaks_the_open_protocol() {
    let gateway = gateway().await;
    let server = gateway.get("/v2").await.json();
    assert_eq!((server["name"].as_str(), server["extensions"].is_array()), (Some("forebay"), true));
    assert_eq!(gateway.get("/v2/health/live").await.json()["live"], true);
    let model = gateway.get("/v2/models/machine-temperature").await.json();
    assert_eq!(model["inputs"][0]["datatype"], "FP32");
    assert_eq!(gateway.get("/v2/models/machine-temperature/versions/1").await.json()["versions"][0], "1");
    assert_eq!(gateway.get("/v2/models/machine-temperature/ready").await.json()["ready"], true);
    assert_eq!(gateway.get("/v2/models/press-vibration/ready").await.status, 503);

    let ask = |data: &str| {
        format!(
            r#"{{"id":"q1","inputs":[{{"name":"window","shape":[1,4],"datatype":"FP32","data":{data}}}],"outputs":[{{"name":"score"}}]}}"#
        )
    };
    for (path, data) in [
        (INFER.to_owned(), "[1,2,3,4]"),
        (INFER.to_owned(), "[[1,2,3,4]]"),
        ("/v2/models/machine-temperature/versions/1/infer".to_owned(), "[1,2,3,4]"),
    ] {
        let answer = gateway.post(&path, &[("content-type", "application/json")], ask(data).as_bytes()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let json = answer.json();
        assert_eq!((&json["id"], &json["model_version"]), (&"q1".into(), &"1".into()));
        assert_eq!(json["outputs"][0]["data"][0], 2.5, "the mean");
        assert_eq!(answer.header("x-forebay-engine"), Some("fake"));
    }
}

#[cfg(feature = "tract")]
#[tokio::test]
async fn inference_gives_what_the_model_computes() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models");
    let gateway =
        Setup { engines: forebay::engine::built_in(), models: Some(folder), ..Setup::default() }.start().await;
    let ask = r#"{"inputs":[{"name":"b","shape":[1,2],"datatype":"FP32","data":[3,5]},{"name":"a","shape":[1,2],"datatype":"FP32","data":[1,2]}]}"#;
    let answer = gateway.post("/v2/models/two/infer", &[], ask.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let outputs = &answer.json()["outputs"];
    assert_eq!(outputs[0], serde_json::json!({"name":"sum","datatype":"FP32","shape":[1,2],"data":[4.0,7.0]}));
    assert_eq!(outputs[1]["data"], serde_json::json!([3.0, 10.0]));
    assert_eq!(answer.header("x-forebay-engine"), Some("tract"));
    let zero = r#"{"inputs":[{"name":"x","shape":[3],"datatype":"FP32","data":[1,0,2]}]}"#;
    let answer = gateway.post("/v2/models/reciprocal/infer", &[], zero.as_bytes()).await;
    assert!(answer.status >= 400 && answer.text().contains("inf at element 1"), "{}", answer.text());
}

#[tokio::test]
async fn inference_mistakes_are_one_sentence_in_the_protocols_form() {
    let gateway = gateway().await;
    let good = r#"{"inputs":[{"name":"window","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}"#;
    let shape = good.replace("[1,4]", "[4]");
    let count = good.replace("[1,2,3,4]", "[1,2]");
    let output = good.replace("]}]}", "]}],\"outputs\":[{\"name\":\"other\"}]}");
    for (method, path, body, status) in [
        ("GET", "/v2/models/other", "", 404),
        ("GET", "/v2/models/machine-temperature/versions/9", "", 404),
        ("GET", "/v2/models/machine-temperature/versions/new/ready", "", 404),
        ("GET", "/v2/nowhere", "", 404),
        ("GET", INFER, "", 405),
        ("POST", "/v2/models/other/infer", good, 404),
        ("POST", "/v2/models/press-vibration/infer", good, 503),
        ("POST", INFER, "{", 400),
        ("POST", INFER, r#"{"inputs":[]}"#, 400),
        ("POST", INFER, &shape, 400),
        ("POST", INFER, &count, 400),
        ("POST", INFER, &output, 400),
    ] {
        let answer = gateway.send(method, path, &[], body.as_bytes()).await;
        assert_eq!(answer.status, status, "{method} {path} {body}: {}", answer.text());
        assert!(!answer.json()["error"].as_str().unwrap().is_empty());
    }
    let binary = [("inference-header-content-length", "10000")];
    let answer = gateway.post(INFER, &binary, good.as_bytes()).await;
    assert_eq!(answer.status, 400);
    let says = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(says.contains("inference-header-content-length is 10000, the body has"), "{says}");
}

#[tokio::test]
async fn the_page_is_whole_without_a_script_and_its_live_part_is_a_part_of_it() {
    let gateway = gateway().await;
    let empty = gateway.get("/").await.text();
    assert!(empty.contains("Waiting for the first reading") && empty.contains("plant/machine/temperature"));
    gateway.alarm("machine").await;
    let page = gateway.get("/?range=all").await;
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let page = page.text();
    for wanted in ["<h1 id=\"stream-name\">machine", "°F", "#1", "critical", "<noscript>", "aria-current=\"true\">All"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
    assert!(!page.contains(" style=\"") && !page.contains("onclick"), "the policy forbids them");
    let part = gateway.get("/?range=all&part=live").await.text();
    assert!(!part.contains("<html") && part.contains("id=\"chart-live\""));
    let missing = gateway.get("/streams/%3Cscript%3E").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text().contains("&lt;script&gt;") && !missing.text().contains("<script>"));
}
