//! `forebay import`: the configuration of another gateway as a part of ours, with remarks about what could not be taken.
//!
//! No key is ever written: where the other file names a variable or has a key in it, ours names a file to put it into.
//! What has no counterpart is said, with its line; nothing is left out in silence but settings that mean nothing here.

mod deployment;
mod litellm;
mod vendor;
mod write;
mod yaml;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};

use super::{note, say};

/// What the import needs to know beside the file.
#[derive(Clone, Copy)]
struct Options<'a> {
    /// Folder that keys are to lie in.
    keys: &'a str,
    /// Variables of the environment, for settings that are no secrets.
    variable: &'a dyn Fn(&str) -> Option<String>,
}

/// A configuration and what is to be said about it.
#[derive(Debug)]
struct Imported {
    toml: String,
    remarks: Vec<String>,
}

/// Prints the configuration to standard output, and the remarks to standard error as well.
pub(crate) fn run(file: &Path, keys: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<ExitCode> {
    let failed = || format!("failed to read {}", file.display());
    let length = std::fs::metadata(file).with_context(failed)?.len();
    ensure!(length <= yaml::BYTES_MAX as u64, "{}: it has {length} bytes, the most is {}", failed(), yaml::BYTES_MAX);
    let text = std::fs::read_to_string(file).with_context(failed)?;
    let imported = litellm(&text, &Options { keys, variable })
        .with_context(|| format!("failed to read {} as LiteLLM's configuration", file.display()))?;
    say(imported.toml.trim_end());
    imported.remarks.iter().for_each(note);
    Ok(ExitCode::SUCCESS)
}

/// LiteLLM's `config.yaml` as ours.
fn litellm(text: &str, options: &Options<'_>) -> Result<Imported, yaml::Malformed> {
    let root = yaml::Node::parse(text)?;
    let mut remarks = Remarks::default();
    let file = litellm::read(&root, options, &mut remarks);
    let remarks = remarks.lines();
    Ok(Imported { toml: file.to_toml(&remarks), remarks })
}

/// What could not be taken, or is to be done by hand.
#[derive(Debug, Default)]
struct Remarks {
    general: Vec<String>,
    placed: Vec<(usize, String)>,
}

impl Remarks {
    fn general(&mut self, text: String) {
        self.general.push(text);
    }

    fn add(&mut self, at: &yaml::Node, text: String) {
        self.placed.push((at.line, text));
    }

    fn not_taken(&mut self, at: &yaml::Node, what: &str) {
        self.add(at, format!("{what} is not taken: nothing here corresponds to it"));
    }

    /// What is to be done, then what was met in the file, in its order, each once.
    fn lines(self) -> Vec<String> {
        let mut placed = self.placed;
        placed.sort();
        placed.dedup();
        let placed = placed.into_iter().map(|(line, text)| format!("line {line}: {text}"));
        self.general.into_iter().chain(placed).collect()
    }
}

/// Whether a route takes it as the name of a model.
fn is_name(text: &str) -> bool {
    (1..=256).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic())
}

/// LiteLLM's seconds; none for what is no time or over a day.
fn milliseconds(value: &yaml::Node) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a day")]
    value
        .number()
        .filter(|seconds| *seconds > 0.0 && *seconds <= 86_400.0)
        .map(|seconds| ((seconds * 1000.0) as u64).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Ask, RouteConfig, Routes, Settings, Standing, Strategy};

    #[derive(Debug, serde::Deserialize)]
    struct Ours {
        #[serde(default)]
        provider: Vec<toml::Table>,
        #[serde(default)]
        route: Vec<RouteConfig>,
        #[serde(default)]
        routing: Settings,
        #[serde(default)]
        prices: toml::Table,
        #[serde(default)]
        quota: toml::Table,
    }

    fn import(text: &str) -> (Ours, String) {
        let variable = |name: &str| (name == "AZURE_API_BASE").then(|| "https://plant.openai.azure.com/".to_owned());
        let imported = litellm(text, &Options { keys: "/etc/forebay/keys/", variable: &variable }).unwrap();
        let ours: Ours = toml::from_str(&imported.toml).unwrap_or_else(|error| panic!("{error}\n{}", imported.toml));
        Routes::new(&ours.route).unwrap_or_else(|error| panic!("{error}\n{}", imported.toml));
        ours.routing.check().unwrap();
        (ours, imported.remarks.join("\n"))
    }

    const WHOLE: &str = r#"
