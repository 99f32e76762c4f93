//! What requests took together: by day, tenant, key, model and prompt.

use std::collections::BTreeMap;
use std::hash::BuildHasher as _;

use rusqlite::{Connection, OptionalExtension as _};
use serde::Serialize;

use super::record::Record;
use crate::base::{Map, MapState, Set};
use crate::store::{Error, Tx};

/// The name under which is summed up what has no room of its own.
pub const OTHER: &str = "(other)";
/// Sums that wait for the disk.
const MAX_WAITING: usize = 4096;
/// Numbers of [`Sums`].
const COUNT: usize = 17;
/// Most groups that one question is answered with.
const MAX_GROUPS: usize = 10_000;

/// What some requests took together. What is unknown is counted apart and in no sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Requests.
    pub requests: u64,
    /// Of these, answered with a status of 400 or more.
    pub failed: u64,
    /// Of these, answered from the cache.
    pub cached: u64,
    /// Of these, without a record of their own.
    pub unrecorded: u64,
    /// Tokens in.
    pub input_tokens: u64,
    /// Tokens out.
    pub output_tokens: u64,
    /// Of those in, from the provider's cache.
    pub cached_tokens: u64,
    /// Of those out, for reasoning.
    pub reasoning_tokens: u64,
    /// Requests whose tokens, in or out, are unknown.
    pub unknown_tokens: u64,
    /// Requests whose tokens were counted here.
    pub estimated: u64,
    /// Cost, in millionths of a millionth of a dollar.
    pub cost_pico: u64,
    /// Requests whose cost is unknown.
    pub unknown_cost: u64,
    /// What answers from the cache have saved, likewise.
    pub saved_pico: u64,
    /// Time of this box's cores, in microseconds.
    pub cpu_us: u64,
    /// Requests that a model of this box worked for, or may have, and nobody knows for how long.
    pub unknown_cpu: u64,
    /// Energy that models of this box took, in microwatt-hours.
    pub energy_uwh: u64,
    /// Requests that a model of this box worked for, or may have, and nobody knows with how much energy.
    pub unknown_energy: u64,
}

impl Sums {
    fn of(record: &Record<'_>, is_recorded: bool) -> Self {
        let (usage, here) = (record.usage, record.here);
        Self {
            requests: 1,
            failed: record.is_failed().into(),
            cached: record.is_cached.into(),
            unrecorded: (!is_recorded).into(),
            input_tokens: usage.input_tokens.unwrap_or(0),
            output_tokens: usage.output_tokens.unwrap_or(0),
            cached_tokens: usage.cached_tokens.unwrap_or(0),
            reasoning_tokens: usage.reasoning_tokens.unwrap_or(0),
            unknown_tokens: (usage.input_tokens.is_none() || usage.output_tokens.is_none()).into(),
            estimated: usage.estimated.into(),
            cost_pico: record.cost_pico.unwrap_or(0),
            unknown_cost: record.cost_pico.is_none().into(),
            saved_pico: record.saved_pico.unwrap_or(0),
            cpu_us: here.and_then(|here| here.cpu_us).unwrap_or(0),
            unknown_cpu: here.is_some_and(|here| here.cpu_us.is_none()).into(),
            energy_uwh: here.and_then(|here| here.energy_uwh).unwrap_or(0),
            unknown_energy: here.is_some_and(|here| here.energy_uwh.is_none()).into(),
        }
    }

    fn numbers(&self) -> [u64; COUNT] {
        [
            self.requests,
            self.failed,
            self.cached,
            self.unrecorded,
            self.input_tokens,
            self.output_tokens,
            self.cached_tokens,
            self.reasoning_tokens,
            self.unknown_tokens,
            self.estimated,
            self.cost_pico,
            self.unknown_cost,
            self.saved_pico,
            self.cpu_us,
            self.unknown_cpu,
            self.energy_uwh,
            self.unknown_energy,
        ]
    }

    fn from_numbers(numbers: [u64; COUNT]) -> Self {
        let [requests, failed, cached, unrecorded, input_tokens, output_tokens, cached_tokens, reasoning_tokens, ..] =
            numbers;
        let [.., unknown_tokens, estimated, cost_pico, unknown_cost, saved_pico, _, _, _, _] = numbers;
        let [.., cpu_us, unknown_cpu, energy_uwh, unknown_energy] = numbers;
        Self {
            requests,
            failed,
            cached,
            unrecorded,
            input_tokens,
            output_tokens,
            cached_tokens,
            reasoning_tokens,
            unknown_tokens,
            estimated,
            cost_pico,
            unknown_cost,
            saved_pico,
            cpu_us,
            unknown_cpu,
            energy_uwh,
            unknown_energy,
        }
    }

