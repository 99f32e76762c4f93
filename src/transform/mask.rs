//! A class for every pixel of the picture that was sent.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::answer::{Answer, Area, Mask};
use super::error::Error;
use super::geometry::Geometry;
use super::port::{Port, floats};
use crate::base::Tensor;

/// Numbers in a list of runs; two for each.
const RUNS_MAX: usize = 1 << 20;

/// `step = "mask"`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaskConfig {
    #[serde(default)]
    order: Order,
    #[serde(default)]
    form: Form,
    #[serde(default)]
    size: Size,
    /// For a single channel: class 1 from this number on, else class 0.
    at: Option<f32>,
}

/// Where the classes are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
enum Order {
    /// `[classes, height, width]`: the largest is the pixel's.
    #[default]
    #[serde(rename = "CHW")]
    Chw,
    /// `[height, width, classes]`.
    #[serde(rename = "HWC")]
    Hwc,
    /// `[height, width]` with the classes themselves.
    #[serde(rename = "HW")]
    Hw,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Form {
    #[default]
    Runs,
    Png,
}

/// Whose pixels the mask has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Size {
    /// Those of the picture that was sent, each with the class at its centre.
    #[default]
    Sent,
    /// The model's own.
    Model,
}

/// Reads masks.
#[derive(Debug)]
pub(super) struct Masking {
    config: MaskConfig,
}

impl Masking {
    pub(super) fn build(config: &MaskConfig, port: &Port, title: &str) -> Result<Self, Error> {
        let wrong = |expected: String, given: String| Err(Error::step(title, &port.name, expected, given));
        let dims = if config.order == Order::Hw { 2 } else { 3 };
        // A channel of 1 may stand before the plane of classes.
        if port.shape.len() < dims || port.shape.len() > 4 {
            return wrong(format!("at least {dims} dimensions, at most 4"), format!("{:?}", port.shape));
        }
        let classes = match config.order {
            Order::Chw => port.shape[port.shape.len() - 3],
            Order::Hwc => port.shape[port.shape.len() - 1],
            Order::Hw => -1,
        };
        let labels = port.labels.len() as i64;
        let expected = if config.at.is_some() { 2 } else { classes };
        if config.at.is_some() && classes > 1 {
            return wrong("one channel for `at`".to_owned(), format!("{classes}"));
        }
        if config.at.is_none() && classes == 1 {
            return wrong("`at` for a single channel".to_owned(), "none".to_owned());
        }
        if classes > 256 || (labels > 0 && expected > 0 && labels != expected) {
            return wrong(format!("{expected} labels, and at most 256 classes"), labels.to_string());
        }
        Ok(Self { config: *config })
    }

    pub(super) fn read(&self, tensor: &Tensor, picture: &Geometry, labels: &[String]) -> Result<Answer, String> {
        let (width, height, grid) = self.grid(tensor)?;
        let (wide, high, pixels) = match self.config.size {
            Size::Model => (width, height, grid),
            Size::Sent => {
                let places = |most: u32, of: &dyn Fn(f64) -> f64, input: u32, cells: usize| -> Vec<usize> {
                    let place = |at| {
                        let cell = of(f64::from(at) + 0.5) * cells as f64 / f64::from(input);
                        (cell.max(0.0) as usize).min(cells - 1)
                    };
                    (0..most).map(place).collect()
                };
                let columns = places(picture.width, &|x| picture.input_of(x, 0.0).0, picture.input.0, width);
                let rows = places(picture.height, &|y| picture.input_of(0.0, y).1, picture.input.1, height);
                let row = |&row: &usize| columns.iter().map(move |column| (row, *column));
                let pixels = rows.iter().flat_map(row).map(|(row, column)| grid[row * width + column]).collect();
                (picture.width as usize, picture.height as usize, pixels)
            }
        };
        let (runs, areas) = runs(&pixels);
        let mut classes: Vec<Area> = areas
            .into_iter()
            .map(|(index, pixels)| Area { label: labels.get(index).cloned(), index, pixels })
            .collect();
        classes.sort_by_key(|area| std::cmp::Reverse(area.pixels));
        let as_u32 = |size: usize| u32::try_from(size).unwrap_or(u32::MAX);
        let (runs, png_b64) = match self.config.form {
            Form::Runs if runs.len() > RUNS_MAX => {
                return Err(format!(
                    "{} runs, the most is {}; `form = \"png\"` has no such bound",
                    runs.len() / 2,
                    RUNS_MAX / 2
                ));
            }
            Form::Runs => (Some(runs), None),
            Form::Png => (None, Some(super::image::grey_png_b64(as_u32(wide), as_u32(high), &pixels)?)),
        };
        Ok(Answer::Mask(Mask { width: as_u32(wide), height: as_u32(high), classes, runs, png_b64 }))
    }

