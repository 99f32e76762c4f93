//! What operators do over HTTP with keys, tenants, records and kept answers, and what apps may see of it.

use std::collections::BTreeMap;

use forebay::doors::http::LlmConfig;
use serde_json::{Value, json};

use crate::llm_world::{World, ask, told, world};

#[tokio::test]
async fn a_key_is_made_used_rotated_and_taken_back_and_all_of_it_is_in_the_audit() {
    let world = World::usual().await;
    let order = json!({ "name": "line-7", "models": ["chat"] });
    let (status, made) = world.boss("POST", "/api/v1/keys", &order).await;
    assert_eq!(status, 201, "{made}");
    let (first, id) = (made["key"].as_str().unwrap().to_owned(), made["id"].as_str().unwrap().to_owned());
    let uses = async |key: &str, model: &str| {
        let key = format!("Bearer {key}");
        world.send("POST", "/v1/chat/completions", &[("authorization", &key)], ask(model).to_string()).await.status()
    };
    assert_eq!((uses(&first, "chat").await.as_u16(), uses(&first, "stream").await.as_u16()), (200, 403));
    assert_eq!(world.boss("POST", "/api/v1/keys", &order).await.0, 409);
    let (_, rotated) = world.boss("POST", &format!("/api/v1/keys/{id}/rotate"), &json!({ "overlap_ms": 1000 })).await;
    let second = rotated["key"].as_str().unwrap().to_owned();
    assert_eq!((uses(&first, "chat").await.as_u16(), uses(&second, "chat").await.as_u16()), (200, 200));
    let (_, changed) = world.boss("PATCH", &format!("/api/v1/keys/{id}"), &json!({ "models": ["*"] })).await;
    assert_eq!(changed["models"], json!(["*"]));
    assert_eq!(uses(&second, "completion").await.as_u16(), 200, "the route takes it; what comes is passed on");
    assert_eq!(world.boss("DELETE", &format!("/api/v1/keys/{id}"), &Value::Null).await.0, 200);
    assert_eq!(uses(&second, "chat").await.as_u16(), 401);
    let (_, listed) = world.boss("GET", "/api/v1/keys", &Value::Null).await;
    assert!(!listed.to_string().contains(&first) && !listed.to_string().contains(&second));
    assert_eq!(world.boss("DELETE", &format!("/api/v1/keys/{id}?forget=true"), &Value::Null).await.0, 204);
    let (_, audit) = world.boss("GET", "/api/v1/audit", &Value::Null).await;
    let actions: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|entry| entry["action"].clone()).collect();
    assert_eq!(actions, ["key.remove", "key.revoke", "key.change", "key.rotate", "key.create"]);
}

#[tokio::test]
async fn tenants_are_made_shut_out_and_removed() {
    let world = World::usual().await;
    assert_eq!(world.boss("POST", "/api/v1/tenants", &json!({ "name": "acme" })).await.0, 201);
    let (_, made) = world.boss("POST", "/api/v1/keys", &json!({ "name": "a", "tenant": "acme" })).await;
    let key = format!("Bearer {}", made["key"].as_str().unwrap());
    let uses = async || {
        world.send("POST", "/v1/chat/completions", &[("authorization", &*key)], ask("chat").to_string()).await.status()
    };
    assert_eq!(uses().await, 200);
    assert_eq!(world.boss("PATCH", "/api/v1/tenants/acme", &json!({ "suspended": true })).await.0, 200);
    assert_eq!(uses().await, 403);
    assert_eq!(world.boss("DELETE", "/api/v1/tenants/acme", &Value::Null).await.0, 409);
    assert_eq!(world.boss("GET", "/api/v1/tenants", &Value::Null).await.1["tenants"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn an_app_sees_its_own_records_and_no_others() {
    let world = world(LlmConfig::default(), "[[limit]]\nlevel = 'key'\ntokens_per_day = 1000").await;
    world.post("/v1/chat/completions", &ask("chat")).await;
    let boss = [("authorization", "Bearer boss")];
    world.send("POST", "/v1/chat/completions", &boss, ask("chat").to_string()).await;
    world.ledger.flush(&world.store.writer(), None).await.unwrap();
    let app = [("authorization", "Bearer app")];
    let own = async |path: &str| -> Value {
        serde_json::from_str(&told(world.send("GET", path, &app, "").await).await.2).unwrap()
    };
    let calls = own("/api/v1/calls?key=boss").await;
    let keys: BTreeMap<_, _> =
        calls["calls"].as_array().unwrap().iter().map(|call| (call["key"].to_string(), ())).collect();
    assert_eq!(keys.into_keys().collect::<Vec<_>>(), ["\"app\""]);
    assert_eq!(own("/api/v1/usage?by=key").await["usage"][0]["cost_pico"], json!(75_000_000));
    assert_eq!(own("/api/v1/limits?name=boss").await["limits"][0]["spent"], json!(15));
    let (_, all) = world.boss("GET", "/api/v1/usage?by=key,model", &Value::Null).await;
    assert_eq!(all["usage"].as_array().unwrap().len(), 2);
    assert_eq!(world.boss("GET", "/api/v1/usage?by=weather", &Value::Null).await.0, 400);
    assert_eq!(world.boss("GET", "/api/v1/calls?after=x", &Value::Null).await.0, 400);
    for (method, path) in
        [("GET", "/api/v1/keys"), ("POST", "/api/v1/keys"), ("GET", "/api/v1/audit"), ("POST", "/api/v1/cache/purge")]
    {
        assert_eq!(world.send(method, path, &app, "{}").await.status(), 403, "{path}");
        assert_eq!(world.send(method, path, &[], "{}").await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn kept_answers_can_be_taken_away() {
    let world = World::usual().await;
    let ask = json!({ "model": "embedding", "input": "Hello" });
    for cache in ["miss", "hit"] {
        assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], cache);
    }
    let (_, purged) = world.boss("POST", "/api/v1/cache/purge", &json!({})).await;
    assert_eq!(purged, json!({ "purged": 1 }));
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "miss");
    for list in [json!([]), json!([null, null]), json!("all"), Value::Null] {
        assert_eq!(
            world.boss("POST", "/api/v1/cache/purge", &list).await.0,
            400,
            "{list} is no order to take all away"
        );
    }
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "hit");
    assert_eq!(world.boss("POST", "/api/v1/cache/purge", &json!({})).await.1, json!({ "purged": 1 }));
    assert_eq!(world.post("/v1/embeddings", &ask).await.1["x-forebay-cache"], "miss");
}
