//! An answer's text taken apart while it comes: what is said, what was thought before, and which tools are called.
//!
//! The forms are those that Qwen's templates teach: `<think>…</think>` at the beginning, and `<tool_call>{"name": …, "arguments": …}</tool_call>`.
//! What only looks like one is text, and nothing is lost.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::text::overlap;

const THINK: &str = "<think>";
pub(super) const THOUGHT: &str = "</think>";
pub(super) const CALL: &str = "<tool_call>";
const CALLED: &str = "</tool_call>";
/// A call that is longer is text.
const CALL_BYTES_MAX: usize = 256 * 1024;

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Said to whoever asked.
    Text(String),
    /// Thought before it.
    Thought(String),
    /// A tool is called.
    Call(ToolCall),
}

/// What a tool is called with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The tool's name, which need not be one of those that were offered.
    pub name: String,
    /// JSON, as the model wrote it: an object, mostly.
    pub arguments: String,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Forms {
    pub(super) thoughts: bool,
    /// The template has begun a thought already.
    pub(super) thinks: bool,
    pub(super) calls: bool,
    /// A call was begun already, and nothing comes but its inside.
    pub(super) must_call: bool,
    /// The answer, but for a thought before it, is one call or has none.
    pub(super) may_call: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Only white space has come.
    Beginning,
    Thought,
    /// White space behind a thought or between calls, which is nobody's.
    Gap,
    /// A call or text: which, its beginning says.
    Either,
    Text,
    Call,
    /// The inside of a call that ends with the answer, whatever stands in its texts.
    Inside,
}

/// Takes the text of one answer apart.
#[derive(Debug)]
pub struct Reader {
    forms: Forms,
    place: Place,
    held: String,
    calls: usize,
}

impl Reader {
    pub(super) fn new(forms: Forms) -> Self {
        let place = match forms {
            Forms { must_call: true, .. } => Place::Inside,
            Forms { thinks: true, .. } => Place::Thought,
            Forms { may_call: true, .. } => Place::Either,
            Forms { thoughts: true, .. } => Place::Beginning,
            _ => Place::Text,
        };
        Self { forms, place, held: String::new(), calls: 0 }
    }

    /// Calls so far.
    pub fn calls(&self) -> usize {
        self.calls
    }

    /// Whether what comes belongs to a thought.
    pub(super) fn is_thinking(&self) -> bool {
        self.place == Place::Thought
    }

    /// Adds `text`, and gives what is certain by now.
    pub fn push(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        self.held.push_str(text);
        while self.step(pieces) {}
    }

    /// No more comes.
    pub fn finish(&mut self, pieces: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        match self.place {
            Place::Thought => add(pieces, Piece::Thought, &held),
            // Some models end their turn instead of the call.
            Place::Call | Place::Inside => self.call(&held, false, pieces),
            Place::Text if self.calls > 0 => add(pieces, Piece::Text, held.trim_end()),
            Place::Gap => {}
            Place::Text | Place::Either | Place::Beginning => add(pieces, Piece::Text, &held),
        }
    }

