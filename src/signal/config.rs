//! Settings of one stream: how a payload is read, what is let in, which windows and features come out.

use serde::Deserialize;

use super::error::Error;
use super::moment::TimeFormat;
use super::path::Path;
use super::sample::MAX_FIELDS;

/// Decoding and shaping of one stream.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How payloads are read.
    pub decoder: DecoderConfig,
    /// The values of a sample, in order, at most 64. None means one field called `value`.
    pub fields: Vec<FieldConfig>,
    /// What to do with samples that are late, doubled, incomplete or out of range.
    pub intake: IntakeConfig,
    /// Which readings form a window.
    pub window: WindowConfig,
    /// What is computed of a window, per field and in this order. None means `["raw"]`.
    pub features: Vec<Feature>,
    /// Bands for the feature `bands`.
    pub spectrum: SpectrumConfig,
}

/// How payloads are read.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderConfig {
    /// The payload's format.
    pub format: Format,
    /// JSON and CBOR: where an array of samples lies. Default: the payload itself, one sample or an array of them.
    /// Its elements may be plain numbers (field path ""): a waveform in one message.
    pub samples: Path,
    /// Where a sample's time lies, inside the sample. Without it the arrival time counts.
    pub time: Option<Path>,
    /// How the time is written.
    pub time_format: TimeFormat,
    /// For time patterns without `%z`: minutes east of UTC.
    pub utc_offset_minutes: i32,
    /// Where a sample's id lies: an unsigned number or a text of at most 64 bytes.
    pub id: Option<Path>,
    /// CSV: one ASCII character between cells.
    pub delimiter: char,
    /// CSV: the first line of each payload names the columns.
    pub header: bool,
    /// Most samples in one payload.
    pub max_samples: usize,
    /// Longest payload that is looked at.
    pub max_payload_bytes: usize,
}

impl Default for DecoderConfig {
    fn default() -> Self {
        Self {
            format: Format::Json,
            samples: Path::new("").expect("the empty path is one"),
            time: None,
            time_format: TimeFormat::Rfc3339,
            utc_offset_minutes: 0,
            id: None,
            delimiter: ',',
            header: false,
            max_samples: 1000,
            max_payload_bytes: 256 * 1024,
        }
    }
}

/// A payload's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// JSON, paths into objects and arrays. Numbers may be written as text ("21.5"); true and false are 1 and 0.
    Json,
    /// CBOR (RFC 8949), the same paths. Tags 0 and 1 on times are understood.
    Cbor,
    /// Lines of cells.
    Csv,
    /// One number as text.
    Number,
    /// SenML in JSON (RFC 8428): records of one time form a sample, a field's path is a record's name.
    Senml,
    /// The same in CBOR.
    SenmlCbor,
}

/// One value of a sample.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldConfig {
    /// Its name in features, rows and pages.
    pub name: String,
    /// Where it lies in a sample. Default: its name; in CSV without a header the columns in order that `time` and
    /// `id` leave free.
    #[serde(default)]
    pub path: Option<Path>,
    /// Unit, for display only.
    #[serde(default)]
    pub unit: Option<String>,
    /// Lowest plausible value.
    #[serde(default)]
    pub min: Option<f64>,
    /// Highest plausible value.
    #[serde(default)]
    pub max: Option<f64>,
}

/// What to do with samples that are not as they should be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IntakeConfig {
    /// A value outside `min` and `max`.
    pub out_of_range: OutOfRange,
    /// NaN or infinity.
    pub non_finite: NonFinite,
    /// A field that is absent or null.
    pub missing: Missing,
    /// Most samples in a row for which a field's last value may stand in; then they are dropped.
    pub max_held: u32,
    /// Source time before the newest one.
    pub late: Keep,
    /// A step back of more than this is a clock that was set, not a late sample: it is accepted and time starts anew.
    pub max_late_ms: u64,
    /// What makes two samples the same.
    pub duplicate_key: DuplicateKey,
    /// A sample that was seen before.
    pub duplicates: Keep,
    /// How many recent ids or times are remembered.
    pub remember: usize,
    /// Expected time between samples; missing ones are then counted.
    pub interval_ms: Option<u64>,
    /// How much longer a gap must be than `interval_ms` to count, as a fraction of it.
    pub tolerance: f64,
}

