//! Who is left out, who comes last, and what the caller is told to wait for.

use std::sync::Arc;
use std::time::Duration;

use super::world::{A_THEN_B, HELLO, World, chat_answer, failed, name, says, whole};
use crate::dialect::{Dialect, FailureKind};
use crate::flows::answer::FakeLocal;
use crate::provider::{Class, Failing, Kind};

#[tokio::test]
async fn a_candidate_is_not_asked_for_what_it_lacks() {
    let user = r#"{"role":"user","content":"Hi"}"#;
    let sound = r#"{"role":"user","content":[{"type":"input_audio","input_audio":{"data":"QUJD","format":"wav"}}]}"#;
    let tool = r#"{"role":"tool","tool_call_id":"1","content":"warm"}"#;
    for (lacks, message, more) in [
        ("audio", sound, ""),
        ("audio", user, r#","modalities":["text","audio"]"#),
        ("reasoning", user, r#","reasoning_effort":"high""#),
        ("logprobs", user, r#","logprobs":true"#),
        ("tools", tool, ""),
    ] {
        let route = A_THEN_B.replacen("'gpt-4o'", &format!("'gpt-4o'\nlacks = ['{lacks}']"), 1);
        let world = World::new(&route, vec![says("a", "from a"), says("b", "from b")]);
        let ask = |message: &str, more: &str| format!(r#"{{"model":"m","messages":[{message}]{more}}}"#);
        assert!(whole(world.ask(&ask(user, "")).await).contains("from a"), "{lacks}");
        let answered = world.ask(&ask(message, more)).await;
        assert!(answered.told.route.as_deref().unwrap().contains(lacks), "{answered:?}");
        assert!(whole(answered).contains("from b"), "{lacks}");
    }
}

#[tokio::test]
async fn a_route_by_language_looks_at_the_question_wherever_the_system_prompt_stands() {
    let route = "
        [[route]]\nname = 'r'\nmodels = ['m']
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'\nwhen.languages = ['de']
        [[route.candidate]]\nprovider = 'b'\nmodel = 'gpt-4o'
    ";
    let world = World::new(route, vec![says("a", "auf Deutsch"), says("b", "other")]);
    let german = "Wie hoch ist die Temperatur an der Presse, und wann wurde sie zuletzt gewartet?";
    let english = "You are a helpful assistant for the people in a plant. Answer the question in one sentence.";
    for (dialect, body) in [
        (
            Dialect::Anthropic,
            format!(
                r#"{{"max_tokens":9,"messages":[{{"role":"user","content":"{german}"}}],"model":"m","system":"{english}"}}"#
            ),
        ),
        (Dialect::Responses, format!(r#"{{"input":"{german}","model":"m","instructions":"{english}"}}"#)),
        (
            Dialect::Chat,
            format!(
                r#"{{"model":"m","messages":[{{"role":"user","content":"{german}"}},{{"role":"tool","tool_call_id":"1","content":"{english}"}}]}}"#
            ),
        ),
    ] {
        let answered = world.ask_as("all", dialect, &body, &[]).await;
        assert_eq!(answered.told.candidate.as_deref(), Some("a/gpt-4o"), "{dialect:?} {answered:?}");
    }
}

#[tokio::test]
async fn a_box_whose_cost_nobody_will_know_is_the_last_by_cost() {
    let route = "
        [[route]]\nname = 'r'\nmodels = ['m']\nstrategy = 'cost'
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [[prices.model]]\nprovider = 'a'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 1.0, output = 1.0 }
    ";
    for (prices, first) in [("", "a/gpt-4o"), ("[prices.local]\nusd_per_cpu_hour = 0.04", "local/tiny")] {
        let local = Arc::new(FakeLocal::new("tiny", [chat_answer("near")], None));
        let world = World::with_local(&[route, prices].concat(), vec![says("a", "far")], Some(local));
        assert_eq!(world.ask(HELLO).await.told.candidate.as_deref(), Some(first), "{prices:?}");
    }
}

#[tokio::test]
async fn a_rate_of_the_providers_that_does_not_say_until_when_is_told_with_the_time_it_is_left_alone() {
    let route =
        "[routing]\nretry_after_ms = 3000\n[[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'a'";
    let world = World::new(route, vec![Arc::new(Failing::new(name("a"), Kind::Openai, Class::RateLimited))]);
    let answered = world.ask(HELLO).await;
    assert_eq!(failed(&answered).kind, FailureKind::RateLimited);
    assert_eq!(answered.told.retry_after, Some(Duration::from_millis(3000)));
}
