//! What rows become that have to make room, for streams whose cloud gets no summaries otherwise.

use std::collections::HashMap;

use super::sense;
use super::summary::in_place_of;
use crate::base::Name;
use crate::outbox::{StreamKey, Summarise};
use crate::signal::SketchConfig;

/// The streams' settings, as far as summaries go.
pub struct InPlaceOfRows {
    /// How fine a stream's sketches are; `None` if it sends summaries of everything anyway.
    streams: HashMap<Name, Option<SketchConfig>>,
}

impl InPlaceOfRows {
    /// For these streams.
    pub fn new(configs: &[sense::Config]) -> Self {
        let sketches = |config: &sense::Config| (config.summary.readings == 0).then(|| config.summary.sketches());
        Self { streams: configs.iter().map(|config| (config.name.clone(), sketches(config))).collect() }
    }

    /// Rows of a stream that is no longer configured get the usual sketches.
    fn sketches(&self, stream: &Name) -> Option<SketchConfig> {
        self.streams.get(stream).map_or(Some(SketchConfig::default()), |sketches| *sketches)
    }
}

impl Summarise for InPlaceOfRows {
    fn is_wanted(&self, stream: &StreamKey) -> bool {
        self.sketches(&stream.name).is_some()
    }

    fn summarise(&self, stream: &StreamKey, bodies: &[Vec<u8>]) -> Option<Vec<u8>> {
        let made = in_place_of(stream.class.as_str(), bodies, self.sketches(&stream.name)?);
        // The ledger says that the rows are gone either way.
        made.inspect_err(|error| tracing::error!(stream = %stream, %error, "rows that make room cannot be summed up"))
            .ok()?
            .body
    }
}
