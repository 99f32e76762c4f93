//! LiteLLM's own example configurations: imported, checked, started over a provider that has every model, and asked.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use crate::gateway::{Gateway, Setup, forebay, http, said};
use crate::mock_provider::{Behaviour, Mock};
use crate::provider_fixture::SERVICE_ACCOUNT;

/// All that is left out of the examples: file, model, and a part of the reason. Every other model of theirs answers.
const LEFT_OUT: [(&str, &str, &str); 14] = [
    ("adaptive_router_example.yaml", "smart-cheap-router", "\"auto_router/adaptive_router\" does not say whose"),
    ("dev_config.yaml", "voyage-4-large", "\"voyage/voyage-4-large\" does not say whose"),
    ("dev_config.yaml", "azure-haiku-4-5", "\"azure_ai/claude-haiku-4-5\" does not say whose"),
    ("dev_config.yaml", "azure-sonnet-4-5", "\"azure_ai/claude-sonnet-4-5\" does not say whose"),
    ("dev_config.yaml", "azure-opus-4-5", "\"azure_ai/claude-opus-4-5\" does not say whose"),
    ("dev_config.yaml", "azure-sonnet-4-6", "\"azure_ai/claude-sonnet-4-6\" does not say whose"),
    ("dev_config.yaml", "azure-opus-4-6", "\"azure_ai/claude-opus-4-6\" does not say whose"),
    ("dev_config.yaml", "azure-opus-4-7", "\"azure_ai/claude-opus-4-7\" does not say whose"),
    ("dev_config.yaml", "azure-opus-4-8", "\"azure_ai/claude-opus-4-8\" does not say whose"),
    ("langfuse_config.yaml", "gpt-3.5-turbo", "it has no litellm_params"),
    ("load_balancer.yaml", "mistral-7b-instruct", "\"mistralai/mistral-7b-instruct\" does not say whose"),
    ("oai_misc_config.yaml", "bedrock/batch-us.anthropic.claude-haiku-4-5-20251001-v1:0", "the mode batch"),
    ("otel_test_config.yaml", "rerank-english-v3.0", "\"cohere/rerank-english-v3.0\" does not say whose"),
    ("wildcard_config.yaml", "azure_ai/*", "\"azure_ai/*\" does not say whose"),
];
/// Examples without a model that could be asked: of the first nothing is left, the second has guardrails only.
const WITHOUT_ROUTES: [&str; 2] =
    ["langfuse_config.yaml", "guardrails-guardrail_hooks-ibm_guardrails-example_config.yaml"];

/// What `tests/tools.sh` takes out of LiteLLM's wheel.
pub(crate) fn litellm(name: &str) -> PathBuf {
    let python = std::env::var("FOREBAY_PYTHON").expect("FOREBAY_PYTHON names the tests' Python: `make test` sets it");
    let path = Path::new(&python).ancestors().nth(3).unwrap().join("litellm-1.108.11-files").join(name);
    assert!(path.exists(), "{} is not there; `bash tests/tools.sh test FOLDER` gets it", path.display());
    path
}

fn examples() -> Vec<PathBuf> {
    let files = std::fs::read_dir(litellm("configs")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert_eq!(files.len(), 30, "{files:?}");
    files
}

/// The models that the remarks say are left out, and why.
fn left_out(remarks: &str) -> Vec<(String, String)> {
    let of = |line: &str| {
        let (_, rest) = line.split_once(": model ")?;
        let (model, why) = rest.split_once(": left out: ")?;
        Some((model.to_owned(), why.to_owned()))
    };
    remarks.lines().filter_map(of).collect()
}

/// The configuration that `forebay import litellm` prints, and what it says besides. Addresses in variables are `base`.
fn import(file: &Path, keys: &Path, base: &str) -> (String, String) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut command = forebay();
    command.args(["import", "litellm"]).arg(file).arg("--keys").arg(keys).env("AWS_REGION", "eu-central-1");
    for name in text.split("os.environ/").skip(1) {
        let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let value = match &name {
            name if name.contains("REGION") => "eu-central-1",
            name if name.contains("PROJECT") => "plant-1",
            _ => base,
        };
        command.env(name, value);
    }
    let (code, stdout, stderr) = said(command.output().unwrap());
    assert_eq!(code, Some(0), "{}: {stderr}", file.display());
    (stdout, stderr)
}

