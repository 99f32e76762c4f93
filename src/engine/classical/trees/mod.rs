//! Ensembles of trees: `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and, since version 5, `TreeEnsemble`.
//!
//! [`build`] checks the lists of a file and gives a [`Forest`] of linked nodes; [`flat`] lays it out and walks it;
//! [`finish`] makes scores and classes of what the leaves say.

mod build;
mod finish;
mod flat;

use std::borrow::Cow;
use std::sync::OnceLock;

use super::TARGETS_MAX;
use super::attributes::Attributes;
use super::cast::floats;
use super::linear::Labels;
use super::operators::{Operator, Outputs, made, room_for, rows_of, tensor, wrong_type};
use super::transform::Transform;
use crate::base::{Datatype, Tensor};
use build::Forest;
use finish::{Aggregate, Classes, Targets};
use flat::Flat;

/// How a node compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    LessOrEqual,
    Less,
    GreaterOrEqual,
    Greater,
    Equal,
    NotEqual,
    /// Is in a set.
    Member,
}

/// A forest for inputs of 32 and of 64 bits: thresholds compare as wide as the input is, or as the file's own are.
struct Layouts {
    single: Option<Flat<f32>>,
    /// Made when the first input of 64 bits comes, if the file's thresholds have 32.
    double: OnceLock<Flat<f64>>,
}

/// What the leaves of all trees say together, as wide as it was compared.
enum Sums {
    Single(Vec<f32>),
    Double(Vec<f64>),
}

impl Layouts {
    fn of(forest: &Forest, targets: usize) -> Result<Self, String> {
        let double = OnceLock::new();
        if forest.is_double {
            // Set once, just here.
            let _ = double.set(Flat::of(forest, targets)?);
            return Ok(Self { single: None, double });
        }
        Ok(Self { single: Some(Flat::of(forest, targets)?), double })
    }

    /// Scores of every row, `columns` each.
    fn run(&self, x: &Tensor, aggregate: Aggregate) -> Result<Sums, String> {
        let (rows, columns) = rows_of(x)?;
        match (&self.single, x.datatype()) {
            (_, Datatype::Bytes) => Err(wrong_type(x)),
            (Some(flat), datatype) if datatype != Datatype::Fp64 => {
                Ok(Sums::Single(flat.run(&floats(x)?, rows, columns, aggregate)?))
            }
            (single, _) => {
                let widened = || single.as_ref().map_or_else(Flat::default, Flat::widened);
                let elements = match x.as_slice::<f64>() {
                    Some(same) => Cow::Borrowed(same),
                    None => Cow::Owned(x.to_numbers().ok_or_else(|| wrong_type(x))?),
                };
                Ok(Sums::Double(self.double.get_or_init(widened).run(&elements, rows, columns, aggregate)?))
            }
        }
    }
}

fn targets_of(attributes: &Attributes<'_>) -> Result<usize, String> {
    let targets = attributes.whole("n_targets", 1)?;
    let within = usize::try_from(targets).ok().filter(|targets| (1..=TARGETS_MAX).contains(targets));
    within.ok_or_else(|| format!("n_targets is {targets}, expected 1 to {TARGETS_MAX}"))
}

pub(super) fn regressor(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let forest = build::listed(attributes, "target")?;
    let aggregate = Aggregate::named(attributes.text("aggregate_function", "SUM")?)?;
    let base = build::numbers(attributes, "base_values")?.0;
    let targets = Targets::new(&forest, targets_of(attributes)?, aggregate, base, Transform::of(attributes)?)?;
    sums(&forest, targets, false)
}

pub(super) fn ensemble(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let forest = build::indexed(attributes)?;
    let aggregate = Aggregate::numbered(attributes.whole("aggregate_function", 1)?)?;
    let transform = Transform::numbered(attributes.whole("post_transform", 0)?)?;
    let targets = Targets::new(&forest, targets_of(attributes)?, aggregate, Vec::new(), transform)?;
    // Since version 5 what comes out is as wide as what goes in.
    sums(&forest, targets, true)
}

fn sums(forest: &Forest, targets: Targets, keep_width: bool) -> Result<Operator, String> {
    let layouts = Layouts::of(forest, targets.count())?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let shape = [rows_of(x)?.0, targets.count()];
        let elements = room_for(&shape)?;
        match layouts.run(x, targets.aggregate())? {
            Sums::Single(sums) => {
                let mut data: Vec<f32> = Vec::with_capacity(elements);
                targets.finish(&sums, &mut data);
                made(&shape, data)
            }
            Sums::Double(sums) if keep_width && x.datatype() == Datatype::Fp64 => {
                let mut data: Vec<f64> = Vec::with_capacity(elements);
                targets.finish(&sums, &mut data);
                made(&shape, data)
            }
            Sums::Double(sums) => {
                let mut data: Vec<f32> = Vec::with_capacity(elements);
                targets.finish(&sums, &mut data);
                made(&shape, data)
            }
        }
    }))
}

pub(super) fn classifier(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let forest = build::listed(attributes, "class")?;
    let labels = Labels::of(attributes, "classlabels_int64s", "classlabels_strings")?;
    let base = build::numbers(attributes, "base_values")?.0;
    let classes = Classes::new(&forest, labels.count(), base, Transform::of(attributes)?)?;
    let layouts = Layouts::of(&forest, labels.count())?;
    let names = labels.with_unnamed()?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let shape = [rows_of(x)?.0, classes.count()];
        let mut scores = Vec::with_capacity(room_for(&shape)?);
        let mut chosen = Vec::with_capacity(shape[0]);
        match layouts.run(x, Aggregate::Sum)? {
            Sums::Single(sums) => classes.finish(&sums, &mut scores, &mut chosen),
            Sums::Double(sums) => classes.finish(&sums, &mut scores, &mut chosen),
        }
        let mut outputs = Outputs::new();
        outputs.push(Labels::name(&names, chosen)?);
        outputs.push(tensor(&shape, scores)?);
        Ok(outputs)
    }))
}
