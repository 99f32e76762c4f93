//! Where there is something in a picture: pixels over a threshold that touch each other, each group in its box. The
//! detector of clean scenes: ink on paper, parts on a belt, hot spots.

use serde::Deserialize;

use super::boxes::BOXES_MAX;
use super::config::Limits;
use super::picture::{Images, Layout};
use crate::base::{Datatype, Tensor};

/// What is a group.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regions {
    /// Pixels of at least this belong to something.
    pub at_least: f32,
    /// Groups of fewer pixels are dirt.
    #[serde(default = "one")]
    pub pixels_min: usize,
    /// So many at most of one image, those with most pixels.
    #[serde(default = "hundred")]
    pub boxes_max: usize,
    /// Where the one channel is.
    #[serde(default)]
    pub layout: Layout,
}

fn one() -> usize {
    1
}

fn hundred() -> usize {
    100
}

impl Regions {
    pub(super) fn check(&self) -> Result<(), String> {
        if self.at_least.is_finite() && (1..=BOXES_MAX).contains(&self.boxes_max) {
            return Ok(());
        }
        let given = format!("{} and {}", self.at_least, self.boxes_max);
        Err(format!("a number in at_least and boxes_max of 1 to {BOXES_MAX} are expected, given {given}"))
    }
}

/// A group: left, top, right, bottom, behind the last pixel, and how many pixels it has.
#[derive(Clone, Copy)]
struct Group {
    corners: [usize; 4],
    pixels: usize,
}

/// Boxes `[n, 4]` by their corners in the order of reading, and counts `[images]`.
pub(super) fn regions(
    image: &Tensor,
    config: &Regions,
    limits: &Limits,
    is_over: &dyn Fn() -> bool,
) -> Result<Vec<Tensor>, String> {
    limits.holds(Datatype::Fp32, image.shape())?;
    let images = Images::of(image, config.layout)?;
    if images.channels != 1 {
        return Err(format!("an image of one channel is expected, given {} ({:?})", images.channels, image.shape()));
    }
    let size = images.height * images.width;
    let (mut boxes, mut counts) = (Vec::new(), Vec::with_capacity(images.batch));
    for at in 0..images.batch {
        let pixels = &images.pixels[at * size..][..size];
        let mut groups = groups(pixels, images.width, images.height, config.at_least, is_over)?;
        groups.retain(|group| group.pixels >= config.pixels_min);
        groups.sort_by_key(|group| std::cmp::Reverse(group.pixels));
        groups.truncate(config.boxes_max);
        counts.push(groups.len() as i64);
        boxes.extend(read(groups).into_iter().flat_map(|group| group.corners.map(|side| side as f32)));
    }
    let made = [Tensor::new([boxes.len() / 4, 4], boxes), Tensor::new([images.batch], counts)];
    made.into_iter().map(|tensor| tensor.map_err(|error| error.to_string())).collect()
}

/// Pixels that touch each other at a side or a corner.
fn groups(
    pixels: &[f32],
    width: usize,
    height: usize,
    at_least: f32,
    is_over: &dyn Fn() -> bool,
) -> Result<Vec<Group>, String> {
    let mut open: Vec<bool> = pixels.iter().map(|&x| x >= at_least).collect();
    let (mut groups, mut reached) = (Vec::new(), Vec::new());
    for first in 0..open.len() {
        if first % width == 0 && is_over() {
            return Err("given up: nobody waits any more".to_owned());
        }
        if !std::mem::take(&mut open[first]) {
            continue;
        }
        let mut group = Group { corners: [usize::MAX, usize::MAX, 0, 0], pixels: 0 };
        reached.push(first);
        while let Some(at) = reached.pop() {
            let (x, y) = (at % width, at / width);
            let [left, top, right, bottom] = group.corners;
            group.corners = [left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)];
            group.pixels += 1;
            for near_y in y.saturating_sub(1)..(y + 2).min(height) {
                for near_x in x.saturating_sub(1)..(x + 2).min(width) {
                    let near = near_y * width + near_x;
                    if std::mem::take(&mut open[near]) {
                        reached.push(near);
                    }
                }
            }
        }
        groups.push(group);
    }
    Ok(groups)
}

/// In the order of reading: lines from the top, each from the left. A group whose middle lies within a line's first group
/// belongs to that line.
fn read(mut groups: Vec<Group>) -> Vec<Group> {
    groups.sort_by_key(|group| group.corners[1]);
    let mut lines: Vec<Vec<Group>> = Vec::new();
    for group in groups {
        let middle = (group.corners[1] + group.corners[3]) / 2;
        match lines.last_mut().filter(|line| middle < line[0].corners[3]) {
            Some(line) => line.push(group),
            None => lines.push(vec![group]),
        }
    }
    for line in &mut lines {
        line.sort_by_key(|group| group.corners[0]);
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(rows: &[&str], settings: &str) -> (Vec<f64>, Vec<f64>) {
        let pixels = rows.iter().flat_map(|row| row.bytes().map(|byte| f32::from(u8::from(byte == b'#')))).collect();
        let image = Tensor::new([1, 1, rows.len(), rows[0].len()], pixels).unwrap();
        let config: Regions = toml::from_str(settings).unwrap();
        let made = regions(&image, &config, &Limits::default(), &|| false).unwrap();
        (made[0].to_numbers().unwrap(), made[1].to_numbers().unwrap())
    }

    #[test]
    fn groups_are_found_in_the_order_of_reading() {
        let page = ["......#.", ".##...#.", ".#....#.", "........", "#.......", ".#.....#"];
        let (boxes, counts) = found(&page, "at_least = 0.5");
        assert_eq!(counts, [4.0]);
        assert_eq!(boxes[..8], [1.0, 1.0, 3.0, 3.0, 6.0, 0.0, 7.0, 3.0]);
        // Corners touch.
        assert_eq!(boxes[8..], [0.0, 4.0, 2.0, 6.0, 7.0, 5.0, 8.0, 6.0]);
        let (boxes, counts) = found(&page, "at_least = 0.5\npixels_min = 3");
        assert_eq!((boxes.len(), counts), (8, vec![2.0]));
        assert_eq!(found(&page, "at_least = 0.5\nboxes_max = 1").1, [1.0]);
        assert_eq!(found(&["...."], "at_least = 0.5"), (vec![], vec![0.0]));
    }

    #[test]
    fn each_image_of_a_batch_has_its_own_and_colour_is_refused() {
        let batch = Tensor::new([2, 1, 1, 2], vec![1_u8, 0, 1, 1]).unwrap();
        let config: Regions = toml::from_str("at_least = 1").unwrap();
        let made = regions(&batch, &config, &Limits::default(), &|| false).unwrap();
        assert_eq!(made[0].to_numbers().unwrap(), [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 2.0, 1.0]);
        assert_eq!(made[1].to_numbers().unwrap(), [1.0, 1.0]);
        let colour = Tensor::new([3, 1, 1], vec![1_u8; 3]).unwrap();
        assert!(regions(&colour, &config, &Limits::default(), &|| false).unwrap_err().contains("given 3"));
    }
}
