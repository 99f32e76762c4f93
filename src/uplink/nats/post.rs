//! What a receiver says to gateways: at once to who listens, into the letterbox of who does not.

use std::collections::{HashSet, VecDeque};

use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::task::JoinSet;

use super::letters::Letters;
use super::subject::Line;

/// Words of which is remembered what they were, until they are known to have been heard by nobody. More than are said in
/// the time that the server takes to say so.
const SAID: usize = 4096;
/// Letters on their way at once; further ones are not written.
const LETTERS: usize = 256;
/// Gateways that are known to have a letterbox.
const BOXES: usize = 65_536;

/// Whatever is said over one connection.
pub(super) struct Post {
    client: Client,
    letters: Letters,
    inbox: String,
    /// The server's word that nobody listens comes back here.
    unheard: Subscriber,
    said: VecDeque<(u64, Line, Bytes)>,
    next: u64,
    writing: JoinSet<(String, Result<(), String>)>,
    has_letterbox: HashSet<String>,
    /// It was said once that letters cannot be written.
    told: bool,
}

impl Post {
    pub(super) async fn open(client: &Client, letters: Letters) -> Result<Self, String> {
        let inbox = client.new_inbox();
        let unheard = client.subscribe(format!("{inbox}.*")).await;
        let unheard = unheard.map_err(|error| format!("cannot be asked for answers: {error}"))?;
        Ok(Self {
            client: client.clone(),
            letters,
            inbox,
            unheard,
            said: VecDeque::new(),
            next: 0,
            writing: JoinSet::new(),
            has_letterbox: HashSet::new(),
            told: false,
        })
    }

    /// False if it cannot be said.
    pub(super) fn say(&mut self, topic: &str, payload: &Bytes) -> bool {
        let Some(line) = Line::of(topic) else { return false };
        self.next += 1;
        let reply = format!("{}.{}", self.inbox, self.next);
        let said = self.client.publish_with_reply(line.live(), reply, payload.clone()).now_or_never();
        self.said.push_back((self.next, line, payload.clone()));
        if self.said.len() > SAID {
            self.said.pop_front();
        }
        matches!(said, Some(Ok(())))
    }

    /// Writes letters to whom nobody heard. Cancel-safe; returns after each.
    pub(super) async fn work(&mut self) {
        tokio::select! {
            Some(answer) = self.unheard.next() => {
                let which = answer.subject.rsplit('.').next().and_then(|which| which.parse::<u64>().ok());
                if let (Some(StatusCode::NO_RESPONDERS), Some(which)) = (answer.status, which) {
                    self.write(which);
                }
            }
            Some(written) = self.writing.join_next(), if !self.writing.is_empty() => match written {
                Ok((letterbox, Ok(()))) => {
                    if self.has_letterbox.len() >= BOXES {
                        self.has_letterbox.clear();
                    }
                    self.has_letterbox.insert(letterbox);
                    self.told = false;
                }
                Ok((letterbox, Err(reason))) => {
                    self.has_letterbox.remove(&letterbox);
                    self.complain(&reason);
                }
                Err(_) => {}
            },
            // The connection is gone, which is said elsewhere.
            else => std::future::pending().await,
        }
    }

    fn write(&mut self, which: u64) {
        // In the order in which they were said.
        let Ok(at) = self.said.binary_search_by_key(&which, |(number, ..)| *number) else { return };
        let Some((_, line, payload)) = self.said.remove(at) else { return };
        if self.writing.len() >= LETTERS {
            return self.complain("too many at once");
        }
        let (letters, letterbox) = (self.letters.clone(), line.letterbox());
        let has_letterbox = self.has_letterbox.contains(&letterbox);
        self.writing.spawn(async move {
            let kept = letters.keep(&line, payload, has_letterbox).await;
            (letterbox, kept.map(drop))
        });
    }

    /// True if what may not be published is of ours: then nothing else has to end.
    pub(super) fn may_not(&mut self, subject: &str) -> bool {
        let ours = ["cloud.v1.", "letters.v1."].iter().any(|root| subject.starts_with(root))
            || (subject.contains(".API.CONSUMER.DURABLE.CREATE.") && subject.contains('='));
        if ours {
            self.complain(&format!("this user may not publish to {subject}"));
        }
        ours
    }

    fn complain(&mut self, reason: &str) {
        if !std::mem::replace(&mut self.told, true) {
            tracing::warn!(reason, "a receipt does not reach a gateway that is away");
        }
    }
}
