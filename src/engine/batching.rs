//! Requests joined into one batch, and what came out of it shared out again.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::handle::Loaded;
use super::serving::{Batching, When};
use super::spec::{LoadSpec, NamedTensor, TensorSpec};
use crate::base::{Clock, Datatype, Tensor};

/// Rows in the batches that are measured.
const TRIED: [usize; 2] = [4, 8];
/// A row must get cheaper to this part of what it costs alone.
const WORTH: f64 = 0.75;
/// Runs of each size; the fastest counts, since whatever else the box does only adds.
const RUNS: usize = 3;
/// A model that takes longer than this alone is not measured.
const SLOW: Duration = Duration::from_millis(20);
/// Largest difference of a row alone and in a batch, where the manifest wants batches, of the larger of 1 and the value.
const ROUNDING: f64 = 1e-4;

/// Requests are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Joins {
    pub(super) rows_max: usize,
    pub(super) delay: Duration,
}

/// The rows of a request that may stand in a batch: every input has as many, and not more than the batch.
pub(super) fn rows(inputs: &[NamedTensor], joins: Option<Joins>) -> Option<usize> {
    let most = joins?.rows_max;
    let mut each = inputs.iter().map(|input| input.tensor.shape().first().copied());
    let rows = each.next()??;
    ((1..=most).contains(&rows) && each.all(|other| other == Some(rows))).then_some(rows)
}

/// The inputs of several requests as one request's. All have the same inputs and inner shapes.
pub(super) fn join(requests: &[&[NamedTensor]]) -> Option<Vec<NamedTensor>> {
    let first = requests.first()?;
    let joined = |at: usize| {
        let parts: Vec<&Tensor> = requests.iter().map(|inputs| &inputs[at].tensor).collect();
        let mut bytes = BytesMut::with_capacity(parts.iter().map(|part| part.bytes().len()).sum());
        parts.iter().for_each(|part| bytes.extend_from_slice(part.bytes()));
        let mut shape = parts[0].shape().to_vec();
        shape[0] = parts.iter().map(|part| part.shape()[0]).sum();
        // Row-major with the batch outermost: rows behind rows are the batch, texts with their lengths as well.
        let tensor = Tensor::from_bytes(parts[0].datatype(), shape, bytes.freeze()).ok()?;
        Some(NamedTensor::new(Arc::clone(&first[at].name), tensor))
    };
    (0..first.len()).map(joined).collect()
}

/// The outputs of a batch, request by request. None if an output has not a row for each.
pub(super) fn share_out(outputs: &[NamedTensor], rows: &[usize]) -> Option<Vec<Vec<NamedTensor>>> {
    let all: usize = rows.iter().sum();
    let mut shared: Vec<Vec<NamedTensor>> = rows.iter().map(|_| Vec::with_capacity(outputs.len())).collect();
    for NamedTensor { name, tensor } in outputs {
        let (&first, inner) = tensor.shape().split_first()?;
        if first != all || all == 0 {
            return None;
        }
        let width = inner.iter().product::<usize>();
        let mut rest = tensor.bytes().clone();
        for (request, &rows) in shared.iter_mut().zip(rows) {
            let bytes = match tensor.datatype().size_bytes() {
                Some(size) => rest.split_to(rows * width * size),
                None => texts_to(&mut rest, rows * width)?,
            };
            let shape: Vec<usize> = [rows].iter().chain(inner).copied().collect();
            let part = Tensor::from_bytes(tensor.datatype(), shape, bytes).ok()?;
            request.push(NamedTensor::new(Arc::clone(name), part));
        }
    }
    Some(shared)
}

/// The first `texts` elements of `BYTES`, split off.
fn texts_to(rest: &mut Bytes, texts: usize) -> Option<Bytes> {
    let mut end = 0;
    for _ in 0..texts {
        let length = rest.get(end..end + 4)?.first_chunk::<4>()?;
        end += 4 + usize::try_from(u32::from_le_bytes(*length)).ok()?;
    }
    (end <= rest.len()).then(|| rest.split_to(end))
}

