//! The owner's side of budgets that many gateways share: a program in the cloud that lends each of them a part.
//!
//! What is lent, and under which number, is on the disk before it is said, and a final report is before its gateway is told
//! that it may forget the lease. So the owner may be killed at any moment: what it says again is what it said before.
//! [`Book`] is the arithmetic of one budget, [`Lend`] says and hears it over a link.
//!
//! Never here: what a token or a dollar is, and whether a gateway keeps to its lease; the gateway's own limits see to that.
//!
//! Limits: 256 budgets, 1,024 gateways each; two leases of a gateway and budget are open at most, and pools of two
//! periods that are over are remembered for what is still told about them.

mod asking;
mod book;
mod config;
mod hear;
mod report;
mod rows;
mod story;
#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a test may spawn")]
mod tests;

pub use book::{Book, Heard, Loan, Terms};
pub use config::{Budget, BudgetConfig, LendConfig, Period};
pub use report::{BudgetReport, GatewayReport, LeaseView};
pub use rows::{Key, SCHEMA, read};
pub use story::{Lend, LendMetrics, LendParts};
