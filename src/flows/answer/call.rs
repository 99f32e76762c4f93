//! One call from its beginning to its record: what it holds of its limits, who was asked, and what it took. Whatever becomes
//! of it, also if its caller leaves, it is settled and recorded once.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

use super::answered::Told;
use super::asking::Asking;
use super::fell::Fell;
use super::holds::{Holds, Took};
use super::metrics::Over;
use super::request::{PROMPT, Request};
use super::story::{Answer, Stop};
use crate::access::Principal;
use crate::base::Name;
use crate::dialect::{Dialect, Operation, Usage};
use crate::ledger::{self, Attempt, Record};
use crate::price::Tier;
use crate::quota::{Amounts, Now, Rates, Refusal, Warning};
use crate::route::{Link, Plan, Verdict};

/// The status in the record of a caller who left: nobody gets it.
pub(super) const LEFT: u16 = 499;

/// One candidate that was asked or passed over.
struct Tried {
    candidate: String,
    outcome: &'static str,
    status: Option<u16>,
    took: Duration,
}

/// What the call took.
pub(super) enum Spent {
    /// There is no answer: nothing but what failed attempts may cost.
    Nothing,
    /// An answer, or a part of one.
    Used {
        /// Told, or counted here.
        usage: Usage,
        /// In pico-USD.
        cost: Option<u64>,
    },
    /// An answer that was kept, which saved so much.
    Kept {
        /// In pico-USD.
        saved: Option<u64>,
    },
    /// Somebody was asked, and nobody saw the end.
    Unseen,
}

/// One call.
pub(super) struct Call {
    pub(super) story: Arc<Answer>,
    who: Principal,
    id: String,
    dialect: Dialect,
    operation: Operation,
    is_stream: bool,
    model: String,
    user: String,
    prompt: String,
    arrived: Duration,
    time_ms: i64,
    route: Option<Name>,
    explanation: Option<String>,
    reason: String,
    link: Link,
    tried: SmallVec<[Tried; 4]>,
    attempts: u32,
    holds: Option<Holds>,
    /// The place of the target whose amounts these are, until somebody is asked.
    pub(super) held_for: Option<usize>,
    rates: Rates,
    pub(super) cache: &'static str,
    /// Time that others took.
    waited: Duration,
    first: Option<Duration>,
    candidate: Option<String>,
    model_answered: String,
    left_out: Vec<String>,
    /// What attempts without an answer may cost.
    lost: Amounts,
    /// One of them was a model's of this box: nobody knows what it took, and nobody sends a bill.
    is_lost_here: bool,
    /// What the answer took of this box.
    here: Option<ledger::Here>,
    /// Somebody is being asked.
    pub(super) is_pending: bool,
    cost: Option<u64>,
    is_estimated: bool,
    tier: Option<Tier>,
    is_over: bool,
}

impl Call {
    pub(super) fn new(story: &Arc<Answer>, request: &Request<'_>) -> Self {
        story.parts.metrics.began();
        Self {
            story: Arc::clone(story),
            who: request.who.clone(),
            id: request.id.to_owned(),
            dialect: request.dialect,
            operation: request.operation,
            is_stream: false,
            model: String::new(),
            user: String::new(),
            prompt: request.header(PROMPT).unwrap_or("").to_owned(),
            arrived: request.arrived,
            time_ms: story.parts.clock.wall_ms(),
            route: None,
            explanation: None,
            reason: String::new(),
            link: story.link(),
            tried: SmallVec::new(),
            attempts: 0,
            holds: None,
            held_for: None,
            rates: Rates::default(),
            cache: "off",
            waited: Duration::ZERO,
            first: None,
            candidate: None,
            model_answered: String::new(),
            left_out: Vec::new(),
            lost: Amounts::FREE,
            is_lost_here: false,
            here: None,
            is_pending: false,
            cost: None,
            is_estimated: false,
            tier: None,
            is_over: false,
        }
    }

    pub(super) fn link(&self) -> Link {
        self.link
    }

    pub(super) fn operation(&self) -> Operation {
        self.operation
    }

    pub(super) fn dialect(&self) -> Dialect {
        self.dialect
    }

    pub(super) fn who(&self) -> &Principal {
        &self.who
    }

