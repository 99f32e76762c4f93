//! Limits of all kinds: all or none, warnings, races, clocks that are set back.

use std::collections::HashMap;

use super::{DAY_MS, at, config, key, quota, standing, takes, try_it};
use crate::quota::{Amounts, Rate, Rates, Refusal, Span, Subject, Unit, Why};

#[test]
fn a_request_counts_at_all_levels_or_at_none() {
    let quota = quota(
        "[[limit]]\nlevel = 'key'\nrequests_per_minute = 10\ntokens_per_day = 1000\nconcurrent_requests = 5\n
         [[limit]]\nlevel = 'tenant'\nname = 'acme'\nusd_per_day = 1",
    );
    let subjects = [key("k1"), Subject::new("user", "nobody limits users"), Subject::new("tenant", "acme")];
    let refusal = try_it(&quota, &subjects, takes(10, 1_000_000_000_001), 0).unwrap_err();
    assert_eq!(
        (&*refusal.level, refusal.unit, refusal.span, refusal.why),
        ("tenant", Unit::Money, Span::Day, Why::TooLarge)
    );
    for one in quota.standings(None, None, 100, at(0)) {
        assert_eq!((one.left, one.held, one.spent), (one.limit, 0, 0), "{one:?}");
    }
    let held = try_it(&quota, &subjects, takes(10, 7), 0).unwrap();
    let lefts: HashMap<_, _> = quota
        .standings(None, None, 100, at(0))
        .into_iter()
        .map(|one| ((one.unit, one.span), (one.left, one.held)))
        .collect();
    assert_eq!(lefts[&(Unit::Requests, Span::AtOnce)], (4, 1));
    assert_eq!(lefts[&(Unit::Requests, Span::Minute)], (9, 0));
    assert_eq!(lefts[&(Unit::Tokens, Span::Day)], (990, 10));
    assert_eq!(lefts[&(Unit::Money, Span::Day)], (999_999_999_993, 7));
    held.refund();
    for one in quota.standings(None, None, 100, at(0)) {
        assert_eq!((one.left, one.held, one.spent), (one.limit, 0, 0), "{one:?}");
    }
}

#[test]
fn every_name_has_its_own_count_and_a_named_entry_stands_alone() {
    let quota = quota(
        "[[limit]]\nlevel = 'key'\nrequests_per_day = 1\n[[limit]]\nlevel = 'key'\nname = 'big'\ntokens_per_day = 50\n
         [[limit]]\nlevel = 'key'\nname = 'root'",
    );
    for name in ["a", "b"] {
        try_it(&quota, &[key(name)], takes(1000, 0), 0).unwrap().settle(takes(1000, 0));
        assert_eq!(try_it(&quota, &[key(name)], takes(0, 0), 0).unwrap_err().why, Why::Exhausted);
    }
    for _ in 0..5 {
        try_it(&quota, &[key("big")], takes(10, 0), 0).unwrap().settle(takes(10, 0));
        try_it(&quota, &[key("root")], takes(1_000_000, 0), 0).unwrap().settle(takes(1_000_000, 0));
    }
    assert_eq!(try_it(&quota, &[key("big")], takes(1, 0), 0).unwrap_err().unit, Unit::Tokens);
    let twice = [key("c"), key("c")];
    try_it(&quota, &twice, takes(0, 0), 0).expect("the same subject twice is counted once").refund();
}

#[test]
fn the_refusal_that_takes_longest_to_pass_is_told() {
    let quota =
        quota("[[limit]]\nlevel = 'key'\nrequests_per_minute = 1\nrequests_per_day = 1\nrequests_per_month = 5");
    try_it(&quota, &[key("a")], Amounts::FREE, 0).unwrap().settle(Amounts::FREE);
    let refusal = try_it(&quota, &[key("a")], Amounts::FREE, 0).unwrap_err();
    assert_eq!((refusal.span, refusal.retry_after_ms), (Span::Day, Some((DAY_MS / 2).cast_unsigned())));
    assert_eq!(
        refusal.to_string(),
        "key \"a\" has 0 of its 1 requests a day left; this request takes 1; try again in 43200 s"
    );
    try_it(&quota, &[key("a")], Amounts::FREE, DAY_MS / 2 - 1).unwrap_err();
    try_it(&quota, &[key("a")], Amounts::FREE, DAY_MS / 2).expect("when it said").refund();
}

