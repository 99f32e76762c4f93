//! From what the leaves say to scores and classes, as ONNX Runtime reads the specification where that is silent.

use super::build::Forest;
use super::flat::Number;
use crate::engine::classical::transform::{Second, Transform};

/// How the leaves of several trees become one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

impl Aggregate {
    pub(super) fn named(name: &str) -> Result<Self, String> {
        Ok(match name {
            "AVERAGE" => Self::Average,
            "SUM" => Self::Sum,
            "MIN" => Self::Min,
            "MAX" => Self::Max,
            other => return Err(format!("aggregate_function {other:?} is none of ONNX's")),
        })
    }

    pub(super) fn numbered(number: i64) -> Result<Self, String> {
        let known = [Self::Average, Self::Sum, Self::Min, Self::Max];
        let found = usize::try_from(number).ok().and_then(|number| known.get(number).copied());
        found.ok_or_else(|| format!("aggregate_function {number} is none of ONNX's"))
    }

    /// What a sum is before the first tree.
    pub(super) fn start<T: Number>(self) -> T {
        T::of(match self {
            Self::Average | Self::Sum => 0.0,
            Self::Min => f64::INFINITY,
            Self::Max => f64::NEG_INFINITY,
        })
    }

    #[inline(always)]
    pub(super) fn add<T: Number>(self, sum: &mut T, weight: T) {
        match self {
            Self::Average | Self::Sum => *sum += weight,
            Self::Min => {
                if weight < *sum {
                    *sum = weight;
                }
            }
            Self::Max => {
                if weight > *sum {
                    *sum = weight;
                }
            }
        }
    }
}

impl Forest {
    /// The target that all weights add to, if it is the same.
    pub(super) fn only_target(&self, targets: usize) -> Option<usize> {
        match self.weights.first() {
            None => (targets == 1).then_some(0),
            Some((first, _)) => self.weights.iter().all(|(target, _)| target == first).then_some(*first),
        }
    }

    fn is_scored(&self, targets: usize) -> Vec<bool> {
        let mut scored = vec![false; targets];
        for (target, _) in &self.weights {
            scored[*target] = true;
        }
        scored
    }
}

/// Sums as they come from the trees: a column a target, or the only one that has any.
fn spread<T: Number>(sums: &[T], only: Option<usize>, into: &mut [T]) {
    match (sums, only) {
        ([sum], Some(only)) => {
            into.fill(T::default());
            into[only] = *sum;
        }
        (sums, _) => into.copy_from_slice(sums),
    }
}

/// Columns of the sums, and which target they are if there is one column only.
fn columns(forest: &Forest, targets: usize) -> (usize, Option<usize>) {
    let single = forest.nodes.iter().all(|node| node.weights.len() <= 1);
    match forest.only_target(targets).filter(|_| single) {
        Some(only) => (1, Some(only)),
        None => (targets, None),
    }
}

/// Outputs of a regression.
pub(super) struct Targets {
    count: usize,
    columns: usize,
    only: Option<usize>,
    trees: f64,
    aggregate: Aggregate,
    base: Vec<f64>,
    transform: Transform,
}

