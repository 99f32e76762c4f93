//! Clients of language models over servers of the Open Inference Protocol, through the real binary: a mock that speaks as
//! Triton does, and another Forebay.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use forebay::base::Digest;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Setup, http};
use crate::mock_provider::{Behaviour, Mock};

/// A gateway whose app `app` has its name for a key.
fn gateway(more: &str, models: Option<&Path>) -> Gateway {
    let digest = Digest::of(b"app");
    let access = format!("[[access.identity]]\nname = 'app'\nkey_sha256 = '{digest}'\n");
    Gateway::with(&Setup { access: &access, models, more, ..Setup::default() })
}

fn provider(base_url: &str, models: &str) -> String {
    let mut text = format!("[[provider]]\nname = 'triton'\nkind = 'oip'\nbase_url = '{base_url}'\nmodels = {models}\n");
    writeln!(text, "[[route]]\nname = 'triton'\nmodels = ['triton/*']").unwrap();
    text + "candidate = [{ provider = 'triton', model = '*' }]\nretries = { attempts_max = 1 }\n"
}

fn ask(gateway: &Gateway, path: &str, body: &Value) -> (u16, String) {
    http(gateway.http, "POST", path, "Authorization: Bearer app\r\n", &body.to_string()).unwrap()
}

fn json_of((status, text): (u16, String)) -> Value {
    assert_eq!(status, 200, "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// What became of a request that cannot be answered: the status, and the sentence.
fn refusal((status, text): (u16, String)) -> (u16, String) {
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (status, value["error"]["message"].as_str().unwrap_or_else(|| panic!("{value}")).to_owned())
}

const MODELS: &str = r#"["plain", "status-404", "error-2", { name = "e5", upstream = "e5@3", oip = { input = "TEXT",
    input_shape = [-1, 1], output = "embedding", shorten = true } }, { name = "told", oip = { stop = "stop_words",
    parameters = { return_finish_reason = true, return_num_input_tokens = true, return_num_output_tokens = true } } }]"#;

struct World {
    gateway: Gateway,
    mock: Mock,
    _runtime: Runtime,
}

fn world() -> World {
    let runtime = Runtime::new().unwrap();
    let mock = runtime.block_on(Mock::start(Behaviour::default()));
    let models = MODELS.replace('\n', " ");
    World { gateway: gateway(&provider(&mock.url(""), &models), None), mock, _runtime: runtime }
}

#[test]
fn vectors_of_a_server_of_tensors_reach_openais_callers() {
    let world = world();
    let body = json!({"model": "triton/plain", "input": ["a \"b\"", "c"]});
    let answer = json_of(ask(&world.gateway, "/v1/embeddings", &body));
    assert_eq!(answer["data"][1]["embedding"], json!([0.25, 0.25, 0.25, 0.25]));
    assert_eq!(answer["data"].as_array().unwrap().len(), 2);
    assert!(answer["usage"]["prompt_tokens"].as_u64() > Some(0), "{answer}");
    let seen = world.mock.last();
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v2/models/plain/infer"));
    let tensor = json!({"name": "text_input", "shape": [2], "datatype": "BYTES", "data": ["a \"b\"", "c"]});
    assert_eq!(seen.json(), json!({"inputs": [tensor]}));

    let body = json!({"model": "triton/e5", "input": "a", "encoding_format": "base64", "dimensions": 1});
    let answer = json_of(ask(&world.gateway, "/v1/embeddings", &body));
    assert_eq!(answer["data"][0]["embedding"], "AACAPw==", "one number, scaled to length 1");
    let seen = world.mock.last();
    assert_eq!(seen.path, "/v2/models/e5/versions/3/infer");
    let tensor = json!({"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": ["a"]});
    assert_eq!(seen.json(), json!({"inputs": [tensor], "outputs": [{"name": "embedding"}]}));

    let body = json!({"model": "triton/plain", "input": "a", "dimensions": 2});
    let (status, message) = refusal(ask(&world.gateway, "/v1/embeddings", &body));
    assert!(status == 400 && message.contains("`dimensions`"), "{status} {message}");
}

