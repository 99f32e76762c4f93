//! What the owner of a budget and a gateway say to each other about leases, on the channel of requests.
//!
//! The owner asks with what is lent and what it has settled, the gateway answers with what it has used. Everything goes by
//! the numbers of leases, so a message that is lost, repeated or late changes nothing. `docs/batch.cddl` describes both.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::form::Form;
use super::raw::Raw;
use crate::quota::{Lease, LeaseReport, Now, Unit};

/// The format's version.
pub(super) const VERSION: u32 = 1;
/// Closed leases that one question names.
pub(super) const MAX_SETTLED: usize = 16;
/// Longest level and name of a budget.
const MAX_LEVEL_BYTES: usize = 64;
const MAX_NAME_BYTES: usize = 256;
/// Longest reason in an answer.
const MAX_REASON_BYTES: usize = 512;

/// The word that tells this request from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseWord {
    /// `lease`.
    Lease,
}

/// A question about one budget of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRequest {
    /// The format's version, 1.
    pub v: u32,
    /// Its name, which the answer repeats: 1 to 64 visible ASCII characters.
    pub id: String,
    /// `lease`.
    pub what: LeaseWord,
    /// The budget's level, as in the gateway's configuration.
    pub level: String,
    /// The name at that level.
    pub name: String,
    /// What is lent.
    pub unit: Unit,
    /// A lease to take. The same one may come again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lend: Option<Lent>,
    /// Leases whose final report the owner keeps: they need not be told any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settled: Vec<u64>,
}

/// A part of a budget on its way to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lent {
    /// Rises with each lease of the same budget, from 1.
    pub number: u64,
    /// How much of the unit.
    pub amount: u64,
    /// When it ends, milliseconds since 1970.
    pub ends_ms: i64,
    /// How long it lasts at most from its arrival, so that a gateway whose clock is behind has it no longer.
    pub lasts_ms: u64,
    /// It was taken before and lasts longer now: a gateway that does not know it must not take it anew.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub extends: bool,
}

/// What became of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseOutcome {
    /// The lease is taken, now or before, and on the gateway's disk.
    Taken,
    /// Nothing was lent with it; the reports are what was asked for.
    Told,
    /// Not now; the same question may have another answer later.
    Later,
    /// Not as it stands.
    Refused,
}

/// The gateway's answer; unasked, when its link comes back or a lease is nearly used up or over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseAnswer {
    /// The format's version, 1.
    pub v: u32,
    /// The question's name; empty if there was none or it could not be read.
    pub id: String,
    /// What became of the question.
    pub outcome: LeaseOutcome,
    /// Why, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What is known of the leases that were asked about; of all, unasked, perhaps in several messages.
    #[serde(default)]
    pub reports: Vec<LeaseReport>,
}

impl LeaseAnswer {
    pub(super) fn of(id: &str, outcome: LeaseOutcome, reports: Vec<LeaseReport>) -> Self {
        Self { v: VERSION, id: id.to_owned(), outcome, reason: None, reports }
    }

    pub(super) fn because(mut self, reason: &str) -> Self {
        let end = (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|&end| reason.is_char_boundary(end));
        self.reason = Some(reason[..end.unwrap_or(0)].to_owned());
        self
    }

    /// Reads an answer in either form. `None`: it is an answer to something else.
    pub fn read(payload: &[u8]) -> Option<Self> {
        Form::of(payload).read::<Self>(payload).ok().filter(|answer| answer.v == VERSION)
    }
}

