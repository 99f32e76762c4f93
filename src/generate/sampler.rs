//! Which token is next: the model's scores, what the request says of them, and chance, which is the request's seed.
//!
//! In this order, as Hugging Face's library and vLLM have it: `logit_bias`; penalties (`repetition`: Keskar and others, 2019, arXiv
//! 1909.05858; `frequency` and `presence` as in OpenAI's API); temperature; the best `top_k`; the fewest with a probability of `top_p`
//! together (Holtzman and others, 2020, arXiv 1904.09751); those with at least `min_p` times the best one's (arXiv 2407.01082).

use std::collections::{BTreeMap, BTreeSet};

use super::error::Error;
use super::sampling::Sampling;

/// Of the best tokens so many are asked whether they may stand here, and all only if none of them may.
const ASKED: usize = 256;

/// A token that was chosen.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Picked {
    pub(super) token: u32,
    /// The natural logarithm of its probability by the model's own scores, and the best alternatives'; where it was asked for.
    pub(super) logprob: Option<(f32, Vec<(u32, f32)>)>,
}

/// Chooses the tokens of one answer.
pub(super) struct Sampler {
    settings: Sampling,
    chance: Chance,
    /// How often each token stands in the answer.
    counts: BTreeMap<u32, u32>,
    /// Those of prompt and answer, where they are asked for.
    seen: BTreeSet<u32>,
    /// Scores that were changed, and the tokens that are left: kept, so that a token costs no allocation.
    scores: Vec<f32>,
    left: Vec<u32>,
    odds: Vec<f64>,
}

impl Sampler {
    /// # Errors
    /// [`Error::Request`] names the setting that is out of bounds.
    pub(super) fn new(settings: Sampling, vocabulary: usize, prompt: &[u32]) -> Result<Self, Error> {
        settings.check(vocabulary)?;
        let repeats = settings.repetition_penalty != 1.0;
        Ok(Self {
            chance: Chance(settings.seed),
            counts: BTreeMap::new(),
            seen: prompt.iter().copied().filter(|_| repeats).collect(),
            settings,
            scores: Vec::new(),
            left: Vec::new(),
            odds: Vec::new(),
        })
    }

    /// Chooses by the scores of what comes next. `may` says which tokens may stand here, if not all may.
    ///
    /// # Errors
    /// [`Error::Scores`] if the scores are none, [`Error::Corner`] if no token may stand here.
    pub(super) fn pick(&mut self, scores: &[f32], may: Option<&dyn Fn(u32) -> bool>) -> Result<Picked, Error> {
        if scores.iter().any(|score| score.is_nan() || *score == f32::INFINITY) {
            return Err(Error::Scores("the scores are not finite".to_owned()));
        }
        self.adjust(scores);
        let token = if self.settings.temperature == 0.0 { self.best(may) } else { self.drawn(may) };
        let token = token.ok_or(Error::Corner)?;
        *self.counts.entry(token).or_default() += 1;
        if self.settings.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
        let logprob = self.settings.logprobs.map(|count| logprobs(scores, token, usize::from(count)));
        Ok(Picked { token, logprob })
    }

    fn adjust(&mut self, scores: &[f32]) {
        self.scores.clear();
        self.scores.extend_from_slice(scores);
        for &(token, bias) in &self.settings.logit_bias {
            if let Some(score) = self.scores.get_mut(token as usize) {
                *score = if bias <= -100.0 { f32::NEG_INFINITY } else { *score + bias };
            }
        }
        let Sampling { repetition_penalty, frequency_penalty, presence_penalty, .. } = self.settings;
        for &token in &self.seen {
            if let Some(score) = self.scores.get_mut(token as usize) {
                *score = if *score > 0.0 { *score / repetition_penalty } else { *score * repetition_penalty };
            }
        }
        if frequency_penalty != 0.0 || presence_penalty != 0.0 {
            for (&token, &count) in &self.counts {
                if let Some(score) = self.scores.get_mut(token as usize) {
                    *score -= frequency_penalty * count as f32 + presence_penalty;
                }
            }
        }
    }

