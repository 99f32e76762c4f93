//! Texts to the batches that an encoder takes, by the model's own `tokenizer.json`, and its vectors to those that were asked for.
//!
//! The encoder itself is asked by whoever has it, between [`Embedder::batches`] and [`Embedder::vector`].

use tokenizers::Tokenizer;

use super::error::Error;
use crate::base::Tensor;

/// Texts of a request.
const TEXTS_MAX: usize = 2048;
/// Bytes of a text.
const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Tokens of a batch, padding included, if it has more than one text.
const TOKENS_TOGETHER: usize = 4096;

/// What becomes of a text with more tokens than the model takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Long {
    /// It is refused.
    #[default]
    Refused,
    /// Its end is cut off.
    Cut,
}

/// Makes an encoder's inputs of texts.
pub struct Embedder {
    tokenizer: Tokenizer,
    length_max: usize,
    pad: u32,
}

/// Texts of similar length, padded to the longest one.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Which texts of the request, in the order of the rows.
    pub texts: Vec<usize>,
    /// `input_ids`, INT64 of texts and tokens.
    pub ids: Tensor,
    /// `attention_mask`, the same: 1 for tokens, 0 for padding.
    pub mask: Tensor,
    /// `token_type_ids`, the same.
    pub types: Tensor,
}

/// Which text, its tokens and their types.
type Encoded = (usize, Vec<u32>, Vec<u32>);

impl Embedder {
    /// Of a `tokenizer.json`, for a model that takes texts of `length_max` tokens.
    ///
    /// # Errors
    /// [`Error::File`] if it is none.
    pub fn new(tokenizer_json: &[u8], length_max: usize) -> Result<Self, Error> {
        let file = |what: String| Error::File(format!("tokenizer.json: {what}"));
        let mut tokenizer = Tokenizer::from_bytes(tokenizer_json).map_err(|error| file(error.to_string()))?;
        if length_max == 0 {
            return Err(file("the model takes no tokens".to_owned()));
        }
        let usual = ["[PAD]", "<pad>", "<|endoftext|>", "</s>"].iter().find_map(|token| tokenizer.token_to_id(token));
        let pad = tokenizer.get_padding().map(|padding| padding.pad_id).or(usual).unwrap_or(0);
        tokenizer.with_padding(None);
        // Cutting is done here, so that it is not done where it was not asked for.
        tokenizer.with_truncation(None).map_err(|error| file(error.to_string()))?;
        Ok(Self { tokenizer, length_max, pad })
    }

    /// The batches of `texts`, and the tokens of all of them.
    ///
    /// # Errors
    /// [`Error::Request`] names the text that is empty or too long; [`Error::TooLong`] says how long.
    pub fn batches(&self, texts: &[&str], long: Long) -> Result<(Vec<Batch>, u64), Error> {
        if texts.is_empty() || texts.len() > TEXTS_MAX {
            return Err(Error::request("input", format!("1 to {TEXTS_MAX} texts"), texts.len().to_string()));
        }
        let encode = |(at, text): (usize, &&str)| {
            if text.is_empty() || text.len() > TEXT_BYTES_MAX {
                let given = format!("{} bytes", text.len());
                return Err(Error::request(format!("input[{at}]"), format!("1 to {TEXT_BYTES_MAX} bytes"), given));
            }
            let refused =
                |given: String| Error::request(format!("input[{at}]"), "a text that the tokenizer takes", given);
            let mut encoding = self.tokenizer.encode_fast(*text, true).map_err(|error| refused(error.to_string()))?;
            let tokens = encoding.get_ids().len();
            if tokens > self.length_max {
                if long == Long::Refused {
                    return Err(Error::TooLong { tokens, most: self.length_max });
                }
                encoding = self.cut(text).map_err(refused)?;
            }
            Ok((at, encoding.get_ids().to_vec(), encoding.get_type_ids().to_vec()))
        };
        let mut encoded = texts.iter().enumerate().map(encode).collect::<Result<Vec<_>, _>>()?;
        let tokens = encoded.iter().map(|(_, ids, _)| ids.len() as u64).sum();
        if let Some((at, _, _)) = encoded.iter().find(|(_, ids, _)| ids.is_empty()) {
            return Err(Error::request(format!("input[{at}]"), "a text with a token in it", "none"));
        }
        encoded.sort_by_key(|(_, ids, _)| ids.len());
        let mut batches = Vec::new();
        let mut rest = encoded.as_slice();
        while !rest.is_empty() {
            // The last one is the longest.
            let fits = (1..=rest.len()).take_while(|&count| count * rest[count - 1].1.len() <= TOKENS_TOGETHER).last();
            let (these, behind) = rest.split_at(fits.unwrap_or(1));
            batches.push(self.batch(these));
            rest = behind;
        }
        Ok((batches, tokens))
    }

    /// With what the tokenizer puts around a text still around it.
    fn cut(&self, text: &str) -> Result<tokenizers::Encoding, String> {
        let truncation = tokenizers::TruncationParams { max_length: self.length_max, ..Default::default() };
        let mut tokenizer = self.tokenizer.clone();
        tokenizer.with_truncation(Some(truncation)).map_err(|error| error.to_string())?;
        tokenizer.encode_fast(text, true).map_err(|error| error.to_string())
    }

