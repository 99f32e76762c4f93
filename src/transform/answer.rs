//! What comes out: labels, units, boxes and masks, as they stand in the JSON of an answer.

use serde::Serialize;

/// One output of one instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// `top_k`.
    Classes {
        /// Largest first.
        classes: Vec<Class>,
    },
    /// `argmax`.
    Class(Class),
    /// `label`, of a tensor that holds labels or their numbers.
    Label {
        /// The label.
        label: String,
    },
    /// `label`, of several.
    Labels {
        /// In the tensor's order.
        labels: Vec<String>,
    },
    /// `threshold`.
    Decision {
        /// The number that was judged.
        score: f64,
        /// The least that is above.
        threshold: f64,
        /// Whether it is.
        above: bool,
        /// The first label below, the second above.
        #[serde(skip_serializing_if = "Option::is_none")]
        label: Option<String>,
    },
    /// `quantity`.
    Quantity {
        /// In its unit.
        value: f64,
        /// The unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    /// `quantity` of several numbers, and numbers without a step.
    Quantities {
        /// Row-major.
        values: Vec<f64>,
        /// Of one item.
        shape: Vec<usize>,
        /// The unit.
        #[serde(skip_serializing_if = "Option::is_none")]
        unit: Option<String>,
    },
    /// `boxes`.
    Boxes {
        /// Of the picture, upright, in pixels.
        width: u32,
        /// Of the picture, upright, in pixels.
        height: u32,
        /// Best first.
        boxes: Vec<Detection>,
    },
    /// `mask`.
    Mask(Mask),
}

/// A class with its score.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Class {
    /// Its name, if the model has names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its place in the output, from 0.
    pub index: usize,
    /// What the output says of it.
    pub score: f64,
}

/// An object in a picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Detection {
    /// What it is.
    #[serde(flatten)]
    pub class: Class,
    /// Left, top, right, bottom in pixels of the upright picture, from its top left corner.
    pub bbox: [f32; 4],
}

/// A class for every pixel of the upright picture.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mask {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    /// The classes in it, most pixels first.
    pub classes: Vec<Area>,
    /// Row by row: class, so many pixels, class, so many, and so on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<Vec<u32>>,
    /// A grey PNG whose values are the classes, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png_b64: Option<String>,
}

/// How much of a picture is of a class.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Area {
    /// Its name, if the model has names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its number.
    pub index: usize,
    /// So many pixels.
    pub pixels: u64,
}
