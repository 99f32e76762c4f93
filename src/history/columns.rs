//! Readings of one stream as columns of bytes: what blocks and arrivals are made of.
//!
//! Neighbouring readings are much alike, so numbers are written as what they differ by from the one before, values that
//! a decimal writes exactly as whole numbers, and identities that count as the numbers they are. Nothing is rounded: what
//! no short form holds exactly is written as it is.
//!
//! Version 1, every number a LEB128 varint, signed ones zigzag: version, count, then the columns seq (differences), time_ms
//! (differences), state (a byte each), widths (runs of readings with the same number of values), one column of numbers a
//! field, score, expected, id, extra.

use super::Reading;

const VERSION: u8 = 1;
/// Decimals that are tried: what sensors and their gateways round to.
const MOST_DECIMALS: u8 = 6;
/// A column of doubles as they are, byte by byte of each.
const RAW: u8 = 0xff;
/// Whole numbers up to here survive the way through a double.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Which readings of a column have a value.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Present {
    None = 0,
    All = 1,
    Some = 2,
}

/// Most readings of one block or section, and about how many bytes of columns they may fill.
pub(super) const MAX_READINGS: usize = 1024;
const MAX_BYTES: usize = 64 << 10;

/// About what a reading takes before it is compressed.
pub(super) fn weight(reading: &Reading) -> usize {
    32 + 8 * reading.values.len()
        + reading.id.as_ref().map_or(0, String::len)
        + reading.extra.as_ref().map_or(0, Vec::len)
}

/// How many of the first readings make one block of at most `most`; 0 only if there are none.
pub(super) fn fitting(readings: &[Reading], most: usize) -> usize {
    let mut bytes = 0;
    let fits = readings.iter().take(most.clamp(1, MAX_READINGS)).take_while(|reading| {
        bytes += weight(reading);
        bytes <= MAX_BYTES
    });
    fits.count().max(usize::from(!readings.is_empty()))
}

/// The columns of `readings`, which are of one stream and in order.
pub(super) fn encode(readings: &[Reading]) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + 16 * readings.len());
    out.push(VERSION);
    varint(&mut out, readings.len() as u64);
    differences(&mut out, readings.iter().map(|reading| reading.seq.cast_signed()));
    differences(&mut out, readings.iter().map(|reading| reading.time_ms));
    out.extend(readings.iter().map(|reading| reading.state));
    for run in readings.chunk_by(|a, b| a.values.len() == b.values.len()) {
        varint(&mut out, run.len() as u64);
        varint(&mut out, run[0].values.len() as u64);
    }
    let widest = readings.iter().map(|reading| reading.values.len()).max().unwrap_or(0);
    for field in 0..widest {
        let column: Vec<f64> = readings.iter().filter_map(|reading| reading.values.get(field).copied()).collect();
        doubles(&mut out, &column);
    }
    // SQLite never kept a NaN here, and a score that is none says as much.
    let number = |value: Option<f64>| value.filter(|value| !value.is_nan());
    for column in [|reading: &Reading| reading.score, |reading: &Reading| reading.expected] {
        let column: Vec<Option<f64>> = readings.iter().map(|reading| number(column(reading))).collect();
        let there = present(&mut out, &column);
        doubles_if_any(&mut out, &there);
    }
    ids(&mut out, readings);
    let extras: Vec<Option<&[u8]>> = readings.iter().map(|reading| reading.extra.as_deref()).collect();
    let there = present(&mut out, &extras);
    texts(&mut out, &there);
    out
}

/// The readings. `None` if these are no columns, or columns of more than `most` readings.
pub(super) fn decode(bytes: &[u8], most: usize) -> Option<Vec<Reading>> {
    let mut from = Bytes(bytes);
    if from.byte()? != VERSION {
        return None;
    }
    let count = usize::try_from(from.varint()?).ok().filter(|count| *count <= most)?;
    let seqs = from.differences(count)?;
    let times = from.differences(count)?;
    let states = from.take(count)?;
    let mut widths = Vec::with_capacity(count);
    while widths.len() < count {
        let run = usize::try_from(from.varint()?).ok()?;
        let width = usize::try_from(from.varint()?).ok()?;
        // A value takes at least a byte, so a width beyond what is left is a lie.
        if run == 0 || run > count - widths.len() || width > bytes.len() {
            return None;
        }
        widths.resize(widths.len() + run, width);
    }
    let mut readings: Vec<Reading> = (0..count)
        .map(|at| Reading {
            seq: seqs[at].cast_unsigned(),
            time_ms: times[at],
            id: None,
            values: Vec::new(),
            score: None,
            expected: None,
            state: states[at],
            extra: None,
        })
        .collect();
    for field in 0..widths.iter().copied().max().unwrap_or(0) {
        let mut column = from.doubles(widths.iter().filter(|width| **width > field).count())?.into_iter();
        for (reading, _) in readings.iter_mut().zip(&widths).filter(|(_, width)| **width > field) {
            reading.values.push(column.next()?);
        }
    }
    let scores = from.optional(count, Bytes::doubles)?;
    let expected = from.optional(count, Bytes::doubles)?;
    let ids = from.optional(count, Bytes::ids)?;
    let extras = from.optional(count, Bytes::texts)?;
    let columns = scores.into_iter().zip(expected).zip(ids.into_iter().zip(extras));
    for (reading, ((score, expected), (id, extra))) in readings.iter_mut().zip(columns) {
        (reading.score, reading.expected, reading.id, reading.extra) = (score, expected, id, extra);
    }
    from.0.is_empty().then_some(readings)
}