    fn batch(&self, rows: &[Encoded]) -> Batch {
        let length = rows.iter().map(|(_, ids, _)| ids.len()).max().unwrap_or(0);
        let tensor = |row: &dyn Fn(&Encoded) -> Vec<i64>, filler: i64| {
            let padded = rows.iter().flat_map(|given| {
                let mut values = row(given);
                values.resize(length, filler);
                values
            });
            Tensor::new([rows.len(), length], padded.collect::<Vec<i64>>()).expect("each row has `length` elements")
        };
        let whole = |values: &[u32]| values.iter().map(|&value| i64::from(value)).collect::<Vec<_>>();
        Batch {
            texts: rows.iter().map(|(at, _, _)| *at).collect(),
            ids: tensor(&|(_, ids, _)| whole(ids), i64::from(self.pad)),
            mask: tensor(&|(_, ids, _)| vec![1; ids.len()], 0),
            types: tensor(&|(_, _, types)| whole(types), 0),
        }
    }

    /// The vector that was asked for, of one that an encoder gave: its first `dimensions`, if it shall have fewer, and of length 1.
    ///
    /// # Errors
    /// [`Error::Request`] for more dimensions than there are; [`Error::Scores`] for a vector without a length.
    pub fn vector(given: &[f32], dimensions: Option<usize>) -> Result<Vec<f32>, Error> {
        let dimensions = dimensions.unwrap_or(given.len());
        if dimensions == 0 || dimensions > given.len() {
            return Err(Error::request("dimensions", format!("1 to {}", given.len()), dimensions.to_string()));
        }
        let kept = &given[..dimensions];
        let length = kept.iter().map(|value| f64::from(*value) * f64::from(*value)).sum::<f64>().sqrt();
        if !length.is_finite() || length == 0.0 {
            return Err(Error::Scores("the encoder's vector has no direction".to_owned()));
        }
        Ok(kept.iter().map(|value| (f64::from(*value) / length) as f32).collect())
    }
}

impl std::fmt::Debug for Embedder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedder").field("length_max", &self.length_max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = r#"{
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "[PAD]", "special": true, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false}],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}},
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"[PAD]": 0, "[CLS]": 1, "[UNK]": 2, "the": 3, "pump": 4, "runs": 5}}
    }"#;

    fn embedder(length_max: usize) -> Embedder {
        Embedder::new(WORDS.as_bytes(), length_max).unwrap()
    }

    fn values(tensor: &Tensor) -> &[i64] {
        tensor.as_slice::<i64>().unwrap()
    }

    #[test]
    fn texts_of_similar_length_are_padded_together_and_know_their_place() {
        let (batches, tokens) = embedder(8).batches(&["The pump runs", "pump", "runs hot"], Long::Refused).unwrap();
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        assert_eq!((batch.texts.as_slice(), tokens), (&[1, 2, 0][..], 9));
        assert_eq!(values(&batch.ids), [1, 4, 0, 0, 1, 5, 2, 0, 1, 3, 4, 5]);
        assert_eq!(values(&batch.mask), [1, 1, 0, 0, 1, 1, 1, 0, 1, 1, 1, 1]);
        assert_eq!((batch.types.shape(), values(&batch.types)), (&[3, 4][..], &[0; 12][..]));
    }

    #[test]
    fn a_batch_has_a_bound_and_every_text_is_in_one() {
        let long = "pump ".repeat(1500);
        let texts = [long.as_str(), "the", &long, "pump", &long];
        let (batches, _) = embedder(5000).batches(&texts, Long::Refused).unwrap();
        let mut all: Vec<usize> = batches.iter().flat_map(|batch| batch.texts.clone()).collect();
        all.sort_unstable();
        assert_eq!(all, [0, 1, 2, 3, 4]);
        assert!(batches.iter().all(|batch| values(&batch.ids).len() <= TOKENS_TOGETHER), "{}", batches.len());
    }

    #[test]
    fn a_long_text_is_refused_or_cut_as_it_was_asked_for() {
        let embedder = embedder(3);
        let error = embedder.batches(&["the pump runs hot"], Long::Refused).unwrap_err();
        assert_eq!(error, Error::TooLong { tokens: 5, most: 3 });
        let (batches, tokens) = embedder.batches(&["the pump runs hot"], Long::Cut).unwrap();
        assert_eq!((values(&batches[0].ids), tokens), (&[1, 3, 4][..], 3));
    }

    #[test]
    fn what_cannot_be_embedded_is_named() {
        let embedder = embedder(8);
        for (texts, says) in [
            (vec![], "input: expected 1 to 2048 texts, given 0"),
            (vec!["a"; 2049], "given 2049"),
            (vec!["a", ""], "input[1]: expected 1 to 1048576 bytes, given 0 bytes"),
        ] {
            let error = embedder.batches(&texts, Long::Cut).unwrap_err().to_string();
            assert!(error.contains(says), "{error}: {says}");
        }
        for wrong in [&b""[..], b"{}", b"[1"] {
            assert!(Embedder::new(wrong, 8).unwrap_err().to_string().contains("tokenizer.json: "));
        }
    }

    #[test]
    fn vectors_have_the_length_one_and_as_many_dimensions_as_were_asked_for() {
        assert_eq!(Embedder::vector(&[3.0, 4.0], None).unwrap(), [0.6, 0.8]);
        assert_eq!(Embedder::vector(&[3.0, 4.0], Some(1)).unwrap(), [1.0]);
        for (given, dimensions) in
            [(&[1.0, 2.0][..], Some(3)), (&[1.0], Some(0)), (&[0.0, 0.0], None), (&[f32::NAN], None)]
        {
            assert!(Embedder::vector(given, dimensions).is_err());
        }
    }
}
