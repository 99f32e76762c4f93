//! What a model is asked while it is measured.

use std::collections::BTreeMap;
use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;

use super::ELEMENTS_MAX;
use crate::base::{Datatype, Tensor};
use crate::engine::batching::{join, share_out};
use crate::engine::onnx::{Dimension, Outline};
use crate::engine::spec::{LoadSpec, NamedTensor, TensorSpec, arrange};

/// Rows that are made up.
const MADE: usize = 8;
/// The size of a free dimension that nobody names one for: a short text, a small picture.
const USUAL: usize = 64;

/// Requests of one row each, in the model's order of inputs. Batches are made of them.
#[derive(Debug, Clone)]
pub struct Rows {
    rows: Vec<Vec<NamedTensor>>,
    /// The input whose first dimension is fixed, so that there are no batches.
    fixed: Option<String>,
    origin: String,
}

/// A dimension, behind the first, that the model leaves free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeDimension {
    /// The input.
    pub input: Arc<str>,
    /// From 0.
    pub axis: usize,
    /// What the file calls it; the same name has the same size wherever it stands.
    pub name: Option<String>,
    /// The size that is taken.
    pub size: usize,
    /// Whether somebody named it.
    pub is_set: bool,
}

impl FreeDimension {
    /// Those of `spec` in order; `outline` knows their names, and `sizes` the sizes of some by name or as `INPUT.AXIS`.
    /// The error names a size that is for none of them.
    pub fn all(
        spec: &LoadSpec,
        outline: Option<&Outline>,
        sizes: &BTreeMap<String, usize>,
    ) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for port in &spec.inputs {
            let named = outline.and_then(|outline| outline.inputs.iter().find(|input| *input.name == *port.name));
            for axis in (1..port.shape.len()).filter(|&axis| port.shape[axis] == -1) {
                let dimension = named.and_then(|input| input.dimensions.as_ref()?.get(axis));
                let name = match dimension {
                    Some(Dimension::Named(name)) => Some(name.clone()),
                    _ => None,
                };
                let place = format!("{}.{axis}", port.name);
                let set = sizes.get(&place).or_else(|| sizes.get(name.as_ref()?)).copied();
                let (input, size) = (Arc::clone(&port.name), set.unwrap_or(USUAL));
                all.push(Self { input, axis, name, size, is_set: set.is_some() });
            }
        }
        for (name, size) in sizes {
            if *size == 0 {
                return Err(format!("{name}=0: a dimension that is measured has at least 1"));
            }
            if !all.iter().any(|free| free.is_called(name)) {
                let known: Vec<_> = all.iter().map(Self::title).collect();
                let known = match known.as_slice() {
                    [] => "there is none but the first, which is the batch".to_owned(),
                    known => format!("there is {}", known.join(", ")),
                };
                return Err(format!("{name}={size}: no free dimension is called so; {known}"));
            }
        }
        Ok(all)
    }

    fn is_called(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name) || self.place() == name
    }

    fn place(&self) -> String {
        format!("{}.{}", self.input, self.axis)
    }

    /// The name that sets it.
    pub fn title(&self) -> String {
        self.name.clone().unwrap_or_else(|| self.place())
    }
}

impl Rows {
    /// The inputs of the golden samples. None if there are none, or none that fit.
    pub fn golden(spec: &LoadSpec, tensor_bytes_max: usize) -> Option<Self> {
        let requests = spec.samples.iter();
        let requests =
            requests.filter_map(|sample| arrange(&spec.inputs, sample.inputs.clone(), tensor_bytes_max).ok());
        let samples = spec.samples.len();
        let s = if samples == 1 { "" } else { "s" };
        Self::of(spec, requests.collect(), format!("{samples} golden sample{s}"))
    }

    /// Tensors that somebody gave, by input, with a row for each request.
    pub fn given(spec: &LoadSpec, tensors: Vec<NamedTensor>, tensor_bytes_max: usize) -> Result<Self, String> {
        let request = arrange(&spec.inputs, tensors, tensor_bytes_max).map_err(|error| error.to_string())?;
        let mut rows = request.iter().map(|input| (&input.name, input.tensor.shape().first().copied().unwrap_or(1)));
        if let Some((first, count)) = rows.next()
            && let Some((other, differs)) = rows.find(|&(_, other)| other != count)
            && fixed(&spec.inputs).is_none()
        {
            return Err(format!("{first} has {count} rows and {other} has {differs}"));
        }
        let none = || "the samples have no row".to_owned();
        if request.iter().any(|input| input.tensor.elements() == 0) {
            return Err(none());
        }
        Self::of(spec, vec![request], "the given samples".to_owned()).ok_or_else(none)
    }

