//! What there is to lend: the lender's configuration file.

use std::collections::HashSet;

use serde::Deserialize;

use crate::base::Name;
use crate::quota::{Calendar, Day, Unit, Usd};

/// Budgets of one file.
const MAX_BUDGETS: usize = 256;
/// Gateways that share one.
const MAX_GATEWAYS: usize = 1024;

/// The whole file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LendConfig {
    /// Whose midnight ends a day and a month, as in a gateway's `[quota]`.
    pub time_zone: String,
    /// A gateway that says nothing by itself is asked this often. It does say by itself when it has come back, when a lease
    /// is nearly used up and when one is over.
    pub ask_every_s: u64,
    /// `[[budget]]`, at most 256.
    pub budget: Vec<BudgetConfig>,
}

impl Default for LendConfig {
    fn default() -> Self {
        Self { time_zone: "UTC".to_owned(), ask_every_s: 60, budget: Vec::new() }
    }
}

/// `[[budget]]`: so much for a calendar day or month, shared by some gateways. Exactly one of the six amounts is set.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// The level that the gateways' limits name: `key`, `user`, `team`, `tenant`, `model`.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// Requests a day.
    pub requests_per_day: Option<u64>,
    /// Requests a month.
    pub requests_per_month: Option<u64>,
    /// Tokens a day, in and out together.
    pub tokens_per_day: Option<u64>,
    /// Tokens a month.
    pub tokens_per_month: Option<u64>,
    /// US dollars a day, exact to a millionth.
    pub usd_per_day: Option<Usd>,
    /// US dollars a month.
    pub usd_per_month: Option<Usd>,
    /// Who shares it, 1 to 1,024 names.
    pub gateways: Vec<Name>,
    /// How long a lease lasts, in seconds: as long as a gateway goes on without the link. While the link is there a lease is
    /// made to last longer from its half on.
    pub lease_s: u64,
    /// How much of what is left is lent at once, shared evenly by the gateways, in percent. The rest is for whoever needs it.
    pub lend_percent: u8,
    /// The smallest lease, in percent of the whole budget, as long as there is so much.
    pub smallest_percent: u8,
    /// A lease may last into the next period for so many seconds, until the first of that period is there.
    pub outlast_s: u64,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            level: String::new(),
            name: String::new(),
            requests_per_day: None,
            requests_per_month: None,
            tokens_per_day: None,
            tokens_per_month: None,
            usd_per_day: None,
            usd_per_month: None,
            gateways: Vec::new(),
            lease_s: 6 * 3600,
            lend_percent: 50,
            smallest_percent: 1,
            outlast_s: 300,
        }
    }
}

/// How long a budget is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// A calendar day.
    Day,
    /// A calendar month.
    Month,
}

impl Period {
    /// The number of the period that a day lies in.
    pub fn of(self, day: Day) -> i64 {
        match self {
            Self::Day => day.number.into(),
            Self::Month => day.month.into(),
        }
    }

    /// The first moment after it.
    pub fn ends_ms(self, day: Day) -> i64 {
        match self {
            Self::Day => day.ends_ms,
            Self::Month => day.month_ends_ms,
        }
    }
}

/// What is lent: a budget that was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The level.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What is counted.
    pub unit: Unit,
    /// How much of it there is in a period.
    pub total: u64,
    /// The period.
    pub period: Period,
    /// The rest.
    pub config: BudgetConfig,
}

impl BudgetConfig {
    /// Whose it is, in words.
    fn whose(&self) -> String {
        format!("{} {:?}", self.level, self.name)
    }

    fn budget(&self) -> Result<Budget, (&'static str, String)> {
        let whose = self.whose();
        if !(1..=64).contains(&self.level.len()) {
            return Err(("level", format!("level is {:?}; use key, user, team, tenant or model", self.level)));
        }
        if !(1..=256).contains(&self.name.len()) {
            return Err(("name", format!("the budget of a {} needs a name of 1 to 256 bytes", self.level)));
        }
        let set = [
            (Unit::Requests, Period::Day, self.requests_per_day),
            (Unit::Requests, Period::Month, self.requests_per_month),
            (Unit::Tokens, Period::Day, self.tokens_per_day),
            (Unit::Tokens, Period::Month, self.tokens_per_month),
            (Unit::Money, Period::Day, self.usd_per_day.map(Usd::pico)),
            (Unit::Money, Period::Month, self.usd_per_month.map(Usd::pico)),
        ];
        let mut set = set.into_iter().filter_map(|(unit, period, total)| total.map(|total| (unit, period, total)));
        let (Some((unit, period, total)), None) = (set.next(), set.next()) else {
            let problem = format!(
                "the budget of {whose} needs exactly one of requests_per_day, requests_per_month, tokens_per_day, \
                 tokens_per_month, usd_per_day and usd_per_month"
            );
            return Err(("level", problem));
        };
        if total > i64::MAX.cast_unsigned() {
            return Err(("level", format!("the budget of {whose} is {total}; {} is the most", i64::MAX)));
        }
        let names: HashSet<_> = self.gateways.iter().collect();
        if self.gateways.is_empty() || self.gateways.len() > MAX_GATEWAYS || names.len() < self.gateways.len() {
            let problem = format!("the budget of {whose} needs 1 to {MAX_GATEWAYS} gateways, each once");
            return Err(("gateways", problem));
        }
        if !(2..=31 * 86_400).contains(&self.lease_s) {
            return Err(("lease_s", format!("lease_s is {}; use 2 to 2678400", self.lease_s)));
        }
        if !(1..=100).contains(&self.lend_percent) {
            return Err(("lend_percent", format!("lend_percent is {}; use 1 to 100", self.lend_percent)));
        }
        if self.smallest_percent > 100 {
            return Err(("smallest_percent", format!("smallest_percent is {}; use 0 to 100", self.smallest_percent)));
        }
        if self.outlast_s > 86_400 {
            return Err(("outlast_s", format!("outlast_s is {}; use 0 to 86400", self.outlast_s)));
        }
        let (level, name) = (self.level.clone(), self.name.clone());
        Ok(Budget { level, name, unit, total, period, config: self.clone() })
    }
}

