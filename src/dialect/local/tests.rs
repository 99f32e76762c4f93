//! Requests and words of models in this process.

use serde_json::{Value, json};

use super::{ChatRequest, ChatWriter, LocalAnswer, LocalCall, LocalChoice, LocalToken};
use crate::dialect::trial::{asked, small, streamed_by};
use crate::dialect::{Asked, Dialect, Error, Usage, answer};

#[test]
fn settings_are_read_and_their_ranges_held() {
    let body = br#"{"model":"m","messages":[{"role":"user","content":"a"}],"temperature":0.5,"top_k":40,"seed":7,"stop":["a","b"],
        "max_tokens":5,"response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"a":1}}},"logprobs":true}"#;
    let request = ChatRequest::read(body).unwrap();
    assert_eq!(
        (request.settings.temperature, request.settings.top_k, request.settings.seed),
        (Some(0.5), Some(40), Some(7))
    );
    assert_eq!((request.settings.stop.len(), request.settings.output_tokens_max, request.logprobs), (2, Some(5), true));
    assert_eq!(
        (request.response_format.as_deref(), request.schema.unwrap().get()),
        (Some("json_schema"), r#"{"a":1}"#)
    );
    for (name, value) in
        [("temperature", "3"), ("top_p", "-1"), ("seed", "1.5"), ("stop", "[1]"), ("temperature", "\"1\"")]
    {
        let body = format!(r#"{{"messages":[],"{name}":{value}}}"#);
        let error = ChatRequest::read(body.as_bytes()).unwrap_err();
        assert!(matches!(error, Error::Field { ref field, .. } if field == name), "{name}");
    }
}

#[test]
fn a_choice_of_tools_is_read_whatever_form_it_has() {
    let read = |choice: &str| {
        let body = format!(r#"{{"messages":[],"tool_choice":{choice}}}"#);
        ChatRequest::read(body.as_bytes()).map(|request| match request.tool_choice {
            LocalChoice::Auto => "auto".to_owned(),
            LocalChoice::None => "none".to_owned(),
            LocalChoice::Must(names) => format!("must {}", names.join(" ")),
            LocalChoice::Other(_) => "other".to_owned(),
        })
    };
    let allowed = |mode: &str| {
        let tools = r#"[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]"#;
        format!(r#"{{"type":"allowed_tools","allowed_tools":{{"mode":"{mode}","tools":{tools}}}}}"#)
    };
    for (choice, expected) in [
        ("null", "auto"),
        (r#""auto""#, "auto"),
        (r#""none""#, "none"),
        (r#""required""#, "must "),
        (r#"{"type":"function","function":{"name":"f"}}"#, "must f"),
        (r#"{"type":"function","name":"f"}"#, "must f"),
        (&allowed("required"), "must f g"),
        (&allowed("auto"), "other"),
        (r#"{"type":"custom","custom":{"name":"f"}}"#, "other"),
    ] {
        assert_eq!(read(choice).unwrap(), expected, "{choice}");
    }
    for wrong in [r#""maybe""#, "7", "[]", r#"{"type":"function"}"#, r#"{"type":"function","function":7}"#] {
        assert!(matches!(read(wrong), Err(Error::Field { .. })), "{wrong}");
    }
}

#[test]
fn words_of_a_model_in_this_process_reach_every_dialect() {
    let call = LocalCall { id: "call_1".into(), name: "f".into(), arguments: r#"{"a":1}"#.into() };
    let usage = Usage { input_tokens: Some(3), output_tokens: Some(4), ..Usage::default() };
    for caller in [Dialect::Chat, Dialect::Responses, Dialect::Anthropic] {
        let asked = Asked { model_shown: Some("here".into()), ..asked(caller, &small(caller)) };
        let mut writer = ChatWriter::new(&asked);
        let mut out = Vec::new();
        writer.reasoning(&mut out, "hm");
        writer.text(&mut out, "a \"b\"\n", &[]);
        writer.call(&mut out, &call);
        writer.end(&mut out, "tool_calls", &usage);
        let seen = streamed_by(&asked, Dialect::Chat, std::str::from_utf8(&out).unwrap(), 1 << 20);
        assert_eq!((seen.failure, seen.error, seen.usage.total_tokens()), (None, None, Some(7)), "{caller}");
        assert!(seen.text.contains("here") && seen.text.contains(r#"a \"b\"\n"#), "{caller}");

        let whole = LocalAnswer {
            text: "a".into(),
            calls: vec![call.clone()],
            finish_reason: "stop".into(),
            ..LocalAnswer::default()
        };
        let answer = answer(&whole.body(&asked, &usage).into(), Dialect::Chat, &asked).unwrap();
        assert_eq!((answer.usage.total_tokens(), answer.usage.estimated), (Some(7), false), "{caller}");
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(body["model"], json!("here"));
    }
}

#[test]
fn probabilities_come_with_the_text_or_in_the_whole_answer() {
    let asked = asked(Dialect::Chat, &small(Dialect::Chat));
    let token = LocalToken { bytes: b"a".to_vec(), logprob: -0.25, alternatives: vec![(b"b".to_vec(), -1.5)] };
    let told = json!({"content": [{"token": "a", "logprob": -0.25, "bytes": [97],
        "top_logprobs": [{"token": "b", "logprob": -1.5, "bytes": [98]}]}], "refusal": null});
    let (mut writer, mut out) = (ChatWriter::new(&asked), Vec::new());
    writer.text(&mut out, "a", std::slice::from_ref(&token));
    let frame = std::str::from_utf8(&out).unwrap().split("\n\n").nth(1).unwrap().strip_prefix("data: ").unwrap();
    let frame: Value = serde_json::from_str(frame).unwrap();
    assert_eq!((&frame["choices"][0]["logprobs"], &frame["choices"][0]["delta"]["content"]), (&told, &json!("a")));
    let whole = LocalAnswer { text: "a".into(), tokens: Some(vec![token]), ..LocalAnswer::default() };
    let body: Value = serde_json::from_slice(&whole.body(&asked, &Usage::default())).unwrap();
    assert_eq!(body["choices"][0]["logprobs"], told);
}
