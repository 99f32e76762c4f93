//! Objects in a picture: from what a detector gives to boxes in the picture that was sent.

use serde::Deserialize;

use super::answer::{Answer, Class, Detection};
use super::error::Error;
use super::geometry::Geometry;
use super::port::{Port, floats};
use crate::base::Tensor;

/// Candidates that are compared with each other: the best ones, as comparing costs their square.
const CANDIDATES_MAX: usize = 4096;
const BOXES_MAX: usize = 1000;

/// `step = "boxes"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BoxesConfig {
    style: Style,
    /// Objects with a lower score are left out.
    #[serde(default = "quarter")]
    at_least: f32,
    /// Of two boxes of a class whose intersection over union is above this, the better one stays.
    #[serde(default = "half")]
    overlap_max: f32,
    /// So many at most.
    #[serde(default = "hundred")]
    boxes_max: usize,
    /// Boxes of different classes suppress each other, too.
    #[serde(default)]
    across_classes: bool,
    /// Coordinates are 0 to 1 of the input's size, not its pixels.
    #[serde(default)]
    normalised: bool,
    /// How a box is written; `xyxy` if left out, for `yolov5` and `yolov8` always `cxcywh`.
    order: Option<Order>,
    /// `ssd`: the tensor with the scores, `[N, classes]` or, beside `classes`, `[N]`.
    scores: Option<String>,
    /// `ssd`: the tensor with each box's class.
    classes: Option<String>,
    /// `ssd`: class 0 is no object.
    #[serde(default)]
    background: bool,
    /// `ssd`: a `[[file]]` with the default boxes, a JSON list of `[cx, cy, w, h]`. Boxes are then offsets to them.
    priors: Option<String>,
    /// `ssd`: what offsets were divided by in training, for centres and for sizes.
    #[serde(default = "variances")]
    variances: [f32; 2],
}

fn quarter() -> f32 {
    0.25
}

fn half() -> f32 {
    0.45
}

fn hundred() -> usize {
    100
}

fn variances() -> [f32; 2] {
    [0.1, 0.2]
}

/// What a detector's outputs look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Style {
    /// `[N, 5 + classes]`: cx, cy, w, h, objectness, classes. The score is objectness times the best class.
    Yolov5,
    /// `[4 + classes, N]`: cx, cy, w, h, classes. Also YOLO 9, 11 and 12.
    Yolov8,
    /// `[N, 6]`: box, score, class, suppressed by the model itself. YOLO 10 and later, exports with NMS.
    EndToEnd,
    /// Boxes `[N, 4]`, and scores in another tensor.
    Ssd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Order {
    /// Left, top, right, bottom.
    Xyxy,
    /// Top, left, bottom, right: TensorFlow.
    Yxyx,
    /// Centre and size.
    Cxcywh,
}

/// Reads boxes.
#[derive(Debug)]
pub(super) struct Boxes {
    config: BoxesConfig,
    order: Order,
    tensor: String,
    priors: Vec<[f32; 4]>,
}

#[derive(Debug, Clone, Copy)]
struct Candidate {
    corners: [f32; 4],
    score: f32,
    class: usize,
}

