//! Limits of models: whose they are when another one answers than was asked for, or than was asked first.

use std::sync::Arc;

use super::world::{HELLO, World, chat_answer, chat_frames, failed, name, says, whole};
use crate::dialect::FailureKind;
use crate::provider::{Class, Failing, Fake, Kind, Provider, Scripted};
use crate::quota::{Now, Standing, Unit};

/// One model under two names, with another one behind it.
const BIG: &str = "
    [[route]]\nname = 'r'\nmodels = ['m', 'also-m']
    [[route.candidate]]\nprovider = 'a'\nmodel = 'big'
    [[route.candidate]]\nprovider = 'b'\nmodel = 'small'
";

fn limits(name: &str, what: &str) -> String {
    format!("[[quota.limit]]\nlevel = 'model'\nname = '{name}'\n{what}\n")
}

fn failing(provider: &str, class: Class) -> Arc<dyn Provider> {
    Arc::new(Failing::new(name(provider), Kind::Openai, class))
}

/// What is spent and held of a model's unit.
fn of(world: &World, model: &str, unit: Unit) -> (u64, u64) {
    let standings = world.quota.standings(Some("model"), Some(model), 100, Now::of(&*world.clock));
    let of = |one: &&Standing| one.unit == unit;
    standings.iter().find(of).map_or((0, 0), |one| (one.spent, one.held))
}

#[tokio::test]
async fn a_models_limit_holds_whatever_name_it_is_asked_by() {
    let text = [BIG, &limits("big", "requests_per_day = 1")].concat();
    let world = World::new(&text, vec![says("a", "big"), says("b", "small")]);
    assert!(whole(world.ask(HELLO).await).contains("big"));
    let other = HELLO.replace("\"m\"", "\"also-m\"");
    for _ in 0..2 {
        assert!(whole(world.ask(&other).await).contains("small"), "the next has room");
    }
    assert_eq!(of(&world, "big", Unit::Requests).0, 1);
    assert_eq!(world.calls().await[1].attempts[0].outcome, "budget");
}

#[tokio::test]
async fn where_every_model_is_used_up_the_caller_is_told_so() {
    let text = [BIG, "[[quota.limit]]\nlevel = 'model'\nrequests_per_day = 1"].concat();
    let world = World::new(&text, vec![says("a", "big"), says("b", "small")]);
    for answer in ["big", "small"] {
        assert!(whole(world.ask(HELLO).await).contains(answer));
    }
    let third = world.ask(&HELLO.replace("\"m\"", "\"also-m\"")).await;
    assert_eq!(failed(&third).kind, FailureKind::Billing);
    assert!(failed(&third).message.contains("model \"big\""), "{third:?}");
    assert_eq!((of(&world, "big", Unit::Requests), of(&world, "small", Unit::Requests)), ((1, 0), (1, 0)));
}

#[tokio::test]
async fn a_name_with_an_entry_of_its_own_is_counted_beside_the_model() {
    let text = [BIG, &limits("m", "requests_per_day = 1"), &limits("big", "tokens_per_day = 10000")].concat();
    let world = World::new(&text, vec![says("a", "big"), says("b", "small")]);
    whole(world.ask(HELLO).await);
    assert_eq!(failed(&world.ask(HELLO).await).kind, FailureKind::Billing, "no other model helps");
    whole(world.ask(&HELLO.replace("\"m\"", "\"also-m\"")).await);
    assert_eq!((of(&world, "m", Unit::Requests).0, of(&world, "big", Unit::Tokens)), (1, (30, 0)));
}

#[tokio::test]
async fn a_model_that_is_asked_by_its_own_name_is_counted_once() {
    let text = [&*BIG.replace("'m'", "'big'"), &limits("big", "requests_per_day = 2\ntokens_per_day = 1000")].concat();
    let world = World::new(&text, vec![says("a", "big"), says("b", "small")]);
    let body = HELLO.replace("\"m\"", "\"big\"");
    whole(world.ask(&body).await);
    whole(world.ask(&body).await);
    assert_eq!((of(&world, "big", Unit::Requests), of(&world, "big", Unit::Tokens)), ((2, 0), (30, 0)));
}

