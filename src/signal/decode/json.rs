//! JSON, read in one pass: wanted paths are picked up as they come by, the rest is skipped without being built.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::{Fault, Plan, Scalar, Tree, offset_of};
use crate::signal::error::{Error, Position, excerpt};
use crate::signal::path::{Segment, Want};
use crate::signal::sample::Sample;

/// What is filled while reading, and the fault that stopped it.
struct Desk<'a> {
    plan: &'a Plan,
    tree: &'a Tree,
    out: &'a mut Vec<Sample>,
    start: usize,
    stop: Option<Stop>,
}

/// Why reading stopped other than by the format: carried beside serde's error, which only holds text.
pub(super) enum Stop {
    Fault(Fault),
    Limit(Error),
}

pub(super) fn decode(plan: &Plan, tree: &Tree, payload: &[u8], out: &mut Vec<Sample>) -> Result<(), Error> {
    let start = out.len();
    let mut desk = Desk { plan, tree, out, start, stop: None };
    let mut json = serde_json::Deserializer::from_slice(payload);
    let found = Descend { desk: &mut desk, path: tree.samples.segments() }
        .deserialize(&mut json)
        .and_then(|found| json.end().map(|()| found));
    match found {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Unexpected {
            path: tree.samples.as_str().to_owned(),
            at: Position::Line { line: 1, column: 1 },
            expected: "samples".to_owned(),
            found: "nothing of that path".to_owned(),
        }),
        Err(error) => Err(placed("JSON", payload, &error, desk.stop)),
    }
}

/// serde_json's error with the place in the payload.
pub(super) fn placed(format: &'static str, payload: &[u8], error: &serde_json::Error, stop: Option<Stop>) -> Error {
    let at = Position::Line { line: error.line().max(1), column: error.column().max(1) };
    match stop {
        Some(Stop::Fault(fault)) => fault.at(at),
        Some(Stop::Limit(error)) => error,
        None => {
            let problem = error.to_string();
            // The place is said in our own words.
            let problem = problem.rsplit_once(" at line ").map_or(problem.as_str(), |(before, _)| before).to_owned();
            let excerpt = excerpt(payload, offset_of(payload, error.line(), error.column()));
            Error::Malformed { format, at, problem, excerpt }
        }
    }
}

impl Desk<'_> {
    fn stop<E: serde::de::Error>(&mut self, fault: Fault) -> E {
        self.stop = Some(Stop::Fault(fault));
        E::custom("stopped")
    }

    fn finish<E: serde::de::Error>(&mut self, sample: Sample) -> Result<(), E> {
        self.plan.push(self.out, self.start, sample).map_err(|error| {
            self.stop = Some(Stop::Limit(error));
            E::custom("stopped")
        })
    }

    fn scalar<E: serde::de::Error>(&mut self, sample: &mut Sample, want: &Want, scalar: Scalar<'_>) -> Result<(), E> {
        for &slot in &want.slots {
            self.plan.put(sample, slot, scalar).map_err(|fault| self.stop(fault))?;
        }
        match want.children.first() {
            // A null where an object was wanted: its fields are absent.
            None => Ok(()),
            Some(_) if matches!(scalar, Scalar::Null) => Ok(()),
            Some(_) => Err(self.inside(want, scalar.to_string())),
        }
    }

    /// A fault for a path that leads through something that has no inside, or ends at something that has one.
    fn inside<E: serde::de::Error>(&mut self, want: &Want, found: String) -> E {
        let slot = want.any_slot().expect("every node of the tree was made for a slot");
        let mut fault = self.plan.fault(slot, found);
        if want.slots.is_empty() {
            "an object or array on the way".clone_into(&mut fault.expected);
        }
        self.stop(fault)
    }
}

macro_rules! scalars {
    () => {
        fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
            self.take(Scalar::Bool(value))
        }
        fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
            self.take(Scalar::Signed(value))
        }
        fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
            self.take(Scalar::Unsigned(value))
        }
        fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
            self.take(Scalar::Float(value))
        }
        fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
            self.take(Scalar::Text(value))
        }
        fn visit_unit<E: serde::de::Error>(self) -> Result<Self::Value, E> {
            self.take(Scalar::Null)
        }
    };
}
pub(super) use scalars;

/// Follows the path to the samples. True if it led somewhere.
struct Descend<'d, 'a> {
    desk: &'d mut Desk<'a>,
    path: &'d [Segment],
}

impl<'de> DeserializeSeed<'de> for Descend<'_, '_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Descend<'_, '_> {
    fn take<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<bool, E> {
        if !self.path.is_empty() || matches!(scalar, Scalar::Null) {
            return Ok(false);
        }
        let mut sample = self.desk.plan.empty();
        let tree = self.desk.tree;
        self.desk.scalar(&mut sample, &tree.want, scalar)?;
        self.desk.finish(sample)?;
        Ok(true)
    }
}