impl Boxes {
    pub(super) fn build(
        config: BoxesConfig,
        port: &Port,
        ports: &[Port],
        title: &str,
        file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
    ) -> Result<Self, Error> {
        let wrong = |expected: String, given: String| Err(Error::step(title, &port.name, expected, given));
        let BoxesConfig { style, at_least, overlap_max, boxes_max, .. } = config;
        let share = |value: f32| (0.0..=1.0).contains(&value);
        if !share(at_least) || !share(overlap_max) || boxes_max == 0 || boxes_max > BOXES_MAX {
            let expected = format!("at_least and overlap_max of 0 to 1, boxes_max of 1 to {BOXES_MAX}");
            return wrong(expected, format!("{at_least}, {overlap_max}, {boxes_max}"));
        }
        let ssd = config.scores.is_some() || config.classes.is_some() || config.priors.is_some() || config.background;
        if style != Style::Ssd && (ssd || (config.order.is_some() && style != Style::EndToEnd)) {
            return wrong("the keys of its style".to_owned(), "keys of `ssd`".to_owned());
        }
        let last = |port: &Port| -> Option<[i64; 2]> { port.shape.last_chunk::<2>().copied() };
        let Some([rows, columns]) = last(port) else {
            return wrong("a tensor of boxes".to_owned(), format!("{:?}", port.shape));
        };
        let labels = port.labels.len() as i64;
        let classes_fit = |given: i64| given < 0 || labels == 0 || given == labels;
        let named = |name: &str| {
            let found = ports.iter().find(|port| port.name == name);
            found.ok_or_else(|| {
                let names = ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
                Error::step(title, &port.name, format!("one of the outputs {names}"), format!("{name:?}"))
            })
        };
        match style {
            Style::Yolov5 if columns >= 0 && (columns < 6 || !classes_fit(columns - 5)) => {
                return wrong(format!("[N, 5 + classes] with {labels} labels"), format!("{:?}", port.shape));
            }
            Style::Yolov8 if rows >= 0 && (rows < 5 || !classes_fit(rows - 4)) => {
                return wrong(format!("[4 + classes, N] with {labels} labels"), format!("{:?}", port.shape));
            }
            Style::EndToEnd if columns >= 0 && columns != 6 => {
                return wrong("[N, 6]".to_owned(), format!("{:?}", port.shape));
            }
            Style::Ssd => {
                if columns >= 0 && columns != 4 {
                    return wrong("boxes of [N, 4]".to_owned(), format!("{:?}", port.shape));
                }
                let Some(scores) = &config.scores else {
                    return wrong("the tensor of scores in `scores`".to_owned(), "none".to_owned());
                };
                let scores = named(scores)?;
                if let Some(classes) = &config.classes {
                    named(classes)?;
                } else if last(scores)
                    .is_none_or(|[_, classes]| scores.shape.len() != port.shape.len() || !classes_fit(classes))
                {
                    let expected =
                        format!("scores of [N, classes] with {labels} labels, or the tensor of classes in `classes`");
                    return wrong(expected, format!("{:?}", scores.shape));
                }
            }
            _ => {}
        }
        let priors = match &config.priors {
            None => Vec::new(),
            Some(name) => {
                let bytes = file(name).map_err(|given| Error::step(title, &port.name, "a file of priors", given))?;
                serde_json::from_slice(&bytes).map_err(|error| {
                    Error::step(title, &port.name, "a JSON list of [cx, cy, w, h]", format!("{name}: {error}"))
                })?
            }
        };
        if !priors.is_empty() && rows >= 0 && rows != priors.len() as i64 {
            return wrong(format!("{rows} priors"), priors.len().to_string());
        }
        let order = match style {
            Style::Yolov5 | Style::Yolov8 => Order::Cxcywh,
            _ => config.order.unwrap_or(Order::Xyxy),
        };
        Ok(Self { order, tensor: port.name.clone(), priors, config })
    }

    pub(super) fn tensors(&self) -> Vec<&str> {
        self.config.scores.iter().chain(&self.config.classes).map(String::as_str).collect()
    }

