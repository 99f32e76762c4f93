//! Whole answers, of decoders that say what they are told.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::fixture::{gguf, tokenizer};
use super::{
    Chat, Config, Counting, Error, Event, Fake, Finish, Format, Generation, Language, Metrics, Piece, Prompt, Sampling,
    Terms, Tokenizer, ToolCall, Usage,
};

pub(super) const HELLO: &str = r#"[{"role": "user", "content": "hello there, how are you?"}]"#;
const TOOLS: &str = r#"[{"type": "function", "function": {"name": "f"}}]"#;

pub(super) fn greedy() -> Terms {
    Terms { sampling: Sampling { temperature: 0.0, ..Sampling::default() }, ..Terms::default() }
}

pub(super) struct Model {
    pub(super) language: Arc<Language>,
    counting: Arc<Counting>,
    pub(super) metrics: Metrics,
}

pub(super) fn model(config: &Config, decoder: impl FnOnce(Fake, &Tokenizer) -> Fake) -> Model {
    let (counting, metrics, tokenizer) = (Arc::new(Counting::default()), Metrics::default(), tokenizer("qwen2"));
    let decoder = decoder(Fake::new(tokenizer.len(), 500, Arc::clone(&counting)), &tokenizer);
    let language = Language::open(gguf("qwen2"), Arc::new(decoder), config, &metrics).unwrap();
    Model { language: Arc::new(language), counting, metrics }
}

pub(super) fn chat(messages: &str, tools: Option<&str>) -> Prompt {
    let model = model(&Config::default(), |fake, _| fake);
    model.language.chat(&Chat { messages, tools, ..Chat::default() }).unwrap()
}

/// One that answers `prompt` with `answer`, and then ends its turn.
pub(super) fn saying(config: &Config, prompt: &Prompt, answer: &str) -> Model {
    model(config, |fake, tokenizer| {
        let answer = tokenizer.encode(answer);
        fake.saying(prompt.tokens().len(), answer, tokenizer.ends()[1])
    })
}

pub(super) fn all(generation: &mut Generation) -> (Vec<Piece>, Finish) {
    let mut pieces = Vec::new();
    loop {
        let event = generation.step().unwrap();
        for piece in event.pieces {
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(last)), Piece::Text(text)) | (Some(Piece::Thought(last)), Piece::Thought(text)) => {
                    last.push_str(&text);
                }
                (_, piece) => pieces.push(piece),
            }
        }
        if let Some(finish) = event.finish {
            return (pieces, finish);
        }
    }
}

fn text(text: &str) -> Piece {
    Piece::Text(text.to_owned())
}

#[test]
fn an_answer_comes_whole_and_is_counted() {
    let prompt = chat(HELLO, None);
    let model = saying(&Config::default(), &prompt, "Grüße, 三号泵! 🦀");
    let mut generation = model.language.start(prompt.clone(), greedy(), "a").unwrap();
    assert_eq!(all(&mut generation), (vec![text("Grüße, 三号泵! 🦀")], Finish::End));
    let made = tokenizer("qwen2").encode("Grüße, 三号泵! 🦀").len() as u64 + 1;
    let prompt_tokens = prompt.tokens().len() as u64;
    let usage = Usage { prompt_tokens, reused_tokens: 0, answer_tokens: made, thought_tokens: 0 };
    assert_eq!(generation.usage(), usage);
    assert_eq!(generation.step().unwrap().finish, Some(Finish::End));
    drop(generation);
    assert_eq!((model.metrics.read_tokens.get(), model.metrics.made_tokens.get()), (prompt_tokens, made));
    // The token that ends an answer is made and never read.
    assert_eq!(model.counting.read() as u64, prompt_tokens + made - 1);
    let mut again = model.language.start(prompt, greedy(), "a").unwrap();
    assert_eq!(all(&mut again).1, Finish::End);
    assert_eq!((again.usage().reused_tokens, again.usage().prompt_tokens), (prompt_tokens - 1, prompt_tokens));
    drop(again);
    assert_eq!(model.metrics.called_off.get(), 0);
}

#[test]
fn a_prompt_is_read_in_steps_and_an_answer_can_be_called_off_between_them() {
    let prompt = chat(HELLO, None);
    let config = Config { step_tokens: 5, sequences_max: 1, ..Config::default() };
    let model = saying(&config, &prompt, "never heard");
    let mut generation = model.language.start(prompt.clone(), greedy(), "a").unwrap();
    assert_eq!((generation.step().unwrap(), generation.step().unwrap()), (Event::default(), Event::default()));
    assert_eq!(model.counting.read(), 10);
    assert!(matches!(model.language.start(prompt.clone(), greedy(), "a"), Err(Error::Busy { active: 1, most: 1 })));
    drop(generation);
    assert_eq!((model.metrics.called_off.get(), model.metrics.active.get()), (1, 0));
    // What was read is not lost.
    let generation = model.language.start(prompt, greedy(), "a").unwrap();
    assert_eq!(generation.usage().reused_tokens, 10);
}

