//! The form that an answer is held to while its tokens are chosen.

use super::error::Error;
use super::generation::Format;
use super::grammar::Grammar;
use super::json::Json;
use super::language::Language;
use super::lead::{Calls, Lead, Read};
use super::reply::Forms;
use super::schema::Schema;
use super::tokenizer::Tokenizer;

/// How far an answer is on its way to its form.
pub(super) struct Shape {
    lead: Lead,
    /// Depth, white space, numbers and half characters have bounds whatever a schema says: a model may otherwise write spaces until its
    /// tokens are spent, or numbers that no reader takes.
    json: Json,
    /// Of the answer; any object if there is none.
    answer: Option<Grammar>,
    /// Of a call, where the model may choose one or a thought stands before it.
    call: Option<Grammar>,
}

impl Shape {
    /// Of what a request wants; `forms` become those that can be found in such an answer.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the vocabulary is too large for it, [`Error::Request`] for a schema that is none.
    pub(super) fn of(language: &Language, format: &Format, forms: &mut Forms) -> Result<Option<Self>, Error> {
        let of_answer = |schema: &str| language.grammars()?.of("schema", Schema::read("schema", schema)?);
        let of_call = |tools: &str, names: &[String]| language.grammars()?.of("tools", Schema::of_call(tools, names)?);
        let thinks = forms.thinks;
        let (calls, answer, call) = match format {
            Format::Text => return Ok(None),
            Format::JsonObject => (Calls::Never, None, None),
            Format::Schema(schema) => (Calls::Never, Some(of_answer(schema)?), None),
            Format::SchemaOrCall { schema, tools } => {
                let answer = schema.as_deref().map(of_answer).transpose()?;
                (Calls::Maybe, answer, Some(of_call(tools, &[])?))
            }
            Format::Call { tools, names } if thinks => (Calls::Always, None, Some(of_call(tools, names)?)),
            // The mark is the end of the prompt: what comes is its inside.
            Format::Call { tools, names } => (Calls::Never, Some(of_call(tools, names)?), None),
        };
        let must_call = matches!(format, Format::Call { .. }) && !thinks;
        *forms = Forms { thinks, must_call, may_call: calls != Calls::Never, ..Forms::default() };
        let json = if answer.is_some() { Json::of_any_value() } else { Json::new() };
        Ok(Some(Self { lead: Lead::new(thinks, calls), json, answer, call }))
    }

    /// Whether this token may come next; one that ends the answer only where nothing is missing.
    pub(super) fn may(&self, token: u32, tokenizer: &Tokenizer) -> bool {
        if tokenizer.is_end(token) {
            return self.grammar().is_some_and(|grammar| grammar.may(token));
        }
        let piece = tokenizer.piece(token);
        if piece.is_empty() {
            return false;
        }
        let fits = |grammar: Option<&Grammar>| {
            grammar.is_none_or(|grammar| grammar.may(token)) && self.json.read(piece).is_some()
        };
        match self.lead.read(piece) {
            None => false,
            Some(Read::Lead(_)) => true,
            Some(Read::Answer) => fits(self.answer.as_ref()),
            Some(Read::Call) => fits(self.call.as_ref()),
        }
    }

    /// Reads on by a token that may come next.
    ///
    /// # Errors
    /// [`Error::Request`] if a schema takes more than its bounds.
    pub(super) fn read(&mut self, token: u32, piece: &[u8]) -> Result<(), Error> {
        let is_call = match self.lead.read(piece).ok_or(Error::Corner)? {
            Read::Lead(lead) => {
                self.lead = lead;
                return Ok(());
            }
            Read::Answer => false,
            Read::Call => true,
        };
        self.lead = self.lead.over(is_call);
        self.json = self.json.read(piece).ok_or(Error::Corner)?;
        let (grammar, other) =
            if is_call { (&mut self.call, &mut self.answer) } else { (&mut self.answer, &mut self.call) };
        *other = None;
        grammar.as_mut().map_or(Ok(()), |grammar| grammar.read(token))
    }

    /// Whether nothing may follow.
    pub(super) fn is_done(&self) -> bool {
        self.lead.is_call().is_some() && self.grammar().map_or_else(|| self.json.is_done(), Grammar::is_done)
    }

    /// The one that the answer is held to, once its JSON has begun.
    fn grammar(&self) -> Option<&Grammar> {
        match self.lead.is_call()? {
            true => self.call.as_ref(),
            false => self.answer.as_ref(),
        }
    }
}