    /// What it is billed in.
    pub(super) fn tier(&self) -> Option<Tier> {
        self.tier
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn route(&self) -> Option<&Name> {
        self.route.as_ref()
    }

    pub(super) fn arrived(&self) -> Duration {
        self.arrived
    }

    /// What was read of the body.
    pub(super) fn learn(&mut self, asking: &Asking<'_>) {
        self.is_stream = asking.stream;
        self.model = asking.model.clone().into_owned();
        self.tier = asking.tier();
        let user = self.who.user().or(asking.facts.user.as_deref());
        self.user = user.unwrap_or("").to_owned();
    }

    /// The decision in words, for a header: to be called when nobody waits for it any more.
    pub(super) fn explain(&mut self, plan: &Plan<'_>) {
        self.explanation = Some(plan.explanation());
    }

    /// The route, who will be asked, and who will not.
    pub(super) fn decided(&mut self, plan: &Plan<'_>) {
        self.route = Some(plan.route().name().clone());
        for considered in &plan.considered()[plan.len()..] {
            if let Verdict::LeftOut(reason) = considered.verdict {
                let target = plan.route().candidates()[considered.candidate].target();
                self.passed_over(target.to_string(), reason.as_str());
            }
        }
    }

    /// A candidate that was not asked.
    pub(super) fn passed_over(&mut self, candidate: String, outcome: &'static str) {
        self.tried.push(Tried { candidate, outcome, status: None, took: Duration::ZERO });
    }

    /// Holds `amounts` of the caller's limits and of those of `model`, which is to be asked; what it held of another model's
    /// is over.
    pub(super) fn reserve(&mut self, model: &str, amounts: Amounts) -> Result<(), Box<Refusal>> {
        self.held_for = None;
        let now = Now::of(&*self.story.parts.clock);
        if let Some(holds) = &mut self.holds {
            let warnings = holds.move_to(model, amounts, now)?;
            self.warn(&warnings);
            return Ok(());
        }
        let holds = Holds::new(&self.story.parts.quota, &self.who, &self.model, model, amounts, now);
        let holds = holds.inspect_err(|refusal| self.rates = refusal.rates())?;
        self.rates = holds.rates();
        self.holds = Some(holds);
        Ok(())
    }

    /// Holds `amounts` beside what it holds: two are asked for one answer.
    pub(super) fn reserve_beside(&mut self, model: &str, amounts: Amounts) -> Result<(), Box<Refusal>> {
        let now = Now::of(&*self.story.parts.clock);
        match &mut self.holds {
            Some(holds) => holds.add(model, amounts, now),
            None => self.reserve(model, amounts),
        }
    }

    fn warn(&self, warnings: &[Warning]) {
        for warning in warnings {
            self.story.parts.metrics.warned();
            (self.story.parts.on_warning)(warning);
        }
    }

    /// A candidate is asked.
    pub(super) fn asks(&mut self, model: &str) {
        self.attempts += 1;
        self.held_for = None;
        self.is_pending = true;
        if let Some(holds) = &mut self.holds {
            holds.asks(model);
        }
    }

    /// Others took so long.
    pub(super) fn waited(&mut self, time: Duration) {
        self.waited += time;
    }

    /// A candidate gave no answer.
    pub(super) fn fell(&mut self, stop: &Stop, model: &str, fell: &Fell, took: Duration, input_tokens: u64) {
        self.is_pending = false;
        self.tried.push(Tried { candidate: stop.called(model), outcome: fell.outcome, status: fell.status, took });
        if fell.may_cost {
            self.lose(stop, model, input_tokens);
        }
    }

    /// Another one answered first.
    pub(super) fn cancelled(&mut self, stop: &Stop, model: &str, took: Duration, input_tokens: u64) {
        self.tried.push(Tried { candidate: stop.called(model), outcome: "cancelled", status: None, took });
        self.lose(stop, model, input_tokens);
    }

    /// The prompt went to somebody who may bill it.
    fn lose(&mut self, stop: &Stop, model: &str, input_tokens: u64) {
        if self.operation == Operation::CountTokens {
            return;
        }
        self.lost.tokens = self.lost.tokens.map(|tokens| tokens.saturating_add(input_tokens));
        // Nobody sends a bill for what this box did; what it took stands as unknown in the record.
        let is_here = stop.provider().is_none();
        self.is_lost_here |= is_here;
        let cost = if is_here { Some(0) } else { self.story.prompt_cost(stop, model, input_tokens, self.tier) };
        self.lost.money = self.lost.money.zip(cost).map(|(one, other)| one.saturating_add(other));
        if let Some(holds) = &mut self.holds {
            holds.lost(model, Amounts { tokens: Some(input_tokens), money: cost });
        }
    }

    /// A candidate answers.
    pub(super) fn answers(&mut self, stop: &Stop, model: &str, why: String, left_out: Vec<String>, took: Duration) {
        let candidate = stop.called(model);
        self.tried.push(Tried { candidate: candidate.clone(), outcome: "ok", status: None, took });
        self.candidate = Some(candidate);
        self.model_answered = model.to_owned();
        self.reason = why;
        self.left_out = left_out;
        self.is_pending = false;
        let now = self.story.now();
        if self.is_stream {
            self.first = Some(now.saturating_sub(self.arrived));
        }
    }

    /// What the answer took of this box, as far as it has come.
    pub(super) fn took(&mut self, here: Option<ledger::Here>) {
        self.here = here;
    }

    /// An answer that began broke off.
    pub(super) fn broke(&mut self, outcome: &'static str) {
        if let Some(last) = self.tried.last_mut() {
            last.outcome = outcome;
        }
    }

    /// A kept answer is given; `model` is the one that had given it.
    pub(super) fn found(&mut self, how: &'static str, model: &str) {
        self.cache = how;
        self.reason = how.to_owned();
        self.model_answered = model.to_owned();
    }

    pub(super) fn model_answered(&self) -> &str {
        &self.model_answered
    }

    /// For headers.
    pub(super) fn told(&mut self, retry_after: Option<Duration>) -> Told {
        Told {
            route: self.explanation.take(),
            candidate: self.candidate.clone(),
            cache: self.cache,
            link: self.link,
            attempts: self.attempts,
            cost_pico: self.cost,
            is_estimated: self.is_estimated,
            overhead: self.overhead(),
            rates: self.rates,
            retry_after,
            left_out: std::mem::take(&mut self.left_out),
        }
    }

    fn overhead(&self) -> Duration {
        self.story.now().saturating_sub(self.arrived).saturating_sub(self.waited)
    }

    /// The end: settles, records and counts.
    pub(super) fn end(&mut self, status: u16, error: &str, spent: &Spent) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let (lost_tokens, lost_pico) = (self.lost.tokens.unwrap_or(0), self.lost.money);
        let with_lost = |cost: Option<u64>| Some(cost?.saturating_add(lost_pico?));
        let none = Usage { input_tokens: Some(lost_tokens), output_tokens: Some(0), ..Usage::default() };
        let (usage, cost, saved, amounts) = match *spent {
            Spent::Nothing if self.attempts == 0 => (none, Some(0), None, None),
            Spent::Nothing => {
                let usage = Usage { estimated: lost_tokens > 0, ..none };
                (usage, lost_pico, None, Some(Amounts { tokens: Some(lost_tokens), money: lost_pico }))
            }
            Spent::Used { usage, cost } => {
                let cost = with_lost(cost);
                let tokens = usage.total_tokens().map(|tokens| tokens.saturating_add(lost_tokens));
                (usage, cost, None, Some(Amounts { tokens, money: cost }))
            }
            Spent::Kept { saved } => (none, Some(0), saved, None),
            Spent::Unseen => (Usage::default(), None, None, Some(Amounts::default())),
        };
        if let Some(holds) = self.holds.take() {
            let answer = match *spent {
                Spent::Used { usage, cost } => Amounts { tokens: usage.total_tokens(), money: cost },
                Spent::Unseen => Amounts::default(),
                Spent::Nothing | Spent::Kept { .. } => Amounts::FREE,
            };
            let took = amounts.map(|all| Took { all, answer, model: &self.model_answered });
            self.warn(&holds.end(took.as_ref()));
        }
        self.is_estimated = matches!(spent, Spent::Used { .. }) && usage.estimated;
        self.cost = cost.filter(|_| !self.is_lost_here);
        if self.is_lost_here || matches!(spent, Spent::Unseen) && self.story.parts.local.is_some() {
            self.here = Some(ledger::Here::default());
        }
        self.record(status, error, usage, saved, matches!(spent, Spent::Kept { .. }));
    }