    /// All tokens that have a chance.
    fn fill(&mut self) {
        let scores = &self.scores;
        self.left.clear();
        self.left.extend((0..scores.len() as u32).filter(|&token| scores[token as usize] > f32::NEG_INFINITY));
    }

    /// Leaves the best `count`, the best first; of equal ones the first is better.
    fn keep_best(&mut self, count: usize) {
        let scores = &self.scores;
        let order = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
        if count < self.left.len() {
            self.left.select_nth_unstable_by(count, order);
            self.left.truncate(count);
        }
        self.left.sort_unstable_by(order);
    }

    /// Leaves those that may stand here, the best first. Asked are the best ones, and all if none of those may.
    fn keep_allowed(&mut self, may: &dyn Fn(u32) -> bool) {
        self.fill();
        self.keep_best(ASKED);
        self.left.retain(|&token| may(token));
        if self.left.is_empty() {
            self.fill();
            self.left.retain(|&token| may(token));
            self.keep_best(usize::MAX);
        }
    }

    fn best(&mut self, may: Option<&dyn Fn(u32) -> bool>) -> Option<u32> {
        if let Some(may) = may {
            self.keep_allowed(may);
            return self.left.first().copied();
        }
        let mut best: Option<(u32, f32)> = None;
        for (token, &score) in (0..).zip(&self.scores) {
            if score > best.map_or(f32::NEG_INFINITY, |(_, score)| score) {
                best = Some((token, score));
            }
        }
        best.map(|(token, _)| token)
    }

    fn drawn(&mut self, may: Option<&dyn Fn(u32) -> bool>) -> Option<u32> {
        self.narrow(may);
        let total: f64 = self.odds.iter().sum();
        let mut place = self.chance.next() * total;
        let drawn = self.odds.iter().position(|odds| {
            place -= odds;
            place < 0.0
        });
        // What rounding leaves over is the last one's.
        self.left.get(drawn.unwrap_or(self.odds.len().wrapping_sub(1))).copied()
    }

    /// Leaves the tokens that may be drawn, with their odds, which do not add up to 1.
    fn narrow(&mut self, may: Option<&dyn Fn(u32) -> bool>) {
        let Sampling { top_k, top_p, min_p, .. } = self.settings;
        let top_k = if top_k == 0 { usize::MAX } else { top_k as usize };
        match may {
            Some(may) => {
                self.keep_allowed(may);
                self.left.truncate(top_k);
            }
            None => {
                self.fill();
                if top_k < self.left.len() {
                    self.keep_best(top_k);
                }
            }
        }
        self.weigh();
        if top_p < 1.0 {
            self.keep_probable(f64::from(top_p));
        }
        if min_p > 0.0 {
            let least = f64::from(min_p) * self.odds.iter().copied().fold(0.0, f64::max);
            let odds = &self.odds;
            let mut at = 0;
            self.left.retain(|_| {
                at += 1;
                odds[at - 1] >= least
            });
            self.odds.retain(|&odds| odds >= least);
        }
    }

    fn weigh(&mut self) {
        let (scores, temperature) = (&self.scores, f64::from(self.settings.temperature));
        let score = |token: u32| f64::from(scores[token as usize]);
        let most = self.left.iter().map(|&token| score(token)).fold(f64::NEG_INFINITY, f64::max);
        self.odds.clear();
        self.odds.extend(self.left.iter().map(|&token| ((score(token) - most) / temperature).exp()));
    }

    /// The fewest that have `top_p` of all odds. A vocabulary is not sorted for the few that have nearly all of them.
    fn keep_probable(&mut self, top_p: f64) {
        let wanted = top_p * self.odds.iter().sum::<f64>();
        let whole = self.left.clone();
        let mut count = ASKED.min(whole.len());
        loop {
            self.keep_best(count);
            self.weigh();
            let mut sum = 0.0;
            let enough = self.odds.iter().position(|odds| {
                sum += odds;
                sum >= wanted
            });
            let kept = match enough {
                Some(at) => at + 1,
                None if count >= whole.len() => whole.len(),
                None => {
                    count = (count * 8).min(whole.len());
                    self.left.clone_from(&whole);
                    continue;
                }
            };
            self.left.truncate(kept);
            self.odds.truncate(kept);
            return;
        }
    }
}

