//! SenML (RFC 8428) in JSON and CBOR: records are resolved against their base values, and neighbours of one time form
//! a sample.

use std::fmt;

use ciborium::Value;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::json::{Stop, placed, scalars};
use super::{Fault, Plan, Scalar, cbor};
use crate::signal::config::{DecoderConfig, FieldConfig};
use crate::signal::error::{Error, Position, quoted};
use crate::signal::moment::seconds_to_ms;
use crate::signal::sample::Sample;

/// RFC 8428, 4.5.3: times below 2**28 count from now.
const ABSOLUTE_FROM_S: f64 = 268_435_456.0;
/// Longest name, base included.
const MAX_NAME_BYTES: usize = 256;
/// The version that RFC 8428 defines.
const VERSION: f64 = 10.0;

/// Record names, in the order of the fields.
#[derive(Debug, Clone)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(settings: &DecoderConfig, fields: &[FieldConfig]) -> Result<Self, Error> {
        for (key, set) in [("decoder.time", settings.time.is_some()), ("decoder.id", settings.id.is_some())] {
            if set {
                return Err(Error::setting(key, "SenML says itself where times are, and has no ids"));
            }
        }
        let name =
            |field: &FieldConfig| field.path.as_ref().map_or(field.name.clone(), |path| path.as_str().to_owned());
        Ok(Self(fields.iter().map(name).collect()))
    }

    /// The field of a record: its full name, or the part after the base name.
    fn field(&self, base: &str, name: &str) -> Option<usize> {
        self.0.iter().position(|wanted| {
            (!name.is_empty() && wanted == name)
                || wanted.strip_prefix(base).is_some_and(|rest| rest == name && !wanted.is_empty())
        })
    }
}

/// What a label of a record means here.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Label {
    BaseName,
    BaseTime,
    BaseValue,
    BaseVersion,
    Name,
    Value,
    BooleanValue,
    Time,
    /// Units, sums, text and data values.
    Other,
}

impl Label {
    /// By its JSON name. `None`: a label that must be understood (it ends in `_`) and is not.
    fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "bn" => Self::BaseName,
            "bt" => Self::BaseTime,
            "bv" => Self::BaseValue,
            "bver" => Self::BaseVersion,
            "n" => Self::Name,
            "v" => Self::Value,
            "vb" => Self::BooleanValue,
            "t" => Self::Time,
            other if other.ends_with('_') => return None,
            _ => Self::Other,
        })
    }

    /// By its CBOR number (RFC 8428, table 4).
    fn by_number(number: i128) -> Self {
        match number {
            -2 => Self::BaseName,
            -3 => Self::BaseTime,
            -5 => Self::BaseValue,
            -1 => Self::BaseVersion,
            0 => Self::Name,
            2 => Self::Value,
            4 => Self::BooleanValue,
            6 => Self::Time,
            _ => Self::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::BaseName => "bn",
            Self::BaseTime => "bt",
            Self::BaseValue => "bv",
            Self::BaseVersion => "bver",
            Self::Name => "n",
            Self::Value => "v",
            Self::BooleanValue => "vb",
            Self::Time => "t",
            Self::Other => "other",
        }
    }
}

/// One record as written.
#[derive(Debug, Default)]
struct Record {
    name: String,
    value: Option<f64>,
    time_s: Option<f64>,
}

/// Base values in force and the sample that is being gathered.
struct Pack<'a> {
    plan: &'a Plan,
    names: &'a Names,
    arrival_ms: i64,
    out: &'a mut Vec<Sample>,
    start: usize,
    base_name: String,
    base_time_s: f64,
    has_base_time: bool,
    base_value: f64,
    record: Record,
    open: Option<Sample>,
}

impl<'a> Pack<'a> {
    fn new(plan: &'a Plan, names: &'a Names, arrival_ms: i64, out: &'a mut Vec<Sample>) -> Self {
        let start = out.len();
        Self {
            plan,
            names,
            arrival_ms,
            out,
            start,
            base_name: String::new(),
            base_time_s: 0.0,
            has_base_time: false,
            base_value: 0.0,
            record: Record::default(),
            open: None,
        }
    }

