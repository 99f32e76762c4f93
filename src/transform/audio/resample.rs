//! Another sampling rate, as `scipy.signal.resample_poly(x, up, down)` with its defaults: a low-pass of
//! 20 max(up, down) + 1 taps, windowed by Kaiser with beta 5.0, silence beyond both ends.

use std::f64::consts::PI;

/// Larger ratios would need filters of more memory than any sound is worth: 44,100 to 16,000 is 160 to 441.
const RATIO_MAX: u32 = 4096;

#[derive(Debug)]
pub(super) struct Resampler {
    up: usize,
    down: usize,
    taps: Vec<f64>,
}

impl Resampler {
    /// The error is the ratio that cannot be.
    pub(super) fn new(from: u32, to: u32) -> Result<Self, String> {
        let common = divisor(from, to);
        let (up, down) = (to / common, from / common);
        if up.max(down) > RATIO_MAX {
            return Err(format!("{from}, which is {down} to {up}"));
        }
        let (up, down) = (up as usize, down as usize);
        let most = up.max(down);
        let half = 10 * most;
        let cutoff = 1.0 / most as f64;
        // firwin: a windowed sinc, scaled to a gain of one at 0 Hz, here times `up` for the zeros between samples.
        let tap = |at: usize| {
            let place = at as f64 - half as f64;
            let sinc = if at == half { 1.0 } else { (PI * cutoff * place).sin() / (PI * cutoff * place) };
            cutoff * sinc * kaiser(place / half as f64)
        };
        let mut taps: Vec<f64> = (0..=2 * half).map(tap).collect();
        let gain: f64 = taps.iter().sum();
        taps.iter_mut().for_each(|tap| *tap *= up as f64 / gain);
        Ok(Self { up, down, taps })
    }

    pub(super) fn resample(&self, samples: &[f32]) -> Vec<f32> {
        let Self { up, down, ref taps } = *self;
        let half = taps.len() / 2;
        let count = (samples.len() * up).div_ceil(down);
        let one = |at: usize| {
            // In the raised rate this output lies at `at * down`; inputs lie at multiples of `up`.
            let centre = at * down + half;
            let last = (centre / up).min(samples.len() - 1);
            let first = centre.saturating_sub(taps.len() - 1).div_ceil(up);
            let sum: f64 = (first..=last).map(|place| f64::from(samples[place]) * taps[centre - place * up]).sum();
            sum as f32
        };
        (0..count).map(one).collect()
    }
}

/// The window at -1 to 1 with beta 5: I0(beta sqrt(1 - x^2)) / I0(beta).
fn kaiser(x: f64) -> f64 {
    const BETA: f64 = 5.0;
    bessel(BETA * (1.0 - x * x).max(0.0).sqrt()) / bessel(BETA)
}

/// The modified Bessel function of order 0 by its series: sum of ((x/2)^k / k!)^2.
fn bessel(x: f64) -> f64 {
    let (mut term, mut sum, mut k) = (1.0, 1.0, 1.0);
    while term > sum * 1e-17 {
        term *= (x / 2.0 / k) * (x / 2.0 / k);
        sum += term;
        k += 1.0;
    }
    sum
}

fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}
