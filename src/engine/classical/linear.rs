//! Linear models: a product with coefficients, and the class with the largest score.

use super::attributes::Attributes;
use super::cast::floats;
use super::matrix::dot;
use super::operators::{Operator, Outputs, made, room_for, rows_of, tensor};
use super::transform::{Second, Transform};
use super::{TARGETS_MAX, shaping};
use crate::base::Tensor;

/// The names of classes, texts or whole numbers.
pub(super) struct Labels(pub(super) Tensor);

impl Labels {
    pub(super) fn of(attributes: &Attributes<'_>, whole: &str, text: &str) -> Result<Self, String> {
        let texts = attributes.texts(text)?;
        let labels = if texts.is_empty() {
            let wholes = attributes.wholes(whole)?;
            tensor(&[wholes.len()], wholes)?
        } else {
            Tensor::of_texts([texts.len()], texts).map_err(|error| error.to_string())?
        };
        if labels.elements() > TARGETS_MAX {
            return Err(format!("{} classes, the most is {TARGETS_MAX}", labels.elements()));
        }
        Ok(Self(labels))
    }

    pub(super) fn count(&self) -> usize {
        self.0.elements()
    }

    /// What a class without a name of its own is called where there is only one score: 0 or 1.
    pub(super) fn with_unnamed(&self) -> Result<Tensor, String> {
        let unnamed = if super::operators::is_text(&self.0) {
            Tensor::of_texts([2], ["0", "1"]).map_err(|error| error.to_string())?
        } else {
            tensor(&[2], vec![0_i64, 1])?
        };
        shaping::join(&[&self.0, &unnamed], 0)
    }

    /// The names of `classes`, one a row.
    pub(super) fn name(all: &Tensor, classes: Vec<usize>) -> Result<Tensor, String> {
        let rows = classes.len();
        shaping::pick(&[all], &[rows], classes.into_iter())
    }
}

pub(super) fn regressor(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let coefficients = attributes.floats("coefficients")?;
    let mut intercepts = attributes.floats("intercepts")?;
    let targets = attributes.whole("targets", 1)?;
    let targets = usize::try_from(targets).ok().filter(|&targets| targets > 0 && coefficients.len() % targets == 0);
    let targets = targets.ok_or_else(|| format!("{} coefficients do not fill its targets", coefficients.len()))?;
    if intercepts.is_empty() {
        intercepts = vec![0.0; targets];
    }
    if intercepts.len() != targets {
        return Err(format!("{} intercepts for {targets} targets", intercepts.len()));
    }
    let transform = Transform::of(attributes)?;
    let features = coefficients.len() / targets;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (rows, _) = rows_of(x)?;
        let mut scores = products(x, &coefficients, &intercepts, features)?;
        for row in scores.chunks_exact_mut(targets) {
            match row {
                [score] => transform.apply_single(*score, Second::No, row),
                row => transform.apply(row),
            }
        }
        made(&[rows, targets], scores)
    }))
}

/// For every row, its product with every line of coefficients.
fn products(x: &Tensor, coefficients: &[f32], intercepts: &[f32], features: usize) -> Result<Vec<f32>, String> {
    let (rows, columns) = rows_of(x)?;
    if columns != features || features == 0 {
        return Err(format!("its input has {columns} features, expected {features}"));
    }
    let elements = floats(x)?;
    let mut scores = Vec::with_capacity(room_for(&[rows, intercepts.len()])?);
    for row in elements.chunks_exact(features) {
        let lines = coefficients.chunks_exact(features).zip(intercepts);
        scores.extend(lines.map(|(line, intercept)| dot(row, line) + intercept));
    }
    Ok(scores)
}

pub(super) fn classifier(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (coefficients, intercepts) = (attributes.floats("coefficients")?, attributes.floats("intercepts")?);
    let labels = Labels::of(attributes, "classlabels_ints", "classlabels_strings")?;
    let transform = Transform::of(attributes)?;
    let classes = intercepts.len();
    if classes == 0 || coefficients.is_empty() || coefficients.len() % classes != 0 {
        return Err(format!("{} coefficients for {classes} intercepts", coefficients.len()));
    }
    if classes > 1 && labels.count() < classes {
        return Err(format!("{} names for {classes} classes", labels.count()));
    }
    let features = coefficients.len() / classes;
    let named = labels.count();
    let names = labels.with_unnamed()?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (rows, _) = rows_of(x)?;
        let scores = products(x, &coefficients, &intercepts, features)?;
        if classes == 1 {
            return single(&scores, rows, named, &names, transform);
        }
        let mut scores = scores;
        let mut chosen = Vec::with_capacity(rows);
        for row in scores.chunks_exact_mut(classes) {
            chosen.push(largest(row));
            transform.apply(row);
        }
        let mut outputs = Outputs::new();
        outputs.push(Labels::name(&names, chosen)?);
        outputs.push(tensor(&[rows, classes], scores)?);
        Ok(outputs)
    }))
}

/// One score a row: its sign chooses between two classes.
fn single(scores: &[f32], rows: usize, named: usize, names: &Tensor, transform: Transform) -> Result<Outputs, String> {
    let base = if named == 2 { 0 } else { named };
    let chosen = scores.iter().map(|&score| base + usize::from(score > 0.0)).collect();
    let (width, second) = if named == 2 { (2, Second::Complement) } else { (1, Second::No) };
    let mut data = vec![0.0; rows * width];
    for (row, &score) in data.chunks_exact_mut(width).zip(scores) {
        transform.apply_single(score, second, row);
    }
    let mut outputs = Outputs::new();
    outputs.push(Labels::name(names, chosen)?);
    outputs.push(tensor(&[rows, width], data)?);
    Ok(outputs)
}

/// The first of the largest.
pub(super) fn largest(scores: &[f32]) -> usize {
    let mut best = 0;
    for (at, score) in scores.iter().enumerate().skip(1) {
        if *score > scores[best] {
            best = at;
        }
    }
    best
}
