//! Why the broker said no.

use crate::store;

/// What can fail when the broker opens or a session changes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database refused.
    #[error("failed to keep the state of client {client:?}")]
    Keep {
        /// Whose session.
        client: String,
        /// The database's reason.
        source: store::Error,
    },
    /// The database could not be read at start.
    #[error("failed to load sessions and retained messages")]
    Load(#[source] store::Error),
    /// The bound on sessions is reached.
    #[error("failed to open a session for client {client:?}: there are {limit} sessions already")]
    Sessions {
        /// Whose session.
        client: String,
        /// The configured bound.
        limit: usize,
    },
    /// The client id belongs to somebody else's session.
    #[error("failed to open a session for client {client:?}: the id belongs to another identity's session")]
    Owner {
        /// The id asked for.
        client: String,
    },
    /// A file that was set aside.
    #[error("failed to salvage sessions and messages: {problem}")]
    Salvage {
        /// What stands in the way.
        problem: String,
    },
    /// The connection was taken over or closed meanwhile.
    #[error("failed to serve client {client:?}: its connection is gone")]
    Gone {
        /// Whose session.
        client: String,
    },
}
