//! How budgets stand: what was lent to whom, what was used as far as has been told, what is left.

use serde::Serialize;

use super::book::{Book, Loan};
use super::rows::Key;
use crate::base::Name;
use crate::quota::Unit;

/// One budget.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetReport {
    /// The level.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What is counted; money in millionths of a millionth of a dollar.
    pub unit: Unit,
    /// The budget of the period.
    pub total: u64,
    /// Used, as far as has been told.
    pub used: u64,
    /// Lent, and not told as used.
    pub lent: u64,
    /// Not lent.
    pub left: u64,
    /// What was lent before the file was lost is not known: nothing more is lent in this period.
    pub unknown: bool,
    /// By name.
    pub gateways: Vec<GatewayReport>,
}

/// One gateway's leases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GatewayReport {
    /// Its name.
    pub gateway: Name,
    /// Without a final report; of this period and earlier ones.
    pub leases: Vec<LeaseView>,
    /// Taken and forgotten there, with its disk: they count as used.
    pub forgotten: Vec<LeaseView>,
}

/// One lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LeaseView {
    /// Its number.
    pub number: u64,
    /// How much was lent.
    pub amount: u64,
    /// Used, as far as has been told.
    pub used: u64,
    /// When it ends, milliseconds since 1970.
    pub ends_ms: i64,
    /// The gateway has said that it has it.
    pub taken: bool,
    /// Of an earlier period.
    pub earlier: bool,
}

impl BudgetReport {
    /// Of the period that the book is in.
    pub fn of((level, name, unit): Key, book: &Book) -> Self {
        let pool = book.pool();
        let view = |loan: &Loan| LeaseView {
            number: loan.number,
            amount: loan.amount,
            used: loan.used,
            ends_ms: loan.ends_ms,
            taken: loan.taken,
            earlier: loan.period < book.period(),
        };
        let gateways = book.accounts().iter().map(|(gateway, account)| GatewayReport {
            gateway: gateway.clone(),
            leases: account.loans.iter().map(view).collect(),
            forgotten: account.forgotten.iter().map(view).collect(),
        });
        let left = if book.is_unknown() { 0 } else { pool.left() };
        let (total, used, lent, unknown) = (pool.total(), pool.used(), pool.out(), book.is_unknown());
        Self { level, name, unit, total, used, lent, left, unknown, gateways: gateways.collect() }
    }
}
