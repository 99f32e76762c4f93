//! What classifiers and regressors do with their scores at the end (`post_transform`).

use super::attributes::Attributes;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transform {
    None,
    Logistic,
    Softmax,
    SoftmaxZero,
    Probit,
}

/// How a second score is made of a single one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Second {
    /// There is none.
    No,
    /// 1 - s and s: s is a probability, or becomes one.
    Complement,
    /// -s and s, each transformed: s is a distance from the border.
    Negated,
}

impl Transform {
    pub(super) fn of(attributes: &Attributes<'_>) -> Result<Self, String> {
        Ok(match attributes.text("post_transform", "NONE")? {
            "NONE" => Self::None,
            "LOGISTIC" => Self::Logistic,
            "SOFTMAX" => Self::Softmax,
            "SOFTMAX_ZERO" => Self::SoftmaxZero,
            "PROBIT" => Self::Probit,
            other => return Err(format!("post_transform {other:?} is none of ONNX's")),
        })
    }

    pub(super) fn numbered(number: i64) -> Result<Self, String> {
        [Self::None, Self::Softmax, Self::Logistic, Self::SoftmaxZero, Self::Probit]
            .get(usize::try_from(number).unwrap_or(usize::MAX))
            .copied()
            .ok_or_else(|| format!("post_transform {number} is none of ONNX's"))
    }

    /// The scores of one row, at least two.
    pub(super) fn apply(self, scores: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Logistic => scores.iter_mut().for_each(|score| *score = logistic(*score)),
            Self::Probit => scores.iter_mut().for_each(|score| *score = probit(*score)),
            Self::Softmax => softmax(scores),
            Self::SoftmaxZero => softmax_zero(scores),
        }
    }

    /// A single score; `scores` has two places if there is a second one.
    pub(super) fn apply_single(self, score: f32, second: Second, scores: &mut [f32]) {
        match (self, second, scores) {
            (Self::Probit, Second::No, [first, ..]) => *first = probit(score),
            // The reference leaves the second one to chance.
            (Self::Probit, _, [first, last]) => (*first, *last) = (-probit(score), probit(score)),
            (Self::Logistic, Second::Complement | Second::Negated, [first, last]) => {
                (*first, *last) = (logistic(-score), logistic(score));
            }
            (_, Second::Complement, [first, last]) => (*first, *last) = (1.0 - score, score),
            (_, Second::Negated, [first, last]) => (*first, *last) = (-score, score),
            (_, _, [first, ..]) => *first = score,
            (_, _, []) => {}
        }
    }
}

/// 1 / (1 + exp(-x)), from the side where nothing overflows.
pub(super) fn logistic(x: f32) -> f32 {
    let v = 1.0 / (1.0 + (-x.abs()).exp());
    if x < 0.0 { 1.0 - v } else { v }
}

/// The normal distribution's quantile by Winitzki's approximation of the inverse error function (2008, a = 0.147), as the
/// reference computes it: a closer one would be another number.
fn probit(p: f32) -> f32 {
    const A: f32 = 0.147;
    // As the reference has it.
    #[allow(clippy::approx_constant, reason = "the reference's own digits")]
    const PI: f32 = 3.14159;
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let half = 2.0 / (PI * A) + 0.5 * log;
    let inverse = ((half * half - log / A).sqrt() - half).sqrt();
    std::f32::consts::SQRT_2 * if x < 0.0 { -inverse } else { inverse }
}

pub(super) fn softmax(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        *score = (*score - largest).exp();
        sum += *score;
    }
    for score in scores {
        *score /= sum;
    }
}

/// Zeros stay zeros.
fn softmax_zero(scores: &mut [f32]) {
    let largest = scores.iter().copied().fold(f32::MIN, f32::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if score.abs() > 1e-7 {
            *score = (*score - largest).exp();
            sum += *score;
        } else {
            *score *= (-largest).exp();
        }
    }
    for score in scores {
        *score /= sum;
    }
}
