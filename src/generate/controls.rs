//! What templates and messages know of a vocabulary: the names that steer.

/// The control tokens of a model, by their names.
pub(super) trait Controls: Send + Sync {
    /// Whether a control or added token is called so.
    fn has(&self, name: &str) -> bool;

    /// The names of the tokens of the beginning and the end; empty where there is none.
    fn outer_names(&self) -> [String; 2];

    /// The text with every name of a control token in it broken, so that none of them steers the model when it stands in a
    /// turn.
    fn shielded(&self, text: &str) -> String;
}
