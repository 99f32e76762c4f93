//! The network: embeddings, layers of attention and feed-forward, heads.
//!
//! "BERT", Devlin and others, 2018 (arXiv 1810.04805); names of tensors as Hugging Face's transformers writes them.

use super::settings::{Family, Head, Settings};
use crate::engine::transformer::math::{Activation, Layout, add, multiply, softmax};
use crate::engine::transformer::weights::{Linear, Norm, Numbers, Source};

struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attended: Linear,
    attention_norm: Norm,
    wider: Linear,
    narrower: Linear,
    norm: Norm,
}

/// Scores of classes.
struct Scores {
    /// Before the last layer.
    dense: Option<(Linear, Activation)>,
    out: Linear,
}

pub(super) struct Network {
    pub(super) settings: Settings,
    words: Numbers,
    positions: Numbers,
    types: Option<Numbers>,
    norm: Norm,
    layers: Vec<Layer>,
    /// What BERT makes of the first token's state.
    pooler: Option<Linear>,
    scores: Option<Scores>,
}

/// Texts of the same length.
pub(super) struct Tokens<'a> {
    pub(super) length: usize,
    /// In the vocabulary.
    pub(super) ids: &'a [usize],
    /// False for padding, which nobody looks at.
    pub(super) mask: &'a [bool],
    /// In the table of types.
    pub(super) types: &'a [usize],
}

impl Network {
    pub(super) fn load(settings: Settings, source: &Source<'_>) -> Result<Self, String> {
        let Settings { family, hidden, inner, epsilon, .. } = settings;
        let names = Names::of(family);
        let layer = |at: usize| {
            let name = |part: &str| format!("{}.{at}.{part}", names.layer);
            Ok(Layer {
                query: source.linear(&name(names.query), hidden, hidden)?,
                key: source.linear(&name(names.key), hidden, hidden)?,
                value: source.linear(&name(names.value), hidden, hidden)?,
                attended: source.linear(&name(names.attended), hidden, hidden)?,
                attention_norm: source.norm(&name(names.attention_norm), hidden, epsilon)?,
                wider: source.linear(&name(names.wider), hidden, inner)?,
                narrower: source.linear(&name(names.narrower), inner, hidden)?,
                norm: source.norm(&name(names.norm), hidden, epsilon)?,
            })
        };
        let layers = (0..settings.layers).map(layer).collect::<Result<Vec<_>, String>>()?;
        let table = |name: &str, rows: usize| source.inner(&format!("embeddings.{name}.weight"), &[rows, hidden]);
        let types = (settings.types > 0).then(|| table("token_type_embeddings", settings.types)).transpose()?;
        // Those that were saved for words or tokens have none.
        let has_pooler = family != Family::DistilBert && source.has_inner("pooler.dense.weight");
        Ok(Self {
            words: table("word_embeddings", settings.vocabulary)?,
            positions: table("position_embeddings", settings.positions)?,
            types,
            norm: source.norm("embeddings.LayerNorm", hidden, epsilon)?,
            layers,
            pooler: has_pooler.then(|| source.linear("pooler.dense", hidden, hidden)).transpose()?,
            scores: scores(&settings, source)?,
            settings,
        })
    }

    pub(super) fn has_pooler(&self) -> bool {
        self.pooler.is_some()
    }

    /// The last states of all tokens, text by text.
    pub(super) fn states(&self, tokens: &Tokens<'_>) -> Vec<f32> {
        let hidden = self.settings.hidden;
        let mut states = self.embedded(tokens);
        self.norm.apply(&mut states);
        let bias: Vec<f32> = tokens.mask.iter().map(|&kept| if kept { 0.0 } else { f32::MIN }).collect();
        for layer in &self.layers {
            let (query, key, value) =
                (layer.query.apply(&states), layer.key.apply(&states), layer.value.apply(&states));
            let mut attended = vec![0.0; states.len()];
            for (text, bias) in bias.chunks_exact(tokens.length).enumerate() {
                let part = text * tokens.length * hidden..(text + 1) * tokens.length * hidden;
                let parts = (&query[part.clone()], &key[part.clone()], &value[part.clone()]);
                self.attend(parts, bias, &mut attended[part]);
            }
            let mut more = layer.attended.apply(&attended);
            add(&mut more, &states);
            layer.attention_norm.apply(&mut more);
            let mut wide = layer.wider.apply(&more);
            self.settings.activation.apply(&mut wide);
            states = layer.narrower.apply(&wide);
            add(&mut states, &more);
            layer.norm.apply(&mut states);
        }
        states
    }

