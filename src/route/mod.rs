//! Candidates, and who of them gets a request: shares, stickiness, the order of those who are asked next, and whom not
//! to ask for a while.
//!
//! [`choose`] gives each candidate its share, and the same candidate to the same key; [`order`] says who is asked when
//! the chosen one does not answer; a [`Breaker`] holds requests back from one that fails. All of it is arithmetic: time
//! and chance are arguments, and what a candidate is (a version of a model, a model elsewhere) only the caller knows.
//!
//! Never here: asking anybody, waiting, a clock, what an answer is worth.
//!
//! Limits: a breaker keeps two numbers for each of ten parts of its window, however many requests there are.

mod breaker;
mod split;
mod window;

pub use breaker::{Breaker, BreakerState, Change, Outcome, Refused, Terms, Ticket, Why};
pub use split::{Candidate, choose, order};