    /// One step; whether there may be another.
    fn step(&mut self, pieces: &mut Vec<Piece>) -> bool {
        match self.place {
            Place::Beginning => {
                let text = self.held.trim_start();
                if let Some(behind) = text.strip_prefix(THINK) {
                    self.held = behind.to_owned();
                    self.place = Place::Thought;
                } else if !THINK.starts_with(text) {
                    self.place = Place::Text;
                } else {
                    return false;
                }
                true
            }
            Place::Thought => {
                if let Some(at) = self.held.find(THOUGHT) {
                    add(pieces, Piece::Thought, self.held[..at].trim_end());
                    self.held.drain(..at + THOUGHT.len());
                    self.place = Place::Gap;
                    return true;
                }
                self.release(THOUGHT, Piece::Thought, pieces);
                false
            }
            Place::Gap => {
                let blank = self.held.len() - self.held.trim_start().len();
                self.held.drain(..blank);
                if self.held.is_empty() {
                    return false;
                }
                self.place = if self.forms.may_call { Place::Either } else { Place::Text };
                true
            }
            Place::Either => {
                if let Some(behind) = self.held.strip_prefix(CALL) {
                    self.held = behind.to_owned();
                    self.place = Place::Inside;
                } else if !CALL.starts_with(&self.held) {
                    self.place = Place::Text;
                } else {
                    return false;
                }
                true
            }
            Place::Text if !self.forms.calls => {
                add(pieces, Piece::Text, &self.held);
                self.held.clear();
                false
            }
            Place::Text => {
                if let Some(at) = self.held.find(CALL) {
                    add(pieces, Piece::Text, self.held[..at].trim_end());
                    self.held.drain(..at + CALL.len());
                    self.place = Place::Call;
                    return true;
                }
                self.release(CALL, Piece::Text, pieces);
                false
            }
            Place::Call => {
                if let Some(at) = self.held.find(CALLED) {
                    let inner = self.held[..at].to_owned();
                    self.held.drain(..at + CALLED.len());
                    self.place = Place::Gap;
                    self.call(&inner, true, pieces);
                    return true;
                }
                if self.held.len() > CALL_BYTES_MAX {
                    let held = std::mem::take(&mut self.held);
                    add(pieces, Piece::Text, CALL);
                    add(pieces, Piece::Text, &held);
                    self.place = Place::Text;
                }
                false
            }
            Place::Inside => false,
        }
    }

    /// Lets go what cannot be the beginning of `mark`, and keeps white space before it back, too.
    fn release(&mut self, mark: &str, of: fn(String) -> Piece, pieces: &mut Vec<Piece>) {
        let keeps = overlap(&self.held, mark);
        let sure = self.held[..self.held.len() - keeps].trim_end().len();
        add(pieces, of, &self.held[..sure]);
        self.held.drain(..sure);
    }

    fn call(&mut self, inner: &str, is_closed: bool, pieces: &mut Vec<Piece>) {
        match parsed(inner) {
            Some(call) => {
                self.calls += 1;
                pieces.push(Piece::Call(call));
            }
            None => {
                add(pieces, Piece::Text, CALL);
                add(pieces, Piece::Text, inner);
                add(pieces, Piece::Text, if is_closed { CALLED } else { "" });
            }
        }
    }
}

/// Text behind text is one piece.
fn add(pieces: &mut Vec<Piece>, of: fn(String) -> Piece, text: &str) {
    match (pieces.last_mut(), of(String::new())) {
        _ if text.is_empty() => {}
        (Some(Piece::Text(last)), Piece::Text(_)) | (Some(Piece::Thought(last)), Piece::Thought(_)) => {
            last.push_str(text);
        }
        _ => pieces.push(of(text.to_owned())),
    }
}

