//! Answers of a decoder that has learned nothing, through the engine that computes it: `tests/fixtures/generate.py` made it.

use std::sync::Arc;

use forebay::base::{Name, SystemClock, Tensor};
use forebay::engine::{self, Handle, LoadSpec, NamedTensor, Pool, Transformer, signature};
use forebay::flows::decoding::decoder;
use forebay::generate::{Chat, Config, Event, Finish, Format, Language, Metrics, Piece, Sampling, Terms};

const MODEL: &[u8] = include_bytes!("../fixtures/generate/model.gguf");
const HELLO: &str =
    r#"[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Is the pump hot? 三号泵"}]"#;

struct Plant {
    handle: Handle,
    language: Arc<Language>,
    metrics: Metrics,
    pool: Pool,
}

fn plant(config: &Config) -> Plant {
    let engines: Vec<Arc<dyn engine::Engine>> = vec![Arc::new(Transformer)];
    let settings = engine::Config { threads: 1, ..engine::Config::default() };
    let pool = Pool::start(&settings, engines, Arc::new(SystemClock::new())).unwrap();
    let mut spec = LoadSpec {
        name: Name::new("texts").unwrap(),
        version: 1,
        format: "gguf".to_owned(),
        engine: None,
        bytes: MODEL.into(),
        files: Default::default(),
        inputs: Vec::new(),
        outputs: Vec::new(),
        samples: Vec::new(),
        allow_non_finite: false,
    };
    let found = signature(&spec).unwrap();
    (spec.inputs, spec.outputs) = (found.inputs, found.outputs);
    let handle = pool.load(&spec).unwrap();
    let metrics = Metrics::default();
    let language = Language::open(MODEL, decoder(&handle).unwrap(), config, &metrics).unwrap();
    Plant { handle, language: Arc::new(language), metrics, pool }
}

fn terms(temperature: f32, seed: u64, tokens_max: usize) -> Terms {
    Terms {
        sampling: Sampling { temperature, seed, logprobs: Some(0), ..Sampling::default() },
        tokens_max: Some(tokens_max),
        ..Terms::default()
    }
}

/// Text, the bytes of all tokens, and why it ended.
fn answer(of: &Plant, messages: &str, terms: Terms, partition: &str) -> (String, Vec<Vec<u8>>, Finish) {
    let prompt = of.language.chat(&Chat { messages, ..Chat::default() }).unwrap();
    let mut generation = of.language.start(prompt, terms, partition).unwrap();
    let (mut text, mut tokens) = (String::new(), Vec::new());
    loop {
        let Event { pieces, chosen, finish } = generation.step().unwrap();
        for piece in pieces {
            if let Piece::Text(said) | Piece::Thought(said) = piece {
                text.push_str(&said);
            }
        }
        tokens.extend(chosen.map(|chosen| chosen.bytes));
        if let Some(finish) = finish {
            return (text, tokens, finish);
        }
    }
}

#[test]
fn an_answer_token_by_token_is_what_the_whole_text_scores_best_each_time() {
    let of = plant(&Config::default());
    let tokenizer = of.language.tokenizer();
    let prompt = of.language.chat(&Chat { messages: HELLO, ..Chat::default() }).unwrap();
    let (_, given, _) = answer(&of, HELLO, terms(0.0, 0, 24), "a");
    let mut tokens: Vec<i64> = prompt.tokens().iter().map(|&token| token.into()).collect();
    let mut expected = Vec::new();
    for _ in 0..given.len() {
        let ids = NamedTensor::new("input_ids", Tensor::new([1, tokens.len()], tokens.clone()).unwrap());
        let scores = of.handle.infer_blocking(vec![ids], None).unwrap();
        let scores = scores.tensors[0].tensor.as_slice::<f32>().unwrap();
        let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b])).unwrap();
        let token = u32::try_from(best).unwrap();
        expected.push(match tokenizer.piece(token) {
            [] => tokenizer.name(token).into_owned().into_bytes(),
            piece => piece.to_vec(),
        });
        tokens.push(i64::from(token));
    }
    assert!(given.len() > 4);
    assert_eq!(given, expected);
}

#[test]
fn what_was_read_before_changes_the_time_of_an_answer_and_not_the_answer() {
    let of = plant(&Config { step_tokens: 7, ..Config::default() });
    let fresh = answer(&of, HELLO, terms(0.8, 5, 16), "a");
    let read = of.metrics.read_tokens.get();
    let again = answer(&of, HELLO, terms(0.8, 5, 16), "a");
    assert_eq!(fresh, again);
    // Its last token, and nothing else of the prompt.
    assert_eq!(of.metrics.read_tokens.get(), read + 1);
    assert_eq!(answer(&of, HELLO, terms(0.8, 5, 16), "b"), fresh);
    assert_eq!(of.metrics.read_tokens.get(), 2 * read + 1);
    assert_ne!(answer(&of, HELLO, terms(0.8, 6, 16), "a").1, fresh.1);
}

#[test]
fn the_memory_of_sequences_is_bounded_and_comes_back() {
    let of = plant(&Config { kept_max: 2, sequences_max: 3, ..Config::default() });
    let sequences = of.handle.sequences().unwrap();
    let taken = || of.pool.condition().memory_of.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let model = taken();
    for partition in 0..20 {
        answer(&of, HELLO, terms(1.0, partition, 5), &partition.to_string());
    }
    let prompt = of.language.chat(&Chat { messages: HELLO, ..Chat::default() }).unwrap().tokens().len() as u64;
    assert_eq!(taken() - model, 2 * (prompt + 5) * sequences.token_bytes());
    of.language.forget(None);
    assert_eq!((taken(), of.metrics.kept.get()), (model, 0));
}

#[test]
fn a_model_that_has_learned_nothing_still_writes_an_object_where_one_was_promised() {
    let of = plant(&Config::default());
    for seed in 0..12 {
        let terms = Terms { format: Format::JsonObject, ..terms(1.0, seed, 200) };
        let (text, _, finish) = answer(&of, HELLO, terms, "a");
        let read: Result<serde_json::Value, _> = serde_json::from_str(&text);
        match finish {
            Finish::End => assert!(read.is_ok_and(|value| value.is_object()), "{text}"),
            _ => assert!(read.unwrap_err().is_eof(), "{text}"),
        }
    }
}
