//! Readings over HTTP: the same way as over MQTT, with the answer after the commit.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::sense::{Sense, SummaryNews, Work, ingest_topic};
use crate::access::Principal;
use crate::base::{Name, Receipt, Refusal};
use crate::store::CommitError;

/// What became of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ingested {
    /// The stream.
    pub stream: Name,
    /// Position of its first reading; 0 if it held none that were kept.
    pub first_seq: u64,
    /// Position of its last reading; 0 if it held none that were kept.
    pub seq: u64,
    /// Readings committed.
    pub count: u64,
    /// Readings that repeated one already committed.
    pub duplicates: u64,
    /// False on a stream with `durability = "memory"`.
    pub durable: bool,
}

/// Why a payload was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IngestError {
    /// No stream of that name is configured.
    #[error("no stream {0:?}; GET /api/v1/streams lists them")]
    NoStream(String),
    /// The caller's rules do not allow the stream's topic.
    #[error("this identity may not publish to {topic:?}")]
    Forbidden {
        /// The topic that its rules would have to allow.
        topic: String,
    },
    /// It cannot be decoded. It is kept in the list of rejected payloads.
    #[error("{detail}")]
    Payload {
        /// What is wrong and where.
        detail: String,
    },
    /// The stream's queue is full.
    #[error("the stream's queue is full")]
    Full,
    /// A class that blocks has used up its share of the queue to the cloud.
    #[error("there is no room for more until the cloud takes rows; nothing was kept")]
    Quota,
    /// The file is full, the queue to the cloud within its share or not.
    #[error("the database is at its limit; nothing was kept")]
    File,
    /// The disk refused; nothing was acknowledged.
    #[error("the disk does not take readings; nothing was kept")]
    Disk,
    /// The gateway is shutting down.
    #[error("the gateway is shutting down; nothing was kept")]
    Closing,
}

impl From<Refusal> for IngestError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            // A class that is full says so itself before anything goes to the disk.
            Refusal::Full => Self::File,
            Refusal::Disk => Self::Disk,
            Refusal::Dropped => Self::Closing,
            Refusal::Payload => Self::Payload { detail: "the payload cannot be read".to_owned() },
        }
    }
}

impl From<CommitError> for IngestError {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Full(_) => Self::File,
            CommitError::Disk(_) | CommitError::Corrupt(_) => Self::Disk,
            CommitError::Closed => Self::Closing,
        }
    }
}

/// The story of a reading that comes over HTTP.
pub struct Intake {
    sense: Arc<Sense>,
}

impl Intake {
    /// Into these streams.
    pub fn new(sense: Arc<Sense>) -> Self {
        Self { sense }
    }

    /// Ends a stream's open summary now; `None` if no reading is in it.
    pub async fn summarise(&self, stream: &str) -> Result<Option<SummaryNews>, IngestError> {
        self.sense.summarise(stream).await
    }

    /// Takes one payload and answers when it is on the disk, or not taken.
    pub async fn ingest(&self, who: &Principal, stream: &str, payload: Bytes) -> Result<Ingested, IngestError> {
        let about = self.sense.stream(stream).ok_or_else(|| IngestError::NoStream(stream.to_owned()))?;
        let topic = ingest_topic(&about.config.name, &about.config.topic);
        if !who.may_publish(&topic) {
            return Err(IngestError::Forbidden { topic });
        }
        let (reply, answer) = oneshot::channel();
        let work = Work {
            payload,
            arrived: self.sense.now(),
            receipt: Receipt::unwatched(),
            within: None,
            waits: false,
            reply: Some(reply),
        };
        self.sense.offer(stream, work).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => IngestError::Full,
            mpsc::error::TrySendError::Closed(_) => IngestError::Closing,
        })?;
        answer.await.unwrap_or(Err(IngestError::Closing))
    }
}