defaults: &azure
  api_base: os.environ/AZURE_API_BASE
  api_key: os.environ/AZURE_API_KEY
  api_version: "2024-10-21"

model_list:
  - model_name: gpt-4o
    litellm_params:
      <<: *azure
      model: azure/gpt-4o-west
      rpm: 900
      order: 1
    model_info:
      base_model: gpt-4o
      max_input_tokens: 128_000
  - model_name: gpt-4o
    litellm_params:
      model: gpt-4o
      api_key: sk-secret-of-the-plant
      rpm: 100
      order: 1
      temperature: 0.2
  - model_name: gpt-4o
    litellm_params: { model: openrouter/openai/gpt-4o, order: 2 }
  - model_name: local
    litellm_params:
      model: ollama_chat/qwen2.5:0.5b
      timeout: 30
      max_parallel_requests: 2
    model_info: { supports_vision: False, input_cost_per_token: 0.00000015, output_cost_per_token: 6e-07 }
  - model_name: "anthropic/*"
    litellm_params: { model: "anthropic/*", api_key: os.environ/ANTHROPIC_API_KEY }
  - model_name: pictures
    litellm_params: { model: dall-e-3 }
  - model_name: drawings
    litellm_params: { model: openai/gpt-image-1 }
    model_info: { mode: image_generation }
  - model_name: elsewhere
    litellm_params: { model: replicate/meta/llama }

litellm_settings:
  num_retries: 2
  drop_params: True
  callbacks: ["otel"]
  max_budget: 100.5
  budget_duration: 30d

router_settings:
  routing_strategy: simple-shuffle
  fallbacks: [{"gpt-4o": ["local", "nobody"]}]
  model_group_alias: {"gpt-4": "gpt-4o"}
  allowed_fails: 3
  cooldown_time: 30

general_settings:
  master_key: sk-1234
  alerting: ["slack"]

guardrails:
  - guardrail_name: pii
