//! Which operators there are, and what they are given.

use smallvec::SmallVec;

use super::attributes::Attributes;
use super::plain::{self, Narrow};
use super::{ELEMENTS_MAX, cast, elementwise, encode, features, kernel, linear, matrix, reduce, shaping, trees};
use crate::base::{Datatype, Element, Tensor};

/// What a node computes. The error is for people and does not name the node.
pub(super) type Operator = Box<dyn Fn(Inputs<'_>) -> Result<Outputs, String> + Send + Sync>;
pub(super) type Outputs = SmallVec<[Tensor; 2]>;
pub(super) type Build = fn(&Attributes<'_>) -> Result<Operator, String>;

/// A node's inputs; None for one that is left out.
#[derive(Clone, Copy)]
pub(super) struct Inputs<'a>(pub(super) &'a [Option<&'a Tensor>]);

impl<'a> Inputs<'a> {
    pub(super) fn maybe(self, at: usize) -> Option<&'a Tensor> {
        self.0.get(at).copied().flatten()
    }

    pub(super) fn at(self, at: usize) -> Result<&'a Tensor, String> {
        self.maybe(at).ok_or_else(|| format!("input {at} is missing"))
    }

    /// Whole numbers of an input that is a list, such as axes.
    pub(super) fn wholes(self, at: usize) -> Result<Option<Vec<i64>>, String> {
        self.maybe(at).map(|tensor| cast::wholes(tensor).map(|list| list.into_owned())).transpose()
    }
}

pub(super) fn one(tensor: Tensor) -> Result<Outputs, String> {
    let mut outputs = Outputs::new();
    outputs.push(tensor);
    Ok(outputs)
}

/// A tensor of elements that were just computed.
pub(super) fn made<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Outputs, String> {
    one(tensor(shape, data)?)
}

pub(super) fn tensor<T: Element>(shape: &[usize], data: Vec<T>) -> Result<Tensor, String> {
    Tensor::new(shape, data).map_err(|error| error.to_string())
}

/// Elements of a shape that something is about to be computed for.
pub(super) fn room_for(shape: &[usize]) -> Result<usize, String> {
    let elements = shape.iter().try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    elements
        .filter(|&elements| elements <= ELEMENTS_MAX)
        .ok_or_else(|| format!("a tensor of shape {shape:?} is larger than {ELEMENTS_MAX} elements"))
}

/// Rows and columns as `ai.onnx.ml` sees a tensor: without a batch dimension it is one row.
pub(super) fn rows_of(tensor: &Tensor) -> Result<(usize, usize), String> {
    match *tensor.shape() {
        [] => Err("its input has no dimension".to_owned()),
        [width] => Ok((1, width)),
        [rows, ref inner @ ..] => Ok((rows, inner.iter().product())),
    }
}

/// An axis that may count from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, String> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis + signed } else { axis };
    let at = usize::try_from(at).ok().filter(|&at| at < rank.max(1));
    at.ok_or_else(|| format!("axis {axis} of a tensor with {rank} dimensions"))
}

pub(super) fn wrong_type(tensor: &Tensor) -> String {
    format!("{} is not computed here", tensor.datatype())
}

/// Calls a generic function with the Rust type of a fixed-size datatype; `$none` for the others.
macro_rules! by_number {
    ($datatype:expr, $typed:ident ( $($argument:expr),* $(,)? ), $none:expr) => {
        match $datatype {
            crate::base::Datatype::Fp32 => $typed::<f32>($($argument),*),
            crate::base::Datatype::Fp64 => $typed::<f64>($($argument),*),
            crate::base::Datatype::Int64 => $typed::<i64>($($argument),*),
            crate::base::Datatype::Int32 => $typed::<i32>($($argument),*),
            _ => $none,
        }
    };
}
pub(super) use by_number;

