//! Parts of images, at the size that the next model takes.
//!
//! Coordinates are pixels of the image tensor, corners and not centres: the first pixel is 0 to 1. `area` weighs what an
//! output pixel covers, which is PIL's `box` filter at whole factors; `linear` is OpenCV's `INTER_LINEAR` and ONNX `Resize` with
//! `half_pixel`; both also between pixels.

use std::borrow::Cow;

use serde::Deserialize;

use super::boxes::Order;
use super::config::Limits;
use crate::base::{Datatype, Tensor};

/// Largest side that a step makes.
pub(super) const SIDE_MAX: usize = 16_384;

/// Where the channels are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Layout {
    /// `[images, channels, height, width]`, or without the first one or two.
    #[default]
    #[serde(rename = "NCHW")]
    Nchw,
    /// `[images, height, width, channels]`.
    #[serde(rename = "NHWC")]
    Nhwc,
}

/// How pixels become others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// The mean of what an output pixel covers.
    #[default]
    Area,
    /// Between the two neighbours in each direction.
    Linear,
    /// The pixel under the middle.
    Nearest,
}

/// What is cut out, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crop {
    /// Of each part, in pixels.
    pub width: usize,
    /// Of each part, in pixels.
    pub height: usize,
    /// Where the channels are.
    #[serde(default)]
    pub layout: Layout,
    /// How pixels become others.
    #[serde(default)]
    pub filter: Filter,
    /// How a box is written.
    #[serde(default)]
    pub order: Order,
    /// Coordinates are 0 to 1 of the image's size, not its pixels.
    #[serde(default)]
    pub normalised: bool,
    /// The shorter side grows to the longer one, evenly.
    #[serde(default)]
    pub square: bool,
    /// What is added on each side, as a share of the box's.
    #[serde(default)]
    pub margin: f64,
    /// What lies outside of the image.
    #[serde(default)]
    pub fill: f32,
}

/// A batch of images within a tensor.
pub(super) struct Images<'a> {
    pub(super) pixels: Cow<'a, [f32]>,
    pub(super) batch: usize,
    pub(super) channels: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    datatype: Datatype,
    layout: Layout,
    has_channels: bool,
}

impl<'a> Images<'a> {
    pub(super) fn of(tensor: &'a Tensor, layout: Layout) -> Result<Self, String> {
        let (batch, channels, height, width) = match (tensor.shape(), layout) {
            (&[h, w], _) => (1, 1, h, w),
            (&[c, h, w], Layout::Nchw) | (&[h, w, c], Layout::Nhwc) => (1, c, h, w),
            (&[n, c, h, w], Layout::Nchw) | (&[n, h, w, c], Layout::Nhwc) => (n, c, h, w),
            (shape, _) => return Err(format!("an image has 2 to 4 dimensions ({layout:?}), given {shape:?}")),
        };
        let pixels = match tensor.datatype() {
            Datatype::Fp32 => Cow::Borrowed(tensor.as_slice::<f32>().unwrap_or_default()),
            Datatype::Uint8 => {
                Cow::Owned(tensor.as_slice::<u8>().unwrap_or_default().iter().map(|&x| f32::from(x)).collect())
            }
            other => return Err(format!("an image is UINT8 or FP32, given {other}; `cast` comes before")),
        };
        let (datatype, has_channels) = (tensor.datatype(), tensor.shape().len() > 2);
        Ok(Self { pixels, batch, channels, height, width, datatype, layout, has_channels })
    }

    /// Elements from one pixel to the next to the right, to the next row, and to the next channel.
    fn strides(&self) -> (usize, usize, usize) {
        match self.layout {
            Layout::Nchw => (1, self.width, self.width * self.height),
            Layout::Nhwc => (self.channels, self.width * self.channels, 1),
        }
    }

    /// The shape of `parts` images of another size.
    fn shape(&self, parts: usize, height: usize, width: usize) -> Vec<usize> {
        match (self.has_channels, self.layout) {
            (false, _) => vec![parts, height, width],
            (true, Layout::Nchw) => vec![parts, self.channels, height, width],
            (true, Layout::Nhwc) => vec![parts, height, width, self.channels],
        }
    }

