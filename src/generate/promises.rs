//! Answers that were promised a form, of decoders that would rather say something else.

use serde_json::{Value, json};

use super::tests::{HELLO, Model, all, chat, greedy, model, saying};
use super::{Config, Error, Finish, Format, Piece, Prompt, Sampling, Terms, ToolCall};

const TOOLS: &str = r##"[
    {"type": "function", "function": {"name": "look", "description": "Looks.", "strict": true, "parameters": {
        "type": "object", "properties": {"part": {"$ref": "#/$defs/part"}, "how": {"enum": ["near", "</tool_call>"]}},
        "required": ["part", "how"], "additionalProperties": false,
        "$defs": {"part": {"type": "string", "pattern": "^[PV][0-9]{1,3}$"}}}}},
    {"type": "function", "function": {"name": "stop \"all\"", "parameters": {
        "properties": {"in_s": {"type": "integer", "minimum": 0, "maximum": 60}}, "required": ["in_s"], "additionalProperties": false}}},
    {"type": "function", "function": {"name": "wait"}}
]"##;

fn machine() -> Value {
    json!({
        "$defs": {"part": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 5}, "parts": {"type": "array", "items": {"$ref": "#/$defs/part"}, "maxItems": 2}},
            "required": ["name"], "additionalProperties": false,
        }},
        "type": "object",
        "title": "Machine",
        "properties": {
            "kind": {"enum": ["pump", "valve \"2\"", null]},
            "count": {"type": "integer", "minimum": 1, "maximum": 99},
            "level": {"type": ["number", "null"]},
            "code": {"x-guidance": {"lenient": true}, "type": "string", "pattern": "^[A-Z]{2}-[0-9]{1,3}$", "format": "plant-code"},
            "part": {"$ref": "#/$defs/part"},
            "sure": {"type": "boolean"},
            "either": {"anyOf": [{"const": 7}, {"type": "string", "minLength": 1, "maxLength": 4}]},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 3}, "minItems": 1, "maxItems": 3},
        },
        "required": ["kind", "count", "level", "code", "part", "either", "tags"],
        "additionalProperties": false,
    })
}

