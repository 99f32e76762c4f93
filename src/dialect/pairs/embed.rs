//! Vectors of texts: OpenAI's `/v1/embeddings`, Gemini's `embedContent` and `batchEmbedContents`, Ollama's `/api/embed`
//! and its older `/api/embeddings`; over servers of the Open Inference Protocol a tensor of texts.

use base64::Engine as _;
use bytes::Bytes;
use serde_json::value::RawValue;

use crate::dialect::frame::Frame;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::pair::{Answer, Outgoing, Pair, Step, Target, Translate};
use crate::dialect::usage::Meter;
use crate::dialect::write::Object;
use crate::dialect::{Asked, Dialect, Error, Facts, Failure, Finish, Operation, Usage, chat, gemini, oip};

/// What only Ollama heeds.
const OLLAMAS: [&str; 3] = ["truncate", "options", "keep_alive"];

/// The dialect of the model.
struct Embed(Dialect);

static CHAT: Embed = Embed(Dialect::Chat);
static GEMINI: Embed = Embed(Dialect::Gemini);
static OLLAMA: Embed = Embed(Dialect::Ollama);
static OIP: Embed = Embed(Dialect::Oip);

/// The pair, if both ends have vectors.
pub(super) fn of(operation: Operation, from: Dialect, to: Dialect) -> Option<&'static dyn Pair> {
    let asks = matches!(from, Dialect::Chat | Dialect::Gemini | Dialect::Ollama);
    if operation != Operation::Embeddings || !asks || (from == to && from != Dialect::Ollama) {
        return None;
    }
    match to {
        Dialect::Chat => Some(&CHAT),
        Dialect::Gemini => Some(&GEMINI),
        Dialect::Ollama => Some(&OLLAMA),
        Dialect::Oip => Some(&OIP),
        _ => None,
    }
}

/// What is asked for.
#[derive(Default)]
struct Wanted<'a> {
    /// Between their quotes.
    texts: Vec<String>,
    dimensions: Option<Raw<'a>>,
    /// Gemini's, such as RETRIEVAL_QUERY.
    task: Option<Raw<'a>>,
    left_out: Vec<String>,
}

impl Pair for Embed {
    fn request(&self, body: &[u8], facts: &Facts<'_>, to: &Target<'_>) -> Result<Outgoing, Error> {
        let request = Members::parse(body).map_err(|error| Error::request(&error))?;
        let mut wanted = Wanted::read(&request, facts.dialect, self.0)?;
        let mut out = Vec::with_capacity(body.len() + 64);
        if self.0 == Dialect::Oip {
            if wanted.dimensions()?.is_some() && !to.oip.shorten {
                let why = "its server gives the dimensions that the model has; leave it out, or set `shorten` for a model \
                           that was trained for it";
                return Err(Error::Unsupported { field: "dimensions".to_owned(), to: self.0, why });
            }
            oip::write_texts(&wanted.texts, &to.oip, &mut out);
        } else {
            let mut written = Object::new(&mut out);
            match self.0 {
                Dialect::Gemini => {
                    let mut requests = written.array("requests");
                    for text in &wanted.texts {
                        let mut one = requests.object();
                        one.text("model", &format!("models/{}", to.model.trim_start_matches("models/")));
                        {
                            let mut content = one.object("content");
                            content.array("parts").object().escaped("text", text);
                        }
                        one.raw_if("taskType", wanted.task);
                        one.raw_if("outputDimensionality", wanted.dimensions);
                    }
                }
                _ => {
                    written.text("model", to.model);
                    {
                        let mut input = written.array("input");
                        for text in &wanted.texts {
                            let out = input.element();
                            out.push(b'"');
                            out.extend_from_slice(text.as_bytes());
                            out.push(b'"');
                        }
                    }
                    written.raw_if("dimensions", wanted.dimensions);
                    for name in OLLAMAS.iter().filter(|_| self.0 == Dialect::Ollama) {
                        written.raw_if(name, request.get(name));
                    }
                }
            }
        }
        if self.0 != Dialect::Gemini && wanted.task.is_some() {
            wanted.left_out.push("taskType".to_owned());
        }
        Ok(Outgoing { body: out.into(), left_out: wanted.left_out })
    }

