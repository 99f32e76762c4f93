//! Against a plain model of one budget.

use proptest::prelude::{ProptestConfig, Strategy, prop_oneof, proptest};

use super::{at, config, key, quota, takes, try_it};
use crate::quota::{Reservation, Span};

/// A plain model of one day's budget of one name.
#[derive(Debug, Clone)]
enum Step {
    Reserve(u64),
    Settle(usize, u64),
    Refund(usize),
    Drop(usize),
    Reload(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u64..60).prop_map(Step::Reserve),
        3 => (0_usize..8, 0_u64..80).prop_map(|(at, took)| Step::Settle(at, took)),
        1 => (0_usize..8).prop_map(Step::Refund),
        1 => (0_usize..8).prop_map(Step::Drop),
        1 => (0_u64..300).prop_map(Step::Reload),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_budget_is_what_was_settled_and_what_is_held(steps in proptest::collection::vec(step(), 1..60)) {
        let text = |limit| format!("[[limit]]\nlevel = 'key'\ntokens_per_day = {limit}\nconcurrent_requests = 8");
        let quota = quota(&text(200));
        let (mut limit, mut spent, mut under_way) = (200, 0, Vec::<Reservation>::new());
        for step in steps {
            let held: u64 = under_way.iter().map(|one| one.reserved().tokens.unwrap()).sum();
            match step {
                Step::Reserve(amount) => {
                    let fits = amount == 0 || spent + held + amount <= limit;
                    match try_it(&quota, &[key("a")], takes(amount, 0), 0) {
                        Ok(one) => {
                            assert!(fits && under_way.len() < 8);
                            under_way.push(one);
                        }
                        Err(_) => assert!(!fits || under_way.len() == 8),
                    }
                }
                Step::Settle(at, took) if at < under_way.len() => {
                    under_way.swap_remove(at).settle(takes(took, 0));
                    spent += took;
                }
                Step::Refund(at) if at < under_way.len() => under_way.swap_remove(at).refund(),
                Step::Drop(at) if at < under_way.len() => spent += under_way.swap_remove(at).reserved().tokens.unwrap(),
                Step::Reload(to) => {
                    limit = to;
                    quota.reload(&config(&text(to)), at(0)).unwrap();
                }
                _ => {}
            }
            let held: u64 = under_way.iter().map(|one| one.reserved().tokens.unwrap()).sum();
            if let Some(day) = quota.standings(None, None, 9, at(0)).into_iter().find(|one| one.span == Span::Day) {
                assert_eq!((day.spent, day.held, day.left), (spent, held, limit.saturating_sub(spent + held)));
            }
        }
    }
}
