//! Numbers computed of a window, per field. NaN in a window makes each of its numbers NaN.

use super::config::{Config, Feature, FieldConfig};
use super::error::Error;
use super::spectrum::Spectrum;
use super::window::View;

/// Most numbers of one window.
const MAX_FEATURES: usize = 65_536;

/// Computes a stream's features: for each field in order, each feature in order.
#[derive(Debug, Clone)]
pub struct Features {
    fields: usize,
    features: Vec<Feature>,
    spectrum: Option<Spectrum>,
    only_copies: bool,
    names: Vec<String>,
}

impl Features {
    /// Checks the settings and prepares names and bands.
    ///
    /// # Errors
    /// [`Error::Setting`]: `raw` of a window in time, bands without a sampling rate or beyond half of it, too many.
    pub fn new(config: &Config) -> Result<Self, Error> {
        let features = if config.features.is_empty() { vec![Feature::Raw] } else { config.features.clone() };
        if let Some((at, _)) = features.iter().enumerate().find(|(at, feature)| features[..*at].contains(feature)) {
            return Err(Error::setting("features", format!("entry {at} stands twice")));
        }
        let raw = features.contains(&Feature::Raw);
        if raw && config.window.size_ms.is_some() && !config.features.is_empty() {
            return Err(Error::setting(
                "features",
                "\"raw\" needs a window by count: in time the number of values varies",
            ));
        }
        if raw && config.window.size_ms.is_some() {
            return Err(Error::setting(
                "features",
                "name the features of a window in time; the default \"raw\" needs one by count",
            ));
        }
        let spectrum = if features.contains(&Feature::Bands) { Some(Spectrum::new(&config.spectrum)?) } else { None };
        let size = config.window.size.unwrap_or(1);
        let fields = config.fields();
        let bands = config.spectrum.bands_hz.len();
        let width = |feature: &Feature| match feature {
            Feature::Raw => size,
            Feature::Bands => bands,
            _ => 1,
        };
        let count = features.iter().map(width).fold(0, usize::saturating_add).saturating_mul(fields.len());
        if count > MAX_FEATURES {
            return Err(Error::setting("features", format!("{count} numbers a window, at most {MAX_FEATURES}")));
        }
        let names = fields
            .iter()
            .flat_map(|field| features.iter().map(move |&feature| (field, feature)))
            .flat_map(|(field, feature)| names(field, feature, size, config))
            .collect();
        let only_copies = features.iter().all(|feature| matches!(feature, Feature::Raw | Feature::Last));
        Ok(Self { fields: fields.len(), features, spectrum, only_copies, names })
    }

    /// One name a number: `temp.mean`, `temp.raw[0]` (oldest first), `temp.band[10-50Hz]`.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Appends the window's numbers to `out`, as many as there are names. Magnitudes beyond f32 become infinite.
    pub fn compute(&mut self, view: &View<'_>, out: &mut Vec<f32>) {
        debug_assert!(!view.is_empty() && view.fields() == self.fields);
        for field in 0..self.fields {
            let values = view.values(field);
            // A raw window, the common one, is copied without being looked at.
            let moments = if self.only_copies { Moments::NAN } else { Moments::of(values) };
            for &feature in &self.features {
                let number = match feature {
                    Feature::Mean => moments.mean,
                    Feature::Std => moments.variance.sqrt(),
                    Feature::Min => moments.min,
                    Feature::Max => moments.max,
                    Feature::Rms => moments.rms(),
                    Feature::CrestFactor => moments.crest_factor(),
                    Feature::Kurtosis => kurtosis(values, &moments),
                    Feature::SlopePerSample => slope(values, &moments, |at| at as f64),
                    Feature::SlopePerS => {
                        let times = view.times_ms();
                        slope(values, &moments, |at| times[at].saturating_sub(times[0]) as f64 / 1e3)
                    }
                    Feature::Last => values.last().copied().unwrap_or(f64::NAN),
                    Feature::Raw => {
                        out.extend(values.iter().map(|&value| value as f32));
                        continue;
                    }
                    Feature::Bands => {
                        if let Some(spectrum) = &mut self.spectrum {
                            spectrum.bands(values, moments.mean, out);
                        }
                        continue;
                    }
                };
                out.push(number as f32);
            }
        }
    }
}

fn names(field: &FieldConfig, feature: Feature, size: usize, config: &Config) -> Vec<String> {
    let name = |what: &str| vec![format!("{}.{what}", field.name)];
    match feature {
        Feature::Mean => name("mean"),
        Feature::Std => name("std"),
        Feature::Min => name("min"),
        Feature::Max => name("max"),
        Feature::Rms => name("rms"),
        Feature::CrestFactor => name("crest_factor"),
        Feature::Kurtosis => name("kurtosis"),
        Feature::SlopePerSample => name("slope_per_sample"),
        Feature::SlopePerS => name("slope_per_s"),
        Feature::Last => name("last"),
        Feature::Raw => (0..size).map(|at| format!("{}.raw[{at}]", field.name)).collect(),
        Feature::Bands => {
            let band = |&[low, high]: &[f64; 2]| format!("{}.band[{low}-{high}Hz]", field.name);
            config.spectrum.bands_hz.iter().map(band).collect()
        }
    }
}

