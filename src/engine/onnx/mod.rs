//! What an ONNX file says of itself: signature, operators, weights.
//!
//! A protobuf reader of our own, about the messages of `onnx.proto` (Apache-2.0, the format is the specification) and
//! borrowing everything from the file: a model is judged before anything is built from it, and a file that claims a
//! thousand million nodes costs no memory but what it brings along.
//!
//! Limits: [`Limits`]. A file whose weights lie in another file is refused: only the digest of the one was checked.

mod file;
#[cfg(test)]
pub(super) mod fixture;
mod outline;
mod tensors;
mod wire;

pub(super) use file::{Attribute, Graph, Model, Node, TensorData, Value, ValueKind};
pub use outline::{Dimension, Outline, Port, Signature};
pub(super) use outline::{check_declared, elem_datatype};
pub(super) use tensors::decode;

/// Bounds of a file, far above any model that runs on a small box.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits;

impl Limits {
    /// Graphs within attributes of nodes within graphs.
    pub(super) const DEPTH: usize = 16;
    /// Nodes of all graphs.
    pub(super) const NODES: usize = 200_000;
    /// Initialisers, inputs, outputs and inner values of a graph, each.
    pub(super) const VALUES: usize = 400_000;
    /// Attributes of a node, and its inputs and outputs.
    pub(super) const PER_NODE: usize = 65_536;
    /// Dimensions of a tensor.
    pub(super) const RANK: usize = 32;
}

/// Why a file is no ONNX model that may be loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The bytes are no message.
    #[error("the file is no ONNX model: {what} at byte {at}")]
    Torn {
        /// What is wrong.
        what: &'static str,
        /// Where, from 0.
        at: usize,
    },
    /// It has no graph.
    #[error("the file is no ONNX model: it has no graph")]
    NoGraph,
    /// Over a limit.
    #[error("{what} has over {most} {of}")]
    Limit {
        /// The node or graph.
        what: String,
        /// The bound.
        most: usize,
        /// What is bounded.
        of: &'static str,
    },
    /// Weights in another file.
    #[error("the weights of {tensor} lie in another file ({location}); save the model as one file")]
    External {
        /// The tensor.
        tensor: String,
        /// As the file says it.
        location: String,
    },
    /// A tensor whose data is not what it declares.
    #[error("tensor {tensor} is broken: {what}")]
    Tensor {
        /// Its name.
        tensor: String,
        /// What is wrong.
        what: String,
    },
}