"#;

    #[test]
    fn a_group_becomes_a_route_with_its_shares_its_order_and_those_who_stand_in() {
        let (ours, _) = import(WHOLE);
        let route = &ours.route[0];
        assert_eq!(
            (route.name.as_str(), &route.models[..]),
            ("gpt-4o", &["gpt-4o".to_owned(), "gpt-4".to_owned()][..])
        );
        assert_eq!(route.strategy, Strategy::Weights);
        let candidates: Vec<_> = route
            .candidate
            .iter()
            .map(|one| (one.provider.as_str(), one.model.as_deref().unwrap(), one.tier, one.weight))
            .collect();
        assert_eq!(
            candidates,
            [
                ("azure", "gpt-4o-west", 0, 900),
                ("openai", "gpt-4o", 0, 100),
                ("openrouter", "openai/gpt-4o", 1, 0),
                ("ollama_chat", "qwen2.5:0.5b", 2, 1),
            ]
        );
        assert_eq!(route.candidate[0].context_tokens, Some(128_000));
        assert_eq!(route.candidate[3].first_byte_timeout_ms, Some(30_000));
        assert_eq!(route.candidate[3].requests_max, Some(2));
        assert_eq!((route.retries.attempts_max, route.retries.same_candidate_max), (4, 0));
        assert_eq!(ours.routing.breaker.failures, 4);
        assert_eq!(ours.routing.breaker.open_ms, 30_000);
    }

    #[test]
    fn what_was_imported_routes_as_it_did_there() {
        let (ours, _) = import(WHOLE);
        let routes = Routes::new(&ours.route).unwrap();
        let plan = routes.decide(&Ask::new("anthropic/claude-x", "chat", 1), |_, _| Standing::default()).unwrap();
        assert_eq!(plan.model_of(&plan.route().candidates()[0]), "claude-x");
        let down = Ask { link: crate::route::Link::Down, ..Ask::new("gpt-4", "chat", 1) };
        let plan = routes.decide(&down, |_, _| Standing::default()).unwrap();
        assert_eq!(plan.order().collect::<Vec<_>>(), [3], "the model on this machine goes on without a link");
    }

    #[test]
    fn providers_have_what_their_kind_needs_and_never_a_key() {
        let (ours, remarks) = import(WHOLE);
        let text = |at: usize, key: &str| ours.provider[at].get(key).and_then(toml::Value::as_str).map(str::to_owned);
        assert_eq!(text(0, "kind").as_deref(), Some("azure-openai"));
        assert_eq!(text(0, "base_url").as_deref(), Some("https://plant.openai.azure.com"));
        assert_eq!(text(0, "api_version").as_deref(), Some("2024-10-21"));
        assert_eq!(text(0, "key_file").as_deref(), Some("/etc/forebay/keys/azure-api-key"));
        assert_eq!(text(1, "key_file").as_deref(), Some("/etc/forebay/keys/openai-key"));
        assert_eq!(text(2, "key_file").as_deref(), Some("/etc/forebay/keys/openrouter-api-key"));
        assert_eq!((text(3, "kind").as_deref(), text(3, "key_file")), (Some("ollama"), None));
        let everything = format!("{ours:?}{remarks}");
        for secret in ["sk-secret-of-the-plant", "sk-1234"] {
            assert!(!everything.contains(secret));
        }
        assert!(remarks.contains("provider azure: write what $AZURE_API_KEY has into /etc/forebay/keys/azure-api-key"));
        assert!(remarks.contains("provider openai: its key stands in the file that was imported"));
    }

    #[test]
    fn what_could_not_be_taken_is_said_with_its_line() {
        let (ours, remarks) = import(WHOLE);
        assert_eq!(ours.route.len(), 3);
        for remark in [
            "line 23: model gpt-4o: litellm_params.temperature is not taken",
            "line 35: model pictures: left out: \"dall-e-3\" does not say whose model it is",
            "model drawings: left out: nothing here answers requests of the mode image_generation",
            "model elsewhere: left out: \"replicate/meta/llama\" does not say whose model it is, or there is no kind of provider",
            "litellm_settings.callbacks is not taken",
            "model gpt-4o: its fallback nobody is left out: no group has that name",
            "the master key is not taken",
            "general_settings.alerting is not taken",
            "guardrails is not taken",
            "thirty days have become a calendar month",
        ] {
            assert!(remarks.contains(remark), "{remark}\nis not in\n{remarks}");
        }
        assert!(!remarks.contains("drop_params") && !remarks.contains("base_model"), "{remarks}");
    }

    #[test]
    fn prices_and_budgets_are_taken_exactly() {
        let (ours, _) = import(WHOLE);
        let models = ours.prices["model"].as_array().unwrap();
        assert_eq!(models[0]["like"].as_str(), Some("azure/gpt-4o"));
        assert_eq!(models[1]["usd_per_million_tokens"]["input"].as_float(), Some(0.15));
        assert_eq!(models[1]["usd_per_million_tokens"]["output"].as_float(), Some(0.6));
        let limit = &ours.quota["limit"].as_array().unwrap()[0];
        assert_eq!(limit["usd_per_month"].as_str(), Some("100.500000"));
    }

    #[test]
    fn a_group_with_one_deployment_retries_it_as_often_as_there() {
        let (ours, _) = import(
            "model_list: [{model_name: m, litellm_params: {model: groq/llama}}]\nlitellm_settings: {num_retries: 5}",
        );
        let retries = &ours.route[0].retries;
        assert_eq!((retries.attempts_max, retries.same_candidate_max), (6, 5));
        assert_eq!(ours.route[0].strategy, Strategy::Priority);
    }

    #[test]
    fn the_same_deployment_twice_is_one_with_twice_the_share() {
        let one = "{model_name: m, litellm_params: {model: groq/a}}";
        let (ours, _) =
            import(&format!("model_list: [{one}, {one}, {{model_name: m, litellm_params: {{model: groq/b}}}}]"));
        let weights: Vec<_> = ours.route[0].candidate.iter().map(|one| one.weight).collect();
        assert_eq!(weights, [2, 1]);
    }

    #[test]
    fn weights_that_are_fractions_keep_their_proportion() {
        let of = |model: &str, weight: &str| {
            format!("{{model_name: m, litellm_params: {{model: groq/{model}, weight: {weight}}}}}")
        };
        let (ours, _) = import(&format!("model_list: [{}, {}]", of("a", "0.9"), of("b", "0.1")));
        assert_eq!(ours.route[0].candidate.iter().map(|one| one.weight).collect::<Vec<_>>(), [1000, 111]);
    }

    #[test]
    fn tags_hold_only_where_the_router_looks_at_them() {
        let list = "model_list: [{model_name: m, litellm_params: {model: groq/a, tags: [free]}}]\n";
        assert!(import(list).0.route[0].candidate[0].when.tags.is_empty());
        let (ours, _) = import(&format!("{list}router_settings: {{enable_tag_filtering: true}}"));
        assert_eq!(ours.route[0].candidate[0].when.tags, ["free"]);
    }

    #[test]
    fn hostile_files_are_imported_or_refused_and_never_break_the_toml() {
        let long = "x".repeat(5000);
        for text in [
            "model_list: 7",
            "- a\n- b",
            "just a text",
            "model_list: [1, [2], {}, {model_name: {a: b}}, {model_name: m}, {model_name: m, litellm_params: 3}]",
            "model_list: [{model_name: \"a\\nb\\\"]\", litellm_params: {model: \"groq/x\\ny\", rpm: -1, timeout: 1e300}}]",
            "model_list: [{model_name: m, litellm_params: {model: groq/, weight: .nan, tags: {a: b}}}]",
            "model_list: [{model_name: '*', litellm_params: {model: '*'}}]",
            "model_list: [{model_name: m, litellm_params: {model: 'groq/*'}}]",
            "model_list: [{model_name: m, litellm_params: {model: groq/a, extra_headers: {\"a\\nb\": \"c\\nd\"}}}]",
            "router_settings: {fallbacks: {a: b}, model_group_alias: [x], num_retries: many, cooldown_time: -1}",
            &format!("model_list: [{{model_name: {long}, litellm_params: {{model: groq/{long}}}}}]"),
        ] {
            import(text);
        }
        assert!(litellm("a: [", &Options { keys: "k", variable: &|_| None }).is_err());
    }

    #[test]
    fn an_address_in_a_variable_that_is_not_set_leaves_the_deployment_out() {
        let (ours, remarks) = import(
            "model_list: [{model_name: m, litellm_params: {model: hosted_vllm/q, api_base: os.environ/NOT_SET}}]",
        );
        assert!(ours.route.is_empty());
        assert!(remarks.contains("its api_base is in the variable NOT_SET, which is not set here"), "{remarks}");
        let (ours, _) = import(
            "environment_variables: {NOT_SET: http://10.0.0.7:8000/v1}\nmodel_list: [{model_name: m, litellm_params: {model: hosted_vllm/q, api_base: os.environ/NOT_SET}}]",
        );
        assert_eq!(ours.route[0].candidate[0].reach, Some(crate::route::Reach::Site));
    }

    #[test]
    fn clouds_with_their_own_credentials_say_what_is_to_be_written_where() {
        let (ours, remarks) = import(
            "model_list:\n  - {model_name: a, litellm_params: {model: eu.anthropic.claude-x-v1:0, aws_region_name: eu-central-1, aws_secret_access_key: very-secret}}\n  \
             - {model_name: b, litellm_params: {model: vertex_ai/gemini-x, vertex_project: p, vertex_location: europe-west4, vertex_credentials: /etc/gcp.json}}\n  \
             - {model_name: c, litellm_params: {model: gemini-y}}\n",
        );
        let text = |at: usize, key: &str| ours.provider[at].get(key).and_then(toml::Value::as_str).map(str::to_owned);
        assert_eq!(text(0, "region").as_deref(), Some("eu-central-1"));
        assert_eq!(text(0, "key_file").as_deref(), Some("/etc/forebay/keys/bedrock-credentials"));
        assert_eq!(text(1, "key_file").as_deref(), Some("/etc/gcp.json"));
        assert_eq!((text(1, "project").as_deref(), text(1, "location").as_deref()), (Some("p"), Some("europe-west4")));
        assert_eq!(text(2, "key_file").as_deref(), Some("/etc/forebay/keys/vertex_ai-2.json"));
        assert!(
            remarks.contains("provider bedrock: write an AWS credentials file") && !remarks.contains("very-secret")
        );
    }

    fn any_entry() -> impl proptest::strategy::Strategy<Value = String> {
        use proptest::prelude::{any, prop};
        let text = || {
            prop::sample::select(vec![
                "gpt-4o",
                "groq/*",
                "a/*",
                "'*'",
                "openai/x",
                "azure/y",
                "ollama/z",
                "-1",
                "1e9",
                "[]",
                "{}",
                "~",
                "os.environ/AZURE_API_BASE",
                "\"\\u0000\\n\"",
                "\"\\U0001F600\"",
                "http://127.0.0.1:1/",
                "true",
                "0.5",
            ])
        };
        let keys = prop::sample::select(vec![
            "api_base",
            "api_key",
            "rpm",
            "tpm",
            "weight",
            "order",
            "timeout",
            "stream_timeout",
            "tags",
            "max_parallel_requests",
            "organization",
            "input_cost_per_token",
            "extra_headers",
            "custom_llm_provider",
            "aws_region_name",
        ]);
        (text(), text(), prop::collection::vec((keys, text()), 0..6), any::<bool>()).prop_map(
            |(name, model, more, information)| {
                let more: String = more.iter().map(|(key, value)| format!(", {key}: {value}")).collect();
                let information = if information {
                    ", model_info: {base_model: x/y, supports_vision: no, max_input_tokens: 7}"
                } else {
                    ""
                };
                format!("{{model_name: {name}, litellm_params: {{model: {model}{more}}}{information}}}")
            },
        )
    }
    use proptest::strategy::Strategy as _;

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 300, ..Default::default() })]

        /// Whatever stands there: what is printed is a configuration that this gateway takes.
        #[test]
        fn whatever_is_imported_is_valid(
            entries in proptest::prelude::prop::collection::vec(any_entry(), 0..8),
            strategy in proptest::prelude::prop::sample::select(vec!["simple-shuffle", "least-busy", "usage-based-routing", "[x]", "odd"]),
            retries in proptest::prelude::prop::sample::select(vec!["0", "3", "1000000", "-1", "x"]),
        ) {
            import(&format!(
                "model_list: [{}]\nrouter_settings: {{routing_strategy: {strategy}, num_retries: {retries}, cooldown_time: {retries}, \
                 allowed_fails: {retries}, enable_tag_filtering: true, fallbacks: [{{gpt-4o: [openai/x, '*'], '*': [azure/y]}}], \
                 model_group_alias: {{'a b': gpt-4o, c: openai/x, d: '*'}}}}\nlitellm_settings: {{max_budget: {retries}, budget_duration: 1d}}",
                entries.join(", ")
            ));
        }
    }
}
