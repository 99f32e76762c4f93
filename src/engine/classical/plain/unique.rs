//! `Unique`: what is there, where first, and how often.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, Outputs, axis_of, tensor};
use crate::engine::classical::shaping::pick;

/// One element of a slice, in an order of its own: nan behind everything.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    Number(f64),
    Whole(i64),
    Text(Vec<u8>),
}

impl Eq for Item {}

impl Ord for Item {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b).unwrap_or_else(|| a.total_cmp(b)),
            (Self::Whole(a), Self::Whole(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => a.cmp(b),
            // A tensor has items of one kind.
            _ => Ordering::Equal,
        }
    }
}

impl PartialOrd for Item {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn items(x: &Tensor) -> Vec<Item> {
    match (x.as_slice::<i64>(), x.texts()) {
        (Some(wholes), _) => wholes.iter().map(|&whole| Item::Whole(whole)).collect(),
        (_, Some(texts)) => texts.map(|text| Item::Text(text.to_vec())).collect(),
        _ => x.to_numbers().unwrap_or_default().into_iter().map(Item::Number).collect(),
    }
}

pub(super) fn unique(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_sorted = attributes.whole("sorted", 1)? != 0;
    let axis = attributes.has("axis").then(|| attributes.whole("axis", 0)).transpose()?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (outer, dim, inner) = match axis {
            None => (1, x.elements(), 1),
            Some(axis) => {
                let axis = axis_of(axis, x.shape().len())?;
                let (outer, rest) = x.shape().split_at(axis);
                let (&dim, inner) = rest.split_first().ok_or_else(|| "its input has no dimension".to_owned())?;
                (outer.iter().product(), dim, inner.iter().product())
            }
        };
        let items = items(x);
        let slice = |k: usize| -> Vec<&Item> {
            (0..outer).flat_map(|row| &items[(row * dim + k) * inner..(row * dim + k + 1) * inner]).collect()
        };
        // Which slices there are, by where each was first.
        let mut known: BTreeMap<Vec<&Item>, usize> = BTreeMap::new();
        let (mut first, mut counts, mut inverse) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..dim {
            let next = first.len();
            let number = *known.entry(slice(k)).or_insert(next);
            if number == next {
                first.push(k);
                counts.push(0_i64);
            }
            counts[number] += 1;
            inverse.push(number);
        }
        let order: Vec<usize> = if is_sorted { known.into_values().collect() } else { (0..first.len()).collect() };
        let mut place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(at, &number)| place[number] = at);
        let shape: Shape = match axis {
            None => Shape::from_slice(&[order.len()]),
            Some(axis) => {
                let mut shape = Shape::from_slice(x.shape());
                shape[axis_of(axis, x.shape().len())?] = order.len();
                shape
            }
        };
        let places = (0..outer).flat_map(|row| order.iter().map(move |&number| (row, number)));
        let places = places.flat_map(|(row, number)| {
            let start = (row * dim + first[number]) * inner;
            start..start + inner
        });
        let wholes = |list: Vec<i64>| tensor(&[list.len()], list);
        Ok(Outputs::from_iter([
            pick(&[x], &shape, places)?,
            wholes(order.iter().map(|&number| first[number] as i64).collect())?,
            wholes(inverse.iter().map(|&number| place[number] as i64).collect())?,
            wholes(order.iter().map(|&number| counts[number]).collect())?,
        ]))
    }))
}