    /// Numbers by chance: floats between -1 and 1, whole numbers and truth values 0 or 1, texts of one digit.
    pub fn seeded(spec: &LoadSpec, free: &[FreeDimension], chance: &mut StdRng) -> Result<Self, String> {
        let size = |port: &TensorSpec, axis: usize| match usize::try_from(port.shape[axis]) {
            Ok(fixed) => fixed,
            Err(_) => free.iter().find(|free| free.input == port.name && free.axis == axis).map_or(1, |free| free.size),
        };
        let shape = |port: &TensorSpec| (0..port.shape.len()).map(|axis| size(port, axis)).collect::<Vec<usize>>();
        let mut left = ELEMENTS_MAX;
        for port in &spec.inputs {
            let elements = shape(port).iter().try_fold(1_usize, |all, &dim| all.checked_mul(dim));
            left = elements.and_then(|elements| left.checked_sub(elements)).ok_or_else(|| {
                let shape = shape(port);
                format!("input {} would have the shape {shape:?}, over {ELEMENTS_MAX} elements a row", port.name)
            })?;
        }
        // Large rows are few: they differ in time the least.
        let count = if ELEMENTS_MAX - left > ELEMENTS_MAX / 32 { 1 } else { MADE };
        let mut row = || {
            let input = |port: &TensorSpec| {
                let tensor = by_chance(port.datatype, &shape(port), chance);
                let tensor =
                    tensor.ok_or_else(|| format!("no numbers for input {} of {}", port.name, port.datatype))?;
                Ok(NamedTensor::new(Arc::clone(&port.name), tensor))
            };
            spec.inputs.iter().map(input).collect::<Result<Vec<_>, String>>()
        };
        let rows = (0..count).map(|_| row()).collect::<Result<_, String>>()?;
        Ok(Self { rows, fixed: fixed(&spec.inputs), origin: "numbers by chance".to_owned() })
    }

    /// Requests of any number of rows, taken apart where rows can be told apart.
    fn of(spec: &LoadSpec, requests: Vec<Vec<NamedTensor>>, origin: String) -> Option<Self> {
        let fixed = fixed(&spec.inputs);
        let mut rows = Vec::new();
        for request in requests {
            let count = request.first()?.tensor.shape().first().copied().unwrap_or(1);
            let apart = if fixed.is_none() { share_out(&request, &vec![1; count]) } else { None };
            rows.extend(apart.unwrap_or_else(|| vec![request]));
        }
        // Rows of other inner sizes, such as longer texts, cannot stand in one batch with the first.
        let inner = |row: &[NamedTensor]| row.iter().map(|input| input.tensor.shape().to_vec()).collect::<Vec<_>>();
        let first = inner(rows.first()?);
        rows.retain(|row| inner(row) == first);
        Some(Self { rows, fixed, origin })
    }

    /// What they are, for people.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The shape of each input of one row.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.rows.iter().take(1).flatten().map(|input| (&*input.name, input.tensor.shape()))
    }

    /// Different requests of `rows` rows, as many as there are different rows for. The error says why there are none.
    pub fn batches(&self, rows: usize) -> Result<Vec<Vec<NamedTensor>>, String> {
        if rows == 1 {
            return Ok(self.rows.clone());
        }
        if let Some(input) = &self.fixed {
            return Err(format!("no batches: the first dimension of input {input} is fixed"));
        }
        let batches = self.rows.len().div_ceil(rows);
        let batch = |number: usize| {
            let row = |at: usize| self.rows[(number * rows + at) % self.rows.len()].as_slice();
            join(&(0..rows).map(row).collect::<Vec<_>>()).ok_or_else(|| "its rows cannot be joined".to_owned())
        };
        (0..batches).map(batch).collect()
    }
}

/// The first input that has no free first dimension.
fn fixed(inputs: &[TensorSpec]) -> Option<String> {
    inputs.iter().find(|input| input.shape.first() != Some(&-1)).map(|input| input.name.to_string())
}