fn logprobs(scores: &[f32], token: u32, count: usize) -> (f32, Vec<(u32, f32)>) {
    let most = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = scores.iter().map(|&score| f64::from(score - most).exp()).sum();
    let log = |token: u32| scores.get(token as usize).map_or(f32::NEG_INFINITY, |score| score - most - sum.ln() as f32);
    let mut best: Vec<u32> = (0..scores.len() as u32).collect();
    let order = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]).then(a.cmp(b));
    if count < best.len() {
        best.select_nth_unstable_by(count, order);
        best.truncate(count);
    }
    best.sort_unstable_by(order);
    (log(token), best.into_iter().map(|token| (token, log(token))).collect())
}

/// SplitMix64 (Steele and others, 2014): a seed's chances are the same on every build, which those of a crate may not be.
struct Chance(u64);

impl Chance {
    /// 0 to below 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::fixture::expected;

    fn sampler(settings: Sampling, prompt: &[u32]) -> Sampler {
        Sampler::new(settings, 1000, prompt).unwrap()
    }

    #[test]
    fn what_is_left_of_a_distribution_is_what_numpy_leaves() {
        for case in expected("sampled").as_array().unwrap() {
            let number = |field: &str| case[field].as_f64().unwrap() as f32;
            let floats = |field: &str| -> Vec<f64> { serde_json::from_value(case[field].clone()).unwrap() };
            let settings = Sampling {
                temperature: number("temperature"),
                top_k: case["top_k"].as_u64().unwrap() as u32,
                top_p: number("top_p"),
                min_p: number("min_p"),
                ..Sampling::default()
            };
            let logits: Vec<f32> = floats("logits").into_iter().map(|logit| logit as f32).collect();
            let mut sampler = sampler(settings, &[]);
            sampler.adjust(&logits);
            sampler.narrow(None);
            let total: f64 = sampler.odds.iter().sum();
            let mut given: Vec<(u32, f64)> =
                sampler.left.iter().copied().zip(sampler.odds.iter().map(|odds| odds / total)).collect();
            given.sort_by(|a, b| b.1.total_cmp(&a.1));
            let kept: Vec<u32> = serde_json::from_value(case["kept"].clone()).unwrap();
            assert_eq!(given.iter().map(|(token, _)| *token).collect::<Vec<_>>(), kept, "{case}");
            let near = |(given, expected): (&(u32, f64), f64)| (given.1 - expected).abs() < 1e-5;
            assert!(given.iter().zip(floats("odds")).all(near), "{given:?} {case}");
        }
    }

