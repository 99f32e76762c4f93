//! `config.json`: what a network looks like, believed only within bounds.

use serde_json::Value;

use crate::engine::transformer::math::Activation;

/// How a network calls its tensors, and counts its tokens' places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Bert,
    /// Places count from behind the number of the padding token.
    Roberta,
    /// No second text, no pooler.
    DistilBert,
}

/// What becomes of the hidden states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    None,
    /// A score for each class of the whole text.
    Sequence,
    /// A score for each class of every token.
    Token,
}

/// A network.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) family: Family,
    pub(super) head: Head,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) inner: usize,
    /// Rows of the table of places.
    pub(super) positions: usize,
    /// Rows of the table that tells the first text from the second; 0 is none.
    pub(super) types: usize,
    pub(super) padding_id: usize,
    pub(super) epsilon: f32,
    pub(super) activation: Activation,
    /// Of a head, in their order.
    pub(super) labels: Vec<String>,
}

/// Types of models that are computed, as `model_type` calls them.
const MODEL_TYPES: [(&str, Family); 5] = [
    ("bert", Family::Bert),
    ("roberta", Family::Roberta),
    ("xlm-roberta", Family::Roberta),
    ("camembert", Family::Roberta),
    ("distilbert", Family::DistilBert),
];

const LABELS_MAX: usize = 100_000;

impl Settings {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let failed = |what: String| format!("config.json: {what}");
        let config: Value = serde_json::from_slice(bytes).map_err(|error| failed(error.to_string()))?;
        Self::of(&config).map_err(failed)
    }

    fn of(config: &Value) -> Result<Self, String> {
        let model_type = config["model_type"].as_str().unwrap_or("nothing");
        let family = MODEL_TYPES.iter().find(|(name, _)| *name == model_type).map(|(_, family)| *family);
        let family = family.ok_or_else(|| {
            let known = MODEL_TYPES.map(|(name, _)| name).join(", ");
            format!("model_type is {model_type}, expected one of {known}")
        })?;
        if let Some(kind) = config["position_embedding_type"].as_str().filter(|&kind| kind != "absolute") {
            return Err(format!("position_embedding_type is {kind}, expected absolute"));
        }
        if config["is_decoder"] == true {
            return Err("is_decoder is true, expected an encoder".to_owned());
        }
        let head = head(config["architectures"][0].as_str())?;
        let hidden = whole(config, &["hidden_size", "dim"], 1, 1 << 16)?;
        let heads = whole(config, &["num_attention_heads", "n_heads"], 1, 1 << 10)?;
        if hidden % heads != 0 {
            return Err(format!("hidden_size is {hidden}, expected a multiple of its {heads} heads"));
        }
        let act = ["hidden_act", "activation"].iter().find_map(|key| config[key].as_str()).unwrap_or("gelu");
        let activation = match act {
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "relu" => Activation::Relu,
            other => return Err(format!("hidden_act is {other}, expected gelu, gelu_new, gelu_pytorch_tanh or relu")),
        };
        let epsilon = match &config["layer_norm_eps"] {
            Value::Null => 1e-12,
            value => value
                .as_f64()
                .filter(|value| (0.0..=1.0).contains(value))
                .ok_or_else(|| format!("layer_norm_eps is {value}, expected a number of 0 to 1"))?,
        };
        let positions = whole(config, &["max_position_embeddings"], 1, 1 << 20)?;
        let padding_id = match (family, &config["pad_token_id"]) {
            (Family::Roberta, Value::Null) => 1,
            (_, Value::Null) => 0,
            _ => whole(config, &["pad_token_id"], 0, 1 << 24)?,
        };
        if family == Family::Roberta && padding_id + 1 >= positions {
            return Err(format!("max_position_embeddings is {positions}, expected more than pad_token_id + 1"));
        }
        let types = match (family, &config["type_vocab_size"]) {
            (Family::DistilBert, _) => 0,
            (_, Value::Null) => 2,
            _ => whole(config, &["type_vocab_size"], 0, 1 << 16)?,
        };
        Ok(Self {
            family,
            head,
            vocabulary: whole(config, &["vocab_size"], 1, 1 << 24)?,
            hidden,
            layers: whole(config, &["num_hidden_layers", "n_layers"], 1, 512)?,
            heads,
            inner: whole(config, &["intermediate_size", "hidden_dim"], 1, 1 << 18)?,
            positions,
            types,
            padding_id,
            #[allow(clippy::cast_possible_truncation, reason = "it is added to 32-bit floats")]
            epsilon: epsilon as f32,
            activation,
            labels: if head == Head::None { Vec::new() } else { labels(config)? },
        })
    }

    /// The longest text in tokens.
    pub(super) fn length_max(&self) -> usize {
        match self.family {
            Family::Roberta => self.positions - self.padding_id - 1,
            Family::Bert | Family::DistilBert => self.positions,
        }
    }
}

