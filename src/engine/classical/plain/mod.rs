//! Operators of ONNX's own set that the converters of classical models do not write: what this engine adds so that a model
//! which no faster engine takes is served all the same. Right before fast: most compute in 64-bit floats.

mod activation;
pub(super) mod control;
mod convolution;
mod geometry;
mod layout;
mod losses;
mod narrow;
mod normal;
mod places;
mod pooling;
mod quantised;
mod softmax;
mod spectra;
mod text;
mod unique;
mod window;

pub(super) use narrow::{Narrow, with};

use super::cast::cast_to;
use super::operators::{Build, tensor, wrong_type};
use super::shaping;
use crate::base::{Datatype, Tensor};

/// `Softmax` of any type of float; in flat form, everything from `axis` on is one row.
pub(super) fn softmax_along(x: &Tensor, axis: i64, is_flat: bool) -> Result<Tensor, String> {
    softmax::along(x, axis, is_flat, softmax::Row::Softmax)
}

/// Elements as 64-bit floats; texts are refused.
fn numbers(x: &Tensor) -> Result<Vec<f64>, String> {
    x.to_numbers().ok_or_else(|| wrong_type(x))
}

/// Elements of `datatype` from 64-bit floats.
fn of(datatype: Datatype, shape: &[usize], data: Vec<f64>) -> Result<Tensor, String> {
    cast_to(&tensor(shape, data)?, datatype)
}