    fn tensor(&self, shape: &[usize], pixels: Vec<f32>) -> Result<Tensor, String> {
        let tensor = match self.datatype {
            Datatype::Uint8 => {
                Tensor::new(shape, pixels.into_iter().map(|x| x.round().clamp(0.0, 255.0) as u8).collect())
            }
            _ => Tensor::new(shape, pixels),
        };
        tensor.map_err(|error| error.to_string())
    }
}

/// A rectangle: left, top, right, bottom.
type Corners = [f64; 4];

/// The part of the image under each box. `counts` says how many boxes each image has, one image's may go without.
pub(super) fn crop(
    image: &Tensor,
    boxes: &Tensor,
    counts: Option<&Tensor>,
    config: &Crop,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Tensor, String> {
    limits.holds(Datatype::Fp32, image.shape())?;
    let images = Images::of(image, config.layout)?;
    let &[count, 4] = boxes.shape() else {
        return Err(format!("boxes are [boxes, 4], given {:?}", boxes.shape()));
    };
    let owners = owners(counts, count, images.batch)?;
    let numbers = boxes.to_numbers().ok_or_else(|| format!("boxes are numbers, given {}", boxes.datatype()))?;
    let corners = numbers.chunks_exact(4).enumerate().map(|(at, given)| {
        if let Some(odd) = given.iter().find(|x| !x.is_finite()) {
            return Err(format!("box {at} has the coordinate {odd}"));
        }
        Ok(config.corners([given[0], given[1], given[2], given[3]], &images))
    });
    let parts = owners.into_iter().zip(corners).map(|(owner, corners)| Ok((owner, corners?)));
    cut(&images, &parts.collect::<Result<Vec<_>, String>>()?, (config.height, config.width), config, limits, is_over)
}

/// All images at another size.
pub(super) fn resize(
    image: &Tensor,
    config: &Crop,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Tensor, String> {
    limits.holds(Datatype::Fp32, image.shape())?;
    let images = Images::of(image, config.layout)?;
    let whole = [0.0, 0.0, images.width as f64, images.height as f64];
    let parts: Vec<_> = (0..images.batch).map(|owner| (owner, whole)).collect();
    let resized = cut(&images, &parts, (config.height, config.width), config, limits, is_over)?;
    // One image without a batch stays one.
    if image.shape().len() == 4 {
        return Ok(resized);
    }
    let shape = resized.shape()[1..].to_vec();
    resized.reshaped(shape).map_err(|error| error.to_string())
}

/// Whose each box is.
fn owners(counts: Option<&Tensor>, boxes: usize, images: usize) -> Result<Vec<usize>, String> {
    let Some(counts) = counts else {
        return if images == 1 {
            Ok(vec![0; boxes])
        } else {
            Err(format!("{boxes} boxes of {images} images need `counts`: how many are each image's"))
        };
    };
    let numbers =
        counts.to_numbers().ok_or_else(|| format!("counts are whole numbers, given {}", counts.datatype()))?;
    let sound = numbers.iter().all(|x| *x >= 0.0 && x.fract() == 0.0);
    if !sound || numbers.len() != images || numbers.iter().sum::<f64>() != boxes as f64 {
        return Err(format!("counts of {images} images that add up to {boxes} boxes are expected, given {numbers:?}"));
    }
    Ok(numbers.iter().enumerate().flat_map(|(image, &count)| std::iter::repeat_n(image, count as usize)).collect())
}

impl Crop {
    fn corners(&self, given: [f64; 4], images: &Images<'_>) -> Corners {
        let (wide, high) = if self.normalised { (images.width as f64, images.height as f64) } else { (1.0, 1.0) };
        let [left, top, right, bottom] = self.order.corners(given);
        let (left, right) = (left * wide, right * wide);
        let (top, bottom) = (top * high, bottom * high);
        // A box of nothing is a pixel.
        let (mut width, mut height) = ((right - left).max(1.0), (bottom - top).max(1.0));
        let (x, y) = ((left + right) / 2.0, (top + bottom) / 2.0);
        if self.square {
            width = width.max(height);
            height = width;
        }
        (width, height) = (width * (1.0 + 2.0 * self.margin), height * (1.0 + 2.0 * self.margin));
        [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0]
    }
}

/// Input pixels from `first` on with their shares of an output pixel, and the share of what is outside.
struct Taps {
    first: usize,
    shares: Vec<f32>,
    outside: f32,
}

fn taps(from: f64, to: f64, wanted: usize, length: usize, filter: Filter) -> Vec<Taps> {
    let step = (to - from) / wanted as f64;
    let nothing = || Taps { first: 0, shares: Vec::new(), outside: 1.0 };
    let tap = |at: usize| {
        let at = at as f64;
        match filter {
            Filter::Area => {
                let (begin, end) = (from + at * step, from + (at + 1.0) * step);
                let (inner_begin, inner_end) = (begin.max(0.0), end.min(length as f64));
                if inner_end <= inner_begin {
                    return nothing();
                }
                let (first, last) = (inner_begin.floor() as usize, (inner_end.ceil() as usize).min(length));
                let share = |pixel: usize| {
                    let covered = inner_end.min(pixel as f64 + 1.0) - inner_begin.max(pixel as f64);
                    (covered / (end - begin)) as f32
                };
                let outside = (1.0 - (inner_end - inner_begin) / (end - begin)) as f32;
                Taps { first, shares: (first..last).map(share).collect(), outside }
            }
            Filter::Linear | Filter::Nearest => {
                let middle = from + (at + 0.5) * step;
                if !(0.0..length as f64).contains(&middle) {
                    return nothing();
                }
                if filter == Filter::Nearest {
                    return Taps { first: (middle as usize).min(length - 1), shares: vec![1.0], outside: 0.0 };
                }
                let held = (middle - 0.5).clamp(0.0, (length - 1) as f64);
                let first = held.floor() as usize;
                let share = (held - first as f64) as f32;
                let shares = if first + 1 < length { vec![1.0 - share, share] } else { vec![1.0] };
                Taps { first, shares, outside: 0.0 }
            }
        }
    };
    (0..wanted).map(tap).collect()
}

fn cut(
    images: &Images<'_>,
    parts: &[(usize, Corners)],
    (height, width): (usize, usize),
    config: &Crop,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Tensor, String> {
    let shape = images.shape(parts.len(), height, width);
    // In 32 bits until the end, whatever it becomes then.
    limits.holds(Datatype::Fp32, &shape)?;
    if !parts.is_empty() && (images.width == 0 || images.height == 0) {
        return Err(format!("an image of {} x {} has no parts", images.width, images.height));
    }
    let (right, down, deep) = images.strides();
    let size = images.channels * images.height * images.width;
    let mut pixels = vec![0.0_f32; shape.iter().product()];
    let part = images.channels * height * width;
    let (to_right, to_down, to_deep) = match images.layout {
        Layout::Nchw => (1, width, width * height),
        Layout::Nhwc => (images.channels, width * images.channels, 1),
    };
    for (at, &(owner, [x0, y0, x1, y1])) in parts.iter().enumerate() {
        if is_over() {
            return Err("given up: nobody waits any more".to_owned());
        }
        let columns = taps(x0, x1, width, images.width, config.filter);
        let rows = taps(y0, y1, height, images.height, config.filter);
        let top = rows.iter().filter(|tap| !tap.shares.is_empty()).map(|tap| tap.first).min().unwrap_or(0);
        let bottom = rows.iter().map(|tap| tap.first + tap.shares.len()).max().unwrap_or(0).max(top);
        // A high image and a wide part of it have much between them.
        limits.holds(Datatype::Fp32, &[bottom - top, width])?;
        let mut narrow = vec![0.0_f32; (bottom - top) * width];
        for channel in 0..images.channels {
            let source = &images.pixels[owner * size..][..size];
            for (y, narrow) in (top..bottom).zip(narrow.chunks_exact_mut(width)) {
                let row = channel * deep + y * down;
                for (tap, out) in columns.iter().zip(narrow) {
                    let inside =
                        tap.shares.iter().enumerate().map(|(x, share)| source[row + (tap.first + x) * right] * share);
                    *out = inside.sum::<f32>() + tap.outside * config.fill;
                }
            }
            for (y, tap) in rows.iter().enumerate() {
                for x in 0..width {
                    let inside = tap
                        .shares
                        .iter()
                        .enumerate()
                        .map(|(row, share)| narrow[(tap.first + row - top) * width + x] * share);
                    let value = inside.sum::<f32>() + tap.outside * config.fill;
                    pixels[at * part + channel * to_deep + y * to_down + x * to_right] = value;
                }
            }
        }
    }
    images.tensor(&shape, pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Crop {
        toml::from_str(text).unwrap()
    }

    fn cut_out(image: &Tensor, boxes: &[f32], settings: &str) -> Result<Tensor, String> {
        let boxes = Tensor::new([boxes.len() / 4, 4], boxes.to_vec()).unwrap();
        crop(image, &boxes, None, &config(settings), &Limits::default(), &|| false)
    }

    fn numbers(tensor: &Tensor) -> Vec<f64> {
        tensor.to_numbers().unwrap()
    }

    /// 4 x 4 with the numbers 0 to 15.
    fn image() -> Tensor {
        Tensor::new([4, 4], (0..16_u8).map(f32::from).collect()).unwrap()
    }

    #[test]
    fn a_part_at_a_whole_factor_is_the_mean_of_its_pixels() {
        let parts = cut_out(&image(), &[0.0, 0.0, 4.0, 4.0, 2.0, 0.0, 4.0, 2.0], "width = 2\nheight = 2").unwrap();
        assert_eq!(parts.shape(), [2, 2, 2]);
        assert_eq!(numbers(&parts), [2.5, 4.5, 10.5, 12.5, 2.0, 3.0, 6.0, 7.0]);
    }

    #[test]
    fn boxes_between_pixels_and_over_the_edge_are_weighed() {
        // From half of the first column to half of the second.
        let half = cut_out(&image(), &[0.5, 0.0, 1.5, 1.0], "width = 1\nheight = 1").unwrap();
        assert_eq!(numbers(&half), [0.5]);
        let over = cut_out(&image(), &[-1.0, 0.0, 1.0, 1.0], "width = 1\nheight = 1\nfill = 10").unwrap();
        assert_eq!(numbers(&over), [5.0]);
        let far = cut_out(&image(), &[1e30, 1e30, 2e30, 2e30], "width = 2\nheight = 1\nfill = 7").unwrap();
        assert_eq!(numbers(&far), [7.0, 7.0]);
    }

    #[test]
    fn a_square_with_a_margin_grows_evenly_and_a_box_of_nothing_is_a_pixel() {
        let square = cut_out(&image(), &[1.0, 0.0, 3.0, 4.0], "width = 4\nheight = 4\nsquare = true").unwrap();
        assert_eq!(numbers(&square), numbers(&image()));
        let wider = cut_out(&image(), &[1.0, 1.0, 3.0, 3.0], "width = 4\nheight = 4\nmargin = 0.5").unwrap();
        assert_eq!(numbers(&wider), numbers(&image()));
        let pixel = cut_out(&image(), &[1.5, 1.5, 1.5, 1.5], "width = 1\nheight = 1").unwrap();
        assert_eq!(numbers(&pixel), [5.0]);
    }

    #[test]
    fn linear_and_nearest_are_opencvs() {
        // cv2.resize(numpy.arange(16, dtype=numpy.float32).reshape(4, 4), (2, 2)), and with INTER_NEAREST (3, 3) at centres.
        let linear = cut_out(&image(), &[0.0, 0.0, 4.0, 4.0], "width = 2\nheight = 2\nfilter = \"linear\"").unwrap();
        assert_eq!(numbers(&linear), [2.5, 4.5, 10.5, 12.5]);
        let large = cut_out(&image(), &[0.0, 0.0, 1.0, 1.0], "width = 2\nheight = 2\nfilter = \"linear\"").unwrap();
        assert_eq!(numbers(&large), [0.0, 0.25, 1.0, 1.25]);
        let near = cut_out(&image(), &[0.0, 0.0, 4.0, 4.0], "width = 2\nheight = 1\nfilter = \"nearest\"").unwrap();
        assert_eq!(numbers(&near), [9.0, 11.0]);
    }

    #[test]
    fn channels_and_bytes_stay_what_they_are_in_both_layouts() {
        let planar = Tensor::new([1, 2, 1, 2], vec![10_u8, 20, 30, 41]).unwrap();
        let mean = cut_out(&planar, &[0.0, 0.0, 2.0, 1.0], "width = 1\nheight = 1").unwrap();
        assert_eq!((mean.shape(), mean.as_slice::<u8>().unwrap()), (&[1, 2, 1, 1][..], &[15, 36][..]));
        let packed = Tensor::new([1, 2, 2], vec![10_u8, 30, 20, 41]).unwrap();
        let mean = cut_out(&packed, &[0.0, 0.0, 2.0, 1.0], "width = 1\nheight = 1\nlayout = \"NHWC\"").unwrap();
        assert_eq!((mean.shape(), mean.as_slice::<u8>().unwrap()), (&[1, 1, 1, 2][..], &[15, 36][..]));
    }

    #[test]
    fn boxes_go_to_the_images_that_they_are_counted_for() {
        let images = Tensor::new([2, 1, 1, 1], vec![1.0_f32, 2.0]).unwrap();
        let boxes = Tensor::new([3, 4], [0.0_f32, 0.0, 1.0, 1.0].repeat(3)).unwrap();
        let one = config("width = 1\nheight = 1");
        let cut = |counts: Option<&Tensor>| crop(&images, &boxes, counts, &one, &Limits::default(), &|| false);
        let counts = |values: &[i64]| Tensor::new([values.len()], values.to_vec()).unwrap();
        assert_eq!(numbers(&cut(Some(&counts(&[1, 2]))).unwrap()), [1.0, 2.0, 2.0]);
        for wrong in [&[1_i64, 1][..], &[3], &[-1, 4], &[i64::MAX, 1]] {
            assert!(cut(Some(&counts(wrong))).unwrap_err().contains("add up to 3 boxes"), "{wrong:?}");
        }
        assert!(cut(None).unwrap_err().contains("need `counts`"));
    }

    #[test]
    fn what_cannot_be_cut_is_said_with_its_figures() {
        let size = "width = 2\nheight = 2";
        assert!(
            cut_out(&image(), &[0.0, 0.0, f32::NAN, 1.0], size).unwrap_err().contains("box 0 has the coordinate NaN")
        );
        let flat = Tensor::new([16], vec![0.0_f32; 16]).unwrap();
        assert!(cut_out(&flat, &[0.0; 4], size).unwrap_err().contains("2 to 4 dimensions"));
        let empty = Tensor::new([0, 4], Vec::<f32>::new()).unwrap();
        assert!(cut_out(&empty, &[0.0; 4], size).unwrap_err().contains("4 x 0 has no parts"));
        let no_boxes = cut_out(&image(), &[], size).unwrap();
        assert_eq!(no_boxes.shape(), [0, 2, 2]);
        let small = Limits { tensor_bytes_max: 79, ..Limits::default() };
        let boxes = Tensor::new([5, 4], vec![0.0_f32; 20]).unwrap();
        let error = crop(&image(), &boxes, None, &config(size), &small, &|| false).unwrap_err();
        assert!(error.contains("FP32 [5, 2, 2] of 80 bytes, the most is 79"), "{error}");
        let high = Tensor::new([4096, 1], vec![0.0_f32; 4096]).unwrap();
        let most = Limits { tensor_bytes_max: 20_000, ..Limits::default() };
        let whole = Tensor::new([1, 4], vec![0.0_f32, 0.0, 1.0, 4096.0]).unwrap();
        let error = crop(&high, &whole, None, &config("width = 2\nheight = 1"), &most, &|| false).unwrap_err();
        assert!(error.contains("FP32 [4096, 2] of 32768 bytes"), "{error}");
        let over = crop(&image(), &boxes, None, &config(size), &Limits::default(), &|| true).unwrap_err();
        assert!(over.contains("nobody waits"));
    }
}
