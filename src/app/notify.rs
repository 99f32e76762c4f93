//! Telling the service manager that we are ready, and that we are still making progress.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::base::Receipt;
use crate::broker::{Broker, Message, Qos};
use crate::engine::Pool;
use crate::store::Writer;

/// What must move for the watchdog to be fed.
pub(super) struct Vitals {
    pub writer: Writer,
    pub broker: Broker,
    pub pool: std::sync::Arc<Pool>,
}

/// READY=1, with a status line.
pub(super) fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// STOPPING=1.
pub(super) fn stopping() {
    send(&[NotifyState::Stopping]);
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to notify the service manager");
    }
}

/// Feeds the watchdog while the writer answers, the broker routes and no inference is stuck; otherwise lets it bite.
pub(super) async fn feed_watchdog(vitals: Vitals, stop: CancellationToken) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let every = limit / 3;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(every) => {}
        }
        match tokio::time::timeout(every, vitals.moved(limit)).await {
            Ok(Ok(())) => send(&[NotifyState::Watchdog]),
            Ok(Err(what)) => tracing::error!(what, "not feeding the watchdog"),
            Err(_) => tracing::error!("not feeding the watchdog: the writer or the broker did not answer in time"),
        }
    }
}

impl Vitals {
    async fn moved(&self, limit: Duration) -> Result<(), &'static str> {
        // A disk that refuses answers, too: a restart would not mend it.
        let _ = self.writer.commit(0, |_| Ok(())).await;
        let (tell, told) = oneshot::channel();
        let message = Message::new("forebay/watchdog", "1", Qos::AtMostOnce);
        let heard = Receipt::new(move |_| {
            let _ = tell.send(());
        });
        self.broker.publish(message, heard).await;
        told.await.map_err(|_| "the broker dropped a message of its own")?;
        match self.pool.longest_running() {
            Some(running) if running > limit => Err("an inference does not end"),
            _ => Ok(()),
        }
    }
}
