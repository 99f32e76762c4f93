//! What can go wrong with a model or a request.

use prometheus_client::encoding::EncodeLabelValue;

use crate::base::Datatype;

/// Why a model does not serve, or a request has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum Error {
    /// The model's format is nobody's.
    #[error("no engine in this build reads format {format}{}", hint(format))]
    NoEngine { format: String },
    /// The manifest names an engine that this build lacks, or every engine had a reason against the model.
    #[error("no engine takes model {model}: {reasons}")]
    NoneTakes { model: String, reasons: String },
    /// The model file cannot be read or does not compute.
    #[error("failed to load model {model} with {engine}: {reason}")]
    Load { model: String, engine: &'static str, reason: String },
    /// The model file is none that any engine may be given.
    #[error("failed to read the file of model {model}: {reason}")]
    File { model: String, reason: String },
    /// The model file and its declaration differ.
    #[error("model {model} is not what is declared: {what}: expected {expected}, given {given}")]
    Declared { model: String, what: String, expected: String, given: String },
    /// This build does not reproduce the sample that came with the model.
    #[error(
        "model {model} gives something else with {engine} than sample {sample} has, so it must not serve: output \
         {output}, {what}"
    )]
    Sample {
        model: String,
        engine: &'static str,
        /// From 1, as the samples stand in the manifest.
        sample: usize,
        output: String,
        /// Where, what was expected and what came.
        what: String,
    },
    /// An input is not there.
    #[error("no input {input}; expected {expected}")]
    MissingInput { input: String, expected: String },
    /// An input that the model does not have, or has already.
    #[error("unknown or repeated input {input}; expected {expected}")]
    UnknownInput { input: String, expected: String },
    /// The declared shape and the tensor's differ.
    #[error("input {name} has shape {given:?}, expected {expected:?} (-1 is any size)")]
    Shape { name: String, expected: Vec<i64>, given: Vec<usize> },
    /// Inputs that are each as declared and do not fit each other, or that the engine cannot compute as they are.
    #[error("{what}")]
    Unfit {
        /// Which input, what was expected and what came.
        what: String,
    },
    /// The declared element type and the tensor's differ.
    #[error("input {name} is {given}, expected {expected}")]
    Datatype { name: String, expected: Datatype, given: Datatype },
    /// Over `tensor_bytes_max`.
    #[error("{name} has {bytes} bytes, the most is {most} (engine.tensor_bytes_max)")]
    TooLarge { name: String, bytes: usize, most: usize },
    /// nan or infinity.
    #[error("{name} has {value} at element {at}: only finite numbers are taken")]
    NotFinite { name: String, value: String, at: usize },
    /// The lane is full. Try later, or slow down.
    #[error("busy: {waiting} requests with {waiting_bytes} bytes wait, the most is {most} with {most_bytes} bytes")]
    Busy { waiting: usize, waiting_bytes: usize, most: usize, most_bytes: usize },
    /// The time was over before there was an answer.
    #[error("no answer within {timeout_ms} ms")]
    Expired { timeout_ms: u64 },
    /// The pool is closing.
    #[error("the inference threads are shutting down")]
    Closed,
    /// The model's code panicked. The thread lives on.
    #[error("model {model} panicked: {message}")]
    Panicked { model: String, message: String },
    /// The engine could not compute this request.
    #[error("failed to run model {model} with {engine}: {reason}")]
    Run { model: String, engine: &'static str, reason: String },
    /// The program that computes it did not answer.
    #[error("model {model} is not computed by {engine}: {reason}")]
    Delegate { model: String, engine: &'static str, reason: String },
    /// A setting that cannot be used.
    #[error("failed to use {setting}: {problem}")]
    Setting { setting: String, problem: String },
    /// The models' memory is taken.
    #[error(
        "no room for model {model}: it needs {needs_bytes} bytes, {in_use_bytes} of {limit_bytes} are in use{}; \
         engine.memory_bytes_max is the bound",
        of(others)
    )]
    NoRoom {
        model: String,
        needs_bytes: u64,
        limit_bytes: u64,
        in_use_bytes: u64,
        /// Each with its bytes.
        others: String,
    },
    /// The box is short of memory, hot or on a low battery.
    #[error("{what}: refused for now, {why}")]
    BackedOff { what: String, why: String },
    /// A thread could not be started.
    #[error("failed to start an inference thread: {0}")]
    Thread(String),
}

/// An error without its details, as metrics count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Kind {
    Load,
    Sample,
    Input,
    NotFinite,
    Busy,
    Expired,
    Closed,
    Panicked,
    Run,
    Delegate,
    NoRoom,
    BackedOff,
}

impl Error {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::NoEngine { .. }
            | Self::NoneTakes { .. }
            | Self::Load { .. }
            | Self::File { .. }
            | Self::Declared { .. }
            | Self::Setting { .. }
            | Self::Thread(_) => Kind::Load,
            Self::Sample { .. } => Kind::Sample,
            Self::MissingInput { .. }
            | Self::UnknownInput { .. }
            | Self::Shape { .. }
            | Self::Unfit { .. }
            | Self::Datatype { .. }
            | Self::TooLarge { .. } => Kind::Input,
            Self::NotFinite { .. } => Kind::NotFinite,
            Self::Busy { .. } => Kind::Busy,
            Self::Expired { .. } => Kind::Expired,
            Self::Closed => Kind::Closed,
            Self::Panicked { .. } => Kind::Panicked,
            Self::Run { .. } => Kind::Run,
            Self::Delegate { .. } => Kind::Delegate,
            Self::NoRoom { .. } => Kind::NoRoom,
            Self::BackedOff { .. } => Kind::BackedOff,
        }
    }
}

fn of(others: &str) -> String {
    if others.is_empty() { String::new() } else { format!(" ({others})") }
}

/// What to do about a format that an engine outside this build reads.
fn hint(format: &str) -> &'static str {
    match format {
        "onnx" if cfg!(not(feature = "tract")) => "; build with --features tract",
        "safetensors" | "gguf" if cfg!(not(feature = "transformer")) => "; build with --features transformer",
        _ => "",
    }
}