    pub(super) fn read<'a, F>(&self, find: &F, picture: &Geometry, labels: &[String]) -> Result<Answer, String>
    where
        F: Fn(&str) -> Result<&'a Tensor, Error>,
    {
        let tensor = find(&self.tensor).map_err(|error| error.to_string())?;
        let candidates = match self.config.style {
            Style::Yolov5 => self.yolov5(tensor)?,
            Style::Yolov8 => self.yolov8(tensor)?,
            Style::EndToEnd => self.end_to_end(tensor)?,
            Style::Ssd => {
                let other = |name: &Option<String>| name.as_ref().map(|name| find(name)).transpose();
                let scores = other(&self.config.scores).map_err(|error| error.to_string())?;
                let classes = other(&self.config.classes).map_err(|error| error.to_string())?;
                self.ssd(tensor, scores.unwrap_or(tensor), classes)?
            }
        };
        let kept = match self.config.style {
            Style::EndToEnd => best(candidates, self.config.boxes_max),
            _ => suppress(best(candidates, CANDIDATES_MAX), &self.config),
        };
        let (wide, high) = if self.config.normalised { picture.input } else { (1, 1) };
        let detection = |found: Candidate| {
            let [left, top, right, bottom] = found.corners.map(f64::from);
            let (left, top) = picture.sent(left * f64::from(wide), top * f64::from(high));
            let (right, bottom) = picture.sent(right * f64::from(wide), bottom * f64::from(high));
            let class =
                Class { label: labels.get(found.class).cloned(), index: found.class, score: f64::from(found.score) };
            Detection { class, bbox: [left, top, right, bottom].map(|value| value as f32) }
        };
        let boxes = kept.into_iter().map(detection).collect();
        Ok(Answer::Boxes { width: picture.width, height: picture.height, boxes })
    }

    fn corners(&self, given: [f32; 4]) -> [f32; 4] {
        let [a, b, c, d] = given;
        match self.order {
            Order::Xyxy => given,
            Order::Yxyx => [b, a, d, c],
            Order::Cxcywh => [a - c / 2.0, b - d / 2.0, a + c / 2.0, b + d / 2.0],
        }
    }

    fn yolov5(&self, tensor: &Tensor) -> Result<Vec<Candidate>, String> {
        let (rows, width, numbers) = table(tensor, 6)?;
        let candidate = |row: &[f32]| {
            let objectness = row[4];
            if objectness < self.config.at_least {
                return None;
            }
            let (class, score) = row[5..].iter().copied().enumerate().fold((0, f32::MIN), larger);
            let score = score * objectness;
            let corners = self.corners([row[0], row[1], row[2], row[3]]);
            (score >= self.config.at_least).then_some(Candidate { corners, score, class })
        };
        Ok(numbers.chunks_exact(width).take(rows).filter_map(candidate).collect())
    }

    fn yolov8(&self, tensor: &Tensor) -> Result<Vec<Candidate>, String> {
        let (rows, count, numbers) = table(tensor, 1)?;
        if rows < 5 {
            return Err(format!("shape {:?}, expected [4 + classes, N]", tensor.shape()));
        }
        let mut top = vec![(0, f32::MIN); count];
        for (class, scores) in numbers.chunks_exact(count).skip(4).enumerate() {
            for (top, &score) in top.iter_mut().zip(scores) {
                *top = larger(*top, (class, score));
            }
        }
        let at = |row: usize, place: usize| numbers[row * count + place];
        let found = top.into_iter().enumerate().filter(|(_, (_, score))| *score >= self.config.at_least);
        let candidate = |(place, (class, score))| {
            let corners = self.corners([at(0, place), at(1, place), at(2, place), at(3, place)]);
            Candidate { corners, score, class }
        };
        Ok(found.map(candidate).collect())
    }

    fn end_to_end(&self, tensor: &Tensor) -> Result<Vec<Candidate>, String> {
        let (_, width, numbers) = table(tensor, 6)?;
        let candidate = |row: &[f32]| {
            let [a, b, c, d, score, class] = *row.first_chunk::<6>()?;
            let class = (class >= 0.0).then_some(class as usize)?;
            (score >= self.config.at_least).then(|| Candidate { corners: self.corners([a, b, c, d]), score, class })
        };
        Ok(numbers.chunks_exact(width).filter_map(candidate).collect())
    }