    fn answer(&self, body: &Bytes, asked: &Asked) -> Result<Answer, Error> {
        let wrong = |what| Error::Malformed { dialect: self.0, what };
        let answer = Members::parse(body).map_err(|_| wrong("answer"))?;
        let tensors = match self.0 {
            Dialect::Oip => of_tensors(&answer, asked).map_err(wrong)?,
            _ => Vec::new(),
        };
        let vectors = match self.0 {
            Dialect::Oip => tensors.iter().map(|vector| &**vector).collect(),
            Dialect::Chat => listed(&answer, "data", Some("embedding")).ok_or_else(|| wrong("vectors"))?,
            Dialect::Gemini => listed(&answer, "embeddings", Some("values")).ok_or_else(|| wrong("vectors"))?,
            _ => listed(&answer, "embeddings", None).ok_or_else(|| wrong("vectors"))?,
        };
        let told = match self.0 {
            Dialect::Chat => answer.get("usage").map(chat::usage_of).unwrap_or_default(),
            Dialect::Gemini => answer.get("usageMetadata").map(gemini::usage_of).unwrap_or_default(),
            Dialect::Oip => Usage::default(),
            _ => Usage { input_tokens: answer.get("prompt_eval_count").and_then(json::whole), ..Usage::default() },
        };
        let mut meter = Meter::new(asked.input_tokens_estimated);
        // Vectors are no tokens.
        meter.told(&Usage { output_tokens: Some(0), ..told });
        let usage = meter.usage();
        let model = answer.text(if self.0 == Dialect::Oip { "model_name" } else { "model" });
        let mut out = Vec::with_capacity(body.len() + 128);
        match asked.dialect {
            Dialect::Gemini => to_gemini(&vectors, asked, &mut out),
            Dialect::Ollama => to_ollama(&vectors, asked.model(model.as_deref()), asked, &usage, &mut out),
            _ => to_chat(&vectors, asked.model(model.as_deref()), asked, &usage, &mut out)
                .ok_or_else(|| wrong("numbers of a vector"))?,
        }
        Ok(Answer { body: out.into(), usage, finish: None })
    }

    /// Vectors do not come in streams.
    fn stream(&self, _: &Asked) -> Box<dyn Translate> {
        Box::new(NoStream(self.0))
    }
}

impl<'a> Wanted<'a> {
    fn read(request: &Members<'a>, dialect: Dialect, to: Dialect) -> Result<Self, Error> {
        match dialect {
            Dialect::Gemini => of_gemini(request),
            dialect => of_input(request, dialect, to),
        }
    }

    /// How many numbers a vector shall have.
    fn dimensions(&self) -> Result<Option<u64>, Error> {
        let wrong = || Error::field("dimensions", "must be a whole number above 0");
        self.dimensions.map(|raw| json::whole(raw).filter(|number| *number > 0).ok_or_else(wrong)).transpose()
    }
}

/// The vectors of an answer that has a list of them.
fn listed<'a>(answer: &Members<'a>, list: &str, member: Option<&str>) -> Option<Vec<Raw<'a>>> {
    let vector = |raw| match member {
        Some(member) => Members::lenient(raw).get(member),
        None => Some(raw),
    };
    let list = json::lenient_elements(answer.get(list)?);
    list.into_iter().map(|raw| vector(raw).filter(|raw| sort(raw) == Sort::Array)).collect()
}

