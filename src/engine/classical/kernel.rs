//! Support vector machines: kernels, votes of pairs, and libsvm's probabilities.

use super::attributes::Attributes;
use super::cast::floats;
use super::linear::{Labels, largest};
use super::matrix::dot;
use super::operators::{Operator, Outputs, made, room_for, rows_of, tensor};
use super::transform::{Second, Transform, logistic};
use crate::base::Tensor;

#[derive(Debug, Clone, Copy)]
enum Kernel {
    Linear,
    Poly { gamma: f32, addend: f32, degree: f32 },
    Rbf { gamma: f32 },
    Sigmoid { gamma: f32, addend: f32 },
}

impl Kernel {
    fn of(attributes: &Attributes<'_>) -> Result<Self, String> {
        let parameters = attributes.floats("kernel_params")?;
        let parameter = |at: usize| parameters.get(at).copied().unwrap_or(0.0);
        let (gamma, addend, degree) = (parameter(0), parameter(1), parameter(2));
        Ok(match attributes.text("kernel_type", "LINEAR")? {
            "LINEAR" => Self::Linear,
            "POLY" => Self::Poly { gamma, addend, degree },
            "RBF" => Self::Rbf { gamma },
            "SIGMOID" => Self::Sigmoid { gamma, addend },
            other => return Err(format!("kernel_type {other:?} is none of ONNX's")),
        })
    }

    fn apply(self, a: &[f32], b: &[f32]) -> f32 {
        match self {
            Self::Linear => dot(a, b),
            Self::Poly { gamma, addend, degree } => (gamma * dot(a, b) + addend).powf(degree),
            Self::Rbf { gamma } => {
                let distance: f32 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
                (-gamma * distance).exp()
            }
            Self::Sigmoid { gamma, addend } => (gamma * dot(a, b) + addend).tanh(),
        }
    }
}

/// The rows of an input of `features` columns each.
fn rows<'a>(x: &Tensor, elements: &'a [f32], features: usize) -> Result<std::slice::ChunksExact<'a, f32>, String> {
    let (_, columns) = rows_of(x)?;
    if columns != features || features == 0 {
        return Err(format!("its input has {columns} features, expected {features}"));
    }
    Ok(elements.chunks_exact(features))
}

pub(super) fn regressor(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (vectors, coefficients) = (attributes.floats("support_vectors")?, attributes.floats("coefficients")?);
    let rho = attributes.floats("rho")?.first().copied().ok_or_else(|| "rho is missing".to_owned())?;
    let count = usize::try_from(attributes.whole("n_supports", 0)?).map_err(|_| "n_supports below 0".to_owned())?;
    let is_one_class = attributes.whole("one_class", 0)? != 0;
    let kernel = if count == 0 { Kernel::Linear } else { Kernel::of(attributes)? };
    // Without support vectors the coefficients are the model.
    let (vectors, weights) = if count == 0 { (coefficients, vec![1.0]) } else { (vectors, coefficients) };
    let count = count.max(1);
    if vectors.is_empty() || vectors.len() % count != 0 || weights.len() != count {
        return Err(format!("{} numbers and {} coefficients for {count} vectors", vectors.len(), weights.len()));
    }
    let features = vectors.len() / count;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let elements = floats(x)?;
        let score = |row: &[f32]| {
            let vectors = vectors.chunks_exact(features).zip(&weights);
            let score = vectors.map(|(vector, weight)| weight * kernel.apply(row, vector)).sum::<f32>() + rho;
            match (is_one_class, score > 0.0) {
                (false, _) => score,
                (true, true) => 1.0,
                (true, false) => -1.0,
            }
        };
        let scores: Vec<f32> = rows(x, &elements, features)?.map(score).collect();
        made(&[scores.len(), 1], scores)
    }))
}

struct Machine {
    kernel: Kernel,
    vectors: Vec<f32>,
    features: usize,
    /// For each class, where its vectors begin; one more than there are classes.
    starts: Vec<usize>,
    /// A line for all classes but one, a column a vector.
    coefficients: Vec<f32>,
    rho: Vec<f32>,
    /// `prob_a` and `prob_b` for every pair; empty without probabilities.
    sigmoids: Vec<(f32, f32)>,
    transform: Transform,
    classes: usize,
}

