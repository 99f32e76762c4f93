//! Whom the real gateway asks: each strategy and each condition of a route, over mock providers.

use std::time::Duration;

use serde_json::{Value, json};

use crate::llm_fixture::{CHAT, World, attempts, chat, provider, streamed};
use crate::mock_provider::{Behaviour, Mock};

/// A route whose candidates stand in the file in this order.
fn strategy(strategy: &str, candidates: &[&str]) -> String {
    let candidates: Vec<_> =
        candidates.iter().map(|name| format!("{{ provider = \"{name}\", model = \"gpt\" }}")).collect();
    format!(
        "[[route]]\nname = \"r\"\nmodels = [\"m\"]\nstrategy = \"{strategy}\"\ncandidate = [{}]\n",
        candidates.join(", ")
    )
}

fn price(provider: &str, output: u32) -> String {
    format!(
        "[[prices.model]]\nprovider = \"{provider}\"\nmodel = \"gpt\"\nusd_per_million_tokens = {{ input = 1, output = {output} }}\n"
    )
}

fn slow(ms: u64) -> Behaviour {
    Behaviour { first_byte: Duration::from_millis(ms), ..Behaviour::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_latency_the_quicker_one_answers_until_it_is_the_slower_one() {
    let (slug, hare) = (Mock::start(slow(400)).await, Mock::start(Behaviour::default()).await);
    let world = World::start(
        &[provider("slug", &slug, ""), provider("hare", &hare, ""), strategy("latency", &["slug", "hare"])].concat(),
    );
    let asked = async || world.ask(CHAT, &chat("m")).await.model().to_owned();
    let mut first = [asked().await, asked().await];
    first.sort();
    assert_eq!(first, ["hare/gpt", "slug/gpt"], "each of them is measured");
    for _ in 0..5 {
        assert_eq!(asked().await, "hare/gpt");
    }
    hare.set(slow(3000));
    assert_eq!(asked().await, "hare/gpt", "nobody knows yet");
    slug.set(Behaviour::default());
    let reply = world.ask(CHAT, &chat("m")).await;
    assert_eq!(reply.model(), "slug/gpt", "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_cost_the_cheapest_is_asked_first_and_one_without_a_price_last() {
    let mocks = [
        Mock::start(Behaviour::default()).await,
        Mock::start(Behaviour::default()).await,
        Mock::start(Behaviour::default()).await,
    ];
    let names = ["unknown", "dear", "cheap"];
    let providers: String = names.iter().zip(&mocks).map(|(name, mock)| provider(name, mock, "")).collect();
    // The box has no such model; without [prices.local] nobody knows what it would cost either.
    let route = strategy("cost", &["local", "unknown", "dear", "cheap"]);
    let world = World::start(&[providers, route, price("dear", 100), price("cheap", 10)].concat());
    let reply = world.ask_as("first", CHAT, &chat("m")).await;
    assert_eq!(reply.model(), "cheap/gpt", "{reply:?}");
    let why = reply.header("x-forebay-route");
    let order: Vec<_> =
        ["cheap/gpt (", "dear/gpt (", "/gpt (price unknown)"].iter().map(|part| why.find(part)).collect();
    assert!(order.is_sorted() && order[0].is_some(), "{why}");
    assert_eq!(why.matches("price unknown").count(), 2, "{why}");
    assert_eq!(attempts(&world.record("first")), ["cheap/gpt ok"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_busyness_the_one_with_fewer_requests_is_asked() {
    let endless = Behaviour { words: 3000, pace: Duration::from_millis(20), ..Behaviour::default() };
    let (a, b) = (Mock::start(endless.clone()).await, Mock::start(endless).await);
    let world = World::start(&[provider("a", &a, ""), provider("b", &b, ""), strategy("busy", &["a", "b"])].concat());
    let mut live = Vec::new();
    for at in 0..6 {
        let mut stream = world.begin_as(&format!("busy-{at}"), CHAT, &streamed("m")).await;
        stream.until(" press").await;
        live.push(stream);
        let (at_a, at_b) = (a.requests(), b.requests());
        assert!(at_a.abs_diff(at_b) <= 1, "{at_a} and {at_b} after {at}");
    }
    assert_eq!((a.requests(), b.requests()), (3, 3));
}

/// One model for each condition, and one for the rest.
const CHOOSY: &str = "
    [[route]]
    name = \"r\"
    models = [\"m\"]
    candidate = [
      { provider = \"p\", model = \"long\", when.prompt_tokens_min = 5000 },
      { provider = \"p\", model = \"sees\", when.needs = [\"images\"] },
      { provider = \"p\", model = \"hears\", when.needs = [\"audio\"] },
      { provider = \"p\", model = \"thinks\", when.needs = [\"reasoning\"] },
      { provider = \"p\", model = \"told\", when.needs = [\"tools\"] },
      { provider = \"p\", model = \"coder\", when.tasks = [\"code\"] },
      { provider = \"p\", model = \"german\", when.languages = [\"de\"] },
      { provider = \"p\", model = \"other\" },
    ]
";

const GERMAN: &str = "Wie hoch ist die Temperatur an der Presse, und wann wurde sie zuletzt gewartet?";
const ENGLISH: &str = "You are a helpful assistant for the people in a plant. Answer the question in one sentence.";

fn says(content: impl Into<Value>) -> Value {
    json!({ "model": "m", "max_tokens": 5, "messages": [{ "role": "user", "content": content.into() }] })
}

fn with(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn length_needs_task_and_language_choose_the_model_in_every_dialect() {
    let mock = Mock::start(Behaviour::default()).await;
    let world = World::start(&[&*provider("p", &mock, ""), CHOOSY].concat());
    let tool = json!([
        { "role": "user", "content": "How warm is it?" },
        { "role": "assistant", "content": null, "tool_calls": [{ "id": "1", "type": "function", "function": { "name": "t", "arguments": "{}" } }] },
        { "role": "tool", "tool_call_id": "1", "content": "It is warm." },
    ]);
    let picture = json!([{ "type": "text", "text": "What is this?" }, { "type": "image_url", "image_url": { "url": "data:image/png;base64,QUJD" } }]);
    let sound = json!([{ "type": "input_audio", "input_audio": { "data": "QUJD", "format": "wav" } }]);
    // Members in the order of their names, as an SDK may write them: instructions stand before what is asked or behind it.
    let gemini = json!({
        "contents": [{ "parts": [{ "text": GERMAN }], "role": "user" }],
        "systemInstruction": { "parts": [{ "text": ENGLISH }] },
    });
    for (path, body, model) in [
        (CHAT, says("Hello there"), "other"),
        (CHAT, says("The press runs. ".repeat(3000)), "long"),
        (CHAT, says(picture), "sees"),
        (CHAT, says(sound), "hears"),
        (CHAT, with(says("Hello there"), "reasoning_effort", json!("low")), "thinks"),
        (
            "/v1/messages",
            with(
                with(says("Hello"), "max_tokens", json!(4000)),
                "thinking",
                json!({ "type": "enabled", "budget_tokens": 2000 }),
            ),
            "thinks",
        ),
        (CHAT, with(says(""), "messages", tool), "told"),
        (CHAT, says("Fix this:\n```rust\nfn main() { let x = 1; }\n```"), "coder"),
        (CHAT, says(GERMAN), "german"),
        ("/v1/messages", with(says(GERMAN), "system", json!(ENGLISH)), "german"),
        ("/v1/messages", with(says(ENGLISH), "system", json!(GERMAN)), "other"),
        ("/v1/responses", json!({ "input": GERMAN, "instructions": ENGLISH, "model": "m" }), "german"),
        ("/v1/responses", json!({ "model": "m", "instructions": GERMAN, "input": ENGLISH }), "other"),
        ("/v1beta/models/m:generateContent", gemini, "german"),
        ("/api/chat", with(says(GERMAN), "stream", json!(false)), "german"),
    ] {
        let reply = world.ask(path, &body).await;
        assert_eq!((reply.status, reply.model()), (200, &*format!("p/{model}")), "{path}: {reply:?}");
    }
    let said = [("x-forebay-task", "code")];
    let reply = world.connect().await.ask("app", CHAT, &said, &says(GERMAN)).await;
    assert_eq!(reply.model(), "p/coder", "what the caller says goes before a guess: {reply:?}");
}