fn head(architecture: Option<&str>) -> Result<Head, String> {
    let Some(name) = architecture else { return Ok(Head::None) };
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends(&["ForSequenceClassification"]) {
        Ok(Head::Sequence)
    } else if ends(&["ForTokenClassification"]) {
        Ok(Head::Token)
    } else if ends(&["Model", "ForMaskedLM", "ForPreTraining"]) {
        // What predicts words in training is not needed for the text's states.
        Ok(Head::None)
    } else {
        Err(format!(
            "architectures has {name}, expected one that ends with Model, ForSequenceClassification or ForTokenClassification"
        ))
    }
}

/// By their numbers. Two without names, as the library has it where the file says nothing.
fn labels(config: &Value) -> Result<Vec<String>, String> {
    let unnamed = |count: usize| (0..count).map(|at| format!("LABEL_{at}")).collect();
    let Some(named) = config["id2label"].as_object() else {
        return Ok(unnamed(if config["num_labels"].is_null() {
            2
        } else {
            whole(config, &["num_labels"], 1, LABELS_MAX)?
        }));
    };
    if named.is_empty() || named.len() > LABELS_MAX {
        return Err(format!("id2label has {} labels, expected 1 to {LABELS_MAX}", named.len()));
    }
    let label = |at: usize| named.get(&at.to_string()).and_then(Value::as_str).map(str::to_owned);
    let labels: Option<Vec<String>> = (0..named.len()).map(label).collect();
    labels.ok_or_else(|| format!("id2label has {} labels, expected those from 0 on, each with a name", named.len()))
}

/// The first of these keys that is there.
fn whole(config: &Value, keys: &[&str], least: usize, most: usize) -> Result<usize, String> {
    let value = keys.iter().map(|&key| &config[key]).find(|value| !value.is_null()).unwrap_or(&Value::Null);
    let number = value.as_u64().and_then(|number| usize::try_from(number).ok());
    number
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("{} is {value}, expected a whole number of {least} to {most}", keys[0]))
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    /// A tiny network.
    pub(in crate::engine::transformer) fn tiny() -> Value {
        json!({
            "model_type": "bert", "architectures": ["BertModel"], "vocab_size": 11, "hidden_size": 8,
            "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 12, "max_position_embeddings": 6,
            "type_vocab_size": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12
        })
    }

    fn with(key: &str, value: Value) -> Result<Settings, String> {
        let mut config = tiny();
        config[key] = value;
        Settings::parse(config.to_string().as_bytes())
    }

    #[test]
    fn what_is_not_computed_or_out_of_bounds_is_named_with_what_would_be_right() {
        for (key, value, says) in [
            ("model_type", json!("deberta-v2"), "model_type is deberta-v2, expected one of bert, roberta"),
            ("position_embedding_type", json!("relative_key"), "expected absolute"),
            ("architectures", json!(["BertForQuestionAnswering"]), "architectures has BertForQuestionAnswering"),
            ("hidden_size", json!(0), "config.json: hidden_size is 0, expected a whole number of 1 to 65536"),
            ("hidden_size", json!(9), "hidden_size is 9, expected a multiple of its 2 heads"),
            ("num_hidden_layers", json!(1e9), "num_hidden_layers is 1000000000.0"),
            ("vocab_size", json!(u64::MAX), "vocab_size is 18446744073709551615"),
            ("vocab_size", json!(null), "vocab_size is null"),
            ("hidden_act", json!("swish"), "hidden_act is swish"),
            ("layer_norm_eps", json!("x"), "layer_norm_eps is \"x\""),
            ("is_decoder", json!(true), "is_decoder is true"),
        ] {
            let error = with(key, value).unwrap_err();
            assert!(error.contains(says), "{error}: {says}");
        }
        assert!(Settings::parse(b"{").unwrap_err().contains("config.json: EOF"));
        assert!(Settings::parse("[".repeat(100_000).as_bytes()).unwrap_err().contains("recursion limit"));
    }

    #[test]
    fn labels_are_named_by_their_numbers() {
        let labelled = |labels: Value| {
            let mut config = tiny();
            config["architectures"] = json!(["BertForSequenceClassification"]);
            config["id2label"] = labels;
            Settings::parse(config.to_string().as_bytes()).map(|settings| settings.labels)
        };
        assert_eq!(labelled(json!({ "1": "bad", "0": "good" })).unwrap(), ["good", "bad"]);
        assert_eq!(labelled(json!(null)).unwrap(), ["LABEL_0", "LABEL_1"]);
        assert!(labelled(json!({ "0": "good", "2": "bad" })).unwrap_err().contains("id2label has 2 labels"));
        assert_eq!(with("id2label", json!(null)).unwrap().labels, [""; 0]);
    }
}
