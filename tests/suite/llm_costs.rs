//! What the real gateway tells of costs: LiteLLM's own table, names that costs are told apart by, what kept answers saved, and
//! tokens that nobody told.

use serde_json::{Value, json};

use crate::gateway::poll;
use crate::llm_fixture::{CHAT, Reply, World, chat, provider, route, streamed};
use crate::llm_import::litellm;
use crate::mock_provider::{Behaviour, Mock};

/// What a reply says it cost, in pico-USD.
fn cost(reply: &Reply) -> u64 {
    let text = reply.header("x-forebay-cost-usd");
    let (whole, part) = text.split_once('.').unwrap_or_else(|| panic!("no cost in {reply:?}"));
    format!("{whole}{part:0<12}").parse().unwrap()
}

/// The group of the sums in which `name` is `value`, once it has so many requests.
fn sums(world: &World, by: &str, value: &str, requests: u64) -> Value {
    let found = || {
        let (status, page) = world.boss("GET", &format!("/api/v1/usage?by={by}"), "");
        assert_eq!(status, 200, "{page}");
        let group = page["usage"].as_array().unwrap().iter().find(|group| group[by] == value).cloned();
        group.filter(|group| group["requests"] == requests)
    };
    tokio::task::block_in_place(|| poll(&format!("{requests} requests with {by} {value:?}"), found))
}

