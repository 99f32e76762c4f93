use std::sync::Arc;

use bytes::Bytes;

use super::world::{A_THEN_B, HELLO_STREAM, World, chat_frames, name, read, stream};
use crate::dialect::Dialect;
use crate::provider::{Class, Fake, Kind, Scripted};
use crate::quota::Unit;

const LIMIT: &str = "[[quota.limit]]\nlevel = 'key'\ntokens_per_day = 100000";

fn speaks(provider: &str, script: Scripted) -> Arc<Fake> {
    Arc::new(Fake::new(name(provider), Kind::Openai, [script]))
}

fn says_nothing(provider: &str) -> Arc<Fake> {
    speaks(provider, Scripted::Answer(vec![]))
}

#[tokio::test]
async fn a_stream_goes_through_and_is_settled_with_what_was_told() {
    let a = speaks("a", Scripted::Answer(chat_frames(&["Hel", "lo"], true)));
    let world = World::new(&[A_THEN_B, LIMIT].concat(), vec![a.clone(), says_nothing("b")]);
    let answered = world.ask(HELLO_STREAM).await;
    assert_eq!((answered.told.cost_pico, answered.told.attempts), (None, 1));
    assert!(world.spent("key", Unit::Tokens).1 > 50, "held while it runs");
    let text = read(stream(answered)).await;
    assert!(text.contains("Hel") && text.contains("lo") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert!(!text.contains("usage"), "nobody asked for it");
    assert!(String::from_utf8_lossy(&a.asked()[0].body).contains("include_usage"));
    assert_eq!(world.spent("key", Unit::Tokens), (15, 0));
    let call = world.call().await;
    assert!(call.is_stream && call.first_token_us.is_some() && !call.usage.estimated);
    assert_eq!((call.status, call.usage.output_tokens), (200, Some(5)));
}

#[tokio::test]
async fn a_stream_is_told_in_the_callers_dialect() {
    let a = speaks("a", Scripted::Answer(chat_frames(&["Hel", "lo"], true)));
    let world = World::new(A_THEN_B, vec![a, says_nothing("b")]);
    let text = read(stream(world.ask_as("all", Dialect::Anthropic, HELLO_STREAM, &[]).await)).await;
    assert!(text.starts_with("event: message_start") && text.contains("event: message_stop"), "{text}");
}

#[tokio::test]
async fn a_stream_that_breaks_before_anything_went_out_is_passed_for_the_next() {
    for broken in [
        Scripted::Half(vec![], Class::Unavailable),
        Scripted::Half(vec![Bytes::from_static(b": wait\n\ndata: {\"id")], Class::Timeout),
        Scripted::Answer(vec![]),
        Scripted::Answer(vec![Bytes::from_static(b"data: not JSON\n\n")]),
        Scripted::Answer(vec![Bytes::from_static(
            b"data: {\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}\n\n",
        )]),
    ] {
        let b = speaks("b", Scripted::Answer(chat_frames(&["from b"], true)));
        let world = World::new(A_THEN_B, vec![speaks("a", broken.clone()), b]);
        let text = read(stream(world.ask(HELLO_STREAM).await)).await;
        assert!(
            text.contains("from b") && text.ends_with("[DONE]\n\n") && !text.contains("error"),
            "{broken:?}: {text}"
        );
        assert_eq!(world.call().await.attempts.len(), 2);
    }
}

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_says_so_and_is_settled_with_what_was_counted() {
    for dialect in [Dialect::Chat, Dialect::Anthropic] {
        let a = speaks("a", Scripted::Half(chat_frames(&["Hel", "lo"], false), Class::Unavailable));
        let b = says_nothing("b");
        let world = World::new(&[A_THEN_B, LIMIT].concat(), vec![a, b.clone()]);
        let text = read(stream(world.ask_as("all", dialect, HELLO_STREAM, &[]).await)).await;
        assert!(text.contains("Hel") && text.contains("error"), "{text}");
        assert!(!text.contains("[DONE]") && !text.contains("message_stop"), "{text}");
        assert!(b.asked().is_empty(), "half an answer is not begun anew");
        let call = world.call().await;
        assert_eq!((call.error.as_str(), call.status, call.usage.estimated), ("cut", 503, true));
        assert!(call.usage.output_tokens.unwrap() > 0);
        let (spent, held) = world.spent("key", Unit::Tokens);
        assert_eq!((spent, held), (call.usage.input_tokens.unwrap() + call.usage.output_tokens.unwrap(), 0));
    }
}

#[tokio::test]
async fn who_leaves_in_the_middle_pays_for_what_was_counted() {
    let a = speaks("a", Scripted::Answer(chat_frames(&["Hel", "lo", "there"], true)));
    let world = World::new(&[A_THEN_B, LIMIT].concat(), vec![a, says_nothing("b")]);
    let mut stream = stream(world.ask(HELLO_STREAM).await);
    std::future::poll_fn(|cx| stream.poll_frames(cx)).await.unwrap();
    drop(stream);
    let call = world.call().await;
    assert_eq!((call.status, call.error.as_str(), call.usage.estimated), (499, "cancelled", true));
    let (spent, held) = world.spent("key", Unit::Tokens);
    assert!(spent > 0 && spent < 50 && held == 0, "{spent}");
    assert_eq!(world.story.targets()[0].1.requests, 0, "it says nothing about the target");
}

#[tokio::test]
async fn who_leaves_before_anything_came_pays_as_reserved() {
    let world = World::new(&[A_THEN_B, LIMIT].concat(), vec![Arc::new(Silent), says_nothing("b")]);
    let mut asking = Box::pin(world.ask(HELLO_STREAM));
    assert!(futures_util::poll!(&mut asking).is_pending());
    drop(asking);
    let call = world.call().await;
    assert_eq!((call.status, call.cost_pico, call.usage.output_tokens), (499, None, None));
    let (spent, held) = world.spent("key", Unit::Tokens);
    assert!(spent > 50 && held == 0, "{spent}");
}

/// Never answers.
#[derive(Debug)]
struct Silent;

impl crate::provider::Provider for Silent {
    fn name(&self) -> &crate::base::Name {
        static NAME: std::sync::LazyLock<crate::base::Name> = std::sync::LazyLock::new(|| name("a"));
        &NAME
    }
    fn kind(&self) -> Kind {
        Kind::Openai
    }
    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        Some(asked)
    }
    fn models(&self) -> &[crate::provider::Model] {
        &[]
    }
    fn send<'a>(&'a self, _: crate::provider::Ask<'a>) -> crate::provider::Asking<'a, crate::provider::Reply> {
        Box::pin(std::future::pending())
    }
    fn probe(&self) -> crate::provider::Asking<'_, std::time::Duration> {
        Box::pin(std::future::pending())
    }
}