/// The vectors of a tensor, as many as there were texts.
fn of_tensors(answer: &Members<'_>, asked: &Asked) -> Result<Vec<Box<RawValue>>, &'static str> {
    let request = Members::parse(&asked.request).unwrap_or_default();
    let wanted = Wanted::read(&request, asked.dialect, Dialect::Oip).map_err(|_| "request")?;
    let dimensions = wanted.dimensions().map_err(|_| "request")?;
    oip::vectors(answer, asked.oip_output.as_deref(), wanted.texts.len(), dimensions)
}

/// One text, or a list of them: OpenAI's and Ollama's `input`, and Ollama's older `prompt`.
fn of_input<'a>(request: &Members<'a>, dialect: Dialect, to: Dialect) -> Result<Wanted<'a>, Error> {
    let input = request.get("input").or_else(|| request.get("prompt")).ok_or(Error::Missing { field: "input" })?;
    let mut wanted = Wanted { dimensions: request.get("dimensions"), ..Wanted::default() };
    let inputs = if sort(input) == Sort::Array { json::elements(input, "input")? } else { vec![input] };
    for raw in inputs {
        let why = "tokens are another model's; send texts";
        let inner = json::inner(raw).ok_or_else(|| Error::Unsupported { field: "input".to_owned(), to, why })?;
        wanted.texts.push(inner.to_owned());
    }
    let advice: &[&str] = match dialect {
        Dialect::Ollama if to == Dialect::Ollama => &[],
        Dialect::Ollama => &OLLAMAS,
        _ => &["user"],
    };
    wanted.left_out = advice.iter().filter(|name| request.get(name).is_some()).map(|name| (*name).to_owned()).collect();
    Ok(wanted)
}

/// One request, or many of them.
fn of_gemini<'a>(request: &Members<'a>) -> Result<Wanted<'a>, Error> {
    let mut wanted = Wanted::default();
    let mut take = |one: &Members<'a>| {
        let content = one.get("content").ok_or(Error::Missing { field: "content" })?;
        let parts = Members::of(content, "content")?.get("parts").ok_or(Error::Missing { field: "content.parts" })?;
        let mut text = String::new();
        for part in json::elements(parts, "content.parts")? {
            let part = Members::of(part, "content.parts")?;
            let inner = part.get("text").and_then(json::inner);
            text.push_str(inner.ok_or_else(|| Error::field("content.parts", "must be texts"))?);
        }
        wanted.texts.push(text);
        wanted.dimensions = one.get("outputDimensionality").or_else(|| one.get("output_dimensionality"));
        wanted.task = one.get("taskType").or_else(|| one.get("task_type"));
        Ok(())
    };
    match request.get("requests") {
        Some(requests) => {
            for one in json::elements(requests, "requests")? {
                take(&Members::of(one, "requests")?)?;
            }
        }
        None => take(request)?,
    }
    Ok(wanted)
}

