//! Why a region cannot be registered or used.

/// What went wrong, as each door tells it with a status of its own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::doors) enum RegionError {
    /// The configuration has no such section.
    #[error("shared memory is off: [shared_memory] in the configuration lets programs on this machine use it")]
    Off,
    /// The caller is on another machine, the name is not one that may be used, or the file is somebody else's.
    #[error("{0}")]
    Forbidden(String),
    /// No such region of this caller.
    #[error("{0}")]
    Unknown(String),
    /// A bound is reached.
    #[error("{0}")]
    Full(String),
    /// Numbers or names that do not fit.
    #[error("{0}")]
    Wrong(String),
    /// The file is not what it was when it was registered.
    #[error("{0}")]
    Changed(String),
}

impl RegionError {
    /// The same, with the tensor in front that it is about.
    pub(super) fn about(self, what: &str, name: &str) -> Self {
        let text = |detail: String| format!("{what} {name:?}: {detail}");
        match self {
            Self::Off => Self::Forbidden(text(Self::Off.to_string())),
            Self::Forbidden(detail) => Self::Forbidden(text(detail)),
            Self::Unknown(detail) => Self::Unknown(text(detail)),
            Self::Full(detail) => Self::Full(text(detail)),
            Self::Wrong(detail) => Self::Wrong(text(detail)),
            Self::Changed(detail) => Self::Changed(text(detail)),
        }
    }
}
