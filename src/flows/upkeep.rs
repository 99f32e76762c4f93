//! What the queue to the cloud needs from time alone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::outbox::Outbox;

/// Time between two looks at rows that waited too long and at limits that were lowered.
const EVERY: Duration = Duration::from_secs(5);

/// Keeps the queue within its limits until `stop`. While the disk refuses, nothing is lost by waiting.
pub async fn keep_queue(outbox: Outbox, stop: CancellationToken) {
    loop {
        if let Err(error) = outbox.sweep().await {
            tracing::warn!(%error, "the queue is not swept; it is tried again");
        }
        if tokio::time::timeout(EVERY, stop.cancelled()).await.is_ok() {
            return;
        }
    }
}
