//! What stands before a model: scaling, imputing, normalising.

use super::attributes::Attributes;
use super::cast::floats;
use super::operators::{Operator, made, one, room_for, rows_of, wrong_type};
use crate::base::{Datatype, Tensor};

/// One number for all columns or one each; an error if it is neither.
fn per_column<T: Copy>(list: &[T], columns: usize, what: &str) -> Result<impl Fn(usize) -> T, String> {
    if list.len() != 1 && list.len() != columns {
        return Err(format!("{what} has {} entries, its input has {columns} columns", list.len()));
    }
    Ok(move |column: usize| if list.len() == 1 { list[0] } else { list[column] })
}

/// `(x - offset) * scale`
pub(super) fn scaler(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (offset, scale) = (attributes.floats("offset")?, attributes.floats("scale")?);
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, columns) = rows_of(x)?;
        let elements = floats(x)?;
        let mut data = Vec::with_capacity(elements.len());
        if offset.len() == columns && scale.len() == columns && columns > 0 {
            for row in elements.chunks_exact(columns) {
                data.extend(row.iter().zip(&offset).zip(&scale).map(|((x, offset), scale)| (x - offset) * scale));
            }
        } else {
            let (offset, scale) = (per_column(&offset, columns, "offset")?, per_column(&scale, columns, "scale")?);
            data.extend(elements.iter().enumerate().map(|(at, x)| (x - offset(at % columns)) * scale(at % columns)));
        }
        made(x.shape(), data)
    }))
}

/// Each row divided by its largest element, its sum or its length.
pub(super) fn normalizer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let norm = attributes.text("norm", "MAX")?.to_owned();
    if !["MAX", "L1", "L2"].contains(&norm.as_str()) {
        return Err(format!("norm {norm:?} is none of MAX, L1, L2"));
    }
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, columns) = rows_of(x)?;
        let mut data = floats(x)?.into_owned();
        for row in data.chunks_exact_mut(columns.max(1)) {
            let by = match norm.as_str() {
                "MAX" => row.iter().copied().fold(f32::MIN, f32::max),
                "L1" => row.iter().map(|x| x.abs()).sum(),
                _ => row.iter().map(|x| x * x).sum::<f32>().sqrt(),
            };
            if by != 0.0 {
                row.iter_mut().for_each(|x| *x /= by);
            }
        }
        made(x.shape(), data)
    }))
}

pub(super) fn imputer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (floats, wholes) = (attributes.floats("imputed_value_floats")?, attributes.wholes("imputed_value_int64s")?);
    let missing = attributes.float("replaced_value_float", 0.0)?;
    let missing_whole = attributes.whole("replaced_value_int64", 0)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let (_, columns) = rows_of(x)?;
        if let Some(elements) = x.as_slice::<f32>() {
            let by = per_column(&floats, columns, "imputed_value_floats")?;
            let is_missing = |x: f32| x == missing || (missing.is_nan() && x.is_nan());
            let impute = |(at, &x): (usize, &f32)| if is_missing(x) { by(at % columns) } else { x };
            return made(x.shape(), elements.iter().enumerate().map(impute).collect());
        }
        if let Some(elements) = x.as_slice::<f64>() {
            let by = per_column(&floats, columns, "imputed_value_floats")?;
            let is_missing = |x: f64| x == f64::from(missing) || (missing.is_nan() && x.is_nan());
            let impute = |(at, &x): (usize, &f64)| if is_missing(x) { f64::from(by(at % columns)) } else { x };
            return made(x.shape(), elements.iter().enumerate().map(impute).collect());
        }
        let elements = x.as_slice::<i64>().ok_or_else(|| wrong_type(x))?;
        let by = per_column(&wholes, columns, "imputed_value_int64s")?;
        let impute = |(at, &x): (usize, &i64)| if x == missing_whole { by(at % columns) } else { x };
        made(x.shape(), elements.iter().enumerate().map(impute).collect())
    }))
}

pub(super) fn binarizer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let threshold = attributes.float("threshold", 0.0)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        match x.datatype() {
            Datatype::Fp32 => {
                let elements = x.as_slice::<f32>().unwrap_or_default();
                made(x.shape(), elements.iter().map(|&x| if x > threshold { 1.0_f32 } else { 0.0 }).collect())
            }
            Datatype::Fp64 => {
                let elements = x.as_slice::<f64>().unwrap_or_default();
                let above = |&x: &f64| if x > f64::from(threshold) { 1.0_f64 } else { 0.0 };
                made(x.shape(), elements.iter().map(above).collect())
            }
            _ => Err(wrong_type(x)),
        }
    }))
}

/// Columns of several inputs side by side.
pub(super) fn feature_vectorizer(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let widths = attributes.wholes("inputdimensions")?;
    let widths = widths.iter().map(|&width| usize::try_from(width).map_err(|_| format!("a width of {width}")));
    let widths = widths.collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |inputs| {
        let parts: Vec<&Tensor> = (0..inputs.0.len()).map(|at| inputs.at(at)).collect::<Result<_, _>>()?;
        if parts.len() != widths.len() {
            return Err(format!("{} inputs, inputdimensions has {}", parts.len(), widths.len()));
        }
        let rows = rows_of(parts.first().ok_or_else(|| "it has no input".to_owned())?)?.0;
        let shape = [rows, widths.iter().sum()];
        let mut data = vec![0.0_f32; room_for(&shape)?];
        let mut at = 0;
        for (part, &width) in parts.iter().zip(&widths) {
            let (own_rows, columns) = rows_of(part)?;
            if own_rows != rows {
                return Err(format!("{own_rows} rows beside {rows}"));
            }
            // What an input has less than its width stays 0, what it has more is left out.
            let taken = width.min(columns);
            for (row, elements) in floats(part)?.chunks_exact(columns.max(1)).enumerate() {
                let start = row * shape[1] + at;
                data[start..start + taken].copy_from_slice(&elements[..taken]);
            }
            at += width;
        }
        one(Tensor::new(shape, data).map_err(|error| error.to_string())?)
    }))
}
