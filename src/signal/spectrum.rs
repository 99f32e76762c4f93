//! Mean square per frequency band.

use std::fmt;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::config::SpectrumConfig;
use super::error::Error;

/// Most bands.
const MAX_BANDS: usize = 256;
/// Window lengths whose plan is kept; windows in time vary.
const MAX_PLANS: usize = 4;

/// The mean is removed, a periodic Hann window w is applied, and with X the discrete Fourier transform of length N
/// the bin k at k * sampling / N has c |X_k|^2 / (N sum(w^2)), c = 1 at 0 Hz and at half the sampling rate, else 2.
/// A band is the sum of its bins, in squared units of the field; all bands from 0 to half the sampling rate together
/// are close to the variance. `scipy.signal.periodogram(x, fs, window="hann", detrend="constant")` times fs / N.
#[derive(Clone)]
pub(super) struct Spectrum {
    sampling_hz: f64,
    bands_hz: Vec<[f64; 2]>,
    plans: Vec<Plan>,
    buffer: Vec<Complex<f64>>,
    scratch: Vec<Complex<f64>>,
}

#[derive(Clone)]
struct Plan {
    fft: Arc<dyn Fft<f64>>,
    window: Vec<f64>,
    /// 1 / (N sum(w^2))
    scale: f64,
}

impl fmt::Debug for Spectrum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spectrum").field("sampling_hz", &self.sampling_hz).field("bands_hz", &self.bands_hz).finish()
    }
}

impl Plan {
    fn new(length: usize) -> Self {
        let n = length as f64;
        let hann = |at: usize| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / n).cos();
        let window: Vec<f64> = (0..length).map(hann).collect();
        let power: f64 = window.iter().map(|w| w * w).sum();
        // A single value has no window and no spectrum.
        let scale = if power > 0.0 { 1.0 / (n * power) } else { 0.0 };
        Self { fft: FftPlanner::new().plan_fft_forward(length), window, scale }
    }
}

impl Spectrum {
    pub(super) fn new(settings: &SpectrumConfig) -> Result<Self, Error> {
        let SpectrumConfig { sampling_hz, ref bands_hz } = *settings;
        if !(sampling_hz.is_finite() && sampling_hz > 0.0) {
            return Err(Error::setting(
                "spectrum.sampling_hz",
                "the feature \"bands\" needs readings per second, above 0",
            ));
        }
        let wrong = |problem: String| Err(Error::setting("spectrum.bands_hz", problem));
        if !(1..=MAX_BANDS).contains(&bands_hz.len()) {
            return wrong(format!("expected 1 to {MAX_BANDS} bands"));
        }
        for &[low, high] in bands_hz {
            if !(0.0 <= low && low < high && high <= sampling_hz / 2.0) {
                return wrong(format!("[{low}, {high}] does not lie between 0 and half of sampling_hz"));
            }
        }
        Ok(Self { sampling_hz, bands_hz: bands_hz.clone(), plans: Vec::new(), buffer: Vec::new(), scratch: Vec::new() })
    }

