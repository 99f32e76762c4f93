use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::world::{A_THEN_B, HELLO, World, chat_answer, failed, name, says, whole};
use crate::dialect::{Dialect, FailureKind, Operation};
use crate::flows::answer::{FakeLocal, Local, LocalAsk, LocalAsking, LocalFailure, LocalModel};
use crate::ledger::Here;
use crate::price::LocalUse;
use crate::provider::{
    Ask, Asking, Class, ErrorAnswer, Failing, Failure, Fake, Kind, Model, Provider, Reply, Scripted,
};
use crate::route::{Fault, Link};

fn failing(provider: &str, class: Class) -> Arc<Failing> {
    Arc::new(Failing::new(name(provider), Kind::Openai, class))
}

/// A failure with words of the provider's own.
fn answered(provider: &str, class: Class, status: u16, body: &'static str) -> Scripted {
    let answer = ErrorAnswer { status, headers: hyper::HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) };
    Scripted::Fail(Failure {
        provider: name(provider),
        class,
        reason: "it said so".to_owned(),
        retry_after: None,
        sent: true,
        answer: Some(Box::new(answer)),
    })
}

#[tokio::test]
async fn the_first_candidate_answers_and_the_record_says_so() {
    let (a, b) = (says("a", "Hi"), says("b", "no"));
    let prices =
        "[[prices.model]]\nprovider = 'a'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 2.5, output = 10.0 }";
    let world = World::new(&[A_THEN_B, prices].concat(), vec![a.clone(), b.clone()]);
    let answered = world.ask(HELLO).await;
    let told = answered.told.clone();
    assert!(whole(answered).contains(r#""content":"Hi""#));
    assert_eq!((told.candidate.as_deref(), told.cache, told.attempts), (Some("a/gpt-4o"), "off", 1));
    assert_eq!(told.cost_pico, Some(10 * 2_500_000 + 5 * 10_000_000));
    assert!(told.route.unwrap().starts_with("r; priority; link up; asks a/gpt-4o (listed)"));
    assert!(a.asked()[0].body.starts_with(br#"{"model":"gpt-4o""#) && b.asked().is_empty());
    let call = world.call().await;
    assert_eq!((call.status, call.route.as_str(), call.candidate.as_str()), (200, "r", "a/gpt-4o"));
    assert_eq!(
        (call.model_asked.as_str(), call.model_answered.as_str(), call.reason.as_str()),
        ("m", "gpt-4o", "listed")
    );
    assert_eq!((call.usage.input_tokens, call.usage.output_tokens, call.usage.estimated), (Some(10), Some(5), false));
    assert_eq!((call.tenant.as_str(), call.key.as_str(), call.team.as_str()), ("default", "all", "blue"));
    assert_eq!(call.cost_pico, told.cost_pico);
}

#[tokio::test]
async fn whoever_fails_is_passed_for_the_next_and_both_stand_in_the_record() {
    for class in
        [Class::Auth, Class::OutOfCredit, Class::RateLimited, Class::Overloaded, Class::Timeout, Class::NotFound]
    {
        let b = says("b", "Hi from b");
        let world = World::new(A_THEN_B, vec![failing("a", class), b]);
        let answered = world.ask(HELLO).await;
        assert_eq!((answered.told.attempts, answered.told.candidate.as_deref()), (2, Some("b/gpt-4o")), "{class}");
        assert!(whole(answered).contains("Hi from b"));
        let tried = world.call().await.attempts;
        let tried: Vec<_> = tried.iter().map(|tried| (tried.candidate.as_str(), tried.outcome.as_str())).collect();
        assert_eq!(tried, [("a/gpt-4o", class.as_str()), ("b/gpt-4o", "ok")]);
    }
}

#[tokio::test]
async fn garbage_is_passed_for_the_next() {
    let garbage = Fake::new(name("a"), Kind::Openai, [Scripted::Answer(vec![Bytes::from_static(b"<html>")])]);
    let world = World::new(A_THEN_B, vec![Arc::new(garbage), says("b", "Hi")]);
    assert!(whole(world.ask(HELLO).await).contains("Hi"));
    assert_eq!(world.call().await.attempts[0].outcome, "malformed");
}

#[tokio::test]
async fn a_wrong_request_is_told_in_the_callers_dialect_and_nobody_else_is_asked() {
    let said =
        r#"{"error":{"message":"temperature is 9","type":"invalid_request_error","param":"temperature","code":null}}"#;
    let a = Fake::new(name("a"), Kind::Openai, [answered("a", Class::BadRequest, 400, said)]);
    let b = says("b", "no");
    let world = World::new(A_THEN_B, vec![Arc::new(a), b.clone()]);
    let body = r#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"x"}]}"#;
    let answered = world.ask_as("all", Dialect::Anthropic, body, &[]).await;
    let failure = failed(&answered);
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::InvalidRequest, "temperature is 9"));
    let body = String::from_utf8(failure.body(Dialect::Anthropic, None)).unwrap();
    assert!(body.contains("invalid_request_error"), "{body}");
    assert!(b.asked().is_empty());
    let call = world.call().await;
    assert_eq!((call.status, call.error.as_str()), (400, "invalid_request"));
}

#[tokio::test]
async fn the_gateways_own_key_is_not_the_callers() {
    let said = r#"{"error":{"message":"Incorrect API key provided: sk-secret","code":"invalid_api_key"}}"#;
    let a = Fake::new(name("a"), Kind::Openai, [answered("a", Class::Auth, 401, said)]);
    let world = World::new(A_THEN_B, vec![Arc::new(a), failing("b", Class::Auth)]);
    let answered = world.ask(HELLO).await;
    let failure = failed(&answered);
    assert_eq!(failure.kind.status(Dialect::Chat), 502);
    assert!(!failure.message.contains("sk-secret"));
}

#[tokio::test]
async fn too_many_requests_are_told_with_the_time_to_wait_and_the_target_is_left_alone_until_then() {
    let a = Failing::new(name("a"), Kind::Openai, Class::RateLimited).retry_after(Duration::from_secs(20));
    let route = "[[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'a'";
    let world = World::new(route, vec![Arc::new(a)]);
    let answered = world.ask(HELLO).await;
    assert_eq!(failed(&answered).kind, FailureKind::RateLimited);
    assert_eq!(answered.told.retry_after, Some(Duration::from_secs(20)));
    world.advance_s(5);
    let answered = world.ask(HELLO).await;
    assert_eq!((failed(&answered).kind, answered.told.attempts), (FailureKind::Unavailable, 0));
    assert_eq!(answered.told.retry_after, Some(Duration::from_secs(15)));
    let calls = world.calls().await;
    assert_eq!((calls[1].attempts[0].outcome.as_str(), calls[1].status), ("retry_after", 503));
    world.advance_s(15);
    assert_eq!(world.ask(HELLO).await.told.attempts, 1);
}

#[tokio::test]
async fn who_fails_again_and_again_is_left_alone() {
    let world = World::new(A_THEN_B, vec![failing("a", Class::Unavailable), says("b", "Hi")]);
    for _ in 0..20 {
        whole(world.ask(HELLO).await);
    }
    let calls = world.calls().await;
    assert_eq!(calls[0].attempts[0].outcome, "unavailable");
    assert_eq!((calls[19].attempts[0].outcome.as_str(), calls[19].attempts.len()), ("breaker", 2));
}

#[tokio::test(start_paused = true)]
async fn the_same_one_is_asked_again_where_its_route_says_so() {
    let fails = Scripted::Fail(Failure {
        provider: name("a"),
        class: Class::Unavailable,
        reason: String::new(),
        retry_after: None,
        sent: false,
        answer: None,
    });
    let a = Arc::new(Fake::new(name("a"), Kind::Openai, [fails, Scripted::Answer(vec![chat_answer("at last")])]));
    let route = "[[route]]\nname = 'r'\nmodels = ['m']\nretries = { same_candidate_max = 1 }\n[[route.candidate]]\nprovider = 'a'";
    let world = World::new(route, vec![a.clone()]);
    assert!(whole(world.ask(HELLO).await).contains("at last"));
    assert_eq!(a.asked().len(), 2);
}

#[tokio::test]
async fn with_the_link_down_only_the_box_answers_and_the_way_back_is_slow() {
    let route = "
        [[route]]\nname = 'r'\nmodels = ['m']
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'
        [prices.local]\nusd_per_cpu_hour = 0.36\nwatts_per_core = 7.2
    ";
    let used = LocalUse { cpu_us: 1_000_000 };
    let local = Arc::new(FakeLocal::new("tiny", [chat_answer("from the box")], Some(used)));
    let a = says("a", "from afar");
    let world = World::with_local(route, vec![a.clone()], Some(local.clone()));
    assert!(whole(world.ask(HELLO).await).contains("from afar"));
    world.story.see_link(Link::Down);
    let answered = world.ask(HELLO).await;
    assert_eq!((answered.told.link, answered.told.candidate.as_deref()), (Link::Down, Some("local/tiny")));
    assert_eq!(answered.told.cost_pico, Some(100_000_000), "a second of a core at 0.36 USD an hour");
    assert!(whole(answered).contains("from the box"));
    assert!(local.asked()[0].starts_with(br#"{"model":"tiny""#));
    world.story.see_link(Link::Up);
    assert_eq!(world.ask(HELLO).await.told.candidate.as_deref(), Some("local/tiny"), "it may go again");
    world.advance_s(31);
    assert_eq!(world.ask(HELLO).await.told.candidate.as_deref(), Some("a/gpt-4o"));
    let calls = world.calls().await;
    assert_eq!((calls[1].link.as_str(), calls[1].attempts[0].outcome.as_str()), ("down", "link"));
    assert_eq!(calls[1].here, Here { cpu_us: Some(1_000_000), energy_uwh: Some(2_000) }, "7.2 W for a second");
    assert_eq!(calls[0].here, Here::default(), "nothing of this box worked for it");
    assert_eq!(a.asked().len(), 2);
}

#[tokio::test]
async fn what_must_not_leave_the_box_does_not_whatever_fails() {
    let route = "
        [[route]]\nname = 'r'\nmodels = ['m']
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'
        [[route.candidate]]\nprovider = 'a'
    ";
    let failure = LocalFailure { fault: Fault::Unavailable, reason: "It has no memory.".to_owned() };
    let a = says("a", "from afar");
    let world = World::with_local(route, vec![a.clone()], Some(Arc::new(FakeLocal::failing("tiny", failure))));
    let answered = world.ask_as("all", Dialect::Chat, HELLO, &[("x-forebay-reach", "box")]).await;
    assert_eq!(failed(&answered).message, "It has no memory.");
    assert!(a.asked().is_empty());
    let answered = world.ask_as("all", Dialect::Chat, HELLO, &[("x-forebay-reach", "bocks")]).await;
    assert_eq!(failed(&answered).kind, FailureKind::InvalidRequest);
    assert!(a.asked().is_empty());
    assert!(whole(world.ask(HELLO).await).contains("from afar"));
}

#[tokio::test]
async fn a_model_of_this_box_answers_every_dialect() {
    let route = "[[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'";
    let local = Arc::new(FakeLocal::new("tiny", [chat_answer("Hi")], None));
    let world = World::with_local(route, vec![], Some(local));
    for (dialect, body, has) in [
        (Dialect::Anthropic, HELLO, r#""type":"message""#),
        (Dialect::Responses, r#"{"model":"m","input":"Hello"}"#, r#""object":"response""#),
        (Dialect::Interactions, r#"{"model":"m","input":"Hello"}"#, r#""object":"interaction""#),
        (
            Dialect::Ollama,
            r#"{"model":"m","stream":false,"messages":[{"role":"user","content":"Hello"}]}"#,
            r#""done":true"#,
        ),
    ] {
        let body = whole(world.ask_as("all", dialect, body, &[]).await);
        assert!(body.contains(has) && body.contains("Hi"), "{body}");
    }
    assert!(world.calls().await.iter().all(|call| call.cost_pico.is_none()), "unknown is not free");
}

/// Answers after a time.
#[derive(Debug)]
struct Slow(Fake, Duration);

impl Provider for Slow {
    fn name(&self) -> &crate::base::Name {
        self.0.name()
    }
    fn kind(&self) -> Kind {
        self.0.kind()
    }
    fn model<'a>(&'a self, asked: &'a str) -> Option<&'a str> {
        Some(asked)
    }
    fn models(&self) -> &[Model] {
        &[]
    }
    fn send<'a>(&'a self, ask: Ask<'a>) -> Asking<'a, Reply> {
        Box::pin(async move {
            let sending = self.0.send(ask);
            tokio::time::sleep(self.1).await;
            sending.await
        })
    }
    fn probe(&self) -> Asking<'_, Duration> {
        self.0.probe()
    }
}

fn slow(provider: &str, text: &str, seconds: u64) -> Arc<Slow> {
    let fake = Fake::new(name(provider), Kind::Openai, [Scripted::Answer(vec![chat_answer(text)])]);
    Arc::new(Slow(fake, Duration::from_secs(seconds)))
}

#[tokio::test(start_paused = true)]
async fn a_second_one_is_asked_when_the_first_takes_long_and_both_are_paid_for() {
    let text = "
        [[route]]\nname = 'r'\nmodels = ['m']\nhedge = { after_ms_max = 1000 }
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [[route.candidate]]\nprovider = 'b'\nmodel = 'gpt-4o'
        [[quota.limit]]\nlevel = 'key'\ntokens_per_day = 1000
    ";
    let world = World::new(text, vec![slow("a", "late", 100), slow("b", "in time", 1)]);
    let answered = world.ask(HELLO).await;
    assert_eq!((answered.told.attempts, answered.told.candidate.as_deref()), (2, Some("b/gpt-4o")));
    assert!(whole(answered).contains("in time"));
    let call = world.call().await;
    let tried: Vec<_> = call.attempts.iter().map(|tried| tried.outcome.as_str()).collect();
    assert_eq!(tried, ["cancelled", "ok"]);
    let (spent, held) = world.spent("key", crate::quota::Unit::Tokens);
    assert!(spent > 15 && held == 0, "the prompt of the other one counts: {spent}");
}

#[tokio::test(start_paused = true)]
async fn the_route_has_a_time_for_all_of_it() {
    let text = "
        [[route]]\nname = 'r'\nmodels = ['m']\ntimeout_ms = 2000
        [[route.candidate]]\nprovider = 'a'
    ";
    let world = World::new(text, vec![slow("a", "late", 100)]);
    let answered = world.ask(HELLO).await;
    assert_eq!(failed(&answered).kind, FailureKind::Timeout);
    let call = world.call().await;
    assert_eq!((call.status, call.attempts[0].outcome.as_str(), call.cost_pico), (504, "timeout", None));
}

#[tokio::test]
async fn a_candidate_without_a_language_for_it_is_passed_over() {
    let a = Arc::new(Fake::new(name("a"), Kind::Oip, []));
    let world = World::new(A_THEN_B, vec![a, says("b", "Hi")]);
    assert!(whole(world.ask(HELLO).await).contains("Hi"));
    assert_eq!(world.call().await.attempts[0].outcome, "unfit");
}

/// Has every model, and never says anything.
struct Mute;

impl Local for Mute {
    fn models(&self) -> Vec<LocalModel> {
        Vec::new()
    }
    fn has(&self, _: &str, _: Operation) -> bool {
        true
    }
    fn ask<'a>(&'a self, _: LocalAsk<'a>) -> LocalAsking<'a> {
        Box::pin(std::future::pending())
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_model_of_this_box_took_that_was_given_up_is_unknown_and_only_the_bill_is_charged() {
    let text = "
        [[route]]\nname = 'slow'\nmodels = ['m']
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'\nfirst_byte_timeout_ms = 100
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [[route]]\nname = 'hedged'\nmodels = ['h']\nhedge = { after_ms_max = 100 }
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [prices.local]\nusd_per_cpu_hour = 0.36
        [[prices.model]]\nprovider = 'a'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 1.0, output = 1.0 }
        [[quota.limit]]\nlevel = 'key'\nusd_per_day = '1'
    ";
    let world = World::with_local(text, vec![says("a", "Hi")], Some(Arc::new(Mute)));
    for (model, outcome) in [("m", "timeout"), ("h", "cancelled")] {
        let answered = world.ask(&HELLO.replace("\"m\"", &format!("\"{model}\""))).await;
        assert_eq!((answered.told.candidate.as_deref(), answered.told.cost_pico), (Some("a/gpt-4o"), None), "{model}");
        let call = world.calls().await.pop().unwrap();
        let outcomes: Vec<_> = call.attempts.iter().map(|one| (one.candidate.as_str(), one.outcome.as_str())).collect();
        assert!(outcomes.contains(&("local/tiny", outcome)), "{outcomes:?}");
        assert_eq!((call.cost_pico, call.here), (None, Here::default()), "{model}: unknown, not 0");
    }
    assert_eq!(world.spent("key", crate::quota::Unit::Money), (2 * 15_000_000, 0), "two answers of 15 tokens");
}

#[tokio::test]
async fn what_anthropic_keeps_for_an_hour_costs_more_than_what_it_keeps_for_minutes_and_a_batch_half() {
    let text = "
        [[route]]\nname = 'r'\nmodels = ['m']\n[[route.candidate]]\nprovider = 'a'\nmodel = 'claude'
        [[prices.model]]\nprovider = 'a'\nmodel = 'claude'
        usd_per_million_tokens = { input = 3.0, output = 15.0, cache_write = 3.75, cache_write_hour = 6.0 }
        batch_usd_per_million_tokens = { input = 1.5, output = 7.5, cache_write = 1.875, cache_write_hour = 3.0 }
    ";
    let answer = |tier: &str| {
        let usage = format!(
            r#"{{"input_tokens":10,"cache_creation_input_tokens":30,"cache_read_input_tokens":0,"output_tokens":5,
            "cache_creation":{{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20}},"service_tier":"{tier}"}}"#
        );
        Bytes::from(format!(
            r#"{{"id":"msg_1","type":"message","role":"assistant","model":"claude","content":[{{"type":"text","text":"Hi"}}],"stop_reason":"end_turn","usage":{usage}}}"#
        ))
    };
    let script = ["standard", "batch", "gold"].map(|tier| Scripted::Answer(vec![answer(tier)]));
    let a = Arc::new(Fake::new(name("a"), Kind::Anthropic, script));
    let world = World::new(text, vec![a]);
    let pico = 10 * 3_000_000 + 10 * 3_750_000 + 20 * 6_000_000 + 5 * 15_000_000;
    for cost in [Some(pico), Some(pico / 2), None] {
        assert_eq!(world.ask(HELLO).await.told.cost_pico, cost, "the price of a tier that nobody knows is not known");
    }
}
