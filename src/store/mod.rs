//! The one SQLite file: open, migrate, one writer with group commit, readers.