/// OpenAI's list. Its own SDKs ask for base64: the numbers as 32-bit floats, the lowest byte first.
fn to_chat(vectors: &[Raw<'_>], model: &str, asked: &Asked, usage: &Usage, out: &mut Vec<u8>) -> Option<()> {
    let request = Members::parse(&asked.request).unwrap_or_default();
    let base64 = request.text("encoding_format").as_deref() == Some("base64");
    let mut body = Object::new(out);
    body.text("object", "list");
    {
        let mut data = body.array("data");
        for (at, vector) in vectors.iter().enumerate() {
            let mut one = data.object();
            one.text("object", "embedding");
            one.number("index", at as u64);
            if base64 {
                let numbers: Vec<f32> = serde_json::from_str(vector.get()).ok()?;
                let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
                one.text("embedding", &base64::engine::general_purpose::STANDARD.encode(bytes));
            } else {
                one.raw("embedding", vector);
            }
        }
    }
    body.text("model", model);
    let mut tokens = body.object("usage");
    tokens.number("prompt_tokens", usage.input_tokens.unwrap_or(0));
    tokens.number("total_tokens", usage.input_tokens.unwrap_or(0));
    Some(())
}

fn to_gemini(vectors: &[Raw<'_>], asked: &Asked, out: &mut Vec<u8>) {
    let batch = Members::parse(&asked.request).is_ok_and(|request| request.get("requests").is_some());
    let mut body = Object::new(out);
    if batch {
        let mut list = body.array("embeddings");
        vectors.iter().for_each(|vector| list.object().raw("values", vector));
    } else if let Some(vector) = vectors.first() {
        body.object("embedding").raw("values", vector);
    }
}

fn to_ollama(vectors: &[Raw<'_>], model: &str, asked: &Asked, usage: &Usage, out: &mut Vec<u8>) {
    let older = Members::parse(&asked.request).is_ok_and(|request| request.get("input").is_none());
    let mut body = Object::new(out);
    if older {
        if let Some(vector) = vectors.first() {
            body.raw("embedding", vector);
        }
        return;
    }
    body.text("model", model);
    {
        let mut list = body.array("embeddings");
        vectors.iter().for_each(|vector| list.raw(vector));
    }
    if let Some(tokens) = usage.input_tokens {
        body.number("prompt_eval_count", tokens);
    }
}

struct NoStream(Dialect);

impl Translate for NoStream {
    fn frame(&mut self, _: &Frame<'_>, _: &mut Vec<u8>, _: &mut Meter) -> Result<Step, Error> {
        Err(Error::Malformed { dialect: self.0, what: "vectors in a stream" })
    }

    fn close(&mut self, _: &mut Vec<u8>, _: &mut Meter) -> bool {
        false
    }

    fn fail(&mut self, _: &Failure, _: &mut Vec<u8>) {}

    fn finish(&self) -> Option<Finish> {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{answer, request};

    fn through(from: Dialect, to: Dialect, asks: &Value, answers: &Value) -> (Value, Value, Usage) {
        let body = Bytes::from(asks.to_string());
        let facts = Facts::read(from, Operation::Embeddings, &body).unwrap();
        let sent = request(&body, &facts, &Target::new(to, "e5")).unwrap();
        let asked = Asked::new(&facts, body.clone(), "7f3a", 0);
        let answer = answer(&Bytes::from(answers.to_string()), to, &asked).unwrap();
        let json = |body: &[u8]| serde_json::from_slice(body).unwrap();
        (json(&sent.body), json(&answer.body), answer.usage)
    }

    #[test]
    fn openais_callers_get_vectors_of_the_others_also_as_base64() {
        let asks = json!({"model": "m", "input": ["a \"b\"", "c"], "dimensions": 2});
        let answers = json!({"embeddings": [{"values": [0.5, -1]}, {"values": [0.25, 2]}]});
        let (sent, got, usage) = through(Dialect::Chat, Dialect::Gemini, &asks, &answers);
        let one = json!({"model": "models/e5", "content": {"parts": [{"text": "a \"b\""}]}, "outputDimensionality": 2});
        assert_eq!(sent["requests"][0], one);
        assert_eq!(got["data"][1], json!({"object": "embedding", "index": 1, "embedding": [0.25, 2]}));
        assert!(usage.estimated && usage.input_tokens.is_some_and(|tokens| tokens > 0), "Google tells none");

        let asks = json!({"model": "m", "input": "a", "encoding_format": "base64"});
        let answers = json!({"model": "e5", "embeddings": [[0.5, -1]], "prompt_eval_count": 3});
        let (sent, got, usage) = through(Dialect::Chat, Dialect::Ollama, &asks, &answers);
        assert_eq!(sent, json!({"model": "e5", "input": ["a"]}));
        assert_eq!(got["data"][0]["embedding"], "AAAAPwAAgL8=");
        assert_eq!((usage.input_tokens, usage.output_tokens, usage.estimated), (Some(3), Some(0), false));
        assert_eq!(got["usage"], json!({"prompt_tokens": 3, "total_tokens": 3}));
    }

    #[test]
    fn googles_and_ollamas_callers_get_vectors_of_openai() {
        let answers = json!({"model": "e5", "data": [{"embedding": [1, 2]}, {"embedding": [3, 4]}], "usage": {"prompt_tokens": 5}});
        let one = json!({"content": {"parts": [{"text": "a"}]}});
        let (sent, got, _) = through(Dialect::Gemini, Dialect::Chat, &one, &answers);
        assert_eq!((sent["input"].clone(), got), (json!(["a"]), json!({"embedding": {"values": [1, 2]}})));
        let (sent, got, _) = through(Dialect::Gemini, Dialect::Chat, &json!({"requests": [one, one]}), &answers);
        assert_eq!(sent["input"], json!(["a", "a"]));
        assert_eq!(got["embeddings"][1], json!({"values": [3, 4]}));
        let (_, got, _) =
            through(Dialect::Ollama, Dialect::Chat, &json!({"model": "m", "input": ["a", "b"]}), &answers);
        assert_eq!(got, json!({"model": "e5", "embeddings": [[1, 2], [3, 4]], "prompt_eval_count": 5}));
        let (_, got, _) = through(Dialect::Ollama, Dialect::Chat, &json!({"model": "m", "prompt": "a"}), &answers);
        assert_eq!(got, json!({"embedding": [1, 2]}), "the older address");
    }

    #[test]
    fn ollamas_older_callers_are_served_by_its_newer_servers() {
        let asks = json!({"model": "m", "prompt": "a", "keep_alive": "5m"});
        let answers = json!({"model": "e5", "embeddings": [[1, 2]], "prompt_eval_count": 5});
        let (sent, got, _) = through(Dialect::Ollama, Dialect::Ollama, &asks, &answers);
        assert_eq!(sent, json!({"model": "e5", "input": ["a"], "keep_alive": "5m"}));
        assert_eq!(got, json!({"embedding": [1, 2]}));
    }

    #[test]
    fn vectors_of_a_tensor_reach_every_caller() {
        let answers = json!({"model_name": "e5", "outputs": [
            {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [0.5, -1, 0.25, 2]}]});
        let asks = json!({"model": "m", "input": ["a \"b\"", "c"]});
        let (sent, got, usage) = through(Dialect::Chat, Dialect::Oip, &asks, &answers);
        assert_eq!(sent["inputs"][0]["data"], json!(["a \"b\"", "c"]));
        assert_eq!(got["data"][1], json!({"object": "embedding", "index": 1, "embedding": [0.25, 2]}));
        assert_eq!(got["model"], "e5");
        assert!(usage.estimated && usage.output_tokens == Some(0), "nobody told");
        let asks = json!({"model": "m", "input": ["a", "c"], "encoding_format": "base64"});
        let (_, got, _) = through(Dialect::Chat, Dialect::Oip, &asks, &answers);
        assert_eq!(got["data"][0]["embedding"], "AAAAPwAAgL8=");
        let one = json!({"content": {"parts": [{"text": "a"}]}});
        let (_, got, _) = through(Dialect::Gemini, Dialect::Oip, &json!({"requests": [one, one]}), &answers);
        assert_eq!(got["embeddings"][1], json!({"values": [0.25, 2]}));
        let (_, got, _) = through(Dialect::Ollama, Dialect::Oip, &json!({"model": "m", "input": ["a", "b"]}), &answers);
        assert_eq!(got["embeddings"], json!([[0.5, -1], [0.25, 2]]));
    }

    #[test]
    fn dimensions_are_cut_only_where_the_model_was_trained_for_it() {
        let body = Bytes::from_static(br#"{"model":"m","input":"a","dimensions":2}"#);
        let facts = Facts::read(Dialect::Chat, Operation::Embeddings, &body).unwrap();
        let to = Target::new(Dialect::Oip, "e5");
        let error = request(&body, &facts, &to).unwrap_err();
        assert!(matches!(error, Error::Unsupported { ref field, .. } if field == "dimensions"), "{error}");
        let oip = crate::dialect::OipModel { shorten: true, ..to.oip };
        assert!(request(&body, &facts, &Target { oip, ..to }).is_ok());
        let asked = Asked::new(&facts, body.clone(), "7f3a", 0);
        let told = json!({"outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [3, 4, 12]}]});
        let got = answer(&Bytes::from(told.to_string()), Dialect::Oip, &asked).unwrap();
        let got: Value = serde_json::from_slice(&got.body).unwrap();
        assert_eq!(got["data"][0]["embedding"], json!([0.6, 0.8]));
    }

    #[test]
    fn tokens_of_another_model_are_refused() {
        let body = Bytes::from_static(br#"{"model":"m","input":[[1,2,3]]}"#);
        let facts = Facts::read(Dialect::Chat, Operation::Embeddings, &body).unwrap();
        let error = request(&body, &facts, &Target::new(Dialect::Ollama, "e")).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}
