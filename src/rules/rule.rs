//! The state machine of one alert.

use serde::{Deserialize, Serialize};

use super::config::{Config, Error, Severity};

/// One alert that can be raised and cleared.
#[derive(Debug, Clone)]
pub struct Rule {
    config: Config,
    state: RuleState,
}

/// Where a rule stands after a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// No alert.
    Normal,
    /// No alert yet: scores are bad, not for long enough.
    Pending,
    /// The alert is open.
    Alarm,
    /// The alert is open: scores are good, not for long enough.
    Clearing,
    /// This reading has no score. An alert stays as it is; [`Verdict::is_open`] tells.
    Unscored,
}

impl State {
    /// The word used in topics, rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Pending => "pending",
            Self::Alarm => "alarm",
            Self::Clearing => "clearing",
            Self::Unscored => "unscored",
        }
    }
}

/// What a reading changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The alert is open from now on.
    Raised,
    /// The alert is over.
    Cleared,
    /// The open alert got worse.
    Escalated,
    /// The open alert was suppressed so far and is not any more: tell it now.
    Released,
}

impl Transition {
    /// The word used in topics, rows and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Raised => "raised",
            Self::Cleared => "cleared",
            Self::Escalated => "escalated",
            Self::Released => "released",
        }
    }
}

/// What a rule says about one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Where the rule stands.
    pub state: State,
    /// What changed, if anything.
    pub transition: Option<Transition>,
    /// Of the open alert or the one just cleared; else the rule's own.
    pub severity: Severity,
    /// Record it, tell nobody: the alert fell into a quiet period or came too soon after another.
    pub suppressed: bool,
    /// Since when the alert is (or, when cleared, was) open; ms of source time.
    pub raised_ms: Option<i64>,
}

impl Verdict {
    /// True while an alert is open, whatever this reading was.
    pub fn is_open(&self) -> bool {
        self.raised_ms.is_some() && self.transition != Some(Transition::Cleared)
    }
}

/// What a rule knows. About 60 bytes in CBOR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RuleState {
    alert: Option<Alert>,
    /// Scores in a row that speak for a change.
    streak: u32,
    /// When that row began.
    streak_ms: Option<i64>,
    /// When an alert was last told.
    told_ms: Option<i64>,
}

/// An open alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Alert {
    raised_ms: i64,
    severity: Severity,
    told: bool,
}

impl RuleState {
    /// One more score in the row; true if the row is long enough in number and in time. A clock that was set back
    /// starts the time anew, not the number.
    fn count(&mut self, now_ms: i64, after: u32, hold_ms: u64) -> bool {
        self.streak = self.streak.saturating_add(1);
        let since_ms = self.streak_ms.filter(|&since_ms| since_ms <= now_ms).unwrap_or(now_ms);
        self.streak_ms = Some(since_ms);
        self.streak >= after && now_ms.abs_diff(since_ms) >= hold_ms
    }

    fn break_streak(&mut self) {
        self.streak = 0;
        self.streak_ms = None;
    }
}