    fn put(&mut self, label: Label, scalar: Scalar<'_>) -> Result<(), Fault> {
        let fault = |expected: &str| Fault {
            path: label.name().to_owned(),
            expected: expected.to_owned(),
            found: scalar.to_string(),
        };
        let number = || match scalar {
            Scalar::Signed(_) | Scalar::Unsigned(_) | Scalar::Float(_) => scalar.number(),
            _ => None,
        };
        let number = || number().ok_or_else(|| fault("a number"));
        let name = || match scalar {
            Scalar::Text(text) if text.len() <= MAX_NAME_BYTES => Ok(text),
            _ => Err(fault("a text of at most 256 bytes")),
        };
        match label {
            Label::BaseName => name()?.clone_into(&mut self.base_name),
            Label::BaseTime => (self.base_time_s, self.has_base_time) = (number()?, true),
            Label::BaseValue => self.base_value = number()?,
            Label::BaseVersion => {
                if number()? > VERSION {
                    return Err(fault("SenML version 10 or lower"));
                }
            }
            Label::Name => name()?.clone_into(&mut self.record.name),
            Label::Value => self.record.value = Some(number()?),
            Label::BooleanValue => match scalar {
                Scalar::Bool(value) => self.record.value = Some(f64::from(u8::from(value))),
                _ => return Err(fault("true or false")),
            },
            Label::Time => self.record.time_s = Some(number()?),
            Label::Other => {}
        }
        Ok(())
    }

    /// The record is complete: it joins the open sample, or closes it and begins the next.
    fn record(&mut self) -> Result<(), Stop> {
        let record = std::mem::take(&mut self.record);
        let (Some(field), Some(value)) = (self.names.field(&self.base_name, &record.name), record.value) else {
            return Ok(());
        };
        let time_ms = self.time_ms(record.time_s)?;
        let fits = |open: &Sample| open.time_ms == time_ms && open.missing & (1 << field) != 0;
        if self.open.as_ref().is_some_and(|open| !fits(open)) {
            self.close()?;
        }
        let open = self.open.get_or_insert_with(|| Sample { time_ms, ..self.plan.empty() });
        open.put(field, self.base_value + value);
        Ok(())
    }

    fn time_ms(&self, time_s: Option<f64>) -> Result<Option<i64>, Stop> {
        if time_s.is_none() && !self.has_base_time {
            return Ok(None);
        }
        let seconds = self.base_time_s + time_s.unwrap_or(0.0);
        let ms = seconds_to_ms(seconds).ok_or_else(|| {
            let found = format!("{seconds:e} seconds");
            Stop::Fault(Fault { path: "t".to_owned(), expected: "a time in years 1 to 9999".to_owned(), found })
        })?;
        Ok(Some(if seconds < ABSOLUTE_FROM_S { self.arrival_ms.saturating_add(ms) } else { ms }))
    }

    fn close(&mut self) -> Result<(), Stop> {
        match self.open.take() {
            Some(sample) => self.plan.push(self.out, self.start, sample).map_err(Stop::Limit),
            None => Ok(()),
        }
    }
}

fn not_understood(label: &str) -> Fault {
    Fault {
        path: label.to_owned(),
        expected: "labels that can be understood (one that ends in _ must be)".to_owned(),
        found: format!("the label {}", quoted(label)),
    }
}

