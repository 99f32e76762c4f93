//! Queue to cloud: batch, send, wait for the acknowledgement, delete. At its own pace, never in the sensor's path.
//!
//! Whose acknowledgement counts is a setting: the receiver's receipt, or the broker's answer (`confirm`). What is due says
//! `due`, how fast it leaves says `pace`, how the link is says `uplink::LinkJudge`.
//!
//! Several batches may wait for their answers. The queue is the only memory: after every loss of the link the rows that
//! were not acknowledged are read from it again, so a row may be sent twice and none is skipped.

mod flow;
mod hear;
mod send;

pub use flow::Sync;
