//! The decoder: tokens in, scores of the next token out, with what it read before in a cache.
//!
//! "LLaMA", Touvron and others, 2023 (arXiv 2302.13971); turned places, Su and others, 2021 (arXiv 2104.09864); shared keys,
//! Ainslie and others, 2023 (arXiv 2305.13245). Weights stay quantised.

use std::sync::Arc;

use super::cache::Cache;
use super::gguf::Gguf;
use super::matrix::{Matrix, vector};
use super::settings::{Rotation, Settings};
use crate::engine::transformer::math::{Layout, add, gated, multiply, rms_norm, softmax};

/// Tokens that are read at once: more would only need more memory.
const TOKENS_TOGETHER: usize = 256;

/// W x + b.
struct Linear {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

impl Linear {
    fn apply(&self, rows: &[f32]) -> Vec<f32> {
        let mut out = self.weight.apply(rows);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
        out
    }
}

struct Layer {
    attention_norm: Vec<f32>,
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: Option<Vec<f32>>,
    key_norm: Option<Vec<f32>>,
    attended: Linear,
    norm: Vec<f32>,
    gate: Matrix,
    up: Matrix,
    down: Matrix,
}

pub(super) struct Decoder {
    pub(super) settings: Settings,
    words: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f32>,
    /// None where the table of words serves for it, too.
    out: Option<Matrix>,
    /// By how much a place turns each pair.
    turns: Vec<f32>,
}

/// Whose scores are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scores {
    Last,
    All,
}

impl Decoder {
    pub(super) fn load(file: &Arc<[u8]>, gguf: &Gguf) -> Result<Self, String> {
        let settings = Settings::of(gguf)?;
        let Settings { hidden, inner, heads, width, vocabulary, .. } = settings;
        let keys = settings.key_width();
        let matrix = |name: &str, rows: usize, columns: usize| Matrix::load(file, gguf, name, rows, columns);
        let layer = |at: usize| {
            let name = |part: &str, kind: &str| format!("blk.{at}.{part}.{kind}");
            let norm = |part: &str, length: usize| vector(file, gguf, &name(part, "weight"), length);
            let linear = |part: &str, rows: usize, columns: usize| {
                let bias = name(part, "bias");
                let bias = gguf.tensors.contains_key(&bias).then(|| vector(file, gguf, &bias, rows)).transpose()?;
                Ok::<_, String>(Linear { weight: matrix(&name(part, "weight"), rows, columns)?, bias })
            };
            let of_heads = |part: &str| settings.norms_heads.then(|| norm(part, width)).transpose();
            Ok(Layer {
                attention_norm: norm("attn_norm", hidden)?,
                query: linear("attn_q", heads * width, hidden)?,
                key: linear("attn_k", keys, hidden)?,
                value: linear("attn_v", keys, hidden)?,
                query_norm: of_heads("attn_q_norm")?,
                key_norm: of_heads("attn_k_norm")?,
                attended: linear("attn_output", hidden, heads * width)?,
                norm: norm("ffn_norm", hidden)?,
                gate: matrix(&name("ffn_gate", "weight"), inner, hidden)?,
                up: matrix(&name("ffn_up", "weight"), inner, hidden)?,
                down: matrix(&name("ffn_down", "weight"), hidden, inner)?,
            })
        };
        let has_out = gguf.tensors.contains_key("output.weight");
        let pairs = settings.turned / 2;
        let mut turns: Vec<f32> =
            (0..pairs).map(|at| settings.base.powf(-(at as f32) / pairs as f32) / settings.stretch).collect();
        if gguf.tensors.contains_key("rope_freqs.weight") {
            let factors = vector(file, gguf, "rope_freqs.weight", pairs)?;
            turns.iter_mut().zip(factors).for_each(|(turn, factor)| *turn /= factor);
        }
        Ok(Self {
            words: matrix("token_embd.weight", vocabulary, hidden)?,
            layers: (0..settings.layers).map(layer).collect::<Result<_, String>>()?,
            norm: vector(file, gguf, "output_norm.weight", hidden)?,
            out: has_out.then(|| matrix("output.weight", vocabulary, hidden)).transpose()?,
            turns,
            settings,
        })
    }

    /// An empty cache for `tokens_max` tokens.
    pub(super) fn cache(&self, tokens_max: usize) -> Cache {
        Cache::new(self.settings.layers, self.settings.key_width(), tokens_max)
    }

    /// Reads `tokens` behind those that the cache has, be it a whole text or the next token, and gives scores of what comes next.
    /// All tokens must be in the vocabulary, and fit into the cache.
    pub(super) fn read(&self, tokens: &[usize], cache: &mut Cache, wanted: Scores) -> Result<Vec<f32>, String> {
        if tokens.len() > cache.room() {
            return Err(format!("{} tokens for a cache with room for {}", tokens.len(), cache.room()));
        }
        let mut scores = Vec::new();
        let last = tokens.len().saturating_sub(1) / TOKENS_TOGETHER;
        for (at, tokens) in tokens.chunks(TOKENS_TOGETHER).enumerate() {
            let states = self.states(tokens, cache);
            let wanted = match wanted {
                Scores::All => &states[..],
                Scores::Last if at == last => &states[states.len() - self.settings.hidden..],
                Scores::Last => continue,
            };
            let mut normed = vec![0.0; wanted.len()];
            rms_norm(wanted, &self.norm, self.settings.epsilon, &mut normed);
            scores.extend(self.out.as_ref().unwrap_or(&self.words).apply(&normed));
        }
        Ok(scores)
    }