/// Whether this model's requests are joined, and the reason, for people.
pub(super) fn decide(model: &Loaded, spec: &LoadSpec, wanted: &Batching, clock: &dyn Clock) -> (Option<Joins>, String) {
    let on = |rows_max, why: String| (Some(Joins { rows_max, delay: wanted.delay }), why);
    let off = |why: &str| (None, format!("off: {why}"));
    if wanted.when == When::Never || wanted.rows_max < 2 {
        return off("not wanted");
    }
    let free = |specs: &[TensorSpec]| specs.iter().all(|tensor| tensor.shape.first() == Some(&-1));
    if !free(&model.inputs) || !free(&model.outputs) {
        return off("an input or output has no free first dimension");
    }
    let bits = wanted.when == When::Pays;
    let Some(measured) = measure(model, spec, wanted.rows_max, clock, bits) else {
        // Numbers that were made up may be none that the model takes; whoever wants batches knows better.
        return if bits { off("it could not be measured") } else { on(wanted.rows_max, "on: as wanted".to_owned()) };
    };
    match measured {
        Measured::Differs => off("a row alone and the same row in a batch differ"),
        Measured::Slow(_) if !bits => on(wanted.rows_max, "on: as wanted".to_owned()),
        Measured::Slow(took) => (None, format!("off: not measured, since it takes {} ms alone", took.as_millis())),
        Measured::Costs { alone, rows, each } => {
            let figures = format!("a row takes {} us alone and {} us among {rows}", micros(alone), micros(each));
            if !bits {
                return on(wanted.rows_max, format!("on: as wanted; {figures}"));
            }
            if each.as_secs_f64() > alone.as_secs_f64() * WORTH || alone.is_zero() {
                return (None, format!("off: {figures}"));
            }
            let largest = TRIED.iter().all(|&tried| tried <= rows || tried > wanted.rows_max);
            on(if largest { wanted.rows_max } else { rows }, format!("on: {figures}"))
        }
    }
}

fn micros(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

enum Measured {
    /// In bits, or by more than rounding.
    Differs,
    Slow(Duration),
    /// The size in which a row is cheapest.
    Costs {
        alone: Duration,
        rows: usize,
        each: Duration,
    },
}

/// None if a run fails.
fn measure(model: &Loaded, spec: &LoadSpec, rows_max: usize, clock: &dyn Clock, bits: bool) -> Option<Measured> {
    let sizes: Vec<usize> = TRIED.into_iter().filter(|&rows| rows <= rows_max).collect();
    let sizes = if sizes.is_empty() { vec![rows_max] } else { sizes };
    let most = *sizes.last()?;
    let each: Vec<Vec<NamedTensor>> = (0..most).map(|row| made_up(spec, row)).collect::<Option<_>>()?;
    let timed = |inputs: &[NamedTensor]| {
        let began = clock.since_boot();
        let outputs = model.run(inputs).ok()?;
        Some((outputs, clock.since_boot().saturating_sub(began)))
    };
    let (_, first) = timed(&each[0])?;
    if first > SLOW {
        return Some(Measured::Slow(first));
    }
    let single: Vec<Vec<NamedTensor>> = each.iter().map(|inputs| Some(timed(inputs)?.0)).collect::<Option<_>>()?;
    let fastest = |inputs: &[NamedTensor]| (0..RUNS).map(|_| Some(timed(inputs)?.1)).min().flatten();
    let alone = fastest(&each[0])?;
    let mut best: Option<(usize, Duration)> = None;
    for rows in sizes {
        let together: Vec<&[NamedTensor]> = each[..rows].iter().map(Vec::as_slice).collect();
        let joined = join(&together)?;
        let outputs = share_out(&timed(&joined)?.0, &vec![1; rows])?;
        if !single.iter().zip(&outputs).all(|(alone, batched)| agree(alone, batched, bits)) {
            return Some(Measured::Differs);
        }
        let each = fastest(&joined)? / u32::try_from(rows).ok()?;
        if best.is_none_or(|(_, cheapest)| each < cheapest) {
            best = Some((rows, each));
        }
    }
    best.map(|(rows, each)| Measured::Costs { alone, rows, each })
}

fn agree(alone: &[NamedTensor], batched: &[NamedTensor], bits: bool) -> bool {
    let same = |(a, b): (&NamedTensor, &NamedTensor)| {
        if a.tensor.bytes() == b.tensor.bytes() || bits {
            return a.tensor.bytes() == b.tensor.bytes();
        }
        let (Some(a), Some(b)) = (a.tensor.to_numbers(), b.tensor.to_numbers()) else { return false };
        a.len() == b.len() && a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= ROUNDING * a.abs().max(1.0))
    };
    alone.len() == batched.len() && alone.iter().zip(batched).all(same)
}

