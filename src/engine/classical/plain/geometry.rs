//! Grids, regions and columns of images, and determinants.

use super::window::Window;
use super::{numbers, of};
use crate::base::{Shape, Tensor, shape_of};
use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::{Operator, axis_of, one, room_for};

fn sizes(list: &[i64]) -> Result<Shape, String> {
    shape_of(list).map_err(|error| error.to_string())
}

/// Blocks of columns put back into images; where they overlap they add up.
pub(super) fn col_to_im(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let window = Window::of(attributes)?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let image = sizes(&inputs.wholes(1)?.unwrap_or_default())?;
        let block = sizes(&inputs.wholes(2)?.unwrap_or_default())?;
        let &[batch, columns, places] = x.shape() else { return Err(format!("an input of shape {:?}", x.shape())) };
        let taps = room_for(&block)?;
        if taps == 0 || columns % taps != 0 {
            return Err(format!("{columns} columns of blocks of {block:?}"));
        }
        let placed = window.over(&image, &block)?;
        if placed.output.iter().product::<usize>() != places {
            return Err(format!("{places} blocks where {:?} fit", placed.output));
        }
        let (channels, width) = (columns / taps, room_for(&image)?);
        let shape: Shape = [batch, channels].into_iter().chain(image.iter().copied()).collect();
        let mut data = vec![0.0; room_for(&shape)?];
        let elements = numbers(x)?;
        for plane in 0..batch * channels {
            placed.each(|place, tap, at| {
                if let Some(at) = at {
                    data[plane * width + at] += elements[(plane * taps + tap) * places + place];
                }
            });
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

/// `theta` (a matrix an image) as the places to sample at.
pub(super) fn affine_grid(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let align = attributes.whole("align_corners", 0)? != 0;
    Ok(Box::new(move |inputs| {
        let theta = inputs.at(0)?;
        let size = sizes(&inputs.wholes(1)?.unwrap_or_default())?;
        let [batch, _, inner @ ..] = &size[..] else { return Err(format!("a size of {size:?}")) };
        let rank = inner.len();
        if theta.shape() != [*batch, rank, rank + 1] || !(2..=3).contains(&rank) {
            return Err(format!("theta of shape {:?} for a size of {size:?}", theta.shape()));
        }
        let shape: Shape = std::iter::once(*batch).chain(inner.iter().copied()).chain([rank]).collect();
        let mut data = Vec::with_capacity(room_for(&shape)?);
        let matrices = numbers(theta)?;
        let at = |place: usize, dim: usize| match (align, dim) {
            (true, 0 | 1) => -1.0,
            (true, dim) => 2.0 * place as f64 / (dim - 1) as f64 - 1.0,
            (false, dim) => (2.0 * place as f64 + 1.0) / dim as f64 - 1.0,
        };
        for matrix in matrices.chunks_exact(rank * (rank + 1)) {
            let mut place = vec![0; rank];
            if inner.contains(&0) {
                continue;
            }
            loop {
                for row in matrix.chunks_exact(rank + 1) {
                    // The matrix's first column is of the last dimension.
                    let along = |axis: usize| at(place[rank - 1 - axis], inner[rank - 1 - axis]);
                    data.push(row[rank] + (0..rank).map(|axis| row[axis] * along(axis)).sum::<f64>());
                }
                if !super::window::next(&mut place, inner) {
                    break;
                }
            }
        }
        one(of(theta.datatype(), &shape, data)?)
    }))
}

pub(super) fn det(_: &Attributes<'_>) -> Result<Operator, String> {
    fn determinant(matrix: &mut [f64], n: usize) -> f64 {
        let mut product = 1.0;
        for column in 0..n {
            let largest =
                (column..n).max_by(|&a, &b| matrix[a * n + column].abs().total_cmp(&matrix[b * n + column].abs()));
            let pivot = largest.unwrap_or(column);
            if matrix[pivot * n + column] == 0.0 {
                return 0.0;
            }
            if pivot != column {
                (0..n).for_each(|k| matrix.swap(pivot * n + k, column * n + k));
                product = -product;
            }
            product *= matrix[column * n + column];
            for row in column + 1..n {
                let factor = matrix[row * n + column] / matrix[column * n + column];
                for k in column..n {
                    matrix[row * n + k] -= factor * matrix[column * n + k];
                }
            }
        }
        product
    }
    Ok(Box::new(|inputs| {
        let x = inputs.at(0)?;
        let &[ref outer @ .., rows, columns] = x.shape() else { return Err("no matrix".to_owned()) };
        if rows != columns {
            return Err(format!("a determinant of {rows} rows and {columns} columns"));
        }
        let count: usize = outer.iter().product();
        let mut elements = numbers(x)?;
        let data = match elements.as_mut_slice() {
            [] => vec![1.0; count],
            elements => elements.chunks_exact_mut(rows * rows).map(|matrix| determinant(matrix, rows)).collect(),
        };
        one(of(x.datatype(), outer, data)?)
    }))
}

/// The value at a place between four pixels; nothing outside by more than one.
fn bilinear(plane: &[f64], [height, width]: [usize; 2], y: f64, x: f64) -> f64 {
    let mut sum = 0.0;
    let (top, left) = (y.floor(), x.floor());
    for (row, weight) in [(top, top + 1.0 - y), (top + 1.0, y - top)] {
        for (column, other) in [(left, left + 1.0 - x), (left + 1.0, x - left)] {
            if row >= 0.0 && column >= 0.0 && (row as usize) < height && (column as usize) < width {
                sum += weight * other * plane[row as usize * width + column as usize];
            }
        }
    }
    sum
}

/// A convolution whose taps are moved by offsets of their own.
pub(super) fn deform_conv(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let window = Window::of(attributes)?;
    let whole = |name: &str| {
        let given = attributes.whole(name, 1)?;
        usize::try_from(given)
            .ok()
            .filter(|given| (1..1 << 24).contains(given))
            .ok_or_else(|| format!("attribute {name} is {given}"))
    };
    let (groups, offset_groups) = (whole("group")?, whole("offset_group")?);
    let pads = attributes.wholes("pads")?;
    Ok(Box::new(move |inputs| {
        let (x, w, offset) = (inputs.at(0)?, inputs.at(1)?, inputs.at(2)?);
        let (&[batch, channels, height, width], &[out, each, kh, kw]) = (x.shape(), w.shape()) else {
            return Err(format!("an input of {:?} and weights of {:?}", x.shape(), w.shape()));
        };
        let placed = window.over(&[height, width], &window.kernel(&[kh, kw])?)?;
        let (taps, places) = (kh * kw, placed.output.iter().product::<usize>());
        let fits = channels == each * groups && out % groups == 0 && channels % offset_groups == 0;
        let offsets_fit = offset.shape() == [batch, offset_groups * taps * 2, placed.output[0], placed.output[1]];
        if !fits || !offsets_fit {
            return Err(format!("{channels} channels, weights of {:?}, offsets of {:?}", w.shape(), offset.shape()));
        }
        let bias = inputs.maybe(3).map(numbers).transpose()?;
        let mask = inputs.maybe(4).map(numbers).transpose()?;
        if bias.as_ref().is_some_and(|bias| bias.len() != out)
            || mask.as_ref().is_some_and(|mask| mask.len() != batch * offset_groups * taps * places)
        {
            return Err("a bias or mask of another size".to_owned());
        }
        let (elements, weights, offsets) = (numbers(x)?, numbers(w)?, numbers(offset)?);
        let shape = [batch, out, placed.output[0], placed.output[1]];
        let mut data = vec![0.0; room_for(&shape)?];
        let step = |list: &[usize], at: usize| list.get(at).copied().unwrap_or(1) as f64;
        let pad = |at: usize| pads.get(at).copied().unwrap_or(0) as f64;
        for b in 0..batch {
            for o in 0..out {
                let group = o / (out / groups);
                for place in 0..places {
                    let mut sum = bias.as_ref().map_or(0.0, |bias| bias[o]);
                    let (row, column) = (place / placed.output[1], place % placed.output[1]);
                    for c in 0..each {
                        let channel = group * each + c;
                        let plane = &elements[(b * channels + channel) * height * width..][..height * width];
                        let of_group = b * offset_groups + channel / (channels / offset_groups);
                        for tap in 0..taps {
                            let moved = |which: usize| offsets[((of_group * taps + tap) * 2 + which) * places + place];
                            let y = row as f64 * step(&window.strides, 0) - pad(0)
                                + (tap / kw) as f64 * step(&window.dilations, 0)
                                + moved(0);
                            let x = column as f64 * step(&window.strides, 1) - pad(1)
                                + (tap % kw) as f64 * step(&window.dilations, 1)
                                + moved(1);
                            let factor =
                                mask.as_ref().map_or(1.0, |mask| mask[(of_group * taps + tap) * places + place]);
                            sum +=
                                weights[(o * each + c) * taps + tap] * factor * bilinear(plane, [height, width], y, x);
                        }
                    }
                    data[(b * out + o) * places + place] = sum;
                }
            }
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

/// Regions of images, sampled in bins.
pub(super) fn roi_align(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let is_max = match attributes.text("mode", "avg")? {
        "avg" => false,
        "max" => true,
        other => return Err(format!("mode {other:?} is none of ONNX's")),
    };
    let default = if attributes.opset < 16 { "output_half_pixel" } else { "half_pixel" };
    let is_half = attributes.text("coordinate_transformation_mode", default)? == "half_pixel";
    let size = |name: &str| {
        let given = attributes.whole(name, 1)?;
        usize::try_from(given)
            .ok()
            .filter(|size| (1..=1 << 12).contains(size))
            .ok_or_else(|| format!("{name} is {given}"))
    };
    let (rows, columns) = (size("output_height")?, size("output_width")?);
    let ratio = attributes.whole("sampling_ratio", 0)?;
    let scale = f64::from(attributes.float("spatial_scale", 1.0)?);
    Ok(Box::new(move |inputs| {
        let (x, rois, images) = (inputs.at(0)?, inputs.at(1)?, inputs.wholes(2)?.unwrap_or_default());
        let (&[batch, channels, height, width], &[count, 4]) = (x.shape(), rois.shape()) else {
            return Err(format!("an input of {:?} and regions of {:?}", x.shape(), rois.shape()));
        };
        let shape = [count, channels, rows, columns];
        let mut data = Vec::with_capacity(room_for(&shape)?);
        let elements = numbers(x)?;
        for (at, roi) in numbers(rois)?.chunks_exact(4).enumerate() {
            let image = images.get(at).and_then(|&image| usize::try_from(image).ok()).filter(|&image| image < batch);
            let image = image.ok_or_else(|| format!("region {at} is of no image of the {batch}"))?;
            let shift = if is_half { 0.5 } else { 0.0 };
            let [left, top, right, bottom] = [0, 1, 2, 3].map(|k| roi[k] * scale - shift);
            let least = if is_half { f64::NEG_INFINITY } else { 1.0 };
            let bin = [(bottom - top).max(least) / rows as f64, (right - left).max(least) / columns as f64];
            // As many samples as the bin has pixels, where the file does not say.
            let samples = bin.map(|size| if ratio > 0 { ratio as f64 } else { size.ceil().max(0.0) });
            if samples.iter().any(|&samples| samples.is_nan() || samples > 4096.0) {
                return Err(format!("region {at} is {roi:?}"));
            }
            for channel in 0..channels {
                let plane = &elements[(image * channels + channel) * height * width..][..height * width];
                for row in 0..rows {
                    for column in 0..columns {
                        let mut values = Vec::new();
                        for sy in 0..samples[0] as usize {
                            for sx in 0..samples[1] as usize {
                                let y = top + (row as f64 + (sy as f64 + 0.5) / samples[0]) * bin[0];
                                let x = left + (column as f64 + (sx as f64 + 0.5) / samples[1]) * bin[1];
                                values.push(sample(plane, [height, width], y, x, is_max));
                            }
                        }
                        data.push(match is_max {
                            true => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                            false => values.iter().sum::<f64>() / values.len().max(1) as f64,
                        });
                    }
                }
            }
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

/// At a place clamped to the image; 0 outside by more than one. The largest weighted corner for a maximum.
fn sample(plane: &[f64], [height, width]: [usize; 2], y: f64, x: f64, is_max: bool) -> f64 {
    if y < -1.0 || y > height as f64 || x < -1.0 || x > width as f64 {
        return 0.0;
    }
    let (y, x) = (y.clamp(0.0, (height - 1) as f64), x.clamp(0.0, (width - 1) as f64));
    let (top, left) = (y as usize, x as usize);
    let (bottom, right) = ((top + 1).min(height - 1), (left + 1).min(width - 1));
    let (fy, fx) = (y - top as f64, x - left as f64);
    let corners = [
        plane[top * width + left] * (1.0 - fy) * (1.0 - fx),
        plane[top * width + right] * (1.0 - fy) * fx,
        plane[bottom * width + left] * fy * (1.0 - fx),
        plane[bottom * width + right] * fy * fx,
    ];
    if is_max { corners.into_iter().fold(f64::NEG_INFINITY, f64::max) } else { corners.iter().sum() }
}

/// Cuts or fills up the middle of dimensions.
pub(super) fn center_crop_pad(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let axes = attributes.has("axes").then(|| attributes.wholes("axes")).transpose()?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let wanted = sizes(&inputs.wholes(1)?.unwrap_or_default())?;
        let rank = x.shape().len();
        let axes = match &axes {
            None => (0..rank).collect(),
            Some(axes) => axes.iter().map(|&axis| axis_of(axis, rank)).collect::<Result<Vec<_>, _>>()?,
        };
        if axes.len() != wanted.len() {
            return Err(format!("{} sizes for {} axes", wanted.len(), axes.len()));
        }
        let mut shape = Shape::from_slice(x.shape());
        axes.iter().zip(&wanted).for_each(|(&axis, &size)| shape[axis] = size);
        let mut data = Vec::with_capacity(room_for(&shape)?);
        let elements = numbers(x)?;
        let mut place = vec![0; rank];
        if !shape.contains(&0) {
            loop {
                let mut at = Some(0);
                for ((&k, &own), &size) in place.iter().zip(x.shape()).zip(&shape) {
                    // What is cut or added in front is the smaller half.
                    let from = if own >= size { Some(k + (own - size) / 2) } else { k.checked_sub((size - own) / 2) };
                    at = at.zip(from.filter(|&from| from < own)).map(|(at, from)| at * own + from);
                }
                data.push(at.map_or(0.0, |at| elements[at]));
                if !super::window::next(&mut place, &shape) {
                    break;
                }
            }
        }
        one(of(x.datatype(), &shape, data)?)
    }))
}

/// The image of one size as one of another, each pixel from the nearest in front.
pub(super) fn upsample(attributes: &Attributes<'_>) -> Result<Operator, String> {
    if attributes.text("mode", "nearest")? != "nearest" {
        return Err("an upsampling that is not to the nearest".to_owned());
    }
    let fixed = attributes.floats("scales")?;
    Ok(Box::new(move |inputs| {
        let x = inputs.at(0)?;
        let scales = match inputs.maybe(1) {
            Some(scales) => numbers(scales)?,
            None => fixed.iter().map(|&scale| f64::from(scale)).collect(),
        };
        if scales.len() != x.shape().len() || scales.iter().any(|&scale| !(1.0..65536.0).contains(&scale)) {
            return Err(format!("scales {scales:?} of {:?}", x.shape()));
        }
        let shape: Shape = x.shape().iter().zip(&scales).map(|(&dim, scale)| (dim as f64 * scale) as usize).collect();
        let mut places = vec![0_usize];
        room_for(&shape)?;
        for ((&own, &dim), scale) in x.shape().iter().zip(&shape).zip(&scales) {
            let from = |k: usize| ((k as f64 / scale) as usize).min(own.saturating_sub(1));
            places = places.iter().flat_map(|&place| (0..dim).map(move |k| place * own + from(k))).collect();
        }
        one(crate::engine::classical::shaping::pick(&[x], &shape, places.into_iter())?)
    }))
}

/// Any tensor that is there.
pub(super) fn optional_has_element(_: &Attributes<'_>) -> Result<Operator, String> {
    Ok(Box::new(|inputs| one(Tensor::new([], vec![inputs.maybe(0).is_some()]).map_err(|error| error.to_string())?)))
}
