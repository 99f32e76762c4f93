//! A text to numbers of its tokens, by the model's own `tokenizer.json`.

use serde::Deserialize;

/// `kind = "text"`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(not(feature = "text"), allow(dead_code, reason = "without the feature it is only refused"))]
pub(super) struct TextConfig {
    pub(super) name: Option<String>,
    /// A `[[file]]`.
    tokenizer: String,
    /// The tensor for the tokens; `input_ids` if left out, or the only one.
    ids: Option<String>,
    /// The tensor that is 1 for tokens and 0 for padding; `attention_mask` if left out, if the model has it.
    mask: Option<String>,
    /// The tensor that tells the first text from the second; `token_type_ids` if left out, if the model has it.
    types: Option<String>,
    /// Longer texts are cut. Left out, 512 or what the tensor's shape says.
    length_max: Option<usize>,
    /// To `length_max` always; else to the longest text of the request.
    #[serde(default)]
    pad_to_max: bool,
    /// The number of the padding token; left out, tokenizer.json says it.
    pad_id: Option<u32>,
    /// `[CLS]`, `[SEP]` and their like.
    #[serde(default = "yes")]
    special_tokens: bool,
}

fn yes() -> bool {
    true
}

/// A text and perhaps a second one, for models that compare two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The text.
    pub text: String,
    /// The second one.
    pub pair: Option<String>,
}

#[cfg(feature = "text")]
pub(super) use with_tokenizers::Texts;
#[cfg(not(feature = "text"))]
pub(super) use without::Texts;

#[cfg(not(feature = "text"))]
mod without {
    use super::{TextConfig, Words};
    use crate::transform::error::Error;
    use crate::transform::plan::Filled;
    use crate::transform::port::Port;

    const NOT_BUILT: Error = Error::NotBuilt { kind: "a text", feature: "text" };

    #[derive(Debug)]
    pub(in crate::transform) struct Texts;

    impl Texts {
        pub(in crate::transform) fn build(
            _: &TextConfig,
            _: &[Port],
            _: &dyn Fn(&str) -> Result<Vec<u8>, String>,
        ) -> Result<Self, Error> {
            Err(NOT_BUILT)
        }

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::transform) fn tensors(&self) -> Vec<&str> {
            Vec::new()
        }

        #[allow(clippy::unused_self, reason = "as with the feature")]
        pub(in crate::transform) fn make(&self, _: &[&Words], _: &str) -> Result<Vec<Vec<Filled>>, Error> {
            Err(NOT_BUILT)
        }
    }
}

#[cfg(feature = "text")]
mod with_tokenizers {
    use std::fmt;

    use tokenizers::utils::padding::PaddingDirection;
    use tokenizers::{Encoding, Tokenizer, TruncationDirection, TruncationParams, TruncationStrategy};

    use super::{TextConfig, Words};
    use crate::base::{Datatype, Tensor};
    use crate::transform::error::Error;
    use crate::transform::plan::Filled;
    use crate::transform::port::Port;

    const LENGTH: usize = 512;
    const LENGTH_MAX: usize = 65_536;

    /// Makes tokens of texts.
    pub(in crate::transform) struct Texts {
        tokenizer: Tokenizer,
        ids: Port,
        mask: Option<Port>,
        types: Option<Port>,
        special_tokens: bool,
        /// Pad to this.
        fixed: Option<usize>,
        pad_id: u32,
        pad_type: u32,
        pad_left: bool,
    }

