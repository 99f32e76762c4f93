//! Limits as they stand, for whoever looks.

use super::counter::Body;
use super::reserve::Quota;
use super::state::State;
use super::unit::{Now, Span, Unit};

/// One limit of one name as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// The level.
    pub level: Box<str>,
    /// The name at that level.
    pub name: Box<str>,
    /// What is counted.
    pub unit: Unit,
    /// Over which time.
    pub span: Span,
    /// The limit.
    pub limit: u64,
    /// Spent and settled. Rates and requests under way have no such number: 0.
    pub spent: u64,
    /// Reserved by requests under way.
    pub held: u64,
    /// Left for a request now.
    pub left: u64,
    /// When the period ends, milliseconds since 1970; None where nothing ends.
    pub resets_at_ms: Option<i64>,
}

impl Quota {
    /// The limits as they stand, of one level or all, of one name or all; at most `most`.
    pub fn standings(&self, level: Option<&str>, name: Option<&str>, most: usize, now: Now) -> Vec<Standing> {
        let mut state = self.inner.lock();
        state.turn_to(now);
        let turn = state.turn;
        let State { levels, accounts, .. } = &mut *state;
        let mut found = Vec::new();
        for account in accounts.iter_mut().flatten() {
            let level_name = &levels[account.level as usize].name;
            if level.is_some_and(|level| *level != **level_name) || name.is_some_and(|name| *name != *account.name) {
                continue;
            }
            for counter in &mut account.counters {
                if found.len() >= most {
                    return found;
                }
                // What this changes is written with the next request; looking makes no work for the disk.
                counter.bring_to(now, turn);
                let (spent, held, ends_ms) = match &counter.body {
                    Body::AtOnce { held } => (0, *held, None),
                    Body::Rate(_) => (0, 0, None),
                    Body::Kept(kept) => {
                        let ends_ms = kept.ends.map(|ends| ends.wall_ms).or(turn.ends_ms(counter.limit.span));
                        (kept.budget.current.spent, kept.budget.current.held, ends_ms)
                    }
                };
                found.push(Standing {
                    level: level_name.clone(),
                    name: (*account.name).into(),
                    unit: counter.limit.unit,
                    span: counter.limit.span,
                    limit: counter.limit.amount,
                    spent,
                    held,
                    left: counter.left(),
                    resets_at_ms: ends_ms,
                });
            }
        }
        found
    }
}