#[test]
fn a_budget_that_is_only_reserved_is_worth_another_try_soon() {
    let quota = quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100");
    let held = try_it(&quota, &[key("a")], takes(80, 0), 0).unwrap();
    assert_eq!(try_it(&quota, &[key("a")], takes(30, 0), 0).unwrap_err().retry_after_ms, Some(1000));
    held.settle(takes(71, 0));
    let refusal = try_it(&quota, &[key("a")], takes(30, 0), 0).unwrap_err();
    assert_eq!(refusal.retry_after_ms, Some((DAY_MS / 2).cast_unsigned()));
}

#[test]
fn a_refusal_tells_the_rate_that_refused() {
    let refusal = |unit, span| Refusal {
        level: "key".into(),
        name: "k".into(),
        unit,
        span,
        limit: 60,
        left: 45,
        wanted: Some(50),
        why: Why::Exhausted,
        retry_after_ms: Some(5_000),
    };
    let rate = Rate { limit: 60, left: 45, resets_ms: 15_000 };
    assert_eq!(refusal(Unit::Tokens, Span::Minute).rates(), Rates { requests: None, tokens: Some(rate) });
    assert_eq!(refusal(Unit::Requests, Span::Minute).rates().requests, Some(rate));
    assert_eq!(refusal(Unit::Requests, Span::Day).rates(), Rates::default(), "a budget is no rate");
    assert_eq!(
        Refusal { limit: 0, left: 0, ..refusal(Unit::Requests, Span::Minute) }.rates().requests.unwrap().resets_ms,
        60_000
    );
}

#[test]
fn rates_tell_what_is_left_and_when_it_is_whole_again() {
    let quota = quota(
        "[[limit]]\nlevel = 'key'\nrequests_per_minute = 60\ntokens_per_minute = 6000\n[[limit]]\nlevel = 'tenant'\nrequests_per_minute = 30",
    );
    let held = try_it(&quota, &[key("a"), Subject::new("tenant", "t")], takes(600, 0), 0).unwrap();
    let (requests, tokens) = (held.rates().requests.unwrap(), held.rates().tokens.unwrap());
    assert_eq!((requests.limit, requests.left, requests.resets_ms), (30, 29, 2000));
    assert_eq!((tokens.limit, tokens.left, tokens.resets_ms), (6000, 5400, 6000));
    held.settle(takes(100, 0));
    let again = try_it(&quota, &[key("a")], takes(0, 0), 0).unwrap();
    assert_eq!(again.rates().tokens.unwrap().left, 5900, "what was not taken is back");
    again.refund();
    let refusal = try_it(&quota, &[key("a")], takes(6001, 0), 0).unwrap_err();
    assert_eq!((refusal.why, refusal.retry_after_ms), (Why::TooLarge, None), "waiting does not help");
}

#[test]
fn the_unknown_is_refused_or_admitted_but_never_nothing() {
    let limits = "[[limit]]\nlevel = 'key'\nusd_per_day = 1";
    let strict = quota(limits);
    let unknown = Amounts { tokens: Some(5), money: None };
    let refusal = try_it(&strict, &[key("a")], unknown, 0).unwrap_err();
    assert_eq!((refusal.why, refusal.wanted, refusal.retry_after_ms), (Why::Unknown, None, None));
    try_it(&strict, &[Subject::new("user", "a")], unknown, 0).expect("no budget asks").refund();
    let lenient = quota(&format!("when_unknown = 'admit'\n{limits}"));
    let held = try_it(&lenient, &[key("a")], unknown, 0).unwrap();
    held.settle(Amounts { tokens: Some(5), money: Some(9) });
    assert_eq!(standing(&lenient, "key", "a", Unit::Money, Span::Day, 0).spent, 9);
    let held = try_it(&lenient, &[key("a")], takes(1, 30), 0).unwrap();
    held.settle(Amounts::default());
    assert_eq!(standing(&lenient, "key", "a", Unit::Money, Span::Day, 0).spent, 39, "unknown in the end: as reserved");
}

