//! Files that were set aside, one after the other, in the background: their queue goes on under its old epoch.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::outbox::{Outbox, Salvaged};
use crate::store::Wreck;

/// The flow's parts.
pub struct Salvage {
    outbox: Outbox,
    wrecks: Vec<Wreck>,
    says: watch::Sender<Vec<String>>,
}

impl Salvage {
    /// Also gives what is to be said about it in health.
    pub fn new(outbox: Outbox, wrecks: Vec<Wreck>) -> (Self, watch::Receiver<Vec<String>>) {
        let (says, heard) = watch::channel(Vec::new());
        (Self { outbox, wrecks, says }, heard)
    }

    /// Until all is done or `stop`; the next start goes on. A file that cannot be read costs nothing but itself.
    pub async fn run(self, stop: CancellationToken) {
        let mut said = Vec::new();
        for wreck in &self.wrecks {
            let file = wreck.path.display();
            let mut saying = said.clone();
            saying.push(format!("{file} is being salvaged: its rows follow under their old epoch"));
            self.says.send_replace(saying);
            let outcome = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.outbox.salvage(wreck) => outcome,
            };
            said.extend(match outcome {
                Ok(Salvaged { rows, lost: 0, .. }) => {
                    tracing::info!(file = %file, rows, "a file that was set aside is salvaged without loss");
                    None
                }
                Ok(Salvaged { rows, lost, .. }) => {
                    tracing::error!(file = %file, rows, lost, "a file that was set aside is salvaged with losses");
                    Some(format!("{file}: {rows} rows are salvaged, up to {lost} are lost and in the loss ledger"))
                }
                Err(error) => {
                    tracing::error!(file = %file, error = %error, "a file that was set aside is not salvaged yet");
                    Some(format!("{file} is not salvaged: {error}; the next start tries again"))
                }
            });
            self.says.send_replace(said.clone());
        }
    }
}