impl<'de> Visitor<'de> for Descend<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("samples")
    }

    scalars!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
        let Some((segment, rest)) = self.path.split_first() else {
            let mut sample = self.desk.plan.empty();
            let tree = self.desk.tree;
            Pick { desk: self.desk, sample: &mut sample, want: &tree.want }.visit_map(map)?;
            self.desk.finish(sample)?;
            return Ok(true);
        };
        let mut found = false;
        while let Some(same) = map.next_key_seed(Same(&segment.key))? {
            // A second key of the same name would double the samples.
            if same && !found {
                found = map.next_value_seed(Descend { desk: self.desk, path: rest })?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let tree = self.desk.tree;
        let Some((segment, rest)) = self.path.split_first() else {
            if tree.by_index {
                let mut sample = self.desk.plan.empty();
                Pick { desk: self.desk, sample: &mut sample, want: &tree.want }.visit_seq(seq)?;
                self.desk.finish(sample)?;
                return Ok(true);
            }
            loop {
                let mut sample = self.desk.plan.empty();
                let pick = Pick { desk: self.desk, sample: &mut sample, want: &tree.want };
                if seq.next_element_seed(pick)?.is_none() {
                    return Ok(true);
                }
                self.desk.finish(sample)?;
            }
        };
        let mut found = false;
        let mut index = 0;
        loop {
            let more = if segment.is_index(index) {
                let inner = seq.next_element_seed(Descend { desk: self.desk, path: rest })?;
                found |= inner.unwrap_or(false);
                inner.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(found);
            }
            index += 1;
        }
    }
}

/// Picks the wanted values out of one value. Of a key that stands twice the last one counts.
struct Pick<'d, 'a> {
    desk: &'d mut Desk<'a>,
    sample: &'d mut Sample,
    want: &'d Want,
}

impl<'de> DeserializeSeed<'de> for Pick<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Pick<'_, '_> {
    fn take<E: serde::de::Error>(self, scalar: Scalar<'_>) -> Result<(), E> {
        self.desk.scalar(self.sample, self.want, scalar)
    }
}

