//! The form that an answer is held to while its tokens are chosen.

use super::error::Error;
use super::generation::Format;
use super::grammar::Grammar;
use super::json::Json;
use super::language::Language;
use super::reply::Forms;
use super::schema::Schema;
use super::tokenizer::Tokenizer;

/// How far an answer is on its way to its form.
pub(super) struct Shape {
    /// Depth, white space, numbers and half characters have bounds whatever a schema says: a model may otherwise write spaces until its
    /// tokens are spent, or numbers that no reader takes.
    json: Json,
    grammar: Option<Grammar>,
}

impl Shape {
    /// Of what a request wants; `forms` become those that can be found in such an answer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it cannot be promised, [`Error::Request`] for a schema that is none.
    pub(super) fn of(language: &Language, format: &Format, forms: &mut Forms) -> Result<Option<Self>, Error> {
        let promised = match format {
            Format::Text => return Ok(None),
            Format::JsonObject => "JSON mode",
            Format::Schema(_) => "a schema",
            Format::Call { .. } => "a tool that must be called",
        };
        let calls = matches!(format, Format::Call { .. });
        if forms.thinks || forms.calls && !calls {
            let with = if forms.thinks { "a template that begins a thought" } else { "tools" };
            let instead = "ask for one of the two".to_owned();
            return Err(Error::Unsupported { what: format!("{promised} together with {with}"), instead });
        }
        *forms = Forms { must_call: calls, calls, ..Forms::default() };
        let (field, schema) = match format {
            Format::Text | Format::JsonObject => return Ok(Some(Self { json: Json::new(), grammar: None })),
            Format::Schema(text) => ("schema", Schema::read("schema", text)?),
            Format::Call { tools, names } => ("tools", Schema::of_call(tools, names)?),
        };
        let grammar = language.grammars()?.of(field, schema)?;
        Ok(Some(Self { json: Json::of_any_value(), grammar: Some(grammar) }))
    }

    /// Whether this token may come next; one that ends the answer only where nothing is missing.
    pub(super) fn may(&self, token: u32, tokenizer: &Tokenizer) -> bool {
        if let Some(grammar) = &self.grammar {
            if !grammar.may(token) {
                return false;
            }
            if tokenizer.is_end(token) {
                return true;
            }
        }
        let piece = tokenizer.piece(token);
        !piece.is_empty() && self.json.read(piece).is_some()
    }

    /// Reads on by a token that may come next.
    ///
    /// # Errors
    /// [`Error::Request`] if a schema takes more than its bounds.
    pub(super) fn read(&mut self, token: u32, piece: &[u8]) -> Result<(), Error> {
        self.json = self.json.read(piece).ok_or(Error::Corner)?;
        self.grammar.as_mut().map_or(Ok(()), |grammar| grammar.read(token))
    }

    /// Whether nothing may follow.
    pub(super) fn is_done(&self) -> bool {
        self.grammar.as_ref().map_or_else(|| self.json.is_done(), Grammar::is_done)
    }
}