/// A number in groups of seven bits, the lowest first.
pub(super) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn differences(out: &mut Vec<u8>, values: impl Iterator<Item = i64>) {
    let mut before = 0_i64;
    for value in values {
        varint(out, zigzag(value.wrapping_sub(before)));
        before = value;
    }
}

/// Writes which are there; returns those.
fn present<T: Copy>(out: &mut Vec<u8>, column: &[Option<T>]) -> Vec<T> {
    let there: Vec<T> = column.iter().copied().flatten().collect();
    let present = match there.len() {
        0 => Present::None,
        all if all == column.len() => Present::All,
        _ => Present::Some,
    };
    out.push(present as u8);
    if present == Present::Some {
        let eights = column.chunks(8).map(|eight| {
            eight.iter().enumerate().fold(0, |bits, (at, value)| bits | (u8::from(value.is_some()) << at))
        });
        out.extend(eights);
    }
    there
}

fn doubles_if_any(out: &mut Vec<u8>, column: &[f64]) {
    if !column.is_empty() {
        doubles(out, column);
    }
}

fn doubles(out: &mut Vec<u8>, column: &[f64]) {
    if let Some((decimals, numbers)) = as_decimals(column) {
        out.push(decimals);
        return differences(out, numbers.into_iter());
    }
    out.push(RAW);
    // Signs and exponents beside each other are what can be compressed of such numbers.
    for byte in 0..8 {
        out.extend(column.iter().map(|value| value.to_le_bytes()[byte]));
    }
}

/// The column as whole numbers of the least decimals that hold each value to its last bit.
fn as_decimals(column: &[f64]) -> Option<(u8, Vec<i64>)> {
    let mut decimals = 0;
    for value in column {
        while whole(*value, decimals).is_none() {
            decimals += 1;
            if decimals > MOST_DECIMALS {
                return None;
            }
        }
    }
    let numbers: Option<Vec<i64>> = column.iter().map(|value| whole(*value, decimals)).collect();
    Some((decimals, numbers?))
}

fn whole(value: f64, decimals: u8) -> Option<i64> {
    let scale = 10_f64.powi(decimals.into());
    let scaled = (value * scale).round();
    if scaled.is_nan() || scaled.abs() >= EXACT {
        return None;
    }
    let number = scaled as i64;
    (from_whole(number, scale).to_bits() == value.to_bits()).then_some(number)
}

fn from_whole(number: i64, scale: f64) -> f64 {
    number as f64 / scale
}

/// Identities that are whole numbers are written as such.
fn ids(out: &mut Vec<u8>, readings: &[Reading]) {
    let column: Vec<Option<&str>> = readings.iter().map(|reading| reading.id.as_deref()).collect();
    let there = present(out, &column);
    if there.is_empty() {
        return;
    }
    let numbers: Option<Vec<i64>> = there.iter().map(|id| counted(id)).collect();
    out.push(u8::from(numbers.is_some()));
    match numbers {
        Some(numbers) => differences(out, numbers.into_iter()),
        None => texts(out, &there.iter().map(|id| id.as_bytes()).collect::<Vec<_>>()),
    }
}

/// The number that is written exactly so.
fn counted(id: &str) -> Option<i64> {
    let plain = id.len() <= 18 && id.bytes().all(|byte| byte.is_ascii_digit()) && (id == "0" || !id.starts_with('0'));
    if plain { id.parse().ok() } else { None }
}

fn texts(out: &mut Vec<u8>, column: &[&[u8]]) {
    for text in column {
        varint(out, text.len() as u64);
    }
    for text in column {
        out.extend_from_slice(text);
    }
}

/// What is left to read.
pub(super) struct Bytes<'a>(pub(super) &'a [u8]);

impl<'a> Bytes<'a> {
    pub(super) fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn differences(&mut self, count: usize) -> Option<Vec<i64>> {
        let mut now = 0_i64;
        let next = |_| {
            let code = self.varint()?;
            now = now.wrapping_add((code >> 1).cast_signed() ^ -((code & 1).cast_signed()));
            Some(now)
        };
        (0..count).map(next).collect()
    }

