//! What an operator can set about tensors in shared memory.

use serde::Deserialize;

/// `[shared_memory]` in the configuration. Without the section there is none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the names of the files begin with that may be registered. Empty is any name.
    pub prefix: String,
    /// User ids, besides the gateway's own, whose files may be registered.
    pub owners: Vec<u32>,
    /// Regions of all callers.
    pub regions_max: usize,
    /// Bytes of the files behind all regions, as they were registered: an open file keeps its memory.
    pub bytes_max: u64,
    /// Bytes that the inputs of one request may have in regions, and its outputs.
    pub request_bytes_max: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prefix: "forebay-".to_owned(),
            owners: Vec::new(),
            regions_max: 64,
            bytes_max: 256 << 20,
            request_bytes_max: 64 << 20,
        }
    }
}
