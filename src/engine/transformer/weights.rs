//! Weights of a network: found by name, believed only with the shape that the network has, and left where they are where
//! they are 32-bit floats already.

use std::ops::{Deref, Range};
use std::sync::Arc;

use half::{bf16, f16};

use super::math::{Layout, layer_norm, multiply};
use super::safetensors::{Dtype, Header};
use crate::base::Element;

/// 32-bit floats.
pub(super) enum Numbers {
    /// A part of the model's file.
    Kept(Arc<[u8]>, Range<usize>),
    /// Made of shorter ones.
    Own(Vec<f32>),
}

impl Deref for Numbers {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            Self::Kept(file, range) => f32::view(&file[range.clone()]).expect("they were seen when they were loaded"),
            Self::Own(numbers) => numbers,
        }
    }
}

/// Halves as whole floats.
pub(super) fn widened(dtype: Dtype, bytes: &[u8]) -> Option<Vec<f32>> {
    let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    Some(match dtype {
        Dtype::F16 => pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
        Dtype::Bf16 => pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
        Dtype::F32 => {
            bytes.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]])).collect()
        }
        _ => return None,
    })
}

/// A file's tensors, by the names that its network gives them.
pub(super) struct Source<'a> {
    file: &'a Arc<[u8]>,
    header: &'a Header,
    /// Before the names of everything but heads.
    prefix: String,
}

impl<'a> Source<'a> {
    /// `probe` is a tensor that every such network has: what stands before it stands before the others.
    pub(super) fn new(file: &'a Arc<[u8]>, header: &'a Header, probe: &str) -> Result<Self, String> {
        let before = header.tensors.keys().filter_map(|name| name.strip_suffix(probe));
        let prefix =
            before.filter(|before| before.is_empty() || before.ends_with('.')).min_by_key(|before| before.len());
        let prefix = prefix.ok_or_else(|| format!("no tensor {probe}: the file is no model of its config.json"))?;
        Ok(Self { file, header, prefix: prefix.to_owned() })
    }

    /// The network's own tensor of that name.
    pub(super) fn inner(&self, name: &str, shape: &[usize]) -> Result<Numbers, String> {
        self.named(&format!("{}{name}", self.prefix), shape)
    }

    /// The same, if it is there.
    pub(super) fn has_inner(&self, name: &str) -> bool {
        self.header.tensors.contains_key(&format!("{}{name}", self.prefix))
    }

    /// A tensor by its whole name.
    pub(super) fn named(&self, name: &str, shape: &[usize]) -> Result<Numbers, String> {
        // What the first BERT was converted from called gain and bias so.
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        let entry = self.header.tensors.get(name).or_else(|| self.header.tensors.get(&old));
        let Some(entry) = entry else {
            return Err(format!("tensor {name}: expected {shape:?} by config.json, given none"));
        };
        if entry.shape != shape {
            return Err(format!("tensor {name}: expected {shape:?} by config.json, given {:?}", entry.shape));
        }
        let bytes = &self.file[entry.range.clone()];
        if entry.dtype == Dtype::F32 && f32::view(bytes).is_some() {
            return Ok(Numbers::Kept(Arc::clone(self.file), entry.range.clone()));
        }
        let numbers = widened(entry.dtype, bytes);
        let numbers =
            numbers.ok_or_else(|| format!("tensor {name}: expected F32, F16 or BF16, given {}", entry.dtype))?;
        Ok(Numbers::Own(numbers))
    }

    /// A layer with its bias.
    pub(super) fn linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, String> {
        Ok(Linear {
            weight: self.inner(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.inner(&format!("{name}.bias"), &[outputs])?,
            inputs,
        })
    }

    /// The same of a head, whose names have nothing before them.
    pub(super) fn head(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear, String> {
        Ok(Linear {
            weight: self.named(&format!("{name}.weight"), &[outputs, inputs])?,
            bias: self.named(&format!("{name}.bias"), &[outputs])?,
            inputs,
        })
    }

    pub(super) fn norm(&self, name: &str, width: usize, epsilon: f32) -> Result<Norm, String> {
        Ok(Norm {
            gain: self.inner(&format!("{name}.weight"), &[width])?,
            bias: self.inner(&format!("{name}.bias"), &[width])?,
            epsilon,
        })
    }
}

/// y = W x + b for every row.
pub(super) struct Linear {
    weight: Numbers,
    bias: Numbers,
    inputs: usize,
}

impl Linear {
    /// As many numbers as a row becomes.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Of rows one behind the other.
    pub(super) fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let (count, outputs) = (rows.len() / self.inputs, self.outputs());
        let mut out = Vec::with_capacity(count * outputs);
        (0..count).for_each(|_| out.extend_from_slice(&self.bias));
        let weight = Layout::packed(outputs, self.inputs).transposed();
        let to = Layout::packed(count, outputs);
        multiply((rows, Layout::packed(count, self.inputs)), (&self.weight, weight), (&mut out, to), true);
        out
    }
}

/// A row's values around 0, with gain and bias.
pub(super) struct Norm {
    gain: Numbers,
    bias: Numbers,
    epsilon: f32,
}

impl Norm {
    pub(super) fn apply(&self, rows: &mut [f32]) {
        layer_norm(rows, &self.gain, &self.bias, self.epsilon);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::transformer::safetensors::written;

    fn bytes(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn weights_come_in_three_types_and_only_with_the_shape_that_the_network_has() {
        let halves: Vec<u8> = [1.5, -2.0].iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect();
        let brain: Vec<u8> = [3.0, 0.5].iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect();
        let file: Arc<[u8]> = written(&[
            ("net.probe", "F32", &[1, 2], bytes(&[1.0, 2.0])),
            ("net.half", "F16", &[2], halves),
            ("net.brain", "BF16", &[2], brain),
            ("net.whole", "I64", &[1], vec![0; 8]),
            ("net.LayerNorm.gamma", "F32", &[1], bytes(&[7.0])),
        ])
        .into();
        let header = Header::read(&file).unwrap();
        let source = Source::new(&file, &header, "probe").unwrap();
        let read = |name: &str, shape: &[usize]| source.inner(name, shape).map(|numbers| numbers.to_vec());
        assert_eq!(read("probe", &[1, 2]).unwrap(), [1.0, 2.0]);
        assert_eq!(read("half", &[2]).unwrap(), [1.5, -2.0]);
        assert_eq!(read("brain", &[2]).unwrap(), [3.0, 0.5]);
        assert_eq!(read("LayerNorm.weight", &[1]).unwrap(), [7.0]);
        let wrong = |name: &str, shape: &[usize]| read(name, shape).unwrap_err();
        assert_eq!(wrong("probe", &[2, 1]), "tensor net.probe: expected [2, 1] by config.json, given [1, 2]");
        assert_eq!(wrong("probes", &[2]), "tensor net.probes: expected [2] by config.json, given none");
        assert_eq!(wrong("whole", &[1]), "tensor net.whole: expected F32, F16 or BF16, given I64");
        assert!(Source::new(&file, &header, "robe").is_err(), "a part of a name is none");
    }
}