impl LendConfig {
    /// The calendar and the budgets, or the key that is wrong, as a path from the top, and what is wrong with it.
    pub fn budgets(&self) -> Result<(Calendar, Vec<Budget>), (String, String)> {
        let calendar = Calendar::new(&self.time_zone).map_err(|problem| ("time_zone".to_owned(), problem))?;
        if !(1..=86_400).contains(&self.ask_every_s) {
            return Err(("ask_every_s".to_owned(), format!("ask_every_s is {}; use 1 to 86400", self.ask_every_s)));
        }
        if self.budget.is_empty() || self.budget.len() > MAX_BUDGETS {
            let problem = format!("there are {} budgets; write 1 to {MAX_BUDGETS} [[budget]]", self.budget.len());
            return Err(("budget".to_owned(), problem));
        }
        let mut seen = HashSet::new();
        let mut budgets = Vec::with_capacity(self.budget.len());
        for (at, config) in self.budget.iter().enumerate() {
            let budget = config.budget().map_err(|(key, problem)| (format!("budget[{at}].{key}"), problem))?;
            if !seen.insert((&config.level, &config.name, budget.unit)) {
                let unit = budget.unit.as_str();
                let problem = format!(
                    "{} has two budgets of {unit}: a gateway knows one lease of {unit} for a name",
                    config.whose()
                );
                return Err((format!("budget[{at}].name"), problem));
            }
            budgets.push(budget);
        }
        Ok((calendar, budgets))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Budget>, (String, String)> {
        let config: LendConfig = toml::from_str(text).map_err(|error| (String::new(), error.to_string()))?;
        config.budgets().map(|(_, budgets)| budgets)
    }

    const ACME: &str = "[[budget]]\nlevel = 'tenant'\nname = 'acme'\ngateways = ['a', 'b']\n";

    #[test]
    fn a_budget_is_an_amount_of_one_unit_for_a_day_or_a_month() {
        let budgets = read(&format!("{ACME}usd_per_day = 2.5\n{ACME}tokens_per_month = 10_000_000")).unwrap();
        assert_eq!(
            (budgets[0].unit, budgets[0].period, budgets[0].total),
            (Unit::Money, Period::Day, 2_500_000_000_000)
        );
        assert_eq!((budgets[1].unit, budgets[1].period, budgets[1].total), (Unit::Tokens, Period::Month, 10_000_000));
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_place() {
        for (text, key, expected) in [
            (String::new(), "budget", "write 1 to 256"),
            (ACME.to_owned(), "budget[0].level", "exactly one of"),
            (format!("{ACME}tokens_per_day = 1\nrequests_per_day = 1"), "budget[0].level", "exactly one of"),
            (
                format!("{ACME}tokens_per_day = 1\n{ACME}tokens_per_month = 1"),
                "budget[1].name",
                "two budgets of tokens",
            ),
            (ACME.replace("['a', 'b']", "['a', 'a']") + "tokens_per_day = 1", "budget[0].gateways", "each once"),
            (ACME.replace("tenant", "") + "tokens_per_day = 1", "budget[0].level", "use key, user"),
            (format!("{ACME}tokens_per_day = 1\nlease_s = 1"), "budget[0].lease_s", "2 to 2678400"),
            (format!("{ACME}tokens_per_day = 1\nlend_percent = 0"), "budget[0].lend_percent", "1 to 100"),
            (format!("time_zone = 'Mars'\n{ACME}tokens_per_day = 1"), "time_zone", "Mars"),
            (format!("ask_every_s = 0\n{ACME}tokens_per_day = 1"), "ask_every_s", "1 to 86400"),
            (format!("{ACME}tokens_per_week = 1"), "", "unknown field"),
        ] {
            let (found, problem) = read(&text).unwrap_err();
            assert!(found == key && problem.contains(expected), "{text}: {found}: {problem}");
        }
    }
}