#[test]
fn a_text_is_completed_whole_and_in_pieces() {
    let world = world();
    let body = json!({"model": "triton/plain", "prompt": "Say it", "max_tokens": 9, "temperature": 0.5, "stop": "END"});
    let answer = json_of(ask(&world.gateway, "/v1/completions", &body));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["text"], "The press runs within its", "{answer}");
    let seen = world.mock.last();
    assert_eq!(seen.path, "/v2/models/plain/generate");
    let parameters =
        json!({"stream": false, "exclude_input_in_output": true, "max_tokens": 9, "stop": "END", "temperature": 0.5});
    assert_eq!(seen.json(), json!({"text_input": "Say it", "parameters": parameters}));

    let body = json!({"model": "triton/told", "prompt": "Say it", "stream": true, "stream_options": {"include_usage": true},
        "stop": ["a", "b"]});
    let (status, text) = ask(&world.gateway, "/v1/completions", &body);
    assert_eq!(status, 200, "{text}");
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let data = text.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let said: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(said, "The press runs within its");
    assert!(events.iter().any(|event| event["choices"][0]["finish_reason"] == "stop"), "{text}");
    let usage = &events.last().unwrap()["usage"];
    assert_eq!((&usage["prompt_tokens"], &usage["completion_tokens"]), (&json!(11), &json!(5)), "the server counted");
    let seen = world.mock.last();
    assert_eq!(seen.path, "/v2/models/told/generate_stream");
    assert_eq!(seen.json()["parameters"]["stop_words"], json!(["a", "b"]));
}

#[test]
fn what_such_a_server_cannot_be_asked_is_refused_with_the_reason_and_its_errors_arrive() {
    let world = world();
    let body = json!({"model": "triton/plain", "messages": [{"role": "user", "content": "Hello"}]});
    let (status, message) = refusal(ask(&world.gateway, "/v1/chat/completions", &body));
    assert!(status == 400 && message.contains("template") && message.contains("/v1/completions"), "{status} {message}");
    assert_eq!(world.mock.requests(), 0, "nobody was asked");
    let body = json!({"model": "triton/plain", "prompt": ["a", "b"]});
    let (status, message) = refusal(ask(&world.gateway, "/v1/completions", &body));
    assert!(status == 400 && message.contains("`prompt`"), "{status} {message}");

    let body = json!({"model": "triton/status-404", "prompt": "a"});
    let (status, message) = refusal(ask(&world.gateway, "/v1/completions", &body));
    assert_eq!((status, message.as_str()), (404, "the mock was told to answer 404"));
    let body = json!({"model": "triton/error-2", "prompt": "a", "stream": true});
    let (_, text) = ask(&world.gateway, "/v1/completions", &body);
    assert!(text.contains("\" press\""), "{text}");
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "no half answer passes for a whole one: {text}");
}

#[test]
fn another_forebay_gives_the_vectors_of_its_text_model() {
    let models: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/texts");
    let other = Gateway::with(&Setup { models: Some(&models), ..Setup::default() });
    let here = gateway(&provider(&format!("http://{}", other.http), "['words']"), None);
    let body = json!({"model": "triton/words", "input": ["all is well", "the bearing runs hot", "something else"]});
    let answer = json_of(ask(&here, "/v1/embeddings", &body));
    let vectors: Vec<&Value> = answer["data"].as_array().unwrap().iter().map(|one| &one["embedding"]).collect();
    assert_eq!(json!(vectors), json!([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]));
    let body = json!({"model": "triton/words", "prompt": "all is well"});
    let (status, message) = refusal(ask(&here, "/v1/completions", &body));
    assert!((400..500).contains(&status), "it has no generate: {status} {message}");
}
