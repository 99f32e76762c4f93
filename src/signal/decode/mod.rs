//! Payload to samples, by the stream's settings.

mod cbor;
mod csv;
mod json;
mod senml;

use std::fmt;

use jiff::tz::Offset;

use crate::signal::config::{Config, Format};
use crate::signal::error::{Error, Position, excerpt, quoted};
use crate::signal::moment::TimeFormat;
use crate::signal::path::{Path, Slot, Want};
use crate::signal::sample::{Id, MAX_ID_BYTES, Sample};

/// Reads payloads of one stream. A payload is taken whole or not at all.
#[derive(Debug, Clone)]
pub struct Decoder {
    plan: Plan,
    reader: Reader,
    max_payload_bytes: usize,
}

#[derive(Debug, Clone)]
enum Reader {
    Json(Tree),
    Cbor(Tree),
    Csv(csv::Columns),
    Number,
    Senml(senml::Names),
    SenmlCbor(senml::Names),
}

/// What JSON and CBOR look for.
#[derive(Debug, Clone)]
struct Tree {
    samples: Path,
    want: Want,
    /// The sample is itself an array, read by index.
    by_index: bool,
}

/// What every format needs to fill a sample.
#[derive(Debug, Clone)]
struct Plan {
    paths: Vec<String>,
    time_path: String,
    id_path: String,
    time_format: TimeFormat,
    zone: Offset,
    max_samples: usize,
}

/// A value in any format, still in the payload.
#[derive(Debug, Clone, Copy)]
enum Scalar<'a> {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    /// CBOR tag 1: seconds since 1970 whatever the settings say.
    Epoch(f64),
    /// CBOR tag 0: RFC 3339 whatever the settings say.
    Rfc3339(&'a str),
}

/// A value that is not what its slot needs. The format adds where it stands.
#[derive(Debug)]
struct Fault {
    path: String,
    expected: String,
    found: String,
}

impl Fault {
    fn at(self, at: Position) -> Error {
        Error::Unexpected { path: self.path, at, expected: self.expected, found: self.found }
    }
}

impl fmt::Display for Scalar<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "the number {value}"),
            Self::Unsigned(value) => write!(f, "the number {value}"),
            Self::Float(value) | Self::Epoch(value) => write!(f, "the number {value:e}"),
            Self::Text(text) | Self::Rfc3339(text) => write!(f, "the text {}", quoted(text)),
        }
    }
}

impl Scalar<'_> {
    /// As a measured value; text is read as a number, true and false are 1 and 0.
    fn number(self) -> Option<f64> {
        match self {
            Self::Bool(value) => Some(f64::from(u8::from(value))),
            Self::Signed(value) => Some(value as f64),
            Self::Unsigned(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Null | Self::Epoch(_) | Self::Rfc3339(_) => None,
        }
    }
}

impl Plan {
    fn path_of(&self, slot: Slot) -> &str {
        match slot {
            Slot::Field(field) => &self.paths[field],
            Slot::Time => &self.time_path,
            Slot::Id => &self.id_path,
        }
    }

    fn expects(&self, slot: Slot) -> String {
        match slot {
            Slot::Field(_) => "a number".to_owned(),
            Slot::Time => format!("a time as {}", self.time_format.expects()),
            Slot::Id => "an unsigned number or a text of at most 64 bytes".to_owned(),
        }
    }

    fn fault(&self, slot: Slot, found: impl Into<String>) -> Fault {
        Fault { path: self.path_of(slot).to_owned(), expected: self.expects(slot), found: found.into() }
    }

    fn empty(&self) -> Sample {
        Sample::empty(self.paths.len())
    }

    /// Puts one value where it belongs. Null counts as absent.
    fn put(&self, sample: &mut Sample, slot: Slot, scalar: Scalar<'_>) -> Result<(), Fault> {
        if matches!(scalar, Scalar::Null) {
            return Ok(());
        }
        let taken = match slot {
            Slot::Field(field) => scalar.number().map(|value| sample.put(field, value)),
            Slot::Time => self.time_ms(scalar).map(|time_ms| sample.time_ms = Some(time_ms)),
            Slot::Id => id(scalar).map(|id| sample.id = Some(id)),
        };
        taken.ok_or_else(|| self.fault(slot, scalar.to_string()))
    }

