//! Products of matrices: small ones, such as a network with one hidden layer.

use super::attributes::Attributes;
use super::operators::{Operator, Outputs, made, room_for, tensor, wrong_type};
use crate::base::{Datatype, Element, Shape, Tensor};

pub(super) trait Float: Element + std::ops::AddAssign + std::ops::Mul<Output = Self> + Default {
    fn from_single(number: f32) -> Self;
}

impl Float for f32 {
    fn from_single(number: f32) -> Self {
        number
    }
}

impl Float for f64 {
    fn from_single(number: f32) -> Self {
        f64::from(number)
    }
}

/// `into += a * b`, all row-major: `a` is rows x inner, `b` inner x columns.
fn add_product<T: Float>(a: &[T], b: &[T], into: &mut [T], inner: usize, columns: usize) {
    if inner == 0 || columns == 0 {
        return;
    }
    for (row, into) in a.chunks_exact(inner).zip(into.chunks_exact_mut(columns)) {
        for (&factor, line) in row.iter().zip(b.chunks_exact(columns)) {
            for (sum, &element) in into.iter_mut().zip(line) {
                *sum += factor * element;
            }
        }
    }
}

/// Sum of products; eight at a time, so that the compiler may use wide registers.
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0_f32; 8];
    let (wide_a, rest_a) = a.as_chunks::<8>();
    let (wide_b, rest_b) = b.as_chunks::<8>();
    for (a, b) in wide_a.iter().zip(wide_b) {
        for (sum, (a, b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

pub(super) fn product<T: Float>(a: &Tensor, b: &Tensor) -> Result<Outputs, String> {
    let both = a.as_slice::<T>().zip(b.as_slice::<T>());
    let (left, right) = both.ok_or_else(|| format!("{} times {}", a.datatype(), b.datatype()))?;
    // A vector on the left is a row, on the right a column.
    let mut shape_a = Shape::from_slice(a.shape());
    let mut shape_b = Shape::from_slice(b.shape());
    if shape_a.len() == 1 {
        shape_a.insert(0, 1);
    }
    if shape_b.len() == 1 {
        shape_b.push(1);
    }
    let ([outer_a @ .., rows, inner], [outer_b @ .., inner_b, columns]) = (&shape_a[..], &shape_b[..]) else {
        return Err("a product with a number".to_owned());
    };
    let (rows, inner, columns) = (*rows, *inner, *columns);
    if inner != *inner_b {
        return Err(format!("shapes {:?} and {:?} do not go together", a.shape(), b.shape()));
    }
    let outer = super::elementwise::common_shape(outer_a, outer_b)?;
    let places =
        super::elementwise::spread(outer_a, &outer).into_iter().zip(super::elementwise::spread(outer_b, &outer));
    let mut shape = outer.clone();
    shape.extend([rows, columns]);
    let mut data = vec![T::default(); room_for(&shape)?];
    for (at, (of_a, of_b)) in places.enumerate() {
        let a = &left[of_a * rows * inner..(of_a + 1) * rows * inner];
        let b = &right[of_b * inner * columns..(of_b + 1) * inner * columns];
        add_product(a, b, &mut data[at * rows * columns..(at + 1) * rows * columns], inner, columns);
    }
    if a.shape().len() == 1 {
        shape.remove(shape.len() - 2);
    }
    if b.shape().len() == 1 {
        shape.pop();
    }
    made(&shape, data)
}

pub(super) fn mat_mul(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (a, b) = (inputs.at(0)?, inputs.at(1)?);
        match a.datatype() {
            Datatype::Fp32 => product::<f32>(a, b),
            Datatype::Fp64 => product::<f64>(a, b),
            _ => Err(wrong_type(a)),
        }
    }))
}

fn transposed<T: Float>(x: &Tensor) -> Result<Tensor, String> {
    let elements = x.as_slice::<T>().unwrap_or_default();
    let &[rows, columns] = x.shape() else { return Err("no matrix".to_owned()) };
    let data = (0..columns).flat_map(|column| (0..rows).map(move |row| elements[row * columns + column])).collect();
    tensor(&[columns, rows], data)
}

pub(super) fn gemm(attributes: &Attributes<'_>) -> Result<Operator, String> {
    fn typed<T: Float>(
        a: &Tensor,
        b: &Tensor,
        c: Option<&Tensor>,
        [alpha, beta]: [f32; 2],
        [turn_a, turn_b]: [bool; 2],
    ) -> Result<Outputs, String> {
        let a = if turn_a { transposed::<T>(a)? } else { a.clone() };
        let b = if turn_b { transposed::<T>(b)? } else { b.clone() };
        let mut outputs = product::<T>(&a, &b)?;
        let x = outputs.swap_remove(0);
        let (alpha, beta) = (T::from_single(alpha), T::from_single(beta));
        let mut data: Vec<T> = x.as_slice::<T>().unwrap_or_default().iter().map(|&x| alpha * x).collect();
        if let Some(c) = c {
            let addends = c.as_slice::<T>().ok_or_else(|| wrong_type(c))?;
            if super::elementwise::common_shape(x.shape(), c.shape())?.as_slice() != x.shape() {
                return Err(format!("{:?} is added to {:?}", c.shape(), x.shape()));
            }
            for (sum, place) in data.iter_mut().zip(super::elementwise::spread(c.shape(), x.shape())) {
                *sum += beta * addends[place];
            }
        }
        made(x.shape(), data)
    }
    let factors = [attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?];
    let turns = [attributes.whole("transA", 0)? != 0, attributes.whole("transB", 0)? != 0];
    Ok(Box::new(move |inputs| {
        let (a, b, c) = (inputs.at(0)?, inputs.at(1)?, inputs.maybe(2));
        match a.datatype() {
            Datatype::Fp32 => typed::<f32>(a, b, c, factors, turns),
            Datatype::Fp64 => typed::<f64>(a, b, c, factors, turns),
            _ => Err(wrong_type(a)),
        }
    }))
}
