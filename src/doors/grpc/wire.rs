//! The protocol's messages, made from `open_inference.proto` by the build script.

#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::pedantic,
    clippy::all,
    reason = "generated; the .proto file says what they are"
)]

tonic::include_proto!("inference");
