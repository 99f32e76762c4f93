//! LiteLLM's own example configurations: imported, checked, started over a provider that has every model, and asked.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::gateway::{Gateway, Setup, forebay, http, said};
use crate::mock_provider::{Behaviour, Mock};
use crate::provider_fixture::SERVICE_ACCOUNT;

/// Where `tests/tools.sh` puts them.
fn examples() -> Vec<PathBuf> {
    let python = std::env::var("FOREBAY_PYTHON").expect("FOREBAY_PYTHON names the tests' Python: `make test` sets it");
    let folder = Path::new(&python).ancestors().nth(3).unwrap().join("litellm-1.108.11");
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| {
        panic!("{}: {error}; `bash tests/tools.sh test FOLDER` gets LiteLLM's examples", folder.display())
    });
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "{files:?}");
    files
}

/// The configuration that `forebay import litellm` prints, and what it says besides. Addresses in variables are `base`.
fn import(file: &Path, keys: &Path, base: &str) -> (String, String) {
    let text = std::fs::read_to_string(file).unwrap();
    let mut command = forebay();
    command.args(["import", "litellm"]).arg(file).arg("--keys").arg(keys).env("AWS_REGION", "eu-central-1");
    for name in text.split("os.environ/").skip(1) {
        let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        let value = if name.contains("REGION") { "eu-central-1" } else { base };
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
async fn every_example_is_imported_passes_the_check_and_answers_for_all_its_models() {
    let mock = Mock::start(Behaviour::default()).await;
    tokio::task::block_in_place(|| {
        let (mut answered, mut kinds) = (0, HashSet::new());
        for file in examples() {
            let keys = tempfile::tempdir().unwrap();
            let (imported, remarks) = import(&file, keys.path(), &mock.url("/v1"));
            for secret in ["sk-1234", "my-fake-key", "fake-key"] {
                assert!(!imported.contains(secret) && !remarks.contains(secret), "{}: {remarks}", file.display());
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
        assert!(answered >= 50, "{answered} models answered");
        assert!(kinds.len() >= 6, "{kinds:?}");
    });
}
