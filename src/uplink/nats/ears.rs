//! What a connection hears beside the answers to its publications: receipts, requests, and the letterbox.

use std::pin::pin;
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::{SelectAll, select_all};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::uplink::link::{CloudMessage, Done, HEARD_BYTES, HEARD_MESSAGES};
use crate::uplink::metrics::Metrics;

use super::dial::{Word as Told, Words};
use super::letters::{HANDED_OUT_FOR, LETTER, Letters, is_kept, is_the_end};
use super::subject::{Line, Word, topic_of};

/// Letters that were handed out and are not done are asked for again after this.
const AGAIN: Duration = HANDED_OUT_FOR.saturating_add(Duration::from_secs(5));

/// Where what is heard goes.
#[derive(Clone)]
pub(super) struct Hearing {
    pub(super) hear: mpsc::Sender<CloudMessage>,
    pub(super) metrics: Metrics,
}

/// What could not be heard.
pub(super) struct CaughtUp {
    /// Why the letterbox could not be read.
    pub(super) unread: Option<String>,
    /// What this user may not listen to.
    pub(super) deaf: Option<String>,
}

/// One connection's ears.
pub(super) struct Ears {
    hearing: Hearing,
    client: Client,
    /// Topics that somebody wants to hear.
    topics: Vec<String>,
    lives: SelectAll<Subscriber>,
    /// Whose letterbox, if any.
    letterbox: Option<(Letters, Line)>,
    inbox: String,
    letters: Subscriber,
    done: mpsc::Receiver<String>,
    tell: mpsc::Sender<String>,
    /// Requests that were handed on and are not done: their letters come again.
    open: usize,
}

impl Ears {
    /// Listens to the lines that `filters` name.
    pub(super) async fn open(
        client: &Client,
        letters: Letters,
        filters: &[String],
        hearing: Hearing,
    ) -> Result<Self, String> {
        let (mut lives, mut letterbox) = (Vec::new(), None);
        for filter in filters {
            let line = Line::of(filter);
            let live = line.as_ref().map(Line::live).or_else(|| Line::live_of_all(filter));
            let live = live.ok_or_else(|| format!("{filter} is nothing that is said beside the rows"))?;
            lives.push(client.subscribe(live).await.map_err(|error| error.to_string())?);
            letterbox = letterbox.or_else(|| line.filter(is_kept).map(|line| (letters.clone(), line)));
        }
        let inbox = client.new_inbox();
        let letters = client.subscribe(inbox.clone()).await.map_err(|error| error.to_string())?;
        let (tell, done) = mpsc::channel(HEARD_MESSAGES);
        let (client, lives) = (client.clone(), select_all(lives));
        Ok(Self { hearing, client, topics: filters.to_vec(), lives, letterbox, inbox, letters, done, tell, open: 0 })
    }

    /// Takes what is in the letterbox, within `limit`. An error means that the connection is gone.
    pub(super) async fn catch_up(&mut self, words: &mut Words, limit: Duration) -> Result<CaughtUp, String> {
        let mut deaf = None;
        let mut emptying = pin!(tokio::time::timeout(limit, self.empty_letterbox()));
        loop {
            let emptied = tokio::select! {
                emptied = &mut emptying => emptied.unwrap_or_else(|_| Err("it does not answer".to_owned())),
                word = words.next() => match word {
                    Told::Ended(reason) => return Err(reason),
                    Told::MayNotPublish { subject } => Err(format!("this user may not publish to {subject}")),
                    Told::MayNotListen { subject } => {
                        deaf = Some(subject);
                        continue;
                    }
                },
            };
            return Ok(CaughtUp { unread: emptied.err(), deaf });
        }
    }

    /// An error says why nobody can know what is there.
    async fn empty_letterbox(&mut self) -> Result<(), String> {
        let Some((letters, line)) = &self.letterbox else { return Ok(()) };
        if !letters.wait_for(line).await? {
            return Ok(());
        }
        letters.fetch(line, &self.inbox).await?;
        while let Some(letter) = self.letters.next().await {
            if is_the_end(letter.status) {
                break;
            }
            self.take(letter).await;
        }
        Ok(())
    }

    /// Hears until the connection ends.
    pub(super) fn listen(mut self, tasks: &mut JoinSet<()>) {
        tasks.spawn(async move {
            let mut again = pin!(tokio::time::sleep(AGAIN));
            loop {
                tokio::select! {
                    Some(live) = self.lives.next() => self.hear(live).await,
                    letter = self.letters.next() => match letter {
                        Some(letter) if is_the_end(letter.status) => {}
                        Some(letter) => {
                            self.take(letter).await;
                            again.set(tokio::time::sleep(AGAIN));
                        }
                        None => return,
                    },
                    Some(name) = self.done.recv() => {
                        self.open = self.open.saturating_sub(1);
                        self.acknowledge(name).await;
                    }
                    () = again.as_mut(), if self.open > 0 => {
                        // All that are still open are handed out afresh, and counted afresh.
                        self.open = 0;
                        self.fetch().await;
                        again.set(tokio::time::sleep(AGAIN));
                    }
                }
            }
        });
    }

    async fn fetch(&self) {
        if let Some((letters, line)) = &self.letterbox
            && let Err(error) = letters.fetch(line, &self.inbox).await
        {
            tracing::warn!(error, "the letterbox at the cloud cannot be asked");
        }
    }

    /// Something that was said just now.
    async fn hear(&mut self, live: Message) {
        if live.headers.as_ref().is_some_and(|headers| headers.get(LETTER).is_some()) && self.letterbox.is_some() {
            return self.fetch().await;
        }
        self.hand_on(&live, None);
    }

    /// A letter. A receipt is taken once it is handed on; a request once it is done.
    async fn take(&mut self, letter: Message) {
        let Some(name) = letter.reply.as_ref().map(ToString::to_string) else { return };
        let is_request = Line::of(&topic_of(&letter.subject)).is_some_and(|line| line.word() == Word::Request);
        let may_be_heard = letter.payload.len() <= HEARD_BYTES && self.listens_to(&topic_of(&letter.subject));
        let done = is_request.then(|| Done::new(self.tell.clone(), name.clone()));
        let heard = self.hand_on(&letter, done);
        if is_request && may_be_heard {
            self.open += 1;
        } else if heard || !may_be_heard {
            self.acknowledge(name).await;
        }
    }

    /// True if somebody takes it.
    fn hand_on(&self, message: &Message, done: Option<Done>) -> bool {
        // A copy, so that a short message does not hold the buffer that it was read into.
        let short = (message.payload.len() <= HEARD_BYTES).then(|| Bytes::copy_from_slice(&message.payload));
        let topic = topic_of(&message.subject);
        let short = short.filter(|_| self.listens_to(&topic));
        let message = short.map(|payload| CloudMessage { topic, payload, correlation: None, done });
        let heard = message.is_some_and(|message| self.hearing.hear.try_send(message).is_ok());
        if heard {
            self.hearing.metrics.heard.inc()
        } else {
            self.hearing.metrics.unheard.inc()
        };
        heard
    }

    fn listens_to(&self, topic: &str) -> bool {
        let fits = |filter: &String| {
            let (mut levels, mut wanted) = (topic.split('/'), filter.split('/'));
            wanted.all(|wanted| levels.next().is_some_and(|level| wanted == "+" || wanted == level))
                && levels.next().is_none()
        };
        self.topics.iter().any(fits)
    }

    async fn acknowledge(&self, name: String) {
        // A lost one brings the letter again.
        let _ = self.client.publish(name, Bytes::from_static(b"+ACK")).await;
    }
}
