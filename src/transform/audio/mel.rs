//! Log-mel spectrograms as `librosa.feature.melspectrogram` computes them, and as Whisper's front end takes the logarithm.
//!
//! Frames of `fft` samples every `hop`, a periodic Hann window of `window` samples in their middle, |X|^power with X the
//! discrete Fourier transform, and triangles on the mel scale: Slaney's (linear up to 1000 Hz: 3f/200, above it
//! 15 + 27 ln(f/1000) / ln 6.4) or HTK's (2595 log10(1 + f/700)), each divided by its area for `norm = "slaney"`
//! (librosa 0.11, `filters.mel`). Numbers are 64 bits inside.

use std::fmt;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};
use serde::Deserialize;

const FFT_MAX: usize = 1 << 16;
const BANDS_MAX: usize = 1024;
/// A megabyte of weights.
const WEIGHTS_MAX: usize = 1 << 23;

/// `mel = { ... }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MelConfig {
    bands: usize,
    fft: usize,
    hop: usize,
    /// Samples of the window; `fft` if left out.
    window: Option<usize>,
    #[serde(default)]
    low_hz: f64,
    /// Half of the rate if left out.
    high_hz: Option<f64>,
    #[serde(default)]
    scale: Scale,
    #[serde(default)]
    norm: Norm,
    /// Frames are centred on their samples, with this beyond both ends; `none`: the first begins at the first sample.
    #[serde(default)]
    pad: Pad,
    #[serde(default = "two")]
    power: f64,
    #[serde(default)]
    log: Log,
    /// Numbers below it are taken as it before the logarithm.
    #[serde(default = "tiny")]
    floor: f64,
    #[serde(default)]
    order: Order,
}

fn two() -> f64 {
    2.0
}

