//! A model in this process speaks OpenAI's chat and completions like one elsewhere: its request is read here, and its
//! words are written here, so that every dialect that can be answered by chat can be answered by it.

mod chat;
mod completion;
mod settings;
#[cfg(test)]
mod tests;
mod token;

pub use chat::{ChatRequest, ChatWriter, LocalAnswer, LocalCall, LocalChoice};
pub use completion::{CompletionRequest, CompletionWriter, LocalPrompt, completion_body};
pub use settings::LocalSettings;
pub use token::LocalToken;
