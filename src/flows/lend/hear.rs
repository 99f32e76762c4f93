//! What gateways say: reports, asked for or not, and what became of a question.

use std::time::Duration;

use rand::Rng;

use super::book::Heard;
use super::config::Budget;
use super::story::{Entry, Lend};
use crate::base::Name;
use crate::flows::address::Address;
use crate::flows::lease::{LeaseAnswer, LeaseOutcome};
use crate::quota::LeaseReport;
use crate::uplink::{CloudMessage, Uplink};

/// What was only noted may wait so long to be written.
const NOTED: Duration = Duration::from_secs(5);

impl<U: Uplink, R: Rng + Send> Lend<U, R> {
    pub(super) fn hear(&mut self, message: &CloudMessage) {
        let Some(gateway) = self.speaker(&message.topic) else { return };
        let Some(answer) = LeaseAnswer::read(&message.payload) else { return };
        self.metrics.heard.inc();
        for report in &answer.reports {
            self.note(&gateway, report);
        }
        if let Some((at, question)) = self.question(&answer.id) {
            self.answered(at, question, &gateway, &answer);
        }
        // Whoever speaks hears: what it has not heard is said at once.
        let now = self.clock.since_boot();
        for at in 0..self.entries.len() {
            if let Some(asking) = self.entries[at].asking.get_mut(&gateway) {
                asking.spoke(now, answer.id.is_empty());
                self.lend(at, &gateway);
            }
        }
    }

    fn note(&mut self, gateway: &Name, report: &LeaseReport) {
        let (now, next) = (self.clock.since_boot(), self.questions + 1);
        let is_it = |entry: &&mut Entry| {
            let Budget { level, name, unit, .. } = &entry.budget;
            (level, name, *unit) == (&report.level, &report.name, report.unit)
        };
        let Some(entry) = self.entries.iter_mut().find(is_it) else { return };
        let Some(asking) = entry.asking.get_mut(gateway) else { return };
        let (level, unit, number) = (&report.level, report.unit.as_str(), report.number);
        match entry.book.heard(gateway, report) {
            Heard::Nothing => {}
            Heard::Noted => {
                asking.knows(number, next);
                entry.must_write(if report.is_final { now } else { now + NOTED });
            }
            Heard::Closed { returned } => {
                self.metrics.closed.inc();
                tracing::info!(level, unit, %gateway, lease.number = number, used = report.used, returned, "a lease is closed");
                entry.must_write(now);
                // What came back may be what others wait for.
                self.ticked = None;
            }
            Heard::Stranger => {
                if asking.is_strange(number) {
                    tracing::warn!(
                        level,
                        unit,
                        %gateway,
                        lease.number = number,
                        "a gateway has a lease that was not given here: is this the right state folder, and the only lender?"
                    );
                }
            }
        }
    }

    fn answered(&mut self, at: usize, question: u64, gateway: &Name, answer: &LeaseAnswer) {
        let (now, next) = (self.clock.since_boot(), self.questions + 1);
        let entry = &mut self.entries[at];
        let Some(asking) = entry.asking.get_mut(gateway) else { return };
        let (level, unit) = (&entry.budget.level, entry.budget.unit.as_str());
        if let Some(reason) = asking.answered(question, answer, now, self.ask_every) {
            tracing::warn!(level, unit, %gateway, reason, "a gateway does not take a lease");
        }
        if !matches!(answer.outcome, LeaseOutcome::Taken | LeaseOutcome::Told) {
            return;
        }
        let carried = asking.carried(question).filter(|_| answer.outcome == LeaseOutcome::Taken);
        if let Some((number, ends_ms)) = carried
            && entry.book.taken(gateway, number, ends_ms)
        {
            asking.knows(number, next);
            entry.write_by = Some(now);
        }
        let is_late = asking.is_late(question);
        for loan in entry.book.missing(gateway, &answer.reports, is_late) {
            self.metrics.forgotten.inc();
            let (number, amount) = (loan.number, loan.amount);
            tracing::warn!(
                level,
                unit,
                %gateway,
                lease.number = number,
                lease.amount = amount,
                "a gateway has forgotten a lease that it had taken: all of it counts as used"
            );
            entry.write_by = Some(now);
        }
    }

    /// Whose response this topic is.
    fn speaker(&self, topic: &str) -> Option<Name> {
        let gateway = topic.split('/').nth(3).and_then(|level| Name::new(level).ok())?;
        (Address::responses(&self.tenant, &gateway) == topic).then_some(gateway)
    }

    /// The entry and the number of one of this process's questions.
    fn question(&self, id: &str) -> Option<(usize, u64)> {
        let rest = id.strip_prefix(&format!("lend-{:016x}-", self.run))?;
        let (at, question) = rest.split_once('-')?;
        let (at, question): (usize, u64) = (at.parse().ok()?, question.parse().ok()?);
        (at < self.entries.len() && question <= self.questions).then_some((at, question))
    }
}
