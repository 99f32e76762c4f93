//! What a model of the Open Inference Protocol calls its tensors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;

/// `oip = { input = "TEXT", input_shape = [-1, 1], output = "embedding" }`: how a model of the Open Inference Protocol
/// takes texts and what it gives for them. The protocol leaves that to each model.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OipModel {
    /// The input of texts.
    #[serde(default = "oip_input")]
    pub input: String,
    /// For vectors: `[-1]`, or `[-1, 1]` as models have it that Triton batches.
    #[serde(default = "oip_input_shape")]
    pub input_shape: Vec<i64>,
    /// The output; without it `text_output` of generated text, and for vectors the first of floating point numbers.
    #[serde(default)]
    pub output: Option<String>,
    /// For vectors: whether they may be cut to the `dimensions` of a caller and scaled to length 1 again. Right only for
    /// models that were trained for it.
    #[serde(default)]
    pub shorten: bool,
    /// For text: the parameter that ends an answer, such as TensorRT-LLM's `stop_words`.
    #[serde(default = "oip_stop")]
    pub stop: String,
    /// Parameters of every request: texts, numbers and flags.
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    /// For text: the model's `tokenizer_config.json`, whose chat template makes the text of a conversation; a
    /// `chat_template.jinja` beside it counts more. Without it the model completes texts only.
    #[serde(default)]
    pub tokenizer_config: Option<PathBuf>,
}

impl OipModel {
    /// What is wrong with it.
    pub(super) fn problem(&self) -> Option<&'static str> {
        let is_empty =
            self.input.is_empty() || self.stop.is_empty() || self.output.as_ref().is_some_and(String::is_empty);
        let is_written = |name: &str| name == "stream" || name == self.stop;
        if is_empty {
            Some("holds an empty name of a tensor")
        } else if self.input_shape != [-1] && self.input_shape != [-1, 1] {
            Some("holds an `input_shape` that is neither [-1] nor [-1, 1]")
        } else if self.parameters.values().any(|value| value.is_array() || value.is_object() || value.is_null()) {
            Some("holds a parameter that is no text, number or flag")
        } else if self.tokenizer_config.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            Some("holds an empty `tokenizer_config`")
        } else if self.parameters.keys().any(|name| is_written(name)) {
            Some("holds a parameter that callers decide: `stream` or the one for stop")
        } else {
            None
        }
    }
}

fn oip_input() -> String {
    "text_input".to_owned()
}

fn oip_input_shape() -> Vec<i64> {
    vec![-1]
}

fn oip_stop() -> String {
    "stop".to_owned()
}

#[cfg(test)]
mod tests {
    use crate::provider::config::tests::config;

    #[test]
    fn what_a_model_calls_its_tensors_is_read_and_what_no_server_takes_refused() {
        let of = |oip: &str| {
            let models = format!("models = [\"plain\", {{ name = \"a\", oip = {oip} }}]");
            config(&format!("name = \"t\"\nkind = \"oip\"\nbase_url = \"http://t:8000\"\n{models}"))
        };
        let good = of("{ input = \"TEXT\", input_shape = [-1, 1], parameters = { k = 1, f = true, t = \"x\" } }");
        good.check().unwrap();
        assert!(good.models[0].oip().is_none());
        let oip = good.models[1].oip().unwrap();
        assert_eq!((oip.input.as_str(), oip.stop.as_str(), oip.parameters.len()), ("TEXT", "stop", 3));
        assert_eq!(good.upstream_model("a"), Some("a"), "the same name without another");
        for (oip, expected) in [
            ("{ input_shape = [1] }", "neither"),
            ("{ input = \"\" }", "empty name"),
            ("{ parameters = { k = [1] } }", "no text"),
            ("{ parameters = { stream = true } }", "callers decide"),
        ] {
            let error = of(oip).check().unwrap_err().to_string();
            assert!(error.contains(expected), "{oip}: {error}");
        }
    }
}
