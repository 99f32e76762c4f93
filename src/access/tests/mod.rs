//! Tests that need a store.

mod keys;