fn parsed(text: &str) -> Option<ToolCall> {
    #[derive(Deserialize)]
    struct Call<'a> {
        name: String,
        #[serde(borrow, alias = "parameters")]
        arguments: Option<&'a RawValue>,
    }
    let call: Call<'_> = serde_json::from_str(text.trim()).ok()?;
    let arguments = call.arguments.map_or("{}", RawValue::get);
    // Some models write the arguments as a text that holds JSON.
    let inner = serde_json::from_str::<String>(arguments).ok();
    let inner = inner.filter(|inner| serde_json::from_str::<&RawValue>(inner).is_ok());
    Some(ToolCall { name: call.name, arguments: inner.unwrap_or_else(|| arguments.to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Forms = Forms { thoughts: true, thinks: false, calls: true, must_call: false, may_call: false };

    fn read(forms: Forms, parts: &[&str]) -> Vec<Piece> {
        let (mut reader, mut pieces) = (Reader::new(forms), Vec::new());
        parts.iter().for_each(|part| reader.push(part, &mut pieces));
        reader.finish(&mut pieces);
        pieces
    }

    fn text(text: &str) -> Piece {
        Piece::Text(text.to_owned())
    }

    fn call(name: &str, arguments: &str) -> Piece {
        Piece::Call(ToolCall { name: name.to_owned(), arguments: arguments.to_owned() })
    }

    #[test]
    fn thoughts_text_and_calls_are_told_apart() {
        let whole = "<think>\nhm, x < 3\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": [2]}}\n</tool_call>\n\
                     <tool_call>{\"name\":\"g\"}</tool_call>";
        let expected = [
            Piece::Thought("\nhm, x < 3".to_owned()),
            text("I look."),
            call("f", "{\"b\": 1, \"a\": [2]}"),
            call("g", "{}"),
        ];
        assert_eq!(read(ALL, &[whole]), expected);
    }

    #[test]
    fn what_is_not_asked_for_is_text_and_what_only_looks_like_a_call_too() {
        let said = "<tool_call>\n{\"name\": \"f\"}\n</tool_call> ";
        assert_eq!(read(Forms::default(), &[said]), [text(said)]);
        for broken in [
            "a <tool_call>{\"name\": 3}</tool_call> b",
            "a <tool_call>nothing",
            "a <tool_cal",
            "a <",
            "x <think> y </think>",
            "</tool_call>",
            " ",
            "<thi",
        ] {
            let given = read(ALL, &[broken]);
            let all: String = given.iter().map(|piece| if let Piece::Text(text) = piece { text } else { "" }).collect();
            // White space before what looked like a call is the only thing that may be missing.
            assert_eq!(all.replace(' ', ""), broken.replace(' ', ""), "{given:?}");
        }
        assert_eq!(read(ALL, &["  plain answer \n"]), [text("  plain answer \n")]);
    }

    #[test]
    fn a_call_that_ends_with_the_turn_is_one_and_a_thought_that_the_template_began_is_one() {
        assert_eq!(
            read(ALL, &["<tool_call>{\"name\":\"f\",\"arguments\":\"{\\\"x\\\":1}\"}"]),
            [call("f", "{\"x\":1}")]
        );
        let forms = Forms { thinks: true, ..ALL };
        assert_eq!(read(forms, &["so</think>yes"]), [Piece::Thought("so".to_owned()), text("yes")]);
        assert_eq!(read(forms, &["never ends"]), [Piece::Thought("never ends".to_owned())]);
    }

    #[test]
    fn a_call_that_had_to_come_may_have_any_text_in_its_arguments() {
        let forms = Forms { must_call: true, ..ALL };
        let inside = "{\"name\":\"f\",\"arguments\":{\"x\":\"</tool_call><think>\"}}";
        assert_eq!(read(forms, &[&inside[..20], &inside[20..]]), [call("f", "{\"x\":\"</tool_call><think>\"}")]);
        assert_eq!(read(forms, &["{\"name\":\"f"]), [text("<tool_call>{\"name\":\"f")]);
    }

    #[test]
    fn a_call_without_end_has_a_bound() {
        let (mut reader, mut pieces, mut most) = (Reader::new(ALL), Vec::new(), 0);
        reader.push("<tool_call>", &mut pieces);
        for _ in 0..1000 {
            reader.push(&"x".repeat(1000), &mut pieces);
            most = most.max(reader.held.len());
        }
        reader.finish(&mut pieces);
        assert!(most <= CALL_BYTES_MAX + 1000);
        let [Piece::Text(all)] = pieces.as_slice() else { panic!() };
        assert_eq!(all.len(), "<tool_call>".len() + 1_000_000);
    }

    fn joined(pieces: &[Piece]) -> Vec<Piece> {
        let mut joined = Vec::new();
        for piece in pieces {
            match piece {
                Piece::Text(text) => add(&mut joined, Piece::Text, text),
                Piece::Thought(text) => add(&mut joined, Piece::Thought, text),
                Piece::Call(call) => joined.push(Piece::Call(call.clone())),
            }
        }
        joined
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_parts_an_answer_comes(
            parts in proptest::collection::vec(proptest::sample::select(vec![
                "<think>", "</think>", "<tool_call>", "</tool_call>", "{\"name\":\"f\"}", " ", "\n", "a", "<", "<t", "ool_call>", "é",
            ]), 0..12),
            thinks in any::<bool>(),
        ) {
            let whole: String = parts.concat();
            let forms = Forms { thinks, ..ALL };
            let letters: Vec<String> = whole.chars().map(String::from).collect();
            let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
            let mut expected = joined(&read(forms, &[&whole]));
            prop_assert_eq!(joined(&read(forms, &letters)), expected.clone());
            // Calls are never made up.
            expected.retain(|piece| matches!(piece, Piece::Call(_)));
            prop_assert!(expected.len() <= whole.matches("<tool_call>").count());
        }
    }
}