fn tiny() -> f64 {
    1e-10
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scale {
    #[default]
    Slaney,
    Htk,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Norm {
    #[default]
    Slaney,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Pad {
    /// librosa's default.
    #[default]
    Constant,
    /// Whisper's and PyTorch's.
    Reflect,
    None,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Log {
    /// No logarithm.
    None,
    /// ln x
    Ln,
    /// log10 x
    Log10,
    /// 10 log10 x, as `librosa.power_to_db` with `ref=1` and without `top_db`.
    #[default]
    Db,
    /// (max(log10 x, max(log10 x) - 8) + 4) / 4, and the last frame is left out: `log_mel_spectrogram` of Whisper.
    Whisper,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Order {
    #[default]
    BandsFrames,
    FramesBands,
}

/// A spectrogram's plan.
pub(super) struct Mel {
    config: MelConfig,
    window: Vec<f64>,
    fft: Arc<dyn Fft<f64>>,
    /// Of each band: the first bin and the weights from there.
    bands: Vec<(usize, Vec<f64>)>,
}

impl fmt::Debug for Mel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mel").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Mel {
    /// The error says what was expected and what was given.
    pub(super) fn build(config: &MelConfig, rate: u32) -> Result<Self, (String, String)> {
        let MelConfig { bands, fft, hop, low_hz, power, floor, .. } = *config;
        let nyquist = f64::from(rate) / 2.0;
        let high_hz = config.high_hz.unwrap_or(nyquist);
        let window = config.window.unwrap_or(fft);
        let wrong = |expected: String, given: String| Err((expected, given));
        if !(2..=FFT_MAX).contains(&fft) || hop == 0 || hop > fft * 16 || window == 0 || window > fft {
            let expected = format!("fft of 2 to {FFT_MAX}, hop of at least 1, window of at most fft");
            return wrong(expected, format!("{fft}, {hop} and {window}"));
        }
        if bands == 0 || bands > BANDS_MAX || bands * (fft / 2 + 1) > WEIGHTS_MAX {
            return wrong(format!("1 to {BANDS_MAX} bands"), bands.to_string());
        }
        if !(0.0 <= low_hz && low_hz < high_hz && high_hz <= nyquist) {
            return wrong(format!("low_hz below high_hz, both of 0 to {nyquist}"), format!("{low_hz} and {high_hz}"));
        }
        if !(power.is_finite() && power > 0.0 && floor.is_finite() && floor > 0.0) {
            return wrong("power and floor above 0".to_owned(), format!("{power} and {floor}"));
        }
        let hann = |at: usize| 0.5 - 0.5 * (std::f64::consts::TAU * at as f64 / window as f64).cos();
        let before = (fft - window) / 2;
        let mut whole = vec![0.0; fft];
        whole.iter_mut().skip(before).take(window).enumerate().for_each(|(at, w)| *w = hann(at));
        Ok(Self {
            bands: triangles(config, f64::from(rate), high_hz),
            window: whole,
            fft: FftPlanner::new().plan_fft_forward(fft),
            config: config.clone(),
        })
    }

    pub(super) fn bands(&self) -> usize {
        self.config.bands
    }

    pub(super) fn is_frames_first(&self) -> bool {
        self.config.order == Order::FramesBands
    }

    /// Frames of so many samples.
    pub(super) fn frames(&self, samples: usize) -> usize {
        let MelConfig { fft, hop, pad, log, .. } = self.config;
        let padded = if pad == Pad::None { samples } else { samples + fft / 2 * 2 };
        let frames = if padded < fft { 0 } else { (padded - fft) / hop + 1 };
        if log == Log::Whisper { frames.saturating_sub(1) } else { frames }
    }

    /// Numbers, rows and columns. The error says what would be right.
    pub(super) fn of(&self, samples: &[f32]) -> Result<(Vec<f32>, usize, usize), String> {
        let MelConfig { fft, hop, power, pad, log, floor, bands, .. } = self.config;
        let half = fft / 2;
        let least = match pad {
            Pad::Reflect => half + 1,
            Pad::Constant => 1,
            Pad::None => fft,
        };
        let frames = self.frames(samples.len());
        if samples.len() < least || frames == 0 {
            return Err(format!("at least {} samples", least.max(hop)));
        }
        let offset = if pad == Pad::None { 0 } else { half };
        let count = samples.len() as i64;
        let sample = |place: i64| -> f64 {
            let held = match place {
                at if (0..count).contains(&at) => at,
                _ if pad == Pad::Constant => return 0.0,
                at if at < 0 => -at,
                at => 2 * (count - 1) - at,
            };
            f64::from(samples[held as usize])
        };
        let mut buffer = vec![Complex::new(0.0, 0.0); fft];
        let mut scratch = vec![Complex::default(); self.fft.get_inplace_scratch_len()];
        let mut bins = vec![0.0; half + 1];
        let mut numbers = vec![0.0_f64; frames * bands];
        for frame in 0..frames {
            let start = (frame * hop) as i64 - offset as i64;
            for (at, (slot, window)) in buffer.iter_mut().zip(&self.window).enumerate() {
                *slot = Complex::new(sample(start + at as i64) * window, 0.0);
            }
            self.fft.process_with_scratch(&mut buffer, &mut scratch);
            for (bin, x) in bins.iter_mut().zip(&buffer) {
                *bin = if power == 2.0 { x.norm_sqr() } else { x.norm().powf(power) };
            }
            for (band, (first, weights)) in self.bands.iter().enumerate() {
                let energy: f64 = bins[*first..].iter().zip(weights).map(|(bin, weight)| bin * weight).sum();
                let held = energy.max(floor);
                numbers[frame * bands + band] = match log {
                    Log::None => energy,
                    Log::Ln => held.ln(),
                    Log::Log10 | Log::Whisper => held.log10(),
                    Log::Db => 10.0 * held.log10(),
                };
            }
        }
        if log == Log::Whisper {
            let most = numbers.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            numbers.iter_mut().for_each(|x| *x = (x.max(most - 8.0) + 4.0) / 4.0);
        }
        if self.is_frames_first() {
            return Ok((numbers.into_iter().map(|x| x as f32).collect(), frames, bands));
        }
        let turned = (0..bands).flat_map(|band| (0..frames).map(move |frame| frame * bands + band));
        Ok((turned.map(|at| numbers[at] as f32).collect(), bands, frames))
    }
}

fn triangles(config: &MelConfig, rate: f64, high_hz: f64) -> Vec<(usize, Vec<f64>)> {
    let MelConfig { bands, fft, low_hz, scale, norm, .. } = *config;
    let (low, high) = (to_mel(low_hz, scale), to_mel(high_hz, scale));
    let step = (high - low) / (bands + 1) as f64;
    let edges: Vec<f64> = (0..bands + 2).map(|at| to_hz(low + step * at as f64, scale)).collect();
    let band = |at: usize| {
        let (left, centre, right) = (edges[at], edges[at + 1], edges[at + 2]);
        let area = if norm == Norm::Slaney { 2.0 / (right - left) } else { 1.0 };
        let weight = |bin: usize| {
            let hz = bin as f64 * rate / fft as f64;
            ((hz - left) / (centre - left)).min((right - hz) / (right - centre)).max(0.0) * area
        };
        let weights: Vec<f64> = (0..=fft / 2).map(weight).collect();
        let first = weights.iter().position(|&weight| weight > 0.0).unwrap_or(0);
        let last = weights.iter().rposition(|&weight| weight > 0.0).map_or(first, |last| last + 1);
        (first, weights[first..last].to_vec())
    };
    (0..bands).map(band).collect()
}

/// Slaney's scale bends at 1000 Hz, which is 15 mel.
const BEND_HZ: f64 = 1000.0;
const BEND_MEL: f64 = 15.0;

fn to_mel(hz: f64, scale: Scale) -> f64 {
    match scale {
        Scale::Htk => 2595.0 * (1.0 + hz / 700.0).log10(),
        Scale::Slaney if hz < BEND_HZ => hz * 3.0 / 200.0,
        Scale::Slaney => BEND_MEL + (hz / BEND_HZ).ln() * 27.0 / 6.4_f64.ln(),
    }
}

fn to_hz(mel: f64, scale: Scale) -> f64 {
    match scale {
        Scale::Htk => 700.0 * (10.0_f64.powf(mel / 2595.0) - 1.0),
        Scale::Slaney if mel < BEND_MEL => mel * 200.0 / 3.0,
        Scale::Slaney => BEND_HZ * ((mel - BEND_MEL) * 6.4_f64.ln() / 27.0).exp(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // librosa 0.11.0, x[i] = ((i*i*7 + i*13) % 101 - 50) / 50 for 2,000 samples in 32 bits:
    // db: power_to_db(feature.melspectrogram(y=x, sr=8000, n_fft=512, hop_length=128, n_mels=20), ref=1, top_db=None)
    // htk: np.log(np.maximum(feature.melspectrogram(y=x, sr=8000, n_fft=400, win_length=320, hop_length=160, n_mels=16,
    //      htk=True, norm=None, power=1, fmin=50, fmax=3800, center=False), 1e-5))
    // whisper: x with 1,000 zeros behind it; filters.mel(sr=16000, n_fft=400, n_mels=80) @ abs(stft(x, n_fft=400,
    //      hop_length=160, pad_mode="reflect")[:, :-1])**2, then the logarithm of Whisper's audio.py.
    // First and last of the first row, the middle, first and last of the last row; the sum of all.
    /// Settings, rate, samples, shape, the five numbers and the sum.
    type Case = (&'static str, u32, usize, [usize; 2], [f64; 5], f64);

    const LIBROSA: [Case; 3] = [
        (
            "bands = 20\nfft = 512\nhop = 128",
            8000,
            2000,
            [20, 16],
            [1.719_811, 3.326_35, 6.079_672, 3.800_426, 5.912_728],
            1341.258,
        ),
        (
            "bands = 16\nfft = 400\nwindow = 320\nhop = 160\nscale = \"htk\"\nnorm = \"none\"\npower = 1.0\nlow_hz = 50.0\n\
             high_hz = 3800.0\npad = \"none\"\nlog = \"ln\"\nfloor = 1e-5",
            8000,
            2000,
            [16, 11],
            [2.959_65, 2.947_424, 4.076_424, 5.026_625, 5.027_47],
            661.6875,
        ),
        (
            "bands = 80\nfft = 400\nhop = 160\npad = \"reflect\"\nlog = \"whisper\"",
            16000,
            3000,
            [80, 18],
            [1.049_661, -0.801_192, 1.032_937, 0.960_781, -0.801_192],
            761.3909,
        ),
    ];

    fn signal(samples: usize) -> Vec<f32> {
        let sample = |i: u32| ((i * i * 7 + i * 13) % 101) as f32 / 50.0 - 1.0;
        let mut signal: Vec<f32> = (0..2000).map(sample).collect();
        signal.resize(samples, 0.0);
        signal
    }

    fn build(config: &str, rate: u32) -> Result<Mel, (String, String)> {
        Mel::build(&toml::from_str(config).unwrap(), rate)
    }

    #[test]
    fn spectrograms_equal_those_of_librosa_and_whisper() {
        for (config, rate, samples, [rows, columns], expected, sum) in LIBROSA {
            let mel = build(config, rate).unwrap();
            let (numbers, given_rows, given_columns) = mel.of(&signal(samples)).unwrap();
            assert_eq!([given_rows, given_columns], [rows, columns], "{config}");
            let at = |row: usize, column: usize| f64::from(numbers[row * columns + column]);
            let last = (rows - 1, columns - 1);
            let given = [at(0, 0), at(0, last.1), at(rows / 2, columns / 2), at(last.0, 0), at(last.0, last.1)];
            for (given, expected) in given.iter().zip(expected) {
                // librosa computes in 32 bits.
                assert!((given - expected).abs() < 2e-4, "{config}: {given} for {expected}");
            }
            let given: f64 = numbers.iter().map(|&x| f64::from(x)).sum();
            assert!((given - sum).abs() < 2e-5 * sum, "{config}: {given} for {sum}");
            let turned = build(&format!("{config}\norder = \"frames-bands\""), rate).unwrap();
            let (turned, frames, bands) = turned.of(&signal(samples)).unwrap();
            assert_eq!((frames, bands, turned[bands]), (columns, rows, numbers[1]));
        }
    }

    #[test]
    fn sounds_too_short_and_plans_that_cannot_be_are_refused() {
        let mel = build("bands = 80\nfft = 400\nhop = 160\npad = \"reflect\"\nlog = \"whisper\"", 16000).unwrap();
        assert_eq!(mel.of(&[0.0; 200]).unwrap_err(), "at least 201 samples");
        assert!(mel.of(&[0.0; 201]).is_ok());
        assert!(build("bands = 4\nfft = 64\nhop = 32\npad = \"none\"", 8000).unwrap().of(&[0.0; 63]).is_err());
        assert!(build("bands = 4\nfft = 64\nhop = 32", 8000).unwrap().of(&[]).is_err());
        for config in [
            "bands = 0\nfft = 64\nhop = 1",
            "bands = 4\nfft = 1\nhop = 1",
            "bands = 4\nfft = 64\nhop = 0",
            "bands = 4\nfft = 64\nhop = 1\nwindow = 65",
            "bands = 4\nfft = 64\nhop = 1\nlow_hz = 5000.0",
            "bands = 4\nfft = 64\nhop = 1\nfloor = 0.0",
            "bands = 1000\nfft = 65536\nhop = 1",
        ] {
            assert!(build(config, 8000).is_err(), "{config}");
        }
    }
}
