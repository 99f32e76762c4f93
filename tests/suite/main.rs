//! One integration binary: real brokers, real database files, real clients, real browsers.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod arrows;
mod http_door;
mod http_fixture;
mod page_chromium;
mod webdriver;