    impl fmt::Debug for Texts {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Texts").field("ids", &self.ids.name).finish_non_exhaustive()
        }
    }

    impl Texts {
        pub(in crate::transform) fn build(
            config: &TextConfig,
            ports: &[Port],
            file: &dyn Fn(&str) -> Result<Vec<u8>, String>,
        ) -> Result<Self, Error> {
            let find = |name: &str| ports.iter().find(|port| port.name == name).cloned();
            let named = |given: &Option<String>, usual: &str| match given {
                Some(name) => find(name).map(Some).ok_or_else(|| {
                    let names = ports.iter().map(|port| port.name.as_str()).collect::<Vec<_>>().join(", ");
                    Error::step("[[predict.input]] text", name, format!("one of the inputs {names}"), "another name")
                }),
                None => Ok(find(usual)),
            };
            let ids = named(&config.ids, "input_ids")?.or_else(|| (ports.len() == 1).then(|| ports[0].clone()));
            let Some(ids) = ids else {
                return Err(Error::step("[[predict.input]] text", "ids", "the tensor for tokens in `ids`", "none"));
            };
            let (mask, types) = (named(&config.mask, "attention_mask")?, named(&config.types, "token_type_ids")?);
            let wrong = |step: &str, expected: String, given: String| {
                Err(Error::step(format!("[[predict.input]] text: {step}"), &ids.name, expected, given))
            };
            for port in [Some(&ids), mask.as_ref(), types.as_ref()].into_iter().flatten() {
                if !matches!(port.datatype, Datatype::Int64 | Datatype::Int32) || port.shape.len() != 2 {
                    let given = format!("{} of {:?} for {}", port.datatype, port.shape, port.name);
                    return wrong("datatype", "INT64 or INT32 of [batch, tokens]".to_owned(), given);
                }
            }
            let bytes = match file(&config.tokenizer) {
                Ok(bytes) => bytes,
                Err(given) => return wrong("tokenizer", "a [[file]] beside the model".to_owned(), given),
            };
            let mut tokenizer = match Tokenizer::from_bytes(&bytes) {
                Ok(tokenizer) => tokenizer,
                Err(error) => return wrong("tokenizer", "a tokenizer.json".to_owned(), error.to_string()),
            };
            let in_shape = usize::try_from(ids.shape[1]).ok();
            let length = config.length_max.or(in_shape).unwrap_or(LENGTH);
            let pads = tokenizer.get_padding().cloned();
            let extra = if config.special_tokens { added(&tokenizer) } else { 0 };
            if length <= extra || length > LENGTH_MAX || in_shape.is_some_and(|fixed| fixed != length) {
                let expected = format!("length_max of {} to {LENGTH_MAX} that fits {:?}", extra + 1, ids.shape);
                return wrong("length_max", expected, length.to_string());
            }
            let cut = tokenizer.get_truncation();
            let truncation = TruncationParams {
                direction: cut.map_or(TruncationDirection::Right, |cut| cut.direction),
                strategy: cut.map_or(TruncationStrategy::LongestFirst, |cut| cut.strategy),
                max_length: length,
                stride: 0,
            };
            if let Err(error) = tokenizer.with_truncation(Some(truncation)) {
                return wrong("length_max", "one that this tokenizer takes".to_owned(), error.to_string());
            }
            tokenizer.with_padding(None);
            let usual =
                ["[PAD]", "<pad>", "<|endoftext|>", "</s>"].iter().find_map(|token| tokenizer.token_to_id(token));
            let pad_id = config.pad_id.or(pads.as_ref().map(|pads| pads.pad_id)).or(usual);
            let Some(pad_id) = pad_id else {
                return wrong("pad_id", "the number of a padding token".to_owned(), "none".to_owned());
            };
            Ok(Self {
                special_tokens: config.special_tokens,
                fixed: (config.pad_to_max || in_shape.is_some()).then_some(length),
                pad_id,
                pad_type: pads.as_ref().map_or(0, |pads| pads.pad_type_id),
                pad_left: pads.is_some_and(|pads| matches!(pads.direction, PaddingDirection::Left)),
                tokenizer,
                ids,
                mask,
                types,
            })
        }

        /// The tensors that it fills.
        pub(in crate::transform) fn tensors(&self) -> Vec<&str> {
            [Some(&self.ids), self.mask.as_ref(), self.types.as_ref()]
                .into_iter()
                .flatten()
                .map(|p| p.name.as_str())
                .collect()
        }

        /// For each text its tensors; all are padded to the same length.
        pub(in crate::transform) fn make(&self, given: &[&Words], at: &str) -> Result<Vec<Vec<Filled>>, Error> {
            let encode = |words: &&Words| {
                let encoded = match &words.pair {
                    None => self.tokenizer.encode_fast(words.text.as_str(), self.special_tokens),
                    Some(pair) => self.tokenizer.encode_fast((words.text.as_str(), pair.as_str()), self.special_tokens),
                };
                encoded.map_err(|error| Error::content(at, "a text that the tokenizer takes", error.to_string()))
            };
            let encodings = given.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
            let longest = encodings.iter().map(|encoding| encoding.get_ids().len()).max().unwrap_or(0);
            let length = self.fixed.unwrap_or(longest);
            if length == 0 {
                return Err(Error::content(at, "a text with a token in it", "an empty one"));
            }
            Ok(encodings.iter().map(|encoding| self.tensors_of(encoding, length)).collect())
        }

        fn tensors_of(&self, encoding: &Encoding, length: usize) -> Vec<Filled> {
            let row = |port: &Port, values: &[u32], filler: u32| {
                let filling = std::iter::repeat_n(i64::from(filler), length.saturating_sub(values.len()));
                let values = values.iter().map(|&value| i64::from(value));
                let whole: Vec<i64> =
                    if self.pad_left { filling.chain(values).collect() } else { values.chain(filling).collect() };
                let tensor = match port.datatype {
                    Datatype::Int64 => Tensor::new([1, length], whole),
                    // Vocabularies have fewer words than 31 bits.
                    _ => Tensor::new([1, length], whole.into_iter().map(|value| value as i32).collect()),
                };
                (port.name.clone(), tensor.expect("the row has `length` elements"))
            };
            let mut tensors = vec![row(&self.ids, encoding.get_ids(), self.pad_id)];
            tensors.extend(self.mask.as_ref().map(|port| row(port, encoding.get_attention_mask(), 0)));
            tensors.extend(self.types.as_ref().map(|port| row(port, encoding.get_type_ids(), self.pad_type)));
            tensors
        }
    }

    /// Tokens that the tokenizer puts around a text.
    fn added(tokenizer: &Tokenizer) -> usize {
        use tokenizers::PostProcessor as _;
        tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false))
    }
}