const OPERATORS: &[(&str, Build, Narrow)] = &[
    ("ai.onnx.ml.ArrayFeatureExtractor", shaping::array_feature_extractor, Narrow::Known),
    ("ai.onnx.ml.Binarizer", features::binarizer, Narrow::Known),
    ("ai.onnx.ml.CategoryMapper", encode::category_mapper, Narrow::Known),
    ("ai.onnx.ml.FeatureVectorizer", features::feature_vectorizer, Narrow::Known),
    ("ai.onnx.ml.Imputer", features::imputer, Narrow::Known),
    ("ai.onnx.ml.LabelEncoder", encode::label_encoder, Narrow::Known),
    ("ai.onnx.ml.LinearClassifier", linear::classifier, Narrow::Known),
    ("ai.onnx.ml.LinearRegressor", linear::regressor, Narrow::Known),
    ("ai.onnx.ml.Normalizer", features::normalizer, Narrow::Known),
    ("ai.onnx.ml.OneHotEncoder", encode::one_hot_encoder, Narrow::Known),
    ("ai.onnx.ml.SVMClassifier", kernel::classifier, Narrow::Known),
    ("ai.onnx.ml.SVMRegressor", kernel::regressor, Narrow::Known),
    ("ai.onnx.ml.Scaler", features::scaler, Narrow::Known),
    ("ai.onnx.ml.TreeEnsemble", trees::ensemble, Narrow::Known),
    ("ai.onnx.ml.TreeEnsembleClassifier", trees::classifier, Narrow::Known),
    ("ai.onnx.ml.TreeEnsembleRegressor", trees::regressor, Narrow::Known),
    ("ai.onnx.ml.ZipMap", shaping::zip_map, Narrow::Known),
    ("Abs", elementwise::abs, Narrow::Back),
    ("Add", elementwise::add, Narrow::Back),
    ("And", elementwise::and, Narrow::Known),
    ("ArgMax", reduce::arg_max, Narrow::Stay),
    ("ArgMin", reduce::arg_min, Narrow::Stay),
    ("Cast", cast::cast, Narrow::Known),
    ("Ceil", elementwise::ceil, Narrow::Back),
    ("Clip", elementwise::clip, Narrow::Back),
    ("Concat", shaping::concat, Narrow::Known),
    ("Constant", shaping::constant, Narrow::Known),
    ("ConstantOfShape", shaping::constant_of_shape, Narrow::Known),
    ("Div", elementwise::div, Narrow::Back),
    ("Equal", elementwise::equal, Narrow::Stay),
    ("Exp", elementwise::exp, Narrow::Back),
    ("Expand", shaping::expand, Narrow::Known),
    ("Flatten", shaping::flatten, Narrow::Known),
    ("Floor", elementwise::floor, Narrow::Back),
    ("Gather", shaping::gather, Narrow::Known),
    ("Gemm", matrix::gemm, Narrow::Back),
    ("Greater", elementwise::greater, Narrow::Stay),
    ("GreaterOrEqual", elementwise::greater_or_equal, Narrow::Stay),
    ("Identity", shaping::identity, Narrow::Known),
    ("IsNaN", elementwise::is_nan, Narrow::Stay),
    ("Less", elementwise::less, Narrow::Stay),
    ("LessOrEqual", elementwise::less_or_equal, Narrow::Stay),
    ("Log", elementwise::log, Narrow::Back),
    ("LpNormalization", reduce::lp_normalization, Narrow::Back),
    ("MatMul", matrix::mat_mul, Narrow::Back),
    ("Max", elementwise::max, Narrow::Back),
    ("Mean", elementwise::mean, Narrow::Back),
    ("Min", elementwise::min, Narrow::Back),
    ("Mul", elementwise::mul, Narrow::Back),
    ("Neg", elementwise::neg, Narrow::Back),
    ("Not", elementwise::not, Narrow::Known),
    ("Or", elementwise::or, Narrow::Known),
    ("Pow", elementwise::pow, Narrow::Back),
    ("Reciprocal", elementwise::reciprocal, Narrow::Back),
    ("ReduceL1", reduce::l1, Narrow::Back),
    ("ReduceL2", reduce::l2, Narrow::Back),
    ("ReduceLogSum", reduce::log_sum, Narrow::Back),
    ("ReduceLogSumExp", reduce::log_sum_exp, Narrow::Back),
    ("ReduceMax", reduce::max, Narrow::Back),
    ("ReduceMean", reduce::mean, Narrow::Back),
    ("ReduceMin", reduce::min, Narrow::Back),
    ("ReduceProd", reduce::prod, Narrow::Back),
    ("ReduceSum", reduce::sum, Narrow::Back),
    ("ReduceSumSquare", reduce::sum_square, Narrow::Back),
    ("Relu", elementwise::relu, Narrow::Back),
    ("Reshape", shaping::reshape, Narrow::Known),
    ("Shape", shaping::shape, Narrow::Known),
    ("Sigmoid", elementwise::sigmoid, Narrow::Back),
    ("Sign", elementwise::sign, Narrow::Back),
    ("Slice", shaping::slice, Narrow::Known),
    ("Softmax", reduce::softmax, Narrow::Back),
    ("Sqrt", elementwise::sqrt, Narrow::Back),
    ("Squeeze", shaping::squeeze, Narrow::Known),
    ("Sub", elementwise::sub, Narrow::Back),
    ("Sum", elementwise::sum, Narrow::Back),
    ("Tanh", elementwise::tanh, Narrow::Back),
    ("Transpose", shaping::transpose, Narrow::Known),
    ("Unsqueeze", shaping::unsqueeze, Narrow::Known),
    ("Where", elementwise::choose, Narrow::Known),
    ("Xor", elementwise::xor, Narrow::Known),
];

fn find(title: &str) -> Option<(Build, Narrow)> {
    let found = OPERATORS.iter().chain(plain::OPERATORS).find(|(known, ..)| *known == title);
    found.map(|&(_, build, narrow)| (build, narrow))
}

/// What computes a node.
pub(super) fn build(attributes: &Attributes<'_>) -> Result<Operator, String> {
    let (build, narrow) = find(&attributes.node.title()).ok_or_else(|| "an unknown operator".to_owned())?;
    Ok(plain::with(narrow, build(attributes)?))
}

/// Whether the operator `title` is computed here: `Name`, or `domain.Name`.
pub(super) fn is_known(title: &str) -> bool {
    find(title).is_some() || plain::control::TITLES.contains(&title)
}

/// Whether a tensor holds texts.
pub(super) fn is_text(tensor: &Tensor) -> bool {
    tensor.datatype() == Datatype::Bytes
}