#[test]
fn a_free_model_answers_when_the_money_is_gone() {
    let quota = quota("[[limit]]\nlevel = 'key'\nusd_per_month = 0.01");
    let held = try_it(&quota, &[key("a")], takes(1, 10_000_000_000), 0).unwrap();
    held.settle(takes(1, 15_000_000_000));
    let one = standing(&quota, "key", "a", Unit::Money, Span::Month, 0);
    assert_eq!((one.spent, one.left), (15_000_000_000, 0), "told as it was");
    try_it(&quota, &[key("a")], takes(1, 1), 0).unwrap_err();
    try_it(&quota, &[key("a")], takes(1000, 0), 0).unwrap().settle(takes(1000, 0));
}

#[test]
fn a_dropped_reservation_is_charged_and_frees_its_place() {
    let quota = quota("[[limit]]\nlevel = 'key'\nconcurrent_requests = 1\ntokens_per_day = 100");
    let held = try_it(&quota, &[key("a")], takes(80, 0), 0).unwrap();
    let refusal = try_it(&quota, &[key("a")], takes(1, 0), 0).unwrap_err();
    assert_eq!((refusal.span, refusal.retry_after_ms), (Span::AtOnce, Some(1000)));
    drop(held);
    let one = standing(&quota, "key", "a", Unit::Tokens, Span::Day, 0);
    assert_eq!((one.spent, one.held), (80, 0));
    let warnings = quota.take_warnings();
    assert_eq!(warnings.iter().map(|warning| warning.percent).collect::<Vec<_>>(), [80]);
    try_it(&quota, &[key("a")], takes(20, 0), 0).unwrap().refund();
}

#[test]
fn a_warning_is_told_once_a_period_and_the_highest_share_counts() {
    let quota = quota("warn_percent = [50, 80, 100]\n[[limit]]\nlevel = 'key'\ntokens_per_day = 100");
    let spend = |tokens, ms| {
        let told = try_it(&quota, &[key("a")], takes(tokens, 0), ms).unwrap().settle(takes(tokens, 0));
        told.into_iter().map(|warning| (warning.percent, warning.spent)).collect::<Vec<_>>()
    };
    assert_eq!(spend(49, 0), []);
    assert_eq!(spend(1, 0), [(50, 50)]);
    assert_eq!(spend(1, 0), []);
    assert_eq!(spend(49, 0), [(100, 100)]);
    assert_eq!(spend(55, DAY_MS), [(50, 55)]);
}

#[test]
fn raising_admits_the_difference_or_changes_nothing() {
    let quota = quota("[[limit]]\nlevel = 'key'\nrequests_per_minute = 1\ntokens_per_minute = 100\nusd_per_day = 1");
    let dollar = 1_000_000_000_000;
    let mut held = try_it(&quota, &[key("a")], takes(10, dollar / 2), 0).unwrap();
    held.raise(takes(5, dollar), at(0)).unwrap();
    assert_eq!(held.reserved(), takes(10, dollar));
    let refusal = held.raise(takes(200, dollar), at(0)).unwrap_err();
    assert_eq!((refusal.unit, refusal.left), (Unit::Tokens, 90));
    assert_eq!(held.raise(takes(50, dollar + 1), at(0)).unwrap_err().unit, Unit::Money);
    assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Minute, 0).left, 90);
    // Past midnight it still counts, and is limited, in the day it began in.
    held.raise(takes(20, dollar), at(DAY_MS)).unwrap();
    assert_eq!(held.raise(takes(20, dollar + 1), at(DAY_MS)).unwrap_err().unit, Unit::Money);
    held.settle(takes(20, dollar));
    let today = standing(&quota, "key", "a", Unit::Money, Span::Day, DAY_MS);
    assert_eq!((today.spent, today.held), (0, 0));
}