/// One row for each input: the same for the same `row`, another for another one, so that a model whose rows look at each
/// other gives itself away. Inner free dimensions are the first sample's, or 1.
pub(super) fn made_up(spec: &LoadSpec, row: usize) -> Option<Vec<NamedTensor>> {
    let make = |(at, port): (usize, &TensorSpec)| {
        let sample = spec.samples.first().and_then(|sample| sample.inputs.iter().find(|input| input.name == port.name));
        let free = |axis: usize| match sample {
            Some(sample) if axis > 0 => sample.tensor.shape().get(axis).copied().unwrap_or(1),
            _ => 1,
        };
        let dims = port.shape.iter().enumerate();
        let shape: Vec<usize> = dims.map(|(axis, &dim)| usize::try_from(dim).unwrap_or_else(|_| free(axis))).collect();
        let elements: usize = shape.iter().product();
        let tensor = if port.datatype == Datatype::Bytes {
            Tensor::of_texts(shape, (0..elements).map(|element| format!("{}", (row + element) % 3))).ok()?
        } else {
            // Small whole numbers are in every type's range, and indices that most tables have.
            let whole = !matches!(port.datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64);
            let number = |element: usize| {
                let mixed = (element * 7 + row * 5 + at * 3) % 13;
                #[allow(clippy::cast_precision_loss, reason = "below 13")]
                let mixed = if whole { (mixed % 2) as f64 } else { (mixed as f64 - 6.0) / 8.0 };
                mixed
            };
            let numbers: Vec<f64> = (0..elements).map(number).collect();
            Tensor::of_numbers(port.datatype, shape, &numbers)?
        };
        Some(NamedTensor::new(Arc::clone(&port.name), tensor))
    };
    spec.inputs.iter().enumerate().map(make).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str, tensor: Tensor) -> NamedTensor {
        NamedTensor::new(name, tensor)
    }

    #[test]
    fn what_was_joined_comes_apart_as_it_was() {
        let request = |rows: usize, from: i64| {
            let count = i64::try_from(rows).unwrap();
            let numbers: Vec<i64> = (from..from + 2 * count).collect();
            let texts: Vec<String> = (0..rows).map(|row| "x".repeat(row + usize::try_from(from).unwrap())).collect();
            vec![
                named("n", Tensor::new([rows, 2], numbers).unwrap()),
                named("t", Tensor::of_texts([rows], texts).unwrap()),
            ]
        };
        let requests = [request(1, 0), request(3, 7), request(2, 1)];
        let parts: Vec<&[NamedTensor]> = requests.iter().map(Vec::as_slice).collect();
        let joined = join(&parts).unwrap();
        assert_eq!((joined[0].tensor.shape(), joined[1].tensor.shape()), (&[6, 2][..], &[6][..]));
        assert_eq!(share_out(&joined, &[1, 3, 2]).unwrap(), requests);
        assert!(share_out(&joined, &[1, 3, 3]).is_none(), "a row is missing");
    }

    #[test]
    fn only_requests_with_rows_that_agree_and_fit_are_joined() {
        let joins = Some(Joins { rows_max: 4, delay: Duration::ZERO });
        let of = |rows: &[usize]| {
            let input = |&rows: &usize| named("x", Tensor::new([rows, 1], vec![0.0_f32; rows]).unwrap());
            super::rows(&rows.iter().map(input).collect::<Vec<_>>(), joins)
        };
        assert_eq!((of(&[1]), of(&[4, 4]), of(&[5]), of(&[0]), of(&[2, 3])), (Some(1), Some(4), None, None, None));
        assert_eq!(rows(&[named("x", Tensor::new([1], vec![0.0_f32]).unwrap())], None), None);
    }
}