async fn ask(world: &World, id: &str, prompt: &str, body: &Value) -> Reply {
    let headers = [("x-request-id", id), ("x-forebay-prompt", prompt)];
    let headers = if prompt.is_empty() { &headers[..1] } else { &headers[..] };
    world.connect().await.ask("app", CHAT, headers, body).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_priced_by_litellms_own_table() {
    let mock = Mock::start(Behaviour::default()).await;
    let table = litellm("prices.json");
    let config = [
        provider("openai", &mock, ""),
        route("r", &["m"], &["{ provider = \"openai\", model = \"gpt-4o\" }"]),
        format!("[prices]\nlitellm_file = {table:?}\n"),
    ];
    let world = World::start(&config.concat());
    let reply = ask(&world, "one", "", &chat("m")).await;
    assert_eq!((reply.status, reply.model()), (200, "openai/gpt-4o"), "{reply:?}");

    let prices: Value = serde_json::from_str(&std::fs::read_to_string(&table).unwrap()).unwrap();
    let pico = |name: &str| (prices["gpt-4o"][name].as_f64().unwrap() * 1e12).round() as u64;
    let usage = &reply.json()["usage"];
    let told = |of: &Value| of.as_u64().unwrap_or_else(|| panic!("{usage}"));
    let (prompt, said) = (told(&usage["prompt_tokens"]), told(&usage["completion_tokens"]));
    let cached = told(&usage["prompt_tokens_details"]["cached_tokens"]);
    assert!(cached > 0 && prompt > cached && said > 0, "{usage}");
    let expected = (prompt - cached) * pico("input_cost_per_token")
        + cached * pico("cache_read_input_token_cost")
        + said * pico("output_cost_per_token");
    assert_eq!(cost(&reply), expected, "{reply:?}");
    assert_eq!(world.record("one")["cost_pico"], json!(expected));
    assert!(world.metric("forebay_price_models{source=\"litellm\"}") > 2000.0);
    assert_eq!(world.metric("forebay_price_costs_total{known=\"exact\"}"), 1.0);
}

fn a_cent_a_word(mock: &Mock) -> String {
    let price =
        "[[prices.model]]\nprovider = \"p\"\nmodel = \"gpt\"\nusd_per_million_tokens = { input = 0, output = 10000 }\n";
    [provider("p", mock, ""), route("r", &["m"], &["{ provider = \"p\", model = \"gpt\" }"]), price.to_owned()].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn costs_are_told_apart_by_the_name_that_the_caller_gives_its_prompt() {
    let mock = Mock::start(Behaviour::default()).await;
    let world = World::start(&a_cent_a_word(&mock));
    let mut spent = 0;
    for id in ["a", "b"] {
        let reply = ask(&world, id, "greeting-v2", &chat("m")).await;
        let record = world.record(id);
        assert_eq!(
            (&record["prompt"], &record["cost_pico"]),
            (&json!("greeting-v2"), &json!(cost(&reply))),
            "{record}"
        );
        spent += cost(&reply);
    }
    let other = ask(&world, "c", "", &chat("m")).await;
    assert_eq!(world.record("c")["prompt"], "");
    let group = sums(&world, "prompt", "greeting-v2", 2);
    assert_eq!((&group["cost_pico"], &group["unknown_cost"]), (&json!(spent), &json!(0)), "{group}");
    assert_eq!(sums(&world, "prompt", "", 1)["cost_pico"], json!(cost(&other)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_kept_answers_saved_stands_in_the_record_the_sums_and_the_metrics() {
    let mock = Mock::start(Behaviour::default()).await;
    let cache = "[cache]\nmax_bytes = 100000\n[[cache.policy]]\nexact = true\n";
    let world = World::start(&[&a_cent_a_word(&mock), cache].concat());
    let first = ask(&world, "first", "", &chat("m")).await;
    assert_eq!(first.header("x-forebay-cache"), "miss");
    for id in ["second", "third"] {
        let again = ask(&world, id, "", &chat("m")).await;
        assert_eq!((again.header("x-forebay-cache"), cost(&again)), ("hit", 0), "{again:?}");
        let record = world.record(id);
        assert_eq!((&record["saved_pico"], &record["cost_pico"]), (&json!(cost(&first)), &json!(0)), "{record}");
        assert_eq!((&record["is_cached"], &record["cache"]), (&json!(true), &json!("hit")));
    }
    assert_eq!(mock.requests(), 1);
    let group = sums(&world, "key", "app", 3);
    assert_eq!((&group["cached"], &group["saved_pico"]), (&json!(2), &json!(2 * cost(&first))), "{group}");
    let metric = |name: &str| world.metric(&format!("forebay_cache_{name}_total{{kind=\"exact\"}}"));
    assert_eq!((metric("hits"), metric("misses")), (2.0, 1.0));
    assert_eq!(metric("saved_pico_usd"), 2.0 * cost(&first) as f64);
    let usage = &first.json()["usage"];
    assert_eq!(metric("saved_tokens"), 2.0 * usage["total_tokens"].as_f64().unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_nobody_told_are_marked_in_the_header_of_a_whole_answer_and_in_the_record() {
    let mock = Mock::start(Behaviour { usage: false, ..Behaviour::default() }).await;
    let world = World::start(&a_cent_a_word(&mock));
    let counted = ask(&world, "counted", "", &chat("m")).await;
    assert_eq!((counted.status, counted.header("x-forebay-usage")), (200, "estimated"), "{counted:?}");
    assert_eq!(world.record("counted")["estimated"], json!(true));
    let claude = world.ask_as("claude", "/v1/messages", &chat("m")).await;
    assert_eq!((claude.status, claude.header("x-forebay-usage")), (200, "estimated"), "{claude:?}");
    assert!(claude.json()["usage"]["cache_read_input_tokens"].is_null(), "nobody told it: {claude:?}");
    // Of a stream it is not known when its head goes out.
    let stream = ask(&world, "stream", "", &streamed("m")).await;
    assert_eq!((stream.status, stream.header("x-forebay-usage")), (200, ""), "{stream:?}");
    assert_eq!(world.record("stream")["estimated"], json!(true));
    mock.set(Behaviour::default());
    let told = ask(&world, "told", "", &chat("m")).await;
    assert_eq!((told.status, told.header("x-forebay-usage")), (200, ""), "{told:?}");
    assert_eq!(world.record("told")["estimated"], json!(false));
}
