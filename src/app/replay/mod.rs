//! A sensor made of a file: publishes recorded readings over real MQTT, as fast as asked, and does not stop
//! before every one of them is acknowledged.

mod feed;
mod recording;

pub use feed::{Feed, FeedError, Progress, Report, publish_all};
pub use recording::{Reading, Recording, RecordingError};