#[test]
fn a_fallback_whose_cost_nobody_knows_is_refused_as_a_first_one_would_be() {
    let limits = "[[limit]]\nlevel = 'key'\nusd_per_day = 1";
    let unknown = Amounts { tokens: Some(10), money: None };
    let strict = quota(limits);
    let mut held = try_it(&strict, &[key("a")], takes(10, 5), 0).unwrap();
    let refusal = held.raise(unknown, at(0)).unwrap_err();
    assert_eq!((refusal.unit, refusal.why), (Unit::Money, Why::Unknown));
    assert_eq!(held.reserved(), takes(10, 5), "nothing changed");
    let lenient = quota(&format!("when_unknown = 'admit'\n{limits}"));
    let mut held = try_it(&lenient, &[key("a")], takes(10, 5), 0).unwrap();
    held.raise(unknown, at(0)).unwrap();
    assert_eq!(held.reserved(), takes(10, 5));
    let unlimited = quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100");
    try_it(&unlimited, &[key("a")], takes(10, 5), 0).unwrap().raise(unknown, at(0)).unwrap();
}

#[test]
fn a_clock_that_is_set_back_gives_no_budget_twice() {
    let quota = quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100\ntokens_per_month = 1000");
    let spend =
        |tokens, ms| try_it(&quota, &[key("a")], takes(tokens, 0), ms).map(|held| drop(held.settle(takes(tokens, 0))));
    spend(60, 0).unwrap();
    spend(30, 400 * DAY_MS).unwrap();
    let refusal = spend(11, 0).unwrap_err();
    assert_eq!((refusal.left, refusal.span), (10, Span::Day));
    spend(10, 0).unwrap();
    spend(1, 1).unwrap_err();
    assert_eq!(standing(&quota, "key", "a", Unit::Tokens, Span::Month, 2).spent, 100);
    spend(100, DAY_MS).unwrap();
}

#[test]
fn requests_that_overtake_each_other_at_midnight_count_in_the_day_that_has_begun() {
    let quota = quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100");
    let midnight = DAY_MS / 2;
    try_it(&quota, &[key("a")], takes(60, 0), midnight).unwrap().settle(takes(60, 0));
    try_it(&quota, &[key("a")], takes(30, 0), midnight - 5).unwrap().settle(takes(30, 0));
    assert_eq!(try_it(&quota, &[key("a")], takes(11, 0), midnight + 1).unwrap_err().left, 10);
    try_it(&quota, &[key("a")], takes(11, 0), midnight - 10_001).expect_err("set back in earnest, with all of it");
}

#[test]
fn at_the_bound_idle_names_make_room_and_busy_ones_stay() {
    let quota = quota("max_subjects = 3\n[[limit]]\nlevel = 'key'\nrequests_per_minute = 60\ntokens_per_day = 10");
    try_it(&quota, &[key("spender")], takes(5, 0), 0).unwrap().settle(takes(5, 0));
    let busy = try_it(&quota, &[key("busy")], takes(0, 0), 0).unwrap();
    try_it(&quota, &[key("idle")], takes(0, 0), 0).unwrap().settle(takes(0, 0));
    let refusal = try_it(&quota, &[key("new")], takes(0, 0), 0).unwrap_err();
    assert_eq!(refusal.why, Why::TooManySubjects);
    try_it(&quota, &[key("spender")], takes(0, 0), 1).unwrap().settle(takes(0, 0));
    try_it(&quota, &[key("new")], takes(0, 0), 2000).map(drop).expect_err("names are dirty until they are written");
    drop(busy);
    let endless = "x".repeat(100_000);
    let refusal = try_it(&quota, &[key(&endless)], takes(0, 0), 2000).unwrap_err();
    assert!(refusal.name.len() <= 256);
}