#[tokio::test]
async fn an_answer_that_nobody_takes_ends_within_a_token() {
    let prompt = chat(HELLO, None);
    let model = model(&Config::default(), |fake, _| fake.scoring(|_| vec![1.0; 607]));
    let generation = model.language.start(prompt, Terms { tokens_max: Some(400), ..Terms::default() }, "a").unwrap();
    let (events, mut taken) = mpsc::channel(1);
    let maker = tokio::task::spawn_blocking(move || {
        let mut used = Usage::default();
        generation.send_to(&events, |usage| used = *usage);
        used
    });
    taken.recv().await.unwrap().unwrap();
    drop(taken);
    let usage = maker.await.unwrap();
    assert!(usage.answer_tokens < 30, "{usage:?}");
    assert_eq!((model.metrics.called_off.get(), model.metrics.active.get()), (1, 0));
}

#[test]
fn stops_and_bounds_end_an_answer_and_say_so() {
    let prompt = chat(HELLO, None);
    let model = saying(&Config::default(), &prompt, "one two three four");
    let ask = |terms: Terms| all(&mut model.language.start(prompt.clone(), terms, "a").unwrap());
    let stops = |stops: &[&str]| Terms { stops: stops.iter().map(|stop| (*stop).to_owned()).collect(), ..greedy() };
    assert_eq!(ask(stops(&["zzz", "o three"])), (vec![text("one tw")], Finish::Stop(1)));
    assert_eq!(ask(stops(&["four!"])), (vec![text("one two three four")], Finish::End));
    let (pieces, finish) = ask(Terms { tokens_max: Some(3), ..greedy() });
    assert_eq!(finish, Finish::Length);
    let [Piece::Text(said)] = pieces.as_slice() else { panic!("{pieces:?}") };
    assert!("one two three four".starts_with(said.as_str()) && said.len() > 2);
    let config = Config { answer_tokens: 1, ..Config::default() };
    let model = saying(&config, &prompt, "one two");
    let mut generation = model.language.start(prompt.clone(), greedy(), "a").unwrap();
    assert_eq!((all(&mut generation).1, generation.usage().answer_tokens), (Finish::Length, 1));
}

#[test]
fn half_a_character_at_the_end_is_replaced_and_never_sent_in_halves() {
    let prompt = chat(HELLO, None);
    let crab = tokenizer("qwen2").encode("🦀");
    assert!(crab.len() > 1, "the vocabulary has no token for it");
    let model = saying(&Config::default(), &prompt, "a🦀");
    let mut generation = model.language.start(prompt, Terms { tokens_max: Some(2), ..greedy() }, "a").unwrap();
    assert_eq!(all(&mut generation), (vec![text("a\u{fffd}")], Finish::Length));
}

#[test]
fn tools_are_called_and_thoughts_are_told_apart() {
    let prompt = chat(HELLO, Some(TOOLS));
    let answer =
        "<think>\nlook\n</think>\n\nok\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"x\": [1]}}\n</tool_call>";
    let model = saying(&Config::default(), &prompt, answer);
    let mut generation = model.language.start(prompt, greedy(), "a").unwrap();
    let call = ToolCall { name: "f".to_owned(), arguments: "{\"x\": [1]}".to_owned() };
    let pieces = vec![Piece::Thought("\nlook".to_owned()), text("ok"), Piece::Call(call)];
    assert_eq!(all(&mut generation), (pieces, Finish::Calls));
    let thought = generation.usage().thought_tokens;
    assert!(thought > 0 && thought < generation.usage().answer_tokens / 2, "{thought}");
    // Without tools a call is only text.
    let prompt = chat(HELLO, None);
    let model = saying(&Config::default(), &prompt, "<tool_call>\n{\"name\": \"f\"}\n</tool_call>");
    let mut generation = model.language.start(prompt, greedy(), "a").unwrap();
    assert_eq!(all(&mut generation), (vec![text("<tool_call>\n{\"name\": \"f\"}\n</tool_call>")], Finish::End));
}