/// What most features share.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moments {
    /// sum(x) / n
    pub(super) mean: f64,
    /// sum((x - mean)^2) / n
    pub(super) variance: f64,
    pub(super) min: f64,
    pub(super) max: f64,
}

impl Moments {
    const NAN: Self = Self { mean: f64::NAN, variance: f64::NAN, min: f64::NAN, max: f64::NAN };

    /// Two passes, so a small spread around a large mean is not lost. All NaN if one value is, or for no values.
    pub(super) fn of(values: &[f64]) -> Self {
        let n = values.len() as f64;
        let (mut sum, mut min, mut max) = (0.0, f64::INFINITY, f64::NEG_INFINITY);
        for &value in values {
            sum += value;
            min = min.min(value);
            max = max.max(value);
        }
        if values.is_empty() || sum.is_nan() {
            return Self::NAN;
        }
        // Rounding may put the mean of equal values beside them.
        let mean = (sum / n).clamp(min, max);
        let variance = values.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / n;
        Self { mean, variance, min, max }
    }

    /// sqrt(sum(x^2) / n), from mean^2 + variance.
    fn rms(&self) -> f64 {
        self.mean.hypot(self.variance.sqrt())
    }

    /// max |x| / RMS; 1 where all values are 0, as for every other constant.
    fn crest_factor(&self) -> f64 {
        let (rms, peak) = (self.rms(), self.max.abs().max(self.min.abs()));
        if rms == 0.0 { 1.0 } else { peak / rms }
    }
}

/// (sum((x - mean)^4) / n) / variance^2 - 3; 0 for a constant window.
fn kurtosis(values: &[f64], moments: &Moments) -> f64 {
    if moments.min == moments.max {
        return 0.0;
    }
    let fourth = values.iter().map(|value| (value - moments.mean).powi(4)).sum::<f64>() / values.len() as f64;
    fourth / (moments.variance * moments.variance) - 3.0
}

