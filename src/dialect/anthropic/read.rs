//! Events and blocks as a server sends them, borrowed.

use std::borrow::Cow;

use serde::Deserialize;

use crate::dialect::json::Raw;

/// An event of a stream.
#[derive(Debug, Deserialize)]
pub(crate) struct Event<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) message: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) content_block: Option<Block<'a>>,
    #[serde(borrow, default)]
    pub(crate) delta: Option<BlockDelta<'a>>,
    #[serde(borrow, default)]
    pub(crate) usage: Option<Raw<'a>>,
}

/// A block of content.
#[derive(Debug, Deserialize)]
pub(crate) struct Block<'a> {
    #[serde(rename = "type", borrow)]
    pub(crate) kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) text: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) thinking: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) signature: Option<Raw<'a>>,
    /// Of thinking that only the provider can read.
    #[serde(borrow, default)]
    pub(crate) data: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) id: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) name: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) input: Option<Raw<'a>>,
}

/// More of a block, or of the message (`stop_reason`).
#[derive(Debug, Default, Deserialize)]
pub(crate) struct BlockDelta<'a> {
    #[serde(borrow, default)]
    pub(crate) text: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) thinking: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) signature: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) partial_json: Option<Raw<'a>>,
    #[serde(borrow, default)]
    pub(crate) stop_reason: Option<Raw<'a>>,
}
