//! When one gateway is asked about one budget, and what its answers are answers to.

use std::time::Duration;

use crate::flows::lease::{LeaseAnswer, LeaseOutcome, Lent};

/// A question that says something new is asked again after this, then after twice as long, up to [`MOST`].
const FIRST: Duration = Duration::from_secs(2);
const MOST: Duration = Duration::from_secs(60);

/// One gateway and budget, as long as this process lives.
#[derive(Debug)]
pub(super) struct Asking {
    due: Duration,
    wait: Duration,
    /// The newest question's number; 0 before the first.
    sent: u64,
    /// What it said: lease and end.
    said: Option<(u64, i64)>,
    said_settled: Vec<u64>,
    /// It was answered.
    is_answered: bool,
    /// The newest lease that is known as taken, and the first question after it was.
    known: (u64, u64),
    /// Nothing is lent before this, because the last lease was refused; and how long after the next refusal.
    held: (Duration, Duration),
    /// Why a lease was not taken, so that it is told once.
    reason: Option<String>,
    stranger: Option<u64>,
}

impl Asking {
    pub(super) fn at(now: Duration) -> Self {
        Self {
            due: now,
            wait: FIRST,
            sent: 0,
            said: None,
            said_settled: Vec::new(),
            is_answered: false,
            known: (0, 1),
            held: (Duration::ZERO, FIRST),
            reason: None,
            stranger: None,
        }
    }

    /// The link is another one: whatever was said may not have arrived.
    pub(super) fn begin_again(&mut self, now: Duration) {
        (self.due, self.wait) = (now, FIRST);
    }

    /// True if it is time, or if there is something that was not said yet.
    pub(super) fn is_due(&self, lend: Option<&Lent>, settled: &[u64], now: Duration) -> bool {
        let is_news = lend.is_some_and(|lent| Some((lent.number, lent.ends_ms)) != self.said)
            || settled.iter().any(|number| !self.said_settled.contains(number));
        is_news || now >= self.due
    }

    pub(super) fn ask(
        &mut self,
        question: u64,
        lend: Option<&Lent>,
        settled: &[u64],
        now: Duration,
        ask_every: Duration,
    ) {
        let said = lend.map(|lent| (lent.number, lent.ends_ms));
        let has_business = lend.is_some() || settled.iter().any(|number| !self.said_settled.contains(number));
        if said != self.said {
            self.wait = FIRST;
        }
        let wait = if has_business { self.wait } else { ask_every };
        self.wait = self.wait.saturating_mul(2).min(MOST);
        (self.sent, self.said, self.is_answered) = (question, said, false);
        self.said_settled = settled.to_vec();
        self.due = now + wait;
    }

    /// Something was heard of the gateway. `is_unasked`: it speaks by itself, so it has come back, or something has happened.
    pub(super) fn spoke(&mut self, now: Duration, is_unasked: bool) {
        if is_unasked {
            self.wait = FIRST;
            if !self.is_answered {
                self.due = now;
            }
        }
    }

    /// An answer to `question`. Why a lease was not taken, if that is news.
    pub(super) fn answered(
        &mut self,
        question: u64,
        answer: &LeaseAnswer,
        now: Duration,
        ask_every: Duration,
    ) -> Option<String> {
        if question == self.sent {
            self.is_answered = true;
            if answer.reason.is_none() {
                self.wait = FIRST;
                self.due = now + ask_every;
            }
        }
        match answer.outcome {
            LeaseOutcome::Taken => self.held = (Duration::ZERO, FIRST),
            LeaseOutcome::Refused => self.held = (now + self.held.1, (self.held.1 * 2).min(MOST)),
            LeaseOutcome::Told | LeaseOutcome::Later => {}
        }
        if self.reason == answer.reason {
            return None;
        }
        self.reason.clone_from(&answer.reason);
        answer.reason.clone()
    }

    /// False for a while after a lease was refused, each time longer: what is declined comes back at once.
    pub(super) fn may_lend(&self, now: Duration) -> bool {
        now >= self.held.0
    }

    /// The lease and end that `question` said, as far as that is known.
    pub(super) fn carried(&self, question: u64) -> Option<(u64, i64)> {
        self.said.filter(|_| question == self.sent)
    }

    /// Lease `number` is known as taken; `next` is the next question's number.
    pub(super) fn knows(&mut self, number: u64, next: u64) {
        if number > self.known.0 {
            self.known = (number, next);
        }
    }

    /// Asked before the newest lease was known as taken: its answer may be from before that, too.
    pub(super) fn is_late(&self, question: u64) -> bool {
        question < self.known.1
    }

    /// True the first time.
    pub(super) fn is_strange(&mut self, number: u64) -> bool {
        self.stranger.replace(number) != Some(number)
    }
}