/// sum((t - mean t)(x - mean x)) / sum((t - mean t)^2); 0 where all t are equal.
fn slope(values: &[f64], moments: &Moments, time: impl Fn(usize) -> f64) -> f64 {
    let n = values.len() as f64;
    let mean_time = (0..values.len()).map(&time).sum::<f64>() / n;
    let (mut above, mut below) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let offset = time(at) - mean_time;
        above += offset * (value - moments.mean);
        below += offset * offset;
    }
    if below == 0.0 && !moments.mean.is_nan() { 0.0 } else { above / below }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signal::Window;
    use crate::signal::sample::{Notes, Reading, Values};
    use proptest::prelude::*;

    /// Features of one field, at 1,000 ms a value unless `times` says else.
    fn compute(features: &str, values: &[f64], times_ms: &[i64]) -> Vec<f32> {
        let text = format!("features={features}\n[window]\nsize={}", values.len());
        let config: Config = toml::from_str(&text).unwrap();
        let mut window = Window::new(&config).unwrap();
        let mut features = Features::new(&config).unwrap();
        let mut out = Vec::new();
        for (at, &value) in values.iter().enumerate() {
            let time_ms = times_ms.get(at).copied().unwrap_or(1_700_000_000_000 + 1000 * at as i64);
            let values = Values::from_slice(&[value]);
            let reading = Reading { time_ms, arrival_ms: 0, values, notes: Notes::NONE, gap: None };
            for view in window.push(&reading) {
                features.compute(&view, &mut out);
            }
        }
        assert_eq!(out.len(), features.names().len());
        out
    }

    const ALL: &str =
        "['mean','std','min','max','rms','crest_factor','kurtosis','slope_per_sample','slope_per_s','last','raw']";

    /// The eight first temperatures of NAB's machine_temperature_system_failure.csv.
    const MACHINE: [f64; 8] =
        [73.96732207, 74.93588199999998, 76.12416182, 78.14070732, 79.32983574, 78.71041827, 80.26978421, 80.27282792];

    fn close(found: &[f32], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (at, (&found, &expected)) in found.iter().zip(expected).enumerate() {
            let error = (f64::from(found) - expected).abs();
            assert!(error <= 1e-6 * expected.abs().max(1e-3), "{at}: {found} for {expected}");
        }
    }

    #[test]
    fn features_equal_those_of_numpy_and_scipy() {
        // numpy 2.4.6, scipy 1.17.1: x.mean(), x.std(), x.min(), x.max(), sqrt((x**2).mean()),
        // abs(x).max()/rms, scipy.stats.kurtosis(x), np.polyfit(arange(8), x, 1)[0],
        // np.polyfit(t, x, 1)[0] with t = [0, 1, 2, 3, 5, 8, 9, 9.5] seconds, x[-1].
        let times: Vec<i64> = [0, 1000, 2000, 3000, 5000, 8000, 9000, 9500].map(|ms| 1_385_000_000_000 + ms).into();
        let found = compute(&ALL.replace(",'raw'", ""), &MACHINE, &times);
        close(&found, &NUMPY);
    }

    const NUMPY: [f64; 10] = [
        77.71886741875,
        2.267940087783025,
        73.96732207,
        80.27282792,
        77.75195113368547,
        1.0324220389271026,
        -1.3125124491747888,
        0.9494755925000065,
        0.594109779873053,
        80.27282792,
    ];

    #[test]
    fn a_small_spread_around_a_large_mean_is_not_lost() {
        // numpy: (1e9 + np.array([0, 1, 0, -1, 0, 1, 0, -1])).std() = 0.7071067811865476, kurtosis -1.0
        let values: Vec<f64> = [0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0].iter().map(|value| 1e9 + value).collect();
        close(&compute("['std','kurtosis']", &values, &[]), &[std::f64::consts::FRAC_1_SQRT_2, -1.0]);
    }

    #[test]
    fn constant_and_zero_windows_give_numbers() {
        let found = compute(ALL, &[0.1; 4], &[5; 4]);
        close(&found[..10], &[0.1, 0.0, 0.1, 0.1, 0.1, 1.0, 0.0, 0.0, 0.0, 0.1]);
        let found = compute(ALL, &[0.0; 3], &[]);
        close(&found[..10], &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(compute(ALL, &[7.0], &[]).len(), 11, "one reading");
    }

    #[test]
    fn one_nan_makes_every_number_nan_but_the_values_themselves() {
        let found = compute(ALL, &[1.0, f64::NAN, 3.0], &[]);
        assert!(found[..9].iter().all(|number| number.is_nan()), "{found:?}");
        assert_eq!(found[9], 3.0);
        assert!(found[10] == 1.0 && found[11].is_nan() && found[12] == 3.0);
    }

    #[test]
    fn huge_and_infinite_values_do_not_panic() {
        for values in [[f64::MAX, f64::MIN, f64::MAX], [f64::INFINITY, 1.0, 2.0], [5e-324, 0.0, -5e-324]] {
            assert_eq!(compute(ALL, &values, &[i64::MIN, 0, i64::MAX]).len(), 13);
        }
    }

    #[test]
    fn numbers_stand_in_the_order_of_their_names() {
        let config: Config =
            toml::from_str("fields=[{name='a'},{name='b'}]\nfeatures=['max','raw','bands']\n[window]\nsize=2\n[spectrum]\nsampling_hz=10\nbands_hz=[[0,2.5],[2.5,5]]")
                .unwrap();
        let mut window = Window::new(&config).unwrap();
        let mut features = Features::new(&config).unwrap();
        let names = [
            "a.max",
            "a.raw[0]",
            "a.raw[1]",
            "a.band[0-2.5Hz]",
            "a.band[2.5-5Hz]",
            "b.max",
            "b.raw[0]",
            "b.raw[1]",
            "b.band[0-2.5Hz]",
            "b.band[2.5-5Hz]",
        ];
        assert_eq!(features.names(), names);
        let mut out = Vec::new();
        for values in [[1.0, 10.0], [2.0, 20.0]] {
            let values = Values::from_slice(&values);
            let reading = Reading { time_ms: 0, arrival_ms: 0, values, notes: Notes::NONE, gap: None };
            for view in window.push(&reading) {
                features.compute(&view, &mut out);
            }
        }
        assert_eq!(out.len(), names.len());
        assert_eq!(out[..3], [2.0, 1.0, 2.0]);
        assert_eq!(out[5..8], [20.0, 10.0, 20.0]);
    }

    proptest! {
        #[test]
        fn finite_windows_give_finite_ordered_numbers(values in proptest::collection::vec(-1e12..1e12_f64, 1..40)) {
            let found = compute(ALL, &values, &[]);
            prop_assert!(found.iter().all(|number| number.is_finite()), "{:?}", found);
            let [mean, std, min, max, rms, crest, kurtosis, ..] = found[..] else { unreachable!() };
            prop_assert!(min <= mean && mean <= max && std >= 0.0 && rms >= 0.0);
            prop_assert!(crest >= 0.999 && kurtosis >= -2.001, "{crest} {kurtosis}");
        }
    }
}
