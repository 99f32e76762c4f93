//! Models of the box through the program and its doors: a decoder that has learned nothing (`tests/fixtures/generate.py`) speaks, an
//! encoder embeds (`tests/fixtures/transformer.py`).

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use forebay::base::Digest;
use forebay::generate::Tokenizer;
use serde_json::{Value, json};

use crate::gateway::{Gateway, Setup, poll};
use crate::mock_provider::{Behaviour, Mock};

/// Words that the encoder below knows; it takes 12 tokens of 32.
const TOKENIZER: &str = r#"{
    "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
    "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
    "post_processor": {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]}}},
    "model": {"type": "WordLevel", "unk_token": "[UNK]",
        "vocab": {"[PAD]": 0, "[CLS]": 1, "[UNK]": 2, "is": 3, "the": 4, "pump": 5, "hot": 6, "cold": 7, "?": 8, "valve": 9}}
}"#;

fn fixture(path: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(path)).unwrap()
}

/// A models' folder with `talker` and `texts`.
fn models() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |model: &str, format: &str, beside: &[(&str, Vec<u8>)], file: Vec<u8>| {
        let place = folder.path().join(model).join("1");
        std::fs::create_dir_all(&place).unwrap();
        let mut manifest = format!(
            "[model]\nname = \"{model}\"\nversion = 1\ntask = \"text\"\nfile = \"model.{format}\"\nsha256 = \"{}\"\nformat = \"{format}\"\nlicense = \"MIT\"\n",
            Digest::of(&file)
        );
        for (name, bytes) in beside {
            write!(manifest, "[[file]]\nname = \"{name}\"\nsha256 = \"{}\"\n", Digest::of(bytes)).unwrap();
            std::fs::write(place.join(name), bytes).unwrap();
        }
        std::fs::write(place.join(format!("model.{format}")), file).unwrap();
        std::fs::write(place.join("manifest.toml"), manifest).unwrap();
    };
    write("talker", "gguf", &[], fixture("generate/model.gguf"));
    let beside = ["config.json", "pooling.json", "modules.json"];
    let mut beside: Vec<_> = beside.map(|name| (name, fixture(&format!("transformer/bert/{name}")))).into();
    beside.push(("tokenizer.json", TOKENIZER.as_bytes().to_vec()));
    write("texts", "safetensors", &beside, fixture("transformer/bert/model.safetensors"));
    folder
}

/// A page of the office, such as `calls?id=7`.
fn office(gateway: &Gateway, page: &str) -> Value {
    let (status, body) = crate::gateway::http(gateway.http, "GET", &format!("/api/v1/{page}"), "", "").unwrap();
    assert_eq!(status, 200, "{page}: {body}");
    serde_json::from_str(&body).unwrap()
}

/// The record of a request, once it is written.
fn record(gateway: &Gateway, id: &str) -> Value {
    poll(&format!("a record of {id}"), || office(gateway, &format!("calls?id={id}"))["calls"].get(0).cloned())
}

fn gateway(models: &Path, more: &str) -> Gateway {
    Gateway::with(&Setup { models: Some(models), more, ..Setup::default() })
}

/// Status, headers as they came, and the body.
struct Told {
    status: u16,
    head: String,
    body: String,
}

impl Told {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.head, self.body))
    }

    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or("")
    }

    /// The data of server-sent events that are JSON.
    fn events(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|line| line.strip_prefix("data: "));
        data.filter_map(|data| serde_json::from_str(data).ok()).collect()
    }
}

