//! Whether all limits of a request admit it: the accounts of its subjects, and the refusal that is told.

use std::sync::Arc;

use smallvec::SmallVec;

use super::counter::{Block, Body, Counter, Turn, wanted};
use super::refusal::{Refusal, Why};
use super::reservation::Reservation;
use super::state::{State, TooMany};
use super::unit::{Amounts, Now, Span, Subject, Unit};

/// What the lock's holder has to tell once it is free.
#[derive(Default)]
pub(super) struct News {
    pub(super) first_dirty: bool,
    pub(super) urgent: bool,
}

/// The accounts of those `subjects` that have limits. Each is pinned, so that one that is idle is not forgotten to make room for
/// the next.
pub(super) fn pinned(
    state: &mut State,
    subjects: &[Subject<'_>],
    now: Now,
) -> Result<SmallVec<[u32; 6]>, Box<Refusal>> {
    let mut accounts = SmallVec::new();
    for subject in subjects {
        match state.account(subject.level, subject.name, now) {
            Ok(Some(id)) if !accounts.contains(&id) => {
                state.held(id).in_flight += 1;
                accounts.push(id);
            }
            Ok(_) => {}
            Err(TooMany) => {
                unpin(state, &accounts);
                return Err(too_many(*subject));
            }
        }
    }
    Ok(accounts)
}

pub(super) fn unpin(state: &mut State, accounts: &[u32]) {
    for id in accounts {
        state.held(*id).in_flight -= 1;
    }
}

/// Asks a counter about all of `amounts`.
pub(super) fn admits(amounts: Amounts, now: Now) -> impl Fn(&Counter, Turn, bool) -> Result<(), Block> {
    move |counter, turn, is_nothing| {
        wanted(amounts, counter.limit.unit, is_nothing).and_then(|amount| counter.admits(amount, now, turn))
    }
}

/// False for a counter that came later: it has nothing of this request reserved.
pub(super) fn holds(counter: &Counter, held: &Reservation) -> bool {
    counter.born.wrapping_sub(held.generation).cast_signed() <= 0
}

/// A refusal before it is known what was asked for.
pub(super) struct Blocked(Refusal);

impl Blocked {
    pub(super) fn told(self, amounts: Amounts) -> Refusal {
        Refusal { wanted: amounts.of(self.0.unit), ..self.0 }
    }
}

/// Brings all counters of `accounts` to now and asks each; the refusal that takes longest to pass, if there is one.
pub(super) fn admit(
    state: &mut State,
    accounts: &[u32],
    now: Now,
    news: &mut News,
    ask: impl Fn(&Counter, Turn, bool) -> Result<(), Block>,
) -> Option<Blocked> {
    let (turn, is_nothing) = (state.turn, state.unknown_is_nothing);
    let mut worst: Option<(u64, u32, usize, Block)> = None;
    for &id in accounts {
        let mut has_turned = false;
        for (at, counter) in state.held(id).counters.iter_mut().enumerate() {
            has_turned |= counter.bring_to(now, turn);
            if let Err(block) = ask(counter, turn, is_nothing) {
                let wait_ms = block.retry_after_ms.unwrap_or(u64::MAX);
                if worst.as_ref().is_none_or(|(longest_ms, ..)| wait_ms > *longest_ms) {
                    worst = Some((wait_ms, id, at, block));
                }
            }
        }
        if has_turned {
            news.first_dirty |= state.mark_dirty(id);
        }
    }
    let (_, id, at, block) = worst?;
    let account = state.held(id);
    let (counter, level, name) = (&mut account.counters[at], account.level, Arc::clone(&account.name));
    if let (Body::Kept(kept), Why::Exhausted | Why::TooLarge) = (&mut counter.body, block.why) {
        kept.is_short = true;
    }
    let (limit, left) = (counter.limit, counter.left());
    Some(Blocked(Refusal {
        level: state.levels[level as usize].name.clone(),
        name: (*name).into(),
        unit: limit.unit,
        span: limit.span,
        limit: limit.amount,
        left,
        wanted: None,
        why: block.why,
        retry_after_ms: block.retry_after_ms,
    }))
}

fn too_many(subject: Subject<'_>) -> Box<Refusal> {
    let cut = subject.name.char_indices().take_while(|(at, c)| at + c.len_utf8() <= 256).count();
    Box::new(Refusal {
        level: subject.level.into(),
        name: subject.name.chars().take(cut).collect::<String>().into(),
        unit: Unit::Requests,
        span: Span::AtOnce,
        limit: 0,
        left: 0,
        wanted: Some(1),
        why: Why::TooManySubjects,
        retry_after_ms: Some(60_000),
    })
}