    fn doubles(&mut self, count: usize) -> Option<Vec<f64>> {
        let decimals = self.byte()?;
        if decimals == RAW {
            let bytes = self.take(count.checked_mul(8)?)?;
            let value = |at: usize| f64::from_le_bytes(std::array::from_fn(|byte| bytes[byte * count + at]));
            return Some((0..count).map(value).collect());
        }
        if decimals > MOST_DECIMALS {
            return None;
        }
        let scale = 10_f64.powi(decimals.into());
        Some(self.differences(count)?.into_iter().map(|number| from_whole(number, scale)).collect())
    }

    fn ids(&mut self, count: usize) -> Option<Vec<String>> {
        if self.byte()? == 1 {
            return Some(self.differences(count)?.into_iter().map(|number| number.to_string()).collect());
        }
        self.texts(count)?.into_iter().map(|text| String::from_utf8(text).ok()).collect()
    }

    fn texts(&mut self, count: usize) -> Option<Vec<Vec<u8>>> {
        let lengths: Option<Vec<usize>> = (0..count).map(|_| usize::try_from(self.varint()?).ok()).collect();
        lengths?.into_iter().map(|length| self.take(length).map(<[u8]>::to_vec)).collect()
    }

    fn optional<T>(
        &mut self,
        count: usize,
        column: impl FnOnce(&mut Self, usize) -> Option<Vec<T>>,
    ) -> Option<Vec<Option<T>>> {
        let present = self.byte()?;
        let is_there: Vec<bool> = if present == Present::Some as u8 {
            let bits = self.take(count.div_ceil(8))?;
            (0..count).map(|at| bits[at / 8] >> (at % 8) & 1 == 1).collect()
        } else if present <= Present::All as u8 {
            vec![present == Present::All as u8; count]
        } else {
            return None;
        };
        let there = is_there.iter().filter(|there| **there).count();
        if there == 0 {
            return Some((0..count).map(|_| None).collect());
        }
        let mut values = column(self, there)?.into_iter();
        Some(is_there.into_iter().map(|there| if there { values.next() } else { None }).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    fn any_number() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-1_000_000_i64..1_000_000, 0_u8..7).prop_map(|(n, decimals)| n as f64 / 10_f64.powi(decimals.into())),
            2 => any::<u64>().prop_map(f64::from_bits),
            1 => Just(-0.0),
            1 => Just(f64::NAN),
        ]
    }

    fn any_id() -> impl Strategy<Value = Option<String>> {
        prop_oneof![
            Just(None),
            any::<u64>().prop_map(|n| Some(n.to_string())),
            (0_u64..20).prop_map(|n| Some(format!("0{n}"))),
            (0_u64..20).prop_map(|n| Some(n.to_string())),
            "\\PC{0,9}".prop_map(|text| Some(format!("\"{text}\""))),
        ]
    }

    fn any_reading() -> impl Strategy<Value = Reading> {
        let values = proptest::collection::vec(any_number(), 0..4);
        let score = || proptest::option::of(any_number());
        let extra = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9));
        (any::<u64>(), any::<i64>(), any_id(), values, (score(), score()), any::<u8>(), extra).prop_map(
            |(seq, time_ms, id, values, (score, expected), state, extra)| Reading {
                seq,
                time_ms,
                id,
                values,
                score: score.filter(|score| !score.is_nan()),
                expected: expected.filter(|score| !score.is_nan()),
                state,
                extra,
            },
        )
    }

    /// To the last bit: NaN is not itself to `==`.
    fn bits(readings: &[Reading]) -> Vec<(Reading, Vec<u64>)> {
        let plain = |reading: &Reading| Reading { values: Vec::new(), ..reading.clone() };
        let values = |reading: &Reading| reading.values.iter().map(|value| value.to_bits()).collect();
        readings.iter().map(|reading| (plain(reading), values(reading))).collect()
    }

    proptest! {
        #[test]
        fn what_became_columns_comes_out_to_the_last_bit(readings in proptest::collection::vec(any_reading(), 0..40)) {
            let columns = encode(&readings);
            prop_assert_eq!(bits(&decode(&columns, 40).unwrap()), bits(&readings));
            assert!(readings.is_empty() || decode(&columns, readings.len() - 1).is_none());
        }

        #[test]
        fn no_bytes_whatever_are_read_beyond_their_end(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut lie = vec![VERSION];
            lie.extend(bytes);
            drop(decode(&lie, 1000));
        }
    }

    #[test]
    fn a_reading_of_a_sensor_takes_a_few_bytes() {
        let reading = |n: u64| Reading {
            seq: n,
            time_ms: 1_700_000_000_000 + 100 * n.cast_signed(),
            id: Some(format!("{}", 10_000_000 + n)),
            values: vec![((50.0 + 20.0 * (n as f64 / 500.0).sin()) * 1e4).round() / 1e4],
            score: None,
            expected: None,
            state: 1,
            extra: None,
        };
        let readings: Vec<_> = (1..=245).map(reading).collect();
        let bytes = encode(&readings).len();
        assert!(bytes < 8 * readings.len(), "{bytes} bytes");
    }
}
