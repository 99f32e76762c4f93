//! Losses, which files for evaluation carry: the negative logarithm of what a label was given.

use super::softmax::{Row, along};
use super::{numbers, of};
use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::cast::wholes;
use crate::engine::classical::operators::{Operator, Outputs, one};

#[derive(Debug, Clone, Copy)]
struct Way {
    reduction: Reduction,
    ignored: Option<i64>,
}

#[derive(Debug, Clone, Copy)]
enum Reduction {
    None,
    Sum,
    Mean,
}

impl Way {
    fn of(attributes: &Attributes<'_>) -> Result<Self, String> {
        let reduction = match attributes.text("reduction", "mean")? {
            "none" => Reduction::None,
            "sum" => Reduction::Sum,
            "mean" => Reduction::Mean,
            other => return Err(format!("reduction {other:?} is none of ONNX's")),
        };
        let ignored = attributes.has("ignore_index").then(|| attributes.whole("ignore_index", 0)).transpose()?;
        Ok(Self { reduction, ignored })
    }

    /// Of logarithms `x` (batch, class, ...) and labels (batch, ...).
    fn loss(self, x: &Tensor, labels: &Tensor, weights: Option<&Tensor>) -> Result<Tensor, String> {
        let [batch, classes, inner @ ..] = x.shape() else { return Err(format!("scores of shape {:?}", x.shape())) };
        let (classes, width) = (*classes, inner.iter().product::<usize>());
        let expected: Shape = std::iter::once(*batch).chain(inner.iter().copied()).collect();
        if labels.shape() != &*expected {
            return Err(format!("labels of shape {:?}, expected {expected:?}", labels.shape()));
        }
        let weights = weights.map(numbers).transpose()?;
        if let Some(weights) = weights.as_ref().filter(|weights| weights.len() != classes) {
            return Err(format!("{} weights for {classes} classes", weights.len()));
        }
        let elements = numbers(x)?;
        let mut losses = Vec::with_capacity(labels.elements());
        let mut total = 0.0;
        for (at, &label) in wholes(labels)?.iter().enumerate() {
            if Some(label) == self.ignored {
                losses.push(0.0);
                continue;
            }
            let class = usize::try_from(label).ok().filter(|&class| class < classes);
            let class = class.ok_or_else(|| format!("label {label} of {classes} classes"))?;
            let weight = weights.as_ref().map_or(1.0, |weights| weights[class]);
            losses.push(-weight * elements[(at / width * classes + class) * width + at % width]);
            total += weight;
        }
        let sum = losses.iter().sum::<f64>();
        match self.reduction {
            Reduction::None => of(x.datatype(), &expected, losses),
            Reduction::Sum => of(x.datatype(), &[], vec![sum]),
            Reduction::Mean => of(x.datatype(), &[], vec![sum / total]),
        }
    }
}

pub(super) fn negative_log_likelihood(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let way = Way::of(attributes)?;
    Ok(Box::new(move |inputs| one(way.loss(inputs.at(0)?, inputs.at(1)?, inputs.maybe(2))?)))
}

pub(super) fn softmax_cross_entropy(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let way = Way::of(attributes)?;
    Ok(Box::new(move |inputs| {
        let logarithms = along(inputs.at(0)?, 1, false, Row::LogSoftmax)?;
        let loss = way.loss(&logarithms, inputs.at(1)?, inputs.maybe(2))?;
        Ok(Outputs::from_iter([loss, logarithms]))
    }))
}
