//! The description at `/openapi.json` against what the gateway answers: schemathesis makes requests from the one, good and
//! bad ones, and holds the other to it. Status codes, types and forms that are not described fail, and so does any 5xx.

use std::path::Path;
use std::process::Command;

use forebay::base::Digest;

use crate::gateway::{Gateway, PRESS, Setup, press_reading, said};
use crate::mock_provider::{Behaviour, Mock};

#[test]
fn every_answer_to_whatever_is_asked_is_as_described() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let gateway = Gateway::with(&Setup {
        access: "allow_anonymous_loopback = true\nanonymous_manage_models = true",
        models: Some(&root.join("tests/fixtures/models")),
        more: PRESS,
        ..Setup::default()
    });
    for n in 1..=20 {
        assert_eq!(gateway.post("/api/v1/streams/press/readings", &press_reading(n)).0, 202);
    }
    run(&gateway, "schemathesis.toml", &["--exclude-path-regex", MODELS]);
}

/// Paths of language models, and of those who look after them.
const MODELS: &str = "^/(v1/(chat|completions|responses|embeddings|moderations|messages|projects)|v1beta/|api/(chat|generate|embed|embeddings|tags|show|version)$|api/v1/(keys|tenants|calls|usage|limits|cache|audit)|v1/models(/.model.)?$)";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_about_language_models_is_as_described() {
    holds_over("openai", "/v1", MODELS).await;
}

/// Questions to models: translated ones, where OpenAI's dialect passes.
const QUESTIONS: &str =
    "^/(v1/(chat|responses|embeddings|messages|projects)|v1beta/|api/(chat|generate|embed|embeddings)$)";

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_claude_is_as_described() {
    holds_over("anthropic", "", QUESTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_gemini_is_as_described() {
    holds_over("gemini", "/v1beta", QUESTIONS).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_of_ollama_is_as_described() {
    holds_over("ollama", "", QUESTIONS).await;
}

/// These paths hold over a provider of that kind that answers every model, for an operator.
async fn holds_over(kind: &str, path: &str, paths: &str) {
    let mock = Mock::start(Behaviour::default()).await;
    tokio::task::block_in_place(|| {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("key");
        std::fs::write(&key, "sk-mock").unwrap();
        let boss = Digest::of(b"boss");
        let more = format!(
            "[[provider]]\nname = \"mock\"\nkind = \"{kind}\"\nbase_url = \"{}\"\nkey_file = {key:?}\n\
             [[route]]\nname = \"all\"\nmodels = [\"chat\", \"*\"]\ncandidate = [{{ provider = \"mock\" }}]\n\
             [[quota.limit]]\nlevel = \"key\"\ntokens_per_day = 1000000000\n\
             [cache]\nmax_bytes = 1000000\n[[cache.policy]]\nexact = true\n",
            mock.url(path)
        );
        let gateway = Gateway::with(&Setup {
            access: &format!("[[access.identity]]\nname = \"boss\"\nkey_sha256 = \"{boss}\"\nrole = \"operator\""),
            models: Some(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models")),
            more: &more,
            ..Setup::default()
        });
        let said = run(
            &gateway,
            "schemathesis_llm.toml",
            &["--include-path-regex", paths, "-H", "authorization: Bearer boss"],
        );
        assert!(!said.contains("Authentication failed"), "{said}");
    });
    assert!(mock.requests() > 20, "{} requests came through", mock.requests());
}

/// What schemathesis says, which must be that nothing is wrong.
fn run(gateway: &Gateway, settings: &str, more: &[&str]) -> String {
    let interpreter = std::env::var("FOREBAY_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut schemathesis = Command::new(&interpreter);
    schemathesis
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite").join(settings))
        .args(["run", &format!("http://{}/openapi.json", gateway.http), "--max-examples", "10", "--no-color"])
        .args(more)
        .current_dir(gateway.folder.path());
    let output = schemathesis
        .output()
        .unwrap_or_else(|error| panic!("{interpreter}: {error}; name a Python 3 in FOREBAY_PYTHON"));
    let (code, stdout, stderr) = said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("Tested: "), "{stdout}");
    stdout
}
