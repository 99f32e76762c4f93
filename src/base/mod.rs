//! Nouns that every room may name: identity, time, digests, tensors, receipts.
//!
//! No async, no policy, no I/O but the durable replacement of a small file. Nothing here knows what a
//! sensor, a model or a broker is.

mod backoff;
mod clock;
mod datatype;
mod digest;
mod element;
mod file;
mod id;
mod map;
mod receipt;
mod tensor;

pub use backoff::Backoff;
pub use clock::{BootId, Clock, ClockState, ManualClock, Stamp, SystemClock};
pub use datatype::Datatype;
pub use digest::{Digest, row_checksum};
pub use element::Element;
pub use file::{FileError, replace_file};
pub use id::{Epoch, Name, NameError, Seq};
pub use map::{Map, MapState, Set};
pub use receipt::{Outcome, Receipt, Refusal};
pub use tensor::{Shape, Tensor, TensorError, Texts, shape_of};