impl LeaseRequest {
    /// As the gateway takes it.
    pub fn to_json(&self) -> Bytes {
        Bytes::from(Form::Json.write(self))
    }

    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        if self.v != VERSION {
            return Err("this gateway reads requests of version 1");
        }
        if !Raw::is_name(&self.id) {
            return Err("id must be 1 to 64 visible ASCII characters");
        }
        if !(1..=MAX_LEVEL_BYTES).contains(&self.level.len()) || !(1..=MAX_NAME_BYTES).contains(&self.name.len()) {
            return Err("level must have 1 to 64 bytes, name 1 to 256");
        }
        if self.settled.len() > MAX_SETTLED {
            return Err("at most 16 leases may be settled at once");
        }
        Ok(())
    }

    /// The lease that it brings, as this gateway may use it.
    pub(super) fn lease(&self, now: Now) -> Option<Lease> {
        let Lent { number, amount, ends_ms, lasts_ms, extends: _ } = self.lend?;
        let latest_ms = now.wall_ms.saturating_add(i64::try_from(lasts_ms).unwrap_or(i64::MAX));
        let (level, name) = (self.level.clone(), self.name.clone());
        Some(Lease { number, level, name, unit: self.unit, amount, ends_ms: ends_ms.min(latest_ms) })
    }

    pub(super) fn is_about(&self, report: &LeaseReport) -> bool {
        (&self.level, &self.name, self.unit) == (&report.level, &report.name, report.unit)
    }
}

/// What tells a lease from what else the cloud may ask for.
#[derive(Deserialize)]
struct Head {
    what: String,
    #[serde(default)]
    id: String,
}

fn head(payload: &[u8]) -> Option<Head> {
    Form::of(payload).read::<Head>(payload).ok().filter(|head| head.what == "lease")
}

/// True for a question about a lease, readable as one or not.
pub(super) fn is_lease(payload: &[u8]) -> bool {
    head(payload).is_some()
}

/// The name of a question about a lease; empty if it has none.
pub(super) fn id_of(payload: &[u8]) -> String {
    head(payload).map(|head| head.id).filter(|id| Raw::is_name(id)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> LeaseRequest {
        let lend = Some(Lent { number: 7, amount: 500, ends_ms: 10_000, lasts_ms: 600, extends: false });
        LeaseRequest {
            v: 1,
            id: "lease-7".to_owned(),
            what: LeaseWord::Lease,
            level: "tenant".to_owned(),
            name: "acme".to_owned(),
            unit: Unit::Tokens,
            lend,
            settled: vec![5],
        }
    }

    #[test]
    fn a_question_reads_the_same_from_json_and_from_cbor_and_is_told_from_others() {
        let json = br#"{"v":1,"id":"lease-7","what":"lease","level":"tenant","name":"acme","unit":"tokens",
            "lend":{"number":7,"amount":500,"ends_ms":10000,"lasts_ms":600},"settled":[5]}"#;
        let cbor = Form::Cbor.write(&request());
        for payload in [json.as_slice(), &cbor, &request().to_json()] {
            assert!(is_lease(payload));
            assert_eq!(id_of(payload), "lease-7");
            assert_eq!(Form::of(payload).read::<LeaseRequest>(payload).unwrap(), request());
        }
        for other in [r#"{"v":1,"id":"a","what":"raw_window","stream":"press"}"#, "{", "", "[]"] {
            assert!(!is_lease(other.as_bytes()), "{other}");
        }
        let answer = LeaseAnswer::of("a", LeaseOutcome::Refused, Vec::new()).because(&"é".repeat(400));
        assert_eq!(answer.reason.as_ref().unwrap().len(), MAX_REASON_BYTES);
        for form in [Form::Json, Form::Cbor] {
            assert_eq!(LeaseAnswer::read(&form.write(&answer)), Some(answer.clone()));
        }
    }

    #[test]
    fn a_gateway_whose_clock_is_behind_has_a_lease_no_longer_than_others() {
        let now = |wall_ms| Now { wall_ms, boot_ms: 0 };
        assert_eq!(request().lease(now(9_900)).unwrap().ends_ms, 10_000);
        assert_eq!(request().lease(now(5_000)).unwrap().ends_ms, 5_600);
        assert_eq!(LeaseRequest { lend: None, ..request() }.lease(now(1)), None);
        request().check().unwrap();
        for wrong in [
            LeaseRequest { v: 2, ..request() },
            LeaseRequest { id: String::new(), ..request() },
            LeaseRequest { name: "n".repeat(257), ..request() },
            LeaseRequest { settled: vec![1; 17], ..request() },
        ] {
            wrong.check().unwrap_err();
        }
    }
}
