//! Saying on the local broker what is on the disk: verdicts, alarm events, and the state of each alarm retained.

use serde_json::json;
use tokio::sync::mpsc;

use super::commit::News;
use crate::base::Receipt;
use crate::broker::{Broker, Message, Qos};
use crate::flows::board::Alert;

/// Speaks what commits have to say. Topics, all JSON:
/// - `forebay/{stream}/verdict`: every reading with its verdict, QoS 0;
/// - `forebay/{stream}/alert/event`: an alarm raised, escalated, released or cleared, QoS 1;
/// - `forebay/{stream}/alert`: the state, retained, QoS 1.
///
/// An alarm raised in a quiet period changes the state and makes no event.
pub struct Newscast {
    heard: mpsc::UnboundedReceiver<News>,
    broker: Broker,
}

impl Newscast {
    pub(super) fn new(heard: mpsc::UnboundedReceiver<News>, broker: Broker) -> Self {
        Self { heard, broker }
    }

    /// Says `standing`, the state that the disk holds at start, then everything that comes, until the streams end.
    pub async fn run(mut self, standing: Vec<(String, Option<Alert>)>) {
        for (stream, alert) in standing {
            self.say_state(&stream, alert.as_ref()).await;
        }
        while let Some(news) = self.heard.recv().await {
            match news {
                News::Verdict { stream, id, point } => {
                    let payload = json!({
                        "id": id, "seq": point.seq, "time_ms": point.time_ms, "values": point.values,
                        "score": point.score, "expected": point.expected, "state": point.state,
                    });
                    let topic = format!("forebay/{stream}/verdict");
                    let message = Message::new(&topic, payload.to_string(), Qos::AtMostOnce);
                    self.broker.publish(message, Receipt::unwatched()).await;
                }
                News::Alert { alert, kind } => {
                    let standing = alert.cleared_ms.is_none().then_some(&alert);
                    self.say_state(&alert.stream, standing).await;
                    if !alert.suppressed {
                        let topic = format!("forebay/{}/alert/event", alert.stream);
                        let payload = json!({ "event": kind, "alert": alert });
                        self.publish_kept(Message::new(&topic, payload.to_string(), Qos::AtLeastOnce)).await;
                    }
                }
            }
        }
    }

    async fn say_state(&self, stream: &str, alert: Option<&Alert>) {
        let state = if alert.is_some() { "alarm" } else { "normal" };
        let payload = json!({ "state": state, "alert": alert });
        let topic = format!("forebay/{stream}/alert");
        self.publish_kept(Message::new(&topic, payload.to_string(), Qos::AtLeastOnce).retained()).await;
    }

    /// The alarm itself is in the outbox and in history; a broker that cannot keep the message says so in the log.
    async fn publish_kept(&self, message: Message) {
        let topic = message.topic.to_string();
        let receipt = Receipt::new(move |outcome| {
            if let Err(refusal) = outcome {
                tracing::error!(topic, ?refusal, "an alarm could not be kept for absent subscribers");
            }
        });
        self.broker.publish(message, receipt).await;
    }
}