    fn states(&self, tokens: &[usize], cache: &mut Cache) -> Vec<f32> {
        let Settings { hidden, epsilon, .. } = self.settings;
        let mut states = vec![0.0; tokens.len() * hidden];
        states.chunks_exact_mut(hidden).zip(tokens).for_each(|(state, &token)| self.words.row(token, state));
        let mut normed = vec![0.0; states.len()];
        for (at, layer) in self.layers.iter().enumerate() {
            rms_norm(&states, &layer.attention_norm, epsilon, &mut normed);
            let (mut query, mut key, value) =
                (layer.query.apply(&normed), layer.key.apply(&normed), layer.value.apply(&normed));
            self.place(&mut query, layer.query_norm.as_deref(), self.settings.heads, cache.tokens());
            self.place(&mut key, layer.key_norm.as_deref(), self.settings.groups, cache.tokens());
            let before = cache.tokens();
            let (keys, values) = cache.push(at, &key, &value);
            add(&mut states, &layer.attended.apply(&self.attend(&query, keys, values, before)));
            rms_norm(&states, &layer.norm, epsilon, &mut normed);
            let mut wide = layer.gate.apply(&normed);
            gated(&mut wide, &layer.up.apply(&normed));
            add(&mut states, &layer.down.apply(&wide));
        }
        cache.advance(tokens.len());
        states
    }

    /// Norms the heads of every token, if they have a norm, and turns them by the token's place.
    fn place(&self, rows: &mut [f32], norm: Option<&[f32]>, heads: usize, before: usize) {
        let Settings { width, turned, epsilon, rotation, .. } = self.settings;
        if let Some(norm) = norm {
            let given = rows.to_vec();
            rms_norm(&given, norm, epsilon, rows);
        }
        for (at, row) in rows.chunks_exact_mut(heads * width).enumerate() {
            let turns: Vec<(f32, f32)> =
                self.turns.iter().map(|turn| ((before + at) as f32 * turn).sin_cos()).collect();
            for head in row.chunks_exact_mut(width) {
                for (pair, &(sin, cos)) in turns.iter().enumerate() {
                    let (a, b) = match rotation {
                        Rotation::Pairs => (2 * pair, 2 * pair + 1),
                        Rotation::Halves => (pair, pair + turned / 2),
                    };
                    (head[a], head[b]) = (head[a] * cos - head[b] * sin, head[a] * sin + head[b] * cos);
                }
            }
        }
    }

    /// Each token becomes what it and those before it have to say, head by head.
    fn attend(&self, query: &[f32], keys: &[f32], values: &[f32], before: usize) -> Vec<f32> {
        let Settings { heads, groups, width, .. } = self.settings;
        let (of_query, of_key) = (heads * width, groups * width);
        let (count, total) = (query.len() / of_query, keys.len() / of_key);
        let scale = 1.0 / (width as f32).sqrt();
        let mut out = vec![0.0; query.len()];
        let mut looks = vec![0.0; count * total];
        let square = Layout::packed(count, total);
        for head in 0..heads {
            let (from, shared) = (head * width, head / (heads / groups) * width);
            let (mine, theirs) = (Layout::strided(count, width, of_query), Layout::strided(total, width, of_key));
            multiply((&query[from..], mine), (&keys[shared..], theirs.transposed()), (&mut looks, square), false);
            for (at, row) in looks.chunks_exact_mut(total).enumerate() {
                let (seen, unseen) = row.split_at_mut(before + at + 1);
                softmax(seen, seen.len(), scale, None);
                unseen.fill(0.0);
            }
            multiply((&looks, square), (&values[shared..], theirs), (&mut out[from..], mine), false);
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(file: &[u8]) -> Decoder {
        let file: Arc<[u8]> = file.into();
        Decoder::load(&file, &Gguf::read(&file).unwrap()).unwrap()
    }

    #[test]
    fn a_text_read_in_parts_is_the_text_read_at_once_and_a_full_cache_says_so() {
        for file in [
            &include_bytes!("../../../../tests/fixtures/transformer/llama/model.gguf")[..],
            include_bytes!("../../../../tests/fixtures/transformer/qwen3/model.gguf"),
        ] {
            let decoder = decoder(file);
            let tokens: Vec<usize> = (0..13).map(|at| at * 7 % 30).collect();
            let whole = decoder.read(&tokens, &mut decoder.cache(13), Scores::All).unwrap();
            for parts in [vec![1; 13], vec![5, 1, 7], vec![12, 1]] {
                let (mut cache, mut at) = (decoder.cache(13), 0);
                for part in parts {
                    let scores = decoder.read(&tokens[at..at + part], &mut cache, Scores::Last).unwrap();
                    at += part;
                    let expected = &whole[(at - 1) * 30..at * 30];
                    // Tokens that come alone are multiplied in whole numbers of 16 bits.
                    let same = scores.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-3);
                    assert!(same && scores.len() == 30, "{at}: {scores:?} {expected:?}");
                }
                assert_eq!((cache.tokens(), cache.room()), (13, 0));
                let error = decoder.read(&[1], &mut cache, Scores::Last).unwrap_err();
                assert_eq!(error, "1 tokens for a cache with room for 0");
            }
        }
    }
}
