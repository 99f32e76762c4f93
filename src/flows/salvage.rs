//! Files that were set aside, one after the other, in the background: first what the broker had promised to clients, then
//! the queue to the cloud, which goes on under its old epoch.

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::broker::{self, Broker};
use crate::history::{self, History};
use crate::outbox::{self, Outbox};
use crate::store::{self, Store, Tx, Wreck};

/// Lets the streams go on where those of the newest file that was set aside stood, if this file is new: rules' state,
/// numbering and standing alarms. As many rows as there are streams, so it is done before they start. A file that SQLite
/// does not read says nothing: then alarms are raised again by what raised them.
pub async fn take_over(history: &History, store: &Store) -> Result<(), store::Error> {
    let Some(wreck) = store.wrecks().pop() else { return Ok(()) };
    let path = wreck.path.clone();
    let reading = tokio::task::spawn_blocking(move || history::remembered(&wreck.connect()?));
    let streams = match reading.await {
        Ok(Ok(streams)) => streams,
        Ok(Err(error)) => {
            tracing::warn!(file = %path.display(), error = %error, "streams begin anew: what they remembered cannot be read");
            return Ok(());
        }
        Err(error) => {
            tracing::warn!(file = %path.display(), error = %error, "streams begin anew: what they remembered cannot be read");
            return Ok(());
        }
    };
    let history = history.clone();
    let alarms = store.writer().commit(4096, move |tx: &Tx<'_>| history.take_over(tx, &streams)).await?;
    if alarms > 0 {
        tracing::info!(file = %path.display(), alarms, "alarms of a file that was set aside stand on");
    }
    Ok(())
}

/// The flow's parts.
pub struct Salvage {
    outbox: Outbox,
    broker: Broker,
    wrecks: Vec<Wreck>,
    says: watch::Sender<Vec<String>>,
}

impl Salvage {
    /// Also gives what is to be said about it in health.
    pub fn new(outbox: Outbox, broker: Broker, wrecks: Vec<Wreck>) -> (Self, watch::Receiver<Vec<String>>) {
        let (says, heard) = watch::channel(Vec::new());
        (Self { outbox, broker, wrecks, says }, heard)
    }

    /// Until all is done or `stop`; the next start goes on. A file that cannot be read costs nothing but itself. One of
    /// which nothing is lost is removed.
    pub async fn run(self, stop: CancellationToken) {
        let mut said = Vec::new();
        for wreck in &self.wrecks {
            let file = wreck.path.display();
            let mut saying = said.clone();
            saying.push(format!(
                "{file} is being salvaged: sessions and messages for absent clients first, then its rows under their old epoch"
            ));
            self.says.send_replace(saying);
            let (messages, rows) = tokio::select! {
                () = stop.cancelled() => return,
                outcome = self.one(wreck) => outcome,
            };
            let is_whole = messages.as_ref().is_ok_and(|done| done.is_whole && done.lost == 0)
                && rows.as_ref().is_ok_and(|done| done.is_whole);
            match messages {
                Ok(broker::Salvaged { messages, lost: 0, .. }) => {
                    tracing::info!(file = %file, messages, "sessions and messages of a file that was set aside are back");
                }
                Ok(broker::Salvaged { messages, lost, .. }) => {
                    tracing::error!(file = %file, messages, lost, "messages of a file that was set aside are lost");
                    said.push(format!(
                        "{file}: {messages} messages for clients are salvaged, up to {lost} are lost and in the ledger of absent clients"
                    ));
                }
                Err(error) => {
                    tracing::error!(file = %file, error = %error, "sessions of a file that was set aside are not salvaged yet");
                    said.push(format!("{file} is not salvaged: {error}; the next start tries again"));
                }
            }
            match rows {
                Ok(outbox::Salvaged { rows, lost: 0, .. }) => {
                    tracing::info!(file = %file, rows, "a file that was set aside is salvaged without loss");
                }
                Ok(outbox::Salvaged { rows, lost, .. }) => {
                    tracing::error!(file = %file, rows, lost, "a file that was set aside is salvaged with losses");
                    said.push(format!(
                        "{file}: {rows} rows are salvaged, up to {lost} are lost and in the loss ledger"
                    ));
                }
                Err(error) => {
                    tracing::error!(file = %file, error = %error, "a file that was set aside is not salvaged yet");
                    said.push(format!("{file} is not salvaged: {error}; the next start tries again"));
                }
            }
            if is_whole {
                wreck.remove();
            }
            self.says.send_replace(said.clone());
        }
        self.broker.salvage_ends();
    }

    async fn one(
        &self,
        wreck: &Wreck,
    ) -> (Result<broker::Salvaged, broker::Error>, Result<outbox::Salvaged, outbox::Error>) {
        let messages = self.broker.salvage(wreck).await;
        (messages, self.outbox.salvage(wreck).await)
    }
}
