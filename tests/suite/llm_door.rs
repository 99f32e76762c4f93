//! Language models over HTTP as callers see them: paths, keys, headers, streams and errors, over providers that are fakes.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use bytes::Bytes;
use forebay::doors::http::LlmConfig;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::llm_world::{World, ask, told, world};

#[tokio::test]
async fn every_path_answers_in_its_own_dialect() {
    let world = World::usual().await;
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    let ollama = json!({ "model": "chat", "stream": false, "messages": [{ "role": "user", "content": "Hello" }] });
    for (path, body, has) in [
        ("/v1/chat/completions", ask("chat"), r#""object":"chat.completion""#),
        ("/v1/completions", json!({ "model": "completion", "prompt": "Hello" }), r#""object":"text_completion""#),
        ("/v1/responses", json!({ "model": "chat-only", "input": "Hello" }), r#""object":"response""#),
        ("/v1/embeddings", json!({ "model": "embedding", "input": "Hello" }), r#""object":"embedding""#),
        ("/v1/moderations", json!({ "model": "moderation", "input": "Hello" }), r#""flagged":false"#),
        ("/v1/messages", ask("chat"), r#""type":"message""#),
        ("/v1/messages/count_tokens", ask("chat"), r#""input_tokens":"#),
        ("/v1beta/models/chat:generateContent", google.clone(), r#""candidates":"#),
        ("/v1beta/models/chat:countTokens", google.clone(), r#""totalTokens":"#),
        (
            "/v1beta/models/embedding:embedContent",
            json!({ "content": { "parts": [{ "text": "Hello" }] } }),
            r#""values":"#,
        ),
        ("/v1/projects/p/locations/l/publishers/google/models/chat:generateContent", google, r#""candidates":"#),
        ("/v1beta/interactions", json!({ "model": "chat", "input": "Hello" }), r#""object":"interaction""#),
        ("/api/chat", ollama, r#""done":true"#),
        ("/api/generate", json!({ "model": "chat", "stream": false, "prompt": "Hello" }), r#""response":"Hi""#),
        ("/api/embed", json!({ "model": "embedding", "input": "Hello" }), r#""embeddings":"#),
    ] {
        let (status, headers, body) = world.post(path, &body).await;
        assert_eq!(status, 200, "{path}: {body}");
        assert!(body.contains(has), "{path}: {body}");
        assert_eq!(headers["content-type"], "application/json", "{path}");
    }
}

#[tokio::test]
async fn every_stream_comes_in_its_own_dialect() {
    let world = World::usual().await;
    let stream = |model: &str| {
        let mut body = ask(model);
        body["stream"] = json!(true);
        body
    };
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    for (path, body, kind, has) in [
        ("/v1/chat/completions", stream("stream"), "text/event-stream", "data: [DONE]\n\n"),
        ("/v1/messages", stream("stream"), "text/event-stream", "event: message_stop\n"),
        (
            "/v1/responses",
            json!({ "model": "stream-only", "input": "x", "stream": true }),
            "text/event-stream",
            "event: response.completed",
        ),
        ("/v1beta/models/stream:streamGenerateContent?alt=sse", google, "text/event-stream", "\"finishReason\""),
        (
            "/v1beta/interactions",
            json!({ "model": "stream", "input": "x", "stream": true }),
            "text/event-stream",
            "event: interaction.completed",
        ),
        ("/api/chat", ask("stream"), "application/x-ndjson", "\"done\":true"),
    ] {
        let (status, headers, body) = world.post(path, &body).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind), "{path}: {body}");
        assert!(body.contains(has) && body.contains("Hi"), "{path}: {body}");
        assert!(!headers.contains_key("x-forebay-cost-usd"), "not known yet");
    }
}

#[tokio::test]
async fn a_stream_of_googles_is_an_array_for_whoever_does_not_ask_for_events() {
    let world = World::usual().await;
    let google = json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] });
    for (query, kind) in [
        ("", "application/json; charset=UTF-8"),
        ("?alt=json&key=app", "application/json; charset=UTF-8"),
        ("?key=app&$alt=sse", "text/event-stream"),
    ] {
        let path = format!("/v1beta/models/stream:streamGenerateContent{query}");
        let (status, headers, body) = world.post(&path, &google).await;
        assert_eq!((status, headers["content-type"].to_str().unwrap()), (StatusCode::OK, kind), "{path}: {body}");
        if kind == "text/event-stream" {
            continue;
        }
        let elements: Vec<Value> =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        let said = |one: &Value| one["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap_or("").to_owned();
        assert!(elements.iter().map(said).collect::<String>().contains("Hi"), "{body}");
        assert!(elements.last().unwrap()["candidates"][0]["finishReason"].is_string(), "{body}");
    }
    let (status, _, body) = world.post("/v1beta/models/nobody:streamGenerateContent", &google).await;
    let error: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &error["error"]["status"]), (StatusCode::NOT_FOUND, &json!("NOT_FOUND")));
}

#[tokio::test]
async fn a_key_comes_in_any_of_the_usual_headers_and_a_wrong_one_is_told_in_the_callers_dialect() {
    let world = World::usual().await;
    let body = ask("chat").to_string();
    for (path, header) in [
        ("/v1/chat/completions", ("authorization", "Bearer app")),
        ("/v1/chat/completions", ("authorization", "bearer  app")),
        ("/v1/chat/completions", ("authorization", "Basic YXBwOmFwcA==")),
        ("/v1/messages", ("x-api-key", "app")),
        ("/v1/chat/completions", ("api-key", "app")),
        ("/v1/chat/completions", ("x-goog-api-key", "app")),
        ("/v1/chat/completions?key=app", ("accept", "*/*")),
    ] {
        assert_eq!(world.send("POST", path, &[header], body.clone()).await.status(), 200, "{header:?}");
    }
    for (path, has) in [
        ("/v1/chat/completions", r#""code":"invalid_api_key""#),
        ("/v1/messages", r#""type":"authentication_error""#),
        ("/v1beta/models/chat:generateContent", r#""status":"UNAUTHENTICATED""#),
        ("/v1beta/interactions", r#""code":"unauthenticated""#),
        ("/v1beta/interactions/v1_x/cancel", r#""code":"unauthenticated""#),
        ("/api/chat", r#"{"error":"#),
    ] {
        for header in
            [("authorization", "Bearer wrong"), ("x-api-key", ""), ("accept", "*/*"), ("authorization", "app")]
        {
            let (status, headers, body) = told(world.send("POST", path, &[header], body.clone()).await).await;
            assert_eq!(status, 401, "{path} {header:?}");
            assert!(body.contains(has), "{path}: {body}");
            assert!(headers.contains_key("www-authenticate") && headers.contains_key("x-request-id"));
        }
    }
}

#[tokio::test]
async fn headers_say_what_was_decided_and_what_it_cost() {
    let world =
        world(LlmConfig::default(), "[[limit]]\nlevel = 'key'\nrequests_per_minute = 100\ntokens_per_minute = 5000")
            .await;
    let (_, headers, _) = world.post("/v1/chat/completions", &ask("chat")).await;
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    assert!(text("x-forebay-route").starts_with("chat; priority; link up; asks chat/"));
    let pairs = [
        ("x-forebay-model", "chat/chat"),
        ("x-forebay-cache", "off"),
        ("x-forebay-link", "up"),
        ("x-forebay-attempts", "1"),
        ("x-forebay-cost-usd", "0.000075"),
        ("x-forebay-overhead-us", "0"),
        ("x-request-id", "made-1"),
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-limit-tokens", "5000"),
        ("cache-control", "no-store"),
    ];
    for (name, value) in pairs {
        assert_eq!(text(name), value, "{name}");
    }
    assert_eq!(text("x-ratelimit-reset-requests"), "600ms");
    let own = [("x-api-key", "app"), ("x-request-id", "mine-7"), ("anthropic-version", "2023-06-01")];
    let (_, headers, _) = told(world.send("POST", "/v1/messages", &own, ask("chat").to_string()).await).await;
    assert_eq!(
        (&headers["x-request-id"], &headers["request-id"]),
        (&headers["request-id"], &"mine-7".parse().unwrap())
    );
    assert_eq!(headers["anthropic-ratelimit-requests-limit"], "100");
    assert!(headers["anthropic-ratelimit-requests-reset"].to_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn too_many_requests_come_with_the_time_to_wait() {
    let world = World::usual().await;
    let (status, headers, body) = world.post("/v1/chat/completions", &ask("failing")).await;
    assert_eq!(
        (status, &headers["retry-after"], &headers["retry-after-ms"]),
        (StatusCode::TOO_MANY_REQUESTS, &"2".parse().unwrap(), &"1500".parse().unwrap())
    );
    assert!(body.contains("rate_limit"), "{body}");
}

#[tokio::test]
async fn wrong_bodies_are_refused_in_the_callers_dialect() {
    let config = LlmConfig { body_max_bytes: 2000, ..LlmConfig::default() };
    let world = world(config, "").await;
    let key = ("authorization", "Bearer app");
    let send = async |headers: &[(&str, &str)], body: Body| {
        told(world.send("POST", "/v1/messages", headers, body).await).await
    };
    let (status, _, body) = send(&[key], Body::from("x".repeat(2001))).await;
    assert_eq!(status, 413);
    assert!(body.contains("request_too_large"), "{body}");
    let drips =
        futures_util::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"0123456789"))));
    assert_eq!(send(&[key], Body::from_stream(drips)).await.0, 413, "no length was said");
    let breaks = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(send(&[key], Body::from_stream(breaks)).await.0, 400);
    assert_eq!(send(&[key, ("content-encoding", "gzip")], Body::from("x")).await.0, 400);
    for nonsense in ["", "null", "{", "[[[[", "\u{0}", r#"{"model":"chat"}"#] {
        let (status, _, body) = send(&[key], Body::from(nonsense)).await;
        assert_eq!(status, 400, "{nonsense:?}: {body}");
        assert!(body.starts_with(r#"{"type":"error","error":{"type":"invalid_request_error""#), "{body}");
    }
    assert_eq!(world.post("/v1beta/models/chat:explode", &json!({})).await.0, 404);
    let (status, _, body) = world.post("/v1beta/interactions/v1_x/cancel", &json!({})).await;
    assert!(status == 404 && body.contains(r#""code":"not_found""#), "nothing is kept: {body}");
    let asked = json!({ "model": "chat", "input": "Hello", "previous_interaction_id": "v1_x" });
    let (status, _, body) = world.post("/v1beta/interactions", &asked).await;
    assert!(status == 400 && body.contains("send the whole conversation as `input`"), "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_come_is_given_up() {
    let world = World::usual().await;
    let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
    let response = world.send("POST", "/v1/messages", &[("x-api-key", "app")], Body::from_stream(never)).await;
    assert_eq!(response.status(), 408);
}

#[tokio::test(start_paused = true)]
async fn who_is_turned_away_at_the_door_leaves_a_record_and_a_flood_of_strangers_no_more_than_a_hundred() {
    let world = world(LlmConfig { requests_max: 1, body_max_bytes: 2000, ..LlmConfig::default() }, "").await;
    let app = ("authorization", "Bearer app");
    let send = async |id: &str, path: &str, headers: &[(&str, &str)], body: Body| {
        world.send("POST", path, &[&[("x-request-id", id)][..], headers].concat(), body).await.status().as_u16()
    };
    let body = || Body::from(ask("chat").to_string());
    let mut streamed = ask("tiny");
    streamed["stream"] = json!(true);
    let stream = world.send("POST", "/v1/chat/completions", &[app], streamed.to_string()).await;
    assert_eq!(send("no-place", "/v1/messages", &[app], body()).await, 529);
    drop(stream);
    assert_eq!(send("large", "/v1/chat/completions", &[app], Body::from("x".repeat(2001))).await, 413);
    let breaks = futures_util::stream::iter([Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))]);
    assert_eq!(send("broken", "/v1/chat/completions", &[app], Body::from_stream(breaks)).await, 400);
    let never = || Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
    assert_eq!(send("slow", "/v1/chat/completions", &[app], never()).await, 408);
    let key = [app];
    let leaves = send("left", "/v1/chat/completions", &key, never());
    tokio::time::timeout(Duration::from_secs(1), leaves)
        .await
        .expect_err("its caller leaves in the middle of the body");
    let strange = [app, ("host", "attacker.example")];
    assert_eq!(send("strange", "/v1/chat/completions", &strange, body()).await, 403);
    assert_eq!(send("no-key", "/v1beta/models/chat:generateContent", &[], body()).await, 401);
    for _ in 0..300 {
        assert_eq!(send("flood", "/v1/chat/completions", &[("x-api-key", "wrong")], body()).await, 401);
    }
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    for (id, status, error, key, model) in [
        ("no-place", 529, "overloaded", "app", ""),
        ("large", 413, "too_large", "app", ""),
        ("broken", 400, "invalid_request", "app", ""),
        ("slow", 408, "timeout", "app", ""),
        ("left", 499, "cancelled", "app", ""),
        ("strange", 403, "permission", "", ""),
        ("no-key", 401, "authentication", "", "chat"),
    ] {
        let (_, page) = world.boss("GET", &format!("/api/v1/calls?id={id}"), &Value::Null).await;
        let call = &page["calls"][0];
        let told = ["status", "error", "key", "model_asked", "cost_pico"].map(|name| call[name].clone());
        assert_eq!(told, [json!(status), json!(error), json!(key), json!(model), json!(0)], "{id}: {page}");
    }
    let (_, page) = world.boss("GET", "/api/v1/calls?most=1000", &Value::Null).await;
    let strangers = page["calls"].as_array().unwrap().iter().filter(|call| call["key"] == "").count();
    assert_eq!(strangers, 100, "further ones are counted");
    let (_, sums) = world.boss("GET", "/api/v1/usage?by=key", &Value::Null).await;
    let line = sums["usage"].as_array().unwrap().iter().find(|line| line["key"] == "").unwrap().clone();
    let numbers = ["requests", "failed", "unrecorded", "unknown_cost"].map(|name| line[name].clone());
    assert_eq!(numbers, [json!(302), json!(302), json!(202), json!(0)], "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_silent_carries_comments_and_holds_its_place() {
    let world = world(LlmConfig { requests_max: 1, ..LlmConfig::default() }, "").await;
    let mut body = ask("tiny");
    body["stream"] = json!(true);
    let key = [("authorization", "Bearer app")];
    let response = world.send("POST", "/v1/chat/completions", &key, body.to_string()).await;
    let mut frames = response.into_body().into_data_stream();
    assert!(frames.next().await.unwrap().unwrap().starts_with(b"data: "));
    assert_eq!(&frames.next().await.unwrap().unwrap()[..], b": ping\n\n");
    assert_eq!(&frames.next().await.unwrap().unwrap()[..], b": ping\n\n");
    let (status, headers, _) = world.post("/v1/messages", &ask("chat")).await;
    assert_eq!((status.as_u16(), &headers["retry-after"]), (529, &"1".parse().unwrap()));
    drop(frames);
    assert_eq!(world.post("/v1/messages", &ask("chat")).await.0, 200);
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    let (_, page) = world.boss("GET", "/api/v1/calls?failed=true", &Value::Null).await;
    assert_eq!((&page["calls"][0]["status"], &page["calls"][0]["error"]), (&json!(499), &json!("cancelled")));
}

#[tokio::test]
async fn models_are_listed_in_the_form_that_the_caller_knows() {
    let world = World::usual().await;
    let get = async |path: &str, headers: &[(&str, &str)]| told(world.send("GET", path, headers, "").await).await;
    let (_, _, body) = get("/v1/models", &[("authorization", "Bearer app")]).await;
    let list: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&list["object"], &list["data"][0]["id"], &list["data"][0]["owned_by"]),
        (&json!("list"), &json!("chat"), &json!("chat"))
    );
    let anthropic = [("x-api-key", "app"), ("anthropic-version", "2023-06-01")];
    assert!(get("/v1/models", &anthropic).await.2.contains(r#""has_more":false"#));
    assert!(get("/v1/models/tiny", &anthropic).await.2.contains(r#""type":"model""#));
    assert_eq!(get("/v1/models/nobody", &anthropic).await.0, 404);
    assert!(get("/v1beta/models?key=app", &[]).await.2.contains(r#""name":"models/chat""#));
    assert!(get("/v1beta/models/chat", &[("x-goog-api-key", "app")]).await.2.contains("supportedGenerationMethods"));
    let (_, _, body) = get("/api/tags", &[("authorization", "Bearer app")]).await;
    assert!(body.contains(r#""quantization_level":"Q4_K_M""#), "{body}");
    assert!(get("/api/version", &[]).await.2.contains("version"));
    let shown = world.post("/api/show", &json!({ "name": "tiny" })).await;
    assert!(shown.2.contains("qwen2"), "{}", shown.2);
    assert_eq!(world.post("/api/show", &json!({ "model": "nobody" })).await.0, 404);
    assert_eq!(get("/v1/models", &[]).await.0, 401);
}

#[tokio::test]
async fn a_web_page_of_somebody_else_gets_nothing() {
    let world = World::usual().await;
    let key = ("authorization", "Bearer app");
    let strange: [&[(&str, &str)]; 3] = [
        &[key, ("host", "attacker.example")],
        &[key, ("origin", "https://attacker.example")],
        &[key, ("sec-fetch-site", "cross-site")],
    ];
    for headers in strange {
        assert_eq!(world.send("POST", "/v1/messages", headers, ask("chat").to_string()).await.status(), 403);
        assert_eq!(world.send("GET", "/api/v1/calls", headers, "").await.status(), 403);
    }
    let ours = [key, ("host", "edge.plant:8080")];
    assert_eq!(world.send("POST", "/v1/messages", &ours, ask("chat").to_string()).await.status(), 200);
}