    /// Appends one number a band. No allocation once the length was seen.
    pub(super) fn bands(&mut self, values: &[f64], mean: f64, out: &mut Vec<f32>) {
        let length = values.len();
        let at = self.plans.iter().position(|plan| plan.window.len() == length).unwrap_or_else(|| {
            if self.plans.len() == MAX_PLANS {
                self.plans.remove(0);
            }
            self.plans.push(Plan::new(length));
            self.plans.len() - 1
        });
        let plan = &self.plans[at];
        self.buffer.clear();
        let windowed = values.iter().zip(&plan.window).map(|(value, w)| Complex::new((value - mean) * w, 0.0));
        self.buffer.extend(windowed);
        self.scratch.resize(self.scratch.len().max(plan.fft.get_inplace_scratch_len()), Complex::default());
        plan.fft.process_with_scratch(&mut self.buffer, &mut self.scratch);
        let half = length / 2;
        let nyquist = self.sampling_hz / 2.0;
        for &[low, high] in &self.bands_hz {
            let bins = self.buffer[..=half].iter().enumerate().map(|(bin, x)| {
                let hz = bin as f64 * self.sampling_hz / length as f64;
                let inside = hz >= low && (hz < high || (high >= nyquist && hz <= high));
                let sides = if bin == 0 || 2 * bin == length { 1.0 } else { 2.0 };
                if inside { sides * x.norm_sqr() * plan.scale } else { 0.0 }
            });
            let energy: f64 = bins.sum();
            // A NaN outside of the band spoils the window all the same.
            out.push(if mean.is_nan() { f32::NAN } else { energy as f32 });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bands(values: &[f64], sampling_hz: f64, bands_hz: &[[f64; 2]]) -> Vec<f32> {
        let mut spectrum = Spectrum::new(&SpectrumConfig { sampling_hz, bands_hz: bands_hz.to_vec() }).unwrap();
        let mut out = Vec::new();
        spectrum.bands(values, values.iter().sum::<f64>() / values.len() as f64, &mut out);
        out
    }

    #[test]
    fn a_sine_lies_in_its_band_with_half_its_squared_amplitude() {
        let sine: Vec<f64> =
            (0..1000).map(|at| 3.0 * (std::f64::consts::TAU * 50.0 * f64::from(at) / 1000.0).sin()).collect();
        let found = bands(&sine, 1000.0, &[[0.0, 40.0], [40.0, 60.0], [60.0, 500.0]]);
        assert!((found[1] - 4.5).abs() < 1e-4, "{found:?}");
        assert!(found[0] < 1e-6 && found[2] < 1e-6);
    }

    #[test]
    fn bands_equal_those_of_scipy_for_even_and_odd_lengths() {
        // scipy 1.17.1, x[i] = ((i*i*7 + i*13) % 101) / 10:
        // f, p = scipy.signal.periodogram(x[:n], 100, window="hann", detrend="constant"); p *= 100 / n
        // p[(f>=0)&(f<10)].sum(), p[(f>=10)&(f<25)].sum(), p[(f>=25)&(f<=50)].sum()
        let values: Vec<f64> = (0..64).map(|at: u32| f64::from((at * at * 7 + at * 13) % 101) / 10.0).collect();
        let edges = [[0.0, 10.0], [10.0, 25.0], [25.0, 50.0]];
        for (length, expected) in SCIPY {
            let found = bands(&values[..length], 100.0, &edges);
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-5 * expected, "{length}: {found} for {expected}");
            }
        }
    }

    const SCIPY: [(usize, [f64; 3]); 2] = [
        (64, [1.1022819416441836, 1.6667566132898985, 5.63474655971661]),
        (45, [0.8896847966878842, 0.6218205236519402, 5.705830045094534]),
    ];

    #[test]
    fn short_constant_and_broken_windows_do_not_panic() {
        let whole = [[0.0, 50.0]];
        assert_eq!(bands(&[5.0], 100.0, &whole), [0.0]);
        assert_eq!(bands(&[5.0; 10], 100.0, &whole), [0.0]);
        assert!(bands(&[5.0, f64::NAN, 1.0], 100.0, &whole)[0].is_nan());
        assert!(!bands(&[f64::MAX, f64::MIN, 1.0], 100.0, &whole)[0].is_finite());
    }

    #[test]
    fn plans_of_varying_lengths_are_bounded() {
        let mut spectrum = Spectrum::new(&SpectrumConfig { sampling_hz: 2.0, bands_hz: vec![[0.0, 1.0]] }).unwrap();
        let mut out = Vec::new();
        for length in 1..50 {
            spectrum.bands(&vec![1.0; length], 1.0, &mut out);
        }
        assert_eq!(spectrum.plans.len(), MAX_PLANS);
    }

    #[test]
    fn bands_beyond_the_sampling_rate_are_refused() {
        for band in [[0.0, 51.0], [5.0, 5.0], [-1.0, 5.0], [f64::NAN, 5.0], [1.0, f64::NAN]] {
            assert!(Spectrum::new(&SpectrumConfig { sampling_hz: 100.0, bands_hz: vec![band] }).is_err(), "{band:?}");
        }
        for sampling_hz in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Spectrum::new(&SpectrumConfig { sampling_hz, bands_hz: vec![[0.0, 1.0]] }).is_err());
        }
    }
}
