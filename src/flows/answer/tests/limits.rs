use std::sync::Arc;
use std::time::Duration;

use super::world::{A_THEN_B, HELLO, World, chat_answer, failed, says, whole};
use crate::dialect::{Dialect, FailureKind};
use crate::flows::answer::{FakeLocal, Given};
use crate::provider::{Class, Failing, Kind};
use crate::quota::Unit;

const PRICES: &str = "
    [[prices.model]]\nprovider = 'a'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 10.0, output = 10.0 }
    [[prices.model]]\nprovider = 'b'\nmodel = 'gpt-4o'\nusd_per_million_tokens = { input = 10.0, output = 10.0 }
";

#[tokio::test]
async fn requests_beyond_a_rate_are_refused_with_the_time_to_wait() {
    let text = [A_THEN_B, "[[quota.limit]]\nlevel = 'key'\nrequests_per_minute = 2"].concat();
    let a = says("a", "Hi");
    let world = World::new(&text, vec![a.clone(), says("b", "Hi")]);
    let first = world.ask(HELLO).await;
    let rate = first.told.rates.requests.unwrap();
    assert_eq!((rate.limit, rate.left), (2, 1));
    whole(world.ask(HELLO).await);
    let third = world.ask(HELLO).await;
    assert_eq!(failed(&third).kind, FailureKind::RateLimited);
    assert_eq!(third.told.retry_after, Some(Duration::from_secs(30)));
    assert_eq!(a.asked().len(), 2);
    let call = &world.calls().await[2];
    assert_eq!((call.status, call.error.as_str(), call.cost_pico), (429, "rate_limited", Some(0)));
    world.advance_s(31);
    whole(world.ask(HELLO).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_cannot_overspend_a_budget() {
    // A call reserves some 60 tokens and takes 15 of them, at 10 pico-dollars in a millionth each.
    let text = [A_THEN_B, PRICES, "[[quota.limit]]\nlevel = 'tenant'\nusd_per_day = '0.003'"].concat();
    let world = Arc::new(World::new(&text, vec![says("a", "Hi"), says("b", "Hi")]));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { matches!(world.ask(HELLO).await.given, Given::Whole { .. }) });
    }
    let answered = tasks.join_all().await.into_iter().filter(|is_answered| *is_answered).count() as u64;
    let (spent, held) = world.spent("tenant", Unit::Money);
    assert_eq!((spent, held), (answered * 15 * 10_000_000, 0));
    assert!(answered >= 4 && spent <= 3_000_000_000, "{answered} took {spent}");
    let refused = world.calls().await.iter().filter(|call| call.status == 429).count() as u64;
    assert_eq!(refused, 100 - answered);
}

#[tokio::test]
async fn when_the_money_is_gone_the_box_still_answers() {
    let text = "
        [[route]]\nname = 'r'\nmodels = ['m']
        [[route.candidate]]\nprovider = 'a'\nmodel = 'gpt-4o'
        [[route.candidate]]\nprovider = 'local'\nmodel = 'tiny'
        [[quota.limit]]\nlevel = 'key'\nusd_per_day = '0.0001'
    ";
    let a = says("a", "dear");
    let local = Arc::new(FakeLocal::new("tiny", [chat_answer("free")], None));
    let world = World::with_local(&[text, PRICES].concat(), vec![a.clone()], Some(local));
    assert!(whole(world.ask(HELLO).await).contains("free"));
    assert!(a.asked().is_empty());
    assert_eq!(world.call().await.attempts[0].outcome, "budget");
}

#[tokio::test]
async fn a_budget_that_is_gone_is_no_rate() {
    let text = [A_THEN_B, PRICES, "[[quota.limit]]\nlevel = 'key'\nusd_per_day = '0.0001'"].concat();
    let world = World::new(&text, vec![says("a", "Hi"), says("b", "Hi")]);
    let answered = world.ask(HELLO).await;
    let failure = failed(&answered);
    assert_eq!((failure.kind, failure.code.as_deref()), (FailureKind::Billing, Some("insufficient_quota")));
    assert_eq!((failure.kind.status(Dialect::Chat), failure.kind.status(Dialect::Anthropic)), (429, 402));
}

#[tokio::test]
async fn a_days_budget_that_is_used_up_is_no_rate_though_midnight_brings_another() {
    let text = [A_THEN_B, "[[quota.limit]]\nlevel = 'key'\nrequests_per_day = 1"].concat();
    let world = World::new(&text, vec![says("a", "Hi"), says("b", "Hi")]);
    whole(world.ask(HELLO).await);
    let second = world.ask(HELLO).await;
    assert_eq!(failed(&second).kind, FailureKind::Billing);
    assert!(second.told.retry_after.is_some_and(|wait| wait <= Duration::from_secs(86_400)), "{second:?}");
}

#[tokio::test]
async fn what_nobody_can_price_is_refused_where_money_is_limited() {
    let text = [A_THEN_B, "[[quota.limit]]\nlevel = 'key'\nusd_per_day = 100"].concat();
    let world = World::new(&text, vec![says("a", "Hi"), says("b", "Hi")]);
    let answered = world.ask(HELLO).await;
    assert_eq!(failed(&answered).kind, FailureKind::Billing);
    assert!(failed(&answered).message.contains("unknown"));
}

#[tokio::test]
async fn attempts_without_an_answer_give_back_what_was_held() {
    let limit = "[[quota.limit]]\nlevel = 'key'\ntokens_per_day = 1000\nrequests_per_day = 10";
    let failing = |name: &str| Arc::new(Failing::new(super::world::name(name), Kind::Openai, Class::Overloaded));
    let world = World::new(&[A_THEN_B, limit].concat(), vec![failing("a"), failing("b")]);
    assert_eq!(failed(&world.ask(HELLO).await).kind, FailureKind::Overloaded);
    assert_eq!(world.spent("key", Unit::Tokens), (0, 0));
    assert_eq!(world.spent("key", Unit::Requests).0, 1, "it was a request");
}

#[tokio::test]
async fn a_budget_tells_when_it_reaches_a_share() {
    let limit = "[[quota.limit]]\nlevel = 'team'\ntokens_per_day = 100";
    let world = World::new(&[A_THEN_B, limit].concat(), vec![says("a", "Hi"), says("b", "Hi")]);
    let body = HELLO.replace("50", "1");
    for _ in 0..6 {
        whole(world.ask(&body).await);
    }
    assert_eq!(*world.warnings.lock().unwrap(), [80]);
}