pub(super) fn decode_cbor(
    plan: &Plan,
    names: &Names,
    payload: &[u8],
    arrival_ms: i64,
    out: &mut Vec<Sample>,
) -> Result<(), Error> {
    let value = cbor::read(payload)?;
    let mut pack = Pack::new(plan, names, arrival_ms, out);
    let wrong = |at: Position, expected: &str, found: &str| Error::Unexpected {
        path: "pack".to_owned(),
        at,
        expected: expected.to_owned(),
        found: found.to_owned(),
    };
    let stopped = |stop: Stop, at: Position| match stop {
        Stop::Fault(fault) => fault.at(at),
        Stop::Limit(error) => error,
    };
    let Value::Array(records) = &value else {
        return Err(wrong(Position::Record(1), "an array of records", "something else"));
    };
    for (at, record) in records.iter().enumerate() {
        let at = Position::Record(at + 1);
        let Value::Map(entries) = record else {
            return Err(wrong(at, "a record", "something that is no map"));
        };
        for (key, value) in entries {
            let label = match key {
                Value::Integer(number) => Label::by_number(i128::from(*number)),
                Value::Text(text) => Label::by_name(text).ok_or_else(|| not_understood(text).at(at))?,
                _ => return Err(wrong(at, "a label", "a key that is neither a number nor text")),
            };
            if label != Label::Other {
                let scalar = cbor::scalar(value).map_err(|found| wrong(at, "a plain value", found))?;
                pack.put(label, scalar).map_err(|fault| fault.at(at))?;
            }
        }
        pack.record().map_err(|stop| stopped(stop, at))?;
    }
    pack.close().map_err(|stop| stopped(stop, Position::Record(records.len())))
}

pub(super) fn decode_json(
    plan: &Plan,
    names: &Names,
    payload: &[u8],
    arrival_ms: i64,
    out: &mut Vec<Sample>,
) -> Result<(), Error> {
    let mut pack = Pack::new(plan, names, arrival_ms, out);
    let mut stop = None;
    let mut json = serde_json::Deserializer::from_slice(payload);
    let read = Records { pack: &mut pack, stop: &mut stop }.deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| placed("SenML", payload, &error, stop))
}

/// The array of records.
struct Records<'d, 'a> {
    pack: &'d mut Pack<'a>,
    stop: &'d mut Option<Stop>,
}

impl<'de> DeserializeSeed<'de> for Records<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Records<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of SenML records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(One { pack: self.pack, stop: self.stop })?.is_some() {}
        self.pack.close().map_err(|stop| {
            *self.stop = Some(stop);
            A::Error::custom("stopped")
        })
    }
}

/// One record.
struct One<'d, 'a> {
    pack: &'d mut Pack<'a>,
    stop: &'d mut Option<Stop>,
}

impl<'de> DeserializeSeed<'de> for One<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for One<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a SenML record")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(label) = map.next_key_seed(Key)? {
            match label {
                Ok(Label::Other) => {
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(label) => map.next_value_seed(Put { pack: self.pack, stop: self.stop, label })?,
                Err(fault) => {
                    *self.stop = Some(Stop::Fault(fault));
                    return Err(A::Error::custom("stopped"));
                }
            }
        }
        self.pack.record().map_err(|stop| {
            *self.stop = Some(stop);
            A::Error::custom("stopped")
        })
    }
}

struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Result<Label, Fault>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Result<Label, Fault>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a label")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Label::by_name(name).ok_or_else(|| not_understood(name)))
    }
}

/// One value of a record.
struct Put<'d, 'a> {
    pack: &'d mut Pack<'a>,
    stop: &'d mut Option<Stop>,
    label: Label,
}

impl Put<'_, '_> {
    fn take<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        self.pack.put(self.label, scalar).map_err(|fault| {
            *self.stop = Some(Stop::Fault(fault));
            E::custom("stopped")
        })
    }
}

