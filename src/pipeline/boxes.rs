//! From the candidates of a detector to objects: the good ones, without those that say the same.

use serde::Deserialize;

use super::config::Limits;
use crate::base::{Datatype, Tensor};

/// Most boxes of one image.
pub(super) const BOXES_MAX: usize = 4096;
/// Candidates that are compared with each other: the best ones, as comparing costs their square.
const CANDIDATES_MAX: usize = 4096;

/// How a box is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Left, top, right, bottom.
    #[default]
    Xyxy,
    /// Top, left, bottom, right.
    Yxyx,
    /// Centre and size.
    Cxcywh,
}

impl Order {
    /// Left, top, right, bottom.
    pub(super) fn corners(self, [a, b, c, d]: [f64; 4]) -> [f64; 4] {
        match self {
            Self::Xyxy => [a, b, c, d],
            Self::Yxyx => [b, a, d, c],
            Self::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        }
    }
}

/// Which candidates stay.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suppress {
    /// How a box is written.
    #[serde(default)]
    pub order: Order,
    /// Candidates with a lower score are left out.
    #[serde(default = "quarter")]
    pub at_least: f64,
    /// Of two boxes of a class whose intersection over union is above this, the better one stays.
    #[serde(default = "half")]
    pub overlap_max: f64,
    /// So many at most of one image, the best.
    #[serde(default = "hundred")]
    pub boxes_max: usize,
    /// Boxes of different classes suppress each other, too.
    #[serde(default)]
    pub across_classes: bool,
}

fn quarter() -> f64 {
    0.25
}

fn half() -> f64 {
    0.45
}

fn hundred() -> usize {
    100
}

impl Suppress {
    pub(super) fn check(&self) -> Result<(), String> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        if share(self.at_least) && share(self.overlap_max) && (1..=BOXES_MAX).contains(&self.boxes_max) {
            return Ok(());
        }
        let given = format!("{}, {}, {}", self.at_least, self.overlap_max, self.boxes_max);
        Err(format!("at_least and overlap_max of 0 to 1 and boxes_max of 1 to {BOXES_MAX} are expected, given {given}"))
    }
}

#[derive(Clone, Copy)]
struct Candidate {
    corners: [f64; 4],
    score: f64,
    class: usize,
}

