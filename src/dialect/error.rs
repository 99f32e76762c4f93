//! What can be wrong with a body.

use super::{Dialect, Failure, FailureKind, Operation};

/// What failed. None of it repeats what the body says, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The caller's body is no JSON, or not an object. Line and column count from 1.
    #[error("read the request as a JSON object: line {line}, column {column}")]
    RequestJson {
        /// Line of the body.
        line: usize,
        /// Column of that line, in bytes.
        column: usize,
    },
    /// A member of the request is missing.
    #[error("find the required `{field}` in the request")]
    Missing {
        /// Its path in the body.
        field: &'static str,
    },
    /// A member of the request has a wrong value.
    #[error("use `{field}` of the request: {expected}")]
    Field {
        /// Its path in the body.
        field: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The request asks for something that the dialect of the model cannot say.
    #[error("say `{field}` to a model that speaks {to}: {why}")]
    Unsupported {
        /// Its path in the body.
        field: String,
        /// The dialect of the model.
        to: Dialect,
        /// Why, and what would work.
        why: &'static str,
    },
    /// Nobody translates this operation between these two.
    #[error("translate {operation} from {from} to {to}")]
    NoPair {
        /// What was asked for.
        operation: Operation,
        /// The caller's dialect.
        from: Dialect,
        /// The model's dialect.
        to: Dialect,
    },
    /// The answer of the model is not what its dialect says.
    #[error("read the {what} of a model that speaks {dialect}")]
    Malformed {
        /// The model's dialect.
        dialect: Dialect,
        /// Which part could not be read.
        what: &'static str,
    },
    /// One frame of a stream, or the text that must be kept of it, is longer than allowed.
    #[error("keep more than {max_bytes} bytes of a {what}")]
    TooLong {
        /// What was too long.
        what: &'static str,
        /// The bound.
        max_bytes: usize,
    },
}

impl Error {
    /// Whether the caller can mend it; otherwise the model's answer was at fault.
    pub fn is_callers(&self) -> bool {
        !matches!(self, Self::Malformed { .. } | Self::TooLong { .. })
    }

    /// The same as a caller is told it.
    pub fn failure(&self) -> Failure {
        let kind = if self.is_callers() { FailureKind::InvalidRequest } else { FailureKind::Upstream };
        let param = match self {
            Self::Missing { field } => Some((*field).to_owned()),
            Self::Field { field, .. } | Self::Unsupported { field, .. } => Some(field.clone()),
            _ => None,
        };
        let code = match self {
            Self::Missing { .. } => Some("missing_required_parameter"),
            Self::Field { .. } => Some("invalid_value"),
            Self::Unsupported { .. } | Self::NoPair { .. } => Some("unsupported_parameter"),
            _ => None,
        };
        Failure { param, code: code.map(str::to_owned), ..Failure::new(kind, format!("Failed to {self}.")) }
    }

    /// A member that is not what it should be.
    pub(crate) fn field(field: impl Into<String>, expected: &'static str) -> Self {
        Self::Field { field: field.into(), expected }
    }

    /// A body of the caller that serde could not read. Its own words may repeat the body, so only the place is kept.
    pub(crate) fn request(error: &serde_json::Error) -> Self {
        Self::RequestJson { line: error.line(), column: error.column() }
    }
}
