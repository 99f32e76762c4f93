use std::pin::Pin;
use std::sync::Arc;

use serde_json::{Value, json};

use super::world::{
    A_THEN_B, HELLO, HELLO_STREAM, World, chat_answer, chat_frames, failed, name, read, says, stream, whole,
};
use crate::cache::{Embed, EmbedError};
use crate::dialect::{Dialect, FailureKind};
use crate::provider::{Class, Failing, Fake, Kind, Scripted};
use crate::quota::Unit;
use crate::route::Link;

const CACHE: &str = "
    [cache]\nmax_bytes = 1000000
    [[cache.policy]]\nexact = true\nsingle_flight = true
    [[prices.model]]\nprovider = 'a'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 1.0, output = 1.0 }
    [[quota.limit]]\nlevel = 'key'\ntokens_per_day = 1000
";

#[tokio::test]
async fn the_same_question_is_answered_once_and_given_twice() {
    let a = says("a", "Hi");
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    let first = world.ask(HELLO).await;
    assert_eq!(first.told.cache, "miss");
    let again = HELLO.replace(r#""model":"m","#, "").replace("}]}", r#"}], "model" : "m"}"#);
    let second = world.ask(&again).await;
    assert_eq!((second.told.cache, second.told.attempts), ("hit", 0));
    assert_eq!(whole(first), whole(second));
    assert_eq!(a.asked().len(), 1);
    assert_eq!(world.spent("key", Unit::Tokens), (15, 0), "the second took nothing");
    let call = &world.calls().await[1];
    assert!(call.is_cached);
    assert_eq!((call.cost_pico, call.saved_pico, call.model_answered.as_str()), (Some(0), Some(15_000_000), "gpt-4o"));
}

#[tokio::test]
async fn nobody_gets_what_another_key_asked() {
    let a = says("a", "Hi");
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    whole(world.ask(HELLO).await);
    let other = world.ask_as("other", Dialect::Chat, HELLO, &[]).await;
    assert_eq!((other.told.cache, a.asked().len()), ("miss", 2));
}

#[tokio::test]
async fn what_was_kept_is_given_with_the_cable_cut() {
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![says("a", "Hi"), says("b", "no")]);
    whole(world.ask(HELLO).await);
    world.story.see_link(Link::Down);
    assert_eq!(world.ask(HELLO).await.told.cache, "hit");
    let other = world.ask(&HELLO.replace("Hello", "Bye")).await;
    assert_eq!(failed(&other).kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn a_stream_is_kept_when_it_was_whole_and_not_when_it_broke() {
    let script = [
        Scripted::Half(chat_frames(&["Hel"], false), Class::Unavailable),
        Scripted::Answer(chat_frames(&["Hel", "lo"], true)),
    ];
    let a = Arc::new(Fake::new(name("a"), Kind::Openai, script));
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    read(stream(world.ask(HELLO_STREAM).await)).await;
    let whole_stream = read(stream(world.ask(HELLO_STREAM).await)).await;
    let kept = world.ask(HELLO_STREAM).await;
    assert_eq!((kept.told.cache, a.asked().len()), ("hit", 2));
    assert_eq!(whole(kept), whole_stream);
}

#[tokio::test]
async fn failures_are_not_kept() {
    let a = Arc::new(Failing::new(name("a"), Kind::Openai, Class::Overloaded));
    let b = Arc::new(Fake::new(
        name("b"),
        Kind::Openai,
        [Scripted::Half(vec![], Class::Unavailable), Scripted::Answer(vec![chat_answer("Hi")])],
    ));
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a, b]);
    failed(&world.ask(HELLO).await);
    assert_eq!(world.ask(HELLO).await.told.cache, "miss");
    assert_eq!(world.ask(HELLO).await.told.cache, "hit");
}

#[tokio::test]
async fn requests_that_are_the_same_ask_once_while_the_first_is_on_its_way() {
    let a = Arc::new(Fake::new(name("a"), Kind::Openai, [Scripted::Answer(chat_frames(&["Hel", "lo"], true))]));
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    let first = stream(world.ask(HELLO_STREAM).await);
    let mut second = Box::pin(world.ask(HELLO_STREAM));
    assert!(futures_util::poll!(&mut second).is_pending());
    let text = read(first).await;
    let second = second.await;
    assert_eq!((second.told.cache, a.asked().len()), ("flight", 1));
    assert_eq!(whole(second), text);
}

#[tokio::test]
async fn when_the_first_leaves_one_of_the_others_asks() {
    let a = Arc::new(Fake::new(name("a"), Kind::Openai, [Scripted::Answer(chat_frames(&["Hel", "lo"], true))]));
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    let first = stream(world.ask(HELLO_STREAM).await);
    let mut second = Box::pin(world.ask(HELLO_STREAM));
    assert!(futures_util::poll!(&mut second).is_pending());
    drop(first);
    assert!(read(stream(second.await)).await.contains("[DONE]"));
    assert_eq!(a.asked().len(), 2);
}