pub(super) fn classifier(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let labels = Labels::of(attributes, "classlabels_ints", "classlabels_strings")?;
    let per_class = attributes.wholes("vectors_per_class")?;
    let mut starts = vec![0_usize];
    for count in per_class {
        let next = usize::try_from(count).ok().and_then(|count| starts[starts.len() - 1].checked_add(count));
        starts.push(next.ok_or_else(|| format!("{count} vectors of a class"))?);
    }
    let (classes, count) = (labels.count(), starts[starts.len() - 1]);
    let coefficients = attributes.floats("coefficients")?;
    let rho = attributes.floats("rho")?;
    if classes == 0 || rho.is_empty() {
        return Err("it has no classes or no rho".to_owned());
    }
    let names = labels.with_unnamed()?;
    let transform = Transform::of(attributes)?;
    if count == 0 {
        return linear(coefficients, rho[0], classes, names, transform);
    }
    let vectors = attributes.floats("support_vectors")?;
    let (a, b) = (attributes.floats("prob_a")?, attributes.floats("prob_b")?);
    let pairs = classes * (classes - 1) / 2;
    let sizes_fit = starts.len() == classes + 1
        && !vectors.is_empty()
        && vectors.len() % count == 0
        && coefficients.len() >= (classes - 1).saturating_mul(count)
        && rho.len() >= pairs
        && a.len() == b.len()
        && (a.is_empty() || a.len() >= pairs);
    if !sizes_fit {
        return Err(format!("its lists do not fit {classes} classes with {count} support vectors"));
    }
    let (kernel, features) = (Kernel::of(attributes)?, vectors.len() / count);
    let sigmoids = a.into_iter().zip(b).collect();
    let machine = Machine { kernel, vectors, features, starts, coefficients, rho, sigmoids, transform, classes };
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let elements = floats(x)?;
        let rows = rows(x, &elements, machine.features)?;
        let width = machine.width();
        let mut scores = vec![0.0_f32; room_for(&[rows.len(), width])?];
        let mut chosen = Vec::with_capacity(rows.len());
        let mut work = Work::default();
        for (row, scores) in rows.zip(scores.chunks_exact_mut(width)) {
            chosen.push(machine.judge(row, scores, &mut work));
        }
        let mut outputs = Outputs::new();
        let shape = [chosen.len(), width];
        outputs.push(Labels::name(&names, chosen)?);
        outputs.push(tensor(&shape, scores)?);
        Ok(outputs)
    }))
}

/// What a row needs on the way, kept from row to row.
#[derive(Default)]
struct Work {
    kernels: Vec<f32>,
    votes: Vec<u32>,
    pairs: Vec<f32>,
}

impl Machine {
    /// Scores of a row: one a class, or one a pair without probabilities.
    fn width(&self) -> usize {
        if !self.sigmoids.is_empty() || self.classes <= 2 {
            self.classes.max(2)
        } else {
            self.classes * (self.classes - 1) / 2
        }
    }

    /// The class with most votes, and the scores.
    fn judge(&self, row: &[f32], scores: &mut [f32], work: &mut Work) -> usize {
        let Work { kernels, votes, pairs } = work;
        kernels.clear();
        kernels.extend(self.vectors.chunks_exact(self.features).map(|vector| self.kernel.apply(row, vector)));
        votes.clear();
        votes.resize(self.classes, 0);
        pairs.clear();
        let count = kernels.len();
        for i in 0..self.classes {
            for j in i + 1..self.classes {
                let part = |line: usize, of: usize| {
                    let vectors = self.starts[of]..self.starts[of + 1];
                    let weights = &self.coefficients[line * count..(line + 1) * count];
                    let products = weights[vectors.clone()].iter().zip(&kernels[vectors]);
                    products.map(|(weight, kernel)| f64::from(weight * kernel)).sum::<f64>()
                };
                let sum = part(j - 1, i) + part(i, j) + f64::from(self.rho[pairs.len()]);
                votes[if sum > 0.0 { i } else { j }] += 1;
                pairs.push(sum as f32);
            }
        }
        if !self.sigmoids.is_empty() {
            probabilities(pairs, &self.sigmoids, &mut scores[..self.classes]);
            self.transform.apply(&mut scores[..self.classes]);
        } else if let [score] = pairs[..] {
            let second = if self.transform == Transform::None { Second::Negated } else { Second::Complement };
            self.transform.apply_single(score, second, scores);
        } else {
            scores[..pairs.len()].copy_from_slice(pairs);
            self.transform.apply(&mut scores[..pairs.len()]);
        }
        let most = votes.iter().copied().max().unwrap_or(0);
        votes.iter().position(|&votes| votes == most).unwrap_or(0)
    }
}