    fn time_ms(&self, scalar: Scalar<'_>) -> Option<i64> {
        match scalar {
            Scalar::Null | Scalar::Bool(_) => None,
            Scalar::Signed(value) => self.time_format.whole_ms(value),
            Scalar::Unsigned(value) => self.time_format.whole_ms(i64::try_from(value).ok()?),
            Scalar::Float(value) => self.time_format.number_ms(value),
            Scalar::Text(text) => self.time_format.text_ms(text, self.zone),
            Scalar::Epoch(seconds) => TimeFormat::UnixS.number_ms(seconds),
            Scalar::Rfc3339(text) => TimeFormat::Rfc3339.text_ms(text, self.zone),
        }
    }

    fn push(&self, out: &mut Vec<Sample>, start: usize, sample: Sample) -> Result<(), Error> {
        if out.len() - start >= self.max_samples {
            return Err(Error::TooManySamples { most: self.max_samples });
        }
        out.push(sample);
        Ok(())
    }
}

fn id(scalar: Scalar<'_>) -> Option<Id> {
    match scalar {
        Scalar::Unsigned(value) => Some(Id::Number(value)),
        Scalar::Signed(value) => u64::try_from(value).ok().map(Id::Number),
        Scalar::Text(text) => (!text.is_empty() && text.len() <= MAX_ID_BYTES).then(|| Id::Text(text.into())),
        _ => None,
    }
}

impl Decoder {
    /// Checks the settings and prepares their paths.
    ///
    /// # Errors
    /// [`Error::Setting`] for a limit of 0, paths inside each other, columns that are no numbers, and the like.
    pub fn new(config: &Config) -> Result<Self, Error> {
        config.check_fields()?;
        let settings = &config.decoder;
        let fields = config.fields();
        if settings.max_samples == 0 {
            return Err(Error::setting("decoder.max_samples", "0 lets no sample in"));
        }
        if settings.max_payload_bytes == 0 {
            return Err(Error::setting("decoder.max_payload_bytes", "0 lets no payload in"));
        }
        if settings.delimiter != ',' && settings.format != Format::Csv {
            return Err(Error::setting("decoder.delimiter", "is for format = \"csv\" only"));
        }
        if settings.header && settings.format != Format::Csv {
            return Err(Error::setting("decoder.header", "is for format = \"csv\" only"));
        }
        settings.time_format.check()?;
        let zone = settings
            .utc_offset_minutes
            .checked_mul(60)
            .and_then(|seconds| Offset::from_seconds(seconds).ok())
            .ok_or_else(|| Error::setting("decoder.utc_offset_minutes", "is more than a day"))?;
        let path = |at: usize| match &fields[at].path {
            Some(path) => Ok(path.clone()),
            // A name with dots is a key, not a way: as a pointer it stays whole.
            None => Path::new(&format!("/{}", fields[at].name.replace('~', "~0").replace('/', "~1"))),
        };
        let mut paths = fields.iter().map(|field| match &field.path {
            Some(path) if !path.as_str().is_empty() => path.as_str().to_owned(),
            _ => field.name.clone(),
        });
        let tree = || -> Result<Tree, Error> {
            let mut want = Want::default();
            for at in 0..fields.len() {
                want.add(&path(at)?, Slot::Field(at))?;
            }
            if let Some(time) = &settings.time {
                want.add(time, Slot::Time)?;
            }
            if let Some(id) = &settings.id {
                want.add(id, Slot::Id)?;
            }
            let by_index = want.children.iter().any(|(segment, _)| segment.number.is_some());
            Ok(Tree { samples: settings.samples.clone(), want, by_index })
        };
        let reader = match settings.format {
            Format::Json => Reader::Json(tree()?),
            Format::Cbor => Reader::Cbor(tree()?),
            Format::Csv => Reader::Csv(csv::Columns::new(settings, &fields)?),
            Format::Number if fields.len() == 1 => Reader::Number,
            Format::Number => return Err(Error::setting("fields", "format = \"number\" has exactly one field")),
            Format::Senml => Reader::Senml(senml::Names::new(settings, &fields)?),
            Format::SenmlCbor => Reader::SenmlCbor(senml::Names::new(settings, &fields)?),
        };
        let text = |path: &Option<Path>| path.as_ref().map(|path| path.as_str().to_owned()).unwrap_or_default();
        let plan = Plan {
            paths: paths.by_ref().collect(),
            time_path: text(&settings.time),
            id_path: text(&settings.id),
            time_format: settings.time_format.clone(),
            zone,
            max_samples: settings.max_samples,
        };
        Ok(Self { plan, reader, max_payload_bytes: settings.max_payload_bytes })
    }

