//! Operators on texts: joining, splitting, cleaning, counting n-grams.

use std::collections::HashMap;

use crate::base::{Shape, Tensor};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::cast::wholes;
use crate::engine::classical::elementwise::{common_shape, spread};
use crate::engine::classical::operators::{Operator, Outputs, made, one, room_for, tensor, wrong_type};

/// The texts of a tensor; what is not UTF-8 is an error.
fn texts(x: &Tensor) -> Result<Vec<&str>, String> {
    let texts = x.texts().ok_or_else(|| wrong_type(x))?;
    texts.map(|text| std::str::from_utf8(text).map_err(|_| "a text is not UTF-8".to_owned())).collect()
}

fn of_texts(shape: &[usize], texts: &[impl AsRef<[u8]>]) -> Result<Tensor, String> {
    Tensor::of_texts(shape, texts).map_err(|error| error.to_string())
}

pub(super) fn concat(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| {
        let (a, b) = (inputs.at(0)?, inputs.at(1)?);
        let (left, right) = (texts(a)?, texts(b)?);
        let common = common_shape(a.shape(), b.shape())?;
        let places = spread(a.shape(), &common).into_iter().zip(spread(b.shape(), &common));
        let joined: Vec<String> = places.map(|(at, bt)| format!("{}{}", left[at], right[bt])).collect();
        one(of_texts(&common, &joined)?)
    }))
}

/// The parts of a text: at white space without a delimiter, at most `most` times.
fn split<'a>(text: &'a str, delimiter: &str, most: Option<usize>) -> Vec<&'a str> {
    let most = most.unwrap_or(usize::MAX);
    if !delimiter.is_empty() {
        return text.splitn(most.saturating_add(1), delimiter).collect();
    }
    let mut parts = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        match rest.split_once(char::is_whitespace) {
            Some((part, behind)) if parts.len() < most => {
                parts.push(part);
                rest = behind.trim_start();
            }
            _ => {
                parts.push(rest);
                break;
            }
        }
    }
    parts
}

pub(super) fn split_texts(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let delimiter = attributes.text("delimiter", "")?.to_owned();
    let most = attributes.has("maxsplit").then(|| attributes.whole("maxsplit", 0)).transpose()?;
    let most = most.and_then(|most| usize::try_from(most).ok());
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let parts: Vec<Vec<&str>> = texts(x)?.into_iter().map(|text| split(text, &delimiter, most)).collect();
        let width = parts.iter().map(Vec::len).max().unwrap_or(0);
        let mut shape = Shape::from_slice(x.shape());
        shape.push(width);
        room_for(&shape)?;
        let mut all = Vec::with_capacity(parts.len() * width);
        for parts in &parts {
            all.extend(parts.iter().copied().chain(std::iter::repeat("")).take(width));
        }
        let counts = parts.iter().map(|parts| parts.len() as i64).collect();
        Ok(Outputs::from_iter([of_texts(&shape, &all)?, tensor(x.shape(), counts)?]))
    }))
}

pub(super) fn normalize(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let action = match attributes.text("case_change_action", "NONE")? {
        "LOWER" => str::to_lowercase,
        "UPPER" => str::to_uppercase,
        "NONE" => str::to_owned,
        other => return Err(format!("case_change_action {other:?} is none of ONNX's")),
    };
    let is_sensitive = attributes.whole("is_case_sensitive", 0)? != 0;
    let folded = move |text: &str| if is_sensitive { text.to_owned() } else { text.to_lowercase() };
    let stop = attributes.texts("stopwords")?;
    let stop: Vec<String> = stop.into_iter().map(|word| folded(&String::from_utf8_lossy(word))).collect();
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let is_row = match x.shape() {
            [_] => false,
            [1, _] => true,
            shape => return Err(format!("texts of shape {shape:?}, expected [any] or [1, any]")),
        };
        let mut kept: Vec<String> =
            texts(x)?.into_iter().filter(|text| !stop.contains(&folded(text))).map(action).collect();
        if kept.is_empty() {
            kept.push(String::new());
        }
        let shape: &[usize] = if is_row { &[1, kept.len()] } else { &[kept.len()] };
        one(of_texts(shape, &kept)?)
    }))
}