    fn record(&self, status: u16, error: &str, usage: Usage, saved_pico: Option<u64>, is_cached: bool) {
        let Self { story, who, .. } = self;
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let tried = self.tried.iter().map(|tried| Attempt {
            candidate: &tried.candidate,
            outcome: tried.outcome,
            status: tried.status,
            duration_us: us(tried.took),
        });
        let attempts: SmallVec<[Attempt<'_>; 8]> = tried.collect();
        let (total, overhead) = (story.now().saturating_sub(self.arrived), self.overhead());
        story.parts.ledger.record(&Record {
            time_ms: self.time_ms,
            day: story.parts.quota.day_of(self.time_ms),
            id: &self.id,
            tenant: who.tenant(),
            key: who.name(),
            team: who.team().unwrap_or(""),
            user: &self.user,
            dialect: self.dialect.name(),
            operation: self.operation.name(),
            route: self.route.as_ref().map_or("", Name::as_str),
            candidate: self.candidate.as_deref().unwrap_or(""),
            reason: &self.reason,
            model_asked: &self.model,
            model_answered: &self.model_answered,
            prompt: &self.prompt,
            link: self.link.as_str(),
            cache: self.cache,
            is_cached,
            error,
            attempts: &attempts,
            usage: ledger::Usage {
                input_tokens: usage.input_tokens,
                output_tokens: usage.output_tokens,
                cached_tokens: usage.cache_read_tokens,
                reasoning_tokens: usage.reasoning_tokens,
                estimated: usage.estimated,
            },
            cost_pico: self.cost,
            saved_pico,
            here: self.here,
            status,
            is_stream: self.is_stream,
            total_us: us(total),
            first_token_us: self.first.map(us),
            overhead_us: us(overhead),
        });
        story.parts.dialect_metrics.usage(self.dialect, &usage);
        story.parts.metrics.over(&Over {
            dialect: self.dialect,
            operation: self.operation,
            status,
            attempts: self.attempts,
            usage,
            cost_pico: self.cost,
            total_s: total.as_secs_f64(),
            overhead_s: overhead.as_secs_f64(),
            first_token_s: self.first.map(|first| first.as_secs_f64()),
            is_abandoned: status == LEFT,
        });
    }

    /// The caller left.
    pub(super) fn left(&mut self, spent: &Spent) {
        self.end(LEFT, "cancelled", spent);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A stream has ended its call before; this one was left while it waited.
        if !self.is_over {
            let spent = if self.is_pending { Spent::Unseen } else { Spent::Nothing };
            self.left(&spent);
        }
    }
}
