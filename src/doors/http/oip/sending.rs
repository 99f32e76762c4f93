//! When an answer was written, for its trace.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::doors::http::door::Door;
use crate::flows::trace::Exchange;

/// The answer to a request that may be traced.
pub(super) struct Sending {
    exchange: Arc<Exchange>,
    door: Arc<Door>,
    began: Duration,
    body: Bytes,
}

impl Sending {
    /// To `exchange`, from `door`'s clock into its traces.
    pub(super) fn of(exchange: Arc<Exchange>, door: &Arc<Door>) -> Self {
        Self { exchange, door: Arc::clone(door), began: Duration::ZERO, body: Bytes::new() }
    }

    /// The same bytes, which say when they begin to be written, now, and when nobody holds them any more: the connection lets
    /// go of them when the socket has the last.
    pub(super) fn carry(mut self, body: Bytes) -> Bytes {
        (self.began, self.body) = (self.door.parts.clock.since_boot(), body);
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Sending {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if self.began > Duration::ZERO {
            let ended = self.door.parts.clock.since_boot();
            self.door.parts.inference.traces().sent(&self.exchange, self.began, ended);
        }
    }
}
