//! Links for tests and dry runs: one that takes everything, one that fails as told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::link::{Answer, LinkState, Lost, Message, Ticket, Uplink};

/// Takes every message at once and shows them.
#[derive(Debug)]
pub struct FakeUplink {
    window: usize,
    max_payload_bytes: usize,
    taken: Arc<Mutex<Vec<Message>>>,
    answers: VecDeque<(Ticket, Answer)>,
    state: watch::Sender<LinkState>,
}

impl FakeUplink {
    /// A link with room for `window` unanswered messages of `max_payload_bytes` each.
    pub fn new(window: usize, max_payload_bytes: usize) -> Self {
        let (taken, answers) = (Arc::default(), VecDeque::new());
        Self { window, max_payload_bytes, taken, answers, state: watch::Sender::new(LinkState::Up) }
    }

    /// What was taken so far, shared.
    pub fn taken(&self) -> Arc<Mutex<Vec<Message>>> {
        self.taken.clone()
    }
}

impl Uplink for FakeUplink {
    fn window(&self) -> usize {
        self.window
    }

    fn max_payload_bytes(&self, _topic: &str) -> usize {
        self.max_payload_bytes
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        if message.payload.len() > self.max_payload_bytes {
            let max_payload_bytes = self.max_payload_bytes;
            self.answers.push_back((ticket, Answer::TooLarge { max_payload_bytes }));
            return Ok(());
        }
        self.taken.lock().expect("no holder panics").push(message);
        self.answers.push_back((ticket, Answer::Acknowledged));
        Ok(())
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        match self.answers.pop_front() {
            Some(answer) => Ok(answer),
            None => std::future::pending().await,
        }
    }

    async fn close(&mut self) {}

    fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }
}

/// What a [`FailingUplink`] does with the next message.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Gives this answer; only [`Answer::Acknowledged`] takes the message.
    Answer(Answer),
    /// Takes the message and loses the connection before the answer.
    LoseAfterTaking,
    /// Loses the connection before the message leaves.
    LoseBeforeTaking,
}

/// Fails as its script says, then works.
#[derive(Debug)]
pub struct FailingUplink {
    inner: FakeUplink,
    script: VecDeque<Fault>,
    /// Connections that fail before one works.
    refusals: usize,
    connected: bool,
    broken: bool,
}

impl FailingUplink {
    /// Refuses `refusals` connections, then treats the messages as `script` says, then takes everything.
    pub fn new(window: usize, refusals: usize, script: impl IntoIterator<Item = Fault>) -> Self {
        Self {
            inner: FakeUplink::new(window, 128 * 1024),
            script: script.into_iter().collect(),
            refusals,
            connected: false,
            broken: false,
        }
    }

    /// What was taken so far, shared; a message may be there twice.
    pub fn taken(&self) -> Arc<Mutex<Vec<Message>>> {
        self.inner.taken()
    }

    fn lose(&mut self) -> Lost {
        (self.connected, self.broken) = (false, false);
        self.inner.answers.clear();
        Lost { reason: "the script says so".to_owned() }
    }
}

impl Uplink for FailingUplink {
    fn window(&self) -> usize {
        self.inner.window
    }

    fn max_payload_bytes(&self, topic: &str) -> usize {
        self.inner.max_payload_bytes(topic)
    }

    async fn connect(&mut self) -> Result<(), Lost> {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Err(self.lose());
        }
        self.connected = true;
        Ok(())
    }

    fn submit(&mut self, ticket: Ticket, message: Message) -> Result<(), Lost> {
        if !self.connected {
            return Err(self.lose());
        }
        if self.broken {
            return Ok(());
        }
        match self.script.pop_front() {
            None | Some(Fault::Answer(Answer::Acknowledged)) => self.inner.submit(ticket, message),
            Some(Fault::Answer(answer)) => {
                self.inner.answers.push_back((ticket, answer));
                Ok(())
            }
            Some(Fault::LoseAfterTaking) => {
                self.inner.taken.lock().expect("no holder panics").push(message);
                self.broken = true;
                Ok(())
            }
            Some(Fault::LoseBeforeTaking) => {
                self.broken = true;
                Ok(())
            }
        }
    }

    async fn answer(&mut self) -> Result<(Ticket, Answer), Lost> {
        if self.broken && self.inner.answers.is_empty() {
            return Err(self.lose());
        }
        self.inner.answer().await
    }

    async fn close(&mut self) {
        self.connected = false;
    }

    fn state(&self) -> watch::Receiver<LinkState> {
        self.inner.state()
    }
}
