//! AWS Bedrock's Converse (bedrock-runtime 2023-09-30): errors, usage and words.

mod error;
mod usage;

pub(crate) use error::{error, failure_of, read_error};
pub(crate) use usage::{finish_of, usage_in};
