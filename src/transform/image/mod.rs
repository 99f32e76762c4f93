//! A JPEG or PNG to a tensor: decoded, upright, cut and stretched, scaled, in the model's layout.

#[cfg(feature = "image")]
mod decode;
#[cfg(feature = "image")]
mod orient;
mod picture;
mod resize;

use serde::Deserialize;

use super::error::Error;
use super::geometry::Geometry;
use super::port::Port;
use super::work::Work;
use crate::base::{Datatype, Tensor};
use picture::Picture;
use resize::Filter;

/// Largest side and area that a step may make.
const SIDE_MAX: u32 = 16_384;
const AREA_MAX: u64 = 1 << 24;

/// `kind = "image"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ImageConfig {
    pub(super) name: Option<String>,
    pub(super) tensor: Option<String>,
    #[serde(default)]
    colour: Colour,
    #[serde(default)]
    layout: Layout,
    /// Turn the picture as its EXIF orientation says.
    #[serde(default = "yes")]
    exif: bool,
    #[serde(default, deserialize_with = "super::config::steps")]
    steps: Vec<StepConfig>,
}

fn yes() -> bool {
    true
}

/// The order of channels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Colour {
    #[default]
    Rgb,
    /// What OpenCV reads.
    Bgr,
    /// One channel, by the ITU-R 601-2 luma that PIL's `convert("L")` takes.
    Grey,
}

/// How the tensor lies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Layout {
    #[default]
    #[serde(rename = "NCHW")]
    Nchw,
    #[serde(rename = "NHWC")]
    Nhwc,
    /// Rows of pixels one behind the other.
    #[serde(rename = "flat")]
    Flat,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case", deny_unknown_fields)]
enum StepConfig {
    /// To `width` x `height`, or so that the shorter side is `shorter`.
    Resize {
        width: Option<u32>,
        height: Option<u32>,
        shorter: Option<u32>,
        #[serde(default)]
        filter: Filter,
    },
    /// As large as fits, the rest filled evenly on both sides.
    Letterbox {
        width: u32,
        height: u32,
        #[serde(default = "grey")]
        fill: u8,
        #[serde(default)]
        filter: Filter,
        /// Small pictures are enlarged, too.
        #[serde(default = "yes")]
        enlarge: bool,
    },
    /// The middle, filled with black where the picture is smaller.
    Crop { width: u32, height: u32 },
    /// (x / divide - mean) / std, a number each for all channels or one a channel.
    Normalise {
        #[serde(default = "one")]
        divide: f32,
        #[serde(default)]
        mean: Vec<f32>,
        #[serde(default)]
        std: Vec<f32>,
    },
}

fn grey() -> u8 {
    114
}

fn one() -> f32 {
    1.0
}

/// Makes tensors of pictures.
#[derive(Debug)]
pub(super) struct Images {
    config: ImageConfig,
    normalise: Option<Normalise>,
    port: Port,
}

#[derive(Debug)]
struct Normalise {
    divide: f32,
    mean: Vec<f32>,
    std: Vec<f32>,
}

impl Images {
    pub(super) fn build(config: ImageConfig, port: Port) -> Result<Self, Error> {
        if cfg!(not(feature = "image")) {
            return Err(Error::NotBuilt { kind: "an image", feature: "image" });
        }
        let wrong = |step: &str, expected: String, given: String| {
            Err(Error::step(format!("[[predict.input]] image: {step}"), &port.name, expected, given))
        };
        let channels = config.channels();
        if !matches!(port.datatype, Datatype::Uint8 | Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64) {
            return wrong("datatype", "UINT8, FP16, FP32 or FP64".to_owned(), port.datatype.to_string());
        }
        let mut normalise = None;
        // What is known of the size before any picture came.
        let mut size: Option<(u32, u32)> = None;
        let sound = |width: u32, height: u32| {
            (1..=SIDE_MAX).contains(&width)
                && (1..=SIDE_MAX).contains(&height)
                && u64::from(width) * u64::from(height) <= AREA_MAX
        };
        for step in &config.steps {
            let title = step.name();
            if normalise.is_some() {
                return wrong(title, "no step after normalise".to_owned(), title.to_owned());
            }
            match *step {
                StepConfig::Resize { width: Some(width), height: Some(height), shorter: None, .. }
                | StepConfig::Letterbox { width, height, .. }
                | StepConfig::Crop { width, height }
                    if sound(width, height) =>
                {
                    size = Some((width, height));
                }
                StepConfig::Resize { width: None, height: None, shorter: Some(shorter), .. }
                    if sound(shorter, shorter) =>
                {
                    size = None;
                }
                StepConfig::Normalise { divide, ref mean, ref std } => {
                    if port.datatype == Datatype::Uint8 {
                        return wrong(title, "a tensor of floats".to_owned(), "UINT8".to_owned());
                    }
                    let (Some(mean), Some(std)) = (each(mean, 0.0, channels), each(std, 1.0, channels)) else {
                        let given = format!("{} and {}", mean.len(), std.len());
                        return wrong(title, format!("1 or {channels} numbers in mean and std"), given);
                    };
                    let finite = divide.is_finite() && divide != 0.0 && mean.iter().all(|x| x.is_finite());
                    if !finite || !std.iter().all(|&std| std.is_finite() && std > 0.0) {
                        return wrong(
                            title,
                            "finite numbers, divide not 0, std above 0".to_owned(),
                            format!("{divide}, {mean:?}, {std:?}"),
                        );
                    }
                    normalise = Some(Normalise { divide, mean, std });
                }
                StepConfig::Resize { .. } => {
                    let expected =
                        format!("width and height, or shorter, of 1 to {SIDE_MAX} and {AREA_MAX} pixels in all");
                    return wrong(title, expected, format!("{step:?}"));
                }
                StepConfig::Letterbox { width, height, .. } | StepConfig::Crop { width, height } => {
                    let expected = format!("sides of 1 to {SIDE_MAX} and {AREA_MAX} pixels in all");
                    return wrong(title, expected, format!("{width} x {height}"));
                }
            }
        }
        if let Some(wanted) = config.misfit(&port, size) {
            let given = match size {
                Some((width, height)) => format!("{width} x {height} with {channels} channels"),
                None => format!("pictures of any size with {channels} channels"),
            };
            return wrong(&format!("layout {:?}", config.layout), wanted, given);
        }
        Ok(Self { config, normalise, port })
    }