impl<'de> DeserializeSeed<'de> for Put<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Put<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a plain value of the label {}", self.label.name())
    }

    scalars!();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::decode::tests::{decode, decoder};

    const NOW_MS: i64 = 1_700_000_000_000;
    const TWO: &str =
        "fields=[{name='voltage'},{name='amps',path='urn:dev:ow:10e2073a01080063:current'}]\n[decoder]\nformat='senml'";

    #[test]
    fn base_name_time_and_value_are_applied() {
        // After the example of RFC 8428, 5.1.2.
        let pack = br#"[
            {"bn":"urn:dev:ow:10e2073a01080063:","bt":1.276020076001e+09,"bu":"A","bver":5,"bv":1,
             "n":"voltage","u":"V","v":119.1},
            {"n":"current","t":-5,"v":0.2},
            {"n":"current","t":-4,"v":0.3},
            {"n":"voltage","t":-4,"v":7}
        ]"#;
        let samples = decode(&decoder(TWO), pack).unwrap();
        let times: Vec<_> = samples.iter().map(|sample| sample.time_ms.unwrap()).collect();
        assert_eq!(times, [1_276_020_076_001, 1_276_020_071_001, 1_276_020_072_001]);
        assert_eq!(samples[0].values[0], 120.1);
        assert_eq!(samples[0].missing, 0b10);
        assert_eq!(samples[2].values.as_slice(), [8.0, 1.3]);
        assert_eq!(samples[2].missing, 0);
    }

    #[test]
    fn times_count_from_now_unless_they_are_large() {
        let one = decoder("fields=[{name='a'}]\n[decoder]\nformat='senml'");
        let times = |pack: &str| decode(&one, pack).unwrap().iter().map(|sample| sample.time_ms).collect::<Vec<_>>();
        assert_eq!(
            times(r#"[{"n":"a","v":1},{"n":"a","t":-5,"v":2},{"n":"a","t":1700000000,"vb":true}]"#),
            [None, Some(NOW_MS - 5000), Some(NOW_MS)]
        );
    }

    #[test]
    fn records_of_other_names_and_kinds_are_passed_over() {
        let one = decoder("fields=[{name='a'}]\n[decoder]\nformat='senml'");
        let pack = r#"[{"n":"b","v":1},{"n":"a","vs":"text"},{"n":"a","v":3,"s":2,"ut":60}]"#;
        let samples = decode(&one, pack).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].values[0], 3.0);
    }

    #[test]
    fn labels_that_must_be_understood_and_newer_versions_are_refused() {
        let one = decoder("fields=[{name='a'}]\n[decoder]\nformat='senml'");
        let message = |pack: &str| decode(&one, pack).unwrap_err().to_string();
        assert!(message(r#"[{"n":"a","v":1,"odd_":2}]"#).contains("odd_"));
        assert!(message(r#"[{"bver":11,"n":"a","v":1}]"#).contains("version 10"));
        assert_eq!(
            message(r#"[{"n":"a","v":"1"}]"#),
            "failed to read `v` at line 1, column 17: expected a number, found the text \"1\""
        );
        assert!(message(r#"{"n":"a","v":1}"#).contains("an array of SenML records"));
        assert!(message(r#"[{"n":"a","v":1,"t":1e300}]"#).contains("years 1 to 9999"));
    }

    #[test]
    fn the_cbor_form_gives_the_same_samples() {
        let settings = TWO.replace("'senml'", "'senml_cbor'");
        // RFC 8428, 6: integer labels. [{-2: "urn:dev:ow:10e2073a01080063:", -3: 1276020076, 0: "voltage", 2: 120.5},
        // {0: "current", 2: 1.2}]
        let mut payload = Vec::new();
        let text = |text: &str| Value::Text(text.to_owned());
        let label = |number: i64| Value::Integer(number.into());
        let pack = Value::Array(vec![
            Value::Map(vec![
                (label(-2), text("urn:dev:ow:10e2073a01080063:")),
                (label(-3), Value::Integer(1_276_020_076.into())),
                (label(0), text("voltage")),
                (label(2), Value::Float(120.5)),
            ]),
            Value::Map(vec![(label(0), text("current")), (label(2), Value::Float(1.2)), (text("u"), text("A"))]),
        ]);
        ciborium::into_writer(&pack, &mut payload).unwrap();
        let samples = decode(&decoder(&settings), &payload).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].values.as_slice(), [120.5, 1.2]);
        assert_eq!(samples[0].time_ms, Some(1_276_020_076_000));
        assert!(decode(&decoder(&settings), [0xa0]).is_err());
        assert!(decode(&decoder(&settings), [0x81, 0x00]).is_err());
    }

    #[test]
    fn samples_beyond_the_limit_refuse_the_pack() {
        let one = decoder("fields=[{name='a'}]\n[decoder]\nformat='senml'\nmax_samples=2");
        assert!(decode(&one, r#"[{"n":"a","v":1},{"n":"a","v":1}]"#).is_ok());
        let three = decode(&one, r#"[{"n":"a","v":1},{"n":"a","v":1},{"n":"a","v":1}]"#);
        assert_eq!(three.unwrap_err(), Error::TooManySamples { most: 2 });
    }
}
