//! From the states of a text's tokens to one embedding, as sentence-transformers writes it down: `pooling.json` (its
//! `1_Pooling/config.json`) and `modules.json`.

use serde_json::Value;

use crate::engine::transformer::math::{add, dot};

/// What becomes of the tokens' states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The first token's.
    First,
    /// The last token's that is none of padding.
    Last,
    Mean,
    /// The sum, divided by the root of how many.
    MeanRoot,
    Largest,
}

/// A text's embedding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pooling {
    mode: Mode,
    /// To the length 1.
    pub(super) normalises: bool,
}

const MODES: [(&str, &str, Mode); 5] = [
    ("pooling_mode_cls_token", "cls", Mode::First),
    ("pooling_mode_lasttoken", "lasttoken", Mode::Last),
    ("pooling_mode_mean_tokens", "mean", Mode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", "mean_sqrt_len_tokens", Mode::MeanRoot),
    ("pooling_mode_max_tokens", "max", Mode::Largest),
];

impl Pooling {
    /// `hidden` is how wide the states are.
    pub(super) fn parse(pooling: &[u8], modules: Option<&[u8]>, hidden: usize) -> Result<Self, String> {
        let read = |name: &str, bytes: &[u8]| -> Result<Value, String> {
            serde_json::from_slice(bytes).map_err(|error| format!("{name}: {error}"))
        };
        let pooling = read("pooling.json", pooling)?;
        let width = ["word_embedding_dimension", "embedding_dimension"].iter().find_map(|key| pooling[key].as_u64());
        if width.is_some_and(|width| usize::try_from(width) != Ok(hidden)) {
            let width = width.unwrap_or_default();
            return Err(format!("pooling.json: word_embedding_dimension is {width}, expected {hidden} by config.json"));
        }
        let word = pooling["pooling_mode"].as_str();
        let said = |(key, short, _): &&(&str, &str, Mode)| pooling[*key] == true || word == Some(*short);
        let mut said = MODES.iter().filter(said);
        let (Some((_, _, mode)), None) = (said.next(), said.next()) else {
            let known = MODES.map(|(key, _, _)| key).join(", ");
            return Err(format!("pooling.json: expected exactly one of {known}, given another"));
        };
        let mut normalises = false;
        if let Some(modules) = modules {
            let modules = read("modules.json", modules)?;
            let Some(modules) = modules.as_array() else {
                return Err("modules.json: expected a list of modules".to_owned());
            };
            for module in modules {
                let kind = module["type"].as_str().unwrap_or_default();
                match kind.rsplit('.').next().unwrap_or_default() {
                    "Transformer" | "Pooling" => {}
                    "Normalize" => normalises = true,
                    _ => return Err(format!("modules.json: {kind:?}, expected Transformer, Pooling and Normalize")),
                }
            }
        }
        Ok(Self { mode: *mode, normalises })
    }

    /// One embedding for the `states` of one text, which are those of its tokens one behind the other; `mask` is 0 for
    /// padding.
    pub(super) fn pool(self, states: &[f32], mask: &[bool], out: &mut [f32]) {
        let hidden = out.len();
        let kept = || states.chunks_exact(hidden).zip(mask).filter(|(_, kept)| **kept).map(|(state, _)| state);
        let count = mask.iter().filter(|kept| **kept).count() as f32;
        match self.mode {
            Mode::First => out.copy_from_slice(&states[..hidden]),
            Mode::Last => {
                out.fill(0.0);
                if let Some(last) = kept().next_back() {
                    out.copy_from_slice(last);
                }
            }
            Mode::Mean | Mode::MeanRoot => {
                out.fill(0.0);
                kept().for_each(|state| add(out, state));
                let by = if self.mode == Mode::Mean { count } else { count.sqrt() }.max(1e-9);
                out.iter_mut().for_each(|value| *value /= by);
            }
            Mode::Largest => {
                // What the library puts in the place of padding.
                out.fill(-1e9);
                kept().for_each(|state| out.iter_mut().zip(state).for_each(|(out, value)| *out = out.max(*value)));
            }
        }
        if self.normalises {
            let length = dot(out, out).sqrt().max(1e-12);
            out.iter_mut().for_each(|value| *value /= length);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEAN: &[u8] =
        br#"{"word_embedding_dimension": 2, "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false}"#;

    fn pooled(pooling: &[u8], modules: Option<&[u8]>, mask: [bool; 3]) -> [f32; 2] {
        let mut out = [9.0; 2];
        Pooling::parse(pooling, modules, 2).unwrap().pool(&[3.0, 4.0, 5.0, 0.0, 70.0, 70.0], &mask, &mut out);
        out
    }

    #[test]
    fn an_embedding_is_made_of_the_tokens_that_are_no_padding() {
        let two = [true, true, false];
        assert_eq!(pooled(MEAN, None, two), [4.0, 2.0]);
        assert_eq!(pooled(MEAN, None, [false; 3]), [0.0, 0.0]);
        let mode = |word: &str| format!(r#"{{"embedding_dimension": 2, "pooling_mode": "{word}"}}"#);
        assert_eq!(pooled(mode("cls").as_bytes(), None, two), [3.0, 4.0]);
        assert_eq!(pooled(mode("lasttoken").as_bytes(), None, two), [5.0, 0.0]);
        assert_eq!(pooled(mode("max").as_bytes(), None, two), [5.0, 4.0]);
        let root = pooled(mode("mean_sqrt_len_tokens").as_bytes(), None, two);
        assert!((root[0] - 8.0 / 2.0_f32.sqrt()).abs() < 1e-6);
        let modules = br#"[{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Normalize"}]"#;
        assert_eq!(pooled(mode("cls").as_bytes(), Some(modules), two), [0.6, 0.8]);
    }

    #[test]
    fn what_is_not_one_known_way_is_refused() {
        let error = |pooling: &[u8], modules: Option<&[u8]>| Pooling::parse(pooling, modules, 2).unwrap_err();
        assert!(error(b"{}", None).contains("expected exactly one of pooling_mode_cls_token"));
        let both = br#"{"pooling_mode_mean_tokens": true, "pooling_mode_cls_token": true}"#;
        assert!(error(both, None).contains("exactly one"));
        assert!(Pooling::parse(MEAN, None, 3).unwrap_err().contains("word_embedding_dimension is 2, expected 3"));
        assert!(error(MEAN, Some(br#"[{"type": "sentence_transformers.models.Dense"}]"#)).contains("models.Dense"));
        assert!(error(MEAN, Some(b"{}")).contains("expected a list"));
        assert!(error(b"[", None).starts_with("pooling.json: "));
    }
}