    fn ssd(&self, boxes: &Tensor, scores: &Tensor, classes: Option<&Tensor>) -> Result<Vec<Candidate>, String> {
        let (rows, width, numbers) = table(boxes, 4)?;
        if !self.priors.is_empty() && self.priors.len() != rows {
            return Err(format!("{rows} boxes for {} priors", self.priors.len()));
        }
        let score_numbers = floats(scores).ok_or("scores that are no numbers")?;
        let per_box = score_numbers.len().checked_div(rows).unwrap_or(0);
        if per_box * rows != score_numbers.len() || (classes.is_some() && per_box != 1) {
            return Err(format!("scores of {:?} for {rows} boxes", scores.shape()));
        }
        let class_numbers = match classes {
            None => None,
            Some(classes) => {
                let numbers = floats(classes).ok_or("classes that are no numbers")?;
                if numbers.len() != rows {
                    return Err(format!("classes of {:?} for {rows} boxes", classes.shape()));
                }
                Some(numbers)
            }
        };
        let first = usize::from(self.config.background && class_numbers.is_none());
        let mut found = Vec::new();
        for (row, given) in numbers.chunks_exact(width).enumerate() {
            let corners = self.decoded(row, [given[0], given[1], given[2], given[3]]);
            for column in first..per_box {
                let score = score_numbers[row * per_box + column];
                // Written so that nan is left out.
                if score >= self.config.at_least {
                    let class = class_numbers.as_ref().map_or(column as f32, |classes| classes[row]);
                    if class >= 0.0 && !(self.config.background && class < 1.0) {
                        found.push(Candidate { corners, score, class: class as usize });
                    }
                }
            }
        }
        Ok(found)
    }

    /// With priors p and variances v, as in the paper on SSD (Liu et al. 2016, eq. 2):
    /// cx = p.cx + x v0 p.w, cy = p.cy + y v0 p.h, w = p.w exp(w v1), h = p.h exp(h v1).
    fn decoded(&self, row: usize, given: [f32; 4]) -> [f32; 4] {
        let Some(&[cx, cy, w, h]) = self.priors.get(row) else { return self.corners(given) };
        let [v0, v1] = self.config.variances;
        let (cx, cy) = (cx + given[0] * v0 * w, cy + given[1] * v0 * h);
        let (w, h) = (w * (given[2] * v1).exp(), h * (given[3] * v1).exp());
        [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
    }
}

fn larger(top: (usize, f32), next: (usize, f32)) -> (usize, f32) {
    if next.1 > top.1 { next } else { top }
}

/// The last two dimensions and the numbers of one item.
fn table(tensor: &Tensor, least: usize) -> Result<(usize, usize, std::borrow::Cow<'_, [f32]>), String> {
    let shape = tensor.shape();
    let Some(&[rows, columns]) = shape.last_chunk::<2>() else { return Err(format!("shape {shape:?}")) };
    if columns < least || rows.saturating_mul(columns) != tensor.elements() {
        return Err(format!("shape {shape:?}, expected one table of at least {least} columns"));
    }
    Ok((rows, columns, floats(tensor).ok_or("it holds no numbers")?))
}

/// The `most` best, best first; equal ones in their order.
fn best(mut candidates: Vec<Candidate>, most: usize) -> Vec<Candidate> {
    candidates.retain(|found| found.corners.iter().all(|value| value.is_finite()) && found.score.is_finite());
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(most);
    candidates
}

/// Greedy suppression, class by class, as `torchvision.ops.batched_nms`.
fn suppress(candidates: Vec<Candidate>, config: &BoxesConfig) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for found in candidates {
        let rivals = kept.iter().filter(|other| config.across_classes || other.class == found.class);
        if rivals.into_iter().all(|other| overlap(&other.corners, &found.corners) <= config.overlap_max) {
            kept.push(found);
            if kept.len() == config.boxes_max {
                break;
            }
        }
    }
    kept
}

