//! The link over NATS JetStream: what a stream with file storage answered for is on the server's side of the promise.
//!
//! `async-nats` would connect again by itself and repeat requests on its own; here a connection ends with its first
//! error, as everywhere in this room, and whoever sends reads the queue again.

mod answer;
mod dial;
mod ears;
mod letters;
mod post;
mod receiver;
mod sender;
mod subject;

pub use receiver::{StreamAck, StreamDelivery, StreamReceiver, StreamReceiverConfig, StreamSettings};
pub use sender::JetStreamUplink;