    /// Appends the payload's samples to `out`, in the payload's order, and says how many there were (an empty array
    /// holds none). `arrival_ms` is what SenML's relative times count from.
    ///
    /// # Errors
    /// Anything that is not as the settings say. `out` is then as it was.
    pub fn decode(&self, payload: &[u8], arrival_ms: i64, out: &mut Vec<Sample>) -> Result<usize, Error> {
        if payload.len() > self.max_payload_bytes {
            return Err(Error::TooLarge { bytes: payload.len(), most: self.max_payload_bytes });
        }
        let start = out.len();
        let decoded = match &self.reader {
            Reader::Json(tree) => json::decode(&self.plan, tree, payload, out),
            Reader::Cbor(tree) => cbor::decode(&self.plan, tree, payload, out),
            Reader::Csv(columns) => csv::decode(&self.plan, columns, payload, out),
            Reader::Number => number(&self.plan, payload, out),
            Reader::Senml(names) => senml::decode_json(&self.plan, names, payload, arrival_ms, out),
            Reader::SenmlCbor(names) => senml::decode_cbor(&self.plan, names, payload, arrival_ms, out),
        };
        match decoded {
            Ok(()) => Ok(out.len() - start),
            Err(error) => {
                out.truncate(start);
                Err(error)
            }
        }
    }
}

fn number(plan: &Plan, payload: &[u8], out: &mut Vec<Sample>) -> Result<(), Error> {
    let mut sample = plan.empty();
    let text = std::str::from_utf8(payload).map_err(|error| Error::Malformed {
        format: "a number",
        at: Position::Offset(error.valid_up_to()),
        problem: "not UTF-8".to_owned(),
        excerpt: excerpt(payload, error.valid_up_to()),
    })?;
    plan.put(&mut sample, Slot::Field(0), Scalar::Text(text)).map_err(|fault| fault.at(Position::Offset(0)))?;
    out.push(sample);
    Ok(())
}