impl<'de> Visitor<'de> for Pick<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sample")
    }

    scalars!();

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        if !self.want.slots.is_empty() {
            return Err(self.desk.inside(self.want, "an object".to_owned()));
        }
        while let Some(want) = map.next_key_seed(Key(self.want))? {
            match want {
                Some(want) => map.next_value_seed(Pick { desk: self.desk, sample: self.sample, want })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if !self.want.slots.is_empty() {
            return Err(self.desk.inside(self.want, "an array".to_owned()));
        }
        let mut index = 0;
        loop {
            let more = match self.want.by_index(index) {
                Some(want) => seq.next_element_seed(Pick { desk: self.desk, sample: self.sample, want })?.is_some(),
                None => seq.next_element::<IgnoredAny>()?.is_some(),
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// A key, looked up without being copied.
struct Key<'w>(&'w Want);

impl<'de, 'w> DeserializeSeed<'de> for Key<'w> {
    type Value = Option<&'w Want>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'w> Visitor<'_> for Key<'w> {
    type Value = Option<&'w Want>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.by_key(key))
    }
}

/// Whether a key is this one.
struct Same<'k>(&'k str);

impl<'de> DeserializeSeed<'de> for Same<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Same<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::decode::tests::{decode, decoder};
    use crate::signal::sample::Id;

    #[test]
    fn values_time_and_id_are_found_by_their_paths() {
        let decoder = decoder(
            "fields=[{name='t',path='data.temp'},{name='v',path='/axes/1/rms'}]\n[decoder]\ntime='ts'\nid='meta.seq'",
        );
        let payload = br#"{"skip":{"a":[1,{"b":[]}]},"ts":"2026-01-01T00:00:00Z","data":{"temp":21.5},
            "axes":[{"rms":1},{"rms":"2.5"},{"rms":3}],"meta":{"seq":42}}"#;
        let samples = decode(&decoder, payload).unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].values.as_slice(), [21.5, 2.5]);
        assert_eq!(samples[0].time_ms, Some(1_767_225_600_000));
        assert_eq!(samples[0].id, Some(Id::Number(42)));
        assert_eq!(samples[0].missing, 0);
    }

    #[test]
    fn an_array_of_objects_is_many_samples() {
        let samples = decode(&decoder(""), br#"[{"value":1},{"value":true},{},{"value":null}]"#).unwrap();
        assert_eq!(samples.iter().map(|sample| sample.missing).collect::<Vec<_>>(), [0, 0, 1, 1]);
        assert_eq!(samples[1].values[0], 1.0);
        assert_eq!(decode(&decoder(""), b"[]").unwrap().len(), 0);
    }

    #[test]
    fn an_array_of_numbers_below_a_path_is_a_waveform() {
        let wave = decoder("fields=[{name='a',path=''}]\n[decoder]\nsamples='data.wave'");
        let samples = decode(&wave, br#"{"n":3,"data":{"wave":[1,2.5,-3]}}"#).unwrap();
        assert_eq!(samples.iter().map(|sample| sample.values[0]).collect::<Vec<_>>(), [1.0, 2.5, -3.0]);
        let error = decode(&wave, br#"{"n":3}"#).unwrap_err().to_string();
        assert!(error.contains("`data.wave`") && error.contains("nothing of that path"), "{error}");
    }

    #[test]
    fn an_array_read_by_index_is_one_sample() {
        let decoder = decoder("fields=[{name='a',path='1'},{name='b',path='0'}]");
        let samples = decode(&decoder, b"[10,20,30]").unwrap();
        assert_eq!(samples.len(), 1);
        assert_eq!(samples[0].values.as_slice(), [20.0, 10.0]);
    }

    #[test]
    fn a_bare_number_is_a_sample_of_the_empty_path() {
        let decoder = decoder("fields=[{name='a',path=''}]");
        assert_eq!(decode(&decoder, b"21.5").unwrap()[0].values[0], 21.5);
    }

    #[test]
    fn a_name_with_dots_is_one_key() {
        let decoder = decoder("fields=[{name='a.b'}]");
        assert_eq!(decode(&decoder, br#"{"a.b":3,"a":{"b":4}}"#).unwrap()[0].values[0], 3.0);
    }

    #[test]
    fn a_wrong_value_is_named_with_path_place_and_content() {
        let decoder = decoder("fields=[{name='t',path='data.temp'}]\n[decoder]\ntime='ts'");
        let message = |payload: &str| decode(&decoder, payload).unwrap_err().to_string();
        assert_eq!(
            message("{\n \"data\":{\"temp\":\"warm\"}}"),
            "failed to read `data.temp` at line 2, column 22: expected a number, found the text \"warm\""
        );
        assert!(message(r#"{"data":{"temp":{}}}"#).contains("`data.temp`"));
        assert!(message(r#"{"data":7}"#).contains("expected an object or array on the way, found the number 7"));
        assert!(message(r#"{"ts":"noon"}"#).contains("expected a time as rfc3339, found the text \"noon\""));
        assert!(message(r#"{"data":{"temp":1}"#).contains("EOF"), "{}", message(r#"{"data":{"temp":1}"#));
        assert_eq!(
            message(r#"{"data":{"temp":NaN}}"#),
            r#"failed to read JSON at line 1, column 17: expected value, near `{\"data\":{\"temp\":NaN}}`"#
        );
    }

    #[test]
    fn more_after_the_value_is_an_error() {
        assert!(decode(&decoder(""), br#"{"value":1}{"value":2}"#).is_err());
        assert!(decode(&decoder(""), b"{\"value\":1}\n").is_ok());
    }

    #[test]
    fn non_finite_text_reaches_the_policy_and_overflow_is_an_error() {
        for text in ["NaN", "Infinity", "-inf", "1e999"] {
            let payload = format!("{{\"value\":\"{text}\"}}");
            assert!(!decode(&decoder(""), payload).unwrap()[0].values[0].is_finite(), "{text}");
        }
        assert!(decode(&decoder(""), br#"{"value":1e999}"#).is_err());
        assert_eq!(decode(&decoder(""), br#"{"value":1e308}"#).unwrap()[0].values[0], 1e308);
    }

    #[test]
    fn deep_nesting_is_an_error_or_skipped_and_never_a_crash() {
        let deep = "[".repeat(100_000);
        assert!(decode(&decoder(""), &deep).is_err());
        let closed = format!("{{\"x\":{}{},\"value\":1}}", "[".repeat(100_000), "]".repeat(100_000));
        let _ = decode(&decoder(""), closed);
        let objects = "{\"value\":".repeat(20_000);
        assert!(decode(&decoder(""), objects).is_err());
    }

    #[test]
    fn samples_beyond_the_limit_refuse_the_payload() {
        let decoder = decoder("[decoder]\nmax_samples=3");
        assert!(decode(&decoder, br#"[{"value":1},{"value":1},{"value":1}]"#).is_ok());
        let four = decode(&decoder, br#"[{"value":1},{"value":1},{"value":1},{"value":1}]"#);
        assert_eq!(four.unwrap_err(), Error::TooManySamples { most: 3 });
    }
}