#[test]
fn a_name_that_is_about_to_be_counted_does_not_make_room_for_the_next_one_of_its_request() {
    let quota = quota(
        "max_subjects = 2\n[[limit]]\nlevel = 'key'\nrequests_per_minute = 60\n
         [[limit]]\nlevel = 'tenant'\nrequests_per_minute = 60",
    );
    for name in ["a", "b"] {
        try_it(&quota, &[key(name)], takes(0, 0), 0).unwrap().settle(takes(0, 0));
    }
    let held = try_it(&quota, &[key("a"), Subject::new("tenant", "t")], takes(0, 0), 100_000).unwrap();
    let left = |level: &str, name: &str| standing(&quota, level, name, Unit::Requests, Span::Minute, 100_000).left;
    assert_eq!((left("key", "a"), left("tenant", "t")), (59, 59));
    let refusal = try_it(&quota, &[Subject::new("tenant", "u"), key("a")], takes(0, 0), 100_000).unwrap_err();
    assert_eq!(refusal.why, Why::TooManySubjects);
    held.settle(takes(0, 0));
    try_it(&quota, &[key("c"), Subject::new("tenant", "u")], takes(0, 0), 200_000)
        .expect("nobody is pinned any more")
        .refund();
}

#[test]
fn what_is_held_of_one_subject_can_end_by_itself() {
    let quota =
        quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100\n[[limit]]\nlevel = 'model'\ntokens_per_day = 100");
    let (big, small) = (Subject::new("model", "big"), Subject::new("model", "small"));
    let tokens = |level: &str, name: &str| {
        let one = standing(&quota, level, name, Unit::Tokens, Span::Day, 0);
        (one.spent, one.held)
    };
    let mut held = try_it(&quota, &[key("a"), big], takes(10, 0), 0).unwrap();
    let of_big = held.split(big);
    held.split(small).refund();
    assert_eq!((tokens("key", "a"), tokens("model", "big")), ((0, 10), (0, 10)));
    let of_small = held.raise_beside(takes(30, 0), small, takes(30, 0), at(0)).unwrap();
    of_big.settle(takes(4, 0));
    assert_eq!((tokens("key", "a"), tokens("model", "big"), tokens("model", "small")), ((0, 30), (4, 0), (0, 30)));
    of_small.settle(takes(20, 0));
    held.settle(takes(24, 0));
    assert_eq!((tokens("key", "a"), tokens("model", "big"), tokens("model", "small")), ((24, 0), (4, 0), (20, 0)));
}

#[test]
fn a_request_goes_on_with_another_model_only_if_both_limits_admit_it() {
    let quota = quota(
        "[[limit]]\nlevel = 'key'\ntokens_per_day = 100\n
         [[limit]]\nlevel = 'model'\ntokens_per_day = 50\nconcurrent_requests = 1",
    );
    let (big, small) = (Subject::new("model", "big"), Subject::new("model", "small"));
    let tokens = |level: &str, name: &str| standing(&quota, level, name, Unit::Tokens, Span::Day, 0).held;
    let mut held = try_it(&quota, &[key("a"), big], takes(10, 0), 0).unwrap();
    let of_big = held.split(big);
    let refusal = held.raise_beside(takes(60, 0), small, takes(60, 0), at(0)).unwrap_err();
    assert_eq!((&*refusal.level, refusal.why, refusal.wanted), ("model", Why::TooLarge, Some(60)));
    let refusal = held.raise_beside(takes(101, 0), small, takes(40, 0), at(0)).unwrap_err();
    assert_eq!((&*refusal.level, refusal.why), ("key", Why::Exhausted));
    let refusal = held.raise_beside(takes(10, 0), big, takes(10, 0), at(0)).unwrap_err();
    assert_eq!((refusal.unit, refusal.span), (Unit::Requests, Span::AtOnce), "it is asked already");
    assert_eq!((tokens("key", "a"), tokens("model", "big"), tokens("model", "small")), (10, 10, 0));
    assert_eq!(held.reserved(), takes(10, 0));
    held.raise_beside(takes(40, 0), small, takes(40, 0), at(0)).unwrap().refund();
    assert_eq!((tokens("key", "a"), tokens("model", "small")), (40, 0));
    of_big.refund();
    held.refund();
    let mut nothing = self::quota("").reserve(&[big], takes(1, 0), at(0)).unwrap();
    nothing.split(big).refund();
    nothing.raise_beside(takes(2, 0), small, takes(2, 0), at(0)).unwrap().settle(takes(2, 0));
    assert_eq!(nothing.reserved(), takes(2, 0));
    nothing.refund();
}