/// `boxes` `[images, boxes, 4]` or `[boxes, 4]`; `scores` the same without the 4, or with a score for each class in its
/// place. Gives boxes `[n, 4]` by their corners, scores `[n]`, classes `[n]` and counts `[images]`, the best first in each image.
pub(super) fn suppress(
    boxes: &Tensor,
    scores: &Tensor,
    config: &Suppress,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Vec<Tensor>, String> {
    let (images, rows) = match *boxes.shape() {
        [rows, 4] => (1, rows),
        [images, rows, 4] => (images, rows),
        _ => return Err(format!("boxes are [images, boxes, 4] or [boxes, 4], given {:?}", boxes.shape())),
    };
    let outer = &boxes.shape()[..boxes.shape().len() - 1];
    let classes = match scores.shape() {
        given if given == outer => 1,
        [given @ .., classes] if given == outer => *classes,
        given => return Err(format!("scores of {outer:?} or {outer:?} with classes are expected, given {given:?}")),
    };
    // Before two copies in 64 bits are made.
    limits.holds(Datatype::Fp32, scores.shape())?;
    limits.holds(Datatype::Fp32, boxes.shape())?;
    let numbers = |tensor: &Tensor| {
        tensor.to_numbers().ok_or_else(|| format!("boxes and scores are numbers, given {}", tensor.datatype()))
    };
    let (corners, scores) = (numbers(boxes)?, numbers(scores)?);
    let (mut kept, mut counts) = (Vec::new(), Vec::with_capacity(images));
    for image in 0..images {
        let mut candidates = Vec::new();
        for row in image * rows..(image + 1) * rows {
            let given = [corners[row * 4], corners[row * 4 + 1], corners[row * 4 + 2], corners[row * 4 + 3]];
            for class in 0..classes {
                let score = scores[row * classes + class];
                // Written so that nan is left out.
                if score >= config.at_least && given.iter().all(|x| x.is_finite()) {
                    candidates.push(Candidate { corners: config.order.corners(given), score, class });
                }
            }
        }
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
        candidates.truncate(CANDIDATES_MAX);
        let before = kept.len();
        for candidate in candidates {
            if is_over() {
                return Err("given up: nobody waits any more".to_owned());
            }
            let same = |other: &&Candidate| config.across_classes || other.class == candidate.class;
            let better = &kept[before..];
            if better.iter().filter(same).all(|other: &Candidate| overlap(&candidate, other) <= config.overlap_max) {
                kept.push(candidate);
                if kept.len() - before == config.boxes_max {
                    break;
                }
            }
        }
        counts.push((kept.len() - before) as i64);
    }
    let made = [
        Tensor::new(
            [kept.len(), 4],
            kept.iter().flat_map(|found| found.corners.map(|x| x as f32)).collect::<Vec<f32>>(),
        ),
        Tensor::new([kept.len()], kept.iter().map(|found| found.score as f32).collect::<Vec<f32>>()),
        Tensor::new([kept.len()], kept.iter().map(|found| found.class as i64).collect::<Vec<i64>>()),
        Tensor::new([images], counts),
    ];
    made.into_iter().map(|tensor| tensor.map_err(|error| error.to_string())).collect()
}

/// Intersection over union.
fn overlap(a: &Candidate, b: &Candidate) -> f64 {
    let area = |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let (a, b) = (a.corners, b.corners);
    let shared = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let all = area(a) + area(b) - shared;
    if all > 0.0 { shared / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(boxes: &Tensor, scores: &Tensor, settings: &str) -> Result<Vec<Vec<f64>>, String> {
        let config: Suppress = toml::from_str(settings).unwrap();
        let made = suppress(boxes, scores, &config, &Limits::default(), &|| false)?;
        Ok(made.iter().map(|tensor| tensor.to_numbers().unwrap()).collect())
    }

    #[test]
    fn the_better_of_two_boxes_that_say_the_same_stays() {
        let boxes = [0.0, 0.0, 10.0, 10.0, 1.0, 0.0, 11.0, 10.0, 50.0, 50.0, 60.0, 60.0_f32];
        let boxes = Tensor::new([3, 4], boxes.to_vec()).unwrap();
        let scores = Tensor::new([3], vec![0.6_f32, 0.9, 0.3]).unwrap();
        let kept = found(&boxes, &scores, "").unwrap();
        assert_eq!(kept[0], [1.0, 0.0, 11.0, 10.0, 50.0, 50.0, 60.0, 60.0]);
        assert_eq!((kept[2].clone(), kept[3].clone()), (vec![0.0, 0.0], vec![2.0]));
        assert_eq!(found(&boxes, &scores, "boxes_max = 1").unwrap()[3], [1.0]);
        assert_eq!(found(&boxes, &scores, "at_least = 0.95").unwrap()[3], [0.0]);
    }

    #[test]
    fn classes_and_images_are_apart_unless_asked_otherwise() {
        let boxes = Tensor::new([2, 1, 4], [5.0_f32, 5.0, 10.0, 10.0].repeat(2)).unwrap();
        let scores = Tensor::new([2, 1, 2], vec![0.9_f32, 0.8, 0.1, 0.7]).unwrap();
        let kept = found(&boxes, &scores, "order = \"cxcywh\"").unwrap();
        assert_eq!((kept[2].clone(), kept[3].clone()), (vec![0.0, 1.0, 1.0], vec![2.0, 1.0]));
        assert_eq!(kept[0][..4], [0.0, 0.0, 10.0, 10.0]);
        assert_eq!(found(&boxes, &scores, "across_classes = true").unwrap()[3], [1.0, 1.0]);
    }

    #[test]
    fn what_is_no_box_is_left_out_or_refused() {
        let boxes = Tensor::new([2, 4], vec![f32::NAN, 0.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0]).unwrap();
        let scores = Tensor::new([2], vec![0.9_f32, f32::NAN]).unwrap();
        assert_eq!(found(&boxes, &scores, "").unwrap()[3], [0.0]);
        let short = Tensor::new([3], vec![0.9_f32; 3]).unwrap();
        assert!(
            found(&boxes, &short, "")
                .unwrap_err()
                .contains("scores of [2] or [2] with classes are expected, given [3]")
        );
        assert!(found(&scores, &scores, "").unwrap_err().contains("given [2]"));
    }
}
