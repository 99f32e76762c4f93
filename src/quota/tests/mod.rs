//! What holds across the files of the room.

mod limits;
mod model;
mod restarts;

use super::{Amounts, Config, Now, Quota, Refusal, Reservation, Span, Standing, Subject, Unit};

const DAY_MS: i64 = 86_400_000;
/// Noon of a day in UTC.
const NOON_MS: i64 = 19_700 * DAY_MS + DAY_MS / 2;

fn at(ms: i64) -> Now {
    Now { wall_ms: NOON_MS + ms, boot_ms: (1_000_000_000_000 + ms).cast_unsigned() }
}

fn config(text: &str) -> Config {
    toml::from_str(text).unwrap()
}

fn quota(text: &str) -> Quota {
    Quota::new(&config(text), at(0)).unwrap()
}

fn takes(tokens: u64, money: u64) -> Amounts {
    Amounts { tokens: Some(tokens), money: Some(money) }
}

fn key(name: &str) -> Subject<'_> {
    Subject::new("key", name)
}

fn try_it(quota: &Quota, subjects: &[Subject<'_>], amounts: Amounts, ms: i64) -> Result<Reservation, Box<Refusal>> {
    quota.reserve(subjects, amounts, at(ms))
}

fn standing(quota: &Quota, level: &str, name: &str, unit: Unit, span: Span, ms: i64) -> Standing {
    let all = quota.standings(Some(level), Some(name), 100, at(ms));
    all.into_iter().find(|one| (one.unit, one.span) == (unit, span)).unwrap()
}