    /// The class of each of the model's pixels.
    fn grid(&self, tensor: &Tensor) -> Result<(usize, usize, Vec<u8>), String> {
        let shape = tensor.shape();
        let odd = || format!("shape {shape:?}");
        let (channels, height, width) = match (self.config.order, shape) {
            (Order::Chw, &[.., channels, height, width]) => (channels, height, width),
            (Order::Hwc, &[.., height, width, channels]) => (channels, height, width),
            (Order::Hw, &[.., height, width]) => (1, height, width),
            _ => return Err(odd()),
        };
        let cells = height * width;
        if cells == 0 || channels == 0 || channels > 256 || cells * channels != tensor.elements() {
            return Err(odd());
        }
        let numbers = floats(tensor).ok_or("it holds no numbers")?;
        let class = |cell: usize| {
            if let Some(at) = self.config.at {
                return u8::from(numbers[cell] >= at);
            }
            let of = |channel: usize| match self.config.order {
                Order::Chw => numbers[channel * cells + cell],
                _ => numbers[cell * channels + channel],
            };
            let first = (0_u8, of(0));
            let largest = (1..channels).fold(first, |top, at| if of(at) > top.1 { (at as u8, of(at)) } else { top });
            largest.0
        };
        let grid = match self.config.order {
            Order::Hw if self.config.at.is_none() => {
                let class = |&number: &f32| (0.0..256.0).contains(&number).then_some(number as u8);
                numbers.iter().map(class).collect::<Option<Vec<u8>>>().ok_or("a class that is not 0 to 255")?
            }
            _ => (0..cells).map(class).collect(),
        };
        Ok((width, height, grid))
    }
}

/// Class and length of each run, and pixels by class.
fn runs(pixels: &[u8]) -> (Vec<u32>, BTreeMap<usize, u64>) {
    let (mut runs, mut areas) = (Vec::new(), BTreeMap::new());
    for run in pixels.chunk_by(|a, b| a == b) {
        runs.extend([u32::from(run[0]), u32::try_from(run.len()).unwrap_or(u32::MAX)]);
        *areas.entry(usize::from(run[0])).or_default() += run.len() as u64;
    }
    (runs, areas)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;

    fn masking(config: &str, shape: &[i64], labels: &[&str]) -> Result<Masking, String> {
        let labels = labels.iter().map(ToString::to_string).collect();
        let port = Port { name: "y".to_owned(), datatype: Datatype::Fp32, shape: shape.to_vec(), labels, unit: None };
        Masking::build(&toml::from_str(config).unwrap(), &port, "mask").map_err(|error| error.to_string())
    }

    fn mask(masking: &Masking, tensor: &Tensor, picture: &Geometry) -> Mask {
        let labels = ["road".to_owned(), "field".to_owned()];
        match masking.read(tensor, picture, &labels).unwrap() {
            Answer::Mask(mask) => mask,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_pixel_of_the_sent_picture_has_the_class_at_its_centre() {
        // A picture of 4 x 2 padded to 4 x 4, one row above and below; the model's plane is 2 x 2.
        let mut picture = Geometry::of(4, 2);
        picture.cut(0, -1, 4, 4);
        let planes = vec![0.9, 0.1, 0.2, 0.2, 0.1, 0.9, 0.8, 0.8_f32];
        let tensor = Tensor::new([1, 2, 2, 2], planes).unwrap();
        let sent = mask(&masking("", &[1, 2, 2, 2], &["road", "field"]).unwrap(), &tensor, &picture);
        assert_eq!((sent.width, sent.height), (4, 2));
        assert_eq!(sent.runs.unwrap(), [0, 2, 1, 6]);
        assert_eq!((sent.classes[0].label.as_deref(), sent.classes[0].pixels), (Some("field"), 6));
        let own = mask(&masking("size = \"model\"", &[1, 2, 2, 2], &[]).unwrap(), &tensor, &picture);
        assert_eq!(own.runs.unwrap(), [0, 1, 1, 3]);
        let nhwc = Tensor::new([1, 2, 2, 2], vec![0.9, 0.1, 0.1, 0.9, 0.2, 0.8, 0.2, 0.8_f32]).unwrap();
        let own = masking("size = \"model\"\norder = \"HWC\"", &[1, 2, 2, 2], &[]).unwrap();
        assert_eq!(mask(&own, &nhwc, &picture).runs.unwrap(), [0, 1, 1, 3]);
        let single = Tensor::new([1, 1, 2, 2], vec![0.4, 0.5, 0.6, 0.7_f32]).unwrap();
        let judged = masking("size = \"model\"\nat = 0.5", &[1, 1, 2, 2], &["a", "b"]).unwrap();
        assert_eq!(mask(&judged, &single, &picture).runs.unwrap(), [0, 1, 1, 3]);
        let ready = Tensor::new([1, 2, 2], vec![0_i64, 1, 1, 1]).unwrap();
        let ready_made = masking("size = \"model\"\norder = \"HW\"", &[1, 2, 2], &[]).unwrap();
        assert_eq!(mask(&ready_made, &ready, &picture).runs.unwrap(), [0, 1, 1, 3]);
        let odd = Tensor::new([1, 2, 2], vec![0_i64, 1, 1, 999]).unwrap();
        assert!(ready_made.read(&odd, &picture, &[]).unwrap_err().contains("not 0 to 255"));
    }

    #[test]
    fn masks_that_cannot_be_are_refused_when_the_model_is_loaded() {
        assert!(masking("", &[1, 3, 4, 4], &["a"]).unwrap_err().contains("3 labels"));
        assert!(masking("", &[1, 1, 4, 4], &[]).unwrap_err().contains("`at` for a single channel"));
        assert!(masking("at = 0.5", &[1, 2, 4, 4], &[]).unwrap_err().contains("one channel for `at`"));
        assert!(masking("", &[1, 4], &[]).unwrap_err().contains("at least 3 dimensions"));
    }
}
