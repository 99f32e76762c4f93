//! How budgets that are lent stand, as text and as JSON.

use serde_json::json;

use super::say;
use crate::flows::lend::{BudgetReport, LeaseView};
use crate::quota::Unit;

/// Millionths of a millionth of a dollar in a millionth of it.
const MICRO_USD: u64 = 1_000_000;

/// Prints the report.
pub(super) fn show(reports: &[BudgetReport], as_json: bool, now_ms: i64) {
    if as_json {
        say(json!({ "budgets": reports }));
        return;
    }
    for line in reports.iter().flat_map(|report| lines(report, now_ms)) {
        say(line);
    }
}

fn amount(unit: Unit, amount: u64) -> String {
    match unit {
        Unit::Money => {
            let micro = amount / MICRO_USD;
            format!("${}.{:06}", micro / 1_000_000, micro % 1_000_000)
        }
        Unit::Requests | Unit::Tokens => amount.to_string(),
    }
}

fn lines(report: &BudgetReport, now_ms: i64) -> Vec<String> {
    let BudgetReport { level, name, unit, total, used, lent, left, unknown, gateways } = report;
    let say = |number: u64| amount(*unit, number);
    let mut lines = vec![format!(
        "{level} {name:?}, {}: {} in all, {} used as told, {} lent, {} left",
        unit.as_str(),
        say(*total),
        say(*used),
        say(*lent),
        say(*left)
    )];
    if *unknown {
        lines.push(
            "  what an earlier database had lent is not known: nothing is lent before the next period".to_owned(),
        );
    }
    for gateway in gateways {
        let name = &gateway.gateway;
        lines.extend(gateway.leases.iter().map(|lease| format!("  {name}: {}", leased(*unit, lease, now_ms))));
        lines.extend(gateway.forgotten.iter().map(|lease| {
            let (number, whole) = (lease.number, say(lease.amount));
            format!("  {name}: lease {number} of {whole} is forgotten there and counts as used")
        }));
    }
    lines
}

fn leased(unit: Unit, lease: &LeaseView, now_ms: i64) -> String {
    let LeaseView { number, amount: whole, used, ends_ms, taken, earlier } = lease;
    let until =
        jiff::Timestamp::from_millisecond(*ends_ms).map_or_else(|_| ends_ms.to_string(), |time| time.to_string());
    let (whole, used) = (amount(unit, *whole), amount(unit, *used));
    let state = match (taken, now_ms >= *ends_ms) {
        (true, false) => format!("until {until}"),
        (true, true) => format!("ended {until}, its final report has not come"),
        (false, false) => format!("until {until}, not known as taken yet"),
        (false, true) => format!("ended {until}, nobody knows whether it was taken"),
    };
    let period = if *earlier { ", of an earlier period" } else { "" };
    format!("lease {number} of {whole}, {used} used as told, {state}{period}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Name;
    use crate::flows::lend::GatewayReport;

    #[test]
    fn a_report_says_who_has_what_until_when() {
        let lease = |number, taken, ends_ms| LeaseView {
            number,
            amount: 1_500_000_000_000,
            used: 250_000_000_000,
            ends_ms,
            taken,
            earlier: number == 1,
        };
        let report = BudgetReport {
            level: "tenant".to_owned(),
            name: "acme".to_owned(),
            unit: Unit::Money,
            total: 5_000_000_000_000,
            used: 250_000_000_000,
            lent: 1_250_000_000_000,
            left: 3_500_000_000_000,
            unknown: false,
            gateways: vec![GatewayReport {
                gateway: Name::new("press-hall-1").unwrap(),
                leases: vec![lease(1, true, 1000), lease(2, false, 3000)],
                forgotten: vec![lease(0, true, 0)],
            }],
        };
        let lines = lines(&report, 2000);
        assert_eq!(
            lines[0],
            "tenant \"acme\", money: $5.000000 in all, $0.250000 used as told, $1.250000 lent, $3.500000 left"
        );
        assert!(lines[1].contains("its final report has not come, of an earlier period"), "{lines:?}");
        assert!(lines[2].ends_with("until 1970-01-01T00:00:03Z, not known as taken yet"), "{lines:?}");
        assert!(lines[3].contains("counts as used"), "{lines:?}");
    }
}
