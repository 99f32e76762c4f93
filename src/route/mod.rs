//! Candidates, and who of them gets a request: routes with conditions, orders of preference, shares, stickiness, the order
//! of those who are asked next, and whom not to ask for a while.
//!
//! For models elsewhere and here, one request goes like this. [`Routes::find`] finds the route for the model's name and
//! the [`Ask`]'s facts; [`Found::plan`] makes a [`Plan`]: every candidate, either in the order in which it is asked, with the
//! [`Basis`] of its place, or left out, with the [`Reason`]. [`Attempts`] walks along the plan, answering each [`Fault`]
//! with the next [`Step`]; [`Vitals`] is what a target's past says of it; a [`RetryBudget`] keeps retries from becoming a
//! storm; a [`LinkGate`] believes bad news at once and good news later. [`Plan::explanation`] is the decision in words.
//!
//! For versions of one model: [`choose`] gives each candidate its share, and the same candidate to the same key; [`order`]
//! says who is asked when the chosen one does not answer; a [`Breaker`] holds requests back from one that fails.
//!
//! All of it is arithmetic: time and chance are arguments, and what a candidate is only the caller knows.
//!
//! Never here: asking anybody, waiting, a clock, prices, limits, what an answer is worth, or any text of a request kept.
//!
//! Limits: 1,000 routes of 64 candidates and 256 names each; the first [`LOOK_BYTES`] of a text are looked at, and only for
//! conditions on languages, words and tasks; a model's name of over 256 bytes has no route; an explanation has at
//! most 512 bytes and then ends in `...`; a target's state is under a kilobyte, however many requests there are.

mod ask;
mod breaker;
mod check;
mod conditions;
mod config;
mod fault;
mod language;
mod latency;
mod link;
mod metrics;
mod pattern;
mod plan;
mod reason;
mod retry;
#[cfg(test)]
mod simulation;
mod split;
mod table;
mod vitals;
mod window;

pub use ask::{Ask, Link, Need, Needs, Reach};
pub use breaker::{Breaker, BreakerState, Change, Outcome, Refused, Terms, Ticket, Why};
pub use check::Error;
pub use conditions::Unmet;
pub use config::{
    BreakerSettings, CandidateConfig, Hedge, Probing, Retries, RouteConfig, Settings, Sticky, Strategy, When,
};
pub use fault::Fault;
pub use language::{LANGUAGES, LOOK_BYTES, guess_language, looks_like_code};
pub use link::LinkGate;
pub use metrics::{Metrics, RouteMetrics};
pub use plan::{Considered, Plan, Verdict};
pub use reason::{Basis, Reason};
pub use retry::{Attempts, End, RetryBudget, Step};
pub use split::{Candidate, choose, order};
pub use table::{Found, LOCAL, NoRoute, Route, RouteCandidate, Routes, Target};
pub use vitals::{Held, Leave, Standing, Vitals};