impl Rule {
    /// A rule without an alert.
    ///
    /// # Errors
    /// A setting that makes no sense.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        Ok(Self { config, state: RuleState::default() })
    }

    /// Takes one score. `None` and NaN are no score: they neither count for nor break a row; infinities are scores.
    /// `now_ms` is the reading's source time, ms since 1970.
    pub fn apply(&mut self, score: Option<f64>, now_ms: i64) -> Verdict {
        let score = score.filter(|score| !score.is_nan());
        match self.state.alert {
            None => self.watch(score, now_ms),
            Some(alert) => self.follow(alert, score, now_ms),
        }
    }

    fn watch(&mut self, score: Option<f64>, now_ms: i64) -> Verdict {
        let quietly = |state| Verdict {
            state,
            transition: None,
            severity: self.config.severity,
            suppressed: false,
            raised_ms: None,
        };
        let Some(score) = score else { return quietly(State::Unscored) };
        if !self.config.raise.is_some_and(|raise| self.config.is_beyond(score, raise)) {
            self.state.break_streak();
            return quietly(State::Normal);
        }
        if !self.state.count(now_ms, self.config.raise_after, self.config.raise_hold_ms) {
            return quietly(State::Pending);
        }
        let severity = self.config.severity_of(score);
        let told = !self.is_suppressed(now_ms);
        self.state.alert = Some(Alert { raised_ms: now_ms, severity, told });
        if told {
            self.state.told_ms = Some(now_ms);
        }
        self.state.break_streak();
        Verdict {
            state: State::Alarm,
            transition: Some(Transition::Raised),
            severity,
            suppressed: !told,
            raised_ms: Some(now_ms),
        }
    }

    fn follow(&mut self, mut alert: Alert, score: Option<f64>, now_ms: i64) -> Verdict {
        let clear = self.config.clear.or(self.config.raise);
        let state = match score {
            None => State::Unscored,
            // A rule whose `raise` was taken away closes what it left open.
            Some(score) if clear.is_none_or(|clear| !self.config.is_beyond(score, clear)) => {
                if self.state.count(now_ms, self.config.clear_after, self.config.clear_hold_ms) {
                    self.state.break_streak();
                    self.state.alert = None;
                    return Verdict {
                        state: State::Normal,
                        transition: Some(Transition::Cleared),
                        severity: alert.severity,
                        suppressed: !alert.told,
                        raised_ms: Some(alert.raised_ms),
                    };
                }
                State::Clearing
            }
            Some(_) => {
                self.state.break_streak();
                State::Alarm
            }
        };
        let by_score = score.map_or(alert.severity, |score| self.config.severity_of(score));
        let by_time = self
            .config
            .escalate
            .filter(|escalate| now_ms >= alert.raised_ms && now_ms.abs_diff(alert.raised_ms) >= escalate.after_ms);
        let severity = alert.severity.max(by_score).max(by_time.map_or(Severity::Info, |escalate| escalate.severity));
        let worse = severity > alert.severity;
        let silent = self.is_quiet(now_ms);
        // What is worse than what was told is told at once; what was held back, as soon as it may be.
        let release = !alert.told && !self.is_suppressed(now_ms);
        let transition = if worse {
            Some(Transition::Escalated)
        } else if release {
            Some(Transition::Released)
        } else {
            None
        };
        let suppressed = match transition {
            Some(Transition::Escalated) => silent,
            _ => !(alert.told || release),
        };
        alert.severity = severity;
        if transition.is_some() && !suppressed {
            alert.told = true;
            self.state.told_ms = Some(now_ms);
        }
        self.state.alert = Some(alert);
        Verdict { state, transition, severity, suppressed, raised_ms: Some(alert.raised_ms) }
    }

    fn is_quiet(&self, now_ms: i64) -> bool {
        self.config.quiet.iter().any(|quiet| quiet.holds(now_ms))
    }

    fn is_suppressed(&self, now_ms: i64) -> bool {
        let too_soon = |told_ms: i64| now_ms >= told_ms && now_ms.abs_diff(told_ms) < self.config.min_interval_ms;
        self.is_quiet(now_ms) || self.state.told_ms.is_some_and(too_soon)
    }

    /// What must be kept to go on after a restart.
    pub fn save(&self) -> RuleState {
        self.state
    }

    /// Goes on from a saved state. An alert that was open stays open, under the settings of now.
    pub fn restore(&mut self, state: RuleState) {
        self.state = state;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(text: &str) -> Rule {
        Rule::new(toml::from_str(text).unwrap()).unwrap()
    }

    /// Applies scores one second apart.
    fn run(rule: &mut Rule, scores: &[f64]) -> Vec<State> {
        scores.iter().enumerate().map(|(at, &score)| rule.apply(Some(score), at as i64 * 1000).state).collect()
    }

    fn transitions(rule: &mut Rule, scores: &[(i64, f64)]) -> Vec<(i64, Transition, bool)> {
        let verdicts = scores.iter().map(|&(now_ms, score)| (now_ms, rule.apply(Some(score), now_ms)));
        verdicts.filter_map(|(now_ms, verdict)| Some((now_ms, verdict.transition?, verdict.suppressed))).collect()
    }

    #[test]
    fn alert_opens_above_raise_and_closes_at_clear_with_hysteresis_between() {
        use State::{Alarm, Normal};
        let mut rule = rule("raise=2\nclear=1");
        let found = run(&mut rule, &[2.0, 2.1, 1.5, 3.0, 1.1, 1.0, 1.5, 2.0]);
        assert_eq!(found, [Normal, Alarm, Alarm, Alarm, Alarm, Normal, Normal, Normal]);
    }

    #[test]
    fn below_is_the_mirror_of_above() {
        use State::{Alarm, Normal};
        let mut rule = rule("raise=2\nclear=3\ndirection='below'");
        assert_eq!(run(&mut rule, &[2.0, 1.9, 2.5, 3.0, 2.5]), [Normal, Alarm, Alarm, Normal, Normal]);
    }

    #[test]
    fn alert_opens_only_after_enough_readings_in_a_row() {
        use State::{Alarm, Normal, Pending};
        let mut rule = rule("raise=2\nraise_after=3");
        let found = run(&mut rule, &[3.0, 3.0, 1.0, 3.0, 3.0, 3.0]);
        assert_eq!(found, [Pending, Pending, Normal, Pending, Pending, Alarm]);
    }

    #[test]
    fn alert_clears_only_after_hold_time() {
        use State::{Alarm, Clearing, Normal};
        let mut rule = rule("raise=2\nclear=1\nclear_hold_ms=2000\nclear_after=2");
        let found = run(&mut rule, &[3.0, 0.0, 0.0, 1.5, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(found, [Alarm, Clearing, Clearing, Alarm, Clearing, Clearing, Normal, Normal]);
    }

    #[test]
    fn hold_time_is_the_sources_and_survives_a_clock_that_is_set_back() {
        let mut rule = rule("raise=2\nraise_hold_ms=5000");
        assert_eq!(rule.apply(Some(3.0), 100_000).state, State::Pending);
        assert_eq!(rule.apply(Some(3.0), 1_000).state, State::Pending, "the clock was set: time starts anew");
        assert_eq!(rule.apply(Some(3.0), 5_999).state, State::Pending);
        assert_eq!(rule.apply(Some(3.0), 6_000).state, State::Alarm);
    }

    #[test]
    fn a_reading_without_score_neither_counts_nor_breaks() {
        let mut rule = rule("raise=2\nraise_after=2\nclear_after=2");
        rule.apply(Some(3.0), 0);
        for score in [None, Some(f64::NAN)] {
            let verdict = rule.apply(score, 1);
            assert_eq!((verdict.state, verdict.is_open()), (State::Unscored, false));
        }
        assert_eq!(rule.apply(Some(f64::INFINITY), 2).transition, Some(Transition::Raised));
        let verdict = rule.apply(None, 3);
        assert_eq!((verdict.state, verdict.is_open(), verdict.raised_ms), (State::Unscored, true, Some(2)));
        rule.apply(Some(f64::NEG_INFINITY), 4);
        rule.apply(None, 5);
        let cleared = rule.apply(Some(0.0), 6);
        assert_eq!(
            (cleared.transition, cleared.raised_ms, cleared.is_open()),
            (Some(Transition::Cleared), Some(2), false)
        );
    }

    #[test]
    fn worse_scores_and_time_escalate_and_better_ones_do_not_lower() {
        let mut rule = rule(
            "raise=2\nclear=1\nseverity='info'\nlevels=[{beyond=4,severity='critical'},{beyond=3,severity='warning'}]",
        );
        let severities: Vec<_> = [2.5, 3.5, 2.5, 5.0, 2.5].iter().map(|&score| rule.apply(Some(score), 0)).collect();
        use Severity::{Critical, Info, Warning};
        assert_eq!(
            severities.iter().map(|verdict| verdict.severity).collect::<Vec<_>>(),
            [Info, Warning, Warning, Critical, Critical]
        );
        let escalated = severities.iter().map(|verdict| verdict.transition == Some(Transition::Escalated));
        assert_eq!(escalated.collect::<Vec<_>>(), [false, true, false, true, false]);
        let mut slow = self::rule("raise=2\nescalate={after_ms=1000,severity='critical'}");
        slow.apply(Some(3.0), 0);
        assert_eq!(slow.apply(Some(3.0), 999).transition, None);
        let late = slow.apply(None, 1000);
        assert_eq!((late.transition, late.severity), (Some(Transition::Escalated), Critical));
        assert_eq!(slow.apply(Some(3.0), 2000).transition, None);
    }

    #[test]
    fn quiet_alerts_are_recorded_and_told_when_the_quiet_ends() {
        let minute = 60_000;
        let mut rule = rule("raise=2\nquiet=[{from='00:00',to='01:00'}]");
        use Transition::{Cleared, Raised, Released};
        let scores = [(1, 3.0), (2, 0.0), (3, 3.0), (59, 3.0), (60, 3.0), (61, 3.0), (62, 0.0)];
        let scores = scores.map(|(at, score)| (at * minute, score));
        let found = transitions(&mut rule, &scores);
        let expected =
            [(1, Raised, true), (2, Cleared, true), (3, Raised, true), (60, Released, false), (62, Cleared, false)];
        assert_eq!(found, expected.map(|(at, transition, suppressed)| (at * minute, transition, suppressed)));
    }

    #[test]
    fn alerts_too_soon_after_another_are_suppressed_until_the_interval_has_passed() {
        use Transition::{Cleared, Raised, Released};
        let mut rule = rule("raise=2\nmin_interval_ms=100");
        let found = transitions(
            &mut rule,
            &[(0, 3.0), (10, 0.0), (20, 3.0), (30, 0.0), (40, 3.0), (100, 3.0), (150, 0.0), (210, 3.0)],
        );
        let expected = [
            (0, Raised, false),
            (10, Cleared, false),
            (20, Raised, true),
            (30, Cleared, true),
            (40, Raised, true),
            (100, Released, false),
            (150, Cleared, false),
            (210, Raised, false),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_rule_without_threshold_never_raises() {
        let mut rule = rule("");
        assert_eq!(rule.apply(Some(f64::INFINITY), 0).state, State::Normal);
    }

    #[test]
    fn state_is_small() {
        let mut rule = rule("raise=2\nclear=1\nclear_after=9");
        rule.apply(Some(3.0), 1_767_225_600_000);
        rule.apply(Some(0.0), 1_767_225_660_000);
        let mut bytes = Vec::new();
        ciborium::into_writer(&rule.save(), &mut bytes).unwrap();
        assert!(bytes.len() < 110, "{}", bytes.len());
    }

    prop_compose! {
        fn settings()(
            raise_after in 1_u32..5, clear_after in 1_u32..5, raise_hold_ms in 0_u64..50, clear_hold_ms in 0_u64..50,
            gap in 0.0..2.0_f64, min_interval_ms in 0_u64..100, quiet in any::<bool>(), escalate in any::<bool>(),
        ) -> Config {
            let quiet = if quiet { "quiet=[{from='00:00',to='00:01'}]" } else { "" };
            let escalate = if escalate { "escalate={after_ms=60,severity='critical'}" } else { "" };
            toml::from_str(&format!(
                "raise=5.0\nclear={}\nraise_after={raise_after}\nclear_after={clear_after}\nraise_hold_ms={raise_hold_ms}\n\
                 clear_hold_ms={clear_hold_ms}\nmin_interval_ms={min_interval_ms}\n\
                 levels=[{{beyond=8.0,severity='critical'}}]\n{quiet}\n{escalate}",
                5.0 - gap
            )).unwrap()
        }
    }

    fn scores() -> impl Strategy<Value = Vec<(Option<f64>, i64)>> {
        let score = prop_oneof![8 => (0.0..10.0_f64).prop_map(Some), 1 => Just(None), 1 => Just(Some(f64::NAN))];
        proptest::collection::vec((score, 0_i64..40), 1..150).prop_map(|steps| {
            let mut now_ms = 59_000;
            let step = |(score, ms)| {
                now_ms += ms;
                (score, now_ms)
            };
            steps.into_iter().map(step).collect()
        })
    }

    proptest! {
        #[test]
        fn raised_and_cleared_alternate_and_each_had_its_readings_and_its_time(config in settings(), scores in scores()) {
            let mut rule = Rule::new(config.clone()).unwrap();
            let (mut is_open, mut told) = (false, false);
            let mut history: Vec<(f64, i64)> = Vec::new();
            // The row may begin only after the last change.
            let mut changed = 0;
            for (score, now_ms) in scores {
                let verdict = rule.apply(score, now_ms);
                let real = score.filter(|score| !score.is_nan());
                history.extend(real.map(|score| (score, now_ms)));
                let row = |bad: &dyn Fn(f64) -> bool| {
                    let row: Vec<_> = history[changed..].iter().rev().take_while(|(score, _)| bad(*score)).collect();
                    (row.len() as u32, row.last().map_or(0, |(_, first_ms)| (now_ms - first_ms) as u64))
                };
                match verdict.transition {
                    Some(Transition::Raised) => {
                        prop_assert!(!is_open);
                        let (length, held_ms) = row(&|score| score > 5.0);
                        prop_assert!(length >= config.raise_after && held_ms >= config.raise_hold_ms);
                        (is_open, told, changed) = (true, !verdict.suppressed, history.len());
                    }
                    Some(Transition::Cleared) => {
                        prop_assert!(is_open);
                        let clear = config.clear.unwrap();
                        let (length, held_ms) = row(&|score| score <= clear);
                        prop_assert!(length >= config.clear_after && held_ms >= config.clear_hold_ms);
                        prop_assert_eq!(verdict.suppressed, !told, "who was told of it hears that it is over");
                        (is_open, changed) = (false, history.len());
                    }
                    Some(Transition::Escalated) => {
                        prop_assert!(is_open && verdict.severity == Severity::Critical);
                        told |= !verdict.suppressed;
                    }
                    Some(Transition::Released) => {
                        prop_assert!(is_open && !told && !verdict.suppressed);
                        told = true;
                    }
                    None if is_open && real.is_some() => {
                        let clear = config.clear.unwrap();
                        let (length, held_ms) = row(&|score| score <= clear);
                        prop_assert!(length < config.clear_after || held_ms < config.clear_hold_ms, "should have cleared");
                    }
                    None if real.is_some() => {
                        let (length, held_ms) = row(&|score| score > 5.0);
                        prop_assert!(length < config.raise_after || held_ms < config.raise_hold_ms, "should have raised");
                    }
                    None => {}
                }
                prop_assert_eq!(verdict.is_open(), is_open);
                prop_assert_eq!(verdict.state == State::Unscored, real.is_none());
            }
        }

        #[test]
        fn a_rule_killed_anywhere_goes_on_where_it_was(config in settings(), scores in scores(), cut in 0_usize..150) {
            let mut whole = Rule::new(config.clone()).unwrap();
            let mut part = Rule::new(config.clone()).unwrap();
            for (at, (score, now_ms)) in scores.into_iter().enumerate() {
                if at == cut {
                    let bytes = serde_json::to_vec(&part.save()).unwrap();
                    part = Rule::new(config.clone()).unwrap();
                    part.restore(serde_json::from_slice(&bytes).unwrap());
                }
                prop_assert_eq!(whole.apply(score, now_ms), part.apply(score, now_ms));
            }
        }

        #[test]
        fn any_score_at_any_time_is_judged_without_panic(
            config in settings(), scores in proptest::collection::vec((any::<Option<f64>>(), any::<i64>()), 0..50),
        ) {
            let mut rule = Rule::new(config).unwrap();
            for (score, now_ms) in scores {
                rule.apply(score, now_ms);
            }
        }
    }
}