#[tokio::test]
async fn what_was_held_moves_with_the_request_to_the_model_that_answers() {
    let every = "[[quota.limit]]\nlevel = 'model'\nrequests_per_day = 10\ntokens_per_day = 1000\n
        [[quota.limit]]\nlevel = 'key'\nrequests_per_day = 10\ntokens_per_day = 1000";
    let text = [BIG, every].concat();
    let world = World::new(&text, vec![failing("a", Class::Overloaded), says("b", "small")]);
    assert!(whole(world.ask(HELLO).await).contains("small"));
    assert_eq!((of(&world, "big", Unit::Requests), of(&world, "big", Unit::Tokens)), ((0, 0), (0, 0)));
    assert_eq!((of(&world, "small", Unit::Requests), of(&world, "small", Unit::Tokens)), ((1, 0), (15, 0)));
    assert_eq!((world.spent("key", Unit::Requests), world.spent("key", Unit::Tokens)), ((1, 0), (15, 0)));

    // One that may have worked on it is charged with the prompt.
    let half = Fake::new(name("a"), Kind::Openai, [Scripted::Half(chat_frames(&[], false), Class::Unavailable)]);
    let world = World::new(&text, vec![Arc::new(half), says("b", "small")]);
    whole(world.ask(HELLO).await);
    let (lost, held) = of(&world, "big", Unit::Tokens);
    let (all, _) = world.spent("key", Unit::Tokens);
    assert!(lost > 0 && held == 0 && all == lost + 15, "{lost} of {all}");
    assert_eq!(of(&world, "small", Unit::Tokens), (15, 0));
}

#[tokio::test]
async fn a_request_without_an_answer_is_one_of_the_last_model_that_was_asked() {
    let text = [BIG, "[[quota.limit]]\nlevel = 'model'\nrequests_per_day = 10"].concat();
    let world = World::new(&text, vec![failing("a", Class::Overloaded), failing("b", Class::Overloaded)]);
    failed(&world.ask(HELLO).await);
    assert_eq!((of(&world, "big", Unit::Requests), of(&world, "small", Unit::Requests)), ((0, 0), (1, 0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_by_two_names_cannot_overspend_a_models_budget() {
    let text = [BIG, &limits("big", "tokens_per_day = 600"), &limits("small", "tokens_per_day = 0")].concat();
    let world = Arc::new(World::new(&text, vec![says("a", "big"), says("b", "small")]));
    let mut tasks = tokio::task::JoinSet::new();
    for at in 0..100 {
        let world = Arc::clone(&world);
        let body = HELLO.replace("\"m\"", if at % 2 == 0 { "\"m\"" } else { "\"also-m\"" });
        tasks.spawn(async move { matches!(world.ask(&body).await.given, crate::flows::answer::Given::Whole { .. }) });
    }
    let answered = tasks.join_all().await.into_iter().filter(|is_answered| *is_answered).count() as u64;
    let (spent, held) = of(&world, "big", Unit::Tokens);
    assert_eq!((spent, held), (answered * 15, 0));
    assert!(answered >= 9 && spent <= 600, "{answered} took {spent}");
}

#[tokio::test]
async fn a_kept_answer_takes_nothing_of_its_models_limits() {
    let cache = "[cache]\nmax_bytes = 1000000\n[[cache.policy]]\nexact = true\n";
    let world = World::new(
        &[BIG, cache, &limits("big", "requests_per_minute = 2")].concat(),
        vec![
            Arc::new(Fake::new(name("a"), Kind::Openai, [Scripted::Answer(vec![chat_answer("big")])])),
            says("b", "small"),
        ],
    );
    for cache in ["miss", "hit", "hit", "hit"] {
        assert_eq!(world.ask(HELLO).await.told.cache, cache);
    }
}
