//! ONNX models by tract, in pure Rust and on the CPU.
//!
//! The file must be self-contained: weights in a second file are refused, since only the digest of the one was checked.

mod rows;

use std::sync::Arc;

use half::f16;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::{
    Datum, DatumType, Framework, InferenceFact, InferenceModel, InferenceModelExt, TDim, TValue, TVec, Tensor as Array,
    TractResult,
    tract_data::internal::{TractErrorContext as _, bail, ensure},
};
use tract_onnx::tract_core::model::{IntoRunnable, TypedFact, TypedModel, TypedOp};
use tract_onnx::tract_core::plan::SimplePlan;
use tract_onnx::tract_hir::infer::Factoid;

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rows::Rows;

use super::batching::join;
use super::bench;
use super::error::Error;
use super::golden;
use super::handle::caught;
use super::onnx::Outline;
use super::session::{Engine, Fit, Session};
use super::spec::{LoadSpec, NamedTensor, Sample, TensorSpec};
use super::ties::same;
use crate::base::{Datatype, Element, Tensor};

type Plan = SimplePlan<TypedFact, Box<dyn TypedOp>>;

/// Reads `onnx`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tract;

const NAME: &str = "tract";

impl Engine for Tract {
    fn name(&self) -> &'static str {
        NAME
    }

    fn reads(&self, format: &str) -> bool {
        format == "onnx"
    }

    fn suits(&self, spec: &LoadSpec) -> Result<Fit, String> {
        if spec.inputs.iter().any(|input| input.shape.contains(&0)) {
            return Err("it computes no empty tensors".to_owned());
        }
        // What cannot be read has no operators; loading says where it is torn.
        let Ok(outline) = Outline::of(&spec.bytes) else { return Ok(Fit::Best) };
        let known = &tract_onnx::onnx().op_register.0;
        let name = |title: &str| title.rsplit('.').next().unwrap_or_default().to_owned();
        let unknown: Vec<_> = outline.operators.into_keys().filter(|title| !known.contains_key(&name(title))).collect();
        if unknown.is_empty() { Ok(Fit::Best) } else { Err(format!("it has no {}", unknown.join(", "))) }
    }

    fn load(&self, spec: &LoadSpec) -> Result<Box<dyn Session>, Error> {
        Ok(Box::new(Self::open(spec)?))
    }
}

impl Tract {
    fn open(spec: &LoadSpec) -> Result<TractSession, Error> {
        let failed = |reason: String| Error::Load { model: spec.title(), engine: NAME, reason };
        if spec.bytes.is_empty() {
            return Err(failed("the file is empty".to_owned()));
        }
        let read = || -> TractResult<InferenceModel> {
            // Named dimensions on inner values contradict a pinned input, and tract infers them itself.
            let onnx = tract_onnx::onnx().with_ignore_value_info(true);
            let proto: ModelProto = onnx.proto_model_for_read(&mut &*spec.bytes)?;
            onnx.model_for_proto_model(&proto)
        };
        let mut model = read().map_err(|error| failed(format!("{error:#}")))?;
        declare(&mut model, spec)?;
        let (one, _) = plan(&model, spec, Free::One).map_err(|error| failed(format!("{error:#}")))?;
        let outline = Outline::of(&spec.bytes).ok();
        let nameless = outline.as_ref().map(|outline| outline.nameless_batches(&spec.inputs)).unwrap_or_default();
        let is_free = spec.inputs.iter().any(|input| input.shape.contains(&-1));
        let by_row = spec.inputs.iter().chain(&spec.outputs).all(|tensor| {
            tensor.shape.first() == Some(&-1) && tensor.shape.iter().filter(|&&dim| dim == -1).count() == 1
        });
        // A file that knows one row only may fail or panic here; it still serves, row by row.
        let any = || caught(&spec.title(), || plan(&model, spec, Free::Any).map_err(|error| failed(error.to_string())));
        let any = if is_free { any().ok() } else { None };
        let rows = any.as_ref().map_or(Rows::Together, |(_, rows)| *rows);
        let mut session = TractSession {
            model: spec.title(),
            outputs: spec.outputs.iter().map(|output| Arc::clone(&output.name)).collect(),
            one: Prepared::new(one),
            any: any.map(|(plan, _)| Prepared::new(plan)),
            by_row,
            together: nameless.into_iter().map(|at| (at, 0)).collect(),
            is_steady: outline.is_some_and(|outline| !outline.has_functions && !outline.has_loops()),
        };
        if by_row && rows == Rows::FasterApart && session.agrees_by_row(spec) {
            session.any = None;
        }
        if by_row && session.any.is_none() {
            session.together = (0..spec.inputs.len()).map(|at| (at, 0)).collect();
        }
        Ok(session)
    }
}