#[test]
fn an_object_is_one_whatever_the_model_would_rather_say() {
    let prompt = chat(HELLO, None);
    for seed in 0..40 {
        // Nonsense, with a liking for closing what is open.
        let model = model(&Config::default(), |fake, tokenizer| {
            let closing: Vec<u32> = ["}", "]", "\"", "1"].iter().flat_map(|text| tokenizer.encode(text)).collect();
            fake.scoring(move |tokens| {
                let noise = |token: usize| ((tokens.len() * 31 + token * 17) % 101) as f32 / 40.0;
                (0..607).map(|token| noise(token) + if closing.contains(&(token as u32)) { 1.5 } else { 0.0 }).collect()
            })
        });
        let sampling = Sampling { seed, ..Sampling::default() };
        let terms = Terms { sampling, format: Format::JsonObject, tokens_max: Some(400), ..Terms::default() };
        let (pieces, finish) = all(&mut model.language.start(prompt.clone(), terms, "a").unwrap());
        let [Piece::Text(said)] = pieces.as_slice() else { panic!("{pieces:?}") };
        let read: Result<serde_json::Value, _> = serde_json::from_str(said);
        match finish {
            Finish::End => assert!(read.is_ok_and(|value| value.is_object()), "{said}"),
            Finish::Length => assert!(read.unwrap_err().is_eof(), "{said}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn probabilities_are_told_for_each_token() {
    let prompt = chat(HELLO, None);
    let model = saying(&Config::default(), &prompt, "hi");
    let terms =
        Terms { sampling: Sampling { logprobs: Some(3), temperature: 0.0, ..Sampling::default() }, ..Terms::default() };
    let mut generation = model.language.start(prompt, terms, "a").unwrap();
    let mut bytes = Vec::new();
    loop {
        let event = generation.step().unwrap();
        let Some(chosen) = event.chosen else { continue };
        assert_eq!(chosen.alternatives.len(), 3);
        assert_eq!(chosen.alternatives[0], (chosen.bytes.clone(), chosen.logprob));
        let sum = (9_f64.exp() + 606.0).ln();
        assert!((f64::from(chosen.logprob) - (9.0 - sum)).abs() < 1e-5);
        if event.finish.is_some() {
            break;
        }
        bytes.extend(chosen.bytes);
    }
    assert_eq!(bytes, b"hi");
}

#[test]
fn what_cannot_be_answered_is_refused_before_anything_is_computed() {
    let prompt = chat(HELLO, None);
    let config = Config { context_tokens_max: prompt.tokens().len() + 3, ..Config::default() };
    let model = saying(&config, &prompt, "one two three four five six");
    let mut generation = model.language.start(prompt.clone(), greedy(), "a").unwrap();
    assert_eq!((all(&mut generation).1, generation.usage().answer_tokens), (Finish::Length, 3));
    drop(generation);
    let refused = |prompt: Prompt, terms: Terms| model.language.start(prompt, terms, "a").unwrap_err();
    let long = model.language.text(&"word ".repeat(200));
    assert!(matches!(refused(long, greedy()), Error::TooLong { most, .. } if most == prompt.tokens().len() + 2));
    assert!(matches!(refused(model.language.text(""), greedy()), Error::Request { field, .. } if field == "prompt"));
    let none = Terms { tokens_max: Some(0), ..greedy() };
    assert!(matches!(refused(prompt.clone(), none), Error::Request { field, .. } if field == "max_tokens"));
    let hot = Terms { sampling: Sampling { temperature: 9.0, ..Sampling::default() }, ..Terms::default() };
    assert!(matches!(refused(prompt, hot), Error::Request { field, .. } if field == "temperature"));
    assert!(matches!(model.language.tokens(vec![607]), Err(Error::Request { given, .. }) if given == "607"));
    assert_eq!(model.metrics.begun.get(), 1);
}

#[test]
fn a_decoder_that_fails_ends_the_answer_and_leaves_nothing_behind() {
    let prompt = chat(HELLO, None);
    let model = saying(&Config::default(), &prompt, "one two");
    let mut generation = model.language.start(prompt.clone(), greedy(), "a").unwrap();
    generation.step().unwrap();
    model.counting.fail(true);
    assert!(matches!(generation.step(), Err(Error::Scores(_))));
    assert!(matches!(generation.step(), Err(Error::Scores(_))));
    drop(generation);
    model.counting.fail(false);
    assert_eq!((model.counting.alive(), model.metrics.kept.get()), (0, 0));
    let nan = self::model(&Config::default(), |fake, _| fake.scoring(|_| vec![f32::NAN; 607]));
    assert!(matches!(nan.language.start(prompt, greedy(), "a").unwrap().step(), Err(Error::Scores(_))));
}

#[test]
fn a_vocabulary_that_is_not_the_decoders_is_refused() {
    let decoder = Fake::new(10, 100, Arc::new(Counting::default()));
    let error = Language::open(gguf("qwen2"), Arc::new(decoder), &Config::default(), &Metrics::default()).unwrap_err();
    assert!(error.to_string().contains("tokens, the model scores 10"), "{error}");
}

#[test]
fn sentencepieces_space_before_a_text_is_not_said_at_the_beginning_of_an_answer() {
    let words = tokenizer("sentences");
    let prompt_tokens = words.encode("hello").len();
    let decoder = Fake::new(words.len(), 100, Arc::new(Counting::default())).saying(
        prompt_tokens,
        words.encode("so it is")[1..].to_vec(),
        2,
    );
    let language =
        Language::open(gguf("sentences"), Arc::new(decoder), &Config::default(), &Metrics::default()).unwrap();
    assert!(!language.takes_messages());
    let error = language.chat(&Chat { messages: HELLO, ..Chat::default() }).unwrap_err();
    assert!(error.to_string().contains("has no chat template"), "{error}");
    let language = Arc::new(language);
    let mut rest = language.start(language.text("hello"), greedy(), "a").unwrap();
    assert_eq!(all(&mut rest), (vec![text(" so it is")], Finish::End));
    drop(rest);
    let mut turn = language.start(Prompt { begins: true, ..language.text("hello") }, greedy(), "a").unwrap();
    assert_eq!(all(&mut turn), (vec![text("so it is")], Finish::End));
}