    /// The picture as one item, and where its pixels came from.
    pub(super) fn make(&self, bytes: &[u8], at: &str, work: &mut Work<'_>) -> Result<(Tensor, Geometry), Error> {
        let mut picture = work.lap(at, "decode", |limits| self.decoded(bytes, at, limits.image_pixels_max))?;
        let mut geometry = Geometry::of(picture.width, picture.height);
        if self.config.colour == Colour::Grey {
            picture = picture.grey();
        }
        for step in &self.config.steps {
            if !matches!(step, StepConfig::Normalise { .. }) {
                picture = work
                    .lap(at, step.name(), |limits| apply(step, picture, &mut geometry, at, limits.image_pixels_max))?;
            }
        }
        let bytes = self.port.datatype.size_bytes().unwrap_or(1);
        work.hold(at, picture.data.len().saturating_mul(bytes))?;
        let tensor = work.lap(at, "tensor", |_| self.tensor(&picture, at))?;
        Ok((tensor, geometry))
    }

    #[cfg(feature = "image")]
    fn decoded(&self, bytes: &[u8], at: &str, pixels_max: u64) -> Result<Picture, Error> {
        let (picture, orientation) = decode::decode(bytes, at, pixels_max)?;
        Ok(if self.config.exif { orient::upright(picture, orientation) } else { picture })
    }

    #[cfg(not(feature = "image"))]
    fn decoded(&self, _: &[u8], _: &str, _: u64) -> Result<Picture, Error> {
        let _ = self.config.exif;
        Err(Error::NotBuilt { kind: "an image", feature: "image" })
    }

    fn tensor(&self, picture: &Picture, at: &str) -> Result<Tensor, Error> {
        let (width, height, channels) = (picture.width as usize, picture.height as usize, picture.channels);
        let shape = self.shape(height, width, channels);
        let admitted = self.port.admits(&shape);
        if !admitted {
            let given = format!("{width} x {height} with {channels} channels");
            return Err(Error::content(at, format!("a picture that fills {:?}", self.port.shape), given));
        }
        // For each place of the tensor the byte of the picture that goes there.
        let (pixels, bgr) = (width * height, self.config.colour == Colour::Bgr);
        let from = |channel: usize| if bgr { channels - 1 - channel } else { channel };
        let planar = self.config.layout == Layout::Nchw;
        let each = |put: &mut dyn FnMut(usize, u8)| {
            if planar {
                for channel in 0..channels {
                    let source = from(channel);
                    (0..pixels).for_each(|pixel| put(channel, picture.data[pixel * channels + source]));
                }
            } else {
                for pixel in picture.data.chunks_exact(channels) {
                    (0..channels).for_each(|channel| put(channel, pixel[from(channel)]));
                }
            }
        };
        let tensor = if self.port.datatype == Datatype::Uint8 {
            let mut bytes = Vec::with_capacity(pixels * channels);
            each(&mut |_, byte| bytes.push(byte));
            Tensor::new(shape, bytes)
        } else {
            // 256 values a channel, computed once as training code computes them.
            let table: Vec<f32> = (0..channels)
                .flat_map(|channel| (0..=255_u8).map(move |x| (channel, x)))
                .map(|(c, x)| self.value(c, x))
                .collect();
            let mut numbers = Vec::with_capacity(pixels * channels);
            each(&mut |channel, byte| numbers.push(table[channel * 256 + usize::from(byte)]));
            match self.port.datatype {
                Datatype::Fp32 => Tensor::new(shape, numbers),
                Datatype::Fp64 => Tensor::new(shape, numbers.into_iter().map(f64::from).collect()),
                _ => Tensor::new(shape, numbers.into_iter().map(half::f16::from_f32).collect()),
            }
        };
        tensor.map_err(|error| Error::content(at, "a picture", error.to_string()))
    }

