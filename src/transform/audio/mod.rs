//! A WAV to a tensor: read, mixed to one channel, resampled, as samples or as a log-mel spectrogram.

mod mel;
mod resample;
mod wav;

use serde::Deserialize;

use super::error::Error;
use super::port::Port;
use super::work::Work;
use crate::base::{Datatype, Tensor};
use mel::{Mel, MelConfig};
use resample::Resampler;

const RATE_MAX: u32 = 384_000;

/// `kind = "audio"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AudioConfig {
    pub(super) name: Option<String>,
    pub(super) tensor: Option<String>,
    /// Samples a second that the model was trained with; anything else is resampled.
    rate: u32,
    /// Samples that the model takes: longer sounds are cut, shorter ones filled with silence. Left out, as they come.
    samples: Option<usize>,
    /// A spectrogram in place of samples.
    mel: Option<MelConfig>,
}

/// Makes tensors of sounds.
#[derive(Debug)]
pub(super) struct Sounds {
    rate: u32,
    samples: Option<usize>,
    mel: Option<Mel>,
    port: Port,
}

impl Sounds {
    pub(super) fn build(config: AudioConfig, port: Port) -> Result<Self, Error> {
        let wrong = |step: &str, expected: String, given: String| {
            Err(Error::step(format!("[[predict.input]] audio: {step}"), &port.name, expected, given))
        };
        let AudioConfig { rate, samples, mel, .. } = config;
        if !(1..=RATE_MAX).contains(&rate) {
            return wrong("rate", format!("1 to {RATE_MAX} samples a second"), rate.to_string());
        }
        if samples.is_some_and(|samples| samples == 0 || samples as u64 > u64::from(rate) * 3600) {
            return wrong("samples", "1 to an hour of them".to_owned(), format!("{samples:?}"));
        }
        if !matches!(port.datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64) {
            return wrong("datatype", "a tensor of floats".to_owned(), port.datatype.to_string());
        }
        let mel = match mel {
            None => None,
            Some(config) => match Mel::build(&config, rate) {
                Ok(mel) => Some(mel),
                Err((expected, given)) => return wrong("mel", expected, given),
            },
        };
        let fits = |dim: i64, given: Option<usize>| dim == -1 || given.is_some_and(|given| given as i64 == dim);
        let good = match (&mel, port.shape.as_slice()) {
            (None, [only] | [_, only] | [_, 1, only]) => fits(*only, samples),
            (Some(mel), [_, rows, columns] | [_, 1, rows, columns]) => {
                let frames = samples.map(|samples| mel.frames(samples));
                let (bands, frames) = (Some(mel.bands()), frames);
                let (first, second) = if mel.is_frames_first() { (frames, bands) } else { (bands, frames) };
                fits(*rows, first) && fits(*columns, second)
            }
            _ => false,
        };
        if !good {
            let given = match (&mel, samples) {
                (Some(mel), Some(samples)) => format!("{} bands by {} frames", mel.bands(), mel.frames(samples)),
                (Some(mel), None) => format!("{} bands by any number of frames", mel.bands()),
                (None, Some(samples)) => format!("{samples} samples"),
                (None, None) => "any number of samples".to_owned(),
            };
            return wrong(if mel.is_some() { "mel" } else { "samples" }, format!("what fills {:?}", port.shape), given);
        }
        Ok(Self { rate, samples, mel, port })
    }

    /// The sound as one item.
    pub(super) fn make(&self, bytes: &[u8], at: &str, work: &mut Work<'_>) -> Result<Tensor, Error> {
        let sound = work.lap(at, "decode", |limits| wav::read(bytes, at, limits.audio_seconds_max))?;
        let mut samples = sound.samples;
        if sound.rate != self.rate {
            samples = work.lap(at, "resample", |_| {
                let resampler = Resampler::new(sound.rate, self.rate).map_err(|given| {
                    Error::content(at, format!("a rate that goes into {} with small numbers", self.rate), given)
                })?;
                Ok(resampler.resample(&samples))
            })?;
        }
        if let Some(wanted) = self.samples {
            samples.resize(wanted, 0.0);
        }
        let rank = self.port.shape.len();
        let (numbers, shape) = match &self.mel {
            None => {
                let count = samples.len();
                (samples, vec![count])
            }
            Some(mel) => {
                let (numbers, rows, columns) = work.lap(at, "mel", |_| {
                    mel.of(&samples).map_err(|expected| Error::content(at, expected, format!("{}", samples.len())))
                })?;
                (numbers, vec![rows, columns])
            }
        };
        let shape = [vec![1; rank.saturating_sub(shape.len())], shape].concat();
        let tensor = match self.port.datatype {
            Datatype::Fp32 => Tensor::new(&shape, numbers),
            Datatype::Fp64 => Tensor::new(&shape, numbers.into_iter().map(f64::from).collect()),
            _ => Tensor::new(&shape, numbers.into_iter().map(half::f16::from_f32).collect()),
        };
        let tensor = tensor.map_err(|error| Error::content(at, "a sound", error.to_string()))?;
        if self.port.admits(tensor.shape()) {
            return Ok(tensor);
        }
        Err(Error::content(at, format!("a sound that fills {:?}", self.port.shape), format!("{:?}", tensor.shape())))
    }
}