/// Whether `value` is what `schema` describes: those keywords that are used here, written from the standard.
fn conforms(root: &Value, schema: &Value, value: &Value) -> bool {
    let Value::Object(members) = schema else { return schema != &json!(false) };
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        _ => value.is_object(),
    };
    let characters = value.as_str().map(|text| text.chars().count() as u64);
    let items = value.as_array().map(|items| items.len() as u64);
    let within = |given: Option<u64>, holds: &dyn Fn(u64) -> bool| given.is_none_or(holds);
    let number = |bound: &Value, holds: &dyn Fn(f64, f64) -> bool| {
        value.as_f64().is_none_or(|given| holds(given, bound.as_f64().unwrap()))
    };
    members.iter().all(|(key, wanted)| match key.as_str() {
        "type" => wanted.as_array().map_or_else(|| is(wanted), |kinds| kinds.iter().any(&is)),
        "enum" => wanted.as_array().unwrap().contains(value),
        "const" => wanted == value,
        "minimum" => number(wanted, &|given, bound| given >= bound),
        "maximum" => number(wanted, &|given, bound| given <= bound),
        "minLength" => within(characters, &|given| given >= wanted.as_u64().unwrap()),
        "maxLength" => within(characters, &|given| given <= wanted.as_u64().unwrap()),
        "minItems" => within(items, &|given| given >= wanted.as_u64().unwrap()),
        "maxItems" => within(items, &|given| given <= wanted.as_u64().unwrap()),
        "pattern" => {
            value.as_str().is_none_or(|text| regex::Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text))
        }
        "items" => value.as_array().is_none_or(|items| items.iter().all(|item| conforms(root, wanted, item))),
        "anyOf" => wanted.as_array().unwrap().iter().any(|schema| conforms(root, schema, value)),
        "$ref" => conforms(root, root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap(), value),
        "required" => value.as_object().is_none_or(|object| {
            wanted.as_array().unwrap().iter().all(|name| object.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(name, value)| wanted.get(name).is_none_or(|schema| conforms(root, schema, value)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|object| {
            object.iter().all(|(name, value)| schema["properties"].get(name).is_some() || conforms(root, wanted, value))
        }),
        _ => true,
    })
}

/// One that says nonsense, with a liking for closing what is open.
fn nonsense() -> Model {
    model(&Config::default(), |fake, tokenizer| {
        let closing: Vec<u32> = ["}", "]", "\"", "1", ","].iter().flat_map(|text| tokenizer.encode(text)).collect();
        fake.scoring(move |tokens| {
            let noise = |token: usize| ((tokens.len() * 31 + token * 17) % 101) as f32 / 40.0;
            (0..607).map(|token| noise(token) + if closing.contains(&(token as u32)) { 1.5 } else { 0.0 }).collect()
        })
    })
}

fn terms(format: Format, seed: u64) -> Terms {
    let temperature = [0.0, 0.7, 1.0, 1.6][seed as usize % 4];
    Terms {
        sampling: Sampling { seed, temperature, ..Sampling::default() },
        format,
        tokens_max: Some(380),
        ..Terms::default()
    }
}

fn schema(schema: &Value) -> Format {
    Format::Schema(schema.to_string())
}

fn call(names: &[&str]) -> Format {
    Format::Call { tools: TOOLS.to_owned(), names: names.iter().map(|name| (*name).to_owned()).collect() }
}

fn schema_or_call(schema: Option<&str>, tools: &str) -> Format {
    Format::SchemaOrCall { schema: schema.map(str::to_owned), tools: tools.to_owned() }
}

fn said(of: &Model, prompt: &Prompt, terms: Terms) -> (Vec<Piece>, Finish) {
    all(&mut of.language.start(prompt.clone(), terms, "a").unwrap())
}

fn refused(of: &Model, prompt: &Prompt, format: Format) -> String {
    match of.language.start(prompt.clone(), Terms { format, ..greedy() }, "a") {
        Err(error @ (Error::Request { .. } | Error::Unsupported { .. })) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_answer_is_what_its_schema_describes_whatever_the_model_would_rather_say() {
    let (of, prompt, machine) = (nonsense(), chat(HELLO, None), machine());
    let mut ended = 0;
    for seed in 0..24 {
        let (pieces, finish) = said(&of, &prompt, terms(schema(&machine), seed));
        let [Piece::Text(text)] = pieces.as_slice() else { panic!("{pieces:?}") };
        let read: Result<Value, _> = serde_json::from_str(text);
        match finish {
            Finish::End => {
                ended += 1;
                assert!(read.is_ok_and(|value| conforms(&machine, &machine, &value)), "{text}");
            }
            Finish::Length => assert!(read.unwrap_err().is_eof(), "{text}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(ended >= 12, "{ended}");
}

#[test]
fn properties_come_in_the_order_of_the_schema_and_the_model_chooses_what_is_left_to_it() {
    let prompt = chat(HELLO, None);
    let wanted = r#"{"type":"object","properties":{"b":{"type":"string"},"a":{"type":"integer"}},"required":["a","b"],"additionalProperties":false}"#;
    let answer = "{\"b\": \"Grüße, 三号泵\", \"a\": -12}";
    let of = saying(&Config::default(), &prompt, answer);
    let given = said(&of, &prompt, Terms { format: Format::Schema(wanted.to_owned()), ..greedy() });
    assert_eq!(given, (vec![Piece::Text(answer.to_owned())], Finish::End));
}

#[test]
fn any_value_may_be_the_outermost_and_it_ends_where_it_is_whole() {
    let (of, prompt) = (nonsense(), chat(HELLO, None));
    for root in [
        json!({"type": "integer", "minimum": -5, "maximum": 500}),
        json!({"enum": ["a", "bc", 3, true, null]}),
        json!({"type": "string", "maxLength": 3}),
        json!({"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}),
        json!({"type": "string", "format": "date"}),
    ] {
        for seed in 0..8 {
            let (pieces, finish) = said(&of, &prompt, terms(schema(&root), seed));
            let [Piece::Text(text)] = pieces.as_slice() else { panic!("{root} {pieces:?}") };
            let value: Value = serde_json::from_str(text).unwrap();
            assert!(finish == Finish::End && conforms(&root, &root, &value), "{root} {text}");
        }
    }
    // Everything is a value; it stays one that readers take.
    for seed in 0..12 {
        let (pieces, finish) = said(&of, &prompt, terms(schema(&json!(true)), seed));
        let [Piece::Text(text)] = pieces.as_slice() else { panic!("{pieces:?}") };
        let read: Result<Value, _> = serde_json::from_str(text);
        assert!(read.is_ok() || finish == Finish::Length && read.unwrap_err().is_eof(), "{text}");
    }
}

#[test]
fn a_tool_that_must_be_called_is_called_with_arguments_of_its_schema() {
    let (of, prompt) = (nonsense(), chat(HELLO, Some(TOOLS)));
    let tools: Value = serde_json::from_str(TOOLS).unwrap();
    let mut called = std::collections::BTreeSet::new();
    for seed in 0..32 {
        let names: &[&str] = if seed % 2 == 0 { &[] } else { &["look"] };
        let (pieces, finish) = said(&of, &prompt, terms(call(names), seed));
        let [Piece::Call(given)] = pieces.as_slice() else { panic!("{pieces:?}") };
        assert_eq!(finish, Finish::Calls);
        let tool =
            tools.as_array().unwrap().iter().find(|tool| tool["function"]["name"] == given.name.as_str()).unwrap();
        let arguments: Value = serde_json::from_str(&given.arguments).unwrap();
        let parameters = &tool["function"]["parameters"];
        assert!(arguments.is_object() && conforms(parameters, parameters, &arguments), "{given:?}");
        assert!(given.name != "wait" || arguments == json!({}), "{given:?}");
        assert!(names.is_empty() || given.name == "look");
        called.insert(given.name.clone());
    }
    assert!(called.len() > 1, "{called:?}");
    // Cut before its end it is no call, and says so.
    let (pieces, finish) = said(&of, &prompt, Terms { tokens_max: Some(3), ..terms(call(&[]), 0) });
    assert!(finish == Finish::Length && matches!(pieces.as_slice(), [Piece::Text(_)]), "{pieces:?}");
}

#[test]
fn beside_tools_that_may_be_called_an_answer_is_of_its_schema_or_a_call_of_one() {
    let (of, prompt, machine) = (nonsense(), chat(HELLO, Some(TOOLS)), machine());
    let tools: Value = serde_json::from_str(TOOLS).unwrap();
    let (mut answers, mut calls) = (0, 0);
    for seed in 0..48 {
        let schema = (seed % 3 > 0).then(|| machine.to_string());
        let mut terms = terms(schema_or_call(schema.as_deref(), TOOLS), seed);
        if seed % 2 == 1 {
            // With a liking for how a call begins.
            terms.sampling.logit_bias =
                of.language.tokenizer().encode("<").into_iter().map(|token| (token, 8.0)).collect();
        }
        let (pieces, finish) = said(&of, &prompt, terms);
        match (pieces.as_slice(), finish) {
            ([Piece::Text(text)], Finish::End) => {
                answers += 1;
                let value: Value = serde_json::from_str(text).unwrap();
                assert!(value.is_object() && (schema.is_none() || conforms(&machine, &machine, &value)), "{text}");
            }
            ([Piece::Call(given)], Finish::Calls) => {
                calls += 1;
                let of_name = |tool: &&Value| tool["function"]["name"] == given.name.as_str();
                let parameters = &tools.as_array().unwrap().iter().find(of_name).unwrap()["function"]["parameters"];
                let arguments: Value = serde_json::from_str(&given.arguments).unwrap();
                assert!(arguments.is_object() && conforms(parameters, parameters, &arguments), "{given:?}");
            }
            ([Piece::Text(_)], Finish::Length) => {}
            other => panic!("{other:?}"),
        }
    }
    assert!(answers > 5 && calls > 5, "{answers} answers, {calls} calls");
}

#[test]
fn a_model_says_its_answer_or_its_call_as_its_template_taught_it() {
    let prompt = chat(HELLO, Some(TOOLS));
    let wanted =
        r#"{"type":"object","properties":{"b":{"type":"string"}},"required":["b"],"additionalProperties":false}"#;
    let look = r#"{"part": "P7", "how": "</tool_call>"}"#;
    let call = format!("<tool_call>\n{{\"name\": \"look\", \"arguments\": {look}}}\n</tool_call>");
    let looked = || vec![Piece::Call(ToolCall { name: "look".to_owned(), arguments: look.to_owned() })];
    let either = schema_or_call(Some(wanted), TOOLS);
    let says = |prompt: &Prompt, answer: &str, format: Format| {
        let of = saying(&Config::default(), prompt, answer);
        said(&of, prompt, Terms { format, ..greedy() })
    };
    let text = |text: &str| vec![Piece::Text(text.to_owned())];
    assert_eq!(
        says(&prompt, r#"{"b": "<tool_call>"}"#, either.clone()),
        (text(r#"{"b": "<tool_call>"}"#), Finish::End)
    );
    assert_eq!(says(&prompt, &call, either.clone()), (looked(), Finish::Calls));
    assert_eq!(says(&prompt, "{\"c\": [1]}", schema_or_call(None, TOOLS)), (text("{\"c\": [1]}"), Finish::End));
    assert_eq!(says(&prompt, &call, schema_or_call(None, TOOLS)), (looked(), Finish::Calls));
}

#[test]
fn behind_a_thought_that_the_template_began_a_form_holds_too() {
    let mut prompt = chat(HELLO, Some(TOOLS));
    prompt.forms.thinks = true;
    let wanted =
        r#"{"type":"object","properties":{"b":{"type":"string"}},"required":["b"],"additionalProperties":false}"#;
    let answer = r#"{"b": "x"}"#;
    let call = r#"{"name": "look", "arguments": {"part": "P7", "how": "near"}}"#;
    let looked =
        Piece::Call(ToolCall { name: "look".to_owned(), arguments: r#"{"part": "P7", "how": "near"}"#.to_owned() });
    let asked = Format::Call { tools: TOOLS.to_owned(), names: vec!["look".to_owned()] };
    let thought = Piece::Thought("a {} <b> thought".to_owned());
    for (said_behind, format, piece, finish) in [
        (answer, schema(&serde_json::from_str(wanted).unwrap()), Piece::Text(answer.to_owned()), Finish::End),
        (answer, Format::JsonObject, Piece::Text(answer.to_owned()), Finish::End),
        (answer, schema_or_call(Some(wanted), TOOLS), Piece::Text(answer.to_owned()), Finish::End),
        (&format!("<tool_call>{call}"), schema_or_call(Some(wanted), TOOLS), looked.clone(), Finish::Calls),
        (&format!("<tool_call>\n{call}"), asked, looked, Finish::Calls),
    ] {
        let whole = format!("a {{}} <b> thought</think>\n\n{said_behind}");
        let of = saying(&Config::default(), &prompt, &whole);
        let terms = Terms { format, ..greedy() };
        assert_eq!(said(&of, &prompt, terms), (vec![thought.clone(), piece], finish), "{whole}");
    }
    // A model that would end its turn in its thought has to think on.
    let of = saying(&Config::default(), &prompt, "hm");
    let (pieces, finish) = said(&of, &prompt, Terms { format: Format::JsonObject, tokens_max: Some(40), ..greedy() });
    assert!(matches!((pieces.as_slice(), finish), ([Piece::Thought(_)], Finish::Length)), "{pieces:?} {finish:?}");
}

#[test]
fn a_form_that_cannot_be_promised_is_refused_before_anything_is_computed() {
    let (of, prompt) = (nonsense(), chat(HELLO, None));
    let chain = |length: usize| {
        let defs: serde_json::Map<_, _> = (0..length)
            .map(|at| (format!("d{at}"), json!({"type": "array", "items": {"$ref": format!("#/$defs/d{}", at + 1)}})))
            .chain([(format!("d{length}"), json!({"type": "null"}))])
            .collect();
        json!({"$defs": defs, "$ref": "#/$defs/d0"})
    };
    let deep = (0..70).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    let wide: serde_json::Map<_, _> = (0..600).map(|at| (format!("p{at}"), json!(true))).collect();
    for (wanted, says) in [
        (
            json!({"properties": {"a": {"not": {}}}}),
            "schema.properties.a.not: expected a keyword that an answer can be held to",
        ),
        (json!({"items": {"if": true}}), "schema.items.if: expected a keyword"),
        (json!({"type": "array", "uniqueItems": true}), "schema.uniqueItems: expected a keyword"),
        (json!(7), "schema: expected a schema: an object, true or false, given a number"),
        (json!({"anyOf": {}}), "schema.anyOf: expected a list of schemas, given an object"),
        (json!({"properties": []}), "schema.properties: expected an object of schemas, given a list"),
        (json!({"$ref": "https://example.com/a"}), "schema.$ref: expected a reference to a place in this schema"),
        (json!({"$ref": "#/$defs/none"}), "given #/$defs/none"),
        (
            json!({"type": "array", "minItems": 1_000_000}),
            "schema.minItems: expected a whole number of 0 to 65536, given 1000000",
        ),
        (
            json!({"type": "string", "pattern": "a".repeat(2000)}),
            "schema.pattern: expected a text of at most 1024 bytes",
        ),
        (
            json!({"enum": (0..5000).collect::<Vec<_>>()}),
            "schema.enum: expected at most 4096 schemas and enumerated values",
        ),
        (json!({"properties": wide}), "schema.properties: expected at most 512 properties, given 600"),
        (deep, "at most 64 schemas within each other"),
        (chain(1000), "at most 64 schemas within each other"),
        (json!({"type": "number", "minimum": 3, "maximum": 1}), "schema: expected a schema of those keywords"),
        (json!({"type": "fish"}), "schema: expected a schema of those keywords"),
        (json!({"type": "string", "pattern": "(?=a)b"}), "schema: expected a schema of those keywords"),
        (
            json!({"x-guidance": {"lenient": true}, "type": "string", "pattern": "(?=a)"}),
            "schema: expected a schema of those keywords",
        ),
        (json!({"$ref": "#"}), "schema: expected a schema that an answer can have"),
        (json!(false), "schema: expected a schema of those keywords"),
    ] {
        let error = refused(&of, &prompt, schema(&wanted));
        assert!(error.contains(says), "{error}: {says}");
        assert!(error.len() < 600 && !error.contains("backtrace"), "{error}");
    }
    assert!(refused(&of, &prompt, Format::Schema("{".to_owned())).contains("schema: expected JSON"));
    let large = Format::Schema(format!("\"{}\"", "x".repeat(300_000)));
    assert!(refused(&of, &prompt, large).contains("schema: expected at most 262144 bytes"));
    // What is just within the bounds fits the stack of a thread.
    let nested = |wrap: &dyn Fn(Value) -> Value| (0..60).fold(json!({"type": "null"}), |inner, _| wrap(inner));
    for within in [
        chain(31),
        nested(&|inner| json!({"items": inner})),
        nested(&|inner| json!({"type": "object", "properties": {"a": inner}, "required": ["a"]})),
        nested(&|inner| json!({"anyOf": [inner, {"type": "array", "items": {"type": "string"}}]})),
        nested(&|inner| json!({"allOf": [inner], "type": ["null", "object"]})),
        nested(&|inner| json!({"type": "array", "prefixItems": [inner], "minItems": 1})),
    ] {
        let begun = of.language.start(prompt.clone(), Terms { format: schema(&within), ..greedy() }, "a");
        assert!(begun.is_ok(), "{begun:?} {within}");
    }
    assert_eq!(of.metrics.begun.get(), 6);

    let tools = chat(HELLO, Some(TOOLS));
    let asked = |tools: &str, names: &[&str]| Format::Call {
        tools: tools.to_owned(),
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    for (format, says) in [
        (call(&["fly"]), "tool_choice: expected the name of one of the tools, given fly"),
        (asked("[]", &[]), "tools: expected at least one, as one must be called"),
        (asked("{}", &[]), "tools: expected a list"),
        (asked("[{}]", &[]), "tools[0].function.name: expected a text"),
        (
            asked(r#"[{"function":{"name":"f","parameters":{"properties":{"x":{"not":{}}}}}}]"#, &[]),
            "tools[0].function.parameters.properties.x.not: expected a keyword",
        ),
    ] {
        let error = refused(&of, &tools, format);
        assert!(error.contains(says), "{error}: {says}");
    }
    let unlike = json!({"not": {}}).to_string();
    let bad = r#"[{"function":{"name":"f","parameters":{"pattern":"(?=a)","type":"string"}}}]"#;
    for (schema, tools, says) in [
        (Some(unlike.as_str()), TOOLS, "schema.not: expected a keyword"),
        (Some(r#"{"type":"fish"}"#), TOOLS, "schema: expected a schema of those keywords"),
        (Some("{}"), bad, "tools: expected a schema of those keywords"),
        (None, "[{}]", "tools[0].function.name: expected a text"),
    ] {
        let error = refused(&of, &prompt, schema_or_call(schema, tools));
        assert!(error.contains(says), "{error}: {says}");
    }
    assert_eq!(of.metrics.begun.get(), 6);
}

#[test]
fn a_schema_that_takes_too_long_ends_its_own_answer_and_nothing_else() {
    let (of, prompt) = (nonsense(), chat(HELLO, None));
    let options: Vec<Value> =
        (0..60).map(|at| json!({"type": "object", "properties": {format!("p{at}"): {"type": "string"}}})).collect();
    let huge: Vec<String> = (0..4000).map(|at| format!("value {at} of many")).collect();
    for wanted in [
        json!({"type": "string", "pattern": "^(a|b|c|d)*a(a|b|c|d){200}$"}),
        json!({"type": "string", "pattern": "^((x{0,30}){0,30}){0,30}$"}),
        json!({"type": "string", "minLength": 60_000, "maxLength": 65_536}),
        json!({"type": "array", "items": {"type": "object"}, "minItems": 60_000, "maxItems": 65_536}),
        json!({"allOf": [{"anyOf": options.clone()}, {"anyOf": options.clone()}, {"anyOf": options}]}),
        json!({"enum": huge}),
        // No number here has fifty digits.
        json!({"type": "integer", "minimum": 1e50}),
    ] {
        let begun = of.language.start(prompt.clone(), terms(schema(&wanted), 2), "a");
        let mut generation = match begun {
            Ok(generation) => generation,
            Err(error) => {
                assert!(matches!(error, Error::Request { .. }), "{error}");
                continue;
            }
        };
        for _ in 0..60 {
            match generation.step() {
                Ok(event) if event.finish.is_some() => break,
                Ok(_) => {}
                Err(error) => {
                    assert!(matches!(error, Error::Request { .. } | Error::Corner), "{error}");
                    break;
                }
            }
        }
    }
    let (_, finish) = said(&of, &prompt, terms(schema(&json!({"type": "boolean"})), 1));
    assert_eq!(finish, Finish::End);
}