    /// Adds `other`. A number that would not fit any more stays at the most that a row can hold.
    pub fn add(&mut self, other: &Self) {
        const MOST: u64 = i64::MAX.cast_unsigned();
        let mut numbers = self.numbers();
        for (number, more) in numbers.iter_mut().zip(other.numbers()) {
            *number = number.saturating_add(more).min(MOST);
        }
        *self = Self::from_numbers(numbers);
    }
}

/// What is summed up together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    day: i32,
    tenant: Box<str>,
    key: Box<str>,
    model: Box<str>,
    prompt: Box<str>,
}

/// Sums that are not on the disk yet.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    hasher: MapState,
    places: Map<u64, (Place, Sums)>,
    /// Places of `day` so far.
    known: Set<u64>,
    day: i32,
}

impl Waiting {
    /// Counts a request. True if it was summed up under [`OTHER`].
    pub(super) fn count(&mut self, record: &Record<'_>, is_recorded: bool, places_a_day: usize) -> bool {
        let sums = Sums::of(record, is_recorded);
        if record.day != self.day {
            self.day = record.day;
            self.known.clear();
        }
        // A model that nobody knows is the caller's word; it gets no sum of its own.
        let names = [record.tenant, record.key, record.model_answered, record.prompt].map(super::pack::cut);
        let hash = self.hasher.hash_one((record.day, names));
        let is_new = !self.known.contains(&hash);
        let has_room =
            self.known.len() < places_a_day && (self.places.len() < MAX_WAITING || self.places.contains_key(&hash));
        if is_new && has_room {
            self.known.insert(hash);
        }
        let is_other = is_new && !has_room;
        if is_other {
            self.add(record.day, [OTHER; 4], &sums);
        } else {
            self.add_at(hash, record.day, names, &sums);
        }
        is_other
    }

    fn add(&mut self, day: i32, names: [&str; 4], sums: &Sums) {
        self.add_at(self.hasher.hash_one((day, names)), day, names, sums);
    }

    fn add_at(&mut self, mut hash: u64, day: i32, names: [&str; 4], sums: &Sums) {
        loop {
            let entry = self.places.entry(hash).or_insert_with(|| {
                let [tenant, key, model, prompt] = names.map(Box::from);
                (Place { day, tenant, key, model, prompt }, Sums::default())
            });
            let Place { day: at, tenant, key, model, prompt } = &entry.0;
            if (*at, [&**tenant, &**key, &**model, &**prompt]) == (day, names) {
                return entry.1.add(sums);
            }
            // Two places with one hash: the next number is as good.
            hash = hash.wrapping_add(1);
        }
    }

    pub(super) fn take(&mut self) -> Vec<(Place, Sums)> {
        std::mem::take(&mut self.places).into_values().collect()
    }