fn post(gateway: &Gateway, path: &str, headers: &str, body: &Value) -> Told {
    let mut stream = TcpStream::connect(gateway.http).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let body = body.to_string();
    let head = format!(
        "POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{headers}\r\n",
        gateway.http,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Told { status, head: head.to_owned(), body: body.to_owned() }
}

fn question() -> Value {
    json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is the pump hot?"}])
}

fn chat(more: &Value) -> Value {
    let mut body = json!({"model": "talker", "messages": question(), "max_tokens": 12, "seed": 7});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn metric(gateway: &Gateway, name: &str) -> f64 {
    let (_, text) = crate::gateway::http(gateway.http, "GET", "/metrics", "", "").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

#[test]
fn a_language_model_of_the_box_answers_in_every_dialect_without_a_route() {
    let models = models();
    let gateway = gateway(models.path(), "");
    let whole = post(&gateway, "/v1/chat/completions", "", &chat(&json!({})));
    assert_eq!(whole.status, 200, "{}", whole.body);
    assert_eq!((whole.header("x-forebay-model"), whole.header("x-forebay-attempts")), ("local/talker", "1"));
    let told = whole.json();
    let text = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty() && told["model"] == "talker", "{told}");
    assert_eq!(
        (&told["choices"][0]["finish_reason"], &told["usage"]["completion_tokens"]),
        (&json!("length"), &json!(12))
    );
    assert!(told["usage"]["prompt_tokens"].as_u64().unwrap() > 10);

    // The same seed says the same, in pieces too.
    let stream = post(
        &gateway,
        "/v1/chat/completions",
        "",
        &chat(&json!({"stream": true, "stream_options": {"include_usage": true}})),
    );
    let events = stream.events();
    let said: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(said, text);
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 12);
    assert!(stream.body.ends_with("data: [DONE]\n\n"), "{}", stream.body);

    let anthropic = json!({"model": "talker", "max_tokens": 12, "temperature": 0, "system": "Be brief.",
        "messages": [{"role": "user", "content": "Is the pump hot?"}]});
    let greedy = post(&gateway, "/v1/chat/completions", "", &chat(&json!({"temperature": 0}))).json();
    let greedy = greedy["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    let told = post(&gateway, "/v1/messages", "anthropic-version: 2023-06-01\r\n", &anthropic).json();
    assert_eq!((&told["content"][0]["text"], &told["stop_reason"]), (&json!(greedy), &json!("max_tokens")));
    let gemini = json!({"systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [{"role": "user", "parts": [{"text": "Is the pump hot?"}]}],
        "generationConfig": {"temperature": 0, "maxOutputTokens": 12}});
    let told = post(&gateway, "/v1beta/models/talker:generateContent", "", &gemini).json();
    assert_eq!(told["candidates"][0]["content"]["parts"][0]["text"], greedy, "{told}");
    let interaction = json!({"model": "talker", "system_instruction": "Be brief.", "input": "Is the pump hot?",
        "generation_config": {"temperature": 0, "max_output_tokens": 12}});
    let told = post(&gateway, "/v1beta/interactions", "", &interaction).json();
    assert_eq!(told["steps"][0]["content"][0]["text"], greedy, "{told}");
    assert_eq!(told["status"], "incomplete", "the limit was met: {told}");
    let ollama = json!({"model": "talker", "messages": question(), "stream": false, "options": {"temperature": 0, "num_predict": 12}});
    let told = post(&gateway, "/api/chat", "", &ollama).json();
    assert_eq!((&told["message"]["content"], &told["done"]), (&json!(greedy), &json!(true)), "{told}");
    let responses = json!({"model": "talker", "temperature": 0, "max_output_tokens": 12, "instructions": "Be brief.", "input": "Is the pump hot?"});
    let told = post(&gateway, "/v1/responses", "", &responses).json();
    assert_eq!(told["output"][0]["content"][0]["text"], greedy, "{told}");

    let list = gateway.get("/v1/models");
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(names, ["talker", "texts"]);
    let tags = gateway.get("/api/tags");
    let talker =
        tags["models"].as_array().unwrap().iter().find(|model| model["name"].as_str().unwrap().starts_with("talker"));
    assert_eq!(talker.unwrap()["details"]["family"], "qwen2", "{tags}");
    let calls = poll("eight calls are recorded", || {
        let calls = gateway.get("/api/v1/calls");
        (calls["calls"].as_array()?.len() == 8).then_some(calls)
    });
    let call = &calls["calls"][0];
    assert_eq!(
        (&call["candidate"], &call["output_tokens"], &call["status"]),
        (&json!("local/talker"), &json!(12), &json!(200)),
        "{call}"
    );
}

#[test]
fn completions_go_on_with_a_text_and_tell_their_probabilities() {
    let models = models();
    let gateway = gateway(models.path(), "");
    let body = json!({"model": "talker", "prompt": "The pump", "max_tokens": 5, "temperature": 0, "logprobs": 2});
    let told = post(&gateway, "/v1/completions", "", &body).json();
    let choice = &told["choices"][0];
    assert_eq!(choice["logprobs"]["tokens"].as_array().unwrap().len(), 5, "{told}");
    assert_eq!(choice["logprobs"]["top_logprobs"][0].as_object().unwrap().len(), 2);
    let mut stream = body.clone();
    stream["stream"] = json!(true);
    let events = post(&gateway, "/v1/completions", "", &stream).events();
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(json!(text), choice["text"]);
    // Ollama's generate is a chat of one message here.
    let told = post(
        &gateway,
        "/api/generate",
        "",
        &json!({"model": "talker", "prompt": "Hot?", "stream": false, "options": {"num_predict": 3, "temperature": 0}}),
    );
    assert_eq!((told.status, told.json()["eval_count"].as_u64()), (200, Some(3)), "{}", told.body);
}

#[test]
fn what_a_model_of_the_box_cannot_do_goes_to_the_next_candidate_or_is_refused_in_words() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mock = runtime.block_on(Mock::bind("127.0.0.1:0".parse().unwrap(), Behaviour::default())).unwrap();
    let models = models();
    let more = format!(
        "[[provider]]\nname = \"plant\"\nkind = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\n\
         [[route]]\nname = \"both\"\nmodels = [\"both\"]\n\
         [[route.candidate]]\nprovider = \"local\"\nmodel = \"talker\"\n\
         [[route.candidate]]\nprovider = \"plant\"\nmodel = \"large\"\nreach = \"site\"\n",
        mock.address()
    );
    let gateway = gateway(models.path(), &more);
    let mut body = chat(&json!({"model": "both", "n": 2}));
    let told = post(&gateway, "/v1/chat/completions", "", &body);
    assert_eq!((told.status, told.header("x-forebay-model")), (200, "plant/large"), "{} {}", told.head, told.body);
    body["model"] = json!("talker");
    let told = post(&gateway, "/v1/chat/completions", "", &body);
    assert_eq!(told.status, 400, "{}", told.body);
    let message = told.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("n must be 1"), "{message}");
    let format = |schema: Value| json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}});
    for (more, says) in [
        (json!({"tools": [], "tool_choice": "required"}), "tools: expected at least one"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "tool_choice: expected the name of one of the tools, given g",
        ),
        (json!({"tool_choice": "maybe"}), "must be auto, none, required"),
        (format(json!({"properties": {"a": {"not": {}}}})), "schema.properties.a.not: expected a keyword"),
        (format(json!({"type": "string", "pattern": "(?=a)"})), "schema: expected a schema of those keywords"),
        (json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}), "given none"),
        (json!({"response_format": {"type": "grammar"}}), "cannot promise the response format grammar"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]}),
            "image_url",
        ),
        (json!({"temperature": 9}), "temperature"),
        (json!({"logit_bias": {"x": 1}}), "logit_bias"),
        (json!({"messages": [{"role": "pirate", "content": "a"}]}), "messages[0].role"),
        (json!({"messages": [{"role": "user", "content": "pump ".repeat(40_000)}]}), "tokens"),
    ] {
        let told = post(&gateway, "/v1/chat/completions", "", &chat(&more));
        assert!(told.status == 400 && told.body.contains(says), "{says}: {} {}", told.status, told.body);
    }
    let told = post(&gateway, "/v1/chat/completions", "x-forebay-reach: box\r\n", &chat(&json!({"model": "both"})));
    assert_eq!((told.status, told.header("x-forebay-model")), (200, "local/talker"));
}