/// Intersection over union.
fn overlap(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let area = |r: &[f32; 4]| (r[2] - r[0]).max(0.0) * (r[3] - r[1]).max(0.0);
    let shared = area(&[a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    let all = area(a) + area(b) - shared;
    if all > 0.0 { shared / all } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Datatype;

    fn port(name: &str, shape: &[i64], labels: usize) -> Port {
        let labels = (0..labels).map(|at| format!("c{at}")).collect();
        Port { name: name.to_owned(), datatype: Datatype::Fp32, shape: shape.to_vec(), labels, unit: None }
    }

    fn build(config: &str, ports: &[Port]) -> Result<Boxes, String> {
        let config = toml::from_str(config).map_err(|error: toml::de::Error| error.message().to_owned())?;
        let file = |name: &str| match name {
            "priors.json" => Ok(b"[[0.5, 0.5, 0.2, 0.4]]".to_vec()),
            other => Err(format!("no {other}")),
        };
        Boxes::build(config, &ports[0], ports, "boxes", &file).map_err(|error| error.to_string())
    }

    fn read(boxes: &Boxes, tensors: &[(&str, Tensor)], picture: &Geometry) -> Vec<(usize, f64, [f32; 4])> {
        let find = |name: &str| {
            tensors.iter().find(|(known, _)| *known == name).map(|(_, tensor)| tensor).ok_or(Error::Abandoned)
        };
        let Answer::Boxes { boxes, .. } = boxes.read(&find, picture, &[]).unwrap() else { panic!("no boxes") };
        boxes.into_iter().map(|found| (found.class.index, found.class.score, found.bbox)).collect()
    }

    #[test]
    fn both_yolo_layouts_give_the_same_boxes_in_the_pictures_pixels() {
        // A picture of 200 x 100 in a square of 100: halved, 25 rows of padding above.
        let mut picture = Geometry::of(200, 100);
        picture.resized(100, 50);
        picture.cut(0, -25, 100, 100);
        let v8 = build("style = \"yolov8\"", &[port("y", &[1, 6, -1], 2)]).unwrap();
        // Three anchors: one box, a worse one on it of the same class, and one under the threshold.
        let tensor = Tensor::new(
            [1, 6, 3],
            vec![
                50.0, 51.0, 10.0, 50.0, 50.0, 30.0, 20.0, 20.0, 4.0, 10.0, 10.0, 4.0, 0.1, 0.1, 0.1, 0.9, 0.8, 0.2_f32,
            ],
        )
        .unwrap();
        let found = read(&v8, &[("y", tensor)], &picture);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].0, found[0].2), (1, [80.0, 40.0, 120.0, 60.0]));
        let v5 = build("style = \"yolov5\"\nat_least = 0.4", &[port("y", &[1, -1, 7], 2)]).unwrap();
        let rows = vec![50.0, 50.0, 20.0, 10.0, 0.5, 0.1, 0.9, 50.0, 50.0, 20.0, 10.0, 0.5, 0.1, 0.7_f32];
        let found = read(&v5, &[("y", Tensor::new([1, 2, 7], rows).unwrap())], &picture);
        assert_eq!((found.len(), found[0].2), (1, [80.0, 40.0, 120.0, 60.0]));
        assert!((found[0].1 - 0.45).abs() < 1e-6);
    }

    #[test]
    fn classes_suppress_each_other_only_where_asked() {
        let rows = vec![0.0, 0.0, 10.0, 10.0, 0.9, 0.0, 0.0, 0.0, 10.0, 10.0, 0.8, 1.0_f32];
        let picture = Geometry::of(20, 20);
        let end = build("style = \"end-to-end\"", &[port("y", &[1, -1, 6], 0)]).unwrap();
        assert_eq!(read(&end, &[("y", Tensor::new([1, 2, 6], rows).unwrap())], &picture).len(), 2);
        let boxes = || Tensor::new([1, 2, 4], vec![0.0_f32, 0.0, 10.0, 10.0, 0.0, 0.0, 10.0, 10.0]).unwrap();
        let scores = || Tensor::new([1, 2, 2], vec![0.9_f32, 0.0, 0.0, 0.8]).unwrap();
        for (more, count) in [("", 2), ("across_classes = true", 1)] {
            let ports = [port("boxes", &[1, 2, 4], 0), port("scores", &[1, 2, 2], 0)];
            let ssd = build(&format!("style = \"ssd\"\nscores = \"scores\"\n{more}"), &ports).unwrap();
            assert_eq!(read(&ssd, &[("boxes", boxes()), ("scores", scores())], &picture).len(), count);
        }
    }

    #[test]
    fn ssd_boxes_are_offsets_to_priors_or_the_graphs_own_with_classes_beside() {
        let ports = [port("boxes", &[1, 1, 4], 0), port("scores", &[1, 1, 3], 0)];
        let config =
            "style = \"ssd\"\nscores = \"scores\"\nbackground = true\npriors = \"priors.json\"\nnormalised = true";
        let ssd = build(config, &ports).unwrap();
        let offsets = Tensor::new([1, 1, 4], vec![1.0_f32, -1.0, 0.0, 0.0]).unwrap();
        let scores = Tensor::new([1, 1, 3], vec![0.99_f32, 0.1, 0.6]).unwrap();
        let found = read(&ssd, &[("boxes", offsets), ("scores", scores)], &Geometry::of(100, 100));
        // cx = 0.5 + 0.1 * 0.2, cy = 0.5 - 0.1 * 0.4
        let expected = [42.0, 26.0, 62.0, 66.0];
        assert!(found.len() == 1 && found[0].0 == 2);
        assert!(found[0].2.iter().zip(expected).all(|(a, b): (&f32, f32)| (a - b).abs() < 1e-4), "{found:?}");
        let ports = [port("boxes", &[1, -1, 4], 0), port("scores", &[1, -1], 0), port("classes", &[1, -1], 0)];
        let config = "style = \"ssd\"\nscores = \"scores\"\nclasses = \"classes\"\norder = \"yxyx\"\nnormalised = true";
        let lite = build(config, &ports).unwrap();
        let tensors = [
            ("boxes", Tensor::new([1, 1, 4], vec![0.1_f32, 0.2, 0.3, 1.4]).unwrap()),
            ("scores", Tensor::new([1, 1], vec![0.5_f32]).unwrap()),
            ("classes", Tensor::new([1, 1], vec![7.0_f32]).unwrap()),
        ];
        let found = read(&lite, &tensors, &Geometry::of(100, 100));
        assert_eq!((found[0].0, found[0].2[2]), (7, 100.0), "held inside of the picture");
    }

    #[test]
    fn a_detector_that_is_another_one_is_refused_when_it_is_loaded() {
        for (config, shape, says) in [
            ("style = \"yolov8\"", [1_i64, 84, 8400], "[4 + classes, N] with 2 labels, given [1, 84, 8400]"),
            ("style = \"yolov5\"", [1, 25200, 85], "[N, 5 + classes] with 2 labels"),
            ("style = \"end-to-end\"", [1, 300, 7], "[N, 6], given [1, 300, 7]"),
            ("style = \"ssd\"", [1, 300, 4], "the tensor of scores in `scores`"),
            ("style = \"ssd\"\nscores = \"s\"", [1, 300, 4], "one of the outputs y, given \"s\""),
            ("style = \"yolov8\"\nscores = \"y\"", [1, 6, 10], "the keys of its style"),
            ("style = \"yolov8\"\nat_least = 2", [1, 6, 10], "at_least and overlap_max of 0 to 1"),
            ("style = \"yolo\"", [1, 6, 10], "unknown variant `yolo`"),
        ] {
            let error = build(config, &[port("y", &shape, 2)]).unwrap_err();
            assert!(error.contains(says), "{config}: {error}");
        }
    }

    #[test]
    fn hostile_numbers_end_in_few_boxes() {
        let v8 = build("style = \"yolov8\"", &[port("y", &[1, 5, -1], 1)]).unwrap();
        let count = 20_000;
        let mut numbers = vec![1.0_f32; 5 * count];
        numbers[0] = f32::NAN;
        numbers[1] = f32::INFINITY;
        for (at, x) in numbers.iter_mut().take(count).enumerate() {
            // Far apart, so that none suppresses another.
            *x *= at as f32 * 10.0;
        }
        let found = read(&v8, &[("y", Tensor::new([1, 5, count], numbers).unwrap())], &Geometry::of(10, 10));
        assert_eq!(found.len(), 100);
    }
}