#[tokio::test]
async fn a_caller_can_want_a_kept_answer_only_or_none_at_all() {
    let a = says("a", "Hi");
    let world = World::new(&[A_THEN_B, CACHE].concat(), vec![a.clone(), says("b", "no")]);
    let asks = async |wish: &str| world.ask_as("all", Dialect::Chat, HELLO, &[("cache-control", wish)]).await;
    assert_eq!(failed(&asks("only-if-cached").await).kind.status(Dialect::Chat), 504);
    whole(asks("no-store").await);
    assert_eq!(failed(&asks("only-if-cached").await).kind, FailureKind::Timeout);
    whole(asks("max-age=60").await);
    assert_eq!(asks("only-if-cached").await.told.cache, "hit");
    whole(asks("no-cache").await);
    assert_eq!(a.asked().len(), 3);
}

/// To it, all texts about pumps mean the same, and so do all others.
struct Pumps;

impl Embed for Pumps {
    fn name(&self) -> &str {
        "pumps/1"
    }

    fn embed<'a>(&'a self, text: &'a str) -> Pin<Box<dyn Future<Output = Result<Vec<f32>, EmbedError>> + Send + 'a>> {
        Box::pin(async move { Ok(if text.contains("pump") { vec![1.0, 0.0] } else { vec![0.0, 1.0] }) })
    }
}

const MEANING: &str = "
    [[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
    [cache.semantic]\nmax_entries = 100\nmodel = 'pumps'
    [[cache.policy]]\nexact = false\nsemantic = true\nthreshold = 0.9
";

/// A request of a dialect whose user says `text` last.
fn saying(dialect: Dialect, text: &str) -> Value {
    match dialect {
        Dialect::Responses => json!({"model": "m", "instructions": "Be brief.", "input": text}),
        Dialect::Anthropic => json!({"model": "m", "max_tokens": 9, "system": "Be brief.",
            "messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}),
        Dialect::Ollama => json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": text}]}),
        _ => json!({"model": "m", "max_tokens": 9,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": text}]}),
    }
}

#[tokio::test]
async fn a_question_that_means_the_same_is_answered_by_the_kept_one_whatever_its_dialect_and_its_escapes() {
    for dialect in [Dialect::Chat, Dialect::Responses, Dialect::Anthropic, Dialect::Ollama] {
        let a = says("a", "Hi");
        let world = World::with_embed(MEANING, vec![a.clone()], Arc::new(Pumps)).await;
        let ask = async |text: &str| world.ask_as("all", dialect, &saying(dialect, text).to_string(), &[]).await;
        let first = ask("Is the \"pump\" hot?\nNow?").await;
        assert_eq!(first.told.cache, "miss", "{dialect}");
        world.settle().await;
        let again = ask("How warm\tis \"the pump\"?\n").await;
        assert_eq!((again.told.cache, a.asked().len()), ("semantic", 1), "{dialect}");
        assert_eq!(whole(first), whole(again), "{dialect}");
        assert_eq!(ask("Is the \"valve\" hot?\nNow?").await.told.cache, "miss", "{dialect}: it means something else");
    }
}

#[tokio::test]
async fn what_means_the_same_is_no_answer_to_other_instructions_tools_turns_dialects_or_keys() {
    let a = says("a", "Hi");
    let world = World::with_embed(MEANING, vec![a.clone()], Arc::new(Pumps)).await;
    let kept = saying(Dialect::Chat, "Is the pump\nhot?");
    let ask = async |key: &str, dialect, body: &Value| world.ask_as(key, dialect, &body.to_string(), &[]).await;
    whole(ask("all", Dialect::Chat, &kept).await);
    world.settle().await;
    assert_eq!(ask("all", Dialect::Chat, &saying(Dialect::Chat, "The pump?")).await.told.cache, "semantic");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut body = saying(Dialect::Chat, "The pump?");
        change(&mut body);
        body
    };
    let tool = json!([{"type": "function", "function": {"name": "look", "parameters": {}}}]);
    let strangers = [
        ("instructions", "all", with(&|body| body["messages"][0]["content"] = json!("Be long."))),
        ("tools", "all", with(&|body| body["tools"] = tool.clone())),
        ("settings", "all", with(&|body| body["temperature"] = json!(0))),
        ("turns", "all", with(&|body| body["messages"][0] = json!({"role": "user", "content": "Be brief."}))),
        ("key", "twin", kept.clone()),
        ("tenant", "other", kept.clone()),
    ];
    for (what, key, body) in &strangers {
        assert_eq!(ask(key, Dialect::Chat, body).await.told.cache, "miss", "{what}");
    }
    let mut same_bytes = saying(Dialect::Chat, "The pump?");
    same_bytes["messages"][0]["role"] = json!("user");
    assert_eq!(ask("all", Dialect::Anthropic, &same_bytes).await.told.cache, "miss", "another dialect");
    // What a tool found is never compared by what it means.
    let found = with(&|body| body["messages"][1] = json!({"role": "tool", "tool_call_id": "1", "content": "pump"}));
    whole(ask("all", Dialect::Chat, &found).await);
    world.settle().await;
    let asked = a.asked().len();
    assert_eq!(ask("all", Dialect::Chat, &found).await.told.cache, "miss");
    assert_eq!(a.asked().len(), asked + 1);
}