impl Default for IntakeConfig {
    fn default() -> Self {
        Self {
            out_of_range: OutOfRange::KeepFlagged,
            non_finite: NonFinite::Drop,
            missing: Missing::Drop,
            max_held: 12,
            late: Keep::Accept,
            max_late_ms: 3_600_000,
            duplicate_key: DuplicateKey::None,
            duplicates: Keep::Drop,
            remember: 256,
            interval_ms: None,
            tolerance: 0.5,
        }
    }
}

/// Policy for values out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutOfRange {
    /// Use the value, note it.
    KeepFlagged,
    /// Drop the sample.
    Drop,
    /// Use the nearest bound.
    Clamp,
}

/// Policy for NaN and infinities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Drop the sample.
    Drop,
    /// Use the field's last value.
    HoldLast,
    /// Use it: features and score of the windows that hold it are NaN.
    KeepFlagged,
}

/// Policy for absent fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missing {
    /// Drop the sample.
    Drop,
    /// Use the field's last value.
    HoldLast,
}

/// Policy for late samples and duplicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// Use it, note it.
    Accept,
    /// Drop it, note it.
    Drop,
}

/// What makes two samples the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DuplicateKey {
    /// Nothing: no memory is kept.
    None,
    /// The sender's id.
    Id,
    /// The source time.
    Time,
}

/// Which readings form a window: either `size` or `size_ms`. Neither means each reading by itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowConfig {
    /// Readings in a window.
    pub size: Option<usize>,
    /// Readings from one window to the next, at most `size`. Default: `size` (tumbling).
    pub step: Option<usize>,
    /// Length of a window in time. Windows start at multiples of `step_ms` since 1970.
    pub size_ms: Option<u64>,
    /// Time from one window to the next, at most `size_ms`. Default: `size_ms` (tumbling).
    pub step_ms: Option<u64>,
    /// Which time counts for `size_ms`.
    pub time: WindowTime,
    /// Most readings kept for a window in time; older ones fall out, counted.
    pub max_readings: usize,
}

impl Default for WindowConfig {
    fn default() -> Self {
        Self { size: None, step: None, size_ms: None, step_ms: None, time: WindowTime::Source, max_readings: 4096 }
    }
}

/// Which time counts for windows in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WindowTime {
    /// The source's, where it gives one.
    Source,
    /// When the sample reached this machine.
    Arrival,
}

/// One number, or for `raw` and `bands` several, computed of a field's values in a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// Arithmetic mean.
    Mean,
    /// Population standard deviation (divided by n).
    Std,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Root of the mean square.
    Rms,
    /// Largest magnitude over RMS; 1 where all values are 0.
    CrestFactor,
    /// Excess kurtosis of the population (a normal distribution has 0); 0 for a constant window.
    Kurtosis,
    /// Least-squares slope per reading.
    SlopePerSample,
    /// Least-squares slope per second of window time; 0 where all times are equal.
    SlopePerS,
    /// The newest value.
    Last,
    /// All values, oldest first. For windows by count only.
    Raw,
    /// Mean square in each of `spectrum.bands_hz`.
    Bands,
}

/// Bands for the feature `bands`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpectrumConfig {
    /// Readings per second; readings are taken as evenly spaced.
    pub sampling_hz: f64,
    /// `[low, high]`: low included, high not, unless it is half of `sampling_hz`.
    pub bands_hz: Vec<[f64; 2]>,
}

impl Config {
    /// The fields, at least one.
    pub fn fields(&self) -> Vec<FieldConfig> {
        if self.fields.is_empty() {
            let bare = matches!(self.decoder.format, Format::Number);
            let path = (bare).then(|| Path::new("").expect("the empty path is one"));
            vec![FieldConfig { name: "value".to_owned(), path, unit: None, min: None, max: None }]
        } else {
            self.fields.clone()
        }
    }