    fn embedded(&self, tokens: &Tokens<'_>) -> Vec<f32> {
        let hidden = self.settings.hidden;
        let mut states = Vec::with_capacity(tokens.ids.len() * hidden);
        let row = |at: usize| at * hidden..(at + 1) * hidden;
        for (ids, types) in tokens.ids.chunks_exact(tokens.length).zip(tokens.types.chunks_exact(tokens.length)) {
            // Words so far, padding left out.
            let mut words = 0;
            for (at, (&id, &kind)) in ids.iter().zip(types).enumerate() {
                let padding_id = self.settings.padding_id;
                let place = match self.settings.family {
                    Family::Bert | Family::DistilBert => at,
                    // Padding has a place of its own; the others count from behind it.
                    Family::Roberta if id == padding_id => padding_id,
                    Family::Roberta => {
                        words += 1;
                        padding_id + words
                    }
                };
                let begin = states.len();
                states.extend_from_slice(&self.words[row(id)]);
                add(&mut states[begin..], &self.positions[row(place)]);
                if let Some(types) = &self.types {
                    add(&mut states[begin..], &types[row(kind)]);
                }
            }
        }
        states
    }

    /// Each token of a text becomes what the tokens that it looks at have to say, head by head.
    fn attend(&self, (query, key, value): (&[f32], &[f32], &[f32]), bias: &[f32], out: &mut [f32]) {
        let (hidden, length) = (self.settings.hidden, bias.len());
        let width = hidden / self.settings.heads;
        let scale = 1.0 / (width as f32).sqrt();
        let part = Layout::strided(length, width, hidden);
        let square = Layout::packed(length, length);
        let mut looks = vec![0.0; length * length];
        for from in (0..hidden).step_by(width) {
            multiply((&query[from..], part), (&key[from..], part.transposed()), (&mut looks, square), false);
            softmax(&mut looks, length, scale, Some(bias));
            multiply((&looks, square), (&value[from..], part), (&mut out[from..], part), false);
        }
    }

    /// BERT's state of a whole text, of the state of its first token. None without a pooler.
    pub(super) fn pooled(&self, first: &[f32]) -> Option<Vec<f32>> {
        let mut pooled = self.pooler.as_ref()?.apply(first);
        Activation::Tanh.apply(&mut pooled);
        Some(pooled)
    }

    /// Scores of classes: of the first tokens' states for a head for texts, of all for one for tokens.
    pub(super) fn scores(&self, states: &[f32]) -> Option<Vec<f32>> {
        let scores = self.scores.as_ref()?;
        let pooled = match (self.settings.family, self.settings.head) {
            (Family::Bert, Head::Sequence) => self.pooled(states),
            _ => None,
        };
        let states = pooled.as_deref().unwrap_or(states);
        Some(match &scores.dense {
            None => scores.out.apply(states),
            Some((dense, activation)) => {
                let mut bent = dense.apply(states);
                activation.apply(&mut bent);
                scores.out.apply(&bent)
            }
        })
    }
}

fn scores(settings: &Settings, source: &Source<'_>) -> Result<Option<Scores>, String> {
    let (hidden, labels) = (settings.hidden, settings.labels.len());
    Ok(Some(match (settings.head, settings.family) {
        (Head::None, _) => return Ok(None),
        (Head::Token, _) => Scores { dense: None, out: source.head("classifier", hidden, labels)? },
        (Head::Sequence, Family::Bert) => {
            if !source.has_inner("pooler.dense.weight") {
                return Err("tensor pooler.dense.weight: expected by the head, given none".to_owned());
            }
            Scores { dense: None, out: source.head("classifier", hidden, labels)? }
        }
        (Head::Sequence, Family::Roberta) => Scores {
            dense: Some((source.head("classifier.dense", hidden, hidden)?, Activation::Tanh)),
            out: source.head("classifier.out_proj", hidden, labels)?,
        },
        (Head::Sequence, Family::DistilBert) => Scores {
            dense: Some((source.head("pre_classifier", hidden, hidden)?, Activation::Relu)),
            out: source.head("classifier", hidden, labels)?,
        },
    }))
}

struct Names {
    layer: &'static str,
    query: &'static str,
    key: &'static str,
    value: &'static str,
    attended: &'static str,
    attention_norm: &'static str,
    wider: &'static str,
    narrower: &'static str,
    norm: &'static str,
}

impl Names {
    fn of(family: Family) -> Self {
        match family {
            Family::Bert | Family::Roberta => Self {
                layer: "encoder.layer",
                query: "attention.self.query",
                key: "attention.self.key",
                value: "attention.self.value",
                attended: "attention.output.dense",
                attention_norm: "attention.output.LayerNorm",
                wider: "intermediate.dense",
                narrower: "output.dense",
                norm: "output.LayerNorm",
            },
            Family::DistilBert => Self {
                layer: "transformer.layer",
                query: "attention.q_lin",
                key: "attention.k_lin",
                value: "attention.v_lin",
                attended: "attention.out_lin",
                attention_norm: "sa_layer_norm",
                wider: "ffn.lin1",
                narrower: "ffn.lin2",
                norm: "output_layer_norm",
            },
        }
    }
}
