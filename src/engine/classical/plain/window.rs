//! Windows that slide over the inner dimensions of a tensor: how they lie, and where they end.

use crate::engine::classical::attributes::Attributes;
use crate::engine::classical::operators::room_for;

/// Most elements under all windows of a channel.
const STEPS_MAX: usize = 1 << 32;

/// A window over `rank` dimensions.
#[derive(Debug, Clone)]
pub(super) struct Window {
    kernel: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) dilations: Vec<usize>,
    /// Before each dimension, then behind each.
    pads: Vec<usize>,
    auto: Auto,
    is_ceil: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Auto {
    NotSet,
    SameUpper,
    SameLower,
    Valid,
}

/// A window over a tensor whose inner dimensions are known.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) input: Vec<usize>,
    pub(super) output: Vec<usize>,
    pub(super) kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    /// Before and behind each dimension.
    pads: Vec<(usize, usize)>,
}

fn sizes(attributes: &Attributes<'_>, name: &str) -> Result<Vec<usize>, String> {
    let list = attributes.wholes(name)?;
    let size = |&size: &i64| usize::try_from(size).ok().filter(|&size| size < 1 << 24);
    list.iter().map(size).collect::<Option<_>>().ok_or_else(|| format!("attribute {name} is {list:?}"))
}

impl Window {
    /// Of the attributes; `kernel_shape` may be left out where the weights say it.
    pub(super) fn of(attributes: &Attributes<'_>) -> Result<Self, String> {
        let auto = match attributes.text("auto_pad", "NOTSET")? {
            "NOTSET" | "" => Auto::NotSet,
            "SAME_UPPER" => Auto::SameUpper,
            "SAME_LOWER" => Auto::SameLower,
            "VALID" => Auto::Valid,
            other => return Err(format!("auto_pad {other:?} is none of ONNX's")),
        };
        let window = Self {
            kernel: sizes(attributes, "kernel_shape")?,
            strides: sizes(attributes, "strides")?,
            dilations: sizes(attributes, "dilations")?,
            pads: sizes(attributes, "pads")?,
            auto,
            is_ceil: attributes.whole("ceil_mode", 0)? != 0,
        };
        if window.kernel.contains(&0) || window.strides.contains(&0) || window.dilations.contains(&0) {
            return Err("a kernel, stride or dilation of 0".to_owned());
        }
        Ok(window)
    }

    /// Its kernel, or the one of the weights.
    pub(super) fn kernel(&self, weights: &[usize]) -> Result<Vec<usize>, String> {
        match self.kernel.as_slice() {
            [] => Ok(weights.to_vec()),
            own if weights.is_empty() || own == weights => Ok(own.to_vec()),
            own => Err(format!("kernel_shape {own:?} and weights of {weights:?}")),
        }
    }

    /// Over inner dimensions of `input`.
    pub(super) fn over(&self, input: &[usize], kernel: &[usize]) -> Result<Placed, String> {
        let rank = input.len();
        let filled = |list: &[usize], with: usize| if list.is_empty() { vec![with; rank] } else { list.to_vec() };
        let (strides, dilations) = (filled(&self.strides, 1), filled(&self.dilations, 1));
        let pads = if self.pads.is_empty() { vec![0; 2 * rank] } else { self.pads.clone() };
        if kernel.len() != rank || strides.len() != rank || dilations.len() != rank || pads.len() != 2 * rank {
            return Err(format!("a kernel of {kernel:?} with its strides, dilations and pads over {rank} dimensions"));
        }
        let mut placed = Placed {
            input: input.to_vec(),
            output: Vec::new(),
            kernel: kernel.to_vec(),
            strides,
            dilations,
            pads: Vec::new(),
        };
        for at in 0..rank {
            let (stride, size) = (placed.strides[at], input[at]);
            let extent = (kernel[at] - 1) * placed.dilations[at] + 1;
            let (pad, output) = match self.auto {
                Auto::SameUpper | Auto::SameLower => {
                    let output = size.div_ceil(stride);
                    let all = ((output.saturating_sub(1)) * stride + extent).saturating_sub(size);
                    let less = all / 2;
                    (if self.auto == Auto::SameUpper { (less, all - less) } else { (all - less, less) }, output)
                }
                auto => {
                    let pad = if auto == Auto::Valid { (0, 0) } else { (pads[at], pads[at + rank]) };
                    let room = (size + pad.0 + pad.1).checked_sub(extent);
                    let room = room.ok_or_else(|| format!("a kernel of {extent} over {size} and pads {pad:?}"))?;
                    let mut output = if self.is_ceil { room.div_ceil(stride) } else { room / stride } + 1;
                    // A window that would begin behind the data and its first padding is none.
                    if self.is_ceil && (output - 1) * stride >= size + pad.0 {
                        output -= 1;
                    }
                    (pad, output)
                }
            };
            placed.pads.push(pad);
            placed.output.push(output);
        }
        let windows = room_for(&placed.output)?;
        let steps = kernel.iter().try_fold(windows, |steps, &dim| steps.checked_mul(dim));
        if steps.is_none_or(|steps| steps > STEPS_MAX) {
            return Err(format!("a kernel of {kernel:?} at {windows} places"));
        }
        Ok(placed)
    }
}

/// Counts through every place of `shape`, the last dimension first. False behind the last.
pub(super) fn next(place: &mut [usize], shape: &[usize]) -> bool {
    for (at, &dim) in place.iter_mut().zip(shape).rev() {
        *at += 1;
        if *at < dim {
            return true;
        }
        *at = 0;
    }
    false
}

impl Placed {
    /// Calls `each` with every window's number and its elements: their place in the kernel and in the input, both
    /// flat; None for the input where it is padding. Elements behind the padding are left out.
    pub(super) fn each(&self, mut each: impl FnMut(usize, usize, Option<usize>)) {
        if self.output.contains(&0) {
            return;
        }
        let rank = self.input.len();
        let mut window = vec![0; rank];
        let mut number = 0;
        loop {
            let mut tap = vec![0; rank];
            let mut element = 0;
            loop {
                let (mut place, mut is_padding, mut is_outside) = (0, false, false);
                for at in 0..rank {
                    let from = window[at] * self.strides[at] + tap[at] * self.dilations[at];
                    is_outside |= from >= self.input[at] + self.pads[at].0 + self.pads[at].1;
                    match from.checked_sub(self.pads[at].0).filter(|&from| from < self.input[at]) {
                        Some(from) => place = place * self.input[at] + from,
                        None => is_padding = true,
                    }
                }
                if !is_outside {
                    each(number, element, (!is_padding).then_some(place));
                }
                element += 1;
                if !next(&mut tap, &self.kernel) {
                    break;
                }
            }
            number += 1;
            if !next(&mut window, &self.output) {
                break;
            }
        }
    }
}