/// What becomes of free dimensions in a plan.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Free {
    /// Pinned to 1, for the fastest code.
    One,
    /// Left open, for batches.
    Any,
}

/// Checks the file's inputs and outputs against the declaration and brings them into its order.
fn declare(model: &mut InferenceModel, spec: &LoadSpec) -> Result<(), Error> {
    let differs =
        |what: String, expected: String, given: String| Error::Declared { model: spec.title(), what, expected, given };
    let names =
        |specs: &[TensorSpec]| specs.iter().map(|tensor| tensor.name.to_string()).collect::<Vec<_>>().join(", ");
    let sources = model.inputs.clone();
    let source_name = |at: usize| model.nodes[sources[at].node].name.clone();
    let given = (0..sources.len()).map(source_name).collect::<Vec<_>>();
    let mut inputs = Vec::new();
    for declared in &spec.inputs {
        let Some(at) = given.iter().position(|name| **name == *declared.name) else {
            return Err(differs("inputs".to_owned(), names(&spec.inputs), given.join(", ")));
        };
        let fact = &model.nodes[sources[at].node].outputs[sources[at].slot].fact;
        let dims: Vec<Option<i64>> =
            fact.shape.dims().map(|dim| dim.concretize().and_then(|dim| dim.to_i64().ok())).collect();
        let shape_fits = (fact.shape.is_open() && dims.is_empty())
            || dims.len() == declared.shape.len()
                && dims.iter().zip(&declared.shape).all(|(dim, &declared)| dim.is_none_or(|dim| dim == declared));
        if !shape_fits {
            let shape: Vec<i64> = dims.into_iter().map(|dim| dim.unwrap_or(-1)).collect();
            let what = format!("shape of input {}", declared.name);
            return Err(differs(what, format!("{:?}", declared.shape), format!("{shape:?} in the file")));
        }
        let datatype = datum_type(declared.datatype);
        if datatype.is_none() || fact.datum_type.concretize().is_some_and(|given| Some(given) != datatype) {
            let what = format!("datatype of input {}", declared.name);
            return Err(differs(what, declared.datatype.to_string(), format!("{:?} in the file", fact.datum_type)));
        }
        inputs.push(sources[at]);
    }
    if inputs.len() != sources.len() {
        return Err(differs("inputs".to_owned(), names(&spec.inputs), given.join(", ")));
    }
    let sinks = model.outputs.clone();
    let sink_name = |at: usize| model.outlet_label(sinks[at]).unwrap_or_default().to_owned();
    let given = (0..sinks.len()).map(sink_name).collect::<Vec<_>>();
    let outputs = spec.outputs.iter().map(|declared| given.iter().position(|name| **name == *declared.name));
    let Some(outputs) = outputs.collect::<Option<Vec<usize>>>() else {
        return Err(differs("outputs".to_owned(), names(&spec.outputs), given.join(", ")));
    };
    model.inputs = inputs;
    model.outputs = outputs.into_iter().map(|at| sinks[at]).collect();
    Ok(())
}

/// A plan, and how it is best used for several rows.
fn plan(model: &InferenceModel, spec: &LoadSpec, free: Free) -> TractResult<(Arc<Plan>, Rows)> {
    let mut model = model.clone();
    let batch = model.symbols.new_with_prefix("batch");
    for (at, declared) in spec.inputs.iter().enumerate() {
        let own: Vec<Option<TDim>> = model.input_fact(at)?.shape.dims().map(|dim| dim.concretize()).collect();
        let dims = declared.shape.iter().enumerate().map(|(axis, &dim)| match (dim, free) {
            (-1, Free::One) => TDim::from(1),
            (-1, Free::Any) => match own.get(axis).cloned().flatten() {
                // A named dimension says which dimensions of several inputs go together.
                Some(named) => named,
                None if axis == 0 => batch.clone().into(),
                None => model.symbols.new_with_prefix("free").into(),
            },
            _ => TDim::from(dim),
        });
        let shape: Vec<TDim> = dims.collect();
        let datatype = datum_type(declared.datatype).context("BYTES cannot be computed")?;
        model.set_input_fact(at, InferenceFact::dt_shape(datatype, shape))?;
    }
    let mut model: TypedModel = model.into_typed()?;
    model.declutter()?;
    // Once it is optimised, its operators are the processor's and no longer the model's.
    let rows = if free == Free::Any { rows::judge(&model)? } else { Rows::Together };
    model.optimize()?;
    for (at, declared) in spec.outputs.iter().enumerate() {
        let (datatype, name) = (model.output_fact(at)?.datum_type, &declared.name);
        let expected = declared.datatype;
        ensure!(Some(datatype) == datum_type(expected), "output {name} is {datatype:?}, expected {expected}");
    }
    Ok((model.into_runnable()?, rows))
}