fn by_chance(datatype: Datatype, shape: &[usize], chance: &mut StdRng) -> Option<Tensor> {
    let elements: usize = shape.iter().product();
    if datatype == Datatype::Bytes {
        return Tensor::of_texts(shape, (0..elements).map(|_| chance.random_range(0..10_u8).to_string())).ok();
    }
    let is_float = matches!(datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64);
    let number =
        |_| if is_float { chance.random_range(-1.0..1.0) } else { f64::from(u8::from(chance.random::<bool>())) };
    Tensor::of_numbers(datatype, shape, &(0..elements).map(number).collect::<Vec<f64>>())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::base::Name;
    use crate::engine::onnx::Port;
    use crate::engine::spec::Sample;

    fn spec(inputs: &[(&str, Datatype, &[i64])]) -> LoadSpec {
        let port = |&(name, datatype, shape): &(&str, Datatype, &[i64])| TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.to_vec(),
        };
        LoadSpec {
            inputs: inputs.iter().map(port).collect(),
            outputs: Vec::new(),
            ..LoadSpec::new(Name::new("press").unwrap(), 1, "onnx", &b"weights"[..])
        }
    }

    fn x(shape: &[usize], data: Vec<f32>) -> NamedTensor {
        NamedTensor::new("x", Tensor::new(shape, data).unwrap())
    }

    #[test]
    fn batches_are_made_of_the_samples_rows_in_turn() {
        let mut spec = spec(&[("x", Datatype::Fp32, &[-1, 2])]);
        assert!(Rows::golden(&spec, 1 << 20).is_none());
        let sample = |data: Vec<f32>| Sample {
            inputs: vec![x(&[data.len() / 2, 2], data)],
            outputs: Vec::new(),
            tolerance: 0.0,
            relative_tolerance: 0.0,
        };
        spec.samples = vec![sample(vec![1.0, 1.0, 2.0, 2.0]), sample(vec![3.0, 3.0])];
        let rows = Rows::golden(&spec, 1 << 20).unwrap();
        assert_eq!(rows.origin(), "2 golden samples");
        assert_eq!(rows.shapes().collect::<Vec<_>>(), [("x", &[1, 2][..])]);
        assert_eq!(rows.batches(1).unwrap().len(), 3);
        let batches = rows.batches(2).unwrap();
        assert_eq!(batches[0], [x(&[2, 2], vec![1.0, 1.0, 2.0, 2.0])]);
        assert_eq!(batches[1], [x(&[2, 2], vec![3.0, 3.0, 1.0, 1.0])]);
    }

    #[test]
    fn a_model_for_one_row_has_no_batches_and_says_which_input() {
        let spec = spec(&[("x", Datatype::Fp32, &[1, 2])]);
        let rows = Rows::seeded(&spec, &[], &mut StdRng::seed_from_u64(0)).unwrap();
        assert!(rows.batches(1).is_ok());
        assert_eq!(rows.batches(8).unwrap_err(), "no batches: the first dimension of input x is fixed");
    }

    #[test]
    fn free_dimensions_are_set_by_name_or_place_and_others_are_refused() {
        let spec = spec(&[("ids", Datatype::Int64, &[-1, -1]), ("mask", Datatype::Int64, &[-1, -1])]);
        let port = |name: &str, dimension| Port {
            name: name.to_owned(),
            datatype: Some(Datatype::Int64),
            dimensions: Some(vec![Dimension::Free, dimension]),
            is_map: false,
        };
        let outline = Outline {
            producer: String::new(),
            opsets: Vec::new(),
            inputs: vec![port("ids", Dimension::Named("tokens".to_owned())), port("mask", Dimension::Free)],
            outputs: Vec::new(),
            operators: BTreeMap::new(),
            has_functions: false,
        };
        let all = |sizes: &[(&str, usize)]| {
            let sizes = sizes.iter().map(|&(name, size)| (name.to_owned(), size)).collect();
            FreeDimension::all(&spec, Some(&outline), &sizes)
        };
        let sizes = |free: &[FreeDimension]| free.iter().map(|free| free.size).collect::<Vec<_>>();
        assert_eq!(sizes(&all(&[]).unwrap()), [64, 64]);
        let free = all(&[("tokens", 7), ("mask.1", 7)]).unwrap();
        assert_eq!(sizes(&free), [7, 7]);
        assert_eq!(
            all(&[("token", 7)]).unwrap_err(),
            "token=7: no free dimension is called so; there is tokens, mask.1"
        );
        assert!(all(&[("tokens", 0)]).unwrap_err().contains("at least 1"));
        let rows = Rows::seeded(&spec, &free, &mut StdRng::seed_from_u64(0)).unwrap();
        assert_eq!(rows.shapes().next().unwrap(), ("ids", &[1, 7][..]));
        let huge = all(&[("tokens", usize::MAX)]).unwrap();
        let refused = Rows::seeded(&spec, &huge, &mut StdRng::seed_from_u64(0)).unwrap_err();
        assert!(refused.starts_with("input ids would have the shape [1, 18446744073709551615]"), "{refused}");
    }

    #[test]
    fn every_type_gets_numbers_and_the_same_seed_the_same_ones() {
        for datatype in Datatype::ALL {
            let spec = spec(&[("x", datatype, &[-1, 3])]);
            let made = || Rows::seeded(&spec, &[], &mut StdRng::seed_from_u64(7)).unwrap().batches(4).unwrap();
            assert_eq!(made(), made(), "{datatype}");
            assert_eq!(made()[0][0].tensor.shape(), [4, 3], "{datatype}");
        }
    }

    #[test]
    fn given_arrays_must_be_the_models() {
        let spec = spec(&[("x", Datatype::Fp32, &[-1, 2])]);
        let given = |tensor| Rows::given(&spec, vec![tensor], 1 << 20);
        assert_eq!(given(x(&[3, 2], vec![0.0; 6])).unwrap().batches(1).unwrap().len(), 3);
        assert!(given(x(&[3, 1], vec![0.0; 3])).unwrap_err().contains("input x has shape [3, 1], expected [-1, 2]"));
        assert!(given(x(&[0, 2], Vec::new())).unwrap_err().contains("no row"));
    }
}