/// A reading that has an end, as the schema of it says.
fn reading() -> Value {
    json!({"type": "object", "required": ["part", "level"], "additionalProperties": false,
        "properties": {"part": {"$ref": "#/$defs/part"}, "level": {"type": "integer", "minimum": 0, "maximum": 100}},
        "$defs": {"part": {"type": "string", "enum": ["pump", "valve"]}}})
}

fn is_reading(value: &Value) -> bool {
    let level = value["level"].as_i64();
    value.as_object().is_some_and(|members| members.len() == 2)
        && matches!(value["part"].as_str(), Some("pump" | "valve"))
        && level.is_some_and(|level| (0..=100).contains(&level))
}

fn says_reading(text: &Value) -> bool {
    text.as_str().and_then(|text| serde_json::from_str(text).ok()).is_some_and(|value| is_reading(&value))
}

#[test]
fn a_schema_shapes_the_answer_and_a_tool_that_must_be_called_is_called_in_every_dialect() {
    let models = models();
    let gateway = gateway(models.path(), "");
    let ask = |path: &str, body: Value| {
        let told = post(&gateway, path, "anthropic-version: 2023-06-01\r\n", &body);
        assert_eq!(told.status, 200, "{path} {} {}", told.head, told.body);
        told
    };
    let turn = json!([{"role": "user", "content": "Is the pump hot?"}]);
    let format =
        json!({"type": "json_schema", "json_schema": {"name": "reading", "strict": true, "schema": reading()}});
    let body =
        json!({"model": "talker", "messages": turn, "temperature": 0, "max_tokens": 150, "response_format": format});
    let told = ask("/v1/chat/completions", body.clone()).json();
    let choice = &told["choices"][0];
    assert!(choice["finish_reason"] == "stop" && says_reading(&choice["message"]["content"]), "{told}");
    let mut stream = body;
    stream["stream"] = json!(true);
    let events = ask("/v1/chat/completions", stream).events();
    let said: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(says_reading(&json!(said)), "{said}");
    let body = json!({"model": "talker", "input": "Hot?", "temperature": 0, "max_output_tokens": 150,
        "text": {"format": {"type": "json_schema", "name": "reading", "strict": true, "schema": reading()}}});
    let told = ask("/v1/responses", body).json();
    assert!(says_reading(&told["output"][0]["content"][0]["text"]) && told["status"] == "completed", "{told}");
    let body = json!({"model": "talker", "temperature": 0, "max_tokens": 150, "messages": turn,
        "output_config": {"format": {"type": "json_schema", "schema": reading()}}});
    let told = ask("/v1/messages", body).json();
    assert!(says_reading(&told["content"][0]["text"]) && told["stop_reason"] == "end_turn", "{told}");
    let contents = json!([{"role": "user", "parts": [{"text": "Hot?"}]}]);
    let schema = json!({"type": "OBJECT", "required": ["part", "level"], "propertyOrdering": ["part", "level"],
        "properties": {"part": {"type": "STRING", "enum": ["pump", "valve"]}, "level": {"type": "INTEGER", "minimum": 0, "maximum": 100, "format": "int32"}},
        "additionalProperties": false});
    let settings = json!({"temperature": 0, "maxOutputTokens": 150, "responseMimeType": "application/json", "responseSchema": schema});
    let told =
        ask("/v1beta/models/talker:generateContent", json!({"contents": contents, "generationConfig": settings}))
            .json();
    assert!(says_reading(&told["candidates"][0]["content"]["parts"][0]["text"]), "{told}");
    let body = json!({"model": "talker", "input": "Hot?", "generation_config": {"temperature": 0, "max_output_tokens": 150},
        "response_format": {"type": "text", "mime_type": "application/json", "schema": reading()}});
    let told = ask("/v1beta/interactions", body).json();
    assert!(says_reading(&told["steps"][0]["content"][0]["text"]), "{told}");
    let body = json!({"model": "talker", "messages": turn, "stream": false, "format": reading(), "options": {"temperature": 0, "num_predict": 150}});
    let told = ask("/api/chat", body).json();
    assert!(says_reading(&told["message"]["content"]), "{told}");

    let function = json!({"name": "note", "description": "Notes.", "parameters": reading()});
    let tools = json!([{"type": "function", "function": function}]);
    for choice in [json!("required"), json!({"type": "function", "function": {"name": "note"}})] {
        let body = json!({"model": "talker", "messages": turn, "temperature": 0, "max_tokens": 150, "tools": tools, "tool_choice": choice});
        let told = ask("/v1/chat/completions", body).json();
        let function = &told["choices"][0]["message"]["tool_calls"][0]["function"];
        assert!(function["name"] == "note" && says_reading(&function["arguments"]), "{told}");
        assert_eq!(told["choices"][0]["finish_reason"], "tool_calls");
    }
    let tool = json!({"type": "function", "name": "note", "parameters": reading(), "strict": true});
    let body = json!({"model": "talker", "input": "Hot?", "temperature": 0, "max_output_tokens": 150, "tools": [tool],
        "tool_choice": {"type": "function", "name": "note"}});
    let told = ask("/v1/responses", body).json();
    assert!(says_reading(&told["output"][0]["arguments"]), "{told}");
    let tool = json!({"name": "note", "input_schema": reading()});
    for choice in [json!({"type": "any"}), json!({"type": "tool", "name": "note"})] {
        let body = json!({"model": "talker", "temperature": 0, "max_tokens": 150, "messages": turn, "tools": [tool], "tool_choice": choice, "stream": true});
        let events = ask("/v1/messages", body).events();
        let part = |name: &str| events.iter().filter_map(|event| event["delta"][name].as_str()).collect::<String>();
        assert!(says_reading(&json!(part("partial_json"))) && part("stop_reason") == "tool_use", "{events:?}");
    }
    let declared = json!([{"functionDeclarations": [{"name": "note", "parametersJsonSchema": reading()}]}]);
    let body = json!({"contents": contents, "tools": declared, "generationConfig": {"temperature": 0, "maxOutputTokens": 150},
        "toolConfig": {"functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["note"]}}});
    let told = ask("/v1beta/models/talker:generateContent", body).json();
    assert!(is_reading(&told["candidates"][0]["content"]["parts"][0]["functionCall"]["args"]), "{told}");

    let cut = json!({"model": "talker", "messages": turn, "max_tokens": 2, "tools": tools, "tool_choice": "required"});
    assert_eq!(ask("/v1/chat/completions", cut).json()["choices"][0]["finish_reason"], "length");
    let wrong = json!({"model": "talker", "max_tokens": 9, "messages": turn,
        "tools": [{"name": "note", "input_schema": {"type": "object", "not": {}}}], "tool_choice": {"type": "any"}});
    let told = post(&gateway, "/v1/messages", "anthropic-version: 2023-06-01\r\n", &wrong);
    let error = told.json();
    assert_eq!((told.status, &error["error"]["type"]), (400, &json!("invalid_request_error")), "{error}");
    assert!(error["error"]["message"].as_str().unwrap().contains("parameters.not: expected a keyword"), "{error}");
}

#[test]
fn beside_a_schema_a_tool_may_be_called_and_the_model_chooses_in_every_dialect() {
    let models = models();
    let gateway = gateway(models.path(), "");
    let ask = |path: &str, body: &Value| {
        let told = post(&gateway, path, "anthropic-version: 2023-06-01\r\n", body);
        assert_eq!(told.status, 200, "{path} {} {}", told.head, told.body);
        told.json()
    };
    let turn = json!([{"role": "user", "content": "Is the pump hot?"}]);
    let format = json!({"type": "json_schema", "json_schema": {"name": "reading", "schema": reading()}});
    let tools = json!([{"type": "function", "function": {"name": "note", "parameters": reading()}}]);
    let body = |seed: u64| {
        json!({"model": "talker", "messages": turn, "seed": seed, "temperature": 2, "max_tokens": 150,
            "response_format": format, "tools": tools})
    };
    let (mut said, mut called) = (0, 0);
    for seed in 0..200 {
        let told = ask("/v1/chat/completions", &body(seed));
        let choice = &told["choices"][0];
        let function = &choice["message"]["tool_calls"][0]["function"];
        match choice["finish_reason"].as_str() {
            Some("stop") if says_reading(&choice["message"]["content"]) => said += 1,
            Some("tool_calls") if function["name"] == "note" && says_reading(&function["arguments"]) => called += 1,
            _ => panic!("{told}"),
        }
        if said > 0 && called > 0 {
            break;
        }
    }
    assert!(said > 0 && called > 0, "{said} answers, {called} calls");

    // No tools are no other form.
    for none in [json!(null), json!([])] {
        let mut without = body(1);
        without["tools"] = none;
        let told = ask("/v1/chat/completions", &without);
        let choice = &told["choices"][0];
        assert!(choice["finish_reason"] == "stop" && says_reading(&choice["message"]["content"]), "{told}");
    }

    // Which of them comes is the model's choice; that it is one of them holds everywhere.
    let told = ask(
        "/v1/responses",
        &json!({"model": "talker", "input": "Hot?", "temperature": 0, "max_output_tokens": 150,
        "tools": [{"type": "function", "name": "note", "parameters": reading()}],
        "text": {"format": {"type": "json_schema", "name": "reading", "schema": reading()}}}),
    );
    let item = &told["output"][0];
    assert!(says_reading(&item["content"][0]["text"]) || says_reading(&item["arguments"]), "{told}");
    let told = ask(
        "/v1/messages",
        &json!({"model": "talker", "temperature": 0, "max_tokens": 150, "messages": turn,
        "tools": [{"name": "note", "input_schema": reading()}], "output_config": {"format": {"type": "json_schema", "schema": reading()}}}),
    );
    let block = &told["content"][0];
    assert!(says_reading(&block["text"]) || is_reading(&block["input"]), "{told}");
    let told = ask(
        "/v1beta/models/talker:generateContent",
        &json!({
        "contents": [{"role": "user", "parts": [{"text": "Hot?"}]}],
        "tools": [{"functionDeclarations": [{"name": "note", "parametersJsonSchema": reading()}]}],
        "generationConfig": {"temperature": 0, "maxOutputTokens": 150, "responseMimeType": "application/json", "responseJsonSchema": reading()}}),
    );
    let part = &told["candidates"][0]["content"]["parts"][0];
    assert!(says_reading(&part["text"]) || is_reading(&part["functionCall"]["args"]), "{told}");
    let told = ask(
        "/api/chat",
        &json!({"model": "talker", "messages": turn, "stream": false, "format": reading(), "tools": tools,
        "options": {"temperature": 0, "num_predict": 150}}),
    );
    let message = &told["message"];
    assert!(
        says_reading(&message["content"]) || is_reading(&message["tool_calls"][0]["function"]["arguments"]),
        "{told}"
    );
}

#[test]
fn the_official_sdks_read_shapes_that_a_model_of_the_box_was_held_to() {
    let models = models();
    let access = format!("[[access.identity]]\nname = 'app'\nkey_sha256 = '{}'\n", Digest::of(b"fb-app"));
    let gateway = Gateway::with(&Setup { models: Some(models.path()), access: &access, ..Setup::default() });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/llm_clients/local.py");
    let python = std::env::var_os("FOREBAY_PYTHON").unwrap_or_else(|| "python3".into());
    let output = std::process::Command::new(python)
        .arg(script)
        .arg(format!("http://{}", gateway.http))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .unwrap();
    let (code, stdout, stderr) = crate::gateway::said(output);
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}

#[test]
fn a_caller_who_leaves_ends_the_answer() {
    let models = models();
    let gateway = gateway(models.path(), "[generate]\nanswer_tokens_max = 8000\nsequences_max = 1\n");
    // Nothing ends it but its bound.
    let tokenizer = Tokenizer::of_gguf(&fixture("generate/model.gguf")).unwrap();
    let ends = (0..u32::try_from(tokenizer.len()).unwrap()).filter(|&token| tokenizer.is_end(token));
    let never: serde_json::Map<_, _> = ends.map(|token| (token.to_string(), json!(-100))).collect();
    let body = chat(&json!({"stream": true, "max_tokens": 8000, "logit_bias": never})).to_string();
    let mut stream = TcpStream::connect(gateway.http).unwrap();
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        gateway.http,
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    let mut some = [0; 64];
    stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&some));
    drop(stream);
    poll("the answer is called off", || (metric(&gateway, "forebay_generate_active") == 0.0).then_some(()));
    poll("the call is recorded", || {
        let calls = gateway.get("/api/v1/calls");
        let left =
            calls["calls"].as_array()?.iter().any(|call| call["status"] == 499 && call["candidate"] == "local/talker");
        left.then_some(())
    });
}

#[test]
fn texts_become_vectors_of_length_one_as_numbers_and_as_base64() {
    let models = models();
    let gateway = gateway(models.path(), "");
    let body = json!({"model": "texts", "input": ["Is the pump hot?", "valve"]});
    let told = post(&gateway, "/v1/embeddings", "", &body);
    assert_eq!(told.status, 200, "{}", told.body);
    let told = told.json();
    let vectors: Vec<Vec<f64>> = told["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| serde_json::from_value(entry["embedding"].clone()).unwrap())
        .collect();
    assert_eq!(vectors.iter().map(Vec::len).collect::<Vec<_>>(), [16, 16]);
    for vector in &vectors {
        let length: f64 = vector.iter().map(|value| value * value).sum();
        assert!((length - 1.0).abs() < 1e-5, "{length}");
    }
    assert_ne!(vectors[0], vectors[1]);
    assert_eq!(told["usage"]["prompt_tokens"], 8);
    // One at a time gives the same: padding is no text.
    let alone = post(&gateway, "/v1/embeddings", "", &json!({"model": "texts", "input": "valve"})).json();
    let alone: Vec<f64> = serde_json::from_value(alone["data"][0]["embedding"].clone()).unwrap();
    assert!(alone.iter().zip(&vectors[1]).all(|(a, b)| (a - b).abs() < 1e-5));
    let ollama = post(&gateway, "/api/embed", "", &json!({"model": "texts", "input": ["valve"]})).json();
    assert_eq!(ollama["embeddings"][0].as_array().unwrap().len(), 16, "{ollama}");
    let long = post(&gateway, "/v1/embeddings", "", &json!({"model": "texts", "input": "pump ".repeat(20)}));
    assert!(long.status == 400 && long.body.contains("21 tokens, the model takes 12"), "{} {}", long.status, long.body);
    let chat = post(&gateway, "/v1/chat/completions", "", &json!({"model": "texts", "messages": question()}));
    assert!(chat.status == 400 && chat.body.contains("texts"), "{} {}", chat.status, chat.body);
}

#[test]
fn what_an_answer_of_the_box_took_stands_in_its_header_its_record_and_the_sums() {
    let models = models();
    let prices = "[prices.local]\nusd_per_cpu_hour = 0.36\nusd_per_kwh = 0.30\nwatts_per_core = 3.6\n";
    let gateway = gateway(models.path(), prices);
    let whole = post(&gateway, "/v1/chat/completions", "X-Request-Id: whole\r\n", &chat(&json!({})));
    assert_eq!((whole.status, whole.header("x-forebay-model")), (200, "local/talker"), "{}", whole.body);
    let streamed =
        post(&gateway, "/v1/chat/completions", "X-Request-Id: streamed\r\n", &chat(&json!({"stream": true})));
    assert_eq!(streamed.status, 200, "{}", streamed.body);
    let vectors =
        post(&gateway, "/v1/embeddings", "X-Request-Id: vectors\r\n", &json!({"model": "texts", "input": "the pump"}));
    assert_eq!(vectors.status, 200, "{}", vectors.body);
    let (mut cpu, mut energy, mut cost) = (0, 0, 0);
    for id in ["whole", "streamed", "vectors"] {
        let record = record(&gateway, id);
        let number = |name: &str| record[name].as_u64().unwrap_or_else(|| panic!("no {name} in {record}"));
        let (took, drew) = (number("cpu_us"), number("energy_uwh"));
        assert!(took > 0, "{record}");
        // 3.6 W are a microwatt-hour a millisecond; a microsecond of a core costs 100 pico-USD, a microwatt-hour 300.
        assert_eq!(drew, (took + 500) / 1000, "{record}");
        assert_eq!(number("cost_pico"), took * 100 + drew * 300, "{record}");
        (cpu, energy, cost) = (cpu + took, energy + drew, cost + number("cost_pico"));
        if id == "whole" {
            let told: f64 = whole.header("x-forebay-cost-usd").parse().unwrap();
            assert!((told * 1e12 - number("cost_pico") as f64).abs() < 0.5, "{told} {record}");
        }
    }
    let sums = poll("the sums have them", || {
        Some(office(&gateway, "usage")["usage"][0].clone()).filter(|sums| sums["requests"] == 3)
    });
    assert_eq!((&sums["cpu_us"], &sums["energy_uwh"], &sums["cost_pico"]), (&json!(cpu), &json!(energy), &json!(cost)));
    assert_eq!(
        (&sums["unknown_cpu"], &sums["unknown_energy"], &sums["unknown_cost"]),
        (&json!(0), &json!(0), &json!(0))
    );
}

#[test]
fn a_request_that_means_the_same_gets_the_kept_answer() {
    let models = models();
    let more = "[cache]\nmax_bytes = 100000\n[cache.semantic]\nmax_entries = 100\nmodel = \"texts\"\n\
                [[cache.policy]]\nsemantic = true\nthreshold = 0.999\n";
    let gateway = gateway(models.path(), more);
    let ask = |text: &str| {
        let body = json!({"model": "talker", "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": text}]});
        post(&gateway, "/v1/chat/completions", "", &body)
    };
    let first = ask("is the pump hot");
    assert_eq!((first.status, first.header("x-forebay-cache")), (200, "miss"), "{}", first.body);
    // To this tokenizer, which hears no capitals, it is the same.
    let second = poll("the answer is kept", || {
        Some(ask("Is the PUMP hot")).filter(|told| told.header("x-forebay-cache") == "semantic")
    });
    assert_eq!(second.json()["choices"], first.json()["choices"]);
    let other = ask("valve cold");
    assert_eq!(other.header("x-forebay-cache"), "miss");

    // A newline and quotes are no hindrance, nor is another dialect; its answer is kept in that one.
    let claude = |system: &str, text: &str| {
        let body = json!({"model": "talker", "max_tokens": 4, "temperature": 0, "system": system,
            "messages": [{"role": "user", "content": text}]});
        post(&gateway, "/v1/messages", "", &body)
    };
    let first = claude("the valve", "is \"the pump\"\nhot ?");
    assert_eq!((first.status, first.header("x-forebay-cache")), (200, "miss"), "{}", first.body);
    let second = poll("the answer is kept", || {
        Some(claude("the valve", "is \"THE pump\"\r\n\tHot ?"))
            .filter(|told| told.header("x-forebay-cache") == "semantic")
    });
    assert_eq!(second.json()["content"], first.json()["content"]);
    assert_eq!(claude("the pump", "is \"the pump\"\nhot ?").header("x-forebay-cache"), "miss", "other instructions");
    assert!(metric(&gateway, "forebay_cache_hits_total{kind=\"semantic\"}") >= 2.0);
}