/// A plan, run with a state of its own for each request. Kernels keep scratch memory by thread and state and let go of it
/// only where the state was dropped: one that is used on a thread and dropped on another leaves it behind for good.
struct Prepared {
    plan: Arc<Plan>,
}

impl Prepared {
    fn new(plan: Arc<Plan>) -> Self {
        Self { plan }
    }

    fn run(&self, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        self.plan.run(inputs)
    }
}

struct TractSession {
    model: String,
    outputs: Vec<Arc<str>>,
    one: Prepared,
    any: Option<Prepared>,
    /// The first dimension of every input and output is free, and no other.
    by_row: bool,
    /// First dimensions that are one size, whatever they are called.
    together: Vec<(usize, usize)>,
    is_steady: bool,
}

impl Session for TractSession {
    fn run(&self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
        self.check(inputs)?;
        self.compute(inputs).map_err(|error| Error::Run {
            model: self.model.clone(),
            engine: NAME,
            reason: format!("{error:#}"),
        })
    }

    fn is_steady(&self) -> bool {
        self.is_steady
    }
}

impl TractSession {
    /// Refuses what the plans would fail on halfway, as if the model were broken.
    fn check(&self, inputs: &[NamedTensor]) -> Result<(), Error> {
        if let Some(empty) = inputs.iter().find(|input| input.tensor.elements() == 0) {
            let (name, shape) = (&empty.name, empty.tensor.shape());
            let what = format!(
                "input {name} has shape {shape:?}: {NAME} computes no empty tensors, expected 1 or more of each dimension"
            );
            return Err(Error::Unfit { what });
        }
        same("the first dimension", &self.together, inputs)
    }

    fn compute(&self, inputs: &[NamedTensor]) -> TractResult<Vec<NamedTensor>> {
        let arrays = inputs.iter().map(|input| array(&input.tensor)).collect::<TractResult<TVec<TValue>>>()?;
        let model = self.one.plan.model();
        let mut is_one = true;
        for (at, input) in inputs.iter().enumerate() {
            is_one &= model.input_fact(at)?.shape.as_concrete() == Some(input.tensor.shape());
        }
        let outputs = match &self.any {
            _ if is_one => self.one.run(arrays)?,
            Some(any) => any.run(arrays)?,
            None => return self.compute_rows(inputs),
        };
        let named = |(name, value): (&Arc<str>, TValue)| Ok(NamedTensor::new(Arc::clone(name), tensor(&value)?));
        self.outputs.iter().zip(outputs).map(named).collect()
    }

    /// Whether two made-up rows are the same one by one as together, as far as the two plans' kernels add up alike. The operators
    /// said so already; this is about the engine.
    fn agrees_by_row(&self, spec: &LoadSpec) -> bool {
        let row = |seed| {
            let made = bench::Rows::seeded(spec, &[], &mut StdRng::seed_from_u64(seed)).ok()?;
            made.batches(1).ok()?.into_iter().next()
        };
        let both = || {
            let inputs = join(&[&row(1)?, &row(2)?])?;
            Some((self.compute(&inputs).ok()?, self.compute_rows(&inputs).ok()?))
        };
        let Ok(Some((together, apart))) = caught(&self.model, || Ok(both())) else { return false };
        together.into_iter().all(|output| {
            let tolerance = match output.tensor.datatype() {
                Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 => largest(&output.tensor) * PLANS_DIFFER,
                _ => 0.0,
            };
            let expected = Sample { inputs: Vec::new(), outputs: vec![output], tolerance, relative_tolerance: 0.0 };
            golden::compare(&self.model, NAME, &expected, 1, &apart).is_ok()
        })
    }

