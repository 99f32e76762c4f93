//! What one stream knows: what it has let in, its windows, its rule. Pure; the task around it brings scores and rows.

use serde::{Deserialize, Serialize};

use super::config::{Config, RuleOn};
use super::scorer::Score;
use crate::flows::summary::Extra;
use crate::history;
use crate::rules::{self, Rule, State};
use crate::signal::{self, Admission, Features, Id, Intake, IntakeState, Reading, Sample, Window, WindowState};

/// One reading on its way to a verdict.
#[derive(Debug)]
pub(super) struct Admitted {
    pub reading: Reading,
    /// The source's identity of it.
    pub id: Option<Id>,
    /// Features of the newest window that this reading completed, if it completed one.
    pub features: Option<Vec<f32>>,
}

/// A reading's verdict.
#[derive(Debug)]
pub(super) struct Judged {
    /// The rule's word, or `unscored` without one.
    pub state: State,
    pub verdict: Option<rules::Verdict>,
    /// The number that the rule looked at.
    pub looked_at: Option<f64>,
}

pub(super) struct Judge {
    intake: Intake,
    window: Window,
    features: Features,
    rule: Option<Rule>,
    rule_on: RuleOn,
    /// Where the rule stands between two windows.
    state: State,
}

/// What must survive a restart beside the newest readings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Memory {
    intake: IntakeState,
    window: WindowState,
    rule: Option<rules::RuleState>,
}

impl Judge {
    /// `rule` is the configured one with a model's thresholds filled in; `rule_on` what it looks at.
    pub(super) fn new(config: &Config, rule: Option<Rule>, rule_on: RuleOn) -> Result<Self, signal::Error> {
        Ok(Self {
            intake: Intake::new(&config.signal)?,
            window: Window::new(&config.signal)?,
            features: Features::new(&config.signal)?,
            rule,
            rule_on,
            state: State::Unscored,
        })
    }

    /// How many of the newest readings [`restore`](Self::restore) needs beside the memory.
    pub(super) fn capacity(&self) -> usize {
        self.window.capacity()
    }

    /// Lets a sample in, or says why not.
    pub(super) fn admit(&mut self, sample: Sample, arrival_ms: i64) -> (Admission, Option<Admitted>) {
        let id = sample.id.clone();
        let admission = self.intake.admit(sample, arrival_ms);
        let Admission::Accepted(reading) = &admission else { return (admission, None) };
        let reading = reading.clone();
        let mut features = None;
        if let Some(view) = self.window.push(&reading).last() {
            let mut numbers = Vec::new();
            self.features.compute(&view, &mut numbers);
            features = Some(numbers);
        }
        (admission, Some(Admitted { reading, id, features }))
    }

    /// The verdict on an admitted reading. `window` is true if it completed a window.
    pub(super) fn judge(&mut self, reading: &Reading, score: Option<Score>, window: bool) -> Judged {
        let score = score.map(|score| score.score);
        let value = reading.values.first().copied().filter(|value| value.is_finite());
        let (looked_at, due) = match self.rule_on {
            RuleOn::Score => (score, window),
            RuleOn::Value => (value, true),
        };
        let verdict = match &mut self.rule {
            Some(rule) if due => Some(rule.apply(looked_at, reading.time_ms)),
            _ => None,
        };
        if let Some(verdict) = &verdict {
            self.state = verdict.state;
        }
        let state = self.state;
        Judged { state, verdict, looked_at }
    }

    pub(super) fn save(&self) -> Memory {
        Memory { intake: self.intake.save(), window: self.window.save(), rule: self.rule.as_ref().map(Rule::save) }
    }

    /// Goes on from a saved memory: `before` are the readings up to it, `after` those that came later and are judged
    /// again with the scores they had, so that windows, known identities and the rule stand where they stood.
    pub(super) fn restore(&mut self, memory: Memory, before: &[history::Reading], after: &[history::Reading]) {
        self.intake.restore(memory.intake);
        self.window.restore(memory.window, before.iter().map(as_reading));
        if let (Some(rule), Some(saved)) = (&mut self.rule, memory.rule) {
            rule.restore(saved);
        }
        self.judge_again(after);
    }

    /// Judges readings again with the scores they had.
    pub(super) fn judge_again(&mut self, readings: &[history::Reading]) {
        for old in readings {
            let (_, admitted) = self.admit(as_sample(old), old.time_ms);
            if let Some(Admitted { reading, features, .. }) = admitted {
                let score = old.score.map(|score| Score { score, expected: None });
                self.judge(&reading, score, features.is_some());
            }
        }
    }
}

/// A reading as it was let in.
pub(super) fn as_reading(old: &history::Reading) -> Reading {
    let extra = Extra::read(old.extra.as_deref());
    Reading {
        time_ms: old.time_ms,
        arrival_ms: old.time_ms,
        values: old.values.iter().copied().collect(),
        notes: extra.notes,
        gap: extra.gap(),
    }
}

fn as_sample(old: &history::Reading) -> Sample {
    let mut sample = Sample::empty(old.values.len());
    sample.values = old.values.iter().copied().collect();
    sample.missing = 0;
    sample.time_ms = Some(old.time_ms);
    sample.id = old.id.as_deref().and_then(read_id);
    sample
}

/// An identity as a row of history keeps it: JSON, because the number 17 and the text "17" are two.
pub(super) fn write_id(id: &Id) -> String {
    serde_json::to_string(id).expect("a number or a text is JSON")
}

fn read_id(text: &str) -> Option<Id> {
    serde_json::from_str(text).ok()
}

/// An identity as people and the cloud read it.
pub(super) fn show_id(id: &Id) -> String {
    match id {
        Id::Number(number) => number.to_string(),
        Id::Text(text) => text.to_string(),
    }
}
