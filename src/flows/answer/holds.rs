//! What a call holds of limits: its caller's until it is over, and those of a model while that one is asked.

use smallvec::SmallVec;

use crate::access::Principal;
use crate::quota::{Amounts, Now, Quota, Rates, Refusal, Reservation, Subject, Warning};

/// What is held.
pub(super) struct Holds {
    /// Of the key, its tenant, team and user, and of the name that was asked for if that has limits of its own.
    caller: Reservation,
    /// What that name is; none: it has no limits of its own.
    asked: Option<String>,
    /// Of each model that is asked now: one, or two beside each other.
    models: SmallVec<[OfModel; 2]>,
}

struct OfModel {
    model: String,
    held: Reservation,
    /// It was asked, which may have cost something.
    was_asked: bool,
    /// What it may have cost without an answer.
    lost: Amounts,
}

/// What there is to settle: what the call took in all, and what of it the answer of `model` took.
pub(super) struct Took<'a> {
    pub(super) all: Amounts,
    pub(super) answer: Amounts,
    pub(super) model: &'a str,
}

fn of_model(model: &str) -> Subject<'_> {
    Subject::new("model", model)
}

fn sum(one: Amounts, other: Amounts) -> Amounts {
    let both = |one: Option<u64>, other: Option<u64>| Some(one?.saturating_add(other?));
    Amounts { tokens: both(one.tokens, other.tokens), money: both(one.money, other.money) }
}

impl Holds {
    /// Admits a call of `who` that asked for `asked` and is going to `model`: all limits or none.
    pub(super) fn new(
        quota: &Quota,
        who: &Principal,
        asked: &str,
        model: &str,
        amounts: Amounts,
        now: Now,
    ) -> Result<Self, Box<Refusal>> {
        let asked = Some(asked).filter(|asked| quota.has_its_own(of_model(asked)));
        let mut subjects: SmallVec<[Subject<'_>; 6]> = SmallVec::new();
        subjects.push(Subject::new("key", who.name()));
        subjects.push(Subject::new("tenant", who.tenant()));
        subjects.extend(who.team().map(|team| Subject::new("team", team)));
        subjects.extend(who.user().map(|user| Subject::new("user", user)));
        subjects.extend(asked.map(of_model));
        subjects.push(of_model(model));
        let mut caller = quota.reserve(&subjects, amounts, now)?;
        let mut models = SmallVec::new();
        if asked != Some(model) {
            models.push(OfModel::new(model, caller.split(of_model(model))));
        }
        Ok(Self { caller, asked: asked.map(str::to_owned), models })
    }

    /// The rates that the call met first.
    pub(super) fn rates(&self) -> Rates {
        self.caller.rates()
    }

    /// The call goes on with `model`, for `amounts` in all. Who was asked before is over.
    pub(super) fn move_to(&mut self, model: &str, amounts: Amounts, now: Now) -> Result<Vec<Warning>, Box<Refusal>> {
        self.hold(model, amounts, amounts, now)?;
        let mut warnings = Vec::new();
        while let Some(at) = self.models.iter().position(|other| other.model != model) {
            warnings.extend(self.models.swap_remove(at).over());
        }
        Ok(warnings)
    }

    /// `model` is asked beside who is asked already.
    pub(super) fn add(&mut self, model: &str, amounts: Amounts, now: Now) -> Result<(), Box<Refusal>> {
        let had = self.models.iter().find(|one| one.model == model).map_or(Amounts::FREE, |one| one.held.reserved());
        self.hold(model, sum(self.caller.reserved(), amounts), sum(had, amounts), now)
    }

    fn hold(&mut self, model: &str, all: Amounts, own: Amounts, now: Now) -> Result<(), Box<Refusal>> {
        if self.asked.as_deref() == Some(model) {
            return self.caller.raise(all, now);
        }
        if let Some(one) = self.models.iter_mut().find(|one| one.model == model) {
            one.held.raise(own, now)?;
            return self.caller.raise(all, now);
        }
        let held = self.caller.raise_beside(all, of_model(model), own, now)?;
        self.models.push(OfModel::new(model, held));
        Ok(())
    }

    /// `model` is asked.
    pub(super) fn asks(&mut self, model: &str) {
        self.models.iter_mut().filter(|one| one.model == model).for_each(|one| one.was_asked = true);
    }

    /// `model` gave no answer and may bill this all the same.
    pub(super) fn lost(&mut self, model: &str, amounts: Amounts) {
        for one in self.models.iter_mut().filter(|one| one.model == model) {
            one.lost = sum(one.lost, amounts);
        }
    }

    /// The call is over. None: nobody was asked, and everything is given back.
    pub(super) fn end(self, took: Option<&Took<'_>>) -> Vec<Warning> {
        let Some(took) = took else {
            self.models.into_iter().for_each(|one| one.held.refund());
            self.caller.refund();
            return Vec::new();
        };
        let mut warnings = self.caller.settle(took.all);
        for one in self.models {
            let answered = one.model == took.model;
            warnings.extend(if answered { one.settle(took.answer) } else { one.last(took) });
        }
        warnings
    }
}

impl OfModel {
    fn new(model: &str, held: Reservation) -> Self {
        Self { model: model.to_owned(), held, was_asked: false, lost: Amounts::FREE }
    }

    fn settle(self, answer: Amounts) -> Vec<Warning> {
        self.held.settle(sum(answer, self.lost))
    }

    /// Another one is asked in its place: what it may have cost is counted, and a request that cost nothing is none.
    fn over(self) -> Vec<Warning> {
        if self.was_asked && self.lost != Amounts::FREE {
            return self.settle(Amounts::FREE);
        }
        self.held.refund();
        Vec::new()
    }

    /// It is the last that was asked, or one of two.
    fn last(self, took: &Took<'_>) -> Vec<Warning> {
        if !self.was_asked {
            self.held.refund();
            return Vec::new();
        }
        if took.model.is_empty() { self.settle(took.answer) } else { self.over() }
    }
}