/// Byte offset of a line and column as serde_json counts them, both from 1.
fn offset_of(payload: &[u8], line: usize, column: usize) -> usize {
    let before = match line.checked_sub(2) {
        None => 0,
        Some(nth) => {
            payload.iter().enumerate().filter(|&(_, &byte)| byte == b'\n').nth(nth).map_or(0, |(at, _)| at + 1)
        }
    };
    before + column.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(super) fn decoder(config: &str) -> Decoder {
        Decoder::new(&toml::from_str(config).unwrap()).unwrap()
    }

    pub(super) fn decode(decoder: &Decoder, payload: impl AsRef<[u8]>) -> Result<Vec<Sample>, Error> {
        let mut out = Vec::new();
        decoder.decode(payload.as_ref(), 1_700_000_000_000, &mut out)?;
        Ok(out)
    }

    fn one_of_each() -> Vec<Decoder> {
        [
            "fields=[{name='a'},{name='b',path='x.0.y'}]\n[decoder]\ntime='t'\nid='i'",
            "fields=[{name='a',path=''}]\n[decoder]\nsamples='v'",
            "fields=[{name='a'}]\n[decoder]\nformat='cbor'\ntime='t'\nid='i'",
            "fields=[{name='a'},{name='b'}]\n[decoder]\nformat='csv'",
            "fields=[{name='a'}]\n[decoder]\nformat='csv'\nheader=true\ntime='t'\ntime_format='unix_s'",
            "[decoder]\nformat='number'",
            "fields=[{name='a'}]\n[decoder]\nformat='senml'",
            "fields=[{name='a'}]\n[decoder]\nformat='senml_cbor'",
        ]
        .map(decoder)
        .into()
    }

    #[test]
    fn a_plain_number_is_a_sample() {
        let decoder = decoder("[decoder]\nformat='number'");
        assert_eq!(decode(&decoder, " 21.5\n").unwrap()[0].values[0], 21.5);
        assert_eq!(decode(&decoder, "-1e3").unwrap()[0].values[0], -1000.0);
        assert!(decode(&decoder, "NaN").unwrap()[0].values[0].is_nan());
        assert_eq!(decode(&decoder, "1e999").unwrap()[0].values[0], f64::INFINITY);
        let error = decode(&decoder, "21.5 °C").unwrap_err().to_string();
        assert_eq!(error, "failed to read `value` at byte 0: expected a number, found the text \"21.5 °C\"");
        assert!(decode(&decoder, "").is_err());
        assert!(decode(&decoder, b"\xff\xfe").is_err());
    }

    #[test]
    fn a_payload_over_the_limit_is_not_looked_at() {
        // A gibibyte of untouched zero pages: nothing reads them.
        let payload = vec![0; 1 << 30];
        for decoder in one_of_each() {
            let error = decode(&decoder, &payload).unwrap_err();
            assert_eq!(error, Error::TooLarge { bytes: 1 << 30, most: 256 * 1024 });
        }
    }

    #[test]
    fn a_number_of_a_million_digits_is_a_number() {
        let digits = "9".repeat(1_000_000);
        let plain = decoder("[decoder]\nformat='number'\nmax_payload_bytes=2000000");
        assert_eq!(decode(&plain, &digits).unwrap()[0].values[0], f64::INFINITY);
        let json = decoder("[decoder]\nmax_payload_bytes=2000000");
        assert!(decode(&json, format!("{{\"value\":{digits}}}")).is_err());
        assert_eq!(decode(&json, format!("{{\"value\":\"{digits}\"}}")).unwrap()[0].values[0], f64::INFINITY);
        assert_eq!(decode(&json, format!("{{\"value\":0.{digits}}}")).unwrap()[0].values[0], 1.0);
    }

    #[test]
    fn a_failed_payload_leaves_nothing_behind() {
        let decoder = decoder("");
        let mut out = vec![Sample::empty(1)];
        decoder.decode(br#"[{"value":1},{"value":2},{"value":[]}]"#, 0, &mut out).unwrap_err();
        assert_eq!(out.len(), 1);
    }

    #[test]
    fn empty_payloads_are_errors_that_say_so() {
        for decoder in one_of_each() {
            assert!(!decode(&decoder, b"").unwrap_err().to_string().is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for decoder in one_of_each() {
                let _ = decode(&decoder, &bytes);
            }
        }

        #[test]
        fn no_text_of_the_formats_own_characters_makes_a_decoder_panic(
            text in r#"[\[\]{}",:;.\-+eE0-9atixvnu \n\\/NI]{0,200}"#
        ) {
            for decoder in one_of_each() {
                let _ = decode(&decoder, &text);
            }
        }

        #[test]
        fn a_cut_payload_is_an_error_or_fewer_samples_never_more(cut in 0_usize..100) {
            let whole = br#"[{"a":1.5,"x":[{"y":2}],"t":"2026-01-01T00:00:00Z","i":"k"},{"a":7,"x":[{"y":8}]}]"#;
            let decoder = &one_of_each()[0];
            let cut = cut.min(whole.len() - 1);
            prop_assert!(decode(decoder, &whole[..cut]).is_err());
        }
    }
}