    /// Each row for itself: for a file that knows one row only, and where that is faster; if the declaration says that rows are
    /// all that is free.
    fn compute_rows(&self, inputs: &[NamedTensor]) -> TractResult<Vec<NamedTensor>> {
        let rows = inputs.first().and_then(|input| input.tensor.shape().first()).copied().unwrap_or(1);
        ensure!(
            self.by_row && rows > 1 && inputs.iter().all(|input| input.tensor.shape()[0] == rows),
            "this model computes only with every free dimension at 1"
        );
        let mut parts: Vec<Vec<Tensor>> = vec![Vec::with_capacity(rows); self.outputs.len()];
        for row in 0..rows {
            let one_row = |input: &NamedTensor| Some(NamedTensor::new(Arc::clone(&input.name), input.tensor.row(row)?));
            let inputs = inputs.iter().map(one_row).collect::<Option<Vec<_>>>().context("an input has fewer rows")?;
            for (all, output) in parts.iter_mut().zip(self.compute(&inputs)?) {
                all.push(output.tensor);
            }
        }
        let whole = |(name, parts): (&Arc<str>, Vec<Tensor>)| {
            let mut shape = parts[0].shape().to_vec();
            shape[0] = rows;
            let bytes = parts.iter().map(|part| &part.bytes()[..]).collect::<Vec<_>>().concat();
            Ok(NamedTensor::new(Arc::clone(name), Tensor::from_bytes(parts[0].datatype(), shape, bytes.into())?))
        };
        self.outputs.iter().zip(parts).map(whole).collect()
    }
}

/// What sums in another order may differ by, as a part of an output's largest element.
const PLANS_DIFFER: f32 = 1e-4;

fn largest(tensor: &Tensor) -> f32 {
    let numbers = tensor.to_numbers().unwrap_or_default();
    numbers.into_iter().filter(|number| number.is_finite()).fold(0.0, |most: f64, number| most.max(number.abs())) as f32
}

/// The element types that tract and the protocol share.
const DATATYPES: [(Datatype, DatumType); 12] = [
    (Datatype::Bool, DatumType::Bool),
    (Datatype::Uint8, DatumType::U8),
    (Datatype::Uint16, DatumType::U16),
    (Datatype::Uint32, DatumType::U32),
    (Datatype::Uint64, DatumType::U64),
    (Datatype::Int8, DatumType::I8),
    (Datatype::Int16, DatumType::I16),
    (Datatype::Int32, DatumType::I32),
    (Datatype::Int64, DatumType::I64),
    (Datatype::Fp16, DatumType::F16),
    (Datatype::Fp32, DatumType::F32),
    (Datatype::Fp64, DatumType::F64),
];

fn datum_type(datatype: Datatype) -> Option<DatumType> {
    DATATYPES.iter().find(|(ours, _)| *ours == datatype).map(|(_, theirs)| *theirs)
}

macro_rules! by_datatype {
    ($datatype:expr, $typed:ident ( $($argument:expr),* ), $none:expr) => {
        match $datatype {
            Datatype::Bool => $typed::<bool>($($argument),*),
            Datatype::Uint8 => $typed::<u8>($($argument),*),
            Datatype::Uint16 => $typed::<u16>($($argument),*),
            Datatype::Uint32 => $typed::<u32>($($argument),*),
            Datatype::Uint64 => $typed::<u64>($($argument),*),
            Datatype::Int8 => $typed::<i8>($($argument),*),
            Datatype::Int16 => $typed::<i16>($($argument),*),
            Datatype::Int32 => $typed::<i32>($($argument),*),
            Datatype::Int64 => $typed::<i64>($($argument),*),
            Datatype::Fp16 => $typed::<f16>($($argument),*),
            Datatype::Fp32 => $typed::<f32>($($argument),*),
            Datatype::Fp64 => $typed::<f64>($($argument),*),
            Datatype::Bytes => $none,
        }
    };
}

fn array(tensor: &Tensor) -> TractResult<TValue> {
    fn typed<T: Element + Datum>(tensor: &Tensor) -> TractResult<TValue> {
        let elements = tensor.as_slice::<T>().context("a tensor of another type")?;
        Array::from_shape(tensor.shape(), elements).map(TValue::from)
    }
    by_datatype!(tensor.datatype(), typed(tensor), bail!("BYTES cannot be computed"))
}

fn tensor(value: &TValue) -> TractResult<Tensor> {
    fn typed<T: Element + Datum>(value: &TValue) -> TractResult<Tensor> {
        let view = value.try_as_plain_ram()?;
        Ok(Tensor::new(value.shape(), view.as_slice::<T>()?.to_vec())?)
    }
    let datatype = DATATYPES.iter().find(|(_, theirs)| *theirs == value.datum_type()).map(|(ours, _)| *ours);
    let datatype = datatype.with_context(|| format!("no tensor is of {:?}", value.datum_type()))?;
    by_datatype!(datatype, typed(value), bail!("BYTES cannot be computed"))
}