impl Targets {
    pub(super) fn new(
        forest: &Forest,
        count: usize,
        aggregate: Aggregate,
        base: Vec<f64>,
        transform: Transform,
    ) -> Result<Self, String> {
        forest.check_targets(count)?;
        if !base.is_empty() && base.len() != count {
            return Err(format!("base_values has {} entries for {count} outputs", base.len()));
        }
        let (columns, only) = columns(forest, count);
        Ok(Self { count, columns, only, trees: forest.roots.len() as f64, aggregate, base, transform })
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn aggregate(&self) -> Aggregate {
        self.aggregate
    }

    /// Appends the outputs of every row.
    pub(super) fn finish<T: Number, R: Number>(&self, sums: &[T], into: &mut Vec<R>) {
        let mut row = vec![T::default(); self.count];
        let mut scores = vec![0.0_f32; self.count];
        for sums in sums.chunks_exact(self.columns) {
            spread(sums, self.only, &mut row);
            for (at, score) in row.iter_mut().enumerate() {
                let value = score.to_f64();
                let value = match self.aggregate {
                    Aggregate::Average => T::of(value / self.trees),
                    // Nothing was added: no tree has this output.
                    Aggregate::Min | Aggregate::Max if value.is_infinite() => T::default(),
                    _ => *score,
                };
                *score = match self.base.get(at) {
                    Some(base) => T::of(value.to_f64() + T::of(*base).to_f64()),
                    None => value,
                };
            }
            if self.transform == Transform::None {
                into.extend(row.iter().map(|score| R::of(score.to_f64())));
                continue;
            }
            for (score, value) in scores.iter_mut().zip(&row) {
                *score = value.to_f32();
            }
            match scores.as_mut_slice() {
                [score] => self.transform.apply_single(*score, Second::No, std::slice::from_mut(score)),
                scores => self.transform.apply(scores),
            }
            into.extend(scores.iter().map(|&score| R::of(f64::from(score))));
        }
    }
}

/// Classes and their scores.
pub(super) struct Classes {
    count: usize,
    columns: usize,
    only: Option<usize>,
    base: Vec<f64>,
    transform: Transform,
    /// Classes that some leaf adds to.
    scored: Vec<bool>,
    /// Two classes, and leaves know one of them.
    is_binary: bool,
    all_positive: bool,
}

impl Classes {
    pub(super) fn new(forest: &Forest, count: usize, base: Vec<f64>, transform: Transform) -> Result<Self, String> {
        if count == 0 {
            return Err("it has no classes".to_owned());
        }
        forest.check_targets(count)?;
        if base.len() > count {
            return Err(format!("base_values has {} entries for {count} classes", base.len()));
        }
        let (columns, only) = columns(forest, count);
        let is_binary = count == 2 && forest.only_target(count).is_some();
        let all_positive = forest.weights.iter().all(|(_, weight)| *weight >= 0.0);
        let scored = forest.is_scored(count);
        Ok(Self { count, columns, only, base, transform, scored, is_binary, all_positive })
    }

    /// Scores of a row.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Appends the scores of every row, and its class: a place among the names, those of unnamed ones behind.
    pub(super) fn finish<T: Number>(&self, sums: &[T], scores: &mut Vec<f32>, chosen: &mut Vec<usize>) {
        let mut row = vec![T::default(); self.count];
        for sums in sums.chunks_exact(self.columns) {
            spread(sums, self.only, &mut row);
            let start = scores.len();
            scores.resize(start + self.count, 0.0);
            let own = &mut scores[start..];
            chosen.push(if self.count > 2 { self.many(&mut row, own) } else { self.few(&mut row, own) });
        }
    }

    fn base<T: Number>(&self, at: usize) -> T {
        T::of(self.base.get(at).copied().unwrap_or(0.0))
    }

    fn many<T: Number>(&self, row: &mut [T], scores: &mut [f32]) -> usize {
        let mut best: Option<usize> = None;
        for at in 0..row.len() {
            let base = self.base::<T>(at);
            row[at] += base;
            let counts = self.scored[at] || at < self.base.len();
            if counts && best.is_none_or(|best| row[at] > row[best]) {
                best = Some(at);
            }
        }
        for (score, value) in scores.iter_mut().zip(row.iter()) {
            *score = value.to_f32();
        }
        self.transform.apply(scores);
        best.unwrap_or(0)
    }

    /// One or two classes. Leaves may know one score only, which then stands for both classes.
    fn few<T: Number>(&self, row: &mut [T], scores: &mut [f32]) -> usize {
        let knows_second = self.scored.get(1).copied().unwrap_or(false);
        let (mut first, mut second) = (row[0], row.get(1).copied().unwrap_or_default());
        // Without base values a second score that no leaf knows does not exist.
        let mut has_second = self.count == 2;
        match self.base.len() {
            2 if knows_second => {
                second = self.base(1);
                second += first;
                first = T::of(-second.to_f64());
            }
            2 => {
                second += self.base(1);
                first += self.base(0);
            }
            length => {
                if length == 1 {
                    first += self.base(0);
                }
                has_second &= knows_second;
            }
        }
        let positive = if has_second && knows_second { second } else { first };
        // What no leaf adds to is 0, whatever its base value is.
        let or_zero = |score: T, at: usize| if self.scored.get(at) == Some(&true) { score } else { T::default() };
        let limit = if self.is_binary && self.all_positive { 0.5 } else { 0.0 };
        let is_positive = positive.to_f64() > limit;
        if has_second {
            (scores[0], scores[1]) = (or_zero(first, 0).to_f32(), or_zero(second, 1).to_f32());
            self.transform.apply(scores);
        } else {
            let second = match (self.is_binary, self.all_positive) {
                (false, _) => Second::No,
                (true, true) => Second::Complement,
                (true, false) => Second::Negated,
            };
            self.transform.apply_single(first.to_f32(), second, scores);
        }
        // Where leaves know both classes, the reference says 0 or 1 whatever the classes are called.
        if self.is_binary { usize::from(is_positive) } else { self.count + usize::from(is_positive) }
    }
}