    /// What could not be written waits again.
    pub(super) fn give_back(&mut self, sums: &[(Place, Sums)]) {
        for (place, sums) in sums {
            self.add(place.day, [&place.tenant, &place.key, &place.model, &place.prompt], sums);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

const NUMBERS: &str =
    "requests, failed, cached, unrecorded, input_tokens, output_tokens, cached_tokens, reasoning_tokens,
    unknown_tokens, estimated, cost_pico, unknown_cost, saved_pico, cpu_us, unknown_cpu, energy_uwh, unknown_energy";
const CRC: &str = "row_crc('ledger_sum', day, tenant, key, model, prompt, requests, failed, cached, unrecorded,
    input_tokens, output_tokens, cached_tokens, reasoning_tokens, unknown_tokens, estimated, cost_pico, unknown_cost,
    saved_pico, cpu_us, unknown_cpu, energy_uwh, unknown_energy)";

/// What became of a place's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Put {
    Added,
    /// There was none.
    New,
    /// It was not what had been written, and begins anew.
    Anew,
}

/// Adds to the row of a place.
pub(super) fn put(tx: &Tx<'_>, place: &Place, sums: &Sums) -> Result<Put, Error> {
    let at = (place.day, &*place.tenant, &*place.key, &*place.model, &*place.prompt);
    let found = tx
        .prepare_cached(&format!(
            "SELECT {NUMBERS}, crc IS {CRC} FROM ledger_sum
             WHERE day = ?1 AND tenant = ?2 AND key = ?3 AND model = ?4 AND prompt = ?5"
        ))?
        .query_row(at, |row| if row.get(COUNT)? { numbers(row, 0).map(Some) } else { Ok(None) })
        .optional()?;
    let mut all = found.flatten().unwrap_or_default();
    all.add(sums);
    let mut values: Vec<rusqlite::types::Value> = vec![place.day.into()];
    values.extend([&place.tenant, &place.key, &place.model, &place.prompt].map(|name| name.to_string().into()));
    values.extend(all.numbers().map(|number| i64::try_from(number).unwrap_or(i64::MAX).into()));
    // The day, four names and the numbers, in the order of the columns' names.
    let places = (1..=5 + COUNT).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
    tx.prepare_cached(&format!(
        "INSERT OR REPLACE INTO ledger_sum (day, tenant, key, model, prompt, {NUMBERS}, crc)
         VALUES ({places}, row_crc('ledger_sum', {places}))"
    ))?
    .execute(rusqlite::params_from_iter(values))?;
    Ok(match found {
        Some(Some(_)) => Put::Added,
        Some(None) => Put::Anew,
        None => Put::New,
    })
}

fn numbers(row: &rusqlite::Row<'_>, from: usize) -> rusqlite::Result<Sums> {
    let mut numbers = [0; COUNT];
    for (at, number) in numbers.iter_mut().enumerate() {
        *number = row.get::<_, i64>(from + at)?.max(0).cast_unsigned();
    }
    Ok(Sums::from_numbers(numbers))
}

/// Removes the oldest sums, so many.
pub(super) fn prune(tx: &Tx<'_>, excess: u64) -> Result<(), Error> {
    tx.execute(
        "DELETE FROM ledger_sum WHERE (day, tenant, key, model, prompt) IN
         (SELECT day, tenant, key, model, prompt FROM ledger_sum ORDER BY day, tenant, key, model, prompt LIMIT ?1)",
        [i64::try_from(excess).unwrap_or(i64::MAX)],
    )
    .map(drop)
}

/// What sums are told apart by. What is left out is summed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct By {
    /// The calendar day.
    pub day: bool,
    /// The tenant.
    pub tenant: bool,
    /// The key's id.
    pub key: bool,
    /// The model that answered.
    pub model: bool,
    /// The prompt.
    pub prompt: bool,
}

/// Which sums are asked for.
#[derive(Debug, Clone, Default)]
pub struct SumsQuery {
    /// From this day on.
    pub first_day: Option<i32>,
    /// Up to this day.
    pub last_day: Option<i32>,
    /// Of this tenant only.
    pub tenant: Option<String>,
    /// Of this key only.
    pub key: Option<String>,
    /// Of this model only.
    pub model: Option<String>,
    /// What they are told apart by.
    pub by: By,
}

/// One group of sums; None where it is not told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Group {
    /// The day.
    pub day: Option<i32>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The key's id.
    pub key: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The prompt.
    pub prompt: Option<String>,
    /// What they took.
    #[serde(flatten)]
    pub sums: Sums,
}

/// The groups in order of day, tenant, key, model and prompt; true if there are more than 10,000, which are left out. Rows
/// with a wrong checksum are left out.
pub fn sums(connection: &Connection, query: &SumsQuery) -> Result<(Vec<Group>, bool), Error> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT day, tenant, key, model, prompt, {NUMBERS} FROM ledger_sum
         WHERE day BETWEEN ?1 AND ?2 AND (?3 IS NULL OR tenant = ?3) AND (?4 IS NULL OR key = ?4)
         AND (?5 IS NULL OR model = ?5) AND crc IS {CRC}"
    ))?;
    let days = (query.first_day.unwrap_or(i32::MIN), query.last_day.unwrap_or(i32::MAX));
    let mut rows = statement.query((days.0, days.1, &query.tenant, &query.key, &query.model))?;
    let mut groups = BTreeMap::new();
    let mut has_more = false;
    let by = query.by;
    while let Some(row) = rows.next()? {
        let name = |at: usize, is_asked: bool| if is_asked { row.get::<_, String>(at).map(Some) } else { Ok(None) };
        let day = if by.day { Some(row.get::<_, i32>(0)?) } else { None };
        let place = (day, name(1, by.tenant)?, name(2, by.key)?, name(3, by.model)?, name(4, by.prompt)?);
        if groups.len() >= MAX_GROUPS && !groups.contains_key(&place) {
            has_more = true;
            continue;
        }
        groups.entry(place).or_insert_with(Sums::default).add(&numbers(row, 5)?);
    }
    let group = |((day, tenant, key, model, prompt), sums)| Group { day, tenant, key, model, prompt, sums };
    Ok((groups.into_iter().map(group).collect(), has_more))
}
