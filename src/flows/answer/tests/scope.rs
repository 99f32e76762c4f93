use std::sync::Arc;

use bytes::Bytes;

use super::world::{A_THEN_B, HELLO, World, failed, name, says, whole};
use crate::dialect::{Dialect, FailureKind, Operation};
use crate::provider::{Class, Failing, Fake, Kind, Scripted};

#[tokio::test]
async fn a_key_asks_only_the_models_and_routes_it_may() {
    let a = says("a", "Hi");
    let world = World::new(A_THEN_B, vec![a.clone(), says("b", "no")]);
    for key in ["one", "lane"] {
        let answered = world.ask_as(key, Dialect::Chat, HELLO, &[]).await;
        assert_eq!(failed(&answered).kind, FailureKind::Permission, "{key}");
    }
    assert!(a.asked().is_empty());
    whole(world.ask_as("one", Dialect::Chat, &HELLO.replace("\"m\"", "\"one\""), &[]).await);
    let calls = world.calls().await;
    assert_eq!((calls[0].status, calls[0].error.as_str(), calls[0].cost_pico), (403, "permission", Some(0)));
    let models: Vec<_> =
        world.story.models(&world.who("one")).into_iter().map(|line| (line.name, line.owner)).collect();
    assert_eq!(models, [("one".to_owned(), "a".to_owned())]);
}

#[tokio::test]
async fn a_model_that_nobody_has_and_a_body_that_makes_no_sense_are_told_and_recorded() {
    let world = World::new(A_THEN_B, vec![says("a", "Hi"), says("b", "no")]);
    let unknown = world.ask(&HELLO.replace("\"m\"", "\"gpt-9\"")).await;
    assert_eq!(
        (failed(&unknown).kind, failed(&unknown).code.as_deref()),
        (FailureKind::NotFound, Some("model_not_found"))
    );
    for body in ["", "[]", "{", "{\"messages\":[]}", r#"{"model":1,"messages":[]}"#, r#"{"model":"m","model":"x"}"#] {
        let answered = world.ask(body).await;
        assert_eq!(failed(&answered).kind.status(Dialect::Chat), 400, "{body}");
    }
    let deep = format!(r#"{{"model":"m","messages":{}{}}}"#, "[".repeat(5000), "]".repeat(5000));
    assert_eq!(failed(&world.ask(&deep).await).kind, FailureKind::InvalidRequest);
    assert_eq!(world.calls().await.len(), 8);
}

#[tokio::test]
async fn a_condition_that_is_not_met_is_said() {
    let route = "[[route]]\nname = 'r'\nmodels = ['m']\nwhen.tags = ['night']\n[[route.candidate]]\nprovider = 'a'";
    let world = World::new(route, vec![says("a", "Hi")]);
    assert!(failed(&world.ask(HELLO).await).message.contains("route r has it"));
    whole(world.ask_as("all", Dialect::Chat, HELLO, &[("x-forebay-tags", "day, night")]).await);
}

#[tokio::test]
async fn tokens_are_counted_by_whoever_can_and_estimated_otherwise() {
    let counts = Scripted::Answer(vec![Bytes::from_static(br#"{"input_tokens":42}"#)]);
    let a = Arc::new(Fake::new(name("a"), Kind::Anthropic, [counts]));
    let route = "[[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'a'";
    let world = World::new(route, vec![a]);
    let ask = (Dialect::Anthropic, Operation::CountTokens);
    assert_eq!(whole(world.ask_for("all", ask, HELLO, &[]).await), r#"{"input_tokens":42}"#);
    let world = World::new(route, vec![Arc::new(Failing::new(name("a"), Kind::Anthropic, Class::Timeout))]);
    let body = whole(world.ask_for("all", ask, HELLO, &[]).await);
    assert!(body.starts_with(r#"{"input_tokens":"#) && body != r#"{"input_tokens":42}"#, "{body}");
    let call = world.call().await;
    assert_eq!((call.status, call.cost_pico, call.usage.input_tokens), (200, Some(0), Some(0)));
}

#[tokio::test]
async fn a_conversation_stays_with_its_candidate() {
    let route = "
        [[route]]\nname = 'r'\nmodels = ['m']\nstrategy = 'weights'\nsticky = 'conversation'
        [[route.candidate]]\nprovider = 'a'
        [[route.candidate]]\nprovider = 'b'
    ";
    let world = World::new(route, vec![says("a", "Hi"), says("b", "Hi")]);
    let mut candidates = std::collections::BTreeSet::new();
    for topic in 0..20 {
        let first = format!(r#"{{"role":"user","content":"topic {topic}"}}"#);
        let mut seen = std::collections::BTreeSet::new();
        for turns in ["", r#",{"role":"assistant","content":"Hi"},{"role":"user","content":"go on"}"#] {
            let answered = world.ask(&format!(r#"{{"model":"m","messages":[{first}{turns}]}}"#)).await;
            seen.insert(answered.told.candidate.unwrap());
        }
        assert_eq!(seen.len(), 1);
        candidates.extend(seen);
    }
    assert_eq!(candidates.len(), 2, "and not all with the same");
}

#[test]
fn a_route_over_a_provider_that_is_not_there_is_refused() {
    let world = World::new(A_THEN_B, vec![says("a", "x"), says("b", "x")]);
    assert_eq!(world.story.targets().len(), 2);
    let refused = std::panic::catch_unwind(|| World::new(A_THEN_B, vec![says("a", "x")]));
    assert!(refused.is_err());
}