    fn value(&self, channel: usize, byte: u8) -> f32 {
        let x = f32::from(byte);
        match &self.normalise {
            Some(normalise) => (x / normalise.divide - normalise.mean[channel]) / normalise.std[channel],
            None => x,
        }
    }

    fn shape(&self, height: usize, width: usize, channels: usize) -> Vec<usize> {
        let item = match self.config.layout {
            Layout::Nchw => vec![channels, height, width],
            Layout::Nhwc => vec![height, width, channels],
            Layout::Flat => vec![height * width * channels],
        };
        if self.port.shape.len() > item.len() { [vec![1], item].concat() } else { item }
    }
}

fn each(given: &[f32], default: f32, channels: usize) -> Option<Vec<f32>> {
    match given {
        [] => Some(vec![default; channels]),
        [one] => Some(vec![*one; channels]),
        many => (many.len() == channels).then(|| many.to_vec()),
    }
}

impl ImageConfig {
    fn channels(&self) -> usize {
        if self.colour == Colour::Grey { 1 } else { 3 }
    }

    /// What the tensor's shape wants and these steps do not give.
    fn misfit(&self, port: &Port, size: Option<(u32, u32)>) -> Option<String> {
        let channels = self.channels() as i64;
        let dims = if self.layout == Layout::Flat { 1 } else { 3 };
        let whole = format!("what fills {:?}", port.shape);
        if port.shape.len() != dims && port.shape.len() != dims + 1 {
            return Some(whole);
        }
        let item = &port.shape[port.shape.len() - dims..];
        let fits = |dim: i64, given: Option<i64>| dim == -1 || given == Some(dim);
        let (width, height) = (size.map(|(width, _)| i64::from(width)), size.map(|(_, height)| i64::from(height)));
        let good = match (self.layout, item) {
            (Layout::Nchw, &[c, h, w]) | (Layout::Nhwc, &[h, w, c]) => {
                fits(c, Some(channels)) && fits(h, height) && fits(w, width)
            }
            (Layout::Flat, &[all]) => fits(all, size.map(|(w, h)| i64::from(w) * i64::from(h) * channels)),
            _ => false,
        };
        (!good).then_some(whole)
    }
}

impl StepConfig {
    fn name(&self) -> &'static str {
        match self {
            Self::Resize { .. } => "resize",
            Self::Letterbox { .. } => "letterbox",
            Self::Crop { .. } => "crop",
            Self::Normalise { .. } => "normalise",
        }
    }
}

fn apply(step: &StepConfig, picture: Picture, geometry: &mut Geometry, at: &str, most: u64) -> Result<Picture, Error> {
    let resized = |picture: Picture, width: u32, height: u32, filter: Filter, geometry: &mut Geometry| {
        geometry.resized(width, height);
        resize::resize(&picture, width, height, filter)
    };
    Ok(match *step {
        StepConfig::Resize { width: Some(width), height: Some(height), filter, .. } => {
            resized(picture, width, height, filter, geometry)
        }
        StepConfig::Resize { shorter, filter, .. } => {
            let shorter = shorter.unwrap_or(1);
            let (width, height) = picture::with_shorter(picture.width, picture.height, shorter);
            let pixels = u64::from(width) * u64::from(height);
            if pixels > most {
                return Err(Error::TooLarge {
                    what: format!("{at}: resized to a shorter side of {shorter} it"),
                    given: format!("{pixels} pixels"),
                    most: format!("{most} (predict.image_pixels_max)"),
                });
            }
            resized(picture, width, height, filter, geometry)
        }
        StepConfig::Letterbox { width, height, fill, filter, enlarge } => {
            let (inner_width, inner_height) = picture::inside(&picture, width, height, enlarge);
            let picture = resized(picture, inner_width, inner_height, filter, geometry);
            // As LetterBox of Ultralytics: an odd pixel goes to the right and below.
            let (left, top) = (i64::from((width - inner_width) / 2), i64::from((height - inner_height) / 2));
            geometry.cut(-left, -top, width, height);
            picture.cut(-left, -top, width, height, fill)
        }
        StepConfig::Crop { width, height } => {
            let left = picture::middle(picture.width, width);
            let top = picture::middle(picture.height, height);
            geometry.cut(left, top, width, height);
            picture.cut(left, top, width, height, 0)
        }
        StepConfig::Normalise { .. } => picture,
    })
}

/// A grey PNG in base64.
#[cfg(feature = "image")]
pub(super) fn grey_png_b64(width: u32, height: u32, pixels: &[u8]) -> Result<String, String> {
    use base64::Engine as _;
    let bytes = decode::grey_png(width, height, pixels)?;
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(not(feature = "image"))]
pub(super) fn grey_png_b64(_: u32, _: u32, _: &[u8]) -> Result<String, String> {
    Err("PNG is not in this build: it needs the cargo feature \"image\"".to_owned())
}

#[cfg(all(test, feature = "image"))]
mod tests;