    /// Checks what all parts of the room share. Each part's `new` checks the rest.
    pub(super) fn check_fields(&self) -> Result<(), Error> {
        if self.fields.len() > MAX_FIELDS {
            return Err(Error::setting("fields", format!("{} fields, at most {MAX_FIELDS}", self.fields.len())));
        }
        for (at, field) in self.fields.iter().enumerate() {
            let key = |what: &str| format!("fields[{at}].{what}");
            if field.name.is_empty() || field.name.len() > 64 {
                return Err(Error::setting(key("name"), "a name has 1 to 64 bytes"));
            }
            if self.fields[..at].iter().any(|other| other.name == field.name) {
                return Err(Error::setting(key("name"), format!("`{}` stands twice", field.name)));
            }
            for (what, bound) in [("min", field.min), ("max", field.max)] {
                if bound.is_some_and(|bound| !bound.is_finite()) {
                    return Err(Error::setting(key(what), "a bound is a finite number"));
                }
            }
            if let (Some(min), Some(max)) = (field.min, field.max)
                && min >= max
            {
                return Err(Error::setting(key("min"), format!("{min} is not below max = {max}")));
            }
        }
        Ok(())
    }

    /// Checks everything at once, for `forebay check`.
    ///
    /// # Errors
    /// The first setting that is wrong, with its key.
    pub fn check(&self) -> Result<(), Error> {
        super::Decoder::new(self)?;
        super::Intake::new(self)?;
        super::Window::new(self)?;
        super::Features::new(self)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn a_stream_is_written_in_a_few_lines() {
        let config = config(
            r#"
            fields = [{ name = "temp", path = "data.temp", unit = "degF", min = -40, max = 250 }]
            features = ["raw"]
            [decoder]
            format = "json"
            time = "ts"
            time_format = "%Y-%m-%d %H:%M:%S"
            id = "/seq"
            [intake]
            duplicate_key = "id"
            interval_ms = 300000
            [window]
            size = 144
            step = 1
            "#,
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.fields[0].max, Some(250.0));
        assert_eq!(config.decoder.max_samples, 1000);
    }

    #[test]
    fn defaults_are_one_value_in_json_by_itself() {
        let config = config("").unwrap();
        assert_eq!(config, Config::default());
        config.check().unwrap();
        assert_eq!(config.fields()[0].name, "value");
    }

    #[test]
    fn unknown_and_contradicting_settings_name_their_key() {
        assert!(config("[decoder]\nfromat = 'json'").unwrap_err().to_string().contains("fromat"));
        let wrong = [
            ("fields = [{name='a', min=2, max=1}]", "fields[0].min"),
            ("fields = [{name='a'}, {name='a'}]", "fields[1].name"),
            ("fields = [{name='a', max=inf}]", "fields[0].max"),
            ("[window]\nsize = 3\nsize_ms = 5", "window.size"),
            ("[window]\nsize = 3\nstep = 4", "window.step"),
            ("[window]\nsize = 0", "window.size"),
            ("[decoder]\nmax_samples = 0", "decoder.max_samples"),
            ("[decoder]\ndelimiter = ';'", "decoder.delimiter"),
            ("[decoder]\ntime_format = '%H'\ntime='t'", "decoder.time_format"),
            ("[intake]\nduplicate_key = 'id'", "intake.duplicate_key"),
            ("[intake]\ninterval_ms = 0", "intake.interval_ms"),
            ("[intake]\ntolerance = -1", "intake.tolerance"),
            ("features = ['bands']", "spectrum.sampling_hz"),
            ("features = ['bands']\n[spectrum]\nsampling_hz=10\nbands_hz=[[1,6]]", "spectrum.bands_hz"),
            ("features = ['raw']\n[window]\nsize_ms = 1000", "features"),
        ];
        for (text, key) in wrong {
            let Error::Setting { key: found, .. } = config(text).unwrap().check().unwrap_err() else {
                panic!("{text}: another error");
            };
            assert_eq!(found, key, "{text}");
        }
    }
}
