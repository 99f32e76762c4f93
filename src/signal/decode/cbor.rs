//! CBOR: built as a value (bounded by the payload's limit, at most 32 bytes a byte), then walked along the same paths.

use ciborium::Value;

use super::{Fault, Plan, Scalar, Tree};
use crate::signal::error::{Error, Position, excerpt};
use crate::signal::path::{Segment, Want};
use crate::signal::sample::Sample;

/// Nesting beyond this is refused; the same bound as for JSON.
const MAX_DEPTH: usize = 128;

pub(super) fn decode(plan: &Plan, tree: &Tree, payload: &[u8], out: &mut Vec<Sample>) -> Result<(), Error> {
    let value = read(payload)?;
    let start = out.len();
    let found = descend(&value, tree.samples.segments()).ok_or_else(|| Error::Unexpected {
        path: tree.samples.as_str().to_owned(),
        at: Position::Record(1),
        expected: "samples".to_owned(),
        found: "nothing of that path".to_owned(),
    })?;
    let mut one = |value: &Value| {
        let mut sample = plan.empty();
        let record = Position::Record(out.len() - start + 1);
        pick(plan, &tree.want, value, &mut sample).map_err(|fault| fault.at(record))?;
        plan.push(out, start, sample)
    };
    match found {
        Value::Array(elements) if !tree.by_index => elements.iter().try_for_each(one),
        value => one(value),
    }
}

/// The one value that the payload is.
pub(super) fn read(payload: &[u8]) -> Result<Value, Error> {
    let malformed = |at: usize, problem: String| Error::Malformed {
        format: "CBOR",
        at: Position::Offset(at),
        problem,
        excerpt: excerpt(payload, at),
    };
    let mut rest = payload;
    let value = ciborium::de::from_reader_with_recursion_limit(&mut rest, MAX_DEPTH).map_err(|error| {
        use ciborium::de::Error as Cbor;
        let read = payload.len() - rest.len();
        match error {
            Cbor::Io(_) => malformed(payload.len(), "the payload ends inside a value".to_owned()),
            Cbor::Syntax(at) => malformed(at, "not a CBOR item".to_owned()),
            Cbor::Semantic(at, problem) => malformed(at.unwrap_or(read), problem),
            Cbor::RecursionLimitExceeded => malformed(read, format!("nested deeper than {MAX_DEPTH}")),
        }
    })?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(malformed(payload.len() - rest.len(), format!("{} more bytes after the value", rest.len())))
    }
}

fn descend<'v>(value: &'v Value, path: &[Segment]) -> Option<&'v Value> {
    let Some((segment, rest)) = path.split_first() else {
        return (!value.is_null()).then_some(value);
    };
    let inner = match value {
        Value::Map(entries) => entries.iter().find(|(key, _)| is_key(key, segment)).map(|(_, value)| value),
        Value::Array(elements) => segment.number.and_then(|at| elements.get(usize::try_from(at).ok()?)),
        Value::Tag(_, inner) => return descend(inner, path),
        _ => None,
    };
    descend(inner?, rest)
}

fn is_key(key: &Value, segment: &Segment) -> bool {
    match key {
        Value::Text(text) => *text == segment.key,
        Value::Integer(number) => segment.number.is_some_and(|wanted| i128::from(*number) == i128::from(wanted)),
        _ => false,
    }
}

fn pick(plan: &Plan, want: &Want, value: &Value, sample: &mut Sample) -> Result<(), Fault> {
    if want.slots.is_empty() {
        return inside(plan, want, value, sample);
    }
    match scalar(value) {
        Ok(scalar) => want.slots.iter().try_for_each(|&slot| plan.put(sample, slot, scalar)),
        Err(found) => Err(plan.fault(want.slots[0], found)),
    }
}

fn inside(plan: &Plan, want: &Want, value: &Value, sample: &mut Sample) -> Result<(), Fault> {
    match value {
        Value::Map(entries) => entries.iter().try_for_each(|(key, value)| {
            let want = match key {
                Value::Text(text) => want.by_key(text),
                Value::Integer(number) => i64::try_from(*number).ok().and_then(|number| want.by_number(number)),
                _ => None,
            };
            want.map_or(Ok(()), |want| pick(plan, want, value, sample))
        }),
        Value::Array(elements) => elements
            .iter()
            .enumerate()
            .try_for_each(|(at, value)| want.by_index(at).map_or(Ok(()), |want| pick(plan, want, value, sample))),
        Value::Tag(_, inner) => inside(plan, want, inner, sample),
        Value::Null => Ok(()),
        other => {
            let slot = want.any_slot().expect("every node of the tree was made for a slot");
            let found = scalar(other).map_or_else(str::to_owned, |scalar| scalar.to_string());
            let mut fault = plan.fault(slot, found);
            "a map or array on the way".clone_into(&mut fault.expected);
            Err(fault)
        }
    }
}