/// Liblinear's form: one line of coefficients a class.
fn linear(
    coefficients: Vec<f32>,
    rho: f32,
    classes: usize,
    names: Tensor,
    transform: Transform,
) -> Result<Operator, String> {
    if coefficients.is_empty() || !coefficients.len().is_multiple_of(classes) {
        return Err(format!("{} coefficients for {classes} classes", coefficients.len()));
    }
    let features = coefficients.len() / classes;
    let all_positive = coefficients.iter().all(|&weight| weight >= 0.0);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let elements = floats(x)?;
        let rows = rows(x, &elements, features)?;
        let (mut scores, mut chosen) = (Vec::with_capacity(rows.len() * classes), Vec::with_capacity(rows.len()));
        for row in rows {
            let start = scores.len();
            scores.extend(coefficients.chunks_exact(features).map(|line| dot(row, line) + rho));
            let own = &mut scores[start..];
            let best = largest(own);
            let is_positive = if all_positive { own[best] >= 0.5 } else { own[best] > 0.0 };
            chosen.push(if classes == 2 && is_positive { 1 } else { best });
            match own {
                [score] => transform.apply_single(*score, Second::No, own),
                own => transform.apply(own),
            }
        }
        let mut outputs = Outputs::new();
        let shape = [chosen.len(), classes];
        outputs.push(Labels::name(&names, chosen)?);
        outputs.push(tensor(&shape, scores)?);
        Ok(outputs)
    }))
}

/// Probabilities of classes from those of pairs: method 2 of Wu, Lin and Weng, "Probability Estimates for Multi-class
/// Classification by Pairwise Coupling" (JMLR 5, 2004), which libsvm uses.
fn probabilities(pairs: &[f32], sigmoids: &[(f32, f32)], probabilities: &mut [f32]) {
    const NEAR: f32 = 1e-7;
    const ROUNDS: usize = 100;
    let k = probabilities.len();
    let mut beats = vec![0.0_f32; k * k];
    let mut pair = pairs.iter().zip(sigmoids);
    for i in 0..k {
        for j in i + 1..k {
            let Some((score, (a, b))) = pair.next() else { return };
            let p = (1.0 - logistic(score * a + b)).clamp(NEAR, 1.0 - NEAR);
            beats[i * k + j] = p;
            beats[j * k + i] = 1.0 - p;
        }
    }
    let mut q = vec![0.0_f32; k * k];
    for i in 0..k {
        for j in (0..k).filter(|&j| j != i) {
            q[i * k + i] += beats[j * k + i] * beats[j * k + i];
            q[i * k + j] = -beats[j * k + i] * beats[i * k + j];
        }
    }
    probabilities.fill(1.0 / k as f32);
    let mut qp = vec![0.0_f32; k];
    for _ in 0..ROUNDS {
        let mut pqp = 0.0;
        for i in 0..k {
            qp[i] = q[i * k..(i + 1) * k].iter().zip(probabilities.iter()).map(|(q, p)| q * p).sum();
            pqp += probabilities[i] * qp[i];
        }
        let error = qp.iter().map(|qp| (qp - pqp).abs()).fold(0.0, f32::max);
        if error < 0.005 / k as f32 {
            break;
        }
        for i in 0..k {
            let own = q[i * k + i];
            let step = (pqp - qp[i]) / own;
            probabilities[i] += step;
            pqp = (pqp + step * (step * own + 2.0 * qp[i])) / (1.0 + step) / (1.0 + step);
            for j in 0..k {
                qp[j] = (qp[j] + step * q[i * k + j]) / (1.0 + step);
                probabilities[j] /= 1.0 + step;
            }
        }
    }
}
