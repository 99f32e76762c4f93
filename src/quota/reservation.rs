//! What a request holds of its limits until it is over.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use super::refusal::{Rates, Refusal, Warning};
use super::reserve::Inner;
use super::unit::{Amounts, Now, Subject};

/// A request that every limit has admitted.
///
/// It ends once: [`settle`](Self::settle) when it is known what it took, [`refund`](Self::refund) when nobody was
/// asked. One that is dropped is charged as it was reserved, since somebody may have been asked.
#[must_use = "a reservation that is dropped is charged in full"]
pub struct Reservation {
    pub(super) quota: Option<Arc<Inner>>,
    pub(super) accounts: SmallVec<[u32; 6]>,
    pub(super) reserved: Amounts,
    pub(super) generation: u32,
    pub(super) turn: u32,
    pub(super) rates: Rates,
}

impl Reservation {
    /// One that nothing limits.
    pub(super) fn of_nothing(reserved: Amounts) -> Self {
        Self { quota: None, accounts: SmallVec::new(), reserved, generation: 0, turn: 0, rates: Rates::default() }
    }

    /// The rates as they were left by this request, for `x-ratelimit-*` headers.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// What is reserved.
    pub fn reserved(&self) -> Amounts {
        self.reserved
    }

    /// Reserves as much as `amounts` in all, for a request that goes on with a dearer model: every limit admits the
    /// difference, or nothing changes. Never lowers. An unknown amount is refused where it would have been at the beginning;
    /// where it is let pass, what was reserved stays.
    pub fn raise(&mut self, amounts: Amounts, now: Now) -> Result<(), Box<Refusal>> {
        let to = self.reserved.max(amounts);
        if let Some(quota) = &self.quota {
            quota.raise(self, amounts, None, now)?;
        }
        self.reserved = to;
        Ok(())
    }

    /// [`raise`](Self::raise), and `own` at `subject`, where the request is counted from now on: both or neither. What is held
    /// at `subject` ends by itself.
    pub fn raise_beside(
        &mut self,
        amounts: Amounts,
        subject: Subject<'_>,
        own: Amounts,
        now: Now,
    ) -> Result<Self, Box<Refusal>> {
        let to = self.reserved.max(amounts);
        let taken = match &self.quota {
            Some(quota) => quota.raise(self, amounts, Some((subject, own)), now)?,
            None => None,
        };
        self.reserved = to;
        Ok(taken.unwrap_or_else(|| Self::of_nothing(own)))
    }

    /// What is held at `subject`, to end by itself; nothing if nothing is.
    pub fn split(&mut self, subject: Subject<'_>) -> Self {
        let quota = self.quota.clone();
        let accounts = quota.as_ref().map(|quota| quota.split(self, subject)).unwrap_or_default();
        Self {
            quota: quota.filter(|_| !accounts.is_empty()),
            accounts,
            reserved: self.reserved,
            generation: self.generation,
            turn: self.turn,
            rates: Rates::default(),
        }
    }

    /// The request is over and took `actual`, however much was reserved. What is unknown is charged as reserved.
    /// Returns budgets that have reached one of the configured shares.
    pub fn settle(mut self, actual: Amounts) -> Vec<Warning> {
        let actual = actual.or(self.reserved);
        match self.quota.take() {
            Some(quota) => quota.end(&self, 1, actual),
            None => Vec::new(),
        }
    }

    /// Nobody was asked: everything is given back, the request itself included.
    pub fn refund(mut self) {
        if let Some(quota) = self.quota.take() {
            quota.end(&self, 0, Amounts::FREE);
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(quota) = self.quota.take() {
            quota.metrics.unsettled.inc();
            let warnings = quota.end(self, 1, self.reserved);
            quota.keep_warnings(warnings);
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("reserved", &self.reserved).finish_non_exhaustive()
    }
}
