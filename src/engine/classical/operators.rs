//! Which operators there are, and what they are given.

use smallvec::SmallVec;

use super::attributes::Attributes;
use super::{ELEMENTS_MAX, cast, elementwise, encode, features, kernel, linear, matrix, reduce, shaping, trees};
use crate::base::{Datatype, Element, Tensor};

/// What a node computes. The error is for people and does not name the node.
pub(super) type Operator = Box<dyn Fn(Inputs<'_>) -> Result<Outputs, String> + Send + Sync>;
pub(super) type Outputs = SmallVec<[Tensor; 2]>;
type Build = fn(&Attributes<'_>) -> Result<Operator, String>;

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

const OPERATORS: &[(&str, Build)] = &[
    ("ai.onnx.ml.ArrayFeatureExtractor", shaping::array_feature_extractor),
    ("ai.onnx.ml.Binarizer", features::binarizer),
    ("ai.onnx.ml.CategoryMapper", encode::category_mapper),
    ("ai.onnx.ml.FeatureVectorizer", features::feature_vectorizer),
    ("ai.onnx.ml.Imputer", features::imputer),
    ("ai.onnx.ml.LabelEncoder", encode::label_encoder),
    ("ai.onnx.ml.LinearClassifier", linear::classifier),
    ("ai.onnx.ml.LinearRegressor", linear::regressor),
    ("ai.onnx.ml.Normalizer", features::normalizer),
    ("ai.onnx.ml.OneHotEncoder", encode::one_hot_encoder),
    ("ai.onnx.ml.SVMClassifier", kernel::classifier),
    ("ai.onnx.ml.SVMRegressor", kernel::regressor),
    ("ai.onnx.ml.Scaler", features::scaler),
    ("ai.onnx.ml.TreeEnsemble", trees::ensemble),
    ("ai.onnx.ml.TreeEnsembleClassifier", trees::classifier),
    ("ai.onnx.ml.TreeEnsembleRegressor", trees::regressor),
    ("ai.onnx.ml.ZipMap", shaping::zip_map),
    ("Abs", elementwise::abs),
    ("Add", elementwise::add),
    ("And", elementwise::and),
    ("ArgMax", reduce::arg_max),
    ("ArgMin", reduce::arg_min),
    ("Cast", cast::cast),
    ("Ceil", elementwise::ceil),
    ("Clip", elementwise::clip),
    ("Concat", shaping::concat),
    ("Constant", shaping::constant),
    ("ConstantOfShape", shaping::constant_of_shape),
    ("Div", elementwise::div),
    ("Equal", elementwise::equal),
    ("Exp", elementwise::exp),
    ("Expand", shaping::expand),
    ("Flatten", shaping::flatten),
    ("Floor", elementwise::floor),
    ("Gather", shaping::gather),
    ("Gemm", matrix::gemm),
    ("Greater", elementwise::greater),
    ("GreaterOrEqual", elementwise::greater_or_equal),
    ("Identity", shaping::identity),
    ("IsNaN", elementwise::is_nan),
    ("Less", elementwise::less),
    ("LessOrEqual", elementwise::less_or_equal),
    ("Log", elementwise::log),
    ("LpNormalization", reduce::lp_normalization),
    ("MatMul", matrix::mat_mul),
    ("Max", elementwise::max),
    ("Mean", elementwise::mean),
    ("Min", elementwise::min),
    ("Mul", elementwise::mul),
    ("Neg", elementwise::neg),
    ("Not", elementwise::not),
    ("Or", elementwise::or),
    ("Pow", elementwise::pow),
    ("Reciprocal", elementwise::reciprocal),
    ("ReduceL1", reduce::l1),
    ("ReduceL2", reduce::l2),
    ("ReduceLogSumExp", reduce::log_sum_exp),
    ("ReduceMax", reduce::max),
    ("ReduceMean", reduce::mean),
    ("ReduceMin", reduce::min),
    ("ReduceProd", reduce::prod),
    ("ReduceSum", reduce::sum),
    ("ReduceSumSquare", reduce::sum_square),
    ("Relu", elementwise::relu),
    ("Reshape", shaping::reshape),
    ("Shape", shaping::shape),
    ("Sigmoid", elementwise::sigmoid),
    ("Sign", elementwise::sign),
    ("Slice", shaping::slice),
    ("Softmax", reduce::softmax),
    ("Sqrt", elementwise::sqrt),
    ("Squeeze", shaping::squeeze),
    ("Sub", elementwise::sub),
    ("Sum", elementwise::sum),
    ("Tanh", elementwise::tanh),
    ("Transpose", shaping::transpose),
    ("Unsqueeze", shaping::unsqueeze),
    ("Where", elementwise::choose),
    ("Xor", elementwise::xor),
];

/// How the operator `title` is prepared: `Name`, or `domain.Name`.
pub(super) fn find(title: &str) -> Option<Build> {
    OPERATORS.iter().find(|(known, _)| *known == title).map(|(_, build)| *build)
}

pub(super) fn is_known(title: &str) -> bool {
    find(title).is_some()
}

/// Whether a tensor holds texts.
pub(super) fn is_text(tensor: &Tensor) -> bool {
    tensor.datatype() == Datatype::Bytes
}
