//! What is measured while the demonstration runs: verdicts as a local app sees them, the queue, memory.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tokio::sync::watch;

use super::probe;
use super::site::STREAM;
use crate::base::Clock;

const SAMPLE_EVERY: Duration = Duration::from_millis(50);

/// When the verdict of each reading first reached a local subscriber: reading number -> time since boot.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdicts(Arc<Mutex<HashMap<u64, Duration>>>);

impl Verdicts {
    /// Everything seen so far.
    pub(crate) fn seen(&self) -> HashMap<u64, Duration> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Subscribes to the verdicts on the local broker until dropped; comes back after the gateway was killed.
    pub(crate) async fn listen(self, broker: SocketAddr, clock: Arc<dyn Clock>) {
        loop {
            let mut options = MqttOptions::new("forebay-demo-app", broker.ip().to_string(), broker.port());
            options.set_keep_alive(Duration::from_secs(5));
            let (client, mut connection) = AsyncClient::new(options, 16);
            let mut network = connection.network_options();
            network.set_tcp_nodelay(true);
            connection.set_network_options(network);
            if client.try_subscribe(format!("forebay/{STREAM}/verdict"), QoS::AtMostOnce).is_err() {
                return;
            }
            while let Ok(event) = connection.poll().await {
                if let Event::Incoming(Packet::Publish(publish)) = event
                    && let Ok(verdict) = serde_json::from_slice::<serde_json::Value>(&publish.payload)
                    && let Some(n) = verdict["id"].as_str().and_then(|id| id.parse().ok())
                {
                    let now = clock.since_boot();
                    self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_insert(now);
                }
            }
            tokio::time::sleep(SAMPLE_EVERY).await;
        }
    }
}

/// The deepest queue and the largest memory seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Peaks {
    /// Rows waiting for the cloud at the worst moment.
    pub(crate) queue_rows: u64,
    /// Rows waiting when last looked.
    pub(crate) queue_now: u64,
    /// Gateway's resident memory at its highest while it served, KiB, over all its lives.
    pub(crate) memory_kib: Option<u64>,
    /// The same with its starts, when models are loaded.
    pub(crate) starting_kib: Option<u64>,
}

/// Samples the gateway until dropped. `pid` changes when it is killed and started again.
pub(crate) async fn sample(http: SocketAddr, pid: watch::Receiver<Option<u32>>, peaks: watch::Sender<Peaks>) {
    loop {
        let memory = pid.borrow().and_then(probe::memory_kib);
        let queue = probe::get(http, "/api/v1/queue").await.ok().and_then(|(_, queue)| queue["rows"].as_u64());
        peaks.send_modify(|peaks| {
            let (now, highest) = (memory.map(|memory| memory.0), memory.map(|memory| memory.1));
            peaks.starting_kib = peaks.starting_kib.max(highest);
            if let Some(rows) = queue {
                peaks.memory_kib = peaks.memory_kib.max(now);
                peaks.queue_rows = peaks.queue_rows.max(rows);
                peaks.queue_now = rows;
            }
        });
        tokio::time::sleep(SAMPLE_EVERY).await;
    }
}
