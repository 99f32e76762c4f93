//! What stands before the JSON of an answer that was promised a form: a thought that the template began, white space, and the mark of a
//! call where the model may choose one.

use super::reply::{CALL, THOUGHT};

/// White space behind a thought: a model may otherwise write it until its tokens are spent.
const SPACES_MAX: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many bytes of its end were read.
    Thought(usize),
    /// So much white space was read.
    Gap(usize),
    /// So many bytes of it were read, the new line that may stand behind it with them.
    Mark(usize),
    Answer,
    Call,
}

/// Whether the JSON is that of a call, which a mark begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Never,
    /// Or an answer.
    Maybe,
    Always,
}

/// How far an answer is on its way to its JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lead {
    place: Place,
    calls: Calls,
}

/// What a token is. No token is both: a grammar sees whole ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// Before the JSON.
    Lead(Lead),
    /// JSON of the answer.
    Answer,
    /// JSON of a call.
    Call,
}

impl Lead {
    /// `thinks` where the template has begun a thought.
    pub(super) fn new(thinks: bool, calls: Calls) -> Self {
        let place = match (thinks, calls) {
            (true, _) => Place::Thought(0),
            (false, Calls::Never) => Place::Answer,
            (false, Calls::Maybe | Calls::Always) => Place::Mark(0),
        };
        Self { place, calls }
    }

    /// The JSON of an answer, or of a call, has begun.
    pub(super) fn over(self, is_call: bool) -> Self {
        Self { place: if is_call { Place::Call } else { Place::Answer }, ..self }
    }

    /// True once it has: `Some(true)` that of a call.
    pub(super) fn is_call(self) -> Option<bool> {
        match self.place {
            Place::Answer => Some(false),
            Place::Call => Some(true),
            Place::Thought(_) | Place::Gap(_) | Place::Mark(_) => None,
        }
    }

    /// What a token's bytes are here; `None` if they may not come.
    pub(super) fn read(self, piece: &[u8]) -> Option<Read> {
        let lead = |place| Some(Read::Lead(Self { place, ..self }));
        match self.place {
            Place::Answer => Some(Read::Answer),
            Place::Call => Some(Read::Call),
            Place::Thought(mut read) => {
                let end = THOUGHT.as_bytes();
                for (at, &byte) in piece.iter().enumerate() {
                    // Only its first byte is one with which it begins again.
                    read = if byte == end[read] { read + 1 } else { usize::from(byte == end[0]) };
                    if read == end.len() {
                        let rest = &piece[at + 1..];
                        return if is_gap(rest) { lead(Place::Gap(rest.len())) } else { None };
                    }
                }
                lead(Place::Thought(read))
            }
            Place::Gap(read) if is_gap(piece) => {
                let read = read + piece.len();
                if read > SPACES_MAX { None } else { lead(Place::Gap(read)) }
            }
            Place::Gap(_) => Self::new(false, self.calls).read(piece),
            Place::Mark(0) if !piece.starts_with(b"<") => (self.calls != Calls::Always).then_some(Read::Answer),
            Place::Mark(read) => {
                let mut missing = CALL.bytes().chain([b'\n']).skip(read);
                if piece.iter().all(|&byte| missing.next() == Some(byte)) {
                    return lead(Place::Mark(read + piece.len()));
                }
                (read >= CALL.len()).then_some(Read::Call)
            }
        }
    }
}

fn is_gap(bytes: &[u8]) -> bool {
    bytes.len() <= SPACES_MAX && bytes.iter().all(|byte| b" \n\r\t".contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the pieces are: a `.` before the JSON, an `a` of an answer, a `c` of a call, an `x` that may not come.
    fn read(thinks: bool, calls: Calls, pieces: &[&str]) -> String {
        let mut lead = Lead::new(thinks, calls);
        let of_piece = |piece: &&str| match lead.read(piece.as_bytes()) {
            None => 'x',
            Some(Read::Lead(next)) => {
                lead = next;
                '.'
            }
            Some(Read::Answer) => {
                lead = lead.over(false);
                'a'
            }
            Some(Read::Call) => {
                lead = lead.over(true);
                'c'
            }
        };
        pieces.iter().map(of_piece).collect()
    }

    #[test]
    fn json_begins_behind_a_thought_and_a_mark_however_they_are_cut_into_tokens() {
        assert_eq!(read(false, Calls::Never, &["{", "}", "<"]), "aaa");
        assert_eq!(read(false, Calls::Maybe, &["{\"a\"", ":1}"]), "aa");
        assert_eq!(read(false, Calls::Maybe, &["<tool_call>", "\n", "{", "}"]), "..cc");
        assert_eq!(read(false, Calls::Always, &["<", "tool", "_call>\n", "{}"]), "...c");
        assert_eq!(read(false, Calls::Maybe, &["<tool_call>", "{"]), ".c");
        assert_eq!(read(true, Calls::Never, &["so <", "</thi", "nk>\n", "\n", "[", "1]"]), "....aa");
        assert_eq!(read(true, Calls::Maybe, &["</think>", "<tool_call>", "{}"]), "..c");
        assert_eq!(read(true, Calls::Maybe, &["<</think>", "{}"]), ".a");
    }

    #[test]
    fn no_token_is_both_and_what_would_stand_between_does_not_come() {
        assert_eq!(read(true, Calls::Never, &["hm</think>{}", "</think>", "{}"]), "x.a");
        assert_eq!(read(false, Calls::Maybe, &["<tool_call>{", "<tool", "s>", "_call>"]), "x.x.");
        assert_eq!(read(false, Calls::Always, &["{", "<tool_call>", "{"]), "x.c");
        assert_eq!(read(true, Calls::Never, &["</think>", "        ", "        ", " ", "1"]), "...xa");
    }

    #[test]
    fn an_answer_may_end_only_once_its_json_has_begun() {
        let lead = Lead::new(true, Calls::Maybe);
        assert_eq!((lead.is_call(), Lead::new(false, Calls::Always).is_call()), (None, None));
        assert_eq!((lead.over(true).is_call(), lead.over(false).is_call()), (Some(true), Some(false)));
        assert_eq!(Lead::new(false, Calls::Never).is_call(), Some(false));
    }
}