/// What stands in a pool of n-grams.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Gram {
    Whole(i64),
    Text(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Weighting {
    Tf,
    Idf,
    TfIdf,
}

pub(super) fn tf_idf(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let length = |name: &str| {
        let length = attributes.whole(name, 1)?;
        usize::try_from(length).map_err(|_| format!("attribute {name} is {length}"))
    };
    let (shortest, longest, skips) =
        (length("min_gram_length")?, length("max_gram_length")?, length("max_skip_count")?);
    if shortest == 0 || longest > 1024 || skips > 1024 {
        return Err(format!("n-grams of {shortest} to {longest} with {skips} skips"));
    }
    let weighting = match attributes.text("mode", "TF")? {
        "TF" => Weighting::Tf,
        "IDF" => Weighting::Idf,
        "TFIDF" => Weighting::TfIdf,
        other => return Err(format!("mode {other:?} is none of ONNX's")),
    };
    let mut pool: Vec<Gram> = attributes.wholes("pool_int64s")?.into_iter().map(Gram::Whole).collect();
    pool.extend(attributes.texts("pool_strings")?.into_iter().map(|text| Gram::Text(text.to_vec())));
    let starts = attributes.wholes("ngram_counts")?;
    let starts: Vec<usize> = starts.iter().map(|&start| usize::try_from(start).unwrap_or(usize::MAX)).collect();
    let columns = attributes.wholes("ngram_indexes")?;
    let weights = attributes.floats("weights")?;
    let width =
        columns.iter().copied().max().map_or(0, |last| usize::try_from(last).map_or(0, |last| last.saturating_add(1)));
    room_for(&[width])?;
    // Column and weight of each n-gram.
    let mut grams: HashMap<Vec<Gram>, (usize, f32)> = HashMap::new();
    let mut number = 0;
    for (at, &start) in starts.iter().enumerate() {
        let end = starts.get(at + 1).copied().unwrap_or(pool.len());
        let part =
            pool.get(start..end).ok_or_else(|| format!("ngram_counts {starts:?} for {} elements", pool.len()))?;
        for gram in part.chunks_exact(at + 1) {
            let column = columns.get(number).and_then(|&column| usize::try_from(column).ok());
            let column = column.ok_or_else(|| format!("no index for n-gram {number}"))?;
            let weight = if weights.is_empty() { 1.0 } else { *weights.get(number).ok_or("a weight is missing")? };
            grams.insert(gram.to_vec(), (column, weight));
            number += 1;
        }
    }
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let elements: Vec<Gram> = match x.texts() {
            Some(texts) => texts.map(|text| Gram::Text(text.to_vec())).collect(),
            None => wholes(x)?.iter().map(|&whole| Gram::Whole(whole)).collect(),
        };
        let (rows, each, shape) = match *x.shape() {
            [] => (1, 1, Shape::from_slice(&[width])),
            [each] => (1, each, Shape::from_slice(&[width])),
            [rows, each] => (rows, each, Shape::from_slice(&[rows, width])),
            ref shape => return Err(format!("an input of shape {shape:?}, expected one or two dimensions")),
        };
        let mut counts = vec![0.0_f32; room_for(&[rows, width])?];
        for row in 0..rows {
            let items = &elements[row * each..(row + 1) * each];
            for length in shortest..=longest {
                // A single element has nothing to skip.
                for step in 1..=if length == 1 { 1 } else { skips + 1 } {
                    let last = items.len().saturating_sub((length - 1) * step);
                    for start in 0..last {
                        let gram: Vec<Gram> = (0..length).map(|k| items[start + k * step].clone()).collect();
                        if let Some(&(column, weight)) = grams.get(&gram) {
                            let count = &mut counts[row * width + column];
                            match weighting {
                                Weighting::Tf => *count += 1.0,
                                Weighting::Idf => *count = weight,
                                Weighting::TfIdf => *count += weight,
                            }
                        }
                    }
                }
            }
        }
        made(&shape, counts)
    }))
}