#[test]
fn without_limits_nothing_is_counted() {
    let quota = quota("");
    let held = try_it(&quota, &[key("a")], Amounts::default(), 0).unwrap();
    assert_eq!((held.rates().requests, held.settle(Amounts::default()).len()), (None, 0));
    assert!(quota.standings(None, None, 10, at(0)).is_empty());
}

#[test]
fn a_reload_keeps_what_was_counted_and_what_is_under_way() {
    let quota =
        quota("[[limit]]\nlevel = 'key'\ntokens_per_day = 100\nconcurrent_requests = 1\nrequests_per_minute = 10");
    let held = try_it(&quota, &[key("a")], takes(40, 0), 0).unwrap();
    let more = "[[limit]]\nlevel = 'key'\ntokens_per_day = 50\nconcurrent_requests = 2\nrequests_per_minute = 20\ntokens_per_month = 90";
    quota.reload(&config(more), at(1)).unwrap();
    assert_eq!(try_it(&quota, &[key("a")], takes(11, 0), 1).unwrap_err().left, 10);
    assert_eq!(standing(&quota, "key", "a", Unit::Requests, Span::Minute, 1).left, 19);
    let second = try_it(&quota, &[key("a")], takes(10, 0), 1).unwrap();
    assert_eq!(try_it(&quota, &[key("a")], takes(0, 0), 1).unwrap_err().span, Span::AtOnce);
    held.settle(takes(30, 0));
    second.settle(takes(10, 0));
    let month = standing(&quota, "key", "a", Unit::Tokens, Span::Month, 1);
    assert_eq!((month.spent, month.held), (40, 0), "what ends counts in a budget that is new");
    quota.reload(&config(""), at(2)).unwrap();
    assert!(quota.standings(None, None, 10, at(2)).is_empty());
    assert!(quota.reload(&config("time_zone = 'Mars'"), at(2)).is_err());
}

#[test]
fn concurrent_requests_cannot_overspend_by_one_cent() {
    const CENT: u64 = 10_000_000_000;
    let quota = quota(
        "[[limit]]\nlevel = 'tenant'\nusd_per_day = 1\nconcurrent_requests = 3\n[[limit]]\nlevel = 'key'\ntokens_per_day = 100000",
    );
    let barrier = std::sync::Barrier::new(8);
    let (granted, most_at_once, at_once) = (
        std::sync::atomic::AtomicU64::new(0),
        std::sync::atomic::AtomicU64::new(0),
        std::sync::atomic::AtomicU64::new(0),
    );
    use std::sync::atomic::Ordering::SeqCst;
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (quota, barrier, granted, most_at_once, at_once) =
                (&quota, &barrier, &granted, &most_at_once, &at_once);
            scope.spawn(move || {
                barrier.wait();
                let name = format!("k{}", thread % 3);
                for round in 0..2000 {
                    let subjects = [key(&name), Subject::new("tenant", "acme")];
                    let Ok(held) = try_it(quota, &subjects, takes(7, CENT), 0) else { continue };
                    most_at_once.fetch_max(at_once.fetch_add(1, SeqCst) + 1, SeqCst);
                    // Half of them reserve too much, are refunded or are dropped, so that room opens while others look.
                    match round % 4 {
                        0 => {
                            at_once.fetch_sub(1, SeqCst);
                            held.refund();
                        }
                        1 => {
                            granted.fetch_add(CENT / 2, SeqCst);
                            at_once.fetch_sub(1, SeqCst);
                            held.settle(takes(7, CENT / 2));
                        }
                        _ => {
                            granted.fetch_add(CENT, SeqCst);
                            at_once.fetch_sub(1, SeqCst);
                            drop(held);
                        }
                    }
                }
            });
        }
    });
    let spent = standing(&quota, "tenant", "acme", Unit::Money, Span::Day, 0);
    assert_eq!((spent.spent, spent.held), (granted.load(SeqCst), 0));
    assert!(spent.spent <= 100 * CENT && spent.spent > 99 * CENT, "{} of {}", spent.spent, 100 * CENT);
    assert!(most_at_once.load(SeqCst) <= 3);
    assert_eq!(standing(&quota, "tenant", "acme", Unit::Requests, Span::AtOnce, 0).held, 0);
}