pub(super) const OPERATORS: &[(&str, Build, Narrow)] = &[
    ("Acos", activation::acos, Narrow::Known),
    ("Acosh", activation::acosh, Narrow::Known),
    ("AffineGrid", geometry::affine_grid, Narrow::Known),
    ("Asin", activation::asin, Narrow::Known),
    ("Asinh", activation::asinh, Narrow::Known),
    ("Atan", activation::atan, Narrow::Known),
    ("Atanh", activation::atanh, Narrow::Known),
    ("AveragePool", pooling::average, Narrow::Known),
    ("BatchNormalization", normal::batch, Narrow::Known),
    ("BitShift", activation::bit_shift, Narrow::Known),
    ("BitwiseAnd", activation::bit_and, Narrow::Known),
    ("BitwiseNot", activation::bit_not, Narrow::Known),
    ("BitwiseOr", activation::bit_or, Narrow::Known),
    ("BitwiseXor", activation::bit_xor, Narrow::Known),
    ("BlackmanWindow", spectra::blackman, Narrow::Known),
    ("CastLike", layout::cast_like, Narrow::Known),
    ("Celu", activation::celu, Narrow::Known),
    ("CenterCropPad", geometry::center_crop_pad, Narrow::Known),
    ("Col2Im", geometry::col_to_im, Narrow::Known),
    ("Compress", layout::compress, Narrow::Known),
    ("Conv", convolution::conv, Narrow::Known),
    ("ConvInteger", convolution::conv_integer, Narrow::Known),
    ("ConvTranspose", convolution::conv_transpose, Narrow::Known),
    ("Cos", activation::cos, Narrow::Known),
    ("Cosh", activation::cosh, Narrow::Known),
    ("CumSum", softmax::cum_sum, Narrow::Known),
    ("DFT", spectra::dft, Narrow::Known),
    ("DeformConv", geometry::deform_conv, Narrow::Known),
    ("DepthToSpace", places::depth_to_space, Narrow::Known),
    ("DequantizeLinear", quantised::dequantize, Narrow::Known),
    ("Det", geometry::det, Narrow::Known),
    ("Dropout", normal::dropout, Narrow::Known),
    ("DynamicQuantizeLinear", quantised::dynamic_quantize, Narrow::Known),
    ("Elu", activation::elu, Narrow::Known),
    ("Erf", activation::erf, Narrow::Known),
    ("EyeLike", places::eye_like, Narrow::Known),
    ("GatherElements", layout::gather_elements, Narrow::Known),
    ("GatherND", places::gather_nd, Narrow::Known),
    ("Gelu", activation::gelu, Narrow::Known),
    ("GlobalAveragePool", pooling::global_average, Narrow::Known),
    ("GlobalLpPool", pooling::global_norm, Narrow::Known),
    ("GlobalMaxPool", pooling::global_max, Narrow::Known),
    ("GroupNormalization", normal::group, Narrow::Known),
    ("HammingWindow", spectra::hamming, Narrow::Known),
    ("HannWindow", spectra::hann, Narrow::Known),
    ("HardSigmoid", activation::hard_sigmoid, Narrow::Known),
    ("HardSwish", activation::hard_swish, Narrow::Known),
    ("Hardmax", softmax::hardmax, Narrow::Known),
    ("InstanceNormalization", normal::instance, Narrow::Known),
    ("IsInf", activation::is_inf, Narrow::Known),
    ("LRN", normal::local_response, Narrow::Known),
    ("LayerNormalization", normal::layer, Narrow::Known),
    ("LeakyRelu", activation::leaky_relu, Narrow::Known),
    ("LogSoftmax", softmax::log_softmax, Narrow::Known),
    ("LpPool", pooling::norm, Narrow::Known),
    ("MatMulInteger", quantised::mat_mul_integer, Narrow::Known),
    ("MaxPool", pooling::max, Narrow::Known),
    ("MaxUnpool", pooling::max_unpool, Narrow::Known),
    ("MelWeightMatrix", spectra::mel_weights, Narrow::Known),
    ("Mish", activation::mish, Narrow::Known),
    ("Mod", activation::modulo, Narrow::Known),
    ("NegativeLogLikelihoodLoss", losses::negative_log_likelihood, Narrow::Known),
    ("NonZero", places::non_zero, Narrow::Known),
    ("OneHot", places::one_hot, Narrow::Known),
    ("OptionalGetElement", shaping::identity, Narrow::Known),
    ("OptionalHasElement", geometry::optional_has_element, Narrow::Known),
    ("PRelu", activation::p_relu, Narrow::Known),
    ("Pad", layout::pad, Narrow::Known),
    ("QLinearMatMul", quantised::q_linear_mat_mul, Narrow::Known),
    ("QuantizeLinear", quantised::quantize, Narrow::Known),
    ("Range", layout::range, Narrow::Known),
    ("ReverseSequence", softmax::reverse_sequence, Narrow::Known),
    ("RoiAlign", geometry::roi_align, Narrow::Known),
    ("Round", activation::round, Narrow::Known),
    ("Scatter", places::scatter_elements, Narrow::Known),
    ("ScatterElements", places::scatter_elements, Narrow::Known),
    ("ScatterND", places::scatter_nd, Narrow::Known),
    ("Selu", activation::selu, Narrow::Known),
    ("Shrink", activation::shrink, Narrow::Known),
    ("Sin", activation::sin, Narrow::Known),
    ("Sinh", activation::sinh, Narrow::Known),
    ("Size", layout::size, Narrow::Known),
    ("SoftmaxCrossEntropyLoss", losses::softmax_cross_entropy, Narrow::Known),
    ("Softplus", activation::softplus, Narrow::Known),
    ("Softsign", activation::softsign, Narrow::Known),
    ("SpaceToDepth", places::space_to_depth, Narrow::Known),
    ("Split", layout::split, Narrow::Known),
    ("StringConcat", text::concat, Narrow::Known),
    ("StringNormalizer", text::normalize, Narrow::Known),
    ("StringSplit", text::split_texts, Narrow::Known),
    ("Tan", activation::tan, Narrow::Known),
    ("TfIdfVectorizer", text::tf_idf, Narrow::Known),
    ("ThresholdedRelu", activation::thresholded_relu, Narrow::Known),
    ("Tile", layout::tile, Narrow::Known),
    ("TopK", places::top_k, Narrow::Known),
    ("Trilu", layout::trilu, Narrow::Known),
    ("Unique", unique::unique, Narrow::Known),
    ("Upsample", geometry::upsample, Narrow::Known),
];

#[cfg(test)]
mod tests;