    #[test]
    fn a_large_vocabulary_is_narrowed_as_if_it_had_been_sorted() {
        let logits: Vec<f32> = (0..1000).map(|at| ((at * 7919 % 1000) as f32) / 900.0).collect();
        let mut sampler = sampler(Sampling { top_p: 0.7, ..Sampling::default() }, &[]);
        sampler.adjust(&logits);
        sampler.narrow(None);
        let mut sorted: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp()).collect();
        sorted.sort_by(|a, b| b.total_cmp(a));
        let total: f64 = sorted.iter().sum();
        let mut sum = 0.0;
        let expected = 1 + sorted
            .iter()
            .position(|odds| {
                sum += odds;
                sum >= 0.7 * total
            })
            .unwrap();
        assert_eq!(sampler.left.len(), expected);
    }

    #[test]
    fn tokens_are_drawn_as_often_as_they_are_probable_and_a_seed_draws_the_same() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let draw = |seed: u64, count: usize| -> Vec<u32> {
            let mut sampler = sampler(Sampling { seed, ..Sampling::default() }, &[]);
            (0..count).map(|_| sampler.pick(&logits, None).unwrap().token).collect()
        };
        let drawn = draw(3, 40_000);
        let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
        for (token, &logit) in (0..).zip(&logits) {
            let expected = f64::from(logit).exp() / total;
            let given = drawn.iter().filter(|&&drawn| drawn == token).count() as f64 / 40_000.0;
            assert!((given - expected).abs() < 0.01, "{token}: {given} {expected}");
        }
        assert_eq!(draw(7, 50), draw(7, 50));
        assert_ne!(draw(7, 50), draw(8, 50));
    }

    #[test]
    fn penalties_and_biases_change_what_is_best() {
        let greedy = Sampling { temperature: 0.0, ..Sampling::default() };
        let logits = [1.0, 0.9, -0.5];
        let order = |settings: Sampling, prompt: &[u32]| -> Vec<u32> {
            let mut sampler = sampler(settings, prompt);
            (0..4).map(|_| sampler.pick(&logits, None).unwrap().token).collect()
        };
        assert_eq!(order(greedy.clone(), &[]), [0, 0, 0, 0]);
        assert_eq!(order(Sampling { presence_penalty: 0.2, ..greedy.clone() }, &[]), [0, 1, 0, 0]);
        assert_eq!(order(Sampling { frequency_penalty: 0.15, ..greedy.clone() }, &[0]), [0, 1, 0, 1]);
        assert_eq!(order(Sampling { repetition_penalty: 1.2, ..greedy.clone() }, &[0]), [1, 0, 0, 0]);
        assert_eq!(order(Sampling { logit_bias: vec![(2, 10.0)], ..greedy.clone() }, &[]), [2, 2, 2, 2]);
        assert_eq!(order(Sampling { logit_bias: vec![(0, -100.0)], ..greedy }, &[]), [1, 1, 1, 1]);
    }

    #[test]
    fn only_what_may_stand_here_is_chosen_even_if_it_is_the_worst_of_all() {
        let logits: Vec<f32> = (0..1000).map(|at| -(at as f32)).collect();
        for temperature in [0.0, 1.0] {
            let mut sampler = sampler(Sampling { temperature, top_p: 0.5, top_k: 3, ..Sampling::default() }, &[]);
            assert_eq!(sampler.pick(&logits, Some(&|token| token == 999)).unwrap().token, 999);
            assert_eq!(sampler.pick(&logits, Some(&|token| token == 100)).unwrap().token, 100);
            assert!(sampler.pick(&logits, Some(&|_| false)).unwrap_err().to_string().contains("no token may stand"));
        }
    }

    #[test]
    fn probabilities_are_those_of_the_model_whatever_was_done_to_its_scores() {
        let settings =
            Sampling { temperature: 0.0, logprobs: Some(2), logit_bias: vec![(1, 50.0)], ..Sampling::default() };
        let picked = sampler(settings, &[]).pick(&[1.0, 0.0, 2.0], None).unwrap();
        let sum = (1_f32.exp() + 1.0 + 2_f32.exp()).ln();
        let (logprob, best) = picked.logprob.unwrap();
        assert_eq!(picked.token, 1);
        assert!((logprob + sum).abs() < 1e-6);
        assert_eq!(best.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [2, 0]);
        assert!((best[0].1 - (2.0 - sum)).abs() < 1e-6);
    }

    #[test]
    fn settings_out_of_bounds_and_scores_that_are_none_are_named() {
        let usual = Sampling::default;
        for (settings, says) in [
            (Sampling { temperature: -0.1, ..usual() }, "temperature: expected 0 to 2, given -0.1"),
            (Sampling { temperature: f32::NAN, ..usual() }, "temperature"),
            (Sampling { top_p: 0.0, ..usual() }, "top_p: expected over 0 to 1"),
            (Sampling { min_p: 1.1, ..usual() }, "min_p"),
            (Sampling { repetition_penalty: 0.0, ..usual() }, "repetition_penalty"),
            (Sampling { frequency_penalty: 3.0, ..usual() }, "frequency_penalty"),
            (Sampling { presence_penalty: f32::INFINITY, ..usual() }, "presence_penalty"),
            (Sampling { logprobs: Some(21), ..usual() }, "top_logprobs: expected 0 to 20, given 21"),
            (Sampling { logit_bias: vec![(1000, 0.0)], ..usual() }, "logit_bias: expected tokens of 0 to 999"),
            (Sampling { logit_bias: vec![(0, 0.0); 1025], ..usual() }, "logit_bias: expected at most 1024"),
        ] {
            let error = Sampler::new(settings, 1000, &[]).err().unwrap().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(sampler(usual(), &[]).pick(&[0.0, bad], None).is_err());
        }
    }
}
