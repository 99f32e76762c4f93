//! Failures of the disk on order: the n-th call of a kind, or every call from the n-th on.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// Opening or creating a file.
    Open,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Changing the length.
    Truncate,
    /// Making what was written durable.
    Sync,
    /// Removing a name.
    Delete,
    /// Growing the index of the log, a file that is mapped into memory.
    Map,
}

/// How a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Harm {
    /// EIO: the device did not do it.
    Io,
    /// ENOSPC: no space was left.
    Full,
    /// A write that did its first half only, then EIO.
    Short,
}

/// One failure on order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fault {
    /// Which kind of call fails.
    pub call: Call,
    /// How.
    pub harm: Harm,
    /// Which one, counted from 1 at the order.
    pub nth: u64,
    /// Every later one fails as well, until the order is withdrawn.
    pub lasting: bool,
}

#[derive(Debug, Default)]
struct State {
    order: Option<Fault>,
    seen: u64,
    struck: u64,
}

/// The order in force.
#[derive(Debug, Default)]
pub struct Faults {
    state: Mutex<State>,
}

impl Faults {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Orders a failure; an earlier order is withdrawn, and counting starts over.
    pub fn order(&self, fault: Fault) {
        *self.lock() = State { order: Some(fault), seen: 0, struck: 0 };
    }

    /// Withdraws the order.
    pub fn withdraw(&self) {
        self.lock().order = None;
    }

    /// Calls that were made to fail by the last order.
    pub fn struck(&self) -> u64 {
        self.lock().struck
    }

    /// How this call has to fail, if it has to.
    pub(super) fn strike(&self, call: Call) -> Option<Harm> {
        let mut state = self.lock();
        let fault = state.order.filter(|fault| fault.call == call)?;
        state.seen += 1;
        let strikes = state.seen == fault.nth || (fault.lasting && state.seen > fault.nth);
        state.struck += u64::from(strikes);
        strikes.then_some(fault.harm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strikes(lasting: bool) -> Vec<bool> {
        let faults = Faults::default();
        faults.order(Fault { call: Call::Write, harm: Harm::Io, nth: 3, lasting });
        assert_eq!(faults.strike(Call::Sync), None, "another kind of call");
        (0..5).map(|_| faults.strike(Call::Write).is_some()).collect()
    }

    #[test]
    fn one_call_fails_or_all_from_it_on() {
        assert_eq!(strikes(false), [false, false, true, false, false]);
        assert_eq!(strikes(true), [false, false, true, true, true]);
    }
}