/// The value as a scalar, or what it is instead.
pub(super) fn scalar(value: &Value) -> Result<Scalar<'_>, &'static str> {
    Ok(match value {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Bool(*value),
        Value::Float(value) => Scalar::Float(*value),
        Value::Text(text) => Scalar::Text(text),
        Value::Integer(number) => match (u64::try_from(*number), i64::try_from(*number)) {
            (Ok(value), _) => Scalar::Unsigned(value),
            (_, Ok(value)) => Scalar::Signed(value),
            _ => Scalar::Float(i128::from(*number) as f64),
        },
        Value::Tag(1, inner) => match scalar(inner)? {
            Scalar::Unsigned(seconds) => Scalar::Epoch(seconds as f64),
            Scalar::Signed(seconds) => Scalar::Epoch(seconds as f64),
            Scalar::Float(seconds) => Scalar::Epoch(seconds),
            _ => return Err("tag 1 around something that is no number"),
        },
        Value::Tag(0, inner) => match &**inner {
            Value::Text(text) => Scalar::Rfc3339(text),
            _ => return Err("tag 0 around something that is no text"),
        },
        Value::Tag(_, inner) => return scalar(inner),
        Value::Bytes(_) => return Err("a byte string"),
        Value::Array(_) => return Err("an array"),
        Value::Map(_) => return Err("a map"),
        _ => return Err("an unknown kind of value"),
    })
}

#[cfg(test)]
mod tests {
    use crate::signal::decode::tests::{decode, decoder};
    use crate::signal::sample::Id;

    fn bytes(value: &serde_json::Value) -> Vec<u8> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes).unwrap();
        bytes
    }

    const SETTINGS: &str = "fields=[{name='a',path='data.temp'}]\n[decoder]\nformat='cbor'\ntime='ts'\nid='seq'";

    #[test]
    fn the_same_paths_work_as_in_json() {
        let payload = serde_json::json!([
            {"data": {"temp": 21.5}, "ts": "2026-01-01T00:00:00Z", "seq": 7},
            {"data": {"temp": 3}, "seq": "k"},
            {"data": null}
        ]);
        let samples = decode(&decoder(SETTINGS), bytes(&payload)).unwrap();
        assert_eq!(samples[0].values[0], 21.5);
        assert_eq!(samples[0].time_ms, Some(1_767_225_600_000));
        assert_eq!(samples[1].id, Some(Id::Text("k".into())));
        assert_eq!(samples[2].missing, 1);
    }

    #[test]
    fn integer_keys_half_floats_and_tagged_times_are_read() {
        let decoder = decoder("fields=[{name='a',path='-2'}]\n[decoder]\nformat='cbor'\ntime='1'");
        // {-2: half float 1.5, 1: tag 1 (1767225600)}
        let payload = hex::decode("a221f93e0001c11a6955b900").unwrap();
        let samples = decode(&decoder, payload).unwrap();
        assert_eq!(samples[0].values[0], 1.5);
        assert_eq!(samples[0].time_ms, Some(1_767_225_600_000));
    }

    #[test]
    fn lengths_that_lie_are_errors_without_a_huge_allocation() {
        for lie in
            ["9bffffffffffffffff", "bbffffffffffffffff", "7bffffffffffffffff61", "5bffffffffffffffff", "9f", "a1"]
        {
            let error = decode(&decoder(SETTINGS), hex::decode(lie).unwrap()).unwrap_err();
            assert!(error.to_string().starts_with("failed to read CBOR at byte"), "{error}");
        }
    }

    #[test]
    fn deep_nesting_and_a_tail_are_refused() {
        assert!(decode(&decoder(SETTINGS), vec![0x81; 100_000]).unwrap_err().to_string().contains("nested deeper"));
        assert!(decode(&decoder(SETTINGS), vec![0xc1; 100_000]).is_err());
        let error = decode(&decoder(SETTINGS), [0xa0, 0x00]).unwrap_err().to_string();
        assert!(error.contains("1 more bytes after the value"), "{error}");
    }

    #[test]
    fn a_wrong_value_is_named_with_path_and_record() {
        let payload = serde_json::json!([{"data": {"temp": 1}}, {"data": {"temp": [1]}}]);
        assert_eq!(
            decode(&decoder(SETTINGS), bytes(&payload)).unwrap_err().to_string(),
            "failed to read `data.temp` at record 2: expected a number, found an array"
        );
    }
}
