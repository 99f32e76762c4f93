use std::sync::Arc;

use super::world::{
    A_THEN_B, HELLO, HELLO_STREAM, World, chat_answer, chat_frames, failed, name, read, says, stream, whole,
};
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