/// The same with every provider at the mock.
fn at_the_mock(config: &str, mock: &Mock) -> String {
    let mut text = String::new();
    for line in config.lines().filter(|line| !line.starts_with("base_url = ")) {
        text.push_str(line);
        text.push('\n');
        if let Some(kind) = line.strip_prefix("kind = ") {
            let whole =
                ["openai", "mistral", "groq", "huggingface", "openai-compatible"].contains(&kind.trim_matches('"'));
            let base = mock.url(if whole { "/v1" } else { "" });
            text.push_str(&format!("base_url = {base:?}\n"));
        }
    }
    text
}

/// Files with keys where the configuration wants them, each as its provider has it.
fn write_keys(config: &str, mock: &Mock) {
    let mut kind = "";
    for line in config.lines() {
        if let Some(of) = line.strip_prefix("kind = ") {
            kind = of.trim_matches('"');
        }
        let Some(path) = line.strip_prefix("key_file = ") else { continue };
        let key = match kind {
            "bedrock" | "sagemaker" => "[default]\naws_access_key_id = a\naws_secret_access_key = b\n".to_owned(),
            "vertex" => SERVICE_ACCOUNT.replace("http://127.0.0.1:1/token", &mock.url("/token")),
            _ => "sk-mock".to_owned(),
        };
        std::fs::write(path.trim_matches('"'), key).unwrap();
    }
}

/// A model that each route answers for, with the tags that it wants.
fn asked(config: &str) -> Vec<(String, String)> {
    let config: toml::Table = toml::from_str(config).unwrap();
    let routes = config.get("route").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    let of = |route: &toml::Value| {
        let model = route["models"][0].as_str().unwrap().replace('*', "some-model");
        let tags = route["candidate"].as_array().unwrap().iter().find_map(|one| {
            let tags = one.get("when")?.get("tags")?.as_array()?;
            Some(tags.iter().filter_map(toml::Value::as_str).collect::<Vec<_>>().join(", "))
        });
        (model, tags.unwrap_or_default())
    };
    routes.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_imported_passes_the_check_and_answers_for_all_its_models_but_those_that_are_named() {
    let mock = Mock::start(Behaviour::default()).await;
    tokio::task::block_in_place(|| {
        let (mut answered, mut kinds) = (0, HashSet::new());
        let (mut left, mut without) = (BTreeSet::new(), BTreeSet::new());
        for file in examples() {
            let name = file.file_name().unwrap().to_str().unwrap().to_owned();
            let keys = tempfile::tempdir().unwrap();
            let (imported, remarks) = import(&file, keys.path(), &mock.url("/v1"));
            for secret in ["sk-1234", "my-fake-key", "fake-key"] {
                assert!(!imported.contains(secret) && !remarks.contains(secret), "{}: {remarks}", file.display());
            }
            for (model, why) in left_out(&remarks) {
                let known =
                    LEFT_OUT.iter().find(|(of, named, part)| *of == name && *named == model && why.contains(part));
                left.insert(known.unwrap_or_else(|| panic!("{name}: {model} is left out: {why}")));
            }
            write_keys(&imported, &mock);
            let config = at_the_mock(&imported, &mock);
            let asked = asked(&config);
            if asked.is_empty() {
                assert!(
                    remarks.contains("no deployment in model_list that could be taken"),
                    "{}: {remarks}",
                    file.display()
                );
                without.insert(name);
                continue;
            }
            kinds.extend(config.lines().filter_map(|line| line.strip_prefix("kind = ")).map(str::to_owned));
            let none = keys.path().join("models");
            std::fs::create_dir(&none).unwrap();
            let gateway = Gateway::with(&Setup { models: Some(&none), more: &config, ..Setup::default() });
            let path = gateway.folder.path().join("forebay.toml");
            let check = said(forebay().args(["check", "--config"]).arg(path).output().unwrap());
            assert!(check.0 == Some(0) && check.1.contains(": fine; "), "{}: {}", file.display(), check.1);
            for (model, tags) in asked {
                let body = format!(r#"{{"model":{model:?},"messages":[{{"role":"user","content":"Hello"}}]}}"#);
                let tags = if tags.is_empty() { tags } else { format!("x-forebay-tags: {tags}\r\n") };
                let (status, body) = http(gateway.http, "POST", "/v1/chat/completions", &tags, &body).unwrap();
                assert_eq!(status, 200, "{}: {model}: {body}\n{config}", file.display());
                answered += 1;
            }
        }
        assert_eq!(left.len(), LEFT_OUT.len(), "what is named is left out: {left:?}");
        assert_eq!(without, WITHOUT_ROUTES.map(str::to_owned).into());
        assert!(answered >= 75, "{answered} models answered");
        assert!(kinds.len() >= 6, "{kinds:?}");
    });
}
